"""The stacks jobs as functions: particles of any kind in, a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from cryobridge.jobs.job import carried_out
from cryobridge.jobs.shared_options import ImageSearchOptions, Options
from cryobridge.jobs.stacks.cropping.inputs import read_downsample_input
from cryobridge.jobs.stacks.cropping.plan import plan_downsample
from cryobridge.jobs.stacks.grid import write_grid_file
from cryobridge.jobs.stacks.inputs import read_stack_input
from cryobridge.jobs.stacks.options import (
    DownsampleOptions,
    GridImages,
    GridOptions,
    PairedOptions,
    SharingOptions,
    StackOptions,
)
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from cryobridge.jobs.stacks.report import DownsampleReport, GridReport, StacksReport
from cryobridge.jobs.stacks.run import StackJob, executor_for
from cryobridge.options import as_path, checked, made, takes

if TYPE_CHECKING:
    import os

    from cryobridge.executors.base import Executor
    from cryobridge.progress import Reporter

    AnyPath = str | os.PathLike[str]

T = TypeVar("T", bound=Options)


@dataclass(frozen=True, kw_only=True)
class StacksKeywords(StackOptions, PairedOptions, ImageSearchOptions, SharingOptions):
    """All keywords of `stacks`."""


@dataclass(frozen=True, kw_only=True)
class DownsampleKeywords(DownsampleOptions, ImageSearchOptions, SharingOptions):
    """All keywords of `downsample`."""


@takes(StacksKeywords)
def stacks(
    particles: AnyPath | Sequence[tuple[AnyPath, AnyPath]],
    output: AnyPath,
    *,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    verify_outputs: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> StacksReport:
    """Make Fourier-polar stacks of particle images, as CryoLike reads them.

    Parameters
    ----------
    particles
        A `.cs` or `.csg` file, a RELION STAR file, a cryoSPARC job folder (of a Restack or Downsample Particles job its
        batches), or a list of pairs of a STAR file and the stack that its rows describe.
    output
        The output folder.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, or several, ``"cuda:0,cuda:1"``.
    overwrite
        Remove stacks that are there, all of them, and make new ones.
    resume
        Keep stacks that are whole and were made from the same inputs and options, and make the rest.
    verify_outputs
        With ``resume``, read stacks that are there through, rather than compare their sizes and ends.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    executor
        Who makes the stacks; this process on ``device`` unless another is given.
    **options
        The fields of `StacksKeywords`.

    Returns
    -------
    StacksReport
        Its ``outputs`` are the Fourier stacks.

    Raises
    ------
    UsageError
        If an argument is of the wrong type, or options contradict one another or the files.
    OutputExistsError
        If stacks are there already, and neither overwriting nor resuming was asked for.
    CryobridgeError
        If the input can't be read or lacks something, or an image can't be used; the stacks before it are whole.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.stacks("J4/J4_003_particles.cs", "fourier", batch_size=256, plots=False)
    >>> report = cb.stacks([("a.star", "a.mrc"), ("b.star", "b.mrc")], "fourier", params="params.npz")
    """
    given = made(StacksKeywords, options)
    runs_on = executor_for(checked(device, str, "device"), given, executor)
    folder = as_path(output, "output")
    source = read_stack_input(
        particles, _part(given, ImageSearchOptions), given.on_missing, _part(given, PairedOptions)
    )
    job = StackJob(
        plan_stacks(source, given),
        folder,
        runs_on,
        resume=resume,
        verify_outputs=verify_outputs,
        finish=given.finish,
    )
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)


@takes(DownsampleKeywords)
def downsample(
    particles: AnyPath,
    output: AnyPath,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    resume: bool = False,
    verify_outputs: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> DownsampleReport:
    """Make particle images smaller by Fourier cropping, with metadata for RECOVAR, cryoDRGN and RELION.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, a cryoSPARC job folder, or a stack (`.mrcs`).
    output
        The output folder.
    device
        ``"cpu"``, ``"auto"``, ``"cuda"`` …
    overwrite
        Replace what is there.
    resume
        Go on where an interrupted run stopped.
    verify_outputs
        With ``resume``, read stacks that are there through, and begin unfinished ones anew.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    executor
        Who makes the stacks; this process on ``device`` unless another is given.
    **options
        ``box_px`` has to be given. The fields of `DownsampleKeywords`.

    Returns
    -------
    DownsampleReport
        Its ``stacks`` are the new images, its ``outputs`` the files beside them.

    Raises
    ------
    UsageError, OutputExistsError, CryobridgeError
        As `stacks`; with ``resume`` a later call goes on behind the images that are written.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.downsample("relion/refined.star", "small", box_px=128)
    """
    given = made(DownsampleKeywords, options)
    runs_on = executor_for(checked(device, str, "device"), given, executor)
    folder, path = as_path(output, "output"), as_path(particles, "particles")
    source = read_downsample_input(path, given.image_search(path), given)
    job = StackJob(
        plan_downsample(source, given),
        folder,
        runs_on,
        resume=resume,
        verify_outputs=verify_outputs,
        finish=given.finish,
    )
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)


@takes(GridOptions)
def write_grid(
    output: AnyPath, *, n_pixels: int, pixel_size_A: float, overwrite: bool = False, **options: Any
) -> GridReport:
    """Write a parameter file: box, pixel size and polar grid, for ``params`` of `stacks` and for CryoLike.

    Parameters
    ----------
    output
        The `.npz` file.
    n_pixels, pixel_size_A
        Box and pixel size of the images.
    overwrite
        Replace a file that is there.
    **options
        The fields of `GridOptions`.

    Raises
    ------
    UsageError
        If a value is impossible, or the name does not end in `.npz`.
    OutputExistsError
        If the file is there.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.write_grid("params.npz", n_pixels=96, pixel_size_A=1.5)
    """
    images = GridImages(n_pixels=n_pixels, pixel_size_A=pixel_size_A)
    return write_grid_file(as_path(output, "output"), images, made(GridOptions, options), overwrite=overwrite)


def _part(options: Options, kind: type[T]) -> T:
    """Return the fields of a base class of an options dataclass as one of its own."""
    return kind(**{item.name: getattr(options, item.name) for item in fields(kind)})
