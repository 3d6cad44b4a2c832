import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryobridge.formats.cryosparc import fields as _fields_cryosparc
from cryobridge.formats.fields import FieldSpec, judge, lookup
from cryobridge.formats.relion import fields as _fields_relion
from cryobridge.model.fields import FIELDS, MICROGRAPH_FIELDS, QUANTITIES

ALIGNMENT_FIELDS = (
    "split shift pose psize_A error error_min resid_pow slice_pow image_pow cross_cor alpha alpha_min weight "
    "pose_ess shift_ess class_ess class class_posterior"
)
CRYOSPARC = {
    "blob": "path idx shape psize_A sign import_sig",
    "ctf": "type exp_group_id accel_kv cs_mm amp_contrast ac df1_A df2_A df_angle_rad phase_shift_rad scale "
    "scale_const shift_A tilt_A trefoil_A tetra_A anisomag bfactor cross_corr_ctffind4 ctf_fit_to_A fig_of_merit_gctf "
    "path fit_quality",
    "ctf_stats": "cross_corr ctf_fit_to_A",
    "location": "micrograph_uid exp_group_id micrograph_path micrograph_shape center_x_frac center_y_frac "
    "micrograph_psize_A min_dist_A",
    "pick_stats": "ncc_score power template_idx angle_rad",
    "filament": "filament_uid filament_pose position_A arc_length_A inter_box_dist_A curvature sinuosity",
    "alignments2D": ALIGNMENT_FIELDS,
    "alignments3D": ALIGNMENT_FIELDS + " object_pose object_shift local_pose localshift localfulcrum",
    "alignments3D_multi": ALIGNMENT_FIELDS,
    "alignments_class_0": ALIGNMENT_FIELDS,
    "alignments_class_12": ALIGNMENT_FIELDS,
    "alignments3D_class_3": ALIGNMENT_FIELDS,
    "movie_blob": "path shape psize_A is_gain_corrected format has_defect_file import_sig",
    "gain_ref_blob": "path idx shape flip_x flip_y rotate_num",
    "micrograph_blob": "path idx shape psize_A format is_background_subtracted vmin vmax import_sig",
    "micrograph_blob_non_dw": "path idx shape psize_A",
    "background_blob": "path idx shape psize_A",
    "micrograph_thumbnail_blob_1x": "path shape",
    "micrograph_thumbnail_blob_2x": "path shape",
    "mscope_params": "accel_kv cs_mm total_dose_e_per_A2 phase_plate neg_stain exp_group_id defect_path",
    "rigid_motion": "path psize_A frame_start frame_end zero_shift_frame",
    "spline_motion": "path psize_A",
    "components_mode_0": "component value",
    "components_mode_17": "component value",
    "sym_expand": "src_uid idx",
    "map": "path shape psize_A",
}
RELION_TEXT = (
    "ImageName ImageOriginalName ReconstructImageName MicrographName MicrographNameNoDW MicrographMovieName "
    "MicrographMetadata MicrographCoordinates MicrographGainName OpticsGroupName GroupName MtfFileName CtfImage "
    "ReferenceImage ModelStarFile ModelStarFile2 ExperimentalDataStarFile OrientSamplingStarFile OutputRootName "
    "SolventMaskName SymmetryGroup TomoName TomoParticleName TomoTiltSeriesName PipeLineProcessName "
    "PipeLineProcessTypeLabel PipeLineNodeName PipeLineEdgeFromNode JobTypeLabel JobOptionVariable JobOptionValue"
)
RELION_FLOAT = (
    "Voltage SphericalAberration AmplitudeContrast ImagePixelSize MicrographPixelSize MicrographOriginalPixelSize "
    "BeamTiltX BeamTiltY MagMat00 MagMat01 MagMat10 MagMat11 CoordinateX CoordinateY CoordinateZ DefocusU DefocusV "
    "DefocusAngle CtfAstigmatism PhaseShift CtfBfactor CtfScalefactor CtfFigureOfMerit CtfMaxResolution "
    "CtfValidationScore CtfIceRingDensity AngleRot AngleTilt AnglePsi AngleTiltPrior AnglePsiPrior AnglePsiFlipRatio "
    "AngleRotFlipRatio OriginX OriginY OriginXAngst OriginYAngst OriginZAngst AutopickFigureOfMerit "
    "HelicalTrackLengthAngst NormCorrection LogLikeliContribution MaxValueProbDistribution AccumMotionTotal "
    "AccumMotionEarly AccumMotionLate DetectorPixelSize Magnification CurrentResolution PixelSize AveragePmax "
    "LogLikelihood SigmaOffsetsAngst ClassDistribution AccuracyRotations AccuracyTranslationsAngst "
    "EstimatedResolution OverallFourierCompleteness ClassPriorOffsetX ClassPriorOffsetY Resolution AngstromResolution "
    "SsnrMap GoldStandardFsc ChangesOptimalClasses ChangesOptimalOrientations ChangesOptimalOffsets "
    "OverallAccuracyRotations OverallAccuracyTranslationsAngst ParticleDiameter"
)
RELION_INT = (
    "OpticsGroup ImageSize ImageDimensionality ClassNumber RandomSubset GroupNumber HelicalTubeID "
    "NrOfSignificantSamples ReferenceDimensionality OriginalImageSize NrClasses NrGroups SpectralIndex "
    "CurrentIteration NumberOfIterations PipeLineJobCounter HealpixOrder"
)
EVERY_NAME = [
    "uid",
    *(f"{group}/{field}" for group, fields in CRYOSPARC.items() for field in fields.split()),
    *_fields_relion.LABELS,
    *(name for item in FIELDS for name in item.names("relion")),
]


