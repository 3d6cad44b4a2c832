"""Several particle files as one."""

from pathlib import Path

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, MissingDataError, UsageError, shown
from cryobridge.formats.cryosparc.cs import open_cs, write_cs
from cryobridge.formats.cryosparc.csg import read_csg, write_csg
from cryobridge.formats.merged import check_rows, merged_files
from cryobridge.formats.open import open_particles
from cryobridge.formats.relion.star import StarBlock, open_star
from cryobridge.formats.relion.star_write import write_star
from cryobridge.formats.write import RowWriter
from helpers import particle_columns, save_mrc, texts

KRIOS = {"rlnOpticsGroupName": "krios", "rlnOpticsGroup": 1, "rlnVoltage": 300.0, "rlnImagePixelSize": 1.06}
KRIOS |= {"rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1, "rlnImageSize": 64}
CTF = {"rlnDefocusU": 1e4, "rlnDefocusV": 1e4, "rlnDefocusAngle": 0.0}


def star(path, optics, n=2, **columns):
    """Write a STAR file with the optics groups and ``n`` particles of the last of them."""
    path.parent.mkdir(exist_ok=True)
    names = [f"{row + 1:06d}@{path.stem}.mrcs" for row in range(n)]
    own = {"rlnImageName": names, **{name: [value] * n for name, value in CTF.items()}}
    blocks = []
    if optics:
        own["rlnOpticsGroup"] = [optics[-1]["rlnOpticsGroup"]] * n
        blocks = [StarBlock.from_columns("optics", {name: [group[name] for group in optics] for name in optics[0]})]
    write_star(path, [*blocks, StarBlock.from_columns("particles", own | columns)])
    return open_particles(path)


def cs(path, *, first=0, n=2, **columns):
    path.parent.mkdir(exist_ok=True)
    own = particle_columns([f">{path.stem}.mrc"] * n, range(n)) | {"uid": np.arange(first, first + n, dtype=np.uint64)}
    write_cs(path, {**own, "ctf/exp_group_id": np.ones(n, np.uint32), **columns})
    return open_particles(path)


def written(files, path):
    RowWriter(files).write(path, np.ones(len(files), bool), {})
    return open_particles(path)


def test_optics_groups_are_one_where_name_and_all_values_are_equal_and_get_a_number_and_name_where_not(tmp_path):
    first = star(tmp_path / "a.star", [KRIOS])
    same = star(tmp_path / "b.star", [{**KRIOS, "rlnOpticsGroup": 7}])
    bent = star(tmp_path / "c.star", [{**KRIOS, "rlnVoltage": 200.0}])
    other = star(tmp_path / "d.star", [{**KRIOS, "rlnOpticsGroupName": "talos"}])
    merged = open_star(written(merged_files([first, same, bent, other]), tmp_path / "all.star").path)
    optics = merged["optics"].read(["rlnOpticsGroup", "rlnVoltage"])
    assert optics["rlnOpticsGroup"].tolist() == [1, 2, 3]
    assert optics["rlnVoltage"].tolist() == [300, 200, 300]
    assert merged["optics"].table["rlnOpticsGroupName"].to_pylist() == ["krios", "krios_2", "talos"]
    assert merged["particles"].read(["rlnOpticsGroup"])["rlnOpticsGroup"].tolist() == [1, 1, 1, 1, 2, 2, 3, 3]


def test_values_that_stand_for_nothing_are_filled_in_and_others_are_left_out_and_named(tmp_path):
    plain = star(tmp_path / "a.star", [KRIOS])
    zernike = "[0.1,0.2,0.3]"
    tilted = {**KRIOS, "rlnBeamTiltX": 0.5, "rlnMagMat00": 1.01, "rlnOddZernike": zernike}
    full = star(tmp_path / "b.star", [tilted], rlnPhaseShift=[90.0, 80.0], rlnClassNumber=[3, 4])
    merged = merged_files([plain, full])
    main, optics = merged.star["particles"], merged.star["optics"]
    assert main.read(["rlnPhaseShift"])["rlnPhaseShift"].tolist() == [0, 0, 90, 80]
    assert optics.read(["rlnMagMat00"])["rlnMagMat00"].tolist() == [1, 1.01]
    assert optics.table["rlnOddZernike"].to_pylist() == ["[0,0,0]", zernike]
    assert merged.dropped == ("rlnClassNumber",)
    assert "rlnClassNumber (not in a.star)" in " ".join(texts(merged.messages))


def test_layouts_and_programs_are_not_mixed_and_the_remedy_is_named(tmp_path):
    new, old = star(tmp_path / "a.star", [KRIOS]), star(tmp_path / "b.star", [])
    with pytest.raises(UsageError) as caught:
        merged_files([new, old])
    assert "relion=" in shown(caught.value.hint) and "b.star" in caught.value.path
    with pytest.raises(UsageError, match="another program") as caught:
        merged_files([new, cs(tmp_path / "c.cs")])
    assert "Convert it first" in caught.value.hint


def test_a_file_without_what_its_rows_are_of_no_use_without_is_refused(tmp_path):
    whole = star(tmp_path / "a.star", [KRIOS])
    no_voltage = {name: value for name, value in KRIOS.items() if name != "rlnVoltage"}
    with pytest.raises(MissingDataError, match="rlnVoltage"):
        merged_files([whole, star(tmp_path / "b.star", [no_voltage])])
    angstroms = star(tmp_path / "c.star", [KRIOS], rlnOriginXAngst=[0.0, 1.0], rlnOriginYAngst=[0.0, 1.0])
    pixels = star(tmp_path / "d.star", [KRIOS], rlnOriginX=[0.0, 1.0], rlnOriginY=[0.0, 1.0])
    with pytest.raises(MissingDataError, match="rlnOriginX"):
        merged_files([angstroms, pixels])


def test_groups_of_the_intensity_scale_are_one_a_name_or_else_other_ones_for_each_file(tmp_path):
    named = [
        star(tmp_path / "a.star", [KRIOS], rlnGroupNumber=[1, 2], rlnGroupName=["one", "two"]),
        star(tmp_path / "b.star", [KRIOS], rlnGroupNumber=[1, 2], rlnGroupName=["two", "three"]),
    ]
    numbers = merged_files(named).star["particles"].read(["rlnGroupNumber"])["rlnGroupNumber"]
    assert numbers.tolist() == [1, 2, 2, 3]
    plain = [star(tmp_path / f"{name}.star", [KRIOS], rlnGroupNumber=[1, 2]) for name in "cd"]
    numbers = merged_files(plain).star["particles"].read(["rlnGroupNumber"])["rlnGroupNumber"]
    assert numbers.tolist() == [1, 2, 3, 4]


def test_other_blocks_are_those_of_the_first_file(tmp_path):
    for name, value in (("a", 1), ("b", 2)):
        star(tmp_path / f"{name}.star", [KRIOS])
        blocks = open_star(tmp_path / f"{name}.star").blocks
        write_star(tmp_path / f"{name}.star", [StarBlock.from_columns("mine", {"my": [value]}, is_loop=False), *blocks])
    merged = merged_files([open_particles(tmp_path / "a.star"), open_particles(tmp_path / "b.star")])
    back = open_star(written(merged, tmp_path / "all.star").path)
    assert back.names == ("mine", "optics", "particles")
    assert back["mine"].value("my") == "1" or back["mine"].value("my") == 1
    assert "data_mine of b.star" in " ".join(texts(merged.messages))


def test_an_error_in_a_row_names_the_file_that_the_row_is_of(tmp_path):
    good = star(tmp_path / "a.star", [KRIOS])
    merged = merged_files([good, star(tmp_path / "b.star", [KRIOS], rlnDefocusU=[1e4, float("nan")])])
    with pytest.raises(CryobridgeError) as caught:
        check_rows(merged, np.ones(4, bool))
    assert "b.star" in caught.value.path and caught.value.rows == (1,)
    check_rows(merged, np.array([True, True, True, False]))
    merged = merged_files([good, star(tmp_path / "c.star", [KRIOS], rlnImageName=["1@a.mrcs", "zero"])])
    with pytest.raises(CryobridgeError) as caught:
        _ = merged.particles
    assert "c.star" in caught.value.path and caught.value.rows == (1,)


def test_names_that_start_at_the_cs_file_lead_to_the_same_images_from_the_merged_one(tmp_path):
    images = np.zeros((2, 16, 16), np.float32)
    for folder in ("J1", "J2"):
        (tmp_path / folder).mkdir()
        save_mrc(tmp_path / folder / "p.mrc", images)
    parts = [cs(tmp_path / "J1" / "p.cs"), cs(tmp_path / "J2" / "p.cs", first=5)]
    (tmp_path / "out").mkdir()
    back = written(merged_files(parts), tmp_path / "out" / "all.cs")
    assert back.image_files(np.ones(4, bool)) == [">../J1/p.mrc", ">../J2/p.mrc"]
    assert back.uid().tolist() == [0, 1, 5, 6]


def test_each_column_goes_to_the_file_that_the_first_one_has_it_in_and_the_group_says_how_many_rows_there_are(tmp_path):
    group = []
    for name, first, version in (("a", 0, "v4.4.1"), ("b", 9, "v4.7.0")):
        cs(tmp_path / f"{name}.cs", first=first)
        uid = np.arange(first, first + 2, dtype=np.uint64)
        # The passthrough file has its rows in another order.
        passed = {"uid": uid[::-1].copy(), "pick_stats/ncc_score": uid[::-1].astype(np.float32)}
        write_cs(tmp_path / f"{name}_passthrough.cs", passed)
        slots = {"blob": ("particle.blob", f"{name}.cs"), "ctf": ("particle.ctf", f"{name}.cs")}
        slots["pick_stats"] = ("particle.pick_stats", f"{name}_passthrough.cs")
        write_csg(tmp_path / f"{name}.csg", slots, 2, version=version)
        group.append(open_particles(tmp_path / f"{name}.csg"))
    written(merged_files(group), tmp_path / "all.cs")
    main, passed = open_cs(tmp_path / "all.cs"), open_cs(tmp_path / "all_passthrough.cs")
    assert passed.names == ("uid", "pick_stats/ncc_score") and "ctf/df1_A" in main
    assert main.read(["uid"])["uid"].tolist() == passed.read(["uid"])["uid"].tolist() == [0, 1, 9, 10]
    assert passed.read(["pick_stats/ncc_score"])["pick_stats/ncc_score"].tolist() == [0, 1, 9, 10]
    found = read_csg(tmp_path / "all.csg")
    assert {slot.name for slot in found.slots} == {"blob", "ctf", "pick_stats"}
    assert {slot.num_items for slot in found.slots} == {4} and found.version == "v4.7.0" and not found.problems


def test_exposure_groups_of_other_values_get_a_new_number(tmp_path):
    tilt = np.array([[0.0, 0.0], [0.1, 0.0]], np.float32)
    one = cs(tmp_path / "a.cs", **{"ctf/tilt_A": np.zeros((2, 2), np.float32)})
    same = cs(tmp_path / "b.cs", first=2)
    bent = cs(tmp_path / "c.cs", first=4, **{"ctf/tilt_A": tilt[[1, 1]]})
    merged = merged_files([one, same, bent])
    assert merged.columns.read(["ctf/exp_group_id"])["ctf/exp_group_id"].tolist() == [1, 1, 1, 1, 2, 2]
    assert merged.columns.read(["ctf/tilt_A"])["ctf/tilt_A"][:, 0].tolist() == pytest.approx([0, 0, 0, 0, 0.1, 0.1])
    assert "exposure-groups-renumbered" in {message.code for message in merged.messages}


def test_columns_of_other_shapes_go_with_their_group_and_narrow_ones_are_widened(tmp_path):
    multi = {"alignments3D_multi/class": np.zeros((2, 3), np.uint32), "alignments3D_multi/x": np.zeros(2, np.float32)}
    one = cs(tmp_path / "a.cs", **multi, **{"my/number": np.zeros(2, np.float32), "my/odd": np.zeros(2, np.float32)})
    multi["alignments3D_multi/class"] = np.zeros((2, 2), np.uint32)
    wide = {"my/number": np.full(2, 0.1), "my/odd": ["a", "b"]}
    merged = merged_files([one, cs(tmp_path / "b.cs", first=2, **multi, **wide)])
    assert set(merged.dropped) == {"alignments3D_multi/class", "alignments3D_multi/x", "my/odd"}
    assert merged.columns.read(["my/number"])["my/number"].tolist() == [0, 0, 0.1, 0.1]
    assert "3 values in a.cs, 2 values in b.cs" in " ".join(texts(merged.messages))


def test_any_rows_of_the_merged_table_are_read_as_from_the_files(tmp_path):
    parts = [cs(tmp_path / f"{name}.cs", first=10 * k, n=3) for k, name in enumerate("abc")]
    table = merged_files(parts).columns
    whole = table.read(["uid", "blob/path"])
    for rows in (slice(2, 7), slice(0, 0), slice(4, 5), slice(8, 2), slice(None, None, 2)):
        some = table.read(["uid", "blob/path"], rows)
        assert some["uid"].tolist() == whole["uid"][rows].tolist()
        assert some["blob/path"].to_numpy().tolist() == whole["blob/path"].to_numpy()[rows].tolist()


def test_one_name_for_two_stacks_is_refused_and_names_of_several_folders_are_said(tmp_path):
    images = np.zeros((2, 16, 16), np.float32)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_mrc(tmp_path / folder / "p.mrcs", images)
        save_mrc(tmp_path / folder / f"{folder}.mrcs", images)
    same = [star(tmp_path / folder / "p.star", [KRIOS]) for folder in ("one", "two")]
    with pytest.raises(CryobridgeError, match="could not be distinguished") as caught:
        merged_files(same)
    assert str(Path("two", "p.star")) in caught.value.path
    other = [star(tmp_path / folder / f"{folder}.star", [KRIOS]) for folder in ("one", "two")]
    assert "images-named-from-several-folders" in {message.code for message in merged_files(other).messages}
