"""What a model predicts, as one result type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from scipy.special import ndtri

from soapkrr.display import Tabular, counted, ends, value_text
from soapkrr.errors import InputError
from soapkrr.export import atom_columns, data_frame, labelled_copies, structure_columns

#: Quantities that have a predicted standard deviation.
UNCERTAINTIES = ("energy", "energies", "forces", "stress")

#: Asks for the standard deviation of total energies alone, without those of atoms.
TOTAL = "total"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Tabular):
    """Predicted values and standard deviations of a list of structures; std attributes are None when not asked for.

    ``p[3]``, ``p[2:5]`` and ``p[mask]`` are predictions of some of the structures, and iteration goes over them one by one.

    Attributes
    ----------
    energy, energy_std : (n_structures,) eV.
    energies, energies_std : lists of (n_atoms,) eV, per atom.
    forces, forces_std : lists of (n_atoms, 3) eV/Å.
    stress, stress_std : (n_structures, 6) eV/Å³, ASE sign and Voigt order, NaN where there is no three-dimensional cell.
    outside : (n_structures,) bool, whether two atoms are closer than 0.9 × the shortest distance of their species in the training data:
        energies and error bars mean nothing there. None for a model whose file does not know these distances.
    """

    #: Attributes that belong to all structures together.
    SHARED = ()

    energy: np.ndarray
    energies: list[np.ndarray]
    forces: list[np.ndarray]
    stress: np.ndarray
    energy_std: np.ndarray | None = None
    energies_std: list[np.ndarray] | None = None
    forces_std: list[np.ndarray] | None = None
    stress_std: np.ndarray | None = None
    outside: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def __getitem__(self, index) -> Prediction:
        """Prediction of the structure of a number, or of those of a slice, an array of numbers or a mask."""
        return self.of(np.atleast_1d(np.arange(len(self))[index]))

    def __iter__(self) -> Iterator[Prediction]:
        """Predictions of one structure each."""
        return (self.of([s]) for s in range(len(self)))

    def __array__(self, dtype=None, copy=None):
        raise TypeError("a Prediction is not one array: take its `energy`, `forces`, `stress` or `energies`.")

    def __array_function__(self, function, types, args, kwargs):
        """Of NumPy's functions, `concatenate` joins predictions, as scikit-learn's `cross_val_predict` does."""
        if function is np.concatenate and all(issubclass(kind, Prediction) for kind in types):
            return Prediction.concatenate(list(args[0]))
        return NotImplemented

    def of(self, indices: Sequence[int] | np.ndarray) -> Prediction:
        """Prediction of some of the structures."""

        def pick(name) -> Any:
            value = getattr(self, name)
            if value is None or name in self.SHARED:
                return value
            return [value[s] for s in indices] if isinstance(value, list) else value[list(indices)]

        return type(self)(**{name: pick(name) for name in self.__dataclass_fields__})

    @classmethod
    def concatenate(cls, parts: list[Prediction]) -> Prediction:
        """Join predictions of consecutive groups of structures."""

        def join(name) -> Any:
            values = [getattr(part, name) for part in parts]
            if values[0] is None or name in kind.SHARED:
                return values[0]
            return sum(values, []) if isinstance(values[0], list) else np.concatenate(values)

        kind = type(parts[0])
        return kind(**{name: join(name) for name in kind.__dataclass_fields__})

    def interval(self, kind: str, coverage: float = 0.9) -> tuple[Any, Any]:
        """(lower, upper) limits of a Gaussian's central interval of this ``coverage``, prediction ± Φ⁻¹((1 + coverage)/2) × its standard
        deviation, shaped as the prediction of ``kind``.

        Parameters
        ----------
        kind : ``"energy"``, ``"energies"``, ``"forces"`` or ``"stress"``.  coverage : between 0 and 1.

        Raises
        ------
        InputError : another kind or coverage, or the standard deviations of this kind were not asked for.
        """
        check_coverage(coverage)
        std, mean, quantile = self._std(kind), getattr(self, kind), self._quantile(kind, coverage)
        if not isinstance(mean, list):
            return mean - quantile * std, mean + quantile * std
        half = [q * s for q, s in zip(quantile if isinstance(quantile, list) else [quantile] * len(std), std, strict=True)]
        return [m - h for m, h in zip(mean, half, strict=True)], [m + h for m, h in zip(mean, half, strict=True)]

    def _quantile(self, kind: str, coverage: float) -> float | list[np.ndarray]:
        """Standard deviations from the prediction to the limits: one number, or for each structure an array to multiply its own with."""
        return float(ndtri((1 + coverage) / 2))

    def _std(self, kind: str):
        """Standard deviations of a kind; raises `InputError` where there are none."""
        if kind not in UNCERTAINTIES:
            raise InputError(f"`kind` must be one of {UNCERTAINTIES}, received {kind!r}.")
        std = getattr(self, f"{kind}_std")
        if std is None:
            raise InputError(f"the standard deviations of {kind} were not asked for: predict(frames, uncertainty={kind!r}).")
        return std

    def to_atoms(self, frames: Atoms | list[Atoms]) -> list[Atoms]:
        """Copies of the structures that carry the prediction as their labels.

        Energy, energies, forces and stress are the results of a `SinglePointCalculator`. Standard deviations are in `info` under the
        names of the attributes, where .traj keeps them (and an ASE database with ``db.write(atoms, data=atoms.info)``); those of atoms,
        ``forces_std`` and ``energies_std``, are in `arrays` too, where extended XYZ has columns for them.

        Raises
        ------
        InputError : ``frames`` are not the structures that were predicted.
        """
        return labelled_copies(frames, self)

    def to_dataframe(self, per: str = "structure"):
        """`pandas.DataFrame` with a row for each structure (energies, stress) or each atom (energies, forces): eV, eV/Å, eV/Å³.

        Raises
        ------
        InputError : pandas is not installed, or ``per`` is neither ``"structure"`` nor ``"atom"``.
        """
        if per not in ("structure", "atom"):
            raise InputError(f"`per` must be 'structure' or 'atom', received {per!r}.")
        return data_frame(structure_columns(self) if per == "structure" else atom_columns(self))

    def _title(self) -> str:
        return f"Prediction of {counted(len(self), 'structure')}, {counted(sum(map(len, self.energies)), 'atom')}"

    def _columns(self) -> list[str]:
        std = [] if self.forces_std is None else ["largest std (eV/Å)"]
        outside = ["atoms too close"] if self._any_outside else []
        return ["structure", "atoms", "energy (eV)", "largest force (eV/Å)", *std, "pressure (GPa)", *outside]

    @property
    def _any_outside(self) -> bool:
        return self.outside is not None and bool(self.outside.any())

    def _rows(self) -> list[list[str]]:
        return [["…"] * len(self._columns()) if s is None else self._row(s) for s in ends(len(self))]

    def _row(self, s: int) -> list[str]:
        energy = value_text(self.energy[s], None if self.energy_std is None else self.energy_std[s])
        std = [] if self.forces_std is None else [f"{self.forces_std[s].max():.2g}"]
        pressure = -self.stress[s, :3].mean() / units.GPa
        force = np.linalg.norm(self.forces[s], axis=1).max()
        outside = [] if self.outside is None or not self._any_outside else ["yes" if self.outside[s] else ""]
        return [
            str(s),
            str(len(self.energies[s])),
            energy,
            f"{force:.4f}",
            *std,
            "-" if np.isnan(pressure) else f"{pressure:.3f}",
            *outside,
        ]


@dataclass(frozen=True, eq=False, repr=False)
class PropertyPrediction(Tabular):
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

    def __array_function__(self, function, types, args, kwargs):
        """NumPy's functions take the values; `concatenate` of a property of atoms keeps structures apart, one array for each."""
        if function is np.concatenate and all(issubclass(kind, PropertyPrediction) for kind in types):
            parts = list(args[0])
            if any((part.sizes != 1).any() for part in parts):
                return _array_of_arrays([values for part in parts for values in part.by_structure()])
        named: Any = _plain(kwargs)
        return function(*_plain(args), **named)

    def to_dataframe(self):
        """`pandas.DataFrame` with a row for each value: structure, value and, if there, std. Raises `InputError` without pandas."""
        columns = {"structure": np.repeat(np.arange(len(self.sizes)), self.sizes), "value": self.values}
        return data_frame(columns if self.std is None else columns | {"std": self.std})

    def _title(self) -> str:
        return f"Prediction of {counted(len(self), 'value')} of {counted(len(self.sizes), 'structure')}"

    def _columns(self) -> list[str]:
        return ["structure", "value", *([] if self.std is None else ["std"])]

    def _rows(self) -> list[list[str]]:
        structure = np.repeat(np.arange(len(self.sizes)), self.sizes)
        std = [] if self.std is None else [self.std]
        return [
            ["…"] * len(self._columns()) if k is None else [str(structure[k]), f"{self.values[k]:.6g}", *(f"{x[k]:.2g}" for x in std)]
            for k in ends(len(self))
        ]

    def by_structure(self) -> list[np.ndarray]:
        """The values of each structure: (1,), or (n_atoms,) of a property of atoms."""
        return np.split(self.values, np.cumsum(self.sizes)[:-1])


