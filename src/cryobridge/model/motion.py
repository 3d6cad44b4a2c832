"""Motion of a micrograph during its exposure, in the terms of RELION's polishing: shifts of frames and a local model.

A shift is what moves a frame back onto the first: a particle that truly moved by +d pixels has the shift -d. Shifts are
pixels of the movie, x first; rows count from the first one as RELION reads the movie. At the place X, Y and the frame f
the shift is

    G(f) + sum over i of (c[3i] z + c[3i+1] z^2 + c[3i+2] z^3) s_i    with    s = (1, x, x^2, y, y^2, xy)

for each of the two directions, where x = X / nx - 0.5, y = Y / ny - 0.5 and z = f - first frame. That is version 1 of
RELION's motion models, found by running RELION 3.1.3: its tracks of metadata written by hand differ from this by less
than 0.001 px.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import CryobridgeError

if TYPE_CHECKING:
    from cryobridge.model.particles import Floats

# Of each direction: three powers of time for each of six terms of place.
N_COEFFICIENTS = 18
_N_POWERS = 3
_N_PLACES = 6
# Frames whose motion was not found, in RELION's files.
NOT_FOUND = -9999.0
# What no movie exceeds: its frames, and how far one has moved, in pixels or Å.
MOST_FRAMES, LONGEST_SHIFT = 10_000, 1e6


@dataclass(frozen=True)
class MotionModel:
    """The motion of one micrograph.

    Parameters
    ----------
    global_px
        (n_frames, 2) x and y of every frame of the movie, in its pixels; NaN where frames are not used.
    shape_px
        ny, nx of the movie.
    coefficients
        (2, 18) of the local motion, x first, or None where there is none.
    first_frame
        From 1: the frame at which time begins.
    """

    global_px: Floats
    shape_px: tuple[int, int]
    coefficients: Floats | None = None
    first_frame: int = 1

    @property
    def n_frames(self) -> int:
        """How many frames the movie has."""
        return len(self.global_px)

    def shifts_px(self, places_px: Floats) -> Floats:
        """Return the shift at each place in each frame.

        Parameters
        ----------
        places_px
            (n, 2) x, y in pixels of the movie, the first stored pixel 0.

        Returns
        -------
        Floats
            (n, n_frames, 2) pixels.

        Examples
        --------
        >>> motion = MotionModel(np.array([[0.0, 0.0], [1.0, -0.5]]), (100, 200))
        >>> motion.shifts_px(np.array([[50.0, 20.0]])).tolist()
        [[[0.0, 0.0], [1.0, -0.5]]]
        """
        together: Floats = np.broadcast_to(self.global_px, (len(places_px), *self.global_px.shape))
        if self.coefficients is None:
            return together.copy()
        z = np.arange(1, self.n_frames + 1) - self.first_frame
        return together + evaluated(self.coefficients, normalised(places_px, self.shape_px), z)

    def path_px(self, first: int = 1, last: int | None = None) -> float:
        """Return the length of the global motion between two frames, counted from 1; frames not used are skipped."""
        part = self.global_px[first - 1 : last]
        part = part[np.isfinite(part).all(axis=1)]
        return float(np.linalg.norm(np.diff(part, axis=0), axis=1).sum())


def normalised(places_px: Floats, shape_px: tuple[int, int]) -> Floats:
    """Return places (n, 2) in pixels as fractions of the movie's edges, from -0.5 to 0.5."""
    fractions: Floats = places_px / np.array(shape_px[::-1]) - 0.5
    return fractions


def evaluated(coefficients: Floats, places: Floats, z: NDArray[np.number]) -> Floats:
    """Return the local shifts (n, n_frames, 2) at places (n, 2) from -0.5 to 0.5 and frames z from the first one."""
    by_power = coefficients.reshape(2, _N_PLACES, _N_POWERS)
    shifts: Floats = _of_place(places) @ by_power @ _of_time(z).T
    return np.moveaxis(shifts, 0, -1)


def _of_place(places: Floats) -> Floats:
    x, y = places.T
    return np.stack([np.ones_like(x), x, x**2, y, y**2, x * y], axis=1)


def _of_time(z: NDArray[np.number]) -> Floats:
    times: Floats = np.asarray(z, np.float64)[:, None] ** np.arange(1, _N_POWERS + 1)
    return times


