from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pexpect
import pytest

from cryobridge.cli.completion import completion_script
from cryobridge.jobs.inspection.use_list import CHECK_NAMES
from helpers import COMMAND, environment

ROOT = Path(__file__).resolve().parents[2]
COMPLETIONS = ROOT / "completions"
BASH = ("bash", ["--noprofile", "--norc"], f"source {COMPLETIONS}/cryobridge.bash")
# The first shell keeps what it has found; the next ones need not look through all of zsh's own completions.
DUMP = tempfile.TemporaryDirectory(prefix="zsh-")
ZSH = ("zsh", ["-f"], f"fpath=({COMPLETIONS} $fpath); autoload -Uz compinit; compinit -u -C -d {DUMP.name}/dump")
shells = pytest.mark.parametrize("shell", [BASH, ZSH], ids=["bash", "zsh"])


@pytest.fixture
def folder(tmp_path):
    for name in ("particles.cs", "run_data.star", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def with_apostrophe(tmp_path):
    rows = "".join(f"{12000 + number} {2 + 3 * (number % 2)}\n" for number in range(4))
    (tmp_path / "Ann's run.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\ndata_particles\n\nloop_\n"
        f"_rlnDefocusU #1\n_rlnClassNumber #2\n{rows}"
    )
    return tmp_path


def for_shells(home, **changes):
    path = f"{Path(COMMAND).parent}:/usr/local/bin:/usr/bin:/bin"
    kept = {"PATH": path, "HOME": str(home), "ZDOTDIR": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}
    return environment(**{**kept, "XDG_CONFIG_HOME": "", **changes})


def type_keys(shell, keys, folder, expected):
    # Types keys into a real shell and waits until the line shows what is expected.
    name, arguments, setup = shell
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    child = pexpect.spawn(
        program, arguments, cwd=str(folder), env=for_shells(folder), encoding="utf-8", timeout=120, dimensions=(40, 200)
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
        assert (COMPLETIONS / name).read_text() == completion_script(shell), f"run `make completions` ({name})"


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
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cryobridge select An\t", r"Ann\'s\ run.star "),
        ('cryobridge select "Ann\'s run.star" --whe\t', "--where "),
        (r"cryobridge select Ann\'s\ run.star --where rlnD" + "\t", "efocusU"),
        (r"cryobridge select Ann\'s\ run.star --where 'rlnDefocusU > 12000 and rlnC" + "\t", "lassNumber"),
        # The quotes stay open behind the one column that fits.
        (
            r"cryobridge select Ann\'s\ run.star --where 'rlnC" + "\t== 5' -o x.star\x01echo \r",
            "rlnClassNumber == 5 -o",
        ),
        (r"cryobridge select Ann\'s\ run.star --class 2," + "\t", "5"),
    ],
)
def test_tab_looks_into_the_file_that_is_named_also_with_an_apostrophe(shell, typed, completed, with_apostrophe):
    type_keys(shell, typed, with_apostrophe, re.escape(completed))


@shells
def test_two_tabs_list_all_choices(shell, folder):
    type_keys(
        shell,
        "cryobridge inspect --check \t\t",
        folder,
        r"coords\s+cryodrgn\s+cryolike\s+cryosparc\s+ctf\s+micrographs\s+poses\s+recovar\s+relion\s+select\s+stacks\s+"
        r"stacks-job",
    )


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cryobridge stac", {"stacks"}),
        ("cryobridge inspect --check ", set(CHECK_NAMES)),
        ("cryobridge inspect part", {"particles.cs"}),
        (r"cryobridge select Ann\'s\ run.star --where rln", {"rlnDefocusU", "rlnClassNumber"}),
        (r"cryobridge select Ann\'s\ run.star --class ", {"2", "5"}),
    ],
)
@pytest.mark.usefixtures("with_apostrophe")
def test_fish_offers_names_and_files(line, offered, folder):
    program = shutil.which("fish")
    if program is None:
        pytest.skip("fish is not installed")
    words = [program, "-c", f"source {COMPLETIONS}/cryobridge.fish; complete -C $argv[1]", line]
    done = subprocess.run(
        words, cwd=folder, env=for_shells(folder), capture_output=True, text=True, timeout=60, check=True
    )
    assert {entry.split("\t")[0] for entry in done.stdout.splitlines()} == offered


