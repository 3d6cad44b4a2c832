"""Changing the pixel size of images by cropping or padding their Fourier transforms.

The mean of an image and its centre, pixel ``n // 2`` of each axis, stay where they are. An image is taken
for samples of its trigonometric interpolant, in which the Nyquist frequency of an even box has two
halves, at +n/2 and -n/2. Padding therefore gives half of that term to each, and cropping to an even box
adds the terms at +m/2 and -m/2, which fall on one another when the interpolant is sampled anew. So
cropping undoes padding exactly, for even and odd boxes alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryobridge.errors import UsageError

_Size = tuple[int, int]
_PixelSize = tuple[float, float]


def crop_images(images: Tensor, new_size: _Size, pixel_size_A: float | _PixelSize) -> tuple[Tensor, _PixelSize]:
    """Sample images more coarsely, keeping what lies below the new Nyquist frequency.

    Parameters
    ----------
    images
        (…, n0, n1), real.
    new_size
        (m0, m1), not larger than (n0, n1).
    pixel_size_A
        Pixel size in Å, one number or one for each axis.

    Returns
    -------
    tuple
        Images (…, m0, m1), at least single precision, and the pixel size achieved in Å, (axis 0, axis 1).

    Raises
    ------
    UsageError
        If an axis would grow, or a size or pixel size is not positive.
    """
    spectrum, size = _centred_rfft(images)
    cropped, achieved_A = crop_rfft(spectrum, size, new_size, pixel_size_A)
    return _centred_irfft(cropped, new_size), achieved_A


def pad_images(images: Tensor, new_size: _Size, pixel_size_A: float | _PixelSize) -> tuple[Tensor, _PixelSize]:
    """Sample images more finely, without adding detail; the opposite of `crop_images`.

    Parameters and what is returned are those of `crop_images`, but ``new_size`` is not smaller than (n0, n1).

    Raises
    ------
    UsageError
        If an axis would shrink, or a size or pixel size is not positive.
    """
    spectrum, size = _centred_rfft(images)
    padded, achieved_A = pad_rfft(spectrum, size, new_size, pixel_size_A)
    return _centred_irfft(padded, new_size), achieved_A


def crop_rfft(
    spectrum: Tensor, size: _Size, new_size: _Size, pixel_size_A: float | _PixelSize
) -> tuple[Tensor, _PixelSize]:
    """Crop half spectra.

    Parameters
    ----------
    spectrum
        (…, n0, n1 // 2 + 1), ``torch.fft.rfft2`` of images whose centre was moved to pixel 0 (``ifftshift``).
    size
        (n0, n1) of the images.
    new_size
        (m0, m1), not larger.
    pixel_size_A
        Pixel size in Å, one number or one for each axis.

    Returns
    -------
    tuple
        Half spectra (…, m0, m1 // 2 + 1) of images with the same mean, and the pixel size achieved in Å.

    Raises
    ------
    UsageError
        If an axis would grow, the spectrum is not of that size, or a size or pixel size is not positive.
    """
    achieved_A = _achieved_A(spectrum, size, new_size, pixel_size_A)
    if new_size[0] > size[0] or new_size[1] > size[1]:
        raise UsageError(_refusal("cropping", "enlarge", size, new_size), field="new_size", hint="pad instead")
    (n0, n1), (m0, m1) = size, new_size
    below = m0 // 2 + 1
    columns = spectrum[..., : m1 // 2 + 1]
    cropped = torch.cat((columns[..., :below, :], columns[..., n0 - (m0 - below) :, :]), dim=-2)
    if m0 % 2 == 0 and m0 < n0:
        cropped[..., m0 // 2, :] += columns[..., n0 - m0 // 2, :]
    if m1 % 2 == 0 and m1 < n1:
        # The term at -m1/2 is the conjugate of the one at +m1/2 in the opposite row.
        nyquist = cropped[..., m1 // 2]
        cropped[..., m1 // 2] = nyquist + torch.roll(nyquist.flip(-1), 1, dims=-1).conj()
    return cropped * (m0 * m1 / (n0 * n1)), achieved_A


def pad_rfft(
    spectrum: Tensor, size: _Size, new_size: _Size, pixel_size_A: float | _PixelSize
) -> tuple[Tensor, _PixelSize]:
    """Pad half spectra with zeros; the opposite of `crop_rfft`.

    Parameters and what is returned are those of `crop_rfft`, but ``new_size`` is not smaller than ``size``.

    Raises
    ------
    UsageError
        If an axis would shrink, the spectrum is not of that size, or a size or pixel size is not positive.
    """
    achieved_A = _achieved_A(spectrum, size, new_size, pixel_size_A)
    if new_size[0] < size[0] or new_size[1] < size[1]:
        raise UsageError(_refusal("padding", "shrink", size, new_size), field="new_size", hint="crop instead")
    (n0, n1), (m0, m1) = size, new_size
    below = n0 // 2 + 1
    padded = spectrum.new_zeros((*spectrum.shape[:-2], m0, m1 // 2 + 1))
    columns = padded[..., : n1 // 2 + 1]
    columns[..., :below, :] = spectrum[..., :below, :]
    columns[..., m0 - (n0 - below) :, :] = spectrum[..., below:, :]
    if n0 % 2 == 0 and m0 > n0:
        columns[..., n0 // 2, :] *= 0.5
        columns[..., m0 - n0 // 2, :] = columns[..., n0 // 2, :]
    if n1 % 2 == 0 and m1 > n1:
        columns[..., n1 // 2] *= 0.5
    return padded * (m0 * m1 / (n0 * n1)), achieved_A


def _centred_rfft(images: Tensor) -> tuple[Tensor, _Size]:
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    spectrum = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)))
    return spectrum, (images.shape[-2], images.shape[-1])


def _centred_irfft(spectrum: Tensor, size: _Size) -> Tensor:
    images: Tensor = torch.fft.fftshift(torch.fft.irfft2(spectrum, s=size), dim=(-2, -1))
    return images


def _achieved_A(spectrum: Tensor, size: _Size, new_size: _Size, pixel_size_A: float | _PixelSize) -> _PixelSize:
    if min(new_size) < 1:
        raise UsageError(f"a box of {new_size[0]} x {new_size[1]} pixels is empty", field="new_size")
    if tuple(spectrum.shape[-2:]) != (size[0], size[1] // 2 + 1):
        found = tuple(spectrum.shape[-2:])
        raise UsageError(f"{found} is no half spectrum of a {size[0]} x {size[1]} box", field="spectrum")
    given = pixel_size_A if isinstance(pixel_size_A, tuple) else (pixel_size_A, pixel_size_A)
    if min(given) <= 0:
        raise UsageError(f"{min(given)} Å is not a pixel size", field="pixel_size_A")
    return given[0] * size[0] / new_size[0], given[1] * size[1] / new_size[1]


def _refusal(way: str, effect: str, size: _Size, new_size: _Size) -> str:
    return f"{way} cannot {effect} a box: {size[0]} x {size[1]} to {new_size[0]} x {new_size[1]} pixels"
