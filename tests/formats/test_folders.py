from __future__ import annotations

import json
import pickle
import shlex
import shutil
import time
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cryobridge as cb
from cryobridge.errors import CryobridgeError, FormatError, UsageError
from cryobridge.formats.cryosparc.cs import write_cs
from cryobridge.formats.cryosparc.job import read_job, siblings_with
from cryobridge.formats.cryosparc.members import related_by_name
from cryobridge.formats.cryosparc.names import group_by_name, is_excluded, parse_cs_name
from cryobridge.formats.folders import identify_folder
from cryobridge.formats.listing import gaps, say_ranges
from cryobridge.formats.own_output import read_own_output
from cryobridge.formats.projects import folder_refusal
from cryobridge.formats.recovar.job import read_recovar_job
from cryobridge.formats.relion.job import read_relion_job
from helpers import run, texts


def touch(folder, *names, content="data_x\n"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def particles(path, n=3, *groups):
    path.parent.mkdir(parents=True, exist_ok=True)
    uid = np.arange(1, n + 1, dtype=np.uint64)
    write_cs(path, {"uid": uid, **{f"{group}/value": np.zeros(n, np.float32) for group in groups}})


def write_volume(path, voxel_size=2.0, box=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, np.zeros((box, box, box), np.float32), overwrite=True) as mrc:
        mrc.voxel_size = voxel_size


def words(item):
    return " ".join(texts(item.problems))


# Folders that a command does not take


def test_a_folder_that_is_not_taken_is_named_with_what_to_give_instead(tmp_path):
    relion, cryosparc = tmp_path / "re lion", tmp_path / "cryosparc"
    touch(relion, "default_pipeline.star", "Class2D/job004/run_it019_data.star", "Class2D/job004/run_it020_data.star")
    touch(relion, "CtfFind/job003/micrographs_ctf.star", "CtfFind/job005/RELION_JOB_EXIT_SUCCESS")
    touch(relion, "Extract/job006/particles.star")
    particles(cryosparc / "J4" / "J4_003_particles.cs")
    touch(cryosparc, "J5/notes.txt")
    particles(tmp_path / "plain" / "mine.cs")
    (tmp_path / "empty").mkdir()
    star = "re lion/Class2D/job004/run_it020_data.star"
    for folder, wanted, message, instead in (
        ("re lion", "particles", "a RELION project", "re lion/Extract/job006/particles.star"),
        ("re lion", "micrographs", "a RELION project", "re lion/CtfFind/job003/micrographs_ctf.star"),
        ("re lion", "cryoSPARC particles", "a RELION project", None),
        ("re lion/Class2D/job004", "particles", "a RELION job", star),
        ("re lion/Class2D/job004", "RELION particles", "a RELION job", star),
        ("re lion/Class2D/job004", "micrographs", "a RELION job", None),
        ("re lion/CtfFind/job003", "micrographs", "a RELION job", "re lion/CtfFind/job003/micrographs_ctf.star"),
        ("re lion/CtfFind/job003", "particles", "a RELION job", None),
        ("cryosparc", "particles", "a cryoSPARC project", "cryosparc/J4"),
        ("cryosparc", "cryoSPARC particles", "a cryoSPARC project", "cryosparc/J4"),
        ("cryosparc", "RELION particles", "a cryoSPARC project", None),
        ("plain", "particles", "a folder of unknown content", "plain/mine.cs"),
        ("plain", "micrographs", "a folder of unknown content", None),
        ("empty", "particles", "a folder of unknown content", None),
    ):
        error = folder_refusal(tmp_path / folder, wanted)
        assert (error.path, error.message) == (str(tmp_path / folder), f"this is {message}")
        if instead is None:
            assert str(tmp_path) not in error.hint
        else:
            assert error.hint.endswith(f" {shlex.quote(str(tmp_path / instead))}.")


def test_commands_say_what_to_give_instead_of_a_folder(demo_project, tmp_path):
    root = demo_project.refinement.parent
    star = demo_project.micrographs_star
    for words, instead in (
        (["convert", root, "-o", "m.star"], demo_project.refinement),
        (["select", root, "--random", "3", "-o", "m.cs"], demo_project.refinement),
        (["stacks", "cs", root, "-o", "m"], demo_project.refinement),
        (["stacks", "downsample", root, "-D", "8", "-o", "m"], demo_project.refinement),
        (["coords", root, star, "-o", "m"], demo_project.refinement),
        (["coords", demo_project.passthrough_cs, star.parent, "-o", "m"], star),
        (["stacks", "star", demo_project.refinement, "-o", "m"], f"stacks cs {demo_project.refinement}"),
        (["stacks", "star", demo_project.particles_cs, "-o", "m"], f"stacks cs {demo_project.particles_cs}"),
    ):
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert str(instead) in "".join(done.stderr.splitlines()), done.stderr
        assert list(tmp_path.glob("m*")) == []


# Numbers


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 3))
def test_gaps_are_exactly_the_numbers_that_are_absent(numbers, first):
    missing = {number for run in gaps(numbers, first=first) for number in run}
    assert missing == set(range(first, max(numbers))) - numbers


def test_a_gap_of_a_million_is_said_in_few_words():
    assert say_ranges(gaps([0, 1, 999_999], first=0), 6) == "000002-999998"
    assert say_ranges(gaps(range(0, 100, 2), first=0)) == "1, 3, 5, 7, 9 … (49 in all)"


# cryoSPARC: names


