"""What RELION refuses in the images themselves."""

import mrcfile
import numpy as np
import pytest

import cryobridge as cb
from cryobridge.formats.relion.accepted_images import background, not_normalised
from helpers import noise_images, save_star

N, BOX = 6, 32


def test_the_background_is_what_lies_outside_of_a_circle_of_three_quarters_of_the_box():
    image = noise_images(1, 64)[0]
    y, x = np.mgrid[:64, :64] - 32
    image[x**2 + y**2 <= 24**2] += 100
    mean, std = background(image)
    assert abs(mean) < 0.1 and 0.9 < std < 1.1
    assert background(np.full((64, 64), 3.0)) == (3.0, 0.0)


@pytest.mark.parametrize(
    ("factor", "offset", "is_taken"),
    [(1, 0, True), (0.6, 0.2, True), (1.9, 0, True), (0.4, 0, False), (2.1, 0, False), (1, 0.7, False), (0, 0, False)],
)
def test_images_within_relions_limits_are_taken(factor, offset, is_taken):
    images = factor * noise_images(4, 64) + offset
    found = not_normalised(list(images))
    assert [message.code for message in found] == ([] if is_taken else ["not-normalised"])
    assert is_taken or "4 of 4 images" in str(found[0])
    assert not_normalised([]) == []


def save(path, images):
    with mrcfile.new(path, images, overwrite=True) as file:
        file.set_image_stack()
        file.voxel_size = 1.5


def codes(report):
    return {message.code for message in report.warnings}


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("factor", [1, 30])
def test_convert_downsample_and_inspect_say_what_relion_minds_in_the_images(dtype, factor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.mrcs", (factor * noise_images(N, BOX)).astype(dtype))
    columns = {
        "rlnImageName": [f"{row + 1:06d}@a.mrcs" for row in range(N)],
        "rlnVoltage": [300] * N,
        "rlnSphericalAberration": [2.7] * N,
        "rlnAmplitudeContrast": [0.1] * N,
        "rlnImagePixelSize": [1.5] * N,
    }
    star = save_star(tmp_path / "a.star", "", columns)
    expected = ({"float16-stacks"} if dtype == "f2" else set()) | ({"not-normalised"} if factor > 1 else set())
    both = {"float16-stacks", "not-normalised"}
    assert codes(cb.convert(star, "b.star")) & both == expected
    for release in ("4", "5"):
        report = cb.convert(star, f"c{release}.star", relion=release)
        assert codes(report) & both == expected - {"float16-stacks"}
    assert codes(cb.convert(star, "d.cs", contrast="bright")) & both == set()
    found = cb.inspect("b.star", check=["relion"])  # what later releases take is no reason to stop
    assert {message.code for message in found.warnings} & both == expected
    assert {message.code for message in cb.inspect("b.star").warnings} & both == set()
