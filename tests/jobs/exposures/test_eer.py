"""EER movies: grouping of frames, pixels in which electrons are counted, and the dose of a fraction."""

import numpy as np
import pytest
from interop.motion import DOSE_E_A2, N_FRAMES, PIXEL_SIZE_A, SHAPE_PX, exposures, write_cs

import cryobridge as cb
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.movies import EerFractions
from cryobridge.jobs.exposures.eer import about_eer, finer_pixels, used_part
from cryobridge.jobs.exposures.motion import MovieFiles, plan_motion
from cryobridge.jobs.exposures.motion_options import MotionOptions
from helpers import codes, texts
from movie_files import tiff_bytes


@pytest.fixture
def plan(tmp_path):
    """From the frames of the camera and the columns, the planned metadata of one EER movie."""

    def _plan(n_frames, finer=1, changes=None, **options):
        ny, nx = SHAPE_PX
        page = {"width": nx // finer, "height": ny // finer, "compression": 65001}
        (tmp_path / "J2/motioncorrected").mkdir(parents=True)
        (tmp_path / "m.eer").write_bytes(tiff_bytes([page] * n_frames, is_big=True))
        steps = np.arange(N_FRAMES, dtype=float)
        np.save(tmp_path / "J2/motioncorrected/m_rigid_traj.npy", np.stack([-steps, steps], axis=1)[None])
        columns = exposures(["m"], ".eer") | (changes or {})
        columns = {name: values for name, values in columns.items() if not name.startswith("spline")}
        write_cs(tmp_path / "J2/exposures.cs", columns)
        micrographs = read_exposures(tmp_path / "J2/exposures.cs")
        movies = MovieFiles(["Movies/m.eer"], [tmp_path / "m.eer"], [None])
        return plan_motion(micrographs, MotionOptions(**options), movies, ImageSearch(micrographs.source).resolve)

    return _plan


def test_fractions_become_rlneergrouping(plan):
    found = plan(25 * N_FRAMES)
    metadata = found.metadata(0)
    assert (metadata.eer_grouping, metadata.eer_upsampling) == (25, 1)
    assert (metadata.motion.n_frames, metadata.motion.shape_px) == (N_FRAMES, SHAPE_PX)
    assert metadata.dose_per_frame_e_A2 == pytest.approx(DOSE_E_A2 / N_FRAMES)
    assert "--eer_grouping 25 --eer_upsampling 1" in "".join(texts(found.messages))
    assert "eer-frames-left" not in codes(found.messages)


def test_frames_that_make_no_fraction_are_said_and_their_dose_is_not_counted(plan):
    found = plan(25 * N_FRAMES + 7)
    metadata = found.metadata(0)
    assert metadata.eer_grouping == 25
    assert metadata.dose_per_frame_e_A2 == pytest.approx(DOSE_E_A2 * 25 / (25 * N_FRAMES + 7))
    (said,) = [message for message in found.messages if message.code == "eer-frames-left"]
    assert "up to 7 frames at the end" in said.text
    assert "by 0.28 fractions" in said.text
    assert said.severity == "warning"


def test_a_dose_that_is_given_is_taken_as_it_is(plan):
    assert plan(25 * N_FRAMES + 7, dose_per_frame=1.25).metadata(0).dose_per_frame_e_A2 == 1.25


def test_finer_pixels_are_said_to_relion(plan):
    metadata = plan(20 * N_FRAMES, finer=2).metadata(0)
    assert (metadata.eer_upsampling, metadata.pixel_size_A, metadata.binning) == (2, PIXEL_SIZE_A, 1)


def test_the_size_of_the_cameras_pixels_is_known_by_the_micrograph(plan):
    """Movie and micrograph have one pixel size, and the movie twice as many pixels: it is the micrograph's."""
    half = np.array([[side // 2 for side in SHAPE_PX]], "<u4")
    found = plan(20 * N_FRAMES, finer=2, changes={"micrograph_blob/shape": half})
    metadata = found.metadata(0)
    assert (metadata.pixel_size_A, metadata.binning) == (PIXEL_SIZE_A / 2, 2)
    # A pixel of the trajectory's size is two of the movie's.
    np.testing.assert_allclose(metadata.motion.global_px[:, 0], 2 * np.arange(N_FRAMES), atol=1e-6)
    assert "eer-pixel-size" in codes(found.messages)


@pytest.mark.parametrize("shape", [[N_FRAMES, 300, 352], [N_FRAMES, 288 * 3, 352 * 3]])
def test_sizes_that_are_no_multiple_of_the_cameras_are_left_out(plan, shape):
    assert plan(20 * N_FRAMES, changes={"movie_blob/shape": np.array([shape], "<u4")}).left_out == {
        "movie of another size": 1
    }


def test_fewer_frames_than_fractions_are_left_out(plan):
    found = plan(N_FRAMES - 1)
    assert len(found.rows) == 0
    assert "7 frames can't make 8 fractions" in "".join(texts(found.messages))


@pytest.mark.parametrize(
    ("upsampling", "movie_A", "micrograph_A", "factor"),
    [(1, 800, 400, 1), (2, 800, 400, 2), (2, 400, 400, 1), (3, 1600, 400, 4), (2, 790, 400, 2), (2, 800, None, 1)],
)
def test_pixels_are_finer_where_the_movie_would_be_wider_than_the_micrograph(upsampling, movie_A, micrograph_A, factor):
    assert finer_pixels(EerFractions(25, 40, 0, upsampling), movie_A, micrograph_A) == factor


def test_fractions_of_imported_movies_are_said(tmp_path, monkeypatch):
    """Where nothing but movies is imported, RELION's motion correction is told by its options."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "J1/imported").mkdir(parents=True)
    names = [f"m{number}" for number in range(3)]
    for name in names:
        page = {"width": SHAPE_PX[1], "height": SHAPE_PX[0], "compression": 65001}
        (tmp_path / f"J1/imported/{name}.eer").write_bytes(tiff_bytes([page] * 30 * N_FRAMES, is_big=True))
    columns = {name: values for name, values in exposures(names, ".eer").items() if name.startswith(("u", "mo", "ms"))}
    write_cs(tmp_path / "J1/imported_exposures.cs", columns)
    report = cb.micrographs("J1/imported_exposures.cs", "out", amplitude_contrast=0.1)
    assert report.lists == {"movies.star": 3}
    (said,) = [message for message in report.messages if message.code == "eer-fractions"]
    assert "3 of 3 EER movies have 30 frames in a fraction" in said.text
    assert "--eer_grouping 30 --eer_upsampling 1" in said.text


def test_what_is_said_counts_movies():
    found = [EerFractions(25, 40, 0, 2)] * 3 + [EerFractions(26, 40, 39, 2)]
    said = about_eer(found, n_finer=4)
    assert codes(said) == ["eer-fractions", "eer-frames-left", "eer-pixel-size"]
    assert "3 of 4 EER movies have 25 frames in a fraction" in said[0].text
    assert "1 of 4 EER movies makes no equal fractions" in said[1].text
    assert about_eer([]) == []
    assert used_part(found[3]) == pytest.approx(1040 / 1079)
