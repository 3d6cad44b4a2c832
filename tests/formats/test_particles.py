import math
import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.model.particles import Labels

POSES = np.array([[0.3, -1.2, 0.4], [2.0, 0.1, -3.0], [0.0, 0.0, 0.0], [0.0, math.pi, 0.0]], np.float32)
SHIFTS = np.array([[1.5, -2.5], [0.0, 3.0], [10.0, 20.0], [-1.0, 1.0]], np.float32)


@pytest.fixture
def save_cs(tmp_path):
    """Write columns as a .cs file with NumPy alone."""

    def _save(**columns):
        columns = {name.replace("__", "/"): np.asarray(values) for name, values in columns.items()}
        n_rows = len(next(iter(columns.values())))
        array = np.zeros(n_rows, [(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
        for name, values in columns.items():
            array[name] = values
        path = tmp_path / "particles.cs"
        with path.open("wb") as file:
            np.save(file, array)
        return path

    return _save


@pytest.fixture
def save_star(tmp_path):
    def _save(*blocks):
        path = tmp_path / "particles.star"
        path.write_text("\n".join(blocks))
        return path

    return _save


def loop(name, columns, *rows):
    return "\n".join([f"data_{name}", "", "loop_", *(f"_rln{label}" for label in columns.split()), *rows, ""])


def texts(labels):
    return labels.to_numpy().tolist()


def blob(n, psize=1.5, box=64):
    return {
        "uid": np.arange(n, dtype="u8"),
        "blob__path": np.full(n, b"J1/a.mrc"),
        "blob__idx": np.arange(n, dtype="u4"),
        "blob__shape": np.full((n, 2), box, "u4"),
        "blob__psize_A": np.full(n, psize, "f4"),
    }


def matrices(rotvec):
    """The convention in scipy's words: A is the transpose of the rotation by the vector."""
    return Rotation.from_rotvec(np.asarray(rotvec, float)).as_matrix().transpose(0, 2, 1)


# --- reference data -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refined(reference_data):
    return read_particles_cs(reference_data / "real" / "cryosparc_P12_J24_001_particles.cs")


def test_refined_poses_are_those_that_cryodrgn_parsed(refined, reference_data):
    matrix, fraction = pickle.loads((reference_data / "real" / "pose.cs.pkl").read_bytes())
    assert refined.poses.source == "alignments3D"
    assert refined.poses.matrix.shape == (2019, 3, 3)
    assert np.abs(refined.poses.matrix - matrix).max() <= 1e-6
    box_A = refined.per_particle("pixel_size_A") * refined.per_particle("box_px")
    np.testing.assert_array_equal((refined.poses.shift_A / box_A[:, None]).astype(np.float32), fraction)


def test_refined_ctf_is_that_which_cryodrgn_parsed(refined, reference_data):
    expected = pickle.loads((reference_data / "real" / "ctf2.pkl").read_bytes())
    found = np.column_stack(
        [
            refined.per_particle("box_px"),
            refined.per_particle("pixel_size_A"),
            refined.ctf.defocus_u_A,
            refined.ctf.defocus_v_A,
            np.degrees(refined.ctf.defocus_angle_rad),
            refined.per_particle("voltage_kV"),
            refined.per_particle("spherical_aberration_mm"),
            refined.per_particle("amplitude_contrast"),
            np.degrees(refined.ctf.phase_shift_rad),
        ]
    )
    angle = 4
    np.testing.assert_array_equal(np.delete(found.astype(np.float32), angle, 1), np.delete(expected, angle, 1))
    np.testing.assert_allclose(found[:, angle], expected[:, angle], rtol=1e-6)


def test_the_rest_of_a_refined_file(refined, reference_data):
    array = np.load(reference_data / "real" / "cryosparc_P12_J24_001_particles.cs")
    assert len(refined) == 2019
    assert refined.uid.dtype == np.uint64
    assert refined.uid.tolist() == array["uid"].tolist()
    assert (refined.uid > 2**63).any()
    assert texts(refined.images.path) == [text.decode() for text in array["blob/path"]]
    assert refined.images.index.tolist() == array["blob/idx"].tolist()
    assert set(refined.half_set.tolist()) == {1, 2}
    assert refined.half_set[0] == 2  # split 1
    assert set(refined.class_number.tolist()) == {1}
    assert refined.ctf.bfactor_A2 is None  # files of version 2 have none
    assert refined.locations is None
    assert refined.messages == ()
    assert len(refined.optics) == 1


def test_a_relion_3_1_file_by_its_numbers(reference_data):
    particles = read_particles_star(reference_data / "real" / "relion31.star")
    assert len(particles) == 5
    assert particles.uid is None
    assert texts(particles.images.path) == ["relion31.mrcs"] * 5
    assert particles.images.index.tolist() == [0, 1, 2, 3, 4]
    optics = particles.optics
    assert (optics.group_id.tolist(), optics.name, optics.box_px.tolist()) == ([1], ("opticsGroup1",), [256])
    assert [particles.per_particle(name)[3] for name in ("voltage_kV", "spherical_aberration_mm")] == [300.0, 0.01]
    assert [particles.per_particle(name)[3] for name in ("amplitude_contrast", "pixel_size_A")] == [0.1, 2.806]
    assert (particles.ctf.defocus_u_A[0], particles.ctf.defocus_v_A[0]) == (13108.082418, 12845.582418)
    assert particles.ctf.defocus_angle_rad[0] == pytest.approx(-2.799333587, abs=1e-9)  # -160.39 degrees
    assert (particles.ctf.bfactor_A2[0], particles.ctf.scale[0], particles.ctf.phase_shift_rad[0]) == (0, 1, 0)
    # rot -102.30296, tilt 82.318041, psi 124.706463: the third row is the direction of view, the third column the
    # reference's z axis.
    assert particles.poses.matrix[0, 2] == pytest.approx([-0.2111685335, -0.9682660140, 0.1336741431], abs=1e-9)
    assert particles.poses.matrix[0, :2, 2] == pytest.approx([0.5642623354, 0.8147019334], abs=1e-9)
    assert particles.poses.shift_A[0].tolist() == [0.019324, -0.64686]
    assert particles.locations.coordinate_px[2].tolist() == [2826.0, 459.0]
    assert particles.locations.micrograph[2].startswith("Micrographs/18aug10a_MC2")
    assert particles.locations.shape_px is None
    assert particles.half_set.tolist() == particles.class_number.tolist() == [1] * 5
    assert particles.messages == ()


def test_both_programs_agree_on_the_same_particles(reference_data):
    cs = read_particles_cs(reference_data / "real" / "empiar_10076_7.cs")
    star = read_particles_star(reference_data / "real" / "empiar_10076_7.star")
    assert len(cs) == len(star) == 7
    assert texts(cs.images.path) == texts(star.images.path)
    assert cs.images.index.tolist() == star.images.index.tolist()
    for name in ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A"):
        np.testing.assert_allclose(cs.per_particle(name), star.per_particle(name), rtol=1e-6)
    for name in ("defocus_u_A", "defocus_v_A", "defocus_angle_rad"):
        np.testing.assert_allclose(getattr(cs.ctf, name), getattr(star.ctf, name), rtol=1e-6)
    assert cs.optics.group_id.tolist() == [23]
    assert cs.optics.box_px.tolist() == [320]
    assert cs.poses is star.poses is None
    assert cs.locations is star.locations is None


# --- cryoSPARC ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [{"uid": np.arange(3, dtype="u8")}, {"made__up": np.zeros(3, "f4")}])
def test_parts_that_a_cs_file_lacks_are_none(save_cs, columns):
    particles = read_particles_cs(save_cs(**columns))
    assert len(particles) == 3
    parts = ["images", "optics", "optics_index", "ctf", "poses", "locations", "half_set", "class_number"]
    assert [getattr(particles, part) for part in parts] == [None] * 8
    assert (particles.uid is None) == ("uid" not in columns)
    with pytest.raises(ValueError, match="no optics"):
        particles.per_particle("voltage_kV")


@pytest.mark.parametrize("lacking", ["blob__path", "blob__idx"])
def test_half_an_image_reference_is_none(save_cs, lacking):
    columns = blob(2)
    del columns[lacking]
    assert read_particles_cs(save_cs(**columns)).images is None


def test_shifts_are_pixels_of_their_alignment(save_cs):
    columns = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS}
    path = save_cs(**blob(4, psize=1.5), **columns, alignments3D__psize_A=np.full(4, 3.0, "f4"))
    particles = read_particles_cs(path)
    np.testing.assert_array_equal(particles.poses.shift_A, SHIFTS * 3.0)
    np.testing.assert_allclose(particles.poses.matrix, matrices(POSES), atol=1e-12)
    assert particles.half_set is particles.class_number is None
    assert particles.messages == ()


def test_each_particle_has_its_own_pixel_size(save_cs):
    psize = np.array([1, 2, 3, 4], "f4")
    columns = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS, "alignments3D__psize_A": psize}
    np.testing.assert_array_equal(read_particles_cs(save_cs(**columns)).poses.shift_A, SHIFTS * psize[:, None])


def test_without_its_own_pixel_size_a_shift_takes_the_images_and_says_so(save_cs):
    columns = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS}
    particles = read_particles_cs(save_cs(**blob(4, psize=1.5), **columns))
    np.testing.assert_array_equal(particles.poses.shift_A, SHIFTS * 1.5)
    assert "pixels of the image" in str(particles.messages[0])
    particles = read_particles_cs(save_cs(**columns))
    assert particles.poses.shift_A is None
    assert "left out" in str(particles.messages[-1])
    assert read_particles_cs(save_cs(alignments3D__pose=POSES)).poses.shift_A is None


