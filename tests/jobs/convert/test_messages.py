"""What `convert` says before its output is trusted: what is missing, guessed, contradictory or not where it was."""

import json
import re

import numpy as np
import pytest

from cryobridge.errors import FormatError, MissingDataError, OutputExistsError, UsageError
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.pickles import write_indices
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.convert.convert import check_outputs, convert
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.selection.choose import select_files
from cryobridge.jobs.selection.options import SelectOptions
from cryobridge.jobs.selection.plan import plan_select
from helpers import (
    noise_images,
    particle_columns,
    run,
    run_in_terminal,
    save_cs,
    save_mrc,
    save_star,
    texts,
    without_escapes,
)
from relion_grammar import read_block

N = 6
LOCATION = ("location/micrograph_path", "location/micrograph_shape", "location/center_x_frac", "location/center_y_frac")


def refined(**changes):
    columns = particle_columns(["J1/extract/a.mrcs"] * N, range(N))
    columns |= {
        "blob/sign": np.full(N, 1, "f4"),
        "alignments3D/pose": np.linspace(-2, 2, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.zeros((N, 2), "f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
        "alignments3D/class": np.array([0, 0, 1, 1, 3, 3], "u4"),
    }
    return {**columns, **changes}


def located(**changes):
    return {
        "uid": np.arange(N, dtype="u8") + 2**63,
        "location/micrograph_path": np.array(["J2/a.mrc"] * N),
        "location/micrograph_shape": np.tile(np.array([400, 600], "u4"), (N, 1)),
        "location/center_x_frac": np.linspace(0.1, 0.6, N, dtype="f4"),
        "location/center_y_frac": np.linspace(0.2, 0.9, N, dtype="f4"),
        **changes,
    }


def star_columns(n=N, **changes):
    columns = {
        "rlnImageName": [f"{row + 1:06d}@Extract/a.mrcs" for row in range(n)],
        "rlnVoltage": [300] * n,
        "rlnSphericalAberration": [2.7] * n,
        "rlnAmplitudeContrast": [0.1] * n,
        "rlnImagePixelSize": [1.5] * n,
        "rlnImageSize": [128] * n,
        "rlnDefocusU": [12000 + row for row in range(n)],
        "rlnDefocusV": [11000 + row for row in range(n)],
        "rlnDefocusAngle": [30] * n,
    }
    return {**columns, **changes}


@pytest.fixture(autouse=True)
def stack(tmp_path):
    """The images of `refined`, where the names lead from every output here."""
    return save_mrc(tmp_path / "J1" / "extract" / "a.mrcs", noise_images(N, 16), 1.5)


def labels(path):
    return read_block(path.read_text(), "particles")[0]


@pytest.fixture
def job(tmp_path):
    """Two iterations and their passthrough file; the poses of the older one are others."""
    older = refined(**{"alignments3D/pose": np.full((N, 3), 0.5, "f4")})
    save_cs(tmp_path / "J5" / "J5_002_particles.cs", older)
    save_cs(tmp_path / "J5" / "J5_003_particles.cs", refined())
    save_cs(tmp_path / "J5" / "J5_passthrough_particles.cs", located())
    return tmp_path / "J5"


# --- contrast -------------------------------------------------------------------------------------------------------


def test_dark_particles_are_named_where_they_go(tmp_path):
    dark = save_cs(tmp_path / "negative.cs", refined(**{"blob/sign": np.full(N, -1, "f4")}))
    (message,) = [message for message in texts(convert(dark, tmp_path / "a.star").warnings) if "dark" in message]
    assert message == "particles are dark (blob/sign -1): add link_stacks='DIR' copy=True invert=True"
    shown = run("convert", dark, "-o", tmp_path / "e.star").stderr
    (line,) = [line for line in shown.splitlines() if "dark" in line]
    assert line.endswith(": add --link-stacks DIR --copy --invert") and len(line) <= 80
    (message,) = texts(convert(dark, tmp_path / "p", to="pickles").warnings)
    assert "cryoDRGN needs --uninvert-data" in message
    assert not any("dark" in message for message in texts(convert(dark, tmp_path / "b.cs").warnings))
    assert set(np.load(tmp_path / "b.cs")["blob/sign"]) == {-1}
    some = save_cs(tmp_path / "some.cs", refined(**{"blob/sign": np.array([1, 1, -1, 1, -1, 1], "f4")}))
    message = texts(convert(some, tmp_path / "c.star", to="star", classes=(1,)).warnings)
    assert any(text.startswith("1 of 2 particles are dark") for text in message)
    bright = save_cs(tmp_path / "bright.cs", refined())
    assert not any("dark" in message for message in texts(convert(bright, tmp_path / "d.star").warnings))


def test_the_sign_survives_the_way_to_relion_and_back(tmp_path):
    dark = save_cs(tmp_path / "negative.cs", refined(**{"blob/sign": np.full(N, -1, "f4")}))
    convert(dark, tmp_path / "a.star")
    result = run("convert", tmp_path / "a.star", "-o", tmp_path / "back.cs", "--contrast", "dark", "--json")
    assert result.returncode == 0, result.stderr
    assert set(np.load(tmp_path / "back.cs")["blob/sign"]) == {-1}
    assert not any("--contrast" in message for message in texts(json.loads(result.stdout)["warnings"]))
    for contrast, sign in (("bright", 1), (None, 1)):
        report = convert(tmp_path / "a.star", tmp_path / "c.cs", to="cs", contrast=contrast, overwrite=True)
        assert set(np.load(tmp_path / "c.cs")["blob/sign"]) == {sign}
        # A guess is told of, an answer is not.
        assert any("contrast='dark'" in message for message in texts(report.warnings)) == (contrast is None)


def test_the_contrast_is_asked_for_only_where_no_file_says(tmp_path):
    with pytest.raises(UsageError, match="files without it"):
        convert(save_cs(tmp_path / "a.cs", refined()), tmp_path / "b.cs", to="cs", contrast="dark")
    with pytest.raises(UsageError, match="contrast= would do nothing"):
        convert(tmp_path / "a.cs", tmp_path / "b.star", to="star", contrast="dark")
    without = {name: values for name, values in refined().items() if name != "blob/sign"}
    report = convert(save_cs(tmp_path / "c.cs", without), tmp_path / "d.cs")
    assert any("contrast='dark'" in message for message in texts(report.warnings))


SIGNS = np.array([-1, -1, 1, -1, 1, -1], "f4")


@pytest.mark.parametrize("signs", [np.full(N, -1, "f4"), SIGNS, np.ones(N, "f4")], ids=["dark", "mixed", "bright"])
def test_inverted_copies_are_bright(signs, tmp_path):
    images = noise_images(N, 16)
    save_mrc(tmp_path / "J1" / "extract" / "000000000000000000007_a.mrc", images, 3.0)
    source = save_cs(tmp_path / "a.cs", refined(**{"blob/sign": signs}))
    asked = {"datadir": tmp_path, "copy": True, "invert": True, "verify": True}
    for name in ("b.star", "b.cs"):
        folder = tmp_path / f"copies_of_{name}"
        report = convert(source, tmp_path / name, link_stacks=folder, **asked)
        # Images that are bright are kept, unless all are said to be.
        is_inverted = signs < 0 if (signs < 0).any() else np.ones(N, bool)
        (copy,) = folder.rglob("*.mrcs")
        single = images.astype("f4")
        np.testing.assert_array_equal(open_mrc(copy).images, np.where(is_inverted[:, None, None], -single, single))
        becomes_dark = not (signs < 0).any()
        assert any("become dark" in str(message) for message in report.warnings) == (becomes_dark and name == "b.star")
        assert not any("are dark" in str(message) for message in report.warnings)
    assert set(np.load(tmp_path / "b.cs")["blob/sign"]) == ({-1} if becomes_dark else {1})


def test_inverting_is_for_copies_and_never_of_the_stack_itself(tmp_path):
    stack = tmp_path / "J1" / "extract" / "a.mrcs"
    save_mrc(stack, noise_images(N, 16), 3.0)
    names = np.array(["J1/extract/a.mrcs"] * N)
    source = save_cs(tmp_path / "a.cs", refined(**{"blob/path": names, "blob/sign": np.full(N, -1, "f4")}))
    result = run("convert", source, "-o", tmp_path / "b.star", "--invert")
    assert result.returncode == 2
    assert "Add --link-stacks DIR --copy" in " ".join(result.stderr.split())
    before = stack.read_bytes()
    with pytest.raises(UsageError, match="the stack itself is there"):
        convert(source, tmp_path / "b.star", link_stacks=tmp_path, copy=True, invert=True, overwrite=True)
    assert stack.read_bytes() == before
    # A link to it that an earlier run made is replaced by a copy.
    convert(source, tmp_path / "b.star", link_stacks=tmp_path / "s")
    convert(source, tmp_path / "b.star", link_stacks=tmp_path / "s", copy=True, invert=True, overwrite=True)
    (copy,) = (tmp_path / "s").rglob("*.mrcs")
    assert not copy.is_symlink()
    np.testing.assert_array_equal(open_mrc(copy).images, -open_mrc(stack).images)
    assert stack.read_bytes() == before


def test_an_image_that_is_dark_and_bright_is_refused(tmp_path):
    save_mrc(tmp_path / "J1" / "extract" / "000000000000000000007_a.mrc", noise_images(N, 16), 3.0)
    twice = {"blob/idx": np.array([0, 1, 2, 3, 0, 5], "u4"), "blob/sign": SIGNS}
    source = save_cs(tmp_path / "a.cs", refined(**twice))
    with pytest.raises(FormatError, match="row 0, 4: one image is said to be dark and bright"):
        convert(source, tmp_path / "b.star", link_stacks=tmp_path / "s", copy=True, invert=True, datadir=tmp_path)


# --- files that go together -----------------------------------------------------------------------------------------


def test_of_two_iterations_neither_is_taken_in_silence(job, tmp_path):
    older, newer = job / "J5_002_particles.cs", job / "J5_003_particles.cs"
    for pair in ((older, newer), (newer, older), (newer, newer)):
        with pytest.raises(UsageError, match="of two iterations or results only one can be taken"):
            convert(pair, tmp_path / "a.star")
    with pytest.raises(UsageError, match="only one can be taken"):
        convert(sorted(job.iterdir()), tmp_path / "a.star")


def test_a_passthrough_file_that_is_not_needed_does_no_harm(job, tmp_path):
    whole = save_cs(tmp_path / "whole.cs", {**refined(), **located()})
    assert convert([whole, job / "J5_passthrough_particles.cs"], tmp_path / "a.star").warnings == ()


def test_values_that_two_files_disagree_in_are_reported(job, tmp_path):
    # Another result that brings a column of its own, but other poses too.
    other = {**refined(**{"alignments3D/pose": np.full((N, 3), 0.5, "f4")}), "ctf/scale": np.ones(N, "f4")}
    report = convert([job / "J5_003_particles.cs", save_cs(tmp_path / "other.cs", other)], tmp_path / "a.star")
    (message,) = [message for message in texts(report.warnings) if "other values" in message]
    first = "J5_003_particles.cs"
    assert message == f"other.cs has other values than {first} in alignments3D/pose: those of {first} are taken"
    # The passthrough file that belongs to the main file is joined all the same.
    assert "rlnMicrographName" in labels(tmp_path / "a.star")
    assert str(job / "J5_passthrough_particles.cs") in texts(report.inputs)


def test_a_passthrough_file_alone_says_which_particles_were_taken(job, tmp_path):
    report = convert(job / "J5_passthrough_particles.cs", tmp_path / "a.star")
    message = "J5_passthrough_particles.cs is a passthrough file: the particles are those of J5_003_particles.cs"
    assert any(note.startswith(message) for note in texts(report.notes))
    assert texts(report.inputs)[0].endswith("J5_003_particles.cs")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("J5_003_particles.cs", "J5_passthrough_particles.cs"),
        ("cryosparc_P12_J24_001_particles.cs", "cryosparc_P12_J24_passthrough_particles.cs"),
        ("J7_class_01_00863_particles.cs", "J7_passthrough_particles_class_1.cs"),
        ("mine.cs", "passthrough_mine.cs"),
        ("mine.cs", "mine_passthrough.cs"),
        ("J5_003_particles.cs", "J5_003_particles_passthrough.cs"),
    ],
)
def test_without_a_passthrough_file_what_is_missing_is_reported_and_what_was_looked_for(tmp_path, name, expected):
    path = save_cs(tmp_path / "alone" / name, refined())
    (message,) = texts(convert(path, tmp_path / "a.star").warnings)
    assert "no micrographs and coordinates" in message
    assert re.search(rf"neither (\S+ nor )?{re.escape(expected)}( nor \S+)? lies beside {re.escape(name)}; ", message)
    # The file of that name is the one that is found.
    save_cs(path.with_name(expected), located())
    assert convert(path, tmp_path / "b.star").warnings == ()


