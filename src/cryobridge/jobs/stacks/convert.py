"""Making the planned stacks in a folder: what is there already, who does the work, and the report."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from cryobridge.errors import UsageError
from cryobridge.fourier.devices import pick_devices
from cryobridge.jobs.output_folder import (
    job_record,
    make_subfolder,
    refuse_busy,
    refuse_existing,
    refuse_folder_of_others,
    remove_existing,
    require_space,
)
from cryobridge.jobs.stacks.drawing import DrawingProcess
from cryobridge.jobs.stacks.execute import DeviceExecutor, Executor, StackResult
from cryobridge.jobs.stacks.output import (
    existing_outputs,
    fourier_stack_path,
    image_bytes,
    stack_files,
    unfinished_outputs,
    whole_stacks,
)
from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import torch

    from cryobridge.jobs.stacks.plan import StackPlan

_CONTENTS = """\
fft/particles_fourier_stack_NNNNNN.pt   images on the polar grid, complex (image, shell, angle), norm 1
fft/particles_fourier_stack_NNNNNN.npz  grid, lens data, and the rows of the metadata that the images are of
phys/particles_phys_stack_NNNNNN.pt     the images, mean 0, largest absolute value 1
plots/*_stack_NNNNNN.png                images, transforms and power spectrum of each stack"""
_UNUSABLE = "constant, or holds NaN or infinity"
_N_ROWS_SHOWN = 10


def convert_stacks(
    plan: StackPlan,
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Make the planned stacks in a folder.

    Parameters
    ----------
    plan
        As `cryobridge.jobs.stacks.plan.plan_stacks` returns it.
    folder
        The output folder.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, or several, ``"cuda:0,cuda:1"``.
    overwrite
        Remove stacks that are there, all of them, and make new ones.
    resume
        Keep stacks that are whole and were made from the same inputs and parameters, and make the rest.
    reporter
        Who is told of the progress.
    executor
        Who makes the stacks; this process on ``device`` unless another is given.

    Returns
    -------
    dict
        The report: images in and out, those left out and why, stacks, files, and the notes of the plan.

    Raises
    ------
    OutputExistsError
        If stacks are there already, and neither overwriting nor resuming was asked for. Nothing has been touched then.
    UsageError
        If the folder is another program's job.
    CryobridgeError
        If an image can't be read or used; the stacks before it are whole.
    """
    folder, reporter = as_path(folder, "folder"), reporter or Silent()
    refuse_busy(folder)
    devices = check_output(folder, device, overwrite=overwrite, resume=resume)
    whole = whole_stacks(plan, folder) if resume else {}
    todo = [task for task in plan.tasks if task.number not in whole]
    if executor is None and todo:
        executor = DeviceExecutor(plan, devices)
    _require_space(plan, folder, whole)
    report = plan_report(plan, folder)
    tally = _Tally(plan, whole, reporter)
    title = f"Fourier stacks of {plan.source.particles.source.name}"
    check = partial(_refuse_existing, folder, overwrite=overwrite, resume=resume)
    with job_record(folder, title, _CONTENTS, check=check) as record:
        record.report = report
        _make_room(plan, folder, whole)
        reporter.start("images", sum(len(task.rows) for task in todo))
        with DrawingProcess(plan, folder) if plan.options.plots else nullcontext() as drawing:

            def done(result: StackResult) -> None:
                tally.add(result)
                if drawing is not None:
                    drawing.draw(result)

            if executor is not None and todo:
                executor.run(folder, todo, advance=reporter.advance, done=done)
        tally.complete(report)
    return report


def check_output(folder: Path, device: str, *, overwrite: bool, resume: bool = False) -> tuple[torch.device, ...]:
    """Check where stacks are to go and what they are to be made on, before anything is written.

    Returns
    -------
    tuple of torch.device
        The devices that were named.

    Raises
    ------
    OutputExistsError
        If there are stacks in the folder already, unless they may be replaced or kept.
    UsageError
        If a device is not there, the folder is another program's job, or both overwriting and resuming are asked for.
    """
    if overwrite and resume:
        raise UsageError("--overwrite replaces what --resume would keep", hint="Choose one.")
    _refuse_existing(folder, overwrite=overwrite, resume=resume)
    return pick_devices(device)


def check_space(plan: StackPlan, folder: Path, *, resume: bool = False) -> None:
    """Check whether the disk has room for the stacks; `convert_stacks` does so by itself.

    Raises
    ------
    CryobridgeError
        If it has too little.
    """
    _require_space(plan, folder, whole_stacks(plan, folder) if resume else {})


def _refuse_existing(folder: Path, *, overwrite: bool, resume: bool) -> None:
    refuse_folder_of_others(folder, overwrite=overwrite)
    if not resume:
        refuse_existing(existing_outputs(folder), overwrite=overwrite)


def plan_report(plan: StackPlan, folder: Path) -> dict[str, Any]:
    """Return what a plan will make in a folder, as JSON-ready data."""
    return {
        "images_in": plan.source.particles.n_rows,
        "images_out": sum(len(task.rows) for task in plan.tasks),
        "left_out": dict(plan.left_out),
        "stacks": len(plan.tasks),
        "images_per_stack": [len(task.rows) for task in plan.tasks],
        "box_px": list(plan.descriptor.n_pixels),
        "pixel_size_A": plan.descriptor.pixel_size_A[0],
        "shells": plan.grid.n_shells,
        "angles": plan.grid.n_inplanes,
        "precision": plan.descriptor.precision,
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "outputs": [str(fourier_stack_path(folder, task.number)) for task in plan.tasks],
    }


def _require_space(plan: StackPlan, folder: Path, whole: dict[int, int]) -> None:
    """Refuse stacks that the disk has no room for, pictures and lens data aside; what is not kept is removed first."""
    hint = "Make room, or choose another disk with -o."
    if plan.options.physical:
        hint += " --no-phys leaves out the images themselves."
    n_images = sum(len(task.rows) for task in plan.tasks if task.number not in whole)
    freed = [*_replaced(folder, whole), *unfinished_outputs(folder)]
    require_space(folder, n_images * image_bytes(plan), hint, freed=freed)


def _replaced(folder: Path, whole: dict[int, int]) -> list[Path]:
    kept = {path for number in whole for path in stack_files(folder, number)}
    return [path for path in existing_outputs(folder) if path not in kept]


def _make_room(plan: StackPlan, folder: Path, whole: dict[int, int]) -> None:
    """Make the folders, and remove earlier stacks but those that are kept: a reader would take them for new ones."""
    for file in stack_files(folder, 0, physical=plan.options.physical, plots=plan.options.plots):
        make_subfolder(file.parent)
    # Fourier stacks first: a stack counts as there when that file is.
    remove_existing(_replaced(folder, whole))
    remove_existing(unfinished_outputs(folder))


class _Tally:
    """Counts what became of each image."""

    def __init__(self, plan: StackPlan, whole: dict[int, int], reporter: Reporter) -> None:
        self._plan = plan
        self._reporter = reporter
        self._n_kept_stacks = self._n_stacks = len(whole)
        self._n_images = sum(whole.values())
        self._unusable_rows: list[int] = []

    def add(self, result: StackResult) -> None:
        """Count a stack that was made."""
        self._n_stacks += 1
        self._n_images += result.n_images
        self._unusable_rows += self._plan.source.metadata_rows[result.unusable_rows].tolist()
        self._reporter.now(f"stack {self._n_stacks:,} of {len(self._plan.tasks):,}")

    def complete(self, report: dict[str, Any]) -> None:
        """Put the counts into the report of the plan."""
        if self._n_kept_stacks:
            report["stacks_kept"] = self._n_kept_stacks
        n_unusable = report["images_out"] - self._n_images
        report["images_out"] = self._n_images
        if n_unusable:
            report["left_out"][_UNUSABLE] = n_unusable
        if rows := self._unusable_rows:
            shown = ", ".join(map(str, rows[:_N_ROWS_SHOWN])) + (" …" if len(rows) > _N_ROWS_SHOWN else "")
            report["notes"].append(f"images that can't be used were left out: rows {shown}")
