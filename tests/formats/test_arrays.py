import errno
import gc
import io
import math
import os
import pickle
import re
import shutil
import struct
import threading
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UnsafeFileError, UsageError
from cryobridge.formats.arrays import (
    ArrayInfo,
    describe_arrays,
    numpy_values,
    read_npy,
    read_npz,
    read_pt,
    write_npy,
    write_npz,
    write_pt,
)
from cryobridge.formats.atomic import atomic_path
from cryobridge.formats.descriptor import ImageDescriptor, read_image_descriptor, write_image_descriptor
from cryobridge.formats.mrc_write import MrcStackWriter
from cryobridge.formats.npy_header import read_header


class Bomb:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def npy_bytes(array, **kwargs):
    stream = io.BytesIO()
    np.save(stream, array, **kwargs)
    return stream.getvalue()


def peak_of(function):
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            function()
        return caught.value, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# .npy


@settings(max_examples=40)
@given(array=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0), fill=st.nothing()))
def test_npy_reads_what_was_written(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    write_npy(path, array)
    back = read_npy(path)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()
    np.testing.assert_array_equal(np.load(path), back)
    assert describe_arrays(path) == [ArrayInfo("", str(array.dtype), array.shape, array.nbytes)]


def test_npy_is_mapped_not_loaded(tmp_path):
    path = tmp_path / "a.npy"
    write_npy(path, np.zeros((1000, 1000), order="F"))
    tracemalloc.start()
    try:
        array = read_npy(path)
        assert array.flags.f_contiguous
        assert float(array[3, 4]) == 0
        assert describe_arrays(path)[0].shape == (1000, 1000)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_npy_of_objects_is_refused_and_never_run(tmp_path):
    path, target = tmp_path / "a.npy", tmp_path / "executed"
    path.write_bytes(npy_bytes(np.array([Bomb(target)], object), allow_pickle=True))
    with pytest.raises(UnsafeFileError, match="Python objects") as caught:
        read_npy(path)
    assert caught.value.hint
    assert not target.exists()


NPY = npy_bytes(np.zeros(8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NPY[:-1], "cut off: 63 bytes of 64"),
        (NPY[:20], "damaged"),
        (NPY.replace(b"(8,), }   ", b"(-8,), }  "), "damaged"),
        (NPY.replace(b"(8,), }             ", b"(1099511627776,), } "), "cut off"),
        (NPY.replace(b"<f8", b"<q9"), "damaged"),
        (NPY.replace(b"{'descr'", b"(descr  "), "damaged"),
        (NPY.replace(b"\x01\x00", b"\x09\x00"), "version 1 to 3|neither"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{}", "damaged"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 100_000) + b"(" * 100_000, "damaged"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 100_000) + b"-" * 100_000, "damaged"),
        (b"text", "neither|damaged"),
        (b"", "empty"),
    ],
)
def test_damaged_npy_files_cost_an_error_and_no_memory(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    for reader in (read_npy, describe_arrays):
        error, peak = peak_of(lambda reader=reader: reader(path))
        assert re.search(message, str(error))
        assert error.path == str(path)
        assert error.hint
        assert peak < 60 * len(content) + 1_000_000


# .npz


def test_npz_reads_what_was_written_and_numpy_does(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"a": np.arange(6).reshape(2, 3), "file": np.array("name"), "empty": np.array([]), "n": np.array(3)}
    write_npz(path, arrays | {"list": [1.5, 2.5]})
    back = read_npz(path)
    assert list(back) == ["a", "file", "empty", "n", "list"]
    assert len(back) == 5
    assert "a" in back
    assert "b" not in back
    with np.load(path) as other:
        for name in back:
            np.testing.assert_array_equal(back[name], other[name])
            assert back[name].dtype == other[name].dtype
    back["a"][0, 0] = 7  # an array of its own
    assert describe_arrays(path)[0] == ArrayInfo("a", "int64", (2, 3), 48)
    with pytest.raises(KeyError):
        back["b"]


def test_npz_of_numpy_is_read_in_every_order_and_compression(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(
            tmp_path / "a.npz",
            f=np.asfortranarray(np.arange(6).reshape(2, 3)),
            s=np.zeros(3, [("x", "f4"), ("y", "i2")]),
        )
        back = read_npz(tmp_path / "a.npz")
        np.testing.assert_array_equal(back["f"], [[0, 1, 2], [3, 4, 5]])
        assert back["f"].flags.f_contiguous
        assert back["s"].dtype.names == ("x", "y")


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_npz(tmp_path / name, {"x": np.arange(5)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_plain_objects_in_an_npz_are_read_and_others_named_and_never_run(tmp_path):
    path, target = tmp_path / "a.npz", tmp_path / "executed"
    np.savez(
        path, none=np.array(None), mixed=np.array([1, "a"], object), bad=np.array(Bomb(target), object), ok=np.ones(2)
    )
    back = read_npz(path)
    assert back["none"].item() is None
    assert back["mixed"].tolist() == [1, "a"]
    np.testing.assert_array_equal(back["ok"], [1, 1])
    with pytest.raises(UnsafeFileError, match="system") as caught:
        back["bad"]
    assert caught.value.field == "bad"
    assert [info.name for info in describe_arrays(path)] == ["none", "mixed", "bad", "ok"]
    assert not target.exists()


def test_an_object_that_is_no_array_is_an_error(tmp_path):
    path = tmp_path / "a.npz"
    header = npy_bytes(np.array(None), allow_pickle=True)
    start = header.index(b"\x80")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header[:start] + pickle.dumps({"a": 1}))
    with pytest.raises(FormatError, match="dict instead of an array"):
        read_npz(path)["x"]


def test_a_zip_bomb_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "bomb.npz"
    block = bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(npy_bytes(np.zeros(0))[:-1].replace(b"(0,), }            ", b"(33554432,), }     ") + b"\n")
        for _ in range(300):
            member.write(block)
    assert path.stat().st_size < 1_000_000
    for reader in (read_npz, describe_arrays):
        error, peak = peak_of(lambda reader=reader: reader(path))
        assert "zip bomb" in str(error)
        assert "uncompressed" in error.hint
        assert peak < 1_000_000


@pytest.mark.parametrize("shape", [(1 << 40,), (3,), (0, 1 << 62)])
def test_an_array_that_claims_another_size_than_its_part_is_refused(tmp_path, shape):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(16))
    for reader in (lambda: read_npz(path)["x"], lambda: describe_arrays(path)):
        error, peak = peak_of(reader)
        assert error.field == "x"
        assert peak < 1_000_000


def test_damaged_archives_are_refused_with_a_remedy(tmp_path):
    whole = tmp_path / "whole.npz"
    write_npz(whole, {"x": np.random.default_rng(0).normal(size=1000)})
    raw = whole.read_bytes()
    path = tmp_path / "a.npz"
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 255
    for content in (raw[: len(raw) // 2], bytes(flipped), b"PK\x03\x04" + bytes(50)):
        path.write_bytes(content)
        with pytest.raises(FormatError) as caught:
            read_npz(path)["x"]
        assert caught.value.hint
    with pytest.raises(FormatError, match=r"not an \.npz"):
        other = tmp_path / "a.npy"
        write_npy(other, np.zeros(3))
        read_npz(other)


@settings(max_examples=100)
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5))
def test_no_change_to_an_archive_raises_anything_but_a_format_error(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    np.savez(path, x=np.arange(4), y=np.array(None))
    raw = bytearray(path.read_bytes())
    for position, byte in changes:
        raw[position % len(raw)] = byte
    path.write_bytes(raw)
    for action in (describe_arrays, lambda path: dict(read_npz(path))):
        try:
            action(path)
        except FormatError as error:
            assert error.path


# .pt


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128, torch.float16, torch.int64])
def test_pt_reads_what_was_written_and_torch_does(tmp_path, dtype):
    path = tmp_path / "a.pt"
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    write_pt(path, tensor)
    assert torch.equal(read_pt(path), tensor)
    assert torch.equal(torch.load(path, weights_only=True), tensor)
    assert describe_arrays(path) == [
        ArrayInfo("", str(dtype).removeprefix("torch."), (2, 3, 4), 24 * tensor.element_size())
    ]


def test_a_view_is_written_without_the_tensor_behind_it(tmp_path):
    large = torch.randn(1000, 100)
    write_pt(tmp_path / "a.pt", large[5:7])
    assert (tmp_path / "a.pt").stat().st_size < 5000
    assert torch.equal(read_pt(tmp_path / "a.pt"), large[5:7])
    write_pt(tmp_path / "b.pt", large.T[3:5].requires_grad_(requires_grad=False))
    assert torch.equal(read_pt(tmp_path / "b.pt"), large.T[3:5])


@pytest.mark.parametrize("as_zip", [True, False])
def test_pt_of_both_formats_is_read(tmp_path, as_zip):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(3), "y": torch.zeros(2, 2)}, path, _use_new_zipfile_serialization=as_zip)
    assert [(info.name, info.shape) for info in describe_arrays(path)] == [("x", (3,)), ("y", (2, 2))]
    with pytest.raises(FormatError, match="a dict, not a tensor"):
        read_pt(path)


@pytest.mark.parametrize("as_zip", [True, False])
def test_pt_that_asks_for_code_is_named_and_never_run(tmp_path, as_zip):
    path, target = tmp_path / "a.pt", tmp_path / "executed"
    torch.save({"x": torch.ones(3), "y": Bomb(target)}, path, _use_new_zipfile_serialization=as_zip)
    for reader in (read_pt, describe_arrays):
        with pytest.raises(UnsafeFileError, match=r"asks for \w+\.system\. Nothing was run"):
            reader(path)
    assert not target.exists()


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.ones(1).expand(1 << 30, 1 << 10), path)
    for reader in (read_pt, describe_arrays):
        with pytest.raises(FormatError, match="more than the file has"):
            reader(path)


