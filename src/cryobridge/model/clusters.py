"""Points in the plane that lie in groups: how many there are is found by the gaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryobridge.errors import UsageError
from cryobridge.report import counted

if TYPE_CHECKING:
    from cryobridge.model.particles import Floats

# Groups are separate where the gap between them is this many times any gap within them.
SEPARATE = 2.5
# Groups of fewer points than this are points apart, unless most groups are so small. Then their gaps have to be wider:
# of few points some lie apart by chance.
_FEWEST = 5
_FEWEST_OF_SMALL = (2, 1)
_POINTS_OF_SMALL = 20
_SEPARATE_SMALL = 4.0
# More points than this part that belong to no group are a sign that the groups are others.
_MOST_APART = 0.05
_ROUNDS = 100
_TINY = 1e-300


@dataclass(frozen=True)
class Clusters:
    """Groups of points.

    Parameters
    ----------
    index
        (n,) int32, the group of each point; groups are ordered by the x, then the y of their centres.
    centre
        (g, 2) mean of the points of each group.
    separation
        The narrowest gap between groups over the widest gap within one; 1 where there is but one group, infinite where
        all points of each group are equal.
    n_apart
        Points that lie apart from all groups and were put into the nearest one.
    others
        Other numbers of groups that would be separate too, such as of holes where the groups are places in holes.
    """

    index: NDArray[np.int32]
    centre: Floats
    separation: float = 1.0
    n_apart: int = 0
    others: tuple[int, ...] = ()

    @property
    def is_separate(self) -> bool:
        """Whether there are several groups with clear gaps between them."""
        return self.separation >= SEPARATE

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many points each group has, (g,)."""
        return np.bincount(self.index, minlength=len(self.centre))


def cluster_points(points: Floats, n_groups: int | None = None) -> Clusters:
    """Group points by the gaps between them.

    The shortest tree that joins all points is cut where its edges, by length, make the largest leap; an edge counts if
    it joins two parts of several points each, and is at least as long as the distance of its ends to a few neighbours,
    so that single points on the way do not bridge a gap [1]_. The result does not depend on the order of the points,
    nor on their unit and origin. Time is that of sorting.

    Parameters
    ----------
    points
        (n, 2) finite numbers, in any unit.
    n_groups
        How many groups to make. With fewer than there are, the nearest are put together; with more, or where none are
        separate, groups are those with the smallest sum of squared distances to their centres.

    Raises
    ------
    UsageError
        If there are fewer distinct points than groups to be made.

    References
    ----------
    .. [1] Campello, Moulavi and Sander, Density-based clustering based on hierarchical density estimates, 2013.

    Examples
    --------
    >>> found = cluster_points(np.array([[0, 0], [0.1, 0], [5, 0], [5, 0.1], [5.1, 0.1], [0, 0.1]]))
    >>> found.index.tolist(), found.is_separate
    ([0, 0, 1, 1, 1, 0], True)
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    unit = _in_unit_square(points)
    distinct, place, counts = np.unique(unit, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    if n_groups is not None and n_groups > len(distinct):
        raise UsageError(
            f"{counted(n_groups, 'group')} can't be made of {counted(len(distinct), 'distinct position')}",
            option="optics_groups",
            hint="Give a smaller number.",
        )
    found = _by_gaps(distinct, counts)
    if n_groups is not None and n_groups != len(found.centre):
        found = _with_number(distinct, counts, found, n_groups)
    return _ordered(points, found, found.index[place])


def _in_unit_square(points: Floats) -> Floats:
    """Return points moved to the origin and scaled, so that results depend on neither."""
    if not len(points):
        return points
    low = points.min(axis=0)
    size = float((points.max(axis=0) - low).max())
    scaled: Floats = np.round((points - low) / size, 12) if size > 0 else np.zeros_like(points)
    return scaled


def _ordered(points: Floats, found: Clusters, index: NDArray[np.int32]) -> Clusters:
    """Return groups in the order of their centres, with the centres in the unit of the points."""
    n = len(found.centre)
    size = np.maximum(np.bincount(index, minlength=n), 1)
    sums = [np.bincount(index, weights=points[:, axis], minlength=n) for axis in (0, 1)]
    centre = np.stack(sums, axis=1) / size[:, None]
    order = np.lexsort((found.centre[:, 1], found.centre[:, 0]))
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    return Clusters(rank[index], centre[order], found.separation, found.n_apart, found.others)


def _by_gaps(points: Floats, counts: NDArray[np.int64]) -> Clusters:
    """Return the groups of distinct points that their gaps show; one group where they show none."""
    one = Clusters(np.zeros(len(points), np.int32), _centres(points, counts, np.zeros(len(points), np.int32), 1))
    if len(points) < 2:
        return one
    ends = _near_pairs(points)
    for fewest in (_FEWEST, *_FEWEST_OF_SMALL):
        tree = _shortest_tree(points, counts, ends, fewest - 1)
        found = _cut(points, counts, tree, fewest)
        if found is not None:
            return found
    return one


def _near_pairs(points: Floats) -> NDArray[np.int64]:
    """Return pairs of points, (e, 2), among which the shortest tree is: sides of the Delaunay triangulation."""
    from scipy.spatial import Delaunay, QhullError

    if len(points) > 3:
        try:
            corners = Delaunay(points).simplices.astype(np.int64)
        except QhullError:
            corners = None
        if corners is not None and len(np.unique(corners)) == len(points):
            sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]])
            pairs: NDArray[np.int64] = np.unique(np.sort(sides, axis=1), axis=0)
            return pairs
    # A few points, or points on a line: those that follow each other on it.
    along = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    order = np.argsort(points @ along, kind="stable")
    if len(points) > 3:
        return np.stack([order[:-1], order[1:]], axis=1)
    return np.array([(first, second) for first in order for second in order if first < second], np.int64)


@dataclass(frozen=True)
class _Tree:
    """The edges of a tree, by their length."""

    ends: NDArray[np.int64]
    length: Floats


def _shortest_tree(points: Floats, counts: NDArray[np.int64], ends: NDArray[np.int64], n_near: int) -> _Tree:
    """Return the tree with the shortest edges, none of them shorter than to the ``n_near``-th neighbour of its ends."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    length = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
    reach = _reach(points, counts, n_near)
    length = np.maximum(length, reach[ends].max(axis=1))
    n = len(points)
    tree = minimum_spanning_tree(csr_matrix((length, (ends[:, 0], ends[:, 1])), shape=(n, n))).tocoo()
    order = np.lexsort((tree.col, tree.row, tree.data))
    kept = np.stack([tree.row, tree.col], axis=1).astype(np.int64)
    return _Tree(kept[order], tree.data[order].astype(np.float64))


