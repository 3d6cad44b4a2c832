from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile

import cryobridge.cli.demo_command
from cryobridge.cli.app import app
from cryobridge.cli.terminal import settings
from cryobridge.demo import plan_demo, simulate_project
from cryobridge.demo.truth import draw_truth
from cryobridge.errors import CryobridgeError, OutputExistsError
from cryobridge.formats import input_file
from cryobridge.formats.atomic import write_error
from helpers import COMMAND, environment, noise_images, particle_columns, run, save_cs, save_mrc, save_star, start

EVERY_COMMAND = [(), ("inspect",), ("coords",), ("stacks",), ("stacks", "cs"), ("demo",)]

# Also in the folders that the commands of the tour write to.
NOT_OF_THE_DEMO = ("relion/picks/Raw_data/notes.txt", "stacks/fft/notes.txt", "thick2.cs")


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    # Over an older, smaller project with files of the user's: what is refused, and what --overwrite replaces.
    folder = tmp_path_factory.mktemp("demo") / "project"
    simulate_project(folder, n_micrographs=1, particles_per_micrograph=1)
    for name in NOT_OF_THE_DEMO:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    refused = run("demo", folder)
    return folder, refused, run("demo", folder, "--overwrite")


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_help_and_version_work_on_every_command(words):
    shown = run(*words, "-h")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert {"-q,", "-v,", "--debug", "--version"} <= set(shown.stdout.split())
    version = run(*words, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("cryobridge ")


def test_verbose_tells_time_and_memory_wherever_it_stands(particles_cs):
    for words in (("-v", "inspect", particles_cs), ("inspect", particles_cs, "-v")):
        done = run(*words)
        assert done.returncode == 0
        assert " s, at most " in done.stderr
        assert "MB" in done.stderr
        assert " s, at most " not in done.stdout


def test_quiet_leaves_results_and_errors(particles_cs, tmp_path):
    assert "uid" in run("-q", "inspect", particles_cs).stdout
    made = run("stacks", "cs", "-q", particles_cs, "--no-plots", "-o", tmp_path / "out")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert "absent.cs" in run("inspect", "-q", tmp_path / "absent.cs").stderr


def test_only_debug_shows_a_traceback(tmp_path):
    absent = tmp_path / "absent.cs"
    assert "Traceback" not in run("inspect", absent).stderr
    for words in (("--debug", "inspect"), ("inspect", "--debug"), ("inspect", "--debug", absent)):
        assert "Traceback" in run(*words, absent).stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("inpsect",), "inpsect"),
        (("inspect",), "PATH"),
        (("inspect", "x.cs", "--rows", "-1"), "--rows"),
        (("inspect", "x.cs", "--check", "dinner"), "coords, stacks, stacks-job, poses, ctf, recovar"),
        (("inspect", "x.cs", "--datadir", "."), "--paths"),
        (("inspect", "x.cs", "--frobnicate"), "--frobnicate"),
        (("coords", "a.cs"), "MICROGRAPHS_CTF.star"),
        (("stacks", "cs", "a.cs"), "--output"),
        (("stacks", "cs", "a.cs", "-o", "out", "-p", "p.npz", "--n-inplanes", "8"), "--n-inplanes"),
        (("demo", "--seed", "-1"), "--seed"),
        (("demo", "--seed", "x"), "'x' is not a valid integer.\n"),
        (("stacks", "grid", "--n-pixels", "8", "--pixel-size", "x", "-o", "a.npz"), "'x' is not a valid number.\n"),
        (("inspect", ""), "empty"),
        (("stacks", "cs", "a.cs", "-o", ""), "empty"),
        (("convert", "a.star", "-o"), "cryobridge convert -h"),
        (("stacks", "downsmaple"), "Did you mean `cryobridge stacks downsample`?"),
        (("stacks", "down"), "Did you mean `cryobridge stacks downsample`?"),
        (("downsample", "a.star"), "Did you mean `cryobridge stacks downsample`?"),
        (("stacks", "convert"), "Did you mean `cryobridge convert`?"),
        (("version",), "Did you mean `cryobridge --version`?"),
        (("help",), "Did you mean `cryobridge --help`?"),
        (("csparc2star.py", "a.cs", "b.star"), "`cryobridge convert` does what csparc2star.py did; "),
        (("reliosparc",), "`cryobridge coords` does what reliosparc did; "),
        (("filter_star",), "docs/coming-from.md has the options side by side"),
        (("stacks", "crop"), "Did you mean `cryobridge stacks downsample`?"),
        (("info",), "Did you mean `cryobridge inspect`?"),
        (("insepct",), "Did you mean `cryobridge inspect`?"),
        (("frobnicate",), "`cryobridge -h` shows the commands."),
        (("select", "a.star", "--whree", "x"), "--where"),
        (("select", "a.star", "--like", "b.star", "--like", "c.star", "-o", "d.star"), "--like is given twice"),
        (("convert", "a.star", "-o", "b.cs", "-o", "c.cs"), "--output is given twice"),
        (("convert", "a.star", "-o", "b.cs", "--center", "nan,0,1"), "--center: nan,0,1: 'nan' is no number"),
        (("convert", "a.star", "-o", "b.cs", "--center", "0,1"), "--center: 0,1: 3 numbers are needed"),
        (
            ("select", "a.star", "-o", "b.star", "--where", "a >> 1"),
            "--where 'rlnDefocusU > 12000 and rlnClassNumber in",
        ),
        (("coords", "my picks.cs"), "`cryobridge coords 'my picks.cs' CtfFind/job003/micrographs_ctf.star -o OUT`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_request_that_cannot_be_meant_ends_with_2_and_what_is_right(words, sentence, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert sentence in done.stderr
    assert "→" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_words_the_help_is_shown_and_it_counts_as_usage():
    done = run()
    assert done.returncode == 2
    assert "inspect" in done.stdout


def _short_row(path):
    return path.write_text("data_particles\n\nloop_\n_rlnDefocusU #1\n_rlnDefocusV #2\n1.0 2.0\n3.0\n\n")


def _truncated(path):
    save_cs(path, particle_columns(["a.mrc"] * 50, np.arange(50)))
    os.truncate(path, path.stat().st_size - 1000)


BAD_FILES = {
    "truncated.cs": (_truncated, "50 rows"),
    "cut_in_header.cs": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xf6\x04{'descr': "), "header"),
    "text.cs": (lambda path: path.write_text("uid,path\n1,a.mrc\n"), "uid"),
    "star.cs": (lambda path: save_star(path, "particles", {"rlnDefocusU": [1.0]}), "star"),
    "short_row.star": (_short_row, "line 7"),
    "word.star": (lambda path: save_star(path, "particles", {"rlnDefocusU": [1.0, "much"]}), "rlnDefocusU"),
    "empty.cs": (lambda path: path.touch(), "empty"),
    "folder": (lambda path: path.mkdir(), "nothing known"),
    "link.cs": (lambda path: path.symlink_to("nowhere.cs"), "a link to nowhere.cs, which is not there"),
    "notes.txt": (lambda path: path.write_text("Dear diary,\n"), "text that starts with “Dear diary,”"),
    "picture.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n and so on"), "the bytes 89 50 4e 47"),
    "circle.cs": (lambda path: path.symlink_to(path), "can't be read"),
    "pipe.cs": (os.mkfifo, "not a regular file"),
    "half.mrc": (lambda path: path.write_bytes(bytes(500)), "500 bytes"),
    "archive.npz": (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "archive"),
    "noise.pkl": (lambda path: path.write_bytes(b"\x80\x04 no pickle"), "pickle"),
    f"{'n' * 300}.cs": (lambda path: None, "can't be read"),
}


