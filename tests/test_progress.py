from __future__ import annotations

import threading

import pytest

from cryobridge.errors import option
from cryobridge.progress import LOADING_TORCH, Both, Crew, LineReporter, Silent, in_words
from cryobridge.report import note


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines():
    return []


def work(reporter, clock, seconds_each):
    for seconds in seconds_each:
        clock.now_s += seconds
        reporter.advance(10)


def test_quick_steps_leave_the_first_and_the_last_line(clock, lines):
    reporter = LineReporter(lines.append, clock=clock)
    reporter.start("images", 50)
    work(reporter, clock, [1] * 5)
    reporter.end()
    assert lines == ["images: 50 to do", "images: 50 in 5.0 s, 10/s"]


def test_long_work_leaves_a_line_a_minute_with_rate_and_time_left(clock, lines):
    reporter = LineReporter(lines.append, clock=clock)
    reporter.start("images", 1000)
    reporter.now("stack 1 of 4")
    work(reporter, clock, [5] * 100)
    reporter.end()
    assert lines[1] == "images: 120 of 1,000, stack 1 of 4, 2/s, 7 min 20 s left"
    assert len(lines) == 2 + 8
    assert lines[-1] == "images: 1,000 in 8 min 20 s, 2/s"


def test_each_step_of_more_than_a_minute_has_its_line(clock, lines):
    reporter = LineReporter(lines.append, clock=clock)
    reporter.start("images", 30)
    work(reporter, clock, [100, 4000])
    reporter.end()
    assert lines[1:] == [
        "images: 10 of 30, 0.1/s, 3 min 20 s left",
        "images: 20 of 30, 0.0025/s, 1 h 6 min left",
        "images: 20 of 30 in 1 h 8 min, 0.0049/s",
    ]


def test_workers_have_a_row_each_and_the_time_left_follows_from_all_that_is_done(clock, lines):
    reporter = LineReporter(lines.append, clock=clock)
    reporter.start("images", 1000)
    for seconds, worker in ((50, "a/0"), (0, "b/1"), (40, "a/0")):
        clock.now_s += seconds
        reporter.done_by(worker, 100, 50 if worker == "b/1" else 40)
        reporter.now("stack 3 of 10")
        reporter.advance(100)
    reporter.end()
    rows = ["  a/0: 2 tasks, 2.5/s", "  b/1: 1 task, 2/s"]
    assert lines[1:] == [
        "images: 300 of 1,000, stack 3 of 10, 3.3/s, 3 min 30 s left",
        *rows,
        "images: 300 of 1,000 in 1 min 30 s, 3.3/s",
        *rows,
    ]


def test_of_many_workers_the_first_have_a_row(clock):
    crew = Crew(clock)
    for number in range(40):
        crew.add(f"node{number:02}/0", 10, 1.0)
    rows = crew.rows()
    assert rows[0] == ("node00/0", "1 task, 10/s")
    assert rows[16:] == [("24 more", "24 tasks")]


def test_a_reporter_that_knows_of_no_workers_is_left_alone():
    class Old:
        def advance(self, steps=1):
            self.steps = steps

    old = Old()
    both = Both(old, Silent())
    both.done_by("a/0", 10, 1.0)
    both.advance(10)
    assert old.steps == 10


def test_short_work_leaves_no_line_where_that_is_asked_for(clock, lines):
    reporter = LineReporter(lines.append, after_s=10, clock=clock)
    reporter.start("columns", 3)
    work(reporter, clock, [0.1] * 3)
    reporter.start("reading", None)
    reporter.end()
    assert lines == []


def test_torch_is_named_once_it_has_taken_half_a_second(lines):
    said = threading.Event()

    def write(line):
        lines.append(line)
        said.set()

    reporter = LineReporter(write)
    reporter.start(LOADING_TORCH, None)
    assert lines == []
    assert said.wait(10)
    reporter.end()
    assert lines == ["loading torch"]


def test_a_note_goes_to_both_with_its_options_as_each_shows_them(lines):
    python, shell = [], LineReporter(lines.append, show=lambda name, _: f"--{name}")
    Both(LineReporter(python.append), Both(shell, Silent())).note(note("x", f"give {option('resume', True)}"))
    assert (python, lines) == (["give resume=True"], ["give --resume"])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (3599.6, "1 h 0 min")]
)
def test_times_are_in_two_units_at_most(seconds, words):
    assert in_words(seconds) == words
