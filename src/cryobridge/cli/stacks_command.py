"""`cryobridge stacks`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.batch_script import BETWEEN, BatchOptions, print_batch_script
from cryobridge.cli.build import takes_options
from cryobridge.cli.common import BridgeCommand, BridgeGroup, OutputFolder, output_option
from cryobridge.cli.downsample_command import downsample
from cryobridge.cli.run import Facts, OverwriteOptions, ResumeOptions, left_out, run_job, show_answer
from cryobridge.cli.terminal import show_messages
from cryobridge.errors import UsageError
from cryobridge.jobs.shared_options import ImageSearchOptions
from cryobridge.jobs.stacks.options import (
    DeviceOptions,
    GridImages,
    GridOptions,
    PairedOptions,
    SharingOptions,
    StackOptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryobridge.formats.particle_files import Program
    from cryobridge.jobs.job import Job
    from cryobridge.jobs.stacks.inputs import StackInput
    from cryobridge.jobs.stacks.report import GridReport, StacksReport
    from cryobridge.progress import Reporter

app = typer.Typer(
    name="stacks",
    cls=BridgeGroup,
    help="Make stacks of particle images: Fourier-polar ones for CryoLike, or downsampled ones.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


PairsOption = Annotated[
    list[str],
    typer.Option(
        "--pair",
        metavar="FILE.star FILE.mrc",
        help="A STAR file and the stack whose images its rows describe, in the same order. Repeatable.",
        show_default=False,
        rich_help_panel="Input",
    ),
]


class PairedCommand(BridgeCommand):
    """A command with ``--pair A.star A.mrc``, any number of times: the words are joined, since Typer takes one."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the words of the command line."""
        words = iter(args)
        joined: list[str] = []
        for word in words:
            joined.append(word)
            if word == "--pair":
                pair = list(itertools.islice(words, 2))
                joined.append(BETWEEN.join(pair))
                if len(pair) < 2 and not ctx.resilient_parsing:
                    raise UsageError("--pair needs two files", hint="Give --pair FILE.star FILE.mrc.")
        return super().parse_args(ctx, joined)


def _pairs(texts: list[str]) -> list[tuple[Path, Path]]:
    """Return the pairs that `PairedCommand` joined."""
    pairs = [text.partition(BETWEEN) for text in texts]
    if not all(stack for _, _, stack in pairs):
        raise UsageError("--pair needs two files", hint="Give --pair FILE.star FILE.mrc.")
    return [(Path(star), Path(stack)) for star, _, stack in pairs]


@app.command("grid", cls=BridgeCommand)
@takes_options
def stacks_grid(
    images: GridImages,
    output: Annotated[Path, output_option("FILE.npz", "Parameter file to write.")],
    options: GridOptions,
    run: OverwriteOptions,
) -> None:
    """Write a parameter file (box, pixel size, polar grid) for -p and for CryoLike."""
    from cryobridge.jobs.stacks.grid import write_grid_file

    report = write_grid_file(output, images, options, overwrite=run.overwrite)
    show_messages(report.messages)
    show_answer(report, run, ("Grid", "Grid"), _grid_view)


def _grid_view(report: GridReport) -> Facts:
    return [
        ("box", f"{report.box_px[0]} px of {report.pixel_size_A:g} Å"),
        ("grid", f"{report.shells} shells × {report.angles} angles, to {report.resolution_A:.3g} Å"),
        ("precision", report.precision),
        ("file", str(report.outputs[0])),
    ]


