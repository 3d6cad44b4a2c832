"""Contact sheets of stacks and central slices of volumes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cryobridge.formats.mrc import MrcFile, open_mrc
from cryobridge.formats.mrc_header import decide_kind
from cryobridge.plots.images import contact_sheet, contrast, draw_gray
from cryobridge.plots.page import Panel, Sheet, image_count, labelled, path_title

LEAST_IMAGE_PX = 24
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
    black, white = contrast(np.concatenate([image.ravel() for image in images.values()]), 1, 99.8)
    unit = "px" if None in sizes_A else "Å"
    lengths = {
        axis: n if size is None or unit == "px" else n * size
        for axis, n, size in zip("xyz", (header.nx, header.ny, header.nz), sizes_A, strict=True)
    }
    panels = []
    for title, image in images.items():
        across, up = title[0], title[1]
        draw = draw_gray(image, black, white, origin="lower", extent=(0, lengths[across], 0, lengths[up]))
        panels.append(Panel(title, labelled(draw, f"{across} ({unit})", f"{up} ({unit})")))
    notes = [*notes, "Central slices, counted from 0; one gray scale, from percentile 1 to 99.8."]
    return Sheet(heading, tuple(panels), tuple(notes), (3.4, 3.4), (0.65, 0.5, 0.15, 0.3))
