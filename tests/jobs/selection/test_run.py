from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.jobs.selection.choose import select_files as select
from cryobridge.jobs.selection.options import OF_THE_RUN
from helpers import codes, particle_columns, run, save_cs, texts
from relion_grammar import read_block


def rows_of(path):
    labels, rows, _ = read_block(path.read_text(), "particles")
    return [dict(zip(labels, row, strict=True)) for row in rows]


def numbers_of(path):
    return [int(row["rlnImageName"].partition("@")[0]) - 1 for row in rows_of(path)]


@pytest.fixture(scope="module")
def real(reference_data):
    return reference_data / "recovar_run"


@pytest.fixture(scope="module")
def real_labels(real):
    return pickle.loads((real / "out/analysis_2/data/kmeans_result.pkl").read_bytes())["labels"]


def test_cluster_0_of_a_real_run_reaches_a_star_file_with_the_right_rows(real, real_labels, tmp_path):
    done = run(
        "select", "--run", real / "out", "--zdim", "2", "--clusters", "0", "-o", "subset.star", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    wanted = [row for row, label in enumerate(real_labels) if label == 0]
    assert numbers_of(tmp_path / "subset.star") == wanted
    report = json.loads(done.stdout)
    assert (report["rows_in"], report["rows_out"]) == (600, len(wanted))
    assert report["left_out"] == {"in other clusters than 0": 600 - len(wanted)}
    source = (real / "particles" / "particles.star").read_text()
    labels, rows, _ = read_block(source, "particles")
    for row, written in zip(wanted, rows_of(tmp_path / "subset.star"), strict=True):
        for label, text in zip(labels, rows[row], strict=True):
            same = written[label] == text if "Name" in label else float(written[label]) == float(text)
            assert same, label


def test_the_only_analysis_is_taken_without_zdim_and_the_file_of_labels_gives_the_same(real, tmp_path):
    select(None, tmp_path / "a.star", run=real / "out", clusters=(1,))
    labels = real / "out/analysis_2/data/kmeans_result.pkl"
    select(real / "particles/particles.star", tmp_path / "b.star", kmeans=labels, clusters=(1,))
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()


def test_an_analysis_that_is_named_tells_the_dimension(real, tmp_path):
    report = select(None, tmp_path / "a.star", run=real / "out/analysis_2", attach_latent=OF_THE_RUN)
    assert report.attached == ("cryobridgeLatent1", "cryobridgeLatent2")


def test_labels_and_coordinates_of_a_real_run_are_attached(real, real_labels, tmp_path):
    select(None, tmp_path / "a.star", run=real / "out", zdim=2, attach_class=OF_THE_RUN, attach_latent=OF_THE_RUN)
    z = np.load(real / "out/model/zdim_2/latent_coords.npy")
    written = rows_of(tmp_path / "a.star")
    assert [int(row["rlnClassNumber"]) for row in written] == [int(label) + 1 for label in real_labels]
    found = np.array([[float(row["cryobridgeLatent1"]), float(row["cryobridgeLatent2"])] for row in written])
    assert np.array_equal(found.astype(np.float32), z.astype(np.float32))
    select(
        real / "particles/particles.star",
        tmp_path / "b.star",
        attach_latent=real / "out/model/zdim_4/latent_coords.npy",
    )
    assert "cryobridgeLatent4" in rows_of(tmp_path / "b.star")[0]


def test_one_file_for_each_cluster_of_a_real_run(real, real_labels, tmp_path):
    select(None, None, run=real / "out", zdim=2, split_by_class=tmp_path)
    for label in (0, 1):
        wanted = [row for row, found in enumerate(real_labels) if found == label]
        assert numbers_of(tmp_path / f"particles_cluster{label:03d}.star") == wanted


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"zdim": 4, "clusters": (0,)}, "no clusters of zdim 4; the run has them of zdim 2", "recovar analyze"),
        ({"zdim": 7, "clusters": (0,)}, "no clusters of zdim 7", "zdim=2"),
        ({"attach_latent": OF_THE_RUN}, "latent coordinates of several dimensions: zdim 2, 4", "zdim=2 or zdim=4"),
        ({"clusters": (2,)}, "no cluster 2: the clusters of zdim 2 has 2", "0 to 1"),
    ],
)
def test_what_a_run_does_not_have_is_reported(real, tmp_path, options, message, hint):
    with pytest.raises(UsageError) as caught:
        select(None, tmp_path / "a.star", run=real / "out", **options)
    assert message in str(caught.value)
    assert hint in caught.value.hint


# A run that left particles out, on particles that were made from others