def test_a_subset_is_converted_with_what_select_wrote_beside_it(job, tmp_path):
    select_files(job / "J5_003_particles.cs", tmp_path / "q" / "a.cs", where="uid > 0")
    (tmp_path / "q" / "a.csg").unlink()
    for name in ("a.cs", "a_passthrough.cs"):
        report = convert(tmp_path / "q" / name, tmp_path / f"{name}.star")
        assert texts(report.inputs) == [str(tmp_path / "q" / "a.cs"), str(tmp_path / "q" / "a_passthrough.cs")]
        assert "rlnCoordinateX" in labels(tmp_path / f"{name}.star")
    # Without the group select finds it too.
    plan = plan_select(tmp_path / "q" / "a.cs", tmp_path / "r" / "b.cs", SelectOptions(where="uid > 0"))
    assert tmp_path / "r" / "b_passthrough.cs" in plan.outputs()


def test_a_file_beside_it_that_does_not_fit_is_the_reason(job, tmp_path):
    save_cs(job / "J5_passthrough_particles.cs", located(uid=np.arange(N, dtype="u8")))
    (message,) = texts(convert(job / "J5_003_particles.cs", tmp_path / "a.star").warnings)
    assert "J5_passthrough_particles.cs beside it has none of its uids" in message


# --- where particles lie --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "zero",
    [
        {"location/micrograph_shape": np.zeros((N, 2), "u4")},
        {"location/center_x_frac": np.zeros(N, "f4")},
        {"location/center_x_frac": np.zeros(N, "f4"), "location/center_y_frac": np.zeros(N, "f4")},
    ],
)
def test_locations_of_zero_are_no_places(tmp_path, zero):
    path = save_cs(tmp_path / "a.cs", {**refined(), **located(**zero)})
    report = convert(path, tmp_path / "a.star")
    assert any("no micrographs and coordinates" in message and "zero" in message for message in texts(report.warnings))
    assert not {"rlnCoordinateX", "rlnMicrographName"} & set(labels(tmp_path / "a.star"))
    assert "nan" not in (tmp_path / "a.star").read_text()
    # cryoSPARC's own columns stay as they are in a .cs file.
    convert(path, tmp_path / "b.cs")
    for name in LOCATION:
        assert np.load(tmp_path / "b.cs")[name].tolist() == np.load(path)[name].tolist()
    assert read_particles_cs(path).locations is None


