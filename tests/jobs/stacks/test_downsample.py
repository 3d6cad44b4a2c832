from __future__ import annotations

import csv
import json
import pickle
import signal
import subprocess
import sys
import threading
import time

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError
from cryobridge.formats.image_search import ImageSearch
from cryobridge.formats.mrc_write import MrcStackWriter, partial_path
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.output_folder import locked
from cryobridge.jobs.stacks import shares
from cryobridge.jobs.stacks.cropping.inputs import read_downsample_input
from cryobridge.jobs.stacks.cropping.plan import plan_downsample
from cryobridge.jobs.stacks.options import DownsampleOptions
from cryobridge.jobs.stacks.plan import whole_stack
from cryobridge.jobs.stacks.plan_file import stored_plan
from cryobridge.jobs.stacks.remote import RemoteStacks
from helpers import (
    noise_images,
    particle_columns,
    run,
    run_in_terminal,
    run_stacks,
    save_cs,
    save_mrc,
    save_star,
    start,
    without_escapes,
)
from relion_grammar import read_block

_OF_RUN = ("job.json", "run.log", "command.txt", "README.txt")
_OPTICS = {
    "rlnOpticsGroup": [1, 2],
    "rlnOpticsGroupName": ["'first group'", "second"],
    "rlnVoltage": [300, 200],
    "rlnSphericalAberration": [2.7, 2.7],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [1.5, 1.5],
    "rlnImageSize": [16, 16],
    "rlnMtfFileName": ["mtf.star", "mtf.star"],
}


def cropped(images, new):
    """The same in float64, by way of the whole transform."""
    old = images.shape[-1]
    middle = np.fft.fftshift(np.fft.fft2(images.astype(np.float64)), axes=(1, 2))
    inside = slice(old // 2 - new // 2, old // 2 + new // 2)
    return np.fft.ifft2(np.fft.ifftshift(middle[:, inside, inside], axes=(1, 2))).real * (new / old) ** 2


def planned(path, box=8, *, search=None, **options):
    options = DownsampleOptions(box_px=box, **options)
    return plan_downsample(read_downsample_input(path, search or ImageSearch(path), options), options)


def made(path, folder, box=8, *, overwrite=False, resume=False, **options):
    return run_stacks(planned(path, box, **options), folder, device="cpu", overwrite=overwrite, resume=resume)


def images_in(path):
    with mrcfile.open(path) as stack:
        return stack.data.reshape(-1, *stack.data.shape[-2:]).copy()


def columns_of(path, block):
    labels, rows, _ = read_block(path.read_text(), block)
    return dict(zip(labels, zip(*rows, strict=True), strict=True))


def sources_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in _OF_RUN}


@pytest.fixture
def star(tmp_path):
    """Six particles of two optics groups in two stacks, in an order of their own, with poses and odd columns."""
    save_mrc(tmp_path / "a.mrcs", noise_images(3, 16, seed=1) + 4, 1.5)
    save_mrc(tmp_path / "b.mrcs", noise_images(3, 16, seed=2) + 4, 1.5)
    path = tmp_path / "particles.star"
    n = 6
    particles = {
        "rlnCoordinateX": np.arange(n) * 10.5,
        "rlnImageName": [
            f"{slice_:06d}@{name}.mrcs" for slice_, name in zip((3, 1, 2, 1, 2, 3), "babbaa", strict=True)
        ],
        "rlnMicrographName": ["mics/m1.mrc"] * n,
        "rlnAngleRot": np.linspace(-170, 170, n),
        "rlnAngleTilt": np.linspace(5, 175, n),
        "rlnAnglePsi": np.linspace(170, -170, n),
        "rlnOriginXAngst": np.linspace(-3, 4, n),
        "rlnOriginYAngst": np.linspace(2, -1, n),
        "rlnDefocusU": np.linspace(10000, 11000, n),
        "rlnDefocusV": np.linspace(9900, 10900, n),
        "rlnDefocusAngle": np.linspace(0, 90, n),
        "rlnOpticsGroup": [1, 2, 1, 2, 1, 2],
        "myOwnColumn": [f"x{row:02d}" for row in range(n)],
    }
    optics = save_star(tmp_path / "optics.star", "optics", _OPTICS).read_text()
    path.write_text(optics + save_star(tmp_path / "rows.star", "particles", particles).read_text())
    return path


@pytest.fixture
def expected(tmp_path):
    """The six images of `star` in its order, downsampled to 8 px."""

    def result():
        a, b = (cropped(images_in(tmp_path / f"{name}.mrcs"), 8) for name in "ab")
        return np.stack([b[2], a[0], b[1], b[0], a[1], a[2]])

    return result


def test_images_come_in_the_order_of_the_rows_with_the_new_pixel_size(star, expected, tmp_path):
    made(star, tmp_path / "out")
    path = tmp_path / "out" / "particles.8.mrcs"
    np.testing.assert_allclose(images_in(path), expected(), atol=3e-6)
    with mrcfile.open(path) as stack:
        assert float(stack.voxel_size.x) == pytest.approx(3.0)
        assert (stack.header.mode, stack.header.ispg, stack.header.nz) == (2, 0, 6)
        assert float(stack.header.dmean) == pytest.approx(stack.data.mean(dtype=float))
        assert float(stack.header.rms) == pytest.approx(stack.data.std(dtype=float), rel=1e-5)
    assert mrcfile.validate(path)


