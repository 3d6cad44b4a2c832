"""Particles that RELION extracts again from reversed micrographs: a mirror that leaves a part out is another map.

That the whole mirror is right is a stage of `make interop`, see test_stages.py.
"""

from dataclasses import replace

import numpy as np
import pytest
from interop.extraction import REEXTRACTED_FSC, reversed_project
from interop.maps import lowest_fsc
from interop.relion import Relion, read_images, read_star

from cryobridge.model.particles import ParticleSet

pytestmark = pytest.mark.relion

PARTS = {
    "poses": lambda old, new: replace(new, poses=replace(new.poses, matrix=old.poses.matrix)),
    "shifts": lambda old, new: replace(new, poses=replace(new.poses, shift_A=old.poses.shift_A)),
    "defocus angles": lambda old, new: replace(new, ctf=old.ctf),
    "aberrations": lambda old, new: replace(new, optics=old.optics),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return reversed_project(Relion(tmp_path_factory.mktemp("relion")))


def test_centred_here_the_images_are_those_that_relion_centres(project):
    """On reversed rows: coordinates, shifts and images are the same, whoever moves the whole pixels."""
    project.convert("mirrored", reextract=True)
    theirs = project.extracted("mirrored", "--recenter")
    report = project.convert("centred", recenter=True, verify=True)
    report.require()
    ours = project.extracted("centred")
    assert report.recentring.moved > 0.8 * report.rows_out
    folder = project.relion.folder
    np.testing.assert_array_equal(read_images(folder, ours), read_images(folder, theirs))
    names = ["rlnCoordinateX", "rlnCoordinateY", "rlnOriginXAngst", "rlnOriginYAngst"]
    one, other = (read_star(folder / star)["particles"][names] for star in (ours, theirs))
    np.testing.assert_allclose(one, other, rtol=0, atol=1.1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_mirrored_in_part_it_is_another_map(project, part, monkeypatch):
    right = ParticleSet.mirrored_y
    monkeypatch.setattr(ParticleSet, "mirrored_y", lambda old: PARTS[part](old, right(old)))
    name = f"without_{part.replace(' ', '_')}"
    project.convert(name, reextract=True)
    again = project.relion.reconstruct(project.extracted(name))
    assert lowest_fsc(again, project.original) < REEXTRACTED_FSC
