from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from cryobridge.cli.app import app
from cryobridge.errors import OutputExistsError, UsageError
from helpers import run, run_where_one_may_only_read

COMMANDS = {"stacks": ("stacks", "cs", "--no-plots"), "downsample": ("stacks", "downsample", "-D", "8")}
# What tells each program's folder, and files that the record of a job would replace.
OF_OTHERS = {
    "cryoSPARC job": {"job.json": '{"output_results": []}'},
    "RELION job": {"RELION_JOB_EXIT_SUCCESS": "", "run.log": "of RELION"},
    "RECOVAR result": {"job.json": '{"recovar_version": "1.0"}', "command.txt": "recovar", "README.txt": "of RECOVAR"},
}


@pytest.fixture(params=COMMANDS)
def make(request, particles_cs):
    def make(folder, *options):
        app([*COMMANDS[request.param], str(particles_cs), "-o", str(folder), *options], standalone_mode=False)

    return make


def fill(folder, texts):
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*")}


@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--resume",), ("--dry-run",)], ids=" ".join)
@pytest.mark.parametrize("program", OF_OTHERS)
def test_the_job_of_another_program_is_never_written_into(program, options, make, tmp_path):
    folder = tmp_path / "job"
    fill(folder, OF_OTHERS[program])
    with pytest.raises(UsageError, match=f"a {program}, where nothing is written") as error:
        make(folder, *options)
    assert error.value.path == str(folder)
    assert contents(folder) == OF_OTHERS[program]
    make(folder / "below")


@pytest.mark.parametrize("name", ["job.json", "command.txt", "run.log", "README.txt"])
def test_a_file_that_the_record_would_replace_is_an_output_that_is_there(name, make, tmp_path):
    folder = tmp_path / "out"
    fill(folder, {name: "mine"})
    for options in ((), ("--resume",), ("--dry-run",)):
        with pytest.raises(OutputExistsError, match="there already") as error:
            make(folder, *options)
        assert error.value.path == str(folder / name)
        assert contents(folder) == {name: "mine"}
    make(folder, "--overwrite")
    assert json.loads((folder / "job.json").read_text())["program"] == "cryobridge"
    assert (folder / name).read_text() != "mine"


def test_a_record_of_ours_is_replaced_by_that_of_the_next_job(make, tmp_path):
    folder = tmp_path / "out"
    make(folder)
    for options in (("--resume",), ("--overwrite",)):
        (folder / "run.log").unlink()
        make(folder, *options)
        assert "completed" in (folder / "run.log").read_text()
    # As after a run of which only the record is left.
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in {".json", ".txt", ".log"} or path.name.startswith("."):
            path.unlink()
    make(folder)


def test_stacks_without_a_record_as_cryolike_makes_them_are_replaced_when_asked(particles_cs, tmp_path):
    folder = tmp_path / "out"
    words = ["stacks", "cs", "--no-plots", str(particles_cs), "-o", str(folder)]
    app(words, standalone_mode=False)
    for name in ("job.json", "command.txt", "run.log", "README.txt"):
        (folder / name).unlink()
    with pytest.raises(OutputExistsError):
        app(words, standalone_mode=False)
    app([*words, "--overwrite"], standalone_mode=False)
    assert json.loads((folder / "job.json").read_text())["status"] == "completed"


def test_a_folder_that_one_may_not_look_into_is_named_not_a_file_in_it(demo_project, tmp_path):
    (tmp_path / "closed").mkdir()
    output = tmp_path / "closed" / "picks"
    star = demo_project.relion / "CtfFind" / "job003" / "micrographs_ctf.star"
    for words in (("coords", demo_project.particles_cs, star), ("stacks", "cs", demo_project.particles_cs)):
        done = run_where_one_may_only_read(tmp_path / "closed", *words, "-o", output, mode=0)
        assert done.returncode == 1
        assert f"Error: {tmp_path / 'closed'}: the folder can't be looked into\n" in done.stderr


def test_the_record_has_the_command_as_typed_and_nothing_in_pythons_spelling(particles_cs, tmp_path):
    words = ["stacks", "cs", particles_cs, "-o", "two words", "--no-plots", "-b", "2"]
    assert run(*words, cwd=tmp_path).returncode == 0
    folder = tmp_path / "two words"
    typed = (folder / "command.txt").read_text().strip()
    assert shlex.split(typed) == ["cryobridge", *map(str, words)]
    log = (folder / "run.log").read_text().splitlines()
    assert log[1:3] == [f"in the folder {tmp_path}:", typed]
    assert not [line for line in log if set("[]{}=") & set(line) or "None" in line or "False" in line]


def test_the_record_of_python_has_the_call_of_python(particles_cs, tmp_path):
    code = f"import cryobridge as cb\nfrom pathlib import Path\ncb.downsample({str(particles_cs)!r}, 'small', box_px=8)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shlex.split((tmp_path / "small" / "command.txt").read_text())[1:] == ["-c", code]