@pytest.mark.filterwarnings("error")
def test_some_micrographs_without_a_size_are_refused(tmp_path):
    shape = located()["location/micrograph_shape"].copy()
    shape[2:4] = 0
    path = save_cs(tmp_path / "a.cs", {**refined(), **located(**{"location/micrograph_shape": shape})})
    for output in ("a.star", "b.cs"):
        with pytest.raises(MissingDataError, match="row 2, 3: the micrograph's size is 0"):
            convert(path, tmp_path / output)
    assert convert(path, tmp_path / "p", to="pickles").rows_out == N


# --- values that can't be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "where"),
    [
        ("alignments3D/pose", {3: (np.nan, 0, 0)}, "1e9 > alignments3D/pose[0] > -1e9"),
        (
            "alignments3D/shift",
            {1: (0, -np.inf), 2: (np.nan, 0)},
            "1e9 > alignments3D/shift[0] > -1e9 and 1e9 > alignments3D/shift[1] > -1e9",
        ),
        ("ctf/df1_A", {3: np.inf}, "1e9 > ctf/df1_A > -1e9"),
        ("location/center_y_frac", {0: np.nan, 3: np.nan}, "1e9 > location/center_y_frac > -1e9"),
    ],
)
def test_what_the_hint_says_leaves_out_rows_that_are_no_numbers(name, changes, where, tmp_path):
    columns = refined(**{column: values for column, values in located().items() if column != "uid"})
    for row, value in changes.items():
        columns[name][row] = value
    path = save_cs(tmp_path / "a.cs", columns)
    with pytest.raises(FormatError, match="not a number, or infinite") as caught:
        convert(path, tmp_path / "p.star")
    assert (caught.value.field, caught.value.rows) == (name, tuple(changes))
    assert f"`cryobridge select` (where='{where}')" in caught.value.hint
    select_files(path, tmp_path / "b.cs", where=where)
    assert convert(tmp_path / "b.cs", tmp_path / "p.star").rows_out == N - len(changes)


