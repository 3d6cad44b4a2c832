"""The options of `convert`, what inputs go together, what is refused, and what the command line prints."""

import json
import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from cryobridge.errors import CryobridgeError, FormatError, MissingDataError, OutputExistsError, UsageError
from cryobridge.jobs.convert import plan as plan_module
from cryobridge.jobs.convert.convert import ConvertJob, check_outputs, convert, write_plan
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.convert.report import require_equal, summary
from cryobridge.jobs.convert.verify import verify
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
MICROGRAPH = "J2/motioncorrected/000000000000000000042_mic_a.mrc"


def refined(**changes):
    columns = particle_columns(["J1/extract/000000000000000000007_a.mrc"] * N, range(N))
    columns |= {
        "alignments3D/pose": np.linspace(-2, 2, 3 * N).reshape(N, 3).astype("f4"),
        "alignments3D/shift": np.linspace(-3, 3, 2 * N).reshape(N, 2).astype("f4"),
        "alignments3D/psize_A": np.full(N, 3, "f4"),
        "alignments3D/split": np.array([0, 1] * (N // 2), "u4"),
        "alignments3D/class": np.array([0, 0, 1, 1, 2, 2], "u4"),
        "alignments3D/class_posterior": np.array([0.9, 0.5, 0.8, 0.2, 1, 0.6], "f4"),
    }
    return {**columns, **changes}


def location(rows=slice(None)):
    n = len(np.arange(N)[rows])
    return {
        "uid": (np.arange(N, dtype="u8") + 2**63)[rows],
        "location/micrograph_path": np.array([MICROGRAPH] * n),
        "location/micrograph_shape": np.tile(np.array([400, 600], "u4"), (n, 1)),
        "location/micrograph_psize_A": np.full(n, 0.75, "f4"),
        "location/center_x_frac": np.linspace(0.1, 0.6, N, dtype="f4")[rows],
        "location/center_y_frac": np.linspace(0.2, 0.9, N, dtype="f4")[rows],
    }


def to(output, *inputs, target=None, **options):
    return convert(list(inputs), output, to=target or output.suffix[1:], **options)


def table(path, name="particles"):
    labels, rows, _ = read_block(path.read_text(), name)
    return {label: [row[place] for row in rows] for place, label in enumerate(labels)}


@pytest.fixture
def source(tmp_path):
    return save_cs(tmp_path / "J5" / "J5_particles.cs", refined())


@pytest.fixture
def located(tmp_path):
    return save_cs(tmp_path / "J6" / "J6_particles.cs", {**refined(), **location()})


@pytest.fixture
def with_stack(tmp_path):
    path = save_cs(tmp_path / "project" / "J6" / "J6_particles.cs", {**refined(), **location()})
    name = "000000000000000000007_a.mrc"
    save_mrc(tmp_path / "project" / "J1" / "extract" / name, noise_images(N, 16), 1.5)
    return path


# --- what goes in ---------------------------------------------------------------------------------------------------


def test_coordinates_are_rounded_since_relion_cuts_them_off(tmp_path):
    # As single precision, 1111 of 5,760 px is a fraction that gives 1110.99998.
    x = np.full(N, np.float32(1111 / 5760))
    assert np.all(x.astype(np.float64) * 5760 != 1111)
    columns = {**refined(), **location(), "location/center_x_frac": x}
    columns["location/micrograph_shape"] = np.full((N, 2), (4092, 5760), np.uint32)
    to(tmp_path / "p.star", save_cs(tmp_path / "p.cs", columns))
    assert {float(value) for value in table(tmp_path / "p.star")["rlnCoordinateX"]} == {1111.0}


def test_the_passthrough_beside_a_file_is_joined_on_uid(source, tmp_path):
    order = [3, 1, 5, 0, 2, 4]
    save_cs(tmp_path / "J5" / "J5_passthrough_particles.cs", location(order))
    report = to(tmp_path / "p.star", source)
    # x of row k is 60 + 60 k px, whatever the order of the other file.
    np.testing.assert_allclose([float(x) for x in table(tmp_path / "p.star")["rlnCoordinateX"]], np.arange(60, 361, 60))
    assert "joined on uid with J5_passthrough_particles.cs" in texts(report.notes)
    to(tmp_path / "q" / "p.star", tmp_path / "J5" / "J5_passthrough_particles.cs")
    assert (tmp_path / "q" / "p.star").read_text() == (tmp_path / "p.star").read_text()


def test_a_given_passthrough_is_joined_and_rows_without_partner_are_counted(source, tmp_path):
    other = save_cs(tmp_path / "elsewhere.cs", location([5, 4, 2, 0]))
    report = to(tmp_path / "p.star", source, other)
    assert (report.rows_in, report.rows_out) == (6, 4)
    assert report.left_out == {"uid not in the joined files": 2}
    assert [name[:6] for name in table(tmp_path / "p.star")["rlnImageName"]] == ["000001", "000003", "000005", "000006"]
    with pytest.raises(MissingDataError, match="a row for each"):
        to(tmp_path / "pickles", source, other, target="pickles")
    stranger = save_cs(tmp_path / "stranger.cs", {**location(), "uid": np.arange(N, dtype="u8")})
    with pytest.raises(MissingDataError, match="none of its uids"):
        to(tmp_path / "q.star", source, stranger)


def test_pickles_take_all_rows_of_a_file_that_needs_no_other(source, tmp_path):
    save_cs(tmp_path / "J5" / "J5_passthrough_particles.cs", location([0, 1]))
    assert to(tmp_path / "p.star", source).rows_out == 2
    assert to(tmp_path / "pickles", source, target="pickles").rows_out == N


def test_a_file_beside_it_that_does_not_fit_is_named_and_left_alone(source, tmp_path):
    beside = tmp_path / "J5" / "J5_passthrough_particles.cs"
    save_cs(beside, {**location(), "uid": np.arange(N, dtype="u8")})
    assert any("none of its uids" in note for note in texts(to(tmp_path / "p.star", source).notes))
    beside.write_bytes(b"no table")
    assert any("not joined" in text for text in texts(to(tmp_path / "q.star", source).warnings))
    other_job = save_cs(tmp_path / "J5" / "J9_passthrough_particles.cs", location())
    beside.unlink()
    assert to(tmp_path / "r.star", source).inputs == (source,)
    assert to(tmp_path / "s.star", source, other_job).inputs == (source, other_job)


def test_a_result_group_and_a_job_folder(source, tmp_path):
    save_cs(tmp_path / "J5" / "J5_passthrough_particles.cs", location())
    to(tmp_path / "p.star", source)
    slots = {"blob": "J5_particles.cs", "ctf": "J5_particles.cs", "alignments3D": "J5_particles.cs"}
    slots["location"] = "J5_passthrough_particles.cs"
    results = {s: {"metafile": f">{f}", "num_items": N, "type": f"particle.{s}"} for s, f in slots.items()}
    group = {"created": "now", "group": {"name": "p", "type": "particle"}, "results": results, "version": "v4"}
    (tmp_path / "J5" / "p.csg").write_text(yaml.safe_dump(group))
    for number, given in enumerate((tmp_path / "J5" / "p.csg", tmp_path / "J5")):
        to(tmp_path / str(number) / "p.star", given)
        assert (tmp_path / str(number) / "p.star").read_text() == (tmp_path / "p.star").read_text()


def test_a_job_with_several_results_names_them(tmp_path):
    for number in range(2):
        save_cs(tmp_path / "J8" / f"J8_class_0{number}_00100_particles.cs", refined())
    with pytest.raises(UsageError, match=r"particles_class_0.*particles_class_1"):
        to(tmp_path / "p.star", tmp_path / "J8")


def test_inputs_that_make_no_set_are_refused(source, tmp_path):
    star = save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["000001@a.mrcs"]})
    stack = save_mrc(tmp_path / "a.mrcs", noise_images(N, 16), 1.5)
    with pytest.raises(UsageError, match="no particle set"):
        to(tmp_path / "p.star", source, star)
    with pytest.raises(UsageError, match="no metadata of its particles"):
        to(tmp_path / "p.star", stack)
    (tmp_path / "k.pkl").write_bytes(pickle.dumps({"centers": np.zeros((2, 3), "f4"), "labels": np.zeros(6, int)}))
    with pytest.raises(UsageError, match="this is kmeans"):
        to(tmp_path / "p.star", stack, tmp_path / "k.pkl")
    (tmp_path / "poses.pkl").write_bytes(pickle.dumps(np.tile(np.eye(3, dtype="f4"), (5, 1, 1))))
    with pytest.raises(UsageError, match=r"5 rows, but a\.mrcs has 6 images"):
        to(tmp_path / "p.star", stack, tmp_path / "poses.pkl")
    micrographs = save_star(tmp_path / "m.star", "micrographs", {"rlnMicrographName": ["a.mrc"]})
    with pytest.raises(MissingDataError, match="rlnImageName"):
        to(tmp_path / "p.star", micrographs)


