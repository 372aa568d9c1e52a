"""Bayesian linear regression from streamed rows: QR factors per kind of observation, and the posterior.

Rows Φ (m, r) with targets y, noise σ_t per kind t, and prior w ~ N(0, 1). Each kind keeps the triangle of [Φ | y], so that
changing σ costs O(r³) and no pass over the data. The posterior is w̄ = R⁻¹z with covariance (RᵀR)⁻¹, where
QR = [R_t/σ_t; ...; 1] (Golub and Van Loan, Matrix Computations, section 5.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack, solve_triangular

from soapkrr.parallel import thread_map


def triangle(rows: np.ndarray) -> np.ndarray:
    """R of the QR decomposition of ``rows`` (m, k), min(m, k) × k; ``rows`` is overwritten when it is Fortran-ordered."""
    if len(rows) <= 1:
        return rows
    lwork = int(lapack.dgeqrf_lwork(*rows.shape)[0])
    qr, _, _, info = lapack.dgeqrf(rows, lwork=lwork, overwrite_a=1)
    if info:
        raise ArithmeticError(f"LAPACK dgeqrf failed with info={info}.")
    return np.triu(qr[: rows.shape[1]])


def merge(factors: Iterable[np.ndarray]) -> np.ndarray:
    """Triangle of stacked factors (each with k columns); those already short enough are kept as rows."""
    stacked = np.asfortranarray(np.concatenate([np.asarray(f) for f in factors]))
    return triangle(stacked) if len(stacked) > stacked.shape[1] else stacked


@dataclass(frozen=True, eq=False)
class Posterior:
    """Gaussian posterior of the weights.

    Attributes
    ----------
    mean : (r,) w̄.  factor : (r, r) upper triangular R with covariance (RᵀR)⁻¹.
    condition : estimated condition number of R.
    residual : |y/σ − Φw̄/σ|² + |w̄|², the minimised objective.
    """

    mean: np.ndarray
    factor: np.ndarray
    condition: float
    residual: float

    def spread(self, rows: np.ndarray, first: int = 0) -> np.ndarray:
        """|R⁻ᵀφ|² of each row φ whose entries start at column ``first`` (zeros before it); rows (m, k) with k ≤ r − first."""
        R = self.factor[first:, first:]
        if rows.shape[1] < len(R):
            rows = np.pad(rows, ((0, 0), (0, len(R) - rows.shape[1])))
        half = solve_triangular(R, rows.T, trans=1, check_finite=False)
        return np.einsum("rm,rm->m", half, half)


def solve(factors: Mapping[str, np.ndarray], noise: Mapping[str, float]) -> Posterior:
    """Posterior from triangles of [Φ | y] per kind of observation and their noise levels."""
    k = next(iter(factors.values())).shape[1]
    prior = np.eye(k - 1, k)
    R = triangle(np.asfortranarray(np.concatenate([*(factors[t] / noise[t] for t in sorted(factors)), prior])))
    R, z, rest = R[: k - 1, : k - 1], R[: k - 1, k - 1], R[k - 1 :, k - 1]
    R = np.ascontiguousarray(R)
    rcond = lapack.dtrcon(R)[0]
    mean = solve_triangular(R, z, check_finite=False)
    if not np.isfinite(mean).all():
        raise ArithmeticError("the regression overflowed: a noise level or the signal is absurdly small or large for these data.")
    return Posterior(mean, R, 1.0 / rcond if rcond > 0 else np.inf, float(rest @ rest))


def whitening(K: np.ndarray, tolerance: float) -> np.ndarray:
    """T (M, r) with Tᵀ K T = 1 from the eigenvectors of K above ``tolerance`` × the largest eigenvalue."""
    values, vectors = np.linalg.eigh(K)
    keep = values > tolerance * values[-1]
    return np.ascontiguousarray(vectors[:, keep] / np.sqrt(values[keep]))


def cholesky(K: np.ndarray, threads: int | None = None, panel: int = 512) -> np.ndarray:
    """Lower triangular L with L Lᵀ = K, in place of K (its upper triangle keeps old values), by panels shared among threads.

    Raises
    ------
    np.linalg.LinAlgError : K is not positive definite to working precision.
    """
    n = len(K)
    for start in range(0, n, panel):
        stop = min(start + panel, n)
        K[start:stop, start:stop], info = lapack.dpotrf(K[start:stop, start:stop], lower=1, clean=1)
        if info:
            raise np.linalg.LinAlgError(f"leading minor {start + info} of {n} is not positive definite")
        corner = K[start:stop, start:stop]

        def below(i, start=start, stop=stop, corner=corner):
            rows = K[i : i + panel, start:stop]
            rows[:] = solve_triangular(corner, rows.T, lower=True, check_finite=False).T

        def trailing(ij, start=start, stop=stop):
            i, j = ij
            K[i : i + panel, j : j + panel] -= K[i : i + panel, start:stop] @ K[j : j + panel, start:stop].T

        rest = range(stop, n, panel)
        for _ in thread_map(below, rest, threads):
            pass
        for _ in thread_map(trailing, [(i, j) for i in rest for j in range(stop, i + 1, panel)], threads):
            pass
    return K


def forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """L⁻¹B for lower triangular L."""
    return solve_triangular(L, B, lower=True, check_finite=False)


def backward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """L⁻ᵀB for lower triangular L."""
    return solve_triangular(L, B, lower=True, trans=1, check_finite=False)
