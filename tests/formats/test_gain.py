import struct

import mrcfile
import numpy as np
import pytest
from PIL import Image

from cryobridge.errors import FormatError
from cryobridge.formats.gain import (
    ALL_TURNS,
    RelionTurn,
    Turn,
    flatness,
    for_relion,
    read_gain,
    relion_turn,
    write_gain,
)
from cryobridge.formats.tiff_pixels import read_tiff_pages
from movie_files import tiff_bytes

rng = np.random.default_rng(0)
GAIN = rng.uniform(0.7, 1.3, (60, 90)).astype("f4")


def test_cryosparc_flips_first_and_turns_counter_clockwise():
    corners = np.array([[1, 2], [3, 4]])
    assert Turn(flip_x=True).of(corners).tolist() == [[2, 1], [4, 3]]
    assert Turn(flip_y=True).of(corners).tolist() == [[3, 4], [1, 2]]
    assert Turn(quarter_turns=1).of(corners).tolist() == [[2, 4], [1, 3]]
    assert Turn(flip_y=True, quarter_turns=1).of(corners).tolist() == [[4, 2], [3, 1]]
    assert Turn(quarter_turns=5).of(corners).tolist() == Turn(quarter_turns=1).of(corners).tolist()


@pytest.mark.parametrize("is_tiff_gain", [False, True])
@pytest.mark.parametrize("movie", ["MRC", "TIFF", "EER"])
@pytest.mark.parametrize("flip_y", [False, True])
def test_relions_options_turn_the_original_alike(movie, is_tiff_gain, flip_y):
    for turn in (Turn(way.flip_x, flip_y, way.quarter_turns) for way in ALL_TURNS):
        way = relion_turn(turn, movie, is_tiff_gain=is_tiff_gain)
        as_read = GAIN[::-1] if is_tiff_gain else GAIN
        np.testing.assert_array_equal(way.of(as_read), for_relion(GAIN, turn, movie))


def test_relion_turns_clockwise_and_then_flips():
    corners = np.array([[1, 2], [3, 4]])
    assert RelionTurn(1, 0).of(corners).tolist() == [[3, 1], [4, 2]]
    assert RelionTurn(1, 2).of(corners).tolist() == [[1, 3], [2, 4]]


def test_references_that_divide_become_their_inverse_with_defects_at_0():
    gain = GAIN.copy()
    gain[3, 4] = 0
    found = for_relion(gain, Turn(), "EER", divides=True)
    assert found[3, 4] == 0
    np.testing.assert_allclose(found[0] * gain[0], found[0, 0] * gain[0, 0], rtol=1e-5)


def test_rows_are_read_as_they_are_stored(tmp_path):
    write_gain(tmp_path / "a.mrc", GAIN, 1.0)
    Image.fromarray(GAIN).save(tmp_path / "a.tif")
    Image.fromarray(GAIN).save(tmp_path / "a.gain", format="TIFF", compression="tiff_lzw")
    for name in ("a.mrc", "a.tif", "a.gain"):
        np.testing.assert_array_equal(read_gain(tmp_path / name), GAIN)
    assert mrcfile.validate(tmp_path / "a.mrc")


@pytest.mark.parametrize("mode", ["u1", "u2"])
def test_pages_of_movies_are_read(tmp_path, mode):
    frames = rng.integers(0, 200, (4, 20, 30)).astype(mode)
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others, compression="tiff_lzw")
    np.testing.assert_array_equal(read_tiff_pages(tmp_path / "a.tif", [3, 0]), frames[[3, 0]])


