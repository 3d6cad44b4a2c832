"""Stack and pickles for cryoDRGN and RECOVAR in one call."""

from __future__ import annotations

from dataclasses import replace

import mrcfile
import numpy as np
import pytest

import cryobridge as cb
from adaptor_particles import BOX, PIXEL_A, N, frequencies, particles, relative, with_envelope, with_images
from cryobridge.adaptors import to_cryodrgn, to_recovar
from cryobridge.adaptors.packages import RECOVAR, SPENCE
from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.pickles import read_ctf, read_poses
from helpers import codes, noise_images

PROGRAMS = pytest.mark.parametrize(
    ("adaptor", "formula"), [(to_cryodrgn, SPENCE), (to_recovar, RECOVAR)], ids=["cryodrgn", "recovar"]
)


@pytest.fixture
def made(tmp_path):
    return with_images(particles(groups=1), tmp_path)


@PROGRAMS
def test_names_of_files_and_no_rows_are_refused(made, tmp_path, adaptor, formula):
    with pytest.raises(UsageError, match="a particle set is needed, not 'J4'") as caught:
        adaptor("J4", tmp_path / "out")
    assert "cryobridge.read" in caught.value.hint
    with pytest.raises(MissingDataError, match="no particle is left"):
        adaptor(made, tmp_path / "out", rows=[])
    assert not (tmp_path / "out").exists()


@PROGRAMS
def test_they_are_the_pickles_of_convert_with_a_voltage_that_has_relions_wavelength(made, tmp_path, adaptor, formula):
    report = adaptor(made, tmp_path / "out")
    stack, poses, ctf = report.outputs
    assert [path.name for path in report.outputs] == ["particles.mrcs", "poses.pkl", "ctf.pkl"]
    assert codes(report.messages) == ["voltage-matched"] and report.rows_out == N
    cb.convert(made, tmp_path / "converted", to="pickles")
    assert poses.read_bytes() == (tmp_path / "converted" / "poses.pkl").read_bytes()
    found, converted = (read_ctf(path).values for path in (ctf, tmp_path / "converted" / "ctf.pkl"))
    np.testing.assert_allclose(found[:, 5], formula.voltage_kV(np.full(N, 300.0)), rtol=1e-7)
    np.testing.assert_array_equal(np.delete(found, 5, axis=1), np.delete(converted, 5, axis=1))
    adaptor(made, tmp_path / "own", wavelength="own")
    assert (tmp_path / "own" / "ctf.pkl").read_bytes() == (tmp_path / "converted" / "ctf.pkl").read_bytes()
    with mrcfile.open(stack) as file:
        assert file.voxel_size.x == pytest.approx(PIXEL_A)


@PROGRAMS
def test_by_the_programs_formula_the_table_is_relions_ctf_with_the_other_sign(made, tmp_path, adaptor, formula):
    _, _, ctf = adaptor(made, tmp_path / "out").outputs
    expected = cb.ctf_images(made, precision="double", sign="opposite").numpy()
    for row, (_, _, u, v, angle, voltage, cs, w, phase_shift) in enumerate(read_ctf(ctf).values):
        kx, ky = frequencies(made, row)
        k2, wave = kx**2 + ky**2, formula.wavelength_A(np.array(voltage))
        defocus = 0.5 * (u + v + (u - v) * np.cos(2 * (np.arctan2(ky, kx) - np.radians(angle))))
        gamma = 2 * np.pi * (-0.5 * defocus * wave * k2 + 0.25 * cs * 1e7 * wave**3 * k2**2) - np.radians(phase_shift)
        found = np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma)
        assert relative(found, expected[row]) < 1e-5


def test_images_are_in_the_order_of_the_rows(made, tmp_path):
    stack, poses, _ = to_cryodrgn(made, tmp_path / "out", [6, 1, 2]).outputs
    stacks = {"a": noise_images(N, BOX, 0), "b": noise_images(N, BOX, 1)}
    expected = [stacks["b" if row % 3 == 0 else "a"][N - 1 - row] for row in (6, 1, 2)]
    np.testing.assert_array_equal(mrcfile.read(stack), np.float32(expected))
    np.testing.assert_allclose(read_poses(poses).rotations, made.poses.matrix[[6, 1, 2]], atol=1e-6)


def test_an_output_that_is_there_is_kept(made, tmp_path):
    to_cryodrgn(made, tmp_path / "out")
    with pytest.raises(cb.CryobridgeError, match="there already"):
        to_cryodrgn(made, tmp_path / "out")
    assert to_recovar(made, tmp_path / "out", overwrite=True).outputs[0].is_file()


def test_several_pixel_sizes_are_refused(tmp_path):
    made = with_images(particles(groups=2), tmp_path)
    with pytest.raises(cb.CryobridgeError, match=r"pixel sizes of 1\.25, 1\.5 Å; cryoDRGN takes one for all"):
        to_cryodrgn(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_place_is_a_warning(made, tmp_path):
    with pytest.warns(UserWarning, match="B-factors and scales of the CTF are left out") as caught:
        to_cryodrgn(with_envelope(made), tmp_path / "out")
    assert caught[0].filename == __file__
    bent = replace(made, optics=particles(bent=True).optics)
    with pytest.warns(UserWarning, match="beam tilt.*not zero, and left out") as caught:
        report = to_recovar(bent, tmp_path / "bent")
    assert "zernike-terms-folded" in codes(report.messages) and len(caught) == 1  # said once


def test_particles_without_poses_or_with_those_of_2d_classes_are_a_warning(made, tmp_path):
    with pytest.warns(UserWarning, match="no poses are known, which cryoDRGN would take") as caught:
        report = to_cryodrgn(replace(made, poses=None), tmp_path / "none")
    assert [path.name for path in report.outputs] == ["particles.mrcs", "ctf.pkl"] and len(caught) == 1
    with pytest.warns(UserWarning, match="in-plane angles of a 2D alignment") as caught:
        to_recovar(replace(made, poses=replace(made.poses, is_2d=True)), tmp_path / "flat")
    assert len(caught) == 1