# --- which rows and poses -------------------------------------------------------------------------------------------


def test_classes_and_posteriors_choose_rows_and_all_are_accounted_for(source, tmp_path):
    report = to(tmp_path / "p.star", source, classes=(0, 2), min_posterior=0.6)
    assert [name[:6] for name in table(tmp_path / "p.star")["rlnImageName"]] == ["000001", "000005", "000006"]
    assert report.left_out == {"not of class 0, 2": 2, "class posterior below 0.6": 1}
    assert report.rows_in == report.rows_out + sum(report.left_out.values())
    with pytest.raises(MissingDataError, match="no particle is left"):
        to(tmp_path / "q.star", source, classes=(9,))


def test_choosing_by_what_a_file_lacks_is_refused(tmp_path):
    plain = save_cs(tmp_path / "a.cs", particle_columns(["J1/a.mrcs"] * 2, [0, 1]))
    for options in ({"classes": (1,)}, {"min_posterior": 0.5}):
        with pytest.raises(MissingDataError):
            to(tmp_path / "p.star", plain, **options)


def test_pose_from_chooses_the_alignment_and_says_which_there_are(tmp_path):
    columns = refined()
    for number in range(2):
        columns |= {
            f"alignments_class_{number}/pose": np.full((N, 3), number + 0.5, "f4"),
            f"alignments_class_{number}/shift": np.full((N, 2), number + 1, "f4"),
            f"alignments_class_{number}/psize_A": np.full(N, 2, "f4"),
            f"alignments_class_{number}/class_posterior": np.array([0.9, 0.1] * 3, "f4")[:: 1 - 2 * number],
        }
    path = save_cs(tmp_path / "a.cs", columns)
    report = to(tmp_path / "p.star", path, pose_from="alignments_class_1")
    assert report.alignment == "alignments_class_1"
    assert table(tmp_path / "p.star")["rlnOriginXAngst"] == ["4"] * N
    assert table(tmp_path / "p.star")["rlnClassNumber"] == ["2"] * N
    assert "alignments3D/pose" in report.dropped_columns
    best = to(tmp_path / "q.star", path, pose_from="alignments_class_0, alignments_class_1", classes=(0,))
    assert best.rows_out == 3
    assert table(tmp_path / "q.star")["rlnOriginXAngst"] == ["2"] * 3
    with pytest.raises(UsageError) as caught:
        to(tmp_path / "r.star", path, pose_from="alignments2D")
    assert "alignments_class_1" in caught.value.hint
    columns["alignments_class_1/error"] = columns["alignments3D/error"] = np.ones(N, "f4")
    report = to(tmp_path / "b.cs", save_cs(tmp_path / "c.cs", columns), pose_from="alignments_class_1")
    found = np.load(tmp_path / "b.cs")
    assert (found["alignments3D/pose"] == 1.5).all()
    assert not found["alignments3D/error"].any()  # that of another pose
    assert {"alignments3D/error", "alignments_class_1/error"} <= set(report.dropped_columns)
    assert found["alignments_class_0/pose"].tolist() == columns["alignments_class_0/pose"].tolist()


