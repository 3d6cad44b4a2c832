"""Particle files put together as one."""

import importlib.util
import json

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError, UsageError, shown
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import read_csg
from cryobridge.formats.relion.star import open_star
from helpers import codes, particle_columns, run, save_cs, save_star, texts

HAS_TOOLS = importlib.util.find_spec("cryosparc") is not None


def star(path, numbers, **columns):
    own = {"rlnImageName": [f"{number + 1}@a/b.mrcs" for number in numbers]}
    return save_star(path, "particles", own | columns)


def cs(path, numbers, *, first_uid=None, **columns):
    n = len(numbers)
    own = particle_columns(["J1/b.mrc"] * n, numbers)
    own["uid"] = np.array(numbers, "u8") + 7 if first_uid is None else np.arange(first_uid, first_uid + n, dtype="u8")
    return save_cs(path, own | columns)


def poses(n):
    return {"alignments3D/pose": np.zeros((n, 3), "f4"), "alignments3D/split": np.zeros(n, "u4")}


def test_all_rows_are_written_with_their_uids_and_the_report_says_how_many_are_of_each_file(tmp_path):
    paths = [cs(tmp_path / "a.cs", [0, 1, 2]), cs(tmp_path / "b.cs", [5, 3])]
    answer = run("merge", *paths, "-o", tmp_path / "both.cs", "--json")
    report = json.loads(answer.stdout)
    assert report["rows_in"] == report["rows_out"] == 5
    assert report["merged"] == {"a.cs": 3, "b.cs": 2}
    assert open_cs(tmp_path / "both.cs").read(["uid"])["uid"].tolist() == [7, 8, 9, 12, 10]
    group = read_csg(tmp_path / "both.csg")
    assert {slot.num_items for slot in group.slots} == {5} and not group.problems
    table = run("merge", *paths, "-o", tmp_path / "both.cs", "--overwrite").stdout
    assert "b.cs  2" in table and "5 of 5" in table


@pytest.mark.skipif(not HAS_TOOLS, reason="cryosparc-tools is not installed")
def test_cryosparc_tools_read_what_is_written_as_what_they_put_together_themselves(tmp_path):
    from cryosparc.dataset import Dataset

    paths = [cs(tmp_path / "a.cs", [0, 1, 2]), cs(tmp_path / "b.cs", [5, 3])]
    cb.merge(paths, tmp_path / "both.cs")
    found, theirs = Dataset.load(tmp_path / "both.cs"), Dataset.append(*map(Dataset.load, paths))
    assert set(found.fields()) == set(theirs.fields())
    for name in theirs.fields():
        np.testing.assert_array_equal(found[name], theirs[name])


@pytest.mark.parametrize(("make", "suffix", "what"), [(cs, "cs", "uid"), (star, "star", "image")])
def test_a_particle_in_two_files_is_refused_with_both_named_and_what_to_do(make, suffix, what, tmp_path):
    paths = [make(tmp_path / f"{name}.{suffix}", rows) for name, rows in (("a", [0, 1]), ("b", [4]), ("c", [1, 5]))]
    with pytest.raises(CryobridgeError, match=f"1 particle is in more than one .* by their {what}") as caught:
        cb.merge(paths, tmp_path / f"all.{suffix}")
    text = shown(str(caught.value))
    assert f"a.{suffix}" in text and f"c.{suffix}" in text and "or_=" in shown(caught.value.hint)
    assert not (tmp_path / f"all.{suffix}").exists()


def test_one_image_under_two_uids_is_refused_unless_the_files_hold_copies(tmp_path):
    one, other = cs(tmp_path / "a.cs", [0, 1]), cs(tmp_path / "b.cs", [1, 2], first_uid=50)
    with pytest.raises(CryobridgeError, match=r"by their image: 2@J1/b\.mrc"):
        cb.merge([one, other], tmp_path / "all.cs")
    parents = {"sym_expand/src_uid": np.array([0, 1], "u8"), "sym_expand/idx": np.array([0, 1], "u4")}
    copies = [cs(tmp_path / f"{k}.cs", [0, 1], first_uid=10 * k, **parents) for k in (1, 2)]
    assert cb.merge(copies, tmp_path / "all.cs").rows_out == 4


def test_copies_in_star_files_are_the_same_only_with_the_same_angles(tmp_path):
    still = {"rlnAngleTilt": [0.0, 0.0], "rlnAnglePsi": [0.0, 0.0]}
    one = star(tmp_path / "a.star", [0, 0], rlnAngleRot=[0.0, 90.0], **still)
    other = star(tmp_path / "b.star", [0, 0], rlnAngleRot=[180.0, 270.0], **still)
    report = cb.merge([one, other], tmp_path / "all.star")
    assert report.rows_out == 4 and "images-repeated" in codes(report.notes)
    again = star(tmp_path / "c.star", [0, 1], rlnAngleRot=[90.0, 270.0], **still)
    with pytest.raises(CryobridgeError, match="image and angles"):
        cb.merge([one, again], tmp_path / "more.star")


