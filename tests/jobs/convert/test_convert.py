"""Every direction of `convert`, on simulated sets, against numbers that were computed without it."""

import pickle

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryobridge.errors import FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.open import read as read_particles
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.jobs.stacks.api import downsample as downsample_stack
from helpers import codes, save_cs, save_mrc, save_star, texts
from helpers import run as command_line
from relion_grammar import read_block

# Tilt 0 and 180, nothing at all, half a turn about axes of all kinds, and lengths beyond it.
SPECIAL_POSES = np.array(
    [
        *([0, 0, 0], [0, 0, 1.2], [0, 0, -3.1], [0, np.pi, 0], [np.pi, 0, 0], [1e-7, 2e-7, 0.5]),
        *([np.pi / np.sqrt(2), np.pi / np.sqrt(2), 0], [0, 0, np.pi], [0, 0, 3.14159], [3.1415, 1e-4, 0], [2, 2, -2]),
    ],
    np.float32,
)
SHAPE_PX = np.array([4092, 5760])  # ny, nx


def simulated(n=40, seed=0, **changes):
    """Columns of a refinement: three exposure groups, two pixel sizes, boxes that differ, psize of its own."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    poses = rng.normal(size=(n, 3)).astype("f4") * 1.5
    poses[: len(SPECIAL_POSES)] = SPECIAL_POSES[:n]
    psize = np.array([1.31, 0.83, 0.83], "f4")[group]
    micrograph = np.array([f"J2/motioncorrected/{number:021d}_mic_{number}.mrc" for number in range(4)])
    which = rng.integers(0, 4, n)
    return {
        "uid": rng.integers(2**62, 2**64, n, dtype="u8"),
        "blob/path": np.array([f"J3/extract/{number:021d}_mic_{number}_particles.mrc" for number in range(4)])[which],
        "blob/idx": rng.permutation(n).astype("u4"),
        "blob/shape": np.repeat(np.array([256, 300, 256], "u4")[group][:, None], 2, 1),
        "blob/psize_A": psize,
        "blob/sign": np.full(n, -1, "f4"),
        "ctf/exp_group_id": np.array([23, 7, 100], "u4")[group],
        "ctf/accel_kv": np.full(n, 300, "f4"),
        "ctf/cs_mm": np.full(n, 2.7, "f4"),
        "ctf/amp_contrast": np.array([0.1, 0.1, 0.07], "f4")[group],
        "ctf/df1_A": rng.uniform(8000, 30000, n).astype("f4"),
        "ctf/df2_A": rng.uniform(8000, 30000, n).astype("f4"),
        "ctf/df_angle_rad": rng.uniform(-1.6, 4.7, n).astype("f4"),
        "ctf/phase_shift_rad": rng.uniform(0, 1.5, n).astype("f4"),
        "ctf/scale": np.ones(n, "f4"),
        "ctf/bfactor": rng.uniform(0, 50, n).astype("f4"),
        "alignments3D/pose": poses,
        "alignments3D/shift": rng.normal(size=(n, 2)).astype("f4") * 6,
        "alignments3D/psize_A": psize * 2,
        "alignments3D/split": rng.integers(0, 2, n).astype("u4"),
        "alignments3D/class": rng.integers(0, 3, n).astype("u4"),
        "alignments3D/class_posterior": rng.uniform(0.3, 1, n).astype("f4"),
        "alignments3D/error": rng.uniform(1, 2, n).astype("f4"),
        "location/micrograph_path": micrograph[which],
        "location/micrograph_shape": np.tile(SHAPE_PX.astype("u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, 0.83, "f4"),
        "location/center_x_frac": rng.uniform(0, 1, n).astype("f4"),
        "location/center_y_frac": rng.uniform(0, 1, n).astype("f4"),
        "pick_stats/ncc_score": rng.uniform(0, 1, n).astype("f4"),
        **changes,
    }


def run(source, output, target=None, **options):
    target = target or output.suffix[1:]
    return convert([source], output, to=target, **options)


def star_table(path, name="particles"):
    """Read a block by RELION's grammar."""
    labels, rows, _ = read_block(path.read_text(), name)
    return {label: np.array([row[place] for row in rows]) for place, label in enumerate(labels)}


def numbers(table, *names):
    return np.column_stack([table[name].astype(float) for name in names])


def matrices(rotvec):
    """A in scipy's words: the transpose of the rotation by cryoSPARC's vector."""
    return Rotation.from_rotvec(np.asarray(rotvec, float)).as_matrix().transpose(0, 2, 1)


