"""Design rows: energies, forces and stress of a batch as linear functionals of one term's features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from soapkrr import backends
from soapkrr.kernels import mixed_total, squares
from soapkrr.lazy import cached_property
from soapkrr.regression.terms import SparseTerm, total_priors
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

    def forces(self, start: int, stop: int, prior: np.ndarray | None = None) -> list[np.ndarray]:
        """Per species (3·n, M_s), of the forces F = −∂E/∂r on atoms ``start:stop``, ordered atom, then axis.

        Their prior variances, over δ², are added to ``prior`` (n, 3) where it is given: they need the same Jacobians.
        """
        rows = [self.xp.zeros((stop - start, 3, len(x))) for x in self.term.points]
        step = backends.of(self.env.X).DISPLACED
        for a in range(start, stop, step):
            block = self.env.displaced(a, min(a + step, stop))
            for s in range(len(rows)):
                jacobian, centre, atom = block.of_species(s)
                self._scatter(s, jacobian, centre, atom - start, rows[s])
                if prior is not None:
                    self._add_priors(jacobian, centre, atom - start, prior)
        return [r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]

    def strain(self, first: int, last: int, prior: np.ndarray | None = None) -> list[np.ndarray]:
        """Per species (6·n, M_s), of ∂E/∂ε of structures ``first:last``, ordered structure, then Voigt component.

        Their prior variances, over δ², are added to ``prior`` (n, 6) where it is given.
        """
        rows = [self.xp.zeros((last - first, 6, len(x))) for x in self.term.points]
        for a, b in self._whole(first, last, 16 * backends.of(self.env.X).DISPLACED):
            jacobian = self.env.strained(a, b)
            for s in range(len(rows)):
                mine = a + self.xp.flatnonzero(self.env.kinds[a:b] == s)
                self._scatter(s, jacobian[mine - a], mine, self.structure[mine] - first, rows[s])
                if prior is not None:
                    self._add_priors(jacobian[mine - a], mine, self.structure[mine] - first, prior)
        return [-r.reshape(len(r) * r.shape[1], r.shape[2]) for r in rows]

    def _whole(self, first: int, last: int, step: int) -> Iterator[tuple[int, int]]:
        """First and last atoms of blocks of whole structures, of ``step`` atoms where they are small."""
        offsets, a = self.batch.offsets, first
        for b in range(first + 1, last + 1):
            if b == last or offsets[b + 1] - offsets[a] > step:
                yield int(offsets[a]), int(offsets[b])
                a = b

    def energy_prior(self) -> np.ndarray:
        """(n_structures,) prior variances of the total energies, over δ²."""
        return total_priors(self.term.kernel, self.env.X, self.term.descriptor.kinds(self.batch.numbers), self.batch.offsets, 1)

    def _add_priors(self, jacobian, centre, target, prior) -> None:
        """prior[target] += Σ_ii' v_i (∂²κ/∂x_i∂x_i') v_i' of centres i, i' of one species, v = jacobian[:, b]."""
        order = self.xp.argsort(target, kind="stable")
        targets, first = np.unique(backends.host(target[order]), return_index=True)
        for t, mine in zip(targets.tolist(), np.split(backends.host(order), first)[1:], strict=True):
            mine = self.xp.asarray(mine)
            prior[t] += mixed_total(self.term.kernel, jacobian[mine].transpose(1, 0, 2), self.env.X[centre[mine]])

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
