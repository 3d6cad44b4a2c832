"""The iterations of a classification as plain data: what tables, plots and the verdict are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryobridge.report import Message

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Over so many of the last steps moves between classes are added up.
FLOW_STEPS = 5
N_MOVES = 20
# Beyond, RELION means that it has no estimate.
WORST_RESOLUTION_A = 900.0
_REFINEMENTS = {"Refine3D", "InitialModel", "MultiBody"}


@dataclass(frozen=True)
class IterationMetrics:
    """What RELION says of an iteration itself; None or an empty array where it is unknown.

    Parameters
    ----------
    changed_fraction
        rlnChangesOptimalClasses, a fraction of 1.
    orientation_change_deg, offset_change_A
        rlnChangesOptimalOrientations and rlnChangesOptimalOffsets.
    resolution_A
        rlnCurrentResolution.
    rotation_accuracy_deg, translation_accuracy_A
        Accuracies, of the best class where they differ.
    log_likelihood
        rlnLogLikelihood.
    class_distribution
        (n_classes,) rlnClassDistribution; of class k at k - 1.
    class_resolution_A
        (n_classes,) rlnEstimatedResolution; NaN for a class without one.
    last_iteration
        rlnNumberOfIterations: the one that the job is to end with.
    has_converged
        rlnHasConverged of an auto-refinement; None in other jobs.
    gradient
        By which gradients the classes are found, ``VDAM`` (RELION 4 and later) or ``SGD`` (3.1): then an iteration
        looks at a part of the particles only. Empty in other jobs.
    """

    changed_fraction: float | None = None
    orientation_change_deg: float | None = None
    offset_change_A: float | None = None
    resolution_A: float | None = None
    rotation_accuracy_deg: float | None = None
    translation_accuracy_A: float | None = None
    log_likelihood: float | None = None
    class_distribution: Floats = field(default_factory=lambda: np.zeros(0))
    class_resolution_A: Floats = field(default_factory=lambda: np.zeros(0))
    last_iteration: int | None = None
    has_converged: bool | None = None
    gradient: str = ""


@dataclass(frozen=True)
class Iteration:
    """One iteration, compared with the one before it in the history.

    Parameters
    ----------
    number
        RELION's number of it.
    source
        The file that the classes were read from.
    particles
        Particles in it.
    populations
        (n_classes,) particles in class k at k - 1. The same length in a whole history.
    transitions
        (n_classes, n_classes) particles that went from class row + 1 to class column + 1 since the iteration before;
        None in the first. Only particles that are in both iterations count.
    arrived, departed
        Particles that the iteration before did not have, and those of it that are here no more.
    metrics
        What the program says itself.
    unassigned
        Particles without a class: their class number is 0.
    """

    number: int
    source: Path
    particles: int
    populations: Counts
    transitions: Counts | None
    arrived: int = 0
    departed: int = 0
    metrics: IterationMetrics = field(default_factory=IterationMetrics)
    unassigned: int = 0

    @property
    def compared(self) -> int:
        """Particles that are in this iteration and in the one before."""
        return 0 if self.transitions is None else int(self.transitions.sum())

    @property
    def changed(self) -> int | None:
        """Particles whose class is another one than before; None in the first iteration."""
        return None if self.transitions is None else int(self.transitions.sum() - np.trace(self.transitions))

    @property
    def changed_fraction(self) -> float | None:
        """Changed particles as a fraction of those compared; None where nothing could be compared."""
        return self.changed / self.compared if self.changed is not None and self.compared else None

    @property
    def occupied(self) -> int:
        """Classes with particles."""
        return int(np.count_nonzero(self.populations))

    @property
    def effective_classes(self) -> float:
        """The exponential of the entropy of the populations: how many classes of equal size they amount to."""
        total = self.populations.sum()
        if total == 0:
            return 0.0
        share = self.populations[self.populations > 0] / total
        return float(np.exp(-np.sum(share * np.log(share))))


@dataclass(frozen=True)
class Verdict:
    """Whether the classes have settled, by the rule that stands in `rule`.

    Parameters
    ----------
    converged
        The answer; None with too few iterations to decide.
    rule
        The rule in one sentence, with its numbers.
    reason
        What decided, in one sentence.
    iterations_left
        Estimate of how many more are needed; 0 when converged, None where the trend is unclear.
    """

    converged: bool | None
    rule: str
    reason: str
    iterations_left: int | None


@dataclass(frozen=True)
class FinalResult:
    """What an automatic refinement ends with: files without a number, of one iteration more.

    Parameters
    ----------
    number
        The iteration that it is.
    source
        The particles, ``run_data.star``.
    metrics
        What RELION says of it.
    """

    number: int
    source: Path
    metrics: IterationMetrics


@dataclass(frozen=True)
class History:
    """The iterations of one job, with the verdict.

    Parameters
    ----------
    folder
        The job folder.
    program
        ``RELION`` or ``cryoSPARC``.
    kind
        Class2D, Class3D, Refine3D … empty where it is unknown.
    iterations
        In their order.
    threshold
        The changed fraction that the verdict asks for.
    verdict
        The answer.
    messages
        Collapsed classes, gaps, files left out, counts that disagree.
    final
        What a refinement has ended with; None in other jobs, and while it runs.
    """

    folder: Path
    program: str
    kind: str
    iterations: tuple[Iteration, ...]
    threshold: float
    verdict: Verdict
    messages: tuple[Message, ...] = ()
    final: FinalResult | None = None

    @property
    def is_refinement(self) -> bool:
        """Whether there is one class and RELION refines it: resolution, angles and accuracies tell, not classes."""
        is_auto = self.final is not None or any(step.metrics.has_converged is not None for step in self.iterations)
        return self.n_classes == 1 and (is_auto or self.kind in _REFINEMENTS)

    @property
    def n_classes(self) -> int:
        """Highest class number."""
        return len(self.iterations[-1].populations) if self.iterations else 0


def numbers_of(iterations: Sequence[Iteration]) -> list[int]:
    """Return the numbers of the iterations."""
    return [iteration.number for iteration in iterations]


def or_nan(values: Sequence[float | None]) -> Floats:
    """Return numbers with NaN for what is not known, so that lines have a gap there."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def changed_percent(iterations: Sequence[Iteration]) -> Floats:
    """Return the percentage of particles that changed their class, by our count; NaN where there is none."""
    return 100 * or_nan([iteration.changed_fraction for iteration in iterations])


