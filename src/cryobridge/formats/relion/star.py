"""RELION STAR files, read and written in parallel pieces by Arrow's CSV engine.

Columns that the catalogue knows are typed by it. Others stay text, so that what is not understood survives a round
trip to the letter; where all their values are numbers, `StarBlock.read` gives them as numbers.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.arrow import arrow_codes, numbers_to_arrow, texts_to_arrow
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.fields import lookup
from cryobridge.formats.relion.star_text import (
    NEEDS_QUOTES,
    NEEDS_QUOTES_FIRST,
    BlockText,
    StarText,
    pick_columns,
    quote,
    show_hidden,
    single_spaced,
    split_tokens,
)
from cryobridge.formats.table import Column, Table, Values
from cryobridge.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ROWS_A_PIECE = 1 << 15
_ARROW_TYPES = {"float": pa.float64(), "int": pa.int64(), "bool": pa.int64()}
_MAIN_BLOCKS = (
    "particles",
    "micrographs",
    "movies",
    "coordinate_files",
    "images",
    "optimiser_general",
    "model_general",
)
# Digits that stand for something else than a quantity: "01", or a uid with more of them than a float64 has.
_IDENTITY = r"^[+-]?(?:0\d|\d{17,}$)"
# Scalars that Arrow does not have to convert.
_LINE_END, _NOTHING, _SPACE = texts_to_arrow(["\n", "", " "])
_WORKERS = min(8, os.cpu_count() or 1)


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
            out[name] = to_labels(values) if numbers is None else _to_numpy(numbers)
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
    """A STAR file: its blocks by name, parsed when they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = StarText(path)
        try:
            self._places = {place.name: place for place in _distinct(text.blocks(), path)}
        finally:
            text.close()
        self._blocks: dict[str, StarBlock] = {}
        self.notes = tuple(text.notes)

    @property
    def names(self) -> tuple[str, ...]:
        """Block names in the file's order."""
        return tuple(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> StarBlock:
        if name not in self._blocks:
            self._blocks[name] = _parse(self.path, self._places[name])
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
                hint=f"It has {len(place.labels)} columns: {', '.join(place.labels[:8])} …",
            )
        return _parse(self.path, place, wanted)

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
        others = [name for name in self._places if name != "optics"]
        return others[-1] if others else "optics"

    @property
    def comments(self) -> tuple[str, ...]:
        """All comment lines that precede blocks."""
        return tuple(comment for place in self._places.values() for comment in place.comments)


def open_star(path: str | os.PathLike[str]) -> StarFile:
    """Open a STAR file; its structure is checked, its rows are parsed when they are asked for.

    Raises
    ------
    FormatError
        If the file can't be read or has no block. A row of the wrong length or a word where a number belongs
        raises when the block is first read.
    """
    return StarFile(Path(path))


def write_star(path: str | os.PathLike[str], blocks: Iterable[StarBlock]) -> None:
    """Write blocks in the form RELION reads: under a temporary name first, so that a file there is whole.

    Numbers are written in the shortest form that reads back to the same value.

    Raises
    ------
    ValueError
        If a text holds a line break, which STAR can't.
    """
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(_WORKERS) as pool:
        for block in blocks:
            head = ["", *(f"# {comment}" for comment in block.comments), "", f"data_{block.name}", ""]
            if block.is_loop:
                head += ["loop_", *(f"_{label} #{number}" for number, label in enumerate(block.names, 1)), ""]
                file.write("\n".join(head).encode())
                pieces = block.table.to_batches(max_chunksize=_ROWS_A_PIECE)
                file.writelines(pool.map(_format_rows, pieces))
            else:
                values = [quote(block.table[label].cast(pa.string())[0].as_py()) for label in block.names]
                head += [f"_{label} {value}" for label, value in zip(block.names, values, strict=True)]
                file.write(("\n".join(head) + "\n").encode())
            file.write(b"\n")


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


def _parse(path: Path, place: BlockText, wanted: tuple[str, ...] | None = None) -> StarBlock:
    """Parse a block, or the wanted columns of it."""
    wanted = tuple(place.labels) if wanted is None else wanted
    if not place.is_loop:
        values = dict(zip(place.labels, place.values, strict=True))
        table = _typed(path, place, pa.table({label: [values[label]] for label in wanted}))
        return StarBlock(path, place.name, table, is_loop=False, comments=place.comments)
    types = {label: _arrow_type(label) for label in wanted}
    text = StarText(path)
    try:
        chunks = text.row_chunks(place)
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                table = _concat(pool.map(lambda chunk: _parse_chunk(text.read(*chunk), place, types), chunks), types)
            except pa.ArrowInvalid:
                # Some value is not of its column's type, or a row is short: look closely.
                _check_row_lengths(text, place, chunks)
                as_text = dict.fromkeys(types, pa.string())
                parts = pool.map(lambda chunk: _parse_chunk(text.read(*chunk), place, as_text), chunks)
                table = _typed(path, place, _concat(parts, as_text))
    except pa.ArrowInvalid as error:
        raise FormatError(f"data_{place.name} can't be parsed ({error})", path=path) from error
    finally:
        text.close()
    return StarBlock(path, place.name, table, comments=place.comments)


