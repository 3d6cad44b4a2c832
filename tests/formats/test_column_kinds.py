"""Columns of an unexpected kind, and the rows of errors in files that are joined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from cryobridge.errors import FormatError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.open import open_particles
from cryobridge.jobs.convert.convert import convert
from helpers import particle_columns, save_cs

N = 4


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def columns(**changed):
    return particle_columns(["a.mrc"] * N, range(N)) | {
        name.replace("__", "/"): value for name, value in changed.items()
    }


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ctf/df1_A", np.array([b"a"] * N), "a column of text, where numbers are needed"),
        ("ctf/df1_A", np.full(N, 1e4 + 1j, "c8"), "a column of complex numbers, where numbers are needed"),
        ("ctf/accel_kv", np.full(N, 300 + 1j, "c16"), "a column of complex numbers"),
        ("blob/idx", np.array([b"1"] * N), "a column of text"),
        ("blob/idx", np.full(N, 1j, "c8"), "a column of complex numbers"),
        ("blob/idx", np.array([0, 1, 2**63 + 5, 3], "u8"), "row 2: 9223372036854775813 is not a whole number below 2"),
        ("ctf/exp_group_id", np.full(N, 2**64 - 1, "u8"), "row 0, 1, 2 …: 18446744073709551615 is not a whole number"),
        ("blob/path", np.array([b"a.mrc", b"", b">", b"b.mrc"]), "row 1, 2: the name of the image file is empty"),
        ("alignments3D/pose", np.full((N, 3), 1j, "c8"), "a column of complex numbers"),
        ("alignments3D/split", np.array([b"x"] * N), "a column of text"),
        ("blob/path", np.arange(N, dtype="f4"), "a column of numbers, where names of image files are needed"),
        ("alignments3D/class", np.array([0, 0, 2**63, 1], "u8"), "row 2: 9223372036854775808 is not a whole number"),
        ("alignments3D/class", np.array([0, np.nan, 1, 1], "f4"), "row 1: nan is not a whole number"),
        ("ctf/anisomag", np.array([[0, 0, 0, 0]] * 2 + [[-1, 0, 0, -1]] * 2, "f4"), "row 2: the magnification"),
        ("ctf/anisomag", np.array([[0, 0, 0, 0]] * 3 + [[np.nan, 0, 0, 0]], "f4"), "row 3: the magnification"),
    ],
)
def test_a_column_of_an_unexpected_kind_is_refused_by_its_name(name, values, message, tmp_path):
    given = columns(alignments3D__pose=np.zeros((N, 3), "f4"), alignments3D__shift=np.zeros((N, 2), "f4"))
    path = save_cs(tmp_path / "a.cs", given | {name: values})
    with pytest.raises(FormatError) as caught:
        _ = open_particles(path).particles
    assert caught.value.field == name
    assert message in str(caught.value)


def test_rows_of_an_error_are_those_of_the_file_that_it_names(tmp_path):
    uid = np.array([5, 3, 9, 7], "u8")
    main = {"uid": uid, "blob/path": np.array([b"a.mrc"] * N), "blob/idx": np.arange(N, dtype="u4")}
    save_cs(tmp_path / "J4_particles.cs", main)
    # The row of uid 3 is missing, that of uid 7 is the second one.
    own = {name: values[:3] for name, values in columns().items() if name.startswith("ctf/")}
    own["ctf/df1_A"] = np.array([1e4, np.nan, 1e4], "f4")
    own["blob/psize_A"], own["blob/shape"] = np.full(3, 1.5, "f4"), np.full((3, 2), 16, "u4")
    passthrough = save_cs(tmp_path / "J4_passthrough_particles.cs", {"uid": np.array([9, 7, 5], "u8")} | own)
    with pytest.raises(FormatError) as caught:
        convert(tmp_path / "J4_particles.cs", tmp_path / "out.star")
    assert (caught.value.path, caught.value.rows) == (str(passthrough), (1,))
    assert caught.value.field == "ctf/df1_A"
    own["ctf/df1_A"] = np.full(3, 1e4, "f4")
    own["ctf/anisomag"] = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [-1, 0, 0, -1]], "f4")
    save_cs(passthrough, {"uid": np.array([9, 7, 5], "u8")} | own)
    with pytest.raises(FormatError) as caught:
        _ = open_particles(tmp_path / "J4_particles.cs").particles
    assert (caught.value.path, caught.value.rows) == (str(passthrough), (2,))
    assert open_cs(passthrough).located("uid", np.array([1]))[0] == passthrough
