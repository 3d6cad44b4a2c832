import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interop.relion import Relion
from PIL import Image

from cryobridge.errors import CryobridgeError, FormatError
from cryobridge.formats.movies import EerFractions, MovieHeader, eer_fractions, movie_header, sum_of_frames
from cryobridge.formats.tiff_header import read_tiff_header
from helpers import save_mrc, texts
from movie_files import EVENTS, PAGE, eer_bytes, tiff_bytes


@pytest.fixture
def write(tmp_path):
    def _write(content, name="m.tif"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("n_frames", [1, 38])
def test_frames_of_a_tiff_movie_are_counted_in_its_directories(write, order, is_big, n_frames):
    header = movie_header(write(tiff_bytes([PAGE] * n_frames, order, is_big)))
    assert (header.format, header.n_frames, header.shape_px, header.messages) == ("TIFF", n_frames, (7676, 7420), ())


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_movies_of_another_writer_are_read(tmp_path, compression):
    frames = [Image.fromarray(np.full((48, 36), number, np.uint8)) for number in range(7)]
    frames[0].save(tmp_path / "m.tiff", save_all=True, append_images=frames[1:], compression=compression)
    header = movie_header(tmp_path / "m.tiff")
    assert (header.format, header.n_frames, header.shape_px) == ("TIFF", 7, (48, 36))


def test_frames_of_an_mrc_movie_are_its_sections(tmp_path):
    with mrcfile.new(tmp_path / "m.mrcs", np.zeros((5, 6, 8), np.int8)):
        pass
    header = movie_header(tmp_path / "m.mrcs")
    assert (header.format, header.n_frames, header.shape_px) == ("MRC", 5, (6, 8))


def test_frames_of_an_eer_movie_are_those_of_the_camera(write):
    header = movie_header(write(tiff_bytes([EVENTS] * 1005, is_big=True), "m.eer"))
    assert (header.format, header.n_frames, header.shape_px) == ("EER", 1005, (4096, 4096))


def test_the_image_of_the_sum_is_no_frame_of_an_eer_movie(write):
    pages = [{"width": 4096, "height": 4096, "compression": 1}, *[EVENTS] * 12]
    header = movie_header(write(tiff_bytes(pages, is_big=True), "m.eer"))
    assert (header.n_frames, header.messages) == (12, ())


def test_pages_of_another_size_are_said(write):
    header = movie_header(write(tiff_bytes([*[PAGE] * 4, {"width": 64, "height": 64, "compression": 1}])))
    assert header.n_frames == 4
    assert texts(header.messages) == ["1 of 5 pages is of another size or kind than the first; not counted as frames"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiff_bytes([PAGE] * 3)[:-40], "cut off"),
        (tiff_bytes([PAGE] * 3)[:6], "cut off"),
        (tiff_bytes([PAGE] * 3, last=8), "circle"),
        (tiff_bytes([PAGE], last=10**6), "cut off"),
        (tiff_bytes([PAGE], is_big=True, last=2**63), "cut off"),
        (tiff_bytes([]), "cut off"),
        (b"II*\0" + b"\0" * 20, "no page"),
        (b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 20, "65,535 entries"),
        (b"II+\0\x08\0\0\0\x10" + b"\0" * 7 + b"\xff" * 8 + b"\0" * 40, "18,446,744,073,709,551,615 entries"),
        (tiff_bytes([{"width": 0, "height": 5}]), "0 x 5"),
        (tiff_bytes([{"width": 2**31, "height": 5}]), "2,147,483,648 x 5"),
        (tiff_bytes([{"compression": 1}]), "0 x 0"),
        (b"", "empty"),
        (b"plain text, long enough", "MRC"),
    ],
)
def test_damaged_and_hostile_headers_are_refused(write, content, said):
    with pytest.raises(FormatError, match=said):
        movie_header(write(content))


@given(st.binary(max_size=300), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]))
def test_any_bytes_are_a_movie_or_an_error(tmp_path_factory, content, magic):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    path.write_bytes(magic + content)
    try:
        assert movie_header(path).n_frames > 0
    except CryobridgeError as error:
        assert error.hint


