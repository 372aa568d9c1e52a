"""Where energies, forces and stresses stand: in one vector of observations, and in tables of design rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr.labels import Labels
from soapkrr.lazy import cached_property


class Layout:
    """Places of the observations of some structures in one vector: structure after structure, each its energy, its forces atom by atom,
    its stress.

    Parameters
    ----------
    sizes : (n_structures,) numbers of atoms.  forces, stress : (n_structures,) whether they are observed; the energy always has a place.
    """

    def __init__(self, sizes: Sequence[int], forces: Sequence[bool], stress: Sequence[bool]):
        self.sizes, self.has_forces, self.has_stress = np.asarray(sizes), np.asarray(forces, dtype=bool), np.asarray(stress, dtype=bool)
        #: (n_structures, 3) numbers of observations of each of `labels.KINDS`.
        self.lengths = np.column_stack([np.ones_like(self.sizes), 3 * self.sizes * self.has_forces, 6 * self.has_stress])
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths.sum(axis=1))])

    @classmethod
    def of(cls, sizes: Sequence[int], labels: Sequence[Labels]) -> Layout:
        """The layout of labelled structures with so many atoms."""
        return cls(sizes, *([label.has(kind) for label in labels] for kind in ("forces", "stress")))

    @property
    def size(self) -> int:
        """Observations of all structures."""
        return int(self.offsets[-1])

    @cached_property
    def kinds(self) -> np.ndarray:
        """(size,) index into `labels.KINDS`."""
        return np.repeat(np.tile(range(3), len(self.sizes)), self.lengths.ravel())

    @property
    def energy(self) -> np.ndarray:
        """(n_structures,) places of the energies."""
        return self.offsets[:-1]

    @cached_property
    def forced(self) -> np.ndarray:
        """(n,) atoms, counted through all structures, whose forces are observed."""
        return np.flatnonzero(np.repeat(self.has_forces, self.sizes))

    @cached_property
    def forces(self) -> np.ndarray:
        """(n, 3) places of the forces on `forced` atoms."""
        starts = np.cumsum(self.sizes) - self.sizes
        of = np.repeat(np.arange(len(self.sizes)), self.sizes)[self.forced]
        return (self.offsets[of] + 1 + 3 * (self.forced - starts[of]))[:, None] + np.arange(3)

    @cached_property
    def stressed(self) -> np.ndarray:
        """(m,) structures whose stress is observed."""
        return np.flatnonzero(self.has_stress)

    @cached_property
    def stress(self) -> np.ndarray:
        """(m, 6) places of the stresses of `stressed` structures."""
        return (self.offsets[self.stressed + 1] - 6)[:, None] + np.arange(6)

    def places(self, structures: np.ndarray) -> np.ndarray:
        """(n, length) places of all observations of structures that have equally many."""
        length = int(self.lengths[structures[0]].sum())
        return self.offsets[structures][:, None] + np.arange(length)

    def components(self, kind: np.ndarray, structure: np.ndarray, component: np.ndarray) -> np.ndarray:
        """Places of components of ravelled labels; ``kind``: index into `labels.KINDS`. All three of one shape."""
        before = np.where(kind == 0, 0, np.where(kind == 1, 1, 1 + self.lengths[structure, 1]))
        return self.offsets[structure] + before + component


@dataclass(frozen=True, eq=False)
class Table:
    """Design rows of one kind of observation, each divided by its σ in units of the kind's noise level.

    Attributes
    ----------
    kind : one of `labels.KINDS`.
    structure : (m,) index of the structure of each row.
    sigma : (m,) σ of each row over the kind's noise level; of an energy times √N.
    array : (m, k + 1) rows and targets side by side, divided by ``sigma``; in Fortran order, for `linear.absorb`.
    prior : (m, n_terms) prior variances over ``sigma``², of unit signals; None where not asked for.
    """

    kind: str
    structure: np.ndarray
    sigma: np.ndarray
    array: np.ndarray
    prior: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.array)

    @property
    def rows(self) -> np.ndarray:
        """(m, k) rows over ``sigma``."""
        return self.array[:, :-1]

    @property
    def targets(self) -> np.ndarray:
        """(m,) targets over ``sigma``."""
        return self.array[:, -1]