def test_all_columns_and_optics_groups_stay_and_sizes_are_corrected(star, tmp_path):
    made(star, tmp_path / "out")
    new = tmp_path / "out" / "particles.8.star"
    before, after = columns_of(star, "particles"), columns_of(new, "particles")
    assert list(after) == list(before)
    assert after["rlnImageName"] == tuple(f"{number:06d}@particles.8.mrcs" for number in range(1, 7))
    for name in set(before) - {"rlnImageName", "myOwnColumn", "rlnMicrographName"}:
        assert list(map(float, after[name])) == pytest.approx(list(map(float, before[name]))), name
    assert after["myOwnColumn"] == before["myOwnColumn"]
    optics = columns_of(new, "optics")
    assert optics["rlnImagePixelSize"] == ("3", "3")
    assert optics["rlnImageSize"] == ("8", "8")
    assert optics["rlnOpticsGroupName"] == ("first group", "second")
    assert optics["rlnVoltage"] == ("300", "200")
    assert optics["rlnMtfFileName"] == ("mtf.star", "mtf.star")


def test_pickles_are_those_of_the_new_images(star, tmp_path):
    made(star, tmp_path / "out")
    columns = {name: np.array(values) for name, values in columns_of(star, "particles").items()}
    rotations, shifts = pickle.loads((tmp_path / "out" / "poses.pkl").read_bytes())
    angles = np.column_stack([columns[f"rlnAngle{name}"].astype(float) for name in ("Rot", "Tilt", "Psi")])
    # RELION's A is the matrix of the angles rot, tilt, psi about z, y, z, from the reference to the view.
    np.testing.assert_allclose(rotations, Rotation.from_euler("zyz", -angles, degrees=True).as_matrix(), atol=1e-6)
    origins = np.column_stack([columns[f"rlnOrigin{axis}Angst"].astype(float) for axis in "XY"])
    np.testing.assert_allclose(shifts, origins / 24, atol=1e-6)
    ctf = pickle.loads((tmp_path / "out" / "ctf.pkl").read_bytes())
    assert ctf.shape == (6, 9)
    np.testing.assert_allclose(ctf[:, 0], 8)
    np.testing.assert_allclose(ctf[:, 1], 3.0)
    np.testing.assert_allclose(ctf[:, 2], columns["rlnDefocusU"].astype(float))
    np.testing.assert_allclose(ctf[:, 5], [300, 200] * 3)
    np.testing.assert_allclose(ctf[:, 7], [0.1, 0.07] * 3, rtol=1e-6)


def test_the_sidecar_names_row_file_and_slice_of_every_image(star, tmp_path):
    made(star, tmp_path / "out")
    rows = sources_of(tmp_path / "out" / "particles.8_sources.csv")
    assert list(rows[0]) == ["image", "source_row", "source_file", "source_slice", "uid"]
    assert [row["image"] for row in rows][:2] == ["000001@particles.8.mrcs", "000002@particles.8.mrcs"]
    assert [row["source_row"] for row in rows] == list("012345")
    assert [(row["source_file"], row["source_slice"]) for row in rows] == [
        *(("b.mrcs", "2"), ("a.mrcs", "0"), ("b.mrcs", "1"), ("b.mrcs", "0"), ("a.mrcs", "1"), ("a.mrcs", "2"))
    ]
    assert {row["uid"] for row in rows} == {""}


def test_rows_of_an_index_file_are_taken_in_its_order(star, expected, tmp_path):
    np.save(tmp_path / "ind.npy", np.array([4, 0, 3]))
    (tmp_path / "ind.pkl").write_bytes(pickle.dumps(np.array([4, 0, 3])))
    for name in ("ind.npy", "ind.pkl"):
        report = made(star, tmp_path / name[-3:], indices=tmp_path / name)
        assert (report.rows_in, report.rows_out, report.left_out) == (6, 3, {f"not in {name}": 3})
        folder = tmp_path / name[-3:]
        np.testing.assert_allclose(images_in(folder / "particles.8.mrcs"), expected()[[4, 0, 3]], atol=3e-6)
        assert columns_of(folder / "particles.8.star", "particles")["myOwnColumn"] == ("x04", "x00", "x03")
        assert [row["source_row"] for row in sources_of(folder / "particles.8_sources.csv")] == list("403")
        assert len(pickle.loads((folder / "ctf.pkl").read_bytes())) == 3


@pytest.mark.parametrize(("rows", "message"), [([0, 6], "row 6 is asked for"), ([2, 2], "twice: 2"), ([], "no rows")])
def test_rows_that_are_not_there_or_there_twice_are_refused(rows, message, star, tmp_path):
    np.save(tmp_path / "ind.npy", np.array(rows, int))
    with pytest.raises(UsageError, match=message):
        planned(star, indices=tmp_path / "ind.npy")


def test_images_go_into_several_files_with_a_list_of_them(star, expected, tmp_path):
    made(star, tmp_path / "out", chunk=4)
    folder = tmp_path / "out"
    assert (folder / "particles.8.txt").read_text().split() == ["particles.8.0.mrcs", "particles.8.1.mrcs"]
    parts = [images_in(folder / f"particles.8.{number}.mrcs") for number in (0, 1)]
    assert [len(part) for part in parts] == [4, 2]
    np.testing.assert_allclose(np.concatenate(parts), expected(), atol=3e-6)
    names = columns_of(folder / "particles.8.star", "particles")["rlnImageName"]
    assert names[3:5] == ("000004@particles.8.0.mrcs", "000001@particles.8.1.mrcs")


