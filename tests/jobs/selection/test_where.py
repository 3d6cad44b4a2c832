from __future__ import annotations

import operator
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.cli.build import flag
from cryobridge.errors import UsageError
from cryobridge.formats.table import Column, Table
from cryobridge.jobs.selection.where import rows_where
from cryobridge.model.particles import Labels

# Values that float32, float64 and Python agree on.
VALUES = [-3, -1, 0, 1, 2, 2.5, 7, 12000.5]
TEXTS = ["a", "b.mrc", "two words", "it's", "and", ""]


class InMemory(Table):
    def __init__(self, columns):
        self.data = columns
        described = tuple(
            Column(name, "text" if isinstance(v, Labels) else f"{v.dtype.kind}{v.dtype.itemsize}", _shape(v))
            for name, v in columns.items()
        )
        super().__init__(Path("table.cs"), len(next(iter(columns.values()))), described)

    def read(self, names, rows=slice(None)):
        return {name: self.data[name] for name in self._wanted(names)}


def _shape(values):
    return () if isinstance(values, Labels) else values.shape[1:]


def labels(texts):
    distinct = list(dict.fromkeys(texts))
    return Labels(np.array([distinct.index(text) for text in texts], np.int32), tuple(distinct))


def table_of(rows):
    return InMemory(
        {
            "rlnClassNumber": np.array([row["rlnClassNumber"] for row in rows], np.int64),
            "rlnDefocusU": np.array([row["rlnDefocusU"] for row in rows], np.float64),
            "ctf/df1_A": np.array([row["ctf/df1_A"] for row in rows], np.float32),
            "alignments3D/shift": np.array([row["alignments3D/shift"] for row in rows], np.float32).reshape(-1, 2),
            "ctf/type": labels([row["ctf/type"] for row in rows]),
            "rlnImageName": labels([row["rlnImageName"] for row in rows]),
        }
    )


numbers = st.sampled_from(VALUES)
row_values = st.fixed_dictionaries(
    {
        "rlnClassNumber": st.integers(-3, 7),
        "rlnDefocusU": numbers,
        "ctf/df1_A": numbers,
        "alignments3D/shift": st.tuples(numbers, numbers),
        "ctf/type": st.sampled_from(TEXTS),
        "rlnImageName": st.sampled_from(TEXTS),
    }
)
# Each expression as ours writes it and as Python does.
number_columns = st.sampled_from(
    [
        ("rlnClassNumber", "row['rlnClassNumber']"),
        ("_rlnDefocusU", "row['rlnDefocusU']"),
        ("ctf/df1_A", "row['ctf/df1_A']"),
        ("`ctf/df1_A`", "row['ctf/df1_A']"),
        ("alignments3D/shift[0]", "row['alignments3D/shift'][0]"),
        ("alignments3D/shift[ 1 ]", "row['alignments3D/shift'][1]"),
    ]
)
text_columns = st.sampled_from([("ctf/type", "row['ctf/type']"), ("rlnImageName", "row['rlnImageName']")])
number_constants = numbers.map(lambda value: (repr(value), repr(value)))
text_constants = st.sampled_from(TEXTS).map(lambda text: (f'"{text}"' if "'" in text else f"'{text}'", repr(text)))
signs = st.sampled_from(
    [("==", "=="), ("=", "=="), ("!=", "!="), ("<>", "!="), ("<", "<"), ("<=", "<="), (">", ">"), (">=", ">=")]
)
equalities = st.sampled_from([("==", "=="), ("!=", "!=")])


def joined(*parts):
    return tuple(" ".join(side) for side in zip(*parts, strict=True))


def listed(constants):
    return tuple(
        f"({', '.join(side)}{comma})" for side, comma in zip(zip(*constants, strict=True), ("", ","), strict=True)
    )


def comparisons(columns, constants, operators):
    either = st.one_of(columns, constants)
    return st.one_of(
        st.tuples(columns, operators, either).map(lambda parts: joined(*parts)),
        st.tuples(constants, operators, columns).map(lambda parts: joined(*parts)),
        st.tuples(columns, st.lists(constants, min_size=1, max_size=3)).map(
            lambda parts: joined(parts[0], ("in", "in"), listed(parts[1]))
        ),
        st.tuples(columns, st.lists(constants, min_size=1, max_size=3)).map(
            lambda parts: joined(parts[0], ("NOT in", "not in"), listed(parts[1]))
        ),
        st.tuples(constants, operators, columns, operators, either).map(lambda parts: joined(*parts)),
    )


