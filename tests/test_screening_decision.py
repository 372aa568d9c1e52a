"""The mathematics of screenings: probabilities, expected drops and choices, held against sampling and against what is obvious."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from soapkrr.active.decision import Belief, among, below, choose, expected_drop, standing


def _belief(n=8, seed=0, noise=0.05):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    return Belief(rng.standard_normal(n), A @ A.T + noise * np.eye(n), np.arange(n))


@pytest.mark.parametrize("z", [-1.3, 0.0, 0.7])
@pytest.mark.parametrize("rho", [0.0, 0.2, 0.8, 0.999])
def test_the_expected_drop_is_that_of_the_bivariate_normal(z, rho):
    both = multivariate_normal([0, 0], [[1, rho], [rho, 1]], allow_singular=True).cdf([z, z])
    assert expected_drop(np.array(z), np.array(rho)) == pytest.approx(both - norm.cdf(z) ** 2, abs=2e-5)


def test_the_expected_drop_is_what_labels_bring_on_average():
    """Labels are drawn from the belief; the mean of p(1 − p) after them, which is counted, falls by what was expected."""
    belief, picked, threshold = _belief(), np.array([2, 5]), 0.1
    rng = np.random.default_rng(1)
    before = standing(belief, threshold, 0).probability
    draws = rng.multivariate_normal(belief.mean, belief.covariance, size=4000)
    after = np.mean([_open(belief.observed(picked, f[picked]), threshold) for f in draws])
    C = belief.covariance
    explained = np.diagonal(C[:, picked] @ np.linalg.solve(C[np.ix_(picked, picked)], C[picked]))
    expected = expected_drop((threshold - belief.mean) / belief.std, explained / np.diagonal(C)).sum()
    assert (before * (1 - before)).sum() - after == pytest.approx(expected, abs=0.01)


def _open(belief, threshold):
    p = standing(belief, threshold, 0).probability
    return (p * (1 - p)).sum()


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_choices_are_those_of_trying_every_candidate(threshold):
    """One after the other, each the best with those before it: with honest conditioning on every possible label instead of updates."""
    belief, k = _belief(seed=3), 3
    now = standing(belief, threshold, k)
    w, C = now.weights, belief.covariance
    P = np.eye(len(belief)) - w
    total = np.diagonal(P @ C @ P.T)
    slow: list[int] = []
    for _ in range(3):
        gains = []
        for j in range(len(belief)):
            S = [*slow, j]
            G = P @ C[:, S]
            part = np.diagonal(G @ np.linalg.pinv(C[np.ix_(S, S)]) @ G.T) / total
            gains.append(-np.inf if j in slow else expected_drop(now.z, part).sum())
        slow.append(int(np.argmax(gains)))
    assert choose(belief, 3, np.ones(len(belief), dtype=bool), threshold, k) == slow


def test_what_moves_all_candidates_together_is_not_asked_for():
    """All share a large uncertain shift; only of two of them the order is open."""
    C = 4.0 + np.diag([1e-6, 0.04, 0.04, 1e-6])
    belief = Belief(np.array([-2.0, 0.0, 0.01, 2.0]), C, np.arange(4))
    p = standing(belief, None, 2).probability
    np.testing.assert_allclose(p, [1.0, 0.51, 0.49, 0.0], atol=0.03)
    assert set(choose(belief, 2, np.ones(4, dtype=bool), None, 2)) == {1, 2}


def test_it_is_not_the_largest_standard_deviation():
    belief = Belief(np.array([0.0, 0.1, 5.0]), np.diag([0.04, 0.04, 1.0]), np.arange(3))
    assert choose(belief, 1, np.ones(3, dtype=bool), None, 1)[0] in (0, 1)


def test_with_nothing_left_to_decide_the_best_are_confirmed():
    belief = Belief(np.array([3.0, 0.0, 1.0]), np.diag([1e-8] * 3), np.arange(3))
    assert choose(belief, 2, np.array([True, True, True]), None, 1)[0] == 1
    assert choose(belief, 1, np.array([True, False, True]), None, 1) == [0]


def test_probabilities_of_the_best_are_those_of_samples():
    rng = np.random.default_rng(4)
    mean, std = rng.standard_normal(60), rng.uniform(0.1, 0.5, 60)
    draws = mean + std * rng.standard_normal((20000, 60))
    sampled = (np.argsort(np.argsort(draws, axis=1), axis=1) < 10).mean(axis=0)
    found = among(mean, std, 10)
    assert found.probability.sum() == pytest.approx(10)
    np.testing.assert_allclose(found.probability, sampled, atol=0.05)
    np.testing.assert_allclose(below(mean, std, 0.3).probability, (draws < 0.3).mean(axis=0), atol=0.02)


def test_the_threshold_moves_with_the_values_as_its_weights_say():
    rng = np.random.default_rng(5)
    mean, std, h = rng.standard_normal(20), rng.uniform(0.2, 0.5, 20), 1e-5
    found = among(mean, std, 4)
    moved = [(among(mean + h * e, std, 4).threshold - among(mean - h * e, std, 4).threshold) / (2 * h) for e in np.eye(20)]
    np.testing.assert_allclose(moved, found.weights, atol=1e-6)


@pytest.mark.parametrize("k", [0, 3, 9])
def test_fewer_or_more_than_there_are(k):
    found = among(np.arange(3.0), np.ones(3), k)
    assert found.probability.sum() == min(k, 3)


def test_labels_make_values_known():
    belief = _belief()
    after = belief.observed(np.array([1, 4]), np.array([7.0, -7.0]))
    np.testing.assert_array_equal(after.value[[1, 4]], [7.0, -7.0])
    np.testing.assert_array_equal(after.std[[1, 4]], 0.0)
    again = belief.observed(np.array([1]), np.array([7.0])).observed(np.array([4]), np.array([-7.0]))
    np.testing.assert_allclose(again.mean, after.mean, atol=1e-12)
    np.testing.assert_allclose(again.covariance, after.covariance, atol=1e-12)
