from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest
import starfile
from scipy import ndimage

from coords_files import (
    SHAPE,
    alignment,
    as_seen_by_relion,
    convention_id,
    convert,
    coordinates_of,
    cryosparc_name,
    filament,
    flips,
    in_pixels,
    location,
    planned,
    read_picks_of,
    relion_name,
    save_micrographs,
    tree,
)
from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError
from cryobridge.jobs.coords.relion_picks import format_rows, pick_file_place, relion_number
from cryobridge.model.convention import ALL_CONVENTIONS, Convention
from helpers import codes, run, run_where_one_may_only_read, save_cs, save_star
from relion_grammar import read_block


@pytest.fixture
def files(tmp_path):
    """Six picks on two micrographs, in mixed order."""
    stems = ["grid.1_0002", "grid.1_0001", "grid.1_0002", "grid.1_0002", "grid.1_0001", "grid.1_0002"]
    picks = save_cs(tmp_path / "J5" / "picked_particles.cs", location(stems))
    return picks, save_micrographs(tmp_path / "micrographs_ctf.star", stems)


# Coordinates


@pytest.mark.parametrize(("flip_x", "flip_y", "swap_xy"), [*itertools.product((False, True), repeat=3)])
def test_every_combination_of_flags_gives_the_formula_to_the_pixel(flip_x, flip_y, swap_xy, tmp_path, command):
    stems = ["a", "b"] * 40
    columns = location(stems)
    picks = save_cs(tmp_path / "picks.cs", columns)
    star = save_micrographs(tmp_path / "mics.star", stems)
    flags = [
        flag for flag, is_given in (("--flip-x", flip_x), ("--flip-y", flip_y), ("--swap-xy", swap_xy)) if is_given
    ]
    code, out, _ = command("coords", picks, star, "-o", tmp_path / "whole", *flags)
    assert code == 0
    assert command("coords", picks, star, "-o", tmp_path / "parts", "--subpixel", *flags)[0] == 0
    for stem in "ab":
        expected = np.array(
            [
                in_pixels(x, y, flip_x=flip_x, flip_y=flip_y, swap_xy=swap_xy)
                for x, y, own in zip(
                    columns["location/center_x_frac"], columns["location/center_y_frac"], stems, strict=True
                )
                if own == stem
            ]
        )
        np.testing.assert_array_equal(coordinates_of(tmp_path / "whole", stem), np.round(expected))
        np.testing.assert_allclose(coordinates_of(tmp_path / "parts", stem), expected, atol=6e-4)
    x, y = ("nx − nx·fx" if flip_x else "nx·fx"), ("ny·fy" if flip_y else "ny − ny·fy")
    assert (f"x = {y}, y = {x}" if swap_xy else f"x = {x}, y = {y}") in out
    assert ("then x and y exchanged" in out) == swap_xy
    assert ("columns" in out.split("coordinates")[1].split("\n")[0]) == flip_x


def test_a_known_pick_lies_where_it_is_worked_out_by_hand(tmp_path):
    # A quarter from the left and an eighth from cryoSPARC's first row.
    picks = save_cs(tmp_path / "picks.cs", location(["m"], [[0.25, 0.125]]))
    star = save_micrographs(tmp_path / "mics.star", ["m"])
    results = {}
    for convention in ALL_CONVENTIONS:
        out = tmp_path / f"{convention}"
        convert(picks, star, out, **flips(convention))
        results[convention_id(convention)] = tuple(coordinates_of(out, "m")[0])
    assert results == {
        "(no option)": (1440, 3580),  # 4092 - 511.5 = 3580.5, to even
        "--flip-y": (1440, 512),
        "--flip-x": (4320, 3580),
        "--flip-x --flip-y": (4320, 512),
        "--swap-xy": (3580, 1440),
        "--flip-y --swap-xy": (512, 1440),
        "--flip-x --swap-xy": (3580, 4320),
        "--flip-x --flip-y --swap-xy": (512, 4320),
    }


def test_micrographs_of_several_shapes_each_count_with_their_own(tmp_path):
    stems = ["wide", "tall"]
    columns = location(stems, [[0.5, 0.25], [0.5, 0.25]])
    columns["location/micrograph_shape"][1] = (5760, 4092)
    out = tmp_path / "out"
    convert(save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems), out)
    assert coordinates_of(out, "wide").tolist() == [[2880, 3069]]
    assert coordinates_of(out, "tall").tolist() == [[2046, 4320]]


def test_shuffled_rows_give_the_same_picks(tmp_path):
    stems = list(np.repeat(["a", "b", "c"], 50))
    columns = location(stems)
    star = save_micrographs(tmp_path / "m.star", stems)
    order = np.random.default_rng(3).permutation(150)
    convert(save_cs(tmp_path / "p.cs", columns), star, tmp_path / "sorted")
    mixed = {name: np.asarray(values)[order] for name, values in columns.items()}
    convert(save_cs(tmp_path / "q.cs", mixed), star, tmp_path / "mixed")
    for stem in "abc":
        one, other = (coordinates_of(tmp_path / name, stem) for name in ("sorted", "mixed"))
        assert len(one) == 50
        assert sorted(map(tuple, one)) == sorted(map(tuple, other))


