"""Other centres for particles: what their shifts say, or a place in the map that their poses lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.model.particles import Floats, ParticleSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Copies of a place that are nearer to each other are one: their coordinates can't tell them apart.
_SAME_PLACE_A = 0.01


@dataclass(frozen=True)
class Recentred:
    """Particles with their new centres.

    Attributes
    ----------
    particles
        (m,) of them; their images are those of the old centres.
    parent
        (m,) row of the particle that each is made of: all copies of one stand together.
    copy
        (m,) which copy it is, from 0.
    moved_px
        (m, 2) x, y in pixels of the micrograph that the coordinates were moved by: whole numbers.
    """

    particles: ParticleSet
    parent: NDArray[np.int64]
    copy: NDArray[np.int64]
    moved_px: Floats


@np.errstate(over="ignore", invalid="ignore")  # what is not a number is refused when it is written
def recentred(
    particles: ParticleSet,
    micrograph_pixel_size_A: Floats | float,
    center_A: Floats | None = None,
    rotations: Floats | None = None,
) -> Recentred:
    """Move the whole pixels of shifts into the coordinates, and keep the rest as shifts.

    With the pose A, the shift s and the coordinates c of a particle, and p Å a pixel of its micrograph, a place r of
    the map lies at ``c - s / p + (A r)_xy / p`` on the micrograph. The shift to that place is ``t = s - (A r)_xy``;
    ``n = t / p`` is rounded to whole pixels, halves away from zero, the new coordinates are ``c - n`` and the new shift
    ``t - n p``. Measured with ``relion_preprocess --reextract_data_star --recenter`` of RELION 3.1.3. A copy of a
    symmetric map, whose rotation is R, lies at R r, and has the pose A R in the frame of the first one.

    Parameters
    ----------
    particles
        (n,) with coordinates, and with poses that have shifts.
    micrograph_pixel_size_A
        (n,) or one value.
    center_A
        (3,) x, y, z of the new centre in the map, from the map's centre (voxel n/2, counted from 0); the map's centre
        if not given.
    rotations
        (k, 3, 3) of the copies; the identity if not given.

    Returns
    -------
    Recentred
        k rows for each particle.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cryobridge.model.particles import Labels, Locations, Poses
    >>> locations = Locations(Labels.of(["a.mrc"]), np.array([[100.0, 50.0]]))
    >>> poses = Poses(np.eye(3)[np.newaxis], np.array([[3.2, -1.0]]), "alignments3D")
    >>> found = recentred(ParticleSet(1, Path("a.star"), locations=locations, poses=poses), 1.0)
    >>> found.particles.locations.coordinate_px.tolist(), found.particles.poses.shift_A.round(3).tolist()
    ([[97.0, 51.0]], [[0.2, 0.0]])
    """
    poses, locations = particles.poses, particles.locations
    assert poses is not None and poses.shift_A is not None and locations is not None  # asked before
    center = np.zeros(3) if center_A is None else np.asarray(center_A, np.float64)
    rotations = np.eye(3)[np.newaxis] if rotations is None else rotations
    n, k = len(particles), len(rotations)
    parent, copy = np.repeat(np.arange(n), k), np.tile(np.arange(k), n)
    pixel_size_A = np.broadcast_to(np.asarray(micrograph_pixel_size_A, np.float64), (n,))[parent, np.newaxis]
    # The identity is left out, so that poses that stay are the same to the last bit.
    turned = poses.matrix if k == 1 else (poses.matrix[:, np.newaxis] @ rotations).reshape(-1, 3, 3)
    matrix = turned if center.any() or k > 1 else poses.matrix
    shift_A = poses.shift_A[parent] - (matrix @ center)[:, :2]
    moved_px = -_rounded_away(shift_A / pixel_size_A)
    copies = particles if k == 1 else particles.take(parent)
    at_px = locations.coordinate_px[parent]
    frame_px = at_px if locations.image_frame_px is None else locations.image_frame_px[parent]
    assert copies.locations is not None
    parts: dict[str, Any] = {
        "poses": replace(poses, matrix=matrix, shift_A=shift_A + moved_px * pixel_size_A),
        "locations": replace(copies.locations, coordinate_px=at_px + moved_px, image_frame_px=frame_px),
    }
    return Recentred(replace(copies, **parts), parent, copy, moved_px)


def distinct_copies(center_A: Floats, rotations: Floats) -> tuple[Floats, float]:
    """Return the rotations that take a place to different ones, and how near two of these come to each other.

    Parameters
    ----------
    center_A
        (3,) the place, from the centre of the map.
    rotations
        (k, 3, 3) of a group.

    Returns
    -------
    rotations
        (m, 3, 3) the first of those that lead to one place.
    nearest_A
        The smallest distance between two places; infinite where there is one.

    Examples
    --------
    >>> from cryobridge.model.symmetry import symmetry_rotations
    >>> kept, nearest_A = distinct_copies(np.array([0.0, 0.0, 50.0]), symmetry_rotations("D2"))
    >>> len(kept), float(nearest_A)
    (2, 100.0)
    """
    places = rotations @ np.asarray(center_A, np.float64)
    apart = np.linalg.norm(places[:, np.newaxis] - places, axis=2)
    first = (apart < _SAME_PLACE_A).argmax(axis=1)
    kept = np.unique(first)
    between = apart[np.ix_(kept, kept)]
    nearest_A = between[~np.eye(len(kept), dtype=bool)].min(initial=np.inf)
    return rotations[kept], float(nearest_A)


def _rounded_away(values: Floats) -> Floats:
    """Round to whole numbers, halves away from zero, as RELION does."""
    found: Floats = np.trunc(values + np.copysign(0.5, values)) + 0.0
    return found
