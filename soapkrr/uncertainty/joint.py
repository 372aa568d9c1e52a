"""Joint posterior of observables: means, covariance matrix, and what follows for functions of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from soapkrr.display import Tabular
from soapkrr.errors import InputError
from soapkrr.regression.process import Predictor
from soapkrr.uncertainty.observables import as_observables, functionals_of

#: Steps of numerical derivatives, in standard deviations of the argument, and relative where that is zero.
STEP, RELATIVE = 1e-3, 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class JointPosterior(Tabular):
    """Gaussian posterior of n observables.

    Attributes
    ----------
    mean : (n,), reference energies and prior means included.  covariance : (n, n); units of the observables.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def std(self) -> np.ndarray:
        """(n,) standard deviations."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    @property
    def correlation(self) -> np.ndarray:
        """(n, n) correlation matrix; NaN where a standard deviation is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.covariance / np.outer(self.std, self.std)

    def of(self, function: Callable, gradient: Callable | None = None) -> JointPosterior:
        """Posterior of a function of the observables by the delta method, mean f(μ) and covariance J C Jᵀ.

        It is exact for linear functions, and good where the function is nearly linear within a standard deviation; otherwise draw samples.

        Parameters
        ----------
        function : of (n,) values to a number or an array, which is flattened (m,).
        gradient : of (n,) values to J (n,) or (m, n); None: central differences, steps a thousandth of the standard deviations.

        Raises
        ------
        InputError : the function or its derivative is not finite at the mean, or the gradient has another shape.
        """
        mean = np.atleast_1d(np.asarray(function(self.mean.copy()), dtype=float)).ravel()
        if not np.isfinite(mean).all():
            raise InputError(f"`function` is not finite at the posterior mean: {mean}.")
        J = self._jacobian(function, len(mean)) if gradient is None else np.asarray(gradient(self.mean.copy()), dtype=float)
        J = J.reshape(1, -1) if J.ndim == 1 else J
        if J.shape != (len(mean), len(self)):
            raise InputError(f"`gradient` gave an array of shape {J.shape}, expected {(len(mean), len(self))}.")
        if not np.isfinite(J).all():
            raise InputError("the derivative of `function` is not finite at the posterior mean.")
        return JointPosterior(mean, J @ self.covariance @ J.T)

    def _jacobian(self, function: Callable, m: int) -> np.ndarray:
        J = np.empty((m, len(self)))
        for k, std in enumerate(self.std):
            step = np.zeros(len(self))
            step[k] = STEP * std or RELATIVE * max(abs(self.mean[k]), 1.0)
            up, down = (np.asarray(function(self.mean + sign * step), dtype=float).ravel() for sign in (1, -1))
            J[:, k] = (up - down) / (2 * step[k])
        return J

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """(n, n_observables) draws."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        return self.mean + np.random.default_rng(seed).standard_normal((n, len(self))) @ root.T

    def _title(self) -> str:
        return f"Posterior of {len(self)} observable{'' if len(self) == 1 else 's'}"

    def _columns(self) -> list[str]:
        return ["observable", "mean", "std"]

    def _rows(self) -> list[list[str]]:
        return [[str(k), f"{mean:.6g}", f"{std:.2g}"] for k, (mean, std) in enumerate(zip(self.mean, self.std, strict=True))]


def posterior(predictor: Predictor, observables) -> JointPosterior:
    """See `Potential.posterior`."""
    functionals, constants = functionals_of(as_observables(observables))
    process = predictor.placed
    p = predictor(functionals.batch, frozenset())
    mean = functionals.of(np.concatenate(p.energies), np.concatenate(p.forces), p.stress) + constants
    covariance = process.covariance(functionals)
    return JointPosterior(mean, 0.5 * (covariance + covariance.T))
