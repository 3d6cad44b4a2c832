from __future__ import annotations

import json

import numpy as np
import pytest

from coords_files import SHAPE, coordinates_of, cryosparc_name, in_pixels, planned, save_micrographs, tree
from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.jobs.coords.locate import locate_coordinates
from helpers import codes, save_cs

# Both orders occur in practice, and one with everything before the fractions.
ORDERS = {
    "pixel size first": ("psize", "x", "y", "min_dist"),
    "pixel size last": ("x", "y", "min_dist", "psize"),
    "after the distance": ("min_dist", "psize", "x", "y"),
}
NAME = {
    "psize": "location/micrograph_psize_A",
    "min_dist": "location/min_dist_A",
    "x": "location/center_x_frac",
    "y": "location/center_y_frac",
}


def columns_in(order, n=60, *, psize=0.83, min_dist=100.0, seed=0, **more):
    rng = np.random.default_rng(seed)
    values = {
        "psize": np.full(n, psize, "f4"),
        "min_dist": np.full(n, min_dist, "f4"),
        "x": rng.uniform(0.02, 0.98, n).astype("f4"),
        "y": rng.uniform(0.02, 0.98, n).astype("f4"),
    }
    return {
        "uid": np.arange(n, dtype="u8") + 2**63,
        "location/micrograph_uid": np.ones(n, "u8"),
        "location/exp_group_id": np.ones(n, "u4"),
        "location/micrograph_path": [cryosparc_name("m")] * n,
        "location/micrograph_shape": np.tile(np.array(SHAPE, "u4"), (n, 1)),
        **{NAME[key]: values[key] for key in order},
        **more,
    }


def without_names(columns):
    return {f"f{place}": values for place, values in enumerate(columns.values())}


def place_of(columns, name):
    return f"f{list(columns).index(name)}"


def save(tmp_path, columns):
    return save_cs(tmp_path / "picks.cs", columns), save_micrographs(tmp_path / "mics.star", ["m"])


def expected(columns):
    xy = zip(columns[NAME["x"]], columns[NAME["y"]], strict=True)
    return np.round([in_pixels(x, y) for x, y in xy])


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "f0 to fn"])
@pytest.mark.parametrize("psize", [0.66, 0.83, 1.06])
@pytest.mark.parametrize("order", ORDERS)
def test_coordinates_are_found_in_every_order_at_every_pixel_size(order, psize, has_names, tmp_path, command):
    columns = columns_in(ORDERS[order], psize=psize)
    picks, star = save(tmp_path, columns if has_names else without_names(columns))
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out", "--json", *([] if has_names else ["-y"]))
    assert code == 0, err
    report = json.loads(out)
    assert report["columns_inferred"] is not has_names
    assert ("columns-inferred" in codes(report["warnings"])) is not has_names
    fields = ["location/micrograph_path", "location/micrograph_shape", NAME["x"], NAME["y"]]
    assert report["coordinate_fields"] == (fields if has_names else [place_of(columns, name) for name in fields])
    np.testing.assert_array_equal(coordinates_of(tmp_path / "out", "m"), expected(columns))


@pytest.mark.parametrize("order", ORDERS)
def test_names_tell_wherever_the_columns_stand(order, tmp_path):
    columns = columns_in(ORDERS[order])
    names = np.random.default_rng(4).permutation(list(columns)).tolist()
    table = open_cs(save_cs(tmp_path / "p.cs", {name: columns[name] for name in names}))
    fields = locate_coordinates(table)
    assert (fields.x, fields.y, fields.found_by) == (NAME["x"], NAME["y"], "name")


def test_a_nudge_without_a_terminal_ends_with_1_and_shows_what_it_saw(tmp_path, command):
    columns = columns_in(ORDERS["pixel size first"])
    picks, star = save(tmp_path, without_names(columns))
    before = tree(tmp_path)
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert tree(tmp_path) == before
    x, y, psize, distance = (place_of(columns, NAME[key]) for key in ("x", "y", "psize", "min_dist"))
    rows = {words[1]: " ".join(words) for line in err.splitlines() if len(words := line.split()) > 4}
    assert "taken as x" in rows[x]
    assert "taken as y" in rows[y]
    assert "not taken" in rows[psize]
    assert "hardly varies" in rows[psize]
    assert " 0.83 0.83 1 " in rows[psize]
    assert "not within 0 and 1" in rows[distance]
    assert " 60 " in rows[x]
    assert "-y" in err
    assert "--xy-fields" in err


