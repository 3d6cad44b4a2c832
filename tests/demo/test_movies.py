"""The movies of the demo project: moved back as the truth has it, their frames add up to the micrographs."""

import mrcfile
import numpy as np
import pytest
from PIL import Image, ImageSequence
from scipy import ndimage

import cryobridge as cb


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return cb.simulate_project(tmp_path_factory.mktemp("movies"), n_micrographs=1, particles_per_micrograph=12, snr=1)


def frames_of(project):
    with Image.open(project.movies[0]) as movie, Image.open(project.movies[0].with_name("gain.tif")) as gain:
        return np.array([np.asarray(page) for page in ImageSequence.Iterator(movie)]) * np.asarray(gain)


def box_in_frames(project, frames, row):
    """Where the pixels of a particle's box are in each frame, y and x."""
    ny, nx = frames.shape[1:]
    x, y = project.truth.particles.pick_px[row]
    shifts = project.truth.micrographs.motion[0].shifts_px(np.array([[x, ny - 1 - y]]), (ny, nx))[0]
    corner, half = np.array([y, x]), project.box_px // 2
    grid = np.mgrid[-half:half, -half:half] + corner[:, None, None]
    for shift_x, shift_y in shifts:
        yield np.array([shift_y, -shift_x])[:, None, None] + grid


def test_frames_that_are_moved_back_add_up_to_the_particles(project):
    frames = frames_of(project)
    assert frames.shape == (4, 768, 1024)
    images = mrcfile.read(project.stacks[0])
    moving, still = [], []
    picks = project.truth.particles.pick_px
    to_edges = np.minimum(picks, [1024, 768] - picks).min(axis=1)
    for row in np.flatnonzero(to_edges > 60):
        image = images[row]
        places = list(box_in_frames(project, frames, row))
        for found, ways in ((moving, places), (still, places[:1] * len(places))):
            total = sum(ndimage.map_coordinates(one, at, order=3) for one, at in zip(frames, ways, strict=True))
            # Noise moves by whole pixels: what lies below half of Nyquist is compared.
            seen, expected = (ndimage.gaussian_filter(each, 1.5) for each in (total, image))
            found.append(np.corrcoef(seen.ravel(), expected.ravel())[0, 1])
    assert min(moving) > 0.98
    assert np.mean(still) < 0.97


def test_micrographs_gives_relion_the_motion(project):
    report = cb.micrographs(project.cryosparc / "J2", project.relion / "MotionCorr/job006", flip_y=True)
    assert report.motion.n_micrographs == report.motion.n_local == 1
    assert not report.warnings
