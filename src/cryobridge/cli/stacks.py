"""`cryobridge stacks`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cryobridge.cli.common import (
    BridgeCommand,
    BridgeGroup,
    DatadirOption,
    JsonOption,
    OverwriteOption,
    StripPrefixOption,
)
from cryobridge.cli.terminal import note, print_json, progress, show_report
from cryobridge.errors import UsageError

app = typer.Typer(
    cls=BridgeGroup,
    help="Turn particle images and their metadata into Fourier-polar torch stacks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Precision(str, Enum):
    """Number of bits of the output."""

    single = "single"
    double = "double"


class Order(str, Enum):
    """Order of the images."""

    row = "row"
    file = "file"


@app.command("cs", cls=BridgeCommand)
def stacks_cs(
    particles: Annotated[Path, typer.Argument(metavar="PARTICLES.cs", help="cryoSPARC file with blob/* and ctf/*.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.", show_default=False)],
    folder_mrc: Annotated[
        Path | None,
        typer.Option(
            "--folder-mrc", metavar="DIR", help="Look for image files by bare name in this folder.", show_default=False
        ),
    ] = None,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
    params: Annotated[
        Path | None,
        typer.Option("-p", "--params", metavar="FILE.npz", help="CryoLike parameter file.", show_default=False),
    ] = None,
    resolution_factor: Annotated[
        float,
        typer.Option("--resolution-factor", metavar="X", min=0.01, help="Radius of the grid; 1 reaches Nyquist."),
    ] = 1.0,
    n_inplanes: Annotated[
        int | None,
        typer.Option(
            "--n-inplanes", metavar="N", min=1, help="Angles on a shell; 2 × box if left out.", show_default=False
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(metavar="TYPE", help="single or double.")] = Precision.single,
    batch_size: Annotated[
        int, typer.Option("-b", "--batch-size", metavar="N", min=1, help="Images in a stack.")
    ] = 1024,
    order: Annotated[
        Order, typer.Option(metavar="BY", help="row, as the metadata have them, or file, sorted by its name.")
    ] = Order.row,
    physical: Annotated[bool, typer.Option("--phys/--no-phys", help="Write the normalised images too.")] = True,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    overwrite: OverwriteOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make Fourier stacks of the particles of a cryoSPARC file."""
    if params is not None and (resolution_factor != 1.0 or n_inplanes is not None or precision is not Precision.single):
        raise UsageError(
            "-p holds the whole grid; --resolution-factor, --n-inplanes and --precision would contradict it",
            hint="Leave out either.",
        )
    if folder_mrc is not None and (datadir is not None or strip_prefix is not None):
        raise UsageError(
            "--folder-mrc uses bare file names, --datadir and --strip-prefix whole ones", hint="Choose one."
        )
    from cryobridge.formats.cryosparc.particles import read_particles_cs
    from cryobridge.formats.descriptor import read_image_descriptor
    from cryobridge.paths import ImageSearch
    from cryobridge.stacks.convert import check_output, convert_stacks, plan_report
    from cryobridge.stacks.plan import plan_stacks

    plan = plan_stacks(
        read_particles_cs(particles),
        ImageSearch(particles, folder_mrc, datadir, strip_prefix),
        descriptor=read_image_descriptor(params) if params else None,
        batch_size=batch_size,
        order=order.value,
        resolution_factor=resolution_factor,
        n_inplanes=n_inplanes,
        precision=precision.value,
    )
    if dry_run:
        check_output(output, device, overwrite=overwrite)
        _show(plan_report(plan, output), as_json, title="Would make")
        return
    with progress() as reporter:
        report = convert_stacks(plan, output, device=device, overwrite=overwrite, physical=physical, reporter=reporter)
    _show(report, as_json, title="Fourier stacks")


def _show(report: dict[str, Any], as_json: bool, *, title: str) -> None:
    if as_json:
        print_json(report)
        return
    for sentence in report["notes"]:
        note(sentence)
    first, last = report["outputs"][0], report["outputs"][-1]
    show_report(
        title,
        [
            ("images", f"{report['images_out']:,} of {report['images_in']:,}"),
            ("box", f"{report['box_px']} px of {report['pixel_size_A']:.6g} Å"),
            ("grid", f"{report['shells']} shells × {report['angles']} angles"),
            ("stacks", str(report["stacks"])),
            ("files", first if first == last else f"{first} … {Path(last).name}"),
        ],
    )
