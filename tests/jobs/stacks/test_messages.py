from __future__ import annotations

import hashlib
import json
import shlex

import numpy as np
import pytest

from cryobridge.cryolike import convert_particle_stacks_from_paired_star_and_mrc_files
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.descriptor import ImageDescriptor, write_image_descriptor
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.stacks.inputs import indexed_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from helpers import noise_images, particle_columns, run, save_cs, save_mrc, save_star

OPTICS = {
    "rlnOpticsGroup": [1],
    "rlnVoltage": [300.0],
    "rlnSphericalAberration": [2.7],
    "rlnAmplitudeContrast": [0.1],
    "rlnImagePixelSize": [1.5],
    "rlnImageSize": [16],
}


def save_relion(path, names, **optics):
    n = len(names)
    defocus = optics.pop("defocus", 12000.0)
    star = save_star(path, "optics", OPTICS | optics)
    particles = save_star(
        path.with_suffix(".rows"),
        "particles",
        {
            "rlnImageName": names,
            "rlnOpticsGroup": [1] * n,
            "rlnDefocusU": [defocus] * n,
            "rlnDefocusV": [defocus] * n,
            "rlnDefocusAngle": [10.0] * n,
            "rlnAngleRot": [0.0] * n,
            "rlnAngleTilt": [0.0] * n,
            "rlnAnglePsi": [0.0] * n,
            "rlnOriginXAngst": [0.0] * n,
            "rlnOriginYAngst": [0.0] * n,
        },
    )
    star.write_text(star.read_text() + particles.read_text())
    particles.unlink()
    return star


@pytest.fixture
def stack(tmp_path):
    return save_mrc(tmp_path / "a.mrcs", noise_images(3, 16), 1.5)


DESCRIPTOR = ImageDescriptor.for_box(16, 1.5)
IMAGES = ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"]


def files_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".pt", ".npz", ".mrcs", ".star", ".pkl", ".cs"}
    }


# What metadata and images say against each other


@pytest.mark.parametrize(
    ("in_header_A", "note", "warning"),
    [
        (1.5, None, None),
        (1.512, None, None),
        (1.53, "the image files say pixels of 1.53 Å; 1.5 Å is taken", None),
        (3.0, None, "pixel size: J1_particles.cs says 1.5 Å, but the image files 3 Å; 1.5 Å is taken;"),
        (15.0, None, "says 1.5 Å, as if it were in nm, but the image files 15 Å"),
    ],
)
def test_a_pixel_size_that_image_files_say_otherwise_is_reported(in_header_A, note, warning, particles_cs, tmp_path):
    for name, n in (("a", 3), ("b", 4)):
        save_mrc(tmp_path / "J1" / "extract" / f"{name}.mrc", noise_images(n, 16), in_header_A)
    plan = plan_stacks(indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs)), StackOptions())
    assert [str(message) for message in plan.messages if message.code == "pixel-size-in-image-files"] == (
        [note] if note else []
    )
    (message,) = [str(message) for message in plan.messages if message.code == "pixel-size-contradicts"] or [None]
    assert warning is None if message is None else warning in message
    assert plan.descriptor.pixel_size_A[0] == pytest.approx(1.5)
    done = run("stacks", "downsample", particles_cs, "-D", 8, "-o", tmp_path / "small", "--dry-run", "--json")
    assert ("pixel-size-contradicts" in [message["code"] for message in json.loads(done.stdout)["warnings"]]) == (
        warning is not None
    )


