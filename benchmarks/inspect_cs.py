"""`cryobridge inspect` of a large .cs file, as a whole process, against the same numbers worked out by hand.

    python benchmarks/inspect_cs.py [--rows 10000000] [--repeats 3]

Makes the file in a temporary folder (about 200 bytes a row). By hand means what one types without cryobridge:
np.load(mmap_mode="r"), then minimum, maximum, median and number of distinct values of each column. Prints seconds and
peak memory; memory that is mapped from the file counts too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_STACKS = 5_000
ROWS_A_PIECE = 500_000
STATISTICS = ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "alpha", "weight")
DTYPE = np.dtype(
    [
        ("uid", "<u8"),
        ("blob/path", "S60"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("blob/sign", "<f4"),
        ("ctf/type", "S9"),
        ("ctf/exp_group_id", "<u4"),
        *((f"ctf/{name}", "<f4") for name in ("accel_kv", "cs_mm", "amp_contrast", "df1_A", "df2_A", "df_angle_rad")),
        ("ctf/phase_shift_rad", "<f4"),
        ("ctf/scale", "<f4"),
        ("alignments3D/split", "<u4"),
        ("alignments3D/shift", "<f4", (2,)),
        ("alignments3D/pose", "<f4", (3,)),
        ("alignments3D/psize_A", "<f4"),
        *((f"alignments3D/{name}", "<f4") for name in STATISTICS),
        ("alignments3D/class_posterior", "<f4"),
    ]
)
BY_HAND = """
import sys, numpy as np
table = np.load(sys.argv[1], mmap_mode="r")
for name in table.dtype.names:
    column = np.array(table[name])
    distinct = len(np.unique(column))
    if column.dtype.kind == "S":
        print(name, column[0], distinct)
    else:
        print(name, column.min(), np.median(column), column.max(), distinct)
"""


def make_file(path: Path, n_rows: int) -> None:
    """Write a refinement's particles: drawn values where a refinement has many, constants where it has one."""
    rng = np.random.default_rng(0)
    stacks = np.array([f"J12/extract/{number:021d}_mic{number:05d}_particles.mrc" for number in range(N_STACKS)], "S60")
    constants = {"blob/shape": 256, "blob/psize_A": 1.06, "blob/sign": -1, "ctf/type": b"spline", "ctf/accel_kv": 300}
    constants |= {"ctf/cs_mm": 2.7, "ctf/amp_contrast": 0.1, "ctf/scale": 1, "alignments3D/psize_A": 1.06}
    with path.open("wb") as file:
        header = {"descr": DTYPE.descr, "fortran_order": False, "shape": (n_rows,)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, n_rows, ROWS_A_PIECE):
            n = min(ROWS_A_PIECE, n_rows - first)
            rows = np.zeros(n, DTYPE)
            for name, value in constants.items():
                rows[name] = value
            rows["uid"] = rng.integers(0, 2**64 - 1, n, dtype="u8")
            rows["blob/path"] = stacks[rng.integers(0, N_STACKS, n)]
            rows["blob/idx"] = rng.integers(0, 200, n)
            rows["alignments3D/split"] = rng.integers(0, 2, n)
            for name in ("ctf/df1_A", "ctf/df2_A"):
                rows[name] = rng.normal(15000, 3000, n)
            rows["ctf/df_angle_rad"] = rng.uniform(-1.57, 1.57, n)
            for name in ("shift", "pose"):
                rows[f"alignments3D/{name}"] = rng.normal(size=rows[f"alignments3D/{name}"].shape)
            for name in STATISTICS:
                rows[f"alignments3D/{name}"] = rng.normal(1000, 100, n)
            rows["alignments3D/class_posterior"] = 1
            file.write(rows.tobytes())


def measure(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of one whole process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Time the header view, the full view and the work by hand, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "particles.cs")
        # In a process of its own: the peak memory of a child counts from that of its parent.
        maker = multiprocessing.Process(target=make_file, args=(path, options.rows))
        maker.start()
        maker.join()
        print(f"{options.rows:,} rows, {path.stat().st_size / 1e9:.2f} GB")
        inspect = [sys.executable, "-m", "cryobridge", "inspect", str(path)]
        commands = {
            "header alone": ([*inspect, "--no-stats"], options.repeats),
            "all statistics": (inspect, options.repeats),
            "by hand": ([sys.executable, "-c", BY_HAND, str(path)], 1),
        }
        for title, (command, repeats) in commands.items():
            runs = [measure(command) for _ in range(repeats)]
            seconds, memory = np.median([seconds for seconds, _ in runs]), max(memory for _, memory in runs)
            print(f"{title:14}  {seconds:6.2f} s  {memory:6.0f} MB")


if __name__ == "__main__":
    main()
