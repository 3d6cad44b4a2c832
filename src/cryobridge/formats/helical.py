"""Filaments: numbering them on their micrographs, and the direction in which each lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.model.particles import Floats, ParticleSet
from cryobridge.report import Message, warning


def number_tubes(micrograph: NDArray[np.integer[Any]], filament: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the number of each particle's filament on its micrograph, (n,), counted from 1.

    Parameters
    ----------
    micrograph
        (n,) a code of the micrograph.
    filament
        (n,) the filament's identity.
    """
    order = np.lexsort((filament, micrograph))
    other_micrograph = np.diff(micrograph[order]) != 0
    is_start = np.ones(len(order), bool)
    is_start[1:] = other_micrograph | (filament[order][1:] != filament[order][:-1])
    is_first = np.ones(len(order), bool)
    is_first[1:] = other_micrograph
    overall = np.cumsum(is_start)
    before = np.maximum.accumulate(np.where(is_first, overall - 1, 0))
    tube = np.empty(len(order), np.int64)
    tube[order] = overall - before
    return tube


def tube_codes(micrograph: NDArray[np.integer[Any]], tube: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one code for each pair of micrograph and filament, (n,), numbered from 0 without a gap."""
    distinct, number = np.unique(tube, return_inverse=True)  # as numbers whose products stay small
    pair = micrograph.astype(np.int64) * len(distinct) + number
    code: NDArray[np.int64] = np.unique(pair, return_inverse=True)[1].astype(np.int64)
    return code


def from_first_segment(position: Floats, code: NDArray[np.int64]) -> Floats:
    """Return positions (n,) counted from the first segment of each filament."""
    first = np.full(int(code.max(initial=-1)) + 1, np.inf)
    with np.errstate(invalid="ignore"):  # NaN and infinity are refused where they are written
        np.minimum.at(first, code, position)
        counted: Floats = position - first[code]
    return counted


def direction_rad(coordinate_px: Floats, position: Floats | None, code: NDArray[np.int64]) -> Floats:
    """Return the direction of each particle's filament, (n,), from x towards y.

    It is that of the line which fits the segments best, towards increasing position: half the angle of
    (Sxx - Syy, 2 Sxy), where S are the second moments about the mean. 0 for a filament of one segment.

    Parameters
    ----------
    coordinate_px
        (n, 2) x, y.
    position
        (n,) along the filament; without it the direction is one of the two.
    code
        (n,) which filament, from 0.
    """
    n_tubes = int(code.max(initial=-1)) + 1
    count = np.maximum(np.bincount(code, minlength=n_tubes), 1)

    def centred(values: Floats) -> Floats:
        about_mean: Floats = values - (np.bincount(code, values, n_tubes) / count)[code]
        return about_mean

    x, y = (centred(coordinate_px[:, axis]) for axis in (0, 1))
    xx, yy, xy = (np.bincount(code, product, n_tubes) for product in (x * x, y * y, x * y))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    if position is not None:
        along = centred(position)
        towards = np.cos(angle) * np.bincount(code, x * along, n_tubes) + np.sin(angle) * np.bincount(
            code, y * along, n_tubes
        )
        angle = np.where(towards < 0, angle - np.copysign(np.pi, angle), angle)
    direction: Floats = angle[code]
    return direction


def norm_of_filaments(particles: ParticleSet) -> list[Message]:
    """Return a warning of filaments whose images are normalised outside of a circle, which RELION does of a tube."""
    helix = particles.helix
    n_segments = 0 if helix is None else int(np.count_nonzero(helix.tube))
    who = "particles" if n_segments == len(particles) else f"{n_segments:,} of {len(particles):,} particles"
    text = f"{who} are of filaments, which reach out of the circle; RELION's Extract takes a tube for them"
    return [warning("norm-of-filaments", text, option="normalise")] if n_segments else []
