"""Have the classes settled? The rule, and how long it may still take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryobridge.model.classification import FinalResult, Iteration, Verdict

MOST_MOVED = 0.02
_FIT_POINTS = 6
_LEAST_FIT_POINTS = 3
_FARTHEST = 1000


@dataclass(frozen=True)
class Rule:
    """When a job counts as converged.

    Parameters
    ----------
    threshold
        The changed fraction, of 1, that an iteration must stay under.
    stable
        For how many iterations in a row.
    """

    threshold: float = 0.01
    stable: int = 3

    def __str__(self) -> str:
        return (
            f"Converged when fewer than {100 * self.threshold:g} % of the particles changed class in each of the last "
            f"{_count(self.stable, 'iteration')}, and no class gained or lost more than {100 * MOST_MOVED:g} % of all "
            "particles over them."
        )


def judge(iterations: Sequence[Iteration], rule: Rule, final: FinalResult | None = None) -> Verdict:
    """Apply the rule to the last iterations.

    Each iteration is compared with the one before it that was written, across gaps as well: a step over a gap
    holds all the changes in it and counts once. Where there is one class, nothing can change; then RELION's own
    answer is taken, if there is one: the final files of a refinement, or rlnHasConverged.
    """
    if not iterations:
        return Verdict(None, str(rule), "There is no iteration yet.", None)
    if len(iterations[-1].populations) <= 1:
        return _judge_one_class(iterations[-1], final)
    fractions = [iteration.changed_fraction for iteration in iterations[-rule.stable :]]
    known = [fraction for fraction in fractions if fraction is not None]
    if len(known) < rule.stable:
        reason = (
            f"Only {_count(len(known), 'iteration')} can be compared with the one before; {rule.stable} are needed."
        )
        return Verdict(None, str(rule), reason, None)
    over = [iteration for iteration in iterations[-rule.stable :] if not _is_under(iteration, rule)]
    if over:
        return _not_yet(iterations, rule)
    moved, number = _largest_move(iterations[-rule.stable - 1 :])
    changed = f"at most {_percent(max(known))} of the particles changed class in an iteration"
    if moved > MOST_MOVED:
        reason = (
            f"In the last {_count(rule.stable, 'iteration')} {changed}, but the population of class {number} moved by "
            f"{_percent(moved)} of all particles."
        )
        return Verdict(False, str(rule), reason, None)
    reason = (
        f"In the last {_count(rule.stable, 'iteration')} {changed}, and no class moved by more than {_percent(moved)}."
    )
    return Verdict(True, str(rule), reason, 0)


def _judge_one_class(last: Iteration, final: FinalResult | None) -> Verdict:
    rule = (
        "With one class no particle can change; RELION's own answer counts: the final files that a refinement ends "
        "with, or rlnHasConverged."
    )
    if final is not None:
        resolution_A = final.metrics.resolution_A
        at = "" if resolution_A is None else f" at a final resolution of {resolution_A:.2f} Å"
        return Verdict(True, rule, f"The refinement ended after iteration {last.number}{at}.", 0)
    answer = last.metrics.has_converged
    if answer is None:
        return Verdict(None, rule, "There is one class, and RELION does not say whether it has converged.", None)
    reason = f"RELION says that the refinement has {'' if answer else 'not yet '}converged."
    return Verdict(answer, rule, reason, 0 if answer else None)


def _is_under(iteration: Iteration, rule: Rule) -> bool:
    fraction = iteration.changed_fraction
    return fraction is not None and fraction < rule.threshold


def _largest_move(iterations: Sequence[Iteration]) -> tuple[float, int]:
    """Return how far the share of a class ranged, the largest of all classes, and its number."""
    shares = np.array([iteration.populations / max(1, iteration.particles) for iteration in iterations])
    ranges = np.ptp(shares, axis=0)
    # A difference of rounded shares must not be larger than the true one.
    return round(float(ranges.max()), 12), int(ranges.argmax()) + 1


def _not_yet(iterations: Sequence[Iteration], rule: Rule) -> Verdict:
    """Say how far it is, from a straight line through the logarithms of the changed fractions."""
    last = iterations[-1]
    now = f"{_percent(last.changed_fraction or 0)} of the particles changed class in the last iteration"
    done = 0
    while done < rule.stable and _is_under(iterations[-1 - done], rule):
        done += 1
    step = _usual_step(iterations)
    if done:
        left = (rule.stable - done) * step
        reason = f"{_sentence(now)}, under the threshold for {_count(done, 'iteration')} of {rule.stable} so far."
        return Verdict(False, str(rule), reason, left)
    crossing = _crossing(iterations, rule)
    if crossing is None:
        return Verdict(False, str(rule), f"{_sentence(now)}, and that is not clearly falling.", None)
    left = max(1, math.ceil(crossing - last.number)) + (rule.stable - 1) * step
    if left > _FARTHEST:
        reason = f"{_sentence(now)}, and falls so slowly that more than {_FARTHEST:,} iterations would be needed."
        return Verdict(False, str(rule), reason, None)
    return Verdict(False, str(rule), f"{_sentence(now)}, and that is falling.", left)


def _crossing(iterations: Sequence[Iteration], rule: Rule) -> float | None:
    """Return the iteration at which the fitted fraction reaches the threshold; None where it does not clearly fall.

    The line is the least-squares one through the last six logarithms; it falls clearly if its slope is negative by
    two standard errors.
    """
    points = [
        (iteration.number, max(iteration.changed, 0.5) / iteration.compared)
        for iteration in iterations
        if iteration.changed is not None and iteration.compared
    ][-_FIT_POINTS:]
    if len(points) < _LEAST_FIT_POINTS:
        return None
    x = np.array([number for number, _ in points], np.float64)
    y = np.log([fraction for _, fraction in points])
    spread = np.sum((x - x.mean()) ** 2)
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / spread)
    residuals = y - y.mean() - slope * (x - x.mean())
    error = math.sqrt(float(np.sum(residuals**2)) / (len(x) - 2) / spread)
    if slope >= -2 * error or slope >= 0:
        return None
    return float(x.mean() + (math.log(rule.threshold) - y.mean()) / slope)


def _usual_step(iterations: Sequence[Iteration]) -> int:
    numbers = [iteration.number for iteration in iterations]
    return int(np.median(np.diff(numbers))) if len(numbers) > 1 else 1


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.01 else f"{100 * fraction:.1f} %"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