def test_what_is_no_reference_is_refused(tmp_path):
    (tmp_path / "a.dm4").write_bytes(b"\0\0\0\4")
    with pytest.raises(FormatError, match="DM4 is not read"):
        read_gain(tmp_path / "a.dm4")
    with mrcfile.new(tmp_path / "b.mrc", np.zeros((2, 5, 5), "f4")):
        pass
    with pytest.raises(FormatError, match="2 images"):
        read_gain(tmp_path / "b.mrc")
    with pytest.raises(FormatError):
        read_gain(tmp_path / "absent.mrc")
    Image.fromarray(np.zeros((5, 5, 3), "u1")).save(tmp_path / "c.tif")
    with pytest.raises(FormatError, match="RGB are not read"):
        read_gain(tmp_path / "c.tif")
    Image.fromarray(GAIN).save(tmp_path / "d.tif", compression="tiff_lzw")
    whole = (tmp_path / "d.tif").read_bytes()
    (tmp_path / "d.tif").write_bytes(whole[:8] + bytes(len(whole) - 8 - 400) + whole[-400:])
    with pytest.raises(FormatError):
        read_gain(tmp_path / "d.tif")


@pytest.mark.parametrize("turn", ALL_TURNS)
def test_a_mean_of_frames_shows_how_the_reference_lies(turn):
    lying = turn.of(GAIN)
    ice = 20 + 5 * np.sin(np.linspace(0, 5, lying.shape[1]))
    mean = rng.poisson(30 * ice / lying) / 30
    found = flatness(GAIN, mean)
    assert found.is_sure
    np.testing.assert_array_equal(found.turn.of(GAIN), lying)
    assert not flatness(GAIN, rng.poisson(30 * ice * np.ones_like(lying))).is_sure


def test_nothing_is_said_of_references_that_are_flat_or_of_another_size():
    assert flatness(GAIN, np.ones((60, 90))) is None
    assert flatness(GAIN, rng.uniform(size=(61, 90))) is None
    square = GAIN[:, :60]
    assert flatness(square, 1 / square).correlation > 0.99
    assert flatness(square, square, divides=True).correlation > 0.99


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_reference_with_pixels_that_are_no_numbers_is_refused(tmp_path, value):
    gain = GAIN.copy()
    gain[3, 4] = value
    for name in ("gain.mrc", "gain.tif"):
        if name.endswith(".tif"):
            Image.fromarray(gain).save(tmp_path / name)
        else:
            write_gain(tmp_path / name, gain, 1.0)
        with pytest.raises(FormatError, match="1 of 5,400 pixels is no number, or larger"):
            read_gain(tmp_path / name)


@pytest.mark.filterwarnings("error")
def test_pixels_that_count_nothing_but_for_rounding_are_0_in_what_movies_are_multiplied_by():
    counts = GAIN.copy()
    counts[3, 4], counts[5, 6] = 1e-44, 0
    inverse = for_relion(counts, Turn(), "EER", divides=True)
    assert (inverse[3, 4], inverse[5, 6]) == (0, 0)
    others = counts > 0.1
    np.testing.assert_allclose((inverse * counts)[others], counts[counts > 0].mean(), rtol=1e-6)


def test_a_small_tiff_file_of_a_huge_image_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_bytes([{"width": 1 << 19, "height": 1 << 19, "compression": 8, "bits": 8}]))
    with pytest.raises(FormatError, match=r"62 bytes would unpack to 1,099,511,627,776"):
        read_gain(path)


@pytest.mark.filterwarnings("error")
def test_odd_tags_of_a_tiff_file_raise_no_warning(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray((GAIN * 100).astype("u1")).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 262, 3, 1))  # how pixels are to be seen
    data[at + 4] = 2  # one value, and two are announced
    path.write_bytes(data)
    np.testing.assert_array_equal(read_gain(path), (GAIN * 100).astype("u1"))


@pytest.mark.filterwarnings("error")
def test_pixels_of_movies_that_are_no_numbers_are_left_out_of_the_comparison():
    mean = 1 / GAIN
    mean[3, 4], mean[5, 6], mean[7, 8] = np.inf, np.nan, -np.inf
    seen = flatness(GAIN, mean)
    assert seen.is_sure
    assert seen.turn == Turn()
