"""Similarity of whole structures from the kernel of their atoms' environments: the average, and the regularised-entropy best match.

For structures A, B with local kernels C_ij = κ(x_i, x_j), i in A, j in B (De et al. 2016, doi 10.1039/c6cp00415f):

    average:  K(A, B) = Σ_ij C_ij / (N_A N_B)
    REMatch:  K(A, B) = Σ_ij P_ij C_ij,  P = argmin Σ_ij P_ij (1 − C_ij + α ln P_ij),  Σ_j P_ij = 1/N_A, Σ_i P_ij = 1/N_B

P = diag(u) exp(−(1 − C)/α) diag(v), found by Sinkhorn's iteration (Cuturi 2013, arXiv:1306.0895).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.descriptors.base import Descriptor
from soapkrr.display import only_public
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.structures import Batch, as_frames, split_by_atoms

#: Atoms whose descriptors are computed at once.
GROUP = 4096

#: Local kernel values handled at once: they stay in the cache over the iterations.
ELEMENTS = 30_000


def structure_features(descriptor: Descriptor, frames: Atoms | Sequence[Atoms]) -> list[np.ndarray]:
    """Per structure (n_atoms, n_features) descriptors."""
    features = []
    for first, group in split_by_atoms(as_frames(frames), GROUP):
        batch = Batch.from_atoms(group, first)
        features += np.split(descriptor.environments(batch).X, batch.inner_bounds)
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
    def reduce(self, C: np.ndarray) -> np.ndarray:
        """(n_pairs,) K of pairs of structures from their local kernels C (n_pairs, n, m)."""

    def __call__(self, X: Sequence[np.ndarray], Y: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Kernel matrix (len(X), len(Y)) of structures given as descriptors (n_atoms, n_features) of their atoms; Y = X by default."""
        X, symmetric = _checked(X, "X"), Y is None
        Y = X if symmetric else _checked(Y, "Y")
        K = np.empty((len(X), len(Y)))
        for members in _tiles([len(y) for y in Y], max(map(len, X))):
            stacked = np.concatenate([Y[j] for j in members])
            for i, x in enumerate(X):
                # Of a symmetric matrix the upper triangle.
                skip = np.searchsorted(members, i) if symmetric else 0
                if skip < len(members):
                    m = len(stacked) // len(members)
                    C = self.kernel(x, stacked[skip * m :]).reshape(len(x), -1, m).transpose(1, 0, 2)
                    K[i, members[skip:]] = self.reduce(np.ascontiguousarray(C))
        K = np.triu(K) + np.triu(K, 1).T if symmetric else K
        if not self.normalize:
            return K
        left = np.diagonal(K) if symmetric else self.own(X)
        return K / np.sqrt(np.outer(left, left if symmetric else self.own(Y)))

    def own(self, X: Sequence[np.ndarray]) -> np.ndarray:
        """(len(X),) K(A, A), not normalised."""
        return np.array([self.reduce(self.kernel(x)[None])[0] for x in X])

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

    def reduce(self, C):
        return C.mean(axis=(1, 2))


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

    def reduce(self, C):
        K = _balanced_exponential(C / self.alpha)
        u, v = self._sinkhorn(K)
        return np.einsum("pn,pnm,pm->p", u, K * C, v, optimize=True)

    def _sinkhorn(self, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u (n_pairs, n), v (n_pairs, m) with row sums 1/n and column sums 1/m of u K v, for every pair."""
        _, n, m = K.shape
        u, v = np.full((len(K), n), 1.0 / n), np.ones((len(K), m))
        for _ in range(int(self.max_iter)):
            before = v
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                v = 1.0 / (m * np.matmul(u[:, None, :], K)[:, 0, :])
                u = 1.0 / (n * np.matmul(K, v[:, :, None])[:, :, 0])
                change = np.abs(v / before - 1).max()
            if change < self.tolerance:
                return u, v
            if not np.isfinite(change):
                break
        raise InputError(
            f"`alpha`={self.alpha} is too small for the match to converge in {self.max_iter} iterations; try {10 * self.alpha:g}."
        )


def _tiles(sizes: Sequence[int], n: int) -> Iterator[np.ndarray]:
    """Indices of structures of one size, ascending, so many that their local kernels with a structure of n atoms fit in `ELEMENTS`."""
    sizes = np.asarray(sizes)
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes == size)
        step = max(1, ELEMENTS // (n * int(size)))
        yield from (members[start : start + step] for start in range(0, len(members), step))


def _balanced_exponential(L: np.ndarray) -> np.ndarray:
    """exp(L) with rows and columns of each pair scaled to a largest entry of 1, which u and v make up for: nothing overflows."""
    L = L - L.max(axis=2, keepdims=True)
    return np.exp(L - L.max(axis=1, keepdims=True))


__dir__ = only_public(__name__)
