import numpy as np
import pytest
from scipy import ndimage

from cryobridge.errors import FormatError
from cryobridge.formats.cryosparc.motion import Reading, patch_shifts, read_rigid, read_spline, spline_shifts, to_relion

rng = np.random.default_rng(0)
SHAPE = (90, 130)
N_FRAMES = 11
SPLINE = rng.normal(size=(2, 4, 5, 6))
RIGID = np.cumsum(rng.normal(size=(N_FRAMES, 2)), axis=0)


def direct_sum(coefficients, frame, y_px, x_px):
    """Sum B-spline kernels of three axes over the coefficients, which go on by odd reflection."""

    def kernel(t):
        t = abs(t)
        if t < 1:
            return (4 - 6 * t * t + 3 * t**3) / 6
        return (2 - t) ** 3 / 6 if t < 2 else 0.0

    padded = np.pad(coefficients, 1, mode="reflect", reflect_type="odd")
    sizes = (N_FRAMES, *SHAPE)
    at = [p * (k - 1) / (n - 1) for p, k, n in zip((frame, y_px, x_px), coefficients.shape, sizes, strict=True)]
    total = 0.0
    for (c, b, a), value in np.ndenumerate(padded):
        total += value * kernel(at[0] - c + 1) * kernel(at[1] - b + 1) * kernel(at[2] - a + 1)
    return total


def test_splines_are_sums_of_kernels():
    y, x = np.array([0, 17.25, 44.5, 89]), np.array([0, 3.75, 129])
    found = spline_shifts(SPLINE, N_FRAMES, SHAPE, y, x)
    for f in (0, 1, 5, 10):
        for j in range(4):
            for i in range(3):
                for axis in (0, 1):
                    assert found[f, j, i, axis] == pytest.approx(direct_sum(SPLINE[axis], f, y[j], x[i]), abs=1e-12)


def test_splines_are_what_scipy_makes_of_the_coefficients():
    y, x = np.arange(90.0), np.arange(130.0)
    axes = np.meshgrid(np.arange(N_FRAMES) * 3 / 10, y * 4 / 89, x * 5 / 129, indexing="ij")
    padded = np.pad(SPLINE[1], 1, mode="reflect", reflect_type="odd")
    expected = ndimage.map_coordinates(padded, np.array(axes) + 1, order=3, prefilter=False, mode="constant")
    found = spline_shifts(SPLINE, N_FRAMES, SHAPE, y, x)[..., 1]
    inner = (slice(None), slice(None, -1), slice(None, -1))  # at the very last pixel SciPy takes the point as outside
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-12)


def test_rigid_trajectories_get_relions_signs_and_zero():
    converted = to_relion(RIGID, None, SHAPE)
    np.testing.assert_allclose(converted.motion.global_px, (RIGID - RIGID[0]) * [-1, 1])
    assert converted.offset_px == pytest.approx(np.linalg.norm(RIGID[0]))


@pytest.mark.parametrize(("rows", "sign"), [("reversed", 1), ("stored", -1)])
def test_local_motion_is_sampled_in_cryosparcs_rows(rows, sign):
    # Of a spline that the model holds exactly: one that is linear in time and place.
    z, y, x = (np.linspace(0, 1, n) for n in (4, 5, 6))
    field = z[:, None, None] * (2 * y[:, None] + x)
    converted = to_relion(RIGID, np.array([field, 3 * field]), SHAPE, reading=Reading(rows=rows))
    place, frame = (30, 20), 7
    y_px = SHAPE[0] - 1 - place[1] if rows == "reversed" else place[1]
    value = direct_sum(field, frame, y_px, place[0])
    found = converted.motion.shifts_px(np.array([place]))[0, frame] - converted.motion.global_px[frame]
    np.testing.assert_allclose(found, [-value, sign * 3 * value], atol=1e-9)
    assert converted.fit.rms_px < 1e-9
    # The patches, at whose centres RELION lists shifts, are those of the spline.
    centre_x, centre_y = 1.5 * 130 / 5, 3.5 * 90 / 5
    y_px = SHAPE[0] - 1 - centre_y if rows == "reversed" else centre_y
    expected = -direct_sum(field, frame, y_px, centre_x)
    patches = patch_shifts(np.array([field, 3 * field]), N_FRAMES, SHAPE, rows=rows)
    assert patches[frame, 3, 1, 0] == pytest.approx(expected, abs=1e-9)