N, USED = 10, [1, 2, 4, 5, 8]
LABELS_OF_USED = [1, 0, 0, 1, 1]
IMAGES = [(f"J3/extract/{'ab'[row % 2]}.mrc", row) for row in range(N)]


@pytest.fixture
def project(tmp_path, real):
    """A real run's folder, cut down to rows of a smaller particle file, some of which it did not use."""
    particles = tmp_path / "small" / "particles.star"
    particles.parent.mkdir()
    rows = [f"{row + 1:06d}@particles.mrcs" for row in range(N)]
    particles.write_text("\n".join(["", "data_particles", "", "loop_", "_rlnImageName #1", *rows, "", ""]))
    lines = [f"{row + 1:06d}@particles.mrcs,{row},{stack},{index}," for row, (stack, index) in enumerate(IMAGES)]
    head = "image,source_row,source_file,source_slice,uid"
    (tmp_path / "small" / "particles_sources.csv").write_text("\n".join([head, *lines, ""]))
    out = tmp_path / "out"
    shutil.copytree(real / "out/model", out / "model", copy_function=shutil.copyfile)
    _dump(out / "model/particles_halfsets.pkl", [np.array(USED[::2]), np.array(USED[1::2])])
    (out / "model/halfsets.pkl").unlink()
    n_stored = USED[-1] + 1  # RECOVAR's arrays end with the last row that it used
    z = np.full((n_stored, 2), np.nan, np.float32)
    z[USED] = np.arange(2 * len(USED)).reshape(-1, 2)
    shutil.rmtree(out / "model/zdim_4")
    for path in (out / "model/zdim_2").iterdir():
        path.unlink()
    np.save(out / "model/zdim_2/latent_coords.npy", z)
    labels = np.zeros(n_stored, np.int64)  # rows that were left out look as if they were in cluster 0
    labels[USED] = LABELS_OF_USED
    (out / "analysis_2/data").mkdir(parents=True)
    _dump(out / "analysis_2/data/kmeans_result.pkl", {"centers": np.zeros((2, 2), np.float32), "labels": labels})
    shutil.copyfile(real / "out/analysis_2/job.json", out / "analysis_2/job.json")
    described = json.loads((real / "out/job.json").read_text())
    described["parameters"] |= {"particles": str(particles), "outdir": str(out)}
    (out / "job.json").write_text(json.dumps(described))
    return tmp_path


def _dump(path, value):
    path.write_bytes(pickle.dumps(value))


def test_rows_that_a_run_left_out_are_in_none_of_its_clusters(project):
    report = select(None, project / "a.star", run=project / "out", clusters=(0,))
    assert numbers_of(project / "a.star") == [2, 4]
    assert report.left_out == {"not in the run": 5, "in other clusters than 0": 3}
    select(None, project / "b.star", run=project / "out", clusters=(0,), invert=True)
    assert numbers_of(project / "b.star") == [1, 5, 8]


def test_a_run_alone_chooses_its_rows(project):
    select(None, project / "a.star", run=project / "out")
    assert numbers_of(project / "a.star") == USED


def test_results_reach_the_particles_that_the_runs_own_were_made_from(project):
    rng = np.random.default_rng(2)
    order = rng.permutation(N)
    columns = particle_columns([IMAGES[row][0] for row in order], [IMAGES[row][1] for row in order])
    columns["alignments3D/pose"] = np.zeros((N, 3), "f4")
    cs = save_cs(project / "J3" / "J3_particles.cs", columns)
    report = select(
        cs, project / "a.cs", run=project / "out", clusters=(1,), attach_class=OF_THE_RUN, attach_latent=OF_THE_RUN
    )
    written = np.load(project / "a.cs")
    wanted = [row for row in order if row in USED and LABELS_OF_USED[USED.index(row)] == 1]
    assert written["blob/idx"].tolist() == wanted
    assert written["alignments3D/class"].tolist() == [1] * 3
    assert written["components_mode_1/value"].tolist() == [2 * USED.index(row) + 1 for row in wanted]
    assert "the run was made from particles.star; its particles are found by image" in texts(report.notes)


def test_labels_of_a_run_that_left_rows_out_are_read_with_its_rows(project):
    # The file has as many rows as there are labels: only the run around the labels tells which of them are none.
    lines = (project / "small/particles.star").read_text().splitlines()
    (project / "small/cut.star").write_text("\n".join([*lines[:-2], "", ""]))
    assert len(rows_of(project / "small/cut.star")) == USED[-1] + 1
    labels = project / "out/analysis_2/data/kmeans_result.pkl"
    report = select(project / "small/cut.star", project / "a.star", kmeans=labels, clusters=(0,))
    assert numbers_of(project / "a.star") == [2, 4]
    assert any("used 5 of 9 rows; the others have no label" in note for note in texts(report.notes))


