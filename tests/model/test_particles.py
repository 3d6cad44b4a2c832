"""Particle sets: labels, concatenation, and how they show themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.cryosparc.particles_write import cs_content, write_cs_content
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.formats.relion.particles_write import star_content
from cryobridge.formats.relion.star_write import write_star
from cryobridge.model.concatenate import concatenate
from cryobridge.model.particles import CTF, ImageRefs, Labels, Optics, ParticleSet, Poses


def optics(*voltages, number=1, name=None, pixel_size_A=1.5):
    n = len(voltages)
    numbers = np.arange(number, number + n)
    names = tuple(f"opticsGroup{value}" for value in numbers) if name is None else (name,) * n
    full = np.full(n, pixel_size_A)
    return Optics(
        numbers, names, np.array(voltages, float), full * 0 + 2.7, full * 0 + 0.1, full, np.full(n, 64, np.int64)
    )


def particles(n=3, *, source="a.star", groups=None, first=0, **parts):
    groups = optics(300.0) if groups is None else groups
    images = ImageRefs(Labels(np.zeros(n, np.int32), (f"{source}.mrcs",)), np.arange(first, first + n))
    ctf = CTF(np.linspace(1e4, 2e4, n), np.linspace(1e4, 2e4, n), np.zeros(n))
    index = (np.arange(n) % len(groups)).astype(np.int32)
    return ParticleSet(n, Path(source), images=images, optics=groups, optics_index=index, ctf=ctf, **parts)


def codes(found):
    return [message.code for message in found.messages]


def test_the_same_optics_group_of_two_files_is_one_group():
    both = particles() + particles(source="b.star")
    assert len(both) == 6
    assert len(both.optics) == 1
    assert both.optics_index.tolist() == [0] * 6
    assert both.images.path.to_numpy().tolist() == ["a.star.mrcs"] * 3 + ["b.star.mrcs"] * 3
    assert both.images.index.tolist() == [0, 1, 2, 0, 1, 2]
    assert codes(both) == []


def test_groups_of_one_number_and_other_values_stay_apart():
    both = particles(groups=optics(300.0, 200.0)) + particles(source="b.star", groups=optics(120.0, 200.0))
    assert both.per_particle("voltage_kV").tolist() == [300, 200, 300, 120, 200, 120]
    # Group 1 of the second file is another one, group 2 is the same.
    assert both.optics.group_id[both.optics_index].tolist() == [1, 2, 1, 3, 2, 3]
    assert both.optics.name == ("opticsGroup1", "opticsGroup2", "opticsGroup3")
    assert codes(both) == ["optics-groups-renumbered"]


def test_groups_of_other_names_stay_apart():
    both = particles(groups=optics(300.0, name="jan")) + particles(groups=optics(300.0, name="feb"), source="b.star")
    assert both.optics.name == ("jan", "feb")
    assert len(set(both.optics.group_id.tolist())) == 2


def test_what_an_absent_column_means_is_filled_in_and_said():
    shifted = particles()
    shifted = shifted.replace(ctf=replace(shifted.ctf, phase_shift_rad=np.full(3, 0.5), scale=np.full(3, 0.9)))
    both = shifted + particles(source="b.star")
    assert both.ctf.phase_shift_rad.tolist() == [0.5, 0.5, 0.5, 0, 0, 0]
    assert both.ctf.scale.tolist() == [0.9, 0.9, 0.9, 1, 1, 1]
    assert both.ctf.bfactor_A2 is None
    assert codes(both) == ["absent-filled-in", "absent-filled-in"]


def test_what_one_of_them_does_not_know_is_left_out_and_named():
    both = particles(half_set=np.array([1, 2, 1]), uid=np.arange(3, dtype="u8")) + particles(source="b.star")
    assert both.half_set is both.uid is None
    (message,) = both.messages
    assert (message.code, message.severity) == ("columns-dropped", "warning")
    assert "half sets" in str(message) and "uid" in str(message)


def test_uids_are_kept_and_repeated_ones_are_named():
    one = particles(uid=np.array([5, 6, 2**63], "u8"))
    two = particles(uid=np.array([7, 6, 8], "u8"), source="b.star")
    both = one + two
    assert both.uid.dtype == np.uint64
    assert both.uid.tolist() == [5, 6, 2**63, 7, 6, 8]
    assert codes(both) == ["repeated-particles"]
    assert "1 particle is in it more than once, by their uid" in str(both.messages[0])
    assert codes(particles() + particles()) == ["repeated-particles"]


def test_poses_of_2d_and_3d_do_not_mix():
    flat = Poses(np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 2)), "alignments2D", is_2d=True)
    full = Poses(np.tile(np.eye(3), (3, 1, 1)), np.ones((3, 2)), "alignments3D")
    both = particles(poses=full) + particles(poses=full, source="b.star")
    assert both.poses.shift_A.shape == (6, 2) and both.poses.source == "alignments3D"
    assert (particles(poses=full) + particles(poses=flat, source="b.star")).poses is None


def test_three_sets_and_their_own_columns():
    sets = [particles(source=f"{name}.star").with_columns(score=[1.0, 2, 3], note=[name] * 3) for name in "abc"]
    both = concatenate(sets)
    assert both.columns["score"].tolist() == [1, 2, 3] * 3
    assert both.columns["note"].to_numpy().tolist() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert concatenate(sets[:1]) is sets[0]
    with pytest.raises(UsageError, match="no particle set"):
        concatenate([])


def star_file(path, **more):
    labels = {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"], "rlnOpticsGroup": [1, 1]} | more
    rows = [" ".join(str(values[row]) for values in labels.values()) for row in range(2)]
    head = "_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    head += "_rlnImagePixelSize\n_rlnImageSize\n_rlnMtfFileName\n1 jan 300 2.7 0.1 1.5 64 mtf.star\n"
    names = "\n".join(f"_{label}" for label in labels)
    path.write_text(f"data_optics\n\nloop_\n{head}\n\ndata_particles\n\nloop_\n{names}\n" + "\n".join(rows) + "\n")
    return read_particles_star(path)


def test_other_columns_of_two_star_files_are_carried_on(tmp_path):
    one = star_file(tmp_path / "a.star", rlnGroupName=["x", "y"], rlnNrOfSignificantSamples=[3, 4])
    two = star_file(tmp_path / "b.star", rlnGroupName=["z", "x"])
    both = one.take(np.array([1])) + two
    assert both.extra.read()["rlnGroupName"].to_numpy().tolist() == ["y", "z", "x"]
    assert both.extra.optics["rlnMtfFileName"].tolist() == ["mtf.star"]
    assert "rlnNrOfSignificantSamples" in " ".join(map(str, both.messages))
    write_star(tmp_path / "c.star", star_content(both).blocks)
    again = read_particles_star(tmp_path / "c.star")
    assert again.optics.name == ("jan",)
    assert "rlnNrOfSignificantSamples" not in again.extra.names


def test_labels_go_to_both_programs(tmp_path):
    labelled = particles().with_columns(class_number=[1.0, 2.0, 1.0], half_set=np.array([2, 1, 1]), myScore=[0.5, 1, 2])
    assert labelled.class_number.dtype == labelled.half_set.dtype == np.int64
    write_star(tmp_path / "a.star", star_content(labelled).blocks)
    read = read_particles_star(tmp_path / "a.star")
    assert (read.class_number.tolist(), read.half_set.tolist()) == ([1, 2, 1], [2, 1, 1])
    assert [float(text) for text in read.extra.read()["myScore"].to_numpy()] == [0.5, 1, 2]
    content = cs_content(labelled)
    write_cs_content(tmp_path / "a.cs", content, 3, "test")
    assert open_cs(tmp_path / "a.cs").read(["labels/myScore"])["labels/myScore"].tolist() == [0.5, 1, 2]
    assert "labels" not in (tmp_path / "a.csg").read_text()
    # A column of the file gives way to a new one of its name.
    renamed = read.with_columns(myScore=["a", "b", "c"])
    (block,) = (block for block in star_content(renamed).blocks if block.name == "particles")
    assert block.texts("myScore").to_pylist() == ["a", "b", "c"]


def test_labels_of_a_cs_file_stay_with_it(tmp_path):
    columns = {"uid": np.arange(2, dtype="u8"), "blob/path": Labels(np.zeros(2, np.int32), ("a.mrc",))}
    columns |= {"blob/idx": np.arange(2, dtype="u4"), "blob/psize_A": np.ones(2, "f4")}
    write_cs(tmp_path / "a.cs", columns | {"blob/shape": np.full((2, 2), 32, "u4")})
    content = cs_content(read_particles_cs(tmp_path / "a.cs").with_columns(**{"mine/cluster": [4, 5]}))
    assert content.columns["mine/cluster"].tolist() == [4, 5]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"score": [1, 2]}, "2 values for 3 particles"),
        ({"score": np.zeros((3, 2))}, "one value a particle"),
        ({"half_set": [1, 1.5, 2]}, "whole numbers are needed"),
        ({"class_posterior": ["a", "b", "c"]}, "numbers are needed"),
        ({"two words": [1, 2, 3]}, "no name for a column"),
        ({"poses": [1, 2, 3]}, "no name for a column"),
    ],
)
def test_labels_that_do_not_fit_are_refused(columns, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        particles().with_columns(**columns)
    assert caught.value.option == next(iter(columns))


def test_replaced_parts_are_checked():
    assert particles().replace(ctf=None).ctf is None
    with pytest.raises(UsageError, match="has no pose"):
        particles().replace(pose=None)
    with pytest.raises(UsageError, match="2 values for 3"):
        particles().replace(half_set=np.array([1, 2]))


def test_a_table_for_notebooks():
    table = particles(half_set=np.array([1, 2, 1])).with_columns(score=[1, 2, 3]).to_pandas()
    assert len(table) == 3
    assert table["optics.voltage_kV"].tolist() == [300.0] * 3
    assert table["images.path"].tolist() == ["a.star.mrcs"] * 3
    assert table["half_set"].tolist() == [1, 2, 1]
    assert table["score"].tolist() == [1, 2, 3]
    assert not {"class_number", "uid", "poses.rot_deg"} & set(table.columns)
    posed = particles(poses=Poses(np.tile(np.eye(3), (3, 1, 1)), np.full((3, 2), 2.0), "alignments3D")).to_pandas()
    assert posed["poses.shift_x_A"].tolist() == [2.0] * 3
    assert len(ParticleSet(0, Path("a.star")).to_pandas()) == 0


def test_a_set_shows_what_is_known_of_it():
    labelled = particles(half_set=np.array([1, 2, 1])).with_columns(score=[1, 2, 3])
    assert repr(labelled) == "ParticleSet(3 particles of 'a.star': images, optics, ctf, half_set, score)"
    shown = labelled._repr_html_()
    assert shown.startswith("<table>") and "3 particles of a.star" in shown
    assert "<td>defocus</td><td>10,000 to 20,000 Å</td>" in shown
    assert "<td>voltage</td><td>300 kV</td>" in shown
    assert "&lt;b&gt;" in particles(source="<b>")._repr_html_()
