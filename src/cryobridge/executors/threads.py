"""How many threads a task may use: those of the machine, unless it shares them with tasks beside it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_allowed: ContextVar[int | None] = ContextVar("allowed", default=None)


def thread_count() -> int:
    """Return how many threads the work of this task may use."""
    return _allowed.get() or os.cpu_count() or 1


# Torch keeps some of its settings by thread, some for all: blocks of several threads share what was set before.
_lock = threading.Lock()
_n_blocks = 0
_torch_before = 0


@contextmanager
def n_threads(count: int) -> Iterator[None]:
    """Let the work of the block, torch's too, use so many threads."""
    global _n_blocks, _torch_before  # noqa: PLW0603 - torch has one such number for the process
    token = _allowed.set(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        with _lock:
            _torch_before = _torch_before if _n_blocks else torch.get_num_threads()
            _n_blocks += 1
        torch.set_num_threads(count)
    try:
        yield
    finally:
        _allowed.reset(token)
        if torch is not None:
            with _lock:
                _n_blocks -= 1
                if _n_blocks == 0:
                    torch.set_num_threads(_torch_before)
