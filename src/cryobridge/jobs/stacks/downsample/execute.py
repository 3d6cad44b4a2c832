"""Downsampling particles in a folder: what is there already, the work, and the report."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from cryobridge.errors import MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.mrc_write import partial_path
from cryobridge.formats.particles_pickle import write_pickles
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.output_folder import (
    files_in,
    job_record,
    refuse_busy,
    refuse_existing,
    refuse_folder_of_others,
    remove_existing,
    require_space,
)
from cryobridge.jobs.stacks.downsample.images import StackMaker
from cryobridge.jobs.stacks.downsample.metadata import downsampled_metadata, write_sources
from cryobridge.jobs.stacks.downsample.plan import DownsamplePlan, plan_report
from cryobridge.jobs.stacks.downsample.state import DownsampleState
from cryobridge.options import as_path
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    import os
    from pathlib import Path

_CONTENTS = """\
particles.N.mrcs          the downsampled images, N px; particles.N.0.mrcs … and particles.N.txt where in several files
particles.N.star          their metadata: pixel and image size corrected, shifts in Å as they were
particles.N_sources.csv   the row, file and slice of the source (counted from 0) and the uid of each image
poses.pkl, ctf.pkl        poses and CTF for cryoDRGN and RECOVAR, where they are known"""
_UNUSABLE = "holds NaN or infinity"
_PICKLES = ("poses.pkl", "ctf.pkl")


def downsample(
    plan: DownsamplePlan,
    folder: str | os.PathLike[str],
    *,
    device: str = "cpu",
    overwrite: bool = False,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Make the planned images in a folder.

    Parameters
    ----------
    plan
        As `cryobridge.jobs.stacks.downsample.plan.plan_downsample` returns it.
    folder
        The output folder.
    device
        ``"cpu"``, ``"auto"``, ``"cuda"`` …
    overwrite
        Replace what is there.
    resume
        Go on where an interrupted run stopped.
    reporter
        Who is told of the progress.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    UsageError
        If the device is not there, or the folder is another program's job.
    OutputExistsError
        If outputs are there already, and neither overwriting nor resuming was asked for.
    CryobridgeError
        If an image can't be read or used; with ``resume`` a later call goes on behind those that are written.
    """
    folder, reporter = as_path(folder, "folder"), reporter or Silent()
    check_device(device)
    check = partial(check_folder, plan, folder, overwrite=overwrite, resume=resume)
    refuse_busy(folder)
    try:
        check()
    except OutputExistsError:
        # A run that began since has not left its unfinished images there, it is at work on them.
        refuse_busy(folder)
        raise
    state = DownsampleState(_state_path(plan, folder), plan.fingerprint(), resume=resume)
    report = plan_report(plan, folder)
    reporter.start("images", len(plan.source.particles))
    title = f"{plan.source.particles.source.name} downsampled"
    with (
        StackMaker(plan, folder, device, state, reporter.advance) as maker,
        job_record(folder, title, _CONTENTS, check=check) as record,
    ):
        record.report = report
        if not (resume and state.path.is_file()):
            remove_existing(_outputs(plan, folder))
            state.write()
        for stack in plan.stacks:
            if (folder / stack.name).is_file():
                reporter.advance(len(stack.places))
            else:
                maker.make(stack)
        _write_metadata(plan, folder, state, report)
    return report


def check_device(name: str) -> None:
    """Refuse a device that this machine lacks; "cpu" needs no torch.

    Raises
    ------
    UsageError
        If there is no such device.
    """
    if name != "cpu":
        from cryobridge.fourier.devices import pick_device

        pick_device(name)


