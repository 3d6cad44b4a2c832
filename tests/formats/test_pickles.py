import io
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryobridge.errors import CryobridgeError, FormatError, UnsafeFileError
from cryobridge.formats.pickle_data import load_pickle, peek_pickle, scan_pickle
from cryobridge.formats.pickle_objects import Opaque
from cryobridge.formats.pickles import (
    CTF_COLUMNS,
    KmeansResult,
    LatentDensity,
    classify_pickle,
    read_ctf,
    read_density,
    read_halfsets,
    read_indices,
    read_kmeans,
    read_poses,
    write_ctf,
    write_density,
    write_halfsets,
    write_indices,
    write_kmeans,
    write_poses,
)
from helpers import texts

PROTOCOLS = range(6)


@pytest.fixture
def save(tmp_path):
    def _save(value, protocol=4):
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        return path

    return _save


@pytest.fixture
def save_raw(tmp_path):
    def _save(content):
        path = tmp_path / "file.pkl"
        path.write_bytes(content)
        return path

    return _save


def same(one, other):
    if isinstance(one, np.ndarray):
        return (
            type(other) is np.ndarray
            and one.dtype == other.dtype
            and one.shape == other.shape
            and (one.tolist() == other.tolist() or one.tobytes() == other.tobytes())
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


# What is admitted

ADMITTED = [
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    np.arange(10)[::3],
    np.array(2.5),
    np.zeros((0, 3)),
    np.array([1, 2], ">i4"),
    np.array(["a", "höhe"]),
    np.array([b"x", b"yy"]),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array([1, None, "x"], object),
    np.float32(3),
    np.float64(0.1),
    np.int64(-7),
    np.bool_(True),
    np.dtype("<f4"),
    b"",
    b"abc",
    b"\xff\x00",
    "text",
    {1, 2},
    frozenset({3}),
    1j,
    2**200,
    -1.5,
    {"a": True, "b": None, (1, "c"): False},
    {np.dtype("<f4"): 1, "b": np.zeros(2), ("c", np.dtype(">i2")): 2},
    [np.dtype("<f4"), {"a": (np.dtype("<f4"), np.arange(2))}],
    [1, (2, [3, ()])],
    (np.zeros((2, 3, 3)), np.zeros((2, 2))),
    [np.zeros(3)] * 3,
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", ADMITTED, ids=lambda value: type(value).__name__)
def test_plain_data_of_every_protocol_are_read(save, value, protocol):
    assert same(value, load_pickle(save(value, protocol)))


@pytest.mark.parametrize("protocol", range(4))  # later protocols count the bytes of a name
def test_the_names_of_numpy_1_are_known(save_raw, protocol):
    array = np.arange(5.0)
    path = save_raw(pickle.dumps([array, array[0]], protocol=protocol).replace(b"numpy._core.", b"numpy.core."))
    assert any(name.startswith("numpy.core.multiarray") for name in scan_pickle(path))
    assert same([array, array[0]], load_pickle(path))


def test_strings_of_python_2_are_known(save_raw):
    # Protocol 2 as Python 2 wrote it: byte strings for names and for the array's content.
    raw = struct.pack("<2d", 1.5, -2.5)
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(raw)])
        + raw
        + b"tb."
    )
    assert load_pickle(save_raw(content)).tolist() == [1.5, -2.5]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64)) | hnp.boolean_dtypes(),
        hnp.array_shapes(min_dims=0, min_side=0),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(value=values, protocol=st.sampled_from(PROTOCOLS))
def test_whatever_is_plain_comes_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert same(value, load_pickle(path))


def test_arrays_read_are_writable_and_independent_of_the_file(save):
    path = save([np.arange(3)])
    (array,) = load_pickle(path)
    path.write_bytes(bytes(300))
    array += 1
    assert array.tolist() == [1, 2, 3]


# What is refused


