from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cryobridge.cli.commands import COMMANDS, load
from cryobridge.cli.field_table import field_lines
from cryobridge.jobs.inspection.report import FieldSummary
from helpers import (
    end_of,
    left_on_screen,
    noise_images,
    open_terminal,
    particle_columns,
    run,
    run_anew,
    run_in_terminal,
    save_cs,
    save_mrc,
    save_star,
    without_escapes,
)

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m")


@pytest.fixture
def many_files(tmp_path, particles_cs):
    long = {"rln" + "VeryLongLabel" * 4: [0.5, 1.5], "rlnDefocusU": [1e4, 2e4], "rlnMicrographName": ["m" * 120] * 2}
    evil = particle_columns(["日本語" * 30] * 3, range(3)) | {"many/" + "words_" * 12: np.full((3, 3, 4, 5), 0.1, "f4")}
    return [
        particles_cs,
        save_star(tmp_path / "long.star", "particles", long),
        save_star(tmp_path / "one.star", "particles", {name: values[:1] for name, values in long.items()}),
        save_cs(tmp_path / "evil.cs", evil),
        save_mrc(tmp_path / "stack.mrcs", noise_images(2, 12)),
    ]


@pytest.mark.parametrize("columns", [80, 140])
def test_no_line_is_longer_than_the_terminal(columns, many_files, tmp_path):
    absent = tmp_path / ("absent_" * 20)
    for words in (("--rows", 1, "--fields", "*", *many_files[:-1]), ("--no-stats", *many_files, absent)):
        _, shown = run_in_terminal("inspect", *words, columns=columns)
        lines = left_on_screen(shown).split("\n")
        assert len(lines) > 50
        assert max(map(cell_len, lines)) <= columns


def commands(below=None, words=()):
    # Every command, and the words that call it.
    below = below or {name: load(name) for name in COMMANDS}
    for name, command in below.items():
        if hasattr(command, "commands"):
            yield from commands(command.commands, (*words, name))
        yield (*words, name), command


@pytest.mark.parametrize("words", [(), *(words for words, _ in commands())], ids=" ".join)
def test_every_help_fits_80_columns_uncut(words):
    code, shown = run_in_terminal(*words, "-h", TERM="dumb")
    lines = without_escapes(shown).replace("\r", "").split("\n")
    assert code == 0
    assert max(map(cell_len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_one_option_has_the_same_words_in_every_command():
    message = {}
    for _, command in commands():
        for parameter in command.params:
            message.setdefault(parameter.opts[0], set()).add((parameter.help, parameter.metavar))
    same = {"--json", "--overwrite", "--dry-run", "--resume", "--datadir", "--strip-prefix", "--folder-mrc"}
    same |= {"--flip-x", "--swap-xy", "--on-missing"}  # --flip-y is of coordinates, and of pixels
    assert {name: words for name, words in message.items() if name in same and len(words) > 1} == {}
    assert same <= message.keys()


def test_a_terminal_has_colours_unless_no_color_asks_otherwise(particles_cs, tmp_path):
    absent = tmp_path / "absent.cs"
    _, coloured = run_in_terminal("inspect", particles_cs, absent)
    assert COLOUR.search(coloured)
    for changes in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, shown = run_in_terminal("inspect", particles_cs, absent, **changes)
        assert code == 1
        assert not COLOUR.search(shown)
        assert left_on_screen(shown) == left_on_screen(coloured)
    assert "\x1b" not in run_in_terminal("inspect", particles_cs, TERM="dumb")[1]


def test_an_implausible_column_is_marked_by_more_than_its_colour(tmp_path):
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 2, [0, 1]) | {"ctf/cs_mm": [27.0, 28.0]})
    _, shown = run_in_terminal("inspect", path, NO_COLOR="1")
    row = next(line for line in left_on_screen(shown).splitlines() if "cs_mm" in line)
    assert "!" in row
    assert re.search(r"^! ctf/cs_mm: 27 to 28 ", left_on_screen(shown), re.M)


def test_progress_is_shown_while_work_runs_and_is_gone_after_it(tmp_path):
    code, shown = run_in_terminal("demo", tmp_path / "demo")
    assert code == 0
    assert "simulating micrographs" in shown
    # Each line that held a bar was cleared before anything else went there.
    after = shown[shown.rindex("simulating micrographs") :]
    assert "\x1b[2K" in after
    assert "Where to look" in after


