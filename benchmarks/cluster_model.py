"""Many workers on one shared disk, on paper: what binds, the workers, the disk, the scheduler or the server of names.

    python benchmarks/cluster_model.py [--terabytes TB] [--disk GB/s ...] [--workers N ...] [--ms-image MS]

A small discrete model. Each worker takes one stack after the other: the scheduler serves one task at a time, a server
of names the calls of the file system, and the disk the bytes that are read and written, piece by piece, while the
worker transforms the piece before. The first stack of a worker waits for imports and for its plan. What goes in was
measured by `benchmarks/cluster.py` and is printed first; a faster machine changes the time of an image, and with it
how many workers a disk feeds.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass, replace

PIECES = 8


@dataclass(frozen=True)
class Inputs:
    """What the model is made of; times in seconds, of one worker of one thread."""

    n_workers: int = 1
    input_bytes: float = 10e12
    box_px: int = 256
    images_per_stack: int = 1024
    # Of an image: a transform on a grid of 257 shells and 512 angles in single precision, and the image itself.
    read_bytes: int = 4 * 256 * 256
    written_bytes: int = 8 * 257 * 512 + 4 * 256 * 256
    image_s: float = 3.3e-3
    # Of a task: what it costs a worker beside its work, and the scheduler.
    overhead_s: float = 11e-3
    scheduler_s: float = 3.1e-3
    n_messages: float = 7.8
    n_calls: float = 50
    start_s: float = 5.0
    # Of the cluster: bytes a second of the disk, of one machine's network, and calls a second of the server of names.
    disk: float = 5e9
    link: float = 1.2e9
    calls: float = 10_000

    @property
    def n_stacks(self) -> int:
        """How many stacks, and so tasks, there are."""
        return round(self.input_bytes / self.read_bytes / self.images_per_stack)


@dataclass(frozen=True)
class Outcome:
    """What came of it: the hours, and the part of them in which each was busy."""

    hours: float
    workers: float
    disk: float
    scheduler: float
    names: float

    @property
    def binds(self) -> str:
        """What was busiest."""
        parts = {"workers": self.workers, "disk": self.disk, "scheduler": self.scheduler, "metadata": self.names}
        return max(parts, key=parts.__getitem__)


class Queue:
    """A server that does one thing after the other, in the order in which they come."""

    def __init__(self) -> None:
        self.free_s = self.busy_s = 0.0

    def served(self, now_s: float, seconds: float) -> float:
        """Return when something that takes so long is done."""
        self.free_s = max(now_s, self.free_s) + seconds
        self.busy_s += seconds
        return self.free_s


def simulate(given: Inputs) -> Outcome:
    """Carry out all tasks, event by event in the order of time."""
    disk, scheduler, names = Queue(), Queue(), Queue()
    piece_bytes = given.images_per_stack * (given.read_bytes + given.written_bytes) / PIECES
    piece_s = given.images_per_stack * given.image_s / PIECES
    left = given.n_stacks
    computed_s = end_s = 0.0
    # When, which worker, and how many pieces of its stack are still to come.
    events = [(given.start_s, worker, 0) for worker in range(given.n_workers)]
    heapq.heapify(events)
    while events:
        now_s, worker, pieces = heapq.heappop(events)
        end_s = max(end_s, now_s)
        if pieces == 0:
            if left == 0:
                continue
            left -= 1
            now_s = names.served(scheduler.served(now_s, given.scheduler_s), given.n_calls / given.calls)
            heapq.heappush(events, (now_s + given.overhead_s, worker, PIECES))
            continue
        computed_s += piece_s
        moved_s = max(disk.served(now_s, piece_bytes / given.disk), now_s + piece_bytes / given.link)
        heapq.heappush(events, (max(now_s + piece_s, moved_s), worker, pieces - 1))
    busy = (disk.busy_s / end_s, scheduler.busy_s / end_s, names.busy_s / end_s)
    return Outcome(end_s / 3600, computed_s / end_s / given.n_workers, *busy)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terabytes", type=float, default=10.0, help="of particle images that are read")
    parser.add_argument("--disk", type=float, nargs="+", default=[1.0, 5.0, 20.0], help="GB a second, of the disk")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 30, 100, 300, 1000])
    parser.add_argument("--ms-image", type=float, default=1e3 * Inputs.image_s, help="of the transform on one thread")
    options = parser.parse_args()
    given = Inputs(input_bytes=1e12 * options.terabytes, image_s=1e-3 * options.ms_image)
    stack_s = given.images_per_stack * given.image_s
    moved = given.images_per_stack * (given.read_bytes + given.written_bytes)
    print(f"{options.terabytes:g} TB of images of {given.box_px} px: {given.n_stacks:,} stacks of")
    print(f"{given.images_per_stack:,}, {given.n_stacks * moved / 1e12:.0f} TB read and written")
    print(f"a stack: {stack_s:.1f} s of one thread, {moved / 1e9:.2f} GB, {given.n_calls:.0f} calls of the file system")
    print(f"a task: {1e3 * given.overhead_s:.0f} ms beside its work; {1e3 * given.scheduler_s:.1f} ms and")
    print(f"{given.n_messages:.0f} messages of the scheduler, which so feeds {stack_s / given.scheduler_s:.0f} workers")
    print(f"all: {given.n_stacks * given.n_calls / 1e6:.1f} million calls of the file system")
    for disk in options.disk:
        print(f"a disk of {disk:g} GB/s feeds {1e9 * disk * stack_s / moved:.0f} workers")
    print("disk GB/s  workers   hours  efficiency   busy: workers  disk  scheduler  metadata  binds")
    for disk in options.disk:
        at_disk = replace(given, disk=1e9 * disk)
        alone = simulate(at_disk)
        for n_workers in options.workers:
            found = simulate(replace(at_disk, n_workers=n_workers))
            efficiency = alone.hours / (n_workers * found.hours)
            print(
                f"{disk:9g}{n_workers:9d}{found.hours:8.1f}{efficiency:12.2f}{found.workers:16.2f}{found.disk:6.2f}"
                f"{found.scheduler:11.2f}{found.names:10.2f}  {found.binds}",
                flush=True,
            )


if __name__ == "__main__":
    main()
