from __future__ import annotations

import io
import pickle
import struct
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.demo import simulate_project
from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.arrays import write_npy, write_npz, write_pt
from cryobridge.formats.cryosparc.cs import CsNpyFile, write_cs
from cryobridge.formats.mrc_write import write_mrc_stack, write_mrc_volume
from cryobridge.formats.pickles import write_poses
from cryobridge.formats.relion.motion import MotionMetadata, write_motion
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.plots import build_figure, plot_path, tables
from cryobridge.model.geometry import euler_to_matrix
from cryobridge.model.motion import MotionModel
from cryobridge.plots import page

N = 200


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "project"
    return simulate_project(folder, n_micrographs=1, particles_per_micrograph=30)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def caption(figure):
    return " ".join(figure.texts[1].get_text().split("\n"))


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def counts(axes):
    return [stairs.get_data() for stairs in axes.patches]


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def render(figure):
    figure.savefig(io.BytesIO(), format="png")


# Tables


def test_each_column_that_varies_has_a_panel_and_the_others_are_named(tmp_path, rng):
    path = tmp_path / "a.cs"
    write_cs(
        path,
        {
            "uid": rng.integers(1, 2**63, N).astype("u8"),
            "blob/path": ["a.mrc"] * N,
            "ctf/accel_kv": np.full(N, 300.0, "f4"),
            "blob/shape": np.tile(np.array([96, 128], "u4"), (N, 1)),
            "ctf/df1_A": rng.uniform(8000, 20000, N),
            "mine": rng.normal(size=N),
        },
    )
    figure = build_figure(path)
    assert titles(figure) == ["ctf/df1_A", "mine"]
    assert panel(figure, "ctf/df1_A").get_xlabel() == "Å"
    assert panel(figure, "mine").get_xlabel() == ""
    assert figure.texts[0].get_text() == "a.cs: 200 rows"
    assert "identifiers: uid" in caption(figure)
    assert "text: blob/path" in caption(figure)
    assert "constant: ctf/accel_kv, blob/shape" in caption(figure)
    assert "rows, in evenly" not in caption(figure)


def test_a_histogram_counts_every_row(tmp_path, rng):
    path = tmp_path / "a.cs"
    classes = rng.integers(0, 4, N).astype("u4")
    write_cs(path, {"class": classes, "wide": rng.integers(-500, 500, N), "x": rng.normal(size=N)})
    figure = build_figure(path)
    ((values, edges, _),) = counts(panel(figure, "class"))
    assert values.tolist() == np.bincount(classes).tolist()
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    for name in ("wide", "x"):
        ((values, edges, _),) = counts(panel(figure, name))
        assert values.sum() == N
        assert np.allclose(np.diff(edges), edges[1] - edges[0])


def test_implausible_columns_are_marked_and_explained(tmp_path, rng):
    path = tmp_path / "a.cs"
    write_cs(path, {"ctf/df1_A": rng.uniform(0.8, 2.0, N), "ctf/df2_A": rng.uniform(8000, 20000, N)})
    figure = build_figure(path)
    assert titles(figure) == ["⚠ ctf/df1_A", "ctf/df2_A"]
    assert "⚠ ctf/df1_A: " in caption(figure)
    assert "looks like µm" in caption(figure)


def test_a_vector_has_one_colour_for_each_component(tmp_path, rng):
    path = tmp_path / "a.cs"
    pose = rng.normal(size=(N, 3))
    write_cs(path, {"alignments3D/pose": pose, "components": rng.normal(size=(N, 40))})
    figure = build_figure(path)
    axes = panel(figure, "alignments3D/pose")
    assert len({stairs.get_edgecolor() for stairs in axes.patches}) == 3
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]
    for component, (values, edges, _) in enumerate(counts(axes)):
        assert values.tolist() == np.histogram(pose[:, component], edges)[0].tolist()
    assert len(panel(figure, "components").patches) == 1


def test_the_patterns_choose_the_columns(tmp_path, rng):
    path = tmp_path / "a.cs"
    write_cs(path, {"ctf/df1_A": rng.normal(15000, 10, N), "ctf/df2_A": rng.normal(15000, 10, N), "x": rng.random(N)})
    assert titles(build_figure(path, InspectOptions(fields=("ctf/*",)))) == ["ctf/df1_A", "ctf/df2_A"]
    with pytest.raises(MissingDataError, match="no field matches"):
        build_figure(path, InspectOptions(fields=("nothing*",)))
    write_mrc_stack(tmp_path / "a.mrcs", rng.random((2, 8, 8)), 1.0)
    with pytest.raises(UsageError, match="tables"):
        build_figure(tmp_path / "a.mrcs", InspectOptions(fields=("ctf/*",)))