def test_no_nudge_takes_the_two_right_after_the_shape_and_says_so(tmp_path, command):
    columns = columns_in(ORDERS["pixel size last"])
    picks, star = save(tmp_path, without_names(columns))
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out", "--no-nudge", "--json")
    assert code == 0
    assert "right after the shape" in err
    assert json.loads(out)["columns_inferred"] is False
    np.testing.assert_array_equal(coordinates_of(tmp_path / "out", "m"), expected(columns))
    # Where that is the wrong place it is taken all the same, as asked, and what comes of it is checked.
    columns = columns_in(ORDERS["pixel size first"], psize=1.06)
    picks, star = save(tmp_path / "wrong", without_names(columns))
    code, _, err = command("coords", picks, star, "-o", tmp_path / "out2", "--no-nudge")
    assert code == 1
    assert "outside their micrograph" in err
    assert f"{place_of(columns, NAME['psize'])}, {place_of(columns, NAME['x'])}" in err


def test_no_nudge_changes_nothing_where_names_tell(tmp_path):
    table = open_cs(save_cs(tmp_path / "p.cs", columns_in(ORDERS["pixel size first"])))
    assert locate_coordinates(table, infer=False).x == NAME["x"]


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "f0 to fn"])
def test_xy_fields_are_taken_as_reported(has_names, tmp_path, command):
    columns = columns_in(ORDERS["pixel size first"], **{"own/x": np.linspace(0, 1, 60), "own/y": np.linspace(1, 0, 60)})
    names = ["own/x", "own/y"] if has_names else [place_of(columns, name) for name in ("own/x", "own/y")]
    picks, star = save(tmp_path, columns if has_names else without_names(columns))
    code, out, _ = command("coords", picks, star, "-o", tmp_path / "out", "--json", "--xy-fields", ", ".join(names))
    assert code == 0
    report = json.loads(out)
    assert report["columns_inferred"] is False
    assert report["coordinate_fields"][2:] == names
    found = coordinates_of(tmp_path / "out", "m")
    np.testing.assert_array_equal(found, np.round([in_pixels(t, 1 - t) for t in np.linspace(0, 1, 60)]))


@pytest.mark.parametrize(
    ("sentence", "code", "message"),
    [
        ("a", 2, "two names"),
        ("a,b,c", 2, "two names"),
        ("a,a", 2, "two names"),
        ("location/center_x_frac,absent", 1, "absent"),
        ("location/micrograph_path,location/center_x_frac", 1, "a column of text, where numbers are needed"),
    ],
)
def test_xy_fields_that_cannot_be_are_an_error(sentence, code, message, tmp_path, command):
    picks, star = save(tmp_path, columns_in(ORDERS["pixel size first"]))
    ended, _, err = command("coords", picks, star, "-o", tmp_path / "out", "--xy-fields", sentence)
    assert ended == code
    assert message in err
    assert not (tmp_path / "out").exists()


def refused(tmp_path, columns):
    with pytest.raises(CryobridgeError) as error:
        locate_coordinates(open_cs(save_cs(tmp_path / "p.cs", without_names(columns))))
    assert "xy_fields='f" in error.value.hint
    return str(error.value)


def located(tmp_path, columns):
    return locate_coordinates(open_cs(save_cs(tmp_path / "p.cs", without_names(columns))))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("low", [0.0, 0.3], ids=["wide", "rather wide"])
def test_a_score_further_on_is_no_rival(low, order, tmp_path):
    rng = np.random.default_rng(9)
    picked = {
        "pick_stats/ncc_score": rng.uniform(low, low + 0.6, 60).astype("f4"),
        "pick_stats/power": rng.uniform(50, 900, 60).astype("f4"),
        "pick_stats/template_idx": np.zeros(60, "u4"),
        "pick_stats/angle_rad": rng.uniform(0, 6, 60).astype("f4"),
    }
    columns = columns_in(ORDERS[order], **picked)
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (place_of(columns, NAME["x"]), place_of(columns, NAME["y"]))
    assert fields.rivals == ()


