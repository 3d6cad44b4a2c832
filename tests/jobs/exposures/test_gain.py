import mrcfile
import numpy as np
import pytest
from interop.motion import N_FRAMES, SHAPE_PX, exposures, write_cs, write_movie
from PIL import Image

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.jobs.exposures.gain import plan_gains
from cryobridge.jobs.exposures.motion_options import MotionOptions
from movie_files import eer_bytes

NAMES = ["a", "b"]
GAIN = np.random.default_rng(0).uniform(0.7, 1.3, SHAPE_PX).astype("f4")
FLAT = np.random.default_rng(1).normal(1, 0.05, (N_FRAMES, *SHAPE_PX))


class Project:
    def __init__(self, folder):
        self.folder = folder
        (folder / "J1/imported").mkdir(parents=True)
        (folder / "J2").mkdir()
        self.gain = folder / "J1/imported/gain.mrc"
        write_mrc_stack(self.gain, GAIN[None], 1.0)

    def plan(self, suffix=".mrcs", gain="J1/imported/gain.mrc", changes=None, lacks=(), **options):
        columns = exposures(NAMES, suffix, gain) | (changes or {})
        write_cs(self.folder / "J2/exposures.cs", {key: one for key, one in columns.items() if key not in lacks})
        micrographs = read_exposures(self.folder / "J2/exposures.cs")
        search = ImageSearch(micrographs.source)
        movies = [search.resolve(name) for name in micrographs.movies.name.to_numpy()]
        return plan_gains(micrographs, MotionOptions(**options), movies, search.resolve)

    def written(self, plan):
        plan.gains[0].write(self.folder)
        return mrcfile.read(self.folder / plan.gains[0].name).reshape(SHAPE_PX)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def said(plan):
    return {message.code: message for message in plan.messages}


def test_references_are_written_in_the_rows_that_relion_reads(project):
    plan = project.plan()
    assert plan.names == ("gain.mrc", "gain.mrc")
    np.testing.assert_array_equal(project.written(plan), GAIN)
    assert "--gain_rot 0 --gain_flip 0" in str(said(plan)["gain-turned"])
    plan = project.plan(suffix=".tif")
    np.testing.assert_array_equal(project.written(plan), GAIN[::-1])
    assert "--gain_rot 0 --gain_flip 1" in str(said(plan)["gain-turned"])


def test_references_of_other_movies_are_files_of_their_own(project):
    write_mrc_stack(project.folder / "J1/imported/other.mrc", GAIN[None] + 1, 1.0)
    plan = project.plan(changes={"gain_ref_blob/path": np.array(["J1/imported/gain.mrc", "J1/imported/other.mrc"])})
    assert plan.names == ("gain1.mrc", "gain2.mrc")


def test_movies_that_are_corrected_need_none(project):
    plan = project.plan(changes={"movie_blob/is_gain_corrected": np.ones(2, "<u4")})
    assert (plan.names, plan.gains, plan.messages) == ((None, None), (), ())


def test_movies_that_need_one_and_name_none_are_warned_of(project):
    plan = project.plan(gain="", changes={"movie_blob/is_gain_corrected": np.zeros(2, "<u4")})
    assert said(plan)["gain-missing"].severity == "warning"
    given = project.plan(
        gain="", changes={"movie_blob/is_gain_corrected": np.zeros(2, "<u4")}, gain_reference=project.gain
    )
    np.testing.assert_array_equal(project.written(given), GAIN)


def test_references_that_are_absent_or_of_another_size_are_refused(project):
    with pytest.raises(FormatError, match=r"352 × 288 px, and the movie .* has 288 × 352") as raised:
        project.plan(changes={"gain_ref_blob/rotate_num": np.ones(2, "<u4")})
    assert raised.value.field == "gain_ref_blob/rotate_num"
    assert "gain_turn='pixels'" in raised.value.hint
    write_mrc_stack(project.gain, GAIN[None, 1:], 1.0)
    with pytest.raises(FormatError, match="RELION would crash"):
        project.plan()
    write_mrc_stack(project.gain, GAIN[None] * 0, 1.0)
    with pytest.raises(FormatError, match="no pixel is above 0"):
        project.plan()
    project.gain.unlink()
    with pytest.raises(MissingDataError, match="is not found") as raised:
        project.plan()
    assert "gain_reference" in raised.value.hint


def test_pixels_of_movies_show_how_a_reference_lies(project):
    for name in NAMES:  # the file has it upside down
        write_movie(project.folder / f"J1/imported/{name}.mrcs", FLAT, GAIN[::-1])
    plan = project.plan()
    message = said(plan)["gain-orientation"]
    assert (message.severity, message.option) == ("warning", "gain_turn")
    np.testing.assert_array_equal(project.written(plan), GAIN)
    plan = project.plan(gain_turn="pixels")
    np.testing.assert_array_equal(project.written(plan), GAIN[::-1])
    assert said(plan)["gain-orientation"].severity == "note"


def test_eer_references_are_kept_and_their_inverse_is_turned(project):
    source = project.folder / "J1/imported/x.gain"
    Image.fromarray(GAIN).save(source, format="TIFF")
    plan = project.plan(suffix=".eer", gain="J1/imported/x.gain")
    plan.gains[0].write(project.folder)
    assert (project.folder / "gain.gain").resolve() == source.resolve()
    plan = project.plan(suffix=".eer", gain="J1/imported/x.gain", changes={"gain_ref_blob/flip_x": np.ones(2, "<u4")})
    written = project.written(plan)
    np.testing.assert_allclose(written * GAIN[:, ::-1], np.full(SHAPE_PX, GAIN.mean()), rtol=1e-4)


def test_references_of_another_camera_than_that_of_eer_movies_are_refused(project):
    for name in NAMES:
        (project.folder / f"J1/imported/{name}.eer").write_bytes(eer_bytes([[5], [7]], side=64))
    with pytest.raises(FormatError, match=r"288 × 352 px, and the camera of a\.eer has 64 × 64; RELION would crash"):
        project.plan(suffix=".eer")
    for side in (64, 128):  # also of finer pixels
        write_mrc_stack(project.gain, np.ones((1, side, side), "f4"), 1.0)
        assert len(project.plan(suffix=".eer").gains) == 1
