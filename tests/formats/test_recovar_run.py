from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from functools import partial

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, UnsafeFileError, UsageError
from cryobridge.formats.recovar import open_recovar
from cryobridge.formats.recovar.clusters import read_clusters
from helpers import texts
from recovar_runs import CENTERS, simulate_run, write_analysis, write_job, write_pickle

LAYOUTS = ["documented", "older"]


@pytest.fixture(params=LAYOUTS)
def simulated(tmp_path, request):
    return simulate_run(tmp_path / "project", request.param)


@pytest.fixture
def documented(tmp_path):
    return simulate_run(tmp_path / "project")


def plain(path):
    # The reference data hold numpy arrays only.
    return pickle.loads(path.read_bytes())


# The real run


@pytest.fixture(scope="module")
def real(reference_data):
    return open_recovar(reference_data / "recovar_run" / "out")


def test_the_real_run_has_the_arrays_that_recovar_wrote(real, reference_data):
    out = reference_data / "recovar_run" / "out"
    assert real.zdims == (2, 4)
    assert real.rows.tolist() == list(range(600))
    assert real.rows.dtype == np.int64
    for zdim in (2, 4):
        folder = out / "model" / f"zdim_{zdim}"
        np.testing.assert_array_equal(real.latent(zdim), np.load(folder / "latent_coords.npy"))
        noreg = np.load(folder / "latent_coords_noreg.npy")
        np.testing.assert_array_equal(real.latent(zdim, regularised=False), noreg)
        np.testing.assert_array_equal(real.precision(zdim), np.load(folder / "latent_precision.npy"))
        np.testing.assert_array_equal(real.contrasts(zdim), np.load(folder / "contrasts.npy"))
    result, theirs = real.kmeans(2), plain(out / "analysis_2" / "data" / "kmeans_result.pkl")
    np.testing.assert_array_equal(result.labels, theirs["labels"])
    np.testing.assert_array_equal(result.centers, np.loadtxt(out / "analysis_2" / "kmeans" / "centers.txt"))
    umap = plain(out / "analysis_2" / "plots" / "umap" / "umap_embedding.pkl")
    np.testing.assert_array_equal(real.umap(2), umap)
    assert len(real.eigenvalues) == 50


def test_rows_of_the_real_run_are_those_of_its_particle_file(real, reference_data):
    # The simulation gave each image of the file a contrast, and the first coordinate follows it.
    truth = plain(reference_data / "recovar_run" / "particles" / "simulation_info.pkl")["per_image_contrast"]
    first = real.latent(2)[:, 0]
    assert np.corrcoef(truth[real.rows], first)[0, 1] > 0.7
    # It would not if the half sets came one after the other.
    halves = plain(reference_data / "recovar_run" / "out" / "model" / "particles_halfsets.pkl")
    assert abs(np.corrcoef(truth[np.concatenate(halves)], first)[0, 1]) < 0.2


def test_the_particle_file_of_the_real_run_is_found_beside_it_and_that_is_said(real, reference_data):
    assert real.particles_file == reference_data / "recovar_run" / "particles" / "particles.star"
    assert real.particles.name == "/data/proj/ds/test_dataset/particles.star"
    (note,) = texts(real.messages)
    assert real.particles.name in note
    assert str(real.particles_file) in note


@pytest.mark.parametrize("part", ["analysis_2", "Density"])
def test_a_part_of_the_real_run_opens_the_run(reference_data, real, part):
    run = open_recovar(reference_data / "recovar_run" / "out" / part)
    assert run.path.resolve() == real.path.resolve()
    assert run.rows.size == 600
    assert [analysis.path.name for analysis in run.analyses] == ["analysis_2"]
    assert [density.path.name for density in run.densities] == ["Density"]
    assert np.bincount(run.kmeans(2).labels).tolist() == [273, 327]


def test_maps_of_the_real_run_are_opened_when_they_are_asked_for(real):
    mean = next(volume for volume in real.volumes if volume.kind == "mean")
    images = mean.open().images
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, mrcfile.read(mean.path))
    (analysis,) = real.analyses
    assert {volume.open().images.shape for volume in analysis.center_volumes} == {(32, 32, 32)}


