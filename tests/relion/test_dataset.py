"""What items of a dataset say of a particle, against the images that RELION projects."""

import mrcfile
import numpy as np
import pytest
import torch
from interop.relion import OpticsGroup, Relion, write_star, write_volume
from torch.utils.data import DataLoader

import cryobridge as cb

pytestmark = pytest.mark.relion
N, PIXEL_A, WIDTH_PX, COUNT = 64, 1.5, 1.6, 6
# Balls of an odd shape, in pixels from the centre: x, y, z.
BALLS = np.array([[0, 0, 0], [9, 0, 0], [0, 14, 0], [0, 5, -17], [6, -7, 4], [-12, -3, 8]], float)


def projected(rotation, shift_A, pixel_size_A, scale=1.0):
    """The balls as an image, by what an item says: at A x - shift, from pixel box // 2, x along columns."""
    x, y, _ = rotation @ BALLS.T * scale - np.append(shift_A / pixel_size_A, 0)[:, None]
    size = int(N * scale)
    rows, columns = np.ogrid[:size, :size]
    width = WIDTH_PX * scale
    parts = [
        np.exp(-((columns - size // 2 - x) ** 2 + (rows - size // 2 - y) ** 2) / (2 * width**2))
        for x, y in zip(x, y, strict=True)
    ]
    return np.sum(parts, axis=0)


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    folder = tmp_path_factory.mktemp("relion")
    z, y, x = np.ogrid[:N, :N, :N]
    density = sum(
        np.exp(-((x - N // 2 - a) ** 2 + (y - N // 2 - b) ** 2 + (z - N // 2 - c) ** 2) / (2 * WIDTH_PX**2))
        for a, b, c in BALLS
    )
    write_volume(folder / "map.mrc", density, PIXEL_A)
    rng = np.random.default_rng(0)
    optics = OpticsGroup(N, PIXEL_A).row(1)
    particles = {
        "rlnImageName": [f"{row + 1:06d}@with.mrcs" for row in range(COUNT)],
        "rlnAngleRot": rng.uniform(-180, 180, COUNT),
        "rlnAngleTilt": rng.uniform(0, 180, COUNT),
        "rlnAnglePsi": rng.uniform(-180, 180, COUNT),
        "rlnOriginXAngst": rng.uniform(-6, 6, COUNT),
        "rlnOriginYAngst": rng.uniform(-6, 6, COUNT),
        "rlnDefocusU": rng.uniform(9000, 14000, COUNT),
        "rlnDefocusV": rng.uniform(9000, 14000, COUNT),
        "rlnDefocusAngle": rng.uniform(-90, 90, COUNT),
        "rlnPhaseShift": rng.uniform(0, 60, COUNT),
        "rlnOpticsGroup": 1,
    }
    tables = {"optics": {name: [value] for name, value in optics.items()}, "particles": particles}
    write_star(folder / "p.star", tables)
    words = ("--i", "map.mrc", "--ang", "p.star", "--angpix", PIXEL_A)
    Relion(folder).run("relion_project", *words, "--o", "with", "--ctf")
    write_star(folder / "p.star", tables)
    return folder / "p.star"


def correlation(image, other):
    return np.corrcoef(np.ravel(image), np.ravel(other))[0, 1]


@pytest.mark.parametrize("box", [N, N // 2])
def test_rotation_shift_and_ctf_make_relions_image(star, box):
    dataset = cb.ParticleDataset(star, ctf="image", box_px=box)
    batch = next(iter(DataLoader(dataset, batch_size=COUNT, collate_fn=cb.collate)))
    wrong = []
    for row in range(COUNT):
        item = {name: values[row].numpy().astype(float) for name, values in batch.items()}
        rotation, shift_A, scale = item["rotation"], item["shift_A"], box / N
        image = projected(rotation, shift_A, item["pixel_size_A"], scale)
        made = np.fft.irfft2(np.fft.rfft2(image) * item["ctf"])
        assert correlation(made, item["image"]) > 0.998
        others = [(rotation.T, shift_A), (rotation, -shift_A), (rotation, shift_A[::-1])]
        wrong.append([correlation(projected(*other, item["pixel_size_A"], scale), image) for other in others])
    assert (np.median(wrong, axis=0) < 0.8).all()
    assert torch.allclose(batch["pixel_size_A"], torch.tensor(PIXEL_A * N / box))


def test_images_are_those_of_the_stack(star):
    images = mrcfile.read(star.with_name("with.mrcs"))
    dataset = cb.ParticleDataset(star, rows=[4, 1])
    np.testing.assert_array_equal(dataset.batch([0, 1])["image"], images[[4, 1]])
