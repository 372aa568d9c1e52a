"""Mean and variance of a sum of sparse terms on a batch: energies, forces, stress.

For a linear functional L with features φ_L the mean is φ_L·w̄ and the variance k_LL − |φ_L|² + |R⁻ᵀφ_L|² (DTC; Quiñonero-Candela and
Rasmussen 2005, JMLR 6, 1939). The mean never builds a Jacobian; variances of forces and stress do, atom by atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.kernels import mixed_products, squares
from soapkrr.linear import Posterior
from soapkrr.parallel import block_map, thread_map
from soapkrr.regression.design import DesignRows, DisplacedBlock
from soapkrr.regression.mean import evaluate
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, add_rows

#: Rows and columns of atoms whose products are summed at once in the prior of a total energy.
TILE = 384


@dataclass(frozen=True, eq=False)
class SparsePart:
    """A sparse term with the coefficients of its sparse points, as `mean.evaluate` takes it."""

    term: SparseTerm
    weights: list[np.ndarray]

    @property
    def descriptor(self):
        return self.term.descriptor

    @property
    def rank(self) -> int:
        return self.term.rank

    @property
    def xp(self):
        return self.term.xp

    def evaluate(self, s: int, x: np.ndarray, spread: bool):
        """Energies Σ_q a_q κ(x, x_q), their gradient, and the features where ``spread``."""
        term, points = self.term, self.term.points[s]
        u, a, b = x @ points.T, squares(x)[:, None], term.squares[s]
        phi = None
        if spread:
            phi = term.xp.zeros((len(x), term.rank))
            values = term.kernel.jet(u, a, b, 0).value
            phi[:, term.columns[s] : term.columns[s + 1]] = values @ term.scaled_transform[s]
        energies, of_points, of_x = term.kernel.energies(u, a, b, self.weights[s])
        gradient = of_points @ points
        return energies, gradient if of_x is None else gradient + of_x[:, None] * x, phi


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Fitted terms with their posterior, and the sparse coefficients that follow from it."""

    terms: tuple[SparseTerm, ...]
    posterior: Posterior
    threads: int | None = None

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return self.terms[0].xp

    def __post_init__(self):
        columns = np.cumsum([0] + [t.rank for t in self.terms])
        bounds = zip(self.terms, columns, columns[1:], strict=False)
        parts = [SparsePart(t, t.sparse_weights(self.posterior.mean[a:b])) for t, a, b in bounds]
        object.__setattr__(self, "parts", parts)

    def on(self, xp, threads: int | None) -> SparseModel:
        """The same computing with arrays of ``xp`` on so many threads; made once."""
        copies = self.__dict__.setdefault("_copies", {})
        key = (xp.__name__, threads)
        if key not in copies:
            copies[key] = SparseModel(tuple(t.moved(xp) for t in self.terms), self.posterior.moved(xp), threads)
        return copies[key]

    def __getstate__(self):
        """Without the copies."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def mean(self, batch: Batch, first: int = 0, spread: bool = False):
        """Per-atom energies (n_atoms,), forces (n_atoms, 3), strain derivative (n_structures, 6) and `EnergyFeatures` or None."""
        features = EnergyFeatures(self, batch) if spread else None
        return *evaluate(self.parts, batch, first, self.threads, features), features

    def energy_variance(self, batch: Batch, features: EnergyFeatures) -> np.ndarray:
        """(n_structures,) posterior variance of the total energy, eV²."""
        prior = self.xp.zeros(len(batch))
        for term, X in zip(self.terms, features.X, strict=True):
            kinds = term.descriptor.kinds(batch.numbers)
            for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
                prior[s] += self._total_prior(term, X[a:b], kinds[a:b])
        return self.variance(prior, features.sums)

    def _total_prior(self, term: SparseTerm, X: np.ndarray, kinds: np.ndarray) -> float:
        """δ² Σ_ij κ(x_i, x_j) over atoms of the same species, by the upper triangle of tiles."""
        total = 0.0
        for s in np.unique(kinds):
            x = X[self.xp.asarray(np.flatnonzero(kinds == s))]

            def part(ij, x=x):
                i, j = ij
                value = term.kernel(x[i : i + TILE], x[j : j + TILE]).sum()
                return value if i == j else 2 * value

            tiles = [(i, j) for i in range(0, len(x), TILE) for j in range(i, len(x), TILE)]
            total += sum(thread_map(part, tiles, self.threads if len(tiles) > 1 else 1))
        return term.signal**2 * total

    def variance(self, prior: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """k_LL − |φ|² + |R⁻ᵀφ|²; the Nyström remainder is never negative but for rounding."""
        return np.maximum(prior - squares(rows), 0.0) + self.posterior.spread(rows)

    def designs(self, batch: Batch, first: int) -> list[DesignRows]:
        """Design rows of each term, for the variances of forces and stress."""
        return [DesignRows(term, batch, first) for term in self.terms]

    def forces_variance(self, designs: list[DesignRows]) -> np.ndarray:
        """(n_atoms, 3) posterior variance of the force components, (eV/Å)²."""

        def block(start, stop):
            rows = self.xp.concatenate([d.term.whiten(d.forces(start, stop)) for d in designs], axis=1)
            prior = self.xp.concatenate([sum(self._force_prior(d, a) for d in designs) for a in range(start, stop)])
            return self.variance(prior, rows).reshape(-1, 3)

        for design in designs:
            design.jets  # noqa: B018  computed once, before the threads start
        return self.xp.concatenate([rows for _, _, rows in block_map(block, designs[0].batch.n_atoms, 8, self.threads)])

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
        rows = self.xp.concatenate([d.term.whiten(d.strain()) for d in designs], axis=1)
        priors = sum(self._strain_priors(d) for d in designs)
        return self.variance(priors, rows).reshape(-1, 6)

    def _strain_priors(self, design: DesignRows) -> np.ndarray:
        """(6·n_structures,) prior variance of ∂E/∂ε."""
        term, batch, kinds = design.term, design.batch, design.env.pairs.kinds

        def prior(s):
            a, b = batch.offsets[s], batch.offsets[s + 1]
            jacobian = self.xp.empty((b - a, 6, design.env.X.shape[1]))
            term.descriptor.strain_jacobian(a, b, design.env, jacobian)
            here, X = kinds[a:b], design.env.X[a:b]
            members = [self.xp.flatnonzero(here == t) for t in range(len(term.points))]
            return sum(_quadratic(term.kernel, jacobian[m], X[m]) for m in members if len(m))

        return term.signal**2 * self.xp.concatenate(list(thread_map(prior, range(len(batch)), self.threads)))


def _quadratic(kernel, jacobian: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Σ_ii' v_i (∂²κ/∂x_i∂x_i') v_i' for each direction v = jacobian[:, b]; jacobian (m, k, n_features) → (k,)."""
    xp = backends.namespace(X)
    directions = xp.ascontiguousarray(jacobian.transpose(1, 0, 2))
    return xp.stack([mixed_products(kernel, v, X, v, X).sum() for v in directions])