def test_picks_of_the_demo_project_lie_on_its_particles(demo_project, tmp_path):
    truth = demo_project.truth
    report = convert(demo_project.particles_cs, demo_project.micrographs_star, tmp_path / "out")
    assert (report.rows_in, report.rows_out, report.micrographs) == (16, 16, 2)
    for micrograph, name in enumerate(truth.micrographs.name):
        x, y = truth.particles.pick_px[truth.particles.micrograph == micrograph].T
        found = coordinates_of(tmp_path / "out", name)
        assert sorted(map(tuple, found)) == sorted(zip(x, 768 - y, strict=True))


# What is written


def test_a_pick_file_is_byte_for_byte_as_relion_writes_it(tmp_path):
    columns = location(["m", "m"], [[0.25, 0.125], [0.5, 0.5]]) | {"pick_stats/ncc_score": np.array([0.5, -0.25], "f4")}
    out = tmp_path / "out"
    convert(save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", ["m"]), out)
    assert (out / "Raw_data" / "m_fractions_autopick.star").read_text() == (
        "\n# version 30001\n\ndata_\n\nloop_ \n"
        "_rlnCoordinateX #1 \n_rlnCoordinateY #2 \n_rlnAutopickFigureOfMerit #3 \n_rlnClassNumber #4 \n"
        "_rlnAnglePsi #5 \n"
        " 1440.000000  3580.000000     0.500000            0     0.000000\n"
        " 2880.000000  2046.000000     -0.25000            0     0.000000\n\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "    0.000000"),
        (-0.0, "    0.000000"),
        (1.0, "    1.000000"),
        (0.08, "    0.080000"),
        (5759.125, " 5759.125000"),
        (99998.5, "99998.500000"),
        (0.001, "    0.001000"),
        (0.0009, "9.000000e-04"),
        (-0.25, "    -0.25000"),
        (-179.5, "  -179.50000"),
        (-0.0004, "-4.00000e-04"),
        (123456.0, "1.234560e+05"),
        (1 / 3, "    0.333333"),
        (2.5e-7, "2.500000e-07"),
    ],
)
def test_numbers_are_written_as_relion_writes_them(value, text):
    assert relion_number(value) == text
    assert format_rows({"x": np.array([value])})[0].decode() == text + "\n"


def test_the_fast_formatting_agrees_with_printf():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(0, 99999, 3000), rng.uniform(-200, 200, 1000), 10 ** rng.uniform(-6, 6, 1000)])
    values = np.concatenate([values, np.round(values, 3), np.arange(100) / 64 + 5e-7])
    lines = format_rows({"x": values, "n": np.arange(len(values))})
    for line, number, value in zip(lines, range(len(values)), values, strict=True):
        assert line.decode() == f"{relion_number(value)} {number:12d}\n"


def test_a_pick_without_a_score_gets_008_and_one_with_keeps_it(tmp_path):
    stems = ["m"] * 3
    star = save_micrographs(tmp_path / "m.star", stems)
    columns = location(stems)
    convert(save_cs(tmp_path / "p.cs", columns), star, tmp_path / "plain")
    assert read_picks_of(tmp_path / "plain", "m")["rlnAutopickFigureOfMerit"].tolist() == [0.08] * 3
    scores = np.array([0.25, 0.5, 0.375], "f4")
    convert(save_cs(tmp_path / "q.cs", columns | {"pick_stats/ncc_score": scores}), star, tmp_path / "scored")
    assert read_picks_of(tmp_path / "scored", "m")["rlnAutopickFigureOfMerit"].tolist() == [0.25, 0.5, 0.375]


def test_the_list_names_micrographs_exactly_and_pick_files_from_the_project(files, tmp_path):
    picks, star = files
    project = tmp_path / "relion"
    (project / "deep").mkdir(parents=True)
    (project / "default_pipeline.star").touch()
    report = convert(picks, star, project / "deep" / "picks")
    block = starfile.read(project / "deep" / "picks" / "autopick.star", always_dict=True)
    assert list(block) == ["coordinate_files"]
    table = block["coordinate_files"]
    assert list(table.columns) == ["rlnMicrographName", "rlnMicrographCoordinates"]
    assert set(table["rlnMicrographName"]) == {relion_name("grid.1_0001"), relion_name("grid.1_0002")}
    for name, pick_file in zip(table["rlnMicrographName"], table["rlnMicrographCoordinates"], strict=True):
        stem = name.rsplit("/", 1)[1].removesuffix(".mrc")
        assert pick_file == f"deep/picks/Movies/{stem}_autopick.star"
        assert (project / pick_file).is_file()
    labels, rows, is_loop = read_block((project / "deep" / "picks" / "autopick.star").read_text(), "coordinate_files")
    assert (labels, len(rows), is_loop) == (["rlnMicrographName", "rlnMicrographCoordinates"], 2, True)
    assert report.relion_project == project


def pick_files_listed(folder):
    return list(starfile.read(folder / "autopick.star")["rlnMicrographCoordinates"])


def test_the_project_is_found_where_the_picks_go_into_its_own_folder(files, tmp_path, monkeypatch, command):
    picks, star = files
    project = tmp_path / "relion"
    project.mkdir()
    (tmp_path / "default_pipeline.star").touch()  # of another project, around this one
    (project / "default_pipeline.star").touch()
    monkeypatch.chdir(project)
    code, _, err = command("coords", picks, star)
    assert code == 0
    assert "no RELION project" not in err
    assert all(name.startswith("Movies/") for name in pick_files_listed(project))


