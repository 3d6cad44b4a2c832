from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from converge_jobs import changed, save_kept_iterations, wander, write_iteration
from cryobridge.errors import MissingDataError, OutputExistsError, UsageError
from cryobridge.jobs.converge.converge import converge
from helpers import save_cs


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "Class2D" / "job004"
    course = wander(100, 4, 6, seed=3)
    for number, classes in enumerate(course, 1):
        write_iteration(folder, number, classes)
    return folder, course


def test_the_report_has_the_answer_the_files_and_the_arrays(job, tmp_path):
    folder, course = job
    report = converge(str(folder), tmp_path / "out", plots=False, threshold_percent=2, stable=2)
    assert (report.rows_in, report.rows_out, report.left_out) == (100, 100, {})
    assert [row.changed for row in report.iterations[1:]] == [changed(a, b) for a, b in pairwise(course)]
    assert report.history.iterations[-1].transitions.sum() == 100
    assert report.verdict.threshold_percent == 2
    assert "fewer than 2 %" in report.verdict.rule
    assert [path.name for path in report.outputs] == ["converge.log", "converge.csv", "converge_classes.csv"]
    assert all(path.is_file() for path in report.outputs)
    assert report.outputs[0].parent == tmp_path / "out"


def test_a_job_that_one_may_only_read_is_judged_and_nothing_is_written_there(job, tmp_path, monkeypatch):
    folder, _ = job
    before = sorted(folder.iterdir())
    monkeypatch.setattr("os.access", lambda path, _mode: path != folder)  # the tests may run as root
    report = converge(folder, html=tmp_path / "page.html")
    assert sorted(folder.iterdir()) == before
    assert report.outputs == (tmp_path / "page.html",)
    assert len(report.iterations) == 6
    assert [message.code for message in report.warnings] == ["outputs-skipped"]
    assert "output='DIR' writes them elsewhere" in str(report.warnings[0])
    assert len(converge(folder, tmp_path / "out", plots=False).outputs) == 3


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("alignments2D/class", np.array([b"x"] * 4)),
        ("alignments2D/class", np.full(4, 1 + 2j, "c8")),
        ("alignments2D/class", np.full((4, 5), 1, "u4")),
        ("alignments2D/class", np.array([0, np.nan, np.inf, 1], "f4")),
        ("alignments2D/class", np.full(4, 2**63 - 1, "i8")),
        ("uid", np.array([0.5, np.nan, 1, 2], "f8")),
        ("uid", np.array([b"x"] * 4)),
        ("alignments3D_multi/class_posterior", np.zeros((4, 0), "f4")),
        ("alignments3D_multi/class", np.zeros((4, 3), "u4")),
    ],
)
def test_an_iteration_with_a_column_of_another_kind_is_passed_over_and_said(name, values, tmp_path):
    columns = {"uid": np.arange(4, dtype="u8")}
    if name.startswith("alignments3D_multi"):
        columns["alignments3D_multi/class_posterior"] = np.full((4, 2), 0.5, "f4")
    else:
        columns["alignments2D/class"] = np.zeros(4, "u4")
    for number in (0, 1):
        save_cs(tmp_path / f"J2_{number:03d}_particles.cs", columns)
    save_cs(tmp_path / "J2_002_particles.cs", columns | {name: values})
    report = converge(tmp_path, tmp_path / "out", plots=False)
    assert [iteration.number for iteration in report.history.iterations] == [0, 1]
    assert "J2_002_particles.cs" in " ".join(map(str, report.warnings))


def test_classes_of_minus_one_are_none_also_without_signs(tmp_path):
    for number, dtype in enumerate(("i4", "u4")):
        classes = np.array([0, 1, -1, -1], "i4").astype(dtype)
        save_cs(
            tmp_path / f"J2_{number:03d}_particles.cs", {"uid": np.arange(4, dtype="u8"), "alignments2D/class": classes}
        )
    report = converge(tmp_path, tmp_path / "out", plots=False)
    assert [iteration.populations.tolist() for iteration in report.history.iterations] == [[1, 1], [1, 1]]


def test_its_json_has_the_keys_of_the_command_and_not_the_arrays(job, tmp_path):
    data = json.loads(json.dumps(converge(job[0], tmp_path / "out", plots=False).to_json()))
    assert "history" not in data
    assert data["classes"][0].keys() >= {"class", "particles"}
    assert data["transitions"]["last"][0].keys() == {"from", "to", "particles"}


def test_particles_without_a_class_are_left_out(tmp_path):
    write_iteration(tmp_path, 1, {particle: particle % 3 for particle in range(30)}, figures=False)
    report = converge(tmp_path, plots=False)
    assert (report.rows_in, report.rows_out, report.left_out) == (30, 20, {"no class": 10})
    assert [message.code for message in report.warnings] == ["particles-without-class"]


def test_a_dry_run_writes_nothing_and_says_what_it_would(job, tmp_path):
    folder, _ = job
    before = sorted(folder.iterdir())
    options = {"volatile": folder / "jumping.star", "html": folder / "page.html", "volatile_min": 1}
    planned = converge(folder, dry_run=True, **options)
    assert sorted(folder.iterdir()) == before
    done = converge(folder, **options)
    assert (planned.dry_run, done.dry_run) == (True, False)
    assert planned.outputs == done.outputs
    assert planned.messages == done.messages
    assert sorted({*before, *done.outputs}) == sorted(folder.iterdir())
    with pytest.raises(OutputExistsError):
        converge(folder, dry_run=True, **options)


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"threshold_percent": "1"}, "threshold_percent"),
        ({"stable": 0}, "stable"),
        ({"iterations": 2.5}, "iterations"),
        ({"plots": "no"}, "plots"),
        ({"html": 3}, "html"),
        ({"output": 5}, "output"),
        ({"threshhold_percent": 1}, "threshhold_percent"),
    ],
)
def test_a_wrong_argument_is_named(job, wrong, option):
    with pytest.raises(UsageError) as caught:
        converge(job[0], **wrong)
    assert caught.value.option == option
    assert not (job[0] / "converge.log").exists()


def test_options_that_contradict_each_other_are_named_as_keywords(job, tmp_path):
    with pytest.raises(UsageError, match="total=2 is before iterations=3"):
        converge(job[0], iterations=3, total=2)
    with pytest.raises(UsageError, match="volatile_min=9"):
        converge(job[0], volatile_min=9)
    with pytest.raises(UsageError) as caught:
        converge(7)
    assert caught.value.option == "job"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="no iterations"):
        converge(tmp_path / "empty")
    (tmp_path / "J2").mkdir()
    save_kept_iterations(tmp_path / "J2", wander(20, 2, 3))
    with pytest.raises(UsageError, match="RELION job"):
        converge(tmp_path / "J2", settled=tmp_path / "x.star", plots=False)
    assert not (tmp_path / "x.star").exists()


def test_what_is_refused_at_the_end_replaces_nothing(job, tmp_path, monkeypatch):
    from cryobridge.errors import OutputExistsError
    from cryobridge.jobs.converge import converge as module

    out = tmp_path / "out"
    converge(job[0], out, plots=False, iterations=1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    split = module.ConvergePlan._split

    def appearing(plan):
        (tmp_path / "x.star").touch()
        return split(plan)

    monkeypatch.setattr(module.ConvergePlan, "_split", appearing)
    with pytest.raises(OutputExistsError):
        converge(job[0], out, plots=False, volatile=tmp_path / "x.star", volatile_min=1)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
