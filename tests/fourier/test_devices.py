from __future__ import annotations

import pytest
import torch

from cryobridge.errors import UsageError
from cryobridge.executors.devices import devices_in_turn
from cryobridge.fourier import devices
from cryobridge.fourier.devices import batch_size_for, pick_device, visible_gpus

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    def pretend(cuda_devices=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda_devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda_devices)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(("found", "expected"), [((2, False), "cuda"), ((0, True), "mps"), ((0, False), "cpu")])
def test_auto_takes_an_accelerator_if_there_is_one(machine, found, expected):
    machine(*found)
    assert pick_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_device_that_is_there_is_taken(machine, name):
    machine(2, True)
    assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_absent_is_refused_with_what_to_try(machine, name):
    machine()
    with pytest.raises(UsageError, match=f"device='{name}': torch finds no ") as caught:
        pick_device(name)
    assert "device='auto' or cpu" in caught.value.hint


def test_a_device_number_that_is_too_high_is_refused(machine):
    machine(2)
    with pytest.raises(UsageError, match="cuda:2': torch finds 2 CUDA GPUs, counted from 0"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "cpu cuda"])
def test_unknown_names_are_refused(name):
    with pytest.raises(UsageError, match="is no device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("4,5,6", ["cuda:0", "cuda:1", "cuda:2"]),
        # As dask-cuda turns them for each worker: the same place is the same GPU for all of them.
        ("5,6,4", ["cuda:2", "cuda:0", "cuda:1"]),
    ],
)
def test_workers_take_the_gpus_that_they_see_in_turn(visible, expected, machine, monkeypatch):
    machine(3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(visible_gpus()) == list(devices_in_turn("auto")) == list(devices_in_turn("cuda")) == expected
    assert devices_in_turn("cuda:2,cuda:0") == ("cuda:2", "cuda:0")
    assert devices_in_turn("cpu") == ("cpu",)
    machine(1)
    assert devices_in_turn("auto") == ("cuda:0",)
    machine()
    assert devices_in_turn("auto") == ("cpu",)


def test_batches_grow_with_free_memory_between_one_and_the_most(monkeypatch):
    monkeypatch.setattr(devices, "_free_host_bytes", lambda: 4_000_000)
    assert batch_size_for(CPU, 10_000) == 100
    assert batch_size_for(CPU, 20_000) == 50
    assert batch_size_for(CPU, 10_000, most=64) == 64
    assert batch_size_for(CPU, 10**12) == 1


def test_memory_of_this_machine_is_found():
    assert 2**20 < devices._free_host_bytes() < 2**50


def test_memory_of_a_cuda_device_counts_what_torch_holds_in_reserve(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, 8_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 300_000)
    assert batch_size_for(torch.device("cuda", 0), 10_000) == 60
