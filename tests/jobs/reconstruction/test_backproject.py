"""Small maps of particles: against the truth of the demo. RELION's own maps are in `tests/relion/test_maps.py`."""

from __future__ import annotations

import shutil
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from interop.maps import correlation, fsc, lowest_fsc, volume_of

import cryobridge as cb
from cryobridge.demo.physics import demo_molecule
from cryobridge.jobs.reconstruction.backproject import some_rows

N_MICROGRAPHS, PER_MICROGRAPH = 4, 50


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return cb.simulate_project(folder, n_micrographs=N_MICROGRAPHS, particles_per_micrograph=PER_MICROGRAPH, snr=100)


@pytest.fixture(scope="module")
def particles(project):
    return cb.read(project.refinement)


def truth(box, voxel_A, x_sign=1.0):
    return volume_of(demo_molecule(), box, voxel_A, x_sign)


@pytest.mark.parametrize("box", [48, 64, 65])
def test_the_map_of_cryosparcs_file_is_the_molecule_that_was_simulated(particles, box):
    found = cb.backproject(particles, box_px=box)
    density = found.density.numpy()
    assert density.shape == (box, box, box) and density.dtype == np.float32
    assert found.voxel_size_A == pytest.approx(96 * 1.5 / box)
    # Neighbours on the micrograph are in the images too.
    assert correlation(density, truth(box, found.voxel_size_A)) > 0.97
    assert correlation(density, truth(box, found.voxel_size_A, -1.0)) < 0.8
    to_12_A = int(96 * 1.5 / 12)
    assert fsc(density, truth(box, found.voxel_size_A))[1 : to_12_A + 1].min() > 0.95


def test_a_path_options_and_rows(project, particles):
    whole = cb.backproject(project.refinement, box_px=32)
    np.testing.assert_array_equal(whole.rows, np.arange(200))
    some = cb.backproject(particles, n=80, box_px=32)
    assert len(some.rows) == 80 and (np.diff(some.rows) > 0).all()
    np.testing.assert_array_equal(some.rows, some_rows(particles, 80))
    halves = [cb.backproject(particles, half_set=number, box_px=32) for number in (1, 2)]
    np.testing.assert_array_equal(np.sort(np.concatenate([half.rows for half in halves])), whole.rows)
    assert halves[0].fsc(halves[1])[1:8].min() > 0.8
    assert float(halves[0].fsc(halves[0].density)[1:].min()) == pytest.approx(1)
    # The file says that particles are dark.
    stored = cb.backproject(particles, box_px=32, contrast="as_stored")
    np.testing.assert_allclose(stored.density, -whole.density, atol=1e-6 * float(whole.density.abs().max()))


def test_notebooks_show_what_it_is_made_of(particles):
    assert repr(cb.backproject(particles, n=3, box_px=16)).startswith("Reconstruction(3 particles, 16 voxels of ")


def test_images_of_other_sizes_make_the_same_map(project, particles, tmp_path):
    cb.downsample(project.refinement, tmp_path / "small", box_px=64)
    small = cb.read(tmp_path / "small")
    large, found = (cb.backproject(each, box_px=48, contrast="as_stored") for each in (particles, small))
    assert found.voxel_size_A == pytest.approx(large.voxel_size_A)
    assert lowest_fsc(found.density.numpy(), large.density.numpy()) > 0.999
    # Their densities are the same too, so that sizes can be mixed.
    ratio = float((found.density * large.density).sum() / large.density.square().sum())
    assert ratio == pytest.approx(1, abs=0.01)
    cb.convert(project.refinement, tmp_path / "large.star", link_stacks=tmp_path / "links")
    path = small.images.path.renamed([str(tmp_path / "small" / "particles.64.mrcs")])
    small = replace(small, images=replace(small.images, path=path))
    both = cb.read(tmp_path / "large.star").take(np.arange(100)) + small.take(np.arange(100, 200))
    mixed = cb.backproject(both, box_px=48)
    assert lowest_fsc(mixed.density.numpy(), large.density.numpy()) > 0.999


def test_images_without_numbers_are_left_out(project, particles, tmp_path):
    folder = shutil.copytree(project.folder, tmp_path / "p")
    broken = cb.read(folder / "cryosparc" / "J4")
    stack = folder / "cryosparc" / broken.images.path[0].removeprefix(">")
    with mrcfile.open(stack, mode="r+") as file:
        file.data[broken.images.index[0]] = np.nan
        file.data[broken.images.index[1]] = 7
    found = cb.backproject(broken, box_px=32)
    np.testing.assert_array_equal(found.rows, np.arange(2, 200))
    assert np.isfinite(found.density.numpy()).all()
    others = cb.backproject(particles.take(np.arange(2, 200)), box_px=32)
    np.testing.assert_allclose(found.density, others.density, atol=1e-5 * float(others.density.abs().max()))


def flat(particles):
    return replace(particles, poses=replace(particles.poses, is_2d=True))


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda p: replace(p, poses=None), {}, "no particle has a pose"),
        (flat, {}, "2D classification"),
        (lambda p: replace(p, ctf=None), {}, "nothing is known of the CTF"),
        (lambda p: replace(p, images=None), {}, "nothing is known of the images"),
        (lambda p: replace(p, half_set=None), {"half_set": 1}, "half_set: .*half sets of the particles are not known"),
        (lambda p: p, {"box_px": 512}, "box_px: 512 is out of range"),
        (lambda p: p, {"datadir": "no/folder"}, "does not exist"),
        (
            lambda p: replace(p, images=replace(p.images, index=p.images.index + 40)),
            {},
            "is asked for, the file has 50 whole ones",
        ),
        (
            lambda p: replace(p, images=replace(p.images, path=p.images.path.renamed(["a.mrc"] * 4))),
            {},
            "1 of 1 image file is not there: a.mrc",
        ),
    ],
)
def test_what_is_wrong_is_said(particles, change, options, said):
    with pytest.raises(cb.CryobridgeError, match=said) as caught:
        cb.backproject(change(particles), **options)
    assert caught.value.hint


def test_poses_that_are_no_numbers_are_passed_over(particles):
    matrix, shift_A = particles.poses.matrix.copy(), particles.poses.shift_A.copy()
    matrix[3] = np.nan
    shift_A[5, 0] = np.inf
    rows = some_rows(replace(particles, poses=replace(particles.poses, matrix=matrix, shift_A=shift_A)), 1000)
    assert set(range(200)) - set(rows.tolist()) == {3, 5}