def test_split_and_class_count_from_1(save_cs):
    columns = {"alignments3D__pose": POSES, "alignments3D__split": np.array([0, 1, 1, 0], "u4")}
    particles = read_particles_cs(save_cs(**columns, alignments3D__class=np.array([0, 3, 2, 1], "u4")))
    assert particles.half_set.tolist() == [1, 2, 2, 1]
    assert particles.class_number.tolist() == [1, 4, 3, 2]


def test_2d_poses_turn_by_plus_psi_and_have_no_half_sets(save_cs):
    angle = np.array([math.pi / 6, -math.pi / 2, 0.0], "f4")
    path = save_cs(
        alignments2D__pose=angle,
        alignments2D__shift=SHIFTS[:3],
        alignments2D__psize_A=np.full(3, 2, "f4"),
        alignments2D__split=np.array([0, 1, 0], "u4"),
        alignments2D__class=np.array([49, 0, 7], "u4"),
    )
    particles = read_particles_cs(path)
    half = math.sqrt(3) / 2
    assert particles.poses.source == "alignments2D"
    np.testing.assert_allclose(particles.poses.matrix[0], [[half, 0.5, 0], [-0.5, half, 0], [0, 0, 1]], atol=1e-7)
    np.testing.assert_allclose(particles.poses.matrix[1], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-7)
    np.testing.assert_array_equal(particles.poses.matrix[2], np.eye(3))
    np.testing.assert_array_equal(particles.poses.shift_A, SHIFTS[:3] * 2)
    assert particles.class_number.tolist() == [50, 1, 8]
    assert particles.half_set is None


