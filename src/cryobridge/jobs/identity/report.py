"""What is reported of a comparison of two particle files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from cryobridge.jobs.identity.match import Match

_DIGITS = 4
# Of which files the particles' shifts are applied to their positions.
Shifts: TypeAlias = Literal["both", "neither", "first", "other"]


@dataclass(frozen=True)
class Matched:
    """Which particles of two files are the same.

    Parameters
    ----------
    by
        What they were compared by.
    other
        The name of the other file.
    rows, rows_left_over
        Rows of the first file that have a partner in the other, and the others.
    other_rows, other_rows_left_over
        Likewise of the other file.
    places
        More of it where they were compared by place, else None.
    """

    by: Literal["uid", "image", "place"]
    other: str
    rows: int
    rows_left_over: int
    other_rows: int
    other_rows_left_over: int
    places: MatchedPlaces | None


@dataclass(frozen=True)
class MatchedPlaces:
    """How particles were matched by micrograph and position.

    Parameters
    ----------
    within_A
        How far apart they may be.
    median_A, largest_A
        Distances of those that match.
    expected_by_chance
        How many would match if both files' positions were drawn at random.
    axes
        How positions go onto the other file's micrographs, as formulas.
    shifts
        Whose shifts were applied to the positions.
    micrographs, micrographs_left_over, other_micrographs_left_over
        Micrographs that both files have, and that only the first, and only the other has.
    """

    within_A: float
    median_A: float
    largest_A: float
    expected_by_chance: float
    axes: str
    shifts: Shifts
    micrographs: int
    micrographs_left_over: int
    other_micrographs_left_over: int


def matched(match: Match, other: str) -> Matched:
    """Return what is reported of a match with a file of the given name."""
    n_rows, n_other = (int(np.count_nonzero(rows >= 0)) for rows in (match.rows, match.other_rows))
    places = None
    if match.place is not None:
        found = match.place
        known = found.distance_A[np.isfinite(found.distance_A)]
        places = MatchedPlaces(
            round(found.within_A, _DIGITS),
            round(float(np.median(known)), _DIGITS),
            round(float(known.max()), _DIGITS),
            round(found.expected_by_chance, 1),
            found.convention.formula,
            found.shifts,
            *found.micrographs,
        )
    return Matched(match.by, other, n_rows, len(match.rows) - n_rows, n_other, len(match.other_rows) - n_other, places)
