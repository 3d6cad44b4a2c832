"""`cryobridge converge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryobridge.cli.build import flag, takes_options
from cryobridge.cli.common import output_option
from cryobridge.cli.run import RunOptions
from cryobridge.cli.terminal import output_width, print_json, progress, settings, show, show_command, show_messages
from cryobridge.errors import UsageError, option
from cryobridge.jobs.converge.options import ConvergeOptions
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt
from cryobridge.report import jsonable

if TYPE_CHECKING:
    from cryobridge.jobs.converge.files import FoundJobs
    from cryobridge.jobs.converge.report import ConvergeReport
    from cryobridge.model.classification import History

EXIT_NOT_CONVERGED = 3
_WATCH = "Watching"


@dataclass(frozen=True, kw_only=True)
class WatchOptions(Options):
    """Whether and how a job is followed while it runs."""

    watch: Annotated[bool, Opt("Follow a job while it runs.", panel=_WATCH)] = False
    settle_s: Annotated[
        float, Opt("Read a new file when it has not changed for so many seconds.", metavar="S", low=0, panel=_WATCH)
    ] = 5.0
    timeout_s: Annotated[
        float | None, Opt("Stop watching after so many seconds.", metavar="S", low=0, panel=_WATCH)
    ] = None
    fail_if_not_converged: Annotated[
        bool, Opt("Exit with code 3 unless the classes have converged.", panel="Verdict")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout_s is not None and not self.watch:
            raise UsageError(
                f"{option('timeout_s')} is for {option('watch')}",
                hint=f"Add {option('watch')}, or leave {option('timeout_s')} out.",
            )


@takes_options
def converge(
    options: ConvergeOptions,
    watching: WatchOptions,
    run: RunOptions,
    job: Annotated[
        Path, typer.Argument(metavar="JOBDIR", help="Folder of a classification or refinement, or of a project.")
    ] = Path(),
    output: Annotated[
        Path | None,
        output_option("DIR", "Folder for tables and pictures.", default="JOBDIR"),
    ] = None,
) -> None:
    """Show whether the classes of a classification have settled; for a project, list its jobs."""
    from cryobridge.jobs.converge.converge import plan_converge
    from cryobridge.jobs.converge.files import jobs_in, several_jobs_error
    from cryobridge.jobs.job import executed

    found = jobs_in(job)
    if found is not None:
        if output or options.named_outputs or watching.watch or watching.fail_if_not_converged:
            raise several_jobs_error(found)
        _show_jobs(found, as_json=run.as_json)
        return
    plan = plan_converge(job, output, options, settle_s=watching.settle_s if watching.watch else None)
    is_logged = False
    if watching.watch:
        from cryobridge.cli.converge_watch import watch_job

        plan.check(overwrite=run.overwrite)
        is_logged = watch_job(plan, watching, run)
        report = plan.finish(overwrite=run.overwrite, dry_run=run.dry_run)
    else:
        with progress() as reporter:
            report = executed(plan, overwrite=run.overwrite, dry_run=run.dry_run, reporter=reporter)
    show_messages(report.messages)
    if run.as_json:
        print_json(report.to_json(flag))
    else:
        _show(report.history, only_verdict=is_logged)
        if not settings.quiet:
            _show_files(report)
    if watching.fail_if_not_converged and not report.verdict.converged:
        raise typer.Exit(EXIT_NOT_CONVERGED)


def _show(history: History, *, only_verdict: bool) -> None:
    from cryobridge.cli.converge_view import history_view, verdict_view

    if only_verdict or not history.iterations:
        show(verdict_view(history.verdict))
    else:
        show(history_view(history, output_width()))


def _show_jobs(found: FoundJobs, *, as_json: bool) -> None:
    from cryobridge.cli.converge_view import jobs_view

    if as_json:
        print_json(jsonable(found))
        return
    show(jobs_view(found.jobs))
    show_command(["cryobridge", "converge", str(found.jobs[-1].job)])


def _show_files(report: ConvergeReport) -> None:
    from cryobridge.cli.converge_view import files_view

    if report.files:
        show(files_view(report.files, dry_run=report.dry_run))
