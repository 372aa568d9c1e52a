"""Posterior of a scalar property: one set of weights (K + Σ)⁻¹y gives the function f at every atom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.sparse import csr_array

from soapkrr import linear
from soapkrr.baselines import baseline_energies
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError
from soapkrr.kernels import Kernel
from soapkrr.lazy import cached_property
from soapkrr.regression import stored
from soapkrr.regression.scalar.sums import ELEMENTS, PROPERTIES, Sums, covariance, owners
from soapkrr.regression.terms import checked_term
from soapkrr.similarity import structure_features


@dataclass(frozen=True, eq=False)
class ScalarPart:
    """One term of the function f, seen from the training data."""

    descriptor: Descriptor
    kernel: Kernel
    signal: float
    sums: Sums

    def state(self) -> dict:
        """For a model file."""
        weights = {name: [getattr(p, name) for p in self.sums.P] for name in ("indptr", "data")}
        return {"descriptor": self.descriptor, "kernel": self.kernel, "signal": self.signal, "points": self.sums.X, **weights}

    @classmethod
    def restore(cls, state: dict) -> ScalarPart:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        descriptor, kernel, signal = checked_term(state)
        X, P = list(stored.arrays(state["points"], "points")), []
        indptr, weights = stored.arrays(state["indptr"], "indptr", "i"), stored.arrays(state["data"], "data")
        for _, x, offsets, data in zip(descriptor.kind_names, X, indptr, weights, strict=True):
            if x.ndim != 2 or x.shape[1] != descriptor.n_features or data.shape != (len(x),) or not _are_offsets(offsets, len(x)):
                raise ModelFileError(f"the arrays do not fit the descriptor: environments {x.shape}, weights {data.shape}.")
            P.append(csr_array((data, np.arange(len(x)), offsets), shape=(len(offsets) - 1, len(x))))
        return cls(descriptor, kernel, signal, Sums(X, P))


@dataclass(frozen=True, eq=False)
class ScalarProcess:
    """Posterior of a property.

    Attributes
    ----------
    target : one of `PROPERTIES`.  references : {symbol: e}, the prior mean of an atom.
    weights : (n_values,) (K + Σ)⁻¹y.  factor : lower Cholesky factor of K + Σ.
    """

    target: str
    parts: list[ScalarPart]
    references: dict[str, float]
    weights: np.ndarray
    factor: np.ndarray

    @cached_property
    def _collapsed(self) -> list[list[np.ndarray]]:
        """Per term and species, weights of the training atoms."""
        return [[part.signal**2 * (p.T @ self.weights) for p in part.sums.P] for part in self.parts]

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """The descriptor of each term, with what it learnt."""
        return tuple(part.descriptor for part in self.parts)

    @property
    def signals(self) -> tuple[float, ...]:
        """Prior standard deviation of an atom's contribution, of each term."""
        return tuple(part.signal for part in self.parts)

    def mean(self, frames: list[Atoms]) -> np.ndarray:
        """(n_values,) predicted values."""
        numbers = np.concatenate([atoms.numbers for atoms in frames])
        frame = np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames])
        of_atoms = baseline_energies(self.references, numbers, frame)
        for part, collapsed in zip(self.parts, self._collapsed, strict=True):
            X, kinds = np.concatenate(structure_features(part.descriptor, frames)), part.descriptor.kinds(numbers)
            for s, (points, weights) in enumerate(zip(part.sums.X, collapsed, strict=True)):
                mine = np.flatnonzero(kinds == s)
                for some in np.array_split(mine, -(-len(mine) * len(points) // ELEMENTS) or 1):
                    of_atoms[some] += part.kernel(X[some], points) @ weights
        owner, weight = owners(frames, self.target)
        return np.bincount(owner, weight * of_atoms)

    def deviations(self, frames: list[Atoms], threads: int | None) -> np.ndarray:
        """(n_values,) posterior standard deviations, without the noise."""
        cross, prior = 0.0, 0.0
        for part in self.parts:
            queries = Sums.of(part.descriptor, frames, self.target)
            cross = cross + part.signal**2 * covariance(part.kernel, queries, part.sums, threads)
            prior = prior + part.signal**2 * queries.variances(part.kernel)
        half = linear.forward(self.factor, cross.T)
        return np.sqrt(np.maximum(prior - np.einsum("no,no->o", half, half), 0.0))

    def state(self) -> dict:
        """For a model file."""
        return {"target": self.target, "parts": [part.state() for part in self.parts], "weights": self.weights, "factor": self.factor}

    @classmethod
    def restore(cls, state: Mapping, references: Mapping[str, float]) -> ScalarProcess:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        parts, weights = [ScalarPart.restore(part) for part in state["parts"]], stored.array(state["weights"], "weights", shape=(None,))
        factor, n = stored.factor(state["factor"], "factor", len(weights)), len(weights)
        if not parts or state["target"] not in PROPERTIES or any(p.shape[0] != n for part in parts for p in part.sums.P):
            raise ModelFileError(f"the arrays do not fit together: {n} values of target {state['target']!r}, {len(parts)} terms.")
        return cls(state["target"], parts, references, weights, factor)


def _are_offsets(offsets: np.ndarray, n: int) -> bool:
    """Whether integers rise from 0 to n."""
    return offsets.ndim == 1 and len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == n and bool((np.diff(offsets) >= 0).all())