def test_half_precision_halves_the_file_and_refuses_what_it_can_not_hold(star, expected, tmp_path):
    made(star, tmp_path / "out", half_precision=True)
    path = tmp_path / "out" / "particles.8.mrcs"
    assert path.stat().st_size == 1024 + 6 * 64 * 2
    found = images_in(path)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected(), rtol=1e-3, atol=1e-3)
    save_mrc(tmp_path / "a.mrcs", noise_images(3, 16) + 1e5, 1.5)
    with pytest.raises(CryobridgeError, match="float16") as caught:
        made(star, tmp_path / "other", half_precision=True)
    assert "half_precision=" in caught.value.hint


def test_the_number_of_images_in_memory_does_not_matter(star, tmp_path):
    made(star, tmp_path / "one", batch_size=1)
    made(star, tmp_path / "all", batch_size=1000)
    assert (tmp_path / "one" / "particles.8.mrcs").read_bytes() == (tmp_path / "all" / "particles.8.mrcs").read_bytes()


def test_two_pixel_sizes_are_kept_apart_and_reported(star, tmp_path):
    star.write_text(star.read_text().replace("0.07 1.5 16", "0.07 1.25 16"))
    report = made(star, tmp_path / "out")
    assert columns_of(tmp_path / "out" / "particles.8.star", "optics")["rlnImagePixelSize"] == ("3", "2.5")
    assert any("2 pixel sizes" in str(note) for note in report.notes)
    assert any("first row" in str(warning) for warning in report.warnings)
    np.testing.assert_allclose(pickle.loads((tmp_path / "out" / "ctf.pkl").read_bytes())[:, 1], [3, 2.5] * 3)


def test_all_that_is_wrong_with_the_input_is_reported_at_once_and_nothing_is_written(star, tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(2, 20))
    result = run("stacks", "downsample", star, "-D", 18, "--pixel-size", 2, "-o", tmp_path / "out")
    assert result.returncode != 0
    for message in ("--pixel-size 2 contradicts", "image 3 is asked for, the file has 2", "2 sizes", "a.mrcs 20 × 20"):
        assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_images_of_another_box_than_the_metadata_say_are_refused(star, tmp_path):
    for name in "ab":
        save_mrc(tmp_path / f"{name}.mrcs", noise_images(3, 24))
    with pytest.raises(CryobridgeError, match="of images of 16 px, the image files have 24 px"):
        planned(star)


@pytest.mark.parametrize(("box", "message"), [(18, "can't enlarge"), (7, "not even"), (0, "not even")])
def test_larger_and_odd_boxes_are_refused(box, message, star):
    with pytest.raises(UsageError, match=message):
        planned(star, box)


def test_images_that_are_not_square_are_refused(tmp_path):
    save_mrc(tmp_path / "a.mrcs", np.zeros((3, 16, 18)), 1.5)
    with pytest.raises(CryobridgeError, match="only square"):
        planned(tmp_path / "a.mrcs")


def test_an_odd_box_keeps_its_centre_and_says_so(tmp_path):
    y, x = np.mgrid[:33, :33] - 16
    blob = np.exp(-(x**2 + y**2) / 2 / 4.0**2)
    save_mrc(tmp_path / "a.mrcs", np.stack([blob, blob]), 1.0)
    report = made(tmp_path / "a.mrcs", tmp_path / "out", 16)
    ny, nx = (np.mgrid[:16, :16] - 8) * 33 / 16
    found = images_in(tmp_path / "out" / "particles.16.mrcs")[0]
    np.testing.assert_allclose(found, np.exp(-(nx**2 + ny**2) / 2 / 4.0**2), atol=2e-3)
    assert any("pixel 16, becomes pixel 8" in str(note) for note in report.notes)


def test_relion_3_0_gets_its_pixel_size_and_pixel_shifts_scaled(tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(2, 16))
    columns = {
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs"],
        "rlnAngleRot": [10, 20],
        "rlnAngleTilt": [30, 40],
        "rlnAnglePsi": [50, 60],
        "rlnOriginX": [1.5, -2],
        "rlnOriginY": [0.25, 4],
        "rlnDefocusU": [10000, 10001],
        "rlnDefocusV": [9900, 9901],
        "rlnDefocusAngle": [1, 2],
        "rlnVoltage": [300, 300],
        "rlnSphericalAberration": [2.7, 2.7],
        "rlnAmplitudeContrast": [0.1, 0.1],
        "rlnMagnification": [40000, 40000],
        "rlnDetectorPixelSize": [5, 5],
    }
    path = save_star(tmp_path / "old.star", "", columns)
    made(path, tmp_path / "out")
    after = columns_of(tmp_path / "out" / "particles.8.star", "")
    assert list(after) == list(columns)
    assert after["rlnOriginX"] == ("0.75", "-1")
    assert after["rlnOriginY"] == ("0.125", "2")
    pixel_size_A = 1e4 * float(after["rlnDetectorPixelSize"][0]) / float(after["rlnMagnification"][0])
    assert pixel_size_A == pytest.approx(2.5)
    _, shifts = pickle.loads((tmp_path / "out" / "poses.pkl").read_bytes())
    np.testing.assert_allclose(shifts, np.array([[1.5, 0.25], [-2, 4]]) / 16)
    assert pickle.loads((tmp_path / "out" / "ctf.pkl").read_bytes())[0, 1] == pytest.approx(2.5)