def test_dots_in_the_way_to_the_output_do_not_lead_to_another_project(files, tmp_path, monkeypatch, command):
    picks, star = files
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "default_pipeline.star").touch()
    (tmp_path / "two" / "default_pipeline.star").touch()
    monkeypatch.chdir(tmp_path / "one")
    assert command("coords", picks, star, "-o", "../two/picks")[0] == 0
    assert all(name.startswith("picks/Movies/") for name in pick_files_listed(tmp_path / "two" / "picks"))


def test_the_project_can_be_named_and_without_any_the_user_is_reported(files, tmp_path, monkeypatch, command):
    picks, star = files
    monkeypatch.chdir(tmp_path)
    code, _, err = command("coords", picks, star, "-o", "a/b")
    assert code == 0
    assert "no RELION project" in err
    assert all(name.startswith("a/b/Movies/") for name in pick_files_listed(tmp_path / "a" / "b"))
    code, _, err = command("coords", picks, star, "-o", "a/b", "--relion-project", "a", "--overwrite")
    assert code == 0
    # All that is said is that these picks have no score of their own, and that the micrographs are not there.
    score, size, orientation = err.splitlines()
    assert score == "no pick_stats/ncc_score: the figure of merit is 0.08 for all (--passthrough may have it)"
    assert "the size of RELION's micrographs was not compared" in size
    assert "the orientation is unchecked" in orientation
    assert all(name.startswith("b/Movies/") for name in pick_files_listed(tmp_path / "a" / "b"))
    code, _, err = command("coords", picks, star, "-o", "a/b", "--relion-project", "absent", "--overwrite")
    assert code == 1
    assert "absent" in err


def test_a_micrograph_name_never_leads_out_of_the_output(tmp_path):
    stems = ["x", "y"]
    columns = location(stems)
    columns["location/micrograph_path"] = ["../../x.mrc", "/y.mrc"]
    star = save_star(tmp_path / "m.star", "micrographs", {"rlnMicrographName": ["../../../x.mrc", "/etc/../y.mrc"]})
    picks = save_cs(tmp_path / "p.cs", columns)
    out = tmp_path / "a" / "b" / "c"
    before = tree(tmp_path)
    convert(picks, star, out)
    new = set(tree(tmp_path)) - set(before)
    lists = ("autopick.star", "coords_suffix_autopick.star")
    picks = ("x_autopick.star", "etc/y_autopick.star", *(f"Raw_data/{stem}_autopick.star" for stem in "xy"))
    assert new == {f"a/b/c/{name}" for name in (*lists, *picks)}


@pytest.mark.parametrize(
    ("micrograph", "place"),
    [  # as RELION 3.1.3 names the pick files that it misses, below its --coord_dir
        ("MotionCorr/job002/Movies/a.mrc", "Movies/a"),
        ("MotionCorr/job002/b.b.mrc", "b.b"),
        ("Micrographs/c.mrc", "Micrographs/c"),
        ("MotionCorr/job1234/Movies/d.mrc", "Movies/d"),
        ("job007/e.mrc", "e"),
        ("A/job002/B/job003/Movies/f.mrc", "B/job003/Movies/f"),
        ("g.mrc", "g"),
        ("/data/Abs/h.mrc", "data/Abs/h"),
        ("/data/MotionCorr/job002/y.mrc", "y"),
        ("MotionCorr/job02/j.mrc", "MotionCorr/job02/j"),
        ("MotionCorr/jobs/job003/l.mrc", "l"),
        ("./MotionCorr/job002/m.mrc", "m"),
        ("XjobY/job123x/n.mrc", "n"),
        ("ajob125/x.mrc", "ajob125/x"),
        ("MotionCorr/job002//Movies/w.mrc", "Movies/w"),
        ("MotionCorr/job002/noext", "noext"),
    ],
)
def test_a_pick_file_lies_where_relion_looks_for_it(micrograph, place):
    assert pick_file_place(micrograph) == f"{place}_autopick.star"


def test_pick_files_lie_in_a_tree_of_the_micrographs_and_raw_data_leads_to_them(files, tmp_path):
    picks, star = files
    project = tmp_path / "relion"
    project.mkdir()
    (project / "default_pipeline.star").touch()
    inside = project / "CtfFind" / "job003" / "micrographs_ctf.star"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(star.read_bytes())
    out = project / "picks"
    report = convert(picks, inside, out)
    stems = ["grid_1_0001_fractions", "grid_1_0002_fractions"]
    assert sorted(path.name for path in (out / "Movies").iterdir()) == [f"{stem}_autopick.star" for stem in stems]
    for stem in stems:
        link = out / "Raw_data" / f"{stem}_autopick.star"
        assert os.readlink(link) == f"../Movies/{stem}_autopick.star"  # noqa: PTH115
        assert not (out / "Movies" / link.name).is_symlink()
    assert (out / "coords_suffix_autopick.star").read_text() == "CtfFind/job003/micrographs_ctf.star\n"
    assert [path.name for path in report.outputs] == [
        "autopick.star",
        "coords_suffix_autopick.star",
        "Raw_data",
        "Movies",
    ]
    convert(picks, star, out, overwrite=True)
    assert (out / "coords_suffix_autopick.star").read_text() == f"{star}\n"


def test_raw_data_may_be_copies_and_is_where_links_cannot_be_made(files, tmp_path, monkeypatch):
    convert(*files, tmp_path / "links")
    convert(*files, tmp_path / "copies", copy=True)

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    convert(*files, tmp_path / "no links")
    for name in ("copies", "no links"):
        assert not any(path.is_symlink() for path in (tmp_path / name).rglob("*"))
        of_raw_data = {path: text for path, text in tree(tmp_path / name).items() if path.startswith("Raw_data/")}
        assert of_raw_data == {path: text for path, text in tree(tmp_path / "links").items() if "Raw_data/" in path}


