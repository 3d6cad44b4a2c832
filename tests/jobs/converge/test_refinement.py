"""Automatic refinements: RELION says that one has converged by its final files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import cryobridge as cb
from converge_jobs import wander, write_iteration, write_refinement
from cryobridge.formats.relion.job import read_relion_job
from cryobridge.jobs.converge.follow import Follower
from cryobridge.jobs.converge.html_page import html_page
from cryobridge.jobs.converge.stall import stall_of
from cryobridge.jobs.converge.verdict import Rule
from cryobridge.jobs.converge.watch import watch
from cryobridge.plots.converge import iteration_sheet, summary_sheet
from cryobridge.plots.page import lay_out
from helpers import run

RESOLUTIONS_A = [40.0, 20.0, 12.0, 9.0, 8.5]


def read(folder, last=None):
    follower = Follower(folder, last)
    list(follower.look(is_final=True))
    return follower.history(Rule())


def drawn(sheet):
    figure = lay_out(sheet)
    figure.canvas.draw()
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


@pytest.fixture
def finished(tmp_path):
    return write_refinement(tmp_path / "Refine3D" / "job007", RESOLUTIONS_A, final_A=7.25)


@pytest.mark.parametrize("version", [3.1, 4])
@pytest.mark.parametrize("run_name", ["run", "run_ct3"])
def test_a_refinement_has_converged_when_its_final_files_are_there(tmp_path, version, run_name):
    folder = write_refinement(tmp_path / "Refine3D" / "job007", RESOLUTIONS_A)
    assert (read(folder).verdict.converged, read_relion_job(folder).status) == (False, "unknown")
    first = 0 if run_name == "run" else 3
    write_refinement(folder, RESOLUTIONS_A[first:], final_A=7.25, run_name=run_name, first=first, version=version)
    report = cb.converge(folder, plots=False)
    assert report.verdict.converged
    assert "7.25 Å" in report.verdict.reason
    assert (report.final.relion.resolution_A, report.final.iteration) == (7.25, 5)
    assert report.final.source == folder / f"{run_name}_data.star"
    assert [message.code for message in report.warnings] == ([] if run_name == "run" else ["iterations-superseded"])
    # It is one more iteration: up to the ones before it had not converged.
    assert cb.converge(folder, plots=False, iterations=4).verdict.converged is False
    assert read_relion_job(folder).status == "success"


def test_its_table_shows_resolution_angles_and_accuracies_and_no_classes(finished, tmp_path):
    done = run("converge", finished, "-o", tmp_path / "out", "--fail-if-not-converged", "--each-iteration")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(place for place, line in enumerate(lines) if "particles" in line)
    assert lines[head].split()[:7] == ["it", "particles", "resolution", "Å", "angles", "changed", "°"]
    assert lines[head + 1].split()[:4] == ["1", "20", "20.00", "45.00"]
    assert lines[head + 5].split()[:4] == ["final", "—", "7.25", "—"]
    assert "class" not in done.stdout.partition("Rule:")[0]
    assert not done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert "converge_flow.png" not in made
    assert {"converge_summary.png", "converge_run_it004_data.png", "converge.csv"} <= made


def test_its_json_holds_the_final_resolution(finished, tmp_path):
    report = json.loads(run("converge", finished, "-o", tmp_path, "--no-plots", "--json").stdout)
    assert report["final"]["relion"]["resolution_A"] == 7.25
    assert report["final"]["source"].endswith("run_data.star")
    write_iteration(tmp_path / "Class2D", 1, {1: 1, 2: 2})
    assert json.loads(run("converge", tmp_path / "Class2D", "--no-plots", "--json").stdout)["final"] is None


def test_its_pictures_and_page_draw_what_relion_says(finished):
    history = read(finished)
    axes = drawn(summary_sheet(history))
    resolution = axes["Resolution (finer is higher)"]
    (line,) = [line for line in resolution.lines if line.get_label() == "resolution"]
    np.testing.assert_allclose(line.get_ydata(), RESOLUTIONS_A[1:])
    (mark,) = [line for line in resolution.lines if line.get_label() == "final"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (5, 7.25)
    assert any("final: 7.25 Å" in text.get_text() for text in resolution.texts)
    (turned,) = [panel for title, panel in axes.items() if title.startswith("Orientations")]
    np.testing.assert_allclose(turned.lines[0].get_ydata(), [90 / (1 + number) for number in range(1, 5)])
    np.testing.assert_allclose(turned.lines[1].get_ydata(), 0.6)
    # The picture of an iteration knows nothing of what comes later.
    early = drawn(iteration_sheet(history, 2))["Resolution (finer is higher)"]
    assert early.lines[0].get_xdata().tolist() == [1, 2]
    page = html_page(history)
    assert "<td>final</td>" in page
    assert "rotation accuracy" in page
    assert "Flows between classes" not in page


def test_watching_it_ends_without_an_exit_file(finished, tmp_path):
    moving = tmp_path / "Refine3D" / "job008"
    moving.mkdir()
    writer = """