@pytest.mark.parametrize("output", ["p.star", "p.cs", "p"])
def test_repeated_uids_are_reported(output, tmp_path):
    uid = refined()["uid"]
    uid[[2, 5]] = uid[0]
    path = save_cs(tmp_path / "a.cs", refined(uid=uid))
    report = convert(path, tmp_path / output, to=output[2:] or "pickles")
    text = "2 of 6 rows repeat another row's uid, by which cryoSPARC tells them apart"
    assert text in texts(report.warnings)
    if output != "p":
        chosen = convert(path, tmp_path / output, to=output[2:], classes=(3,), overwrite=True)
        assert text not in texts(chosen.warnings)


@pytest.mark.parametrize("options", [{"to": "cs"}, {"to": "pickles"}, {"relion": "3.0"}, {}])
def test_optics_that_particles_contradict_are_reported_and_not_said_to_have_no_place(options, tmp_path):
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    rows = star_columns(rlnVoltage=[200] * N, rlnOpticsGroup=[1] * N)
    text = save_star(tmp_path / "optics.star", "optics", optics | {"rlnImagePixelSize": [1.5], "rlnImageSize": [128]})
    star = tmp_path / "a.star"
    star.write_text(text.read_text() + save_star(tmp_path / "rows.star", "particles", rows).read_text())
    output = {"cs": "p.cs", "pickles": "p"}.get(options.get("to"), "p.star")
    report = convert(star, tmp_path / output, **options)
    said = "rlnVoltage of the particles differ from the optics table, whose values are taken"
    assert said in texts(report.warnings)
    assert "rlnVoltage" not in report.dropped_columns