def micrographs_named(tmp_path, *names):
    """Picks on these micrographs of RELION's, two each; and the STAR file."""
    stems = [name.rsplit("/", 1)[1].removesuffix(".mrc") for name in names]
    star = save_star(tmp_path / "named.star", "micrographs", {"rlnMicrographName": list(names)})
    return save_cs(tmp_path / "named.cs", location(stems * 2)), star


def test_micrographs_that_lie_in_a_folder_raw_data_themselves(tmp_path):
    picks, star = micrographs_named(tmp_path, "M/job002/Raw_data/a.mrc", "M/job002/Raw_data/grid/b.mrc")
    out = tmp_path / "out"
    convert(picks, star, out)
    expected = ["a_autopick.star", "b_autopick.star", "grid", "grid/b_autopick.star"]
    assert sorted(str(path.relative_to(out / "Raw_data")) for path in out.rglob("Raw_data/**/*")) == expected
    assert os.readlink(out / "Raw_data" / "b_autopick.star") == "grid/b_autopick.star"  # noqa: PTH115
    before = tree(out)
    (out / "Raw_data" / "grid" / "notes.txt").write_text("mine")
    convert(picks, star, out, overwrite=True)
    assert tree(out) == before | {"Raw_data/grid/notes.txt": b"mine"}


def test_micrographs_of_one_name_in_two_folders_have_pick_files_of_their_own_and_no_link(tmp_path):
    names = ["M/job002/one/a.mrc", "M/job002/two/a.mrc", "M/job002/two/b.mrc"]
    star = save_star(tmp_path / "named.star", "micrographs", {"rlnMicrographName": names})
    columns = location(["x"] * 4)
    columns["location/micrograph_path"] = [
        f"J/{name}_patch_aligned.mrc" for name in ("two/a", "one/a", "two/b", "one/a")
    ]
    picks, out = save_cs(tmp_path / "named.cs", columns), tmp_path / "out"
    for overwrite in (False, True):
        report = convert(picks, star, out, overwrite=overwrite)
        assert [message.code for message in report.messages].count("not-in-raw-data") == 1
        files = sorted(str(path.relative_to(out)) for path in out.glob("*/*_autopick.star"))
        assert files == [f"{place}_autopick.star" for place in ("Raw_data/b", "one/a", "two/a", "two/b")]
        assert [len(starfile.read(out / f"{folder}/a_autopick.star")) for folder in ("one", "two")] == [2, 1]
        listed = starfile.read(out / "autopick.star").set_index("rlnMicrographName")["rlnMicrographCoordinates"]
        assert all(listed[name].endswith(f"{name[9:-4]}_autopick.star") for name in names)
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "one").touch()
    with pytest.raises(CryobridgeError, match="would share a_autopick"):
        convert(picks, star, tmp_path / "blocked")
    # After their job's folder the names are the same.
    save_star(star, "micrographs", {"rlnMicrographName": ["M/job002/one/a.mrc", "M/job003/one/a.mrc"]})
    columns["location/micrograph_path"] = [f"{job}/one/a.mrc" for job in ("job002", "job003") * 2]
    with pytest.raises(CryobridgeError, match="would share one/a_autopick"):
        convert(save_cs(tmp_path / "named.cs", columns), star, tmp_path / "shared")


def test_overwriting_leaves_no_old_pick_in_the_tree_and_every_other_file(tmp_path):
    out = tmp_path / "out"
    convert(*micrographs_named(tmp_path, "M/job002/one/a.mrc", "M/job002/two/b.mrc", "M/job002/c.mrc"), out)
    (out / "one" / "movie.tif").write_text("mine")
    newer = micrographs_named(tmp_path, "M/job002/c.mrc", "M/job002/three/d.mrc")
    with pytest.raises(OutputExistsError):
        convert(*newer, out)
    convert(*newer, out, overwrite=True)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "autopick.star",
        "coords_suffix_autopick.star",
        "c_autopick.star",
        "three/d_autopick.star",
        "Raw_data/c_autopick.star",
        "Raw_data/d_autopick.star",
        "one/movie.tif",
    }
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["Raw_data", "one", "three"]


def test_pick_files_of_others_in_the_tree_are_not_replaced_unasked(files, tmp_path, command):
    theirs = tmp_path / "out" / "Movies" / "grid_1_0001_fractions_autopick.star"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    code, _, err = command("coords", *files, "-o", tmp_path / "out")
    assert code == 1
    assert str(theirs) in err
    assert theirs.read_text() == "theirs"


@pytest.mark.parametrize("what", ["link", "file"])
def test_nothing_goes_into_a_linked_folder_and_raw_data_has_the_files_then(what, files, tmp_path, command):
    # A RELION project has its movies behind such a link, and the current folder is the default.
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "Movies").symlink_to(elsewhere) if what == "link" else (out / "Movies").touch()
    code, shown, err = command("coords", *files, "-o", out)
    assert code == 0
    assert "would go: they are in Raw_data only, which RELION 3.1 does not take" in err
    assert "RELION 3.1" not in shown
    assert list(elsewhere.iterdir()) == []
    assert not (out / "coords_suffix_autopick.star").exists()
    assert not any(path.is_symlink() for path in (out / "Raw_data").iterdir())
    assert all("/Raw_data/" in name for name in pick_files_listed(out))
    # What an older run with a tree left does not lead RELION 3.1 there.
    (out / "coords_suffix_autopick.star").touch()
    assert command("coords", *files, "-o", out, "--overwrite")[0] == 0
    assert not (out / "coords_suffix_autopick.star").exists()


