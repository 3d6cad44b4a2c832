"""Particle images and their metadata -> stacks: Fourier-polar ones, as CryoLike reads them, or smaller ones.

The names below are loaded when they are first used, so that importing the package loads nothing large.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryobridge.jobs.stacks.api import downsample, stacks, write_grid
    from cryobridge.jobs.stacks.options import DownsampleOptions, GridOptions, StackOptions
    from cryobridge.jobs.stacks.report import DownsampleReport, GridReport, StacksReport

__all__ = [
    "DownsampleOptions",
    "DownsampleReport",
    "GridOptions",
    "GridReport",
    "StackOptions",
    "StacksReport",
    "downsample",
    "stacks",
    "write_grid",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "api" if name.islower() else "options" if name.endswith("Options") else "report"
    return getattr(import_module(f"{__name__}.{module}"), name)
