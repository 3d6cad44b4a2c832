"""The names of devices, as far as they can be judged without torch, which is slow to import."""

from __future__ import annotations

import re
from typing import Any

from cryobridge.errors import UsageError, option

AUTO, CPU = "auto", "cpu"
_DEVICE = re.compile(r"auto|cpu(:\d+)?|cuda(:\d+)?|mps(:\d+)?", re.ASCII)


def split_device_names(names: Any) -> tuple[str, ...]:
    """Return the names in a text such as ``"cuda:0,cuda:1"``; whether there are such devices is for torch to say.

    Raises
    ------
    UsageError
        If one of them is no name of a device, or there twice.

    Examples
    --------
    >>> split_device_names("cuda:0, cuda:1")
    ('cuda:0', 'cuda:1')
    """
    if not isinstance(names, str):
        raise UsageError(f"{names!r:.60} is no name of a device", option="device", hint="Give 'auto', 'cpu' or 'cuda'.")
    listed = tuple(name.strip() for name in names.split(","))
    for name in listed:
        if not _DEVICE.fullmatch(name):
            raise unknown_device(name)
    if len(set(listed)) < len(listed):
        raise named_twice(names)
    return listed


def unknown_device(name: str) -> UsageError:
    """Return the error for what is no name of a device."""
    return UsageError(f"{option('device', name)} is no device", hint="Use auto, cpu, cuda, cuda:<number> or mps.")


def named_twice(names: str) -> UsageError:
    """Return the error for a device that would have to share its work with itself."""
    return UsageError(f"{option('device', names)} names a device twice", hint="Name each device once.")
