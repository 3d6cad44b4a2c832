"""Gray images on a page: contact sheets, and the scale of gray that shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.drawing.page import Draw, Floats, Panel, Sheet, image_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_IMAGES = 16
_PANEL_PX = 512


def contact_sheet(heading: str, n_images: int, read: Callable[[int], NDArray[Any]], notes: list[str]) -> Sheet:
    """Show evenly spaced images; each is read, made small and dropped before the next one."""
    chosen = np.unique(np.linspace(0, n_images - 1, min(n_images, _N_IMAGES)).round().astype(int)).tolist()
    panels, block_px, aspect = [], 1, 1.0
    for index in chosen:
        image, block_px = _shrink(np.asarray(read(index)))
        aspect = image.shape[0] / image.shape[1]
        panels.append(Panel(f"image {index}", draw_gray(image, *contrast(image, 1, 99))))
    notes = [
        *notes,
        f"{len(chosen)} of {image_count(n_images)}, numbered from 0; gray from percentile 1 to 99 of each.",
    ]
    if block_px > 1:
        notes.append(f"Blocks of {block_px} × {block_px} px are averaged.")
    cell_in = (2.2, 2.2 * min(max(aspect, 0.3), 2.0) + 0.25)
    return Sheet(heading, tuple(panels), tuple(notes), cell_in, (0.15, 0.05, 0.05, 0.28))


def _shrink(image: NDArray[Any]) -> tuple[Floats, int]:
    """Average blocks of an image, (ny, nx), where it has more pixels than a panel; return the block's side too."""
    side = max(1, max(image.shape) // _PANEL_PX)
    (ny, y), (nx, x) = ((max(1, n // side), min(side, n)) for n in image.shape)
    with np.errstate(invalid="ignore"):
        return image[: ny * y, : nx * x].reshape(ny, y, nx, x).mean(axis=(1, 3), dtype=np.float64), side


def contrast(pixels: Floats, low: float, high: float) -> tuple[float, float]:
    """Return percentiles of the finite pixels, or the extremes where the percentiles are one value."""
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return 0.0, 1.0
    black, white = np.percentile(finite, (low, high)).tolist()
    return (black, white) if white > black else (float(finite.min()), float(finite.max()))


def draw_gray(image: Floats, black: float, white: float, **place: Any) -> Draw:
    """Return a drawing of an image, (ny, nx), between two values."""
    shown = np.clip((image - black) / (white - black or 1.0), 0, 1)

    def draw(axes: Axes) -> None:
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, **place)
        if not place:
            axes.set_axis_off()
            axes.set_anchor("NW")

    return draw
