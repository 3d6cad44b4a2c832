from __future__ import annotations

import json

import numpy as np
import pytest

from coords_files import (
    as_seen_by_relion,
    convention_id,
    convert,
    coordinates_of,
    flips,
    in_pixels,
    location,
    planned,
    relion_name,
    save_micrographs,
)
from cryobridge.errors import CryobridgeError
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.jobs.micrographs import sizes
from cryobridge.model.convention import ALL_CONVENTIONS, Convention
from helpers import save_cs, save_mrc, save_star

SHAPE = (300, 400)  # ny, nx
STEMS = ["a", "b"]
WITH_SCORE = {"pick_stats/ncc_score": np.full(4, 0.5, "f4")}


def save_project(folder, shapes, stems=STEMS):
    """A RELION project whose micrographs have these sizes, None for one that is not there; its micrographs STAR."""
    for stem, shape in zip(stems, shapes, strict=True):
        if shape is not None:
            save_mrc(folder / relion_name(stem), np.zeros((1, *shape)), 1.5)
    folder.mkdir(exist_ok=True)
    (folder / "default_pipeline.star").touch()
    return save_micrographs(folder / "CtfFind" / "job003" / "micrographs_ctf.star", stems)


@pytest.fixture
def picks(tmp_path):
    """Two picks on each of two micrographs of 300 x 400 pixels."""
    return save_cs(tmp_path / "picks.cs", location([*STEMS, *STEMS], shape=SHAPE, psize=1.5) | WITH_SCORE)


def expected_of(stem, shape, **flips):
    columns = location([*STEMS, *STEMS], shape=SHAPE)
    rows = [row for row, own in enumerate([*STEMS, *STEMS]) if own == stem]
    return [
        in_pixels(columns["location/center_x_frac"][row], columns["location/center_y_frac"][row], shape=shape, **flips)
        for row in rows
    ]


def test_micrographs_of_the_same_size_need_no_word(picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [SHAPE, SHAPE])
    words = ("-o", tmp_path / "relion" / "picks", "--orientation", "reliosparc")
    code, _, err = command("coords", picks, star, *words)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("shape", [(150, 200), (600, 800), (200, 266)], ids=str)
def test_coordinates_count_the_pixels_of_relions_micrographs(shape, picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [shape, shape])
    out = tmp_path / "relion" / "picks"
    words = ("-o", out, "--subpixel", "--json", "--orientation", "reliosparc")
    code, shown, err = command("coords", picks, star, *words)
    assert code == 0
    for stem in STEMS:
        np.testing.assert_allclose(coordinates_of(out, stem), expected_of(stem, shape), atol=6e-4)
    sentence = (
        f"2 of 2 RELION micrographs are of another size than cryoSPARC's ({shape[0]} × {shape[1]} px for 300 × 400)"
    )
    assert err.startswith(f"! {sentence}: the coordinates count RELION's pixels")
    (message,) = json.loads(shown)["warnings"]
    assert message["code"] == "micrograph-sizes-differ"
    assert message["text"].startswith(sentence)


def test_pixel_sizes_tell_the_size_of_micrographs_that_are_not_there(picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [None, None])
    columns = {"rlnMicrographName": [relion_name(stem) for stem in STEMS], "rlnMicrographPixelSize": [3.0, 1.51]}
    save_star(star, "micrographs", columns)
    out = tmp_path / "relion" / "picks"
    code, shown, _ = command("coords", picks, star, "-o", out, "--subpixel", "--json", "--orientation", "reliosparc")
    assert code == 0
    np.testing.assert_allclose(coordinates_of(out, "a"), expected_of("a", (150, 200)), atol=6e-4)
    # Calibrations differ by this much: no other size.
    np.testing.assert_allclose(coordinates_of(out, "b"), expected_of("b", SHAPE), atol=6e-4)
    (message,) = json.loads(shown)["warnings"]
    assert message["code"] == "micrograph-sizes-by-pixel-size"
    assert message["text"].startswith("RELION's micrographs have 3 Å a pixel, cryoSPARC's 1.5: coordinates are scaled")


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=convention_id)
def test_binned_micrographs_in_every_convention(convention, picks, tmp_path):
    ny, nx = 150, 200
    star = save_project(tmp_path / "relion", [(nx, ny) if convention.swap_xy else (ny, nx)] * 2)
    plan = planned(picks, star, tmp_path / "out", **flips(convention), subpixel=True)
    np.testing.assert_allclose(
        plan.coordinate_px[0::2], expected_of("a", (ny, nx), **flips(convention)), atol=6e-4
    )  # picks of a and b take turns


def test_each_micrograph_counts_with_its_own_size(picks, tmp_path):
    star = save_project(tmp_path / "relion", [SHAPE, (150, 200)])
    plan = planned(picks, star, tmp_path / "out", subpixel=True)
    np.testing.assert_allclose(plan.coordinate_px[0::2], expected_of("a", SHAPE), atol=6e-4)
    np.testing.assert_allclose(plan.coordinate_px[1::2], expected_of("b", (150, 200)), atol=6e-4)
    assert str(plan.sizes.message).startswith("1 of 2 RELION micrographs")


