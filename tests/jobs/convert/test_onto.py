"""`convert --onto`: particles of one file onto the rows of another, which keep all that is not taken.

What is expected is computed here, by scipy's rotations and plain numpy, not by cryobridge.
"""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryobridge as cb
from cryobridge.errors import CryobridgeError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.csg import read_csg
from helpers import codes, particle_columns, run, save_cs
from relion_grammar import read_block

N = 6
STACKS = ["J3/extract/a.mrc", "J3/extract/b.mrc"]
ORDER = [4, 0, 5, 2, 1, 3]  # of the rows of the other file


def rng(seed=0):
    return np.random.default_rng(seed)


def cs_columns(n=N, **changes):
    numbers = np.arange(n)
    columns = particle_columns([STACKS[row % 2] for row in range(n)], numbers // 2)
    columns |= {
        "ctf/bfactor": np.zeros(n, "f4"),
        "ctf/scale": np.ones(n, "f4"),
        "alignments3D/pose": rng(1).normal(size=(n, 3)).astype("f4"),
        "alignments3D/shift": rng(2).uniform(-4, 4, (n, 2)).astype("f4"),
        "alignments3D/psize_A": np.full(n, 3.0, "f4"),
        "alignments3D/split": (numbers % 2).astype("u4"),
        "alignments3D/class": (numbers % 3).astype("u4"),
        "alignments3D/error": np.full(n, 7, "f4"),
    }
    return columns | {name.replace("__", "/"): values for name, values in changes.items()}


def save(path, columns):
    return save_cs(path, columns)


def save_star(path, rows, *, optics=None, three_point_zero=False, names=(), others=""):
    """A STAR file of these rows of the particles, each a line of texts."""
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnVoltage\n_rlnSphericalAberration\n"
    head += "_rlnAmplitudeContrast\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"
    head += (optics or "1 krios 300 2.7 0.1 1.5 16 2\n") + "\n"
    block = "data_\n" if three_point_zero else "data_particles\n"
    text = ("" if three_point_zero else head) + block + "\nloop_\n" + "".join(f"_{name}\n" for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "".join(f"{row}\n" for row in rows) + "\n" + others)
    return path


def image(row):
    return f"{row // 2 + 1:06d}@Extract/{STACKS[row % 2]}s"


def base_star(path, order=ORDER, **more):
    names = ("rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnOwnColumn", "rlnAnglePsi", "rlnAnglePsiPrior")
    rows = [f"{image(row)} mic{row}.mrc 1 own{row} 77 33" for row in order]
    return save_star(path, rows, names=names, **more)


def table(path, name="particles"):
    labels, rows, _ = read_block(path.read_text(), name)
    return {label: [row[place] for row in rows] for place, label in enumerate(labels)}


def numbers(columns, name):
    return np.array(columns[name], float)


def angles_of(pose):
    return Rotation.from_rotvec(pose).as_matrix()


def written_angles(columns):
    angles = [numbers(columns, f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")]
    return Rotation.from_euler("ZYZ", np.column_stack(angles), degrees=True).as_matrix()


def test_rows_of_a_star_file_get_poses_and_keep_all_else(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4" / "J4_003_particles.cs", columns)
    base = base_star(tmp_path / "base.star", others="data_job\n\n_rlnJobTypeLabel relion.extract\n")
    report = cb.convert(source, tmp_path / "out.star", onto=base, verify=True)
    found = table(tmp_path / "out.star")
    assert found["rlnImageName"] == [image(row) for row in ORDER]
    assert found["rlnMicrographName"] == [f"mic{row}.mrc" for row in ORDER]
    assert found["rlnOwnColumn"] == [f"own{row}" for row in ORDER]
    assert "rlnJobTypeLabel" in (tmp_path / "out.star").read_text()
    np.testing.assert_allclose(written_angles(found), angles_of(columns["alignments3D/pose"][ORDER]), atol=1e-6)
    shift_A = columns["alignments3D/shift"][ORDER] * 3.0
    np.testing.assert_allclose(numbers(found, "rlnOriginXAngst"), shift_A[:, 0], atol=1e-5)
    np.testing.assert_allclose(numbers(found, "rlnOriginYAngst"), shift_A[:, 1], atol=1e-5)
    np.testing.assert_allclose(numbers(found, "rlnDefocusU"), columns["ctf/df1_A"][ORDER], atol=1e-3)
    np.testing.assert_allclose(
        numbers(found, "rlnDefocusAngle"), np.degrees(columns["ctf/df_angle_rad"][ORDER]), atol=1e-4
    )
    assert numbers(found, "rlnRandomSubset").tolist() == [row % 2 + 1 for row in ORDER]
    assert numbers(found, "rlnClassNumber").tolist() == [row % 3 + 1 for row in ORDER]
    # The prior is where an earlier search began.
    assert "rlnAnglePsiPrior" not in found
    onto = report.onto
    assert (onto.matched.by, onto.rows, onto.source_rows, onto.copies) == ("image", N, N, 0)
    assert (onto.rows_without_partner, onto.source_rows_not_used) == (0, 0)
    assert onto.removed == ("rlnAnglePsiPrior",)
    assert "rlnAnglePsi" in onto.replaced and "rlnDefocusU" in onto.added
    assert (report.rows_in, report.rows_out) == (N, N)
    assert all(item.is_good for item in report.verified)


def test_only_what_is_asked_for_is_taken(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns())
    report = cb.convert(source, tmp_path / "out.star", onto=base_star(tmp_path / "base.star"), take=("ctf",))
    found = table(tmp_path / "out.star")
    assert set(found["rlnAnglePsi"]) == {"77"} and set(found["rlnAnglePsiPrior"]) == {"33"}
    assert "rlnOriginXAngst" not in found and "rlnDefocusV" in found
    assert report.onto.take == ("ctf",)


def test_shifts_are_pixels_of_the_images_in_the_layout_of_relion_3_0(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4_003_particles.cs", columns)
    names = ("rlnImageName", "rlnMagnification", "rlnDetectorPixelSize", "rlnOriginX", "rlnOriginY")
    rows = [f"{image(row)} 10000 2.5 9 9" for row in ORDER]
    base = save_star(tmp_path / "base.star", rows, names=names, three_point_zero=True)
    cb.convert(source, tmp_path / "out.star", onto=base, take=("poses",))
    found = table(tmp_path / "out.star", "")
    np.testing.assert_allclose(
        numbers(found, "rlnOriginX"), columns["alignments3D/shift"][ORDER, 0] * 3.0 / 2.5, atol=1e-5
    )
    assert "rlnOriginXAngst" not in found and set(found["rlnMagnification"]) == {"10000"}


def test_pixel_size_and_box_are_needed_only_where_shifts_count_in_pixels(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4_003_particles.cs", columns)
    bare = save_star(tmp_path / "bare.star", map(image, ORDER), names=("rlnImageName",), three_point_zero=True)
    with pytest.raises(MissingDataError, match="in which its shifts count"):
        cb.convert(source, tmp_path / "out.star", onto=bare)
    cb.convert(source, tmp_path / "out.star", onto=bare, take=("half_sets",))
    rows = [f"{image(row)} 1" for row in ORDER]
    base = save_star(tmp_path / "base.star", rows, names=("rlnImageName", "rlnOpticsGroup"))
    text = base.read_text().replace("_rlnImagePixelSize\n_rlnImageSize\n", "").replace(" 1.5 16 2\n", " 2\n")
    base.write_text(text)
    cb.convert(source, tmp_path / "out2.star", onto=base)
    found = table(tmp_path / "out2.star")
    np.testing.assert_allclose(
        numbers(found, "rlnOriginXAngst"), columns["alignments3D/shift"][ORDER, 0] * 3, atol=1e-5
    )


def cs_base(folder, **changes):
    """A result in two files and their group: the alignments in the first, images and CTF in the passthrough file."""
    columns = cs_columns(**changes)
    main = {name: columns[name][ORDER] for name in columns if name == "uid" or name.startswith("alignments3D/")}
    main["alignments3D/local_pose"] = np.ones((N, 3), "f4")
    other = {name: np.asarray(columns[name])[ORDER[::-1]] for name in columns if not name.startswith("alignments3D/")}
    folder.mkdir()
    write_cs(folder / "J9_002_particles.cs", main)
    save(folder / "J9_passthrough_particles.cs", other)
    return folder / "J9_002_particles.cs"


def test_rows_of_a_cs_file_get_poses_and_keep_passthrough_file_and_group(tmp_path):
    names = ("rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    names = (*names, "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber")
    angles, shift_A = rng(5).uniform(1, 170, (N, 3)).round(3), rng(6).uniform(-9, 9, (N, 2)).round(3)
    rows = [" ".join(map(str, (image(row), 1, *angles[row], *shift_A[row], row % 3 + 1))) for row in range(N)]
    source = save_star(tmp_path / "run_data.star", rows, names=names)
    base = cs_base(tmp_path / "J9")
    report = cb.convert(source, tmp_path / "out.cs", onto=base, verify=True)
    assert [path.name for path in report.outputs] == ["out.cs", "out_passthrough.cs", "out.csg"]
    main, other = (open_cs(tmp_path / name) for name in ("out.cs", "out_passthrough.cs"))
    found = main.read(main.names)
    np.testing.assert_array_equal(found["uid"], cs_columns()["uid"][ORDER])
    expected = Rotation.from_euler("ZYZ", angles[ORDER], degrees=True).as_matrix()
    np.testing.assert_allclose(angles_of(found["alignments3D/pose"]), expected, atol=1e-6)
    np.testing.assert_allclose(
        found["alignments3D/shift"] * found["alignments3D/psize_A"][:, None], shift_A[ORDER], atol=1e-5
    )
    np.testing.assert_allclose(found["alignments3D/psize_A"], 1.5)
    assert found["alignments3D/class"].tolist() == [row % 3 for row in ORDER]
    # Half sets were not there to be taken; errors were those of other poses.
    assert found["alignments3D/split"].tolist() == [row % 2 for row in ORDER]
    assert not found["alignments3D/error"].any() and "alignments3D/local_pose" not in found
    np.testing.assert_array_equal(other.read(["ctf/df1_A"])["ctf/df1_A"], cs_columns()["ctf/df1_A"][ORDER])
    slots = {slot.name: slot.metafile.name for slot in read_csg(tmp_path / "out.csg").slots}
    assert slots["alignments3D"] == "out.cs" and slots["blob"] == "out_passthrough.cs"
    assert "alignments3D/local_pose" in report.onto.removed
    assert all(item.is_good for item in report.verified)
    assert cb.read(tmp_path / "out.cs").poses.shift_A == pytest.approx(shift_A[ORDER], abs=1e-5)


def test_another_cs_file_gives_its_own_measures_of_the_fit_along(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns(alignments3D__error=np.arange(N, dtype="f4")))
    report = cb.convert(source, tmp_path / "out.cs", onto=cs_base(tmp_path / "J9"), take=("poses", "classes"))
    found = open_cs(tmp_path / "out.cs").read(["alignments3D/error"])["alignments3D/error"]
    assert found.tolist() == ORDER and report.onto.matched.by == "uid"
    assert "fit-columns-zero" not in codes(report.messages)


def test_symmetry_copies_are_one_row_each(tmp_path):
    columns = cs_columns(12)
    parent = np.tile(np.arange(N), 2)
    columns |= {
        "uid": np.arange(100, 112, dtype="u8"),
        "blob/path": [STACKS[row % 2] for row in parent],
        "blob/idx": (parent // 2).astype("u4"),
        "sym_expand/src_uid": cs_columns()["uid"][parent],
        "sym_expand/idx": (np.arange(12) // N).astype("u4"),
    }
    source = save(tmp_path / "J4_003_particles.cs", columns)
    copies = [row + N * copy for row in ORDER for copy in (0, 1)]
    report = cb.convert(source, tmp_path / "out.star", onto=base_star(tmp_path / "base.star"))
    found = table(tmp_path / "out.star")
    assert found["rlnOwnColumn"] == [f"own{row}" for row in ORDER for _ in range(2)]
    np.testing.assert_allclose(written_angles(found), angles_of(columns["alignments3D/pose"][copies]), atol=1e-6)
    assert (report.onto.rows, report.onto.copies, report.rows_in, report.rows_out) == (N, N, 2 * N, 2 * N)
    # Onto a .cs file under other image names: the parents are known by their uid, the copies keep their own.
    base = cs_base(tmp_path / "J9", blob__path=np.array(["J8/other.mrc"] * N), blob__idx=np.arange(N, dtype="u4"))
    report = cb.convert(source, tmp_path / "out.cs", onto=base)
    main, other = (open_cs(tmp_path / name) for name in ("out.cs", "out_passthrough.cs"))
    found = main.read(["uid", "alignments3D/pose"])
    assert found["uid"].tolist() == columns["uid"][copies].tolist() == other.read(["uid"])["uid"].tolist()
    assert other.read(["blob/idx"])["blob/idx"].tolist() == [row for row in ORDER for _ in range(2)]
    poses = angles_of(found["alignments3D/pose"])
    np.testing.assert_allclose(poses, angles_of(columns["alignments3D/pose"][copies]), atol=1e-6)
    expanded = main.read(["sym_expand/src_uid", "sym_expand/idx"])
    assert expanded["sym_expand/src_uid"].tolist() == cs_columns()["uid"][np.repeat(ORDER, 2)].tolist()
    assert expanded["sym_expand/idx"].tolist() == [0, 1] * N


def test_copies_of_a_star_file_have_uids_of_their_own(tmp_path):
    names = ("rlnImageName", "rlnOpticsGroup", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    rows = [f"{image(row)} 1 {10 * copy + 1} 20 {row}" for copy in range(3) for row in range(N)]
    source = save_star(tmp_path / "run_data.star", rows, names=names)
    cb.convert(source, tmp_path / "out.cs", onto=cs_base(tmp_path / "J9"))
    table_of = open_cs(tmp_path / "out.cs")
    found = table_of.read(["uid", "sym_expand/src_uid", "sym_expand/idx", "alignments3D/pose"])
    assert len(set(found["uid"].tolist())) == 3 * N
    assert found["sym_expand/src_uid"].tolist() == cs_columns()["uid"][np.repeat(ORDER, 3)].tolist()
    assert found["sym_expand/idx"].tolist() == [0, 1, 2] * N
    angles = [(10 * copy + 1, 20, row) for row in ORDER for copy in range(3)]
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    np.testing.assert_allclose(angles_of(found["alignments3D/pose"]), expected, atol=1e-6)
    assert cb.read(tmp_path / "out_passthrough.cs").uid.tolist() == found["uid"].tolist()


def test_copies_of_the_base_all_get_what_their_particle_has(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns())
    base = base_star(tmp_path / "base.star", order=[*ORDER, *ORDER])
    report = cb.convert(source, tmp_path / "out.star", onto=base, take=("ctf",))
    found = table(tmp_path / "out.star")
    assert found["rlnOwnColumn"] == [f"own{row}" for row in (*ORDER, *ORDER)] and report.onto.copies == 0
    np.testing.assert_allclose(numbers(found, "rlnDefocusU"), cs_columns()["ctf/df1_A"][[*ORDER, *ORDER]], atol=1e-3)
    # Where both have copies nothing says which is which.
    rows = [f"{image(row)} 1 20" for row in (*ORDER, *ORDER)]
    expanded = save_star(tmp_path / "source.star", rows, names=("rlnImageName", "rlnOpticsGroup", "rlnAngleRot"))
    with pytest.raises(CryobridgeError, match="several rows of a particle, and so has"):
        cb.convert(expanded, tmp_path / "out2.star", onto=base)


def test_rows_without_a_partner(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4_003_particles.cs", {name: np.asarray(each)[:4] for name, each in columns.items()})
    base = base_star(tmp_path / "base.star", order=[5, 0, 3])
    report = cb.convert(source, tmp_path / "out.star", onto=base)
    assert table(tmp_path / "out.star")["rlnOwnColumn"] == ["own0", "own3"]
    assert report.left_out == {"no partner": 1} and (report.rows_in, report.rows_out) == (3, 2)
    assert (report.onto.rows_without_partner, report.onto.source_rows_not_used) == (1, 2)
    assert {"rows-without-partner"} <= set(codes(report.warnings)) and "rows-not-used" in codes(report.notes)
    with pytest.raises(CryobridgeError, match="1 of 3 rows has no partner"):
        cb.convert(source, tmp_path / "out2.star", onto=base, unmatched="error")
    # There is no word for no pose, but for no B-factor and no class.
    with pytest.raises(CryobridgeError, match="no orientation, for which there is no word"):
        cb.convert(source, tmp_path / "out2.star", onto=base, unmatched="keep", take=("poses",))
    report = cb.convert(source, tmp_path / "out2.star", onto=base, unmatched="keep", take=("classes",))
    found = table(tmp_path / "out2.star")
    assert found["rlnClassNumber"] == ["0", "1", "1"] and found["rlnOwnColumn"] == ["own5", "own0", "own3"]
    assert report.left_out == {} and report.rows_out == 3


def test_rows_that_are_kept_keep_their_values(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4_003_particles.cs", {name: np.asarray(each)[:4] for name, each in columns.items()})
    old = {name: np.full_like(columns[name], 3) for name in columns if name.startswith("alignments3D/")}
    old["alignments3D/split"] = np.ones(N, "u4")
    base = cs_base(tmp_path / "J9", **{name.replace("/", "__"): values for name, values in old.items()})
    cb.convert(source, tmp_path / "out.cs", onto=base, unmatched="keep", take=("poses", "half_sets"))
    found = open_cs(tmp_path / "out.cs").read(["alignments3D/pose", "alignments3D/error", "alignments3D/split"])
    for place, row in enumerate(ORDER):
        pose = columns["alignments3D/pose"][row] if row < 4 else [3, 3, 3]
        np.testing.assert_allclose(*(angles_of(each) for each in (found["alignments3D/pose"][place], pose)), atol=1e-6)
        assert found["alignments3D/error"][place] == (7 if row < 4 else 3)
        assert found["alignments3D/split"][place] == (row % 2 if row < 4 else 1)


def test_microscopes_that_differ_are_said(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns(ctf__tilt_A=np.full((N, 2), 500, "f4")))
    base = base_star(tmp_path / "base.star", optics="1 krios 200 2.7 0.1 1.5 16 2\n")
    report = cb.convert(source, tmp_path / "out.star", onto=base)
    said = {message.code: str(message) for message in report.warnings}
    assert "voltage (200, not 300) of base.star differ" in said["optics-differ"]
    assert "aberrations-not-taken" in said
    assert table(tmp_path / "out.star", "optics")["rlnVoltage"] == ["200"]


def test_aberrations_go_to_the_optics_groups_where_each_has_one(tmp_path):
    tilt_A = np.zeros((N, 2), "f4")
    tilt_A[:3] = (1000, -2000)
    source = save(tmp_path / "J4_003_particles.cs", cs_columns(ctf__tilt_A=tilt_A))
    optics = "1 one 300 2.7 0.1 1.5 16 2\n2 two 300 2.7 0.1 1.5 16 2\n"
    names = ("rlnImageName", "rlnOpticsGroup")
    base = save_star(
        tmp_path / "base.star", [f"{image(row)} {1 + (row < 3)}" for row in ORDER], names=names, optics=optics
    )
    cb.convert(source, tmp_path / "out.star", onto=base, take=("poses", "ctf", "aberrations"))
    found = table(tmp_path / "out.star", "optics")
    mrad = -1e3 * np.arcsin(np.array([1000, -2000]) / 2.7e7)
    np.testing.assert_allclose(numbers(found, "rlnBeamTiltX"), [0, mrad[0]], atol=1e-6)
    np.testing.assert_allclose(numbers(found, "rlnBeamTiltY"), [0, mrad[1]], atol=1e-6)
    assert found["rlnOpticsGroupName"] == ["one", "two"]
    with pytest.raises(CryobridgeError, match="different aberrations"):
        cb.convert(
            source, tmp_path / "out2.star", onto=base_star(tmp_path / "one.star"), take=("poses", "ctf", "aberrations")
        )


def test_boxes_that_were_centred_again_under_the_same_uid_move_the_shifts(tmp_path):
    shape, psize_A = (400, 600), 2.0
    where = rng(8).integers(60, 300, (N, 2))

    def located(moved_px):
        x, y = (where + moved_px).T
        return {
            "location__micrograph_path": np.array(["J2/mic.mrc"] * N),
            "location__micrograph_shape": np.full((N, 2), shape, "u4"),
            "location__center_x_frac": (x / shape[1]).astype("f4"),
            "location__center_y_frac": (y / shape[0]).astype("f4"),
            "location__micrograph_psize_A": np.full(N, psize_A, "f4"),
        }

    columns = cs_columns(**located(0))
    source = save(tmp_path / "J4_003_particles.cs", columns)
    moved = rng(9).integers(-2, 3, (N, 2))
    base = cs_base(tmp_path / "J9", blob__path=np.array(["J8/again.mrc"] * N), **located(moved))
    report = cb.convert(source, tmp_path / "out.cs", onto=base, take=("poses",))
    # The particle's centre is the box's minus the shift, in both files.
    centre_A = where * psize_A - columns["alignments3D/shift"] * 3.0
    expected = (where + moved) * psize_A - centre_A
    np.testing.assert_allclose(cb.read(tmp_path / "out.cs").poses.shift_A, expected[ORDER], atol=1e-3)
    assert report.onto.offset_largest_A == pytest.approx(np.hypot(*moved.T).max() * psize_A, rel=1e-3)
    far = cs_base(tmp_path / "J10", blob__path=np.array(["J8/again.mrc"] * N), **located(moved + 50))
    with pytest.raises(CryobridgeError, match="further than half of the box"):
        cb.convert(source, tmp_path / "out2.cs", onto=far, take=("poses",))


def test_the_demo_goes_to_relions_particles_and_back_by_place(demo_project, tmp_path):
    # RELION's micrographs have reversed rows, and its boxes lie a pixel beside cryoSPARC's.
    job, classes = demo_project.particles_cs.parent, demo_project.relion / "Class2D" / "job004"
    there = cb.convert(job, tmp_path / "there.star", onto=classes, take=("poses", "ctf", "half_sets"))
    assert there.onto.matched.by == "place" and there.onto.matched.places.axes == "x = nx·fx, y = ny − 1 − ny·fy"
    before, on_relions = cb.read(job), cb.read(tmp_path / "there.star")
    row = {uid: place for place, uid in enumerate(before.uid.tolist())}
    cb.convert(tmp_path / "there.star", tmp_path / "back.cs", onto=job, take=("poses", "ctf", "half_sets"))
    back = cb.read(tmp_path / "back.cs")
    same = [row[uid] for uid in back.uid.tolist()]
    np.testing.assert_allclose(back.poses.matrix, before.poses.matrix[same], atol=1e-6)
    np.testing.assert_allclose(back.poses.shift_A, before.poses.shift_A[same], atol=1e-3)
    np.testing.assert_allclose(
        np.exp(2j * back.ctf.defocus_angle_rad), np.exp(2j * before.ctf.defocus_angle_rad[same]), atol=1e-5
    )
    # The particles' centres are the same places of the micrographs, by their own few lines.
    order = np.argsort(on_relions.images.index + 1000 * on_relions.locations.micrograph.codes.astype(int))
    centre = (on_relions.locations.coordinate_px - on_relions.poses.shift_A / 1.5)[order]
    ny = before.locations.shape_px[0, 0]
    x, y = (before.locations.coordinate_px - before.poses.shift_A / 1.5).T
    distance = np.hypot(*(centre[:, np.newaxis] - np.column_stack([x, ny - 1 - y])).transpose(2, 0, 1))
    assert (np.sort(distance.min(axis=1)) < 0.01).all()


def test_classes_are_chosen_and_sets_in_memory_are_taken_too(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns())
    report = cb.convert(source, tmp_path / "out.star", onto=base_star(tmp_path / "base.star"), classes=(0, 2))
    assert table(tmp_path / "out.star")["rlnOwnColumn"] == [f"own{row}" for row in ORDER if row % 3 != 1]
    assert report.onto.source_rows == 4 and report.onto.rows_without_partner == 2
    cb.convert(cb.read(source), tmp_path / "again.star", onto=tmp_path / "base.star", classes=(0, 2))
    assert table(tmp_path / "again.star") == table(tmp_path / "out.star")


def test_poses_of_smaller_images_go_to_those_that_relion_extracted_again_in_full_size(tmp_path):
    n, random = 60, rng(11)
    x, y = random.integers(100, 3900, (2, n))
    angles, shift_A = random.uniform(1, 170, (n, 3)).round(3), random.uniform(-9, 9, (n, 2)).round(3)
    names = ("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnOpticsGroup")
    posed = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    small = [
        f"{row // 2 + 1:06d}@Extract/job010/Movies/m{row % 2}.mrcs m{row % 2}.mrc {x[row]} {y[row]} 1 "
        + " ".join(map(str, (*angles[row], *shift_A[row])))
        for row in range(n)
    ]
    optics = "1 krios 300 2.7 0.1 {} {} 2\n"
    source = save_star(tmp_path / "run_data.star", small, names=(*names, *posed), optics=optics.format(4.0, 64))
    # Others were extracted, so that numbers in the stacks are others; some were centred by RELION meanwhile.
    kept = random.permutation(n)[:40]
    moved = random.integers(-3, 4, (n, 2))
    full = [
        f"{place + 1:06d}@Extract/job020/Movies/m{row % 2}.mrcs m{row % 2}.mrc {x[row] + moved[row, 0]} "
        f"{y[row] + moved[row, 1]} 1"
        for place, row in enumerate(kept)
    ]
    base = save_star(tmp_path / "particles.star", full, names=names, optics=optics.format(1.0, 256))
    for path in (source, base):
        text = path.read_text().replace("_rlnImagePixelSize\n", "_rlnImagePixelSize\n_rlnMicrographPixelSize\n")
        path.write_text(text.replace(" 4.0 64 2", " 4.0 1.0 64 2").replace(" 1.0 256 2", " 1.0 1.0 256 2"))
    report = cb.convert(source, tmp_path / "out.star", onto=base, take=("poses",))
    assert report.onto.matched.by == "place" and report.onto.source_rows_not_used == 20
    found = table(tmp_path / "out.star")
    expected = Rotation.from_euler("ZYZ", angles[kept], degrees=True).as_matrix()
    np.testing.assert_allclose(written_angles(found), expected, atol=1e-6)
    origin_A = np.column_stack([numbers(found, f"rlnOrigin{axis}Angst") for axis in "XY"])
    np.testing.assert_allclose(origin_A, shift_A[kept] + moved[kept] * 1.0, atol=1e-4)
    assert table(tmp_path / "out.star", "optics")["rlnImageSize"] == ["256"]


def test_aberrations_of_a_star_file_go_to_the_rows_of_a_cs_file(tmp_path):
    names = ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    rows = [f"{image(row)} 1 {9000 + row} 8000 10" for row in range(N)]
    source = save_star(tmp_path / "run_data.star", rows, names=names, optics="1 krios 300 2.7 0.1 1.5 16 2 0.5 -0.25\n")
    text = source.read_text().replace("Dimensionality\n", "Dimensionality\n_rlnBeamTiltX\n_rlnBeamTiltY\n")
    source.write_text(text)
    base = cs_base(tmp_path / "J9", ctf__tilt_A=np.ones((N, 2), "f4"))
    cb.convert(source, tmp_path / "out.cs", onto=base, take=("ctf", "aberrations"))
    found = open_cs(tmp_path / "out_passthrough.cs").read(["ctf/tilt_A", "ctf/df1_A", "ctf/accel_kv"])
    tilt_A = -2.7e7 * np.sin(np.array([0.5, -0.25]) / 1e3)
    np.testing.assert_allclose(found["ctf/tilt_A"], np.tile(tilt_A, (N, 1)), rtol=1e-5)
    assert found["ctf/df1_A"].tolist() == [9000 + row for row in ORDER]


def test_half_sets_that_do_not_split_any_more_are_left_out(tmp_path):
    columns = cs_columns()
    source = save(tmp_path / "J4_003_particles.cs", {name: np.asarray(each)[:2] for name, each in columns.items()})
    rows = [f"{image(row)} 1 {1 + (row > 1)}" for row in ORDER]
    base = save_star(tmp_path / "base.star", rows, names=("rlnImageName", "rlnOpticsGroup", "rlnRandomSubset"))
    report = cb.convert(source, tmp_path / "out.star", onto=base, take=("poses",))
    assert "rlnRandomSubset" not in table(tmp_path / "out.star") and "half-sets-left-out" in codes(report.warnings)


def test_what_is_lacking_or_does_nothing_is_refused(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns())
    base = base_star(tmp_path / "base.star")
    bare = {name: each for name, each in cs_columns().items() if not name.startswith("alignments3D/")}
    bare = save(tmp_path / "J5_003_particles.cs", bare)
    with pytest.raises(MissingDataError, match="it has no poses"):
        cb.convert(bare, tmp_path / "out.star", onto=base, take=("poses", "ctf"))
    for options in ({"relion": "5"}, {"link_stacks": tmp_path}, {"copy": True}, {"reextract": True}):
        with pytest.raises(UsageError, match="nothing with onto="):
            cb.convert(source, tmp_path / "out.star", onto=base, **options)
    with pytest.raises(UsageError, match="would do nothing here"):
        cb.convert(source, tmp_path / "out.star", take=("poses",))
    with pytest.raises(UsageError, match=r"rows of base.star go into a .star file"):
        cb.convert(source, tmp_path / "out.cs", onto=base)
    with pytest.raises(UsageError, match="the output is one of the inputs"):
        cb.convert(source, base, onto=base, overwrite=True)


def test_the_command_says_what_became_of_the_rows(tmp_path):
    source = save(tmp_path / "J4_003_particles.cs", cs_columns())
    base = base_star(tmp_path / "base.star")
    words = ("convert", source, "--onto", base, "-o", tmp_path / "out.star", "--take", "poses,half_sets")
    result = run(*words, "--json")
    assert result.returncode == 0, result.stderr
    data = json.loads(result.stdout)["onto"]
    assert data["take"] == ["poses", "half_sets"] and data["rows"] == N and data["matched"]["by"] == "image"
    assert "rlnAngleRot" in data["added"]
    result = run(*words, "--overwrite")
    assert "6 of 6 rows" in result.stdout and "poses, half_sets" in result.stdout
    result = run("convert", source, "--onto", base, "-o", tmp_path / "out2.star", "--take", "pose")
    assert result.returncode == 2 and "poses, ctf" in result.stderr


def test_rows_without_images_are_known_by_their_uids_and_need_none(tmp_path):
    columns = cs_columns()
    base = {name: values for name, values in cs_columns().items() if not name.startswith(("blob/", "alignments3D/"))}
    source = save(tmp_path / "a.cs", columns)
    report = cb.convert(source, tmp_path / "out.cs", onto=save(tmp_path / "b.cs", base), take="poses")
    assert report.rows_out == N and report.onto.matched.by == "uid"
    found = open_cs(tmp_path / "out.cs")
    np.testing.assert_allclose(found.read(["alignments3D/pose"])["alignments3D/pose"], columns["alignments3D/pose"])
    assert not any(name.startswith("blob/") for name in found.names)
