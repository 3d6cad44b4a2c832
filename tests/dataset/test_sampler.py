"""The order in which a dataset is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, random_split

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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size: 0 is out of range"),
        ({"block_size": 0}, "block_size: 0 is out of range"),
        ({"shuffle": "yes"}, "shuffle"),
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
