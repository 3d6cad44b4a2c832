"""cryoSPARC's exposures as RELION's lists, with files under names that RELION takes."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

import cryobridge as cb
import exposure_files as files
from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.relion.micrographs import read_micrographs
from cryobridge.jobs.exposures.names import short_names
from cryobridge.jobs.micrographs.matching import match_micrographs
from cryobridge.model.particles import Labels
from helpers import run_where_one_may_only_read, sentences

N = 4
OUT = "relion/MotionCorr/job002"
FITS = ("ctf/ctf_fit_to_A", "ctf_stats/ctf_fit_to_A")
NAMES = [f"MotionCorr/job002/Micrographs/grid1_{row:04d}.mrc" for row in range(N)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_project(tmp_path / "P1", N)
    (tmp_path / "relion").mkdir()
    (tmp_path / "relion/default_pipeline.star").touch()
    return tmp_path


def write_movies(project):
    for stem in files.stems(N):
        path = project / f"P1/J1/imported/{stem}.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"II*\0")


def exposures(project, **changes):
    """A file of exposures with some columns changed; None takes one away."""
    columns = {name: values for name, values in (files.exposure_columns(N) | changes).items() if values is not None}
    path = project / "P1/exposures.cs"
    write_cs(path, columns)
    return path


def codes(report):
    return {message.code for message in report.messages}


def blocks(path):
    return starfile.read(path, always_dict=True)


def test_lists_have_relions_columns_in_relions_order(project):
    write_movies(project)
    report = cb.micrographs("P1/J3", OUT)
    assert report.lists == {"movies.star": N, "micrographs.star": N, "micrographs_ctf.star": N}
    assert (report.rows_in, report.rows_out, report.optics_groups) == (N, N, 2)
    assert report.dose_per_frame_e_A2 == (5.0, 5.0)
    movies = blocks(f"{OUT}/movies.star")
    microscope = ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]
    group = ["rlnOpticsGroupName", "rlnOpticsGroup"]
    assert list(movies) == ["optics", "movies"]
    assert movies["optics"].columns.tolist() == [*group, "rlnMicrographOriginalPixelSize", *microscope]
    assert movies["optics"]["rlnMicrographOriginalPixelSize"].tolist() == [0.4, 0.4]
    assert movies["movies"].columns.tolist() == ["rlnMicrographMovieName", "rlnOpticsGroup"]
    assert movies["movies"]["rlnMicrographMovieName"][0] == "MotionCorr/job002/Movies/grid1_0000.tif"
    ctf = blocks(f"{OUT}/micrographs_ctf.star")
    sizes = ["rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"]
    assert ctf["optics"].columns.tolist() == [*group, *sizes, *microscope]
    assert ctf["optics"]["rlnOpticsGroupName"].tolist() == ["opticsGroup3", "opticsGroup4"]
    assert ctf["optics"]["rlnMicrographPixelSize"].tolist() == [0.8, 0.8]
    assert ctf["micrographs"].columns.tolist() == [
        *("rlnMicrographName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnCtfAstigmatism"),
        *("rlnDefocusAngle", "rlnCtfFigureOfMerit", "rlnCtfMaxResolution"),
    ]
    assert ctf["micrographs"]["rlnMicrographName"].tolist() == NAMES
    assert ctf["micrographs"]["rlnOpticsGroup"].tolist() == [1, 2, 1, 2]
    assert ctf["micrographs"]["rlnCtfAstigmatism"].tolist() == [150.0] * N
    assert blocks(f"{OUT}/micrographs.star")["micrographs"].columns.tolist() == ["rlnMicrographName", "rlnOpticsGroup"]


def test_values_are_those_of_cryosparc_to_the_last_digit(project):
    cb.micrographs("P1/J3", OUT, lists="ctf")
    back, columns = read_micrographs(Path(OUT) / "micrographs_ctf.star"), files.exposure_columns(N)
    for name, values in (
        ("ctf/df1_A", back.ctf.defocus_u_A),
        ("ctf/df2_A", back.ctf.defocus_v_A),
        ("ctf/df_angle_rad", back.ctf.defocus_angle_rad),
        ("ctf/ctf_fit_to_A", back.fit.resolution_A),
        ("ctf/cross_corr_ctffind4", back.fit.score),
        ("micrograph_blob/psize_A", back.pixel_size_A),
    ):
        np.testing.assert_array_equal(values.astype("f4"), columns[name], err_msg=name)


def test_names_lead_to_the_files_from_relions_project(project):
    report = cb.micrographs("P1/J3", OUT, lists=("corrected", "ctf"))
    assert (report.links, report.copies) == (2 * N, 0)
    table = blocks(f"{OUT}/corrected_micrographs.star")["micrographs"]
    assert table.columns.tolist() == ["rlnMicrographNameNoDW", "rlnMicrographName", "rlnOpticsGroup"]
    for column, ending in (("rlnMicrographName", "_doseweighted"), ("rlnMicrographNameNoDW", "")):
        for name, stem in zip(table[column], files.stems(N), strict=True):
            path = project / "relion" / name
            assert path.suffix == ".mrc"
            assert path.resolve() == project / f"P1/J2/motioncorrected/{stem}_patch_aligned{ending}.mrc"
    record = json.loads((project / OUT / "job.json").read_text())
    assert (record["status"], record["report"]["links"]) == ("completed", 2 * N)
    assert (project / OUT / "run.log").is_file()


@pytest.mark.parametrize(
    ("out", "name", "where"),
    [
        ("relion/MotionCorr/job002", "MotionCorr/job002/Micrographs/grid1_0000.mrc", "relion"),
        ("relion/cs/mics", "cs/mics/job001/Micrographs/grid1_0000.mrc", "relion"),
        ("new/MotionCorr/job012", "MotionCorr/job012/Micrographs/grid1_0000.mrc", "new"),
        ("own", "MotionCorr/job001/Micrographs/grid1_0000.mrc", "own"),
    ],
)
def test_names_start_at_the_project_and_have_a_job(project, out, name, where):
    report = cb.micrographs("P1/J3", out, lists="micrographs")
    assert report.relion_project == Path(where)
    assert blocks(f"{out}/micrographs.star")["micrographs"]["rlnMicrographName"][0] == name
    assert (project / where / name).is_file()
    assert ("own-project" in codes(report)) == (where == "own")


def test_the_project_itself_is_no_output(project):
    with pytest.raises(UsageError, match="RELION project itself") as caught:
        cb.micrographs("P1/J3", "relion")
    assert "relion/MotionCorr/job002" in caught.value.hint
    (project / "relion/Class2D/job004").mkdir(parents=True)
    (project / "relion/Class2D/job004/run_it025_data.star").write_text("data_particles\n\nloop_\n_rlnImageName #1\n")
    with pytest.raises(UsageError, match="RELION job, where nothing is written"):
        cb.micrographs("P1/J3", "relion/Class2D/job004")


def test_particles_are_no_exposures(demo_project, tmp_path):
    with pytest.raises(MissingDataError, match="no exposures are in it, but particles"):
        cb.micrographs(demo_project.refinement, tmp_path / "out")


def test_short_names_are_never_shared():
    uid = "0" * 20
    names = [f"J2/{uid}1_a.b_patch_aligned_doseweighted.mrc", f"J2/{uid}2_a c.mrc"]
    assert short_names(names) == ["a_b", "a_c"]
    alike = [f"J2/{uid}1_a_rigid_aligned.mrc", f"J2/{uid}2_a_rigid_aligned.mrc"]
    assert short_names(alike) == [f"{uid}1_a_rigid_aligned", f"{uid}2_a_rigid_aligned"]
    assert short_names(["J2/a.mrc", "J5/a.mrc"]) == ["J2_a_mrc", "J5_a_mrc"]
    alike = short_names(["J2/a b.mrc", "J2/a.b.mrc", "J2/a_b.mrc", "J2/c.mrc"])
    assert len(set(alike)) == len(alike)
    assert alike[-1] == "c"


@pytest.mark.parametrize(
    "names",
    [
        [f"J2/motioncorrected/{21 * '1'}_my mic.{row}.v2_rigid_aligned.mrc" for row in range(3)],
        [f"J2/grid{row}/{row}{20 * '0'}_a b_patch_aligned_doseweighted.mrc" for row in range(3)],
        [f"S4/grid{row}/a.mrc" for row in range(3)],
    ],
)
def test_particles_find_the_micrographs_under_their_short_names(names):
    short = [f"MotionCorr/job002/Micrographs/{name}.mrc" for name in short_names(names)]
    assert match_micrographs(names, short).relion_name == dict(zip(names, short, strict=True))
    assert match_micrographs(short, names).relion_name == dict(zip(short, names, strict=True))


def test_copies_are_files(project):
    report = cb.micrographs("P1/J3", OUT, lists="micrographs", copy=True)
    assert (report.links, report.copies) == (0, 2 * N)
    assert not (project / "relion" / NAMES[0]).is_symlink()
    # Links may take their place again, and copies that of links.
    cb.micrographs("P1/J3", OUT, lists="micrographs", overwrite=True)
    assert (project / "relion" / NAMES[0]).is_symlink()


def test_rows_are_reversed_when_asked(project):
    source = project / f"P1/J2/motioncorrected/{files.stems(N)[0]}_patch_aligned_doseweighted.mrc"
    plain = mrcfile.read(source)
    cb.micrographs("P1/J3", OUT, lists="ctf")
    report = cb.micrographs("P1/J3", OUT, lists="ctf", flip_y=True, overwrite=True)
    assert (report.flipped, report.copies) == (2 * N, 2 * N)
    np.testing.assert_array_equal(mrcfile.read(project / "relion" / NAMES[0]), plain[::-1])
    assert (
        mrcfile.read(project / f"P1/J2/motioncorrected/{files.stems(N)[0]}_patch_aligned_doseweighted.mrc")[1, 0] == 100
    )


@pytest.mark.parametrize("keep", [False, True])
def test_half_precision_becomes_float32(project, keep):
    path = project / f"P1/J2/motioncorrected/{files.stems(N)[1]}_patch_aligned_doseweighted.mrc"
    pixels = mrcfile.read(path).astype("f2")
    with mrcfile.new(path, pixels, overwrite=True) as file:
        file.voxel_size = files.PIXEL_SIZE_A
        assert file.header.mode == 12
    report = cb.micrographs("P1/J3", OUT, lists="micrographs", **({"float16": "keep"} if keep else {}))
    assert report.rewritten == (0 if keep else 1)
    with mrcfile.open(project / "relion" / NAMES[1]) as file:
        assert file.header.mode == (12 if keep else 2)
        np.testing.assert_array_equal(file.data, pixels)
        assert file.voxel_size.x == pytest.approx(files.PIXEL_SIZE_A)


def test_micrographs_that_are_not_there_are_listed(project):
    gone = project / f"P1/J2/motioncorrected/{files.stems(N)[2]}_patch_aligned_doseweighted.mrc"
    gone.unlink()
    with pytest.raises(MissingDataError, match=r"1 of 4 micrographs is not found: .*grid1_0002") as caught:
        cb.micrographs("P1/J3", OUT)
    assert "on_missing='skip'" in str(caught.value.hint)
    report = cb.micrographs("P1/J3", OUT, on_missing="skip")
    assert (report.rows_in, report.rows_out, report.left_out) == (N, N - 1, {"micrograph not found": 1})
    assert gone.name in report.missing[0]
    assert "micrographs-not-found" in codes(report)
    assert blocks(f"{OUT}/micrographs_ctf.star")["micrographs"]["rlnMicrographName"].tolist() == NAMES[:2] + NAMES[3:]


def test_movies_that_are_not_there_are_said_and_an_error_where_asked_for(project):
    report = cb.micrographs("P1/J3", OUT)
    assert "movies.star" not in report.lists
    assert "movies.star is not written, nor are the metadata of motion" in sentences(report.warnings)
    assert "nor are" not in sentences(cb.micrographs("P1/J3", OUT, overwrite=True, motion=False).warnings)
    assert len(report.missing) == N
    with pytest.raises(MissingDataError, match="4 of 4 movies are not found"):
        cb.micrographs("P1/J3", "relion/MotionCorr/job003", lists="movies")
    write_movies(project)
    (project / f"P1/J1/imported/{files.stems(N)[0]}.tif").unlink()
    report = cb.micrographs("P1/J3", OUT, overwrite=True)
    assert report.lists["movies.star"] == N - 1
    assert "movies-not-found" in codes(report)


def test_imported_movies_need_an_amplitude_contrast(project):
    write_movies(project)
    with pytest.raises(MissingDataError, match="amplitude contrast of the micrographs is not known") as caught:
        cb.micrographs("P1/J1/imported_movies.cs", OUT)
    assert "amplitude_contrast" in caught.value.hint
    report = cb.micrographs("P1/J1/imported_movies.cs", OUT, amplitude_contrast=0.1)
    assert report.lists == {"movies.star": N}
    assert (project / OUT / "Movies/grid1_0003.tif").is_symlink()


def test_movies_in_mrc_get_the_suffix_of_stacks(project):
    names = [f"J1/imported/{stem}.mrc" for stem in files.stems(N)]
    for name in names:
        (project / "P1" / name).parent.mkdir(exist_ok=True)
        (project / "P1" / name).write_bytes(b"")
    source = exposures(project, **{"movie_blob/path": Labels.of(names)})
    cb.micrographs(source, OUT, datadir="P1", lists="movies")
    assert blocks(f"{OUT}/movies.star")["movies"]["rlnMicrographMovieName"][0].endswith("Movies/grid1_0000.mrcs")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("size", "48 × 64 px, and 48 × 65 in the metadata"),
        ("cut", "the data are cut off"),
        ("stack", "2 sections, where a micrograph has one"),
        ("text", "too few for an MRC file"),
    ],
)
def test_micrographs_that_relion_can_not_use_are_refused(project, change, match):
    path = project / f"P1/J2/motioncorrected/{files.stems(N)[0]}_patch_aligned_doseweighted.mrc"
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif change == "stack":
        with mrcfile.new(path, np.zeros((2, files.NY, files.NX), "f4"), overwrite=True) as file:
            file.set_image_stack()
    elif change == "text":
        path.write_text("no image")
    shape = np.tile(np.array([files.NY, files.NX], "u4"), (N, 1))
    shape[0, 1] += change == "size"
    source = exposures(project, **{"micrograph_blob/shape": shape})
    with pytest.raises(FormatError, match=match) as caught:
        cb.micrographs(source, OUT)
    assert "1 of 4 micrographs is no file that RELION can use" in str(caught.value)
    report = cb.micrographs(source, OUT, on_missing="skip")
    assert report.left_out == {"no file that RELION can use": 1}
    assert "micrographs-useless" in codes(report)


def test_micrographs_without_a_ctf_are_counted(project):
    defocus = np.array([9000, 0, np.nan, 12000], "f4")
    source = exposures(project, **{"ctf/df1_A": defocus, "ctf/df2_A": defocus})
    report = cb.micrographs(source, OUT, datadir="P1")
    assert report.lists == {"micrographs.star": N, "micrographs_ctf.star": 2}
    assert "2 of 4 micrographs have no CTF, and are not in micrographs_ctf.star" in sentences(report.warnings)
    for column in ("ctf/df1_A", "ctf/df2_A"):
        source = exposures(project, **{column: None})
        assert "micrographs_ctf.star" not in cb.micrographs(source, OUT, overwrite=True).lists
        with pytest.raises(MissingDataError, match=r"micrographs_ctf.star can't be written: the exposures have no CTF"):
            cb.micrographs(source, OUT, lists="ctf", overwrite=True)
    # What an older run wrote of other exposures is gone.
    assert not (project / OUT / "micrographs_ctf.star").exists()


def test_mixed_pixel_sizes_are_groups_of_their_own(project):
    sizes = np.array([0.8, 0.8, 0.8, 1.1], "f4")
    report = cb.micrographs(exposures(project, **{"micrograph_blob/psize_A": sizes}), OUT)
    assert report.optics_groups == 3
    assert "2 pixel sizes, from 0.8 to 1.1 Å" in sentences(report.warnings)
    optics = blocks(f"{OUT}/micrographs_ctf.star")["optics"]
    assert sorted(optics["rlnMicrographPixelSize"]) == [0.8, 0.8, 1.1]
    assert len(set(optics["rlnOpticsGroupName"])) == 3
    assert "opticsGroup4, opticsGroup4_2" in sentences(report.warnings)


def test_movies_without_gain_reference_and_dose_are_warned_of(project):
    write_movies(project)
    none = {name: None for name in files.exposure_columns(N) if name.startswith("gain_ref_blob")}
    source = exposures(project, **none, **{"mscope_params/total_dose_e_per_A2": np.zeros(N, "f4")})
    report = cb.micrographs(source, OUT)
    assert {"no-gain-reference", "no-dose"} <= codes(report)
    assert report.dose_per_frame_e_A2 is None
    report = cb.micrographs(source, OUT, overwrite=True, dose_per_frame=1.2, motion=False)
    assert "no-dose" not in codes(report)
    assert report.dose_per_frame_e_A2 == (1.2, 1.2)


def test_rows_that_name_an_earlier_file_are_left_out(project):
    paths = files.motion_columns(N)["micrograph_blob/path"].take(np.array([0, 1, 0, 3]))
    report = cb.micrographs(exposures(project, **{"micrograph_blob/path": paths}), OUT)
    assert (report.rows_in, report.left_out) == (N, {"named twice": 1})
    assert "1 of 4 exposures is left out, whose file an earlier row names: J2/" in sentences(report.warnings)
    found = blocks(f"{OUT}/micrographs_ctf.star")["micrographs"]
    assert found["rlnMicrographName"].tolist() == [NAMES[0], NAMES[1], NAMES[3]]
    assert found["rlnDefocusU"].tolist() == [9000, 12000, 18000]


def test_a_list_for_polishing_without_motion_is_said(project):
    report = cb.micrographs("P1/J3", OUT, lists="corrected")
    assert "corrected_micrographs.star has no metadata of motion" in sentences(report.notes)
    assert "no-motion" not in codes(cb.micrographs("P1/J3", OUT, lists="corrected", motion=False, overwrite=True))
    assert "no-motion" not in codes(cb.micrographs("P1/J3", OUT, lists="micrographs", overwrite=True))


def test_files_without_rows_are_an_error(project):
    none = {
        name: values[:0] if isinstance(values, np.ndarray) else values.take(np.zeros(0, int))
        for name, values in files.exposure_columns(N).items()
    }
    with pytest.raises(MissingDataError, match="no rows"):
        cb.micrographs(exposures(project, **none), OUT)


@pytest.mark.parametrize("name", ["relion/micrographs.star", "back.cs"])
def test_names_of_files_are_no_folders(project, name):
    with pytest.raises(UsageError, match="a folder is written") as caught:
        cb.micrographs("P1/J3", name)
    assert "MotionCorr/job002" in caught.value.hint


def test_unknown_pixel_size_and_voltage_are_errors(project):
    for column, match in (
        ("micrograph_blob/psize_A", "pixel size of the micrographs is not known"),
        ("ctf/accel_kv", "voltage of the micrographs is not known"),
    ):
        with pytest.raises(MissingDataError, match=match):
            cb.micrographs(exposures(project, **{column: np.zeros(N, "f4")}), OUT)


def test_nothing_is_written_over_unasked(project):
    cb.micrographs("P1/J3", OUT)
    with pytest.raises(OutputExistsError):
        cb.micrographs("P1/J3", OUT)
    before = sorted(project.rglob("*"))
    report = cb.micrographs("P1/J3", "relion/MotionCorr/job003", dry_run=True)
    assert report.dry_run
    assert sorted(project.rglob("*")) == before
    with pytest.raises(UsageError, match="is given twice"):
        cb.micrographs("P1/J3", OUT, lists=("ctf", "ctf"))


def test_links_of_an_older_run_that_no_list_names_any_more_are_removed(project):
    write_movies(project)
    cb.micrographs("P1/J3", OUT)
    (project / OUT / "Micrographs/own.txt").touch()
    rows = np.arange(2)
    few = {
        name: values.take(rows) if isinstance(values, Labels) else values[rows]
        for name, values in files.exposure_columns(N).items()
    }
    write_cs(project / "P1/few.cs", few)
    cb.micrographs("P1/few.cs", OUT, overwrite=True, lists="ctf", datadir="P1")
    left = sorted(path.name for path in (project / OUT / "Micrographs").iterdir())
    assert left == sorted([*(f"grid1_{row:04d}{end}.mrc" for row in (0, 1) for end in ("", "_noDW")), "own.txt"])
    assert len(list((project / OUT / "Movies").iterdir())) == 2
    # What cryoSPARC has is not touched.
    assert len(list((project / "P1/J2/motioncorrected").glob("*.mrc"))) == 2 * N


def test_files_that_are_read_again_from_the_output_folder_stay(project):
    cb.micrographs("P1/J3", OUT, lists="micrographs", copy=True)
    names = Labels.of(f"relion/MotionCorr/job002/Micrographs/grid1_{row:04d}_noDW.mrc" for row in range(N))
    source = exposures(project, **{"micrograph_blob/path": names, "micrograph_blob_non_dw/path": None})
    cb.micrographs(source, OUT, lists="micrographs", datadir=project, overwrite=True)
    assert all((project / name).is_file() for name in names.to_numpy())


def test_a_file_of_micrographs_is_never_replaced_by_a_link_to_itself(project):
    cb.micrographs("P1/J3", OUT, lists="micrographs", copy=True)
    names = Labels.of(f"relion/{name}" for name in NAMES)
    source = exposures(project, **{"micrograph_blob/path": names, "micrograph_blob_non_dw/path": None})
    report = cb.micrographs(source, OUT, datadir=project, overwrite=True)
    assert report.links == N
    assert not (project / "relion" / NAMES[0]).is_symlink()
    with pytest.raises(CryobridgeError, match="the output is one of the inputs"):
        cb.micrographs(source, OUT, datadir=project, overwrite=True, flip_y=True)


def test_particles_go_onto_the_micrographs_and_each_resolves_to_one_row(demo_project, tmp_path):
    out = tmp_path / "relion/MotionCorr/job002"
    for flip_y in (False, True):
        cb.micrographs(demo_project.exposures_cs, out, flip_y=flip_y, overwrite=True)
        star = out / "micrographs_ctf.star"
        report = cb.convert(demo_project.refinement, tmp_path / "relion/p.star", micrographs=star, overwrite=True)
        # What is not asked for is found from the pixels.
        assert report.coordinates_from == "pixels"
        assert report.coordinates.endswith("y = ny − 1 − ny·fy" if flip_y else "y = ny·fy")
        particles = cb.read(tmp_path / "relion/p.star")
        rows = [read_micrographs(star).names.count(name) for name in set(particles.locations.micrograph.values)]
        assert set(rows) == {1}


def test_optics_groups_come_from_names_when_asked(project):
    report = cb.micrographs("P1/J3", OUT, optics_from=r"regex:_(000[01])", lists="ctf", on_missing="skip")
    optics = blocks(f"{OUT}/micrographs_ctf.star")["optics"]
    assert report.optics_groups == len(optics)
    assert report.optics_groups > 2


def test_imported_movies_may_have_empty_names_of_micrographs(project):
    """As cryoSPARC's import writes them, by the files that cryosparc-tools is tested with."""
    write_movies(project)
    columns = files.movie_columns(N)
    columns |= {
        "micrograph_blob/path": Labels.of([""] * N),
        "micrograph_blob/shape": np.zeros((N, 2), "u4"),
        "micrograph_blob/psize_A": np.zeros(N, "f4"),
        "gain_ref_blob/path": Labels.of([""] * N),
        "mscope_params/defect_path": Labels.of([""] * N),
    }
    write_cs(project / "P1/J1/imported_movies.cs", columns)
    report = cb.micrographs("P1/J1/imported_movies.cs", OUT, amplitude_contrast=0.1)
    assert report.lists == {"movies.star": N}
    assert "no-gain-reference" in codes(report)
    said = cb.inspect("P1/J1/imported_movies.cs")
    assert "not found" not in str({use.name: use for use in said.uses}["micrographs"])
    assert not any(summary.problems for summary in said.fields)