@pytest.mark.parametrize("narrow", ["x", "y"])
def test_a_score_is_not_taken_for_the_coordinate_that_varies_little(narrow, tmp_path):
    # All picks lie along one edge: the score behind them looks more like a fraction than their x or y.
    rng = np.random.default_rng(2)
    columns = columns_in(ORDERS["pixel size first"][:3], **{"pick_stats/ncc_score": rng.uniform(0, 1, 60)})
    columns[NAME[narrow]] = rng.uniform(0.9, 0.98, 60).astype("f4")
    x, y, score = (place_of(columns, name) for name in (NAME["x"], NAME["y"], "pick_stats/ncc_score"))
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (x, y)
    assert [(rival.x, rival.y) for rival in fields.rivals] == ([(y, score)] if narrow == "x" else [])


def test_a_score_before_x_is_not_taken_for_x(tmp_path):
    rng = np.random.default_rng(6)
    scores = {f"pick_stats/{name}": rng.uniform(0.1, 0.7, 60).astype("f4") for name in ("before", "behind")}
    columns = columns_in(ORDERS["pixel size first"])
    others = {name: values for name, values in columns.items() if name not in (NAME["x"], NAME["y"])}
    shape = list(others).index("location/micrograph_shape") + 1
    items = list(others.items())
    order = [("pick_stats/before", scores["pick_stats/before"]), (NAME["x"], rng.uniform(0, 1, 60).astype("f4"))]
    order += [(NAME["y"], rng.uniform(0, 1, 60).astype("f4")), ("pick_stats/behind", scores["pick_stats/behind"])]
    columns = dict([*items[:shape], *order, *items[shape:]])
    fields = located(tmp_path, columns)
    before, x, y, behind = (place_of(columns, name) for name, _ in order)
    assert (fields.x, fields.y) == (x, y)
    assert [(rival.x, rival.y) for rival in fields.rivals] == [(before, x), (y, behind)]


def with_two_pairs():
    rng = np.random.default_rng(4)
    return columns_in(ORDERS["after the distance"], **{f"own/{name}": rng.uniform(0, 1, 60) for name in "ab"})


