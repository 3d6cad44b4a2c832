"""What is reported of a classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.jobs.converge.outputs import OutputFile
from cryobridge.jobs.converge.tables import class_rows, iteration_row, metrics_row
from cryobridge.model.classification import (
    Counts,
    FinalResult,
    History,
    Iteration,
    IterationMetrics,
    Verdict,
    summed_transitions,
)
from cryobridge.report import Report

if TYPE_CHECKING:
    from cryobridge.report import Message

_RELION = "relion_"


@dataclass(frozen=True, kw_only=True)
class RelionMetrics:
    """What RELION says of an iteration itself; None where it is unknown.

    Parameters
    ----------
    changed_percent
        rlnChangesOptimalClasses, as a percentage.
    orientation_change_deg, offset_change_A
        Changes of orientations and offsets.
    resolution_A
        Resolution of the job.
    rotation_accuracy_deg, translation_accuracy_A
        Accuracies, of the best class where they differ.
    log_likelihood
        rlnLogLikelihood.
    class_distribution
        Class number -> rlnClassDistribution.
    """

    changed_percent: float | None
    orientation_change_deg: float | None
    offset_change_A: float | None
    resolution_A: float | None
    rotation_accuracy_deg: float | None
    translation_accuracy_A: float | None
    log_likelihood: float | None
    class_distribution: Mapping[str, float | None]

    @classmethod
    def of(cls, metrics: IterationMetrics) -> RelionMetrics:
        """Return what was read of an iteration's model and optimiser."""
        values = {name.removeprefix(_RELION): value for name, value in metrics_row(metrics).items()}
        shares = metrics.class_distribution.tolist()
        distribution = {str(number): share if math.isfinite(share) else None for number, share in enumerate(shares, 1)}
        return cls(**values, class_distribution=distribution)


@dataclass(frozen=True, kw_only=True)
class IterationRow:
    """One iteration, compared with the one before it that is there.

    Parameters
    ----------
    iteration
        Its number.
    source
        Its file.
    particles
        Particles in it.
    unassigned
        Particles without a class.
    arrived, departed
        Particles that are new, and that are gone.
    compared
        Particles that are in both iterations; None in the first.
    changed, changed_percent
        Particles that changed class, and their percentage of those compared; None in the first.
    occupied
        Classes with particles.
    effective_classes
        The exponential of the entropy of the populations.
    largest_class, largest, smallest_class, smallest
        Numbers of the classes, and their particles.
    populations
        Class number -> particles.
    relion
        What RELION says itself.
    """

    iteration: int
    source: Path
    particles: int
    unassigned: int
    arrived: int
    departed: int
    compared: int | None
    changed: int | None
    changed_percent: float | None
    occupied: int
    effective_classes: float
    largest_class: int | None
    largest: int | None
    smallest_class: int | None
    smallest: int | None
    populations: Mapping[str, int]
    relion: RelionMetrics

    @classmethod
    def of(cls, iteration: Iteration) -> IterationRow:
        """Return the row of an iteration."""
        row = iteration_row(iteration)
        for name in metrics_row(iteration.metrics):
            del row[name]
        return cls(
            **{**row, "source": iteration.source},
            populations={str(number): count for number, count in enumerate(iteration.populations.tolist(), 1)},
            relion=RelionMetrics.of(iteration.metrics),
        )


