"""A new column is one row of the table: reader, writer, inspect, verification and messages follow from it."""

import numpy as np
import pytest

from cryobridge.errors import FormatError, MissingDataError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.cryosparc.particles_write import cs_content
from cryobridge.formats.fields import lookup
from cryobridge.formats.particles_pickle import pickle_content
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.formats.relion.particles_write import star_content
from cryobridge.jobs.convert.convert import convert, write_plan
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.convert.verify import verify
from cryobridge.jobs.inspection.describe import inspect
from cryobridge.model import fields
from cryobridge.model.fields import DEGREE, FIELDS, Field
from cryobridge.model.particles import Labels

N = 5
TILT = Field(
    "columns.stage_tilt_rad",
    "tilt of the stage",
    "angle_rad",
    "Tilt of the stage, made up for this test",
    cs="ctf/stage_tilt_rad",
    star="rlnMadeUpStageTilt",
    star_unit=DEGREE,
    tolerance=1e-6,
    is_in_3_0=False,
)


@pytest.fixture
def with_column():
    FIELDS.append(TILT)
    yield
    FIELDS.remove(TILT)


def columns(**more):
    full = {
        "uid": np.arange(1, N + 1, dtype="u8") << 40,
        "blob/path": Labels(np.zeros(N, np.int32), ("a.mrcs",)),
        "blob/idx": np.arange(N, dtype="u4"),
        "blob/shape": np.full((N, 2), 64, "u4"),
        "blob/psize_A": np.full(N, 1.5, "f4"),
        "blob/sign": np.ones(N, "f4"),
        "ctf/exp_group_id": np.full(N, 3, "u4"),
        "ctf/accel_kv": np.full(N, 300, "f4"),
        "ctf/cs_mm": np.full(N, 2.7, "f4"),
        "ctf/amp_contrast": np.full(N, 0.1, "f4"),
        "ctf/df1_A": np.linspace(1e4, 2e4, N, dtype="f4"),
        "ctf/df2_A": np.linspace(1e4, 1.9e4, N, dtype="f4"),
        "ctf/df_angle_rad": np.linspace(-1, 1, N, dtype="f4"),
        "alignments3D/pose": np.linspace(-1, 1, 3 * N, dtype="f4").reshape(N, 3),
        "alignments3D/shift": np.zeros((N, 2), "f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
    }
    return full | more


def verified(source, output, **options):
    plan = plan_convert(source, output, ConvertOptions(**options))
    write_plan(plan)
    found = {item.quantity: item for item in verify(plan)}
    assert all(item.is_good for item in found.values())
    return found, plan.content.dropped_columns


def test_a_made_up_column_is_one_row(with_column, tmp_path):
    tilt = np.linspace(-0.5, 0.5, N, dtype="f4")
    source = tmp_path / "a.cs"
    write_cs(source, columns(**{"ctf/stage_tilt_rad": tilt}))
    # cryoSPARC to RELION and back
    found, dropped = verified(source, tmp_path / "b.star")
    assert found["tilt of the stage"].unit == "°"
    assert "ctf/stage_tilt_rad" not in dropped
    star = read_particles_star(tmp_path / "b.star")
    np.testing.assert_allclose(star.columns["stage_tilt_rad"], tilt, atol=1e-8)
    assert "_rlnMadeUpStageTilt" in (tmp_path / "b.star").read_text()
    np.testing.assert_allclose(np.degrees(tilt[0]), -28.64788976, rtol=1e-6)
    found, _ = verified(tmp_path / "b.star", tmp_path / "c.cs")
    assert "tilt of the stage" in found
    back = open_cs(tmp_path / "c.cs").read(["ctf/stage_tilt_rad"])["ctf/stage_tilt_rad"]
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, tilt, atol=1e-7)
    # where there is no place for it
    assert "ctf/stage_tilt_rad" in verified(source, tmp_path / "old.star", relion="3.0")[1]
    assert "ctf/stage_tilt_rad" in verified(source, tmp_path / "pkl", to="pickles")[1]
    # its meaning and unit
    assert lookup("rlnMadeUpStageTilt").unit == "deg"
    assert lookup("ctf/stage_tilt_rad").meaning == TILT.meaning
    assert read_particles_cs(source).take(np.array([4])).columns["stage_tilt_rad"].tolist() == [0.5]


