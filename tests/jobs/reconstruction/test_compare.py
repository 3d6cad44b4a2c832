"""What two files say of the same images, told apart by the maps that are made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.formats.image_search import ImageSearch
from cryobridge.jobs.reconstruction.compare import compare_maps
from cryobridge.jobs.reconstruction.images import chosen_images
from cryobridge.jobs.reconstruction.maps import Said
from cryobridge.jobs.reconstruction.report import LEAST_FSC
from cryobridge.model.geometry import euler_to_matrix, matrix_to_euler

PIXEL_A = 1.5


# With the noise of usual images, and almost none.
@pytest.fixture(scope="module", params=[0.1, 1000])
def particles(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return cb.read(
        cb.simulate_project(folder, n_micrographs=2, particles_per_micrograph=50, snr=request.param).refinement
    )


def with_poses(**changes):
    def change(particles):
        made = {name: function(particles.poses) for name, function in changes.items()}
        return replace(particles, poses=replace(particles.poses, **made))

    return change


def with_optics(**factors):
    def change(particles):
        made = {name: factor * getattr(particles.optics, name) for name, factor in factors.items()}
        return replace(particles, optics=replace(particles.optics, **made))

    return change


def with_angles(function):
    return with_poses(matrix=lambda poses: euler_to_matrix(*function(*matrix_to_euler(poses.matrix))))


def with_swapped_defocus(particles):
    ctf = particles.ctf
    return replace(particles, ctf=replace(ctf, defocus_u_A=ctf.defocus_v_A, defocus_v_A=ctf.defocus_u_A))


def with_opposite_defocus_angle(particles):
    return replace(particles, ctf=replace(particles.ctf, defocus_angle_rad=-particles.ctf.defocus_angle_rad))


FLIP_Z = np.diag([1, 1, -1])
PLANTED = {
    "sign of psi": (with_angles(lambda rot, tilt, psi: (rot, tilt, -psi)), "poses by"),
    "rot and psi exchanged": (with_angles(lambda rot, tilt, psi: (psi, tilt, rot)), "poses by"),
    "transposed pose": (with_poses(matrix=lambda poses: poses.matrix.transpose(0, 2, 1)), "poses by"),
    "hand": (with_poses(matrix=lambda poses: FLIP_Z @ poses.matrix @ FLIP_Z), "poses by"),
    "shift in pixels": (with_poses(shift_A=lambda poses: poses.shift_A / PIXEL_A), "shifts by"),
    "sign of the shift": (with_poses(shift_A=lambda poses: -poses.shift_A), "shifts by"),
    "x and y exchanged": (with_poses(shift_A=lambda poses: poses.shift_A[:, ::-1]), "shifts by"),
    "half a pixel": (with_poses(shift_A=lambda poses: poses.shift_A + PIXEL_A / 2), "shifts by 1.06 Å"),
    "flipped y": (lambda particles: particles.mirrored_y(), "poses by"),
    "defocus exchanged": (with_swapped_defocus, "the CTF by"),
    "sign of the defocus angle": (with_opposite_defocus_angle, "the CTF by"),
    "defocus angle in degrees": (
        lambda p: replace(p, ctf=replace(p.ctf, defocus_angle_rad=np.degrees(p.ctf.defocus_angle_rad))), "the CTF by",
    ),
    "spherical aberration": (with_optics(spherical_aberration_mm=2.0 / 2.7), "the CTF by"),
    "amplitude contrast": (with_optics(amplitude_contrast=0.7), "the CTF by"),
    "voltage": (with_optics(voltage_kV=2 / 3), "the CTF by"),
    "pixel size": (with_optics(pixel_size_A=1.01), "the pixel size by 1 %"),
    "order of rows": (lambda particles: particles.take(np.roll(np.arange(len(particles)), 1)), "poses by"),
}  # fmt: skip


def compared(particles, other, premultiplied=(False, False)):
    rows = np.arange(len(particles))
    images = chosen_images(particles, rows, ImageSearch(particles.source))
    said = (
        Said(each, rows, np.full(len(rows), flag)) for each, flag in zip((particles, other), premultiplied, strict=True)
    )
    return compare_maps(images, *said, 48, "cpu")


def test_what_rounding_changes_is_seen_as_the_same(particles):
    angles = (np.round(angle, 6) for angle in matrix_to_euler(particles.poses.matrix))
    shift_A = np.round(particles.poses.shift_A, 6)
    rounded = replace(particles, poses=replace(particles.poses, matrix=euler_to_matrix(*angles), shift_A=shift_A))
    check = compared(particles, rounded)
    assert check.is_good and check.lowest > 0.9999 and not check.differing
    assert len(check.fsc) == 25 and check.particles == 100
    assert check.voxel_size_A == 3.0
    check.require("p.star")
    # Also in double precision: what is almost the same is not quite.
    assert compared(particles, particles).lowest > 1 - 1e-9


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_error_makes_another_map_and_is_named(particles, name):
    plant, said = PLANTED[name]
    check = compared(particles, plant(particles))
    assert check.lowest < LEAST_FSC - 0.01 and not check.is_good
    assert any(text.startswith(said) for text in check.differing), check.differing
    with pytest.raises(cb.CryobridgeError, match=f"another map.*FSC -?0.*differs: .*{said}"):
        check.require("p.star")


def test_a_lost_premultiplication_makes_another_map(particles):
    check = compared(particles, particles, (True, False))
    assert check.lowest < 0.5
    assert check.differing == ("whether images are multiplied by their CTF",)
