"""Following particles from file to file by their names, whatever row they stand in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cryobridge.formats.arrow import arrow_codes, numbers_to_arrow

Ids = NDArray[np.int64]
_UNKNOWN = -1
# A scalar that Arrow does not have to convert, for which it would import pandas.
_FILL = numbers_to_arrow(np.array([_UNKNOWN], np.int32))[0]


class ParticleIndex:
    """All particles seen so far; each has a number that it keeps.

    Copies that have the same name (after a symmetry expansion) are distinguished by their order in the file.
    """

    def __init__(self) -> None:
        self._keys: pa.ChunkedArray | None = None  # each once
        self._ids: list[Ids] = []  # of the first, second … copy of each key; -1 where there is none
        self._last: tuple[pa.ChunkedArray, Ids] | None = None
        self.n_particles = 0
        self.n_copies = 0

    def follow(self, keys: pa.ChunkedArray) -> Ids:
        """Return the number of each particle of a file (n,), giving new ones to those not seen before."""
        if self._last is not None and keys.equals(self._last[0]):
            return self._last[1]
        codes = self._codes(keys)
        ids = np.full(len(codes), _UNKNOWN, np.int64)
        for copy, rows in enumerate(_by_copy(codes)):
            ids[rows] = self._numbers(copy, codes[rows])
        self._last = keys, ids
        return ids

    def _codes(self, keys: pa.ChunkedArray) -> Ids:
        """Return the place of each key among those known, after adding those that were not."""
        if self._keys is None:
            self._keys = pa.chunked_array([], keys.type)
        codes = _index_in(keys, self._keys)
        if np.any(codes == _UNKNOWN):
            new = pc.unique(keys.filter(_as_mask(codes == _UNKNOWN)))
            self._keys = pa.chunked_array([*self._keys.chunks, new], keys.type)
            codes = _index_in(keys, self._keys)
        return codes

    def _numbers(self, copy: int, codes: Ids) -> Ids:
        assert self._keys is not None
        if copy == len(self._ids):
            self._ids.append(np.zeros(0, np.int64))
        known = self._ids[copy]
        known = self._ids[copy] = np.pad(known, (0, len(self._keys) - len(known)), constant_values=_UNKNOWN)
        new = codes[known[codes] == _UNKNOWN]
        known[new] = np.arange(self.n_particles, self.n_particles + len(new))
        self.n_particles += len(new)
        self.n_copies += len(new) if copy else 0
        return known[codes]


def _by_copy(codes: Ids) -> list[Ids]:
    """Return the rows in which a key stands for the first time, those for the second time, and so on."""
    if len(codes) == 0:
        return []
    if np.bincount(codes).max() == 1:
        return [np.arange(len(codes))]
    order = np.argsort(codes, kind="stable")
    is_first = np.diff(codes[order], prepend=_UNKNOWN) != 0
    start = np.maximum.accumulate(np.where(is_first, np.arange(len(codes)), 0))
    copy = np.empty(len(codes), np.int64)
    copy[order] = np.arange(len(codes)) - start
    return [np.flatnonzero(copy == number) for number in range(int(copy.max()) + 1)]


def _index_in(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> Ids:
    found = pc.fill_null(pc.index_in(keys, value_set=among), _FILL)
    parts = [arrow_codes(part) for part in found.chunks if len(part)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _as_mask(flags: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), len(flags), [None, pa.py_buffer(np.packbits(flags, bitorder="little"))])
