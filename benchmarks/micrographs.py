"""Micrographs with their motion from cryoSPARC to RELION: `cryobridge micrographs` on 10,000 exposures.

    python benchmarks/micrographs.py [--micrographs 10000] [--frames 40]

Each has a rigid and a spline trajectory, a movie and an average, whose headers are read. The movies are links to one
TIFF file of empty frames, and an average is a header with a hole behind it, so that neither needs much space on the
disk. Prints seconds and those of the processor, which matter where others work on the machine too, and the largest peak
of memory, also for a tenth of the micrographs and without the motion.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.model.particles import Labels

NY, NX, PIXEL_A = 512, 720, 0.86
KNOTS = (2, 6, 5, 7)
# As many pieces of motion as the files take turns in.
N_MOTIONS = 20
COMMAND = str(Path(sys.executable).with_name("cryobridge"))


def make_inputs(folder: Path, n: int, n_frames: int = 40) -> None:
    """Write cryoSPARC's job J2, and the movies that its job J1 imported."""
    rng = np.random.default_rng(0)
    corrected, imported = folder / "J2/motioncorrected", folder / "J1/imported"
    corrected.mkdir(parents=True)
    imported.mkdir(parents=True)
    names = [f"{number * 7919 + 10**14:021d}_FoilHole_{number:05d}_Data_9" for number in range(n)]
    rigid = [rng.normal(0, 1, (1, n_frames, 2)).cumsum(axis=1) for _ in range(N_MOTIONS)]
    local = [rng.normal(0, 1, KNOTS).cumsum(axis=1) for _ in range(N_MOTIONS)]
    with MrcStackWriter(folder / "average.mrc", (NY, NX), PIXEL_A) as stack:
        stack.append(np.zeros((1, NY, NX), np.float32))
    header = (folder / "average.mrc").read_bytes()[:1024]
    write_movie(folder / "movie.tif", n_frames)
    for number, name in enumerate(names):
        os.link(folder / "movie.tif", imported / f"{name}.tif")
        with (corrected / f"{name}_patch_aligned_doseweighted.mrc").open("wb") as file:
            file.write(header)
            file.truncate(1024 + 4 * NY * NX)
        np.save(corrected / f"{name}_rigid_traj.npy", rigid[number % N_MOTIONS])
        np.save(corrected / f"{name}_bending_traj.npy", local[number % N_MOTIONS])
    write_cs(folder / "J2/exposures.cs", columns(names, n_frames))


def write_movie(path: Path, n_frames: int) -> None:
    """Write a movie of frames without counts, which compress to almost nothing."""
    from PIL import Image

    first, *others = [Image.fromarray(np.zeros((NY, NX), np.uint8))] * n_frames
    first.save(path, save_all=True, append_images=others, compression="tiff_adobe_deflate")


def columns(names: list[str], n_frames: int) -> dict[str, Any]:
    """Return the columns of exposures after Patch Motion and CTF estimation."""
    n = len(names)
    rng = np.random.default_rng(1)
    defocus_A = rng.normal(15000, 2000, n).astype("f4")

    def files(end: str, folder: str = "J2/motioncorrected") -> Labels:
        return Labels.of(f"{folder}/{name}{end}" for name in names)

    whole, fractions = partial(np.full, n, dtype="u4"), partial(np.full, n, dtype="f4")
    return {
        "uid": np.arange(1, n + 1, dtype="u8"),
        "movie_blob/path": files(".tif", "J1/imported"),
        "movie_blob/shape": np.tile(np.array([n_frames, NY, NX], "u4"), (n, 1)),
        "movie_blob/psize_A": fractions(PIXEL_A),
        "movie_blob/is_gain_corrected": whole(1),
        "micrograph_blob/path": files("_patch_aligned_doseweighted.mrc"),
        "micrograph_blob/idx": whole(0),
        "micrograph_blob/shape": np.tile(np.array([NY, NX], "u4"), (n, 1)),
        "micrograph_blob/psize_A": fractions(PIXEL_A),
        "rigid_motion/path": files("_rigid_traj.npy"),
        "rigid_motion/idx": whole(0),
        "rigid_motion/psize_A": fractions(PIXEL_A),
        "rigid_motion/frame_start": whole(0),
        "rigid_motion/frame_end": whole(n_frames),
        "spline_motion/path": files("_bending_traj.npy"),
        "spline_motion/idx": whole(0),
        "spline_motion/psize_A": fractions(PIXEL_A),
        "mscope_params/accel_kv": fractions(300),
        "mscope_params/cs_mm": fractions(2.7),
        "mscope_params/total_dose_e_per_A2": fractions(50),
        "mscope_params/exp_group_id": whole(1),
        "ctf/amp_contrast": fractions(0.1),
        "ctf/df1_A": defocus_A,
        "ctf/df2_A": defocus_A - 200,
        "ctf/df_angle_rad": rng.uniform(-1, 1, n).astype("f4"),
        "ctf/phase_shift_rad": fractions(0),
        "ctf_stats/ctf_fit_to_A": rng.uniform(3, 6, n).astype("f4"),
    }


def run(folder: Path, *more: str) -> tuple[float, float, float]:
    """Run the command; return its seconds, those of the processor, and the peak of its memory in MB."""
    words = [COMMAND, "micrographs", "J2/exposures.cs", "-o", "out/MotionCorr/job001", "-q", "--overwrite", *more]
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("cryobridge micrographs failed")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Time the command with and without motion, and for fewer micrographs, for what the memory grows by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=40)
    options = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"movies of {options.frames} frames, rigid and spline trajectories; {os.cpu_count()} cores{load}")
    print("micrographs                  seconds      CPU  ms of CPU each  peak memory (MB)")
    for n, more in (
        (options.micrographs // 10, ()),
        (options.micrographs, ()),
        (options.micrographs, ("--no-motion",)),
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_inputs(folder, n, options.frames)
            seconds, cpu, memory = run(folder, *more)
            what = " ".join([f"{n:,}", *more])
            print(f"  {what:24} {seconds:9.1f} {cpu:8.1f} {1000 * cpu / n:15.2f} {memory:17,.0f}", flush=True)
            if not more and n == options.micrographs:
                check(folder, n)


def check(folder: Path, n: int) -> None:
    """See that every micrograph got its metadata."""
    star = (folder / "out/MotionCorr/job001/corrected_micrographs.star").read_text(encoding="utf-8")
    names = re.findall(r"MotionCorr/job001/Micrographs/\S+\.star", star)
    assert len(names) == n, "micrographs without metadata of motion"
    assert (folder / "out" / names[-1]).stat().st_size


if __name__ == "__main__":
    main()
