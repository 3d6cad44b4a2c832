"""The same particles through packages for methods, each by its adaptor: CTF images, projections of a volume, images.

    python -m interop.through_packages JOB.json

Runs in the environment of the packages, with cryobridge in it. JOB.json has ``packages`` (names of functions below),
``star``, the STAR file of the particles, ``volume``, the `.npy` file of a volume (z, y, x), and ``out``, the folder for
an `.npz` file of each package. Tests call the functions where a package is installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cryobridge as cb
from cryobridge import adaptors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import ParticleSet

Found = dict[str, "NDArray[Any]"]


def torch_ctf(particles: ParticleSet, volume: NDArray[Any]) -> Found:
    """torch-ctf, and projections by torch-fourier-slice and torch-fourier-shift."""
    import torch
    from torch_fourier_shift import fourier_shift_image_2d
    from torch_fourier_slice import project_3d_to_2d

    found = adaptors.to_torch_ctf(particles)
    projections = project_3d_to_2d(torch.from_numpy(volume).float(), found.rotation)
    return {
        "ctf": found.images().numpy(),
        "projections": fourier_shift_image_2d(projections, found.shift_yx_px).numpy(),
    }


def cryospax(particles: ParticleSet, volume: NDArray[Any]) -> Found:
    """cryoJAX, by a dataset of cryospax; also in double precision, and images with all that its model has."""
    import jax

    found = _cryojax(particles, volume)
    found["stored"] = adaptors.to_cryospax(particles)[:]["images"]
    jax.config.update("jax_enable_x64", True)
    try:
        return found | {"ctf_double": _cryojax(particles, volume)["ctf"]}
    finally:
        jax.config.update("jax_enable_x64", False)


def _cryojax(particles: ParticleSet, volume: NDArray[Any]) -> Found:
    import cryospax
    import equinox
    from cryojax.simulator import FourierVoxelGridVolume, make_image_model

    parameters = adaptors.to_cryospax(particles).parameter_file
    voxels = FourierVoxelGridVolume.from_real_voxel_grid(volume, pad_scale=2)

    def ctf(item: Any) -> Any:
        theory, config = item["transfer_theory"], item["image_config"]
        k = config.get_frequency_grid(physical=True)
        values = theory.ctf(
            k,
            wavelength_in_angstroms=config.wavelength_in_angstroms,
            amplitude_contrast_ratio=theory.amplitude_contrast_ratio,
            phase_shift=theory.phase_shift,
        )
        return values if theory.envelope is None else values * theory.envelope(k)

    def projection(item: Any) -> Any:
        return make_image_model(voxels, item["image_config"], item["pose"]).simulate()

    def image(item: Any) -> Any:
        return make_image_model(voxels, item["image_config"], item["pose"], item["transfer_theory"]).simulate()

    items, axes = parameters[:], (cryospax.get_in_axes(parameters),)
    made = {"ctf": ctf, "projections": projection, "images": image}
    return {name: np.asarray(equinox.filter_vmap(make, in_axes=axes)(items)) for name, make in made.items()}


def aspire(particles: ParticleSet, volume: NDArray[Any]) -> Found:
    """ASPIRE, by an image source of it; the CTF also on a grid in double precision."""
    from aspire.volume import Volume

    source = adaptors.to_aspire(particles)
    projections = Volume(volume.astype(np.float32)).project(source.rotations, zero_nyquist=False)
    found = {"projections": projections.shift(source.offsets).asnumpy(), "stored": source.images[:].asnumpy()}
    for name, dtype in (("ctf", np.float32), ("ctf_double", np.float64)):
        filters = [
            each.evaluate_grid(source.L, dtype=dtype, pixel_size=source.pixel_size) for each in source.unique_filters
        ]
        images = np.stack(filters)[source.filter_indices] * source.amplitudes[:, None, None]
        found[name] = np.fft.ifftshift(images, axes=(1, 2))[:, :, : source.L // 2 + 1]
    return found


def aspire_mean(particles: ParticleSet, _volume: NDArray[Any]) -> Found:
    """ASPIRE's map of the images, which it has halved before."""
    from aspire.basis import FFBBasis3D
    from aspire.reconstruction import MeanEstimator

    source = adaptors.to_aspire(particles)
    half = source.downsample(source.L // 2)
    return {"map": MeanEstimator(half, basis=FFBBasis3D(half.L, dtype=np.float32)).estimate().asnumpy()[0]}


def cryosparc_tools(particles: ParticleSet, _volume: NDArray[Any]) -> Found:
    """cryosparc-tools: a dataset of it and back; how many columns of the dataset differ when it is made again."""
    from tempfile import TemporaryDirectory

    from cryosparc.dataset import Dataset

    made = adaptors.to_cryosparc_tools(particles, contrast="bright")
    with TemporaryDirectory() as folder:
        made.save(f"{folder}/particles.cs")
        dataset = Dataset.load(f"{folder}/particles.cs")
    back = adaptors.from_cryosparc_tools(dataset)
    again = adaptors.to_cryosparc_tools(back)
    assert back.poses is not None and back.poses.shift_A is not None
    return {
        "ctf": cb.ctf_images(back, precision="double").numpy(),
        "rotations": back.poses.matrix,
        "shifts_A": back.poses.shift_A,
        "n_differ": np.array(sum(not np.array_equal(again[name], dataset[name]) for name in dataset.fields())),
        "is_equal": np.array(again == dataset),
    }


def main(path: Path) -> None:
    """Take the particles of a job through its packages."""
    job = json.loads(path.read_text(encoding="utf-8"))
    particles, volume = cb.read(job["star"]), np.load(job["volume"])
    for name in job["packages"]:
        np.savez(Path(job["out"]) / f"{name}.npz", **globals()[name](particles, volume))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
