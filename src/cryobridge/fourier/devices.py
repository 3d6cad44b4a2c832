"""Choosing a device and how many images to give it at a time."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from cryobridge.errors import UsageError, option
from cryobridge.fourier.device_names import named_twice, split_device_names, unknown_device

# Of what is free. The host's memory is shared with other processes and with the page cache that the
# input is read through.
_SHARE_OF_ACCELERATOR = 0.5
_SHARE_OF_HOST = 0.25


def pick_device(name: str = "auto") -> torch.device:
    """Resolve the name of a device.

    Parameters
    ----------
    name
        "auto" (CUDA if there is one, else MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Returns
    -------
    torch.device
        A device that this machine has.

    Raises
    ------
    UsageError
        If the name is not one of these or the device is absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown_device(name) from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type)
    if count is None:
        raise unknown_device(name)
    if (device.index or 0) >= count:
        raise _absent(name, device.type, count)
    return device


def pick_devices(names: str = "auto") -> tuple[torch.device, ...]:
    """Resolve the names of one or more devices, such as "cuda:0,cuda:1"; see `pick_device`.

    Raises
    ------
    UsageError
        If one of them is not there, or is named twice.
    """
    devices = tuple(map(pick_device, split_device_names(names)))
    if len(set(devices)) < len(devices):
        raise named_twice(names)
    return devices


def visible_gpus() -> tuple[str, ...]:
    """Return the names of the CUDA GPUs that this process sees, in an order that those beside it have too.

    ``CUDA_VISIBLE_DEVICES`` says which, and numbers them anew; some programs give each process another order of the
    same ones.
    """
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    keys = named if len(named) == count else [""] * count
    return tuple(f"cuda:{number}" for number in sorted(range(count), key=lambda number: keys[number]))


def batch_size_for(device: torch.device, bytes_per_image: int, most: int = 1024) -> int:
    """How many images to hold on a device at a time, from the memory that is free there now.

    Parameters
    ----------
    device
        The device.
    bytes_per_image
        All that one more image needs, its results included.
    most
        Largest answer; beyond a few hundred images nothing is gained.

    Returns
    -------
    int
        From 1 to ``most``.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds in reserve is free to tensors as well.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        budget = _SHARE_OF_ACCELERATOR * free
    else:
        budget = _SHARE_OF_HOST * _free_host_bytes()  # MPS shares the host's memory
    return max(1, min(most, int(budget / bytes_per_image)))


def _free_host_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # macOS does not say what is free; half of all is a fair guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available_kB = next(line for line in lines if line.startswith("MemAvailable:")).split()[1]
    return int(available_kB) * 1024


def _absent(name: str, kind: str, count: int) -> UsageError:
    what = {"cuda": "CUDA GPU", "mps": "Apple GPU (MPS)", "cpu": "CPU device"}[kind]
    found = f"no {what}" if count == 0 else f"{count} {what}{'s' if count > 1 else ''}, counted from 0"
    built = f"; this torch, {torch.__version__}, is built without CUDA" if _lacks_cuda(kind) else ""
    return UsageError(
        f"{option('device', name)}: torch finds {found} on this machine{built}",
        hint=f"Use {option('device', 'auto')} or cpu; if the machine has the device, check its driver and the build of "
        "torch.",
    )


def _lacks_cuda(kind: str) -> bool:
    return kind == "cuda" and torch.version.cuda is None and torch.version.hip is None
