"""Aberrations between the programs: phases of both programs' formulas, evaluated at the same frequencies."""

import numpy as np
import pytest

from cryobridge.errors import FormatError
from cryobridge.jobs.convert.convert import convert
from helpers import particle_columns, run, save_cs, texts
from relion_grammar import read_block

VOLTAGE_KV, CS_MM = 300.0, 2.7
TILT_A, TREFOIL_A, TETRA_A = (8100.0, -2700.0), (1.2e4, -7e3), (9e6, -4e6, 2.5e6, 6e6)
ANISOMAG = (0.02, -0.004, 0.006, -0.01)


def bent(n=4, **changes):
    columns = particle_columns(["J1/a.mrcs"] * n, range(n))
    columns |= {
        "ctf/tilt_A": np.tile(np.array(TILT_A, "f4"), (n, 1)),
        "ctf/trefoil_A": np.tile(np.array(TREFOIL_A, "f4"), (n, 1)),
        "ctf/tetra_A": np.tile(np.array(TETRA_A, "f4"), (n, 1)),
        "ctf/anisomag": np.tile(np.array(ANISOMAG, "f4"), (n, 1)),
    }
    return {**columns, **changes}


def straight(source, output, **options):
    return convert([source], output, to=output.suffix[1:], **options)


def optics_of(path):
    labels, rows, _ = read_block(path.read_text(), "optics")
    return [dict(zip(labels, row, strict=True)) for row in rows]


def frequencies():
    rng = np.random.default_rng(0)
    return rng.uniform(-0.4, 0.4, (2, 50))


def wavelength():
    # h / sqrt(2 m e V (1 + e V / (2 m c^2))), in Å
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    volts = VOLTAGE_KV * 1e3
    return 1e10 * h / np.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c**2)))


def cryosparc_phases(kx, ky):
    """Odd and even phase as cryoSPARC computes them."""
    wave, k, phi = wavelength(), np.hypot(kx, ky), np.arctan2(ky, kx)
    odd = -2 * np.pi * wave**2 * k**2 * (TILT_A[0] * kx + TILT_A[1] * ky)
    odd += 2 * np.pi / 3 * wave**2 * k**3 * (TREFOIL_A[0] * np.sin(3 * phi) + TREFOIL_A[1] * np.cos(3 * phi))
    even = -2 * np.pi * wave**3 * TETRA_A[0] * k**4 * np.cos(2 * phi)
    even += 2 * np.pi * wave**3 * TETRA_A[1] * k**4 * np.sin(2 * phi)
    even += np.pi / 2 * wave**3 * TETRA_A[2] * k**4 * np.cos(4 * phi)
    even -= np.pi / 2 * wave**3 * TETRA_A[3] * k**4 * np.sin(4 * phi)
    return odd, even


def zernike(m, n, kx, ky):
    k, phi = np.hypot(kx, ky), np.arctan2(ky, kx)
    radial = {(1, 1): k, (3, 3): k**3, (1, 3): 3 * k**3 - 2 * k, (0, 0): k**0, (2, 2): k**2, (0, 2): 2 * k**2 - 1}
    radial |= {(4, 4): k**4, (2, 4): 4 * k**4 - 3 * k**2, (0, 4): 6 * k**4 - 6 * k**2 + 1}
    return radial[abs(m), n] * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi))


def relion_phases(optics, kx, ky):
    """Odd and even phase as RELION computes them, with the beam tilt that it adds to the coefficients."""
    z = [-CS_MM * 2e4 * np.pi * wavelength() ** 2 * float(optics[f"rlnBeamTilt{axis}"]) / 3 for axis in "XY"]
    odd = np.array([float(value) for value in optics["rlnOddZernike"].strip("[]").split(",")])
    odd += np.array([2 * z[1], 2 * z[0], 0, z[1], z[0], 0])
    even = [float(value) for value in optics["rlnEvenZernike"].strip("[]").split(",")]
    odd_terms = [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), (3, 3)]
    even_terms = [(0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), (-2, 4), (0, 4), (2, 4), (4, 4)]
    return [
        sum(c * zernike(m, n, kx, ky) for c, (m, n) in zip(coefficients, terms, strict=True))
        for coefficients, terms in ((odd, odd_terms), (even, even_terms))
    ]


def test_both_programs_see_the_same_phases(tmp_path):
    straight(save_cs(tmp_path / "a.cs", bent()), tmp_path / "p.star", aberrations=True)
    (optics,) = optics_of(tmp_path / "p.star")
    kx, ky = frequencies()
    for expected, found in zip(cryosparc_phases(kx, ky), relion_phases(optics, kx, ky), strict=True):
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for name in ("rlnOddZernike", "rlnEvenZernike"):
        assert " " not in optics[name] and optics[name].startswith("[")


def test_the_magnification_undoes_cryosparcs(tmp_path):
    straight(save_cs(tmp_path / "a.cs", bent()), tmp_path / "p.star", aberrations=True)
    (optics,) = optics_of(tmp_path / "p.star")
    matrix = np.array([float(optics[f"rlnMagMat{place}"]) for place in ("00", "01", "10", "11")]).reshape(2, 2)
    np.testing.assert_allclose(matrix @ (np.eye(2) + np.reshape(ANISOMAG, (2, 2))), np.eye(2), atol=1e-7)