# --- names, links, coordinates --------------------------------------------------------------------------------------


def test_coordinates_are_those_of_the_micrograph_in_the_same_row(tmp_path):
    """Bright spots of cryoSPARC's micrograph are found where the STAR file says, and again where the .cs file says."""
    fraction, shape = np.array([[0.2, 0.1], [0.6, 0.3], [0.75, 0.9]]), (40, 60)
    pixels = np.zeros(shape)
    x, y = (fraction * shape[::-1]).round().astype(int).T
    pixels[y, x] = 1
    save_mrc(tmp_path / MICROGRAPH, pixels[None])
    columns = {name: values[:3] for name, values in {**refined(), **location()}.items()}
    columns["location/micrograph_shape"] = np.tile(np.array(shape, "u4"), (3, 1))
    columns["location/center_x_frac"], columns["location/center_y_frac"] = fraction.T.astype("f4")
    to(tmp_path / "p.star", save_cs(tmp_path / "p.cs", columns), verify=True).require()
    found = table(tmp_path / "p.star")
    assert set(found["rlnMicrographName"]) == {MICROGRAPH}
    x, y = ([round(float(value)) for value in found[f"rlnCoordinate{axis}"]] for axis in "XY")
    assert pixels[y, x].tolist() == [1, 1, 1]
    to(tmp_path / "q.cs", tmp_path / "p.star", verify=True).require()
    again = np.load(tmp_path / "q.cs")
    np.testing.assert_allclose(again["location/center_x_frac"], fraction[:, 0], atol=1e-5)
    np.testing.assert_allclose(again["location/center_y_frac"], fraction[:, 1], atol=1e-5)


@pytest.mark.parametrize("output", ["p.star", "p.cs"])
def test_verify_sees_mirrored_coordinates(located, tmp_path, output, monkeypatch):
    source, options = located, ConvertOptions(verify=True)
    if output == "p.cs":
        to(tmp_path / "a.star", located)
        source, options = tmp_path / "a.star", replace(options, micrograph_shape_px=(400, 600))
    right = plan_module.with_sizes_of_micrographs

    def mirrored(*arguments):
        particles, messages = right(*arguments)
        y_mirrored = np.array([0, 400]) + np.array([1, -1]) * particles.locations.coordinate_px
        return replace(particles, locations=replace(particles.locations, coordinate_px=y_mirrored)), messages

    monkeypatch.setattr(plan_module, "with_sizes_of_micrographs", mirrored)
    report = ConvertJob(plan_convert(source, tmp_path / output, options)).run()
    (coordinates,) = [item for item in report.verified if item.quantity == "coordinates"]
    assert coordinates.largest == pytest.approx(320)  # 400 - 2 * 40
    with pytest.raises(CryobridgeError, match="coordinates by 320"):
        report.require()


