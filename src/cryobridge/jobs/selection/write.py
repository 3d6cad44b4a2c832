"""Writing a planned selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryobridge.errors import UsageError
from cryobridge.formats.atomic import together
from cryobridge.formats.write import RowWriter
from cryobridge.jobs.output_folder import make_folder, refuse_existing
from cryobridge.progress import Reporter, Silent

if TYPE_CHECKING:
    from cryobridge.jobs.selection.plan import SelectPlan


def write_selection(plan: SelectPlan, *, overwrite: bool = False, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write the files of a plan.

    Parameters
    ----------
    plan
        As `cryobridge.jobs.selection.plan.plan_select` returns it.
    overwrite
        Replace outputs that are there.
    reporter
        Who is told of the progress.

    Returns
    -------
    dict
        The report (see `SelectPlan.report`).

    Raises
    ------
    UsageError
        If an output is an input.
    OutputExistsError
        If an output is there already and ``overwrite`` is False.
    CryobridgeError
        If the operating system refuses.
    """
    check_outputs(plan, overwrite=overwrite)
    reporter = reporter or Silent()
    writer = RowWriter(plan.particles)
    reporter.start("writing", len(plan.parts) if len(plan.parts) > 1 else None)
    with together():
        for part in plan.parts:
            make_folder(part.path.parent)
            writer.write(part.path, part.kept, plan.added)
            reporter.advance()
        # Another run may have written them since.
        refuse_existing(plan.outputs(), overwrite=overwrite)
    return plan.report()


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
    same = [path for path in plan.outputs() if path.resolve() in inputs]
    if same:
        raise UsageError("this file is read; it can't be the output too", path=same[0], hint="Give -o another name.")
    refuse_existing(plan.outputs(), overwrite=overwrite)