class Bomb:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def hostile(target):
    touch = f"touch {target}".encode()
    short = bytes([len(touch)])
    yield "plain", pickle.dumps({"pose": Bomb(target)}), "system"
    yield "protocol 0", pickle.dumps(Bomb(target), protocol=0), "system"
    yield "in an object array", pickle.dumps(np.array([Bomb(target)], object)), "system"
    yield "as the data type", pickle.dumps(np.zeros(1)).replace(b"\x8c\x05dtype", b"\x8c\x05oooof"), "numpy.oooof"
    yield "dotted", b"\x80\x04\x8c\x02os\x8c\x0esystem.__doc__\x93.", "os.system.__doc__"
    yield "dotted in numpy", b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile.\x93.", "numpy.ndarray.tofile."
    yield "instance", b"(S'" + touch + b"'\nios\nsystem\n.", "os.system"
    yield "object", b"(cos\nsystem\nS'" + touch + b"'\no.", "os.system"
    yield "new object", b"\x80\x02csubprocess\nPopen\n\x8c" + short + touch + b"\x85\x81.", "subprocess.Popen"
    yield "new object, keywords", b"\x80\x04csubprocess\nPopen\n)}\x92.", "subprocess.Popen"
    yield "extension", b"\x80\x02\x82\x01.", "number 1"
    yield "persistent", b"\x80\x02U\x01xQ.", "outside the file"
    yield "persistent as text", b"Pname\n.", "outside the file (number name)"
    yield "then garbage", b"cos\nsystem\n(S'" + touch + b"'\ntR\xff\xff", "os.system"
    yield "never finished", b"cos\nsystem\n(S'" + touch + b"'\ntR", "os.system"
    yield "eval", b"\x80\x04c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "__builtin__.eval"
    yield "getattr chain", b"\x80\x04cbuiltins\ngetattr\ncnumpy\nndarray\nX\x06\x00\x00\x00tofile\x86R.", "getattr"
    # The name comes through the memory, another string standing where a glance would look for it.
    memo = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940\x8c\x05dtype0\x8c\x05numpy00h\x00h\x01\x93\x94\x8c"
    yield "through the memory", memo + short + touch + b"\x85R.", "os.system"
    yield "computed name", b"\x80\x04cbuiltins\nchr\nK\x73\x85R\x8c\x06system\x93.", "computed while it runs"
    yield "state of a class", b"\x80\x04cargparse\nNamespace\n)\x81}\x8c\x01aK\x01sb.", "argparse.Namespace"


NAMES = [name for name, _, _ in hostile("x")]


@pytest.mark.parametrize("case", NAMES)
def test_code_is_named_and_never_run(tmp_path, case):
    target = tmp_path / "executed"
    content, name = next((content, name) for label, content, name in hostile(target) if label == case)
    path = tmp_path / "bad.pkl"
    path.write_bytes(content)
    before = set(sys.modules)
    for reader in (load_pickle, classify_pickle, read_poses, read_ctf, read_indices):
        with pytest.raises(UnsafeFileError) as caught:
            reader(path)
        assert name in str(caught.value)
        assert "Nothing was run" in str(caught.value)
        assert caught.value.path == str(path)
        assert caught.value.hint
    assert not target.exists()
    assert set(sys.modules) == before


def test_the_hostile_files_do_run_elsewhere(tmp_path):
    target = tmp_path / "executed"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()


def test_names_are_listed_without_loading(save, tmp_path):
    target = tmp_path / "executed"
    assert scan_pickle(save({"a": np.zeros(2), "b": Bomb(target)})) == (
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        f"{os.system.__module__}.system",
    )
    assert not target.exists()


def test_names_that_are_computed_are_refused_by_the_scan(save_raw):
    with pytest.raises(UnsafeFileError, match="computed while it runs"):
        scan_pickle(save_raw(b"\x80\x04cbuiltins\nchr\nK\x73\x85R\x8c\x06system\x93."))


def test_many_names_are_counted_and_few_are_shown(save_raw):
    path = save_raw(b"\x80\x02(" + b"".join(b"cm%d\nf\n" % number for number in range(50)) + b"t.")
    with pytest.raises(UnsafeFileError, match=r"m4\.f …") as caught:
        load_pickle(path)
    assert caught.value.count == 50


EIGHT_BYTES = b"C\x08" + bytes(8)


