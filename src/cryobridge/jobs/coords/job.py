"""Carrying out what was planned for picks: the orientation check, writing, and pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryobridge.jobs.coords.plan import plan_coords
from cryobridge.jobs.output_folder import refuse_existing
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    import os

    from cryobridge.jobs.coords.options import CoordsOptions
    from cryobridge.jobs.coords.plan import CoordsPlan
    from cryobridge.jobs.coords.report import CoordsReport


@dataclass(frozen=True)
class CoordsJob:
    """Picks that can be written."""

    plan: CoordsPlan

    def report(self) -> CoordsReport:
        """Return what will be written."""
        return self.plan.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse what can't be written.

        Raises
        ------
        OutputExistsError
            If there are picks in the folder already and ``overwrite`` is False.
        CryobridgeError
            If RELION's micrographs are of another shape than cryoSPARC's.
        """
        plan = self.plan
        if plan.is_refused:
            return
        if plan.sizes.error:
            raise plan.sizes.error
        refuse_existing(plan.existing(), overwrite=overwrite)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> CoordsReport:
        """Write the picks and draw the pictures, unless the orientation check forbids it."""
        from cryobridge.jobs.coords.write import write_picks

        plan = self.plan
        self.check(overwrite=overwrite)
        if plan.is_refused:
            return plan.report()
        (reporter or Silent()).start("writing pick files", None)
        messages = write_picks(plan, overwrite=overwrite)
        report = plan.report()
        report = replace(report, messages=(*report.messages, *messages))
        if not plan.options.preview:
            return report
        from cryobridge.jobs.coords.preview import write_previews

        return replace(report, previews=tuple(write_previews(plan, plan.options.preview)))


def prepare_coords(
    picks: str | os.PathLike[str],
    micrographs: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    options: CoordsOptions,
    *,
    may_exist: bool = True,
    reporter: Reporter | None = None,
) -> CoordsJob:
    """Return the job that carries out what `plan_coords` plans; takes and raises what that does."""
    return CoordsJob(plan_coords(picks, micrographs, output, options, may_exist=may_exist, reporter=reporter))
