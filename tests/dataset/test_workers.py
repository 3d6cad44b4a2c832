"""Datasets in other processes and threads: forked, spawned, from a fork server."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
import sys
import tracemalloc
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import cryobridge as cb
from cryobridge.formats import image_reader
from cryobridge.model.particles import CTF, ImageRefs, Labels, Optics, ParticleSet, Poses
from helpers import noise_images, particle_columns, save_cs, save_mrc

# Four workers are more than some machines have cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
FILES, PER_FILE, BOX = 3, 40, 16
N = FILES * PER_FILE


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    for file in range(FILES):
        save_mrc(folder / f"{file}.mrc", noise_images(PER_FILE, BOX, file), 1.5)
    place = np.random.default_rng(0).permutation(N)
    columns = particle_columns([f"{one // PER_FILE}.mrc" for one in place], place % PER_FILE, box_px=BOX)
    return save_cs(folder / "p.cs", columns | {"blob/sign": np.full(N, -1, "f4")})


def seen(batches):
    """What came: uid, and the image by its bytes."""
    found = []
    for batch in batches:
        for uid, image in zip(batch["uid"].tolist(), batch["image"], strict=True):
            found.append((uid, hashlib.sha256(image.numpy().tobytes()).hexdigest()))
    return found


@pytest.mark.parametrize("order", ["rows", "shuffled", "sampler"])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_workers_give_the_images_that_reading_in_order_gives(path, workers, order):
    dataset = cb.ParticleDataset(path)
    expected = seen([dataset.batch([row]) for row in range(N)])
    assert len(set(expected)) == N
    if order == "sampler":
        batches = {"batch_sampler": cb.MicrographSampler(dataset, batch_size=16, block_size=8, mixed_blocks=3)}
    else:
        batches = {"batch_size": 16, "shuffle": order == "shuffled"}
    found = seen(loader_of(dataset, workers, "fork", **batches))
    assert set(found) == set(expected) and len(found) == N
    if order == "rows":
        assert found == expected


def loader_of(dataset, workers, method, **options):
    method = method if workers else None
    return DataLoader(dataset, num_workers=workers, collate_fn=cb.collate, multiprocessing_context=method, **options)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_other_kinds_make_polar_samples_and_ctfs(path, method):
    dataset = cb.ParticleDataset(path, polar=cb.PolarGrid.for_box(BOX), ctf="image")
    whole = dataset.batch(range(N))  # this process has files and a plan of the transform by now
    batches = list(loader_of(dataset, 2, method, batch_size=32))
    for name, values in whole.items():
        assert torch.equal(torch.cat([batch[name] for batch in batches]), values), name


def test_forks_do_not_share_the_files_of_the_process_that_made_them(path):
    """Each moves in the file for itself: a file that two share would give one the images of the other."""
    dataset = cb.ParticleDataset(path)
    expected = [dataset.batch(range(k, k + 4))["image"] for k in range(0, N, 4)]  # the files are open
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def reads(number):
        wrong = 0
        for _ in range(20):
            for k in np.random.default_rng(number).permutation(len(expected)).tolist():
                wrong += not torch.equal(dataset.batch(range(4 * k, 4 * k + 4))["image"], expected[k])
        results.put((number, os.getpid(), wrong))

    processes = [context.Process(target=reads, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for k, images in enumerate(expected):
        assert torch.equal(dataset.batch(range(4 * k, 4 * k + 4))["image"], images)
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert {number for number, _, _ in found} == {0, 1, 2} and not any(wrong for _, _, wrong in found)


def opened_stacks():
    """How many stacks this process has open; a memory map holds a file too."""
    opened = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the folder itself
            opened += entry.readlink().suffix == ".mrc"
    return opened


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_fork_reads_by_files_of_its_own(path):
    dataset = cb.ParticleDataset(path)
    dataset.batch(range(N))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: (dataset.batch(range(N)), there.send(opened_stacks())))
    process.start()
    # Those of the parent were closed when its own were opened: a file and its map for each stack.
    assert here.poll(60)
    assert here.recv() <= opened_stacks() == 2 * FILES
    process.join(60)
    assert torch.isfinite(dataset.batch(range(N))["image"]).all()


def test_files_are_opened_once_and_no_more_of_them_than_the_system_allows(path, monkeypatch):
    opened = Counter()
    real = image_reader.open_input

    def counting(file):
        opened[file.name] += 1
        return real(file)

    monkeypatch.setattr(image_reader, "open_input", counting)
    dataset = cb.ParticleDataset(path)
    for _ in range(3):
        for batch in cb.MicrographSampler(dataset, batch_size=10, block_size=4):
            dataset.batch(batch)
    assert opened == {f"{file}.mrc": 1 for file in range(FILES)}
    monkeypatch.setattr(image_reader.resource, "getrlimit", lambda _: (8, 8))
    few = cb.ParticleDataset(path)
    assert torch.equal(few.batch(range(N))["image"], dataset.batch(range(N))["image"])


def test_threads_read_side_by_side(path):
    dataset = cb.ParticleDataset(path, polar=cb.PolarGrid.for_box(BOX))
    whole = dataset.batch(range(N))
    firsts = range(0, N, 4)
    with ThreadPoolExecutor(4) as pool:
        for first, batch in zip(firsts, pool.map(lambda k: dataset.batch(range(k, k + 4)), firsts), strict=True):
            assert torch.equal(batch["polar"], whole["polar"][first : first + 4])


def test_no_file_and_no_image_goes_to_another_process(path, tmp_path):
    n, box = 64, 128
    save_mrc(tmp_path / "large.mrc", noise_images(n, box), 1.5)  # 4 MB
    large = save_cs(tmp_path / "large.cs", particle_columns(["large.mrc"] * n, range(n), box_px=box))
    dataset = cb.ParticleDataset(large, polar=cb.PolarGrid.for_box(box))
    before = len(pickle.dumps(dataset))
    dataset.batch(range(n))  # now files, maps and a plan are there
    assert len(pickle.dumps(dataset)) < before + 5_000 < 20_000  # the grid has its nodes by now
    assert len(pickle.dumps(cb.ParticleDataset(large, rows=[3, 1]))) < before - 50 * n
    again = pickle.loads(pickle.dumps(cb.ParticleDataset(large, rows=[3, 1])))
    assert again[0]["row"] == 3 and torch.equal(again[0]["image"], dataset[3]["image"])
    assert again.particles.uid.tolist() == [2**63 + 3, 2**63 + 1] and again.rows.tolist() == [3, 1]


def test_work_is_done_by_one_thread(path, monkeypatch):
    used = []
    real = cb.PolarTransform.forward

    def forward(self, images, out=None):
        used.append(torch.get_num_threads())
        return real(self, images, out)

    monkeypatch.setattr(cb.PolarTransform, "forward", forward)
    torch.set_num_threads(2)
    try:
        cb.ParticleDataset(path, polar=cb.PolarGrid.for_box(BOX)).batch(range(8))
        assert used == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_default_collate_is_told_what_to_give(path):
    dataset = cb.ParticleDataset(path)
    with pytest.raises(cb.CryobridgeError, match="a whole batch") as caught:
        next(iter(DataLoader(dataset, batch_size=4)))
    assert caught.value.hint == "Give collate_fn=cb.collate."
    assert next(iter(DataLoader(dataset, batch_size=None)))["image"].shape == (BOX, BOX)


def test_batches_are_copied_and_moved_as_dictionaries_are(path):
    """What torch does to pin the memory of a batch, and other packages to move it to a device."""
    batch = cb.ParticleDataset(path).batch([3, 1])
    for other in (copy.copy(batch), type(batch)(OrderedDict(batch)), pickle.loads(pickle.dumps(batch))):
        assert type(other) is type(batch) and list(other) == list(batch)
        assert torch.equal(other["image"], batch["image"])


def test_errors_of_workers_are_those_of_the_dataset(path, tmp_path):
    for source in path.parent.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    dataset = cb.ParticleDataset(tmp_path / path.name)
    (tmp_path / "1.mrc").unlink()
    with pytest.raises(cb.CryobridgeError, match=r"1\.mrc: can't be read"):
        list(DataLoader(dataset, batch_size=16, num_workers=1, collate_fn=cb.collate, multiprocessing_context="fork"))
    save_mrc(tmp_path / "1.mrc", noise_images(PER_FILE, BOX + 8, 1), 1.5)
    with pytest.raises(cb.CryobridgeError, match=r"1\.mrc: the file was replaced by another one since"):
        dataset.batch(range(N))


def test_a_copied_dataset_has_particles_for_results_but_no_names_of_images(path, tmp_path):
    dataset = cb.ParticleDataset(path, rows=[7, 3])
    particles = pickle.loads(pickle.dumps(dataset)).particles
    assert particles.uid.tolist() == dataset.particles.uid.tolist()
    assert particles.with_columns(cluster=[1, 0]).cluster.tolist() == [1, 0]
    with pytest.raises(cb.CryobridgeError, match="image"):
        cb.write(particles, tmp_path / "a.star")


def test_a_million_rows_take_little_memory(path):
    n = 1_000_000
    files = tuple(str(path.parent / f"{file}.mrc") for file in range(FILES))
    labels = Labels((np.arange(n) % FILES).astype(np.int32), files)
    value = np.random.default_rng(0).random(n)
    one = np.ones(1)
    optics = Optics(np.ones(1, np.int64), ("1",), 300 * one, 2.7 * one, 0.1 * one, 1.5 * one, np.full(1, BOX))
    particles = ParticleSet(
        n,
        path,
        uid=np.arange(n, dtype="u8"),
        images=ImageRefs(labels, np.arange(n) % PER_FILE),
        optics=optics,
        optics_index=np.zeros(n, np.int32),
        ctf=CTF(value, value, value),
        poses=Poses(np.broadcast_to(np.eye(3), (n, 3, 3)), np.zeros((n, 2)), "by hand"),
        half_set=1 + np.arange(n) % 2,
    )
    for options in ({}, {"half_set": 1}):
        tracemalloc.start()
        dataset = cb.ParticleDataset(particles, **options)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 16 * n and peak < 64 * n
        assert len(dataset) == n / (1 + len(options))
    assert dataset[123_456]["row"] == 2 * 123_456