def test_the_first_version_of_eer_is_named(write):
    with pytest.raises(FormatError, match="first version"):
        movie_header(write(b"\1" * 2000, "old.eer"))


def test_a_missing_movie_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="can't be read"):
        movie_header(tmp_path / "none.tif")


def eer(n_frames):
    return MovieHeader("m.eer", n_frames, 4096, 4096, "EER")


@pytest.mark.parametrize(
    ("n_frames", "n_fractions", "shape", "expected"),
    [
        (1000, 40, (4096, 4096), EerFractions(25, 40, 0, 1)),
        (1000, 40, (8192, 8192), EerFractions(25, 40, 0, 2)),
        (1000, 40, (16384, 16384), EerFractions(25, 40, 0, 3)),
        (1000, 40, (8192, 4096), EerFractions(25, 40, 0, None)),
        (1079, 40, None, EerFractions(26, 40, 39, None)),
        (40, 40, None, EerFractions(1, 40, 0, None)),
    ],
)
def test_fractions_become_a_grouping(n_frames, n_fractions, shape, expected):
    assert eer_fractions(eer(n_frames), n_fractions, shape) == expected


@pytest.mark.parametrize("n_fractions", [0, 41])
def test_more_fractions_than_frames_are_refused(n_fractions):
    with pytest.raises(FormatError, match="can't make"):
        eer_fractions(eer(40), n_fractions)


@pytest.mark.relion
def test_the_tiff_movies_that_relion_writes_are_read(tmp_path):
    with mrcfile.new(tmp_path / "m.mrcs", np.arange(6 * 32 * 48).reshape(6, 32, 48).astype(np.int8)):
        pass
    (tmp_path / "out").mkdir()
    Relion(tmp_path).run("relion_convert_to_tiff", "--i", "m.mrcs", "--o", "out/", "--compression", "lzw")
    header = movie_header(tmp_path / "out/m.tif")
    assert (header.format, header.n_frames, header.shape_px) == ("TIFF", 6, (32, 48))
    assert read_tiff_header(tmp_path / "out/m.tif").compression == 5


@pytest.mark.relion
def test_relion_finds_as_many_frames_and_fractions_in_an_eer_movie(tmp_path):
    (tmp_path / "m.eer").write_bytes(eer_bytes([[]] * 14))
    (tmp_path / "out").mkdir()
    run = Relion(tmp_path).run
    run("relion_convert_to_tiff", "--i", "m.eer", "--o", "out/", "--eer_grouping", 4, "--eer_upsampling", 1)
    movie = movie_header(tmp_path / "m.eer")
    assert (movie.format, movie.n_frames, movie.shape_px) == ("EER", 14, (4096, 4096))
    fractions = eer_fractions(movie, 3)
    assert fractions == EerFractions(4, 3, 2, None)
    assert movie_header(tmp_path / "out/m.tif").n_frames == fractions.n_fractions


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_sums_of_frames_that_are_no_images_are_refused(tmp_path, value):
    frames = np.ones((3, 6, 8), "f4")
    frames[:, 3, 4] = value
    header = movie_header(save_mrc(tmp_path / "m.mrc", frames))
    with pytest.raises(FormatError, match="no numbers, or larger"):
        sum_of_frames(header, range(3))
    frames[:, 3, 4] = 5
    save_mrc(tmp_path / "m.mrc", frames)
    np.testing.assert_array_equal(sum_of_frames(header, [0, 2]), 2 * frames[0])


def test_a_file_that_becomes_shorter_while_it_is_read_is_cut_off(write, monkeypatch):
    content = tiff_bytes([PAGE] * 3)
    monkeypatch.setattr("cryobridge.formats.tiff_header.readable_size", lambda _: len(content))
    for length in range(16, len(content)):
        with pytest.raises(FormatError, match="cut off"):
            movie_header(write(content[:length]))
