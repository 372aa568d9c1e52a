"""Errors and variances of labels as predicted without their own group, from one fit whose hyper-parameters and representers stay.

For labels y with covariance C = K + Σ let t = Σ^{1/2}C⁻¹y be the residuals of the fit in units of the noise and G = Σ^{1/2}C⁻¹Σ^{1/2}. Of
the labels g of a group, predicted from all others, the errors in units of the noise are z_g = (G_gg)⁻¹t_g, and the variance of the values
themselves, without noise, is diag((G_gg)⁻¹) − 1 (Rasmussen and Williams 2006, section 5.4.2; Burman, Chow and Nolan 1994,
doi 10.1093/biomet/81.2.351).

On features K is ΦΦᵀ, and with the triangle R of the posterior, RᵀR = 1 + Φ̃ᵀΦ̃ of rows Φ̃ = Σ^{-1/2}Φ, it follows that G_gg = 1 − B_gB_gᵀ
with B = Φ̃R⁻¹: one pass over the rows. Groups of more labels than features, whose inverse is 1 + B_g(1 − B_gᵀB_g)⁻¹B_gᵀ, take two. What
features cannot say, k_LL − |φ|², is added to their variances, as in predictions (DTC).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch

import numpy as np

from soapkrr import backends, linear
from soapkrr.baselines import baseline_energies
from soapkrr.errors import InputError
from soapkrr.execution.resources import Resources
from soapkrr.kernels import squares
from soapkrr.labels import KINDS
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.covariance import ObservedStructures
from soapkrr.regression.exact.posterior import ExactProcess, SubsetProcess
from soapkrr.regression.known import KnownLabels
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.posterior import SparseProcess
from soapkrr.regression.sparse.triangles import tables, whitened_rows
from soapkrr.threads import thread_map


@dataclass(frozen=True, eq=False)
class Partition:
    """Data of a fit whose structures are divided into groups.

    Attributes
    ----------
    data : of the fit.  noise : {kind: σ} of the fit.  groups : structures of each group, every structure in one of them.
    resources : where the work is done.
    """

    data: TrainingData
    noise: Mapping[str, float]
    groups: Sequence[np.ndarray]
    resources: Resources

    @cached_property
    def labels(self) -> KnownLabels:
        """The known labels of the data."""
        return KnownLabels.of(self.data, self.noise)

    @cached_property
    def targets(self) -> np.ndarray:
        """(n,) labels less reference energies, in units of their noise."""
        labels = self.labels
        base = np.array([baseline_energies(self.data.references, atoms.numbers).sum() for atoms in self.data.frames])
        return (labels.given - np.where(labels.kind == 0, base[labels.structure], 0.0)) / labels.sigma

    @cached_property
    def owner(self) -> np.ndarray:
        """(n_structures,) group of each structure."""
        owner = np.empty(len(self.data.frames), dtype=np.int64)
        for g, structures in enumerate(self.groups):
            owner[structures] = g
        return owner

    @cached_property
    def _bounds(self) -> np.ndarray:
        """(n_kinds, n_structures + 1) first label of each structure."""
        labels, ends = self.labels, np.arange(len(self.data.frames) + 1)
        firsts = np.searchsorted(labels.kind, range(len(KINDS) + 1))
        return np.array([a + np.searchsorted(labels.structure[a:b], ends) for a, b in zip(firsts, firsts[1:], strict=False)])

    def of(self, structures: np.ndarray) -> np.ndarray:
        """Indices of the labels of some structures, kind after kind."""
        return np.concatenate([np.arange(bounds[s], bounds[s + 1]) for bounds in self._bounds for s in structures])


@singledispatch
def without_groups(process: Process, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Errors, given less predicted, and variances (n,) of every label without its own group, in units of its noise."""
    raise InputError(f"leave-out: a {type(process).__name__} cannot tell what it would predict without some of its data.")


