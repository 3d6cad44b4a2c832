"""RELION's micrographs as exposures of cryoSPARC, and back to the last digit."""

import numpy as np
import pytest
import starfile

import cryobridge as cb
import exposure_files as files
from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs
from cryobridge.formats.cryosparc.csg import read_csg
from cryobridge.formats.cryosparc.exposures import read_exposures

N = 4


@pytest.fixture
def star(tmp_path, monkeypatch):
    """What `micrographs` makes of exposures, in a RELION project."""
    monkeypatch.chdir(tmp_path)
    files.write_project(tmp_path / "P1", N)
    cb.micrographs("P1/J3", "relion/MotionCorr/job002", lists="ctf")
    return tmp_path / "relion/MotionCorr/job002/micrographs_ctf.star"


def columns_of(path):
    table = open_cs(path)
    return table.read(table.names)


def test_names_ctf_and_optics_come_back_to_the_last_digit(star):
    report = cb.micrographs(star, "back/exposures.cs")
    assert (report.rows_in, report.rows_out, report.links) == (N, N, N)
    back, columns = columns_of("back/exposures.cs"), files.exposure_columns(N)
    for name in (
        *("ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad", "ctf/accel_kv", "ctf/cs_mm", "ctf/amp_contrast"),
        *("ctf/exp_group_id", "mscope_params/exp_group_id", "mscope_params/accel_kv", "mscope_params/cs_mm"),
        *("ctf/cross_corr_ctffind4", "ctf/ctf_fit_to_A", "micrograph_blob/shape", "micrograph_blob/psize_A"),
    ):
        np.testing.assert_array_equal(back[name], columns[name], err_msg=name)
        assert back[name].dtype == columns[name].dtype
    cb.micrographs("back/exposures.csg", "again/MotionCorr/job002", lists="ctf")
    one, other = (
        starfile.read(path, always_dict=True) for path in (star, "again/MotionCorr/job002/micrographs_ctf.star")
    )
    assert other["micrographs"].equals(one["micrographs"])
    # cryoSPARC has the pixel size of movies with the movies alone.
    lost = "rlnMicrographOriginalPixelSize"
    assert report.dropped_columns == (lost,)
    assert other["optics"].equals(one["optics"].drop(columns=lost))


def test_formats_are_those_of_the_pixels_and_groups_are_not_judged_for_relion(star):
    report = cb.micrographs(star, "back/exposures.cs")
    assert set(columns_of("back/exposures.cs")["micrograph_blob/format"].values) == {"MRC/2"}  # float32
    assert not report.warnings


def test_what_is_known_of_optics_is_asked_for(star):
    lines = star.read_text().split("data_micrographs")[1]
    star.write_text(f"data_{lines}")
    with pytest.raises(MissingDataError, match="nothing is known of the optics") as raised:
        cb.micrographs(star, "back/exposures.cs")
    assert "voltage_kV=" in raised.value.hint or "voltage=" in raised.value.hint


def test_the_group_is_one_of_exposures_and_leads_to_the_files(star):
    cb.micrographs(star, "back/exposures.cs")
    group = read_csg("back/exposures.csg")
    assert group.kind == "exposure"
    assert {slot.type for slot in group.slots} == {"exposure.micrograph_blob", "exposure.mscope_params", "exposure.ctf"}
    found = read_exposures(star.parents[3] / "back/exposures.csg")
    assert found.names[0] == ">exposures_micrographs/MotionCorr/job002/Micrographs/grid1_0000.mrc"
    link = star.parents[3] / "back" / found.names[0].removeprefix(">")
    assert link.resolve().name == f"{files.stems(N)[0]}_patch_aligned_doseweighted.mrc"


