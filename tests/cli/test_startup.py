from __future__ import annotations

import pytest

from helpers import run, save_particles
from startup_probe import probe, probe_errors_of_each


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


# What is wrong with a request is said before torch is loaded, which takes seconds.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Particles, and what was made of them; nothing changes it."""
    folder = tmp_path_factory.mktemp("made")
    particles = save_particles(folder)
    done = run("stacks", "cs", particles, "-o", folder / "fourier", "--no-plots")
    assert done.returncode == 0, done.stderr
    done = run("stacks", "downsample", particles, "-D", 8, "-o", folder / "small")
    assert done.returncode == 0, done.stderr
    (folder / "particles.star").write_text("data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n\n")
    return folder


STACKS_ERRORS = {
    "output": (("cs", "{cs}", "-o", "{made}/fourier"), "there already"),
    "other options": (("cs", "{cs}", "-o", "{made}/fourier", "-b", "2"), "there already"),
    "small output": (("downsample", "{cs}", "-D", "8", "-o", "{made}/small"), "there already"),
    "other job": (("cs", "{cs}", "-o", "{made}/J1"), "nothing is written"),
    "typo": (("cs", "{cs}x", "-o", "{made}/new"), "No such file"),
    "small typo": (("downsample", "{cs}x", "-D", "8", "-o", "{made}/new", "--device", "cuda"), "No such file"),
    "parameters": (("cs", "{cs}", "-p", "{made}/absent.npz", "-o", "{made}/new"), "No such file"),
    "contradiction": (("cs", "{cs}", "-o", "{made}/new", "--resume", "--overwrite"), "--resume would keep"),
    "grid twice": (("cs", "{cs}", "-p", "g.npz", "--precision", "double", "-o", "{made}/new"), "contradict"),
    "kind": (("star", "{cs}", "-o", "{made}/new"), "this is a .cs file"),
    "other kind": (("cs", "{made}/particles.star", "-o", "{made}/new"), "`cryobridge stacks star "),
    "pair": (("paired", "--pair", "{cs}", "{made}/absent.mrc", "-o", "{made}/new"), ""),
    "job": (("job", "{made}", "1", "-o", "{made}/new"), ""),
    "device": (("cs", "{cs}", "-o", "{made}/new", "--device", "gpu"), "--device gpu is no device"),
    "small device": (("downsample", "{cs}", "-D", "8", "-o", "{made}/new", "--device", "cpu,cpu"), "a device twice"),
    "box": (("downsample", "{cs}", "-D", "32", "-o", "{made}/new"), "cropping can't enlarge"),
    "plan": (("cs", "{cs}", "-o", "{made}/new", "--dry-run"), None),
}


@pytest.fixture(scope="module")
def refused(made):
    """How each of them ends."""
    places = {"cs": made / "J1" / "J1_particles.cs", "made": made}
    requests = [["stacks", *(word.format(**places) for word in words)] for words, _ in STACKS_ERRORS.values()]
    return dict(zip(STACKS_ERRORS, probe_errors_of_each(requests), strict=True))


@pytest.mark.parametrize("kind", STACKS_ERRORS)
def test_what_is_wrong_with_stacks_is_said_without_torch(kind, refused):
    message = STACKS_ERRORS[kind][1]
    code, errors, loaded = refused[kind]
    assert "torch" not in loaded
    assert (code == 0) if message is None else (code in (1, 2) and f"{message}" in errors and "Error: " in errors)


def test_what_is_wrong_with_coords_is_said_without_torch(demo_project, tmp_path):
    star = demo_project.relion / "CtfFind" / "job003" / "micrographs_ctf.star"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "autopick.star").touch()
    picks = demo_project.particles_cs
    asked = (
        ((picks, star, "-o", tmp_path / "there"), "there already"),
        ((picks, star, "-o", tmp_path / "there", "--preview", "1"), "there already"),
        ((picks, f"{star}x", "-o", tmp_path / "new"), "No such file"),
        ((star, picks, "-o", tmp_path / "new"), "cryoSPARC's picks come first"),
        ((picks, star, "-o", tmp_path / "new", "--orientation", "upside"), "upside"),
    )
    found = probe_errors_of_each([["coords", *map(str, words)] for words, _ in asked])
    for (code, errors, loaded), (_, message) in zip(found, asked, strict=True):
        assert code in (1, 2)
        assert message in errors
        assert "torch" not in loaded
