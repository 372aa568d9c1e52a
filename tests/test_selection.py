"""Sparse points: farthest-point sampling and CUR against brute force and skmatter; shares among species."""

import numpy as np
import pytest
import skmatter.sample_selection
from reference import farthest_points
from systems import small_soap, variations

from soapkrr.selection.methods import cur, farthest_point_sampling, share


def _points(n, n_features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_features))


@pytest.mark.parametrize("n", [1, 2, 17, 60])
@pytest.mark.parametrize("shape", [(60, 3), (60, 40)])
def test_fps_equals_brute_force(shape, n):
    X = _points(*shape)
    first = int(np.argmax(np.linalg.norm(X - X.mean(axis=0), axis=1)))
    np.testing.assert_array_equal(farthest_point_sampling(X, n), farthest_points(X, n, first))


@pytest.mark.parametrize("n", [2, 20, 50])
def test_fps_equals_skmatter(n):
    X = _points(80, 12, seed=1)
    picked = farthest_point_sampling(X, n)
    theirs = skmatter.sample_selection.FPS(initialize=int(picked[0]), n_to_select=n).fit(X)
    np.testing.assert_array_equal(picked, theirs.selected_idx_)


def test_fps_on_environments_equals_brute_force():
    X = small_soap(["Si"]).create(variations("vacancy", 6))
    first = int(np.argmax(np.linalg.norm(X - X.mean(axis=0), axis=1)))
    np.testing.assert_array_equal(farthest_point_sampling(X, 25), farthest_points(X, 25, first))


@pytest.mark.parametrize("n", [1, 2, 6, 10])
@pytest.mark.parametrize("shape", [(30, 10), (12, 40)])
def test_cur_equals_skmatter_up_to_the_rank(shape, n):
    X = _points(*shape, seed=2) * np.logspace(0, -2, shape[1])
    theirs = skmatter.sample_selection.CUR(n_to_select=n, k=1, recompute_every=1).fit(X)
    np.testing.assert_array_equal(cur(X, n), theirs.selected_idx_)


@pytest.mark.parametrize("select", [farthest_point_sampling, cur])
def test_points_are_picked_once_and_repeatably(select):
    X = _points(50, 8, seed=3)
    picked = select(X, 30)
    assert len(set(picked.tolist())) == 30
    np.testing.assert_array_equal(picked, select(X.copy(), 30))


@pytest.mark.parametrize("select", [farthest_point_sampling, cur])
def test_asking_for_fewer_gives_the_beginning(select):
    X = _points(50, 60, seed=4)
    np.testing.assert_array_equal(select(X, 12), select(X, 40)[:12])


@pytest.mark.parametrize("select", [farthest_point_sampling, cur])
def test_all_points_can_be_had(select):
    X = _points(20, 6, seed=5)
    assert sorted(select(X, 20).tolist()) == list(range(20))


def test_fps_never_picks_a_copy():
    X = _points(8, 5, seed=6)
    copies = np.concatenate([X, X, X[::-1]])
    picked = farthest_point_sampling(copies, 24)
    assert len(picked) == 8
    assert len(np.unique(copies[picked], axis=0)) == 8


def test_cur_takes_distinct_points_before_copies():
    X = _points(8, 20, seed=7)
    copies = np.concatenate([X, X])
    picked = cur(copies, 8)
    assert len(np.unique(copies[picked], axis=0)) == 8


def test_selection_leaves_the_points_alone():
    X = _points(20, 4, seed=8)
    before = X.copy()
    farthest_point_sampling(X, 5)
    cur(X, 5)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    "counts, n, expected",
    [
        ([100], 7, [7]),
        ([60, 30, 10], 10, [6, 3, 1]),
        ([1000, 1], 10, [9, 1]),
        ([2, 500], 100, [1, 99]),
        ([5, 5], 10, [5, 5]),
        ([5, 7], 400, [5, 7]),
        ([3, 3, 3], 4, [2, 1, 1]),
    ],
)
def test_share(counts, n, expected):
    np.testing.assert_array_equal(share(np.array(counts), n), expected)


@pytest.mark.parametrize("seed", range(20))
def test_share_adds_up_and_stays_within_bounds(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, size=rng.integers(1, 8))
    n = int(rng.integers(len(counts), counts.sum() + 1))
    shares = share(counts, n)
    assert shares.sum() == n
    assert np.all((shares >= 1) & (shares <= counts))