def test_the_centers_and_states_of_the_real_run_are_one_map_each(real):
    (analysis,) = real.analyses
    assert [volume.path.name for volume in analysis.centers] == ["center000.mrc", "center001.mrc"]
    (trajectory,) = analysis.trajectories
    assert [volume.path.name for volume in trajectory.maps] == ["state000.mrc", "state001.mrc"]
    # Half maps and unfiltered maps come with each.
    assert (len(analysis.center_volumes), len(trajectory.volumes)) == (8, 8)


def test_the_density_of_the_real_run_comes_with_its_axes(real, reference_data):
    (density,) = real.densities
    theirs = plain(reference_data / "recovar_run" / "out" / "Density" / "data" / "deconv_density_knee.pkl")
    grid = density.knee.open()
    np.testing.assert_array_equal(grid.density, theirs["density"])
    for axis, (low, high) in zip(grid.axes, theirs["latent_space_bounds"], strict=True):
        np.testing.assert_allclose(axis, low + (high - low) * np.arange(20) / 19, rtol=1e-12, atol=1e-9)
    # RECOVAR's picture of the L curve marks number 4.
    assert (density.knee_index, grid.alpha, density.zdim) == (4, 0.001, 4)


def test_trajectories_of_the_real_run_lead_from_center_to_center(real):
    ((trajectory,),) = (analysis.trajectories for analysis in real.analyses)
    assert (trajectory.ends, trajectory.n_states) == ((0, 1), 2)
    # The path begins and ends at the points of RECOVAR's grid that are nearest to the centers.
    states, centers = trajectory.states(), real.kmeans(2).centers
    assert np.linalg.norm(states - centers, axis=1).max() < 0.05 * np.linalg.norm(centers[0] - centers[1])


# Simulated runs


def test_all_arrays_are_in_the_order_of_the_rows(simulated):
    run = open_recovar(simulated.out)
    assert run.zdims == (2, 4)
    assert run.rows.tolist() == simulated.rows.tolist()
    np.testing.assert_array_equal(run.latent(2), simulated.coords)
    np.testing.assert_array_equal(run.latent(4)[:, 2:], simulated.coords + 100)
    np.testing.assert_array_equal(run.latent(2, regularised=False), simulated.coords + 7)
    np.testing.assert_array_equal(run.precision(2)[:, 1, 1], simulated.rows)
    np.testing.assert_allclose(run.contrasts(2), simulated.rows / 10, rtol=1e-6)
    result = run.kmeans(2)
    assert result.labels.tolist() == simulated.labels.tolist()
    np.testing.assert_array_equal(result.centers, CENTERS)
    np.testing.assert_array_equal(run.umap(2)[:, 1], 2 * simulated.rows)


@pytest.mark.parametrize("hole", ["x86", "arm"])
def test_labels_of_rows_that_the_run_left_out_are_never_taken(tmp_path, hole):
    simulated = simulate_run(tmp_path / "project", hole=hole)
    result = open_recovar(simulated.analysis).kmeans(2)
    assert result.labels.tolist() == simulated.labels.tolist()
    assert open_recovar(simulated.out).analyses[0].populations == (4, 4, 4)


@given(rows=st.sets(st.integers(0, 29), min_size=3).map(sorted))
@settings(max_examples=15)
def test_any_choice_of_rows_is_found_again(tmp_path_factory, rows):
    simulated = simulate_run(tmp_path_factory.mktemp("run") / "project", rows=rows)
    run = open_recovar(simulated.out)
    assert run.rows.tolist() == rows
    np.testing.assert_array_equal(run.latent(2), simulated.coords)
    assert run.kmeans(2).labels.tolist() == simulated.labels.tolist()


def test_the_older_layout_has_its_densities_and_maps(tmp_path):
    run = open_recovar(simulate_run(tmp_path / "project", "older").out)
    assert (run.analyses[0].layout, run.densities[0].layout) == ("older", "older")
    assert run.densities[0].knee.open().axes[1].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert [volume.index for volume in run.analyses[0].centers] == [0, 1, 2]


