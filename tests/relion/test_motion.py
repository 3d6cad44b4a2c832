"""cryoSPARC's motion, as RELION's polishing takes it: where it puts particles, and what it cuts out of the movies."""

import re
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from interop.motion import (
    N_FRAMES,
    PIXEL_SIZE_A,
    SHAPE_PX,
    MovingProject,
    exposures,
    moving_project,
    polynomial_motion,
    write_cs,
    write_movie,
)
from interop.relion import Relion, read_star, write_star, write_volume
from PIL import Image

import cryobridge as cb
from cryobridge.demo.motion import draw_motion
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.relion.motion import read_motion
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.exposures.gain import plan_gains
from cryobridge.jobs.exposures.motion import MotionPlan, MovieFiles, plan_motion
from cryobridge.jobs.exposures.motion_options import MotionOptions
from cryobridge.report import Message
from helpers import run

pytestmark = pytest.mark.relion

# What tracks may be off, and images of polished particles be like those that were put into the movies.
RMS_PX, LIKENESS = 0.1, 0.99


@dataclass
class Converted:
    """Metadata that cryobridge made of a project's exposures."""

    project: MovingProject
    files: list[Path]
    plan: MotionPlan
    messages: tuple[Message, ...]

    @property
    def names(self):
        return [str(file.relative_to(self.project.relion.folder)) for file in self.files]


def converted(project, name, path=None, **options):
    folder = project.relion.folder
    micrographs, options = read_exposures(path or project.exposures), MotionOptions(**options)
    search = ImageSearch(project.exposures)
    movies = [search.resolve(path) for path in micrographs.movies.name.to_numpy()]
    names = [f"Movies/{path.name}" for path in movies]
    target = folder / "MotionCorr/job002" / name
    target.mkdir(parents=True)
    gains = plan_gains(micrographs, options, movies, search.resolve)
    for gain in gains.gains:
        gain.write(target)
    gain_names = [None if one is None else str((target / one).relative_to(folder)) for one in gains.names]
    plan = plan_motion(micrographs, options, MovieFiles(names, movies, gain_names), search.resolve)
    files = [target / f"{movie}.star" for movie in project.names]
    plan.write(files)
    return Converted(project, files, plan, (*gains.messages, *plan.messages))


def motions():
    rng = np.random.default_rng(3)
    return [polynomial_motion(rng), draw_motion(rng, N_FRAMES)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return moving_project(Relion(tmp_path_factory.mktemp("mrc")), motions())


@pytest.fixture(scope="module")
def tiff_project(tmp_path_factory):
    gain = np.random.default_rng(4).uniform(0.6, 1.4, (288, 352))
    return moving_project(Relion(tmp_path_factory.mktemp("tiff")), motions(), suffix=".tif", gain=gain)


@pytest.mark.parametrize("kind", ["project", "tiff_project"])
def test_relion_finds_particles_where_they_were(kind, request):
    project = request.getfixturevalue(kind)
    made = converted(project, "right")
    polished = project.polished("right", made.names)
    assert polished.rms_px() <= RMS_PX
    x, y = polished.correlations()
    assert (round(x, 3), round(y, 3)) == (1.0, 1.0)
    assert polished.likeness() > LIKENESS
    # What is off is what the fit says that it leaves over; motion that is a polynomial leaves nothing.
    polynomial, spline = polished.tracks_px() - polished.true_tracks_px()
    assert np.abs(polynomial).max() < 0.02
    assert np.sqrt((spline**2).sum(-1).mean()) < 2 * made.plan.fit.rms_px + 0.001


def planted(project, name, change):
    """The exposures with other trajectories, changed by a function of the rigid and the local ones."""
    cryosparc = project.exposures.parents[1]
    (cryosparc / "J2" / name).mkdir()
    for movie in project.names:
        files = [f"{movie}_rigid_traj.npy", f"{movie}_bending_traj.npy"]
        arrays = change(*(np.load(cryosparc / "J2/motioncorrected" / file) for file in files))
        for file, array in zip(files, arrays, strict=True):
            np.save(cryosparc / "J2" / name / file, array)
    columns = exposures(project.names, ".mrcs")
    for column in ("rigid_motion/path", "spline_motion/path"):
        columns[column] = np.char.replace(columns[column], "motioncorrected", name)
    path = project.exposures.with_name(f"{name}.cs")
    write_cs(path, columns)
    return path


def off_zero(rigid, local):
    """Trajectories whose zero is another frame."""
    return rigid - rigid[:, 5:6], local


@pytest.mark.parametrize("kind", ["project", "tiff_project"])
def test_two_commands_make_what_polishing_takes(kind, request):
    project = request.getfixturevalue(kind)
    folder = project.relion.folder
    corrected = folder / "MotionCorr/job020/corrected_micrographs.star"
    made = run("micrographs", project.exposures, "-o", corrected.parent, "--flip-y", "--amplitude-contrast", 0.1)
    assert made.returncode == 0, made.stderr
    particles = project.write_cryosparc_particles()
    words = ("--micrographs", corrected, "--reextract", "--datadir", folder / "cryosparc")
    made = run("convert", particles, "-o", folder / "polish.star", *words)
    assert made.returncode == 0, made.stderr
    polished = project.polished_with("two_commands", str(corrected.relative_to(folder)), "polish.star")
    assert polished.rms_px() <= RMS_PX
    assert polished.likeness() > LIKENESS


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, ""),
        ({"motion_rows": "stored"}, "motion_rows='reversed' would fit"),
        ({"motion_unit": "A"}, "motion_unit='px'"),
    ],
    ids=["as they are", "other rows", "other unit"],
)
def test_pixels_of_the_movies_show_how_trajectories_are_to_be_taken(tiff_project, options, fits):
    out = tiff_project.relion.folder / "MotionCorr/job030"
    report = cb.micrographs(tiff_project.exposures, out, flip_y=True, amplitude_contrast=0.1, dry_run=True, **options)
    (said,) = [message for message in report.messages if message.code == "motion-pixels"]
    assert (said.severity, fits in str(said)) == ("warning" if fits else "note", True)


