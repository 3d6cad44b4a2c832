"""What RELION refuses in the images themselves."""

import mrcfile
import numpy as np
import pytest

import cryobridge as cb
from cryobridge.errors import CryobridgeError
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
    assert is_taken or "4 of 4 sampled images" in str(found[0])
    assert not_normalised([]) == []


def save(path, images):
    with mrcfile.new(path, images, overwrite=True) as file:
        file.set_image_stack()
        file.voxel_size = 1.5


def star_of(folder):
    columns = {"rlnImageName": [f"{row + 1:06d}@a.mrcs" for row in range(N)], "rlnOpticsGroup": [1] * N}
    optics = "_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnImagePixelSize\n"
    rows = save_star(folder / "rows.star", "particles", columns).read_text()
    text = f"data_optics\n\nloop_\n{optics}_rlnImageSize\n1 300 2.7 0.1 1.5 {BOX}\n\n{rows}"
    (folder / "a.star").write_text(text)
    return folder / "a.star"


IMAGES = noise_images(N, BOX)
SPOILED = np.where(np.arange(N)[:, None, None] == 2, np.nan, IMAGES)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (IMAGES[:, 1:], "a.mrcs: images of 32 × 31 px, and RELION takes square ones"),
        (IMAGES[:, 1:, 1:], "a.mrcs: images of 31 px, and rlnImageSize is 32"),
        (IMAGES[:4], "a.mrcs has 4 images, and image 6 is referred to"),
        (SPOILED, "1 of 6 images that were looked at holds NaN or infinity: 3@a.mrcs"),
    ],
)
@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_images_that_relion_stops_at_or_reads_wrongly_are_not_ready(images, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.mrcs", images.astype("f4"))
    star = star_of(tmp_path)
    with pytest.raises(CryobridgeError, match="not ready for relion") as caught:
        cb.inspect(star, check=["relion"])
    assert caught.value.exit_code == 3 and reason in str(caught.value)
    assert reason in [str(message) for message in cb.convert(star, "b.star").warnings]
    # What no program can use is looked for in any case, what only RELION refuses when that is asked for.
    is_damage = "referred to" in reason or "NaN" in reason
    assert cb.inspect(star).is_ready("relion") != is_damage


def test_an_odd_box_is_refused_without_optics_groups_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.mrcs", IMAGES[:, 1:, 1:].astype("f4"))
    star = star_of(tmp_path)
    star.write_text(star.read_text().replace(f"1.5 {BOX}", f"1.5 {BOX - 1}"))
    for release, is_ready in (("3.0", False), ("3.1", True)):
        report = cb.convert(star, f"{release}.star", relion=release)
        (text,) = [str(message) for message in report.warnings if message.code == "odd-box"]
        assert text.endswith("refuses in the layout of 3.0") != is_ready
        if is_ready:
            assert cb.inspect(f"{release}.star", check=["relion"]).is_ready("relion")
        else:
            with pytest.raises(CryobridgeError, match="without optics groups RELION takes even boxes only"):
                cb.inspect(f"{release}.star", check=["relion"])


def test_sound_images_are_ready(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.mrcs", IMAGES.astype("f4"))
    assert cb.inspect(star_of(tmp_path), check=["relion"]).warnings == ()
    (tmp_path / "a.mrcs").unlink()
    assert cb.inspect(star_of(tmp_path), check=["relion"]).is_ready("relion")


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


@pytest.mark.filterwarnings("error")
def test_an_image_of_one_pixel_has_no_background_and_gives_no_warning():
    assert np.isnan(background(np.zeros((1, 1), "f4"))).all()
