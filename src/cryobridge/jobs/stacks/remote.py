"""Making stacks in another process, or on another machine, by the plan that lies under the output folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryobridge.executors.devices import devices_in_turn
from cryobridge.executors.threads import n_threads
from cryobridge.jobs.stacks.execute import StackWorker
from cryobridge.jobs.stacks.plan import StackPlan, StackResult
from cryobridge.jobs.stacks.plan_file import read_plan

# What a thread needs for one stack after the other: the tables of the transform, and buffers.
_of_thread = threading.local()


@dataclass(frozen=True)
class RemoteStacks:
    """Makes a stack of a number; so small that it is sent with each.

    Parameters
    ----------
    place, fingerprint
        Where the plan lies, and how it is known.
    folder
        The output folder.
    device
        As it is typed; where there are several, those that work on a host take them in turn.
    """

    place: str
    fingerprint: str
    folder: str
    device: str

    def __call__(self, number: int, lane: Callable[[], int] = int) -> tuple[int, StackResult]:
        """Make a stack, unless it is there and whole; see `cryobridge.executors.base.Elsewhere`.

        Returns
        -------
        int
            Its images that were not there before.
        StackResult
            What `cryobridge.jobs.stacks.execute.StackWorker` says of it.

        Raises
        ------
        CryobridgeError
            If it can't be made.
        """
        plan = _plan(Path(self.place), self.fingerprint)
        steps: list[int] = []
        results: list[StackResult] = []
        with n_threads(1):
            worker = self._worker(plan, lane)
        # Once more: the transform has loaded torch.
        with n_threads(1):
            worker.run([number], advance=steps.append, done=results.append)
        return sum(steps), results[0]

    def _worker(self, plan: StackPlan[Any], lane: Callable[[], int]) -> StackWorker:
        known: tuple[RemoteStacks, StackWorker] | None = getattr(_of_thread, "worker", None)
        if known is not None and known[0] == self:
            return known[1]
        devices = devices_in_turn(self.device)
        device = devices[lane() % len(devices)] if len(devices) > 1 else devices[0]
        worker = StackWorker(plan, Path(self.folder), plan.transform(device))
        _of_thread.worker = (self, worker)
        return worker


@lru_cache(maxsize=2)
def _plan(place: Path, fingerprint: str) -> StackPlan[Any]:
    return read_plan(place, fingerprint)