def install(shell, home, **changes):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    # The shell that runs the command is the one that is set up; a last command would take the shell's place.
    words = [program, "-c", "cryobridge --install-completion; true"]
    done = subprocess.run(words, env=for_shells(home, **changes), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert f"Completion for {shell} is in {home}" in done.stdout
    return program


@pytest.mark.parametrize(("shell", "rc"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_install_completion_sets_up_a_home(shell, rc, folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    program = install(shell, home)
    (home / rc).write_text("PS1='READY> '\n" + (home / rc).read_text() + "\necho 'set''up'\n")
    arguments = ["-i"] if shell == "zsh" else ["--noprofile", "--rcfile", str(home / rc), "-i"]
    child = pexpect.spawn(
        program, arguments, cwd=str(folder), env=for_shells(home), encoding="utf-8", timeout=120, dimensions=(40, 200)
    )
    try:
        child.expect("setup\r")
        child.expect("READY> ")
        child.send("cryobridge stac\t")
        child.expect("stac\x07?ks ")
    finally:
        child.close(force=True)


def test_install_completion_sets_up_fish(folder, tmp_path):
    program = install("fish", tmp_path / "home")
    words = [program, "-c", "complete -C 'cryobridge stac'"]
    environment = for_shells(tmp_path / "home")
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("stacks\t")


@pytest.mark.parametrize(("shell", "rc"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_installing_twice_adds_one_line_to_what_the_user_has(shell, rc, tmp_path):
    # A dotfile is often a link into a repository, and need not end with a line end, nor be UTF-8.
    own = tmp_path / "dotfiles"
    own.write_bytes(b"# M\xfcller's")
    (tmp_path / rc).symlink_to(own)
    install(shell, tmp_path)
    install(shell, tmp_path)
    assert (tmp_path / rc).is_symlink()
    first, *lines = own.read_bytes().splitlines()
    assert first == b"# M\xfcller's"
    assert len(lines) == 1


def test_zsh_with_its_startup_files_elsewhere_is_set_up_there(tmp_path):
    install("zsh", tmp_path, ZDOTDIR=str(tmp_path / "zsh"))
    assert "compinit" in (tmp_path / "zsh" / ".zshrc").read_text()
    assert not (tmp_path / ".zshrc").exists()


@pytest.mark.parametrize("shell", [BASH, ZSH], ids=["bash", "zsh"])
def test_show_completion_prints_the_script_as_it_is_even_in_a_narrow_terminal(shell, tmp_path):
    name, _, _ = shell
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    words = ["-c", "cryobridge --show-completion; exit $?"]
    child = pexpect.spawn(program, words, env=for_shells(tmp_path), encoding="utf-8", timeout=120, dimensions=(40, 40))
    child.expect(pexpect.EOF)
    file = {"bash": "cryobridge.bash", "zsh": "_cryobridge"}[name]
    assert child.before.replace("\r", "") == (COMPLETIONS / file).read_text()


def test_a_home_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / ".bash_completions").touch()
    words = ["bash", "-c", "cryobridge --install-completion; exit $?"]
    done = subprocess.run(words, env=for_shells(tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert "--show-completion" in done.stderr


def test_what_is_offered_has_one_line_each_however_long_its_description_and_narrow_the_terminal(tmp_path):
    asked = {"_CRYOBRIDGE_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "COLUMNS": "30"}
    for line, word in (("cryobridge convert --", "--"), ("cryobridge s", "s")):
        environ = environment(**asked, _TYPER_COMPLETE_ARGS=line)
        done = subprocess.run([COMMAND], env=environ, capture_output=True, text=True, check=True, cwd=tmp_path)
        offered = done.stdout.splitlines()
        assert len(offered) > 1
        assert [text for text in offered if not text.startswith(word)] == []
