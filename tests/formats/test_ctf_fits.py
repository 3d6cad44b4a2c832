"""Fits of the CTF that have no measure are not the best ones for RELION."""

import numpy as np
import pytest

import cryobridge as cb
from cryobridge.formats.relion.ctf_fits import fits_for_relion
from cryobridge.formats.relion.star import open_star

RESOLUTION, SCORE = "rlnCtfMaxResolution", "rlnCtfFigureOfMerit"


def fits(resolution_A, score=None):
    scores = {} if score is None else {SCORE: np.array(score)}
    return fits_for_relion({RESOLUTION: np.array(resolution_A), **scores}, "micrograph")


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_what_is_no_resolution_becomes_the_worst_that_relion_writes(unknown):
    columns, messages = fits([3.5, unknown, 4.25])
    assert columns[RESOLUTION].tolist() == [3.5, 25, 4.25]
    assert [message.code for message in messages] == ["no-fit-resolution"]
    assert messages[0].text.startswith("1 of 3 micrographs has no resolution of the CTF fit")


def test_no_fit_is_better_than_one_that_is_known():
    columns, messages = fits([40.0, np.nan])
    assert columns[RESOLUTION].tolist() == [40, 40]
    assert messages[0].text.endswith("40 Å is written")


@pytest.mark.parametrize("unknown", [np.nan, 0.0])
def test_where_no_fit_has_a_resolution_there_is_no_column(unknown):
    columns, messages = fits([unknown] * 3, [0.5] * 3)
    assert columns.keys() == {SCORE}
    assert [(message.code, message.severity) for message in messages] == [("no-fit-resolution", "note")]


def test_scores_that_are_no_numbers_are_none():
    columns, messages = fits([3.5, 4.0], [np.nan, 0.125])
    assert columns[SCORE].tolist() == [0, 0.125]
    assert not messages


def test_known_fits_stay_as_they_are():
    values = np.array([3.5, 26.0], "f4")
    columns, messages = fits_for_relion({RESOLUTION: values, "rlnMicrographName": ["a", "b"]}, "micrograph")
    assert columns[RESOLUTION] is values
    assert not messages


def test_particles_that_carry_them_from_file_to_file_get_the_same(tmp_path):
    source, output = tmp_path / "in.star", tmp_path / "out.star"
    source.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnImagePixelSize #3\n_rlnVoltage #4\n"
        "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n_rlnImageSize #7\n_rlnImageDimensionality #8\n"
        "og1 1 1 300 2.7 0.1 16 2\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\n"
        f"_rlnDefocusV #4\n_rlnDefocusAngle #5\n_{RESOLUTION} #6\n"
        "000001@s.mrcs 1 10000 9900 0 nan\n000002@s.mrcs 1 10000 9900 0 3.5\n000003@s.mrcs 1 10000 9900 0 0\n"
    )
    report = cb.convert(source, output)
    assert open_star(output)["particles"].read([RESOLUTION])[RESOLUTION].tolist() == [25, 3.5, 25]
    said = [message.text for message in report.messages if message.code == "no-fit-resolution"]
    assert [text.partition(" no resolution")[0] for text in said] == ["2 of 3 particles have"]
