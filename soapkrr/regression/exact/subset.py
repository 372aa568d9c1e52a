"""Fits on observations chosen by pivoted Cholesky of their covariance, in units of their noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS
from soapkrr.regression.data import check_tolerance
from soapkrr.regression.evidence import log_likelihood, optimise_sparse
from soapkrr.regression.exact.cholesky import collapse, optimised, with_learnt
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.exact.covariance import some_of, total_covariance
from soapkrr.regression.exact.posterior import SubsetProcess
from soapkrr.regression.fit import Fit, Problem, Scheme
from soapkrr.regression.targets import log_weights, observation_counts, observation_targets


@dataclass(frozen=True)
class ObservationSubset(Scheme):
    """Up to ``n`` observations, each of largest remaining variance in units of its noise, fitted to all observations.

    Parameters
    ----------
    n : observations in all terms together.
    tolerance : fraction of the largest below which remaining variances, and eigenvalues of the chosen covariance, are dropped.
    """

    n: Any
    tolerance: float

    def __post_init__(self):
        check_tolerance(self.tolerance)
        if not (isinstance(self.n, (int, np.integer)) and self.n > 0):
            raise InputError(f"`n_sparse` must be a positive integer with `representers`='observations', received {self.n!r}.")

    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """See `Scheme.fit`. With ``optimize``, observations are chosen with the noise levels given; those of one term stay as they are."""
        problem = with_learnt(problem, resources)
        if problem.optimize and len(problem.terms) > 1:
            problem = replace(problem, terms=optimised(problem, resources).terms)
        structures, threads = ObservedStructures.of(problem.data), resources.threads
        compositions = [structures.compositions(t.descriptor, threads, resources.xp) for t in problem.terms]
        y, sigma = observation_targets(problem.data, problem.noise)
        known = np.flatnonzero(np.isfinite(sigma))
        K = total_covariance(problem.terms, compositions, threads, known)
        picked = pivoted_cholesky(K, sigma[known], self.n, self.tolerance)
        transform = self._transform(K, picked, sigma[known], threads)
        levels = np.array([problem.noise[kind] for kind in KINDS])[structures.layout.kinds[known]]
        phi = K[:, array_beside(K, picked)] @ transform
        triangles = feature_triangles(phi, y[known], levels / sigma[known], structures.layout.kinds[known])
        counts = observation_counts(problem.data.labels)
        if problem.optimize:
            problem, transform, triangles = _rescaled(problem, transform, triangles, counts)
        posterior = linear.solve(triangles, {kind: problem.noise[kind] for kind in triangles})
        linear.check_condition(posterior.condition)
        weights = np.zeros(len(y))
        weights[known[picked]] = backends.host(transform @ posterior.mean)
        process = SubsetProcess(
            parts=collapse(problem.terms, compositions, weights),
            structures=structures,
            compositions=compositions,
            picked=known[picked],
            transform=transform,
            posterior=posterior,
            threads=threads,
        ).on(np, threads)
        evidence = log_likelihood(process.posterior, counts, problem.noise) + log_weights(problem.data)
        return Fit(process, problem.noise, counts, evidence, backends.host(triangles))

    def _transform(self, K: np.ndarray, picked: np.ndarray, sigma: np.ndarray, threads: int | None) -> np.ndarray:
        """T (n_representers, r) with Tᵀ K T = 1 over the representers."""
        # Energies, forces and stresses meet in one matrix: in units of their noise it is the better conditioned one.
        unit = array_beside(K, 1 / sigma[picked])
        return unit[:, None] * linear.whitening(unit[:, None] * some_of(K, picked) * unit, self.tolerance, threads)


def array_beside(K: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A NumPy array where K lives."""
    return backends.namespace(K).asarray(values)


def feature_triangles(phi: np.ndarray, y: np.ndarray, sharpness: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """{kind: triangle of [Φ | y]} of rows with targets and factors of their own, whose kinds are known."""
    table = backends.namespace(phi).column_stack([phi, array_beside(phi, y)]) * array_beside(phi, sharpness)[:, None]
    return {kind: linear.merge([table[array_beside(table, kinds == k)]]) for k, kind in enumerate(KINDS) if (kinds == k).any()}


def _rescaled(problem: Problem, transform: np.ndarray, triangles: dict, counts) -> tuple[Problem, np.ndarray, dict]:
    """With noise levels and one factor of all signals of highest evidence; features become those of a kernel factor² times as large."""
    rank, xp = transform.shape[1], backends.namespace(transform)
    found = optimise_sparse(triangles, counts, problem.noise, [rank], [problem.terms[0].signal])
    factor = found.signals[0] / problem.terms[0].signal
    terms = tuple(replace(t, signal=factor * t.signal) for t in problem.terms)
    columns = xp.append(xp.full(rank, factor), xp.ones(1))
    problem = replace(problem, noise={**problem.noise, **found.noise}, terms=terms)
    return problem, transform / factor, {kind: triangle * columns for kind, triangle in triangles.items()}


def pivoted_cholesky(K: np.ndarray, scale: np.ndarray, n: int, tolerance: float) -> np.ndarray:
    """Pivots of K, each the row of largest remaining variance over ``scale``², until n or until all are below ``tolerance`` × the first.

    K is only read. Source: Harbrecht, Peters and Schneider 2012, doi 10.1016/j.apnum.2011.10.001.
    """
    xp = backends.namespace(K)
    left, precision = xp.diagonal(K).copy(), xp.asarray(1 / scale**2)
    rows, picked = xp.empty((min(n, len(K)), len(K))), []
    first = float((left * precision).max())
    for k in range(len(rows)):
        pivot = int(xp.argmax(left * precision))
        if float(left[pivot] * precision[pivot]) <= tolerance * first:
            break
        rows[k] = (K[pivot] - rows[:k, pivot] @ rows[:k]) / xp.sqrt(left[pivot])
        left -= rows[k] ** 2
        left[pivot] = 0.0
        picked.append(pivot)
    return np.array(picked, dtype=np.int64)
