"""Labels without their group, by exact processes, whose representers are all observations."""

from __future__ import annotations

import logging

import numpy as np

from soapkrr import backends, linear
from soapkrr.execution.resources import GROUP
from soapkrr.kernels import squares
from soapkrr.labels import Labels
from soapkrr.regression.exact.cholesky import solve_exact
from soapkrr.regression.exact.covariance import total_covariance
from soapkrr.regression.exact.iterative import IterativeProcess
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.triangles import kernel_triangles, whitened_triangles
from soapkrr.regression.terms import Term
from soapkrr.regression.without.features import on_features
from soapkrr.regression.without.partition import Found, Partition, solved, without_groups
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)

#: Observations up to which a process without a factor gets one: 0.5 GB.
DENSE = 8192


@without_groups.register
def _(process: ExactProcess, partition: Partition) -> Found:
    process = process.on(partition.resources.xp, partition.resources.threads)
    place = np.searchsorted(process.picked, places(process, partition))
    return by_blocks(process.factor, place, partition)


@without_groups.register
def _(process: IterativeProcess, partition: Partition) -> Found:
    """With a factor made for the purpose, of few observations. Of many an estimate: the blocks of (K + Σ)⁻¹ are those of its
    preconditioner, a sparse process, and the residuals are exact.
    """
    resources, terms = partition.resources, [Term(part.descriptor, part.kernel, signal=part.signal) for part in process.parts]
    known = np.flatnonzero(np.isfinite(process.sigma))
    if len(known) <= DENSE:
        compositions = [process.structures.compositions(t.descriptor, resources.threads, resources.xp) for t in terms]
        K = total_covariance(terms, compositions, resources.threads, known)
        L = solve_exact(K, np.zeros(len(known)), process.sigma[known], resources.threads)[0]
        return by_blocks(L, np.searchsorted(known, places(process, partition)), partition)
    sparse = [term.moved(resources.xp) for term in process.sparse]
    triangles = whitened_triangles(sparse, kernel_triangles(sparse, partition.data, resources)[0], resources.threads)
    posterior = linear.solve(triangles, {kind: partition.noise[kind] for kind in triangles})
    return on_features(SparseProcess(tuple(sparse), posterior), partition, residuals(process, partition))


def places(process: ExactProcess | IterativeProcess, partition: Partition) -> np.ndarray:
    """(n,) places of the labels among the observations of the process, in which structures without labels are not."""
    labels, present = partition.labels, np.array([not label.empty for label in partition.data.labels])
    return process.structures.layout.components(labels.kind, (np.cumsum(present) - 1)[labels.structure], labels.component)


def residuals(process: IterativeProcess, partition: Partition) -> np.ndarray:
    """(n,) labels less the mean of the process, in units of their noise."""
    process, data, labels = process.on(partition.resources.xp, partition.resources.threads), partition.data, partition.labels
    predicted = []
    for first, frames in split_by_atoms(data.frames, GROUP):
        batch = Batch.from_atoms(frames, first)
        mean, _ = process.evaluate(batch, frozenset())
        energies, forces = np.add.reduceat(mean.energies, batch.offsets[:-1]), np.split(mean.forces, batch.inner_bounds)
        predicted += [Labels(*parts) for parts in zip(energies, forces, mean.strain / batch.volumes[:, None], strict=True)]
    return partition.targets - labels.values_of(predicted, data.sizes) / labels.sigma


def by_blocks(L: np.ndarray, place: np.ndarray, partition: Partition) -> Found:
    """By the blocks of (K + Σ)⁻¹ from its Cholesky factor, in which label k is row ``place[k]``.

    Where a group alone knows so much that rounding leaves nothing of what the others say of it, their own block is decomposed.
    """
    labels, xp = partition.labels, backends.namespace(L)
    y, errors, variances = np.empty(len(L)), np.empty(len(labels)), np.empty(len(labels))
    y[place] = partition.targets * labels.sigma
    weights = linear.backward(L, linear.forward(L, xp.asarray(y)))
    t = xp.asarray(labels.sigma) * weights[xp.asarray(place)]

    def one(g):
        at = partition.of(partition.groups[g])
        where, sigma = xp.asarray(place[at]), xp.asarray(labels.sigma[at])
        columns = xp.zeros((len(L), len(at)))
        columns[where, xp.arange(len(at))] = sigma
        half = linear.forward(L, columns)
        H = -(half.T @ half)
        H.reshape(-1)[:: len(H) + 1] += 1.0
        try:
            errors[at], variances[at] = map(backends.host, solved(H, t[xp.asarray(at)]))
        except np.linalg.LinAlgError:
            logger.info("leave-out: group %d alone knows some of its labels; the others are decomposed anew", g)
            errors[at], variances[at] = map(backends.host, refitted(L, xp.asarray(y), where, sigma))

    known = [g for g, structures in enumerate(partition.groups) if len(partition.of(structures))]
    for _ in partition.resources.map(one, known, label="leave-out"):
        pass
    return Found(errors, variances, backends.host(t))


def refitted(L: np.ndarray, y: np.ndarray, where: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors and variances of rows ``where`` of C = L Lᵀ, with noise ``sigma``, in its units, from the Cholesky factor of all others."""
    xp = backends.namespace(L)
    lower, others = xp.tril(L), xp.ones(len(L), dtype=bool)
    others[where] = False
    others = xp.flatnonzero(others)
    factor = linear.cholesky(lower[others] @ lower[others].T, 1)
    half = linear.forward(factor, lower[others] @ lower[where].T)
    mean = half.T @ linear.forward(factor, y[others])
    prior = squares(lower[where]) - sigma**2
    return (y[where] - mean) / sigma, xp.maximum(prior - squares(half.T), 0.0) / sigma**2
