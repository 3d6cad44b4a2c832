from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest

from helpers import COMMAND, environment

ROOT = Path(__file__).resolve().parent.parent
COMPLETIONS = ROOT / "completions"
BASH = ("bash", ["--noprofile", "--norc"], f"source {COMPLETIONS}/cryobridge.bash")
ZSH = ("zsh", ["-f"], f"fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -D")
shells = pytest.mark.parametrize("shell", [BASH, ZSH], ids=["bash", "zsh"])


@pytest.fixture
def folder(tmp_path):
    for name in ("particles.cs", "run_data.star", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def for_shells(home, **changes):
    path = f"{Path(COMMAND).parent}:/usr/local/bin:/usr/bin:/bin"
    return environment(PATH=path, HOME=str(home), ZDOTDIR=str(home), LANG="C.UTF-8", TERM="dumb", **changes)


def type_keys(shell, keys, folder, expected):
    # Types keys into a real shell and waits until the line shows what is expected.
    name, arguments, setup = shell
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    child = pexpect.spawn(
        program, arguments, cwd=str(folder), env=for_shells(folder), encoding="utf-8", timeout=20, dimensions=(40, 200)
    )
    try:
        child.sendline(f"PS1='READY> '; {setup}; echo 'set''up'")
        child.expect("setup\r")
        child.expect("READY> ")
        child.send(keys)
        child.expect(expected)
    finally:
        child.close(force=True)


def test_the_scripts_are_those_of_the_command():
    spec = importlib.util.spec_from_file_location("generate", COMPLETIONS / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for shell, name in generate.FILES.items():
        assert (COMPLETIONS / name).read_text() == generate.script(shell), f"run `make completions` ({name})"


@shells
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cryobridge stac\t", "stacks "),
        ("cryobridge stacks down\t", "downsample "),
        ("cryobridge inspect --che\t", "--check "),
        ("cryobridge inspect --check rec\t", "recovar "),
        ("cryobridge stacks cs --on-missing sk\t", "skip "),
        ("cryobridge inspect part\t", "particles.cs "),
        ("cryobridge select run\t", "run_data.star "),
        ("cryobridge convert particles.cs -o run\t", "run_data.star "),
    ],
)
def test_tab_completes_in_a_real_shell(shell, typed, completed, folder):
    type_keys(shell, typed, folder, re.escape(completed))


@shells
def test_two_tabs_list_all_choices(shell, folder):
    type_keys(shell, "cryobridge inspect --check \t\t", folder, r"coords\s+ctf\s+poses\s+recovar\s+stacks\s+stacks-job")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cryobridge stac", {"stacks"}),
        ("cryobridge inspect --check ", {"coords", "stacks", "stacks-job", "poses", "ctf", "recovar"}),
        ("cryobridge inspect part", {"particles.cs"}),
    ],
)
def test_fish_offers_names_and_files(line, offered, folder):
    program = shutil.which("fish")
    if program is None:
        pytest.skip("fish is not installed")
    words = [program, "-c", f"source {COMPLETIONS}/cryobridge.fish; complete -C '{line}'"]
    done = subprocess.run(
        words, cwd=folder, env=for_shells(folder), capture_output=True, text=True, timeout=60, check=True
    )
    assert {entry.split("\t")[0] for entry in done.stdout.splitlines()} == offered


@pytest.mark.parametrize(("shell", "rc"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_install_completion_sets_up_a_home(shell, rc, folder, tmp_path_factory):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    home = tmp_path_factory.mktemp("home")
    # The shell that runs the command is the one that is set up.
    install = "cryobridge --install-completion; exit $?"
    done = subprocess.run([program, "-c", install], env=for_shells(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (home / rc).write_text("PS1='READY> '\n" + (home / rc).read_text() + "\necho 'set''up'\n")
    arguments = ["-i"] if shell == "zsh" else ["--noprofile", "--rcfile", str(home / rc), "-i"]
    child = pexpect.spawn(
        program, arguments, cwd=str(folder), env=for_shells(home), encoding="utf-8", timeout=20, dimensions=(40, 200)
    )
    try:
        child.expect("setup\r")
        child.expect("READY> ")
        # In zsh the first Tab only loads what was installed.
        child.send("cryobridge stac" + ("\t\t" if shell == "zsh" else "\t"))
        child.expect("stac\x07?ks ")
    finally:
        child.close(force=True)
