"""What a GPU makes of Fourier stacks: engine and whole pipeline beside what the card could do at best, and tests on it.

    python benchmarks/gpu.py                the first CUDA GPU, under 6 minutes
    python benchmarks/gpu.py --device cpu   the same figures in small, where there is none

It needs no data and some 4 GB of disk. Single precision throughout. Read it like this: the engine is as good as it can
be when its time is near the larger of the FFT's and that of moving its bytes; the pipeline when it is near the time of
writing its bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from polar_engine import seconds
from stacks import floors, make_particles, timed

from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.image_search import ImageSearch
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.inputs import indexed_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from cryobridge.jobs.stacks.polar.transform import PolarChunkTransform, Transformed

ROOT = Path(__file__).resolve().parents[1]
# Box and images: of the engine in one call, and of the whole pipeline.
BOXES = {128: (1024, 8192), 256: (512, 2048), 400: (256, 1024)}
SMALL_BOXES = {16: (16, 64)}
FLOOR_BATCHES = (16, 64, 256)
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
REPEATS = 8
AGREEMENT = 1e-5


def best(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Return the least time of some calls, after one that warms up."""
    seconds(work, device)
    return min(seconds(work, device) for _ in range(repeats))


def bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a copy within the device's memory reads and writes."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / best(lambda: target.copy_(source), device)


