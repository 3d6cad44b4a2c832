"""Comparing iteration after iteration: which particles moved from which class to which."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.converge.messages import iteration_warnings
from cryobridge.jobs.converge.particle_index import Ids, ParticleIndex
from cryobridge.jobs.converge.verdict import Rule, judge
from cryobridge.model.classification import Counts, FinalResult, History, Iteration, IterationMetrics
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from cryobridge.jobs.converge.assignments import Assignments

Classes = NDArray[np.int16]
_ABSENT, _UNASSIGNED = -1, 0


class ClassTracker:
    """Follows each particle from class to class; iterations are added one by one, and taken back after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = ""
        self.kind = ""
        self._index = ParticleIndex()
        self._iterations: list[Iteration] = []
        self._states: list[Classes] = []  # the class of each particle of the index
        self._n_classes = 0

    @property
    def numbers(self) -> list[int]:
        """Numbers of the iterations so far."""
        return [iteration.number for iteration in self._iterations]

    @property
    def last_iteration(self) -> Iteration | None:
        """The last iteration so far, or None."""
        return self._iterations[-1] if self._iterations else None

    def add(self, number: int, source: Path, assignments: Assignments, metrics: IterationMetrics) -> None:
        """Add the next iteration."""
        ids = self._index.follow(assignments.keys)
        state: Classes = np.full(self._index.n_particles, _ABSENT, np.int16)
        state[ids] = assignments.classes
        self._n_classes = max(self._n_classes, int(state.max(initial=0)), len(metrics.class_distribution))
        populations = np.bincount(assignments.classes, minlength=self._n_classes + 1).astype(np.int64)
        transitions, arrived, departed = None, 0, 0
        if self._states:
            before = np.pad(self._states[-1], (0, len(state) - len(self._states[-1])), constant_values=_ABSENT)
            transitions = _transitions(before, state, self._n_classes)
            arrived = int(np.count_nonzero((before == _ABSENT) & (state != _ABSENT)))
            departed = int(np.count_nonzero((before != _ABSENT) & (state == _ABSENT)))
        self._iterations.append(
            Iteration(
                number,
                source,
                len(assignments),
                populations[1:],
                transitions,
                arrived,
                departed,
                metrics,
                unassigned=int(populations[0]),
            )
        )
        self._states.append(state)

    def take_back(self, number: int) -> None:
        """Forget this iteration and those after it: the job was restarted, and they are written again."""
        kept = sum(before < number for before in self.numbers)
        del self._iterations[kept:], self._states[kept:]
        if not kept:
            self._index = ParticleIndex()
        self._n_classes = max((len(iteration.populations) for iteration in self._iterations), default=0)

    def holds(self, number: int, assignments: Assignments) -> bool:
        """Whether an iteration was added with just these classes."""
        state = self._states[self.numbers.index(number)]
        ids = self._index.follow(assignments.keys)
        if len(ids) != np.count_nonzero(state != _ABSENT) or ids.max(initial=-1) >= len(state):
            return False
        return bool(np.array_equal(state[ids], assignments.classes))

    def history(self, rule: Rule, messages: tuple[Message, ...] = (), final: FinalResult | None = None) -> History:
        """Return what is known so far, with the verdict."""
        iterations = tuple(_widen(iteration, self._n_classes) for iteration in self._iterations)
        copies = self._index.n_copies
        if copies:
            text = (
                f"{counted(copies, 'row has', 'rows have')} an image name that an earlier row "
                "has too, as after a symmetry "
                "expansion; such copies are followed by their order in the file"
            )
            messages = (*messages, warning("repeated-names", text))
        verdict = judge(iterations, rule, final)
        messages = (*messages, *iteration_warnings(iterations))
        return History(self.folder, self.program, self.kind, iterations, rule.threshold, verdict, messages, final)

    def jumps(self, last: int) -> tuple[int, Counts]:
        """Count how often each particle of the last iteration changed class in the last steps.

        Parameters
        ----------
        last
            How many steps; fewer where there are not so many.

        Returns
        -------
        tuple
            How many steps there were, and (n,) how often each particle changed; -1 for one that is not in the last
            iteration. `rows_of` says which is whose.
        """
        states = self._states[-last - 1 :]
        if not states:
            return 0, np.zeros(0, np.int64)
        changes = np.zeros(len(states[-1]), np.int64)
        for before, after in pairwise(states):
            was = np.pad(before, (0, len(after) - len(before)), constant_values=_ABSENT)
            changes[: len(after)] += (was > _UNASSIGNED) & (after > _UNASSIGNED) & (was != after)
        changes[states[-1] == _ABSENT] = _ABSENT
        return len(states) - 1, changes

    def rows_of(self, assignments: Assignments) -> Ids:
        """Return (n,) which of the particles in `jumps` each row of the last iteration's file is."""
        return self._index.follow(assignments.keys)


def _transitions(before: Classes, after: Classes, n_classes: int) -> Counts:
    in_both = (before > _UNASSIGNED) & (after > _UNASSIGNED)
    pairs = (before[in_both].astype(np.int64) - 1) * n_classes + after[in_both] - 1
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def _widen(iteration: Iteration, n_classes: int) -> Iteration:
    """Give an iteration the classes that only later ones have."""
    extra = n_classes - len(iteration.populations)
    if extra == 0:
        return iteration
    populations = np.pad(iteration.populations, (0, extra))
    transitions = iteration.transitions
    return replace(
        iteration,
        populations=populations,
        transitions=None if transitions is None else np.pad(transitions, ((0, extra), (0, extra))),
    )
