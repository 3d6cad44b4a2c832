from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from cryobridge.cli.terminal import warning
from helpers import run

CLI = Path(__file__).resolve().parents[2] / "src" / "cryobridge" / "cli"


def test_styles_are_names_that_a_theme_maps_and_neither_black_nor_white():
    for path in sorted(CLI.glob("*.py")):
        styles = re.findall(
            r'"(?:bold |dim )?(bright_\w+|white|black|gr[ae]y\d*|#[0-9a-f]{6}|rgb\([^"]*)"', path.read_text()
        )
        assert not styles, path.name


def test_the_sentence_of_a_warning_has_the_colour_of_the_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=60)
    console.print(warning("No particle is left in class 5."))
    mark, sentence = console.file.getvalue().split("! ")
    assert mark == "\x1b[1;33m"
    assert re.sub(r"\x1b\[0m", "", sentence).strip() == "No particle is left in class 5."


def test_the_help_has_no_yellow():
    shown = run("select", "--help", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[1;36m" in shown
    assert not re.search(r"\x1b\[(?:\d;)*33m", shown)