def test_columns_beyond_the_page_are_named(tmp_path, rng):
    path = tmp_path / "a.cs"
    write_cs(path, {f"group/column_{number}": rng.normal(size=N) for number in range(40)})
    figure = build_figure(path)
    assert titles(figure) == [f"group/column_{number}" for number in range(36)]
    assert "beyond 36 panels: group/column_36, group/column_37, group/column_38, group/column_39" in caption(figure)


@pytest.mark.parametrize("kind", ["npy", "csdat", "star"])
def test_of_a_long_table_evenly_spaced_rows_are_drawn_and_it_is_said(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tables, "_MAX_ROWS", 1000)
    monkeypatch.setattr(tables, "_N_RUNS", 50)
    rows = np.arange(20_000.0)
    path = tmp_path / ("a.star" if kind == "star" else "a.cs")
    if kind == "star":
        write_star(path, [StarBlock.from_columns("particles", {"rlnCoordinateX": rows})])
    else:
        write_cs(path, {"rlnCoordinateX": rows}, container=kind)
    figure = build_figure(path)
    assert "Drawn and judged from 1,000 of 20,000 rows" in caption(figure)
    ((values, edges, _),) = counts(figure.axes[0])
    assert values.sum() == 1000
    assert values.min() == values.max()
    assert edges[0] == 0
    assert edges[-1] > 19_600


