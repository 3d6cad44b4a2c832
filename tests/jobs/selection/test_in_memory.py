"""Selecting from Python: a particle set comes back, from a file or from another set."""

import inspect
import pickle
from dataclasses import replace

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.open import open_particles
from cryobridge.jobs.convert.write import write
from cryobridge.jobs.selection.choose import select, select_files
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.model.particles import ParticleSet
from helpers import codes, particle_columns, save_cs, save_star

N = 8
CLASSES = [0, 1, 2, 0, 1, 2, 0, 1]  # as cryoSPARC counts


@pytest.fixture
def cs(tmp_path):
    columns = particle_columns(["J1/a.mrc"] * N, range(N)) | {
        "alignments3D/pose": np.linspace(-1, 1, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/class": np.array(CLASSES, "u4"),
        "my/score": np.arange(N, dtype="f4"),
    }
    return save_cs(tmp_path / "J5" / "J5_003_particles.cs", columns)


@pytest.fixture
def star(tmp_path):
    columns = {"rlnImageName": [f"{row + 1:06d}@J1/a.mrcs" for row in range(N)], "rlnDefocusU": range(1000, 1000 + N)}
    columns |= {"rlnDefocusV": [900] * N, "rlnDefocusAngle": [0] * N, "myScore": range(N)}
    return save_star(tmp_path / "a.star", "particles", columns | {"rlnClassNumber": [k + 1 for k in CLASSES]})


def rows_of(particles):
    return particles.images.index.tolist()


def test_a_choice_from_a_file_is_a_set_of_the_chosen_particles(cs, star):
    found = select(cs, where="my/score > 2", classes=(0,))
    assert isinstance(found, ParticleSet)
    assert rows_of(found) == [3, 6]
    assert found.uid.tolist() == open_particles(cs).uid()[[3, 6]].tolist()
    assert "classes-taken" in codes(found.messages)
    assert rows_of(select(str(star), where="rlnDefocusU >= 1005")) == [5, 6, 7]


@pytest.mark.parametrize("source", ["cs", "star"])
def test_a_choice_from_a_choice_sees_its_own_rows_and_columns(request, source):
    path = request.getfixturevalue(source)
    condition = {"cs": "my/score {}", "star": "myScore {}"}[source]
    some = select(path, where=condition.format("> 1"))
    assert rows_of(select(some, where=condition.format("!= 4"))) == [2, 3, 5, 6, 7]
    assert rows_of(select(some, rows=np.array([4, 0]))) == [2, 6]
    # Classes are counted as the program of the file does, in memory too.
    assert rows_of(select(some, classes=(2,))) == ([2, 5] if source == "cs" else [4, 7])
    assert rows_of(select(some, where=condition.format("< 4"), invert=True)) == [4, 5, 6, 7]
    drawn = select(some, random=3, seed=5)
    assert len(drawn) == 3
    assert rows_of(drawn) == rows_of(select(some, random=3, seed=5))


def test_particles_of_two_programs_are_matched_in_memory(cs, star):
    of_relion = select(star, where="myScore in (2, 5, 7)")
    for given in (cs, select(cs, where="uid > 0")):
        assert rows_of(select(given, like=of_relion)) == [2, 5, 7]
    assert rows_of(select(of_relion, like=cs)) == [2, 5, 7]


def test_attached_labels_are_the_classes_of_the_set(cs, tmp_path):
    labels = tmp_path / "labels.pkl"
    labels.write_bytes(pickle.dumps(np.array([3, 1, -1, 0, 0, 1, 2, 3])))
    found = select(cs, attach_class=labels)
    assert rows_of(found) == [0, 1, 3, 4, 5, 6, 7]
    assert found.class_number.tolist() == [4, 2, 1, 1, 2, 3, 4]


def test_with_an_output_the_file_has_the_same_rows(cs, tmp_path):
    found = select(cs, classes=[1], output=tmp_path / "b.cs")
    again = select(tmp_path / "b.cs", where="uid > 0")
    assert rows_of(found) == rows_of(again) == [1, 4, 7]
    assert found.uid.tolist() == again.uid.tolist()
    report = select_files(cs, tmp_path / "c.cs", rows=[6, 2], dry_run=True)
    assert (report.rows_out, report.dry_run, report.left_out) == (2, True, {"not in the list": 6})
    assert codes(report.notes) == ["rows-sorted"]
    assert not (tmp_path / "c.cs").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "nothing is asked for"),
        ({"rows": [0, N]}, CryobridgeError, f"row {N} .* is asked for"),
        ({"rows": [1, 1]}, CryobridgeError, "row 1 stands 2 times"),
        ({"rows": [0.5]}, CryobridgeError, "rows: .*whole numbers"),
        ({"rows": 3.5}, UsageError, "rows: row numbers are needed, not 3.5"),
        ({"like": 7}, UsageError, "like: a path is needed, not int"),
        ({"classes": (9,)}, MissingDataError, "no particle is of class 9"),
        ({"classes": (-1,)}, UsageError, "classes: -1 is out of range"),
        ({"clases": (1,)}, UsageError, "clases: there is no such option"),
        ({"rows": [0], "split_by_class": "d"}, UsageError, "split_by_class: "),
        ({"rows": [0], "attach_latent": "z.npy"}, UsageError, "attach_latent: "),
        ({"where": "absent > 1"}, CryobridgeError, "absent"),
    ],
)
def test_what_can_not_be_chosen_by_is_an_error_that_names_it(cs, options, error, message):
    for given in (cs, select(cs, where="uid > 0")):
        with pytest.raises(error, match=message):
            select(given, **options)


def test_a_set_that_is_as_it_was_read_is_written_with_all_columns(cs, tmp_path):
    some = select(cs, where="my/score > 2")
    select(some, classes=(0,), output=tmp_path / "b.cs")
    assert np.load(tmp_path / "b.cs")["my/score"].tolist() == [3, 6]
    with pytest.raises(OutputExistsError):
        select(some, classes=(1,), output=tmp_path / "b.cs")
    with pytest.raises(UsageError, match="the output is one of the inputs"):
        select(some, classes=(1,), output=cs, overwrite=True)
    with pytest.raises(UsageError, match="the output is one of the inputs"):
        write(some, cs, overwrite=True)
    with pytest.raises(OutputExistsError):
        write(some, tmp_path / "b.cs")
    with pytest.raises(UsageError, match="not those of a file any more"):
        select(replace(some, class_number=some.class_number + 1), rows=[0], output=tmp_path / "c.cs")


def test_what_is_missing_is_named():
    with pytest.raises(UsageError, match="no particle file is named"):
        select(rows=[0])
    assert SelectOptions(rows="ind.pkl").files[0].name == "ind.pkl"


def test_the_help_of_the_function_lists_its_options():
    assert "``where``: Keep rows that fulfil this, such as" in select.__doc__
    assert "classes" in inspect.signature(select_files).parameters
