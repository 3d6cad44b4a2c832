"""Arguments for torch-ctf, held to the formula that it documents; the package itself is in `test_installed.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cryobridge as cb
from adaptor_particles import BOX, N, frequencies, particles, relative, with_envelope
from cryobridge.adaptors import to_torch_ctf
from cryobridge.adaptors.packages import CODATA


def by_the_formula(kwargs, row, kx, ky):
    """-sin of torch-ctf's phase, times exp(i odd), in double precision."""
    of = {
        name: float(value[row]) for name, value in kwargs.items() if not name.endswith("coeffs")
    }  # micrometres, degrees, kV, mm
    wave = CODATA.wavelength_A(np.array(of["voltage"]))
    k2, angle = kx**2 + ky**2, np.arctan2(ky, kx)
    bend = of["astigmatism"] * np.cos(2 * (angle - np.radians(of["astigmatism_angle"])))
    phase = -np.pi * wave * 1e4 * (of["defocus"] + bend) * k2
    phase += np.pi / 2 * 1e7 * of["spherical_aberration"] * wave**3 * k2**2
    phase -= np.radians(of["phase_shift"]) + np.arcsin(of["amplitude_contrast"])
    even, odd = (kwargs.get(f"{kind}_zernike_coeffs", {}) for kind in ("even", "odd"))
    harmonic = {"c": np.cos, "s": np.sin}
    for name, value in even.items():  # Z42c: k⁴ cos 2φ
        phase = phase + float(value[row]) * k2**2 * harmonic[name[-1]](int(name[2]) * angle)
    chi = sum(float(value[row]) * k2**1.5 * harmonic[name[-1]](int(name[2]) * angle) for name, value in odd.items())
    return -np.sin(phase) * np.exp(1j * chi)


@pytest.mark.parametrize("bent", [False, True], ids=["plain", "bent"])
def test_by_the_packages_formula_the_arguments_give_relions_ctf(bent):
    made = with_envelope(particles(bent=bent))
    found = to_torch_ctf(made)
    assert all(value.shape == (N,) for name, value in found.kwargs.items() if not name.endswith("coeffs"))
    expected = cb.ctf_images(made, precision="double", aberrations="all").numpy()
    factor = found.factor().numpy()
    for row in range(N):
        image = by_the_formula(found.kwargs, row, *frequencies(made, row)) * factor[row]
        assert relative(image, expected[row]) < 1e-4  # the arguments are in single precision


def test_astigmatism_is_never_negative():
    made = particles()
    assert (made.ctf.defocus_u_A < made.ctf.defocus_v_A).any()
    assert (to_torch_ctf(made).kwargs["astigmatism"] >= 0).all()


def test_terms_that_are_not_asked_for_are_left_out():
    made = with_envelope(particles(bent=True))
    assert {"even_zernike_coeffs", "odd_zernike_coeffs"} <= to_torch_ctf(made).kwargs.keys()
    even = to_torch_ctf(made, aberrations="even", envelope=False)
    assert "odd_zernike_coeffs" not in even.kwargs and even.factor() is None
    plain = to_torch_ctf(made, aberrations="none", envelope=False)
    assert "even_zernike_coeffs" not in plain.kwargs
    np.testing.assert_allclose(plain.kwargs["defocus"], (made.ctf.defocus_u_A + made.ctf.defocus_v_A) / 2e4, rtol=1e-6)


def test_another_box_has_other_pixels_and_the_same_field():
    made = particles(bent=True)
    call = to_torch_ctf(made, aberrations="even").call(BOX // 2, fftshift=True)
    assert call["image_shape"] == (BOX // 2, BOX // 2) and call["rfft"] and call["fftshift"]
    np.testing.assert_allclose(call["pixel_size"], 2 * made.per_particle("pixel_size_A"), rtol=1e-6)


def test_rows_are_chosen_as_elsewhere():
    made = particles()
    some = to_torch_ctf(made, [5, 2])
    np.testing.assert_array_equal(some.kwargs["defocus"], to_torch_ctf(made).kwargs["defocus"][[5, 2]])
    assert len(some) == 2
    with pytest.raises(IndexError):
        to_torch_ctf(made, [N])


def test_poses_are_for_the_projectors():
    made = particles()
    found = to_torch_ctf(made)
    np.testing.assert_allclose(found.rotation, np.swapaxes(made.poses.matrix, 1, 2), atol=1e-6)
    pixel_A = made.per_particle("pixel_size_A")
    np.testing.assert_allclose(found.shift_yx_px, -made.poses.shift_A[:, ::-1] / pixel_A[:, None], rtol=1e-5)
    assert to_torch_ctf(replace(made, poses=None)).rotation is None


def test_poses_of_a_2d_classification_are_a_warning_and_ones_that_are_no_numbers_an_error():
    made = particles()
    with pytest.warns(UserWarning, match="in-plane angles of a 2D alignment") as caught:
        to_torch_ctf(replace(made, poses=replace(made.poses, is_2d=True)))
    assert caught[0].filename == __file__
    matrix = made.poses.matrix.copy()
    matrix[3] = np.nan
    with pytest.raises(cb.CryobridgeError, match="row 3: orientation: not a number"):
        to_torch_ctf(replace(made, poses=replace(made.poses, matrix=matrix)))


def test_what_is_not_known_is_said():
    made = particles()
    with pytest.raises(cb.CryobridgeError, match="CTF"):
        to_torch_ctf(replace(made, ctf=None))
    with pytest.raises(cb.CryobridgeError, match="pixel size"):
        to_torch_ctf(replace(made, optics=replace(made.optics, pixel_size_A=np.full(2, np.nan))))
    boxes = replace(made, optics=replace(made.optics, box_px=np.array([64, 96])))
    with pytest.raises(cb.CryobridgeError, match="box"):
        to_torch_ctf(boxes).call()
    np.testing.assert_allclose(to_torch_ctf(boxes).call(48)["pixel_size"][:2], [1.25 * 64 / 48, 1.5 * 96 / 48])
