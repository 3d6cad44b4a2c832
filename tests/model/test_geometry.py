import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from cryobridge.errors import CryobridgeError
from cryobridge.model import geometry
from cryobridge.model.convention import ALL_CONVENTIONS


def about_y(angle_deg):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def about_z(angle_deg):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def relion_matrix(rot, tilt, psi):
    return about_z(psi) @ about_y(tilt) @ about_z(rot)


def exp_of_cross_product_matrix(vector):
    x, y, z = vector
    generator = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    term, total = np.eye(3), np.eye(3)
    for order in range(1, 60):
        term = term @ generator / order
        total = total + term
    return total


def rows(low, high, columns=3):
    return hnp.arrays(
        np.float64, st.tuples(st.integers(0, 5), st.just(columns)), elements=st.floats(low, high, width=64)
    )


@pytest.fixture
def refinement(reference_data):
    return np.load(reference_data / "real" / "cryosparc_P12_J24_001_particles.cs", allow_pickle=False)


@pytest.fixture
def cryodrgn_poses(reference_data):
    with (reference_data / "real" / "pose.cs.pkl").open("rb") as file:
        return pickle.load(file)


ANGLES = [(0, 0, 0), (10, 20, 30), (-170, 95, 160), (0, 90, 0), (45, 0, 0), (0, 0, -60), (12, 180, 34), (180, 1, -180)]


@pytest.mark.parametrize("angles", ANGLES)
def test_euler_angles_give_the_product_of_relions_elementary_rotations(angles):
    (matrix,) = geometry.euler_to_matrix(*np.array([angles], dtype=float).T)
    np.testing.assert_allclose(matrix, relion_matrix(*angles), atol=1e-15)


def test_euler_angles_are_the_transpose_of_scipys_intrinsic_zyz():
    angles = np.random.default_rng(1).uniform([-180, 0, -180], [180, 180, 180], (100, 3))
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(geometry.euler_to_matrix(*angles.T), expected, atol=1e-14)


@pytest.mark.parametrize(
    "vector", [(0, 0, 0), (1e-9, 0, 0), (0.3, -0.2, 0.1), (0, np.pi, 0), (1.9, 1.9, 1.9), (0, 0, 5)]
)
def test_a_rotation_vector_gives_the_transposed_exponential(vector):
    (matrix,) = geometry.rotvec_to_matrix(np.array([vector], dtype=float))
    np.testing.assert_allclose(matrix, exp_of_cross_product_matrix(vector).T, atol=1e-13)


def test_cryosparc_poses_are_the_matrices_that_cryodrgn_made_of_them(refinement, cryodrgn_poses):
    expected = cryodrgn_poses[0]
    matrix = geometry.rotvec_to_matrix(refinement["alignments3D/pose"])
    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous
    assert matrix.shape == expected.shape == (2019, 3, 3)
    assert np.abs(matrix - expected).max() <= 1e-6


def test_cryosparc_poses_survive_the_way_through_relions_angles(refinement, cryodrgn_poses):
    angles = geometry.matrix_to_euler(geometry.rotvec_to_matrix(refinement["alignments3D/pose"]))
    written = [np.round(angle, 6) for angle in angles]
    independent = np.array([relion_matrix(*row) for row in np.transpose(written)])
    assert np.abs(independent - cryodrgn_poses[0]).max() <= 1e-6


def test_cryosparc_shifts_are_the_translations_that_cryodrgn_made_of_them(refinement, cryodrgn_poses):
    psize_A = refinement["alignments3D/psize_A"]
    shift_A = geometry.shift_px_to_A(refinement["alignments3D/shift"], psize_A)
    fraction = geometry.shift_A_to_box_fraction(shift_A, refinement["blob/psize_A"], refinement["blob/shape"][:, 0])
    assert np.abs(fraction - cryodrgn_poses[1]).max() <= 1e-8
    back_A = geometry.box_fraction_to_shift_A(fraction, refinement["blob/psize_A"], refinement["blob/shape"][:, 0])
    np.testing.assert_allclose(back_A, shift_A, atol=1e-12)


