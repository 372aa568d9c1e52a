"""Posterior of one spherical part of a tensor.

t_μ = Σ_i w_i f_μ(i), with covariance of f between atoms of one species δ² κ(x_i, x_j) p_i p_jᵀ, (2λ+1) × (2λ+1), p the tensors of
`Equivariants` and κ a kernel of power spectra. It turns with the structures, and so does every mean and every covariance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from scipy.optimize import minimize_scalar

from soapkrr import linear
from soapkrr.descriptors.equivariant import Equivariants
from soapkrr.errors import InputError, ModelFileError
from soapkrr.kernels import Kernel
from soapkrr.linear import Posterior
from soapkrr.regression import stored
from soapkrr.regression.scalar.sums import owners
from soapkrr.selection.methods import farthest_point_sampling, share
from soapkrr.structures import Batch, split_by_atoms

#: Atoms whose rows are made at once: their tensors stay in the cache, without which λ = 2 takes twice the time.
GROUP = 48

#: Bounds of log₁₀(δ/σ) when both are sought.
RATIOS = (-4.0, 6.0)


@dataclass(frozen=True, eq=False)
class SparseSet:
    """Environments that functions are expanded in: per species power spectra (M, d) and tensors (M, 2λ+1, q), and whitening T."""

    X: list[np.ndarray]
    P: list[np.ndarray]
    transform: list[np.ndarray]

    @classmethod
    def choose(cls, parts: Equivariants, kernel: Kernel, frames: list[Atoms], n_sparse: int | None, tolerance: float) -> SparseSet:
        """Environments of the structures, farthest from each other; None: all."""
        X, P, kinds = _joined(parts, frames)
        here = [np.flatnonzero(kinds == s) for s in range(parts.soap.n_kinds)]
        counts = np.array([len(a) for a in here])
        wanted = counts if n_sparse is None else np.minimum(share(counts, n_sparse), counts)
        picked = [a[farthest_point_sampling(X[a], int(n))] if 0 < n < len(a) else a[:n] for a, n in zip(here, wanted, strict=True)]
        points, tensors = [X[a] for a in picked], [P[a] for a in picked]
        transform = [_whitened(kernel, x, p, tolerance) for x, p in zip(points, tensors, strict=True)]
        return cls(points, tensors, transform)

    @property
    def rank(self) -> int:
        """Number of features."""
        return sum(t.shape[1] for t in self.transform)

    def features(self, kernel: Kernel, X: np.ndarray, P: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """(n, 2λ+1, rank) of atoms, unit signal: φ φᵀ is the covariance as far as the sparse points carry it."""
        out, first = np.zeros((len(X), P.shape[1], self.rank)), 0
        for s, (x, p, t) in enumerate(zip(self.X, self.P, self.transform, strict=True)):
            mine = np.flatnonzero(kinds == s)
            if len(mine) and len(x):
                out[mine, :, first : first + t.shape[1]] = covariance(kernel, (X[mine], P[mine]), (x, p)) @ t
            first += t.shape[1]
        return out


def covariance(kernel: Kernel, a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(n, 2λ+1, m(2λ+1)) κ(x_i, x_j) p_i p_jᵀ between environments (X, P) of one species."""
    (x, p), (y, q) = a, b
    products = p.reshape(-1, p.shape[2]) @ q.reshape(-1, q.shape[2]).T
    products = products.reshape(*p.shape[:2], *q.shape[:2]) * kernel(x, y)[:, None, :, None]
    return products.reshape(*p.shape[:2], -1)


def _whitened(kernel: Kernel, x: np.ndarray, p: np.ndarray, tolerance: float) -> np.ndarray:
    n = p.shape[0] * p.shape[1]
    K = covariance(kernel, (x, p), (x, p)).reshape(n, n)
    return linear.whitening(K, tolerance) if n and K.any() else np.zeros((n, 0))


