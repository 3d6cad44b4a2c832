"""`convert --micrographs`: cryoSPARC's particles on RELION's micrographs."""

import json
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.convert import plan as plan_module
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.micrographs.orientation_report import OrientationError
from helpers import codes, particle_columns, run, save_cs, save_mrc, texts
from relion_grammar import read_block

N, NY, NX, BOX = 24, 160, 240, 16
PER_MICROGRAPH = N // 2
REVERSED = "x = nx·fx, y = ny − 1 − ny·fy"
STORED = "x = nx·fx, y = ny·fy"


def table(path, name="particles"):
    labels, rows, _ = read_block(path.read_text(), name)
    return {label: [row[place] for row in rows] for place, label in enumerate(labels)}


def centres():
    """x, y of each particle, (n, 2): a grid without symmetry."""
    place = np.arange(N) % PER_MICROGRAPH
    rng = np.random.default_rng(3)
    return np.column_stack([place % 6 * 36 + 20, place // 6 * 50 + 22]) + rng.integers(0, 12, (N, 2))


def micrograph_star(path, groups=("session1",), group_of=(1, 1), pixel_size=1.5, voltage=300):
    optics = "".join(f"{number} {name} {voltage} 2.7 0.1 {pixel_size}\n" for number, name in enumerate(groups, 1))
    listed = "".join(f"MotionCorr/job002/Movies/mic{number}.mrc {group}\n" for number, group in enumerate(group_of))
    names = ("OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "data_optics\n\nloop_\n"
        + "".join(f"_rln{name}\n" for name in (*names, "MicrographPixelSize"))
        + f"{optics}\n\ndata_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{listed}\n"
    )
    return path


def particles(**changes):
    x, y = centres().T
    columns = particle_columns(["J3/extract/particles.mrc"] * N, range(N))
    names = [
        f"J2/motioncorrected/00000000000000000000{row // PER_MICROGRAPH}_mic{row // PER_MICROGRAPH}" for row in range(N)
    ]
    rng = np.random.default_rng(1)
    columns |= {
        "alignments3D/pose": rng.normal(size=(N, 3)).astype("f4"),
        "alignments3D/shift": rng.normal(size=(N, 2)).astype("f4"),
        "alignments3D/psize_A": np.full(N, 1.5, "f4"),
        "blob/shape": np.full((N, 2), BOX, "u4"),
        "blob/psize_A": np.full(N, 1.5, "f4"),
        "ctf/exp_group_id": np.where(np.arange(N) < PER_MICROGRAPH, 4, 9).astype("u4"),
        "location/micrograph_path": np.array([f"{name}_patch_aligned_doseweighted.mrc" for name in names]),
        "location/micrograph_shape": np.tile(np.array([NY, NX], "u4"), (N, 1)),
        "location/micrograph_psize_A": np.full(N, 1.5, "f4"),
        "location/center_x_frac": (x / NX).astype("f4"),
        "location/center_y_frac": (y / NY).astype("f4"),
    }
    return columns | changes


@pytest.fixture
def project(tmp_path):
    """Particles without pixels, and a RELION project with micrographs_ctf.star."""
    (tmp_path / "relion").mkdir()
    (tmp_path / "relion" / "default_pipeline.star").touch()
    micrograph_star(tmp_path / "relion/CtfFind/job003/micrographs_ctf.star")
    save_cs(tmp_path / "P1/J5/particles.cs", particles())
    return tmp_path


def add_pixels(folder, *, reverse):
    """Images of particles, and RELION's micrographs that they are in."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(N, BOX, BOX)).astype("f4")
    save_mrc(folder / "P1/J3/extract/particles.mrc", images, 1.5)
    for number in range(2):
        pixels = rng.normal(size=(NY, NX)).astype("f4")
        for row in range(number * PER_MICROGRAPH, (number + 1) * PER_MICROGRAPH):
            x, y = centres()[row]
            pixels[y - 8 : y + 8, x - 8 : x + 8] = images[row]
        rows = pixels[::-1] if reverse else pixels
        save_mrc(folder / f"relion/MotionCorr/job002/Movies/mic{number}.mrc", np.ascontiguousarray(rows)[None], 1.5)


def mapped(folder, output="p.star", **options):
    star = options.pop("micrographs", folder / "relion/CtfFind/job003/micrographs_ctf.star")
    return convert(folder / "P1/J5/particles.cs", folder / "relion/Import" / output, micrographs=star, **options)


def places(folder, output="p.star"):
    found = table(folder / "relion/Import" / output)
    return np.array([found["rlnCoordinateX"], found["rlnCoordinateY"]], float).T


# --- names, groups and sizes ----------------------------------------------------------------------------------------


def test_names_and_groups_are_those_of_the_star_file(project):
    report = mapped(project, verify=True)
    report.require()
    found, optics = table(project / "relion/Import/p.star"), table(project / "relion/Import/p.star", "optics")
    assert found["rlnMicrographName"] == [
        f"MotionCorr/job002/Movies/mic{row // PER_MICROGRAPH}.mrc" for row in range(N)
    ]
    # Two exposure groups of the same optics are one session of RELION's.
    assert (optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"]) == (["1"], ["session1"])
    assert optics["rlnMicrographPixelSize"] == ["1.5"]
    np.testing.assert_allclose(places(project), centres(), atol=1e-3)
    assert report.coordinates == STORED
    assert report.micrographs == project / "relion/CtfFind/job003/micrographs_ctf.star"
    # RELION has its own list of micrographs.
    assert [path.name for path in report.outputs] == ["p.star"]


def test_groups_keep_their_numbers_where_all_of_them_have_particles(project):
    star = micrograph_star(project / "a.star", ("late", "early"), (2, 1))
    mapped(project, micrographs=star)
    found, optics = table(project / "relion/Import/p.star"), table(project / "relion/Import/p.star", "optics")
    assert optics["rlnOpticsGroupName"] == ["late", "early"]
    assert found["rlnOpticsGroup"] == ["2"] * PER_MICROGRAPH + ["1"] * PER_MICROGRAPH


def test_groups_that_have_no_particles_are_left_out(project):
    mapped(project, micrographs=micrograph_star(project / "a.star", ("one", "two", "three"), (2, 3)))
    optics = table(project / "relion/Import/p.star", "optics")
    assert (optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"]) == (["1", "2"], ["two", "three"])


def test_a_group_whose_particles_differ_in_optics_is_there_for_each_under_its_name(project):
    tilt = np.where(np.arange(N)[:, np.newaxis] < PER_MICROGRAPH, 0.0, [[2e4, 1e4]]).astype("f4")
    save_cs(project / "P1/J5/particles.cs", particles(**{"ctf/tilt_A": tilt}))
    report = mapped(project)
    optics = table(project / "relion/Import/p.star", "optics")
    assert (optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"]) == (["1", "2"], ["session1", "session1"])
    assert "optics-groups-shared" in codes(report.warnings)


def test_a_layout_without_groups_keeps_cryosparcs(project):
    star = project / "old.star"
    names = "".join(f"MotionCorr/job002/Movies/mic{number}.mrc 50000 7.5\n" for number in range(2))
    star.write_text(f"data_\n\nloop_\n_rlnMicrographName\n_rlnMagnification\n_rlnDetectorPixelSize\n{names}\n")
    mapped(project, micrographs=star)
    optics = table(project / "relion/Import/p.star", "optics")
    assert optics["rlnOpticsGroupName"] == ["opticsGroup4", "opticsGroup9"]
    assert optics["rlnMicrographPixelSize"] == ["1.5", "1.5"]


def test_another_voltage_is_a_warning(project):
    report = mapped(project, micrographs=micrograph_star(project / "a.star", voltage=200))
    assert any("voltage is 300 kV in cryoSPARC's file" in text for text in texts(report.warnings))


@pytest.mark.parametrize(("pixel_size", "is_said"), [(1.505, False), (1.515, True)])
def test_another_calibration_of_the_pixel_size_is_a_warning(project, pixel_size, is_said):
    report = mapped(project, micrographs=micrograph_star(project / "a.star", pixel_size=pixel_size))
    text = f"the pixel size of RELION's micrographs is {pixel_size} Å in its file, which is taken, and 1.5 Å by"
    assert any(text in said for said in texts(report.warnings)) == is_said
    assert table(project / "relion/Import/p.star", "optics")["rlnMicrographPixelSize"] == [str(pixel_size)]


@pytest.mark.parametrize("are_there", [True, False], ids=["by headers", "by pixel sizes"])
def test_coordinates_count_the_pixels_of_binned_micrographs(project, are_there):
    if are_there:
        for number in range(2):
            path = project / f"relion/MotionCorr/job002/Movies/mic{number}.mrc"
            save_mrc(path, np.zeros((1, NY // 2, NX // 2)), 3.0)
    report = mapped(project, micrographs=micrograph_star(project / "a.star", pixel_size=3.0), verify=True)
    report.require()
    np.testing.assert_allclose(places(project), centres() / 2, atol=1e-3)
    assert table(project / "relion/Import/p.star", "optics")["rlnMicrographPixelSize"] == ["3"]
    code = "micrograph-sizes-differ" if are_there else "micrograph-sizes-by-pixel-size"
    assert code in codes(report.warnings)


def test_micrographs_that_the_star_file_lacks(project):
    star = micrograph_star(project / "a.star", group_of=(1,))
    with pytest.raises(MissingDataError, match="1 of 2 micrographs is not in the STAR file") as caught:
        mapped(project, micrographs=star)
    assert "on_unmatched='skip'" in caught.value.hint
    report = mapped(project, micrographs=star, on_unmatched="skip")
    assert report.left_out == {"micrograph not in the file of micrographs": PER_MICROGRAPH}
    assert len(table(project / "relion/Import/p.star")["rlnImageName"]) == PER_MICROGRAPH


def test_particles_without_micrographs_are_refused(project):
    columns = {name: values for name, values in particles().items() if not name.startswith("location/")}
    save_cs(project / "P1/J5/particles.cs", columns)
    with pytest.raises(MissingDataError, match="nothing is known of the micrographs"):
        mapped(project)


def test_micrographs_among_the_inputs_are_refused_with_the_option(project):
    star = project / "relion/CtfFind/job003/micrographs_ctf.star"
    with pytest.raises(UsageError, match="a list of micrographs") as caught:
        convert([project / "P1/J5/particles.cs", star], project / "p.star")
    assert "micrographs=" in caught.value.hint


def test_a_project_whose_micrographs_fit_is_mentioned(project):
    source = project / "P1/J5/particles.cs"
    report = convert(source, project / "relion/Import/p.star")
    (message,) = [item for item in report.warnings if item.code == "micrographs-not-mapped"]
    assert "micrographs=" in str(message)
    assert "micrographs_ctf.star" in str(message)
    assert "micrographs-not-mapped" not in codes(convert(source, project / "elsewhere/p.star").warnings)
    assert "micrographs-not-mapped" not in codes(mapped(project, "q.star").warnings)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"flip_x": True}, "flip_x="), ({"reextract": True}, "reextract="), ({"orientation": "stored"}, "orientation=")],
)
def test_options_of_the_placement_need_micrographs(project, options, said):
    with pytest.raises(UsageError, match=f"{said}.* would do nothing") as caught:
        convert(project / "P1/J5/particles.cs", project / "p.star", **options)
    assert "micrographs=" in caught.value.hint


def test_a_name_for_all_micrographs_does_not_go_with_it(project):
    with pytest.raises(UsageError, match="micrograph_path="):
        mapped(project, micrograph_path="MotionCorr")


# --- orientation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reverse", "formula"), [(False, STORED), (True, REVERSED)])
def test_the_pixels_show_which_way_the_micrographs_lie(project, reverse, formula):
    add_pixels(project, reverse=reverse)
    report = mapped(project, datadir=project / "P1", verify=True)
    report.require()
    assert (report.coordinates, report.coordinates_from) == (formula, "pixels")
    assert [item.code for item in report.notes if item.code.startswith("orientation")] == ["orientation-found"]
    x, y = centres().T
    np.testing.assert_allclose(places(project), np.column_stack([x, NY - 1 - y if reverse else y]), atol=1e-3)
    # Poses belong to the images as they are.
    assert ("poses-of-old-images" in codes(report.warnings)) == reverse


def test_without_pixels_coordinates_stay_as_stored_and_that_is_said(project):
    report = mapped(project)
    assert (report.coordinates, report.coordinates_from) == (STORED, "default")
    assert "orientation-unchecked" in codes(report.warnings)


@pytest.mark.parametrize("options", [{"orientation": "reliosparc"}, {"orientation": "stored"}, {"flip_x": True}])
def test_set_by_hand(project, options):
    x, y = centres().T
    report = mapped(project, **options, verify=True)
    report.require()
    expected = {"reliosparc": (x, NY - y), "stored": (x, y)}.get(options.get("orientation"), (NX - x, NY - y))
    np.testing.assert_allclose(places(project), np.column_stack(expected), atol=1e-3)
    assert report.coordinates_from == "options"


def test_a_placement_by_hand_that_the_pixels_contradict_is_refused(project):
    add_pixels(project, reverse=True)
    with pytest.raises(OrientationError):
        mapped(project, datadir=project / "P1", orientation="stored")
    words = ["--micrographs", project / "relion/CtfFind/job003/micrographs_ctf.star", "--datadir", project / "P1"]
    words += ["-o", project / "relion/Import/p.star", "--orientation", "stored", "--json"]
    result = run("convert", project / "P1/J5/particles.cs", *words)
    assert result.returncode == 3, result.stderr
    assert not (project / "relion/Import").exists()
    forced = run("convert", project / "P1/J5/particles.cs", *words, "--force")
    assert forced.returncode == 0, forced.stderr
    assert "orientation-differs" in {item["code"] for item in json.loads(forced.stdout)["warnings"]}
    np.testing.assert_allclose(places(project), centres(), atol=1e-3)


def test_exchanged_axes_that_the_pixels_contradict_are_refused_before_the_shape_is(project, command):
    star = project / "relion/CtfFind/job003/micrographs_ctf.star"
    words = [project / "P1/J5/particles.cs", "--micrographs", star, "-o", project / "relion/Import/p.star", "--swap-xy"]
    words += ["--datadir", project / "P1"]
    add_pixels(project, reverse=True)
    code, out, err = command("convert", *words)
    assert (code, out) == (3, "")
    assert "RELION's micrographs fit x = nx·fx, y = ny − 1 − ny·fy" in " ".join(err.split())
    assert "Leave --swap-xy out, so that what fits is taken, or keep it with --force." in err
    # Where no image shows it, the shape does; what is advised are options of this command.
    (project / "P1/J3/extract/particles.mrc").unlink()
    for number in range(2):
        save_mrc(project / f"relion/MotionCorr/job002/Movies/mic{number}.mrc", np.zeros((1, NY, NX)), 1.5)
    code, out, err = command("convert", *words)
    assert (code, out) == (1, "")
    assert "x and y are not exchanged" in err
    assert "Leave --swap-xy out." in err
    assert "--check-orientation" not in err


def test_verify_sees_a_wrong_placement(project, monkeypatch):
    add_pixels(project, reverse=True)
    right = plan_module.onto_micrographs

    def wrong(*arguments):
        mapped = right(*arguments)
        place_px = mapped.particles.locations.coordinate_px * (1, -1) + (0, NY)
        locations = replace(mapped.particles.locations, coordinate_px=place_px)
        return replace(mapped, particles=replace(mapped.particles, locations=locations))

    monkeypatch.setattr(plan_module, "onto_micrographs", wrong)
    with pytest.raises(CryobridgeError, match=r"coordinates by .* px in row 0 .*, places in pixels in 24 rows"):
        mapped(project, datadir=project / "P1", verify=True)


# --- extraction again -----------------------------------------------------------------------------------------------


def test_poses_and_ctf_are_mirrored_with_the_coordinates(project):
    add_pixels(project, reverse=True)
    plain = mapped(project, datadir=project / "P1")
    report = mapped(project, "q.star", datadir=project / "P1", reextract=True, verify=True)
    report.require()
    assert "to-be-extracted-again" in codes(report.warnings)
    assert plain.coordinates == report.coordinates == REVERSED
    old, new = (read_particles_star(project / "relion/Import" / name) for name in ("p.star", "q.star"))
    np.testing.assert_allclose(new.poses.matrix, np.diag([1, -1, -1]) @ old.poses.matrix, atol=1e-6)
    np.testing.assert_allclose(new.poses.shift_A, old.poses.shift_A * (1, -1), atol=1e-6)
    np.testing.assert_allclose(new.ctf.defocus_angle_rad, -old.ctf.defocus_angle_rad, atol=1e-6)
    np.testing.assert_array_equal(new.locations.coordinate_px, old.locations.coordinate_px)


@pytest.mark.parametrize("reverse", [False, True])
def test_images_that_are_to_be_extracted_again_are_not_complained_of(project, reverse):
    add_pixels(project, reverse=reverse)
    said = set(codes(mapped(project, datadir=project / "P1").warnings))
    assert {"stacks-named-mrc", "image-names-lead-elsewhere"} <= said
    again = set(codes(mapped(project, "q.star", datadir=project / "P1", reextract=True).warnings))
    assert again == ({"to-be-extracted-again"} if reverse else set())


def test_micrographs_that_lie_the_same_way_leave_poses_as_they_are(project):
    add_pixels(project, reverse=False)
    mapped(project, datadir=project / "P1")
    mapped(project, "q.star", datadir=project / "P1", reextract=True)
    assert table(project / "relion/Import/p.star") == table(project / "relion/Import/q.star")


def test_the_exact_reversal_counts_for_extraction_also_when_set_by_hand(project):
    report = mapped(project, orientation="reliosparc", reextract=True)
    assert report.coordinates == REVERSED
    np.testing.assert_allclose(places(project)[:, 1], NY - 1 - centres()[:, 1], atol=1e-3)


def test_2d_alignments_turn_the_other_way(project):
    columns = {name: values for name, values in particles().items() if not name.startswith("alignments3D")}
    psi = np.linspace(-3, 3, N).astype("f4")
    aligned = {"alignments2D/pose": psi, "alignments2D/shift": np.ones((N, 2), "f4")}
    save_cs(project / "P1/J5/particles.cs", {**columns, **aligned, "alignments2D/psize_A": np.full(N, 1.5, "f4")})
    mapped(project, orientation="reliosparc", reextract=True, verify=True).require()
    found = table(project / "relion/Import/p.star")
    np.testing.assert_allclose(np.array(found["rlnAnglePsi"], float), -np.degrees(psi), atol=1e-3)
    assert set(found["rlnAngleTilt"]) == {"0"}
    assert set(found["rlnOriginYAngst"]) == {"-1.5"}


def test_a_set_in_memory_and_the_layout_without_groups(project):
    source = cb.read(project / "P1/J5/particles.cs")
    star, output = project / "relion/CtfFind/job003/micrographs_ctf.star", project / "relion/Import/p.star"
    report = convert(source, output, micrographs=star, relion="3.0", orientation="reliosparc", verify=True)
    report.require()
    assert report.coordinates == "x = nx·fx, y = ny − ny·fy"
    assert table(output, "")["rlnMicrographName"][-1] == "MotionCorr/job002/Movies/mic1.mrc"


def test_poses_are_mirrored_for_reversed_rows_alone(project):
    with pytest.raises(UsageError, match="mirrors poses for reversed rows alone"):
        mapped(project, flip_x=True, reextract=True)


# --- back to cryoSPARC ----------------------------------------------------------------------------------------------


def exposures(folder, **changes):
    columns = particles()
    rows = [0, PER_MICROGRAPH]
    table = {
        "uid": np.array([2**63 + 7, 11], "u8"),
        "micrograph_blob/path": columns["location/micrograph_path"][rows],
        "micrograph_blob/shape": columns["location/micrograph_shape"][rows],
        "micrograph_blob/psize_A": np.full(2, 1.5, "f4"),
    }
    return save_cs(folder / "P1/J2/exposures.cs", table | changes)


def back(folder, **options):
    star = folder / "relion/Import/p.star"
    return convert(star, folder / "back.cs", micrographs=exposures(folder), contrast="bright", **options)


@pytest.mark.parametrize("options", [{"orientation": "stored"}, {"flip_x": True}, {"flip_x": True, "swap_xy": True}])
def test_there_and_back_by_the_same_options_is_where_it_was(project, options):
    mapped(project, **options)
    shape = (NX, NY) if "swap_xy" in options else (NY, NX)
    back(project, micrograph_shape_px=shape, verify=True, **options).require()
    source, found = np.load(project / "P1/J5/particles.cs"), np.load(project / "back.cs")
    for name in ("location/micrograph_path", "location/micrograph_shape"):
        assert found[name].tolist() == source[name].tolist()
    for name in ("location/center_x_frac", "location/center_y_frac"):
        np.testing.assert_allclose(found[name], source[name], atol=1e-5)
    # cryoSPARC knows its micrographs by their uid.
    assert found["location/micrograph_uid"].tolist() == [2**63 + 7] * PER_MICROGRAPH + [11] * PER_MICROGRAPH


def test_poses_go_back_as_they_came(project):
    options = {"orientation": "reliosparc", "reextract": True}
    mapped(project, **options)
    back(project, verify=True, **options).require()
    source, found = np.load(project / "P1/J5/particles.cs"), np.load(project / "back.cs")
    np.testing.assert_allclose(found["location/center_y_frac"], source["location/center_y_frac"], atol=1e-5)
    np.testing.assert_allclose(found["alignments3D/shift"], source["alignments3D/shift"], atol=1e-5)
    np.testing.assert_allclose(found["ctf/df_angle_rad"], source["ctf/df_angle_rad"], atol=1e-6)


def test_pixels_of_cryosparcs_micrographs_show_the_way_back(project):
    add_pixels(project, reverse=True)
    mapped(project, datadir=project / "P1")
    for number in range(2):
        there = project / "P1" / particles()["location/micrograph_path"][number * PER_MICROGRAPH]
        there.parent.mkdir(parents=True, exist_ok=True)
        relion = mrcfile.read(project / f"relion/MotionCorr/job002/Movies/mic{number}.mrc")
        save_mrc(there, np.ascontiguousarray(relion[::-1])[None], 1.5)
    # RELION's own images have their rows reversed, too.
    stack = project / "P1/J3/extract/particles.mrc"
    images = mrcfile.read(stack)
    stack.unlink()
    save_mrc(stack, np.ascontiguousarray(images[:, ::-1]), 1.5)
    report = back(project, datadir=project / "P1", verify=True)
    report.require()
    assert (report.coordinates, report.coordinates_from) == (REVERSED, "pixels")
    source, found = np.load(project / "P1/J5/particles.cs"), np.load(project / "back.cs")
    np.testing.assert_allclose(found["location/center_y_frac"], source["location/center_y_frac"], atol=1e-5)


def test_each_direction_names_the_file_that_it_needs(project):
    mapped(project)
    star = project / "relion/CtfFind/job003/micrographs_ctf.star"
    with pytest.raises(UsageError, match="which the particles name already") as caught:
        convert(project / "relion/Import/p.star", project / "back.cs", micrographs=star)
    assert "exposures" in caught.value.hint
    with pytest.raises(UsageError, match="which the particles name already") as caught:
        mapped(project, "q.star", micrographs=exposures(project))
    assert "micrographs_ctf.star" in caught.value.hint


def test_exposures_that_are_missing(project):
    mapped(project)
    save_cs(project / "P1/J2/some.cs", {"uid": np.arange(2, dtype="u8")})
    with pytest.raises(MissingDataError, match="no micrographs of cryoSPARC"):
        convert(project / "relion/Import/p.star", project / "back.cs", micrographs=project / "P1/J2/some.cs")
    columns = particles()
    names = columns["location/micrograph_path"][[0]]
    one = {"micrograph_blob/path": names, "micrograph_blob/shape": np.array([[NY, NX]], "u4")}
    path = save_cs(project / "P1/J2/one.cs", {"uid": np.arange(1, dtype="u8"), **one})
    with pytest.raises(MissingDataError, match=r"1 of 2 micrographs is not in one\.cs"):
        convert(project / "relion/Import/p.star", project / "back.cs", micrographs=path)
    with pytest.raises(CryobridgeError) as caught:
        convert(project / "relion/Import/p.star", project / "back.cs", micrographs=project / "relion/CtfFind/job003")
    assert "exposures" in caught.value.hint