def test_two_pairs_are_rivals_and_without_a_question_the_first_is_taken_and_reported(tmp_path, command):
    columns = with_two_pairs()
    picks, star = save(tmp_path, without_names(columns))
    x, y, a, b = (place_of(columns, name) for name in (NAME["x"], NAME["y"], "own/a", "own/b"))
    ask = ("coords", picks, star, "-o", tmp_path / "out")
    code, out, err = command(*ask)
    assert (code, out) == (1, "")
    rows = [line.strip("│ ").split()[:3] for line in err.splitlines()]
    assert ["1", x, y] in rows
    assert ["2", a, b] in rows
    assert f"--xy-fields {x},{y}" in err
    code, out, err = command(*ask, "-y", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["coordinate_fields"][2:] == [x, y]
    (text,) = [item["text"] for item in report["warnings"] if item["code"] == "columns-inferred"]
    assert f"x from {x}, y from {y}" in text
    assert f"others that may be them: {a} and {b} after " in text
    assert text in " ".join(err.split())
    np.testing.assert_array_equal(coordinates_of(tmp_path / "out", "m"), expected(columns))


def test_of_columns_in_a_row_only_those_that_share_none_are_pairs(tmp_path):
    names = [f"own/{name}" for name in "abc"]
    rng = np.random.default_rng(4)
    columns = columns_in(("x", "y"), **{name: rng.uniform(0, 1, 60) for name in names})
    places = [place_of(columns, name) for name in (NAME["x"], NAME["y"], *names)]
    fields = located(tmp_path, columns)
    assert [(pair.x, pair.y) for pair in (fields, *fields.rivals)] == [tuple(places[:2]), tuple(places[2:4])]


def test_a_score_of_narrow_range_behind_the_fractions_is_shown_and_not_taken(tmp_path):
    score = np.random.default_rng(9).uniform(0.35, 0.45, 60)
    columns = columns_in(ORDERS["pixel size first"][:3], **{"pick_stats/ncc_score": score})
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (place_of(columns, NAME["x"]), place_of(columns, NAME["y"]))
    assert [c.is_taken for c in fields.candidates] == [False, True, True, False]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_picks_that_tell_nothing_are_not_guessed_at(n, tmp_path):
    columns = columns_in(ORDERS["pixel size first"], n=n)
    columns[NAME["x"]] = np.linspace(0.5, 0.55, n, dtype="f4")
    columns[NAME["y"]] = np.linspace(0.25, 0.28, n, dtype="f4")
    sentence = refused(tmp_path, columns)
    for key in ("psize", "x", "y"):
        assert f"{place_of(columns, NAME[key])} (" in sentence


def test_a_few_picks_that_are_spread_are_found(tmp_path):
    columns = columns_in(ORDERS["pixel size first"], n=4, psize=0.66)
    columns[NAME["x"]] = np.array([0.1, 0.8, 0.4, 0.6], "f4")
    columns[NAME["y"]] = np.array([0.7, 0.2, 0.9, 0.3], "f4")
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (place_of(columns, NAME["x"]), place_of(columns, NAME["y"]))


def test_a_few_pixel_sizes_and_distances_are_no_fractions(tmp_path):
    columns = columns_in(ORDERS["pixel size first"], n=300)
    columns[NAME["psize"]] = np.tile(np.array([0.5, 0.66, 0.83], "f4"), 100)
    columns[NAME["min_dist"]] = np.tile(np.array([0.0, 0.9, 0.4], "f4"), 100)
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (place_of(columns, NAME["x"]), place_of(columns, NAME["y"]))


def test_two_constant_columns_are_no_coordinates(tmp_path):
    columns = columns_in(("psize", "min_dist"), min_dist=0.5)
    sentence = refused(tmp_path, columns)
    assert "hardly varies" in sentence


def test_the_shape_of_a_box_is_not_a_micrograph(tmp_path):
    box = {
        "blob/path": ["J3/extract/m.mrc"] * 60,
        "blob/shape": np.full((60, 2), 256, "u4"),
        "blob/psize_A": np.full(60, 0.83, "f4"),
        "blob/sign": np.full(60, -1, "f4"),
    }
    columns = box | columns_in(ORDERS["pixel size first"])
    table = open_cs(save_cs(tmp_path / "p.cs", without_names(columns)))
    wanted = [place_of(columns, f"location/micrograph_{name}") for name in ("path", "shape")]
    wanted += [place_of(columns, NAME[key]) for key in "xy"]
    assert list(locate_coordinates(table).names) == wanted
    assert list(locate_coordinates(table, xy_fields=tuple(wanted[2:])).names) == wanted
    only_box = save_cs(tmp_path / "box.cs", {"uid": np.arange(60, dtype="u8")} | box)
    with pytest.raises(MissingDataError, match="location/micrograph_path"):
        locate_coordinates(open_cs(only_box))


def test_two_places_that_look_alike_are_rivals(tmp_path):
    first, second = (columns_in(ORDERS["pixel size first"], seed=seed) for seed in (1, 2))
    columns = first | {f"again/{name}": values for name, values in second.items()}
    fields = located(tmp_path, columns)
    names = [f"location/micrograph_{name}" for name in ("path", "shape")] + [NAME["x"], NAME["y"]]
    assert [pair.names for pair in (fields, *fields.rivals)] == [
        tuple(place_of(columns, prefix + name) for name in names) for prefix in ("", "again/")
    ]
    table = open_cs(tmp_path / "p.cs")
    assert locate_coordinates(table, xy_fields=fields.rivals[0].names[2:]).names == fields.rivals[0].names
    with pytest.raises(CryobridgeError, match="several places") as error:
        locate_coordinates(table, infer=False)
    assert place_of(columns, NAME["psize"]) in error.value.hint


def test_a_few_bad_fractions_are_an_error_of_their_own_after_a_nudge(tmp_path):
    columns = columns_in(ORDERS["pixel size first"], n=200)
    columns[NAME["x"]][[17, 40]] = np.nan, 1.5
    picks, star = save(tmp_path, without_names(columns))
    with pytest.raises(CryobridgeError) as error:
        planned(picks, star, tmp_path / "out")
    assert (error.value.rows, error.value.count) == ((17, 40), 2)
    plan = planned(picks, star, tmp_path / "out", drop_outside=True)
    assert plan.report().left_out == {"outside the micrograph": 2}


def test_a_guess_reads_rows_from_all_over_a_long_file(tmp_path):
    # The first tenth of the picks is on one spot.
    n = 400_000
    columns = columns_in(ORDERS["pixel size first"], n=n)
    columns[NAME["x"]][: n // 10] = 0.5
    columns[NAME["y"]][: n // 10] = 0.5
    names = [cryosparc_name("m").encode()]
    columns["location/micrograph_path"] = np.array(names * n)
    fields = located(tmp_path, columns)
    assert (fields.x, fields.y) == (place_of(columns, NAME["x"]), place_of(columns, NAME["y"]))
