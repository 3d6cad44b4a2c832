"""Time of `cb.ParticleDataset` an item, beside a reader of plain blocks of the same file in the same run.

    python benchmarks/dataset.py [--images N] [--box PX] [--repeats N] [--rows N]

The images are read in batches of 256 by torch's DataLoader. "plain blocks" reads the same blocks into fresh arrays of
numpy and does nothing else; how fast it is depends on where they happen to lie, by half. "plain blocks, aligned" reads
them into the memory that batches get, which begins at a page and is of huge ones; no reader is faster. As the dataset
does, both have the block before in memory while they read the next. All take turns, so that what else the machine does
falls on all. "CPU" is the time of the processor, which other work beside it changes less. "cold" is after the system
was told to forget the file. With workers the first batches are left out, before and in which they start and take the
memory that all others use again; they are forked.

"a million rows" makes a dataset of particles that were read, of one stack: "held" and "peak" are the bytes a row that
Python allocates (tracemalloc, arrays included), "sent" the size of a pickle, which is what a spawned worker gets.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

import cryobridge as cb
from cryobridge.dataset.memory import Recycled
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.model.particles import Labels

BATCH = 256
N_FIRST = 8
PIXEL_SIZE_A = 1.2
WORKERS = (1, 2)
# An item's, and that of the processor, in microseconds.
Times = tuple[float, float]


def simulate(folder: Path, n: int, box: int) -> Path:
    """Write a stack of noise."""
    rng = np.random.default_rng(0)
    with MrcStackWriter(folder / "stack.mrcs", (box, box), PIXEL_SIZE_A) as stack:
        for first in range(0, n, BATCH):
            stack.append(rng.standard_normal((min(BATCH, n - first), box, box), dtype=np.float32))
    return folder / "stack.mrcs"


def particles_of(folder: Path, n: int, n_images: int, box: int, sign: float) -> Path:
    """Write cryoSPARC's metadata of particles, whose images are those of the stack over and over."""
    rng = np.random.default_rng(0)
    columns = {
        "uid": np.arange(n, dtype="u8") + 2**63,
        "blob/path": Labels(np.zeros(n, np.int32), ("stack.mrcs",)),
        "blob/idx": (np.arange(n) % n_images).astype("u4"),
        "blob/shape": np.full((n, 2), box, "u4"),
        "blob/psize_A": np.full(n, PIXEL_SIZE_A, "f4"),
        "blob/sign": np.full(n, sign, "f4"),
        "ctf/exp_group_id": np.ones(n, "u4"),
        "ctf/accel_kv": np.full(n, 300, "f4"),
        "ctf/cs_mm": np.full(n, 2.7, "f4"),
        "ctf/amp_contrast": np.full(n, 0.1, "f4"),
        **{f"ctf/df{k}_A": rng.uniform(8000, 20000, n).astype("f4") for k in (1, 2)},
        "ctf/df_angle_rad": rng.uniform(-1, 1, n).astype("f4"),
        "ctf/phase_shift_rad": np.zeros(n, "f4"),
        "alignments3D/pose": rng.normal(0, 1, (n, 3)).astype("f4"),
        "alignments3D/shift": rng.normal(0, 3, (n, 2)).astype("f4"),
        "alignments3D/psize_A": np.full(n, PIXEL_SIZE_A, "f4"),
        "alignments3D/split": (np.arange(n) % 2).astype("u4"),
        "alignments3D/class": np.zeros(n, "u4"),
    }
    path = folder / f"particles_{n}_{sign:g}.cs"
    write_cs(path, columns)
    return path


def blocks(stack: Path, n: int, box: int, memory: Recycled | None = None) -> Iterable[Any]:
    """Read a stack in blocks, each into a fresh array, or into memory that was used before."""
    with stack.open("rb", buffering=0) as file:
        file.seek(1024)
        for first in range(0, n, BATCH):
            shape = (min(BATCH, n - first), box, box)
            block = np.empty(shape, np.float32) if memory is None else memory.empty(shape, torch.float32).numpy()
            file.readinto(block.data)
            yield block


def microseconds(batches: Callable[[], Iterable[Any]], n: int) -> Times:
    """Return the time an item, and that of the processor."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in batches():
        pass
    return (time.perf_counter() - start) / n * 1e6, (time.process_time() - cpu) / n * 1e6


def behind_the_first(loader: Iterable[Any], n: int) -> float:
    """Return the time an item without the first batches, in which workers start and take memory."""
    batches = iter(loader)
    for _ in range(N_FIRST):
        next(batches)
    return microseconds(lambda: batches, n - N_FIRST * BATCH)[0]


def forget(stack: Path) -> None:
    """Have the system drop a file from its cache, if it can."""
    with stack.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turns(ways: dict[str, Callable[[], Iterable[Any]]], n: int, repeats: int) -> dict[str, list[Times]]:
    """Return the times an item of each way, all in turn."""
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for way in ways.values():
        microseconds(way, n)  # pages are mapped, and the cache is warm
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(microseconds(way, n))
    return times


def show(name: str, times: list[Times], plain: list[Times] | None = None) -> None:
    """Print a line: the fastest, the median, that of the processor, and the speeds beside the plain reader's."""
    found = np.array(times)
    text = f"  {name:36} {found[:, 0].min():8.2f} {np.median(found[:, 0]):8.2f} {np.median(found[:, 1]):8.2f}"
    if plain is not None:
        of_plain = np.median(np.array(plain) / found, axis=0)
        text += f"   {of_plain[0]:4.2f} {of_plain[1]:4.2f}"
    print(text, flush=True)


