"""`cryobridge stacks downsample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cryobridge.cli.common import (
    DatadirOption,
    DryRunOption,
    JsonOption,
    OverwriteOption,
    ResumeOption,
    StripPrefixOption,
)
from cryobridge.cli.stack_options import OnMissing, OutputFolder, option, refuse_contradicting_folders
from cryobridge.cli.terminal import print_json, progress, settings, show_command, show_report, tell, working

_IMAGES = "Images"
_RUN = "Run"


def downsample(
    particles: Annotated[
        Path,
        typer.Argument(metavar="PARTICLES", help=".star, .cs or .csg file, cryoSPARC job folder, or stack (.mrcs)."),
    ],
    box: Annotated[int, typer.Option("-D", "--box", metavar="N", help="Edge of the new images in pixels, even.")],
    output: OutputFolder,
    indices: Annotated[
        Path | None,
        option(_IMAGES, "--ind", metavar="FILE", help="Rows to take, from 0: ind.pkl or .npy.", show_default=False),
    ] = None,
    pixel_size: Annotated[
        float | None,
        option(
            _IMAGES,
            "--pixel-size",
            metavar="Å",
            help="For metadata that do not say the pixel size.",
            show_default=False,
        ),
    ] = None,
    poses: Annotated[
        Path | None, option(_IMAGES, "--poses", metavar="FILE", help="poses.pkl of a bare stack.", show_default=False)
    ] = None,
    ctf: Annotated[
        Path | None, option(_IMAGES, "--ctf", metavar="FILE", help="ctf.pkl of a bare stack.", show_default=False)
    ] = None,
    on_missing: Annotated[
        OnMissing,
        option(
            _IMAGES, "--on-missing", metavar="error|skip", help="What to do about particles without a usable image."
        ),
    ] = OnMissing.error,
    folder_mrc: Annotated[
        Path | None,
        option(
            _IMAGES,
            "--folder-mrc",
            metavar="DIR",
            help="Look for image files by bare name in this folder.",
            show_default=False,
        ),
    ] = None,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
    chunk: Annotated[
        int | None,
        option(_RUN, "--chunk", metavar="N", min=1, help="Images in a file, if several.", show_default=False),
    ] = None,
    float16: Annotated[bool, option(_RUN, "--float16", help="Write half precision, half the size.")] = False,
    batch_size: Annotated[
        int, option(_RUN, "-b", "--batch-size", metavar="N", min=1, help="Images in memory at a time.")
    ] = 1000,
    device: Annotated[
        str, option(_RUN, "--device", metavar="NAME", help="cpu keeps up with disks; auto, cuda, cuda:1 or mps.")
    ] = "cpu",
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make particle images smaller by Fourier cropping, with metadata for RECOVAR, cryoDRGN and RELION."""
    refuse_contradicting_folders(folder_mrc, datadir, strip_prefix)
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.stacks.downsample.execute import check_device, check_folder
    from cryobridge.jobs.stacks.downsample.execute import downsample as make
    from cryobridge.jobs.stacks.downsample.inputs import read_downsample_input
    from cryobridge.jobs.stacks.downsample.options import DownsampleOptions
    from cryobridge.jobs.stacks.downsample.plan import plan_downsample, plan_report

    check_device(device)
    options = DownsampleOptions(
        box,
        batch_size=batch_size,
        chunk=chunk,
        indices=indices,
        pixel_size_A=pixel_size,
        poses=poses,
        ctf=ctf,
        half_precision=float16,
        on_missing=on_missing.value,
    )
    search = ImageSearch(particles, folder_mrc, datadir, strip_prefix)
    with working("reading"):
        plan = plan_downsample(read_downsample_input(particles, search, options), options)
    if dry_run:
        check_folder(plan, output, overwrite=overwrite, resume=resume)
        report = plan_report(plan, output)
    else:
        with progress() as reporter:
            report = make(plan, output, device=device, overwrite=overwrite, resume=resume, reporter=reporter)
    _show({**report, "dry_run": dry_run}, as_json, dry_run=dry_run)


def _show(report: dict[str, Any], as_json: bool, *, dry_run: bool) -> None:
    tell(report)
    if as_json:
        print_json(report)
        return
    (old_box, new_box), (old_A, new_A) = report["box_px"], report["pixel_size_A"]
    stacks = report["stacks"]
    show_report(
        "Would make" if dry_run else "Downsampled",
        [
            ("images", f"{report['images_out']:,} of {report['images_in']:,}"),
            *((f"left out: {reason}", f"{count:,}") for reason, count in report["left_out"].items()),
            ("box", f"{old_box} → {new_box} px"),
            ("pixel size", f"{_sizes(old_A)} → {_sizes(new_A)} Å"),
            ("precision", report["precision"]),
            ("stacks" if len(stacks) > 1 else "stack", _first_and_last(stacks)),
            *(("metadata" if place == 0 else "", path) for place, path in enumerate(report["outputs"])),
        ],
    )
    if report["next"] and not settings.quiet:
        show_command(report["next"])


def _sizes(sizes_A: list[float]) -> str:
    return ", ".join(f"{size:.6g}" for size in sizes_A[:4]) + (" …" if len(sizes_A) > 4 else "")


def _first_and_last(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} … {Path(paths[-1]).name}"
