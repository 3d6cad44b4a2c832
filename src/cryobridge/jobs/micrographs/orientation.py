"""Which of the eight axis conventions puts cryoSPARC's picks on the particles of RELION's micrographs.

With extracted images, each is compared with the patch that a convention cuts from RELION's micrograph: their normalised
correlation, after bringing the patch to the image's pixel size and the image into the convention's mirror. Without,
the picks' neighbourhoods are compared with those of places nearby: particles differ from what lies around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cryobridge.formats.mrc import open_mrc
from cryobridge.formats.table import Array
from cryobridge.fourier.crop import crop_images
from cryobridge.model.convention import ALL_CONVENTIONS, Convention
from cryobridge.model.particles import Floats

# The winner must lead the runner-up, and zero, by this many standard errors.
SURE_SIGMA = 5.0
# A convention is off by up to one pixel where rows were reversed; the best of the shifts around counts.
_SHIFT_PX = 2
_MIN_PARTICLES = 10
_RING = 8
# Larger images are binned to about this size, since fine detail tells little and takes long.
_LARGEST_BOX = 64
# So many steps of the grid on which neighbourhoods are compared are 60 Å.
_STEPS = 4


@dataclass(frozen=True)
class PicksOnMicrograph:
    """The picks that the check looks at on one micrograph.

    Parameters
    ----------
    micrograph
        RELION's micrograph file.
    fraction_xy
        (n, 2) as cryoSPARC has them.
    shape_px
        (n, 2) ny, nx of RELION's micrograph before x and y are exchanged.
    read_images
        Returns the extracted images (n, box, box) of these picks, or None where there are none.
    image_pixel_size_A, micrograph_pixel_size_A
        Å a pixel.
    """

    micrograph: Path
    fraction_xy: Floats
    shape_px: Array
    read_images: Callable[[], Array] | None
    image_pixel_size_A: float
    micrograph_pixel_size_A: float


@dataclass(frozen=True)
class ConventionScore:
    """How well one axis convention fits.

    Parameters
    ----------
    score
        Mean correlation, or mean contrast in standard deviations; NaN where no pick lies within the micrograph.
    n_particles
        Picks that were compared.
    """

    convention: Convention
    score: float
    n_particles: int


@dataclass(frozen=True)
class OrientationCheck:
    """Which axis convention fits.

    Parameters
    ----------
    scores
        The eight axis conventions, best first.
    method
        ``"images"`` or ``"contrast"``.
    sigma
        By how many standard errors the best leads the next.
    is_sure
        Whether that is enough to decide.
    """

    scores: tuple[ConventionScore, ...]
    method: Literal["images", "contrast"]
    sigma: float
    is_sure: bool

    @property
    def best(self) -> Convention:
        """The axis convention that fits best."""
        return self.scores[0].convention


def check_orientation(micrographs: Sequence[PicksOnMicrograph]) -> OrientationCheck:
    """Score the eight axis conventions on some micrographs.

    Raises
    ------
    CryobridgeError
        If a micrograph or an image can't be read.
    """
    use_images = all(picks.read_images is not None for picks in micrographs)
    per_pick = np.concatenate([_score_micrograph(picks, use_images) for picks in micrographs], axis=1)
    with_all = ~np.isnan(per_pick)
    counts = with_all.sum(axis=1)
    means = np.array(
        [row[known].mean() if known.any() else np.nan for row, known in zip(per_pick, with_all, strict=True)]
    )
    # Particles may be darker or brighter than what is around them, and extracted images inverted.
    sign = np.sign(means[np.nanargmax(np.abs(means))]) if np.isfinite(means).any() else 1.0
    per_pick, means = per_pick * sign, means * sign
    order = np.argsort(np.where(np.isnan(means), -np.inf, means))[::-1]
    sigma = _lead(per_pick, order)
    scores = tuple(ConventionScore(ALL_CONVENTIONS[i], float(means[i]), int(counts[i])) for i in order)
    is_sure = bool(sigma >= SURE_SIGMA and counts[order[0]] >= _MIN_PARTICLES)
    return OrientationCheck(scores, "images" if use_images else "contrast", sigma, is_sure)


def _lead(per_pick: Floats, order: NDArray[np.int64]) -> float:
    """Return the lead of the best convention over the next and over nothing, in standard errors; the lesser."""
    best, after = per_pick[order[0]], per_pick[order[1]]
    both = best[~np.isnan(best) & ~np.isnan(after)] - after[~np.isnan(best) & ~np.isnan(after)]
    alone = best[~np.isnan(best)]
    leads = [_in_errors(values) for values in (both, alone) if len(values) >= 2]
    return min(leads) if leads else 0.0


def _in_errors(values: Floats) -> float:
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(values.mean()) / error if error > 0 else 0.0


def _score_micrograph(picks: PicksOnMicrograph, use_images: bool) -> Floats:
    """Return a score for each convention and pick, (8, n); NaN where the patch is not within the micrograph."""
    micrograph = np.asarray(open_mrc(picks.micrograph).images[0], np.float32)
    centres = [np.round(each.to_px(picks.fraction_xy, picks.shape_px)).astype(np.int64) for each in ALL_CONVENTIONS]
    if not use_images or picks.read_images is None:
        smooth, step = _smooth(micrograph, picks.micrograph_pixel_size_A)
        return np.stack([_contrast(smooth, step, centre) for centre in centres])
    images = np.asarray(picks.read_images(), np.float32)
    width_px = images.shape[-1] * picks.image_pixel_size_A / picks.micrograph_pixel_size_A
    if not 1 <= width_px <= max(micrograph.shape):  # no image is within the micrograph, whatever is odd of the sizes
        return np.full((len(centres), len(centres[0])), np.nan)
    by = max(1, images.shape[-1] // _LARGEST_BOX)
    images, image_A = _binned(images, by), by * picks.image_pixel_size_A
    step = max(1, round(image_A / picks.micrograph_pixel_size_A) if by > 1 else 1)
    (micrograph,), micrograph_A = _binned(micrograph[None], step), step * picks.micrograph_pixel_size_A
    return np.stack(
        [
            _correlation(micrograph, centre // step, convention.image(images), image_A, micrograph_A)
            for convention, centre in zip(ALL_CONVENTIONS, centres, strict=True)
        ]
    )


def _binned(images: Array, step: int) -> Array:
    """Return the means over squares of images (n, ny, nx); an even number of them along each axis."""
    if step == 1:
        return images
    ny, nx = (2 * (size // (2 * step)) for size in images.shape[1:])
    whole = images[:, : ny * step, : nx * step]
    means: Array = whole.reshape(len(images), ny, step, nx, step).mean((2, 4), dtype=np.float32)
    return means


def _correlation(
    micrograph: Array, centre: Array, images: Array, image_pixel_size_A: float, micrograph_pixel_size_A: float
) -> Floats:
    box = images.shape[-1]
    # Even, and large enough for the shifts that are tried.
    patch_px = 2 * round(box * image_pixel_size_A / micrograph_pixel_size_A / 2)
    patches, is_inside = _cut(micrograph, centre, patch_px)
    scores = np.full(len(centre), np.nan)
    if not is_inside.any():
        return scores
    small = torch.from_numpy(patches[is_inside])
    if patch_px > box:
        small, _ = crop_images(small, (box, box), micrograph_pixel_size_A)
    reference = torch.from_numpy(np.ascontiguousarray(images[is_inside]))
    if patch_px < box:
        reference, _ = crop_images(reference, (patch_px, patch_px), image_pixel_size_A)
    scores[is_inside] = _best_shifted(_standard(small), _standard(reference)).numpy()
    return scores


def _standard(images: torch.Tensor) -> torch.Tensor:
    centred = images - images.mean((1, 2), keepdim=True)
    normal: torch.Tensor = centred / torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return normal


def _best_shifted(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return each pair's correlation at the shift, common to all pairs, at which their mean is farthest from 0."""
    spectrum = torch.fft.rfft2(first) * torch.fft.rfft2(second).conj()
    correlation = torch.fft.irfft2(spectrum, s=first.shape[-2:])
    around = torch.roll(correlation, (_SHIFT_PX, _SHIFT_PX), (1, 2))[:, : 2 * _SHIFT_PX + 1, : 2 * _SHIFT_PX + 1]
    flat = around.flatten(1)
    return flat[:, int(flat.mean(0).abs().argmax())]


