"""Writing a planned selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.formats.atomic import together
from cryobridge.formats.relion.star_check import require_starfile_reads
from cryobridge.formats.write import RowWriter
from cryobridge.jobs.output_folder import make_folder, refuse_existing, refuse_inputs

if TYPE_CHECKING:
    from cryobridge.jobs.selection.plan import SelectPlan
    from cryobridge.progress import Reporter


def check_outputs(plan: SelectPlan, *, overwrite: bool) -> None:
    """Refuse to write over a file that is read, or over one that is there.

    Raises
    ------
    UsageError
        If an output is an input.
    OutputExistsError
        If an output is there already and ``overwrite`` is False.
    """
    refuse_inputs(plan.outputs(), plan.inputs)
    refuse_existing(plan.outputs(), overwrite=overwrite)


def write_parts(plan: SelectPlan, *, overwrite: bool, reporter: Reporter) -> None:
    """Write the files of a plan, all or none; raises as `check_outputs` does."""
    check_outputs(plan, overwrite=overwrite)
    writer = RowWriter(plan.particles)
    reporter.start("writing", len(plan.parts) if len(plan.parts) > 1 else None)
    with together():
        for part in plan.parts:
            make_folder(part.path.parent)
            writer.write(part.path, part.kept, plan.added)
            reporter.advance()
        # Another run may have written them since.
        refuse_existing(plan.outputs(), overwrite=overwrite)
    if plan.options.verify:
        for part in plan.parts:
            if part.path.suffix == ".star":
                require_starfile_reads(part.path, int(part.kept.sum()))