def test_dedupe_leaves_the_best_of_particles_that_two_files_have_in_one_place(tmp_path):
    def picked(path, numbers, x, score):
        n = len(x)
        places = {"rlnMicrographName": ["m.mrc"] * n, "rlnCoordinateX": x, "rlnCoordinateY": [5.0] * n}
        optics = {"rlnMicrographPixelSize": [1.0] * n, "rlnPixelSize": [1.0] * n, "rlnVoltage": [300] * n}
        optics |= {"rlnSphericalAberration": [2.7] * n, "rlnAmplitudeContrast": [0.1] * n}
        return star(path, numbers, rlnAutopickFigureOfMerit=score, **places, **optics)

    one = picked(tmp_path / "a.star", [0, 1], [100.0, 300.0], [0.5, 0.6])
    other = picked(tmp_path / "b.star", [1, 2], [300.0, 104.0], [0.1, 0.9])
    report = cb.merge([one, other], tmp_path / "all.star", dedupe_A=50)
    assert report.left_out == {"nearer than 50 Å to a better one": 2}
    assert report.ranked_by == "rlnAutopickFigureOfMerit"
    assert cb.read(tmp_path / "all.star").pick_score.tolist() == [0.6, 0.9]
    assert report.merged == {"a.star": 1, "b.star": 1}


def test_half_sets_are_kept_or_drawn_anew_from_a_seed(tmp_path):
    names = ["m.mrc", "n.mrc"] * 10
    one = star(tmp_path / "a.star", range(20), rlnRandomSubset=[1, 2] * 10, rlnMicrographName=names)
    more = star(tmp_path / "b.star", range(20, 40), rlnRandomSubset=[1, 1] * 10, rlnMicrographName=["o.mrc"] * 20)
    kept = cb.merge([one, more], tmp_path / "kept.star")
    assert kept.half_sets == {"1": 30, "2": 10} and kept.halves_of is None
    drawn = cb.merge([one, more], tmp_path / "new.star", split_halves=3)
    assert drawn.half_sets == {"1": 20, "2": 20} and drawn.halves_of == "micrographs" and drawn.seed == 3
    block = open_star(tmp_path / "new.star")["particles"]
    half_set = block.read(["rlnRandomSubset"])["rlnRandomSubset"]
    micrograph = np.array(block.table["rlnMicrographName"].to_pylist())
    assert all(len(set(half_set[micrograph == name])) == 1 for name in ("m.mrc", "n.mrc", "o.mrc"))
    cb.merge([one, more], tmp_path / "again.star", split_halves=3)
    assert (tmp_path / "again.star").read_text() == (tmp_path / "new.star").read_text()
    single = cb.merge([one, more], tmp_path / "single.star", split_halves=3, halves_of="particles")
    assert single.half_sets == {"1": 20, "2": 20} and single.halves_of == "particles"


def test_where_whole_micrographs_give_unequal_halves_smaller_units_are_taken(tmp_path):
    names = ["m.mrc"] * 9 + ["n.mrc"]
    one = star(tmp_path / "a.star", range(10), rlnMicrographName=names, rlnHelicalTubeID=[1, 1, 1, 2, 2, 2, 3, 3, 4, 4])
    more = star(tmp_path / "b.star", [11], rlnMicrographName=["m.mrc"], rlnHelicalTubeID=[4])
    report = cb.merge([one, more], tmp_path / "all.star", split_halves=1)
    assert report.halves_of == "filaments" and "halves-of-smaller-units" in codes(report.notes)
    forced = cb.merge([one, more], tmp_path / "forced.star", split_halves=1, halves_of="micrographs")
    assert forced.halves_of == "micrographs" and "halves-unequal" in codes(forced.warnings)
    with pytest.raises(UsageError, match="split_halves"):
        cb.merge([one, more], tmp_path / "no.star", halves_of="particles")


