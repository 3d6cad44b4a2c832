from __future__ import annotations

import csv
import json
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import starfile

from converge_jobs import (
    changed,
    count,
    data_text,
    image_name,
    model_text,
    optimiser_text,
    save_kept_iterations,
    texts,
    wander,
    write_iteration,
)
from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.listing import list_folder
from cryobridge.jobs.converge import follow
from cryobridge.jobs.converge.converge import converge
from cryobridge.jobs.converge.files import IterationFiles, find_iterations
from cryobridge.jobs.converge.follow import Follower
from cryobridge.jobs.converge.metrics import read_metrics
from cryobridge.jobs.converge.outputs import KINDS
from cryobridge.jobs.converge.verdict import Rule, judge
from cryobridge.model.classification import Iteration, IterationMetrics
from helpers import run, save_cs


def read(folder, last=None, rule=None):
    follower = Follower(folder, last)
    list(follower.look(is_final=True))
    return follower.history(rule or Rule())


def check(history, assignments, numbers):
    assert [iteration.number for iteration in history.iterations] == list(numbers)
    before = None
    for iteration, classes in zip(history.iterations, assignments, strict=True):
        counts = count(classes)
        assert {k + 1: n for k, n in enumerate(iteration.populations.tolist()) if n} == counts
        assert iteration.particles == len(classes)
        assert iteration.occupied == len(counts)
        if before is None:
            assert iteration.changed is None
        else:
            assert iteration.changed == changed(before, classes)
            assert iteration.compared == len(before.keys() & classes.keys())
            moves = {}
            for particle in before.keys() & classes.keys():
                move = before[particle], classes[particle]
                moves[move] = moves.get(move, 0) + 1
            found = {(a + 1, b + 1): int(iteration.transitions[a, b]) for a, b in np.argwhere(iteration.transitions)}
            assert found == moves
        before = classes


def test_a_plain_job_is_counted_as_a_dictionary_counts_it(tmp_path):
    assignments = wander(300, 6, 8)
    for number, classes in enumerate(assignments, 1):
        write_iteration(tmp_path / "Class2D" / "job004", number, classes)
    history = read(tmp_path / "Class2D" / "job004")
    check(history, assignments, range(1, 9))
    assert (history.program, history.kind) == ("RELION", "Class2D")
    shares = [n / 300 for n in count(assignments[-1]).values()]
    assert history.iterations[-1].effective_classes == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


def test_particles_are_followed_by_name_when_rows_change_places(tmp_path):
    assignments = wander(200, 4, 5, seed=3)
    rng = np.random.default_rng(1)
    for number, classes in enumerate(assignments, 1):
        write_iteration(tmp_path, number, classes, order=rng.permutation(200).tolist())
    check(read(tmp_path), assignments, range(1, 6))


def test_a_continued_run_takes_over_where_it_started_and_its_iterations_count(tmp_path):
    assignments = wander(150, 5, 7, seed=4)
    for number, classes in enumerate(assignments[:4], 1):
        write_iteration(tmp_path, number, classes)
    # These were left behind when the job was continued from iteration 4.
    for number in (5, 6):
        write_iteration(tmp_path, number, dict.fromkeys(range(150), 1))
    write_iteration(tmp_path, 4, assignments[3], run_name="run_ct4")
    for number, classes in enumerate(assignments[4:], 5):
        write_iteration(tmp_path, number, classes, run_name="run_ct4")
    history = read(tmp_path)
    check(history, assignments, range(1, 8))
    assert [iteration.source.name for iteration in history.iterations][2:5] == [
        "run_it003_data.star",
        "run_ct4_it004_data.star",
        "run_ct4_it005_data.star",
    ]
    assert "continued run counts" in texts(history)


def test_runs_continued_twice_are_one_history(tmp_path):
    assignments = wander(80, 3, 6, seed=5)
    for name, numbers in (("run", (0, 1, 2)), ("run_ct2", (3, 4)), ("run_ct4", (5,))):
        for number in numbers:
            write_iteration(tmp_path, number, assignments[number], run_name=name)
    check(read(tmp_path), assignments, range(6))


def test_gaps_are_compared_across_and_reported(tmp_path):
    assignments = wander(100, 4, 4, seed=6)
    for number, classes in zip((0, 10, 20, 30), assignments, strict=True):
        write_iteration(tmp_path, number, classes)
    history = read(tmp_path)
    check(history, assignments, (0, 10, 20, 30))
    assert "Only one iteration in 10 is there" in texts(history)
    (tmp_path / "run_it020_data.star").rename(tmp_path / "run_it011_data.star")
    write_iteration(tmp_path, 12, assignments[0])
    assert "Missing iterations: 1-9, 13-29" in texts(read(tmp_path))


