"""Decisions on candidates of which values are known with error bars, and the labels that narrow them most.

The value f_i of a candidate is believed to be normal, N(μ_i, C_ii). A candidate is *in* when f_i < t: below a given threshold, or among the
best k, where t is the place at which the expected number of those below is k. Whether it is in is an indicator of variance p_i(1 − p_i),
p_i = Φ(z_i), z_i = (t − μ_i)/σ_i. Labels that will explain a part ρ_i of the variance of f_i − t make of it a probability p_i′ that is not
known yet, with E[p_i′²] = Φ₂(z_i, z_i; ρ_i), the bivariate normal distribution. Hence the expected fall of the variance, by Owen's T,

    Φ₂(z, z; ρ) − Φ(z)² = Φ(z)(1 − Φ(z)) − 2 T(z, √((1 − ρ)/(1 + ρ))),

in closed form, before any label is calculated (Owen 1956, doi 10.1214/aoms/1177728074). Its sum over all candidates is what labels are
chosen by: large standard deviations far from t, and labels that move all candidates together, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from scipy.special import ndtr, owens_t

#: Standard deviations from the threshold beyond which a candidate is decided.
FAR = 8.0

#: Part of a value's scale below which a standard deviation is none.
TINY = 1e-12

#: Expected fall of the number of open decisions that counts as none.
DECIDED = 1e-9


@dataclass(frozen=True, eq=False)
class Belief:
    """Joint normal distribution of n values and of the labels that can be had, one for each candidate.

    Attributes
    ----------
    mean : (n_rows,), covariance : (n_rows, n_rows); the first n rows are the values.
    labels : (n,) row of the label of each candidate: of the value itself, or of what else the reference tells. Noise is in the covariance.
    """

    mean: np.ndarray
    covariance: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def value(self) -> np.ndarray:
        """(n,) expected values."""
        return self.mean[: len(self)]

    @property
    def std(self) -> np.ndarray:
        """(n,) standard deviations of the values."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance)[: len(self)], 0.0))

    def about(self, w: np.ndarray) -> np.ndarray:
        """(n,) standard deviations of f_i − Σ w_j f_j."""
        C = self.covariance[: len(self), : len(self)]
        moved = C @ w
        return np.sqrt(np.maximum(np.diagonal(C) - 2 * moved + w @ moved, 0.0))

    def observed(self, which: np.ndarray, values: np.ndarray) -> Belief:
        """After the labels of some candidates came in."""
        rows = self.labels[which]
        cross = self.covariance[:, rows]
        factor = cho_factor(cross[rows])
        mean = self.mean + cross @ cho_solve(factor, values - self.mean[rows])
        covariance = self.covariance - cross @ cho_solve(factor, cross.T)
        mean[rows], covariance[rows], covariance[:, rows] = values, 0.0, 0.0
        return Belief(mean, covariance, self.labels)


@dataclass(frozen=True, eq=False)
class Standing:
    """Where candidates stand: (n,) probability of being in; threshold t; z = (t − μ)/σ (n,); weights w (n,) with which t moves with values.

    For a given threshold all w are zero; that of the best k moves by Σ w_i δf_i, w_i ∝ φ(z_i)/σ_i.
    """

    probability: np.ndarray
    threshold: float
    z: np.ndarray
    weights: np.ndarray


def below(mean: np.ndarray, std: np.ndarray, threshold: float) -> Standing:
    """Which of n independent normal values are below a threshold."""
    z = _distances(mean, std, threshold)
    return Standing(ndtr(z), threshold, z, np.zeros(len(z)))


def among(mean: np.ndarray, std: np.ndarray, k: float) -> Standing:
    """Which of n normal values are among the k lowest: below t with Σ Φ((t − μ_i)/σ_i) = k."""
    n = len(mean)
    if k >= n:
        return Standing(np.ones(n), np.inf, np.full(n, np.inf), np.zeros(n))
    if k <= 0:
        return Standing(np.zeros(n), -np.inf, np.full(n, -np.inf), np.zeros(n))
    wide = np.maximum(std, TINY * max(1.0, float(np.abs(mean).max())))
    low, high = float((mean - 40 * wide).min()), float((mean + 40 * wide).max())
    t = float(brentq(lambda x: ndtr((x - mean) / wide).sum() - k, low, high, xtol=1e-15, rtol=1e-14))  # type: ignore[arg-type]
    z = _distances(mean, std, t)
    density = np.exp(-0.5 * np.minimum(z**2, 1400.0)) / wide
    total = density.sum()
    return Standing(ndtr((t - mean) / wide), t, z, density / total if total > 0 else np.zeros(n))


def _distances(mean: np.ndarray, std: np.ndarray, threshold: float) -> np.ndarray:
    gap = threshold - mean
    return np.clip(gap / np.maximum(std, TINY * np.maximum(1.0, np.abs(mean))), -1e6, 1e6)


def standing(belief: Belief, threshold: float | None, k: float) -> Standing:
    """Where candidates stand by their joint distribution: what moves the values near the threshold together does not change who is among
    the best, so that standard deviations there are those of the differences f_i − Σ w_j f_j."""
    if threshold is not None:
        return below(belief.value, belief.std, threshold)
    first = among(belief.value, belief.std, k)
    if not first.weights.any():
        return first
    second = among(belief.value, belief.about(first.weights), k)
    return Standing(second.probability, second.threshold, second.z, first.weights)


def expected_drop(z: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Expected fall of the variance of the indicator f < t, when labels will explain a part ρ of the variance of f − t.

    Examples
    --------
    >>> [round(float(expected_drop(np.float64(0.0), np.float64(rho))), 4) for rho in (0.0, 0.5, 1.0)]
    [0.0, 0.0833, 0.25]
    """
    rho, p = np.clip(rho, 0.0, 1.0), ndtr(z)
    return np.maximum(p * (1 - p) - 2 * owens_t(z, np.sqrt((1 - rho) / (1 + rho))), 0.0)


def choose(belief: Belief, n: int, allowed: np.ndarray, threshold: float | None, k: float) -> list[int]:
    """The ``n`` of the ``allowed`` (mask) candidates whose labels, together, make the expected variance of the decision fall most.

    One after the other, each with the labels of those before it at hand. Where nothing is left to decide, those most likely to be in come
    first: their labels confirm it.
    """
    now, columns, size = standing(belief, threshold, k), np.flatnonzero(allowed), len(belief)
    open_, w, rows = np.flatnonzero(np.abs(now.z) < FAR), now.weights, belief.labels[columns]
    seen = belief.covariance[open_][:, rows] - w @ belief.covariance[:size, rows]  # covariance of f_i − t with every label
    labels = belief.covariance[rows][:, rows]
    total = np.maximum(belief.about(w)[open_] ** 2, TINY**2)
    own, left = np.diagonal(labels).copy(), np.ones(len(columns), dtype=bool)
    known, picked = np.zeros(len(open_)), []
    for _ in range(n):
        here = np.flatnonzero(left)
        part = (known[:, None] + seen[:, here] ** 2 / own[here]) / total[:, None]
        score = expected_drop(now.z[open_, None], part).sum(axis=0) - expected_drop(now.z[open_], known / total).sum()
        best = here[int(np.argmax(score if score.max() > DECIDED else now.probability[columns[here]]))]
        picked.append(int(columns[best]))
        left[best] = False
        gain = labels[best] / own[best]
        known, seen = known + seen[:, best] ** 2 / own[best], seen - np.outer(seen[:, best], gain)
        labels = labels - np.outer(labels[best], gain)
        own = np.maximum(np.diagonal(labels), TINY**2)
    return picked
