"""Nyström features of a term and its design rows: energies, forces and stress as linear functionals of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from soapkrr.backends import cpu
from soapkrr.descriptors.soap import SOAP, Environments
from soapkrr.kernels import DotProduct
from soapkrr.linear import whitening
from soapkrr.structures import Batch

#: Displaced atoms per Jacobian block: (n_neighbours·3·block) × n_sparse products stay in the cache.
BLOCK = 8


@dataclass(frozen=True, eq=False)
class SparseTerm:
    """Descriptor + kernel + sparse set: φ(x) = δ Tᵀ κ(x, X_M), one independent block of columns per species.

    Attributes
    ----------
    points : per species (M_s, n_features) sparse points.  transform : per species (M_s, r_s) T with Tᵀ κ_MM T = 1.
    signal : δ, prior standard deviation of one atom's energy, eV.
    """

    descriptor: SOAP
    kernel: DotProduct
    signal: float
    points: tuple[np.ndarray, ...]
    transform: tuple[np.ndarray, ...]

    @classmethod
    def build(cls, descriptor, kernel, signal, points, tolerance: float) -> SparseTerm:
        """Whiten the kernel of the sparse points, truncating eigenvalues below ``tolerance`` × the largest."""
        transform = tuple(whitening(kernel.value(x @ x.T), tolerance) if len(x) else np.zeros((0, 0)) for x in points)
        return cls(descriptor, kernel, signal, tuple(points), transform)

    @cached_property
    def columns(self) -> np.ndarray:
        """(n_species + 1,) first column of each species."""
        return np.cumsum([0] + [t.shape[1] for t in self.transform])

    @property
    def rank(self) -> int:
        return int(self.columns[-1])

    def sparse_weights(self, weights: np.ndarray) -> list[np.ndarray]:
        """Coefficients of the sparse points, E_i = Σ_q a_q κ(x_i, x_q), from weights of the features; per species."""
        return [self.signal * t @ weights[a:b] for t, a, b in zip(self.transform, self.columns, self.columns[1:], strict=False)]

    def whiten(self, kernel_rows: list[np.ndarray]) -> np.ndarray:
        """Features (m, rank) from kernel rows per species (m, M_s)."""
        out = np.empty((len(kernel_rows[0]), self.rank))
        for s, (k, t) in enumerate(zip(kernel_rows, self.transform, strict=True)):
            np.matmul(k, self.signal * t, out=out[:, self.columns[s] : self.columns[s + 1]])
        return out


class DesignRows:
    """Kernel rows of one batch: sums over atoms of κ(x_i, X_M) and its derivatives, before whitening.

    Row shapes, per species s: energy (n_structures, M_s); forces (3·n, M_s), F = −∂E/∂r, eV/Å per unit weight;
    strain (6·n_structures, M_s), ∂E/∂ε.
    """

    def __init__(self, term: SparseTerm, batch: Batch, env: Environments):
        self.term, self.batch, self.env = term, batch, env
        kinds = env.pairs.kinds
        self.members = [np.flatnonzero(kinds == s) for s in range(len(term.points))]
        self.place = np.empty(len(kinds), dtype=np.int64)
        for members in self.members:
            self.place[members] = np.arange(len(members))
        self.products = [env.X[m] @ x.T for m, x in zip(self.members, term.points, strict=True)]

    @cached_property
    def slopes(self) -> list[np.ndarray]:
        return [self.term.kernel.slope(u) for u in self.products]

    def atoms(self, s: int) -> np.ndarray:
        """(n_s, M_s) kernel values of the atoms of species s."""
        return self.term.kernel.value(self.products[s])

    def energy(self) -> list[np.ndarray]:
        rows = []
        for s, members in enumerate(self.members):
            sums = np.zeros((len(self.batch), len(self.term.points[s])))
            np.add.at(sums, self.batch.structure[members], self.atoms(s))
            rows.append(sums)
        return rows

    def forces(self, start: int, stop: int) -> list[np.ndarray]:
        """Force rows of atoms ``start:stop``, ordered atom, then axis."""
        rows = [np.zeros((stop - start, 3, len(x))) for x in self.term.points]
        for a in range(start, stop, BLOCK):
            block = DisplacedBlock(self.term.descriptor, self.env, a, min(a + BLOCK, stop))
            for s, x in enumerate(self.term.points):
                jacobian, centre, atom = block.of_species(s)
                products = (jacobian.reshape(-1, jacobian.shape[2]) @ x.T).reshape(len(centre), 3, len(x))
                cpu.scatter_rows(products, self.slopes[s], self.place[centre], atom - start, rows[s])
        return [r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]

    def strain(self) -> list[np.ndarray]:
        """∂E/∂ε rows of every structure, ordered structure, then Voigt component."""
        rows = [np.zeros((len(self.batch), 6, len(x))) for x in self.term.points]
        n = self.batch.n_atoms
        for a in range(0, n, 16 * BLOCK):
            b = min(a + 16 * BLOCK, n)
            jacobian = np.empty((b - a, 6, self.env.X.shape[1]))
            self.term.descriptor.strain_jacobian(a, b, self.env, jacobian)
            for s, x in enumerate(self.term.points):
                mine = self.members[s][np.searchsorted(self.members[s], a) : np.searchsorted(self.members[s], b)]
                products = (jacobian[mine - a].reshape(-1, jacobian.shape[2]) @ x.T).reshape(len(mine), 6, len(x))
                cpu.scatter_rows(products, -self.slopes[s], self.place[mine], self.batch.structure[mine], rows[s])
        return [r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]


class DisplacedBlock:
    """Jacobians ∂X_i/∂r_a of every centre i moved by atoms a of ``start:stop``, rows sorted by the centre's species."""

    def __init__(self, descriptor: SOAP, env: Environments, start: int, stop: int):
        offsets, neighbours, _, kinds = env.pairs
        first, last = offsets[start], offsets[stop]
        centre = np.concatenate([neighbours[first:last], np.arange(start, stop)])
        atom = np.concatenate([np.repeat(np.arange(start, stop), np.diff(offsets[start : stop + 1])), np.arange(start, stop)])
        order = np.argsort(kinds[centre], kind="stable")
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        self.centre, self.atom, self.kinds = centre[order], atom[order], kinds[centre[order]]
        self.jacobian = np.empty((len(order), 3, env.X.shape[1]))
        descriptor.jacobian(start, stop, env, rows, self.jacobian)

    def of_species(self, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(jacobian (m, 3, n_features), centre (m,), displaced atom (m,)) of the centres of species s."""
        a, b = np.searchsorted(self.kinds, [s, s + 1])
        return self.jacobian[a:b], self.centre[a:b], self.atom[a:b]
