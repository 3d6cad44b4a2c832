from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
import torch

from cryobridge.errors import CryobridgeError, UsageError
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.polar import PolarTransform
from cryobridge.jobs.stacks.polar.drawing import draw_stack
from cryobridge.jobs.stacks.polar.output import plot_paths
from cryobridge.plots import page
from helpers import environment

N_ANGLES = 24


def noise(n, n_0, n_1=None, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_0, n_1 or n_0)).astype(np.float32)


def random_polar(n, grid, seed=0):
    parts = np.random.default_rng(seed).normal(size=(2, n, grid.n_shells, grid.n_inplanes))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def wave(n_0, n_1, along_0_px, along_1_px):
    """Return a sine image, given how many pixels one wave takes along each axis."""
    a, b = np.mgrid[:n_0, :n_1]
    return np.sin(2 * np.pi * (a / along_0_px + b / along_1_px))[None]


def transform(images, grid):
    return PolarTransform(grid, images.shape[1:], dtype=torch.float64).forward(torch.from_numpy(images))


@pytest.fixture
def figures(monkeypatch):
    drawn = []

    def lay_out(sheet):
        drawn.append(original(sheet))
        return drawn[-1]

    original = page.lay_out
    monkeypatch.setattr(page, "lay_out", lay_out)
    return drawn


def caption(figure):
    return " ".join(figure.texts[1].get_text().split("\n"))


def heading(figure):
    return " ".join(figure.texts[0].get_text().split("\n"))


def tiles(figure):
    return [np.ma.filled(image.get_array().astype(float), np.nan) for image in figure.axes[0].images]


def titles(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def curves(figure):
    """Return the frequencies, the single spectra, and the mean."""
    *single, mean = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    return mean.get_xdata(), [line.get_ydata() for line in single], mean.get_ydata()


def bright_spots(figure):
    """Return the middle of the white pixels of the first tile, above and below its centre, on its axes."""
    tile, (inset,) = tiles(figure)[0], figure.axes[0].child_axes
    (left, right), (bottom, top) = inset.get_xlim(), inset.get_ylim()
    down, across = np.nonzero(tile == np.nanmax(tile))
    down = top + (bottom - top) * (down + 0.5) / tile.shape[0]
    across = left + (right - left) * (across + 0.5) / tile.shape[1]
    halves = [down < 0, down > 0]
    return [np.array([values[half].mean() for half in halves if half.any()]) for values in (across, down)]


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# Files


def test_three_pictures_lie_under_their_names_and_nothing_else(tmp_path):
    grid = PolarGrid.for_box(16)
    written = draw_stack(tmp_path, 42, noise(3, 16), random_polar(3, grid), grid, 1.5)
    names = [
        "particles_fourier_stack_000042.png",
        "particles_phys_stack_000042.png",
        "power_spectrum_stack_000042.png",
    ]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == names
    assert written == plot_paths(tmp_path, 42)
    assert all(is_png(path) for path in written)


def test_pictures_that_are_there_are_replaced(tmp_path):
    grid = PolarGrid.for_box(16)
    (tmp_path / "plots").mkdir()
    for path in plot_paths(tmp_path, 0):
        path.write_text("old")
    assert all(is_png(path) for path in draw_stack(tmp_path, 0, noise(1, 16), random_polar(1, grid), grid, 1.5))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    grid = PolarGrid.for_box(16)
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(CryobridgeError, match="plots"):
        draw_stack(tmp_path, 0, noise(1, 16), random_polar(1, grid), grid, 1.5)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("polar", {"polar": lambda polar: polar[:1]}),
        ("polar", {"polar": lambda polar: polar[:, 1:]}),
        ("polar", {"polar": lambda polar: polar[:0], "images": lambda images: images[:0]}),
        ("names", {"names": lambda _: ["one"]}),
        ("power", {"power": lambda _: np.ones(5)}),
    ],
)
def test_what_does_not_match_is_refused_before_anything_is_written(tmp_path, field, change):
    grid = PolarGrid.for_box(16)
    given = {"images": noise(2, 16), "polar": random_polar(2, grid), "names": None, "power": None}
    given |= {name: changed(given[name]) for name, changed in change.items()}
    with pytest.raises(UsageError) as refusal:
        draw_stack(tmp_path, 0, grid=grid, pixel_size_A=1.5, **given)
    assert refusal.value.field == field
    assert list(tmp_path.iterdir()) == []


