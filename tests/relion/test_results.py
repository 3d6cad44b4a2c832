"""Classes and latent coordinates in STAR files, through RELION's own programs."""

import numpy as np
import pytest
from interop.relion import Relion

import cryobridge as cb

pytestmark = pytest.mark.relion

N = 60


@pytest.fixture(scope="module")
def relion(tmp_path_factory):
    return Relion(tmp_path_factory.mktemp("relion"))


@pytest.fixture(scope="module")
def labelled(relion):
    """Simulated particles with results that came in another order; what they are, row by row."""
    relion.simulate(n_images=N)
    rng = np.random.default_rng(2)
    latent, cluster, order = rng.normal(size=(N, 2)).astype("f4"), rng.integers(0, 3, N), rng.permutation(N)
    particles = cb.read(relion.folder / "simulated.star")
    results = particles.with_columns(latent=latent[order], cluster=cluster[order], row=order)
    cb.write(results, relion.folder / "labelled.star")
    return latent, cluster


def test_relion_chooses_by_the_class_and_keeps_the_coordinates(relion, labelled):
    latent, cluster = labelled
    words = ("--select", "rlnClassNumber", "--minval", 3, "--maxval", 3)
    relion.run("relion_star_handler", "--i", "labelled.star", "--o", "third.star", *words)
    found = cb.read(relion.folder / "third.star")
    assert found.cluster.tolist() == [2] * int((cluster == 2).sum())
    np.testing.assert_allclose(found.latent, latent[cluster == 2], atol=1e-6)


def test_relion_refines_particles_that_have_coordinates_and_keeps_them(relion, labelled):
    latent, _ = labelled
    (relion.folder / "Class2D").mkdir()
    words = "--o Class2D/run --K 1 --iter 1 --tau2_fudge 2 --particle_diameter 60 --skip_align --ctf --flatten_solvent"
    relion.run("relion_refine", "--i", "labelled.star", *words.split(), "--j", 1)
    found = cb.read(relion.folder / "Class2D" / "run_it001_data.star")
    expected = {
        int(index): each
        for index, each in zip(cb.read(relion.folder / "labelled.star").images.index, latent, strict=True)
    }
    for index, each in zip(found.images.index.tolist(), found.latent, strict=True):
        np.testing.assert_allclose(each, expected[index], atol=1e-6)
