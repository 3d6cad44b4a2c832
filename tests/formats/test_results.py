"""Latent coordinates and classes that particles are given go into files of either program, and are read back."""

import numpy as np
import pytest
import yaml

import cryobridge as cb
from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.latent import latent_columns
from helpers import codes, particle_columns, save_cs
from relion_grammar import read_block

N = 16


@pytest.fixture(scope="module")
def project(demo_project):
    return demo_project


def results(n=N, width=3):
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, width)), rng.integers(0, 3, n), rng.permutation(n)


def labelled(path, width=3):
    """The particles of a file with results that came in another order."""
    particles = cb.read(path)
    latent, cluster, order = results(len(particles), width)
    return particles.with_columns(latent=latent[order], cluster=cluster[order], row=order)


def star_table(path):
    labels, rows, _ = read_block(path.read_text(), "particles")
    return {label: [row[place] for row in rows] for place, label in enumerate(labels)}


@pytest.mark.parametrize("source", ["particles_cs", "extracted_star", "classification"])
@pytest.mark.parametrize("output", ["out.cs", "out.star"])
def test_what_was_written_is_read_back(project, tmp_path, source, output):
    given = labelled(getattr(project, source))
    report = cb.write(given, tmp_path / output)
    assert not {"latent coordinates", "cryobridgeLatent1", "components_mode_0/value"} & set(
        getattr(report, "dropped_columns", ())
    )
    found = cb.read(tmp_path / output)
    assert found.images.index.tolist() == given.images.index.tolist()
    latent, cluster, _ = results()
    np.testing.assert_allclose(found.latent, latent, rtol=1e-6)
    if given.poses is not None or output == "out.star":  # beside which cryoSPARC has classes
        assert found.cluster.tolist() == cluster.tolist()


def test_a_star_file_has_all_of_its_columns_and_the_results(project, tmp_path):
    own = star_table(project.extracted_star)
    cb.write(labelled(project.extracted_star), tmp_path / "out.star")
    found = star_table(tmp_path / "out.star")
    latent, cluster, _ = results()
    assert {name: found[name] for name in own} == own  # to the letter
    assert [float(text) for text in found["cryobridgeLatent3"]] == latent[:, 2].tolist()
    assert [int(text) for text in found["rlnClassNumber"]] == (cluster + 1).tolist()
    # Optics groups and other blocks are those of the file too.
    head = project.extracted_star.read_text().partition("data_particles")[0].split()
    assert (tmp_path / "out.star").read_text().partition("data_particles")[0].split()[-len(head) :] == head


def test_a_cs_file_has_all_of_its_columns_and_the_results(project, tmp_path):
    files = cb.write(labelled(project.particles_cs), tmp_path / "out.cs").outputs
    assert [path.name for path in files] == ["out.cs", "out_passthrough.cs", "out.csg"]
    own, found = np.load(project.particles_cs), np.load(tmp_path / "out.cs")
    latent, cluster, _ = results()
    changed = {"alignments3D/class", "alignments3D/class_posterior", "blob/path"}
    for name in set(own.dtype.names) - changed:
        assert found[name].tobytes() == own[name].tobytes(), name
    assert found["alignments3D/class"].tolist() == cluster.tolist()
    assert found["alignments3D/class_posterior"].tolist() == [1] * N
    groups = yaml.safe_load((tmp_path / "out.csg").read_text())["results"]
    for mode in range(3):
        assert found[f"components_mode_{mode}/value"].tolist() == latent[:, mode].astype("f4").tolist()
        assert found[f"components_mode_{mode}/component"].tolist() == [mode] * N
        assert groups[f"components_mode_{mode}"] == {
            "metafile": ">out.cs",
            "num_items": N,
            "type": "particle.components",
        }
    # The group and its files are one input.
    assert cb.read(tmp_path / "out.csg").cluster.tolist() == cluster.tolist()


def test_fewer_coordinates_take_the_place_of_more(project, tmp_path):
    for source, suffix in (("particles_cs", ".cs"), ("extracted_star", ".star")):
        first = tmp_path / f"three{suffix}"
        cb.write(labelled(getattr(project, source)), first)
        second = cb.read(first).with_columns(latent=np.arange(N))
        for name, given in (("as_read", second), ("by_model", second.replace(half_set=None))):
            cb.write(given, tmp_path / f"{name}{suffix}")
            assert cb.read(tmp_path / f"{name}{suffix}").latent.tolist() == [[each] for each in range(N)], name
            assert cb.open_table(tmp_path / f"{name}{suffix}").names.count("cryobridgeLatent2") == 0
            assert "components_mode_1/value" not in cb.open_table(tmp_path / f"{name}{suffix}")
    assert "components_mode_1" not in (tmp_path / "as_read.csg").read_text()


