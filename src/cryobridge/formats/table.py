"""What every table of columns can do, whatever file it lies in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.model.fields import Field, Program, fields_of
from cryobridge.model.particles import Floats, Labels
from cryobridge.report import Message, counted, note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import pandas

Array: TypeAlias = NDArray[Any]
DType: TypeAlias = "np.dtype[Any]"
Values: TypeAlias = Union[Array, Labels]  # noqa: UP007 - evaluated at run time


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name
        As the file spells it.
    dtype
        Type of one element, as the file holds it: ``f4``, ``u8``, ``text`` …
    shape
        Shape of one row's value; ``()`` for a number or a text.
    width
        Bytes that each text takes in the file, where all take as many; 0 otherwise.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    width: int = field(default=0, compare=False)

    @property
    def is_text(self) -> bool:
        """Whether the column holds text."""
        return self.dtype == "text"


class Table(ABC):
    """Named columns of equal length, read on demand.

    Parameters
    ----------
    path
        The file that the table lies in.
    n_rows
        Number of rows.
    columns
        The columns, in the file's order.
    """

    def __init__(self, path: Path, n_rows: int, columns: tuple[Column, ...]) -> None:
        self.path = path
        self.n_rows = n_rows
        self.columns = columns
        self._by_name = {column.name: column for column in columns}

    @abstractmethod
    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read the named columns of the given rows: arrays for numbers, `Labels` for text.

        Raises
        ------
        MissingDataError
            If a name is not a column of the table.
        FormatError
            If the bytes of a column are not what the header says.
        """

    def located(self, _name: str, rows: Array) -> tuple[Path, Array]:
        """Return the file that a column is in, and which of its rows these rows of the table are."""
        return self.path, rows

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table for a notebook: a vector column becomes one column an element (``blob/shape[0]``)."""
        import pandas

        columns: dict[str, Any] = {}
        for name, values in self.read(self.names).items():
            if isinstance(values, Labels):
                columns[name] = pandas.Categorical.from_codes(values.codes.tolist(), pandas.Index(values.values))
            elif values.ndim == 1:
                columns[name] = values
            else:
                flat = values.reshape(len(values), -1)
                columns |= {f"{name}[{place}]": flat[:, place] for place in range(flat.shape[1])}
        return pandas.DataFrame(columns)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.name!r}: {counted(self.n_rows, 'row')}, {len(self.columns)} columns)"

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in the file's order."""
        return tuple(self._by_name)

    def _wanted(self, names: Iterable[str]) -> list[str]:
        wanted = list(names)
        absent = [name for name in wanted if name not in self._by_name]
        if absent:
            raise MissingDataError(
                f"no column {', '.join(absent)}",
                path=self.path,
                hint=f"It has {len(self.columns)} columns: {', '.join(self.names[:8])} …",
            )
        return wanted