def engine(box_px: int, n_images: int, device: torch.device, bytes_a_second: float) -> str:
    """Return a line on the engine: its speed, its part of the two floors, and whether it agrees with the CPU."""
    images = torch.randn(n_images, box_px, box_px, generator=torch.Generator().manual_seed(box_px))
    transform = PolarTransform(PolarGrid.for_box(box_px), box_px, device=device)
    there = images.to(device)
    polar = transform.forward(there)
    taken = best(lambda: transform.forward(there, out=polar), device) / n_images
    pairs = {
        n: torch.zeros(n // 2, 2 * box_px, 2 * box_px, dtype=torch.complex64, device=device) for n in FLOOR_BATCHES
    }
    fft = min(best(lambda pair=pair: torch.fft.fft2(pair), device) / n for n, pair in pairs.items())
    moving = (images[0].nbytes + polar[0].nbytes) / bytes_a_second
    expected = PolarTransform(PolarGrid.for_box(box_px), box_px).forward(images[:8])
    error = float(torch.linalg.vector_norm(polar[:8].cpu() - expected) / torch.linalg.vector_norm(expected))
    verdict = "ok" if error < AGREEMENT else "WRONG"
    return (
        f"{box_px:5d}{1 / taken:12,.0f}{1e3 * taken:12.4f}{moving / taken:12.1%}{fft / taken:11.1%}"
        f"{taken / max(fft, moving):9.2f}{error:14.1e} {verdict}"
    )


def pipeline(box_px: int, n_images: int, device: torch.device) -> str:
    """Return a line on `cryobridge stacks cs`, whole process, beside the writing of its bytes and torch's import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, box_px, n_images, n_files=min(4, -(-n_images // 512)))
        command = [sys.executable, "-m", "cryobridge", "stacks", "cs", "particles.cs", "-o", "out", "--no-plots"]
        taken, _, n_bytes = timed([*command, "--device", str(device)], folder, folder / "out")
        writing, importing = (timed(command, folder, folder / "bare")[0] for command in floors(n_bytes).values())
    return f"{box_px:5d}{n_images:9,d}{n_images / taken:12,.0f}{taken:10.2f}{writing:15.2f}{importing:16.2f}"


@contextmanager
def chunks_of(box_px: int, n_images: int, device: torch.device) -> Iterator[PolarChunkTransform]:
    """Yield what the pipeline transforms chunks with."""
    with tempfile.TemporaryDirectory() as name:
        path = make_particles(Path(name), box_px, n_images, n_files=1)
        options = StackOptions(plots=False, batch_size=n_images)
        source = indexed_input(read_particles_cs(path), ImageSearch(path), options.on_missing)
        yield plan_stacks(source, options).transform(str(device))


def maker(transform: PolarChunkTransform, pixels: np.ndarray) -> Callable[[], Transformed]:
    """Return what transforms a chunk; a GPU's pixels are pinned once, which the pipeline does in another thread."""
    rows = np.arange(len(pixels))
    if transform.device.type == "cpu":
        return lambda: transform(transform.prepare(rows, pixels))
    prepared = transform.prepare(rows, pixels)
    return lambda: transform(prepared)


def overlap(box_px: int, n_images: int, device: torch.device) -> str:
    """Say how much time it saves that copies of one chunk overlap with the transform of the next."""
    with chunks_of(box_px, n_images, device) as transform:
        size, n_chunks = min(transform.chunk_size, n_images), 6
        pixels = np.random.default_rng(0).standard_normal((size, box_px, box_px), dtype=np.float32)
        make = maker(transform, pixels)

        def chunks(n_in_hand: int) -> None:
            made = []
            for _ in range(n_chunks):
                if len(made) == n_in_hand:
                    made[0].wait()
                    made.pop(0).release()
                made.append(make())
            for one in made:
                one.wait()
                one.release()

        alone, together = (best(lambda n=n: chunks(n), device, 3) / (n_chunks * size) for n in (1, 2))
        made = make()
        made.wait()
        there, pinned = made.polar.to(device), torch.from_numpy(pixels)
        pinned = pinned.pin_memory() if device.type == "cuda" else pinned
        up = best(lambda: pinned.to(device, non_blocking=True), device) / size
        down = best(lambda: made.polar.copy_(there, non_blocking=True), device) / size
    return (
        f"box {box_px}, chunks of {size}, ms an image: to the device {1e3 * up:.4f}, back {1e3 * down:.4f}, "
        f"one chunk at a time {1e3 * alone:.4f}, two {1e3 * together:.4f}: {1 - together / alone:.0%} saved"
    )


def out_of_memory(box_px: int, n_images: int, device: torch.device) -> str:
    """Leave too little memory for a chunk: it must be made all the same, in parts. On a CPU it is pretended."""
    made_at_once: list[int] = []
    forward = PolarTransform.forward

    def counted(self: PolarTransform, images: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if device.type == "cpu" and 2 * len(images) > len(pixels):
            raise torch.cuda.OutOfMemoryError
        polar = forward(self, images, out)
        made_at_once.append(len(images))
        return polar

    with chunks_of(box_px, n_images, device) as transform:
        pixels = np.random.default_rng(0).standard_normal((transform.chunk_size, box_px, box_px), dtype=np.float32)
        make = maker(transform, pixels)
        before = allocated(device)
        expected = make()
        expected.wait()
        needed = allocated(device, most=True) - before
        PolarTransform.forward = counted
        try:
            with at_most(before + needed // 2, device):
                found = make()
                found.wait()
        except torch.cuda.OutOfMemoryError:
            return f"box {box_px}: FAILED, half of {needed / 2**30:.2f} GiB was too little for any part of a chunk"
        finally:
            PolarTransform.forward = forward
        error = float((found.polar - expected.polar).abs().max() / expected.polar.abs().max())
    parts = max(made_at_once[-2:])
    verdict = "ok" if error < AGREEMENT and parts < len(pixels) else "WRONG"
    need = f"need {needed / 2**30:.2f} GiB" if device.type == "cuda" else "are too many, as is pretended"
    return (
        f"box {box_px}: {len(pixels)} images {need}; with half of it they were made in parts of {parts}, largest "
        f"difference {error:.1e}: {verdict}"
    )


def allocated(device: torch.device, *, most: bool = False) -> int:
    """Return how many bytes tensors take on a GPU, or took at most since this was last asked."""
    if device.type == "cpu":
        return 0
    n_bytes = torch.cuda.max_memory_allocated(device) if most else torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return n_bytes


@contextmanager
def at_most(n_bytes: int, device: torch.device) -> Iterator[None]:
    """Let torch take no more memory of a GPU than this."""
    if device.type == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def tests() -> str:
    """Run the tests that are marked `gpu`, and return pytest's last line."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rs", "tests/fourier"]
    done = subprocess.run([*words, "tests/jobs/stacks"], cwd=ROOT, capture_output=True, text=True, check=False)
    return "\n".join(done.stdout.strip().splitlines()[-4:]) or done.stderr[-500:]


def machine(device: torch.device) -> str:
    """Return what the figures are of."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return f"{device}: {name}, torch {torch.__version__}, {torch.get_num_threads()} threads, single precision"


def main() -> None:
    """Read the command line and print the figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:<number>, or cpu for small sizes")
    options = parser.parse_args()
    device = torch.device(options.device)
    is_gpu = device.type == "cuda"
    if is_gpu and not torch.cuda.is_available():
        print("no CUDA GPU on this machine: nothing was measured (--device cpu shows the same figures in small)")
        return
    started = time.perf_counter()
    boxes = BOXES if is_gpu else SMALL_BOXES
    print(machine(device))
    bytes_a_second = bandwidth(device)
    print(f"memory: {bytes_a_second / 1e9:,.0f} GB/s read and written by a copy within it\n", flush=True)
    print("engine\n  box    images/s    ms/image   of memory     of FFT   × best   against CPU")
    for box_px, (n_images, _) in boxes.items():
        print(engine(box_px, n_images, device, bytes_a_second), flush=True)
    print("\nwhole process\n  box   images    images/s   seconds   bare writing   torch's import")
    for box_px, (_, n_images) in boxes.items():
        print(pipeline(box_px, n_images, device), flush=True)
    print("\nchunks in hand")
    for box_px, (n_images, _) in boxes.items():
        print(overlap(box_px, n_images, device), flush=True)
    print("\nout of memory")
    print(out_of_memory(*((256, 1024) if is_gpu else (16, 16)), device))
    print("\ntests on the device")
    print(tests() if is_gpu else "not run: they need a GPU")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
