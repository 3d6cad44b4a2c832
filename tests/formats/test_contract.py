"""What every format keeps: it knows its own files and no others, and reads what it wrote."""

from __future__ import annotations

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.arrays import write_npy, write_npz, write_pt
from cryobridge.formats.cryosparc.csg import write_csg
from cryobridge.formats.image_list import write_image_list
from cryobridge.formats.pickles import write_poses
from cryobridge.formats.registry import BY_NAME, FORMATS, format_of, identify_file
from cryobridge.formats.table import Table
from helpers import noise_images, particle_columns, save_cs, save_mrc, save_star

N = 4


def csg(path):
    save_cs(path.with_name("particles.cs"), particle_columns(["a.mrc"] * N, range(N)))
    write_csg(path, {"blob": ("particle.blob", "particles.cs"), "ctf": ("particle.ctf", "particles.cs")}, N)


def pt(path):
    import torch

    write_pt(path, torch.arange(6.0).reshape(2, 3))


# A file of each format, and its columns.
MADE = {
    "cs": (lambda path: save_cs(path, particle_columns(["a.mrc"] * N, range(N))), tuple(particle_columns(["a"], [0]))),
    "csg": (csg, ("blob", "ctf")),
    "star": (lambda path: save_star(path, "particles", {"rlnImageName": ["000001@a.mrcs"]}), ("rlnImageName",)),
    "mrc": (lambda path: save_mrc(path, noise_images(N, 8), 1.5), ()),
    "pickle": (lambda path: write_poses(path, np.tile(np.eye(3, dtype="f4"), (N, 1, 1)), None), ()),
    "npy": (lambda path: write_npy(path, np.arange(6.0)), ()),
    "npz": (lambda path: write_npz(path, {"a": np.arange(3), "b": np.arange(2)}), ("a", "b")),
    "pt": (pt, ()),
    "list": (lambda path: write_image_list(path, [path.with_name("a.mrcs"), path.with_name("b.mrcs")]), ()),
}


@pytest.fixture(params=[item.name for item in FORMATS])
def made(request, tmp_path):
    item = BY_NAME[request.param]
    path = tmp_path / f"a{item.suffixes[0]}"
    MADE[item.name][0](path)
    return item, path


def test_a_file_is_known_by_its_content_and_by_one_format_only(made, tmp_path):
    item, path = made
    head = path.read_bytes()[: 1 << 16]
    assert [other.name for other in FORMATS if other.recognise(head, path)] == [item.name]
    other = tmp_path / "no name"
    other.write_bytes(path.read_bytes())
    assert identify_file(other) == item.name
    assert format_of(other) is item
    assert item.words.split()[0] in {"a", "an"}


def test_columns_are_named_in_the_order_of_the_file(made):
    item, path = made
    assert item.columns(path) == MADE[item.name][1]


def test_what_is_written_reads_as_what_was_read(made, tmp_path):
    item, path = made
    again = tmp_path / f"again{item.suffixes[0]}"
    item.write(again, item.read(path))
    assert identify_file(again) == item.name
    assert item.columns(again) == item.columns(path)
    before, after = item.read(path), item.read(again)
    if isinstance(before, Table):
        before, after = before.read(["uid"])["uid"], after.read(["uid"])["uid"]
    elif item.name == "mrc":
        before, after = before.images, after.images
    elif item.name == "npz":
        before, after = before["a"], after["a"]
    elif item.name == "star":
        before, after = before["particles"].value("rlnImageName"), after["particles"].value("rlnImageName")
    elif item.name == "csg":
        before, after = before.members[0].name, after.members[0].name
    assert np.array_equal(np.asarray(before), np.asarray(after))


def test_a_cut_file_is_refused_with_its_name(made):
    item, path = made
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        found = item.read(path)
    except CryobridgeError as error:
        assert str(path) in str(error)
    else:
        # Text may end anywhere; what is left of it must be read as that.
        assert item.name in {"star", "csg", "list"}
        assert found is not None


def test_an_absent_and_an_empty_file_are_refused(made):
    item, path = made
    path.unlink()
    with pytest.raises(FormatError):
        item.read(path)
    path.touch()
    with pytest.raises(FormatError):
        identify_file(path)
