"""Our small maps against those of RELION's own reconstruction, of the same STAR files."""

import mrcfile
import numpy as np
import pytest
from interop.maps import correlation, lowest_fsc
from interop.relion import FSC, OpticsGroup, Relion, read_star, write_star

import cryobridge as cb
from cryobridge.demo.physics import demo_molecule

pytestmark = pytest.mark.relion
N, PIXEL_A = 64, 2.0
# Each about a radian at the edge: what a set may have besides defocus, astigmatism and phase shift.
TERMS = {
    "rlnEvenZernike": "[0.3,15,-2,-12,200,-15,-6,10,250]",
    "rlnOddZernike": "[3,-4,60,0,0,-80]",
    "rlnBeamTiltX": 0.4,
    "rlnBeamTiltY": -0.3,
    "rlnMagMat00": 1.06,
    "rlnMagMat01": 0.06,
    "rlnMagMat10": 0.01,
    "rlnMagMat11": 0.95,
}


def ours(folder, star):
    return cb.backproject(folder / star, box_px=N, device="cpu").density.numpy()


def test_the_map_of_a_star_file_is_that_of_relion_reconstruct(tmp_path):
    relion = Relion(tmp_path, n_gridding=10)
    simulated = relion.simulate(n_images=600)
    found, theirs = ours(tmp_path, simulated.star), relion.reconstruct(simulated.star)
    assert lowest_fsc(found, theirs) >= FSC
    assert correlation(found, simulated.volume) > correlation(theirs, simulated.volume) - 0.001


def images_with_all_terms(particles, matrix):
    """Projections of the molecule at true frequencies, times the complex CTF, moved by the shifts; from its formula."""
    molecule = demo_molecule()
    position_A, sigma_A = molecule.position_A / 2, molecule.sigma_A[:, np.newaxis] / 2
    ky, kx = np.meshgrid(np.fft.fftfreq(N, PIXEL_A), np.fft.rfftfreq(N, PIXEL_A), indexing="ij")
    true = matrix @ np.array([kx.ravel(), ky.ravel()])
    blobs = molecule.weight[:, np.newaxis] * np.exp(-2 * np.pi**2 * sigma_A**2 * (true**2).sum(0))
    spectra = np.empty((len(particles), *kx.shape), complex)
    for row, (axes, shift_A) in enumerate(zip(particles.poses.matrix[:, :2], particles.poses.shift_A, strict=True)):
        places_A = position_A @ axes.T
        projection = (blobs * np.exp(-2j * np.pi * places_A @ true)).sum(0).reshape(kx.shape)
        spectra[row] = projection * np.exp(2j * np.pi * (kx * shift_A[0] + ky * shift_A[1]))
    spectra *= cb.ctf_images(particles, aberrations="all", precision="double").numpy()
    return np.fft.fftshift(np.fft.irfft2(spectra, s=(N, N)), axes=(1, 2)).astype(np.float32)


def test_with_aberrations_and_anisotropic_magnification_it_is_too(tmp_path):
    # relion_project takes neither odd terms nor the magnification of the projection, relion_reconstruct all: that it
    # finds the molecule in images with our complex CTF shows that this is RELION's.
    relion = Relion(tmp_path, n_gridding=10)
    simulated = relion.simulate((OpticsGroup(terms=TERMS),), n_images=600)
    particles = cb.read(tmp_path / simulated.star)
    with mrcfile.open(tmp_path / "simulated_group1.mrcs", mode="r+") as file:
        file.data[:] = images_with_all_terms(particles, np.array([[1.06, 0.06], [0.01, 0.95]]))
    found, theirs = ours(tmp_path, simulated.star), relion.reconstruct(simulated.star)
    assert lowest_fsc(theirs, simulated.volume, 0.7) > 0.998
    assert lowest_fsc(found, theirs) >= FSC
    tables = read_star(tmp_path / simulated.star)
    write_star(tmp_path / "bare.star", tables | {"optics": tables["optics"].drop(columns=[*TERMS])})
    assert lowest_fsc(ours(tmp_path, "bare.star"), theirs) < 0.9


def test_images_that_relion_multiplied_by_their_ctf_make_the_same_map(tmp_path):
    relion = Relion(tmp_path, n_gridding=10)
    simulated = relion.simulate(n_images=600)
    relion.run("relion_ctf_toolbox", "--i", simulated.star, "--o", "pre")
    star = "simulated_pre.star"
    tables = read_star(tmp_path / star)
    # The program does not say so in the file, as relion_preprocess does.
    write_star(tmp_path / star, tables | {"optics": tables["optics"].assign(rlnCtfDataAreCtfPremultiplied=1)})
    found = ours(tmp_path, star)
    assert lowest_fsc(found, relion.reconstruct(star)) >= 0.997
    assert lowest_fsc(found, simulated.volume) >= 0.997
    write_star(tmp_path / star, tables)  # as if they were not
    assert lowest_fsc(ours(tmp_path, star), simulated.volume) < 0.9


def test_what_relion_reconstructs_alike_verify_map_sees_alike(tmp_path):
    relion = Relion(tmp_path)
    simulated = relion.simulate((OpticsGroup(terms=TERMS),), n_images=120)
    first = cb.convert(tmp_path / simulated.star, tmp_path / "p.cs", contrast="bright", verify_map=120)
    again = cb.convert(tmp_path / "p.cs", tmp_path / "q.star", link_stacks=tmp_path / "links", verify_map=120)
    assert min(first.map_check.lowest, again.map_check.lowest) > 0.9999
    assert lowest_fsc(relion.reconstruct("q.star"), relion.reconstruct(simulated.star)) >= FSC
