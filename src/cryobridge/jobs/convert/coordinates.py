"""Coordinates, which belong to the micrograph that is named in the same row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.image_search import asking_for
from cryobridge.report import warning

if TYPE_CHECKING:
    from pathlib import Path

    from cryobridge.formats.image_search import ImageSearch
    from cryobridge.jobs.convert.options import ConvertOptions, Program, Target
    from cryobridge.model.particles import Locations, ParticleSet
    from cryobridge.report import Message


def with_sizes_of_micrographs(
    particles: ParticleSet, program: Program, target: Target, options: ConvertOptions, search: ImageSearch
) -> tuple[ParticleSet, list[Message]]:
    """Give coordinates the size of their micrographs, of which cryoSPARC's are fractions.

    They are the same in both programs: both count the stored rows and columns of the file that is named.

    Parameters
    ----------
    particles
        As they were read.
    program
        Whose files they are.
    target
        What is written.
    options
        The shape of the micrographs.
    search
        Where micrographs are looked for.

    Returns
    -------
    tuple
        The particles, and warnings.

    Raises
    ------
    MissingDataError
        If the size of some of cryoSPARC's micrographs is 0.
    """
    locations = particles.locations
    if locations is None:
        return particles, []
    if program == "cryosparc":
        _require_sizes(locations, particles.source)
    if program != "relion" or target != "cs":
        return particles, []
    shape_px = _shapes(locations, options, search)
    sized = replace(particles, locations=replace(locations, shape_px=shape_px))
    if shape_px is not None or options.micrographs is not None:
        return sized, []
    missing = warning(
        "micrograph-shape-missing",
        "no coordinates are written, as the size of the micrographs is not known: "
        f"give {option('micrograph_shape_px', 'NY,NX')}, or {asking_for_micrographs(particles, search)}",
        option="micrograph_shape_px",
    )
    return sized, [missing]


def asking_for_micrographs(particles: ParticleSet, search: ImageSearch) -> str:
    """Return how to say where the micrographs of particles are (`cryobridge.formats.image_search.asking_for`)."""
    locations = particles.locations
    return asking_for("micrographs", () if locations is None else locations.micrograph.values, search)


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


def _shapes(locations: Locations, options: ConvertOptions, search: ImageSearch) -> NDArray[np.int64] | None:
    """Return ny, nx of each particle's micrograph, (n, 2): as given, or out of the headers of all micrographs."""
    codes = locations.micrograph.codes
    if options.micrograph_shape_px is not None:
        return np.tile(np.array(options.micrograph_shape_px, np.int64), (len(codes), 1))
    search = search.among(locations.micrograph.values)
    shapes = np.zeros((len(locations.micrograph.values), 2), np.int64)
    for code in np.unique(codes):
        header = search.header(locations.micrograph.values[int(code)])
        if header is None:
            return None
        shapes[code] = header.ny, header.nx
    found: NDArray[np.int64] = shapes[codes]
    return found
