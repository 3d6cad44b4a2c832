from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cryobridge.errors import CombinedError, CryobridgeError, FormatError, MissingDataError, UsageError
from cryobridge.formats.cryosparc.particles import read_particles_cs
from cryobridge.formats.descriptor import ImageDescriptor, read_image_descriptor, write_image_descriptor
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc_header import read_header
from cryobridge.formats.relion.particles import read_particles_star
from cryobridge.jobs.stacks.inputs import indexed_input, job_input, paired_input, star_input
from cryobridge.jobs.stacks.options import StackOptions
from cryobridge.jobs.stacks.polar.plan import plan_stacks
from helpers import codes, noise_images, particle_columns, run, run_stacks, save_cs, save_mrc, save_star


@dataclass(frozen=True)
class Case:
    name: str
    way: str
    words: tuple


REFERENCES = [
    Case(
        "paired_star", "paired", ("--pair", "A.star", "A.mrc", "--pair", "B.star", "B.mrc", "--pair", "C.star", "C.mrc")
    ),
    Case("indexed_star", "star", ("particles.star", "--order", "file")),
    Case("indexed_cs", "cs", ("MyFile.cs", "--order", "file", "-b", 3)),
    Case("job_directory", "job", ("cryosparc", 4)),
    Case("downsample_mean", "cs", ("a.cs", "--order", "file", "--downsample-factor", 2)),
    Case("downsample_max", "cs", ("a.cs", "--order", "file", "--downsample-factor", 2, "--downsample-type", "max")),
]