@pytest.mark.parametrize("name", BAD_FILES, ids=lambda name: name[:20])
def test_a_bad_file_gives_one_message_with_file_and_remedy(name, messages_of_bad_files):
    message, _, remedy = messages_of_bad_files[name].partition("→")
    _, sentence = BAD_FILES[name]
    assert f"{name}: " in message
    assert sentence in message
    assert "mistake in cryobridge" not in remedy
    assert len(remedy.strip()) > 10


def test_good_files_are_shown_beside_bad_ones(particles_cs, tmp_path):
    absent, text = tmp_path / "absent.star", tmp_path / "text.cs"
    text.write_text("no table")
    done = run("inspect", absent, particles_cs, text, particles_cs)
    assert done.returncode == 1
    assert done.stdout.count("J1_particles.cs\n") == 2
    assert done.stderr.count("Error: ") == 2
    assert "absent.star" in done.stderr
    assert "absent.star" not in done.stdout

    as_json = run("inspect", "--json", absent, particles_cs, text)
    assert as_json.returncode == 1
    assert [item["path"] for item in json.loads(as_json.stdout)] == [str(particles_cs)]
    assert as_json.stderr.count("Error: ") == 2


def test_json_is_json_even_when_nothing_can_be_read(tmp_path):
    done = run("inspect", "--json", tmp_path / "absent.cs")
    assert done.returncode == 1
    assert json.loads(done.stdout) == []