def keys_of(item):
    programs = ("cryosparc", "relion")
    return {item.describe(program, name)[0] for program in programs for name in item.names(program)}


def spec(name):
    found = lookup(name)
    assert found is not None, name
    return found


def verdict(name, minimum, maximum):
    return judge(spec(name), minimum, maximum)


@pytest.mark.parametrize("group", CRYOSPARC)
def test_every_field_that_cryosparc_is_known_to_write_is_known(group):
    for field in CRYOSPARC[group].split():
        assert spec(f"{group}/{field}").name == f"{group}/{field}"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (RELION_TEXT, "text"),
        (RELION_FLOAT, "float"),
        (RELION_INT, "int"),
        ("CtfDataAreCtfPremultiplied DoAutoRefine HasConverged TomoSubTomosAre2DStacks IsHelix", "bool"),
        ("OddZernike EvenZernike TomoVisibleFrames", "vector"),
    ],
)
def test_relions_labels_are_text_or_number_as_relion_reads_them(labels, kind):
    assert {label: spec(f"rln{label}").kind for label in labels.split()} == dict.fromkeys(labels.split(), kind)


def test_a_relion_label_is_found_with_and_without_its_underscore():
    assert lookup("_rlnDefocusU") == lookup("rlnDefocusU")
    assert spec("_rlnDefocusU").name == "rlnDefocusU"
    assert len(_fields_relion.LABELS) > 200


@pytest.mark.parametrize(
    "name",
    [
        "",
        "rln",
        "_",
        "rlndefocusu",
        "RLNDefocusU",
        "__rlnDefocusU",
        "DefocusU",
        "ctf",
        "ctf/",
        "/df1_A",
        "ctf/defocus",
        "CTF/df1_A",
        "_ctf/df1_A",
        "xctf/df1_A",
        "ctf/df1_A/more",
        "components_mode_/value",
        "components_mode_x/value",
        "alignments_class_/pose",
        "alignments4D/pose",
        "blobs/path",
        "UID",
    ],
)
def test_a_name_that_is_not_known_is_none(name):
    assert lookup(name) is None


@given(st.text())
def test_any_text_may_be_looked_up(name):
    assert lookup(name) is None or isinstance(lookup(name), FieldSpec)


def test_units_and_bounds_come_with_the_field():
    found = spec("ctf/df1_A")
    assert (found.kind, found.unit, found.low, found.high) == ("float", "Å", 500, 100_000)
    assert spec("ctf/df_angle_rad").unit == "rad"
    assert spec("rlnDefocusAngle").unit == "deg"
    assert spec("rlnVoltage").unit == spec("mscope_params/accel_kv").unit == "kV"
    assert spec("alignments_class_3/class_posterior").unit == "fraction"
    assert spec("location/micrograph_shape").unit == "px"
    assert spec("uid").kind == spec("filament/filament_uid").kind == "int"


