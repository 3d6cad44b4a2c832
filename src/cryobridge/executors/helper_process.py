"""Functions called in a process of their own, beside the work: matplotlib would keep it waiting for Python's lock.

A process of another program rather than a fork: that is safe beside threads and GPUs, and in any script or notebook.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any, TypeVar

T = TypeVar("T")
# Modules come from where ours do, and never from the current folder, where data lie.
_START = "import sys; sys.path[:] = {path!r}; from cryobridge.executors.helper_process import serve; serve()"


class HelperError(Exception):
    """The process has ended; the text is the last line of what it said."""


class HelperProcess(AbstractContextManager["HelperProcess"]):
    """A process that calls functions, one after another, while this one works; it is started by the first call.

    Leaving the block well waits for the calls that were made; leaving it by an error ends the process.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._resources = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function of a module there.

        Returns
        -------
        concurrent.futures.Future
            With the value; it raises `HelperError` where there is none.
        """
        return self._thread.submit(self._exchange, function, arguments)

    def _exchange(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((function, arguments), process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            value: T = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            process.wait()
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            raise HelperError(lines[-1] if lines else "the process was ended") from error
        return value

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._complaints = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed on leaving
            command = [sys.executable, "-c", _START.format(path=sys.path)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints
            )
            self._resources.callback(_end, self._process)
        return self._process

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._resources:
            if kind is not None and self._process is not None:
                self._process.kill()
            self._thread.shutdown(cancel_futures=kind is not None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, at which the process ends, and wait for it; where it has ended what it was sent stays unread."""
    with suppress(BrokenPipeError), process:
        pass


def serve() -> None:
    """Call what comes in on stdin and answer on stdout, until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a function prints is no answer
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(function(*arguments), answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
