"""Running tasks on a cluster of processes by `dask.distributed`: on this machine, or wherever its workers are."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import logging
import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryobridge.errors import CryobridgeError, UsageError, option
from cryobridge.executors.base import AdvanceBy, Elsewhere, Executor, Result, Run, Work
from cryobridge.formats.input_file import read_input
from cryobridge.report import Message, counted, warning

if TYPE_CHECKING:
    from distributed import Client, Future

_LOCAL = re.compile(r"local:(?P<count>[1-9]\d{0,3})")
_ADDRESS = re.compile(r"(?P<kind>tcp|tls)://[^\s/]+:\d{1,5}")
_N_TRIES = 3
_CONNECT_S = 30
_N_SHOWN = 5
# Where dask.distributed looks for keys, by the kind of who uses them.
_TLS = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__CLIENT__KEY"


def require_dask() -> None:
    """Check that Dask is there, and what makes its keys; without loading them.

    Raises
    ------
    UsageError
        If one of them is not installed.
    """
    for module, name in (("distributed", "dask.distributed"), ("cryptography", "cryptography")):
        if importlib.util.find_spec(module) is None:
            hint = "Run pip install 'cryobridge[cluster]'."
            raise UsageError(f"{name} is not installed", option="cluster", hint=hint)


class ClusterExecutor(Executor):
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    cluster
        ``"local:N"`` starts N processes on this machine, which listen to nobody else; ``"tcp://host:8786"``,
        ``"tls://host:8786"`` or the name of a scheduler file is a cluster that runs.
    device
        What each worker uses, as `cryobridge.executors.devices.device_names` takes it.

    Raises
    ------
    UsageError
        If it names no cluster, or dask.distributed is not installed.

    Examples
    --------
    >>> import cryobridge as cb
    >>> from cryobridge.executors.dask_cluster import ClusterExecutor
    >>> report = cb.stacks("particles.star", "fourier", executor=ClusterExecutor("local:2"))
    """

    def __init__(self, cluster: str, device: str = "auto") -> None:
        self.cluster = cluster
        self.device = device
        self._check()

    def _check(self) -> None:
        local, address = _LOCAL.fullmatch(self.cluster), _ADDRESS.fullmatch(self.cluster)
        if not (local or address or self.cluster.endswith(".json")):
            raise UsageError(
                f"{self.cluster!r:.80} is no cluster",
                option="cluster",
                hint="Give local:4, tls://host:8786, tcp://host:8786 or the name of a scheduler file (.json).",
            )
        if not (local or address or Path(self.cluster).is_file()):
            raise UsageError(
                "there is no such scheduler file",
                path=self.cluster,
                option="cluster",
                hint=f"Start `dask scheduler --scheduler-file {self.cluster}` first.",
            )
        require_dask()

    @property
    def messages(self) -> tuple[Message, ...]:
        """A warning where anybody in the network may give the cluster work."""
        address = self._address()
        if not address.startswith("tcp://"):
            return ()
        text = (
            f"{address} is not encrypted: whoever reaches it can run programs as the user of its workers; "
            "the address of a scheduler with keys begins with tls://"
        )
        return (warning("cluster-open", text, option="cluster"),)

    def _address(self) -> str:
        """Return where the scheduler listens, by its file; one that can't be read is refused later."""
        if not self.cluster.endswith(".json"):
            return self.cluster
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return str(json.loads(read_input(Path(self.cluster))).get("address", ""))
        return ""

    def prepare(self, work: Work[Result]) -> Run[Result]:
        """Reach the cluster, or get ready to start it; see `cryobridge.executors.base.Executor`."""
        if _LOCAL.fullmatch(self.cluster):
            return _ClusterRun(work, self, self._local)
        client = self._connected()
        if not client.scheduler_info(n_workers=-1)["workers"]:
            work.reporter.start(f"waiting for a worker of {self.cluster}", None)
            client.wait_for_workers(1)
        return _ClusterRun(work, self, lambda: _quietly(client))

    @contextmanager
    def _local(self) -> Iterator[Client]:
        import dask
        from distributed import Client, LocalCluster

        count = int(self.cluster.removeprefix("local:"))
        settings = {
            # A task that ends its process is tried on another one, and then given up.
            "distributed.scheduler.allowed-failures": _N_TRIES - 1,
            # Tasks have few and small results; what a process needs is in arrays that are read from the disk.
            "distributed.worker.memory.terminate": False,
            "distributed.worker.memory.pause": False,
            # BLAS and torch of each process, before they are loaded.
            "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        }
        with (
            dask.config.set(settings),
            _loop_without_interrupts() as loop,
            LocalCluster(
                loop=loop,
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                # Other users of the machine reach the loopback; keys, which only these processes have, keep them out.
                protocol="tls",
                security=True,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=50,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client

    def _connected(self) -> Client:
        from distributed import Client

        where = {"scheduler_file": self.cluster} if self.cluster.endswith(".json") else {"address": self.cluster}
        try:
            return Client(**where, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError, RuntimeError, ssl.SSLError) as error:
            # Dask names the type of a Python object that it lacks.
            why = "no keys are named" if isinstance(error, TypeError) else error
            raise CryobridgeError(
                f"the scheduler at {self.cluster} can't be reached ({why})",
                option="cluster",
                hint=f"Check that it runs, and that the keys are its own: {_TLS} name them.",
            ) from error


@contextmanager
def _quietly(client: Client) -> Iterator[Client]:
    """Close a client in the end, and say nothing of its connection meanwhile: the error does."""
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with client:
            yield client
    finally:
        log.setLevel(before)


@contextmanager
def _loop_without_interrupts() -> Iterator[Any]:
    """Run an event loop in a thread whose processes don't get the Ctrl-C of the terminal: it is for their coordinator.

    What a thread blocks, the threads and processes that it starts do, too.
    """
    from multiprocessing import resource_tracker

    from distributed.utils import LoopRunner

    # Its start unblocks interrupts.
    resource_tracker.ensure_running()
    runner = LoopRunner()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


@dataclass(frozen=True)
class _Failure:
    number: int
    host: str
    text: str


class _ClusterRun:
    """Hands tasks to workers, gives those that fail to others, and lists in the end which were given up."""

    def __init__(
        self, work: Work[Any], executor: ClusterExecutor, connect: Callable[[], AbstractContextManager[Client]]
    ) -> None:
        self._work = work
        self._where = executor.cluster
        self._device = executor.device
        self._connect = connect

    def __call__(self, numbers: Sequence[int], *, advance: AdvanceBy, done: Callable[[Any], None]) -> None:
        """Run tasks to their end; see `cryobridge.executors.base.Run`."""
        failures: list[_Failure] = []
        with ExitStack() as stack:
            call = stack.enter_context(self._work.elsewhere(self._device))
            client = stack.enter_context(self._connect())
            tries = _Tries(client, call, self._where)
            stack.push(tries)
            for outcome in tries.results(numbers, failures):
                steps, result = outcome.value
                advance(steps, by=outcome.name, seconds=outcome.seconds)
                done(result)
        if failures:
            failures.sort(key=lambda failure: failure.number)
            shown = "; ".join(f"{item.number} on {item.host}: {item.text}" for item in failures[:_N_SHOWN])
            more = f"; and {len(failures) - _N_SHOWN:,} more" if len(failures) > _N_SHOWN else ""
            raise CryobridgeError(
                f"{len(failures):,} of {counted(len(numbers), 'task')} failed on {_N_TRIES} workers: {shown}{more}",
                count=len(failures),
                hint=f"All others are made. Mend what is wrong, then {option('resume', True)} makes what is missing.",
            )


class _Tries(AbstractContextManager["_Tries"]):
    """The tasks that a cluster has in hand; leaving the block takes back what is not done."""

    def __init__(self, client: Client, call: Elsewhere[Any], where: str) -> None:
        self._client = client
        self._where = where
        self._call = call
        self._open: dict[Future, tuple[int, tuple[str, ...]]] = {}

    def results(self, numbers: Sequence[int], failures: list[_Failure]) -> Iterator[Outcome]:
        """Yield what becomes of each task, as they end well; those that fail for the last time are added to a list."""
        from distributed import as_completed

        # In one message: sent one by one, nothing would be heard of the first until the last is on its way.
        first = self._client.map(partial(attempt, self._call), numbers, pure=False)
        self._open = {future: (number, ()) for future, number in zip(first, numbers, strict=True)}
        waiting = as_completed(first, loop=self._client.loop)
        for future in waiting:
            number, tried = self._open.pop(future)
            if future.status in {"lost", "pending"}:
                # Its worker ended with the result, which the scheduler has made again by another one.
                self._open[future] = number, tried
                waiting.add(future)
                continue
            if future.status == "finished":
                outcome = future.result()
                future.release()
                if outcome.error is None:
                    yield outcome
                    continue
                failure, where = _Failure(number, outcome.host, outcome.error), outcome.worker
            elif future.status == "error":
                failure, where = self._ended(future, number), ""
            else:
                raise CryobridgeError(
                    f"{self._where} has dropped the tasks: its scheduler has ended, or was started anew",
                    option="cluster",
                    hint=f"Start it, then {option('resume', True)} makes what is missing.",
                )
            if len(tried) + 1 >= _N_TRIES or not where:
                failures.append(failure)
            else:
                waiting.add(self._once_more(number, (*tried, where)))

    def _once_more(self, number: int, tried: tuple[str, ...]) -> Future:
        """Give a task to workers that have not tried it, if there are any."""
        others = [name for name in self._client.scheduler_info(n_workers=-1)["workers"] if name not in tried]
        where: dict[str, Any] = {"workers": others, "allow_other_workers": True} if others else {}
        future = self._client.submit(attempt, self._call, number, pure=False, **where)
        self._open[future] = (number, tried)
        return future

    def _ended(self, future: Future, number: int) -> _Failure:
        """Return what is known of a task whose workers ended, which the scheduler has tried on others."""
        error = future.exception()
        last = getattr(error, "last_worker", None)
        if last is None:
            return _Failure(number, "unknown host", f"{error}")
        return _Failure(number, last.host, "its process was ended each time")

    def __exit__(self, *_: object) -> None:
        if self._open:
            with contextlib.suppress(Exception):
                self._client.cancel(list(self._open), force=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a task on a worker: its value, or the text of its error, and how long it took."""

    host: str
    name: str
    worker: str
    value: Any = None
    error: str | None = None
    seconds: float = 0.0


def attempt(call: Elsewhere[Any], number: int) -> Outcome:
    """Carry out a task on a worker; an error comes back as text, whatever it is made of."""
    from distributed import get_worker

    worker, host = get_worker(), os.uname().nodename
    # A worker without a name of its own has its address for one.
    name = str(worker.name).rpartition(":")[2]
    outcome, began = Outcome(host, f"{host}/{name}", worker.address), time.monotonic()
    try:
        value = call(number, _lane)
    except Exception as error:
        text = str(error) if isinstance(error, CryobridgeError) else f"{type(error).__name__}: {error}"
        return replace(outcome, error=text)
    return replace(outcome, value=value, seconds=time.monotonic() - began)


_of_thread = threading.local()
_lanes = itertools.count()


def _lane() -> int:
    """Return which thread of all workers on this host this one is, as the scheduler knows them when it is first asked.

    Those of a worker come one after the other, behind those of workers before it in the order of their addresses.
    """
    if not hasattr(_of_thread, "lane"):
        from distributed import get_worker
        from distributed.comm import get_address_host
        from distributed.utils import sync

        me = get_worker()
        workers = sync(me.loop, me.scheduler.identity)["workers"]
        host = get_address_host(me.address)
        before = [one for one in workers if get_address_host(one) == host and one < me.address]
        _of_thread.lane = sum(workers[one]["nthreads"] for one in before) + next(_lanes)
    return int(_of_thread.lane)