def test_all_values_of_optics_that_particles_contradict_are_named(tmp_path):
    optics = {"rlnOpticsGroup": [1], "rlnVoltage": [300], "rlnSphericalAberration": [2.7]}
    optics |= {"rlnAmplitudeContrast": [0.1], "rlnImagePixelSize": [1.5], "rlnImageSize": [128]}
    optics |= {"rlnBeamTiltX": [0.5], "rlnMtfFileName": ["a.star"], "rlnBeamTiltY": [0.0]}
    rows = star_columns(rlnOpticsGroup=[1] * N, rlnBeamTiltX=[0.9] * N, rlnMtfFileName=["b.star"] * N)
    rows |= {"rlnBeamTiltY": [0.0] * N, "rlnMagnification": [10000] * N, "rlnDetectorPixelSize": [5.0] * N}
    text = save_star(tmp_path / "optics.star", "optics", optics).read_text()
    (tmp_path / "a.star").write_text(text + save_star(tmp_path / "rows.star", "particles", rows).read_text())
    said = "rlnBeamTiltX, rlnMtfFileName, rlnMagnification, rlnDetectorPixelSize of the particles differ from the"
    for output, options in (("p.cs", {}), ("p.star", {"relion": "3.0"}), ("q.star", {})):
        messages = texts(convert(tmp_path / "a.star", tmp_path / output, **options).warnings)
        assert any(message.startswith(said) for message in messages)


def test_poses_alone_become_pickles_where_the_amplitude_contrast_is_unknown(tmp_path):
    rows = star_columns(rlnOpticsGroup=[1] * N, rlnAngleRot=[1.0] * N, rlnAngleTilt=[2.0] * N, rlnAnglePsi=[3.0] * N)
    del rows["rlnAmplitudeContrast"]
    star = save_star(tmp_path / "a.star", "particles", rows)
    report = convert(star, tmp_path / "p", to="pickles", verify=True)
    assert [path.name for path in report.outputs] == ["poses.pkl"]
    said = "ctf.pkl is left out: no amplitude contrast is known; amplitude_contrast='X' would make it"
    assert said in texts(report.warnings)
    report = convert(star, tmp_path / "q", to="pickles", amplitude_contrast=0.1)
    assert [path.name for path in report.outputs] == ["poses.pkl", "ctf.pkl"]


# --- units, names, classes ------------------------------------------------------------------------------------------


def test_values_in_another_unit_are_reported(tmp_path):
    micrometres = {"rlnDefocusU": [1.2] * N, "rlnDefocusV": [1.1] * N}
    star = save_star(tmp_path / "um.star", "", star_columns(**micrometres))
    for output, options in (("a.cs", {}), ("a.star", {}), ("p", {"to": "pickles"})):
        report = convert(star, tmp_path / output, **options)
        assert any("defocus: 1.2 looks like µm" in message for message in texts(report.warnings))
    nanometres = save_star(tmp_path / "nm.star", "", star_columns(rlnImagePixelSize=[0.15] * N))
    assert any("looks like nm" in message for message in texts(convert(nanometres, tmp_path / "b.cs").warnings))
    right = save_star(tmp_path / "A.star", "", star_columns())
    assert not any("looks like" in message for message in texts(convert(right, tmp_path / "c.cs").warnings))


def test_names_that_lead_nowhere_from_the_output_are_reported(tmp_path):
    star = save_star(tmp_path / "relion" / "p.star", "", star_columns())
    save_mrc(tmp_path / "relion" / "Extract" / "a.mrcs", noise_images(N, 128), 1.5)
    near = convert(star, tmp_path / "relion" / "Import" / "near.star")
    assert near.warnings == ()
    far = convert(star, tmp_path / "far" / "p.star")
    remedy = f"images are found with datadir='{tmp_path / 'relion'}'"
    assert any(message.endswith(remedy) for message in texts(far.warnings))


