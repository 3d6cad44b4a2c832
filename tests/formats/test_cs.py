import io
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.cryosparc import cs, csdat
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.table import Column
from cryobridge.model.particles import Labels

MAGIC = b"\x95CSDAT"
UIDS = np.array([2**64 - 1, 2**63, 1, 15494748553812943456], dtype="<u8")

# Three rows, as a stream is laid out: heap offsets 1 ("J1/a.mrc"), 10 ("J1/b.mrc") and 0 ("").
HEAP = b"\0J1/a.mrc\0J1/b.mrc\0"
STREAM_UID = struct.pack("<3Q", 2**64 - 1, 2**63, 7)
STREAM_PATH = struct.pack("<3Q", 10, 0, 1)
STREAM_SHAPE = struct.pack("<6I", 10, 20, 30, 40, 50, 60)
STREAM_PSIZE = struct.pack("<3f", 1.5, 2.5, 3.5)


def npy_bytes(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=False)
    return file.getvalue()


def raw_npy(header, data=b"", version=1):
    text = header.encode("utf-8" if version == 3 else "latin1")
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text + data


def npy_header(descr, shape="(1,)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def block(payload):
    return struct.pack("<I", len(payload)) + payload


def packed(payload):
    return lz4.block.compress(payload, store_size=False)


def stream_bytes(entries, payloads, n_rows=3, *, heap=HEAP, compressed=(), compression="lz4", **changes):
    header = {"length": n_rows, "dtype": entries, "compression": compression, "compressed_fields": list(compressed)}
    text = json.dumps({**header, **changes}).encode()
    return MAGIC + struct.pack("<I", len(text)) + text + b"".join(block(payload) for payload in payloads) + heap


WHOLE_STREAM = stream_bytes(
    [["uid", "<u8"], ["blob/path", "|O"], ["blob/shape", "<u4", [2]], ["blob/psize_A", "<f4"]],
    [STREAM_UID, packed(STREAM_PATH), packed(STREAM_SHAPE), STREAM_PSIZE],
    compressed=["blob/path", "blob/shape"],
)


@pytest.fixture
def save(tmp_path):
    def _save(content):
        path = tmp_path / "particles.cs"
        path.write_bytes(content)
        return path

    return _save


def read_all(path, rows=slice(None)):
    table = open_cs(path)
    return table.read(table.names, rows)


def as_texts(values):
    return values.to_numpy().tolist()


def sample_array(n=10):
    array = np.zeros(n, [("uid", "<u8"), ("blob/path", "S30"), ("blob/shape", "<u4", (2,)), ("ctf/df1_A", "<f4")])
    array["uid"] = np.arange(n, dtype="<u8") + np.uint64(2**63)
    array["blob/path"] = [f"J1/{row % 3}.mrc".encode() for row in range(n)]
    array["blob/shape"] = np.arange(n)[:, None] * [1, 2]
    array["ctf/df1_A"] = np.linspace(1, 2, n)
    return array


# --- NumPy container ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_header_version_is_read(save, version):
    array = sample_array()
    table = open_cs(save(npy_bytes(array, version)))
    assert (table.container, table.n_rows) == ("npy", 10)
    assert table.columns == (
        Column("uid", "u8"),
        Column("blob/path", "text"),
        Column("blob/shape", "u4", (2,)),
        Column("ctf/df1_A", "f4"),
    )
    values = table.read(table.names)
    for name in ("uid", "blob/shape", "ctf/df1_A"):
        np.testing.assert_array_equal(values[name], array[name])
        assert values[name].dtype == array[name].dtype
    assert as_texts(values["blob/path"]) == [text.decode() for text in array["blob/path"]]


def test_names_beyond_latin1_are_read_from_version_3(save):
    array = np.array([(1,)], [("größe/Å", "<i4"), ("粒子/x", "<i4")][:1])
    header = npy_header("[('粒子/x', '<i4')]")
    assert open_cs(save(npy_bytes(array, (3, 0)))).names == ("größe/Å",)
    assert open_cs(save(raw_npy(header, b"\1\0\0\0", 3))).names == ("粒子/x",)


def test_a_header_of_100_kB_is_read(save):
    names = [f"components_mode_{number}/value_of_a_rather_long_name" for number in range(3000)]
    array = np.zeros(2, [(name, "<f4") for name in names])
    array[names[-1]] = (3, 4)
    content = npy_bytes(array, (2, 0))
    assert int.from_bytes(content[8:12], "little") > 100_000
    table = open_cs(save(content))
    assert table.names == tuple(names)
    assert table.read([names[-1]])[names[-1]].tolist() == [3, 4]


def test_bytes_and_unicode_texts_read_alike(save):
    texts = ["", "Å/µ.mrc", "粒子", "J1/a b.mrc", "x" * 40, "Å/µ.mrc"]
    array = np.zeros(6, [("S", "S200"), ("U", "<U50"), ("B", ">U50")])
    array["S"] = [text.encode() for text in texts]
    array["U"] = array["B"] = texts
    values = read_all(save(npy_bytes(array)))
    for name in "SUB":
        assert as_texts(values[name]) == texts
        assert values[name].values == tuple(dict.fromkeys(texts))
        assert values[name][1] == "Å/µ.mrc"


def test_trailing_nuls_are_padding_and_inner_ones_are_not(save):
    data = b"ab\0\0" + b"abc\0" + b"a\0c\0" + b"\0\0\0\0"
    path = save(raw_npy(npy_header("[('p', '|S4')]", "(4,)"), data))
    assert as_texts(read_all(path)["p"]) == ["ab", "abc", "a\0c", ""]


def test_bytes_that_are_not_utf8_survive_a_round_trip(save, tmp_path):
    path = save(raw_npy(npy_header("[('p', '|S4')]", "(2,)"), b"\xff\xfe\0\0abc\0"))
    write_cs(tmp_path / "again.cs", read_all(path))
    assert np.load(tmp_path / "again.cs")["p"].tolist() == [b"\xff\xfe", b"abc"]


def test_texts_of_several_windows_are_each_kept_once(save, tmp_path, monkeypatch):
    texts = ["ä" * 3, "b", "", "ä" * 3, "c", "b"]
    for name in ("_TEXT_WINDOW_BYTES", "_WRITE_BYTES"):
        monkeypatch.setattr(cs, name, 1)
    for kind in ("<U5", ">U5"):
        labels = read_all(save(npy_bytes(np.array(texts, kind).view([("p", kind)]))))["p"]
        assert labels.values == ("äää", "b", "", "c")
        assert as_texts(labels) == texts
        write_cs(tmp_path / "again.cs", {"p": labels})
        assert np.load(tmp_path / "again.cs")["p"].tolist() == [text.encode() for text in texts]


def test_no_rows_is_a_table_too(save):
    table = open_cs(save(npy_bytes(sample_array(0))))
    assert table.n_rows == 0
    values = table.read(table.names)
    assert [len(value) for value in values.values()] == [0, 0, 0, 0]
    assert values["blob/shape"].shape == (0, 2)


def test_no_columns_is_a_table_too(save):
    table = open_cs(save(raw_npy(npy_header("[]", "(3,)"))))
    assert (table.names, table.n_rows, table.read([])) == ((), 3, {})


def test_big_endian_files_are_read_into_native_numbers(save):
    array = np.array([(2**63 + 1, (1, 2), 1.5)], [("uid", ">u8"), ("shape", ">u4", (2,)), ("x", ">f8")])
    values = read_all(save(npy_bytes(array)))
    assert values["uid"].tolist() == [2**63 + 1]
    assert values["shape"].tolist() == [[1, 2]]
    assert values["x"].tolist() == [1.5]
    assert all(value.dtype.isnative for value in values.values())


def test_uids_beyond_63_bits_stay_whole(save, tmp_path):
    path = save(npy_bytes(UIDS.view([("uid", "<u8")])))
    for container in ("npy", "csdat"):
        write_cs(tmp_path / container, open_cs(path).read(["uid"]), container=container)
        uid = open_cs(tmp_path / container).read(["uid"])["uid"]
        assert uid.dtype == np.uint64
        assert uid.tolist() == [2**64 - 1, 2**63, 1, 15494748553812943456]


SLICES = st.builds(slice, *[st.none() | st.integers(-15, 15)] * 2, st.none() | st.integers(-5, 5).filter(bool))


@given(rows=SLICES, window_bytes=st.sampled_from([1, 100, 1 << 20]))
@settings(max_examples=150)
def test_row_slices_are_those_of_numpy(tmp_path_factory, rows, window_bytes):
    folder = tmp_path_factory.getbasetemp()
    array = sample_array()
    (folder / "slices.cs").write_bytes(npy_bytes(array))
    columns = {name: array[name] for name in array.dtype.names if name != "blob/path"}
    write_cs(folder / "slices_stream.cs", {**columns, "blob/path": array["blob/path"].astype(str)}, container="csdat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cs, "_WINDOW_BYTES", window_bytes)
        patch.setattr(cs, "_TEXT_WINDOW_BYTES", window_bytes)
        for name in ("slices.cs", "slices_stream.cs"):
            values = read_all(folder / name, rows)
            assert values["uid"].tolist() == array["uid"][rows].tolist()
            assert values["blob/shape"].tolist() == array["blob/shape"][rows].tolist()
            assert as_texts(values["blob/path"]) == [text.decode() for text in array["blob/path"][rows]]


def test_an_absent_column_is_named(save):
    table = open_cs(save(npy_bytes(sample_array())))
    assert "uid" in table
    assert "alignments3D/pose" not in table
    with pytest.raises(MissingDataError, match="alignments3D/pose") as caught:
        table.read(["uid", "alignments3D/pose"])
    assert "uid" in caught.value.hint


class Trap:
    def __reduce__(self):
        return (os.system, ("touch " + str(self.place),))


def test_objects_are_refused_and_nothing_is_run(tmp_path):
    trap = Trap()
    trap.place = tmp_path / "ran"
    array = np.array([(1, trap)], [("uid", "<u8"), ("blob/path", "O")])
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    path = (tmp_path / "x.npy").rename(tmp_path / "x.cs")
    with pytest.raises(FormatError, match=r"blob/path.*Python objects") as caught:
        open_cs(path)
    assert caught.value.hint
    assert not trap.place.exists()
    # The file would have run it.
    np.load(path, allow_pickle=True)
    assert trap.place.exists()


@pytest.mark.parametrize("array", [np.arange(5.0), np.zeros((2, 3), "f4"), np.array(["a"]), np.float64(3)])
def test_plain_arrays_are_refused(save, array):
    with pytest.raises(FormatError, match="without columns") as caught:
        open_cs(save(npy_bytes(np.asarray(array))))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("[('a', '<f4')]", "(2, 3)"),
        ("[('a', '<f4')]", "()"),
        ("[('a', '<f4')]", "(-1,)"),
        ("[('a', '<f4')]", "7"),
        ("[('a', '<f4')]", "(2.5,)"),
        ("[('a', '<M8[s]')]", "(1,)"),
        ("[('a', [('b', '<f4')])]", "(1,)"),
        ("[('a', '|V4')]", "(1,)"),
        ("[('a', '|S0')]", "(1,)"),
        ("[('a', '|S3', (2,))]", "(1,)"),
    ],
)
def test_what_cryosparc_has_no_type_for_is_refused(save, descr, shape):
    with pytest.raises(FormatError):
        open_cs(save(raw_npy(npy_header(descr, shape), bytes(64))))


