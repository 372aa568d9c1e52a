"""Log marginal likelihood with gradients, and its bounded maximum over noise levels and signal scales; no pass over the data.

log p(y) = −½ [ |r|² + log|A| + Σ_t n_t log σ_t² + n log 2π ], with A = 1 + S (Σ_t R_tᵀR_t/σ_t²) S for the sparse model, whose stored
triangles R_t are all it needs (O(r³) a step), and A = Σ_k s_k² K_k + Σ for the exact one (Rasmussen and Williams 2006, section 5.4.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize

from soapkrr import linear

logger = logging.getLogger(__name__)

#: Absolute bounds of what is optimised: noise in eV/atom, eV/Å, eV/Å³; signal in eV.
BOUNDS = {"energy": (1e-6, 1.0), "forces": (1e-4, 10.0), "stress": (1e-7, 1.0), "signal": (1e-3, 1e3)}

#: Steps of the optimiser at most; each costs O(r³).
MAX_STEPS = 40


@dataclass(frozen=True)
class Hyperparameters:
    """Noise levels per kind of observation, signal scale per term, and the log marginal likelihood they reach."""

    noise: dict[str, float]
    signals: tuple[float, ...]
    log_likelihood: float


def sparse_evidence(factors: Mapping[str, np.ndarray], counts: Mapping[str, int], noise, scales: np.ndarray):
    """log p(y) of a sparse model, its derivatives by log σ_t (dict) and by log s of each column (r,).

    Parameters
    ----------
    factors : {kind: triangle of [Φ | y]}.  counts : {kind: number of rows}.  noise : {kind: σ}.  scales : (r,) factor of each column.
    """
    r = len(scales)
    tables = {t: np.column_stack([f[:, :r] * scales, f[:, r]]) / noise[t] for t, f in factors.items()}
    post = linear.solve(tables, dict.fromkeys(tables, 1.0))
    inverse, _ = lapack.dtrtri(post.factor)
    logdet = 2 * np.log(np.abs(np.diagonal(post.factor))).sum()
    n = sum(counts.values())
    value = -0.5 * (post.residual + logdet + sum(2 * counts[t] * np.log(noise[t]) for t in tables) + n * np.log(2 * np.pi))
    by_noise = {}
    for t, table in tables.items():
        misfit = table[:, r] - table[:, :r] @ post.mean
        by_noise[t] = misfit @ misfit + np.square(table[:, :r] @ inverse).sum() - counts[t]
    # ∂/∂log s_c: half of −2 [(1 − P)_cc − w_c²], P = A⁻¹, since Φᵀ(y − Φw) = w at the minimum.
    by_scale = np.square(post.mean) - (1 - np.square(inverse).sum(axis=1))
    return float(value), by_noise, by_scale


def exact_evidence(K: list[np.ndarray], y: np.ndarray, kinds: np.ndarray, weights: np.ndarray, noise: np.ndarray, scales: np.ndarray):
    """log p(y) of an exact GP with covariance Σ_k s_k² K_k + diag((σ_kind·weight)²); slopes by log σ per kind and by log s per term."""
    variance = np.square(noise[kinds] * weights)
    C = sum(s**2 * k for s, k in zip(scales, K, strict=True))
    C[np.diag_indices_from(C)] += variance
    L = linear.cholesky(C)
    inverse, _ = lapack.dtrtri(np.tril(L), lower=1)
    alpha = inverse.T @ (inverse @ y)
    value = -0.5 * y @ alpha - np.log(np.diagonal(L)).sum() - 0.5 * len(y) * np.log(2 * np.pi)
    P = inverse.T @ inverse
    per_row = variance * (np.square(alpha) - np.diagonal(P))
    by_noise = np.bincount(kinds, per_row, minlength=len(noise))
    by_scale = np.array([s**2 * (alpha @ k @ alpha - np.vdot(P, k)) for s, k in zip(scales, K, strict=True)])
    return float(value), by_noise, by_scale


def maximise(evidence: Callable, noise: Mapping[str, float], signals) -> Hyperparameters:
    """Maximum of ``evidence(noise, signals) → (value, {kind: slope}, slopes of log signals)`` within `BOUNDS`, from the given start."""
    names = sorted(noise)
    bounds = [BOUNDS[t] for t in names] + [BOUNDS["signal"]] * len(signals)
    start = np.clip(np.log([*(noise[t] for t in names), *signals]), *np.log(bounds).T)
    best: dict = {"value": -np.inf}

    def unpack(x):
        values = np.exp(x)
        return dict(zip(names, values[: len(names)], strict=True)), values[len(names) :]

    def objective(x):
        try:
            value, by_noise, by_signal = evidence(*unpack(x))
        except np.linalg.LinAlgError:  # the optimiser stepped where the covariance is singular to working precision: step back
            return 1e300, np.zeros_like(x)
        if value > best["value"]:
            best.update(value=value, x=x.copy())
        return -value, -np.concatenate([[by_noise[t] for t in names], by_signal])

    minimize(objective, start, jac=True, method="L-BFGS-B", bounds=np.log(bounds), options={"maxiter": MAX_STEPS, "ftol": 1e-7})
    found, scale = unpack(best["x"])
    logger.info("log marginal likelihood %.2f with noise %s and signals %s", best["value"], found, scale)
    return Hyperparameters({t: float(v) for t, v in found.items()}, tuple(float(v) for v in scale), best["value"])


def optimise_sparse(factors, counts, noise, terms) -> Hyperparameters:
    """Noise and signals of a sparse model from its triangles, whose columns carry the terms' present signals."""
    owner = np.repeat(np.arange(len(terms)), [t.rank for t in terms])
    present = np.array([t.signal for t in terms])

    def evidence(levels, signals):
        value, by_noise, by_column = sparse_evidence(factors, counts, levels, (signals / present)[owner])
        return value, by_noise, np.bincount(owner, by_column, minlength=len(terms))

    return maximise(evidence, {t: noise[t] for t in factors}, present)
