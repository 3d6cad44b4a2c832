"""The CTF against what RELION's programs compute of it."""

import mrcfile
import numpy as np
import pytest
from interop.relion import OpticsGroup, Relion, write_star, write_volume

import cryobridge as cb

pytestmark = pytest.mark.relion
# RELION reads the pixel size in single precision, which holds this one exactly.
N, PIXEL_A = 128, 1.25
EVEN = {"rlnEvenZernike": "[0.3,15,-2,-12,200,-15,-6,10,250]"}
ODD = {"rlnOddZernike": "[3,-4,60,0,0,-80]", "rlnBeamTiltX": 0.4, "rlnBeamTiltY": -0.3}
MAGNIFICATION = {"rlnMagMat00": 1.03, "rlnMagMat01": 0.02, "rlnMagMat10": -0.01, "rlnMagMat11": 0.98}


def particles_star(folder, n, terms=None, **columns):
    rng = np.random.default_rng(1)
    defocus = rng.uniform(9000, 25000, n)
    particles = {
        "rlnImageName": [f"{row + 1:06d}@images.mrcs" for row in range(n)],
        "rlnDefocusU": defocus,
        "rlnDefocusV": defocus - rng.uniform(-900, 900, n),
        "rlnDefocusAngle": rng.uniform(-90, 90, n),
        "rlnPhaseShift": rng.uniform(0, 90, n),
        "rlnAngleRot": 0.0,
        "rlnAngleTilt": 0.0,
        "rlnAnglePsi": 0.0,
        "rlnOriginXAngst": 0.0,
        "rlnOriginYAngst": 0.0,
        "rlnOpticsGroup": 1,
        **columns,
    }
    optics = OpticsGroup(N, PIXEL_A, terms=terms or {}).row(1)
    write_star(folder / "p.star", {"optics": {name: [value] for name, value in optics.items()}, "particles": particles})
    return folder / "p.star"


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_it_is_the_ctf_that_relion_ctf_toolbox_simulates(tmp_path):
    columns = {"rlnDefocusU": [14500.0], "rlnDefocusV": [13900.0], "rlnDefocusAngle": [37.0], "rlnPhaseShift": [25.0]}
    star = particles_star(tmp_path, 1, **columns)
    Relion(tmp_path).run(
        "relion_ctf_toolbox", "--simulate", "ctf.mrc", "--angpix", PIXEL_A, "--box", N, "--kV", 300, "--Q0", 0.1,
        "--Cs", 2.7, "--defU", 14500, "--defV", 13900, "--defAng", 37, "--phase_shift", 25,
    )  # fmt: skip
    expected = mrcfile.read(tmp_path / "ctf.mrc")
    found = cb.ctf_images(cb.read(star), N, layout="full", centred=True, precision="double")[0].numpy()
    np.testing.assert_allclose(found[1:, 1:], expected[1:, 1:], atol=1e-6)
    assert found[N // 2, N // 2] == pytest.approx(np.sin(np.radians(25) + np.arcsin(0.1)))
    opposite = cb.ctf_images(cb.read(star), N, layout="full", centred=True, precision="double", sign="opposite")
    np.testing.assert_array_equal(opposite[0].numpy(), -found)


@pytest.mark.parametrize("terms", [{}, EVEN, EVEN | MAGNIFICATION], ids=["plain", "even", "magnification"])
def test_it_is_what_relion_project_multiplies_a_delta_by(tmp_path, terms):
    rng = np.random.default_rng(2)
    damping = {"rlnCtfBfactor": rng.uniform(0, 60, 5), "rlnCtfScalefactor": rng.uniform(0.5, 1, 5)}
    star = particles_star(tmp_path, 5, terms, **damping)
    delta = np.zeros((N, N, N))
    delta[(N // 2,) * 3] = 1
    write_volume(tmp_path / "delta.mrc", delta, PIXEL_A)
    relion = Relion(tmp_path)
    for name, ctf in (("with", ["--ctf"]), ("without", [])):
        relion.run("relion_project", "--i", "delta.mrc", "--ang", "p.star", "--o", name, "--angpix", PIXEL_A, *ctf)
    with_ctf, without = (np.fft.rfft2(mrcfile.read(tmp_path / f"{name}.mrcs")) for name in ("with", "without"))
    ky, kx = np.meshgrid(np.fft.fftfreq(N), np.fft.rfftfreq(N), indexing="ij")
    inside = np.hypot(kx, ky) < 0.45
    expected = (with_ctf / without).real[:, inside]
    found = cb.ctf_images(cb.read(star)).numpy()[:, inside]
    assert relative(found, expected) < 1e-4