def test_inspect_knows_the_made_up_column(with_column, tmp_path):
    write_cs(tmp_path / "a.cs", columns(**{"ctf/stage_tilt_rad": np.full(N, 30, "f4")}))
    (summary,) = (item for item in inspect(tmp_path / "a.cs").fields if item.name == "ctf/stage_tilt_rad")
    assert summary.meaning == TILT.meaning
    assert "looks like degrees" in " ".join(map(str, summary.problems))


def test_without_the_row_it_is_only_carried_along(tmp_path):
    source = tmp_path / "a.cs"
    write_cs(source, columns(**{"ctf/stage_tilt_rad": np.ones(N, "f4")}))
    report = convert(source, tmp_path / "b.star")
    assert "ctf/stage_tilt_rad" in report.dropped_columns
    assert lookup("ctf/stage_tilt_rad") is None


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.name)
def test_every_row_is_whole(item):
    for program in ("cryosparc", "relion"):
        for name in item.names(program):
            quantity, meaning = item.describe(program, name)
            assert quantity in fields.QUANTITIES
            assert meaning and not meaning.endswith(".")
    unit = item.star_unit or DEGREE
    assert unit.to_model(unit.from_model(0.25)) == pytest.approx(0.25)


def test_no_column_is_in_two_rows():
    names = [name for item in FIELDS for program in ("cryosparc", "relion") for name in item.names(program)]
    assert len(names) == len(set(names))


def codes(content):
    return [message.code for message in content.messages]


def changed(tmp_path, **more):
    write_cs(tmp_path / "odd.cs", columns(**more))
    return read_particles_cs(tmp_path / "odd.cs")


def test_half_sets_that_stop_relion_are_left_out_with_a_warning(tmp_path):
    for split, code in (
        ([0] * N, "half-sets-left-out"),
        ([0, 1, 2, 0, 1], "half-sets-left-out"),
        ([0, 1, 2**32 - 1, 0, 1], "half-sets-left-out"),
    ):
        particles = changed(tmp_path, **{"alignments3D/split": np.array(split, "u4")})
        content = star_content(particles)
        assert codes(content) == [code]
        assert "rlnRandomSubset" not in content.blocks[-1].names
        assert "alignments3D/split" in content.dropped_columns
    particles = changed(tmp_path, **{"alignments3D/split": np.array([0, 1, 0, 0, 1], "u4")})
    assert codes(star_content(particles)) == []
    assert "rlnRandomSubset" in star_content(particles).blocks[-1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("alignments3D/shift", "shift"),
        ("alignments3D/pose", "orientation"),
        ("ctf/df1_A", "defocus"),
        ("ctf/df_angle_rad", "defocus angle"),
    ],
)
def test_what_is_not_a_number_is_refused_with_its_rows(tmp_path, name, title, value):
    values = columns()[name].copy()
    values.reshape(N, -1)[3, -1] = value
    particles = changed(tmp_path, **{name: values})
    for content in (star_content, cs_content, pickle_content):
        with pytest.raises(FormatError, match=f"row 3: {title}: not a number, or infinite") as caught:
            content(particles)
        assert (caught.value.rows, caught.value.count) == ((3,), 1)
        assert name in caught.value.field


def test_what_single_precision_can_not_hold_is_refused_with_its_rows(tmp_path):
    for name, title in (("alignments3D/shift", "shift"), ("ctf/df1_A", "defocus")):
        values = columns()[name].astype("f8")
        values.reshape(N, -1)[2, 0] = 1e39
        with pytest.raises(FormatError, match=f"{title}: .*infinite in single precision") as caught:
            cs_content(changed(tmp_path, **{name: values}))
        assert caught.value.rows == (2,)


def test_shifts_in_pixels_of_no_size_are_refused(tmp_path):
    for size_A in (0.0, np.nan):
        size = np.full(N, 1.5, "f4")
        size[[1, 4]] = size_A
        shift = np.ones((N, 2), "f4")
        shift[4] = 0  # no pixels are 0 Å, whatever their size
        particles = changed(tmp_path, **{"alignments3D/psize_A": size, "alignments3D/shift": shift})
        (message,) = particles.messages
        assert (message.code, message.severity) == ("shift-pixel-size-zero", "warning")
        assert particles.poses.shift_A[4].tolist() == [0, 0]
        for content in (star_content, cs_content, pickle_content):
            with pytest.raises(FormatError, match="alignments3D/psize_A: row 1: the shifts are counted in pixels of 0"):
                content(particles)
        assert star_content(particles.take(np.array([0, 2, 3, 4]))).blocks


