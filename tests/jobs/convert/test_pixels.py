"""Copies of stacks with other pixels: contrast, and RELION's norm of the background."""

import json

import mrcfile
import numpy as np
import pytest

from cryobridge.errors import CryobridgeError, OutputExistsError, UsageError
from cryobridge.formats.mrc import open_mrc
from cryobridge.jobs.convert.convert import convert
from cryobridge.jobs.stacks.api import downsample
from helpers import noise_images, run, save_mrc, save_star

OPTICS = {
    "rlnOpticsGroup": [1, 2],
    "rlnOpticsGroupName": ["a", "b"],
    "rlnVoltage": [300, 300],
    "rlnSphericalAberration": [2.7, 2.7],
    "rlnAmplitudeContrast": [0.1, 0.1],
    "rlnImagePixelSize": [1.5, 1.2],
    "rlnImageSize": [16, 20],
    "rlnImageDimensionality": [2, 2],
}


@pytest.fixture
def star(tmp_path):
    """Five particles in two stacks of two boxes; image 3 of the first is of none of them."""
    save_mrc(tmp_path / "in" / "a.mrcs", 4 * noise_images(4, 16, 1) + 9, 1.5)
    save_mrc(tmp_path / "in" / "b.mrcs", 3 * noise_images(2, 20, 2) - 5, 1.2)
    names = ["2@in/a.mrcs", "1@in/b.mrcs", "4@in/a.mrcs", "1@in/a.mrcs", "2@in/b.mrcs"]
    rows = {"rlnImageName": names, "rlnOpticsGroup": [1, 2, 1, 1, 2]}
    path = tmp_path / "particles.star"
    optics = save_star(tmp_path / "optics.star", "optics", OPTICS).read_text()
    path.write_text(optics + save_star(tmp_path / "rows.star", "particles", rows).read_text())
    return path


def normalised(images, radius):
    """Return images with a background of mean 0 and deviation 1, by a fit of its own in float64."""
    y, x = np.indices(images.shape[1:]) - images.shape[-1] // 2
    outside = x**2 + y**2 > radius**2
    planes = np.stack([np.ones(outside.shape), x, y])
    made = []
    for image in images.astype("f8"):
        flat = image - np.tensordot(np.linalg.lstsq(planes[:, outside].T, image[outside], rcond=None)[0], planes, 1)
        made.append(flat / flat[outside].std())
    return np.array(made)


def copied(star, output, **options):
    return convert(star, star.parent / output, link_stacks=star.parent / "copies", copy=True, **options)


def copies(folder):
    return {path.name: open_mrc(path).images.copy() for path in (folder / "copies").rglob("*.mrcs")}


