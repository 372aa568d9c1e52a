"""Data divided into groups, and what is found of the labels of each without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import NamedTuple

import numpy as np

from soapkrr import backends, linear
from soapkrr.baselines import baseline_energies
from soapkrr.errors import InputError
from soapkrr.execution.pools import Threads
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS
from soapkrr.lazy import cached_property
from soapkrr.regression.data import TrainingData
from soapkrr.regression.known import KnownLabels
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.kept import KeptRows

#: Least pivot² of 1 − H: below, what a group alone knows is so much that nothing but rounding is left of the others.
LOST = 1e-10


class Found(NamedTuple):
    """Of every label without its own group, in units of its noise: error, given less predicted (n,), and variance (n,) of the value.

    ``residuals`` (n,): given less predicted by the fit itself.  ``exact``: whether errors are what refits would give, not estimates.
    """

    errors: np.ndarray
    variances: np.ndarray
    residuals: np.ndarray
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Partition:
    """Data of a fit whose structures are divided into groups.

    Attributes
    ----------
    data : of the fit.  noise : {kind: σ} of the fit.  groups : structures of each group, every structure in one of them.
    resources : where the work is done.  kept : rows of the fit, as `Fit.rows`.
    """

    data: TrainingData
    noise: Mapping[str, float]
    groups: Sequence[np.ndarray]
    resources: Resources
    kept: KeptRows | None = None

    def sent(self) -> Partition:
        """The same for a worker, which does on one thread, with the device, what it is asked for."""
        resources = replace(self.resources, pool=Threads(1), progress=False)
        return replace(self, data=replace(self.data, frames=self.resources.pool.frames(self.data.frames)), resources=resources, kept=None)

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
def without_groups(process: Process, partition: Partition) -> Found:
    """What is found of every label without its own group."""
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
    L = checked(linear.cholesky(G, 1))
    inverse = backends.of(H).dense.inverse_from_cholesky(L)
    inverse += xp.tril(inverse, -1).T
    return inverse @ t, xp.einsum("ij,ij->i", inverse, H)


def checked(L: np.ndarray) -> np.ndarray:
    """The Cholesky factor of 1 − H, or LinAlgError where its least pivot is `LOST`."""
    least = float(backends.namespace(L).diagonal(L).min())
    if not least**2 > LOST:
        raise np.linalg.LinAlgError(f"a pivot of {least**2:.1e}")
    return L


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