class EnergyFeatures:
    """Collects what the variances of total and per-atom energies need while `mean.evaluate` runs.

    Attributes
    ----------
    sums : (n_structures, r) Σ_i φ(x_i).  X : per term (n_atoms, n_features).
    atom_variance : (n_atoms,) posterior variance of each atom's energy, eV².
    """

    def __init__(self, model: SparseModel, batch: Batch):
        xp = model.xp
        self._model, self._structure = model, xp.asarray(batch.structure)
        self.sums = xp.zeros((len(batch), sum(t.rank for t in model.terms)))
        self.X = [xp.empty((batch.n_atoms, t.descriptor.n_features)) for t in model.terms]
        self.atom_variance = xp.empty(batch.n_atoms)

    def __call__(self, start: int, stop: int, X: tuple, phi: tuple) -> np.ndarray:
        """Keep X and the variances of atoms ``start:stop``; returns φ of all terms side by side."""
        prior = 0.0
        for own, x, term in zip(self.X, X, self._model.terms, strict=True):
            own[start:stop] = x
            prior = prior + term.prior(x)
        rows = phi[0] if len(phi) == 1 else self._model.xp.concatenate(phi, axis=1)
        self.atom_variance[start:stop] = self._model.variance(prior, rows)
        return rows

    def collect(self, start: int, stop: int, rows: np.ndarray) -> None:
        """Add features of atoms to the sums of their structures, in order."""
        add_rows(self.sums, self._structure[start:stop], rows)
