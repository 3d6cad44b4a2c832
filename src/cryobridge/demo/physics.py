"""The physics of a simulated particle: a molecule of Gaussian blobs, its projections and the microscope's CTF."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryobridge.model.contrast_transfer import Lens
from cryobridge.model.particles import CTF, Floats

# x, y, z and standard deviation in Å, and weight of each blob: some 100 Å across, without symmetry, and of one hand,
# so that no two views of it are alike and a mirrored one is none of them.
_BLOBS = (
    (0.0, 0.0, 0.0, 12.0, 7.0),
    (-16.0, 4.0, -8.0, 9.0, 4.0),
    (14.0, 8.0, 10.0, 8.0, 3.5),
    (-30.0, -4.0, 4.0, 6.0, 2.0),
    (-6.0, -18.0, 14.0, 5.0, 1.5),
    (6.0, -22.0, -12.0, 6.0, 2.0),
    (12.0, -34.0, -18.0, 4.0, 0.8),
    (28.0, 12.0, 4.0, 5.0, 1.4),
    (36.0, 22.0, -4.0, 3.5, 0.7),
    (-12.0, 24.0, 12.0, 5.0, 1.4),
    (-22.0, 32.0, 18.0, 3.0, 0.5),
    (2.0, 12.0, 30.0, 4.5, 1.0),
    (-26.0, -24.0, -8.0, 3.0, 0.6),
    (20.0, -6.0, -20.0, 3.0, 0.7),
)


@dataclass(frozen=True)
class Molecule:
    """Gaussian blobs of density around their centre of mass.

    Parameters
    ----------
    position_A
        (b, 3) x, y, z of each blob in the frame of the reference.
    sigma_A
        (b,) standard deviations.
    weight
        (b,) integrals of the density.
    """

    position_A: Floats
    sigma_A: Floats
    weight: Floats


@dataclass(frozen=True)
class Microscope:
    """What an optics group says of the microscope."""

    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float


@dataclass(frozen=True)
class ImageGrid:
    """The pixels of square images.

    Parameters
    ----------
    size_px
        Width and height.
    pixel_size_A
        Å a pixel.
    """

    size_px: int
    pixel_size_A: float


def demo_molecule() -> Molecule:
    """Return the molecule of the demo project, with its centre of mass at the origin."""
    blobs = np.array(_BLOBS)
    position_A, sigma_A, weight = blobs[:, :3], blobs[:, 3], blobs[:, 4]
    return Molecule(position_A - np.average(position_A, axis=0, weights=weight), sigma_A, weight)


def project(molecule: Molecule, matrix: Floats, centre_px: Floats, grid: ImageGrid) -> Floats:
    """Project the molecule along the z axis of each view.

    A blob at r in the reference lies at ``A r`` in the view (see `cryobridge.model.geometry`), and its projection is a
    two-dimensional Gaussian at the x and y of that. A Gaussian is a product over rows and columns, which makes the
    sum over blobs a matrix product.

    Parameters
    ----------
    molecule
        What is looked at.
    matrix
        (n, 3, 3) matrices A.
    centre_px
        (n, 2) x, y of the molecule's centre; the first pixel is 0.
    grid
        The pixels of the images.

    Returns
    -------
    numpy.ndarray
        (n, size, size) projections; rows are y.
    """
    in_view_A = np.einsum("nij,bj->nbi", matrix[:, :2], molecule.position_A)
    at_px = (in_view_A / grid.pixel_size_A + centre_px[:, np.newaxis])[..., np.newaxis]
    sigma_px = (molecule.sigma_A / grid.pixel_size_A)[:, np.newaxis, np.newaxis]
    profiles = np.exp(-0.5 * ((np.arange(grid.size_px) - at_px) / sigma_px) ** 2) / (np.sqrt(2.0 * np.pi) * sigma_px)
    along_x, along_y = profiles[:, :, 0], profiles[:, :, 1] * molecule.weight[:, np.newaxis]
    images: Floats = along_y.transpose(0, 2, 1) @ along_x
    return images


def contrast_transfer(microscope: Microscope, ctf: CTF, grid: ImageGrid) -> Floats:
    """Return the contrast transfer function of each particle, on the frequencies of ``numpy.fft.rfft2``.

    See `cryobridge.model.contrast_transfer`. It starts at the amplitude contrast, so protein is white; in the raw
    images of a microscope it is dark.

    Parameters
    ----------
    microscope
        Voltage, spherical aberration and amplitude contrast.
    ctf
        Defocus of n particles; the angle goes from x towards y, the direction in which rows are stored.
    grid
        The pixels of the images.

    Returns
    -------
    numpy.ndarray
        (n, size, size // 2 + 1) real factors.
    """
    n, size_px = len(ctf.defocus_u_A), grid.size_px
    voltage_kV, cs_mm, amplitude_contrast = (
        np.full(n, value)
        for value in (microscope.voltage_kV, microscope.spherical_aberration_mm, microscope.amplitude_contrast)
    )
    x, y = np.fft.rfftfreq(size_px, grid.pixel_size_A), np.fft.fftfreq(size_px, grid.pixel_size_A)
    kx, ky = (axis.ravel() for axis in np.meshgrid(x, y))
    factors: Floats = Lens.of(ctf, voltage_kV, cs_mm, amplitude_contrast).transfer(kx, ky)
    return factors.reshape(n, len(y), len(x))


def raw_images(
    molecule: Molecule,
    microscope: Microscope,
    matrix: Floats,
    centre_px: Floats,
    ctf: CTF,
    grid: ImageGrid,
) -> Floats:
    """Return what the microscope would record of each particle without noise: dark on zero.

    Parameters
    ----------
    molecule, microscope
        What is looked at, and with what.
    matrix, centre_px, ctf
        Of n particles, as for `project` and `contrast_transfer`.
    grid
        The pixels of the images. The Fourier transform wraps around, so leave a margin for what the CTF spreads.

    Returns
    -------
    numpy.ndarray
        (n, size, size) images.
    """
    spectra = np.fft.rfft2(project(molecule, matrix, centre_px, grid))
    spectra *= contrast_transfer(microscope, ctf, grid)
    return -np.fft.irfft2(spectra, s=(grid.size_px, grid.size_px))
