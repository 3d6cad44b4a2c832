"""Nothing but regular files is opened, wherever the name comes from."""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path

import pytest

import cryobridge
from cryobridge.errors import FormatError
from cryobridge.formats.input_file import open_input, read_input, readable_size, resolved
from helpers import noise_images, run, save_mrc, save_star

SOURCES = Path(cryobridge.__file__).parent


def zero(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def linked_pipe(path):
    pipe(path.with_name("pipe"))
    path.unlink(missing_ok=True)
    path.symlink_to("pipe")


NO_FILES = pytest.mark.parametrize("become", [zero, pipe, linked_pipe])


def require_named(done, path):
    said = " ".join((done.stdout + done.stderr).split())
    assert path.name in said
    assert re.search("a (pipe|device) and not a regular file", said), said
    assert "mistake in cryobridge" not in said


@NO_FILES
@pytest.mark.parametrize("name", ["run_it002_data.star", "run_it002_model.star", "run_it002_optimiser.star"])
def test_converge_names_a_pipe_or_device_among_the_files_of_a_job(name, become, demo_project, tmp_path):
    shutil.copytree(demo_project.relion, tmp_path / "relion", symlinks=True)
    job = tmp_path / "relion" / "Class2D" / "job004"
    become(job / name)
    done = run("converge", job, "--no-plots", "-o", tmp_path / "out")
    if not name.endswith("optimiser.star"):
        require_named(done, job / name)


@NO_FILES
def test_demo_takes_no_pipe_or_device_for_its_marker(become, tmp_path):
    become(tmp_path / "cryobridge_demo.json")
    done = run("demo", tmp_path, "--overwrite")
    assert done.returncode == 1
    assert "no demo project" in done.stderr


@NO_FILES
@pytest.mark.parametrize(
    "words",
    [
        "inspect {}",
        "convert {} -o OUT/a.star",
        "select {} --random 1 -o OUT/b.star",
        "stacks star {} -o OUT",
        "stacks downsample {} -D 8 -o OUT",
        "stacks paired --pair {} a.mrc -o OUT",
    ],
)
def test_commands_name_an_argument_that_is_no_file(words, become, tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(2, 16), 1.5)
    become(tmp_path / "given.star")
    done = run(*words.format("given.star").split(), cwd=tmp_path)
    assert done.returncode in {1, 2}
    require_named(done, tmp_path / "given.star")


@NO_FILES
def test_an_image_file_that_is_none_is_named(become, tmp_path):
    become(tmp_path / "a.mrcs")
    save_star(tmp_path / "p.star", "", {"rlnImageName": ["1@a.mrcs"], "rlnDetectorPixelSize": [1.5]})
    done = run("stacks", "downsample", tmp_path / "p.star", "-D", 8, "-o", tmp_path / "out", "--pixel-size", 1.5)
    assert done.returncode == 1
    assert "the image file is missing: a.mrcs" in done.stderr


def test_what_takes_the_place_of_a_file_is_refused_too(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read_input(path, 2) == b"ab"
    status = path.stat()
    pipe(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(FormatError, match="a pipe"):
        open_input(path)


def test_every_input_is_opened_by_one_function():
    # The file of the user's shell; and what the system says of itself.
    others = {"cli/completion.py"}
    for path in SOURCES.rglob("*.py"):
        if str(path.relative_to(SOURCES)) in others:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if ast.unparse(node.func.value).startswith("Path('/proc/"):
                continue
            is_path = not isinstance(node.func.value, ast.Name) or node.func.value.id in {"path", "file"}
            mode = "".join(ast.unparse(item) for item in node.args)
            assert node.func.attr not in {"read_bytes", "read_text"}, f"{path}:{node.lineno}"
            assert not (node.func.attr == "open" and is_path and mode in {"'rb'", "'r'"}), f"{path}:{node.lineno}"


@pytest.mark.parametrize(("name", "what"), [("a\0.cs", "a NUL"), ("a\ud800.cs", "half of a character")])
@pytest.mark.parametrize("use", [resolved, readable_size])
def test_names_that_no_file_can_have_are_refused_in_plain_words(name, what, use):
    with pytest.raises(FormatError, match=f"no file can have this name: it holds {what}") as caught:
        use(Path(name))
    assert "Correct the name" in caught.value.hint
    assert "codec" not in str(caught.value)
