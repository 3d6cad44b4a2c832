"""CSDAT: the column stream that cryoSPARC's tools write; texts lie in a heap at the end.

The layout: magic, header length, JSON header, then each column with its length, then the heap.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import lz4.block
import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.arrow import arrow_codes, numbers_to_arrow
from cryobridge.formats.input_file import open_input, read_error
from cryobridge.formats.table import Array, Column, DType, Table, Values, is_number_or_text, numpy_dtype_label
from cryobridge.model.particles import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable

CSDAT_MAGIC = b"\x95CSDAT"

# A raw LZ4 block can't expand further than this (its format's own bound).
_LZ4_MAX_RATIO = 255
_MAX_DIMS = 3
_TYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}|[|]?\?")
_MAX_COLUMN_BYTES = (1 << 32) - 1
# Rows without a byte in the file: beyond, only memory would be filled.
MAX_EMPTY_ROWS = 1 << 20
# How many times the bytes of the heap its texts may have in all.
_HEAP_USES = 8


@dataclass(frozen=True)
class _StreamColumn:
    dtype: DType  # of one element; offsets (u8) for text
    shape: tuple[int, ...]
    is_text: bool
    offset: int
    n_bytes: int
    is_compressed: bool


class CsStreamFile(Table):
    """A `.cs` file that is a CSDAT stream: columns one after the other, texts in a heap at the end."""

    container = "csdat"

    def __init__(self, path: Path, n_rows: int, places: dict[str, _StreamColumn], heap_offset: int) -> None:
        columns = tuple(
            Column(name, "text" if place.is_text else numpy_dtype_label(place.dtype), place.shape)
            for name, place in places.items()
        )
        super().__init__(path, n_rows, columns)
        self._places = places
        self._heap_offset = heap_offset

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        wanted = self._wanted(names)
        out: dict[str, Values] = {}
        try:
            with open_input(self.path) as file:
                for name in wanted:
                    place = self._places[name]
                    # A copy in the machine's byte order, which lets go of the rows that were not asked for.
                    values = np.array(self._column(file, name, place)[rows], place.dtype.newbyteorder("="))
                    out[name] = self._text(file, name, values) if place.is_text else values
        except OSError as error:
            raise read_error(self.path, error) from error
        return out

    def _column(self, file: IO[bytes], name: str, place: _StreamColumn) -> Array:
        expected = self.n_rows * place.dtype.itemsize * int(np.prod(place.shape, dtype=np.int64))
        if expected == 0:
            return np.empty((self.n_rows, *place.shape), place.dtype)
        file.seek(place.offset)
        payload = file.read(place.n_bytes)
        if place.is_compressed:
            payload = _decompress(payload, expected, self.path, name)
        if len(payload) != expected:
            raise FormatError(
                f"the column holds {len(payload)} bytes, {expected} expected for {self.n_rows} rows",
                path=self.path,
                field=name,
                hint="The file is damaged; export it again.",
            )
        return np.frombuffer(payload, place.dtype).reshape(self.n_rows, *place.shape)

    def _text(self, file: IO[bytes], name: str, offsets: Array) -> Labels:
        """Decode the heap's texts at these offsets; the heap is interned, so that few are distinct."""
        encoded = numbers_to_arrow(offsets).dictionary_encode()
        file.seek(self._heap_offset)
        heap = file.read()
        # Each text stands in the heap once; a writer may let a text begin within another, as its end.
        n_left = _HEAP_USES * len(heap)
        code_of: dict[str, int] = {}
        codes = []
        for offset in encoded.dictionary.to_pylist():
            end = heap.find(b"\0", offset)
            if end < 0:
                raise FormatError(
                    f"a text starts at byte {offset} of a heap of {len(heap)} bytes",
                    path=self.path,
                    field=name,
                    hint="The file is truncated; export it again.",
                )
            n_left -= end - offset
            if n_left < 0:
                raise FormatError(
                    "its texts lie over each other, so that they would fill the memory",
                    path=self.path,
                    field=name,
                    hint="The file is damaged; export it again.",
                )
            text = heap[offset:end].decode("utf-8", "surrogateescape")
            codes.append(code_of.setdefault(text, len(code_of)))
        # Not every writer interns: two offsets may lead to the same text.
        return Labels(np.array(codes, np.int32)[arrow_codes(encoded.indices)], tuple(code_of))