def reading(stack: Path, metadata: Path, dark: Path, n: int, box: int, repeats: int) -> None:
    """Time batches without a transform, where the system has the file in its cache."""
    dataset, inverted = cb.ParticleDataset(metadata), cb.ParticleDataset(dark)
    sampler = partial(cb.MicrographSampler, dataset, batch_size=BATCH)
    loader = partial(DataLoader, collate_fn=cb.collate)
    memory = Recycled()
    ways: dict[str, Callable[[], Iterable[Any]]] = {
        "plain blocks": lambda: blocks(stack, n, box),
        "plain blocks, aligned": lambda: blocks(stack, n, box, memory),
        "in the order of the file": lambda: loader(dataset, batch_size=BATCH),
        "shuffled": lambda: loader(dataset, batch_size=BATCH, shuffle=True),
        "MicrographSampler": lambda: loader(dataset, batch_sampler=sampler()),
        "dark particles, times -1": lambda: loader(inverted, batch_size=BATCH),
    }
    times = in_turns(ways, n, repeats)
    print(f"microseconds an item of {box} px: fastest, median and CPU of {repeats}; speed and that of CPU, plain = 1")
    for name in ways:
        show(name, times[name], times["plain blocks"])
    single = [microseconds(lambda: DataLoader(Subset(dataset, range(1000)), batch_size=None), 1000) for _ in range(3)]
    show("single items", single)


def reading_cold(stack: Path, metadata: Path, n: int, repeats: int) -> None:
    """Time batches where the system has to fetch the file."""
    if not hasattr(os, "posix_fadvise"):
        return
    # Pages that are mapped are not forgotten: this one reads runs alone, and the sampler gets one of its own each time.
    in_order = cb.ParticleDataset(metadata)
    loader = partial(DataLoader, collate_fn=cb.collate)
    cold: dict[str, list[Times]] = {}
    for _ in range(min(repeats, 3)):
        fresh = cb.ParticleDataset(metadata)
        by_sampler = {"batch_sampler": cb.MicrographSampler(fresh, batch_size=BATCH)}
        forgotten: dict[str, Callable[[], Iterable[Any]]] = {
            "plain blocks": lambda: blocks(stack, n, in_order.shape_px[0]),
            "in the order of the file": partial(loader, in_order, batch_size=BATCH),
            "MicrographSampler": partial(loader, fresh, **by_sampler),
        }
        for name, way in forgotten.items():
            forget(stack)
            cold.setdefault(name, []).append(microseconds(way, n))
        del fresh, by_sampler, forgotten, way
    for name, found in cold.items():
        show(f"{name}, cold", found, cold["plain blocks"])


def transforming(metadata: Path, n: int, box: int, repeats: int) -> None:
    """Time batches with a transform, in this process and by workers."""
    kinds: dict[str, dict[str, Any]] = {
        "none": {},
        "polar": {"polar": cb.PolarGrid.for_box(box)},
        "CTF image": {"ctf": "image"},
        f"cropped to {box // 2} px": {"box_px": box // 2},
        "normalised": {"normalise": "auto"},
    }
    print("with a transform                          none  1 worker  2 workers  2 to 1")
    for name, options in kinds.items():
        few = Subset(cb.ParticleDataset(metadata, **options), range(n))
        loader = partial(DataLoader, few, batch_size=BATCH, collate_fn=cb.collate)
        rounds = []
        for _ in range(repeats):
            of_workers = [behind_the_first(loader(num_workers=k, multiprocessing_context="fork"), n) for k in WORKERS]
            rounds.append([behind_the_first(loader(), n), *of_workers])
        none, one, two = np.median(rounds, axis=0)
        ratio = np.median([each[1] / each[2] for each in rounds])
        print(f"  {name:38} {none:7.1f} {one:9.1f} {two:10.1f} {ratio:7.2f}", flush=True)


def many(metadata: Path, n: int) -> None:
    """Time the making of a dataset of many particles, and weigh it."""
    particles = cb.read(metadata)
    start = time.perf_counter()
    dataset = cb.ParticleDataset(particles)
    made = time.perf_counter() - start
    start = time.perf_counter()
    sampler = cb.MicrographSampler(dataset)
    next(iter(sampler))
    epoch = time.perf_counter() - start
    sent = len(pickle.dumps(dataset))
    del dataset
    tracemalloc.start()
    dataset = cb.ParticleDataset(particles)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{n:,} rows: made in {made:.2f} s; a sampler and its first epoch {epoch:.2f} s")
    print(f"  bytes a row: held {held / len(dataset):.1f}, peak {peak / n:.1f}, sent {sent / n:.1f}")


def main() -> None:
    """Time reading, transforms, workers, and a million rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    options.images = max(options.images, (N_FIRST + 1) * BATCH)
    torch.set_num_threads(1)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{options.images:,} images of {options.box} px; {os.cpu_count()} cores{load}; torch {torch.__version__}")
    print(f"Python {sys.version.split()[0]}, batches of {BATCH}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stack = simulate(folder, options.images, options.box)
        metadata, dark = (
            particles_of(folder, options.images, options.images, options.box, sign) for sign in (1.0, -1.0)
        )
        reading(stack, metadata, dark, options.images, options.box, options.repeats)
        reading_cold(stack, metadata, options.images, options.repeats)
        transforming(metadata, options.images, options.box, max(1, options.repeats - 2))
        many(particles_of(folder, options.rows, options.images, options.box, 1.0), options.rows)


if __name__ == "__main__":
    main()
