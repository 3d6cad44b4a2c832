"""cryoSPARC `.cs` files: a NumPy structured array, or a CSDAT stream of columns, distinguished by their magic bytes.

Columns are read on demand through windows of the file, so that neither the mapped nor the allocated memory grows
with the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cryobridge.errors import FormatError
from cryobridge.formats.arrow import arrow_codes
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.cryosparc.csdat import CSDAT_MAGIC, MAX_EMPTY_ROWS, CsStreamFile, open_stream, write_stream
from cryobridge.formats.input_file import open_input, read_error, readable_size
from cryobridge.formats.npy_header import NPY_MAGIC, read_header
from cryobridge.formats.table import Array, Column, DType, Table, Values, is_number_or_text, numpy_dtype_label
from cryobridge.model.particles import Labels
from cryobridge.report import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WINDOW_BYTES = 32 << 20
# While texts are decoded there are four copies of a window's.
_TEXT_WINDOW_BYTES = 4 << 20
_WRITE_BYTES = 8 << 20


def open_cs(path: str | os.PathLike[str]) -> CsNpyFile | CsStreamFile:
    """Open a `.cs` file; only its header is read.

    Raises
    ------
    FormatError
        If the file can't be read, is neither container, is truncated, or holds Python objects.
    """
    path = Path(path)
    readable_size(path)
    try:
        with open_input(path) as file:
            magic = file.read(len(NPY_MAGIC))
            if magic == NPY_MAGIC:
                return _open_npy(path, file)
            if magic == CSDAT_MAGIC:
                return open_stream(path, file)
    except OSError as error:
        raise read_error(path, error) from error
    raise FormatError(
        f"not a .cs file: it starts with {magic!r}, not with {NPY_MAGIC!r} or {CSDAT_MAGIC!r}",
        path=path,
        hint="Check that this is the file that cryoSPARC wrote; `cryobridge inspect` says what it is.",
    )


class CsNpyFile(Table):
    """A `.cs` file that is a one-dimensional structured NumPy array (what jobs write)."""

    container = "npy"

    def __init__(self, path: Path, n_rows: int, dtype: DType, offset: int) -> None:
        self.dtype = dtype
        self.offset = offset
        super().__init__(path, n_rows, tuple(_npy_column(name, dtype) for name in dtype.names or ()))

    @property
    def n_header_bytes(self) -> int:
        """Length of the header's text, without the magic bytes, version and length before it, as NumPy counts it."""
        n_before = 10 if self.offset - 10 < 1 << 16 else 12  # longer ones have four bytes for their length, not two
        return self.offset - n_before

    def read(self, names: Iterable[str], rows: slice = slice(None)) -> dict[str, Values]:
        """Read columns: arrays for numbers, `Labels` for text (see `formats.table.Table`)."""
        wanted = self._wanted(names)
        chosen = range(*rows.indices(self.n_rows))
        ascending = chosen if chosen.step > 0 else chosen[::-1]
        columns = {name: _column_to_fill(self.dtype[name], len(chosen)) for name in wanted}
        try:
            if wanted and self.dtype.itemsize:
                self._fill(columns, ascending)
        except OSError as error:
            raise read_error(self.path, error) from error
        except ValueError as error:
            raise FormatError("the file became shorter while it was read", path=self.path, hint="Try again.") from error
        order = slice(None, None, 1 if chosen.step > 0 else -1)
        return {
            name: column.labels(order) if isinstance(column, _Texts) else column[order]
            for name, column in columns.items()
        }

    def _fill(self, columns: dict[str, Array | _Texts], rows: range) -> None:
        """Read rows, in ascending order, through windows of the file."""
        has_text = any(isinstance(column, _Texts) for column in columns.values())
        n_bytes = _TEXT_WINDOW_BYTES if has_text else _WINDOW_BYTES
        n_in_window = max(1, n_bytes // self.dtype.itemsize // rows.step)
        with open_input(self.path) as file:
            for done in range(0, len(rows), n_in_window):
                part = rows[done : done + n_in_window]
                block = self._window(file, part[0], part[-1] + 1)[:: part.step]
                for name, values in columns.items():
                    values[done : done + len(part)] = block[name]

    def _window(self, file: IO[bytes], first: int, last: int) -> Array:
        """Map rows first to last alone: dropping the map gives its pages back."""
        return np.memmap(file, self.dtype, "r", self.offset + first * self.dtype.itemsize, shape=(last - first,)).view(
            np.ndarray
        )


def _npy_column(name: str, dtype: DType) -> Column:
    field = dtype[name]
    return Column(name, numpy_dtype_label(field.base), field.shape, field.itemsize if field.kind in "SU" else 0)


def _open_npy(path: Path, file: IO[bytes]) -> CsNpyFile:
    dtype, n_rows, offset = _npy_header(path, file)
    if dtype.hasobject:
        objects = [name for name in dtype.names or () if dtype[name].base.hasobject]
        raise FormatError(
            f"columns {', '.join(objects) or '(all)'} hold Python objects, which only code in the file can rebuild",
            path=path,
            hint="Write it again with fixed-length strings (dtype S), as cryoSPARC does.",
        )
    if dtype.names is None:
        raise FormatError(
            f"a plain array of {dtype}, without columns",
            path=path,
            hint="A .cs file is a table; plain arrays are .npy files.",
        )
    _reject_unreadable(path, dtype)
    whole = (os.fstat(file.fileno()).st_size - offset) // max(1, dtype.itemsize)
    if n_rows > MAX_EMPTY_ROWS and not dtype.itemsize:
        raise FormatError(
            f"promises {counted(n_rows, 'row')} that hold nothing",
            path=path,
            hint="The file is damaged; copy it again.",
        )
    if dtype.itemsize and whole < n_rows:
        raise FormatError(
            f"truncated: the header promises {counted(n_rows, 'row')}, {whole} are whole",
            path=path,
            hint="The copy or export was interrupted; copy it again.",
        )
    return CsNpyFile(path, n_rows, dtype, offset)


def _reject_unreadable(path: Path, dtype: DType) -> None:
    for name in dtype.names or ():
        element = dtype[name].base
        is_text_vector = element.kind in "SU" and dtype[name].shape != ()
        if not is_number_or_text(element) or is_text_vector:
            raise FormatError(f"a column of type {dtype[name]} is not one of cryoSPARC's", path=path, field=name)


def _npy_header(path: Path, file: IO[bytes]) -> tuple[DType, int, int]:
    """Return dtype, rows and data offset."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        header = read_header(file, longest=size)
        if header.order == "F" and len(header.shape) > 1:
            raise ValueError("Fortran order")
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        reason = str(error).split("\n", maxsplit=1)[0][:100] or type(error).__name__
        raise FormatError(
            f"its header can't be understood ({reason})", path=path, hint="The file is damaged; copy it again."
        ) from error
    is_table = len(header.shape) == 1
    if not is_table and header.dtype.names is not None:
        raise FormatError(
            f"an array of shape {header.shape}; a table has one dimension",
            path=path,
            hint="The file is damaged or no table.",
        )
    return header.dtype, header.shape[0] if is_table else 0, file.tell()


class _Texts:
    """A column of fixed-length strings, read piece by piece: each distinct text is kept once, without padding."""

    def __init__(self, n_rows: int) -> None:
        self._codes = np.zeros(n_rows, np.int32)
        self._code_of: dict[str, int] = {}

    def __setitem__(self, rows: slice, values: Array) -> None:
        """Take in the strings of some rows."""
        flat = np.ascontiguousarray(values)
        encoded = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(flat.dtype.itemsize), flat.size, [None, pa.py_buffer(flat)]
        ).dictionary_encode()
        if flat.dtype.kind == "S":
            texts = (raw.rstrip(b"\0").decode("utf-8", "surrogateescape") for raw in encoded.dictionary.to_pylist())
        else:
            order = "le" if flat.dtype.str.startswith("<") else "be"
            texts = (raw.decode(f"utf-32-{order}", "replace").rstrip("\0") for raw in encoded.dictionary.to_pylist())
        code_of = self._code_of
        codes = np.array([code_of.setdefault(text, len(code_of)) for text in texts], np.int32)
        self._codes[rows] = codes[arrow_codes(encoded.indices)]

    def labels(self, order: slice) -> Labels:
        """Return what was taken in, in an order of the rows."""
        return Labels(self._codes[order], tuple(self._code_of))


def _column_to_fill(dtype: DType, n_rows: int) -> Array | _Texts:
    return _Texts(n_rows) if dtype.kind in "SU" else np.empty(n_rows, dtype.newbyteorder("="))


def write_cs(
    path: str | os.PathLike[str], columns: Mapping[str, Values | list[str]], *, container: str = "npy"
) -> None:
    """Write columns of equal length as a `.cs` file: under a temporary name first, so that a file there is whole.

    Parameters
    ----------
    path
        The file to write or replace.
    columns
        Arrays (n, …), `Labels` or lists of text by column name.
    container
        ``"npy"``, what jobs write, or ``"csdat"``, the LZ4-compressed stream.

    Raises
    ------
    ValueError
        If the columns differ in length, or one is of a type that cryoSPARC does not have.
    """
    arrays = {name: _as_labels_or_array(values) for name, values in columns.items()}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of different lengths: {lengths}")
    for name, values in arrays.items():
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biufc":
            raise ValueError(f"column {name} is of type {values.dtype}, which a .cs file does not hold")
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        if container == "npy":
            _write_npy(file, arrays)
        elif container == "csdat":
            write_stream(file, arrays)
        else:
            raise ValueError(f"container {container!r} is neither 'npy' nor 'csdat'")


def _as_labels_or_array(values: Values | list[str]) -> Values:
    if isinstance(values, Labels):
        return values.without_unused()
    array = np.asarray(values)
    if array.dtype.kind in "SUO" or (isinstance(values, list) and not values):
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.tolist()]
        distinct = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        return Labels(np.array([distinct[text] for text in texts], dtype=np.int32), tuple(distinct))
    return array


def _write_npy(file: IO[bytes], arrays: dict[str, Values]) -> None:
    fields: list[tuple[Any, ...]] = []
    for name, values in arrays.items():
        if isinstance(values, Labels):
            # cryoSPARC appends a NUL to the longest text.
            fields.append((name, f"S{max((len(_encoded(text)) for text in values.values), default=0) + 1}"))
        else:
            fields.append((name, values.dtype.newbyteorder("<"), values.shape[1:]))
    n_rows = len(next(iter(arrays.values()), ()))
    dtype = np.dtype(fields)
    header = {"descr": dtype.descr, "fortran_order": False, "shape": (n_rows,)}
    try:
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
    except ValueError:  # longer than version 1 can say
        np.lib.format.write_array_header_2_0(file, header)  # type: ignore[no-untyped-call]
    step = max(1, _WRITE_BYTES // max(1, dtype.itemsize))
    for first in range(0, n_rows, step):
        block = np.empty(min(step, n_rows - first), dtype)
        chosen = slice(first, first + step)
        for name, values in arrays.items():
            block[name] = _padded(values.take(chosen), dtype[name]) if isinstance(values, Labels) else values[chosen]
        file.write(block.tobytes())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _padded(labels: Labels, dtype: DType) -> Array:
    """Return texts as strings of fixed length, (n,); those of no row aren't padded."""
    used, place = np.unique(labels.codes, return_inverse=True)
    padded: Array = np.array([_encoded(labels.values[code]) for code in used], dtype)[place]
    return padded
