"""Reading and writing a large particle STAR file: cryobridge beside the starfile package, in one run.

    python benchmarks/star_files.py [ROWS]

Prints seconds and the ratio; compare ratios between machines, not seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import starfile

from cryobridge.formats.relion.star import StarBlock, open_star
from cryobridge.formats.relion.star_write import write_star

FLOATS = (
    *("rlnCoordinateX", "rlnCoordinateY", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"),
    *("rlnCtfBfactor", "rlnCtfScalefactor", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst"),
    *("rlnOriginYAngst", "rlnAutopickFigureOfMerit", "rlnCtfMaxResolution", "rlnNormCorrection"),
    *("rlnLogLikeliContribution", "rlnMaxValueProbDistribution"),
)
INTEGERS = ("rlnClassNumber", "rlnRandomSubset", "rlnGroupNumber", "rlnOpticsGroup", "rlnNrOfSignificantSamples")


def particles(n_rows: int) -> StarBlock:
    """Make 25 columns as a refinement writes them."""
    rng = np.random.default_rng(0)
    stacks = [f"Extract/job012/Movies/20170629_{number:05d}_frameImage.mrcs" for number in range(n_rows // 200 + 1)]
    movies = [stack.replace("Extract/job012", "MotionCorr/job002") for stack in stacks]
    columns: dict = {
        "rlnImageName": [f"{row % 200 + 1:06d}@{stacks[row // 200]}" for row in range(n_rows)],
        "rlnMicrographName": [movies[row // 200] for row in range(n_rows)],
    }
    columns |= {name: np.round(rng.uniform(-500, 20000, n_rows), 6) for name in FLOATS}
    columns |= {name: rng.integers(1, 50, n_rows) for name in INTEGERS}
    return StarBlock.from_columns("particles", columns, comments=("version 30001",))


def relion_layout(path: Path, block: StarBlock) -> None:
    """Write the block with RELION's column widths, as it reaches us in practice."""
    with path.open("w") as file:
        file.write("\n# version 30001\n\ndata_particles\n\nloop_\n")
        file.writelines(f"_{name} #{number}\n" for number, name in enumerate(block.names, 1))
        formats = ["%s", "%s", *["%12.6f"] * len(FLOATS), *["%12d"] * len(INTEGERS)]
        line = " ".join(formats) + " \n"
        columns = [block.table[name].to_pylist() for name in block.names]
        file.writelines(line % row for row in zip(*columns, strict=True))
        file.write("\n")


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of a piece of work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Time both programs on the same file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.star"), Path(folder, "out.star")
        relion_layout(source, particles(n_rows))
        print(f"{n_rows:,} rows x 25 columns, {source.stat().st_size / 1e6:.0f} MB")
        block = open_star(source)["particles"]
        frame = starfile.read(source)
        for what, ours, theirs in (
            ("read", lambda: open_star(source)["particles"], lambda: starfile.read(source)),
            ("write", lambda: write_star(target, [block]), lambda: starfile.write(frame, target, overwrite=True)),
        ):
            own, other = seconds(ours), seconds(theirs, repeats=1)
            print(f"{what:6} cryobridge {own:6.2f} s   starfile {other:6.2f} s   {other / own:4.1f} times faster")


if __name__ == "__main__":
    main()
