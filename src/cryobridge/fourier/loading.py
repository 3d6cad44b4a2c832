"""Loading torch, which takes seconds, where whoever waits sees it."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from cryobridge.progress import LOADING_TORCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryobridge.progress import Reporter


def load_torch(reporter: Reporter) -> None:
    """Load torch unless that is done, and say so: to be called when everything that needs no torch is checked."""
    if "torch" not in sys.modules:
        reporter.start(LOADING_TORCH, None)
        with _no_search_for_garbage():
            import_module("torch")


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Keep Python from looking for cycles among what is loaded, all of which stays: it takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
