"""Coordinates in the frame of the micrographs of the program that they go to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, option
from cryobridge.report import warning

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions, Program, Target
    from cryobridge.model.particles import Locations, ParticleSet
    from cryobridge.report import Message


def in_frame_of_target(
    particles: ParticleSet, program: Program, target: Target, options: ConvertOptions, search: ImageSearch
) -> tuple[ParticleSet, list[Message]]:
    """Move coordinates from cryoSPARC's frame to RELION's, or back; other directions leave them as they are.

    Parameters
    ----------
    particles
        As they were read.
    program
        Whose files they are.
    target
        What is written.
    options
        The axis convention and the shape of the micrographs.
    search
        Where micrographs are looked for.

    Returns
    -------
    tuple
        The particles, and warnings.

    Raises
    ------
    MissingDataError
        If the size of some micrographs is not known, without which cryoSPARC's fractions say nothing.
    """
    locations = particles.locations
    if locations is None:
        return particles, []
    if program == "cryosparc":
        _require_sizes(locations, particles.source)
    if program == "cryosparc" and target == "star":
        return replace(particles, locations=to_relion(locations, options)), []
    if program != "relion" or target != "cs":
        return particles, []
    moved = _to_cryosparc(locations, options, search)
    if moved is not None:
        return replace(particles, locations=moved), []
    missing = warning(
        "micrograph-shape-missing",
        "no coordinates are written: the size of the micrographs is missing, of which they are fractions; "
        f"give {option('micrograph_shape_px', 'NY,NX')}, or {option('datadir')} where the micrographs are",
        option="micrograph_shape_px",
    )
    return replace(particles, locations=replace(locations, shape_px=None)), [missing]


def _require_sizes(locations: Locations, source: Path) -> None:
    assert locations.shape_px is not None  # cryoSPARC's always have one
    without = np.flatnonzero((locations.shape_px < 1).any(axis=1))
    if len(without):
        raise MissingDataError(
            "the micrograph's size is 0, so that the fraction on it is no place",
            path=source,
            field="location/micrograph_shape",
            rows=tuple(int(row) for row in without[:3]),
            count=len(without),
            hint="Leave these particles out with `cryobridge select` and "
            f"{option('where', 'location/micrograph_shape[0] > 0')}.",
        )


def to_relion(locations: Locations, options: ConvertOptions) -> Locations:
    """Return coordinates of cryoSPARC's micrographs as pixels of RELION's."""
    assert locations.shape_px is not None  # cryoSPARC's always have one
    shape = locations.shape_px
    fraction = locations.coordinate_px / shape[:, ::-1]
    moved = options.convention.to_px(fraction, shape)
    return replace(locations, coordinate_px=moved, image_frame_px=locations.coordinate_px)


def _to_cryosparc(locations: Locations, options: ConvertOptions, search: ImageSearch) -> Locations | None:
    """Return coordinates of RELION's micrographs as pixels of cryoSPARC's; None where their size can't be found out."""
    relion_shape = _shapes(locations, options, search)
    if relion_shape is None:
        return None
    convention = options.convention
    shape = relion_shape[:, ::-1] if convention.swap_xy else relion_shape
    fraction = convention.to_fractions(locations.coordinate_px, shape)
    return replace(locations, coordinate_px=fraction * shape[:, ::-1], shape_px=np.ascontiguousarray(shape))


def _shapes(locations: Locations, options: ConvertOptions, search: ImageSearch) -> NDArray[np.int64] | None:
    """Return ny, nx of each particle's micrograph, (n, 2): as given, or out of the headers of all micrographs."""
    codes = locations.micrograph.codes
    if options.micrograph_shape_px is not None:
        return np.tile(np.array(options.micrograph_shape_px, np.int64), (len(codes), 1))
    shapes = np.zeros((len(locations.micrograph.values), 2), np.int64)
    for code in np.unique(codes):
        header = search.header(locations.micrograph.values[int(code)])
        if header is None:
            return None
        shapes[code] = header.ny, header.nx
    found: NDArray[np.int64] = shapes[codes]
    return found
