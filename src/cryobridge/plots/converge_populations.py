"""Class populations in pictures: lines over the iterations, bars of one iteration, a map of many classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryobridge.model.classification import population_table
from cryobridge.plots.page import TICK_PT, TICK_STEPS, Draw, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cryobridge.model.classification import Counts, Iteration

# Up to so many classes each has a colour, a line and a band of its own.
MOST_COLOURS = 10
_N_LARGEST = 8
# Okabe and Ito's colours, then dark ones of Tol's: distinct with any colour vision, and legible on white.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#666666", "#999933", "#332288"),
)
_MARKERS = "osD^vPX*<>"
MOST_MARKERS = 40
REST = "#b5b5b5"
EMPTY = "#ececec"
GRID = "#e6e6e6"
LABEL_PT = TICK_PT + 0.5
_FULL_ROWS = 4
_MOST_ROW_LABELS = 20
_MOST_COLUMN_LABELS = 12


@dataclass(frozen=True)
class EndLabel:
    """A text beside the right end of what it names, in the units of the y axis."""

    y: float
    text: str
    colour: str


def class_colours(populations: Counts) -> dict[int, str]:
    """Choose the classes, by their place from 0, that have a colour: all, or of more than 10 the 8 largest.

    Of many classes those without particles have none. A colour goes with the class's number, so that it seldom
    changes between the pictures of a job; where another class has it already the next free one is taken.
    """
    n_classes = len(populations)
    if n_classes <= MOST_COLOURS:
        return {index: COLOURS[index] for index in range(n_classes)}
    colours: dict[int, str] = {}
    for index in sorted(np.argsort(-populations, kind="stable")[:_N_LARGEST].tolist()):
        if populations[index]:
            wanted = (COLOURS[(index + step) % len(COLOURS)] for step in range(len(COLOURS)))
            colours[index] = next(colour for colour in wanted if colour not in colours.values())
    return colours


def percent(part: float, whole: float) -> str:
    """Return a part as a percentage in words; one that is small has more decimals, and only 0 is 0."""
    share = 100 * part / whole if whole else 0.0
    if share == 0:
        return "0 %"
    digits = 1 if share >= 1 else 2 if share >= 0.1 else 3
    return f"{share:.{digits}f} %" if share >= 0.001 else "< 0.001 %"


def count_tick(value: float, _: object = None) -> str:
    """Write a number of particles at a tick; six digits fit."""
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:g}M"


def count_particles_along_x(axes: Axes, *, prune: Literal["upper"] | None = None) -> None:
    """Make x the axis of numbers of particles; ``prune`` leaves out the last tick."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS, integer=True, prune=prune))
    axes.xaxis.set_major_formatter(count_tick)
    axes.set_xlabel("particles")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def points(change: float, digits: int) -> str:
    """Return the change of a share in percentage points, with its sign; nothing is less than nothing."""
    rounded = round(100 * change, digits)
    return f"{abs(rounded):.{digits}f}" if rounded == 0 else f"{rounded:+.{digits}f}".replace("-", "−")


def draw_population_lines(iterations: Sequence[Iteration], colours: Mapping[int, str]) -> Draw:
    """Draw the populations over the numbers of the iterations, and name the coloured ones with their shares."""
    table, total = population_table(iterations), iterations[-1].particles
    numbers = [iteration.number for iteration in iterations]
    labels = [
        EndLabel(float(table[-1, index]), f"class {index + 1}: {percent(table[-1, index], total)}", colour)
        for index, colour in colours.items()
    ]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.set_ylim(0, 1.06 * max(1, int(table.max())))
        draw_class_lines(axes, numbers, table.astype(np.float64), colours)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS, integer=True))
        axes.yaxis.set_major_formatter(count_tick)
        axes.set_ylabel("particles")
        write_end_labels(axes, numbers[-1], labels)

    return draw


