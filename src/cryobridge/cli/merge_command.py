"""`cryobridge merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.run import Facts, RunOptions, left_out, outputs, run_job, some
from cryobridge.jobs.merge.options import MergeOptions

if TYPE_CHECKING:
    from cryobridge.jobs.merge.report import MergeReport

_N_FILES_SHOWN = 12


@takes_options
def merge(
    options: MergeOptions,
    run_options: RunOptions,
    particles: Annotated[
        list[Path],
        typer.Argument(metavar="PARTICLES...", help=".star, .cs, .csg or job folders, two or more of one program."),
    ],
    output: Annotated[Path, output_option("FILE", "File to write, .star or .cs.")],
) -> None:
    """Combine particle files of one program into one file."""
    from cryobridge.jobs.merge.plan import plan_merge

    titles = ("Merged", "Would merge")
    run_job(lambda _: plan_merge(particles, output, options), run_options, titles, _view)


def _view(report: MergeReport) -> Facts:
    facts = [("particles", f"{report.rows_out:,} of {report.rows_in:,}"), *left_out(report)]
    shown = list(report.merged.items())
    facts += [("of", f"{name}  {count:,}") for name, count in shown[:_N_FILES_SHOWN]]
    if len(shown) > _N_FILES_SHOWN:
        facts.append(("of", f"… and {len(shown) - _N_FILES_SHOWN} more"))
    if report.half_sets:
        counts = ", ".join(f"{half}: {count:,}" for half, count in report.half_sets.items())
        facts.append(("half sets", f"{counts}{' (new)' if report.seed is not None else ''}"))
    if report.dropped:
        facts.append(("no place for", some(report.dropped)))
    return [*facts, *outputs(report)]
