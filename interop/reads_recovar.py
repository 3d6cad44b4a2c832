"""What RECOVAR's own readers read, saved as plain arrays.

    python reads_recovar.py JOBS.json

Runs in the environment of RECOVAR. JOBS.json is a list of objects with ``out`` (.npz) and ``particles``, and may have
``datadir``, ``poses`` and ``ctf``. The dataset is the one that `recovar pipeline` works with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
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
    return found


for entry in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    np.savez(entry["out"], **read(entry))
