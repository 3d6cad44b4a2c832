"""Fourier shell correlation of two volumes."""

from __future__ import annotations

import torch
from torch import Tensor

from cryobridge.errors import UsageError


def fourier_shell_correlation(volume_1: Tensor, volume_2: Tensor) -> Tensor:
    """Correlate two volumes shell by shell in Fourier space.

    FSC(s) = Σ Re(F1 conj F2) / sqrt(Σ |F1|² Σ |F2|²) over the Fourier pixels whose distance from the origin
    rounds to s (van Heel and Schatz, 2005).

    Parameters
    ----------
    volume_1, volume_2
        (n, n, n), real, of one size.

    Returns
    -------
    Tensor
        (n // 2 + 1,) from shell 0 to Nyquist; 0 where a shell holds no signal.

    Raises
    ------
    UsageError
        If the volumes are not cubes of one size.
    """
    if volume_1.shape != volume_2.shape or len(set(volume_1.shape)) != 1 or volume_1.ndim != 3:
        raise UsageError(f"{tuple(volume_1.shape)} and {tuple(volume_2.shape)} are not cubes of one size")
    n = volume_1.shape[0]
    # rfftn leaves out the half that Hermitian symmetry gives; its planes inside count twice.
    spectrum_1, spectrum_2 = (torch.fft.rfftn(volume.double()) for volume in (volume_1, volume_2))
    whole, half = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    radius = torch.sqrt(whole[:, None, None] ** 2 + whole[None, :, None] ** 2 + half[None, None, :] ** 2)
    shell = torch.round(radius).long().reshape(-1)
    twice = torch.full_like(half, 2.0, dtype=torch.float64)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    weight = twice.expand(spectrum_1.shape).reshape(-1)

    def sum_shells(values: Tensor) -> Tensor:
        sums = torch.zeros(int(shell.max()) + 1, dtype=torch.float64)
        return sums.index_add_(0, shell, values.reshape(-1) * weight)[: n // 2 + 1]

    cross = sum_shells((spectrum_1 * spectrum_2.conj()).real)
    power = sum_shells(spectrum_1.abs() ** 2) * sum_shells(spectrum_2.abs() ** 2)
    return torch.where(power > 0, cross / power.clamp_min(1e-300).sqrt(), 0.0)


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