def test_without_half_sets_the_finite_coordinates_tell_the_rows_and_it_is_said(simulated):
    for path in (simulated.out / "model").glob("*halfsets.pkl"):
        path.unlink()
    run = open_recovar(simulated.out)
    assert run.rows.tolist() == simulated.rows.tolist()
    assert any("no half sets" in note for note in texts(run.messages))


@pytest.mark.parametrize(
    ("halves", "row"), [(([1, 2], [3]), 5), ((np.r_[:26], [26, 27]), 26)], ids=["too few rows", "rows beyond the end"]
)
def test_half_sets_of_another_run_are_refused(documented, halves, row):
    path = documented.out / "model" / "particles_halfsets.pkl"
    write_pickle(path, [np.asarray(half) for half in halves])
    run = open_recovar(documented.out)
    with pytest.raises(FormatError, match="different particles") as caught:
        run.rows  # noqa: B018
    assert row in caught.value.rows
    assert caught.value.hint


def test_particles_without_coordinates_are_counted(documented):
    path = documented.out / "model" / "zdim_2" / "latent_coords.npy"
    coords = np.load(path)
    coords[documented.rows[0]] = np.nan
    np.save(path, coords)
    run = open_recovar(documented.out)
    assert run.rows.size == 12
    assert "1 of the run's 12 particles has no latent coordinates" in texts(run.messages)


def test_labels_of_another_run_are_refused(documented):
    rows = np.arange(10)
    shutil.rmtree(documented.analysis)
    write_analysis(documented.analysis, "documented", rows, rows % 3, "x86")
    with pytest.raises(FormatError, match="10 labels, but 26 latent coordinates"):
        open_recovar(documented.out).kmeans(2)


def test_a_label_without_a_center_is_refused(documented):
    labels = np.zeros(26, np.int64)
    labels[8] = 3
    path = write_pickle(documented.analysis / "data" / "kmeans_result.pkl", {"centers": CENTERS, "labels": labels})
    for rows in (None, documented.rows):
        with pytest.raises(FormatError, match="none of the 3 centers") as caught:
            read_clusters(path, rows)
        assert caught.value.rows == (8,)


def test_a_particle_of_the_run_without_a_label_is_refused(documented):
    path = documented.analysis / "data" / "kmeans_result.pkl"
    write_pickle(path, {"centers": CENTERS, "labels": np.where(np.arange(26) == 12, np.nan, 1.0)})
    with pytest.raises(FormatError) as caught:
        read_clusters(path, documented.rows)
    assert caught.value.rows == (12,)
    assert read_clusters(path).labels[12] == -1


