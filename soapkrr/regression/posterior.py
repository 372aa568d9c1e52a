"""Mean and variance of a sparse model on a batch: energies, forces, stress.

For a linear functional L with features φ_L the mean is φ_L·w̄ and the variance k_LL − |φ_L|² + |R⁻ᵀφ_L|² (DTC; Quiñonero-Candela and
Rasmussen 2005, JMLR 6, 1939). The mean never builds a Jacobian; variances of forces and stress do, atom by atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.linear import Posterior
from soapkrr.parallel import thread_map
from soapkrr.regression.design import DesignRows, DisplacedBlock, SparseTerm
from soapkrr.structures import Batch, Pairs, forces_and_strain

#: Atoms per block of a thread: (block × n_sparse) products stay in the second-level cache.
BLOCK = 96


@dataclass(frozen=True, eq=False)
class SparseModel:
    """A fitted term with its posterior and the sparse coefficients that follow from it."""

    term: SparseTerm
    posterior: Posterior
    threads: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "weights", self.term.sparse_weights(self.posterior.mean))

    def mean(self, batch: Batch, pairs: Pairs, arrays, spread: bool = False):
        """Per-atom energies (n_atoms,), forces (n_atoms, 3), strain derivative (n_structures, 6) and `AtomFeatures` or None."""
        energies, gradient = np.empty(batch.n_atoms), np.empty((len(pairs.j), 3))
        features = AtomFeatures.empty(self.term, batch, arrays.kinds) if spread else None

        def block(start):
            stop = min(start + BLOCK, batch.n_atoms)
            phi = self._block(start, stop, arrays, energies, gradient, features)
            return (batch.structure[start:stop], phi)

        for partial in thread_map(block, range(0, batch.n_atoms, BLOCK), self.threads):
            if features is not None:
                features.accumulate(*partial)
        return energies, *forces_and_strain(batch, pairs, gradient), features

    def _block(self, start, stop, arrays, energies, gradient, features) -> np.ndarray | None:
        """Fill energies and pair gradients of atoms ``start:stop``; with ``features``, their variances too, returning φ."""
        descriptor, kernel = self.term.descriptor, self.term.kernel
        n = stop - start
        c = np.empty((n, (descriptor.l_max + 1) ** 2, descriptor.n_channels))
        X, norms = np.empty((n, descriptor.n_features)), np.empty(n)
        descriptor.compute(start, stop, arrays, c, X, norms)
        G = np.empty_like(X)
        phi = None if features is None else np.zeros((n, self.term.rank))
        for s, points in enumerate(self.term.points):
            here = np.flatnonzero(arrays.kinds[start:stop] == s)
            if not len(here):
                continue
            x = X if len(here) == n else X[here]
            u = x @ points.T
            if features is not None:
                a, b = self.term.columns[s], self.term.columns[s + 1]
                phi[here, a:b] = self.term.kernel.value(u) @ (self.term.signal * self.term.transform[s])
                features.X[start + here] = x
                features.variance[start + here] = self._atom_variance(x, phi[here, a:b], int(a))
            energies[start + here] = kernel.energies(u, self.weights[s])
            G[here] = u @ points
        descriptor.pullback(start, stop, arrays, c, X, norms, G, gradient)
        return phi

    def _atom_variance(self, x: np.ndarray, phi: np.ndarray, first: int) -> np.ndarray:
        """(n,) posterior variance of single atoms' energies, from features in the columns starting at ``first``."""
        prior = self.term.signal**2 * self.term.kernel.value(np.einsum("if,if->i", x, x))
        return np.maximum(prior - np.einsum("ir,ir->i", phi, phi), 0.0) + self.posterior.spread(phi, first)

    def energy_variance(self, batch: Batch, features: AtomFeatures) -> np.ndarray:
        """(n_structures,) posterior variance of the total energy, eV²."""
        bounds = zip(batch.offsets, batch.offsets[1:], strict=False)
        prior = np.array([self._total_prior(features.X[a:b], features.kinds[a:b]) for a, b in bounds])
        return self._variance(prior, features.sums)

    def _total_prior(self, X: np.ndarray, kinds: np.ndarray) -> float:
        """δ² Σ_ij κ(x_i, x_j) over atoms of the same species, by the upper triangle of blocks."""
        kernel, total = self.term.kernel, 0.0
        step = 4 * BLOCK
        for s in np.unique(kinds):
            x = X[kinds == s]

            def part(ij, x=x):
                i, j = ij
                value = kernel.value(x[i : i + step] @ x[j : j + step].T).sum()
                return value if i == j else 2 * value

            tiles = [(i, j) for i in range(0, len(x), step) for j in range(i, len(x), step)]
            total += sum(thread_map(part, tiles, self.threads if len(tiles) > 1 else 1))
        return self.term.signal**2 * total

    def _variance(self, prior: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """k_LL − |φ|² + |R⁻ᵀφ|²; the Nyström remainder is never negative but for rounding."""
        return np.maximum(prior - np.einsum("mr,mr->m", rows, rows), 0.0) + self.posterior.spread(rows)

    def forces_variance(self, design: DesignRows) -> np.ndarray:
        """(n_atoms, 3) posterior variance of the force components, (eV/Å)²."""

        def block(start):
            stop = min(start + 8, design.batch.n_atoms)
            rows = self.term.whiten(design.forces(start, stop))
            prior = np.concatenate([self._force_prior(design, a) for a in range(start, stop)])
            return self._variance(prior, rows).reshape(-1, 3)

        design.slopes  # noqa: B018  computed once, before the threads start
        return np.concatenate(list(thread_map(block, range(0, design.batch.n_atoms, 8), self.threads)))

    def _force_prior(self, design: DesignRows, atom: int) -> np.ndarray:
        """(3,) prior variance of the force on one atom: Σ_ii' ∂x_i κ'' ∂x_i' over the centres it moves."""
        block = DisplacedBlock(self.term.descriptor, design.env, atom, atom + 1)
        prior = np.zeros(3)
        for s in range(len(self.term.points)):
            jacobian, centre, _ = block.of_species(s)
            if len(centre):
                prior += self._mixed(jacobian, design.env.X[centre])
        return self.term.signal**2 * prior

    def _mixed(self, jacobian: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Σ_ii' [κ'(u) v_i·v_i' + κ''(u) (v_i·x_i')(x_i·v_i')] for each direction v = jacobian[:, b]."""
        u = X @ X.T
        slope, curvature = self.term.kernel.slope(u), self.term.kernel.curvature(u)
        result = np.empty(jacobian.shape[1])
        for b in range(jacobian.shape[1]):
            v = np.ascontiguousarray(jacobian[:, b])
            cross = v @ X.T
            result[b] = np.vdot(slope, v @ v.T) + np.vdot(curvature, cross * cross.T)
        return result

    def strain_variance(self, design: DesignRows) -> np.ndarray:
        """(n_structures, 6) posterior variance of ∂E/∂ε, eV²."""
        batch, kinds = design.batch, design.env.pairs.kinds
        rows = self.term.whiten(design.strain())

        def prior(s):
            a, b = batch.offsets[s], batch.offsets[s + 1]
            jacobian = np.empty((b - a, 6, design.env.X.shape[1]))
            self.term.descriptor.strain_jacobian(a, b, design.env, jacobian)
            here = kinds[a:b]
            return sum(self._mixed(jacobian[here == t], design.env.X[a:b][here == t]) for t in np.unique(here))

        priors = self.term.signal**2 * np.concatenate(list(thread_map(prior, range(len(batch)), self.threads)))
        return self._variance(priors, rows).reshape(-1, 6)


@dataclass(frozen=True, eq=False)
class AtomFeatures:
    """What the variance of total and per-atom energies needs of a batch.

    Attributes
    ----------
    sums : (n_structures, rank) Σ_i φ(x_i).  X : (n_atoms, n_features).  kinds : (n_atoms,) species index.
    variance : (n_atoms,) posterior variance of each atom's energy, eV².
    """

    sums: np.ndarray
    X: np.ndarray
    kinds: np.ndarray
    variance: np.ndarray

    @classmethod
    def empty(cls, term: SparseTerm, batch: Batch, kinds: np.ndarray) -> AtomFeatures:
        n = batch.n_atoms
        return cls(np.zeros((len(batch), term.rank)), np.empty((n, term.descriptor.n_features)), kinds, np.empty(n))

    def accumulate(self, structure: np.ndarray, phi: np.ndarray) -> None:
        """Add features φ of atoms to the sums of their structures."""
        np.add.at(self.sums, structure, phi)