def test_damaged_pt_files_are_refused_with_a_remedy(tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "a.pt"
    write_pt(whole, torch.arange(10.0))
    raw = whole.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    renamed = raw.replace(b"FloatStorage", b"FloatSt\xffrage")
    for content in (raw[:-300], raw[:200], packed.getvalue(), renamed, pickle.dumps([1, 2]), b"text"):
        path.write_bytes(content)
        with pytest.raises(FormatError) as caught:
            read_pt(path)
        assert caught.value.path == str(path)
        assert caught.value.hint


_VALUES = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (_VALUES.clone().requires_grad_(), _VALUES),
        (torch.nn.Parameter(_VALUES), _VALUES),
        (torch.complex(_VALUES, _VALUES).conj(), torch.complex(_VALUES, -_VALUES)),
        (torch.complex(_VALUES, _VALUES).conj().imag, -_VALUES),
        (_VALUES.to(torch.bfloat16), _VALUES),
    ],
    ids=["gradient", "parameter", "conj", "neg", "bfloat16"],
)
def test_what_torch_keeps_beside_the_values_is_left_behind(tmp_path, tensor, values, as_zip):
    path = tmp_path / "a.pt"
    torch.save(tensor, path, _use_new_zipfile_serialization=as_zip)
    found = numpy_values(read_pt(path))
    assert found.dtype == numpy_values(values).dtype
    np.testing.assert_array_equal(found, values.numpy())
    assert describe_arrays(path)[0].shape == (3, 4)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_values_are_read_as_numbers(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.quantize_per_tensor(_VALUES, 0.5, 0, torch.quint8), path)
    assert describe_arrays(path) == [ArrayInfo("", "quint8", (3, 4), 12, "quantised")]
    np.testing.assert_array_equal(numpy_values(read_pt(path)), _VALUES.numpy())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_types_that_numpy_lacks_become_wider_ones(tmp_path, dtype):
    path = tmp_path / "a.pt"
    torch.save(_VALUES.to(dtype), path)
    assert describe_arrays(path)[0].dtype == str(dtype).removeprefix("torch.")
    assert numpy_values(read_pt(path)).dtype == np.float32
    # torch itself can't read what it writes of these types in its old format.
    torch.save(_VALUES.to(dtype), path, _use_new_zipfile_serialization=False)
    for reader in (read_pt, describe_arrays):
        with pytest.raises(FormatError, match="torch's old file format"):
            reader(path)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize(
    ("tensor", "stored", "hint"),
    [
        (_VALUES.to_sparse(), "sparse_coo", "to_dense"),
        (_VALUES.to("meta"), "meta", "with its values"),
    ],
    ids=["sparse", "meta"],
)
def test_tensors_without_all_values_are_described_and_not_read(tmp_path, tensor, stored, hint, as_zip):
    path = tmp_path / "a.pt"
    torch.save(tensor, path, _use_new_zipfile_serialization=as_zip)
    assert describe_arrays(path) == [ArrayInfo("", "float32", (3, 4), 48, stored)]
    with pytest.raises(FormatError, match=stored) as caught:
        read_pt(path)
    assert hint in caught.value.hint


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused_by_name(tmp_path, layout, as_zip):
    path = tmp_path / "a.pt"
    nested = torch.nested.nested_tensor([_VALUES, _VALUES[:2]], layout=layout)
    torch.save(nested, path, _use_new_zipfile_serialization=as_zip)
    for reader in (read_pt, describe_arrays):
        with pytest.raises(FormatError, match="nested") as caught:
            reader(path)
        assert "unbind" in caught.value.hint


