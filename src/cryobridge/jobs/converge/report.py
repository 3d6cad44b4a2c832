"""A course as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.jobs.converge.tables import class_rows, iteration_row
from cryobridge.model.classification import summed_transitions

if TYPE_CHECKING:
    from cryobridge.model.classification import Counts, History, Iteration

_RELION_METRICS = (
    *("relion_changed_percent", "orientation_change_deg", "offset_change_A", "resolution_A"),
    *("rotation_accuracy_deg", "translation_accuracy_A", "log_likelihood"),
)


def as_json(history: History, jumps: tuple[int, Counts]) -> dict[str, Any]:
    """Return everything that is known of a course in plain values.

    Parameters
    ----------
    history
        The course.
    jumps
        How often particles changed class lately, of `ClassTracker.jumps`.
    """
    verdict = history.verdict
    steps, summed = summed_transitions(history.iterations)
    _, last = summed_transitions(history.iterations, 1)
    n_jumps, changes = jumps
    times = np.bincount(changes[changes >= 0], minlength=n_jumps + 1)
    return {
        "job": str(history.folder),
        "program": history.program,
        "kind": history.kind,
        "iterations": [_iteration(iteration) for iteration in history.iterations],
        "classes": [
            {name: value for name, value in row.items() if name != "iteration"}
            for row in (class_rows(history.iterations[-1]) if history.iterations else [])
        ],
        "transitions": {"last": _moves(last), "summed": _moves(summed), "summed_steps": steps},
        "volatile": {
            "steps": n_jumps,
            "particles_by_changes": {str(number): int(count) for number, count in enumerate(times)},
        },
        "verdict": {
            "converged": verdict.converged,
            "rule": verdict.rule,
            "reason": verdict.reason,
            "iterations_left": verdict.iterations_left,
            "threshold_percent": 100 * history.threshold,
        },
        "warnings": [f"{message}." for message in history.messages],
    }


def _iteration(iteration: Iteration) -> dict[str, Any]:
    row = iteration_row(iteration)
    metrics = {name.removeprefix("relion_"): row.pop(name) for name in _RELION_METRICS}
    by_class = enumerate(iteration.populations.tolist(), 1)
    shares = iteration.metrics.class_distribution.tolist()
    distribution = {str(number): share if math.isfinite(share) else None for number, share in enumerate(shares, 1)}
    return {
        **row,
        "source": str(iteration.source),
        "populations": {str(number): count for number, count in by_class},
        "relion": {**metrics, "class_distribution": distribution},
    }


def _moves(transitions: Counts | None) -> list[dict[str, int]]:
    """List who went where, also those who stayed; pairs without particles are left out."""
    if transitions is None:
        return []
    return [
        {"from": int(before) + 1, "to": int(after) + 1, "particles": int(transitions[before, after])}
        for before, after in np.argwhere(transitions)
    ]
