"""A STAR file for downsampled images: the file that the particles came in, with what depends on the pixel corrected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cryobridge.formats.arrow import numbers_to_arrow
from cryobridge.formats.relion.accepted import HALF_SETS, half_sets_left_out
from cryobridge.formats.relion.particles_write import image_names
from cryobridge.formats.relion.star import StarBlock, StarFile

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.model.particles import Floats, ParticleSet

# Shifts in pixels of the image, of 3.0 and older; those in Å are the same for every pixel size.
_SHIFTS_PX = tuple(f"rlnOrigin{axis}{kind}" for axis in "XYZ" for kind in ("", "Prior"))
# Where files without optics have the pixel size: in Å, or as detector pixel (µm) over magnification.
_PIXEL_SIZES = ("rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize")
_DIGITS = 9
_MAGNIFICATION = 10_000.0


def downsampled_blocks(star: StarFile, rows: Rows, particles: ParticleSet, factor: float) -> tuple[StarBlock, ...]:
    """Return the blocks of a STAR file for images whose pixels are larger by a factor.

    Every column, optics group and other block stays, except half sets with which RELION's refinement would stop. What
    changes is the image name, the pixel and image size, and shifts that are in pixels.

    Parameters
    ----------
    star
        The file.
    rows
        (n,) the rows that are written.
    particles
        (n,) the new images, and the optics groups of the file with their new pixel and image size.
    factor
        Old box over new box.
    """
    main = _renewed_main(star[star.main], rows, particles, factor, has_optics="optics" in star)
    blocks = []
    for name in star.names:
        if name == star.main:
            blocks.append(main)
        elif name == "optics":
            blocks.append(_renewed_optics(star[name], particles))
        else:
            blocks.append(star[name])
    return tuple(blocks)


def _renewed_optics(block: StarBlock, particles: ParticleSet) -> StarBlock:
    optics = particles.optics
    assert optics is not None
    table = _with_column(block.table, "rlnImagePixelSize", optics.pixel_size_A)
    table = _with_column(table, "rlnImageSize", optics.box_px)
    return StarBlock(Path(), block.name, table, is_loop=block.is_loop, comments=block.comments)


def _renewed_main(
    block: StarBlock, rows: Rows, particles: ParticleSet, factor: float, *, has_optics: bool
) -> StarBlock:
    assert particles.images is not None and particles.optics is not None
    table = block.table.take(numbers_to_arrow(rows))
    table = _with_column(table, "rlnImageName", image_names(particles.images))
    chosen = StarBlock(Path(), block.name, table)
    for name in (*_PIXEL_SIZES, *_SHIFTS_PX):
        if name in chosen:
            values = np.asarray(chosen.read([name])[name], np.float64)
            with np.errstate(over="ignore"):  # of a value that is none
                values = values * factor if name in _PIXEL_SIZES else values / factor
            table = _with_column(table, name, _rounded(values))
    if HALF_SETS in chosen and half_sets_left_out(particles.half_set):
        table = table.drop_columns([HALF_SETS])
    if "rlnImageSize" in chosen:
        table = _with_column(table, "rlnImageSize", particles.per_particle("box_px"))
    if not has_optics and not any(name in chosen for name in _PIXEL_SIZES):
        table = _with_column(table, "rlnMagnification", np.full(len(rows), _MAGNIFICATION))
        table = _with_column(
            table, "rlnDetectorPixelSize", particles.per_particle("pixel_size_A") * (_MAGNIFICATION / 1e4)
        )
    return StarBlock(Path(), block.name, table, is_loop=block.is_loop, comments=block.comments)


def _rounded(values: Floats) -> Floats:
    """Round to decimals, which values without decimals to lose would overflow by."""
    rounded = values.copy()
    has_decimals = np.abs(values) < 2**52
    rounded[has_decimals] = np.round(values[has_decimals], _DIGITS)
    return rounded


def _with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with a column replaced in its place, or added at the end."""
    column = numbers_to_arrow(values) if isinstance(values, np.ndarray) else values
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)