def euler_matrices(table):
    angles = numbers(table, "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)


def load(path):
    return np.load(path)


@pytest.fixture
def refined(tmp_path):
    columns = simulated()
    return save_cs(tmp_path / "J5" / "J5_particles.cs", columns), columns


# --- cryoSPARC -> RELION --------------------------------------------------------------------------------------------


def test_defocus_is_printed_to_the_digits_of_relion(refined, tmp_path):
    """The shortest text of a float32 would be off by half of its last digit, 5e-4 Å at usual values."""
    source, columns = refined
    run(source, tmp_path / "particles.star")
    table = star_table(tmp_path / "particles.star")
    for label, name in (("rlnDefocusU", "ctf/df1_A"), ("rlnDefocusV", "ctf/df2_A")):
        assert np.abs(table[label].astype(float) - columns[name].astype(float)).max() < 1e-6


@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
def test_particles_for_relion(refined, tmp_path, version):
    source, columns = refined
    output = tmp_path / "out" / "particles.star"
    report = run(source, output, relion=version)
    assert (report.rows_in, report.rows_out, report.left_out) == (40, 40, {})
    assert report.alignment == "alignments3D"
    table = star_table(output, "" if version == "3.0" else "particles")
    assert table["rlnImageName"].tolist() == [
        f"{index + 1:06d}@{path}" for index, path in zip(columns["blob/idx"], columns["blob/path"], strict=True)
    ]
    assert np.abs(euler_matrices(table) - matrices(columns["alignments3D/pose"])).max() < 3e-7
    shift_A = columns["alignments3D/shift"].astype(float) * columns["alignments3D/psize_A"].astype(float)[:, None]
    if version == "3.0":
        shift = numbers(table, "rlnOriginX", "rlnOriginY") * columns["blob/psize_A"].astype(float)[:, None]
    else:
        shift = numbers(table, "rlnOriginXAngst", "rlnOriginYAngst")
    np.testing.assert_allclose(shift, shift_A, atol=1e-6)
    for label, name in (("rlnDefocusU", "ctf/df1_A"), ("rlnDefocusV", "ctf/df2_A"), ("rlnCtfBfactor", "ctf/bfactor")):
        np.testing.assert_allclose(table[label].astype(float), columns[name], rtol=1e-7)
    for label, name in (("rlnDefocusAngle", "ctf/df_angle_rad"), ("rlnPhaseShift", "ctf/phase_shift_rad")):
        np.testing.assert_allclose(np.radians(table[label].astype(float)), columns[name], atol=1e-7)
    assert table["rlnRandomSubset"].astype(int).tolist() == (columns["alignments3D/split"] + 1).tolist()
    assert table["rlnClassNumber"].astype(int).tolist() == (columns["alignments3D/class"] + 1).tolist()
    np.testing.assert_allclose(table["rlnAutopickFigureOfMerit"].astype(float), columns["pick_stats/ncc_score"], 1e-7)
    assert table["rlnMicrographName"].tolist() == columns["location/micrograph_path"].tolist()
    assert ("# version 30001" in output.read_text()) == (version == "3.1")
    assert ("# version 50001" in output.read_text()) == (version == "5")


def test_optics_groups_are_numbered_from_1_and_each_particle_has_its_own_values(refined, tmp_path):
    source, columns = refined
    run(source, tmp_path / "p.star")
    optics, table = star_table(tmp_path / "p.star", "optics"), star_table(tmp_path / "p.star")
    assert optics["rlnOpticsGroup"].tolist() == ["1", "2", "3"]
    assert optics["rlnOpticsGroupName"].tolist() == ["opticsGroup7", "opticsGroup23", "opticsGroup100"]
    assert optics["rlnImagePixelSize"].tolist() == ["0.83", "1.31", "0.83"]
    assert optics["rlnImageSize"].tolist() == ["300", "256", "256"]
    assert optics["rlnAmplitudeContrast"].tolist() == ["0.1", "0.1", "0.07"]
    assert set(optics["rlnImageDimensionality"]) == {"2"}
    assert set(optics["rlnMicrographPixelSize"]) == {"0.83"}
    assert not any(label.startswith("rlnMagMat") for label in optics)
    row = table["rlnOpticsGroup"].astype(int) - 1
    name = [f"opticsGroup{number}" for number in columns["ctf/exp_group_id"]]
    assert optics["rlnOpticsGroupName"][row].tolist() == name
    np.testing.assert_allclose(optics["rlnImagePixelSize"].astype(float)[row], columns["blob/psize_A"], 1e-7)


def test_an_exposure_group_of_two_lenses_becomes_two_optics_groups(tmp_path):
    columns = simulated(6, **{"ctf/exp_group_id": np.full(6, 5, "u4"), "blob/psize_A": np.ones(6, "f4")})
    columns["ctf/amp_contrast"] = np.array([0.1, 0.1, 0.2, 0.1, 0.2, 0.1], "f4")
    columns["blob/shape"] = np.full((6, 2), 64, "u4")
    run(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    assert star_table(tmp_path / "p.star", "optics")["rlnOpticsGroupName"].tolist() == [
        "opticsGroup5",
        "opticsGroup5_2",
    ]
    assert star_table(tmp_path / "p.star")["rlnOpticsGroup"].tolist() == ["1", "1", "2", "1", "2", "1"]


def test_names_of_cryosparc_exports_lose_their_mark(tmp_path):
    columns = simulated(2, **{"blob/path": np.array([">J1/a.mrc", ">J1/b.mrcs"])})
    report = run(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    assert [name.split("@")[1] for name in star_table(tmp_path / "p.star")["rlnImageName"]] == [
        "J1/a.mrc",
        "J1/b.mrcs",
    ]
    assert any(
        "1 stack is named .mrc" in message and "link_stacks='DIR'" in message for message in texts(report.warnings)
    )


def test_micrographs_are_listed_beside_the_particles(refined, tmp_path):
    source, columns = refined
    report = run(source, tmp_path / "out" / "particles.star")
    micrographs = tmp_path / "out" / "particles_micrographs.star"
    assert str(micrographs) in texts(report.outputs)
    table, optics = star_table(micrographs, "micrographs"), star_table(micrographs, "optics")
    assert sorted(table["rlnMicrographName"]) == sorted(set(columns["location/micrograph_path"].tolist()))
    assert set(table["rlnOpticsGroup"]) <= set(optics["rlnOpticsGroup"])
    assert set(optics["rlnMicrographPixelSize"]) == {"0.83"}


def test_without_the_pixel_size_of_micrographs_they_are_not_listed(tmp_path):
    columns = simulated(5)
    del columns["location/micrograph_psize_A"]
    report = run(save_cs(tmp_path / "a.cs", columns), tmp_path / "out" / "p.star")
    assert texts(report.outputs) == [str(tmp_path / "out" / "p.star")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p.star"]


def test_relion_3_0_has_no_place_for_groups_and_boxes(refined, tmp_path):
    groups = {"ctf/exp_group_id", "blob/shape", "location/micrograph_psize_A"}
    assert not groups & set(run(refined[0], tmp_path / "a.star").dropped_columns)
    assert groups <= set(run(refined[0], tmp_path / "b.star", relion="3.0").dropped_columns)
    of_star = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnMicrographPixelSize", "rlnImageSize")
    assert run(tmp_path / "a.star", tmp_path / "c.star", relion="3.0").dropped_columns == of_star
    # What the file does not have is not missed.
    assert run(tmp_path / "b.star", tmp_path / "d.star", relion="3.0", box_px=64).dropped_columns == ()


def test_optics_that_no_group_tells_apart_become_exposure_groups(tmp_path):
    columns = simulated(6, **{"ctf/accel_kv": np.array([300, 200, 300, 200, 200, 300], "f4")})
    columns |= {"ctf/exp_group_id": np.full(6, 5, "u4"), "blob/psize_A": np.ones(6, "f4")}
    columns |= {"ctf/amp_contrast": np.full(6, 0.1, "f4"), "blob/shape": np.full((6, 2), 64, "u4")}
    source = save_cs(tmp_path / "a.cs", columns)
    run(source, tmp_path / "a.star", relion="3.0")
    run(tmp_path / "a.star", tmp_path / "b.cs", box_px=64)
    assert load(tmp_path / "b.cs")["ctf/exp_group_id"].tolist() == [2, 1, 2, 1, 1, 2]
    # cryoSPARC's own group is kept, through the optics groups of 3.1 too.
    run(source, tmp_path / "c.cs")
    run(source, tmp_path / "d.star")
    run(tmp_path / "d.star", tmp_path / "d.cs")
    for name in ("c.cs", "d.cs"):
        assert load(tmp_path / name)["ctf/exp_group_id"].tolist() == [5] * 6


def test_what_relion_has_no_place_for_is_named(refined, tmp_path):
    report = run(refined[0], tmp_path / "p.star")
    assert {"uid", "blob/sign", "alignments3D/error", "alignments3D/class_posterior"} <= set(report.dropped_columns)
    assert not {"blob/path", "ctf/df1_A", "alignments3D/pose"} & set(report.dropped_columns)


def test_2d_alignments_give_psi_and_origin_and_no_half_sets(tmp_path):
    columns = {name: values for name, values in simulated(3).items() if not name.startswith("alignments3D")}
    columns |= {
        "alignments2D/pose": np.array([0.5, -1.0, 0.0], "f4"),
        "alignments2D/shift": np.array([[1, -2], [0, 3], [4, 5]], "f4"),
        "alignments2D/psize_A": np.full(3, 2, "f4"),
        "alignments2D/split": np.array([0, 1, 0], "u4"),
        "alignments2D/class": np.array([49, 0, 7], "u4"),
    }
    report = run(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    table = star_table(tmp_path / "p.star")
    assert report.alignment == "alignments2D"
    np.testing.assert_allclose(table["rlnAnglePsi"].astype(float), np.degrees([0.5, -1.0, 0.0]), atol=1e-5)
    assert not numbers(table, "rlnAngleRot", "rlnAngleTilt").any()
    assert numbers(table, "rlnOriginXAngst", "rlnOriginYAngst").tolist() == [[2, -4], [0, 6], [8, 10]]
    assert table["rlnClassNumber"].tolist() == ["50", "1", "8"]
    assert "rlnRandomSubset" not in table
    run(tmp_path / "p.star", tmp_path / "back.cs")
    back = load(tmp_path / "back.cs")
    np.testing.assert_allclose(back["alignments2D/pose"], columns["alignments2D/pose"], atol=1e-6)
    assert "alignments3D/pose" not in back.dtype.names


def test_helices(tmp_path):
    # Two filaments on one micrograph and one on another; the first runs at 30 degrees, from its third row to its first.
    n = 8
    along = np.array([90.0, 50, 10, 5, 45, 100, 140, 0])
    turn = np.radians([30, 30, 30, -70, -70, 200, 200, 0])
    origin = np.array([[1000, 1000]] * 3 + [[3000, 2000]] * 2 + [[2000, 2000]] * 3)
    place = origin + along[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    columns = simulated(n)
    columns |= {
        "location/micrograph_path": np.array(["a.mrc"] * 5 + ["b.mrc"] * 3),
        "location/center_x_frac": (place[:, 0] / SHAPE_PX[1]).astype("f4"),
        "location/center_y_frac": (place[:, 1] / SHAPE_PX[0]).astype("f4"),
        "filament/filament_uid": np.array([2**63 + 9] * 3 + [17] * 2 + [2**63 + 9] * 2 + [5], "u8"),
        "filament/position_A": along.astype("f4"),
    }
    run(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    table = star_table(tmp_path / "p.star")
    assert table["rlnHelicalTubeID"].tolist() == ["2"] * 3 + ["1"] * 2 + ["2"] * 2 + ["1"]
    expected = [80, 40, 0, 0, 40, 0, 40, 0]
    assert table["rlnHelicalTrackLengthAngst"].astype(float).tolist() == expected
    # Minus the direction, in the frame of the images, whatever the micrographs' rows do.
    psi = table["rlnAnglePsiPrior"].astype(float)[:7]
    np.testing.assert_allclose(psi, [-30] * 3 + [70] * 2 + [160] * 2, atol=0.01)
    assert set(table["rlnAngleTiltPrior"]) == {"90"}
    assert set(table["rlnAnglePsiFlipRatio"]) == {"0.5"}
    run(tmp_path / "p.star", tmp_path / "back.cs")
    back = load(tmp_path / "back.cs")
    assert len(set(back["filament/filament_uid"].tolist())) == 4
    assert back["filament/position_A"].tolist() == expected


# --- RELION -> cryoSPARC --------------------------------------------------------------------------------------------


def particles_star(path, n=5, **extra):
    rng = np.random.default_rng(3)
    columns = {
        "rlnImageName": [f"{row + 1:06d}@Extract/job012/{'ab'[row % 2]}.mrcs" for row in range(n)],
        "rlnMicrographName": [f"MotionCorr/job002/{'ab'[row % 2]}.mrc" for row in range(n)],
        "rlnCoordinateX": [100.5 + row for row in range(n)],
        "rlnCoordinateY": [200.25 + 3 * row for row in range(n)],
        "rlnAngleRot": np.round(rng.uniform(-180, 180, n), 6),
        "rlnAngleTilt": np.round(rng.uniform(0, 180, n), 6),
        "rlnAnglePsi": np.round(rng.uniform(-180, 180, n), 6),
        "rlnOriginXAngst": np.round(rng.normal(size=n) * 9, 6),
        "rlnOriginYAngst": np.round(rng.normal(size=n) * 9, 6),
        "rlnDefocusU": np.round(rng.uniform(8e3, 3e4, n), 6),
        "rlnDefocusV": np.round(rng.uniform(8e3, 3e4, n), 6),
        "rlnDefocusAngle": np.round(rng.uniform(-90, 90, n), 6),
        "rlnRandomSubset": [1 + row % 2 for row in range(n)],
        "rlnClassNumber": [1 + row % 3 for row in range(n)],
        "rlnOpticsGroup": [2 - row % 2 for row in range(n)],
        **extra,
    }
    optics = "\n".join(
        [
            "\n# version 30001\n\ndata_optics\n\nloop_",
            *(
                f"_rln{name}"
                for name in ["OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast"]
            ),
            *(f"_rln{name}" for name in ["ImagePixelSize", "ImageSize", "ImageDimensionality", "MtfFileName"]),
            "1 first 300 2.7 0.1 1.062 256 2 mtf_k3.star",
            '2 second 200 0.01 0.07 2.5 128 2 "mtf k2.star"',
            "\n",
        ]
    )
    save_star(path, "particles", columns)
    path.write_text(optics + path.read_text())
    return columns


def test_particles_for_cryosparc(tmp_path):
    columns = particles_star(tmp_path / "p.star")
    report = run(tmp_path / "p.star", tmp_path / "out" / "q.cs", micrograph_shape_px=(4092, 5760))
    table = load(tmp_path / "out" / "q.cs")
    assert [text.decode() for text in table["blob/path"]] == [
        f"Extract/job012/{'ab'[row % 2]}.mrcs" for row in range(5)
    ]
    assert table["blob/idx"].tolist() == [0, 1, 2, 3, 4]
    assert table["blob/shape"].tolist() == [[128, 128], [256, 256]] * 2 + [[128, 128]]
    assert (
        np.abs(
            matrices(table["alignments3D/pose"]) - euler_matrices({k: np.array(v) for k, v in columns.items()})
        ).max()
        < 1e-6
    )
    np.testing.assert_array_equal(table["alignments3D/psize_A"], table["blob/psize_A"])
    psize = np.array([2.5, 1.062, 2.5, 1.062, 2.5])
    expected = np.column_stack([columns["rlnOriginXAngst"], columns["rlnOriginYAngst"]]) / psize[:, None]
    np.testing.assert_allclose(table["alignments3D/shift"], expected, rtol=1e-6)
    np.testing.assert_allclose(table["ctf/df_angle_rad"], np.radians(columns["rlnDefocusAngle"]), rtol=1e-6)
    assert table["ctf/accel_kv"].tolist() == [200, 300, 200, 300, 200]
    assert table["ctf/exp_group_id"].tolist() == [2, 1, 2, 1, 2]
    assert table["alignments3D/split"].tolist() == [0, 1, 0, 1, 0]
    assert table["alignments3D/class"].tolist() == [0, 1, 2, 0, 1]
    np.testing.assert_allclose(table["location/center_x_frac"] * 5760, columns["rlnCoordinateX"], rtol=1e-5)
    np.testing.assert_allclose(table["location/center_y_frac"] * 4092, columns["rlnCoordinateY"], rtol=1e-5)
    assert table["location/micrograph_shape"].tolist() == [[4092, 5760]] * 5
    assert len(set(table["uid"].tolist())) == 5
    assert "rlnMtfFileName" in report.dropped_columns
    assert any("contrast='dark'" in message for message in texts(report.warnings))


def test_the_group_beside_it_names_every_slot(tmp_path):
    particles_star(tmp_path / "p.star")
    run(tmp_path / "p.star", tmp_path / "q.cs", micrograph_shape_px=(4092, 5760))
    group = yaml.safe_load((tmp_path / "q.csg").read_text())
    slots = {name.split("/")[0] for name in load(tmp_path / "q.cs").dtype.names} - {"uid"}
    assert set(group["results"]) == slots == {"blob", "ctf", "alignments3D", "location"}
    assert group["group"]["type"] == "particle"
    for name, slot in group["results"].items():
        assert (slot["metafile"], slot["num_items"], slot["type"]) == (">q.cs", 5, f"particle.{name}")


def test_uids_are_the_same_in_every_run_and_differ_for_repeated_images(tmp_path):
    names = ["000001@a.mrcs", "000002@a.mrcs", "000001@a.mrcs", "000001@b.mrcs", "000001@a.mrcs"]
    particles_star(tmp_path / "p.star", rlnImageName=names)
    particles_star(tmp_path / "q.star", n=2, rlnImageName=names[:2])
    for name in "pq":
        run(tmp_path / f"{name}.star", tmp_path / f"{name}.cs")
    uid = load(tmp_path / "p.cs")["uid"]
    assert len(set(uid.tolist())) == 5
    assert load(tmp_path / "q.cs")["uid"].tolist() == uid[:2].tolist()


def test_coordinates_need_the_size_of_micrographs(tmp_path):
    particles_star(tmp_path / "p.star")
    report = run(tmp_path / "p.star", tmp_path / "q.cs")
    assert "rlnCoordinateX" in report.dropped_columns
    assert codes(report.warnings) == ["micrograph-shape-missing", "images-not-found", "contrast-assumed"]
    assert "location/center_x_frac" not in load(tmp_path / "q.cs").dtype.names


@pytest.mark.parametrize("names", [("--datadir", "--datadir"), ("--folder-mrc", "--datadir")])
def test_stacks_and_micrographs_may_lie_below_different_folders(names, tmp_path):
    columns = particles_star(tmp_path / "p.star")
    for name in "ab":
        save_mrc(tmp_path / "one" / "Extract" / "job012" / f"{name}.mrcs", np.ones((3, 8, 8)))
        save_mrc(tmp_path / "two" / f"{name}.mrc", np.zeros((1, 60, 80)))
    words = ["convert", "p.star", "-o", "out/q.cs", "--link-stacks", "out/links", "--overwrite"]
    none, first, both = (
        command_line(*words, *(word for pair in given for word in pair), cwd=tmp_path)
        for given in ((), [(names[0], "one")], list(zip(names, ("one", "two"), strict=True)))
    )
    assert none.returncode == 1
    assert "Give --datadir one for the stacks." in " ".join(none.stderr.split())
    assert first.returncode == both.returncode == 0, first.stderr + both.stderr
    asked = "give --micrograph-shape NY,NX, or one more --datadir two for the micrographs"
    assert asked in " ".join(first.stderr.split())
    assert "micrographs" not in both.stderr
    found = load(tmp_path / "out" / "q.cs")
    np.testing.assert_allclose(found["location/center_x_frac"], np.array(columns["rlnCoordinateX"]) / 80, rtol=1e-6)


def test_the_size_of_micrographs_is_read_off_their_headers(tmp_path):
    columns = particles_star(tmp_path / "p.star")
    for name in "ab":
        save_mrc(tmp_path / "MotionCorr" / "job002" / f"{name}.mrc", np.zeros((1, 60, 80)))
    run(tmp_path / "p.star", tmp_path / "q.cs", datadir=tmp_path)
    table = load(tmp_path / "q.cs")
    assert table["location/micrograph_shape"].tolist() == [[60, 80]] * 5
    np.testing.assert_allclose(table["location/center_x_frac"] * 80, columns["rlnCoordinateX"], rtol=1e-6)


# --- pickles --------------------------------------------------------------------------------------------------------


def test_pickles_of_a_cs_file(refined, tmp_path):
    source, columns = refined
    report = run(source, tmp_path / "out", "pickles")
    rotations, fraction = pickle.loads((tmp_path / "out" / "poses.pkl").read_bytes())
    assert np.abs(rotations - matrices(columns["alignments3D/pose"])).max() < 1e-6
    box_A = columns["blob/psize_A"].astype(float) * columns["blob/shape"][:, 0]
    shift_A = columns["alignments3D/shift"].astype(float) * columns["alignments3D/psize_A"].astype(float)[:, None]
    np.testing.assert_allclose(fraction, shift_A / box_A[:, None], rtol=1e-6)
    table = pickle.loads((tmp_path / "out" / "ctf.pkl").read_bytes())
    expected = [columns["blob/shape"][:, 0], columns["blob/psize_A"], columns["ctf/df1_A"], columns["ctf/df2_A"]]
    expected += [np.degrees(columns["ctf/df_angle_rad"]), columns["ctf/accel_kv"], columns["ctf/cs_mm"]]
    expected += [columns["ctf/amp_contrast"], np.degrees(columns["ctf/phase_shift_rad"])]
    np.testing.assert_allclose(table, np.column_stack(expected), rtol=1e-6)
    assert table.dtype == rotations.dtype == np.float32
    assert not (tmp_path / "out" / "ind.pkl").exists()
    assert any("first row" in message for message in texts(report.warnings))


def test_chosen_rows_become_indices_into_whole_pickles(refined, tmp_path):
    source, columns = refined
    report = run(source, tmp_path / "out", "pickles", classes=(1,))
    rows = np.flatnonzero(columns["alignments3D/class"] == 1)
    assert pickle.loads((tmp_path / "out" / "ind.pkl").read_bytes()).tolist() == rows.tolist()
    assert len(pickle.loads((tmp_path / "out" / "ctf.pkl").read_bytes())) == 40
    assert report.rows_out == len(rows) == 40 - sum(report.left_out.values())


@pytest.fixture
def stack_and_pickles(tmp_path):
    """Six images with pickles in cryoDRGN's form, written by pickle and NumPy alone."""
    rng = np.random.default_rng(5)
    save_mrc(tmp_path / "p.mrcs", np.zeros((6, 32, 32)), 2.0)
    rotvec = rng.normal(size=(6, 3))
    rotations, fraction = matrices(rotvec).astype("f4"), rng.uniform(-0.1, 0.1, (6, 2)).astype("f4")
    (tmp_path / "poses.pkl").write_bytes(pickle.dumps((rotations, fraction)))
    ctf = np.tile(np.array([32, 2.0, 12000, 11000, 30, 300, 2.7, 0.1, 0], "f4"), (6, 1))
    ctf[:, 2] += np.arange(6)
    (tmp_path / "ctf.pkl").write_bytes(pickle.dumps(ctf))
    return [tmp_path / name for name in ("p.mrcs", "poses.pkl", "ctf.pkl")], rotations, fraction, ctf


def test_pickles_to_relion(stack_and_pickles, tmp_path):
    paths, rotations, fraction, ctf = stack_and_pickles
    convert(paths, tmp_path / "out.star", to="star")
    table, optics = star_table(tmp_path / "out.star"), star_table(tmp_path / "out.star", "optics")
    assert np.abs(euler_matrices(table) - rotations).max() < 1e-6
    np.testing.assert_allclose(numbers(table, "rlnOriginXAngst", "rlnOriginYAngst"), fraction * 64.0, atol=1e-5)
    assert table["rlnImageName"].tolist() == [f"{row + 1:06d}@{paths[0]}" for row in range(6)]
    assert table["rlnDefocusU"].astype(float).tolist() == ctf[:, 2].tolist()
    assert set(table["rlnDefocusAngle"]) == {"30"}
    assert (optics["rlnVoltage"][0], optics["rlnImageSize"][0], optics["rlnImagePixelSize"][0]) == ("300", "32", "2")
    convert(paths, tmp_path / "deep" / "out.cs", to="cs")
    table = load(tmp_path / "deep" / "out.cs")
    assert np.abs(matrices(table["alignments3D/pose"]) - rotations).max() < 1e-6
    assert set(table["blob/path"].tolist()) == {b">../p.mrcs"}


def test_a_list_of_stacks_is_read_as_one_stack(stack_and_pickles, tmp_path):
    paths, rotations, *_ = stack_and_pickles
    downsample_stack(paths[0], tmp_path / "small", box_px=16, chunk=4, poses=paths[1], ctf=paths[2])
    listed = tmp_path / "small" / "particles.16.txt"
    pickles = (tmp_path / "small" / "poses.pkl", tmp_path / "small" / "ctf.pkl")
    report = convert([listed, *pickles], tmp_path / "out.star", to="star")
    table = star_table(tmp_path / "out.star")
    names = [f"{number:06d}@{tmp_path}/small/particles.16.{chunk}.mrcs" for chunk in (0, 1) for number in (1, 2, 3, 4)]
    assert table["rlnImageName"].tolist() == names[:6]
    assert np.abs(euler_matrices(table) - rotations).max() < 1e-6
    assert report.rows_out == 6
    assert len(read_particles(listed)) == 6
    assert inspect(listed).rows == 6
    again = downsample_stack(listed, tmp_path / "smaller", box_px=8, poses=pickles[0], ctf=pickles[1])
    assert again.rows_out == 6
    # Names may be whole paths, as cryoDRGN takes them; boxes may not differ.
    (tmp_path / "mixed.txt").write_text(f"{paths[0]}\nsmall/particles.16.0.mrcs\n")
    with pytest.raises(FormatError, match=r"different boxes: 32 px and, in particles\.16\.0\.mrcs, 16 px"):
        read_particles(tmp_path / "mixed.txt")


def test_pickles_of_another_shape_are_named_with_their_shapes(stack_and_pickles, tmp_path):
    paths, rotations, fraction, _ = stack_and_pickles
    paths[1].write_bytes(pickle.dumps((rotations.reshape(6, 9), fraction)))
    with pytest.raises(
        UsageError, match=r"poses\.pkl: neither .* but a tuple of arrays of shape \(6, 9\) and \(6, 2\)"
    ):
        convert(paths, tmp_path / "out.star", to="star")
    paths[1].write_bytes(pickle.dumps(rotations.reshape(6, 9).astype("f8") + 1))
    with pytest.raises(UsageError, match=r"an array of shape \(6, 9\) and type float64"):
        convert(paths, tmp_path / "out.star", to="star")


def test_a_downsampled_stack_has_larger_pixels_than_its_ctf_table_says(stack_and_pickles, tmp_path):
    paths, _, fraction, ctf = stack_and_pickles
    ctf[:, 0], ctf[:, 1] = 128, 0.5
    paths[2].write_bytes(pickle.dumps(ctf))
    report = convert(paths, tmp_path / "out.star", to="star")
    assert star_table(tmp_path / "out.star", "optics")["rlnImagePixelSize"].tolist() == ["2"]
    np.testing.assert_allclose(
        numbers(star_table(tmp_path / "out.star"), "rlnOriginXAngst", "rlnOriginYAngst"), fraction * 64.0, atol=1e-5
    )
    assert any("128 px" in note for note in texts(report.notes))


def test_indices_given_with_a_stack_choose_its_images(stack_and_pickles, tmp_path):
    paths, *_ = stack_and_pickles
    (tmp_path / "ind.pkl").write_bytes(pickle.dumps(np.array([5, 1])))
    report = convert([*paths, tmp_path / "ind.pkl"], tmp_path / "out.star", to="star")
    assert [name[:6] for name in star_table(tmp_path / "out.star")["rlnImageName"]] == ["000002", "000006"]
    assert report.left_out == {"not in ind.pkl": 4}


# --- what one program has and the other has not ---------------------------------------------------------------------


def test_unknown_columns_survive_from_star_to_star_to_the_letter(tmp_path):
    extra = {"rlnGroupName": [f"group_{row}" for row in range(5)], "myScore": ["1.50", "2e0", "x", "007", "-0.0"]}
    extra["rlnNrOfSignificantSamples"] = [1, 2, 3, 4, 5]
    columns = particles_star(tmp_path / "p.star", **extra)
    report = run(tmp_path / "p.star", tmp_path / "q.star")
    table, optics = star_table(tmp_path / "q.star"), star_table(tmp_path / "q.star", "optics")
    assert report.dropped_columns == ()
    for name in (*extra, "rlnImageName", "rlnMicrographName"):
        assert table[name].tolist() == [str(value) for value in columns[name]]
    for name in ("rlnDefocusU", "rlnOriginXAngst", "rlnCoordinateY", "rlnAngleTilt", "rlnDefocusAngle"):
        assert table[name].astype(float).tolist() == [float(value) for value in columns[name]]
    assert optics["rlnMtfFileName"].tolist() == ["mtf_k3.star", "mtf k2.star"]
    assert optics["rlnOpticsGroupName"].tolist() == ["first", "second"]
    report = run(tmp_path / "p.star", tmp_path / "q.cs")
    assert {"myScore", "rlnGroupName", "rlnNrOfSignificantSamples"} <= set(report.dropped_columns)


def test_other_cryosparc_columns_survive_from_cs_to_cs(refined, tmp_path):
    source, columns = refined
    run(source, tmp_path / "out" / "q.cs", classes=(0,))
    table, rows = load(tmp_path / "out" / "q.cs"), columns["alignments3D/class"] == 0
    assert table["uid"].tolist() == columns["uid"][rows].tolist()
    for name in ("alignments3D/error", "blob/sign", "alignments3D/class_posterior"):
        assert table[name].tolist() == columns[name][rows].tolist()


# --- the ends of the range ------------------------------------------------------------------------------------------


def test_one_row_in_every_direction(tmp_path):
    source = save_cs(tmp_path / "a.cs", simulated(1))
    run(source, tmp_path / "a.star")
    assert len(star_table(tmp_path / "a.star")["rlnImageName"]) == 1
    for start in (source, tmp_path / "a.star"):
        folder = tmp_path / f"from{start.suffix}"
        assert run(start, folder / "b.star").rows_out == 1
        assert len(star_table(folder / "b.star")["rlnAngleRot"]) == 1
        assert run(start, folder / "b.cs").rows_out == 1
        assert len(load(folder / "b.cs")) == 1
        run(start, folder / "pickles", "pickles")
        assert pickle.loads((folder / "pickles" / "poses.pkl").read_bytes())[0].shape == (1, 3, 3)


def test_a_file_without_rows_is_refused_in_every_direction(tmp_path):
    source, star = tmp_path / "a.cs", tmp_path / "a.star"
    write_cs(source, {name: list(v) if v.dtype.kind == "U" else v for name, v in simulated(0).items()})
    star.write_text("\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnVoltage #2\n\n")
    for start in (source, star):
        for output, target in (("b.star", "star"), ("b.cs", "cs"), ("pickles", "pickles")):
            with pytest.raises(MissingDataError, match=f"{start.name}: there are no particles in it"):
                run(start, tmp_path / "out" / output, target)
    assert not (tmp_path / "out").exists()


def test_a_file_without_images_says_which_columns_are_lacking(tmp_path):
    columns = {name: values for name, values in simulated(3).items() if not name.startswith("blob/")}
    with pytest.raises(MissingDataError) as caught:
        run(save_cs(tmp_path / "a.cs", columns), tmp_path / "p.star")
    assert "blob/path" in caught.value.hint


# --- real files -----------------------------------------------------------------------------------------------------


def test_pickles_of_a_real_refinement_equal_those_of_cryodrgn(reference_data, tmp_path):
    real = reference_data / "real"
    run(real / "cryosparc_P12_J24_001_particles.cs", tmp_path / "p", "pickles")
    matrix, fraction = pickle.loads((real / "pose.cs.pkl").read_bytes())
    own_matrix, own_fraction = pickle.loads((tmp_path / "p" / "poses.pkl").read_bytes())
    assert np.abs(own_matrix - matrix).max() < 1e-6
    np.testing.assert_array_equal(own_fraction, fraction)
    own_ctf = pickle.loads((tmp_path / "p" / "ctf.pkl").read_bytes())
    np.testing.assert_array_equal(own_ctf, pickle.loads((real / "ctf2.pkl").read_bytes()))


def test_pickles_of_its_star_file_equal_those_of_the_cs_file(reference_data, tmp_path):
    source = reference_data / "real" / "cryosparc_P12_J24_001_particles.cs"
    run(source, tmp_path / "p", "pickles")
    run(source, tmp_path / "p.star")
    run(tmp_path / "p.star", tmp_path / "q", "pickles")
    for name in ("poses.pkl", "ctf.pkl"):
        one, other = (pickle.loads((tmp_path / folder / name).read_bytes()) for folder in "pq")
        for a, b in zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]:
            # Two roundings to float32 may end one step apart.
            np.testing.assert_allclose(a, b, rtol=1.3e-7, atol=1.2e-7)


def test_a_real_star_file_through_cryosparc_and_back(reference_data, tmp_path):
    source = reference_data / "real" / "relion31.star"
    run(source, tmp_path / "a.cs", micrograph_shape_px=(4096, 4096))
    run(tmp_path / "a.cs", tmp_path / "b.star")
    before, after = star_table(source), star_table(tmp_path / "b.star")
    assert after["rlnImageName"].tolist() == before["rlnImageName"].tolist()
    assert np.abs(euler_matrices(after) - euler_matrices(before)).max() < 1e-6
    for name in ("rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusAngle"):
        np.testing.assert_allclose(after[name].astype(float), before[name].astype(float), rtol=1e-6, atol=1e-6)
    for name in ("rlnCoordinateX", "rlnCoordinateY"):
        np.testing.assert_allclose(after[name].astype(float), before[name].astype(float), atol=1e-3)


# --- there and back -------------------------------------------------------------------------------------------------


def same_set(one, other):
    """Compare two particle sets within float32."""
    assert len(one) == len(other)
    assert np.abs(one.poses.matrix - other.poses.matrix).max(initial=0) < 2e-6
    np.testing.assert_allclose(one.poses.shift_A, other.poses.shift_A, rtol=1e-6, atol=2e-6)
    for name in ("defocus_u_A", "defocus_v_A", "defocus_angle_rad", "phase_shift_rad", "bfactor_A2", "scale"):
        np.testing.assert_allclose(getattr(one.ctf, name), getattr(other.ctf, name), rtol=1e-6, atol=1e-6)
    for name in ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A", "box_px"):
        np.testing.assert_allclose(one.per_particle(name), other.per_particle(name), rtol=1e-6)
    for name in ("half_set", "class_number"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert one.images.path.to_numpy().tolist() == other.images.path.to_numpy().tolist()
    assert one.images.index.tolist() == other.images.index.tolist()
    assert one.locations.micrograph.to_numpy().tolist() == other.locations.micrograph.to_numpy().tolist()
    np.testing.assert_allclose(one.locations.coordinate_px, other.locations.coordinate_px, atol=2e-3)


# Tables of random numbers shrink slowly, and to nothing that tells more.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=30, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n=st.integers(1, 12), seed=st.integers(0, 1000))
def test_cryosparc_to_relion_and_back_gives_the_model_again(tmp_path, data, n, seed):
    columns = simulated(n, seed)
    pose = st.lists(st.floats(-3.5, 3.5, width=32), min_size=3, max_size=3)
    shift = st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=2)
    columns["alignments3D/pose"] = np.array(data.draw(st.lists(pose, min_size=n, max_size=n)), "f4")
    columns["alignments3D/shift"] = np.array(data.draw(st.lists(shift, min_size=n, max_size=n)), "f4")
    columns["alignments3D/split"] = np.arange(n, dtype="u4") % 2  # half sets that don't split are left out
    if np.abs(columns["alignments3D/pose"][:, :2]).max() < 1e-3:
        columns["alignments3D/pose"][0, 0] = 1  # all in the plane would be a 2D alignment
    source, star, back = tmp_path / "a.cs", tmp_path / "b.star", tmp_path / "c.cs"
    for path in (star, back, tmp_path / "b_micrographs.star", back.with_suffix(".csg")):
        path.unlink(missing_ok=True)
    save_cs(source, columns)
    run(source, star)
    run(star, back, micrograph_shape_px=tuple(SHAPE_PX))
    same_set(read_particles_cs(source), read_particles_cs(back))
    assert load(back)["ctf/exp_group_id"].tolist() == columns["ctf/exp_group_id"].tolist()


@settings(max_examples=20, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n=st.integers(1, 12))
def test_relion_to_cryosparc_and_back_gives_the_model_again(tmp_path, data, n):
    def column(low, high):
        return data.draw(st.lists(st.floats(low, high, width=32), min_size=n, max_size=n))

    extra = {"rlnAngleRot": column(-180, 180), "rlnAngleTilt": column(0, 180), "rlnAnglePsi": column(-180, 180)}
    extra["rlnAngleTilt"][0] = 90.0  # all in the plane would be a 2D alignment
    extra |= {"rlnOriginXAngst": column(-300, 300), "rlnOriginYAngst": column(-300, 300)}
    extra |= {"rlnPhaseShift": column(0, 180), "rlnCtfBfactor": column(0, 100), "rlnCtfScalefactor": column(0, 1)}
    source, cs, back = tmp_path / "a.star", tmp_path / "b.cs", tmp_path / "c.star"
    for path in (cs, back, cs.with_suffix(".csg"), tmp_path / "c_micrographs.star"):
        path.unlink(missing_ok=True)
    particles_star(source, n, **extra)
    run(source, cs, micrograph_shape_px=tuple(SHAPE_PX))
    run(cs, back)
    before = read_particles_star(source)
    after = read_particles_star(back)
    assert set(before.optics.name) >= {"first", "second"}
    same_set(before, after)
