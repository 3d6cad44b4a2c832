"""cryobridge.adaptors with the packages themselves, held to RELION's programs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np

import cryobridge as cb
from cryobridge.adaptors import to_cryodrgn, to_recovar
from interop.maps import correlation, cropped
from interop.relion import OpticsGroup, write_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interop.checks import Checks
    from interop.programs import Arrays, Programs
    from interop.relion import Relion

# What the CTF of a package may differ from RELION's, relative L2.
CTF = 1e-4
# Of projections: they are interpolated in other ways. Those of the mirror image correlate with 0.5 to 0.97.
CORRELATION = 0.999
PACKAGES = {"torch_ctf": "torch-ctf", "cryospax": "cryospax", "aspire": "ASPIRE"}
_N = 40
_SHARP = OpticsGroup(box_px=128, pixel_size_A=1.25)
_BENT = {
    "rlnEvenZernike": "[0.3,15,-2,-12,200,-15,-6,10,250]",
    "rlnOddZernike": "[3,-4,60,0,0,-80]",
    "rlnBeamTiltX": 0.4,
    "rlnBeamTiltY": -0.3,
    "rlnMagMat00": 1.03,
    "rlnMagMat01": 0.02,
    "rlnMagMat10": -0.01,
    "rlnMagMat11": 0.98,
}


def check(checks: Checks, relion: Relion, programs: Programs, python: Path) -> None:
    """Take simulated particles through all packages.

    Parameters
    ----------
    checks, relion
        As everywhere.
    programs
        RECOVAR's and cryoDRGN's.
    python
        Of the environment of the other packages.
    """
    relion.simulate((_SHARP,), n_images=_N, name="plain")
    judge = Judge(relion, "plain")
    found = _through(relion, python, "plain", [*PACKAGES, "cryosparc_tools"])
    pickled = {"cryoDRGN": to_cryodrgn, "RECOVAR": to_recovar}
    files = {}
    for name, adaptor in pickled.items():
        outputs = adaptor(judge.particles, relion.folder / f"for_{name}").outputs
        named = [str(path.relative_to(relion.folder)) for path in outputs]
        files[name] = dict(zip(("particles", "poses", "ctf"), named, strict=True)) | {"volume": "plain.npy"}
        found[name] = programs.read_with(name.lower(), {"adaptor": files[name]})["adaptor"]
    _check_ctf(checks, judge, found)
    _check_bent(checks, relion, python)
    _check_groups(checks, relion, python)
    _check_projections(checks, judge, found)
    _check_maps(checks, relion, programs, python)
    _check_stored(checks, judge, found)


class Judge:
    """What RELION makes of particles that it simulated.

    Parameters
    ----------
    relion
        Its programs, in the folder of the particles.
    name
        Of the particles.

    Attributes
    ----------
    particles
        As cryobridge reads them.
    images, projections
        (n, box, box) of `relion_project`, with and without the CTF.
    """

    def __init__(self, relion: Relion, name: str) -> None:
        self.particles = cb.read(relion.folder / f"{name}.star")
        truth, star = f"{name}_group1_truth.mrc", f"{name}_group1_in.star"
        volume = mrcfile.read(relion.folder / truth)
        np.save(relion.folder / f"{name}.npy", volume)
        pixel_size_A = self.particles.optics.pixel_size_A[0] if self.particles.optics is not None else 1.0
        self.images = mrcfile.read(relion.folder / f"{name}_group1.mrcs")
        self.projections = _projected(relion, truth, star, pixel_size_A)
        delta = np.zeros_like(volume)
        delta[(len(volume) // 2,) * 3] = 1
        write_volume(relion.folder / "delta.mrc", delta, pixel_size_A)
        with_ctf, without = (
            np.fft.rfft2(_projected(relion, "delta.mrc", star, pixel_size_A, *words)) for words in (("--ctf",), ())
        )
        ky, kx = np.meshgrid(np.fft.fftfreq(len(volume)), np.fft.rfftfreq(len(volume)), indexing="ij")
        self._inside = np.hypot(kx, ky) < 0.45
        self._ctf = (with_ctf / without).real[:, self._inside]

    def ctf_error(self, found: NDArray[Any]) -> float:
        """Return the relative L2 error of a CTF (n, box, box // 2 + 1), up to 0.9 of Nyquist."""
        return relative(found[:, self._inside], self._ctf)


def _projected(relion: Relion, volume: str, star: str, pixel_size_A: float, *words: str) -> NDArray[Any]:
    relion.run("relion_project", "--i", volume, "--ang", star, "--o", "projected", "--angpix", pixel_size_A, *words)
    return np.array(mrcfile.read(relion.folder / "projected.mrcs"))


def _through(relion: Relion, python: Path, name: str, packages: list[str]) -> dict[str, Arrays]:
    """Return what packages in the other environment make of particles."""
    folder = relion.folder / f"{name}_found"
    folder.mkdir()
    job = {"packages": packages, "star": f"{name}.star", "volume": f"{name}.npy", "out": folder.name}
    listed = relion.folder / f"{name}_job.json"
    listed.write_text(json.dumps(job), encoding="utf-8")
    search = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    relion.run_command(
        [str(python), "-m", "interop.through_packages", str(listed)],
        environment={"PYTHONPATH": search, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    )
    found = {}
    for package in packages:
        with np.load(folder / f"{package}.npz") as arrays:
            found[package] = dict(arrays)
    return found


def _check_ctf(checks: Checks, judge: Judge, found: dict[str, Arrays]) -> None:
    checks.section("CTF of each package with RELION's wavelength, sign and angle: relative L2 error")
    expected = cb.ctf_images(judge.particles, precision="double").numpy()
    for package, title in (PACKAGES | {"cryosparc_tools": "cryosparc-tools, by way of a dataset"}).items():
        _check_both(checks, judge, title, found[package]["ctf"], expected)
        if "ctf_double" in found[package]:
            error = relative(found[package]["ctf_double"][..., :-1], expected[..., :-1])
            checks.at_most(f"{title} in double precision and `cb.ctf_images`", error, 1e-10)
    for name in ("cryoDRGN", "RECOVAR"):
        _check_both(checks, judge, f"{name} × -1", -found[name]["ctf_images"], expected)
    checks.note(
        "What is left is the single precision that each package computes in, or reads its pickles in; it grows with "
        "the largest phase. ASPIRE's column at the frequency of Nyquist is at -1/2, where the others have +1/2, and is "
        "not compared. cryoDRGN and RECOVAR have the opposite sign, and multiply the images by -1 as well."
    )


def _check_both(checks: Checks, judge: Judge, title: str, found: NDArray[Any], expected: NDArray[Any]) -> None:
    checks.at_most(f"{title} and `relion_project`", judge.ctf_error(found), CTF)
    checks.at_most(f"{title} and `cb.ctf_images`", relative(found[..., :-1], expected[..., :-1]), CTF)


def _check_bent(checks: Checks, relion: Relion, python: Path) -> None:
    checks.section("torch-ctf with beam tilt, Zernike terms of both kinds and 3 % anisotropic magnification")
    relion.simulate((replace(_SHARP, terms=_BENT),), n_images=_N, name="bent")
    judge = Judge(relion, "bent")
    found = _through(relion, python, "bent", ["torch_ctf"])["torch_ctf"]["ctf"]
    whole = cb.ctf_images(judge.particles, precision="double", aberrations="all").numpy()
    even = cb.ctf_images(judge.particles, precision="double").numpy()
    odd = whole / even  # exp(i chi), which relion_project ignores
    checks.at_most("complex, and `cb.ctf_images`, which is held to `relion_reconstruct`", relative(found, whole), CTF)
    checks.at_most("without its odd phase, and `relion_project`", judge.ctf_error((found / odd).real), CTF)


def _check_groups(checks: Checks, relion: Relion, python: Path) -> None:
    checks.section("Two optics groups in one batch: 300 kV at 2 Å, 200 kV at 1.5 Å")
    groups = (OpticsGroup(), OpticsGroup(pixel_size_A=1.5, voltage_kV=200.0, cs_mm=2.0, amplitude_contrast=0.07))
    relion.simulate(groups, n_images=_N // 2, name="groups")
    np.save(relion.folder / "groups.npy", mrcfile.read(relion.folder / "groups_group1_truth.mrc"))
    expected = cb.ctf_images(cb.read(relion.folder / "groups.star"), precision="double").numpy()
    for package, arrays in _through(relion, python, "groups", ["torch_ctf", "cryospax"]).items():
        checks.at_most(f"{PACKAGES[package]} and `cb.ctf_images`", relative(arrays["ctf"], expected), CTF)


def _check_projections(checks: Checks, judge: Judge, found: dict[str, Arrays]) -> None:
    checks.section("Projections of a volume by each package's own projector, shifted, and those of `relion_project`")
    by = {"torch_ctf": "torch-fourier-slice", "cryospax": "cryoJAX", "aspire": "ASPIRE", "RECOVAR": "RECOVAR"}
    for package, title in by.items():
        projections = found[package]["projections"]
        checks.at_least(f"{title}: lowest correlation", min(_alike(projections, judge.projections)), CORRELATION)
        scaled = projections * (np.vdot(projections, judge.projections) / np.vdot(projections, projections))
        checks.at_most(f"{title}: relative L2, scaled", relative(scaled, judge.projections), 0.02)
        mirrored = float(np.mean(_alike(projections[..., ::-1], judge.projections)))
        checks.at_most(f"{title}: mean correlation of mirrored ones", mirrored, 0.9)
    alike = min(_alike(found["cryospax"]["images"], judge.images))
    checks.at_least("cryoJAX's whole image, with its CTF and sign: lowest correlation", alike, CORRELATION)
    checks.note("The projectors interpolate in other ways: RELION's and RECOVAR's alike, the others not.")
    poses, back = judge.particles.poses, found["cryosparc_tools"]
    assert poses is not None and poses.shift_A is not None  # simulated
    rotation, shift_A = (
        float(np.abs(back[name] - values).max())
        for name, values in (("rotations", poses.matrix), ("shifts_A", poses.shift_A))
    )
    checks.at_most("cryosparc-tools: largest difference of an element of a rotation", rotation, 1e-6)
    checks.at_most("cryosparc-tools: largest difference of a shift", shift_A, 1e-5, "Å")


def _check_maps(checks: Checks, relion: Relion, programs: Programs, python: Path) -> None:
    checks.section("Maps of 400 images of RELION, correlated with the simulated molecule")
    simulated = relion.simulate(n_images=400, name="many")
    stack, poses, ctf = to_cryodrgn(cb.read(relion.folder / "many.star"), relion.folder / "for_map").outputs
    programs.cryodrgn(
        "backproject_voxel", str(stack), "--poses", str(poses), "--ctf", str(ctf),
        "-o", str(relion.folder / "for_map/map"), "--no-half-maps",
    )  # fmt: skip
    np.save(relion.folder / "many.npy", simulated.volume)
    mean = _through(relion, python, "many", ["aspire_mean"])["aspire_mean"]["map"]
    of_cryodrgn = mrcfile.read(relion.folder / "for_map/map/backproject.mrc")
    for title, found in (("cryoDRGN's backproject_voxel", of_cryodrgn), ("ASPIRE's MeanEstimator, halved", mean)):
        volume, mirrored = (cropped(each, len(found)) for each in (simulated.volume, simulated.mirrored))
        checks.at_least(title, correlation(found, volume), 0.9)
        checks.at_most(f"{title}, with the mirror image", correlation(found, mirrored), 0.8)
    checks.note(
        "`ImageSource.downsample` of ASPIRE 0.14.3 scales its own CTF filters twice, by the pixel size and by the "
        "filter; those of the adaptor once."
    )


def _check_stored(checks: Checks, judge: Judge, found: dict[str, Arrays]) -> None:
    checks.section("Images and columns that go through unchanged")
    stored = {"cryospax": "cryospax", "aspire": "ASPIRE"}
    read = {title: found[package]["stored"] for package, title in stored.items()}
    read |= {name: found[name]["images"] for name in ("cryoDRGN", "RECOVAR")}
    for title, images in read.items():
        n_differ = int((images != judge.images).any(axis=(1, 2)).sum())
        checks.same_rows(f"{title}: images, and those in the stack", n_differ, len(images))
    n_differ = int(found["cryosparc_tools"]["n_differ"])
    checks.equal("cryosparc-tools: columns of a dataset that differ when it comes back", n_differ, 0)


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the relative L2 error."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _alike(images: NDArray[Any], others: NDArray[Any]) -> list[float]:
    pairs = zip(images, others, strict=True)
    return [float(np.corrcoef(image.ravel(), other.ravel())[0, 1]) for image, other in pairs]