def relative_error(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def same_lens_value(ours, reference):
    # CryoLike writes one number where a default stands for all images; sizes may differ, values may not.
    if reference.size == 0 or ours.size == 0:
        return reference.size == ours.size
    if reference.dtype.kind in "fiu":
        shape = np.broadcast_shapes(ours.shape, reference.shape)
        return np.allclose(np.broadcast_to(ours, shape), np.broadcast_to(reference, shape), rtol=1e-6, atol=0)
    return ours.tolist() == reference.tolist()


@pytest.mark.parametrize("case", REFERENCES, ids=lambda case: case.name)
def test_stacks_are_cryolikes(case, reference_data, tmp_path):
    folder = reference_data / "cryolike_reference" / case.name
    batch = () if "-b" in case.words else ("-b", 5)
    words = (*case.words, "-p", "params.npz", "-o", tmp_path, "--no-plots", *batch)
    done = run("stacks", case.way, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = sorted((folder / "expected").glob("particles_fourier_stack_*.npy"))
    names = [path.stem for path in expected]
    assert sorted(path.stem for path in (tmp_path / "fft").glob("*.pt")) == names
    for path in expected:
        reference = np.load(path)
        fourier = torch.load(tmp_path / "fft" / f"{path.stem}.pt", weights_only=True).numpy()
        assert fourier.dtype == reference.dtype
        assert relative_error(fourier, reference) <= 1e-5
        physical_name = path.stem.replace("fourier", "phys")
        physical = torch.load(tmp_path / "phys" / f"{physical_name}.pt", weights_only=True).numpy()
        assert relative_error(physical, np.load(path.with_name(f"{physical_name}.npy"))) <= 1e-5
        # CryoLike's loader allows pickles; ours must not need them.
        ours, theirs = np.load(tmp_path / "fft" / f"{path.stem}.npz"), np.load(path.with_suffix(".npz"))
        # CryoLike writes the files of the whole data set into every stack.
        for name in set(theirs.files) - {"files", "idxs"}:
            assert same_lens_value(ours[name], theirs[name]), name


def test_a_cs_in_row_order_has_the_same_transforms_row_by_row(reference_data, tmp_path):
    # The default grid of these images is the reference's; the defocus tells which image is which.
    folder = reference_data / "cryolike_reference" / "indexed_cs"
    stacks = sorted((folder / "expected").glob("particles_fourier_stack_*.npy"))
    reference = np.concatenate([np.load(path) for path in stacks])
    defocus = np.concatenate([np.load(path.with_suffix(".npz"))["defocusU"] for path in stacks])
    table = np.load(folder / "MyFile.cs")
    source = indexed_input(read_particles_cs(folder / "MyFile.cs"), ImageSearch(folder / "MyFile.cs"))
    run_stacks(plan_stacks(source, StackOptions(batch_size=4, plots=False)), tmp_path)
    for number, rows in enumerate(([0, 1, 2, 3], [4])):
        ours = torch.load(tmp_path / "fft" / f"particles_fourier_stack_{number:06d}.pt").numpy()
        with np.load(tmp_path / "fft" / f"particles_fourier_stack_{number:06d}.npz") as lens:
            assert lens["source_rows"].tolist() == rows
            assert lens["uid"].tolist() == table["uid"][rows].tolist()
            assert lens["files"].tolist() == [path.decode() for path in table["blob/path"][rows]]
            assert lens["idxs"].tolist() == table["blob/idx"][rows].tolist()
        same = [int(np.flatnonzero(defocus == table["ctf/df1_A"][row])[0]) for row in rows]
        assert relative_error(ours, reference[same]) <= 1e-5


def star_columns(n, **changes):
    return {
        "rlnDefocusU": np.linspace(10000, 11000, n),
        "rlnDefocusV": np.linspace(9900, 10900, n),
        "rlnDefocusAngle": np.linspace(-80, 80, n),
        "rlnSphericalAberration": [2.7] * n,
        "rlnVoltage": [300.0] * n,
        "rlnAmplitudeContrast": [0.1] * n,
        **changes,
    }


def save_pairs(folder, counts, **changes):
    pairs = []
    for number, count in enumerate(counts):
        stack = save_mrc(folder / f"{number}.mrcs", noise_images(count, 16, seed=number), 1.5)
        pairs.append((save_star(folder / f"{number}.star", "", star_columns(count, **changes)), stack))
    return pairs


def sizes(plan):
    return [len(task.rows) for task in plan.tasks]


@pytest.mark.parametrize(("batch_size", "expected"), [(10, [7, 2, 6]), (5, [5, 2, 2, 5, 1])])
def test_paired_files_are_never_mixed(batch_size, expected, tmp_path):
    plan = plan_stacks(paired_input(save_pairs(tmp_path, (7, 2, 6))), StackOptions(batch_size=batch_size, plots=False))
    assert sizes(plan) == expected
    run_stacks(plan, tmp_path / "out")
    start = 0
    for task, count in zip(plan.tasks, expected, strict=True):
        with np.load(tmp_path / "out" / "fft" / f"particles_fourier_stack_{task.number:06d}.npz") as lens:
            start = 0 if lens["idxs"][0] == 0 else start
            assert (int(lens["stack_start"]), int(lens["stack_end"])) == (start, start + count)
            assert lens["idxs"].tolist() == lens["source_rows"].tolist() == list(range(start, start + count))
            assert len(set(lens["files"].tolist())) == 1
        start += count


def test_indexed_files_are_restacked_to_the_batch(tmp_path):
    names = [name for name, count in (("a", 7), ("b", 2), ("c", 6)) for _ in range(count)]
    for name, count in (("a", 7), ("b", 2), ("c", 6)):
        save_mrc(tmp_path / f"{name}.mrc", noise_images(count, 16), 1.5)
    index = [*range(7), *range(2), *range(6)]
    path = save_cs(tmp_path / "p.cs", particle_columns([f"{name}.mrc" for name in names], index))
    source = indexed_input(read_particles_cs(path), ImageSearch(path))
    assert sizes(plan_stacks(source, StackOptions(batch_size=10))) == [10, 5]
    assert sizes(plan_stacks(source, StackOptions(batch_size=5, separate_files=True))) == [5, 2, 2, 5, 1]


@pytest.mark.parametrize("unit", ["degree", "radian"])
def test_angles_of_paired_files_are_in_the_unit_that_is_reported(unit, tmp_path):
    (star, stack), *_ = save_pairs(tmp_path, (3,), rlnPhaseShift=[0.5, 1.0, 1.5])
    words = ("--pair", star, stack, "--defocus-angle-unit", unit, "--phase-shift-unit", unit)
    done = run("stacks", "paired", *words, "-o", tmp_path / "out", "--no-plots", "--no-phys")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.npz") as lens:
        factor = np.pi / 180 if unit == "degree" else 1.0
        np.testing.assert_allclose(lens["defocusAngle"], np.array([-80, 0, 80]) * factor, rtol=1e-12)
        np.testing.assert_allclose(lens["phaseShift"], np.array([0.5, 1.0, 1.5]) * factor, rtol=1e-12)


def test_column_names_may_lack_their_prefix(tmp_path):
    columns = {name.removeprefix("rln"): values for name, values in star_columns(3).items()}
    star = save_star(tmp_path / "a.star", "", columns)
    stack = save_mrc(tmp_path / "a.mrcs", noise_images(3, 16), 1.5)
    plan = plan_stacks(paired_input([(star, stack)]), StackOptions())
    assert plan.source.ctf.defocus_u_A.tolist() == [10000, 10500, 11000]


def test_rows_and_images_of_a_pair_must_match_in_number_and_all_pairs_are_named(tmp_path):
    pairs = save_pairs(tmp_path, (3, 2, 4))
    save_mrc(pairs[0][1], noise_images(2, 16), 1.5)
    save_mrc(pairs[2][1], noise_images(5, 16), 1.5)
    with pytest.raises(CombinedError) as caught:
        plan_stacks(paired_input(pairs), StackOptions())
    assert "0.star: 3 rows, but 2 images in 0.mrcs" in str(caught.value)
    assert "2.star: 4 rows, but 5 images in 2.mrcs" in str(caught.value)


def save_job(folder, batches, n_rows, kind="restack"):
    # batches: number -> images in it
    names = {"restack": "restacked", "downsample": "downsample"}
    for number, count in batches.items():
        path = folder / "J4" / kind / f"batch_{number:06d}_{names[kind]}.mrc"
        save_mrc(path, noise_images(count, 16 if kind == "restack" else 8, seed=number), 1.5)
    columns = {
        name: values for name, values in particle_columns(["x"] * n_rows, range(n_rows)).items() if "blob" not in name
    }
    return save_cs(folder / "J4" / "J4_passthrough_particles.cs", columns)


def test_a_job_is_taken_batch_by_batch_until_the_first_gap(tmp_path):
    save_job(tmp_path, {0: 4, 1: 4, 3: 4}, 8)
    plan = plan_stacks(job_input(tmp_path, 4), StackOptions(batch_size=6))
    assert sizes(plan) == [6, 2]
    assert any("batch 000002 is missing in restack/" in str(message) for message in plan.messages)
    assert plan.source.images.index[plan.tasks[1].rows].tolist() == [2, 3]


def test_restacked_images_are_preferred_to_downsampled_ones(tmp_path):
    save_job(tmp_path, {0: 5}, 5)
    save_job(tmp_path, {0: 5}, 5, kind="downsample")
    assert plan_stacks(job_input(tmp_path, 4), StackOptions()).descriptor.n_pixels == (16, 16)
    shutil.rmtree(tmp_path / "J4" / "restack")
    assert plan_stacks(job_input(tmp_path, 4), StackOptions()).descriptor.n_pixels == (8, 8)


def test_rows_that_have_no_image_in_a_job_are_left_out_and_counted(tmp_path):
    save_job(tmp_path, {0: 4, 2: 4}, 8)
    done = run("stacks", "job", tmp_path, 4, "-o", tmp_path / "out", "--no-plots", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows_in"], report["rows_out"]) == (8, 4)
    assert report["left_out"] == {"no image in the batches": 4}
    assert codes(report["warnings"]) == ["rows-without-image"]
    # More images than rows can't be told apart.
    save_job(tmp_path, {0: 4, 1: 5}, 8)
    with pytest.raises(MissingDataError, match="8 rows, but 13 images"):
        plan_stacks(job_input(tmp_path, 4), StackOptions())
    # The images after a batch that is cut off would be those of other rows.
    save_job(tmp_path, {0: 4, 1: 2}, 8)
    with (tmp_path / "J4" / "restack" / "batch_000000_restacked.mrc").open("r+b") as file:
        file.truncate(1024 + 3 * 16 * 16 * 4)
    with pytest.raises(FormatError, match=r"batch_000000.*cut off after 3 of 4 images"):
        plan_stacks(job_input(tmp_path, 4), StackOptions())


def test_a_job_without_batches_says_what_was_looked_for(tmp_path):
    save_job(tmp_path, {1: 4}, 4)
    with pytest.raises(MissingDataError, match=r"no batch_000000_restacked\.mrc"):
        job_input(tmp_path, 4)


def test_all_files_of_pairs_that_are_not_there_are_named(tmp_path):
    (star, stack), *_ = save_pairs(tmp_path, (3,))
    absent = tmp_path / "gone.star", tmp_path / "gone.mrc"
    with pytest.raises(MissingDataError, match=r"no such file: .*gone\.mrc, .*gone\.star") as caught:
        paired_input([(star, absent[1]), (absent[0], stack)])
    assert caught.value.hint.startswith("Check the names")


@pytest.fixture
def particles_star(tmp_path):
    # Two files, in mixed order; RELION counts from 1.
    save_mrc(tmp_path / "a.mrcs", noise_images(3, 16, seed=1), 1.5)
    save_mrc(tmp_path / "b.mrcs", noise_images(4, 16, seed=2), 1.5)
    images = ["000004@b.mrcs", "000001@a.mrcs", "000002@b.mrcs", "000001@b.mrcs", "000003@a.mrcs"]
    return save_star(tmp_path / "p.star", "particles", {"rlnImageName": images, **star_columns(5)})


def star_plan(path, **options):
    options = StackOptions(**({"plots": False} | options))
    return plan_stacks(star_input(read_particles_star(path), ImageSearch(path), options.on_missing), options)


def test_a_star_counts_from_one(particles_star, tmp_path):
    run_stacks(star_plan(particles_star), tmp_path / "out")
    physical = torch.load(tmp_path / "out" / "phys" / "particles_phys_stack_000000.pt").numpy()
    image = noise_images(4, 16, seed=2)[3].astype("f4").astype("f8")
    centred = image - image.mean()
    np.testing.assert_allclose(physical[0], centred / abs(centred).max(), atol=1e-6)


def test_particles_without_an_image_are_skipped_when_asked(particles_star, tmp_path):
    save_mrc(tmp_path / "b.mrcs", noise_images(2, 16, seed=2), 1.5)
    (tmp_path / "a.mrcs").unlink()
    with pytest.raises(CombinedError, match=r"a\.mrcs.*image 4 is asked for"):
        star_plan(particles_star)
    report = run_stacks(star_plan(particles_star, on_missing="skip"), tmp_path / "out")
    assert report.left_out == {"image file missing": 2, "beyond the end of its file": 1}
    assert (report.rows_in, report.rows_out) == (5, 2)
    with np.load(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.npz") as lens:
        assert lens["source_rows"].tolist() == [2, 3]
        assert lens["defocusU"].tolist() == [10500, 10750]


def test_images_that_cannot_be_used_are_skipped_when_asked(particles_star, tmp_path):
    images = noise_images(4, 16, seed=2)
    images[1] = 3.0
    images[3, 2, 2] = np.nan
    save_mrc(tmp_path / "b.mrcs", images, 1.5)
    words = ("--on-missing", "skip", "-b", 2, "--json", "-o", tmp_path / "out")
    done = run("stacks", "star", particles_star, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["left_out"] == {"constant, or holds NaN or infinity": 2}
    assert report["left_out_rows"] == [0, 2]
    assert any("rows 0, 2" in note["text"] for note in report["notes"])
    rows = []
    for number in range(3):
        stem = f"particles_fourier_stack_{number:06d}"
        fourier = torch.load(tmp_path / "out" / "fft" / f"{stem}.pt")
        with np.load(tmp_path / "out" / "fft" / f"{stem}.npz") as lens:
            assert len(fourier) == len(lens["source_rows"]) == int(lens["n_images"])
            rows += lens["source_rows"].tolist()
        assert torch.isfinite(torch.view_as_real(fourier)).all()
    assert rows == [1, 3, 4]


def test_at_most_so_many_stacks_are_made(particles_star, tmp_path):
    report = run_stacks(star_plan(particles_star, batch_size=2, n_stacks_max=2), tmp_path / "out")
    assert (report.stacks, report.rows_out) == (2, 4)
    assert report.left_out == {"beyond the number of stacks asked for": 1}
    assert len(list((tmp_path / "out" / "fft").glob("*.pt"))) == 2


def test_split_optics_gives_each_voltage_its_own_stacks(particles_star, tmp_path):
    text = particles_star.read_text().splitlines()
    rows = [line for line in text if "@" in line]
    changed = [row.replace(" 300.0 ", " 200.0 ") if place in {1, 4} else row for place, row in enumerate(rows)]
    particles_star.write_text("\n".join([*(line for line in text if "@" not in line and line), *changed, ""]))
    with pytest.raises(CryobridgeError, match="voltage") as caught:
        star_plan(particles_star)
    assert "split_optics=" in caught.value.hint
    plan = star_plan(particles_star, split_optics=True, batch_size=2)
    assert [task.rows.tolist() for task in plan.tasks] == [[0, 2], [3], [1, 4]]
    assert any("put together" in str(message) for message in plan.messages)
    run_stacks(plan, tmp_path / "out")
    voltages = [
        float(np.load(tmp_path / "out" / "fft" / f"particles_fourier_stack_{number:06d}.npz")["voltage"])
        for number in range(3)
    ]
    assert voltages == [300, 300, 200]


def test_a_pixel_size_given_by_hand_must_agree_with_the_metadata(particles_cs):
    source = indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs))
    with pytest.raises(CryobridgeError, match=r"pixel_size_A=1\.6 contradicts the 1\.5 Å"):
        plan_stacks(source, StackOptions(pixel_size_A=1.6))
    source = indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs))
    assert plan_stacks(source, StackOptions(pixel_size_A=1.50001)).descriptor.pixel_size_A[0] == pytest.approx(1.5)


def test_all_that_is_wrong_is_reported_at_once_and_nothing_is_written(particles_cs, tmp_path):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    names = ["J1/extract/b.mrc", "J1/extract/a.mrc", "J1/extract/gone.mrc", "J1/extract/b.mrc", "J1/extract/a.mrc"]
    columns |= {
        "blob/path": np.char.encode(names, "utf-8"),
        "blob/psize_A": np.array([1.5, 1.5, 1.5, 1.5, 1.7], "f4"),
        "ctf/accel_kv": np.array([300, 300, 300, 300, 200], "f4"),
        "ctf/exp_group_id": np.array([1, 1, 1, 1, 2], "u4"),
    }
    save_cs(particles_cs, columns)
    save_mrc(tmp_path / "J1" / "extract" / "b.mrc", noise_images(2, 18), 1.5)
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", "--downsample-factor", 4)
    assert done.returncode == 1
    for sentence in ("gone.mrc", "image 4 is asked for", "18 × 18", "1.7 Å", "mix values of the voltage"):
        assert sentence in done.stderr
    assert done.stderr.count("→") >= 5
    assert not (tmp_path / "out").exists()


def test_each_file_that_is_too_short_is_named_with_its_own_rows(particles_cs, tmp_path):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    names = [f"J1/extract/{name}.mrc" for name in ("a", "b", "b", "a", "a")]
    columns |= {"blob/path": np.char.encode(names, "utf-8"), "blob/idx": np.array([3, 0, 10, 1, 3], "u4")}
    save_cs(particles_cs, columns)
    n_images = [read_header(tmp_path / "J1" / "extract" / f"{name}.mrc").n_whole for name in "ab"]
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out")
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"a.mrc: row 0, 4: image 4 is asked for, the file has {n_images[0]} whole ones" in said
    assert f"b.mrc: row 2: image 11 is asked for, the file has {n_images[1]} whole ones" in said


def test_unreadable_image_files_are_listed_together(particles_cs, tmp_path):
    (tmp_path / "J1" / "extract" / "a.mrc").write_bytes(b"short")
    (tmp_path / "J1" / "extract" / "b.mrc").write_bytes(bytes(2048))
    source = indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs))
    with pytest.raises(FormatError, match=r"b\.mrc.*a\.mrc"):
        plan_stacks(source, StackOptions())


