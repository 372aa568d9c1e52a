"""Preconditioned conjugate gradients for (K + Σ) w = y with K an operator: the exact Gaussian process on large sets.

Everything is in units of the noise: A x = Σ^{-1/2} y with A = Σ^{-1/2} K Σ^{-1/2} + 1 and w = Σ^{-1/2} x. The preconditioner P is A with
K replaced by its Nyström approximation from environments, Φ̃Φ̃ᵀ + 1 with the design rows Φ̃ of a sparse process in units of the noise.
K − ΦΦᵀ is positive semi-definite, so P ≤ A, and 1 ≤ P.

Sources: Hestenes and Stiefel 1952, doi 10.6028/jres.049.044; Rasmussen and Williams 2006, section 8.3.7; Cutajar et al. 2016,
proceedings.mlr.press/v48/cutajar16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError
from soapkrr.regression.exact.operator import CovarianceOperator
from soapkrr.threads import thread_map

#: Iterations after which a system counts as unsolvable; well preconditioned ones take some ten to hundred.
MAX_ITERATIONS = 500

#: Of a prior variance: smaller parts of it are lost in rounding.
ROUNDING = 1e-13


def conjugate_gradients(apply: Callable, precondition: Callable, b: np.ndarray, enough: Callable):
    """Solve A x = b for symmetric positive definite A, from x = P⁻¹b, which takes away what is large in b at once.

    Parameters
    ----------
    apply : x ↦ A x.  precondition : r ↦ P⁻¹ r, symmetric positive definite too.  b : (n,).
    enough : called with x, the residual r = b − A x and r·P⁻¹r before every step; True ends the iteration.

    Returns
    -------
    x, r, and the number of iterations.

    Raises
    ------
    InputError : A or P is not positive definite to working precision, or `MAX_ITERATIONS` were not enough.
    """
    x = precondition(b)
    r = b - apply(x)
    z = precondition(r)
    p, along = z, float(r @ z)
    for iteration in range(MAX_ITERATIONS):
        if enough(x, r, along):
            return x, r, iteration
        q = apply(p)
        curvature = float(p @ q)
        if not (curvature > 0 and along > 0):
            raise InputError(
                f"the covariance of the observations is not positive definite to working precision (p·Ap = {curvature:.3g}, "
                f"r·P⁻¹r = {along:.3g} after {iteration} iterations); raise `noise`."
            )
        step = along / curvature
        x = x + step * p
        r = r - step * q
        z = precondition(r)
        before, along = along, float(r @ z)
        p = z + (along / before) * p
    raise InputError(
        f"conjugate gradients did not converge in {MAX_ITERATIONS} iterations: |r|/|b| is {np.linalg.norm(r) / np.linalg.norm(b):.2g}; "
        "raise `noise` or `n_preconditioner`, or accept a larger `cg_tolerance`."
    )


class NystromPreconditioner:
    """P⁻¹ of P = Φ̃Φ̃ᵀ + 1 from rows Φ̃ (n, r) in units of the noise; 8·n·r bytes.

    The rows are kept: made anew for every product, they would differ by rounding from those in the factor L, and the largest
    eigenvalues, 1e11 and more where many energies are known well, would multiply the difference.
    """

    def __init__(self, rows: np.ndarray, threads: int | None):
        xp, step = backends.namespace(rows), backends.of(rows).ROWS
        self._threads = backends.threads(xp, threads)
        self._rows = [rows[a : a + step] for a in range(0, len(rows), step)]
        self._bounds = np.cumsum([len(block) for block in self._rows])[:-1]
        gram = xp.eye(rows.shape[1])
        for part in thread_map(lambda block: block.T @ block, self._rows, self._threads):
            gram += part
        try:
            self._factor = linear.cholesky(gram, threads)
        except np.linalg.LinAlgError as error:
            raise InputError(f"the preconditioner of conjugate gradients is not positive definite ({error}); raise `noise`.") from error

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """P⁻¹ r by Woodbury's identity, r − Φ̃ (L Lᵀ)⁻¹ Φ̃ᵀ r."""
        xp = backends.namespace(self._factor)
        pairs = zip(self._rows, np.split(r, self._bounds), strict=True)
        g = sum(thread_map(lambda pair: pair[0].T @ xp.asarray(pair[1]), pairs, self._threads))
        h = linear.backward(self._factor, linear.forward(self._factor, g))
        return r - backends.host(xp.concatenate(list(thread_map(lambda block: block @ h, self._rows, self._threads))))


