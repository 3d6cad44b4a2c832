"""Binning and normalising of image stacks and of their polar transforms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from cryobridge.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from cryobridge.fourier.grid import PolarGrid
    from cryobridge.fourier.polar import PolarTransform


def bin_images(images: Tensor, factor: int, how: Literal["mean", "max"] = "mean") -> Tensor:
    """Replace each block of pixels by its mean or its largest value; the pixel size grows by ``factor``.

    Parameters
    ----------
    images
        (n, n0, n1), real.
    factor
        Edge of a block in pixels, even.
    how
        "mean" or "max".

    Returns
    -------
    Tensor
        (n, n0 / factor, n1 / factor), of the images' type, at least single precision.

    Raises
    ------
    UsageError
        If the factor is odd or not positive, or does not divide the box.
    """
    if factor < 2 or factor % 2:
        raise UsageError(f"the binning factor {factor} is not a positive even number", field="factor")
    n0, n1 = images.shape[-2:]
    if n0 % factor or n1 % factor:
        divisors = [even for even in range(2, math.gcd(n0, n1) + 1, 2) if math.gcd(n0, n1) % even == 0]
        hint = f"it can be binned by {', '.join(map(str, divisors))}" if divisors else "crop or pad it first"
        raise UsageError(
            f"a box of {n0} x {n1} pixels is not a whole number of blocks of {factor}",
            field="factor",
            hint=hint,
        )
    if how not in ("mean", "max"):
        raise UsageError(f"{how!r} is not a way of binning", field="how", hint="use 'mean' or 'max'")
    reduce = torch.mean if how == "mean" else torch.amax
    blocks = images.to(_at_least_single(images.dtype)).reshape(-1, n0 // factor, factor, n1)
    # One axis after the other is several times as fast as both at once.
    return reduce(reduce(blocks, 2).view(-1, n0 // factor, n1 // factor, factor), 3)


def normalise_images(images: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Subtract each image's mean and divide it by its largest absolute value.

    Parameters
    ----------
    images
        (n, n0, n1), real.
    out
        Where to write.

    Returns
    -------
    tuple of Tensor
        The images (n, n0, n1), at least single precision, and a mask (n,), true where an image is
        constant or not finite. Such an image has no normal form and comes back as zeros.
    """
    images = images.to(_at_least_single(images.dtype))
    lowest, highest = images.amin((1, 2)), images.amax((1, 2))
    mean = images.mean((1, 2))
    # Rounding is monotonic, so this is exactly the largest absolute value of the difference.
    scale = torch.maximum(highest - mean, mean - lowest)
    # The range distinguishes a constant image from what rounding leaves of it; infinities, NaN and a mean that
    # overflows all reach the scale.
    unusable = (lowest == highest) | ~torch.isfinite(scale) | (scale == 0)
    centred = torch.sub(images, mean[:, None, None], out=out)
    centred /= torch.where(unusable, 1.0, scale)[:, None, None]
    return _zeroed(centred, unusable), unusable


def normalise_fourier(polar: Tensor, grid: PolarGrid, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Divide each transform by its L2 norm on the grid, sqrt(Σ |F|² · point weight · (2π)²).

    Parameters
    ----------
    polar
        (n, n_shells, n_inplanes), complex.
    grid
        The grid that it was made on.
    out
        Where to write; ``polar`` itself saves the memory of a copy.

    Returns
    -------
    tuple of Tensor
        The transforms (n, n_shells, n_inplanes) and a mask (n,), true where the norm is zero or not
        finite. Such a transform comes back as zeros.

    Raises
    ------
    UsageError
        If the shape is not the grid's.
    """
    if tuple(polar.shape[1:]) != (grid.n_shells, grid.n_inplanes):
        raise UsageError(f"shape {tuple(polar.shape)} is not (n, {grid.n_shells}, {grid.n_inplanes})", field="polar")
    weights = torch.from_numpy(grid.shell_weights * (2 * math.pi) ** 2)
    power = power_spectrum(polar)
    # A product with the vector would round by how many transforms there are.
    norm = torch.sqrt((power * weights.to(power.dtype).to(power.device)).sum(1))
    unusable = ~(torch.isfinite(norm) & torch.isfinite(1 / norm))
    normalised = torch.mul(polar, torch.where(unusable, 0.0, 1 / norm)[:, None, None], out=out)
    return _zeroed(normalised, unusable), unusable


def normalised_transforms(
    images: Tensor, transform: PolarTransform, *, out: Tensor | None = None, polar_out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise images, transform them, and normalise the transforms: the samples of Fourier stacks.

    Parameters
    ----------
    images
        (n, n0, n1), real, on the transform's device.
    transform
        The transform of images of this size.
    out, polar_out
        Where to write the images and the transforms.

    Returns
    -------
    tuple of Tensor
        The normalised images (n, n0, n1), their transforms (n, n_shells, n_inplanes), and a mask (n,), true where an
        image has no normal form (see `normalise_images` and `normalise_fourier`).
    """
    normalised, no_signal = normalise_images(images, out=out)
    polar = transform.forward(normalised, out=polar_out)
    polar, no_norm = normalise_fourier(polar, transform.grid, out=polar)
    return normalised, polar, no_signal | no_norm


def power_spectrum(polar: Tensor) -> Tensor:
    """Mean of |F|² over the angles of each shell: (n, n_shells, n_inplanes) -> (n, n_shells), real."""
    # As pairs of real numbers: the complex norm is sixty times as slow.
    norm: Tensor = torch.linalg.vector_norm(torch.view_as_real(polar).flatten(2), dim=2)
    return norm.square() / polar.shape[2]


def _zeroed(values: Tensor, which: Tensor) -> Tensor:
    """Set some of (n, …) to zero; torch goes through all of them even if there are none, and a GPU is not asked."""
    if which.device.type != "cpu" or which.any():
        values[which] = 0
    return values


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
