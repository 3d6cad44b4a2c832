"""Writing a planned selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryobridge.formats.relion.star_check import require_starfile_reads
from cryobridge.formats.write import RowWriter
from cryobridge.jobs.output_folder import refuse_existing, refuse_inputs, whole_files
from cryobridge.progress import Silent

if TYPE_CHECKING:
    from cryobridge.jobs.selection.plan import SelectPlan
    from cryobridge.jobs.selection.report import SelectReport
    from cryobridge.progress import Reporter


@dataclass(frozen=True, eq=False)
class SelectJob:
    """A selection that can be carried out."""

    plan: SelectPlan

    def report(self) -> SelectReport:
        """Return what will be written."""
        return self.plan.report()

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse to write over a file that is read, or over one that is there.

        Raises
        ------
        UsageError
            If an output is an input.
        OutputExistsError
            If an output is there already and ``overwrite`` is False.
        """
        refuse_inputs(self.plan.outputs(), self.plan.inputs)
        refuse_existing(self.plan.outputs(), overwrite=overwrite)

    def run(self, *, overwrite: bool = False, reporter: Reporter | None = None) -> SelectReport:
        """Write the files, all or none, and read STAR files back if that is asked for; raises as `check` does."""
        self.check(overwrite=overwrite)
        plan, reporter = self.plan, reporter or Silent()
        writer = RowWriter(plan.particles)
        parents = None if plan.collapsed is None else plan.collapsed.uid
        reporter.start("writing", len(plan.parts) if len(plan.parts) > 1 else None)
        with whole_files(plan.outputs(), overwrite=overwrite):
            for part in plan.parts:
                writer.write(part.path, part.kept, plan.changes, parents=parents)
                reporter.advance()
        if plan.options.verify:
            for part in plan.parts:
                if part.path.suffix == ".star":
                    require_starfile_reads(part.path, int(part.kept.sum()))
        return self.report()
