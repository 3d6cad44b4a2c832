"""Time of the polar Fourier transform per image, beside the padded FFT that is its floor.

Under "by stacks" several threads work side by side, each on images of its own, as in `cryobridge stacks`.
Run it as ``python benchmarks/polar_engine.py``; ``--help`` lists what can be changed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from cryobridge.fourier.devices import pick_device
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.polar.transform import n_transforming, one_core_each

# The floor is taken with whichever of these numbers of images suits the caches best.
FLOOR_BATCHES = (16, 32, 64)
CALLS_A_THREAD = 4
HEADING = "  box  new output  reused out   by stacks  padded FFT   rel. error  plan (s)"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time one call, to its end on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def relative_error(transform: PolarTransform, images: torch.Tensor, polar: torch.Tensor) -> float:
    """L2 error of the first image at every 97th point, against a float64 sum over its pixels."""
    grid, (n0, n1) = transform.grid, transform.n_pixels
    radii, angles = torch.from_numpy(grid.radii)[:, None], torch.from_numpy(grid.angles_rad)
    k0 = (4 * math.pi / n0 * radii * torch.cos(angles)).reshape(-1, 1)[::97]
    k1 = (4 * math.pi / n1 * radii * torch.sin(angles)).reshape(-1, 1)[::97]
    wave_0 = torch.exp(-1j * k0 * (torch.arange(n0) - n0 // 2))
    wave_1 = torch.exp(-1j * k1 * (torch.arange(n1) - n1 // 2))
    image = images[0].cpu().to(torch.complex128)
    exact = 4 * math.pi / math.sqrt(n0 * n1) * ((wave_0 @ image) * wave_1).sum(1)
    found = polar[0].cpu().reshape(-1)[::97]
    return float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact))


def side_by_side(transform: PolarTransform, images: torch.Tensor, repeats: int) -> float:
    """Return the seconds an image where threads work side by side, each on a stack of its own, as `stacks` has it."""
    n_threads = n_transforming()
    outs = [transform.forward(images) for _ in range(n_threads)]

    def work() -> None:
        for done in [pool.submit(transform.forward, images, out) for out in CALLS_A_THREAD * outs]:
            done.result()

    with one_core_each(), ThreadPoolExecutor(n_threads, initializer=torch.get_num_threads) as pool:
        taken = min(seconds(work, transform.device) for _ in range(repeats))
    return taken / (CALLS_A_THREAD * n_threads * len(images))


def measure(box_px: int, n_images: int, repeats: int, dtype: torch.dtype, device: torch.device) -> str:
    """Time the engine and its floor in turn, and keep the best of each."""
    images = torch.randn(n_images, box_px, box_px, dtype=dtype, device=device)
    start = time.perf_counter()
    transform = PolarTransform(PolarGrid.for_box(box_px), box_px, dtype, device)
    plan_s = time.perf_counter() - start
    polar = transform.forward(images)
    # Real images go in pairs through one complex transform of twice the box.
    padded = {
        batch: torch.zeros(batch // 2, 2 * box_px, 2 * box_px, dtype=polar.dtype, device=device)
        for batch in FLOOR_BATCHES
    }
    new, reused, floor = [], [], []
    for _ in range(repeats):
        new.append(seconds(lambda: transform.forward(images), device) / n_images)
        reused.append(seconds(lambda: transform.forward(images, out=polar), device) / n_images)
        for batch, pairs in padded.items():
            floor.append(seconds(lambda pairs=pairs: torch.fft.fft2(pairs), device) / batch)
    beside = [side_by_side(transform, images, repeats) if device.type == "cpu" else math.nan]
    times_ms = "".join(f"{1e3 * min(times):12.3f}" for times in (new, reused, beside, floor))
    return f"{box_px:5d}{times_ms}{relative_error(transform, images, polar):12.1e}{plan_s:10.2f}"


def main() -> None:
    """Read the command line and print one line a box."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=int, nargs="+", default=[128, 256], help="box sizes in pixels")
    parser.add_argument("--images", type=int, default=64, help="images a call")
    parser.add_argument("--repeats", type=int, default=20, help="calls, of which the best counts")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:<number> or mps")
    parser.add_argument("--double", action="store_true", help="double precision")
    options = parser.parse_args()
    device = pick_device(options.device)
    dtype = torch.float64 if options.double else torch.float32
    print(f"ms an image, {dtype}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(HEADING)
    for box_px in options.box:
        print(measure(box_px, options.images, options.repeats, dtype, device), flush=True)


if __name__ == "__main__":
    main()
