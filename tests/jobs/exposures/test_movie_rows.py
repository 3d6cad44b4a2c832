import mrcfile
import numpy as np
import pytest
from interop.motion import write_movie
from scipy import ndimage

from cryobridge.jobs.exposures.motion_options import MotionOptions
from cryobridge.jobs.exposures.movie_rows import check_rows, row_messages

rng = np.random.default_rng(0)
SPECIMEN = ndimage.gaussian_filter(rng.normal(size=(300, 400)), 3)
SPECIMEN = 1 + 0.1 * SPECIMEN / SPECIMEN.std()


def files(folder, suffix, *, is_reversed, binned=1):
    """A movie of noisy frames in RELION's rows, and its average."""
    movie, average = folder / f"a{suffix}", folder / "a.mrc"
    write_movie(movie, SPECIMEN + rng.normal(0, 0.2, (6, 300, 400)), None)
    pixels = SPECIMEN.reshape(300 // binned, binned, 400 // binned, binned).mean(axis=(1, 3))
    pixels = pixels - ndimage.gaussian_filter(pixels, 50)  # cryoSPARC subtracts the background
    with mrcfile.new(average, pixels[:: -1 if is_reversed else 1].astype("f4")):
        pass
    return [movie], [average]


@pytest.mark.parametrize("binned", [1, 2])
@pytest.mark.parametrize("suffix", [".mrcs", ".tif"])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_averages_show_how_their_rows_lie(tmp_path, suffix, is_reversed, binned):
    check = check_rows(*files(tmp_path, suffix, is_reversed=is_reversed, binned=binned))
    assert check.rows == ("reversed" if is_reversed else "stored")


@pytest.mark.parametrize(
    ("is_reversed", "flip_y", "motion_rows", "warned_of"),
    [
        (True, True, "pixels", []),
        (False, False, "pixels", []),
        (False, True, "pixels", ["flip_y"]),
        (True, True, "reversed", []),
        (True, False, "reversed", ["flip_y"]),
        (True, True, "stored", ["motion_rows"]),
        (False, False, "stored", []),
        (False, False, "reversed", ["motion_rows"]),
        (False, True, "reversed", ["flip_y", "motion_rows"]),
    ],
)
def test_options_that_do_not_fit_are_warned_of(tmp_path, is_reversed, flip_y, motion_rows, warned_of):
    check = check_rows(*files(tmp_path, ".tif", is_reversed=is_reversed))
    messages = row_messages(check, MotionOptions(motion_rows=motion_rows), flip_y=flip_y)
    assert [message.option for message in messages if message.severity == "warning"] == warned_of
    if "flip_y" in warned_of:
        assert ("leave flip_y= out" if flip_y else "give flip_y=True") in str(messages[0])
    assert messages


def test_nothing_is_said_where_nothing_can_be_compared(tmp_path):
    movies, averages = files(tmp_path, ".mrcs", is_reversed=True)
    assert check_rows([None], averages) is None
    (tmp_path / "b.eer").write_bytes(b"no movie")
    assert check_rows([tmp_path / "b.eer"], averages) is None
    with mrcfile.new(tmp_path / "noise.mrc", rng.normal(size=(300, 400)).astype("f4")):
        pass
    check = check_rows(movies, [tmp_path / "noise.mrc"])
    assert check.rows is None
    assert [message.severity for message in row_messages(check, MotionOptions(), flip_y=False)] == ["note"]


def test_gain_references_are_applied(tmp_path):
    gain = np.where(ndimage.gaussian_filter(rng.normal(size=(300, 400)), 4) > 0, 1.6, 0.6)
    movies, averages = files(tmp_path, ".mrcs", is_reversed=False)
    movies[0].unlink()
    write_movie(movies[0], SPECIMEN + rng.normal(0, 0.2, (6, 300, 400)), gain)
    with_gain = check_rows(movies, averages, lambda _: gain.astype("f4"))
    assert with_gain.stored > 2 * check_rows(movies, averages).stored
