"""`convert --verify-map`: whether images make the same map by the output as by the input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import starfile

import cryobridge as cb
from cryobridge.formats.relion import particles_write
from cryobridge.jobs.convert import verify as reading_back
from cryobridge.model.geometry import euler_to_matrix, matrix_to_euler

N = 100


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return cb.simulate_project(tmp_path_factory.mktemp("demo"), n_micrographs=2, particles_per_micrograph=8)


@pytest.fixture
def folder(project, tmp_path, monkeypatch):
    shutil.copytree(project.cryosparc, tmp_path / "cryosparc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def star_of(folder, **columns):
    """The particles in RELION's terms, with more columns of the optics."""
    cb.convert("cryosparc/J4", folder / "in.star", link_stacks=folder / "stacks")
    tables = starfile.read(folder / "in.star", always_dict=True)
    tables["optics"] = tables["optics"].assign(**columns)
    starfile.write(tables, folder / "in.star", overwrite=True)
    return folder / "in.star"


@pytest.mark.parametrize(("output", "more"), [("o.star", {}), ("o.cs", {}), ("pickles", {"to": "pickles"})])
def test_a_right_conversion_makes_the_same_map(folder, output, more):
    for source in ("cryosparc/J4", star_of(folder)):
        report = cb.convert(source, output, verify_map=N, verify=True, overwrite=True, **more)
        check = report.map_check
        assert check.is_good and check.lowest > 0.9999
        assert (check.particles, check.box_px, len(check.fsc)) == (16, 64, 33)
        assert all(item.is_good for item in report.verified)


def test_some_rows_of_a_file_are_compared_with_their_own(folder):
    report = cb.convert("cryosparc/J4", "o.star", classes=(0,), min_posterior=0.0, verify_map=5)
    assert report.map_check.particles == min(5, report.rows_out)
    star = star_of(folder)
    tables = starfile.read(star, always_dict=True)
    tables["particles"]["rlnClassNumber"] = np.arange(16) % 2 + 1
    starfile.write(tables, star, overwrite=True)
    for output, more in (("o.cs", {}), ("pickles", {"to": "pickles"})):
        report = cb.convert(star, output, classes=(2,), verify_map=N, **more)
        assert report.rows_out == 8 and report.map_check.particles == 8


def test_poses_in_the_plane_are_compared_too(folder, monkeypatch):
    particles = cb.read("cryosparc/J4")
    psi_deg = matrix_to_euler(particles.poses.matrix)[2]
    matrix = euler_to_matrix(0 * psi_deg, 0 * psi_deg, psi_deg)
    flat = particles.replace(poses=replace(particles.poses, matrix=matrix, is_2d=True, source="alignments2D"))
    assert cb.convert(flat, "o.star", verify_map=N).map_check.lowest > 0.9999
    right = particles_write.matrix_to_euler
    monkeypatch.setattr(particles_write, "matrix_to_euler", lambda matrix: (*right(matrix)[:2], -right(matrix)[2]))
    with pytest.raises(cb.CryobridgeError, match="what differs: poses by"):
        cb.convert(flat, "p.star", verify_map=N)


def test_particles_on_the_other_programs_micrographs_make_the_same_map(project, folder):
    shutil.copytree(project.relion, folder / "relion")
    star = next((folder / "relion").rglob("micrographs_ctf.star"))
    report = cb.convert("cryosparc/J4", "relion/o.star", micrographs=star, orientation="reliosparc", verify_map=N)
    assert report.micrographs == star and report.map_check.is_good


def test_the_table_and_the_json_say_it(folder, command):
    code, stdout, _ = command("convert", "cryosparc/J4", "-o", "o.star", "--verify-map", N)
    assert code == 0
    line = next(line for line in stdout.splitlines() if line.startswith("map"))
    assert "FSC at least 0.99" in line and "to 4.5 Å (16 particles, 64 px)" in line
    _, stdout, _ = command("convert", "cryosparc/J4", "-o", "p.star", "--verify-map", N, "--json")
    check = json.loads(stdout)["map_check"]
    assert check["lowest"] >= check["least"] == 0.999 and check["differing"] == []
    assert cb.convert("cryosparc/J4", "q.star").map_check is None


