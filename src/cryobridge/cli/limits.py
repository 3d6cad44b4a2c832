"""Limits of the system that libraries end a process at without a word that helps: asked for before they are loaded."""

from __future__ import annotations

import os
import resource
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from cryobridge.errors import CryobridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MB = 1 << 20
# Address space that loading a library takes, as measured, with room for the work on small files.
_NEEDS_MB = {"numpy": 150, "pyarrow": 250, "torch": 2000}
# Of a pool of OpenBLAS, OpenMP or torch on a large machine.
_MOST_THREADS = 64
_N_OWN_THREADS = 4


def check_limits() -> None:
    """Have the limits looked at when a large library is about to be loaded, which may be much later or never."""
    if not any(isinstance(finder, _Limits) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Limits())


class _Limits(MetaPathFinder):
    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Find nothing; raise an error where a library would fail."""
        if name in _NEEDS_MB:
            _require_address_space(name, _NEEDS_MB[name])
            if name != "pyarrow":
                _require_threads()
        return None


def _require_address_space(name: str, needed_MB: int) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return
    free_MB = (limit - pages * resource.getpagesize()) // _MB
    if free_MB < needed_MB:
        raise CryobridgeError(
            f"the limit on address space leaves {max(0, free_MB):,} MB, and {name} takes {needed_MB:,} MB to be loaded",
            hint="Raise it with `ulimit -v`, or ask the batch system for more memory.",
        )


def _require_threads() -> None:
    """Start as many threads as libraries do, and end them."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    n_threads = int(asked) if asked.isdecimal() else os.cpu_count() or 1
    n_threads = min(n_threads, _MOST_THREADS) + _N_OWN_THREADS
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(n_threads)]
    n_started = 0
    try:
        for thread in threads:
            thread.start()
            n_started += 1
    except (RuntimeError, MemoryError) as error:
        raise CryobridgeError(
            f"the system lets no more than {n_started} threads begin, and {n_threads} are needed",
            hint="Raise the limit with `ulimit -u`, end other programs, or set OMP_NUM_THREADS=1.",
        ) from error
    finally:
        end.set()
        for thread in threads[:n_started]:
            thread.join()
