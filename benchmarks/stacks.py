"""Whole `cryobridge stacks` runs, beside CryoLike's and beside the engine and the padded FFT that is its floor.

    python benchmarks/stacks.py
    python benchmarks/stacks.py --cryolike CHECKOUT --cryolike-python CHECKOUT/.venv/bin/python
    python benchmarks/stacks.py --memory

Runs take turns, so that both meet the same noise; the best of each and the median of the pairwise ratios are printed,
in seconds and in seconds of the processor, which other programs disturb less. A bare writer of the same bytes and
torch's import show what can't be done without.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import mrcfile
import numpy as np
import torch
from polar_engine import HEADING, measure

from cryobridge.formats.cryosparc.cs import write_cs

PIXEL_SIZE_A = 1.5
IMAGES_A_FILE = 512
BARE_WRITER = """
import sys
left, block = int(sys.argv[1]), bytes(1 << 22)
with open(sys.argv[2], "wb", buffering=0) as file:
    while left > 0:
        left -= file.write(block[:left])
"""
CRYOLIKE = """
import sys
sys.path.insert(0, sys.argv[1])
from cryolike.file_conversions import ParticleStackConverter
converter = ParticleStackConverter(sys.argv[2], folder_output=sys.argv[4], flag_plots=False)
converter.prepare_indexed_file(sys.argv[3], "cryosparc")
converter.convert_stacks(1024)
"""


CRYOLIKE_ENGINE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
from cryolike.grids import PhysicalImages
from cryolike.metadata import ImageDescriptor
from cryolike.stacks import Images
descriptor, box, n = ImageDescriptor.ensure(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
times = []
for _ in range(5):
    pixels = PhysicalImages(torch.randn(n, box, box), pixel_size=descriptor.cartesian_grid.pixel_size)
    images = Images(phys_data=pixels, fourier_data=None)
    start = time.perf_counter()
    images.transform_to_fourier(polar_grid=descriptor.polar_grid, precision=descriptor.precision)
    times.append((time.perf_counter() - start) / n)
print(1e3 * min(times))
"""