def test_3d_comes_before_classes_before_2d(save_cs):
    groups = {
        "alignments2D__pose": np.zeros(4, "f4"),
        "alignments_class_0__pose": POSES,
        "alignments3D_multi__pose": np.stack([POSES, POSES], 1),
        "alignments3D__pose": POSES,
    }
    sources = []
    while groups:
        sources.append(read_particles_cs(save_cs(**groups)).poses.source)
        groups.popitem()
    assert sources == ["alignments3D", "alignments3D_multi", "alignments_class_0", "alignments2D"]


def several_classes():
    """Return for three classes poses (n, K, 3), shifts (n, K, 2) and posteriors (n, K) of which 2, 0, 1, 2 win."""
    poses = np.stack([POSES * factor for factor in (1.0, 0.5, 0.25)], axis=1).astype("f4")
    shifts = np.stack([SHIFTS + offset for offset in (0, 100, 200)], axis=1).astype("f4")
    posterior = np.array([[0.1, 0.2, 0.7], [0.9, 0.1, 0], [0.3, 0.4, 0.3], [0, 0.49, 0.51]], "f4")
    return poses, shifts, posterior


BEST = np.array([2, 0, 1, 2])
ROWS = np.arange(4)


def check_best(particles):
    poses, shifts, _ = several_classes()
    np.testing.assert_allclose(particles.poses.matrix, matrices(poses[ROWS, BEST]), atol=1e-7)
    np.testing.assert_array_equal(particles.poses.shift_A, shifts[ROWS, BEST] * 2)
    assert any("most probable class" in str(note) for note in particles.messages)


@pytest.mark.parametrize("psize", [np.full(4, 2, "f4"), np.full((4, 3), 2, "f4")], ids=["one", "per class"])
def test_of_several_classes_in_one_group_the_most_probable_is_taken(save_cs, psize):
    poses, shifts, posterior = several_classes()
    path = save_cs(
        alignments3D_multi__pose=poses,
        alignments3D_multi__shift=shifts,
        alignments3D_multi__class_posterior=posterior,
        alignments3D_multi__class=np.tile(np.array([5, 6, 9], "u4"), (4, 1)),
        alignments3D_multi__split=np.array([0, 1, 0, 1], "u4"),
        alignments3D_multi__psize_A=psize,
    )
    particles = read_particles_cs(path)
    check_best(particles)
    assert particles.poses.source == "alignments3D_multi"
    assert particles.class_number.tolist() == [10, 6, 7, 10]
    assert particles.half_set.tolist() == [1, 2, 1, 2]


def test_of_several_class_groups_the_most_probable_is_taken(save_cs):
    poses, shifts, posterior = several_classes()
    columns = {}
    for place, number in ((2, 10), (0, 1), (1, 2)):  # in any order of columns, by number and not by letter
        columns |= {
            f"alignments_class_{number}__pose": poses[:, place],
            f"alignments_class_{number}__shift": shifts[:, place],
            f"alignments_class_{number}__class_posterior": posterior[:, place],
            f"alignments_class_{number}__class": np.full(4, number, "u4"),
            f"alignments_class_{number}__split": np.array([0, 1, 0, 1], "u4"),
            f"alignments_class_{number}__psize_A": np.full(4, 2, "f4"),
        }
    particles = read_particles_cs(save_cs(**columns))
    check_best(particles)
    assert particles.poses.source == "alignments_class_1, alignments_class_2, alignments_class_10"
    assert particles.class_number.tolist() == [11, 2, 3, 11]
    assert particles.half_set.tolist() == [1, 2, 1, 2]


def test_without_posteriors_the_first_class_is_taken_and_said(save_cs):
    poses, _, _ = several_classes()
    for columns in (
        {"alignments3D_multi__pose": poses},
        {f"alignments_class_{number}__pose": poses[:, number] for number in range(3)},
    ):
        particles = read_particles_cs(save_cs(**columns))
        np.testing.assert_allclose(particles.poses.matrix, matrices(POSES), atol=1e-7)
        assert "no class_posterior" in str(particles.messages[0])