def test_links_have_names_that_relion_opens(with_stack, tmp_path):
    (tmp_path / "relion").mkdir()
    (tmp_path / "relion" / "default_pipeline.star").touch()
    links = tmp_path / "relion" / "links"
    report = to(tmp_path / "relion" / "Import" / "p.star", with_stack, link_stacks=links)
    name = "links/J1/extract/000000000000000000007_a.mrcs"
    assert {image.split("@")[1] for image in table(tmp_path / "relion" / "Import" / "p.star")["rlnImageName"]} == {name}
    link = tmp_path / "relion" / name
    assert link.is_symlink()
    assert link.resolve() == tmp_path / "project" / "J1" / "extract" / "000000000000000000007_a.mrc"
    assert report.links == 1
    assert not any("--link-stacks" in note for note in texts(report.notes))
    # A second file may use the links that are there.
    to(tmp_path / "relion" / "Import" / "q" / "p.star", with_stack, link_stacks=links)


def test_copies_and_names_without_uid(with_stack, tmp_path):
    result = run(
        *("convert", with_stack, "-o", tmp_path / "p.star", "--link-stacks", "links", "--copy", "--strip-uid"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    copy = tmp_path / "links" / "J1" / "extract" / "a.mrcs"
    assert not copy.is_symlink()
    original = tmp_path / "project" / "J1" / "extract" / "000000000000000000007_a.mrc"
    assert copy.read_bytes() == original.read_bytes()
    assert table(tmp_path / "p.star")["rlnImageName"][0] == "000001@links/J1/extract/a.mrcs"
    assert set(table(tmp_path / "p.star")["rlnMicrographName"]) == {"J2/motioncorrected/mic_a.mrc"}


def test_links_for_cryosparc_are_named_from_the_group(with_stack, tmp_path):
    to(tmp_path / "out" / "p.cs", with_stack, link_stacks=tmp_path / "out" / "stacks")
    name = np.load(tmp_path / "out" / "p.cs")["blob/path"][0].decode()
    assert name == ">stacks/J1/extract/000000000000000000007_a.mrcs"
    assert (tmp_path / "out" / name[1:]).is_symlink()


def test_a_name_never_leads_out_of_the_folder_of_links(tmp_path):
    save_mrc(tmp_path / "a.mrc", noise_images(N, 16), 1.5)
    path = save_cs(tmp_path / "J1" / "x" / "p.cs", refined(**{"blob/path": np.array([">../../a.mrc"] * N)}))
    to(tmp_path / "out" / "p.star", path, link_stacks=tmp_path / "out" / "links")
    assert (tmp_path / "out" / "links" / "a.mrcs").is_symlink()


def test_stacks_that_are_not_found_are_reported_with_a_remedy(with_stack, tmp_path):
    moved = tmp_path / "moved" / "deep" / "p.cs"
    moved.parent.mkdir(parents=True)
    shutil.copy(with_stack, moved)
    with pytest.raises(MissingDataError, match="1 of 1 stack is not found"):
        to(tmp_path / "p.star", moved, link_stacks=tmp_path / "links")
    to(tmp_path / "p.star", moved, link_stacks=tmp_path / "links", datadir=tmp_path / "project")
    to(
        tmp_path / "q" / "p.star",
        moved,
        link_stacks=tmp_path / "links2",
        datadir=tmp_path / "project" / "J1",
        strip_prefix="J1",
    )
    assert len(list((tmp_path / "links2").rglob("*.mrcs"))) == 1


def test_links_never_replace_a_stack(with_stack, tmp_path):
    # A folder of links in which the stack itself has the name of its link.
    stack = tmp_path / "project" / "J1" / "extract" / "000000000000000000007_a.mrc"
    renamed = stack.rename(stack.with_suffix(".mrcs"))
    columns = {**refined(), **location(), "blob/path": np.array(["J1/extract/000000000000000000007_a.mrcs"] * N)}
    save_cs(with_stack, columns)
    content = renamed.read_bytes()
    plan = plan_convert([with_stack], tmp_path / "p.star", ConvertOptions(to="star", link_stacks=tmp_path / "project"))
    write_plan(plan, overwrite=True)
    assert not renamed.is_symlink()
    assert renamed.read_bytes() == content
    # And one in which another file has it.
    other = tmp_path / "links" / "J1" / "extract" / "000000000000000000007_a.mrcs"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    plan = plan_convert([with_stack], tmp_path / "q.star", ConvertOptions(to="star", link_stacks=tmp_path / "links"))
    with pytest.raises(CryobridgeError, match="no link replaces"):
        write_plan(plan, overwrite=True)
    assert other.read_text() == "mine"


def test_two_stacks_with_one_name_are_refused(tmp_path):
    names = [f"J1/{number:021d}_a.mrc" for number in (1, 2)]
    for name in names:
        save_mrc(tmp_path / name, noise_images(1, 16), 1.5)
    columns = {name: values[:2] for name, values in refined().items()} | {"blob/path": np.array(names)}
    path = save_cs(tmp_path / "J1" / "p.cs", columns)
    with pytest.raises(CryobridgeError, match="would both become"):
        to(tmp_path / "p.star", path, link_stacks=tmp_path / "links", strip_uid=True)


def test_micrographs_may_be_said_to_be_elsewhere(located, tmp_path):
    to(tmp_path / "p.star", located, micrograph_path="Micrographs", strip_uid=True)
    assert set(table(tmp_path / "p.star")["rlnMicrographName"]) == {"Micrographs/mic_a.mrc"}
    assert table(tmp_path / "p_micrographs.star", "micrographs")["rlnMicrographName"] == ["Micrographs/mic_a.mrc"]


def test_a_prefix_is_taken_off_written_names(located, tmp_path):
    to(tmp_path / "p.star", located, strip_prefix="J1/extract")
    assert table(tmp_path / "p.star")["rlnImageName"][0] == "000001@000000000000000000007_a.mrc"


def test_names_of_an_export_still_hold_in_another_folder(tmp_path):
    path = save_cs(tmp_path / "exports" / "p.cs", refined(**{"blob/path": np.array([">J1/a.mrc"] * N)}))
    to(tmp_path / "out" / "deep" / "p.cs", path)
    assert np.load(tmp_path / "out" / "deep" / "p.cs")["blob/path"][0] == b">../../exports/J1/a.mrc"


# --- values that files lack ------------------------------------------------------------------------------------------


def test_what_no_file_says_can_be_given(tmp_path):
    columns = {name: values for name, values in refined().items() if name not in {"blob/psize_A", "blob/shape"}}
    columns = {name: values for name, values in columns.items() if not name.startswith("ctf/a") and "cs_mm" not in name}
    path = save_cs(tmp_path / "a.cs", columns)
    with pytest.raises(MissingDataError) as caught:
        to(tmp_path / "p.star", path)
    for option in ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast", "pixel_size_A", "box_px"):
        assert f"{option}='X'" in caught.value.hint
    given = ("--voltage", 200, "--cs", 1.4, "--amplitude-contrast", 0.07, "--pixel-size", 1.06, "--box", 64)
    result = run("convert", path, "-o", tmp_path / "p.star", *given)
    assert result.returncode == 0, result.stderr
    optics = table(tmp_path / "p.star", "optics")
    names = ("Voltage", "SphericalAberration", "AmplitudeContrast", "ImagePixelSize", "ImageSize")
    assert [optics[f"rln{name}"] for name in names] == [["200"], ["1.4"], ["0.07"], ["1.06"], ["64"]]


@pytest.mark.parametrize(
    "known",
    [
        {"voltage_kV": 200},
        {"spherical_aberration_mm": 0.01},
        {"amplitude_contrast": 0.07},
        {"pixel_size_A": 3},
        {"box_px": 32},
    ],
)
def test_what_contradicts_a_file_is_refused(source, tmp_path, known):
    ((name, value),) = known.items()
    with pytest.raises(UsageError, match=f"{name}={value} contradicts the file"):
        to(tmp_path / "p.star", source, **known)
    same = {"voltage_kV": 300, "spherical_aberration_mm": 2.7, "amplitude_contrast": 0.1}
    to(tmp_path / "p.star", source, **same, pixel_size_A=1.5, box_px=16)


def test_a_given_pixel_size_turns_pixel_shifts_into_angstrom(tmp_path):
    columns = {"rlnImageName": ["000001@a.mrcs"], "rlnVoltage": [300], "rlnSphericalAberration": [2.7]}
    columns |= {"rlnAmplitudeContrast": [0.1], "rlnAngleRot": [10], "rlnAngleTilt": [20], "rlnAnglePsi": [30]}
    path = save_star(tmp_path / "a.star", "", {**columns, "rlnOriginX": [2], "rlnOriginY": [-3]})
    to(tmp_path / "p.star", path, pixel_size_A=1.5, box_px=64)
    found = table(tmp_path / "p.star")
    assert (found["rlnOriginXAngst"], found["rlnOriginYAngst"]) == (["3"], ["-4.5"])


def test_box_and_pixel_size_are_looked_up_in_the_stacks(tmp_path):
    columns = {"rlnImageName": ["000001@s/a.mrcs"], "rlnVoltage": [300], "rlnSphericalAberration": [2.7]}
    path = save_star(tmp_path / "a.star", "", {**columns, "rlnAmplitudeContrast": [0.1]})
    save_mrc(tmp_path / "s" / "a.mrcs", noise_images(1, 48), 1.25)
    report = to(tmp_path / "p.star", path)
    optics = table(tmp_path / "p.star", "optics")
    assert (optics["rlnImageSize"], optics["rlnImagePixelSize"]) == (["48"], ["1.25"])
    assert any("48 px" in note for note in texts(report.notes))


# --- verify ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["star", "cs", "pickles"])
def test_verify_ends_in_one_line_and_prints_each_quantity_if_asked(located, tmp_path, target):
    output = tmp_path / "out" if target == "pickles" else tmp_path / f"p.{target}"
    result = run("convert", located, "-o", output, "--to", target, "--verify")
    assert result.returncode == 0, result.stderr
    last = result.stdout.rstrip().splitlines()[-1]
    assert re.fullmatch(r"verified: identical( within rounding \(largest: [a-z ]+ [\d.e-]+ ?[^\d ]+\))?", last)
    assert "Δ" not in result.stdout
    assert run("convert", located, "-o", output, "--to", target, "--verify", "--overwrite", "-q").stdout == ""
    result = run("convert", located, "-o", output, "--to", target, "--verify", "--overwrite", "-v")
    assert result.stdout.rstrip().splitlines()[-1] == last
    for quantity in ("rotation", "shift", "defocus", "pixel size"):
        assert f"Δ {quantity} " in result.stdout
    again = run("convert", located, "-o", output, "--to", target, "--verify", "--overwrite", "--json")
    found = {item["quantity"]: item for item in json.loads(again.stdout)["verified"]}
    assert all(item["largest"] <= item["tolerance"] for item in found.values())
    assert found["particles"]["largest"] == 0
    if target != "pickles":
        assert {"stacks", "slices", "coordinates", "half sets", "classes"} <= found.keys()
    assert ("uid" in found) == (target == "cs")


@pytest.mark.parametrize(
    ("column", "value", "quantity"),
    [
        ("rlnAngleTilt", "91.0", "rotation"),
        ("rlnOriginXAngst", "77.7", "shift"),
        ("rlnDefocusU", "1", "defocus"),
        ("rlnRandomSubset", "9", "half sets"),
        ("rlnImageName", "000099@J1/extract/000000000000000000007_a.mrc", "slices"),
        ("rlnImageName", "000001@J1/extract/b.mrc", "stacks"),
        ("rlnCoordinateX", "3", "coordinates"),
    ],
)
def test_verify_finds_one_wrong_value(located, tmp_path, column, value, quantity):
    output = tmp_path / "p.star"
    plan = plan_convert([located], output, ConvertOptions(to="star"))
    write_plan(plan)
    require_equal(verify(plan), output)
    lines = output.read_text().splitlines()
    labels = [line.split()[0][1:] for line in lines if line.startswith("_rln")]
    place = labels[labels.index("rlnImageName") :].index(column)
    row = next(number for number, line in enumerate(lines) if line.startswith("000001@"))
    tokens = lines[row].split(" ")
    tokens[place] = value
    lines[row] = " ".join(tokens)
    output.write_text("\n".join(lines) + "\n")
    bad = [item.quantity for item in verify(plan) if not item.is_good]
    assert quantity in bad
    with pytest.raises(CryobridgeError, match=f"does not read back as the input: .*{quantity}") as caught:
        require_equal(verify(plan), output)
    # Which quantity, by how much and in which row.
    item = next(item for item in verify(plan) if item.quantity == quantity)
    assert item.row == 0
    where = ", the first 0" if item.unit == "rows" else r" in row 0 \(at most "
    assert re.search(rf"{quantity} (by|in) [\d.e+]+ ?\S+{where}", caught.value.message)
    assert item.as_text() in summary(verify(plan))


def test_verify_reads_a_star_file_with_starfile_too(located, tmp_path, monkeypatch):
    import starfile

    plan = plan_convert([located], tmp_path / "out.star", ConvertOptions())
    write_plan(plan)
    assert verify(plan)[-1].quantity == "rows in starfile"
    read = starfile.read

    def misread(*given, **named):
        blocks = read(*given, **named)
        blocks["particles"].loc[2, "rlnDefocusU"] += 1
        return blocks

    monkeypatch.setattr(starfile, "read", misread)
    (bad,) = [item for item in verify(plan) if not item.is_good]
    assert (bad.quantity, bad.largest) == ("rows in starfile", 1)


def test_verify_finds_lost_rows_and_wrong_indices(source, tmp_path):
    plan = plan_convert([source], tmp_path / "out", ConvertOptions(to="pickles", classes=(1,)))
    write_plan(plan)
    assert all(item.is_good for item in verify(plan))
    (tmp_path / "out" / "ind.pkl").write_bytes(pickle.dumps(np.array([0, 2])))
    assert [item.quantity for item in verify(plan) if not item.is_good] == ["chosen rows"]


# --- outputs and the command line -----------------------------------------------------------------------------------


def test_outputs_are_not_replaced_without_being_asked(located, tmp_path):
    output = tmp_path / "p.star"
    for existing in (output, tmp_path / "p_micrographs.star"):
        existing.write_text("mine")
        with pytest.raises(OutputExistsError):
            to(output, located)
        assert existing.read_text() == "mine"
        existing.unlink()
    to(output, located)
    result = run("convert", located, "-o", output)
    assert (result.returncode, "--overwrite" in result.stderr) == (1, True)
    assert run("convert", located, "-o", output, "--overwrite").returncode == 0
    with pytest.raises(OutputExistsError):
        (tmp_path / "p.csg").touch()
        to(tmp_path / "p.cs", output)


def test_conversions_into_one_folder_do_not_share_a_file(located, tmp_path):
    for name in ("first", "second"):
        to(tmp_path / "out" / f"{name}.star", located)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("first.star", "first_micrographs.star", "second.star", "second_micrographs.star")
    ]


def test_subtomograms_are_refused(tmp_path):
    optics = {"rlnOpticsGroup": [1], "rlnImageDimensionality": [3]}
    save_star(tmp_path / "o.star", "optics", optics)
    save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["000001@a.mrcs"], "rlnOpticsGroup": [1]})
    (tmp_path / "a.star").write_text((tmp_path / "o.star").read_text() + (tmp_path / "a.star").read_text())
    with pytest.raises(FormatError, match="subtomograms"):
        to(tmp_path / "p.star", tmp_path / "a.star")