@pytest.mark.parametrize("factor", [3, 6])
def test_a_box_that_is_no_whole_number_of_blocks_is_refused(factor, particles_cs):
    with pytest.raises(UsageError):
        plan_stacks(
            indexed_input(read_particles_cs(particles_cs), ImageSearch(particles_cs)),
            StackOptions(downsample_factor=factor),
        )


def test_images_that_are_not_square_need_a_grid_and_get_their_transform(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 12, 16)).astype("f4")
    save_mrc(tmp_path / "a.mrc", images, 1.5)
    path = save_cs(tmp_path / "p.cs", particle_columns(["a.mrc"] * 2, [0, 1]))
    source = indexed_input(read_particles_cs(path), ImageSearch(path))
    with pytest.raises(MissingDataError, match="12 × 16 px, which are not square"):
        plan_stacks(source, StackOptions())
    square = ImageDescriptor.for_box(12, 1.5, n_inplanes=8)
    descriptor = ImageDescriptor(
        n_pixels=(12, 16),
        pixel_size_A=square.pixel_size_A,
        radius_max=square.radius_max,
        dist_radii=square.dist_radii,
        n_inplanes=8,
        precision="double",
        viewing_distance=square.viewing_distance,
    )
    plan = plan_stacks(source, StackOptions(descriptor=descriptor, plots=False))
    run_stacks(plan, tmp_path / "out")
    found = torch.load(tmp_path / "out" / "fft" / "particles_fourier_stack_000000.pt").numpy()[0]
    # The sum of the reference document, point by point.
    centred = images[0].astype("f8") - images[0].astype("f8").mean()
    centred /= abs(centred).max()
    radii, angles = plan.grid.radii[:, None], plan.grid.angles_rad
    k0, k1 = 4 * np.pi * radii * np.cos(angles) / 12, 4 * np.pi * radii * np.sin(angles) / 16
    a, b = np.arange(12) - 6, np.arange(16) - 8
    exact = np.einsum("rta,ab,rtb->rt", np.exp(-1j * k0[..., None] * a), centred, np.exp(-1j * k1[..., None] * b))
    exact /= np.sqrt((abs(exact) ** 2 * plan.grid.point_weights * (2 * np.pi) ** 2).sum())
    assert relative_error(found, exact) <= 1e-6