def array_pickle(shape, name="f8", content=EIGHT_BYTES, state=None):
    """A pickled array whose shape, type and content need not agree."""

    def piece(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    return (
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + piece((0,)) + b"C\x01b\x87R(K\x01"
        + piece(shape) + b"cnumpy\ndtype\n" + piece((name, False, True)) + b"R"
        + piece(state or (3, "<", None, None, None, -1, -1, 0)) + b"b\x89" + content + b"tb."
    )  # fmt: skip


MALFORMED = {
    "terabyte array": array_pickle((1 << 37,)),
    "huge empty shape": array_pickle((0, 1 << 62, 1 << 62), content=b"C\x00"),
    "negative shape": array_pickle((-1, -8)),
    "zero-width type": array_pickle((1 << 40,), "S0", b"C\x00"),
    "wide type": array_pickle((1,), "S1099511627776"),
    "many dimensions": array_pickle((1,) * 100),
    "shape of floats": array_pickle((1.0,)),
    "unknown type": array_pickle((1,), "f7"),
    "structured type": array_pickle((1,), "V8", state=(3, "|", None, ("a",), {"a": (1, 1 << 40)}, 8, 1, 0)),
    "sub-array type": array_pickle((1,), state=(3, "<", ("f8", (9,)), None, None, -1, -1, 0)),
    "time type": array_pickle((1,), "M8"),
    "objects from bytes": array_pickle((1,), "O8"),
    "too many objects": array_pickle((1 << 40,), "O8", b"]"),
    "nested objects": array_pickle((1,), "O8", b"]]a"),
    "terabyte of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "terabyte of text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "terabyte of a number": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "far memory": b"\x80\x02Nr\xff\xff\xff\xff1.",
    "not remembered": b"\x80\x02h\x05.",
    "nothing to remember": b"\x80\x04\x94.",
    "deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * 100_000 + b"\x90.",
    "deep tuple as a byte order": array_pickle((1,)).replace(b"X\x01\x00\x00\x00<", b")" + b"\x85" * 100_000),
    "unhashable key": b"\x80\x02}]Ns.",
    "set as a key": b"\x80\x04}(K\x01\x91Ns.",
    "set in a key": b"\x80\x04}(K\x01\x91\x85Ns.",
    "tuples of tuples as a key": b"\x80\x04})" + b"2\x86" * 60 + b"Ns.",
    "tuples of tuples in a set": b"\x80\x02c__builtin__\nset\n]()" + b"2\x86" * 60 + b"e\x85R.",
    "state twice": array_pickle((1,))[:-1] + b"(K\x01K\x00\x85NNNtb.",
    "state of a function": b"\x80\x02cnumpy\ndtype\n}X\x0c\x00\x00\x00__defaults__)s}\x86b.",
    "state of a number of numpy": pickle.dumps(np.float64(1), 4)[:-1] + b"(K\x01K\x02e.",
    "key without value": b"\x80\x02}(Nu.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "call of a number": b"\x80\x02K\x01)R.",
    "call without a list": b"\x80\x02cnumpy\ndtype\nNR.",
    "state of a number": b"\x80\x02K\x01)b.",
    "array in itself": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btRq\x00]h\x00a.",
    "name itself": b"\x80\x02cnumpy\nndarray\n.",
    "name in a list": b"\x80\x02](cnumpy\nndarray\ne.",
    "other encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x05\x00\x00\x00rot13\x86R.",
    "two objects": b"\x80\x02NN.",
    "nothing": b"\x80\x02.",
    "only a mark": b"(.",
    "marks": b"(((t.",
    "underflow": b"0.",
    "out of band": b"\x80\x05\x97.",
    "no end": b"\x80\x02]",
    "unknown instruction": b"\x80\x02\xfe.",
    "text": b"data_particles\nloop_\n",
    "zeros": bytes(100),
    "numpy file": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_damaged_and_lying_files_cost_an_error_and_no_memory(save_raw, case):
    path = save_raw(MALFORMED[case])
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            load_pickle(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not isinstance(caught.value, UnsafeFileError)
    assert caught.value.path == str(path)
    assert peak < 200 * path.stat().st_size + 1_000_000


def test_one_content_for_many_arrays_does_not_fill_the_memory(save_raw):
    content = bytes(1_000_000)
    array = array_pickle((125_000,), content=b"h\xc8")[2:-1]
    path = save_raw(
        b"\x80\x04\x8e" + struct.pack("<Q", len(content)) + content + b"q\xc80]" + (array + b"a") * 1000 + b"."
    )
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="larger than the file"):
            load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
        b"\x80\x02" + b")" + b"\x85" * 10_000 + b".",
        b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 10_000 + b"N" + b"s" * 10_000 + b".",
    ],
    ids=["lists", "tuples", "dictionaries"],
)
def test_deep_nesting_is_refused(save_raw, content):
    with pytest.raises(FormatError, match="nested"):
        load_pickle(save_raw(content))