def test_late_and_dead_classes_keep_their_numbers(tmp_path):
    first = {particle: particle % 2 + 1 for particle in range(40)}
    then = {**first, **dict.fromkeys(range(0, 10, 2), 7)}  # class 7 appears
    last = {particle: 7 if number == 1 else number for particle, number in then.items()}  # and class 1 dies
    for number, classes in enumerate((first, then, last), 1):
        write_iteration(tmp_path, number, classes, figures=False)
    history = read(tmp_path)
    check(history, (first, then, last), (1, 2, 3))
    assert {len(iteration.populations) for iteration in history.iterations} == {7}
    assert {iteration.transitions.shape for iteration in history.iterations[1:]} == {(7, 7)}
    assert "No particle is left in class 1" in texts(history)


def test_a_class_that_was_always_empty_counts_where_the_model_has_it(tmp_path):
    classes = {particle: 1 + particle % 3 for particle in range(30)}
    write_iteration(tmp_path, 1, classes)
    (tmp_path / "run_it001_model.star").write_text(model_text(classes, shares=[0.4, 0.3, 0.3, 0.0, 0.0]))
    last = read(tmp_path).iterations[-1]
    assert last.populations.tolist() == [10, 10, 10, 0, 0]
    assert (last.occupied, len(last.metrics.class_distribution)) == (3, 5)


def test_two_hundred_classes_are_counted(tmp_path):
    assignments = wander(1000, 200, 3, seed=7)
    for number, classes in enumerate(assignments):
        write_iteration(tmp_path, number, classes, figures=False)
    check(read(tmp_path), assignments, range(3))


def test_particles_that_come_and_go_are_reported_and_not_called_changed(tmp_path):
    first = {particle: 1 + particle % 2 for particle in range(50)}
    then = dict.fromkeys(range(10, 60), 2)
    again = dict.fromkeys(range(60), 2)
    for number, classes in enumerate((first, then, again), 1):
        write_iteration(tmp_path, number, classes)
    history = read(tmp_path)
    check(history, (first, then, again), (1, 2, 3))
    assert [(item.arrived, item.departed) for item in history.iterations] == [(0, 0), (10, 10), (10, 0)]
    assert "Particles came or went: 20 new and 10 gone" in texts(history)


def test_copies_of_a_symmetry_expansion_are_followed_one_by_one(tmp_path):
    names = [image_name(number) for number in range(20)]
    before = [(name, 1 + copy) for name in names for copy in range(3)]
    after = [(name, number if place % 5 else number % 3 + 1) for place, (name, number) in enumerate(before)]
    for number, rows in ((1, before), (2, after)):
        (tmp_path / f"run_it{number:03d}_data.star").write_text(data_text(rows))
    history = read(tmp_path)
    assert history.iterations[1].changed == sum(a != b for (_, a), (_, b) in zip(before, after, strict=True)) == 12
    assert history.iterations[1].compared == 60
    assert any(
        "40 rows have an image name that an earlier row has too" in sentence for sentence in map(str, history.messages)
    )


def test_particles_without_a_class_are_reported_and_stand_in_no_class(tmp_path):
    first = {particle: particle % 3 for particle in range(30)}
    then = dict.fromkeys(range(30), 1)
    for number, classes in enumerate((first, then, first), 1):
        write_iteration(tmp_path, number, classes, figures=False)
    history = read(tmp_path)
    assert history.iterations[0].populations.tolist() == [10, 10]
    assert [item.unassigned for item in history.iterations] == [10, 0, 10]
    assert (history.iterations[1].compared, history.iterations[1].changed) == (20, 10)
    assert "10 particles have no class" in texts(history)


