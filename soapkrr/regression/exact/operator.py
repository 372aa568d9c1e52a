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
from soapkrr.descriptors.environments import Environments
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.structures import Batch, split_by_atoms
from soapkrr.threads import thread_map


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What one term's descriptor sees of all structures; kept for as long as weights change.

    Attributes
    ----------
    blocks : (start, stop, (X, state), members per species) of consecutive atoms.  places : per species, its atoms.
    points : per species (n_s, d) X.
    """

    term: Term
    environments: Environments
    blocks: list[tuple]
    places: list[np.ndarray]
    points: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, term: Term, batch: Batch, threads: int | None, xp) -> Surroundings:
        """Descriptors of every atom, block by block."""
        env, kinds = term.descriptor.environments(batch, xp), term.descriptor.kinds(batch.numbers)
        species, step = range(term.descriptor.n_kinds), backends.loops(xp).EVALUATED

        def one(start):
            stop = min(start + step, batch.n_atoms)
            members = [xp.asarray(np.flatnonzero(kinds[start:stop] == s)) for s in species]
            return start, stop, env.block(start, stop), members

        blocks = list(thread_map(one, range(0, batch.n_atoms, step), threads))
        points = tuple(xp.concatenate([values[0][members[s]] for _, _, values, members in blocks]) for s in species)
        return cls(term, env, blocks, [xp.asarray(np.flatnonzero(kinds == s)) for s in species], points)

    def along(self, directions: np.ndarray, threads: int | None) -> np.ndarray:
        """(n_atoms, d) derivative of all descriptors along ``directions``, as of `Environments.directions`."""
        parts = thread_map(lambda block: self.environments.jvp(*block[:3], directions), self.blocks, threads)
        return self.environments.xp.concatenate(list(parts))

    def observe(self, part, threads: int | None) -> list[np.ndarray]:
        """Energies (n_atoms,), forces and ∂E/∂ε of a part, as of `evaluate.evaluate`; NumPy arrays."""
        env = self.environments
        energies, gradient = env.xp.empty(env.batch.n_atoms), env.gradient()

        def one(block):
            start, stop, values, members = block
            X = values[0]
            G = env.xp.zeros_like(X)
            for s, here in enumerate(members):
                if len(here):
                    energies[start + here], G[here] = part.evaluate(s, X if len(here) == len(X) else X[here])
            env.pull_back(start, stop, values, G, gradient)

        for _ in thread_map(one, self.blocks, threads):
            pass
        return [backends.host(array) for array in (energies, *env.forces_and_strain(gradient))]


class CovarianceOperator:
    """K of all observations of some structures, unit of the labels, in the order of `layout.Layout`.

    Parameters
    ----------
    terms : with descriptors that have learnt.  structures : what is observed.
    threads : threads of each product; on a GPU one.  xp : library of the arrays that products are made with; vectors are NumPy's.
    """

    def __init__(self, terms: Sequence[Term], structures: ObservedStructures, threads: int | None = None, xp=np):
        self.terms, self.xp, self.threads = list(terms), xp, backends.threads(xp, threads)
        self.frames, self.batch, self.layout = structures.frames, Batch.from_atoms(structures.frames), structures.layout
        self.seen = [Surroundings.of(t, self.batch, self.threads, xp) for t in self.terms]

    @property
    def size(self) -> int:
        """Observations."""
        return self.layout.size

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """K w (size,)."""
        return self.observe(self.collapse(weights))

    def collapse(self, weights: np.ndarray) -> list[CollapsedPart]:
        """The potential of the weights (size,) of all observations."""
        xp, batch, layout = self.xp, self.batch, self.layout
        moves, strain = np.zeros((batch.n_atoms, 3)), np.zeros((len(batch), 6))
        moves[layout.forced] = -weights[layout.forces]
        strain[layout.stressed] = weights[layout.stress] / batch.volumes[layout.stressed, None]
        # Off-diagonal components of a symmetric ε occur twice.
        tensors = (strain * [1, 1, 1, 0.5, 0.5, 0.5])[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3)
        moves, tensors = xp.asarray(moves), xp.asarray(tensors)
        a = xp.asarray(weights[layout.energy])[xp.asarray(batch.structure)]
        parts = []
        for seen in self.seen:
            term = seen.term
            B = seen.along(seen.environments.directions(moves, tensors), self.threads)
            values, slopes = (tuple(part[at] for at in seen.places) for part in (a, B))
            parts.append(CollapsedPart(term.descriptor, term.kernel, term.signal, seen.points, values, slopes))
        return parts

    def observe(self, parts: Sequence) -> np.ndarray:
        """(size,) energies, forces and stresses of a potential with one part (as of `evaluate.evaluate`) for each term."""
        batch, layout, out = self.batch, self.layout, np.empty(self.size)
        sums = [seen.observe(part, self.threads) for seen, part in zip(self.seen, parts, strict=True)]
        energies, forces, strain = (sum(part) for part in zip(*sums, strict=True))
        out[layout.energy] = np.add.reduceat(energies, batch.offsets[:-1])
        out[layout.forces] = forces[layout.forced]
        out[layout.stress] = strain[layout.stressed] / batch.volumes[layout.stressed, None]
        return out

    def design_rows(self, terms: Sequence[SparseTerm]) -> np.ndarray:
        """(size, r) energies, forces and stresses of every feature of sparse terms, side by side."""
        columns = np.cumsum([0] + [t.rank for t in terms])
        rows, index, layout = self.xp.empty((self.size, int(columns[-1]))), self.xp.asarray, self.layout

        def fill(group):
            first, frames = group
            last, batch = first + len(frames), Batch.from_atoms(frames, first)
            atom = self.batch.offsets[first]
            forced = slice(*np.searchsorted(layout.forced, self.batch.offsets[[first, last]]))
            stressed = slice(*np.searchsorted(layout.stressed, [first, last]))
            for term, a, b in zip(terms, columns, columns[1:], strict=False):
                design = DesignRows(term, batch)
                rows[index(layout.energy[first:last]), a:b] = term.whiten(design.energy())
                if forced.start < forced.stop:
                    forces = term.whiten(design.forces(0, batch.n_atoms)).reshape(-1, 3, b - a)
                    rows[index(layout.forces[forced]), a:b] = forces[index(layout.forced[forced] - atom)]
                if stressed.start < stressed.stop:
                    strain, at = term.whiten(design.strain(0, len(design.batch))).reshape(-1, 6, b - a), layout.stressed[stressed]
                    rows[index(layout.stress[stressed]), a:b] = strain[index(at - first)] / index(self.batch.volumes[at])[:, None, None]

        groups = split_by_atoms(self.frames, backends.of(rows).GROUP)
        for _ in thread_map(fill, groups, self.threads):
            pass
        return rows
