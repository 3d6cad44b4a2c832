"""Which columns hold the coordinates: found by name, else inferred from position and content.

cryoSPARC versions order the location fields differently, and tables that went through other programs may have lost
the names. Nothing is inferred in silence: what was looked at, and why a column was taken, is part of the result.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import CryobridgeError, MissingDataError, option
from cryobridge.model.particles import Labels
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cryobridge.formats.table import Array, Column, Table

NAMES = (
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/center_x_frac",
    "location/center_y_frac",
)
# A micrograph is larger than this along both axes; a box of particles may be too, but no fractions follow it.
_SMALLEST_MICROGRAPH_PX = 100
# How many columns after the shape are looked at: pixel size, minimum distance and the two fractions.
_REACH = 8
# Rows that the guess looks at; spread over the file.
_SAMPLED_ROWS = 100_000
# Fractions spread over the micrograph and hardly repeat; a pixel size or a distance has a few values.
_LEAST_SPREAD = 0.2
_LEAST_DISTINCT = 0.02
# How far most fractions of picks on whole micrographs lie apart.
_WHOLE_SPREAD = 0.85
# Picks of a small file may lie close together: a column with this share of the distinct values of those that are
# taken is no pixel size either.
_RIVAL_SHARE = 0.5


@dataclass(frozen=True)
class Candidate:
    """A column that was looked at.

    Parameters
    ----------
    name, position
        Its name, and its place in the row from 0.
    minimum, maximum, distinct
        Of the rows that were looked at.
    verdict
        What it looks like.
    is_fraction
        Whether it varies within 0 and 1, as the fractions do.
    is_taken
        Whether it is one of the two fractions.
    spread
        How far most of its values lie apart.
    """

    name: str
    position: int
    minimum: float
    maximum: float
    distinct: int
    verdict: str
    is_fraction: bool
    is_taken: bool = False
    spread: float = 0.0


@dataclass(frozen=True)
class CoordinateFields:
    """The columns that hold the coordinates, and how they were found.

    Parameters
    ----------
    path, shape, x, y
        Names of the columns.
    found_by
        ``name``, ``content`` (inferred) or ``position`` (the two floats right after the shape).
    candidates
        What was looked at, where they are inferred.
    rivals
        Other columns that may be those of the coordinates, where they are inferred; the likelier first.
    """

    path: str
    shape: str
    x: str
    y: str
    found_by: Literal["name", "content", "position"]
    candidates: tuple[Candidate, ...] = ()
    rivals: tuple[CoordinateFields, ...] = ()

    @property
    def names(self) -> tuple[str, str, str, str]:
        """The four columns: path, shape, x, y."""
        return (self.path, self.shape, self.x, self.y)


def locate_coordinates(
    table: Table, *, infer: bool = True, xy_fields: tuple[str, str] | None = None
) -> CoordinateFields:
    """Find the columns that hold micrograph, its shape, and the fractions.

    Parameters
    ----------
    table
        A cryoSPARC table.
    infer
        Where the names are not there, infer the columns from their content. False takes the two floats right after the
        shape.
    xy_fields
        The names of the two fractions, where they are given.

    Raises
    ------
    MissingDataError
        If the table has no coordinates, by name or by content.
    CryobridgeError
        If no two neighbours look like fractions; the candidates are listed.
    """
    if xy_fields is not None:
        return _as_given(table, xy_fields)
    if all(name in table for name in NAMES):
        return CoordinateFields(*NAMES, found_by="name")
    places = [place for place in _shapes(table) if _floats_after(table, place)]
    if not places:
        raise MissingDataError(
            f"no coordinates: {', '.join(name for name in NAMES if name not in table)} are missing",
            path=table.path,
            hint="Give a file that has location/*: a passthrough file, extracted_particles.cs or picked_particles.cs.",
        )
    return _inferred(table, places) if infer else _at_usual_position(table, places)


def _as_given(table: Table, xy_fields: tuple[str, str]) -> CoordinateFields:
    absent = [name for name in xy_fields if name not in table]
    if absent:
        raise MissingDataError(
            f"no column {absent[0]}", path=table.path, hint=f"Its columns are {', '.join(table.names[:12])} …"
        )
    if NAMES[0] in table and NAMES[1] in table:
        return CoordinateFields(*NAMES[:2], *xy_fields, found_by="name")
    # The nearest before them: a particle file may have the shape of its images too.
    before = [place for place in _shapes(table) if place < table.names.index(xy_fields[0])]
    if not before:
        raise MissingDataError(
            f"no path and shape of a micrograph stand before {xy_fields[0]}",
            path=table.path,
            hint=f"{NAMES[0]} and {NAMES[1]} are needed too.",
        )
    path, shape = table.columns[before[-1] - 1].name, table.columns[before[-1]].name
    return CoordinateFields(path, shape, *xy_fields, found_by="name")


def _shapes(table: Table) -> list[int]:
    """Return the places of pairs of integers above 100 that follow a column of paths."""
    columns = table.columns
    return [
        place
        for place in range(1, len(columns))
        if columns[place].shape == (2,)
        and columns[place].dtype[0] in "iu"
        and not columns[place].name.endswith("blob/shape")
        and columns[place - 1].is_text
        and _looks_like_paths(table, columns[place - 1])
        and bool((_sample(table, columns[place]) > _SMALLEST_MICROGRAPH_PX).all())
    ]


def _looks_like_paths(table: Table, column: Column) -> bool:
    labels = table.read([column.name], slice(0, 1))[column.name]
    return isinstance(labels, Labels) and len(labels) > 0 and "." in labels[0].rsplit("/", 1)[-1]


def _floats_after(table: Table, place: int) -> list[tuple[int, Column]]:
    """Return the floats that follow a shape, with their places; what follows another text is of something else."""
    following = itertools.takewhile(
        lambda item: not item[1].is_text, enumerate(table.columns[place + 1 : place + 1 + _REACH], place + 1)
    )
    return [(position, column) for position, column in following if column.shape == () and column.dtype[0] == "f"]


def _at_usual_position(table: Table, places: list[int]) -> CoordinateFields:
    """Take the two floats right after the shape, whatever they hold.

    Raises
    ------
    CryobridgeError
        If there are none, or several shapes have them.
    """
    following = {place: _floats_after(table, place)[:2] for place in places}
    readings = [
        _fields(table, place, floats[0][1].name, floats[1][1].name, "position")
        for place, floats in following.items()
        if len(floats) == 2
    ]
    if len(readings) == 1:
        return readings[0]
    if not readings:
        raise MissingDataError(
            "no two numbers follow the shape of the micrograph",
            path=table.path,
            hint="Give a file that has location/*: a passthrough file, extracted_particles.cs or picked_particles.cs.",
        )
    raise CryobridgeError(
        f"the coordinates may be in several places: {'; '.join(f'{r.x} and {r.y} after {r.shape}' for r in readings)}",
        path=table.path,
        hint=f"Name the two columns, for example {option('xy_fields', f'{readings[0].x},{readings[0].y}')}.",
    )


def _fields(
    table: Table, place: int, x: str, y: str, found_by: Literal["content", "position"], **more: Any
) -> CoordinateFields:
    return CoordinateFields(table.columns[place - 1].name, table.columns[place].name, x, y, found_by, **more)


def _inferred(table: Table, places: list[int]) -> CoordinateFields:
    """Read the columns after the shapes by their content: the first two neighbours that vary within 0 and 1.

    Raises
    ------
    CryobridgeError
        If there are no such neighbours.
    """
    judged = {
        place: [_judge(table, position, column) for position, column in _floats_after(table, place)] for place in places
    }
    pairs = [(place, x, y) for place, candidates in judged.items() for x, y in _pairs(candidates)]
    candidates = tuple(itertools.chain(*judged.values()))
    if not pairs:
        raise _not_found(table, candidates)
    best, *rivals = pairs
    return _fields(
        table,
        best[0],
        best[1].name,
        best[2].name,
        "content",
        candidates=tuple(replace(candidate, is_taken=candidate in best[1:]) for candidate in candidates),
        rivals=tuple(_fields(table, place, x.name, y.name, "content") for place, x, y in rivals),
    )


def _pairs(candidates: list[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Return the pairs of neighbours that may be x and y, the likeliest first.

    What varies little may be the x or y of picks that lie close together, if it has about as many values as what
    varies much; the neighbours without it are another pair then.
    """
    most = max((candidate.distinct for candidate in candidates if candidate.is_fraction), default=0)
    pairs = []
    for run in _runs(candidates, lambda c: c.is_fraction or _may_be_narrow(c, most)):
        even = [(x, y) for x, y in zip(run[::2], run[1::2], strict=False) if x.is_fraction or y.is_fraction]
        odd = [(x, y) for x, y in zip(run[1::2], run[2::2], strict=False) if x.is_fraction and y.is_fraction]
        if run[0].is_fraction and not any(map(_fill_micrographs, even)):
            # A score stands before x: it does not reach as far as the places on whole micrographs.
            pairs += [pair for pair in odd if _fill_micrographs(pair)]
        pairs += even
        if not run[0].is_fraction:
            pairs += odd
    return pairs