def _plain(value):
    """The same with arrays of values in place of predictions."""
    if isinstance(value, PropertyPrediction):
        return value.values
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return {name: _plain(part) for name, part in value.items()} if type(value) is dict else value


def _array_of_arrays(values: list[np.ndarray]) -> np.ndarray:
    """(n,) objects, also where all have one length."""
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def check_coverage(coverage: float) -> None:
    """Raise `InputError` unless it is between 0 and 1."""
    if isinstance(coverage, bool) or not isinstance(coverage, (int, float, np.floating)) or not 0 < coverage < 1:
        raise InputError(f"`coverage` must be between 0 and 1, such as 0.9, received {coverage!r}.")


def wanted_uncertainties(uncertainty: bool | str | Iterable[str]) -> frozenset[str]:
    """The set of standard deviations asked for, checked."""
    if isinstance(uncertainty, (bool, np.bool_)):
        return frozenset(UNCERTAINTIES if uncertainty else ())
    wanted = frozenset([uncertainty] if isinstance(uncertainty, str) else uncertainty)
    known = (*UNCERTAINTIES, TOTAL)
    if not wanted <= set(known):
        raise InputError(f"`uncertainty` takes True, False or some of {known}, received {sorted(wanted - set(known))}.")
    if "energy" in wanted or {TOTAL, "energies"} <= wanted:
        return wanted - {TOTAL} | {"energy", "energies"}
    return wanted