def test_exposures_have_the_uids_that_particles_on_them_name(demo_project, tmp_path):
    star = demo_project.micrographs_star
    report = cb.micrographs(star, tmp_path / "exposures.cs", datadir=demo_project.relion)
    assert report.rows_out == 2
    cb.convert(demo_project.extracted_star, tmp_path / "p.cs", datadir=demo_project.relion, contrast="dark")
    particles, exposures = columns_of(tmp_path / "p.cs"), columns_of(tmp_path / "exposures.cs")
    assert set(particles["location/micrograph_uid"].tolist()) == set(exposures["uid"].tolist())
    again = cb.micrographs(star, tmp_path / "again.cs", datadir=demo_project.relion)
    assert again.dropped_columns == ("rlnMicrographOriginalPixelSize", "rlnCtfImage")
    assert columns_of(tmp_path / "again.cs")["uid"].tolist() == exposures["uid"].tolist()


def test_copies_and_what_is_not_there(star):
    cb.micrographs(star, "copies/exposures.cs", copy=True)
    path = star.parents[3] / "copies/exposures_micrographs/MotionCorr/job002/Micrographs/grid1_0000.mrc"
    assert path.is_file() and not path.is_symlink()
    (star.parent / "Micrographs/grid1_0001.mrc").unlink()
    with pytest.raises(MissingDataError, match=r"1 of 4 micrographs is not found: MotionCorr/job002"):
        cb.micrographs(star, "back/exposures.cs")
    report = cb.micrographs(star, "back/exposures.cs", on_missing="skip")
    assert (report.rows_out, report.left_out) == (N - 1, {"micrograph not found": 1})
    with pytest.raises(OutputExistsError):
        cb.micrographs(star, "back/exposures.cs", on_missing="skip")


def test_rows_of_one_name_are_counted(star):
    blocks = starfile.read(star, always_dict=True)
    table = blocks["micrographs"]
    starfile.write({**blocks, "micrographs": table.iloc[[0, 1, 1, 2]]}, star, overwrite=True)
    report = cb.micrographs(star, "back/exposures.cs")
    assert (report.rows_in, report.rows_out, report.left_out) == (4, 3, {"named twice": 1})


@pytest.mark.parametrize(
    "options", [{"lists": "ctf"}, {"flip_y": True}, {"relion_project": "."}, {"float16": "keep"}, {"relion": "5"}]
)
def test_options_for_relions_lists_are_refused(star, options):
    with pytest.raises(UsageError, match="is for lists of RELION"):
        cb.micrographs(star, "back/exposures.cs", **options)


def test_an_output_without_its_suffix_is_refused(star):
    with pytest.raises(UsageError, match=r"in a \.cs file"):
        cb.micrographs(star, "back")
    with pytest.raises(UsageError, match="one list of RELION's"):
        cb.micrographs([star, star], "back/exposures.cs")


def test_a_folder_of_relion_stands_for_its_list(star):
    report = cb.micrographs(star.parent, "back/exposures.cs")
    assert report.inputs == (star,)


def test_convert_says_what_to_do_with_exposures(star):
    folder = star.parents[3]
    for source in (folder / "P1/J3", folder / "P1/J3/exposures_ctf_estimated.cs"):
        with pytest.raises(CryobridgeError, match="exposures") as caught:
            cb.convert(source, "p.star")
        assert f"`cryobridge micrographs {source} -o MotionCorr/job002`" in caught.value.hint


def test_lists_without_rows_are_an_error(star):
    lines = [line for line in star.read_text().splitlines() if not line.startswith("MotionCorr/")]
    star.write_text("\n".join(lines) + "\n")
    with pytest.raises(MissingDataError, match="no rows"):
        cb.micrographs(star, "back/exposures.cs")
    assert not (star.parents[3] / "back").exists()


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_single_precision_raise_no_warning(star):
    values = starfile.read(star, always_dict=True)
    values["micrographs"]["rlnCtfMaxResolution"] = 1e300
    starfile.write(values, star, overwrite=True)
    cb.micrographs(star, "back/exposures.cs")
    assert np.isinf(columns_of("back/exposures.cs")["ctf/ctf_fit_to_A"]).all()
