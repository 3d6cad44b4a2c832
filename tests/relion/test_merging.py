"""Merged STAR files, as RELION's own programs read them."""

import numpy as np
import pytest
from interop.relion import OpticsGroup, Relion, read_star, write_star

import cryobridge as cb

pytestmark = pytest.mark.relion

GROUPS = (
    OpticsGroup(48, terms={"rlnBeamTiltX": 3.0, "rlnBeamTiltY": 0.0}),
    OpticsGroup(48, voltage_kV=200.0, terms={"rlnBeamTiltX": 0.0, "rlnBeamTiltY": -4.0}),
)


def test_relion_makes_the_same_map_of_two_sessions_that_are_merged_as_of_the_file_that_it_had(tmp_path):
    """Both sessions call their optics group by the same name and number, as RELION's Import does."""
    relion = Relion(tmp_path)
    simulated = relion.simulate(GROUPS, n_images=60)
    whole = read_star(tmp_path / simulated.star)
    whole["particles"]["rlnRandomSubset"] = np.arange(120) % 2 + 1
    sessions = []
    for number in (1, 2):
        optics = whole["optics"][whole["optics"]["rlnOpticsGroup"].astype(int) == number]
        optics = optics.assign(rlnOpticsGroup=1, rlnOpticsGroupName="opticsGroup1")
        own = whole["particles"][whole["particles"]["rlnOpticsGroup"].astype(int) == number].assign(rlnOpticsGroup=1)
        sessions.append(tmp_path / f"session{number}.star")
        write_star(sessions[-1], {"optics": optics, "particles": own})
    report = cb.merge(sessions, tmp_path / "merged.star")
    assert report.rows_out == 120 and report.half_sets == {"1": 60, "2": 60}
    assert read_star(tmp_path / "merged.star")["optics"]["rlnOpticsGroupName"].tolist() == [
        "opticsGroup1",
        "opticsGroup2",
    ]
    theirs, ours = relion.reconstruct(simulated.star), relion.reconstruct("merged.star")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    # With one group for both, as by the name alone, it is another map.
    rows = read_star(tmp_path / "merged.star")
    rows["particles"]["rlnOpticsGroup"] = 1
    write_star(tmp_path / "one.star", rows)
    assert np.abs(relion.reconstruct("one.star") - theirs).max() > 1e-2 * np.abs(theirs).max()


def test_relion_takes_new_half_sets_of_a_merged_file(tmp_path):
    relion = Relion(tmp_path)
    simulated = relion.simulate(GROUPS[:1], n_images=40)
    rows = read_star(tmp_path / simulated.star)
    parts = []
    for place in (0, 1):
        parts.append(tmp_path / f"part{place}.star")
        write_star(parts[-1], {"optics": rows["optics"], "particles": rows["particles"].iloc[place::2]})
    report = cb.merge(parts, tmp_path / "merged.star", split_halves=1)
    assert report.half_sets == {"1": 20, "2": 20} and report.halves_of == "micrographs"
    whole = relion.reconstruct("merged.star", output="whole.mrc")
    halves = [relion.reconstruct("merged.star", "--subset", half, output=f"half{half}.mrc") for half in (1, 2)]
    assert not np.allclose(halves[0], halves[1])
    np.testing.assert_allclose(whole, relion.reconstruct(simulated.star), rtol=0, atol=1e-4 * np.abs(whole).max())