def test_a_check_answers_with_the_exit_code(particles_cs):
    assert run("inspect", "--check", "stacks", "--check", "ctf", particles_cs).returncode == 0
    for words in (("--check", "poses"), ("--check", "stacks", "--check", "poses"), ("--check", "poses", "--json")):
        done = run("inspect", *words, particles_cs)
        assert done.returncode == 3
        assert "not ready for poses: alignments3D/pose" in done.stderr
    absent = particles_cs.with_name("absent.cs")
    assert run("inspect", "--check", "poses", particles_cs, absent).returncode == 1


def test_a_reader_that_has_seen_enough_ends_it_quietly(particles_cs):
    for words in (("inspect", particles_cs), ("inspect", "--json", particles_cs)):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, env=environment(), check=False, timeout=60
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")
    shell = f"{COMMAND} inspect {particles_cs} {particles_cs} | head -1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == f"{particles_cs}\n"
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_results_that_cannot_be_written_are_an_error(words, particles_cs):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "inspect", *words, str(particles_cs)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stderr.count("Error: ") == 1


def test_a_narrow_encoding_of_the_output_is_no_error(particles_cs):
    done = run("inspect", particles_cs, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.5 \\xc5" in done.stdout
    assert json.loads(run("inspect", "--json", particles_cs, PYTHONIOENCODING="ascii").stdout)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_streams_are_no_error(redirection, particles_cs):
    assert subprocess.run(f"{COMMAND} inspect {particles_cs} {redirection}", shell=True, check=False).returncode == 0


def test_no_control_character_of_a_file_reaches_the_output(tmp_path):
    evil = "\x1b[31mred\x07\n\x9b2Jx"
    columns = particle_columns([f"J1/{evil}.mrc"] * 2, [0, 1]) | {f"odd/{evil}": np.zeros(2), f"{evil}/s": ["a", evil]}
    path = save_cs(tmp_path / f"name{evil}\udcff.cs", columns)
    shown = run("inspect", "--rows", 2, "--paths", path)
    broken = run("inspect", f"{path}x")
    usage = run("coords", "a", "b", path)
    as_json = run("inspect", "--json", "--rows", 2, path)
    assert [shown.returncode, broken.returncode, usage.returncode, as_json.returncode] == [0, 1, 2, 0]
    for text in (shown.stdout, shown.stderr, broken.stderr, usage.stderr, as_json.stdout):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[31mred\\x07\\n\\x9b2Jx\\udcff.cs" in shown.stdout.splitlines()[0]
    assert f"odd/{evil}" in {field["name"] for field in json.loads(as_json.stdout)[0]["fields"]}


def test_markup_in_a_name_is_shown_as_it_is(tmp_path):
    path = save_cs(tmp_path / "[red]a[/red].cs", particle_columns(["[bold]x[/bold].mrc"], [0]) | {"[i]/j": [1]})
    shown = run("inspect", path).stdout
    assert "[red]a[/red].cs" in shown
    assert "[bold]x[/bold].mrc" in shown
    assert "[i]" in shown


def test_piped_paths_are_shortened_in_the_middle_and_no_line_ends_in_blanks(tmp_path):
    long = "J1/" + "long/" * 60 + "x.mrc"
    path = save_cs(tmp_path / ("d" * 200) / "p.cs", particle_columns([long] * 2, [0, 1]) | {"f/" + "g" * 150: [0, 1]})
    # COLUMNS is for terminals; some shells and test runners export it.
    lines = run("inspect", path, COLUMNS="40").stdout.splitlines()
    start, end = lines[0].split("…")
    assert str(path).startswith(start)
    assert str(path).endswith(end)
    assert any(line.startswith("  path") and "…" in line and "/x.mrc" in line for line in lines)
    # Columns are named in full, and commands are to be pasted.
    assert any("g" * 150 in line for line in lines)
    assert all(len(line) <= 120 for line in lines if "g" * 150 not in line and str(path) not in line)
    assert all(line == line.rstrip() for line in lines)
    sentence = run("inspect", path.with_name("absent.cs"), COLUMNS="40").stderr.splitlines()
    assert sentence[0] == f"Error: {path.with_name('absent.cs')}: can't be read (No such file or directory)"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "interrupted (SIGTERM)\n"),
        (signal.SIGHUP, 129, "interrupted (SIGHUP)\n"),
    ],
)
def test_a_signal_ends_with_its_code(number, code, said, tmp_path):
    with start("demo", tmp_path / "demo") as child:
        wait_until((tmp_path / "demo" / "cryosparc").exists, child)
        child.send_signal(number)
        _, sentence = child.communicate(timeout=30)
    assert child.returncode == code
    assert sentence == said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["cryobridge.cli.app", "typer"])
