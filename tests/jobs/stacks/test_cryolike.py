from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryobridge.cli.build import flag
from cryobridge.cli.failure import explained
from cryobridge.errors import CryobridgeError, MissingDataError, OutputExistsError, UsageError
from cryobridge.executors.devices import DeviceExecutor
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.descriptor import ImageDescriptor, write_image_descriptor
from cryobridge.formats.image_search import ImageSearch
from cryobridge.jobs.stacks.execute import StackWork
from cryobridge.jobs.stacks.inputs import indexed_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from helpers import noise_images, particle_columns, run, run_stacks, save_cs, save_mrc, sentences

LENS = ("defocusU", "defocusV", "defocusAngle", "phaseShift", "sphericalAberration", "voltage", "amplitudeContrast")
ABSENT = ("angleRotation", "angleTilt", "anglePsi", "ctfBfactor", "ctfScalefactor")


def plan(path, *, folder=(), **options):
    options = StackOptions(**({"plots": False} | options))
    source = indexed_input(read_particles_cs(path), ImageSearch(path, datadir=folder), options.on_missing)
    return plan_stacks(source, options)


def read_like_cryolike(path):
    # CryoLike allows pickles and takes an array of size 0 for an absent value.
    with np.load(path, allow_pickle=True) as archive:
        return {name: archive[name] if archive[name].size else None for name in archive.files}


def read_stack(folder, number):
    tensors = [
        torch.load(folder / kind / f"particles_{name}_stack_{number:06d}.pt", weights_only=True).numpy()
        for kind, name in (("fft", "fourier"), ("phys", "phys"))
    ]
    return *tensors, read_like_cryolike(folder / "fft" / f"particles_fourier_stack_{number:06d}.npz")


