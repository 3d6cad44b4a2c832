"""Gray images on a page: contact sheets, and the scale of gray that shows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.plots.page import TICK_PT, Draw, Floats, Panel, Sheet, image_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_IMAGES = 16
_PANEL_PX = 512
_LEAST_WIDTH_IN = 6.0
_TILE_IN, _GAP_IN, _TITLE_IN, _TITLE_PT = 1.7, 0.15, 0.25, 8.5
_TITLE_CHARACTERS = 23
# Left and bottom of the tiles, without and with axes.
_BESIDE_TILES_IN = {False: (0.15, 0.05), True: (0.7, 0.5)}


def contact_sheet(heading: str, n_images: int, read: Callable[[int], NDArray[Any]], notes: list[str]) -> Sheet:
    """Show evenly spaced images; each is read, made small and dropped before the next one."""
    chosen = evenly_spaced(n_images)
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


def evenly_spaced(n_images: int) -> list[int]:
    """Return the numbers of the images that a sheet shows of so many, at most 16."""
    chosen: list[int] = np.unique(np.linspace(0, n_images - 1, min(n_images, _N_IMAGES)).round().astype(int)).tolist()
    return chosen


def image_tiles(
    heading: str, images: Iterable[NDArray[Any]], titles: Sequence[str], aspect: float, notes: Iterable[str]
) -> Sheet:
    """Show images of one shape, (n, ny, nx), each in its own scale of gray; `contact_sheet` at half the cost."""
    shown, block_px = [], 1
    for pixels in images:
        image, block_px = _shrink(np.asarray(pixels))
        shown.append(scale_gray(image, *contrast(image, 1, 99)))
    notes = [*notes, "Gray from percentile 1 to 99 of each image."]
    if block_px > 1:
        notes.append(f"Blocks of {block_px} × {block_px} px are averaged.")
    return tile_sheet(heading, np.stack(shown), titles, aspect, notes)


@dataclass(frozen=True)
class TileAxes:
    """The axes of tiles: values at the left, right, bottom and top edge, and what the axes are."""

    extent: tuple[float, float, float, float]
    across: str
    up: str


def tile_sheet(
    heading: str,
    tiles: Floats,
    titles: Sequence[str],
    aspect: float,
    notes: Iterable[str],
    tile_axes: TileAxes | None = None,
) -> Sheet:
    """Lay gray tiles into one panel, since panels of their own would cost more than what is in them.

    Parameters
    ----------
    heading, notes
        Of the page.
    tiles
        (n, ny, nx) from 0, black, to 1, white; paper shows where they are NaN.
    titles
        What stands above each tile.
    aspect
        Height of a tile by its width.
    tile_axes
        The same for all; drawn at the tile in the lower left corner.
    """
    n_columns = len(tiles) if len(tiles) <= 3 else math.ceil(math.sqrt(len(tiles)))
    n_rows = math.ceil(len(tiles) / n_columns)
    left, bottom = _BESIDE_TILES_IN[tile_axes is not None]
    cell = max(_TILE_IN, (_LEAST_WIDTH_IN - left) / n_columns - _GAP_IN)
    width, height = cell, cell * aspect
    if height > 2 * cell:
        width, height = 2 * cell / aspect, 2 * cell
    pitch = (cell + _GAP_IN, height + _TITLE_IN)
    whole = (n_columns * pitch[0], n_rows * pitch[1])

    def draw(axes: Axes) -> None:
        _hide_axes(axes)
        axes.set(xlim=(0, whole[0]), ylim=(whole[1], 0))
        for place, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
            row, column = divmod(place, n_columns)
            x, y = column * pitch[0], row * pitch[1] + _TITLE_IN
            extent = (x, x + width, y + height, y)
            axes.imshow(tile, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
            axes.text(x, y - 0.05, _fitting(title), fontsize=_TITLE_PT, va="baseline", parse_math=False)
        if tile_axes is not None:
            _draw_tile_axes(axes.inset_axes((0, 0, width / whole[0], height / whole[1])), tile_axes)

    return Sheet(heading, (Panel("", draw),), tuple(notes), (whole[0] + left, whole[1] + bottom), (left, bottom, 0, 0))


def _hide_axes(axes: Axes) -> None:
    axes.set_axis_off()
    # Matplotlib measures ticks that it doesn't draw, unless their axis is invisible too.
    axes.xaxis.set_visible(False)
    axes.yaxis.set_visible(False)


def _draw_tile_axes(axes: Axes, tile_axes: TileAxes) -> None:
    left, right, bottom, top = tile_axes.extent
    axes.patch.set_visible(False)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=TICK_PT, length=2)
    axes.set_xlabel(tile_axes.across, fontsize=TICK_PT)
    axes.set_ylabel(tile_axes.up, fontsize=TICK_PT)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)


def _fitting(title: str) -> str:
    """Take out the middle of a title that is too long, and replace what the font may have no glyph for."""
    text = "".join(character if " " <= character <= "~" else "?" for character in title)
    side = _TITLE_CHARACTERS // 2
    return text if len(text) <= _TITLE_CHARACTERS else f"{text[:side]}…{text[-side:]}"


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


def scale_gray(image: Floats, black: float, white: float) -> Floats:
    """Return an image from 0 at and below one value to 1 at and above the other."""
    shown: Floats = np.clip((image - black) / (white - black or 1.0), 0, 1)
    return shown


def draw_gray(image: Floats, black: float, white: float, **place: Any) -> Draw:
    """Return a drawing of an image, (ny, nx), between two values."""
    shown = scale_gray(image, black, white)

    def draw(axes: Axes) -> None:
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, **place)
        if not place:
            axes.set_axis_off()
            axes.set_anchor("NW")

    return draw
