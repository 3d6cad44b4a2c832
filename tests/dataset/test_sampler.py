"""The order in which a dataset is read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader, DistributedSampler, Subset, random_split

import cryobridge as cb
from helpers import noise_images, particle_columns, save_cs, save_mrc

FILES, PER_FILE = 6, 50
N = FILES * PER_FILE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    for file in range(FILES):
        save_mrc(folder / f"{file}.mrc", noise_images(PER_FILE, 8, file), 1.5)
    place = np.random.default_rng(0).permutation(N)
    names = [f"{one // PER_FILE}.mrc" for one in place]
    return cb.ParticleDataset(save_cs(folder / "p.cs", particle_columns(names, place % PER_FILE, box_px=8)))


def places(dataset, numbers):
    file, index = dataset.image_places()
    return list(zip(file[numbers].tolist(), index[numbers].tolist(), strict=True))


def test_without_shuffling_it_is_the_order_of_files(dataset):
    sampler = cb.MicrographSampler(dataset, batch_size=32, shuffle=False)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [32] * 9 + [12] and len(sampler) == 10
    found = places(dataset, [number for batch in batches for number in batch])
    assert found == sorted(found) and len(set(found)) == N


@pytest.mark.parametrize("drop_last", [False, True])
def test_each_image_comes_once_and_batches_are_of_few_blocks(dataset, drop_last):
    sampler = cb.MicrographSampler(dataset, batch_size=32, block_size=10, mixed_blocks=4, drop_last=drop_last, seed=3)
    batches = list(sampler)
    assert len(batches) == len(sampler) == (9 if drop_last else 10)
    numbers = [number for batch in batches for number in batch]
    assert len(set(numbers)) == len(numbers) == (288 if drop_last else N)
    for batch in batches:
        found = places(dataset, batch)
        assert found == sorted(found)
        blocks = {(file, index // 10) for file, index in found}
        assert len(blocks) <= 8  # of two groups at most
    assert numbers != sorted(numbers)


def test_epochs_and_seeds_give_other_orders_and_the_same_ones_again(dataset):
    sampler = cb.MicrographSampler(dataset, seed=1, block_size=10, batch_size=16)
    first = list(sampler)
    assert list(sampler) == first  # until an epoch is set
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(cb.MicrographSampler(dataset, seed=1, block_size=10, batch_size=16)) == first
    assert list(cb.MicrographSampler(dataset, seed=2, block_size=10, batch_size=16)) != first


@pytest.mark.parametrize(
    ("epoch", "text"), [(-1, "epoch: -1 is out of range"), ("1", "epoch: a whole number is needed")]
)
def test_epochs_are_counted_from_0(dataset, epoch, text):
    sampler = cb.MicrographSampler(dataset)
    with pytest.raises(cb.CryobridgeError, match=text):
        sampler.set_epoch(epoch)
    sampler.set_epoch(np.int64(3))
    assert list(sampler) == list(sampler)


def test_mixing_all_blocks_is_a_random_order(dataset):
    sampler = cb.MicrographSampler(dataset, batch_size=30, block_size=1, mixed_blocks=N)
    of_file = dataset.image_places()[0]
    assert all(len(set(of_file[batch].tolist())) >= 4 for batch in sampler)


def test_a_loader_takes_it_for_its_batches(dataset):
    sampler = cb.MicrographSampler(dataset, batch_size=32)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=cb.collate)
    assert len(loader) == len(sampler)
    for batch, numbers in zip(loader, sampler, strict=True):
        assert batch["row"].tolist() == numbers
        assert torch.equal(batch["image"], dataset.batch(numbers)["image"])


def test_parts_of_a_dataset_are_sampled_by_their_own_numbers(dataset):
    train, rest = random_split(dataset, [200, 100], torch.Generator().manual_seed(0))
    sampler = cb.MicrographSampler(train, batch_size=64)
    rows = torch.cat([batch["row"] for batch in DataLoader(train, batch_sampler=sampler, collate_fn=cb.collate)])
    assert sorted(rows.tolist()) == sorted(train.indices)
    inner = Subset(rest, [5, 1, 7])
    assert sorted(number for batch in cb.MicrographSampler(inner) for number in batch) == [0, 1, 2]


def test_datasets_that_are_put_together_are_sampled_as_one(dataset):
    both = dataset + Subset(dataset, range(100, 300))
    batches = list(cb.MicrographSampler(both, batch_size=32, block_size=10, mixed_blocks=4))
    assert sorted(number for batch in batches for number in batch) == list(range(500))
    for batch in batches:  # neighbours of one of them
        of = [(number >= N, dataset.image_places()[0][number if number < N else number - N + 100]) for number in batch]
        assert of == sorted(of)
    loader = DataLoader(both, batch_sampler=cb.MicrographSampler(both, batch_size=100), collate_fn=cb.collate)
    assert sum(len(batch["image"]) for batch in loader) == 500


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("n_processes", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [2, 16, 29, 42, 43, 400])
def test_processes_share_each_epoch_without_repeats_or_gaps(dataset, batch_size, n_processes, drop_last):
    options = {"batch_size": batch_size, "block_size": 10, "drop_last": drop_last, "num_replicas": n_processes}
    samplers = [cb.MicrographSampler(dataset, rank=rank, **options) for rank in range(n_processes)]
    epochs = []
    for epoch in range(2):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        batches = [list(sampler) for sampler in samplers]
        assert [len(found) for found in batches] == [len(sampler) for sampler in samplers]
        assert len({len(found) for found in batches}) == 1
        sizes = [len(batch) for found in batches for batch in found]
        assert all(size == batch_size if drop_last else 0 < size <= batch_size for size in sizes)
        numbers = [number for found in batches for batch in found for number in batch]
        assert len(set(numbers)) == len(numbers)
        assert len(numbers) == (N - N % (batch_size * n_processes) if drop_last else N)
        epochs.append(numbers)
    assert epochs[0] != epochs[1] or len(batches[0]) * n_processes <= 1


def test_one_process_has_the_batches_that_all_have_together(dataset):
    alone = list(cb.MicrographSampler(dataset, batch_size=10, block_size=10))
    both = [list(cb.MicrographSampler(dataset, batch_size=10, block_size=10, num_replicas=2, rank=k)) for k in (0, 1)]
    assert [batch for pair in zip(*both, strict=True) for batch in pair] == alone


def test_items_that_do_not_suffice_for_all_processes_are_an_error(dataset):
    with pytest.raises(cb.CryobridgeError, match="300 items can't be shared by 7 processes in batches of 1") as caught:
        cb.MicrographSampler(dataset, batch_size=1, num_replicas=7, rank=0)
    assert "drop_last=True" in caught.value.hint
    assert len(cb.MicrographSampler(dataset, batch_size=1, num_replicas=7, rank=0, drop_last=True)) == 42
    with pytest.raises(cb.CryobridgeError, match="3 items can't be shared by 7 processes"):
        cb.MicrographSampler(Subset(dataset, [1, 2, 3]), num_replicas=7, rank=0)


def in_a_process(rank, folder):
    """What one of two processes sees; saved in a file."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    dataset = cb.ParticleDataset(next(folder.glob("*.cs")))
    by_blocks = cb.MicrographSampler(dataset, batch_size=16, block_size=10)
    loaders = [
        DataLoader(dataset, batch_sampler=by_blocks, collate_fn=cb.collate),
        DataLoader(dataset, batch_size=16, sampler=DistributedSampler(dataset), collate_fn=cb.collate),
    ]
    rows = [[batch["row"].tolist() for batch in loader] for loader in loaders]
    (folder / f"{rank}.json").write_text(json.dumps([*rows, len(cb.MicrographSampler(dataset, num_replicas=1))]))
    distributed.destroy_process_group()


