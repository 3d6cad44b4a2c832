"""Aberrations put into other columns: the phases of the whole CTF, before and after, summed at sample frequencies."""

import numpy as np
import pytest

from cryobridge.formats.aberrations import folded, to_relion
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.model.contrast_transfer import lens_of
from cryobridge.model.convention import ALL_CONVENTIONS
from cryobridge.model.geometry import mirror_defocus_angle_y

STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
_rlnImageDimensionality
_rlnOddZernike
_rlnEvenZernike
_rlnMagMat00
_rlnMagMat01
_rlnMagMat10
_rlnMagMat11
1 one 300 2.7 0.1 1.1 64 2 [3,-4,60,20,30,-80] [0.3,40,-20,30,200,-150,-60,100,250] 1.03 0.02 -0.01 0.98
2 two 200 2.1 0.1 1.1 64 2 [0,0,0,0,0,0] [0.1,0,7,5,0,0,4,0,0] 1 0 0 1

data_particles

loop_
_rlnImageName
_rlnOpticsGroup
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnPhaseShift
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
1@a.mrcs 1 14500 13900 37 25 10 20 30 1.5 -2.5
2@a.mrcs 2 9000 9300 -80 0 40 50 60 0 0
3@a.mrcs 1 21000 21000 0 90 70 80 90 -3 4

"""
ODD = [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]
EVEN = [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
RADIAL = {
    (1, 1): lambda k: k,
    (3, 3): lambda k: k**3,
    (1, 3): lambda k: 3 * k**3 - 2 * k,
    (0, 0): lambda k: k**0,
    (2, 2): lambda k: k**2,
    (0, 2): lambda k: 2 * k**2 - 1,
    (4, 4): lambda k: k**4,
    (2, 4): lambda k: 4 * k**4 - 3 * k**2,
    (0, 4): lambda k: 6 * k**4 - 6 * k**2 + 1,
}
FREQUENCIES = np.random.default_rng(0).uniform(-0.4, 0.4, (40, 2))


def relion_phases(text):
    """Even and odd phase of each particle of `STAR`, with its shift, as RELION's formulas have them."""
    lines = [line.split() for line in text.splitlines() if "[" in line or "@" in line]
    optics = {row[0]: row for row in lines if "@" not in row[0]}
    even, odd = [], []
    for particle in (row for row in lines if "@" in row[0]):
        row = optics[particle[1]]
        u, v, angle_deg, phase_deg = map(float, particle[2:6])
        volts, cs_A = 1e3 * float(row[2]), 1e7 * float(row[3])
        wave = 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))
        kx, ky = np.reshape(row[10:], (2, 2)).astype(float) @ FREQUENCIES.T
        k, phi = np.hypot(kx, ky), np.arctan2(ky, kx)
        defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (phi - np.radians(angle_deg)))
        gamma = -np.pi * wave * defocus * k**2 + np.pi / 2 * cs_A * wave**3 * k**4 - np.radians(phase_deg)
        gamma -= np.arcsin(float(row[4]))
        sums = []
        for token, terms in ((row[8], ODD), (row[9], EVEN)):
            coefficients = [float(value) for value in token.strip("[]").split(",")]
            sums.append(
                sum(
                    c * RADIAL[abs(m), n](k) * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi))
                    for c, (m, n) in zip(coefficients, terms, strict=True)
                )
            )
        # The origin is subtracted: an image lies at minus the origin.
        odd.append(sums[0] + 2 * np.pi * FREQUENCIES @ [float(value) for value in particle[9:]])
        even.append(gamma + sums[1])
    return np.array(even), np.array(odd)


def model_phases(particles):
    """The same of a particle set."""
    even, odd = lens_of(particles).phases(*FREQUENCIES.T)
    return even, odd + 2 * np.pi * particles.poses.shift_A @ FREQUENCIES.T


@pytest.fixture
def particles(tmp_path):
    (tmp_path / "a.star").write_text(STAR)
    return read_particles_star(tmp_path / "a.star")


def same(phase, other):
    np.testing.assert_allclose(np.exp(1j * phase), np.exp(1j * other), atol=1e-9)


def test_the_model_has_relions_phases_and_folding_keeps_them(particles):
    even, odd = relion_phases(STAR)
    assert np.ptp(even) > 10 and np.ptp(odd) > 10
    for one, other in zip(model_phases(particles), (even, odd), strict=True):
        same(one, other)
    into_others, messages = folded(particles)
    assert {item.code for item in messages} == {"zernike-terms-folded", "aberration-shift-applied"}
    assert not into_others.optics.aberrations.lower_even.any() and into_others.ctf.shift_A is None
    for one, other in zip(model_phases(into_others), (even, odd), strict=True):
        same(one, other)
    changed = into_others.optics.spherical_aberration_mm - particles.optics.spherical_aberration_mm
    wave = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    assert changed[0] == pytest.approx(12 * -60 / (np.pi * wave**3) / 1e7)
    again, messages = folded(into_others)
    assert not messages and again.ctf is into_others.ctf


def test_relions_columns_of_the_model_have_the_same_even_phases(particles):
    columns = to_relion(particles.optics.aberrations, particles.optics)
    text = STAR.replace("[0.3,40,-20,30,200,-150,-60,100,250]", columns["rlnEvenZernike"][0])
    same(relion_phases(text)[0], relion_phases(STAR)[0])
    # Z(±1,3) is a beam tilt, and what it lacks to one a shift.
    np.testing.assert_allclose([columns["rlnBeamTiltX"][1], columns["rlnBeamTiltY"][1]], 0)
    assert columns["rlnOddZernike"][0].startswith("[0,0,60,0,0,-80")


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=str)
def test_images_that_lie_otherwise_have_the_same_phases_there(particles, convention):
    # The frequencies of the turned images, by their own formulas.
    x0, y0 = FREQUENCIES.T
    x, y = -x0 if convention.mirror_x else x0, -y0 if convention.mirror_y else y0
    there = [y, x] if convention.swap_xy else [x, y]
    turned = particles.turned(convention.turn)
    for one, other in zip(lens_of(particles).phases(x0, y0), lens_of(turned).phases(*there), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_reversed_rows_mirror_the_ctf(particles):
    mirrored = particles.mirrored_y()
    assert mirrored.ctf.defocus_angle_rad == pytest.approx(mirror_defocus_angle_y(particles.ctf.defocus_angle_rad))
    np.testing.assert_allclose(mirrored.ctf.shift_A, particles.ctf.shift_A * (1, -1))
    np.testing.assert_allclose(mirrored.poses.shift_A, particles.poses.shift_A * (1, -1))
    again = mirrored.mirrored_y().optics.aberrations
    np.testing.assert_array_equal(again.magnification, particles.optics.aberrations.magnification)
