"""Running tasks in this process, on one or more devices that share them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property, partial
from typing import Generic

from cryobridge.executors.base import AdvanceBy, Executor, Result, Run, Work, Worker
from cryobridge.fourier.device_names import AUTO, CPU, split_device_names
from cryobridge.fourier.loading import load_torch


def device_names(names: str) -> tuple[str, ...]:
    """Return the devices that a text names, such as ``"auto"``, ``"cpu"`` or ``"cuda:0,cuda:1"``.

    Raises
    ------
    UsageError
        If one of them is not there, or is named twice.
    """
    if split_device_names(names) == (CPU,):  # which needs no torch
        return (CPU,)
    from cryobridge.fourier.devices import pick_devices

    return tuple(map(str, pick_devices(names)))


def devices_in_turn(names: str) -> tuple[str, ...]:
    """Return the devices that workers of one host take in turn; ``"auto"`` and ``"cuda"`` are all GPUs that they see.

    Raises
    ------
    UsageError
        If one of them is not there, or is named twice.
    """
    devices = device_names(names)
    if devices != ("cuda",):
        return devices
    from cryobridge.fourier.devices import visible_gpus

    return visible_gpus()


class DeviceExecutor(Executor):
    """Runs tasks in this process. Names are checked at once, the devices looked for when they are needed.

    Parameters
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:0,cuda:1"`` …; or the names of devices, which share the tasks.

    Raises
    ------
    UsageError
        If one of them is no name of a device, or is named twice.
    """

    def __init__(self, device: str | list[str] | tuple[str, ...] = "auto") -> None:
        self._given = device if isinstance(device, str) else tuple(device)
        self._names = split_device_names(device) if isinstance(self._given, str) else self._given

    @property
    def _is_on_cpu(self) -> bool:
        return set(self._names) == {CPU}

    def check(self) -> None:
        """Refuse devices that are not there, which takes torch; for ``"auto"`` there always is one.

        Raises
        ------
        UsageError
            If one of them is not there.
        """
        if not self._is_on_cpu and self._names != (AUTO,):
            _ = self.devices

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices.

        Raises
        ------
        UsageError
            If one of them is not there.
        """
        return device_names(self._given) if isinstance(self._given, str) else self._given

    def prepare(self, work: Work[Result]) -> Run[Result]:
        """Make a worker for each device; see `cryobridge.executors.base.Executor`."""
        if work.uses_torch or not self._is_on_cpu:
            load_torch(work.reporter)
        return _DeviceRun(work, [work.worker(device) for device in self.devices])


class _DeviceRun(Generic[Result]):
    """Workers that take the next task when they are done with one."""

    def __init__(self, work: Work[Result], workers: Sequence[Worker[Result]]) -> None:
        self._work = work
        self._workers = workers

    def __call__(self, numbers: Sequence[int], *, advance: AdvanceBy, done: Callable[[Result], None]) -> None:
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