@pytest.mark.parametrize("words", [["convert", "-o", "a.star"], ["select", "--random", "3", "-o", "s.cs"]])
def test_stacks_that_are_nowhere_are_named_once_with_what_finds_them(job, stack, tmp_path, words):
    def warnings():
        command = [words[0], "J5/J5_003_particles.cs", *words[1:], "--overwrite", "--json"]
        return texts(json.loads(run(*command, cwd=tmp_path).stdout)["warnings"])

    assert warnings() == []
    (tmp_path / "J1").rename(tmp_path / "J1 old")
    assert warnings() == [
        "1 of 1 stack is not found: commands that read images need --datadir 'J1 old' --strip-prefix J1"
    ]
    (tmp_path / "J1 old" / "extract" / "a.mrcs").unlink()
    (message,) = warnings()
    assert message.startswith("1 of 1 stack is not found below the working directory, J5 and the folders above it: ")


def test_an_absolute_input_has_an_absolute_remedy(tmp_path):
    star = save_star(tmp_path / "relion" / "p.star", "", star_columns())
    save_mrc(tmp_path / "relion" / "Extract" / "a.mrcs", noise_images(N, 16), 1.5)
    (tmp_path / "far").mkdir()
    for given, remedy in ((star, tmp_path / "relion"), ("../relion/p.star", "../relion")):
        report = json.loads(run("convert", given, "-o", "p.star", "--overwrite", "--json", cwd=tmp_path / "far").stdout)
        assert texts(report["warnings"])[-1].endswith(f"--datadir {remedy}")


def test_a_choice_of_rows_that_no_longer_goes_is_removed_with_the_old_pickles(job, tmp_path):
    whole, folder = job / "J5_003_particles.cs", tmp_path / "p"
    convert(whole, folder, to="pickles", classes=(1,))
    chosen = folder / "ind.pkl"
    assert chosen.is_file()
    for path in (folder / "poses.pkl", folder / "ctf.pkl"):
        path.unlink()
    with pytest.raises(OutputExistsError, match=r"ind\.pkl"):
        convert(whole, folder, to="pickles")
    with pytest.raises(OutputExistsError, match=r"ind\.pkl"):
        check_outputs(plan_convert(whole, folder, ConvertOptions(to="pickles")), overwrite=False)
    report = convert(whole, folder, to="pickles", overwrite=True)
    assert f"{chosen} is of another choice of rows: overwrite=True removes it" in texts(report.notes)
    assert sorted(path.name for path in folder.iterdir()) == ["ctf.pkl", "poses.pkl"]
    assert not any("ind.pkl" in message for message in texts(convert(whole, tmp_path / "q", to="pickles").notes))


def test_an_input_is_not_removed_as_an_old_choice_of_rows(tmp_path, job):
    source, mine = tmp_path / "p", tmp_path / "mine"
    convert(job / "J5_003_particles.cs", source, to="pickles")
    mine.mkdir()
    write_indices(mine / "ind.pkl", np.arange(N))
    given = [tmp_path / "J1" / "extract" / "a.mrcs", source / "poses.pkl", source / "ctf.pkl", mine / "ind.pkl"]
    with pytest.raises(UsageError, match="one of the inputs"):
        convert(given, mine, to="pickles", overwrite=True)
    assert (mine / "ind.pkl").is_file()


def test_half_sets_that_neither_program_has_are_left_out_with_a_warning(tmp_path):
    poses = {"rlnAngleRot": [1.0] * N, "rlnAngleTilt": [50.0] * N, "rlnAnglePsi": [3.0] * N}
    star = save_star(tmp_path / "a.star", "", star_columns(**poses, rlnRandomSubset=[1, 2, 3, 4, 4, 0]))
    for name in ("a.cs", "c.star"):
        report = convert(star, tmp_path / name, verify=True)
        assert report.rows_out == N
        (message,) = [message for message in report.warnings if message.code == "half-sets-left-out"]
        assert "left out" in str(message)
    assert np.load(tmp_path / "a.cs")["alignments3D/split"].tolist() == [0] * N
    assert read_particles_star(tmp_path / "c.star").half_set is None


def test_what_belongs_to_poses_is_named_where_there_are_none(tmp_path):
    columns = star_columns(rlnRandomSubset=[1, 2] * 3, rlnClassNumber=[1, 2] * 3)
    result = run("convert", save_star(tmp_path / "a.star", "", columns), "-o", tmp_path / "a.cs")
    assert "rlnClassNumber, rlnRandomSubset" in " ".join(result.stdout.split())
    assert "poses from" not in result.stdout