@dataclass(frozen=True)
class Fit:
    """A local model that was fitted to shifts.

    Parameters
    ----------
    coefficients
        (2, 18), x first.
    rms_px, largest_px
        Length of the shift that the model leaves over, on average and at most.
    """

    coefficients: Floats
    rms_px: float
    largest_px: float


def patch_centres(n_y: int, n_x: int) -> tuple[Floats, Floats]:
    """Return y and x of the centres of so many patches, as fractions of the micrograph's edges from 0 to 1."""
    return (np.arange(n_y) + 0.5) / n_y, (np.arange(n_x) + 0.5) / n_x


def fitted(shifts_px: Floats, y: Floats, x: Floats) -> Fit:
    """Fit the local model to the shifts on a grid of patches, by least squares.

    The model is a product of terms of place and powers of time, so that the solution is that of both one after the
    other. Time is counted from the first frame that is given, where the model has no shift.

    Parameters
    ----------
    shifts_px
        (n_frames, n_y, n_x, 2) x and y, of the frames that are used.
    y, x
        (n_y,), (n_x,) of the patches, as fractions of the edges (`patch_centres`).

    Raises
    ------
    CryobridgeError
        If a shift is not a number.

    Examples
    --------
    >>> y, x = patch_centres(5, 5)
    >>> shifts = np.zeros((6, 5, 5, 2))
    >>> shifts[..., 0] = np.arange(6)[:, None, None] * (x - 0.5)  # grows with x and with time
    >>> fit = fitted(shifts, y, x)
    >>> round(float(fit.coefficients[0, 3]), 9), round(fit.rms_px, 9)
    (1.0, 0.0)
    """
    if not np.isfinite(shifts_px).all():
        raise CryobridgeError("local shifts are not numbers", hint="Leave the local motion of this micrograph out.")
    n_frames = len(shifts_px)
    of_place, to_place = _place_matrices(tuple(y.tolist()), tuple(x.tolist()))
    of_time, to_time = _time_matrices(n_frames)
    given = np.moveaxis(shifts_px, -1, 0).reshape(2, n_frames, -1)
    found = to_time @ given @ to_place.T  # (direction, power of z, term of place)
    rest = given - of_time @ found @ of_place.T
    lengths = (rest**2).sum(axis=0)
    return Fit(
        found.swapaxes(1, 2).reshape(2, N_COEFFICIENTS),
        float(np.sqrt(lengths.mean())) if lengths.size else 0.0,
        float(np.sqrt(lengths.max(initial=0.0))),
    )


@lru_cache(maxsize=16)
def _place_matrices(y: tuple[float, ...], x: tuple[float, ...]) -> tuple[Floats, Floats]:
    grid = np.stack(np.meshgrid(np.array(x), np.array(y)), axis=-1).reshape(-1, 2) - 0.5
    return _with_inverse(_of_place(grid))


@lru_cache(maxsize=64)
def _time_matrices(n_frames: int) -> tuple[Floats, Floats]:
    return _with_inverse(_of_time(np.arange(n_frames)))


def _with_inverse(matrix: Floats) -> tuple[Floats, Floats]:
    """Return a matrix and what solves it by least squares; columns are scaled first, since powers of time grow fast."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    return matrix, np.linalg.pinv(matrix / scale) / scale[:, None]


# Where RELION parts early from late motion, e/Å².
_EARLY_E_A2 = 4.0


def accumulated_A(
    motion: MotionModel, pixel_size_A: float, dose_per_frame_e_A2: float, pre_exposure_e_A2: float = 0.0
) -> tuple[float, float, float]:
    """Return the length of the global motion in Å: in all, and up to and after a dose of 4 e/Å², as RELION counts.

    Examples
    --------
    >>> motion = MotionModel(np.array([[0, 0], [3.0, 4.0], [3.0, 5.0]]), (100, 100))
    >>> accumulated_A(motion, 2.0, 2.0)
    (12.0, 10.0, 2.0)
    """
    last = int(np.clip(np.floor((_EARLY_E_A2 - pre_exposure_e_A2) / dose_per_frame_e_A2), 0, motion.n_frames))
    total = motion.path_px() * pixel_size_A
    early = motion.path_px(1, last) * pixel_size_A if last else 0.0
    return total, early, total - early