def _smooth(micrograph: Array, pixel_size_A: float) -> tuple[Floats, int]:
    """Return the mean over a square of 120 Å around each point of a coarse grid, and the grid's step in pixels.

    The step is a part of the square only, so that a large micrograph takes little time.
    """
    radius = max(_STEPS, round(60 / pixel_size_A))
    step = radius // _STEPS
    ny, nx = (size // step for size in micrograph.shape)
    blocks = micrograph[: ny * step, : nx * step].reshape(ny, step, nx, step).mean((1, 3), dtype=np.float64)
    return _box_means(blocks, 2 * _STEPS), step


def _contrast(smooth: Floats, step: int, centre: Array) -> Floats:
    """Return how much the mean around each pick differs from the means of places around it, in their deviations."""
    angles = 2 * np.pi * np.arange(_RING) / _RING
    ring = np.round(3 * _STEPS * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.int64)
    own_place = centre // step
    own = _at(smooth, own_place)
    around = np.stack([_at(smooth, own_place + offset) for offset in ring], 1)
    known = ~np.isnan(around)
    enough = ~np.isnan(own) & (known.sum(1) >= _RING // 2)
    scores = np.full(len(centre), np.nan)
    if not enough.any():
        return scores
    spread = float(np.nanstd(smooth)) or 1.0
    filled = np.where(known, around, 0.0).sum(1)
    scores[enough] = (own[enough] - filled[enough] / known.sum(1)[enough]) / spread
    return scores


def _box_means(image: Array, width: int) -> Floats:
    """Return the mean over a square around each point; NaN where it reaches over the edge."""
    sums = np.pad(image.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    means = np.full(image.shape, np.nan)
    if min(image.shape) < width:
        return means
    inner = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width] + sums[:-width, :-width]
    half = width // 2
    means[half : half + inner.shape[0], half : half + inner.shape[1]] = inner / width**2
    return means


def _at(image: Floats, xy: Array) -> Floats:
    ny, nx = image.shape
    inside = (xy >= 0).all(1) & (xy[:, 0] < nx) & (xy[:, 1] < ny)
    values = np.full(len(xy), np.nan)
    values[inside] = image[xy[inside, 1], xy[inside, 0]]
    return values


def _cut(micrograph: Array, centre: Array, size: int) -> tuple[Array, NDArray[np.bool_]]:
    """Cut patches (n, size, size) whose pixel size // 2 is the centre; zeros where they reach over the edge."""
    ny, nx = micrograph.shape
    corner = centre - size // 2
    inside = (corner >= 0).all(1) & (corner[:, 0] + size <= nx) & (corner[:, 1] + size <= ny)
    patches = np.zeros((len(centre), size, size), np.float32)
    for row in np.flatnonzero(inside):
        x, y = corner[row]
        patches[row] = micrograph[y : y + size, x : x + size]
    return patches, inside
