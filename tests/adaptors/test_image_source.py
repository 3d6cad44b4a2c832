"""What ASPIRE's filters are made of, held to its formula; ASPIRE itself is in `test_installed.py`."""

from __future__ import annotations

import numpy as np
import pytest

import cryobridge as cb
from adaptor_particles import N, frequencies, particles, relative, with_envelope
from cryobridge.adaptors.image_source import aspire_filters
from cryobridge.adaptors.packages import SPENCE
from cryobridge.adaptors.particle_values import ImageModelOptions, ParticleValues


def by_the_formula(row, kx, ky):
    """ASPIRE's CTF, in nm as it has it, and the factor of ours."""
    voltage, u, v, angle, cs, alpha, bfactor, factor = row
    s2 = 100 * (kx**2 + ky**2)  # 1/nm²
    wave = SPENCE.wavelength_A(np.array(voltage)) / 10
    defocus = 0.05 * (u + v) + 0.05 * (u - v) * np.cos(2 * (np.arctan2(ky, kx) - angle))
    chi = np.pi / 2 * 1e6 * cs * wave**3 * s2**2 - np.pi * wave * defocus * s2
    found = np.sqrt(1 - alpha**2) * np.sin(chi) - alpha * np.cos(chi)
    return factor * found * np.exp(-bfactor * s2)


@pytest.mark.parametrize("phase_shift_rad", [0.0, 0.6, 1.5, 2.9], ids="phase shift {:g}".format)
@pytest.mark.parametrize("sign", ["relion", "opposite"])
def test_by_aspires_formula_the_filters_are_relions_ctf(phase_shift_rad, sign):
    made = with_envelope(particles(phase_shift_rad=phase_shift_rad))
    filters, index = aspire_filters(ParticleValues.of(made, "ASPIRE"), ImageModelOptions(sign=sign))
    expected = cb.ctf_images(made, precision="double", sign=sign).numpy()
    for row in range(N):
        found = made.ctf.scale[row] * by_the_formula(filters[index[row]], *frequencies(made, row))
        assert relative(found, expected[row]) < 1e-12


def test_particles_of_one_ctf_share_a_filter():
    made = particles(groups=1)
    made = made.take(np.array([0, 1, 0, 0, 1]))
    filters, index = aspire_filters(ParticleValues.of(made, "ASPIRE"), ImageModelOptions())
    assert len(filters) == 2 and len(set(index[[0, 2, 3]])) == 1
