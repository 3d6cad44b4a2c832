"""What every table of columns can do, whatever file it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import MissingDataError
from cryobridge.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether the column holds text."""
        return self.dtype == "text"


class Table(Protocol):
    """Named columns of equal length, read on demand."""

    @property
    def path(self) -> Path:
        """The file that the table lies in."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in the file's order."""

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read the named columns of the given rows: arrays for numbers, `Labels` for text.

        Raises
        ------
        MissingDataError
            If a name is not a column of the table.
        FormatError
            If the bytes of a column are not what the header says.
        """


class NamedColumns:
    """What the tables share: names, and the refusal of a name that is not there."""

    def __init__(self, path: Path, n_rows: int, columns: tuple[Column, ...]) -> None:
        self.path = path
        self.n_rows = n_rows
        self.columns = columns
        self._by_name = {column.name: column for column in columns}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

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


def numpy_dtype_label(dtype: DType) -> str:
    """Return the short name of a numpy type: ``f4``, ``u8``; ``text`` for both kinds of string."""
    if dtype.kind in "SU":
        return "text"
    return f"{dtype.kind}{dtype.itemsize}"
