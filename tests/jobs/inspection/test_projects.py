from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from cryobridge.errors import UsageError
from cryobridge.formats import projects
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.jobs.inspection.plots import build_figure
from helpers import noise_images, run, save_mrc, save_star, texts


def job_json(folder, **content):
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"output_results": [], **content}))
    return folder


def jobs_of(folder):
    project = projects.read_project(list_folder(folder))
    return {job.name: (job.job_type, job.status, job.title) for job in project.jobs}


def test_a_cryosparc_project_lists_its_jobs_by_number(tmp_path):
    for number, status in ((10, "running"), (9, "completed"), (2, "failed")):
        job_json(tmp_path / f"J{number}", job_type="class_2D", status=status, title=f"try {number}")
    job_json(tmp_path / "J11", spec={"type": "homo_refine_new", "outputs": {}}, status="completed")
    (tmp_path / "J3").mkdir()
    (tmp_path / "raw").mkdir()
    assert list(jobs_of(tmp_path).items()) == [
        ("J2", ("class_2D", "failed", "try 2")),
        ("J3", ("", "", "")),
        ("J9", ("class_2D", "completed", "try 9")),
        ("J10", ("class_2D", "running", "try 10")),
        ("J11", ("homo_refine_new", "completed", "")),
    ]


def test_one_damaged_job_does_not_hide_the_others(tmp_path):
    job_json(tmp_path / "J1", job_type="class_2D", status="completed")
    (job_json(tmp_path / "J2") / "job.json").write_text('{"job_type": "cla')
    found = inspect(tmp_path)
    assert list(dict(found.facts)) == ["jobs", "J1", "J2", "next"]
    (problem,) = texts(found.warnings)
    assert "J2/job.json" in problem


def test_of_many_jobs_the_last_are_listed_and_the_others_counted(tmp_path):
    for number in range(1, 101):
        (tmp_path / f"J{number}").mkdir()
    found = inspect(tmp_path)
    facts = dict(found.facts)
    listed = [name for name in facts if name.startswith("J")]
    assert (listed[0], listed[-1], len(listed)) == ("J61", "J100", 40)
    assert facts["jobs"] == "100"
    assert facts["…"] == "and 60 more, with lower numbers"
    assert (found.details["n_jobs"], len(found.details["jobs"])) == (100, 40)