@pytest.mark.parametrize("as_zip", [True, False])
def test_checkpoints_are_described_by_their_tensors_and_modules_are_refused(tmp_path, as_zip):
    path, layer = tmp_path / "a.pt", torch.nn.Linear(2, 3)
    checkpoint = {"model": layer.state_dict(), "epoch": 3, "loss": [0.5, 0.25]}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=as_zip)
    assert [(info.name, info.shape) for info in describe_arrays(path)] == [
        ("model.weight", (3, 2)),
        ("model.bias", (3,)),
    ]
    torch.save(layer, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UnsafeFileError, match=r"torch\.nn\.modules\.linear\.Linear"):
        describe_arrays(path)


def test_a_torchscript_archive_is_refused_as_code(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/data.pkl", "a/code/__torch__.py"):
            archive.writestr(name, b"\x80\x02N.")
    for reader in (read_pt, describe_arrays):
        with pytest.raises(UnsafeFileError, match="TorchScript"):
            reader(path)


# Writing


def test_objects_are_not_written(tmp_path):
    for write in (write_npy, lambda path, array: write_npz(path, {"x": array})):
        with pytest.raises(UsageError, match="objects"):
            write(tmp_path / "a", np.array([None]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_npy(path, np.ones(2)),
        lambda path: write_npz(path, {"x": np.ones(2)}),
        lambda path: write_pt(path, torch.ones(2)),
    ],
    ids=["npy", "npz", "pt"],
)
def test_files_appear_whole_or_not_at_all(tmp_path, write):
    path = tmp_path / "a"
    path.write_bytes(b"older")
    write(path)
    assert path.read_bytes() != b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(CryobridgeError, match="can't be written") as caught:
        write(tmp_path / "no" / "a")
    assert "folder exists" in caught.value.hint
    with pytest.raises(CryobridgeError, match="can't be written"):
        write(tmp_path)


def test_the_temporary_file_is_hidden_beside_the_final_one_and_keeps_its_suffix(tmp_path):
    final = tmp_path / "a.b.npz"
    with atomic_path(final) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".npz"
        temporary.write_bytes(b"new")
        assert not final.exists()
    assert final.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), atomic_path(final) as temporary:
        temporary.write_bytes(b"newer")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["a.b.npz"]
    assert final.read_bytes() == b"new"


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert caught.value.filename == str(tmp_path / "input")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("is_new_inode", [False, True])
def test_a_rename_that_is_done_and_called_an_error_has_succeeded(number, is_new_inode, tmp_path, monkeypatch):
    # As on a network disk that loses the answer, or that numbers its files anew.
    def renamed(temporary, final):
        if is_new_inode:
            shutil.copy(temporary, final)
            temporary.unlink()
        else:
            os.rename(temporary, final)  # noqa: PTH104
        raise OSError(number, os.strerror(number), temporary)

    monkeypatch.setattr(Path, "replace", renamed)
    final = tmp_path / "a"
    final.write_bytes(b"old")
    with atomic_path(final) as temporary:
        temporary.write_bytes(b"new")
    write_mrc_stack_that_can_be_resumed(tmp_path / "b.mrcs")
    assert final.read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b.mrcs"}