def open_stream(path: Path, file: IO[bytes]) -> CsStreamFile:
    """Read the header of a stream whose magic has been read.

    Raises
    ------
    FormatError
        If the header is not one, or the file ends before its columns do.
    """
    header = _stream_header(path, file)
    try:
        n_rows, compression = header["length"], header.get("compression")
        entries = [(entry[0], entry[1], tuple(entry[2]) if len(entry) > 2 else ()) for entry in header["dtype"]]
        compressed = set(header.get("compressed_fields") or ())
        if type(n_rows) is not int or not 0 <= n_rows < 1 << 63:
            raise ValueError("length")
        if len({name for name, *_ in entries if isinstance(name, str)}) < len(entries):
            raise ValueError("the columns' names")
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise FormatError(f"the CSDAT header lacks or garbles {error}", path=path) from error
    if compression not in (None, "lz4"):
        raise FormatError(f"compression {compression!r} is not known; lz4 is", path=path)
    places: dict[str, _StreamColumn] = {}
    for name, type_text, shape in entries:
        places[name] = _stream_place(path, file, name, type_text, shape, n_rows, name in compressed)
        file.seek(places[name].n_bytes, os.SEEK_CUR)
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise FormatError(
            f"truncated: {os.fstat(file.fileno()).st_size} bytes, at least {file.tell()} expected",
            path=path,
            hint="The transfer was interrupted; fetch it again.",
        )
    if n_rows > MAX_EMPTY_ROWS and not any(place.dtype.itemsize * math.prod(place.shape) for place in places.values()):
        raise FormatError(
            f"promises {n_rows} rows that hold nothing", path=path, hint="The file is damaged; export it again."
        )
    return CsStreamFile(path, n_rows, places, file.tell())


def _stream_header(path: Path, file: IO[bytes]) -> dict[str, Any]:
    length = int.from_bytes(file.read(4), "little")
    if length > os.fstat(file.fileno()).st_size:
        raise FormatError("truncated in its header", path=path, hint="The transfer was interrupted; fetch it again.")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise FormatError("the CSDAT header is not JSON", path=path, hint="The file is damaged.") from error
    if not isinstance(header, dict):
        raise FormatError("the CSDAT header is not a table description", path=path, hint="The file is damaged.")
    return header


def _stream_place(
    path: Path,
    file: IO[bytes],
    name: Any,
    type_text: Any,
    shape: tuple[Any, ...],
    n_rows: int,
    is_compressed: bool,
) -> _StreamColumn:
    is_text = type_text == "|O"
    try:
        if not isinstance(type_text, str) or (is_text and shape) or not (is_text or _TYPE.fullmatch(type_text)):
            raise ValueError
        dtype = np.dtype("<u8" if is_text else type_text)
        valid = (
            dtype.kind not in "SU"
            and is_number_or_text(dtype)
            and len(shape) <= _MAX_DIMS
            and all(type(size) is int and 0 <= size <= 0xFFFF for size in shape)
        )
    except (TypeError, ValueError, SyntaxError):
        valid = False
    if not valid:
        raise FormatError(f"a column of type {type_text!r} {list(shape)} is not one of cryoSPARC's", path=path)
    n_bytes = int.from_bytes(file.read(4), "little") if n_rows else 0
    return _StreamColumn(dtype, shape, is_text, file.tell(), n_bytes, is_compressed)


def _decompress(payload: bytes, expected: int, path: Path, name: str) -> bytes:
    try:
        if expected > _LZ4_MAX_RATIO * len(payload):
            raise ValueError(f"{len(payload)} bytes can't hold {expected}")
        out: bytes = lz4.block.decompress(payload, uncompressed_size=expected)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError) as error:
        raise FormatError(
            f"the compressed column can't be unpacked ({error})",
            path=path,
            field=name,
            hint="The file is damaged; export it again.",
        ) from error
    return out


def write_stream(file: IO[bytes], arrays: dict[str, Values]) -> None:
    """Write columns (already arrays and `Labels`) as a compressed stream.

    Raises
    ------
    ValueError
        If a text holds a NUL, which ends texts in the heap, or a column is larger than its length can say.
    """
    heap, offsets = bytearray(b"\0"), {"": 0}
    for name, values in arrays.items():
        for text in values.values if isinstance(values, Labels) else ():
            if "\0" in text:
                raise ValueError(f"column {name}: {text!r} holds a NUL, which ends a text in a CSDAT stream")
            if text not in offsets:
                offsets[text] = len(heap)
                heap += text.encode("utf-8", "surrogateescape") + b"\0"
    entries: list[list[Any]] = []
    payloads: list[bytes] = []
    for name, values in arrays.items():
        if isinstance(values, Labels):
            places = np.array([offsets[text] for text in values.values], dtype="<u8")
            entries.append([name, "|O"])
            payloads.append(places[values.codes].tobytes())
        else:
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            entries.append([name, little.dtype.str, *([list(values.shape[1:])] if values.ndim > 1 else [])])
            payloads.append(little.tobytes())
    n_rows = len(next(iter(arrays.values()), ()))
    compressed = [entry[0] for entry in entries if entry[0] != "uid"] if n_rows else []
    header = json.dumps(
        {"length": n_rows, "dtype": entries, "compression": "lz4", "compressed_fields": compressed}
    ).encode()
    file.write(CSDAT_MAGIC + len(header).to_bytes(4, "little") + header)
    for entry, payload in zip(entries, payloads, strict=True) if n_rows else ():
        data = lz4.block.compress(payload, store_size=False) if entry[0] in compressed else payload
        if len(data) > _MAX_COLUMN_BYTES:
            raise ValueError(f"column {entry[0]} is larger than the 4 GiB that a CSDAT stream can hold")
        file.write(len(data).to_bytes(4, "little") + data)
    file.write(heap)
