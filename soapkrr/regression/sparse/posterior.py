"""Mean and variance of a sum of sparse terms on a batch: energies, forces, stress.

For a linear functional L with features φ_L the mean is φ_L·w̄ and the variance k_LL − |φ_L|² + |R⁻ᵀφ_L|² (DTC; Quiñonero-Candela and
Rasmussen 2005, JMLR 6, 1939). The mean never builds a Jacobian; variances of forces and stress do, atom by atom (`variances`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.errors import ModelFileError
from soapkrr.kernels import squares
from soapkrr.lazy import cached_property
from soapkrr.linear import Posterior
from soapkrr.prediction import TOTAL
from soapkrr.regression import stored
from soapkrr.regression.evaluate import evaluate
from soapkrr.regression.explained import Explained
from soapkrr.regression.process import Deviations, Process
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.sparse.triangles import tables
from soapkrr.regression.sparse.variances import EnergyVariances, Reduction, forces_variance, strain_variance
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, Mean, split_by_atoms

if TYPE_CHECKING:
    from soapkrr.regression.functionals import Functionals


@dataclass(frozen=True, eq=False)
class SparsePart:
    """A sparse term with the coefficients of its sparse points, as `evaluate.evaluate` takes it."""

    term: SparseTerm
    weights: list[np.ndarray]

    @property
    def descriptor(self):
        return self.term.descriptor

    @property
    def xp(self):
        return self.term.xp

    def evaluate(self, s: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies Σ_q a_q κ(x, x_q) and their gradient."""
        return self._mean(s, x, x @ self.term.points[s].T)

    def evaluate_with_kernel(self, s: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same, and the kernel values with the sparse points (n, M_s)."""
        term, u = self.term, x @ self.term.points[s].T
        values = term.kernel.jet(u, squares(x)[:, None], term.squares[s], 0).value
        return *self._mean(s, x, u), values

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

    def influence(self, functionals, data, noise):
        """See `Process.influence`: Σ_i φ_L·(RᵀR)⁻¹φ_i y_i/σ_i² over the rows of a structure, made in a second pass over the data."""
        solve, half = backends.of(self.posterior.factor).dense.solve_triangular, self.posterior.half(self.features(functionals))
        gain = solve(self.posterior.factor, half)
        starts = np.cumsum([0] + [t.rank for t in self.terms])
        weights = [t.sparse_weights(gain[a:b]) for t, a, b in zip(self.terms, starts, starts[1:], strict=False)]
        weights = self.xp.concatenate([w for of_term in weights for w in of_term])
        out = np.zeros((len(data.frames), len(functionals)))
        for first, frames in split_by_atoms(data.frames, backends.loops(self.xp).GROUP):
            for table in tables(self.terms, frames, data.labels[first : first + len(frames)], data.references, first):
                rows = (table.rows @ weights) * table.targets[:, None] / noise[table.kind] ** 2
                np.add.at(out, table.structure, backends.host(rows))
        return out

    def reduction(self, species: int | None) -> Reduction:
        """What turns kernel values of functionals of one species, or of all, into variances; made once."""
        made, key = vars(self).setdefault("_copies", {}), ("reduction", species if len(self.terms[0].points) > 1 else 0)
        if key not in made:
            made[key] = Reduction(self.terms, self.posterior, species)
        return made[key]

    def samples(self, n, seed):
        """See `Process.samples`: weights of the features, w̄ + R⁻¹ξ."""
        return [self._parts(weights) for weights in self.posterior.mean + self.posterior.draws(n, seed)]

    def representers(self) -> list[dict[str, int]]:
        """{symbol: number of sparse points} of each term."""
        return [dict(zip(t.descriptor.kind_names, map(len, t.points), strict=True)) for t in self.terms]

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
        totals, atoms = bool(wanted & {"energy", TOTAL}), "energies" in wanted
        energies = EnergyVariances(self, batch, totals, atoms) if totals or atoms else None
        mean = Mean(*backends.host(tuple(evaluate(self.parts, batch, self.threads, energies))))
        variances = {}
        if energies is not None:
            variances |= {"energies": energies.atoms} if atoms else {}
            variances |= {"energy": energies.structures()} if totals else {}
        designs = [DesignRows(term, batch) for term in self.terms] if wanted & {"forces", "stress"} else []
        if "forces" in wanted:
            variances["forces"] = forces_variance(self, designs)
        if "stress" in wanted:
            variances["stress"] = strain_variance(self, designs) / self.xp.asarray(batch.volumes)[:, None] ** 2
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
