"""Expected size of the error of a prediction, from the posterior and from what errors of left-out labels were."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import minimize

from soapkrr.regression import stored
from soapkrr.student import student_loss

#: Fraction of a Gaussian's errors within one standard deviation.
ONE_STD = 0.682689

#: Part of the training atoms at either end beyond which what a size depends on counts no further: there the posterior speaks.
ENDS = 0.005

#: Part of the posterior standard deviation below which no size falls, times the ratio of errors to it where it is largest.
LEAST = 0.5

#: Posterior standard deviations that are trusted far from the data, in units of their own.
FAR = 1.5

#: Penalties of weights that are tried, softest last; folds of structures that choose.
PENALTIES, FOLDS = (1000.0, 100.0, 10.0, 1.0), 4


@dataclass(frozen=True)
class TotalScale:
    """Size of errors of energies, or of stress components: s² = (aσ)² + c²·N for energies of N atoms, without N for stresses.

    Far from the data (novelty from 1 to 10) σ itself is added.

    Attributes
    ----------
    posterior : a.  model : c, eV or eV/Å³.  unit : factor by which 68.27 % of left-out errors are within s.
    """

    posterior: float
    model: float
    unit: float

    @classmethod
    def learnt(cls, errors: np.ndarray, sigma: np.ndarray, n: np.ndarray) -> TotalScale:
        """Of the highest likelihood of errors with posterior standard deviations sigma; n: N, or 1."""
        typical = max(float(np.median(np.abs(errors) / np.sqrt(n))), 1e-12)

        def f(x):
            a, c = np.exp(x)
            variance = (a * sigma) ** 2 + (c * typical) ** 2 * n
            value, slope = student_loss(errors**2, variance)
            # Weak priors: a near 1, c near the typical error.
            gradient = 2 * np.array([slope @ (a * sigma) ** 2, slope @ ((c * typical) ** 2 * n)])
            return value + 0.5 * x[0] ** 2 + 0.05 * x[1] ** 2, gradient + np.array([x[0], 0.1 * x[1]])

        a, c = np.exp(minimize(f, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-4, 3), (-6, 4)]).x)
        size = np.sqrt((a * sigma) ** 2 + (c * typical) ** 2 * n)
        return cls(float(a), float(c * typical), float(np.quantile(np.abs(errors) / size, ONE_STD)))

    def __call__(self, sigma: np.ndarray, n: np.ndarray | float = 1.0, novelty: np.ndarray | float = 0.0) -> np.ndarray:
        """Expected size of errors."""
        inside = self.unit**2 * ((self.posterior * sigma) ** 2 + self.model**2 * n)
        return np.sqrt(inside + far(novelty) * (FAR * sigma) ** 2)

    def state(self) -> dict:
        """For a model file."""
        return vars(self).copy()


@dataclass(frozen=True, eq=False)
class ForceScale:
    """Size of errors of force components on atoms of one species.

    log s = w·(1, log σ, log |F|, y) with σ the root mean square of the posterior standard deviations of the components and y the
    descriptor, projected on its principal components: errors of like surroundings are alike. s never falls below a part of σ, and far from
    the data (novelty from 1 to 10) σ itself takes over. Components share s in proportion to √(σ_c² + σ²/4).

    Attributes
    ----------
    centre : (d,).  axes : (d, k) projection.  limits : (2, 3 + k) of what the size depends on.  weights : (3 + k,).
    offset : eV/Å, added to σ.  force : typical |F|, eV/Å.
    least : part of σ below which s does not fall.  unit : factor by which 68.27 % of left-out errors are within s.
    """

    centre: np.ndarray
    axes: np.ndarray
    limits: np.ndarray
    weights: np.ndarray
    offset: float
    force: float
    least: float
    unit: float

    def columns(self, sigma: np.ndarray, forces: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n, 3 + k) what the size depends on; sigma, forces (n, 3), y (n, k)."""
        size = np.log(np.linalg.norm(forces, axis=1) / self.force + 0.3)
        return np.clip(np.column_stack([np.ones(len(y)), np.log(root_mean(sigma) + self.offset), size, y]), *self.limits)

    def __call__(self, sigma: np.ndarray, forces: np.ndarray, y: np.ndarray, novelty: np.ndarray) -> np.ndarray:
        """(n, 3) expected size of errors."""
        typical = root_mean(sigma)
        inside = np.exp(2 * np.clip(self.columns(sigma, forces, y) @ self.weights, -50.0, 20.0)) + (self.least * typical) ** 2
        outside = far(novelty) * (FAR * typical) ** 2
        return np.sqrt(self.unit**2 * inside + outside)[:, None] * anisotropy(sigma)

    def state(self) -> dict:
        """For a model file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def far(novelty):
    """0 up to a novelty of 1, 1 from one of 10."""
    return np.clip(np.log10(np.maximum(novelty, 1e-9)), 0.0, 1.0)


def root_mean(sigma: np.ndarray) -> np.ndarray:
    """(n,) root mean square of the components of (n, 3)."""
    return np.sqrt(np.mean(sigma**2, axis=1))


def anisotropy(sigma: np.ndarray) -> np.ndarray:
    """(n, 3) share of each component: of mean square 1."""
    mean = np.mean(sigma**2, axis=1, keepdims=True) + 1e-30
    return np.sqrt((sigma**2 + 0.25 * mean) / (1.25 * mean))


def learnt_weights(columns: np.ndarray, squares: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """Weights of log s of highest likelihood, with the penalty that predicts the errors of left-out structures best.

    columns (n, 3 + k), squares (n, 3) squared errors over the shares of their components, structure (n,).
    """
    folds = np.searchsorted(np.unique(structure), structure) % FOLDS
    losses = []
    for penalty in PENALTIES:
        parts = [(folds != f, folds == f) for f in range(FOLDS) if (folds == f).any() and (folds != f).any()]
        losses.append(sum(_loss(_weights(columns[a], squares[a], penalty), columns[b], squares[b]) for a, b in parts))
    return _weights(columns, squares, PENALTIES[int(np.argmin(losses))])


def _weights(columns: np.ndarray, squares: np.ndarray, penalty: float) -> np.ndarray:
    prior = np.zeros(columns.shape[1])
    prior[1] = 1.0  # in proportion to the posterior
    strength = np.full(len(prior), penalty)
    strength[0], strength[1] = 1e-3, 0.3 * penalty

    def f(w):
        variance = np.exp(2 * np.clip(columns @ w, -50.0, 20.0))[:, None]
        value, slope = student_loss(squares, variance)
        return value + 0.5 * strength @ (w - prior) ** 2, columns.T @ (2 * (slope * variance).sum(axis=1)) + strength * (w - prior)

    return minimize(f, prior, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x


def _loss(w: np.ndarray, columns: np.ndarray, squares: np.ndarray) -> float:
    return student_loss(squares, np.exp(2 * np.clip(columns @ w, -50.0, 20.0))[:, None])[0]


def restored_total(state, name: str) -> TotalScale:
    """From a model file."""
    given = stored.mapping(state, name)
    return TotalScale(*(abs(stored.number(given[f.name], f"{name}.{f.name}")) for f in fields(TotalScale)))


def restored_force(state, name: str) -> ForceScale:
    """From a model file."""
    given = stored.mapping(state, name)
    axes = stored.array(given["axes"], f"{name}.axes", shape=(None, None))
    centre = stored.array(given["centre"], f"{name}.centre", shape=(len(axes),))
    limits = stored.array(given["limits"], f"{name}.limits", shape=(2, 3 + axes.shape[1]))
    weights = stored.array(given["weights"], f"{name}.weights", shape=(3 + axes.shape[1],))
    positive = [stored.number(given[part], f"{name}.{part}", positive=True) for part in ("offset", "force")]
    others = [abs(stored.number(given[part], f"{name}.{part}")) for part in ("least", "unit")]
    return ForceScale(centre, axes, limits, weights, *positive, *others)
