"""Warnings on the iterations of a classification, besides the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cryobridge.formats.listing import say_numbers, say_ranges
from cryobridge.model.classification import Iteration
from cryobridge.report import Message, counted, warning

# RELION's distribution counts a particle in each class by its probability, the populations in its best class alone.
_MOST_APART = 0.05
_COLLAPSED = 0.5
_ALMOST_ALL = 0.8


def iteration_warnings(iterations: Sequence[Iteration]) -> list[Message]:
    """Warn where classes collapse, metrics disagree, or iterations or particles are missing."""
    if not iterations:
        return []
    return [
        *_collapse(iterations),
        *_disagreement(iterations[-1]),
        *_gaps(iterations),
        *_particles(iterations),
        *_gradient(iterations[-1]),
    ]


def _collapse(iterations: Sequence[Iteration]) -> list[Message]:
    found = []
    last = iterations[-1]
    ever = np.any([iteration.populations > 0 for iteration in iterations], axis=0)
    dead = np.flatnonzero(ever & (last.populations == 0)) + 1
    if len(dead):
        found.append(warning("class-empty", f"No particle is left in {_classes(dead)}"))
    fullest = max(iterations, key=lambda iteration: iteration.effective_classes)
    if last.effective_classes < _COLLAPSED * fullest.effective_classes:
        found.append(
            warning(
                "classes-collapse",
                f"The classes collapse: their effective number fell from {fullest.effective_classes:.1f} in iteration "
                f"{fullest.number} to {last.effective_classes:.1f}",
            )
        )
    share = last.populations.max(initial=0) / max(1, last.particles)
    if len(last.populations) > 2 and share > _ALMOST_ALL:
        text = f"Class {int(last.populations.argmax()) + 1} holds {100 * share:.0f} % of the particles"
        found.append(warning("class-dominates", text))
    return found


def _disagreement(last: Iteration) -> list[Message]:
    distribution = last.metrics.class_distribution
    # With gradients the distribution is that of the part of the particles that an iteration looked at.
    if len(distribution) != len(last.populations) or last.metrics.gradient:
        return []
    apart = np.abs(last.populations / max(1, last.particles) - distribution)
    wrong = np.flatnonzero(apart > _MOST_APART) + 1
    if not len(wrong):
        return []
    text = (
        f"In {_classes(wrong)} the count and rlnClassDistribution differ by up to {100 * apart.max():.0f} % of all "
        "particles: many particles belong to several classes by their probabilities"
    )
    return [warning("distribution-differs", text)]


def _gaps(iterations: Sequence[Iteration]) -> list[Message]:
    numbers = [iteration.number for iteration in iterations]
    steps = Counter(after - before for before, after in pairwise(numbers))
    if not steps or set(steps) == {1}:
        return []
    usual = max(steps, key=lambda step: (steps[step], -step))
    if usual > 1:
        text = (
            f"Only one iteration in {usual} is there: each is compared with the one that is there before it, "
            f"{usual} iterations earlier"
        )
        return [warning("iterations-sparse", text)]
    missing = [range(before + 1, after) for before, after in pairwise(numbers) if after > before + 1]
    text = f"Missing iterations: {say_ranges(missing)}; the next one is compared with the last before the gap"
    return [warning("iterations-missing", text)]


def _particles(iterations: Sequence[Iteration]) -> list[Message]:
    found = []
    come = [iteration for iteration in iterations if iteration.arrived or iteration.departed]
    if come:
        where = say_numbers(iteration.number for iteration in come)
        text = (
            f"Particles came or went: {sum(item.arrived for item in come):,} new and "
            f"{sum(item.departed for item in come):,} gone, in iteration {where}. They count in the populations, "
            "not as changed"
        )
        found.append(warning("particles-come-and-go", text))
    last = iterations[-1]
    if last.unassigned and not last.metrics.gradient:
        text = (
            f"{counted(last.unassigned, 'particle has', 'particles have')} no class (class "
            "number 0) in the last iteration"
        )
        found.append(warning("particles-without-class", text))
    return found


def _gradient(last: Iteration) -> list[Message]:
    if not last.metrics.gradient:
        return []
    none_yet = f"; {last.unassigned:,} have no class yet" if last.unassigned else ""
    text = (
        f"RELION runs with gradients ({last.metrics.gradient}): until near its end an iteration looks at a part of the "
        f"particles only, so that fewer change class than with all of them{none_yet}"
    )
    return [warning("gradient-refinement", text)]


def _classes(numbers: NDArray[np.intp]) -> str:
    return f"{'class' if len(numbers) == 1 else 'classes'} {say_numbers(int(number) for number in numbers)}"
