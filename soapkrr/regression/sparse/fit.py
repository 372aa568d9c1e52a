"""Fits on sparse environments: rows of kernel values, their triangles, and Bayesian linear regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr import backends, linear
from soapkrr.execution.pools import meanwhile
from soapkrr.execution.resources import Resources
from soapkrr.regression.data import check_tolerance
from soapkrr.regression.evidence import log_likelihood, optimise_sparse
from soapkrr.regression.fit import Fit, Problem, Scheme
from soapkrr.regression.sparse.cross_validation import cross_validated
from soapkrr.regression.sparse.kept import KeptRows
from soapkrr.regression.sparse.points import unwhitened
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.triangles import kernel_triangles, rescaled, whitened_triangles, whitens_concurrently
from soapkrr.regression.targets import log_weights
from soapkrr.regression.terms import SparseTerm

#: Folds of a cross-validation, by structure.
FOLDS = 5


@dataclass(frozen=True)
class SparseEnvironments(Scheme):
    """Nyström features of sparse environments and their linear regression.

    Parameters
    ----------
    tolerance : eigenvalues of the sparse points' kernel matrix below this fraction of the largest are dropped.
    """

    tolerance: float

    optimizers = ("evidence", "cross-validation")
    local = None

    def __post_init__(self):
        check_tolerance(self.tolerance)

    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """See `Scheme.fit`."""
        unwhitened_terms = [unwhitened(term, problem.data, resources) for term in problem.terms]
        parts = problem.data.folds(FOLDS) if problem.optimize == "cross-validation" else [problem.data]
        kept = KeptRows() if problem.keep and not resources.pool.remote else None
        terms, folds = self._folds(unwhitened_terms, parts, resources, kept)
        noise, (triangles, counts), front = dict(problem.noise), folds[0], None
        if problem.optimize == "cross-validation":
            noise, signals, (triangles, counts), front = cross_validated(
                folds, noise, [t.signal for t in terms], problem.score, resources.threads
            )
            terms, triangles = rescaled(terms, triangles, signals)
        if problem.optimize == "evidence":
            found = optimise_sparse(triangles, counts, noise, [t.rank for t in terms], [t.signal for t in terms])
            noise, (terms, triangles) = {**noise, **found.noise}, rescaled(terms, triangles, found.signals)
        posterior = linear.solve(triangles, {kind: noise[kind] for kind in triangles})
        linear.check_condition(max([posterior.condition, *(linear.whitening_condition(T) for term in terms for T in term.transform)]))
        evidence = log_likelihood(posterior, counts, noise) + log_weights(problem.data)
        process = SparseProcess(tuple(term.moved(np) for term in terms), posterior.moved(np))
        return Fit(process, noise, counts, evidence, backends.host(triangles), kept, front)

    def _folds(
        self, unwhitened_terms: Sequence[SparseTerm], parts: Sequence, resources: Resources, kept: KeptRows | None
    ) -> tuple[list[SparseTerm], list[tuple[Mapping, Mapping]]]:
        """Whitened terms, and of each part of the data {kind: triangle of [Φ | y]} and {kind: number of rows}."""
        concurrent = resources.division.concurrent and whitens_concurrently(sum(t.n_points for t in unwhitened_terms), resources.threads)
        with meanwhile(lambda: [t.whitened(self.tolerance, resources.threads) for t in unwhitened_terms], concurrent) as whitened:
            folds = [kernel_triangles(unwhitened_terms, part, resources, kept) for part in parts]
            terms = whitened()
        return terms, [(whitened_triangles(terms, triangles, resources.threads), counts) for triangles, counts in folds]