# Units


def test_a_sine_of_12_angstrom_has_its_power_at_one_twelfth(tmp_path, figures):
    # 8 px of 1.5 Å a wave.
    images, grid = wave(96, 96, 8, np.inf), PolarGrid.for_box(96)
    draw_stack(tmp_path, 0, images, transform(images, grid), grid, 1.5)
    frequency, (single,), mean = curves(figures[2])
    one_wave_a_box = 1 / (96 * 1.5)
    for power in (single, mean):
        assert frequency[np.argmax(power)] == pytest.approx(1 / 12, abs=one_wave_a_box / 2)
    across, down = bright_spots(figures[1])
    assert across == pytest.approx(0, abs=one_wave_a_box / 2)
    assert down == pytest.approx([-1 / 12, 1 / 12], abs=one_wave_a_box / 2)


@pytest.mark.parametrize("n_angles", [192, 191])
def test_axes_that_differ_in_box_and_pixel_size_have_their_own_units(tmp_path, figures, n_angles):
    # Along axis 0 ten pixels of 1.2 Å a wave; along axis 1 eight pixels of 2 Å.
    images, grid = wave(80, 120, 10, 8), PolarGrid(30, 0.25, n_angles)
    draw_stack(tmp_path, 0, images, transform(images, grid), grid, (1.2, 2.0))
    across, down = bright_spots(figures[1])
    # Both rise together: the spots lie at the upper left and the lower right.
    assert down == pytest.approx([-1 / 12, 1 / 12], abs=0.5 / (80 * 1.2))
    assert across == pytest.approx([-1 / 16, 1 / 16], abs=0.5 / (120 * 2))
    frequency, _, mean = curves(figures[2])
    # The same shell crosses axis 0 at this frequency.
    on_axis_0 = np.hypot(80 / 10, 120 / 8) / (80 * 1.2)
    assert frequency[np.argmax(mean)] == pytest.approx(on_axis_0, abs=0.5 / (80 * 1.2))
    assert "along axis 1 they are 0.4 times them" in caption(figures[2])


def test_the_axes_end_where_the_grid_does_and_the_nyquist_frequency_is_reported(tmp_path, figures):
    for number, factor in enumerate((1.0, 1.5, 0.5)):
        grid = PolarGrid.for_box(20, factor, N_ANGLES)
        draw_stack(tmp_path, number, noise(1, 20), random_polar(1, grid), grid, 2.0)
        _, fourier, power = figures[-3:]
        assert power.axes[0].get_xlim() == pytest.approx((0, factor / 4))
        assert fourier.axes[0].child_axes[0].get_xlim() == pytest.approx((-factor / 4, factor / 4))
        assert fourier.axes[0].child_axes[0].get_ylim() == pytest.approx((factor / 4, -factor / 4))
        assert "the Nyquist frequency is 0.25 1/Å (4 Å)" in caption(power)
        lines = [line.get_xdata()[0] for line in power.axes[0].lines if len(line.get_xdata()) == 2]
        assert lines == ([0.25] if factor > 1 else [])


@pytest.mark.parametrize("pixel_size_A", [0.6, 1.2, 6.55])
def test_the_resolutions_above_are_inverse_frequencies_that_lie_apart(tmp_path, figures, pixel_size_A):
    grid = PolarGrid.for_box(16, n_inplanes=N_ANGLES)
    draw_stack(tmp_path, 0, noise(1, 16), random_polar(1, grid), grid, pixel_size_A)
    below, above = figures[2].axes
    labels = [label.get_text() for label in above.get_xticklabels()]
    positions = above.get_xticks()
    assert above.get_xlim() == below.get_xlim()
    assert [float(label.removesuffix(" Å")) for label in labels] == pytest.approx((1 / positions).tolist())
    boxes = sorted((label.get_window_extent() for label in above.get_xticklabels()), key=lambda box: box.x0)
    assert len(boxes) >= 5
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


# What is drawn