def test_an_error_of_the_writer_is_named_and_ends_the_command(folder, command, monkeypatch):
    right = particles_write.matrix_to_euler

    def with_other_psi(matrix):
        rot, tilt, psi = right(matrix)
        return rot, tilt, -psi

    monkeypatch.setattr(particles_write, "matrix_to_euler", with_other_psi)
    code, stdout, stderr = command("convert", "cryosparc/J4", "-o", "o.star", "--verify-map", N)
    assert code == 1
    assert "below 0.999" in " ".join(stdout.split())
    said = " ".join(stderr.split())
    assert "another map by the output than by the input" in said and "what differs: poses by" in said
    assert (folder / "o.star").exists()  # as with --verify


def test_what_the_reader_of_the_output_makes_of_it_counts(folder, monkeypatch):
    right = reading_back.read_particles_star

    def half_a_pixel_off(path):
        found = right(path)
        return replace(found, poses=replace(found.poses, shift_A=found.poses.shift_A + 0.75))

    monkeypatch.setattr(reading_back, "read_particles_star", half_a_pixel_off)
    with pytest.raises(cb.CryobridgeError, match=r"what differs: shifts by 1\.06 Å"):
        cb.convert("cryosparc/J4", "o.star", verify_map=N)


@pytest.mark.parametrize(
    ("output", "more"), [("o.cs", {}), ("pickles", {"to": "pickles"}), ("p.star", {"relion": "3.0"})]
)
def test_a_premultiplication_that_the_output_can_not_say_is_found(folder, output, more):
    star = star_of(folder, rlnCtfDataAreCtfPremultiplied=1)
    assert cb.convert(star, "kept.star", verify_map=N).map_check.is_good
    with pytest.raises(cb.CryobridgeError, match="what differs: whether images are multiplied by their CTF"):
        cb.convert(star, output, verify_map=N, **more)


def test_aberrations_that_are_left_out_are_found(folder):
    star = star_of(folder, rlnBeamTiltX=1.5, rlnBeamTiltY=-1.0, rlnEvenZernike="[0,0,0,0,20,-15,0,10,25]")
    assert cb.convert(star, "kept.cs", verify_map=N).map_check.is_good
    with pytest.raises(cb.CryobridgeError, match=r"what differs: the CTF by .*, odd aberrations by"):
        cb.convert(star, "without.cs", aberrations=False, verify_map=N)
    with pytest.raises(cb.CryobridgeError, match="what differs: odd aberrations by"):
        cb.convert(star, "other.cs", odd_aberrations="reversed", verify_map=N)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recenter": True}, "verify_map= would do nothing here: it is for images that are there"),
        ({"onto": "cryosparc/J4/J4_003_particles.cs"}, "verify_map= does nothing with onto="),
        ({"verify_map": 0}, "verify_map: 0 is out of range"),
    ],
)
def test_where_there_is_nothing_to_compare_it_is_refused(folder, options, said):
    output = "o.cs" if "onto" in options else "o.star"
    with pytest.raises(cb.CryobridgeError, match=said):
        cb.convert("cryosparc/J4", output, **({"verify_map": N} | options))


def test_what_is_missing_is_said_before_anything_is_written(folder):
    shutil.move("cryosparc/J3", "elsewhere")
    for dry_run in (True, False):
        with pytest.raises(cb.CryobridgeError, match="2 of 2 image files are not there") as caught:
            cb.convert("cryosparc/J4", "o.star", verify_map=N, dry_run=dry_run)
        assert "datadir=" in caught.value.hint
    assert not (folder / "o.star").exists()
    assert cb.convert("cryosparc/J4", "o.star", verify_map=N, datadir="elsewhere/extract").map_check.is_good
    picks = cb.read("cryosparc/J4").replace(poses=None)
    with pytest.raises(cb.CryobridgeError, match="no particle has a pose"):
        cb.convert(picks, "p.star", verify_map=N)
    assert not (folder / "p.star").exists()
