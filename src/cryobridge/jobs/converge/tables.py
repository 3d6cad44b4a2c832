"""Iterations as text: converge.log as reliosparc wrote it, and tables for spreadsheets."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cryobridge.model.classification import History, Iteration, IterationMetrics


def log_text(history: History) -> str:
    """Return converge.log: for each iteration from 1 on, how many particles changed class, to the letter of reliosparc.

    It starts with a blank, as reliosparc's does. The first iteration is only counted.
    """
    counted = [iteration for iteration in history.iterations if iteration.number > 0]
    parts = [" "]
    for place, iteration in enumerate(counted):
        parts.append(f"Iteration: {iteration.number}\n")
        if place == 0 or iteration.changed is None:
            parts.append(f"Loaded data for {iteration.particles} particles.\n\n")
            continue
        percent = round(100 * iteration.changed / max(1, iteration.compared), 1)
        parts.append(
            f"{iteration.changed} of {iteration.compared} particles were re-assigned to new classes.\n"
            f"This is {percent} percent of the input pool.\n\n"
        )
    return "".join(parts)


def iterations_csv(history: History) -> str:
    """Return a table with a row an iteration; what is not known is empty."""
    return _csv([iteration_row(iteration) for iteration in history.iterations])


def iteration_row(iteration: Iteration) -> dict[str, Any]:
    """Return the metrics of an iteration by name; None where there is none."""
    populations, metrics = iteration.populations, iteration.metrics
    return {
        "iteration": iteration.number,
        "source": iteration.source.name,
        "particles": iteration.particles,
        "unassigned": iteration.unassigned,
        "arrived": iteration.arrived,
        "departed": iteration.departed,
        "compared": iteration.compared if iteration.transitions is not None else None,
        "changed": iteration.changed,
        "changed_percent": _percent(iteration.changed_fraction),
        "occupied": iteration.occupied,
        "effective_classes": round(iteration.effective_classes, 3),
        "largest_class": int(populations.argmax()) + 1 if len(populations) else None,
        "largest": int(populations.max(initial=0)),
        "smallest_class": int(populations.argmin()) + 1 if len(populations) else None,
        "smallest": int(populations.min()) if len(populations) else None,
        **metrics_row(metrics),
    }


def metrics_row(metrics: IterationMetrics) -> dict[str, Any]:
    """Return what RELION says of an iteration itself, by name; None where it does not say."""
    return {
        "relion_changed_percent": _percent(metrics.changed_fraction),
        "orientation_change_deg": metrics.orientation_change_deg,
        "offset_change_A": metrics.offset_change_A,
        "resolution_A": metrics.resolution_A,
        "rotation_accuracy_deg": metrics.rotation_accuracy_deg,
        "translation_accuracy_A": metrics.translation_accuracy_A,
        "log_likelihood": metrics.log_likelihood,
    }


def classes_csv(history: History) -> str:
    """Return a table with a row an iteration and class."""
    return _csv([row for iteration in history.iterations for row in class_rows(iteration)])


def class_rows(iteration: Iteration) -> list[dict[str, Any]]:
    """Return the metrics of an iteration's classes by name; None where there is none."""
    populations, transitions = iteration.populations, iteration.transitions
    kept = came = went = None
    if transitions is not None:
        kept = np.diag(transitions)
        came, went = transitions.sum(axis=0) - kept, transitions.sum(axis=1) - kept
    metrics = iteration.metrics
    return [
        {
            "iteration": iteration.number,
            "class": place + 1,
            "particles": int(populations[place]),
            "percent": _percent(populations[place] / max(1, iteration.particles)),
            "class_distribution": _at(metrics.class_distribution, place),
            "resolution_A": _at(metrics.class_resolution_A, place),
            "kept": None if kept is None else int(kept[place]),
            "came": None if came is None else int(came[place]),
            "went": None if went is None else int(went[place]),
        }
        for place in range(len(populations))
    ]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else round(100 * float(fraction), 4)


def _at(values: Sequence[float] | Any, place: int) -> float | None:
    value = float(values[place]) if place < len(values) else math.nan
    return value if math.isfinite(value) else None


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