def test_the_grid_command_writes_what_cryolike_reads(reference_data, tmp_path):
    reference = reference_data / "cryolike_reference" / "indexed_cs" / "params_plain.npz"
    done = run("stacks", "grid", "--n-pixels", 32, "--pixel-size", 1.5, "-o", tmp_path / "p.npz")
    assert done.returncode == 0, done.stderr
    with np.load(reference) as expected, np.load(tmp_path / "p.npz") as found:
        assert set(found.files) == set(expected.files)
        for name in expected.files:
            assert found[name].tolist() == expected[name].tolist(), name
    again = run("stacks", "grid", "--n-pixels", 32, "--pixel-size", 1.5, "-o", tmp_path / "p.npz")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    words = ("--resolution-factor", 0.5, "--n-inplanes", 31, "--precision", "double", "--overwrite", "--json")
    done = run("stacks", "grid", "--n-pixels", 32, "--pixel-size", 1.5, "-o", tmp_path / "p.npz", *words)
    report = json.loads(done.stdout)
    assert (report["shells"], report["angles"], report["resolution_A"]) == (17, 31, 6.0)
    assert read_image_descriptor(tmp_path / "p.npz").precision == "double"


def test_a_parameter_file_and_an_adjusted_grid_contradict_each_other(particles_cs, tmp_path):
    write_image_descriptor(tmp_path / "p.npz", ImageDescriptor.for_box(16, 1.5))
    words = ("-p", tmp_path / "p.npz", "--n-inplanes", 8)
    done = run("stacks", "cs", particles_cs, "-o", tmp_path / "out", *words)
    assert done.returncode == 2
    assert "contradict" in done.stderr


