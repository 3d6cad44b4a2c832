from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UnsafeFileError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.csg import names_file, project_folder, read_csg, write_csg
from cryobridge.formats.cryosparc.join import UidJoin
from cryobridge.formats.open import open_particles
from cryobridge.formats.table import Column, Table
from cryobridge.model.particles import Labels
from helpers import texts

BIG = 2**63 + 12345  # neither an int64 nor a float64 holds it


class InMemory(Table):
    def __init__(self, name, columns):
        self.data = columns
        self.reads = []
        super().__init__(
            Path(name),
            len(next(iter(columns.values()))),
            tuple(Column(key, f"{v.dtype.kind}{v.dtype.itemsize}", v.shape[1:]) for key, v in columns.items()),
        )

    def read(self, names, rows=slice(None)):
        wanted = self._wanted(names)
        self.reads += wanted
        return {name: self.data[name][rows] for name in wanted}


def table(name, uid, **columns):
    columns = {key.replace("__", "/"): np.asarray(values) for key, values in columns.items()}
    return InMemory(name, {"uid": np.asarray(uid, dtype=np.uint64), **columns})


# Joining


def join_on_uid(main, *others):
    join = UidJoin(main)
    return join.joined([join.match(table) for table in others])


def test_rows_are_joined_by_uid_in_the_order_of_the_main_file():
    main = table("main.cs", [BIG, 7, BIG + 1], a__x=[0, 1, 2])
    other = table("pass.cs", [7, BIG + 1, BIG], b__y=[10, 20, 30])
    joined = join_on_uid(main, other)
    read = joined.read(["a/x", "b/y", "uid"])
    assert read["a/x"].tolist() == [0, 1, 2]
    assert read["b/y"].tolist() == [30, 10, 20]
    assert read["uid"].tolist() == [BIG, 7, BIG + 1]
    assert read["uid"].dtype == np.uint64
    assert (joined.left_out, joined.duplicates, joined.messages) == ({}, {}, ())


def test_uids_that_one_float_cannot_tell_apart_stay_apart():
    uids = [2**63 + 1, 2**63 + 2, 2**63 + 3]
    assert len({float(uid) for uid in uids}) == 1
    joined = join_on_uid(table("a.cs", uids, a__x=[1, 2, 3]), table("b.cs", uids[::-1], b__y=[3, 2, 1]))
    assert joined.read(["b/y"])["b/y"].tolist() == [1, 2, 3]


def test_of_a_shared_column_the_main_file_wins():
    joined = join_on_uid(table("a.cs", [1, 2], blob__idx=[1, 2]), table("b.cs", [2, 1], blob__idx=[9, 9], c__z=[5, 6]))
    assert joined.names == ("uid", "blob/idx", "c/z")
    assert joined.read(["blob/idx"])["blob/idx"].tolist() == [1, 2]
    assert joined.source_of("c/z").path.name == "b.cs"
    assert joined.source_of("blob/idx").path.name == "a.cs"


def test_rows_that_one_side_lacks_are_left_out_and_counted():
    joined = join_on_uid(table("a.cs", [1, 2, 3, 4], a__x=[1, 2, 3, 4]), table("b.cs", [4, 9, 2], b__y=[4, 9, 2]))
    assert joined.read(["a/x", "b/y"])["b/y"].tolist() == joined.read(["a/x"])["a/x"].tolist() == [2, 4]
    assert joined.left_out == {
        "rows of a.cs whose uid is not in b.cs": 2,
        "rows of b.cs whose uid is not in a.cs": 1,
    }
    assert len(joined.messages) == 2
    assert "2 rows remain" in texts(joined.messages)[0]


def test_rows_in_are_rows_out_and_rows_left_out_with_three_files():
    main = table("a.cs", np.arange(10), a__x=np.arange(10))
    first = table("b.cs", np.arange(2, 10), b__y=np.arange(2, 10))
    second = table("c.cs", np.arange(8)[::-1], c__z=np.arange(8)[::-1])
    joined = join_on_uid(main, first, second)
    lost = sum(count for reason, count in joined.left_out.items() if reason.startswith("rows of a.cs"))
    assert joined.n_rows + lost == main.n_rows
    read = joined.read(["a/x", "b/y", "c/z"])
    assert read["a/x"].tolist() == read["b/y"].tolist() == read["c/z"].tolist() == list(range(2, 8))


