"""Fourier shell correlation of two volumes."""

from __future__ import annotations

import torch
from torch import Tensor

from cryobridge.errors import UsageError


def fourier_shell_correlation(volume_1: Tensor, volume_2: Tensor, mask: Tensor | None = None) -> Tensor:
    """Correlate two volumes shell by shell in Fourier space.

    FSC(s) = Σ Re(F1 conj F2) / sqrt(Σ |F1|² Σ |F2|²) over the Fourier pixels whose distance from the origin
    rounds to s (van Heel and Schatz, 2005).

    Parameters
    ----------
    volume_1, volume_2
        (n, n, n), real, of one size.
    mask
        (n, n, n), real: both volumes are multiplied by it first. What the mask itself adds to the correlation is
        not taken off again.

    Returns
    -------
    Tensor
        (n // 2 + 1,) from shell 0 to Nyquist; 0 where a shell holds no signal.

    Raises
    ------
    UsageError
        If the volumes, or the mask, are not cubes of one size.
    """
    shapes = dict.fromkeys(tuple(volume.shape) for volume in (volume_1, volume_2, mask) if volume is not None)
    if len(shapes) != 1 or len(set(volume_1.shape)) != 1 or volume_1.ndim != 3:
        named = " and ".join(str(shape) for shape in shapes)
        raise UsageError(f"{named} {'is no cube' if len(shapes) == 1 else 'are not cubes of one size'}")
    n = volume_1.shape[0]
    # rfftn leaves out the half that Hermitian symmetry gives; its planes inside count twice.
    spectrum_1, spectrum_2 = (
        torch.fft.rfftn(volume.double() if mask is None else volume.double() * mask) for volume in (volume_1, volume_2)
    )
    whole, half = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    twice = torch.full_like(half, 2.0, dtype=torch.float64)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    weight = twice.expand(n, -1).reshape(-1)
    in_plane = whole[:, None] ** 2 + half[None, :] ** 2
    # The corners beyond Nyquist are added up too, and left out of the result.
    sums = torch.zeros(3, n + 1, dtype=torch.float64)
    # Plane by plane, so that besides the two spectra no array of their size is needed.
    for plane_1, plane_2, frequency in zip(spectrum_1, spectrum_2, whole, strict=True):
        shell = torch.round(torch.sqrt(in_plane + frequency**2)).long().reshape(-1)
        values = torch.stack(((plane_1 * plane_2.conj()).real, plane_1.abs() ** 2, plane_2.abs() ** 2))
        sums.index_add_(1, shell, values.reshape(3, -1) * weight)
    cross, power_1, power_2 = sums[:, : n // 2 + 1]
    norm = power_1.sqrt() * power_2.sqrt()
    return torch.where(norm > 0, cross / torch.where(norm > 0, norm, 1.0), 0.0)


def resolution_A(fsc: Tensor, threshold: float, box_px: int, pixel_size_A: float) -> float | None:
    """Return the resolution at which an FSC curve first falls below a threshold, in Å.

    Between shells the curve is taken as straight.

    Returns
    -------
    float or None
        None if the curve stays above the threshold: the maps agree to Nyquist.
    """
    below = torch.nonzero(fsc[1:] < threshold).flatten()
    if len(below) == 0:
        return None
    shell = int(below[0]) + 1
    previous, current = float(fsc[shell - 1]), float(fsc[shell])
    fraction = (previous - threshold) / (previous - current) if shell > 1 and previous > current else 0.0
    return box_px * pixel_size_A / (shell - 1 + fraction if shell > 1 else shell)
