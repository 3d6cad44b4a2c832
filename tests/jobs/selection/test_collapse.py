"""One row a particle of sets that were expanded by symmetry."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from cryobridge.errors import MissingDataError, UsageError, shown
from cryobridge.formats.cryosparc.csg import read_csg, write_csg
from cryobridge.formats.open import open_particles
from cryobridge.formats.open import read as read_particles
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.selection.choose import select, select_files
from helpers import particle_columns, run, save_cs, save_star, texts
from relion_grammar import read_block

N, COPIES = 5, 4
PARENTS = np.arange(N, dtype="u8") + np.uint64(2**63 + 11)
# A copy's own uid says nothing of its parent.
OWN = (np.arange(N * COPIES, dtype="u8")[::-1] + np.uint64(2**62)).reshape(N, COPIES)


def expanded(folder, scores=None, *, name="J9_expanded.cs", order=None, **more):
    """Save five particles with four copies each, (5, 4) scores, rows shuffled; return the file and its rows."""
    order = np.random.default_rng(3).permutation(N * COPIES) if order is None else order
    columns = particle_columns(["J3/extract/a.mrc"] * (N * COPIES), np.repeat(np.arange(N), COPIES))
    pose = np.zeros((N, COPIES, 3), "f4")
    pose[..., 2] = np.arange(COPIES) * np.pi / 2 + 0.01 * np.arange(N)[:, None]
    columns |= {
        "uid": OWN.ravel(),
        "sym_expand/src_uid": np.repeat(PARENTS, COPIES),
        "sym_expand/idx": np.tile(np.arange(COPIES, dtype="u4"), N),
        "alignments3D/pose": pose.reshape(-1, 3),
        "alignments3D/shift": np.zeros((N * COPIES, 2), "f4"),
        "alignments3D/psize_A": np.full(N * COPIES, 1.5, "f4"),
        "alignments3D/class_posterior": np.ones(N * COPIES, "f4"),
    }
    columns |= {key: np.asarray(values, "f4").ravel() for key, values in (scores or {}).items()}
    columns |= more
    columns = {key: np.asarray(values)[order] for key, values in columns.items()}
    return save_cs(folder / name, columns), columns


def best_copies(scores, *, least=False):
    return (np.argmin if least else np.argmax)(np.asarray(scores), axis=1)


SCORES = np.array(
    [[0.1, 0.9, 0.3, 0.2], [0.5, 0.2, 0.1, 0.4], [0.1, 0.2, 0.3, 0.7], [0.2, 0.3, 0.1, 0.0], [1.0, 0.1, 0.2, 0.3]]
)


@pytest.mark.parametrize("column", ["alignments3D/class_posterior", "alignments3D/error"])
def test_the_best_copy_of_each_particle_stays_under_the_uid_of_its_parent(tmp_path, column):
    path, _ = expanded(tmp_path, {column: SCORES})
    report = select_files(path, tmp_path / "one.cs", collapse=True)
    rows = np.load(tmp_path / "one.cs")
    best = best_copies(SCORES, least=column.endswith("error"))
    assert dict(zip(rows["uid"].tolist(), np.rint(rows["alignments3D/pose"][:, 2] / (np.pi / 2)), strict=True)) == dict(
        zip(PARENTS.tolist(), best.tolist(), strict=True)
    )
    assert not [name for name in rows.dtype.names if name.startswith("sym_expand")]
    assert (report.rows_in, report.rows_out, report.left_out) == (20, 5, {"other copies of a particle": 15})
    assert report.collapsed.by == column
    assert (report.collapsed.rows, report.collapsed.particles, report.collapsed.ties) == (20, 5, 0)
    assert report.collapsed.other_copies == np.count_nonzero(best)
    assert column in str(texts(report.notes))
    assert f"{np.count_nonzero(best)} rows are other copies than the first" in str(texts(report.warnings))


def test_the_first_copy_stays_where_that_is_asked_for(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/error": SCORES})
    report = select_files(path, tmp_path / "one.cs", collapse=True, first=True)
    rows = np.load(tmp_path / "one.cs")
    assert np.allclose(rows["alignments3D/pose"][:, 2], 0.01 * (rows["uid"] - PARENTS[0]), atol=1e-6)
    assert (report.collapsed.by, report.collapsed.other_copies, report.collapsed.ties) == ("the first copy", 0, 0)
    assert "pose-of-copy" not in {message.code for message in report.messages}


def test_without_a_score_that_differs_the_first_copy_stays_with_a_warning(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/error": np.repeat(np.arange(N), COPIES)})
    report = select_files(path, tmp_path / "one.cs", collapse=True)
    assert report.collapsed.by == "the first copy"
    assert "no column says which of the copies of 5 particles is the best" in str(texts(report.warnings))
    assert np.abs(np.load(tmp_path / "one.cs")["alignments3D/pose"][:, 2]).max() < 0.1


def test_of_equally_good_copies_the_lowest_index_stays_and_is_counted(tmp_path):
    scores = SCORES.copy()
    scores[0] = [0.1, 0.9, 0.9, 0.9]
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": scores})
    report = select_files(path, tmp_path / "one.cs", collapse=True)
    rows = np.load(tmp_path / "one.cs")
    assert np.rint(rows["alignments3D/pose"][rows["uid"] == PARENTS[0], 2] / (np.pi / 2)) == 1
    assert report.collapsed.ties == 1


def test_a_score_that_is_no_number_is_the_worst(tmp_path):
    scores = SCORES.copy()
    scores[1, 0] = np.nan
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": scores})
    select_files(path, tmp_path / "one.cs", collapse=True)
    rows = np.load(tmp_path / "one.cs")
    assert np.rint(rows["alignments3D/pose"][rows["uid"] == PARENTS[1], 2] / (np.pi / 2)) == 3


def test_copies_are_collapsed_among_the_rows_that_other_options_keep(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": SCORES})
    report = select_files(path, tmp_path / "one.cs", where="sym_expand/idx > 1 and blob/idx != 4", collapse=True)
    rows = np.load(tmp_path / "one.cs")
    best = 2 + best_copies(SCORES[:4, 2:])
    kept = dict(zip(rows["uid"].tolist(), np.rint(rows["alignments3D/pose"][:, 2] / (np.pi / 2)), strict=True))
    assert kept == dict(zip(PARENTS[:4].tolist(), best.tolist(), strict=True))
    assert sum(report.left_out.values()) + report.rows_out == 20
    drawn = select_files(path, tmp_path / "two.cs", collapse=True, random=2)
    assert drawn.rows_out == 2


def test_passthrough_files_and_the_group_get_the_uids_of_the_parents_too(tmp_path):
    path, columns = expanded(tmp_path, {"alignments3D/class_posterior": SCORES})
    passed = {
        "uid": columns["uid"][::-1],
        "location/center_x_frac": np.linspace(0, 1, N * COPIES, dtype="f4")[::-1],
        "location/micrograph_path": np.array(["m.mrc"] * (N * COPIES)),
    }
    save_cs(tmp_path / "J9_passthrough_expanded.cs", passed)
    slots = {slot: (f"particle.{slot}", path.name) for slot in ("blob", "ctf", "alignments3D", "sym_expand")}
    slots["location"] = ("particle.location", "J9_passthrough_expanded.cs")
    write_csg(tmp_path / "J9.csg", slots, N * COPIES)
    select_files(path, tmp_path / "out" / "one.cs", collapse=True)
    one, other = np.load(tmp_path / "out" / "one.cs"), np.load(tmp_path / "out" / "one_passthrough.cs")
    assert set(one["uid"]) == set(PARENTS)
    assert np.array_equal(one["uid"], other["uid"])
    group = read_csg(tmp_path / "out" / "one.csg")
    assert [slot.name for slot in group.slots] == ["alignments3D", "blob", "ctf", "location"]
    assert group.problems == ()
    again = open_particles(tmp_path / "out" / "one.csg")
    fraction = dict(zip(columns["uid"].tolist(), np.linspace(0, 1, N * COPIES, dtype="f4"), strict=True))
    of_copy = dict(zip(OWN.ravel().tolist(), [(p, c) for p in range(N) for c in range(COPIES)], strict=True))
    expected = {}
    for uid, value in fraction.items():
        parent, copy = of_copy[uid]
        if copy == best_copies(SCORES)[parent]:
            expected[int(PARENTS[parent])] = value
    found = again.columns.read(["uid", "location/center_x_frac"])
    assert dict(zip(found["uid"].tolist(), found["location/center_x_frac"], strict=True)) == expected


def test_what_was_collapsed_joins_with_the_parents(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": SCORES})
    select_files(path, tmp_path / "one.cs", collapse=True, where="blob/idx < 3")
    parents = particle_columns(["J3/extract/a.mrc"] * N, range(N)) | {"uid": PARENTS}
    report = select_files(save_cs(tmp_path / "parents.cs", parents), tmp_path / "same.cs", like=tmp_path / "one.cs")
    assert np.load(tmp_path / "same.cs")["uid"].tolist() == PARENTS[:3].tolist()
    assert "particles are compared by uid" in str(texts(report.notes))


def test_rows_that_are_no_copies_stay_as_they_are(tmp_path):
    path, columns = expanded(tmp_path, {"alignments3D/class_posterior": SCORES}, order=np.arange(20))
    columns["sym_expand/src_uid"][:4] = 0
    save_cs(path, columns)
    report = select_files(path, tmp_path / "one.cs", collapse=True)
    assert report.rows_out == 8
    assert set(np.load(tmp_path / "one.cs")["uid"]) == {*OWN[0].tolist(), *PARENTS[1:].tolist()}


@pytest.mark.parametrize(
    ("column", "values"),
    [("rlnMaxValueProbDistribution", [0.1, 0.7, 0.2]), ("rlnLogLikeliContribution", [-900.5, 20.25, 7.5])],
)
def test_relion_s_repeated_images_keep_the_likeliest_row(tmp_path, column, values):
    columns = {
        "rlnImageName": [f"{i:06d}@{stack}" for i in (1, 2) for stack in ("a.mrcs", "b.mrcs") for _ in range(3)],
        "rlnAngleRot": list(range(12)),
        column: [*values, *values[::-1], *values, *values],
    }
    star = save_star(tmp_path / "expanded.star", "particles", columns)
    report = select_files(star, tmp_path / "one.star", collapse=True)
    labels, rows, _ = read_block((tmp_path / "one.star").read_text(), "particles")
    assert [int(float(row[labels.index("rlnAngleRot")])) for row in rows] == [1, 4, 7, 10]
    assert report.collapsed.by == column
    select_files(star, tmp_path / "first.star", collapse=True, first=True)
    labels, rows, _ = read_block((tmp_path / "first.star").read_text(), "particles")
    assert [int(float(row[labels.index("rlnAngleRot")])) for row in rows] == [0, 3, 6, 9]


def test_a_cs_file_without_sym_expand_goes_by_its_images_and_keeps_its_uids(tmp_path):
    path, columns = expanded(tmp_path, {"alignments3D/class_posterior": SCORES}, order=np.arange(20))
    save_cs(path, {key: values for key, values in columns.items() if not key.startswith("sym_expand")})
    select_files(path, tmp_path / "one.cs", collapse=True)
    expected = OWN[np.arange(N), best_copies(SCORES)]
    assert np.load(tmp_path / "one.cs")["uid"].tolist() == expected.tolist()


def test_a_set_without_copies_is_refused(tmp_path):
    path = save_cs(tmp_path / "plain.cs", particle_columns(["a.mrc"] * 3, range(3)))
    with pytest.raises(MissingDataError, match="no row is a copy of another"):
        select_files(path, tmp_path / "one.cs", collapse=True)
    star = save_star(tmp_path / "plain.star", "particles", {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"]})
    with pytest.raises(MissingDataError, match="no image stands twice"):
        select_files(star, tmp_path / "one.star", collapse=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first": True, "where": "blob/idx > 0"}, "belongs to collapse="),
        ({"collapse": True, "invert": True}, "contradict each other"),
    ],
)
def test_contradictions_are_refused(tmp_path, options, words):
    path, _ = expanded(tmp_path)
    with pytest.raises(UsageError) as caught:
        select_files(path, tmp_path / "one.cs", **options)
    assert words in shown(str(caught.value))


def test_in_memory_the_parents_uid_is_taken_too(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": SCORES})
    for particles in (path, read_particles(path)):
        chosen = select(particles, collapse=True)
        assert set(chosen.uid.tolist()) == set(PARENTS.tolist())
        written = tmp_path / f"{type(particles).__name__}.cs"
        convert(chosen, written)
        assert set(np.load(written)["uid"]) == set(PARENTS.tolist())
        assert not [name for name in np.load(written).dtype.names if name.startswith("sym_expand")]


def test_the_command_reports_what_decided(tmp_path):
    path, _ = expanded(tmp_path, {"alignments3D/class_posterior": SCORES})
    result = run("select", path, "--collapse", "-o", tmp_path / "one.cs", "--json")
    content = json.loads(result.stdout)
    assert content["collapsed"] == {
        "rows": 20,
        "particles": 5,
        "by": "alignments3D/class_posterior",
        "ties": 0,
        "other_copies": 3,
    }
    assert yaml.safe_load((tmp_path / "one.csg").read_text())["results"]["blob"]["num_items"] == 5


def parents(folder, rows):
    columns = particle_columns(["J3/extract/a.mrc"] * N, range(N)) | {"uid": PARENTS}
    # Other images, so that nothing but the uids can match.
    columns |= {"blob/path": np.array(["J5/restack/batch_0_restacked.mrc"] * N)}
    return save_cs(folder / "parents.cs", {key: np.asarray(values)[rows] for key, values in columns.items()})


@pytest.mark.parametrize("first_keeps_its_uid", [False, True])
def test_parents_and_copies_are_matched_in_both_directions(tmp_path, first_keeps_its_uid):
    own = OWN.copy()
    if first_keeps_its_uid:
        own[:, 0] = PARENTS
    path, _ = expanded(tmp_path, uid=own.ravel())
    few = parents(tmp_path, [3, 1])
    report = select_files(path, tmp_path / "copies.cs", like=few)
    kept = np.load(tmp_path / "copies.cs")
    assert set(kept["sym_expand/src_uid"]) == {PARENTS[1], PARENTS[3]}
    assert report.rows_out == 2 * COPIES
    assert "copies-by-parents" in {message.code for message in report.notes}
    every = parents(tmp_path, np.arange(N))
    report = select_files(every, tmp_path / "originals.cs", like=tmp_path / "copies.cs")
    assert np.load(tmp_path / "originals.cs")["uid"].tolist() == [PARENTS[1], PARENTS[3]]


def test_copies_are_told_from_each_other_by_their_own_uids(tmp_path):
    path, _ = expanded(tmp_path)
    select_files(path, tmp_path / "some.cs", where="sym_expand/idx == 2 and blob/idx < 2")
    report = select_files(path, tmp_path / "same.cs", like=tmp_path / "some.cs")
    assert report.rows_out == 2
    assert "copies-by-parents" not in {message.code for message in report.notes}


def test_copies_of_two_expansions_are_matched_by_their_parents(tmp_path):
    path, _ = expanded(tmp_path)
    other, _ = expanded(tmp_path, name="again.cs", uid=OWN.ravel() + np.uint64(1000))
    select_files(other, tmp_path / "some.cs", where="blob/idx < 2 and sym_expand/idx == 1")
    assert select_files(path, tmp_path / "same.cs", like=tmp_path / "some.cs").rows_out == 2 * COPIES