def test_the_closing_table_says_which_relion_takes_which_file(files, tmp_path, command):
    out = tmp_path / "out"
    shown = [" ".join(line.split()) for line in command("coords", *files, "-o", out)[1].splitlines()]
    assert f"give to Extract {out / 'autopick.star'} (RELION 4 and 5)" in shown
    assert f"give to Extract {out / 'coords_suffix_autopick.star'} (RELION 3.1)" in shown


# Classes, angles, filaments


def test_classes_count_from_1_and_picks_only_leaves_them_out(tmp_path):
    stems = ["m"] * 3
    more = alignment(3, **{"class": np.array([0, 4, 49], "u4"), "pose": np.array([0.5, 1, -1], "f4")})
    picks = save_cs(tmp_path / "p.cs", location(stems) | more | filament(stems, [7, 7, 7], [0, 10, 20]))
    star = save_micrographs(tmp_path / "m.star", stems)
    convert(picks, star, tmp_path / "all")
    found = read_picks_of(tmp_path / "all", "m")
    assert found["rlnClassNumber"].tolist() == [1, 5, 50]
    assert found["rlnAnglePsi"].all()
    convert(picks, star, tmp_path / "bare", picks_only=True)
    bare = read_picks_of(tmp_path / "bare", "m")
    assert list(bare) == [
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnAutopickFigureOfMerit",
        "rlnClassNumber",
        "rlnAnglePsi",
    ]
    assert not bare["rlnClassNumber"].any()
    assert not bare["rlnAnglePsi"].any()


def test_a_file_with_3d_alignments_only_has_neither_class_nor_angle(demo_project, tmp_path):
    convert(demo_project.particles_cs, demo_project.micrographs_star, tmp_path)
    found = read_picks_of(tmp_path, demo_project.truth.micrographs.name[0])
    assert not found["rlnClassNumber"].any()
    assert not found["rlnAnglePsi"].any()


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=convention_id)
def test_psi_turns_the_reference_onto_the_particle_as_relion_sees_it(convention, tmp_path):
    # An image without any symmetry; `ndimage.rotate` by psi turns a reference as RELION's psi does.
    y, x = np.mgrid[-20:21, -20:21]
    reference = sum(
        weight * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 12.0)
        for cx, cy, weight in ((0, 0, 1.0), (9, 2, 0.9), (-4, 7, 0.6), (3, -8, 0.3))
    )
    pose_deg = np.array([0.0, 25.0, 90.0, 140.0, -60.0, -170.0])
    stems = ["m"] * len(pose_deg)
    columns = location(stems) | alignment(len(stems), pose=np.radians(pose_deg).astype("f4"))
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems)
    convert(picks, star, tmp_path / "out", **flips(convention))
    psi_deg = read_picks_of(tmp_path / "out", "m")["rlnAnglePsi"]
    # Where an odd number of axes is reversed or exchanged, RELION's average comes out as a mirror image.
    is_mirrored = (convention.mirror_x + convention.mirror_y + convention.swap_xy) % 2 == 1
    relion_reference = reference[::-1] if is_mirrored else reference
    for pose, psi in zip(pose_deg, psi_deg, strict=True):
        particle = as_seen_by_relion(ndimage.rotate(reference, pose, reshape=False), convention)
        turned = ndimage.rotate(relion_reference, psi, reshape=False)
        assert np.corrcoef(particle.ravel(), turned.ravel())[0, 1] > 0.99


def test_tubes_are_numbered_from_1_on_each_micrograph_with_their_length(tmp_path):
    stems = ["a", "b", "a", "a", "b", "a", "a"]
    uids = [50, 9, 40, 50, 9, 40, 50]
    positions = [130, 20, 500, 110, 5, 520, 100]
    columns = location(stems) | filament(stems, uids, positions)
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems)
    convert(picks, star, tmp_path / "out")
    a, b = (read_picks_of(tmp_path / "out", stem) for stem in "ab")
    assert a["rlnHelicalTubeID"].tolist() == [2, 1, 2, 1, 2]
    assert a["rlnHelicalTrackLengthAngst"].tolist() == [30, 0, 10, 20, 0]
    assert b["rlnHelicalTubeID"].tolist() == [1, 1]
    assert b["rlnHelicalTrackLengthAngst"].tolist() == [15, 0]
    assert set(a["rlnAngleTiltPrior"]) == {90}
    assert set(a["rlnAnglePsiFlipRatio"]) == {0.5}


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=convention_id)
def test_the_psi_prior_is_minus_the_direction_of_the_tube_in_relions_micrograph(convention, tmp_path):
    direction_rad = np.radians([10.0, 100.0, -130.0, -45.0])
    stems, uids, positions, xy = [], [], [], []
    for number, angle in enumerate(direction_rad):
        for step in range(6):
            stems.append("m")
            uids.append(number)
            positions.append(100 + 40 * step)
            xy.append([0.5 + 50 * step * np.cos(angle) / SHAPE[1], 0.5 + 50 * step * np.sin(angle) / SHAPE[0]])
    columns = location(stems, xy) | filament(stems, uids, positions)
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems)
    convert(picks, star, tmp_path / "out", **flips(convention), subpixel=True)
    found = read_picks_of(tmp_path / "out", "m")
    for tube in range(4):
        rows = slice(6 * tube, 6 * tube + 6)
        dx, dy = (np.diff(found[f"rlnCoordinate{axis}"][rows][[0, -1]])[0] for axis in "XY")
        expected = -np.degrees(np.arctan2(dy, dx))
        difference = (found["rlnAnglePsiPrior"][rows] - expected + 180) % 360 - 180
        np.testing.assert_allclose(difference, 0, atol=0.05)