def test_particles_without_half_set_or_class_are_reported_of(tmp_path):
    columns = {"rlnImageName": [f"00000{row + 1}@a.mrcs" for row in range(3)], "rlnVoltage": [300] * 3}
    columns |= {"rlnSphericalAberration": [2.7] * 3, "rlnAmplitudeContrast": [0.1] * 3, "rlnAngleTilt": [5, 6, 7]}
    columns |= {"rlnRandomSubset": [0, 1, 2], "rlnClassNumber": [0, 0, 0]}
    star = save_star(tmp_path / "a.star", "", columns)
    plan = plan_convert([star], tmp_path / "p.cs", ConvertOptions(to="cs", pixel_size_A=1.5, box_px=64))
    write_plan(plan)
    assert np.load(tmp_path / "p.cs")["alignments3D/split"].tolist() == [0, 0, 1]
    assert "1 particle without a half set is put into the first one" in texts(plan.report().warnings)
    require_equal(verify(plan), tmp_path / "p.cs")


def test_values_and_names_that_can_not_be_written_are_reported_with_the_file(tmp_path):
    broken = refined()
    broken["alignments3D/pose"][3] = np.nan
    path = save_cs(tmp_path / "a.cs", broken)
    result = run("convert", path, "-o", tmp_path / "p.star")
    assert result.returncode == 1
    assert f"{path}: alignments3D/pose: row 3: orientation: not a number, or infinite" in result.stderr
    chosen = run("convert", path, "-o", tmp_path / "p.star", "--class", "1,2")
    assert "alignments3D/pose: row 3: " in chosen.stderr  # of the file, not of those that were chosen
    for name in ("a\nb.mrcs", "a\x07.mrcs"):
        path = save_cs(tmp_path / "b.cs", refined(**{"blob/path": np.array([name] * N)}))
        with pytest.raises(FormatError, match="line break or a control character"):
            to(tmp_path / "p.star", path)
    path = save_cs(tmp_path / "c.cs", refined(**{"blob/path": np.array([b"a\xff.mrcs"] * N)}))
    with pytest.raises(FormatError, match="not UTF-8"):
        to(tmp_path / "p.star", path)
    assert not (tmp_path / "p.star").exists()
    path = save_cs(tmp_path / "d.cs", refined(**{"blob/path": np.array(['my data/it\'s "a".mrcs'] * N)}))
    to(tmp_path / "p.star", path)
    assert table(tmp_path / "p.star")["rlnImageName"][0] == '000001@my data/it\'s "a".mrcs'


