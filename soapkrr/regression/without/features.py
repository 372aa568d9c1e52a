"""Labels without their group, by processes on features: sparse environments or chosen observations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from soapkrr import backends, linear
from soapkrr.kernels import squares
from soapkrr.labels import KINDS
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.compositions import ObservedStructures, located
from soapkrr.regression.exact.posterior import SubsetProcess
from soapkrr.regression.known import KnownLabels
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.triangles import made_together, tables, whitened_rows
from soapkrr.regression.without.partition import Found, Partition, checked, packed, solved, without_groups
from soapkrr.threads import thread_map

logger = logging.getLogger(__name__)


@singledispatch
def feature_rows(process: Process, part: TrainingData, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Features Φ̃ (m, r) of the labels of some structures, as `Partition.of` orders them, and prior variances (m,); units of the noise."""
    raise NotImplementedError


@feature_rows.register
def _(process: SparseProcess, part: TrainingData, partition: Partition):
    labels = KnownLabels.of(part, partition.noise)
    rows, priors = _kept_rows(part, labels, partition) or _made_rows(process, part)
    level = np.array([partition.noise[kind] for kind in KINDS])[labels.kind]
    features = whitened_rows(process.terms, process.xp.ascontiguousarray(process.xp.asarray(rows)))
    features /= process.xp.asarray(level)[:, None]
    return features, priors @ np.square(process.signals) / level**2