def test_the_power_of_the_whole_stack_is_drawn_where_it_is_given(tmp_path, figures):
    grid = PolarGrid.for_box(16, n_inplanes=N_ANGLES)
    polar, power = random_polar(3, grid), np.linspace(1, 2, grid.n_shells)
    draw_stack(tmp_path, 0, noise(3, 16), polar, grid, 1.5, power=torch.from_numpy(power), n_images=1024)
    _, single, mean = curves(figures[2])
    assert mean == pytest.approx(power)
    assert np.array(single) == pytest.approx((np.abs(polar) ** 2).mean(axis=2), rel=1e-5)
    assert heading(figures[2]).endswith("power spectrum of 1,024 images")
    assert "3 of 1,024 images" in caption(figures[0])
    draw_stack(tmp_path, 1, noise(3, 16), polar, grid, 1.5, n_images=1024)
    assert curves(figures[5])[2] == pytest.approx((np.abs(polar) ** 2).mean(axis=(0, 2)), rel=1e-5)
    assert heading(figures[5]).endswith("power spectrum of 3 images")


def test_every_point_of_a_small_grid_is_drawn_where_it_lies(tmp_path, figures):
    grid = PolarGrid.for_box(8, n_inplanes=8)
    polar = np.ones((1, grid.n_shells, 8), np.complex64)
    shell, angle = 6, 3
    polar[0, shell, angle] = 1000
    draw_stack(tmp_path, 0, noise(1, 8), polar, grid, 1.0)
    across, down = bright_spots(figures[1])
    radius = np.hypot(across, down) * 8 / 2
    turn = np.arctan2(across, down)
    assert np.abs(radius - grid.radii[shell]).max() < np.diff(grid.radii).max()
    assert np.abs(turn - 2 * np.pi * angle / 8).max() < np.pi / 8 + 1e-3


def test_narrow_shells_are_averaged_and_it_is_said(tmp_path, figures):
    grid = PolarGrid(49.75, 0.25, N_ANGLES)
    polar = np.ones((5, grid.n_shells, N_ANGLES), np.complex64)
    polar[:, ::2] = 3
    draw_stack(tmp_path, 0, noise(5, 16), polar, grid, 1.0)
    assert "The 200 shells are averaged into 100 rings" in caption(figures[1])
    # Half the logarithm of (1² + 3²) / 2.
    assert "from 0.35 (black) to 0.35 (white)" in caption(figures[1])


def test_each_image_has_its_own_gray_and_the_first_axis_points_down(tmp_path, figures):
    grid = PolarGrid.for_box(20, n_inplanes=N_ANGLES)
    images = noise(2, 20, 30) * np.array([1, 1000])[:, None, None]
    draw_stack(tmp_path, 0, images, random_polar(2, grid), grid, 1.0)
    for tile, image in zip(tiles(figures[0]), images, strict=True):
        low, high = np.percentile(image, (1, 99))
        assert tile == pytest.approx(np.clip((image - low) / (high - low), 0, 1), abs=1e-5)
    left, right, bottom, top = figures[0].axes[0].images[0].get_extent()
    # The values of the panel grow downwards.
    assert figures[0].axes[0].yaxis_inverted()
    assert bottom > top
    assert (bottom - top) / (right - left) == pytest.approx(20 / 30)
    assert "20 × 30 px of 1 Å" in heading(figures[0])


def test_of_many_images_sixteen_evenly_spaced_ones_are_drawn(tmp_path, figures):
    grid = PolarGrid.for_box(8, n_inplanes=N_ANGLES)
    draw_stack(tmp_path, 7, noise(31, 8), random_polar(31, grid), grid, 1.0)
    for figure in figures[:2]:
        assert titles(figure) == [f"image {number}" for number in range(0, 31, 2)]
        assert "16 of 31 images" in caption(figure)
        assert heading(figure).startswith("Stack 000007: ")
    assert len(curves(figures[2])[1]) == 16


def test_any_name_can_be_drawn(tmp_path, figures):
    grid = PolarGrid.for_box(8, n_inplanes=N_ANGLES)
    names = ["$a_{b$", "粒子\n7", "000001@Extract/job012/a_very_long_name_of_a_stack_17.mrcs"]
    draw_stack(tmp_path, 0, noise(3, 8), random_polar(3, grid), grid, 1.0, names)
    assert titles(figures[0])[:2] == ["$a_{b$", "???7"]
    assert titles(figures[0])[2].startswith("000001@")
    assert titles(figures[0])[2].endswith("_17.mrcs")
    renderer = figures[0].canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figures[0].axes[0].texts]
    assert boxes[2].x1 <= figures[0].bbox.x1


