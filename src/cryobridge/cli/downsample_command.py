"""`cryobridge stacks downsample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.batch_script import BatchOptions, print_batch_script
from cryobridge.cli.build import takes_options
from cryobridge.cli.common import OutputFolder
from cryobridge.cli.run import Facts, ResumeOptions, changed_pixels, left_out, run_job
from cryobridge.cli.terminal import settings, show_command
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.jobs.stacks.options import DownsampleDeviceOptions, DownsampleOptions, SharingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.jobs.job import Job
    from cryobridge.jobs.stacks.report import DownsampleReport
    from cryobridge.progress import Reporter


@takes_options
def downsample(
    ctx: typer.Context,
    particles: Annotated[
        Path,
        typer.Argument(metavar="PARTICLES", help=".star, .cs or .csg file, cryoSPARC job folder, or stack (.mrcs)."),
    ],
    output: OutputFolder,
    options: DownsampleOptions,
    search: ImageSearchOptions,
    device: DownsampleDeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    """Downsample particle images by Fourier cropping, with metadata for RECOVAR, cryoDRGN and RELION."""
    from cryobridge.jobs.stacks.cropping.inputs import read_downsample_input
    from cryobridge.jobs.stacks.cropping.plan import plan_downsample
    from cryobridge.jobs.stacks.run import StackJob, executor_for

    def plan(_reporter: Reporter) -> Job[DownsampleReport]:
        source = read_downsample_input(particles, search.image_search(particles), options)
        return StackJob(
            plan_downsample(source, options),
            output,
            executor_for("cpu" if batch.is_asked else device.device, sharing),
            resume=run.resume,
            verify_outputs=run.verify_outputs,
            finish=sharing.finish,
        )

    if batch.is_asked:
        print_batch_script(ctx, plan, output, batch, device, sharing, run)
        return
    report = run_job(plan, run, ("Downsampled", "Would make"), _view, is_long=True)
    if report.next and not (run.as_json or settings.quiet):
        show_command(list(report.next))


def _view(report: DownsampleReport) -> Facts:
    (old_box, new_box), (old_A, new_A), stacks = report.box_px, report.pixel_size_A, report.stacks
    shown = "none"
    if stacks:
        shown = str(stacks[0]) if len(stacks) == 1 else f"{stacks[0]} … {stacks[-1].name}"
    return [
        ("images", f"{report.rows_out:,} of {report.rows_in:,}"),
        *left_out(report),
        ("box", f"{old_box} → {new_box} px"),
        ("pixel size", f"{_sizes(old_A)} → {_sizes(new_A)} Å"),
        ("precision", report.precision),
        *changed_pixels(report),
        ("stacks" if len(stacks) > 1 else "stack", shown),
        *(("metadata" if place == 0 else "", str(path)) for place, path in enumerate(report.outputs)),
    ]


def _sizes(sizes_A: Sequence[float]) -> str:
    return ", ".join(f"{size:.6g}" for size in sizes_A[:4]) + (" …" if len(sizes_A) > 4 else "")