@pytest.mark.parametrize(
    ("normalise", "radii"), [("auto", {"a.mrcs": 6, "b.mrcs": 7}), (7, {"a.mrcs": 7, "b.mrcs": 7}), ("1", {})]
)
@pytest.mark.parametrize("invert", [False, True])
def test_copies_are_normalised_each_stack_by_its_box(normalise, radii, invert, star, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = copied(star, "out.star", normalise=normalise, invert=invert)
    found = copies(tmp_path)
    for name in ("a.mrcs", "b.mrcs"):
        before = open_mrc(tmp_path / "in" / name).images
        expected = (-1) ** invert * normalised(before, radii.get(name, 1))
        np.testing.assert_allclose(found[name], expected, atol=5e-6)
    assert (report.background_radius_px, report.ramp) == (tuple(sorted(set(radii.values()) or {1})), True)
    assert report.inverted == 5 * invert
    assert "not-normalised" not in {message.code for message in report.messages}


def test_stacks_of_half_precision_and_whole_numbers_are_normalised(star, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {}
    for name, dtype in (("a.mrcs", "f2"), ("b.mrcs", "i2")):
        before[name] = open_mrc(tmp_path / "in" / name).images.astype(dtype)
        with mrcfile.new(tmp_path / "in" / name, before[name], overwrite=True) as stack:
            stack.set_image_stack()
    copied(star, "out.star", normalise=7, relion="4")
    for name, images in copies(tmp_path).items():
        assert images.dtype == ("f2" if name == "a.mrcs" else "f4")
        np.testing.assert_allclose(images, normalised(before[name], 7), atol=2e-3 if name == "a.mrcs" else 5e-6)


@pytest.mark.parametrize(("value", "said"), [(5, "has a constant background"), (np.nan, "has NaN or infinity in it")])
def test_images_that_cannot_be_normalised_are_refused_if_they_are_of_particles(
    value, said, star, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images = open_mrc(tmp_path / "in" / "a.mrcs").images.copy()
    images[2] = value
    save_mrc(tmp_path / "in" / "a.mrcs", images, 1.5)
    copied(star, "out.star", normalise="auto")
    found = copies(tmp_path)["a.mrcs"]
    np.testing.assert_array_equal(found[2], images[2])
    np.testing.assert_allclose(found[[0, 1, 3]], normalised(images[[0, 1, 3]], 6), atol=5e-6)
    images[3] = value
    save_mrc(tmp_path / "in" / "a.mrcs", images, 1.5)
    with pytest.raises(CryobridgeError, match=f"row 2: image 4 {said}") as caught:
        copied(star, "again.star", normalise="auto", overwrite=True)
    assert caught.value.path == str(tmp_path / "in" / "a.mrcs")
    np.testing.assert_array_equal(copies(tmp_path)["a.mrcs"], found)
    assert not (tmp_path / "again.star").exists()


def test_a_copy_with_other_pixels_is_never_taken_for_one_that_is_there(star, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied(star, "out.star")
    plain = copies(tmp_path)
    with pytest.raises(OutputExistsError):
        copied(star, "normalised.star", normalise="auto")
    copied(star, "normalised.star", normalise="auto", overwrite=True)
    found = copies(tmp_path)
    assert not np.allclose(found["a.mrcs"], plain["a.mrcs"])
    copied(star, "normalised.star", normalise="auto", overwrite=True)
    for name, images in copies(tmp_path).items():
        np.testing.assert_array_equal(images, found[name])
    with pytest.raises(UsageError, match="the stack itself is there"):
        convert(star, "x.star", link_stacks=tmp_path, copy=True, normalise="auto", overwrite=True)


def test_what_can_not_be_is_said_before_anything_is_written(star, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="a circle with a radius of 9 px does not fit into images of 16 px"):
        copied(star, "out.star", normalise=9)
    with pytest.raises(UsageError, match="normalise= would do nothing here: it is for copies") as caught:
        convert(star, "out.star", normalise="auto")
    assert "link_stacks=DIR copy=True" in caught.value.hint.replace("'", "")
    with pytest.raises(UsageError, match="ramp=False would do nothing"):
        copied(star, "out.star", ramp=False)
    assert not (tmp_path / "copies").exists()


def test_the_command_recommends_and_reports_it(star, tmp_path):
    plain = run("convert", star, "-o", "out.star", cwd=tmp_path)
    advice = "--link-stacks DIR --copy --normalise auto writes copies that are"
    assert advice in " ".join(plain.stderr.split())
    words = ("convert", star, "-o", "out.star", "--overwrite", "--link-stacks", "copies", "--copy")
    done = run(*words, "--normalise", "auto", "--invert", cwd=tmp_path)
    assert done.returncode == 0
    assert "not normalised" not in done.stderr
    assert "normalised     outside of 6, 7 px, less a plane" in done.stdout + done.stderr
    told = json.loads(run(*words, "--normalise", "6", "--json", cwd=tmp_path).stdout)
    assert (told["background_radius_px"], told["ramp"], told["inverted"]) == ([6], True, 0)
    assert not any(warning["code"] == "not-normalised" for warning in told["warnings"])


def test_filaments_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_mrc(tmp_path / "a.mrcs", noise_images(3, 16), 1.5)
    columns = {"rlnImageName": [f"{n}@a.mrcs" for n in (1, 2, 3)], "rlnMicrographName": ["m.mrc"] * 3}
    columns |= {"rlnCoordinateX": [9, 19, 29], "rlnCoordinateY": [5] * 3, "rlnOpticsGroup": [1] * 3}
    optics = save_star(tmp_path / "optics.star", "optics", {name: values[:1] for name, values in OPTICS.items()})
    for tubes, said in ([1, 1, 2], "particles are of"), ([0, 0, 1], "1 of 3 particles are of"):
        rows = save_star(tmp_path / "rows.star", "particles", {**columns, "rlnHelicalTubeID": tubes})
        star = tmp_path / "tubes.star"
        star.write_text(optics.read_text() + rows.read_text())
        for report in (
            copied(star, "out.star", normalise="auto", overwrite=True),
            downsample(star, tmp_path / "small", box_px=8, normalise="auto", overwrite=True),
        ):
            (message,) = (item for item in report.warnings if item.code == "norm-of-filaments")
            assert str(message).startswith(f"{said} filaments")
        plain = copied(star, "out.star", overwrite=True)
        assert "norm-of-filaments" not in {message.code for message in plain.warnings}