@pytest.mark.parametrize("way", ["star", "paired", "downsample"])
def test_metadata_of_another_box_are_refused(way, stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES, rlnImageSize=[32])
    inputs = {"paired": ("paired", "--pair", star, stack), "downsample": ("downsample", star, "-D", 8)}
    done = run("stacks", *inputs.get(way, (way, star)), "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "the metadata are of images of 32 px, the image files have 16 px" in done.stderr
    assert "→ Give the metadata that were written for these images" in done.stderr
    assert not (tmp_path / "out").exists()


def test_where_the_parameter_file_stands_another_box_and_pixel_size_are_reported(stack, tmp_path):
    # CryoLike's paired mode: its ImageDescriptor says what the images are.
    star = save_relion(tmp_path / "p.star", IMAGES, rlnImageSize=[32], rlnImagePixelSize=[0.75])
    write_image_descriptor(tmp_path / "p.npz", DESCRIPTOR)
    words = ("stacks", "paired", "--pair", star, stack, "-p", tmp_path / "p.npz", "-o", tmp_path / "out", "--json")
    done = run(*words, "--dry-run")
    assert done.returncode == 0, done.stderr
    box, pixel_size = (message["text"] for message in json.loads(done.stdout)["warnings"])
    assert "the STAR file of a.mrcs says 32 px, but the images have 16 px" in box
    assert "p.star says 0.75 Å, but the parameter file 1.5 Å, which stands" in pixel_size
    assert json.loads(done.stdout)["pixel_size_A"] == 1.5


@pytest.mark.parametrize("words", [("star",), ("downsample", "-D", 8)], ids=lambda words: words[0])
def test_values_in_another_unit_are_reported(words, stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES, defocus=1.2)
    done = run("stacks", words[0], star, *words[1:], "-o", tmp_path / "out", "--dry-run")
    assert done.returncode == 0
    assert "! defocus: 1.2 looks like µm; Å expected (× 10,000)" in done.stderr


@pytest.mark.parametrize(("signs", "who"), [([-1] * 3, "particles"), ([-1, 1, 1], "1 of 3 particles"), ([1] * 3, None)])
def test_dark_particles_are_named_where_they_go(signs, who, stack, tmp_path):
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrcs"] * 3, range(3), **{"blob/sign": signs}))
    done = run("stacks", "downsample", path, "-D", 8, "-o", tmp_path / "out", "--dry-run", "--json")
    message = [
        message["text"] for message in json.loads(done.stdout)["warnings"] if message["code"] == "dark-particles"
    ]
    assert len(message) == (who is not None)
    if who:
        assert message == [f"{who} are dark (blob/sign -1), RELION and cryoDRGN take bright ones: add --invert"]
    for word, folder in ((), "as_they_are"), (("--invert",), "inverted"):
        done = run("stacks", "downsample", path, "-D", 16, "-o", tmp_path / folder, *word)
        assert done.returncode == 0, done.stderr
        assert ("are dark" in done.stderr, "become dark" in done.stderr) == (
            (bool(who) and not word),
            (who is None and bool(word)),
        )
    one, other = (open_mrc(tmp_path / name / "particles.16.mrcs") for name in ("as_they_are", "inverted"))
    is_inverted = np.array([sign < 0 or who is None for sign in signs])
    np.testing.assert_array_equal(other.images, np.where(is_inverted[:, None, None], -one.images, one.images))


def test_images_multiplied_by_their_ctf_are_warned_of(stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES, rlnCtfDataAreCtfPremultiplied=[1])
    for words in (("star",), ("downsample", "-D", 8)):
        done = run("stacks", words[0], star, *words[1:], "-o", tmp_path / "out", "--dry-run", "--json")
        assert done.returncode == 0, done.stderr
        assert "ctf-premultiplied" in {message["code"] for message in json.loads(done.stdout)["warnings"]}
    done = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "out")
    assert "_rlnCtfDataAreCtfPremultiplied" in (tmp_path / "out" / "particles.8.star").read_text()


# What can be given


@pytest.fixture
def job(particles_cs):
    """A job folder with its result group; the file and the group's name."""
    folder = particles_cs.parent
    (folder / "J1_particles.csg").write_text(
        "created: 2026-01-01\ngroup: {description: '', name: particles, title: '', type: particle}\n"
        "results:\n"
        + "".join(
            f"  {prefix}:\n    metafile: '>J1_particles.cs'\n    num_items: 5\n    type: particle.{prefix}\n"
            for prefix in ("blob", "ctf")
        )
        + "version: v4.5.1\n"
    )
    return particles_cs


@pytest.mark.parametrize(
    "words",
    [("stacks", "cs", "--no-plots"), ("stacks", "downsample", "-D", 8), ("select", "--where", "ctf/df1_A > 0")],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_group_and_a_job_folder_are_taken_for_their_particles(words, job, tmp_path):
    made = []
    for place, path in enumerate((job, job.with_suffix(".csg"), job.parent)):
        out = tmp_path / str(place)
        target = out / "p.cs" if words[0] == "select" else out
        done = run(*words[: 1 + (words[0] == "stacks")], path, *words[1 + (words[0] == "stacks") :], "-o", target)
        assert done.returncode == 0, done.stderr
        made.append(files_of(out))
    assert made[0]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("J1", 1), "this is a job's folder", "`cryobridge stacks job . 1`"),
        (("absent", 1), "there is no such folder", "FOLDER/J12 is read"),
        ((".", 7), "there is no J7 in it", "it has J1."),
        ((".", "one"), "'one' is no number of a job", "FOLDER/J12"),
        ((".", "J1"), "no J1_passthrough_particles.cs in this job", "`stacks cs` takes any other"),
    ],
)
def test_a_job_that_is_not_there_says_how_jobs_are_named(words, message, hint, job):
    done = run("stacks", "job", *words, "-o", "out", cwd=job.parent.parent)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert hint in done.stderr.partition("→")[2]


