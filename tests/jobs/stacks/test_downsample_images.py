from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import UsageError
from cryobridge.fourier.downsample import Downsampler
from helpers import noise_images


def cropped_directly(images, new):
    """The definition in float64: the whole transform, its middle cut out, the real part of what that transforms to."""
    old = images.shape[-1]
    spectrum = np.fft.fftshift(np.fft.fft2(images.astype(np.float64)), axes=(1, 2))
    first = old // 2 - new // 2
    middle = np.fft.ifftshift(spectrum[:, first : first + new, first : first + new], axes=(1, 2))
    if old % 2:
        k = np.fft.fftfreq(new) * new
        middle = middle * np.exp(-1j * np.pi * (k[:, None] + k) / old)
    return np.fft.ifft2(middle).real * (new / old) ** 2


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize(("old", "new"), [(32, 16), (32, 30), (48, 20), (33, 16), (17, 16), (10, 2), (27, 26)])
def test_images_are_those_of_the_cropped_transform(old, new, device):
    images = (noise_images(3, old) + 7).astype("f4")
    found = Downsampler(old, new, device)(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cropped_directly(images, new), atol=4e-6)


@settings(max_examples=40)
@given(old=st.integers(4, 40), new=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_the_mean_is_kept(old, new, seed):
    new = min(2 * new, old - old % 2)
    images = (noise_images(2, old, seed) * 3 - 50).astype("f4")
    found = Downsampler(old, new)(images)
    np.testing.assert_allclose(found.mean((1, 2)), images.mean((1, 2), dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("old", [64, 65])
def test_a_wave_below_nyquist_keeps_its_place_and_height(old):
    new = 32
    y, x = np.mgrid[:old, :old] - old // 2
    ny, nx = np.mgrid[:new, :new] - new // 2
    for ky, kx, phase in ((3, 0, 0.4), (0, 15, -1.0), (-7, 11, 2.0), (15, -15, 0.3)):
        wave = np.cos(2 * np.pi * (ky * y + kx * x) / old + phase).astype("f4")
        expected = np.cos(2 * np.pi * (ky * ny + kx * nx) / new + phase)
        np.testing.assert_allclose(Downsampler(old, new)(wave[None])[0], expected, atol=3e-6)


def test_a_wave_above_nyquist_vanishes_and_one_at_it_keeps_the_mean_of_its_two_halves():
    y, x = np.mgrid[:64, :64]
    above = np.cos(2 * np.pi * (17 * x + 2 * y) / 64).astype("f4")
    np.testing.assert_allclose(Downsampler(64, 32)(above[None]), 0, atol=1e-6)
    at = np.cos(2 * np.pi * 16 * x / 64).astype("f4")
    expected = np.tile([0.5, -0.5], (32, 16))
    np.testing.assert_allclose(Downsampler(64, 32)(at[None])[0], expected, atol=1e-6)


@pytest.mark.parametrize("old", [60, 61])
def test_a_particle_stays_at_the_centre(old):
    y, x = np.mgrid[:old, :old] - old // 2
    blob = np.exp(-(x**2 + y**2) / 2 / 5.0**2).astype("f4")
    found = Downsampler(old, 24)(blob[None])[0]
    ny, nx = (np.mgrid[:24, :24] - 12) * old / 24
    np.testing.assert_allclose(found, np.exp(-(nx**2 + ny**2) / 2 / 5.0**2), atol=1e-4)


def test_each_image_is_the_same_whatever_comes_with_it():
    images = noise_images(7, 30).astype("f4")
    shrink = Downsampler(30, 12)
    together = shrink(images)
    for size in (1, 2, 3):
        apart = np.concatenate([shrink(images[first : first + size]) for first in range(0, 7, size)])
        assert np.array_equal(together, apart)


def test_images_of_the_same_box_are_left_as_they_are():
    images = noise_images(2, 16).astype("f4")
    assert np.array_equal(Downsampler(16, 16)(images), images)


@pytest.mark.parametrize("new", [0, 15, 18])
def test_odd_and_larger_boxes_are_refused(new):
    with pytest.raises(UsageError, match="can't be downsampled"):
        Downsampler(16, new)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no device"):
        Downsampler(16, 8, "abacus")