def test_centers_that_are_no_numbers_are_read_without_a_warning(documented):
    centers = np.full(CENTERS.shape, 0x7F800001, np.uint32).view(np.float32)  # NaN that signals
    path = documented.analysis / "data" / "kmeans_result.pkl"
    write_pickle(path, {"centers": centers, "labels": np.zeros(26, np.int64)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(read_clusters(path).centers).all()


def test_fractional_labels_are_refused(documented):
    path = documented.analysis / "data" / "kmeans_result.pkl"
    write_pickle(path, {"centers": CENTERS, "labels": np.full(26, 0.5)})
    with pytest.raises(FormatError, match="none of the 3 centers"):
        read_clusters(path, documented.rows)


def test_of_several_analyses_the_one_that_is_opened_is_meant(documented):
    second = documented.out / "Analyze"
    write_analysis(second, "documented", documented.rows, 2 - documented.labels, "x86")
    with pytest.raises(UsageError, match="2 analyses of zdim 2: Analyze, analysis_2"):
        open_recovar(documented.out).kmeans(2)
    assert open_recovar(second).kmeans(2).labels.tolist() == (2 - documented.labels).tolist()
    assert open_recovar(documented.analysis).kmeans(2).labels.tolist() == documented.labels.tolist()
    run = open_recovar(documented.out)
    first, other = (run.kmeans(analysis).labels for analysis in run.analyses)
    assert (first + other == 2).all()


def test_an_analysis_without_regularisation_is_passed_over_unless_it_is_opened(documented):
    second = documented.out / "analysis_2_noreg"
    write_analysis(second, "documented", documented.rows, 2 - documented.labels, "x86")
    assert open_recovar(documented.out).analysis(2).path == documented.analysis
    assert open_recovar(second).analysis(2).path == second


@pytest.mark.parametrize("zdim", [3, 4])
def test_what_the_run_does_not_have_is_reported_with_a_remedy(documented, zdim):
    run = open_recovar(documented.out)
    with pytest.raises(MissingDataError, match=f"no analysis of zdim {zdim}") as caught:
        run.kmeans(zdim)
    assert f"--zdim {zdim}" in caught.value.hint
    with pytest.raises(MissingDataError, match="latent_coords of zdim 3") as caught:
        run.latent(3)
    assert "zdim 2, 4" in caught.value.hint


def test_a_run_that_has_not_come_to_coordinates_says_so(documented):
    for folder in (documented.out / "model").glob("zdim_*"):
        shutil.rmtree(folder)
    run = open_recovar(documented.out)
    assert run.zdims == ()
    with pytest.raises(MissingDataError, match="no latent coordinates"):
        run.rows  # noqa: B018


def test_rows_of_tilt_series_are_refused(documented):
    write_job(documented.out, "pipeline", {"particles": "x.star", "tilt_series": True})
    run = open_recovar(documented.out)
    with pytest.raises(UsageError, match="tilt series"):
        run.rows  # noqa: B018
    assert run.latent(2).shape == (12, 2)


def test_an_analysis_without_its_pipeline_is_refused_with_a_hint(documented, tmp_path):
    alone = shutil.copytree(documented.analysis, tmp_path / "elsewhere" / "deep" / "analysis_2")
    with pytest.raises(FormatError, match="analysis") as caught:
        open_recovar(alone)
    assert caught.value.hint
    provenance = {"provenance": {"pipeline_result_dir": str(documented.out)}}
    write_job(alone, "analyze", {"zdim": 2}, **provenance)
    assert open_recovar(alone).kmeans(2).labels.tolist() == documented.labels.tolist()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_run(documented, tmp_path):
    marker = tmp_path / "ran"
    trap = Trap(marker)
    write_pickle(documented.out / "model" / "params.pkl", {"s": np.arange(3.0), "trap": trap})
    write_pickle(documented.analysis / "data" / "kmeans_result.pkl", {"centers": trap, "labels": trap})
    write_pickle(documented.analysis / "plots" / "umap" / "umap_embedding.pkl", trap)
    run = open_recovar(documented.out)
    assert run.eigenvalues.tolist() == [0, 1, 2]
    for read in (run.kmeans, run.umap):
        with pytest.raises(UnsafeFileError):
            read(2)
    assert not marker.exists()


def test_no_old_embeddings_are_run(tmp_path):
    simulated = simulate_run(tmp_path / "project", "older")
    path, marker = simulated.out / "model" / "embeddings.pkl", tmp_path / "ran"
    write_pickle(path, {**pickle.loads(path.read_bytes()), "cov_zs": Trap(marker)})
    run = open_recovar(simulated.out)
    np.testing.assert_array_equal(run.latent(2), simulated.coords)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["latent_coords.npy", "kmeans_result.pkl", "deconv_density_knee.pkl", "latent_coords.txt"]
)
def test_broken_files_are_errors_and_no_crashes(documented, name):
    run = open_recovar(documented.out)
    readers = {
        "latent_coords.npy": partial(run.latent, 2),
        "kmeans_result.pkl": partial(run.kmeans, 2),
        "deconv_density_knee.pkl": run.densities[0].knee.open,
        "latent_coords.txt": run.analyses[0].trajectories[0].states,
    }
    for path in documented.out.rglob(name):
        path.write_bytes(b"1 2\n3" if name.endswith(".txt") else path.read_bytes()[:-7])
    with pytest.raises(CryobridgeError) as caught:
        readers[name]()
    assert name in str(caught.value)


def test_importing_the_package_costs_nothing():
    code = (
        "import sys, cryobridge.formats.recovar as r; assert not {'numpy', 'torch'} & set(sys.modules); r.open_recovar"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_neither_recovar_nor_jax_is_asked_for(documented):
    code = (
        "import sys; sys.modules['recovar'] = sys.modules['jax'] = None\n"
        "from cryobridge.formats.recovar import open_recovar\n"
        f"assert open_recovar({str(documented.out)!r}).kmeans(2).labels.size == 12"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# The particle file


def move(folder, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    return target


def test_a_particle_file_where_it_is_said_to_be_is_taken_without_a_note(documented):
    run = open_recovar(documented.out)
    assert run.particles_file == documented.particles
    assert run.messages == ()


def test_a_particle_file_is_found_after_the_whole_project_moved(documented, tmp_path):
    moved = move(tmp_path / "project", tmp_path / "archive" / "2026" / "project")
    run = open_recovar(moved / "jobs" / "out")
    assert run.particles_file == moved / "particles" / "particles.star"
    assert str(documented.particles) in texts(run.messages)[0]


def test_a_relative_name_is_looked_for_in_the_folders_above_the_result(documented, monkeypatch, tmp_path):
    write_job(documented.out, "pipeline", {"particles": "particles/particles.star"})
    other = tmp_path / "cwd" / "particles" / "particles.star"
    other.parent.mkdir(parents=True)
    shutil.copy(documented.particles, other)
    monkeypatch.chdir(tmp_path / "cwd")
    run = open_recovar(documented.out)
    assert run.particles_file == documented.particles
    assert str(documented.particles) in texts(run.messages)[0]


def test_of_two_files_of_the_name_none_is_taken(documented, tmp_path):
    write_job(documented.out, "pipeline", {"particles": "/nowhere/x/particles.star"})
    for name in ("a", "b"):
        folder = documented.out.parent / name
        folder.mkdir()
        shutil.copy(documented.particles, folder)
    run = open_recovar(documented.out)
    assert run.particles_file is None
    assert "none was taken" in texts(run.messages)[0]


def test_images_that_the_pipeline_made_smaller_stand_in_for_a_lost_particle_file(documented):
    write_job(documented.out, "pipeline", {"particles": "/nowhere/else.star"})
    smaller = documented.out / "downsampled" / "particles.128.star"
    smaller.parent.mkdir()
    shutil.copy(documented.particles, smaller)
    run = open_recovar(documented.out)
    assert run.particles_file == smaller
    assert "rows are the same" in texts(run.messages)[0]


def test_a_particle_file_that_is_nowhere_is_named(documented):
    write_job(documented.out, "pipeline", {"particles": "/nowhere/else.star"})
    run = open_recovar(documented.out)
    assert run.particles_file is None
    assert "/nowhere/else.star" in texts(run.messages)[0]
    assert run.rows.size == 12


def test_without_job_json_the_command_names_the_particle_file(documented):
    (documented.out / "job.json").unlink()
    line = f"recovar pipeline --mask /x/mask.mrcs {documented.particles} -o out --zdim 2,4"
    (documented.out / "command.txt").write_text(line)
    assert open_recovar(documented.out).particles_file == documented.particles


def test_metadata_name_the_particles_that_were_made_smaller(documented):
    (documented.out / "job.json").unlink()
    path = documented.out / "model" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "original_particles_file": str(documented.particles)}))
    assert open_recovar(documented.out).particles_file == documented.particles


@pytest.mark.parametrize("line", ["", "recovar pipeline", "recovar 'unclosed", "\x00"])
def test_a_run_that_names_no_particle_file_says_so(documented, line):
    (documented.out / "job.json").unlink()
    (documented.out / "command.txt").write_text(line)
    run = open_recovar(documented.out)
    assert run.particles_file is None
    assert "does not name" in texts(run.messages)[0]


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text())), st.text())
@settings(max_examples=30)
def test_odd_names_never_crash(tmp_path_factory, name, out):
    folder = tmp_path_factory.mktemp("run")
    (folder / "model").mkdir()
    (folder / "model" / "metadata.json").write_text("{}")
    write_job(folder, "pipeline", {"particles": name, "outdir": out})
    found = open_recovar(folder).particles
    assert found.path is None
    assert texts(found.messages)
