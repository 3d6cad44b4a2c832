"""Downsampling stacks of images by cropping their Fourier transforms, as RECOVAR does.

The mean is kept. Of an even box pixel 0 stays where it is, and with it the centre; of an odd box the centre, pixel
``n // 2``, becomes pixel ``m // 2``. The new Nyquist frequency has two halves in the larger box, at +m/2 and -m/2;
the images get the mean of the two, which is what the real part of RECOVAR's inverse transform amounts to
(`recovar/data_io/downsample.py` of 1.0.5). `cryobridge.fourier.crop` adds the halves instead, so that it undoes
padding; below Nyquist there is no difference.

On the CPU it works without torch, whose import alone takes longer than a thousand small images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import UsageError
from cryobridge.fourier.background import BackgroundNorm

_CPU = "cpu"


class Downsampler:
    """Makes square images smaller; may be called from several threads.

    Parameters
    ----------
    size
        Edge of the images in pixels, n.
    new_size
        Edge of the new ones, m: even, not larger.
    device
        ``"cpu"``, or what `cryobridge.fourier.devices.pick_device` takes.
    background_radius_px
        The new images get RELION's norm of the background outside of this radius
        (`cryobridge.fourier.background.BackgroundNorm`); None for no norm.
    ramp
        Of the norm: whether a plane is subtracted, or the mean alone.

    Raises
    ------
    UsageError
        If the new size is odd or larger, the circle does not fit into it, or there is no such device.
    """

    def __init__(
        self,
        size: int,
        new_size: int,
        device: str = _CPU,
        *,
        background_radius_px: int | None = None,
        ramp: bool = True,
    ) -> None:
        if new_size < 2 or new_size % 2 or new_size > size:
            raise UsageError(f"images of {size} px can't be downsampled to {new_size}", field="new_size")
        self.size, self.new_size = size, new_size
        half = new_size // 2
        self._rows: Any = np.r_[:half, size - half : size]
        self._mirror: Any = -np.arange(size) % size
        self._phases: Any = _half_pixel_back(size, half) if size % 2 else None
        self._device: Any = None
        if device == _CPU:
            import scipy.fft

            self._fft: Any = scipy.fft
        else:
            self._move_to(device)
        self._norm: BackgroundNorm | None = None
        if background_radius_px is not None:
            shape = (new_size, new_size)
            self._norm = BackgroundNorm(shape, background_radius_px, ramp=ramp, device=self._device)

    def _move_to(self, device: str) -> None:
        import torch

        from cryobridge.fourier.devices import pick_device

        self._fft, self._device = torch.fft, pick_device(device)
        self._rows, self._mirror = (torch.from_numpy(part).to(self._device) for part in (self._rows, self._mirror))
        if self._phases is not None:
            self._phases = torch.from_numpy(self._phases).to(self._device)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images (n, m, m) for images (n, N, N), float32; NaN for those that can't have a norm."""
        if self.new_size == self.size and self._norm is None:
            return images
        if self._device is None:
            with np.errstate(invalid="ignore", over="ignore"):  # infinity is the caller's to notice
                return np.asarray(self._made(images))
        import torch

        made: NDArray[np.float32] = self._made(torch.from_numpy(images).to(self._device)).cpu().numpy()
        return made

    def _made(self, images: Any) -> Any:
        if self.new_size != self.size:
            images = self._shrink(images)
        return images if self._norm is None else self._norm(images)

    def _shrink(self, images: Any) -> Any:
        """Work on arrays and tensors alike: the two Fourier modules take the same arguments in the same places."""
        fft, half = self._fft, self.new_size // 2
        spectrum = fft.fft(fft.rfft(images, None, -1)[..., : half + 1], None, -2)
        if self._phases is not None:
            spectrum *= self._phases
        cropped = spectrum[:, self._rows]
        cropped[:, half] = (cropped[:, half] + spectrum[:, half]) / 2
        nyquist = spectrum[..., half]
        # The term at (k, -m/2) is the conjugate of the one at (-k, m/2).
        nyquist = (nyquist + nyquist[:, self._mirror].conj()) / 2
        cropped[..., half] = nyquist[:, self._rows]
        cropped[:, half, half] = spectrum[:, half, half].real
        shrunk = fft.irfft(fft.ifft(cropped, None, -2), self.new_size, -1)
        shrunk *= (self.new_size / self.size) ** 2
        return shrunk


def _half_pixel_back(size: int, half: int) -> NDArray[np.complex64]:
    """Return the phases (size, half + 1) that move an image by half a pixel along both axes.

    The centre of an odd box lies half a pixel before the point at half of its edge, that of an even box at it.
    """
    row, column = np.fft.fftfreq(size) * size, np.arange(half + 1)
    phases: NDArray[np.complex64] = np.exp(-1j * np.pi * (row[:, None] + column) / size).astype(np.complex64)
    return phases