def test_a_truncated_file_says_how_many_rows_are_whole(save):
    content = npy_bytes(sample_array())
    itemsize = sample_array().dtype.itemsize
    with pytest.raises(FormatError, match="promises 10 rows, 6 are whole") as caught:
        open_cs(save(content[: -3 * itemsize - 1]))
    assert caught.value.hint
    assert open_cs(save(content + b"more")).n_rows == 10


def test_every_truncation_is_a_format_error_or_reads_whole(save):
    content = npy_bytes(sample_array(2))
    for length in range(len(content)):
        with pytest.raises(FormatError):
            open_cs(save(content[:length]))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        "{'descr': [('a', '<f4')], 'fortran_order': False}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', 'nonsense')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4', (10**99,))], 'fortran_order': False, 'shape': (1,)}",
        f"{{'descr': [('a', '<f4', ({2**80},))], 'fortran_order': False, 'shape': (1,)}}",
        f"{{'descr': [('a', '<f4', ({2**31 - 1}, {2**31 - 1}))], 'fortran_order': False, 'shape': (1,)}}",
        "{'descr': [('a', '<f4')], 'fortran_order': True, 'shape': (1, 2)}",
        "{'descr': 7, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': None, 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [(7, '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ('<f4', 'x'), 'fortran_order': False, 'shape': (1,)}",
        "[1, 2, 3]",
        "7",
        r"'\d'",
        "\0" * 20,
        "(" * 5000,
        "[" * 100_000 + "]" * 100_000,
        "-" * 100_000 + "1",
        "__import__('os').system('true')",
    ],
    ids=lambda header: header[:40],
)
def test_a_damaged_header_is_a_format_error(save, header):
    with pytest.raises(FormatError) as caught:
        open_cs(save(raw_npy(header, bytes(64), 2)))
    assert caught.value.path