def draw_class_lines(axes: Axes, numbers: Sequence[int], values: Floats, colours: Mapping[int, str]) -> None:
    """Draw a line a class of (n_iterations, n_classes); gray ones behind for classes without a colour."""
    from matplotlib.collections import LineCollection

    rest = [index for index in range(values.shape[1]) if index not in colours]
    if rest and len(numbers) > 1:
        x = np.broadcast_to(np.asarray(numbers, dtype=np.float64)[:, None], (len(numbers), len(rest)))
        lines = np.stack([x, values[:, rest]], axis=2).transpose(1, 0, 2)
        axes.add_collection(LineCollection(list(lines), colors=REST, linewidths=0.6, alpha=0.6), autolim=False)
    elif rest:
        axes.plot([numbers[0]] * len(rest), values[0, rest], "_", color=REST, markersize=6)
    for place, (index, colour) in enumerate(colours.items()):
        is_short = len(numbers) <= MOST_MARKERS
        axes.plot(
            numbers,
            values[:, index],
            color=colour,
            marker=_MARKERS[place % len(_MARKERS)] if is_short else ".",
            markersize=3 if is_short else 1.5,
            linewidth=1.4,
            label=f"class {index + 1}",
            clip_on=False,
        )
    iteration_axis(axes, numbers)


def iteration_axis(axes: Axes, numbers: Sequence[int]) -> None:
    """Label the x axis, the iterations, with whole numbers; the grid lies behind the data."""
    from matplotlib.ticker import MaxNLocator

    first, last = numbers[0], numbers[-1]
    margin = 0.02 * max(1, last - first)
    axes.set_xlim(first - (margin if first < last else 1), last + margin)
    if first == last:
        axes.set_xticks([first])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=TICK_STEPS, integer=True, min_n_ticks=1))
    axes.set_xlabel("iteration")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_end_labels(axes: Axes, x: float, labels: Sequence[EndLabel]) -> None:
    """Write texts at the right of the axes, each at its height or as near to it as the others allow."""
    from matplotlib.collections import LineCollection

    if not labels:
        return
    figure = axes.figure
    height_pt = axes.get_position().height * figure.get_figheight() * 72  # type: ignore[union-attr]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = to_axes.transform([(x, label.y) for label in labels])
    heights = spread(ends[:, 1], 1.25 * LABEL_PT / height_pt)
    for label, height in zip(labels, heights.tolist(), strict=True):
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "parse_math": False}
        axes.text(1.035, height, label.text, fontsize=LABEL_PT, **place)
    leaders = [[(x_end, y_end), (1.03, height)] for (x_end, y_end), height in zip(ends.tolist(), heights, strict=True)]
    axes.add_collection(
        LineCollection(
            leaders,
            colors=[label.colour for label in labels],
            linewidths=0.8,
            transform=axes.transAxes,
            clip_on=False,
            label="_leaders",
        ),
        autolim=False,
    )


def spread(heights: Floats, distance: float) -> Floats:
    """Move heights, parts of the axes, apart until neighbours are so far from each other; their order stays.

    The sum of the squared moves is least, up to the limits of the axes: neighbours that are too close pool
    around their mean (isotonic regression).
    """
    order = np.argsort(heights, kind="stable")
    steps = distance * np.arange(len(heights))
    pools: list[tuple[float, int]] = []
    for height in (heights[order] - steps).tolist():
        mean, size = height, 1
        while pools and pools[-1][0] > mean:
            other_mean, other_size = pools.pop()
            mean = (mean * size + other_mean * other_size) / (size + other_size)
            size += other_size
        pools.append((mean, size))
    pooled = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    result = np.empty(len(heights))
    result[order] = np.clip(pooled, 0, max(0.0, 1 - float(steps[-1]))) + steps
    return result


