"""Back from RELION: particles that its Extract cut anew, and moved, are found again in cryoSPARC's file by place."""

import numpy as np
import pytest
from interop.relion import Relion, read_star, write_star

import cryobridge as cb
from cryobridge.demo import simulate_project
from helpers import codes

pytestmark = pytest.mark.relion

MICROGRAPHS = "CtfFind/job003/micrographs_ctf.star"
_SHIFT_PX = 4


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The demo project, with the particles that RELION's Extract cut at the picks of coords from its own micrographs.

    These have reversed rows; a third of the picks is left out, and rows are in another order than cryoSPARC's.
    """
    project = simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=3, particles_per_micrograph=30)
    relion = Relion(project.relion)
    cb.select(project.particles_cs, random=60, seed=3, output=project.cryosparc / "J4/some.cs")
    cb.coords(project.cryosparc / "J4/some.cs", project.micrographs_star, project.relion / "Picks")
    (project.relion / "default_pipeline.star").unlink()
    relion.run(
        "relion_preprocess", "--i", MICROGRAPHS, "--coord_dir", "Picks/",
        "--coord_suffix", "_autopick.star", "--part_star", "Extract/job005/particles.star",
        "--part_dir", "Extract/job005/", "--extract", "--extract_size", project.box_px,
    )  # fmt: skip
    return project, relion


def uids_of(path):
    return set(np.load(path)["uid"].tolist())


def test_good_particles_of_relion_go_back_to_cryosparc(extracted, tmp_path):
    project, _ = extracted
    star = project.relion / "Extract/job005/particles.star"
    report = cb.select_files(project.particles_cs, tmp_path / "good.cs", like=star)
    assert (report.matched.by, report.rows_out) == ("place", 60)
    assert uids_of(tmp_path / "good.cs") == uids_of(project.cryosparc / "J4/some.cs")
    # coords counts rows from the edge, one pixel more than those that are reversed.
    assert report.matched.places.largest_A == pytest.approx(project.pixel_size_A, abs=1e-3)
    assert report.matched.places.axes == "x = nx·fx, y = ny − 1 − ny·fy"
    # Extract leaves out the pixel size of the micrographs.
    assert "micrograph-pixel-size-assumed" in codes(report.notes)


@pytest.mark.parametrize("recentre", [True, False])
def test_particles_that_relion_centred_are_found_by_their_shifts(extracted, tmp_path, recentre):
    # As after a classification: each particle has a shift; RELION moves whole pixels of it into the coordinates.
    project, relion = extracted
    tables = read_star(project.relion / "Extract/job005/particles.star")
    rng = np.random.default_rng(recentre)
    n = len(tables["particles"])
    shift_A = rng.uniform(-_SHIFT_PX, _SHIFT_PX, (n, 2)) * project.pixel_size_A
    chosen = np.sort(rng.permutation(n)[: n // 2])
    shifted = tables["particles"].assign(rlnAnglePsi=0, rlnOriginXAngst=shift_A[:, 0], rlnOriginYAngst=shift_A[:, 1])
    before = {**tables, "particles": shifted}
    write_star(project.relion / "before.star", before)
    write_star(project.relion / "class.star", {**tables, "particles": shifted.iloc[chosen]})
    star = "class.star"
    if recentre:
        relion.run(
            "relion_preprocess", "--i", MICROGRAPHS, "--reextract_data_star", "class.star", "--part_dir",
            "Extract/job009/", "--part_star", "Extract/job009/particles.star", "--extract", "--extract_size",
            project.box_px, "--recenter",
        )  # fmt: skip
        star = "Extract/job009/particles.star"
        moved = read_star(project.relion / star)["particles"]
        assert (np.abs(moved["rlnOriginXAngst"]) <= project.pixel_size_A).all()
    # From RELION to RELION: by shifts the same particles are at the same place, to the last digit.
    report = cb.select_files(
        project.relion / "before.star", tmp_path / "again.star", like=project.relion / star, within_A=1.0
    )
    if recentre:  # the other has the images of the same job
        assert report.matched.by == "place"
        assert report.matched.places.shifts == "both"
        assert report.matched.places.largest_A < 1e-3
    kept = read_star(tmp_path / "again.star")["particles"]
    assert kept["rlnImageName"].tolist() == shifted["rlnImageName"].iloc[chosen].tolist()
    # To cryoSPARC, whose boxes are where the particles were picked: RELION's shifts say how far they were moved.
    back = cb.select_files(project.particles_cs, tmp_path / "good.cs", like=project.relion / star, within_A=12.0)
    assert back.rows_out == len(chosen)
    assert uids_of(tmp_path / "good.cs") <= uids_of(project.cryosparc / "J4/some.cs")
