"""Memory of batches that nobody has any more, to be used again: fresh memory takes as long as a copy of the images.

A piece of memory is lent to one batch at a time, and is free when all tensors there and their views are gone. What a
worker of a loader lends lies in shared memory, and goes to the process of the loader as it is (see
`cryobridge.dataset.sending`). Then it is free when both have dropped it: a byte behind says whether the other has it.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import get_worker_info

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Bytes: TypeAlias = NDArray[np.uint8]

# Smaller tensors are handed out by the system's own allocator without new pages.
LEAST_BYTES = 1 << 20
# A batch at work, one that was given away, and what is made on the way; of workers, those that a loader asked for, too.
_MOST = 4
_MOST_SHARED = 16
_HUGE_PAGE_BYTES = 1 << 21
# Up to 32 MiB, Linux has blocks that it keeps.
_LARGEST_KEPT_BYTES = 31 << 20
# Of the processor's cache: a copy to the beginning of one takes two thirds of the time of others.
_LINE_BYTES = 64
# What the byte behind shared memory says: whether the other process has it, or has dropped it and nobody may use it.
_HERE, _AWAY, _LOST = range(3)


class Lent:
    """A piece of memory that is lent.

    Parameters
    ----------
    n_bytes
        Its size.
    is_shared
        Whether it can go to another process as it is.
    """

    def __init__(self, n_bytes: int, *, is_shared: bool) -> None:
        self.n_bytes = n_bytes
        self._memory = _private(n_bytes + _LINE_BYTES * is_shared)
        self._shared: Tensor | None = None
        if is_shared:
            # A copy of zeros, once: torch has no other way to memory that all its ways of sharing know.
            shared: Any = torch.from_numpy(self._memory)
            self._shared = shared.share_memory_()
            self._memory = shared.numpy()
            _shared[self._memory.ctypes.data] = self
        # The array by which the last batch holds it, which is gone when all tensors and views are.
        self._holder: weakref.ref[Bytes] | None = None
        self._n_forks = _n_forks

    @property
    def is_free(self) -> bool:
        """Whether nobody uses it."""
        # In this order: what is sent is dropped here after it was marked.
        return (self._holder is None or self._holder() is None) and not self.is_away

    @property
    def is_away(self) -> bool:
        """Whether another process has it."""
        return self._shared is not None and int(self._memory[self.n_bytes]) != _HERE

    @property
    def is_lost(self) -> bool:
        """Whether a fork, here or there, may have it, which does not say when it drops it."""
        return self._n_forks != _n_forks or int(self._memory[self.n_bytes]) == _LOST

    def send(self) -> Tensor:
        """Return the memory that is to go to another process, which calls `received` with it."""
        assert self._shared is not None
        self._memory[self.n_bytes] = _AWAY
        return self._shared

    def lend(self) -> Tensor:
        """Return it as bytes."""
        holder = self._memory[: self.n_bytes]
        self._holder, self._n_forks = weakref.ref(holder), _n_forks
        return torch.from_numpy(holder)


# By their addresses.
_shared: weakref.WeakValueDictionary[int, Lent] = weakref.WeakValueDictionary()
# A fork has the tensors of its parent, and nobody knows when it drops them: what was lent before is not used again.
_n_forks = 0


def _count_fork() -> None:
    global _n_forks  # noqa: PLW0603 - there is one process
    _n_forks += 1


os.register_at_fork(before=_count_fork)


def lent_to(tensor: Tensor) -> Lent | None:
    """Return the shared memory that was lent to a tensor or to what it is a view of; None if there is none."""
    return _shared.get(tensor.untyped_storage().data_ptr()) if _shared else None


def received(shared: Tensor) -> Bytes:
    """Return the memory that another process lends, which is given back to it when the array and its views are gone."""
    memory = shared.numpy()
    holder: Bytes = memory[:-_LINE_BYTES]
    weakref.finalize(holder, _give_back, memory[-_LINE_BYTES:], _n_forks).atexit = False
    return holder


def _give_back(mark: Bytes, n_forks: int) -> None:
    mark[0] = _HERE if n_forks == _n_forks else _LOST


class Recycled:
    """Tensors in memory that was used before, where no tensor uses it any more; for one thread."""

    def __init__(self) -> None:
        self._is_of_worker = get_worker_info() is not None
        self._private: list[Lent] = []
        self._shared: list[Lent] = []
        self._room: Tensor | None = None

    def begin(self, n_bytes: int) -> None:
        """Have the tensors of a batch, of so many bytes, lie together until `end`, if they are to be sent."""
        if self._is_of_worker and n_bytes >= LEAST_BYTES:
            self._shared = [piece for piece in self._shared if not piece.is_lost]
            self._room, self._shared = self._of(self._shared, n_bytes, is_shared=True)

    def end(self) -> None:
        """Have no more tensors lie there."""
        self._room = None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, *, is_sent: bool = True) -> Tensor:
        """Return a tensor of any values, as `torch.empty`; not with those of the batch, unless it is sent."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if is_sent and self._room is not None and n_bytes <= len(self._room):
            memory, self._room = self._room[:n_bytes], self._room[whole(n_bytes, _LINE_BYTES) :]
        elif n_bytes < LEAST_BYTES:
            return torch.empty(shape, dtype=dtype)
        else:
            memory, self._private = self._of(self._private, n_bytes, is_shared=False)
        return memory[:n_bytes].view(dtype).view(shape)

    @staticmethod
    def _of(pieces: list[Lent], n_bytes: int, *, is_shared: bool) -> tuple[Tensor, list[Lent]]:
        """Return a piece that is free, and the pieces, that one the last, without those that are too many."""
        fitting = (one for one in reversed(pieces) if n_bytes <= one.n_bytes <= 2 * n_bytes and one.is_free)
        piece = next(fitting, None) or Lent(n_bytes, is_shared=is_shared)
        others = [one for one in pieces if one is not piece]
        return piece.lend(), [*others, piece][-(_MOST_SHARED if is_shared else _MOST) :]


def keep_what_is_freed() -> None:
    """Have the system's allocator keep what arrays of a few MiB leave, for the next ones.

    That of Linux gives back what it has free above twice the largest block that was ever freed: by and by it keeps
    enough for what is computed of batches, or for each array it fetches pages, which takes as long as the work.
    """
    np.empty(_LARGEST_KEPT_BYTES, np.uint8)


def whole(n_bytes: int, unit: int) -> int:
    """Return the size in whole units, in bytes."""
    return -(-n_bytes // unit) * unit


def _private(n_bytes: int) -> Bytes:
    """Return memory that begins at a page, in huge pages as far as it fills them: a copy to there is fastest."""
    # Of whole huge pages, at whose boundaries systems put such memory; what is not used of the last takes none.
    memory = mmap.mmap(-1, whole(n_bytes, _HUGE_PAGE_BYTES), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE") and n_bytes >= _HUGE_PAGE_BYTES:
        with suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE, 0, n_bytes // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES)
    return np.frombuffer(memory, np.uint8, n_bytes)
