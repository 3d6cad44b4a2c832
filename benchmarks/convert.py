"""A cryoSPARC refinement with its passthrough to a RELION 3.1 STAR file: cryobridge beside another program, in one run.

    python benchmarks/convert.py [ROWS] [--csparc2star "PYTHON -m pyem.cli.csparc2star"] [--repeats N]

Whole processes are timed, from the start of Python to the end, and the peak of their memory is taken. The other
program is pyem's csparc2star where its command is given; else the starfile package writes the same table.
Compare ratios between machines, not seconds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.model.particles import Labels

PER_MICROGRAPH = 200
STARFILE = """
import sys, starfile
blocks = starfile.read(sys.argv[1], always_dict=True)
import time; start = time.perf_counter()
starfile.write(blocks, sys.argv[2], overwrite=True)
print(time.perf_counter() - start)
"""


def refinement(folder: Path, n_rows: int) -> tuple[Path, Path]:
    """Write 49 columns as a homogeneous refinement does, the passed-through ones in an order of their own."""
    rng = np.random.default_rng(0)
    n_micrographs = n_rows // PER_MICROGRAPH + 1
    uid = rng.integers(1, 2**64, n_rows, np.uint64)
    of = (np.arange(n_rows) // PER_MICROGRAPH).astype(np.int32)
    micrographs = [f"{number:021d}_grid_{number:05d}_patch_aligned_doseweighted" for number in range(n_micrographs)]

    def floats(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n_rows, *shape)).astype(np.float32)

    def same(value: float, *shape: int, dtype: str = "f4") -> np.ndarray:
        return np.full((n_rows, *shape), value, dtype)

    fit = ("error", "error_min", "resid_pow", "slice_pow", "image_pow", "cross_cor", "alpha", "alpha_min", "weight")
    main = {
        "uid": uid,
        "blob/path": Labels(of, tuple(f"J12/extract/{name}_particles.mrc" for name in micrographs)),
        "blob/idx": (np.arange(n_rows) % PER_MICROGRAPH).astype("u4"),
        "blob/shape": same(256, 2, dtype="u4"),
        "blob/psize_A": same(1.31),
        "blob/sign": same(-1),
        "blob/import_sig": same(0, dtype="u8"),
        "ctf/type": Labels(np.zeros(n_rows, np.int32), ("spline",)),
        "ctf/exp_group_id": (of % 9 + 3).astype("u4"),
        "ctf/accel_kv": same(300),
        "ctf/cs_mm": same(2.7),
        "ctf/amp_contrast": same(0.1),
        "ctf/df1_A": floats(8000, 25000),
        "ctf/df2_A": floats(8000, 25000),
        "ctf/df_angle_rad": floats(-1.57, 1.57),
        "ctf/phase_shift_rad": same(0),
        "ctf/scale": same(1),
        "ctf/scale_const": same(0),
        "ctf/shift_A": same(0, 2),
        "ctf/tilt_A": same(0, 2),
        "ctf/trefoil_A": same(0, 2),
        "ctf/tetra_A": same(0, 4),
        "ctf/anisomag": same(0, 4),
        "ctf/bfactor": same(0),
        "alignments3D/split": rng.integers(0, 2, n_rows).astype("u4"),
        "alignments3D/shift": floats(-8, 8, 2),
        "alignments3D/pose": floats(-1.8, 1.8, 3),
        "alignments3D/psize_A": same(2.62),
        **{f"alignments3D/{name}": floats(0, 1e4) for name in fit},
        "alignments3D/class": same(0, dtype="u4"),
        "alignments3D/class_posterior": same(1),
    }
    order = rng.permutation(n_rows)
    passed = {
        "uid": uid[order],
        "location/micrograph_uid": of[order].astype("u8") + 2**63,
        "location/exp_group_id": (of[order] % 9 + 3).astype("u4"),
        "location/micrograph_path": Labels(of[order], tuple(f"J10/motioncorrected/{name}.mrc" for name in micrographs)),
        "location/micrograph_shape": np.tile(np.array([4092, 5760], "u4"), (n_rows, 1)),
        "location/micrograph_psize_A": same(0.655),
        "location/center_x_frac": floats(0, 1),
        "location/center_y_frac": floats(0, 1),
        "pick_stats/ncc_score": floats(0, 1),
        "pick_stats/power": floats(0, 1e3),
        "pick_stats/template_idx": same(0, dtype="u4"),
        "pick_stats/angle_rad": floats(-3.14, 3.14),
    }
    paths = folder / "J42_005_particles.cs", folder / "J42_passthrough_particles.cs"
    for path, columns in zip(paths, (main, passed), strict=True):
        write_cs(path, columns)
    return paths


def run(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a process; return its seconds, the peak of its memory in GiB, and what it printed."""
    start = time.perf_counter()
    read_end, write_end = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, write_end, 1)]
    process = os.posix_spawnp(command[0], command, {**os.environ, "PWD": str(folder)}, file_actions=actions)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        text = stream.read()
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return time.perf_counter() - start, usage.ru_maxrss / unit, text


def main() -> None:
    """Time both programs on the same files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=200_000)
    parser.add_argument("--csparc2star", help="the command that runs pyem's csparc2star")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the fastest counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [str(path) for path in refinement(folder, arguments.rows)]
        size = sum(Path(path).stat().st_size for path in paths)
        print(f"{arguments.rows:,} rows in two files, {size / 1e6:.0f} MB")
        ours, theirs = str(folder / "ours.star"), str(folder / "theirs.star")
        command = [
            str(Path(sys.executable).with_name("cryobridge")),
            "convert",
            *paths,
            "-o",
            ours,
            "--overwrite",
            "-q",
        ]
        own = min((run(command, folder) for _ in range(arguments.repeats)), key=lambda result: result[0])
        print(f"cryobridge  {own[0]:7.2f} s, {own[1]:.2f} GiB at most")
        if arguments.csparc2star:
            command = [*shlex.split(arguments.csparc2star), *paths, theirs]
            seconds, memory, _ = run(command, folder)
            print(f"csparc2star {seconds:7.2f} s, {memory:.2f} GiB at most, {seconds / own[0]:.1f} times as long")
        else:
            _, memory, text = run([sys.executable, "-c", STARFILE, ours, theirs], folder)
            seconds = float(text)
            print(
                f"starfile    {seconds:7.2f} s to write alone, {memory:.2f} GiB, {seconds / own[0]:.1f} times as long"
            )


if __name__ == "__main__":
    main()