PLANTED = {
    "sign": lambda rigid, local: (-rigid, -local),
    "sign_of_x": lambda rigid, local: (rigid * [-1, 1], local * np.array([-1, 1])[:, None, None, None]),
    "mirrored_y": lambda rigid, local: (rigid, local[:, :, ::-1]),
    "in_A": lambda rigid, local: (rigid * PIXEL_SIZE_A, local * PIXEL_SIZE_A),
    "local_in_A": lambda rigid, local: (rigid, local * PIXEL_SIZE_A),
    "a_frame_late": lambda rigid, local: (np.roll(rigid, 1, axis=1), local),
}


@pytest.mark.parametrize("name", PLANTED)
def test_errors_planted_in_the_trajectories_are_seen(project, name):
    polished = project.polished(name, converted(project, name, planted(project, name, PLANTED[name])).names)
    assert polished.rms_px() > 3 * RMS_PX


@pytest.mark.parametrize(
    "options", [{"motion_unit": "A"}, {"motion_rows": "stored"}, {"motion_zero": "stored"}], ids=lambda one: str(*one)
)
def test_another_reading_of_the_trajectories_is_seen(project, options):
    name = next(iter(options))
    polished = project.polished(name, converted(project, name, planted(project, name, off_zero), **options).names)
    assert polished.rms_px() > 5 * RMS_PX
    assert polished.likeness() < LIKENESS


def test_the_zero_of_the_trajectory_does_not_matter(project):
    made = converted(project, "zero", planted(project, "zero", off_zero))
    assert project.polished("zero", made.names).rms_px() <= RMS_PX
    assert any(message.code == "motion-zero" for message in made.messages)


def test_trajectories_in_A_are_taken_as_such(project):
    path = planted(project, "really_in_A", PLANTED["in_A"])
    made = converted(project, "really_in_A", path, motion_unit="A")
    assert project.polished("really_in_A", made.names).rms_px() <= RMS_PX


def test_rough_local_motion_shows_in_the_residual(project):
    rng = np.random.default_rng(8)
    path = planted(project, "rough", lambda rigid, local: (rigid, local + rng.normal(0, 1, local.shape)))
    said = [one for one in converted(project, "rough", path).messages if one.code == "motion-residual"]
    assert said[0].severity == "warning"


def test_images_of_binned_micrographs_have_shifts_of_the_movies_pixels(project):
    folder = project.relion.folder
    columns = exposures(project.names, ".mrcs") | {"micrograph_blob/psize_A": np.full(2, 2 * PIXEL_SIZE_A, "<f4")}
    write_cs(project.exposures.with_name("binned.cs"), columns)
    made = converted(project, "binned", project.exposures.with_name("binned.cs"))
    tables = read_star(folder / "particles.star")
    tables["optics"]["rlnMicrographPixelSize"] = 2 * PIXEL_SIZE_A
    tables["particles"][["rlnCoordinateX", "rlnCoordinateY"]] /= 2
    write_star(folder / "binned.star", tables)
    polished = project.polished("binned", made.names, particles="binned.star")
    assert polished.rms_px() <= RMS_PX
    assert polished.likeness() > LIKENESS


