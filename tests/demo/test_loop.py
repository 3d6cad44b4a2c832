"""The demo's loop: what RELION extracts and classifies, and what comes back to cryoSPARC's file."""

import mrcfile
import numpy as np
import pytest
import starfile

import cryobridge as cb
from cryobridge.demo import loop, simulate_project
from cryobridge.errors import CryobridgeError
from helpers import save_cs


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return simulate_project(tmp_path_factory.mktemp("demo") / "project", n_micrographs=3, particles_per_micrograph=20)


def images_of(project):
    return np.concatenate([mrcfile.read(path) for path in sorted((project.extracted_star.parent / "Movies").iterdir())])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_extracted_particles_are_cryosparcs_with_rows_reversed_bright_and_normalised(project):
    extracted = images_of(project)
    cut = -np.concatenate([mrcfile.read(path) for path in project.stacks])[:, ::-1].astype(np.float64)
    y, x = np.mgrid[:96, :96] - 48
    background = np.hypot(x, y) > 36
    planes = np.stack([np.ones((96, 96)), x, y], axis=-1)
    for image, plain in zip(extracted, cut, strict=True):
        terms, *_ = np.linalg.lstsq(planes[background], plain[background], rcond=None)
        level = plain - planes @ terms
        np.testing.assert_allclose(image, level / level[background].std(), atol=1e-5)


def test_each_row_of_extract_is_a_pick_on_the_reversed_micrograph(project):
    particles = project.truth.particles
    rows = starfile.read(project.extracted_star)["particles"]
    x, y = particles.pick_px.T
    np.testing.assert_array_equal(rows["rlnCoordinateX"], x)
    np.testing.assert_array_equal(rows["rlnCoordinateY"], 768 - y)
    names = np.array(project.truth.micrographs.name)[particles.micrograph]
    assert all(name in micrograph for name, micrograph in zip(names, rows["rlnMicrographName"], strict=True))
    for name in rows["rlnImageName"]:
        number, stack = name.split("@")
        assert 1 <= int(number) <= len(mrcfile.read(project.relion / stack))


def test_the_last_iteration_has_the_classes_of_the_truth_and_the_particles_of_extract(project):
    rows = starfile.read(project.classification / "run_it020_data.star")["particles"]
    np.testing.assert_array_equal(rows["rlnClassNumber"], project.truth.particles.class_number)
    extracted = starfile.read(project.extracted_star)["particles"]
    assert rows[list(extracted)].equals(extracted)


def test_good_classes_come_back_with_the_uids_of_the_truth(project, tmp_path):
    cb.select_files(project.classification, tmp_path / "good.star", classes=(1, 2))
    report = cb.select_files(project.particles_cs, tmp_path / "good.cs", like=tmp_path / "good.star")
    assert report.matched.by == "place"
    particles = project.truth.particles
    is_good = particles.class_number <= 2
    assert 0 < is_good.sum() < len(is_good)
    assert np.load(tmp_path / "good.cs")["uid"].tolist() == particles.uid[is_good].tolist()
    assert particles.good_uid.tolist() == particles.uid[is_good].tolist()
    found = loop.compare(project, tmp_path / "good.cs", by_relion=False)
    assert (found.extracted_by, found.picked, found.came_back) == ("simulation", 60, is_good.sum())


def test_other_particles_than_those_of_the_truth_are_an_error(project, tmp_path):
    particles = project.truth.particles
    others = particles.uid[particles.class_number > 2][:3]
    save_cs(tmp_path / "back.cs", {"uid": np.concatenate([particles.good_uid[5:], others])})
    with pytest.raises(CryobridgeError, match=r"3 particles came back that are in no good class, and 5 of these"):
        loop.compare(project, tmp_path / "back.cs", by_relion=True)


PROGRAMS = {
    "ended with 3 (no licence)": "rm Extract/job005/Movies/*1_fractions.mrcs; echo no licence >&2; exit 3",
    "ended with 1": "exit 1",
    "made what can't be read": "echo spoilt > Extract/job005/particles.star",
    "made other particles": "printf 'data_other\\n_a 1\\n' > Extract/job005/particles.star",
    "made other particles than were picked": "sed -i '/000002@/d' Extract/job005/particles.star",
    "could not be started": None,
}


@pytest.mark.parametrize("problem", PROGRAMS)
def test_where_relion_fails_the_simulated_particles_are_there_as_before(problem, tmp_path, monkeypatch):
    project = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=2)
    before = contents(project.extracted_star.parent)
    program, lines = tmp_path / "bin" / "relion_preprocess", PROGRAMS[problem]
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{lines}\n" if lines else "#!/no/such/shell\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin" if lines else str(program.parent))
    assert loop.relion_is_installed()
    (message,) = loop.extract(project)
    assert (message.code, message.severity) == ("relion-failed", "note")
    assert message.text.startswith(f"relion_preprocess {problem}")
    assert contents(project.extracted_star.parent) == before


def test_a_program_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    project = simulate_project(tmp_path / "demo", n_micrographs=1, particles_per_micrograph=2)
    (tmp_path / "relion_preprocess").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "relion_preprocess").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(loop, "LONGEST_S", 0.2)
    (message,) = loop.extract(project)
    assert "had not ended after 0.2 s" in message.text


def test_without_relion_nothing_of_it_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not loop.relion_is_installed()