def test_coordinates_are_pixels_of_a_micrograph_that_is_not_square(save_cs):
    path = save_cs(
        location__micrograph_path=np.array([b">J1/b.mrc", b"J1/a.mrc"]),
        location__micrograph_shape=np.array([[4092, 5760], [100, 200]], "u4"),  # ny, nx
        location__center_x_frac=np.array([0.25, 0.5], "f4"),
        location__center_y_frac=np.array([0.75, 0.1], "f4"),
    )
    locations = read_particles_cs(path).locations
    np.testing.assert_allclose(locations.coordinate_px, [[1440, 3069], [100, 10]], rtol=1e-6)
    assert locations.shape_px.tolist() == [[4092, 5760], [100, 200]]
    assert texts(locations.micrograph) == [">J1/b.mrc", "J1/a.mrc"]


def ctf(n, **changes):
    columns = {
        "ctf__accel_kv": np.full(n, 300, "f4"),
        "ctf__cs_mm": np.full(n, 2.7, "f4"),
        "ctf__amp_contrast": np.full(n, 0.1, "f4"),
        "ctf__df1_A": np.linspace(1e4, 2e4, n, dtype="f4"),
        "ctf__df2_A": np.linspace(1.1e4, 2.1e4, n, dtype="f4"),
        "ctf__df_angle_rad": np.linspace(-1.5, 4.7, n, dtype="f4"),
    }
    return {name: values for name, values in (columns | changes).items() if values is not None}


def test_ctf_columns(save_cs):
    extra = {"ctf__phase_shift_rad": [1.5, 0, 1], "ctf__bfactor": [10, 20, 30], "ctf__scale": [1, 0.5, 2]}
    particles = read_particles_cs(save_cs(**ctf(3), **{name: np.array(x, "f4") for name, x in extra.items()}))
    assert particles.ctf.defocus_u_A.tolist() == [10000, 15000, 20000]
    assert particles.ctf.defocus_v_A.tolist() == [11000, 16000, 21000]
    assert particles.ctf.defocus_angle_rad == pytest.approx([-1.5, 1.6, 4.7], abs=1e-6)
    assert particles.ctf.phase_shift_rad.tolist() == [1.5, 0, 1]
    assert particles.ctf.bfactor_A2.tolist() == [10, 20, 30]
    assert particles.ctf.scale.tolist() == [1, 0.5, 2]
    bare = read_particles_cs(save_cs(**ctf(3))).ctf
    assert bare.phase_shift_rad is bare.bfactor_A2 is bare.scale is None
    assert read_particles_cs(save_cs(**ctf(3, ctf__df2_A=None))).ctf is None


@pytest.mark.parametrize("name", ["ctf__amp_constrast", "ctf__ac"])
def test_old_spellings_of_the_amplitude_contrast_are_taken_and_noted(save_cs, name):
    path = save_cs(**ctf(2, ctf__amp_contrast=None, **{name: np.full(2, 0.25, "f4")}))
    particles = read_particles_cs(path)
    assert particles.optics.amplitude_contrast.tolist() == [0.25]
    assert name.replace("__", "/") in str(particles.messages[0])


def test_every_set_of_optics_values_is_a_group(save_cs):
    columns = blob(6) | ctf(6)
    columns["ctf__exp_group_id"] = np.array([23, 7, 23, 7, 23, 7], "u4")
    columns["blob__psize_A"] = np.array([1.31, 1.31, 1.3099979, 2.62, 1.31, 2.62], "f4")
    columns["blob__shape"] = np.array([[64, 64]] * 4 + [[32, 32]] * 2, "u4")
    particles = read_particles_cs(save_cs(**columns))
    optics = particles.optics
    assert particles.optics_index.dtype == np.int32
    found = list(zip(optics.group_id[particles.optics_index], particles.per_particle("box_px"), strict=True))
    assert found == [(23, 64), (7, 64), (23, 64), (7, 64), (23, 32), (7, 32)]
    assert particles.per_particle("pixel_size_A") == pytest.approx([1.31, 1.31, 1.31, 2.62, 1.31, 2.62], rel=2e-6)
    assert len(optics) == 5  # rows 0 and 2 differ by rounding alone
    assert particles.optics_index[0] == particles.optics_index[2]
    assert optics.group_id.tolist() == [7, 7, 7, 23, 23]
    assert optics.name == tuple(f"opticsGroup{number}" for number in (7, 7, 7, 23, 23))


def test_two_pixel_sizes_make_two_groups_and_what_is_not_said_is_nan(save_cs):
    columns = blob(3) | {"blob__psize_A": np.array([2, 1, 2], "f4")}
    particles = read_particles_cs(save_cs(**columns))
    assert len(particles.optics) == 2
    assert particles.per_particle("pixel_size_A").tolist() == [2, 1, 2]
    assert np.isnan(particles.per_particle("voltage_kV")).all()


def test_location_groups_stand_in_for_ctf_groups(save_cs):
    columns = blob(3) | {"location__exp_group_id": np.array([4, 2, 4], "u4")}
    particles = read_particles_cs(save_cs(**columns))
    assert particles.optics.group_id.tolist() == [2, 4]
    assert particles.optics_index.tolist() == [1, 0, 1]