def test_unknown_versions_are_refused(save):
    with pytest.raises(FormatError, match=r"version \(9, 0\)"):
        open_cs(save(b"\x93NUMPY\x09\0" + bytes(100)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"data_particles\n", "not a .cs file"), (b"\x93", "not a .cs file"), (bytes(99), "not a .cs")],
)
def test_other_files_are_refused(save, content, message):
    with pytest.raises(FormatError, match=message) as caught:
        open_cs(save(content))
    assert caught.value.hint


def test_folders_and_absent_files_are_refused(tmp_path):
    with pytest.raises(FormatError, match="folder") as caught:
        open_cs(tmp_path)
    assert caught.value.hint
    with pytest.raises(FormatError, match="can't be read"):
        open_cs(tmp_path / "absent.cs")
    os.mkfifo(tmp_path / "pipe.cs")
    with pytest.raises(FormatError, match="not a regular file"):
        open_cs(tmp_path / "pipe.cs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_refused(save):
    path = save(npy_bytes(sample_array()))
    path.chmod(0)
    with pytest.raises(FormatError, match="can't be read"):
        open_cs(path)


@pytest.mark.parametrize("content", [npy_bytes(sample_array(1000)), WHOLE_STREAM], ids=["npy", "csdat"])
def test_a_file_that_vanishes_or_shrinks_between_open_and_read_is_a_format_error(save, content):
    path = save(content)
    table = open_cs(path)
    os.truncate(path, len(content) // 2)
    with pytest.raises(FormatError):
        table.read(table.names)
    path.unlink()
    with pytest.raises(FormatError, match="can't be read"):
        table.read(table.names)


@given(st.binary(max_size=200), st.integers(0, 130))
@settings(max_examples=150)
def test_no_damage_leaves_a_reader_but_as_our_own_error(tmp_path_factory, noise, place):
    path = tmp_path_factory.getbasetemp() / "damaged.cs"
    for content in (npy_bytes(sample_array(3)), WHOLE_STREAM):
        path.write_bytes(content[:place] + noise + content[place + len(noise) :])
        try:
            read_all(path)
        except CryobridgeError as error:
            assert str(path) in str(error)


# --- CSDAT ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_as_its_layout_says(save):
    table = open_cs(save(WHOLE_STREAM))
    assert (table.container, table.n_rows) == ("csdat", 3)
    assert table.columns == (
        Column("uid", "u8"),
        Column("blob/path", "text"),
        Column("blob/shape", "u4", (2,)),
        Column("blob/psize_A", "f4"),
    )
    values = table.read(table.names)
    assert values["uid"].tolist() == [2**64 - 1, 2**63, 7]
    assert values["uid"].dtype == np.uint64
    assert as_texts(values["blob/path"]) == ["J1/b.mrc", "", "J1/a.mrc"]
    assert values["blob/shape"].tolist() == [[10, 20], [30, 40], [50, 60]]
    assert values["blob/psize_A"].tolist() == [1.5, 2.5, 3.5]
    assert all(values[name].flags.writeable for name in ("uid", "blob/shape", "blob/psize_A"))


def test_columns_of_a_stream_are_read_in_any_order(save):
    table = open_cs(save(WHOLE_STREAM))
    assert list(table.read(["blob/psize_A", "uid"])) == ["blob/psize_A", "uid"]
    assert table.read(["blob/psize_A"], slice(2, None, -2))["blob/psize_A"].tolist() == [3.5, 1.5]
    assert as_texts(table.read(["blob/path"], slice(0, 2))["blob/path"]) == ["J1/b.mrc", ""]
    with pytest.raises(MissingDataError):
        table.read(["blob/idx"])


@pytest.mark.parametrize("compression", ["lz4", None])
def test_an_uncompressed_stream_is_read(save, compression):
    content = stream_bytes([["uid", "<u8"], ["p", "|O"]], [STREAM_UID, STREAM_PATH], compression=compression)
    values = read_all(save(content))
    assert values["uid"].tolist() == [2**64 - 1, 2**63, 7]
    assert as_texts(values["p"]) == ["J1/b.mrc", "", "J1/a.mrc"]


@pytest.mark.parametrize("shape", [[], [4], [2, 2], [3, 2, 2]])
def test_shapes_of_up_to_three_dimensions_are_read(save, shape):
    size = int(np.prod(shape))
    payload = struct.pack(f"<{3 * size}d", *range(3 * size))
    values = read_all(save(stream_bytes([["x", "<f8", shape]], [packed(payload)], compressed=["x"])))
    assert values["x"].tolist() == np.arange(3.0 * size).reshape(3, *shape).tolist()


def test_a_stream_without_rows_has_no_column_blocks(save):
    content = stream_bytes([["uid", "<u8"], ["p", "|O"], ["s", "<f4", [2]]], [], 0, compressed=["p"])
    table = open_cs(save(content))
    values = table.read(table.names)
    assert table.n_rows == 0
    assert (len(values["uid"]), len(values["p"]), values["s"].shape) == (0, 0, (0, 2))


def test_a_stream_without_a_heap_has_numbers(save):
    assert read_all(save(stream_bytes([["x", "<f4"]], [STREAM_PSIZE], heap=b"")))["x"].tolist() == [1.5, 2.5, 3.5]


def test_a_long_run_of_zeros_unpacks(save):
    payload = packed(bytes(8_000_000))
    assert len(payload) < 40_000
    values = read_all(save(stream_bytes([["x", "<f8"]], [payload], 1_000_000, compressed=["x"])))
    assert values["x"].shape == (1_000_000,)
    assert not values["x"].any()


def test_texts_that_stand_twice_in_the_heap_are_one_label(save):
    content = stream_bytes([["p", "|O"]], [struct.pack("<3Q", 1, 3, 1)], heap=b"\0a\0a\0")
    labels = read_all(save(content))["p"]
    assert labels.values == ("a",)
    assert labels.codes.tolist() == [0, 0, 0]


def test_every_truncation_of_a_stream_is_a_format_error(save):
    for length in range(len(WHOLE_STREAM)):
        with pytest.raises(FormatError):
            read_all(save(WHOLE_STREAM[:length]))


def test_a_truncated_stream_says_so_when_it_is_opened(save):
    with pytest.raises(FormatError, match="truncated") as caught:
        open_cs(save(WHOLE_STREAM[: -len(HEAP) - 1]))
    assert caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"length": -1},
        {"length": "3"},
        {"length": 3.0},
        {"length": True},
        {"length": None},
        {"compression": "zstd"},
        {"compression": []},
        {"compressed_fields": 3},
        {"compressed_fields": [["x"]]},
        {"dtype": None},
        {"dtype": 7},
        {"dtype": {"x": "<f4"}},
        {"dtype": [["x"]]},
        {"dtype": [[]]},
        {"dtype": [[7, "<f4"]]},
        {"dtype": [[["x"], "<f4"]]},
        {"dtype": [["x", "nonsense"]]},
        {"dtype": [["x", None]]},
        {"dtype": [["x", 7]]},
        {"dtype": [["x", ["<f4"]]]},
        {"dtype": [["x", [["a", "<f4"]]]]},
        {"dtype": [["x", "<f4,<f4"]]},
        {"dtype": [["x", "<U4"]]},
        {"dtype": [["x", "<M8[s]"]]},
        {"dtype": [["x", "<f4", 3]]},
        {"dtype": [["x", "<f4", [-1]]]},
        {"dtype": [["x", "<f4", [1.5]]]},
        {"dtype": [["x", "<f4", [70000]]]},
        {"dtype": [["x", "<f4", [1, 1, 1, 1]]]},
        {"dtype": [["x", "|O", [2]]]},
        {"dtype": [["x", "<f4"], ["x", "<f4"]]},
    ],
    ids=str,
)
def test_a_garbled_stream_header_is_a_format_error(save, changes):
    with pytest.raises(FormatError) as caught:
        open_cs(save(stream_bytes([["x", "<f4"]], [STREAM_PSIZE] * 2, **changes)))
    assert caught.value.path


