"""Stacks by `--cluster local:N`: efficiency, time to the first stack, and what a task costs beside its work.

    python benchmarks/cluster.py [--images N] [--box PX] [--workers N] [--repeats N] [--tasks N]

Each worker has one thread. Runs of one and of several workers take turns, so that both meet the same noise. The
efficiency of N workers is T1 / (N TN), of the work between the first stack of each worker and the last one; above the
bare writer, the time of one program that only writes the same bytes is taken from both, as the disk is one. CPU time
is that of all processes, without their start. What a task costs is found from runs that differ only in how many stacks
they make: of one image of 16 px, so that there is hardly any work in one. Calls of the file system are counted by
strace, where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacks import make_particles

COMMAND = [sys.executable, "-m", "cryobridge", "stacks", "cs", "particles.cs", "-o", "out", "--no-plots"]
WRITER = """
import sys
left, piece = int(sys.argv[1]), bytes(1 << 22)
with open("floor.bin", "wb", buffering=0) as file:
    while left > 0:
        left -= file.write(piece[:left])
"""
# Calls that a file system on a network answers by its servers of names; what is read and written is beside them.
CALLS = ("%file", "close", "getdents64", "fsync", "fdatasync", "ftruncate", "flock")
TINY_BOX_PX = 16
N_STACKS = 32


@dataclass(frozen=True)
class Timed:
    """What a run took."""

    whole_s: float
    first_s: float
    work_s: float
    cpu_s: float
    n_stacks: int
    n_bytes: int


def timed(folder: Path, *words: str, n_workers: int = 1) -> Timed:
    """Run `stacks cs` in a folder, and tell from the files when each stack was whole; remove them."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    began, start = time.time(), time.perf_counter()
    process = subprocess.Popen([*COMMAND, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: {errors.decode()}")
    whole_s = time.perf_counter() - start
    files = [path.stat() for path in (folder / "out").rglob("*.pt")]
    ends = sorted(path.stat().st_mtime for path in (folder / "out" / "fft").glob("*.pt"))
    # The first stack of each worker waits for imports.
    n_counted = len(ends) - n_workers
    work_s = (ends[-1] - ends[n_workers - 1]) * len(ends) / n_counted if n_counted > 0 else float("nan")
    cpu_s = usage.ru_utime + usage.ru_stime
    shutil.rmtree(folder / "out")
    return Timed(whole_s, ends[0] - began, work_s, cpu_s, len(ends), sum(file.st_size for file in files))


def write_bare(folder: Path, n_bytes: int) -> float:
    """Return the seconds of a program that only writes so many bytes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", WRITER, str(n_bytes)], cwd=folder, check=True)
    seconds = time.perf_counter() - start
    (folder / "floor.bin").unlink()
    return seconds


def scaling(box_px: int, n_images: int, n_most: int, repeats: int) -> None:
    """Print the times of one and of several workers, and their efficiency."""
    batch = max(1, n_images // N_STACKS)
    runs: dict[int, list[Timed]] = {n: [] for n in range(1, n_most + 1)}
    starts: dict[int, list[Timed]] = {n: [] for n in runs}
    floors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, box_px, n_images)
        for _ in range(repeats):
            for n, taken in runs.items():
                words = ("-b", str(batch), "--device", "cpu", "--cluster", f"local:{n}")
                taken.append(timed(folder, *words, n_workers=n))
                starts[n].append(timed(folder, *words, "--n-stacks-max", str(N_STACKS // 4), n_workers=n))
            floors.append(write_bare(folder, runs[1][0].n_bytes))

    def cpu_ms_an_image(n: int) -> float:
        used_s = [min(one.cpu_s for one in found[n]) for found in (runs, starts)]
        return 1e3 * (used_s[0] - used_s[1]) / (n_images - batch * (N_STACKS // 4))

    n_stacks, floor_s = runs[1][0].n_stacks, min(floors)
    print(f"{n_images:,} images of {box_px} px in {n_stacks} stacks, {runs[1][0].n_bytes / 1e9:.2f} GB written;")
    print(f"the bare writer takes {floor_s:.2f} s; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("workers  whole (s)  first stack (s)  work (s)  images/s  E(N)  above the writer  CPU ms an image  E of CPU")
    for n, taken in runs.items():
        best = min(taken, key=lambda one: one.work_s)
        pairs = list(zip(runs[1], taken, strict=True))
        plain = statistics.median(one.work_s / (n * many.work_s) for one, many in pairs)
        beyond = [(one.work_s - floor_s, many.work_s - floor_s) for one, many in pairs]
        # Where the disk is as slow as the work there is nothing to divide.
        above = statistics.median(one / (n * many) if min(one, many) > 0 else float("nan") for one, many in beyond)
        cpu_ms = cpu_ms_an_image(n)
        whole_s, first_s = min(one.whole_s for one in taken), min(one.first_s for one in taken)
        print(
            f"{n:7d}{whole_s:11.2f}{first_s:17.2f}{best.work_s:10.2f}{n_images / best.work_s:10.0f}{plain:6.2f}"
            f"{above:18.2f}{cpu_ms:17.2f}{cpu_ms_an_image(1) / cpu_ms:13.2f}",
            flush=True,
        )


def overhead(n_tasks: int, repeats: int) -> None:
    """Print what a task costs more on a worker than in one process."""
    words = ("-b", "1", "--device", "cpu")
    ways = {"in one process": (), "on a worker": ("--cluster", "local:1")}
    ms: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, TINY_BOX_PX, n_tasks)
        for _ in range(repeats):
            for way, more in ways.items():
                few = timed(folder, *words, *more, "--n-stacks-max", str(n_tasks // 4))
                many = timed(folder, *words, *more)
                cpu_s = (many.cpu_s - few.cpu_s) / (n_tasks - n_tasks // 4)
                ms[way].append((1e3 * many.work_s / n_tasks, 1e3 * cpu_s))
    print(f"a stack of one image of {TINY_BOX_PX} px, of {n_tasks:,}: ms, and ms of CPU time")
    best = {way: tuple(map(min, zip(*found, strict=True))) for way, found in ms.items()}
    for way, (wall, cpu) in best.items():
        print(f"  {way:16s}{wall:8.1f}{cpu:8.1f}")
    more_ms = [there - here for here, there in zip(*best.values(), strict=True)]
    print(f"  {'overhead a task':16s}{more_ms[0]:8.1f}{more_ms[1]:8.1f}", flush=True)


def count_here(folder: str, n_stacks: int) -> None:
    """Make stacks by a local cluster from within this process, and print what the scheduler had to do."""
    from distributed.comm.tcp import TCP

    import cryobridge as cb

    counts: Counter[str] = Counter()
    schedulers: Counter[str] = Counter()
    read, write = TCP.read, TCP.write

    async def counted_read(comm: Any, *words: Any, **keywords: Any) -> Any:
        message = await read(comm, *words, **keywords)
        schedulers[comm.local_address] += 1
        return message

    async def counted_write(comm: Any, *words: Any, **keywords: Any) -> Any:
        n_bytes = await write(comm, *words, **keywords)
        schedulers[comm.local_address] += 1
        counts["bytes"] += n_bytes or 0
        return n_bytes

    TCP.read, TCP.write = counted_read, counted_write
    here = Path(folder)
    before = resource.getrusage(resource.RUSAGE_SELF)
    cb.stacks(here / "particles.cs", here / "out", batch_size=1, n_stacks_max=n_stacks, plots=False, cluster="local:1")
    after = resource.getrusage(resource.RUSAGE_SELF)
    # The scheduler is where most of the messages go through.
    messages = max(schedulers.values())
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"messages": messages, "bytes": counts["bytes"], "cpu_s": cpu_s}))


def scheduler(n_tasks: int) -> None:
    """Print messages and CPU time of the scheduler and the process that waits, for each task."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        make_particles(Path(name), TINY_BOX_PX, n_tasks)
        for count in (n_tasks // 4, n_tasks):
            shutil.rmtree(Path(name) / "out", ignore_errors=True)
            words = [sys.executable, __file__, "--count-here", name, str(count)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    each = {key: (found[1][key] - found[0][key]) / (n_tasks - n_tasks // 4) for key in found[0]}
    print(f"scheduler and coordinator: {1e3 * each['cpu_s']:.2f} ms of CPU, {each['messages']:.1f} messages and")
    print(f"{each['bytes'] / 1e3:.1f} kB sent by them for each task", flush=True)


def file_calls(n_tasks: int) -> None:
    """Print how many calls of the file system a stack takes, by kind: of input and output, not of Python and Dask."""
    if shutil.which("strace") is None:
        print("calls of the file system: not counted, as strace is not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_particles(folder, TINY_BOX_PX, n_tasks)
        words = ["strace", "-f", "-y", "-qq", "-e", f"trace={','.join(CALLS)}", "-e", "signal=none", "-o", "calls.txt"]
        own = [*COMMAND, "-b", "1", "--device", "cpu", "--cluster", "local:1"]
        subprocess.run([*words, *own], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = (folder / "calls.txt").read_text(errors="replace").splitlines()
    # From one stack to another one, which is neither among the first nor among the last.
    first, last = n_tasks // 4, 3 * n_tasks // 4
    begin, end = (next(i for i, line in enumerate(lines) if f"stack_{n:06d}" in line) for n in (first, last))
    own_lines = [line for line in lines[begin:end] if name in line]
    counts = Counter(match[1] for line in own_lines if (match := re.match(r"\d+ +(\w+)\(", line)))
    # Of a file that is open they ask no server.
    counts["newfstatat"] -= sum("AT_EMPTY_PATH" in line for line in own_lines)
    shown = ", ".join(f"{call} {n / (last - first):.1f}" for call, n in counts.most_common())
    print(f"calls of the file system for a stack: {counts.total() / (last - first):.0f}:")
    print(shown, flush=True)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=int, default=128, help="box in pixels")
    parser.add_argument("--images", type=int, default=4096, help="images of the runs that show the efficiency")
    parser.add_argument("--workers", type=int, default=2, help="the most workers")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--tasks", type=int, default=400, help="tasks of the runs that show what one costs")
    parser.add_argument("--count-here", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.count_here:
        count_here(options.count_here[0], int(options.count_here[1]))
        return
    scaling(options.box, options.images, options.workers, options.repeats)
    overhead(options.tasks, options.repeats)
    scheduler(options.tasks)
    file_calls(options.tasks // 4)


if __name__ == "__main__":
    main()
