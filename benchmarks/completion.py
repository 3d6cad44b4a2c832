"""How long Tab waits: the completion of a subcommand, an option and a choice, as the shell asks for it.

    python benchmarks/completion.py [--repeats 10]

Prints the median and the longest seconds of each, and of a Python that does nothing, which is the floor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("cryobridge"))
LINES = (
    "cryobridge st",
    "cryobridge inspect --",
    "cryobridge inspect --check st",
    "cryobridge stacks cs --on-missing ",
)


def seconds(words: list[str], **environment: str) -> float:
    """Return the seconds of one process."""
    start = time.perf_counter()
    subprocess.run(words, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def report(name: str, times: list[float]) -> None:
    """Print one line."""
    print(f"{name:40} median {statistics.median(times):6.3f} s   longest {max(times):6.3f} s")


def main() -> None:
    """Time each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    report("Python that does nothing", [seconds([sys.executable, "-c", ""]) for _ in range(repeats)])
    for line in LINES:
        asked = {
            "_CRYOBRIDGE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        report(line, [seconds([COMMAND], **asked) for _ in range(repeats)])


if __name__ == "__main__":
    main()
