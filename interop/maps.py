"""Volumes: the simulated molecule on a grid, and how alike two maps are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cryobridge.fourier.fsc import fourier_shell_correlation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.demo.physics import Molecule


def volume_of(molecule: Molecule, box_px: int, voxel_size_A: float, x_sign: float = 1.0) -> NDArray[Any]:
    """Return a molecule as a volume (z, y, x); ``x_sign`` -1 is its mirror image."""
    at_A = (np.arange(box_px) - box_px // 2) * voxel_size_A
    centres = molecule.position_A * (x_sign, 1.0, 1.0)
    x, y, z = np.exp(-0.5 * ((at_A - centres.T[..., np.newaxis]) / molecule.sigma_A[:, np.newaxis]) ** 2)
    volume: NDArray[Any] = np.einsum("b,bz,by,bx->zyx", molecule.weight / molecule.sigma_A**3, z, y, x)
    return volume


def correlation(volume: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlate two volumes within the sphere that fits into the box."""
    n = len(volume)
    squares = (np.arange(n) - n // 2) ** 2
    inside = squares[:, None, None] + squares[:, None] + squares < (n // 2 - 1) ** 2
    return float(np.corrcoef(volume[inside], other[inside])[0, 1])


def cropped(volume: NDArray[Any], box_px: int) -> NDArray[Any]:
    """Return a volume of fewer and larger voxels, by its Fourier transform."""
    inner = slice((len(volume) - box_px) // 2, (len(volume) + box_px) // 2)
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume)))[inner, inner, inner]
    small: NDArray[Any] = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(spectrum))).real
    return small


def fsc(volume: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Return the Fourier shell correlation of two maps, (box // 2 + 1,) from shell 0 to Nyquist."""
    first, second = (torch.from_numpy(np.asarray(each, np.float64)) for each in (volume, other))
    return fourier_shell_correlation(first, second).numpy()


def lowest_fsc(volume: NDArray[Any], other: NDArray[Any], up_to: float = 0.85) -> float:
    """Return the lowest Fourier shell correlation of two maps, up to a fraction of Nyquist."""
    last = int(up_to * (len(volume) // 2))
    return float(fsc(volume, other)[: last + 1].min())