def test_segments_that_are_left_out_belong_to_no_tube(tmp_path):
    stems = ["m"] * 6
    xy = [[np.nan, 0.1], [0.2, np.nan], [0.1, 0.1], [0.2, 0.1], [0.3, 0.1], [1.5, 0.1]]
    columns = location(stems, xy) | filament(stems, [1, 1, 2, 2, 2, 2], [0, 10, 70, 80, 90, 30])
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems)
    report = convert(picks, star, tmp_path / "out", drop_outside=True)
    assert report.left_out == {"outside the micrograph": 3}
    found = read_picks_of(tmp_path / "out", "m")
    assert found["rlnHelicalTubeID"].tolist() == [1, 1, 1]
    assert found["rlnHelicalTrackLengthAngst"].tolist() == [0, 10, 20]
    assert np.isfinite(found["rlnAnglePsiPrior"]).all()


# Bad coordinates, empty files


@pytest.mark.parametrize("bad", [np.nan, -0.01, 1.01, np.inf], ids=str)
def test_coordinates_outside_are_an_error_with_count_and_rows_or_left_out_and_counted(bad, tmp_path, command):
    stems = ["a", "b"] * 5
    columns = location(stems)
    columns["location/center_y_frac"][[3, 8]] = bad
    columns["location/center_x_frac"][8] = 0.5
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", stems)
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "row 3, 8" in err
    assert "2 of 10 picks are outside" in err
    assert "--drop-outside" in err
    assert not (tmp_path / "out").exists()
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out", "--drop-outside", "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["rows_in"], report["rows_out"]) == (10, 8)
    assert report["left_out"] == {"outside the micrograph": 2}
    assert "rows-left-out" in codes(report["warnings"])
    assert "2 picks are left out" in err
    assert len(coordinates_of(tmp_path / "out", "a")) + len(coordinates_of(tmp_path / "out", "b")) == 8


@pytest.mark.parametrize("shape", [(0, 0), (0, 5760), (4092, 0)], ids=str)
def test_a_micrograph_without_a_size_is_an_error(shape, tmp_path, command):
    columns = location(["a", "b", "b", "a"])
    columns["location/micrograph_shape"][[1, 2]] = shape
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", ["a", "b"])
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "location/micrograph_shape: row 1, 2: the micrographs of 2 of 4 picks have no size" in err
    assert f"{shape[0]} × {shape[1]} px" in err
    assert "→ Give a file in which it is filled in" in err
    assert not (tmp_path / "out").exists()
    # Those of micrographs that are left out anyway do not matter.
    star = save_micrographs(tmp_path / "a.star", ["a"])
    assert command("coords", picks, star, "-o", tmp_path / "out", "--on-unmatched", "skip")[0] == 0


@pytest.mark.parametrize("axis", ["x", "y"])
def test_fractions_that_are_all_zero_are_an_error(axis, tmp_path, command):
    columns = location(["a", "b", "b", "a"])
    columns[f"location/center_{axis}_frac"][:] = 0
    picks, star = save_cs(tmp_path / "p.cs", columns), save_micrographs(tmp_path / "m.star", ["a", "b"])
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out", "--drop-outside")
    assert (code, out) == (1, "")
    assert f"location/center_{axis}_frac: row 0, 1, 2 …: 0 for all of 4 picks" in err
    assert "→ Give a file in which it is filled in" in err
    assert not (tmp_path / "out").exists()


def test_the_very_edges_are_within_the_micrograph(tmp_path):
    picks = save_cs(tmp_path / "p.cs", location(["m", "m"], [[0, 0], [1, 1]]))
    convert(picks, save_micrographs(tmp_path / "m.star", ["m"]), tmp_path / "out")
    assert coordinates_of(tmp_path / "out", "m").tolist() == [[0, 4092], [5760, 0]]


def test_no_particles_is_one_clear_message_and_nothing_is_written(tmp_path, command):
    star = save_micrographs(tmp_path / "m.star", ["m"])
    none = {name: np.asarray(values)[:0] for name, values in location(["m"]).items()}
    particles = {name: values for name, values in none.items() if not name.startswith("location/")}
    J = tmp_path / "J7"
    for columns in (none, particles):
        picks = save_cs(J / "particles_selected.cs", columns)
        save_cs(J / "J7_passthrough_particles_selected.cs", none)
        save_cs(J / "J7_passthrough_particles_excluded.cs", location(["m"]))
        code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
        assert (code, out) == (1, "")
        assert "no particles" in err
        assert not (tmp_path / "out").exists()
    only_bad = save_cs(tmp_path / "bad.cs", location(["m"], [[np.nan, 0.5]]))
    code, _, err = command("coords", only_bad, star, "-o", tmp_path / "out", "--drop-outside")
    assert code == 1
    assert "no pick is left" in err
    assert not (tmp_path / "out").exists()