atoms = st.one_of(
    comparisons(number_columns, number_constants, signs), comparisons(text_columns, text_constants, equalities)
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        inner.map(lambda part: joined(("not", "not"), part)),
        inner.map(lambda part: (f"({part[0]})", f"({part[1]})")),
        st.tuples(inner, inner).map(lambda parts: joined(parts[0], ("and", "and"), parts[1])),
        st.tuples(inner, inner).map(lambda parts: joined(parts[0], ("OR", "or"), parts[1])),
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(expressions, st.lists(row_values, min_size=1, max_size=6))
def test_conditions_mean_what_python_means_by_them(expression, rows):
    ours, python = expression
    expected = [bool(eval(python, {}, {"row": row})) for row in rows]
    assert rows_where(ours, table_of(rows)).tolist() == expected


ROW = {
    "rlnClassNumber": 2,
    "rlnDefocusU": 12000.5,
    "ctf/df1_A": 0.1,
    "alignments3D/shift": (1.5, -2),
    "ctf/type": "imported",
    "rlnImageName": "000001@a/b.mrcs",
}


def holds(text, **changes):
    return bool(rows_where(text, table_of([{**ROW, **changes}]))[0])


def test_a_number_is_compared_in_the_precision_of_the_column():
    assert holds("ctf/df1_A == 0.1")
    assert holds("ctf/df1_A in (0.2, 0.1)")
    assert not holds("ctf/df1_A < 0.1")


def test_numbers_beyond_a_columns_range_are_compared_all_the_same():
    assert holds("ctf/df1_A < 1e300 and ctf/df1_A > -1e300 and rlnClassNumber < 99999999999999999999999")
    assert holds(f"rlnClassNumber < {2**64} and rlnClassNumber > -{2**64} and rlnDefocusU < 1{'0' * 5000}")


def test_uids_are_compared_to_the_last_digit():
    uid = np.array([2**63 + 1, 2**63 + 2, 5], np.uint64)
    assert rows_where(f"uid == {2**63 + 1}", InMemory({"uid": uid})).tolist() == [True, False, False]
    assert rows_where(f"uid in ({2**63 + 2}, 5)", InMemory({"uid": uid})).tolist() == [False, True, True]


_SIZES = (0, 1, 127, 128, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, 10**19, 10**25)
_BOUNDS = sorted({sign * size for size in _SIZES for sign in (1, -1)})
_FLOATS = (0.5, -0.5, 2.5, 2.0**53 + 2, 2.0**63, -(2.0**63), 2.0**64, 1e19, -1e19, 1e300, -1e300)
_SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def rows_kept(text, column, **others):
    return rows_where(text, InMemory({"a": column, **others})).tolist()


@pytest.mark.parametrize("kind", ["?", "i1", "u1", "i4", "u4", "i8", ">i8", "u8", ">u8"])
def test_whole_numbers_are_compared_to_the_last_digit_at_the_bounds_of_all_types(kind):
    # Python compares its whole numbers, of any size, with one another and with floats exactly.
    held = [0, 1] if kind == "?" else [v for v in _BOUNDS if np.iinfo(kind).min <= v <= np.iinfo(kind).max]
    column = np.array(held, kind)
    for sign, compare in _SIGNS.items():
        for value in (*_BOUNDS, *_FLOATS):
            expected = [compare(one, value) for one in held]
            assert rows_kept(f"a {sign} {value!r}", column) == expected, (sign, value)
            assert rows_kept(f"{value!r} {sign} a", column) == [compare(value, one) for one in held], (sign, value)
    for value in (*_BOUNDS, *_FLOATS):
        assert rows_kept(f"a in ({value!r}, 1)", column) == [one in (value, 1) for one in held]
        assert rows_kept(f"a not in ({value!r}, 1)", column) == [one not in (value, 1) for one in held]


@pytest.mark.parametrize("kinds", [("u8", "i8"), ("i8", "u8"), ("u8", "f8"), ("i8", "f8"), ("i8", "f4"), ("i4", "f4")])
def test_columns_of_other_types_are_compared_to_the_last_digit(kinds):
    fits = [[v for v in _BOUNDS if np.iinfo(kind).min <= v <= np.iinfo(kind).max] for kind in kinds if "f" not in kind]
    if len(fits) == 1:
        exact = np.array([*_FLOATS, *map(float, _BOUNDS), float("nan"), float("inf"), float("-inf")])
        with np.errstate(over="ignore"):
            fits.append(exact.astype(kinds[1]).astype(float).tolist())
    pairs = [(one, other) for one in fits[0] for other in fits[1]]
    first, other = (np.array([pair[place] for pair in pairs], kind) for place, kind in enumerate(kinds))
    for sign, compare in _SIGNS.items():
        assert rows_kept(f"a {sign} b", first, b=other) == [compare(*pair) for pair in pairs], sign
        assert rows_kept(f"b {sign} a", first, b=other) == [compare(*pair[::-1]) for pair in pairs], sign


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_are_compared_with_whole_numbers_in_their_own_precision(kind):
    held = [0.0, 1.0, -1.0, 2.0**11, float("nan"), float("inf"), float("-inf")]
    for value in _BOUNDS:
        near = float(np.float64(value).astype(kind)) if abs(value) < float(np.finfo(kind).max) else value
        for sign, compare in _SIGNS.items():
            assert rows_kept(f"a {sign} {value}", np.array(held, kind)) == [compare(one, near) for one in held]


def test_what_is_no_number_fulfils_no_comparison_but_inequality():
    nan = {"rlnDefocusU": float("nan")}
    for sign in ("<", "<=", ">", ">=", "=="):
        assert not holds(f"rlnDefocusU {sign} 1", **nan)
    assert holds("rlnDefocusU != 1", **nan)


def test_and_binds_closer_than_or_and_not_closer_than_and():
    assert holds("rlnClassNumber == 2 or rlnClassNumber == 3 and rlnClassNumber == 4")
    assert not holds("not rlnClassNumber == 2 and rlnClassNumber == 3 or rlnClassNumber == 4")


def test_a_column_that_is_named_like_a_word_can_be_quoted():
    values = InMemory({"in": np.array([1, 2])})
    assert rows_where("`in` in (2, 3)", values).tolist() == [False, True]


def test_an_element_of_a_matrix():
    values = InMemory({"alignments3D_multi/pose": np.arange(12).reshape(2, 2, 3)})
    assert rows_where("alignments3D_multi/pose[1,2] == 11", values).tolist() == [False, True]


def test_no_rows_is_no_error():
    assert rows_where("rlnClassNumber in (1, 2)", InMemory({"rlnClassNumber": np.zeros(0, int)})).tolist() == []


@pytest.mark.parametrize(
    ("text", "position", "sentence"),
    [
        ("", 1, "no condition"),
        ("   ", 1, "no condition"),
        ("rlnClassNumber", 15, "the end where a comparison"),
        ("rlnClassNumber >", 17, "the end where a column, a number"),
        ("rlnClassNumber > 1 rlnDefocusU", 20, "where a comparison (==, <, in …), and, or"),
        ("rlnClassNumber 1", 16, "where a comparison"),
        ("(rlnClassNumber > 1", 20, "the ) of character 1"),
        ("rlnClassNumber > 1)", 19, "where the end is expected"),
        ("rlnClassNumber in 1", 19, "where (, as in in (1, 4), is expected"),
        ("rlnClassNumber in ()", 20, "a number or a text"),
        ("rlnClassNumber in (1 2)", 22, ", or ) is expected"),
        ("rlnClassNumber not 1", 16, "where a comparison"),
        ("1 in (1, 2)", 1, "no column"),
        ("rlnClassNumber + 1 > 2", 16, "no arithmetic"),
        ("rlnClassNumber * 2 > 2", 16, "no arithmetic"),
        ("rlnClassNumber > 1e", 18, "'1e' is not a number"),
        ("rlnImageName == 000001@a.mrcs", 17, "is not a number"),
        ("rlnImageName == 'a.mrcs", 17, "not closed"),
        ("rlnImageName == a.mrcs", 17, "no column a.mrcs"),
        ("'rlnDefocusU' > 12000", 1, "neither of them a column"),
        ("rlnDefocus > 1", 1, "no column rlnDefocus"),
        ("rlnClassNumber > 1 and rlnDefocusu > 1", 24, "no column rlnDefocusu"),
        ("rlnClassNumber == 'x'", 19, "is text and rlnClassNumber a number"),
        ("ctf/type in ('a', 1)", 19, "is text and 1 a number"),
        ("ctf/type == rlnClassNumber", 13, "is text and rlnClassNumber a number"),
        ("ctf/type < 'b'", 1, "no order"),
        ("'b' < ctf/type", 7, "no order"),
        ("alignments3D/shift > 1", 1, "2 values a row"),
        ("alignments3D/shift[2] > 1", 1, "there is no alignments3D/shift[2]"),
        ("alignments3D/shift[0,0] > 1", 1, "2 values a row"),
        ("alignments3D/shift[x] > 1", 19, "the number of an element"),
        ("alignments3D/shift[-1] > 1", 19, "the number of an element"),
        ("alignments3D/shift[0 > 1", 19, "the number of an element"),
        ("rlnClassNumber[0] > 1", 1, "one value a row"),
        ("alignments3D/shift[" + "9" * 5000 + "] > 1", 19, "the number of an element"),
        ("rlnClassNumber > not 1", 18, "where a column, a number"),
        ("rlnClassNumber > 1, 2", 19, "where a comparison"),
        ("rlnClassNumber in (1, rlnDefocusU)", 23, "where a number or a text"),
        ("1 < rlnClassNumber in (1, 2)", 1, "chained"),
        ("(rlnClassNumber > 1) == 1", 2, "a condition is compared"),
        ("rlnClassNumber > 1 and rlnDefocusU", 35, "the end where a comparison"),
        ("__import__('os').system('true')", 17, "'.' means nothing"),
        ("not " * 150 + "rlnClassNumber > 1", 401, "nested more than 100"),
        ("(" * 150 + "rlnClassNumber > 1" + ")" * 150, 101, "nested more than 100"),
    ],
)
def test_a_mistake_is_reported_with_its_position(text, position, sentence):
    with pytest.raises(UsageError) as caught:
        holds(text)
    assert caught.value.message.startswith(f"character {position}: ")
    assert caught.value.option == "where"
    assert sentence in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value)) < 300


