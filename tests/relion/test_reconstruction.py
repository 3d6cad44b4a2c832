"""Particles that went through cryobridge, as RELION itself reconstructs them."""

import pytest
from interop.maps import correlation, lowest_fsc
from interop.relion import CORRELATION_LOSS, FSC, Relion

import cryobridge as cb

pytestmark = pytest.mark.relion


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    relion = Relion(tmp_path_factory.mktemp("relion"))
    simulated = relion.simulate(n_images=300)
    cb.convert(relion.folder / simulated.star, relion.folder / "particles.cs")
    return relion, simulated, relion.reconstruct(simulated.star)


def test_the_simulation_has_its_hand(original):
    _, simulated, volume = original
    assert correlation(volume, simulated.volume) > 0.99
    assert correlation(volume, simulated.mirrored) < 0.7


@pytest.mark.parametrize("layout", ["3.0", "3.1", "5"])
def test_relion_reconstructs_the_same_after_cryosparcs_files(original, layout):
    relion, simulated, volume = original
    star = f"layout_{layout}.star"
    cb.convert(relion.folder / "particles.cs", relion.folder / star, relion=layout, link_stacks=relion.folder / "links")
    again = relion.reconstruct(star)
    assert lowest_fsc(again, volume) >= FSC
    assert correlation(again, simulated.volume) >= correlation(volume, simulated.volume) - CORRELATION_LOSS