def test_without_the_option_they_are_named_and_not_written(tmp_path):
    report = straight(save_cs(tmp_path / "a.cs", bent()), tmp_path / "p.star")
    assert {"ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag"} <= set(report.dropped_columns)
    assert not any(
        "Zernike" in name or "MagMat" in name or "Tilt" in name for name in optics_of(tmp_path / "p.star")[0]
    )


def test_zeros_write_no_column_and_never_a_singular_matrix(tmp_path):
    zeros = {f"ctf/{name}": np.zeros((4, width), "f4") for name, width in (("tilt_A", 2), ("anisomag", 4))}
    columns = particle_columns(["J1/a.mrcs"] * 4, range(4)) | zeros
    report = straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star", aberrations=True)
    assert not any("MagMat" in name or "Tilt" in name for name in optics_of(tmp_path / "p.star")[0])
    assert "ctf/anisomag" not in report.dropped_columns
    only_tilt = bent(**zeros | {"ctf/tilt_A": bent()["ctf/tilt_A"]})
    straight(save_cs(tmp_path / "b.cs", only_tilt), tmp_path / "q" / "p.star", aberrations=True)
    assert "rlnMagMat00" not in optics_of(tmp_path / "q" / "p.star")[0]


def test_a_magnification_of_nothing_is_refused(tmp_path):
    columns = bent(**{"ctf/anisomag": np.tile(np.array([-1, 0, 0, -1], "f4"), (4, 1))})
    with pytest.raises(FormatError, match="singular"):
        straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star", aberrations=True)


def test_each_exposure_group_keeps_its_own(tmp_path):
    columns = bent()
    columns["ctf/exp_group_id"] = np.array([1, 1, 2, 2], "u4")
    columns["ctf/tilt_A"][2:] = 0
    straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star", aberrations=True)
    first, second = optics_of(tmp_path / "p.star")
    # Cs × sin(tilt) is 8100 Å for Cs 2.7 mm: 0.3 mrad.
    assert float(first["rlnBeamTiltX"]) == pytest.approx(0.3, rel=1e-6)
    assert float(second["rlnBeamTiltX"]) == 0


def test_they_come_back(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    straight(source, tmp_path / "p.star", aberrations=True)
    straight(tmp_path / "p.star", tmp_path / "b.cs", aberrations=True)
    before, after = np.load(source), np.load(tmp_path / "b.cs")
    for name in ("tilt_A", "trefoil_A", "tetra_A"):
        np.testing.assert_allclose(after[f"ctf/{name}"], before[f"ctf/{name}"], rtol=1e-5)
    np.testing.assert_allclose(after["ctf/anisomag"], before["ctf/anisomag"], atol=1e-6)
    report = straight(tmp_path / "p.star", tmp_path / "c.cs")
    assert not np.load(tmp_path / "c.cs")["ctf/tilt_A"].any()
    assert {"rlnBeamTiltX", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00"} <= set(report.dropped_columns)


STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnImageSize #6
_rlnImageDimensionality #7
_rlnMagMat00 #8
_rlnMagMat01 #9
_rlnMagMat10 #10
_rlnMagMat11 #11
_rlnOddZernike #12
1 300 2.7 0.1 1.5 64 2 {matrix} {odd}

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
000001@a.mrcs 1

"""


def test_aberrations_of_relion_stay_as_they_are_in_relion(tmp_path):
    source = tmp_path / "p.star"
    source.write_text(STAR.format(matrix="1.01 0.002 0.003 0.99", odd="[0.1,0.2,0.3,0.4,0.5,0.6]"))
    report = straight(source, tmp_path / "q.star")
    (optics,) = optics_of(tmp_path / "q.star")
    assert optics["rlnOddZernike"] == "[0.1,0.2,0.3,0.4,0.5,0.6]"
    assert [float(optics[f"rlnMagMat{place}"]) for place in ("00", "01", "10", "11")] == [1.01, 0.002, 0.003, 0.99]
    assert any("cryoSPARC has no column for" in note for note in texts(report.notes))


def test_a_singular_matrix_of_another_converter_becomes_the_identity(tmp_path):
    source = tmp_path / "p.star"
    source.write_text(STAR.format(matrix="0 0 0 0", odd="[0,0,0,0,0,0]"))
    report = straight(source, tmp_path / "q.star")
    (optics,) = optics_of(tmp_path / "q.star")
    assert [float(optics[f"rlnMagMat{place}"]) for place in ("00", "01", "10", "11")] == [1, 0, 0, 1]
    assert any("rlnMagMat is singular" in note for note in texts(report.notes))


def test_coefficients_that_are_no_list_are_refused(tmp_path):
    source = tmp_path / "p.star"
    source.write_text(STAR.format(matrix="1 0 0 1", odd="[0,x]"))
    with pytest.raises(FormatError, match="not a list of numbers"):
        straight(source, tmp_path / "q.star")


def test_the_option_on_the_command_line(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    result = run("convert", source, "-o", tmp_path / "p.star", "--aberrations")
    assert result.returncode == 0, result.stderr
    assert "check the signs" in result.stderr
    assert "rlnOddZernike" in optics_of(tmp_path / "p.star")[0]
