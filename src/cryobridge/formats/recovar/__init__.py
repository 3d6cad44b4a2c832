"""RECOVAR: pipeline results, analyses and densities, in every layout that it wrote.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryobridge.formats.recovar.run import LatentGrid, RecovarRun, open_recovar

__all__ = ["LatentGrid", "RecovarRun", "open_recovar"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.run"), name)
