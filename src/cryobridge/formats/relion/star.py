"""RELION STAR files: their blocks and columns.

Columns that the catalogue knows are typed by it. Others stay text, so that what is not understood survives a round
trip to the letter; where all their values are numbers, `StarBlock.read` gives them as numbers.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.arrow import arrow_codes, arrow_numbers, numbers_to_arrow, texts_to_arrow
from cryobridge.formats.fields import lookup
from cryobridge.formats.relion.star_rows import parse_rows
from cryobridge.formats.relion.star_text import BlockText, StarText
from cryobridge.formats.table import Column, Table, Values
from cryobridge.model.particles import Labels
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAIN_BLOCKS = (
    "particles",
    "micrographs",
    "movies",
    "coordinate_files",
    "images",
    "optimiser_general",
    "model_general",
    # Of the motion of a micrograph, whose local shifts come last and are read by nobody.
    "global_shift",
)
NO_PARTICLES = "it has optics groups and no particles, as RELION's Extract writes where it found none"
# Digits that stand for something else than a quantity: "01", or a uid with more of them than a float64 has.
_IDENTITY = r"^[+-]?(?:0\d|\d{17,}$)"


class StarBlock(Table):
    """One ``data_`` block: a table (``loop_``), or a list, which is a table of one row.

    Parameters
    ----------
    path
        The file that it is from.
    name
        What follows ``data_``; may be empty.
    table
        The columns; labels without their leading underscore.
    is_loop
        False for a list.
    comments
        The comment lines before the block, such as ``version 30001``.
    """

    def __init__(
        self, path: Path, name: str, table: pa.Table, *, is_loop: bool = True, comments: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.table = table
        self.is_loop = is_loop
        self.comments = comments
        super().__init__(path, table.num_rows, tuple(_column(label, table[label]) for label in table.column_names))

    @classmethod
    def from_columns(
        cls,
        name: str,
        columns: Mapping[str, Values | list[Any]],
        *,
        is_loop: bool = True,
        comments: tuple[str, ...] = (),
    ) -> StarBlock:
        """Make a block of columns (arrays, `Labels` or lists) to be written.

        Raises
        ------
        ValueError
            If a row lacks a value (None), for which STAR has no word, or columns differ in length.
        """
        table = pa.table({label: _to_arrow(values) for label, values in columns.items()})
        gaps = [label for label in table.column_names if table[label].null_count]
        if gaps:
            raise ValueError(f"not every row has a value in {', '.join(gaps)}")
        return cls(Path(), name, table, is_loop=is_loop, comments=comments)

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        chosen = np.arange(self.n_rows)[rows] if rows != slice(None) else None
        out: dict[str, Values] = {}
        for name in self._wanted(names):
            values = self.table[name] if chosen is None else self.table[name].take(chosen)
            numbers = _as_numbers(name, values) if self._by_name[name].dtype != "text" else None
            out[name] = to_labels(values) if numbers is None else arrow_numbers(numbers)
        return out

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return a column as Arrow texts (n,), for work on texts that are mostly distinct."""
        self._wanted([name])
        return self.table[name].cast(pa.string())

    def value(self, name: str) -> Any:
        """Return the value of a one-row block."""
        self._wanted([name])
        return self.table[name][0].as_py()


