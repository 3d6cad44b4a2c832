"""The rows of a STAR block, parsed in parallel pieces by Arrow's CSV engine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv

from cryobridge.errors import FormatError
from cryobridge.formats.arrow import texts_to_arrow
from cryobridge.formats.fields import lookup
from cryobridge.formats.relion.star_text import (
    BlockText,
    StarText,
    pick_columns,
    show_hidden,
    single_spaced,
    split_tokens,
)
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

_ARROW_TYPES = {"float": pa.float64(), "int": pa.int64(), "bool": pa.int64()}
# Beyond it glibc gives freed memory back at once.
_LARGEST_KEPT_BYTES = (32 << 20) - (1 << 16)
_WORKERS = min(8, os.cpu_count() or 1)


def parse_rows(path: Path, place: BlockText, wanted: Iterable[str]) -> pa.Table:
    """Parse the wanted columns of a block: those that the catalogue knows as numbers, others as texts.

    Raises
    ------
    FormatError
        If a row has more or fewer values than there are labels, or a word stands where a number belongs.
    """
    if not place.is_loop:
        values = dict(zip(place.labels, place.values, strict=True))
        return _typed(path, place, pa.table({label: texts_to_arrow([values[label]]) for label in wanted}))
    types = {label: _arrow_type(label) for label in wanted}
    text = StarText(path)
    _keep_freed_memory()
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
    return table


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next piece of rows; else every array would be mapped and zeroed anew.

    It keeps up to twice as much as the largest block that was ever freed. Nothing is written into this one, so that it
    takes no time.
    """
    np.empty(_LARGEST_KEPT_BYTES, np.uint8)


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
                    f"line {line}: {counted(n_values, 'value')} for "
                    f"{counted(len(place.labels), 'column')} of data_{place.name}",
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
