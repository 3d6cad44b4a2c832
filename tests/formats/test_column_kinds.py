"""Columns of an unexpected kind, and the rows of errors in files that are joined."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from cryobridge.errors import FormatError
from cryobridge.formats.contrast import is_dark
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.open import open_particles
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.convert.write import write
from cryobridge.jobs.identity.images import match_images
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.model.particles import ImageRefs, Labels, Poses
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


@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_no_half_set_and_no_class_are_shown_as_none_with_and_without_signs(dtype, tmp_path):
    given = columns(alignments3D__pose=np.zeros((N, 3), "f4"), alignments3D__shift=np.zeros((N, 2), "f4"))
    for name in ("split", "class"):
        given[f"alignments3D/{name}"] = np.array([0, 1, -1, 0], "i4").astype(dtype)
    particles = open_particles(save_cs(tmp_path / "a.cs", given)).particles
    assert particles.half_set.tolist() == [1, 2, 0, 1]
    assert particles.class_number.tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize("number", [-1, 2**31 - 1, 2**32, 2**32 + 1, 2**63 - 1])
@pytest.mark.parametrize("output", ["b.cs", "b.star"])
def test_images_that_no_stack_has_become_no_others(number, output, tmp_path):
    path = save_cs(tmp_path / "a.cs", columns(blob__idx=np.array([0, 1, number, number], "i8")))
    with pytest.raises(FormatError, match=f"image {number}, counted from 0") as caught:
        convert(path, tmp_path / output)
    assert (caught.value.field, caught.value.rows, caught.value.count) == ("blob/idx", (2, 3), 2)
    assert not (tmp_path / output).exists()
    path = save_cs(tmp_path / "a.cs", columns(blob__idx=np.array([0, 1, 2, 2**31 - 2], "i8")))
    convert(path, tmp_path / output)
    assert open_particles(tmp_path / output).particles.images.index.tolist() == [0, 1, 2, 2**31 - 2]


def test_classes_beyond_32_bits_become_no_others(tmp_path):
    path = save_cs(tmp_path / "a.cs", columns())
    particles = open_particles(path).particles
    numbers = np.array([1, 2, 2**32 + 2, 1])
    poses = Poses(np.tile(np.eye(3), (N, 1, 1)), np.zeros((N, 2)), False, "")
    with pytest.raises(FormatError, match="4294967297 is not a whole number below 2\\^32") as caught:
        write(particles.replace(poses=poses, class_number=numbers), tmp_path / "b.cs")
    assert caught.value.rows == (2,)


@pytest.mark.parametrize("value", [1e39, -1e300, np.inf, np.nan])
@pytest.mark.parametrize("output", ["b.cs", "b.star", "pickles"])
def test_values_beyond_single_precision_are_refused_with_their_rows(value, output, tmp_path):
    path = save_cs(tmp_path / "a.cs", columns(ctf__df1_A=np.array([1e4, value, 1e4, value])))
    with pytest.raises(FormatError, match="not a number, or infinite in single precision") as caught:
        convert(path, tmp_path / output, to="pickles" if output == "pickles" else None)
    assert (caught.value.field, caught.value.rows) == ("ctf/df1_A", (1, 3))


@pytest.mark.parametrize("values", [np.array([b"dark"] * N), np.full(N, 1j, "c8"), np.ones((N, 2), "f4")])
def test_a_sign_of_the_contrast_that_is_no_number_is_refused(values, tmp_path):
    path = save_cs(tmp_path / "a.cs", columns(blob__sign=values))
    with pytest.raises(FormatError, match="a number in each row is needed") as caught:
        is_dark(open_particles(path).particles)
    assert caught.value.field == "blob/sign"


@pytest.mark.parametrize("name", ["blob/shape", "blob/psize_A", "location/micrograph_psize_A", "ctf/df1_A"])
@pytest.mark.parametrize("values", [np.array([b"x"] * N), np.full(N, 1 + 2j, "c8"), np.array([np.nan, np.inf, 1, 2])])
def test_inspect_describes_columns_of_any_kind_in_valid_json(name, values, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    path = save_cs(tmp_path / "a.cs", columns() | {name: values})
    text = json.dumps(inspect(path, rows=N).to_json())
    found = json.loads(text, parse_constant=refuse)
    assert name in {item["name"] for item in found["fields"]}


def test_images_of_any_number_are_matched_by_it():
    found = []
    for number in (2**63 - 1, 2**62):
        paths = Labels(np.array([0, 1, 1], np.int32), ("a.mrcs", "b.mrcs"))
        images = ImageRefs(paths, np.array([0, 1, number]))
        found.append(match_images(images, images)[0].tolist())
    assert found == [[0, 1, -1]] * 2  # there is no such image


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
