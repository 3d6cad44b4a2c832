"""Which particles of two files are the same, by the micrograph and the position on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.jobs.identity.nearest import mutual_nearest
from cryobridge.jobs.identity.place_fits import (
    Fit,
    Side,
    best_of,
    expected_by_chance,
    fit,
    n_possible,
    positions_A,
    sample,
    scales_of,
    side_of,
    turned_A,
    ways,
)
from cryobridge.jobs.identity.report import Shifts
from cryobridge.jobs.micrographs.matching import pair_micrographs
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from cryobridge.model.convention import ALL_CONVENTIONS, AS_STORED, Convention
from cryobridge.report import Message, counted, note, warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryobridge.jobs.identity.places import Places
    from cryobridge.jobs.shared_options import PlaceOptions
    from cryobridge.model.particles import Floats

Rows = NDArray[np.int64]
_BOX_SHARE = 0.1
# How probable it may be that chance, or another axis convention, makes as many matches.
_BY_CHANCE = 0.01
# Another axis convention with more of the matches than this is as good.
_RIVAL_SHARE = 0.75
# Less than this share of the fewer particles, and something is amiss.
_FEW = 0.5
# With so many, no other pixel sizes are tried.
_MOST = 0.8
# Reversed micrographs match as stored around the middle line: so many of the fewer are no such thing.
_MORE_THAN_THE_MIDDLE = 0.2
_N_SHOWN = 4
_SHIFTS: dict[tuple[bool, bool], Shifts] = {
    (True, True): "both",
    (False, False): "neither",
    (True, False): "first",
    (False, True): "other",
}


class OtherPlacesError(MissingDataError):
    """Particles on the same micrographs lie elsewhere."""


@dataclass(frozen=True, eq=False)
class PlaceMatch:
    """Which row of the other file lies where each row of the first does.

    Parameters
    ----------
    rows, other_rows
        (n,) row of the other file, and (m,) row of the first, -1 where there is none. Rows at exactly one place of a
        file, as copies of a symmetry expansion are, have the same partner: the first row of its place.
    distance_A
        (n,) between the particles, NaN where there is no partner.
    offset_A
        (n, 2) x, y: position of the other's box minus that of the first's, as the other's micrographs lie, without
        shifts; RELION cuts boxes at whole pixels.
    convention
        By which positions of the first file go onto the micrographs of the other.
    shifts
        Whose shifts were applied.
    within_A
        The largest distance that was looked at.
    expected_by_chance
        How many places would have a partner if both files' were drawn at random.
    micrographs
        How many micrographs both have, and that only the first and only the other has.
    messages
        What was assumed.
    """

    rows: Rows
    other_rows: Rows
    distance_A: Floats
    offset_A: Floats
    convention: Convention
    shifts: Shifts
    within_A: float
    expected_by_chance: float
    micrographs: tuple[int, int, int]
    messages: tuple[Message, ...]


def match_places(first: Places, other: Places, options: PlaceOptions) -> PlaceMatch:
    """Find for each particle of ``first`` the one of ``other`` that lies nearest, if each is the other's nearest.

    Micrographs are matched by their names. How positions of the one file go onto micrographs of the other - the axis
    convention, whether shifts are applied, and pixel sizes that a file does not say - is what makes most of a sample
    match.

    Raises
    ------
    OtherPlacesError
        If no more particles match than chance makes match.
    MissingDataError
        If something is not known that is needed.
    CryobridgeError
        If axis conventions fit equally well.
    OrientationError
        If another axis convention fits than the one that is set by hand.
    """
    ours, theirs, micrographs, messages = _sides(first, other)
    within_A = options.within_A or _within_A(first, other)
    found, more = _choose(ours, theirs, first, other, within_A, options)
    messages += more
    if found.way.convention.mirror_x or found.way.convention.mirror_y:
        ours, theirs = _with_sizes(ours, theirs, first, other)
    match = _matched(ours, theirs, found, within_A, micrographs)
    messages += _said(match, found, ours, theirs)
    return replace(match, messages=tuple(messages))


def _sides(first: Places, other: Places) -> tuple[Side, Side, tuple[int, int, int], list[Message]]:
    """Return the places on micrographs that both files have, and how many these are and the others."""
    used = [side.micrograph.without_unused() for side in (first, other)]
    pairs = pair_micrographs(used[0].values, used[1].values)
    if not pairs.other:
        raise MissingDataError(
            f"no particle of {other.name} is known in it: neither uids nor images are the same, and none of its "
            f"micrographs, such as {used[0].values[0]}, is among those of {other.name}, such as {used[1].values[0]}",
            hint=_same_data(),
        )
    names = list(pairs.other.items())
    common = [{name: place for place, name in enumerate(each)} for each in zip(*names, strict=True)]
    sides = [
        side_of(each, np.array([place.get(name, -1) for name in each.micrograph.values], np.int64), len(names))
        for each, place in zip((first, other), common, strict=True)
    ]
    messages = []
    n_ambiguous = len(pairs.several) + len(pairs.shared)
    if n_ambiguous:
        name, fitting = next(iter({**pairs.several, **pairs.shared}.items()))
        text = (
            f"{counted(n_ambiguous, 'name of a micrograph fits', 'names of micrographs fit')} several, such as "
            f"{name}: {', '.join(fitting[:_N_SHOWN])}"
        )
        messages.append(warning("micrographs-ambiguous", f"{text}; their particles have no partner"))
    counts = (len(names), len(used[0].values) - len(names), len(used[1].values) - len(names))
    return sides[0], sides[1], counts, messages


def _within_A(first: Places, other: Places) -> float:
    boxes = [side.box_A for side in (first, other) if np.isfinite(side.box_A)]
    if not boxes:
        raise MissingDataError(
            f"how far apart positions may be is not known: neither {first.name} nor {other.name} says its box",
            hint=f"Give {option('within_A', 10)}, in Å.",
        )
    return _BOX_SHARE * min(boxes)


def _by_hand(first: Places, other: Places, options: PlaceOptions) -> Convention | None:
    """Return the axis convention that is set by hand, from the first file to the other; it is from cryoSPARC's."""
    by_hand = options.by_hand
    return by_hand.inverse if by_hand and other.program == "cryosparc" != first.program else by_hand