def test_every_entry_is_complete_and_its_meaning_fits_on_a_line():
    keys = {key for fields in _fields_cryosparc.GROUPS.values() for key, _ in fields.values()}
    keys |= {key for key, _ in _fields_relion.LABELS.values()}
    rows = (*FIELDS, *MICROGRAPH_FIELDS)
    keys |= {item.quantity for item in rows} | {key for item in rows for key in keys_of(item)}
    assert keys == set(QUANTITIES)
    for name in EVERY_NAME:
        meaning = spec(name).meaning
        assert 3 <= len(meaning) <= 90, name
        assert not meaning.endswith("."), name


@pytest.mark.parametrize(
    ("name", "minimum", "maximum", "cause"),
    [
        ("ctf/df1_A", 1.5, 1.5, "1.5 looks like µm; Å expected (× 10,000)"),
        ("rlnDefocusU", 0.8, 2.4, "0.8 to 2.4 looks like µm; Å expected (× 10,000)"),
        ("rlnDefocusV", 0, 2.4, "looks like µm"),
        ("ctf/df2_A", 8e-7, 2.4e-6, "looks like m; Å expected (× 10¹⁰)"),
        ("rlnDefocusU", -24_000, -8_000, "looks like the opposite sign; 500 to 100,000 Å expected"),
        ("ctf/df_angle_rad", -40, 89, "looks like degrees; radians expected (× π/180)"),
        ("alignments3D/pose", -170, 175, "looks like degrees"),
        ("alignments_class_3/pose", 0, 359, "looks like degrees"),
        ("ctf/phase_shift_rad", 90, 90, "90 looks like degrees"),
        ("ctf/amp_contrast", 7, 7, "7 looks like a percentage; a fraction expected (÷ 100)"),
        ("rlnAmplitudeContrast", 10, 10, "looks like a percentage"),
        ("location/center_x_frac", 12, 4010.5, "looks like pixels; a fraction expected"),
        ("location/center_y_frac", 0.2, 3, "looks like pixels"),
        ("rlnVoltage", 300_000, 300_000, "300000 looks like V; kV expected (÷ 1,000)"),
        ("mscope_params/accel_kv", 200_000, 300_000, "looks like V"),
        ("ctf/cs_mm", 2_700, 2_700, "looks like µm; mm expected (÷ 1,000)"),
        ("ctf/cs_mm", 2_700_000, 2_700_000, "looks like nm; mm expected (÷ 1,000,000)"),
        ("rlnSphericalAberration", 2.7e7, 2.7e7, "looks like Å; mm expected (÷ 10,000,000)"),
        ("blob/psize_A", 0.083, 0.083, "looks like nm; Å expected (× 10)"),
        ("rlnImagePixelSize", 8.3e-11, 8.3e-11, "looks like m; Å expected"),
        ("alignments3D/split", 1, 2, "looks like halves counted from 1; 0 and 1 expected"),
        ("alignments3D/class_posterior", 12, 99, "looks like a percentage"),
        ("ctf/anisomag", 0, 1.002, "looks like the whole matrix"),
        ("rlnMagMat00", 0, 0, "looks like cryoSPARC's matrix without the identity"),
        ("rlnMicrographShiftX", -9999, 3, "marks frames whose motion was not found"),
        ("rlnChangesOptimalClasses", 20, 3000, "looks like a number of particles"),
    ],
)
def test_a_wrong_unit_is_recognised(name, minimum, maximum, cause):
    found = verdict(name, minimum, maximum)
    assert found is not None
    assert cause in found


@pytest.mark.parametrize(
    ("name", "minimum", "maximum", "expected"),
    [
        ("ctf/df1_A", 100, 20_000, "100 to 20000 is outside of what is plausible, 500 to 100,000 Å"),
        ("ctf/df1_A", 1.5, 20_000, "1.5 to 20000 is outside of what is plausible, 500 to 100,000 Å"),
        ("rlnDefocusU", -2_000, 20_000, "outside"),
        ("location/center_x_frac", -0.2, 1.1, "-0.2 to 1.1 is outside of what is plausible, 0 to 1"),
        ("blob/psize_A", 0, 1, "outside of what is plausible, 0.1 to 50 Å"),
        ("rlnOpticsGroup", 0, 3, "0 to 3 is outside of what is plausible, at least 1"),
        ("alignments3D/pose", -1e6, 1, "outside"),
        ("rlnAngleRot", math.nan, math.nan, "NaN"),
        ("ctf/df1_A", math.inf, math.inf, "outside"),
        ("rlnVoltage", 0, 300, "outside"),
    ],
)
def test_what_cannot_be_explained_is_said_with_the_plausible_range(name, minimum, maximum, expected):
    found = verdict(name, minimum, maximum)
    assert found is not None
    assert expected in found