def relative_error(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def fingerprints(folder):
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_and_rows_of_a_stack_are_its_own(particles_cs, tmp_path):
    run_stacks(plan(particles_cs, batch_size=2, order="file"), tmp_path / "out")
    lens = [read_stack(tmp_path / "out", number)[2] for number in range(3)]
    # Rows are b3, a0, b1, b0, a2.
    assert [item["source_rows"].tolist() for item in lens] == [[1, 4], [0, 2], [3]]
    assert [item["idxs"].tolist() for item in lens] == [[0, 2], [3, 1], [0]]
    assert [int(item["n_images"]) for item in lens] == [2, 2, 1]
    assert lens[0]["files"].tolist() == ["J1/extract/a.mrc"] * 2


def test_angles_are_those_of_the_alignment_in_radians(particles_cs, tmp_path):
    pose = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    aligned = {"alignments3D/pose": pose, "alignments3D/shift": np.ones((5, 2)), "alignments3D/psize_A": np.ones(5)}
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    run_stacks(plan(save_cs(particles_cs, columns | aligned), physical=False), tmp_path / "out")
    assert not (tmp_path / "out" / "phys").exists()
    with np.load(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.npz") as lens:
        angles = np.column_stack([lens[name] for name in ("angleRotation", "angleTilt", "anglePsi")])
    expected = Rotation.from_rotvec(pose).as_matrix()
    np.testing.assert_allclose(Rotation.from_euler("ZYZ", angles).as_matrix(), expected, atol=1e-6)


def test_the_job_record_accounts_for_every_image(particles_cs, tmp_path):
    report = run_stacks(plan(particles_cs, batch_size=2), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "job.json").read_text())
    assert record["status"] == "completed"
    assert record["report"] == report.to_json()
    assert (report.rows_in, report.rows_out, report.stacks) == (5, 5, 3)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == {
        "README.txt",
        "command.txt",
        "job.json",
        "run.log",
    }


def test_defaults_that_stand_in_for_columns_are_reported(particles_cs, tmp_path):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    del columns["ctf/phase_shift_rad"], columns["ctf/amp_contrast"]
    report = run_stacks(plan(save_cs(particles_cs, columns)), tmp_path / "out")
    notes = sentences(report.notes)
    assert "phase shift" in notes
    assert "amplitude contrast" in notes
    *_, lens = read_stack(tmp_path / "out", 0)
    assert lens["amplitudeContrast"] == pytest.approx(0.1)
    assert lens["phaseShift"].tolist() == [0.0] * 5


def test_a_dry_run_checks_the_same_and_writes_nothing(particles_cs, tmp_path):
    before = fingerprints(tmp_path)
    words = ("stacks", "cs", particles_cs, "-b", 2, "-o", tmp_path / "out", "--dry-run", "--json", "--no-plots")
    dry = run(*words)
    assert dry.returncode == 0, dry.stderr
    assert fingerprints(tmp_path) == before
    assert not (tmp_path / "out").exists()
    made = run_stacks(plan(particles_cs, batch_size=2), tmp_path / "out")
    assert json.loads(dry.stdout) == {**made.to_json(flag), "dry_run": True}
    refused = run(*words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--overwrite" in refused.stderr


def test_existing_stacks_are_refused_before_anything_is_touched(particles_cs, tmp_path):
    run_stacks(plan(particles_cs), tmp_path)
    before = fingerprints(tmp_path)
    # Other numbers of stacks, and what is left of half a set, are in the way too.
    for options in ({}, {"batch_size": 1}):
        with pytest.raises(OutputExistsError, match="already") as caught:
            run_stacks(plan(particles_cs, **options), tmp_path)
        assert "overwrite=True" in caught.value.hint
    assert fingerprints(tmp_path) == before
    stack = tmp_path / "fft" / "particles_fourier_stack_000000.pt"
    stack.rename(stack.with_name("particles_fourier_stack_000007.pt"))
    with pytest.raises(OutputExistsError):
        run_stacks(plan(particles_cs), tmp_path)


def test_overwriting_leaves_no_stack_of_the_older_run(particles_cs, tmp_path):
    run_stacks(plan(particles_cs, batch_size=1), tmp_path)
    mine = tmp_path / "fft" / "notes.txt"
    mine.write_text("keep")
    run_stacks(plan(particles_cs, batch_size=3), tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("fft/*")) == [
        "notes.txt",
        "particles_fourier_stack_000000.npz",
        "particles_fourier_stack_000000.pt",
        "particles_fourier_stack_000001.npz",
        "particles_fourier_stack_000001.pt",
    ]
    assert len(list(tmp_path.glob("phys/*"))) == 2


def test_missing_image_files_are_listed_with_what_would_find_them(particles_cs, tmp_path):
    (tmp_path / "moved").mkdir()
    (tmp_path / "J1" / "extract").rename(tmp_path / "moved" / "extract")
    with pytest.raises(MissingDataError, match=r"2 of 2 image files are missing: J1/extract/b\.mrc, J1/extract/a\.mrc"):
        plan(particles_cs)
    assert plan(particles_cs, folder=tmp_path / "moved" / "extract").source.headers[0].path.name == "b.mrc"


def test_an_index_beyond_the_end_of_its_file_is_named_by_row(particles_cs, tmp_path):
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", noise_images(3, 16), 1.5)
    with pytest.raises(MissingDataError, match=r"b\.mrc: row 0: image 4 is asked for, the file has 3"):
        plan(particles_cs)


def test_a_truncated_stack_counts_its_whole_images(particles_cs, tmp_path):
    stack = tmp_path / "J1" / "extract" / "b.mrc"
    stack.write_bytes(stack.read_bytes()[:-1])
    with pytest.raises(MissingDataError, match=r"image 4 is asked for, the file has 3 whole ones"):
        plan(particles_cs)


@pytest.mark.parametrize(
    ("box_px", "pixel_size_A", "message"),
    [(32, 1.5, "32 × 32 px, the images have 16"), (16, 1.6, "1.6 Å, those of the images have 1.5 Å")],
)
def test_a_grid_for_other_images_is_refused(box_px, pixel_size_A, message, particles_cs):
    with pytest.raises(CryobridgeError, match=message) as caught:
        plan(particles_cs, descriptor=ImageDescriptor.for_box(box_px, pixel_size_A))
    assert "params=" in caught.value.hint


def test_boxes_of_two_sizes_are_refused(particles_cs, tmp_path):
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", noise_images(4, 18), 1.5)
    with pytest.raises(CryobridgeError, match=r"most are 18 × 18, but a\.mrc 16 × 16"):
        plan(particles_cs)


def test_pixel_sizes_that_contradict_each_other_are_refused(particles_cs):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    columns |= {"blob/psize_A": np.array([1.5, 1.5, 1.5, 1.5, 1.7], "f4"), "ctf/exp_group_id": [1, 1, 1, 1, 2]}
    with pytest.raises(CryobridgeError, match=r"1\.5 Å, 1\.7 Å"):
        plan(save_cs(particles_cs, columns))


def test_a_pixel_size_that_is_not_in_the_metadata_is_the_images_or_the_grids(particles_cs, tmp_path):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names if "psize" not in name}
    save_cs(particles_cs, columns)
    found = plan(particles_cs)
    assert found.descriptor.pixel_size_A == pytest.approx((1.5, 1.5))
    assert "the pixel size is that of the image files: 1.5 Å" in sentences(found.messages)
    for name, n in (("a", 3), ("b", 4)):
        save_mrc(tmp_path / "J1" / "extract" / f"{name}.mrc", noise_images(n, 16))
    with pytest.raises(MissingDataError, match="pixel size") as caught:
        plan(particles_cs)
    assert "pixel_size_A=" in caught.value.hint
    assert plan(particles_cs, pixel_size_A=1.7).descriptor.pixel_size_A == (1.7, 1.7)
    assert plan(particles_cs, descriptor=ImageDescriptor.for_box(16, 2.0)).descriptor.pixel_size_A == (2.0, 2.0)


def test_a_stack_never_mixes_voltages(particles_cs):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    two = columns | {"ctf/accel_kv": np.array([300, 300, 200, 200, 200], "f4"), "ctf/exp_group_id": [7, 7, 9, 9, 9]}
    save_cs(particles_cs, two)
    with pytest.raises(CryobridgeError, match="stack 0 would mix values of the voltage") as caught:
        plan(particles_cs)
    assert "group 7: 300" in str(caught.value)
    assert "group 9: 200" in str(caught.value)
    assert len(plan(particles_cs, batch_size=1).tasks) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, 4.0])
