"""The covariance of all observations as an operator: K w without K.

The weights w of the observations collapse onto the environments they act on, E(x) = δ² Σ_j [a_j κ(x, x_j) + b_j·∂κ(x, x_j)/∂x_j], with
a_j the weight of the energy that atom j belongs to and b_j = Σ_L w_L ∂x_j/∂L the derivative of x_j along a displacement −w of the atoms and
a strain w/V. The energies, forces and stresses of that potential on the same structures are K w. Memory is that of the descriptors,
8·n·d operations for each pair of n environments with d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.backends.arrays import PairArrays
from soapkrr.parallel import thread_map
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.design import DesignRows
from soapkrr.regression.observed import ObservedStructures
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.structures import Batch, Pairs, forces_and_strain, split_by_atoms


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What one term's descriptor sees of all structures; kept for as long as weights change.

    Attributes
    ----------
    blocks : (start, stop, X, state, members per species) of consecutive atoms.  places : per species, its atoms.
    points : per species (n_s, d) X.
    """

    term: Term
    pairs: Pairs
    arrays: PairArrays
    blocks: list[tuple]
    places: list[np.ndarray]
    points: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, term: Term, batch: Batch, pairs: Pairs, threads: int | None) -> Surroundings:
        """Descriptors of every atom, block by block."""
        arrays, kinds = term.descriptor.arrays(batch, pairs), term.descriptor.kinds(batch.numbers)
        xp, species = backends.namespace(pairs.vectors), range(len(term.descriptor.species))
        step = backends.of(pairs.vectors).EVALUATED

        def one(start):
            stop = min(start + step, batch.n_atoms)
            members = [xp.asarray(np.flatnonzero(kinds[start:stop] == s)) for s in species]
            return start, stop, *term.descriptor.compute(start, stop, arrays), members

        blocks = list(thread_map(one, range(0, batch.n_atoms, step), threads))
        points = tuple(xp.concatenate([X[members[s]] for _, _, X, _, members in blocks]) for s in species)
        return cls(term, pairs, arrays, blocks, [xp.asarray(np.flatnonzero(kinds == s)) for s in species], points)

    def along(self, direction: np.ndarray, threads: int | None) -> np.ndarray:
        """(n_atoms, d) derivative of all descriptors along a direction (n_pairs, 3) of the pair vectors."""
        descriptor = self.term.descriptor

        def one(block):
            start, stop, X, state, _ = block
            return descriptor.directional(start, stop, self.arrays, X, state, direction)

        return backends.namespace(direction).concatenate(list(thread_map(one, self.blocks, threads)))