def test_what_relion_would_take_for_the_best_fit_is_said_and_uids_that_repeat(project):
    columns = files.exposure_columns(N)
    fit, uid = columns["ctf/ctf_fit_to_A"].copy(), columns["uid"].copy()
    fit[1], uid[2] = np.nan, uid[0]
    report = cb.micrographs(exposures(project, **dict.fromkeys(FITS, fit), uid=uid), OUT, datadir="P1")
    texts = {message.code: message.text for message in report.messages}
    assert texts["no-fit-resolution"].startswith(f"1 of {N} micrographs has no resolution of the CTF fit")
    assert blocks(f"{OUT}/micrographs_ctf.star")["micrographs"]["rlnCtfMaxResolution"][1] == 25
    assert texts["uid-repeated"].startswith(f"1 of {N} rows repeats another row's uid")


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "words", [("P1/J3", "-o", "closed"), ("P1/J3", "-o", "closed/new"), ("back.star", "-o", "closed/a.cs")]
)
def test_a_folder_that_may_not_be_written_is_one_message(words, more, project):
    source, *output = words
    (project / "closed").mkdir()
    if source == "back.star":
        cb.micrographs("P1/J3", OUT, lists="ctf")
        source = f"{OUT}/micrographs_ctf.star"
    done = run_where_one_may_only_read(
        project / "closed", "micrographs", project / source, output[0], project / output[1], *more
    )
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.count("Error:") == 1
    assert "You may not write there" in said
    assert "Would write" not in done.stdout
    assert not list((project / "closed").iterdir())


@pytest.mark.filterwarnings("error")
def test_pixel_sizes_beyond_all_numbers_raise_no_warning(project):
    columns = {"uid": files.uids(N)} | files.motion_columns(N) | files.ctf_columns(N)
    columns["micrograph_blob/psize_A"] = np.array([1e308, *[0.8] * (N - 1)])
    write_cs(project / "P1/J3/odd.cs", columns)
    report = cb.micrographs("P1/J3/odd.cs", OUT, motion=False)
    assert "2 pixel sizes, from 0.8 to " in sentences(report.messages)
