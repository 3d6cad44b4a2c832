"""A micrograph with the picks drawn on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.interruption import uninterrupted
from cryobridge.plots.page import written_as

_WIDTH_IN = 8.0


@uninterrupted
def picks_png(image: NDArray[Any], shape_px: tuple[int, ...], coordinate_px: NDArray[Any], title: str) -> bytes:
    """Draw picks on a micrograph.

    Parameters
    ----------
    image
        (n, m), the micrograph, scaled down or as it is.
    shape_px
        ny, nx of the micrograph itself, whose pixels the coordinates count.
    coordinate_px
        (n_picks, 2) x, y; pixel centres lie at whole numbers, and the first stored row is drawn at the top.
    title
        What stands above, in one line or more.

    Returns
    -------
    bytes
        The content of a PNG file.
    """
    from matplotlib.figure import Figure

    ny, nx = shape_px
    low, high = np.quantile(image, [0.01, 0.99])
    figure = Figure(figsize=(_WIDTH_IN, _WIDTH_IN * ny / nx + 0.7), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=(-0.5, nx - 0.5, ny - 0.5, -0.5))
    axes.scatter(
        coordinate_px[:, 0], coordinate_px[:, 1], s=60, facecolors="none", edgecolors="tab:cyan", linewidths=0.9
    )
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")
    return written_as(figure, "png", dpi=100)
