"""Copies and smaller images that are normalised, beside what RELION's own programs make and say of them."""

import mrcfile
import numpy as np
import pytest
from interop.relion import OpticsGroup, Relion, write_volume

import cryobridge as cb

pytestmark = pytest.mark.relion

# What single precision leaves of values up to about 5.
ROUNDING = 2e-6


def saved(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = 2
    return path


def pixels(path):
    with mrcfile.open(path, permissive=True) as file:
        return file.data.astype("f8")


@pytest.mark.parametrize(
    ("box", "radius", "dtype", "options"),
    [
        (48, None, "f4", {}),
        (48, 15, "f4", {"ramp": False}),
        (49, 24, "f4", {"invert": True}),
        (32, 1, "f4", {}),
        (40, 12, "i2", {"ramp": False, "invert": True}),
    ],
)
def test_pixels_are_those_of_relion_preprocess(box, radius, dtype, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:box, :box]
    blob = 9 * np.exp(-((x - box // 2) ** 2 + (y - box // 2) ** 2) / 40)
    noise = np.random.default_rng(0).normal(20, 3, (5, box, box))
    saved(tmp_path / "stack.mrcs", (noise + blob + 0.1 * x - 0.05 * y).astype(dtype))
    radius_px = int(0.375 * box) if radius is None else radius
    more = [flag for name, flag in (("ramp", "--no_ramp"), ("invert", "--invert_contrast")) if name in options]
    relion = Relion(tmp_path)
    relion.run(
        "relion_preprocess", "--operate_on", "stack.mrcs", "--operate_out", "theirs.mrcs", "--norm",
        "--bg_radius", radius_px, *more,
    )  # fmt: skip
    theirs = pixels(tmp_path / "theirs.mrcs")
    normalise = "auto" if radius is None else radius
    if box % 2 == 0:
        report = cb.downsample("stack.mrcs", "small", box_px=box, normalise=normalise, **options)
        assert report.background_radius_px == (radius_px,)
        np.testing.assert_allclose(pixels(report.stacks[0]), theirs, rtol=0, atol=ROUNDING)
    rows = {"rlnImageName": [f"{number}@stack.mrcs" for number in range(1, 6)], "rlnOpticsGroup": [1] * 5}
    relion.folder.joinpath("set.star").write_text(star_text(OpticsGroup(box, 2.0), rows))
    cb.convert("set.star", "ours.star", link_stacks="copies", copy=True, normalise=normalise, **options)
    np.testing.assert_allclose(pixels(tmp_path / "copies" / "stack.mrcs"), theirs, rtol=0, atol=ROUNDING)


def test_smaller_images_are_those_that_relion_normalises_after_it_has_made_them_smaller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "stack.mrcs", np.random.default_rng(0).normal(20, 3, (4, 64, 64)).astype("f4"))
    cb.downsample("stack.mrcs", "plain", box_px=32)
    Relion(tmp_path).run(
        "relion_preprocess", "--operate_on", "plain/particles.32.mrcs", "--operate_out", "theirs.mrcs",
        "--norm", "--bg_radius", 12,
    )  # fmt: skip
    cb.downsample("stack.mrcs", "small", box_px=32, normalise="auto")
    found = pixels(tmp_path / "small" / "particles.32.mrcs")
    np.testing.assert_allclose(found, pixels(tmp_path / "theirs.mrcs"), rtol=0, atol=ROUNDING)


def star_text(group, rows):
    blocks = []
    for name, table in (("optics", {key: [value] for key, value in group.row(1).items()}), ("particles", rows)):
        labels = [f"_{label}" for label in table]
        lines = [" ".join(map(str, values)) for values in zip(*table.values(), strict=True)]
        blocks.append("\n".join([f"data_{name}", "", "loop_", *labels, *lines, "", ""]))
    return "\n".join(blocks)


def test_relion_refines_what_is_normalised_without_a_complaint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relion = Relion(tmp_path)
    simulated = relion.simulate((OpticsGroup(48, 3.0),), n_images=20, noise=0.3)
    stack = tmp_path / "simulated_group1.mrcs"
    saved(stack, (-20 * pixels(stack) + 30).astype("f4"))
    write_volume(tmp_path / "reference.mrc", simulated.volume, 3.0)
    cb.convert(simulated.star, "plain.star", link_stacks="copies", copy=True)
    norm = {"invert": True, "normalise": "auto"}
    cb.convert(simulated.star, "copied.star", link_stacks="normalised", copy=True, **norm)
    cb.downsample(simulated.star, "plain", box_px=32)
    cb.downsample(simulated.star, "small", box_px=32, **norm)
    for folder, star, is_normal in (
        (".", "plain.star", False),
        (".", "copied.star", True),
        ("plain", "particles.32.star", False),
        ("small", "particles.32.star", True),
    ):
        name = f"{folder}_{star.removesuffix('.star')}".replace(".", "_")
        (tmp_path / folder / "out").mkdir(exist_ok=True)
        relion.run(
            "relion_refine", "--i", star, "--o", f"out/{name}", "--ref", tmp_path / "reference.mrc", "--trust_ref_size",
            "--iter", 2, "--particle_diameter", 105, "--ini_high", 20, "--ctf", "--healpix_order", 0,
            "--offset_range", 0, "--offset_step", 1, "--pad", 1, "--firstiter_cc", "--zero_mask", folder=folder,
        )  # fmt: skip
        complains = "have not been normalised" in max((tmp_path / "logs").iterdir()).read_text()
        assert complains != is_normal, star
        codes = {message.code for message in cb.inspect(f"{folder}/{star}", check=["relion"]).warnings}
        assert ("not-normalised" in codes) != is_normal