@pytest.mark.parametrize(
    ("name", "job", "group", "iteration", "is_passthrough"),
    [
        ("cryosparc_P12_J24_001_particles.cs", "J24", "particles", 1, False),
        ("cryosparc_P12_J24_passthrough_particles.cs", "J24", "particles", None, True),
        ("P12_J24_001_particles.cs", "J24", "particles", 1, False),
        ("J42_005_particles.cs", "J42", "particles", 5, False),
        ("J42_passthrough_particles.cs", "J42", "particles", None, True),
        ("J1_class_00_00863_particles.cs", "J1", "particles_class_0", 863, False),
        ("J42_class_01_final_particles.cs", "J42", "particles_class_1", "final", False),
        ("J42_passthrough_particles_class_0.cs", "J42", "particles_class_0", None, True),
        ("J264_00062_particles.cs", "J264", "particles", 62, False),
        ("J264_passthrough_particles_all_classes.cs", "J264", "particles_all_classes", None, True),
        ("J2_020_class_averages.cs", "J2", "class_averages", 20, False),
        ("J9_passthrough_particles_selected.cs", "J9", "particles_selected", None, True),
        ("particles_selected.cs", "", "particles_selected", None, False),
        ("extracted_particles.cs", "", "extracted_particles", None, False),
        ("J7_particles_exported.cs", "J7", "particles_exported", None, False),
        ("anything else.cs", "", "anything else", None, False),
        # What select writes beside NAME.cs.
        ("subset_passthrough.cs", "", "subset", None, True),
        ("J4_003_particles_passthrough_2.cs", "J4", "particles", 3, True),
        ("sub_class_1_passthrough.cs", "", "sub_class_1", None, True),
        ("passthrough.cs", "", "passthrough", None, False),
    ],
)
def test_names_of_every_version_are_understood(name, job, group, iteration, is_passthrough):
    parsed = parse_cs_name(name)
    assert (parsed.job, parsed.group, parsed.iteration, parsed.is_passthrough) == (
        job,
        group,
        iteration,
        is_passthrough,
    )


@pytest.mark.parametrize(
    ("names", "group", "main", "passthrough"),
    [
        (
            ["J42_009_particles.cs", "J42_010_particles.cs", "J42_passthrough_particles.cs"],
            "particles",
            "J42_010_particles.cs",
            "J42_passthrough_particles.cs",
        ),
        # As text 99 sorts after 100, and "final" before both: numbers count.
        (["J1_099_particles.cs", "J1_100_particles.cs"], "particles", "J1_100_particles.cs", None),
        (["J1_00999_particles.cs", "J1_final_particles.cs"], "particles", "J1_final_particles.cs", None),
        (
            ["J2_class_00_00010_particles.cs", "J2_class_00_final_particles.cs", "J2_passthrough_particles_class_0.cs"],
            "particles_class_0",
            "J2_class_00_final_particles.cs",
            "J2_passthrough_particles_class_0.cs",
        ),
        (
            ["J264_00062_particles.cs", "J264_passthrough_particles_all_classes.cs"],
            "particles",
            "J264_00062_particles.cs",
            "J264_passthrough_particles_all_classes.cs",
        ),
        (
            ["extracted_particles.cs", "J5_passthrough_particles.cs"],
            "extracted_particles",
            "extracted_particles.cs",
            "J5_passthrough_particles.cs",
        ),
        (
            ["particles_selected.cs", "J9_passthrough_particles_selected.cs", "J9_passthrough_particles_excluded.cs"],
            "particles_selected",
            "particles_selected.cs",
            "J9_passthrough_particles_selected.cs",
        ),
        (["J4_passthrough_particles.cs"], "particles", None, "J4_passthrough_particles.cs"),
        # A subset's own file goes before that of all, and with the subset alone.
        (["sub.cs", "sub_passthrough.cs", "J4_passthrough_sub.cs"], "sub", "sub.cs", "sub_passthrough.cs"),
        (
            ["J4_002_particles.cs", "J4_002_particles_passthrough.cs", "J4_003_particles.cs"],
            "particles",
            "J4_003_particles.cs",
            None,
        ),
    ],
)
def test_the_last_iteration_meets_its_passthrough(names, group, main, passthrough):
    found = {item.name: item for item in group_by_name(reversed(names))}[group]
    assert (found.main.name if found.main else None) == main
    assert [item.name for item in found.passthroughs] == ([] if passthrough is None else [passthrough])


def test_the_passthrough_of_a_subset_is_no_result_of_its_own():
    names = [f"sub_class_{n}{part}.cs" for n in range(3) for part in ("", "_passthrough", "_passthrough_2")]
    groups = group_by_name(names)
    assert [group.name for group in groups] == ["sub_class_0", "sub_class_1", "sub_class_2"]
    assert [len(group.passthroughs) for group in groups] == [2, 2, 2]
    (alone,) = group_by_name(["sub_passthrough.cs"])
    assert (alone.main, alone.passthroughs[0].name) == (None, "sub_passthrough.cs")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("J4_003_particles.cs", ["J4_passthrough_particles.cs"]),
        ("J4_002_particles.cs", ["J4_002_particles_passthrough.cs"]),
        ("J4_002_particles_passthrough.cs", ["J4_002_particles.cs"]),
        ("J4_passthrough_particles.cs", ["J4_003_particles.cs"]),
        ("J4.cs", ["J4_passthrough.cs"]),
        ("a.cs", ["a_passthrough.cs", "a_passthrough_2.cs"]),
        ("a_passthrough_2.cs", ["a.cs", "a_passthrough.cs"]),
        ("aa.cs", []),
        ("b_passthrough.cs", []),
    ],
)
def test_related_files_are_found_by_name_both_ways(tmp_path, name, expected):
    J4 = ("J4", "J4_passthrough", "J4_002_particles", "J4_002_particles_passthrough", "J4_003_particles")
    others = ("J4_passthrough_particles", "a", "a_passthrough", "a_passthrough_2", "aa", "b_passthrough")
    touch(tmp_path, *(f"{stem}.cs" for stem in (*J4, *others)))
    assert [path.name for path in related_by_name(tmp_path / name)] == expected


def test_what_a_job_threw_out_is_not_given_the_passthrough_of_what_it_kept():
    groups = {item.name: item for item in group_by_name(["particles_excluded.cs", "J9_passthrough_particles.cs"])}
    assert groups["particles_excluded"].passthroughs == ()
    assert is_excluded("particles_excluded")
    assert is_excluded("remainder")
    assert not is_excluded("particles_selected")


# cryoSPARC: jobs


def v4_result(slot, group, files, versions, counts, *, passthrough=False):
    return {
        "uid": "J42-R1",
        "type": f"particle.{slot}",
        "group_name": group,
        "name": slot,
        "title": slot,
        "min_fields": [],
        "versions": versions,
        "metafiles": files,
        "num_items": counts,
        "passthrough": passthrough,
    }


