"""Every convention of orientation, shift and coordinate, in one place.

The pose that the rest of cryobridge works with is RELION's matrix A, the one of ``Euler_angles2matrix``: it takes
the coordinates of the reference to those of the view, and the view is projected along its z axis. cryoSPARC's
rotation vector v gives the transpose, ``A = exp([v]x).T``, where ``[v]x`` is the cross-product matrix; in scipy's
words ``A.T == Rotation.from_rotvec(v) == Rotation.from_euler("ZYZ", [rot, tilt, psi])`` with intrinsic axes.
Angles describe a pose ambiguously (at tilt 0 and 180, and a rotation vector at length π), so compare matrices.

Arrays are float64 with one row a particle; x comes before y except in an array's shape, which is ``[ny, nx]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryobridge.errors import CryobridgeError
from cryobridge.report import part_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]

# Below this sine of the tilt RELION takes the tilt to be 0 or 180 and rot to be 0. With the same bound here both
# programs agree on which poses those are; the matrix moves by at most as much.
_GIMBAL_SINE = 16 * float(np.finfo(np.float32).eps)
# Deviations from a rotation: the first is rounding in float64, the second is beyond any file's rounding.
_ORTHONORMAL = 1e-12
_NOT_A_ROTATION = 1e-2
# What is not finite stays so; the checks of a job report it, once, instead of a warning from each formula.
_QUIETLY = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@_QUIETLY
def rotvec_to_matrix(rotvec: Numbers) -> Floats:
    """Turn cryoSPARC's 3D poses into RELION's matrices.

    ``A = exp([v]x).T`` by Rodrigues' formula. The length of a vector may exceed π, as it does in real files.

    Parameters
    ----------
    rotvec
        (n, 3) rotation vectors in radians, as in ``alignments3D/pose``.

    Returns
    -------
    numpy.ndarray
        (n, 3, 3) matrices A.
    """
    x, y, z = np.asarray(rotvec, dtype=np.float64).T
    angle = np.sqrt(x * x + y * y + z * z)
    # sin θ / θ and (1 - cos θ) / θ², which hold at 0 too; numpy's sinc has a π in it.
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    matrix = np.empty((len(angle), 3, 3))
    for row, (own, others) in enumerate(((x, (y, z)), (y, (z, x)), (z, (x, y)))):
        after = (row + 1) % 3
        matrix[:, row, row] = 1.0 - second * (others[0] * others[0] + others[1] * others[1])
        product, turn = second * own * others[0], first * others[1]
        matrix[:, row, after] = product + turn
        matrix[:, after, row] = product - turn
    return matrix


@_QUIETLY
def matrix_to_rotvec(matrix: Numbers) -> Floats:
    """Turn RELION's matrices into cryoSPARC's 3D poses.

    The inverse of `rotvec_to_matrix`, by way of the quaternion, whose largest component is computed first; hence
    exact near 0 and near π. At π itself the sign of the vector is arbitrary.

    Parameters
    ----------
    matrix
        (n, 3, 3) matrices A; they are made orthonormal first.

    Returns
    -------
    numpy.ndarray
        (n, 3) rotation vectors in radians, of length 0 to π.

    Raises
    ------
    CryobridgeError
        If a matrix is not a rotation.
    """
    from scipy.spatial.transform import Rotation

    rotvec: Floats = Rotation.from_matrix(orthonormalise(matrix).transpose(0, 2, 1)).as_rotvec()
    return rotvec


@_QUIETLY
def euler_to_matrix(rot_deg: Numbers, tilt_deg: Numbers, psi_deg: Numbers) -> Floats:
    """Turn RELION's Euler angles into matrices.

    ``A = Z(psi) Y(tilt) Z(rot)``, where Z(a) has the rows ``[cos a, sin a, 0], [-sin a, cos a, 0], [0, 0, 1]`` and
    Y(b) the rows ``[cos b, 0, -sin b], [0, 1, 0], [sin b, 0, cos b]``: RELION's ``Euler_angles2matrix``.

    Parameters
    ----------
    rot_deg, tilt_deg, psi_deg
        (n,) angles in degrees: rlnAngleRot, rlnAngleTilt, rlnAnglePsi.

    Returns
    -------
    numpy.ndarray
        (n, 3, 3) matrices A.
    """
    cos_rot, sin_rot = _cos_sin(rot_deg)
    cos_tilt, sin_tilt = _cos_sin(tilt_deg)
    cos_psi, sin_psi = _cos_sin(psi_deg)
    matrix = np.empty((len(cos_rot), 3, 3))
    matrix[:, 0, 0] = cos_psi * cos_tilt * cos_rot - sin_psi * sin_rot
    matrix[:, 0, 1] = cos_psi * cos_tilt * sin_rot + sin_psi * cos_rot
    matrix[:, 0, 2] = -cos_psi * sin_tilt
    matrix[:, 1, 0] = -sin_psi * cos_tilt * cos_rot - cos_psi * sin_rot
    matrix[:, 1, 1] = -sin_psi * cos_tilt * sin_rot + cos_psi * cos_rot
    matrix[:, 1, 2] = sin_psi * sin_tilt
    matrix[:, 2, 0] = sin_tilt * cos_rot
    matrix[:, 2, 1] = sin_tilt * sin_rot
    matrix[:, 2, 2] = cos_tilt
    return matrix


@_QUIETLY
def matrix_to_euler(matrix: Numbers) -> tuple[Floats, Floats, Floats]:
    """Turn matrices into RELION's Euler angles.

    rot and tilt are the direction of the third row. psi is what is left when they are undone: the second column of
    ``A Z(rot).T`` is ``[sin psi, cos psi, 0]`` at any tilt, so that psi makes up for a rot which, close to tilt 0
    or 180, is determined badly.

    Parameters
    ----------
    matrix
        (n, 3, 3) matrices A; they are made orthonormal first.

    Returns
    -------
    rot_deg, tilt_deg, psi_deg
        (n,) angles in degrees: rot and psi in [-180, 180], tilt in [0, 180]. Where the sine of the tilt is below
        2e-6, tilt is 0 or 180 and rot is 0, as in RELION.

    Raises
    ------
    CryobridgeError
        If a matrix is not a rotation.
    """
    a = orthonormalise(matrix)
    sin_tilt = np.hypot(a[:, 2, 0], a[:, 2, 1])
    gimbal = sin_tilt < _GIMBAL_SINE
    rot = np.where(gimbal, 0.0, np.arctan2(a[:, 2, 1], a[:, 2, 0]))
    tilt = np.arctan2(np.where(gimbal, 0.0, sin_tilt), a[:, 2, 2])
    cos_rot, sin_rot = np.cos(rot), np.sin(rot)
    psi = np.arctan2(
        a[:, 0, 1] * cos_rot - a[:, 0, 0] * sin_rot,
        a[:, 1, 1] * cos_rot - a[:, 1, 0] * sin_rot,
    )
    return np.degrees(rot), np.degrees(tilt), np.degrees(psi)


def orthonormalise(matrix: Numbers) -> Floats:
    """Return the nearest rotation to each matrix.

    For matrices that went through float32 or text and are orthonormal only to 1e-3 or better. Newton's iteration
    for the polar decomposition, ``A <- A - A (A.T A - 1) / 2``, squares the deviation at each step.

    Parameters
    ----------
    matrix
        (n, 3, 3) matrices.

    Returns
    -------
    numpy.ndarray
        (n, 3, 3) rotations; the very array given where it is float64 and nothing is to be done.

    Raises
    ------
    CryobridgeError
        If a matrix is further than rounding from a rotation: stretched, mirrored or not a number.
    """
    rotation = np.asarray(matrix, dtype=np.float64)
    deviation = _deviation(rotation)
    wrong = ~(deviation < _NOT_A_ROTATION)
    if wrong.any():
        rows = np.flatnonzero(wrong)
        raise CryobridgeError(
            f"{part_of(len(rows), len(rotation), 'matrix', plural='matrices')} not rotations",
            rows=tuple(rows[:5].tolist()),
            count=len(rows),
            hint="A pose must be a 3 × 3 matrix with orthonormal rows and determinant +1. "
            "Check that the file holds rotations and was written completely.",
        )
    while deviation.max(initial=0.0) > _ORTHONORMAL:
        excess = rotation.transpose(0, 2, 1) @ rotation - np.eye(3)
        rotation = rotation - 0.5 * (rotation @ excess)
        deviation = _deviation(rotation)
    return rotation


@_QUIETLY
def shift_px_to_A(shift_px: Numbers, pixel_size_A: Numbers | float) -> Floats:
    """Turn shifts in pixels into ångström.

    ``rlnOriginXAngst = shift[0] * psize``, with the same sign for x and y: both programs subtract the shift to
    find the particle's centre.

    Parameters
    ----------
    shift_px
        (n, 2) x, y in pixels.
    pixel_size_A
        (n,) or one value: the pixel that the shift is counted in. For cryoSPARC it is ``alignments*/psize_A``,
        which differs from ``blob/psize_A`` when a job worked on downsampled images.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y in ångström.
    """
    return np.asarray(shift_px, dtype=np.float64) * _per_row(pixel_size_A)


@_QUIETLY
def shift_A_to_px(shift_A: Numbers, pixel_size_A: Numbers | float) -> Floats:
    """Turn shifts in ångström into pixels of the given size; the inverse of `shift_px_to_A`.

    Parameters
    ----------
    shift_A
        (n, 2) x, y in ångström.
    pixel_size_A
        (n,) or one value.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y in pixels.
    """
    return np.asarray(shift_A, dtype=np.float64) / _per_row(pixel_size_A)


@_QUIETLY
def shift_A_to_box_fraction(shift_A: Numbers, pixel_size_A: Numbers | float, box_px: Numbers | int) -> Floats:
    """Turn shifts in ångström into cryoDRGN's and RECOVAR's translations, ``shift_A / (psize * box)``.

    Parameters
    ----------
    shift_A
        (n, 2) x, y in ångström.
    pixel_size_A, box_px
        (n,) or one value each: pixel size and box of the stored image. Their product is what counts, so the
        fraction does not change with downsampling.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y as a fraction of the box.
    """
    return np.asarray(shift_A, dtype=np.float64) / (_per_row(pixel_size_A) * _per_row(box_px))


@_QUIETLY
def box_fraction_to_shift_A(fraction: Numbers, pixel_size_A: Numbers | float, box_px: Numbers | int) -> Floats:
    """Turn cryoDRGN's and RECOVAR's translations into ångström; the inverse of `shift_A_to_box_fraction`.

    Parameters
    ----------
    fraction
        (n, 2) x, y as a fraction of the box.
    pixel_size_A, box_px
        (n,) or one value each.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y in ångström.
    """
    return np.asarray(fraction, dtype=np.float64) * (_per_row(pixel_size_A) * _per_row(box_px))


def fractions_to_px(
    fraction_xy: Numbers,
    shape_px: Numbers,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    swap_xy: bool = False,
) -> Floats:
    """Turn cryoSPARC's coordinates into pixels of the micrograph.

    ``x = nx * fx`` and ``y = ny * fy``: both address the stored rows, so that no flip is needed while both
    programs read the same micrograph file. ``flip_y`` is for a micrograph that was written anew with its rows
    reversed (motion correction repeated in RELION from TIFF movies).

    Parameters
    ----------
    fraction_xy
        (n, 2) ``location/center_x_frac``, ``location/center_y_frac``.
    shape_px
        (n, 2) or (2,) ny, nx: ``location/micrograph_shape``.
    flip_x, flip_y
        Count from the other edge: ``nx - x``, ``ny - y``.
    swap_xy
        Exchange x and y, after the flips.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y in pixels; the first stored pixel is 0.
    """
    size_xy = np.asarray(shape_px, dtype=np.float64)[..., ::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        coordinate = _flipped(np.asarray(fraction_xy, dtype=np.float64) * size_xy, size_xy, flip_x, flip_y)
    return np.ascontiguousarray(coordinate[:, ::-1]) if swap_xy else coordinate


# Single-precision fractions of a micrograph's 5,000 pixels carry no more, and RELION cuts off what is behind the point.
_COORDINATE_DIGITS = 3


def round_px(coordinate_px: Numbers, *, subpixel: bool = True) -> Floats:
    """Round coordinates (n, 2) in pixels to 3 decimals, or to whole pixels, as they are written for RELION.

    Examples
    --------
    >>> round_px(np.array([[1110.999985, 0.25]])).tolist()
    [[1111.0, 0.25]]
    """
    return rounded(coordinate_px, _COORDINATE_DIGITS if subpixel else 0)


def rounded(values: Numbers, digits: int) -> Floats:
    """Round to decimals; numbers too large to have any stay as they are, and there is no negative zero.

    Examples
    --------
    >>> rounded(np.array([1.26, -0.01, 1e308]), 1).tolist()
    [1.3, 0.0, 1e+308]
    """
    exact = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        found: Floats = exact.round(digits) + 0.0
    return np.where(np.isfinite(found), found, exact)


def px_to_fractions(
    coordinate_px: Numbers,
    shape_px: Numbers,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    swap_xy: bool = False,
) -> Floats:
    """Turn pixels of a micrograph into cryoSPARC's coordinates; the inverse of `fractions_to_px`.

    Parameters
    ----------
    coordinate_px
        (n, 2) x, y in pixels.
    shape_px
        (n, 2) or (2,) ny, nx of the micrograph that cryoSPARC has.
    flip_x, flip_y, swap_xy
        As given to `fractions_to_px`; they are undone in the reverse order.

    Returns
    -------
    numpy.ndarray
        (n, 2) x, y as fractions of nx and ny.
    """
    size_xy = np.asarray(shape_px, dtype=np.float64)[..., ::-1]
    coordinate = np.asarray(coordinate_px, dtype=np.float64)
    if swap_xy:
        coordinate = coordinate[:, ::-1]
    return _flipped(coordinate, size_xy, flip_x, flip_y) / size_xy


def turn_matrix(matrix: Numbers, turn: Numbers) -> Floats:
    """Return the poses (n, 3, 3) of images that lie otherwise: mirrored, turned by quarters, or both.

    An image is ``I(u) = ∫ V(A.T (u, z)) dz``, and one that lies otherwise has ``I'(T u) = I(u)``. With z' = det(T) z
    the integral stays the same, so that ``A' = diag(T, det T) A``: a mirrored image is a projection of the same map
    seen from behind, and the map keeps its hand.

    Parameters
    ----------
    matrix
        (n, 3, 3) matrices A.
    turn
        (2, 2) T, of one 1 or -1 in each row and column: it takes x, y of the image to those of the other, such as
        `cryobridge.model.convention.Convention.turn`.

    Examples
    --------
    >>> turn_matrix(np.eye(3)[np.newaxis], np.diag([1, -1]))[0].diagonal().tolist()
    [1.0, -1.0, -1.0]
    """
    order, sign = _axes_of(turn)
    signs = np.append(sign, _angle_of(turn)[0])
    turned: Floats = np.asarray(matrix, dtype=np.float64)[:, [*order, 2]] * signs[:, np.newaxis]
    return turned


def turn_vectors(vector: Numbers, turn: Numbers) -> Floats:
    """Return vectors (n, 2), such as shifts, of images that lie otherwise (see `turn_matrix`), in any unit."""
    order, sign = _axes_of(turn)
    turned: Floats = np.asarray(vector, dtype=np.float64)[:, order] * sign
    return turned


def turn_direction_rad(angle_rad: Numbers, turn: Numbers) -> Floats:
    """Return directions (n,), such as defocus angles, in images that lie otherwise (see `turn_matrix`)."""
    sign, at_rad = _angle_of(turn)
    return at_rad + sign * np.asarray(angle_rad, dtype=np.float64)


def turn_harmonics(coefficients: Numbers, turn: Numbers, order: int) -> Floats:
    """Return the coefficients (n, 2) of cos mφ and sin mφ in images that lie otherwise (see `turn_matrix`).

    With φ' = s φ + a, where s = det T, cos mφ = cos ma cos mφ' + sin ma sin mφ', and sin mφ = s (cos ma sin mφ' -
    sin ma cos mφ').
    """
    sign, at_rad = _angle_of(turn)
    cosine, sine = np.rint([np.cos(order * at_rad), np.sin(order * at_rad)])
    a, b = np.asarray(coefficients, dtype=np.float64).T
    turned: Floats = np.column_stack([cosine * a - sign * sine * b, sine * a + sign * cosine * b]) + 0.0
    return turned


def _axes_of(turn: Numbers) -> tuple[list[int], Floats]:
    """Return which of the old axes each new one is, and its sign."""
    turn = np.asarray(turn, dtype=np.float64)
    order = np.abs(turn).argmax(axis=1).tolist()
    return order, turn.sum(axis=1)


def _angle_of(turn: Numbers) -> tuple[float, float]:
    """Return s and a of φ' = s φ + a for a direction φ."""
    (xx, xy), (yx, yy) = np.asarray(turn, dtype=np.float64)
    return float(xx * yy - xy * yx), float(np.arctan2(yx, xx))