def test_a_cs_file_without_rows(save_cs):
    poses, shifts, posterior = several_classes()
    multi = {"alignments3D_multi__pose": poses, "alignments3D_multi__shift": shifts}
    single = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS, "alignments3D__psize_A": np.ones(4, "f4")}
    flat = {"alignments2D__pose": np.zeros(4, "f4"), "alignments2D__shift": SHIFTS}
    location = {
        "location__micrograph_path": np.full(4, b"a.mrc"),
        "location__micrograph_shape": np.ones((4, 2), "u4"),
        "location__center_x_frac": np.zeros(4, "f4"),
        "location__center_y_frac": np.zeros(4, "f4"),
    }
    for alignment in (multi | {"alignments3D_multi__class_posterior": posterior}, multi, single, flat):
        columns = blob(4) | ctf(4) | location | alignment
        particles = read_particles_cs(save_cs(**{name: values[:0] for name, values in columns.items()}))
        assert len(particles) == len(particles.uid) == len(particles.images.path) == len(particles.optics) == 0
        assert particles.poses.matrix.shape == (0, 3, 3)
        assert particles.poses.shift_A.shape == particles.locations.coordinate_px.shape == (0, 2)
        assert particles.per_particle("pixel_size_A").shape == (0,)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("blob__shape", np.zeros(4, "u4")),
        ("blob__shape", np.zeros((4, 3), "u4")),
        ("blob__idx", np.zeros((4, 2), "u4")),
        ("blob__idx", np.array([0.5, 1, 2, 3])),
        ("blob__psize_A", np.zeros((4, 2), "f4")),
        ("uid", np.zeros((4, 2), "u8")),
        ("ctf__df1_A", np.zeros((4, 2), "f4")),
        ("alignments3D__pose", np.zeros((4, 4), "f4")),
        ("alignments3D__pose", np.zeros(4, "f4")),
        ("alignments3D__shift", np.zeros(4, "f4")),
        ("alignments3D__shift", np.zeros((4, 3), "f4")),
        ("alignments3D__psize_A", np.zeros((4, 2), "f4")),
        ("alignments3D__split", np.zeros((4, 2), "u4")),
    ],
)
def test_values_of_the_wrong_shape_are_refused(save_cs, field, values):
    alignment = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS}
    with pytest.raises(FormatError) as caught:
        read_particles_cs(save_cs(**(blob(4) | ctf(4) | alignment | {field: values})))
    assert caught.value.field == field.replace("__", "/")


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("pose", (4, 3)),
        ("pose", (4, 0, 3)),
        ("shift", (4, 2, 2)),
        ("class_posterior", (4, 2)),
        ("class_posterior", (4,)),
    ],
)
def test_classes_that_do_not_match_are_refused(save_cs, field, shape):
    poses, shifts, posterior = several_classes()
    columns = {"pose": poses, "shift": shifts, "class_posterior": posterior, field: np.zeros(shape, "f4")}
    with pytest.raises(FormatError):
        read_particles_cs(save_cs(**{f"alignments3D_multi__{name}": values for name, values in columns.items()}))


def test_uids_that_are_not_64_bit_integers_identify_nothing(save_cs):
    particles = read_particles_cs(save_cs(uid=np.array([1.5e19, 2])))
    assert particles.uid is None
    assert "float64" in str(particles.messages[0])
    signed = read_particles_cs(save_cs(uid=np.array([-1, 2], "i8")))
    assert signed.uid.tolist() == [2**64 - 1, 2]


# --- RELION ---------------------------------------------------------------------------------------------------------

OPTICS = loop(
    "optics",
    "OpticsGroup OpticsGroupName Voltage SphericalAberration AmplitudeContrast ImagePixelSize ImageSize",
    "12 late 200 2.0 0.07 3.0 64",
    "3 early 300 2.7 0.1 1.5 128",
)


def test_optics_groups_are_found_by_number(save_star):
    particles = read_particles_star(save_star(OPTICS, loop("particles", "OpticsGroup", "3", "12", "3")))
    assert particles.optics.group_id.tolist() == [12, 3]
    assert particles.optics.name == ("late", "early")
    assert particles.optics_index.tolist() == [1, 0, 1]
    assert particles.per_particle("pixel_size_A").tolist() == [1.5, 3.0, 1.5]
    assert particles.per_particle("voltage_kV").tolist() == [300, 200, 300]
    assert particles.per_particle("box_px").tolist() == [128, 64, 128]


def test_undefined_optics_groups_are_located(save_star):
    rows = ["3", "4", "12", "99", "4", "4"]
    with pytest.raises(MissingDataError, match="optics group 4 is not defined") as caught:
        read_particles_star(save_star(OPTICS, loop("particles", "OpticsGroup", *rows)))
    assert (caught.value.rows, caught.value.count) == ((1, 3, 4), 4)
    assert "12, 3" in caught.value.hint
    empty = loop("optics", "OpticsGroup Voltage")
    with pytest.raises(MissingDataError, match="not defined"):
        read_particles_star(save_star(empty, loop("particles", "OpticsGroup", "1")))


