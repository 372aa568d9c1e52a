"""More observations for a process on features: rows that its triangles absorb, and sparse points where surroundings are new.

The triangle R of the rows [Φ | y] holds all that a fit knows of them. Further rows are one more block under it: m new ones of r features
take 2 m r² operations, whatever was observed before. A new sparse point is a new column of all rows, those before included, which a
triangle cannot make up: rows of all structures are made again, and their triangles with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import InputError
from soapkrr.execution.resources import Resources
from soapkrr.kernels import squares
from soapkrr.labels import KINDS
from soapkrr.regression.data import TrainingData
from soapkrr.regression.evidence import log_likelihood
from soapkrr.regression.exact.cholesky import collapse
from soapkrr.regression.exact.compositions import ObservedStructures, located
from soapkrr.regression.exact.covariance import covariance
from soapkrr.regression.exact.posterior import SubsetProcess
from soapkrr.regression.exact.subset import feature_triangles
from soapkrr.regression.fit import Fit
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.points import environments, takes_basis
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.triangles import kernel_triangles, whitened_triangles
from soapkrr.regression.targets import log_weights, observation_counts, observation_targets
from soapkrr.regression.terms import SparseTerm


@singledispatch
def absorbed(process: Process, fit: Fit, more: TrainingData, resources: Resources) -> Fit:
    """The ``fit`` of this process with the rows of more structures, whose references are those of the fit; its features stay."""
    raise InputError(f"a {type(process).__name__} does not take more rows: fit again with all structures.")


@absorbed.register
def _(process: SparseProcess, fit: Fit, more: TrainingData, resources: Resources) -> Fit:
    terms = [term.moved(resources.xp) for term in process.terms]
    triangles, counts = kernel_triangles(terms, more, resources)
    merged, posterior = _merged(fit, whitened_triangles(terms, triangles, resources.threads), resources)
    return _fit(replace(process, posterior=posterior.moved(np)), posterior, fit, more, counts, merged)


@absorbed.register
def _(process: SubsetProcess, fit: Fit, more: TrainingData, resources: Resources) -> Fit:
    process, structures = process.on(resources.xp, resources.threads), ObservedStructures.of(more)
    y, sigma = observation_targets(more, fit.noise)
    known, columns, cross = np.flatnonzero(np.isfinite(sigma)), located(process.compositions[0], process.picked), 0.0
    for part, trained in zip(process.parts, process.compositions, strict=True):
        new = structures.compositions(part.descriptor, resources.threads, resources.xp)
        K = covariance(part.kernel, new, trained, resources.threads)
        cross = cross + part.signal**2 * K[process.xp.asarray(located(new, known))][:, process.xp.asarray(columns)]
    kinds = structures.layout.kinds[known]
    levels = np.array([fit.noise[kind] for kind in KINDS])[kinds]
    triangles = feature_triangles(cross @ process.transform, y[known], levels / sigma[known], kinds)
    merged, posterior = _merged(fit, triangles, resources)
    weights = np.zeros(process.structures.layout.size)
    weights[process.picked] = backends.host(process.transform @ posterior.mean)
    parts = collapse(process.parts, process.compositions, weights)
    process = replace(process, parts=parts, posterior=posterior).on(np, resources.threads)
    return _fit(process, posterior, fit, more, observation_counts(more.labels), merged)


def _merged(fit: Fit, more: dict, resources: Resources) -> tuple[dict, linear.Posterior]:
    """{kind: triangle} of the fit and of further rows together, and the posterior."""
    if not fit.triangles:
        raise InputError("the model does not keep the triangles of its rows; fit it again.")
    before = backends.moved(resources.xp, dict(fit.triangles))
    merged = {
        kind: linear.merge([part[kind] for part in (before, more) if kind in part]) for kind in KINDS if kind in before or kind in more
    }
    posterior = linear.solve(merged, {kind: fit.noise[kind] for kind in merged})
    linear.check_condition(posterior.condition)
    return merged, posterior


def _fit(process, posterior: linear.Posterior, fit: Fit, more: TrainingData, counts, triangles: dict) -> Fit:
    """A fit with the rows of more structures; what weights add to the evidence is what they added before, and that of the new rows."""
    total = {kind: fit.counts.get(kind, 0) + counts.get(kind, 0) for kind in KINDS if kind in fit.counts or kind in counts}
    before = fit.evidence - log_likelihood(fit.process.posterior, fit.counts, fit.noise)
    evidence = log_likelihood(posterior, total, fit.noise) + before + log_weights(more)
    return Fit(process, fit.noise, total, evidence, backends.host(triangles), front=fit.front)


def novel_points(process: SparseProcess, more: TrainingData, novelty: float, resources: Resources) -> list[list[np.ndarray]]:
    """Per term and species (n, n_features) environments of which sparse points leave undetermined more than ``novelty``, eV.

    Each is the one of which they leave most, δ²κ(x, x) − |φ|², those found before counted among them, until no root of it is larger:
    farthest points in the metric of the kernel, by a pivoted Cholesky decomposition. Terms on all their features need none.
    """
    found = []
    for term in (term.moved(resources.xp) for term in process.terms):
        X = environments(term.descriptor, more.frames, resources)
        kinds = term.descriptor.kinds(np.concatenate([atoms.numbers for atoms in more.frames]))
        parts = [X[term.xp.asarray(np.flatnonzero(kinds == s))] for s in range(term.descriptor.n_kinds)]
        found.append([x[:0] if takes_basis(term) else x[_pivots(term, s, x, novelty / term.signal)] for s, x in enumerate(parts)])
    return found


def _pivots(term: SparseTerm, s: int, x: np.ndarray, most: float) -> list[int]:
    """Rows of environments x (n, d) of one species, in the order in which they are taken; ``most``: standard deviation, unit signal."""
    xp, picked = term.xp, []
    if not len(x):
        return picked
    rows = term.kernel(x, term.points[s]) @ term.transform[s] if len(term.points[s]) else xp.zeros((len(x), 0))
    left = term.kernel.diagonal(x) - squares(rows)
    while float(left.max()) > most**2:
        pivot = int(xp.argmax(left))
        column = term.kernel(x, x[pivot : pivot + 1])[:, 0] - rows @ rows[pivot]
        column = column / xp.sqrt(left[pivot])
        rows, left = xp.column_stack([rows, column]), left - column**2
        left[pivot] = 0.0
        picked.append(pivot)
    return picked


def extended(
    process: SparseProcess, points: Sequence[Sequence[np.ndarray]], fit: Fit, data: TrainingData, tolerance: float, resources: Resources
) -> Fit:
    """The fit to all ``data`` with further sparse points, as `novel_points` gives them, and noise and signals as they are."""
    terms = []
    for term, more in zip(process.terms, points, strict=True):
        term, xp = term.moved(resources.xp), resources.xp
        joined = tuple(xp.ascontiguousarray(xp.concatenate(pair)) for pair in zip(term.points, more, strict=True))
        terms.append(replace(term, points=joined, transform=()).whitened(tolerance, resources.threads))
    triangles, counts = kernel_triangles(terms, data, resources)
    triangles = whitened_triangles(terms, triangles, resources.threads)
    posterior = linear.solve(triangles, {kind: fit.noise[kind] for kind in triangles})
    linear.check_condition(max([posterior.condition, *(linear.whitening_condition(T) for term in terms for T in term.transform)]))
    evidence = log_likelihood(posterior, counts, fit.noise) + log_weights(data)
    process = SparseProcess(tuple(term.moved(np) for term in terms), posterior.moved(np))
    return Fit(process, fit.noise, counts, evidence, backends.host(triangles), front=fit.front)
