import numpy as np
import pytest
from interop.motion import write_movie
from scipy import ndimage

from cryobridge.jobs.exposures.motion_options import MotionOptions
from cryobridge.jobs.exposures.movie_drift import check_drift, drift_messages
from cryobridge.model.motion import MotionModel

rng = np.random.default_rng(0)
N_FRAMES, SHAPE, PIXEL_SIZE_A = 12, (300, 380), 1.6
SPECIMEN = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2)
SPECIMEN = 1 + 0.1 * SPECIMEN / SPECIMEN.std()
# RELION's shifts: the way back.
SHIFTS = np.cumsum(rng.normal([0.7, -0.5], 0.3, (N_FRAMES, 2)), axis=0)
GAIN = rng.uniform(0.7, 1.3, SHAPE)


@pytest.fixture(scope="module", params=[".mrcs", ".tif"])
def movie(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("movies") / f"a{request.param}"
    frames = [ndimage.shift(SPECIMEN, (-y, -x), mode="wrap") + rng.normal(0, 0.4, SHAPE) for x, y in SHIFTS]
    write_movie(path, np.clip(frames, 0, None), GAIN)
    return path


def drift(movie, factors=(1, 1)):
    motion = MotionModel(SHIFTS * np.array(factors), SHAPE)
    return check_drift([motion], [movie], lambda _: GAIN.astype("f4"))


def test_movies_that_move_as_expected_say_so(movie):
    found = drift(movie)
    assert found.is_sure(0) and found.is_sure(1)
    assert (found.factor_x, found.factor_y) == pytest.approx((1, 1), abs=0.1)
    messages = drift_messages(found, MotionOptions(), PIXEL_SIZE_A)
    assert [message.severity for message in messages] == ["note"]


@pytest.mark.parametrize(
    ("factors", "options", "fits"),
    [
        ((1, -1), {}, ["motion_rows='stored'"]),
        ((1, -1), {"motion_rows": "stored"}, ["motion_rows='reversed'"]),
        ((PIXEL_SIZE_A, PIXEL_SIZE_A), {}, ["motion_unit='A'"]),
        ((1 / PIXEL_SIZE_A, 1 / PIXEL_SIZE_A), {"motion_unit": "A"}, ["motion_unit='px'"]),
        ((PIXEL_SIZE_A, -PIXEL_SIZE_A), {}, ["motion_unit='A'", "motion_rows='stored'"]),
        ((-1, -1), {}, []),
    ],
)
def test_wrong_signs_and_units_are_seen(movie, factors, options, fits):
    (message,) = drift_messages(drift(movie, factors), MotionOptions(**options), PIXEL_SIZE_A)
    assert message.severity == "warning"
    said = str(message)
    assert "don't move as" in said
    assert all(one in said for one in fits)
    assert ("would fit" in said) == bool(fits)


def test_motion_that_pixels_do_not_show_is_left_open(tmp_path):
    write_movie(tmp_path / "noise.mrcs", rng.uniform(0.5, 1.5, (N_FRAMES, *SHAPE)), None)
    found = check_drift([MotionModel(SHIFTS, SHAPE)], [tmp_path / "noise.mrcs"])
    assert [message.severity for message in drift_messages(found, MotionOptions(), 1.0)] == ["note"]
    assert "don't show" in str(drift_messages(found, MotionOptions(), 1.0)[0])
    assert check_drift([MotionModel(SHIFTS, SHAPE)], [None]) is None
    (tmp_path / "a.eer").write_bytes(b"no movie")
    assert check_drift([MotionModel(SHIFTS, SHAPE)], [tmp_path / "a.eer"]) is None
