"""Between numpy, lists of text and Arrow, over bare buffers.

Arrow's own conversions import pandas, which takes longer than reading most files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cryobridge.errors import FormatError

RENAME = "Rename that file or folder, in the input too."


def arrow_codes(indices: Any) -> NDArray[np.int32]:
    """Return the indices of an Arrow dictionary array (int32, without nulls), (n,)."""
    values: NDArray[np.int32] = np.frombuffer(indices.buffers()[1], np.int32)[indices.offset :][: len(indices)]
    return values


def arrow_numbers(values: Any) -> NDArray[Any]:
    """Return whole numbers or floats of an Arrow array without nulls, (n,); a copy where it is chunked."""
    kind = str(values.type)
    dtype = np.dtype({"halffloat": "f2", "float": "f4", "double": "f8"}.get(kind, kind))
    if isinstance(values, pa.ChunkedArray):
        return np.concatenate([np.zeros(0, dtype), *map(arrow_numbers, values.chunks)])
    return (
        np.frombuffer(values.buffers()[1], dtype)[values.offset :][: len(values)] if len(values) else np.zeros(0, dtype)
    )


def texts_to_arrow(texts: Sequence[str]) -> pa.Array:
    """Return texts as an Arrow array.

    Raises
    ------
    FormatError
        If a text is not valid Unicode.
    """
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise FormatError(f"{error.object!a} is not UTF-8 text, which is needed", hint=RENAME) from error
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:  # more than Arrow's plain texts hold
        return pa.array(texts, pa.string())
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.StringArray.from_buffers(len(encoded), buffers[1], buffers[2])


def numbers_to_arrow(values: NDArray[Any]) -> pa.Array:
    """Return whole numbers or floats (n,) as an Arrow array of the same type."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), len(native), [None, pa.py_buffer(native)])


def mask_to_arrow(kept: NDArray[np.bool_]) -> pa.Array:
    """Return a mask (n,) as an Arrow array."""
    bits = np.packbits(kept, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(kept), [None, pa.py_buffer(bits)])
