"""Inspection ends in commands: each of them does what it says when it is pasted."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from cryobridge.jobs.inspection.describe import inspect
from cryobridge.jobs.inspection.report import Inspection
from cryobridge.jobs.inspection.use_list import TITLES
from helpers import noise_images, run, save_cs, save_mrc, save_star
from recovar_runs import simulate_run


@pytest.fixture(scope="module")
def project(demo_project, tmp_path_factory):
    """The demo's files in a folder with a blank in its name, with what the commands make of them."""
    folder = tmp_path_factory.mktemp("commands") / "my project"
    shutil.copytree(demo_project.folder, folder, symlinks=True)
    exposures = {
        "uid": np.arange(1, 4, dtype="u8"),
        "micrograph_blob/path": ["J2/a.mrc", "J2/b.mrc", "J2/c.mrc"],
        "micrograph_blob/shape": np.full((3, 2), 512, "u4"),
    }
    save_cs(folder / "cryosparc" / "J2" / "exposures.cs", exposures)
    for words in (
        ("convert", "cryosparc/J4", "-o", "relion/particles.star", "--link-stacks", "relion/Extract"),
        ("stacks", "downsample", "relion/particles.star", "-D", "32", "-o", "small"),
        ("stacks", "cs", "cryosparc/J3", "-o", "fourier"),
    ):
        done = run(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def uses_of(path, folder):
    """Inspect a file as a user does, in the project's folder."""
    done = run("inspect", path, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[0]["uses"]


def paste(commands, folder):
    """Run commands in a folder; those of other programs are only looked at."""
    for command in commands:
        words = shlex.split(command)
        if words[0] == "cryobridge":
            done = run(*words[1:], cwd=folder)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        else:  # they are given what the commands before made
            assert words[0] in {"recovar", "cryodrgn"}
            given = [word for word in words[2:] if word.endswith((".star", ".mrcs", ".pkl"))]
            assert given
            assert all((folder / name).is_file() for name in given), command


OF_CRYOSPARC = {"relion", "select", "coords", "cryolike", "recovar", "cryodrgn"}
OF_RELION = {"cryosparc", "select", "cryolike", "recovar", "cryodrgn"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cryosparc/J4/J4_003_particles.cs", OF_CRYOSPARC),
        ("cryosparc/J4/J4_passthrough_particles.cs", OF_CRYOSPARC),
        ("cryosparc/J4/J4_particles.csg", OF_CRYOSPARC),
        ("cryosparc/J4", OF_CRYOSPARC),
        ("cryosparc/J3", OF_CRYOSPARC - {"recovar", "cryodrgn"}),
        ("cryosparc/J2/exposures.cs", {"select"}),
        ("relion/particles.star", OF_RELION),
        ("relion/CtfFind/job003/micrographs_ctf.star", {"select", "micrographs"}),
        ("relion/Class2D/job004", {"cryosparc", "select", "cryolike"}),
        ("small", OF_RELION),
        ("small/particles.32.mrcs", {"relion", "cryosparc", "recovar", "cryodrgn"}),
        ("fourier", {"cryolike"}),
    ],
)
def test_what_is_ready_has_commands_that_work_when_they_are_pasted(path, expected, project):
    before = set(project.iterdir())
    uses = uses_of(path, project)
    commands = {name: use["commands"] for name, use in uses.items() if use["commands"]}
    assert set(commands) == expected
    for made in commands.values():
        paste(made, project)
    if "relion" in expected:
        assert uses_of("particles.star", project)["relion"]["ready"]
    for made in set(project.iterdir()) - before:
        shutil.rmtree(made) if made.is_dir() else made.unlink()


def test_the_command_of_a_run_takes_its_particles(tmp_path):
    result = simulate_run(tmp_path / "recovar")
    commands = uses_of(result.out, tmp_path)["select"]["commands"]
    assert "--run" in commands[0]
    assert "--clusters 0" in commands[0]
    paste(commands, tmp_path)
    assert (tmp_path / "state_0.star").is_file()


def test_batches_of_a_job_become_stacks_without_an_index(reference_data, tmp_path):
    job = reference_data / "cryolike_reference" / "job_directory" / "cryosparc" / "J4"
    (command,) = uses_of(job, tmp_path)["cryolike"]["commands"]
    assert command == f"cryobridge stacks job {job.parent} J4 -o cryolike"
    paste([command], tmp_path)


def test_names_that_are_taken_are_not_used_again(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("particles.star").touch()
    use = next(use for use in inspect(project / "cryosparc" / "J4", statistics=False).uses if use.name == "relion")
    assert "particles_2.star" in use.commands[0]


def test_uses_are_listed_once_and_only_those_that_make_sense(project):
    def titles(path):
        return [use.title for use in inspect(project / path, statistics=False).listed_uses]

    assert titles("cryosparc/J4") == ["to RELION", "select", "coords", "CryoLike stacks", "RECOVAR", "cryoDRGN"]
    assert titles("relion/particles.star") == [
        *("to RELION", "to cryoSPARC", "select", "CryoLike stacks", "RECOVAR", "cryoDRGN"),
    ]
    assert titles("cryosparc/J2/exposures.cs") == ["select", "micrographs"]
    assert titles("fourier") == ["CryoLike stacks"]
    assert isinstance(inspect(project / "cryosparc"), Inspection)
    assert titles("cryosparc") == []
    assert set(TITLES) >= {"relion", "cryosparc", "select", "coords", "cryolike", "recovar", "cryodrgn"}


def test_coordinates_of_an_ancestor_are_named_with_what_fetches_them(project, tmp_path):
    shutil.copytree(project / "cryosparc", tmp_path / "cryosparc")
    for path in (tmp_path / "cryosparc" / "J4").glob("*passthrough*"):
        path.unlink()
    done = run("inspect", "J4/J4_003_particles.cs", "--no-stats", cwd=tmp_path / "cryosparc")
    assert "J3 has location/* in extracted_particles.cs: --from-ancestors fetches it" in done.stdout


def test_images_that_are_elsewhere_are_found_by_the_commands_or_asked_for(particles_cs, tmp_path):
    extract = tmp_path / "J1" / "extract"
    extract.rename(tmp_path / "J1" / "moved")
    uses = uses_of(particles_cs, tmp_path)
    assert "--datadir" in uses["cryolike"]["commands"][0]
    paste(uses["cryolike"]["commands"], tmp_path)
    (tmp_path / "J1" / "moved").rename(tmp_path.parent / f"{tmp_path.name}_moved")
    uses = uses_of(particles_cs, tmp_path)
    assert uses["cryolike"]["ready"]
    assert "2 of the 2 image files that were looked for are not found" in uses["cryolike"]["no_images"]
    assert not uses["cryolike"]["commands"]
    # Metadata are carried all the same.
    paste(uses["relion"]["commands"], tmp_path)
    assert run("inspect", particles_cs, cwd=tmp_path).stdout.count("image files that were looked for") == 1


@pytest.mark.parametrize("check", ["relion", "cryosparc", "cryolike", "cryodrgn"])
def test_each_use_can_be_checked(check, project):
    assert run("inspect", "cryosparc/J4", "--no-stats", "--check", check, cwd=project).returncode == 0
    poses_missing = run("inspect", "cryosparc/J3", "--no-stats", "--check", check, cwd=project)
    assert poses_missing.returncode == (3 if check == "cryodrgn" else 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_stack_that_is_cut_off_is_one_error(as_json, tmp_path):
    path = save_mrc(tmp_path / "a.mrcs", np.zeros((9, 8, 8), np.float32))
    with path.open("r+b") as file:
        file.truncate(1024 + 700)
    done = run("inspect", path, *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert done.stderr.count("cut off") == 1
    assert done.stdout.count("cut off") == (2 if as_json else 0)  # problems, and warnings
    assert "stack of images" in done.stdout


def test_piped_lines_are_short_and_paths_are_cut_in_the_middle(project):
    for path in ("cryosparc/J4", "relion/particles.star", "relion/Class2D/job004", "small", "fourier", "cryosparc"):
        done = run("inspect", path, "--rows", "1", cwd=project) if path.endswith((".star", "J4")) else None
        done = done or run("inspect", path, cwd=project)
        assert max(map(len, done.stdout.splitlines())) < 120, path
    deep = project / "deep" / ("x" * 90) / ("y" * 60)
    deep.parent.mkdir(parents=True)
    shutil.copytree(project / "cryosparc" / "J3", deep)
    lines = run("inspect", deep.relative_to(project), "--no-stats", cwd=project).stdout.splitlines()
    assert lines[0].startswith("deep/xxx")
    assert "…" in lines[0]
    assert len(lines[0]) < 120
    (project / "deep").rename(project.parent / "deep")


def damaged(folder, name, images, n_rows):
    """A STAR file of particles, ready for all but its images."""
    save_mrc(folder / f"{name}.mrcs", images, 1.5)
    columns = {
        "rlnImageName": [f"{row + 1:06d}@{name}.mrcs" for row in range(n_rows)],
        **{
            name: [10.0 * (row + 1) for row in range(n_rows)] for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
        },
        **{name: [0.5 * row for row in range(n_rows)] for name in ("rlnOriginXAngst", "rlnOriginYAngst")},
        **{name: [12000.0 + row for row in range(n_rows)] for name in ("rlnDefocusU", "rlnDefocusV")},
        "rlnDefocusAngle": [5.0] * n_rows,
        "rlnVoltage": [300.0] * n_rows,
        "rlnSphericalAberration": [2.7] * n_rows,
        "rlnAmplitudeContrast": [0.1] * n_rows,
        "rlnDetectorPixelSize": [5.0] * n_rows,
        "rlnMagnification": [33333.0] * n_rows,
    }
    return save_star(folder / f"{name}.star", "", columns)


NOT_USABLE = {
    "zeros": (lambda images: images * 0, "images that were looked at are empty"),
    "one": (lambda images: np.where(np.arange(len(images))[:, None, None] == 3, 0, images), "3 of"),
    "nan": (lambda images: np.where(images == images.max(), np.nan, images), "holds NaN or infinity"),
    "short": (lambda images: images[:5], "has 5 images, and image 12 is referred to"),
}


@pytest.mark.parametrize("kind", NOT_USABLE)
def test_images_that_no_program_can_use_are_not_called_ready(kind, tmp_path):
    """Nothing is ready by its metadata alone, where the images are at hand and a few of them can be looked at."""
    change, said = NOT_USABLE[kind]
    said = "1 of 12 images that were looked at is empty" if kind == "one" else said
    images = noise_images(12, 32)
    damaged(tmp_path, "good", images, 12)
    damaged(tmp_path, kind, change(images).astype("f4"), 12)
    uses = uses_of("good.star", tmp_path)
    assert [name for name in OF_RELION | {"relion"} if not uses[name]["ready"]] == []
    uses = uses_of(f"{kind}.star", tmp_path)
    for name in ("relion", "cryosparc", "cryolike", "recovar", "cryodrgn"):
        assert not uses[name]["ready"]
        assert not uses[name]["commands"]
        assert said in " ".join(uses[name]["reasons"])
    assert uses["select"]["ready"]
    assert run("inspect", f"{kind}.star", "--check", "stacks", cwd=tmp_path).returncode == 3
    shown = run("inspect", "good.star", cwd=tmp_path).stdout
    assert "images          12 of 12 were looked at" in shown or "images  12 of 12 were looked at" in shown
    # Headers alone: pixels are not read, and nothing is said of them; what sizes tell is.
    quick = json.loads(run("inspect", f"{kind}.star", "--no-stats", "--json", cwd=tmp_path).stdout)[0]
    assert quick["uses"]["stacks"]["ready"] == (kind != "short")
    assert "images" not in quick["facts"]


def test_a_stack_that_is_cut_off_or_none_is_not_ready_through_the_file_that_names_it(tmp_path):
    damaged(tmp_path, "cut", noise_images(12, 32), 12)
    with (tmp_path / "cut.mrcs").open("r+b") as file:
        file.truncate(1024 + 7 * 32 * 32 * 4 + 9)
    assert "has 7 images, and image 12 is referred to" in uses_of("cut.star", tmp_path)["stacks"]["reasons"][0]
    (tmp_path / "cut.mrcs").write_text("none" * 1000)
    assert "not an MRC file" in uses_of("cut.star", tmp_path)["cryolike"]["reasons"][0]


def test_a_large_file_is_judged_by_its_first_rows_when_its_folder_is_inspected(tmp_path, monkeypatch):
    monkeypatch.setattr("cryobridge.jobs.inspection.tables._LARGEST_JUDGED_BYTES", 4000)
    monkeypatch.setattr("cryobridge.jobs.inspection.tables._JUDGED_BYTES", 3000)
    folder = tmp_path / "Refine3D" / "job001"
    folder.mkdir(parents=True)
    star = damaged(tmp_path, "large", noise_images(12, 32), 12)
    lines = star.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if "@" in line)
    rows = [line for line in lines[first:] if line.strip()]
    text = "\n".join([*lines[:first], *(rows * 20)]) + "\n"
    (folder / "run_data.star").write_text(text)
    (folder / "run_model.star").write_text("data_model_general\n\n_rlnNrClasses 1\n")
    found = inspect(folder)
    assert found.is_ready("select")
    assert found.is_ready("relion")
    assert [note.code for note in found.notes] == ["judged-by-first-rows"]


def test_a_micrograph_is_no_stack_of_particles(tmp_path):
    for name, shape in (("one.mrc", (1, 64, 64)), ("movie.mrcs", (5, 48, 64))):
        save_mrc(tmp_path / name, np.random.default_rng(0).normal(size=shape).astype("f4"), 1.5)
        found = inspect(tmp_path / name)
        assert found.listed_uses == ()
        assert dict(found.facts)["pixel size"] == "1.5 Å"


def test_what_extract_takes_is_named_in_a_folder_of_picks(project):
    star = project / "relion" / "CtfFind" / "job003" / "micrographs_ctf.star"
    done = run("coords", project / "cryosparc" / "J4", star, "-o", project / "relion" / "Picks")
    assert done.returncode == 0, done.stderr
    shown = run("inspect", "relion/Picks", cwd=project).stdout
    assert "relion/Picks/autopick.star (RELION 4 and 5)" in shown
    assert "relion/Picks/coords_suffix_autopick.star (RELION 3.1)" in shown
    done = run("inspect", "relion/Picks/coords_suffix_autopick.star", cwd=project)
    assert "what RELION 3.1 knows picks by: it names CtfFind/job003/micrographs_ctf.star" in done.stderr


def test_an_unfinished_run_of_smaller_images_says_how_many_are_written(tmp_path):
    """The record has whole stacks; what was begun is seen in the folder."""
    damaged(tmp_path, "a", noise_images(12, 32), 12)
    assert run("stacks", "downsample", "a.star", "-D", "16", "-o", "small", cwd=tmp_path).returncode == 0
    record = json.loads((tmp_path / "small" / "job.json").read_text())
    record["status"], record["report"]["stacks"] = "interrupted", []
    (tmp_path / "small" / "job.json").write_text(json.dumps(record))
    whole = tmp_path / "small" / "particles.16.mrcs"
    whole.rename(tmp_path / "small" / ".particles.16.mrcs.part")
    with (tmp_path / "small" / ".particles.16.mrcs.part").open("r+b") as file:
        file.truncate(1024 + 5 * 16 * 16 * 4 + 100)
    shown = run("inspect", "small", cwd=tmp_path).stdout
    assert "0 of 1 stack is whole, of it 5 images are written; `cryobridge stacks downsample" in shown