def test_a_signal_while_the_program_is_loaded_gives_no_traceback(module, number):
    code = (
        "import os, signal, sys\n"
        f"strike = lambda event, names: os.kill(os.getpid(), {int(number)}) if event == 'import' and "
        f"names[0] == {module!r} else None\n"
        "sys.addaudithook(strike)\n"
        "from cryobridge.__main__ import main\n"
        "sys.argv[1:] = ['inspect', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.startswith("interrupted")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("limits", "words", "said"),
    [
        ("ulimit -v 250000", "convert p.cs -o out.star", "address space"),
        ("ulimit -v 1000000", "stacks cs p.cs -o out", "address space"),
        ("ulimit -v 1900000", "stacks cs p.cs -o out", "address space"),
        # A stack of this size is set aside for each thread, so that few fit.
        ("ulimit -s 3000000; ulimit -v 8000000", "convert p.cs -o out.star", "threads"),
        ("ulimit -s 3000000; ulimit -v 8000000", "stacks cs p.cs -o out", "threads"),
    ],
)
def test_too_little_of_the_systems_means_is_one_message(limits, words, said, tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(2, 16), 1.5)
    save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 2, [0, 1]))
    command = f"{limits}; exec {shlex.quote(sys.executable)} -m cryobridge {words}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert done.stderr.count("Error: ") == 1
    assert "\nError: " in f"\n{done.stderr}"  # notes on the input may stand before it
    assert "mistake in cryobridge" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stacks_run_that_is_interrupted_leaves_nothing_half_written(tmp_path):
    save_mrc(tmp_path / "a.mrc", np.tile(noise_images(1, 16), (2000, 1, 1)), 1.5)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 2000, np.arange(2000)))
    with start("stacks", "cs", path, "-o", tmp_path / "out", "-b", 1) as child:
        wait_until(lambda: list(tmp_path.glob("out/fft/particles*.pt")), child)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130
    assert json.loads((tmp_path / "out" / "job.json").read_text())["status"] == "interrupted"
    assert 0 < len(list(tmp_path.glob("out/fft/particles*.pt"))) < 2000
    assert not list(tmp_path.glob("out/**/.*"))


