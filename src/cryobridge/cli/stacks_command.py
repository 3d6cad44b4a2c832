"""`cryobridge stacks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.common import (
    BridgeCommand,
    BridgeGroup,
    DatadirOption,
    JsonOption,
    OverwriteOption,
    StripPrefixOption,
)
from cryobridge.cli.downsample_command import downsample
from cryobridge.cli.stack_options import (
    AngleUnit,
    Conversion,
    NInplanes,
    PairedCommand,
    PairsOption,
    Precision,
    PrecisionOption,
    ResolutionFactor,
    pairs_of,
    refuse_contradicting_folders,
    with_conversion,
)
from cryobridge.cli.terminal import print_json, progress, show_report, tell, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryobridge.jobs.stacks.inputs import StackInput

app = typer.Typer(
    cls=BridgeGroup,
    help="Turn particle images and their metadata into Fourier-polar torch stacks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
FolderMrcOption = Annotated[
    Path | None,
    typer.Option(
        "--folder-mrc", metavar="DIR", help="Look for image files by bare name in this folder.", show_default=False
    ),
]


@app.command("grid", cls=BridgeCommand)
def stacks_grid(
    n_pixels: Annotated[int, typer.Option("--n-pixels", metavar="N", min=2, help="Box of the images.")],
    pixel_size: Annotated[float, typer.Option("--pixel-size", metavar="Å", help="Pixel size of the images.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.npz", help="Parameter file to write.")],
    resolution_factor: ResolutionFactor = 1.0,
    n_inplanes: NInplanes = None,
    precision: PrecisionOption = Precision.single,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a parameter file: box, pixel size and polar grid, for -p and for CryoLike."""
    from cryobridge.errors import UsageError
    from cryobridge.formats.atomic import together
    from cryobridge.formats.descriptor import ImageDescriptor, write_image_descriptor
    from cryobridge.formats.plausible import tiny_box
    from cryobridge.fourier.grid import PolarGrid
    from cryobridge.jobs.output_folder import refuse_existing

    if output.suffix != ".npz":
        raise UsageError(f"{output} does not end in .npz", hint=f"Name it {output.with_suffix('.npz')}.")
    refuse_existing([output], overwrite=overwrite)
    descriptor = ImageDescriptor.for_box(n_pixels, pixel_size, resolution_factor, n_inplanes, precision.value)
    with together():
        write_image_descriptor(output, descriptor)
        refuse_existing([output], overwrite=overwrite)
    warnings = [str(told)] if (told := tiny_box(pixel_size, n_pixels)) else []
    tell({"notes": [], "warnings": warnings})
    grid = PolarGrid(descriptor.radius_max, descriptor.dist_radii, descriptor.n_inplanes)
    finest_A = 2 * pixel_size / resolution_factor
    if as_json:
        print_json(
            {
                "output": str(output),
                "box_px": list(descriptor.n_pixels),
                "pixel_size_A": pixel_size,
                "shells": grid.n_shells,
                "angles": grid.n_inplanes,
                "resolution_A": finest_A,
                "precision": precision.value,
                "warnings": warnings,
            }
        )
        return
    show_report(
        "Grid",
        [
            ("box", f"{n_pixels} px of {pixel_size:g} Å"),
            ("grid", f"{grid.n_shells} shells × {grid.n_inplanes} angles, to {finest_A:.3g} Å"),
            ("precision", precision.value),
            ("file", str(output)),
        ],
    )


@app.command("paired", cls=PairedCommand)
@with_conversion
def stacks_paired(
    pairs: PairsOption,
    conversion: Conversion,
    defocus_angle_unit: Annotated[
        AngleUnit, typer.Option("--defocus-angle-unit", metavar="degree|radian", help="Of the STAR column.")
    ] = AngleUnit.degree,
    phase_shift_unit: Annotated[
        AngleUnit, typer.Option("--phase-shift-unit", metavar="degree|radian", help="Of the STAR column.")
    ] = AngleUnit.degree,
) -> None:
    """Make Fourier stacks of image files, each with a STAR file of its own; files are never mixed."""
    from cryobridge.jobs.stacks.inputs import paired_input

    files = pairs_of(pairs)
    _convert(lambda: paired_input(files, defocus_angle_unit.value, phase_shift_unit.value), conversion)


@app.command("star", cls=BridgeCommand)
@with_conversion
def stacks_star(
    particles: Annotated[Path, typer.Argument(metavar="PARTICLES.star", help="RELION file with rlnImageName.")],
    conversion: Conversion,
    folder_mrc: FolderMrcOption = None,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
) -> None:
    """Make Fourier stacks of the particles of a RELION STAR file."""
    refuse_contradicting_folders(folder_mrc, datadir, strip_prefix)
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.stacks.inputs import files_input, open_for_stacks

    _refuse_cryosparc(particles)

    def read() -> StackInput:
        files = open_for_stacks(particles, "relion")
        search = ImageSearch(files.metadata, folder_mrc, datadir, strip_prefix)
        return files_input(files, search, conversion.on_missing.value)

    _convert(read, conversion)