def test_the_example_is_a_condition_as_it_is_pasted():
    with pytest.raises(UsageError) as caught:
        holds("rlnClassNumber >")
    words = shlex.split(caught.value.hint_text(flag).rstrip("."))
    assert words[-2] == "--where"
    assert holds(words[-1]) is not None


def test_the_time_for_digits_that_are_no_number_grows_with_their_count():
    # A pattern that could share the digits between two parts would try each way: minutes instead of milliseconds.
    words = "from cryobridge.jobs.selection.where_text import parse_where; parse_where('9' * 200_000 + '.x')"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60, check=False)
    assert "is not a number" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("rlnDefocusV", "rlnDefocusU"),
        ("RLNCLASSNUMBER", "rlnClassNumber"),
        ("df1_A", "ctf/df1_A"),
        ("ctf/df1", "ctf/df1_A"),
    ],
)
def test_a_misspelled_column_brings_a_suggestion(wrong, right):
    with pytest.raises(UsageError) as caught:
        holds(f"{wrong} > 1")
    assert right in caught.value.hint


def test_a_column_like_no_other_brings_a_list():
    with pytest.raises(UsageError) as caught:
        holds("xyzzy > 1")
    assert "It has 6 columns, such as rlnClassNumber" in caught.value.hint


@settings(max_examples=200)
@given(st.text(alphabet="rlnA1.5'\"`()[],<>=! andotr/@\n\x00é", max_size=40))
def test_any_text_is_a_condition_or_a_usage_error(text):
    try:
        rows_where(text, table_of([ROW]))
    except UsageError as error:
        assert error.message.startswith("character ")