def test_float32_matrices_of_a_pickle_give_the_vectors_of_the_cs_file(refinement, cryodrgn_poses):
    rotvec = geometry.matrix_to_rotvec(cryodrgn_poses[0])
    assert np.linalg.norm(rotvec, axis=1).max() <= np.pi + 1e-12
    expected = Rotation.from_rotvec(refinement["alignments3D/pose"]).as_matrix().transpose(0, 2, 1)
    assert np.abs(geometry.rotvec_to_matrix(rotvec) - expected).max() <= 1e-6


@given(rows(-360, 360))
def test_matrix_to_euler_gives_angles_of_the_same_matrix(angles):
    matrix = geometry.euler_to_matrix(*angles.T)
    rot, tilt, psi = geometry.matrix_to_euler(matrix)
    np.testing.assert_allclose(geometry.euler_to_matrix(rot, tilt, psi), matrix, atol=2e-6)
    assert ((tilt >= 0) & (tilt <= 180)).all()
    assert (np.abs([rot, psi]) <= 180).all()
    clear = np.sin(np.radians(tilt)) > 1e-5
    np.testing.assert_allclose(geometry.euler_to_matrix(rot, tilt, psi)[clear], matrix[clear], atol=1e-14)


@given(rows(-6, 6))
def test_matrix_to_rotvec_gives_the_vector_of_the_same_matrix(rotvec):
    matrix = geometry.rotvec_to_matrix(rotvec)
    back = geometry.matrix_to_rotvec(matrix)
    assert back.shape == rotvec.shape
    np.testing.assert_allclose(geometry.rotvec_to_matrix(back), matrix, atol=1e-14)


@given(
    hnp.arrays(np.float64, (1, 3), elements=st.floats(-1, 1)).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.sampled_from([0.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e-15, -1e-6, -1e-12]),
)
def test_rotation_vectors_near_pi_keep_their_matrix(axis, gap):
    rotvec = axis / np.linalg.norm(axis) * (np.pi - gap)
    matrix = geometry.rotvec_to_matrix(rotvec)
    np.testing.assert_allclose(matrix[0], exp_of_cross_product_matrix(rotvec[0]).T, atol=1e-13)
    back = geometry.matrix_to_rotvec(matrix)
    np.testing.assert_allclose(geometry.rotvec_to_matrix(back), matrix, atol=1e-14)
    rot_tilt_psi = geometry.matrix_to_euler(matrix)
    np.testing.assert_allclose(geometry.euler_to_matrix(*rot_tilt_psi), matrix, atol=2e-6)


@pytest.mark.parametrize("length", [0.0, 1e-300, 1e-16, 1e-12, 1e-8, 1e-4])
def test_small_rotation_vectors_come_back_to_full_relative_precision(length):
    rotvec = np.array([[0.6, 0.0, -0.8]]) * length
    back = geometry.matrix_to_rotvec(geometry.rotvec_to_matrix(rotvec))
    np.testing.assert_allclose(back, rotvec, rtol=1e-12)


@pytest.mark.parametrize(
    ("given_angles", "expected"),
    [
        ((30, 0, 40), (0, 0, 70)),
        ((-30, 0, 0), (0, 0, -30)),
        ((30, 180, 40), (0, 180, 10)),
        ((50, 180, 0), (0, 180, -50)),
        ((50, 1e-5, 0), (0, 0, 50)),
        ((50, 180 - 1e-5, 0), (0, 180, -50)),
    ],
)
def test_at_tilt_0_and_180_rot_is_0_and_psi_takes_all_of_it(given_angles, expected):
    matrix = geometry.euler_to_matrix(*np.array([given_angles], dtype=float).T)
    found = np.ravel(geometry.matrix_to_euler(matrix))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("tilt_deg", [1e-4, 1e-3, 1e-2, 179.999, 179.9999])
def test_close_to_tilt_0_psi_makes_up_for_a_rot_that_float32_blurs(tilt_deg):
    rng = np.random.default_rng(3)
    rot, psi = rng.uniform(-180, 180, (2, 200))
    exact = geometry.euler_to_matrix(rot, np.full(200, tilt_deg), psi)
    blurred = exact.astype(np.float32) + rng.uniform(-3e-7, 3e-7, exact.shape)
    found = geometry.euler_to_matrix(*geometry.matrix_to_euler(blurred))
    assert np.abs(found - exact).max() < 3e-6