@pytest.mark.parametrize("how", ["in a line", "at a line end", "in the optics", "empty", "in its labels"])
def test_a_half_written_last_file_is_left_out_and_reported(tmp_path, how):
    assignments = wander(60, 3, 3, seed=8)
    paths = [write_iteration(tmp_path, number, classes) for number, classes in enumerate(assignments, 1)]
    text = paths[-1].read_text()
    cut = {
        "in a line": text[: len(text) * 2 // 3].rsplit("\n", 1)[0] + "\nmic.mrc 00000",
        "at a line end": text[: len(text) * 2 // 3].rsplit("\n", 1)[0] + "\n",
        "in the optics": text[:40],
        "empty": "",
        "in its labels": text[: text.index("_rlnClassNumber")],
    }[how]
    paths[-1].write_text(cut)
    history = read(tmp_path)
    check(history, assignments[:2], (1, 2))
    assert "run_it003_data.star is left out" in texts(history)


def test_a_cut_off_last_value_is_not_taken_for_a_class(tmp_path):
    # The class is the last column, and 12 is cut to 1.
    rows = "".join(f"{image_name(number)} 12 \n" for number in range(5))
    text = f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n{rows}"
    (tmp_path / "run_it001_data.star").write_text(text + "\n")
    (tmp_path / "run_it002_data.star").write_text(text[:-3])
    assert [iteration.number for iteration in read(tmp_path).iterations] == [1]


def test_an_iteration_that_can_not_be_read_in_the_middle_is_left_out(tmp_path):
    assignments = wander(60, 3, 4, seed=9)
    for number, classes in enumerate(assignments, 1):
        write_iteration(tmp_path, number, classes)
    (tmp_path / "run_it002_data.star").write_text("not a STAR file\n")
    history = read(tmp_path)
    check(history, [assignments[0], *assignments[2:]], (1, 3, 4))
    assert "run_it002_data.star is left out" in texts(history)


@pytest.mark.parametrize(("likelihood", "of_input"), [("0.000000", 2), ("-1.25e+6", 20)])
def test_iteration_0_with_the_classes_of_an_earlier_job_is_left_out(tmp_path, likelihood, of_input):
    # RELION keeps rlnClassNumber of its input in run_it000_data.star; the model there is of this job's classes.
    write_iteration(tmp_path, 0, {particle: 1 + particle % of_input for particle in range(40)})
    model = model_text({0: 1, 1: 2, 2: 3}).replace("-1.25e+6", likelihood)
    (tmp_path / "run_it000_model.star").write_text(model)
    course = wander(40, 3, 3)
    for number, classes in enumerate(course, 1):
        write_iteration(tmp_path, number, classes)
    history = read(tmp_path)
    check(history, course, [1, 2, 3])
    assert history.n_classes == 3
    assert "No particle is left" not in texts(history)


def test_iteration_0_without_classes_is_left_out(tmp_path):
    assignments = wander(40, 3, 2)
    write_iteration(tmp_path, 0, dict.fromkeys(range(40), 0), figures=False)
    for number, classes in enumerate(assignments, 1):
        write_iteration(tmp_path, number, classes)
    check(read(tmp_path), assignments, (1, 2))
    assert not read(tmp_path).messages  # RELION writes it so


def test_tomo_particles_and_relion_3_0_layouts_are_read(tmp_path):
    rows = [(f"TS_01/{number}", 1 + number % 2) for number in range(6)]
    (tmp_path / "run_it001_data.star").write_text(data_text(rows, "rlnTomoParticleName"))
    assert read(tmp_path).iterations[0].populations.tolist() == [3, 3]
    old = "\ndata_\n\nloop_ \n_rlnImageName #1 \n_rlnClassNumber #2 \n" + "".join(f"{n}@a.mrcs 2 \n" for n in range(4))
    (tmp_path / "run_it001_data.star").write_text(old + " \n")
    assert read(tmp_path).iterations[0].populations.tolist() == [0, 4]


@pytest.mark.parametrize("number", ["-1e9", "2500", "1.5", "nan"])
def test_class_numbers_that_none_can_have_are_refused_or_no_class(tmp_path, number):
    text = f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n1@a.mrcs 1\n2@a.mrcs {number}\n\n"
    (tmp_path / "run_it001_data.star").write_text(text)
    follower = Follower(tmp_path)
    list(follower.look(is_final=True))
    if number == "-1e9":
        assert follower.history(Rule()).iterations[0].unassigned == 1
    else:
        (error,) = follower.errors.values()
        assert isinstance(error, FormatError)


def test_figures_of_the_real_optimiser_are_read_right(reference_data):
    path = reference_data / "real" / "run_it025_optimiser_2D.star"
    figures, notes = read_metrics(IterationFiles(25, path, (), path))
    assert not notes
    assert figures.changed_fraction == 0.052430  # a fraction: 5.2 % of the particles
    assert figures.orientation_change_deg == 11.495214
    assert figures.offset_change_A == 2.429701
    assert figures.last_iteration == 25
    assert figures.has_converged is None  # rlnHasConverged is 0, but this is no auto-refinement
    assert figures.gradient == ""


def test_figures_of_the_model_are_read_and_start_values_are_none(tmp_path):
    classes = {particle: 1 + particle % 3 for particle in range(30)}
    write_iteration(tmp_path, 1, classes)
    text = model_text(classes).replace("12.0000", "inf")
    (tmp_path / "run_it001_model.star").write_text(text)
    start = optimiser_text(1, 25, rlnChangesOptimalClasses=9999999, rlnChangesOptimalOrientations=999)
    (tmp_path / "run_it001_optimiser.star").write_text(start)
    figures = read(tmp_path).iterations[0].metrics
    assert figures.changed_fraction is figures.orientation_change_deg is None
    assert figures.resolution_A == 9.5
    assert figures.log_likelihood == -1.25e6
    assert figures.rotation_accuracy_deg == 0.6
    assert figures.translation_accuracy_A == 3
    np.testing.assert_allclose(figures.class_distribution, 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(figures.class_resolution_A, [11, np.nan, 13])


def test_half_sets_of_an_auto_refinement_make_one_iteration(tmp_path):
    folder = tmp_path / "Refine3D" / "job020"
    classes = dict.fromkeys(range(20), 1)
    for number in range(4):
        write_iteration(folder, number, classes, figures=False)
        for half, resolution in ((1, 8.5), (2, 9.0)):
            (folder / f"run_it{number:03d}_half{half}_model.star").write_text(model_text(classes, resolution))
        done = {"rlnDoAutoRefine": 1, "rlnHasConverged": int(number == 3)}
        (folder / f"run_it{number:03d}_optimiser.star").write_text(optimiser_text(number, 999, **done))
    history = read(folder)
    assert history.kind == "Refine3D"
    assert [item.metrics.resolution_A for item in history.iterations] == [9.0] * 4
    assert history.iterations[-1].metrics.log_likelihood == -2.5e6
    assert history.verdict.converged is True
    assert "rlnHasConverged" in history.verdict.rule
    assert read(folder, last=2).verdict.converged is False


def test_counts_that_disagree_with_the_distribution_are_reported(tmp_path):
    classes = {particle: 1 + particle % 4 for particle in range(40)}
    write_iteration(tmp_path, 1, classes)
    assert not read(tmp_path).messages
    (tmp_path / "run_it001_model.star").write_text(model_text(classes, shares=[0.25, 0.13, 0.37, 0.25]))
    (sentence,) = map(str, read(tmp_path).messages)
    assert "classes 2-3" in sentence or "classes 2, 3" in sentence
    assert "12 %" in sentence


def test_gradient_refinement_is_reported(tmp_path):
    write_iteration(tmp_path, 10, {1: 1, 2: 2})
    (tmp_path / "run_it010_optimiser.star").write_text(optimiser_text(10, 200, rlnDoGradientRefine=1))
    assert "VDAM" in texts(read(tmp_path))
    # Before RELION 4 gradients were other ones.
    (tmp_path / "run_it010_optimiser.star").write_text(optimiser_text(10, 200, rlnDoStochasticGradientDescent=1))
    assert "SGD" in texts(read(tmp_path))
    assert "VDAM" not in texts(read(tmp_path))


def test_iterations_left_behind_by_a_job_that_was_continued_in_place_are_reported(tmp_path):
    assignments = wander(40, 3, 6)
    for number, classes in enumerate(assignments, 1):
        path = write_iteration(tmp_path, number, classes)
        # Iterations 3 and 4 were written again, after 5 and 6.
        os.utime(path, (0, 1e9 + 600 * number + (7200 if number in {3, 4} else 0)))
    assert "Iteration 5 is older than iteration 4" in texts(read(tmp_path))
    assert not read(tmp_path, last=4).messages
    for number, path in enumerate(sorted(tmp_path.glob("*_data.star"), reverse=True)):
        os.utime(path, (0, 1e9 + 600 * number))  # a copy, in an order of its own
    assert not read(tmp_path).messages


def test_a_file_that_is_written_to_while_it_is_read_waits_for_the_next_look(tmp_path, monkeypatch):
    assignments = wander(40, 3, 2)
    write_iteration(tmp_path, 1, assignments[0])
    original = follow.read_assignments

    def write_meanwhile(path):
        found = original(path)
        write_iteration(tmp_path, 1, {**assignments[1], 1000: 1})
        return found

    monkeypatch.setattr(follow, "read_assignments", write_meanwhile)
    follower = Follower(tmp_path)
    assert list(follower.look(is_final=True)) == []
    assert "it was written to while it was read" in str(follower.history(Rule()).messages[0])
    monkeypatch.undo()
    assert list(follower.look(is_final=True)) == [1]
    assert follower.history(Rule()).iterations[0].particles == 41


def test_collapsing_classes_are_reported(tmp_path):
    even = {particle: 1 + particle % 10 for particle in range(100)}
    collapsed = {particle: 1 if particle < 90 else 2 + particle % 9 for particle in range(100)}
    for number, classes in enumerate((even, collapsed), 1):
        write_iteration(tmp_path, number, classes, figures=False)
    said = texts(read(tmp_path))
    assert "effective number fell from 10.0 in iteration 1 to 1." in said
    assert "Class 1 holds 9" in said


def test_iterations_that_cryosparc_kept_are_followed_by_uid(tmp_path):
    assignments = wander(120, 5, 21, seed=10)
    save_kept_iterations(tmp_path / "J2", assignments)
    history = read(tmp_path / "J2")
    assert history.program == "cryoSPARC"
    check(history, assignments, range(21))
    (message,) = history.messages
    assert message.code == "classes-from-zero"
    assert str(message) == "cryoSPARC counts classes from 0; its class 0 is class 1 here"


def test_classes_of_a_3d_classification_of_cryosparc_are_the_most_probable_ones(tmp_path):
    posterior = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], "f4")
    columns = {
        "uid": np.arange(3, dtype="u8"),
        "alignments3D_multi/class_posterior": posterior,
        "alignments3D_multi/class": np.array([[0, 1], [0, 1], [1, 0]], "u4"),
    }
    save_cs(tmp_path / "J7_00002_particles.cs", columns)
    assert read(tmp_path).iterations[0].populations.tolist() == [2, 1]


def test_cryosparc_files_without_classes_say_what_is_missing(tmp_path):
    save_cs(tmp_path / "J7_002_particles.cs", {"uid": np.arange(3, dtype="u8")})
    follower = Follower(tmp_path)
    list(follower.look(is_final=True))
    assert isinstance(next(iter(follower.errors.values())), MissingDataError)


def test_pictures_of_iterations_are_not_taken_for_another_run(tmp_path):
    write_iteration(tmp_path, 1, {1: 1, 2: 2})
    for name in ("converge_run_it001_data.png", "converge_run_ct1_it002_data.png", "converge_002.png"):
        (tmp_path / name).write_bytes(b"x")
    assert find_iterations(list_folder(tmp_path)).messages == ()


def step(number, changed_of_1000, populations=(500, 300, 200), figures=None):
    moves = np.zeros((3, 3), np.int64)
    moves[0, 0], moves[0, 1] = 1000 - changed_of_1000, changed_of_1000
    return Iteration(number, None, 1000, np.array(populations), moves, metrics=figures or IterationMetrics())


def test_the_verdict_needs_every_one_of_the_last_iterations_under_the_threshold():
    fine = [step(number, 9) for number in range(1, 4)]
    assert judge(fine, Rule()).converged is True
    assert judge(fine, Rule()).iterations_left == 0
    assert judge(fine[:2], Rule()).converged is None
    assert judge([*fine[:2], step(3, 10)], Rule()).converged is False  # 1 % is not under 1 %
    assert judge([step(0, 500), *fine[1:]], Rule()).iterations_left == 1
    assert judge([*fine[:2], step(3, 10)], Rule(0.02, 3)).converged is True
    assert judge([step(0, 500), *fine], Rule(0.01, 4)).converged is False
    assert judge([], Rule()).converged is None


def test_the_verdict_needs_still_populations():
    moving = [step(1, 5, (500, 300, 200)), step(2, 5, (490, 310, 200)), step(3, 5, (479, 321, 200))]
    before = step(0, 5)
    verdict = judge([before, *moving], Rule())
    assert verdict.converged is False
    assert "class 1 moved by 2.1 %" in verdict.reason or "class 2 moved by 2.1 %" in verdict.reason
    still = [*moving[:2], step(3, 5, (480, 320, 200))]
    assert judge([before, *still], Rule()).converged is True


def test_iterations_left_follow_from_an_exponential_decay():
    # 50 % halved in each iteration is under 1 % in iteration 6, and must stay there for 3.
    assignments = [step(number, round(500 / 2**number)) for number in range(5)]
    verdict = judge(assignments, Rule())
    assert (verdict.converged, verdict.iterations_left) == (False, 4)
    tenth = [step(10 * number, round(500 / 2**number)) for number in range(5)]
    assert judge(tenth, Rule()).iterations_left == 17 + 20  # it crosses at 56.4, then two steps of 10
    assert judge([step(number, 300 + number % 2) for number in range(6)], Rule()).iterations_left is None
    assert judge([step(number, 100 + 50 * number) for number in range(6)], Rule()).iterations_left is None
    assert judge([step(0, 500), step(1, 400)], Rule(0.01, 1)).iterations_left is None  # too few for a trend


def test_the_log_is_that_of_reliosparc(tmp_path):
    assignments = wander(90, 3, 4, seed=11)
    for number, classes in enumerate(assignments):
        write_iteration(tmp_path, number, classes)
    done = run("converge", ".", "--no-plots", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # reliosparc starts with a blank and with iteration 1, which it only counts.
    expected = " Iteration: 1\nLoaded data for 90 particles.\n\n"
    for number in (2, 3):
        moved = changed(assignments[number - 1], assignments[number])
        expected += f"Iteration: {number}\n{moved} of 90 particles were re-assigned to new classes.\n"
        expected += f"This is {round(100 * float(moved) / 90.0, 1)} percent of the input pool.\n\n"
    assert (tmp_path / "converge.log").read_text() == expected


@pytest.fixture(scope="module")
def plain_job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project") / "Class2D" / "job007"
    assignments = wander(400, 5, 12, seed=12)
    for number, classes in enumerate(assignments[:9]):
        write_iteration(folder, number, classes, last=11)
    for number, classes in enumerate(assignments[9:], 9):
        write_iteration(folder, number, classes, run_name="run_ct8", last=11)
    return folder, assignments


def test_json_has_what_is_promised(plain_job, tmp_path):
    folder, assignments = plain_job
    done = run("converge", folder, "-o", tmp_path, "--no-plots", "--json")
    report = json.loads(done.stdout)
    assert [item["iteration"] for item in report["iterations"]] == list(range(12))
    for before, after, item in zip([None, *assignments], assignments, report["iterations"], strict=False):
        assert item["particles"] == 400
        assert item["populations"] == {str(k): count(after).get(k, 0) for k in range(1, 6)}
        assert item["occupied"] == len(count(after))
        if before is not None:
            assert item["changed"] == changed(before, after)
            assert item["changed_percent"] == pytest.approx(100 * changed(before, after) / 400, abs=1e-4)
    last = report["iterations"][-1]
    assert last["source"] == str(folder / "run_ct8_it011_data.star")
    assert last["relion"]["changed_percent"] == 6.25  # RELION's 0.0625 is a fraction
    assert last["relion"]["orientation_change_deg"] == 12.25
    assert last["relion"]["resolution_A"] == 9.5
    assert set(report["verdict"]) >= {"converged", "rule", "iterations_left"}
    moves = {}
    for before, after in zip(assignments[-6:], assignments[-5:], strict=False):
        for particle in after:
            move = before[particle], after[particle]
            moves[move] = moves.get(move, 0) + 1
    assert report["transitions"]["summed_steps"] == 5
    assert {(item["from"], item["to"]): item["particles"] for item in report["transitions"]["summed"]} == moves
    jumps = [
        sum(a[particle] != b[particle] for a, b in zip(assignments[-6:], assignments[-5:], strict=False))
        for particle in range(400)
    ]
    expected = {str(times): jumps.count(times) for times in range(6)}
    assert report["volatile"]["particles_by_changes"] == expected


def test_tables_hold_the_counts(plain_job, tmp_path):
    folder, assignments = plain_job
    assert run("converge", folder, "-o", tmp_path, "--no-plots").returncode == 0
    with (tmp_path / "converge.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(12))
    assert [row["changed"] for row in rows] == [
        "",
        *(str(changed(a, b)) for a, b in pairwise(assignments)),
    ]
    with (tmp_path / "converge_classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert len(classes) == 12 * 5
    before, after = assignments[-2:]
    for row in classes[-5:]:
        number = int(row["class"])
        assert int(row["particles"]) == count(after).get(number, 0)
        assert int(row["kept"]) == sum(before[p] == after[p] == number for p in after)
        assert int(row["came"]) == sum(before[p] != number and after[p] == number for p in after)
        assert int(row["went"]) == sum(before[p] == number and after[p] != number for p in after)
    assert float(classes[-1]["resolution_A"]) == 15


def test_a_reliosparc_command_line_reads_to_the_iteration_asked_for(plain_job, tmp_path):
    folder, _ = plain_job
    for words, numbers in (
        (("--iterations", 5), 6),
        (("--iterations", 8, "--total", 11), 12),
        ((), 12),
        (("--iterations", 25), 12),
    ):
        done = run("converge", folder, *words, "-o", tmp_path, "--no-plots", "--json")
        assert len(json.loads(done.stdout)["iterations"]) == numbers, done.stderr
    assert "after 11 are not there yet" in done.stderr
    assert run("converge", folder, "--iterations", 8, "--total", 5).returncode == 2


def test_pictures_and_page_are_written_and_refreshed_and_relion_s_files_are_left_alone(plain_job, tmp_path):
    folder = tmp_path / "job007"
    shutil.copytree(plain_job[0], folder)
    for path in [*folder.glob("run*_it00[0-6]_*"), *folder.glob("run*_it011_*")]:
        path.unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    page = tmp_path / "page.html"
    done = run("converge", folder, "--html", page, "--each-iteration")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in folder.iterdir()} - {path.name for path in before}
    pictures = {f"converge_run_it{number:03d}_data.png" for number in (7, 8)}
    pictures |= {f"converge_run_ct8_it{number:03d}_data.png" for number in (9, 10)}
    assert made == pictures | {
        *("converge.log", "converge.csv", "converge_classes.csv", "converge_summary.png", "converge_flow.png")
    }
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in made if name.endswith(".png"))
    (folder / "converge.log").write_text("old")
    refused = run("converge", folder, "--legacy-names", "--html", page)
    assert refused.returncode == 1  # the page is a file that the user named
    assert (folder / "converge.log").read_text() == "old"
    assert run("converge", folder, "--legacy-names", "--html", page, "--overwrite").returncode == 0
    assert (folder / "converge.log").read_text() != "old"
    assert {f"converge_{number:03d}.png" for number in range(7, 11)} <= {path.name for path in folder.iterdir()}


DEFAULT = ["converge.log", "converge.csv", "converge_classes.csv", "converge_summary.png", "converge_flow.png"]


def test_the_screen_names_each_file_that_is_written_or_would_be(plain_job, tmp_path):
    folder, _ = plain_job
    out = tmp_path / "out"
    for words, title in ((("--dry-run",), "Would be written to"), ((), "Written to")):
        done = run("converge", folder, "-o", out, *words)
        assert done.returncode == 0, done.stderr
        named = done.stdout.partition(f"{title} {out}\n")[2].splitlines()
        assert [line.split()[0] for line in named] == DEFAULT
        assert out.exists() == (not words)
    assert sorted(path.name for path in out.iterdir()) == sorted(DEFAULT)
    named = run("converge", folder, "-o", out, "--no-plots", "--html", tmp_path / "page.html").stdout.splitlines()
    assert [line.split()[0] for line in named[-4:]] == [*DEFAULT[:3], str(tmp_path / "page.html")]
    assert "Written" not in run("-q", "converge", folder, "-o", out, "--no-plots").stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--each-iteration",), [f"converge_run_it{number:03d}_data.png" for number in range(9)]),
        (("--iterations", 2), [f"converge_run_it{number:03d}_data.png" for number in range(3)]),
        (("--iterations", 8, "--total", 9), ["converge_run_it008_data.png", "converge_run_ct8_it009_data.png"]),
        (("--legacy-names",), ["converge_000.png", "converge_011.png"]),
    ],
)
def test_each_iteration_has_a_picture_where_that_is_asked_for_or_as_reliosparc_was_called(plain_job, words, names):
    done = run("converge", plain_job[0], "--dry-run", "--json", *words)
    drawn = [Path(path).name for path in json.loads(done.stdout)["outputs"]][len(DEFAULT) :]
    assert set(names) <= set(drawn)
    assert len(drawn) == (12 if words[0] != "--iterations" else words[-1] + 1)