def test_rows_that_do_not_say_their_optics_group(save_star):
    with pytest.raises(MissingDataError, match="2 optics groups") as caught:
        read_particles_star(save_star(OPTICS, loop("particles", "Voltage", "300")))
    assert caught.value.hint
    one = loop("optics", "OpticsGroup Voltage ImagePixelSize", "7 300 1.5")
    particles = read_particles_star(save_star(one, loop("particles", "ClassNumber", "1", "2")))
    assert particles.optics.group_id[particles.optics_index].tolist() == [7, 7]
    assert "no rlnOpticsGroup" in str(particles.messages[0])
    with pytest.raises(MissingDataError, match="no rlnOpticsGroup"):
        read_particles_star(save_star(loop("optics", "Voltage", "300"), loop("particles", "OpticsGroup", "1")))


def test_relion_3_0_shifts_are_pixels(save_star):
    labels = "ImageName OriginX OriginY AngleRot AngleTilt AnglePsi Magnification DetectorPixelSize Voltage"
    rows = ["1@a.mrcs 2 -3 0 0 90 50000 5 300", "2@a.mrcs 1 1 0 90 0 100000 5 300"]
    particles = read_particles_star(save_star(loop("", labels, *rows)))
    assert particles.per_particle("pixel_size_A").tolist() == [1.0, 0.5]
    assert particles.poses.shift_A.tolist() == [[2, -3], [0.5, 0.5]]
    np.testing.assert_allclose(particles.poses.matrix[0], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(particles.poses.matrix[1], [[0, 0, -1], [0, 1, 0], [1, 0, 0]], atol=1e-15)
    assert particles.messages == ()
    particles = read_particles_star(save_star(loop("images", "OriginX OriginY AnglePsi PixelSize", "2 -3 0 1.5")))
    assert particles.poses.shift_A.tolist() == [[3, -4.5]]


def test_shifts_in_angstroms_come_before_pixels(save_star):
    labels = "OpticsGroup AnglePsi OriginXAngst OriginYAngst OriginX OriginY"
    particles = read_particles_star(save_star(OPTICS, loop("particles", labels, "3 0 2 -3 100 100")))
    assert particles.poses.shift_A.tolist() == [[2, -3]]


def test_pixel_shifts_beside_optics_are_taken_and_noted(save_star):
    labels = "OpticsGroup AngleRot AngleTilt AnglePsi OriginX OriginY"
    particles = read_particles_star(save_star(OPTICS, loop("particles", labels, "12 0 0 0 2 -3", "3 0 0 0 2 -3")))
    assert particles.poses.shift_A.tolist() == [[6, -9], [3, -4.5]]
    assert any("RELION ignores" in str(note) for note in particles.messages)


@pytest.mark.parametrize("optics", ["", loop("optics", "OpticsGroup Voltage", "1 300")])
@pytest.mark.parametrize("labels", ["OpticsGroup AnglePsi OriginX OriginY"])
def test_pixel_shifts_without_a_pixel_size_are_left_out_and_noted(save_star, optics, labels):
    particles = read_particles_star(save_star(optics, loop("particles", labels, "1 0 2 -3")))
    assert particles.poses.shift_A is None
    assert any("left out" in str(note) for note in particles.messages)


@pytest.mark.parametrize("magnification", ["0", "-1", "nan"])
def test_an_impossible_magnification_is_no_pixel_size(save_star, magnification):
    labels = "AnglePsi OriginX OriginY Magnification DetectorPixelSize"
    particles = read_particles_star(save_star(loop("", labels, f"0 1 1 {magnification} 5")))
    assert np.isnan(particles.per_particle("pixel_size_A")).all()
    assert particles.poses.shift_A is None


def test_angles_that_are_not_there_are_zero_and_noted(save_star):
    particles = read_particles_star(save_star(loop("", "AnglePsi", "30")))
    half = math.sqrt(3) / 2
    np.testing.assert_allclose(particles.poses.matrix, [[[half, 0.5, 0], [-0.5, half, 0], [0, 0, 1]]], atol=1e-15)
    assert [str(note) for note in particles.messages] == ["no rlnAngleRot, rlnAngleTilt; taken as 0"]


def test_relion_3_0_optics_stand_in_each_row(save_star):
    labels = "Voltage SphericalAberration AmplitudeContrast Magnification DetectorPixelSize DefocusU"
    rows = ["300 2.7 0.1 50000 5 1", "200 2.7 0.1 50000 5 2", "300 2.7 0.1 50000 5 3", "300 2.7 0.1 25000 5 4"]
    particles = read_particles_star(save_star(loop("", labels, *rows)))
    assert len(particles.optics) == 3
    assert particles.per_particle("voltage_kV").tolist() == [300, 200, 300, 300]
    assert particles.per_particle("pixel_size_A").tolist() == [1, 1, 1, 2]
    assert particles.optics_index[0] == particles.optics_index[2]
    assert particles.optics.box_px.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "path", "index"),
    [
        ("000001@a.mrcs", "a.mrcs", 0),
        ("7@a.mrcs", "a.mrcs", 6),
        ("0000000000000000000000012@a.mrcs", "a.mrcs", 11),
        ("1234567@x/a@b.mrcs", "x/a@b.mrcs", 1234566),
        ("'000002@with space.mrcs'", "with space.mrcs", 1),
    ],
)
def test_image_names(save_star, name, path, index):
    images = read_particles_star(
        save_star(loop("particles", "ImageName ClassNumber", "3@z.mrcs 1", f"{name} 1"))
    ).images
    assert texts(images.path) == ["z.mrcs", path]
    assert images.index.tolist() == [2, index]
    assert images.index.dtype == np.int64