@pytest.mark.parametrize(
    ("shape", "words", "hint"),
    [
        ((300, 300), (), "whole movies"),
        ((600, 400), (), "whole movies"),
        ((400, 300), (), "Give --swap-xy, and"),
        ((200, 150), (), "Give --swap-xy, and"),
        ((300, 400), ("--swap-xy",), "Leave --swap-xy out"),
    ],
)
def test_micrographs_of_another_shape_are_an_error_and_nothing_is_written(shape, words, hint, picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [SHAPE if not words else (400, 300), shape])
    for more in ((), ("--dry-run",)):
        code, out, err = command("coords", picks, star, "-o", tmp_path / "relion" / "picks", *words, *more)
        assert (code, out) == (1, "")
        assert f"{shape[0]} × {shape[1]} px, cryoSPARC's micrograph has 300 × 400" in err
        assert relion_name("b") in err
        assert hint in err
        assert not (tmp_path / "relion" / "picks").exists()
    with pytest.raises(CryobridgeError, match="300 × 400"):
        convert(picks, star, tmp_path / "out", swap_xy=bool(words))
    assert not (tmp_path / "out").exists()


def test_a_micrograph_that_is_absent_while_others_are_binned_is_an_error(picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [(150, 200), None])
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert f"the micrograph {relion_name('b')} is not there" in err
    assert not (tmp_path / "out").exists()
    # One of the same size tells enough.
    assert planned(picks, save_project(tmp_path / "other", [SHAPE, None]), tmp_path / "out").sizes.message is None


def test_what_could_not_be_compared_is_reported_once(picks, tmp_path, command):
    star = save_project(tmp_path / "relion", [None, None])
    sentence = (
        "the size of RELION's micrographs was not compared with cryoSPARC's (300 × 400 px): "
        f"{relion_name('a')} is not there\n"
    )
    # From a RELION project they are expected to be found.
    assert command("coords", picks, star, "-o", tmp_path / "relion" / "picks")[2].startswith(f"! {sentence}")
    (tmp_path / "relion" / "default_pipeline.star").unlink()
    assert command("coords", picks, star, "-o", tmp_path / "out")[2].splitlines(keepends=True)[0] == sentence
    for stem in STEMS:
        save_mrc(tmp_path / "relion" / relion_name(stem), np.zeros((1, *SHAPE))).write_bytes(b"empty")
    code, _, err = command("coords", picks, star, "-o", tmp_path / "out", "--overwrite")
    assert code == 0
    assert err.startswith(sentence.replace("is not there", "can't be read"))


def test_few_headers_are_read_unless_one_differs(tmp_path, monkeypatch):
    stems = [f"m{number:03d}" for number in range(100)]
    star = save_project(tmp_path / "relion", [(30, 40)] * 100, stems)
    picks = save_cs(tmp_path / "p.cs", location(stems, shape=(30, 40)))
    real, read = sizes.read_header, []

    def read_header(path):
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(sizes, "read_header", read_header)
    assert planned(picks, star, tmp_path / "out").sizes.message is None
    assert len(read) == len(set(read)) <= 32
    assert (min(read), max(read)) == ("m000_fractions.mrc", "m099_fractions.mrc")
    # Five of one session, which lie side by side.
    for stem in stems[40:45]:
        save_mrc(tmp_path / "relion" / relion_name(stem), np.zeros((1, 60, 80)))
    read.clear()
    assert str(planned(picks, star, tmp_path / "out").sizes.message).startswith("5 of 100 RELION micrographs")
    assert len(set(read)) == 100


def test_picks_that_are_left_out_ask_for_no_size(tmp_path):
    columns = location(["c", "b", "a"], [[1.5, 0.5], [0.5, 0.5], [0.5, 0.5]], shape=SHAPE)
    columns["location/micrograph_shape"][:2] = 0
    star = save_project(tmp_path / "relion", [(150, 200), (600, 800)], ["a", "c"])
    picks = save_cs(tmp_path / "p.cs", columns)
    plan = planned(picks, star, tmp_path / "out", on_unmatched="skip", drop_outside=True)
    assert plan.coordinate_px[2].tolist() == [100, 75]
    assert str(plan.sizes.message).startswith("1 of 1 ")
    assert "(150 × 200 px for 300 × 400)" in str(plan.sizes.message)


@pytest.mark.parametrize("convention", [Convention(), Convention(swap_xy=True)], ids=convention_id)
def test_the_orientation_is_found_on_binned_micrographs(convention, demo_project, tmp_path):
    names = [f"MotionCorr/job002/Movies/{name}_fractions.mrc" for name in demo_project.truth.micrographs.name]
    for name, source in zip(names, demo_project.cryosparc_micrographs, strict=True):
        image = open_mrc(source).images[0]
        binned = image.reshape(384, 2, 512, 2).mean((1, 3))
        seen = np.ascontiguousarray(as_seen_by_relion(binned, convention), np.float32)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_mrc_stack(tmp_path / name, seen[None], 2 * demo_project.pixel_size_A)
    (tmp_path / "default_pipeline.star").touch()
    star = save_star(tmp_path / "CtfFind" / "job003" / "m.star", "micrographs", {"rlnMicrographName": names})
    plan = planned(demo_project.particles_cs, star, tmp_path / "out")
    assert plan.placement.source == "pixels"
    assert plan.placement.convention == convention
    assert plan.sizes.error is None
    assert plan.coordinate_px.max() < 512
    # It is found even where the one that is set by hand can't be written.
    by_hand = planned(demo_project.particles_cs, star, tmp_path / "out", orientation="reliosparc")
    assert by_hand.placement.check.best == convention
    assert (by_hand.sizes.error is not None) == convention.swap_xy
