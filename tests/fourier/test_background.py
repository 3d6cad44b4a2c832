"""RELION's norm of the background; `tests/relion/test_normalising.py` holds the values to RELION's own program."""

import numpy as np
import pytest
import torch

from cryobridge.errors import UsageError
from cryobridge.fourier.background import BackgroundNorm
from cryobridge.fourier.downsample import Downsampler
from cryobridge.model.background import default_radius_px, outside_circle


def images_of(n, box, level=0.0, slope=0.0, seed=0):
    y, x = np.mgrid[:box, :box]
    noise = np.random.default_rng(seed).normal(level, 2, (n, box, box))
    return (noise + slope * (x - 2 * y) / box).astype("f4")


def expected(images, radius, *, ramp):
    """Return the norm in double precision, by a least squares fit to the coordinates."""
    made = []
    for image in images.astype("f8"):
        y, x = np.indices(image.shape) - np.array(image.shape)[:, None, None] // 2
        outside = np.hypot(x, y) > radius
        columns = [np.ones(image.shape), x, y] if ramp else [np.ones(image.shape)]
        fit = np.linalg.lstsq(np.stack([column[outside] for column in columns], 1), image[outside], rcond=None)[0]
        flat = image - sum(factor * column for factor, column in zip(fit, columns, strict=True))
        made.append(flat / np.sqrt((flat[outside] ** 2).mean()))
    return np.array(made)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("ramp", [True, False])
@pytest.mark.parametrize(
    ("box", "radius", "level", "slope"), [(32, 12, 0, 0), (33, 12, -3, 5), (48, 24, 900, 300), (16, 0, 5, 1)]
)
def test_the_background_becomes_flat_with_mean_0_and_deviation_1(device, ramp, box, radius, level, slope):
    images = images_of(3, box, level, slope)
    before = images.copy()
    found = BackgroundNorm((box, box), radius, ramp=ramp, device=device)(torch.tensor(images) if device else images)
    found = np.asarray(found)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(images, before)
    # As far as the images themselves are known in single precision.
    atol = 1e-6 + 3e-7 * (abs(level) + slope)
    np.testing.assert_allclose(found, expected(images, radius, ramp=ramp), rtol=1e-6, atol=atol)


def test_the_circle_is_relions():
    assert [default_radius_px(box) for box in (100, 48, 64, 2)] == [37, 18, 24, 0]
    outside = outside_circle((4, 5), 2)
    assert outside.astype(int).tolist() == [[1, 1, 0, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]]


def test_a_circle_that_does_not_fit_is_refused():
    BackgroundNorm((16, 16), 8)
    for radius in (9, -1):
        with pytest.raises(UsageError, match=f"a radius of {radius} px does not fit into images of 16 px"):
            BackgroundNorm((16, 16), radius)


@pytest.mark.parametrize("ramp", [True, False])
def test_images_without_a_norm_are_nan_and_leave_the_others_alone(ramp):
    images = images_of(7, 24, 3)
    norm = BackgroundNorm((24, 24), 9, ramp=ramp)
    whole = norm(images)
    images[0] = 7.1
    images[1, 12, 12], images[2, 0, 0], images[3, 5, 5] = np.nan, np.inf, -np.inf
    images[4, outside_circle((24, 24), 9)] = 1e5
    images[5] *= 1e25
    found = norm(images)
    assert np.isnan(found[:6]).all()
    np.testing.assert_array_equal(found[6], whole[6])


@pytest.mark.parametrize(("old", "new"), [(32, 32), (48, 32), (33, 24)])
def test_an_image_becomes_the_same_whatever_comes_with_it(old, new):
    shrink = Downsampler(old, new, background_radius_px=9)
    images = images_of(9, old, 4, 3)
    together = shrink(images)
    np.testing.assert_array_equal(together[:2], shrink(images[:2]))
    np.testing.assert_array_equal(together, np.concatenate([shrink(image[None]) for image in images]))
    np.testing.assert_allclose(together, expected(Downsampler(old, new)(images), 9, ramp=True), atol=3e-6)
    np.testing.assert_allclose(together, Downsampler(old, new, "cpu:0", background_radius_px=9)(images), atol=3e-6)
