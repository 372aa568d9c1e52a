"""Left-out labels as a prediction: what a model says of each structure without having been told."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.labels import KINDS, Observations, read_labels
from soapkrr.prediction import Prediction
from soapkrr.regression.leave_out import LeaveOut


def as_prediction(left: LeaveOut, frames: list[Atoms], observations: Observations | None = None) -> tuple[list[Atoms], Prediction]:
    """Structures all of whose labels were left out, and what the others say of them; NaN where there is no label.

    Standard deviations are those of (prediction − label), √(variance + σ²), as the posterior has them. Isolated atoms, which nothing
    predicts, are not among them.
    """
    sizes, values = left.sizes, {}
    for k, kind in enumerate(KINDS):
        mine, lengths = left.kind == k, _lengths(kind, left.sizes)
        place = (np.cumsum(lengths) - lengths)[left.structure[mine]] + left.component[mine]
        for name, all_values in ((kind, left.mean), (f"{kind}_std", np.sqrt(left.variance + left.sigma**2))):
            flat = np.full(lengths.sum(), np.nan)
            flat[place] = all_values[mine]
            values[name] = np.split(flat, np.cumsum(lengths)[:-1])
    known = [s for s, label in enumerate(read_labels(frames, observations)) if _complete(label, values, s)]
    predicted = {name: [values[name][s] for s in known] for name in values}
    shape = {"energy": lambda x: np.array([v[0] for v in x]), "forces": lambda x: [v.reshape(-1, 3) for v in x], "stress": _stacked}
    parts = {name: shape[name.removesuffix("_std")](x) for name, x in predicted.items()}
    energies = [np.full(sizes[s], np.nan) for s in known]
    return [frames[s] for s in known], Prediction(energies=energies, energies_std=energies, **parts)


def _stacked(values: list[np.ndarray]) -> np.ndarray:
    return np.array(values).reshape(-1, 6)


def _lengths(kind: str, sizes: np.ndarray) -> np.ndarray:
    """(n_structures,) components of a label."""
    return {"energy": np.ones_like(sizes), "forces": 3 * sizes, "stress": np.full_like(sizes, 6)}[kind]


def _complete(label, values: dict, s: int) -> bool:
    """Whether every label of a structure has a prediction; False of one without labels."""
    has = [kind for kind in KINDS if label.has(kind)]
    return bool(has) and all(np.isfinite(values[kind][s][np.isfinite(np.ravel(getattr(label, kind)))]).all() for kind in has)