def test_a_list_that_holds_itself_is_refused(save_raw):
    with pytest.raises(FormatError, match="contains itself"):
        load_pickle(save_raw(b"\x80\x02]q\x00h\x00a."))


@settings(max_examples=200)
@given(data=st.data())
def test_no_change_to_a_file_raises_anything_but_a_format_error(tmp_path_factory, data):
    raw = bytearray(pickle.dumps({"a": np.arange(3.0), "b": [np.float64(1)], "c": {1}}, protocol=4))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.pkl"
    path.write_bytes(raw)
    try:
        classify_pickle(path)
    except FormatError as error:
        assert error.path


def test_files_that_cannot_be_read_are_refused_with_a_remedy(tmp_path):
    empty = tmp_path / "empty.pkl"
    empty.touch()
    for path, message in ((tmp_path, "folder"), (tmp_path / "no.pkl", "No such file"), (empty, "empty")):
        with pytest.raises(FormatError, match=message) as caught:
            load_pickle(path)
        assert caught.value.hint


# The files of the field


@pytest.fixture
def rotations():
    axis = np.random.default_rng(0).normal(size=(50, 3, 3))
    q = np.linalg.qr(axis)[0]
    return q * np.sign(np.linalg.det(q))[:, None, None]


@pytest.fixture
def shifts():
    return np.random.default_rng(1).uniform(-0.5, 0.5, (50, 2))


@pytest.fixture
def ctf():
    table = np.tile([128, 1.31, 15000, 14800, -78.13, 300, 2.7, 0.1, 0], (50, 1))
    table[:, 2] += np.arange(50)
    return table


def test_poses_written_are_plain_numpy_and_read_back(tmp_path, rotations, shifts):
    path = tmp_path / "poses.pkl"
    write_poses(path, rotations, shifts)
    written = pickle.loads(path.read_bytes())
    assert type(written) is tuple
    assert [part.dtype for part in written] == [np.float32, np.float32]
    np.testing.assert_array_equal(written[0], rotations.astype(np.float32))
    poses = read_poses(path)
    np.testing.assert_allclose(poses.rotations, rotations, atol=1e-7)
    np.testing.assert_allclose(poses.shifts_box, shifts, atol=1e-7)
    assert classify_pickle(path) == "poses"


def test_rotations_alone_are_poses_without_shifts(tmp_path, rotations, save):
    path = tmp_path / "rot.pkl"
    write_poses(path, rotations, None)
    assert isinstance(pickle.loads(path.read_bytes()), np.ndarray)
    assert read_poses(path).shifts_box is None
    assert classify_pickle(path) == "poses"
    assert read_poses(save((rotations,))).shifts_box is None


def test_what_is_no_rotation_is_refused_with_its_rows(save, rotations, shifts, tmp_path):
    rotations[7] *= 1.01
    rotations[9] = np.diag([1, 1, -1])
    rotations[11, 0, 0] = np.nan
    with pytest.raises(FormatError, match="no rotation") as caught:
        read_poses(save((rotations, shifts)))
    assert caught.value.rows == (7, 9, 11)
    assert caught.value.count == 3
    with pytest.raises(FormatError, match="no rotation"):
        write_poses(tmp_path / "out.pkl", rotations, shifts)
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["matrix", "shift"])
def test_what_is_not_a_number_is_called_so(save, rotations, shifts, part, value, tmp_path):
    {"matrix": rotations[:, 0], "shift": shifts}[part][4, 1] = value
    for act in (lambda: read_poses(save((rotations, shifts))), lambda: write_poses(tmp_path / "p", rotations, shifts)):
        with pytest.raises(FormatError, match=f"the {part} is not a number, or infinite") as caught:
            act()
        assert (caught.value.rows, caught.value.count) == ((4,), 1)


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_shifts_in_pixels_are_refused_in_either_direction(save, rotations, shifts, value):
    shifts[4, 1] = value
    with pytest.raises(FormatError, match="larger than the box") as caught:
        read_poses(save((rotations, shifts)))
    assert caught.value.rows == (4,)
    assert "divide them by the box" in caught.value.hint


