"""Surroundings of the atoms of a batch as a descriptor sees them: values, and the way of their derivatives to forces and strain.

The descriptor knows ∂x/∂r_ij; what pairs, atoms and cells have to do with each other stands here, once. A descriptor whose values do not
come from pairs alone (a part in reciprocal space, say) has a subclass of `Environments` of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.backends.arrays import PairArrays
from soapkrr.lazy import cached_property
from soapkrr.structures import Batch, forces_and_strain

if TYPE_CHECKING:
    from soapkrr.descriptors.base import Descriptor


class Environments:
    """Descriptors of the atoms of a batch: of all at once as ``X`` and ``state``, or block of atoms by block.

    Parameters
    ----------
    descriptor : whose values these are.  batch : the structures.  pairs : neighbours within its cutoff, and species.
    values : X (n_atoms, n_features) and the descriptor's own state of every atom where they are known; computed when first asked for.
    """

    def __init__(self, descriptor: Descriptor, batch: Batch, pairs: PairArrays, values: tuple | None = None):
        self.descriptor, self.batch, self.pairs = descriptor, batch, pairs
        if values is not None:
            self.values = values

    @cached_property
    def values(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """X (n_atoms, n_features), and the state of every atom."""
        return self.block(0, self.batch.n_atoms)

    @property
    def X(self) -> np.ndarray:
        """(n_atoms, n_features) descriptors."""
        return self.values[0]

    @property
    def state(self) -> tuple[np.ndarray, ...]:
        """Arrays of the descriptor's own, first axis atoms."""
        return self.values[1]

    @property
    def kinds(self) -> np.ndarray:
        """(n_atoms,) kind of each atom as a centre."""
        return self.descriptor.kind_of(self.pairs.kinds)

    @cached_property
    def centres(self) -> np.ndarray:
        """(n_pairs,) central atom of each pair."""
        return self.xp.searchsorted(self.pairs.offsets, self.xp.arange(len(self.pairs.neighbours)), side="right") - 1

    @cached_property
    def pair_jacobian(self) -> np.ndarray:
        """(n_pairs, 3, n_features) ∂X_i/∂r_ij of every pair; for descriptors without a faster way."""
        return self.descriptor.pair_jacobian(self)

    @cached_property
    def reverse(self) -> np.ndarray:
        """(n_pairs,) place of the pair that leads back, from j to i by −r_ij."""
        offsets, j, r, i = map(np.asarray, (*backends.host(self.pairs)[:3], backends.host(self.centres)))
        r = np.round(r, 9)
        there, back = np.lexsort(np.column_stack([r, j, i]).T), np.lexsort(np.column_stack([-r, i, j]).T)
        reverse = np.empty_like(there)
        reverse[there] = back
        # Rounding at the last digit may change the order of pairs that are nearly alike: those are looked for one by one.
        for p in np.flatnonzero(np.abs(r + r[reverse]).max(axis=1, initial=0.0) > 1e-6):
            a, b = offsets[j[p]], offsets[j[p] + 1]
            reverse[p] = a + np.argmin(np.where(j[a:b] == i[p], np.square(r[a:b] + r[p]).sum(axis=1), np.inf))
        return self.xp.asarray(reverse)

    @property
    def xp(self):
        """The library of its arrays."""
        return backends.namespace(self.pairs.vectors)

    def inner(self, descriptor: Descriptor, X: np.ndarray, state: tuple) -> Environments:
        """The same surroundings as another descriptor sees them, whose values are known."""
        return Environments(descriptor, self.batch, self.pairs, (X, state))

    def block(self, start: int, stop: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """X and state of atoms ``start:stop``, not kept."""
        return self.descriptor.compute(start, stop, self.pairs)

    def gradient(self) -> np.ndarray:
        """An array for `pull_back` to fill, block by block."""
        return self.xp.empty((len(self.pairs.neighbours), 3))

    def pull_back(self, start: int, stop: int, values: tuple, of_values: np.ndarray, gradient: np.ndarray) -> None:
        """Put what ∂E/∂X ``of_values`` of atoms ``start:stop`` means for the pairs into ``gradient``; ``values`` as of `block`."""
        X, state = values
        self.descriptor.pullback(start, stop, self.pairs, X, state, of_values, gradient)

    def forces_and_strain(self, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Forces (n_atoms, 3) and ∂E/∂ε (n_structures, 6) once every block is pulled back."""
        return forces_and_strain(self.batch, self.pairs, gradient)

    def directions(self, moves: np.ndarray, strain: np.ndarray) -> np.ndarray:
        """What `jvp` takes: (n_pairs, 3) changes of pair vectors where atoms move by ``moves`` (n_atoms, 3) and structures are strained
        by ``strain`` (n_structures, 3, 3).
        """
        i, structure = self.centres, self.xp.asarray(self.batch.structure)
        stretched = self.xp.einsum("pab,pb->pa", strain[structure[i]], self.pairs.vectors)
        return moves[self.pairs.neighbours] - moves[i] + stretched

    def jvp(self, start: int, stop: int, values: tuple, directions: np.ndarray) -> np.ndarray:
        """(stop − start, n_features) derivative of X along ``directions``, as `directions` gives them."""
        X, state = values
        return self.descriptor.jvp(start, stop, self.pairs, X, state, directions)

    def displaced(self, start: int, stop: int) -> DisplacedBlock:
        """Derivatives of all X by the positions of atoms ``start:stop``."""
        return DisplacedBlock(self, start, stop)

    def strained(self, start: int, stop: int) -> np.ndarray:
        """(stop − start, 6, n_features) derivatives ∂X/∂ε of atoms ``start:stop``, Voigt order."""
        out = self.xp.empty((stop - start, 6, self.descriptor.n_features))
        self.descriptor.strain_jacobian(start, stop, self, out)
        return out


class DisplacedBlock:
    """Jacobians ∂X_i/∂r_a of every centre i moved by atoms a of ``start:stop``, rows sorted by the centre's kind."""

    def __init__(self, env: Environments, start: int, stop: int):
        offsets, neighbours, kinds = env.pairs.offsets, env.pairs.neighbours, env.kinds
        xp, first, last = env.xp, int(offsets[start]), int(offsets[stop])
        own = xp.arange(start, stop)
        centre = xp.concatenate([neighbours[first:last], own])
        atom = xp.concatenate([xp.searchsorted(offsets, xp.arange(first, last), side="right") - 1, own])
        order = xp.argsort(kinds[centre], kind="stable")
        rows = xp.empty_like(order)
        rows[order] = xp.arange(len(order))
        self.centre, self.atom = centre[order], atom[order]
        self.bounds = [int(n) for n in xp.searchsorted(kinds[self.centre], xp.arange(env.descriptor.n_kinds + 1))]
        self.jacobian = xp.empty((len(order), 3, env.descriptor.n_features))
        env.descriptor.jacobian(start, stop, env, rows, self.jacobian)

    def of_species(self, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(jacobian (m, 3, n_features), centre (m,), displaced atom (m,)) of the centres of kind s."""
        a, b = self.bounds[s : s + 2]
        return self.jacobian[a:b], self.centre[a:b], self.atom[a:b]
