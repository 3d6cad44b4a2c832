from __future__ import annotations

import pytest

from helpers import run
from startup_probe import probe


def complete(line):
    words = line.split(" ")
    return probe(_CRYOBRIDGE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))


def test_the_probe_sees_what_a_command_loads(tmp_path):
    (tmp_path / "x.cs").write_bytes(b"")
    _, loaded = probe("inspect", str(tmp_path / "x.cs"))
    assert "numpy" in loaded


@pytest.mark.parametrize(
    "line",
    [
        *("--help", "--version", "inspect --help", "coords --help", "stacks --help", "converge -h", "convert -h"),
        *("select -h", "demo -h", *(f"stacks {way} -h" for way in ("grid", "paired", "star", "cs", "job"))),
    ],
)
def test_help_loads_no_heavy_library(line):
    shown, loaded = probe(*line.split())
    assert "cryobridge" in shown
    assert loaded == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cryobridge ", {"inspect", "coords", "stacks", "converge", "convert", "select", "demo"}),
        ("cryobridge stacks ", {"grid", "paired", "star", "cs", "job"}),
        ("cryobridge inspect --", {"--check", "--fields", "--rows", "--paths", "--json", "--no-stats", "--verbose"}),
        ("cryobridge inspect --check ", {"coords", "stacks", "stacks-job", "poses", "ctf", "recovar"}),
        ("cryobridge inspect --check st", {"stacks", "stacks-job"}),
        ("cryobridge stacks cs --order ", {"row", "file"}),
        ("cryobridge stacks paired --", {"--pair", "--defocus-angle-unit", "--resume", "--n-stacks-max"}),
        ("cryobridge stacks job --on-missing ", {"error", "skip"}),
    ],
)
def test_completion_offers_names_and_loads_no_heavy_library(line, offered):
    shown, loaded = complete(line)
    assert offered <= set(shown.split())
    assert loaded == []


def test_completion_of_an_argument_leaves_it_to_the_shells_file_names():
    shown, _ = complete("cryobridge inspect par")
    assert shown.strip() == ""


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("stacks", "cs"), {"--resolution-factor", "--strip-prefix", "--no-phys", "--n-inplanes", "--split-optics"}),
        (("stacks", "paired"), {"--pair", "--defocus-angle-unit", "--phase-shift-unit", "--downsample-factor"}),
        (("converge",), {"--fail-if-not-converged", "--volatile-last", "--legacy-names"}),
        (("convert",), {"--amplitude-contrast", "--micrograph-shape", "--link-stacks"}),
        (("select",), {"--attach-latent", "--split-by-class", "--clusters"}),
    ],
)
def test_help_shows_every_option_whole_in_80_columns(words, some):
    shown = run(*words, "--help", COLUMNS="80").stdout
    assert not [word for word in shown.split() if word.startswith("-") and "…" in word]
    assert some <= set(shown.split())
