"""Mean and variance of a sum of sparse terms on a batch: energies, forces, stress.

For a linear functional L with features φ_L the mean is φ_L·w̄ and the variance k_LL − |φ_L|² + |R⁻ᵀφ_L|² (DTC; Quiñonero-Candela and
Rasmussen 2005, JMLR 6, 1939). The mean never builds a Jacobian; variances of forces and stress do, atom by atom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.errors import ModelFileError
from soapkrr.execution.blocks import block_map
from soapkrr.kernels import mixed_products, squares
from soapkrr.linear import Posterior
from soapkrr.regression import stored
from soapkrr.regression.evaluate import Collector, evaluate
from soapkrr.regression.explained import Explained
from soapkrr.regression.process import Deviations, Process
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, Mean, add_rows
from soapkrr.threads import thread_map

if TYPE_CHECKING:
    from soapkrr.regression.functionals import Functionals

#: Rows and columns of atoms whose products are summed at once in the prior of a total energy.
TILE = 384


@dataclass(frozen=True, eq=False)
class SparsePart:
    """A sparse term with the coefficients of its sparse points, as `evaluate.evaluate` takes it."""

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

    def evaluate(self, s: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies Σ_q a_q κ(x, x_q) and their gradient."""
        return self._mean(s, x, x @ self.term.points[s].T)

    def evaluate_with_features(self, s: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same, and the features φ."""
        term, u = self.term, x @ self.term.points[s].T
        phi = term.xp.zeros((len(x), term.rank))
        values = term.kernel.jet(u, squares(x)[:, None], term.squares[s], 0).value
        phi[:, term.columns[s] : term.columns[s + 1]] = values @ term.scaled_transform[s]
        return *self._mean(s, x, u), phi

    @staticmethod
    def evaluate_samples(parts: Sequence[SparsePart], s: int, x: np.ndarray) -> tuple[np.ndarray, Iterator[np.ndarray]]:
        """Energies (n_samples, n) and one gradient (n, d) after the other, of parts that differ in weights alone."""
        term = parts[0].term
        jet = term.kernel.jet(x @ term.points[s].T, squares(x)[:, None], term.squares[s], 1)
        weights = [part.weights[s] for part in parts]

        def gradient(w):
            product = (jet.u * w) @ term.points[s]
            return product if jet.a is None else product + 2 * (jet.a @ w)[:, None] * x

        return (jet.value @ term.xp.stack(weights, axis=1)).T, map(gradient, weights)

    def _mean(self, s: int, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        term = self.term
        energies, of_points, of_x = term.kernel.energies(u, squares(x)[:, None], term.squares[s], self.weights[s])
        gradient = of_points @ term.points[s]
        return energies, gradient if of_x is None else gradient + of_x[:, None] * x


@dataclass(frozen=True, eq=False)
class SparseProcess(Process):
    """Fitted terms with their posterior."""

    terms: tuple[SparseTerm, ...]
    posterior: Posterior
    threads: int | None = None

    @property
    def descriptors(self):
        """See `Process.descriptors`."""
        return tuple(t.descriptor for t in self.terms)

    @property
    def signals(self):
        """See `Process.signals`."""
        return tuple(t.signal for t in self.terms)

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return self.terms[0].xp

    @cached_property
    def parts(self) -> list[SparsePart]:
        """The terms with the coefficients of their sparse points."""
        return self._parts(self.posterior.mean)

    def _parts(self, weights: np.ndarray) -> list[SparsePart]:
        """The terms with weights (r,) of their features."""
        columns = np.cumsum([0] + [t.rank for t in self.terms])
        bounds = zip(self.terms, columns, columns[1:], strict=False)
        return [SparsePart(t, t.sparse_weights(weights[a:b])) for t, a, b in bounds]

    def samples(self, n, seed):
        """See `Process.samples`: weights of the features, w̄ + R⁻¹ξ."""
        return [self._parts(weights) for weights in self.posterior.mean + self.posterior.draws(n, seed)]

    def representers(self) -> list[dict[str, int]]:
        """{symbol: number of sparse points} of each term."""
        return [dict(zip(t.descriptor.species, map(len, t.points), strict=True)) for t in self.terms]

    def _on(self, xp, threads):
        return SparseProcess(tuple(t.moved(xp) for t in self.terms), self.posterior.moved(xp), threads)

    def state(self):
        """See `Process.state`."""
        return {"terms": [t.state() for t in self.terms], "posterior": self.posterior.state()}

    @classmethod
    def restore(cls, state, threads):
        """See `Process.restore`."""
        terms, posterior = tuple(SparseTerm.restore(t) for t in state["terms"]), stored.posterior(state["posterior"])
        rank = sum(term.rank for term in terms)
        if not terms or posterior.mean.shape != (rank,):
            raise ModelFileError(f"the arrays do not fit together: {rank} features, factor {posterior.factor.shape}.")
        return cls(terms, posterior)

    def evaluate(self, batch: Batch, wanted: frozenset[str]) -> tuple[Mean, Deviations]:
        """See `Process.evaluate`."""
        features = EnergyFeatures(self, batch) if "energies" in wanted else None
        mean = Mean(*backends.host(tuple(evaluate(self.parts, batch, self.threads, features))))
        variances = {}
        if features is not None:
            variances["energies"] = features.atom_variance
        if "energy" in wanted:
            variances["energy"] = self.energy_variance(batch, features)
        designs = [DesignRows(term, batch) for term in self.terms] if wanted & {"forces", "stress"} else []
        if "forces" in wanted:
            variances["forces"] = self.forces_variance(designs)
        if "stress" in wanted:
            variances["stress"] = self.strain_variance(designs) / self.xp.asarray(batch.volumes)[:, None] ** 2
        return mean, Deviations(**{name: np.sqrt(backends.host(values)) for name, values in variances.items()})

    def variance(self, prior: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """k_LL − |φ|² + |R⁻ᵀφ|²; the Nyström remainder is never negative but for rounding."""
        return np.maximum(prior - squares(rows), 0.0) + self.posterior.variance(rows)

    def features(self, functionals: Functionals) -> np.ndarray:
        """(n, r) features of linear functionals."""
        return self.xp.concatenate([functionals.seen(t.descriptor, self.xp).features(t) for t in self.terms], axis=1)

    def covariance(self, functionals):
        """See `Process.covariance`: k_LL′ − φ_L·φ_L′ + φ_L·(RᵀR)⁻¹φ_L′."""
        prior = sum(functionals.seen(t.descriptor, self.xp).prior(t, self.threads) for t in self.terms)
        return self.posterior.covariance(self.features(functionals), prior)

    def explained(self, functionals):
        """See `Process.explained`: φ_L·(RᵀR)⁻¹φ_L′."""
        return Explained(rows=backends.host(self.posterior.half(self.features(functionals)).T))

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

    def forces_variance(self, designs: list[DesignRows]) -> np.ndarray:
        """(n_atoms, 3) posterior variance of the force components, (eV/Å)²."""

        def block(start, stop):
            rows = self.xp.concatenate([d.term.whiten(d.forces(start, stop)) for d in designs], axis=1)
            prior = self.xp.concatenate([sum(_force_prior(d, a) for d in designs) for a in range(start, stop)])
            return self.variance(prior, rows).reshape(-1, 3)

        for design in designs:
            design.jets  # noqa: B018  computed once, before the threads start
        return self.xp.concatenate([rows for _, _, rows in block_map(block, designs[0].batch.n_atoms, 8, self.threads)])

    def strain_variance(self, designs: list[DesignRows]) -> np.ndarray:
        """(n_structures, 6) posterior variance of ∂E/∂ε, eV²."""
        rows = self.xp.concatenate([d.term.whiten(d.strain()) for d in designs], axis=1)
        priors = sum(self._strain_priors(d) for d in designs)
        return self.variance(priors, rows).reshape(-1, 6)

    def _strain_priors(self, design: DesignRows) -> np.ndarray:
        """(6·n_structures,) prior variance of ∂E/∂ε."""
        term, batch, kinds = design.term, design.batch, design.env.kinds

        def prior(s):
            a, b = batch.offsets[s], batch.offsets[s + 1]
            jacobian, here, X = design.env.strained(a, b), kinds[a:b], design.env.X[a:b]
            members = [self.xp.flatnonzero(here == t) for t in range(len(term.points))]
            return sum(_quadratic(term.kernel, jacobian[m], X[m]) for m in members if len(m))

        return term.signal**2 * self.xp.concatenate(list(thread_map(prior, range(len(batch)), self.threads)))


def _force_prior(design: DesignRows, atom: int) -> np.ndarray:
    """(3,) prior variance of the force on one atom: Σ_ii' ∂x_i κ'' ∂x_i' over the centres it moves."""
    term, block = design.term, design.env.displaced(atom, atom + 1)
    moved = (block.of_species(s) for s in range(len(term.points)))
    return term.signal**2 * sum(_quadratic(term.kernel, jacobian, design.env.X[centre]) for jacobian, centre, _ in moved)


def _quadratic(kernel, jacobian: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Σ_ii' v_i (∂²κ/∂x_i∂x_i') v_i' for each direction v = jacobian[:, b]; jacobian (m, k, n_features) → (k,)."""
    xp = backends.namespace(X)
    directions = xp.ascontiguousarray(jacobian.transpose(1, 0, 2))
    return xp.stack([mixed_products(kernel, v, X, v, X).sum() for v in directions])


class EnergyFeatures(Collector):
    """What the variances of total and per-atom energies need.

    Attributes
    ----------
    sums : (n_structures, r) Σ_i φ(x_i).  X : per term (n_atoms, n_features).
    atom_variance : (n_atoms,) posterior variance of each atom's energy, eV².
    """

    def __init__(self, process: SparseProcess, batch: Batch):
        xp = process.xp
        self._process, self._structure = process, xp.asarray(batch.structure)
        self.sums = xp.zeros((len(batch), sum(t.rank for t in process.terms)))
        self.X = [xp.empty((batch.n_atoms, t.descriptor.n_features)) for t in process.terms]
        self.atom_variance = xp.empty(batch.n_atoms)

    def block(self, start: int, stop: int, X: list, features: list) -> np.ndarray:
        """Features of all terms side by side; keeps X and the variances of atoms ``start:stop``."""
        prior = 0.0
        for own, x, term in zip(self.X, X, self._process.terms, strict=True):
            own[start:stop] = x
            prior = prior + term.prior(x)
        rows = features[0] if len(features) == 1 else self._process.xp.concatenate(features, axis=1)
        self.atom_variance[start:stop] = self._process.variance(prior, rows)
        return rows

    def collect(self, start: int, stop: int, kept: np.ndarray) -> None:
        """Add features of atoms to the sums of their structures, in order."""
        add_rows(self.sums, self._structure[start:stop], kept)