def test_some_of_the_labelled_particles_keep_their_own_results(project, tmp_path):
    given = labelled(project.particles_cs)
    latent, cluster, _ = results()
    rows = np.flatnonzero(cluster == 1)[::-1]
    cb.write(given.take(rows), tmp_path / "one.cs")
    found = cb.read(tmp_path / "one.cs")
    assert found.uid.tolist() == given.uid[rows].tolist() and set(found.cluster.tolist()) == {1}
    np.testing.assert_allclose(found.latent, latent[rows], rtol=1e-6)
    # Conditions see them, as columns of the program.
    assert cb.select(given, where="components_mode_0/value > 0").uid.tolist() == given.uid[latent[:, 0] > 0].tolist()
    assert cb.select(given, classes=(1,)).uid.tolist() == given.uid[cluster == 1].tolist()


def test_both_programs_results_agree_through_a_convert_of_files(project, tmp_path):
    cb.write(labelled(project.particles_cs), tmp_path / "a.cs")
    report = cb.convert(tmp_path / "a.cs", tmp_path / "b.star", verify=True)
    assert {item.quantity: item.is_good for item in report.verified}["latent coordinates"]
    report = cb.convert(tmp_path / "b.star", tmp_path / "c.cs", verify=True)
    assert all(item.is_good for item in report.verified)
    latent, cluster, _ = results()
    found = cb.read(tmp_path / "c.cs")
    np.testing.assert_array_equal(found.latent, latent.astype("f4"))
    assert found.cluster.tolist() == cluster.tolist()
    report = cb.convert(tmp_path / "b.star", tmp_path / "pickles", to="pickles")
    assert "cryobridgeLatent1" in report.dropped_columns


def test_results_go_onto_a_file_of_the_other_program_by_image(project, tmp_path):
    given = labelled(project.particles_cs)
    cb.write(given.take(np.arange(N)[::-1]), tmp_path / "base.star")
    base = cb.read(tmp_path / "base.star").replace(latent=None, class_number=None)
    cb.write(base, tmp_path / "plain.star")
    own = star_table(tmp_path / "plain.star")
    report = cb.write(
        given, tmp_path / "out.star", onto=tmp_path / "plain.star", take=("latent", "classes"), verify=True
    )
    assert report.onto.take == ("latent", "classes") and all(item.is_good for item in report.verified)
    assert "latent coordinates" in {item.quantity for item in report.verified}
    found = star_table(tmp_path / "out.star")
    latent, cluster, _ = results()
    assert {name: found[name] for name in own} == own
    np.testing.assert_allclose([float(text) for text in found["cryobridgeLatent1"]], latent[::-1, 0], rtol=1e-6)
    assert [int(text) - 1 for text in found["rlnClassNumber"]] == cluster[::-1].tolist()
    # Rows of which nothing is known have no coordinates that could be written.
    with pytest.raises(cb.CryobridgeError, match="no latent coordinates, for which there is no word"):
        cb.write(
            given.take(np.arange(4)),
            tmp_path / "x.star",
            onto=tmp_path / "plain.star",
            take=("latent",),
            unmatched="keep",
        )
    # Of a .cs file with more of them all are replaced.
    cb.write(labelled(project.particles_cs, width=4), tmp_path / "four.cs")
    cb.write(cb.read(tmp_path / "out.star"), tmp_path / "out.cs", onto=tmp_path / "four.cs", take=("latent",))
    np.testing.assert_allclose(cb.read(tmp_path / "out.cs").latent, latent, rtol=1e-6)


def test_a_class_needs_a_group_of_poses_in_a_cs_file(tmp_path):
    path = save_cs(tmp_path / "a.cs", particle_columns(["J1/a.mrc"] * 3, range(3)))
    given = cb.read(path).with_columns(cluster=[0, 1, 1], latent=[1, 2, 3])
    with pytest.raises(MissingDataError, match="no alignments3D or alignments2D group") as caught:
        cb.write(given, tmp_path / "b.cs")
    assert "one file a class" in caught.value.hint
    assert not (tmp_path / "b.cs").exists()
    for cluster in (0, 1):
        cb.write(cb.read(path).take(given.cluster == cluster), tmp_path / f"cluster{cluster}.cs")
    assert len(cb.read(tmp_path / "cluster1.cs")) == 2
    assert cb.select(given, where="components_mode_0/value > 1").cluster.tolist() == [1, 1]
    # RELION needs none, and of its particles the same is said where they go to cryoSPARC.
    cb.write(given, tmp_path / "b.star")
    assert cb.read(tmp_path / "b.star").cluster.tolist() == [0, 1, 1]
    report = cb.convert(tmp_path / "b.star", tmp_path / "c.cs")
    assert "classes-left-out" in codes(report.warnings) and "rlnClassNumber" in report.dropped_columns


