"""inspect on micrographs and movies of both programs: what they are judged by, and what takes them further."""

import pytest

import cryobridge as cb
import exposure_files as files
from cryobridge.errors import UsageError
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.jobs.inspection.micrographs import measures, of_relion
from cryobridge.jobs.inspection.options import InspectOptions
from cryobridge.jobs.inspection.plots import build_figure

N = 4


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return files.write_project(tmp_path / "P1", N)


def commands(found):
    return {use.name: use.commands for use in found.listed_uses}


@pytest.mark.parametrize("as_job", [True, False])
def test_exposures_are_counted_and_judged(project, as_job):
    write_cs("P1/J3/all.cs", files.exposure_columns(N))
    path = "P1/J3" if as_job else "P1/J3/all.cs"
    found = cb.inspect(path)
    facts = dict(found.facts)
    assert facts["micrographs"] == "4"
    assert facts["CTF fit"] == "3.5 to 4.5 Å, median 4"
    assert facts["defocus"] == "8,925 to 17,925 Å, median 13,425"
    assert facts["astigmatism"] == "150 Å"
    assert facts["ice thickness"] == "1 to 1.2, median 1.1"
    assert (facts["dose"], facts["frames"]) == ("50 e/Å²", "10, 5 e/Å² each")
    assert facts["gain reference"] == "J1/imported/gain.mrc, y flipped"
    assert facts["motion files"] == "of whole frames, local"
    assert found.is_ready("micrographs")
    assert commands(found)["micrographs"] == (("cryobridge", "micrographs", path, "-o", "micrographs_for_relion"),)
    assert {use.name for use in found.listed_uses} == {"micrographs", "select"}


def test_a_file_of_the_ctf_alone_is_joined_by_the_command(project):
    found = cb.inspect("P1/J3/exposures_ctf_estimated.cs")
    assert found.title == "cryoSPARC exposures"
    (use,) = (use for use in found.uses if use.name == "micrographs")
    assert use.ready
    assert "J3_passthrough_exposures_ctf_estimated.cs" in use.hint
    assert use.commands[0][:2] == ("cryobridge", "micrographs")


def test_imported_movies(project):
    facts = dict(cb.inspect("P1/J1/imported_movies.cs").facts)
    assert (facts["movies"], facts["dose"]) == ("4", "50 e/Å²")
    assert "CTF fit" not in facts


def test_relions_micrographs_have_the_same_and_go_back(project):
    cb.micrographs("P1/J3", "relion/MotionCorr/job002")
    star = "relion/MotionCorr/job002/micrographs_ctf.star"
    found = cb.inspect(star)
    facts = dict(found.facts)
    assert (facts["micrographs"], facts["CTF fit"]) == ("4", "3.5 to 4.5 Å, median 4")
    assert commands(found)["micrographs"] == (("cryobridge", "micrographs", star, "-o", "exposures.cs"),)
    assert cb.inspect("relion/MotionCorr/job002/micrographs.star").is_ready("micrographs")


def test_the_picture_of_an_output_of_micrographs_is_that_of_its_lists(project):
    cb.micrographs("P1/J3", "relion/MotionCorr/job002")
    with pytest.raises(UsageError, match="no picture of this folder") as caught:
        build_figure("relion/MotionCorr/job002")
    assert caught.value.hint == "Name a file in it: relion/MotionCorr/job002/micrographs_ctf.star."
    build_figure("relion/MotionCorr/job002/micrographs_ctf.star")


def test_an_output_of_micrographs_names_the_list_with_the_most_first(project):
    cb.micrographs("P1/J3", "relion/MotionCorr/job002")
    facts = dict(cb.inspect("relion/MotionCorr/job002").facts)
    assert facts["files"].startswith("micrographs_ctf.star, micrographs.star")
    assert facts["next"] == "cryobridge inspect relion/MotionCorr/job002/micrographs_ctf.star"


def test_motion_that_relion_reports_is_said(tmp_path):
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n1 a 300\n\n"
    head = f"{optics}data_micrographs\n\nloop_\n"
    labels = "_rlnMicrographName\n_rlnOpticsGroup\n_rlnAccumMotionTotal\n_rlnAccumMotionEarly\n_rlnAccumMotionLate\n"
    (tmp_path / "corrected_micrographs.star").write_text(f"{head}{labels}a.mrc 1 10.5 3 7.5\nb.mrc 1 20.5 4 16.5\n\n")
    facts = dict(cb.inspect(tmp_path / "corrected_micrographs.star").facts)
    assert facts["motion"] == "10.5 to 20.5 Å, median 15.5"
    assert facts["early motion"] == "3 to 4 Å, median 3.5"
    titles = [item.title for item in measures(of_relion(tmp_path / "corrected_micrographs.star"))]
    assert titles == ["motion", "early motion"]


def test_particles_are_ready_for_nothing_of_the_kind(demo_project):
    for path in (demo_project.particles_cs, demo_project.extracted_star):
        found = cb.inspect(path)
        assert not found.is_ready("micrographs")
        assert "micrographs" not in {use.name for use in found.listed_uses}


def test_the_picture_has_what_micrographs_are_judged_by(project):
    titles = [axes.get_title(loc="left") for axes in build_figure("P1/J3").axes]
    assert titles[:3] == ["CTF fit", "score of the fit", "defocus"]
    assert "ice thickness" in titles
    assert titles[-1] == "defocus (Å), from the first micrograph to the last"
    # Columns that are named are drawn as they are.
    titles = [axes.get_title(loc="left") for axes in build_figure("P1/J3", InspectOptions(fields=("ctf/df1_A",))).axes]
    assert titles == ["ctf/df1_A"]