@app.command("paired", cls=PairedCommand)
@takes_options
def stacks_paired(
    ctx: typer.Context,
    pairs: PairsOption,
    output: OutputFolder,
    options: StackOptions,
    units: PairedOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    """Make Fourier stacks from image files that each have a STAR file; files are not mixed."""
    from cryobridge.jobs.stacks.inputs import paired_input

    files = _pairs(pairs)
    _make(
        ctx,
        lambda: paired_input(files, units.defocus_angle_unit, units.phase_shift_unit),
        output,
        options,
        device,
        sharing,
        batch,
        run,
    )


@app.command("star", cls=BridgeCommand)
@takes_options
def stacks_star(
    ctx: typer.Context,
    particles: Annotated[
        Path, typer.Argument(metavar="PARTICLES.star", help="Particle STAR file of RELION, with rlnImageName.")
    ],
    output: OutputFolder,
    options: StackOptions,
    search: ImageSearchOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    """Make Fourier stacks from the particles of a RELION STAR file."""
    _refuse_other_program(particles, "relion")
    _make(ctx, lambda: _indexed(particles, "relion", search, options), output, options, device, sharing, batch, run)


def _indexed(particles: Path, program: Program, search: ImageSearchOptions, options: StackOptions) -> StackInput:
    from cryobridge.jobs.stacks.inputs import files_input, open_for_stacks

    files = open_for_stacks(particles, program)
    return files_input(files, search.image_search(files.metadata), options.on_missing)


def _refuse_other_program(particles: Path, program: Program) -> None:
    """Name the command for the files and jobs of the other program."""
    import shlex

    from cryobridge.formats.folders import CRYOSPARC_JOB, FOLDER_WORDS, RELION_JOB, identify_folder
    from cryobridge.formats.registry import CS, CSG, STAR, identify_file

    is_folder = particles.is_dir()
    kind = identify_folder(particles) if is_folder else identify_file(particles)
    others = {CS, CSG, CRYOSPARC_JOB} if program == "relion" else {STAR, RELION_JOB}
    if kind in others:
        words = FOLDER_WORDS[kind] if is_folder else f".{kind} file"
        command = ["cryobridge", "stacks", "cs" if program == "relion" else "star", str(particles)]
        raise UsageError(f"this is a {words}", path=particles, hint=f"`{shlex.join(command)}` takes it.")


@app.command("cs", cls=BridgeCommand)
@takes_options
def stacks_cs(
    ctx: typer.Context,
    particles: Annotated[
        Path,
        typer.Argument(metavar="PARTICLES.cs", help=".cs file with blob and ctf columns, .csg file, or job folder."),
    ],
    output: OutputFolder,
    options: StackOptions,
    search: ImageSearchOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    """Make Fourier stacks from a cryoSPARC .cs file, result group or job."""
    _refuse_other_program(particles, "cryosparc")
    _make(ctx, lambda: _indexed(particles, "cryosparc", search, options), output, options, device, sharing, batch, run)


@app.command("job", cls=BridgeCommand)
@takes_options
def stacks_job(
    ctx: typer.Context,
    folder_cryosparc: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the cryoSPARC project, which holds J12.")
    ],
    job_number: Annotated[str, typer.Argument(metavar="JOB_NUMBER", help="Number of the job: 12 or J12.")],
    output: OutputFolder,
    options: StackOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    """Make Fourier stacks from the batches of a Restack or Downsample Particles job."""
    from cryobridge.jobs.stacks.inputs import job_input

    number = job_number.removeprefix("J")
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(
            f"{job_number!r} is no number of a job",
            hint="`cryobridge stacks job FOLDER 12` reads FOLDER/J12, where FOLDER is the project's folder.",
        )
    _make(ctx, lambda: job_input(folder_cryosparc, int(number)), output, options, device, sharing, batch, run)


app.command("downsample", cls=BridgeCommand)(downsample)


def _make(
    ctx: typer.Context,
    read: Callable[[], StackInput],
    output: Path,
    options: StackOptions,
    device: DeviceOptions,
    sharing: SharingOptions,
    batch: BatchOptions,
    run: ResumeOptions,
) -> None:
    from cryobridge.jobs.stacks.polar.plan import plan_stacks
    from cryobridge.jobs.stacks.run import StackJob, executor_for

    def plan(_reporter: Reporter) -> Job[StacksReport]:
        return StackJob(
            plan_stacks(read(), options),
            output,
            executor_for("cpu" if batch.is_asked else device.device, sharing),
            resume=run.resume,
            verify_outputs=run.verify_outputs,
            finish=sharing.finish,
        )

    if batch.is_asked:
        print_batch_script(ctx, plan, output, batch, device, sharing, run)
        return
    run_job(plan, run, ("Fourier stacks", "Would make"), _view, is_long=True)


def _view(report: StacksReport) -> Facts:
    first, last = (report.outputs[0], report.outputs[-1]) if report.outputs else (Path("none"), Path("none"))
    kept = f" ({report.stacks_kept} were there)" if report.stacks_kept else ""
    n_0, n_1 = report.box_px
    box = f"{n_0} px" if n_0 == n_1 else f"{n_0} × {n_1} px"
    return [
        ("images", f"{report.rows_out:,} of {report.rows_in:,}"),
        *left_out(report),
        ("box", f"{box} of {report.pixel_size_A:.6g} Å"),
        ("grid", f"{report.shells} shells × {report.angles} angles, {report.precision} precision"),
        ("stacks", f"{report.stacks}{kept}"),
        ("files", str(first) if first == last else f"{first} … {last.name}"),
    ]
