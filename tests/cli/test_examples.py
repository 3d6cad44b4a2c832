import shlex
import shutil
from pathlib import Path

import pytest

from cryobridge.cli.commands import COMMANDS, load
from cryobridge.cli.examples import ELSEWHERE, EXAMPLES, end_of_help, page_path
from helpers import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("words", EXAMPLES, ids=lambda words: " ".join(words) or "cryobridge")
def test_every_help_ends_with_examples_and_its_page(words):
    done = run(*words, "--help")
    assert done.returncode == 0
    assert end_of_help(words).strip() in done.stdout
    page, commands = EXAMPLES[words]
    assert page_path(page) == ROOT / "docs" / page
    assert page_path(page).is_file()
    assert 1 <= len(commands) <= 3
    # A shell reads the lines as the commands.
    shown = end_of_help(words).replace("\\\n", " ").splitlines()
    typed = [shlex.split(line) for line in shown if line.startswith("  ")]
    assert typed == [["cryobridge", *shlex.split(command)] for command in commands]


def test_every_command_has_examples():
    def names(command, words=()):
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from names(inner, (*words, name))

    known = {words for command in COMMANDS for words in names(load(command), (command,))}
    assert known | {()} == EXAMPLES.keys()


@pytest.mark.parametrize("words", sorted(EXAMPLES.keys() - ELSEWHERE), ids=" ".join)
def test_the_examples_run_in_the_demo_project(words, demo_project, tmp_path):
    shutil.copytree(demo_project.folder, tmp_path / "demo")
    for command in EXAMPLES[words][1]:
        done = run(*shlex.split(command), cwd=tmp_path / "demo")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_no_two_commands_have_one_description_where_it_is_cut_short():
    for group in (*COMMANDS, "stacks"):
        inner = getattr(load(group), "commands", {})
        texts = [command.get_short_help_str(40) for command in inner.values()]
        assert len(set(texts)) == len(texts)