@pytest.mark.parametrize("header", [b"", b"garbage", b"\xff\xfe", b"[]", b"7", b"{}", b"[" * 100_000], ids=repr)
def test_a_stream_header_that_is_no_table_is_a_format_error(save, header):
    with pytest.raises(FormatError):
        open_cs(save(MAGIC + struct.pack("<I", len(header)) + header + bytes(30)))


@pytest.mark.parametrize(
    ("payload", "compressed", "message"),
    [
        (STREAM_PSIZE[:-4], False, "8 bytes, 12 expected"),
        (STREAM_PSIZE * 2, False, "24 bytes, 12 expected"),
        (packed(STREAM_PSIZE[:-4]), True, "8 bytes, 12 expected"),
        (packed(STREAM_PSIZE * 2), True, "can't be unpacked"),
        (b"", True, "can't be unpacked"),
        (b"\xff" * 30, True, "can't be unpacked"),
        (packed(STREAM_PSIZE)[:-1], True, "can't be unpacked"),
    ],
)
def test_a_column_of_the_wrong_size_is_a_format_error(save, payload, compressed, message):
    path = save(stream_bytes([["x", "<f4"]], [payload], compressed=["x"] if compressed else []))
    with pytest.raises(FormatError, match=message) as caught:
        read_all(path)
    assert caught.value.field == "x"
    assert caught.value.hint


