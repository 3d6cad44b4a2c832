"""Choosing particles from Python."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import UsageError
from cryobridge.formats.particle_files import EXPANDED
from cryobridge.jobs.job import carried_out
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.jobs.selection.plan import plan_choice, plan_select
from cryobridge.jobs.selection.write import SelectJob
from cryobridge.jobs.set_file import write_set
from cryobridge.model.particles import ExtraColumns, ParticleSet
from cryobridge.options import as_path, made, takes
from cryobridge.report import distinct

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cryobridge.jobs.selection.plan import SelectPlan
    from cryobridge.jobs.selection.report import SelectReport
    from cryobridge.progress import Reporter
    from cryobridge.report import Message


@takes(SelectOptions)
def select(
    particles: str | os.PathLike[str] | ParticleSet | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ParticleSet:
    """Return the particles that fulfil all that is asked for.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file, a job folder, or a set in memory; None for the particles of ``run``.
    output
        A file of the same program to write them to as well, with all columns; particles in memory must be as they were
        read from a file, or some of them.
    overwrite
        Replace outputs that are there.
    **options
        ``rows`` may be an array of row numbers, and ``like``, ``and_`` and ``not_`` sets in memory; ``or_`` takes
        files, and ``first + other`` unites sets. The fields of `SelectOptions`.

    Returns
    -------
    ParticleSet
        In the order of the file. ``attach_class`` sets its classes.

    Raises
    ------
    UsageError
        If requests contradict each other, or name what is not there.
    CryobridgeError
        If rows, labels and particles don't line up, or no particle is left.

    Examples
    --------
    >>> import cryobridge as cb
    >>> far = cb.select("run_data.star", where="rlnDefocusU > 12000", classes=(1, 4))
    >>> same = cb.select("J4/J4_003_particles.cs", like=far)
    """
    asked = made(SelectOptions, options)
    writes_files = output is not None and not isinstance(particles, ParticleSet)
    if asked.split_by_class is not None or (asked.attach_latent is not None and not writes_files):
        name = "split_by_class" if asked.split_by_class is not None else "attach_latent"
        raise UsageError("it is for particles of a file that are written", option=name, hint="Leave it out.")
    if output is None or isinstance(particles, ParticleSet):
        chosen = _chosen(plan_choice(particles, asked))
        if output is None:
            return chosen
        _, messages = write_set(chosen, as_path(output, "output"), overwrite=overwrite)
        return _with_messages(chosen, messages)
    plan = plan_select(particles, output, asked)
    carried_out(SelectJob(plan), overwrite=overwrite, dry_run=False, reporter=None)
    return _chosen(plan)


def _chosen(plan: SelectPlan) -> ParticleSet:
    chosen = _with_messages(plan.particles.particles.take(plan.kept), plan.messages)
    if plan.collapsed is not None and plan.collapsed.uid is not None:
        chosen = replace(chosen, uid=plan.collapsed.uid[plan.kept], extra=_without_copies(chosen.extra))
    if plan.attached is None:
        return chosen
    return chosen.with_columns(cluster=np.maximum(plan.attached[plan.kept], 0))


def _without_copies(extra: ExtraColumns | None) -> ExtraColumns | None:
    """Leave out what says of which particle a row is a copy: the row is that particle now."""
    if extra is None:
        return None
    return replace(extra, names=tuple(name for name in extra.names if not name.startswith(f"{EXPANDED}/")))


def _with_messages(particles: ParticleSet, messages: Sequence[Message]) -> ParticleSet:
    """Return particles that say more; that is no change of them, they are still those of their files."""
    said = replace(particles, messages=distinct([*particles.messages, *messages]))
    return said.with_origin(particles.origin)


@takes(SelectOptions)
def select_files(
    particles: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> SelectReport:
    """Write the particles of a file that fulfil all that is asked for, with all their columns.

    Parameters
    ----------
    particles
        A `.star`, `.cs` or `.csg` file or a job folder; None for the particles of ``run``.
    output
        The file to write, of the same program; None with ``split_by_class``.
    overwrite
        Replace outputs that are there.
    dry_run
        Check everything and write nothing.
    reporter
        Who hears of the progress.
    **options
        The fields of `SelectOptions`.

    Returns
    -------
    SelectReport
        What was written.

    Raises
    ------
    UsageError
        If requests contradict each other, or name what is not there.
    OutputExistsError
        If an output is there and may not be replaced.
    CryobridgeError
        If rows, labels and particles don't line up, or no row is left.

    Examples
    --------
    >>> import cryobridge as cb
    >>> report = cb.select_files("run_data.star", "good.star", classes=(1, 4))
    >>> report = cb.select_files("run_data.star", split_by_class="classes")
    """
    job = SelectJob(plan_select(particles, output, made(SelectOptions, options)))
    return carried_out(job, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
