"""Curves, latent planes by cluster and densities: what `cryobridge inspect` draws of RECOVAR's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.plots.inspection import MANY_POINTS
from cryobridge.plots.page import LARGEST, TICK_PT, Draw, Floats, labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_N_QUALITATIVE = 10
_N_BINS = 40
_GRAY = "0.4"


def draw_fsc(curves: Mapping[str, Sequence[float]], box_A: float, thresholds: Iterable[float]) -> Draw:
    """Return a drawing of curves of Fourier shell correlation by name; shell k is at k / box_A."""

    def draw(axes: Axes) -> None:
        for label, curve in curves.items():
            axes.plot(np.arange(len(curve)) / box_A, curve, label=label)
        for threshold in thresholds:
            axes.axhline(threshold, color=_GRAY, linestyle="--", linewidth=0.8)
            axes.text(0, threshold + 0.02, f"{threshold}", fontsize=TICK_PT, color=_GRAY)
        axes.set_ylim(min(-0.05, *(min(curve) for curve in curves.values())), 1.05)
        axes.locator_params(axis="x", nbins=6)
        axes.legend(fontsize=TICK_PT, framealpha=0.9)

    return labelled(draw, "spatial frequency (1/Å)", "")


def draw_eigenvalues(values: Floats) -> Draw:
    """Return a drawing of eigenvalues, (n,), on a log axis where all are positive."""

    def draw(axes: Axes) -> None:
        axes.plot(np.arange(1, len(values) + 1), values, ".-", linewidth=0.8)
        if bool((values > 0).all()):
            axes.set_yscale("log")
        axes.tick_params(which="minor", labelsize=TICK_PT)
        axes.locator_params(axis="x", integer=True)

    return labelled(draw, "component", "")


def draw_populations(populations: tuple[int, ...]) -> Draw:
    """Return a drawing of the particles of each cluster as bars in the colours of the clusters."""

    def draw(axes: Axes) -> None:
        axes.bar(np.arange(len(populations)), populations, color=_colours(len(populations)))
        axes.locator_params(axis="x", integer=True)

    return labelled(draw, "cluster", "")


@dataclass(frozen=True)
class Clusters:
    """What a plane is coloured by: labels (n,), centers (K, 1 or 2) and paths, each (m, 1 or 2)."""

    labels: NDArray[np.int64]
    centers: Floats
    paths: list[Floats]

    def split(self, points: Floats) -> list[Floats]:
        """Return the points, (n, 1 or 2), of each cluster; those that are no numbers are left out."""
        good = _are_numbers(points)
        return [points[good & (self.labels == cluster)] for cluster in range(len(self.centers))]


def _are_numbers(points: Floats) -> NDArray[np.bool_]:
    return np.asarray((np.abs(points) < LARGEST).all(axis=1))


def draw_latent(points: Floats, clusters: Clusters | None, names: list[str]) -> Draw:
    """Draw points, (n, 2), coloured by cluster; of one dimension, (n, 1), a histogram."""
    parts = [points[_are_numbers(points)]] if clusters is None else clusters.split(points)
    if points.shape[1] == 1:
        return labelled(_draw_histogram([part[:, 0] for part in parts]), names[0], "particles")
    return labelled(_draw_plane(parts, clusters), *names)


def _draw_plane(parts: list[Floats], clusters: Clusters | None) -> Draw:
    size = 4.0 if sum(map(len, parts)) < MANY_POINTS else 1.5
    style: dict[str, Any] = {"markersize": size, "markeredgewidth": 0, "alpha": 0.6, "rasterized": True}

    def draw(axes: Axes) -> None:
        for part, colour in zip(parts, _colours(len(parts)), strict=True):
            axes.plot(*part.T, ".", color=colour, **style)
        for path in clusters.paths if clusters is not None else ():
            axes.plot(*path.T, ".-", color="black", linewidth=0.9, markersize=4)
        for cluster, place in enumerate(clusters.centers if clusters is not None else ()):
            if bool(np.isfinite(place).all()):
                _write_number(axes, cluster, place)
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 5))

    return draw


def _write_number(axes: Axes, cluster: int, place: Floats) -> None:
    box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "black", "linewidth": 0.6}
    x, y = place.tolist()
    axes.text(x, y, str(cluster), fontsize=TICK_PT, ha="center", va="center", bbox=box, zorder=5)


def _draw_histogram(parts: list[Floats]) -> Draw:
    def draw(axes: Axes) -> None:
        axes.hist(parts, bins=_N_BINS, stacked=True, color=_colours(len(parts)))

    return draw


def _colours(n_clusters: int) -> list[Any]:
    """Return colours that differ: those of a qualitative map as far as it goes."""
    from matplotlib import colormaps

    if n_clusters <= _N_QUALITATIVE:
        return list(colormaps["tab10"].colors[:n_clusters])  # type: ignore[attr-defined]
    return list(colormaps["turbo"](np.linspace(0.03, 0.97, n_clusters)))


def draw_density(values: Floats, points: tuple[Floats, ...]) -> Draw:
    """Draw a density on a grid of one or two dimensions; ``points`` are those of each of its axes."""

    def draw_line(axes: Axes) -> None:
        axes.plot(points[0], values)

    def draw_plane(axes: Axes) -> None:
        extent = (*_outer_ends(points[0]), *_outer_ends(points[1]))
        axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 5))

    if values.ndim == 1:
        return labelled(draw_line, "dimension 0", "density")
    return labelled(draw_plane, "dimension 0", "dimension 1")


def _outer_ends(axis: Floats) -> tuple[float, float]:
    """Return where the outermost cells of a grid end, whose points are their middles."""
    half = float(axis[-1] - axis[0]) / max(len(axis) - 1, 1) / 2 or 0.5
    return float(axis[0]) - half, float(axis[-1]) + half
