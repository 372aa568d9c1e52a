"""Errors of a prediction against reference labels, and how well the predicted standard deviations cover them."""

from __future__ import annotations

import numpy as np
from ase import units

from soapkrr.errors import InputError
from soapkrr.labels import Observations, read_labels
from soapkrr.labels.lookup import config_type
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (key suffix, factor from eV, eV/Å, eV/Å³).
UNITS = {"energy": ("mev_per_atom", 1e3), "forces": ("ev_per_angstrom", 1.0), "stress": ("gpa", 1 / units.GPa)}


def residuals(frames, prediction: Prediction, observations: Observations | None = None) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{kind: (errors, standard deviations or None)} of every labelled component, energies per atom; units of `UNITS`.

    ``observations`` names the labels and masks, as in a fit.
    """
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    columns: dict[str, list] = {kind: [] for kind in UNITS}
    for s, label in enumerate(read_labels(frames, observations)):
        for kind, column in columns.items():
            if label.has(kind):
                n = len(frames[s]) if kind == "energy" else 1
                std = getattr(prediction, f"{kind}_std")
                column.append(_errors(getattr(prediction, kind)[s], getattr(label, kind), None if std is None else std[s], n))
    result = {}
    for kind, (_, factor) in UNITS.items():
        if columns[kind]:
            errors, stds = zip(*columns[kind], strict=True)
            std = None if stds[0] is None else factor * np.concatenate([np.ravel(x) for x in stds])
            result[kind] = factor * np.concatenate([np.ravel(x) for x in errors]), std
    return result


def check_lengths(frames, prediction: Prediction) -> None:
    """Raise `InputError` unless the prediction is of as many structures."""
    if len(prediction) != len(frames):
        raise InputError(f"`prediction` is of {len(prediction)} structures, `frames` holds {len(frames)}: pass those that were predicted.")


def _errors(predicted, reference, std, n: int):
    """Errors and standard deviations (or None) of the components that have a reference, divided by n."""
    known = np.isfinite(reference)
    error = np.subtract(predicted, reference)[known] / n
    return error, None if std is None else np.asarray(std)[known] / n


def error_table(frames, prediction: Prediction, by: str | None = None, observations: Observations | None = None) -> dict:
    """Flat table: ``<kind>_mae_<unit>``, ``<kind>_rmse_<unit>`` and, with uncertainties, ``<kind>_within_1_std``, ``<kind>_within_2_std``.

    Units: energy meV/atom, forces eV/Å, stress GPa. Kinds without labels are left out.

    Parameters
    ----------
    by : a name in `info`, for example ``"config_type"``: a table for each of its values, {value: table}; structures without it
        are ``"default"``. Values none of whose structures has a label have an empty table.
    observations : names of labels and masks, as in a fit; None: the calculators' results.
    """
    frames = as_frames(frames)
    if by is None:
        return _table(residuals(frames, prediction, observations))
    check_lengths(frames, prediction)
    members: dict[str, list[int]] = {}
    for s, atoms in enumerate(frames):
        members.setdefault(config_type(atoms, by), []).append(s)
    if set(members) == {"default"}:
        raise InputError(f"`by`={by!r} is in the `info` of no structure.")
    labelled = {s for s, label in enumerate(read_labels(frames, observations)) if not label.empty}
    return {
        name: _table(residuals([frames[s] for s in group], prediction.of(group), observations)) if labelled & set(group) else {}
        for name, group in sorted(members.items())
    }


def _table(residuals_by_kind) -> dict[str, float]:
    table = {}
    for kind, (errors, std) in residuals_by_kind.items():
        unit = UNITS[kind][0]
        table[f"{kind}_mae_{unit}"] = float(np.abs(errors).mean())
        table[f"{kind}_rmse_{unit}"] = float(np.sqrt((errors**2).mean()))
        if std is not None:
            for k in (1, 2):
                table[f"{kind}_within_{k}_std"] = float((np.abs(errors) <= k * std).mean())
    return table
