"""How far an atom's surroundings are from all that were fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from soapkrr.lazy import cached_property
from soapkrr.regression import stored

#: Rate of false alarms: part of the training atoms that are above a threshold.
ALARMS = 0.01

#: Principal components in which distances are measured; surroundings kept of each species.
DIMENSIONS, KEPT = 8, 5000


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Training surroundings of one species, and what one in a hundred of its training atoms exceeds.

    Attributes
    ----------
    points : (n, p) projected descriptors.  structure, atom : (n,) where they are, structures as they were given to the fit.
    energy : posterior standard deviation of an atom's energy, eV, of novelty 1.
    force : expected error of a force, norm of the three components without the atom's own structure, eV/Å, of novelty 1.
    distance : to the nearest point of another structure.
    """

    points: np.ndarray
    structure: np.ndarray
    atom: np.ndarray
    energy: float
    force: float
    distance: float

    @classmethod
    def learnt(cls, y: np.ndarray, structure: np.ndarray, atom: np.ndarray, energies_std: np.ndarray, forces: np.ndarray) -> Neighbourhood:
        """Of projected descriptors of training atoms, in order of their structures, the posterior standard deviations of their energies and
        the expected errors of their forces; none where none are known.
        """
        chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), KEPT)).astype(int))
        points, structure, atom = y[chosen, :DIMENSIONS], structure[chosen], atom[chosen]
        return cls(points, structure, atom, *map(_threshold, (energies_std, forces, _without_own_structure(points, structure))))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    def nearest(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) distance, 1 at the threshold, and place among ``points`` of the nearest one, of projected descriptors (n, k)."""
        if not self.points.shape[1]:  # all training surroundings are the same
            return np.zeros(len(y)), np.zeros(len(y), dtype=int)
        distance, place = self._tree.query(y[:, : self.points.shape[1]])
        return distance / self.distance, place

    def state(self) -> dict:
        """For a model file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _threshold(values: np.ndarray) -> float:
    """What one in a hundred values exceeds; never zero."""
    return max(float(np.quantile(values, 1 - ALARMS)), 1e-9) if len(values) else 1e-9


def _without_own_structure(points: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest one of another structure; of those that have one."""
    apart = np.full(len(points), np.inf)
    if not points.shape[1]:
        return apart[:0]
    left, k, tree = np.arange(len(points)), 2, cKDTree(points)
    while len(left) and k <= 2 * len(points):
        distance, place = tree.query(points[left], k=min(k, len(points)))
        other = structure[place] != structure[left][:, None]
        found = other.any(axis=1)
        apart[left[found]] = distance[found, other[found].argmax(axis=1)]
        left, k = left[~found], 4 * k
    return apart[np.isfinite(apart)]


def restored_neighbourhood(state, name: str) -> Neighbourhood:
    """From a model file."""
    given = stored.mapping(state, name)
    points = stored.array(given["points"], f"{name}.points", shape=(None, None))
    places = [stored.array(given[part], f"{name}.{part}", kind="i", shape=(len(points),)) for part in ("structure", "atom")]
    thresholds = [stored.number(given[part], f"{name}.{part}", positive=True) for part in ("energy", "force", "distance")]
    return Neighbourhood(points, *places, *thresholds)
