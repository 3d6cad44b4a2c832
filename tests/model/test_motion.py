import numpy as np
import pytest

from cryobridge.errors import CryobridgeError
from cryobridge.model.motion import MotionModel, evaluated, fitted, normalised, patch_centres

rng = np.random.default_rng(0)
SHAPE = (300, 400)


def polynomial(coefficients, x, y, z):
    """The formula, term by term, for one direction."""
    terms = [1, x, x * x, y, y * y, x * y]
    return sum(
        (coefficients[3 * i] * z + coefficients[3 * i + 1] * z**2 + coefficients[3 * i + 2] * z**3) * term
        for i, term in enumerate(terms)
    )


def test_shifts_are_the_global_ones_and_the_polynomial():
    coefficients, together = rng.normal(size=(2, 18)), rng.normal(size=(6, 2))
    motion = MotionModel(together, SHAPE, coefficients, first_frame=2)
    places = np.array([[0.0, 0.0], [399.0, 10.5], [200.0, 150.0]])
    found = motion.shifts_px(places)
    for n, (x_px, y_px) in enumerate(places):
        x, y = x_px / 400 - 0.5, y_px / 300 - 0.5
        for frame in range(1, 7):
            for axis in (0, 1):
                expected = together[frame - 1, axis] + polynomial(coefficients[axis], x, y, frame - 2)
                assert found[n, frame - 1, axis] == pytest.approx(expected, abs=1e-9)


def on_grid(coefficients, n_frames, y, x):
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) - 0.5
    return evaluated(coefficients, places, np.arange(n_frames)).swapaxes(0, 1).reshape(n_frames, len(y), len(x), 2)


def test_a_polynomial_is_found_again():
    coefficients = rng.normal(size=(2, 6, 3)) * [1, 1e-2, 1e-4]
    y, x = patch_centres(5, 7)
    fit = fitted(on_grid(coefficients.reshape(2, 18), 60, y, x), y, x)
    np.testing.assert_allclose(fit.coefficients, coefficients.reshape(2, 18), rtol=1e-6, atol=1e-8)
    assert fit.largest_px < 1e-8


def test_the_fit_is_that_of_ordinary_least_squares_with_its_residual():
    y, x = patch_centres(5, 5)
    shifts = rng.normal(size=(9, 5, 5, 2))
    fit = fitted(shifts, y, x)
    rows, values = [], []
    for f in range(9):
        for j in range(5):
            for i in range(5):
                basis = np.eye(18)
                rows.append([polynomial(unit, x[i] - 0.5, y[j] - 0.5, f) for unit in basis])
                values.append(shifts[f, j, i])
    solution, *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    np.testing.assert_allclose(fit.coefficients, solution.T, atol=1e-9)
    rest = np.linalg.norm(np.array(values) - np.array(rows) @ solution, axis=1)
    assert fit.rms_px == pytest.approx(np.sqrt((rest**2).mean()))
    assert fit.largest_px == pytest.approx(rest.max())


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_few_frames_are_fitted_exactly(n_frames):
    y, x = patch_centres(4, 4)
    shifts = np.arange(n_frames)[:, None, None, None] * rng.normal(size=2) * np.ones((n_frames, 4, 4, 2))
    assert fitted(shifts, y, x).largest_px < 1e-9


def test_shifts_that_are_no_numbers_are_refused():
    y, x = patch_centres(2, 2)
    with pytest.raises(CryobridgeError, match="not numbers"):
        fitted(np.full((3, 2, 2, 2), np.nan), y, x)


def test_paths_pass_over_frames_that_are_not_used():
    motion = MotionModel(np.array([[np.nan, np.nan], [0, 0], [3, 4], [3, 5], [np.nan, np.nan]]), SHAPE)
    assert motion.path_px() == 6
    assert motion.path_px(1, 3) == 5


def test_places_are_fractions_about_the_middle():
    assert normalised(np.array([[0, 0], [200, 150]]), SHAPE).tolist() == [[-0.5, -0.5], [0, 0]]
