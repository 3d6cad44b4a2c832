"""Carrying out a plan: reading, transforming and writing overlap, and devices work side by side."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from cryobridge.errors import CryobridgeError
from cryobridge.fourier.images import power_spectrum
from cryobridge.jobs.stacks.output import OpenStack, open_stack
from cryobridge.jobs.stacks.reading import ImageReader
from cryobridge.jobs.stacks.transform import ChunkTransform, Transformed
from cryobridge.plots.images import evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.plan import StackPlan, StackTask

_READ_AHEAD = 2
_MOST_UNWRITTEN = 2


@dataclass(frozen=True)
class Preview:
    """What pictures of a stack are drawn from.

    Parameters
    ----------
    rows
        Rows of the images, evenly spaced over the stack.
    images
        (≤ 16, N, N) normalised.
    polar
        (≤ 16, shells, angles) their transforms.
    power
        (shells,) mean power of all images of the stack.
    """

    rows: Rows
    images: Tensor
    polar: Tensor
    power: Tensor


@dataclass(frozen=True)
class StackResult:
    """A stack that is whole under its name: its number, how many images it has, and what became of the others."""

    number: int
    n_images: int
    unusable_rows: Rows
    preview: Preview | None


class Executor(Protocol):
    """Who makes the stacks of a plan; each is independent of the others."""

    def run(
        self,
        folder: Path,
        tasks: Sequence[StackTask],
        *,
        advance: Callable[[int], None],
        done: Callable[[StackResult], None],
    ) -> None:
        """Make these stacks of the plan in a folder.

        Parameters
        ----------
        folder, tasks
            Where, and which.
        advance
            Called with a number of images that are done.
        done
            Called after each stack, one call at a time.

        Raises
        ------
        CryobridgeError
            If a stack can't be made; those that are done stay.
        """


class DeviceExecutor:
    """Works in this process, on one or more devices that share the stacks among them.

    The transform is planned here, so that a grid beyond the memory is refused before anything is written.
    """

    def __init__(self, plan: StackPlan, devices: Sequence[torch.device]) -> None:
        self._plan = plan
        self._transforms = [ChunkTransform(plan, device) for device in devices]

    def run(
        self,
        folder: Path,
        tasks: Sequence[StackTask],
        *,
        advance: Callable[[int], None],
        done: Callable[[StackResult], None],
    ) -> None:
        """Make these stacks in a folder; see `Executor.run`."""
        queue = _Queue(tasks)
        telling = threading.Lock()

        def done_in_turn(result: StackResult) -> None:
            with telling:
                done(result)

        make = partial(make_stacks, self._plan, folder, queue, advance=advance, done=done_in_turn)
        with _one_core_left():
            if len(self._transforms) == 1:
                make(self._transforms[0])
            else:
                self._side_by_side(make, queue)

    def _side_by_side(self, make: Callable[[ChunkTransform], None], queue: _Queue) -> None:
        with ThreadPoolExecutor(len(self._transforms)) as pool:
            lanes = [pool.submit(make, transform) for transform in self._transforms]
            try:
                for lane in lanes:
                    lane.add_done_callback(queue.close_on_error)
                wait(lanes)
            finally:
                queue.close()
        for lane in lanes:
            lane.result()


@contextmanager
def _one_core_left() -> Iterator[None]:
    """Keep torch off one core, which reading and writing need.

    Threads of torch that share a core with them keep the others waiting: on two cores, one thread of torch is faster.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class _Queue:
    """Hands out tasks to several threads until it is closed."""

    def __init__(self, tasks: Iterable[StackTask]) -> None:
        self._tasks = iter(tasks)
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[StackTask]:
        return self

    def __next__(self) -> StackTask:
        with self._lock:
            if self._closed:
                raise StopIteration
            return next(self._tasks)

    def close(self) -> None:
        self._closed = True

    def close_on_error(self, lane: Future[None]) -> None:
        if lane.exception() is not None:
            self.close()