def solved(H: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z = (1 − H)⁻¹t and diag((1 − H)⁻¹) − 1 = diag((1 − H)⁻¹H).

    Raises
    ------
    np.linalg.LinAlgError : 1 − H is not positive definite to working precision.
    """
    xp = backends.namespace(H)
    G = -H
    G.reshape(-1)[:: len(G) + 1] += 1.0
    inverse = backends.of(H).dense.inverse_from_cholesky(linear.cholesky(G, 1))
    inverse += xp.tril(inverse, -1).T
    return inverse @ t, xp.einsum("ij,ij->i", inverse, H)


# --- on features -----------------------------------------------------------------------------------------------------


@singledispatch
def feature_rows(process: Process, part: TrainingData, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Features Φ̃ (m, r) of the labels of some structures, as `Partition.of` orders them, and prior variances (m,); units of the noise."""
    raise NotImplementedError


@feature_rows.register
def _(process: SparseProcess, part: TrainingData, partition: Partition):
    rows, priors = [], []
    for table in tables(process.terms, part.frames, part.labels, part.references, 0, priors=True):
        level = partition.noise[table.kind]
        rows.append(whitened_rows(process.terms, table.rows) / level)
        priors.append(table.prior / level**2)
    return process.xp.concatenate(rows), np.concatenate(priors)


@feature_rows.register
def _(process: SubsetProcess, part: TrainingData, partition: Partition):
    labels, observed = KnownLabels.of(part, partition.noise), ObservedStructures.of(part)
    compositions = [observed.compositions(descriptor, 1, process.xp) for descriptor in process.descriptors]
    cross, prior = process.cross(compositions)
    place = observed.layout.components(labels.kind, labels.structure, labels.component)
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
    """The passes over the rows of a process on features."""

    def __init__(self, process: SparseProcess | SubsetProcess, partition: Partition):
        resources = partition.resources
        self.process = process.on(resources.xp, 1)
        self.partition, self.group, self.xp = partition, resources.division.group, resources.xp
        self.posterior = self.process.posterior
        self.z = self.posterior.factor @ self.posterior.mean
        labels = partition.labels
        self.errors, self.variances = np.empty(len(labels)), np.empty(len(labels))

    def half(self, structures: np.ndarray) -> Half:
        """What there is to say of the labels of some structures, whose rows are made at once."""
        at = self.partition.of(structures)
        rows, prior = feature_rows(self.process, self.partition.data.some(structures.tolist()), self.partition)
        rest = np.maximum(prior - backends.host(squares(rows)), 0.0)
        B = backends.of(rows).dense.solve_triangular(self.posterior.factor, rows.T, transposed=True)
        return Half(at, B, self.xp.asarray(self.partition.targets[at]) - self.z @ B, rest)

    def pieces(self, structures: np.ndarray) -> list[np.ndarray]:
        """Structures some at a time, so that rows of about `Division.group` atoms are made at once."""
        return list(packed([structures[k : k + 1] for k in range(len(structures))], self.partition.data.sizes, self.group))

    def put(self, half: Half, errors: np.ndarray, variances: np.ndarray) -> None:
        """Write what was found."""
        self.errors[half.at], self.variances[half.at] = backends.host(errors), backends.host(variances) + half.rest

    def small(self, structures: np.ndarray) -> None:
        """Groups of few structures, by 1 − BBᵀ."""
        halves = [self.half(piece) for piece in self.pieces(structures)]
        at = np.concatenate([half.at for half in halves])
        B, t = (self.xp.concatenate([getattr(half, name) for half in halves], axis=-1) for name in ("B", "t"))
        rest, owner = np.concatenate([half.rest for half in halves]), self.partition.owner[self.partition.labels.structure[at]]
        for g in np.unique(owner):
            mine = np.flatnonzero(owner == g)
            own = self.xp.asarray(mine)
            b = self.xp.ascontiguousarray(B[:, own]) if len(mine) < len(owner) else B
            self.put(Half(at[mine], b, t[own], rest[mine]), *solved(b.T @ b, t[own]))

    def large(self, structures: np.ndarray) -> None:
        """One group of more labels than features, by 1 − BᵀB: the sum over its rows first, then the rows once more."""
        r, pieces, threads = len(self.z), self.pieces(structures), self.partition.resources.threads
        G, b = self.xp.eye(r), self.xp.zeros(r)
        for gram, along in thread_map(lambda piece: _sums(self.half(piece)), pieces, threads):
            G, b = G - gram, b + along
        L = linear.cholesky(G, threads)
        x = linear.backward(L, linear.forward(L, b))

        def one(piece):
            half = self.half(piece)
            inner = linear.forward(L, half.B)
            self.put(half, half.t + x @ half.B, self.xp.einsum("rm,rm->m", inner, inner))

        for _ in thread_map(one, pieces, threads):
            pass


def _sums(half: Half) -> tuple[np.ndarray, np.ndarray]:
    return half.B @ half.B.T, half.B @ half.t


def packed(groups: Sequence[np.ndarray], sizes: np.ndarray, atoms: int) -> Iterator[np.ndarray]:
    """Consecutive groups of structures put together while they have so many atoms at most."""
    waiting, count = [], 0
    for structures in groups:
        n = int(sizes[structures].sum())
        if waiting and count + n > atoms:
            yield np.concatenate(waiting)
            waiting, count = [], 0
        waiting, count = [*waiting, structures], count + n
    if waiting:
        yield np.concatenate(waiting)


@without_groups.register(SparseProcess)
@without_groups.register(SubsetProcess)
def _(process: SparseProcess | SubsetProcess, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    passes = FeatureGroups(process, partition)
    numbers = [len(partition.of(structures)) for structures in partition.groups]
    few = [structures for structures, n in zip(partition.groups, numbers, strict=True) if 0 < n <= len(passes.z)]
    bins = list(packed(few, partition.data.sizes, passes.group))
    for _ in partition.resources.map(passes.small, bins, label="leave-out"):
        pass
    for structures, n in zip(partition.groups, numbers, strict=True):
        if n > len(passes.z):
            passes.large(structures)
    return passes.errors, passes.variances


# --- on all observations ---------------------------------------------------------------------------------------------


@without_groups.register
def _(process: ExactProcess, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    labels, process = partition.labels, process.on(partition.resources.xp, partition.resources.threads)
    # Structures without labels are not in the process.
    present = np.array([not label.empty for label in partition.data.labels])
    layout, structure = process.structures.layout, (np.cumsum(present) - 1)[labels.structure]
    place = np.searchsorted(process.picked, layout.components(labels.kind, structure, labels.component))
    return blocks_without(process.factor, place, partition)


def blocks_without(L: np.ndarray, place: np.ndarray, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """By the blocks of (K + Σ)⁻¹ from its Cholesky factor, in which label k is row ``place[k]``."""
    labels, xp = partition.labels, backends.namespace(L)
    y, errors, variances = np.empty(len(L)), np.empty(len(labels)), np.empty(len(labels))
    y[place] = partition.targets * labels.sigma
    weights = linear.backward(L, linear.forward(L, xp.asarray(y)))

    def one(structures):
        at = partition.of(structures)
        where, sigma = xp.asarray(place[at]), xp.asarray(labels.sigma[at])
        columns = xp.zeros((len(L), len(at)))
        columns[where, xp.arange(len(at))] = sigma
        half = linear.forward(L, columns)
        H = -(half.T @ half)
        H.reshape(-1)[:: len(H) + 1] += 1.0
        errors[at], variances[at] = map(backends.host, solved(H, sigma * weights[where]))

    for _ in partition.resources.map(one, [group for group in partition.groups if len(partition.of(group))], label="leave-out"):
        pass
    return errors, variances