@dataclass(frozen=True, eq=False)
class _Sample:
    """Some places of both files, by which the way of reading them is chosen."""

    ours: Side
    theirs: Side
    within_A: float

    @property
    def n_possible(self) -> int:
        """The number of places of the file that has fewer, on each micrograph."""
        return n_possible(self.ours, self.theirs)

    def expected(self, found: Fit) -> float:
        """Return how many matches chance alone makes."""
        return expected_by_chance(self.ours, self.theirs, found.way, self.within_A)

    def is_match(self, found: Fit, n_tried: int) -> bool:
        """Whether chance would hardly make as many matches in any of the ways that were tried."""
        return _at_least(found.n, self.n_possible, self.expected(found)) * n_tried < _BY_CHANCE

    def is_too_small(self, found: Fit, n_tried: int) -> bool:
        """Whether particles match, and chance could make as many even if all did."""
        n = self.n_possible
        return found.n > 0 and not self.is_match(replace(found, n=n), n_tried)

    def has_rivals(self, best: Fit, fits: Sequence[Fit]) -> bool:
        """Whether another axis convention is about as good."""
        most = max((each.n for each in fits if each.way.convention != best.way.convention), default=0)
        by_rival = _at_least(best.n, self.n_possible, max(most, self.expected(best)))
        return most > _RIVAL_SHARE * best.n or by_rival > _BY_CHANCE


def _choose(
    ours: Side, theirs: Side, first: Places, other: Places, within_A: float, options: PlaceOptions
) -> tuple[Fit, list[Message]]:
    """Return the way of reading positions that fits best, by a sample."""
    by_hand = _by_hand(first, other, options)
    chosen, conventions, messages = _sample_with_sizes(ours, theirs, first, other, within_A, by_hand)
    scales = scales_of(ours, theirs)
    if not scales:
        raise MissingDataError(
            f"the pixel size of the micrographs is not known: neither {first.name} nor {other.name} says it",
            hint="Give files that have rlnMicrographPixelSize or location/micrograph_psize_A, or the particles' pixel "
            "size.",
        )
    has_shifts = (ours.shift_A is not None, theirs.shift_A is not None)
    fits: list[Fit] = []
    for scale in scales:  # the likelier first: others are looked at where few match
        tried = ways([scale], conventions, has_shifts)
        fits += [fit(chosen.ours, chosen.theirs, way, within_A) for way in tried]
        best = best_of(fits, chosen.expected(fits[0]))
        is_match, is_clear = chosen.is_match(best, len(fits)), not chosen.has_rivals(best, fits)
        if is_match and is_clear and best.n >= _MOST * chosen.n_possible:
            break
    if by_hand is not None:
        by_chance = chosen.expected(fits[0])
        wanted = best_of([each for each in fits if each.way.convention == by_hand], by_chance)
        if is_match and is_clear and best.way.convention != by_hand and not options.force:
            raise _contradicted(wanted, best, options)
        return wanted, [*messages, *_as_set_by_hand(wanted, chosen)]
    is_few = len(conventions) == 1 and best.n < _MORE_THAN_THE_MIDDLE * chosen.n_possible
    if is_few or not is_match:
        raise _too_few(best, chosen) if chosen.is_too_small(best, len(fits)) else _not_the_same(best, chosen)
    if not is_clear:
        raise _unclear(best, fits, first, other)
    return best, messages