def test_pictures_of_iterations_contradict_no_pictures(plain_job):
    done = run("converge", plain_job[0], "--each-iteration", "--no-plots")
    assert done.returncode == 2
    assert "--each-iteration asks for pictures, --no-plots for none" in done.stderr


def test_the_page_lists_the_files_that_are_written():
    page = (Path(__file__).parents[3] / "docs" / "converge.md").read_text()
    table = page.partition("| file | content |")[2].partition("\n\n")[0]
    rows = [tuple(cell.strip(" `") for cell in line.split("|")[1:3]) for line in table.splitlines()[2:]]
    assert rows == [(kind.name, kind.content) for kind in KINDS]


def test_particles_that_jump_and_those_that_settled_are_written_with_all_columns(plain_job, tmp_path):
    folder, assignments = plain_job
    jumping, settled = tmp_path / "jumping.star", tmp_path / "settled.star"
    words = ("--volatile", jumping, "--settled", settled, "--volatile-last", 6, "--volatile-min", 1)
    done = run("converge", folder, "-o", tmp_path, "--no-plots", *words)
    assert done.returncode == 0, done.stderr
    times = {p: sum(a[p] != b[p] for a, b in zip(assignments[-7:], assignments[-6:], strict=False)) for p in range(400)}
    source = starfile.read(folder / "run_ct8_it011_data.star")
    for path, chosen in ((jumping, [p for p in times if times[p] >= 1]), (settled, [p for p in times if not times[p]])):
        written = starfile.read(path)
        assert written["particles"]["rlnImageName"].tolist() == [image_name(p) for p in chosen]
        expected = source["particles"].iloc[chosen].reset_index(drop=True)
        assert written["particles"].equals(expected)
        assert list(written) == ["optics", "particles"]
    assert run("converge", folder, "-o", tmp_path, "--no-plots", *words).returncode == 1
    nobody = run(
        "converge", folder, "-o", tmp_path, "--no-plots", "--volatile", tmp_path / "x.star", "--volatile-min", 5
    )
    assert "no particle changed class in at least 5 of the last 5 steps" in nobody.stderr
    assert not (tmp_path / "x.star").exists()


