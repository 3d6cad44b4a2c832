"""In which way positions of one file are to be read, so that they fall onto those of another: a sample decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.jobs.identity.nearest import mutual_nearest, same_points

if TYPE_CHECKING:
    from cryobridge.jobs.identity.places import Places
    from cryobridge.model.convention import Convention
    from cryobridge.model.particles import Floats

Rows = NDArray[np.int64]
# Particles, of the side that has fewer, on the busiest micrographs, which decide.
_N_SAMPLED = 2000
# Pixel sizes whose ratios differ by less put a particle at one place.
_SAME_RATIO = 1e-4
# So many matches fewer are no reason to prefer one way to another whose distances are smaller.
_AS_MANY = 0.98
# A median distance that is smaller by this share, and by this many Å, is smaller.
_SMALLER, _SMALLER_A = 0.99, 0.01


@dataclass(frozen=True, eq=False)
class Side:
    """The places of a file that lie on micrographs which the other file has too.

    Parameters
    ----------
    on
        (p,) which of these micrographs, counted from 0.
    xy_px
        (p, 2) x, y in its pixels.
    shift_A
        (p, 2) or None; of several rows at one place their mean.
    pixel_size_A, guesses_A
        (k,) of the micrographs, NaN where unknown.
    shape_px
        (k, 2) ny, nx of the micrographs, NaN where unknown.
    rows
        (p,) the first row at each place.
    place
        (n,) the place of each row of the file, -1 for none.
    name, program
        The file's.
    """

    on: Rows
    xy_px: Floats
    shift_A: Floats | None
    pixel_size_A: Floats
    guesses_A: dict[str, Floats]
    shape_px: Floats
    rows: Rows
    place: Rows
    name: str
    program: str

    @property
    def box_px(self) -> Floats:
        """Where the boxes were cut, (p, 2): RELION's Extract leaves out what is behind the point of a coordinate."""
        return np.trunc(self.xy_px) if self.program == "relion" else self.xy_px

    def take(self, chosen: NDArray[np.bool_]) -> Side:
        """Return the chosen places, (p,)."""
        shift_A = None if self.shift_A is None else self.shift_A[chosen]
        rows = self.rows[chosen]
        return replace(self, on=self.on[chosen], xy_px=self.xy_px[chosen], shift_A=shift_A, rows=rows)

    def counts(self) -> Rows:
        """Return the number of places on each micrograph, (k,)."""
        return np.bincount(self.on, minlength=len(self.pixel_size_A))

    def centres_px(self, pixel_size_A: Floats, *, shifted: bool) -> Floats:
        """Return x, y (p, 2) of the particles' centres, or of the boxes' without shifts."""
        if not shifted or self.shift_A is None:
            return self.xy_px
        return self.xy_px - self.shift_A / pixel_size_A[self.on][:, np.newaxis]


def side_of(places: Places, common: Rows, n_common: int) -> Side:
    """Return a file's places on common micrographs.

    Parameters
    ----------
    places
        All of them.
    common
        The common micrograph of each of the file's micrographs by its code, -1 for none.
    n_common
        How many there are.
    """
    of_rows = common[places.micrograph.codes]
    known = np.flatnonzero((of_rows >= 0) & np.isfinite(places.coordinate_px).all(axis=1))
    first, point = same_points(places.coordinate_px[known], of_rows[known])
    rows = known[first]
    place = np.full(len(places), -1, np.int64)
    place[known] = point
    shift_A = None if places.shift_A is None else _means(places.shift_A[known], point, first)
    of_micrograph = np.full(n_common, -1, np.int64)
    of_micrograph[of_rows[known][::-1]] = known[::-1]
    shape_px: Floats = np.full((n_common, 2), np.nan)
    if places.shape_px is not None:
        shape_px = np.where(of_micrograph[:, np.newaxis] >= 0, places.shape_px[of_micrograph], np.nan)
    return Side(
        of_rows[rows],
        places.coordinate_px[rows],
        shift_A,
        _at(places.pixel_size_A, of_micrograph),
        {name: _at(guess, of_micrograph) for name, guess in places.guesses_A.items()},
        shape_px,
        rows,
        place,
        places.name,
        places.program,
    )


def _at(values: Floats, rows: Rows) -> Floats:
    """Return the values at rows, and where there is none the median of the others."""
    found = np.where(rows >= 0, values[rows], np.nan)
    known = np.isfinite(found)
    return found if known.all() or not known.any() else np.where(known, found, np.median(found[known]))


