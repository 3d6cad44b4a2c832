"""Making the planned stacks: read, normalise, transform, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryobridge.errors import CryobridgeError
from cryobridge.formats.arrays import write_npz, write_pt
from cryobridge.formats.mrc import MrcFile, open_mrc
from cryobridge.fourier.devices import pick_device
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.images import normalise_fourier, normalise_images
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobdir import job_record, make_folder, refuse_existing, remove_existing
from cryobridge.progress import Reporter, Silent
from cryobridge.stacks.output import (
    existing_outputs,
    fourier_stack_path,
    lens_path,
    physical_stack_path,
    stack_arrays,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.stacks.plan import StackPlan, StackTask

# Images held while they are transformed, whatever the size of a stack.
_CHUNK_BYTES = 256 << 20
_CONTENTS = """\
fft/particles_fourier_stack_NNNNNN.pt   images on the polar grid, complex (image, shell, angle), norm 1
fft/particles_fourier_stack_NNNNNN.npz  grid, lens data, and the rows of the metadata that the images are of
phys/particles_phys_stack_NNNNNN.pt     the images, mean 0, largest absolute value 1"""


def convert_stacks(
    plan: StackPlan,
    folder: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    physical: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Make the planned stacks in a folder.

    Parameters
    ----------
    plan
        As `cryobridge.stacks.plan.plan_stacks` returns it.
    folder
        The output folder.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    overwrite
        Remove stacks that are there, all of them, and make new ones.
    physical
        Whether to write the normalised real-space images too.
    reporter
        Who is told of the progress.

    Returns
    -------
    dict
        The report: images in and out, stacks, files, and the notes of the plan.

    Raises
    ------
    OutputExistsError
        If a stack is there already; nothing has been touched then.
    CryobridgeError
        If an image is constant or not finite; the stacks before it are whole.
    """
    reporter = reporter or Silent()
    check_output(folder, device, overwrite=overwrite)
    maker = _StackMaker(plan, device)
    report = plan_report(plan, folder)
    with job_record(folder, f"Fourier stacks of {plan.particles.source.name}", _CONTENTS) as record:
        record.report = report
        for subfolder in ("fft", "phys") if physical else ("fft",):
            make_folder(folder / subfolder)
        remove_existing(existing_outputs(folder))
        reporter.start("images", report["images_out"])
        for task in plan.tasks:
            images, polar = maker.make(task, reporter)
            if physical:
                write_pt(physical_stack_path(folder, task.number), images)
            write_npz(lens_path(folder, task.number), stack_arrays(plan, task))
            # Last, since a stack counts as there when this file is.
            write_pt(fourier_stack_path(folder, task.number), polar)
    return report


def check_output(folder: Path, device: str, *, overwrite: bool) -> None:
    """Check where stacks are to go and what they are to be made on, before anything is written.

    Raises
    ------
    OutputExistsError
        If there are stacks in the folder already, unless they may be replaced.
    UsageError
        If the device is not there.
    """
    refuse_existing(existing_outputs(folder), overwrite=overwrite)
    pick_device(device)


def plan_report(plan: StackPlan, folder: Path) -> dict[str, Any]:
    """Return what a plan will make in a folder, as JSON-ready data."""
    grid = _grid(plan)
    return {
        "images_in": plan.particles.n_rows,
        "images_out": sum(len(task.rows) for task in plan.tasks),
        "stacks": len(plan.tasks),
        "box_px": plan.descriptor.n_pixels[0],
        "pixel_size_A": plan.descriptor.pixel_size_A[0],
        "shells": grid.n_shells,
        "angles": grid.n_inplanes,
        "notes": list(plan.notes),
        "outputs": [str(fourier_stack_path(folder, task.number)) for task in plan.tasks],
    }


def _grid(plan: StackPlan) -> PolarGrid:
    return PolarGrid(plan.descriptor.radius_max, plan.descriptor.dist_radii, plan.descriptor.n_inplanes)


class _StackMaker:
    """Turns the rows of a task into tensors."""

    def __init__(self, plan: StackPlan, device: str) -> None:
        descriptor = plan.descriptor
        self.grid = _grid(plan)
        self._plan = plan
        self._dtype = torch.float32 if descriptor.precision == "single" else torch.float64
        self._device = pick_device(device)
        self._transform = PolarTransform(self.grid, descriptor.n_pixels, dtype=self._dtype, device=self._device)
        self._open: dict[Path, MrcFile] = {}

    def make(self, task: StackTask, reporter: Reporter) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the normalised images (n, N, N) and their transforms (n, shells, angles) of one stack."""
        n_0, n_1 = self._plan.descriptor.n_pixels
        n = len(task.rows)
        complex_type = torch.complex64 if self._dtype == torch.float32 else torch.complex128
        images = torch.empty((n, n_0, n_1), dtype=self._dtype)
        polar = torch.empty((n, self.grid.n_shells, self.grid.n_inplanes), dtype=complex_type)
        step = max(1, _CHUNK_BYTES // (n_0 * n_1 * images.element_size()))
        for first in range(0, n, step):
            rows = task.rows[first : first + step]
            chunk = slice(first, first + len(rows))
            pixels = torch.from_numpy(self._read(rows)).to(self._device, self._dtype)
            images[chunk], unusable = normalise_images(pixels)
            self._refuse(rows, unusable)
            # On a CPU the transform is written where it stays.
            out = polar[chunk] if self._device.type == "cpu" else None
            transformed = self._transform.forward(images[chunk].to(self._device), out=out)
            transformed, unusable = normalise_fourier(transformed, self.grid, out=transformed)
            self._refuse(rows, unusable)
            if out is None:
                polar[chunk] = transformed.cpu()
            reporter.advance(len(rows))
        return images, polar

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the images of these rows, each file once and in its own order."""
        refs = self._plan.images
        codes, index = refs.path.codes[rows], refs.index[rows]
        n_0, n_1 = self._plan.descriptor.n_pixels
        pixels = np.empty((len(rows), n_0, n_1), np.float32)
        for code in np.unique(codes):
            chosen = codes == code
            pixels[chosen] = self._file(self._plan.files[code]).read(index[chosen])
        return pixels

    def _file(self, path: Path) -> MrcFile:
        if path not in self._open:
            self._open[path] = open_mrc(path)
        return self._open[path]

    def _refuse(self, rows: NDArray[np.int64], unusable: torch.Tensor) -> None:
        bad = rows[unusable.cpu().numpy()]
        if len(bad) == 0:
            return
        refs = self._plan.images
        row = int(bad[0])
        raise CryobridgeError(
            f"image {refs.index[row] + 1} is constant or holds NaN or infinity, and has no transform",
            path=self._plan.files[refs.path.codes[row]],
            rows=tuple(int(row) for row in bad[:3]),
            count=len(bad),
            hint=f"Leave out these rows of {self._plan.particles.source}.",
        )
