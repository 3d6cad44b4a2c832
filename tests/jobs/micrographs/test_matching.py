from __future__ import annotations

import json

import numpy as np
import pytest
import starfile

from coords_files import (
    alignment,
    convert,
    coordinates_of,
    cryosparc_name,
    filament,
    location,
    planned,
    read_picks_of,
    relion_name,
    save_micrographs,
)
from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.jobs.micrographs.matching import match_micrographs
from helpers import codes, particle_columns, save_cs, save_star, texts

UID, OTHER_UID = "000090334788266266069_", "018446744073709551615_"


# Names


@pytest.mark.parametrize(
    ("cryosparc", "relion"),
    [
        (f"J2/motioncorrected/{UID}m1_patch_aligned_doseweighted.mrc", "MotionCorr/job002/Movies/m1.mrc"),
        (f">J2/motioncorrected/{UID}m1_fractions_patch_aligned_doseweighted.mrc", "MotionCorr/job002/m1_fractions.mrc"),
        (f"J1/imported/{UID}20170629_00021_frameImage.mrc", "Import/job001/20170629_00021_frameImage.mrc"),
        (f"J2/{UID}a.b.c_fractions_patch_aligned.mrc", "MotionCorr/job002/raw/a_b_c_fractions.mrc"),
        ("J2/m1_rigid_aligned.mrc", "job002/m1_noDW.mrc"),
        (f"J2/{UID}FoilHole_8_Data_9_EER_patch_aligned_doseweighted.mrc", "M/FoilHole_8_Data_9_EER.mrc"),
        (f"J2/{UID}m1_patch_aligned.mrc", "M/session3_m1_good.mrc"),
        (f"J2/{UID}session3_m1_good_patch_aligned.mrc", "M/m1.mrc"),
        (f"J2/{UID}m1.mrc", f"linked/{UID}m1.mrc"),
    ],
)
def test_a_name_finds_its_micrograph_among_others(cryosparc, relion):
    others = ["M/m10.mrc", "M/n1_fractions.mrc", "M/xm1.mrc", f"linked/{OTHER_UID}other.mrc", "M/a__b.mrc"]
    match = match_micrographs([cryosparc], [*others, relion])
    assert match.relion_name == {cryosparc: relion}
    assert match.unmatched == ()


@pytest.mark.parametrize("name", ["J2/m.mrc", f"J2/{UID}m1_2.mrc", "J2/1.mrc", "", "/", ".mrc", f"{UID}.mrc"])
def test_a_part_of_a_word_or_nothing_at_all_is_no_match(name):
    assert match_micrographs([name], ["M/m1.mrc", "M/m12.mrc", "M/x__y.mrc", "M/_.mrc"]).unmatched in ((name,), ())
    assert match_micrographs([name], ["M/m12.mrc", "M/x__y.mrc", "M/_z_.mrc"]).unmatched == (name,)


def test_an_exact_name_decides_between_two_that_hold_it():
    names = ["M/m1.mrc", "M/m1_b.mrc", "M/a_m1.mrc"]
    assert match_micrographs([f"J/{UID}m1_patch_aligned.mrc"], names).relion_name.popitem()[1] == "M/m1.mrc"


def test_two_exposures_of_one_name_are_distinguished_by_the_uid_where_both_sides_have_it():
    relion = [f"linked/{UID}m.mrc", f"linked/{OTHER_UID}m.mrc"]
    cryosparc = [f"J2/motioncorrected/{OTHER_UID}m.mrc", f"J2/motioncorrected/{UID}m.mrc"]
    assert list(match_micrographs(cryosparc, relion).relion_name.values()) == relion[::-1]


def test_a_name_that_fits_two_micrographs_is_an_error_that_shows_both(tmp_path, command):
    names = ["Movies/a/m1_fractions.mrc", "Movies/b/m1_fractions.mrc"]
    star = save_star(tmp_path / "m.star", "micrographs", {"rlnMicrographName": names})
    picks = save_cs(tmp_path / "p.cs", location(["m1"]))
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out", "--on-unmatched", "skip")
    assert (code, out) == (1, "")
    assert all(name in err for name in names)
    assert cryosparc_name("m1") in err
    assert not (tmp_path / "out").exists()
    with pytest.raises(CryobridgeError, match=r"s1_m1.*s2_m1"):
        match_micrographs([f"J/{UID}m1.mrc"], ["M/s1_m1.mrc", "M/s2_m1.mrc"])


