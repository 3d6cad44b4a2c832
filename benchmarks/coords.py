"""Picks of a whole data set to RELION coordinates, as a whole process.

    python benchmarks/coords.py [--particles 1000000] [--micrographs 5000]

Prints seconds and peak memory for rows in the order of the micrographs and for shuffled rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.model.particles import Labels


def make_inputs(folder: Path, n_particles: int, n_micrographs: int, *, shuffled: bool) -> tuple[Path, Path]:
    """Write a passthrough file and a micrographs_ctf.star."""
    rng = np.random.default_rng(0)
    codes = (np.arange(n_particles) * n_micrographs // n_particles).astype(np.int32)
    if shuffled:
        rng.shuffle(codes)
    names = [f"20170629_{number:05d}.x1_fractions" for number in range(n_micrographs)]
    paths = [
        f"J2/motioncorrected/{number:021d}_{name}_patch_aligned_doseweighted.mrc" for number, name in enumerate(names)
    ]
    n = n_particles
    columns = {
        "uid": rng.integers(0, 2**63, n).astype("u8"),
        "location/micrograph_uid": codes.astype("u8"),
        "location/exp_group_id": np.ones(n, "u4"),
        "location/micrograph_path": Labels(codes, tuple(paths)),
        "location/micrograph_shape": np.tile(np.array([4092, 5760], "u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, 0.83, "f4"),
        "location/center_x_frac": rng.uniform(0, 1, n).astype("f4"),
        "location/center_y_frac": rng.uniform(0, 1, n).astype("f4"),
        "pick_stats/ncc_score": rng.normal(0.4, 0.1, n).astype("f4"),
    }
    write_cs(folder / "picks.cs", columns)
    micrographs = [f"MotionCorr/job002/Movies/{name.replace('.', '_')}.mrc" for name in names]
    block = {"rlnMicrographName": micrographs, "rlnOpticsGroup": np.ones(n_micrographs, int)}
    write_star(folder / "micrographs_ctf.star", [StarBlock.from_columns("micrographs", block)])
    return folder / "picks.cs", folder / "micrographs_ctf.star"


def run(picks: Path, micrographs: Path, output: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of one whole process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "cryobridge", "coords", str(picks), str(micrographs), "-o", str(output), "-q"]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Time both orders of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--micrographs", type=int, default=5_000)
    options = parser.parse_args()
    for shuffled in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            picks, micrographs = make_inputs(Path(folder), options.particles, options.micrographs, shuffled=shuffled)
            times = [run(picks, micrographs, Path(folder, f"out{number}")) for number in range(3)]
            seconds, memory = np.median([t for t, _ in times]), max(m for _, m in times)
            order = "shuffled" if shuffled else "in order"
            print(
                f"{options.particles:,} particles on {options.micrographs:,} micrographs, {order:8}: "
                f"{seconds:.2f} s, {memory:.0f} MB"
            )


if __name__ == "__main__":
    main()