def make_particles(folder: Path, box_px: int, n_images: int, *, n_files: int | None = None) -> Path:
    """Write noise images and the .cs file that names them; with fewer files than they would fill, rows repeat."""
    rng = np.random.default_rng(0)
    n_files = n_files or -(-n_images // IMAGES_A_FILE)
    for number in range(n_files):
        with mrcfile.new(folder / f"{number}.mrc") as mrc:
            mrc.set_data(rng.standard_normal((IMAGES_A_FILE, box_px, box_px), dtype=np.float32))
            mrc.set_image_stack()
            mrc.voxel_size = PIXEL_SIZE_A
    row = np.arange(n_images)
    write_cs(
        folder / "particles.cs",
        {
            "uid": row.astype("u8"),
            "blob/path": np.char.encode(np.char.add((row // IMAGES_A_FILE % n_files).astype(str), ".mrc")),
            "blob/idx": (row % IMAGES_A_FILE).astype("u4"),
            "blob/shape": np.full((n_images, 2), box_px, "u4"),
            "blob/psize_A": np.full(n_images, PIXEL_SIZE_A, "f4"),
            "ctf/exp_group_id": np.ones(n_images, "u4"),
            "ctf/accel_kv": np.full(n_images, 300, "f4"),
            "ctf/cs_mm": np.full(n_images, 2.7, "f4"),
            "ctf/amp_contrast": np.full(n_images, 0.1, "f4"),
            "ctf/df1_A": rng.uniform(8000, 20000, n_images).astype("f4"),
            "ctf/df2_A": rng.uniform(8000, 20000, n_images).astype("f4"),
            "ctf/df_angle_rad": rng.uniform(-1, 1, n_images).astype("f4"),
            "ctf/phase_shift_rad": np.zeros(n_images, "f4"),
        },
    )
    return folder / "particles.cs"


def timed(command: Sequence[str | Path], folder: Path, output: Path) -> tuple[float, float, int]:
    """Run a command in a folder; return its seconds, those of the processor, and the bytes of its output.

    The output is removed before and after.
    """
    remove(output)
    start = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{command[0]} failed")
    files = [path for path in (output, *output.rglob("*")) if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in files)
    remove(output)
    return seconds, usage.ru_utime + usage.ru_stime, n_bytes


def remove(output: Path) -> None:
    """Remove a file or folder that may be there."""
    shutil.rmtree(output, ignore_errors=True)
    output.unlink(missing_ok=True)


def floors(n_bytes: int) -> dict[str, list[str]]:
    """Return commands that do what can't be done without: write so many bytes to `bare`, and import torch."""
    return {
        "bare writer": [sys.executable, "-c", BARE_WRITER, str(n_bytes), "bare"],
        "torch's import": [sys.executable, "-c", "import torch"],
    }


def write_params(folder: Path, box_px: int) -> Path:
    """Write the parameter file of the default grid."""
    path = folder / "params.npz"
    ours = Path(sys.executable).with_name("cryobridge")
    grid = [ours, "stacks", "grid", "--n-pixels", str(box_px), "--pixel-size", str(PIXEL_SIZE_A), "-o", path]
    subprocess.run(grid, check=True, stdout=subprocess.DEVNULL)
    return path


def engine_of_cryolike(box_px: int, n_images: int, cryolike: Path, python: str) -> None:
    """Print the time of CryoLike's own transform."""
    with tempfile.TemporaryDirectory() as name:
        params = write_params(Path(name), box_px)
        command = [python, "-c", CRYOLIKE_ENGINE, cryolike / "src", params, box_px, n_images]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    print(f"{box_px:5d}{float(done.stdout.splitlines()[-1]):12.3f}   (CryoLike's transform, ms an image)", flush=True)


def compare(box_px: int, n_images: int, repeats: int, cryolike: Path | None, python: str) -> None:
    """Time whole processes, without and with plots, and CryoLike's in turn with them."""
    ours = Path(sys.executable).with_name("cryobridge")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, box_px, n_images)
        params, output = write_params(folder, box_px), folder / "out"
        stacks = [ours, "stacks", "cs", "particles.cs", "-p", params, "-o", output]
        commands = {"cryobridge": [*stacks, "--no-plots"], "with plots": stacks}
        if cryolike is not None:
            commands["CryoLike"] = [python, "-c", CRYOLIKE, cryolike / "src", params, "particles.cs", output]
        runs: dict[str, list[tuple[float, float, int]]] = {what: [] for what in commands}
        for _ in range(repeats):
            for what, command in commands.items():
                runs[what].append(timed(command, folder, output))
        below = floors(runs["cryobridge"][0][2])
        for what, command in below.items():
            runs[what] = [timed(command, folder, folder / "bare") for _ in range(repeats)]
    print(f"whole process, {n_images:,} images of box {box_px}: seconds, and seconds of the processor")
    for what, taken in runs.items():
        walls, processor, _ = zip(*taken, strict=True)
        line = f"  {what:14s} {min(walls):7.2f} s {min(processor):7.2f} s"
        if what not in below:
            line += f"  {n_images / min(walls):7.0f} images/s"
        if what not in {"cryobridge", *below}:
            ratios = [
                statistics.median(theirs[i] / own[i] for theirs, own in zip(taken, runs["cryobridge"], strict=True))
                for i in (0, 1)
            ]
            line += f"  {ratios[0]:5.2f} × the time, {ratios[1]:5.2f} × the processor's"
        print(line, flush=True)


def memory(box_px: int, n_rows: int, n_stacks: int) -> None:
    """Print the peak memory of a run over many rows, of which the first stacks are made."""
    ours = Path(sys.executable).with_name("cryobridge")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, box_px, n_rows, n_files=4)
        command = [ours, "stacks", "cs", "particles.cs", "-o", "out", "--n-stacks-max", str(n_stacks)]
        process = subprocess.Popen(list(map(str, command)), cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit("the run failed")
    peak_gib = usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    print(f"memory: {n_rows:,} rows of box {box_px}, {n_stacks} stacks of 1,024 made: at most {peak_gib:.2f} GiB")


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=int, default=128, help="box in pixels")
    parser.add_argument("--images", type=int, default=4096, help="images of the whole process")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--cryolike", type=Path, help="a checkout of CryoLike to compare with")
    parser.add_argument("--cryolike-python", default=sys.executable, help="a Python that has what CryoLike needs")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of 100,000 rows of box 256")
    options = parser.parse_args()
    if options.memory:
        memory(256, 100_000, 3)
        return
    print(f"{HEADING}   (engine, ms an image)")
    print(measure(options.box, 64, 20, torch.float32, torch.device("cpu")), flush=True)
    if options.cryolike is not None:
        engine_of_cryolike(options.box, 64, options.cryolike, options.cryolike_python)
    compare(options.box, options.images, options.repeats, options.cryolike, options.cryolike_python)


if __name__ == "__main__":
    main()
