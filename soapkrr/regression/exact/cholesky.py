"""Exact fits by Cholesky decomposition of the covariance of all observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS
from soapkrr.regression.data import TrainingData
from soapkrr.regression.evidence import exact_evidence, maximise
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.compositions import Composition, ObservedStructures, located
from soapkrr.regression.exact.covariance import covariance, some_of, total_covariance
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.fit import Fit, Problem, Scheme
from soapkrr.regression.sparse.points import learnt
from soapkrr.regression.targets import observation_counts, observation_targets, subset
from soapkrr.regression.terms import Term

#: Observations from which hyperparameters are found: each step of the optimiser costs N³.
OPTIMISE_ON = 1000


@dataclass(frozen=True)
class Cholesky(Scheme):
    """All observations are representers, and their covariance matrix is decomposed."""

    def fit(self, problem: Problem, resources: Resources) -> Fit:
        """See `Scheme.fit`."""
        problem = with_learnt(problem, resources)
        if problem.optimize:
            problem = optimised(problem, resources)
        process, evidence = decomposed(problem.terms, problem.data, problem.noise, resources)
        return Fit(process, problem.noise, observation_counts(problem.data.labels), evidence)


def with_learnt(problem: Problem, resources: Resources) -> Problem:
    """The problem with what descriptors learn from the data, without structures that have no label."""
    terms = tuple(replace(t, descriptor=learnt(t.descriptor, problem.data.frames, resources)) for t in problem.terms)
    return replace(problem, terms=terms, data=problem.data.labelled())


def collapse(terms: Sequence[Term], compositions: list[list[Composition]], weights: np.ndarray) -> list[CollapsedPart]:
    """The collapsed mean of every term from the weights of all observations."""
    return [CollapsedPart.collapse(t, seen, weights) for t, seen in zip(terms, compositions, strict=True)]


def decomposed(terms: Sequence[Term], data: TrainingData, noise, resources: Resources) -> tuple[ExactProcess, float]:
    """The process of all known observations, and its log evidence."""
    structures, threads = ObservedStructures.of(data), resources.threads
    compositions = [structures.compositions(t.descriptor, threads, resources.xp) for t in terms]
    y, sigma = observation_targets(data, noise)
    known = np.flatnonzero(np.isfinite(sigma))
    K = total_covariance(terms, compositions, threads, known)
    L, half, evidence = solve_exact(K, y[known], sigma[known], threads)
    weights = np.zeros(len(y))
    weights[known] = backends.host(linear.backward(L, half))
    parts = collapse(terms, compositions, weights)
    matrices = {"factor": L, "targets": y[known]}
    process = ExactProcess(parts=parts, structures=structures, compositions=compositions, picked=known, threads=threads, **matrices)
    return process.on(np, threads), evidence


def solve_exact(K: np.ndarray, y: np.ndarray, sigma: np.ndarray, threads: int | None) -> tuple[np.ndarray, np.ndarray, float]:
    """L with L Lᵀ = K + Σ, L⁻¹y, and the log evidence (Rasmussen and Williams 2006, algorithm 2.1); K is overwritten."""
    xp = backends.namespace(K)
    K.reshape(-1)[:: len(K) + 1] += xp.asarray(sigma**2)
    try:
        L = linear.cholesky(K, threads)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the covariance of the observations is not positive definite ({error}); raise `noise`.") from error
    linear.check_condition(linear.covariance_condition(L), linear.DOUBTFUL_COVARIANCE)
    half = linear.forward(L, xp.asarray(y))
    return L, half, float(-0.5 * half @ half - xp.log(xp.diagonal(L)).sum() - 0.5 * len(half) * np.log(2 * np.pi))


def optimised(problem: Problem, resources: Resources) -> Problem:
    """The problem with noise levels and signals of highest evidence, of at most `OPTIMISE_ON` observations drawn by structure."""
    data, threads = subset(problem.data, OPTIMISE_ON), resources.threads
    structures = ObservedStructures.of(data)
    y, unit = observation_targets(data, dict.fromkeys(KINDS, 1.0))
    known = np.flatnonzero(np.isfinite(unit))
    seen = [structures.compositions(t.descriptor, threads, resources.xp) for t in problem.terms]
    K = [some_of(covariance(t.kernel, s, threads=threads), located(s, known)) for t, s in zip(problem.terms, seen, strict=True)]
    present, index = np.unique(structures.layout.kinds[known], return_inverse=True)
    names = [KINDS[k] for k in present]

    def evidence(levels, signals):
        value, by_noise, by_scale = exact_evidence(K, y[known], index, unit[known], np.array([levels[n] for n in names]), signals)
        return value, dict(zip(names, by_noise, strict=True)), by_scale

    found = maximise(evidence, {n: problem.noise[n] for n in names}, [t.signal for t in problem.terms])
    terms = tuple(replace(t, signal=s) for t, s in zip(problem.terms, found.signals, strict=True))
    return replace(problem, noise={**problem.noise, **found.noise}, terms=terms)