@pytest.mark.parametrize(
    "name",
    ["a.mrcs", "@a.mrcs", "000000@a.mrcs", "-1@a.mrcs", "1.5@a.mrcs", "x@a.mrcs", "1@", "9" * 25 + "@a.mrcs", '""'],
)
def test_image_names_without_a_number_and_a_stack_are_located(save_star, name):
    rows = ["1@a.mrcs", name, "2@a.mrcs", name, name, name]
    with pytest.raises(FormatError, match="is not number@stack") as caught:
        read_particles_star(save_star(loop("particles", "ImageName", *rows)))
    assert caught.value.field == "rlnImageName"
    assert (caught.value.rows, caught.value.count) == ((1, 3, 4), 4)
    assert name.strip('"') in str(caught.value)
    assert "from 1" in caught.value.hint


def test_ctf_and_locations_of_a_star_file(save_star):
    labels = "DefocusU DefocusV DefocusAngle PhaseShift MicrographName CoordinateX CoordinateY"
    particles = read_particles_star(save_star(loop("", labels, "1e4 11000 45 90 01 10.5 20", "1 2 -90 0 01 3 4")))
    assert particles.ctf.defocus_angle_rad == pytest.approx([math.pi / 4, -math.pi / 2])
    assert particles.ctf.phase_shift_rad == pytest.approx([math.pi / 2, 0])
    assert particles.ctf.bfactor_A2 is particles.ctf.scale is None
    assert texts(particles.locations.micrograph) == ["01", "01"]
    assert particles.locations.coordinate_px.tolist() == [[10.5, 20], [3, 4]]
    assert particles.optics is None


def test_whole_numbers_written_as_floats_and_others_that_are_not_whole(save_star):
    particles = read_particles_star(save_star(loop("", "RandomSubset ClassNumber", "1.000000 3", "2.0 -999")))
    assert particles.half_set.tolist() == [1, 2]
    assert particles.class_number.tolist() == [3, -999]
    assert particles.half_set.dtype == particles.class_number.dtype == np.int64
    for bad in ("1.5", "nan", "inf", "1e300"):
        with pytest.raises(FormatError, match="not a whole number") as caught:
            read_particles_star(save_star(loop("", "RandomSubset", "1", bad)))
        assert (caught.value.field, caught.value.rows) == ("rlnRandomSubset", (1,))


def test_parts_that_a_star_file_lacks_are_none(save_star):
    particles = read_particles_star(save_star(loop("particles", "Comment", "x", "y")))
    parts = ["uid", "images", "optics", "optics_index", "ctf", "poses", "locations", "half_set", "class_number"]
    assert [getattr(particles, part) for part in parts] == [None] * 9
    assert len(particles) == 2


def test_a_star_file_without_rows(save_star):
    labels = (
        "ImageName OpticsGroup AngleRot AngleTilt AnglePsi OriginXAngst OriginYAngst DefocusU DefocusV DefocusAngle"
    )
    labels += " MicrographName CoordinateX CoordinateY RandomSubset ClassNumber"
    for blocks in (
        [OPTICS, loop("particles", labels)],
        [loop("", labels + " Voltage Magnification DetectorPixelSize")],
    ):
        particles = read_particles_star(save_star(*blocks))
        assert len(particles) == len(particles.images.path) == len(particles.images.index) == 0
        assert particles.poses.matrix.shape == (0, 3, 3)
        assert particles.poses.shift_A.shape == particles.locations.coordinate_px.shape == (0, 2)
        assert len(particles.half_set) == len(particles.class_number) == len(particles.ctf.defocus_u_A) == 0
        assert particles.per_particle("voltage_kV").shape == (0,)


def test_what_is_odd_about_the_file_reaches_the_notes(save_star):
    particles = read_particles_star(save_star(loop("particles", "ClassNumber#1", "1"), "stray"))
    assert any("no space" in str(note) for note in particles.messages)
    assert any("ignored" in str(note) for note in particles.messages)


# --- the model ------------------------------------------------------------------------------------------------------


def test_labels():
    labels = Labels(np.array([1, 0, 1], np.int32), ("a", "b"))
    assert len(labels) == 3
    assert [labels[0], labels[-1], labels[1]] == ["b", "b", "a"]
    assert texts(labels) == ["b", "a", "b"]
    assert texts(labels.take(np.array([2, 2]))) == ["b", "b"]
    assert texts(labels.take(slice(1, None))) == ["a", "b"]
    assert texts(Labels(np.zeros(0, np.int32), ())) == []


