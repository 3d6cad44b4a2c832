from __future__ import annotations

import pytest

from cryobridge.cli.commands import COMMANDS, load
from cryobridge.cli.common import common_options
from helpers import left_on_screen, run_in_terminal


def commands(below, words=()):
    for name, command in below.items():
        yield (*words, name), command
        yield from commands(getattr(command, "commands", {}), (*words, name))


ALL = dict(commands({name: load(name) for name in COMMANDS}))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_has_a_sentence_and_a_panel_of_its_kind(words):
    for item in (*ALL[words].params, *common_options()):
        if getattr(item, "hidden", False) or item.name == "help":
            continue
        assert item.help.endswith("."), item.name
        assert len(item.help.split()) > 2, item.help
        if item.param_type_name == "option":
            assert item.rich_help_panel not in (None, "Options"), item.name


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", [("convert",), ("coords",), ("stacks", "downsample")], ids=" ".join)
def test_options_and_their_values_are_whole_at_any_width(words, columns):
    code, shown = run_in_terminal(*words, "-h", columns=columns)
    lines = left_on_screen(shown).splitlines()
    assert code == 0
    for item in ALL[words].params:
        if item.param_type_name == "option" and not item.hidden:
            assert any(item.opts[-1] in line for line in lines), item.opts
            assert item.is_flag or any(f" {item.metavar} " in line for line in lines), item.metavar


def test_what_must_be_given_stands_in_the_usage_and_first():
    _, shown = run_in_terminal("stacks", "grid", "-h", columns=120)
    assert "Usage: " in shown
    assert "stacks grid -o FILE.npz --n-pixels N --pixel-size Å [OPTIONS]" in left_on_screen(shown)
    order = [shown.index(f" {title} ") for title in ("Output", "Images", "Grid", "Run", "General")]
    assert order == sorted(order)
