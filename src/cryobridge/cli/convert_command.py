"""`cryobridge convert`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryobridge.cli.common import (
    DatadirOption,
    DryRunOption,
    FlipXOption,
    FlipYOption,
    JsonOption,
    OverwriteOption,
    StripPrefixOption,
    SwapXYOption,
)
from cryobridge.cli.terminal import print_json, progress, show_report, tell, warn, working
from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from cryobridge.jobs.convert.options import ConvertOptions

_N_SHOWN = 8


class To(str, Enum):
    """What to write."""

    star = "star"
    cs = "cs"
    pickles = "pickles"


class Relion(str, Enum):
    """The release of RELION that a STAR file is for (`cryobridge.jobs.convert.options.LAYOUTS`)."""

    v3_0 = "3.0"
    v3_1 = "3.1"
    v4 = "4"
    v4_0 = "4.0"
    v5 = "5"
    v5_0 = "5.0"


class Contrast(str, Enum):
    """How particles look in the images."""

    bright = "bright"
    dark = "dark"


def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help=".cs (and passthroughs), .csg, job folder, .star, or .mrcs with its pickles."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUTPUT", help=".star, .cs, or a folder.", show_default=False),
    ] = None,
    to: Annotated[
        To | None,
        typer.Option(
            metavar="star|cs|pickles",
            help="What to write; pickles for cryoDRGN and RECOVAR.",
            show_default="by its name",
        ),
    ] = None,
    relion: Annotated[
        Relion | None,
        typer.Option(metavar="3.0|3.1|4|5", help="RELION that a STAR file is for.", show_default="3.1, same as 4"),
    ] = None,
    pose_from: Annotated[
        str | None, typer.Option(metavar="NAME", help="Alignment to take, as alignments2D.", show_default=False)
    ] = None,
    class_number: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="N,N", help="Classes, as the program counts them. Repeatable.", show_default=False
        ),
    ] = None,
    min_posterior: Annotated[
        float | None,
        typer.Option(metavar="P", min=0, max=1, help="Keep classes at least this probable.", show_default=False),
    ] = None,
    flip_x: FlipXOption = False,
    flip_y: FlipYOption = False,
    swap_xy: SwapXYOption = False,
    contrast: Annotated[
        Contrast | None,
        typer.Option(metavar="bright|dark", help="Particles in images, if no file says.", show_default="bright"),
    ] = None,
    aberrations: Annotated[
        bool, typer.Option("--aberrations", help="Write beam tilt, trefoil and so on; their signs are not established.")
    ] = False,
    link_stacks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make links named .mrcs to the stacks.", show_default=False)
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the stacks instead.")] = False,
    strip_uid: Annotated[
        bool, typer.Option("--strip-uid", help="Take cryoSPARC's uid off names of micrographs and links.")
    ] = False,
    micrograph_path: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that micrographs are in.", show_default=False)
    ] = None,
    micrograph_shape: Annotated[
        str | None, typer.Option(metavar="NY,NX", help="Size of RELION's micrographs.", show_default=False)
    ] = None,
    datadir: DatadirOption = None,
    strip_prefix: StripPrefixOption = None,
    box: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Box in pixels, if no file says.", show_default=False)
    ] = None,
    pixel_size: Annotated[
        float | None, typer.Option(metavar="Å", min=1e-3, help="Pixel size, if no file says.", show_default=False)
    ] = None,
    voltage: Annotated[
        float | None, typer.Option(metavar="KV", min=1, help="Voltage, if no file says.", show_default=False)
    ] = None,
    cs: Annotated[
        float | None,
        typer.Option(metavar="MM", min=0, help="Spherical aberration, if no file says.", show_default=False),
    ] = None,
    amplitude_contrast: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, max=1, help="Amplitude contrast, if no file says.", show_default=False),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read the output back and compare.")] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Carry particles between cryoSPARC, RELION and the pickles of cryoDRGN and RECOVAR."""
    if output is None:
        raise _no_output(inputs)
    from cryobridge.cli.number_lists import parse_numbers
    from cryobridge.formats.optics import KnownOptics
    from cryobridge.jobs.convert.convert import check_outputs, write_plan
    from cryobridge.jobs.convert.options import ConvertOptions, target_of
    from cryobridge.jobs.convert.plan import plan_convert
    from cryobridge.model.convention import Convention

    options = ConvertOptions(
        target_of(output, None if to is None else to.value),
        relion=None if relion is None else relion.value,
        convention=Convention(flip_x, not flip_y, swap_xy) if flip_x or flip_y or swap_xy else None,
        pose_from=pose_from,
        class_numbers=parse_numbers(class_number or (), "--class"),
        min_posterior=min_posterior,
        known=KnownOptics(voltage, cs, amplitude_contrast, pixel_size, box),
        contrast=None if contrast is None else contrast.value,
        aberrations=aberrations,
        link_stacks=link_stacks,
        copy=copy,
        strip_uid=strip_uid,
        micrograph_path=micrograph_path,
        datadir=datadir,
        strip_prefix=strip_prefix,
        micrograph_shape_px=_shape(micrograph_shape),
    )
    with working("reading"):
        plan = plan_convert(inputs, output, options)
    report = {**plan.report(), "dry_run": dry_run}
    tell(report)
    for reason, count in plan.left_out.items():
        warn(f"{count:,} particles are left out: {reason}")
    if dry_run:
        check_outputs(plan, overwrite=overwrite)
    else:
        with progress() as reporter:
            write_plan(plan, overwrite=overwrite, reporter=reporter)
        if verify:
            from cryobridge.jobs.convert.verify import require_equal
            from cryobridge.jobs.convert.verify import verify as read_back

            with working("reading back"):
                differences = read_back(plan)
            report["verified"] = [item.to_json() for item in differences]
    _show(report, options, as_json, dry_run=dry_run)
    if verify and not dry_run:
        require_equal(differences, output)


