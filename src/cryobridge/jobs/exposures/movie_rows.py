"""Whether cryoSPARC's micrographs have the rows that RELION reads of the movies, out of which polishing cuts particles.

Trajectories and coordinates are counted in the rows of cryoSPARC's own averages: its makers sample the spline of a
movie at the places of its particles as they are (cryosparc-examples, patch_to_local). Where RELION reads the movies the
other way round, micrographs have to be reversed, and the motion with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from cryobridge.errors import CryobridgeError, option
from cryobridge.formats.movies import movie_header, sum_of_frames
from cryobridge.formats.mrc import open_mrc
from cryobridge.report import Message, note, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.jobs.exposures.motion_options import MotionOptions

# Micrographs and frames that are looked at; pixels of the longer side that are compared.
_N_MICROGRAPHS, _N_FRAMES, _N_PX = 2, 10, 256
# Ice is brighter here and darker there over more than so many of these pixels.
_SMOOTH_PX = 6.0
_EDGE = 0.05
_LEAST, _RATIO = 0.1, 3.0


@dataclass(frozen=True)
class RowCheck:
    """How averages correlate with the movies as RELION reads them.

    Parameters
    ----------
    n_micrographs
        How many were compared.
    stored, reversed
        Correlation with the rows as they are, and in reversed order.
    """

    n_micrographs: int
    stored: float
    reversed: float

    @property
    def rows(self) -> Literal["stored", "reversed"] | None:
        """How the rows of the averages lie to those of the movies; None where it does not show."""
        high, low = max(self.stored, self.reversed), min(self.stored, self.reversed)
        if high < _LEAST or high < _RATIO * low:
            return None
        return "stored" if self.stored > self.reversed else "reversed"


def check_rows(
    movies: Sequence[Path | None],
    micrographs: Sequence[Path | None],
    gain: Callable[[int], NDArray[np.float32] | None] = lambda _: None,
) -> RowCheck | None:
    """Compare averages with the mean of some frames of their movies.

    Parameters
    ----------
    movies, micrographs
        The files of each micrograph, None where they are not on this disk.
    gain
        From the place of a micrograph to what RELION multiplies its movie by, in the rows that it reads.

    Returns
    -------
    RowCheck or None
        None where none can be compared.
    """
    found = []
    for place, (movie, micrograph) in enumerate(zip(movies, micrographs, strict=True)):
        if movie is None or micrograph is None:
            continue
        try:
            found.append(_compared(movie, micrograph, gain(place)))
        except (CryobridgeError, ValueError):  # EER, damaged, or of odd sizes: others may do
            return None
        if len(found) == _N_MICROGRAPHS:
            break
    if not found:
        return None
    stored, mirrored = np.mean(found, axis=0).tolist()
    return RowCheck(len(found), stored, mirrored)


def _compared(movie: Path, micrograph: Path, gain: NDArray[np.float32] | None) -> tuple[float, float]:
    header = movie_header(movie)
    total = sum_of_frames(header, range(min(_N_FRAMES, header.n_frames)))
    as_read = total[:: -1 if header.format == "TIFF" else 1]
    if gain is not None:
        as_read = as_read * gain
    average = open_mrc(micrograph).read([0])[0]
    if not np.isfinite(average).all():
        raise ValueError("pixels that are no numbers")
    longest = min(_N_PX, *(max(image.shape) for image in (as_read, average)))
    grid = np.minimum(np.array(as_read.shape) * longest // max(as_read.shape), average.shape)
    seen, expected = (_features(image, (int(grid[0]), int(grid[1]))) for image in (as_read, average))
    return _correlation(seen, expected), _correlation(seen, expected[::-1])


def _features(image: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return an image on a small grid, without what changes slowly, and without its edges."""
    small = image.astype(np.float64)
    for axis, n in enumerate(grid):
        edges = np.linspace(0, small.shape[axis], n + 1).astype(int)
        small = np.add.reduceat(small, edges[:-1], axis=axis)
        small /= np.expand_dims(np.diff(edges), 1 - axis)
    small -= ndimage.gaussian_filter(small, _SMOOTH_PX)
    limit = 4 * small.std()
    ny, nx = (int(n * _EDGE) for n in grid)
    features: NDArray[np.float64] = np.clip(small, -limit, limit)[ny : grid[0] - ny, nx : grid[1] - nx]
    return features


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / norm if norm else 0.0


def with_rows(options: MotionOptions, check: RowCheck | None) -> MotionOptions:
    """Return the options with the rows that micrographs show, where pixels are to decide and do."""
    shown = None if check is None else check.rows
    return options if shown is None or options.motion_rows != "pixels" else replace(options, motion_rows=shown)


def row_messages(check: RowCheck | None, options: MotionOptions, *, flip_y: bool) -> list[Message]:
    """Say how the rows of micrographs and movies lie, and which options would not fit that.

    Parameters
    ----------
    check
        What was found.
    options
        How trajectories are to be read, as they were given.
    flip_y
        Whether micrographs are written with their rows reversed.
    """
    if check is None:
        return []
    numbers = (
        f"(correlation {max(check.stored, check.reversed):.2f}, the other way {min(check.stored, check.reversed):.2f})"
    )
    if check.rows is None:
        text = "micrographs don't show whether RELION reads the rows of their movies in the same order"
        return [note("movie-rows", f"{text} {numbers}")]
    is_reversed = check.rows == "reversed"
    order = "the opposite order to" if is_reversed else "the order of"
    text = f"cryoSPARC's micrographs have their rows in {order} those that RELION reads of the movies {numbers}"
    messages = []
    if is_reversed != flip_y:
        fits = f"give {option('flip_y', True)}" if is_reversed else f"leave {option('flip_y')} out"
        where = f"polishing would cut particles from other places of the movies: {fits}"
        messages.append(warning("movie-rows", f"{text}; {where}", option="flip_y"))
    if options.motion_rows not in {"pixels", check.rows}:
        fits = f"trajectories are taken otherwise: {option('motion_rows', check.rows)} fits the micrographs"
        messages.append(warning("movie-rows", f"{text}; {fits}", option="motion_rows"))
    return messages or [note("movie-rows", text)]
