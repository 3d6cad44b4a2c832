"""Selections of STAR files that RELION takes."""

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import FormatError
from cryobridge.formats.relion.star import open_star
from cryobridge.jobs.selection.choose import select_files

STAR = """data_optics

loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
_rlnCtfDataAreCtfPremultiplied
1 001 300 2.7 0.1 1.5 32 1

data_particles

loop_
_rlnImageName
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
_rlnClassNumber
_rlnRandomSubset
_rlnOpticsGroup
000001@a.mrcs 10 20 30 1 1 1 1 1
000002@a.mrcs 10 20 30 1 1 1 2 1
000003@a.mrcs 10 20 nan 1 1 2 1 1
000004@a.mrcs 10 20 30 1 1 3 1 1
000005@a.mrcs 10 20 30 1 1 3 1 1
"""


@pytest.fixture
def star(tmp_path):
    path = tmp_path / "a.star"
    path.write_text(STAR)
    return path


def table(path):
    return open_star(path)["particles"]


def test_half_sets_that_a_selection_does_not_split_are_left_out(star, tmp_path):
    report = select_files(star, tmp_path / "b.star", classes=(1,))
    assert not report.warnings or "half-set" not in str([message.code for message in report.warnings])
    assert table(tmp_path / "b.star").read(["rlnRandomSubset"])["rlnRandomSubset"].tolist() == [1, 2]
    report = select_files(star, tmp_path / "c.star", classes=(3,))
    assert "half-sets-left-out" in {message.code for message in report.warnings}
    assert "rlnRandomSubset" not in table(tmp_path / "c.star")
    # All else is as it was.
    assert open_star(tmp_path / "c.star")["optics"].read(["rlnCtfDataAreCtfPremultiplied"]) == {
        "rlnCtfDataAreCtfPremultiplied": np.array([1])
    }
    assert open_star(tmp_path / "c.star")["optics"].texts("rlnOpticsGroupName").to_pylist() == ["001"]


def test_rows_that_are_no_numbers_are_refused_and_can_be_left_out(star, tmp_path):
    with pytest.raises(FormatError, match="rlnAnglePsi: row 2: not a number, or infinite") as caught:
        select_files(star, tmp_path / "b.star", classes=(1, 2))
    assert not (tmp_path / "b.star").exists()
    assert "where='1e9 > rlnAnglePsi > -1e9'" in caught.value.hint
    assert select_files(star, tmp_path / "b.star", where="rlnAnglePsi < 1e9").rows_out == 4


def test_particles_that_are_written_as_they_were_read_follow_the_same_rules(star, tmp_path):
    particles = cb.read(star)
    with pytest.raises(FormatError, match="rlnAnglePsi: row 2: not a number"):
        cb.write(particles, tmp_path / "b.star")
    report = cb.write(particles.take(np.array([3, 4])), tmp_path / "c.star")
    assert "half-sets-left-out" in {message.code for message in report.warnings}
    assert "rlnRandomSubset" not in table(tmp_path / "c.star")


def test_a_selection_in_memory_says_what_is_left_out_of_its_file(star, tmp_path):
    chosen = cb.select(cb.read(star), output=tmp_path / "d.star", classes=(3,))
    assert "half-sets-left-out" in {message.code for message in chosen.messages}
    assert "rlnRandomSubset" not in table(tmp_path / "d.star")