@dataclass(frozen=True, eq=False)
class ObservedSystem:
    """A over all observations of some structures; those that are unknown have infinite noise.

    Attributes
    ----------
    operator : K.  precision : (size,) 1/σ of every observation, 0 where unknown.  precondition : P⁻¹.
    """

    operator: CovarianceOperator
    precision: np.ndarray
    precondition: Callable

    @classmethod
    def of(cls, operator: CovarianceOperator, sigma: np.ndarray, terms: Sequence, threads: int | None) -> ObservedSystem:
        """With the features of sparse ``terms`` as preconditioner; ``sigma`` (size,) is NaN where an observation is unknown."""
        precision = np.where(np.isfinite(sigma), 1 / sigma, 0.0)
        rows = operator.design_rows(terms)
        rows *= backends.namespace(rows).asarray(precision)[:, None]
        return cls(operator, precision, NystromPreconditioner(rows, threads))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """A x."""
        return self.precision * self.operator(self.precision * x) + x

    def rms(self, r: np.ndarray) -> float:
        """Root mean square over the known observations."""
        return float(np.linalg.norm(r) / np.sqrt(max(1, np.count_nonzero(self.precision))))

    def solve(self, y: np.ndarray, tolerance: float) -> tuple[np.ndarray, float, int]:
        """(K + Σ)⁻¹y as weights (size,), the residual that is left, and the number of iterations.

        The residual is the root mean square of y − (K + Σ)w in units of the noise, computed from w itself, and at most ``tolerance``. So
        is that of the error of K w, since |K̃A⁻¹r| ≤ |r|.
        """
        b = y * self.precision
        x, left, total = np.zeros_like(b), b, 0
        while True:
            step, _, iterations = conjugate_gradients(self.apply, self.precondition, left, lambda x, r, _: self.rms(r) <= 0.5 * tolerance)
            x, before, total = x + step, self.rms(left), total + iterations
            left = b - self.apply(x)
            if self.rms(left) <= tolerance:
                return x * self.precision, self.rms(left), total
            if not self.rms(left) < 0.5 * before:
                reached = f"{self.rms(left):.2g} of the noise"
                raise InputError(f"rounding stops conjugate gradients at a residual of {reached}; raise `noise` or `cg_tolerance`.")

    def explained(self, k: np.ndarray, prior: float, tolerance: float) -> float:
        """kᵀ(K + Σ)⁻¹k of covariances k (size,), to the relative ``tolerance`` of the standard deviation √(prior − kᵀ(K + Σ)⁻¹k).

        With x of residual r, kᵀ(K + Σ)⁻¹k = x·(b + r) + r·A⁻¹r and 0 ≤ r·A⁻¹r ≤ r·P⁻¹r: a bound on what is missing.
        """
        b = k * self.precision
        x, r = self._solution(b, prior, tolerance)
        return float(x @ (b + r))

    def explained_matrix(self, K: np.ndarray, priors: np.ndarray, tolerance: float) -> np.ndarray:
        """K(K + Σ)⁻¹Kᵀ (n, n) of covariances K (n, size), each solved for as in `explained`.

        With x and x′ of residuals r and r′, b·A⁻¹b′ = x·b′ + r·x′ + r·A⁻¹r′: what is missing is of second order.
        """
        B = K * self.precision
        solutions = [self._solution(b, prior, tolerance) for b, prior in zip(B, priors, strict=True)]
        X, R = (np.array(part) for part in zip(*solutions, strict=True))
        explained = X @ B.T + R @ X.T
        return 0.5 * (explained + explained.T)

    def _solution(self, b: np.ndarray, prior: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """x and residual r of A x = b, to the relative ``tolerance`` of a standard deviation."""

        def enough(x, r, missing):
            return missing <= max(2 * tolerance * (prior - x @ (b + r)), ROUNDING * prior)

        return conjugate_gradients(self.apply, self.precondition, b, enough)[:2]