def test_a_pixel_size_given_by_hand_is_written_where_the_metadata_lack_one(tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(2, 16))
    path = save_star(tmp_path / "bare.star", "", {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"]})
    with pytest.raises(CryobridgeError, match="neither the metadata nor the image files"):
        planned(path)
    made(path, tmp_path / "out", pixel_size_A=1.25)
    after = columns_of(tmp_path / "out" / "particles.8.star", "")
    pixel_size_A = 1e4 * float(after["rlnDetectorPixelSize"][0]) / float(after["rlnMagnification"][0])
    assert pixel_size_A == pytest.approx(2.5)
    assert not (tmp_path / "out" / "ctf.pkl").exists()


def test_a_cryosparc_file_becomes_a_star_file_with_its_poses(tmp_path):
    rng = np.random.default_rng(3)
    save_mrc(tmp_path / "J1" / "a.mrc", noise_images(4, 16), 1.5)
    rotation, shift = rng.uniform(-1.5, 1.5, (4, 3)).astype("f4"), rng.uniform(-2, 2, (4, 2)).astype("f4")
    more = {"alignments3D__pose": rotation, "alignments3D__shift": shift}
    more["alignments3D__psize_A"] = np.full(4, 3.0, "f4")  # found on binned images
    more["ctf__exp_group_id"] = np.array([7, 7, 9, 9], "u4")
    columns = particle_columns(["J1/a.mrc"] * 4, [2, 0, 3, 1], **more)
    path = save_cs(tmp_path / "J1" / "particles.cs", columns)
    made(path, tmp_path / "out")
    folder = tmp_path / "out"
    optics, after = (columns_of(folder / "particles.8.star", block) for block in ("optics", "particles"))
    assert optics["rlnImageSize"] == ("8", "8")
    assert optics["rlnImagePixelSize"] == ("3", "3")
    assert after["rlnOpticsGroup"] == ("1", "1", "2", "2")
    origin = np.column_stack([np.array(after[f"rlnOrigin{axis}Angst"], float) for axis in "XY"])
    np.testing.assert_allclose(origin, shift * 3.0, atol=1e-5)
    matrices, shifts = pickle.loads((folder / "poses.pkl").read_bytes())
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(rotation).as_matrix().swapaxes(1, 2), atol=1e-6)
    np.testing.assert_allclose(shifts, shift * 3.0 / 24, atol=1e-6)
    expected_images = cropped(images_in(tmp_path / "J1" / "a.mrc"), 8)[[2, 0, 3, 1]]
    np.testing.assert_allclose(images_in(folder / "particles.8.mrcs"), expected_images, atol=3e-6)
    assert [row["uid"] for row in sources_of(folder / "particles.8_sources.csv")] == list(map(str, columns["uid"]))


def test_a_result_group_brings_the_poses_of_its_passthrough_file(demo_project, tmp_path):
    group = next(demo_project.folder.glob("cryosparc/J*/*_particles.csg"))
    report = made(group, tmp_path / "out", 32)
    assert report.poses and report.ctf
    assert any("places on micrographs" in str(note) for note in report.notes)
    after = columns_of(tmp_path / "out" / "particles.32.star", "particles")
    assert {"rlnAngleRot", "rlnDefocusU", "rlnRandomSubset"} <= set(after)
    assert len(images_in(tmp_path / "out" / "particles.32.mrcs")) == len(after["rlnImageName"]) == report.rows_in


def test_a_bare_stack_takes_its_pickles_when_they_are_named(reference_data, tmp_path):
    source = reference_data / "recovar_run" / "particles"
    stack = source / "particles.32.mrcs"
    alone = made(stack, tmp_path / "alone", 16, pixel_size_A=17.0)
    assert not alone.poses and not alone.ctf and alone.next is None
    assert any("poses.pkl lies beside the stack" in str(note) for note in alone.notes)
    assert columns_of(tmp_path / "alone" / "particles.16.star", "optics")["rlnImagePixelSize"] == ("34",)
    report = made(stack, tmp_path / "out", 16, poses=source / "poses.pkl", ctf=source / "ctf.pkl")
    assert report.poses and report.ctf
    before = pickle.loads((source / "poses.pkl").read_bytes())
    after = pickle.loads((tmp_path / "out" / "poses.pkl").read_bytes())
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    np.testing.assert_allclose(after[1], before[1], atol=1e-5)
    ctf_before, ctf_after = (pickle.loads((folder / "ctf.pkl").read_bytes()) for folder in (source, tmp_path / "out"))
    np.testing.assert_allclose(ctf_after[:, 2:], ctf_before[:, 2:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ctf_after[:, 0] * ctf_after[:, 1], ctf_before[:, 0] * ctf_before[:, 1], rtol=1e-6)
    expected_images = cropped(images_in(stack), 16)
    found = images_in(tmp_path / "out" / "particles.16.mrcs")
    assert np.abs(found - expected_images).max() < 1e-6 * np.abs(expected_images).max()


@pytest.mark.parametrize(
    ("name", "images", "box", "pixel_size_A"),
    [("relion31.star", "relion31.mrcs", 256, 2.806), ("empiar_10076_7.star", "empiar_10076_7.mrc", 320, 1.31)],
)
def test_real_particles_agree_with_the_direct_transform(name, images, box, pixel_size_A, reference_data, tmp_path):
    report = made(reference_data / "real" / name, tmp_path / "out", 128)
    assert report.box_px == (box, 128)
    assert report.pixel_size_A[1] == pytest.approx((pixel_size_A * box / 128,), rel=1e-4)
    pixels = np.fromfile(reference_data / "real" / images, "<f4", offset=1024).reshape(-1, box, box)
    expected_images = cropped(pixels, 128)
    found = images_in(tmp_path / "out" / "particles.128.mrcs")
    assert np.abs(found - expected_images).max() < 2e-6 * np.abs(expected_images).max()
    np.testing.assert_allclose(found.mean((1, 2)), expected_images.mean((1, 2)), atol=1e-5)


def test_cropping_the_hartley_transform_gives_the_same_below_nyquist_but_for_a_factor(star, tmp_path):
    """cryoDRGN's way: real minus imaginary part of the centred transform, its middle, and the same backwards."""
    made(star, tmp_path / "out")

    def hartley(images):
        centred = np.fft.fftshift(np.fft.fft2(np.fft.fftshift(images, (1, 2))), (1, 2))
        return centred.real - centred.imag

    def below_nyquist(images):
        spectrum = np.fft.fft2(images)
        spectrum[:, 4], spectrum[:, :, 4] = 0, 0
        return np.fft.ifft2(spectrum).real

    b = images_in(tmp_path / "b.mrcs").astype(float)
    theirs = hartley(hartley(b)[:, 4:12, 4:12]) / 64
    ours = images_in(tmp_path / "out" / "particles.8.mrcs")[[3, 2, 0]]
    np.testing.assert_allclose(theirs.mean(), ours.mean() * 4, rtol=1e-5)
    np.testing.assert_allclose(below_nyquist(ours), below_nyquist(theirs) / 4, atol=4e-6)


def test_missing_images_are_refused_or_left_out(star, expected, tmp_path):
    (tmp_path / "a.mrcs").rename(tmp_path / "moved.mrcs")
    with pytest.raises(CryobridgeError, match=r"1 of 2 image files is missing: a\.mrcs"):
        planned(star)
    report = made(star, tmp_path / "out", on_missing="skip")
    (tmp_path / "moved.mrcs").rename(tmp_path / "a.mrcs")
    assert (report.rows_out, report.left_out) == (3, {"image file missing": 3})
    np.testing.assert_allclose(images_in(tmp_path / "out" / "particles.8.mrcs"), expected()[[0, 2, 3]], atol=3e-6)
    assert columns_of(tmp_path / "out" / "particles.8.star", "particles")["myOwnColumn"] == ("x00", "x02", "x03")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_a_value_that_is_no_number_is_named_or_left_out(value, star, tmp_path):
    images = images_in(tmp_path / "b.mrcs")
    images[1, 3, 4] = value
    save_mrc(tmp_path / "b.mrcs", images, 1.5)
    with pytest.raises(CryobridgeError, match=r"row 2: image 2 holds NaN or infinity"):
        made(star, tmp_path / "refused")
    report = made(star, tmp_path / "out", on_missing="skip", chunk=4)
    assert report.left_out == {"holds NaN or infinity": 1}
    assert report.left_out_rows == (2,)
    folder = tmp_path / "out"
    names = columns_of(folder / "particles.8.star", "particles")
    assert names["myOwnColumn"] == ("x00", "x01", "x03", "x04", "x05")
    assert names["rlnImageName"][2:4] == ("000003@particles.8.0.mrcs", "000001@particles.8.1.mrcs")
    assert len(images_in(folder / "particles.8.0.mrcs")) == 3
    assert [row["source_row"] for row in sources_of(folder / "particles.8_sources.csv")] == list("01345")
    assert len(pickle.loads((folder / "poses.pkl").read_bytes())[0]) == 5


def test_outputs_are_not_written_over_and_inputs_never(star, tmp_path):
    made(star, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="there already"):
        made(star, tmp_path / "out")
    with pytest.raises(UsageError, match="images of another size are there"):
        made(star, tmp_path / "out", 4, overwrite=True)
    with pytest.raises(UsageError, match="this file is read"):
        made(tmp_path / "out" / "particles.8.star", tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match="overwrite= replaces what resume= would keep"):
        made(star, tmp_path / "out", overwrite=True, resume=True)
    assert contents(tmp_path / "out") == before
    made(star, tmp_path / "out", overwrite=True, chunk=3)
    assert not (tmp_path / "out" / "particles.8.mrcs").exists()


def test_resuming_does_not_take_over_what_another_program_made(star, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "particles.8.mrcs").write_bytes(b"of RECOVAR")
    with pytest.raises(OutputExistsError):
        made(star, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "particles.8.mrcs").read_bytes() == b"of RECOVAR"


@pytest.mark.parametrize("cut", [0, 500, 1024, 1024 + 2 * 256 + 17, 1024 + 6 * 256])
@pytest.mark.parametrize("options", [{}, {"chunk": 4, "on_missing": "skip"}])
def test_an_unfinished_stack_is_gone_on_with_to_the_same_bytes(cut, options, star, tmp_path):
    if options:
        images = images_in(tmp_path / "b.mrcs")
        images[2] = np.nan
        save_mrc(tmp_path / "b.mrcs", images, 1.5)
    made(star, tmp_path / "whole", **options)
    made(star, tmp_path / "out", **options)
    folder = tmp_path / "out"
    for name in ("particles.8.star", "poses.pkl", "particles.8_sources.csv"):
        (folder / name).unlink()
    last = folder / ("particles.8.1.mrcs" if options else "particles.8.mrcs")
    partial_path(last).write_bytes((bytes(1024) + last.read_bytes()[1024:])[:cut])
    last.unlink()
    with pytest.raises(OutputExistsError, match="interrupted") as caught:
        made(star, folder, **options)
    assert "resume=" in caught.value.hint
    report = made(star, folder, resume=True, **options)
    assert report.rows_out == (5 if options else 6)
    assert contents(folder) == contents(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(star, tmp_path):
    made(star, tmp_path / "out")
    folder = tmp_path / "out"
    before = {
        path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in [folder, *folder.iterdir()]
    }
    made(star, folder, resume=True)
    after = {
        path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in [folder, *folder.iterdir()]
    }
    assert after == before


def test_resuming_writes_metadata_anew_that_are_not_what_they_would_be(star, tmp_path):
    made(star, tmp_path / "out", chunk=3)
    whole = contents(tmp_path / "out")
    for name in ("particles.8.star", "poses.pkl", "particles.8.txt"):
        (tmp_path / "out" / name).write_bytes(b"of somebody else")
        report = made(star, tmp_path / "out", chunk=3, resume=True)
        assert report.stacks_kept == 2
        assert contents(tmp_path / "out") == whole


def test_resuming_with_other_options_or_images_is_refused(star, tmp_path):
    made(star, tmp_path / "out")
    partial_path(tmp_path / "out" / "particles.8.mrcs").write_bytes(b"")
    with pytest.raises(UsageError, match="other images, or with other options"):
        made(star, tmp_path / "out", resume=True, half_precision=True)
    save_mrc(tmp_path / "a.mrcs", noise_images(4, 16), 1.5)
    with pytest.raises(UsageError, match="other images, or with other options"):
        made(star, tmp_path / "out", resume=True)


def test_a_killed_run_is_gone_on_with_to_the_same_bytes(tmp_path):
    with MrcStackWriter(tmp_path / "many.mrcs", (64, 64), 1.5) as stack:
        for seed in range(40):
            stack.append(noise_images(200, 64, seed).astype("f4"))
    words = ("stacks", "downsample", tmp_path / "many.mrcs", "-D", 48)
    folder = tmp_path / "killed"
    process = start(*words, "-o", folder)
    partial = partial_path(folder / "particles.48.mrcs")
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 100_000):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run(*words, "-o", folder, "--resume").returncode == 0
    assert run(*words, "-o", tmp_path / "whole").returncode == 0
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_are_written_without_a_warning(tmp_path):
    save_mrc(tmp_path / "a.mrcs", noise_images(2, 16), 1.5)
    columns = {
        "rlnImageName": ["1@a.mrcs", "2@a.mrcs"],
        "rlnOriginX": [1e305, -2.0000000001],
        "rlnOriginY": [-1e308, 3],
    }
    columns |= {"rlnDetectorPixelSize": [1e308, 15], "rlnOpticsGroup": [1, 1]}
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.5], "rlnImageSize": [16], "rlnVoltage": [300]}
    text = save_star(tmp_path / "a.star", "optics", optics).read_text()
    (tmp_path / "a.star").write_text(text + save_star(tmp_path / "b.star", "particles", columns).read_text())
    made(tmp_path / "a.star", tmp_path / "out")
    after = columns_of(tmp_path / "out" / "particles.8.star", "particles")
    assert list(map(float, after["rlnOriginX"])) == [5e304, -1]
    assert list(map(float, after["rlnOriginY"])) == [-5e307, 1.5]
    assert float(after["rlnDetectorPixelSize"][1]) == 30


