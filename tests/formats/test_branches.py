from __future__ import annotations

import os

import pytest

from cryobridge.formats.relion.job import read_relion_job

OPTICS = "\n# version 30001\n\ndata_optics\n"


def run_of(folder, numbers, *, run="run", start=None, written=0):
    """Write the files of iterations as far as they count here; `start` is the optimiser that a run was continued from.

    Each is written a minute after the one before, the first at the minute `written`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = f"{folder.parent.name}/{folder.name}"
    command = f"--o {job}/run --i particles.star" if start is None else f"--continue {job}/{start} --o {job}/{run}"
    for place, number in enumerate(numbers):
        for part in ("optimiser", "model", "data", *(() if place == 0 else ("sampling",))):
            path = folder / f"{run}_it{number:03d}_{part}.star"
            path.write_text(f"# RELION optimiser; version 3.1.3\n# {command} --pool 10\n\n")
            os.utime(path, (0, 1e9 + 60 * (written + place)))


def chain(folder):
    return [item.data.name.removesuffix("_data.star") for item in read_relion_job(folder).chain]


def problems(folder):
    return [message.text for message in read_relion_job(folder).problems]


def names(run, numbers):
    return [f"{run}_it{number:03d}" for number in numbers]


def test_a_job_that_was_continued_once_has_no_problem(tmp_path):
    job = tmp_path / "Class2D/job001"
    run_of(job, range(7))
    run_of(job, range(6, 10), run="run_ct6", start="run_it006_optimiser.star", written=10)
    assert chain(job) == names("run", range(6)) + names("run_ct6", range(6, 10))
    assert problems(job) == []


def test_only_the_branch_that_was_written_last_counts(tmp_path):
    job = tmp_path / "Class2D/job001"
    run_of(job, range(7))
    run_of(job, range(6, 11), run="run_ct6", start="run_it006_optimiser.star", written=10)
    run_of(job, range(3, 9), run="run_ct3", start="run_it003_optimiser.star", written=20)
    assert chain(job) == names("run", range(3)) + names("run_ct3", range(3, 9))
    (problem,) = problems(job)
    assert "Iterations 4, 5 of run and iterations 6 to 10 of run_ct6 are of another branch" in problem
    assert "run_ct3_it008" in problem
    for path in job.iterdir():
        os.utime(path, (0, 1e9))
    # With equal times the highest iteration tells.
    assert chain(job) == names("run", range(6)) + names("run_ct6", range(6, 11))


def test_a_continuation_of_a_continuation_starts_where_the_optimiser_says(tmp_path):
    job = tmp_path / "Class3D/job001"
    run_of(job, range(11))
    run_of(job, range(3, 9), run="run_ct3", start="run_it003_optimiser.star", written=20)
    run_of(job, range(6, 12), run="run_ct6", start="run_ct3_it006_optimiser.star", written=30)
    assert chain(job) == names("run", range(3)) + names("run_ct3", range(3, 6)) + names("run_ct6", range(6, 12))
    # Names alone can't tell this one from the same run continued from the first run.
    run_of(job, range(6, 13), run="run_ct6", start="run_it006_optimiser.star", written=40)
    assert chain(job) == names("run", range(6)) + names("run_ct6", range(6, 13))
    text = " ".join(problems(job))
    assert "Iterations 7 to 10 of run are of another branch" in text
    assert "Iterations 3 to 8 of run_ct3 are of another branch" in text


def test_a_run_that_is_continued_again_under_the_same_names_leaves_its_old_end_out(tmp_path):
    job = tmp_path / "Class2D/job001"
    run_of(job, range(7))
    run_of(job, range(6, 11), run="run_ct6", start="run_it006_optimiser.star", written=10)
    run_of(job, range(3, 8), run="run_ct3", start="run_it003_optimiser.star", written=20)
    run_of(job, range(6, 9), run="run_ct6", start="run_ct3_it006_optimiser.star", written=30)
    assert chain(job) == names("run", range(3)) + names("run_ct3", range(3, 6)) + names("run_ct6", range(6, 9))


def test_a_run_that_was_continued_from_its_own_iterations_ends(tmp_path):
    job = tmp_path / "Class2D/job001"
    run_of(job, range(7))
    run_of(job, range(6, 11), run="run_ct6", start="run_ct6_it006_optimiser.star", written=10)
    assert chain(job) == names("run", range(6)) + names("run_ct6", range(6, 11))


def test_files_of_another_job_are_no_part_of_a_branch(tmp_path):
    job = tmp_path / "Class2D/job002"
    run_of(job, range(6, 9), run="run_ct6", start="run_it006_optimiser.star")
    for path in job.glob("*optimiser.star"):
        path.write_text(path.read_text().replace("--continue Class2D/job002", "--continue Class2D/job001"))
    assert chain(job) == names("run_ct6", range(6, 9))


@pytest.mark.parametrize("run", ["run", "run_ct2"])
def test_a_refinement_has_ended_when_its_final_files_are_there(tmp_path, run):
    job = tmp_path / "Refine3D/job001"
    run_of(job, range(4))
    if run != "run":
        # What a first run ended with is no end of the one that continues it.
        (job / "run_data.star").write_text(OPTICS)
        (job / "run_model.star").write_text(OPTICS)
        assert read_relion_job(job).status == "success"
        run_of(job, range(2, 6), run=run, start="run_it002_optimiser.star", written=10)
    assert read_relion_job(job).status == "unknown"
    (job / f"{run}_data.star").write_text(OPTICS)
    assert read_relion_job(job).status == "unknown"
    (job / f"{run}_model.star").write_text(OPTICS)
    found = read_relion_job(job)
    assert (found.status, found.last.data.name) == ("success", f"{run}_data.star")
    (job / "RELION_JOB_EXIT_FAILURE").touch()
    assert read_relion_job(job).status == "failure"