def test_a_voltage_or_pixel_size_of_0_is_none(tmp_path):
    for name, option in (("ctf/accel_kv", "voltage_kV"), ("blob/psize_A", "pixel_size_A")):
        particles = changed(tmp_path, **{name: np.zeros(N, "f4")})
        with pytest.raises(MissingDataError, match=r"missing \(0 in the file\), which RELION needs") as caught:
            star_content(particles)
        assert option in caught.value.hint


def test_a_defocus_of_0_is_warned_of(tmp_path):
    zero = np.where(np.arange(N) == 2, 0, 9000).astype("f4")
    particles = changed(tmp_path, **{"ctf/df1_A": zero, "ctf/df2_A": zero})
    for content in (star_content, pickle_content):
        (message,) = [message for message in content(particles).messages if message.severity == "warning"]
        assert (message.code, "of 1 of 5 particles" in str(message)) == ("defocus-zero", True)
    assert "defocus-zero" not in codes(cs_content(particles))


def test_aberrations_that_are_left_out_are_warned_of(tmp_path):
    particles = changed(tmp_path, **{"ctf/tilt_A": np.full((N, 2), 1000, "f4"), "ctf/tetra_A": np.ones((N, 4), "f4")})
    (message,) = star_content(particles, aberrations=False).messages
    assert (message.code, message.option) == ("aberrations-left-out", "aberrations")
    assert "beam tilt, tetrafoil" in str(message)
    assert "trefoil, " not in str(message)
    assert codes(star_content(particles)) == ["odd-aberrations-sign"]
    assert codes(star_content(particles, odd="drop")) == ["aberrations-left-out"]
    assert set(codes(star_content(particles, version="3.0"))) == {"odd-aberrations-sign", "aberrations-dropped"}
    assert "aberrations-dropped" in codes(pickle_content(particles))
    assert codes(cs_content(particles)) == []


STAR = """data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
1 001 300 2.7 0.1 1.3 64
2 7 300 2.7 0.1 1.3 64

data_particles

loop_
_rlnImageName
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOpticsGroup
_rlnVoltage
1@a.mrcs 10 20 30 1 {0}
2@a.mrcs 11 21 31 2 {0}
"""


def test_names_of_optics_groups_stay_as_they_are(tmp_path):
    (tmp_path / "a.star").write_text(STAR.format(300))
    particles = read_particles_star(tmp_path / "a.star")
    assert codes(particles) == []
    optics = star_content(particles).blocks[0]
    assert optics.texts("rlnOpticsGroupName").to_pylist() == ["001", "7"]


def test_particles_that_contradict_their_optics_group_are_warned_of(tmp_path):
    (tmp_path / "a.star").write_text(STAR.format(200))
    particles = read_particles_star(tmp_path / "a.star")
    assert codes(particles) == ["optics-contradiction"]
    assert particles.per_particle("voltage_kV").tolist() == [300, 300]


def test_poses_without_shifts_and_without_ctf_make_pickles_that_verify(tmp_path):
    (tmp_path / "a.star").write_text(STAR.format(300))
    found, _ = verified(tmp_path / "a.star", tmp_path / "pkl", to="pickles")
    assert set(found) == {"particles", "rotation"}
    content = pickle_content(read_particles_star(tmp_path / "a.star"))
    assert content.shifts_box.tolist() == [[0, 0], [0, 0]]


def test_the_layout_of_relion_3_0_needs_no_box(tmp_path):
    labels = "ImageName Voltage SphericalAberration AmplitudeContrast Magnification DetectorPixelSize AnglePsi"
    head = "".join(f"_rln{label}\n" for label in labels.split())
    (tmp_path / "a.star").write_text(f"data_\n\nloop_\n{head}1@a.mrcs 300 2.7 0.1 50000 5 30\n")
    particles = read_particles_star(tmp_path / "a.star")
    assert "rlnImageSize" not in star_content(particles, version="3.0").blocks[0]
    with pytest.raises(MissingDataError, match="box is missing"):
        star_content(particles)
