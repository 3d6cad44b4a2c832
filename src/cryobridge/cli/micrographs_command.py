"""`cryobridge micrographs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.run import Facts, RunOptions, left_out, outputs, run_job, some
from cryobridge.jobs.exposures.options import MicrographsOptions
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.jobs.exposures.report import MicrographsReport
    from cryobridge.jobs.job import Job
    from cryobridge.progress import Reporter


@takes_options
def micrographs(
    options: MicrographsOptions,
    run: RunOptions,
    exposures: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPOSURES...",
            help="cryoSPARC exposures: .cs, .csg or job folder, and .cs files to be joined; or RELION's .star.",
        ),
    ],
    output: Annotated[
        Path, output_option("OUT", "Folder to write to, such as MotionCorr/job002; for cryoSPARC a .cs file.")
    ],
) -> None:
    """Take micrographs and movies from cryoSPARC to RELION, or micrographs back."""
    from cryobridge.jobs.exposures.job import micrographs_job

    def prepare(reporter: Reporter) -> Job[MicrographsReport]:
        return micrographs_job(exposures, output, options, reporter=reporter)

    run_job(prepare, run, ("Micrographs", "Would write"), _view)


def _view(report: MicrographsReport) -> Facts:
    facts = [("micrographs", f"{report.rows_out:,} of {report.rows_in:,}"), *left_out(report)]
    facts.append(("optics groups", f"{report.optics_groups:,}"))
    if report.dose_per_frame_e_A2 is not None:
        low, high = report.dose_per_frame_e_A2
        facts.append(("dose per frame", f"{low:g}{f' to {high:g}' if high > low else ''} e/Å²"))
    files = [counted(report.links, "link")] if report.links else []
    if report.copies:
        files.append(counted(report.copies, "copy", "copies"))
    if report.rewritten:
        files.append(f"{report.rewritten:,} as float32")
    if report.flipped:
        files.append(f"{report.flipped:,} with rows reversed")
    facts.append(("files", ", ".join(files) or "none"))
    if report.dropped_columns:
        facts.append(("no place for", some(report.dropped_columns)))
    if report.relion_project is None:
        return [*facts, *outputs(report)]
    if report.motion is not None:
        text = counted(report.motion.n_micrographs, "micrograph")
        if report.motion.rms_px is not None:
            text += f", local model off by {report.motion.rms_px:.2g} px rms, {report.motion.largest_px:.2g} at most"
        facts.append(("motion", text))
    facts += [("no motion", f"{count:,}: {reason}") for reason, count in report.motion_left_out.items()]
    facts.append(("RELION project", str(report.relion_project)))
    counts = [counted(n_rows, "row") for n_rows in report.lists.values()]
    written = zip(outputs(report), counts, strict=True)
    return [*facts, *((title, f"{path}  {count}") for (title, path), count in written)]
