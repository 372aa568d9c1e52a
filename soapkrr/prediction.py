"""What a model predicts, as one result type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted values and standard deviations of a list of structures; std attributes are None when not asked for.

    Attributes
    ----------
    energy, energy_std : (n_structures,) eV.
    energies, energies_std : lists of (n_atoms,) eV, per atom.
    forces, forces_std : lists of (n_atoms, 3) eV/Å.
    stress, stress_std : (n_structures, 6) eV/Å³, ASE sign and Voigt order, NaN where there is no three-dimensional cell.
    """

    energy: np.ndarray
    energies: list[np.ndarray]
    forces: list[np.ndarray]
    stress: np.ndarray
    energy_std: np.ndarray | None = None
    energies_std: list[np.ndarray] | None = None
    forces_std: list[np.ndarray] | None = None
    stress_std: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def of(self, indices: Sequence[int]) -> Prediction:
        """Prediction of some of the structures."""

        def pick(value):
            return [value[s] for s in indices] if isinstance(value, list) else value if value is None else value[list(indices)]

        return Prediction(**{name: pick(getattr(self, name)) for name in self.__dataclass_fields__})

    @classmethod
    def concatenate(cls, parts: list[Prediction]) -> Prediction:
        """Join predictions of consecutive groups of structures."""

        def join(name):
            values = [getattr(part, name) for part in parts]
            if values[0] is None:
                return None
            return sum(values, []) if isinstance(values[0], list) else np.concatenate(values)

        return cls(**{name: join(name) for name in cls.__dataclass_fields__})
