"""Log marginal likelihood with gradients, and its bounded maximum over noise levels and signal scales; no pass over the data.

log p(y) = −½ [ |r|² + log|A| + Σ_t n_t log σ_t² + n log 2π ], with A = 1 + S (Σ_t R_tᵀR_t/σ_t²) S for the sparse model, whose stored
triangles R_t are all it needs (O(r³) a step), and A = Σ_k s_k² K_k + Σ for the exact one (Rasmussen and Williams 2006, section 5.4.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError

logger = logging.getLogger(__name__)

#: Absolute bounds of what is optimised: noise in eV/atom, eV/Å, eV/Å³; signal in eV.
BOUNDS = {"energy": (1e-6, 1.0), "forces": (1e-4, 10.0), "stress": (1e-7, 1.0), "signal": (1e-3, 1e3)}

#: Steps of the optimiser at most; each costs O(r³).
MAX_STEPS = 40

#: A step that promises or brings less log likelihood than this ends the search: no data can tell the two models apart.
RESOLUTION = 0.005

#: Largest change of any logarithm in one step.
LONGEST = 2.0

#: Noise variances below this fraction of the mean prior variance are out of bounds: the covariance would be singular to working precision.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Hyperparameters:
    """Noise levels per kind of observation, signal scale per term, and the log marginal likelihood they reach."""

    noise: dict[str, float]
    signals: tuple[float, ...]
    log_likelihood: float


def log_likelihood(posterior: linear.Posterior, counts: Mapping[str, int], noise: Mapping[str, float]) -> float:
    """log p(y) of a sparse model: of the rows as they stand, each divided by the factor that makes its noise ``noise``."""
    logdet = 2 * float(np.log(np.abs(backends.namespace(posterior.factor).diagonal(posterior.factor))).sum())
    rows = sum(n * (2 * np.log(noise[t]) + np.log(2 * np.pi)) for t, n in counts.items())
    return float(-0.5 * (posterior.residual + logdet + rows))


def sparse_evidence(factors: Mapping[str, np.ndarray], counts: Mapping[str, int], noise, scales: np.ndarray):
    """log p(y) of a sparse model, its derivatives by log σ_t (dict) and by log s of each column (r,).

    Parameters
    ----------
    factors : {kind: triangle of [Φ | y]}.  counts : {kind: number of rows}.  noise : {kind: σ}.  scales : (r,) factor of each column.
    """
    r, some = len(scales), next(iter(factors.values()))
    xp, dense = backends.namespace(some), backends.of(some).dense
    columns = xp.asarray(np.append(scales, 1.0))
    tables = {t: f * columns for t, f in factors.items()}
    post = linear.solve(tables, noise)
    if not post.condition < linear.LOST:
        raise ArithmeticError("the regression is lost in rounding")
    inverse = dense.inverse_triangle(post.factor)
    by_noise = {}
    for t, table in tables.items():
        misfit = table[:, r] - table[:, :r] @ post.mean
        by_noise[t] = float(misfit @ misfit + np.square(table[:, :r] @ inverse).sum()) / noise[t] ** 2 - counts[t]
    # ∂/∂log s_c: half of −2 [(1 − P)_cc − w_c²], P = A⁻¹, since Φᵀ(y − Φw) = w at the minimum.
    by_scale = backends.host(np.square(post.mean) - (1 - np.square(inverse).sum(axis=1)))
    return log_likelihood(post, counts, noise), by_noise, by_scale


def exact_evidence(K: list[np.ndarray], y: np.ndarray, kinds: np.ndarray, weights: np.ndarray, noise: np.ndarray, scales: np.ndarray):
    """log p(y) of an exact GP with covariance Σ_k s_k² K_k + diag((σ_kind·weight)²); slopes by log σ per kind and by log s per term.

    Raises
    ------
    np.linalg.LinAlgError : the covariance is singular to working precision.
    """
    xp = backends.namespace(K[0])
    variance = np.square(noise[kinds] * weights)
    C = sum(s**2 * k for s, k in zip(scales, K, strict=True))
    if variance.min() < SINGULAR * float(xp.trace(C)) / len(C):
        raise np.linalg.LinAlgError("the noise is lost beside the prior variance")
    C.reshape(-1)[:: len(C) + 1] += xp.asarray(variance)
    L = linear.cholesky(C)
    half = linear.forward(L, xp.asarray(y))
    alpha = linear.backward(L, half)
    value = -0.5 * half @ half - np.log(xp.diagonal(L)).sum() - 0.5 * len(y) * np.log(2 * np.pi)
    # Lower triangle of the inverse of C; of symmetric K, vdot(P, k) is twice that of the triangles less the diagonals'.
    P = backends.of(L).dense.inverse_from_cholesky(L)
    own = xp.diagonal(P)
    by_noise = np.bincount(kinds, variance * backends.host(np.square(alpha) - own), minlength=len(noise))
    traces = [2 * xp.vdot(P, k) - own @ xp.diagonal(k) for k in K]
    by_scale = np.array([s**2 * float(alpha @ k @ alpha - t) for s, k, t in zip(scales, K, traces, strict=True)])
    return float(value), by_noise, by_scale


def maximise(evidence: Callable, noise: Mapping[str, float], signals, bounds: Mapping = BOUNDS) -> Hyperparameters:
    """Maximum of ``evidence(noise, signals) → (value, {kind: slope}, slopes of log signals)`` within ``bounds``, from the given start."""
    names = sorted(noise)
    lower, upper = np.log([bounds[t] for t in names] + [bounds["signal"]] * len(signals)).T

    def unpack(x):
        values = np.exp(x)
        return dict(zip(names, values[: len(names)], strict=True)), values[len(names) :]

    def objective(x):
        try:
            value, by_noise, by_signal = evidence(*unpack(x))
        except (np.linalg.LinAlgError, ArithmeticError):  # singular to working precision: out of bounds
            return -np.inf, None
        return value, np.concatenate([[by_noise[t] for t in names], by_signal])

    start = np.clip(np.log([*(noise[t] for t in names), *signals]), lower, upper)
    x, value = ascend(objective, _feasible(objective, start, upper, len(names)), lower, upper)
    found, scale = unpack(x)
    logger.info("log marginal likelihood %.2f with noise %s and signals %s", value, found, scale)
    return Hyperparameters({t: float(v) for t, v in found.items()}, tuple(float(v) for v in scale), value)


def _feasible(objective: Callable, x: np.ndarray, upper: np.ndarray, n_noise: int) -> np.ndarray:
    """The start, its noise levels raised by factors of 3 until the covariance is positive definite."""
    for _ in range(30):
        if np.isfinite(objective(x)[0]):
            return x
        x = np.minimum(x + np.log(3.0) * (np.arange(len(x)) < n_noise), upper)
    raise InputError("no `noise` makes the covariance of the observations positive definite; lower `signal`.")


def ascend(objective: Callable, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, float]:
    """Maximum of ``objective(x) → (value, gradient)`` in a box, by BFGS with bounded steps that are halved until the value rises.

    A value of −inf marks forbidden points, which no step ends on. Source: Nocedal and Wright 2006, algorithm 6.1.
    """
    value, slope = objective(x)
    H, idle = _steepest(slope), 0
    for _ in range(MAX_STEPS):
        free = ~(((x <= lower) & (slope < 0)) | ((x >= upper) & (slope > 0)))
        step = np.where(free, H @ np.where(free, slope, 0.0), 0.0)
        step *= min(1.0, LONGEST / max(np.abs(step).max(), 1e-300))
        moved = _line_search(objective, x, value, slope, step, lower, upper) if step @ slope > RESOLUTION else None
        idle = idle + 1 if moved is None or moved[1] - value < RESOLUTION else 0
        if idle == 3:
            break
        if moved is not None:
            H = _bfgs(H, moved[0] - x, slope - moved[2])
            x, value, slope = moved
        if idle == 1:
            H = _steepest(slope)
    return x, value


def _steepest(slope: np.ndarray) -> np.ndarray:
    """Inverse Hessian that moves every coordinate by 1 up its slope, by less where the slope is below 0.1."""
    return np.diag(1 / np.maximum(np.abs(slope), 0.1))


def _line_search(objective, x, value, slope, step, lower, upper):
    """The first of x + step, x + step/2, ... with a sufficient rise: (x, value, slope), or None."""
    for k in range(12):
        new = np.clip(x + 0.5**k * step, lower, upper)
        new_value, new_slope = objective(new)
        if new_value > value + 1e-4 * slope @ (new - x):
            return new, new_value, new_slope
    return None


def _bfgs(H: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The inverse Hessian updated by a step s and the change y of the (descent) gradient; unchanged where the curvature is negative."""
    if s @ y <= 1e-8 * np.linalg.norm(s) * np.linalg.norm(y):
        return H
    V = np.eye(len(s)) - np.outer(s, y) / (s @ y)
    return V @ H @ V.T + np.outer(s, s) / (s @ y)


def optimise_sparse(factors, counts, noise, ranks: list[int], signals: list[float]) -> Hyperparameters:
    """Noise and signals of a sparse model from its triangles; of their columns the first ranks[0] carry signals[0], and so on."""
    owner, present = np.repeat(np.arange(len(ranks)), ranks), np.array(signals)

    def evidence(levels, signals):
        value, by_noise, by_column = sparse_evidence(factors, counts, levels, (signals / present)[owner])
        return value, by_noise, np.bincount(owner, by_column, minlength=len(ranks))

    return maximise(evidence, {t: noise[t] for t in factors}, present)
