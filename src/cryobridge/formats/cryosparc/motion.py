"""cryoSPARC's trajectories of motion: where frames are, together (rigid) and locally (spline).

A rigid trajectory is an array (1, n_frames, 2) of x and y. A spline is (2, KZ, KY, KX): coefficients of cubic B-splines
for x and y over time, rows and columns, whose grid spans the whole movie, so that the pixel p of N lies at
p (K - 1) / (N - 1). Beyond its edges the grid goes on by odd reflection, a[-1] = 2 a[0] - a[1], as natural splines do.

cryoSPARC counts both in the rows of its own averages, and as the way of the frame, where RELION has the shift back.
With rows that are reversed against those that RELION reads of the movie, RELION's shift is (-x, +y), with the spline
sampled at (ny - 1) - Y; with the same rows it would be (-x, -y), sampled at Y.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryobridge.errors import FormatError
from cryobridge.formats.arrays import read_npy
from cryobridge.model.motion import LONGEST_SHIFT, MOST_FRAMES, NOT_FOUND, Fit, MotionModel, fitted, patch_centres

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from cryobridge.model.particles import Floats

Unit = Literal["px", "A"]
Rows = Literal["reversed", "stored"]
Zero = Literal["first", "stored"]

# The local model is fitted at so many patches in each direction, more than a spline has points.
_FITTED_AT = 12
# RELION's motion correction has 5 x 5 patches by default.
N_PATCHES = 5
_ROOM = "Leave the motion of this micrograph out, or run motion correction again."
_N_AXES = 4
# Points of a spline along one axis; cryoSPARC's have some tens.
_MOST_POINTS = 500


@dataclass(frozen=True)
class Reading:
    """What the files don't say of trajectories.

    Parameters
    ----------
    unit
        ``px`` of `rigid_motion/psize_A`, or ``A``.
    rows
        Whether cryoSPARC's rows are those that RELION reads, or in reversed order.
    zero
        The frame that counts as not moved: the first one, or that where cryoSPARC's trajectory is zero.
    """

    unit: Unit = "px"
    rows: Rows = "reversed"
    zero: Zero = "first"


@dataclass(frozen=True)
class Converted:
    """A trajectory in RELION's terms, and how well they hold it.

    Parameters
    ----------
    motion
        As RELION reads it.
    fit
        Of the local motion, or None where there is none.
    offset_px
        How far the first frame is from the zero of the rigid trajectory.
    local_offset_px
        The longest local shift in the first frame, where RELION's model has none.
    """

    motion: MotionModel
    fit: Fit | None
    offset_px: float
    local_offset_px: float


def read_rigid(path: Path, index: int = 0) -> Floats:
    """Return the rigid trajectory (n_frames, 2) of a file, as it is there.

    Parameters
    ----------
    path, index
        The `.npy` file, and which of its trajectories.

    Raises
    ------
    FormatError
        If it is no such array, or has values that are no motion.
    """
    values = read_npy(path)
    if values.ndim == 2:
        values = values[np.newaxis]
    if values.ndim != 3 or values.shape[2] != 2 or values.dtype.kind not in "fiu" or not values.size:
        raise FormatError(f"an array {values.shape} is no trajectory; (1, frames, 2) is", path=path, hint=_ROOM)
    if not 0 <= index < len(values) or values.shape[1] > MOST_FRAMES:
        raise FormatError(f"no trajectory {index} in an array {values.shape}", path=path, hint=_ROOM)
    return _numbers(values[index], path)


def read_spline(path: Path) -> Floats:
    """Return the coefficients (2, KZ, KY, KX) of a local trajectory.

    Raises
    ------
    FormatError
        If it is no such array, or has values that are no motion.
    """
    values = read_npy(path)
    if values.ndim != _N_AXES or len(values) != 2 or values.dtype.kind not in "fiu" or not values.size:
        raise FormatError(f"an array {values.shape} is no spline; (2, KZ, KY, KX) is", path=path, hint=_ROOM)
    if max(values.shape) > _MOST_POINTS:
        raise FormatError(f"a spline {values.shape} has more points than any", path=path, hint=_ROOM)
    return _numbers(values, path)


def _numbers(values: NDArray[Any], path: Path) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # of long doubles, and of NaN that signals
        numbers = np.array(values, np.float64)
    if not np.isfinite(numbers).all():
        raise FormatError("values are not numbers", path=path, hint=_ROOM)
    if (numbers == NOT_FOUND).any():
        raise FormatError("-9999 stands for motion that was not found", path=path, hint=_ROOM)
    longest = float(np.abs(numbers).max())
    if longest > LONGEST_SHIFT:
        raise FormatError(f"a shift of {longest:.3g}, as no frame has", path=path, hint=_ROOM)
    return numbers


def spline_shifts(coefficients: Floats, n_frames: int, shape_px: tuple[int, int], y_px: Floats, x_px: Floats) -> Floats:
    """Return what a spline is on a grid of pixels, in every frame, by cryoSPARC's rows and signs.

    Parameters
    ----------
    coefficients
        (2, KZ, KY, KX).
    n_frames, shape_px
        Frames of the trajectory, and ny, nx of the movie.
    y_px, x_px
        (n_y,), (n_x,) from 0.

    Returns
    -------
    Floats
        (n_frames, n_y, n_x, 2), x first.

    Examples
    --------
    >>> ramp = np.zeros((2, 3, 4, 5)) + np.arange(3)[:, None, None]  # grows from 0 to 2
    >>> spline_shifts(ramp, 5, (100, 200), np.array([0.0, 99.0]), np.array([50.0]))[:, 0, 0, 1].round(9).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    n_z, n_y, n_x = coefficients.shape[1:]
    of_time = _kernels(n_z, n_frames, tuple(range(n_frames)))
    of_row = _kernels(n_y, shape_px[0], tuple(y_px.tolist()))
    of_column = _kernels(n_x, shape_px[1], tuple(x_px.tolist()))
    in_place = of_row @ (coefficients @ of_column.T)
    shifts: Floats = (of_time @ in_place.reshape(2, n_z, -1)).reshape(2, n_frames, len(y_px), len(x_px))
    return np.moveaxis(shifts, 0, -1)