def _means(values: Floats, point: Rows, first: Rows) -> Floats:
    """Return the mean of the values (n, 2) at each point, (k, 2)."""
    if len(first) == len(values):  # no two are one point
        return values[first]
    n_rows = np.bincount(point)
    return np.column_stack([np.bincount(point, axis) / n_rows for axis in values.T])


@dataclass(frozen=True, eq=False)
class Scale:
    """The pixel sizes of both files' micrographs, (k,) each, and what is said of them."""

    first_A: Floats
    other_A: Floats
    text: str = ""

    @property
    def ratio(self) -> float:
        """Pixels of the other file's micrographs for one of the first's."""
        return float(np.median(self.first_A / self.other_A))


def scales_of(first: Side, other: Side) -> list[Scale]:
    """Return the pixel sizes that may hold, the likelier first; none where neither file nor a guess says any."""
    own, their = (bool(np.isfinite(side.pixel_size_A).all()) for side in (first, other))
    found: list[Scale] = []
    if own and their:
        found.append(Scale(first.pixel_size_A, other.pixel_size_A))
    elif their:
        found.append(Scale(other.pixel_size_A, other.pixel_size_A, _taken(first, f"that of {other.name}", other)))
    elif own:
        found.append(Scale(first.pixel_size_A, first.pixel_size_A, _taken(other, f"that of {first.name}", first)))
    found += _guessed(first, other, own=own, their=their)
    if own and their:
        text = f"positions fit where micrographs of {first.name} and {other.name} have as many pixels, although"
        sizes = f"{np.median(first.pixel_size_A):g} and {np.median(other.pixel_size_A):g} Å"
        found.append(Scale(other.pixel_size_A, other.pixel_size_A, f"{text} they say {sizes} a pixel"))
    area = [np.nanmedian(side.shape_px.prod(axis=1)) if _has_size(side).any() else np.nan for side in (first, other)]
    if found and np.isfinite(area).all():
        by = float(np.sqrt(area[1] / area[0]))
        text = f"micrographs of {first.name} and {other.name} are compared by their sizes in pixels"
        found.append(Scale(found[0].other_A * by, found[0].other_A, text))
    distinct: list[Scale] = []
    for scale in found:
        if all(abs(scale.ratio / each.ratio - 1) > _SAME_RATIO for each in distinct):
            distinct.append(scale)
    return distinct


def _guessed(first: Side, other: Side, *, own: bool, their: bool) -> list[Scale]:
    """Return the scales by what may be the pixel sizes of a file that does not say."""
    guesses, others = (
        {name: values for name, values in side.guesses_A.items() if np.isfinite(values).all()}
        for side in (first, other)
    )
    found = []
    if own and not their:
        found = [Scale(first.pixel_size_A, guess, _taken(other, name, guess)) for name, guess in others.items()]
    elif their and not own:
        found = [Scale(guess, other.pixel_size_A, _taken(first, name, guess)) for name, guess in guesses.items()]
    elif not own:
        both = f"neither {first.name} nor {other.name} says the pixel size of its micrographs: "
        found = [
            Scale(guess, guess, f"{both}{name}, {np.median(guess):g} Å, is taken for both")
            for name, guess in (*guesses.items(), *others.items())
        ]
        found += [
            Scale(guess, theirs, f"{both}{name} and {their_name} are taken")
            for (name, guess), (their_name, theirs) in product(guesses.items(), others.items())
        ]
    return found


def _taken(side: Side, what: str, size: Floats | Side) -> str:
    value = np.median(size.pixel_size_A if isinstance(size, Side) else size)
    return f"{side.name} does not say the pixel size of its micrographs: {what} is taken, {value:g} Å"


def _has_size(side: Side) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(side.shape_px).all(axis=1))


@dataclass(frozen=True, eq=False)
class Way:
    """A way of reading the positions: pixel sizes, axis convention, and whose shifts are applied."""

    scale: Scale
    convention: Convention
    shifts: tuple[bool, bool]


@dataclass(frozen=True, eq=False)
class Fit:
    """How many places have a partner in a way of reading them, and how far away in the median."""

    way: Way
    n: int
    median_A: float


def positions_A(first: Side, other: Side, way: Way) -> tuple[Floats, Floats]:
    """Return x, y of the first file's places, (p, 2), and of the other's, (q, 2), both as the other's micrographs lie.

    Those of micrographs whose size is needed and unknown are NaN.
    """
    return (
        turned_A(first, other, way, first.centres_px(way.scale.first_A, shifted=way.shifts[0])),
        other.centres_px(way.scale.other_A, shifted=way.shifts[1]) * way.scale.other_A[other.on][:, np.newaxis],
    )