@pytest.fixture
def v4_job(tmp_path):
    job = tmp_path / "P3" / "J42"
    for iteration in (0, 9, 10):
        particles(job / f"J42_{iteration:03d}_particles.cs", 3, "alignments3D", "ctf")
    particles(job / "J42_passthrough_particles.cs", 3, "blob", "location")
    particles(job / "J42_volume_map.cs", 1, "map")
    # The versions are out of order: the highest is the final one, not the last in the list.
    files = [f"J42/J42_{n:03d}_particles.cs" for n in (0, 10, 9)]
    content = {
        "uid": "J42",
        "type": "nonuniform_refine_new",
        "title": "NU of everything",
        "status": "completed",
        "version": "v4.4.1",
        "output_result_groups": [
            {"name": "particles", "type": "particle", "title": "All particles", "num_items": 3},
            {"name": "volume", "type": "volume", "title": "Volume", "num_items": 1},
            {"name": "particles_unused", "type": "particle", "title": "Unused", "num_items": 0},
        ],
        "output_results": [
            v4_result("alignments3D", "particles", files, [0, 10, 9], [3, 3, 3]),
            v4_result("ctf", "particles", files, [0, 10, 9], [3, 3, 3]),
            v4_result("blob", "particles", ["J42/J42_passthrough_particles.cs"], [0], [3], passthrough=True),
            v4_result("location", "particles", ["J42/J42_passthrough_particles.cs"], [0], [3], passthrough=True),
            v4_result("map", "volume", ["J42/J42_volume_map.cs"], [10], [1]),
        ],
        "input_slot_groups": [
            {
                "name": "particles",
                "type": "particle",
                "connections": [{"job_uid": "J40", "group_name": "particles_selected"}],
            }
        ],
    }
    (job / "job.json").write_text(json.dumps(content))
    return SimpleNamespace(path=job, content=content)


def test_a_v4_job_tells_its_results_and_the_iteration_that_was_taken(v4_job):
    job = read_job(v4_job.path)
    assert (job.uid, job.job_type, job.title, job.status) == (
        "J42",
        "nonuniform_refine_new",
        "NU of everything",
        "completed",
    )
    assert job.layout == "v4"
    by_name = {output.name: output for output in job.outputs}
    found = by_name["particles"]
    assert found.main == v4_job.path / "J42_010_particles.cs"
    assert found.passthroughs == (v4_job.path / "J42_passthrough_particles.cs",)
    assert (found.iteration, found.num_items, found.kind, found.title) == (10, 3, "particle", "All particles")
    assert [slot.name for slot in found.slots if slot.is_passthrough] == ["blob", "location"]
    assert by_name["volume"].kind == "volume"
    assert by_name["particles_unused"].is_excluded
    assert not found.is_excluded
    assert [(source.job_uid, source.output) for source in job.inputs] == [("J40", "particles_selected")]
    assert job.problems == ()


def test_a_v5_job_says_the_same(v4_job):
    old = v4_job.content
    groups = {}
    for group in old["output_result_groups"]:
        results = [
            {
                "name": result["name"],
                "dtype": result["type"],
                "versions": result["versions"],
                "metafiles": result["metafiles"],
                "num_items": result["num_items"],
                "passthrough": result["passthrough"],
            }
            for result in old["output_results"]
            if result["group_name"] == group["name"]
        ]
        groups[group["name"]] = {key: group[key] for key in ("type", "title", "num_items")} | {"results": results}
    inputs = {"particles": {"type": "particle", "connections": [{"job_uid": "J40", "output": "particles_selected"}]}}
    new = {key: old[key] for key in ("uid", "title", "status", "version")}
    new["spec"] = {"type": old["type"], "params": {}, "inputs": inputs, "outputs": groups}
    before = read_job(v4_job.path)
    (v4_job.path / "job.json").write_text(json.dumps(new))
    after = read_job(v4_job.path)
    assert after.layout == "v5"
    assert (after.outputs, after.inputs, after.job_type) == (before.outputs, before.inputs, before.job_type)


def test_without_job_json_the_file_names_give_the_same_files(v4_job):
    described = {output.name: output for output in read_job(v4_job.path).outputs}["particles"]
    (v4_job.path / "job.json").unlink()
    job = read_job(v4_job.path)
    named = {output.name: output for output in job.outputs}["particles"]
    assert job.layout == "file names"
    assert job.uid == "J42"
    assert (named.main, named.passthroughs, named.iteration, named.num_items) == (
        described.main,
        described.passthroughs,
        described.iteration,
        described.num_items,
    )


def test_a_broken_job_json_is_reported_and_the_file_names_are_used(v4_job):
    (v4_job.path / "job.json").write_text('{"uid": "J42", "out')
    job = read_job(v4_job.path)
    assert job.layout == "file names"
    assert "the file names are used instead" in words(job)


def test_a_job_copied_out_of_its_project_finds_its_files(v4_job, tmp_path):
    copied = tmp_path / "copy of J42"
    shutil.copytree(v4_job.path, copied)
    shutil.rmtree(v4_job.path)
    job = read_job(copied)
    assert job.problems == ()
    assert job.outputs[0].main == copied / "J42_010_particles.cs"


def test_missing_files_and_wrong_counts_are_reported_as_data(v4_job):
    (v4_job.path / "J42_010_particles.cs").unlink()
    particles(v4_job.path / "J42_passthrough_particles.cs", 5, "blob")
    problems = words(read_job(v4_job.path))
    assert "J42_010_particles.cs does not exist" in problems
    assert "particles: job.json says 3 rows, J42_passthrough_particles.cs has 5" in problems


def test_a_job_json_that_names_files_elsewhere_only_has_them_reported(v4_job):
    v4_job.content["output_results"][0]["metafiles"] = ["../../../../etc/passwd"] * 3
    v4_job.content["output_results"][1]["metafiles"] = ["/dev/zero"] * 3
    (v4_job.path / "job.json").write_text(json.dumps(v4_job.content))
    assert "/dev/zero does not exist" in words(read_job(v4_job.path))


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.just("J42/J42_010_particles.cs"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["output_results", "output_result_groups", "input_slot_groups", "uid", "type", "spec", "status"]),
    junk,
    st.sampled_from(["metafiles", "versions", "num_items", "passthrough", "group_name", "name", "type"]),
    junk,
)
@settings(max_examples=80)
def test_a_job_json_of_wrong_types_never_crashes(tmp_path_factory, key, value, inner_key, inner_value):
    job = tmp_path_factory.mktemp("job") / "J42"
    particles(job / "J42_010_particles.cs", 1, "blob")
    result = v4_result("blob", "particles", ["J42/J42_010_particles.cs"], [0], [1]) | {inner_key: inner_value}
    content = {"uid": "J42", "output_results": [result], key: value}
    (job / "job.json").write_text(json.dumps(content))
    assert read_job(job).path == job
    assert identify_folder(job) == "cryosparc job"