def test_a_repeated_uid_is_reported_and_the_first_row_is_taken():
    joined = join_on_uid(table("a.cs", [5, 5, 6], a__x=[0, 1, 2]), table("b.cs", [6, 5, 5], b__y=[60, 50, 51]))
    assert joined.duplicates == {"a.cs": 1, "b.cs": 1}
    assert joined.read(["b/y"])["b/y"].tolist() == [50, 50, 60]


def test_a_table_without_uid_is_refused_with_a_hint():
    lone = InMemory("hand.cs", {"a/x": np.arange(3)})
    with pytest.raises(MissingDataError, match="no column uid") as caught:
        join_on_uid(table("a.cs", [1, 2, 3]), lone)
    assert caught.value.path == "hand.cs"
    assert "never joined by their position" in caught.value.hint


def test_uids_that_went_through_floats_are_refused():
    lossy = InMemory("lossy.cs", {"uid": np.array([1.0, 2.0])})
    with pytest.raises(FormatError, match="64 bits"):
        join_on_uid(table("a.cs", [1, 2]), lossy)


def test_nothing_but_uids_is_read_before_a_column_is_asked_for():
    main, other = table("a.cs", [1, 2, 3], a__x=[1, 2, 3]), table("b.cs", [3, 2, 1], b__y=[3, 2, 1])
    joined = join_on_uid(main, other)
    assert main.reads == other.reads == ["uid"]
    joined.read(["b/y"], slice(0, 2))
    assert main.reads == ["uid"]


def test_a_scattered_column_is_read_once_however_many_batches_ask_for_it():
    n = 400
    order = np.random.default_rng(1).permutation(n)
    other = table("b.cs", order, b__y=order)
    joined = join_on_uid(table("a.cs", np.arange(n)), other)
    batches = [joined.read(["b/y"], slice(first, first + 10))["b/y"] for first in range(0, n, 10)]
    assert np.concatenate(batches).tolist() == list(range(n))
    assert other.reads.count("b/y") == 1


def test_an_empty_table_joins_to_nothing():
    joined = join_on_uid(table("a.cs", [1, 2], a__x=[1, 2]), table("b.cs", [], b__y=np.array([], dtype=np.float32)))
    assert joined.n_rows == 0
    assert len(joined.read(["b/y"])["b/y"]) == 0


def test_an_unknown_column_is_refused():
    with pytest.raises(MissingDataError, match="no column c/z"):
        join_on_uid(table("a.cs", [1])).read(["c/z"])


uids = st.lists(st.integers(0, 20) | st.integers(2**64 - 5, 2**64 - 1), max_size=25)


@given(uids, uids, st.integers(0, 10), st.integers(0, 30), st.integers(1, 3))
@settings(max_examples=150)
def test_the_join_is_that_of_a_dictionary(main_uids, other_uids, start, stop, step):
    main = table("a.cs", main_uids, a__row=np.arange(len(main_uids)))
    other = table("b.cs", other_uids, b__row=np.arange(len(other_uids)))
    joined = join_on_uid(main, other)
    first_row = {}
    for row, uid in enumerate(other_uids):
        first_row.setdefault(uid, row)
    expected = [(row, first_row[uid]) for row, uid in enumerate(main_uids) if uid in first_row]
    chosen = slice(start, stop, step)
    read = joined.read(["a/row", "b/row"], chosen)
    assert list(zip(read["a/row"].tolist(), read["b/row"].tolist(), strict=True)) == expected[chosen]
    repeated = joined.duplicates.get("b.cs", 0)
    unused = joined.left_out.get("rows of b.cs whose uid is not in a.cs", 0)
    if main_uids != other_uids:
        assert len(other_uids) == len({b for _, b in expected}) + unused + repeated


def test_a_million_shuffled_rows_are_joined_in_a_moment():
    n = 1_000_000
    rng = np.random.default_rng(0)
    uid = rng.integers(0, 2**64, n, dtype=np.uint64)
    order = rng.permutation(n)
    start = time.process_time()
    np.sort(uid)
    np.argsort(uid, kind="stable")
    one_sort = time.process_time() - start
    start = time.process_time()
    joined = join_on_uid(table("a.cs", uid, a__x=np.arange(n)), table("b.cs", uid[order], b__y=np.arange(n)[order]))
    seconds = time.process_time() - start
    read = joined.read(["a/x", "b/y"])
    assert np.array_equal(read["a/x"], read["b/y"])
    assert seconds < 20 * one_sort + 0.5