@lru_cache(maxsize=64)
def _kernels(n_coefficients: int, n: int, places: tuple[float, ...]) -> Floats:
    """Return the matrix (n_places, K) that takes coefficients along one axis to the values at places 0 to n - 1."""
    at = np.array(places) * ((n_coefficients - 1) / max(1, n - 1))
    knots = np.arange(-1, n_coefficients + 1)
    distance = np.abs(at[:, None] - knots)
    kernel = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6)
    # The coefficients before the first and behind the last, by odd reflection.
    padding = np.zeros((n_coefficients + 2, n_coefficients))
    padding[1:-1] = np.eye(n_coefficients)
    for outer, first, second in ((0, 0, 1), (-1, -1, -2)):
        if n_coefficients == 1:
            padding[outer, 0] = 1.0
        else:
            padding[outer, first], padding[outer, second] = 2.0, -1.0
    matrix: Floats = kernel @ padding
    return matrix


def to_relion(
    rigid: Floats,
    spline: Floats | None,
    shape_px: tuple[int, int],
    *,
    n_frames: int | None = None,
    first_frame: int = 1,
    scale: float = 1.0,
    reading: Reading | None = None,
) -> Converted:
    """Turn trajectories of cryoSPARC into the motion that RELION applies.

    Parameters
    ----------
    rigid
        (n, 2) as `read_rigid` returns it.
    spline
        (2, KZ, KY, KX) or None.
    shape_px
        ny, nx of the movie.
    n_frames, first_frame
        Of the movie, where it has more frames than the trajectory; the first of them, from 1.
    scale
        Pixels of the movie for one of the trajectory's units.
    reading
        What the files don't say.

    Raises
    ------
    CryobridgeError
        If the local motion can't be fitted.

    Examples
    --------
    >>> to_relion(np.array([[0.0, 0.0], [1.0, 0.5]]), None, (100, 200)).motion.global_px.tolist()
    [[0.0, 0.0], [-1.0, 0.5]]
    """
    reading = reading or Reading()
    signs = _signs(reading.rows) * scale
    moved = rigid * signs
    offset = moved[0].copy()
    fit, local_offset_px = None, 0.0
    if spline is not None:
        local, at_first = _local_shifts(spline, len(rigid), shape_px, _FITTED_AT, signs, reading.rows)
        local_offset_px = float(np.linalg.norm(at_first, axis=-1).max())
        fit = fitted(local, *patch_centres(_FITTED_AT, _FITTED_AT))
        if reading.zero == "stored":
            # The model can't hold what the first frame has; the part that all places share goes to the whole frame.
            moved = moved + at_first.mean(axis=(0, 1))
    if reading.zero == "first":
        moved = moved - offset
    whole = np.full((len(rigid) if n_frames is None else n_frames, 2), np.nan)
    whole[first_frame - 1 : first_frame - 1 + len(rigid)] = moved + 0.0  # no -0
    motion = MotionModel(whole, shape_px, None if fit is None else fit.coefficients, first_frame)
    return Converted(motion, fit, float(np.linalg.norm(offset)), local_offset_px)


def patch_shifts(
    spline: Floats, n_frames: int, shape_px: tuple[int, int], *, scale: float = 1.0, rows: Rows = "reversed"
) -> Floats:
    """Return the local shifts (n_frames, 5, 5, 2) at the centres of 5 x 5 patches, as RELION lists them.

    Parameters
    ----------
    spline, n_frames
        Coefficients, and the frames of the trajectory; the first one has no shift.
    shape_px, scale, rows
        As `to_relion` takes them.
    """
    return _local_shifts(spline, n_frames, shape_px, N_PATCHES, _signs(rows) * scale, rows)[0]


def _signs(rows: Rows) -> Floats:
    return np.array([-1.0, 1.0 if rows == "reversed" else -1.0])


def _local_shifts(
    spline: Floats, n_frames: int, shape_px: tuple[int, int], n_patches: int, signs: Floats, rows: Rows
) -> tuple[Floats, Floats]:
    """Return the shifts at the centres of patches less those of the first frame, and those of the first frame."""
    ny, nx = shape_px
    y, x = patch_centres(n_patches, n_patches)
    y_px = np.clip((ny - 1) - y * ny if rows == "reversed" else y * ny, 0, ny - 1)
    shifts = spline_shifts(spline, n_frames, shape_px, y_px, np.clip(x * nx, 0, nx - 1)) * signs
    return shifts - shifts[:1], shifts[0]
