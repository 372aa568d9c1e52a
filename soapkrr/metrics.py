"""Errors of a prediction against reference labels, and how well the predicted standard deviations cover them."""

from __future__ import annotations

import numpy as np
from ase import units

from soapkrr.errors import InputError
from soapkrr.labels import read_labels
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (key suffix, factor from eV, eV/Å, eV/Å³).
UNITS = {"energy": ("mev_per_atom", 1e3), "forces": ("ev_per_angstrom", 1.0), "stress": ("gpa", 1 / units.GPa)}


def residuals(frames, prediction: Prediction) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{kind: (errors, standard deviations or None)} of every labelled component, energies per atom; units of `UNITS`."""
    frames = as_frames(frames)
    if len(prediction) != len(frames):
        raise InputError(f"`prediction` is of {len(prediction)} structures, `frames` holds {len(frames)}: pass those that were predicted.")
    columns: dict[str, list] = {kind: [] for kind in UNITS}
    for s, (atoms, label) in enumerate(zip(frames, read_labels(frames), strict=True)):
        n = len(atoms)
        if np.isfinite(label.energy):
            columns["energy"].append(((prediction.energy[s] - label.energy) / n, _of(prediction.energy_std, s, n)))
        if label.forces is not None:
            columns["forces"].append((prediction.forces[s] - label.forces, _of(prediction.forces_std, s, 1)))
        if label.stress is not None:
            columns["stress"].append((prediction.stress[s] - label.stress, _of(prediction.stress_std, s, 1)))
    result = {}
    for kind, (_, factor) in UNITS.items():
        if columns[kind]:
            errors, stds = zip(*columns[kind], strict=True)
            std = None if stds[0] is None else factor * np.concatenate([np.ravel(x) for x in stds])
            result[kind] = factor * np.concatenate([np.ravel(x) for x in errors]), std
    return result


def _of(std, s: int, n: int):
    return None if std is None else std[s] / n


def error_table(frames, prediction: Prediction) -> dict[str, float]:
    """Flat table: ``<kind>_mae_<unit>``, ``<kind>_rmse_<unit>`` and, with uncertainties, ``<kind>_within_1_std``, ``<kind>_within_2_std``.

    Units: energy meV/atom, forces eV/Å, stress GPa. Kinds without labels are left out.
    """
    table = {}
    for kind, (errors, std) in residuals(frames, prediction).items():
        unit = UNITS[kind][0]
        table[f"{kind}_mae_{unit}"] = float(np.abs(errors).mean())
        table[f"{kind}_rmse_{unit}"] = float(np.sqrt((errors**2).mean()))
        if std is not None:
            for k in (1, 2):
                table[f"{kind}_within_{k}_std"] = float((np.abs(errors) <= k * std).mean())
    return table
