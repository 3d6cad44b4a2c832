"""Micrographs as the microscope would record them, and the particle images that are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryobridge.demo.physics import ImageGrid, raw_images
from cryobridge.demo.truth import BOX_PX, MICROGRAPH_SHAPE_PX, PIXEL_SIZE_A
from cryobridge.model.particles import CTF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryobridge.demo.truth import Truth
    from cryobridge.model.particles import Floats

# Particles are recorded on twice the box: the CTF spreads them by some 50 Å, which must not wrap around.
_PATCH_PX = 2 * BOX_PX
_N_FOR_SCALE = 64


@dataclass(frozen=True)
class Recording:
    """One micrograph and its particles.

    Parameters
    ----------
    micrograph
        (ny, nx) float32; dark particles in white noise of standard deviation 1.
    images
        (n, box, box) float32, cut from it around the picks.
    signal
        (n, box, box) what each image has of its own particle, without noise and neighbours.
    """

    micrograph: NDArray[np.float32]
    images: NDArray[np.float32]
    signal: Floats


def signal_scale(truth: Truth, snr: float) -> float:
    """Return the factor on the molecule's density that gives the signal-to-noise ratio at a noise variance of 1.

    Parameters
    ----------
    truth
        The project; its first particles are the measure.
    snr
        Mean over particles of the variance of the noise-free image, CTF and all, within the box, divided by the
        variance of the noise.

    Returns
    -------
    float
        The factor.
    """
    rows = np.arange(min(_N_FOR_SCALE, len(truth.particles)))
    power = _signal(truth, rows, BOX_PX).var(axis=(1, 2)).mean()
    return float(np.sqrt(snr / power))


def record(truth: Truth, micrograph: int, scale: float, seed: int) -> Recording:
    """Record one micrograph.

    Parameters
    ----------
    truth
        The project.
    micrograph
        Row of its micrographs.
    scale
        Factor on the molecule's density.
    seed
        Of the noise; each micrograph has its own sequence.

    Returns
    -------
    Recording
        Micrograph and particle images.
    """
    rng = np.random.default_rng([seed, 1 + micrograph])
    rows = np.flatnonzero(truth.particles.micrograph == micrograph)
    patches = scale * _signal(truth, rows, _PATCH_PX)
    picks = truth.particles.pick_px[rows]
    # A margin takes up the patches that reach over the edge.
    margin = _PATCH_PX // 2
    canvas = np.zeros([n + 2 * margin for n in MICROGRAPH_SHAPE_PX])
    for patch, (x, y) in zip(patches, picks, strict=True):
        canvas[y : y + _PATCH_PX, x : x + _PATCH_PX] += patch
    recorded = canvas[margin:-margin, margin:-margin].astype(np.float32)
    recorded += rng.standard_normal(MICROGRAPH_SHAPE_PX, dtype=np.float32)
    inner = slice((_PATCH_PX - BOX_PX) // 2, (_PATCH_PX + BOX_PX) // 2)
    return Recording(recorded, _cut(recorded, picks), patches[:, inner, inner])


def _signal(truth: Truth, rows: NDArray[np.int64], size_px: int) -> Floats:
    """Return the noise-free images of the chosen particles, (n, size, size), with the pick at pixel size / 2."""
    particles = truth.particles
    ctf = CTF(particles.ctf.defocus_u_A[rows], particles.ctf.defocus_v_A[rows], particles.ctf.defocus_angle_rad[rows])
    centre_px = size_px // 2 - particles.shift_px[rows].astype(np.float64)
    grid = ImageGrid(size_px, PIXEL_SIZE_A)
    return raw_images(truth.molecule, truth.microscope, particles.matrix[rows], centre_px, ctf, grid)


def _cut(micrograph: NDArray[np.float32], pick_px: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut the boxes around picks, (n, box, box); the pick is at pixel box / 2."""
    boxes = np.lib.stride_tricks.sliding_window_view(micrograph, (BOX_PX, BOX_PX))
    corner = pick_px - BOX_PX // 2
    return boxes[corner[:, 1], corner[:, 0]]