# Running again, dry runs, JSON, the old spelling


def test_without_an_output_the_user_is_reported_where_the_picks_go(files, tmp_path, monkeypatch, command):
    message = "without -o the picks go into the current folder"
    monkeypatch.chdir(tmp_path)
    code, _, err = command("coords", *files)
    assert code == 0
    assert f"\n{message}\n" in err
    assert message not in command("coords", *files, "-o", ".", "--overwrite")[2]
    J = tmp_path / "J5"
    (J / "job.json").write_text(json.dumps({"job_type": "extract_micrographs_multi", "uid": "J5", "project_uid": "P1"}))
    monkeypatch.chdir(J)
    assert f"! {message}, which is that of a cryoSPARC job\n" in command("coords", *files)[2]


def test_overwriting_leaves_no_old_pick_and_every_other_file(tmp_path):
    stems = ["a", "b", "b"]
    star = save_micrographs(tmp_path / "m.star", ["a", "b", "c"])
    out = tmp_path / "out"
    convert(save_cs(tmp_path / "p.cs", location(stems)), star, out)
    (out / "Raw_data" / "notes.txt").write_text("mine")
    (out / "Raw_data" / "a_fractions_manualpick.star").write_text("mine too")
    (out / "Raw_data" / "sub").mkdir()
    (out / "thesis.tex").write_text("the only copy")
    newer = save_cs(tmp_path / "q.cs", location(["b", "c"]))
    with pytest.raises(OutputExistsError) as refused:
        convert(newer, star, out)
    assert "overwrite=True" in refused.value.hint
    assert len(coordinates_of(out, "b")) == 2
    convert(newer, star, out, overwrite=True)
    assert sorted(path.name for path in (out / "Raw_data").iterdir()) == [
        "a_fractions_manualpick.star",
        "b_fractions_autopick.star",
        "c_fractions_autopick.star",
        "notes.txt",
        "sub",
    ]
    assert len(coordinates_of(out, "b")) == 1
    assert (out / "thesis.tex").read_text() == "the only copy"
    assert set(starfile.read(out / "autopick.star")["rlnMicrographName"]) == {relion_name("b"), relion_name("c")}
    assert not list(out.glob(".*"))


def test_overwriting_picks_behind_a_link_leaves_no_rubbish(files, tmp_path):
    picks, star = files
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "old_autopick.star").touch()
    (elsewhere / "notes.txt").touch()
    (out / "Raw_data").symlink_to(elsewhere)
    convert(picks, star, out, overwrite=True)
    assert sorted(path.name for path in (out / "Raw_data").iterdir()) == [
        "grid_1_0001_fractions_autopick.star",
        "grid_1_0002_fractions_autopick.star",
    ]
    assert not list(out.glob(".*"))
    assert sorted(path.name for path in elsewhere.iterdir()) == ["notes.txt", "old_autopick.star"]