def test_labels_that_end_early_are_not_cut_to_fit_but_the_run_knows_its_rows(project):
    labels = project / "out/analysis_2/data/kmeans_result.pkl"
    with pytest.raises(CryobridgeError, match=r"it has 9 labels, particles\.star has 10 rows") as caught:
        select(project / "small/particles.star", project / "a.star", kmeans=labels, clusters=(0,))
    assert "run=" in caught.value.hint


def test_a_particle_file_that_was_changed_after_the_run_is_refused(project):
    path = project / "small/particles.star"
    path.write_text("\n".join(path.read_text().splitlines()[:-4]) + "\n\n")
    with pytest.raises(FormatError, match=r"latent coordinates of 9 rows, particles\.star has 7"):
        select(None, project / "a.star", run=project / "out", clusters=(0,))


def test_a_file_in_place_of_a_lost_one_must_have_as_many_rows(project):
    (project / "small/particles.star").rename(project / "renamed.star")
    with pytest.raises(MissingDataError, match="was not found"):
        select(None, project / "a.star", run=project / "out", clusters=(0,))
    with pytest.raises(FormatError, match=r"latent coordinates of 9 rows, renamed\.star has 10"):
        select(project / "renamed.star", project / "a.star", run=project / "out", clusters=(0,))
    lines = (project / "renamed.star").read_text().splitlines()
    (project / "same.star").write_text("\n".join([*lines[:-2], "", ""]))
    select(project / "same.star", project / "a.star", run=project / "out", clusters=(0,))
    assert numbers_of(project / "a.star") == [2, 4]


def test_a_run_made_from_images_alone_needs_a_particle_file(project):
    described = json.loads((project / "out/job.json").read_text())
    stack = project / "small/particles.mrcs"
    stack.write_bytes(b"x")
    described["parameters"]["particles"] = str(stack)
    (project / "out/job.json").write_text(json.dumps(described))
    with pytest.raises(MissingDataError, match=r"made from particles\.mrcs"):
        select(None, project / "a.star", run=project / "out", clusters=(0,))


def shuffled(path, real, order):
    text = (real / "particles/particles.star").read_text()
    labels, rows, _ = read_block(text, "particles")
    head = ["", "data_particles", "", "loop_", *(f"_{label} #{place}" for place, label in enumerate(labels, 1))]
    path.write_text("\n".join([*head, *(" ".join(rows[row]) for row in order), "", ""]))
    return path


@pytest.mark.parametrize("file", ["analysis_2/data/kmeans_result.pkl", "model/zdim_4/latent_coords.npy"])
def test_values_of_a_run_are_refused_for_its_particles_in_another_order(real, tmp_path, file):
    order = [1, 0, *range(2, 600)]
    star = shuffled(tmp_path / "shuffled.star", real, order)
    option = (
        {"kmeans": real / "out" / file, "clusters": (0,)}
        if "kmeans" in file
        else {"attach_latent": real / "out" / file}
    )
    with pytest.raises(CryobridgeError, match=r"2 of 600 rows of shuffled\.star are other particles") as caught:
        select(star, tmp_path / "a.star", **option)
    assert caught.value.rows == (0, 1)
    assert "run=" in caught.value.hint
    assert not (tmp_path / "a.star").exists()


def test_with_run_the_particles_may_be_in_any_order(real, real_labels, tmp_path):
    order = np.random.default_rng(0).permutation(600)[:500]
    star = shuffled(tmp_path / "shuffled.star", real, order)
    report = select(star, tmp_path / "a.star", run=real / "out", clusters=(0,))
    assert numbers_of(tmp_path / "a.star") == [row for row in order if real_labels[row] == 0]
    assert report.rows_in == 500


def test_a_copy_of_the_runs_particles_in_the_same_order_does(real, real_labels, tmp_path):
    star = shuffled(tmp_path / "copy.star", real, range(600))
    select(star, tmp_path / "a.star", kmeans=real / "out/analysis_2/data/kmeans_result.pkl", clusters=(0,))
    assert numbers_of(tmp_path / "a.star") == [row for row, label in enumerate(real_labels) if label == 0]


def test_particles_under_other_names_are_taken_in_order_and_that_is_reported(real, real_labels, tmp_path):
    star = shuffled(tmp_path / "copy.star", real, range(600))
    star.write_text(star.read_text().replace("@particles.32.mrcs", "@other.mrcs"))
    report = select(star, tmp_path / "a.star", kmeans=real / "out/analysis_2/data/kmeans_result.pkl", clusters=(0,))
    assert report.rows_out == sum(label == 0 for label in real_labels)
    assert "row-order-assumed" in codes(report.warnings)