import shutil, sys, time
from pathlib import Path
source, target = map(Path, sys.argv[1:])
parts = ["optimiser", "half1_model", "half2_model", "data"]
names = [f"run_it{number:03d}_{part}.star" for number in range(5) for part in parts]
for name in (*names, "run_data.star", "run_model.star"):
    shutil.copy(source / name, target / "half")
    (target / "half").rename(target / name)
    time.sleep(0.05)
"""
    process = subprocess.Popen([sys.executable, "-c", writer, str(finished), str(moving)])
    done = run("converge", moving, "--watch", "--no-plots", "--settle", 0.3, "--timeout", 60)
    process.wait()
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("iteration ")]
    assert lines == [
        f"iteration {number}: resolution {RESOLUTIONS_A[number]:.2f} Å, orientations changed by "
        f"{90 / (1 + number):.2f}°, offsets changed by 2.50 Å, accuracy of rotations 0.60°, of translations 3.00 Å"
        for number in range(1, 5)
    ]
    assert "The refinement has converged and ended: run_data.star is there." in done.stderr
    assert "final resolution of 7.25 Å" in done.stdout


def test_final_files_that_are_half_written_are_waited_for(finished):
    model = finished / "run_model.star"
    text = model.read_text()
    model.write_text(text[:40])
    follower = Follower(finished, settle_s=60)
    looks = watch(follower, None, 0.1, None)
    assert not next(looks).end
    model.write_text(text)
    assert next(looks).end.startswith("The refinement has converged")
    assert follower.history(Rule()).final.metrics.resolution_A == 7.25


def age(folder, age_s, step_s=60):
    """Let the iterations have been written one a minute, the last one so long ago."""
    paths = sorted(folder.glob("run_it*_data.star"))
    for place, path in enumerate(reversed(paths)):
        written = time.time() - age_s - place * step_s
        os.utime(path, (written, written))


def test_a_job_that_was_killed_is_told_by_its_silence(tmp_path):
    for number, classes in enumerate(wander(40, 3, 6), 1):
        write_iteration(tmp_path, number, classes)
    age(tmp_path, 720)
    (message,) = read(tmp_path).messages
    assert message.code == "no-new-iteration"
    assert "No new iteration for 12 times the usual time of 60 s" in message.text
    done = run("converge", tmp_path, "--watch", "--no-plots", "--timeout", 1.5)
    assert done.stderr.count("! No new iteration for 12 times the usual time") == 1
    age(tmp_path, 200)
    assert not read(tmp_path).messages
    age(tmp_path, 720)
    (tmp_path / "RELION_JOB_EXIT_SUCCESS").touch()
    assert not read(tmp_path).messages


def test_a_job_at_its_last_iteration_is_not_silent(tmp_path):
    for number, classes in enumerate(wander(40, 3, 6), 1):
        write_iteration(tmp_path, number, classes, last=6)
    age(tmp_path, 7200)
    assert not read(tmp_path).messages
    assert not read(tmp_path, last=6).messages


def test_times_of_a_copy_tell_nothing():
    assert stall_of([0, 60, 30, 180], 1e6) is None
    assert stall_of([0, 60], 1e6) is None
    assert stall_of([0, 0.001, 0.002], 1e6) is None
    assert stall_of([0, 60, 120], 120 + 7200).times == 120
    assert [stall_of([0, 60, 120], 120 + 60 * times).level for times in (5, 9, 10, 19, 20)] == [1, 1, 2, 2, 3]


def test_all_particles_of_iteration_1_come_from_no_class_and_do_not_stretch_the_axis(tmp_path):
    from converge_jobs import optimiser_text

    for number, classes in enumerate(wander(400, 3, 5, share=0.1), 1):
        write_iteration(tmp_path, number, classes)
        text = optimiser_text(number, 25, rlnChangesOptimalClasses=1.0 if number == 1 else 0.06 / number)
        (tmp_path / f"run_it{number:03d}_optimiser.star").write_text(text)
    (panel,) = [axes for title, axes in drawn(summary_sheet(read(tmp_path))).items() if "changed class" in title]
    assert panel.get_ylim()[1] < 20
    (line,) = [line for line in panel.lines if line.get_label() == "RELION"]
    assert np.isnan(line.get_ydata()[0])