QUIET = {
    "stacks cs": ("{cs} -o out -b 2 --no-plots", "images: 16 to do"),
    "stacks cs in parts": ("{cs} -o out --part 0/1 --no-plots", "images: 16 to do"),
    "stacks star": ("{star} -o out --no-plots", "images: 16 to do"),
    "stacks downsample": ("{cs} -o out -D 32", "images: 16 to do"),
    "coords": ("{cs} {ctf} -o out", "loading torch"),
    "convert": ("{cs} -o out.star --micrographs {ctf}", "loading torch"),
}


@pytest.mark.parametrize("name", QUIET)
def test_quiet_leaves_out_the_lines_of_progress_that_a_log_has(name, demo_project, tmp_path):
    words, line = QUIET[name]
    star = demo_project.relion / "Extract" / "job005" / "particles.star"
    words = words.format(cs=demo_project.particles_cs, star=star, ctf=demo_project.micrographs_star).split()
    command = name.split()[: 1 + (name.split()[0] == "stacks")]
    # That torch is being loaded is said where it takes long, which in a fork it does not.
    done = (run_anew if line == "loading torch" else run)(*command, *words, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(line.startswith("! ") for line in done.stderr.splitlines()), done.stderr
    if line != "loading torch":
        (tmp_path / "aloud").mkdir()
        assert line in run(*command, *words, cwd=tmp_path / "aloud").stderr
        logs = [path.read_text() for path in tmp_path.rglob("run.log")]
        assert [line in log for log in logs] == [True, True]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_the_terminal_as_ctrl_c_does(number, code, tmp_path):
    child = open_terminal("demo", tmp_path / "demo")
    child.expect("simulating micrographs")
    shown = child.before
    child.kill(number)
    ended_by, rest = end_of(child)
    shown += rest
    assert ended_by == code
    assert "interrupted (SIG" in shown
    assert "Traceback" not in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("moment", ["check_limits", "_run", "ignore_signals"])
def test_an_interrupt_before_and_behind_the_work_ends_with_130_too(moment):
    script = f"""
import os, signal, sys
from cryobridge.cli import app

sys.argv = ["cryobridge", "--version"]
called = app.{moment}
def interrupted():
    app.{moment} = called
    os.kill(os.getpid(), signal.SIGINT)
    return called()
app.{moment} = interrupted
app.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted\n"


def test_a_terminal_that_is_closed_ends_the_run_and_leaves_whole_files(tmp_path):
    child = open_terminal("demo", tmp_path / "demo")
    child.expect("simulating micrographs")
    # Only the terminal goes: its programs are sent SIGHUP by the system.
    os.close(child.child_fd)
    _, status = os.waitpid(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_control_c_ends_with_130_and_leaves_no_traceback(tmp_path):
    child = open_terminal("demo", tmp_path / "demo")
    child.expect("simulating micrographs")
    child.sendintr()
    ended_by, rest = end_of(child)
    assert ended_by == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


NAMES = st.text(st.characters(categories=["L", "N"], include_characters="_/"), min_size=1, max_size=60)
NUMBERS = st.floats(-1e30, 1e30)
SUMMARIES = st.builds(
    lambda name, unit, numbers, distinct, nan, example, has_bars: FieldSummary(
        name,
        "f4",
        (2,),
        unit,
        "",
        *([None] * 3 if numbers is None else sorted(numbers)),
        distinct,
        nan,
        tuple(range(16)) if has_bars and numbers else (),
        example,
    ),
    NAMES,
    st.sampled_from(["", "Å", "fraction"]),
    st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.none() | st.integers(0, 10**8),
    st.integers(0, 1000),
    st.text(st.characters(categories=["L", "N", "P"]), max_size=300),
    st.booleans(),
)


def shown_name(summary):
    group, _, name = summary.name.partition("/")
    return name if group and name else summary.name


@given(st.lists(SUMMARIES, min_size=1, max_size=8), st.integers(100, 200))
def test_the_table_of_columns_keeps_every_name_and_number_at_any_width(summaries, width):
    lines = [line.plain for line in field_lines(tuple(summaries), width)]
    text = "\n".join(lines)
    for summary in summaries:
        assert shown_name(summary) in text
        if summary.nan:
            assert f"{summary.nan:,}" in text
        if summary.distinct is not None and not summary.is_constant:
            assert f"{summary.distinct:,}" in text
    names = {shown_name(summary) for summary in summaries}
    assert all(cell_len(line) <= width for line in lines if line.strip() not in names)
