"""`convert --onto` with RELION's own Extract: boxes that lie elsewhere, on micrographs that lie otherwise.

RELION reconstructs what it extracted with the poses that it was given, and the map is that of the images of before.
"""

from dataclasses import replace

import numpy as np
import pytest
from interop.extraction import reversed_project
from interop.maps import correlation, lowest_fsc
from interop.relion import FSC, Relion

import cryobridge as cb
from cryobridge.jobs.convert import onto
from cryobridge.model.convention import AS_STORED, Convention

pytestmark = pytest.mark.relion

# Boxes that are two pixels beside lose as many at their edge.
MOVED_FSC = 0.98
CONVENTIONS = {
    "stored": AS_STORED,
    "rows reversed": Convention(mirror_y=True),
    "columns reversed, axes exchanged": Convention(mirror_x=True, mirror_y=False, swap_xy=True),
}
EVERYTHING = ("poses", "ctf", "half_sets", "aberrations")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return reversed_project(Relion(tmp_path_factory.mktemp("relion")))


@pytest.fixture(scope="module")
def extracted(project):
    moved_px = np.random.default_rng(3).integers(-2, 3, (300, 2))
    return {
        name: project.extracted_elsewhere(f"moved{place}", convention, moved_px, 0.4)
        for place, (name, convention) in enumerate(CONVENTIONS.items())
    }


def given(project, base, name):
    folder = project.relion.folder
    return cb.convert(
        folder / "particles.cs", folder / name, onto=folder / base, take=EVERYTHING, within_A=20, verify=True
    )


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_map_is_that_of_the_images_of_before(project, extracted, name):
    output = f"{name.replace(' ', '_').replace(',', '')}.star"
    report = given(project, extracted[name], output)
    assert report.onto.matched.by == "place" and report.onto.rows_without_partner == 0
    assert report.onto.offset_largest_A == pytest.approx(np.hypot(2, 2) * 2.0, abs=1e-3)
    again = project.relion.reconstruct(output)
    assert lowest_fsc(again, project.original) > MOVED_FSC
    assert correlation(again, project.truth(project.simulated.volume)) > 0.99
    assert correlation(again, project.truth(project.simulated.mirrored)) < 0.6


@pytest.mark.parametrize("fault", ["boxes taken as equal", "offsets subtracted", "boxes not cut at whole pixels"])
def test_with_other_shifts_it_is_another_map(project, extracted, fault, monkeypatch):
    right = onto.frame_of
    factor = {"boxes taken as equal": 0, "offsets subtracted": -1, "boxes not cut at whole pixels": 1}[fault]
    less_A = 0.4 * 2.0 if factor == 1 else 0.0

    def wrong(*words):
        frame = right(*words)
        return replace(frame, offset_A=factor * frame.offset_A + less_A)

    monkeypatch.setattr(onto, "frame_of", wrong)
    output = f"wrong{factor}.star"
    given(project, extracted["stored"], output)
    assert lowest_fsc(project.relion.reconstruct(output), project.original) < 0.95


def test_and_back_onto_the_rows_of_cryosparc(project, extracted, tmp_path):
    folder = project.relion.folder
    given(project, extracted["rows reversed"], "relions.star")
    # As cryoSPARC's Extract leaves them: images, CTF and places, but no poses.
    particles = cb.read(folder / "particles.cs")
    columns = {"poses": None, "half_set": None, "class_number": None}
    cb.write(particles.replace(**columns), folder / "bare.cs")
    report = cb.convert(
        folder / "relions.star", folder / "back.cs", onto=folder / "bare.cs", take=("poses", "half_sets"), within_A=20
    )
    assert report.onto.matched.by == "place" and report.rows_out == 300
    cb.convert(folder / "back.cs", folder / "back.star")
    again, before = (project.relion.reconstruct(star) for star in ("back.star", project.simulated.star))
    assert lowest_fsc(again, before) > FSC
