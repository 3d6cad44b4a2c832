"""RELION's lists of micrographs and movies, in all its layouts, become micrograph sets."""

import numpy as np
import pytest

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.relion.list_names import LIST_FILES
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.formats.relion.micrographs_write import list_blocks
from cryobridge.formats.relion.star_write import write_star

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3
_rlnMicrographPixelSize #4
_rlnMicrographOriginalPixelSize #5
_rlnVoltage #6
_rlnSphericalAberration #7
_rlnAmplitudeContrast #8
_rlnBeamTiltX #9
_rlnBeamTiltY #10
second 2 mtf.star 0.8 0.4 300 2.7 0.1 0.25 -0.5
first 1 mtf.star 1.1 0.55 200 2.7 0.07 0 0

"""
ROWS = """
# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnMicrographMetadata #2
_rlnOpticsGroup #3
_rlnDefocusU #4
_rlnDefocusV #5
_rlnDefocusAngle #6
_rlnPhaseShift #7
_rlnCtfFigureOfMerit #8
_rlnCtfMaxResolution #9
_rlnAccumMotionTotal #10
_rlnAccumMotionEarly #11
_rlnAccumMotionLate #12
_rlnOwnColumn #13
MotionCorr/job002/a.mrc MotionCorr/job002/a.star 2 15000 14000 90 45 0.1 3.5 10 4 6 x
MotionCorr/job002/b.mrc MotionCorr/job002/b.star 1 11000 10500 -30 0 0.2 4.5 20 5 15 y

"""


@pytest.fixture
def star(tmp_path):
    path = tmp_path / "micrographs_ctf.star"
    path.write_text(OPTICS + ROWS)
    return path


def test_what_is_known_of_micrographs(star):
    found = read_micrographs(star)
    assert found.names == ("MotionCorr/job002/a.mrc", "MotionCorr/job002/b.mrc")
    assert found.pixel_size_A.tolist() == [0.8, 1.1]
    assert found.per_micrograph("voltage_kV").tolist() == [300, 200]
    assert found.per_micrograph("movie_pixel_size_A").tolist() == [0.4, 0.55]
    assert [found.optics.name[row] for row in found.optics_index] == ["second", "first"]
    np.testing.assert_allclose(np.degrees(found.ctf.defocus_angle_rad), [90, -30])
    np.testing.assert_allclose(np.degrees(found.ctf.phase_shift_rad), [45, 0])
    assert (found.fit.resolution_A.tolist(), found.fit.score.tolist()) == ([3.5, 4.5], [0.1, 0.2])
    assert found.motion.metadata[1] == "MotionCorr/job002/b.star"
    assert found.motion.total_A.tolist() == [10, 20]
    assert found.extra.names == ("rlnOwnColumn",)
    assert found.optics.aberrations.beam_tilt_A.any()


@pytest.mark.parametrize("kind", ["micrographs", "corrected", "ctf"])
def test_what_is_read_is_written_again(star, tmp_path, kind):
    found = read_micrographs(star)
    path = tmp_path / f"again_{LIST_FILES[kind]}"
    write_star(path, list_blocks(found, kind))
    again = read_micrographs(path)
    assert again.names == found.names
    for name in ("voltage_kV", "pixel_size_A", "movie_pixel_size_A", "amplitude_contrast"):
        np.testing.assert_array_equal(again.per_micrograph(name), found.per_micrograph(name))
    groups = [[item.optics.name[row] for row in item.optics_index] for item in (found, again)]
    assert groups[0] == groups[1]
    np.testing.assert_allclose(again.optics.aberrations.beam_tilt_A, found.optics.aberrations.beam_tilt_A)
    assert "mtf.star" in path.read_text()
    if kind == "ctf":
        np.testing.assert_allclose(again.ctf.defocus_angle_rad, found.ctf.defocus_angle_rad, rtol=1e-9)
        np.testing.assert_allclose(again.ctf.phase_shift_rad, found.ctf.phase_shift_rad, rtol=1e-9)
    if kind == "corrected":
        assert again.motion.metadata.values == found.motion.metadata.values
        assert again.motion.late_A.tolist() == [6, 15]


def test_groups_without_micrographs_are_left_out(star):
    optics, rows = list_blocks(read_micrographs(star).take(np.array([1])), "micrographs")
    assert optics.texts("rlnOpticsGroupName").to_pylist() == ["first"]
    assert rows.read(["rlnOpticsGroup"])["rlnOpticsGroup"].tolist() == [1]


def test_movies_are_taken_where_asked_for(tmp_path):
    path = tmp_path / "movies.star"
    head = OPTICS.replace("_rlnMicrographPixelSize #4\n", "").replace(" 0.8 0.4", " 0.4").replace(" 1.1 0.55", " 0.55")
    path.write_text(
        f"{head}data_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\nMovies/a.tif 2\nMovies/b.tif 1\n"
    )
    with pytest.raises(MissingDataError, match="data_movies has no rlnMicrographName"):
        read_micrographs(path)
    found = read_micrographs(path, movies=True)
    assert (found.name, found.names) == (None, ("Movies/a.tif", "Movies/b.tif"))
    assert found.movies.pixel_size_A.tolist() == [0.4, 0.55]
    write_star(tmp_path / "again.star", list_blocks(found, "movies"))
    assert read_micrographs(tmp_path / "again.star", movies=True).movies.pixel_size_A.tolist() == [0.4, 0.55]


def test_the_layout_of_relion_3_0(tmp_path):
    path = tmp_path / "old.star"
    labels = [
        "MicrographName",
        "Voltage",
        "SphericalAberration",
        "AmplitudeContrast",
        "Magnification",
        "DetectorPixelSize",
    ]
    text = "".join(f"_rln{label}\n" for label in labels)
    path.write_text(f"data_\n\nloop_\n{text}a.mrc 300 2.7 0.1 50000 4\nb.mrc 300 2.7 0.1 50000 4\n\n")
    found = read_micrographs(path)
    np.testing.assert_allclose(found.pixel_size_A, 0.8)
    assert found.optics.group_id.tolist() == [0]
    assert "rlnOpticsGroup" not in found.extra.of_file


def test_what_lists_no_micrographs_is_refused(demo_project, tmp_path):
    with pytest.raises(MissingDataError, match="lists particles, not micrographs"):
        read_micrographs(demo_project.extracted_star)
    with pytest.raises(UsageError):
        read_micrographs(demo_project.relion)
    (tmp_path / "other.star").write_text("data_general\n\nloop_\n_rlnOwn\n1\n\n")
    with pytest.raises(MissingDataError, match="has no rlnMicrographName"):
        read_micrographs(tmp_path / "other.star")
    (tmp_path / "group.star").write_text(OPTICS + ROWS.replace(".star 1 11000", ".star 7 11000"))
    with pytest.raises(MissingDataError, match="optics group 7 is not defined"):
        read_micrographs(tmp_path / "group.star")
