from __future__ import annotations

import struct

import matplotlib.image
import numpy as np
import pytest

from cryobridge.errors import UsageError
from cryobridge.jobs.inspection.plots import build_figure, plot_path
from cryobridge.jobs.inspection.plots import recovar as drawing
from recovar_runs import ALPHAS, CENTERS, simulate_run, write_densities, write_job, write_map, write_pickle


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def caption(figure):
    return " ".join(figure.texts[1].get_text().split("\n"))


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def points_of(axes, n_clusters):
    return [line.get_xydata() for line in axes.lines[:n_clusters]]


@pytest.fixture
def simulated(tmp_path):
    return simulate_run(tmp_path / "project")


def test_the_real_pipeline_shows_fsc_eigenvalues_clusters_and_density(reference_data):
    figure = build_figure(reference_data / "recovar_run" / "out")
    clusters, density = "zdim 2 by cluster, analysis_2", "Density at the knee, alpha 0.001"
    assert titles(figure) == ["FSC of the half maps", "eigenvalues", clusters, density]
    fsc = panel(figure, "FSC of the half maps")
    for curve, lowest in zip(fsc.lines, (0.72, 0.87), strict=False):  # as RECOVAR drew them
        frequency, value = curve.get_xydata().T
        assert frequency[-1] == pytest.approx(1 / 34, rel=1e-6)  # Nyquist of 17 Å voxels
        assert value.min() == pytest.approx(lowest, abs=5e-3)
        assert frequency[value.argmin()] == pytest.approx(0.0165, abs=2e-4)
    assert [line.get_ydata()[0] for line in fsc.lines[2:]] == [0.143, 0.5]
    assert [text.get_text() for text in fsc.get_legend().get_texts()] == ["no mask", "mask.mrc"]
    assert (np.diff(panel(figure, "eigenvalues").lines[0].get_ydata()) < 0).all()
    assert [len(points) for points in points_of(panel(figure, clusters), 2)] == [273, 327]


def test_the_real_analysis_shows_its_clusters_in_both_spaces_and_their_sizes(reference_data):
    figure = build_figure(reference_data / "recovar_run" / "out" / "analysis_2")
    assert titles(figure) == ["zdim 2 by cluster", "UMAP by cluster", "particles of each cluster"]
    for title in titles(figure)[:2]:
        assert [len(points) for points in points_of(panel(figure, title), 2)] == [273, 327]
    assert [bar.get_height() for bar in figure.axes[2].patches] == [273, 327]
    assert "trajectories" in caption(figure)


def test_the_real_densities_are_all_drawn_with_their_alphas(reference_data):
    figure = build_figure(reference_data / "recovar_run" / "out" / "Density")
    assert titles(figure)[0] == "at the knee, alpha 0.001"
    assert titles(figure)[1:] == [f"number {index}, alpha {10.0 ** (1 - index):.4g}" for index in range(11)]


@pytest.mark.parametrize("layout", ["documented", "older"])
def test_each_particle_of_the_run_is_drawn_with_its_cluster(tmp_path, layout):
    simulated = simulate_run(tmp_path / "project", layout)
    figure = build_figure(simulated.out)
    axes = panel(figure, "zdim 2 by cluster, analysis_2")
    for cluster, points in enumerate(points_of(axes, 3)):
        np.testing.assert_allclose(points, simulated.coords[simulated.labels == cluster])
    assert len({line.get_color() for line in axes.lines[:3]}) == 3
    numbers = {text.get_text(): text.get_position() for text in axes.texts}
    assert numbers == {str(cluster): tuple(center.tolist()) for cluster, center in enumerate(CENTERS)}
    umap = panel(build_figure(simulated.analysis), "UMAP by cluster")
    for cluster, points in enumerate(points_of(umap, 3)):
        assert points[:, 0].tolist() == simulated.rows[simulated.labels == cluster].tolist()


def test_trajectories_are_lines_from_center_to_center(simulated):
    axes = panel(build_figure(simulated.analysis), "zdim 2 by cluster")
    np.testing.assert_allclose(axes.lines[3].get_xydata()[[0, -1]], CENTERS[[0, 2]])


