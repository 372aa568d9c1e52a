"""Quantiles of scores for structures that are more, or less, novel than those of the data: weighted conformal prediction."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from soapkrr.uncertainty.conformal import ROUNDING, Scores, beyond, no_shorter_than_normal

#: Logs of the novelty between these.
LIMITS = (-30.0, 30.0)


def log_novelty(size: np.ndarray) -> np.ndarray:
    """Log of a novelty, within `LIMITS`."""
    return np.log(np.clip(size, *np.exp(LIMITS)))


def tilt(known: np.ndarray, new: np.ndarray, n_known: int, n_new: int) -> float:
    """The b of weights w(ν) = ν^b by which novelties of the data become those of new structures.

    Logistic regression tells new ones from known ones by log ν, and its odds are the ratio of the densities (Tibshirani et al. 2019,
    arXiv:1904.06019, section 2.3). Atoms of one structure are alike, so that each structure counts as one; b has a standard normal prior.

    Parameters
    ----------
    known, new : logs of novelty.  n_known, n_new : structures that they are of.
    """
    x, label = np.concatenate([known, new]), np.r_[np.zeros(len(known)), np.ones(len(new))]
    weight = np.r_[np.full(len(known), n_known / len(known)), np.full(len(new), n_new / len(new))]
    middle = float(np.median(known))

    def f(parameters):
        odds = parameters[0] + parameters[1] * (x - middle)
        slope = weight * (1 / (1 + np.exp(-np.clip(odds, -500, 500))) - label)
        value = weight @ (np.logaddexp(0, odds) - label * odds) + 0.5 * parameters[1] ** 2
        return value, np.array([slope.sum(), slope @ (x - middle) + parameters[1]])

    return float(minimize(f, np.array([np.log(n_new / n_known), 0.0]), jac=True, method="BFGS").x[1])


def weighted_quantiles(scores: Scores, novelty: np.ndarray, b: float, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of weighted scores for new labels with these logs of novelty, and whether a finite one is promised.

    The smallest score s with Σ w_i [s_i ≤ s] ≥ c·(Σ w_i + w), w_i = ν_i^b of the scores and w of the new label (Tibshirani, Barber, Candès
    and Ramdas 2019, arXiv:1904.06019, corollary 1): where the weights are the ratio of the densities of new and known labels, it holds the
    new one with a probability of at least c. There is none where w is too large a part; and none is promised for what is more novel than
    every score, where nothing is known of the ratio. Numbers are then those of `conformal.beyond`.
    """
    values, known = scores.sample.T
    if not len(values):
        return np.full(len(novelty), float(beyond(None, 0.0, coverage))), np.zeros(len(novelty), dtype=bool)
    middle = known.max()
    weights, own = np.exp(b * (known - middle)), np.exp(b * (novelty - middle))
    cumulative = np.cumsum(weights)
    place = np.searchsorted(cumulative, coverage * (cumulative[-1] + own) * (1 - ROUNDING))
    inside = place < len(values)
    effective = cumulative[-1] ** 2 / (weights @ weights)
    within = no_shorter_than_normal(values[np.minimum(place, len(values) - 1)], effective, coverage)
    found = np.where(inside, within, beyond(values[-1], cumulative[-1] / (cumulative[-1] + own), coverage))
    return found, inside & (novelty <= middle) & scores.promises(coverage)