def test_files_that_list_no_particles_say_which_kind_is_needed(tmp_path):
    model = save_star(tmp_path / "run_it020_model.star", "model_classes", {"rlnReferenceImage": ["a", "b"]})
    columns = particle_columns(["a.mrc"] * 2, range(2))
    uids = save_cs(tmp_path / "alone" / "J4_passthrough_particles.cs", {"uid": columns["uid"]})
    for words, needed in (
        (("star", model), "Give a STAR file of particles with rlnImageName, rlnDefocusU, rlnVoltage"),
        (("downsample", model, "-D", 8), "Give a STAR file of particles with rlnImageName"),
        (("cs", uids), "Give a .cs file with blob/*, ctf/*"),
        (("downsample", uids, "-D", 8), "Give a .cs file with blob/*"),
    ):
        done = run("stacks", *words, "-o", tmp_path / "out")
        assert done.returncode == 1
        assert f"→ {needed}, such as " in done.stderr


def test_single_paths_stand_for_lists_of_one(stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES)
    params = tmp_path / "p.npz"
    write_image_descriptor(params, DESCRIPTOR)
    for number, (stacks, stars) in enumerate([(str(stack), str(star)), ([stack], [star])]):
        convert_particle_stacks_from_paired_star_and_mrc_files(
            params, stacks, stars, folder_output=tmp_path / str(number), flag_plots=False
        )
    assert files_of(tmp_path / "0") == files_of(tmp_path / "1")


@pytest.mark.parametrize("name", ["batch_size", "n_stacks_max", "downsample_factor", "n_inplanes"])
def test_parts_of_a_stack_are_refused(name):
    with pytest.raises(UsageError, match=rf"{name}: a whole number is needed, not 10\.5"):
        StackOptions(**{name: 10.5})
    StackOptions(**{name: np.int32(4)})


# Images that are not where they were


