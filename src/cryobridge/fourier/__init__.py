"""The Fourier engine: tensors in, tensors out, on any torch device, no file in sight.

The names below are loaded when they are first used, so that importing the package does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryobridge.fourier.crop import crop_images, crop_rfft, pad_images, pad_rfft
    from cryobridge.fourier.devices import batch_size_for, pick_device, pick_devices
    from cryobridge.fourier.grid import PolarGrid
    from cryobridge.fourier.images import bin_images, normalise_fourier, normalise_images, power_spectrum
    from cryobridge.fourier.polar import PolarTransform

__all__ = [
    "PolarGrid",
    "PolarTransform",
    "batch_size_for",
    "bin_images",
    "crop_images",
    "crop_rfft",
    "normalise_fourier",
    "normalise_images",
    "pad_images",
    "pad_rfft",
    "pick_device",
    "pick_devices",
    "power_spectrum",
]

_MODULES = {
    "PolarGrid": "grid",
    "PolarTransform": "polar",
    "batch_size_for": "devices",
    "bin_images": "images",
    "crop_images": "crop",
    "crop_rfft": "crop",
    "normalise_fourier": "images",
    "normalise_images": "images",
    "pad_images": "crop",
    "pad_rfft": "crop",
    "pick_device": "devices",
    "pick_devices": "devices",
    "power_spectrum": "images",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
