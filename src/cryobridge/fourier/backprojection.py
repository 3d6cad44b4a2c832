"""A small direct Fourier reconstruction, for checks of poses, shifts and CTF and not for science.

By the projection theorem the transform of a projection is a plane through that of the map. With F the transform of an
image, C and χ its CTF and odd phase, s its shift and A its pose, each frequency k of the image, at the place
Aᵀ (kx, ky, 0) of the map, adds::

    Σ F exp(-2πi k·s) exp(-iχ) C / (Σ C² + ε)

by trilinear weights on a grid padded as that of the engine, ε being a hundredth of the mean of Σ C² over the shell. F
of images that are multiplied by their CTF holds C already. The map is divided by the transform of the trilinear weights
in the end. See Penczek 2010, doi:10.1016/S0076-6879(10)82001-4, for direct Fourier inversion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cryobridge.errors import MissingDataError
from cryobridge.fourier._gridding import padded_size
from cryobridge.fourier.ctf import frequencies, tensors
from cryobridge.model.contrast_transfer import Lens, lens_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats, ParticleSet

_DTYPE = torch.float32
_WIENER = 0.01
_EDGE = 1.001


@dataclass(frozen=True, eq=False)
class Views:
    """What metadata say of n images; arrays, or tensors.

    Parameters
    ----------
    axes
        (n, 2, 3) the directions of x and y of each image in the frame of the map: the first rows of A.
    shift_px
        (n, 2) x, y in pixels of the image; the content lies at minus the shift from the centre.
    to_true
        (n, 2, 2) the matrix that takes frequencies of the image to true ones, times 1 / pixel size: 1/Å for cycles a
        pixel.
    pixel_size_A
        (n,) of each.
    lens
        CTF and odd phase, of frequencies in cycles a pixel.
    is_premultiplied
        (n,) whether the image is multiplied by its CTF.
    """

    axes: Any
    shift_px: Any
    to_true: Any
    pixel_size_A: Any
    lens: Lens
    is_premultiplied: Any

    def take(self, rows: NDArray[np.int64]) -> Views:
        """Return that of the chosen images."""
        return Views(
            self.axes[rows],
            self.shift_px[rows],
            self.to_true[rows],
            self.pixel_size_A[rows],
            self.lens.take(rows),
            self.is_premultiplied[rows],
        )

    def to(self, device: torch.device) -> Views:
        """Return the same as tensors of a device."""
        given = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "lens"}
        moved = {name: torch.from_numpy(values).to(_DTYPE).to(device) for name, values in given.items()}
        return replace(self, lens=tensors(self.lens, _DTYPE, device), **moved)


def views_of(
    particles: ParticleSet,
    rows: NDArray[np.int64],
    pixel_size_A: Floats,
    is_premultiplied: NDArray[np.bool_],
) -> Views:
    """Return what a set says of the images of some of its particles.

    Parameters
    ----------
    particles
        With poses, CTF and optics.
    rows
        (n,) the particles.
    pixel_size_A
        (n,) of their images.
    is_premultiplied
        (n,) whether these are multiplied by their CTF.

    Raises
    ------
    MissingDataError
        If poses or CTF are not known.
    """
    poses, optics, index = particles.poses, particles.optics, particles.optics_index
    if poses is None:
        raise MissingDataError(
            "nothing is known of the poses of the particles",
            path=particles.source,
            hint="Give the particles of a refinement.",
        )
    lens = lens_of(particles, rows).in_pixels(pixel_size_A)
    assert optics is not None and index is not None  # the lens is made of them
    shift_A = np.zeros((len(rows), 2)) if poses.shift_A is None else poses.shift_A[rows]
    magnification = np.eye(2) if optics.aberrations is None else optics.aberrations.magnification[index[rows]]
    per_pixel = 1.0 / pixel_size_A
    return Views(
        poses.matrix[rows, :2],
        shift_A * per_pixel[:, np.newaxis],
        magnification * per_pixel[:, np.newaxis, np.newaxis],
        pixel_size_A,
        lens,
        is_premultiplied,
    )


class Slices:
    """The transforms of images of one size and pixel size, up to the resolution that maps are made to.

    Parameters
    ----------
    size_px
        Edge of the images.
    largest
        Cycles a pixel up to which frequencies are wanted.
    device
        Where to work.
    """

    def __init__(self, size_px: int, largest: float, device: torch.device) -> None:
        self.chosen, self.kx, self.ky = _chosen(size_px, largest, device)

    def spectra(self, images: Tensor) -> Tensor:
        """Transform images (n, size, size), with the centre of the box as origin: (n, m), complex."""
        spectra = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)))
        chosen: Tensor = spectra.flatten(1)[:, self.chosen]
        return chosen


@lru_cache(maxsize=8)
def _chosen(size_px: int, largest: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the frequencies of a half plane within a circle, of which none is the opposite of another."""
    kx, ky, _ = frequencies(size_px, "half", _DTYPE, device)
    is_below = (kx.square() + ky.square()).sqrt() <= min(largest, 0.5)
    chosen = torch.nonzero(is_below & ((kx > 0) | (ky >= 0))).flatten()
    return chosen, kx[chosen], ky[chosen]