def test_orthonormalise_finds_the_nearest_rotation():
    rng = np.random.default_rng(4)
    exact = geometry.euler_to_matrix(*rng.uniform(-180, 180, (3, 50)))
    blurred = exact + rng.uniform(-1e-3, 1e-3, exact.shape)
    u, _, vt = np.linalg.svd(blurred)
    found = geometry.orthonormalise(blurred)
    np.testing.assert_allclose(found, u @ vt, atol=1e-12)
    np.testing.assert_allclose(found.transpose(0, 2, 1) @ found, np.tile(np.eye(3), (50, 1, 1)), atol=1e-14)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda m: m * 1.05, id="stretched"),
        pytest.param(lambda m: m * [1, 1, -1], id="mirrored"),
        pytest.param(lambda m: m * np.nan, id="not a number"),
        pytest.param(lambda m: m * np.inf, id="infinite"),
        pytest.param(lambda m: m * 0, id="empty"),
    ],
)
@pytest.mark.parametrize("convert", [geometry.orthonormalise, geometry.matrix_to_euler, geometry.matrix_to_rotvec])
def test_what_is_not_a_rotation_is_refused_with_its_rows(convert, spoil):
    matrix = geometry.euler_to_matrix(*np.full((3, 9), 33.0))
    matrix[2:] = spoil(matrix[2:])
    with pytest.raises(CryobridgeError, match="7 of 9 matrices are not rotations") as caught:
        convert(matrix)
    assert caught.value.rows == (2, 3, 4, 5, 6)
    assert caught.value.count == 7
    assert caught.value.hint


def test_no_rows_are_no_error():
    matrix = geometry.rotvec_to_matrix(np.empty((0, 3), np.float32))
    assert matrix.shape == (0, 3, 3)
    assert geometry.matrix_to_rotvec(matrix).shape == (0, 3)
    rot, tilt, psi = geometry.matrix_to_euler(matrix)
    assert rot.shape == tilt.shape == psi.shape == (0,)
    assert geometry.euler_to_matrix(rot, tilt, psi).shape == (0, 3, 3)


def test_shifts_are_counted_in_the_pixels_of_the_alignment():
    # EMPIAR-11377: aligned at 1.462 Å, stored at 0.731 Å.
    shift_A = geometry.shift_px_to_A(np.array([[2.0, -3.0]], np.float32), np.array([1.462]))
    np.testing.assert_allclose(shift_A, [[2.924, -4.386]])
    np.testing.assert_allclose(geometry.shift_A_to_px(shift_A, 0.731), [[4.0, -6.0]])
    np.testing.assert_allclose(geometry.shift_A_to_box_fraction(shift_A, 0.731, 400), [[0.01, -0.015]])


def test_each_row_has_its_own_pixel_size():
    shift_A = geometry.shift_px_to_A(np.ones((3, 2)), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(shift_A, [[1, 1], [2, 2], [3, 3]])
    fraction = geometry.shift_A_to_box_fraction(shift_A, np.array([1.0, 2.0, 3.0]), np.array([10, 20, 40]))
    np.testing.assert_allclose(fraction, [[0.1, 0.1], [0.05, 0.05], [0.025, 0.025]])


FRACTION = np.array([[0.25, 0.1]])
SHAPE = np.array([4000, 6000])  # ny, nx


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1500, 400)),
        ({"flip_x": True}, (4500, 400)),
        ({"flip_y": True}, (1500, 3600)),
        ({"swap_xy": True}, (400, 1500)),
        ({"flip_y": True, "swap_xy": True}, (3600, 1500)),
        ({"flip_x": True, "flip_y": True, "swap_xy": True}, (3600, 4500)),
    ],
)
def test_x_goes_with_the_second_number_of_the_shape(options, expected):
    found = geometry.fractions_to_px(FRACTION, SHAPE, **options)
    np.testing.assert_allclose(found, [expected])
    np.testing.assert_allclose(geometry.px_to_fractions(found, SHAPE, **options), FRACTION)


def test_each_row_has_its_own_micrograph_shape():
    shape = np.array([[4000, 6000], [6000, 4000]], np.uint32)
    found = geometry.fractions_to_px(np.repeat(FRACTION, 2, axis=0).astype(np.float32), shape, flip_y=True)
    np.testing.assert_allclose(found, [[1500, 3600], [1000, 5400]], rtol=1e-6)