def test_the_reference_job_folder_is_read_by_its_names(reference_data):
    folder = reference_data / "cryolike_reference" / "job_directory" / "cryosparc" / "J4"
    job = read_job(folder)
    assert job.uid == "J4"
    assert [path.name for path in job.outputs[0].passthroughs] == ["J4_passthrough_particles.cs"]
    assert job.outputs[0].main is None
    restack, downsample = job.batches
    assert (restack.kind, restack.n_from_zero, len(restack.files)) == ("restack", 3, 3)
    assert (downsample.kind, downsample.n_from_zero, len(downsample.files)) == ("downsample", 3, 4)
    assert "downsample/: missing batches: 000003" in words(job)


def test_class_averages_and_groups_of_a_2d_job_are_listed(tmp_path):
    job = touch(tmp_path / "J2", "J2_000_class_averages.mrc", "J2_020_class_averages.mrc", "J2_particles.csg")
    particles(job / "J2_020_particles.cs", 4, "alignments2D")
    particles(job / "J2_020_class_averages.cs", 2, "blob")
    found = read_job(job)
    assert found.class_averages == job / "J2_020_class_averages.mrc"
    assert [path.name for path in found.groups] == ["J2_particles.csg"]
    assert {output.name: output.kind for output in found.outputs} == {
        "class_averages": "template",
        "particles": "particle",
    }
    assert {output.name: output.num_items for output in found.outputs}["particles"] == 4


def test_a_file_that_cannot_be_read_is_a_problem_of_its_result_alone(tmp_path):
    job = touch(tmp_path / "J2", "J2_001_particles.cs", content="")
    particles(job / "extracted_particles.cs", 4, "blob")
    found = read_job(job)
    assert "the file is empty" in words(found)
    assert {output.name: output.num_items for output in found.outputs} == {"particles": None, "extracted_particles": 4}


def test_the_sibling_with_the_missing_columns_is_found(tmp_path):
    job = tmp_path / "J42"
    particles(job / "J42_005_particles.cs", 3, "alignments3D")
    particles(job / "J42_004_particles.cs", 3, "location")
    particles(job / "J42_passthrough_particles.cs", 3, "location", "blob")
    touch(job, "broken.cs", content="nonsense")
    found = siblings_with(job / "J42_005_particles.cs", "location/")
    assert [path.name for path in found] == ["J42_passthrough_particles.cs", "J42_004_particles.cs"]
    assert siblings_with(job / "J42_005_particles.cs", "filament/") == []
    assert siblings_with(tmp_path / "absent" / "x.cs", "blob/") == []


def test_a_folder_that_is_no_cryosparc_job_is_refused_with_a_hint(tmp_path):
    with pytest.raises(FormatError, match="not a cryoSPARC job") as caught:
        read_job(touch(tmp_path / "other", "a.txt"))
    assert "J42" in caught.value.hint
    with pytest.raises(FormatError, match="can't be listed"):
        read_job(tmp_path / "absent")


# RELION


def iteration(number, *, root="run", halves=False, classes=0, lacking=()):
    stem = f"{root}_it{number:03d}"
    parts = ["data.star", "optimiser.star", "sampling.star"]
    parts += ["half1_model.star", "half2_model.star"] if halves else ["model.star"]
    parts += [f"class{n:03d}.mrc" for n in range(1, classes + 1)]
    return [f"{stem}_{part}" for part in parts if part not in lacking]


def test_a_3d_classification_is_reported_by_its_folder_and_its_iterations_are_listed(tmp_path):
    job = tmp_path / "proj" / "Class3D" / "job012"
    touch(job, *(name for n in range(26) for name in iteration(n, classes=4)), "RELION_JOB_EXIT_SUCCESS")
    touch(tmp_path / "proj", "default_pipeline.star")
    found = read_relion_job(job)
    assert (found.kind, found.known_by, found.status) == ("Class3D", "folder name", "success")
    assert found.project == tmp_path / "proj"
    assert [item.number for item in found.iterations] == list(range(26))
    last = found.last
    assert last.data == job / "run_it025_data.star"
    assert last.model == job / "run_it025_model.star"
    assert last.optimiser == job / "run_it025_optimiser.star"
    assert last.sampling == job / "run_it025_sampling.star"
    assert [path.name for path in last.volumes] == [f"run_it025_class{n:03d}.mrc" for n in range(1, 5)]
    assert last.continued_from is None
    assert found.problems == ()


def test_a_refinement_ends_with_its_final_files(tmp_path):
    job = touch(
        tmp_path / "somewhere",
        *(name for n in range(3) for name in iteration(n, halves=True)),
        "run_it002_half1_class001.mrc",
        "run_it002_half2_class001.mrc",
        "run_data.star",
        "run_model.star",
        "run_optimiser.star",
        "run_class001.mrc",
        "run_half1_class001_unfil.mrc",
        "run_half2_class001_unfil.mrc",
        "run.out",
        "run.job",
    )
    found = read_relion_job(job)
    # Its final files are there: it has ended, with or without a file that says so.
    assert (found.kind, found.known_by, found.status) == ("Refine3D", "files", "success")
    assert found.iterations[-1].half1_model == job / "run_it002_half1_model.star"
    assert found.iterations[-1].half2_model == job / "run_it002_half2_model.star"
    assert found.iterations[-1].model is None
    assert len(found.iterations[-1].half_volumes) == 2
    assert found.last is found.final
    assert found.final.data == job / "run_data.star"
    assert [path.name for path in found.final.volumes] == ["run_class001.mrc"]
    assert [path.name for path in found.final.unfiltered_halves] == [
        "run_half1_class001_unfil.mrc",
        "run_half2_class001_unfil.mrc",
    ]
    assert found.problems == ()


