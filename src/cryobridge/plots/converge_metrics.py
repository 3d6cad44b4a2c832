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
    or_nan,
    plausible_resolutions_A,
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
# Round numbers of a decade, the densest first.
_ROUND = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 4, 6), (1, 2, 5), (1,))
_MOST_TICKS, _FEWEST_TICKS = 10, 3


def draw_changed(history: History) -> Draw:
    """Draw the changed fraction on a log axis; 0 has a place of its own below the axis's end."""
    numbers = numbers_of(history.iterations)
    ours, theirs = changed_percent(history.iterations), program_changed_percent(history.iterations)
    # In iteration 1 RELION's particles come from no class, or from those of an earlier job.
    theirs[(np.array(numbers) <= 1) & ~np.isfinite(ours)] = np.nan
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
    if history.is_refinement:  # its one class is all
        classes = classes[:, :0]
    final = _final(history)
    known = np.concatenate([whole, classes.ravel(), final])
    known = known[np.isfinite(known)]
    if known.size == 0:
        return draw_sentence("The files of this job have no resolution.")

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

        axes.set_yscale("log")
        low, high = known.min() / 1.06, known.max() * 1.06
        axes.set_ylim(high, low)
        axes.yaxis.set_major_locator(FixedLocator(round_ticks(low, high)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        shown = {index: colour for index, colour in colours.items() if np.isfinite(classes[:, index]).any()}
        draw_class_lines(axes, numbers, classes, shown if np.isfinite(classes).any() else {})
        if history.is_refinement:
            _draw_refined(axes, numbers, whole, "resolution")
        else:
            axes.plot(numbers, whole, color="black", linestyle="--", linewidth=1.4, label="all")
        axes.set_ylabel("resolution (Å)")
        labels = _resolution_labels(whole, classes, shown)
        if history.is_refinement:
            labels = [EndLabel(label.y, label.text.removeprefix("all: "), _MAIN) for label in labels]
        last = numbers[-1]
        if final.size and history.final is not None:
            last = history.final.number
            axes.plot([last], final, "D", color=_LIMIT, markersize=5, label="final", clip_on=False)
            # The mark is the end: its resolution is the one that counts.
            labels = [EndLabel(float(final[0]), f"final: {measure(final[0], 'Å')}", _LIMIT)]
        iteration_axis(axes, [*numbers, last])
        write_end_labels(axes, last, labels)

    return draw


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for the ticks of a log axis between two positive numbers, at most 10."""
    from matplotlib.ticker import MaxNLocator

    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _ROUND:
        ticks = [tick for tick in np.outer(powers, steps).ravel().tolist() if low <= tick <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    if len(ticks) < _FEWEST_TICKS:
        values = MaxNLocator(5, steps=TICK_STEPS).tick_values(low, high)
        ticks = [float(f"{value:.6g}") for value in values if low <= value <= high]
    return ticks


def _final(history: History) -> Floats:
    """Return the final resolution of a refinement as an array of one, or an empty one."""
    final: Floats = plausible_resolutions_A([] if history.final is None else [history.final.metrics.resolution_A])
    known: Floats = final[np.isfinite(final)]
    return known


def draw_changes(history: History, unit: str) -> Draw:
    """Draw how far a refinement still moves particles, and how well it could tell, in one unit on a log axis.

    Parameters
    ----------
    history
        The iterations.
    unit
        ``°`` for orientations, ``Å`` for offsets.
    """
    numbers = numbers_of(history.iterations)
    metrics = [iteration.metrics for iteration in history.iterations]
    if unit == "°":
        changes = or_nan([item.orientation_change_deg for item in metrics])
        accuracies = or_nan([item.rotation_accuracy_deg for item in metrics])
    else:
        changes = or_nan([item.offset_change_A for item in metrics])
        accuracies = or_nan([item.translation_accuracy_A for item in metrics])
    series = {"changed": (changes, _MAIN), "accuracy": (accuracies, _LIMIT)}
    if not any((np.isfinite(values) & (values > 0)).any() for values, _ in series.values()):
        return draw_sentence("The files of this job do not say.")

    def draw(axes: Axes) -> None:
        zero = _log_axis(axes, np.concatenate([values for values, _ in series.values()]))
        labels = []
        for name, (values, colour) in series.items():
            heights = np.where(values == 0, zero, values)
            _draw_refined(axes, numbers, heights, name, colour)
            if np.isfinite(values[-1]):
                labels.append(EndLabel(float(heights[-1]), f"{name}: {measure(values[-1], unit)}", colour))
        iteration_axis(axes, numbers)
        axes.set_ylabel("orientations (°)" if unit == "°" else "offsets (Å)")
        write_end_labels(axes, numbers[-1], labels)

    return draw


def _draw_refined(axes: Axes, numbers: list[int], values: Floats, name: str, colour: str = _MAIN) -> None:
    size = 3 if len(numbers) <= MOST_MARKERS else 0
    axes.plot(numbers, values, color=colour, marker="o", markersize=size, linewidth=1.4, label=name, clip_on=False)


def _resolution_labels(whole: Floats, classes: Floats, shown: Mapping[int, str]) -> list[EndLabel]:
    """Name the lines that reach the end."""
    ends = [(whole[-1], "all", "black")]
    ends += [(classes[-1, index], f"class {index + 1}", colour) for index, colour in shown.items()]
    return [EndLabel(float(y), f"{name}: {measure(y, 'Å')}", colour) for y, name, colour in ends if np.isfinite(y)]


def measure(value: float, unit: str) -> str:
    """Write a resolution, an angle or a shift as tables and verdicts do, with two decimals; ``°`` follows at once."""
    return f"{value:.{2 if value < 100 else 1}f}{'' if unit == '°' else ' '}{unit}"


def draw_sentence(sentence: str) -> Draw:
    """Return a drawing of a sentence alone, where there is nothing to draw."""

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.text(0, 0.9, sentence, transform=axes.transAxes, fontsize=8.5, color="#666666", va="top", wrap=True)

    return draw
