"""Reading the course of a classification: `cryobridge converge` with and without pictures, in one run.

    python benchmarks/converge.py [PARTICLES] [ITERATIONS]

Writes a Class2D job with 30 columns a particle. `cryobridge converge` reads it without pictures, as it is (with a
summary and a picture of flows), and with a picture of each iteration, as processes from start to end. Beside them stand
a process that reads the bytes of the files and nothing else, and one that counts with starfile and pandas the particles
that changed class. Prints the median of the seconds, those of all cores together, and how many times the bare reading
that is; compare these ratios between machines, not seconds. On a quiet machine with two cores and 25 iterations of
100,000 particles the plain call is to take 2.5 s at most, and the one with all pictures 4 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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
WAYS = {"--no-plots": ("--no-plots",), "as it is": (), "--each-iteration": ("--each-iteration",)}
READING = """
import sys
from pathlib import Path
for path in sorted(Path(sys.argv[1]).glob("run_it*_data.star")):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
"""
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


@dataclass(frozen=True)
class Timed:
    """Seconds of a process and those it started, seconds of all cores, peak memory in KiB, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_kib: int
    text: str


def timed(*words: str) -> Timed:
    """Run a process to its end."""
    probe = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True); "
        "sys.stdout.buffer.write(done.stdout); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    text, _, used = done.stdout.rstrip("\n").rpartition("\n")
    cpu_seconds, peak = used.split()
    return Timed(seconds, float(cpu_seconds), int(peak), text or done.stderr)


def main() -> None:
    """Time all of them on the same job, in turn, and check that they count the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("particles", nargs="?", type=int, default=100_000)
    parser.add_argument("iterations", nargs="?", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-reference", action="store_true", help="leave starfile out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "job004"
        folder.mkdir()
        write_job(folder, arguments.particles, arguments.iterations)
        size = sum(path.stat().st_size for path in folder.iterdir())
        columns = len(FLOATS) + len(INTEGERS) + 3
        print(
            f"{arguments.iterations} iterations of {arguments.particles:,} particles x {columns} columns, "
            f"{size / 1e6:,.0f} MB, {os.cpu_count()} cores"
        )
        runs: dict[str, list[Timed]] = {}
        for repeat in range(arguments.repeats):
            # In turn, so that what else the machine does meets them all.
            runs.setdefault("reading the bytes", []).append(timed(sys.executable, "-c", READING, str(folder)))
            for name, words in WAYS.items():
                out = str(Path(top) / f"out{repeat}{name}")
                done = timed(str(COMMAND), "converge", str(folder), "-o", out, "--json", *words)
                runs.setdefault(name, []).append(done)
        if not arguments.no_reference:
            runs["starfile"] = [timed(sys.executable, "-c", REFERENCE, str(folder))]
        show(runs)
        if arguments.no_reference:
            return
        counted = [item["changed"] for item in json.loads(runs["as it is"][0].text)["iterations"][1:]]
        done = subprocess.run(
            [sys.executable, "-c", REFERENCE, str(folder)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        if counted != [int(word) for word in done.stderr.split()]:
            raise SystemExit("the counts differ")
        print("both count the same")


def show(runs: dict[str, list[Timed]]) -> None:
    """Print a row of each."""
    floor = statistics.median(run.seconds for run in runs["reading the bytes"])
    print(f"{'':18} {'s':>7} {'s of all cores':>15} {'x bytes':>8} {'peak GiB':>9}")
    for name, done in runs.items():
        seconds = statistics.median(run.seconds for run in done)
        cpu_seconds = statistics.median(run.cpu_seconds for run in done)
        peak = max(run.peak_kib for run in done) / 2**20
        print(f"{name:18} {seconds:7.2f} {cpu_seconds:15.2f} {seconds / floor:8.1f} {peak:9.2f}")


if __name__ == "__main__":
    main()
