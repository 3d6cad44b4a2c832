"""Whether movies move as the trajectories say: by the pixels of a few, as far and in the same direction.

Groups of frames are compared with each other, as RELION reads them. How far the specimen moved between them, against
what the trajectories say as they are taken, is one factor for x and one for y: 1 if they are taken rightly, negative
where a sign is wrong, and the pixel size or its inverse where the unit is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, signal

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.movies import movie_header, sum_of_frames
from cryobridge.model.motion import patch_centres
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.exposures.motion_options import MotionOptions
    from cryobridge.model.motion import MotionModel
    from cryobridge.model.particles import Floats

# Movies, groups of frames of each, and frames of a group; pixels of the longer side that are compared.
_N_MOVIES, _N_GROUPS, _N_FRAMES, _N_PX = 2, 4, 3, 1024
# Frequencies, in parts of Nyquist: what is lower is ice and uneven light, what is higher noise.
_LOW, _HIGH = 0.02, 0.3
# Motion that is so short says nothing, nor does one that correlates so badly with what is expected.
_LEAST_PX, _LEAST_CORRELATION = 0.5, 0.8
# Factors are taken for 1 where they lie so near.
_NEAR = 0.25


@dataclass(frozen=True)
class Drift:
    """How movies move against what the trajectories say.

    Parameters
    ----------
    n_movies
        How many were looked at.
    factor_x, factor_y
        What was seen over what was expected.
    correlation_x, correlation_y
        Of both, over pairs of groups of frames.
    expected_px
        How far the specimen moves between groups by the trajectories, x and y (rms).
    """

    n_movies: int
    factor_x: float
    factor_y: float
    correlation_x: float
    correlation_y: float
    expected_px: tuple[float, float]

    def is_sure(self, axis: int) -> bool:
        """Whether what is seen along an axis, 0 for x and 1 for y, follows what was expected."""
        correlation = (self.correlation_x, self.correlation_y)[axis]
        return self.expected_px[axis] >= _LEAST_PX and abs(correlation) >= _LEAST_CORRELATION


def check_drift(
    motions: Sequence[MotionModel],
    movies: Sequence[Path | None],
    gain: Callable[[int], NDArray[np.float32] | None] = lambda _: None,
) -> Drift | None:
    """Look how far some movies move.

    Parameters
    ----------
    motions
        Of each micrograph, as they are taken.
    movies
        The files, None where they are not on this disk.
    gain
        From the place of a micrograph to what RELION multiplies its movie by.

    Returns
    -------
    Drift or None
        None where no movie can be read.
    """
    there = [place for place, movie in enumerate(movies) if movie is not None]
    there.sort(key=lambda place: motions[place].path_px(), reverse=True)
    seen, expected = [], []
    n_movies = 0
    for place in there[:_N_MOVIES]:
        movie = movies[place]
        assert movie is not None
        try:
            pairs = _pairs(motions[place], movie, gain(place))
        except (CryobridgeError, ValueError):  # EER, damaged, or of other sizes
            return None
        n_movies += 1
        seen += [pair[0] for pair in pairs]
        expected += [pair[1] for pair in pairs]
    if not seen:
        return None
    found, wanted = np.array(seen), np.array(expected)
    (factor_x, correlation_x), (factor_y, correlation_y) = (
        _regression(wanted[:, axis], found[:, axis]) for axis in (0, 1)
    )
    size = np.sqrt((wanted**2).mean(axis=0))
    return Drift(n_movies, factor_x, factor_y, correlation_x, correlation_y, (float(size[0]), float(size[1])))


def _regression(expected: Floats, seen: Floats) -> tuple[float, float]:
    """Return the factor between what is expected and seen, and their correlation through zero."""
    square, product = float(expected @ expected), float(expected @ seen)
    norm = float(np.sqrt(square * (seen @ seen)))
    return product / square if square else 0.0, product / norm if norm else 0.0


def _pairs(motion: MotionModel, movie: Path, gain: NDArray[np.float32] | None) -> list[tuple[Floats, Floats]]:
    """Return how the specimen moved between groups of frames of a movie, as seen and as expected, x and y in pixels."""
    header = movie_header(movie)
    used = np.flatnonzero(np.isfinite(motion.global_px).all(axis=1))
    groups = [group[:_N_FRAMES] for group in np.array_split(used, min(_N_GROUPS, len(used)))]
    shifts = motion.shifts_px(_centres(motion.shape_px)).mean(axis=0)  # local motion has a part that all places share
    spectra, places, scale = [], [], np.ones(2)
    shape: tuple[int, ...] = (0, 0)
    for group in groups:
        image = sum_of_frames(header, group.tolist())[:: -1 if header.format == "TIFF" else 1]
        small = _reduced(image if gain is None else image * gain)
        shape = small.shape
        scale = np.array(image.shape[::-1]) / np.array(shape[::-1])
        spectra.append(_spectrum(small))
        places.append(-shifts[group].mean(axis=0))  # a shift moves the frame back
    largest = max((float(np.abs(b - a).max()) for a, b in combinations(places, 2)), default=0.0)
    reach = 3 * largest / float(scale.min()) + 10
    return [
        (_moved(spectra[a], spectra[b], shape, reach) * scale, places[b] - places[a])
        for a, b in combinations(range(len(groups)), 2)
    ]


def _centres(shape_px: tuple[int, int]) -> Floats:
    """Return x, y of the centres of 5 x 5 patches, in pixels."""
    y, x = patch_centres(5, 5)
    centres: Floats = np.stack(np.meshgrid(x * shape_px[1], y * shape_px[0]), axis=-1).reshape(-1, 2)
    return centres


def _reduced(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image in blocks of pixels, without what doesn't fill one."""
    n = max(1, max(image.shape) // _N_PX)
    ny, nx = (size // n for size in image.shape)
    small: NDArray[np.float32] = image[: ny * n, : nx * n].reshape(ny, n, nx, n).mean(axis=(1, 3))
    return small


def _spectrum(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Return the transform of an image between two frequencies, faded out at its edges."""
    limit = 5 * image.std()
    flat = np.clip(image - image.mean(), -limit, limit)
    ny, nx = flat.shape
    flat = flat * signal.windows.tukey(ny, 0.2)[:, None] * signal.windows.tukey(nx, 0.2)
    frequency = 2 * np.hypot(fft.fftfreq(ny)[:, None], fft.rfftfreq(nx))
    band = np.exp(-0.5 * (frequency / _HIGH) ** 2) * (1 - np.exp(-0.5 * (frequency / _LOW) ** 2))
    spectrum: NDArray[np.complex64] = (fft.rfft2(flat) * band).astype(np.complex64)
    return spectrum


def _moved(first: NDArray[np.complex64], second: NDArray[np.complex64], shape: tuple[int, ...], reach: float) -> Floats:
    """Return by how much the second image has moved, x and y, at most so far."""
    map_ = fft.irfft2(second * first.conj(), s=shape)
    ny, nx = shape
    far_y, far_x = (min(int(reach), size // 2 - 1) for size in (ny, nx))
    near = np.roll(map_, (far_y, far_x), axis=(0, 1))[: 2 * far_y + 1, : 2 * far_x + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return np.array(
        [_peak(near[y], int(x)) - far_x, _peak(near[:, x], int(y)) - far_y],
        np.float64,
    )


def _peak(line: NDArray[np.floating], place: int) -> float:
    """Return where a parabola through the highest value and those beside it has its top."""
    if not 0 < place < len(line) - 1:
        return float(place)
    left, top, right = (float(line[place + step]) for step in (-1, 0, 1))
    bend = left - 2 * top + right
    return place + (0.5 * (left - right) / bend if bend else 0.0)


def drift_messages(drift: Drift | None, options: MotionOptions, pixel_size_A: float) -> list[Message]:
    """Say whether movies move as trajectories say, and which option would fit if they don't.

    Parameters
    ----------
    drift
        What was seen.
    options
        How the trajectories are taken.
    pixel_size_A
        Of the movies.
    """
    if drift is None:
        return []
    sure = [axis for axis in (0, 1) if drift.is_sure(axis)]
    seen = (
        f"(seen over expected: {drift.factor_x:.2f} in x, {drift.factor_y:.2f} in y; correlations "
        f"{drift.correlation_x:.2f} and {drift.correlation_y:.2f})"
    )
    if not sure:
        return [note("motion-pixels", f"pixels don't show whether movies move as trajectories say {seen}")]
    factors = {axis: (drift.factor_x, drift.factor_y)[axis] for axis in sure}
    if all(abs(factor - 1) < _NEAR for factor in factors.values()):
        return [note("motion-pixels", f"movies move as trajectories say {seen}")]
    fits = _fitting(factors, options, pixel_size_A)
    text = f"movies don't move as trajectories say {seen}"
    return [warning("motion-pixels", f"{text}{': ' + fits if fits else ''}")]


def _fitting(factors: dict[int, float], options: MotionOptions, pixel_size_A: float) -> str:
    """Return which options fit better, or nothing."""
    is_px = options.motion_unit == "px"
    other_unit = 1 / pixel_size_A if is_px else pixel_size_A
    size = float(np.median(np.abs(list(factors.values()))))
    # With pixels of about 1 Å both units would do.
    has_other_unit = abs(size / other_unit - 1) < _NEAR and abs(size - 1) >= _NEAR
    asked = [option("motion_unit", "A" if is_px else "px")] if has_other_unit else []
    if factors.get(1, 1.0) < 0 < factors.get(0, 1.0):
        asked.append(option("motion_rows", "stored" if options.rows == "reversed" else "reversed"))
    return f"{' and '.join(asked)} would fit" if asked else ""
