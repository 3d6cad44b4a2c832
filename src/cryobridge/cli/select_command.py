"""`cryobridge select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.match_view import compared
from cryobridge.cli.run import Facts, RunOptions, left_out, run_job
from cryobridge.jobs.selection.options import SelectOptions

if TYPE_CHECKING:
    from cryobridge.jobs.selection.report import SelectReport

_N_FILES_SHOWN = 12


@takes_options
def select(
    options: SelectOptions,
    run_options: RunOptions,
    particles: Annotated[
        Path | None,
        typer.Argument(
            metavar="PARTICLES", help=".star, .cs, .csg or a job folder; not needed with --run.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_option("FILE", "File to write, .star or .cs."),
    ] = None,
) -> None:
    """Write a subset of a particle file, or add classes and latent coordinates to it."""
    from cryobridge.jobs.selection.plan import plan_select
    from cryobridge.jobs.selection.write import SelectJob

    titles = ("Selection", "Would write")
    run_job(lambda _: SelectJob(plan_select(particles, output, options)), run_options, titles, _view)


def _view(report: SelectReport) -> Facts:
    facts = [(report.rows_are, f"{report.rows_out:,} of {report.rows_in:,}"), *left_out(report)]
    added = [each for each in report.sets if each.operation == "or"]
    facts[1:1] = [("added", f"{a.other_rows - a.rows:,} of {a.other_rows:,} of {Path(a.file).name}") for a in added]
    facts += compared(report.matched)
    if report.attached:
        facts.append(("attached", ", ".join(report.attached)))
    if len(report.files) == 1:
        return [*facts, *(("file", str(path)) for path in report.outputs)]
    shown = list(report.files.items())
    facts += [("file", f"{path}  {count:,}") for path, count in shown[:_N_FILES_SHOWN]]
    if len(shown) > _N_FILES_SHOWN:
        facts.append(("file", f"… and {len(shown) - _N_FILES_SHOWN} more"))
    return facts
