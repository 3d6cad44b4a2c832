"""What the text of a NumPy header says: a Python literal, read as data and in silence."""

from __future__ import annotations

import ast
import warnings
from typing import Any

import numpy as np

_LAST_CHARACTER = 0x10FFFF


def has_broken_text(array: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether an array of text has numbers in it that stand for no character; NumPy fails when it shows them."""
    if array.dtype.kind != "U" or array.size == 0:
        return False
    points = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool((points > _LAST_CHARACTER).any())


def parse_header(text: str) -> tuple[np.dtype[Any], Any, bool]:
    """Return data type, shape (as it stands there) and whether the array is in Fortran order.

    Raises
    ------
    ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError
        If it is no such header; what Python and NumPy raise on odd text is left as it is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's literals and NumPy's old type names
        header = ast.literal_eval(text.strip())
        dtype = np.lib.format.descr_to_dtype(header["descr"])  # type: ignore[no-untyped-call]
    return dtype, header["shape"], bool(header["fortran_order"])
