"""Images of the CTF: their layouts, sizes and batches. RELION's own numbers are in `tests/relion/test_ctf.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cryobridge as cb
from cryobridge.model.contrast_transfer import Lens, lens_of
from cryobridge.model.particles import CTF, Aberrations, Optics, ParticleSet

BOX, PIXEL_A = 24, 1.5


@pytest.fixture
def particles():
    rng = np.random.default_rng(0)
    n = 7
    u = rng.uniform(9000, 25000, n)
    ctf = CTF(u, u - rng.uniform(-900, 900, n), rng.uniform(-2, 2, n), rng.uniform(0, 1, n), rng.uniform(0, 90, n))
    bent = replace(
        Aberrations.none(2),
        beam_tilt_A=np.array([[3e4, -4e4], [0, 0]]),
        tetrafoil_A=np.array([[3e6, -5e6, 8e6, 1.6e7], [0, 0, 0, 0]]),
        magnification=np.array([[[1.03, 0.02], [-0.01, 0.98]], np.eye(2)]),
    )
    two = np.array
    optics = Optics(
        two([1, 2]), ("1", "2"), two([300.0, 200.0]), two([2.7, 2.1]), two([0.1, 0.07]), two([PIXEL_A, 2.0]),
        two([BOX, BOX]), aberrations=bent,
    )  # fmt: skip
    index = np.array([0, 1, 0, 1, 0, 0, 1], np.int32)
    return ParticleSet(n, Path("p.star"), ctf=replace(ctf, scale=np.full(n, 0.5)), optics=optics, optics_index=index)


def direct(particles, row, kx, ky):
    """The sum as it is written, without polynomials; defocus, Cs, phase shift and amplitude contrast."""
    volts = 1e3 * particles.per_particle("voltage_kV")[row]
    cs = 1e7 * particles.per_particle("spherical_aberration_mm")[row]
    w = particles.per_particle("amplitude_contrast")[row]
    wave = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
    ctf, k2 = particles.ctf, kx**2 + ky**2
    u, v, angle = ctf.defocus_u_A[row], ctf.defocus_v_A[row], ctf.defocus_angle_rad[row]
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (np.arctan2(ky, kx) - angle))
    phase = np.pi * wave * defocus * k2 - np.pi / 2 * cs * wave**3 * k2**2 + ctf.phase_shift_rad[row]
    return 0.5 * np.exp(-ctf.bfactor_A2[row] * k2 / 4) * np.sin(phase + np.arcsin(w))


@pytest.mark.parametrize("precision", ["single", "double"])
def test_a_particle_without_envelope_has_the_same_ctf_beside_one_that_has_one(particles, precision):
    bfactor, scale = np.zeros(7), np.ones(7)
    none = replace(particles, ctf=replace(particles.ctf, bfactor_A2=bfactor, scale=scale))
    one = replace(particles, ctf=replace(particles.ctf, bfactor_A2=np.r_[50, bfactor[1:]], scale=np.r_[0.5, scale[1:]]))
    found, beside = (cb.ctf_images(each, precision=precision) for each in (none, one))
    assert torch.equal(found[1:], beside[1:]) and not torch.equal(found[0], beside[0])
    assert torch.equal(found, cb.ctf_images(none, precision=precision, envelope=False))


def test_without_aberrations_it_is_the_written_sum(particles):
    found = cb.ctf_images(particles, aberrations="none", precision="double").numpy()
    assert found.shape == (7, BOX, BOX // 2 + 1)
    for row, pixel_A in enumerate(particles.per_particle("pixel_size_A")):
        ky, kx = np.meshgrid(np.fft.fftfreq(BOX, pixel_A), np.fft.rfftfreq(BOX, pixel_A), indexing="ij")
        np.testing.assert_allclose(found[row], direct(particles, row, kx, ky), atol=1e-11)


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("aberrations", ["even", "all"])
def test_all_layouts_hold_the_same_values(particles, box, aberrations):
    asked = {"aberrations": aberrations, "precision": "double"}
    half = cb.ctf_images(particles, box, **asked)
    full = cb.ctf_images(particles, box, layout="full", **asked)
    assert full.shape == (7, box, box) and full.is_complex() == (aberrations == "all")
    below = (box + 1) // 2  # the two differ in the sign of Nyquist
    torch.testing.assert_close(half[:, :, :below], full[:, :, :below])
    centred = cb.ctf_images(particles, box, layout="full", centred=True, **asked)
    torch.testing.assert_close(centred, torch.fft.fftshift(full, dim=(1, 2)))
    torch.testing.assert_close(cb.ctf_images(particles, box, centred=True, **asked), torch.fft.fftshift(half, dim=1))
    torch.testing.assert_close(cb.ctf_images(particles, box, sign="opposite", **asked), -half)
    # An image stays real.
    inner = centred[:, 1:, 1:] if box % 2 == 0 else centred
    torch.testing.assert_close(inner.flip(1, 2), inner.conj() if inner.is_complex() else inner)


def test_odd_aberrations_are_a_phase_and_a_shift_moves_the_image(particles):
    moved = replace(particles, ctf=replace(particles.ctf, shift_A=np.tile([3.0, -1.5], (7, 1))))
    plain, shifted = (
        cb.ctf_images(each, aberrations="all", precision="double", pixel_size_A=PIXEL_A) for each in (particles, moved)
    )
    even = cb.ctf_images(particles, precision="double", pixel_size_A=PIXEL_A)
    torch.testing.assert_close(plain.abs(), even.abs())
    assert not torch.allclose(plain.real, even, atol=0.1)
    # By 2 pixels along x and -1 along y.
    one, other = (torch.fft.irfft2(each[:, :, : BOX // 2], s=(BOX, BOX)) for each in (plain, shifted))
    torch.testing.assert_close(torch.roll(one, (-1, 2), (1, 2)), other)


def test_another_box_has_the_same_field_of_view(particles):
    small, large = cb.ctf_images(particles, 12, precision="double"), cb.ctf_images(particles, precision="double")
    torch.testing.assert_close(small[:, :6, :6], large[:, :6, :6])
    torch.testing.assert_close(small[:, -5:, :6], large[:, -5:, :6])
    given = cb.ctf_images(particles, 12, pixel_size_A=2 * PIXEL_A, precision="double")
    torch.testing.assert_close(given[0], small[0])
    assert not torch.allclose(given[1], small[1], atol=0.1)  # its pixels are of 2 Å


def test_rows_and_batches_are_those_of_the_whole(particles):
    whole = cb.ctf_images(particles)
    torch.testing.assert_close(cb.ctf_images(particles, rows=[4, 1]), whole[[4, 1]])
    torch.testing.assert_close(cb.ctf_images(particles, rows=np.arange(7) > 4), whole[5:])
    batches = list(cb.ctf_batches(particles, batch_size=3))
    assert [rows.tolist() for rows, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    torch.testing.assert_close(torch.cat([images for _, images in batches]), whole)
    (only,) = cb.ctf_batches(particles, rows=[6, 0])
    assert only[0].tolist() == [6, 0]
    assert len(cb.ctf_images(particles, 8, rows=[])) == 0


def test_boxes_rows_and_devices_are_given_as_numpy_and_torch_have_them(particles):
    whole = cb.ctf_images(particles, BOX)
    assert torch.equal(cb.ctf_images(particles, np.int64(BOX), device=torch.device("cpu")), whole)
    for rows in (torch.tensor([1, 3]), np.array([1, 3], "u1"), range(1, 4, 2)):
        torch.testing.assert_close(cb.ctf_images(particles, rows=rows), whole[[1, 3]])
    assert cb.ctf_images(particles, rows=[]).shape == (0, BOX, BOX // 2 + 1)
    assert list(cb.ctf_batches(particles, rows=[])) == []


@pytest.mark.parametrize("of", [cb.ctf_images, cb.ctf_batches])
@pytest.mark.parametrize("given", ["J4", Path("J4"), None])
def test_names_of_files_are_no_particles(of, given):
    with pytest.raises(cb.CryobridgeError, match="particles: a particle set is needed") as caught:
        of(given, BOX)
    assert "cryobridge.read(path)" in caught.value.hint


def test_what_a_file_lacks_is_given_where_it_is_read(particles):
    optics = replace(particles.optics, voltage_kV=np.full(2, np.nan))
    with pytest.raises(cb.CryobridgeError) as caught:
        cb.ctf_images(replace(particles, optics=optics))
    assert "cryobridge.read takes defaults={'voltage_kV': …}" in caught.value.hint


def test_single_precision_is_as_exact_as_is_said(particles):
    single, double = (cb.ctf_images(particles, 256, precision=name, pixel_size_A=1.0) for name in ("single", "double"))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    largest = np.abs(lens_of(particles).phases(np.array([0.5]), np.array([0.5]))[0]).max()
    assert (single - double).abs().max() < 3e-7 * largest


def test_a_million_particles_need_the_memory_of_a_batch(particles):
    # As many rows of the same optics as a large data set has.
    n = 1_000_000
    rows = np.arange(n) % 7
    many = particles.take(rows)
    first = next(cb.ctf_batches(many, batch_size=2))
    torch.testing.assert_close(first[1], cb.ctf_images(particles)[:2])
    last = cb.ctf_images(many, rows=[n - 1])
    torch.testing.assert_close(last[0], cb.ctf_images(particles)[rows[-1]])


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"ctf": None}, {}, "nothing is known of the CTF"),
        ({"voltage_kV": np.array([300.0, np.nan])}, {}, "the voltage of the particles is not known"),
        ({"pixel_size_A": np.array([np.nan, 1.0])}, {}, "the pixel size of the particles is not known"),
        ({"amplitude_contrast": np.array([0.1, 7.0])}, {}, "7 is no amplitude contrast"),
        ({"pixel_size_A": np.array([1e308, 1.0])}, {"box_px": 8}, r"1e\+308 Å is no pixel size"),
        ({"box_px": np.array([24, 32])}, {}, "box_px: the images have boxes of 24, 32 px"),
        ({"box_px": np.array([0, 0])}, {}, "box_px: the box is not known"),
        ({"higher_rad": np.array([0.0, 2.0])}, {}, "Zernike terms above the fourth order"),
        ({}, {"layout": "rfft"}, "layout: 'rfft' is none of half, full"),
        ({}, {"precison": "double"}, "precison: there is no such option"),
        ({}, {"device": "gpu"}, "is no device"),
        ({}, {"box_px": 0}, "box_px: the box is not known, or empty"),
    ],
)
def test_what_is_wrong_is_said(particles, change, options, said):
    optics = {name: value for name, value in change.items() if hasattr(particles.optics, name)}
    changed = replace(particles, optics=replace(particles.optics, **optics))
    if "ctf" in change:
        changed = replace(changed, ctf=None)
    if "higher_rad" in change:
        bent = replace(particles.optics.aberrations, higher_rad=change["higher_rad"])
        changed = replace(changed, optics=replace(particles.optics, aberrations=bent))
    with pytest.raises(cb.CryobridgeError, match=said):
        cb.ctf_images(changed, **options)
    with pytest.raises(cb.CryobridgeError, match=said):
        next(cb.ctf_batches(changed, **options))
    with pytest.raises(IndexError):
        cb.ctf_images(particles, rows=[7])


def test_it_is_cryolikes_ctf_but_for_the_wavelength(particles):
    # CryoLike 0.0.1 computes -sqrt(1 - w²) sin γ + w cos γ at 2 r / box of its polar grid, and the wavelength of
    # CODATA's constants; with that, its own code and `Lens.transfer` differ by 2e-14, with RELION's by 6e-4.
    grid, w, volts = cb.PolarGrid.for_box(BOX), 0.1, 3e5
    planck, charge, light, mass = 6.62607015e-34, 1.60217663e-19, 2.99792458e8, 9.1093837015e-31
    wave = planck / np.sqrt(2 * mass * charge * volts) / np.sqrt(1 + charge * volts / (2 * mass * light**2)) * 1e10
    k, theta = grid.radii[:, None] * 2 / (BOX * PIXEL_A), grid.angles_rad
    u, v, angle, shift = (values[:1] for values in list(vars(particles.ctf).values())[:4])
    defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (theta - angle))
    gamma = -np.pi * wave * k**2 * defocus + np.pi / 2 * 2.7e7 * wave**3 * k**4 - shift
    cryolike = -np.sqrt(1 - w**2) * np.sin(gamma) + w * np.cos(gamma)
    lens = Lens.of(CTF(u, v, angle, shift), np.array([300.0]), np.array([2.7]), np.array([w]))
    found = lens.transfer((k * np.cos(theta)).ravel(), (k * np.sin(theta)).ravel()).reshape(cryolike.shape)
    assert np.linalg.norm(found - cryolike) < 1e-3 * np.linalg.norm(cryolike)
