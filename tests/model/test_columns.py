"""A new column is one row of the table: reader, writer, inspect, verification and messages follow from it."""

import numpy as np
import pytest

from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.fields import lookup
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.convert.convert import convert, write_plan
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.convert.verify import verify
from cryobridge.jobs.inspection import inspect_path
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
    (summary,) = (item for item in inspect_path(tmp_path / "a.cs").fields if item.name == "ctf/stage_tilt_rad")
    assert summary.meaning == TILT.meaning
    assert "looks like degrees" in " ".join(summary.problems)


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