def _joined(parts: Equivariants, frames: list[Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = [parts.compute(Batch.from_atoms(group, first)) for first, group in split_by_atoms(frames, GROUP)]
    X, P, kinds = (np.concatenate(part) for part in zip(*groups, strict=True))
    return X, P, kinds


@dataclass(frozen=True, eq=False)
class TensorProcess:
    """A spherical part with its posterior.

    Attributes
    ----------
    target : as of `PropertyGP`.  signal : δ.  noise : σ of a component.  evidence : log marginal likelihood.
    """

    parts: Equivariants
    kernel: Kernel
    target: str
    sparse: SparseSet
    posterior: Posterior
    signal: float
    noise: float
    evidence: float

    @classmethod
    def fit(cls, parts: Equivariants, kernel: Kernel, frames: list[Atoms], y: np.ndarray, how: How) -> TensorProcess:
        """To values y (n_values, 2λ+1)."""
        sparse = SparseSet.choose(parts, kernel, frames, how.n_sparse, how.tolerance)
        if not sparse.rank:
            raise InputError(
                f"all environments have vanishing tensors of degree {parts.degree} and parity {parts.parity}: by symmetry the values are "
                "zero, and nothing can be learnt."
            )
        unit = how.unit(frames, len(y))
        triangle, first = np.zeros((0, sparse.rank + 1)), 0
        for rows in feature_rows(parts, kernel, sparse, frames, how.target):
            here = slice(first, first + len(rows))
            block = np.concatenate([rows, y[here, :, None]], axis=2) / unit[here, None, None]
            triangle = linear.absorb(triangle if first else None, np.asfortranarray(block.reshape(-1, sparse.rank + 1)))
            first += len(rows)
        evidence = _Evidence(triangle, y.size, (y.shape[1] * np.log(unit)).sum())
        signal, noise = evidence.best(how.signal, how.noise) if how.optimize else (how.signal, how.noise)
        scaled = triangle * np.append(np.full(sparse.rank, signal), 1.0)
        posterior = linear.solve({"y": scaled}, {"y": noise})
        return cls(parts, kernel, how.target, sparse, posterior, signal, noise, evidence(signal, noise))

    def predict(self, frames: list[Atoms], covariances: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Means (n_values, 2λ+1), and with ``covariances`` posterior covariances (n_values, 2λ+1, 2λ+1)."""
        means, found = [], []
        for first, group in split_by_atoms(frames, GROUP):
            X, P, kinds = self.parts.compute(Batch.from_atoms(group, first))
            phi = self.signal * summed(self.sparse.features(self.kernel, X, P, kinds), group, self.target)
            means.append(phi @ self.posterior.mean)
            if covariances:
                half = self.posterior.half(phi.reshape(-1, self.sparse.rank)).T.reshape(phi.shape)
                left = self._prior(X, P, kinds, group) - np.einsum("vmr,vnr->vmn", phi, phi)
                found.append(_positive(left) + np.einsum("vmr,vnr->vmn", half, half))
        return np.concatenate(means), np.concatenate(found) if covariances else None

    def samples(self, frames: list[Atoms], n: int, seed: int) -> np.ndarray:
        """(n, n_values, 2λ+1) values of functions drawn from the posterior of the features, the same ones for all structures."""
        weights = self.posterior.mean + self.posterior.draws(n, seed)
        rows = feature_rows(self.parts, self.kernel, self.sparse, frames, self.target)
        return np.concatenate([np.einsum("vmr,nr->nvm", self.signal * phi, weights) for phi in rows], axis=1)

    def _prior(self, X, P, kinds, frames: list[Atoms]) -> np.ndarray:
        """(n_values, 2λ+1, 2λ+1) prior covariances."""
        owner, weight = owners(frames, self.target)
        out = np.zeros((owner[-1] + 1, P.shape[1], P.shape[1]))
        for v, s in {(int(v), int(s)) for v, s in zip(owner, kinds, strict=True)}:
            mine = np.flatnonzero((owner == v) & (kinds == s))
            p = weight[mine, None, None] * P[mine]
            K = covariance(self.kernel, (X[mine], p), (X[mine], p))
            out[v] += K.reshape(*K.shape[:2], len(mine), -1).sum(axis=(0, 2))
        return self.signal**2 * out

    def state(self) -> dict:
        """For a model file."""
        sparse = {"X": self.sparse.X, "P": self.sparse.P, "transform": self.sparse.transform}
        return {**sparse, "posterior": self.posterior.state(), "signal": self.signal, "noise": self.noise, "evidence": self.evidence}

    @classmethod
    def restore(cls, parts: Equivariants, kernel: Kernel, target: str, state: Mapping) -> TensorProcess:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        X, P, T = (list(stored.arrays(state[name], name)) for name in ("X", "P", "transform"))
        posterior, n = stored.posterior(state["posterior"]), 2 * parts.degree + 1
        shapes = [(x.shape, p.shape, len(t)) for x, p, t in zip(X, P, T, strict=True)]
        wanted = [((len(x), parts.soap.n_features), (len(x), n, parts.n_features), n * len(x)) for x in X]
        sparse = SparseSet(X, P, T)
        if shapes != wanted or len(X) != parts.soap.n_kinds or len(posterior.mean) != sparse.rank:
            raise ModelFileError(f"the arrays do not fit together: sparse points {shapes}, expected {wanted}.")
        signal, noise = (stored.number(state[name], name, positive=True) for name in ("signal", "noise"))
        return cls(parts, kernel, target, sparse, posterior, signal, noise, stored.number(state["evidence"], "evidence", unknown=True))


@dataclass(frozen=True)
class How:
    """How a part is fitted: target, sparse points, tolerance of their kernel, signal, noise, and whether these two are sought."""

    target: str
    n_sparse: int | None
    tolerance: float
    signal: float
    noise: float
    optimize: bool

    def unit(self, frames: Sequence[Atoms], n: int) -> np.ndarray:
        """(n,) noise of each value over the noise level: √N of an extensive one."""
        return np.sqrt([len(atoms) for atoms in frames]) if self.target == "extensive" else np.ones(n)


def summed(features: np.ndarray, frames: list[Atoms], target: str) -> np.ndarray:
    """(n_values, 2λ+1, rank) weighted sums of features of atoms."""
    if target == "atom":
        return features
    _, weight = owners(frames, target)
    starts = np.cumsum([0] + [len(atoms) for atoms in frames])[:-1]
    return np.add.reduceat(features * weight[:, None, None], starts, axis=0)


def feature_rows(parts: Equivariants, kernel: Kernel, sparse: SparseSet, frames: list[Atoms], target: str):
    """(n_values, 2λ+1, rank) features of the values of a group of structures after the other."""
    for first, group in split_by_atoms(frames, GROUP):
        yield summed(sparse.features(kernel, *parts.compute(Batch.from_atoms(group, first))), group, target)


def _positive(C: np.ndarray) -> np.ndarray:
    """Covariances without the negative eigenvalues that rounding leaves."""
    values, vectors = np.linalg.eigh(0.5 * (C + C.swapaxes(1, 2)))
    return np.einsum("vmr,vr,vnr->vmn", vectors, np.maximum(values, 0.0), vectors)


class _Evidence:
    """Log marginal likelihood of signal and noise, from the triangle of [Φ | y] in units of the noise's unit."""

    def __init__(self, triangle: np.ndarray, n: int, log_unit: float):
        R, z = triangle[:, :-1], triangle[:, -1]
        U, self.s, _ = np.linalg.svd(R, full_matrices=False)
        self.u, self.n, self.log_unit = U.T @ z, n, log_unit
        self.rest = max(float(z @ z - self.u @ self.u), 0.0)

    def __call__(self, signal: float, noise: float) -> float:
        variance = (signal * self.s) ** 2 + noise**2
        log = np.log(variance).sum() + 2 * (self.n - len(self.s)) * np.log(noise) + 2 * self.log_unit
        return float(-0.5 * (np.sum(self.u**2 / variance) + self.rest / noise**2 + log + self.n * np.log(2 * np.pi)))

    def best(self, signal: float, noise: float) -> tuple[float, float]:
        """Signal and noise of highest evidence: for a ratio of both the scale is known."""

        def scaled(log_ratio):
            ratio = 10.0**log_ratio
            sigma = np.sqrt((np.sum(self.u**2 / (ratio**2 * self.s**2 + 1)) + self.rest) / self.n)
            return ratio * sigma, sigma

        starts = np.linspace(*RATIOS, 21)
        values = [self(*scaled(x)) for x in starts]
        k = int(np.argmax(values))
        bounds = (starts[max(k - 1, 0)], starts[min(k + 1, len(starts) - 1)])
        found: Any = minimize_scalar(lambda x: -self(*scaled(x)), bounds=bounds, method="bounded")
        better = [scaled(found.x), (signal, noise)]
        return max(better, key=lambda pair: self(*pair))
