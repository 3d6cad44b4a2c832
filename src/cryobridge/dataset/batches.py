"""What a dataset gives: tensors by their names, for one particle or for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from cryobridge.errors import UsageError


class Batch(dict[str, Tensor]):
    """Tensors by their names; of many particles, with the particle as the first axis.

    A dictionary, but for what it says when a name is asked for that it has not.
    """

    def __missing__(self, name: object) -> Tensor:
        if isinstance(name, int):  # what torch's default_collate asks of a list of items
            raise UsageError("this is a whole batch, which is not put together", hint="Give collate_fn=cb.collate.")
        raise KeyError(f"there is no {name!r}: the `absent` of the dataset says why; it has {', '.join(self)}")


def collate(items: Any) -> Any:
    """Make a batch of items, for ``collate_fn`` of torch's ``DataLoader``; a batch that is ready stays as it is.

    Parameters
    ----------
    items
        A `Batch`; or a list of items, each a dictionary of tensors, or what a ``transform`` made of it.

    Returns
    -------
    Batch
        Tensors have the types that they had, with the item as the first axis. Of items that are no dictionaries,
        what ``torch.utils.data.default_collate`` makes.

    Raises
    ------
    UsageError
        If items have different names.

    Examples
    --------
    >>> import cryobridge as cb
    >>> dataset = cb.ParticleDataset("J4")
    >>> cb.collate([dataset[0], dataset[5]])["image"].shape
    torch.Size([2, 96, 96])
    """
    if isinstance(items, Mapping):
        return items
    if not isinstance(items, Sequence) or not items or not all(isinstance(item, Mapping) for item in items):
        return default_collate(items)
    names = dict.fromkeys(name for item in items for name in item)
    odd = [name for name in names if not all(name in item for item in items)]
    if odd:
        raise UsageError(
            f"not all items have {', '.join(map(repr, odd))}", hint="Have the transform give each item the same names."
        )
    return Batch({name: _stacked([item[name] for item in items]) for name in names})


def _stacked(values: list[Any]) -> Any:
    return torch.stack(values) if all(isinstance(value, Tensor) for value in values) else default_collate(values)