@pytest.mark.parametrize("output", ["a.cs", "a.star", "p"])
def test_the_microscope_must_be_known_in_every_direction(tmp_path, output):
    lens = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    star = save_star(tmp_path / "in.star", "", {k: v for k, v in star_columns().items() if k not in lens})
    target = "pickles" if output == "p" else output[2:]
    with pytest.raises(MissingDataError, match="spherical aberration and amplitude contrast are missing") as caught:
        convert(star, tmp_path / output, to=target)
    assert caught.value.hint.startswith("Give voltage_kV='X', spherical_aberration_mm='X', amplitude_contrast='X',")
    lens = {"voltage_kV": 300, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.1}
    assert convert(star, tmp_path / output, to=target, **lens).rows_out == N


def test_particles_that_have_no_ctf_yet_go_from_cs_to_cs(tmp_path):
    plain = {name: values for name, values in refined().items() if not name.startswith("ctf/")}
    assert convert(save_cs(tmp_path / "a.cs", plain), tmp_path / "b.cs").rows_out == N


def test_shifts_that_are_not_known_are_reported(tmp_path):
    poses = {"rlnAngleRot": [1.0] * N, "rlnAngleTilt": [50.0] * N, "rlnAnglePsi": [3.0] * N}
    shifts = {"rlnOriginXAngst": [1.0] * N, "rlnOriginYAngst": [2.0] * N}
    for columns, is_told in ((star_columns(**poses), True), (star_columns(**poses, **shifts), False)):
        star = save_star(tmp_path / "a.star", "", columns)
        for output, target in (("a.cs", "cs"), ("p", "pickles")):
            report = convert(star, tmp_path / output, to=target, overwrite=True)
            assert ("no shifts are known; taken as 0" in texts(report.notes)) == is_told


def test_sizes_that_are_read_off_stacks_are_reported_once(tmp_path):
    without = {name: values for name, values in star_columns().items() if name != "rlnImageSize"}
    save_mrc(tmp_path / "Extract" / "a.mrcs", noise_images(N, 16), 1.5)
    star = save_star(tmp_path / "a.star", "", {**without, "rlnVoltage": [300, 200] * 3})
    (message,) = [message for message in texts(convert(star, tmp_path / "b.star").notes) if "the box of" in message]
    assert message == "the box of 2 optics groups is that of a.mrcs: 16 px"
    star = save_star(tmp_path / "c.star", "", without)
    (message,) = [message for message in texts(convert(star, tmp_path / "d.star").notes) if "the box of" in message]
    assert message == "the box of optics group opticsGroup0 is that of a.mrcs: 16 px"


def test_classes_are_written_as_in_select_and_absent_ones_are_reported(tmp_path):
    path = save_cs(tmp_path / "a.cs", refined())
    for words in (["--class", "0,3"], ["--class", "0", "--class", "3"]):
        result = run("convert", path, "-o", tmp_path / "a.star", *words, "--overwrite", "--json")
        assert json.loads(result.stdout)["rows_out"] == 4
        result = run("select", path, "-o", tmp_path / "s.cs", *words, "--overwrite", "--json")
        assert json.loads(result.stdout)["rows_out"] == 4
    result = run("convert", path, "-o", tmp_path / "b.star", "--class", "1-3")
    assert result.returncode == 0
    assert "! no particle is of class 2; those of the file: 0, 1, 3" in result.stderr
    for words, code, message in (
        (["--class", "7"], 1, "no particle is of class 7; those of the file: 0, 1, 3"),
        (["--class", "-1"], 2, "is no number from 0 on"),
        (["--class", "one"], 2, "is no number from 0 on"),
    ):
        result = run("convert", path, "-o", tmp_path / "c.star", *words)
        assert (result.returncode, message in result.stderr) == (code, True), result.stderr


# --- the command line -----------------------------------------------------------------------------------------------


def test_what_asks_for_action_is_marked_and_the_rest_is_dim(job, tmp_path):
    save_cs(job / "J5_003_particles.cs", refined(**{"blob/sign": np.full(N, -1, "f4")}))
    _, shown = run_in_terminal("convert", job, "-o", "a.star", cwd=tmp_path, columns=140)
    lines = shown.splitlines()
    marked = [without_escapes(line) for line in lines if "\x1b[1;33m! " in line]
    dim = [without_escapes(line) for line in lines if line.startswith("\x1b[2m")]
    assert any("are dark" in line for line in marked)
    assert any("joined on uid" in line for line in dim)
    assert not any("are dark" in line for line in dim)


def test_an_output_that_was_named_without_its_option_is_recognised(job, tmp_path):
    result = run("convert", job, "x.star", cwd=tmp_path)
    assert (result.returncode, "Did you mean -o x.star?" in result.stderr) == (2, True)
    result = run("convert", job, cwd=tmp_path)
    assert (result.returncode, "-o OUTPUT" in result.stderr) == (2, True)