def test_an_input_is_never_replaced(source):
    plan = plan_convert([source], source, ConvertOptions(to="cs"))
    with pytest.raises(UsageError, match="one of the inputs"):
        check_outputs(plan, overwrite=True)


def test_a_dry_run_writes_nothing(located, tmp_path):
    result = run("convert", located, "-o", tmp_path / "out" / "p.star", "--dry-run")
    assert result.returncode == 0
    assert result.stdout.startswith("Would write")
    assert not (tmp_path / "out").exists()


def test_json_is_alone_on_stdout(located, tmp_path):
    result = run("convert", located, "-o", tmp_path / "p.star", "--json", "--relion", "5", "--class", 1, "--class", 2)
    report = json.loads(result.stdout)
    assert (report["rows_in"], report["rows_out"]) == (6, 4)
    assert report["left_out"] == {"not of class 1, 2": 2}
    assert "# version 50001" in (tmp_path / "p.star").read_text()
    assert "2 particles are left out: not of class 1, 2" in result.stderr


def test_classes_are_counted_as_the_program_of_the_input_shows_them(located, tmp_path):
    # cryoSPARC's 1 is RELION's 2.
    assert run("convert", located, "-o", tmp_path / "p.star", "--class", 1).returncode == 0
    numbers = table(tmp_path / "p.star")["rlnClassNumber"]
    assert set(map(int, numbers)) == {2}
    assert len(numbers) == int((np.load(located)["alignments3D/class"] == 1).sum())
    again = run("convert", tmp_path / "p.star", "-o", tmp_path / "q.star", "--class", 2, "--json")
    assert json.loads(again.stdout)["rows_out"] == len(numbers)


