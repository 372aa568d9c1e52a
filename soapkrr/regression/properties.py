"""Exact Gaussian process of a scalar property of structures or atoms.

A property is a weighted sum over atoms, p = Σ_i w_i [e(z_i) + f(x_i)], of a function f with covariance δ²κ between atoms of one species:
w = 1 for an extensive property of a structure, 1/N for an intensive one, and a single atom for a property of atoms. So covariances are
Σ_ij w_i w_j κ(x_i, x_j), and one set of weights (K + Σ)⁻¹y gives f at every atom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.sparse import csr_array

from soapkrr import linear
from soapkrr.baselines import baseline_energies, split_baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, ModelFileError
from soapkrr.kernels import Kernel
from soapkrr.labels import property_values
from soapkrr.parallel import thread_map
from soapkrr.regression.evidence import exact_evidence, maximise
from soapkrr.regression.observation_fit import solve_exact
from soapkrr.regression.terms import Term, checked_pair
from soapkrr.similarity import structure_features
from soapkrr.structures import species_name

#: What a property can be.
PROPERTIES = ("extensive", "intensive", "atom")

#: Kernel values between atoms held at once by a thread.
ELEMENTS = 4_000_000


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
        for s in range(len(descriptor.species)):
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
    """Of every atom: index of the value it belongs to, and its weight in it."""
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


@dataclass(frozen=True, eq=False)
class PropertyPart:
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
    def restore(cls, state: dict) -> PropertyPart:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        descriptor, kernel = checked_pair(state)
        X, P = state["points"], []
        for x, offsets, data in zip(X, state["indptr"], state["data"], strict=True):
            if x.ndim != 2 or x.shape[1] != descriptor.n_features or data.shape != (len(x),) or offsets[-1] != len(x):
                raise ModelFileError(f"the arrays do not fit the descriptor: environments {x.shape}, weights {data.shape}.")
            P.append(csr_array((data, np.arange(len(x)), offsets), shape=(len(offsets) - 1, len(x))))
        return cls(descriptor, kernel, float(state["signal"]), Sums(X, P))


@dataclass(frozen=True, eq=False)
class PropertyModel:
    """Posterior of a property.

    Attributes
    ----------
    target : one of `PROPERTIES`.  references : {symbol: e}, the prior mean of an atom.
    weights : (n_values,) (K + Σ)⁻¹y.  factor : lower Cholesky factor of K + Σ.
    """

    target: str
    parts: list[PropertyPart]
    references: dict[str, float]
    weights: np.ndarray
    factor: np.ndarray

    @cached_property
    def _collapsed(self) -> list[list[np.ndarray]]:
        """Per term and species, weights of the training atoms."""
        return [[part.signal**2 * (p.T @ self.weights) for p in part.sums.P] for part in self.parts]

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

    def std(self, frames: list[Atoms], threads: int | None) -> np.ndarray:
        """(n_values,) posterior standard deviations, without the noise."""
        cross, prior = 0.0, 0.0
        for part in self.parts:
            queries = Sums.of(part.descriptor, frames, self.target)
            cross = cross + part.signal**2 * covariance(part.kernel, queries, part.sums, threads)
            prior = prior + part.signal**2 * queries.variances(part.kernel)
        half = linear.forward(self.factor, cross.T)
        return np.sqrt(np.maximum(prior - np.einsum("no,no->o", half, half), 0.0))

    def arranged(self, values: np.ndarray, frames: list[Atoms]):
        """Values as they are given to the user: (n_structures,), or one array (n_atoms,) for each structure."""
        return np.split(values, np.cumsum([len(atoms) for atoms in frames])[:-1]) if self.target == "atom" else values

    def state(self) -> dict:
        """For a model file."""
        return {"parts": [part.state() for part in self.parts], "weights": self.weights, "factor": self.factor}

    @classmethod
    def restore(cls, target: str, references: dict[str, float], state: dict) -> PropertyModel:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        parts, n = [PropertyPart.restore(part) for part in state["parts"]], len(state["weights"])
        if state["factor"].shape != (n, n) or any(p.shape[0] != n for part in parts for p in part.sums.P):
            raise ModelFileError(f"the arrays do not fit together: {n} values, factor {state['factor'].shape}.")
        return cls(target, parts, references, state["weights"], state["factor"])


def fit_property(
    terms: list[Term],
    frames: list[Atoms],
    y,
    target: str,
    noise: float,
    baseline,
    threads: int | None,
    optimize: bool,
    elements: int = ELEMENTS,
):
    """(model, log evidence, noise) from values, or the name of a property, of structures or atoms.

    ``noise`` is that of an intensive or an atom's property; an extensive one has noise·√N. ``elements``: as in `covariance`.
    """
    y, references = _less_references(frames, y, target, baseline)
    sums = [Sums.of(t.descriptor, frames, target) for t in terms]
    unit = np.sqrt([len(atoms) for atoms in frames]) if target == "extensive" else np.ones(len(y))
    K = [covariance(t.kernel, s, s, threads, elements) for t, s in zip(terms, sums, strict=True)]
    if optimize:
        noise, terms = _optimised(K, y, unit, noise, terms)
    for t, k in zip(terms, K, strict=True):
        k *= t.signal**2
    total = reduce(lambda a, b: np.add(a, b, out=a), K)
    L, half, evidence = solve_exact(total, y, noise * unit, threads)
    parts = [PropertyPart(t.descriptor, t.kernel, t.signal, s) for t, s in zip(terms, sums, strict=True)]
    return PropertyModel(target, parts, references, linear.backward(L, half), L), evidence, noise


def _less_references(frames: list[Atoms], y, target: str, baseline) -> tuple[np.ndarray, dict[str, float]]:
    """Values less Σ w_i e(z_i), and e by symbol: given, or fitted by least squares."""
    if y is None:
        raise InputError(f"`y` must hold the values of the property, or its name, with `target`={target!r}.")
    values, _ = property_values(frames, y, "atom" if target == "atom" else "structure")
    reference, means = split_baseline(baseline)
    if means or not (reference in (None, "least-squares") or isinstance(reference, Mapping)):
        raise InputError(f"`baseline` must be a mapping, 'least-squares' or None with `target`={target!r}, received {baseline!r}.")
    species, kind = np.unique(np.concatenate([atoms.numbers for atoms in frames]), return_inverse=True)
    owner, weight = owners(frames, target)
    rows = np.zeros((len(values), len(species)))
    np.add.at(rows, (owner, kind), weight)
    if isinstance(reference, Mapping):
        missing = [species_name(z) for z in species if species_name(z) not in reference]
        unknown = [symbol for symbol in reference if symbol not in atomic_numbers]
        if missing or unknown or not np.isfinite(list(reference.values())).all():
            raise InputError(f"`baseline` must give a finite value for every species: missing {missing}, not elements {unknown}.")
        references = {symbol: float(e) for symbol, e in reference.items()}
    else:
        scale = 1 / rows.sum(axis=1)
        fit = np.linalg.lstsq(scale[:, None] * rows, scale * values, rcond=1e-10)[0]
        references = {species_name(z): float(e) for z, e in zip(species, fit, strict=True)}
    return values - rows @ [references[species_name(z)] for z in species], references


def _optimised(K: list[np.ndarray], y: np.ndarray, unit: np.ndarray, noise: float, terms: list[Term]) -> tuple[float, list[Term]]:
    """Noise and terms of highest evidence, within bounds relative to the values."""
    scale = np.sqrt(np.mean(np.square(y / unit))) or 1.0
    bounds = {"property": (1e-6 * scale, 1e2 * scale), "signal": (1e-3 * scale, 1e3 * scale)}
    kinds = np.zeros(len(y), dtype=np.int64)

    def evidence(levels, signals):
        value, by_noise, by_scale = exact_evidence(K, y, kinds, unit, np.array([levels["property"]]), signals)
        return value, {"property": by_noise[0]}, by_scale

    found = maximise(evidence, {"property": noise}, [t.signal for t in terms], bounds)
    return found.noise["property"], [replace(t, signal=s) for t, s in zip(terms, found.signals, strict=True)]
