"""Points that are each other's nearest, and rows that are one point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryobridge.model.particles import Floats

Rows = NDArray[np.int64]
# Å between micrographs in a third coordinate: one tree serves all of them, and is as quick as one for each.
_APART_A = 1e4
_FACTOR, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


def mutual_nearest(
    first_A: Floats, first_on: Rows, other_A: Floats, other_on: Rows, within_A: float
) -> tuple[Rows, Rows, Floats]:
    """Find the points of two sets that are each other's nearest, on the same micrograph.

    Parameters
    ----------
    first_A, other_A
        (n, 2) and (m, 2) x, y in Å; finite.
    first_on, other_on
        (n,) and (m,) the micrograph, counted from 0.
    within_A
        The largest distance.

    Returns
    -------
    first, other
        (k,) rows of the pairs.
    distance_A
        (k,) between them.

    Examples
    --------
    >>> on = np.zeros(2, int)
    >>> mutual_nearest(np.array([[0.0, 0], [9, 0]]), on, np.array([[8.0, 0], [6, 0]]), on, 5.0)[1].tolist()
    [0]
    """
    from scipy.spatial import cKDTree

    apart_A = max(_APART_A, 4 * within_A)
    points, others = (np.column_stack([xy, apart_A * on]) for xy, on in ((first_A, first_on), (other_A, other_on)))
    if len(points) == 0 or len(others) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    # A tree that is not balanced is made in half the time. The limit itself is within.
    limit_A = np.nextafter(within_A, np.inf)
    trees = [cKDTree(each, balanced_tree=False, compact_nodes=False) for each in (points, others)]
    distance, nearest = map(np.asarray, trees[1].query(points, distance_upper_bound=limit_A))
    first = np.flatnonzero(np.isfinite(distance))
    other = nearest[first]
    back = np.asarray(trees[0].query(others[other], distance_upper_bound=limit_A)[1])
    is_mutual = back == first
    return first[is_mutual], other[is_mutual].astype(np.int64), distance[first][is_mutual]


def same_points(xy: Floats, on: Rows) -> tuple[Rows, Rows]:
    """Return the first row of each distinct point, (k,), and the point of each row, (n,).

    Parameters
    ----------
    xy
        (n, 2) exact coordinates: those that differ in the last bit are two.
    on
        (n,) the micrograph.

    Examples
    --------
    >>> first, point = same_points(np.array([[1.0, 2], [3, 4], [1, 2]]), np.zeros(3, int))
    >>> first.tolist(), point.tolist()
    ([0, 1], [0, 1, 0])
    """
    parts = [np.ascontiguousarray(axis).view(np.uint64) for axis in (xy + 0.0).T] + [on.astype(np.uint64)]
    key: NDArray[np.uint64] = np.zeros(len(on), np.uint64)
    for part in parts:
        key = (key + part) * _FACTOR
        key ^= key >> _HALF
    # Sorted by a number that equal points share, which is quicker; that they are equal is looked up.
    order = np.argsort(key, kind="stable")
    is_new = np.ones(len(order), bool)
    is_new[1:] = np.any([part[order[1:]] != part[order[:-1]] for part in parts], axis=0)
    if (is_new[1:] & (key[order[1:]] == key[order[:-1]])).any():  # different points of one number
        order = np.lexsort(parts)
        is_new[1:] = np.any([part[order[1:]] != part[order[:-1]] for part in parts], axis=0)
    group = np.cumsum(is_new) - 1
    first = order[is_new]  # the sort is stable: the first of each
    rank = np.empty(len(first), np.int64)
    by_row = np.argsort(first)
    rank[by_row] = np.arange(len(first))
    point = np.empty(len(order), np.int64)
    point[order] = rank[group]
    return first[by_row], point
