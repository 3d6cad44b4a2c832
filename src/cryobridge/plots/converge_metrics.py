"""Changed fraction, effective number of classes, resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.model.classification import (
    changed_percent,
    class_resolutions_A,
    numbers_of,
    program_changed_percent,
    resolutions_A,
)
from cryobridge.plots.converge_populations import (
    COLOURS,
    MOST_MARKERS,
    EndLabel,
    draw_class_lines,
    iteration_axis,
    percent,
    write_end_labels,
)
from cryobridge.plots.page import TICK_STEPS, Draw, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cryobridge.model.classification import History

# Where the program counts as we do its line lies behind ours, hence it is the wider one.
_MAIN, _OTHER, _LIMIT = COLOURS[0], "#b0b0b0", COLOURS[1]
_MAIN_WIDTH, _OTHER_WIDTH = 1.4, 4.5
_RESOLUTIONS_A = np.outer(10.0 ** np.arange(-1, 4), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)).ravel()


def draw_changed(history: History) -> Draw:
    """Draw the changed fraction on a log axis; 0 has a place of its own below the axis's end."""
    numbers = numbers_of(history.iterations)
    ours, theirs = changed_percent(history.iterations), program_changed_percent(history.iterations)
    limit = 100 * history.threshold
    values = np.concatenate([ours, theirs])
    if not np.isfinite(values).any():
        return draw_sentence("No iteration can be compared with one before it yet.")

    def draw(axes: Axes) -> None:
        zero = _log_axis(axes, np.append(values, limit if limit > 0 else np.nan))
        size = 1.5 if len(numbers) <= MOST_MARKERS else 0
        labels = []
        for series, colour, width, name in (
            (theirs, _OTHER, _OTHER_WIDTH, history.program),
            (ours, _MAIN, _MAIN_WIDTH, "counted"),
        ):
            known = np.flatnonzero(np.isfinite(series))
            if known.size == 0:
                continue
            heights = np.where(series == 0, zero, series)
            axes.plot(numbers, heights, color=colour, marker="o", markersize=width + size, linewidth=width, label=name)
            label = f"{name}: {percent(series[known[-1]], 100)}"
            labels.append(EndLabel(float(heights[known[-1]]), label, colour))
        at_zero = np.flatnonzero(ours == 0)
        axes.plot(
            np.array(numbers)[at_zero],
            np.full(len(at_zero), zero),
            "o",
            markerfacecolor="white",
            color=_MAIN,
            markersize=4,
            label="_counted 0",
        )
        if limit > 0:
            axes.axhline(limit, color=_LIMIT, linewidth=1.1, linestyle="--", label="threshold")
            labels.append(EndLabel(limit, f"threshold: {limit:.3g} %", _LIMIT))
        iteration_axis(axes, numbers)
        axes.set_ylabel("changed class (%)")
        write_end_labels(axes, numbers[-1], labels)

    return draw


def _log_axis(axes: Axes, percent: Floats) -> float:
    """Make the y axis logarithmic with a range for all values; return the height that stands for 0."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    known = percent[np.isfinite(percent)]
    positive = known[known > 0] if (known > 0).any() else np.array([1.0])
    low, high = math.floor(math.log10(positive.min() / 1.5)), math.ceil(math.log10(positive.max() * 1.1))
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps if step * 10**power <= 10**high]
    texts = [f"{tick:g}" for tick in ticks]
    span = high - low + 0.15
    zero, bottom, top = 10 ** (low - 0.1 * span), 10 ** (low - 0.15 * span), 10.0 ** (high + 0.1)
    has_zero = bool((known <= 0).any())
    if has_zero:
        ticks, texts = [zero, *ticks], ["0", *texts]
        axes.axhspan(bottom, 10 ** (low - 0.04 * span), color="#f2f2f2", linewidth=0, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(bottom if has_zero else 10 ** (low - 0.04 * span), top)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter(texts))
    return float(zero)


def draw_effective(history: History) -> Draw:
    """Draw how many classes have particles, and how many of equal size they amount to."""
    numbers = numbers_of(history.iterations)
    occupied = [iteration.occupied for iteration in history.iterations]
    effective = [iteration.effective_classes for iteration in history.iterations]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        size = 3 if len(numbers) <= MOST_MARKERS else 0
        for values, colour, width, name in (
            (occupied, _OTHER, _OTHER_WIDTH, "occupied"),
            (effective, _MAIN, _MAIN_WIDTH, "effective"),
        ):
            axes.plot(numbers, values, color=colour, marker="o", markersize=size, linewidth=width, label=name)
        axes.set_ylim(0, 1.08 * max(1, history.n_classes))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS, integer=True))
        iteration_axis(axes, numbers)
        axes.set_ylabel("classes")
        ends = [
            EndLabel(float(occupied[-1]), f"occupied: {occupied[-1]} of {history.n_classes}", _OTHER),
            EndLabel(float(effective[-1]), f"effective: {effective[-1]:.1f}", _MAIN),
        ]
        write_end_labels(axes, numbers[-1], ends)

    return draw


def draw_resolution(history: History, colours: Mapping[int, str]) -> Draw:
    """Draw the resolution of the job and of the classes; a finer one is higher up."""
    numbers = numbers_of(history.iterations)
    whole = resolutions_A(history)
    classes = class_resolutions_A(history)
    known = np.concatenate([whole, classes.ravel()])
    known = known[np.isfinite(known)]
    if known.size == 0:
        return draw_sentence("The files of this job have no resolution.")

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

        axes.set_yscale("log")
        low, high = known.min() / 1.06, known.max() * 1.06
        axes.set_ylim(high, low)
        ticks = [tick for tick in _RESOLUTIONS_A.tolist() if low <= tick <= high]
        if len(ticks) < 3:
            ticks = [float(f"{tick:.3g}") for tick in np.geomspace(low, high, 5)[1:-1]]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        shown = {index: colour for index, colour in colours.items() if np.isfinite(classes[:, index]).any()}
        draw_class_lines(axes, numbers, classes, shown if np.isfinite(classes).any() else {})
        axes.plot(numbers, whole, color="black", linestyle="--", linewidth=1.4, label="all")
        axes.set_ylabel("resolution (Å)")
        write_end_labels(axes, numbers[-1], _resolution_labels(whole, classes, shown))

    return draw


def _resolution_labels(whole: Floats, classes: Floats, shown: Mapping[int, str]) -> list[EndLabel]:
    """Name the lines that reach the end."""
    ends = [(whole[-1], "all", "black")]
    ends += [(classes[-1, index], f"class {index + 1}", colour) for index, colour in shown.items()]
    return [EndLabel(float(y), f"{name}: {y:.3g} Å", colour) for y, name, colour in ends if np.isfinite(y)]


def draw_sentence(sentence: str) -> Draw:
    """Return a drawing of a sentence alone, where there is nothing to draw."""

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.text(0, 0.9, sentence, transform=axes.transAxes, fontsize=8.5, color="#666666", va="top", wrap=True)

    return draw
