"""Similarity of whole structures from the kernel of their atoms' environments: the average, and the regularised-entropy best match.

For structures A, B with local kernels C_ij = κ(x_i, x_j), i in A, j in B (De et al. 2016, doi 10.1039/c6cp00415f):

    average:  K(A, B) = Σ_ij C_ij / (N_A N_B)
    REMatch:  K(A, B) = Σ_ij P_ij C_ij,  P = argmin Σ_ij P_ij (1 − C_ij + α ln P_ij),  Σ_j P_ij = 1/N_A, Σ_i P_ij = 1/N_B

P = diag(u) exp(−(1 − C)/α) diag(v), found by Sinkhorn's iteration (Cuturi 2013, arXiv:1306.0895).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.structures import Batch, as_frames, split_by_atoms

#: Atoms whose descriptors are computed at once.
GROUP = 4096


def structure_features(descriptor: Descriptor, frames: Atoms | Sequence[Atoms]) -> list[np.ndarray]:
    """Per structure (n_atoms, n_features) descriptors."""
    features = []
    for first, group in split_by_atoms(as_frames(frames), GROUP):
        batch = Batch.from_atoms(group, first)
        X = descriptor.environments(batch, batch.pairs(descriptor.r_cut, first), first).X
        features += np.split(X, batch.offsets[1:-1])
    return features


@dataclass(frozen=True)
class StructureKernel(ABC):
    """A kernel between structures, made of a kernel between environments.

    Parameters
    ----------
    kernel : local kernel κ.
    normalize : divide K(A, B) by √(K(A, A) K(B, B)).
    """

    kernel: Kernel
    normalize: bool = True

    def __post_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise InputError(f"`kernel` must be a soapkrr kernel, received {type(self.kernel).__name__}.")

    @abstractmethod
    def reduce(self, C: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """(n_structures,) K of one structure with several, from their local kernels C (n_atoms, Σ sizes) side by side."""

    def __call__(self, X: Sequence[np.ndarray], Y: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Kernel matrix (len(X), len(Y)) of structures given as descriptors (n_atoms, n_features) of their atoms; Y = X by default."""
        X, symmetric = _checked(X, "X"), Y is None
        Y = X if Y is None else _checked(Y, "Y")
        K = np.empty((len(X), len(Y)))
        for i, x in enumerate(X):
            others = Y[i:] if symmetric else Y
            K[i, len(Y) - len(others) :] = self.reduce(self.kernel(x, np.concatenate(others)), np.array([len(y) for y in others]))
        if symmetric:
            K = np.triu(K) + np.triu(K, 1).T
        if not self.normalize:
            return K
        left = np.diagonal(K) if symmetric else self.own(X)
        return K / np.sqrt(np.outer(left, left if symmetric else self.own(Y)))

    def own(self, X: Sequence[np.ndarray]) -> np.ndarray:
        """(len(X),) K(A, A), not normalised."""
        return np.array([self.reduce(self.kernel(x), np.array([len(x)]))[0] for x in X])

    def between(self, descriptor: Descriptor, frames: Sequence[Atoms], others: Sequence[Atoms] | None = None) -> np.ndarray:
        """Kernel matrix between structures; ``others`` = ``frames`` by default."""
        return self(structure_features(descriptor, frames), None if others is None else structure_features(descriptor, others))


def _checked(X: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    X = [np.asarray(x, dtype=float) for x in X]
    widths = {x.shape[1:] for x in X}
    if not X or len(widths) != 1 or any(x.ndim != 2 or not len(x) for x in X):
        raise InputError(f"`{name}` must list arrays (n_atoms, n_features) of one width, none empty; shapes {[x.shape for x in X][:5]}.")
    return X


@dataclass(frozen=True)
class AverageKernel(StructureKernel):
    """K(A, B) = mean of κ over all pairs of environments; positive semi-definite if κ is."""

    def reduce(self, C, sizes):
        return np.add.reduceat(C.sum(axis=0), _starts(sizes)) / (len(C) * sizes)


@dataclass(frozen=True)
class REMatchKernel(StructureKernel):
    """Regularised-entropy match: the average kernel for α → ∞, the best match of environments for α → 0.

    Not positive semi-definite in general. Meant for local kernels with κ(x, x) = 1.

    Parameters
    ----------
    alpha : α, weight of the entropy.
    tolerance : largest relative change of a balancing factor in the last iteration.
    max_iter : iterations allowed.

    Raises
    ------
    InputError : no convergence: α is too small.
    """

    alpha: float = 0.1
    tolerance: float = 1e-8
    max_iter: int = 10000

    def __post_init__(self):
        super().__post_init__()
        require_positive(alpha=self.alpha, tolerance=self.tolerance, max_iter=self.max_iter)

    def reduce(self, C, sizes):
        starts = _starts(sizes)
        K = _balanced_exponential(C / self.alpha, sizes)
        u, v = self._sinkhorn(K, sizes)
        return (u * np.add.reduceat(K * v * C, starts, axis=1)).sum(axis=0)

    def _sinkhorn(self, K: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u (n_atoms, n_structures), v (Σ sizes,) with row sums 1/n_atoms and column sums 1/size of u K v, for every structure."""
        starts, columns = _starts(sizes), np.repeat(1.0 / sizes, sizes)
        u, v = np.full((len(K), len(sizes)), 1.0 / len(K)), np.ones(K.shape[1])
        for _ in range(int(self.max_iter)):
            before = v
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                v = columns / np.einsum("im,im->m", K, np.repeat(u, sizes, axis=1))
                u = 1.0 / (len(K) * np.add.reduceat(K * v, starts, axis=1))
                change = np.abs(v / before - 1).max()
            if change < self.tolerance:
                return u, v
            if not np.isfinite(change):
                break
        raise InputError(
            f"`alpha`={self.alpha} is too small for the match to converge in {self.max_iter} iterations; try {10 * self.alpha:g}."
        )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])


def _balanced_exponential(L: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """exp(L) with rows and columns of each structure scaled to a largest entry of 1, which u and v make up for: nothing overflows."""
    L = L - np.repeat(np.maximum.reduceat(L, _starts(sizes), axis=1), sizes, axis=1)
    return np.exp(L - L.max(axis=0))
