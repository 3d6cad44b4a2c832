from pathlib import Path

import numpy as np
import pytest
from interop.motion import N_FRAMES, SHAPE_PX, exposures, write_cs

import cryobridge as cb
from cryobridge.demo.motion import draw_motion, write_trajectories
from cryobridge.errors import MissingDataError, OutputExistsError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.gain import read_gain
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.mrc_write import write_mrc_stack
from cryobridge.formats.relion.motion import read_motion
from cryobridge.formats.relion.star import open_star
from cryobridge.model.particles import Labels
from helpers import run

NAMES = ["a", "b", "c"]
OUT = "MotionCorr/job002"
rng = np.random.default_rng(0)
GAIN = rng.uniform(0.8, 1.2, SHAPE_PX).astype("f4")
KNOWN = {"amplitude_contrast": 0.1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """cryoSPARC's project with movies, averages, trajectories and a gain reference, and a RELION project around it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("J1/imported", "J2/motioncorrected"):
        (tmp_path / "cs" / folder).mkdir(parents=True)
    for name in NAMES:
        specimen = rng.normal(1, 0.2, SHAPE_PX)
        movie = rng.normal(specimen, 0.05, (N_FRAMES, *SHAPE_PX)) / GAIN
        write_mrc_stack(tmp_path / f"cs/J1/imported/{name}.mrcs", movie.astype("f4"), 2.0)
        average = tmp_path / f"cs/J2/motioncorrected/{name}_patch_aligned.mrc"
        write_mrc_stack(average, specimen[None, ::-1].astype("f4"), 2.0)
        write_trajectories(tmp_path / "cs/J2/motioncorrected", name, draw_motion(rng, N_FRAMES))
    write_mrc_stack(tmp_path / "cs/J1/imported/gain.mrc", GAIN[None], 2.0)
    write(tmp_path)
    return tmp_path


def write(project, **changes):
    columns = exposures(NAMES, ".mrcs", "J1/imported/gain.mrc", **changes)
    write_cs(project / "cs/J2/exposures.cs", {name: values for name, values in columns.items() if values is not None})


def texts(block, column):
    values = open_star(f"{OUT}/corrected_micrographs.star")[block].read([column])[column]
    return values.to_numpy().tolist() if isinstance(values, Labels) else values.tolist()


def test_metadata_and_gain_references_are_written_beside_the_micrographs(project):
    report = cb.micrographs("cs/J2/exposures.cs", OUT, flip_y=True, **KNOWN)
    assert report.lists == {"movies.star": 3, "micrographs.star": 3, "corrected_micrographs.star": 3}
    assert (report.motion.n_micrographs, report.motion_left_out) == (3, {})
    assert report.warnings == ()
    names = texts("micrographs", "rlnMicrographMetadata")
    assert names == [f"{OUT}/Micrographs/{name}.star" for name in NAMES]
    metadata = read_motion(project / names[0])
    assert (metadata.movie, metadata.gain) == (f"{OUT}/Movies/a.mrcs", f"{OUT}/Movies/gain.mrc")
    assert all((project / name).exists() for name in (metadata.movie, metadata.gain))
    assert texts("micrographs", "rlnAccumMotionTotal")[0] == pytest.approx(metadata.motion.path_px() * 2)
    with pytest.raises(OutputExistsError):
        cb.micrographs("cs/J2/exposures.cs", OUT, **KNOWN)


def test_nothing_is_written_by_a_dry_run(project):
    report = cb.micrographs("cs/J2/exposures.cs", OUT, dry_run=True, **KNOWN)
    assert report.motion.n_micrographs == 3
    assert not (project / OUT).exists()


def test_micrographs_that_are_not_reversed_as_the_movies_are_warned_of(project):
    report = cb.micrographs("cs/J2/exposures.cs", OUT, **KNOWN)
    assert [(message.code, message.option) for message in report.warnings] == [("movie-rows", "flip_y")]


@pytest.mark.parametrize("kind", ["rigid", "bending"])
def test_trajectories_have_the_rows_that_micrographs_show(project, kind):
    """In cryoSPARC's own rows the motion is the same; RELION's is mirrored where micrographs are reversed."""
    for name in NAMES:
        if kind == "rigid":
            np.save(project / f"cs/J2/motioncorrected/{name}_bending_traj.npy", np.zeros((2, 4, 4, 4)))
        else:
            np.save(project / f"cs/J2/motioncorrected/{name}_rigid_traj.npy", np.zeros((1, N_FRAMES, 2)))
    places = rng.uniform(20, 280, (9, 2))
    mirrored = np.stack([places[:, 0], SHAPE_PX[0] - 1 - places[:, 1]], axis=1)
    found = {}
    for order in ("reversed", "stored"):
        report = cb.micrographs("cs/J2/exposures.cs", OUT, flip_y=order == "reversed", overwrite=True, **KNOWN)
        assert report.warnings == ()
        motion = read_motion(project / OUT / "Micrographs/a.star").motion
        found[order] = motion.shifts_px(mirrored if order == "reversed" else places)
        assert f"(-x, {'+' if order == 'reversed' else '-'}y)" in " ".join(map(str, report.messages))
        for name in NAMES:
            average = project / f"cs/J2/motioncorrected/{name}_patch_aligned.mrc"
            write_mrc_stack(average, open_mrc(average).read([0])[:, ::-1], 2.0)
    np.testing.assert_allclose(found["stored"], found["reversed"] * [1, -1], atol=0.01)  # fitted at other places
    assert np.abs(found["stored"]).max() > 0.1


def test_where_no_pixels_show_the_rows_it_is_said(project):
    for name in NAMES:
        noise = rng.normal(size=(1, *SHAPE_PX)).astype("f4")
        write_mrc_stack(project / f"cs/J2/motioncorrected/{name}_patch_aligned.mrc", noise, 2.0)
    report = cb.micrographs("cs/J2/exposures.cs", OUT, dry_run=True, **KNOWN)
    (said,) = [str(message) for message in report.messages if message.code == "motion-rows"]
    assert "(-x, +y); no pixels" in said


def test_micrographs_without_motion_are_in_the_other_lists(project):
    (project / "cs/J2/motioncorrected/b_rigid_traj.npy").unlink()
    (project / "cs/J1/imported/c.mrcs").unlink()
    report = cb.micrographs("cs/J2/exposures.cs", OUT, flip_y=True, **KNOWN)
    assert report.lists == {"movies.star": 2, "micrographs.star": 3, "corrected_micrographs.star": 1}
    assert report.motion_left_out == {"trajectory of the motion not found": 1, "no movie": 1}
    assert texts("micrographs", "rlnMicrographName") == [f"{OUT}/Micrographs/a.mrc"]


def test_what_polishing_needs_is_asked_for(project):
    write(project, **{"mscope_params/total_dose_e_per_A2": None})
    done = run("micrographs", "cs/J2/exposures.cs", "-o", OUT, "--amplitude-contrast", 0.1)
    assert (done.returncode, "--dose-per-frame" in done.stderr, "--no-motion" in done.stderr) == (1, True, True)
    assert not (project / OUT).exists()
    given = cb.micrographs("cs/J2/exposures.cs", OUT, dose_per_frame=1.25, **KNOWN)
    assert given.motion.n_micrographs == 3
    assert read_motion(project / OUT / "Micrographs/a.star").dose_per_frame_e_A2 == 1.25
    without = cb.micrographs("cs/J2/exposures.cs", OUT, motion=False, overwrite=True, **KNOWN)
    assert without.motion is None
    assert "corrected_micrographs.star" not in without.lists
    (project / "cs/J1/imported/gain.mrc").unlink()
    with pytest.raises(MissingDataError, match=r"gain.mrc of 3 movies is not found"):
        cb.micrographs("cs/J2/exposures.cs", "MotionCorr/job003", dose_per_frame=1.25, **KNOWN)


def test_trajectories_that_are_not_there_are_said(project):
    for name in NAMES:
        (project / f"cs/J2/motioncorrected/{name}_rigid_traj.npy").unlink()
    report = cb.micrographs("cs/J2/exposures.cs", OUT, **KNOWN)
    assert "motion-not-found" in {message.code for message in report.warnings}
    assert report.motion is None


def test_local_motion_without_that_of_whole_frames_is_said(project):
    columns = exposures(NAMES, ".mrcs", "J1/imported/gain.mrc")
    write(project, **{name: None for name in columns if name.startswith("rigid_motion/")})
    report = cb.micrographs("cs/J2/exposures.cs", OUT, dry_run=True, **KNOWN)
    assert report.motion is None
    (said,) = [str(message) for message in report.warnings if message.code == "motion-not-found"]
    assert "rigid_motion/path" in said


def test_movies_go_back_with_their_dose_and_gain_reference(project):
    cb.micrographs("cs/J2/exposures.cs", OUT, flip_y=True, **KNOWN)
    report = cb.micrographs(f"{OUT}/corrected_micrographs.star", "back/exposures.cs")
    assert report.links == 2 * len(NAMES) + 1
    assert report.dropped_columns == (
        "rlnMicrographMetadata",
        *(f"rlnAccumMotion{part}" for part in ("Total", "Early", "Late")),
    )
    found, original = read_exposures(Path("back/exposures.csg")), read_exposures(Path("cs/J2/exposures.cs"))
    for name in ("shape_px", "n_frames", "pixel_size_A", "dose_e_A2"):
        np.testing.assert_array_equal(getattr(found.movies, name), getattr(original.movies, name), err_msg=name)
    assert not found.movies.is_gain_corrected.any()
    assert not (found.movies.gain.flip_x.any() or found.movies.gain.flip_y.any())
    columns = open_cs("back/exposures.cs")
    assert set(columns.read(["movie_blob/format"])["movie_blob/format"].values) == {"MRC/2"}
    # cryobridge itself takes them to RELION again.
    again = cb.micrographs("back/exposures.csg", "again/MotionCorr/job002", **KNOWN)
    assert again.lists["movies.star"] == len(NAMES)
    assert (
        again.dose_per_frame_e_A2
        == cb.micrographs("cs/J2/exposures.cs", "x", dry_run=True, **KNOWN).dose_per_frame_e_A2
    )


def test_gain_references_of_tiff_movies_go_back_as_they_lie_on_the_stored_rows(demo_project, tmp_path):
    out = tmp_path / "relion/MotionCorr/job002"
    cb.micrographs(demo_project.exposures_cs, out, flip_y=True)
    cb.micrographs(out / "corrected_micrographs.star", tmp_path / "back/exposures.cs")
    found = read_exposures(tmp_path / "back/exposures.csg")
    assert found.movies.gain.flip_y.all()
    gain = open_mrc(tmp_path / "back" / found.movies.gain.name.values[0].removeprefix(">")).read([0])[0]
    original = read_exposures(demo_project.exposures_cs).movies.gain.name.values[0]
    np.testing.assert_allclose(gain[::-1], read_gain(demo_project.cryosparc / original), rtol=1e-6)


def test_movies_that_are_not_there_stay_out_on_the_way_back(project):
    cb.micrographs("cs/J2/exposures.cs", OUT, flip_y=True, **KNOWN)
    (project / OUT / "Movies/b.mrcs").unlink()
    report = cb.micrographs(f"{OUT}/corrected_micrographs.star", "back/exposures.cs")
    assert "movie_blob/path" not in open_cs("back/exposures.cs").names
    (said,) = [message.text for message in report.messages if message.code == "movies-left-out"]
    assert said.startswith("1 of 3 movies is not usable (MotionCorr/job002/Movies/b.mrcs is not found)")


def test_a_list_for_polishing_that_would_be_empty_says_why(project):
    for name in NAMES:
        np.save(project / f"cs/J2/motioncorrected/{name}_rigid_traj.npy", np.full((1, N_FRAMES, 2), -9999.0))
    with pytest.raises(MissingDataError, match=r"no micrograph has metadata of motion \(3: trajectory"):
        cb.micrographs("cs/J2/exposures.cs", OUT, lists="corrected", **KNOWN)
