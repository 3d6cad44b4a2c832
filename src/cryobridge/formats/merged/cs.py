"""Several cryoSPARC tables as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.formats.cryosparc.names import relative_to_file
from cryobridge.formats.table import Column, Table
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.formats.particle_files import ParticleFiles
    from cryobridge.formats.table import Array, Values

EXPOSURE_GROUP = "/exp_group_id"


def unlike_columns(tables: Sequence[Table], labels: Sequence[str]) -> dict[str, str]:
    """Return the columns that the tables have in kinds that do not go together, with the reason.

    Where one column of a group has another shape, as ``alignments3D_multi`` has for another number of classes, the
    whole group is of no use.
    """
    first: dict[str, tuple[Column, str]] = {}
    found: dict[str, str] = {}
    groups: dict[str, str] = {}
    for table, label in zip(tables, labels, strict=True):
        for column in table.columns:
            known, of = first.setdefault(column.name, (column, label))
            if known.shape != column.shape:
                reason = f"{_shape(known)} in {of}, {_shape(column)} in {label}"
                groups.setdefault(column.name.partition("/")[0], reason)
                found.setdefault(column.name, reason)
            elif widened(known, column) is None:
                found.setdefault(column.name, f"{known.dtype} in {of}, {column.dtype} in {label}")
    names = (name for table in tables for name in table.names if "/" in name)
    return found | {name: groups[group] for name in names if (group := name.partition("/")[0]) in groups}


def _shape(column: Column) -> str:
    return f"{' × '.join(map(str, column.shape))} values" if column.shape else "one value"


def widened(one: Column, other: Column) -> Column | None:
    """Return a column that holds the values of both; None where there is none."""
    if one.dtype == other.dtype:
        return one
    if one.is_text or other.is_text:
        return None
    if one.name == "uid":
        return Column("uid", "u8")  # signed ones hold the same bits
    kinds = np.dtype(one.dtype), np.dtype(other.dtype)
    wide = np.result_type(*kinds)
    is_lossy = wide.kind in "fc" and any(kind.kind in "iu" and kind.itemsize == 8 for kind in kinds)
    return None if is_lossy else Column(one.name, f"{wide.kind}{wide.itemsize}", one.shape)


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one of the files.

    Attributes
    ----------
    files
        The files.
    groups
        New number of an exposure group by the old one.
    """

    files: ParticleFiles
    groups: Mapping[int, int]

    def folder_of(self, name: str) -> Path:
        """Return the folder that a column's names are relative to."""
        table = self.files.columns
        return table.located(name, np.zeros(0, np.int64))[0].parent

    def renumbered(self, values: Array) -> Array:
        """Return exposure groups with their new numbers."""
        old = np.array(sorted(self.groups), np.int64)
        new = np.array([self.groups[int(number)] for number in old], np.int64)
        if not len(old) or not (old != new).any():
            return values
        place = np.minimum(np.searchsorted(old, values), len(old) - 1)
        return np.where(old[place] == values, new[place], values).astype(values.dtype)


class MergedTable(Table):
    """Rows of several cryoSPARC tables, one after another.

    Parameters
    ----------
    path
        The first file: names with ``>`` are given as they would stand in its folder.
    parts
        The files.
    columns
        The columns, of which the widest kind counts.
    filled
        Value of columns where a file lacks them.
    """

    def __init__(
        self,
        path: Path,
        parts: Sequence[Part],
        columns: tuple[Column, ...],
        filled: Mapping[str, float],
        container: str,
    ) -> None:
        lengths = [part.files.columns.n_rows for part in parts]
        super().__init__(path, sum(lengths), columns)
        self.container = container
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *lengths])
        self._filled = dict(filled)

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        wanted = [self._by_name[name] for name in self._wanted(names)]
        start, stop, step = rows.indices(self.n_rows)
        if step != 1:
            whole = self.read(names)
            return {name: v[rows] if isinstance(v, np.ndarray) else v.take(rows) for name, v in whole.items()}
        n_rows = max(0, stop - start)
        columns = {column.name: _Filling(column, n_rows) for column in wanted}
        for part, first, last in zip(self._parts, self._starts[:-1], self._starts[1:], strict=True):
            low, high = max(start, int(first)), min(stop, int(last))
            if low < high:
                self._fill(columns, part, slice(low - int(first), high - int(first)), low - start)
        return {name: column.values() for name, column in columns.items()}

    def _fill(self, columns: Mapping[str, _Filling], part: Part, rows: slice, place: int) -> None:
        """Put the rows of one file into the columns; each is let go of when it is there."""
        table = part.files.columns
        found = table.read([name for name in columns if name in table], rows)
        for name, column in columns.items():
            values = found.pop(name, None)
            if values is None:
                column.put_constant(self._filled[name], place, rows.stop - rows.start)
            elif isinstance(values, Labels):
                column.put_texts(self._as_seen(values, name, part), place)
            else:
                column.put(part.renumbered(values) if name.endswith(EXPOSURE_GROUP) else values, place)

    def _as_seen(self, values: Labels, name: str, part: Part) -> Labels:
        folder = part.folder_of(name) if name.endswith("path") else self.path.parent
        if folder == self.path.parent:
            return values
        return values.renamed([relative_to_file(text, folder, self.path.parent) for text in values.values])

    def located(self, name: str, rows: NDArray[np.int64]) -> tuple[Path, NDArray[np.int64]]:
        """Return the file of the first of the rows that a column is read from, and which of its rows these are."""
        place = int(np.searchsorted(self._starts, rows[0], side="right")) - 1 if len(rows) else 0
        place = min(place, len(self._parts) - 1)
        own = rows[(rows >= self._starts[place]) & (rows < self._starts[place + 1])] - self._starts[place]
        return self._parts[place].files.columns.located(name, own)


class _Filling:
    """A column that is filled file by file."""

    def __init__(self, column: Column, n_rows: int) -> None:
        dtype = np.dtype(np.int32) if column.is_text else np.dtype(column.dtype)
        self._array = np.zeros((n_rows, *column.shape), dtype)
        self._texts: dict[str, int] | None = {} if column.is_text else None

    def put(self, values: Array, place: int) -> None:
        if values.dtype.kind in "iu" and values.dtype.itemsize == self._array.dtype.itemsize:
            values = values.astype(values.dtype.newbyteorder("="), copy=False).view(self._array.dtype)
        self._array[place : place + len(values)] = values

    def put_constant(self, value: float, place: int, n_rows: int) -> None:
        self._array[place : place + n_rows] = value

    def put_texts(self, labels: Labels, place: int) -> None:
        assert self._texts is not None  # the kinds of the files agree
        of_text = self._texts
        codes = np.array([of_text.setdefault(text, len(of_text)) for text in labels.values], np.int32)
        if len(labels):
            self._array[place : place + len(labels)] = codes[labels.codes]

    def values(self) -> Values:
        return self._array if self._texts is None else Labels(self._array, tuple(self._texts))
