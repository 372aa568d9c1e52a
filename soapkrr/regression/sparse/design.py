"""Design rows: energies, forces and stress of a batch as linear functionals of one term's features."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.environments import DisplacedBlock
from soapkrr.kernels import squares
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, add_rows


class DesignRows:
    """Kernel rows of one batch and one term: sums over atoms of κ(x_i, X_M) and its derivatives, for each species; `SparseTerm.whiten`
    makes features of them.
    """

    def __init__(self, term: SparseTerm, batch: Batch):
        self.term, self.batch = term, batch
        self.xp = xp = term.xp
        self.env = term.descriptor.environments(batch, xp)
        self.structure = xp.asarray(batch.structure)
        kinds = self.env.kinds
        self.members = [xp.flatnonzero(kinds == s) for s in range(len(term.points))]
        self.place = xp.empty(len(kinds), dtype=np.int64)
        for members in self.members:
            self.place[members] = xp.arange(len(members))

    @cached_property
    def jets(self):
        """Per species, kernel values and first derivatives (n_s, M_s)."""
        jets = []
        for s, (members, points) in enumerate(zip(self.members, self.term.points, strict=True)):
            x = self.env.X[members]
            jets.append(self.term.kernel.jet(x @ points.T, squares(x)[:, None], self.term.squares[s], 1))
        return jets

    def energy(self) -> list[np.ndarray]:
        """Per species (n_structures, M_s), of the total energies."""
        rows = []
        for s, members in enumerate(self.members):
            sums = self.xp.zeros((len(self.batch), len(self.term.points[s])))
            add_rows(sums, self.structure[members], self.jets[s].value)
            rows.append(sums)
        return rows

    def forces(self, start: int, stop: int) -> list[np.ndarray]:
        """Per species (3·n, M_s), of the forces F = −∂E/∂r on atoms ``start:stop``, ordered atom, then axis."""
        return self.forces_with(start, stop, lambda block: None)

    def forces_with(self, start: int, stop: int, also: Callable[[DisplacedBlock], object]) -> list[np.ndarray]:
        """`forces`; every block of Jacobians goes to ``also``, in order."""
        rows = [self.xp.zeros((stop - start, 3, len(x))) for x in self.term.points]
        step = backends.of(self.env.X).DISPLACED
        for a in range(start, stop, step):
            block = self.env.displaced(a, min(a + step, stop))
            for s in range(len(rows)):
                jacobian, centre, atom = block.of_species(s)
                self._scatter(s, jacobian, centre, atom - start, rows[s])
            also(block)
        return [r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]

    def strain(self) -> list[np.ndarray]:
        """Per species (6·n_structures, M_s), of ∂E/∂ε, ordered structure, then Voigt component."""
        rows = [self.xp.zeros((len(self.batch), 6, len(x))) for x in self.term.points]
        n, step = self.batch.n_atoms, 16 * backends.of(self.env.X).DISPLACED
        for a in range(0, n, step):
            b = min(a + step, n)
            jacobian = self.env.strained(a, b)
            for s in range(len(rows)):
                mine = a + self.xp.flatnonzero(self.env.kinds[a:b] == s)
                self._scatter(s, jacobian[mine - a], mine, self.structure[mine], rows[s])
        return [-r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]

    def _scatter(self, s: int, jacobian, centre, target, rows) -> None:
        """rows[target] −= (∂κ/∂x · jacobian) of centres of species s; jacobian (m, k, n_features), rows (n, k, M_s)."""
        if not len(centre):
            return
        m, k, d = jacobian.shape
        products = (jacobian.reshape(-1, d) @ self.term.points[s].T).reshape(m, k, -1)
        jet, place = self.jets[s], self.place[centre]
        backends.of(rows).regression.scatter_rows(products, jet.u, place, target, rows)
        if jet.a is not None:
            along = 2 * self.xp.einsum("ekf,ef->ek", jacobian, self.env.X[centre])
            backends.of(rows).regression.scatter_norms(along, jet.a, place, target, rows)