def test_without_amplitude_contrast_it_is_said_which_option_makes_ctf_pkl(star, tmp_path):
    text = star.read_text()
    assert "rlnAmplitudeContrast" in text
    star.write_text(text.replace("rlnAmplitudeContrast", "rlnMyContrast"))
    report = made(star, tmp_path / "out")
    (said,) = [message for message in report.warnings if message.code == "ctf-left-out"]
    assert "no ctf.pkl" in str(said)
    assert "amplitude_contrast='X'" in str(said)
    assert not (tmp_path / "out" / "ctf.pkl").exists()
    assert (tmp_path / "out" / "poses.pkl").is_file()
    named = convert(star, tmp_path / "with.star", amplitude_contrast=0.1).outputs[0]
    made(named, tmp_path / "all")
    assert (tmp_path / "all" / "ctf.pkl").is_file()


def test_a_dry_run_tells_the_plan_and_writes_nothing(star, tmp_path):
    result = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "out", "--dry-run", "--json")
    report = json.loads(result.stdout)
    assert report["rows_out"] == 6
    assert report["pixel_size_A"] == [[1.5], [3.0]]
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_the_next_one_to_type(star, tmp_path):
    result = run("stacks", "downsample", star, "-D", 8, "-o", "out", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == (
        "$ recovar pipeline out/particles.8.star -o out_recovar --mask from_halfmaps"
    )
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert job["status"] == "completed"
    assert job["report"]["outputs"] == [
        f"out/{name}" for name in ("particles.8.star", "particles.8_sources.csv", "poses.pkl", "ctf.pkl")
    ]
    status, message = run_in_terminal("stacks", "downsample", star, "-D", 8, "-o", "more", cwd=tmp_path)
    assert status == 0
    assert "16 → 8 px" in without_escapes(message)


def test_a_usage_fault_ends_with_2_and_says_what_to_do(star, tmp_path):
    result = run("stacks", "downsample", star, "-D", 7, "-o", tmp_path / "out")
    assert result.returncode == 2
    assert "Use 6 or 8." in result.stderr
    result = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "out", "--ctf", star)
    assert result.returncode == 2
    assert "bare stack" in result.stderr


