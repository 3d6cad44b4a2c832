"""`convert --recenter` and `--center`: particles that are to be extracted again around other centres.

What RELION itself makes of them is in tests/relion/test_recentering.py.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryobridge as cb
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.open import open_particles
from cryobridge.formats.relion.star import StarBlock
from cryobridge.formats.relion.star_write import write_star
from cryobridge.jobs.convert.convert import convert, write_plan
from cryobridge.jobs.convert.options import ConvertOptions
from cryobridge.jobs.convert.plan import plan_convert
from cryobridge.jobs.convert.verify import verify
from cryobridge.jobs.identity.match import identities_of, match_rows
from cryobridge.jobs.selection.choose import select_files
from helpers import codes, particle_columns, run, save_cs, save_mrc

N, NY, NX = 10, 3000, 4000
PIXEL_SIZE_A, IMAGE_PIXEL_SIZE_A = 1.25, 2.5
OF_OPTICS = {"rlnCtfDataAreCtfPremultiplied"}
PLACE_A = np.array([24.0, -15.0, 51.0])
rng = np.random.default_rng(5)
X, Y = rng.uniform(800, 2200, (2, N))
SHIFT_PX = rng.uniform(-4, 4, (N, 2)).astype("f4")
ROTVEC = Rotation.random(N, random_state=3).as_rotvec().astype("f4")
# What takes the map to the view: the transpose of cryoSPARC's rotation.
MATRIX = Rotation.from_rotvec(ROTVEC).as_matrix().transpose(0, 2, 1)
SHIFT_A = SHIFT_PX * IMAGE_PIXEL_SIZE_A
# Where the centre of the map is on the micrograph.
CENTRE_PX = np.column_stack([X, Y]) - SHIFT_A / PIXEL_SIZE_A


def cryosparc(path, **changes):
    columns = particle_columns(["J3/extract/a.mrc"] * N, range(N)) | {
        "blob/psize_A": np.full(N, IMAGE_PIXEL_SIZE_A, "f4"),
        "blob/sign": np.full(N, -1, "f4"),
        "alignments3D/pose": ROTVEC,
        "alignments3D/shift": SHIFT_PX,
        "alignments3D/psize_A": np.full(N, IMAGE_PIXEL_SIZE_A, "f4"),
        "alignments3D/split": np.arange(N, dtype="u4") % 2,
        "location/micrograph_path": np.array([f"J2/mic{row % 2}.mrc" for row in range(N)]),
        "location/micrograph_shape": np.tile(np.array([NY, NX], "u4"), (N, 1)),
        "location/micrograph_psize_A": np.full(N, PIXEL_SIZE_A, "f4"),
        "location/center_x_frac": (X / NX).astype("f4"),
        "location/center_y_frac": (Y / NY).astype("f4"),
    }
    columns = {name: values for name, values in (columns | changes).items() if values is not None}
    return save_cs(path, columns)


def relion(path, **changes):
    rot, tilt, psi = Rotation.from_rotvec(ROTVEC).as_euler("ZYZ", degrees=True).T
    columns = {
        "rlnImageName": [f"{row + 1:06d}@Extract/job003/a.mrcs" for row in range(N)],
        "rlnMicrographName": [f"MotionCorr/job002/mic{row % 2}.mrc" for row in range(N)],
        "rlnCoordinateX": X,
        "rlnCoordinateY": Y,
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": SHIFT_A[:, 0],
        "rlnOriginYAngst": SHIFT_A[:, 1],
        "rlnDefocusU": [12000] * N,
        "rlnDefocusV": [11000] * N,
        "rlnDefocusAngle": [5] * N,
        "rlnOpticsGroup": [1] * N,
    }
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnVoltage": 300,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": IMAGE_PIXEL_SIZE_A,
        "rlnImageSize": 64,
        "rlnImageDimensionality": 2,
        "rlnMicrographPixelSize": PIXEL_SIZE_A,
    }
    of_optics = {name: value for name, value in changes.items() if name in optics or name in OF_OPTICS}
    optics = {name: [value] for name, value in (optics | of_optics).items() if value is not None}
    columns |= {name: values for name, values in changes.items() if name not in of_optics}
    columns = {name: values for name, values in columns.items() if values is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star(path, [StarBlock.from_columns("optics", optics), StarBlock.from_columns("particles", columns)])
    return path


SOURCES = {"cs": cryosparc, "star": relion}
SHAPE = {("star", "cs"): {"micrograph_shape_px": (NY, NX)}}


def converted(folder, source, target, **options):
    path = SOURCES[source](folder / f"in.{source}")
    return convert(path, folder / f"out.{target}", **SHAPE.get((source, target), {}), **options)


def centres_px(path):
    """Where a file says that its particles are, by its own columns."""
    table = cb.open_table(path)
    if path.suffix == ".star":
        names = ["rlnCoordinateX", "rlnCoordinateY", "rlnOriginXAngst", "rlnOriginYAngst"]
        x, y, shift_x, shift_y = table.read(names).values()
        return np.column_stack([x - shift_x / PIXEL_SIZE_A, y - shift_y / PIXEL_SIZE_A])
    names = [f"location/center_{axis}_frac" for axis in "xy"] + ["alignments3D/shift", "alignments3D/psize_A"]
    x, y, shift_px, pixel_size_A = table.read(names).values()
    place_px = np.column_stack([x, y]).astype(float) * (NX, NY)
    return place_px - shift_px * pixel_size_A[:, None] / PIXEL_SIZE_A


DIRECTIONS = [(source, target) for source in SOURCES for target in SOURCES]


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_whole_pixels_of_the_shifts_go_into_the_coordinates(source, target, tmp_path):
    report = converted(tmp_path, source, target, recenter=True, verify=True)
    report.require()
    out = tmp_path / f"out.{target}"
    found = cb.read(out)
    np.testing.assert_allclose(centres_px(out), CENTRE_PX, atol=2e-3)
    assert (np.abs(found.poses.shift_A) <= PIXEL_SIZE_A / 2 + 1e-5).all()
    moved_px = found.locations.coordinate_px - np.column_stack([X, Y])
    np.testing.assert_allclose(moved_px, np.rint(moved_px), atol=2e-3)
    distance_px = np.hypot(*np.rint(moved_px).T)
    figures = report.recentring
    assert (figures.moved, figures.copies, figures.rows_added) == (np.count_nonzero(distance_px), 1, 0)
    assert figures.nearest_copies_A is None
    assert (figures.median_px, figures.largest_px) == pytest.approx((np.median(distance_px), distance_px.max()))


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_a_part_of_a_symmetric_map_has_a_row_for_each_copy(source, target, tmp_path):
    report = converted(tmp_path, source, target, center_A=PLACE_A, symmetry="C4", verify=True)
    report.require()
    out = tmp_path / f"out.{target}"
    found = centres_px(out)
    # Four quarter turns about z, in any order, of the place in the map.
    turned = np.stack([Rotation.from_euler("z", 90 * turn, degrees=True).apply(PLACE_A) for turn in range(4)])
    expected = CENTRE_PX[:, None] + np.einsum("nij,kj->nki", MATRIX, turned)[..., :2] / PIXEL_SIZE_A
    distance = np.linalg.norm(found.reshape(N, 4, 1, 2) - expected[:, None], axis=3)
    assert distance.min(axis=1).max() < 0.01 and distance.min(axis=2).max() < 0.01
    assert (report.rows_in, report.rows_out, report.recentring.rows_added) == (N, 4 * N, 3 * N)
    assert report.recentring.nearest_copies_A == pytest.approx(np.hypot(24, 15) * np.sqrt(2))
    # Copies of one particle stay in its half of the data.
    half_set = cb.read(out).half_set
    assert half_set is None or (half_set.reshape(N, 4) == half_set[::4, None]).all()


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
@pytest.mark.parametrize("options", [{"recenter": True}, {"center_A": PLACE_A, "symmetry": "D2"}], ids=["own", "part"])
def test_no_image_is_named_and_the_particles_are_found_again(source, target, options, tmp_path):
    report = converted(tmp_path, source, target, **options)
    out = open_particles(tmp_path / f"out.{target}")
    assert out.images() is None
    assert {"recentred", "extract-again"} <= set(codes(report.notes))
    match = match_rows(identities_of(out), identities_of(open_particles(tmp_path / f"in.{source}")))
    k = report.recentring.copies
    assert match.rows.tolist() == [row for row in range(N) for _ in range(k)]


def test_cryosparcs_columns_of_copies(tmp_path):
    report = converted(tmp_path, "cs", "cs", center_A=PLACE_A, symmetry="C4")
    columns = cb.open_table(tmp_path / "out.cs").read(["uid", "sym_expand/src_uid", "sym_expand/idx"])
    source = cb.open_table(tmp_path / "in.cs").read(["uid"])["uid"]
    np.testing.assert_array_equal(columns["sym_expand/src_uid"], np.repeat(source, 4))
    assert columns["sym_expand/idx"].tolist() == [0, 1, 2, 3] * N
    assert len({*columns["uid"].tolist(), *source.tolist()}) == 5 * N
    assert "particle.sym_expand" in (tmp_path / "out.csg").read_text()
    again = converted(tmp_path, "cs", "cs", center_A=PLACE_A, symmetry="C4", overwrite=True)
    assert again.rows_out == report.rows_out
    np.testing.assert_array_equal(cb.open_table(tmp_path / "out.cs").read(["uid"])["uid"], columns["uid"])


def test_particles_without_copies_keep_their_uid(tmp_path):
    converted(tmp_path, "cs", "cs", center_A=PLACE_A)
    np.testing.assert_array_equal(cb.read(tmp_path / "out.cs").uid, cb.read(tmp_path / "in.cs").uid)


def test_select_finds_the_parents_of_copies(tmp_path):
    converted(tmp_path, "cs", "star", center_A=PLACE_A, symmetry="C4")
    result = run("select", "out.star", "--where", "rlnDefocusU < 10400", "-o", "some.star", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    result = run("select", "in.cs", "--like", "some.star", "-o", "parents.cs", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = cb.read(tmp_path / "in.cs").uid[np.linspace(10000, 11000, N) < 10400]
    np.testing.assert_array_equal(cb.read(tmp_path / "parents.cs").uid, expected)


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_select_collapses_copies(source, target, tmp_path):
    converted(tmp_path, source, target, center_A=PLACE_A, symmetry="C4")
    report = select_files(tmp_path / f"out.{target}", tmp_path / f"one.{target}", collapse=True, first=True)
    assert (report.rows_in, report.rows_out) == (4 * N, N)


def extracted(path):
    """What Extract makes of a file: the same rows, with images of their own."""
    text = path.read_text()
    head, rows = text.rstrip().rsplit("_rlnOpticsGroup #", 1)
    number, *rows = rows.splitlines()
    rows = [f"{row} {place:06d}@Extract/job009/a.mrcs" for place, row in enumerate(rows, 1)]
    column = f"_rlnImageName #{int(number) + 1}"
    new = path.with_name("extracted.star")
    new.write_text("\n".join([f"{head}_rlnOpticsGroup #{number}", column, *rows, "", ""]))
    return new


def test_poses_go_onto_images_that_were_extracted_again(tmp_path):
    converted(tmp_path, "cs", "star", recenter=True)
    new = extracted(tmp_path / "out.star")
    report = convert(tmp_path / "in.cs", tmp_path / "onto.star", onto=new)
    assert report.rows_out == N
    # RELION cuts off what is behind the point of a coordinate.
    cut_off = cb.read(new).locations.coordinate_px % 1
    np.testing.assert_allclose(centres_px(tmp_path / "onto.star") - cut_off, CENTRE_PX, atol=2e-3)


def test_poses_do_not_go_onto_parts(tmp_path):
    converted(tmp_path, "cs", "star", center_A=PLACE_A, symmetry="C4")
    new = extracted(tmp_path / "out.star")
    with pytest.raises(CryobridgeError, match="around other centres") as caught:
        convert(tmp_path / "in.cs", tmp_path / "onto.star", onto=new)
    assert caught.value.option == "take"
    report = convert(tmp_path / "in.cs", tmp_path / "onto.star", onto=new, take=("ctf",))
    assert report.rows_out == 4 * N


def test_a_place_on_an_axis_is_written_once(tmp_path):
    report = converted(tmp_path, "star", "star", center_A=(0, 0, 40), symmetry="D2")
    assert (report.rows_out, report.recentring.copies, report.recentring.nearest_copies_A) == (2 * N, 2, 80)
    note = next(item for item in report.notes if item.code == "copies-at-one-place")
    assert "4 copies are at 2 places" in note.text


def test_a_place_beside_an_axis_gets_a_warning(tmp_path):
    report = converted(tmp_path, "star", "star", center_A=(1, 0, 40), symmetry="C4")
    assert report.recentring.copies == 4
    assert "copies-near-each-other" in codes(report.warnings)


def test_columns_that_are_wrong_for_other_images_are_left_out_and_named(tmp_path):
    flat = {"alignments2D/pose": np.ones(N, "f4"), "alignments2D/shift": np.ones((N, 2), "f4")}
    path = cryosparc(tmp_path / "in.cs", **flat, **{"alignments3D/alpha": np.full(N, 0.5, "f4")})
    report = convert(path, tmp_path / "out.cs", recenter=True)
    names = cb.open_table(tmp_path / "out.cs").names
    assert not [name for name in names if name.startswith(("blob/", "alignments2D/"))]
    assert "alignments3D/alpha" in names
    assert {"alignments2D/shift", "blob/sign"} <= set(report.dropped_columns)
    path = relion(tmp_path / "in.star", rlnCtfDataAreCtfPremultiplied=1, rlnAnglePsiPrior=[3.5] * N, rlnX=[7] * N)
    report = convert(path, tmp_path / "out.star", recenter=True)
    star = (tmp_path / "out.star").read_text()
    assert "Premultiplied" not in star and "Prior" not in star and "_rlnX " in star
    assert {"rlnCtfDataAreCtfPremultiplied", "rlnAnglePsiPrior"} <= set(report.dropped_columns)


def test_2d_classes_have_centres_too(tmp_path):
    flat = {
        "alignments2D/pose": np.linspace(-3, 3, N, dtype="f4"),
        "alignments2D/shift": SHIFT_PX,
        "alignments2D/psize_A": np.full(N, IMAGE_PIXEL_SIZE_A, "f4"),
    }
    without = {f"alignments3D/{name}": None for name in ("pose", "shift", "psize_A", "split")}
    path = cryosparc(tmp_path / "in.cs", **flat, **without)
    convert(path, tmp_path / "out.star", recenter=True, verify=True).require()
    np.testing.assert_allclose(centres_px(tmp_path / "out.star"), CENTRE_PX, atol=2e-3)
    with pytest.raises(UsageError, match="2D classes") as caught:
        convert(path, tmp_path / "part.star", center_A=PLACE_A)
    assert caught.value.option == "center_A"


def test_centres_outside_of_the_micrograph_are_left_out(tmp_path):
    place_A = (0, 0, 2500)
    report = converted(tmp_path, "cs", "star", center_A=place_A, symmetry="D2", verify=True)
    report.require()
    turned = np.array([(0, 0, 2500), (0, 0, -2500)])
    expected = (CENTRE_PX[:, None] + np.einsum("nij,kj->nki", MATRIX, turned)[..., :2] / PIXEL_SIZE_A).reshape(-1, 2)
    is_inside = ((expected >= 0) & (expected < (NX, NY))).all(axis=1)
    assert 0 < is_inside.sum() < len(expected)
    np.testing.assert_allclose(centres_px(tmp_path / "out.star"), expected[is_inside], atol=0.01)
    left_out = sum(report.left_out.values())
    assert report.rows_in + report.recentring.rows_added == report.rows_out + left_out
    assert left_out == (~is_inside).sum() and "rows-left-out" in codes(report.warnings)
    with pytest.raises(MissingDataError, match="all of the new centres lie outside"):
        converted(tmp_path, "cs", "star", center_A=(1e6, 1e6, 1e6), overwrite=True)


@pytest.mark.parametrize("target", SOURCES)
def test_on_micrographs_with_reversed_rows_everything_is_mirrored(target, tmp_path):
    """The centre of a part on a reversed micrograph is that on the unreversed one, counted from its other end."""
    other = {"star": "cs", "cs": "star"}[target]
    path = SOURCES[other](tmp_path / f"in.{other}")
    if target == "star":
        micrographs = tmp_path / "micrographs.star"
        listed = "".join(f"MotionCorr/job002/mic{number}.mrc 1\n" for number in range(2))
        micrographs.write_text(
            "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n_rlnSphericalAberration\n"
            f"_rlnAmplitudeContrast\n_rlnMicrographPixelSize\n1 session1 300 2.7 0.1 {PIXEL_SIZE_A}\n\n"
            f"data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{listed}\n"
        )
        shape = {}
    else:
        uid = {"location/micrograph_uid": np.arange(N, dtype="u8") % 2 + 7}
        micrographs = cryosparc(tmp_path / "exposures.cs", **uid)
        shape = {"micrograph_shape_px": (NY, NX)}
    options = {"center_A": PLACE_A, "symmetry": "D2", "verify": True, **shape}
    convert(path, tmp_path / f"plain.{target}", **options).require()
    by_hand = {"swap_xy": False, "flip_y": False, "orientation": "reliosparc"}
    report = convert(path, tmp_path / f"reversed.{target}", micrographs=micrographs, **by_hand, **options)
    report.require()
    plain, mirrored = (centres_px(tmp_path / f"{name}.{target}") for name in ("plain", "reversed"))
    np.testing.assert_allclose(mirrored, np.column_stack([plain[:, 0], NY - 1 - plain[:, 1]]), atol=0.01)


def test_headers_or_an_option_say_the_pixel_size_of_micrographs(tmp_path):
    path = relion(tmp_path / "in.star", rlnMicrographPixelSize=None)
    with pytest.raises(MissingDataError, match="pixel size of the micrographs is missing") as caught:
        convert(path, tmp_path / "out.star", recenter=True)
    assert caught.value.option == "micrograph_pixel_size_A"
    convert(path, tmp_path / "given.star", recenter=True, micrograph_pixel_size_A=PIXEL_SIZE_A)
    np.testing.assert_allclose(centres_px(tmp_path / "given.star"), CENTRE_PX, atol=2e-3)
    for number in range(2):
        save_mrc(tmp_path / f"MotionCorr/job002/mic{number}.mrc", np.zeros((1, 8, 4000), "f4"), PIXEL_SIZE_A)
    with pytest.raises(MissingDataError, match="outside"):  # of micrographs of 8 rows
        convert(path, tmp_path / "out.star", recenter=True)
    for number in range(2):
        save_mrc(tmp_path / f"MotionCorr/job002/mic{number}.mrc", np.zeros((1, NY, 4000), "i1"), PIXEL_SIZE_A)
    report = convert(path, tmp_path / "out.star", recenter=True, verify=True)
    report.require()
    assert "micrograph-pixel-size" in codes(report.notes)
    np.testing.assert_allclose(centres_px(tmp_path / "out.star"), CENTRE_PX, atol=2e-3)
    contradicted = relion(tmp_path / "other.star")
    with pytest.raises(UsageError, match="contradicts the file"):
        convert(contradicted, tmp_path / "no.star", recenter=True, micrograph_pixel_size_A=1.1)


REFUSED = {
    "symmetry without a place": ("cs", "star", {"symmetry": "C4"}, "would do nothing"),
    "an unknown group": ("cs", "star", {"center_A": PLACE_A, "symmetry": "X9"}, "no group of rotations"),
    "links": ("cs", "star", {"recenter": True, "link_stacks": "links"}, "would do nothing"),
    "contrast": ("star", "cs", {"recenter": True, "contrast": "dark"}, "would do nothing"),
    "a pixel size for nothing": ("cs", "star", {"micrograph_pixel_size_A": 1.25}, "would do nothing"),
    "pickles": ("cs", "pickles", {"recenter": True, "to": "pickles"}, "would do nothing"),
    "two numbers": ("cs", "star", {"center_A": (1.0, 2.0)}, "3 values are needed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_nothing_are_refused(case, tmp_path):
    source, target, options, message = REFUSED[case]
    path = SOURCES[source](tmp_path / f"in.{source}")
    with pytest.raises(UsageError, match=message):
        convert(path, tmp_path / (target if target == "pickles" else f"out.{target}"), **options)


LACKING = {
    "coordinates": ("star", {"rlnCoordinateX": None, "rlnCoordinateY": None}, "no coordinates"),
    "poses": ("star", {"rlnAngleRot": None, "rlnAngleTilt": None, "rlnAnglePsi": None}, "no poses"),
    "shifts": ("star", {"rlnOriginXAngst": None, "rlnOriginYAngst": None}, "no shifts"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_is_needed_is_asked_for(case, tmp_path):
    source, changes, message = LACKING[case]
    path = SOURCES[source](tmp_path / f"in.{source}", **changes)
    with pytest.raises(MissingDataError, match=message):
        convert(path, tmp_path / "out.star", recenter=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused_with_their_row(value, tmp_path):
    shift_px = SHIFT_PX.copy()
    shift_px[4, 1] = value
    path = cryosparc(tmp_path / "in.cs", **{"alignments3D/shift": shift_px})
    with pytest.raises(CryobridgeError) as caught:
        convert(path, tmp_path / "out.star", center_A=PLACE_A, symmetry="D2")
    assert not (tmp_path / "out.star").exists() and "outside" not in str(caught.value)
    # Coordinates are right in the file: the shift is what is to be corrected, or left out by.
    assert caught.value.field == "alignments3D/shift" and "location/" not in caught.value.hint


def test_cryosparcs_fractions_need_the_size_of_micrographs(tmp_path):
    path = relion(tmp_path / "in.star")
    with pytest.raises(MissingDataError, match="size of the micrographs is missing") as caught:
        convert(path, tmp_path / "out.cs", recenter=True)
    assert caught.value.option == "micrograph_shape_px"


def test_a_centre_that_reads_back_elsewhere_is_found(tmp_path):
    path = cryosparc(tmp_path / "in.cs")
    plan = plan_convert(path, tmp_path / "out.star", ConvertOptions(center_A=tuple(PLACE_A), symmetry="C4"))
    write_plan(plan)
    good = {item.quantity: item.is_good for item in verify(plan)}
    assert good["centres"] and all(good.values())
    wrong = replace(plan, recentred=replace(plan.recentred, center_A=PLACE_A + np.array([0, 0, 0.5])))
    assert not {item.quantity: item.is_good for item in verify(wrong)}["centres"]


def test_on_the_command_line(tmp_path):
    cryosparc(tmp_path / "in.cs")
    words = ("convert", "in.cs", "-o", "out.star", "--center", "-24,15.5,+51", "--symmetry", "c4")
    result = run(*words, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["rows_in"], found["rows_out"], found["recentring"]["copies"]) == (N, 4 * N, 4)
    shown = run(*words, "--overwrite", cwd=tmp_path)
    assert "40, 4 copies of 10" in shown.stdout
    for wrong, said in (
        ("1,2", "3 numbers are needed"),
        ("a,b,c", "'a' is no number"),
        ("1,2,nan", "'nan' is no number"),
    ):
        refused = run("convert", "in.cs", "-o", "b.star", "--center", wrong, cwd=tmp_path)
        assert refused.returncode == 2 and said in refused.stderr


def test_a_set_in_memory_is_recentred(tmp_path):
    particles = cb.read(relion(tmp_path / "in.star")).take(np.array([3, 1]))
    cb.write(particles, tmp_path / "out.star", recenter=True)
    np.testing.assert_allclose(centres_px(tmp_path / "out.star"), CENTRE_PX[[3, 1]], atol=2e-3)


def test_the_output_can_be_looked_at(tmp_path):
    converted(tmp_path, "cs", "star", center_A=PLACE_A, symmetry="C4")
    converted(tmp_path, "cs", "cs", center_A=PLACE_A, symmetry="C4")
    for name in ("out.star", "out.cs"):
        result = run("inspect", name, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    with pytest.raises(MissingDataError) as caught:
        convert(tmp_path / "out.star", tmp_path / "again.cs")
    assert "extracted first" in caught.value.hint