def test_demo_takes_a_simulated_project_through_all_commands(demo_run):
    folder, _, done = demo_run
    assert done.returncode == 0, done.stderr
    for command in ("inspect", "coords", "convert", "select", "stacks cs", "stacks downsample", "converge"):
        assert f"$ cryobridge {command} " in done.stdout
    assert "6 of 6 found, each long enough" in done.stdout
    assert "Orientation: sure" in done.stdout
    assert "Converged. In the last 3 iterations" in done.stdout
    made = ("relion/picks/autopick.star", "relion/particles.star", "relion/thick.star", "thick.csg", "good.csg")
    pictures = ("stacks/plots/power_spectrum_stack_000000.png", "relion/Class2D/job004/converge_summary.png")
    stacks = ("stacks/fft/particles_fourier_stack_000000.pt", "downsampled/particles.48.mrcs")
    for name in (*made, *pictures, *stacks):
        assert (folder / name).is_file(), name
    # 200 of the 300 simulated particles are that thick, in both programs' files.
    particles = draw_truth(6, 50, 0).particles
    thick = particles.ctf.defocus_u_A > 12000
    assert len(starfile.read(folder / "relion" / "thick.star")["particles"]) == thick.sum()
    assert len(np.load(folder / "thick.cs")) == thick.sum()
    # Those of classes 1 and 2, which RELION knows by micrograph and position alone.
    good = np.isin(particles.class_number, (1, 2))
    assert sorted(np.load(folder / "good.cs")["uid"]) == sorted(particles.uid[good])
    assert f"came back  {good.sum()} of good classes, with the uids that were simulated\n" in done.stdout
    extracted_by = "RELION's relion_preprocess" if shutil.which("relion_preprocess") else "the simulation"
    assert f"extracted  by {extracted_by}\n" in done.stdout


def test_the_commands_of_one_demo_show_a_message_once(demo_run):
    _, _, done = demo_run
    said = [line for line in done.stderr.splitlines() if " to do" not in line and "/s" not in line]
    assert "joined on uid with J4_passthrough_particles.cs" in said
    assert len(said) == len(set(said))


def test_the_commands_that_demo_shows_work_when_typed(demo_run, tmp_path):
    _, _, done = demo_run
    commands = [shlex.split(line)[2:] for line in done.stdout.splitlines() if line.startswith("$ cryobridge ")]
    assert len(commands) == 10
    for place, words in enumerate(commands):
        if "-o" in words:
            output = words.index("-o") + 1
            words[output] = str(tmp_path / str(place)) + Path(words[output]).suffix
        if "--link-stacks" in words:
            words[words.index("--link-stacks") + 1] = str(tmp_path / "links")
        typed = run(*words)
        assert typed.returncode == 0, typed.stderr