def test_the_command_loads_neither_torch_nor_pandas(star, tmp_path):
    code = (
        "import sys\nfrom cryobridge.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    words = ["stacks", "downsample", str(star), "-D", "8", "-o", str(tmp_path / "out"), "-q"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(line.startswith("! ") for line in done.stderr.splitlines())
    assert (tmp_path / "out" / "particles.8.star").is_file()


def test_image_folders_are_for_metadata_not_for_stacks(star, expected, tmp_path):
    (tmp_path / "elsewhere" / "raw").mkdir(parents=True)
    for name in "ab":
        save_mrc(tmp_path / "elsewhere" / "raw" / f"{name}.mrcs", images_in(tmp_path / f"{name}.mrcs"), 1.5)
    wanted = expected()
    (tmp_path / "a.mrcs").unlink()
    plan = planned(star, search=ImageSearch(star, datadir=tmp_path / "elsewhere" / "raw"))
    run_stacks(plan, tmp_path / "out", device="cpu")
    np.testing.assert_allclose(images_in(tmp_path / "out" / "particles.8.mrcs"), wanted, atol=3e-6)
    with pytest.raises(UsageError, match="for metadata"):
        planned(tmp_path / "b.mrcs", search=ImageSearch(tmp_path / "b.mrcs", datadir=tmp_path))


def test_images_that_another_run_has_begun_meanwhile_are_not_taken_for_left_ones(star, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    partial = partial_path(out / "particles.8.mrcs")
    with locked(out):
        looks = iter([lambda _: partial.touch(), shares.refuse_busy])

        def look(folder):
            next(looks)(folder)

        monkeypatch.setattr(shares, "refuse_busy", look)
        with pytest.raises(CryobridgeError, match="another run of cryobridge is at work"):
            made(star, out)
    monkeypatch.undo()
    with pytest.raises(OutputExistsError, match="an interrupted run left this"):
        made(star, out)


# --- pixels ---------------------------------------------------------------------------------------------------------


def normalised(images, radius, *, ramp=True):
    """Return images with a background of mean 0 and deviation 1, by a fit of its own in float64."""
    y, x = np.indices(images.shape[1:]) - images.shape[-1] // 2
    outside = x**2 + y**2 > radius**2
    planes = np.stack([np.ones(outside.shape), x, y] if ramp else [np.ones(outside.shape)])
    made = []
    for image in images:
        factors = np.linalg.lstsq(planes[:, outside].T, image[outside], rcond=None)[0]
        flat = image - np.tensordot(factors, planes, 1)
        made.append(flat / flat[outside].std())
    return np.array(made)


@pytest.mark.parametrize(
    ("options", "radius"), [({"normalise": "auto"}, 3), ({"normalise": 2, "ramp": False, "chunk": 4}, 2)]
)
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("half_precision", [False, True])
def test_images_are_normalised_after_they_are_made_smaller(
    options, radius, invert, half_precision, star, expected, tmp_path
):
    report = made(star, tmp_path / "out", invert=invert, half_precision=half_precision, **options)
    found = np.concatenate([images_in(path) for path in report.stacks])
    ramp = options.get("ramp", True)
    atol = 3e-3 if half_precision else 5e-6
    np.testing.assert_allclose(
        found, (-1) ** invert * normalised(expected(), radius, ramp=ramp), rtol=1e-3 if half_precision else 0, atol=atol
    )
    assert (report.background_radius_px, report.ramp, report.inverted) == ((radius,), ramp, 6 * invert)
    assert json.loads((tmp_path / "out" / "job.json").read_text())["report"]["background_radius_px"] == [radius]
    with mrcfile.open(report.stacks[0]) as stack:
        first = stack.data.astype("f8")
        said = [float(stack.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
    np.testing.assert_allclose(said, [first.min(), first.max(), first.mean(), first.std()], rtol=1e-4, atol=1e-5)
    assert "not-normalised" not in {message.code for message in report.messages}


def test_images_of_half_precision_are_normalised_too(star, tmp_path):
    images = images_in(tmp_path / "a.mrcs").astype("f2")
    with mrcfile.new(tmp_path / "a.mrcs", images, overwrite=True) as stack:
        stack.set_image_stack()
        stack.voxel_size = 1.5
    report = made(star, tmp_path / "out", 16, normalise=6)
    found = images_in(report.stacks[0])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[1, 4, 5]], normalised(images.astype("f8"), 6), atol=5e-6)


@pytest.mark.parametrize("change", [{}, {"normalise": 2}, {"normalise": "auto", "ramp": False}])
def test_normalised_stacks_are_gone_on_with_by_the_same_norm_only(change, star, tmp_path):
    made(star, tmp_path / "whole", normalise="auto")
    folder = tmp_path / "out"
    made(star, folder, normalise="auto")
    last = folder / "particles.8.mrcs"
    partial_path(last).write_bytes(last.read_bytes()[: 1024 + 2 * 256 + 17])
    last.unlink()
    (folder / "particles.8.star").unlink()
    with pytest.raises(UsageError, match="other images, or with other options"):
        made(star, folder, resume=True, **change)
    made(star, folder, resume=True, normalise=3)  # which is what "auto" comes to
    assert contents(folder) == contents(tmp_path / "whole")


def test_an_image_with_a_constant_background_is_named_or_left_out(star, tmp_path):
    images = images_in(tmp_path / "b.mrcs")
    images[1] = 5
    save_mrc(tmp_path / "b.mrcs", images, 1.5)
    with pytest.raises(CryobridgeError, match="row 2: image 2 has a constant background") as caught:
        made(star, tmp_path / "refused", normalise="auto")
    assert caught.value.path == str(tmp_path / "b.mrcs")
    report = made(star, tmp_path / "out", normalise="auto", on_missing="skip")
    assert report.left_out == {"holds NaN or infinity, or a constant background": 1}
    assert report.left_out_rows == (2,)
    images[1, 3, 4] = np.nan
    save_mrc(tmp_path / "b.mrcs", images, 1.5)
    with pytest.raises(CryobridgeError, match="row 2: image 2 holds NaN or infinity"):
        made(star, tmp_path / "refused", normalise="auto")


@pytest.mark.parametrize(
    ("radius", "said"),
    [
        (5, "a circle with a radius of 5 px does not fit into images of 8 px"),
        (0, "0 is out of range"),
        (-1, "-1 is out of range"),
        (2.5, "a whole number is needed, not 2.5"),
        (True, "a whole number is needed, not True"),
        ("wide", "'wide' is no radius"),
        ("", "'' is no radius"),
        ("1" * 20, "is no radius"),
    ],
)
def test_a_radius_that_is_none_is_refused(radius, said, star):
    with pytest.raises(UsageError, match=said) as caught:
        planned(star, normalise=radius)
    assert caught.value.option == "normalise"
    planned(star, normalise=np.int64(4))


def test_the_command_normalises_and_says_so(star, tmp_path):
    done = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "plain")
    assert "add --normalise auto" in " ".join(done.stderr.split())
    done = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "out", "--normalise", "auto", "--no-ramp")
    assert done.returncode == 0
    assert "normalised  outside of 3 px, less the mean" in done.stderr + done.stdout
    assert "are not normalised" not in done.stderr
    done = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "x", "--no-ramp")
    assert done.returncode == 2
    assert "--no-ramp would do nothing here: it is for --normalise" in " ".join(done.stderr.split())
    done = run("stacks", "downsample", star, "-D", 8, "-o", tmp_path / "x", "--normalise", "5")
    assert done.returncode == 2
    assert "Give at most 4" in done.stderr


