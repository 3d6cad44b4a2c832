"""Coordinates in the frame of the micrographs of the program that they go to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.formats.mrc_header import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions, Program
    from cryobridge.jobs.convert.told import Told
    from cryobridge.model.particles import Locations, ParticleSet


def placed(
    particles: ParticleSet, program: Program, options: ConvertOptions, search: ImageSearch, told: Told
) -> ParticleSet:
    """Move coordinates from cryoSPARC's frame to RELION's, or back; other directions leave them as they are.

    Parameters
    ----------
    particles
        As they were read.
    program
        Whose files they are.
    options
        The placement and the shape of the micrographs.
    search
        Where micrographs are looked for.
    told
        What is to be told is added.

    Raises
    ------
    MissingDataError
        If the size of some micrographs is not known, without which cryoSPARC's fractions say nothing.
    """
    locations = particles.locations
    if locations is None:
        return particles
    if program == "cryosparc":
        _require_sizes(locations, particles.source)
    if program == "cryosparc" and options.target == "star":
        return replace(particles, locations=to_relion(locations, options))
    if program == "relion" and options.target == "cs":
        return replace(particles, locations=_to_cryosparc(locations, options, search, told))
    return particles


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
            hint="Leave these particles out with `cryobridge select --where 'location/micrograph_shape[0] > 0'`.",
        )


def to_relion(locations: Locations, options: ConvertOptions) -> Locations:
    """Return coordinates of cryoSPARC's micrographs as pixels of RELION's."""
    assert locations.shape_px is not None  # cryoSPARC's always have one
    shape = locations.shape_px
    fraction = locations.coordinate_px / shape[:, ::-1]
    placement = options.placement
    return replace(locations, coordinate_px=placement.to_px(fraction, shape), image_frame_px=locations.coordinate_px)


def _to_cryosparc(locations: Locations, options: ConvertOptions, search: ImageSearch, told: Told) -> Locations:
    """Return coordinates of RELION's micrographs as pixels of cryoSPARC's, if their size can be found out."""
    relion_shape = _shapes(locations, options, search)
    if relion_shape is None:
        told.warnings.append(
            "no coordinates are written: the size of the micrographs is not known, of which they are to be fractions; "
            "give --micrograph-shape NY,NX, or --datadir where the micrographs are"
        )
        return replace(locations, shape_px=None)
    placement = options.placement
    shape = relion_shape[:, ::-1] if placement.swap_xy else relion_shape
    fraction = placement.to_fractions(locations.coordinate_px, shape)
    return replace(locations, coordinate_px=fraction * shape[:, ::-1], shape_px=np.ascontiguousarray(shape))


def _shapes(locations: Locations, options: ConvertOptions, search: ImageSearch) -> NDArray[np.int64] | None:
    """Return ny, nx of each particle's micrograph, (n, 2): as given, or out of the headers of all micrographs."""
    codes = locations.micrograph.codes
    if options.micrograph_shape_px is not None:
        return np.tile(np.array(options.micrograph_shape_px, np.int64), (len(codes), 1))
    shapes = np.zeros((len(locations.micrograph.values), 2), np.int64)
    for code in np.unique(codes):
        path = search.resolve(locations.micrograph.values[int(code)])
        try:
            header = None if path is None else read_header(path)
        except CryobridgeError:
            header = None
        if header is None:
            return None
        shapes[code] = header.ny, header.nx
    found: NDArray[np.int64] = shapes[codes]
    return found
