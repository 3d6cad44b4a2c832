"""Batches from process to process: what is sent, whose memory it is, and when that is used again."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import sys
import warnings
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import cryobridge as cb
from cryobridge.dataset import Batch, memory
from helpers import noise_images, particle_columns, save_cs, save_mrc
from tensor_views import KINDS_OF_VIEWS

N, BOX, BATCH = 160, 96, 40  # 1.4 MiB of images in a batch


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sending")
    save_mrc(folder / "a.mrc", noise_images(N, BOX), 1.5)
    return save_cs(folder / "a.cs", particle_columns(["a.mrc"] * N, range(N), box_px=BOX))


@pytest.fixture
def dataset(path):
    return cb.ParticleDataset(path, ctf="image")


@pytest.fixture
def as_worker(monkeypatch):
    """Have this process lend memory as workers do."""
    monkeypatch.setattr(memory, "get_worker_info", object)


def loader_of(dataset, method="fork", **options):
    return DataLoader(
        dataset,
        **{
            "batch_size": BATCH,
            "num_workers": 1,
            "collate_fn": cb.collate,
            "multiprocessing_context": method,
            **options,
        },
    )


def sent(batch):
    return bytes(ForkingPickler.dumps(batch))


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and torch.equal(found[name], values), name


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_of_workers_are_those_of_the_dataset_and_are_kept(dataset, method):
    expected = [dataset.batch(range(first, first + BATCH)) for first in range(0, N, BATCH)]
    loader = loader_of(dataset, method, num_workers=2 if method == "fork" else 1, persistent_workers=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that can't be written to
        for _ in range(3 if method == "fork" else 1):
            kept = list(loader)  # none is overwritten by a later one
            for found, batch in zip(kept, expected, strict=True):
                assert_equal(found, batch)
                assert type(found) is Batch
    # Written to, they change nothing else.
    for number, found in enumerate(kept):
        for place, name in enumerate(found):
            found[name].fill_(100 * number + place)
    for number, found in enumerate(kept):
        for place, name in enumerate(found):
            assert bool((found[name] == 100 * number + place).all())
    del loader


@pytest.mark.parametrize("options", [{}, {"polar": cb.PolarGrid.for_box(BOX, n_inplanes=64)}, {"ctf": "image"}])
def test_a_batch_is_sent_by_one_descriptor_and_without_a_copy(path, as_worker, monkeypatch, options):
    descriptors = []
    real = reduction.DupFd
    monkeypatch.setattr(reduction, "DupFd", lambda fd: descriptors.append(fd) or real(fd))
    dataset = cb.ParticleDataset(path, **options)
    batch = dataset.batch(range(BATCH))
    place, size = batch["image"].data_ptr(), len(sent(batch))
    assert len(descriptors) == 1 and batch["image"].data_ptr() == place
    assert size < 40 * BATCH * 4 + 5_000  # what is not large goes along, and nothing else
    del descriptors[:]
    sent(dataset.batch(range(2)))
    assert not descriptors


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_batches_that_are_kept_take_a_descriptor_each(dataset):
    batches = iter(loader_of(dataset, batch_size=20))
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = list(batches)
    assert len(kept) == N // 20 and len(list(Path("/proc/self/fd").iterdir())) <= before + len(kept) + 2


def test_memory_that_was_sent_is_used_again_when_it_is_dropped_here_and_there(as_worker, dataset):
    batch = dataset.batch(range(BATCH))
    place, expected = batch["image"].data_ptr(), {name: values.clone() for name, values in batch.items()}
    received = pickle.loads(sent(batch))
    assert_equal(received, expected)
    del batch
    other = dataset.batch(range(BATCH, 2 * BATCH))
    assert other["image"].data_ptr() != place
    assert_equal(received, expected)
    view = received["ctf"][3]
    del received
    assert dataset.batch(range(BATCH))["image"].data_ptr() != place
    del view
    gc.collect()
    kept = [dataset.batch(range(BATCH)) for _ in range(2)]
    assert place in [one["image"].data_ptr() for one in kept]


@pytest.mark.parametrize("kept", KINDS_OF_VIEWS)
def test_a_view_of_any_kind_keeps_what_was_received(as_worker, dataset, kept):
    batch = dataset.batch(range(BATCH))
    place = batch["image"].data_ptr()
    view = kept(pickle.loads(sent(batch))["image"])
    del batch
    gc.collect()
    others = [dataset.batch(range(BATCH)) for _ in range(4)]
    assert place not in [other["image"].data_ptr() for other in others]
    del view


def test_a_batch_that_is_away_is_sent_again_as_a_copy(as_worker, dataset):
    batch = dataset.batch(range(BATCH))
    first, second = sent(batch), sent(batch)
    one, two = pickle.loads(first), pickle.loads(second)
    assert_equal(two, batch)
    one["image"].fill_(0)
    two["image"].fill_(1)
    assert not one["image"].any()


def test_what_a_fork_may_have_is_not_used_again(as_worker, dataset):
    received, lent = pickle.loads(sent(dataset.batch(range(BATCH)))), dataset.batch(range(BATCH))
    expected = lent["image"].clone()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def look(batches):
        there.recv()
        there.send([torch.equal(batch["image"], expected) for batch in batches])

    process = context.Process(target=look, args=([received, lent],), daemon=True)
    process.start()
    del process, received, lent
    gc.collect()
    kept = [dataset.batch(range(BATCH, 2 * BATCH)) for _ in range(4)]
    here.send("look")
    assert here.poll(60) and here.recv() == [True, True]
    # Nor is it held any longer, while what was lent since then is used again.
    assert len(dataset._images.memory._shared) == len(kept)
    place = kept.pop()["image"].data_ptr()
    assert dataset.batch(range(BATCH))["image"].data_ptr() == place


def test_what_is_odd_goes_as_torch_sends_it():
    large = torch.arange(2**19, dtype=torch.float32)
    batch = Batch(
        {
            "empty": torch.empty((0, 3)),
            "turned": torch.arange(6).view(2, 3).T,
            "number": torch.tensor(2.5, dtype=torch.float64),
            "truth": torch.tensor([True, False]),
            "complex": torch.tensor([1 + 2j]),
            "half": torch.ones(3, dtype=torch.bfloat16),
            "large": large,
            "part": large[5:9],
            "needs_grad": torch.ones(2, requires_grad=True),
        }
    )
    found = pickle.loads(sent(batch))
    assert_equal(found, batch)
    assert found["needs_grad"].requires_grad
    assert_equal(pickle.loads(pickle.dumps(batch)), batch)  # to a file: no shared memory
    many = Batch({str(number): torch.full((2**16,), float(number)) for number in range(9)})
    assert len(sent(many)) < 5_000  # so many bytes together do not go through a pipe
    assert_equal(pickle.loads(sent(many)), many)


def test_what_others_make_of_batches_and_items_is_sent_too(path):
    expected = cb.ParticleDataset(path).batch(range(N))
    pairs = list(loader_of(cb.ParticleDataset(path), collate_fn=images_and_uids))
    assert torch.equal(torch.cat([images for images, _ in pairs]), expected["image"])
    assert torch.equal(torch.cat([uid for _, uid in pairs]), expected["uid"])
    items = cb.ParticleDataset(path, transform=dict)
    for collate in (cb.collate, default_collate):
        batches = list(loader_of(items, collate_fn=collate))
        for name, values in expected.items():
            assert torch.equal(torch.cat([batch[name] for batch in batches]), values), name
    singles = list(loader_of(cb.ParticleDataset(path, rows=range(5)), batch_size=None))
    assert torch.equal(torch.stack([item["image"] for item in singles]), expected["image"][:5])


def images_and_uids(batch):
    return batch["image"], batch["uid"]


def test_torchs_other_way_of_sharing_is_kept(dataset):
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        for _ in range(2):
            for number, found in enumerate(loader_of(dataset)):
                assert_equal(found, dataset.batch(range(number * BATCH, (number + 1) * BATCH)))
    finally:
        torch.multiprocessing.set_sharing_strategy(before)
