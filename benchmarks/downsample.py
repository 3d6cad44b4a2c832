"""Downsampling particles: cryobridge beside RECOVAR and cryoDRGN, whole processes in one run, values compared.

``normalised`` is cryobridge with RELION's norm of the background.

    python benchmarks/downsample.py [--programs PYTHON] [--pairs N]

PYTHON is that of an environment with the packages recovar and cryodrgn. The programs take turns, so that what else
the machine does falls on all of them. Prints seconds and ratios; compare ratios between machines, not seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np

from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star

SETS = ((512, 256, 128), (4096, 128, 64))
PIXEL_SIZE_A = 1.2


def simulate(folder: Path, n_images: int, box: int) -> Path:
    """Write noise on a level of 5, with poses and CTF, as RELION has them."""
    rng = np.random.default_rng(0)
    with MrcStackWriter(folder / "set.mrcs", (box, box), PIXEL_SIZE_A) as stack:
        for _ in range(0, n_images, 128):
            stack.append(rng.standard_normal((128, box, box), dtype=np.float32) + 5)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL_SIZE_A],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [2],
    }
    angles = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusAngle")
    particles = {
        "rlnImageName": [f"{row + 1:06d}@set.mrcs" for row in range(n_images)],
        "rlnOpticsGroup": np.ones(n_images, int),
        "rlnPhaseShift": np.zeros(n_images),
        **{name: np.round(rng.uniform(0, 20000, n_images), 2) for name in ("rlnDefocusU", "rlnDefocusV")},
        **{name: np.round(rng.uniform(0, 180, n_images), 4) for name in angles},
        **{name: np.round(rng.normal(0, 3, n_images), 4) for name in ("rlnOriginXAngst", "rlnOriginYAngst")},
    }
    blocks = [StarBlock.from_columns("optics", optics), StarBlock.from_columns("particles", particles)]
    write_star(folder / "set.star", blocks)
    return folder / "set.star"


def commands(programs: Path | None, new_box: int) -> dict[str, tuple[list[str], str]]:
    """Return what is run for each program, and where its images are then."""
    here = str(Path(sys.executable).with_name("cryobridge"))
    box, name = str(new_box), f"particles.{new_box}.mrcs"
    found = {"cryobridge": ([here, "stacks", "downsample", "set.star", "-D", box, "-o", "ours"], f"ours/{name}")}
    words = found["cryobridge"][0]
    found["normalised"] = ([*words, "--normalise", "auto"], f"ours/{name}")
    if programs is not None:
        recovar, cryodrgn = (str(programs.with_name(program)) for program in ("recovar", "cryodrgn"))
        found["recovar"] = ([recovar, "downsample", "set.star", "-D", box, "-o", "theirs"], f"theirs/{name}")
        words = [cryodrgn, "downsample", "set.star", "-D", box, "--datadir", ".", "-o", "drgn.mrcs"]
        found["cryodrgn"] = (words, "drgn.mrcs")
    return found


def seconds(words: list[str], folder: Path) -> float:
    """Run a program in a folder that has none of its results."""
    subprocess.run(["rm", "-rf", "ours", "theirs", "drgn.mrcs"], cwd=folder, check=True)
    # Programs that are installed have their byte code beside them.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def below_nyquist(images: np.ndarray) -> np.ndarray:
    """Take the Nyquist row and column of the transforms away."""
    spectrum, half = np.fft.fft2(images), images.shape[-1] // 2
    spectrum[:, half], spectrum[:, :, half] = 0, 0
    return np.fft.ifft2(spectrum).real


def difference(images: np.ndarray, others: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    return float(np.abs(images - others).max() / np.abs(others).max())


def compare(results: dict[str, np.ndarray], box: int, new_box: int) -> None:
    """Print how far the programs' images are from ours."""
    ours = results["cryobridge"]
    if "recovar" in results:
        print(f"    recovar: largest relative difference {difference(ours, results['recovar']):.1e}")
    if "cryodrgn" in results:
        theirs = results["cryodrgn"]
        factor = (box / new_box) ** 2
        print(f"    cryodrgn: mean {theirs.mean() / ours.mean():.4f} times ours (box²/new box² = {factor:g});")
        scaled = theirs / factor
        apart, below = difference(ours, scaled), difference(below_nyquist(ours), below_nyquist(scaled))
        print(f"      divided by that, largest relative difference {apart:.1e}, below Nyquist {below:.1e}")


def main() -> None:
    """Time the programs in turn and compare their images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, help="a Python with recovar and cryodrgn")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    for n_images, box, new_box in SETS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            simulate(folder, n_images, box)
            times: dict[str, list[float]] = {}
            results = {}
            for words, _ in commands(options.programs, new_box).values():
                seconds([*words[:2], "--help"], folder)
            for _ in range(options.pairs):
                for program, (words, output) in commands(options.programs, new_box).items():
                    times.setdefault(program, []).append(seconds(words, folder))
                    with mrcfile.open(folder / output, permissive=True) as stack:
                        results[program] = stack.data[:128].astype(np.float64)
            print(f"{n_images:,} images, {box} -> {new_box} px")
            for program, taken in times.items():
                ratios = [other / own for other, own in zip(taken, times["cryobridge"], strict=True)]
                print(f"  {program:12} {np.median(taken):6.2f} s   {np.median(ratios):5.1f} times cryobridge's")
            compare(results, box, new_box)


if __name__ == "__main__":
    main()
