"""Optics groups that are made by names, as RELION's own programs read them."""

import numpy as np
import pytest
from interop.relion import OpticsGroup, Relion, read_star, write_star

import cryobridge as cb

pytestmark = pytest.mark.relion

GROUPS = (
    OpticsGroup(48, terms={"rlnBeamTiltX": 3.0, "rlnBeamTiltY": 0.0}),
    OpticsGroup(48, voltage_kV=200.0, terms={"rlnBeamTiltX": 0.0, "rlnBeamTiltY": -4.0}),
)


def test_relion_makes_the_same_map_of_particles_in_other_groups(tmp_path):
    """Positions go across the groups that there were: each keeps the values of its particles."""
    relion = Relion(tmp_path)
    simulated = relion.simulate(GROUPS, n_images=60)
    blocks = read_star(tmp_path / simulated.star)
    blocks["particles"]["rlnMicrographName"] = [
        f"MotionCorr/job002/FoilHole_{n}_Data_5_{n % 3}_20240101_{n:06d}_fractions.mrc" for n in range(120)
    ]
    write_star(tmp_path / "named.star", blocks)
    report = cb.convert(tmp_path / "named.star", tmp_path / "grouped.star", optics_from="epu")
    assert report.optics_groups == 6
    grouped = read_star(tmp_path / "grouped.star")
    assert sorted(grouped["optics"]["rlnOpticsGroupName"])[:2] == ["epu_5_0", "epu_5_0_2"]
    theirs, ours = relion.reconstruct(simulated.star), relion.reconstruct("grouped.star")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    # Values of another group make another map.
    grouped["particles"]["rlnOpticsGroup"] = np.roll(grouped["particles"]["rlnOpticsGroup"], 60)
    write_star(tmp_path / "rolled.star", grouped)
    assert np.abs(relion.reconstruct("rolled.star") - theirs).max() > 1e-2 * np.abs(theirs).max()
