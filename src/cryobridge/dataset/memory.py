"""Memory of batches that nobody has any more, to be used again: fresh memory takes as long as a copy of the images."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Smaller pieces are handed out by the system's own allocator without new pages.
_LEAST_BYTES = 1 << 20
# A batch at work, one that was given away, and what is made on the way.
_MOST = 4


class Recycled:
    """Tensors in memory that was used before, where no tensor uses it any more; for one thread."""

    def __init__(self) -> None:
        # Each piece with the array by which the last tensor in it holds it; that is gone when all its tensors are.
        self._pieces: list[tuple[Tensor, weakref.ref[NDArray[Any]]]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any values, as `torch.empty`."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes < _LEAST_BYTES:
            return torch.empty(shape, dtype=dtype)
        piece = self._unused(n_bytes)
        holder: NDArray[Any] = piece[:n_bytes].numpy()
        self._pieces = [*self._pieces, (piece, weakref.ref(holder))][-_MOST:]
        return torch.from_numpy(holder).view(dtype).view(shape)

    def _unused(self, n_bytes: int) -> Tensor:
        for number, (piece, holder) in enumerate(self._pieces):
            if holder() is None and n_bytes <= len(piece) <= 2 * n_bytes:
                return self._pieces.pop(number)[0]
        return torch.empty(n_bytes, dtype=torch.uint8)
