"""Particles whose images were renamed by cryoSPARC's jobs are found by the images of earlier jobs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cryobridge.errors import CryobridgeError
from cryobridge.jobs.selection.choose import select_files
from helpers import particle_columns, save_cs, save_star
from relion_grammar import read_block

N = 10
UIDS = np.arange(N, dtype="u8") * np.uint64(31) + np.uint64(2**63 + 7)


def save_job(project, job, parents, columns, layout):
    path = save_cs(project / job / f"{job}_particles.cs", columns)
    result = {"name": "blob", "metafiles": [f"{job}/{path.name}"], "versions": [0], "num_items": [N]}
    connections = [{"job_uid": parent} for parent in parents]
    content = {
        "v4": {
            "output_result_groups": [{"name": "particles", "type": "particle"}],
            "output_results": [result | {"group_name": "particles", "type": "particle.blob"}],
            "input_slot_groups": [{"name": "particles", "type": "particle", "connections": connections}],
        },
        "v5": {
            "spec": {
                "type": "any",
                "inputs": {"particles": {"type": "particle", "connections": connections}},
                "outputs": {"particles": {"type": "particle", "results": [result | {"dtype": "particle.blob"}]}},
            }
        },
    }[layout]
    (path.parent / "job.json").write_text(json.dumps({"uid": job} | content))
    return path


def restacked(project, layout="v4"):
    """Two extractions (J3, J4), together downsampled (J5) and restacked in another order (J6)."""
    for job, rows in (("J3", slice(0, 6)), ("J4", slice(6, N))):
        uids = UIDS[rows]
        extracted = particle_columns([f"{job}/extract/a.mrc"] * len(uids), range(len(uids))) | {"uid": uids}
        save_job(project, job, [], extracted, layout)
    small = particle_columns(["J5/downsample/batch_0.mrc"] * N, range(N)) | {"uid": UIDS}
    save_job(project, "J5", ["J3", "J4"], small, layout)
    stacked = particle_columns(["J6/restack/batch_0_restacked.mrc"] * N, range(N)) | {"uid": UIDS[::-1]}
    return save_job(project, "J6", ["J5"], stacked, layout)


def star_of(folder, names):
    return save_star(folder / "run_data.star", "particles", {"rlnImageName": names, "rlnDefocusU": range(len(names))})


@pytest.mark.parametrize("layout", ["v4", "v5"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["000002@J3/extract/a.mrcs", "000006@J3/extract/a.mrcs", "000001@stacks/J4/extract/a.mrcs"], [1, 5, 6]),
        (["000009@J5/downsample/batch_0.mrcs", "000001@J5/downsample/batch_0.mrcs"], [8, 0]),
    ],
)
def test_restacked_particles_are_found_by_the_images_of_the_jobs_before(tmp_path, layout, names, expected):
    path = restacked(tmp_path, layout)
    star = star_of(tmp_path, names)
    report = select_files(path, tmp_path / "good.cs", like=star)
    assert set(np.load(tmp_path / "good.cs")["uid"]) == set(UIDS[expected])
    assert "images-of-ancestor" in {message.code for message in report.notes}
    assert report.matched.other_rows_left_over == 0
    select_files(tmp_path / "good.cs", tmp_path / "two.cs", random=2)


@pytest.mark.parametrize("layout", ["v4", "v5"])
def test_the_other_way_round_too(tmp_path, layout):
    path = restacked(tmp_path, layout)
    few = select_files(path, path.parent / "few.cs", where="blob/idx in (1, 2)").outputs[0]  # uids 8 and 7
    names = ["000003@J4/extract/a.mrcs", "000001@J4/extract/a.mrcs", "000002@J4/extract/a.mrcs"]
    select_files(star_of(tmp_path, names), tmp_path / "good.star", like=few)
    labels, rows, _ = read_block((tmp_path / "good.star").read_text(), "particles")
    assert [int(row[labels.index("rlnDefocusU")]) for row in rows] == [0, 2]


def test_an_ancestor_that_is_damaged_hides_no_other(tmp_path):
    path = restacked(tmp_path)
    (tmp_path / "J5" / "J5_particles.cs").write_bytes(b"\x93NUMPY")
    select_files(path, tmp_path / "good.cs", like=star_of(tmp_path, ["000001@J3/extract/a.mrcs"]))
    assert np.load(tmp_path / "good.cs")["uid"].tolist() == [UIDS[0]]


def test_images_of_no_job_before_are_no_match(tmp_path):
    path = restacked(tmp_path)
    with pytest.raises(CryobridgeError, match="no particle"):
        select_files(path, tmp_path / "good.cs", like=star_of(tmp_path, ["000001@J77/extract/b.mrcs"]))