def test_a_continued_run_takes_over_where_it_was_continued(tmp_path):
    names = [name for n in range(16) for name in iteration(n)]
    names += [name for n in range(11, 21) for name in iteration(n, root="run_ct10")]
    found = read_relion_job(touch(tmp_path / "Class3D" / "job001", *names))
    chain = [(item.number, item.continued_from) for item in found.chain]
    assert chain == [(n, None) for n in range(11)] + [(n, 10) for n in range(11, 21)]
    assert len(found.iterations) == 26
    assert found.last.data.name == "run_ct10_it020_data.star"
    assert any("Iterations 11 to 15 of run are of another branch" in text for text in texts(found.problems))


def test_missing_and_half_written_iterations_are_reported(tmp_path):
    names = [name for n in (0, 1, 2, 5, 6) for name in iteration(n)]
    names += iteration(7, lacking=("model.star", "sampling.star"))
    job = touch(tmp_path / "Class3D" / "job001", *names)
    (job / "run_it007_data.star").write_text("")
    problems = words(read_relion_job(job))
    assert "Missing iterations: 3-4" in problems
    assert "Iteration 7: no model.star, no sampling.star" in problems
    assert "run_it007_data.star is empty" in problems


def test_a_lone_half_model_is_reported(tmp_path):
    names = iteration(0, halves=True) + iteration(1, halves=True, lacking=("half2_model.star",))
    assert "Iteration 1: no half2_model.star" in words(read_relion_job(touch(tmp_path / "job", *names)))


def test_a_job_that_writes_every_tenth_iteration_has_no_gaps(tmp_path):
    names = [name for n in range(0, 201, 10) for name in iteration(n)] + ["run_it200_classes.mrcs"]
    job = touch(tmp_path / "job", *names)
    found = read_relion_job(job)
    assert found.kind == "Class2D"
    assert found.problems == ()
    (job / "run_it100_data.star").unlink()
    for name in iteration(100):
        (job / name).unlink(missing_ok=True)
    assert "Missing iterations: 100" in texts(read_relion_job(job).problems)


def test_the_last_iteration_may_come_before_its_turn(tmp_path):
    names = [name for n in (0, 10, 20, 25) for name in iteration(n)]
    assert read_relion_job(touch(tmp_path / "job", *names)).problems == ()


def test_2d_class_averages_are_found(tmp_path):
    job = touch(tmp_path / "Class2D" / "job006", *iteration(25), "run_it025_classes.mrcs")
    assert read_relion_job(job).last.class_averages == job / "run_it025_classes.mrcs"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("_rlnJobTypeLabel             relion.class2d.em", "Class2D"),
        ("_rlnJobTypeLabel             relion.refine3d", "Refine3D"),
        ("_rlnJobTypeLabel             relion.ctffind.ctffind4", "CtfFind"),
        ("_rlnJobType                  9", "Class3D"),
        ("_rlnJobType                  5", "Extract"),
        ("_rlnJobType                  18", "InitialModel"),
    ],
)
def test_job_star_tells_the_kind_before_folder_and_files_do(tmp_path, line, kind):
    job = tmp_path / "External" / "job009"
    touch(job, "job.star", content=f"\n# version 30001\n\ndata_job\n\n{line}\n_rlnJobIsContinue   0\n")
    found = read_relion_job(job)
    assert (found.kind, found.known_by) == (kind, "job.star")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["micrographs_ctf.star"], "CtfFind"),
        (["autopick.star"], "AutoPick"),
        (["particles.star", "extractpick.star"], "Extract"),
        (["particles.star", "class_averages.star"], "Select"),
        (["corrected_micrographs.star"], "MotionCorr"),
    ],
)
def test_the_files_tell_the_kind_of_other_jobs(tmp_path, names, kind):
    job = touch(tmp_path / "job", *names, "RELION_JOB_EXIT_FAILURE")
    found = read_relion_job(job)
    assert (found.kind, found.known_by, found.status) == (kind, "files", "failure")
    assert {path.name for path in found.outputs} == set(names)


def test_an_aborted_job_says_so(tmp_path):
    assert read_relion_job(touch(tmp_path / "job", "RELION_JOB_EXIT_ABORTED")).status == "aborted"


def test_a_second_run_in_the_folder_is_reported_and_passed_over(tmp_path):
    job = touch(tmp_path / "job", *iteration(0), *iteration(1), *iteration(0, root="test"))
    found = read_relion_job(job)
    assert [item.number for item in found.iterations] == [0, 1]
    assert "Other runs lie in the folder and are passed over: test" in texts(found.problems)


def test_the_real_optimiser_alone_is_a_job_of_one_half_written_iteration(reference_data, tmp_path):
    shutil.copy(reference_data / "real" / "run_it025_optimiser_2D.star", tmp_path / "run_it025_optimiser.star")
    found = read_relion_job(tmp_path)
    assert found.last.optimiser.name == "run_it025_optimiser.star"
    assert "Iteration 25: no model.star, no data.star, no sampling.star" in texts(found.problems)


def test_a_folder_that_is_no_relion_job_is_refused_with_a_hint(tmp_path):
    with pytest.raises(FormatError, match="not a RELION job") as caught:
        read_relion_job(touch(tmp_path / "other", "particles.star"))
    assert "job012" in caught.value.hint


# RECOVAR


def test_the_real_pipeline_is_described(reference_data):
    job = read_recovar_job(reference_data / "recovar_run" / "out")
    assert job.kind == "pipeline"
    facts = job.facts
    assert (facts.version, facts.status, facts.command, facts.duration_s) == ("1.0.5", "completed", "pipeline", 72.1)
    model = job.model
    assert (model.voxel_size_A, model.volume_shape, model.zdims) == (17.0, (32, 32, 32), (2, 4))
    shapes = {(e.zdim, array.name): array.shape for e in job.embeddings for array in e.arrays}
    assert shapes[2, "latent_coords"] == (600, 2)
    assert shapes[4, "latent_precision"] == (600, 4, 4)
    assert shapes[2, "contrasts"] == (600,)
    assert [embedding.n_rows for embedding in job.embeddings] == [600, 600]
    kinds = {volume.path.name: volume.kind for volume in job.volumes}
    assert kinds["mean.mrc"] == "mean"
    assert kinds["mean_half2_unfil.mrc"] == "half map"
    assert kinds["dilated_mask.mrc"] == "mask"
    assert kinds["eigen_pos0003.mrc"] == "eigenvolume"
    assert kinds["variance10.mrc"] == "variance"
    assert [analysis.path.name for analysis in job.analyses] == ["analysis_2"]
    assert [density.path.name for density in job.densities] == ["Density"]
    assert job.problems == job.analyses[0].problems == job.densities[0].problems == ()


