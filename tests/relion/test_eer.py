"""EER movies: what RELION's motion correction makes of one, and what cryobridge says of the same."""

import mrcfile
import numpy as np
import pytest
from interop.motion import exposures, moving_project, write_cs
from interop.relion import Relion, read_star, write_star
from scipy import ndimage

from cryobridge.demo.motion import draw_motion
from cryobridge.formats.cryosparc.exposures import read_exposures
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.exposures.motion import MovieFiles, plan_motion
from cryobridge.jobs.exposures.motion_options import MotionOptions
from movie_files import eer_bytes

pytestmark = pytest.mark.relion

# RELION refuses fewer fractions; the last frame is in none of them.
SIDE, N_FRAMES, GROUPING, N_FRACTIONS, BINNING = 4096, 7, 2, 3, 8
CELL = 32
DOSE_E_A2 = 1.5  # of a fraction
# Between fractions the specimen moves so many rows and columns.
STEP = (4, -6)


def test_relion_groups_frames_as_we_say_and_does_not_reverse_the_rows(tmp_path):
    random = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(random.normal(size=(SIDE // CELL, SIDE // CELL)), 1.2)
    seen = (1 + 0.6 * coarse / coarse.std()).clip(0.05)
    frames = []
    for frame in range(N_FRAMES):
        cells = random.choice(seen.size, 150_000, p=(seen / seen.sum()).ravel())
        places = np.stack(np.divmod(cells, SIDE // CELL)) * CELL + random.integers(0, CELL, (2, len(cells)))
        row, column = (places + np.array(STEP)[:, None] * (frame // GROUPING)) % SIDE
        frames.append(np.unique(row * SIDE + column))
    (tmp_path / "Movies").mkdir()
    (tmp_path / "Movies/m.eer").write_bytes(eer_bytes(frames))
    optics = {
        "rlnOpticsGroupName": ["og"],
        "rlnOpticsGroup": [1],
        "rlnMicrographOriginalPixelSize": [1.0],
        "rlnVoltage": [300],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    movies = {"rlnMicrographMovieName": ["Movies/m.eer"], "rlnOpticsGroup": [1]}
    write_star(tmp_path / "movies.star", {"optics": optics, "movies": movies})
    (tmp_path / "MotionCorr/job002").mkdir(parents=True)
    Relion(tmp_path).run(
        *("relion_run_motioncorr", "--i", "movies.star", "--o", "MotionCorr/job002/", "--use_own", "--j", 2),
        *("--bin_factor", BINNING, "--bfactor", 150, "--dose_per_frame", DOSE_E_A2, "--patch_x", 1, "--patch_y", 1),
        *(
            "--eer_grouping",
            GROUPING,
            "--eer_upsampling",
            1,
            "--first_frame_sum",
            1,
            "--last_frame_sum",
            -1,
            "--early_binning",
        ),
    )
    theirs = open_star(tmp_path / "MotionCorr/job002/Movies/m.star")
    ours = open_star(metadata(tmp_path))
    for label in ("rlnImageSizeX", "rlnImageSizeY", "rlnImageSizeZ", "rlnEERUpsampling", "rlnEERGrouping"):
        assert int(ours["general"].value(label)) == int(theirs["general"].value(label))
    for label in ("rlnMicrographOriginalPixelSize", "rlnMicrographBinning", "rlnMicrographDoseRate", "rlnVoltage"):
        assert ours["general"].value(label) == pytest.approx(theirs["general"].value(label))
    # RELION's shift takes the specimen back; rows count from the first one of the file.
    shift = theirs["global_shift"].read(["rlnMicrographShiftX", "rlnMicrographShiftY"])
    np.testing.assert_allclose([float(shift[f"rlnMicrographShift{axis}"][1]) for axis in "YX"], [-4, 6], atol=1)
    average = mrcfile.read(tmp_path / "MotionCorr/job002/Movies/m.mrc")
    truth = np.kron(seen, np.ones((CELL // BINNING, CELL // BINNING)))
    alike = [np.corrcoef(image.ravel(), truth.ravel())[0, 1] for image in (average, average[::-1])]
    assert alike[0] > 0.4
    assert abs(alike[1]) < 0.1


def metadata(folder):
    """What cryobridge writes of the movie as cryoSPARC has it: three fractions of the camera's pixels."""
    columns = exposures(["m"], ".eer") | {
        "movie_blob/shape": np.array([[N_FRACTIONS, SIDE, SIDE]], "<u4"),
        "movie_blob/psize_A": np.ones(1, "<f4"),
        "micrograph_blob/shape": np.full((1, 2), SIDE // BINNING, "<u4"),
        "micrograph_blob/psize_A": np.full(1, BINNING, "<f4"),
        "mscope_params/total_dose_e_per_A2": np.array([DOSE_E_A2 * N_FRAMES / GROUPING], "<f4"),
        "rigid_motion/psize_A": np.ones(1, "<f4"),
        "rigid_motion/frame_end": np.full(1, N_FRACTIONS, "<u4"),
    }
    job = folder / "cryosparc/J2"
    (job / "motioncorrected").mkdir(parents=True)
    np.save(job / "motioncorrected/m_rigid_traj.npy", np.zeros((1, N_FRACTIONS, 2)))
    write_cs(job / "exposures.cs", {name: one for name, one in columns.items() if not name.startswith("spline")})
    micrographs = read_exposures(job / "exposures.cs")
    movies = MovieFiles(["Movies/m.eer"], [folder / "Movies/m.eer"], [None])
    plan = plan_motion(micrographs, MotionOptions(), movies, ImageSearch(micrographs.source).resolve)
    plan.write([folder / "m.star"])
    return folder / "m.star"


def test_relions_polishing_takes_the_motion_of_eer_movies(tmp_path):
    """Each particle is where it was in each fraction, for RELION that reads the movie by our grouping."""
    motion = draw_motion(np.random.default_rng(3), 8)
    project = moving_project(Relion(tmp_path), [motion])
    random, shape = np.random.default_rng(1), (SIDE, SIDE)
    frames = [np.unique(random.integers(0, SIDE**2, 100_000)) for _ in range(2 * len(motion.global_px) + 1)]
    (tmp_path / "Movies/mov0.eer").write_bytes(eer_bytes(frames))
    tables = read_star(tmp_path / "particles.star")
    places = random.integers(200, SIDE - 200, (len(tables["particles"]), 2))
    tables["particles"][["rlnCoordinateX", "rlnCoordinateY"]] = places
    write_star(tmp_path / "eer_particles.star", tables)
    columns = exposures(["mov0"], ".eer", **{"movie_blob/shape": np.array([[8, *shape]], "<u4")})
    columns["micrograph_blob/shape"] = np.array([shape], "<u4")
    write_cs(tmp_path / "cryosparc/J2/eer.cs", columns)
    micrographs = read_exposures(tmp_path / "cryosparc/J2/eer.cs")
    movies = MovieFiles(["Movies/mov0.eer"], [tmp_path / "Movies/mov0.eer"], [None])
    plan = plan_motion(micrographs, MotionOptions(), movies, ImageSearch(micrographs.source).resolve)
    plan.write([tmp_path / "eer.star"])
    tracks = project.polished("eer", ["eer.star"], "eer_particles.star").tracks_px()
    # Where particles were: RELION's shift takes them back.
    truth = -motion.shifts_px(places, shape)
    assert np.sqrt(((tracks[0] - truth) ** 2).sum(axis=-1).mean()) < 0.1
