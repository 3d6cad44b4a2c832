import numpy as np
import pytest
from interop.motion import N_FRAMES, PIXEL_SIZE_A, SHAPE_PX, exposures, write_cs

from cryobridge.demo.motion import draw_motion, write_trajectories
from cryobridge.errors import MissingDataError
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.formats.relion.motion import read_motion
from cryobridge.jobs.exposures.motion import MovieFiles, plan_motion
from cryobridge.jobs.exposures.motion_options import MotionOptions

NAMES = ["a", "b", "c"]
rng = np.random.default_rng(0)
MOTION = draw_motion(rng, N_FRAMES)


class Project:
    """cryoSPARC's exposures with their trajectories, and no movies."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "J2/motioncorrected").mkdir(parents=True)
        for name in NAMES:
            write_trajectories(folder / "J2/motioncorrected", name, MOTION)

    def trajectory(self, name, kind="rigid"):
        return self.folder / f"J2/motioncorrected/{name}_{kind}_traj.npy"

    def plan(self, changes=None, files=(None,) * 3, gains=(None,) * 3, lacks=(), **options):
        columns = exposures(NAMES, ".mrcs") | (changes or {})
        write_cs(self.folder / "J2/exposures.cs", {key: one for key, one in columns.items() if key not in lacks})
        micrographs = read_exposures(self.folder / "J2/exposures.cs")
        search = ImageSearch(micrographs.source)
        movies = MovieFiles([f"Movies/{name}.mrcs" for name in NAMES], files, gains)
        return plan_motion(micrographs, MotionOptions(**options), movies, search.resolve)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def codes(plan):
    return {message.code: message for message in plan.messages}


def test_metadata_say_what_exposures_and_options_do(project, tmp_path):
    plan = project.plan(gains=["Gain/gain.mrc", None, None], pre_exposure=0.5)
    assert (plan.rows.tolist(), plan.left_out) == ([0, 1, 2], {})
    paths = [tmp_path / f"{name}.star" for name in NAMES]
    plan.write(paths)
    found = read_motion(paths[0])
    assert (found.movie, found.gain, found.pre_exposure_e_A2) == ("Movies/a.mrcs", "Gain/gain.mrc", 0.5)
    assert (found.pixel_size_A, found.dose_per_frame_e_A2, found.voltage_kV, found.binning) == (2, 1.5, 300, 1)
    np.testing.assert_allclose(found.motion.global_px, MOTION.global_px, atol=1e-6)
    places = rng.uniform(20, 280, (9, 2))
    off = found.motion.shifts_px(places) - MOTION.shifts_px(places, SHAPE_PX)
    assert np.sqrt((off**2).sum(-1).mean()) < 1.5 * plan.fit.rms_px
    assert read_motion(paths[1]).gain is None
    assert plan.accumulated_A[0, 0] == pytest.approx(found.motion.path_px() * PIXEL_SIZE_A)


def test_what_is_uncertain_is_said_with_numbers(project):
    said = {code: str(message) for code, message in codes(project.plan()).items()}
    assert "taken as pixels, pixels being 2 Å" in said["motion-unit"]
    assert "0.5 times as long" in said["motion-unit"]
    assert "(-x, +y)" in said["motion-rows"]
    assert "taken as 0 e/Å²" in said["motion-pre-exposure"]
    assert "px of cryoSPARC's local motion over" in said["motion-residual"]
    assert "motion-zero" not in said
    assert "2 times as long" in str(codes(project.plan(motion_unit="A"))["motion-unit"])


def test_units_that_are_the_same_are_not_compared(project):
    sizes = {name: np.ones(3, "f4") for name in ("movie_blob/psize_A", "rigid_motion/psize_A")}
    assert "times as long" not in str(codes(project.plan(sizes))["motion-unit"])


def test_trajectories_that_begin_elsewhere_are_warned_of(project):
    for name in NAMES:
        write_trajectories(project.folder / "J2/motioncorrected", name, MOTION, offset=(3, 4))
    plan = project.plan()
    assert "5 px away" in str(codes(plan)["motion-zero"])
    np.testing.assert_allclose(plan.metadata(0).motion.global_px, MOTION.global_px)
    kept = project.plan(motion_zero="stored").metadata(0).motion.global_px
    np.testing.assert_allclose(kept, MOTION.global_px + np.array([-3, 4]))


def test_local_motion_that_begins_elsewhere_is_not_said_of_whole_frames(project):
    for name in NAMES:
        path = project.trajectory(name, "bending")
        np.save(path, np.load(path) + 0.2)
    said = str(codes(project.plan())["motion-zero"])
    assert "local motion is not zero in the first frame, but up to 0.28 px" in said
    assert "0 px away" not in said


def test_implausibly_long_motion_is_warned_of(project):
    np.save(project.trajectory("a"), np.load(project.trajectory("a")) * 100)
    assert codes(project.plan())["motion-unit"].severity == "warning"


def test_a_missing_dose_is_asked_for(project):
    with pytest.raises(MissingDataError, match="RELION would take as -1") as raised:
        project.plan(lacks=["mscope_params/total_dose_e_per_A2"])
    assert "dose_per_frame" in raised.value.hint
    with pytest.raises(MissingDataError, match="the dose of 2 of 3 movies is not known"):
        project.plan({"mscope_params/total_dose_e_per_A2": np.array([12, 0, 0], "<f4")})
    with pytest.raises(MissingDataError, match="1 of 3 movies is not known"):
        project.plan({"mscope_params/total_dose_e_per_A2": np.array([12, 0, 12], "<f4")})
    plan = project.plan(lacks=["mscope_params/total_dose_e_per_A2"], dose_per_frame=1.2)
    assert plan.metadata(1).dose_per_frame_e_A2 == 1.2
    assert "motion-dose" in codes(project.plan(dose_per_frame=1.2))


def test_micrographs_without_trajectories_are_left_out_and_named(project):
    project.trajectory("b").unlink()
    project.trajectory("c", "bending").unlink()
    plan = project.plan()
    assert (plan.rows.tolist(), plan.left_out) == ([0], {"trajectory of the motion not found": 2})
    assert "b_patch_aligned.mrc" in str(codes(plan)["motion-left-out"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((1, N_FRAMES, 2), -9999.0), "trajectory of the motion not usable"),
        (np.full((1, N_FRAMES, 2), np.nan), "trajectory of the motion not usable"),
        (np.zeros((1, N_FRAMES, 3)), "trajectory of the motion not usable"),
        (np.zeros((1, N_FRAMES + 1, 2)), "another number of frames"),
        (np.zeros((1, N_FRAMES - 1, 2)), "another number of frames"),
    ],
)
def test_unusable_trajectories_are_left_out(project, values, reason):
    np.save(project.trajectory("b"), values)
    plan = project.plan()
    assert (plan.rows.tolist(), plan.left_out) == ([0, 2], {reason: 1})


def test_damaged_trajectories_are_left_out(project):
    project.trajectory("b").write_bytes(project.trajectory("b").read_bytes()[:-5])
    project.trajectory("c", "bending").write_bytes(b"no array")
    assert project.plan().left_out == {"trajectory of the motion not usable": 2}


def test_movies_that_relion_can_not_take_with_the_others_are_left_out(project):
    assert project.plan({"movie_blob/psize_A": np.array([2, 2, 1], "<f4")}).left_out == {
        "movie with another pixel size": 1
    }
    np.save(project.trajectory("b"), np.zeros((1, 6, 2)))
    shape = np.array([[N_FRAMES, *SHAPE_PX], [6, *SHAPE_PX], [N_FRAMES, *SHAPE_PX]], "<u4")
    ends = {"rigid_motion/frame_end": np.array([N_FRAMES, 6, N_FRAMES], "<u4")}
    plan = project.plan({"movie_blob/shape": shape} | ends)
    assert plan.left_out == {"another number of frames": 1}
    assert "6 frames, most movies have 8" in str(codes(plan)["motion-left-out"])


def test_files_of_movies_are_held_to_the_metadata(project, tmp_path):
    frames = np.zeros((N_FRAMES, *SHAPE_PX), "f4")
    for name, pixels in (("a", frames), ("b", frames[1:]), ("c", frames[:, 1:])):
        write_mrc_stack(tmp_path / f"{name}.mrcs", pixels, 2.0)
    plan = project.plan(files=[tmp_path / f"{name}.mrcs" for name in NAMES])
    assert plan.left_out == {"another number of frames": 1, "movie of another size": 1}


def test_frames_outside_the_trajectory_are_said(project):
    for name in NAMES:
        np.save(project.trajectory(name), np.load(project.trajectory(name))[:, 2:6])
    frames = {"rigid_motion/frame_start": np.full(3, 2, "<u4"), "rigid_motion/frame_end": np.full(3, 6, "<u4")}
    plan = project.plan(frames)
    motion = plan.metadata(0).motion
    assert motion.first_frame == 3
    assert np.isfinite(motion.global_px[:, 0]).tolist() == [False, False, True, True, True, True, False, False]
    assert "frames 3 to 6 of 8" in str(codes(plan)["motion-frames"])
    assert "unless it is given --first_frame 3 --last_frame 6" in str(codes(plan)["motion-frames"])
    assert plan.metadata(0).patches_px.shape == (4, 5, 5, 2)
    # The last frame that is named is not one of them; a trajectory that goes on to the movie's end is whole.
    np.save(project.trajectory("b"), np.zeros((1, 5, 2)))
    np.save(project.trajectory("c"), np.zeros((1, N_FRAMES - 2, 2)))
    plan = project.plan(frames)
    assert plan.left_out == {"another number of frames": 1}
    assert "5 shifts for 4 frames" in str(codes(plan)["motion-left-out"])


def test_motion_of_whole_frames_alone_is_taken(project):
    plan = project.plan(lacks=[f"spline_motion/{name}" for name in ("path", "idx", "psize_A")])
    assert plan.metadata(0).motion.coefficients is None
    assert "no local motion" in str(codes(plan)["motion-global-only"])
    assert project.plan(motion=False) is None
    assert project.plan(lacks=[f"rigid_motion/{name}" for name in ("path", "idx", "psize_A")]) is None


def test_trajectories_of_other_pixels_are_scaled(project):
    plan = project.plan({"rigid_motion/psize_A": np.full(3, 4, "<f4")})
    np.testing.assert_allclose(plan.metadata(0).motion.global_px, 2 * MOTION.global_px)
    assert "pixels of 4 Å" in str(codes(plan)["motion-pixel-size"])


def test_more_frames_than_any_movie_has_take_no_memory(project):
    shape = np.tile(np.array([2**32 - 1, *SHAPE_PX], "u4"), (len(NAMES), 1))
    shape[1:, 0] = N_FRAMES
    plan = project.plan({"movie_blob/shape": shape})
    assert (plan.rows.tolist(), plan.left_out) == ([1, 2], {"another number of frames": 1})
    assert "4,294,967,295 frames, as no movie has" in str(codes(plan)["motion-left-out"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e308, 5e-324, np.inf])
def test_what_is_no_pixel_size_is_not_known(project, size):
    sizes = np.array([size, 2.0, 2.0])
    with pytest.raises(MissingDataError, match="pixel size of the movies is not known"):
        project.plan({"movie_blob/psize_A": sizes})
    plan = project.plan({"rigid_motion/psize_A": sizes})
    assert plan.rows.tolist() == [0, 1, 2]
    assert np.isfinite([motion.global_px for motion in plan.motions]).all()
