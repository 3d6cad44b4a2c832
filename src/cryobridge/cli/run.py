"""How every command runs: plan, check, work, and what is shown at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cryobridge.cli.build import flag
from cryobridge.cli.terminal import LINES_AFTER_S, PATIENCE_S, print_json, progress, show_messages, show_report, working
from cryobridge.jobs.job import executed
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt
from cryobridge.report import Report, counted

if TYPE_CHECKING:
    from cryobridge.jobs.convert.report import ConvertReport
    from cryobridge.jobs.job import Job
    from cryobridge.jobs.stacks.report import DownsampleReport
    from cryobridge.progress import Reporter

_RUN = "Run"


@dataclass(frozen=True, kw_only=True)
class JsonOptions(Options):
    """How the answer is shown."""

    as_json: Annotated[bool, Opt("Print JSON, and nothing else, on stdout.", flags=("--json",), panel=_RUN)] = False


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions(JsonOptions):
    """What may be replaced, and how the answer is shown."""

    overwrite: Annotated[bool, Opt("Replace outputs that exist.", panel=_RUN)] = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(OverwriteOptions):
    """The same for what can be tried without writing."""

    dry_run: Annotated[bool, Opt("Check everything and show what would be done; write nothing.", panel=_RUN)] = False


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(RunOptions):
    """The same for work that can go on where it stopped."""

    resume: Annotated[bool, Opt("Continue a run that was interrupted; what is finished is kept.", panel=_RUN)] = False
    verify_outputs: Annotated[bool, Opt("With --resume: read finished stacks again to check them.", panel=_RUN)] = False


R = TypeVar("R", bound=Report)
Facts = list[tuple[str, str]]


def run_job(
    prepare: Callable[[Reporter], Job[R]],
    options: RunOptions,
    titles: tuple[str, str],
    view: Callable[[R], Facts],
    *,
    confirm: Callable[[], RunOptions] | None = None,
    is_long: bool = False,
) -> R:
    """Plan a job, check it, do the work unless it is a dry run, and show the report.

    Parameters
    ----------
    prepare
        Reads the inputs and returns the job; called with who hears of the progress.
    options
        What may be replaced, and how the answer is shown.
    titles
        Of the closing table: for a run, and for a dry run.
    view
        From the report to the rows of the closing table.
    confirm
        Asks what has to be asked between plan and work, and returns the options with the answers.
    is_long
        Whether a log has the beginning of the work at once, and not only when it has taken some time.

    Returns
    -------
    Report
        What was shown.
    """
    with working("reading") as reporter:
        job = prepare(reporter)
    # What is known before the work is said before it, which may take hours.
    show_messages(job.report().messages)
    options = options if confirm is None else confirm()
    with progress(PATIENCE_S, lines_after_s=0 if is_long else LINES_AFTER_S) as reporter:
        report = executed(job, overwrite=options.overwrite, dry_run=options.dry_run, reporter=reporter)
    show_messages(report.messages)
    show_answer(report, options, titles, view)
    report.require()
    return report


def show_answer(report: R, options: JsonOptions, titles: tuple[str, str], view: Callable[[R], Facts]) -> None:
    """Show a report as JSON or as a table."""
    if options.as_json:
        print_json(report.to_json(flag))
    else:
        show_report(titles[report.dry_run], view(report))


def left_out(report: Report) -> Facts:
    """Return a row for each reason for which rows are left out."""
    return [("left out", f"{count:,} {reason}") for reason, count in report.left_out.items()]


def outputs(report: Report) -> Facts:
    """Return a row for each file that is written, or would be."""
    return [("written" if not report.dry_run else "output", str(path)) for path in report.outputs]


def some(names: Any, most: int = 8) -> str:
    """Return the first names of a list, and how many there are besides."""
    listed = list(map(str, names))
    more = f" and {len(listed) - most:,} more (--json names them)" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def changed_pixels(report: ConvertReport | DownsampleReport) -> Facts:
    """Return a row on what becomes of pixels, if anything."""
    facts = [("inverted", f"{counted(report.inverted, 'image')}, pixels × -1")] if report.inverted else []
    if report.background_radius_px:
        radii, without = ", ".join(map(str, report.background_radius_px)), "a plane" if report.ramp else "the mean"
        facts.append(("normalised", f"outside of {radii} px, less {without}"))
    return facts
