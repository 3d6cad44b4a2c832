"""What the user should know of a course besides the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.listing import say_numbers, say_ranges
from cryobridge.jobs.converge.history import Iteration

# RELION's distribution counts a particle in each class by its probability, the populations in its best class alone.
_MOST_APART = 0.05
_COLLAPSED = 0.5
_ALMOST_ALL = 0.8


def find_warnings(iterations: Sequence[Iteration]) -> list[str]:
    """Say in sentences where classes collapse, figures disagree, or iterations or particles are missing."""
    if not iterations:
        return []
    return [
        *_collapse(iterations),
        *_disagreement(iterations[-1]),
        *_gaps(iterations),
        *_particles(iterations),
        *_gradient(iterations[-1]),
    ]


def _collapse(iterations: Sequence[Iteration]) -> list[str]:
    said = []
    last = iterations[-1]
    ever = np.any([iteration.populations > 0 for iteration in iterations], axis=0)
    dead = np.flatnonzero(ever & (last.populations == 0)) + 1
    if len(dead):
        said.append(f"No particle is left in {_classes(dead)}.")
    fullest = max(iterations, key=lambda iteration: iteration.effective_classes)
    if last.effective_classes < _COLLAPSED * fullest.effective_classes:
        said.append(
            f"The classes collapse: their effective number fell from {fullest.effective_classes:.1f} in iteration "
            f"{fullest.number} to {last.effective_classes:.1f}."
        )
    share = last.populations.max(initial=0) / max(1, last.particles)
    if len(last.populations) > 2 and share > _ALMOST_ALL:
        said.append(f"Class {int(last.populations.argmax()) + 1} holds {100 * share:.0f} % of the particles.")
    return said


def _disagreement(last: Iteration) -> list[str]:
    distribution = last.figures.class_distribution
    if len(distribution) != len(last.populations):
        return []
    apart = np.abs(last.populations / max(1, last.particles) - distribution)
    wrong = np.flatnonzero(apart > _MOST_APART) + 1
    if not len(wrong):
        return []
    return [
        f"In {_classes(wrong)} the count and rlnClassDistribution differ by up to {100 * apart.max():.0f} % of all "
        "particles: many particles belong to several classes by their probabilities."
    ]


def _gaps(iterations: Sequence[Iteration]) -> list[str]:
    numbers = [iteration.number for iteration in iterations]
    steps = Counter(after - before for before, after in pairwise(numbers))
    if not steps or set(steps) == {1}:
        return []
    usual = max(steps, key=lambda step: (steps[step], -step))
    if usual > 1:
        return [
            f"One iteration in {usual} is there; each is compared with the one before it that is, so that a "
            f"change is one over {usual} iterations."
        ]
    missing = [range(before + 1, after) for before, after in pairwise(numbers) if after > before + 1]
    return [f"Missing iterations: {say_ranges(missing)}; the next one is compared with the last before the gap."]


def _particles(iterations: Sequence[Iteration]) -> list[str]:
    said = []
    come = [iteration for iteration in iterations if iteration.arrived or iteration.departed]
    if come:
        where = say_numbers(iteration.number for iteration in come)
        said.append(
            f"Particles came or went: {sum(item.arrived for item in come):,} new and "
            f"{sum(item.departed for item in come):,} gone, in iteration {where}. They count in the populations, "
            "not as changed."
        )
    last = iterations[-1]
    if last.unassigned:
        said.append(f"{last.unassigned:,} particles have no class (class number 0) in the last iteration.")
    return said


def _gradient(last: Iteration) -> list[str]:
    if not last.figures.is_gradient:
        return []
    return [
        "RELION runs with gradients (VDAM): until near its end an iteration looks at a part of the particles only, so "
        "that fewer change class than with all of them."
    ]


def _classes(numbers: NDArray[np.intp]) -> str:
    return f"{'class' if len(numbers) == 1 else 'classes'} {say_numbers(int(number) for number in numbers)}"
