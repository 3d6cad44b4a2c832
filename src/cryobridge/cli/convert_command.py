"""`cryobridge convert`."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.run import Facts, RunOptions, changed_pixels, outputs, run_job, some
from cryobridge.cli.terminal import plain, settings, show
from cryobridge.errors import UsageError
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.jobs.convert.report import ConvertReport, Difference, OntoReport
    from cryobridge.jobs.job import Job
    from cryobridge.progress import Reporter


@takes_options
def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help=".cs (with passthrough files), .csg, job folder, .star, or .mrcs with poses.pkl and ctf.pkl.",
        ),
    ],
    options: ConvertOptions,
    run: RunOptions,
    output: Annotated[
        Path | None,
        output_option("OUTPUT", "File to write, .star or .cs; or a folder, for pickles."),
    ] = None,
) -> None:
    """Convert particles between cryoSPARC, RELION and the pickles of cryoDRGN and RECOVAR."""
    if output is None:
        raise _no_output(inputs)
    from cryobridge.jobs.convert.convert import convert_job

    def plan(reporter: Reporter) -> Job[ConvertReport]:
        return convert_job(inputs, output, options, may_exist=run.overwrite, reporter=reporter)

    report = run_job(plan, run, ("Converted", "Would write"), partial(_view, is_copy=options.copy))
    if report.verified and not (run.as_json or settings.quiet):
        from cryobridge.jobs.convert.report import summary

        show(plain(f"verified: {summary(report.verified)}"))


def _no_output(inputs: list[Path]) -> UsageError:
    last = inputs[-1]
    hint = "cryobridge convert INPUT... -o OUTPUT, such as -o particles.star"
    if len(inputs) > 1 and last.suffix in {".star", ".cs"} and not last.exists():
        hint = f"Did you mean -o {last}?"
    return UsageError("the output is missing", hint=hint)


def _view(report: ConvertReport, *, is_copy: bool) -> Facts:
    return [
        ("particles", _particles(report)),
        *(_view_onto(report.onto) if report.onto else []),
        *([("poses from", report.alignment)] if report.alignment else []),
        ("optics groups", f"{report.optics_groups:,}"),
        *([("micrographs", f"those of {report.micrographs}")] if report.micrographs else []),
        *([("coordinates", report.coordinates)] if report.coordinates else []),
        *([("no place for", some(report.dropped_columns))] if report.dropped_columns else []),
        *([("copies" if is_copy else "links", f"{report.links:,}")] if report.links else []),
        *changed_pixels(report),
        *([("map", report.map_check.as_text())] if report.map_check else []),
        *outputs(report),
        *((f"Δ {item.quantity}", _difference(item)) for item in (report.verified or ()) if settings.verbose),
    ]


def _particles(report: ConvertReport) -> str:
    recentring = report.recentring
    if recentring is None or recentring.copies == 1:
        return f"{report.rows_out:,} of {report.rows_in:,}"
    return f"{report.rows_out:,}, {counted(recentring.copies, 'copy', 'copies')} of {report.rows_in:,}"


def _view_onto(onto: OntoReport) -> Facts:
    places, n_matched = onto.matched.places, onto.rows - onto.rows_without_partner
    apart = f", {places.median_A:.2g} Å apart (median), {places.largest_A:.2g} Å at most" if places else ""
    n_unused, n_source = onto.source_rows_not_used, onto.source_rows
    return [
        ("onto", f"{n_matched:,} of {counted(onto.rows, 'row')} of {onto.base}"),
        ("matched by", f"{onto.matched.by}{apart}"),
        *([("not used", f"{n_unused:,} of {counted(n_source, 'row')}")] if n_unused else []),
        *([("copies", f"{counted(onto.copies, 'row')} more")] if onto.copies else []),
        *([("boxes", f"up to {onto.offset_largest_A:.3g} Å elsewhere")] if onto.offset_largest_A else []),
        ("taken", ", ".join(onto.take)),
        *((what, some(names)) for what, names in (("replaced", onto.replaced), ("added", onto.added)) if names),
        *([("left out", some(onto.removed))] if onto.removed else []),
    ]


def _difference(item: Difference) -> str:
    if not math.isfinite(item.largest):
        return "absent in the output"
    more = "" if item.is_good else f" — more than {item.tolerance:.2g} {item.unit}"
    return f"{item.largest:.2g} {item.unit}{more}"