@pytest.mark.parametrize("name", [".", "new"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_folder_that_may_not_be_written_is_one_message(name, more, files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    done = run_where_one_may_only_read(out, "coords", *files, "-o", out / name, *more)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.count("Error:") == 1
    assert f"Error: {out if more else out / name}: " in said
    assert "You may not write there" in said
    assert "Would write" not in done.stdout
    assert not list(out.iterdir())


def test_a_failing_exchange_of_folders_loses_no_file(files, tmp_path, monkeypatch):
    from pathlib import Path

    picks, star = files
    out = tmp_path / "out"
    convert(picks, star, out)
    for name in ("one.txt", "two.txt"):
        (out / "Raw_data" / name).write_text(name)
    real = Path.rename

    def rename(path, target):
        if path.name == "two.txt":
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CryobridgeError, match="No space left"):
        convert(picks, star, out, overwrite=True)
    kept = {path.name for path in out.rglob("*.txt")}
    assert kept == {"one.txt", "two.txt"}


def test_without_a_terminal_picks_that_are_there_are_refused(files, tmp_path, command):
    picks, star = files
    out = tmp_path / "out"
    assert command("coords", picks, star, "-o", out)[0] == 0
    before = tree(out)
    for words in ((), ("-y",)):
        code, stdout, err = command("coords", picks, star, "-o", out, "--flip-y", *words)
        assert (code, stdout) == (1, "")
        assert "--overwrite" in err
        assert tree(out) == before
    assert command("coords", picks, star, "-o", out, "--flip-y", "--overwrite")[0] == 0
    assert tree(out) != before


def test_a_dry_run_shows_the_plan_and_writes_nothing(files, tmp_path, command):
    picks, star = files
    before = tree(tmp_path)
    code, out, _ = command("coords", picks, star, "-o", tmp_path / "out", "--dry-run", "--flip-x", "--preview", 0)
    assert code == 0
    assert "Would write" in out
    assert "give to Extract" not in out
    assert "6 of 6" in out
    assert "x = nx − nx·fx, y = ny − ny·fy" in out
    assert str(tmp_path / "out" / "autopick.star") in out
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_micrographs_that_do_not_match(files, tmp_path, command):
    picks, _ = files
    star = save_micrographs(tmp_path / "few.star", ["grid.1_0001"])
    code, out, _ = command("coords", picks, star, "-o", tmp_path / "out", "--dry-run", "--on-unmatched", "skip")
    assert code == 0
    assert "2 of 6" in out
    assert "not in the STAR file" in out
    assert not (tmp_path / "out").exists()


def test_json_alone_is_on_stdout_with_every_key(files, tmp_path, command):
    picks, star = files
    code, out, _ = command("coords", picks, star, "-o", tmp_path / "out", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["rows_in"] == report["rows_out"] == 6
    assert report["left_out"] == {}
    assert report["micrographs"] == 2
    assert report["convention"] == "x = nx·fx, y = ny − ny·fy"
    assert report["columns_inferred"] is False
    assert codes(report["notes"]) == ["figure-of-merit-assumed", "micrograph-sizes-not-compared"]
    assert codes(report["warnings"]) == ["no-relion-project", "orientation-unchecked"]
    assert report["convention_from"] == "default"
    assert (report["orientation"], report["previews"]) == (None, [])
    assert report["coordinate_fields"] == [
        "location/micrograph_path",
        "location/micrograph_shape",
        "location/center_x_frac",
        "location/center_y_frac",
    ]
    names = ("autopick.star", "coords_suffix_autopick.star", "Raw_data", "Movies")
    assert report["outputs"] == [str(tmp_path / "out" / name) for name in names]
    dry = command("coords", picks, star, "-o", tmp_path / "out", "--json", "--dry-run")
    assert json.loads(dry[1]) == report | {"dry_run": True}


def test_a_reliosparc_command_line_runs_unchanged(files, tmp_path, command):
    picks, star = files
    flags = ("--flipx", "--flipy", "--swapxy", "--no_nudge")
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    done = run("coords", "--cs", picks, "--star", star, *flags, cwd=old)
    assert done.returncode == 0, done.stderr
    convert(picks, star, new, flip_x=True, flip_y=True, swap_xy=True)
    assert tree(old / "Raw_data") == tree(new / "Raw_data")
    assert {path.name for path in old.iterdir()} == {path.name for path in new.iterdir()}
    assert not any(path.is_symlink() for path in (old / "Raw_data").iterdir())
    assert all(path.is_symlink() for path in (new / "Raw_data").iterdir())
    for flag, convention in (
        ("--flipx", Convention(mirror_x=True)),
        ("--flipy", Convention(mirror_y=False)),
        ("--swapxy", Convention(swap_xy=True)),
        (None, Convention()),
    ):
        words = [flag] if flag else []
        shown = command("coords", "--cs", picks, "--star", star, *words, "--json", "--dry-run")[1]
        assert json.loads(shown)["convention"] == convention.formula


def test_old_options_are_not_in_the_help(command):
    shown = command("coords", "--help")[1]
    for old in ("--flipx", "--flipy", "--swapxy", "--no_nudge", "--cs", "--star"):
        assert old not in shown.split()
    for new in ("--flip-x", "--flip-y", "--swap-xy", "--no-nudge"):
        assert new in shown.split()


def test_a_missing_file_or_column_is_one_message(files, tmp_path, command):
    picks, star = files
    no_names = save_star(tmp_path / "no_names.star", "micrographs", {"rlnOpticsGroup": [1]})
    for words, message in (
        (("coords", tmp_path / "absent.cs", star), "absent.cs"),
        (("coords", picks, tmp_path / "absent.star"), "absent.star"),
        (("coords", picks, no_names), "rlnMicrographName"),
    ):
        code, out, err = command(*words, "-o", tmp_path / "out")
        assert (code, out) == (1, "")
        assert message in err
        assert "→" in err
        assert "mistake in cryobridge" not in err
    with pytest.raises(MissingDataError):
        planned(picks, no_names, tmp_path / "out")


def test_files_in_the_wrong_order_are_reported_so(files, tmp_path, command):
    picks, star = files
    out = tmp_path / "out"
    code, _, err = command("coords", star, picks, "-o", out)
    assert code == 2
    assert f"{star}: a STAR file; cryoSPARC's picks come first" in err
    assert f"→ cryobridge coords {picks} {star} …" in err
    code, _, err = command("coords", picks, picks, "-o", out)
    assert code == 2
    assert "a .cs file; the second file is a STAR file" in err
    assert "micrographs_ctf.star" in err
    assert command("coords", star, star, "-o", out)[0] == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("block", "label"),
    [("particles", "rlnImageName"), ("images", "rlnImageName"), ("", "rlnImageName"), ("particles", "rlnCoordinateX")],
)
def test_a_list_of_particles_is_no_list_of_micrographs(block, label, files, tmp_path, command):
    picks, _ = files
    names = [cryosparc_name("grid.1_0002", 1), cryosparc_name("grid.1_0001", 2)]  # which match, but are not RELION's
    star = save_star(tmp_path / "particles.star", block, {"rlnMicrographName": names, label: [1, 2]})
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert f"data_{block} lists particles, not micrographs" in err
    assert "CtfFind/jobXXX/micrographs_ctf.star" in err
    assert not (tmp_path / "out").exists()


def test_columns_that_are_no_coordinates_at_all_are_not_to_be_dropped(tmp_path):
    """Where every pick lies outside, to leave them out leaves nothing: the columns are wrong."""
    picks = save_cs(tmp_path / "picks.cs", location(["a"] * 5) | {"location/center_x_frac": np.full(5, 1.5, "f4")})
    star = save_micrographs(tmp_path / "micrographs_ctf.star", ["a"])
    with pytest.raises(CryobridgeError, match="5 of 5 picks are outside") as caught:
        convert(picks, star, tmp_path / "out")
    assert "drop_outside" not in caught.value.hint
    assert "xy_fields='X,Y'" in caught.value.hint
