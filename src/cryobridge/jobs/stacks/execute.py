"""Carrying out tasks: reading, transforming and writing overlap."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.formats.atomic import leftovers
from cryobridge.formats.image_reader import ImageReader
from cryobridge.jobs.output_folder import remove_existing
from cryobridge.jobs.stacks.plan import OpenStack, StackPlan, StackResult, StackTask, Transform, whole_stack
from cryobridge.progress import Silent

if TYPE_CHECKING:
    from cryobridge.executors.base import Advance, Elsewhere
    from cryobridge.jobs.stacks.checks import Rows
    from cryobridge.jobs.stacks.plan import Made
    from cryobridge.progress import Reporter

_MOST_UNWRITTEN = 2


@dataclass(frozen=True)
class StackWork:
    """The tasks of a plan in a folder, for an executor (see `cryobridge.executors.base.Work`)."""

    plan: StackPlan[Any]
    folder: Path
    reporter: Reporter = field(default_factory=Silent)

    @property
    def uses_torch(self) -> bool:
        """Whether stacks are made with torch on the processor, too."""
        return self.plan.uses_torch

    def worker(self, device: str) -> StackWorker:
        """Return who makes stacks on a device."""
        return StackWorker(self.plan, self.folder, self.plan.transform(device))

    def process(self) -> AbstractContextManager[None]:
        """Settle how many threads the transform takes."""
        return self.plan.process()

    @contextmanager
    def elsewhere(self, device: str) -> Iterator[Elsewhere[StackResult]]:
        """Write the plan under the output folder, and remove it and what ended processes left there at the end."""
        from cryobridge.jobs.stacks.plan_file import stored_plan
        from cryobridge.jobs.stacks.remote import RemoteStacks

        try:
            with stored_plan(self.plan, self.folder) as (place, fingerprint):
                yield RemoteStacks(str(place), fingerprint, str(self.folder.absolute()), device)
        finally:
            for name in ("", *self.plan.folders):
                remove_existing(leftovers(self.folder / name))


@dataclass(frozen=True)
class StackWorker:
    """Makes stacks of a plan on one device."""

    plan: StackPlan[Any]
    folder: Path
    transform: Transform[Any, Any]

    def run(self, numbers: Iterable[int], *, advance: Advance, done: Callable[[StackResult], None]) -> None:
        """Make the stacks of these numbers; see `cryobridge.executors.base.Worker`."""
        by_number = {task.number: task for task in self.plan.tasks}
        tasks = (by_number[number] for number in numbers)
        make_stacks(self.plan, self.folder, tasks, self.transform, advance=advance, done=done)


def make_stacks(
    plan: StackPlan[Any],
    folder: Path,
    tasks: Iterable[StackTask],
    transform: Transform[Any, Any],
    *,
    advance: Advance,
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
        Called from a thread of their own; see `cryobridge.executors.base.Worker`.

    Raises
    ------
    CryobridgeError
        If an image can't be read or used, or a file not be written. The stack that it is in is not there then.
    """
    writer = _StackWriter(plan, folder, transform, advance, done)
    chunks = _chunks(writer, tasks, transform.chunk_size)
    one_at_a_time = threading.Lock()

    def read(chunk: _Chunk) -> Any:
        with one_at_a_time:
            pixels = reader.read(chunk.rows)
        return transform.prepare(chunk.rows, pixels)

    ahead: deque[tuple[_Chunk, Future[Any]]] = deque()
    unwritten: deque[Future[None]] = deque()
    with (
        ImageReader(plan.source.images, plan.source.headers) as reader,
        writer,
        _threads("read", transform.n_threads) as reading,
        _threads("write", 1) as writing,
    ):
        try:
            while True:
                while len(ahead) < transform.n_ahead and (chunk := next(chunks, None)) is not None:
                    ahead.append((chunk, reading.submit(read, chunk)))
                if not ahead:
                    break
                chunk, prepared = ahead.popleft()
                while len(unwritten) >= _MOST_UNWRITTEN:
                    unwritten.popleft().result()
                unwritten.append(writing.submit(writer.write, chunk, transform(prepared.result())))
            for future in unwritten:
                future.result()
        except BaseException:
            reading.shutdown(wait=False, cancel_futures=True)
            writing.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _threads(name: str, count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads are running: an interrupt while one starts would leave it at work, not waited for."""
    with ThreadPoolExecutor(count, name) as pool:
        barrier = threading.Barrier(count)
        try:
            for started in [pool.submit(barrier.wait) for _ in range(count)]:
                started.result()
        except BaseException:
            barrier.abort()
            raise
        yield pool


@dataclass(frozen=True)
class _Chunk:
    """Some consecutive images of a stack."""

    task: StackTask
    rows: Rows
    is_last: bool


def _chunks(writer: _StackWriter, tasks: Iterable[StackTask], size: int) -> Iterator[_Chunk]:
    for task in tasks:
        rows = writer.begin(task)
        if rows is None:
            continue
        # Of a stack whose images are all written the end is still to come.
        for first in range(0, max(1, len(rows)), size):
            yield _Chunk(task, rows[first : first + size], first + size >= len(rows))


class _StackWriter(AbstractContextManager["_StackWriter"]):
    """Writes one stack after the other, chunk by chunk; of one that is not finished nothing is under its name."""

    def __init__(
        self,
        plan: StackPlan[Any],
        folder: Path,
        transform: Transform[Any, Any],
        advance: Advance,
        done: Callable[[StackResult], None],
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._transform = transform
        self._advance = advance
        self._done = done
        self._files: AbstractContextManager[OpenStack[Any]] | None = None
        self._begun: dict[int, ExitStack] = {}
        self._failed = False

    def begin(self, task: StackTask) -> Rows | None:
        """Return the rows of a stack that are to be written; None if it is whole, as when another process made it."""
        held = self._begun[task.number] = ExitStack()
        held.enter_context(self._plan.alone(self._folder, task))
        rows = self._plan.remaining(self._folder, task)
        if (whole := whole_stack(self._plan, self._folder, task)) is None:
            return rows
        self._end(task)
        self._done(whole)
        self._advance(len(rows))
        return None

    def _end(self, task: StackTask) -> None:
        self._begun.pop(task.number).close()

    def write(self, chunk: _Chunk, made: Made) -> None:
        # Chunks that are on their way when one fails would be taken for the beginning of a stack.
        if self._failed:
            return
        self._failed = True
        made.wait()
        self._write(chunk, made)
        self._failed = False

    def _write(self, chunk: _Chunk, made: Made) -> None:
        unusable = made.unusable
        if unusable.any() and self._plan.on_missing == "error":
            self._plan.refuse_unusable(chunk.rows[unusable])
        if self._files is None:
            self._files = self._plan.open_stack(self._folder, chunk.task, self._transform)
            self._stack = self._files.__enter__()
        if unusable.any():
            self._stack.leave_out(chunk.rows[unusable])
        self._stack.write(chunk.rows[~unusable], made, ~unusable)
        if chunk.is_last:
            self._finish(chunk.task)
        self._advance(len(chunk.rows))

    def __exit__(self, *error: object) -> None:
        if self._files is not None:
            files, self._files = self._files, None
            files.__exit__(*error)  # type: ignore[arg-type]
        for held in self._begun.values():
            held.close()

    def _finish(self, task: StackTask) -> None:
        assert self._files is not None
        files, self._files = self._files, None
        files.__exit__(None, None, None)
        self._end(task)
        self._done(StackResult(task.number, self._stack.left_out, self._stack.preview))
