"""Reading the course of a classification: `cryobridge converge` beside the starfile package, in one run.

    python benchmarks/converge.py [PARTICLES] [ITERATIONS]

Writes a Class2D job with 30 columns a particle, then counts in each iteration the particles that changed class: once
with `cryobridge converge --no-plots`, as a process from start to end, once with starfile and pandas. Prints seconds,
the ratio and the peak memory of each; compare ratios between machines, not seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = Path(sys.executable).with_name("cryobridge")
N_CLASSES = 50
FLOATS = (
    *("rlnCoordinateX", "rlnCoordinateY", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"),
    *("rlnCtfBfactor", "rlnCtfScalefactor", "rlnCtfMaxResolution", "rlnAutopickFigureOfMerit", "rlnAngleRot"),
    *("rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnNormCorrection"),
    *("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnAnglePsiPrior", "rlnAngleTiltPrior"),
    *("rlnHelicalTrackLengthAngst", "rlnCtfFigureOfMerit", "rlnAngleRotPrior"),
)
INTEGERS = ("rlnOpticsGroup", "rlnGroupNumber", "rlnNrOfSignificantSamples", "rlnRandomSubset")
REFERENCE = """
import resource, sys
from pathlib import Path
import starfile
before, out = None, []
for path in sorted(Path(sys.argv[1]).glob("run_it*_data.star")):
    now = starfile.read(path)["particles"].set_index("rlnImageName")["rlnClassNumber"]
    if before is not None:
        out.append(int((now != before.reindex(now.index)).sum()))
    before = now
print(*out, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_job(folder: Path, n_particles: int, n_iterations: int) -> None:
    """Write iterations in RELION's layout; only the classes differ from one to the next."""
    rng = np.random.default_rng(0)
    numbers = rng.uniform(0, 20000, (1000, len(FLOATS)))
    middles = ["".join(f" {value:12.6f}" for value in row) for row in numbers]
    tail = "".join(f" {value:12d}" for value in range(len(INTEGERS)))
    starts = []
    for row in range(n_particles):
        movie = f"Movies/20170629_{row // 200:05d}_frameImage.mrcs"
        starts.append(f"{row % 200 + 1:06d}@Extract/job012/{movie} MotionCorr/job002/{movie}{middles[row % 1000]}")
    labels = ("rlnImageName", "rlnMicrographName", *FLOATS, "rlnClassNumber", *INTEGERS)
    head = "".join(f"_{label} #{number} \n" for number, label in enumerate(labels, 1))
    classes = rng.integers(1, N_CLASSES + 1, n_particles)
    for iteration in range(n_iterations):
        moving = rng.random(n_particles) < 0.5 * np.exp(-iteration / 5)
        classes = np.where(moving, rng.integers(1, N_CLASSES + 1, n_particles), classes)
        with (folder / f"run_it{iteration:03d}_data.star").open("w") as file:
            file.write("\n# version 30001\n\ndata_optics\n\nloop_ \n_rlnOpticsGroup #1 \n           1 \n \n")
            file.write(f"\n# version 30001\n\ndata_particles\n\nloop_ \n{head}")
            file.writelines(
                f"{start} {number:12d}{tail} \n" for start, number in zip(starts, classes.tolist(), strict=True)
            )
            file.write(" \n")


def timed(*words: str) -> tuple[float, int, str]:
    """Run a process; return seconds, its peak memory in KiB, and what it printed."""
    probe = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True); "
        "sys.stdout.buffer.write(done.stdout); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    text, _, peak = done.stdout.rstrip("\n").rpartition("\n")
    return seconds, int(peak), text or done.stderr


def main() -> None:
    """Time both on the same job, and check that they count the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("particles", nargs="?", type=int, default=100_000)
    parser.add_argument("iterations", nargs="?", type=int, default=25)
    parser.add_argument("--no-reference", action="store_true", help="time cryobridge alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), arguments.particles, arguments.iterations)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        columns = len(FLOATS) + len(INTEGERS) + 3
        print(
            f"{arguments.iterations} iterations of {arguments.particles:,} particles x {columns} columns, "
            f"{size / 1e6:,.0f} MB, {os.cpu_count()} cores"
        )
        words = [str(COMMAND), "converge", folder, "--no-plots", "--json"]
        runs = [timed(*words) for _ in range(3)]
        seconds, peak, text = sorted(runs)[1]
        print(f"cryobridge {seconds:7.2f} s   peak {peak / 2**20:5.2f} GiB")
        if arguments.no_reference:
            return
        theirs, their_peak, _ = timed(sys.executable, "-c", REFERENCE, folder)
        print(f"starfile   {theirs:7.2f} s   peak {their_peak / 2**20:5.2f} GiB   {theirs / seconds:4.1f} times slower")
        counted = [item["changed"] for item in json.loads(text)["iterations"][1:]]
        done = subprocess.run(
            [sys.executable, "-c", REFERENCE, folder], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=True
        )
        if counted != [int(word) for word in done.stderr.split()]:
            raise SystemExit("the counts differ")
        print("both count the same")


if __name__ == "__main__":
    main()
