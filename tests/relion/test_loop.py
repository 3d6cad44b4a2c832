"""Picks of cryoSPARC, extracted and classified by RELION's own programs, come back to cryoSPARC's file."""

import mrcfile
import numpy as np
import pytest
from interop.relion import Relion, read_star
from interop.relion_jobs import run_job
from pandas.testing import assert_frame_equal

import cryobridge as cb
from cryobridge.demo import loop, simulate_project

pytestmark = pytest.mark.relion

N_CLASSES, N_ITERATIONS = 4, 3


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The demo project with the picks of coords; its list of jobs is one of RELION 4, which 3.1 does not read."""
    project = simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=3, particles_per_micrograph=30)
    cb.coords(project.group_csg, project.micrographs_star, project.relion / loop.PICKS).require()
    (project.relion / "default_pipeline.star").unlink()
    return project


def uids_at(project, rows):
    """The uids of the picks that rows of RELION lie on, by the truth: rows of its micrographs are reversed."""
    particles, names = project.truth.particles, project.truth.micrographs.name
    picked = zip(particles.micrograph.tolist(), *particles.pick_px.T.tolist(), particles.uid.tolist(), strict=True)
    at = {(names[micrograph], x, y): uid for micrograph, x, y, uid in picked}
    stems = rows["rlnMicrographName"].str.rsplit("/", n=1).str[-1].str.removesuffix("_fractions.mrc")
    x, y = rows["rlnCoordinateX"].astype(int), 768 - rows["rlnCoordinateY"].astype(int)
    return {at[place] for place in zip(stems, x, y, strict=True)}


def test_the_loop_closes_by_relions_own_programs(project, tmp_path):
    relion = Relion(project.relion)
    extract = run_job(
        relion,
        "Extract",
        {
            "star_mics": project.micrographs_star.relative_to(project.relion),
            "coords_suffix": f"{loop.PICKS}/coords_suffix_autopick.star",
            "extract_size": project.box_px,
        },
    )
    options = {
        "fn_img": f"{extract}/particles.star",
        "nr_classes": N_CLASSES,
        "nr_iter": N_ITERATIONS,
        "particle_diameter": 110,
        "psi_sampling": 30,
        "offset_range": 3,
        "offset_step": 2,
        "nr_pool": 10,
        "other_args": "--random_seed 1",
    }
    job = project.relion / run_job(relion, "Class2D", options)
    rows = read_star(job / f"run_it{N_ITERATIONS:03d}_data.star")["particles"]
    counts = rows["rlnClassNumber"].value_counts()
    chosen = tuple(int(number) for number in counts.index[:2])
    good = cb.select_files(job, tmp_path / "good.star", classes=chosen)
    assert 0 < good.rows_out < len(rows)
    report = cb.select_files(project.particles_cs, tmp_path / "good.cs", like=tmp_path / "good.star")
    assert (report.matched.by, report.rows_out) == ("place", good.rows_out)
    # By the coordinates of the truth, which no matcher has seen.
    expected = uids_at(project, rows[rows["rlnClassNumber"].isin(chosen)])
    assert set(np.load(tmp_path / "good.cs")["uid"].tolist()) == expected
    assert len(expected) == good.rows_out


def test_the_simulated_extract_is_what_relion_makes(tmp_path):
    project = simulate_project(tmp_path / "demo", n_micrographs=2, particles_per_micrograph=20)
    cb.coords(project.group_csg, project.micrographs_star, project.relion / loop.PICKS).require()
    stacks = sorted((project.extracted_star.parent / "Movies").iterdir())
    simulated, images = read_star(project.extracted_star), [mrcfile.read(path) for path in stacks]
    assert loop.extract(project) == []
    made = read_star(project.extracted_star)
    assert_frame_equal(made["optics"], simulated["optics"], check_dtype=False)
    # Its own columns of picks, which have scores, are more.
    columns = list(simulated["particles"])
    assert set(made["particles"]) - set(columns) == {"rlnAutopickFigureOfMerit", "rlnClassNumber", "rlnAnglePsi"}
    assert_frame_equal(made["particles"][columns], simulated["particles"], check_dtype=False)
    for path, before in zip(stacks, images, strict=True):
        np.testing.assert_allclose(mrcfile.read(path), before, atol=1e-5)