def test_a_block_that_claims_too_much_is_refused_before_memory_is_taken(save):
    path = save(stream_bytes([["x", "<f8", [65535]]], [packed(bytes(100))], 2**40, compressed=["x"]))
    with pytest.raises(FormatError, match="can't hold"):
        read_all(path)


@pytest.mark.parametrize(("heap", "offset"), [(HEAP, 19), (HEAP, 2**63), (HEAP, 2**64 - 1), (b"", 0), (b"\0ab", 1)])
def test_an_offset_beyond_the_heap_is_a_format_error(save, heap, offset):
    path = save(stream_bytes([["p", "|O"]], [struct.pack("<3Q", 0, 0, offset)], heap=heap))
    with pytest.raises(FormatError, match="heap") as caught:
        read_all(path)
    assert caught.value.field == "p"


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory where Linux tells it")
def test_reading_one_column_does_not_cost_the_whole_file(tmp_path):
    dtype = np.dtype([("uid", "<u8"), ("blob/path", "S391"), ("x", "<f4")])
    n_rows = 500_000
    header = npy_bytes(np.zeros(0, dtype)).replace(b"(0,)", b"(%d,)" % n_rows)
    path = tmp_path / "large.cs"
    path.write_bytes(header)
    os.truncate(path, len(header) + n_rows * dtype.itemsize)  # 200 MB that take no space
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from cryobridge.formats.cryosparc.cs import open_cs

        def peak_kB():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

        before = peak_kB()
        table = open_cs({str(path)!r})
        assert len(table.read(["x"])["x"]) == {n_rows}
        assert len(table.read(["x"], slice(None, None, 12))["x"]) == {-(-n_rows // 12)}
        print(peak_kB() - before)
        """
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(out) < 80 << 10


# --- writing --------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NUMBERS = st.sampled_from(["<f4", "<f8", "<c8", "<c16", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"])


@st.composite
def tables(draw):
    n_rows = draw(st.integers(0, 6))
    columns = {"uid": draw(hnp.arrays("<u8", n_rows))}
    for number in range(draw(st.integers(0, 4))):
        shape = draw(st.sampled_from([(), (2,), (2, 3), (1, 2, 2)]))
        columns[f"numbers/{number}"] = draw(hnp.arrays(draw(NUMBERS), (n_rows, *shape)))
    for number in range(draw(st.integers(0, 2))):
        columns[f"texts/{number}"] = draw(st.lists(TEXTS, min_size=n_rows, max_size=n_rows))
    return columns


@given(tables(), st.sampled_from(["npy", "csdat"]))
@settings(max_examples=100)
def test_what_is_written_reads_back_to_the_bit(tmp_path_factory, columns, container):
    path = tmp_path_factory.getbasetemp() / "round_trip.cs"
    write_cs(path, columns, container=container)
    table = open_cs(path)
    assert table.names == tuple(columns)
    assert table.container == container
    for name, values in table.read(table.names).items():
        if isinstance(values, Labels):
            assert as_texts(values) == columns[name]
            assert len(set(values.values)) == len(values.values)
        else:
            assert values.dtype == columns[name].dtype
            assert values.shape == columns[name].shape
            assert values.tobytes() == columns[name].tobytes()


@given(tables())
@settings(max_examples=50)
def test_numpy_reads_what_is_written_with_a_nul_after_the_longest_text(tmp_path_factory, columns):
    path = tmp_path_factory.getbasetemp() / "for_numpy.cs"
    write_cs(path, columns)
    array = np.load(path.rename(path.with_suffix(".npy")), allow_pickle=False)
    assert array.dtype.names == tuple(columns)
    for name, values in columns.items():
        if isinstance(values, list):
            longest = max((len(text.encode()) for text in values), default=0)
            assert array.dtype[name] == np.dtype(f"S{longest + 1}")
            assert [text.decode() for text in array[name].tolist()] == values
        else:
            assert array[name].tobytes() == values.tobytes()
    assert array.dtype.itemsize == sum(array.dtype[name].itemsize for name in array.dtype.names)  # packed


def test_labels_that_no_row_has_do_not_widen_the_column(tmp_path):
    labels = Labels(np.array([0, 2, 0], np.int32), ("ab", "never used in a row", "abc"))
    write_cs(tmp_path / "x.cs", {"p": labels})
    assert np.load(tmp_path / "x.cs").dtype["p"] == np.dtype("S4")
    write_cs(tmp_path / "y.cs", {"p": labels}, container="csdat")
    assert b"never" not in (tmp_path / "y.cs").read_bytes()
    assert as_texts(read_all(tmp_path / "y.cs")["p"]) == ["ab", "abc", "ab"]


def test_a_written_stream_is_laid_out_as_the_tools_write_it(tmp_path):
    path = tmp_path / "x.cs"
    write_cs(path, {"uid": UIDS, "p": ["b", "", "a", "b"], "s": np.ones((4, 2), "<f4")}, container="csdat")
    content = path.read_bytes()
    length = struct.unpack("<I", content[6:10])[0]
    header = json.loads(content[10 : 10 + length])
    assert content[:6] == MAGIC
    assert header["length"] == 4
    assert header["dtype"] == [["uid", "<u8"], ["p", "|O"], ["s", "<f4", [2]]]
    assert header["compression"] == "lz4"
    assert header["compressed_fields"] == ["p", "s"]  # never the uid
    place, payloads = 10 + length, []
    for _ in range(3):
        size = struct.unpack("<I", content[place : place + 4])[0]
        payloads.append(content[place + 4 : place + 4 + size])
        place += 4 + size
    heap = content[place:]
    assert payloads[0] == UIDS.tobytes()
    offsets = struct.unpack("<4Q", lz4.block.decompress(payloads[1], uncompressed_size=32))
    assert [heap[offset : heap.index(b"\0", offset)] for offset in offsets] == [b"b", b"", b"a", b"b"]
    assert heap[:1] == b"\0"
    assert offsets[1] == 0
    assert offsets[0] == offsets[3]
    assert lz4.block.decompress(payloads[2], uncompressed_size=32) == np.ones(8, "<f4").tobytes()


def test_a_wide_table_is_written_with_a_header_of_version_2(tmp_path):
    columns = {f"components_mode_{number}/value": np.ones(2, "f4") for number in range(3000)}
    write_cs(tmp_path / "wide.cs", columns)
    assert (tmp_path / "wide.cs").read_bytes()[6] == 2
    assert open_cs(tmp_path / "wide.cs").names == tuple(columns)
    assert np.load(tmp_path / "wide.cs", max_header_size=10**6).shape == (2,)


def test_a_column_that_the_stream_can_not_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csdat, "_MAX_COLUMN_BYTES", 31)
    write_cs(tmp_path / "x.cs", {"uid": UIDS[:3]}, container="csdat")
    with pytest.raises(ValueError, match="column uid is larger"):
        write_cs(tmp_path / "y.cs", {"uid": UIDS}, container="csdat")


def test_big_endian_columns_are_written_little_endian(tmp_path):
    for container in ("npy", "csdat"):
        write_cs(tmp_path / "x.cs", {"x": np.array([1.5, 2.5], ">f4")}, container=container)
        assert b">f4" not in (tmp_path / "x.cs").read_bytes()
        assert read_all(tmp_path / "x.cs")["x"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, {}, "different lengths"),
        ({"a": np.zeros(2, "M8[s]")}, {}, "does not hold"),
        ({"a": np.zeros(2)}, {"container": "hdf"}, "neither"),
        ({"a": ["x\0y"]}, {"container": "csdat"}, "holds a NUL"),
    ],
)
def test_what_can_not_be_written_leaves_the_older_file(tmp_path, columns, options, message):
    path = tmp_path / "x.cs"
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match=message):
        write_cs(path, columns, **options)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(CryobridgeError, match="can't be written"):
        write_cs(tmp_path / "absent" / "x.cs", {"a": np.zeros(2)})


# --- real files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["npy", "csdat"])
def test_a_real_file_survives_both_containers(reference_data, tmp_path, container):
    source = reference_data / "real" / "cryosparc_P12_J24_001_particles.cs"
    expected = np.load(source)
    table = open_cs(source)
    write_cs(tmp_path / "copy.cs", table.read(table.names), container=container)
    values = read_all(tmp_path / "copy.cs")
    assert tuple(values) == expected.dtype.names
    for name, column in values.items():
        if isinstance(column, Labels):
            assert as_texts(column) == [text.decode() for text in expected[name].tolist()]
        else:
            assert column.dtype == expected[name].dtype
            np.testing.assert_array_equal(column, expected[name])


def test_pickles_are_not_cs_files(save):
    with pytest.raises(FormatError, match=r"not a \.cs file"):
        open_cs(save(pickle.dumps({"uid": [1]})))