@pytest.mark.parametrize(
    ("states", "alias", "expected"),
    [
        ({"StatusLabel": ["Succeeded", "Failed", "Running"]}, "None", ["success", "failure", "running"]),
        ({"Status": [2, 3, 1]}, "None", ["success", "failure", "scheduled"]),
        ({}, "Class3D/first_try/", ["", "aborted", ""]),
    ],
)
def test_a_relion_project_lists_its_jobs_with_their_state(states, alias, expected, tmp_path):
    names = ["Extract/job005", "Class3D/job012", "Refine3D/job020"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    # Where the pipeline does not tell, what RELION leaves in the folder does.
    (tmp_path / "Class3D/job012/RELION_JOB_EXIT_ABORTED").touch()
    (tmp_path / "Class3D/first_try").symlink_to(tmp_path / "Class3D/job012")
    columns = {"Name": [f"{name}/" for name in names], "Alias": ["None", alias, "None"], **states}
    save_star(
        tmp_path / "default_pipeline.star",
        "pipeline_processes",
        {f"rlnPipeLineProcess{name}": values for name, values in columns.items()},
    )
    jobs = jobs_of(tmp_path)
    assert list(jobs) == names
    assert [status for _, status, _ in jobs.values()] == expected
    assert [job_type for job_type, _, _ in jobs.values()] == ["Extract", "Class3D", "Refine3D"]
    assert jobs["Class3D/job012"][2] == ("first_try" if alias != "None" else "")


def test_jobs_of_the_pipeline_that_are_not_there_are_counted(tmp_path):
    (tmp_path / "Class3D/job012").mkdir(parents=True)
    names = {"rlnPipeLineProcessName": ["Class3D/job012/", "Refine3D/job020/"]}
    save_star(tmp_path / "default_pipeline.star", "pipeline_processes", names)
    assert texts(inspect(tmp_path).warnings) == ["1 of the 2 jobs of default_pipeline.star are not in this folder"]


def test_the_next_step_is_one_that_works(demo_project):
    for place in (demo_project.folder, demo_project.cryosparc, demo_project.relion):
        found = json.loads(run("inspect", "--json", place).stdout)[0]
        assert found["next"][:2] == ["cryobridge", "inspect"]
        assert " ".join(found["next"]) == found["facts"]["next"]
        assert run(*found["next"][1:]).returncode == 0
    assert inspect(demo_project.cryosparc).details["next"][-1] == str(demo_project.refinement)


def test_a_folder_of_the_whole_demo_names_its_projects(demo_project):
    facts = dict(inspect(demo_project.folder).facts)
    assert facts["cryosparc/"] == "cryoSPARC project, 4 jobs"
    assert facts["relion/"].startswith("RELION project")


def test_links_named_like_jobs_make_no_project_of_a_folder(demo_project):
    stacks = demo_project.relion / "Extract" / "J3"
    stacks.mkdir(parents=True, exist_ok=True)
    assert "Extract/" not in dict(inspect(demo_project.relion).facts)


def test_downsampled_stacks_are_reported_by_their_title_and_files(particles_cs, tmp_path):
    out = tmp_path / "out"
    assert run("stacks", "downsample", particles_cs, "-D", 8, "-o", out).returncode == 0
    facts = dict(inspect(out).facts)
    assert facts["made"] == "J1_particles.cs downsampled"
    assert facts["files"].startswith("particles.8.star, particles.8.mrcs")
    assert run(*shlex.split(facts["next"])[1:]).returncode == 0


def test_what_is_found_from_here_is_named_from_here(demo_project):
    found = json.loads(run("inspect", "--json", ".", cwd=demo_project.cryosparc).stdout)[0]
    assert found["kind"] == "cryosparc project"
    assert [job["path"] for job in found["jobs"]] == ["J1", "J2", "J3", "J4"]


def test_a_folder_of_images_says_what_files_it_has(tmp_path):
    for number in range(3):
        save_mrc(tmp_path / "J3" / "extract" / f"{number}.mrc", noise_images(2, 8), 1.5)
    found = inspect(tmp_path / "J3")
    assert (found.kind, dict(found.facts)["extract/"]) == ("folder", "3 .mrc")
    inner = inspect(tmp_path / "J3" / "extract")
    assert dict(inner.facts)["files"] == "0.mrc, 1.mrc, 2.mrc"
    assert inner.details["files"] == {".mrc": 3}
    # A project's job without a description is told by its files.
    assert dict(inspect(tmp_path).facts)["J3"] == "extract/: 3 .mrc"


def test_a_project_serves_no_job_and_has_no_picture(demo_project):
    done = run("inspect", "--check", "coords", demo_project.cryosparc)
    assert done.returncode == 3
    with pytest.raises(UsageError, match="whole project"):
        inspect(demo_project.relion, rows=1)
    with pytest.raises(UsageError, match="no picture"):
        build_figure(demo_project.cryosparc)


def relion_project(folder, states):
    """A project whose jobs have no exit files but those that a test adds."""
    for name in states:
        (folder / name).mkdir(parents=True)
        save_star(folder / name / "run_it001_data.star", "particles", {"rlnImageName": ["1@a.mrcs"]})
    columns = {"Name": [f"{name}/" for name in states], "Status": list(states.values())}
    save_star(
        folder / "default_pipeline.star",
        "pipeline_processes",
        {f"rlnPipeLineProcess{name}": values for name, values in columns.items()},
    )
    return folder


@pytest.mark.parametrize(
    ("listed", "marker", "expected"),
    [
        (0, "", "running"),
        (1, "", "scheduled"),
        (0, "SUCCESS", "success"),
        (1, "FAILURE", "failure"),
        (3, "", "failure"),
        (2, "ABORTED", "success"),
    ],
)
def test_a_job_stands_the_same_however_it_is_reached(listed, marker, expected, tmp_path, monkeypatch):
    project = relion_project(tmp_path / "project", {"Class2D/job004": listed, "Extract/job002": 2})
    job = project / "Class2D/job004"
    if marker:
        (job / f"RELION_JOB_EXIT_{marker}").touch()
    (project / "Class2D/first_try").symlink_to("job004")
    (tmp_path / "latest").symlink_to(job)
    (tmp_path / "elsewhere").symlink_to(project / "Class2D")
    assert jobs_of(project)["Class2D/job004"][1] == expected
    assert dict(inspect(project / "Class2D").facts)["job004/"] == f"RELION job, {expected}"
    ways = [job, project / "Class2D/first_try", tmp_path / "latest", tmp_path / "elsewhere/job004"]
    ways += [project / "Extract/job002/../../Class2D/job004", tmp_path / "latest/../../Extract/../Class2D/job004"]
    for place in (job, project / "Extract/job002", tmp_path / "latest"):
        monkeypatch.chdir(place)
        for path in (*ways, Path("../../Class2D/job004"), Path("../../Extract/../Class2D/first_try")):
            found = inspect(path)
            assert (found.title, dict(found.facts)["status"]) == ("RELION job Class2D", expected)
            assert Path(dict(found.facts)["project"]).samefile(project)
            assert dict(inspect(path / "run_it001_data.star").facts)["job"] == f"Class2D, {expected}"
    monkeypatch.chdir(job)
    assert dict(inspect(".").facts)["status"] == expected
    assert dict(inspect("run_it001_data.star").facts)["job"] == f"Class2D, {expected}"


def test_a_job_whose_folder_lies_on_another_disk_is_of_its_project(tmp_path, monkeypatch):
    project = relion_project(tmp_path / "project", {"Class2D/job004": 0})
    (project / "Class2D/job004").rename(tmp_path / "scratch")
    (project / "Class2D/job004").symlink_to(tmp_path / "scratch")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for way in ("../project", "../here/../project"):
        facts = dict(inspect(Path(way) / "Class2D/job004").facts)
        assert facts["status"] == "running"
        assert Path(facts["project"]).samefile(project)


def test_an_extract_job_that_found_nothing_has_no_particles(tmp_path):
    job = tmp_path / "Extract/job002"
    path = save_star(job / "particles.star", "optics", {"rlnOpticsGroup": [1], "rlnImagePixelSize": [4.0]})
    (job / "RELION_JOB_EXIT_SUCCESS").touch()
    (problem,) = texts(inspect(job).warnings)
    assert problem.startswith("particles.star: it has optics groups and no particles")
    found = inspect(path)
    assert (found.title, found.rows) == ("RELION STAR, no particles", 0)
    assert not any(use.ready for use in found.uses)
    for words in (
        ("convert", path, "-o", tmp_path / "x.cs"),
        ("select", job, "--random", 1, "-o", tmp_path / "s.star"),
    ):
        done = run(*words)
        assert (done.returncode, "no particles" in done.stderr) == (1, True)
    path.write_text("no STAR file at all\n")
    assert inspect(job).title == "RELION job Extract"


def test_a_file_that_may_be_either_is_said_to_be_in_a_sentence(tmp_path):
    path = save_mrc(tmp_path / "a.mrc", np.zeros((9, 4, 5)))
    with path.open("r+b") as file:
        file.seek(36)
        file.write(np.int32(9).tobytes())  # mz
    found = inspect(path)
    assert found.title == "MRC, stack or volume"
    assert dict(found.facts)["kind"].startswith("stack or volume: 5 × 4 × 9 may be either")
