"""The header of a `.npy` file, and of the array in a `.cs` file: read within bounds, as data and in silence."""

from __future__ import annotations

import ast
import math
import threading
import warnings
from typing import IO, Any, Literal, NamedTuple

import numpy as np

NPY_MAGIC = b"\x93NUMPY"
_LONGEST = 1 << 16
_LAST_CHARACTER = 0x10FFFF
# Up to 3.11, Python counts the depth of the text that it parses for all threads together, and fails with a SystemError
# where two parse at once; filters of warnings are those of all threads as well.
_one_at_a_time = threading.Lock()


def has_broken_text(array: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether an array of text has numbers in it that stand for no character; NumPy fails when it shows them."""
    if array.dtype.kind != "U" or array.size == 0:
        return False
    points = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool((points > _LAST_CHARACTER).any())


class NpyHeader(NamedTuple):
    """Shape, order and data type of the array in a `.npy` file."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the data that follow."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], longest: int = _LONGEST) -> NpyHeader:
    """Read the header of a `.npy` file and leave the stream where the data begin.

    ``numpy.lib.format`` describes the three versions; its own readers stop at 10,000 bytes, which tables exceed.

    Parameters
    ----------
    stream
        Stands at the start of the file.
    longest
        How many bytes a header may have.

    Raises
    ------
    ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError
        If it is no such header; what Python and NumPy raise on odd text is left as it is.
    """
    start = stream.read(8)
    if start[:6] != NPY_MAGIC or len(start) < 8:
        raise ValueError("it does not begin as a .npy file does")
    if start[6] not in {1, 2, 3}:
        raise ValueError(f"version {tuple(start[6:])}, where version 1 to 3 is read")
    length = int.from_bytes(stream.read(2 if start[6] == 1 else 4), "little")
    if length > longest:
        raise ValueError(f"a header of {length} bytes")
    text = stream.read(length).decode("utf-8" if start[6] == 3 else "latin-1", "replace")
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's literals and NumPy's old type names
        header = ast.literal_eval(text.strip())
        dtype = np.lib.format.descr_to_dtype(header["descr"])  # type: ignore[no-untyped-call]
    shape = header["shape"]
    # No bool, which is an integer to Python, and nothing that NumPy can't count.
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 1 << 63 for side in shape):
        raise ValueError("its shape is one that no array has")
    if dtype.subdtype is not None:
        raise ValueError("its values are arrays themselves, as no program writes them")
    return NpyHeader(shape, "F" if header["fortran_order"] else "C", dtype)
