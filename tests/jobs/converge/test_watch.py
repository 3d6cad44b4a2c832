from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from converge_jobs import changed, count, wander, write_iteration
from cryobridge.jobs.converge import follow, watch
from cryobridge.jobs.converge.converge import converge
from cryobridge.jobs.converge.follow import Follower
from cryobridge.jobs.converge.verdict import Rule
from helpers import COMMAND, end_of, environment, open_terminal, run, run_in_terminal, start, without_escapes

N_PARTICLES = 200
# Writes the files of one folder into another as RELION does: in pieces, the optimiser first, the end last.
WRITER = """
import sys, time
from pathlib import Path
source, target, marker = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for data in sorted(source.glob("run*_data.star")):
    stem = data.name.removesuffix("_data.star")
    for part in ("optimiser", "model", "data"):
        content = (source / f"{stem}_{part}.star").read_bytes()
        with (target / f"{stem}_{part}.star").open("wb", buffering=0) as file:
            for first in range(0, len(content), 4000):
                file.write(content[first : first + 4000])
                time.sleep(0.01)
    time.sleep(0.2)
(target / marker).touch()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    course = wander(N_PARTICLES, 4, 6, seed=1)
    for number, classes in enumerate(course, 1):
        write_iteration(folder, number, classes, last=6)
    return folder, course


@pytest.fixture
def empty_job(tmp_path):
    folder = tmp_path / "Class2D" / "job003"
    folder.mkdir(parents=True)
    return folder


def write_slowly(source, target, marker="RELION_JOB_EXIT_SUCCESS"):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(source), str(target), marker])


def copy_iteration(source, target, number):
    for path in source.glob(f"run_it{number:03d}_*"):
        (target / path.name).write_bytes(path.read_bytes())


def look(follower):
    return list(follower.look(is_final=False))


def changes(follower):
    return [iteration.changed for iteration in follower.history(Rule()).iterations]


def expected(course):
    return [None, *(changed(before, after) for before, after in pairwise(course))]


def wait_until(is_true):
    for _ in range(6000):  # a machine that has other work takes its time
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.mark.parametrize(
    ("marker", "words"), [("SUCCESS", "ended well"), ("FAILURE", "failed"), ("ABORTED", "was aborted")]
)
def test_a_job_is_followed_from_an_empty_folder_to_its_end(source, empty_job, marker, words):
    folder, course = source
    if marker != "SUCCESS":
        course = course[:2]
        for number in (1, 2):
            copy_iteration(folder, empty_job, number)
        writer = None
        (empty_job / f"RELION_JOB_EXIT_{marker}").touch()
    else:
        writer = write_slowly(folder, empty_job, f"RELION_JOB_EXIT_{marker}")
    done = run("converge", empty_job, "--watch", "--no-plots", "--settle", 1, "--timeout", 90)
    if writer:
        writer.wait()
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("iteration ")]
    assert lines[0].startswith(f"iteration 1: {N_PARTICLES} particles, ")
    moved = expected(course)[1:]
    found = [
        re.match(r"iteration (\d+): (\d+) of 200 particles changed class \(([\d.]+) %\)", line) for line in lines[1:]
    ]
    assert [(int(m[1]), int(m[2]), float(m[3])) for m in found] == [
        (number, count_, round(100 * count_ / N_PARTICLES, 2)) for number, count_ in enumerate(moved, 2)
    ]
    # The last iteration that the optimiser names ends the watch too, where it comes before the marker.
    assert words in done.stderr or "Iteration 6 is the job's last one" in done.stderr
    assert "Rule: " in done.stdout


def test_json_at_the_end_is_alone_on_stdout(source, empty_job):
    folder, course = source
    for number in range(1, 7):
        copy_iteration(folder, empty_job, number)
    done = run(
        "converge", empty_job, "--watch", "--no-plots", "--json", "--fail-if-not-converged", "--threshold", 0.001
    )
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert [item["changed"] for item in report["iterations"]] == expected(course)
    assert "Iteration 6 is the job's last one" in done.stderr
    assert "iteration 6: " in done.stderr


def test_the_time_is_up_and_the_iterations_asked_for_end_the_watch(source, empty_job):
    folder, _ = source
    done = run("converge", empty_job, "--watch", "--timeout", 0.2)
    assert done.returncode == 0
    assert "The time is up" in done.stderr
    report = json.loads(run("converge", empty_job, "--watch", "--timeout", 0, "--json").stdout)
    assert (report["iterations"], report["verdict"]["converged"]) == ([], None)
    for number in range(1, 5):
        copy_iteration(folder, empty_job, number)
    done = run("converge", empty_job, "--watch", "--no-plots", "--iterations", 2, "--total", 4)
    assert "Iteration 4 is there." in done.stderr


def test_only_what_is_new_is_read_again(source, empty_job, monkeypatch):
    folder, course = source
    read = []
    original = follow.read_assignments
    monkeypatch.setattr(follow, "read_assignments", lambda path: (read.append(path.name), original(path))[1])
    follower = Follower(empty_job)
    assert look(follower) == []
    for number in range(1, 7):
        copy_iteration(folder, empty_job, number)
        assert look(follower) == [number]
        assert look(follower) == []
    assert read == [f"run_it{number:03d}_data.star" for number in range(1, 7)]
    assert changes(follower) == expected(course)


def test_a_file_counts_when_it_is_still_and_whole_and_not_before(source, empty_job):
    folder, _ = source
    content = (folder / "run_it001_data.star").read_bytes()
    path = empty_job / "run_it001_data.star"
    follower = Follower(empty_job, settle_s=3600)
    path.write_bytes(content)
    assert look(follower) == []  # nothing tells yet that no more will come
    # RELION writes the optimiser first: it tells nothing of a file that has no end.
    (empty_job / "run_it001_optimiser.star").write_bytes((folder / "run_it001_optimiser.star").read_bytes())
    path.write_bytes(content[: content.rindex(b"\n", 0, -100) + 1])
    assert look(follower) == []
    path.write_bytes(content)
    assert look(follower) == [1]


def test_a_file_that_has_long_been_still_counts_without_an_optimiser(source, empty_job):
    folder, _ = source
    path = empty_job / "run_it001_data.star"
    path.write_bytes((folder / "run_it001_data.star").read_bytes())
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert look(Follower(empty_job, settle_s=50)) == [1]


def test_a_still_file_that_is_cut_off_is_read_once_it_is_written_on(source, empty_job):
    folder, course = source
    copy_iteration(folder, empty_job, 1)
    content = (folder / "run_it002_data.star").read_bytes()
    path = empty_job / "run_it002_data.star"
    path.write_bytes(content[: len(content) // 2])
    follower = Follower(empty_job)
    assert look(follower) == [1]
    assert any(
        "run_it002_data.star is left out" in sentence for sentence in map(str, follower.history(Rule()).messages)
    )
    path.write_bytes(content)
    assert look(follower) == [2]
    assert follower.history(Rule()).messages == ()
    assert changes(follower) == expected(course[:2])


def test_a_job_that_is_restarted_in_place_is_read_from_there(source, empty_job):
    folder, course = source
    for number in range(1, 6):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    assert look(follower) == [1, 2, 3, 4, 5]
    other = wander(N_PARTICLES, 4, 2, seed=77)
    write_iteration(empty_job, 3, other[0])
    # 4 and 5 are of the run before, and wait to be written again.
    assert look(follower) == [3]
    assert changes(follower) == expected([*course[:2], other[0]])
    assert any(
        "run_it004_data.star is left out" in sentence for sentence in map(str, follower.history(Rule()).messages)
    )
    write_iteration(empty_job, 4, other[1])
    assert look(follower) == [4]
    assert changes(follower) == expected([*course[:2], *other])


def test_a_job_that_starts_from_nothing_again_forgets_the_one_before(source, empty_job):
    folder, course = source
    for number in (1, 2):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    assert look(follower) == [1, 2]
    for path in empty_job.iterdir():
        path.unlink()
    assert look(follower) == []
    assert changes(follower) == expected(course[:2])  # what was read is not lost
    fewer = {particle: 1 + particle % 2 for particle in range(50)}
    write_iteration(empty_job, 1, fewer)
    assert look(follower) == [1]
    (iteration,) = follower.history(Rule()).iterations
    assert (iteration.particles, iteration.populations.tolist()) == (50, [25, 25])


def test_a_file_that_is_only_touched_changes_nothing(source, empty_job):
    folder, course = source
    for number in (1, 2, 3):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    look(follower)
    os.utime(empty_job / "run_it002_data.star", (1, 1))
    assert look(follower) == []
    assert changes(follower) == expected(course[:3])


def test_an_iteration_that_arrives_late_takes_its_place(source, empty_job):
    folder, course = source
    for number in (1, 3):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    assert look(follower) == [1, 3]
    copy_iteration(folder, empty_job, 2)
    assert look(follower) == [2, 3]
    assert changes(follower) == expected(course[:3])


def test_a_continued_run_takes_over_while_it_is_watched(source, empty_job):
    folder, course = source
    for number in (1, 2, 3):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    look(follower)
    other = wander(N_PARTICLES, 4, 1, seed=5)[0]
    write_iteration(empty_job, 3, other, run_name="run_ct2")
    assert look(follower) == [3]
    assert changes(follower) == expected([*course[:2], other])


def test_a_branch_that_takes_over_while_it_is_watched_replaces_the_other_one(source, empty_job):
    folder, course = source
    for number in range(1, 7):
        copy_iteration(folder, empty_job, number)
    follower = Follower(empty_job)
    assert look(follower) == [1, 2, 3, 4, 5, 6]
    other = wander(N_PARTICLES, 4, 3, seed=5)
    for number, classes in enumerate(other, 2):
        path = write_iteration(empty_job, number, classes, run_name="run_ct2")
        os.utime(path, (0, time.time() + number))
        assert look(follower) == [number]
        assert changes(follower) == expected([course[0], *other[: number - 1]])
    (message,) = follower.history(Rule()).messages
    assert "Iterations 3 to 6 of run are of another branch" in message.text
    # The first run goes on after all: it was continued by mistake.
    path = write_iteration(empty_job, 7, course[-1])
    os.utime(path, (0, time.time() + 100))
    assert look(follower) == [2, 3, 4, 5, 6, 7]
    assert changes(follower) == expected([*course, course[-1]])
    # And again, with nothing that is new: the times alone tell.
    for number in (2, 3, 4):
        os.utime(empty_job / f"run_ct2_it{number:03d}_data.star", (0, time.time() + 200))
    look(follower)
    assert changes(follower) == expected([course[0], *other])


def test_a_folder_that_vanishes_for_a_moment_ends_nothing(source, empty_job, monkeypatch):
    folder, _ = source
    copy_iteration(folder, empty_job, 1)
    away = empty_job.with_name("away")
    looks = watch.watch(Follower(empty_job), None, 5, None)
    monkeypatch.setattr(watch.time, "sleep", lambda _: None)
    assert next(looks).new == (1,)
    empty_job.rename(away)
    assert next(looks) == watch.Look((), "")
    away.rename(empty_job)
    copy_iteration(folder, empty_job, 2)
    assert next(looks).new == (2,)


def test_it_pauses_about_a_second_between_looks(empty_job, monkeypatch):
    pauses = []
    clock = iter(range(1000))
    monkeypatch.setattr(watch.time, "sleep", pauses.append)
    monkeypatch.setattr(watch.time, "monotonic", lambda: next(clock))
    assert [bool(look.end) for look in watch.watch(Follower(empty_job), None, 5, 4)] == [False, False, False, True]
    assert pauses == [1.0, 1.0, 1.0]


def test_the_live_display_shows_what_lands(source, empty_job):
    folder, course = source
    child = open_terminal("converge", empty_job, "--watch", "--no-plots", "--settle", 0.4, columns=80)
    child.expect("waiting for the first iteration")
    for number, classes in enumerate(course, 1):
        copy_iteration(folder, empty_job, number)
        child.expect(f"Classes in iteration {number},")
        child.expect(str(max(count(classes).values())))
        if number < len(course):
            child.expect("waiting for the next iteration")
    ended_by, shown = end_of(child)
    assert ended_by == 0
    lines = without_escapes(shown).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("Rule: ") for line in lines)
    assert not list(empty_job.glob("*.png"))


def test_ctrl_c_leaves_whole_files_and_exits_with_130(source, empty_job):
    folder, _ = source
    for number in (1, 2, 3):
        copy_iteration(folder, empty_job, number)
    process = start("converge", empty_job, "--watch")
    wait_until((empty_job / "converge_summary.png").exists)  # it is drawing
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "interrupted" in message
    assert "Traceback" not in message
    made = [path for path in empty_job.iterdir() if not path.name.startswith("run_")]
    assert not [path.name for path in made if path.name.startswith(".")]
    for path in made:
        if path.suffix == ".png":
            assert path.read_bytes().rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
    assert (empty_job / "converge.log").read_text().endswith("percent of the input pool.\n\n")


def test_ctrl_c_in_a_terminal_leaves_the_last_state_on_the_screen(source, empty_job):
    folder, _ = source
    copy_iteration(folder, empty_job, 1)
    child = open_terminal("converge", empty_job, "--watch", "--no-plots", "--settle", 0.4)
    child.expect("waiting for the next iteration")
    wait_until((empty_job / "converge_classes.csv").exists)
    child.sendintr()
    child.expect("Rule: ")
    assert end_of(child)[0] == 130


def test_tables_fit_terminals_of_80_and_140_columns(tmp_path):
    course = wander(1000, 200, 4, seed=2)
    for number, classes in enumerate(course, 1):
        write_iteration(tmp_path, number, classes)
    for columns in (80, 140):
        code, shown = run_in_terminal("converge", tmp_path, "--no-plots", columns=columns)
        lines = without_escapes(shown).splitlines()
        assert code == 0
        assert max(map(len, lines)) <= columns
        assert any("… and 180 smaller classes" in line for line in lines)
        sizes = sorted(count(course[-1]).values(), reverse=True)
        top = next(place for place, line in enumerate(lines) if "largest first" in line) + 2
        assert [int(re.search(r"[█▏▎▍▌▋▊▉]+\s+(\d+)", line)[1]) for line in lines[top : top + 20]] == sizes[:20]


def test_a_reader_that_has_seen_enough_ends_it_quietly(source, tmp_path):
    command = f"{COMMAND} converge {source[0]} -o {tmp_path} --no-plots | head -1"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    assert done.stderr == ""


WATCHED = """
import sys
from cryobridge.jobs.converge.converge import plan_converge
from cryobridge.jobs.converge.options import ConvergeOptions

plan = plan_converge(sys.argv[1], sys.argv[2], ConvergeOptions(), settle_s=0)
dry_run = sys.argv[3] == "dry"
with plan.watching(0, dry_run=dry_run) as looks:
    for look in looks:
        if not dry_run:
            plan.write(look.new)
        print(len(plan._pictures._drawn), "matplotlib" in sys.modules)
"""


@pytest.mark.parametrize(("kind", "said"), [("dry", "0 False"), ("real", "5 False")])
def test_pictures_of_a_watched_job_are_drawn_in_a_process_of_their_own(source, empty_job, tmp_path, kind, said):
    for number in (1, 2, 3):
        copy_iteration(source[0], empty_job, number)
    words = [sys.executable, "-c", WATCHED, str(empty_job), str(tmp_path / "out"), kind]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split("\n")[0] == said
    if kind == "real":
        converge(empty_job, tmp_path / "plain", each_iteration=True)
        for path in (tmp_path / "plain").iterdir():
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name
