from __future__ import annotations

import json
import pickle
import re
import warnings

import numpy as np
import pytest
import yaml

import cryobridge as cb
from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.csg import read_csg, write_csg
from cryobridge.formats.open import open_particles
from cryobridge.jobs.selection.choose import select_files as select
from helpers import particle_columns, run, run_in_terminal, save_cs, save_star, texts, without_escapes
from relion_grammar import read_block
from startup_probe import probe

N = 12
CLASSES = [1, 2, 3, 4] * 3
DEFOCUS = [10000 + 100 * row for row in range(N)]
OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3
_rlnImagePixelSize #4
_rlnImageSize #5
_myOwnOptics #6
opticsGroup1 1 mtf.star 1.31 64 0x1F
opticsGroup2 2 mtf.star 1.05 48 kept
opticsGroup7 3 mtf.star 2.5 32 "two words"

"""
LIST = """
data_general

_rlnBinningFactor   1
_myNote   "as it stands"

"""


@pytest.fixture
def star(tmp_path):
    rows = [
        f"{row + 1:06d}@Extract/job003/mic{row // 6}.mrcs {CLASSES[row]} {DEFOCUS[row]}.500000 {row % 2 + 1} "
        f"00{row}7 'a b {row}' -999.0"
        for row in range(N)
    ]
    labels = ("rlnImageName", "rlnClassNumber", "rlnDefocusU", "rlnOpticsGroup", "myCode", "myText", "rlnAnglePsi")
    head = ["# version 30001", "", "data_particles", "", "loop_", *(f"_{n} #{k}" for k, n in enumerate(labels, 1))]
    path = tmp_path / "in" / "run_data.star"
    path.parent.mkdir()
    path.write_text(LIST + OPTICS + "\n".join([*head, *rows, "", ""]))
    return path


@pytest.fixture
def job(tmp_path):
    # The passthrough file has the same uids in another order.
    rng = np.random.default_rng(3)
    uid = rng.integers(2**63, 2**64, N, dtype=np.uint64)
    main = particle_columns([f"J1/extract/{row // 6}_particles.mrc" for row in range(N)], np.arange(N) % 6)
    main |= {
        "uid": uid,
        "alignments3D/pose": rng.normal(size=(N, 3)).astype("f4"),
        "alignments3D/shift": rng.normal(size=(N, 2)).astype("f4"),
        "alignments3D/class": np.zeros(N, "u4"),
        "alignments3D/class_posterior": np.full(N, 0.5, "f4"),
    }
    order = rng.permutation(N)
    passed = {
        "uid": uid[order],
        "location/micrograph_path": np.array([f"J2/mic_{row}.mrc" for row in order]),
        "location/center_x_frac": np.linspace(0, 1, N, dtype="f4")[order],
        "alignments2D/class": np.array(CLASSES, "u4")[order] - 1,
        "alignments2D/pose": np.linspace(0, 1, N, dtype="f4")[order],
    }
    folder = tmp_path / "J7"
    save_cs(folder / "J7_010_particles.cs", main)
    save_cs(folder / "J7_passthrough_particles.cs", passed)
    return folder


def rows_of(path):
    """The rows of a STAR file that a strict reader finds, as dictionaries."""
    labels, rows, _ = read_block(path.read_text(), "particles")
    return [dict(zip(labels, row, strict=True)) for row in rows]


def numbers_of(path):
    """Which rows of the source a written STAR file has, by its image numbers."""
    return [int(row["rlnImageName"].partition("@")[0]) - 1 for row in rows_of(path)]


def dump(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


# STAR files


def test_a_selection_keeps_all_columns_and_the_other_blocks_as_they_are(star, tmp_path):
    out = tmp_path / "new" / "out.star"
    report = select(star, out, classes=(1, 4))
    wanted = [row for row in range(N) if CLASSES[row] in (1, 4)]
    before, after = rows_of(star), rows_of(out)
    assert numbers_of(out) == wanted
    for row, written in zip(wanted, after, strict=True):
        assert list(written) == list(before[row])
        for label in ("rlnImageName", "myCode", "myText"):
            assert written[label] == before[row][label]  # text to the letter: no 0017 becomes 17
        for label in ("rlnClassNumber", "rlnDefocusU", "rlnAnglePsi"):
            assert float(written[label]) == float(before[row][label])
    for block in ("optics", "general"):
        assert read_block(out.read_text(), block) == read_block(star.read_text(), block)
    assert "# version 30001" in out.read_text()
    assert (report.rows_in, report.rows_out) == (N, 6)
    assert report.left_out == {"in other classes than 1, 4": 6}
    assert "classes are those of rlnClassNumber, counted from 1 as RELION does" in texts(report.notes)


def test_a_file_of_relion_3_0_has_one_block_without_a_name(tmp_path):
    path = tmp_path / "old.star"
    path.write_text("\ndata_\n\nloop_\n_rlnClassNumber #1\n_rlnImageName #2\n1 1@a.mrcs\n2 2@a.mrcs\n\n")
    select(path, tmp_path / "out.star", classes=(2,))
    assert read_block((tmp_path / "out.star").read_text(), "")[1] == [["2", "2@a.mrcs"]]


@pytest.mark.parametrize("suffix", ["pkl", "npy", "txt"])
def test_rows_are_taken_from_a_list_in_the_files_order(star, tmp_path, suffix):
    wanted = [9, 0, 4]
    path = tmp_path / f"ind.{suffix}"
    if suffix == "pkl":
        dump(path, np.array(wanted))
    elif suffix == "npy":
        np.save(path, np.array(wanted, "u4"))
    else:
        path.write_text("# chosen by hand\n9 0\n4 # the last\n")
    report = select(star, tmp_path / "out.star", rows=path)
    assert numbers_of(tmp_path / "out.star") == [0, 4, 9]
    assert report.left_out == {f"not in ind.{suffix}": 9}
    assert any("not in ascending order" in note for note in texts(report.notes))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([0, 12], "row 12 (counted from 0) is asked for, run_data.star has 12 rows"),
        ([0, 5, 5, 7, 5], "5 rows are listed, 3 different ones: row 5 stands 3 times"),
        ([3, -1], "negative"),
    ],
)
@pytest.mark.parametrize("suffix", ["pkl", "npy", "txt"])
def test_rows_that_can_not_be_are_refused(star, tmp_path, rows, sentence, suffix):
    path = tmp_path / f"ind.{suffix}"
    if suffix == "txt":
        path.write_text(" ".join(map(str, rows)))
    elif suffix == "npy":
        np.save(path, np.array(rows))
    else:
        dump(path, np.array(rows))
    with pytest.raises(CryobridgeError) as caught:
        select(star, tmp_path / "out.star", rows=path)
    assert sentence in str(caught.value)
    assert not (tmp_path / "out.star").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("ind.txt", b"1 2 x"), ("ind.txt", b"1.5"), ("ind.txt", b"\xff\xfe"), ("ind.dat", b"1 2"), ("ind.txt", b"")],
)
def test_a_list_that_is_none_is_reported(star, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CryobridgeError):
        select(star, tmp_path / "out.star", rows=tmp_path / name)


@pytest.mark.parametrize("value", [np.zeros((3, 2), int), np.array([0.5, 1]), np.ones(N, bool), {"a": 1}])
def test_an_array_of_something_else_is_no_list_of_rows(star, tmp_path, value):
    with pytest.raises(FormatError):
        select(star, tmp_path / "out.star", rows=dump(tmp_path / "ind.pkl", value))


def kmeans(path, labels, n_centers=4):
    return dump(path, {"centers": np.zeros((n_centers, 2), np.float32), "labels": np.asarray(labels)})


LABELS = [0, 3, 1, 1, 0, 2, 3, 3, 0, 1, 2, 0]


def test_clusters_are_counted_from_0(star, tmp_path):
    report = select(star, tmp_path / "out.star", kmeans=kmeans(tmp_path / "kmeans_result.pkl", LABELS), clusters=(0, 3))
    assert numbers_of(tmp_path / "out.star") == [row for row in range(N) if LABELS[row] in (0, 3)]
    assert report.left_out == {"in other clusters than 0, 3": sum(label in (1, 2) for label in LABELS)}


def test_labels_of_cryodrgn_are_a_plain_list(star, tmp_path):
    path = dump(tmp_path / "labels.pkl", np.array(LABELS, np.int32))
    select(star, tmp_path / "out.star", kmeans=path, clusters=(2,))
    assert numbers_of(tmp_path / "out.star") == [5, 10]


def test_labels_of_another_length_are_never_cut(star, tmp_path):
    for labels in (LABELS[:-1], [*LABELS, 0]):
        with pytest.raises(CryobridgeError) as caught:
            select(star, tmp_path / "out.star", kmeans=kmeans(tmp_path / "k.pkl", labels), clusters=(0,))
        assert f"it has {len(labels)} labels, run_data.star has 12 rows" in str(caught.value)
        assert "label_rows=" in caught.value.hint


def test_labels_of_some_rows_go_to_those_rows(star, tmp_path):
    rows, labels = [3, 1, 11, 8, 2], [0, 1, 0, 1, 0]
    ind = dump(tmp_path / "ind.pkl", np.array(rows))
    report = select(
        star, tmp_path / "out.star", kmeans=kmeans(tmp_path / "k.pkl", labels), clusters=(0,), label_rows=ind
    )
    assert numbers_of(tmp_path / "out.star") == [2, 3, 11]
    assert report.left_out == {"no label in k.pkl": 7, "in other clusters than 0": 2}
    with pytest.raises(CryobridgeError, match="it has 5 labels, label_rows= names 4 rows"):
        select(
            star,
            tmp_path / "x.star",
            kmeans=tmp_path / "k.pkl",
            clusters=(0,),
            label_rows=dump(tmp_path / "short.pkl", np.array(rows[:-1])),
        )


def test_rows_without_a_label_are_in_no_cluster_even_inverted(star, tmp_path):
    labels = np.array(LABELS)
    labels[[0, 5]] = np.iinfo(np.int64).min  # RECOVAR's label of a particle that it left out
    report = select(
        star, tmp_path / "out.star", kmeans=kmeans(tmp_path / "k.pkl", labels), clusters=(0, 1), invert=True
    )
    assert numbers_of(tmp_path / "out.star") == [row for row in range(N) if row not in (0, 5) and LABELS[row] in (2, 3)]
    assert report.left_out == {"chosen, and the others are kept": 6, "no label in k.pkl": 2}


def test_a_cluster_that_is_not_there_is_reported(star, tmp_path):
    with pytest.raises(UsageError, match=r"no cluster 4: k\.pkl has 4, counted from 0"):
        select(star, tmp_path / "out.star", kmeans=kmeans(tmp_path / "k.pkl", LABELS), clusters=(1, 4))


def test_requests_combine_and_every_row_left_out_is_counted_once(star, tmp_path):
    report = select(
        star,
        tmp_path / "out.star",
        rows=dump(tmp_path / "ind.pkl", np.arange(10)),
        classes=(1, 2),
        where="rlnDefocusU > 10300 or rlnDefocusU <= 10000.5",
    )
    wanted = [r for r in range(N) if r < 10 and CLASSES[r] in (1, 2) and (DEFOCUS[r] + 0.5 > 10300 or r == 0)]
    assert numbers_of(tmp_path / "out.star") == wanted
    assert report.rows_out + sum(report.left_out.values()) == report.rows_in == N
    assert list(report.left_out.values()) == [2, 4, 10 - 4 - len(wanted)]


def test_invert_keeps_the_others(star, tmp_path):
    select(star, tmp_path / "out.star", classes=(1,), where="rlnDefocusU > 10300", invert=True)
    kept = [row for row in range(N) if CLASSES[row] == 1 and DEFOCUS[row] + 0.5 > 10300]
    assert numbers_of(tmp_path / "out.star") == [row for row in range(N) if row not in kept]


def test_the_draw_is_that_of_the_documented_generator(star, tmp_path):
    select(star, tmp_path / "out.star", classes=(1, 2, 3), random=4, seed=7)
    candidates = [row for row in range(N) if CLASSES[row] != 4]
    numbers = np.random.Generator(np.random.PCG64(7)).random(len(candidates))
    drawn = sorted(sorted(zip(numbers, candidates, strict=True))[:4], key=lambda pair: pair[1])
    assert numbers_of(tmp_path / "out.star") == [row for _, row in drawn]


def test_the_same_seed_gives_the_same_rows_fewer_are_among_more_and_inverting_gives_the_rest(star, tmp_path):
    for name, options in {
        "a": {"random": 5, "seed": 1},
        "b": {"random": 5, "seed": 1},
        "more": {"random": 9, "seed": 1},
        "rest": {"random": 5, "seed": 1, "invert": True},
        "other": {"random": 5, "seed": 2},
    }.items():
        select(star, tmp_path / f"{name}.star", **options)
    found = {name: numbers_of(tmp_path / f"{name}.star") for name in ("a", "b", "more", "rest", "other")}
    assert found["a"] == found["b"] != found["other"]
    assert set(found["a"]) < set(found["more"])
    assert sorted(found["a"] + found["rest"]) == list(range(N))


def test_no_more_can_be_drawn_than_there_are(star, tmp_path):
    with pytest.raises(CryobridgeError, match="4 rows are to be drawn, 3 are there"):
        select(star, tmp_path / "out.star", classes=(1,), random=4)


def test_nothing_left_is_an_error_that_says_why(star, tmp_path):
    with pytest.raises(MissingDataError) as caught:
        select(star, tmp_path / "out.star", classes=(9,))
    assert "12 in other classes than 9; no particle is of class 9; those of the file: 1, 2, 3, 4" in str(caught.value)
    assert "allow_empty=True" in caught.value.hint
    report = select(star, tmp_path / "out.star", classes=(9,), allow_empty=True)
    assert rows_of(tmp_path / "out.star") == []
    assert (
        read_block((tmp_path / "out.star").read_text(), "particles")[0] == read_block(star.read_text(), "particles")[0]
    )
    assert any(
        "no particle is of class 9; those of the file: 1, 2, 3, 4" in sentence for sentence in texts(report.warnings)
    )


def test_labels_become_class_numbers(star, tmp_path):
    report = select(star, tmp_path / "out.star", attach_class=kmeans(tmp_path / "k.pkl", LABELS))
    assert [int(row["rlnClassNumber"]) for row in rows_of(tmp_path / "out.star")] == [label + 1 for label in LABELS]
    assert numbers_of(tmp_path / "out.star") == list(range(N))
    assert report.attached == ("rlnClassNumber",)
    assert "rlnClassNumber: the file's own values are replaced" in texts(report.notes)


def test_latent_coordinates_become_columns_that_read_back_and_rows_without_are_left_out(star, tmp_path):
    z = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
    z[4] = np.nan
    np.save(tmp_path / "latent_coords.npy", z)
    report = select(star, tmp_path / "out.star", attach_latent=tmp_path / "latent_coords.npy")
    written = rows_of(tmp_path / "out.star")
    kept = [row for row in range(N) if row != 4]
    assert numbers_of(tmp_path / "out.star") == kept
    for row, found in zip(kept, written, strict=True):
        assert [float(found[f"cryobridgeLatent{k}"]) for k in (1, 2, 3)] == [float(value) for value in z[row]]
    assert report.left_out == {"no latent coordinates": 1}


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((11, 2)), "it has 11 latent coordinates, run_data.star has 12 rows"),
        (np.zeros(12), "an array of (12,)"),
    ],
)
def test_latent_coordinates_that_do_not_fit_are_refused(star, tmp_path, array, sentence):
    np.save(tmp_path / "z.npy", array)
    with pytest.raises(CryobridgeError) as caught:
        select(star, tmp_path / "out.star", attach_latent=tmp_path / "z.npy")
    assert sentence in str(caught.value)


def test_one_file_for_each_class(star, tmp_path):
    report = select(star, None, split_by_class=tmp_path / "split", where="rlnDefocusU > 10400")
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == [
        f"run_data_class{number:03d}.star" for number in (1, 2, 3, 4)
    ]
    for number in (1, 2, 3, 4):
        expected = [row for row in range(N) if CLASSES[row] == number and DEFOCUS[row] + 0.5 > 10400]
        path = tmp_path / "split" / f"run_data_class{number:03d}.star"
        assert numbers_of(path) == expected
        assert report.files[str(path)] == len(expected)
    assert report.rows_out + sum(report.left_out.values()) == N


def test_one_file_for_each_cluster(star, tmp_path):
    select(star, None, split_by_class=tmp_path, kmeans=kmeans(tmp_path / "k.pkl", LABELS), clusters=(0, 2))
    assert numbers_of(tmp_path / "run_data_cluster000.star") == [0, 4, 8, 11]
    assert numbers_of(tmp_path / "run_data_cluster002.star") == [5, 10]
    assert len(list(tmp_path.glob("*.star"))) == 2


def test_too_many_classes_for_a_file_each(tmp_path):
    path = tmp_path / "a.star"
    rows = "\n".join(str(number) for number in range(1, 1002))
    path.write_text(f"\ndata_particles\n\nloop_\n_rlnClassNumber #1\n{rows}\n\n")
    with pytest.raises(CryobridgeError, match="1,001 classes"):
        select(path, None, split_by_class=tmp_path / "split")


# .cs files


def read_npy(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.load(path)


def by_uid(table):
    return {int(row["uid"]): row for row in table}


def test_a_cs_file_keeps_its_passthrough_file_and_gets_a_group(job, tmp_path):
    main, passed = read_npy(job / "J7_010_particles.cs"), by_uid(read_npy(job / "J7_passthrough_particles.cs"))
    report = select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="ctf/df1_A > 10500")
    wanted = [row for row in range(N) if main["ctf/df1_A"][row] > 10500]
    new, new_passed = read_npy(tmp_path / "sub.cs"), read_npy(tmp_path / "sub_passthrough.cs")
    assert new["uid"].tolist() == new_passed["uid"].tolist() == [int(main["uid"][row]) for row in wanted]
    assert new.dtype.names == main.dtype.names
    for name in main.dtype.names:
        assert np.array_equal(new[name], main[name][wanted]), name
    for row in new_passed:
        for name in row.dtype.names:
            assert row[name] == passed[int(row["uid"])][name]
    assert report.outputs == tuple(tmp_path / name for name in ("sub.cs", "sub_passthrough.cs", "sub.csg"))
    group = yaml.safe_load((tmp_path / "sub.csg").read_text())
    assert {slot["num_items"] for slot in group["results"].values()} == {len(wanted)}
    assert group["results"]["blob"] == {"metafile": ">sub.cs", "num_items": len(wanted), "type": "particle.blob"}
    assert group["results"]["location"]["metafile"] == ">sub_passthrough.cs"
    assert read_csg(tmp_path / "sub.csg").problems == ()
    assert len(open_particles(tmp_path / "sub.csg")) == len(wanted)


def test_a_condition_may_name_columns_of_the_passthrough_file(job, tmp_path):
    passed = by_uid(read_npy(job / "J7_passthrough_particles.cs"))
    main = read_npy(job / "J7_010_particles.cs")
    select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="location/center_x_frac < 0.4")
    wanted = [int(uid) for uid in main["uid"] if passed[int(uid)]["location/center_x_frac"] < 0.4]
    assert read_npy(tmp_path / "sub.cs")["uid"].tolist() == wanted


def test_a_group_keeps_its_slots_title_and_version(job, tmp_path):
    slots = {"blob": ("particle.blob", "J7_010_particles.cs"), "ctf": ("particle.ctf", "J7_010_particles.cs")}
    slots["alignments3D"] = ("particle.alignments3D", "J7_010_particles.cs")
    slots |= {name: (f"particle.{name}", "J7_passthrough_particles.cs") for name in ("location", "alignments2D")}
    write_csg(job / "J7.csg", slots, N, title="Good ones", description="all of them", version="v4.6.0")
    for number, source in enumerate((job / "J7.csg", job / "J7_010_particles.cs")):
        select(source, tmp_path / f"{number}.csg", where="blob/idx in (1, 2)")
        group = read_csg(tmp_path / f"{number}.csg")
        assert (group.title, group.description, group.version) == ("Good ones", "all of them", "v4.6.0")
        assert {slot.name: (slot.type, slot.num_items) for slot in group.slots} == {
            name: (kind, 4) for name, (kind, _) in slots.items()
        }
        assert group.problems == ()


def test_a_group_may_name_its_files_from_the_project(job, tmp_path):
    slots = {name: (f"particle.{name}", "J7_010_particles.cs") for name in ("blob", "ctf", "alignments3D")}
    slots |= {name: (f"particle.{name}", "J7_passthrough_particles.cs") for name in ("location", "alignments2D")}
    write_csg(job / "J7.csg", slots, N, title="Mine")
    (job / "J7.csg").write_text((job / "J7.csg").read_text().replace("'>J7_", "'J7/J7_").replace(">J7_", "J7/J7_"))
    assert read_csg(job / "J7.csg").problems == ()
    select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="blob/idx > 2")
    assert read_csg(tmp_path / "sub.csg").title == "Mine"
    assert len(open_particles(tmp_path / "sub.csg")) == 6


def test_rows_of_a_list_are_those_of_the_file_also_where_the_join_drops_some(job, tmp_path):
    passed = read_npy(job / "J7_passthrough_particles.cs")
    main = read_npy(job / "J7_010_particles.cs")
    absent = int(main["uid"][2])
    with (job / "J7_passthrough_particles.cs").open("wb") as file:
        np.save(file, passed[passed["uid"] != absent])
    ind = dump(tmp_path / "ind.pkl", np.array([1, 2, 3, 4]))
    report = select(job / "J7_010_particles.cs", tmp_path / "sub.cs", rows=ind)
    assert read_npy(tmp_path / "sub.cs")["uid"].tolist() == [int(main["uid"][row]) for row in (1, 3, 4)]
    assert report.left_out == {"uid not in the joined files": 1, "not in ind.pkl": 8}
    assert report.rows_in == N
    select(job / "J7_010_particles.cs", tmp_path / "alone.cs", rows=ind, no_passthrough=True)
    assert read_npy(tmp_path / "alone.cs")["uid"].tolist() == main["uid"][1:5].tolist()
    assert not (tmp_path / "alone_passthrough.cs").exists()


def test_files_without_a_uid_in_common_are_no_pair(job, tmp_path):
    other = save_cs(
        tmp_path / "other.cs", {"uid": np.arange(3, dtype="u8"), "location/center_x_frac": np.zeros(3, "f4")}
    )
    with pytest.raises(MissingDataError, match=r"none of its uids is in other\.cs"):
        select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="blob/idx > 0", passthroughs=(other,))


def test_a_stream_stays_a_stream(job, tmp_path):
    table = open_cs(job / "J7_010_particles.cs")
    path = tmp_path / "J8_particles.cs"
    write_cs(path, table.read(table.names), container="csdat")
    select(path, tmp_path / "sub.cs", where="blob/idx == 5")
    written = open_cs(tmp_path / "sub.cs")
    assert written.container == "csdat"
    assert written.read(["blob/path"])["blob/path"].to_numpy().tolist() == [
        "J1/extract/0_particles.mrc",
        "J1/extract/1_particles.mrc",
    ]


def test_classes_of_a_cs_file_are_counted_from_0_and_constant_ones_are_passed_over(job, tmp_path):
    main, passed = read_npy(job / "J7_010_particles.cs"), by_uid(read_npy(job / "J7_passthrough_particles.cs"))
    report = select(job / "J7_010_particles.cs", tmp_path / "sub.cs", classes=(0, 3))
    wanted = [int(uid) for uid in main["uid"] if passed[int(uid)]["alignments2D/class"] in (0, 3)]
    assert read_npy(tmp_path / "sub.cs")["uid"].tolist() == wanted
    assert "classes are those of alignments2D, counted from 0 as cryoSPARC does" in texts(report.notes)


def test_the_most_probable_of_several_classes_counts(tmp_path):
    rng = np.random.default_rng(0)
    posterior = rng.dirichlet(np.ones(3), N).astype("f4")
    columns = particle_columns(["J1/a.mrc"] * N, np.arange(N)) | {
        "alignments3D_multi/pose": rng.normal(size=(N, 3, 3)).astype("f4"),
        "alignments3D_multi/class": np.tile(np.array([4, 0, 2], "u4"), (N, 1)),
        "alignments3D_multi/class_posterior": posterior,
    }
    path = save_cs(tmp_path / "J9_particles.cs", columns)
    select(path, tmp_path / "sub.cs", classes=(2, 4))
    wanted = [row for row in range(N) if [4, 0, 2][int(posterior[row].argmax())] in (2, 4)]
    assert (read_npy(tmp_path / "sub.cs")["uid"] - 2**63).tolist() == wanted


def test_labels_become_the_class_of_the_poses_counted_from_0(job, tmp_path):
    report = select(job / "J7_010_particles.cs", tmp_path / "sub.cs", attach_class=kmeans(tmp_path / "k.pkl", LABELS))
    written = read_npy(tmp_path / "sub.cs")
    assert written["alignments3D/class"].tolist() == LABELS
    assert written["alignments3D/class_posterior"].tolist() == [1] * N
    assert written["alignments3D/class"].dtype == np.dtype("u4")
    assert "alignments3D/class is the label, counted from 0" in texts(report.notes)
    # What was written is what selecting by class reads.
    select(tmp_path / "sub.cs", tmp_path / "again.cs", classes=(3,), no_passthrough=True)
    assert read_npy(tmp_path / "again.cs")["uid"].tolist() == [
        int(uid) for uid, label in zip(written["uid"], LABELS, strict=True) if label == 3
    ]


def test_a_file_without_poses_has_no_place_for_a_class(tmp_path):
    path = save_cs(tmp_path / "a.cs", particle_columns(["J1/a.mrc"] * 3, range(3)))
    with pytest.raises(MissingDataError, match="no alignments3D or alignments2D"):
        select(path, tmp_path / "b.cs", attach_class=kmeans(tmp_path / "k.pkl", [0, 1, 2]))


def test_latent_coordinates_become_modes(job, tmp_path):
    z = np.random.default_rng(1).normal(size=(N, 2))
    np.save(tmp_path / "z.npy", z)
    select(job / "J7_010_particles.cs", tmp_path / "sub.cs", attach_latent=tmp_path / "z.npy", where="blob/idx != 3")
    written = read_npy(tmp_path / "sub.cs")
    kept = [row for row in range(N) if row % 6 != 3]
    for mode in (0, 1):
        assert written[f"components_mode_{mode}/value"].tolist() == z[kept, mode].astype("f4").tolist()
        assert written[f"components_mode_{mode}/component"].tolist() == [mode] * len(kept)
        slot = yaml.safe_load((tmp_path / "sub.csg").read_text())["results"][f"components_mode_{mode}"]
        assert slot == {"metafile": ">sub.cs", "num_items": 10, "type": "particle.components"}
    np.save(tmp_path / "z1.npy", z[kept, :1])
    report = select(tmp_path / "sub.csg", tmp_path / "x.cs", attach_latent=tmp_path / "z1.npy")
    assert any("components_mode_1/value: the file's own values are replaced" in text for text in texts(report.notes))
    assert {name for name in read_npy(tmp_path / "x.cs").dtype.names if name.startswith("components")} == {
        "components_mode_0/component",
        "components_mode_0/value",
    }
    assert "components_mode_1" not in (tmp_path / "x.csg").read_text()


def test_one_cs_file_for_each_class(job, tmp_path):
    passed = by_uid(read_npy(job / "J7_passthrough_particles.cs"))
    select(job / "J7_010_particles.cs", None, split_by_class=tmp_path / "split")
    for number in range(4):
        stem = f"J7_010_particles_class{number:03d}"
        rows = read_npy(tmp_path / "split" / f"{stem}.cs")
        assert len(rows) == 3
        assert all(passed[int(uid)]["alignments2D/class"] == number for uid in rows["uid"])
        assert len(open_particles(tmp_path / "split" / f"{stem}.csg")) == 3


def test_an_empty_cs_file_and_its_group_read_back(job, tmp_path):
    select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="blob/idx > 99", allow_empty=True)
    assert open_cs(tmp_path / "sub.cs").n_rows == 0
    assert {slot.num_items for slot in read_csg(tmp_path / "sub.csg").slots} == {0}


def test_exposures_are_a_group_of_exposures(tmp_path):
    columns = {"uid": np.arange(3, dtype="u8"), "micrograph_blob/path": np.array(["a.mrc"] * 3)}
    path = save_cs(tmp_path / "exposures.cs", columns | {"ctf/df1_A": np.arange(3, dtype="f4")})
    report = select(path, tmp_path / "sub.cs", where="ctf/df1_A > 0")
    assert (report.rows_are, report.rows_out) == ("exposures", 2)
    assert re.search(r"exposures +2 of 3", run("select", path, "--random", 2, "-o", tmp_path / "b.cs").stdout)
    (relion,) = (use for use in cb.inspect(path).uses if use.name == "relion")
    assert not relion.ready and "exposures" in relion.hint and "cryobridge convert" not in relion.hint
    group = read_csg(tmp_path / "sub.csg")
    assert (group.kind, {slot.type for slot in group.slots}) == (
        "exposure",
        {"exposure.micrograph_blob", "exposure.ctf"},
    )


def test_a_slot_for_each_class_is_an_alignment(tmp_path):
    columns = particle_columns(["J1/a.mrc"] * 3, range(3)) | {
        f"alignments_class_{number}/{name}": values.astype("f4")
        for number in (0, 1)
        for name, values in {"pose": np.zeros((3, 3)), "class_posterior": np.full(3, number)}.items()
    }
    report = select(save_cs(tmp_path / "a.cs", columns), tmp_path / "sub.cs", classes=(1,))
    assert report.rows_out == 3
    types = {slot.name: slot.type for slot in read_csg(tmp_path / "sub.csg").slots}
    assert types["alignments_class_1"] == "particle.alignments3D"


def test_files_without_rows(tmp_path):
    star = tmp_path / "a.star"
    star.write_text("\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnClassNumber #2\n\n")
    cs = save_cs(tmp_path / "a.cs", particle_columns(np.zeros(0, "S4"), []))
    for path in (star, cs):
        out = path.with_stem("out")
        with pytest.raises(MissingDataError, match="the file has none"):
            select(path, out, where="rlnClassNumber > 1" if path == star else "blob/idx > 1")
        select(path, out, rows=_no_rows(tmp_path), allow_empty=True)
        assert out.exists()


def _no_rows(folder):
    np.save(folder / "none.npy", np.zeros(0, int))
    return folder / "none.npy"


# Outputs and contradictions


def test_a_file_that_is_there_is_kept_without_overwrite(job, tmp_path):
    (tmp_path / "sub_passthrough.cs").write_text("mine")
    with pytest.raises(OutputExistsError):
        select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="blob/idx > 0")
    assert [path.name for path in tmp_path.glob("sub*")] == ["sub_passthrough.cs"]
    select(job / "J7_010_particles.cs", tmp_path / "sub.cs", where="blob/idx > 0", overwrite=True)
    assert len(open_particles(tmp_path / "sub.csg")) == 10


def test_what_is_read_is_never_written_over(star, job, tmp_path):
    before = star.read_bytes()
    with pytest.raises(UsageError, match="one of the inputs"):
        select(star, star, classes=(1,), overwrite=True)
    (tmp_path / "link.star").symlink_to(star)
    with pytest.raises(UsageError, match="one of the inputs"):
        select(star, tmp_path / "link.star", classes=(1,), overwrite=True)
    with pytest.raises(UsageError, match="one of the inputs"):
        select(star, tmp_path / "like.star", like=_copy(star, tmp_path / "like.star"), overwrite=True)
    assert star.read_bytes() == before


def _copy(source, target):
    target.write_bytes(source.read_bytes())
    return target


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "nothing is asked for"),
        ({"invert": True}, "invert= without a choice"),
        ({"clusters": (1,)}, "clusters= needs the labels"),
        ({"kmeans": "k.pkl"}, "chooses nothing"),
        ({"kmeans": "k.pkl", "run": "out"}, "both name labels"),
        ({"classes": (1,), "zdim": 4}, "zdim= belongs to run="),
        ({"attach_class": "run"}, "no run is named"),
        ({"attach_latent": "run"}, "no run is named"),
        ({"classes": (1,), "label_rows": "ind.pkl"}, "label_rows= belongs to"),
        ({"attach_class": "k.pkl", "invert": True}, "invert= without a choice"),
        ({"classes": (1,), "sources": "s.csv"}, "sources= belongs to"),
        ({"classes": (1,), "passthroughs": ("p.cs",)}, "passthroughs= is for a .cs file"),
        ({"classes": (1,), "no_passthrough": True}, "no_passthrough= is for a .cs file"),
    ],
)
def test_requests_that_contradict_each_other_are_refused(star, tmp_path, options, sentence):
    with pytest.raises(UsageError) as caught:
        select(star, tmp_path / "out.star", **options)
    assert sentence in caught.value.message


def test_the_output_is_of_the_same_program(star, job, tmp_path):
    with pytest.raises(UsageError, match=r"is a \.star file") as caught:
        select(star, tmp_path / "out.cs", classes=(1,))
    assert "convert" in caught.value.hint
    with pytest.raises(UsageError, match=r"is a \.cs or \.csg file"):
        select(job / "J7_010_particles.cs", tmp_path / "out.star", classes=(1,))


def test_a_file_that_is_no_table_is_reported(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UsageError, match="not a particle file, but npy"):
        select(tmp_path / "a.npy", tmp_path / "out.star", classes=(1,))


def test_a_file_without_classes_is_reported(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("\ndata_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n\n")
    with pytest.raises(MissingDataError, match="has no classes"):
        select(path, tmp_path / "out.star", classes=(1,))


def test_where_images_are_found_is_reported_when_the_names_lead_nowhere_from_the_output(star, tmp_path):
    stack = star.parent / "Extract" / "job003" / "mic0.mrcs"
    stack.parent.mkdir(parents=True)
    stack.write_bytes(b"x")
    stack.with_name("mic1.mrcs").write_bytes(b"x")
    near = select(star, star.parent / "Select" / "near.star", classes=(1,))
    far = select(star, tmp_path / "far.star", classes=(1,))
    assert near.warnings == ()
    assert any(f"datadir='{star.parent}'" in sentence for sentence in texts(far.warnings))


def test_stacks_of_the_chosen_rows_that_are_nowhere_are_reported_of(star, tmp_path):
    folder = star.parent / "Extract" / "job003"
    folder.mkdir(parents=True)
    (folder / "mic0.mrcs").write_bytes(b"x")
    output = star.parent / "Select" / "a.star"
    (sentence,) = texts(select(star, output, classes=(1, 2, 3, 4)).warnings)
    assert sentence.startswith("1 of 2 stacks is not found below ")
    assert select(star, output, overwrite=True, where="rlnDefocusU < 10550").warnings == ()
    assert select(star, output, overwrite=True, where="rlnDefocusU < 0", allow_empty=True).warnings == ()


def test_names_that_count_from_the_files_own_folder_are_written_as_the_new_folder_has_them(tmp_path):
    columns = particle_columns([">imported/a.mrc"] * 3, range(3))
    columns |= {"alignments3D/class": np.zeros(3, "u4"), "alignments3D/pose": np.zeros((3, 3), "f4")}
    path = save_cs(tmp_path / "in" / "a.cs", columns)
    (tmp_path / "in" / "imported").mkdir()
    (tmp_path / "in" / "imported" / "a.mrc").write_bytes(b"x")
    near = select(path, tmp_path / "in" / "b.cs", where="blob/idx > 0")
    far = select(path, tmp_path / "b.cs", where="blob/idx > 0")
    assert near.warnings == far.warnings == ()
    assert np.load(tmp_path / "in" / "b.cs")["blob/path"].tolist() == [b">imported/a.mrc"] * 2
    assert np.load(tmp_path / "b.cs")["blob/path"].tolist() == [b">in/imported/a.mrc"] * 2
    select(path, None, split_by_class=tmp_path / "x" / "y", classes=(0,))
    assert np.load(tmp_path / "x" / "y" / "a_class000.cs")["blob/path"][0] == b">../../in/imported/a.mrc"


def test_names_of_a_passthrough_file_are_written_as_the_new_folder_has_them_too(tmp_path):
    uid = np.arange(5, 8, dtype="u8")
    path = save_cs(tmp_path / "in" / "J4_particles.cs", {"uid": uid, "blob/path": np.array([b"J1/a.mrc"] * 3)})
    micrographs = np.array([b">m/a.mrc", b">m/b.mrc", b">m/a.mrc"])
    passthrough = {"uid": uid, "location/micrograph_path": micrographs}
    save_cs(tmp_path / "in" / "J4_passthrough_particles.cs", passthrough)
    select(path, tmp_path / "out" / "sub.cs", rows=[0, 1])
    written = np.load(tmp_path / "out" / "sub_passthrough.cs")["location/micrograph_path"].tolist()
    assert written == [b">../in/m/a.mrc", b">../in/m/b.mrc"]
    assert np.load(tmp_path / "out" / "sub.cs")["blob/path"].tolist() == [b"J1/a.mrc"] * 2


# The command


def test_the_command_tells_what_it_kept(star, tmp_path):
    code, shown = run_in_terminal("select", star, "--class", "1,4", "--invert", "-o", "out.star", cwd=tmp_path)
    shown = without_escapes(shown)
    assert code == 0
    assert "6 of 12" in shown
    assert "6 chosen, and the others are kept" in shown
    assert numbers_of(tmp_path / "out.star") == [row for row in range(N) if CLASSES[row] in (2, 3)]


def test_the_command_speaks_json_and_a_dry_run_writes_nothing(star, tmp_path):
    words = [
        "select",
        star,
        "--where",
        "rlnDefocusU > 10500",
        "--random",
        "2",
        "--seed",
        "3",
        "-o",
        "out.star",
        "--json",
    ]
    planned = json.loads(run(*words, "--dry-run", cwd=tmp_path).stdout)
    assert not (tmp_path / "out.star").exists()
    done = json.loads(run(*words, cwd=tmp_path).stdout)
    assert {**planned, "dry_run": False} == done
    assert done["files"] == {"out.star": 2}
    assert (done["random"], done["seed"]) == (2, 3)
    assert done["left_out"] == {"for which rlnDefocusU > 10500 does not hold": 5, "not drawn": 5}
    again = run(*words, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (1, "")
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--class", "1,x"], "'x' is no number from 0 on"),
        (["--class", "3-1"], "'3-1' is no number"),
        (["--class", "1,"], "nothing"),
        (["--clusters", "0-999999999"], "too long a range"),
        (["--where", "rlnDefocusV > 1"], "Did you mean rlnDefocusU"),
        (["--class", "1", "--passthrough", "a.cs", "--no-passthrough"], "contradict each other"),
        (["--class", "1", "--split-by-class", "x"], "one place to write to"),
    ],
)
def test_mistakes_on_the_command_line_exit_with_2(star, tmp_path, words, sentence):
    done = run("select", star, *words, "-o", "out.star", cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert list(tmp_path.glob("*.star")) == []


def test_the_command_needs_a_particle_file(tmp_path):
    done = run("select", "--class", "1", "-o", "out.star", cwd=tmp_path)
    assert (done.returncode, "no particle file is named" in done.stderr) == (2, True)


def test_ranges_of_classes(star, tmp_path):
    assert run("select", star, "--class", "1-2, 4", "-o", "out.star", cwd=tmp_path).returncode == 0
    assert numbers_of(tmp_path / "out.star") == [row for row in range(N) if CLASSES[row] != 3]


def test_help_loads_no_heavy_library_and_shows_every_option_whole():
    shown, loaded = probe("select", "--help", COLUMNS="80")
    assert loaded == []
    assert "…" not in shown
    assert {"--attach-latent", "--split-by-class", "--no-passthrough", "--where"} <= set(shown.split())


def test_the_example_of_a_condition_can_be_pasted(tmp_path):
    save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["1@a.mrcs"], "rlnDefocusU": [1.0]})
    done = run("select", "a.star", "-o", "b.star", "--where", "rlnDefocusU >> 1", cwd=tmp_path)
    assert done.returncode == 2
    assert "--where 'rlnDefocusU > 12000 and rlnClassNumber in (1, 4)'." in done.stderr
