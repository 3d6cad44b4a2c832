"""What RECOVAR's own readers read, saved as plain arrays.

    python reads_recovar.py JOBS.json

Runs in the environment of RECOVAR. JOBS.json is a list of objects with ``out`` (.npz) and ``particles``, and may have
``datadir``, ``poses`` and ``ctf``; with a ``volume`` (.npy, z, y, x), images of the CTF and projections of it. The
dataset is the one that `recovar pipeline` works with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from recovar.core import fourier_transform_utils, translate_images
from recovar.core.slicing import slice_volume
from recovar.data_io.cryoem_dataset import load_dataset
from recovar.data_io.image_loader import load_images
from recovar.data_io.starfile import StarFile

_ATTACHED = ("_rlnClassNumber", "_cryobridgeLatent1", "_cryobridgeLatent2")


def read(job: dict[str, str]) -> dict[str, np.ndarray]:
    """Return images, poses, shifts in pixels, pixel size, CTF; of a STAR file also names and what `select` attaches."""
    particles, datadir = job["particles"], job.get("datadir", "")
    dataset = load_dataset(particles, job.get("poses"), job.get("ctf"), datadir=datadir or None)
    found = {
        "images": np.asarray(load_images(particles, datadir=datadir)[:]),
        "rotations": dataset.rotation_matrices,
        "shifts_px": dataset.translations,
        "pixel_size_A": np.asarray(dataset.voxel_size),
        "ctf": dataset.get_ctf_params_copy(),
    }
    if particles.endswith(".star"):
        table = StarFile.load(particles).df
        found["names"] = table["_rlnImageName"].to_numpy().astype(str)
        for column in table.columns.intersection(_ATTACHED):
            found[column] = table[column].to_numpy().astype(str)
    if "volume" in job:
        found["ctf_images"], found["projections"] = model(dataset, np.load(job["volume"]))
    return found


def model(dataset: Any, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the CTF that RECOVAR computes, (n, box, box // 2 + 1), and its projections, shifted, (n, box, box)."""
    n, shape = dataset.grid_size, dataset.image_shape
    images = np.asarray(dataset.compute_CTF(dataset.get_ctf_params_copy())).reshape(-1, *shape)
    padded = np.pad(np.transpose(volume, (2, 1, 0)), n // 2)
    spectrum = np.asarray(fourier_transform_utils.get_dft3(padded))
    slices = slice_volume(spectrum.ravel(), dataset.rotation_matrices, (2 * n, 2 * n), spectrum.shape, "linear_interp")
    moved = translate_images(slices, -dataset.translations, (2 * n, 2 * n))
    projections = np.asarray(fourier_transform_utils.get_idft2(np.asarray(moved).reshape(-1, 2 * n, 2 * n))).real
    inner = slice(n // 2, n // 2 + n)
    return np.fft.ifftshift(images, axes=(1, 2))[:, :, : n // 2 + 1], projections[:, inner, inner]


for entry in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    np.savez(entry["out"], **read(entry))
