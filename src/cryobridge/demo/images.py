"""Micrographs as the microscope would record them, and the particle images that are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.demo.motion import moved_images
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
# Counts of a frame, and their standard deviation: as few as compress well and round off little.
_COUNTS, _SPREAD = 30.0, 1.5


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
    frames
        (n_frames, ny, nx) uint8, the movie: counts that are to be multiplied by the gain reference. Moved back, they
        add up to the micrograph.
    """

    micrograph: NDArray[np.float32]
    images: NDArray[np.float32]
    signal: Floats
    frames: NDArray[np.uint8]


def gain_reference(seed: int) -> NDArray[np.float32]:
    """Return what movies are multiplied by, (ny, nx) in their rows: a few values, which compress well."""
    ny, nx = MICROGRAPH_SHAPE_PX
    drawn = np.random.default_rng([seed, 0, 2]).integers(-2, 3, (ny // 8, nx // 8))
    gain: NDArray[np.float32] = (1 + drawn.repeat(8, axis=0).repeat(8, axis=1) / 32).astype(np.float32)
    return gain


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
    noise = rng.standard_normal(MICROGRAPH_SHAPE_PX, dtype=np.float32)
    recorded = _laid(patches, picks) + noise
    inner = slice((_PATCH_PX - BOX_PX) // 2, (_PATCH_PX + BOX_PX) // 2)
    frames = _frames(truth, micrograph, patches.astype(np.float32), picks, noise, seed)
    return Recording(recorded, _cut(recorded, picks), patches[:, inner, inner], frames)


def _laid(patches: NDArray[Any], picks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the patches on an empty micrograph."""
    # A margin takes up those that reach over the edge.
    margin = _PATCH_PX // 2
    canvas = np.zeros([n + 2 * margin for n in MICROGRAPH_SHAPE_PX], patches.dtype)
    for patch, (x, y) in zip(patches, picks, strict=True):
        canvas[y : y + _PATCH_PX, x : x + _PATCH_PX] += patch
    return canvas[margin:-margin, margin:-margin].astype(np.float32)


def _frames(
    truth: Truth,
    micrograph: int,
    patches: NDArray[np.float32],
    picks: NDArray[np.int64],
    noise: NDArray[np.float32],
    seed: int,
) -> NDArray[np.uint8]:
    """Return the frames of a movie: particles move as they do, and the noise by whole pixels with the frame.

    Frames of white noise that add up to that of the micrograph are its share and what differs between them.
    """
    motion = truth.micrographs.motion[micrograph]
    n, (ny, _) = motion.n_frames, MICROGRAPH_SHAPE_PX
    # In the rows of the movie's file, which RELION reads in reversed order.
    places = np.column_stack([picks[:, 0], ny - 1 - picks[:, 1]])
    paths = motion.shifts_px(places, MICROGRAPH_SHAPE_PX) * [-1, 1]
    of_frames = np.rint(motion.global_px * [-1, 1]).astype(int)
    rng = np.random.default_rng([seed, 1 + micrograph, 1])
    shares = rng.standard_normal((n, *MICROGRAPH_SHAPE_PX), dtype=np.float32) / np.float32(np.sqrt(n))
    shares += noise / n - shares.mean(axis=0)
    frames = np.empty((n, *MICROGRAPH_SHAPE_PX), np.float32)
    for frame, moved, share, (x, y) in zip(frames, moved_images(patches, paths), shares, of_frames, strict=True):
        frame[:] = _laid(moved, picks) / n + np.roll(share, (y, x), axis=(0, 1))
    counts = _COUNTS + _SPREAD / frames.std() * frames
    raw: NDArray[np.uint8] = np.clip(np.rint(counts / gain_reference(seed)), 0, 255).astype(np.uint8)
    return raw


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
