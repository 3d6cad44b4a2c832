"""What ends a run from outside: Ctrl-C, SIGTERM of a scheduler, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The exit code of a run that Ctrl-C ended.
CTRL_C = 128 + signal.SIGINT
# A terminal that closes, and a scheduler that ends a job, send several signals; the first one is being dealt with.
_PATIENCE_S = 2.0
_received: list[tuple[int, float]] = []


class Interrupted(KeyboardInterrupt):
    """A signal that ends the run."""


def exit_at_once() -> None:
    """Let signals end the process without a word of Python's, while nothing is done that would have to be undone."""
    _handle(_exit)


def raise_interrupts() -> None:
    """Let signals raise `Interrupted` in the main thread, so that temporary files are removed, from now on."""
    _received.clear()
    _handle(_raise)


def ignore_signals() -> None:
    """Let the process end without disturbance."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def exit_code() -> int:
    """Return the exit code of a run that was interrupted: 128 and the number of the signal, Ctrl-C's if unknown."""
    return 128 + _received[0][0] if _received else CTRL_C


def words() -> str:
    """Say what ended the run."""
    number = _received[0][0] if _received else signal.SIGINT
    return "interrupted" if number == signal.SIGINT else f"interrupted ({signal.Signals(number).name})"


def _handle(action: signal._HANDLER) -> None:
    for number in SIGNALS:
        # What whoever started us has ignored, such as nohup, stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, action)


def _exit(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _raise(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    is_first = not _received or now - _received[-1][1] > _PATIENCE_S
    if is_first:
        _received.append((number, now))
        raise Interrupted