def _fill_micrographs(pair: tuple[Candidate, Candidate]) -> bool:
    return min(candidate.spread for candidate in pair) >= _WHOLE_SPREAD


def _may_be_narrow(candidate: Candidate, most: int) -> bool:
    return 0 <= candidate.minimum <= candidate.maximum <= 1 and candidate.distinct > max(1.0, _RIVAL_SHARE * most)


def _runs(candidates: list[Candidate], fits: Callable[[Candidate], bool]) -> Iterator[list[Candidate]]:
    """Yield the candidates that fit, by runs of neighbours in the file."""
    numbered = enumerate(candidate for candidate in candidates if fits(candidate))
    for _, run in itertools.groupby(numbered, lambda item: item[1].position - item[0]):
        yield [candidate for _, candidate in run]


def _not_found(table: Table, candidates: Sequence[Candidate]) -> CryobridgeError:
    listed = "; ".join(
        f"{c.name} ({c.minimum:.4g} to {c.maximum:.4g}, {counted(c.distinct, 'value')}: {c.verdict})"
        for c in candidates
    )
    likely = sorted(candidates, key=lambda c: (not c.is_fraction, not 0 <= c.minimum <= c.maximum <= 1, -c.distinct))
    names = ",".join(c.name for c in sorted(likely[:2], key=lambda c: c.position))
    return CryobridgeError(
        f"the columns of the coordinates can't be inferred: no two neighbours vary within 0 and 1: {listed}",
        path=table.path,
        hint=f"Name the two columns, for example {option('xy_fields', names)}; {option('nudge', False)} takes the two "
        "right after the shape.",
    )


def _judge(table: Table, position: int, column: Column) -> Candidate:
    values = _sample(table, column)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Candidate(column.name, position, np.nan, np.nan, 0, "holds no number", False)
    minimum, maximum, distinct = float(np.min(values)), float(np.max(values)), len(np.unique(values))
    # A few picks may lie outside; they are an error of their own, not a reason to look elsewhere.
    low, high = np.quantile(values, [0.02, 0.98])
    if not (low >= 0 and high <= 1):
        verdict, is_fraction = "not within 0 and 1", False
    elif high - low < _LEAST_SPREAD or distinct < max(2, _LEAST_DISTINCT * min(len(values), 1000)):
        verdict, is_fraction = "hardly varies, like a pixel size or a distance", False
    else:
        verdict, is_fraction = "varies within 0 and 1", True
    spread = float(high - low)
    return Candidate(column.name, position, minimum, maximum, distinct, verdict, is_fraction, spread=spread)


def _sample(table: Table, column: Column) -> Array:
    """Return values from evenly spaced rows."""
    step = max(1, table.n_rows // _SAMPLED_ROWS)
    return np.asarray(table.read([column.name], slice(0, table.n_rows, step))[column.name])
