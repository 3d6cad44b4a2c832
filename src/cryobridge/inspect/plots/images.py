"""Contact sheets of stacks and central slices of volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.formats.mrc import MrcFile, open_mrc
from cryobridge.formats.mrc_header import decide_kind
from cryobridge.formats.table import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from cryobridge.inspect.plots.page import Draw, Floats, Panel, Sheet, image_count, labelled, path_title

_N_IMAGES = 16
LEAST_IMAGE_PX = 24
_PANEL_PX = 512
_SLICE_PX = 1024


def mrc_sheet(path: Path) -> Sheet:
    """Draw a stack as a contact sheet, a volume as three slices."""
    mrc = open_mrc(path)
    header, kind = mrc.header, decide_kind(mrc.header)
    is_volume = kind.kind == "volume"
    notes = [] if kind.certain else [f"Drawn as a {'volume' if is_volume else 'stack of images'}; {kind.reason}."]
    pixel = f", pixel {header.pixel_size_A:.4g} Å" if header.pixel_size_A else ""
    if is_volume:
        return _slices_sheet(f"{path_title(path)}: {header.nx} × {header.ny} × {header.nz} px{pixel}", mrc, notes)
    heading = f"{path_title(path)}: {image_count(header.nz)} of {header.nx} × {header.ny} px{pixel}"
    return contact_sheet(heading, header.nz, lambda index: mrc.read([index])[0], notes)


def contact_sheet(heading: str, n_images: int, read: Callable[[int], Array], notes: list[str]) -> Sheet:
    """Show evenly spaced images; each is read, made small and dropped before the next one."""
    chosen = np.unique(np.linspace(0, n_images - 1, min(n_images, _N_IMAGES)).round().astype(int)).tolist()
    panels, block_px, aspect = [], 1, 1.0
    for index in chosen:
        image, block_px = _shrink(np.asarray(read(index)))
        aspect = image.shape[0] / image.shape[1]
        panels.append(Panel(f"image {index}", _draw_gray(image, *_contrast(image, 1, 99))))
    notes = [
        *notes,
        f"{len(chosen)} of {image_count(n_images)}, numbered from 0; gray from percentile 1 to 99 of each.",
    ]
    if block_px > 1:
        notes.append(f"Blocks of {block_px} × {block_px} px are averaged.")
    cell_in = (2.2, 2.2 * min(max(aspect, 0.3), 2.0) + 0.25)
    return Sheet(heading, tuple(panels), tuple(notes), cell_in, (0.15, 0.05, 0.05, 0.28))


def _shrink(image: Array) -> tuple[Floats, int]:
    """Average blocks of an image, (ny, nx), where it has more pixels than a panel; return the block's side too."""
    side = max(1, max(image.shape) // _PANEL_PX)
    (ny, y), (nx, x) = ((max(1, n // side), min(side, n)) for n in image.shape)
    with np.errstate(invalid="ignore"):
        return image[: ny * y, : nx * x].reshape(ny, y, nx, x).mean(axis=(1, 3), dtype=np.float64), side


def _contrast(pixels: Floats, low: float, high: float) -> tuple[float, float]:
    """Return percentiles of the finite pixels, or the extremes where the percentiles are one value."""
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return 0.0, 1.0
    black, white = np.percentile(finite, (low, high)).tolist()
    return (black, white) if white > black else (float(finite.min()), float(finite.max()))


def _draw_gray(image: Floats, black: float, white: float, **place: Any) -> Draw:
    shown = np.clip((image - black) / (white - black or 1.0), 0, 1)

    def draw(axes: Axes) -> None:
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, **place)
        if not place:
            axes.set_axis_off()
            axes.set_anchor("NW")

    return draw


def _slices_sheet(heading: str, mrc: MrcFile, notes: list[str]) -> Sheet:
    """Show the central slices of a volume across z, y and x, of a large one every second pixel or fewer."""
    header, sizes_A = mrc.header, mrc.header.pixel_size_xyz_A
    x, y, z = header.nx // 2, header.ny // 2, header.nz // 2
    step = math.ceil(max(header.nx, header.ny, header.nz) / _SLICE_PX)
    rows, columns = [], []
    for number in range(0, header.nz, step):
        section = mrc.read([number])[0]
        rows.append(section[y, ::step].astype(np.float64))
        columns.append(section[::step, x].astype(np.float64))
    images = {
        f"xy, z = {z} px": mrc.read([z])[0, ::step, ::step].astype(np.float64),
        f"xz, y = {y} px": np.stack(rows),
        f"yz, x = {x} px": np.stack(columns),
    }
    black, white = _contrast(np.concatenate([image.ravel() for image in images.values()]), 1, 99.8)
    unit = "px" if None in sizes_A else "Å"
    lengths = {
        axis: n if size is None or unit == "px" else n * size
        for axis, n, size in zip("xyz", (header.nx, header.ny, header.nz), sizes_A, strict=True)
    }
    panels = []
    for title, image in images.items():
        across, up = title[0], title[1]
        draw = _draw_gray(image, black, white, origin="lower", extent=(0, lengths[across], 0, lengths[up]))
        panels.append(Panel(title, labelled(draw, f"{across} ({unit})", f"{up} ({unit})")))
    notes = [*notes, "Central slices, counted from 0; one gray scale, from percentile 1 to 99.8."]
    return Sheet(heading, tuple(panels), tuple(notes), (3.4, 3.4), (0.65, 0.5, 0.15, 0.3))