@pytest.mark.parametrize(
    "value",
    [
        (np.zeros((2, 3, 3)), np.zeros((3, 2))),
        (np.zeros((2, 3)), np.zeros((2, 2))),
        (np.zeros(2), np.zeros(2), np.zeros(2)),
        {"rot": np.zeros((2, 3, 3))},
        np.array(["a"]),
        (),
        5,
    ],
)
def test_what_is_no_poses_file_is_reported_by_its_content(save, value):
    with pytest.raises(FormatError) as caught:
        read_poses(save(value))
    assert caught.value.hint


def test_a_ctf_table_written_is_plain_numpy_and_reads_back(tmp_path, ctf):
    path = tmp_path / "ctf.pkl"
    write_ctf(path, ctf)
    written = pickle.loads(path.read_bytes())
    assert written.dtype == np.float32
    assert written.shape == (50, len(CTF_COLUMNS))
    table = read_ctf(path)
    np.testing.assert_allclose(table.values, ctf, rtol=1e-6)
    assert table.problems == ()
    assert classify_pickle(path) == "ctf"


def test_a_ctf_table_of_eight_columns_is_refused_with_the_reason(save, ctf, tmp_path):
    with pytest.raises(FormatError, match=r"\(50, 8\).*box_px.*old versions of cryoDRGN"):
        read_ctf(save(ctf[:, 1:]))
    with pytest.raises(FormatError, match="is needed"):
        write_ctf(tmp_path / "out.pkl", ctf[:, 1:])
    with pytest.raises(FormatError, match="table"):
        read_ctf(save(ctf[0]))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (2, np.nan, "finite"),
        (0, 0, "box size"),
        (0, 128.5, "box size"),
        (1, -1, "pixel size"),
        (5, 300_000, "voltage"),
    ],
)
def test_impossible_ctf_parameters_are_refused_with_their_rows(save, ctf, column, value, message):
    ctf[[3, 5], column] = value
    with pytest.raises(FormatError, match=message) as caught:
        read_ctf(save(ctf))
    assert caught.value.rows == (3, 5)
    assert classify_pickle(ctf) == "unknown"


def test_what_cryodrgn_would_object_to_is_a_note(save, ctf):
    ctf[:, 0] = 127
    ctf[3, 1] = 1.5
    problems = texts(read_ctf(save(ctf)).problems)
    assert any("2 different pixel sizes" in problem for problem in problems)
    assert any("odd box size" in problem for problem in problems)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_indices_read_back(tmp_path, save, dtype):
    path = tmp_path / "ind.pkl"
    write_indices(path, np.array([5, 0, 7], dtype))
    assert pickle.loads(path.read_bytes()).tolist() == [5, 0, 7]
    assert read_indices(path).dtype == np.int64
    assert read_indices(save(np.array([5, 0, 7], dtype))).tolist() == [5, 0, 7]
    assert read_indices(save([5, 0, 7])).tolist() == [5, 0, 7]
    assert classify_pickle(path) == "indices"


@pytest.mark.parametrize(
    "value", [np.array([0.0, 1.0]), np.array([[1, 2]]), np.array([True, False]), [1.5], "abc", np.array(["1"])]
)
def test_what_is_no_list_of_rows_is_refused(save, value):
    with pytest.raises(FormatError, match="one-dimensional array of whole numbers"):
        read_indices(save(value))


def test_negative_rows_are_refused(save):
    with pytest.raises(FormatError, match="negative") as caught:
        read_indices(save(np.array([3, -1, 2, -5])))
    assert caught.value.rows == (1, 3)


def test_a_label_without_a_center_is_refused(save):
    result = {"centers": np.zeros((2, 4)), "labels": np.array([0, 1, 2])}
    with pytest.raises(FormatError, match="only 2 centers"):
        read_kmeans(save(result))
    with pytest.raises(FormatError, match="centers and labels"):
        read_kmeans(save({"labels": np.zeros(3, int)}))