def write_mrc_stack_that_can_be_resumed(path):
    with MrcStackWriter(path, (2, 2), 1.0, resumable=True) as stack:
        stack.append(np.zeros((2, 2), "f4"))


@pytest.mark.parametrize("old", [None, b"old", b"old and longer", b"new"[::-1]])
def test_a_rename_that_fails_is_an_error_and_an_older_file_stays(old, tmp_path, monkeypatch):
    def not_renamed(temporary, final):
        raise OSError(errno.EIO, os.strerror(errno.EIO), temporary)

    monkeypatch.setattr(Path, "replace", not_renamed)
    final = tmp_path / "a"
    if old is not None:
        final.write_bytes(old)
    with pytest.raises(CryobridgeError, match="Input/output error"), atomic_path(final) as temporary:
        temporary.write_bytes(b"new")
    assert (final.read_bytes() if final.exists() else None) == old
    assert list(tmp_path.iterdir()) == ([] if old is None else [final])


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    final = tmp_path / "a"

    def write(byte):
        for _ in range(50):
            with atomic_path(final) as temporary:
                temporary.write_bytes(byte * 1000)

    threads = [threading.Thread(target=write, args=(byte,)) for byte in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert final.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert list(tmp_path.iterdir()) == [final]


# CryoLike's image descriptor

CASES = ["paired_star", "indexed_star", "indexed_cs", "job_directory", "downsample_mean", "downsample_max"]


@pytest.mark.parametrize("case", CASES)
def test_real_descriptors_are_read_in_both_forms(reference_data, case):
    folder = reference_data / "cryolike_reference" / case
    descriptor = read_image_descriptor(folder / "params.npz")
    assert descriptor == read_image_descriptor(folder / "params_plain.npz")
    assert descriptor.atom_radii is None
    for stack in (folder / "expected").glob("*_fourier_*.npz"):
        assert read_image_descriptor(stack) == descriptor


@pytest.mark.parametrize("case", CASES)
def test_a_written_descriptor_has_the_keys_types_and_values_of_cryolike(reference_data, tmp_path, case):
    plain = reference_data / "cryolike_reference" / case / "params_plain.npz"
    path = tmp_path / "params.npz"
    write_image_descriptor(path, read_image_descriptor(plain))
    with np.load(plain) as expected, np.load(path) as written:
        assert sorted(expected.files) == sorted(written.files)
        for name in expected.files:
            assert (written[name].dtype, written[name].shape) == (expected[name].dtype, expected[name].shape), name
            np.testing.assert_array_equal(written[name], expected[name])


def test_the_defaults_are_those_of_the_real_files(reference_data):
    real = read_image_descriptor(reference_data / "cryolike_reference/paired_star/params.npz")
    assert ImageDescriptor.for_box(32, 1.5) == real
    real = read_image_descriptor(reference_data / "cryolike_reference/indexed_star/params.npz")
    made = ImageDescriptor.for_box(33, 2.0, resolution_factor=0.6)
    assert made.radius_max == pytest.approx(real.radius_max)
    assert made.viewing_distance == pytest.approx(real.viewing_distance)
    assert made.n_inplanes == real.n_inplanes
    doubled = ImageDescriptor.for_box(16, 3.0, n_inplanes=40, precision="double")
    assert (doubled.n_inplanes, doubled.precision) == (40, "double")


def test_a_descriptor_reads_back_with_all_its_fields(tmp_path):
    path = tmp_path / "params.npz"
    for atoms in ((None, None), (1.5, "name CB")):
        descriptor = ImageDescriptor(
            (32, 30),
            (1.5, 1.6),
            8.0,
            0.25,
            64,
            "double",
            0.1,
            *atoms,
            use_protein_residue_model=False,
            atom_shape="hard",
        )
        write_image_descriptor(path, descriptor)
        assert read_image_descriptor(path) == descriptor
        np.load(path, allow_pickle=False)["atom_radii"]


@pytest.fixture
def fields():
    return ImageDescriptor.for_box(32, 1.5).to_arrays()


def test_one_number_stands_for_both_axes(tmp_path, fields):
    write_npz(tmp_path / "p.npz", fields | {"n_pixels": 32, "pixel_size": 1.5})
    assert read_image_descriptor(tmp_path / "p.npz") == ImageDescriptor.for_box(32, 1.5)


def test_template_fields_may_be_missing(tmp_path, fields):
    images_only = {name: array for name, array in fields.items() if not name.startswith(("atom", "use"))}
    write_npz(tmp_path / "p.npz", images_only)
    assert read_image_descriptor(tmp_path / "p.npz") == ImageDescriptor.for_box(32, 1.5)


@pytest.mark.parametrize("name", ["n_pixels", "pixel_size", "radius_max", "dist_radii", "n_inplanes", "precision"])
def test_a_missing_field_is_named(tmp_path, fields, name):
    for absent in ({}, {name: np.array([])}):
        rest = {key: array for key, array in fields.items() if key != name}
        write_npz(tmp_path / "p.npz", rest | absent)
        with pytest.raises(MissingDataError) as caught:
            read_image_descriptor(tmp_path / "p.npz")
        assert caught.value.field == name
        assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_pixels", [32, 32, 32]),
        ("n_pixels", [32.5, 32.5]),
        ("n_pixels", [32, 0]),
        ("pixel_size", [1.5, math.nan]),
        ("pixel_size", "large"),
        ("radius_max", [1.0, 2.0]),
        ("radius_max", -1.0),
        ("n_inplanes", 0),
        ("precision", "half"),
        ("precision", 1),
        ("atom_radii", [1.0, 2.0]),
    ],
)
def test_an_impossible_field_is_named(tmp_path, fields, name, value):
    path = tmp_path / "p.npz"
    write_npz(path, fields | {name: np.array(value)})
    with pytest.raises(FormatError) as caught:
        read_image_descriptor(path)
    assert name in caught.value.field
    assert caught.value.path == str(path)
    assert caught.value.hint


