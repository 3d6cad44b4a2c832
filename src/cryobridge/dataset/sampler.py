"""The order in which a dataset is read: by files, shuffled by blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from torch.utils.data import Dataset, Sampler, Subset

from cryobridge.dataset.particles import ParticleDataset
from cryobridge.errors import UsageError
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt, made, takes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SamplerOptions(Options):
    """How a dataset is shuffled and cut into batches.

    Raises
    ------
    UsageError
        If a value is of another type or out of bounds.
    """

    batch_size: Annotated[int, Opt("Items in a batch.", low=1)] = 256
    shuffle: Annotated[bool, Opt("Whether blocks, and the items of blocks, are shuffled; else the order of files.")] = (
        True
    )
    seed: Annotated[int, Opt("Of the shuffling; with the epoch it gives one order, on all machines.", low=0)] = 0
    block_size: Annotated[int, Opt("Images at most that stay together: neighbours in one file.", low=1)] = 64
    mixed_blocks: Annotated[
        int,
        Opt("How many blocks are mixed with each other: more mix better, fewer are read faster.", low=1),
    ] = 16
    drop_last: Annotated[bool, Opt("Leave out the last batch if it is not full.")] = False


@takes(SamplerOptions)
class MicrographSampler(Sampler[list[int]]):
    """Batches of neighbours: images in the order of their files, shuffled by blocks; for torch's ``DataLoader``.

    Single images at random are read more slowly than neighbours, and for most of them another stack has to be opened.
    Here images are put in the order of files and numbers there, and cut into blocks, none of which has images of two
    files: the particles of a micrograph, or a part of them. In each epoch the blocks come in another order, and the
    images of so many blocks in a row as are mixed are shuffled among each other, and cut into batches. Within a batch
    the images are in the order of files, so that each file is read once and forwards. Each image comes once an epoch.

    Parameters
    ----------
    dataset
        A `ParticleDataset`, or some of one: what ``torch.utils.data.random_split`` and ``Subset`` give.
    **options
        The fields of `SamplerOptions`.

    Raises
    ------
    UsageError
        If an option is wrong, or it is another dataset.

    Notes
    -----
    As with torch's own samplers, the order of an epoch is the same each time until `set_epoch` is called.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from torch.utils.data import DataLoader
    >>> dataset = cb.ParticleDataset("J4")
    >>> sampler = cb.MicrographSampler(dataset, batch_size=4, seed=1)
    >>> loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=cb.collate)
    >>> for epoch in range(2):
    ...     sampler.set_epoch(epoch)
    ...     shapes = [batch["image"].shape for batch in loader]
    """

    def __init__(self, dataset: ParticleDataset | Subset[Any], **options: Any) -> None:
        self.options = made(SamplerOptions, options)
        self.batch_size = self.options.batch_size
        self.drop_last = self.options.drop_last
        self.epoch = 0
        file, index = _places(dataset)
        self._order = np.lexsort((index, file))
        self._block = _blocks(file[self._order], self.options.block_size)

    def __len__(self) -> int:
        """Return how many batches there are."""
        n_items = len(self._order)
        return n_items // self.batch_size if self.drop_last else -(-n_items // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the numbers of the items of each batch."""
        places = self._shuffled() if self.options.shuffle else np.arange(len(self._order))
        for number in range(len(self)):
            batch = places[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._order[np.sort(batch)].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, which gives another order; to be called before each."""
        self.epoch = epoch

    def _shuffled(self) -> NDArray[np.int64]:
        """Return the places in the order of files, shuffled by blocks."""
        rng = np.random.default_rng((self.options.seed, self.epoch))
        n_blocks = int(self._block[-1]) + 1 if len(self._block) else 0
        turn = rng.permutation(n_blocks)[self._block]
        order: NDArray[np.int64] = np.lexsort((rng.random(len(turn)), turn // self.options.mixed_blocks))
        return order


def _places(dataset: Dataset[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the file of each item, and its number there."""
    if isinstance(dataset, Subset):
        file, index = _places(dataset.dataset)
        chosen = np.asarray(dataset.indices, np.int64)
        return file[chosen], index[chosen]
    if not isinstance(dataset, ParticleDataset):
        raise UsageError(
            f"a ParticleDataset is needed, not {type(dataset).__name__}",
            option="dataset",
            hint="Give one, or a Subset of one.",
        )
    return dataset.image_places()


def _blocks(file: NDArray[np.int32], block_size: int) -> NDArray[np.int64]:
    """Return the number of the block of each item; items are in the order of files."""
    n = np.arange(len(file))
    starts = np.r_[True, np.diff(file) != 0][: len(file)]
    in_file = n - np.maximum.accumulate(np.where(starts, n, 0))
    return np.cumsum(starts | (in_file % block_size == 0)) - 1
