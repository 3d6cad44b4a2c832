"""Jobs that RELION made: continued, continued twice from different iterations, and watched while they run."""

import threading

import pytest
from interop.relion import Relion, read_star, write_star
from interop.relion_jobs import class_2d, continue_2d, noisy_particles

import cryobridge as cb
from cryobridge.formats.relion.job import read_relion_job
from cryobridge.jobs.converge.follow import Follower
from cryobridge.jobs.converge.watch import watch

pytestmark = pytest.mark.relion


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    relion = Relion(tmp_path_factory.mktemp("project"))
    star = noisy_particles(relion).star
    job = class_2d(relion, star, n_iterations=4)
    return relion, job


def sources(report):
    return [row.source.name.removesuffix("_data.star") for row in report.iterations]


# What is said of the classes of so few noisy particles may be true.
OF_CLASSES = {"distribution-differs", "class-empty", "class-dominates", "classes-collapse"}


def codes(messages):
    return [message.code for message in messages if message.code not in OF_CLASSES]


def test_a_job_is_read_without_warnings_and_a_continued_one_by_its_newest_branch(job):
    relion, name = job
    folder = relion.folder / name
    report = cb.converge(folder, plots=False)
    assert sources(report) == [f"run_it{number:03d}" for number in range(1, 5)]
    assert codes(report.messages) == []
    found = read_relion_job(folder)
    assert (found.kind, found.status, found.problems) == ("Class2D", "success", ())
    # RELION counts the particles that changed class too.
    for row in report.iterations[1:]:
        assert row.changed_percent == pytest.approx(row.relion.changed_percent, abs=1e-3)

    continue_2d(relion, name, 4, n_iterations=6)
    report = cb.converge(folder, plots=False)
    assert sources(report) == [f"run_it{n:03d}" for n in (1, 2, 3)] + [f"run_ct4_it{n:03d}" for n in (4, 5, 6)]
    assert codes(report.messages) == []
    assert read_relion_job(folder).problems == ()

    continue_2d(relion, name, 2, n_iterations=4)
    report = cb.converge(folder, plots=False)
    assert sources(report) == ["run_it001"] + [f"run_ct2_it{n:03d}" for n in (2, 3, 4)]
    (message,) = [message for message in report.messages if message.code == "iterations-superseded"]
    assert "Iteration 3 of run and iterations 4 to 6 of run_ct4 are of another branch" in message.text
    assert read_relion_job(folder).last.data.name == "run_ct2_it004_data.star"


def test_the_classes_that_particles_had_in_an_earlier_job_do_not_count(job):
    relion, _ = job
    tables = read_star(relion.folder / "particles.star")
    tables["particles"]["rlnClassNumber"] = [1 + row % 20 for row in range(len(tables["particles"]))]
    write_star(relion.folder / "classified.star", tables)
    name = class_2d(relion, "classified.star", n_classes=2, n_iterations=1)
    kept = read_star(relion.folder / name / "run_it000_data.star")["particles"]["rlnClassNumber"]
    assert kept.max() == 20  # RELION leaves them in iteration 0
    report = cb.converge(relion.folder / name, plots=False)
    assert sources(report) == ["run_it001"]
    assert len(report.classes) == 2
    assert codes(report.messages) == []


def test_a_job_is_watched_while_relion_runs_it(job):
    relion, _ = job
    name = "Class2D/job020"  # of a number that the pipeliner gives to none
    (relion.folder / name).mkdir(parents=True)
    words = ["--o", f"{name}/run", "--i", "particles.star", "--iter", 5, "--K", 2, "--ctf", "--particle_diameter", 108]
    more = ["--psi_step", 40, "--offset_range", 3, "--offset_step", 4, "--pad", 1, "--pool", 10, "--random_seed", 1]
    thread = threading.Thread(target=relion.run, args=("relion_refine", *words, *more, "--flatten_solvent"))
    follower = Follower(relion.folder / name, settle_s=0.5)
    thread.start()
    try:
        looks = list(watch(follower, None, 0.5, 60))
    finally:
        thread.join()
    assert [number for look in looks for number in look.new] == [1, 2, 3, 4, 5]
    assert looks[-1].end == "Iteration 5 is the job's last one."