@pytest.mark.parametrize("end", [np.inf, np.nan, 1.7e308])
def test_a_density_needs_bounds_that_span_a_grid(end, save):
    bounds = np.array([[0, 1], [-end, end]])
    with pytest.raises(FormatError, match="no finite numbers"):
        read_density(save({"density": np.zeros((4, 4)), "latent_space_bounds": bounds}))


def test_a_density_needs_bounds_of_its_dimension(save):
    with pytest.raises(FormatError, match="2 dimensions"):
        read_density(save({"density": np.zeros((4, 4)), "latent_space_bounds": np.zeros((3, 2))}))
    density = read_density(save({"density": np.zeros((4, 4)), "latent_space_bounds": np.zeros((2, 2))}))
    assert density.alpha is None
    with pytest.raises(FormatError, match="array of numbers"):
        read_density(save({"density": "none", "latent_space_bounds": np.zeros((2, 2))}))


def test_a_row_in_both_halves_is_refused(save):
    with pytest.raises(FormatError, match="both halves") as caught:
        read_halfsets(save([np.array([0, 1, 2]), np.array([2, 3])]))
    assert caught.value.rows == (2,)
    with pytest.raises(FormatError):
        read_halfsets(save([np.array([0, 1, 2])]))
    assert [half.tolist() for half in read_halfsets(save(np.array([[0, 1], [2, 3]]).tolist()))] == [[0, 1], [2, 3]]


def test_classification_goes_by_content_and_admits_ignorance():
    assert classify_pickle(np.zeros((5, 2))) == "unknown"
    assert classify_pickle(np.full((5, 2), 3.0)) == "umap"
    assert classify_pickle({"centers": [[1.0]], "pairs": [[0, 1]]}) == "trajectory_endpoints"
    assert classify_pickle({"a": 1}) == "unknown"
    assert classify_pickle([np.array([0]), np.array([1])]) == "halfsets"
    assert classify_pickle([np.array([0.5]), np.array([1])]) == "unknown"
    assert classify_pickle("poses.pkl") == "unknown"


def test_files_written_are_for_numpy_1_and_2(tmp_path, rotations, shifts):
    path = tmp_path / "poses.pkl"
    write_poses(path, rotations, shifts)
    assert b"numpy._core" not in path.read_bytes()
    pickletools.dis(path.read_bytes(), out=io.StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(path.read_bytes())


def test_a_failed_write_leaves_the_older_file(tmp_path, ctf):
    path = tmp_path / "ctf.pkl"
    write_ctf(path, ctf)
    before = path.read_bytes()
    with pytest.raises(FormatError):
        write_ctf(path, ctf[:, :5])
    assert path.read_bytes() == before
    with pytest.raises(CryobridgeError, match="can't be written"):
        write_ctf(tmp_path / "no" / "ctf.pkl", ctf)
    assert [p.name for p in tmp_path.iterdir()] == ["ctf.pkl"]


# Real files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("real/pose.cs.pkl", "poses"),
        ("real/ctf2.pkl", "ctf"),
        ("recovar_run/particles/poses.pkl", "poses"),
        ("recovar_run/particles/ctf.pkl", "ctf"),
        ("recovar_run/particles/simulation_info.pkl", "unknown"),
        ("recovar_run/out/model/halfsets.pkl", "halfsets"),
        ("recovar_run/out/model/particles_halfsets.pkl", "halfsets"),
        ("recovar_run/out/Density/data/deconv_density_knee.pkl", "density"),
        ("recovar_run/out/Density/data/all_densities/deconv_density_3.pkl", "density"),
        ("recovar_run/out/analysis_2/data/kmeans_result.pkl", "kmeans"),
        ("recovar_run/out/analysis_2/data/trajectory_endpoints.pkl", "trajectory_endpoints"),
        ("recovar_run/out/analysis_2/plots/umap/umap_embedding.pkl", "umap"),
        ("recovar_run/out/analysis_2/kmeans/diagnostics/center000/split_choice.pkl", "unknown"),
        ("recovar_run/out/analysis_2/kmeans/diagnostics/center000/params.pkl", "unknown"),
    ],
)
def test_real_files_are_read_as_pickle_reads_them_and_recognised(reference_data, name, kind):
    path = reference_data / name
    value = load_pickle(path)
    assert same(pickle.loads(path.read_bytes()), value)
    assert classify_pickle(path) == classify_pickle(value) == kind