def test_columns_are_those_that_relions_motion_correction_writes(project):
    folder = project.relion.folder
    optics = read_star(folder / "particles.star")["optics"].drop(columns=["rlnMicrographPixelSize", "rlnImageSize"])
    movies = {"rlnMicrographMovieName": [f"Movies/{name}.mrcs" for name in project.names], "rlnOpticsGroup": 1}
    write_star(folder / "movies.star", {"optics": optics, "movies": movies})
    motion_correct(project.relion, "movies.star", "job008", "--patch_x", 3, "--patch_y", 3)
    theirs = open_star(folder / "MotionCorr/job008/Movies/mov0.star")
    ours = open_star(converted(project, "columns").files[0])
    assert ours.names == theirs.names
    for block in theirs.names:
        own = [label for label in theirs.labels(block) if label != "rlnMicrographGainName"]
        assert list(ours.labels(block)) == own
        assert (ours.is_loop(block), ours[block].n_rows) == (
            theirs.is_loop(block),
            ours[block].n_rows if block == "local_shift" else theirs[block].n_rows,
        )
    # What RELION wrote is read, and its motion goes the way of ours.
    found, own = (
        read_motion(folder / "MotionCorr/job008/Movies/mov0.star"),
        read_motion(converted(project, "c").files[0]),
    )
    assert np.corrcoef(found.motion.global_px[:, 0], own.motion.global_px[:, 0])[0, 1] > 0.9


def motion_correct(relion, star, job, *options):
    (relion.folder / "MotionCorr" / job).mkdir(parents=True)
    return relion.run(
        *("relion_run_motioncorr", "--i", star, "--o", f"MotionCorr/{job}/", "--use_own", "--j", 1, "--bin_factor", 1),
        *("--first_frame_sum", 1, "--last_frame_sum", -1, "--dose_per_frame", 1, "--bfactor", 150, *options),
    )


@pytest.mark.parametrize(
    ("suffix", "gain_suffix", "turn"),
    [
        (".mrcs", ".mrc", (0, 0, 0)),
        (".mrcs", ".mrc", (0, 1, 1)),
        (".mrcs", ".tif", (1, 0, 3)),
        (".tif", ".mrc", (0, 0, 0)),
        (".tif", ".mrc", (1, 0, 1)),
        (".tif", ".tif", (0, 0, 0)),
        (".tif", ".tif", (0, 0, 3)),
    ],
)
def test_gain_references_flatten_movies_in_relion(tmp_path, suffix, gain_suffix, turn):
    flip_x, flip_y, turns = turn
    gain = np.random.default_rng(5).uniform(0.7, 1.3, SHAPE_PX).astype("f4")
    relion = Relion(tmp_path)
    for name in ("Movies", "cryosparc/J1/imported", "cryosparc/J2"):
        (tmp_path / name).mkdir(parents=True)
    movie = tmp_path / f"cryosparc/J1/imported/flat{suffix}"
    write_movie(movie, np.random.default_rng(6).normal(1, 0.05, (8, *SHAPE_PX)), gain)
    (tmp_path / f"Movies/flat{suffix}").symlink_to(movie)
    # cryoSPARC turns the original onto the rows of the movie's file: flips, then counter-clockwise.
    stored = gain[::-1] if suffix == ".tif" else gain
    original = np.rot90(stored, -turns)[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    source = tmp_path / f"cryosparc/J1/imported/gain{gain_suffix}"
    if gain_suffix == ".tif":
        Image.fromarray(np.ascontiguousarray(original)).save(source)
    else:
        write_volume(source, original, 1)
    columns = exposures(["flat"], suffix, f"J1/imported/{source.name}")
    for column, value in zip(("flip_x", "flip_y", "rotate_num"), turn, strict=True):
        columns[f"gain_ref_blob/{column}"] = np.array([value], "<u4")
    write_cs(tmp_path / "cryosparc/J2/exposures.cs", columns)
    micrographs = read_exposures(tmp_path / "cryosparc/J2/exposures.cs")
    plan = plan_gains(micrographs, MotionOptions(), [movie], ImageSearch(micrographs.source).resolve)
    (tmp_path / "Gain").mkdir()
    plan.gains[0].write(tmp_path / "Gain")
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": "a", "rlnMicrographOriginalPixelSize": PIXEL_SIZE_A}
    optics |= {"rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    movies = {"rlnMicrographMovieName": [f"Movies/flat{suffix}"], "rlnOpticsGroup": 1}
    write_star(tmp_path / "movies.star", {"optics": optics, "movies": movies})
    one_patch = ("--patch_x", 1, "--patch_y", 1)
    motion_correct(relion, "movies.star", "job001", *one_patch, "--gainref", f"Gain/{plan.names[0]}")
    assert unevenness(relion, "job001") < 0.04
    # The pixels say the same, and so does what RELION is to be told of the original.
    said = {message.code: str(message) for message in plan.messages}
    assert "flattens the movies as it is turned" in said["gain-orientation"]
    way = re.search(r"--gain_rot \d --gain_flip \d", said["gain-turned"])[0].split()
    original_name = str(source.relative_to(tmp_path))
    motion_correct(relion, "movies.star", "job002", *one_patch, "--gainref", original_name, *way)
    assert unevenness(relion, "job002") < 0.04
    motion_correct(relion, "movies.star", "job003", *one_patch)
    assert unevenness(relion, "job003") > 0.1


def unevenness(relion, job):
    average = mrcfile.read(next((relion.folder / "MotionCorr" / job / "Movies").glob("*.mrc")))
    return float(average.std() / average.mean())