@pytest.mark.parametrize(
    ("n_images", "box", "n_angles"), [(1, (16, 16), 32), (16, (15, 15), 31), (4, (24, 100), 48), (2, (100, 20), 7)]
)
def test_text_and_tiles_keep_within_the_page_and_apart(tmp_path, figures, n_images, box, n_angles):
    grid = PolarGrid.for_box(box[0], n_inplanes=n_angles)
    draw_stack(tmp_path, 0, noise(n_images, *box), random_polar(n_images, grid), grid, 1.3)
    for figure in figures[:2]:
        axes, renderer = figure.axes[0], figure.canvas.get_renderer()
        shown = [image.get_window_extent(renderer) for image in axes.images]
        text = [title.get_window_extent(renderer) for title in axes.texts]
        text += [note.get_window_extent(renderer) for note in figure.texts]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in shown + text)
        assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in shown + text)
        assert not any(note.overlaps(box) for note in text for box in shown)
        for inset in axes.child_axes:
            around = inset.get_tightbbox(renderer)
            assert not any(around.overlaps(note.get_window_extent(renderer)) for note in figure.texts)
            assert around.x0 >= 0


def test_transforms_of_zeros_and_what_is_not_finite_are_drawn(tmp_path):
    grid = PolarGrid.for_box(8, n_inplanes=N_ANGLES)
    images, polar = noise(3, 8), random_polar(3, grid)
    images[0], polar[0] = 0, 0
    images[1, 0, 0], polar[1, 0, 0] = np.nan, np.nan
    for number, part in enumerate((slice(0, 1), slice(1, 2), slice(0, 3))):
        assert all(is_png(path) for path in draw_stack(tmp_path, number, images[part], polar[part], grid, 1.0))


# How it is drawn


def test_tensors_arrays_and_precisions_give_the_same_pictures(tmp_path):
    grid = PolarGrid.for_box(16, n_inplanes=N_ANGLES)
    images, polar = noise(3, 16), random_polar(3, grid)
    written = [
        draw_stack(tmp_path / name, 0, *arrays, grid, 1.5)
        for name, arrays in {
            "arrays": (images, polar),
            "tensors": (torch.from_numpy(images), torch.from_numpy(polar)),
            "lazily conjugated": (torch.from_numpy(images), torch.from_numpy(polar.conj()).conj()),
        }.items()
    ]
    first, *others = [[path.read_bytes() for path in paths] for paths in written]
    assert all(other == first for other in others)
    draw_stack(tmp_path / "double", 0, images.astype(float), polar.astype(complex), grid, 1.5)


def test_threads_draw_what_one_alone_draws_and_leave_settings_as_they_are(tmp_path, monkeypatch):
    # Settings of a user would show if one thread put them back while another draws.
    monkeypatch.setitem(mpl.rcParams, "font.family", ["serif"])
    before = dict(mpl.rcParams)
    grid = PolarGrid.for_box(16, n_inplanes=N_ANGLES)
    images, polar = noise(2, 16), random_polar(2, grid)
    alone = [path.read_bytes() for path in draw_stack(tmp_path / "alone", 0, images, polar, grid, 1.5)]
    start = threading.Barrier(4)

    def draw(number):
        start.wait()
        return draw_stack(tmp_path / str(number), 0, images, polar, grid, 1.5)

    with ThreadPoolExecutor(4) as pool:
        for paths in pool.map(draw, range(4)):
            assert [path.read_bytes() for path in paths] == alone
    assert dict(mpl.rcParams) == before


def test_no_window_system_is_touched_and_matplotlib_is_loaded_when_a_picture_is_made(tmp_path):
    script = f"""
import sys
from pathlib import Path
import numpy as np
from cryobridge.jobs.stacks.polar.drawing import draw_stack
assert "matplotlib" not in sys.modules
from cryobridge.fourier.grid import PolarGrid
grid = PolarGrid.for_box(8)
polar = np.ones((1, grid.n_shells, grid.n_inplanes), complex)
draw_stack(Path({str(tmp_path)!r}), 0, np.eye(8)[None], polar, grid, 1.0)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=environment(MPLBACKEND="TkAgg"), timeout=120)