def test_the_real_model_parameters_are_refused_by_name_and_shown_in_part(reference_data):
    path = reference_data / "recovar_run/out/model/params.pkl"
    with pytest.raises(UnsafeFileError) as caught:
        load_pickle(path)
    names = {"jax._src.array._reconstruct_array", "argparse.Namespace"}
    assert all(name in str(caught.value) for name in names)
    assert names < set(scan_pickle(path))
    value, refused = peek_pickle(path)
    assert set(refused) == names
    assert value["volume_shape"] == (32, 32, 32)
    assert value["s"].shape == (50,)
    assert isinstance(value["input_args"], Opaque)
    assert value["input_args"].name == "argparse.Namespace"


def test_real_poses_and_ctf_agree_with_the_particles_they_were_made_from(reference_data):
    poses = read_poses(reference_data / "real/pose.cs.pkl")
    table = read_ctf(reference_data / "real/ctf2.pkl")
    rows = np.load(reference_data / "real/cryosparc_P12_J24_001_particles.cs")
    assert poses.rotations.shape == (2019, 3, 3)
    box = rows["blob/shape"][0, 0]
    np.testing.assert_allclose(poses.shifts_box * box, rows["alignments3D/shift"], atol=1e-4)
    np.testing.assert_allclose(table.values[:, 2], rows["ctf/df1_A"], rtol=1e-6)
    np.testing.assert_allclose(table.values[:, 4], np.rad2deg(rows["ctf/df_angle_rad"]), rtol=1e-5)
    assert table.problems == ()


def test_a_real_analysis_is_read(reference_data):
    run = reference_data / "recovar_run/out"
    kmeans = read_kmeans(run / "analysis_2/data/kmeans_result.pkl")
    assert kmeans.centers.shape == (2, 2)
    assert np.bincount(kmeans.labels).sum() == 600
    density = read_density(run / "Density/data/deconv_density_knee.pkl")
    assert density.density.shape == (20, 20)
    assert density.alpha == 0.001
    first, second = read_halfsets(run / "model/halfsets.pkl")
    assert sorted([*first, *second]) == list(range(600))


# Results


def test_results_are_written_as_plain_pickles_and_read_back(tmp_path):
    kmeans = KmeansResult(np.array([[0.5, 1.0], [2.0, -1.0]]), np.array([0, 1, 1]))
    density = LatentDensity(np.arange(6.0).reshape(2, 3), np.array([[0.0, 1.0], [-1.0, 2.0]]), 0.25)
    write_kmeans(tmp_path / "k.pkl", kmeans)
    write_density(tmp_path / "d.pkl", density)
    write_halfsets(tmp_path / "h.pkl", np.array([0, 2]), np.array([1, 3]))
    plain = pickle.loads((tmp_path / "k.pkl").read_bytes())
    assert plain["centers"].dtype == np.float32
    assert plain["labels"].tolist() == [0, 1, 1]
    assert pickle.loads((tmp_path / "d.pkl").read_bytes())["alpha"] == 0.25
    assert [half.tolist() for half in pickle.loads((tmp_path / "h.pkl").read_bytes())] == [[0, 2], [1, 3]]
    assert np.array_equal(read_kmeans(tmp_path / "k.pkl").centers, kmeans.centers)
    assert np.array_equal(read_density(tmp_path / "d.pkl").bounds, density.bounds)
    assert [half.tolist() for half in read_halfsets(tmp_path / "h.pkl")] == [[0, 2], [1, 3]]


def test_a_density_without_alpha_stays_without(tmp_path):
    write_density(tmp_path / "d.pkl", LatentDensity(np.ones(3), np.array([[0.0, 1.0]]), None))
    assert read_density(tmp_path / "d.pkl").alpha is None


def test_a_label_without_a_center_is_not_written(tmp_path):
    with pytest.raises(FormatError, match="only 1 centers"):
        write_kmeans(tmp_path / "k.pkl", KmeansResult(np.zeros((1, 2)), np.array([0, 1])))
    assert not list(tmp_path.iterdir())