def test_eigenvalues_of_the_real_model_are_read_and_its_code_is_named_not_run(reference_data):
    model = read_recovar_job(reference_data / "recovar_run" / "out").model
    assert set(model.refused_names) == {"jax._src.array._reconstruct_array", "argparse.Namespace"}
    assert model.eigenvalues.shape == (50,)
    assert (np.diff(model.eigenvalues) < 0).all()
    # RECOVAR's variance map of four components is the sum of their squared eigenvolumes, each times its eigenvalue.
    volumes = reference_data / "recovar_run" / "out" / "output" / "volumes"
    eigenvolumes = np.array([mrcfile.read(volumes / f"eigen_pos{n:04d}.mrc") for n in range(4)], dtype=np.float64)
    variance = np.tensordot(model.eigenvalues[:4], eigenvolumes**2, axes=1)
    np.testing.assert_allclose(variance, mrcfile.read(volumes / "variance4.mrc"), rtol=1e-4)


def test_the_real_analysis_is_described(reference_data):
    job = read_recovar_job(reference_data / "recovar_run" / "out" / "analysis_2")
    assert job.kind == "analysis"
    (analysis,) = job.analyses
    assert (analysis.layout, analysis.zdim, analysis.n_centers, analysis.n_labels) == ("documented", 2, 2, 600)
    assert [volume.path.name for volume in analysis.centers] == ["center000.mrc", "center001.mrc"]
    assert sum(volume.half is not None for volume in analysis.center_volumes) == 4
    assert {volume.path.name for volume in analysis.center_volumes if volume.is_unfiltered and volume.half is None} == {
        "center000_unfil.mrc",
        "center001_unfil.mrc",
    }
    (trajectory,) = analysis.trajectories
    assert trajectory.index == 0
    assert {volume.index for volume in trajectory.volumes} == {0, 1}
    assert analysis.endpoints.name == "trajectory_endpoints.pkl"
    assert analysis.umap.name == "umap_embedding.pkl"
    assert analysis.problems == ()


def test_the_real_densities_come_with_their_alphas(reference_data):
    job = read_recovar_job(reference_data / "recovar_run" / "out" / "Density")
    (density,) = job.densities
    assert job.kind == "density"
    assert [item.index for item in density.all_densities] == list(range(11))
    alphas = [item.alpha for item in density.all_densities]
    assert alphas == sorted(alphas, reverse=True)
    assert density.knee.alpha in alphas
    assert density.knee.shape == (20, 20)


@pytest.fixture
def result(tmp_path):
    root = tmp_path / "out"
    (root / "model" / "zdim_3").mkdir(parents=True)
    np.save(root / "model" / "zdim_3" / "latent_coords.npy", np.zeros((10, 3), np.float32))
    (root / "model" / "params.pkl").write_bytes(pickle.dumps({"s": np.arange(5, 0, -1.0), "version": "0.7"}))
    (root / "model" / "metadata.json").write_text(
        json.dumps({"voxel_size": 2.0, "volume_shape": [4, 4, 4], "zdims_computed": [3]})
    )
    for name in ("mean", "mask", "mean_half1_unfil", "mean_half2_unfil"):
        write_volume(root / "output" / "volumes" / f"{name}.mrc")
    return root


def add_analysis(folder, n_labels=10, n_centers=2):
    (folder / "data").mkdir(parents=True)
    content = {"centers": np.zeros((n_centers, 3), np.float32), "labels": np.zeros(n_labels, np.int64)}
    (folder / "data" / "kmeans_result.pkl").write_bytes(pickle.dumps(content))
    for center in range(n_centers):
        for suffix in ("", "_half1_unfil", "_half2_unfil"):
            write_volume(folder / "kmeans" / f"center{center:03d}{suffix}.mrc")
    return folder


def test_a_result_without_job_json_is_read_all_the_same(result):
    add_analysis(result / "output" / "analysis_3")
    job = read_recovar_job(result)
    assert (job.kind, job.facts) == ("pipeline", None)
    assert job.model.eigenvalues.tolist() == [5, 4, 3, 2, 1]
    assert job.model.refused_names == ()
    assert [analysis.path.name for analysis in job.analyses] == ["analysis_3"]
    assert job.analyses[0].zdim == 3
    assert job.problems == job.analyses[0].problems == ()


def test_an_analysis_in_a_folder_of_any_name_is_found(result):
    add_analysis(result / "Analyze")
    assert [analysis.path.name for analysis in read_recovar_job(result).analyses] == ["Analyze"]
    assert read_recovar_job(result).analyses[0].zdim == 3


def test_the_older_layout_is_understood(result):
    analysis = result / "output" / "analysis_3"
    add_analysis(analysis)
    (analysis / "data" / "kmeans_result.pkl").rename(analysis / "kmeans_result.pkl")
    shutil.rmtree(analysis / "kmeans")
    for center in (0, 1):
        write_volume(analysis / "kmeans" / f"vol{center:04d}.mrc")
        write_volume(analysis / "kmeans" / f"vol{center:04d}" / "half1_unfil.mrc")
        write_volume(analysis / "kmeans" / f"vol{center:04d}" / "half2_unfil.mrc")
    touch(analysis, "umap/umap_embedding.pkl")
    write_volume(analysis / "path0" / "all_volumes" / "vol0000.mrc")
    density = result / "density"
    (density / "all_densities").mkdir(parents=True)
    grid = {"density": np.ones((5, 5)), "latent_space_bounds": np.zeros((2, 2)), "alpha": 0.5}
    for name in ("deconv_density_knee.pkl", "all_densities/deconv_density_0.pkl", "all_densities/deconv_density_2.pkl"):
        (density / name).write_bytes(pickle.dumps(grid))
    job = read_recovar_job(result)
    (found,) = job.analyses
    assert (found.layout, found.n_centers, len(found.centers)) == ("older", 2, 2)
    assert {volume.kind for volume in found.centers} == {"center"}
    assert found.umap == analysis / "umap" / "umap_embedding.pkl"
    assert [len(trajectory.volumes) for trajectory in found.trajectories] == [1]
    assert found.problems == ()
    (grids,) = job.densities
    assert (grids.layout, grids.knee.alpha, len(grids.all_densities)) == ("older", 0.5, 2)
    assert texts(grids.problems) == ["Missing densities: 1"]
    assert identify_folder(analysis) == identify_folder(density) == "recovar result"


