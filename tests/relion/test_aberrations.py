"""Aberrations that went through cryoSPARC's columns, as RELION's own programs apply them."""

import mrcfile
import numpy as np
import pytest
from interop.maps import correlation, lowest_fsc
from interop.relion import CORRELATION_LOSS, FSC, OpticsGroup, Relion, read_star, write_star

import cryobridge as cb

pytestmark = pytest.mark.relion
# Each term is about a radian at the edge; none is another's sum.
EVEN = "[0.3,15,-2,-12,200,-15,-6,10,250]"
# With the terms of a beam tilt, and a linear one, which is a shift.
ODD = "[3,-4,60,2,3,-80]"
LINEAR = {"rlnBeamTiltX": 0.4, "rlnBeamTiltY": -0.3, "rlnOddZernike": "[3,-4,60,0,0,-80]"}
MAGNIFICATION = {"rlnMagMat00": 1.06, "rlnMagMat01": 0.06, "rlnMagMat10": 0.01, "rlnMagMat11": 0.95}


@pytest.mark.parametrize(
    "terms",
    [
        {"rlnEvenZernike": EVEN},
        {"rlnOddZernike": ODD},
        LINEAR,
        {"rlnEvenZernike": EVEN, "rlnOddZernike": ODD, **MAGNIFICATION},
    ],
    ids=["even", "odd", "beam tilt", "all"],
)
def test_relion_reconstructs_the_same_after_cryosparcs_columns(tmp_path, terms):
    relion = Relion(tmp_path)
    simulated = relion.simulate((OpticsGroup(terms=terms),), n_images=160)
    cb.convert(tmp_path / simulated.star, tmp_path / "p.cs", contrast="bright")
    cb.convert(tmp_path / "p.cs", tmp_path / "again.star", link_stacks=tmp_path / "links")
    original, again = relion.reconstruct(simulated.star), relion.reconstruct("again.star")
    assert lowest_fsc(again, original) >= FSC
    assert correlation(again, simulated.volume) >= correlation(original, simulated.volume) - CORRELATION_LOSS


def test_without_them_it_is_another_map(tmp_path):
    relion = Relion(tmp_path)
    simulated = relion.simulate((OpticsGroup(terms={"rlnEvenZernike": EVEN}),), n_images=160)
    cb.convert(tmp_path / simulated.star, tmp_path / "p.cs", contrast="bright", aberrations=False)
    cb.convert(tmp_path / "p.cs", tmp_path / "again.star", link_stacks=tmp_path / "links")
    assert lowest_fsc(relion.reconstruct("again.star"), relion.reconstruct(simulated.star)) < FSC


# Of cryoSPARC's columns, each about a radian at the edge.
TILT_A, TREFOIL_A, TETRA_A = (30000.0, -45000.0), (90000.0, 60000.0), (3e6, -5e6, 8e6, 1.6e7)
PIXEL_A, WAVE_A, CS_A, CONTRAST = 2.0, 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5)), 2.7e7, 0.1


def with_cryosparcs_phases(projections, particles):
    """Multiply projections by the CTF of cryoSPARC's public source, which measures its azimuth from +y."""
    n = projections.shape[-1]
    ky, kx = np.meshgrid(np.fft.fftfreq(n, PIXEL_A), np.fft.rfftfreq(n, PIXEL_A), indexing="ij")
    k, theta = np.hypot(kx, ky), np.arctan2(kx, ky)
    odd = -2 * np.pi * WAVE_A**2 * k**2 * (TILT_A[0] * kx + TILT_A[1] * ky)
    trefoil = TREFOIL_A[0] * np.sin(3 * theta) + TREFOIL_A[1] * np.cos(3 * theta)
    odd += 2 * np.pi / 3 * WAVE_A**2 * k**3 * trefoil
    two = -TETRA_A[0] * np.cos(2 * theta) + TETRA_A[1] * np.sin(2 * theta)
    four = TETRA_A[2] * np.cos(4 * theta) - TETRA_A[3] * np.sin(4 * theta)
    same = WAVE_A**3 * k**4 * (2 * np.pi * two + np.pi / 2 * four)
    same += np.pi / 2 * CS_A * WAVE_A**3 * k**4 - np.arcsin(CONTRAST)
    bent = np.empty_like(projections)
    for row, values in enumerate(particles.to_dict("records")):
        u, v = values["rlnDefocusU"], values["rlnDefocusV"]
        # The anchor of the azimuth: astigmatism, of which all programs say the same.
        defocus = (u + v) / 2 - (u - v) / 2 * np.cos(2 * (theta + np.radians(values["rlnDefocusAngle"])))
        even = same - np.pi * WAVE_A * defocus * k**2 - np.radians(values["rlnPhaseShift"])
        factor = -np.sin(even) * np.exp(-1j * odd)
        bent[row] = np.fft.irfft2(np.fft.rfft2(projections[row]) * factor, s=(n, n))
    return bent


def test_relion_fits_what_is_written_of_cryosparcs_columns(tmp_path):
    relion = Relion(tmp_path)
    simulated = relion.simulate(n_images=120)
    relion.run(
        "relion_project", "--i", "simulated_group1_truth.mrc", "--ang", "simulated_group1_in.star", "--o", "plain",
        "--angpix", PIXEL_A,
    )  # fmt: skip
    tables = read_star(tmp_path / simulated.star)
    images = with_cryosparcs_phases(mrcfile.read(tmp_path / "plain.mrcs"), tables["particles"])
    with mrcfile.open(tmp_path / "simulated_group1.mrcs", mode="r+") as file:
        file.data[:] = images
    cb.convert(tmp_path / simulated.star, tmp_path / "p.cs", contrast="bright")
    columns = np.load(tmp_path / "p.cs")
    columns["ctf/tilt_A"], columns["ctf/trefoil_A"], columns["ctf/tetra_A"] = TILT_A, TREFOIL_A, TETRA_A
    np.save(tmp_path / "p.npy", columns)
    (tmp_path / "p.npy").rename(tmp_path / "p.cs")
    cb.convert(tmp_path / "p.cs", tmp_path / "written.star", link_stacks=tmp_path / "links")
    # RELION's own fit, which begins without any, against the truth.
    shells = np.arange(33)
    curve = {f"rlnFourierShellCorrelation{kind}": 0.999 for kind in ("Corrected", "UnmaskedMaps", "MaskedMaps")}
    of_shells = {"rlnSpectralIndex": shells, "rlnResolution": shells / (64 * PIXEL_A)}
    write_star(tmp_path / "fsc.star", {"fsc": of_shells | {name: [value] * 33 for name, value in curve.items()}})
    relion.run(
        "relion_ctf_refine", "--i", simulated.star, "--f", "fsc.star", "--o", "fit/",
        "--m1", "simulated_group1_truth.mrc", "--m2", "simulated_group1_truth.mrc",
        "--fit_beamtilt", "--odd_aberr_max_n", 3, "--kmin_tilt", 20, "--fit_aberr", "--kmin_aberr", 20,
    )  # fmt: skip
    written = read_star(tmp_path / "written.star")["optics"].iloc[0]
    fitted = read_star(tmp_path / "fit" / "particles_ctf_refine.star")["optics"].iloc[0]
    for name in ("rlnBeamTiltX", "rlnBeamTiltY"):
        assert fitted[name] == pytest.approx(written[name], rel=1e-3)
    for name in ("rlnOddZernike", "rlnEvenZernike"):
        ours, theirs = (np.array(row[name].strip("[]").split(","), float) for row in (written, fitted))
        np.testing.assert_allclose(theirs, ours, atol=0.01 * np.abs(ours).max())