def _sample_with_sizes(
    ours: Side, theirs: Side, first: Places, other: Places, within_A: float, by_hand: Convention | None
) -> tuple[_Sample, tuple[Convention, ...], list[Message]]:
    """Return a sample, the axis conventions that can be tried on it, and what is said of these."""
    sides = sample(ours, theirs)
    if not _sizes_are_known(*sides):
        sides = _with_sizes(*sides, first, other)
    conventions, messages = ALL_CONVENTIONS, []
    if not _sizes_are_known(*sides):
        if by_hand is not None and by_hand != AS_STORED:
            raise MissingDataError(
                f"the size of the micrographs is not known, so that none can be counted from the other edge: neither "
                f"{first.name} nor {other.name} has it, and the files are not on this disk",
                hint="Run it where the micrographs are.",
            )
        conventions = (AS_STORED,)
        text = f"positions are compared as stored alone: the micrographs' size, which {first.name} and {other.name} "
        messages = [note("micrographs-as-stored", f"{text}lack, is needed to reverse them")]
    # Rows that are reversed are counted from the last one.
    return _Sample(*sides, within_A), tuple(replace(each, is_exact=True) for each in conventions), messages


def _contradicted(wanted: Fit, best: Fit, options: PlaceOptions) -> OrientationError:
    return OrientationError(
        f"{counted(wanted.n, 'particle matches', 'particles match')} with the axes that are "
        f"set by hand, {best.n:,} with "
        f"{best.way.convention.formula}",
        hint=f"Leave {' and '.join(map(option, options.given_by_hand))} out, or give {option('force', True)}.",
    )


def _as_set_by_hand(wanted: Fit, chosen: _Sample) -> list[Message]:
    """Return a warning where chance makes as many matches in the axis convention that is set by hand."""
    if wanted.n == 0:
        raise _not_the_same(wanted, chosen)
    if chosen.is_match(wanted, 1):
        return []
    text = f"{wanted.n:,} of the particles in a sample match, and chance alone would make {chosen.expected(wanted):.3g}"
    return [warning("matches-by-chance", f"{text}: check that these are the same")]


def _at_least(found: int, n: int, expected: float) -> float:
    """Return the probability of so many of n or more, where so many are expected: the tail of a binomial."""
    from scipy.special import betainc

    if found == 0 or expected >= n:
        return 1.0
    return float(betainc(found, n - found + 1, expected / n)) if found <= n else 0.0


def _with_sizes(ours: Side, theirs: Side, first: Places, other: Places) -> tuple[Side, Side]:
    """Return the sides with the sizes of micrographs by their headers, where neither file says them."""
    unknown = np.unique(ours.on[~_known_sizes(ours, theirs)[ours.on]])
    if not len(unknown):
        return ours, theirs
    shapes = []
    for side, places in ((ours, first), (theirs, other)):
        shape_px = side.shape_px.copy()
        for micrograph, row in zip(*np.unique(side.on, return_index=True), strict=True):
            if micrograph in unknown:
                found = places.header_shape(places.micrograph[int(side.rows[row])])
                if found is None:
                    break  # the others are not there either
                shape_px[micrograph] = found
        shapes.append(shape_px)
    return replace(ours, shape_px=shapes[0]), replace(theirs, shape_px=shapes[1])


def _known_sizes(ours: Side, theirs: Side) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(ours.shape_px).all(axis=1) | np.isfinite(theirs.shape_px).all(axis=1))


def _sizes_are_known(ours: Side, theirs: Side) -> bool:
    return bool(_known_sizes(ours, theirs)[np.intersect1d(ours.on, theirs.on)].all())


