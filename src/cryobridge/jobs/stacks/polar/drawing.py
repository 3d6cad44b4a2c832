"""Pictures of stacks, drawn in a process of their own: matplotlib would keep the transform waiting for Python's lock.

A process of another program rather than a fork: that is safe beside threads and GPUs, and in any script or notebook.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.atomic import atomic_path, leftovers
from cryobridge.fourier.grid import PolarGrid
from cryobridge.jobs.output_folder import make_subfolder, remove_existing
from cryobridge.jobs.stacks.polar.output import plot_paths
from cryobridge.plots.page import lay_out, style
from cryobridge.plots.stacks import stack_sheets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryobridge.jobs.stacks.plan import StackResult
    from cryobridge.jobs.stacks.polar.plan import PolarPlan

_LENGTH_BYTES = 8
_LOW_PRIORITY = 10
# Noise fills most of a sheet and hardly shrinks, however long it is packed.
_PNG: dict[str, Any] = {"format": "png", "pil_kwargs": {"compress_level": 1}}
# The style of a page lies in settings that all threads share.
_drawing = threading.Lock()


def draw_stack(folder: Path, number: int, *content: Any, **more: Any) -> tuple[Path, Path, Path]:
    """Draw a stack into ``plots`` of an output folder; pictures that are there are replaced.

    It may run in a thread or process of its own.

    Parameters
    ----------
    folder
        The output folder.
    number
        Running number of the stack.
    content, more
        What `cryobridge.plots.stacks.stack_sheets` takes besides.

    Returns
    -------
    tuple of pathlib.Path
        The three pictures: images, transforms, power spectrum.

    Raises
    ------
    UsageError
        If there are no images, or shapes don't match.
    CryobridgeError
        If a picture can't be written.
    """
    sheets = stack_sheets(number, *content, **more)
    targets = plot_paths(folder, number)
    make_subfolder(targets[0].parent)
    for sheet, target in zip(sheets, targets, strict=True):
        with _drawing, style(), atomic_path(target) as temporary:
            lay_out(sheet).savefig(temporary, **_PNG)
    return targets


@contextmanager
def drawing(plan: PolarPlan, folder: Path) -> Iterator[Callable[[StackResult], None]]:
    """Yield what has a finished stack drawn beside the work; leaving the block well waits for the last of them."""
    with DrawingProcess(plan, folder) as process:
        yield process.draw


class DrawingProcess(AbstractContextManager["DrawingProcess"]):
    """Draws pictures of finished stacks beside the work; leaving the block well waits for the last of them.

    Raises
    ------
    CryobridgeError
        On leaving, if pictures could not be drawn.
    """

    def __init__(self, plan: PolarPlan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._resources = ExitStack()

    def draw(self, result: StackResult) -> None:
        """Have a stack drawn; waits only when the process lags behind."""
        source, descriptor, preview = self._plan.source, self._plan.descriptor, result.preview
        refs = source.images
        names = [f"{refs.index[row] + 1} @ {Path(refs.path[row]).name}" for row in preview.rows.tolist()]
        message = io.BytesIO()
        np.savez(
            message,
            number=result.number,
            n_images=preview.n_images,
            images=preview.images.numpy(),
            polar=preview.polar.numpy(),
            power=preview.power.numpy(),
            names=np.array(names),
            pixel_size_A=np.array(descriptor.pixel_size_A),
            grid=np.array([descriptor.radius_max, descriptor.dist_radii]),
            n_inplanes=descriptor.n_inplanes,
        )
        stdin = self._started().stdin
        assert stdin is not None
        try:
            with message.getbuffer() as data:
                stdin.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
                stdin.write(data)
                stdin.flush()
        except BrokenPipeError:
            self._finish()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._resources:
            if self._process is not None:
                self._resources.callback(self._clear_away)
                self._resources.callback(self._process.wait)
                self._resources.callback(self._process.kill)
                if kind is None:
                    self._finish()

    def _clear_away(self) -> None:
        """Remove a picture that was being drawn when the process was ended."""
        remove_existing(leftovers(self._folder / "plots"))

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._complaints = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed on leaving
            command = [sys.executable, "-m", "cryobridge.jobs.stacks.polar.drawing", str(self._folder)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._complaints)
        return self._process

    def _finish(self) -> None:
        assert self._process is not None
        self._process.communicate()
        if self._process.returncode != 0:
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            raise CryobridgeError(
                f"the pictures could not be drawn ({lines[-1] if lines else 'the process was ended'})",
                path=self._folder / "plots",
                hint=f"The stacks are whole. {option('resume')} draws what is missing, {option('plots', 'False')} goes "
                "without.",
            )


def _draw_messages(folder: Path, stream: IO[bytes]) -> None:
    while length := stream.read(_LENGTH_BYTES):
        message = np.load(io.BytesIO(stream.read(int.from_bytes(length, "little"))))
        radius_max, dist_radii = message["grid"].tolist()
        draw_stack(
            folder,
            int(message["number"]),
            message["images"],
            message["polar"],
            PolarGrid(radius_max, dist_radii, int(message["n_inplanes"])),
            tuple(message["pixel_size_A"].tolist()),
            message["names"].tolist(),
            power=message["power"],
            n_images=int(message["n_images"]),
        )


if __name__ == "__main__":
    os.nice(_LOW_PRIORITY)
    _draw_messages(Path(sys.argv[1]), sys.stdin.buffer)
