"""A small result in the layout of RECOVAR 1.0.5, for the examples: RECOVAR itself wants a GPU and minutes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryobridge.demo.physics import demo_molecule
from cryobridge.formats.mrc_write import write_mrc_volume

BOX_PX, PIXEL_SIZE_A = 48, 3.0
ZDIM = 4
EIGENVALUES = (8.1, 3.4, 0.6, 0.4, 0.3, 0.2)
# Three states of different weight, and how far apart they lie along the first two components.
CENTERS = np.array([[-6.0, 0.0, 0.0, 0.0], [4.0, 3.0, 0.0, 0.0], [3.0, -4.0, 0.0, 0.0]], np.float32)
STATES = np.repeat([0, 1, 2], [5, 3, 2])
NOISE_OF_HALF_MAPS = 1.5
# Where the run was, before its folder was copied: RECOVAR notes whole paths.
ELSEWHERE = "/data/cryobridge-demo"


def simulate_result(out: Path, particles: str, n_particles: int) -> None:
    """Write what `recovar pipeline` and `recovar analyze` leave of particles of which every 25th was not used.

    Parameters
    ----------
    out
        The folder of the pipeline.
    particles
        The particle file, from the project's folder.
    n_particles
        Rows of the particle file.
    """
    random = np.random.default_rng(0)
    rows = np.flatnonzero(np.arange(n_particles) % 25 != 24)
    labels = random.permutation(STATES[np.arange(len(rows)) % len(STATES)])
    coordinates = CENTERS[labels] + random.normal(size=(len(rows), ZDIM)).astype(np.float32)
    command_line = f"recovar pipeline {particles} -o {out.name} --mask from_halfmaps --zdim {ZDIM} --ind ind.pkl"
    parameters = {"particles": f"{ELSEWHERE}/{particles}", "outdir": f"{ELSEWHERE}/{out.name}", "ind": "ind.pkl"}
    _write_job(out, "pipeline", command_line, parameters, 95.0)
    _write_model(out / "model", rows, coordinates, random)
    _write_maps(out / "output" / "volumes", random)
    analysis = out / f"analysis_{ZDIM}"
    _write_job(analysis, "analyze", f"recovar analyze {out.name} --zdim {ZDIM} --n-clusters 3", {"zdim": ZDIM}, 41.0)
    _write_clusters(analysis, rows, labels)


def _write_job(folder: Path, command: str, command_line: str, parameters: Mapping[str, object], seconds: float) -> None:
    folder.mkdir(parents=True)
    job = {
        "recovar_version": "1.0.5",
        "command": command,
        "command_line": command_line,
        "parameters": parameters,
        "timing": {"duration_seconds": seconds},
        "status": "completed",
        "outputs": {},
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _write_model(
    model: Path, rows: NDArray[np.int64], coordinates: NDArray[np.float32], random: np.random.Generator
) -> None:
    folder = model / f"zdim_{ZDIM}"
    folder.mkdir(parents=True)
    np.save(folder / "latent_coords.npy", _by_row(coordinates, rows, np.nan))
    metadata = {"voxel_size": PIXEL_SIZE_A, "volume_shape": [BOX_PX] * 3, "zdims_computed": [ZDIM]}
    (model / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    _write_pickle(model / "params.pkl", {"s": np.array(EIGENVALUES)})
    halves = np.split(random.permutation(rows), [len(rows) // 2])
    _write_pickle(model / "particles_halfsets.pkl", [half.astype(np.int32) for half in halves])


def _write_maps(volumes: Path, random: np.random.Generator) -> None:
    density = _density()
    halves = [density + random.normal(scale=NOISE_OF_HALF_MAPS * density.std(), size=density.shape) for _ in range(2)]
    maps = {"mean": (halves[0] + halves[1]) / 2, "mask": density > 0.02 * density.max()}
    maps |= {f"mean_half{number}_unfil": half for number, half in enumerate(halves, 1)}
    maps |= {f"eigen_pos{number:04d}": np.roll(density, number, axis=2) - density for number in range(1, ZDIM + 1)}
    for name, values in maps.items():
        _write_map(volumes / f"{name}.mrc", values)


def _density() -> NDArray[np.float64]:
    """Return the molecule of the demo project, (z, y, x): a sum of Gaussians, each a product over the axes."""
    molecule = demo_molecule()
    centre_px = molecule.position_A / PIXEL_SIZE_A + BOX_PX // 2
    sigma_px = (molecule.sigma_A / PIXEL_SIZE_A)[:, np.newaxis]
    x, y, z = (
        np.exp(-0.5 * ((np.arange(BOX_PX) - centre_px[:, axis, np.newaxis]) / sigma_px) ** 2) for axis in range(3)
    )
    height = molecule.weight / sigma_px[:, 0] ** 3
    density: NDArray[np.float64] = np.einsum("b,bz,by,bx->zyx", height, z, y, x, optimize=True)
    return density


def _write_clusters(analysis: Path, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
    # RECOVAR turns NaN into an integer where a row was not used, which is the lowest one on most processors.
    whole = _by_row(labels, rows, np.iinfo(np.int64).min)
    _write_pickle(analysis / "data" / "kmeans_result.pkl", {"centers": CENTERS, "labels": whole})
    for center in range(len(CENTERS)):
        for suffix in ("", "_half1_unfil", "_half2_unfil"):
            _write_map(analysis / "kmeans" / f"center{center:03d}{suffix}.mrc", np.roll(_density(), center, axis=2))


def _by_row(values: NDArray[np.generic], rows: NDArray[np.int64], hole: float) -> NDArray[np.generic]:
    """Return an element for every row of the particle file up to the last that was used, as RECOVAR writes them."""
    whole = np.full((rows.max() + 1, *values.shape[1:]), hole, values.dtype)
    whole[rows] = values
    return whole


def _write_map(path: Path, values: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc_volume(path, values.astype(np.float32), PIXEL_SIZE_A)


def _write_pickle(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