def test_real_particles_split_over_two_files_come_together_again(reference_data, tmp_path):
    whole = open_cs(reference_data / "real" / "cryosparc_P12_J24_001_particles.cs")
    pose = [name for name in whole.names if name.startswith(("alignments", "blob"))]
    rest = [name for name in whole.names if name not in pose and name != "uid"]
    order = np.random.default_rng(3).permutation(whole.n_rows)
    write_cs(tmp_path / "J24_001_particles.cs", whole.read(["uid", *pose]))
    passed = whole.read(["uid", *rest])
    shuffled = {name: v.take(order) if isinstance(v, Labels) else v[order] for name, v in passed.items()}
    write_cs(tmp_path / "J24_passthrough_particles.cs", shuffled)
    joined = join_on_uid(open_cs(tmp_path / "J24_001_particles.cs"), open_cs(tmp_path / "J24_passthrough_particles.cs"))
    assert joined.n_rows == whole.n_rows
    expected, got = whole.read(whole.names), joined.read(whole.names)
    for name in whole.names:
        if isinstance(expected[name], Labels):
            assert got[name].to_numpy().tolist() == expected[name].to_numpy().tolist()
        else:
            assert np.array_equal(got[name], expected[name])


# Result groups


def particles(folder, name, uid, *groups):
    uid = np.asarray(uid, dtype=np.uint64)
    columns = {f"{group}/value": uid.astype(np.float32) + place for place, group in enumerate(groups)}
    write_cs(folder / name, {"uid": uid, **columns})


GROUP = """\
created: 2024-05-06 07:08:09.101112
group:
  description: All particles that were processed, including alignments
  name: particles
  title: All particles
  type: particle
results:
  alignments3D:
    metafile: '>J42_005_particles.cs'
    num_items: 3
    type: particle.alignments3D
  blob:
    metafile: '>J42_passthrough_particles.cs'
    num_items: 3
    type: particle.blob
  location:
    metafile: '>J42_passthrough_particles.cs'
    num_items: 3
    type: particle.location
version: v4.4.1
"""


@pytest.fixture
def exported(tmp_path):
    particles(tmp_path, "J42_005_particles.cs", [3, 1, 2], "alignments3D", "blob")
    particles(tmp_path, "J42_passthrough_particles.cs", [1, 2, 3], "blob", "location")
    (tmp_path / "J42.csg").write_text(GROUP)
    return tmp_path / "J42.csg"


def test_a_group_tells_its_kind_version_and_members(exported):
    group = read_csg(exported)
    assert (group.name, group.title, group.kind, group.version) == (
        "particles",
        "All particles",
        "particle",
        "v4.4.1",
    )
    assert group.created == "2024-05-06 07:08:09.101112"
    assert [slot.name for slot in group.slots] == ["alignments3D", "blob", "location"]
    assert group.slots[1].type == "particle.blob"
    assert group.slots[1].num_items == 3
    assert [path.name for path in group.members] == ["J42_005_particles.cs", "J42_passthrough_particles.cs"]
    assert group.problems == ()


def test_a_group_that_lost_results_is_said_to_be_damaged(exported):
    exported.write_text(GROUP.replace("version: v4.4.1\n", ""))
    with pytest.raises(FormatError, match="version: damaged: it ends without its version"):
        read_csg(exported)
    assert len(open_particles(exported.with_name("J42_005_particles.cs"))) == 3
    place = GROUP.index("  location:")
    exported.write_text(GROUP[:place] + "version: v4.4.1\n")
    (problem,) = read_csg(exported).problems
    text = "the group is damaged: it names no location, which J42_passthrough_particles.cs has; they are not read"
    assert (problem.text, problem.severity) == (text, "warning")
    assert text in [str(message) for message in open_particles(exported).messages]


def test_a_group_that_is_no_utf8_says_so(exported):
    exported.write_bytes(GROUP.replace("All particles", "Größe").encode("latin-1"))
    with pytest.raises(FormatError, match=r"not UTF-8 text: byte \d+ begins no character") as caught:
        read_csg(exported)
    assert "save it as UTF-8" in caught.value.hint


