"""Mean and variance of a sum of sparse terms on a batch: energies, forces, stress.

For a linear functional L with features φ_L the mean is φ_L·w̄ and the variance k_LL − |φ_L|² + |R⁻ᵀφ_L|² (DTC; Quiñonero-Candela and
Rasmussen 2005, JMLR 6, 1939). The mean never builds a Jacobian; variances of forces and stress do, atom by atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.backends.cpu import PairArrays
from soapkrr.kernels import mixed_products, squares
from soapkrr.linear import Posterior
from soapkrr.parallel import thread_map
from soapkrr.regression.design import DesignRows, DisplacedBlock
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, forces_and_strain

#: Atoms per block of a thread: (block × n_sparse) products stay in the second-level cache.
BLOCK = 96


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Fitted terms with their posterior, and the sparse coefficients that follow from it."""

    terms: tuple[SparseTerm, ...]
    posterior: Posterior
    threads: int | None = None

    def __post_init__(self):
        columns = np.cumsum([0] + [t.rank for t in self.terms])
        object.__setattr__(self, "columns", columns)
        bounds = zip(self.terms, columns, columns[1:], strict=False)
        object.__setattr__(self, "weights", [t.sparse_weights(self.posterior.mean[a:b]) for t, a, b in bounds])

    def mean(self, batch: Batch, first: int = 0, spread: bool = False):
        """Per-atom energies (n_atoms,), forces (n_atoms, 3), strain derivative (n_structures, 6) and `EnergyFeatures` or None."""
        pairs = {r_cut: batch.pairs(r_cut, first) for r_cut in {t.descriptor.r_cut for t in self.terms}}
        pairs = [pairs[t.descriptor.r_cut] for t in self.terms]
        arrays = [t.descriptor.arrays(batch, p, first) for t, p in zip(self.terms, pairs, strict=True)]
        gradients = [np.empty((len(p.j), 3)) for p in pairs]
        energies = np.zeros(batch.n_atoms)
        features = EnergyFeatures.empty(self, batch, arrays) if spread else None

        def block(start):
            stop = min(start + BLOCK, batch.n_atoms)
            phi = [self._block(t, start, stop, arrays[t], energies, gradients[t], features) for t in range(len(self.terms))]
            return start, stop, self._spread(features, start, stop, phi)

        for start, stop, phi in thread_map(block, range(0, batch.n_atoms, BLOCK), self.threads):
            if spread:
                np.add.at(features.sums, batch.structure[start:stop], phi)
        parts = [forces_and_strain(batch, p, g) for p, g in zip(pairs, gradients, strict=True)]
        return energies, sum(f for f, _ in parts), sum(s for _, s in parts), features

    def _block(self, t, start, stop, arrays, energies, gradient, features):
        """Add the energies and fill the pair gradients of atoms ``start:stop`` of one term; φ (n, rank) where variances are asked for."""
        term = self.terms[t]
        X, state = term.descriptor.compute(start, stop, arrays)
        G = np.empty_like(X)
        phi = None if features is None else np.zeros((stop - start, term.rank))
        for s, points in enumerate(term.points):
            here = np.flatnonzero(arrays.kinds[start:stop] == s)
            if not len(here):
                continue
            x = X if len(here) == len(X) else X[here]
            u, a, b = x @ points.T, squares(x)[:, None], term.squares[s]
            if phi is not None:
                first, last = term.columns[s], term.columns[s + 1]
                phi[here, first:last] = term.kernel.jet(u, a, b, 0).value @ (term.signal * term.transform[s])
            e, of_points, of_x = term.kernel.energies(u, a, b, self.weights[t][s])
            energies[start + here] += e
            g = of_points @ points
            G[here] = g if of_x is None else g + of_x[:, None] * x
        term.descriptor.pullback(start, stop, arrays, X, state, G, gradient)
        if phi is not None:
            features.X[t][start:stop] = X
        return phi

    def _spread(self, features: EnergyFeatures | None, start: int, stop: int, phi: list) -> np.ndarray | None:
        """φ of all terms side by side, after the variances of atoms ``start:stop`` were filled in."""
        if features is None:
            return None
        rows = phi[0] if len(phi) == 1 else np.concatenate(phi, axis=1)
        prior = sum(term.prior(X[start:stop]) for term, X in zip(self.terms, features.X, strict=True))
        features.variance[start:stop] = self._variance(prior, rows)
        return rows

    def energy_variance(self, batch: Batch, features: EnergyFeatures) -> np.ndarray:
        """(n_structures,) posterior variance of the total energy, eV²."""
        prior = np.zeros(len(batch))
        for t in range(len(self.terms)):
            for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
                prior[s] += self._total_prior(t, features.X[t][a:b], features.kinds[t][a:b])
        return self._variance(prior, features.sums)

    def _total_prior(self, index: int, X: np.ndarray, kinds: np.ndarray) -> float:
        """δ² Σ_ij κ(x_i, x_j) over atoms of the same species, by the upper triangle of blocks."""
        term, total, step = self.terms[index], 0.0, 4 * BLOCK
        for s in np.unique(kinds):
            x = X[kinds == s]

            def part(ij, x=x):
                i, j = ij
                value = term.kernel(x[i : i + step], x[j : j + step]).sum()
                return value if i == j else 2 * value

            tiles = [(i, j) for i in range(0, len(x), step) for j in range(i, len(x), step)]
            total += sum(thread_map(part, tiles, self.threads if len(tiles) > 1 else 1))
        return term.signal**2 * total

    def _variance(self, prior: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """k_LL − |φ|² + |R⁻ᵀφ|²; the Nyström remainder is never negative but for rounding."""
        return np.maximum(prior - squares(rows), 0.0) + self.posterior.spread(rows)

    def designs(self, batch: Batch, first: int) -> list[DesignRows]:
        """Design rows of each term, for the variances of forces and stress."""
        return [DesignRows(term, batch, first) for term in self.terms]

    def forces_variance(self, designs: list[DesignRows]) -> np.ndarray:
        """(n_atoms, 3) posterior variance of the force components, (eV/Å)²."""
        n_atoms, step = designs[0].batch.n_atoms, 8

        def block(start):
            stop = min(start + step, n_atoms)
            rows = np.concatenate([d.forces(start, stop) for d in designs], axis=1)
            prior = np.concatenate([sum(self._force_prior(d, a) for d in designs) for a in range(start, stop)])
            return self._variance(prior, rows).reshape(-1, 3)

        for design in designs:
            design.jets  # noqa: B018  computed once, before the threads start
        return np.concatenate(list(thread_map(block, range(0, n_atoms, step), self.threads)))

    def _force_prior(self, design: DesignRows, atom: int) -> np.ndarray:
        """(3,) prior variance of the force on one atom: Σ_ii' ∂x_i κ'' ∂x_i' over the centres it moves."""
        term = design.term
        block = DisplacedBlock(term.descriptor, design.env, atom, atom + 1)
        return term.signal**2 * sum(
            _quadratic(term.kernel, jacobian, design.env.X[centre])
            for jacobian, centre, _ in (block.of_species(s) for s in range(len(term.points)))
        )

    def strain_variance(self, designs: list[DesignRows]) -> np.ndarray:
        """(n_structures, 6) posterior variance of ∂E/∂ε, eV²."""
        rows = np.concatenate([d.strain() for d in designs], axis=1)
        priors = sum(self._strain_priors(d) for d in designs)
        return self._variance(priors, rows).reshape(-1, 6)

    def _strain_priors(self, design: DesignRows) -> np.ndarray:
        """(6·n_structures,) prior variance of ∂E/∂ε."""
        term, batch, kinds = design.term, design.batch, design.env.pairs.kinds

        def prior(s):
            a, b = batch.offsets[s], batch.offsets[s + 1]
            jacobian = np.empty((b - a, 6, design.env.X.shape[1]))
            term.descriptor.strain_jacobian(a, b, design.env, jacobian)
            here, X = kinds[a:b], design.env.X[a:b]
            return sum(_quadratic(term.kernel, jacobian[here == t], X[here == t]) for t in np.unique(here))

        return term.signal**2 * np.concatenate(list(thread_map(prior, range(len(batch)), self.threads)))


def _quadratic(kernel, jacobian: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Σ_ii' v_i (∂²κ/∂x_i∂x_i') v_i' for each direction v = jacobian[:, b]; jacobian (m, k, n_features) → (k,)."""
    directions = np.ascontiguousarray(jacobian.transpose(1, 0, 2))
    return np.array([mixed_products(kernel, v, X, v, X).sum() for v in directions])


@dataclass(frozen=True, eq=False)
class EnergyFeatures:
    """What the variances of total and per-atom energies need of a batch.

    Attributes
    ----------
    sums : (n_structures, r) Σ_i φ(x_i).  X, kinds : per term, descriptors and species index of every atom.
    variance : (n_atoms,) posterior variance of each atom's energy, eV².
    """

    sums: np.ndarray
    X: list[np.ndarray]
    kinds: list[np.ndarray]
    variance: np.ndarray

    @classmethod
    def empty(cls, model: SparseModel, batch: Batch, arrays: list[PairArrays]) -> EnergyFeatures:
        X = [np.empty((batch.n_atoms, t.descriptor.n_features)) for t in model.terms]
        return cls(np.zeros((len(batch), int(model.columns[-1]))), X, [a.kinds for a in arrays], np.empty(batch.n_atoms))
