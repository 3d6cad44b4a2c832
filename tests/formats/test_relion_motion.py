import re
from dataclasses import replace

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError
from cryobridge.formats.relion.motion import MotionMetadata, read_motion, write_motion
from cryobridge.formats.relion.star import open_star
from cryobridge.model.motion import MotionModel

rng = np.random.default_rng(0)
GLOBAL = np.vstack([[[np.nan, np.nan], [0, 0]], rng.normal(size=(4, 2))])
COEFFICIENTS = rng.normal(size=(2, 18)) * 10.0 ** rng.integers(-9, 2, (2, 18))
METADATA = MotionMetadata(
    motion=MotionModel(GLOBAL, (256, 320), COEFFICIENTS, first_frame=2),
    movie="Movies/mov 1.mrcs",
    pixel_size_A=0.834,
    dose_per_frame_e_A2=1.25,
    voltage_kV=300.0,
    pre_exposure_e_A2=0.5,
    gain="Movies/gain.mrc",
    binning=2.0,
    patches_px=rng.normal(size=(5, 3, 3, 2)),
)


def test_metadata_are_read_as_they_were_written(tmp_path):
    write_motion(tmp_path / "a.star", METADATA)
    found = read_motion(tmp_path / "a.star")
    assert replace(found, motion=METADATA.motion, patches_px=METADATA.patches_px) == METADATA
    np.testing.assert_allclose(found.motion.global_px, GLOBAL, atol=1e-6)
    np.testing.assert_allclose(found.motion.coefficients, COEFFICIENTS, rtol=1e-8)
    assert (found.motion.shape_px, found.motion.first_frame) == ((256, 320), 2)


def test_columns_are_those_of_relions_motion_correction(tmp_path):
    write_motion(tmp_path / "a.star", METADATA)
    star = open_star(tmp_path / "a.star")
    assert star.names == ("general", "global_shift", "local_motion_model", "local_shift")
    assert star.labels("local_shift") == (
        *("rlnMicrographFrameNumber", "rlnCoordinateX", "rlnCoordinateY"),
        *("rlnMicrographShiftX", "rlnMicrographShiftY"),
    )
    assert star["global_shift"].read(["rlnMicrographShiftX"])["rlnMicrographShiftX"][0] == -9999
    local = star["local_shift"].read(star.labels("local_shift"))
    np.testing.assert_array_equal(local["rlnMicrographFrameNumber"][:6], [2, 3, 4, 5, 6, 2])
    assert (local["rlnCoordinateX"][5], local["rlnCoordinateY"][5]) == (160, 42.67)
    np.testing.assert_allclose(local["rlnMicrographShiftY"][7], METADATA.patches_px[2, 0, 1, 1], atol=1e-4)


def test_movies_of_eer_name_their_frames(tmp_path):
    write_motion(tmp_path / "a.star", replace(METADATA, eer_upsampling=2, eer_grouping=30))
    found = read_motion(tmp_path / "a.star")
    assert (found.eer_upsampling, found.eer_grouping) == (2, 30)


def test_motion_without_local_model_is_version_0(tmp_path):
    write_motion(tmp_path / "a.star", replace(METADATA, motion=replace(METADATA.motion, coefficients=None), gain=None))
    found = read_motion(tmp_path / "a.star")
    assert found.motion.coefficients is None
    assert found.gain is None


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("_rlnMicrographDoseRate 1.25\n", "", MissingDataError, "rlnMicrographDoseRate is missing"),
        ("_rlnImageSizeZ 6", "_rlnImageSizeZ 5", FormatError, "shifts of 6 frames"),
        ("_rlnImageSizeZ 6", "_rlnImageSizeZ 7", FormatError, "shifts of 6 frames"),
        ("data_local_motion_model", "data_another", MissingDataError, "data_local_motion_model is missing"),
        ("data_global_shift", "data_another", MissingDataError, "data_global_shift is missing"),
        ("\n35 ", "\n34 ", FormatError, "36 are needed"),
        ("_rlnMotionModelVersion 1", "_rlnMotionModelVersion 2", FormatError, "motion model 2"),
    ],
)
def test_what_relion_takes_in_silence_or_stops_at_is_refused(tmp_path, old, new, error, said):
    path = tmp_path / "a.star"
    write_motion(path, METADATA)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(error, match=said) as raised:
        read_motion(path)
    assert isinstance(raised.value, CryobridgeError)
    assert raised.value.hint


@pytest.mark.parametrize("value", ["inf", "nan", "text", "1e300", "-1", "2.5"])
@pytest.mark.parametrize(
    "label", ["rlnMotionModelVersion", "rlnImageSizeX", "rlnImageSizeZ", "rlnMicrographStartFrame", "rlnEERGrouping"]
)
def test_values_that_are_no_whole_number_are_refused(tmp_path, label, value):
    path = tmp_path / "a.star"
    write_motion(path, replace(METADATA, eer_grouping=30))
    path.write_text(re.sub(rf"(?m)^(_{label}\s+)\S+", rf"\g<1>{value}", path.read_text()))
    with pytest.raises(FormatError, match=f"{label} is |motion model |{label}: row 0: .*not a number"):
        read_motion(path)


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
@pytest.mark.parametrize("label", ["rlnMicrographDoseRate", "rlnMicrographPreExposure", "rlnVoltage"])
def test_values_that_are_no_quantity_are_refused(tmp_path, label, value):
    path = tmp_path / "a.star"
    write_motion(path, METADATA)
    path.write_text(re.sub(rf"(?m)^(_{label}\s+)\S+", rf"\g<1>{value}", path.read_text()))
    with pytest.raises(FormatError, match=f"{label} is "):
        read_motion(path)


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_shifts_that_no_frame_has_are_refused(tmp_path, value):
    path = tmp_path / "a.star"
    write_motion(path, METADATA)
    path.write_text(re.sub(r"(?m)^(\s*3\s+)\S+(\s+\S+\s*)$", rf"\g<1>{value}\g<2>", path.read_text(), count=1))
    with pytest.raises(FormatError, match="no numbers, or that no frame has"):
        read_motion(path)
