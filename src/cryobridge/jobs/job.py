"""What every job is: a plan, which has read and checked everything, with the work that follows from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeVar

from cryobridge.jobs.output_folder import require_writable
from cryobridge.progress import Reporter, Silent
from cryobridge.report import Report

R = TypeVar("R", bound=Report)
R_co = TypeVar("R_co", bound=Report, covariant=True)


class Job(Protocol[R_co]):
    """A plan that can be carried out."""

    def report(self) -> R_co:
        """Return what the work will make."""

    def check(self, *, overwrite: bool) -> None:
        """Refuse what can't be written, before the first byte is."""

    def run(self, *, overwrite: bool, reporter: Reporter) -> R_co:
        """Do the work and return what it made."""


def executed(job: Job[R], *, overwrite: bool, dry_run: bool, reporter: Reporter) -> R:
    """Carry a job out, or only check it, and return its report."""
    if not dry_run:
        return job.run(overwrite=overwrite, reporter=reporter)
    job.check(overwrite=overwrite)
    report = replace(job.report(), dry_run=True)
    require_writable(report.outputs)
    return report


def carried_out(job: Job[R], *, overwrite: bool, dry_run: bool, reporter: Reporter | None) -> R:
    """Carry a job out for Python: as `executed`, and what the report itself finds wrong is raised.

    Raises
    ------
    CryobridgeError
        See `cryobridge.report.Report.require`.
    """
    report = executed(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter or Silent())
    report.require()
    return report
