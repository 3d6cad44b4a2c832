"""Histograms, points and grids: what `cryobridge inspect` draws of tables, arrays and pickles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.plots.page import LARGEST, TICK_PT, TICK_STEPS, Draw, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST_BINS, _MOST_BINS = 10, 50
MANY_POINTS = 5000
_FEW_POINTS = 100


def draw_histograms(rows: NDArray[Any], unit: str) -> Draw:
    """Count values, (n, components), in bins that the components share; complex ones by their magnitude."""
    is_whole = rows.dtype.kind in "iub"
    components = (np.abs(rows) if rows.dtype.kind == "c" else rows).astype(np.float64).T
    # Rice's rule, with finer bins: the defocus of a data set has a peak for each micrograph.
    n_bins = min(_MOST_BINS, max(_FEWEST_BINS, math.ceil(5 * len(rows) ** (1 / 3))))
    edges = _bin_edges(components[np.abs(components) < LARGEST], n_bins, is_whole=is_whole)
    counts = [np.histogram(component, edges)[0] for component in components]
    magnitude = "magnitude" if rows.dtype.kind == "c" else ""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        for number, count in enumerate(counts):
            axes.stairs(count, edges, fill=len(counts) == 1, color=f"C{number}", label=str(number), linewidth=1.2)
        if len(counts) > 1:
            axes.legend(
                loc="upper right",
                fontsize=TICK_PT - 0.5,
                ncols=math.ceil(len(counts) / 4),
                handlelength=0.8,
                columnspacing=0.8,
                borderpad=0.2,
                labelspacing=0.2,
            )
        axes.set_ylim(0, 1.05 * max(1, *(count.max() for count in counts)))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS, integer=is_whole))
        axes.ticklabel_format(axis="x", scilimits=(-3, 5))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(unit or magnitude)

    return draw


def _bin_edges(finite: Floats, n_bins: int, *, is_whole: bool) -> NDArray[np.floating[Any]]:
    """Return edges of equal bins; those for whole numbers lie between them and hold equally many."""
    if finite.size == 0:
        return np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    if is_whole and max(abs(low), abs(high)) < 2**52:  # beyond, float64 has no halves to put edges on
        width = math.ceil((high - low + 1) / _MOST_BINS)
        return low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    # Numbers that differ in their last digits alone leave no space for bins between them.
    largest = max(abs(low), abs(high), 1e-100)
    if high - low < 1e-12 * largest:
        low, high = low - 0.01 * largest, high + 0.01 * largest
    return np.linspace(low, high, n_bins + 1)


def draw_points(points: Floats) -> Draw:
    """Return a drawing of points, (n, 2)."""
    size = 8 if len(points) < _FEW_POINTS else 4 if len(points) < MANY_POINTS else 1.5

    def draw(axes: Axes) -> None:
        axes.plot(*points.T, ".", markersize=size, markeredgewidth=0, alpha=0.5, rasterized=True)
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 5))

    return draw


def draw_grid(grid: NDArray[Any], ends: Sequence[tuple[float, float]]) -> Draw:
    """Return a drawing of values on a grid of one or two dimensions, with the first and last place of each."""

    def draw(axes: Axes) -> None:
        if grid.ndim == 1:
            axes.plot(np.linspace(*ends[0], len(grid)), grid)
        else:
            axes.imshow(grid.T, origin="lower", aspect="auto", extent=(*ends[0], *ends[1]))

    return draw