def _refuse_cryosparc(particles: Path) -> None:
    """Name the command for cryoSPARC's files and jobs."""
    import shlex

    from cryobridge.errors import UsageError
    from cryobridge.formats.folders import CRYOSPARC_JOB, FOLDER_WORDS, identify_folder
    from cryobridge.formats.registry import CS, CSG, identify_file

    is_folder = particles.is_dir()
    kind = identify_folder(particles) if is_folder else identify_file(particles)
    if kind in {CS, CSG, CRYOSPARC_JOB}:
        words = FOLDER_WORDS[CRYOSPARC_JOB] if is_folder else f".{kind} file"
        command = shlex.join(["cryobridge", "stacks", "cs", str(particles)])
        raise UsageError(f"this is a {words}", path=particles, hint=f"`{command}` takes it.")


@app.command("cs", cls=BridgeCommand)
@with_conversion
def stacks_cs(
    particles: Annotated[
        Path, typer.Argument(metavar="PARTICLES.cs", help=".cs file with blob/* and ctf/*, .csg file or job folder.")
    ],
    conversion: Conversion,
    folder_mrc: FolderMrcOption = None,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
) -> None:
    """Make Fourier stacks of the particles of a cryoSPARC file, result group or job."""
    refuse_contradicting_folders(folder_mrc, datadir, strip_prefix)
    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.stacks.inputs import files_input, open_for_stacks

    def read() -> StackInput:
        files = open_for_stacks(particles, "cryosparc")
        search = ImageSearch(files.columns.path, folder_mrc, datadir, strip_prefix)
        return files_input(files, search, conversion.on_missing.value)

    _convert(read, conversion)


@app.command("job", cls=BridgeCommand)
@with_conversion
def stacks_job(
    folder_cryosparc: Annotated[Path, typer.Argument(metavar="FOLDER", help="The project's folder, which holds J12.")],
    job_number: Annotated[str, typer.Argument(metavar="JOB_NUMBER", help="12 or J12.")],
    conversion: Conversion,
) -> None:
    """Make Fourier stacks of the batches of a Restack or Downsample Particles job of cryoSPARC."""
    from cryobridge.errors import UsageError
    from cryobridge.jobs.stacks.inputs import job_input

    number = job_number.removeprefix("J")
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(
            f"{job_number!r} is no number of a job",
            hint="`cryobridge stacks job FOLDER 12` reads FOLDER/J12, where FOLDER is the project's folder.",
        )
    _convert(lambda: job_input(folder_cryosparc, int(number), conversion.on_missing.value), conversion)


app.command("downsample", cls=BridgeCommand)(downsample)


def _convert(read: Callable[[], StackInput], conversion: Conversion) -> None:
    from cryobridge.jobs.stacks.convert import check_output, check_space, convert_stacks, plan_report
    from cryobridge.jobs.stacks.plan import plan_stacks

    with working("reading"):
        plan = plan_stacks(read(), conversion.stack_options())
    if conversion.dry_run:
        check_output(conversion.output, conversion.device, overwrite=conversion.overwrite, resume=conversion.resume)
        check_space(plan, conversion.output, resume=conversion.resume)
        _show({**plan_report(plan, conversion.output), "dry_run": True}, conversion.as_json, title="Would make")
        return
    with progress() as reporter:
        report = convert_stacks(
            plan,
            conversion.output,
            device=conversion.device,
            overwrite=conversion.overwrite,
            resume=conversion.resume,
            reporter=reporter,
        )
    _show({**report, "dry_run": False}, conversion.as_json, title="Fourier stacks")


def _show(report: dict[str, Any], as_json: bool, *, title: str) -> None:
    tell(report)
    if as_json:
        print_json(report)
        return
    first, last = report["outputs"][0], report["outputs"][-1]
    kept = f" ({report['stacks_kept']} were there)" if "stacks_kept" in report else ""
    n_0, n_1 = report["box_px"]
    box = f"{n_0} px" if n_0 == n_1 else f"{n_0} × {n_1} px"
    show_report(
        title,
        [
            ("images", f"{report['images_out']:,} of {report['images_in']:,}"),
            *((f"left out: {reason}", f"{count:,}") for reason, count in report["left_out"].items()),
            ("box", f"{box} of {report['pixel_size_A']:.6g} Å"),
            ("grid", f"{report['shells']} shells × {report['angles']} angles, {report['precision']} precision"),
            ("stacks", f"{report['stacks']}{kept}"),
            ("files", first if first == last else f"{first} … {Path(last).name}"),
        ],
    )
