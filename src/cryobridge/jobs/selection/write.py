"""Writing a planned selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryobridge.errors import UsageError, option
from cryobridge.formats.atomic import together
from cryobridge.formats.write import RowWriter
from cryobridge.jobs.output_folder import make_folder, refuse_existing

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
    inputs = {path.resolve() for path in plan.inputs}
    same = next((path for path in plan.outputs() if path.resolve() in inputs), None)
    if same is not None:
        hint = f"Give {option('output')} another name."
        raise UsageError("this file is read; it can't be the output too", path=same, hint=hint)
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
