"""Pictures of micrographs with the picks drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.table import Array
from cryobridge.fourier.crop import crop_images
from cryobridge.jobs.coords.plan import CoordsPlan
from cryobridge.jobs.output_folder import make_subfolder
from cryobridge.plots.coords import picks_png

# The longer side of a picture's image; Fourier cropping to it is the low pass.
_LONGER_SIDE_PX = 800


def write_previews(plan: CoordsPlan, n_micrographs: int) -> list[Path]:
    """Draw the micrographs with most picks, ``OUT/preview/<micrograph>.png``.

    Parameters
    ----------
    plan
        The picks; they are written, so that ``OUT``, its folder, is there.
    n_micrographs
        How many to draw.

    Returns
    -------
    list of pathlib.Path
        The pictures.

    Raises
    ------
    MissingDataError
        If a micrograph is not on this disk.
    """
    previewed = preview_sources(plan, n_micrographs)
    folder = plan.folder / "preview"
    make_subfolder(folder)
    written = []
    for source, rows in previewed:
        target = folder / f"{source.stem}.png"
        _draw(plan, source, plan.coordinate_px[rows], target)
        written.append(target)
    return written


def preview_sources(plan: CoordsPlan, n_micrographs: int) -> list[tuple[Path, NDArray[np.int64]]]:
    """Return the image files of the micrographs with most picks, and the rows of these.

    Raises
    ------
    MissingDataError
        If one is not on this disk.
    """
    positions = plan.positions
    return [(positions.require_file(code), rows) for code, rows in positions.busiest(n_micrographs)]


def small_image(micrograph: Array, longer_side_px: int = _LONGER_SIDE_PX) -> Array:
    """Return a micrograph (ny, nx) scaled down, and so low-passed, by Fourier cropping."""
    ny, nx = micrograph.shape
    scale = min(1.0, longer_side_px / max(ny, nx))
    size = (max(2, 2 * round(ny * scale / 2)), max(2, 2 * round(nx * scale / 2)))
    if size[0] >= ny or size[1] >= nx:
        return micrograph
    images, _ = crop_images(torch.from_numpy(np.array(micrograph, np.float32))[None], size, 1.0)
    small: Array = images[0].numpy()
    return small


def _draw(plan: CoordsPlan, source: Path, coordinate_px: Array, target: Path) -> None:
    micrograph = open_mrc(source).images[0]
    title = f"{source.name}\n{len(coordinate_px)} picks, {plan.placement.convention.formula}"
    picture = picks_png(small_image(micrograph), micrograph.shape, coordinate_px, title)
    with atomic_path(target) as temporary:
        temporary.write_bytes(picture)
