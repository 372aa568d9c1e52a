"""Errors of a prediction against reference labels, and how many of them are within its standard deviations."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.display import Tabular
from soapkrr.labels import Observations, read_labels
from soapkrr.metrics.comparison import UNIT_NAMES, UNITS, Comparison, check_lengths, comparisons, named_members
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames


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

    def _notes(self) -> list[str]:
        return [
            f"largest {kind} errors: {name}, RMSE {rmse:.3g} {UNIT_NAMES[kind]}, {rmse / mean:.2f} × the average of the groups"
            for kind, (name, rmse, mean) in self.worst().items()
            if mean > 0
        ]

    def worst(self) -> dict[str, tuple[str, float, float]]:
        """{kind: (name of the group with the largest root mean square error, that error, average of those of all groups)}.

        In the units of the tables; kinds that two groups or more have labels of.
        """
        found = {}
        for kind, (unit, _) in UNITS.items():
            errors = {name: table[key] for name, table in self.items() if (key := f"{kind}_rmse_{unit}") in table}
            if len(errors) > 1:
                name = max(errors, key=lambda group: errors[group])
                found[kind] = name, errors[name], float(np.mean(list(errors.values())))
        return found


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
        are ``"default"``. Values none of whose structures has a label have an empty table. ``"species"``, where no `info` has it: errors
        of the forces on the atoms of each element, {symbol: table}. `ErrorTables.worst` names the group with the largest errors.
    observations : names of labels and masks, as in a fit; None: the calculators' results.
    """
    frames = as_frames(frames)
    if by is None:
        return _table(comparisons(frames, prediction, observations))
    check_lengths(frames, prediction)
    if by == "species" and not any("species" in atoms.info for atoms in frames):
        return _of_species(frames, comparisons(frames, prediction, observations))
    members = named_members(frames, by)
    labelled = {s for s, label in enumerate(read_labels(frames, observations)) if not label.empty}
    tables = ErrorTables()
    for name, group in sorted(members.items()):
        some = labelled & set(group)
        tables[name] = _table(comparisons([frames[s] for s in group], prediction.of(group), observations)) if some else ErrorTable()
    return tables


def _of_species(frames: list[Atoms], found: dict[str, Comparison]) -> ErrorTables:
    """{symbol: table of the forces on its atoms}; empty ones where there are no forces."""
    forces, tables = found.get("forces"), ErrorTables()
    for symbol in sorted({symbol for atoms in frames for symbol in atoms.symbols}):
        tables[symbol] = ErrorTable()
        if forces is not None:
            element = np.concatenate([atoms.numbers for atoms in frames])
            starts = np.cumsum([0, *(len(atoms) for atoms in frames)])
            mine = element[starts[forces.structure] + forces.component // 3] == atomic_numbers[symbol]
            tables[symbol] |= _table({"forces": forces.some(mine)}) if mine.any() else {}
    return tables


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
