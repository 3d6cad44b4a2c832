from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import UsageError
from cryobridge.fourier.crop import crop_images, crop_rfft, pad_images, pad_rfft


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def gaussian(size, pixel_size, centre=(2.3, -1.1), sigma=(3.0, 4.0)):
    """A Gaussian evaluated at the pixels, positions counted from pixel n // 2."""
    x = (np.arange(size[0]) - size[0] // 2) * pixel_size[0] - centre[0]
    y = (np.arange(size[1]) - size[1] // 2) * pixel_size[1] - centre[1]
    return torch.from_numpy(np.exp(-(x[:, None] ** 2) / 2 / sigma[0] ** 2 - y[None, :] ** 2 / 2 / sigma[1] ** 2))[None]


def interpolated(image, new_size):
    """The trigonometric interpolant of an image, summed term by term at the pixels of another box.

    A Nyquist term has two halves, at +n/2 and -n/2; terms above the new Nyquist frequency are left out.
    """
    n, m = image.shape, new_size
    waves = []
    for axis in (0, 1):
        pixels = np.arange(n[axis]) - n[axis] // 2
        places = (np.arange(m[axis]) - m[axis] // 2) * n[axis] / m[axis]
        highest = min(n[axis], m[axis]) // 2
        wave = np.zeros((m[axis], n[axis]), dtype=complex)
        for k in range(-highest, highest + 1):
            weight = 0.5 if 2 * abs(k) == n[axis] else 1.0
            wave += weight * np.exp(2j * np.pi * k * (places[:, None] - pixels) / n[axis]) / n[axis]
        waves.append(wave)
    return (waves[0] @ image @ waves[1].T).real


SIZES = st.tuples(st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=60)
@given(size=SIZES, new_size=SIZES, seed=st.integers(0, 2**32 - 1))
def test_changed_images_are_samples_of_the_interpolant(size, new_size, seed):
    larger = tuple(map(max, size, new_size))
    smaller = tuple(map(min, size, new_size))
    image = noise(*larger, seed=seed)
    cropped, _ = crop_images(image[None], smaller, 1.0)
    np.testing.assert_allclose(cropped[0], interpolated(image.numpy(), smaller), atol=1e-12)
    image = noise(*smaller, seed=seed)
    padded, _ = pad_images(image[None], larger, 1.0)
    np.testing.assert_allclose(padded[0], interpolated(image.numpy(), larger), atol=1e-12)


@settings(max_examples=60)
@given(size=SIZES, growth=st.tuples(st.integers(0, 5), st.integers(0, 5)), seed=st.integers(0, 2**32 - 1))
def test_cropping_undoes_padding_and_keeps_the_mean(size, growth, seed):
    images = noise(2, *size, seed=seed)
    larger = (size[0] + growth[0], size[1] + growth[1])
    padded, pixel_size_A = pad_images(images, larger, 1.5)
    back, again_A = crop_images(padded, size, pixel_size_A)
    torch.testing.assert_close(back, images)
    assert again_A == pytest.approx((1.5, 1.5))
    torch.testing.assert_close(padded.mean((1, 2)), images.mean((1, 2)))
    cropped, _ = crop_images(images, (max(1, size[0] - growth[0]), max(1, size[1] - growth[1])), 1.0)
    torch.testing.assert_close(cropped.mean((1, 2)), images.mean((1, 2)))


@pytest.mark.parametrize("new_size", [(32, 32), (33, 31), (40, 48)])
@pytest.mark.parametrize("size", [(48, 48), (49, 51)])
def test_a_particle_stays_where_it_is_at_the_pixel_size_achieved(size, new_size):
    found, achieved_A = crop_images(gaussian(size, (1.1, 1.2)), new_size, (1.1, 1.2))
    assert achieved_A == pytest.approx((1.1 * size[0] / new_size[0], 1.2 * size[1] / new_size[1]))
    torch.testing.assert_close(found, gaussian(new_size, achieved_A), atol=1e-5, rtol=0)
    back, _ = pad_images(found, size, achieved_A)
    torch.testing.assert_close(back, gaussian(size, (1.1, 1.2)), atol=1e-5, rtol=0)


def test_half_spectra_are_those_of_the_images_with_the_centre_at_pixel_0():
    images = noise(2, 12, 15)
    spectrum = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(1, 2)))
    for change, change_images, size in ((crop_rfft, crop_images, (8, 9)), (pad_rfft, pad_images, (13, 18))):
        found, achieved_A = change(spectrum, (12, 15), size, 2.0)
        expected, expected_A = change_images(images, size, 2.0)
        assert achieved_A == expected_A
        shifted = torch.fft.fftshift(torch.fft.irfft2(found, s=size), dim=(1, 2))
        torch.testing.assert_close(shifted, expected)
        torch.testing.assert_close(found, torch.fft.rfft2(torch.fft.ifftshift(expected, dim=(1, 2))))
    torch.testing.assert_close(spectrum, torch.fft.rfft2(torch.fft.ifftshift(images, dim=(1, 2))))


def test_single_and_half_precision_give_single():
    images = noise(2, 12, 12)
    expected, _ = crop_images(images, (8, 8), 1.0)
    for dtype in (torch.float32, torch.float16):
        found, _ = crop_images(images.to(dtype), (8, 8), 1.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=3e-3, rtol=0)


def test_cropping_does_not_enlarge_and_padding_does_not_shrink():
    images = noise(1, 12, 12)
    with pytest.raises(UsageError, match="cropping cannot enlarge a box: 12 x 12 to 8 x 14") as caught:
        crop_images(images, (8, 14), 1.0)
    assert caught.value.hint == "pad instead"
    with pytest.raises(UsageError, match="padding cannot shrink a box: 12 x 12 to 10 x 14") as caught:
        pad_images(images, (10, 14), 1.0)
    assert caught.value.hint == "crop instead"


def test_impossible_sizes_are_refused():
    images = noise(1, 12, 12)
    with pytest.raises(UsageError, match="empty"):
        crop_images(images, (0, 8), 1.0)
    with pytest.raises(UsageError, match="not a pixel size"):
        crop_images(images, (8, 8), (1.0, 0.0))
    with pytest.raises(UsageError, match="no half spectrum of a 12 x 12 box"):
        crop_rfft(torch.zeros(1, 12, 12, dtype=torch.complex64), (12, 12), (8, 8), 1.0)