def _reach(points: Floats, counts: NDArray[np.int64], n_near: int) -> Floats:
    """Return how far from each distinct point the ``n_near``-th other one is, (u,)."""
    from scipy.spatial import cKDTree

    if n_near < 1:
        return np.zeros(len(points))
    n_asked = min(n_near + 1, len(points))
    distance, neighbour = map(np.asarray, cKDTree(points).query(points, k=n_asked))
    enough = np.cumsum(counts[neighbour], axis=1) > n_near
    # Where all points are too few, the farthest.
    nearest = np.where(enough.any(axis=1), enough.argmax(axis=1), n_asked - 1)
    reach: Floats = distance[np.arange(len(points)), nearest]
    return reach


def _cut(points: Floats, counts: NDArray[np.int64], tree: _Tree, fewest: int) -> Clusters | None:
    """Return the groups that are left where a tree is cut at the largest leap of its lengths; None where none is."""
    joins = tree.length[_smaller_part(tree, counts) >= fewest]
    # Points on the same place are joined by edges of no length.
    n_points = int(counts.sum())
    rank = (n_points - 1) // 2 - (n_points - len(points))
    within = float(tree.length[rank]) if rank >= 0 else 0.0
    levels = np.maximum.accumulate(np.append(max(within, _TINY), joins))
    leaps = levels[1:] / levels[:-1]
    separate = np.flatnonzero(leaps >= (SEPARATE if fewest == _FEWEST else _SEPARATE_SMALL))
    if not len(separate):
        return None
    best = int(separate[np.argmax(leaps[separate])])
    index, n_parts = _parts(tree, levels[best + 1], len(points))
    size = np.bincount(index, weights=counts, minlength=n_parts)
    is_group = size >= fewest
    n_apart = int(size[~is_group].sum())
    n_groups = int(is_group.sum())
    if n_groups < 2 or n_apart > _MOST_APART * n_points:
        return None
    if fewest < _FEWEST and n_groups * _POINTS_OF_SMALL < n_points:
        return None
    number = np.cumsum(is_group, dtype=np.int32) - 1
    index = number[_nearest_group(points, index, is_group)].astype(np.int32)
    separation = float(leaps[best]) if within > 0 or best > 0 else np.inf
    others = tuple(sorted({len(joins) - int(level) + 1 for level in separate} - {n_groups}))
    return Clusters(index, _centres(points, counts, index, n_groups), separation, n_apart, others)