class CovarianceOperator:
    """K of all observations of some structures, unit of the labels, in the order of `observed.Layout`.

    Parameters
    ----------
    terms : with descriptors that have learnt.  structures : what is observed.
    threads : threads of each product; on a GPU one.  xp : library of the arrays that products are made with; vectors are NumPy's.
    """

    def __init__(self, terms: Sequence[Term], structures: ObservedStructures, threads: int | None = None, xp=np):
        self.terms, self.xp, self.threads = list(terms), xp, threads if xp is np else 1
        self.frames, self.batch = structures.frames, Batch.from_atoms(structures.frames)
        lists = {r_cut: self.batch.pairs(r_cut, xp=xp) for r_cut in {t.descriptor.r_cut for t in self.terms}}
        self.seen = [Surroundings.of(t, self.batch, lists[t.descriptor.r_cut], self.threads) for t in self.terms]
        sizes, forces, stress = self.batch.sizes, np.array(structures.forces, dtype=bool), np.array(structures.stress, dtype=bool)
        self._offsets = np.concatenate([[0], np.cumsum(1 + 3 * sizes * forces + 6 * stress)])
        self._forced = np.flatnonzero(forces[self.batch.structure])
        of, place = self.batch.structure[self._forced], self._forced - self.batch.offsets[self.batch.structure[self._forced]]
        self._force_rows = (self._offsets[of] + 1 + 3 * place)[:, None] + np.arange(3)
        self._stressed = np.flatnonzero(stress)
        self._stress_rows = (self._offsets[self._stressed + 1] - 6)[:, None] + np.arange(6)

    @property
    def size(self) -> int:
        """Observations."""
        return int(self._offsets[-1])

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """K w (size,)."""
        return self.observe(self.collapse(weights))

    def collapse(self, weights: np.ndarray) -> list[CollapsedPart]:
        """The potential of the weights (size,) of all observations."""
        xp, batch = self.xp, self.batch
        moves, strain = np.zeros((batch.n_atoms, 3)), np.zeros((len(batch), 6))
        moves[self._forced] = -weights[self._force_rows]
        strain[self._stressed] = weights[self._stress_rows] / batch.volumes[self._stressed, None]
        # Off-diagonal components of a symmetric ε occur twice.
        tensors = (strain * [1, 1, 1, 0.5, 0.5, 0.5])[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)
        moves, tensors, structure = xp.asarray(moves), xp.asarray(tensors), xp.asarray(batch.structure)
        a = xp.asarray(weights[self._offsets[:-1]])[structure]
        directions: dict[float, np.ndarray] = {}
        parts = []
        for seen in self.seen:
            r_cut, pairs, term = seen.term.descriptor.r_cut, seen.pairs, seen.term
            if r_cut not in directions:
                stretched = xp.einsum("pab,pb->pa", tensors[structure[pairs.i]], pairs.vectors)
                directions[r_cut] = moves[pairs.j] - moves[pairs.i] + stretched
            B = seen.along(directions[r_cut], self.threads)
            values, slopes = (tuple(part[at] for at in seen.places) for part in (a, B))
            parts.append(CollapsedPart(term.descriptor, term.kernel, term.signal, seen.points, values, slopes))
        return parts

    def observe(self, parts: Sequence) -> np.ndarray:
        """(size,) energies, forces and stresses of a potential with one part (as of `mean.evaluate`) for each term."""
        batch, out, sums = self.batch, np.empty(self.size), []
        for seen, part in zip(self.seen, parts, strict=True):
            energies, gradient = self.xp.empty(batch.n_atoms), self.xp.empty((len(seen.pairs.j), 3))

            def one(block, part=part, seen=seen, energies=energies, gradient=gradient):
                start, stop, X, state, members = block
                G = backends.namespace(X).zeros_like(X)
                for s, here in enumerate(members):
                    if len(here):
                        energies[start + here], G[here], _ = part.evaluate(s, X if len(here) == len(X) else X[here], False)
                part.descriptor.pullback(start, stop, seen.arrays, X, state, G, gradient)

            for _ in thread_map(one, seen.blocks, self.threads):
                pass
            sums.append([backends.host(array) for array in (energies, *forces_and_strain(batch, seen.pairs, gradient))])
        energies, forces, strain = (sum(part) for part in zip(*sums, strict=True))
        out[self._offsets[:-1]] = np.add.reduceat(energies, batch.offsets[:-1])
        out[self._force_rows] = forces[self._forced]
        out[self._stress_rows] = strain[self._stressed] / batch.volumes[self._stressed, None]
        return out

    def design_rows(self, terms: Sequence[SparseTerm]) -> np.ndarray:
        """(size, r) energies, forces and stresses of every feature of sparse terms, side by side."""
        columns = np.cumsum([0] + [t.rank for t in terms])
        rows, index = self.xp.empty((self.size, int(columns[-1]))), self.xp.asarray

        def fill(group):
            first, frames = group
            last, batch = first + len(frames), Batch.from_atoms(frames, first)
            atom = self.batch.offsets[first]
            forced = slice(*np.searchsorted(self._forced, self.batch.offsets[[first, last]]))
            stressed = slice(*np.searchsorted(self._stressed, [first, last]))
            for term, a, b in zip(terms, columns, columns[1:], strict=False):
                design = DesignRows(term, batch, first)
                rows[index(self._offsets[first:last]), a:b] = term.whiten(design.energy())
                if forced.start < forced.stop:
                    forces = term.whiten(design.forces(0, batch.n_atoms)).reshape(-1, 3, b - a)
                    rows[index(self._force_rows[forced]), a:b] = forces[index(self._forced[forced] - atom)]
                if stressed.start < stressed.stop:
                    strain, at = term.whiten(design.strain()).reshape(-1, 6, b - a), self._stressed[stressed]
                    rows[index(self._stress_rows[stressed]), a:b] = strain[index(at - first)] / index(self.batch.volumes[at])[:, None, None]

        groups = split_by_atoms(self.frames, backends.of(rows).GROUP)
        for _ in thread_map(fill, groups, self.threads):
            pass
        return rows