@pytest.mark.parametrize(
    ("name", "minimum", "maximum"),
    [
        ("rlnDefocusU", 0, 23_000),
        ("ctf/df_angle_rad", -1.56, 4.69),
        ("rlnDefocusAngle", -160.39, 268.7),
        ("rlnAnglePsiPrior", -120, 999),
        ("rlnAnglePsi", -999, -999),
        ("rlnOriginXPriorAngst", 999, 999),
        ("rlnClassNumber", -999, 0),
        ("rlnChangesOptimalClasses", 9999999, 9999999),
        ("rlnChangesOptimalOrientations", 0.1, 999),
        ("rlnChangesOptimalOffsets", 999, 999),
        ("rlnAccuracyRotations", 1.2, 999),
        ("rlnEstimatedResolution", 4.2, math.inf),
        ("rlnCtfMaxResolution", -1, math.inf),
        ("rlnParticleDiameter", -1, -1),
        ("rlnRandomSubset", 0, 2),
        ("rlnSphericalAberration", 0.001, 0.001),
        ("ctf/anisomag", -0.004, 0.004),
        ("rlnMagMat00", 0.99, 1.01),
        ("alignments3D/class_posterior", 0, np.float32(1.0000002)),
        ("uid", 7852734275967171, 18446744073709551615),
        ("rlnTiltAngleLimit", -91, -91),
        ("alignments3D/error", 0, 1e9),
    ],
)
def test_values_that_real_files_hold_are_not_complained_about(name, minimum, maximum):
    assert verdict(name, minimum, maximum) is None


def test_text_has_no_range():
    assert verdict("rlnImageName", 1, 2) is None
    assert verdict("rlnOddZernike", 1, 2) is None


@given(st.sampled_from(EVERY_NAME), st.floats(), st.floats())
def test_any_range_may_be_judged(name, minimum, maximum):
    found = verdict(name, minimum, maximum)
    assert found is None or ("\n" not in found and len(found) < 160)


@pytest.mark.parametrize("file", ["cryosparc_P12_J24_001_particles.cs", "empiar_10076_7.cs"])
def test_a_real_cs_file_is_known_and_plausible(reference_data, file):
    table = np.load(reference_data / "real" / file, allow_pickle=False)
    for name in table.dtype.names:
        column = table[name]
        found = spec(name)
        assert (found.kind == "text") == (column.dtype.kind == "S"), name
        if found.kind != "text":
            assert judge(found, column.min(), column.max()) is None, name


def star_columns(path):
    """Enough of the format for files without quotes: every column or value of every block."""
    columns, labels = {}, []
    for line in path.read_text().splitlines():
        tokens = line.split()
        if not tokens or tokens[0][0] == "#":
            continue
        if tokens[0].startswith("data_"):
            labels = []
        elif tokens[0].startswith("_rln"):
            labels.append(tokens[0])
            columns[tokens[0]] = [tokens[1]] if len(tokens) > 1 and tokens[1][0] != "#" else []
        elif tokens[0] != "loop_":
            for label, token in zip(labels, tokens, strict=True):
                columns[label].append(token)
    return columns


@pytest.mark.parametrize(
    "file",
    [
        "real/relion31.star",
        "real/empiar_10076_7.star",
        "real/run_it025_optimiser_2D.star",
        "recovar_run/particles/particles.star",
    ],
)
def test_a_real_star_file_is_known_and_plausible(reference_data, file):
    columns = star_columns(reference_data / file)
    assert len(columns) >= 10
    for label, tokens in columns.items():
        found = spec(label)
        if found.kind != "text":
            values = [float(token) for token in tokens]
            assert judge(found, min(values), max(values)) is None, label


def test_the_catalogue_loads_without_anything_heavy():
    heavy = "{'numpy', 'scipy', 'pandas', 'torch', 'matplotlib', 'pyarrow'}"
    code = f"import sys, cryobridge.formats.fields; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_values_of_both_signs_in_a_fraction_are_no_percentage():
    verdict = judge(lookup("alignments3D/class_posterior"), -5, 5)
    assert "percentage" not in verdict
    assert "outside of what is plausible" in verdict
