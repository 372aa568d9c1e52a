"""Candidates that are the same structure: the same surroundings of all atoms, whatever their order, orientation or supercell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import gcd

import numpy as np
from ase import Atoms
from scipy.spatial import KDTree

from soapkrr.descriptors.base import Descriptor
from soapkrr.structures import Batch

#: Differences of atoms' energies (eV) and of the sizes of their forces (eV/Å) up to which two structures are looked at more closely.
ENERGIES, FORCES = 0.02, 0.2

#: Parts of the atoms of a species at which energies and forces are compared.
QUANTILES = np.linspace(0.0, 1.0, 5)


def fingerprint(atoms: Atoms, p) -> np.ndarray:
    """What a prediction of one structure says of it apart from order, orientation and supercell: quantiles by species, in units above."""
    energies, forces = p.energies[0], np.linalg.norm(p.forces[0], axis=1)
    parts = []
    for z in np.unique(atoms.numbers):
        mine = atoms.numbers == z
        for values, unit in ((energies, ENERGIES), (forces, FORCES)):
            parts.append(np.quantile(values[mine], QUANTILES, method="inverted_cdf") / unit)  # the same of a supercell
    return np.concatenate(parts)


def composition(numbers: np.ndarray) -> tuple:
    """Equal for structures of one formula unit, and of one kind of supercell of it."""
    species, counts = np.unique(numbers, return_counts=True)
    unit = gcd(*counts.tolist())
    return tuple(species.tolist()), tuple((counts // unit).tolist())


def duplicates(fingerprints: Sequence[np.ndarray], compositions: Sequence[tuple], alike: Callable[[int, int], bool]) -> dict[int, int]:
    """{structure: earlier structure that it is the same as}.

    Parameters
    ----------
    fingerprints, compositions : of n structures.  alike : whether two are the same, asked where the fingerprints are within 1.
    """
    found: dict[int, int] = {}
    groups: dict[tuple, list[int]] = {}
    for k, kind in enumerate(compositions):
        groups.setdefault(kind, []).append(k)
    for members in groups.values():
        if len(members) > 1:
            tree = KDTree(np.array([fingerprints[k] for k in members]))
            near: dict[int, list[int]] = {}
            for a, b in sorted(map(tuple, tree.query_pairs(1.0, p=np.inf, output_type="ndarray").tolist())):
                near.setdefault(members[b], []).append(members[a])
            for k in sorted(near):
                same = next((j for j in near[k] if j not in found and alike(j, k)), None)
                if same is not None:
                    found[k] = same
    return found


class Alike:
    """Whether two structures have the same surroundings: each atom of one has, in the other, an atom of its species whose descriptor is
    within ``tolerance`` times the length of its own."""

    def __init__(self, descriptors: Sequence[Descriptor], tolerance: float, structure: Callable[[int], Atoms]):
        self.descriptor = max(descriptors, key=lambda descriptor: descriptor.n_features)
        self.tolerance, self.structure = tolerance, structure
        self._kept = lru_cache(maxsize=256)(self._described)

    def __call__(self, a: int, b: int) -> bool:
        """Whether structures a and b are the same."""
        of_a, of_b = self._kept(a), self._kept(b)
        return of_a.keys() == of_b.keys() and all(self._same(of_a[z], of_b[z]) for z in of_a)

    def _described(self, k: int) -> dict[int, np.ndarray]:
        """{species: descriptors of its atoms}."""
        atoms = self.structure(k)
        X, _ = self.descriptor.environments(Batch.from_atoms([atoms]), np).block(0, len(atoms))
        return {int(z): X[atoms.numbers == z] for z in np.unique(atoms.numbers)}

    def _same(self, X: np.ndarray, Y: np.ndarray) -> bool:
        x, y = np.einsum("id,id->i", X, X), np.einsum("id,id->i", Y, Y)
        distance = x[:, None] + y - 2 * X @ Y.T
        limit = self.tolerance**2
        return bool((distance.min(axis=1) <= limit * x).all() and (distance.min(axis=0) <= limit * y).all())
