"""Aberrations that went through cryoSPARC's columns, as RELION's own programs apply them."""

import pytest
from interop.maps import correlation, lowest_fsc
from interop.relion import CORRELATION_LOSS, FSC, OpticsGroup, Relion

import cryobridge as cb

pytestmark = pytest.mark.relion
# Each term is about a radian at the edge; none is another's sum.
EVEN = "[0.3,4,-2,3,20,-15,-6,10,25]"
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