def _matched(ours: Side, theirs: Side, found: Fit, within_A: float, micrographs: tuple[int, int, int]) -> PlaceMatch:
    """Match all places in one way of reading them."""
    way = found.way
    positions, their_positions = positions_A(ours, theirs, way)
    known = np.flatnonzero(np.isfinite(positions).all(axis=1))
    own, other, distance_A = mutual_nearest(positions[known], ours.on[known], their_positions, theirs.on, within_A)
    own = known[own]
    boxes = turned_A(ours, theirs, way, ours.box_px)
    their_boxes = theirs.box_px * way.scale.other_A[theirs.on][:, np.newaxis]
    # A place more, the last, for rows that are on none.
    distance, offset = np.full(len(ours.rows) + 1, np.nan), np.full((len(ours.rows) + 1, 2), np.nan)
    distance[own], offset[own] = distance_A, their_boxes[other] - boxes[own]
    partner, their_partner = (np.full(len(side.rows) + 1, -1, np.int64) for side in (ours, theirs))
    partner[own], their_partner[other] = theirs.rows[other], ours.rows[own]
    return PlaceMatch(
        partner[ours.place],
        their_partner[theirs.place],
        distance[ours.place],
        offset[ours.place],
        way.convention,
        _SHIFTS[way.shifts],
        within_A,
        expected_by_chance(ours, theirs, way, within_A),
        micrographs,
        (),
    )


def _said(match: PlaceMatch, found: Fit, ours: Side, theirs: Side) -> list[Message]:
    """Return what was assumed in matching, and what looks amiss."""
    messages = []
    if found.way.scale.text:
        messages.append(note("micrograph-pixel-size-assumed", found.way.scale.text))
    if match.convention != AS_STORED:
        text = f"positions of {ours.name} lie on micrographs of {theirs.name} with {match.convention.words}"
        messages.append(note("micrographs-turned", text, option="orientation"))
    applied = {
        "both": "with the shifts of both files",
        "neither": "without the particles' shifts",
        "first": f"with the shifts of {ours.name} alone",
        "other": f"with the shifts of {theirs.name} alone",
    }
    if ours.shift_A is not None or theirs.shift_A is not None:
        text = f"positions are compared {applied[match.shifts]}, which fits best"
        messages.append(note("shifts-applied", text))
    n_places = int(np.count_nonzero(match.distance_A[ours.rows] >= 0))
    n_most = n_possible(ours, theirs)
    if n_places < _FEW * n_most:
        text = (
            f"only {n_places:,} of {counted(n_most, 'particle')} on the same micrographs "
            f"{'has' if n_places == 1 else 'have'} a partner within"
        )
        text = f"{text} {match.within_A:.3g} Å, half of them within {found.median_A:.3g} Å"
        hint = f"{option('within_A')} sets the limit"
        messages.append(warning("few-particles-match", f"{text}; {hint}", option="within_A"))
    return messages


def _not_the_same(best: Fit, chosen: _Sample) -> OtherPlacesError:
    return OtherPlacesError(
        f"no particle of {chosen.theirs.name} is known in it: neither uids nor images are the same, and by place "
        f"{best.n:,} of {counted(chosen.n_possible, 'particle')} of {chosen.ours.name} on the "
        "busiest common micrographs lie "
        f"within {chosen.within_A:.3g} Å of one, where chance alone makes {chosen.expected(best):.3g}",
        count=best.n,
        hint=f"{_same_data()} {option('within_A')} sets how far apart positions may be.",
    )


def _too_few(best: Fit, chosen: _Sample) -> OtherPlacesError:
    few = "1 particle is" if chosen.n_possible == 1 else f"{counted(chosen.n_possible, 'particle')} are"
    return OtherPlacesError(
        f"neither uids nor images are the same as in {chosen.theirs.name}, and {few} too few to find out by place how "
        "the micrographs lie: chance could make as many match in one of the ways that are tried",
        count=best.n,
        hint=f"Say which way they lie: {option('orientation', 'reliosparc')} for rows counted from the other edge, or "
        f"{option('orientation', 'stored')}.",
    )


def _unclear(best: Fit, fits: Sequence[Fit], first: Places, other: Places) -> CryobridgeError:
    counts: dict[Convention, int] = {}
    for each in fits:
        counts[each.way.convention] = max(each.n, counts.get(each.way.convention, 0))
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = "; ".join(f"{n:,} with {convention.formula}" for convention, n in ordered)
    return CryobridgeError(
        f"which way micrographs of {first.name} lie on those of {other.name} is not clear; matches are {shown}",
        count=best.n,
        hint=f"Set it by hand: {option('orientation', 'stored')}, {option('orientation', 'reliosparc')}, or "
        f"{option('flip_x', True)}, {option('flip_y', True)} and {option('swap_xy', True)}.",
    )


def _same_data() -> str:
    return "Check that both are of one data set."