def test_of_poses_of_several_classes_the_chosen_ones_come_with_the_new_class(tmp_path):
    columns = particle_columns(["J1/a.mrc"] * 3, range(3))
    for number in (0, 1):
        group = f"alignments_class_{number}"
        columns |= {
            f"{group}/pose": np.full((3, 3), number + 0.5, "f4"),
            f"{group}/shift": np.zeros((3, 2), "f4"),
            f"{group}/psize_A": np.full(3, 3.0, "f4"),
            f"{group}/class": np.full(3, number, "u4"),
            f"{group}/class_posterior": np.array([0.9, 0.2, 0.3], "f4") if number else np.array([0.1, 0.8, 0.7], "f4"),
        }
    given = cb.read(save_cs(tmp_path / "a.cs", columns)).with_columns(cluster=[4, 5, 6], latent=[1, 2, 3])
    cb.write(given, tmp_path / "b.cs")
    found = open_cs(tmp_path / "b.cs").read(["alignments3D/class", "alignments3D/pose", "components_mode_0/value"])
    assert found["alignments3D/class"].tolist() == [4, 5, 6] and found["components_mode_0/value"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(found["alignments3D/pose"][:, 0], [1.5, 0.5, 0.5], atol=1e-6)


def test_probabilities_are_written_where_they_say_something(tmp_path):
    columns = particle_columns(["J1/a.mrc"] * 3, range(3))
    columns |= {"alignments3D/pose": np.ones((3, 3), "f4"), "alignments3D/shift": np.zeros((3, 2), "f4")}
    particles = cb.read(save_cs(tmp_path / "a.cs", columns | {"alignments3D/psize_A": np.ones(3, "f4")}))
    for posterior, is_there in (([1, 1, 1], False), ([0.5, 1, 1], True)):
        cb.write(
            particles.with_columns(cluster=[0, 1, 1], class_posterior=posterior), tmp_path / "b.cs", overwrite=True
        )
        assert ("alignments3D/class_posterior" in open_cs(tmp_path / "b.cs")) == is_there


def test_labels_of_ones_own_are_no_group_that_cryosparc_would_look_for(project, tmp_path):
    given = cb.read(project.particles_cs).with_columns(score=np.arange(N), note=["a"] * N)
    for name, particles in (("as_read", given), ("by_model", given.replace(half_set=None))):
        cb.write(particles, tmp_path / f"{name}.cs")
        assert open_cs(tmp_path / f"{name}.cs").read(["labels/score"])["labels/score"].tolist() == list(range(N))
        assert "labels" not in (tmp_path / f"{name}.csg").read_text()


def test_modes_that_are_not_all_there_are_carried_as_they_are(project, tmp_path):
    columns = {name: np.load(project.particles_cs)[name] for name in np.load(project.particles_cs).dtype.names}
    columns |= {f"components_mode_{mode}/value": np.full(N, mode, "f4") for mode in (0, 2)}
    write_cs(tmp_path / "odd.cs", columns)
    odd = cb.read(tmp_path / "odd.cs")
    assert odd.latent is None
    cb.write(odd.replace(half_set=None), tmp_path / "out.cs")
    assert {"components_mode_0/value", "components_mode_2/value"} <= set(open_cs(tmp_path / "out.cs").names)
    given = odd.with_columns(latent=np.ones((N, 1)))
    for name, particles in (("as_read", given), ("by_model", given.replace(half_set=None))):
        cb.write(particles, tmp_path / f"{name}.cs")
        assert "components_mode_2/value" not in open_cs(tmp_path / f"{name}.cs")


def test_columns_are_in_the_order_of_their_numbers():
    latent = np.arange(24.0).reshape(2, 12)
    for program, name in (("relion", "cryobridgeLatent12"), ("cryosparc", "components_mode_11/value")):
        assert latent_columns(latent, program)[name].tolist() == [11, 23]