class TableInMemory(Table):
    """Columns that are in memory.

    Parameters
    ----------
    path
        The file that they are said to be of.
    n_rows, columns
        As `Table` has them.
    values
        Arrays (n, …) for numbers, `Labels` for text, by the names of the columns.
    """

    def __init__(self, path: Path, n_rows: int, columns: tuple[Column, ...], values: Mapping[str, Values]) -> None:
        super().__init__(path, n_rows, columns)
        self._values = values

    @classmethod
    def of(cls, path: Path, values: Mapping[str, Values]) -> TableInMemory:
        """Return a table of columns of equal length.

        Raises
        ------
        FormatError
            If one holds something else than numbers or text.
        """
        columns = []
        for name, column in values.items():
            if isinstance(column, Labels):
                columns.append(Column(name, "text"))
            elif column.dtype.kind in "biufc" and is_number_or_text(column.dtype):
                columns.append(Column(name, numpy_dtype_label(column.dtype), column.shape[1:]))
            else:
                raise FormatError(
                    f"a column of {column.dtype}, where numbers or texts are needed", path=path, field=name
                )
        return cls(path, len(next(iter(values.values()), ())), tuple(columns), values)

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Return columns (see `Table`)."""
        found = {name: self._values[name] for name in self._wanted(names)}
        return {name: v[rows] if isinstance(v, np.ndarray) else v.take(rows) for name, v in found.items()}


# Texts that are worth a note: as wide, and as large in all.
_WIDE_BYTES = 1024
_MUCH_MB = 50


def wide_texts(table: Table) -> tuple[Message, ...]:
    """Return a note on each column of long texts that takes much memory where it is carried along."""
    found = []
    for column in table.columns:
        MB = column.width * table.n_rows / 1e6
        if column.width >= _WIDE_BYTES and MB >= _MUCH_MB:
            path, _ = table.located(column.name, np.zeros(0, np.int64))
            text = f"{column.name} is a text of up to {column.width:,} bytes in each row, {MB:,.0f} MB in all"
            found.append(note("wide-text", f"{text}: where it is copied, it takes as much memory", where=path))
    return tuple(found)


@contextmanager
def rows_of_file(table: Table | None, rows: Array | None = None) -> Iterator[None]:
    """Have errors of the block that speak of a table name the file that the column is in, and the rows of that file.

    Parameters
    ----------
    table
        The table, which may be of several files; None if the particles are in none.
    rows
        (n,) the row of the table of each particle; None where they are the same.
    """
    try:
        yield
    except CryobridgeError as error:
        if error.rows and (table is None or error.path == str(table.path)):
            named = np.array(error.rows, np.int64)
            named = named if rows is None else rows[named]
            if table is not None:
                column = (error.field or "").partition(",")[0].partition("[")[0]
                path, named = table.located(column, named)
                error.path = str(path)
            error.rows = tuple(named.tolist())
        raise


# Kinds of NumPy's types that are no real numbers, and what they are called.
_NO_NUMBERS = {"c": "complex numbers", "S": "text", "U": "text"}
_BEYOND_INT64 = 1 << 63


class ColumnReader:
    """Columns of a table by name, None where absent; readers leave messages here."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.shapes = {column.name: column.shape for column in table.columns}
        self.names = tuple(self.shapes)
        self.path = table.path
        self.n_rows = table.n_rows
        self.messages: list[Message] = []

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def note(self, code: str, text: str) -> None:
        """Add a note on what was assumed, repaired or left out."""
        self.messages.append(note(code, text, where=self._table.path))

    def get(self, *names: str, shapes: tuple[tuple[int, ...], ...] = ()) -> Array | None:
        """Return the first of the named columns that is there.

        Parameters
        ----------
        names
            The columns.
        shapes
            Shapes that one row's value may have; any, if none is given.

        Raises
        ------
        FormatError
            If it has another one, or holds no real numbers.
        """
        name = next((name for name in names if name in self), None)
        if name is None:
            return None
        if shapes and self.shapes[name] not in shapes:
            raise FormatError(
                f"one value has the shape {self.shapes[name]}, {' or '.join(map(str, shapes))} expected",
                path=self._table.path,
                field=name,
                hint="Take the file that the program wrote itself.",
            )
        values = self._table.read([name])[name]
        if isinstance(values, Labels) and not len(values):
            return None  # a column without rows may be of any kind
        kind = "text" if isinstance(values, Labels) else _NO_NUMBERS.get(values.dtype.kind)
        if isinstance(values, Labels) or kind:
            raise FormatError(
                f"a column of {kind}, where numbers are needed",
                path=self._table.path,
                field=name,
                hint="Take the file that the program wrote itself, or leave the column out.",
            )
        return values

    def floats(self, *names: str) -> Floats | None:
        """Return a column as float64."""
        values = self.get(*names, shapes=((),))
        with np.errstate(over="ignore", invalid="ignore"):  # of a NaN that signals
            return None if values is None else values.astype(np.float64)

    def integers(self, *names: str) -> NDArray[np.int64] | None:
        """Return a column of whole numbers, which some programs write as floats.

        Raises
        ------
        FormatError
            If a value is not whole.
        """
        values = self.get(*names, shapes=((),))
        return None if values is None else self.as_integers(values, next(name for name in names if name in self))

    def as_integers(self, values: Array, name: str) -> NDArray[np.int64]:
        """Return the values (n,) of a column as whole numbers; raises as `integers` does."""
        if values.dtype.kind == "b" or (values.dtype.kind in "iu" and values.max(initial=0) < _BEYOND_INT64):
            return values.astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = values.astype(np.float64)
        bad = np.flatnonzero(~((np.abs(wide) < _BEYOND_INT64) & (wide == np.rint(wide))))
        if len(bad):
            raise FormatError(
                f"{values[bad[0]]} is not a whole number below 2^63",
                path=self._table.path,
                field=name,
                rows=tuple(int(row) for row in bad[:3]),
                count=len(bad),
                hint="Correct the values, or take the file that the program wrote itself.",
            )
        return values.astype(np.int64)

    def field(self, field: Field, program: Program) -> Any:
        """Return a quantity of the model in the model's unit, (n,) or `Labels`; None where no column has it."""
        names, unit = field.names(program), field.unit(program)
        if field.kind == "text":
            return next((self.labels(name) for name in names if name in self), None)
        values = self.integers(*names) if field.kind == "int" else self.floats(*names)
        return values if values is None or unit is None else unit.to_model(values)

    def part(self, part: str, program: Program) -> dict[str, Any]:
        """Return each quantity of a part of the model by its key, as `field` does; without those that are coded."""
        return {item.key: self.field(item, program) for item in fields_of(part) if not item.is_coded}

    def labels(self, name: str) -> Labels | None:
        """Return a column of text."""
        values = self._table.read([name])[name] if name in self else None
        return values if isinstance(values, Labels) else None


def is_number_or_text(dtype: DType) -> bool:
    """Whether a numpy type is one that programs of the field write: no times, objects or numbers beyond 64 bits."""
    widest = {"f": 8, "c": 16}.get(dtype.kind, dtype.itemsize)
    return dtype.kind in "biufcSU" and 0 < dtype.itemsize <= widest


def numpy_dtype_label(dtype: DType) -> str:
    """Return the short name of a numpy type: ``f4``, ``u8``; ``text`` for both kinds of string."""
    if dtype.kind in "SU":
        return "text"
    return f"{dtype.kind}{dtype.itemsize}"
