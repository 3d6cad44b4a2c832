import bz2
import gzip
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from cryobridge.errors import FormatError
from cryobridge.formats import registry
from cryobridge.formats.registry import identify_file

TABLE = np.zeros(2, [("uid", "<u8"), ("blob/path", "S5")])


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, a=np.arange(3), b=np.arange(2))
    return file.getvalue()


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, b"content")
    return file.getvalue()


def mrc(nx=4, mode=2, *, byte_order="<", has_map=True):
    header = bytearray(1024)
    header[:16] = struct.pack(f"{byte_order}4i", nx, 4, 1, mode)
    if has_map:
        header[208:216] = b"MAP " + (b"\x44\x44\0\0" if byte_order == "<" else b"\x11\x11\0\0")
    return bytes(header) + bytes(nx * 16)


HEADER = json.dumps({"length": 0, "dtype": [], "compression": None, "compressed_fields": []}).encode()
CSDAT = b"\x95CSDAT" + struct.pack("<I", len(HEADER)) + HEADER
CSG = b"created: 2024-01-01\ngroup:\n  name: particles\n  type: particle\nresults:\n  blob: {}\nversion: v4.4.1\n"
STAR = b"# version 30001\n\ndata_particles\n\nloop_\n_rlnVoltage #1\n300\n"
CONTENTS = {
    "npy table": (npy(TABLE), registry.CS),
    "npy table, version 2": (npy(TABLE, (2, 0)), registry.CS),
    "npy table, version 3": (npy(TABLE, (3, 0)), registry.CS),
    "stream": (CSDAT, registry.CS),
    "group": (CSG, registry.CSG),
    "star": (STAR, registry.STAR),
    "star with CRLF": (STAR.replace(b"\n", b"\r\n"), registry.STAR),
    "star with a byte order mark": (b"\xef\xbb\xbf" + STAR.lstrip(b"# version301\n"), registry.STAR),
    "star without a block name": (b"data_\n\nloop_\n_rlnVoltage\n1\n", registry.STAR),
    "star with a comment after the name": (b"data_x # y\n_rlnVoltage 1\n", registry.STAR),
    "star with Latin letters": ("data_x\n_rlnMicrographName größe\n".encode("latin1"), registry.STAR),
    "mrc": (mrc(), registry.MRC),
    "big-endian mrc": (mrc(byte_order=">"), registry.MRC),
    "float16 mrc": (mrc(mode=12), registry.MRC),
    "mrc of 640 columns": (mrc(nx=640), registry.MRC),
    "mrc, gzip": (gzip.compress(mrc()), registry.MRC),
    "mrc, bzip2": (bz2.compress(mrc()), registry.MRC),
    **{
        f"pickle {protocol}": (pickle.dumps({"a": [1, 2]}, protocol=protocol), registry.PICKLE)
        for protocol in range(2, 6)
    },
    "npy": (npy(np.zeros((2, 3), "f4")), registry.NPY),
    "npy of one number": (npy(np.float64(1)), registry.NPY),
    "npz": (npz(), registry.NPZ),
    "pt": (archive("tensor/data.pkl", "tensor/version", "tensor/data/0"), registry.PT),
}
NAMES = ["file", *(f"file.{suffix}" for suffix in ("txt", "dat", "pkl", "star", "npy", "npz", "pt", "csg", "gz"))]


@pytest.fixture
def save(tmp_path):
    def _save(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _save


@pytest.mark.parametrize(("content", "kind"), CONTENTS.values(), ids=CONTENTS)
def test_formats_are_reported_by_content_under_any_name(save, content, kind):
    assert {name: identify_file(save(content, name)) for name in NAMES} == dict.fromkeys(NAMES, kind)


@pytest.mark.parametrize("name", ["x.mrc", "x.mrcs", "x.map", "X.MRC", "x.mrc.gz"])
def test_other_files_that_are_named_mrc_are_reported_by_content(save, name):
    for content, kind in CONTENTS.values():
        assert identify_file(save(content, name)) == kind


def test_old_mrc_files_are_reported_by_their_names(save):
    # Without the word MAP; the first bytes of 640 columns are those of a pickle too.
    for nx in (4, 640, 896, 1152, 1408):
        for name in ("x.mrc", "x.mrcs", "x.map", "x.st", "x.MRCS"):
            assert identify_file(save(mrc(nx=nx, has_map=False), name)) == registry.MRC
    assert identify_file(save(gzip.compress(mrc(has_map=False)), "x.mrc.gz")) == registry.MRC
    assert identify_file(save(bz2.compress(os.urandom(200_000)), "x.mrcs.bz2")) == registry.MRC
    with pytest.raises(FormatError, match="not a format"):
        identify_file(save(mrc(nx=640, has_map=False), "x"))


def test_pickles_of_old_protocols_are_reported_by_their_names(save):
    for protocol in (0, 1):
        for name in ("x.pkl", "x.pickle"):
            assert identify_file(save(pickle.dumps([1.5, "a"], protocol=protocol), name)) == registry.PICKLE


@pytest.mark.parametrize(
    "kind", [registry.STAR, registry.CSG, registry.MRC, registry.PICKLE, registry.NPZ, registry.PT]
)
def test_what_is_named_cs_must_be_one(save, kind):
    content = next(content for content, found in CONTENTS.values() if found == kind)
    with pytest.raises(FormatError, match=rf"named \.cs, but its content is {kind}") as caught:
        identify_file(save(content, "particles.cs"))
    assert f"particles.{kind}" in caught.value.hint
    for content, found in CONTENTS.values():
        if found == registry.CS:
            assert identify_file(save(content, "particles.cs")) == registry.CS


@pytest.mark.parametrize(
    "content",
    [
        b"just some text\n",
        b"data_dir: /data\ndata_x = 1\n",
        b"a,b\n1,2\n",
        bytes(2000),
        b"\x80",
        b"\x80\x02",
        b"\x1f\x8bgarbage",
        b"BZhgarbage",
        gzip.compress(b"text", mtime=0),
        archive("word/document.xml"),
        b"\x89PNG\r\n",
        "data_x\n".encode("utf-16"),
        b"group: x\n",
    ],
    ids=lambda content: repr(content[:8]),
)
@pytest.mark.parametrize("name", ["file", "file.cs", "file.txt", "file.star"])
def test_what_is_not_known_is_refused(save, content, name):
    with pytest.raises(FormatError, match="not a format that is known") as caught:
        identify_file(save(content, name))
    assert ".star" in caught.value.hint


def test_empty_absent_and_odd_files_are_refused(save, tmp_path):
    with pytest.raises(FormatError, match="empty") as caught:
        identify_file(save(b"", "x.cs"))
    assert caught.value.hint
    with pytest.raises(FormatError, match="can't be read"):
        identify_file(tmp_path / "absent.star")
    with pytest.raises(FormatError, match="folder"):
        identify_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        identify_file(tmp_path / "pipe")


def test_a_damaged_archive_is_said_to_be_one(save):
    with pytest.raises(FormatError, match="damaged archive"):
        identify_file(save(npz()[:60], "x.npz"))


def test_real_files_are_recognised(reference_data):
    kinds = {path.name: identify_file(path) for path in (reference_data / "real").iterdir()}
    suffixes = {".star": "star", ".cs": "cs", ".pkl": "pickle", ".mrc": "mrc", ".mrcs": "mrc", ".map": "mrc"}
    assert kinds == {name: suffixes["." + name.rpartition(".")[2]] for name in kinds}
    assert len(kinds) >= 10
