"""Datasets of cryosparc-tools as particle sets; the package itself is in `test_installed.py`."""

from __future__ import annotations

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.adaptors import from_cryosparc_tools


class Columns:
    """The columns of a `.cs` file as a Dataset gives them: texts are objects."""

    def __init__(self, path):
        self.rows = np.load(path)

    def fields(self):
        return list(self.rows.dtype.names)

    def __getitem__(self, name):
        column = self.rows[name]
        return column.astype(str).astype(object) if column.dtype.kind == "S" else column


@pytest.fixture
def project(demo_project):
    return demo_project.particles_cs.parent.parent


def test_a_dataset_becomes_the_set_that_its_file_becomes(demo_project, project):
    dataset = Columns(demo_project.particles_cs)
    found, expected = from_cryosparc_tools(dataset, project), cb.read(demo_project.particles_cs, join=False)
    assert found.to_pandas().equals(expected.to_pandas())
    assert set(found.extra.names) == set(expected.extra.names)
    kept = found.poses.matrix.copy()
    dataset.rows["alignments3D/pose"] = 0  # what becomes of the dataset does not matter
    np.testing.assert_array_equal(found.poses.matrix, kept)


def test_it_goes_on_to_files_with_all_columns(demo_project, project, tmp_path):
    particles = from_cryosparc_tools(Columns(demo_project.particles_cs), project)
    cb.write(particles.take(np.array([3, 1])), tmp_path / "some.cs")
    original, written = np.load(demo_project.particles_cs), np.load(tmp_path / "some.cs")
    for name in original.dtype.names:
        if name != "blob/path":
            np.testing.assert_array_equal(written[name], original[name][[3, 1]])
    cb.write(particles, tmp_path / "all.star")
    again = cb.read(tmp_path / "all.star")
    np.testing.assert_allclose(again.poses.matrix, particles.poses.matrix, atol=1e-6)


def test_its_images_are_looked_for_from_the_project(demo_project, project):
    particles = from_cryosparc_tools(Columns(demo_project.particles_cs), project)
    assert cb.backproject(particles, box_px=16).density.shape == (16, 16, 16)


def test_conditions_see_its_columns(demo_project, project):
    particles = from_cryosparc_tools(Columns(demo_project.particles_cs), project)
    chosen = cb.select(particles, where="ctf/df1_A < 15000")
    assert 0 < len(chosen) < len(particles)


@pytest.mark.parametrize("given", [3, {"uid": [1]}, "J4"], ids=["a number", "a dictionary", "a name"])
def test_what_is_no_dataset_is_refused(given):
    with pytest.raises(cb.CryobridgeError, match="a Dataset of cryosparc-tools is needed"):
        from_cryosparc_tools(given)