def test_what_the_model_does_not_hold_is_the_residual():
    converted = to_relion(RIGID, SPLINE, SHAPE)
    assert converted.fit.largest_px > converted.fit.rms_px > 0.05
    smooth = SPLINE * 0 + np.linspace(0, 1, 4)[:, None, None]
    assert to_relion(RIGID, smooth, SHAPE).fit.largest_px < 1e-9


def test_numbers_in_other_units_are_scaled():
    scaled = to_relion(RIGID, SPLINE, SHAPE, scale=0.5).motion
    plain = to_relion(RIGID, SPLINE, SHAPE).motion
    np.testing.assert_allclose(scaled.global_px, plain.global_px / 2)
    np.testing.assert_allclose(scaled.coefficients, plain.coefficients / 2)


def test_the_zero_of_the_trajectory_can_be_kept():
    constant = np.full((2, 4, 5, 6), 0.25)
    kept = to_relion(RIGID, constant, SHAPE, reading=Reading(zero="stored"))
    np.testing.assert_allclose(kept.motion.global_px, (RIGID + 0.25) * [-1, 1])
    assert kept.fit.largest_px < 1e-9
    assert kept.local_offset_px == pytest.approx(np.hypot(0.25, 0.25))


def test_frames_outside_the_trajectory_have_no_shift():
    motion = to_relion(RIGID, None, SHAPE, n_frames=15, first_frame=3).motion
    assert np.isnan(motion.global_px[[0, 1, 13, 14]]).all()
    np.testing.assert_array_equal(motion.global_px[2], 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((1, 5, 3)), "no trajectory"),
        (np.zeros((0, 5, 2)), "no trajectory"),
        (np.full((1, 5, 2), np.nan), "not numbers"),
        (np.full((1, 5, 2), -9999.0), "not found"),
        (np.array(["a", "b"]), "no trajectory"),
    ],
)
def test_arrays_that_are_no_trajectory_are_refused(tmp_path, values, said):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(FormatError, match=said):
        read_rigid(tmp_path / "a.npy")


def test_trajectories_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([RIGID, RIGID + 1], np.float32))
    np.testing.assert_allclose(read_rigid(tmp_path / "a.npy", 1), RIGID + 1, rtol=1e-6)
    np.save(tmp_path / "b.npy", SPLINE)
    np.testing.assert_array_equal(read_spline(tmp_path / "b.npy"), SPLINE)
    with pytest.raises(FormatError, match="no spline"):
        read_spline(tmp_path / "a.npy")


@pytest.mark.parametrize("longest", [1e7, 1e300, np.longdouble("1e4000")])
def test_shifts_that_no_frame_has_are_refused(tmp_path, longest):
    for name, values, read in (("rigid", RIGID[np.newaxis], read_rigid), ("spline", SPLINE, read_spline)):
        changed = values.astype(np.longdouble)
        changed[(0,) * changed.ndim] = longest
        np.save(tmp_path / f"{name}.npy", changed)
        with pytest.raises(FormatError, match=r"as no frame has|not numbers"):
            read(tmp_path / f"{name}.npy")


@pytest.mark.parametrize("shape", [(2, 1, 1, 30_000), (2, 30_000, 1, 1)])
def test_splines_of_more_points_than_any_are_refused_before_memory_is_taken(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, "f4"))
    with pytest.raises(FormatError, match="more points than any"):
        read_spline(tmp_path / "a.npy")
