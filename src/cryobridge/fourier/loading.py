"""Loading torch, which takes seconds, where whoever waits sees it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from cryobridge.progress import LOADING_TORCH

if TYPE_CHECKING:
    from cryobridge.progress import Reporter


def load_torch(reporter: Reporter) -> None:
    """Load torch unless that is done, and say so: to be called when everything that needs no torch is checked."""
    if "torch" not in sys.modules:
        reporter.start(LOADING_TORCH, None)
        import_module("torch")
