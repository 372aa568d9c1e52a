"""Errors of a prediction against reference labels, and how well the predicted standard deviations cover them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from soapkrr.display import Tabular
from soapkrr.errors import InputError
from soapkrr.labels import Observations, read_labels
from soapkrr.labels.lookup import config_type
from soapkrr.lazy import cached_property
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (key suffix, factor from eV, eV/Å, eV/Å³).
UNITS = {"energy": ("mev_per_atom", 1e3), "forces": ("ev_per_angstrom", 1.0), "stress": ("gpa", 1 / units.GPa)}

#: The same units as people write them.
UNIT_NAMES = {"energy": "meV/atom", "forces": "eV/Å", "stress": "GPa"}


#: Force and stress components whose reference, prediction and standard deviation are all below this (eV/Å, GPa) vanish by symmetry.
VANISHING = 1e-5


@dataclass(frozen=True, eq=False)
class Comparison:
    """Labelled components of one kind, predicted and of the reference, in the unit of `UNITS`; energies per atom.

    Attributes
    ----------
    kind : of observation.  errors : (n,) predicted less reference.  reference : (n,).  std : (n,) or None.
    """

    kind: str
    errors: np.ndarray
    reference: np.ndarray
    std: np.ndarray | None

    @property
    def predicted(self) -> np.ndarray:
        return self.reference + self.errors

    @cached_property
    def counted(self) -> np.ndarray:
        """(n,) bool, the components that say something of the error bars: those that do not vanish by symmetry."""
        if self.std is None or self.kind == "energy":
            return np.ones(len(self.predicted), dtype=bool)
        return np.max(np.abs([self.predicted, self.reference, self.std]), axis=0) >= VANISHING

    @property
    def n_vanishing(self) -> int:
        """Components that vanish by symmetry: neither error nor error bar."""
        return int((~self.counted).sum())

    def within(self, k: float) -> float:
        """Fraction of the errors within k standard deviations, without the components that vanish by symmetry; NaN of none."""
        kept = self.counted
        return float((np.abs(self.errors[kept]) <= k * self.std[kept]).mean()) if kept.any() else np.nan


def comparisons(frames, prediction: Prediction, observations: Observations | None = None) -> dict[str, Comparison]:
    """{kind: `Comparison`} of the kinds that have labels. ``observations`` names the labels and masks, as in a fit."""
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    labels = read_labels(frames, observations)
    columns = {kind: [_columns(label, prediction, s, kind) for s, label in enumerate(labels) if label.has(kind)] for kind in UNITS}
    return {kind: _joined(kind, parts) for kind, parts in columns.items() if parts}


def _columns(label, prediction: Prediction, s: int, kind: str) -> list[np.ndarray]:
    """Errors, reference and standard deviations (if any) of the labelled components of structure s, of an energy per atom."""
    n, std = len(prediction.energies[s]) if kind == "energy" else 1, getattr(prediction, f"{kind}_std")
    reference = getattr(label, kind)
    known = np.isfinite(reference)
    values = [np.subtract(getattr(prediction, kind)[s], reference), reference, *([] if std is None else [std[s]])]
    return [np.ravel(np.asarray(x)[known]) / n for x in values]


def _joined(kind: str, parts: list[list[np.ndarray]]) -> Comparison:
    errors, reference, *std = (UNITS[kind][1] * np.concatenate(column) for column in zip(*parts, strict=True))
    return Comparison(kind, errors, reference, std[0] if std else None)


def residuals(frames, prediction: Prediction, observations: Observations | None = None) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{kind: (errors, standard deviations or None)} of every labelled component, energies per atom; units of `UNITS`.

    ``observations`` names the labels and masks, as in a fit.
    """
    return {kind: (found.errors, found.std) for kind, found in comparisons(frames, prediction, observations).items()}


def check_lengths(frames, prediction: Prediction) -> None:
    """Raise `InputError` unless the prediction is of as many structures."""
    if len(prediction) != len(frames):
        raise InputError(f"`prediction` is of {len(prediction)} structures, `frames` holds {len(frames)}: pass those that were predicted.")


