"""Sets that RELION's own program expanded by symmetry, collapsed again."""

import numpy as np
import pytest
from interop.relion import OpticsGroup, Relion, read_star, write_star

import cryobridge as cb

pytestmark = pytest.mark.relion
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def expanded(folder, symmetry):
    relion = Relion(folder)
    simulated = relion.simulate((OpticsGroup(),), n_images=12)
    relion.run("relion_particle_symmetry_expand", "--i", simulated.star, "--o", "expanded.star", "--sym", symmetry)
    return read_star(folder / simulated.star), read_star(folder / "expanded.star"), simulated.star


@pytest.mark.parametrize(("symmetry", "n_copies"), [("C4", 4), ("D2", 4), ("I1", 60)])
def test_the_first_copies_are_the_particles_as_they_were(tmp_path, symmetry, n_copies):
    original, copies, *names = expanded(tmp_path, symmetry)
    assert len(copies["particles"]) == 12 * n_copies
    report = cb.select_files(tmp_path / "expanded.star", tmp_path / "one.star", collapse=True, first=True)
    assert report.left_out == {"other copies of a particle": 12 * (n_copies - 1)}
    found = read_star(tmp_path / "one.star")["particles"]
    assert found["rlnImageName"].tolist() == original["particles"]["rlnImageName"].tolist()
    matrices = [cb.read(tmp_path / name).poses.matrix for name in (names[0], "one.star")]
    assert np.allclose(*matrices, atol=1e-5)


def test_the_likeliest_copy_stays_and_is_counted_where_it_is_turned(tmp_path):
    _, copies, _ = expanded(tmp_path, "C4")
    table = copies["particles"]
    likeliest = np.arange(12) % 4
    table["rlnMaxValueProbDistribution"] = np.where(np.arange(48) % 4 == np.repeat(likeliest, 4), 0.9, 0.2)
    write_star(tmp_path / "refined.star", copies)
    report = cb.select_files(tmp_path / "refined.star", tmp_path / "one.star", collapse=True)
    found = read_star(tmp_path / "one.star")["particles"]
    expected = table.iloc[np.arange(12) * 4 + likeliest]
    assert np.allclose(found[ANGLES].to_numpy(), expected[ANGLES].to_numpy())
    assert report.collapsed.by == "rlnMaxValueProbDistribution"
    assert report.collapsed.other_copies == 9