def test_what_a_cs_lacks_comes_from_the_passthrough_beside_it(particles_cs, tmp_path):
    columns = {name: np.load(particles_cs)[name] for name in np.load(particles_cs).dtype.names}
    whole = run("stacks", "cs", particles_cs, "-o", tmp_path / "whole", "--no-plots", "--no-phys")
    assert whole.returncode == 0, whole.stderr
    shuffled = [4, 2, 0, 1, 3]
    ctf = {name: values[shuffled] for name, values in columns.items() if name == "uid" or name.startswith("ctf/")}
    save_cs(particles_cs, {name: values for name, values in columns.items() if not name.startswith("ctf/")})
    passthrough = save_cs(particles_cs.with_name("J1_passthrough_particles.cs"), ctf)
    split = run("stacks", "cs", particles_cs, "-o", tmp_path / "split", "--no-plots", "--no-phys")
    assert split.returncode == 0, split.stderr
    assert "joined on uid with J1_passthrough_particles.cs" in split.stderr
    lens = [
        np.load(tmp_path / name / "fft" / "particles_fourier_stack_000000.npz")["defocusU"]
        for name in ("whole", "split")
    ]
    assert lens[0].tolist() == lens[1].tolist()
    save_cs(passthrough, {name: values[:3] for name, values in ctf.items()})
    short = run("stacks", "cs", particles_cs, "-o", tmp_path / "short")
    assert short.returncode == 1
    assert "2 of 5 uids are not in J1_passthrough_particles.cs" in short.stderr