def test_chosen_particles_keep_all_that_is_known_of_them(save_cs):
    columns = {"alignments3D__pose": POSES, "alignments3D__shift": SHIFTS, "alignments3D__psize_A": np.ones(4, "f4")}
    columns |= {"alignments3D__class_posterior": np.array([0.1, 0.2, 0.3, 0.4], "f4"), **blob(4)}
    columns |= {"pick_stats__ncc_score": np.arange(4, dtype="f4"), "made__up": np.array([5, 6, 7, 8], "u4")}
    columns |= {"filament__filament_uid": np.array([9, 9, 2**63, 9], "u8")}
    columns |= {"filament__position_A": np.array([30, 10, 7, 20], "f4")}
    particles = read_particles_cs(save_cs(**columns))
    assert particles.helix.tube.tolist() == [1, 1, 2, 1]
    assert particles.helix.track_length_A.tolist() == [20, 0, 0, 10]
    assert particles.extra.names == ("made/up",)
    chosen = particles.take(np.array([3, 1])).take(np.array([1, 0, 0]))
    assert len(chosen) == 3
    assert chosen.uid.tolist() == [1, 3, 3]
    assert chosen.images.index.tolist() == [1, 3, 3]
    assert chosen.poses.shift_A.tolist() == [[0, 3], [-1, 1], [-1, 1]]
    assert chosen.pick_score.tolist() == [1, 3, 3]
    np.testing.assert_allclose(chosen.class_posterior, [0.2, 0.4, 0.4], rtol=1e-6)
    assert chosen.helix.uid.tolist() == [9, 9, 9]
    assert chosen.extra.read()["made/up"].tolist() == [6, 8, 8]
    assert chosen.per_particle("box_px").tolist() == [64] * 3
    assert (chosen.ctf, chosen.locations, chosen.messages) == (None, None, particles.messages)


def test_particles_are_chosen_by_a_mask_too(save_cs):
    particles = read_particles_cs(save_cs(**blob(4), made__up=np.array([5, 6, 7, 8], "u4")))
    half = particles.take(particles.images.index % 2 == 1)
    assert len(half) == len(half.uid) == len(half.images.index) == 2
    assert half.uid.tolist() == particles.uid[[1, 3]].tolist()
    assert half.extra.read()["made/up"].tolist() == [6, 8]
    assert len(particles.take(np.array([], int))) == len(particles.take(np.zeros(4, bool))) == 0


@pytest.mark.parametrize("rows", [[-1], [0, 4], [0.5], [[0, 1]], [True, False], ["0"]])
def test_rows_that_are_not_there_are_refused(save_cs, rows):
    with pytest.raises(IndexError, match="4"):
        read_particles_cs(save_cs(**blob(4))).take(np.array(rows))


def test_an_optics_value_that_is_not_there_is_reported_with_those_that_are(save_cs):
    particles = read_particles_cs(save_cs(**blob(4)))
    for name in ("pixelsize", "name"):
        with pytest.raises(ValueError, match=f"no '{name}'; they have group_id, voltage_kV, .*pixel_size_A"):
            particles.per_particle(name)


def test_a_set_shows_in_a_line_what_it_has(save_cs):
    particles = read_particles_cs(save_cs(**blob(4)))
    shown = repr(particles)
    assert "4 particles of" in shown
    assert "images" in shown and "poses" not in shown
    many = Labels(np.arange(500, dtype=np.int32), tuple(f"stack {number}.mrc" for number in range(500)))
    assert repr(many) == "Labels(500 texts, 500 distinct: 'stack 0.mrc', 'stack 1.mrc', 'stack 2.mrc', …)"


def test_groups_are_distinguished_by_six_digits_and_nan_equals_nan():
    from cryobridge.formats.optics import distinct_rows

    psize = np.array([1.3099979, 1.31, 0.83, np.nan, np.nan], "f4")
    assert distinct_rows([psize]).tolist() == [1, 1, 0, 2, 2]
    assert distinct_rows([np.zeros(3), np.array([2, 1, 2])]).tolist() == [1, 0, 1]
    assert distinct_rows([np.zeros(0), np.zeros(0)]).tolist() == []


@pytest.mark.parametrize("pose_from", [None, "alignments2D"])
def test_the_alignment_can_be_chosen(save_cs, pose_from):
    from cryobridge.formats.cryosparc.cs import open_cs
    from cryobridge.formats.cryosparc.particles import particles_from_cs

    path = save_cs(alignments3D__pose=POSES, alignments2D__pose=np.ones(4, "f4"))
    poses = particles_from_cs(open_cs(path), pose_from=pose_from).poses
    assert (poses.source, poses.is_2d) == ((pose_from, True) if pose_from else ("alignments3D", False))


def test_parts_of_a_star_file_that_are_not_whole_are_carried_along(save_star):
    columns = "ImageName MicrographName DefocusU OriginX Other"
    path = save_star(loop("particles", columns, "000001@a.mrcs m.mrc 1000 3 x"))
    particles = read_particles_star(path)
    assert particles.locations is particles.ctf is particles.poses is None
    assert particles.extra.names == ("rlnMicrographName", "rlnDefocusU", "rlnOriginX", "rlnOther")
    carried = particles.extra.read()
    assert (carried["rlnMicrographName"][0], carried["rlnDefocusU"][0], carried["rlnOther"][0]) == ("m.mrc", 1000, "x")
