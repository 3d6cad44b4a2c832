"""Writing the files of one Fourier stack, chunk by chunk."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cryobridge.errors import CryobridgeError
from cryobridge.formats.arrays import write_npz
from cryobridge.formats.file_record import RECORDS, records_text
from cryobridge.formats.pt_write import TensorWriter, tensor_writer
from cryobridge.jobs.stacks.plan import fingerprint
from cryobridge.jobs.stacks.polar.output import (
    FINGERPRINT,
    fourier_stack_path,
    lens_path,
    physical_stack_path,
    stack_arrays,
)
from cryobridge.jobs.stacks.polar.preview import Preview, PreviewMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.formats.table import Array
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.plan import StackTask
    from cryobridge.jobs.stacks.polar.plan import PolarPlan
    from cryobridge.jobs.stacks.polar.transform import Transformed

# Of the images, in either precision, as in CryoLike: their files have no more digits.
IMAGE_TYPE = torch.float32


class OpenPolarStack:
    """The files of a stack that is being written; see `cryobridge.jobs.stacks.plan.OpenStack`."""

    def __init__(self, fourier: TensorWriter, physical: TensorWriter | None, previews: PreviewMaker | None) -> None:
        self._fourier = fourier
        self._physical = physical
        self._previews = previews
        self._kept: list[Rows] = []
        self._left_out: list[Rows] = []

    @property
    def kept(self) -> Rows:
        """The rows that were written."""
        return _joined(self._kept)

    @property
    def left_out(self) -> Rows:
        """The rows that were left out."""
        return _joined(self._left_out)

    @property
    def preview(self) -> Preview | None:
        """What pictures of the stack are drawn from, or None."""
        return self._previews.preview() if self._previews else None

    def leave_out(self, rows: Rows) -> None:
        """Note rows whose images can't be used."""
        self._left_out.append(rows)

    def write(self, rows: Rows, made: Transformed, is_usable: Array) -> None:
        """Append the usable images (n, N, N) of a chunk and their transforms (n, shells, angles)."""
        images, polar = made.images, made.polar
        if not is_usable.all():
            usable = torch.from_numpy(is_usable)
            images, polar = images[usable], polar[usable]
        if self._physical is not None:
            self._physical.write(images)
        self._fourier.write(polar)
        self._kept.append(rows)
        if self._previews is not None:
            self._previews.add(rows, images, polar)
        made.release()


def _joined(parts: list[Rows]) -> Rows:
    return np.concatenate([np.zeros(0, np.int64), *parts])


@contextmanager
def open_stack(plan: PolarPlan, folder: Path, task: StackTask, complex_type: torch.dtype) -> Iterator[OpenPolarStack]:
    """Write the files of one stack; they appear when the block ends well, the Fourier stack last.

    Raises
    ------
    CryobridgeError
        If the operating system refuses, or no image was written.
    """
    number = task.number
    box = (plan.descriptor.n_pixels[0], plan.descriptor.n_pixels[1])
    polar_shape = (plan.grid.n_shells, plan.grid.n_inplanes)
    previews = PreviewMaker(task.rows) if plan.options.plots else None
    with tensor_writer(fourier_stack_path(folder, number), polar_shape, complex_type) as fourier:
        images = tensor_writer(physical_stack_path(folder, number), box, IMAGE_TYPE)
        with images if plan.options.physical else nullcontext() as physical:
            stack = OpenPolarStack(fourier, physical, previews)
            yield stack
            if len(stack.kept) == 0:
                raise CryobridgeError(
                    f"no image of stack {number} can be used: all are constant or hold NaN or infinity",
                    path=plan.source.particles.source,
                    hint="Check the image files with `cryobridge inspect`.",
                )
            writers = {fourier_stack_path(Path(), number): fourier}
            writers |= {} if physical is None else {physical_stack_path(Path(), number): physical}
            records = {path.as_posix(): writer.finish() for path, writer in writers.items()}
        arrays = stack_arrays(plan, stack.kept, task.start)
        # Of the planned rows, not those that were kept: what is compared must be known before the work.
        made_from = {FINGERPRINT: np.array(fingerprint(plan, task)), RECORDS: np.array(records_text(records))}
        write_npz(lens_path(folder, number), arrays | made_from)