def test_problems_of_an_analysis_are_reported_as_data(result):
    analysis = add_analysis(result / "analysis_3", n_labels=9, n_centers=4)
    (analysis / "kmeans" / "center001_half2_unfil.mrc").unlink()
    write_volume(analysis / "kmeans" / "center000.mrc", voxel_size=0.0)
    for path in (analysis / "kmeans").glob("center002*"):
        path.unlink()
    problems = words(read_recovar_job(result).analyses[0])
    assert "k-means has 9 labels, but there are 10 latent coordinates" in problems
    assert "Center 001: no pair of half maps" in problems
    assert "center000.mrc: the voxel size in its header is 0" in problems
    assert "Missing maps: 002" in problems
    assert "k-means has 4 centers, but there are maps of 3" in problems
    # The same when the analysis alone is given.
    assert "10 latent coordinates" in words(read_recovar_job(analysis).analyses[0])


def test_an_analysis_without_maps_lacks_no_half_maps(result):
    analysis = add_analysis(result / "analysis_3")
    shutil.rmtree(analysis / "kmeans")
    found = read_recovar_job(result).analyses[0]
    assert found.centers == found.problems == ()


def test_missing_pieces_of_a_model_are_reported_as_data(result):
    (result / "model" / "metadata.json").write_text(
        json.dumps({"voxel_size": 0.0, "volume_shape": [8, 8, 8], "zdims_computed": [3, 7]})
    )
    (result / "output" / "volumes" / "mean_half2_unfil.mrc").unlink()
    (result / "output" / "volumes" / "mask.mrc").unlink()
    (result / "model" / "params.pkl").unlink()
    np.save(result / "model" / "zdim_3" / "contrasts.npy", np.zeros(4))
    problems = words(read_recovar_job(result))
    assert "model/params.pkl is missing" in problems
    assert "lists zdim 7, which model/ does not have" in problems
    assert "no mask map" in problems
    assert "no pair of half maps of the mean" in problems
    assert "the voxel size is 0" in problems
    assert "contrasts.npy and latent_coords.npy differ in length" in problems
    assert "its size (4, 4, 4) is not the model's (8, 8, 8)" in problems


def test_damaged_pieces_of_a_model_are_reported_as_data(result):
    (result / "job.json").write_text("{")
    (result / "model" / "metadata.json").write_text("[1]")
    (result / "model" / "params.pkl").write_bytes(b"not a pickle")
    coords = result / "model" / "zdim_3" / "latent_coords.npy"
    coords.write_bytes(coords.read_bytes()[:-8])
    (result / "output" / "volumes" / "mean.mrc").write_bytes(b"short")
    job = read_recovar_job(result)
    for piece in ("job.json", "metadata.json", "params.pkl", "latent_coords.npy", "mean.mrc"):
        assert piece in words(job), piece
    assert job.model.eigenvalues is None


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_of_a_result_is_run(result, tmp_path):
    analysis = add_analysis(result / "analysis_3")
    marker = tmp_path / "ran"
    for path in (result / "model" / "params.pkl", analysis / "data" / "kmeans_result.pkl"):
        path.write_bytes(pickle.dumps({"s": np.arange(3.0), "trap": Trap(marker)}, protocol=2))
    job = read_recovar_job(result)
    assert not marker.exists()
    assert job.model.eigenvalues.tolist() == [0, 1, 2]
    assert any("open" in name for name in job.model.refused_names)
    assert "run code" in words(job.analyses[0])


@pytest.mark.parametrize("seconds", ["NaN", "-Infinity", "true", '"long"'])
def test_a_duration_that_is_no_number_is_not_known(seconds, tmp_path):
    content = '{"recovar_version": "1.0.5", "command": "pipeline", "timing": {"duration_seconds": %s}}'
    (tmp_path / "job.json").write_text(content % seconds)
    assert read_recovar_job(tmp_path).facts.duration_s is None
    assert run("inspect", tmp_path).returncode == 0


def test_a_job_of_another_command_lists_its_maps(tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"recovar_version": "1.0.5", "command": "compute_state"}))
    write_volume(tmp_path / "state000.mrc")
    job = read_recovar_job(tmp_path)
    assert (job.kind, job.facts.command, job.facts.duration_s) == ("other", "compute_state", None)
    assert [volume.index for volume in job.volumes] == [0]


