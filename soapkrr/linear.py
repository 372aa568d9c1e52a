"""Bayesian linear regression from streamed rows: QR factors per kind of observation, and the posterior.

Rows Φ (m, r) with targets y, noise σ_t per kind t, and prior w ~ N(0, 1). Each kind keeps the triangle of [Φ | y], so that
changing σ costs O(r³) and no pass over the data. The posterior is w̄ = R⁻¹z with covariance (RᵀR)⁻¹, where
QR = [R_t/σ_t; ...; 1] (Golub and Van Loan, Matrix Computations, section 5.3).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.errors import ConditionWarning, InputError

#: An estimated reciprocal condition number so many times the tolerance leaves no doubt that no eigenvalue is below it.
CLEARLY = 100.0

#: Condition numbers from which rounding, 1e-16 of the data, shows in a solution, and from which nothing else is left of it. Forces of
#: silicon moved by 2e-6 eV/Å at 3e10 and by 8e-3 at 3e14 when positions moved by 1e-12 Å.
DOUBTFUL, LOST = 1e12, 1e15

#: The same of a covariance: maxima of the evidence of good data lie at 1e12, where forces move by 1e-5 eV/Å.
DOUBTFUL_COVARIANCE = 1e13


def triangle(rows: np.ndarray) -> np.ndarray:
    """R of the QR decomposition of ``rows`` (m, k), min(m, k) × k; ``rows`` is overwritten when it is Fortran-ordered."""
    return rows if len(rows) <= 1 else backends.of(rows).dense.triangle(rows)


def absorb(factor: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Triangle of [factor; rows], each with k columns; fewer than k rows in all are kept as rows. Both arguments may be overwritten.

    A triangle takes m rows at 2 m k² operations, another triangle at ⅔ k³.
    """
    if factor is not None and len(factor) == factor.shape[1] and len(factor) > 1:
        return backends.of(rows).dense.update(factor, rows)
    xp = backends.namespace(rows)
    if factor is None and len(rows) == rows.shape[1] and not bool(xp.tril(rows, -1).any()):
        return rows
    stacked = rows if factor is None else xp.asfortranarray(xp.concatenate([factor, rows]))
    return triangle(stacked) if len(stacked) >= stacked.shape[1] else stacked


