"""The tables of the page: iterations, classes, largest moves. Cells are HTML; every text of a file is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cryobridge.model.classification import (
    Counts,
    History,
    Iteration,
    IterationMetrics,
    changed_percent,
    class_resolutions_A,
    largest_moves,
    last_iterations,
    population_table,
    summed_transitions,
)
from cryobridge.plots.converge_populations import percent, points

_UNKNOWN = "–"
_SPARK_WIDTH_PX, _SPARK_HEIGHT_PX = 110, 22
_N_PARTNERS = 3


@dataclass(frozen=True)
class Column:
    """A column: its cells are HTML already; texts stand at the left, numbers at the right."""

    name: str
    cells: tuple[str, ...]
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """Columns of equal length, with a sentence that explains them."""

    title: str
    caption: str
    columns: tuple[Column, ...]


def iteration_table(history: History) -> Table:
    """Return what each iteration holds, and what the program says of it where it says anything."""
    iterations = history.iterations
    changed = [step.changed if step.compared else None for step in iterations]
    columns = [
        Column("iteration", tuple(str(step.number) for step in iterations)),
        Column("particles", tuple(f"{step.particles:,}" for step in iterations)),
        Column("changed", tuple(_UNKNOWN if count is None else f"{count:,}" for count in changed)),
        Column("changed (%)", tuple(_share(float(share) / 100) for share in changed_percent(iterations))),
    ]
    for name, counts in (
        ("came", [step.arrived for step in iterations]),
        ("went", [step.departed for step in iterations]),
        ("without a class", [step.unassigned for step in iterations]),
    ):
        if any(counts):
            columns.append(Column(name, tuple(f"{count:,}" for count in counts)))
    columns += [
        Column("occupied classes", tuple(str(step.occupied) for step in iterations)),
        Column("effective classes", tuple(f"{step.effective_classes:.1f}" for step in iterations)),
        *_extremes(iterations),
        *_program_columns(history),
        Column("file", tuple(map(_file_name, (step.source.name for step in iterations))), is_text=True),
    ]
    caption = "Changed, came and went: since the row above. Smallest class: of those with particles."
    return Table("Iterations", caption, tuple(columns))


def refinement_table(history: History) -> Table:
    """Return what RELION says of each iteration of a refinement, and of its end."""
    iterations, final = history.iterations, history.final
    names = [str(step.number) for step in iterations]
    particles = [f"{step.particles:,}" for step in iterations]
    files = [step.source.name for step in iterations]
    metrics = [step.metrics for step in iterations]
    if final is not None:
        names, particles = [*names, "final"], [*particles, _UNKNOWN]
        files, metrics = [*files, final.source.name], [*metrics, final.metrics]
    columns = (
        Column("iteration", tuple(names)),
        Column("particles", tuple(particles)),
        *_metric_columns(metrics),
        Column("file", tuple(map(_file_name, files)), is_text=True),
    )
    return Table("Iterations", "Changes: since the iteration before, as RELION gives them.", columns)


def _file_name(name: str) -> str:
    """Return a file's name as a cell, which may go on in a second line where the window is narrow."""
    return html.escape(name).replace("_data", "_<wbr>data")


def _extremes(iterations: Sequence[Iteration]) -> tuple[Column, Column]:
    """Return the largest and the smallest class that has particles, with their shares."""
    largest: list[str] = []
    smallest: list[str] = []
    for step in iterations:
        counts = step.populations
        seen = np.flatnonzero(counts)
        places = (int(np.argmax(counts)), int(seen[np.argmin(counts[seen])])) if seen.size else (None, None)
        for cells, place in zip((largest, smallest), places, strict=True):
            cells.append(_UNKNOWN if place is None else f"{place + 1}: {percent(counts[place], step.particles)}")
    return Column("largest class", tuple(largest)), Column("smallest class", tuple(smallest))


def _program_columns(history: History) -> list[Column]:
    """Return the program's own metrics, those that it gives."""
    metrics = [step.metrics for step in history.iterations]
    changed = Column(f"{history.program}: changed (%)", tuple(_share(own.changed_fraction) for own in metrics))
    columns = [changed] if set(changed.cells) != {_UNKNOWN} else []
    return [*columns, *_metric_columns(metrics)]


def _metric_columns(metrics: Sequence[IterationMetrics]) -> list[Column]:
    """Return what the program says besides classes, as far as it does."""
    columns = [
        _numbers("angles changed (°)", (own.orientation_change_deg for own in metrics)),
        _numbers("shifts changed (Å)", (own.offset_change_A for own in metrics)),
        _numbers("resolution (Å)", (own.resolution_A for own in metrics)),
        _numbers("rotation accuracy (°)", (own.rotation_accuracy_deg for own in metrics)),
        _numbers("translation accuracy (Å)", (own.translation_accuracy_A for own in metrics)),
        _numbers("log-likelihood", (own.log_likelihood for own in metrics)),
    ]
    return [column for column in columns if set(column.cells) != {_UNKNOWN}]


def _numbers(name: str, values: Iterable[float | None]) -> Column:
    cells = (_UNKNOWN if value is None or not np.isfinite(value) else _number(value) for value in values)
    return Column(name, tuple(cells))


def _number(value: float) -> str:
    """Write a number as the table in the terminal does, with two decimals; large ones have none."""
    text = f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.6g}"
    return text.replace("-", "−", 1) if value < 0 else text