def turned_A(first: Side, other: Side, way: Way, xy_px: Floats) -> Floats:
    """Return positions (p, 2) on the first file's micrographs in Å, as the other's lie."""
    convention, scale = way.convention, way.scale
    shape_px = first.shape_px
    if convention.mirror_x or convention.mirror_y:
        their = (other.shape_px[:, ::-1] if convention.swap_xy else other.shape_px) * (scale.other_A / scale.first_A)[
            :, np.newaxis
        ]
        shape_px = np.where(np.isfinite(shape_px), shape_px, their)
    else:
        shape_px = np.ones_like(shape_px)  # which no coordinate depends on
    of_rows = shape_px[first.on]
    turned = convention.to_px(xy_px / of_rows[:, ::-1], of_rows)
    return turned * scale.first_A[first.on][:, np.newaxis]


def fit(first: Side, other: Side, way: Way, within_A: float) -> Fit:
    """Return how well places fit in a way of reading them."""
    ours, theirs = positions_A(first, other, way)
    known = np.isfinite(ours).all(axis=1)
    _, _, distance_A = mutual_nearest(ours[known], first.on[known], theirs, other.on, within_A)
    return Fit(way, len(distance_A), float(np.median(distance_A)) if len(distance_A) else np.inf)


def sample(first: Side, other: Side) -> tuple[Side, Side]:
    """Return the places on the busiest micrographs: those with the most places on the side that has fewer there."""
    fewer = np.minimum(first.counts(), other.counts())
    order = np.argsort(-fewer, kind="stable")
    n_taken = int(np.searchsorted(np.cumsum(fewer[order]), _N_SAMPLED)) + 1
    chosen = np.zeros(len(fewer), bool)
    chosen[order[:n_taken]] = True
    return first.take(chosen[first.on]), other.take(chosen[other.on])


def n_possible(first: Side, other: Side) -> int:
    """Return how many places could have a partner: those of the file that has fewer, on each micrograph."""
    return int(np.minimum(first.counts(), other.counts()).sum())


def ways(scales: Sequence[Scale], conventions: Sequence[Convention], has_shifts: tuple[bool, bool]) -> list[Way]:
    """Return the ways of reading positions that are tried: with the shifts of both files, of neither, or of one."""
    shifts = [has_shifts, (False, False), (has_shifts[0], False), (False, has_shifts[1])]
    return [Way(*each) for each in product(scales, conventions, dict.fromkeys(shifts))]


def best_of(fits: Sequence[Fit], by_chance: float = 0.0) -> Fit:
    """Return the fit with the most matches; of those with as many in the same convention the one that is nearest.

    As many are those that are fewer by no more than two standard deviations of the matches by chance.
    """
    most = max(fits, key=lambda each: each.n)
    enough = min(_AS_MANY * most.n, most.n - 2 * by_chance**0.5)
    best, *others = [each for each in fits if each.way.convention == most.way.convention and each.n >= enough]
    for each in others:
        if each.median_A < min(_SMALLER * best.median_A, best.median_A - _SMALLER_A):
            best = each
    return best


def expected_by_chance(first: Side, other: Side, way: Way, within_A: float) -> float:
    """Return how many places would be each other's nearest within the limit if they were drawn at random.

    For densities a and b a pair at distance d is that with probability exp(-(a + b) π d²); the integral over d is
    a b / (a + b) (1 - exp(-(a + b) π r²)) for each unit of area.
    """
    area_A2 = _areas_A2(first, other, way)
    a, b = first.counts(), other.counts()
    both = np.maximum(a + b, 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        expected = a * b / both * -np.expm1(-both * np.pi * within_A**2 / area_A2)
    return float(np.where(a * b > 0, expected, 0).sum())


def _areas_A2(first: Side, other: Side, way: Way) -> Floats:
    """Return the area of each micrograph, (k,): by its size, or by where particles lie on all of them."""
    by_first, by_other = (
        side.shape_px.prod(axis=1) * pixel_size_A**2
        for side, pixel_size_A in ((first, way.scale.first_A), (other, way.scale.other_A))
    )
    area: Floats = np.where(np.isfinite(by_first), by_first, by_other)
    if np.isfinite(area).all():
        return area
    positions = np.concatenate(positions_A(first, other, way))
    known = positions[np.isfinite(positions).all(axis=1)]
    extent = float(np.prod(np.ptp(known, axis=0))) if len(known) else np.nan
    return np.where(np.isfinite(area), area, extent)