def make_stacks(
    plan: StackPlan,
    folder: Path,
    tasks: Iterable[StackTask],
    transform: ChunkTransform,
    *,
    advance: Callable[[int], None],
    done: Callable[[StackResult], None],
) -> None:
    """Make stacks on one device: while one chunk of images is transformed, the next is read and the last written.

    Parameters
    ----------
    plan, folder, tasks
        What to make, and where.
    transform
        Of the plan, on one device.
    advance, done
        Called from a thread of their own; see `Executor.run`.

    Raises
    ------
    CryobridgeError
        If an image can't be read or used, or a file not be written. The stack that it is in is not there then.
    """
    chunks = _chunks(tasks, transform.chunk_size)
    writer = _StackWriter(plan, folder, transform, advance, done)

    def read(chunk: _Chunk) -> Tensor:
        return transform.to_host_memory(torch.from_numpy(reader.read(chunk.rows)))

    ahead: deque[tuple[_Chunk, Future[Tensor]]] = deque()
    unwritten: deque[Future[None]] = deque()
    with (
        ImageReader(plan.source) as reader,
        writer,
        _one_thread("read") as reading,
        _one_thread("write") as writing,
    ):
        try:
            while True:
                while len(ahead) < _READ_AHEAD and (chunk := next(chunks, None)) is not None:
                    ahead.append((chunk, reading.submit(read, chunk)))
                if not ahead:
                    break
                chunk, pixels = ahead.popleft()
                while len(unwritten) >= _MOST_UNWRITTEN:
                    unwritten.popleft().result()
                unwritten.append(writing.submit(writer.write, chunk, transform(pixels.result())))
            for future in unwritten:
                future.result()
        except BaseException:
            reading.shutdown(wait=False, cancel_futures=True)
            writing.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose thread is running: an interrupt while it starts would leave it at work and not waited for."""
    with ThreadPoolExecutor(1, name) as pool:
        pool.submit(int).result()
        yield pool


@dataclass(frozen=True)
class _Chunk:
    """Some consecutive images of a stack."""

    task: StackTask
    first: int
    rows: Rows

    @property
    def is_last(self) -> bool:
        return self.first + len(self.rows) == len(self.task.rows)


def _chunks(tasks: Iterable[StackTask], size: int) -> Iterator[_Chunk]:
    for task in tasks:
        for first in range(0, len(task.rows), size):
            yield _Chunk(task, first, task.rows[first : first + size])


class _StackWriter(AbstractContextManager["_StackWriter"]):
    """Writes one stack after the other, chunk by chunk; one that is not finished leaves nothing behind."""

    def __init__(
        self,
        plan: StackPlan,
        folder: Path,
        transform: ChunkTransform,
        advance: Callable[[int], None],
        done: Callable[[StackResult], None],
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._types = (transform.real_type, transform.complex_type)
        self._advance = advance
        self._done = done
        self._files: AbstractContextManager[OpenStack] | None = None
        self._failed = False

    def write(self, chunk: _Chunk, made: Transformed) -> None:
        # Chunks that are on their way when one fails would be taken for the beginning of a stack.
        if self._failed:
            return
        self._failed = True
        made.wait()
        self._write(chunk, made)
        self._failed = False

    def _write(self, chunk: _Chunk, made: Transformed) -> None:
        unusable = made.unusable.numpy()
        if unusable.any() and self._plan.options.on_missing == "error":
            self._refuse(chunk.rows[unusable])
        if self._files is None:
            self._files = open_stack(self._plan, self._folder, chunk.task, *self._types)
            self._stack = self._files.__enter__()
            self._unusable: list[Rows] = []
            self._previews = _PreviewMaker(len(chunk.task.rows)) if self._plan.options.plots else None
        images, polar, rows = made.images, made.polar, chunk.rows
        positions = np.arange(chunk.first, chunk.first + len(rows))
        if unusable.any():
            usable = torch.from_numpy(~unusable)
            images, polar = images[usable], polar[usable]
            rows, positions = rows[~unusable], positions[~unusable]
        self._stack.write(rows, images, polar)
        self._unusable.append(chunk.rows[unusable])
        if self._previews is not None:
            self._previews.add(positions, rows, images, polar)
        if chunk.is_last:
            self._finish(chunk.task)
        self._advance(len(chunk.rows))

    def __exit__(self, *error: object) -> None:
        if self._files is not None:
            files, self._files = self._files, None
            files.__exit__(*error)  # type: ignore[arg-type]

    def _finish(self, task: StackTask) -> None:
        assert self._files is not None
        files, self._files = self._files, None
        files.__exit__(None, None, None)
        unusable = np.concatenate(self._unusable)
        preview = self._previews.preview() if self._previews else None
        self._done(StackResult(task.number, len(task.rows) - len(unusable), unusable, preview))

    def _refuse(self, rows: Rows) -> None:
        source = self._plan.source
        row = int(rows[0])
        raise CryobridgeError(
            f"image {source.images.index[row] + 1} is constant or holds NaN or infinity, and has no transform",
            path=source.headers[int(source.images.path.codes[row])].path,
            rows=tuple(int(row) for row in source.metadata_rows[rows[:3]]),
            count=len(rows),
            hint=f"Leave such images out with --on-missing skip, or take these rows out of {source.particles.source}. "
            "--resume goes on after the stacks that are done.",
        )


class _PreviewMaker:
    """Picks out of a stack what its pictures show."""

    def __init__(self, n_images: int) -> None:
        self._shown = np.asarray(evenly_spaced(n_images))
        self._rows: list[Rows] = []
        self._images: list[Tensor] = []
        self._polar: list[Tensor] = []
        self._power: Tensor | None = None
        self._n_images = 0

    def add(self, positions: Rows, rows: Rows, images: Tensor, polar: Tensor) -> None:
        chosen = np.flatnonzero(np.isin(positions, self._shown))
        self._rows.append(rows[chosen])
        self._images.append(images[chosen].clone())
        self._polar.append(polar[chosen].clone())
        power = power_spectrum(polar).sum(0, dtype=torch.float64)
        self._power = power if self._power is None else self._power + power
        self._n_images += len(rows)

    def preview(self) -> Preview:
        assert self._power is not None
        return Preview(
            np.concatenate(self._rows),
            torch.cat(self._images),
            torch.cat(self._polar),
            self._power / max(1, self._n_images),
        )