def _smaller_part(tree: _Tree, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each edge how many points the smaller of the two parts has that it joins, shorter edges first."""
    above = list(range(len(counts)))
    size = counts.tolist()
    smaller = []
    for first, second in tree.ends.tolist():
        roots = []
        for point in (first, second):
            root = point
            while above[root] != root:
                above[root] = above[above[root]]
                root = above[root]
            roots.append(root)
        small, large = sorted(roots, key=lambda root: size[root])
        smaller.append(size[small])
        above[small] = large
        size[large] += size[small]
    return np.array(smaller, np.int64)


def _parts(tree: _Tree, length: float, n_points: int) -> tuple[NDArray[np.int32], int]:
    """Return the part that each point is in, (u,), where edges from this length on are cut, and how many there are."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    kept = tree.ends[tree.length < length]
    joined = csr_matrix((np.ones(len(kept)), (kept[:, 0], kept[:, 1])), shape=(n_points, n_points))
    n_parts, index = connected_components(joined, directed=False)
    return index.astype(np.int32), int(n_parts)


def _nearest_group(points: Floats, part: NDArray[np.int32], is_group: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the part of each point, (u,); of those in none that is a group, that of the nearest point in one."""
    from scipy.spatial import cKDTree

    inside = is_group[part]
    if inside.all():
        return part
    nearest = cKDTree(points[inside]).query(points[~inside])[1]
    part = part.copy()
    part[~inside] = part[inside][nearest]
    return part


def _centres(points: Floats, counts: NDArray[np.int64], index: NDArray[np.int32], n: int) -> Floats:
    """Return the mean point of each group, (g, 2)."""
    size = np.maximum(np.bincount(index, weights=counts, minlength=n), 1)
    sums = [np.bincount(index, weights=points[:, axis] * counts, minlength=n) for axis in (0, 1)]
    centres: Floats = np.stack(sums, axis=1) / size[:, None]
    return centres


def _with_number(points: Floats, counts: NDArray[np.int64], found: Clusters, n_groups: int) -> Clusters:
    """Return so many groups of distinct points, beginning with those that their gaps show."""
    others = tuple(sorted({*found.others, *([len(found.centre)] if found.is_separate else [])} - {n_groups}))
    if n_groups < len(found.centre):
        from scipy.cluster.hierarchy import fcluster, linkage

        of_group = fcluster(linkage(found.centre, "ward"), n_groups, "maxclust").astype(np.int32) - 1
        index = of_group[found.index]
        n_made = int(of_group.max()) + 1  # equal distances are not parted
        return Clusters(index, _centres(points, counts, index, n_made), 1.0, found.n_apart, others)
    index, centre = _nearest_means(points, counts, found.centre, n_groups)
    return Clusters(index, centre, 1.0, 0, others)


def _nearest_means(
    points: Floats, counts: NDArray[np.int64], centre: Floats, n_groups: int
) -> tuple[NDArray[np.int32], Floats]:
    """Return groups by Lloyd's iterations; to the centres that there are, the farthest points are added one by one.

    Centres begin on points, so that each has one; one that loses all begins anew at the farthest point.
    """
    from scipy.spatial import cKDTree

    centre = points[np.unique(np.asarray(cKDTree(points).query(centre)[1], np.int64))]
    distance = np.asarray(cKDTree(centre).query(points)[0])
    while len(centre) < n_groups:
        centre = np.vstack([centre, points[np.argmax(distance)]])
        distance = np.minimum(distance, np.linalg.norm(points - centre[-1], axis=1))
    index: NDArray[np.int32] = np.full(len(points), -1, np.int32)
    for _ in range(_ROUNDS):
        distance, nearest = map(np.asarray, cKDTree(centre).query(points))
        if np.array_equal(nearest, index):
            break
        index = nearest.astype(np.int32)
        empty = np.flatnonzero(np.bincount(index, minlength=n_groups) == 0)
        farthest = np.argsort(-distance, kind="stable")[: len(empty)]
        index[farthest] = empty
        centre = _centres(points, counts, index, n_groups)
    return index, centre
