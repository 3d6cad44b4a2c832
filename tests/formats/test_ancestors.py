"""Columns that particles lack, fetched from the jobs that they come from: trees of both layouts, damaged ones too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cryobridge.errors import MissingDataError, UsageError
from cryobridge.formats.cryosparc.ancestors import MAX_JOBS, Ancestry
from cryobridge.formats.cryosparc.csg import read_csg, write_csg
from cryobridge.formats.open import open_particles
from cryobridge.formats.open import read as read_particles
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.selection.choose import select, select_files
from helpers import particle_columns, run, save_cs, save_star
from relion_grammar import read_block

N = 12
UIDS = np.arange(N, dtype="u8") * np.uint64(977) + np.uint64(2**63 + 5)


def blob(uids=UIDS, stack="J3/extract/a.mrc"):
    return particle_columns([stack] * len(uids), range(len(uids))) | {"uid": uids}


def number_of(uids):
    """Return a number by which a value can be known again that belongs to a uid."""
    return ((uids - UIDS[0]) // np.uint64(977)).astype(int)


def location(uids, **more):
    number = number_of(uids)
    return {
        "uid": uids,
        "location/micrograph_path": np.array([f"J2/motioncorrected/m{k % 3}.mrc" for k in number]),
        "location/micrograph_shape": np.tile(np.array([400, 600], "u4"), (len(uids), 1)),
        "location/micrograph_psize_A": np.full(len(uids), 1.5, "f4"),
        "location/center_x_frac": (0.01 + number / 20).astype("f4"),
        "location/center_y_frac": (0.99 - number / 20).astype("f4"),
        **more,
    }


def filament(uids):
    number = number_of(uids)
    return {
        "uid": uids,
        "filament/filament_uid": number.astype("u8") // 4 + np.uint64(2**63 + 1),
        "filament/position_A": (number % 4 * 47.5).astype("f4"),
    }


def describe(project, job, parents, outputs, *, layout="v4", slots=(), kind="particle", **more):
    """Write a job.json; ``outputs``: name -> the `.cs` files of its slots by (slot, passthrough)."""
    folder = project / job
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "v4":
        results = [
            {
                "uid": f"{job}-R{place}",
                "type": f"particle.{slot}",
                "group_name": name,
                "name": slot,
                "versions": [0],
                "metafiles": [f"{job}/{file}"],
                "num_items": [N],
                "passthrough": passthrough,
            }
            for name, files in outputs.items()
            for place, ((slot, passthrough), file) in enumerate(files.items())
        ]
        connections = [{"job_uid": uid, "group_name": "particles", "slots": []} for uid in parents]
        if slots:
            connections[0]["slots"] = [{"slot_name": "location", "job_uid": uid} for uid in slots]
        content = {
            "uid": job,
            "project_uid": "P1",
            "type": "job",
            "parents": list(parents),
            "output_result_groups": [{"name": name, "type": kind} for name in outputs],
            "output_results": results,
            "input_slot_groups": [{"name": "particles", "type": kind, "connections": connections}],
        }
    else:
        results = {
            name: [
                {
                    "name": slot,
                    "dtype": f"particle.{slot}",
                    "versions": [0],
                    "metafiles": [f"{job}/{file}"],
                    "num_items": [N],
                    "passthrough": passthrough,
                }
                for (slot, passthrough), file in files.items()
            ]
            for name, files in outputs.items()
        }
        connections = [{"job_uid": uid, "output": "particles", "results": []} for uid in parents]
        if slots:
            connections[0]["results"] = [
                {"name": "location", "dtype": "particle.location", "job_uid": uid, "output": "p", "result": "location"}
                for uid in slots
            ]
        content = {
            "uid": job,
            "project_uid": "P1",
            "spec": {
                "type": "job",
                "params": {},
                "inputs": {"particles": {"type": kind, "connections": connections}},
                "outputs": {name: {"type": kind, "results": files} for name, files in results.items()},
            },
        }
    (folder / "job.json").write_text(json.dumps(content | more))
    return folder


def tree(project, layout="v4"):
    """Write extraction with locations and filaments (J3), a job without particles (J4), and 2D classes (J5)."""
    order = np.random.default_rng(5).permutation(N)
    save_cs(project / "J3" / "extracted_particles.cs", blob(UIDS[order]))
    rest = {**location(UIDS[::-1]), **filament(UIDS[::-1])}
    rest["location/micrograph_path"] = np.array([f">../J2/m{k}.mrc" for k in number_of(UIDS[::-1])])
    save_cs(project / "J3" / "J3_passthrough_particles.cs", rest)
    files = {("blob", False): "extracted_particles.cs", ("location", True): "J3_passthrough_particles.cs"}
    describe(project, "J3", ["J2"], {"particles": files}, layout=layout)
    describe(project, "J2", [], {}, layout=layout)
    describe(project, "J4", ["J3"], {}, layout=layout)
    chosen = UIDS[[7, 2, 9, 4]]
    path = save_cs(project / "J5" / "J5_020_particles.cs", blob(chosen))
    describe(project, "J5", ["J4"], {"particles": {("blob", False): path.name}}, layout=layout)
    return path, chosen


LAYOUTS = pytest.mark.parametrize("layout", ["v4", "v5"])


def values_of(files, name):
    found = files.columns.read(["uid", name])
    values = found[name] if isinstance(found[name], np.ndarray) else found[name].to_numpy()
    return dict(zip(found["uid"].tolist(), values.tolist(), strict=True))


@LAYOUTS
def test_groups_that_are_lacking_are_fetched_by_uid_from_the_nearest_job_that_has_them(tmp_path, layout):
    path, chosen = tree(tmp_path, layout)
    files = open_particles(path, from_ancestors=True)
    assert [(item.job, item.group, item.rows) for item in files.from_ancestors] == [
        ("J3", "location", 4),
        ("J3", "filament", 4),
    ]
    number = number_of(chosen)
    x = values_of(files, "location/center_x_frac")
    assert [x[uid] for uid in chosen.tolist()] == (0.01 + number / 20).astype("f4").tolist()
    position = values_of(files, "filament/position_A")
    assert [position[uid] for uid in chosen.tolist()] == (number % 4 * 47.5).tolist()
    # A name that starts with > counts from the folder of the particles now.
    names = values_of(files, "location/micrograph_path")
    assert [names[uid] for uid in chosen.tolist()] == [f">../J2/m{k}.mrc" for k in number]
    assert "location, filament of 4 of 4 particles from J3: J3_passthrough_particles.cs" in str(files.messages)
    assert path in files.files
    assert tmp_path / "J3" / "J3_passthrough_particles.cs" in files.files
    assert "location/center_x_frac" not in open_particles(path).columns


@LAYOUTS
def test_a_slot_of_another_job_leads_to_that_job(tmp_path, layout):
    path, _ = tree(tmp_path, layout)
    describe(tmp_path, "J4", [], {}, layout=layout)
    describe(tmp_path, "J5", ["J4"], {"particles": {("blob", False): path.name}}, layout=layout, slots=["J3"])
    assert {item.job for item in open_particles(path, from_ancestors=True).from_ancestors} == {"J3"}


def test_the_nearest_job_counts_first_and_each_particle_has_its_own(tmp_path):
    """Two extractions of other particles are joined; one of them was picked again by a job between."""
    for job, rows in (("J3", slice(0, 6)), ("J6", slice(6, N))):
        save_cs(tmp_path / job / "e.cs", blob(UIDS[rows]) | location(UIDS[rows]))
        describe(tmp_path, job, [], {"particles": {("location", False): "e.cs"}})
    moved = location(UIDS[:2]) | {"location/center_x_frac": np.full(2, 0.5, "f4")}
    save_cs(tmp_path / "J7" / "e.cs", blob(UIDS[:2]) | moved)
    describe(tmp_path, "J7", ["J3"], {"particles": {("location", False): "e.cs"}})
    path = save_cs(tmp_path / "J8" / "J8_particles.cs", blob())
    describe(tmp_path, "J8", ["J7", "J6"], {"particles": {("blob", False): path.name}})
    files = open_particles(path, from_ancestors=True)
    assert {(item.job, item.rows) for item in files.from_ancestors} == {("J7", 2), ("J3", 4), ("J6", 6)}
    x = values_of(files, "location/center_x_frac")
    expected = np.where(np.arange(N) < 2, 0.5, 0.01 + np.arange(N) / 20).astype("f4")
    assert [x[uid] for uid in UIDS.tolist()] == expected.tolist()
    assert set(values_of(files, "location/micrograph_path").values()) == {
        f"J2/motioncorrected/m{k}.mrc" for k in range(3)
    }


def test_a_group_that_some_particles_lack_is_not_taken_and_no_row_is_lost(tmp_path):
    path, chosen = tree(tmp_path)
    some = UIDS[[7, 2]]
    save_cs(tmp_path / "J3" / "J3_passthrough_particles.cs", location(UIDS) | {"x/y": np.zeros(N, "f4")})
    save_cs(tmp_path / "J3" / "extracted_particles.cs", blob(some) | filament(some))
    files = open_particles(path, from_ancestors=True)
    assert len(files) == len(chosen)
    assert {item.group for item in files.from_ancestors} == {"location", "x"}
    assert "filament/filament_uid" not in files.columns
    (warned,) = [message for message in files.messages if message.code == "group-not-taken"]
    assert "2 of 4 particles are in no result that has it" in warned.text


def test_copies_by_symmetry_expansion_get_what_their_parents_have(tmp_path):
    path, chosen = tree(tmp_path)
    copies = blob(np.arange(8, dtype="u8") + np.uint64(5)) | {
        "sym_expand/src_uid": np.repeat(chosen, 2),
        "sym_expand/idx": np.tile(np.arange(2, dtype="u4"), 4),
    }
    save_cs(path, copies)
    files = open_particles(path, from_ancestors=True)
    found = files.columns.read(["location/center_x_frac"])["location/center_x_frac"]
    assert found.tolist() == (0.01 + np.repeat(number_of(chosen), 2) / 20).astype("f4").tolist()


def test_poses_images_and_columns_that_are_there_are_not_fetched(tmp_path):
    path, _ = tree(tmp_path)
    more = {"alignments3D/pose": np.ones((N, 3), "f4"), "alignments2D/pose": np.ones(N, "f4"), "ctf/df1_A": np.ones(N)}
    save_cs(tmp_path / "J3" / "extracted_particles.cs", blob() | more)
    files = open_particles(path, from_ancestors=True)
    assert not [name for name in files.columns.names if name.startswith("alignments")]
    assert not (files.columns.read(["ctf/df1_A"])["ctf/df1_A"] == 1).any()


def test_columns_that_files_don_t_have_alike_are_left_out(tmp_path):
    for job, rows in (("J3", slice(0, 6)), ("J6", slice(6, N))):
        columns = blob(UIDS[rows]) | location(UIDS[rows])
        if job == "J6":
            del columns["location/micrograph_psize_A"]
        save_cs(tmp_path / job / "e.cs", columns)
        describe(tmp_path, job, [], {"particles": {("location", False): "e.cs"}})
    path = save_cs(tmp_path / "J8" / "J8_particles.cs", blob())
    describe(tmp_path, "J8", ["J3", "J6"], {})
    files = open_particles(path, from_ancestors=True)
    assert "location/center_x_frac" in files.columns
    assert "location/micrograph_psize_A" not in files.columns
    assert "location/micrograph_psize_A: the jobs J3, J6 don't have it alike" in str(files.messages)


def test_particles_outside_of_a_job_are_traced_by_the_jobs_that_their_images_name(tmp_path):
    _, chosen = tree(tmp_path)
    path = save_cs(tmp_path / "exports" / "mine" / "subset.cs", blob(chosen))
    files = open_particles(path, from_ancestors=True)
    assert {(item.job, item.group) for item in files.from_ancestors} == {("J3", "location"), ("J3", "filament")}


def test_names_that_start_at_a_file_s_folder_are_turned_to_the_particles(tmp_path):
    _, chosen = tree(tmp_path)
    path = save_cs(tmp_path / "exports" / "mine" / "subset.cs", blob(chosen))
    names = values_of(open_particles(path, from_ancestors=True), "location/micrograph_path")
    assert [names[uid] for uid in chosen.tolist()] == [f">../../J2/m{k}.mrc" for k in number_of(chosen)]
    select_files(path, tmp_path / "deeper" / "x" / "y" / "out.cs", from_ancestors=True)
    written = np.load(tmp_path / "deeper" / "x" / "y" / "out_passthrough.cs")["location/micrograph_path"]
    assert [name.decode() for name in written] == [f">../../../J2/m{k}.mrc" for k in number_of(chosen)]


def test_united_sets_have_what_each_fetched(tmp_path):
    path, chosen = tree(tmp_path)
    others = UIDS[[0, 1, 7]]
    other = save_cs(tmp_path / "J9" / "J9_particles.cs", blob(others))
    describe(tmp_path, "J9", ["J3"], {"particles": {("blob", False): other.name}})
    report = select_files(path, tmp_path / "x" / "both.cs", or_=(other,), from_ancestors=True)
    written = np.load(tmp_path / "x" / "both_passthrough.cs")
    expected = [*chosen.tolist(), *others[:2].tolist()]
    assert written["uid"].tolist() == expected
    number = number_of(np.array(expected, "u8"))
    assert written["location/center_x_frac"].tolist() == (0.01 + number / 20).astype("f4").tolist()
    assert [name.decode() for name in written["location/micrograph_path"]] == [f">../J2/m{k}.mrc" for k in number]
    assert len(report.from_ancestors) == 4
    group = read_csg(tmp_path / "x" / "both.csg")
    assert {slot.name: slot.metafile.name for slot in group.slots}["location"] == "both_passthrough.cs"
    assert group.problems == ()


def test_a_result_group_keeps_its_files_beside_fetched_columns(tmp_path):
    path, chosen = tree(tmp_path)
    more = {"uid": chosen[::-1], "pick_stats/ncc_score": np.arange(4, dtype="f4")}
    save_cs(path.with_name("J5_passthrough_particles.cs"), more)
    slots = {"blob": ("particle.blob", path.name), "ctf": ("particle.ctf", path.name)}
    write_csg(
        path.with_suffix(".csg"), slots | {"pick_stats": ("particle.pick_stats", "J5_passthrough_particles.cs")}, 4
    )
    select_files(path.with_suffix(".csg"), tmp_path / "out.csg", from_ancestors=True)
    group = read_csg(tmp_path / "out.csg")
    assert {slot.name: slot.metafile.name for slot in group.slots} == {
        "blob": "out.cs",
        "ctf": "out.cs",
        "pick_stats": "out_passthrough.cs",
        "location": "out_passthrough_2.cs",
        "filament": "out_passthrough_2.cs",
    }
    assert group.problems == ()


def test_where_a_job_between_was_deleted_the_images_lead_on(tmp_path):
    path, _ = tree(tmp_path)
    (tmp_path / "J4" / "job.json").unlink()
    files = open_particles(path, from_ancestors=True)
    assert {item.job for item in files.from_ancestors} == {"J3"}
    assert "ancestor-not-found" in {message.code for message in files.messages}


# Hostile trees


def test_a_job_that_descends_from_itself_is_read_once(tmp_path):
    path, _ = tree(tmp_path)
    describe(tmp_path, "J4", ["J5", "J4", "J3"], {})
    describe(
        tmp_path,
        "J3",
        ["J4", "J5", "J3"],
        {"particles": {("blob", False): "extracted_particles.cs", ("location", True): "J3_passthrough_particles.cs"}},
    )
    ancestry = Ancestry(open_particles(path))
    assert [job.uid for job in ancestry.jobs()] == ["J4", "J3"]
    assert {item.job for item in open_particles(path, from_ancestors=True).from_ancestors} == {"J3"}


def test_missing_damaged_and_foreign_jobs_are_said_and_passed_over(tmp_path):
    path, _ = tree(tmp_path)
    describe(tmp_path, "J5", ["J90", "J91", "J92", "J93", "J94", "J4"], {})
    (tmp_path / "J91").mkdir()
    (tmp_path / "J91" / "job.json").write_text('{"uid": "J91", "parents": ["J3"')
    describe(tmp_path, "J92", ["J3"], {}, project_uid="P7")
    describe(tmp_path, "J93", ["J3"], {}, uid="J17")
    (tmp_path / "J94").mkdir()
    (tmp_path / "J94" / "job.json").write_text('{"some": "thing"}')
    files = open_particles(path, from_ancestors=True)
    assert {item.job for item in files.from_ancestors} == {"J3"}
    said = {}
    for message in files.messages:
        if message.severity == "warning":
            where = Path(message.where)
            said[where.parent.name if where.name == "job.json" else where.name] = message
    assert {name: message.code for name, message in said.items()} == {
        "J90": "ancestor-not-found",
        "J91": "file-not-read",
        "J92": "ancestor-not-taken",
        "J93": "ancestor-not-taken",
        "J94": "ancestor-not-taken",
    }
    assert "is of project P7" in said["J92"].text
    assert "job.json of J17" in said["J93"].text


@pytest.mark.parametrize("damage", ["cut", "empty", "no uid", "float uid", "text"])
def test_a_damaged_file_of_an_ancestor_is_said_and_passed_over(tmp_path, damage):
    path, _ = tree(tmp_path)
    bad = tmp_path / "J3" / "extracted_particles.cs"
    if damage in {"cut", "empty", "text"}:
        bad.write_bytes({"cut": bad.read_bytes()[:-40], "empty": b"", "text": b"no table at all"}[damage])
    else:
        columns = location(UIDS)
        uid = {"no uid": {}, "float uid": {"uid": columns["uid"].astype("f8")}}[damage]
        del columns["uid"]
        save_cs(bad, uid | columns | {"z/z": np.zeros(N)})
    files = open_particles(path, from_ancestors=True)
    assert {item.file.name for item in files.from_ancestors} == {"J3_passthrough_particles.cs"}
    assert damage == "no uid" or "extracted_particles.cs" in str(
        [m for m in files.messages if m.code == "file-not-read"]
    )


def test_a_very_deep_tree_is_bounded_and_said(tmp_path):
    path = save_cs(tmp_path / "J1" / "p.cs", blob())
    for number in range(1, MAX_JOBS + 20):
        describe(tmp_path, f"J{number}", [f"J{number + 1}"], {})
    files = open_particles(path, from_ancestors=True)
    assert {"ancestors-left-out", "ancestors-have-nothing"} <= {message.code for message in files.messages}


@pytest.mark.parametrize(
    "parents",
    [["../../etc"], ["J3/../../x"], [3, None, {"a": 1}], ["J" + "9" * 5000], ["J٣"], "J3", {"job_uid": "J3"}, [["J3"]]],
)
def test_parents_that_are_no_names_of_jobs_are_not_followed(tmp_path, parents):
    path = save_cs(tmp_path / "J5" / "p.cs", blob())
    folder = describe(tmp_path, "J5", [], {}, input_slot_groups=[{"connections": [{"job_uid": [parents]}]}])
    content = json.loads((folder / "job.json").read_text()) | {"parents": parents}
    (folder / "job.json").write_text(json.dumps(content))
    files = open_particles(path, from_ancestors=True)
    assert [message.code for message in files.messages if message.severity == "warning"] == ["ancestors-have-nothing"]


def test_without_any_job_it_is_an_error(tmp_path):
    path = save_cs(tmp_path / "mine.cs", blob(stack="stacks/a.mrc"))
    with pytest.raises(MissingDataError, match="not known which jobs"):
        open_particles(path, from_ancestors=True)
    star = save_star(tmp_path / "a.star", "particles", {"rlnImageName": ["1@a.mrcs"]})
    with pytest.raises(UsageError, match="files of cryoSPARC"):
        open_particles(star, from_ancestors=True)


# What the commands make of it


@LAYOUTS
def test_select_writes_the_columns_and_a_group_that_has_them(tmp_path, layout):
    path, chosen = tree(tmp_path, layout)
    report = select_files(path, tmp_path / "out" / "all.cs", from_ancestors=True)
    assert report.rows_out == 4
    assert [(item.job, item.group, item.rows) for item in report.from_ancestors] == [
        ("J3", "location", 4),
        ("J3", "filament", 4),
    ]
    main, other = np.load(tmp_path / "out" / "all.cs"), np.load(tmp_path / "out" / "all_passthrough.cs")
    assert main["uid"].tolist() == other["uid"].tolist() == chosen.tolist()
    assert other.dtype.names == (
        "uid",
        *(name for name in location(UIDS) if name != "uid"),
        *(name for name in filament(UIDS) if name != "uid"),
    )
    assert other["location/micrograph_path"][0].decode() == f">../J2/m{number_of(chosen)[0]}.mrc"
    group = read_csg(tmp_path / "out" / "all.csg")
    assert {slot.name: slot.metafile.name for slot in group.slots} == {
        "blob": "all.cs",
        "ctf": "all.cs",
        "location": "all_passthrough.cs",
        "filament": "all_passthrough.cs",
    }
    assert group.problems == ()
    # The columns are those of any file then, also to choose by.
    some = select_files(path, tmp_path / "some.cs", from_ancestors=True, where="filament/position_A > 100")
    assert some.rows_out == int((number_of(chosen) % 4 >= 3).sum())
    again = select_files(tmp_path / "out" / "all.csg", tmp_path / "again.cs", where="location/center_x_frac > 0")
    assert again.rows_out == 4


def test_select_labels_go_beside_fetched_columns(tmp_path):
    path, _ = tree(tmp_path)
    save_cs(path.with_name("J5_passthrough_particles.cs"), {"uid": UIDS, "ml/score": np.arange(N, dtype="f4")})
    (tmp_path / "labels.txt").write_text("0\n1\n0\n1\n")
    columns = dict(np.load(path).dtype.fields)
    assert "alignments2D/pose" not in columns
    save_cs(path, blob(UIDS[[7, 2, 9, 4]]) | {"alignments2D/pose": np.zeros(4, "f4")})
    select_files(path, tmp_path / "out.cs", from_ancestors=True, attach_class=tmp_path / "labels.txt")
    assert np.load(tmp_path / "out.cs")["alignments2D/class"].tolist() == [0, 1, 0, 1]
    assert np.load(tmp_path / "out_passthrough_2.cs")["location/center_x_frac"].shape == (4,)


@LAYOUTS
def test_convert_writes_coordinates_and_filaments_of_the_ancestor(tmp_path, layout):
    path, chosen = tree(tmp_path, layout)
    report = convert(path, tmp_path / "out.star", from_ancestors=True)
    assert {item.group for item in report.from_ancestors} == {"location", "filament"}
    labels, rows, _ = read_block((tmp_path / "out.star").read_text(), "particles")
    place = labels.index
    number = number_of(chosen)
    x = [float(row[place("rlnCoordinateX")]) for row in rows]
    assert np.allclose(x, 600 * (0.01 + number / 20), atol=1e-3)
    assert {"rlnHelicalTubeID", "rlnHelicalTrackLengthAngst"} <= set(labels)


def test_without_the_option_the_ancestor_is_named(tmp_path):
    path, _ = tree(tmp_path)
    report = convert(path, tmp_path / "out.star")
    (warned,) = [message for message in report.warnings if message.code == "no-coordinates"]
    assert "J3" in warned.text
    assert "from_ancestors" in warned.text


def test_coords_names_the_ancestor_and_takes_its_places(tmp_path):
    path, _ = tree(tmp_path)
    names = [f"MotionCorr/job002/m{k}.mrc" for k in range(N)]
    star = save_star(tmp_path / "mics.star", "micrographs", {"rlnMicrographName": names, "rlnOpticsGroup": [1] * N})
    result = run("coords", path, star, "-o", tmp_path / "picks")
    assert result.returncode == 1
    assert "J3" in result.stderr
    assert "--from-ancestors" in result.stderr
    result = run("coords", path, star, "-o", tmp_path / "picks", "--from-ancestors", "--json")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["rows_out"] == 4
    assert [item["group"] for item in content["from_ancestors"]] == ["location", "filament"]


def test_sets_are_read_with_it_and_sets_in_memory_refuse_it(tmp_path):
    path, _ = tree(tmp_path)
    particles = read_particles(path, from_ancestors=True)
    assert particles.locations is not None
    with pytest.raises(UsageError, match="not for a set in memory"):
        select(particles, from_ancestors=True)
    with pytest.raises(UsageError, match="not for a set in memory"):
        convert(particles, tmp_path / "a.star", from_ancestors=True)
