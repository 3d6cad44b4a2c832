import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryobridge.errors import UsageError
from cryobridge.model.clusters import Clusters, cluster_points

LATTICE = np.array([[1, 0.1], [-0.12, 1.03]])


def holes(nx, ny):
    """Centres of a pattern of holes, (nx × ny, 2), one unit apart."""
    return np.array([(x, y) for x in range(nx) for y in range(ny)], float) @ LATTICE


def shifts(centres, n, spread, seed=0):
    """Points around centres, each of them at least twice, and which centre each is of."""
    random = np.random.default_rng(seed)
    of = np.concatenate([np.repeat(np.arange(len(centres)), 2), random.integers(0, len(centres), n)])
    return centres[of] + random.normal(0, spread, (len(of), 2)), of


def same_groups(first, second):
    """Whether two labellings make the same groups, whatever their numbers."""
    pairs = {(int(a), int(b)) for a, b in zip(first, second, strict=True)}
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


@pytest.mark.parametrize(
    ("nx", "ny", "n", "spread"),
    [(3, 3, 900, 0.02), (3, 3, 900, 0.12), (7, 7, 10_000, 0.08), (5, 5, 40, 0.01), (2, 1, 6, 0.01), (9, 1, 500, 0.05)],
)
def test_the_number_of_groups_is_found_by_the_gaps(nx, ny, n, spread):
    points, of = shifts(holes(nx, ny), n, spread)
    found = cluster_points(points)
    assert same_groups(found.index, of)
    assert found.is_separate
    assert found.n_apart <= 0.005 * len(points)
    np.testing.assert_array_equal(found.counts, np.bincount(found.index))
    np.testing.assert_allclose(found.centre[found.index[0]], points[found.index == found.index[0]].mean(axis=0))


def test_groups_are_ordered_by_their_centres():
    points, _ = shifts(holes(3, 3), 300, 0.01)
    centre = cluster_points(points).centre
    assert centre[:, 0].tolist() == sorted(centre[:, 0])


@pytest.mark.parametrize("n", [30, 100, 1000, 5000])
@pytest.mark.parametrize("seed", range(4))
def test_points_without_gaps_are_one_group(n, seed):
    random = np.random.default_rng(seed)
    for points in (random.normal(size=(n, 2)), random.uniform(size=(n, 2))):
        found = cluster_points(points)
        assert len(found.centre) == 1
        assert not found.is_separate


def test_equal_shifts_are_groups_without_any_width():
    centres = holes(3, 2)
    of = np.tile(np.arange(6), 20)
    found = cluster_points(centres[of])
    assert same_groups(found.index, of)
    assert found.separation == np.inf


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_or_equal_points_are_one_group(n):
    found = cluster_points(np.full((n, 2), 3.5))
    assert found.index.tolist() == [0] * n


def test_points_on_the_way_bridge_no_gap_and_are_counted():
    points, of = shifts(holes(3, 3), 900, 0.03)
    between = holes(3, 3)[:8] + LATTICE[1] / 2
    found = cluster_points(np.concatenate([points, between]))
    assert same_groups(found.index[: len(of)], of)
    assert found.n_apart == 8


def test_places_in_holes_are_found_and_holes_offered():
    places = 0.15 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    centres = (holes(3, 3)[:, None] + places).reshape(-1, 2)
    points, of = shifts(centres, 2000, 0.01)
    found = cluster_points(points)
    assert same_groups(found.index, of)
    assert found.others == (9,)
    of_holes = cluster_points(points, 9)
    assert same_groups(of_holes.index, of // 4)
    assert 36 in of_holes.others


@pytest.mark.parametrize("n_groups", [1, 2, 4, 9, 12])
def test_as_many_groups_are_made_as_asked(n_groups):
    points, of = shifts(holes(3, 3), 300, 0.03)
    found = cluster_points(points, n_groups)
    assert len(np.unique(found.index)) == len(found.centre) == n_groups
    if n_groups <= 9:  # no group is parted
        assert len({*zip(found.index.tolist(), of.tolist(), strict=True)}) == 9
    else:  # groups are parted, and not mixed
        assert len({*zip(found.index.tolist(), of.tolist(), strict=True)}) == n_groups


def test_groups_without_gaps_are_made_where_asked():
    points = np.random.default_rng(3).uniform(size=(500, 2))
    found = cluster_points(points, 4)
    assert sorted(found.counts.tolist())[0] > 60
    assert not found.is_separate


def test_more_groups_than_points_are_refused():
    with pytest.raises(UsageError, match="4 groups can't be made of 3 distinct positions"):
        cluster_points(np.array([[0, 0], [1, 1], [2, 5], [0, 0]], float), 4)


CASES = st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 200), st.floats(0.001, 0.06), st.integers(0, 2**32 - 1)
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_the_order_of_points_changes_nothing(case):
    nx, ny, n, spread, seed = case
    points, _ = shifts(holes(nx, ny), n, spread, seed)
    order = np.random.default_rng(seed).permutation(len(points))
    found, other = cluster_points(points), cluster_points(points[order])
    np.testing.assert_array_equal(found.index[order], other.index)
    assert (found.n_apart, found.others) == (other.n_apart, other.others)


@settings(max_examples=60, deadline=None)
@given(CASES, st.floats(1e-6, 1e6), st.floats(-3, 3), st.floats(-3, 3))
def test_unit_and_origin_change_nothing(case, scale, x, y):
    nx, ny, n, spread, seed = case
    points, _ = shifts(holes(nx, ny), n, spread, seed)
    found, other = cluster_points(points), cluster_points((points + np.array([x, y])) * scale)
    assert same_groups(found.index, other.index)
    assert (found.n_apart, found.others) == (other.n_apart, other.others)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=40), st.integers(1, 5))
def test_any_points_are_grouped(points, n_groups):
    array = np.array(points, float)
    found = cluster_points(array)
    assert isinstance(found, Clusters)
    assert set(found.index.tolist()) == set(range(len(found.centre)))
    if n_groups <= len(set(points)):
        made = cluster_points(array, n_groups)
        assert set(made.index.tolist()) == set(range(len(made.centre)))


def test_many_points_take_seconds():
    points, of = shifts(holes(7, 7), 50_000, 0.06)
    start = time.process_time()
    found = cluster_points(points)
    assert time.process_time() - start < 20
    assert same_groups(found.index, of)
