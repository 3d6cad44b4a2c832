"""Memory that is used again, and batches that are kept."""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cryobridge as cb
from cryobridge.dataset.memory import Recycled
from helpers import noise_images, particle_columns, save_cs, save_mrc
from tensor_views import KINDS_OF_VIEWS

LARGE = (64, 96, 96)  # 2.25 MiB as float32


def test_memory_is_used_again_when_no_tensor_has_it():
    memory = Recycled()
    first = memory.empty(LARGE, torch.float32)
    place = first.data_ptr()
    assert first.shape == LARGE and first.is_contiguous() and place % 4096 == 0
    second = memory.empty(LARGE, torch.float32)
    assert second.data_ptr() != place
    del first
    gc.collect()
    assert memory.empty(LARGE, torch.float32).data_ptr() == place


@pytest.mark.parametrize("kept", KINDS_OF_VIEWS)
def test_a_view_of_any_kind_keeps_it(kept):
    memory = Recycled()
    tensor = memory.empty(LARGE, torch.float32)
    place, view = tensor.data_ptr(), kept(tensor)
    del tensor
    gc.collect()
    others = [memory.empty(LARGE, torch.float32) for _ in range(6)]
    assert place not in [other.data_ptr() for other in others]
    del view, others


def test_values_that_a_gradient_needs_are_kept():
    memory = Recycled()
    weight = torch.ones((), requires_grad=True)
    images = memory.empty(LARGE, torch.float32).fill_(2)
    loss = (weight * images).square().sum()
    del images
    for _ in range(3):
        memory.empty(LARGE, torch.float32).fill_(7)
    loss.backward()
    assert weight.grad == 8 * 64 * 96 * 96


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_few_pieces_are_held_and_small_ones_are_torchs_own():
    memory, shape = Recycled(), (4, 1024, 1024)  # 16 MiB
    before = resident_bytes()
    kept = [memory.empty(shape, torch.float32).fill_(1) for _ in range(12)]
    assert len({tensor.data_ptr() for tensor in kept}) == 12 and resident_bytes() > before + 180 * 2**20
    del kept
    gc.collect()
    assert resident_bytes() < before + 80 * 2**20
    assert memory.empty((3,), torch.complex64).dtype == torch.complex64


def test_a_fork_writes_to_memory_of_its_own():
    memory = Recycled()
    tensor = memory.empty(LARGE, torch.float32).fill_(1)
    process = multiprocessing.get_context("fork").Process(target=lambda: tensor.fill_(2))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and bool((tensor == 1).all())


def test_batches_that_are_kept_are_not_overwritten(tmp_path):
    n, box = 160, 96
    images = noise_images(n, box).astype("f4")
    save_mrc(tmp_path / "a.mrc", images, 1.5)
    path = save_cs(tmp_path / "a.cs", particle_columns(["a.mrc"] * n, range(n), box_px=box))
    dataset = cb.ParticleDataset(path, polar=cb.PolarGrid.for_box(box, n_inplanes=64))
    loader = torch.utils.data.DataLoader(dataset, batch_size=40, collate_fn=cb.collate)
    batches = list(loader)
    for _ in range(2):
        for _batch in loader:
            pass
    np.testing.assert_array_equal(torch.cat([batch["image"] for batch in batches]), images)
    again = torch.cat([dataset.batch(range(first, first + 40))["polar"] for first in range(0, n, 40)])
    assert torch.equal(torch.cat([batch["polar"] for batch in batches]), again)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how the allocator of Linux keeps memory")
def test_what_is_computed_of_images_takes_no_fresh_pages(tmp_path):
    """In a process of its own, whose allocator has not seen large arrays yet."""
    n, box = 96, 128
    save_mrc(tmp_path / "a.mrc", noise_images(n, box), 1.5)
    path = save_cs(tmp_path / "a.cs", particle_columns(["a.mrc"] * n, range(n), box_px=box))
    script = f"""
import resource, cryobridge as cb
dataset = cb.ParticleDataset({str(path)!r}, normalise="auto")
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    dataset.batch(range({n}))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout.split()[-1]) < n  # some 47 for each image without it
