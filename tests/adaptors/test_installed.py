"""The packages themselves, by the functions of ``make interop``; what is not installed is skipped."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from interop import through_packages
from interop.relion import Relion, write_star

import cryobridge as cb
from adaptor_particles import BOX, N, particles, relative, with_envelope, with_images
from cryobridge import adaptors

PACKAGES = pytest.mark.parametrize("package", ["torch_ctf", "cryospax", "aspire"])
pytestmark = pytest.mark.filterwarnings("default")  # of the packages


@pytest.fixture(autouse=True)
def _where_logs_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    logging.disable(logging.NOTSET)


def blob(box_px):
    """A volume without symmetry."""
    z, y, x = np.meshgrid(*[np.arange(box_px) - box_px // 2] * 3, indexing="ij")
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 20.0) for a, b, c in ((6, 1, 0), (-2, 8, 3)))


def through(package, made, volume):
    for module in (package, *{"torch_ctf": ("torch_fourier_slice", "torch_fourier_shift")}.get(package, ())):
        pytest.importorskip(module)
    return getattr(through_packages, package)(made, volume)


@PACKAGES
def test_the_ctf_is_relions_also_with_large_phase_shifts_b_factors_and_scales(package, tmp_path):
    made = with_envelope(particles(groups=1 if package == "aspire" else 2))
    shifts = np.linspace(0, 3, N)  # to 172 degrees
    made = with_images(replace(made, ctf=replace(made.ctf, phase_shift_rad=shifts)), tmp_path)
    found = through(package, made, blob(BOX))
    expected = cb.ctf_images(made, precision="double").numpy()[..., :-1]
    assert relative(found["ctf"][..., :-1], expected) < 1e-4
    if "ctf_double" in found:
        assert relative(found["ctf_double"][..., :-1], expected) < 1e-9


def test_torch_ctf_has_all_aberrations():
    made = with_envelope(particles(bent=True))
    found = through("torch_ctf", made, blob(BOX))["ctf"]
    assert relative(found, cb.ctf_images(made, precision="double", aberrations="all").numpy()) < 1e-4


@pytest.mark.relion
@PACKAGES
def test_ctf_and_projections_are_those_of_relions_programs(package, tmp_path):
    pytest.importorskip(package)
    relion = Relion(tmp_path)
    ctf = {"rlnDefocusU": 14500.0, "rlnDefocusV": 13900.0, "rlnDefocusAngle": 37.0, "rlnPhaseShift": 25.0}
    pose = {"rlnAngleRot": 33.0, "rlnAngleTilt": 71.0, "rlnAnglePsi": -112.0}
    pose |= {"rlnOriginXAngst": 7.5, "rlnOriginYAngst": -3.75}
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "one", "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
    optics |= {"rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 1.25, "rlnImageSize": BOX, "rlnImageDimensionality": 2}
    row = {"rlnImageName": "1@projected.mrcs", "rlnOpticsGroup": 1, **ctf, **pose}
    write_star(tmp_path / "p.star", {"optics": [optics], "particles": [row]})
    with mrcfile.new(tmp_path / "volume.mrc", blob(BOX).astype(np.float32)) as file:
        file.voxel_size = 1.25
    relion.run("relion_project", "--i", "volume.mrc", "--ang", "p.star", "--o", "projected", "--angpix", 1.25)
    relion.run(
        "relion_ctf_toolbox", "--simulate", "ctf.mrc", "--angpix", 1.25, "--box", BOX, "--kV", 300, "--Q0", 0.1,
        "--Cs", 2.7, "--defU", 14500, "--defV", 13900, "--defAng", 37, "--phase_shift", 25,
    )  # fmt: skip
    found = through(package, cb.read(tmp_path / "p.star"), blob(BOX))
    expected = np.fft.ifftshift(mrcfile.read(tmp_path / "ctf.mrc"))[:, : BOX // 2]
    inside = np.arange(BOX) != BOX // 2  # its row of Nyquist is the other one's
    assert relative(found["ctf"][0][inside, :-1], expected[inside]) < 1e-4
    projection = mrcfile.read(tmp_path / "projected.mrcs").ravel()
    assert np.corrcoef(found["projections"][0].ravel(), projection)[0, 1] > 0.999
    assert np.corrcoef(found["projections"][0][:, ::-1].ravel(), projection)[0, 1] < 0.9


@pytest.mark.parametrize("package", ["cryospax", "aspire"])
def test_images_are_read_when_they_are_asked_for_also_in_another_process(package, tmp_path):
    pytest.importorskip(package)
    made = with_images(particles(groups=1), tmp_path)
    rows = np.array([4, 0, 3])
    expected = adaptors.to_cryodrgn(made, tmp_path / "out", rows).outputs[0]
    if package == "cryospax":
        dataset = pickle.loads(pickle.dumps(adaptors.to_cryospax(made)))
        images = dataset[rows]["images"]
        assert dataset[4]["images"].shape == (BOX, BOX) and len(dataset) == N
        dataset.only_images = True
        assert dataset[:2].keys() == {"images"}
        with pytest.raises(cb.CryobridgeError, match="are read, not written"):
            dataset.append({})
    else:
        source = pickle.loads(pickle.dumps(adaptors.to_aspire(made)))
        images = source.images[rows].asnumpy()
        assert np.isfinite(source[:3].phase_flip().images[:].asnumpy()).all()
    np.testing.assert_array_equal(images, mrcfile.read(expected))


def test_filters_of_aspire_are_right_for_images_that_it_makes_smaller(tmp_path):
    pytest.importorskip("aspire")
    made = with_images(particles(groups=1), tmp_path)
    source = adaptors.to_aspire(made)
    half = source.downsample(BOX // 2)
    inner = slice(BOX // 4, BOX - BOX // 4)
    for filter_of_all, filter_of_half in zip(source.unique_filters, half.unique_filters, strict=True):
        expected = filter_of_all.evaluate_grid(BOX, pixel_size=source.pixel_size, dtype=np.float64)[inner, inner]
        found = filter_of_half.evaluate_grid(BOX // 2, pixel_size=half.pixel_size, dtype=np.float64)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_aspire_takes_no_particles_of_two_pixel_sizes():
    pytest.importorskip("aspire")
    with pytest.raises(cb.CryobridgeError, match="ASPIRE takes one for all"):
        adaptors.to_aspire(particles(groups=2))


@pytest.mark.parametrize("package", ["cryospax", "aspire"])
def test_aberrations_without_a_place_are_a_warning(package):
    pytest.importorskip(package)
    adaptor = {"cryospax": adaptors.to_cryospax, "aspire": adaptors.to_aspire}[package]
    with pytest.warns(UserWarning, match="beam tilt.*not zero, and left out") as caught:
        adaptor(particles(groups=1, bent=True))
    assert caught[0].filename == __file__


def test_a_dataset_of_cryosparc_tools_comes_back_as_it_was(demo_project, tmp_path):
    package = pytest.importorskip("cryosparc.dataset")
    dataset = package.Dataset.load(demo_project.particles_cs)
    made = adaptors.from_cryosparc_tools(dataset, demo_project.particles_cs.parent.parent)
    assert adaptors.to_cryosparc_tools(made) == dataset
    some = adaptors.to_cryosparc_tools(made.take(np.array([3, 1])))
    assert some["uid"].tolist() == dataset["uid"][[3, 1]].tolist()
    n = len(made)
    labelled = adaptors.to_cryosparc_tools(
        made.with_columns(score=np.arange(n), cluster=np.arange(n) % 2, latent=np.eye(n))
    )
    assert labelled["labels/score"].tolist() == list(range(n))
    assert labelled["alignments3D/class"].tolist() == (np.arange(n) % 2).tolist()
    again = adaptors.from_cryosparc_tools(labelled)
    np.testing.assert_array_equal(again.latent, np.eye(n))
    assert (again.class_number == np.arange(n) % 2 + 1).all()
    np.testing.assert_array_equal(labelled["alignments3D/pose"], dataset["alignments3D/pose"])
    changed = adaptors.to_cryosparc_tools(made.replace(half_set=None))  # no longer as it was read
    np.testing.assert_allclose(changed["alignments3D/pose"], dataset["alignments3D/pose"], atol=1e-6)


def test_particles_of_relion_become_a_dataset(demo_project, tmp_path):
    package = pytest.importorskip("cryosparc.dataset")
    cb.convert(demo_project.particles_cs, tmp_path / "p.star", link_stacks=tmp_path / "stacks")
    with pytest.warns(UserWarning, match="contrast"):
        adaptors.to_cryosparc_tools(cb.read(tmp_path / "p.star"))
    found = adaptors.to_cryosparc_tools(cb.read(tmp_path / "p.star"), contrast="dark")
    original = package.Dataset.load(demo_project.particles_cs)
    for name in ("ctf/df1_A", "alignments3D/shift", "alignments3D/pose", "blob/sign", "blob/idx"):
        np.testing.assert_allclose(found[name], original[name], rtol=1e-5, atol=1e-4)
