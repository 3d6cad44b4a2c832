"""Particles of RELION found again in cryoSPARC's file by place, beside one plain KD-tree a micrograph.

    python benchmarks/like.py [--particles 1000000] [--micrographs 5000]

RELION's micrographs have reversed rows, its particles another order, and its file no pixel size of the micrographs. The
plain trees are told all of that, and look from one side only. Prints seconds, and those of the processor, which
matter where others work on the machine too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.open import open_particles
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.identity.match import identities_of, match_rows
from cryobridge.jobs.shared_options import PlaceOptions
from cryobridge.model.particles import Labels

NY, NX, PIXEL_A, BOX_PX = 4092, 5760, 0.86, 256


def make_inputs(folder: Path, n: int, n_micrographs: int) -> tuple[Path, Path]:
    """Write ``J5_particles.cs``, and ``run_data.star`` with the same particles, extracted anew."""
    rng = np.random.default_rng(0)
    code = np.sort(rng.integers(0, n_micrographs, n)).astype(np.int32)
    x, y = rng.integers(0, NX, n), rng.integers(0, NY, n)
    index = np.arange(n)
    names = [f"FoilHole_{number:05d}_Data_9" for number in range(n_micrographs)]
    uids = [f"{number * 7919 + 10**14:021d}" for number in range(n_micrographs)]
    corrected = [f"{uid}_{name}_patch_aligned_doseweighted" for uid, name in zip(uids, names, strict=True)]
    columns: dict[str, Any] = {
        "uid": rng.permutation(n).astype("u8") + np.uint64(2**62),
        "blob/path": Labels(code, tuple(f"J5/extract/{name}_particles.mrc" for name in corrected)),
        "blob/idx": index.astype("u4"),
        "blob/shape": np.full((n, 2), BOX_PX, "u4"),
        "blob/psize_A": np.full(n, PIXEL_A, "f4"),
        "ctf/accel_kv": np.full(n, 300, "f4"),
        "ctf/df1_A": rng.normal(15000, 2000, n).astype("f4"),
        "location/micrograph_path": Labels(code, tuple(f"J2/motioncorrected/{name}.mrc" for name in corrected)),
        "location/micrograph_shape": np.tile(np.array([NY, NX], "u4"), (n, 1)),
        "location/center_x_frac": (x / NX).astype("f4"),
        "location/center_y_frac": (y / NY).astype("f4"),
        "location/micrograph_psize_A": np.full(n, PIXEL_A, "f4"),
        "alignments2D/pose": np.zeros(n, "f4"),
        "alignments2D/shift": rng.normal(0, 3, (n, 2)).astype("f4"),
        "alignments2D/psize_A": np.full(n, PIXEL_A, "f4"),
    }
    write_cs(folder / "J5_particles.cs", columns)
    order = rng.permutation(n)
    movies = tuple(f"MotionCorr/job002/Movies/{name}_fractions.mrc" for name in names)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnMicrographOriginalPixelSize": [PIXEL_A],
        "rlnImagePixelSize": [PIXEL_A],
        "rlnImageSize": [BOX_PX],
    }
    particles = {
        "rlnImageName": [f"{row + 1:06d}@Extract/job012/Movies/{names[code[row]]}_fractions.mrcs" for row in order],
        "rlnMicrographName": Labels(code, movies).take(order),
        "rlnCoordinateX": x[order],
        "rlnCoordinateY": NY - 1 - y[order],
        "rlnOpticsGroup": np.ones(n, int),
        "rlnClassNumber": rng.integers(1, 51, n),
        "rlnOriginXAngst": rng.normal(0, 3, n).round(6),
        "rlnOriginYAngst": rng.normal(0, 3, n).round(6),
    }
    blocks = [StarBlock.from_columns(name, block) for name, block in (("optics", optics), ("particles", particles))]
    write_star(folder / "run_data.star", blocks)
    return folder / "J5_particles.cs", folder / "run_data.star"


def timed(what: str, work: Callable[..., Any], *given: Any) -> Any:
    """Do a piece of work and print how long it took."""
    start, cpu = time.perf_counter(), time.process_time()
    found = work(*given)
    show(what, time.perf_counter() - start, time.process_time() - cpu)
    return found


def show(what: str, seconds: float, cpu: float, more: str = "") -> None:
    """Print a line."""
    print(f"{what:42} {seconds:6.2f} s, {cpu:6.2f} s of the processor{more}", flush=True)


def identities(path: Path) -> Any:
    """Read what the rows of a file are known by."""
    return identities_of(open_particles(path))


def positions(*sides: Any) -> list[Any]:
    """Read where the particles lie."""
    return [side.places for side in sides]


def plain_trees(first: Any, other: Any) -> int:
    """Return how many positions of the first have one of the other nearby, by one tree a micrograph."""
    stems = [name.rpartition("/")[2].replace("_fractions.mrc", "") for name in other.micrograph.values]
    code_of = {stem: code for code, stem in enumerate(stems)}
    x, y = first.coordinate_px.T
    ours = np.column_stack([x, NY - 1 - y])
    sides = []
    for side, xy in ((first, ours), (other, other.coordinate_px)):
        order = np.argsort(side.micrograph.codes, kind="stable")
        bounds = np.searchsorted(side.micrograph.codes[order], np.arange(len(side.micrograph.values) + 1))
        sides.append((xy[order], bounds))
    (ours, our_bounds), (theirs, their_bounds) = sides
    found = 0
    for code, name in enumerate(first.micrograph.values):
        partner = code_of[name.rpartition("/")[2][22:].replace("_patch_aligned_doseweighted.mrc", "")]
        tree = cKDTree(theirs[their_bounds[partner] : their_bounds[partner + 1]])
        distance, _ = tree.query(ours[our_bounds[code] : our_bounds[code + 1]], distance_upper_bound=BOX_PX / 10)
        found += int(np.isfinite(distance).sum())
    return found


def main() -> None:
    """Time the parts, and the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--micrographs", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cs, star = make_inputs(Path(folder), options.particles, options.micrographs)
        print(f"{options.particles:,} particles on {options.micrographs:,} micrographs")
        sides = [timed(f"reading {path.name}", identities, path) for path in (cs, star)]
        places = timed("positions of both", positions, *sides)
        match = timed("matching: uids, images, then places", match_rows, *sides, PlaceOptions())
        n = timed("plain trees, one a micrograph", plain_trees, *places)
        print(f"{np.count_nonzero(match.rows >= 0):,} have a partner by {match.by}; plain trees find {n:,}")
        command = [sys.executable, "-m", "cryobridge", "select", cs.name, "--like", star.name, "-o", "out.cs", "-q"]
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        show(
            "cryobridge select --like, the whole process",
            time.perf_counter() - start,
            usage.ru_utime + usage.ru_stime,
            f", {usage.ru_maxrss / 1024:.0f} MB",
        )


if __name__ == "__main__":
    main()
