"""cryoSPARC tables joined by uid, the only identity that a row has.

A job writes the columns that it computed to one file and passes the others through in a second one, with the same
uids in an order that is not to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.table import Column, Table
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryobridge.formats.table import Values

_Uids: TypeAlias = "NDArray[np.uint64]"
_Rows: TypeAlias = "NDArray[np.int64]"

# Reading the span from the first to the last wanted row is worth it up to this many times the wanted rows.
_SPAN_FACTOR = 4


@dataclass(frozen=True)
class _Source:
    table: Table
    rows: _Rows | None  # (n,) row of this table for each joined row; None where they are the same


class JoinedTable(Table):
    """Several tables as one: the rows that all of them have, in the order of the first.

    Parameters
    ----------
    left_out
        Rows that are not in the join, by reason.
    duplicates
        Rows whose uid an earlier row of the same file has, by file.
    messages
        The same for the user.
    """

    def __init__(
        self,
        sources: Sequence[_Source],
        origin: Mapping[str, int],
        n_rows: int,
        left_out: dict[str, int],
        duplicates: dict[str, int],
        messages: tuple[Message, ...],
    ) -> None:
        by_name = [{column.name: column for column in source.table.columns} for source in sources]
        columns: tuple[Column, ...] = tuple(by_name[place][name] for name, place in origin.items())
        super().__init__(sources[0].table.path, n_rows, columns)
        self.left_out = left_out
        self.duplicates = duplicates
        self.messages = messages
        self._sources = tuple(sources)
        self._origin = dict(origin)
        self._whole: dict[str, Values] = {}

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        wanted = self._wanted(names)
        found: dict[str, Values] = {}
        for place, source in enumerate(self._sources):
            own = [name for name in wanted if self._origin[name] == place]
            if own:
                found.update(self._read_from(source, own, rows))
        return {name: found[name] for name in wanted}

    @property
    def members(self) -> tuple[tuple[Table, _Rows | None], ...]:
        """The tables, each with its row for every joined row, (n,); None where they are the same."""
        return tuple((source.table, source.rows) for source in self._sources)

    def source_of(self, name: str) -> Table:
        """Return the table that a column is read from.

        Raises
        ------
        MissingDataError
            If there is no such column.
        """
        self._wanted([name])
        table = self._sources[self._origin[name]].table
        return table.source_of(name) if isinstance(table, JoinedTable) else table

    def located(self, name: str, rows: NDArray[Any]) -> tuple[Path, NDArray[Any]]:
        """Return the file that a column is read from, the first for one of no file, and which of its rows these are."""
        source = self._sources[self._origin.get(name, 0)]
        return source.table.located(name, rows if source.rows is None else source.rows[rows])

    def _read_from(self, source: _Source, names: list[str], rows: slice) -> dict[str, Values]:
        if source.rows is None:
            return source.table.read(names, rows)
        places = source.rows[rows]
        if len(places) == 0:
            return source.table.read(names, slice(0, 0))
        low, high = int(places.min()), int(places.max()) + 1
        if high - low <= _SPAN_FACTOR * len(places):
            read = source.table.read(names, slice(low, high))
            return {name: _take(values, places - low) for name, values in read.items()}
        # The rows lie scattered: a column is read whole, once, rather than again for every batch.
        new = [name for name in names if name not in self._whole]
        self._whole.update(source.table.read(new))
        return {name: _take(self._whole[name], places) for name in names}


@dataclass(frozen=True, eq=False)
class Matched:
    """A table, and its rows that are those of the main one.

    Attributes
    ----------
    table
        The table.
    rows
        (n,) its row for each row of the main table, -1 where it has none; None where the rows are the same.
    n_rows
        Rows of the main table that it has.
    duplicates
        Its rows whose uid an earlier row has.
    """

    table: Table
    rows: _Rows | None
    n_rows: int
    duplicates: int


class UidJoin:
    """A join with a main table, in two steps: the rows of the others are found first, and then the tables are chosen.

    Parameters
    ----------
    main
        The table whose row order is kept.
    uid
        (n,) what its rows are known by; its own uids if not given.

    Raises
    ------
    MissingDataError
        If it has no uid.
    FormatError
        If its uids are not integers of 64 bits.
    """

    def __init__(self, main: Table, uid: _Uids | None = None) -> None:
        self._main = main
        self._uid = _read_uid(main) if uid is None else uid
        self._order: _Rows | None = None

    @property
    def _sorted(self) -> tuple[_Rows, _Uids]:
        """The rows in the order of their uids, sorted once for all tables, and the uids in that order."""
        if self._order is None:
            self._order = np.argsort(self._uid)
        return self._order, self._uid[self._order]

    def match(self, table: Table) -> Matched:
        """Find the rows of a table that the main one has; raises as the class does."""
        uid = _read_uid(table)
        if np.array_equal(self._uid, uid):
            duplicates = _count_duplicates(self._sorted[1])
            rows = None if not duplicates else _match(*self._sorted, uid, np.argsort(uid, kind="stable"))
        else:
            order = np.argsort(uid)
            duplicates = _count_duplicates(uid[order])
            # Of equal uids the first row shall be found; without any, the faster sort does.
            rows = _match(*self._sorted, uid, np.argsort(uid, kind="stable") if duplicates else order)
        n_rows = len(self._uid) if rows is None else int(np.count_nonzero(rows >= 0))
        return Matched(table, rows, n_rows, duplicates)

    def joined(self, others: Sequence[Matched], origin: Mapping[str, int] | None = None) -> JoinedTable:
        """Return the rows that all have.

        Parameters
        ----------
        others
            What `match` found.
        origin
            The place of the table, 0 for the main one, that each column is taken from; the first that has it if not
            given.
        """
        tables = (self._main, *(other.table for other in others))
        origin = _first_with_each_column(tables) if origin is None else origin
        label = _labels(tables)
        duplicates = {label[0]: _count_duplicates(self._sorted[1])}
        left_out: dict[str, int] = {}
        keep = np.ones(len(self._uid), dtype=bool)
        for other, name in zip(others, label[1:], strict=True):
            duplicates[name] = other.duplicates
            if other.rows is None:
                continue
            lacking = other.rows < 0
            left_out[f"rows of {label[0]} whose uid is not in {name}"] = int(np.count_nonzero(lacking & keep))
            used = np.zeros(other.table.n_rows, dtype=bool)
            used[other.rows[~lacking]] = True
            # A repeated uid counts once here; its other rows are in `duplicates`.
            unused = len(used) - other.duplicates - int(np.count_nonzero(used))
            left_out[f"rows of {name} whose uid is not in {label[0]}"] = unused
            keep &= ~lacking
        left_out = {reason: count for reason, count in left_out.items() if count}
        duplicates = {name: count for name, count in duplicates.items() if count}
        matches = (None, *(other.rows for other in others))
        sources = [_Source(table, _kept(rows, keep)) for table, rows in zip(tables, matches, strict=True)]
        n_rows = int(np.count_nonzero(keep))
        return JoinedTable(
            sources,
            origin,
            n_rows,
            left_out,
            duplicates,
            _messages(sources[0].table.path, left_out, duplicates, n_rows),
        )


def side_by_side(tables: Sequence[Table]) -> JoinedTable:
    """Return tables that have the same rows in the same order as one."""
    sources = [_Source(table, None) for table in tables]
    return JoinedTable(sources, _first_with_each_column(tables), tables[0].n_rows, {}, {}, ())


def _first_with_each_column(tables: Sequence[Table]) -> dict[str, int]:
    origin: dict[str, int] = {}
    for place, table in enumerate(tables):
        for column in table.columns:
            origin.setdefault(column.name, place)
    return origin


def _read_uid(table: Table) -> _Uids:
    if "uid" not in table:
        raise MissingDataError(
            "no column uid, by which its rows could be joined with another file's",
            path=table.path,
            field="uid",
            hint="Take the .cs file that cryoSPARC wrote itself; rows are never joined by their position.",
        )
    values = table.read(["uid"])["uid"]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or values.dtype.itemsize != 8:
        raise FormatError(
            "the uids are not integers of 64 bits, so that some of their digits are lost",
            path=table.path,
            field="uid",
            hint="Take the .cs file that cryoSPARC wrote itself: its uids are of type <u8.",
        )
    # Signed ones hold the same bits.
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="), copy=False).view(np.uint64)


def _count_duplicates(ordered: _Uids) -> int:
    return int(np.count_nonzero(ordered[1:] == ordered[:-1]))


def _match(main_order: _Rows, wanted: _Uids, uid: _Uids, order: _Rows) -> _Rows:
    """Return the row in ``uid`` of each row of the main table, -1 where absent.

    Both sides are sorted: looking up sorted values walks through memory instead of jumping in it.

    Parameters
    ----------
    main_order, wanted
        Rows of the main table in the order of their uids, and these uids.
    uid, order
        The uids of the other table, and its rows in their order.
    """
    rows = np.full(len(main_order), -1, dtype=np.int64)
    if len(uid) == 0:
        return rows
    ordered = uid[order]
    place = np.searchsorted(ordered, wanted)
    np.minimum(place, len(ordered) - 1, out=place)
    rows[main_order] = np.where(ordered[place] == wanted, order[place], -1)
    return rows


def _kept(rows: _Rows | None, keep: NDArray[np.bool_]) -> _Rows | None:
    if keep.all():
        return rows
    return np.flatnonzero(keep) if rows is None else rows[keep]


def _take(values: Values, places: _Rows) -> Values:
    return values[places] if isinstance(values, np.ndarray) else values.take(places)


def _labels(tables: Sequence[Table]) -> list[str]:
    """Return the file names, or the whole paths where two files have one name."""
    names = [table.path.name for table in tables]
    return names if len(set(names)) == len(names) else [str(table.path) for table in tables]


def _messages(path: Path, left_out: dict[str, int], duplicates: dict[str, int], n_rows: int) -> tuple[Message, ...]:
    lost = (
        f"{count:,} {reason}: left out, {counted(n_rows, 'row remains', 'rows remain')}"
        for reason, count in left_out.items()
    )
    repeated = (
        f"{name}: {counted(count, 'row has', 'rows have')} a uid that an earlier row has; a "
        "look-up finds the first of them"
        for name, count in duplicates.items()
    )
    return (
        *(note("rows-not-joined", text, where=path) for text in lost),
        *(note("uid-repeated", text, where=path) for text in repeated),
    )