def _share(part: float | None) -> str:
    return _UNKNOWN if part is None or not np.isfinite(part) else percent(part, 1)


def class_table(history: History) -> Table:
    """Return the classes, the largest one first."""
    numbers = [step.number for step in history.iterations]
    table = population_table(history.iterations)
    shares = table / np.maximum(1, [[step.particles] for step in history.iterations])
    order = np.argsort(-table[-1], kind="stable").tolist()
    columns = [
        Column("class", tuple(str(index + 1) for index in order)),
        Column("trend", tuple(_sparkline(numbers, table[:, index]) for index in order), is_text=True),
        Column("particles", tuple(f"{table[-1, index]:,}" for index in order)),
        Column("share", tuple(percent(shares[-1, index], 1) for index in order)),
    ]
    if len(shares) > 1:
        changes = (shares[-1] - shares[-2]).tolist()
        columns.append(Column("change (percentage points)", tuple(points(changes[index], 2) for index in order)))
    columns += _program_class_columns(history, order)
    _, transitions = summed_transitions(last_iterations(history.iterations)[1:])
    if transitions is not None:
        columns += _exchange_columns(transitions, order)
    presence = Column("presence", tuple(_presence(numbers, table[:, index]) for index in order), is_text=True)
    columns += [presence] if any(presence.cells) else []
    caption = "Kept, moved to and came from: particles of the last steps, five at most, added up."
    return Table("Classes", caption if transitions is not None else "", tuple(columns))


def _program_class_columns(history: History, order: Sequence[int]) -> list[Column]:
    """Return what the program says of the classes in the last iteration."""
    distribution = history.iterations[-1].metrics.class_distribution.tolist()
    known = [distribution[index] if index < len(distribution) else None for index in order]
    columns = [
        Column(f"{history.program}: share", tuple(_share(value) for value in known)),
        _numbers("resolution (Å)", class_resolutions_A(history)[-1][list(order)].tolist()),
    ]
    return [column for column in columns if set(column.cells) != {_UNKNOWN}]


def _exchange_columns(transitions: Counts, order: Sequence[int]) -> list[Column]:
    """Return which part of its particles a class kept, and the classes that it exchanged the most with."""
    kept = [(int(transitions[index, index]), int(transitions[index].sum())) for index in order]
    return [
        Column("kept", tuple(percent(part, whole) if whole else _UNKNOWN for part, whole in kept)),
        Column("moved to", tuple(_partners(transitions[index], index) for index in order), is_text=True),
        Column("came from", tuple(_partners(transitions[:, index], index) for index in order), is_text=True),
    ]


def _partners(counts: Counts, index: int) -> str:
    others = counts.copy()
    others[index] = 0
    largest = np.argsort(-others, kind="stable")[:_N_PARTNERS].tolist()
    return ", ".join(f"{place + 1} ({others[place]:,})" for place in largest if others[place] > 0) or _UNKNOWN


def _presence(numbers: Sequence[int], populations: Counts) -> str:
    """Say since and until when a class has particles, where it does not from the first to the last iteration."""
    seen = np.flatnonzero(populations)
    if seen.size == 0:
        return "always empty"
    first, last = int(seen[0]), int(seen[-1])
    parts = [f"from iteration {numbers[first]}"] if first > 0 else []
    parts += [f"empty since iteration {number}" for number in numbers[last + 1 : last + 2]]
    return ", ".join(parts)


def _sparkline(numbers: Sequence[int], populations: Counts) -> str:
    """Draw a class's population, from 0 to its largest, over the iterations."""
    x = np.asarray(numbers, dtype=np.float64)
    x = (x - x[0]) / max(1.0, float(x[-1] - x[0])) * (_SPARK_WIDTH_PX - 4) + 2
    y = _SPARK_HEIGHT_PX - 2 - populations / max(1, int(populations.max())) * (_SPARK_HEIGHT_PX - 4)
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(x.tolist(), y.tolist(), strict=True))
    end = f'<circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="1.5"/>'
    size = f'width="{_SPARK_WIDTH_PX}" height="{_SPARK_HEIGHT_PX}"'
    look = 'fill="none" stroke="currentColor" stroke-width="1.3" aria-hidden="true"'
    return f'<svg {size} {look}><polyline points="{line}"/>{end}</svg>'


def move_table(history: History) -> Table:
    """Return the largest moves from a class to another over the last steps; no columns where there is none."""
    shown = last_iterations(history.iterations)
    _, transitions = summed_transitions(shown[1:])
    moves = [] if transitions is None else largest_moves(transitions)
    if transitions is None or not moves:
        return Table("Largest moves", "", ())
    before = transitions.sum(axis=1).tolist()
    columns = (
        Column("from class", tuple(str(source) for source, _, _ in moves)),
        Column("to class", tuple(str(target) for _, target, _ in moves)),
        Column("particles", tuple(f"{count:,}" for _, _, count in moves)),
        Column("of the class that they left", tuple(percent(count, before[source - 1]) for source, _, count in moves)),
        Column("in the other direction", tuple(f"{transitions[t - 1, s - 1]:,}" for s, t, _ in moves)),
    )
    caption = f"Iterations {shown[0].number} to {shown[-1].number}, the steps added up."
    return Table("Largest moves", caption, columns)
