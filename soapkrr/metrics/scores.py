"""Scores of error bars, of errors e = prediction − reference and standard deviations σ; Gaussian where a law is needed."""

from __future__ import annotations

import numpy as np
from scipy.special import erf
from scipy.stats import rankdata

#: Bins of the expected normalised calibration error, and values that each holds at least.
BINS, BIN = 10, 10


def sharpness(std: np.ndarray) -> float:
    """√⟨σ²⟩, in the unit of σ: how narrow the error bars are, right or wrong; NaN of none.

    Tran et al. 2020, doi 10.1088/2632-2153/ab7e1a.
    """
    return float(np.sqrt(np.mean(std**2))) if len(std) else np.nan


def nll(errors: np.ndarray, std: np.ndarray) -> float:
    """Mean negative logarithm of the Gaussian density, ⟨½ ln 2πσ² + e²/2σ²⟩, in nats; NaN of none.

    The logarithmic score of Gneiting and Raftery 2007, doi 10.1198/016214506000001437, with its sign turned. Depends on the unit of e and
    σ: another one adds a constant. Where σ is zero it is +∞, or −∞ if so is every such error.
    """
    if not len(errors):
        return np.nan
    sure = std == 0
    if sure.any():
        return np.inf if (errors[sure] != 0).any() else -np.inf
    return float(np.mean(0.5 * np.log(2 * np.pi * std**2) + 0.5 * (errors / std) ** 2))


def crps(errors: np.ndarray, std: np.ndarray) -> float:
    """Mean continuous ranked probability score of Gaussians, in the unit of e; NaN of none.

    ⟨σ [z (2Φ(z) − 1) + 2φ(z) − 1/√π]⟩ with z = e/σ, and |e| where σ is zero: Gneiting and Raftery 2007, doi 10.1198/016214506000001437,
    sign turned so that less is better. Of a certain prediction it is the mean absolute error.
    """
    if not len(errors):
        return np.nan
    z = np.divide(errors, std, out=np.zeros_like(errors), where=std > 0)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    of_width = std * (z * erf(z / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.mean(np.where(std > 0, of_width, np.abs(errors))))


def ence(errors: np.ndarray, std: np.ndarray, bins: int = BINS) -> float:
    """Expected normalised calibration error, Σ_j |mVAR_j − RMSE_j| / mVAR_j over the number of bins; NaN of none.

    Bins hold equally many values in order of σ; mVAR_j = √⟨σ²⟩ and RMSE_j = √⟨e²⟩ of bin j: Levi et al. 2022, doi 10.3390/s22155540.
    At most ``bins`` of them, of at least `BIN` values each. Perfect error bars have about √(bins / πn) by chance.
    """
    if not len(errors):
        return np.nan
    parts = np.array_split(np.argsort(std, kind="stable"), max(min(bins, len(std) // BIN), 1))
    expected = np.array([np.sqrt(np.mean(std[part] ** 2)) for part in parts])
    found = np.array([np.sqrt(np.mean(errors[part] ** 2)) for part in parts])
    if (expected == 0).any():
        return np.inf
    return float(np.mean(np.abs(expected - found) / expected))


def miscalibration_area(nominal: np.ndarray, observed: np.ndarray) -> float:
    """∫ |observed − nominal coverage| over nominal coverages from 0 to 1, by the trapezoidal rule; 0 if calibrated, ½ at most.

    Kuleshov, Fenner and Ermon 2018, arXiv 1807.00263, for the curve; Tran et al. 2020, doi 10.1088/2632-2153/ab7e1a, for its area. Here of
    intervals around the prediction. ``nominal`` ascends; coverages of 0 and 1 are added to both.
    """
    x, gap = np.concatenate([[0.0], nominal, [1.0]]), np.abs(np.concatenate([[0.0], observed - nominal, [0.0]]))
    return float(np.sum(0.5 * np.diff(x) * (gap[1:] + gap[:-1])))


def rank_correlation(std: np.ndarray, size: np.ndarray) -> float:
    """Spearman's rank correlation of standard deviations with sizes of errors; NaN where one of them is constant.

    Pearson's correlation of the ranks, ties sharing their mean rank: Spearman 1904, doi 10.2307/1412159. A Gaussian's errors have far less
    than 1 even if every σ is right, for most large errors bars hold small errors.
    """
    if len(std) < 2:
        return np.nan
    ranks = [rankdata(values) for values in (std, size)]
    if any(np.ptp(r) == 0 for r in ranks):
        return np.nan
    return float(np.corrcoef(*ranks)[0, 1])
