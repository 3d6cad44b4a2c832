"""Particles as a dataset of torch: items, batches, and the order in which they are read.

Its names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryobridge.dataset.batches import Batch, collate
    from cryobridge.dataset.particles import ParticleDataset
    from cryobridge.dataset.sampler import MicrographSampler

__all__ = ["Batch", "MicrographSampler", "ParticleDataset", "collate"]
_MODULES = {"Batch": "batches", "collate": "batches", "MicrographSampler": "sampler", "ParticleDataset": "particles"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
