from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.offered import offered_classes, offered_columns
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.offers import class_lists, columns, conditions
from cryobridge.model.particles import Labels
from cryobridge.options import declared

HEAVY = ("numpy", "pyarrow", "pandas", "torch", "yaml")


ALL = ("rlnImageName", "rlnDefocusU", "rlnClassNumber")


def with_signs(text):
    return [f"{text} {sign}" for sign in ("<", ">", "==", "in")]


@pytest.fixture
def star(tmp_path):
    path = tmp_path / "run_data.star"
    rows = "".join(f"{number}@a.mrcs {10000 + number}.5 {1 + number * 7 // 100_000}\n" for number in range(100_000))
    head = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\ndata_particles\n\nloop_\n"
    path.write_text(f"{head}_rlnImageName #1\n_rlnDefocusU #2\n_rlnClassNumber #3\n{rows}\n")
    return path


@pytest.fixture
def cs(tmp_path):
    types = [("uid", "<u8"), ("alignments2D/class", "<u4"), ("alignments3D/shift", "<f4", (2,)), ("blob/path", "S9")]
    rows = np.zeros(50_000, types)
    rows["alignments2D/class"] = np.arange(len(rows)) // 5000
    with (tmp_path / "J7_020_particles.cs").open("wb") as file:
        np.save(file, rows)
    with (tmp_path / "J7_passthrough_particles.cs").open("wb") as file:
        np.save(file, np.zeros(50_000, [("uid", "<u8"), ("ctf/df1_A", "<f4")]))
    return tmp_path / "J7_020_particles.cs"


def test_columns_and_classes_of_a_star_file_are_those_of_its_particles(star):
    assert offered_columns(star) == ["rlnImageName", "rlnDefocusU", "rlnClassNumber"]
    # Sorted by class, so that its first rows have one class only.
    assert offered_classes(star) == [1, 2, 3, 4, 5, 6, 7]


def test_columns_of_a_cs_file_are_also_those_that_it_is_joined_with(cs):
    own = ["uid", "alignments2D/class", "alignments3D/shift[0]", "alignments3D/shift[1]", "blob/path"]
    for named in (cs, cs.parent):
        assert offered_columns(named) == [*own, "ctf/df1_A"]
        assert offered_classes(named) == list(range(10))


def test_classes_of_a_csdat_stream_are_offered_as_those_of_the_other_container(tmp_path):
    columns = {
        "uid": np.arange(50_000, dtype="u8"),
        "blob/path": Labels(np.zeros(50_000, np.int32), ("a.mrc",)),
        "alignments3D/shift": np.zeros((50_000, 2), "f4"),
        "alignments3D/class": (np.arange(50_000) // 10_000).astype("u4"),
        "alignments2D/class": np.arange(50_000, dtype="u4"),
    }
    write_cs(tmp_path / "a.cs", columns, container="csdat")
    assert offered_classes(tmp_path / "a.cs") == [0, 1, 2, 3, 4]
    damaged = (tmp_path / "a.cs").read_bytes().replace(b'"compressed_fields"', b'"xompressed_fields"')
    (tmp_path / "b.cs").write_bytes(damaged)
    assert offered_classes(tmp_path / "b.cs") != [0, 1, 2, 3, 4]


def test_of_a_relion_job_the_last_iteration_is_read_without_its_project(star):
    (star.parent / "run_it025_data.star").write_text(star.read_text())
    (star.parent / "run_it024_data.star").write_text("data_\n\nloop_\n_rlnClassNumber #1\n9\n")
    star.unlink()
    assert offered_classes(star.parent) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\xff\xff{", b"\x95CSDAT\xff\xff\xff\x7f", b"\x00" * 99])
@pytest.mark.parametrize("name", ["a.star", "a.cs", "a.csg", "a.txt"])
def test_what_is_no_particle_file_offers_nothing(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path / "missing.star", tmp_path):
        assert offered_columns(path) == []
        assert offered_classes(path) == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rln", ["rlnImageName", "rlnDefocusU", "rlnClassNumber"]),
        ("rlnD", with_signs("rlnDefocusU")),
        ("rlnDefocusU > 12000 and not (rlnC", with_signs("rlnDefocusU > 12000 and not (rlnClassNumber")),
        ("9000 < rlnDefocusU and rlnI", with_signs("9000 < rlnDefocusU and rlnImageName")),
        ("9000 < rlnDefocusU and ", [f"9000 < rlnDefocusU and {name}" for name in ALL]),
        ("rlnDefocusU ", with_signs("rlnDefocusU")),
        ("rlnElse ", []),
        ("rlnImageName == 'rln", []),
    ],
)
def test_a_condition_goes_on_with_a_column(typed, offered, star):
    assert conditions(star, typed) == offered


def test_columns_are_offered_by_name_for_the_fields_that_are_shown(star, cs):
    assert columns(star, "rlnD") == ["rlnDefocusU"]
    offered = columns(cs, "")
    assert len(set(offered)) == len(offered) > 0
    assert not any("[" in name for name in offered)
    assert {item.name: item.opt.complete for item in declared(InspectOptions)}["fields"] is columns


def test_a_list_of_classes_goes_on_with_those_that_it_has_not(star):
    assert class_lists(star, "1,3,") == ["1,3,2", "1,3,4", "1,3,5", "1,3,6", "1,3,7"]


def test_nothing_heavy_is_loaded(star, cs):
    program = (
        "import sys; from pathlib import Path; from cryobridge.jobs.offers import conditions, class_lists\n"
        f"for path in map(Path, {[str(star), str(cs), str(cs.parent), str(star.parent)]}):\n"
        "    assert conditions(path, '') and class_lists(path, '')\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("suffix", ["star", "cs", "csg"])
def test_a_pipe_offers_nothing_and_does_not_hang(suffix, tmp_path):
    path = tmp_path / f"particles.{suffix}"
    os.mkfifo(path)
    assert offered_columns(path) == []
    assert offered_classes(path) == []