@given(rows(0, 1, columns=2), st.booleans(), st.booleans(), st.booleans())
def test_px_to_fractions_undoes_fractions_to_px(fraction, flip_x, flip_y, swap_xy):
    options = {"flip_x": flip_x, "flip_y": flip_y, "swap_xy": swap_xy}
    there = geometry.fractions_to_px(fraction, SHAPE, **options)
    np.testing.assert_allclose(geometry.px_to_fractions(there, SHAPE, **options), fraction, atol=1e-12)


def test_a_y_mirrored_pose_projects_the_same_points_to_the_mirrored_image():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(20, 3))
    matrix = geometry.euler_to_matrix(*rng.uniform(-180, 180, (3, 4)))
    mirrored = geometry.mirror_matrix_y(matrix)
    np.testing.assert_allclose(np.linalg.det(mirrored), 1.0)
    image = (matrix @ points.T)[:, :2]
    image_mirrored = (mirrored @ points.T)[:, :2]
    np.testing.assert_allclose(image_mirrored[:, 0], image[:, 0])
    np.testing.assert_allclose(image_mirrored[:, 1], -image[:, 1])


def test_a_y_mirrored_shift_finds_the_same_particle_in_reversed_rows():
    ny, pixel_size_A = 4000, 2.0
    coordinate, shift_A = np.array([[100.0, 300.0]]), np.array([[8.0, -6.0]])
    centre = coordinate - shift_A / pixel_size_A
    reversed_coordinate = coordinate * [1, -1] + [0, ny]
    found = reversed_coordinate - geometry.mirror_shift_y(shift_A) / pixel_size_A
    np.testing.assert_allclose(found, centre * [1, -1] + [0, ny])


def test_a_y_mirrored_defocus_angle_points_along_the_mirrored_axis():
    angle = np.array([0.0, 0.3, -1.2, 2.0])
    found = geometry.mirror_defocus_angle_y(angle)
    np.testing.assert_allclose(np.cos(found), np.cos(angle))
    np.testing.assert_allclose(np.sin(found), -np.sin(angle))
    assert not np.signbit(found[0])


def pictures_of(points, matrix, shift, edge=31):
    """Blobs of different sizes, seen along z of each view: images (n, edge, edge) whose middle pixel is the origin."""
    at = np.arange(edge) - edge // 2
    x, y = np.moveaxis(matrix @ points.T, 1, 0)[:2] - shift.T[:, :, np.newaxis]
    size = np.linspace(0.8, 2.0, len(points))
    along_x, along_y = (np.exp(-(((at - each[..., np.newaxis]) / size[:, np.newaxis]) ** 2)) for each in (x, y))
    return np.einsum("npx,npy->nyx", along_x, along_y)


@pytest.mark.parametrize("convention", ALL_CONVENTIONS, ids=str)
def test_images_that_lie_otherwise_are_views_of_the_same_molecule(convention):
    rng = np.random.default_rng(6)
    points, shift = rng.normal(scale=4, size=(12, 3)), rng.uniform(-3, 3, (5, 2))
    matrix = geometry.euler_to_matrix(*rng.uniform(-180, 180, (3, 5)))
    turned = geometry.turn_matrix(matrix, convention.turn)
    np.testing.assert_allclose(np.linalg.det(turned), 1.0)
    found = pictures_of(points, turned, geometry.turn_vectors(shift, convention.turn))
    np.testing.assert_allclose(found, convention.image(pictures_of(points, matrix, shift)), atol=1e-9)
    angle = rng.uniform(-3, 3, 9)
    expected = convention.direction_rad(angle)
    found = geometry.turn_direction_rad(angle, convention.turn)
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * expected))


def test_numbers_too_large_to_be_rounded_stay_as_they_are_in_silence():
    with np.errstate(all="raise"):
        rounded = geometry.rounded(np.array([1e308, -1e300, np.inf, 1.26, -0.01]), 1)
    assert rounded.tolist() == [1e308, -1e300, np.inf, 1.3, 0.0]
    assert not np.signbit(rounded[-1])


def test_fractions_of_too_large_micrographs_are_infinite_in_silence():
    with np.errstate(all="raise"):
        assert np.isinf(geometry.fractions_to_px(np.full((1, 2), 10.0), np.full((1, 2), 1e308))).all()