# Takes x, y of an image to those of one with reversed rows.
_REVERSED_ROWS = np.diag([1.0, -1.0])


def mirror_matrix_y(matrix: Numbers) -> Floats:
    """Return the poses (n, 3, 3) of images whose rows are reversed, ``diag(1, -1, -1) A`` (see `turn_matrix`).

    With it go `mirror_shift_y`, and `CTF.turned` and `Aberrations.turned` of `cryobridge.model.particles`.
    """
    return turn_matrix(matrix, _REVERSED_ROWS)


def mirror_shift_y(shift: Numbers) -> Floats:
    """Return the shifts (n, 2) of images whose rows are reversed: y changes its sign, in any unit."""
    return turn_vectors(shift, _REVERSED_ROWS)


def mirror_defocus_angle_y(defocus_angle: Numbers) -> Floats:
    """Return the defocus angles (n,) of images whose rows are reversed: the sign changes, in any unit."""
    return turn_direction_rad(defocus_angle, _REVERSED_ROWS)


def _cos_sin(angle_deg: Numbers) -> tuple[Floats, Floats]:
    angle_rad = np.radians(np.asarray(angle_deg, dtype=np.float64))
    return np.cos(angle_rad), np.sin(angle_rad)


def _per_row(value: Numbers | float) -> Floats:
    """Return a value for each row as a column (n, 1), which multiplies (n, 2); one value as (1, 1)."""
    return np.asarray(value, dtype=np.float64).reshape(-1, 1)


def _flipped(coordinate: Floats, size_xy: Floats, flip_x: bool, flip_y: bool) -> Floats:
    flipped: Floats = np.where([flip_x, flip_y], size_xy - coordinate, coordinate)
    return flipped


def _deviation(matrix: Floats) -> Floats:
    """Return how far each matrix is from a rotation, (n,).

    A rotation's rows a, b, c have ``a.a = b.b = 1``, ``a.b = 0`` and ``c = a × b``; the last sees a mirrored matrix
    too. The largest excess of these six numbers is returned, NaN where there is one.
    """
    a, b, c = matrix[:, 0], matrix[:, 1], matrix[:, 2]
    with np.errstate(invalid="ignore", over="ignore"):
        excesses = (
            np.einsum("ij,ij->i", a, a) - 1.0,
            np.einsum("ij,ij->i", b, b) - 1.0,
            np.einsum("ij,ij->i", a, b),
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1] - c[:, 0],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2] - c[:, 1],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] - c[:, 2],
        )
        largest: Floats = np.abs(excesses).max(axis=0)
    return largest
