"""Carrying out what was planned for micrographs: links and copies first, then the lists that name them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryobridge.errors import UsageError
from cryobridge.formats.listing import is_there
from cryobridge.formats.registry import STAR, identify_file
from cryobridge.formats.relion.job import MICROGRAPH_STARS
from cryobridge.formats.relion.list_names import LIST_FILES
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.exposures.old_outputs import files_of_older_lists, remove_empty_folders, without_inputs
from cryobridge.jobs.exposures.plan import plan_micrographs
from cryobridge.jobs.links import make_links
from cryobridge.jobs.output_folder import has_own_record, job_record, whole_files
from cryobridge.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryobridge.jobs.exposures.options import MicrographsOptions
    from cryobridge.jobs.exposures.plan import MicrographsPlan
    from cryobridge.jobs.exposures.report import MicrographsReport
    from cryobridge.jobs.job import Job
    from cryobridge.progress import Reporter

_CONTENTS = (
    "Lists of micrographs for RELION (.star), and the image files that they name, most of them links. "
    "Names start at the RELION project."
)


def micrographs_job(
    exposures: Sequence[Path], output: Path, options: MicrographsOptions, *, reporter: Reporter | None = None
) -> Job[MicrographsReport]:
    """Return the job that takes micrographs to the other program: RELION's lists to cryoSPARC, all else to RELION.

    Raises
    ------
    UsageError
        If a list of RELION is given with other files.
    CryobridgeError
        As `plan_micrographs` and `plan_exposures` do.
    """
    star = _list_of_relion(exposures[0])
    if star is None:
        return MicrographsJob(plan_micrographs(exposures, output, options, reporter=reporter))
    if len(exposures) > 1:
        raise UsageError("one list of RELION's is taken at a time", path=exposures[1], hint="Run it once for each.")
    from cryobridge.jobs.exposures.to_cryosparc import plan_exposures

    return plan_exposures(star, output, options, reporter=reporter)


def _list_of_relion(path: Path) -> Path | None:
    """Return RELION's list of micrographs: the file itself, or that of a folder; None for other inputs."""
    if not path.is_dir():
        return path if identify_file(path) == STAR else None
    return next((path / name for name in MICROGRAPH_STARS if is_there(path / name)), None)


@dataclass(frozen=True)
class MicrographsJob:
    """Lists of micrographs that can be written."""

    plan: MicrographsPlan

    def report(self) -> MicrographsReport:
        """Return what will be written."""
        return self.plan.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse what can't be written; raises as `MicrographsPlan.check` does."""
        self.plan.check(overwrite=overwrite)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> MicrographsReport:
        """Make the links and write the lists."""
        plan, reporter = self.plan, reporter or Silent()
        self.check(overwrite=overwrite)
        is_own = overwrite and has_own_record(plan.folder)
        outdated = self._outdated() if is_own else []
        title = f"Micrographs of {plan.source.path.name} for RELION"
        with job_record(plan.folder, title, _CONTENTS, check=lambda: self.check(overwrite=overwrite)) as record:
            if plan.new_links:
                reporter.start("copying files" if plan.options.copy else "linking files", len(plan.new_links))
                make_links(
                    plan.new_links, copy=plan.options.copy, reporter=reporter, place="output", replaces=overwrite
                )
            if plan.polishing is not None:
                plan.polishing.write(reporter)
            reporter.start("writing lists", None)
            with whole_files(list(plan.outputs.values()), overwrite=overwrite) as remove:
                for kind, path in plan.outputs.items():
                    write_star(path, plan.blocks(kind))
                for path in outdated:
                    remove(path)
            remove_empty_folders(outdated, plan.folder)
            report = plan.report()
            report = replace(report, messages=(*report.messages, *record.messages))
            record.report = report
        return report

    def _outdated(self) -> list[Path]:
        """Return what an older run has left that goes with none of the new lists."""
        plan = self.plan
        old = files_of_older_lists(plan.folder) - {link.path for link in plan.links}
        if plan.polishing is not None:
            old -= {*plan.polishing.outputs}
        sources = [] if plan.polishing is None else [gain.source for gain in plan.polishing.gains.gains]
        old = without_inputs(old, [*plan.source.files, *(link.target for link in plan.links), *sources])
        lists = [plan.folder / name for kind, name in LIST_FILES.items() if kind not in plan.lists]
        return [*lists, *sorted(old)]