def test_each_slot_comes_from_the_file_that_the_group_names_for_it(exported):
    joined = open_particles(exported).columns
    assert joined.path.name == "J42_005_particles.cs"
    assert joined.names == ("uid", "alignments3D/value", "blob/value", "location/value")
    read = joined.read(joined.names)
    assert read["uid"].tolist() == [3, 1, 2]
    # The main file has a blob too, of other values (uid + 1): the passthrough's (uid + 0) are wanted.
    assert read["blob/value"].tolist() == [3, 1, 2]
    assert read["location/value"].tolist() == [4, 2, 3]


def test_exactly_one_leading_angle_bracket_is_taken_off(tmp_path):
    (tmp_path / "a.csg").write_text(GROUP.replace("'>J42_005", "'>>J42_005"))
    assert read_csg(tmp_path / "a.csg").slots[0].metafile == tmp_path / ">J42_005_particles.cs"


def test_without_the_bracket_a_name_is_relative_to_the_project(tmp_path):
    job = tmp_path / "P3" / "J42"
    job.mkdir(parents=True)
    text = GROUP.replace("'>J42_005", "'J42/J42_005").replace("'>J42_pass", "'J40/J40_pass")
    (job / "J42_particles.csg").write_text(text)
    group = read_csg(job / "J42_particles.csg")
    assert group.slots[0].metafile == tmp_path / "P3" / "J42" / "J42_005_particles.cs"
    assert group.slots[1].metafile == tmp_path / "P3" / "J40" / "J40_passthrough_particles.cs"
    assert project_folder(job / "deeper") == tmp_path / "P3"


def test_a_job_that_was_copied_out_of_its_project_still_finds_its_files(exported):
    exported.write_text(GROUP.replace("'>J42_", "'J42/J42_"))
    group = read_csg(exported)
    assert group.problems == ()
    assert len(open_particles(exported)) == 3


def test_missing_members_and_wrong_lengths_are_reported_as_data(exported):
    (exported.parent / "J42_005_particles.cs").unlink()
    exported.write_text(GROUP.replace("num_items: 3\n    type: particle.location", "num_items: 4\n    type: x"))
    problems = " ".join(texts(read_csg(exported).problems))
    assert "J42_005_particles.cs does not exist (slots alignments3D)" in problems
    assert "Slot location should have 4 rows; J42_passthrough_particles.cs has 3" in problems
    assert "differ in num_items" in problems
    with pytest.raises(MissingDataError, match=r"J42_005_particles\.cs") as caught:
        open_particles(exported)
    assert caught.value.hint


def test_problems_of_a_group_are_notes_of_its_table(exported):
    exported.write_text(GROUP.replace("num_items: 3\n    type: particle.blob", "num_items: 8\n    type: particle.blob"))
    assert any("should have 8 rows" in text for text in texts(open_particles(exported).messages))


def test_a_slot_whose_columns_are_not_there_is_reported(exported):
    exported.write_text(GROUP.replace("  location:", "  filament:"))
    assert "J42_passthrough_particles.cs has no column filament/…, which the group promises" in (
        texts(read_csg(exported).problems)
    )


def test_a_member_elsewhere_on_the_machine_is_a_path_that_is_reported(exported, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    exported.write_text(GROUP.replace(">J42_005_particles.cs", str(secret)))
    group = read_csg(exported)
    assert group.slots[0].metafile == secret
    assert any("not a .cs file" in problem for problem in texts(group.problems))
    assert secret.read_text() == "root:x:0:0"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_member_that_is_a_pipe_does_not_hang_the_reader(exported):
    os.mkfifo(exported.parent / "pipe.cs")
    exported.write_text(GROUP.replace(">J42_005_particles.cs", ">pipe.cs"))
    assert "pipe.cs does not exist" in texts(read_csg(exported).problems)[0]


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/\udcff".encode("utf-8", "surrogateescape").decode("latin1"), "../" * 40]
)
def test_impossible_member_names_are_problems_not_crashes(exported, name):
    exported.write_text(GROUP.replace(">J42_005_particles.cs", f">{name}"))
    assert "does not exist" in texts(read_csg(exported).problems)[0]


def test_a_nul_in_a_member_name_is_refused(exported):
    exported.write_text(GROUP.replace("'>J42_005_particles.cs'", '">a\\0b"'))
    with pytest.raises(FormatError, match="names no metafile"):
        read_csg(exported)


