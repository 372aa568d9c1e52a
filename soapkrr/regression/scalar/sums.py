"""Values that are weighted sums over atoms, and their covariances.

A property is p = Σ_i w_i [e(z_i) + f(x_i)], of a function f with covariance δ²κ between atoms of one species: w = 1 for an extensive
property of a structure, 1/N for an intensive one, a single atom for one of atoms. So covariances are Σ_ij w_i w_j κ(x_i, x_j).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.sparse import csr_array

from soapkrr.descriptors.base import Descriptor
from soapkrr.kernels import Kernel
from soapkrr.similarity import structure_features
from soapkrr.threads import thread_map

#: What a property can be.
PROPERTIES = ("extensive", "intensive", "atom")

#: Kernel values between atoms held at once by a thread.
ELEMENTS = 4_000_000


def bearer(target: str) -> str:
    """What has one value of a property each: ``"atom"`` or ``"structure"``."""
    return "atom" if target == "atom" else "structure"


@dataclass(frozen=True, eq=False)
class Sums:
    """Values Σ_i w_i f(x_i).

    Attributes
    ----------
    X : per species (m, d) descriptors, sorted by the value they belong to.  P : per species (n_values, m) sparse weights.
    """

    X: list[np.ndarray]
    P: list[csr_array]

    @classmethod
    def of(cls, descriptor: Descriptor, frames: list[Atoms], target: str) -> Sums:
        """The values of a list of structures, or of all their atoms."""
        X, numbers = np.concatenate(structure_features(descriptor, frames)), np.concatenate([atoms.numbers for atoms in frames])
        owner, weight = owners(frames, target)
        kinds, parts, rows = descriptor.kinds(numbers), [], []
        for s in range(descriptor.n_kinds):
            mine = np.flatnonzero(kinds == s)
            parts.append(X[mine])
            rows.append(_weights(owner[mine], weight[mine], owner[-1] + 1))
        return cls(parts, rows)

    def __len__(self) -> int:
        return self.P[0].shape[0]

    def tiles(self, s: int, columns: int, elements: int) -> Iterator[tuple[int, int]]:
        """Ranges of values whose atoms of species s meet so many others in at most ``elements`` pairs."""
        offsets, start = self.P[s].indptr, 0
        while start < len(self):
            stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + elements // max(columns, 1), side="right")) - 1)
            yield start, stop
            start = stop

    def variances(self, kernel: Kernel) -> np.ndarray:
        """(n_values,) prior variances; unit signal."""
        out = np.zeros(len(self))
        for x, p in zip(self.X, self.P, strict=True):
            counts = np.diff(p.indptr)
            single, several = np.flatnonzero(counts == 1), np.flatnonzero(counts > 1)
            out[single] += p.data[p.indptr[single]] ** 2 * kernel.diagonal(x[p.indptr[single]])
            for k in several:
                own = slice(p.indptr[k], p.indptr[k + 1])
                out[k] += p.data[own] @ kernel(x[own]) @ p.data[own]
        return out


def owners(frames: list[Atoms], target: str) -> tuple[np.ndarray, np.ndarray]:
    """For every atom, the index of the value it belongs to, and its weight in it."""
    sizes = np.array([len(atoms) for atoms in frames])
    if target == "atom":
        return np.arange(sizes.sum()), np.ones(sizes.sum())
    return np.repeat(np.arange(len(sizes)), sizes), np.repeat(1.0 / sizes if target == "intensive" else np.ones(len(sizes)), sizes)


def _weights(owner: np.ndarray, weight: np.ndarray, n: int) -> csr_array:
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])
    return csr_array((weight, np.arange(len(owner)), offsets), shape=(n, len(owner)))


def covariance(kernel: Kernel, A: Sums, B: Sums, threads: int | None = None, elements: int = ELEMENTS) -> np.ndarray:
    """(n_A, n_B) covariances of values; unit signal. A thread holds ``elements`` kernel values at once."""
    K = np.zeros((len(A), len(B)))
    for s, (x, p, y, q) in enumerate(zip(A.X, A.P, B.X, B.P, strict=True)):
        if not len(x) or not len(y):
            continue

        def rows(tile, x=x, p=p, y=y, q=q):
            a, b = tile
            first, last = p.indptr[a], p.indptr[b]
            K[a:b] += p[a:b, first:last] @ (q @ kernel(y, x[first:last])).T

        for _ in thread_map(rows, A.tiles(s, len(y), elements), threads):
            pass
    return K