def test_cells_of_a_density_lie_around_the_points_of_its_grid(simulated):
    (image,) = panel(build_figure(simulated.density), "at the knee, alpha 0.1").images
    # 4 points from -10 to 10, and 5 from 0 to 2.
    np.testing.assert_allclose(image.get_extent(), [-10 - 10 / 3, 10 + 10 / 3, -0.25, 2.25])
    np.testing.assert_array_equal(image.get_array(), np.arange(20).reshape(4, 5).T)


@pytest.mark.parametrize(("shape", "note"), [((6,), ""), ((3, 4, 5), "summed over dimension 2.")])
def test_densities_of_other_dimensions_are_drawn(simulated, shape, note):
    write_densities(simulated.density / "data", shape)
    figure = build_figure(simulated.density)
    assert len(figure.axes) == len(ALPHAS) + 1
    assert note in caption(figure)
    if len(shape) == 1:
        assert figure.axes[0].lines[0].get_xdata().tolist() == np.linspace(-10, 10, 6).tolist()
    else:
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), np.arange(60).reshape(shape).sum(2).T)


def test_one_dimension_is_drawn_as_a_histogram_of_its_clusters(simulated):
    folder = simulated.out / "model" / "zdim_1"
    folder.mkdir()
    np.save(folder / "latent_coords.npy", np.load(simulated.out / "model" / "zdim_2" / "latent_coords.npy")[:, :1])
    write_job(simulated.analysis, "analyze", {"zdim": 1})
    analysis = simulated.analysis.rename(simulated.out / "analysis_1")
    content = {"centers": CENTERS[:, :1], "labels": np.where(np.arange(26) % 2, 1, 2)}
    write_pickle(analysis / "data" / "kmeans_result.pkl", content)
    axes = panel(build_figure(simulated.out), "zdim 1 by cluster, analysis_1")
    top = max(patch.get_y() + patch.get_height() for patch in axes.patches)
    assert top >= 1
    assert sum(patch.get_height() for patch in axes.patches) == 12


def test_without_an_analysis_the_plain_coordinates_are_drawn(simulated):
    simulated.analysis.rename(simulated.out.parent / "elsewhere")
    axes = panel(build_figure(simulated.out), "latent coordinates of zdim 2")
    np.testing.assert_allclose(axes.lines[0].get_xydata(), simulated.coords)


def test_what_is_damaged_is_said_below_the_picture(simulated):
    write_pickle(simulated.analysis / "data" / "kmeans_result.pkl", {"centers": CENTERS, "labels": np.zeros(9, int)})
    figure = build_figure(simulated.out)
    assert "9 labels, but 26 latent coordinates" in caption(figure)
    assert "latent coordinates of zdim 2" in titles(figure)
    assert "at the knee" in " ".join(titles(figure))


def test_of_many_particles_some_are_drawn_and_it_is_said(simulated, monkeypatch):
    monkeypatch.setattr(drawing, "_MAX_POINTS", 5)
    figure = build_figure(simulated.out)
    axes = panel(figure, "zdim 2 by cluster, analysis_2")
    assert sum(len(points) for points in points_of(axes, 3)) == 4
    assert "Drawn are 4 of 12 particles" in caption(figure)


def test_many_clusters_get_colours_that_differ(simulated):
    labels = np.full(26, -1)
    labels[simulated.rows] = np.arange(12)
    centers = np.stack([np.arange(12), np.zeros(12)], axis=1)
    write_pickle(simulated.analysis / "data" / "kmeans_result.pkl", {"centers": centers, "labels": labels})
    axes = panel(build_figure(simulated.analysis), "zdim 2 by cluster")
    assert len({tuple(line.get_color()) for line in axes.lines[:12]}) == 12


def test_a_folder_without_anything_to_draw_is_refused(tmp_path):
    write_job(tmp_path / "x", "compute_state", {})
    write_map(tmp_path / "x" / "state000.mrc")
    with pytest.raises(UsageError, match="no picture of this folder") as caught:
        build_figure(tmp_path / "x")
    assert caught.value.hint


@pytest.mark.parametrize("part", ["out", "analysis", "density"])
def test_pictures_are_written_and_are_not_empty(simulated, tmp_path, part):
    target = tmp_path / "picture.png"
    plot_path(getattr(simulated, part), target)
    assert min(struct.unpack(">II", target.read_bytes()[16:24])) > 200
    assert matplotlib.image.imread(target)[..., :3].std() > 0.05