def test_two_names_that_fit_one_micrograph_are_an_error_that_shows_both():
    both = [f"J2/{UID}m1_patch_aligned.mrc", f"J3/{OTHER_UID}m1_patch_aligned.mrc"]
    with pytest.raises(CryobridgeError) as error:
        match_micrographs(both, ["M/m1.mrc"])
    assert all(name in str(error.value) for name in both)


def test_micrographs_that_would_share_a_pick_file_are_an_error(tmp_path):
    columns = location(["m", "n"])
    columns["location/micrograph_path"] = [f"J/{UID}m.mrc", "J/m_tiff.mrc"]
    star = save_star(tmp_path / "m.star", "micrographs", {"rlnMicrographName": ["a/m_tiff.mrc", "a/m_tiff.mrcs"]})
    with pytest.raises(CryobridgeError, match=r"a/m_tiff\.mrc.*a/m_tiff\.mrcs"):
        planned(save_cs(tmp_path / "p.cs", columns), star, tmp_path / "out")


def test_unmatched_micrographs_are_an_error_with_counts_and_the_nearest(tmp_path, command):
    picks = save_cs(tmp_path / "p.cs", location(["grid_0001", "grid_0002", "grid_0003"]))
    star = save_micrographs(tmp_path / "m.star", ["grid_0001", "grid_0022"])
    code, out, err = command("coords", picks, star, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "2 of 3 micrographs are not in the STAR file" in err
    assert f"{cryosparc_name('grid_0002', 2)} (nearest: {relion_name('grid_0022')}" in err
    assert "--on-unmatched skip" in err
    assert not (tmp_path / "out").exists()


def test_unmatched_micrographs_are_skipped_and_counted_when_asked(tmp_path, command):
    picks = save_cs(tmp_path / "p.cs", location(["a", "b", "b", "c"]))
    star = save_micrographs(tmp_path / "m.star", ["c", "a"])
    words = ("coords", picks, star, "-o", tmp_path / "out", "--on-unmatched", "skip")
    code, out, err = command(*words, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["rows_in"], report["rows_out"], report["micrographs"]) == (4, 2, 2)
    assert report["left_out"] == {"micrograph not in the STAR file": 2}
    assert report["micrographs_unmatched"] == [cryosparc_name("b", 2)]
    assert "2 picks are left out" in err
    assert set(starfile.read(tmp_path / "out" / "autopick.star")["rlnMicrographName"]) == set(map(relion_name, "ac"))
    # None at all is an error even so.
    star = save_micrographs(tmp_path / "other.star", ["x", "y"])
    for words in ((), ("--on-unmatched", "skip")):
        code, _, err = command("coords", picks, star, "-o", tmp_path / "none", *words)
        assert code == 1
        assert "3 of 3 micrographs are not in the STAR file" in err
        assert "--on-unmatched" not in err
        assert not (tmp_path / "none").exists()


def test_each_reason_counts_a_pick_once(tmp_path):
    columns = location(["a", "b", "b", "a"])
    columns["location/center_x_frac"][[1, 3]] = np.nan
    star = save_micrographs(tmp_path / "m.star", ["a"])
    picks = save_cs(tmp_path / "p.cs", columns)
    report = planned(picks, star, tmp_path / "out", drop_outside=True, on_unmatched="skip").report()
    assert report.left_out == {"micrograph not in the STAR file": 2, "outside the micrograph": 1}
    assert report.rows_out == 1


# Joins and job types

STEMS = ["a", "b", "a", "b", "a", "a"]


def blob(n):
    columns = particle_columns([f"J3/extract/{number}.mrc" for number in range(n)], np.arange(n))
    return {name: values for name, values in columns.items() if name != "uid"}


def ctf(n):
    return {name: values for name, values in blob(n).items() if name.startswith("ctf/")}


def alignment_3d(n, group="alignments3D"):
    return {
        f"{group}/split": np.zeros(n, "u4"),
        f"{group}/shift": np.zeros((n, 2), "f4"),
        f"{group}/pose": np.zeros((n, 3), "f4"),
        f"{group}/psize_A": np.full(n, 1.5, "f4"),
        f"{group}/class": np.zeros(n, "u4"),
        f"{group}/class_posterior": np.linspace(0, 1, n, dtype="f4"),
    }


def pick_stats(n):
    return {
        "pick_stats/ncc_score": np.linspace(0.2, 0.4, n, dtype="f4"),
        "pick_stats/power": np.linspace(100, 200, n, dtype="f4"),
        "pick_stats/template_idx": np.zeros(n, "u4"),
        "pick_stats/angle_rad": np.linspace(0, 1, n, dtype="f4"),
    }


def reordered(columns, rows):
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


def without_location(columns):
    return {name: values for name, values in columns.items() if not name.startswith("location/")}


ALL = location(STEMS)
N = len(STEMS)
UIDS = {"uid": ALL["uid"]}
SHUFFLED = np.array([3, 0, 5, 1, 4, 2])
PASSED = reordered(ALL | pick_stats(N), SHUFFLED)
PER_CLASS = [np.array([0, 2, 5]), np.array([1, 3, 4])]


# Job type -> files of its folder, the one that is given first.
JOBS = {
    "Blob picker": {"picked_particles.cs": ALL | pick_stats(N)},
    "Topaz": {
        "topaz_picked_particles.cs": ALL | {"pick_stats/ncc_score": pick_stats(N)["pick_stats/ncc_score"]},
    },
    "Inspect picks": {"inspected_particles.cs": ALL | pick_stats(N), "J6_passthrough_micrographs.cs": UIDS | ctf(N)},
    "Extract": {"extracted_particles.cs": ALL | blob(N), "J7_passthrough_particles.cs": UIDS | pick_stats(N)},
    "CryoSPARC 4 extraction": {
        "extracted_particles.cs": ALL | blob(N),
        "incomplete_particles.cs": {name: np.asarray(values)[:0] for name, values in (ALL | blob(N)).items()},
        "J7_passthrough_particles_incomplete.cs": {name: np.asarray(v)[:0] for name, v in PASSED.items()},
    },
    "Remove duplicates": {
        "J10_particles_kept.cs": ALL | blob(N),
        "J10_particles_removed.cs": reordered(ALL | blob(N), [0]) | {"uid": np.array([5], "u8")},
    },
    "2D Classification": {
        "J8_020_particles.cs": UIDS | blob(N) | alignment(N),
        "J8_passthrough_particles.cs": PASSED,
        "J8_020_class_averages.cs": {"uid": np.array([1], "u8")} | blob(1),
    },
    "Select 2D": {
        "particles_selected.cs": UIDS | blob(N) | alignment(N),
        "J9_passthrough_particles_selected.cs": PASSED,
        "particles_excluded.cs": {"uid": np.array([8], "u8")} | blob(1) | alignment(1),
        "J9_passthrough_particles_excluded.cs": location(["z"]) | {"uid": np.array([8], "u8")},
    },
    "Ab-initio": {
        "J11_class_00_final_particles.cs": UIDS | blob(N) | alignment_3d(N, "alignments_class_0"),
        "J11_passthrough_particles_class_0.cs": PASSED,
        "J11_passthrough_particles_class_1.cs": location(["z"]) | {"uid": np.array([8], "u8")},
    },
    "Heterogeneous, all classes": {
        "J12_00062_particles.cs": UIDS | blob(N) | alignment_3d(N),
        "J12_passthrough_particles_all_classes.cs": PASSED,
        "J12_passthrough_particles_class_0.cs": reordered(ALL, PER_CLASS[0]),
        "J12_passthrough_particles_class_1.cs": reordered(ALL, PER_CLASS[1]),
    },
    "Refinement": {
        "cryosparc_P1_J13_003_particles.cs": UIDS | blob(N) | alignment_3d(N),
        "cryosparc_P1_J13_002_particles.cs": UIDS | blob(N) | alignment_3d(N),
        "cryosparc_P1_J13_passthrough_particles.cs": PASSED,
    },
    "Refinement, passthrough given": {"J13_passthrough_particles.cs": PASSED, "J13_003_particles.cs": UIDS | blob(N)},
}


# Those whose score is in the file that is given, or in the one that it is joined with for the coordinates.
SCORED = set(JOBS) - {"CryoSPARC 4 extraction", "Remove duplicates"}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_type_gives_its_picks(job, tmp_path):
    folder = tmp_path / "J"
    picks, *_ = [save_cs(folder / name, columns) for name, columns in JOBS[job].items()]
    star = save_micrographs(tmp_path / "m.star", [*STEMS, "z"])
    report = convert(picks, star, tmp_path / "out")
    assert (report.rows_in, report.rows_out, report.micrographs) == (N, N, 2)
    assert report.columns_inferred is False
    convert(save_cs(tmp_path / "plain.cs", ALL), star, tmp_path / "plain")
    for stem in "ab":
        found, expected = (coordinates_of(tmp_path / name, stem) for name in ("out", "plain"))
        assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    found = read_picks_of(tmp_path / "out", "a")
    assert set(found["rlnClassNumber"]) == ({1} if "alignments2D/pose" in JOBS[job][picks.name] else {0})
    scores = set(found["rlnAutopickFigureOfMerit"])
    if job in SCORED:
        assert len(scores) == 4
    else:
        assert scores == {0.08}


def test_rows_that_are_joined_keep_score_and_place_together(tmp_path):
    given = ALL | pick_stats(N)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    convert(save_cs(tmp_path / "one" / "p.cs", given), star, tmp_path / "expected")
    main = save_cs(tmp_path / "J" / "J8_020_particles.cs", UIDS | alignment(N))
    save_cs(tmp_path / "J" / "J8_passthrough_particles.cs", PASSED)
    report = convert(main, star, tmp_path / "out")
    assert any("J8_passthrough_particles.cs" in note for note in texts(report.notes))
    for stem in "ab":
        one, other = (read_picks_of(tmp_path / name, stem) for name in ("out", "expected"))
        for label in ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"):
            np.testing.assert_array_equal(one[label], other[label])


def test_a_passthrough_that_is_given_is_taken(tmp_path, command):
    main = save_cs(tmp_path / "J" / "J8_020_particles.cs", UIDS | alignment(N))
    elsewhere = save_cs(tmp_path / "other" / "x.cs", PASSED)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    words = ("coords", main, star, "-o", tmp_path / "out")
    code, _, err = command(*words)
    assert code == 1
    assert "location/center_x_frac" in err
    assert "passthrough" in err
    code, _, err = command(*words, "--passthrough", elsewhere)
    assert code == 0
    assert "x.cs" in err
    foreign = save_cs(tmp_path / "other" / "y.cs", PASSED | {"uid": np.arange(N, dtype="u8")})
    code, out, err = command("coords", main, star, "-o", tmp_path / "out2", "--passthrough", foreign)
    assert (code, out) == (1, "")
    assert "none of its uids is in y.cs" in err
    assert not (tmp_path / "out2").exists()


def test_several_files_with_the_coordinates_are_an_error_that_names_them(tmp_path):
    main = save_cs(tmp_path / "J" / "J8_020_particles.cs", UIDS | alignment(N))
    for name in ("J7_passthrough_particles.cs", "J9_passthrough_particles.cs"):
        save_cs(tmp_path / "J" / name, PASSED)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    with pytest.raises(MissingDataError, match=r"J7_passthrough_particles\.cs, J9_passthrough_particles\.cs") as error:
        planned(main, star, tmp_path / "out")
    assert "passthrough=" in error.value.hint
    chosen = tmp_path / "J" / "J9_passthrough_particles.cs"
    assert planned(main, star, tmp_path / "out", passthrough=chosen).report().rows_out == N
    # The one whose name says that it belongs to them goes before those of other jobs.
    save_cs(tmp_path / "J" / "J8_passthrough_particles.cs", PASSED)
    plan = planned(main, star, tmp_path / "out")
    assert "joined on uid with J8_passthrough_particles.cs" in texts(plan.messages)


def test_a_file_that_has_a_part_of_the_picks_is_named_but_not_taken(tmp_path, command):
    part = {name: np.asarray(values)[:4] for name, values in ALL.items()}
    main = save_cs(tmp_path / "J" / "particles.cs", UIDS | alignment(N))
    thick = save_cs(tmp_path / "J" / "thick_passthrough.cs", part)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    code, _, err = command("coords", main, star, "-o", tmp_path / "out")
    assert code == 1
    assert f"no file beside it has those of all {N} particles: thick_passthrough.cs has 4" in " ".join(err.split())
    assert "--passthrough" in err
    assert not (tmp_path / "out").exists()
    assert planned(main, star, tmp_path / "out", passthrough=thick).report().rows_out == 4
    # Columns that lost their names are looked at before such a file.
    names = {"location/center_x_frac": "f4_1", "location/center_y_frac": "f4_2"}
    bare = save_cs(tmp_path / "J" / "bare.cs", {names.get(name, name): values for name, values in ALL.items()})
    report = planned(bare, star, tmp_path / "out").report()
    assert (report.columns_inferred, report.rows_out) == (True, N)
    assert "columns-inferred" in codes(report.warnings)


def test_a_subset_is_joined_with_the_passthrough_file_that_select_wrote_with_it(tmp_path):
    for stem in ("a", "aa"):
        save_cs(tmp_path / "J" / f"{stem}.cs", UIDS | alignment(N))
        save_cs(tmp_path / "J" / f"{stem}_passthrough.cs", PASSED)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    for stem in ("a", "aa"):
        plan = planned(tmp_path / "J" / f"{stem}.cs", star, tmp_path / "out")
        assert f"joined on uid with {stem}_passthrough.cs" in texts(plan.messages)


def test_uids_that_one_side_lacks_are_counted(tmp_path, command):
    # The passthrough file lacks two of the particles, and has two more on a micrograph that RELION does not know.
    more = location(["q", "q"]) | {"uid": np.array([1, 2], "u8")}
    fewer = reordered(ALL, [4, 0, 3, 1])
    both = {name: np.concatenate([np.asarray(fewer[name]), np.asarray(more[name])]) for name in ALL}
    main = save_cs(tmp_path / "J" / "J8_020_particles.cs", UIDS | alignment(N))
    save_cs(tmp_path / "J" / "J8_passthrough_particles.cs", both)
    star = save_micrographs(tmp_path / "m.star", STEMS)
    code, out, err = command("coords", main, star, "-o", tmp_path / "out", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["rows_in"], report["rows_out"]) == (6, 4)
    assert report["left_out"] == {"uid not in the joined files": 2}
    assert report["micrographs_unmatched"] == []
    assert "2 rows of J8_020_particles.cs whose uid is not in J8_passthrough_particles.cs" in err
    assert "2 rows of J8_passthrough_particles.cs whose uid is not in J8_020_particles.cs" in err


def test_filaments_of_the_passthrough_file_come_along(tmp_path):
    main = save_cs(tmp_path / "J" / "J8_003_particles.cs", UIDS | alignment_3d(N))
    tubes = filament(STEMS, [1, 2, 1, 2, 3, 3], np.arange(N) * 10)
    save_cs(tmp_path / "J" / "J8_passthrough_particles.cs", reordered(ALL | tubes, SHUFFLED))
    convert(main, save_micrographs(tmp_path / "m.star", STEMS), tmp_path / "out")
    assert read_picks_of(tmp_path / "out", "a")["rlnHelicalTubeID"].tolist() == [1, 1, 2, 2]


def test_of_micrographs_of_one_name_folders_decide():
    relion = ["mics/grid1/0001.mrc", "mics/grid2/0001.mrc"]
    cryosparc = [f"S1/imported/{folder}/{uid:021d}_0001.mrc" for uid, folder in enumerate(["grid2", "grid1"])]
    assert match_micrographs(cryosparc, relion).relion_name == dict(zip(cryosparc, relion[::-1], strict=True))
    with pytest.raises(CryobridgeError, match="fits 2"):
        match_micrographs(["S1/imported/0001.mrc"], relion)
    # What is called otherwise is no choice of folders.
    with pytest.raises(CryobridgeError, match="fits 2"):
        match_micrographs(["grid1/a_0001_b.mrc"], ["grid1/a_0001.mrc", "grid2/0001_b.mrc"])