@given(st.sampled_from(["timing", "status", "parameters", "provenance", "recovar_version"]), junk)
@settings(max_examples=50)
def test_a_recovar_job_json_of_wrong_types_never_crashes(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("recovar")
    (folder / "model").mkdir()
    (folder / "model" / "metadata.json").write_text(json.dumps({"volume_shape": value, "voxel_size": value}))
    (folder / "job.json").write_text(json.dumps({"recovar_version": "1.0.5", "command": "pipeline"} | {key: value}))
    assert read_recovar_job(folder).kind == "pipeline"


def test_a_folder_that_is_no_result_of_recovar_is_refused_with_a_hint(tmp_path):
    with pytest.raises(FormatError, match="not a result of RECOVAR") as caught:
        read_recovar_job(touch(tmp_path / "x", "kmeans/notes.txt", "model/other.txt"))
    assert "labels.pkl of cryoDRGN is given with kmeans=" in caught.value.hint


# Our own


def stacks(folder, fft=(), npz=(), phys=(), **job):
    names = [f"fft/particles_fourier_stack_{n:06d}.pt" for n in fft]
    names += [f"fft/particles_fourier_stack_{n:06d}.npz" for n in npz]
    names += [f"phys/particles_phys_stack_{n:06d}.pt" for n in phys]
    touch(folder, *names)
    if job:
        folder.mkdir(exist_ok=True)
        (folder / "job.json").write_text(json.dumps({"program": "cryobridge", **job}))
    return folder


def test_a_whole_set_of_stacks_has_no_problems(tmp_path):
    out = stacks(tmp_path / "o", range(3), range(3), range(3), version="0.1.0", command="stacks", status="completed")
    touch(out, "plots/power_spectrum_stack_000000.png", "plots/notes.txt")
    found = read_own_output(out)
    assert (found.kind, found.version, found.command, found.status) == ("stacks", "0.1.0", "stacks", "completed")
    assert {series.content: len(series.files) for series in found.series} == {
        "Fourier stacks": 3,
        "descriptors": 3,
        "physical stacks": 3,
    }
    assert found.series[0].files[2].name == "particles_fourier_stack_000002.pt"
    assert found.plots == 1
    assert found.problems == ()


def test_gaps_and_missing_partners_are_reported(tmp_path):
    found = read_own_output(stacks(tmp_path / "o", [0, 1, 2, 5], [0, 2, 5, 6], [0, 1, 2]))
    assert "Missing Fourier stacks: 000003-000004" in texts(found.problems)
    assert "Fourier stacks without their .npz: 000001" in texts(found.problems)
    assert "Descriptors without their Fourier stack: 000006" in texts(found.problems)
    assert "Fourier stacks without their physical stack: 000005" in texts(found.problems)


def test_stacks_without_physical_ones_lack_nothing(tmp_path):
    assert read_own_output(stacks(tmp_path / "o", [0, 1], [0, 1])).problems == ()


def test_coordinates_are_compared_with_their_list(tmp_path):
    out = touch(tmp_path / "o", "Raw_data/m1_autopick.star", "Raw_data/m3_autopick.star")
    rows = "".join(f"m{n}.mrc Raw_data/m{n}_autopick.star\n" for n in (1, 2))
    (out / "autopick.star").write_text(
        f"\ndata_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n{rows}\n"
    )
    found = read_own_output(out)
    assert found.kind == "coords"
    assert len(found.pick_files) == 2
    assert "Named in autopick.star but not in Raw_data: m2_autopick.star" in texts(found.problems)
    assert "In Raw_data but not named in autopick.star: m3_autopick.star" in texts(found.problems)


def test_an_unfinished_job_of_ours_is_recognised_by_its_job_json(tmp_path):
    found = read_own_output(stacks(tmp_path / "o", command="convert", status="running"))
    assert (found.kind, found.command, found.status) == ("other", "convert", "running")


def test_a_folder_that_is_not_ours_is_refused_with_a_hint(tmp_path):
    with pytest.raises(FormatError, match="not an output of cryobridge") as caught:
        read_own_output(tmp_path)
    assert caught.value.hint


# Which is which


def test_folders_are_distinguished_by_content(tmp_path, v4_job, result, reference_data):
    assert identify_folder(v4_job.path) == "cryosparc job"
    assert identify_folder(reference_data / "cryolike_reference" / "job_directory" / "cryosparc" / "J4") == (
        "cryosparc job"
    )
    assert identify_folder(touch(tmp_path / "r", *iteration(3))) == "relion job"
    assert identify_folder(touch(tmp_path / "AutoPick" / "job003", "autopick.star")) == "relion job"
    for part in ("out", "out/analysis_2", "out/Density"):
        assert identify_folder(reference_data / "recovar_run" / part) == "recovar result"
    assert identify_folder(result) == "recovar result"
    assert identify_folder(stacks(tmp_path / "s", [0], [0])) == "cryobridge output"
    assert identify_folder(stacks(tmp_path / "e", command="coords", status="running")) == "cryobridge output"
    picks = touch(tmp_path / "p", "autopick.star", "Raw_data/a_autopick.star")
    assert identify_folder(picks) == "cryobridge output"
    # The same files with RELION's marker are an AutoPick job.
    assert identify_folder(touch(picks, "RELION_JOB_EXIT_SUCCESS")) == "relion job"


@pytest.mark.parametrize(
    "names", [(), ("a.txt",), ("particles.star",), ("job.json",), ("kmeans/a.txt",), ("model/a.txt",), ("fft/a.pt",)]
)
def test_other_folders_are_of_no_kind(tmp_path, names):
    assert identify_folder(touch(tmp_path, *names)) is None


def test_a_file_is_not_a_folder(tmp_path):
    touch(tmp_path, "a.cs")
    with pytest.raises(FormatError, match="this is a file, not a folder"):
        identify_folder(tmp_path / "a.cs")


@pytest.mark.parametrize("content", ["[]", "3", "{", "\x00", "[" * 100_000, '{"spec": 3}', '{"outputs": {}}'])
def test_a_foreign_job_json_is_passed_over(tmp_path, content):
    touch(tmp_path, "job.json", content=content)
    assert identify_folder(tmp_path) is None


def test_a_folder_of_very_many_files_is_described_in_seconds(tmp_path):
    for folder in ("fft", "phys"):
        (tmp_path / folder).mkdir()
    for number in range(8000):
        (tmp_path / "fft" / f"particles_fourier_stack_{number:06d}.pt").touch()
        (tmp_path / "fft" / f"particles_fourier_stack_{number:06d}.npz").touch()
    start = time.process_time()
    assert identify_folder(tmp_path) == "cryobridge output"
    found = read_own_output(tmp_path)
    assert time.process_time() - start < 2
    assert len(found.series[0].files) == 8000


@pytest.mark.parametrize("read", [read_job, read_relion_job, read_recovar_job, read_own_output, identify_folder])
def test_an_absent_folder_gives_one_clear_error(tmp_path, read):
    with pytest.raises(CryobridgeError, match="absent") as caught:
        read(tmp_path / "absent")
    assert caught.value.hint


def test_a_folder_of_stacks_says_where_its_particles_are(tmp_path):
    with pytest.raises(UsageError) as caught:
        cb.read(stacks(tmp_path / "o", [0, 1], [0, 1]))
    assert "this is a cryobridge output" in str(caught.value) and "command.txt" in caught.value.hint
