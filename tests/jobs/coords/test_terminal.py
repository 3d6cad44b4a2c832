from __future__ import annotations

import numpy as np
import pytest

from coords_files import convert, location, planned, save_micrographs, tree
from cryobridge.jobs.coords.preview import small_image, write_previews
from helpers import end_of, open_terminal, run_in_terminal, save_cs, without_escapes


@pytest.fixture
def nameless(tmp_path):
    columns = location(["m"] * 30)
    picks = save_cs(tmp_path / "picks.cs", {f"f{n}": values for n, values in enumerate(columns.values())})
    return picks, save_micrographs(tmp_path / "mics.star", ["m"])


def answer(text, question, *words):
    child = open_terminal(*words, columns=120)
    child.expect(question)
    child.send(text)
    return end_of(child)[0]


def test_inferred_columns_are_shown_and_asked_about_in_a_terminal(nameless, tmp_path):
    words = ("coords", *nameless, "-o", tmp_path / "out")
    child = open_terminal(*words, columns=120)
    child.expect("Take these columns")
    shown = without_escapes(child.before)
    for message in ("f6", "f7", "taken as x", "taken as y", "hardly varies", "distinct"):
        assert message in shown
    child.send("n\r")
    ended_by, shown = end_of(child)
    assert ended_by == 1
    assert "--xy-fields" in shown
    assert not (tmp_path / "out").exists()
    assert answer("\x03", "Take these columns", *words) == 130
    assert not (tmp_path / "out").exists()
    assert answer("\r", "Take these columns", *words) == 1  # no answer is no
    assert not (tmp_path / "out").exists()
    assert answer("y\r", "Take these columns", *words) == 0
    assert (tmp_path / "out" / "autopick.star").is_file()


def test_of_two_pairs_the_one_whose_number_is_given_is_taken(tmp_path):
    columns = location(["m"] * 30)
    rng = np.random.default_rng(0)
    columns |= {f"own/{name}": rng.uniform(0, 1, 30) for name in "ab"}
    picks = save_cs(tmp_path / "picks.cs", {f"f{n}": values for n, values in enumerate(columns.values())})
    star = save_micrographs(tmp_path / "mics.star", ["m"])
    question, words = "Which columns are x and y", ("coords", picks, star, "-o")
    for keys, name, code in (
        ("\r", "none", 1),
        ("n\r", "no", 1),
        ("3\r\x03", "3", 130),
        ("1\r", "1", 0),
        ("2\r", "2", 0),
    ):
        out = tmp_path / f"out {name}"
        assert answer(keys, question, *words, out) == code
        assert out.exists() == (code == 0)
    for number, fields in (("1", ("f6", "f7")), ("2", ("f8", "f9"))):
        convert(picks, star, tmp_path / "as named", xy_fields=fields, overwrite=True)
        assert tree(tmp_path / f"out {number}" / "Movies") == tree(tmp_path / "as named" / "Movies")


def test_yes_is_answered_beforehand_and_the_panel_is_shown_all_the_same(nameless, tmp_path):
    code, shown = run_in_terminal("coords", *nameless, "-o", tmp_path / "out", "-y", columns=120)
    assert code == 0
    assert "taken as x" in without_escapes(shown)
    assert "Take these columns" not in shown


def test_picks_that_are_there_are_replaced_after_a_question(tmp_path):
    picks, star = save_cs(tmp_path / "p.cs", location(["a", "b"])), save_micrographs(tmp_path / "m.star", ["a", "b"])
    out = tmp_path / "out"
    convert(picks, star, out)
    before = tree(out)
    words = ("coords", picks, star, "-o", out, "--flip-x")
    for keys, code in (("n\r", 1), ("\x03", 130)):
        assert answer(keys, "Replace them", *words) == code
        assert tree(out) == before
    assert answer("y\r", "Replace them", *words) == 0
    assert tree(out) != before


def png_size(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_previews_are_made_of_the_busiest_micrographs(demo_project, tmp_path):
    plan = planned(demo_project.particles_cs, demo_project.micrographs_star, tmp_path / "out")
    written = write_previews(plan, 5)
    assert {path.name for path in written} == {f"{name}_fractions.png" for name in demo_project.truth.micrographs.name}
    for path in written:
        width, height = png_size(path)
        assert 1.0 < width / height < 1024 / 768 + 0.05  # the title stands above


def test_a_preview_is_scaled_down_and_low_passed():
    rng = np.random.default_rng(0)
    x = np.tile(np.arange(1600), (600, 1))
    wave = np.sin(2 * np.pi * x / 40)
    small = small_image((wave + rng.normal(size=x.shape)).astype("f4"), 400)
    assert small.shape == (150, 400)
    # Every fourth pixel of the wave, and a quarter of the noise.
    assert np.corrcoef(small.ravel(), wave[::4, ::4].ravel())[0, 1] > 0.9
    assert small.std() < 0.85
