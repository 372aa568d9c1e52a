"""Exact fits by conjugate gradients: the covariance of all observations is never stored.

Variances solve for it again: k_LL − k_Lᵀ(K + Σ)⁻¹k_L, one system for each L.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends
from soapkrr.errors import InputError, ModelFileError, require_positive
from soapkrr.execution.resources import Resources
from soapkrr.lazy import cached_property
from soapkrr.regression import stored
from soapkrr.regression.exact.cholesky import Cholesky, optimised, with_learnt
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.exact.conjugate_gradients import ObservedSystem
from soapkrr.regression.exact.covariance import variances
from soapkrr.regression.exact.operator import CovarianceOperator
from soapkrr.regression.exact.process import ObservationProcess, restored_parts
from soapkrr.regression.fit import Fit, Problem, Scheme
from soapkrr.regression.targets import observation_counts, observation_targets
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.selection.methods import farthest_point_sampling, share

logger = logging.getLogger(__name__)

#: A matrix of all observations larger than this, bytes, is not made unless asked for: 32,768 observations.
CHOLESKY_BYTES = 2**33

#: Fewest and most sparse points of a preconditioner whose number is not given; between them a fifth of the environments.
PRECONDITIONER = (1000, 3000)

#: Eigenvalues of the preconditioner's kernel matrix below this fraction of the largest are dropped.
TRUNCATION = 1e-13


@dataclass(frozen=True, eq=False, kw_only=True)
class IterativeProcess(ObservationProcess):
    """The exact process without a factor of K + Σ.

    Attributes
    ----------
    sigma : (n_observations,) noise, NaN where unknown.  sparse : sparse terms of the preconditioner.
    tolerance : relative, of standard deviations.  residual, iterations : of the fit.  device : where K + Σ is solved for.
    """

    sigma: np.ndarray
    sparse: tuple[SparseTerm, ...]
    tolerance: float
    residual: float
    iterations: int
    device: str = "cpu"

    @cached_property
    def system(self) -> ObservedSystem:
        """K + Σ, made when the first variance is asked for."""
        terms = [Term(part.descriptor, part.kernel, signal=part.signal) for part in self.parts]
        xp = backends.library(self.device)
        operator = CovarianceOperator(terms, self.structures, self.threads, xp)
        return ObservedSystem.of(operator, self.sigma, [term.moved(xp) for term in self.sparse], self.threads)

    def _on(self, xp, threads):
        return replace(self, parts=[part.moved(xp) for part in self.parts], device="cpu" if xp is np else "cuda", threads=threads)

    def state(self):
        """See `Process.state`."""
        own = {name: getattr(self, name) for name in ("sigma", "tolerance", "residual", "iterations")}
        return {**super().state(), "sparse": [t.state() for t in self.sparse], **own}

    @classmethod
    def restore(cls, state, threads):
        """See `Process.restore`."""
        parts, structures = restored_parts(state)
        sparse = tuple(SparseTerm.restore(term) for term in state["sparse"])
        sigma, size = state["sigma"], structures.layout.size
        known = stored.array(sigma[~np.isnan(sigma)], "sigma", shape=(None,))
        if sigma.shape != (size,) or not (known > 0).all() or len(sparse) != len(parts):
            raise ModelFileError(f"the arrays do not fit together: {size} observations, {sigma.shape} noise levels, positive or unknown.")
        own = {
            "tolerance": stored.number(state["tolerance"], "tolerance", positive=True),
            "residual": stored.number(state["residual"], "residual"),
            "iterations": stored.count(state["iterations"], "iterations"),
        }
        return cls(parts=parts, structures=structures, threads=threads, sparse=sparse, sigma=sigma, **own)

    def samples(self, n, seed):
        """Refused: samples need a factor of K + Σ."""
        raise InputError(
            "samples need the covariance matrix, which conjugate gradients avoid; fit with `solver`='cholesky', or a `SparseGP`."
        )

    def observed(self, potentials):
        """See `ObservationProcess.observed`; unknown observations have infinite noise."""
        operator = self.system.operator
        return operator.observe([part.moved(operator.xp) for part in potentials])

    def gains(self, cross, known, sigma):
        """See `ObservationProcess.gains`: each solved for to the tolerance of the fit."""
        return np.array([self.system.solve(k, self.tolerance)[0] for k in cross])[:, known]

    def joint(self, cross, prior):
        """See `ObservationProcess.joint`: a system for each functional, solved to the tolerance of its standard deviation."""
        return prior - self.system.explained_matrix(cross, np.diagonal(prior), self.tolerance)

    def deviations(self, queries):
        """See `ObservationProcess.deviations`."""
        pairs = zip(self.parts, queries, strict=True)
        priors = backends.host(sum(part.signal**2 * variances(part.kernel, query) for part, query in pairs))
        left = np.empty_like(priors)
        for row, prior in enumerate(priors):
            unit = np.zeros(len(priors))
            unit[row] = 1.0
            parts = [CollapsedPart.collapse(part, query, unit) for part, query in zip(self.parts, queries, strict=True)]
            parts = [part.moved(self.system.operator.xp) for part in parts]
            left[row] = prior - self.system.explained(self.system.operator.observe(parts), prior, self.tolerance)
        return np.sqrt(np.maximum(left, 0.0))


@dataclass(frozen=True)
class ConjugateGradients(Scheme):
    """All observations are representers, and K w is made on the fly.

    Parameters
    ----------
    tolerance : as in `ObservedSystem.solve`.  n_preconditioner : sparse points that help, or None.
    """

    tolerance: float
    n_preconditioner: int | None

    def __post_init__(self):
        n = self.n_preconditioner
        if n is not None and not (isinstance(n, (int, np.integer)) and n > 0):
            raise InputError(f"`n_preconditioner` must be a positive integer or None, received {n!r}.")
        require_positive(cg_tolerance=self.tolerance)

    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """See `Scheme.fit`; the evidence is not known."""
        problem = with_learnt(problem, resources)
        if problem.optimize:
            problem = optimised(problem, resources)
        structures, threads = ObservedStructures.of(problem.data), resources.threads
        y, sigma = observation_targets(problem.data, problem.noise)
        operator = CovarianceOperator(problem.terms, structures, threads, resources.xp)
        n = self.points(operator.batch.n_atoms) // len(problem.terms)
        sparse = [preconditioning_term(seen.term, seen.points, n) for seen in operator.seen]
        weights, residual, iterations = ObservedSystem.of(operator, sigma, sparse, threads).solve(y, self.tolerance)
        logger.info("%d observations, %d iterations to a residual of %.1e of the noise", len(y), iterations, residual)
        process = IterativeProcess(
            parts=[part.moved(np) for part in operator.collapse(weights)],
            structures=structures,
            threads=threads,
            sigma=sigma,
            sparse=tuple(term.moved(np) for term in sparse),
            tolerance=self.tolerance,
            residual=residual,
            iterations=iterations,
        )
        return Fit(process, problem.noise, observation_counts(problem.data.labels), np.nan)

    def points(self, n_atoms: int) -> int:
        """Sparse points of the preconditioner: a fifth of the environments within `PRECONDITIONER` unless given, at most all."""
        least, most = PRECONDITIONER
        return min(max(least, min(most, n_atoms // 5)) if self.n_preconditioner is None else self.n_preconditioner, n_atoms)


@dataclass(frozen=True)
class BySize(Scheme):
    """Cholesky decomposition up to `CHOLESKY_BYTES`, conjugate gradients beyond."""

    iterative: ConjugateGradients

    def resolved(self, n_observations: int) -> Scheme:
        """See `Scheme.resolved`."""
        return self.iterative if 8 * n_observations**2 > CHOLESKY_BYTES else Cholesky()

    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """See `Scheme.fit`."""
        return self.resolved(ObservedStructures.of(problem.data.labelled()).n_rows).fit(problem, resources)


def preconditioning_term(term: Term, environments: Sequence[np.ndarray], n: int) -> SparseTerm:
    """A term on ``n`` farthest environments, in proportion to those of each species."""
    wanted = points_of_species(np.array([len(x) for x in environments]), n)
    points = [x[farthest_point_sampling(x, int(k))] if k else x for x, k in zip(environments, wanted, strict=True)]
    return SparseTerm.build(term, points, TRUNCATION)


def points_of_species(counts: np.ndarray, n: int) -> np.ndarray:
    """``n`` points, or as many as there are, shared among species with ``counts`` environments; at least one of each present."""
    wanted = np.zeros_like(counts)
    wanted[counts > 0] = share(counts[counts > 0], max(n, np.count_nonzero(counts)))
    return wanted