class ErrorTable(Tabular, dict):
    """A dictionary of numbers that shows as a table with a line for each kind of observation."""

    def _kinds(self) -> list[str]:
        return [kind for kind, (unit, _) in UNITS.items() if f"{kind}_mae_{unit}" in self]

    def _columns(self) -> list[str]:
        return ["", "MAE", "RMSE", "unit", "within 1 std", "within 2 std"]

    def _rows(self) -> list[list[str]]:
        return [
            [kind, *(f"{self[f'{kind}_{error}_{UNITS[kind][0]}']:.3g}" for error in ("mae", "rmse")), UNIT_NAMES[kind]]
            + [percent(self.get(f"{kind}_within_{k}_std")) for k in (1, 2)]
            for kind in self._kinds()
        ]

    def _notes(self) -> list[str]:
        left_out = [f"{self[key]:,} {kind}" for kind in self._kinds() if (key := f"{kind}_zero_by_symmetry") in self]
        return [f"not counted in the last two columns: {', '.join(left_out)} components that are zero by symmetry"] if left_out else []


class ErrorTables(Tabular, dict):
    """A dictionary {name: `ErrorTable`} that shows as one table with a line for each name."""

    def _columns(self) -> list[str]:
        return ["", *(name for kind in UNITS for name in (f"{kind} MAE ({UNIT_NAMES[kind]})", "within 1 std"))]

    def _rows(self) -> list[list[str]]:
        return [[name, *(cell for kind in UNITS for cell in _mean_error(table, kind))] for name, table in self.items()]


def _mean_error(table: dict, kind: str) -> tuple[str, str]:
    """Mean absolute error and coverage as texts."""
    error = table.get(f"{kind}_mae_{UNITS[kind][0]}")
    return "-" if error is None else f"{error:.3g}", percent(table.get(f"{kind}_within_1_std"))


def percent(fraction: float | None) -> str:
    """``68.3 %``, or a dash."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def error_table(frames, prediction: Prediction, by: str | None = None, observations: Observations | None = None) -> dict:
    """Flat table: ``<kind>_mae_<unit>``, ``<kind>_rmse_<unit>`` and, with uncertainties, ``<kind>_within_1_std``, ``<kind>_within_2_std``.

    Units: energy meV/atom, forces eV/Å, stress GPa. Kinds without labels are left out. Components that vanish by symmetry (reference,
    prediction and standard deviation below `VANISHING`) do not count as within; ``<kind>_zero_by_symmetry`` says how many there are, if
    any. A dictionary; it shows as a table, in notebooks too.

    Parameters
    ----------
    by : a name in `info`, for example ``"config_type"``: a table for each of its values, {value: table}; structures without it
        are ``"default"``. Values none of whose structures has a label have an empty table.
    observations : names of labels and masks, as in a fit; None: the calculators' results.
    """
    frames = as_frames(frames)
    if by is None:
        return _table(comparisons(frames, prediction, observations))
    check_lengths(frames, prediction)
    members = members_by(frames, by)
    if set(members) == {"default"}:
        raise InputError(f"`by`={by!r} is in the `info` of no structure.")
    labelled = {s for s, label in enumerate(read_labels(frames, observations)) if not label.empty}
    tables = ErrorTables()
    for name, group in sorted(members.items()):
        some = labelled & set(group)
        tables[name] = _table(comparisons([frames[s] for s in group], prediction.of(group), observations)) if some else ErrorTable()
    return tables


def members_by(frames: list[Atoms], by: str) -> dict[str, list[int]]:
    """{value of ``by`` in `info`, ``"default"`` without it: places of the structures that have it}."""
    members: dict[str, list[int]] = {}
    for s, atoms in enumerate(frames):
        members.setdefault(config_type(atoms, by), []).append(s)
    return members


def _table(found: dict[str, Comparison]) -> ErrorTable:
    table = ErrorTable()
    for kind, part in found.items():
        unit = UNITS[kind][0]
        table[f"{kind}_mae_{unit}"] = float(np.abs(part.errors).mean())
        table[f"{kind}_rmse_{unit}"] = float(np.sqrt((part.errors**2).mean()))
        if part.std is not None and part.counted.any():
            table |= {f"{kind}_within_{k}_std": part.within(k) for k in (1, 2)}
        if part.n_vanishing:
            table[f"{kind}_zero_by_symmetry"] = part.n_vanishing
    return table