def test_picks_of_demo_lie_on_the_simulated_particles(demo_run):
    folder, _, _ = demo_run
    truth = draw_truth(6, 50, 0)
    picks = starfile.read(folder / "relion" / "picks" / "autopick.star")
    assert len(picks) == 6
    for name, pick_file in zip(picks["rlnMicrographName"], picks["rlnMicrographCoordinates"], strict=True):
        assert (folder / "relion" / name).is_file()
        micrograph = [place for place, stem in enumerate(truth.micrographs.name) if stem in name]
        x, y = truth.particles.pick_px[truth.particles.micrograph == micrograph[0]].T
        found = starfile.read(folder / "relion" / pick_file)[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        # RELION's micrographs are those of cryoSPARC upside down; they have 768 rows.
        np.testing.assert_array_equal(found, np.column_stack([x, 768 - y]))


def test_a_stack_file_with_spaces_in_its_name_is_inspected(tmp_path):
    path = save_mrc(tmp_path / "my stack.mrcs", np.zeros((2, 8, 8)))
    done = run("inspect", path)
    assert done.returncode == 0
    assert "2 images" in done.stdout


def wait_until(condition, child):
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("name", ["file", "file/below", "n" * 300], ids=lambda name: name[:20])
def test_an_output_folder_that_cannot_be_made_is_one_message(name, demo_project, tmp_path):
    (tmp_path / "file").touch()
    done = run("coords", "-q", demo_project.passthrough_cs, demo_project.micrographs_star, "-o", tmp_path / name)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("Error: ")
    assert done.stderr.count("Error: ") == 1
    assert "-o" in done.stderr
    assert "mistake in cryobridge" not in done.stderr


@pytest.fixture(scope="module")
def messages_of_bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, (make, _) in BAD_FILES.items():
        make(folder / name)
    done = run("inspect", *(folder / name for name in BAD_FILES))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    messages = done.stderr.split("Error: ")[1:]
    assert len(messages) == len(BAD_FILES)
    return dict(zip(BAD_FILES, messages, strict=True))


def test_one_bad_file_ends_with_1(tmp_path):
    path = tmp_path / "text.cs"
    path.write_text("no table")
    done = run("inspect", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Error: ") == 1


def test_demo_replaces_a_project_only_when_asked_and_nothing_else_ever(demo_run, tmp_path):
    folder, refused, done = demo_run
    assert (refused.returncode, refused.stdout) == (1, "")
    assert str(folder) in refused.stderr
    assert "Give --overwrite " in refused.stderr
    assert done.returncode == 0
    assert {(folder / name).read_text() for name in NOT_OF_THE_DEMO} == {"mine"}
    assert f"kept 3 files that the demo did not make: {', '.join(NOT_OF_THE_DEMO)}\n" in done.stderr

    (tmp_path / "thesis.tex").write_text("the only copy")
    refused = run("demo", tmp_path, "--overwrite")
    assert refused.returncode == 1
    assert (tmp_path / "thesis.tex").read_text() == "the only copy"


def test_all_that_the_tour_of_a_demo_has_made_is_replaced(demo_run, tmp_path):
    shutil.copytree(demo_run[0], tmp_path / "toured", copy_function=os.link, symlinks=True)
    again = simulate_project(tmp_path / "toured", n_micrographs=1, particles_per_micrograph=1, overwrite=True)
    assert {str(path.relative_to(again.folder)) for path in again.kept} == set(NOT_OF_THE_DEMO)
    alone = simulate_project(tmp_path / "alone", n_micrographs=1, particles_per_micrograph=1)
    there, made = ({path.relative_to(demo.folder) for path in demo.folder.rglob("*")} for demo in (again, alone))
    mine = {Path(name) for name in NOT_OF_THE_DEMO}
    assert there == made | mine | {parent for path in mine for parent in path.parents} - {Path()}


def test_a_quiet_demo_says_nothing_but_errors(tmp_path, monkeypatch, capfd):
    def tour(project):
        particles = project.particles_cs
        convert = [["convert", particles, "-o", project.folder / f"{name}.star"] for name in names]
        return [["inspect", "--no-stats", particles], *convert]

    names = ["a"]
    small = {"n_micrographs": 1, "particles_per_micrograph": 1}
    monkeypatch.setattr(
        "cryobridge.demo.plan_demo", lambda folder, options: plan_demo(folder, replace(options, **small))
    )
    monkeypatch.setattr(cryobridge.cli.demo_command, "_tour", tour)
    monkeypatch.setattr(settings, "quiet", False)
    app(["demo", str(tmp_path / "sentence")], standalone_mode=False)
    sentence = capfd.readouterr()
    assert "Where to look" in sentence.out
    assert "! " in sentence.err
    app(["demo", "-q", str(tmp_path / "quiet")], standalone_mode=False)
    assert capfd.readouterr() == ("", "")
    names.append("a")
    with pytest.raises(OutputExistsError):
        app(["demo", "-q", str(tmp_path / "failing")], standalone_mode=False)


@pytest.mark.parametrize("words", [("--rows", "1"), ("--paths",), ("--fields", "blob/*")], ids=" ".join)
def test_what_only_tables_have_is_shown_of_the_tables_among_several_paths(words, particles_cs):
    image = particles_cs.parent / "extract" / "a.mrc"
    done = run("inspect", "--json", *words, image, particles_cs, image.parent.parent)
    assert done.returncode == 2
    assert [entry["path"] for entry in json.loads(done.stdout)] == [str(particles_cs), str(particles_cs.parent)]
    assert done.stderr.startswith(f"Error: {image}: --fields, --rows and --paths are for particle tables")
    assert done.stderr.count("Error: ") == 1


def test_a_debug_traceback_shows_no_control_character_of_a_name(tmp_path):
    evil = "\x1b[31mred\x07\n\x9b2J\u202ex"
    absent, text = tmp_path / f"absent{evil}.cs", tmp_path / f"text{evil}.cs"
    text.write_text("no table")
    for words in (("inspect", absent, text), ("convert", text, "-o", tmp_path / f"{evil}.star")):
        sentence = run("--debug", *words).stderr
        assert "Traceback" in sentence
        assert "\\x1b[31mred\\x07\\n\\x9b2J\\u202ex" in sentence
        assert all(char.isprintable() or char == "\n" for char in sentence)


def test_debug_changes_neither_what_is_shown_nor_the_exit_code(particles_cs, tmp_path):
    words = ("inspect", "--rows", 1, particles_cs.parent / "extract" / "a.mrc", tmp_path / "absent.cs", particles_cs)
    usual, debugged = run(*words), run(*words, "--debug")
    assert (debugged.returncode, debugged.stdout) == (usual.returncode, usual.stdout)
    assert usual.stderr.splitlines()[-2:] == debugged.stderr.splitlines()[-2:]
    assert [line for line in debugged.stderr.splitlines() if line.startswith("Error: ")] == [
        line for line in usual.stderr.splitlines() if line.startswith("Error: ")
    ]


def test_a_link_that_leads_nowhere_does_not_hide_the_job_around_it(particles_cs):
    circle = particles_cs.parent / "circle"
    circle.symlink_to(circle)
    done = run("inspect", "--no-stats", particles_cs.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cryoSPARC job" in done.stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("inspect", "J4_particle.cs"), "J4_particles.cs"),
        (("inspect", "j4_particles.CS"), "J4_particles.cs"),
        (("inspect", "cyrosparc/J4/particles.star"), "cryosparc/J4/particles.cs"),
        (("stacks", "star", "J4_particles.star", "-o", "out"), "J4_particles.cs"),
        (("stacks", "paired", "--pair", "a.star", "a.mrcs", "-o", "out"), None),
        (("converge", "cyrosparc/J4"), "cryosparc/J4"),
        (("inspect", "entirely_else"), None),
        (("stacks", "job", "cyrosparc", "4", "-o", "out"), "cryosparc"),
        (("inspect", "cyrosparc/J4/entirely_else"), None),
    ],
)
def test_a_file_that_is_not_there_suggests_the_nearest_name(words, meant, tmp_path):
    (tmp_path / "cryosparc" / "J4").mkdir(parents=True)
    for name in ("J4_particles.cs", "cryosparc/J4/particles.cs"):
        (tmp_path / name).write_bytes(b"x")
    done = run(*words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert (f"Did you mean {meant}?" in done.stderr) if meant else ("Did you mean" not in done.stderr)


def test_of_a_file_that_may_not_be_read_it_is_said_what_to_do(particles_cs, monkeypatch):
    # Root may read all files: that the system refuses is simulated where Typer would ask, and where files are opened.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(input_file.os, "open", refuse)
    with pytest.raises(CryobridgeError, match="can't be read") as caught:
        app(["select", str(particles_cs), "--random", "1", "-o", "x.cs"], standalone_mode=False)
    assert "ask its owner" in caught.value.hint


def test_the_remedy_for_a_full_disk_is_space():
    full = write_error(Path("x.star"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert full.hint == "Free some space, or write to another disk."
    assert "may not" in write_error(Path("x.star"), PermissionError(errno.EACCES, "")).hint