def test_a_descriptor_that_asks_for_code_is_refused_and_never_run(tmp_path, fields):
    path, target = tmp_path / "p.npz", tmp_path / "executed"
    np.savez(path, **fields | {"atom_radii": np.array(Bomb(target), object)})
    with pytest.raises(UnsafeFileError, match="system"):
        read_image_descriptor(path)
    assert not target.exists()


@pytest.mark.parametrize("wrong", [{"resolution_factor": 0}, {"precision": "half"}, {"n_inplanes": 0}])
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(UsageError):
        ImageDescriptor.for_box(32, 1.5, **wrong)
    with pytest.raises(UsageError):
        ImageDescriptor.for_box(0, 1.5)


def test_headers_are_read_by_several_threads_at_once():
    # Python 3.11 fails where another thread parses while its memory is cleaned up.
    stream = io.BytesIO()
    np.save(stream, np.zeros(1, [(f"a/{number}", "<f4", (2,)) for number in range(60)]))

    def let_others_run(*_):
        time.sleep(0.0002)

    def read_headers(_):
        return [len(read_header(io.BytesIO(stream.getvalue())).dtype.names) for _ in range(20)]

    before = gc.get_threshold()
    gc.callbacks.append(let_others_run)
    gc.set_threshold(20)
    try:
        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(read_headers, range(3))) == [[60] * 20] * 3
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(let_others_run)
