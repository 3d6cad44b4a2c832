"""How many threads a task may use: those of the machine, unless it shares them with tasks beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_allowed: ContextVar[int | None] = ContextVar("allowed", default=None)


def thread_count() -> int:
    """Return how many threads the work of this task may use."""
    return _allowed.get() or os.cpu_count() or 1


@contextmanager
def n_threads(count: int) -> Iterator[None]:
    """Let the work of the block, torch's too, use so many threads."""
    token = _allowed.set(count)
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    try:
        if torch is not None:
            torch.set_num_threads(count)
        yield
    finally:
        _allowed.reset(token)
        if torch is not None:
            torch.set_num_threads(before)