def test_of_a_long_cs_file_only_the_drawn_rows_are_read(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(tables, "_MAX_ROWS", 100)
    path = tmp_path / "a.cs"
    write_cs(path, {"x": rng.normal(size=5000)})
    read = []
    original = CsNpyFile.read

    def counting(self, names, rows=slice(None)):
        values = original(self, names, rows)
        read.extend(len(array) for array in values.values())
        return values

    monkeypatch.setattr(CsNpyFile, "read", counting)
    build_figure(path)
    assert sum(read) == 100


@given(n_rows=st.integers(0, 10**9), row_bytes=st.integers(0, 10**9))
def test_the_runs_are_apart_and_within_the_limits(n_rows, row_bytes):
    runs = tables.even_runs(n_rows, row_bytes)
    total = sum(run.stop - run.start for run in runs)
    assert total <= tables._MAX_ROWS
    assert total * row_bytes <= max(tables._SAMPLE_BYTES, row_bytes)
    assert all(first.stop <= second.start for first, second in pairwise(runs))
    assert runs[0].start == 0
    assert runs[-1].stop <= n_rows


def test_a_job_folder_and_a_result_group_show_the_joined_columns(project):
    for path in (project.refinement, project.group_csg):
        found = titles(build_figure(path))
        assert "alignments3D/shift" in found
        assert "location/center_x_frac" in found
    assert "alignments3D/shift" not in titles(build_figure(project.passthrough_cs))


@pytest.mark.parametrize("columns", [{}, {"x": np.full(5, 2.0), "name": ["a"] * 5}, {"x": np.zeros(0)}])
def test_a_table_without_anything_that_varies_is_refused(tmp_path, columns):
    write_cs(tmp_path / "a.cs", {"uid": np.arange(len(columns.get("x", ())), dtype="u8"), **columns})
    with pytest.raises(MissingDataError, match="nothing to draw"):
        build_figure(tmp_path / "a.cs")


# Names and numbers that files may hold


def save_table(path, columns):
    rows = np.zeros(N, [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    with path.open("wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of the version that holds such names
        np.lib.format.write_array(file, rows, version=(3, 0))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_no_name_is_read_as_a_formula_or_lacks_a_glyph(tmp_path, rng, suffix):
    path = tmp_path / "x_$1$_\\frac{.cs"
    names = ["a$b_c$", "$\\frac{", "粒子/位置", "two\nlines"]
    save_table(path, {name: rng.normal(size=N) for name in names})
    assert titles(build_figure(path)) == ["a$b_c$", "$\\frac{", "??/??", "two?lines"]
    target = tmp_path / f"out{suffix}"
    plot_path(path, target)
    assert target.read_bytes().startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])


def test_titles_stay_apart_however_long_the_names_are(tmp_path, rng):
    path = tmp_path / "a.cs"
    write_cs(path, {f"{'alignments3D_multi' * 5}/column_{number}": rng.random(N) for number in range(12)})
    figure = build_figure(path)
    assert all(title.endswith(f"column_{number}") and "…" in title for number, title in enumerate(titles(figure)))
    render(figure)
    boxes = [axes._left_title.get_window_extent() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts if text.get_text()]
    page = figure.bbox
    for place, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


@settings(max_examples=25)
@given(st.lists(st.floats(width=64), min_size=2, max_size=30))
def test_any_numbers_can_be_drawn(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("any") / "a.npy"
    write_npy(path, np.array(numbers))
    try:
        figure = build_figure(path)
    except MissingDataError:
        return
    render(figure)
    finite = [number for number in numbers if abs(number) < page.LARGEST]
    assert counts(figure.axes[0])[0].values.sum() == len(finite)


# The picture file


def test_the_picture_has_the_size_of_its_page_and_replaces_an_older_one(tmp_path, rng):
    write_mrc_stack(tmp_path / "a.mrcs", rng.random((50, 20, 20)), 1.5)
    target = tmp_path / "out.PNG"
    target.write_text("older")
    plot_path(tmp_path / "a.mrcs", target)
    width, height = png_size(target)
    assert width == round(4 * 2.2 * 120)
    assert height == pytest.approx(4 * (2.2 + 0.25) * 120, abs=100)  # and a heading and a caption
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mrcs", "out.PNG"]


@pytest.mark.parametrize("name", ["out.jpg", "out", "out.cs"])
def test_a_suffix_that_is_no_picture_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        plot_path(tmp_path / "absent.cs", tmp_path / name)
    assert ".png, .pdf, .svg" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_an_older_picture_stays_when_there_is_nothing_to_draw(tmp_path):
    write_npy(tmp_path / "a.npy", np.zeros(5))
    (tmp_path / "out.png").write_text("older")
    with pytest.raises(MissingDataError):
        plot_path(tmp_path / "a.npy", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_text() == "older"


def test_the_page_does_not_depend_on_the_settings_of_the_user(tmp_path, rng):
    import matplotlib

    write_mrc_stack(tmp_path / "a.mrcs", rng.random((4, 20, 20)), 1.5)
    plot_path(tmp_path / "a.mrcs", tmp_path / "1.png")
    with matplotlib.rc_context({"savefig.dpi": 30, "savefig.bbox": "tight", "font.family": "serif"}):
        before = dict(matplotlib.rcParams)
        plot_path(tmp_path / "a.mrcs", tmp_path / "2.png")
        assert dict(matplotlib.rcParams) == before
    assert png_size(tmp_path / "1.png") == png_size(tmp_path / "2.png")


# Images and volumes


def test_a_stack_is_shown_by_sixteen_evenly_spaced_images(tmp_path, rng):
    write_mrc_stack(tmp_path / "a.mrcs", rng.random((46, 20, 30)), 1.5)
    figure = build_figure(tmp_path / "a.mrcs")
    assert titles(figure) == [f"image {index}" for index in range(0, 46, 3)]
    assert "16 of 46 images, numbered from 0" in caption(figure)
    assert figure.texts[0].get_text() == "a.mrcs: 46 images of 30 × 20 px, pixel 1.5 Å"


def test_the_contrast_of_an_image_is_robust_and_its_own(tmp_path, rng):
    images = rng.normal(size=(2, 40, 40)).astype("f4")
    images[1] = 1000 * images[1] + 500
    images[:, 0, 0] = 1e6
    write_mrc_stack(tmp_path / "a.mrcs", images, 1.5)
    figure = build_figure(tmp_path / "a.mrcs")
    for image, axes in zip(images, figure.axes, strict=True):
        low, high = np.percentile(image, (1, 99))
        shown = axes.images[0].get_array().data
        assert shown == pytest.approx(np.clip((image - low) / (high - low), 0, 1), abs=1e-5)
        assert axes.images[0].origin == "upper"


def test_a_large_image_is_averaged_in_blocks(tmp_path):
    image = np.zeros((1, 1030, 1600), "f4")
    image[0, :3, :3] = 9
    write_mrc_stack(tmp_path / "a.mrcs", image, 1.5)
    figure = build_figure(tmp_path / "a.mrcs")
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (343, 533)
    assert shown[0, 0] == 1
    assert shown.sum() == 1
    assert "3 × 3 px are averaged" in caption(figure)


def test_a_volume_is_shown_by_its_central_slices_in_angstrom(tmp_path, rng):
    volume = rng.random((8, 10, 12)).astype("f4")
    write_mrc_volume(tmp_path / "a.map", volume, 2.5)
    figure = build_figure(tmp_path / "a.map")
    assert titles(figure) == ["xy, z = 4 px", "xz, y = 5 px", "yz, x = 6 px"]
    expected = [
        (volume[4], ("x (Å)", "y (Å)"), [0, 30, 0, 25]),
        (volume[:, 5], ("x (Å)", "z (Å)"), [0, 30, 0, 20]),
        (volume[:, :, 6], ("y (Å)", "z (Å)"), [0, 25, 0, 20]),
    ]
    low, high = np.percentile(np.concatenate([image.ravel() for image, *_ in expected]), (1, 99.8))
    for axes, (image, labels, extent) in zip(figure.axes, expected, strict=True):
        shown = axes.images[0]
        assert shown.get_array().data == pytest.approx(np.clip((image - low) / (high - low), 0, 1), abs=1e-5)
        assert (axes.get_xlabel(), axes.get_ylabel()) == labels
        assert shown.get_extent() == pytest.approx(extent)
        assert shown.origin == "lower"


def test_a_volume_of_unknown_pixel_size_is_measured_in_pixels(tmp_path, rng):
    path = tmp_path / "a.map"
    write_mrc_volume(path, rng.random((8, 8, 8)), 2.5)
    content = bytearray(path.read_bytes())
    content[40:52] = bytes(12)  # the cell's edges
    path.write_bytes(content)
    axes = build_figure(path).axes[0]
    assert axes.get_xlabel() == "x (px)"
    assert axes.images[0].get_extent() == pytest.approx([0, 8, 0, 8])


def test_it_is_said_when_a_stack_may_be_a_volume(tmp_path, rng):
    write_mrc_volume(tmp_path / "a.mrc", rng.random((3, 8, 8)), 2.5)
    assert "Drawn as a stack of images; probably" in caption(build_figure(tmp_path / "a.mrc"))


# Arrays and pickles


def test_latent_coordinates_are_points_of_the_first_two(tmp_path, rng):
    coordinates = rng.normal(size=(N, 4))
    write_npy(tmp_path / "latent_coords.npy", coordinates)
    figure = build_figure(tmp_path / "latent_coords.npy")
    assert titles(figure) == ["latent_coords, first two", "latent_coords"]
    assert figure.axes[0].lines[0].get_xydata() == pytest.approx(coordinates[:, :2])
    assert len(figure.axes[1].patches) == 4


def test_an_archive_has_a_panel_for_each_array_of_numbers(tmp_path, rng):
    path = tmp_path / "a.npz"
    write_npz(path, {"defocusU": rng.random(N), "voltage": np.array(300.0), "files": np.array(["a"]), "none": []})
    figure = build_figure(path)
    assert titles(figure) == ["defocusU"]
    assert "constant: voltage" in caption(figure)
    assert "no numbers: files" in caption(figure)


def test_complex_numbers_are_shown_by_their_magnitude(tmp_path, rng):
    write_npy(tmp_path / "a.npy", np.exp(1j * rng.random((5, 50))) * np.arange(1, 6)[:, None])
    figure = build_figure(tmp_path / "a.npy")
    ((values, edges, _),) = counts(figure.axes[0])
    assert values.sum() == 250
    assert (edges[0], edges[-1]) == pytest.approx((1, 5))
    assert figure.axes[0].get_xlabel() == "magnitude"


def test_of_a_large_array_a_part_is_drawn_and_it_is_said(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(tables, "_SAMPLE_BYTES", 8000)
    write_npy(tmp_path / "a.npy", rng.random((30, 10, 20)))
    figure = build_figure(tmp_path / "a.npy")
    assert "a: drawn from 1,000 of 6,000 elements" in caption(figure)
    assert counts(figure.axes[0])[0].values.sum() == 1000


def test_poses_are_shown_as_angles(tmp_path, rng):
    angles = rng.uniform(-180, 180, N), rng.uniform(0, 180, N), rng.uniform(-180, 180, N)
    shifts = rng.uniform(-0.1, 0.1, (N, 2))
    write_poses(tmp_path / "poses.pkl", euler_to_matrix(*angles), shifts)
    figure = build_figure(tmp_path / "poses.pkl")
    shift = "shift (fraction of the box)"
    assert titles(figure) == ["rot (degrees)", "tilt (degrees)", "psi (degrees)", shift, shift]
    for axes, angle in zip(figure.axes, angles, strict=False):
        ((values, edges, _),) = counts(axes)
        assert values == pytest.approx(np.histogram(angle, edges)[0], abs=2)
    assert figure.axes[3].lines[0].get_xydata() == pytest.approx(shifts, abs=1e-6)


@pytest.mark.parametrize("n_dimensions", [1, 2, 3])
def test_a_density_is_shown_along_its_first_two_dimensions(tmp_path, rng, n_dimensions):
    density = rng.random((5, 6, 7)[:n_dimensions])
    bounds = np.array([[-1.0, 4.0], [10.0, 20.0], [0.0, 1.0]])[:n_dimensions]
    path = tmp_path / "deconv_density_knee.pkl"
    path.write_bytes(pickle.dumps({"density": density, "latent_space_bounds": bounds, "alpha": 0.1}))
    (axes,) = build_figure(path).axes
    if n_dimensions == 1:
        assert axes.lines[0].get_xydata() == pytest.approx(np.stack([np.linspace(-1, 4, 5), density], axis=1))
        return
    flat = density if n_dimensions == 2 else density.sum(axis=2)
    assert axes.images[0].get_array().data == pytest.approx(flat.T)
    assert axes.images[0].get_extent() == pytest.approx([-1, 4, 10, 20])


def test_a_pickle_that_asks_for_code_is_not_run_and_its_plain_data_are_drawn(tmp_path, rng):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"code": Runs(), "noise": rng.random(N)}))
    figure = build_figure(path)
    assert titles(figure) == ["noise"]
    assert "Nothing was run" in caption(figure)
    assert not (tmp_path / "ran").exists()


# Folders


def test_an_output_of_stacks_shows_the_first_physical_stack(tmp_path, rng):
    images = rng.normal(size=(20, 12, 12)).astype("f4")
    (tmp_path / "phys").mkdir()
    (tmp_path / "fft").mkdir()
    for number in range(2):
        write_pt(tmp_path / "phys" / f"particles_phys_stack_{number:06d}.pt", torch.from_numpy(images + number))
        write_pt(tmp_path / "fft" / f"particles_fourier_stack_{number:06d}.pt", torch.zeros(20, 30))
    figure = build_figure(tmp_path)
    assert figure.texts[0].get_text() == "particles_phys_stack_000000.pt: 20 images of 12 × 12 px"
    assert len(figure.axes) == 16
    for file in (tmp_path / "phys").iterdir():
        file.unlink()
    with pytest.raises(UsageError) as caught:
        build_figure(tmp_path)
    assert "fft/" in caught.value.hint


def test_a_relion_job_is_refused_with_what_to_name_instead(project):
    with pytest.raises(UsageError, match="no picture") as caught:
        build_figure(project.micrographs_star.parent)
    assert ".star" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["cryosparc_P12_J24_001_particles.cs", "empiar_10076_7.star", "empiar_10076_7.mrc", "EMD-3197.map", "ctf2.pkl"],
)
def test_real_files_are_drawn(reference_data, tmp_path, name):
    plot_path(reference_data / "real" / name, tmp_path / "out.png")
    assert min(png_size(tmp_path / "out.png")) > 200


def test_motion_is_drawn_by_frame(tmp_path):
    shifts_px = np.array([[np.nan, np.nan], [0, 0], [3, 4.0]])
    motion = MotionModel(shifts_px, (100, 120), np.zeros((2, 18)), first_frame=2)
    path = tmp_path / "m.star"
    write_motion(path, MotionMetadata(motion=motion, movie="m.tif", pixel_size_A=2.0, dose_per_frame_e_A2=1.0))
    figure = build_figure(path)
    drawn = [axes.lines[0].get_xydata().tolist() for axes in figure.axes if axes.lines]
    assert drawn == [[[2, 0], [3, 3]], [[2, 0], [3, 4]]]
    still = MotionModel(np.zeros((3, 2)), (100, 120), None, first_frame=1)
    write_motion(path, MotionMetadata(motion=still, movie="m.tif", pixel_size_A=2.0, dose_per_frame_e_A2=1.0))
    build_figure(path)
