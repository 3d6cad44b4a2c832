"""Small RECOVAR results in both layouts, written with other libraries than ours and known row by row."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

BOX, VOXEL_A = 8, 3.0
CENTERS = np.array([[-5.0, 0.0], [5.0, 1.0], [0.0, 9.0]], np.float32)
ALPHAS = (10.0, 0.1, 0.001)
KNEE = 1
# What RECOVAR 1.0.5 wrote with --ind on x86: NaN as an integer is the lowest one. On ARM it is 0.
HOLES = {"x86": np.iinfo(np.int64).min, "arm": 0}


@dataclass(frozen=True)
class SimulatedRun:
    """Where the parts of a simulated run are, and what they hold for the rows that it used."""

    out: Path
    analysis: Path
    density: Path
    particles: Path
    rows: np.ndarray
    labels: np.ndarray
    coords: np.ndarray


def write_map(path, seed=0, voxel_size=VOXEL_A, box=BOX, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.random.default_rng(seed).normal(size=(box, box, box))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.new(path, values.astype(np.float32), overwrite=True) as mrc:
            mrc.voxel_size = voxel_size
            mrc.set_volume()
    return path


def write_pickle(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return path


def write_job(folder, command, parameters, outputs=None, status="completed", **content):
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "recovar_version": "1.0.5",
        "command": command,
        "command_line": f"recovar {command}",
        "parameters": parameters,
        "timing": {"duration_seconds": 3725.0},
        "status": status,
        "outputs": outputs or {},
        **content,
    }
    (folder / "job.json").write_text(json.dumps(job))


def padded(values, rows):
    # One element for each row of the particle file up to the last of the run.
    whole = np.full((rows.max() + 1, *values.shape[1:]), np.nan, np.float32)
    whole[rows] = values
    return whole


def simulate_run(project, layout="documented", rows=None, hole="x86"):
    """Write a project with 30 particles of which a run used some; coordinate 0 of each tells its cluster and row."""
    rows = np.array([1, 2, 3, 5, 8, 9, 12, 13, 17, 20, 21, 25]) if rows is None else np.asarray(rows)
    labels = np.arange(len(rows)) % 3
    coords = CENTERS[labels] + np.stack([rows / 100, -rows / 50], axis=1).astype(np.float32)
    out = project / "jobs" / "out"
    particles = project / "particles" / "particles.star"
    particles.parent.mkdir(parents=True)
    names = "".join(f"{row + 1}@particles.mrcs\n" for row in range(30))
    particles.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n{names}\n")
    write_model(out / "model", layout, rows, coords)
    for seed, name in enumerate(("mean", "mask", "mean_half1_unfil", "mean_half2_unfil", "eigen_pos0000", "variance4")):
        write_map(out / "output" / "volumes" / f"{name}.mrc", seed)
    is_older = layout == "older"
    if not is_older:
        parameters = {"particles": str(particles), "outdir": str(out), "ind": "ind.pkl"}
        write_job(out, "pipeline", parameters, {"volumes": ["output/volumes/mean.mrc"]})
    analysis = out / "output" / "analysis_2" if is_older else out / "analysis_2"
    write_analysis(analysis, layout, rows, labels, hole)
    density = out / ("density" if is_older else "Density")
    write_densities(density if is_older else density / "data")
    if not is_older:
        write_job(density, "estimate_conformational_density", {"z_dim_used": 4})
    return SimulatedRun(out, analysis, density, particles, rows, labels, coords)


def write_model(model, layout, rows, coords):
    four = np.concatenate([coords, coords + 100], axis=1)
    precision = np.eye(2) * rows[:, None, None]
    write_pickle(model / "params.pkl", {"s": np.array([4.0, 2.0, 1.0]), "version": "0.7"})
    # The half sets are not sorted; the coordinates are by row all the same.
    halves = [rows[::-2].astype(np.int32), rows[-2::-2].astype(np.int32)]
    write_pickle(model / "particles_halfsets.pkl", halves)
    write_pickle(model / "halfsets.pkl", halves)
    if layout == "older":
        content = {
            "zs": {2: padded(coords, rows), 4: padded(four, rows), "2_noreg": padded(coords + 7, rows)},
            "cov_zs": {2: padded(precision, rows)},
            "contrasts": {2: padded(rows / 10, rows), 4: padded(rows / 20, rows)},
        }
        write_pickle(model / "embeddings.pkl", content)
        return
    metadata = {"voxel_size": VOXEL_A, "volume_shape": [BOX] * 3, "zdims_computed": [2, 4]}
    (model / "metadata.json").write_text(json.dumps(metadata))
    for zdim, values in ((2, coords), (4, four)):
        folder = model / f"zdim_{zdim}"
        folder.mkdir()
        np.save(folder / "latent_coords.npy", padded(values, rows))
        np.save(folder / "latent_coords_noreg.npy", padded(values + 7, rows))
        np.save(folder / "contrasts.npy", padded(rows / 10, rows))
    np.save(model / "zdim_2" / "latent_precision.npy", padded(precision, rows))


def write_analysis(folder, layout, rows, labels, hole):
    is_older = layout == "older"
    if is_older:
        whole = padded(labels, rows).astype(np.float64)
    else:
        whole = np.full(rows.max() + 1, HOLES[hole], np.int64)
        whole[rows] = labels
    data = folder if is_older else folder / "data"
    write_pickle(data / "kmeans_result.pkl", {"centers": CENTERS, "labels": whole})
    embedding = padded(np.stack([rows, 2 * rows], axis=1), rows)
    write_pickle(folder / ("umap" if is_older else "plots/umap") / "umap_embedding.pkl", embedding)
    for center in range(len(CENTERS)):
        if is_older:
            write_map(folder / "kmeans" / f"vol{center:04d}.mrc")
            for half in (1, 2):
                write_map(folder / "kmeans" / f"vol{center:04d}" / f"half{half}_unfil.mrc")
        else:
            for suffix in ("", "_unfil", "_half1_unfil", "_half2_unfil"):
                write_map(folder / "kmeans" / f"center{center:03d}{suffix}.mrc")
    if is_older:
        write_map(folder / "path0" / "all_volumes" / "vol0000.mrc")
        return
    pairs = {"centers": CENTERS.tolist(), "pairs": [[np.int64(0), np.int64(2)]]}
    write_pickle(data / "trajectory_endpoints.pkl", pairs)
    path = np.linspace(CENTERS[0], CENTERS[2], 3)
    (folder / "traj000").mkdir()
    np.savetxt(folder / "traj000" / "latent_coords.txt", path)
    for state in range(3):
        for suffix in ("", "_half1_unfil", "_half2_unfil"):
            write_map(folder / "traj000" / f"state{state:03d}{suffix}.mrc")
    write_job(folder, "analyze", {"zdim": 2}, {"volumes": ["kmeans/center000.mrc", "kmeans/center001.mrc"]})


def write_densities(folder, shape=(4, 5), alphas=ALPHAS):
    for index, alpha in enumerate(alphas):
        write_density(folder / "all_densities" / f"deconv_density_{index}.pkl", shape, alpha)
    write_density(folder / "deconv_density_knee.pkl", shape, alphas[KNEE])


def write_density(path, shape=(4, 5), alpha=0.1, **changes):
    bounds = np.array([[-10.0, 10.0], [0.0, 2.0], [5.0, 6.0]], np.float32)[: len(shape)]
    grid = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    content = {"density": grid, "latent_space_bounds": bounds, "alpha": np.float64(alpha), **changes}
    return write_pickle(path, content)