def check_folder(plan: DownsamplePlan, folder: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Check where the images are to go, before anything is written.

    Raises
    ------
    UsageError
        If a file that is read would be written, both overwriting and resuming are asked for, the folder is another
        program's job, or images of another size are there, to which poses.pkl and ctf.pkl belong.
    OutputExistsError
        If there are outputs in the folder already, unless they may be replaced or gone on with.
    CryobridgeError
        If the disk has not enough space.
    """
    if overwrite and resume:
        raise UsageError("--overwrite replaces what --resume would keep", hint="Choose one.")
    refuse_folder_of_others(folder, overwrite=overwrite)
    source = plan.source
    read = [source.particles.source, *(header.path for header in source.headers.values())]
    read += [path for path in (plan.options.indices, plan.options.poses, plan.options.ctf) if path is not None]
    outputs = {path.resolve() for path in _outputs(plan, folder)}
    outputs |= {(folder / name).resolve() for name in (*plan.names().values(), *_PICKLES)}
    same = [path for path in read if path.resolve() in outputs]
    if same:
        raise UsageError("this file is read; it can't be an output too", path=same[0], hint="Give another -o.")
    others = [path for path in files_in(folder, "particles.*.star") if path.name != f"{plan.options.stem}.star"]
    others = [path for path in others if re.fullmatch(r"particles\.\d+\.star", path.name)]
    if others:
        raise UsageError(
            "images of another size are there, which poses.pkl and ctf.pkl belong to",
            path=others[0],
            hint="Give each size a folder of its own with -o.",
        )
    if not (resume and _state_path(plan, folder).is_file()):
        _refuse_unfinished(plan, folder, overwrite=overwrite)
        refuse_existing(_outputs(plan, folder), overwrite=overwrite)
    # What is there is removed, or need not be made again.
    _require_space(plan, folder)


def _refuse_unfinished(plan: DownsamplePlan, folder: Path, *, overwrite: bool) -> None:
    partial = [path for path in _outputs(plan, folder) if path.suffix == ".part"]
    if partial and not overwrite:
        raise OutputExistsError(
            "an interrupted run left this",
            path=partial[0],
            hint="--resume goes on with it, --overwrite begins anew.",
        )


def _require_space(plan: DownsamplePlan, folder: Path) -> None:
    n_bytes = len(plan.source.particles) * plan.options.box_px**2 * (2 if plan.options.half_precision else 4)
    hint = "Make room, choose another disk with -o, or halve the size with --float16."
    require_space(folder, n_bytes, hint, freed=_outputs(plan, folder))


def _outputs(plan: DownsamplePlan, folder: Path) -> list[Path]:
    """Return what is there of these outputs, finished or not; the metadata first, which make a stack count as there."""
    stem = plan.options.stem
    there = [folder / name for name in (f"{stem}.star", f"{stem}.txt", f"{stem}_sources.csv", *_PICKLES)]
    stacks = {folder / f"{stem}.mrcs", *files_in(folder, f"{stem}.*.mrcs")}
    partial = {partial_path(folder / f"{stem}.mrcs"), *files_in(folder, f".{stem}.*.mrcs.part")}
    found = [*there, *sorted(stacks), *sorted(partial), _state_path(plan, folder)]
    return [path for path in found if path.is_file() or path.is_symlink()]


def _state_path(plan: DownsamplePlan, folder: Path) -> Path:
    return folder / f".{plan.options.stem}.state.json"


def _write_metadata(plan: DownsamplePlan, folder: Path, state: DownsampleState, report: dict[str, Any]) -> None:
    """Write what belongs to the images that there are now, and complete the report."""
    kept, images = plan.new_images(state.left_out)
    if len(kept) == 0:
        raise MissingDataError("no image can be used", path=plan.source.particles.source, hint="Check the image files.")
    metadata = plan.metadata
    if len(kept) < len(plan.source.particles):
        metadata = downsampled_metadata(plan.source, kept, images, plan.box_px, plan.options.box_px)
        rows = plan.source.source_rows[state.left_out]
        report["images_out"] = len(kept)
        report["left_out"][_UNUSABLE] = len(rows)
        report["left_out_rows"] = rows.tolist()
    names = plan.names()
    if metadata.pickles is not None:
        write_pickles(folder, metadata.pickles)
    write_sources(folder / names["sources"], plan.source, kept, images)
    if "list" in names:
        with atomic_path(folder / names["list"]) as temporary:
            temporary.write_text("\n".join(stack.name for stack in plan.stacks) + "\n", encoding="utf-8")
    write_star(folder / names["star"], metadata.blocks)
