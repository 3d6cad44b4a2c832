"""Particles that were picked more than once: of those that lie nearer than a limit the best one stays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.errors import MissingDataError, option
from cryobridge.formats.ranking import ranking_of
from cryobridge.jobs.identity.places import Places, places_of
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.model.particles import Floats

# Positions come from fractions and pixel sizes: at the limit is what rounding can't tell from it.
_ROUNDING = 1e-10
# What a file may say instead of the pixel size of its micrographs (`Places.guesses_A`), the likelier one first.
_TAKEN = ("the pixel size of the movies", "the pixel size of the images")
# Above this on one micrograph, the pairs within a wide limit may be more than memory holds.
_MOST_FOR_PAIRS = 20_000


@dataclass(frozen=True, eq=False)
class Deduped:
    """Which rows stay.

    Attributes
    ----------
    kept
        (n,) whether a row stays; rows that were not looked at don't.
    ranked_by
        The column that decided which is the best; empty where none says.
    messages
        By what they were ranked, and what could not be compared.
    """

    kept: NDArray[np.bool_]
    ranked_by: str
    messages: tuple[Message, ...]


def deduped(particles: ParticleFiles, among: NDArray[np.bool_], limit_A: float) -> Deduped:
    """Leave out particles that lie nearer than a limit to a better one on the same micrograph.

    From the best particle down (`cryobridge.formats.ranking.ranking_of`; of equal ones the first row), a particle stays
    if none that stays is nearer than the limit. A particle lies where its coordinates are, less its shift. Micrographs
    are the same if their names are. Symmetry-expanded copies lie in one place, and are duplicates like any others.

    Parameters
    ----------
    particles
        The files.
    among
        (n,) the rows that are looked at.
    limit_A
        The limit.

    Raises
    ------
    MissingDataError
        If the files don't say where particles lie.
    """
    places = places_of(particles)
    if places is None and among.any():
        raise MissingDataError(
            "it does not say where particles lie on micrographs",
            path=particles.metadata,
            hint=f"Leave {option('dedupe_A')} out, or give particles with coordinates; a .cs file has them in its "
            "passthrough file.",
        )
    ranking = ranking_of(particles)
    if places is None:
        return Deduped(among, ranking.column, ())
    pixel_size_A, messages = _pixel_sizes(places)
    position_A = places.coordinate_px * pixel_size_A[:, np.newaxis]
    position_A = position_A if places.shift_A is None else position_A - places.shift_A
    is_known = np.isfinite(position_A).all(axis=1)
    kept = among.copy()
    rows = np.flatnonzero(among & is_known)
    kept[rows] = apart(places.micrograph.codes[rows], position_A[rows], ranking.score[rows], limit_A)
    messages.append(ranking.message)
    n_unknown = int(np.count_nonzero(among & ~is_known))
    if n_unknown:
        text = f"{counted(n_unknown, 'particle stays', 'particles stay')} without a position in numbers"
        messages.append(note("position-not-known", text, option="dedupe_A"))
    return Deduped(kept, ranking.column, tuple(messages))


def _pixel_sizes(places: Places) -> tuple[Floats, list[Message]]:
    """Return the pixel size of each particle's micrograph, (n,), and a warning where it is a guess."""
    pixel_size_A, messages = places.pixel_size_A, []
    for what, guess_A in places.guesses_A.items():
        is_unknown = np.isnan(pixel_size_A)
        if what in _TAKEN and (is_unknown & ~np.isnan(guess_A)).any():
            text = (
                f"{places.name} does not say the pixel size of its micrographs: {what}, "
                f"{guess_A[is_unknown][0]:.4g} Å, is taken"
            )
            messages.append(warning("micrograph-pixel-size-assumed", text, option="dedupe_A"))
            pixel_size_A = np.where(is_unknown, guess_A, pixel_size_A)
    return pixel_size_A, messages


def apart(micrograph: NDArray[np.int32], position_A: Floats, score: Floats, limit_A: float) -> NDArray[np.bool_]:
    """Return which particles stay, (n,), of those at ``position_A`` (n, 2) on their micrographs (n,).

    Parameters
    ----------
    micrograph
        A number of the micrograph.
    score
        (n,) the higher the better; of equal ones the first stays.
    limit_A
        Particles at this distance both stay.
    """
    order = np.lexsort((-score, micrograph))  # stable: of equal ones the first row comes first
    order = order[_first_in_place(micrograph[order], position_A[order])]
    kept = np.zeros(len(score), bool)
    bounds = np.flatnonzero(np.diff(micrograph[order], prepend=-1, append=-1))
    for start, stop in pairwise(bounds.tolist()):
        rows = order[start:stop]
        stays = np.ones(len(rows), bool)
        if len(rows) > 1:
            look = _far if len(rows) > _MOST_FOR_PAIRS else _near
            look(position_A[rows], limit_A * (1 - _ROUNDING), stays)
        kept[rows[stays]] = True
    return kept


def _first_in_place(micrograph: NDArray[np.int32], position_A: Floats) -> NDArray[np.bool_]:
    """Return which rows, (n,), are the first of those in one place: no other stays, and it goes if any of them goes."""
    order = np.lexsort((position_A[:, 1], position_A[:, 0], micrograph))
    same = (np.diff(micrograph[order]) == 0) & (np.diff(position_A[order], axis=0) == 0).all(axis=1)
    is_first = np.ones(len(micrograph), bool)
    is_first[order[1:][same]] = False
    return is_first


def _near(points: Floats, limit_A: float, stays: NDArray[np.bool_]) -> None:
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(limit_A, output_type="ndarray")
    pairs = pairs[np.hypot(*(points[pairs[:, 0]] - points[pairs[:, 1]]).T) < limit_A]
    # The first of a pair is the better one. Those that are in no pair as the worse one stay, and their partners go.
    while len(pairs):
        has_better = np.zeros(len(points), bool)
        has_better[pairs[:, 1]] = True
        stays[pairs[~has_better[pairs[:, 0]], 1]] = False
        pairs = pairs[stays[pairs].all(axis=1)]


def _far(points: Floats, limit_A: float, stays: NDArray[np.bool_]) -> None:
    """Do the same with the neighbours of one point in memory at a time, of those that stay."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    for one in range(len(points)):
        if stays[one]:
            near = np.array(tree.query_ball_point(points[one], limit_A), np.int64)
            near = near[(near > one) & (np.hypot(*(points[near] - points[one]).T) < limit_A)]
            stays[near] = False
