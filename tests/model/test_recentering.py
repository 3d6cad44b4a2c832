from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryobridge.model.particles import Labels, Locations, ParticleSet, Poses
from cryobridge.model.recentering import distinct_copies, recentred
from cryobridge.model.symmetry import symmetry_rotations

N = 50
rng = np.random.default_rng(0)
MATRIX = Rotation.random(N, random_state=1).as_matrix()
SHIFT_A, PLACE_PX, PIXEL_SIZE_A = rng.uniform(-20, 20, (N, 2)), rng.uniform(0, 4000, (N, 2)), rng.uniform(0.6, 2, N)


def particles(shift_A=SHIFT_A, place_px=PLACE_PX):
    n = len(shift_A)
    locations = Locations(Labels.of(["a.mrc"] * n), np.asarray(place_px, float))
    return ParticleSet(
        n, Path("a.star"), locations=locations, poses=Poses(MATRIX[:n], np.asarray(shift_A, float), "alignments3D")
    )


def test_centres_stay_where_they_are_and_only_whole_pixels_move():
    found = recentred(particles(), PIXEL_SIZE_A)
    new = found.particles
    centre = new.locations.coordinate_px - new.poses.shift_A / PIXEL_SIZE_A[:, None]
    np.testing.assert_allclose(centre, PLACE_PX - SHIFT_A / PIXEL_SIZE_A[:, None], atol=1e-9)
    np.testing.assert_array_equal(found.moved_px, np.rint(found.moved_px))
    assert (np.abs(new.poses.shift_A) <= PIXEL_SIZE_A[:, None] / 2 + 1e-9).all()
    np.testing.assert_array_equal(new.poses.matrix, MATRIX)


def test_halves_are_rounded_away_from_zero():
    found = recentred(particles([[0.75, -0.75], [2.25, -2.25], [0.74, -0.74]], np.zeros((3, 2))), 1.5)
    assert found.particles.locations.coordinate_px.tolist() == [[-1, 1], [-2, 2], [0, 0]]
    np.testing.assert_allclose(found.particles.poses.shift_A, [[-0.75, 0.75], [-0.75, 0.75], [0.74, -0.74]])


@pytest.mark.parametrize("group", ["C1", "C4", "D3", "T", "O", "I2"])
def test_a_part_and_its_copies_are_where_the_poses_project_them(group):
    """The part is a place and a direction at it: of all copies, both are seen where the whole map's pose shows them."""
    rotations, centre_A, beside_A = symmetry_rotations(group), np.array([31.0, -12.0, 44.0]), np.array([5.0, 3.0, -2.0])
    found = recentred(particles(), PIXEL_SIZE_A, centre_A, rotations)
    new, k = found.particles, len(rotations)
    assert len(new) == N * k
    assert found.parent.tolist() == [row for row in range(N) for _ in range(k)]
    for row in range(0, N * k, 7):
        parent, rotation = found.parent[row], rotations[found.copy[row]]
        pixel_size_A = PIXEL_SIZE_A[parent]
        base_px = PLACE_PX[parent] - SHIFT_A[parent] / pixel_size_A
        own_px = new.locations.coordinate_px[row] - new.poses.shift_A[row] / pixel_size_A
        np.testing.assert_allclose(own_px, base_px + (MATRIX[parent] @ rotation @ centre_A)[:2] / pixel_size_A)
        whole_px = base_px + (MATRIX[parent] @ rotation @ (centre_A + beside_A))[:2] / pixel_size_A
        of_part_px = own_px + (new.poses.matrix[row] @ beside_A)[:2] / pixel_size_A
        np.testing.assert_allclose(of_part_px, whole_px)
        assert (np.abs(new.poses.shift_A[row]) <= pixel_size_A / 2 + 1e-9).all()


@pytest.mark.parametrize(
    ("group", "place_A", "n_places", "nearest_A"),
    [
        ("C4", (0, 0, 10), 1, np.inf),
        ("C4", (10, 0, 0), 4, np.sqrt(200)),
        ("D2", (0, 7, 0), 2, 14),
        ("O", (0, 0, 50), 6, np.sqrt(5000)),
        ("O", (9, 9, 9), 8, 18),
        ("I1", (0, 0, 100), 30, 200 * np.sin(np.pi / 10)),
        ("I1", (0, 0, 0), 1, np.inf),
    ],
)
def test_copies_on_an_axis_are_one_place(group, place_A, n_places, nearest_A):
    rotations, found_A = distinct_copies(np.array(place_A, float), symmetry_rotations(group))
    assert len(rotations) == n_places
    np.testing.assert_array_equal(rotations[0], np.eye(3))
    assert found_A == pytest.approx(nearest_A)