def test_copies_of_a_particle_are_in_one_half_of_a_cs_file(tmp_path):
    n = 60
    parents = {
        "sym_expand/src_uid": np.repeat(np.arange(n // 3, dtype="u8") + 1, 3),
        "sym_expand/idx": np.tile([0, 1, 2], n // 3),
    }
    one = cs(tmp_path / "a.cs", np.arange(n) // 3, first_uid=100, **parents, **poses(n))
    more = cs(
        tmp_path / "b.cs",
        [90],
        first_uid=900,
        **{name: values[:1] + 99 for name, values in parents.items()},
        **poses(1),
    )
    report = cb.merge([one, more], tmp_path / "all.cs", split_halves=5)
    found = open_cs(tmp_path / "all.cs").read(["sym_expand/src_uid", "alignments3D/split"])
    split = found["alignments3D/split"]
    assert split.dtype == np.uint32 and set(split.tolist()) == {0, 1}
    assert all(len(set(split[found["sym_expand/src_uid"] == parent])) == 1 for parent in range(1, n // 3 + 1))
    assert abs(report.half_sets["1"] - report.half_sets["2"]) <= 3 and report.halves_of == "particles"
    bare = [cs(tmp_path / "c.cs", [0]), cs(tmp_path / "d.cs", [1])]
    with pytest.raises(MissingDataError, match="no 3D alignments"):
        cb.merge(bare, tmp_path / "bare.cs", split_halves=1)


def test_what_is_wrong_with_a_request_is_said_before_anything_is_written(tmp_path):
    one, other = star(tmp_path / "a.star", [0]), star(tmp_path / "b.star", [1])
    out = tmp_path / "all.star"
    assert run("merge", one, "-o", out).returncode == 2
    assert "two or more" in run("merge", one, "-o", out).stderr
    with pytest.raises(UsageError, match="named twice"):
        cb.merge([one, other, tmp_path / "." / "a.star"], out)
    cb.merge([cs(tmp_path / "c.cs", [0]), cs(tmp_path / "d.cs", [1])], tmp_path / "e.cs")
    with pytest.raises(UsageError, match="named twice"):
        cb.merge([tmp_path / "e.cs", tmp_path / "e.csg"], tmp_path / "f.cs")
    with pytest.raises(UsageError, match=r"a \.star file"):
        cb.merge([one, other], tmp_path / "all.cs")
    with pytest.raises(UsageError, match="one of the inputs"):
        cb.merge([one, other], other, overwrite=True)
    cb.merge([one, other], out, dry_run=True)
    assert not out.exists()
    cb.merge([one, other], out, verify=True)
    with pytest.raises(OutputExistsError):
        cb.merge([one, other], out)


def test_columns_that_are_left_out_are_named_in_the_report(tmp_path):
    one, other = star(tmp_path / "a.star", [0], rlnClassNumber=[3]), star(tmp_path / "b.star", [1])
    report = cb.merge([one, other], tmp_path / "all.star")
    assert report.dropped == ("rlnClassNumber",)
    assert any("rlnClassNumber (not in b.star)" in text for text in texts(report.warnings))


def test_micrographs_are_merged_by_their_names(tmp_path):
    def micrographs(path, names):
        return save_star(path, "micrographs", {"rlnMicrographName": names, "rlnDefocusU": [1e4] * len(names)})

    one, other = micrographs(tmp_path / "a.star", ["m.mrc"]), micrographs(tmp_path / "b.star", ["n.mrc"])
    assert cb.merge([one, other], tmp_path / "all.star").rows_out == 2
    with pytest.raises(CryobridgeError, match=r"by their micrograph: m\.mrc"):
        cb.merge([one, micrographs(tmp_path / "c.star", ["m.mrc"])], tmp_path / "more.star")


def test_files_without_rows_add_none(tmp_path):
    one, none = star(tmp_path / "a.star", [0]), star(tmp_path / "b.star", [])
    assert cb.merge([none, one], tmp_path / "all.star", split_halves=1).rows_out == 1
    for name in ("c", "d"):
        cs(tmp_path / f"{name}.cs", [], **poses(0))
    more = cs(tmp_path / "e.cs", [0, 1], **poses(2))
    report = cb.merge([tmp_path / "c.cs", more, tmp_path / "d.cs"], tmp_path / "all.cs", split_halves=1)
    assert report.half_sets == {"1": 1, "2": 1}
    assert cb.merge([tmp_path / "c.cs", tmp_path / "d.cs"], tmp_path / "none.cs", split_halves=1).rows_out == 0


def test_copies_are_not_put_beside_the_particle_that_was_expanded(tmp_path):
    parents = {"sym_expand/src_uid": np.array([7, 7], "u8"), "sym_expand/idx": np.array([0, 1], "u4")}
    copies = cs(tmp_path / "copies.cs", [0, 0], first_uid=50, **parents)
    for name, numbers, is_refused in (("a", [0, 1], True), ("b", [1, 2], False)):
        paths = [copies, cs(tmp_path / f"{name}.cs", numbers)]
        for given in (paths, paths[::-1]):
            if is_refused:
                with pytest.raises(CryobridgeError, match=r"by their uid or sym_expand/src_uid: 7 is in .*a\.cs"):
                    cb.merge(given, tmp_path / "all.cs")
            else:
                assert cb.merge(given, tmp_path / "all.cs", overwrite=True).rows_out == 4