def test_processes_of_torch_distributed_share_items(dataset, tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(60, 8, 0), 1.5)
    save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 60, np.arange(60), box_px=8))
    multiprocessing.start_processes(in_a_process, (tmp_path,), nprocs=2, start_method="fork")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for first, second in zip(*(of_process[:2] for of_process in found), strict=True):
        assert len(first) == len(second) == 2
        assert sorted(row for batch in first + second for row in batch) == list(range(60))
    assert [of_process[2] for of_process in found] == [1, 1]  # one batch of all, for a process that works alone


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size: 0 is out of range"),
        ({"block_size": 0}, "block_size: 0 is out of range"),
        ({"shuffle": "yes"}, "shuffle"),
        ({"rank": 1}, "rank: it needs num_replicas"),
        ({"num_replicas": 2}, "num_replicas: it needs rank"),
        ({"num_replicas": 2, "rank": 2}, "rank: 2 is out of range"),
        ({"num_replicas": 0, "rank": 0}, "num_replicas: 0 is out of range"),
        ({"seeds": 3}, "seeds: there is no such option"),
    ],
)
def test_wrong_options_are_named(dataset, options, text):
    with pytest.raises(cb.CryobridgeError) as caught:
        cb.MicrographSampler(dataset, **options)
    assert text in str(caught.value)


def test_other_datasets_are_refused():
    with pytest.raises(cb.CryobridgeError, match="a ParticleDataset is needed, not TensorDataset"):
        cb.MicrographSampler(torch.utils.data.TensorDataset(torch.zeros(3)))
