"""Aberrations between the programs: phases of both programs' formulas, evaluated at the same frequencies."""

import pickle

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


def test_the_azimuth_of_cryosparcs_source_is_anchored_by_its_astigmatism():
    kx, ky = frequencies()
    theta, phi, angle = np.arctan2(kx, ky), np.arctan2(ky, kx), 0.3
    usual = np.cos(2 * (phi - angle))
    np.testing.assert_allclose(-np.cos(2 * (theta + angle)), usual, atol=1e-12)
    assert np.abs(-np.cos(2 * (phi + angle)) - usual).max() > 1


def frequencies():
    rng = np.random.default_rng(0)
    return rng.uniform(-0.4, 0.4, (2, 50))


def wavelength():
    # h / sqrt(2 m e V (1 + e V / (2 m c^2))), in Å
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    volts = VOLTAGE_KV * 1e3
    return 1e10 * h / np.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c**2)))


def cryosparc_phases(kx, ky):
    """Odd phase, with the sign by which images are multiplied, and even one, in the azimuth of cryoSPARC's source."""
    wave, k, theta = wavelength(), np.hypot(kx, ky), np.arctan2(kx, ky)
    chi = -2 * np.pi * wave**2 * k**2 * (TILT_A[0] * kx + TILT_A[1] * ky)
    chi += 2 * np.pi / 3 * wave**2 * k**3 * (TREFOIL_A[0] * np.sin(3 * theta) + TREFOIL_A[1] * np.cos(3 * theta))
    even = -2 * np.pi * wave**3 * TETRA_A[0] * k**4 * np.cos(2 * theta)
    even += 2 * np.pi * wave**3 * TETRA_A[1] * k**4 * np.sin(2 * theta)
    even += np.pi / 2 * wave**3 * TETRA_A[2] * k**4 * np.cos(4 * theta)
    even -= np.pi / 2 * wave**3 * TETRA_A[3] * k**4 * np.sin(4 * theta)
    return -chi, even


def zernike(m, n, kx, ky):
    k, phi = np.hypot(kx, ky), np.arctan2(ky, kx)
    radial = {(1, 1): k, (3, 3): k**3, (1, 3): 3 * k**3 - 2 * k, (0, 0): k**0, (2, 2): k**2, (0, 2): 2 * k**2 - 1}
    radial |= {(4, 4): k**4, (2, 4): 4 * k**4 - 3 * k**2, (0, 4): 6 * k**4 - 6 * k**2 + 1}
    return radial[abs(m), n] * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi))


def relion_phases(optics, kx, ky, cs_mm=CS_MM):
    """Odd and even phase as RELION computes them, with the beam tilt that it adds to the coefficients."""
    tilts = [float(optics.get(f"rlnBeamTilt{axis}", 0)) for axis in "XY"]
    z = [-cs_mm * 2e4 * np.pi * wavelength() ** 2 * tilt / 3 for tilt in tilts]
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
    straight(save_cs(tmp_path / "a.cs", bent()), tmp_path / "p.star")
    (optics,) = optics_of(tmp_path / "p.star")
    kx, ky = frequencies()
    for expected, found in zip(cryosparc_phases(kx, ky), relion_phases(optics, kx, ky), strict=True):
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for name in ("rlnOddZernike", "rlnEvenZernike"):
        assert " " not in optics[name] and optics[name].startswith("[")


def test_the_magnification_undoes_cryosparcs(tmp_path):
    straight(save_cs(tmp_path / "a.cs", bent()), tmp_path / "p.star")
    (optics,) = optics_of(tmp_path / "p.star")
    matrix = np.array([float(optics[f"rlnMagMat{place}"]) for place in ("00", "01", "10", "11")]).reshape(2, 2)
    np.testing.assert_allclose(matrix @ (np.eye(2) + np.reshape(ANISOMAG, (2, 2))), np.eye(2), atol=1e-7)