def _no_output(inputs: list[Path]) -> UsageError:
    last = inputs[-1]
    hint = "cryobridge convert INPUT... -o OUTPUT, such as -o particles.star"
    if len(inputs) > 1 and last.suffix in {".star", ".cs"} and not last.exists():
        hint = f"Did you mean -o {last}?"
    return UsageError("nothing says where to write to", hint=hint)


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            f"--micrograph-shape {text}: two whole numbers are needed", hint="--micrograph-shape 4092,5760"
        )
    return int(parts[0]), int(parts[1])


def _show(report: dict[str, Any], options: ConvertOptions, as_json: bool, *, dry_run: bool) -> None:
    if as_json:
        print_json(report)
        return
    held = report["not_held"]
    more = f" and {len(held) - _N_SHOWN:,} more (--json names them)" if len(held) > _N_SHOWN else ""
    facts = [
        ("particles", f"{report['particles_out']:,} of {report['particles_in']:,}"),
        *([("poses from", report["alignment"])] if report["alignment"] else []),
        ("optics groups", f"{report['optics_groups']:,}"),
        *([("coordinates", report["coordinates"])] if report["coordinates"] else []),
        *([("no place for", ", ".join(held[:_N_SHOWN]) + more)] if held else []),
        *([("links" if not options.copy else "copies", f"{report['links']:,}")] if report["links"] else []),
        *(("written" if not dry_run else "output", path) for path in report["outputs"]),
    ]
    facts += [(f"Δ {item['quantity']}", _difference(item)) for item in report.get("verified", ())]
    show_report("Would write" if dry_run else "Converted", facts)


def _difference(item: dict[str, Any]) -> str:
    if item["largest"] is None:
        return "absent in the output"
    unit = f" {item['unit']}"
    is_good = item["largest"] <= item["tolerance"]
    return f"{item['largest']:.2g}{unit}" + ("" if is_good else f" — more than {item['tolerance']:.2g}{unit}")