def merge(factors: Iterable[np.ndarray]) -> np.ndarray:
    """Triangle of stacked factors, as of `absorb`, which are not changed."""
    merged = None
    for factor in factors:
        merged = absorb(merged, factor.copy(order="F"))
    return merged


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

    def variance(self, rows: np.ndarray) -> np.ndarray:
        """|R⁻ᵀφ|² of each row φ (m, r)."""
        half = self.half(rows)
        return backends.namespace(rows).einsum("rm,rm->m", half, half)

    def half(self, rows: np.ndarray) -> np.ndarray:
        """(r, m) R⁻ᵀφ of rows φ (m, r)."""
        return backends.of(rows).dense.solve_triangular(self.factor, rows.T, transposed=True)

    def draws(self, n: int, seed: int) -> np.ndarray:
        """(n, r) draws of w − w̄, R⁻¹ξ, solved for one by one: to the last bit, the first of them do not depend on n."""
        noise, xp = np.random.default_rng(seed).standard_normal((n, len(self.mean))), backends.namespace(self.mean)
        return xp.stack([backends.of(self.mean).dense.solve_triangular(self.factor, xp.asarray(row)) for row in noise])

    def covariance(self, rows: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """k − ΦΦᵀ + Φ(RᵀR)⁻¹Φᵀ of rows Φ (m, r) and their prior covariance k (m, m), a NumPy array as the result."""
        half, left = self.half(rows), prior - backends.host(rows @ rows.T)
        # The Nyström remainder is never negative but for rounding.
        np.fill_diagonal(left, np.maximum(np.diagonal(left), 0.0))
        return left + backends.host(half.T @ half)

    def state(self) -> dict:
        """The attributes by name: for a model file."""
        return {name: getattr(self, name) for name in ("mean", "factor", "condition", "residual")}

    def moved(self, xp) -> Posterior:
        """The same with arrays of another library."""
        return Posterior(*backends.moved(xp, (self.mean, self.factor)), self.condition, self.residual)


def check_condition(condition: float, doubtful: float = DOUBTFUL) -> None:
    """Warn where a fit with this condition number is ``doubtful``, raise where it is `LOST`.

    Raises
    ------
    InputError : nothing but rounding would be predicted.
    """
    if condition < doubtful:
        return
    advice = (
        f"the condition number of the regression is {condition:.0e}: raise `noise`, or `tolerance` where there is one; terms of a sum that "
        "can express the same energies, and structures given twice, do it too."
    )
    if not condition < LOST:
        raise InputError(f"predictions would be rounding errors: {advice}")
    warnings.warn(f"predictions may be wrong by rounding: {advice}", ConditionWarning, stacklevel=2)


def whitening_condition(T: np.ndarray) -> float:
    """Condition number of the eigenvectors that a whitening keeps, from its columns v/√λ; a lower bound for one by Cholesky's factor."""
    xp = backends.namespace(T)
    norms = xp.einsum("mr,mr->r", T, T)
    return float(norms.max() / norms.min()) if T.size else 1.0


def covariance_condition(L: np.ndarray) -> float:
    """Estimated condition number of C = L Lᵀ scaled to unit diagonal, which governs the error of a solution by Cholesky decomposition.

    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, theorem 10.6.
    """
    xp, n, step = backends.namespace(L), len(L), max(1, 2**20 // len(L))
    lower = ((a, xp.tril(L[a : a + step], a)) for a in range(0, n, step))  # no second matrix
    sums = [(xp.sqrt(xp.einsum("ij,ij->i", rows, rows)), xp.abs(rows).sum(axis=1)) for _, rows in lower]
    scale, sums = (xp.concatenate(part) for part in zip(*sums, strict=True))
    # The 1-norm's condition number of L is about √N times that of the 2-norm, whose square is wanted.
    norm = float((sums / scale).max()) * inverse_norm(lambda x: scale * backward(L, x), lambda x: forward(L, scale * x), xp.ones(n))
    return norm**2 / n


def inverse_norm(solve: Callable, solve_transposed: Callable, ones: np.ndarray) -> float:
    """Estimated 1-norm of A⁻¹ from x ↦ A⁻¹x and x ↦ A⁻ᵀx (Hager 1984, doi 10.1137/0905023)."""
    xp, x, norm = backends.namespace(ones), ones / len(ones), 0.0
    for _ in range(5):
        y = solve(x)
        z = solve_transposed(xp.where(y < 0, -1.0, 1.0))
        norm, j = max(norm, float(xp.abs(y).sum())), int(xp.argmax(xp.abs(z)))
        if not float(xp.abs(z[j])) > float(z @ x):
            break
        x = xp.zeros_like(ones)
        x[j] = 1.0
    return norm


def solve(factors: Mapping[str, np.ndarray], noise: Mapping[str, float]) -> Posterior:
    """Posterior from triangles of [Φ | y] per kind of observation and their noise levels."""
    some = next(iter(factors.values()))
    xp, dense, k = backends.namespace(some), backends.of(some).dense, some.shape[1]
    # The triangles first: few rows then cost little.
    order = sorted(factors, key=lambda t: (-len(factors[t]), t))
    R = merge([*(factors[t] / noise[t] for t in order), xp.eye(k - 1, k)])
    R, z, rest = R[: k - 1, : k - 1], R[: k - 1, k - 1], R[k - 1 :, k - 1]
    R = xp.ascontiguousarray(R)
    rcond = dense.inverse_condition(R)
    mean = dense.solve_triangular(R, z)
    if not bool(xp.isfinite(mean).all()):
        raise ArithmeticError("the regression overflowed: a noise level or the signal is absurdly small or large for these data.")
    return Posterior(mean, R, 1.0 / rcond if rcond > 0 else np.inf, float(rest @ rest))


def whitening(K: np.ndarray, tolerance: float, threads: int | None = None) -> np.ndarray:
    """T (M, r) with Tᵀ K T = 1, on the eigenvectors of K above ``tolerance`` × the largest eigenvalue.

    Where these are clearly all, T is the inverse of the Cholesky factor, an upper triangle: a tenth of the work of the eigenvectors.
    """
    xp, dense = backends.namespace(K), backends.of(K).dense
    try:
        R = xp.ascontiguousarray(xp.tril(cholesky(K.copy(), threads)).T)
    except np.linalg.LinAlgError:
        R = None
    if R is not None and dense.inverse_condition(R) ** 2 > CLEARLY * tolerance:
        return xp.ascontiguousarray(dense.inverse_triangle(R))
    values, vectors = xp.linalg.eigh(K)
    keep = xp.flatnonzero(values > tolerance * values[-1])
    return xp.ascontiguousarray(vectors[:, keep] / xp.sqrt(values[keep]))


def cholesky(K: np.ndarray, threads: int | None = None, **options) -> np.ndarray:
    """Lower triangular L with L Lᵀ = K, in place of K (its upper triangle keeps old values), shared among threads.

    Raises
    ------
    np.linalg.LinAlgError : K is not positive definite to working precision.
    """
    return backends.of(K).dense.cholesky(K, threads, **options)


def forward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """L⁻¹B for lower triangular L."""
    return backends.of(L).dense.solve_triangular(L, B, lower=True)


def backward(L: np.ndarray, B: np.ndarray) -> np.ndarray:
    """L⁻ᵀB for lower triangular L."""
    return backends.of(L).dense.solve_triangular(L, B, lower=True, transposed=True)
