"""Batches on their way to another process: as few pieces of shared memory as can be, and no copy of images.

Torch sends each tensor in shared memory of its own, for which both processes open a connection: for a batch of twenty
small ones that takes longer than to compute what is in them. Here small ones go as bytes, all together, and large ones
in the memory where they were made, if that is shared.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from cryobridge.dataset.batches import Batch
from cryobridge.dataset.memory import LEAST_BYTES, lent_to, received, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    # Type, shape, where it begins in bytes.
    Layout: TypeAlias = tuple[torch.dtype, tuple[int, ...], int]

# More of them go in shared memory: a pipe holds 64 KiB at a time.
_MOST_BYTES = 1 << 18
# Tensors begin at multiples of the size of the largest number.
_STEP_BYTES = 16


def reduced(batch: Batch) -> tuple[Callable[..., Batch], tuple[Any, ...]]:
    """Return what makes the batch again in another process, and what that needs."""
    small: dict[str, Any] = {}
    large: dict[str, tuple[int, Layout]] = {}
    pieces: dict[int, Tensor] = {}
    others: dict[str, Any] = {}
    for name, value in batch.items():
        if not _is_plain(value):
            others[name] = value
        elif (piece := lent_to(value)) is not None and (id(piece) in pieces or not piece.is_away):
            pieces.setdefault(id(piece), piece.send())
            place = value.data_ptr() - pieces[id(piece)].data_ptr()
            large[name] = list(pieces).index(id(piece)), (value.dtype, tuple(value.shape), place)
        else:
            (small if value.nbytes < LEAST_BYTES else others)[name] = value
    layouts, packed = _packed(small)
    return _rebuilt, (list(batch), layouts, packed, large, list(pieces.values()), others)


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose bytes say all."""
    return (
        type(value) is Tensor
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and value.is_contiguous()
        and not (value.requires_grad or value.is_conj() or value.is_neg() or value.is_quantized)
    )


def _packed(tensors: dict[str, Tensor]) -> tuple[dict[str, Layout], bytes | Tensor]:
    """Return tensors as bytes, and where each of them is."""
    layouts: dict[str, Layout] = {}
    parts, size = [], 0
    for name, tensor in tensors.items():
        layouts[name] = tensor.dtype, tuple(tensor.shape), size
        data = _bytes_of(tensor)
        parts += [data, bytes(whole(len(data), _STEP_BYTES) - len(data))]
        size += len(data) + len(parts[-1])
    packed = b"".join(parts)
    return layouts, packed if size <= _MOST_BYTES else torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _bytes_of(tensor: Tensor) -> bytes:
    try:
        return tensor.numpy().tobytes()
    except TypeError:  # numbers that numpy has not, such as bfloat16
        return tensor.view(-1).view(torch.uint8).numpy().tobytes()


def _rebuilt(
    names: list[str],
    layouts: dict[str, Layout],
    packed: bytes | Tensor,
    large: dict[str, tuple[int, Layout]],
    pieces: list[Tensor],
    others: dict[str, Any],
) -> Batch:
    memory = bytearray(packed) if isinstance(packed, bytes) else packed.numpy()
    found = {name: _tensor(memory, layout) for name, layout in layouts.items()}
    holders = [received(piece) for piece in pieces]
    found |= {name: _tensor(holders[number], layout) for name, (number, layout) in large.items()}
    found |= others
    return Batch({name: found[name] for name in names})


def _tensor(memory: Any, layout: Layout) -> Tensor:
    dtype, shape, first = layout
    n = math.prod(shape)
    if not n:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(memory, dtype=dtype, count=n, offset=first)
    return tensor if len(shape) == 1 else tensor.view(shape)