# For a process of its own, which writes the first image and waits for a sign to go on.
ONE_STACK = """
import sys, time
from pathlib import Path
from cryobridge.formats import mrc_write
from cryobridge.jobs.stacks.remote import RemoteStacks
append, sign = mrc_write.MrcStackWriter.append, Path(sys.argv[4])
def slow_append(self, images):
    append(self, images[:1])
    while not sign.exists():
        time.sleep(0.01)
    append(self, images[1:])
mrc_write.MrcStackWriter.append = slow_append
print("ready", flush=True)
print(RemoteStacks(*sys.argv[1:4], "cpu")(0)[0])
"""


def start_one_stack(*words):
    return subprocess.Popen([sys.executable, "-c", ONE_STACK, *map(str, words)], stdout=subprocess.PIPE, text=True)


def wait_for_first_image(process, stack):
    partial = partial_path(stack)
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 1024):
        time.sleep(0.01)


@pytest.mark.parametrize("is_killed", [False, True])
def test_of_two_processes_that_are_given_one_stack_the_second_waits(star, tmp_path, is_killed):
    # As when a living worker is taken for dead, and its task handed out again.
    its_plan = planned(star)
    run_stacks(its_plan, tmp_path / "whole")
    out, sign = tmp_path / "out", tmp_path / "sign"
    out.mkdir()
    stack = out / "particles.8.mrcs"
    with stored_plan(its_plan, out) as (place, fingerprint):
        first = start_one_stack(place, fingerprint, out, sign)
        wait_for_first_image(first, stack)
        second = start_one_stack(place, fingerprint, out, sign)
        assert second.stdout.readline() == "ready\n"
        time.sleep(0.5)
        if is_killed:
            first.kill()
        sign.touch()
        said = [process.communicate(timeout=60)[0].split()[-1] for process in (first, second)]
        assert (first.returncode, second.returncode) == (-9 if is_killed else 0, 0)
        n = its_plan.n_images
        assert said == (["ready", str(n - 1)] if is_killed else [str(n), str(n)])
        assert stack.read_bytes() == (tmp_path / "whole" / stack.name).read_bytes()
        assert whole_stack(its_plan, out, its_plan.tasks[0]) is not None
        assert not list(out.glob(".*.part*"))
        # Once more: it is found whole, and nothing is written.
        before = stack.stat().st_mtime_ns
        RemoteStacks(str(place), fingerprint, str(out), "cpu")(0)
        assert stack.stat().st_mtime_ns == before


def test_a_worker_of_an_ended_run_that_is_still_at_a_stack_is_waited_for(star, tmp_path):
    its_plan = planned(star)
    run_stacks(its_plan, tmp_path / "whole")
    out, sign = tmp_path / "out", tmp_path / "sign"
    out.mkdir()
    with stored_plan(its_plan, out) as (place, fingerprint):
        worker = start_one_stack(place, fingerprint, out, sign)
        wait_for_first_image(worker, out / "particles.8.mrcs")
    threading.Timer(0.5, sign.touch).start()
    run_stacks(its_plan, out, resume=True)
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    for name in ("particles.8.mrcs", "particles.8.star", "particles.8_sources.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
