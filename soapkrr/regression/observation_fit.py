"""Fits whose representers are observations: all of them (the exact Gaussian process), or those that pivoted Cholesky picks."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError, require_positive
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.conjugate_gradients import ObservedSystem
from soapkrr.regression.data import TrainingData
from soapkrr.regression.evidence import exact_evidence, maximise, optimise_sparse
from soapkrr.regression.observation_model import IterativeModel, ObservationModel
from soapkrr.regression.observed import Group, covariance
from soapkrr.regression.operator import CovarianceOperator
from soapkrr.regression.targets import KINDS, observation_kinds, observation_targets, observed_structures, subset
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.selection import farthest_point_sampling, share

logger = logging.getLogger(__name__)

#: Observations from which hyperparameters are found: each step of the optimiser costs N³.
OPTIMISE_ON = 1000

#: How an exact process is solved.
SOLVERS = ("auto", "cholesky", "cg")

#: A matrix of all observations larger than this, bytes, is not made unless asked for: 32,768 observations.
CHOLESKY_BYTES = 2**33

#: Fewest and most sparse points of a preconditioner whose number is not given; between them a fifth of the environments.
PRECONDITIONER = (1000, 3000)

#: Eigenvalues of the preconditioner's kernel matrix below this fraction of the largest are dropped.
TRUNCATION = 1e-13


def total_covariance(terms: list[Term], groups: list[list[Group]], threads: int | None) -> np.ndarray:
    """Σ δ²K over terms, of all observations."""
    total = None
    for term, mine in zip(terms, groups, strict=True):
        K = covariance(term.kernel, mine, threads=threads)
        K *= term.signal**2
        total = K if total is None else np.add(total, K, out=total)
    return total


def collapse(terms, groups, weights: np.ndarray) -> list[CollapsedPart]:
    """The collapsed mean of every term from the weights of all observations."""
    return [CollapsedPart.collapse(t, g, weights) for t, g in zip(terms, groups, strict=True)]


def fit_exact(terms: list[Term], data: TrainingData, noise, threads: int | None, xp=np) -> tuple[ObservationModel, float]:
    """Every known observation a representer; the model and its log evidence. ``xp``: library of the arrays it is computed with."""
    structures = observed_structures(data)
    groups = [structures.groups(t.descriptor, threads, xp) for t in terms]
    y, sigma = observation_targets(data, noise)
    K, known = total_covariance(terms, groups, threads), np.flatnonzero(np.isfinite(sigma))
    if len(known) < len(y):
        K = some_of(K, known)
    L, half, evidence = solve_exact(K, y[known], sigma[known], threads)
    weights = np.zeros(len(y))
    weights[known] = backends.host(linear.backward(L, half))
    model = ObservationModel(collapse(terms, groups, weights), structures, groups, known, L, threads=threads)
    return model.on(np, threads), evidence


def some_of(K: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows and columns ``index`` (a NumPy array) of K."""
    at = backends.namespace(K).asarray(index)
    return K[at[:, None], at[None, :]]


