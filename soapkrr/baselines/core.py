"""Soft walls between atoms that come closer to each other than any in the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from soapkrr.baselines.base import Baseline
from soapkrr.errors import InputError, require_positive
from soapkrr.lazy import cached_property
from soapkrr.structures import Batch, Mean, forces_and_strain

#: Width of the onset of a wall, in units of the distance where it starts.
ONSET = 0.02


@dataclass(frozen=True)
class CoreRepulsion(Baseline):
    """Repulsion of pairs closer than a distance d of their species, E = ½ Σ_ij K δ³/(δ + w), δ = d − r_ij > 0, w = d/50.

    Twice continuously differentiable, zero from d on, and ½ K δ² for each atom of a pair well below. Where no training structure has a pair
    closer than d it changes nothing that is learnt: it only keeps atoms from falling onto each other where there are no data.

    Parameters
    ----------
    distances : {"A-B": d, Å}, for each pair of species that repel.
    stiffness : {"A-B": K, eV/Å²}, for the same pairs.

    Raises
    ------
    InputError : a name is not a pair of elements, the pairs differ, or a number is not positive.

    Examples
    --------
    >>> from ase import Atoms
    >>> wall = CoreRepulsion({"Si-Si": 1.9}, {"Si-Si": 50.0})
    >>> from soapkrr.structures import Batch
    >>> far, near = Atoms("Si2", [[0, 0, 0], [0, 0, 2.0]]), Atoms("Si2", [[0, 0, 0], [0, 0, 0.9]])
    >>> [float(round(wall.evaluate(Batch.from_atoms([atoms])).energies.sum(), 1)) for atoms in (far, near)]
    [0.0, 48.2]
    """

    distances: Mapping[str, float]
    stiffness: Mapping[str, float]

    def __post_init__(self):
        if not (isinstance(self.distances, Mapping) and isinstance(self.stiffness, Mapping)) or set(self.distances) != set(self.stiffness):
            raise InputError("`distances` and `stiffness` must be mappings of the same pairs of species, such as {'Si-O': 1.4}.")
        for name in self.distances:
            if not isinstance(name, str) or len(parts := name.split("-")) != 2 or not set(parts) <= set(atomic_numbers):
                raise InputError(f"`distances` names {name!r}, expected two elements as in 'Si-O'.")
            require_positive(
                **{f"distances[{name!r}]": self.distances[name], f"stiffness[{name!r}]": self.stiffness[name]},
            )

    def __hash__(self):
        return hash((tuple(sorted(self.distances.items())), tuple(sorted(self.stiffness.items()))))

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """(119, 119) distances and stiffnesses by atomic numbers, zero where there is no wall."""
        tables = np.zeros((2, 119, 119))
        for name, distance in self.distances.items():
            a, b = (atomic_numbers[symbol] for symbol in name.split("-"))
            tables[:, a, b] = tables[:, b, a] = distance, self.stiffness[name]
        return tables[0], tables[1]

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`."""
        distance, stiffness = self._tables
        present = np.unique(batch.numbers)
        farthest = float(distance[np.ix_(present, present)].max())
        if farthest == 0:
            return Mean(np.zeros(batch.n_atoms), np.zeros((batch.n_atoms, 3)), np.zeros((len(batch), 6)))
        pairs = batch.close_pairs(farthest)
        kinds, r = (batch.numbers[pairs.i], batch.numbers[pairs.j]), np.linalg.norm(pairs.vectors, axis=1)
        value, slope = onset(distance[kinds], r)
        energies = 0.5 * np.bincount(pairs.i, stiffness[kinds] * value, minlength=batch.n_atoms)
        return Mean(energies, *forces_and_strain(batch, pairs, (0.5 * stiffness[kinds] * slope / r)[:, None] * pairs.vectors))


def onset(distance: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (Å²) and slope (Å) of pairs at distances r for a stiffness of 1, of walls that start at ``distance``, Å."""
    depth, width = np.maximum(distance - r, 0.0), ONSET * np.maximum(distance, 1e-3)
    value = depth**3 / (depth + width)
    return value, -(depth**2) * (2 * depth + 3 * width) / (depth + width) ** 2