def test_images_of_a_renamed_job_are_found_by_the_remedy(particles_cs, tmp_path):
    (tmp_path / "J1" / "extract").rename(tmp_path / "extracted")
    with pytest.raises(MissingDataError, match=r"2 of 2 image files are missing: J1/extract/b\.mrc, J1/ex") as caught:
        plan_stacks(indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs)), StackOptions())
    assert f"datadir='{tmp_path / 'extracted'}'" in caught.value.hint
    refused = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", cwd=tmp_path)
    hint = refused.stderr.partition("→ Give ")[2]
    assert hint.startswith("--datadir ")
    words = shlex.split(hint.strip().removesuffix("."))
    done = run("stacks", "cs", particles_cs, *words, "-o", tmp_path / "out", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_only_where_some_images_are_there_the_others_may_be_left_out(particles_cs, tmp_path):
    (tmp_path / "J1" / "extract" / "a.mrc").unlink()
    words = ("stacks", "cs", particles_cs, "-o", tmp_path / "out")
    some = run(*words).stderr
    assert "1 of 2 image files is missing: J1/extract/a.mrc" in some
    assert "--on-missing skip" in some
    assert "Looked below" in some
    (tmp_path / "J1" / "extract" / "b.mrc").unlink()
    assert "--on-missing skip" not in run(*words).stderr


def test_many_missing_names_take_two_lines_of_a_terminal(tmp_path):
    names = [
        f"J3/extract/{number:021d}_grid2_micrograph_that_has_a_very_long_name_doseweighted.mrc" for number in range(9)
    ]
    path = save_cs(tmp_path / "p.cs", particle_columns(names, [0] * 9))
    done = run("stacks", "cs", path, "-o", tmp_path / "out")
    assert "9 of 9 image files are missing: J3/extract/000000000000000000000_grid2" in done.stderr
    assert "and 8 more" in done.stderr


@pytest.mark.parametrize(("option", "what"), [("--datadir", "does not exist"), ("--folder-mrc", "is no folder")])
def test_a_folder_that_is_none_is_reported(option, what, particles_cs, tmp_path):
    (tmp_path / "file").touch()
    folder = "absent" if "exist" in what else "file"
    done = run("stacks", "cs", particles_cs, option, folder, "-o", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{option} {folder} {what}" in done.stderr


def test_a_prefix_that_no_name_has_is_reported(particles_cs, tmp_path):
    (tmp_path / "J1" / "extract").rename(tmp_path / "gone")
    for path in (tmp_path / "gone").iterdir():
        path.unlink()
    done = run("stacks", "cs", particles_cs, "--strip-prefix", "J9", "-o", tmp_path / "out")
    assert "None of the names starts with --strip-prefix J9." in done.stderr


@pytest.mark.parametrize("words", [("cs",), ("downsample", "-D", 8)], ids=lambda words: words[0])
def test_a_device_that_is_not_there_is_reported_before_anything_is_written(words, particles_cs, tmp_path):
    for more in ((), ("--dry-run",)):
        command = ("stacks", words[0], particles_cs, *words[1:], "-o", tmp_path / "out", "--device", "cuda:99", *more)
        done = run(*command)
        assert done.returncode == 2
        assert "--device cuda:99: torch finds " in done.stderr
        assert "→ Use --device auto or cpu" in done.stderr
        assert not (tmp_path / "out").exists()


def test_skipping_all_images_says_where_they_may_be(particles_cs, tmp_path):
    (tmp_path / "J1" / "extract").rename(tmp_path / "extracted")
    message = [
        run("stacks", "cs", particles_cs, "-o", tmp_path / "out", *words).stderr
        for words in ((), ("--on-missing", "skip"))
    ]
    assert message[0] == message[1]


@pytest.mark.parametrize("words", [("--quiet",), ("--json",), ("--quiet", "--json")], ids=" ".join)
def test_warnings_are_never_hidden(words, stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES, defocus=1.2)
    warning = "! defocus: 1.2 looks like µm; Å expected (× 10,000)\n"
    for number, job in enumerate((("stacks", "star"), ("stacks", "downsample", "-D", 8), ("convert",))):
        name, options = job[: 1 + (job[0] == "stacks")], job[2:]
        out = tmp_path / (f"{number}.cs" if job[0] == "convert" else str(number))
        done = run(*name, star, *options, "-o", out, "--dry-run", *words)
        assert done.returncode == 0, done.stderr
        assert warning in done.stderr
        if "--json" in words:
            assert any("µm" in message["text"] for message in json.loads(done.stdout)["warnings"])


def test_a_grid_of_pixels_in_nanometres_is_reported(tmp_path):
    words = ("stacks", "grid", "--n-pixels", 96, "-o", tmp_path / "p.npz", "--overwrite")
    assert "looks like nm; Å expected" in run(*words, "--pixel-size", 0.15).stderr
    assert run(*words, "--pixel-size", 1.5).stderr == ""


def test_a_box_that_is_not_known_contradicts_nothing(stack, tmp_path):
    star = save_relion(tmp_path / "p.star", IMAGES, rlnImageSize=[0])
    done = run("stacks", "star", star, "-o", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_paths_that_are_none_are_refused(tmp_path):
    with pytest.raises(CryobridgeError):
        convert_particle_stacks_from_paired_star_and_mrc_files(None, "A.star", [])


def test_aberrations_have_no_place_in_stacks_and_that_is_warned_of(stack, tmp_path):
    for optics, said in (({}, []), ({"rlnBeamTiltX": [0.5], "rlnBeamTiltY": [0.0]}, ["aberrations-dropped"])):
        star = save_relion(tmp_path / "p.star", IMAGES, **optics)
        plan = plan_stacks(indexed_input(read_particles_star(star), ImageSearch(star)), StackOptions())
        assert [item.code for item in plan.messages if "aberration" in item.code] == said


def test_names_that_are_no_utf8_are_carried_or_refused_with_one_message(tmp_path):
    folder = tmp_path / "n\udcff"
    folder.mkdir()
    save_mrc(folder / "a.mrcs", noise_images(4, 16), 1.5)
    save_cs(folder / "a.cs", particle_columns([">a.mrcs"] * 4, range(4)))
    done = run("stacks", "cs", folder / "a.cs", "-o", folder / "out", "--no-plots")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out" / "job.json").read_text())["status"] == "completed"
    done = run("stacks", "downsample", folder / "a.mrcs", "-D", 8, "-o", tmp_path / "small")
    assert done.returncode == 1
    assert "is not UTF-8 text, which is needed" in " ".join(done.stderr.split())
    assert "mistake" not in done.stderr
    done = run("convert", folder / "a.mrcs", folder / "a.cs", "-o", folder / "b.star")
    assert (done.returncode, "mistake" in done.stderr) == (2, False)