def test_min_posterior_and_pose_from_on_the_command_line(located, tmp_path):
    words = ("--min-posterior", 0.8, "--pose-from", "alignments3D", "--micrograph-path", "M", "--strip-prefix", "J1")
    result = run("convert", located, "-o", tmp_path / "p.star", *words, "--datadir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert table(tmp_path / "p.star")["rlnImageName"][0].startswith("000001@extract/")
    assert len(table(tmp_path / "p.star")["rlnImageName"]) == 3


def test_coordinates_go_back_to_cryosparc_on_the_command_line(located, tmp_path):
    to(tmp_path / "p.star", located)
    result = run("convert", tmp_path / "p.star", "-o", tmp_path / "q.cs", "--micrograph-shape", "400,600")
    assert result.returncode == 0, result.stderr
    found = np.load(tmp_path / "q.cs")
    np.testing.assert_allclose(found["location/center_y_frac"], np.linspace(0.2, 0.9, N), atol=1e-6)
    wrong = run("convert", tmp_path / "p.star", "-o", tmp_path / "r.cs", "--micrograph-shape", "400")
    assert (wrong.returncode, "--micrograph-shape NY,NX" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "out"], "does not say what to write"),
        (["-o", "a.star", "--to", "cs"], "does not go with"),
        (["-o", "folder", "--to", "star"], "does not go with"),
        (["-o", "out", "--to", "pickles", "--relion", "3.1"], "--relion would do nothing"),
        (["-o", "out", "--to", "pickles", "--flip-x"], "--flip-x would do nothing"),
        (["-o", "a.star", "--flip-x", "--swap-xy"], "--flip-x and --swap-xy would do nothing"),
        (["-o", "out", "--to", "pickles", "--link-stacks", "d"], "--link-stacks would do nothing"),
        (["-o", "a.star", "--copy"], "--copy would do nothing"),
        (["-o", "out", "--to", "pickles", "--strip-uid"], "--strip-uid would do nothing"),
        (["-o", "out", "--to", "pickles", "--micrograph-path", "M"], "--micrograph-path would do nothing"),
        (["-o", "a.star", "--micrograph-shape", "4,5"], "--micrograph-shape would do nothing"),
        (["-o", "a.cs", "--aberrations"], "--aberrations would do nothing"),
    ],
)
def test_options_that_would_do_nothing_are_refused(located, tmp_path, words, said):
    result = run("convert", located, *words, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["J6"]


def test_pose_from_is_for_cryosparc(tmp_path):
    star = save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["000001@a.mrcs"]})
    with pytest.raises(UsageError, match="pose_from= would do nothing"):
        to(tmp_path / "p.star", star, pose_from="alignments3D")


@pytest.mark.parametrize("columns", [80, 140])
def test_the_closing_table_fits_a_terminal(located, tmp_path, columns):
    status, text = run_in_terminal("convert", located, "-o", tmp_path / "p.star", "--verify", columns=columns)
    assert status == 0
    shown = without_escapes(text)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= columns
    assert "6 of 6" in shown


def test_verify_does_not_miss_a_box_where_relion_3_0_has_no_place_for_it(located, tmp_path):
    result = run("convert", located, "-o", tmp_path / "p.star", "--relion", "3.0", "--verify", "--json")
    assert result.returncode == 0, result.stderr
    quantities = {item["quantity"] for item in json.loads(result.stdout)["verified"]}
    assert "pixel size" in quantities
    assert "box" not in quantities
