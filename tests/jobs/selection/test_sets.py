"""Sets of particles: and, or, not."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cryobridge as cb
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import read_csg
from cryobridge.formats.relion.star import open_star
from helpers import codes, particle_columns, run, save_cs, save_star

# Several rows may be of one particle, as in symmetry-expanded sets.
ROWS = st.lists(st.integers(0, 8), min_size=1, max_size=12)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def star(path, numbers):
    columns = {"rlnImageName": [f"{number + 1:06d}@a/b.mrcs" for number in numbers], "rlnOrder": range(len(numbers))}
    return save_star(path, "particles", columns)


def cs(path, numbers):
    columns = particle_columns(["J1/b.mrc"] * len(numbers), numbers)
    return save_cs(path, columns | {"uid": np.array(numbers, "u8") + 7})


def numbers_in(path):
    if path.suffix == ".cs":
        return open_cs(path).read(["blob/idx"])["blob/idx"].tolist()
    names = open_star(path)["particles"].table["rlnImageName"].to_pylist()
    return [int(name.partition("@")[0]) - 1 for name in names]


@pytest.mark.parametrize(("make", "suffix"), [(star, "star"), (cs, "cs")])
@SLOW
@given(a=ROWS, b=ROWS)
def test_rows_of_a_or_b_and_of_b_that_a_has_too_are_as_many_as_those_of_a_and_b(a, b, make, suffix, tmp_path):
    first, other, out = make(tmp_path / f"a.{suffix}", a), make(tmp_path / f"b.{suffix}", b), tmp_path / f"c.{suffix}"

    def chosen(path, **options):
        report = cb.select_files(path, out, overwrite=True, allow_empty=True, **options)
        assert report.rows_in == report.rows_out + sum(report.left_out.values())
        return numbers_in(out)

    either = chosen(first, or_=other)
    assert either == a + [number for number in b if number not in a]
    a_not_b = chosen(first, not_=other)
    assert a_not_b == [number for number in a if number not in b]
    b_and_a = [number for number in b if number in a]
    if b_and_a:
        assert chosen(other, and_=first) == b_and_a
        a_and_b = chosen(first, and_=other)
        assert len(a_and_b) + len(a_not_b) == len(a)
        # Of particles, each counted once.
        assert len(set(either)) + len(set(a_and_b)) == len(set(a)) + len(set(b))
        if len(set(a)) == len(a) and len(set(b)) == len(b):
            assert len(either) + len(a_and_b) == len(a) + len(b)
    else:
        with pytest.raises(MissingDataError, match="no particle of"):
            chosen(first, and_=other)
    assert len(either) + len(b_and_a) == len(a) + len(b)


def test_files_are_added_first_then_all_of_the_and_files_count_and_then_the_not_files(tmp_path):
    a, b, c, d = (
        star(tmp_path / f"{n}.star", rows) for n, rows in zip("abcd", ([0, 1], [2, 3], [1, 2, 3], [3]), strict=True)
    )
    report = cb.select_files(a, tmp_path / "out.star", or_=b, and_=c, not_=d)
    assert numbers_in(tmp_path / "out.star") == [1, 2]
    assert [(each.operation, each.by, each.rows, each.other_rows) for each in report.sets] == [
        ("or", None, 0, 2),
        ("and", "image", 3, 3),
        ("not", "image", 1, 1),
    ]
    assert report.left_out == {"not in c.star": 1, "in d.star": 1}


def test_several_files_are_united_and_a_particle_is_written_once(tmp_path):
    a, b, c = (cs(tmp_path / f"{n}.cs", rows) for n, rows in zip("abc", ([0, 1], [1, 2], [2, 0, 5]), strict=True))
    answer = run("select", a, "--or", b, "--or", c, "-o", tmp_path / "out.cs")
    assert answer.returncode == 0
    assert numbers_in(tmp_path / "out.cs") == [0, 1, 2, 5]
    assert {slot.num_items for slot in read_csg(tmp_path / "out.csg").slots} == {4}
    assert "2 of c.cs, in a file before it too" in answer.stdout


def test_the_other_requests_are_made_of_the_united_rows(tmp_path):
    a, b = star(tmp_path / "a.star", [0, 1, 2]), star(tmp_path / "b.star", [2, 3, 4])
    cb.select_files(a, tmp_path / "out.star", or_=b, where="rlnOrder >= 1")
    assert numbers_in(tmp_path / "out.star") == [1, 2, 3, 4]
    found = cb.select(a, or_=b, random=2, seed=1)
    assert len(found) == 2
    with pytest.raises(UsageError, match="count the rows of one file"):
        cb.select(a, or_=b, rows=[0])


def test_files_of_either_program_take_away_and_only_files_of_the_own_one_add(tmp_path):
    a, b = (
        cs(tmp_path / "a.cs", [0, 1, 2]),
        save_star(tmp_path / "b.star", "particles", {"rlnImageName": ["2@J1/b.mrcs"]}),
    )
    cb.select_files(a, tmp_path / "and.cs", and_=b)
    cb.select_files(a, tmp_path / "not.cs", not_=b)
    assert numbers_in(tmp_path / "and.cs") == [1] and numbers_in(tmp_path / "not.cs") == [0, 2]
    with pytest.raises(UsageError, match="another program") as caught:
        cb.select_files(a, tmp_path / "or.cs", or_=b)
    assert caught.value.hint.startswith("Convert it first")


def test_stacks_of_two_jobs_with_one_bare_name_are_not_the_same_images(tmp_path):
    first = save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["1@Extract/job010/m.mrcs"]})
    other = save_star(tmp_path / "b.star", "particles", {"rlnImageName": ["1@Extract/job020/m.mrcs"]})
    assert len(cb.select(first, or_=other)) == 2
    taken = cb.select_files(first, tmp_path / "out.star", not_=other)
    assert taken.rows_out == 1 and "nothing-in-both" in codes(taken.warnings)


def test_exit_codes_and_names_of_options(tmp_path):
    a, b = star(tmp_path / "a.star", [0]), cs(tmp_path / "b.cs", [0])
    assert run("select", a, "--or", b, "-o", tmp_path / "c.star").returncode == 2
    assert "--invert" in run("select", a, "--or", a, "--invert", "-o", tmp_path / "c.star").stderr
    with pytest.raises(CryobridgeError):
        cb.select(a, and_=tmp_path / "missing.star")


def test_rows_that_are_known_by_nothing_are_not_united(tmp_path):
    names = [save_star(tmp_path / f"{n}.star", "micrographs", {"rlnMicrographName": [f"{n}.mrc"]}) for n in "ab"]
    with pytest.raises(MissingDataError, match="neither uids nor images") as caught:
        cb.select_files(names[0], tmp_path / "out.star", or_=names[1])
    assert "merge" in caught.value.hint


def test_sets_in_memory_are_compared_as_files_are(tmp_path):
    a, b = star(tmp_path / "a.star", [0, 1, 2, 3]), cb.read(star(tmp_path / "b.star", [1, 2, 7]))
    whole = cb.read(a)
    for source in (a, whole):
        assert cb.select(source, and_=b).images.index.tolist() == [1, 2]
        assert cb.select(source, and_=[a, b], not_=[cb.select(a, where="rlnOrder == 2")]).images.index.tolist() == [1]
    with pytest.raises(UsageError, match="added to those of a file") as caught:
        cb.select(whole, or_=a)
    assert "first + other" in caught.value.hint
    with pytest.raises(UsageError, match="and_: a path is needed, not int"):
        cb.select(a, and_=[5])


def test_a_file_without_rows_is_said_to_have_none(tmp_path):
    a, b = cs(tmp_path / "a.cs", [0, 1]), cs(tmp_path / "b.cs", [])
    for options in ({"like": b}, {"and_": b}):
        with pytest.raises(MissingDataError, match=r"b\.cs: there are no particles in it"):
            cb.select(a, **options)