def program_changed_percent(iterations: Sequence[Iteration]) -> Floats:
    """Return the percentage that the program gives itself; NaN where it gives none."""
    return 100 * or_nan([iteration.metrics.changed_fraction for iteration in iterations])


def resolutions_A(history: History) -> Floats:
    """Return the resolution of the job in Å, (n_iterations,); NaN where it is not known."""
    return plausible_resolutions_A([iteration.metrics.resolution_A for iteration in history.iterations])


def plausible_resolutions_A(resolutions_A: Sequence[float | None]) -> Floats:
    """Return resolutions with NaN for those that are not known, or mean that there is no estimate."""
    values = or_nan(resolutions_A)
    values[~((values > 0) & (values < WORST_RESOLUTION_A))] = np.nan
    return values


def class_resolutions_A(history: History) -> Floats:
    """Return each class's resolution in Å, (n_iterations, n_classes); NaN where unknown or the class is empty."""
    table = np.full((len(history.iterations), history.n_classes), np.nan)
    for row, iteration in zip(table, history.iterations, strict=True):
        values = iteration.metrics.class_resolution_A[: len(row)]
        row[: len(values)] = values
        row[iteration.populations == 0] = np.nan
    table[~((table > 0) & (table < WORST_RESOLUTION_A))] = np.nan
    return table


def population_table(iterations: Sequence[Iteration]) -> Counts:
    """Return particles, (n_iterations, n_classes)."""
    return np.stack([iteration.populations for iteration in iterations])


def last_iterations(iterations: Sequence[Iteration]) -> Sequence[Iteration]:
    """Return the iterations between which the last transitions are."""
    return iterations[-(FLOW_STEPS + 1) :]


def largest_moves(transitions: Counts, n_moves: int = N_MOVES) -> list[tuple[int, int, int]]:
    """Return the largest numbers of particles that changed class: from class, to class (from 1), particles."""
    moved = transitions.copy()
    np.fill_diagonal(moved, 0)
    order = np.argsort(-moved, axis=None, kind="stable")[:n_moves]
    rows, columns = np.unravel_index(order[moved.ravel()[order] > 0], moved.shape)
    return list(zip((rows + 1).tolist(), (columns + 1).tolist(), moved[rows, columns].tolist(), strict=True))


def summed_transitions(iterations: Sequence[Iteration], steps: int = FLOW_STEPS) -> tuple[int, Counts | None]:
    """Add up the transitions of the last steps.

    Returns
    -------
    tuple
        How many steps there were, and (n_classes, n_classes) from class row + 1 to class column + 1; None for none.
    """
    matrices = [iteration.transitions for iteration in iterations if iteration.transitions is not None][-steps:]
    return len(matrices), np.sum(matrices, axis=0) if matrices else None