def test_particles_of_cryosparc_are_not_written_as_star(tmp_path):
    save_kept_iterations(tmp_path / "J2", wander(20, 2, 3))
    done = run("converge", tmp_path / "J2", "--no-plots", "--volatile", tmp_path / "x.star")
    assert done.returncode == 2
    assert "RELION job" in done.stderr


def test_the_exit_code_tells_whether_it_converged(plain_job, tmp_path):
    folder, assignments = plain_job
    last = [changed(a, b) / 400 for a, b in zip(assignments[-4:], assignments[-3:], strict=False)]
    assert max(last) < 0.1
    words = ("converge", folder, "-o", tmp_path, "--no-plots", "--fail-if-not-converged", "--json")
    done = run(*words, "--threshold", 10)
    assert (done.returncode, json.loads(done.stdout)["verdict"]["converged"]) == (0, True)
    assert run(*words, "--threshold", 0.01).returncode == 3
    assert run(*words, "--iterations", 1).returncode == 3


def test_wrong_folders_say_what_to_give(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "run_it001_data.star"
    file.touch()
    for words, code, text in (
        ((tmp_path / "absent",), 1, "can't be listed"),
        ((file,), 1, f"this is a file, not a folder\n  → Give the folder that it is in, {tmp_path}."),
        ((empty,), 1, "no iterations"),
        ((empty, "--timeout", 3), 2, "--watch"),
        ((empty, "--volatile-min", 9), 2, "--volatile-last"),
        ((empty, "--threshold", 0), 2, "--threshold 0"),
    ):
        done = run("converge", *words, "-o", tmp_path / "out")
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert "→" in done.stderr
    assert list(empty.iterdir()) == []
    assert not (tmp_path / "out").exists()
    (empty / "run_it001_data.star").write_text("data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n\n")
    done = run("converge", empty)
    assert done.returncode == 1
    assert "rlnClassNumber" in done.stderr


def test_of_a_project_the_jobs_with_iterations_are_listed(tmp_path):
    for number, n_iterations in ((2, 3), (11, 5)):
        folder = tmp_path / "Class2D" / f"job{number:03d}"
        for iteration, classes in enumerate(wander(20, 2, n_iterations), 1):
            write_iteration(folder, iteration, classes)
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    (tmp_path / "CtfFind" / "job001").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    done = run("converge", tmp_path)
    assert done.returncode == 0, done.stderr
    _, _, first, second, _, command = done.stdout.splitlines()
    assert first.split() == [str(tmp_path / "Class2D" / "job002"), "3", "3", "—"]
    assert second.split() == [str(folder), "5", "5", "success"]
    assert command == f"$ cryobridge converge {folder}"
    assert sorted(tmp_path.rglob("*")) == before
    listed = json.loads(run("converge", tmp_path, "--json").stdout)
    assert listed["folder"] == str(tmp_path)
    assert listed["jobs"][1] == {
        **{"job": str(folder), "program": "RELION"},
        **{"iterations": 5, "last": 5, "ended": "success"},
    }
    assert listed["jobs"][0]["ended"] is None
    for words in (("--watch",), ("-o", tmp_path / "out"), ("--watch", "--json"), ("--fail-if-not-converged",)):
        refused = run("converge", tmp_path, *words)
        assert refused.returncode == 1
        assert f"Give one of its jobs, such as {folder}" in refused.stderr
    with pytest.raises(MissingDataError, match="this folder holds jobs"):
        converge(tmp_path)
    shutil.rmtree(tmp_path / "Class2D")
    assert "no job of this RELION project has iterations" in run("converge", tmp_path).stderr


def test_jobs_are_listed_of_a_folder_of_jobs_and_of_one_of_projects(tmp_path):
    relion, cryosparc = tmp_path / "relion", tmp_path / "cryosparc"
    write_iteration(relion / "Class2D" / "job004", 1, wander(20, 2, 1)[0])
    save_kept_iterations(cryosparc / "J2", wander(20, 2, 2))
    jobs = [str(cryosparc / "J2"), str(relion / "Class2D" / "job004")]
    for folder, listed in ((tmp_path, jobs), (relion / "Class2D", jobs[1:]), (relion, jobs[1:]), (cryosparc, jobs[:1])):
        done = run("converge", folder, "--json")
        assert [job["job"] for job in json.loads(done.stdout)["jobs"]] == listed, done.stderr


def test_a_job_of_cryosparc_without_classes_is_not_listed(tmp_path):
    save_kept_iterations(tmp_path / "J2", wander(20, 2, 2))
    save_cs(tmp_path / "J3" / "J3_000_particles.cs", {"uid": np.arange(3, dtype="u8")})
    assert [job["job"] for job in json.loads(run("converge", tmp_path, "--json").stdout)["jobs"]] == [
        str(tmp_path / "J2")
    ]
    shutil.rmtree(tmp_path / "J2")
    done = run("converge", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no job of this cryoSPARC project has iterations with classes" in done.stderr


def test_particles_are_written_into_files_that_are_called_star(plain_job, tmp_path):
    for name in ("volatile", "settled"):
        done = run("converge", plain_job[0], "-o", tmp_path, f"--{name}", tmp_path / "x.cs")
        assert done.returncode == 2
        assert f"Give --{name} {tmp_path / 'x.star'}." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_start_alone_is_too_early_and_no_reason_to_wait(tmp_path):
    write_iteration(tmp_path, 0, dict.fromkeys(range(20), 0), figures=False)
    write_iteration(tmp_path, 1, dict.fromkeys(range(20), 1), figures=False)
    done = run("converge", tmp_path, "--iterations", 0)
    assert done.returncode == 2
    assert "Give a larger --iterations." in done.stderr


def test_a_row_that_names_many_pictures_leaves_the_others_their_place(plain_job, tmp_path):
    done = run("converge", plain_job[0], "-o", tmp_path, "--each-iteration", "--dry-run", COLUMNS="80")
    named = done.stdout.partition("Would be written")[2].splitlines()[1:]
    assert len(named) == len(DEFAULT) + 2  # each in one line
    assert named[-1].split() == ["…", "converge_run_ct8_it011_data.png", "12", "pictures"]


def test_a_file_that_vanishes_while_it_is_read_is_left_out(tmp_path, monkeypatch):
    assignments = wander(20, 2, 3)
    for number, classes in enumerate(assignments, 1):
        write_iteration(tmp_path, number, classes)
    original = follow.read_assignments

    def vanish(path):
        if "it002" in path.name:
            path.unlink()
        return original(path)

    monkeypatch.setattr(follow, "read_assignments", vanish)
    follower = Follower(tmp_path)
    assert list(follower.look(is_final=True)) == [1, 3]
    assert all(isinstance(error, CryobridgeError) for error in follower.errors.values())