def _parse_chunk(rows: bytes, place: BlockText, types: dict[str, pa.DataType]) -> pa.Table:
    labels = place.labels
    if len(types) < len(labels):
        shown = sorted(labels.index(label) for label in types)
        picked = pick_columns(rows, len(labels), shown)
        if picked is not None:
            return _parse_spaced(picked, [labels[number] for number in shown], types)
    spaced, has_quotes = single_spaced(rows)
    if not spaced.strip():
        return _empty(types)
    table = _parse_spaced(spaced, labels, types)
    if not has_quotes:
        return table
    columns = [_shown(column) if column.type == pa.string() else column for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _parse_spaced(spaced: bytes, labels: list[str], types: dict[str, pa.DataType]) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(spaced),
        read_options=pa.csv.ReadOptions(column_names=labels, use_threads=False, block_size=len(spaced) + 1),
        parse_options=pa.csv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pa.csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[], true_values=[], false_values=[]
        ),
    )


def _shown(texts: pa.ChunkedArray) -> pa.Array:
    return texts_to_arrow([show_hidden(text) for text in texts.to_pylist()])


def _empty(types: dict[str, pa.DataType]) -> pa.Table:
    return pa.table({label: pa.array([], dtype) for label, dtype in types.items()})


def _concat(tables: Iterable[pa.Table], types: dict[str, pa.DataType]) -> pa.Table:
    parts = list(tables)
    return pa.concat_tables(parts) if parts else _empty(types)


def _check_row_lengths(text: StarText, place: BlockText, chunks: list[tuple[int, int]]) -> None:
    """Raise for the first row that has more or fewer values than there are labels, or is not text."""
    line, row = place.rows_line, 0
    for chunk in chunks:
        for raw in text.read(*chunk).removesuffix(b"\n").split(b"\n"):
            try:
                n_values = len(split_tokens(raw.decode()))
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"line {line} of data_{place.name} is not UTF-8 text ({raw[error.start : error.end]!r})",
                    path=text.path,
                    rows=(row,),
                    hint="Convert the file, for instance with iconv -f latin1 -t utf-8.",
                ) from error
            if n_values and n_values != len(place.labels):
                raise FormatError(
                    f"line {line}: {n_values} values for {len(place.labels)} columns of data_{place.name}",
                    path=text.path,
                    rows=(row,),
                    hint="The file was cut off or edited by hand; restore that line, or write the file again.",
                )
            line += 1
            row += bool(n_values)


def _arrow_type(label: str) -> pa.DataType:
    spec = lookup(label)
    return pa.string() if spec is None else _ARROW_TYPES.get(spec.kind, pa.string())


def _typed(path: Path, place: BlockText, table: pa.Table) -> pa.Table:
    """Give text columns their catalogue's type; a whole number may be beyond int64, or written as 1.0."""
    columns = []
    for label in table.column_names:
        wanted, values = _arrow_type(label), table[label]
        for dtype in (wanted, pa.uint64(), pa.float64()) if wanted != pa.string() else ():
            try:
                values = table[label].cast(dtype)
                break
            except pa.ArrowInvalid:
                continue
        else:
            if wanted != pa.string():
                raise _not_a_number(path, place, label, table[label])
        columns.append(values)
    return pa.table(columns, names=table.column_names)


def _not_a_number(path: Path, place: BlockText, label: str, values: pa.ChunkedArray) -> FormatError:
    tokens = values.to_pylist()
    row = next((row for row, token in enumerate(tokens) if not _is_number(token)), 0)
    return FormatError(
        f"{tokens[row]!r} in data_{place.name} is not a number",
        path=path,
        field=label,
        rows=(row,),
        hint="Correct the value, or remove that row.",
    )


def _is_number(token: str) -> bool:
    try:
        pa.scalar(token).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _to_numpy(numbers: pa.ChunkedArray) -> NDArray[Any]:
    """Return numbers as an array (n,) without Arrow's own conversion, which imports pandas."""
    kind = str(numbers.type)
    dtype = np.dtype({"halffloat": "f2", "float": "f4", "double": "f8"}.get(kind, kind))
    chunks = [part for part in numbers.chunks if len(part)]
    parts = [np.frombuffer(part.buffers()[1], dtype)[part.offset :][: len(part)] for part in chunks]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


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
    if lookup(label) is not None or not pa.types.is_string(values.type) or len(values) == 0:
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


def _format_rows(rows: pa.RecordBatch) -> bytes:
    texts = [column.cast(pa.string()) for column in rows.columns]
    texts = [
        text if pa.types.is_primitive(column.type) else _quoted(text, first=place == 0)
        for place, (text, column) in enumerate(zip(texts, rows.columns, strict=True))
    ]
    texts[-1] = pc.binary_join_element_wise(texts[-1], _LINE_END, _NOTHING)
    lines = pc.binary_join_element_wise(*texts, _SPACE)
    offsets = np.frombuffer(lines.buffers()[1], np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(lines.buffers()[2])[offsets[0] : offsets[-1]].tobytes()


def _quoted(texts: pa.Array, *, first: bool) -> pa.Array:
    """Quote what would not read back as one token; most columns have nothing to quote."""
    if not pc.any(pc.match_substring_regex(texts, NEEDS_QUOTES_FIRST if first else NEEDS_QUOTES)).as_py():
        return texts
    return texts_to_arrow([quote(text, first=first) for text in texts.to_pylist()])