class BackProjector:
    """Puts the transforms of images into that of a map.

    Parameters
    ----------
    box_px, voxel_size_A
        Of the map.
    device
        Where to work.
    """

    def __init__(self, box_px: int, voxel_size_A: float, device: torch.device) -> None:
        self.box_px, self.voxel_size_A, self.device = box_px, voxel_size_A, device
        self._padded = padded_size(box_px)
        n_points = self._padded**3
        # Of the numerator the real and the imaginary part, and the denominator.
        self._sums = tuple(torch.zeros(n_points, device=device) for _ in range(3))

    def add(self, slices: Slices, spectra: Tensor, views: Views) -> None:
        """Add images.

        Parameters
        ----------
        slices, spectra
            Their frequencies, and (n, m) their transforms.
        views
            What is said of them, as tensors.
        """
        kx, ky = slices.kx, slices.ky
        nominal = torch.stack((kx, ky))
        ctf = views.lens.transfer(kx, ky, torch)
        _, odd = views.lens.phases(kx, ky, torch)
        phase = -2 * math.pi * (views.shift_px @ nominal) - odd
        is_premultiplied = views.is_premultiplied[:, None]
        factor = views.pixel_size_A[:, None].square() * (is_premultiplied + (1 - is_premultiplied) * ctf)
        values = spectra * torch.polar(torch.ones_like(phase), phase) * factor
        # In steps of the padded grid.
        true = (self._padded * self.voxel_size_A) * (views.to_true @ nominal)
        place = true.transpose(1, 2) @ views.axes
        self._scatter(place.reshape(-1, 3), values.reshape(-1), ctf.square().reshape(-1))

    def _scatter(self, place: Tensor, values: Tensor, weight: Tensor) -> None:
        size = self._padded
        # Nyquist itself is inside, whatever rounding makes of it; only a magnification leads beyond.
        inside = place.square().sum(1) <= (_EDGE * size / 2) ** 2
        place, values, weight = place[inside], values[inside], weight[inside]
        first = place.floor()
        share = place - first
        low = first.to(torch.int64)
        for corner in product((0, 1), repeat=3):
            at = [(low[:, axis] + corner[axis]) % size for axis in range(3)]
            flat = (at[2] * size + at[1]) * size + at[0]
            part = math.prod((share[:, axis] if corner[axis] else 1 - share[:, axis]) for axis in range(3))
            for total, each in zip(self._sums, (values.real, values.imag, weight), strict=True):
                total.scatter_add_(0, flat, part * each)

    def density(self) -> Tensor:
        """Return the map (z, y, x) of what was added, (box, box, box), float64, on the CPU.

        In double precision, so that where a map holds little its shells are not what rounding leaves of others.
        """
        size, box = self._padded, self.box_px
        shape = (size, size, size)
        real, imaginary, weight = (each.cpu().double().view(shape) for each in self._sums)
        total, weight = torch.complex(real, imaginary), weight + _opposite(weight)
        total += _opposite(total).conj()
        shell, n_shells = _shells(size), size // 2 + 1
        is_inside = shell < n_shells
        inner, of_shell = shell[is_inside], weight[is_inside]
        means = torch.bincount(inner, of_shell, n_shells) / torch.bincount(inner, minlength=n_shells)
        denominator = of_shell + _WIENER * means[inner]
        spectrum = torch.zeros_like(total)
        spectrum[is_inside] = torch.where(denominator > 0, total[is_inside] / denominator, 0)
        del total, real, imaginary, weight
        density = torch.fft.fftshift(torch.fft.ifftn(spectrum).real)
        start = size // 2 - box // 2
        density = density[(slice(start, start + box),) * 3]
        window = torch.sinc((torch.arange(box, dtype=torch.float64) - box // 2) / size).square()
        made: Tensor = density / (window[:, None, None] * window[:, None] * window) / self.voxel_size_A**3
        return made


def _opposite(grid: Tensor) -> Tensor:
    """Return the values at the opposite frequencies."""
    opposite: Tensor = torch.roll(grid.flip(0, 1, 2), (1, 1, 1), (0, 1, 2))
    return opposite


def _shells(size: int) -> Tensor:
    axis = torch.fft.fftfreq(size, 1 / size).square()
    radius: Tensor = (axis[:, None, None] + axis[:, None] + axis).sqrt()
    shells: Tensor = torch.round(radius).to(torch.int64)
    return shells