def test_they_are_left_out_only_if_that_is_asked_for_with_a_warning(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    report = straight(source, tmp_path / "p.star", aberrations=False)
    assert {"ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag"} <= set(report.dropped_columns)
    assert not any(
        "Zernike" in name or "MagMat" in name or "Tilt" in name for name in optics_of(tmp_path / "p.star")[0]
    )
    (message,) = [item for item in report.warnings if item.code == "aberrations-left-out"]
    assert message.option == "aberrations"
    assert "beam tilt, trefoil, tetrafoil, anisotropic magnification" in str(message)


def test_the_sign_of_the_odd_terms_is_chosen_and_said(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    kx, ky = frequencies()
    odd, even = cryosparc_phases(kx, ky)
    for choice, sign in (("as-derived", 1), ("reversed", -1), ("drop", 0)):
        report = straight(source, tmp_path / f"{choice}.star", odd_aberrations=choice, verify=True)
        (optics,) = optics_of(tmp_path / f"{choice}.star")
        found = relion_phases({"rlnOddZernike": "[0,0,0,0,0,0]", **optics}, kx, ky)
        np.testing.assert_allclose(found[0], sign * odd, atol=1e-4 * np.abs(odd).max())
        np.testing.assert_allclose(found[1], even, atol=1e-4 * np.abs(even).max())
        (message,) = [item for item in report.warnings if item.option == "odd_aberrations"]
        assert message.code == ("odd-aberrations-sign" if sign else "aberrations-left-out")
        assert ("relion_ctf_refine" in str(message)) == bool(sign)
    straight(tmp_path / "reversed.star", tmp_path / "b.cs", odd_aberrations="reversed")
    np.testing.assert_allclose(np.load(tmp_path / "b.cs")["ctf/tilt_A"][0], TILT_A, rtol=1e-5)


def test_a_beam_tilt_without_cs_is_written_as_zernike_terms(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent(**{"ctf/cs_mm": np.array([0.0, 0.001, 2.7, 2.7], "f4")}))
    straight(source, tmp_path / "p.star")
    kx, ky = frequencies()
    for optics, cs_mm in zip(optics_of(tmp_path / "p.star"), (0, 0.001, 2.7), strict=True):
        assert "rlnBeamTiltX" not in optics
        odd, _ = cryosparc_phases(kx, ky)
        found = relion_phases(optics, kx, ky, cs_mm)
        np.testing.assert_allclose(found[0], odd, atol=1e-4 * np.abs(odd).max())
    report = straight(tmp_path / "p.star", tmp_path / "b.cs")
    np.testing.assert_allclose(np.load(tmp_path / "b.cs")["ctf/tilt_A"], [TILT_A] * 4, rtol=1e-5)
    assert not np.load(tmp_path / "b.cs")["ctf/shift_A"].any()
    assert not any("subtracted" in text for text in texts(report.messages))


def read_star_shifts(path):
    labels, rows, _ = read_block(path.read_text(), "particles")
    x, y = labels.index("rlnOriginXAngst"), labels.index("rlnOriginYAngst")
    return np.array([[float(row[x]), float(row[y])] for row in rows])


SHIFT_A = np.array([[0.22, -0.07], [0.22, -0.07], [0.1, 0.15], [0.1, 0.15]], "f4")


@pytest.fixture
def shifted(tmp_path):
    rng = np.random.default_rng(0)
    pose = {"alignments3D/pose": rng.normal(size=(4, 3)).astype("f4"), "alignments3D/psize_A": np.full(4, 1.5, "f4")}
    shift = {"alignments3D/shift": rng.normal(size=(4, 2)).astype("f4"), "ctf/shift_A": SHIFT_A}
    source = save_cs(tmp_path / "a.cs", particle_columns(["J1/a.mrcs"] * 4, range(4)) | pose | shift)
    return source, 1.5 * shift["alignments3D/shift"].astype(float)


def test_the_shift_by_aberrations_is_subtracted_and_named(shifted, tmp_path):
    source, of_pose = shifted
    report = straight(source, tmp_path / "p.star", verify=True)
    found = read_star_shifts(tmp_path / "p.star")
    np.testing.assert_allclose(found, of_pose - SHIFT_A, atol=2e-6)
    assert any("up to 0.22 Å" in text and "subtracted" in text for text in texts(report.notes))
    assert "ctf/shift_A" not in report.dropped_columns
    convert([source], tmp_path / "pickles", to="pickles", verify=True)
    with (tmp_path / "pickles" / "poses.pkl").open("rb") as file:
        fraction = pickle.load(file)[1]
    np.testing.assert_allclose(fraction * 16 * 1.5, of_pose - SHIFT_A, atol=1e-6)


def test_the_shift_by_aberrations_stays_in_cryosparcs_files(shifted, tmp_path):
    source, _ = shifted
    straight(source, tmp_path / "b.cs", verify=True)
    for name in ("ctf/shift_A", "alignments3D/shift"):
        np.testing.assert_allclose(np.load(tmp_path / "b.cs")[name], np.load(source)[name], rtol=1e-6)


def test_pickles_have_no_place_for_them_and_that_is_warned_of(tmp_path):
    report = convert([save_cs(tmp_path / "a.cs", bent())], tmp_path / "pickles", to="pickles")
    (message,) = [item for item in report.warnings if item.code == "aberrations-dropped"]
    assert "beam tilt, trefoil, tetrafoil, anisotropic magnification: not zero" in str(message)


def test_zeros_write_no_column_and_never_a_singular_matrix(tmp_path):
    widths = {"tilt_A": 2, "anisomag": 4, "shift_A": 2}
    zeros = {f"ctf/{name}": np.zeros((4, width), "f4") for name, width in widths.items()}
    columns = particle_columns(["J1/a.mrcs"] * 4, range(4)) | zeros
    report = straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    assert not any("MagMat" in name or "Tilt" in name for name in optics_of(tmp_path / "p.star")[0])
    assert not zeros.keys() & set(report.dropped_columns)
    only_tilt = bent(**zeros | {"ctf/tilt_A": bent()["ctf/tilt_A"]})
    straight(save_cs(tmp_path / "b.cs", only_tilt), tmp_path / "q" / "p.star")
    assert "rlnMagMat00" not in optics_of(tmp_path / "q" / "p.star")[0]


def test_a_magnification_of_nothing_is_refused(tmp_path):
    columns = bent(**{"ctf/anisomag": np.tile(np.array([-1, 0, 0, -1], "f4"), (4, 1))})
    with pytest.raises(FormatError, match="singular"):
        straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")


def test_each_exposure_group_keeps_its_own(tmp_path):
    columns = bent()
    columns["ctf/exp_group_id"] = np.array([1, 1, 2, 2], "u4")
    columns["ctf/tilt_A"][2:] = 0
    straight(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    first, second = optics_of(tmp_path / "p.star")
    # Cs × sin(tilt) is 8100 Å for Cs 2.7 mm: 0.3 mrad.
    assert float(first["rlnBeamTiltX"]) == pytest.approx(-0.3, rel=1e-6)
    assert float(second["rlnBeamTiltX"]) == 0


def test_they_come_back(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    straight(source, tmp_path / "p.star")
    straight(tmp_path / "p.star", tmp_path / "b.cs")
    before, after = np.load(source), np.load(tmp_path / "b.cs")
    for name in ("tilt_A", "trefoil_A", "tetra_A"):
        np.testing.assert_allclose(after[f"ctf/{name}"], before[f"ctf/{name}"], rtol=1e-5)
    np.testing.assert_allclose(after["ctf/anisomag"], before["ctf/anisomag"], atol=1e-6)
    report = straight(tmp_path / "p.star", tmp_path / "c.cs", aberrations=False)
    assert not np.load(tmp_path / "c.cs")["ctf/tilt_A"].any()
    assert {"rlnBeamTiltX", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00"} <= set(report.dropped_columns)


def test_values_that_are_no_numbers_are_refused(tmp_path):
    columns = bent()
    columns["ctf/tilt_A"][2, 1] = np.nan
    source = save_cs(tmp_path / "a.cs", columns)
    with pytest.raises(FormatError, match="beam tilt: not a number, or infinite") as caught:
        straight(source, tmp_path / "p.star")
    assert (caught.value.rows, caught.value.field) == ((2,), "ctf/tilt_A")
    star = tmp_path / "p.star"
    star.write_text(STAR.format(matrix="1 0 0 1", odd="[0,0,nan,0,0,0]"))
    with pytest.raises(FormatError, match="trefoil: not a number, or infinite"):
        straight(star, tmp_path / "b.cs")


def test_a_real_file_has_none_and_says_so_of_what_is_put_into_it(reference_data, tmp_path):
    """cryoSPARC's own file of 7 particles of EMPIAR-10076, whose columns are all 0."""
    source = reference_data / "real" / "empiar_10076_7.cs"
    report = straight(source, tmp_path / "p.star", verify=True)
    assert not any("aberration" in item.code for item in report.messages)
    assert not set(optics_of(tmp_path / "p.star")[0]) & {"rlnBeamTiltX", "rlnOddZernike", "rlnEvenZernike"}
    columns = np.load(source)
    columns["ctf/shift_A"], columns["ctf/tetra_A"], columns["ctf/tilt_A"] = (0.22, -0.07), TETRA_A, TILT_A
    np.save(tmp_path / "a.npy", columns)
    bent_file = (tmp_path / "a.npy").rename(tmp_path / "a.cs")
    report = straight(bent_file, tmp_path / "q.star", verify=True)
    assert {"odd-aberrations-sign", "aberration-shift-left-out"} <= {item.code for item in report.warnings}
    assert "phase with aberrations" in {item.quantity for item in report.verified}
    assert float(optics_of(tmp_path / "q.star")[0]["rlnBeamTiltX"]) == pytest.approx(-0.3, rel=1e-5)


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
    assert not {item.code for item in report.messages} & {"aberrations-dropped", "zernike-terms-folded"}


def test_what_only_relion_has_is_warned_of(tmp_path):
    source = tmp_path / "p.star"
    source.write_text(STAR.format(matrix="1 0 0 1", odd="[0,0,0.3,0,0,0.6,0.1]"))
    said = "Zernike terms of higher orders: not zero, and left out"
    assert any(said in text for text in texts(straight(source, tmp_path / "q.cs").warnings))
    assert not any(said in text for text in texts(straight(source, tmp_path / "q.star").warnings))


def test_one_beam_tilt_in_two_places_is_warned_of(tmp_path):
    source = tmp_path / "p.star"
    text = STAR.format(matrix="1 0 0 1", odd="[0,0,0,0,3,0]")
    source.write_text(text.replace("_rlnMagMat00", "_rlnBeamTiltX"))
    assert any("3.1 has the tilt alone" in text for text in texts(straight(source, tmp_path / "q.cs").warnings))


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


def test_the_options_on_the_command_line(tmp_path):
    source = save_cs(tmp_path / "a.cs", bent())
    for words, is_written, said in (
        (["--aberrations"], True, "give --odd-aberrations reversed where"),
        (["--odd-aberrations", "reversed"], True, "give --odd-aberrations as-derived where that has the other sign"),
        (["--odd-aberrations", "drop"], False, "as --odd-aberrations drop says"),
        (["--no-aberrations"], False, "as --no-aberrations says"),
    ):
        result = run("convert", source, "-o", tmp_path / "p.star", *words, "--overwrite")
        assert result.returncode == 0, result.stderr
        assert said in result.stderr
        assert ("rlnOddZernike" in optics_of(tmp_path / "p.star")[0]) == is_written
