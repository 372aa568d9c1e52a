"""What a model predicts, as one result type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr.errors import InputError

#: Quantities that have a predicted standard deviation.
UNCERTAINTIES = ("energy", "energies", "forces", "stress")


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


@dataclass(frozen=True, eq=False)
class PropertyPrediction:
    """Predicted values of a scalar property; NumPy takes it for the array of its values.

    Attributes
    ----------
    values : (n_values,), one for each structure, or for each atom, structure after structure.
    std : (n_values,) posterior standard deviations, without the noise of an observation; None when not asked for.
    sizes : (n_structures,) values of each structure.
    """

    values: np.ndarray
    std: np.ndarray | None
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def by_structure(self) -> list[np.ndarray]:
        """The values of each structure: (1,), or (n_atoms,) of a property of atoms."""
        return np.split(self.values, np.cumsum(self.sizes)[:-1])


def wanted_uncertainties(uncertainty: bool | str | Iterable[str]) -> frozenset[str]:
    """The set of standard deviations asked for, checked."""
    if isinstance(uncertainty, (bool, np.bool_)):
        return frozenset(UNCERTAINTIES if uncertainty else ())
    wanted = frozenset([uncertainty] if isinstance(uncertainty, str) else uncertainty)
    if not wanted <= set(UNCERTAINTIES):
        raise InputError(f"`uncertainty` takes True, False or some of {UNCERTAINTIES}, received {sorted(wanted - set(UNCERTAINTIES))}.")
    return wanted | {"energies"} if "energy" in wanted else wanted