def fit_iterative(terms: list[Term], data: TrainingData, noise, threads, tolerance: float, n: int | None, device: str) -> IterativeModel:
    """`fit_exact` without K: by conjugate gradients to the ``tolerance`` of `ObservedSystem.solve`, with ``n`` sparse points to help."""
    structures = observed_structures(data)
    y, sigma = observation_targets(data, noise)
    operator = CovarianceOperator(terms, structures, threads, backends.library(device))
    n = preconditioning_points(n, operator.batch.n_atoms)
    sparse = [preconditioning_term(term, seen.points, n // len(terms)) for term, seen in zip(terms, operator.seen, strict=True)]
    weights, residual, iterations = ObservedSystem.of(operator, sigma, sparse, threads).solve(y, tolerance)
    logger.info("%d observations, %d iterations to a residual of %.1e of the noise", len(y), iterations, residual)
    known = np.flatnonzero(np.isfinite(sigma))
    parts, sparse = [part.moved(np) for part in operator.collapse(weights)], tuple(term.moved(np) for term in sparse)
    options = {"threads": threads, "sigma": sigma, "sparse": sparse, "tolerance": tolerance, "device": device}
    return IterativeModel(parts, structures, [], known, residual=residual, iterations=iterations, **options)


def preconditioning_term(term: Term, environments, n: int) -> SparseTerm:
    """A sparse term of about ``n`` points of ``environments`` (n_s, d) per species."""
    wanted = points_of_species(np.array([len(x) for x in environments]), n)
    points = [x[farthest_point_sampling(x, int(k))] if k else x for x, k in zip(environments, wanted, strict=True)]
    return SparseTerm.build(term, points, TRUNCATION)


def points_of_species(counts: np.ndarray, n: int) -> np.ndarray:
    """``n`` points, or as many as there are, shared among species with ``counts`` environments; at least one of each present."""
    wanted = np.zeros_like(counts)
    wanted[counts > 0] = share(counts[counts > 0], max(n, np.count_nonzero(counts)))
    return wanted


def preconditioning_points(n: int | None, n_atoms: int) -> int:
    """``n``, or if None a fifth of the environments within `PRECONDITIONER`; not more than there are."""
    least, most = PRECONDITIONER
    return min(max(least, min(most, n_atoms // 5)) if n is None else n, n_atoms)


def iterates(solver: str, n_observations: int) -> bool:
    """Whether a fit is by conjugate gradients."""
    return solver == "cg" or (solver == "auto" and 8 * n_observations**2 > CHOLESKY_BYTES)


def check_solver(solver: str, tolerance: float, n_preconditioner: int | None, target: str) -> None:
    """Raise on what no fit can use."""
    if solver not in SOLVERS:
        raise InputError(f"`solver` must be one of {SOLVERS}, received {solver!r}.")
    if solver == "cg" and target != "potential":
        raise InputError(f"`solver`='cg' is for potentials, this model has `target`={target!r}; use 'cholesky'.")
    if n_preconditioner is not None and not (isinstance(n_preconditioner, (int, np.integer)) and n_preconditioner > 0):
        raise InputError(f"`n_preconditioner` must be a positive integer or None, received {n_preconditioner!r}.")
    require_positive(cg_tolerance=tolerance)


def solve_exact(K: np.ndarray, y: np.ndarray, sigma: np.ndarray, threads: int | None) -> tuple[np.ndarray, np.ndarray, float]:
    """L with L Lᵀ = K + Σ, L⁻¹y, and the log evidence (Rasmussen and Williams 2006, algorithm 2.1); K is overwritten."""
    xp = backends.namespace(K)
    K.reshape(-1)[:: len(K) + 1] += xp.asarray(sigma**2)
    try:
        L = linear.cholesky(K, threads)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the covariance of the observations is not positive definite ({error}); raise `noise`.") from error
    half = linear.forward(L, xp.asarray(y))
    return L, half, float(-0.5 * half @ half - xp.log(xp.diagonal(L)).sum() - 0.5 * len(half) * np.log(2 * np.pi))


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


def fit_nystrom(terms: list[Term], data: TrainingData, noise, n: int, tolerance: float, threads: int | None, counts=None, xp=np):
    """Up to ``n`` observations chosen by pivoted Cholesky of their covariance in units of their noise, fitted to all observations.

    With ``counts``, the number of rows of each kind, noise levels and one factor of all signals are those of highest evidence; the
    observations are still chosen with those given.

    Returns the model, per kind the triangle of [Φ | y] of its rows, as `SparseGP` keeps them, and the noise.
    """
    structures = observed_structures(data)
    groups = [structures.groups(t.descriptor, threads, xp) for t in terms]
    y, sigma = observation_targets(data, noise)
    K, known = total_covariance(terms, groups, threads), np.flatnonzero(np.isfinite(sigma))
    if len(known) < len(y):
        K = some_of(K, known)
    picked = pivoted_cholesky(K, sigma[known], n, tolerance)
    # Energies, forces and stresses meet in one matrix: in units of their noise it is the better conditioned one.
    unit = xp.asarray(1 / sigma[known][picked])
    transform = unit[:, None] * linear.whitening(unit[:, None] * some_of(K, picked) * unit, tolerance, threads)
    kinds = observation_kinds(data)[known]
    table = xp.column_stack([K[:, xp.asarray(picked)] @ transform, xp.asarray(y[known])])
    table *= xp.asarray((np.array([noise[k] for k in KINDS])[kinds] / sigma[known])[:, None])
    factors = {kind: linear.merge([table[xp.asarray(kinds == k)]]) for k, kind in enumerate(KINDS) if (kinds == k).any()}
    if counts is not None:
        rank = transform.shape[1]
        found = optimise_sparse(factors, counts, noise, [rank], [terms[0].signal])
        factor = found.signals[0] / terms[0].signal
        noise, terms = {**noise, **found.noise}, [replace(t, signal=factor * t.signal) for t in terms]
        # Features of a kernel factor² times as large.
        transform, factors = transform / factor, {kind: f * xp.append(xp.full(rank, factor), xp.ones(1)) for kind, f in factors.items()}
    posterior = linear.solve(factors, {kind: noise[kind] for kind in factors})
    picked, weights = known[picked], np.zeros(len(y))
    weights[picked] = backends.host(transform @ posterior.mean)
    model = ObservationModel(collapse(terms, groups, weights), structures, groups, picked, None, transform, posterior, threads)
    return model.on(np, threads), backends.host(factors), noise


def optimised(terms: list[Term], data: TrainingData, noise, threads: int | None, xp=np) -> tuple[dict[str, float], list[Term]]:
    """Noise levels and terms of highest evidence, of at most `OPTIMISE_ON` observations in structures drawn at random."""
    data = data.some(subset(data.labels, OPTIMISE_ON))
    structures = observed_structures(data)
    y, unit = observation_targets(data, dict.fromkeys(KINDS, 1.0))
    known = np.flatnonzero(np.isfinite(unit))
    K = [some_of(covariance(t.kernel, structures.groups(t.descriptor, threads, xp), threads=threads), known) for t in terms]
    present, index = np.unique(observation_kinds(data)[known], return_inverse=True)
    names = [KINDS[k] for k in present]

    def evidence(levels, signals):
        value, by_noise, by_scale = exact_evidence(K, y[known], index, unit[known], np.array([levels[n] for n in names]), signals)
        return value, dict(zip(names, by_noise, strict=True)), by_scale

    found = maximise(evidence, {n: noise[n] for n in names}, [t.signal for t in terms])
    return {**noise, **found.noise}, [replace(t, signal=s) for t, s in zip(terms, found.signals, strict=True)]