def test_pickles_go_into_a_folder(job, tmp_path):
    result = run("convert", job / "J5_003_particles.cs", "--to", "pickles", "-o", "poses.pkl", cwd=tmp_path)
    assert (result.returncode, "Give a folder: -o poses," in result.stderr) == (2, True)
    assert not (tmp_path / "poses.pkl").exists()
    with pytest.raises(UsageError, match="no name of a folder"):
        convert(job / "J5_003_particles.cs", tmp_path / "poses.pkl", to="pickles")


@pytest.mark.parametrize(
    ("spelling", "comment"),
    [("3.0", None), ("3.1", "30001"), ("4", "30001"), ("4.0", "30001"), ("5", "50001"), ("5.0", "50001")],
)
def test_every_release_of_relion_is_known(job, tmp_path, spelling, comment):
    convert(job, tmp_path / "a.star", to="star", relion=spelling)
    text = (tmp_path / "a.star").read_text()
    assert ("data_optics" in text) == (comment is not None)
    assert comment is None or f"# version {comment}" in text
    result = run("convert", job, "-o", tmp_path / "b.star", "--relion", spelling)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "b.star").read_text() == text


# --- Python ---------------------------------------------------------------------------------------------------------


def test_paths_may_be_texts_one_or_several(job, tmp_path):
    main, passed, output = (str(job / f"J5_{name}particles.cs") for name in ("003_", "passthrough_", "x_"))
    expected = convert(job, tmp_path / "a.star").rows_out
    for given in (main, [main], (main, passed), str(job)):
        assert convert(given, str(tmp_path / "b.star"), overwrite=True).rows_out == expected
    assert plan_convert(main, output).target == "cs"
    report = convert(main, str(tmp_path / "c.star"), link_stacks=str(tmp_path / "links"), datadir=str(tmp_path))
    assert report.links == 1
    plan = plan_select(main, str(tmp_path / "s.cs"), SelectOptions(like=passed, passthroughs=passed))
    assert plan.report().rows_out == N


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convert(3, "a.star"), "inputs: a path is needed, not int"),
        (lambda: convert([], "a.star"), "no input"),
        (lambda: convert("a.cs", None), "output: a path is needed"),
        (lambda: convert("a.cs", "a.txt"), "does not say what to write"),
        (lambda: ConvertOptions(to="pickle"), "to: 'pickle' is none of star, cs, pickles"),
        (lambda: ConvertOptions(to="star", relion="3"), "relion: '3' is none of 3.0, 3.1, 4"),
        (lambda: ConvertOptions(to="star", datadir=1), "datadir: a path is needed"),
        (lambda: plan_select(b"a.star", 1, SelectOptions(classes=(1,))), "particles: a path is needed|output: a path"),
        (lambda: SelectOptions(kmeans=["a.pkl"]), "kmeans: a path is needed, not list"),
    ],
)
def test_what_is_no_path_or_choice_is_reported(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_an_output_that_is_there_is_reported_for_python_too(job, tmp_path):
    convert(job, tmp_path / "a.star")
    with pytest.raises(OutputExistsError) as caught:
        convert(job, tmp_path / "a.star")
    assert "overwrite=True" in caught.value.hint


def test_the_remedy_for_dark_particles_works_when_it_is_pasted(tmp_path):
    save_mrc(tmp_path / "J1" / "extract" / "a.mrcs", noise_images(N, 64), 1.5)
    save_cs(tmp_path / "J5" / "J5_001_particles.cs", refined(**{"blob/sign": np.full(N, -1, "f4")}))
    words, added = ["convert", "J5/J5_001_particles.cs", "-o", "a.star"], []
    for given in ([], ["--link-stacks", "links"], ["--link-stacks", "copies", "--copy"]):
        done = run(*words, *given, "--overwrite", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if "particles are dark" in line]
        added.append([*given, *line.partition(": add ")[2].replace("DIR", "anew").split()])
    for number, more in enumerate(added):
        done = run(*words[:-1], f"{number}.star", *more, "--overwrite", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "particles are dark" not in done.stderr


def test_a_folder_of_pickles_is_named_with_what_they_are_given_with(tmp_path):
    save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["1@a.mrcs"]})
    for name in ("poses.pkl", "ctf.pkl"):
        (tmp_path / "p" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / name).touch()
    done = run("convert", "p", "-o", "b.star", cwd=tmp_path)
    assert done.returncode == 2
    assert "p: this is a folder of pickles" in done.stderr
    assert "such as particles.mrcs p/poses.pkl p/ctf.pkl." in done.stderr