def test_a_file_that_unfolds_without_bound_is_refused_at_once(tmp_path):
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    bomb = tmp_path / "bomb.csg"
    bomb.write_text("\n".join([*lines, "group: {name: x}", "results: *a11"]))
    tracemalloc.start()
    with pytest.raises(UnsafeFileError, match="aliases"):
        read_csg(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_repeated_text_may_be_an_alias(exported):
    text = GROUP.replace("'>J42_passthrough", "&p '>J42_passthrough", 1)
    head, _, tail = text.partition("location:")
    exported.write_text(head + "location:" + tail.replace("'>J42_passthrough_particles.cs'", "*p"))
    assert len(open_particles(exported)) == 3


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "huge.csg"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(FormatError, match="larger than"):
        read_csg(path)


def test_python_tags_are_not_obeyed(tmp_path):
    path = tmp_path / "evil.csg"
    marker = tmp_path / "ran"
    path.write_text(
        f"results: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]"
    )
    with pytest.raises(UnsafeFileError):
        read_csg(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "results:",
        "results: {}",
        "results: {blob: 3}",
        "results: {blob: {num_items: 3}}",
        "results: {blob: {metafile: '>'}}",
        "created: 2024-99-99\nresults: {}",
        "a: [" * 3000,
        "\x00",
        "results: {blob: {metafile: [a]}}",
        "? {a: b}\n: c",
        "results: !!binary {}",
        "<<: 3",
    ],
)
def test_what_is_no_group_gives_one_clear_error(tmp_path, text):
    path = tmp_path / "bad.csg"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_csg(path)


@given(st.binary(max_size=300))
@settings(max_examples=80)
def test_random_bytes_raise_nothing_else(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("noise") / "noise.csg"
    path.write_bytes(noise)
    with pytest.raises(CryobridgeError):
        read_csg(path)


@given(st.integers(0, len(GROUP)), st.text(alphabet="&*!<>[]{}:'\"\n #0az-", max_size=6))
@settings(max_examples=80)
def test_a_damaged_group_is_read_or_refused_but_never_crashes(tmp_path_factory, place, junk):
    path = tmp_path_factory.mktemp("noise") / "damaged.csg"
    path.write_text(GROUP[:place] + junk + GROUP[place + 1 :])
    try:
        assert read_csg(path).slots
    except CryobridgeError as error:
        assert error.path


def test_an_absent_group_is_reported_by_name(tmp_path):
    with pytest.raises(FormatError, match=r"none\.csg"):
        read_csg(tmp_path / "none.csg")


# Writing


def test_a_written_group_reads_back_and_has_the_form_that_cryosparc_imports(tmp_path):
    particles(tmp_path, "particles.cs", [BIG, 2], "blob", "ctf")
    write_csg(
        tmp_path / "particles.csg",
        {"blob": ("particle.blob", "particles.cs"), "ctf": ("particle.ctf", "particles.cs")},
        2,
        title="From RELION",
    )
    raw = yaml.safe_load((tmp_path / "particles.csg").read_text())
    assert set(raw) == {"created", "group", "results", "version"}
    assert raw["group"] == {"description": "", "name": "particles", "title": "From RELION", "type": "particle"}
    assert raw["results"]["blob"] == {"metafile": ">particles.cs", "num_items": 2, "type": "particle.blob"}
    assert raw["version"].startswith("v")
    group = read_csg(tmp_path / "particles.csg")
    assert group.problems == ()
    assert open_particles(tmp_path / "particles.csg").columns.read(["uid"])["uid"].tolist() == [BIG, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["particles.cs", "particles.csg"]


@pytest.mark.parametrize("name", ["../x.cs", "/etc/x.cs", "a/b.cs", "", ".."])
def test_a_group_is_written_for_files_beside_it_only(tmp_path, name):
    with pytest.raises(ValueError, match="beside"):
        write_csg(tmp_path / "p.csg", {"blob": ("particle.blob", name)}, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_cannot_be_written_says_what_to_do(tmp_path):
    with pytest.raises(CryobridgeError, match="can't be written") as caught:
        write_csg(tmp_path / "absent" / "p.csg", {"blob": ("particle.blob", "p.cs")}, 1)
    assert caught.value.hint


def test_a_name_that_no_file_system_takes_is_looked_for_without_an_error(exported):
    assert names_file(exported, "J\ud800.cs")
    assert names_file(exported, "J42_005_particles.cs")
    assert not names_file(exported, "other.cs")