class StarFile:
    """A STAR file: its blocks by name, parsed when they are first asked for.

    Parameters
    ----------
    path
        The file.
    most_bytes
        Of a file of more bytes only what begins it counts, up to the end of a line.
    """

    def __init__(self, path: Path, most_bytes: int | None = None) -> None:
        self.path = path
        text = StarText(path, most_bytes)
        self.is_cut = text.is_cut
        try:
            self._places = {place.name: place for place in _distinct(text.blocks(), path)}
        finally:
            text.close()
        self._blocks: dict[str, StarBlock] = {}
        self.messages = tuple(text.messages)

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in the file's order."""
        return tuple(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> StarBlock:
        if name not in self._blocks:
            self._blocks[name] = self.select(name, self._places[name].labels)
        return self._blocks[name]

    def select(self, name: str, labels: Iterable[str]) -> StarBlock:
        """Return a block with some of its columns; the values of the others are passed over.

        Raises
        ------
        MissingDataError
            If the block has no such column.
        """
        place, wanted = self._places[name], tuple(labels)
        absent = [label for label in wanted if label not in place.labels]
        if absent:
            raise MissingDataError(
                f"no column {', '.join(absent)} in data_{name}",
                path=self.path,
                hint=f"It has {counted(len(place.labels), 'column')}: {', '.join(place.labels[:8])} …",
            )
        table = parse_rows(self.path, place, wanted)
        return StarBlock(self.path, name, table, is_loop=place.is_loop, comments=place.comments)

    @property
    def blocks(self) -> tuple[StarBlock, ...]:
        """All blocks, parsed."""
        return tuple(self[name] for name in self._places)

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the column names of a block without reading its rows."""
        return tuple(self._places[name].labels)

    def is_loop(self, name: str) -> bool:
        """Whether the block is a table, not a list."""
        return self._places[name].is_loop

    @cached_property
    def main(self) -> str:
        """The name of the block that the file is about: particles, micrographs, …, else the last one."""
        for name in _MAIN_BLOCKS:
            if name in self:
                return name
        others = [name for name in self.names if name != "optics"]
        return others[-1] if others else "optics"

    @property
    def optics(self) -> StarBlock | None:
        """The optics groups; None in the layout of RELION 3.0."""
        return self["optics"] if "optics" in self else None  # noqa: SIM401 - a StarFile has no get

    @property
    def has_optics_alone(self) -> bool:
        """Whether it lists optics groups and nothing else."""
        return self.names == ("optics",)

    @property
    def comments(self) -> tuple[str, ...]:
        """All comment lines that precede blocks."""
        return tuple(comment for place in self._places.values() for comment in place.comments)


class StarInMemory(StarFile):
    """Blocks as a file would have them.

    Parameters
    ----------
    path
        The file that stands for them in messages.
    blocks
        In the order of the file.
    """

    def __init__(self, path: Path, blocks: Iterable[StarBlock]) -> None:
        self.path = path
        self.is_cut = False
        self.messages = ()
        self._blocks = {block.name: block for block in blocks}

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in the file's order."""
        return tuple(self._blocks)

    def __contains__(self, name: str) -> bool:
        return name in self._blocks

    def __getitem__(self, name: str) -> StarBlock:
        return self._blocks[name]

    def select(self, name: str, labels: Iterable[str]) -> StarBlock:
        """Return a block with some of its columns."""
        block = self[name]
        table = block.table.select(block._wanted(labels))
        return StarBlock(block.path, name, table, is_loop=block.is_loop, comments=block.comments)

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the column names of a block."""
        return self[name].names

    def is_loop(self, name: str) -> bool:
        """Whether the block is a table, not a list."""
        return self[name].is_loop

    @property
    def comments(self) -> tuple[str, ...]:
        """All comment lines that precede blocks."""
        return tuple(comment for block in self._blocks.values() for comment in block.comments)


def open_star(path: str | os.PathLike[str], *, most_bytes: int | None = None) -> StarFile:
    """Open a STAR file; its structure is checked, its rows are parsed when they are asked for.

    Of a file of more than `most_bytes` only what begins it counts.

    Raises
    ------
    FormatError
        If the file can't be read or has no block. A row of the wrong length or a word where a number belongs
        raises when the block is first read.
    """
    return StarFile(Path(path), most_bytes)


def to_labels(values: pa.ChunkedArray) -> Labels:
    """Return a text column as `Labels`."""
    encoded = values.cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # an empty column stays chunked
        encoded = encoded.unify_dictionaries().combine_chunks()
    return Labels(arrow_codes(encoded.indices), tuple(encoded.dictionary.to_pylist()))


def _distinct(places: list[BlockText], path: Path) -> list[BlockText]:
    twice = [name for name, count in Counter(place.name for place in places).items() if count > 1]
    if twice:
        raise FormatError(f"two blocks are named data_{twice[0]}", path=path, hint="Remove or rename one of them.")
    return places


def _column(label: str, values: pa.ChunkedArray) -> Column:
    numbers = _as_numbers(label, values)
    if numbers is None:
        return Column(label, "text")
    kind = "f" if pa.types.is_floating(numbers.type) else "u" if pa.types.is_unsigned_integer(numbers.type) else "i"
    return Column(label, f"{kind}{numbers.type.bit_width // 8}")


def _as_numbers(label: str, values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the values as numbers; None for text, and for digits that a number would not give back."""
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        return values
    if not pa.types.is_string(values.type) or len(values) == 0 or lookup(label) is not None:
        return None
    try:
        whole = values.cast(pa.int64())
        if pc.all(pc.equal(whole.cast(pa.string()), values)).as_py():
            return whole
    except pa.ArrowInvalid:
        pass
    if pc.any(pc.match_substring_regex(values, _IDENTITY)).as_py():
        return None
    try:
        return values.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _to_arrow(values: Values | list[Any]) -> pa.Array:
    if isinstance(values, Labels):
        return pa.DictionaryArray.from_arrays(numbers_to_arrow(values.codes), texts_to_arrow(values.values))
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        return texts_to_arrow(values)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf":
        return numbers_to_arrow(values)
    array = pa.array(values)
    return array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array
