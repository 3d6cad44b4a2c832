from __future__ import annotations

import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import UsageError
from cryobridge.fourier.grid import PolarGrid
from cryobridge.fourier.polar import PolarTransform

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

CASES = ["downsample_max", "downsample_mean", "indexed_cs", "indexed_star", "job_directory", "paired_star"]
LARGEST_ERROR = {torch.float32: 1e-5, torch.float64: 1e-12}


def direct_sum(images, grid):
    """The definition, point by point, in double precision."""
    images = np.asarray(images, dtype=np.float64)
    n0, n1 = images.shape[1:]
    k0 = (4 * np.pi / n0) * np.outer(grid.radii, np.cos(grid.angles_rad)).ravel()
    k1 = (4 * np.pi / n1) * np.outer(grid.radii, np.sin(grid.angles_rad)).ravel()
    wave_0 = np.exp(-1j * np.outer(k0, np.arange(n0) - n0 // 2))
    wave_1 = np.exp(-1j * np.outer(k1, np.arange(n1) - n1 // 2))
    sums = np.einsum("pa,nab,pb->np", wave_0, images, wave_1, optimize=True)
    return (4 * np.pi / np.sqrt(n0 * n1)) * sums.reshape(len(images), grid.n_shells, grid.n_inplanes)


def error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def blobs(size, turn_rad=0.0, shift_px=(0.0, 0.0), sigma_px=2.0):
    """Gaussians off the centre, evaluated at the pixels after turning and shifting them."""
    places = np.array([[3.0, 1.5, 1.0], [-2.5, 4.0, -0.6], [0.5, -3.7, 0.8]])
    x = np.arange(size[0])[:, None] - size[0] // 2
    y = np.arange(size[1])[None, :] - size[1] // 2
    image = np.zeros(size)
    for x0, y0, height in places:
        x_turned = np.cos(turn_rad) * x0 - np.sin(turn_rad) * y0 + shift_px[0]
        y_turned = np.sin(turn_rad) * x0 + np.cos(turn_rad) * y0 + shift_px[1]
        image += height * np.exp(-((x - x_turned) ** 2 + (y - y_turned) ** 2) / (2 * sigma_px**2))
    return image[None]


@pytest.mark.parametrize("case", CASES)
def test_grid_is_cryolikes(reference_data, case):
    folder = reference_data / "cryolike_reference" / case
    params, expected = np.load(folder / "params_plain.npz"), np.load(folder / "grid.npz")
    grid = PolarGrid(float(params["radius_max"]), float(params["dist_radii"]), int(params["n_inplanes"]))
    assert (grid.n_shells, grid.n_inplanes) == (int(expected["n_shells"]), int(expected["n_inplanes"]))
    np.testing.assert_allclose(grid.radii, expected["radius_shells"], rtol=1e-12)
    np.testing.assert_allclose(grid.shell_weights, expected["weight_shells"], rtol=1e-10)
    np.testing.assert_allclose(grid.angles_rad, expected["theta"], rtol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_transform_is_cryolikes(reference_data, case):
    folder = reference_data / "cryolike_reference" / case
    params = np.load(folder / "params_plain.npz")
    grid = PolarGrid(float(params["radius_max"]), float(params["dist_radii"]), int(params["n_inplanes"]))
    weights = grid.point_weights * (2 * np.pi) ** 2
    files = sorted((folder / "expected").glob("particles_phys_stack_*.npy"))
    assert files
    for file in files:
        images = torch.from_numpy(np.load(file))
        expected = np.load(file.with_name(file.name.replace("phys", "fourier")))
        found = PolarTransform(grid, tuple(images.shape[1:])).forward(images).numpy()
        found /= np.sqrt((np.abs(found) ** 2 * weights).sum((1, 2), keepdims=True))
        assert found.shape == expected.shape
        assert error(found, expected) < 1e-5


def test_default_grid_of_a_box_has_two_angles_a_pixel_and_reaches_nyquist():
    grid = PolarGrid.for_box(128)
    assert (grid.radius_max, grid.dist_radii, grid.n_shells, grid.n_inplanes) == (32.0, 0.25, 129, 256)
    assert PolarGrid.for_box(33, resolution_factor=0.6).n_shells == 21
    assert grid.n_points == grid.point_weights.size == 129 * 256


def test_weights_integrate_over_the_disc():
    grid = PolarGrid(5.0, 0.25, 64)
    area = np.pi * grid.radius_max**2 / (2 * np.pi) ** 2
    assert grid.point_weights.sum() == pytest.approx(area, rel=1e-12)
    bell = np.exp(-(grid.radii[:, None] ** 2) / 2) * np.ones(grid.n_inplanes)
    exact = 2 * np.pi * (1 - np.exp(-(grid.radius_max**2) / 2)) / (2 * np.pi) ** 2
    assert (bell * grid.point_weights).sum() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("values", [(0.0, 0.25, 8), (4.0, -1.0, 8), (4.0, 0.25, 0), (float("nan"), 0.25, 8)])
def test_grid_without_points_is_refused(values):
    with pytest.raises(UsageError, match="not a positive number"):
        PolarGrid(*values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("size", "resolution_factor", "n_inplanes"),
    [
        ((32, 32), 1.0, None),
        ((33, 33), 0.6, None),
        ((31, 40), 1.0, 62),
        ((40, 31), 0.7, 63),
        ((20, 20), 1.7, 40),
        ((20, 21), 2.9, 41),
        ((96, 96), 1.0, None),
        ((1, 5), 1.0, 1),
    ],
)
def test_transform_equals_the_sum_over_pixels(size, resolution_factor, n_inplanes, dtype):
    grid = PolarGrid.for_box(max(size), resolution_factor, n_inplanes)
    # 35 images are more than one batch holds and leave an incomplete one behind; three fit into one.
    images = noise(35 if size == (32, 32) else 3, *size)
    found = PolarTransform(grid, size, dtype).forward(torch.from_numpy(images).to(dtype))
    assert found.dtype == (torch.complex64 if dtype is torch.float32 else torch.complex128)
    assert error(found, direct_sum(images, grid)) < LARGEST_ERROR[dtype]


@settings(max_examples=30)
@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    radius_max=st.floats(0.3, 12.0),
    dist_radii=st.floats(0.2, 1.0),
    n_inplanes=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_box_and_any_grid_equal_the_sum_over_pixels(size, radius_max, dist_radii, n_inplanes, seed):
    grid = PolarGrid(radius_max, dist_radii, n_inplanes)
    images = noise(2, *size, seed=seed)
    # A sum may cancel to almost nothing on a few points: the error is measured against the whole spectrum.
    scale = 4 * np.pi * np.sqrt(grid.n_points / (size[0] * size[1])) * np.linalg.norm(images)
    found = PolarTransform(grid, size).forward(torch.from_numpy(images))
    assert np.linalg.norm(found.numpy() - direct_sum(images, grid)) < 1e-5 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_with_everything_in_a_corner_are_as_exact_as_others(dtype):
    images = np.zeros((3, 40, 40))
    images[0, 0, 0] = images[1, -1, -1] = images[2, 0, -1] = 1
    grid = PolarGrid.for_box(40)
    found = PolarTransform(grid, 40, dtype).forward(torch.from_numpy(images).to(dtype))
    for one, expected in zip(found, direct_sum(images, grid), strict=True):
        assert error(one, expected) < LARGEST_ERROR[dtype]


def test_transform_is_linear():
    images = torch.from_numpy(noise(2, 24, 24)).float()
    transform = PolarTransform(PolarGrid.for_box(24), 24)
    parts = transform.forward(images)
    mixed = transform.forward((2 * images[0] - 0.5 * images[1])[None])[0]
    assert error(mixed, 2 * parts[0] - 0.5 * parts[1]) < 1e-6


def test_every_image_is_transformed_on_its_own():
    images = torch.from_numpy(noise(40, 16, 16)).float()
    transform = PolarTransform(PolarGrid.for_box(16), 16)
    alone = torch.cat([transform.forward(image[None]) for image in images])
    assert error(transform.forward(images), alone) < 1e-6
    images[3] = float("nan")
    images[20, 2, 2] = float("inf")
    clean = [n for n in range(40) if n not in (3, 20)]
    assert error(transform.forward(images)[clean], alone[clean]) < 1e-6


def test_a_shift_is_a_phase_ramp():
    size, shift = (40, 36), (1.3, -2.1)
    grid = PolarGrid.for_box(36)
    transform = PolarTransform(grid, size, torch.float64)
    still = transform.forward(torch.from_numpy(blobs(size)))
    moved = transform.forward(torch.from_numpy(blobs(size, shift_px=shift)))
    k0 = 4 * np.pi / size[0] * np.outer(grid.radii, np.cos(grid.angles_rad))
    k1 = 4 * np.pi / size[1] * np.outer(grid.radii, np.sin(grid.angles_rad))
    ramp = np.exp(-1j * (k0 * shift[0] + k1 * shift[1]))
    assert error(moved, still.numpy() * ramp) < 1e-7


@pytest.mark.parametrize("steps", [1, 7])
def test_turning_an_image_rolls_the_angles(steps):
    grid = PolarGrid.for_box(40)
    transform = PolarTransform(grid, 40, torch.float64)
    still = transform.forward(torch.from_numpy(blobs((40, 40))))
    turned = transform.forward(torch.from_numpy(blobs((40, 40), turn_rad=steps * grid.angles_rad[1])))
    assert error(turned, torch.roll(still, steps, dims=2)) < 1e-7


def test_opposite_angles_are_conjugates():
    polar = PolarTransform(PolarGrid.for_box(32), 32).forward(torch.from_numpy(noise(2, 32, 32)))
    assert torch.equal(polar[:, :, 32:], polar[:, :, :32].conj())


def test_beyond_nyquist_the_spectrum_repeats():
    # With one angle the points lie on axis 0, where r and r - n/2 are a whole period apart.
    grid = PolarGrid(15.0, 0.25, 1)
    images = noise(1, 20, 20)
    found = PolarTransform(grid, 20, torch.float64).forward(torch.from_numpy(images))[0, :, 0].numpy()
    frequency = 2 * grid.radii / 20
    wave = np.exp(-2j * np.pi * np.outer(frequency - np.round(frequency), np.arange(20) - 10))
    assert error(found, 4 * np.pi / 20 * wave @ images[0].sum(1)) < 1e-12


@pytest.mark.parametrize(("size", "n_inplanes"), [((32, 32), None), ((31, 40), 63), ((21, 20), 42)])
@pytest.mark.parametrize("resolution_factor", [0.6, 1.0, 1.8])
def test_adjoint_is_the_transpose_of_forward(size, n_inplanes, resolution_factor):
    grid = PolarGrid.for_box(size[0], resolution_factor, n_inplanes)
    transform = PolarTransform(grid, size, torch.float64)
    images = torch.from_numpy(noise(9, *size))
    polar = torch.view_as_complex(torch.from_numpy(noise(9, grid.n_shells, grid.n_inplanes, 2, seed=1)))
    forward = transform.forward(images)
    left = (forward.conj() * polar).sum().real
    right = (images * transform.adjoint(polar)).sum()
    scale = torch.linalg.vector_norm(forward) * torch.linalg.vector_norm(polar)
    assert abs(left - right) < 1e-13 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(48, 48), (49, 49), (60, 48)])
def test_inverse_returns_a_band_limited_image(size, dtype):
    image = torch.from_numpy(blobs(size, sigma_px=2.5)).to(dtype)
    transform = PolarTransform(PolarGrid.for_box(min(size)), size, dtype)
    assert error(transform.inverse(transform.forward(image)), image) < (1e-5 if dtype is torch.float32 else 1e-7)


def test_inverse_cuts_off_at_the_disc():
    # A wave inside the disc comes back, one outside vanishes, under a wide Gaussian envelope.
    x = np.arange(64) - 32
    envelope = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 6.0**2))
    inside = torch.from_numpy(envelope * np.cos(2 * np.pi * 0.1 * x)[:, None])[None]
    outside = torch.from_numpy(envelope * np.cos(2 * np.pi * 0.42 * x)[:, None])[None]
    transform = PolarTransform(PolarGrid.for_box(64, resolution_factor=0.5), 64, torch.float64)
    assert error(transform.inverse(transform.forward(inside)), inside) < 1e-6
    assert transform.inverse(transform.forward(outside)).abs().max() < 1e-6


def test_inverse_beyond_nyquist_is_refused():
    transform = PolarTransform(PolarGrid.for_box(16, resolution_factor=1.2), 16)
    with pytest.raises(UsageError, match="beyond Nyquist"):
        transform.inverse(torch.zeros(1, transform.grid.n_shells, 32, dtype=torch.complex64))


def test_result_can_be_written_to_a_tensor_at_hand():
    images = torch.from_numpy(noise(3, 16, 16))
    transform = PolarTransform(PolarGrid.for_box(16), 16)
    out = torch.full((3, transform.grid.n_shells, 32), torch.nan, dtype=torch.complex64)
    assert transform.forward(images, out=out) is out
    assert torch.equal(out, transform.forward(images))
    with pytest.raises(UsageError, match="places"):
        transform.forward(images, out=out[:2])


def test_no_images_give_no_transforms():
    transform = PolarTransform(PolarGrid.for_box(16), 16)
    polar = transform.forward(torch.zeros(0, 16, 16))
    assert polar.shape == (0, transform.grid.n_shells, 32)
    assert transform.adjoint(polar).shape == (0, 16, 16)


def test_images_of_any_real_type_are_taken():
    whole = torch.randint(-100, 100, (2, 16, 16), dtype=torch.int16)
    transform = PolarTransform(PolarGrid.for_box(16), 16)
    expected = transform.forward(whole.float())
    for dtype in (torch.int16, torch.float16, torch.float64):
        assert torch.equal(transform.forward(whole.to(dtype)), expected)
    assert torch.equal(transform.forward(whole.float().requires_grad_()), expected)


@pytest.mark.parametrize("shape", [(16, 16), (2, 16, 15), (2, 1, 16, 16)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match=r"is not \(n, 16, 16\)"):
        PolarTransform(PolarGrid.for_box(16), 16).forward(torch.zeros(shape))


def test_arrays_are_no_tensors():
    with pytest.raises(UsageError, match=r"ndarray is no tensor") as caught:
        PolarTransform(PolarGrid.for_box(16), 16).forward(np.zeros((1, 16, 16)))
    assert "from_numpy" in caught.value.hint


def test_complex_images_and_half_precision_are_refused():
    grid = PolarGrid.for_box(16)
    with pytest.raises(UsageError, match="complex"):
        PolarTransform(grid, 16).forward(torch.zeros(1, 16, 16, dtype=torch.complex64))
    with pytest.raises(UsageError, match="float16"):
        PolarTransform(grid, 16, torch.float16)
    with pytest.raises(UsageError, match="empty"):
        PolarTransform(grid, (0, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("formulation", ["tap by tap, as on MPS", "without MKL"])
def test_every_formulation_of_the_tap_sums_gives_the_same(dtype, formulation, monkeypatch):
    grid = PolarGrid.for_box(20, 1.3, 42)
    images = torch.from_numpy(noise(3, 20, 22)).to(dtype)
    usual = PolarTransform(grid, (20, 22), dtype)
    if formulation == "without MKL":
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    other = PolarTransform(grid, (20, 22), dtype)
    other._taps._by_taps = formulation != "without MKL"
    rounding = 1e-6 if dtype is torch.float32 else 1e-14
    polar = usual.forward(images)
    assert error(other.forward(images), polar) < rounding
    assert error(other.adjoint(polar), usual.adjoint(polar)) < rounding


def test_threads_may_share_a_transform():
    transform = PolarTransform(PolarGrid.for_box(32), 32)
    n = transform.images_at_a_time
    stacks = [torch.randn(3 * n, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    expected = [transform.forward(stack) for stack in stacks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(transform.forward, stacks))
    assert all(map(torch.equal, found, expected))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "mps"])
@pytest.mark.parametrize(("size", "n_inplanes"), [((64, 64), None), ((31, 40), 63)])
def test_accelerators_give_what_the_cpu_gives(name, size, n_inplanes):
    if not getattr(torch, name).is_available():
        pytest.skip(f"no {name} device")
    grid = PolarGrid.for_box(size[0], 1.0, n_inplanes)
    images = torch.from_numpy(noise(70, *size)).float()
    on_cpu, on_device = PolarTransform(grid, size), PolarTransform(grid, size, device=name)
    expected = on_cpu.forward(images)
    found = on_device.forward(images.to(name))
    assert error(found.cpu(), expected) < 1e-6
    assert error(on_device.adjoint(found).cpu(), on_cpu.adjoint(expected)) < 1e-5
    with pytest.raises(UsageError, match="the tensor is on cpu"):
        on_device.forward(images)


def test_package_is_imported_without_torch_and_used_without_warnings():
    code = (
        "import sys, cryobridge.fourier as fourier; from cryobridge.fourier.grid import PolarGrid\n"
        "assert 'torch' not in sys.modules\n"
        "import torch; grid = fourier.PolarGrid.for_box(8)\n"
        "for dtype in (torch.float32, torch.float64):\n"
        "    transform = fourier.PolarTransform(grid, 8, dtype)\n"
        "    transform.adjoint(transform.forward(torch.zeros(2, 8, 8)))\n"
        "assert all(callable(getattr(fourier, name)) for name in fourier.__all__)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_benchmark_prints_a_line_for_each_box(monkeypatch, capsys):
    script = BENCHMARKS / "polar_engine.py"
    monkeypatch.setattr(sys, "argv", [script.name, "--box", "8", "12", "--images", "2", "--repeats", "1"])
    runpy.run_path(str(script), run_name="__main__")
    boxes = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert boxes == ["8", "12"]


def test_the_benchmark_of_a_gpu_runs_on_the_processor_too_and_says_where_there_is_none(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)

    def printed(*words):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
        return capsys.readouterr().out

    text = printed("--device", "cpu")
    assert "WRONG" not in text
    assert "FAILED" not in text
    assert text.count(" ok") == 2  # a box, and the memory
    assert "parts of 8" in text
    if not torch.cuda.is_available():
        assert printed().startswith("no CUDA GPU on this machine")
