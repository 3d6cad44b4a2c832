"""Which particles of two files are the same, by the micrograph and the position on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.micrographs.matching import match_micrographs
from cryobridge.jobs.shared_options import PlaceOptions
from cryobridge.model.convention import AS_STORED, Convention

if TYPE_CHECKING:
    from cryobridge.model.particles import Floats, Labels, ParticleSet

Rows = NDArray[np.int64]
_BOX_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Places:
    """Where particles lie.

    Parameters
    ----------
    micrograph
        Their micrographs, (n,).
    position_A
        (n, 2) x, y of the box's centre on the micrograph.
    box_A
        The box's edge; NaN where it is unknown.
    shift_A
        (n, 2) what is subtracted to find the particle's centre; None where the file lacks it.
    """

    micrograph: Labels
    position_A: Floats
    box_A: float
    shift_A: Floats | None

    def __len__(self) -> int:
        return len(self.position_A)


@dataclass(frozen=True, eq=False)
class PlaceMatch:
    """Which row of the other file lies where each row of the first does.

    Parameters
    ----------
    rows
        (n,) -1 where none does.
    distance_A, offset_A
        See `cryobridge.jobs.identity.match.Match`.
    convention
        By which positions of the first file go onto the micrographs of the other.
    """

    rows: Rows
    distance_A: Floats
    offset_A: Floats
    convention: Convention


def places_of(particles: ParticleSet) -> Places | None:
    """Return where particles lie, or None where that is not known."""
    locations, optics, index = particles.locations, particles.optics, particles.optics_index
    if locations is None or optics is None or index is None or len(particles) == 0:
        return None
    pixel_size_A = optics.micrograph_pixel_size_A
    pixel_size_A = optics.pixel_size_A if pixel_size_A is None else pixel_size_A
    shift_A = None if particles.poses is None else particles.poses.shift_A
    box_A = float(np.median((optics.box_px * optics.pixel_size_A)[index]))
    position_A = locations.coordinate_px * pixel_size_A[index][:, np.newaxis]
    return Places(locations.micrograph, position_A, box_A, shift_A)


def match_places(first: Places, other: Places, options: PlaceOptions) -> PlaceMatch:
    """Find for each particle of ``first`` the one of ``other`` that lies nearest, if each is the other's nearest."""
    from scipy.spatial import cKDTree

    within_A = options.within_A or _BOX_SHARE * min(first.box_A, other.box_A)
    rows, distance_A = np.full(len(first), -1, np.int64), np.full(len(first), np.nan)
    both = first.shift_A is not None and other.shift_A is not None
    own, their = (
        side.position_A - side.shift_A if both and side.shift_A is not None else side.position_A
        for side in (first, other)
    )
    paired = match_micrographs(first.micrograph.values, other.micrograph.values).relion_name
    code_of = {name: code for code, name in enumerate(other.micrograph.values)}
    for code, name in enumerate(first.micrograph.values):
        ours = np.flatnonzero(first.micrograph.codes == code)
        theirs = np.flatnonzero(other.micrograph.codes == code_of.get(paired.get(name, ""), -1))
        if len(ours) and len(theirs):
            distance, nearest = map(np.asarray, cKDTree(their[theirs]).query(own[ours], distance_upper_bound=within_A))
            back = np.asarray(cKDTree(own[ours]).query(their[theirs], distance_upper_bound=within_A)[1])
            is_found = np.flatnonzero(np.isfinite(distance))
            is_found = is_found[back[nearest[is_found]] == is_found]
            rows[ours[is_found]] = theirs[nearest[is_found]]
            distance_A[ours[is_found]] = distance[is_found]
    offset_A = np.where((rows >= 0)[:, np.newaxis], other.position_A[rows] - first.position_A, np.nan)
    return PlaceMatch(rows, distance_A, offset_A, AS_STORED)
