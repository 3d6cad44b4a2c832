"""What cryoDRGN's own loaders read, saved as plain arrays.

    python reads_cryodrgn.py JOBS.json

Runs in the environment of cryoDRGN. JOBS.json is a list of objects with ``out`` (.npz) and ``particles``, and may have
``datadir``, ``poses`` and ``ctf``; with a ``volume``, which cryoDRGN has no projector for, the images of the CTF too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from cryodrgn import ctf
from cryodrgn.pose import PoseTracker
from cryodrgn.source import ImageSource


def read(job: dict[str, str]) -> dict[str, np.ndarray]:
    """Return the images, and of pickles the poses, shifts in pixels and the eight CTF values that training uses."""
    source = ImageSource.from_file(job["particles"], datadir=job.get("datadir"))
    found = {"images": source.images().numpy()}
    if "poses" in job:
        tracker = PoseTracker.load(job["poses"], source.n, source.D)
        found["rotations"], found["shifts_px"] = tracker.rots.numpy(), tracker.trans.numpy()
        found["ctf"] = ctf.load_ctf_for_training(source.D, job["ctf"])
        if "volume" in job:
            found["ctf_images"] = ctf_images(found["ctf"], source.D)
    return found


def ctf_images(table: np.ndarray, box_px: int) -> np.ndarray:
    """Return the CTF that cryoDRGN computes of its own table, (n, box, box // 2 + 1)."""
    ky, kx = np.meshgrid(np.fft.fftfreq(box_px), np.fft.rfftfreq(box_px), indexing="ij")
    k = torch.from_numpy(np.stack([kx.ravel(), ky.ravel()], axis=1)).float()
    rows = [ctf.compute_ctf(k / row[0], *row[1:]) for row in torch.from_numpy(table)]
    return torch.stack(rows).numpy().reshape(len(table), *kx.shape)


for entry in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    np.savez(entry["out"], **read(entry))
