"""`cryobridge coords`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryobridge.cli.common import JsonOption, OverwriteOption
from cryobridge.cli.terminal import print_json, progress, show_report


def coords(
    picks: Annotated[Path, typer.Argument(metavar="PICKS.cs", help="cryoSPARC file with location/*.")],
    micrographs: Annotated[
        Path, typer.Argument(metavar="MICROGRAPHS_CTF.star", help="RELION's micrographs, after CtfFind.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the picks go.")] = Path(),
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn cryoSPARC picks into RELION coordinates."""
    from cryobridge.coords.convert import convert_picks

    with progress() as reporter:
        report = convert_picks(picks, micrographs, output, overwrite=overwrite, reporter=reporter)
    if as_json:
        print_json(report)
        return
    show_report(
        "Picks for RELION",
        [
            ("particles", f"{report['particles_out']:,} of {report['particles_in']:,}"),
            ("micrographs", f"{report['micrographs']:,}"),
            ("convention", report["convention"]),
            ("give to Extract", report["outputs"][0]),
            ("pick files", report["outputs"][1]),
        ],
    )
