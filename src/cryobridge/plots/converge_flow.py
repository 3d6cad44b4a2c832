"""Flows between classes in pictures: bands between the iterations, or matrices where there are many classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.model.classification import largest_moves, population_table
from cryobridge.plots.converge_metrics import draw_sentence
from cryobridge.plots.converge_populations import (
    LABEL_PT,
    EndLabel,
    add_colour_scale,
    count_particles_along_x,
    draw_bars,
    draw_counts,
    percent,
    spread,
    write_end_labels,
)
from cryobridge.plots.page import TICK_PT, Draw, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cryobridge.model.classification import Counts, Iteration

# As a part of the distance from the first to the last.
_NODE_WIDTH = 0.006
_KEPT_ALPHA, _MOVED_ALPHA = 0.28, 0.85
_BAND_POINTS = 24
_MOST_TICKS = 12


def draw_bands(iterations: Sequence[Iteration], colours: Mapping[int, str]) -> Draw:
    """Draw each class as a block an iteration, and bands for the particles that stay and that move."""
    table = population_table(iterations).astype(np.float64)
    gap = 0.02 * max(1.0, float(table.sum(axis=1).max()))
    tops = _block_tops(table, gap)

    def draw(axes: Axes) -> None:
        width = _NODE_WIDTH * max(len(table) - 1, 0.5)
        kept, moved = _bands(iterations, tops, width)
        for bands, alpha in ((kept, _KEPT_ALPHA), (moved, _MOVED_ALPHA)):
            _fill(axes, bands, colours, alpha)
        for place, (tops_of, heights) in enumerate(zip(tops, table, strict=True)):
            axes.bar(
                np.full(len(heights), float(place)),
                heights,
                width,
                tops_of - heights,
                color=[colours[index] for index in range(len(heights))],
                label=f"iteration {iterations[place].number}",
            )
        bottom = float((tops - table).min())
        axes.set_xlim(-0.5 * width, len(table) - 1 + 0.5 * width if len(table) > 1 else 0.5)
        axes.set_ylim(bottom, 0)
        axes.set_xticks(range(len(table)), [str(iteration.number) for iteration in iterations])
        axes.set_xlabel("iteration")
        axes.set_yticks([])
        axes.tick_params(axis="x", length=0)
        axes.spines[:].set_visible(False)
        _name_blocks(axes, tops, table, colours, iterations[-1].particles)

    return draw


def _block_tops(table: Floats, gap: float) -> Floats:
    """Return the upper ends of the blocks, class 1 on top, with gaps between them; all below 0."""
    tops: Floats = -(np.cumsum(table, axis=1) - table) - gap * np.arange(table.shape[1])
    return tops


def _bands(
    iterations: Sequence[Iteration], tops: Floats, width: float
) -> tuple[list[tuple[int, Floats]], list[tuple[int, Floats]]]:
    """Return the outlines of the bands of particles that stay and of those that move, with the class they leave."""
    t = np.linspace(0, 1, _BAND_POINTS)
    bend = t * t * (3 - 2 * t)
    kept: list[tuple[int, Floats]] = []
    moved: list[tuple[int, Floats]] = []
    for place, iteration in enumerate(iterations[1:]):
        if iteration.transitions is None:
            continue
        counts = iteration.transitions.astype(np.float64)
        starts = tops[place][:, None] - (np.cumsum(counts, axis=1) - counts)
        ends = tops[place + 1][None, :] - (np.cumsum(counts, axis=0) - counts)
        x = place + 0.5 * width + t * (1 - width)
        for source, target in np.argwhere(counts > 0).tolist():
            upper = starts[source, target] + bend * (ends[source, target] - starts[source, target])
            lower = upper - counts[source, target]
            outline = np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])])
            (kept if source == target else moved).append((source, outline))
    return kept, moved


def _fill(axes: Axes, bands: Sequence[tuple[int, Floats]], colours: Mapping[int, str], alpha: float) -> None:
    from matplotlib.collections import PolyCollection

    if bands:
        outlines = [outline for _, outline in bands]
        face = [colours[source] for source, _ in bands]
        axes.add_collection(PolyCollection(outlines, facecolors=face, linewidths=0, alpha=alpha), autolim=False)


def _name_blocks(axes: Axes, tops: Floats, table: Floats, colours: Mapping[int, str], n_particles: int) -> None:
    """Name the classes at both ends, those with particles; at the right end with their share."""
    first, last = table[0], table[-1]
    height_pt = axes.get_position().height * axes.figure.get_figheight() * 72  # type: ignore[union-attr]
    start = [index for index in range(len(first)) if first[index] > 0]
    bottom = axes.get_ylim()[0] or -1.0
    heights = spread(1 - (tops[0] - first / 2)[start] / bottom, 1.2 * LABEL_PT / height_pt) if start else np.zeros(0)
    for index, height in zip(start, heights, strict=True):
        axes.text(-0.012, height, str(index + 1), transform=axes.transAxes, fontsize=LABEL_PT, va="center", ha="right")
    axes.set_ylabel("class", labelpad=16)
    middle = tops[-1] - last / 2
    labels = [
        EndLabel(float(middle[index]), f"class {index + 1}: {percent(last[index], n_particles)}", colours[index])
        for index in range(len(last))
        if last[index] > 0
    ]
    write_end_labels(axes, len(table) - 1, labels)


def draw_matrix(transitions: Counts, colours: Mapping[int, str], most: int, *, has_scale: bool = True) -> Draw:
    """Draw particles that went from a class (row) to a class (column); those that stayed are gray.

    Parameters
    ----------
    transitions
        (n_classes, n_classes) particles.
    colours
        The colours of the classes; where all have one, the cells have numbers.
    most
        The count that has the darkest colour, so that several matrices have one scale.
    has_scale
        Whether the scale stands beside it.
    """
    n_classes = len(transitions)
    moved = moved_particles(transitions)
    has_numbers = len(colours) == n_classes

    def draw(axes: Axes) -> None:
        image = draw_counts(axes, moved, (1, most), aspect="equal")
        axes.set_anchor("NW")
        if has_numbers:
            _write_cells(axes, transitions, image)
        else:
            axes.plot([-0.5, n_classes - 0.5], [-0.5, n_classes - 0.5], color="#cccccc", linewidth=0.8)
            if not moved.any():
                axes.text(0.5, 0.9, "No particle changed class.", transform=axes.transAxes, fontsize=9, ha="center")
        step = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, n_classes) if n_classes / step <= _MOST_TICKS)
        ticks = list(range(step - 1, n_classes, step))
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(ticks, [str(tick + 1) for tick in ticks])
        axes.tick_params(length=2)
        axes.set_xlabel("to class")
        axes.set_ylabel("from class")
        if has_scale and most:
            add_colour_scale(axes, image, "particles that changed class")

    return draw


def moved_particles(transitions: Counts) -> Counts:
    """Return the particles that went from class to class, without those that stayed."""
    moved = transitions.copy()
    np.fill_diagonal(moved, 0)
    return moved


def _write_cells(axes: Axes, transitions: Counts, image: object) -> None:
    """Write the counts into the cells, those that stayed too."""
    norm = image.norm  # type: ignore[attr-defined]
    for row, column in np.argwhere(transitions > 0).tolist():
        count = int(transitions[row, column])
        is_dark = row != column and norm(count) > 0.5
        axes.text(
            column,
            row,
            short_count(count),
            ha="center",
            va="center",
            fontsize=TICK_PT,
            color="white" if is_dark else "#666666" if row == column else "black",
        )


def short_count(count: int) -> str:
    """Return a count in five characters at most: 1,234 or 12.3k or 123k or 1.23M."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.3g}k" if count < 999_500 else f"{count / 1e6:.3g}M"


def draw_moves(transitions: Counts) -> Draw:
    """Draw the largest moves from a class to another as bars."""
    moves = largest_moves(transitions)
    if not moves:
        return draw_sentence("No particle changed class.")

    def draw(axes: Axes) -> None:
        counts = np.array([count for _, _, count in moves], dtype=np.int64)
        draw_bars(axes, counts, "#0072B2")
        axes.set_yticks(range(len(moves)), [f"{source} → {target}" for source, target, _ in moves])
        for place, count in enumerate(counts.tolist()):
            axes.annotate(
                f"{count:,}", (count, place), (3, 0), textcoords="offset points", va="center", fontsize=LABEL_PT
            )
        axes.set_xlim(0, 1.02 * float(counts.max()))
        count_particles_along_x(axes)

    return draw
