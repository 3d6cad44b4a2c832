from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.relion.star import open_star
from cryobridge.formats.relion.star_text import pick_columns

LABELS = ("rlnMicrographName", "rlnClassNumber", "rlnImageName", "rlnAnglePsi")
HEAD = "\ndata_particles\n\nloop_\n" + "".join(f"_{label} #{place}\n" for place, label in enumerate(LABELS, 1))
words = st.text("ab1.@/_-", min_size=1, max_size=6).filter(lambda text: not text.startswith(("_", "data", "loop")))
gaps = st.sampled_from([" ", "  ", "\t", "   "])
ends = st.sampled_from(["\n", " \n", "  \n", "\t\n", "\r\n", " \r\n"])
rows = st.tuples(st.sampled_from(["", " "]), words, st.integers(0, 999), words, st.floats(-180, 180, width=16), ends)
quoted = st.sampled_from(['"a b"', "'c'", "x#y", "#"])


def text_of(row, gap):
    start, *values, end = row
    return start + gap.join(f"{value}" for value in values) + end


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=6), gaps, st.sampled_from(["", "\n", " \n", "\ndata_x\n\n_rlnB 1\n"]))
def test_chosen_columns_are_those_of_the_whole_block(tmp_path, content, gap, tail):
    path = tmp_path / "x.star"
    path.write_bytes((HEAD + "".join(text_of(row, gap) for row in content) + tail).encode())
    whole = open_star(path)["particles"]
    for labels in (("rlnImageName", "rlnClassNumber"), ("rlnClassNumber",), ("rlnAnglePsi", "rlnMicrographName")):
        some = open_star(path).select("particles", labels)
        assert some.names == labels
        assert all(some.table[label].to_pylist() == whole.table[label].to_pylist() for label in labels)
    assert whole.table["rlnClassNumber"].to_pylist() == [row[2] for row in content]
    assert whole.table["rlnImageName"].to_pylist() == [row[3] for row in content]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.one_of(words, quoted), min_size=3, max_size=5), min_size=1, max_size=4))
def test_rows_that_are_refused_or_quoted_are_so_for_chosen_columns_too(tmp_path, content):
    path = tmp_path / "x.star"
    head = "\ndata_particles\n\nloop_\n_rlnA #1\n_rlnB #2\n_rlnC #3\n_rlnD #4\n"
    path.write_text(head + "".join(" ".join(row) + " \n" for row in content) + " \n")
    try:
        expected = open_star(path)["particles"].table["rlnC"].to_pylist()
    except FormatError:
        with pytest.raises(FormatError):
            open_star(path).select("particles", ["rlnC"])
    else:
        assert open_star(path).select("particles", ["rlnC"]).table["rlnC"].to_pylist() == expected


def test_columns_of_a_large_block_in_many_pieces(tmp_path):
    n = 60_000
    rng = np.random.default_rng(0)
    classes = rng.integers(1, 100, n)
    names = [f"{row + 1:06d}@Extract/job005/some/longer/path/of/a/micrograph_{row // 100:05d}.mrcs" for row in range(n)]
    rows = "".join(f"m.mrc {number:12d} {name} {0.5:12.6f} \n" for number, name in zip(classes, names, strict=True))
    path = tmp_path / "x.star"
    path.write_text(f"{HEAD}{rows} \n")
    block = open_star(path).select("particles", ["rlnImageName", "rlnClassNumber"])
    assert block.texts("rlnImageName").to_pylist() == names
    assert np.array_equal(block.read(["rlnClassNumber"])["rlnClassNumber"], classes)


def test_regular_rows_take_the_short_way():
    rows = b"   a    1 b  2.0 \nccc    22 d -3.0 \n"
    assert pick_columns(rows, 4, [0, 2]) == b"a b\nccc d\n"
    assert pick_columns(rows, 4, [1]) == b"1\n22\n"
    assert pick_columns(b"a b c\n1 2\n3\n", 3, [0]) is None
    assert pick_columns(b'a "b" c\n', 3, [0]) is None
    assert pick_columns(b"a\x01 b\n", 2, [0, 1]) is None


def test_columns_that_are_not_there_and_lists(tmp_path):
    path = tmp_path / "x.star"
    path.write_text("data_a\n\n_rlnB 1\n_rlnC x\n\ndata_b\n\nloop_\n_rlnD\n1\n\n")
    star = open_star(path)
    assert star.select("a", ["rlnC"]).names == ("rlnC",)
    with pytest.raises(MissingDataError, match="no column rlnX in data_b"):
        star.select("b", ["rlnX"])