def test_an_image_without_a_transform_is_named_and_stacks_before_it_are_whole(value, particles_cs, tmp_path):
    images = noise_images(4, 16, seed=2)
    images[1] = value if value == 4.0 else np.where(np.arange(16) == 3, value, images[1])
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", images, 1.5)
    # Row 2 is image 2 of b.mrc.
    with pytest.raises(CryobridgeError, match=r"b\.mrc: row 2: image 2 is constant or holds NaN") as caught:
        run_stacks(plan(particles_cs, batch_size=2), tmp_path / "out")
    assert caught.value.hint
    assert json.loads((tmp_path / "out" / "job.json").read_text())["status"] == "failed"
    assert [path.name for path in tmp_path.glob("out/fft/*.pt")] == ["particles_fourier_stack_000000.pt"]
    fourier, physical, _ = read_stack(tmp_path / "out", 0)
    assert np.isfinite(fourier).all()
    assert np.isfinite(physical).all()


def test_files_of_one_name_are_refused_with_folder_mrc(tmp_path):
    for folder in ("x", "y"):
        save_mrc(tmp_path / folder / "a.mrc", noise_images(1, 16), 1.5)
    path = save_cs(tmp_path / "p.cs", particle_columns(["x/a.mrc", "y/a.mrc"], [0, 0]))
    with pytest.raises(CryobridgeError, match=r"2 of 2 image files are missing: x/a\.mrc, y/a\.mrc") as caught:
        plan(path, folder=tmp_path / "x")
    assert f"Give datadir='{tmp_path}'" in caught.value.hint
    assert len(plan(path).source.headers) == 2


def test_files_without_images_or_ctf_say_so(demo_project, tmp_path):
    with pytest.raises(MissingDataError, match="no image references, no CTF values") as caught:
        plan(demo_project.passthrough_cs)
    assert "a .cs file with blob/*, ctf/*" in caught.value.hint
    empty = {name: np.asarray(values)[:0] for name, values in particle_columns(["a"], [0]).items()}
    with pytest.raises(MissingDataError, match="no particles"):
        plan(save_cs(tmp_path / "none.cs", empty))


def test_a_real_stack_whose_header_says_volume_is_taken_as_a_stack(reference_data, tmp_path):
    real = reference_data / "real"
    words = ("--folder-mrc", real, "--resolution-factor", 0.25, "--n-inplanes", 64, "--no-phys")
    done = run("stacks", "cs", real / "empiar_10076_7.cs", "-o", tmp_path / "out", *words)
    assert done.returncode == 0, done.stderr
    fourier = torch.load(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.pt", weights_only=True)
    assert fourier.shape == (7, 81, 64)
    lens = read_like_cryolike(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.npz")
    np.testing.assert_allclose(lens["pixel_size"], 1.31, rtol=1e-5)
    np.testing.assert_allclose(lens["defocusU"], np.load(real / "empiar_10076_7.cs")["ctf/df1_A"], rtol=1e-6)
    assert lens["idxs"].tolist() == np.load(real / "empiar_10076_7.cs")["blob/idx"].tolist()


def test_a_device_that_is_not_there_is_a_usage_error(particles_cs, tmp_path):
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "--device", "cuda:63", "--dry-run")
    assert done.returncode == 2
    assert "cuda:63" in done.stderr
    with pytest.raises(UsageError):
        run_stacks(plan(particles_cs), tmp_path / "out", device="cuda:63")
    assert not (tmp_path / "out").exists()


def test_what_a_plan_refuses_ends_the_command_with_1_and_no_output(particles_cs, tmp_path):
    params = tmp_path / "params.npz"
    write_image_descriptor(params, ImageDescriptor.for_box(32, 1.5))
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "-p", params)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the grid is for 32 × 32 px")
    assert not (tmp_path / "out").exists()


def test_a_grid_beyond_the_memory_is_reported_as_that(particles_cs, tmp_path):
    planned = plan(particles_cs, resolution_factor=1e12)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        DeviceExecutor("cpu").prepare(StackWork(planned, tmp_path / "out"))
    assert explained(caught.value).message.startswith("not enough memory")
    # The disk is looked at first, which needs no torch.
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "--resolution-factor", 1e12)
    assert done.returncode == 1
    assert "\n" + f"Error: {tmp_path / 'out'}: the output needs " in done.stderr
    assert not (tmp_path / "out").exists()