def _made_rows(process: SparseProcess, part: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Kernel rows and prior variances (m, n_terms) of the labels of some structures."""
    made = list(tables(process.terms, part.frames, part.labels, part.references, 0, priors=True))
    return process.xp.concatenate([table.rows for table in made]), np.concatenate([table.prior for table in made])


def _kept_rows(part: TrainingData, labels: KnownLabels, partition: Partition) -> tuple[np.ndarray, np.ndarray] | None:
    """The same from the fit, NumPy arrays; None where it did not keep them all."""
    if partition.kept is None:
        return None
    found = [partition.kept.get(int(part.order[s])) for s in np.unique(labels.structure)]
    if None in found:
        return None
    rows, priors = (np.concatenate(parts) for parts in zip(*found, strict=True))
    back = np.argsort(np.lexsort((labels.kind, labels.structure)), kind="stable")  # from structure after structure to kind after kind
    return (rows, priors) if len(found) == 1 else (rows[back], priors[back])


@feature_rows.register
def _(process: SubsetProcess, part: TrainingData, partition: Partition):
    labels, observed = KnownLabels.of(part, partition.noise), ObservedStructures.of(part)
    compositions = [observed.compositions(descriptor, 1, process.xp) for descriptor in process.descriptors]
    cross, prior = process.cross(compositions)
    place = observed.layout.components(labels.kind, labels.structure, labels.component)
    place = located(compositions[0], place)
    rows = cross[process.xp.asarray(place)] @ process.transform / process.xp.asarray(labels.sigma)[:, None]
    return rows, backends.host(prior)[place] / labels.sigma**2


@dataclass(frozen=True, eq=False)
class Half:
    """Some labels of a process on features, arrays of its library.

    Attributes
    ----------
    at : (m,) indices of the labels.  B : (r, m), Bᵀ of the module's formulas.
    t : (m,) residuals.  rest : (m,) variance that features cannot say.
    """

    at: np.ndarray
    B: np.ndarray
    t: np.ndarray
    rest: np.ndarray


class FeatureGroups:
    """The passes over the rows of a process on features.

    Parameters
    ----------
    residuals : (n,) of all labels, in units of their noise; None: those of this process.
    """

    def __init__(self, process: SparseProcess | SubsetProcess, partition: Partition, residuals: np.ndarray | None = None):
        self.process, self.partition = process.on(partition.resources.xp, 1), partition
        self.estimates, self.residuals = residuals is not None, np.empty(len(partition.labels)) if residuals is None else residuals
        self.xp, self.factor = self.process.xp, self.process.posterior.factor
        self.z = self.factor @ self.process.posterior.mean
        self.errors, self.variances = np.empty(len(partition.labels)), np.empty(len(partition.labels))

    def rows(self, structures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features Φ̃ (m, r) of the labels of some structures, and what they cannot say of the prior variances (m,), a NumPy array."""
        rows, prior = feature_rows(self.process, self.partition.data.some(structures.tolist()), self.partition)
        return rows, np.maximum(prior - backends.host(squares(rows)), 0.0)

    def half(self, structures: np.ndarray) -> Half:
        """What there is to say of the labels of some structures, whose rows are made at once."""
        (rows, rest), at = self.rows(structures), self.partition.of(structures)
        B = backends.of(rows).dense.solve_triangular(self.factor, rows.T, transposed=True)
        if not self.estimates:
            self.residuals[at] = self.partition.targets[at] - backends.host(self.z @ B)
        return Half(at, B, self.xp.asarray(self.residuals[at]), rest)

    def pieces(self, structures: np.ndarray) -> list[np.ndarray]:
        """Structures some at a time, so that rows of about `Division.group` atoms are made at once."""
        single = [structures[k : k + 1] for k in range(len(structures)) if len(self.partition.of(structures[k : k + 1]))]
        return list(packed(single, self.partition.data.sizes, self.partition.resources.division.group))

    def put(self, half: Half, errors: np.ndarray, variances: np.ndarray) -> None:
        """Write what was found."""
        self.errors[half.at], self.variances[half.at] = backends.host(errors), backends.host(variances) + half.rest

    def here(self, bins: list[np.ndarray]) -> list[int]:
        """`small` of several groups of structures, on the threads of this process."""
        return [g for lost in self.partition.resources.map(self.small, bins, label="leave-out") for g in lost]

    def elsewhere(self, bins: list[np.ndarray]) -> list[int]:
        """The same on workers, which get the data once and send back what they found."""
        partition, lost = self.partition, []
        resources = partition.resources
        given = self.process, partition.sent(), self.residuals if self.estimates else None
        done = resources.map(_small_on, bins, resources.pool.share(given), label="leave-out")
        for structures, (found, more) in zip(bins, done, strict=True):
            at = partition.of(structures)
            self.errors[at], self.variances[at], self.residuals[at] = found
            lost += more
        return lost

    def small(self, structures: np.ndarray) -> list[int]:
        """Groups of few structures, by 1 − BBᵀ; returns those that it cannot tell of."""
        halves, lost = [self.half(piece) for piece in self.pieces(structures)], []
        at, rest = (np.concatenate([getattr(half, name) for half in halves]) for name in ("at", "rest"))
        B, t = (self.xp.concatenate([getattr(half, name) for half in halves], axis=-1) for name in ("B", "t"))
        owner = self.partition.owner[self.partition.labels.structure[at]]
        for g in np.unique(owner):
            mine = np.flatnonzero(owner == g)
            own = self.xp.asarray(mine)
            half = Half(at[mine], self.xp.ascontiguousarray(B[:, own]), t[own], rest[mine])
            try:
                self.put(half, *solved(half.B.T @ half.B, half.t))
            except np.linalg.LinAlgError:
                lost.append(int(g))
        return lost

    def large(self, g: int) -> list[int]:
        """A group of more labels than features, by 1 − BᵀB: the sum over its rows first, then the rows once more; ``[g]`` if it cannot."""
        pieces, threads = self.pieces(self.partition.groups[g]), self.partition.resources.threads
        G, b = self.xp.eye(len(self.z)), self.xp.zeros(len(self.z))
        for gram, along in thread_map(lambda piece: _sums(self.half(piece)), pieces, threads):
            G, b = G - gram, b + along
        try:
            L = checked(linear.cholesky(G, threads))
        except np.linalg.LinAlgError:
            return [g]
        x = linear.backward(L, linear.forward(L, b))

        def one(piece):
            half = self.half(piece)
            inner = linear.forward(L, half.B)
            self.put(half, half.t + x @ half.B, self.xp.einsum("rm,rm->m", inner, inner))

        for _ in thread_map(one, pieces, threads):
            pass
        return []

    def refitted(self, g: int) -> None:
        """A group that alone knows some features, by the triangle of all other rows."""
        pieces, threads = self.pieces(np.flatnonzero(self.partition.owner != g)), self.partition.resources.threads
        targets, triangle = self.partition.targets, self.xp.eye(len(self.z), len(self.z) + 1)
        triangle = linear.merge([triangle])

        def others(piece):
            return self.xp.asfortranarray(self.xp.column_stack([self.rows(piece)[0], self.xp.asarray(targets[self.partition.of(piece)])]))

        for rows in thread_map(others, pieces, threads):
            triangle = linear.absorb(triangle, rows)
        R, z = self.xp.ascontiguousarray(triangle[: len(self.z), :-1]), triangle[: len(self.z), -1]
        for piece in self.pieces(self.partition.groups[g]):
            (rows, rest), at = self.rows(piece), self.partition.of(piece)
            B = backends.of(rows).dense.solve_triangular(R, rows.T, transposed=True)
            t = self.xp.asarray(targets[at]) - z @ B
            self.put(Half(at, B, t, rest), t, squares(B.T))


def _small_on(given: tuple, structures: np.ndarray) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """`FeatureGroups.small` on a worker: errors, variances and residuals of labels of some structures, and the groups it cannot tell of."""
    passes = FeatureGroups(*given)
    lost, at = passes.small(structures), passes.partition.of(structures)
    return (passes.errors[at], passes.variances[at], passes.residuals[at]), lost


def _sums(half: Half) -> tuple[np.ndarray, np.ndarray]:
    return half.B @ half.B.T, half.B @ half.t


def _as_in_the_fit(process, partition: Partition, groups: list[np.ndarray]) -> list[np.ndarray]:
    """Groups of one structure each put together as their rows were in the fit, to the last bit of what it may have kept; else nothing."""
    if not isinstance(process, SparseProcess) or any(len(structures) != 1 for structures in groups):
        return []
    there = np.concatenate([[], *groups])
    together = made_together(process.terms, partition.data, partition.resources.division)
    return [some for some in (structures[np.isin(structures, there)] for structures in together) if len(some)]


@without_groups.register(SparseProcess)
@without_groups.register(SubsetProcess)
def on_features(process: SparseProcess | SubsetProcess, partition: Partition, residuals: np.ndarray | None = None) -> Found:
    """See `without_groups`; ``residuals`` as in `FeatureGroups`, of another process, make it an estimate."""
    passes = FeatureGroups(process, partition, residuals)
    numbers = [len(partition.of(structures)) for structures in partition.groups]
    few = [structures for structures, n in zip(partition.groups, numbers, strict=True) if 0 < n <= len(passes.z)]
    bins = _as_in_the_fit(process, partition, few) or list(packed(few, partition.data.sizes, partition.resources.division.group))
    lost = passes.elsewhere(bins) if partition.resources.pool.remote else passes.here(bins)
    lost += [k for g, n in enumerate(numbers) if n > len(passes.z) for k in passes.large(g)]
    for g in lost:
        logger.info("leave-out: group %d alone knows some features; all other rows are taken anew", g)
        passes.refitted(g)
    return Found(passes.errors, passes.variances, passes.residuals, not passes.estimates)
