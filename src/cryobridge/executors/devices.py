"""Running tasks in this process, on one or more devices that share them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Generic

from cryobridge.errors import UsageError
from cryobridge.executors.base import Advance, Result, Run, Work, Worker

CPU = "cpu"


def device_names(names: str) -> tuple[str, ...]:
    """Return the devices that a text names, such as ``"auto"``, ``"cpu"`` or ``"cuda:0,cuda:1"``.

    Raises
    ------
    UsageError
        If one of them is not there, or is named twice.
    """
    if not isinstance(names, str):
        raise UsageError(f"{names!r:.60} is no name of a device", option="device", hint="Give 'auto', 'cpu' or 'cuda'.")
    if names == CPU:  # which needs no torch
        return (CPU,)
    from cryobridge.fourier.devices import pick_devices

    return tuple(map(str, pick_devices(names)))


class DeviceExecutor:
    """Runs tasks in this process.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0,cuda:1"`` …; or the names of devices, which share the tasks.

    Raises
    ------
    UsageError
        If a device is not there, or is named twice.
    """

    def __init__(self, device: str | list[str] | tuple[str, ...] = "auto") -> None:
        self.devices = tuple(device) if isinstance(device, list | tuple) else device_names(device)

    def prepare(self, work: Work[Result]) -> Run[Result]:
        """Make a worker for each device; see `cryobridge.executors.base.Executor`."""
        return _DeviceRun(work, [work.worker(device) for device in self.devices])


class _DeviceRun(Generic[Result]):
    """Workers that take the next task when they are done with one."""

    def __init__(self, work: Work[Result], workers: Sequence[Worker[Result]]) -> None:
        self._work = work
        self._workers = workers

    def __call__(self, numbers: Sequence[int], *, advance: Advance, done: Callable[[Result], None]) -> None:
        queue = _Queue(numbers)
        telling = threading.Lock()

        def done_in_turn(result: Result) -> None:
            with telling:
                done(result)

        lanes = [partial(worker.run, queue, advance=advance, done=done_in_turn) for worker in self._workers]
        with self._work.process():
            if len(lanes) == 1:
                lanes[0]()
            else:
                _side_by_side(lanes, queue)


def _side_by_side(lanes: Sequence[Callable[[], None]], queue: _Queue) -> None:
    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(lane) for lane in lanes]
        try:
            for lane in running:
                lane.add_done_callback(queue.close_on_error)
            wait(running)
        finally:
            queue.close()
    for lane in running:
        lane.result()


class _Queue:
    """Hands out tasks to several threads until it is closed."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = iter(numbers)
        self._lock = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            if self._closed:
                raise StopIteration
            return next(self._numbers)

    def close(self) -> None:
        self._closed = True

    def close_on_error(self, lane: Future[None]) -> None:
        if lane.exception() is not None:
            self.close()
