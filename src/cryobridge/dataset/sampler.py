"""The order in which a dataset is read: by files, shuffled by blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from torch import distributed
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset

from cryobridge.dataset.particles import ParticleDataset
from cryobridge.errors import UsageError
from cryobridge.jobs.shared_options import Options
from cryobridge.options import Opt, checked, made, takes
from cryobridge.report import counted

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
    drop_last: Annotated[bool, Opt("Leave out the last batches if they are not full.")] = False
    num_replicas: Annotated[
        int | None,
        Opt(
            "How many processes share each epoch; None: those of ``torch.distributed``, where it is initialised.", low=1
        ),
    ] = None
    rank: Annotated[int | None, Opt("Which of them this is, from 0; None as above.", low=0)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        n_processes, rank = self.num_replicas or 1, self.rank
        if self.num_replicas is None and rank is not None:
            raise UsageError("it needs num_replicas", option="rank", hint="Give both, or none of them.")
        if n_processes > 1 and rank is None:
            raise UsageError("it needs rank", option="num_replicas", hint="Give both, or none of them.")
        if rank is not None and rank >= n_processes:
            raise UsageError(
                f"{rank} is out of range: there {counted(n_processes, 'is', 'are')}",
                option="rank",
                hint=f"Give between 0 and {n_processes - 1}.",
            )

    def process(self) -> tuple[int, int]:
        """Return how many processes share the items, and which of them this is."""
        if self.num_replicas is not None:
            return self.num_replicas, self.rank or 0
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_world_size(), distributed.get_rank()
        return 1, 0


@takes(SamplerOptions)
class MicrographSampler(Sampler[list[int]]):
    """Batches of neighbours: images in the order of their files, shuffled by blocks; for torch's ``DataLoader``.

    Single images at random are read more slowly than neighbours, and for most of them another stack has to be opened.
    Here images are put in the order of files and numbers there, and cut into blocks, none of which has images of two
    files: the particles of a micrograph, or a part of them. In each epoch the blocks come in another order, and the
    images of so many blocks in a row as are mixed are shuffled among each other, and cut into batches. Within a batch
    the images are in the order of files, so that each file is read once and forwards. Each image comes once an epoch.

    Where ``torch.distributed`` is initialised, its processes share each epoch: every one has as many batches as the
    others, and each image comes once in all of them together. The last batches are made smaller for that where items
    do not suffice for full ones.

    Parameters
    ----------
    dataset
        A `ParticleDataset`; or what ``Subset``, ``random_split`` and ``ConcatDataset`` of torch make of some.
    **options
        The fields of `SamplerOptions`.

    Raises
    ------
    UsageError
        If an option is wrong, it is another dataset, or there are fewer items than processes.

    Notes
    -----
    As with torch's own samplers, the order of an epoch is the same each time until `set_epoch` is called. Processes
    that share an epoch give the same dataset, options and epoch. What shares batches by itself, as ``accelerate`` does,
    or a loader that one process alone goes through, is given ``num_replicas=1``.

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

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        self.options = made(SamplerOptions, options)
        self.batch_size = self.options.batch_size
        self.drop_last = self.options.drop_last
        self.epoch = 0
        file, index = _places(dataset)
        self._order = np.lexsort((index, file))
        self._block = _blocks(file[self._order], self.options.block_size)
        self._batches()  # raises where they can't be shared

    def __len__(self) -> int:
        """Return how many batches there are; with several processes, for each of them."""
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the numbers of the items of each batch."""
        places = self._shuffled() if self.options.shuffle else np.arange(len(self._order))
        for first, last in self._batches():
            yield self._order[np.sort(places[first:last])].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, from 0, which gives another order; to be called before each.

        Raises
        ------
        UsageError
            If it is no whole number, or negative.
        """
        self.epoch = checked(epoch, int, "epoch", Opt(low=0))

    def _batches(self) -> list[tuple[int, int]]:
        """Return where in the order of the epoch each batch of this process begins and ends."""
        n_processes, rank = self.options.process()
        sizes = _batch_sizes(len(self._order), self.batch_size, n_processes, drop_last=self.drop_last)
        ends = np.cumsum(sizes, dtype=np.int64)
        return list(zip((ends - sizes)[rank::n_processes].tolist(), ends[rank::n_processes].tolist(), strict=True))

    def _shuffled(self) -> NDArray[np.int64]:
        """Return the places in the order of files, shuffled by blocks."""
        rng = np.random.default_rng((self.options.seed, self.epoch))
        n_blocks = int(self._block[-1]) + 1 if len(self._block) else 0
        turn = rng.permutation(n_blocks)[self._block]
        order: NDArray[np.int64] = np.lexsort((rng.random(len(turn)), turn // self.options.mixed_blocks))
        return order


def _batch_sizes(n_items: int, batch_size: int, n_processes: int, *, drop_last: bool) -> NDArray[np.int64]:
    """Return the sizes of all batches of an epoch, of which processes take one in turn; as many for each."""
    n_turns, n_left = divmod(n_items, batch_size * n_processes)
    n_last = 0 if drop_last or not n_left else n_processes
    # Too few for one batch each: what the turn before has is shared too.
    if n_last and n_left < n_processes and n_turns:
        n_turns -= 1
        n_left += batch_size * n_processes
        n_last += n_processes
    if n_left < n_last:
        raise UsageError(
            f"{counted(n_items, 'item')} can't be shared by {n_processes} processes in batches of {batch_size}",
            option="num_replicas",
            hint="Give drop_last=True or another batch_size, or use fewer processes.",
        )
    least, n_larger = divmod(n_left, n_last) if n_last else (0, 0)
    full = [batch_size] * (n_turns * n_processes)
    return np.array([*full, *[least + 1] * n_larger, *[least] * (n_last - n_larger)], np.int64)


def _places(dataset: Dataset[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the file of each item, and its number there."""
    if isinstance(dataset, Subset):
        file, index = _places(dataset.dataset)
        chosen = np.asarray(dataset.indices, np.int64)
        return file[chosen], index[chosen]
    if isinstance(dataset, ConcatDataset):
        files, indices, n_files = [], [], 0
        for file, index in map(_places, dataset.datasets):
            files.append(file + np.int32(n_files))
            indices.append(index)
            n_files += int(file.max(initial=-1)) + 1
        return np.concatenate(files), np.concatenate(indices)
    if not isinstance(dataset, ParticleDataset):
        raise UsageError(
            f"a ParticleDataset is needed, not {type(dataset).__name__}",
            option="dataset",
            hint="Give one, or what Subset and ConcatDataset make of some.",
        )
    return dataset.image_places()


def _blocks(file: NDArray[np.int32], block_size: int) -> NDArray[np.int64]:
    """Return the number of the block of each item; items are in the order of files."""
    n = np.arange(len(file))
    starts = np.r_[True, np.diff(file) != 0][: len(file)]
    in_file = n - np.maximum.accumulate(np.where(starts, n, 0))
    return np.cumsum(starts | (in_file % block_size == 0)) - 1
