"""Writing STAR files, in parallel pieces."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cryobridge.errors import CryobridgeError
from cryobridge.formats.arrow import texts_to_arrow
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.relion.star_text import NEEDS_QUOTES, NEEDS_QUOTES_FIRST, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryobridge.formats.relion.star import StarBlock

_ROWS_A_PIECE = 1 << 15
# Scalars that Arrow does not have to convert.
_LINE_END, _NOTHING, _SPACE = texts_to_arrow(["\n", "", " "])
_WORKERS = min(8, os.cpu_count() or 1)


def write_star(path: str | os.PathLike[str], blocks: Iterable[StarBlock]) -> None:
    """Write blocks in the form RELION reads: under a temporary name first, so that a file there is whole.

    Numbers are written in the shortest form that reads back to the same value.

    Raises
    ------
    FormatError
        If a text holds a line break, which STAR can't.
    """
    try:
        _write(path, blocks)
    except CryobridgeError as error:
        error.path = error.path or str(path)
        raise


def _write(path: str | os.PathLike[str], blocks: Iterable[StarBlock]) -> None:
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(_WORKERS) as pool:
        for block in blocks:
            head = ["", *(f"# {comment}" for comment in block.comments), "", f"data_{block.name}", ""]
            if block.is_loop:
                head += ["loop_", *(f"_{label} #{number}" for number, label in enumerate(block.names, 1)), ""]
                file.write("\n".join(head).encode())
                pieces = block.table.to_batches(max_chunksize=_ROWS_A_PIECE)
                # A thread would cost more than a short table, and motion has a file with some of them per micrograph.
                file.writelines(map(_format_rows, pieces) if len(pieces) == 1 else pool.map(_format_rows, pieces))
            else:
                values = [quote(block.table[label].cast(pa.string())[0].as_py()) for label in block.names]
                head += [f"_{label} {value}" for label, value in zip(block.names, values, strict=True)]
                file.write(("\n".join(head) + "\n").encode())
            file.write(b"\n")


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