def draw_population_bars(now: Iteration, before: Iteration | None, colours: Mapping[int, str]) -> Draw:
    """Draw a bar a class with its share and, where there is an iteration before, how the share has changed."""
    populations, total = now.populations, now.particles
    texts = [f"{count:,} ({percent(count, total)})" for count in populations.tolist()]
    if before is not None and before.particles and total:
        changes = populations / total - before.populations / before.particles
        texts = [f"{text}, {points(change, 1)}" for text, change in zip(texts, changes.tolist(), strict=True)]

    def draw(axes: Axes) -> None:

        places = np.arange(len(populations))
        height = draw_bars(axes, populations, [colours[index] for index in places.tolist()])
        ends = populations
        if before is not None:
            ends = np.maximum(populations, before.populations)  # texts stand beyond the marks
            axes.vlines(before.populations, places - 0.6 * height, places + 0.6 * height, color="black", linewidth=1.2)
        axes.set_xlim(0, 1.02 * max(1, int(ends.max())))
        for place, (end, text) in enumerate(zip(ends.tolist(), texts, strict=True)):
            axes.annotate(
                text,
                (end, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=LABEL_PT,
                color="#222222",
            )
        axes.set_yticks(places, [f"class {index + 1}" for index in places.tolist()])
        count_particles_along_x(axes, prune="upper")

    return draw


def draw_bars(axes: Axes, lengths: Counts, colours: Sequence[str] | str) -> float:
    """Draw a bar a row, rows that fill the axes from the top, and return the bars' height in rows; few are slim."""
    n_rows = len(lengths)
    height = 0.7 * min(1.0, n_rows / _FULL_ROWS)
    axes.barh(np.arange(n_rows), lengths, height=height, color=colours)
    axes.set_ylim(n_rows - 0.5, -0.5)
    return height


def draw_population_map(iterations: Sequence[Iteration]) -> Draw:
    """Draw the populations as colours: a row a class, the largest of the last iteration on top."""
    table, numbers = population_table(iterations), [iteration.number for iteration in iterations]
    order = np.argsort(-table[-1], kind="stable")

    def draw(axes: Axes) -> None:
        image = draw_counts(axes, table[:, order].T, aspect="auto")
        n_rows = len(order)
        rows = np.arange(0, n_rows, math.ceil(n_rows / _MOST_ROW_LABELS))
        axes.set_yticks(rows, [str(label) for label in (order[rows] + 1).tolist()], fontsize=TICK_PT - 1)
        axes.set_ylabel("class, by size at the end")
        columns = range(0, len(numbers), math.ceil(len(numbers) / _MOST_COLUMN_LABELS))
        axes.set_xticks(columns, [str(numbers[column]) for column in columns])
        axes.set_xlabel("iteration")
        add_colour_scale(axes, image, "particles")

    return draw


def draw_counts(axes: Axes, counts: NDArray[Any], limits: tuple[float, float] | None = None, **place: Any) -> Any:
    """Draw counts as colours on a log scale, if no limits are given that of the counts; cells of 0 are pale gray."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    shown = np.where(counts > 0, counts, np.nan)
    positive = counts[counts > 0]
    low, high = limits or ((float(positive.min()), float(positive.max())) if positive.size else (1.0, 10.0))
    norm = LogNorm(low, max(high, low + 1))
    image = axes.imshow(shown, cmap=colormaps["viridis_r"], norm=norm, interpolation="nearest", **place)
    image.cmap.set_bad(EMPTY)
    return image


def add_colour_scale(axes: Axes, image: Any, label: str) -> None:
    """Draw the scale of colours at the right of the axes."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    low, high = image.norm.vmin, image.norm.vmax
    steps = (1,) if high > 2000 * low else (1, 2, 5) if high > 9 else range(1, 10)
    ticks = [step * 10**power for power in range(10) for step in steps if low <= step * 10**power <= high]
    scale = axes.inset_axes((1.03, 0, 0.035, 1))
    bar = axes.figure.colorbar(
        image, cax=scale, ticks=ticks if len(ticks) > 1 else [low, high], format=FuncFormatter(count_tick)
    )
    scale.yaxis.set_minor_locator(NullLocator())
    scale.tick_params(labelsize=TICK_PT)
    bar.set_label(label, fontsize=LABEL_PT)