@dataclass(frozen=True, kw_only=True)
class FinalRow:
    """What an automatic refinement has ended with.

    Parameters
    ----------
    iteration
        The iteration that it is, one more than the last.
    source
        Its particles, ``run_data.star``.
    relion
        What RELION says of it: ``resolution_A`` is the final resolution.
    """

    iteration: int
    source: Path
    relion: RelionMetrics

    @classmethod
    def of(cls, final: FinalResult) -> FinalRow:
        """Return the row of the final files."""
        return cls(iteration=final.number, source=final.source, relion=RelionMetrics.of(final.metrics))


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class in the last iteration.

    Parameters
    ----------
    number
        Its number, from 1.
    particles, percent
        Its particles, and their percentage of all.
    class_distribution
        rlnClassDistribution.
    resolution_A
        Its resolution.
    kept, came, went
        Particles that stayed, entered and left in the last step; None in the first iteration.
    """

    number: int = field(metadata={"json": "class"})
    particles: int
    percent: float | None
    class_distribution: float | None
    resolution_A: float | None
    kept: int | None
    came: int | None
    went: int | None


@dataclass(frozen=True)
class Move:
    """Particles that went from a class to a class, or stayed in it.

    Parameters
    ----------
    source, target
        Numbers of the classes, from 1.
    particles
        How many.
    """

    source: int = field(metadata={"json": "from"})
    target: int = field(metadata={"json": "to"})
    particles: int


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """Particles from class to class, those that stayed included.

    Parameters
    ----------
    last
        In the last step.
    summed
        In the last steps, added up.
    summed_steps
        How many steps these are.
    """

    last: tuple[Move, ...]
    summed: tuple[Move, ...]
    summed_steps: int

    @classmethod
    def of(cls, history: History) -> Transitions:
        """Return those of the last steps of a job."""
        steps, summed = summed_transitions(history.iterations)
        _, last = summed_transitions(history.iterations, 1)
        return cls(last=_moves(last), summed=_moves(summed), summed_steps=steps)


@dataclass(frozen=True, kw_only=True)
class VolatileCounts:
    """How often particles changed class lately.

    Parameters
    ----------
    steps
        Steps that were looked at.
    particles_by_changes
        Number of changes in them -> particles.
    """

    steps: int
    particles_by_changes: Mapping[str, int]

    @classmethod
    def of(cls, jumps: tuple[int, Counts]) -> VolatileCounts:
        """Return the counts of `cryobridge.jobs.converge.tracking.ClassTracker.jumps`."""
        steps, changes = jumps
        times = np.bincount(changes[changes >= 0], minlength=steps + 1)
        return cls(steps=steps, particles_by_changes={str(number): int(count) for number, count in enumerate(times)})


@dataclass(frozen=True)
class JudgedVerdict(Verdict):
    """Whether the classes have settled, and by which threshold.

    Parameters
    ----------
    converged
        The answer; None when it is too early to decide.
    rule
        The rule in one sentence.
    reason
        What decided, in one sentence.
    iterations_left
        Estimate of how many more are needed; None where there is none.
    threshold_percent
        The percentage of changed particles that the rule asks for.
    """

    threshold_percent: float


@dataclass(frozen=True, kw_only=True)
class ConvergeReport(Report):
    """Whether the classes of a job settle, with the numbers behind it.

    ``rows_in`` are the particles of the last iteration, ``rows_out`` those that have a class there.

    Parameters
    ----------
    job
        The job folder.
    program
        ``RELION`` or ``cryoSPARC``; empty while there is no iteration.
    kind
        Class2D, Class3D, Refine3D …; empty where it is unknown.
    iterations
        The iterations, in their order.
    final
        What a refinement has ended with; None in other jobs, and while it runs.
    classes
        The classes in the last iteration.
    transitions
        Particles from class to class in the last steps.
    volatile
        How often particles changed class lately.
    verdict
        Whether the classes have settled.
    history
        The same as arrays, with the matrices of all steps; not in the JSON.
    files
        ``outputs`` with what is in each; not in the JSON.
    """

    job: Path
    program: str
    kind: str
    iterations: tuple[IterationRow, ...]
    final: FinalRow | None
    classes: tuple[ClassRow, ...]
    transitions: Transitions
    volatile: VolatileCounts
    verdict: JudgedVerdict
    history: History = field(metadata={"json": None}, repr=False)
    files: tuple[OutputFile, ...] = field(default=(), metadata={"json": None}, repr=False)

    @classmethod
    def of(
        cls,
        history: History,
        jumps: tuple[int, Counts],
        messages: tuple[Message, ...] = (),
        files: tuple[OutputFile, ...] = (),
    ) -> ConvergeReport:
        """Return the report of a job.

        Parameters
        ----------
        history
            Its iterations.
        jumps
            How often particles changed class lately, of `cryobridge.jobs.converge.tracking.ClassTracker.jumps`.
        messages
            What is to be said besides the messages of the history.
        files
            What is written.
        """
        last = history.iterations[-1] if history.iterations else None
        n_particles, n_unassigned = (last.particles, last.unassigned) if last else (0, 0)
        return cls(
            rows_in=n_particles,
            rows_out=n_particles - n_unassigned,
            left_out={"no class": n_unassigned} if n_unassigned else {},
            messages=(*history.messages, *messages),
            outputs=tuple(file.path for file in files),
            files=files,
            job=history.folder,
            program=history.program,
            kind=history.kind,
            iterations=tuple(map(IterationRow.of, history.iterations)),
            final=None if history.final is None else FinalRow.of(history.final),
            classes=tuple(map(_class_row, class_rows(last) if last else [])),
            transitions=Transitions.of(history),
            volatile=VolatileCounts.of(jumps),
            verdict=JudgedVerdict(**vars(history.verdict), threshold_percent=100 * history.threshold),
            history=history,
        )


def _class_row(row: dict[str, Any]) -> ClassRow:
    del row["iteration"]
    return ClassRow(number=row.pop("class"), **row)


def _moves(transitions: Counts | None) -> tuple[Move, ...]:
    """Return who went where, also those who stayed; pairs without particles are left out."""
    if transitions is None:
        return ()
    return tuple(
        Move(int(before) + 1, int(after) + 1, int(transitions[before, after]))
        for before, after in np.argwhere(transitions)
    )
