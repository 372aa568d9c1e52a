"""Errors of a potential, and how well its standard deviations cover them, by group of structures."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from scipy.special import erf

from soapkrr.checking.report import Curve, Row
from soapkrr.errors import LabelError
from soapkrr.labels import read_labels
from soapkrr.metrics import UNIT_NAMES, Comparison, comparisons, members_by
from soapkrr.prediction import Prediction

#: Nominal coverage of the intervals looked at, and the part of the references that they must hold.
NOMINAL, COVERED = 0.9, 0.8

#: Structures of a group from which its coverage says something.
FEWEST = 5


def held_out(model, frames: list[Atoms]) -> tuple[list[Row], list[Curve]]:
    """Of labelled structures; nothing of structures without labels."""
    observations = model.fitted_parameters_.get("observations")
    try:
        labels = read_labels(frames, observations)
    except LabelError as error:
        if "none of the" in str(error):
            return [], []
        raise
    known = [s for s, label in enumerate(labels) if not label.empty]
    frames = [frames[s] for s in known]
    p = model.predict(frames, uncertainty=True)
    groups = members_by(frames, "config_type" if observations is None else observations.config_type)
    everything = comparisons(frames, p, observations)
    rows = [row for found in everything.values() for row in _rows("all", found, p, len(frames))]
    if len(groups) > 1:
        for name, members in sorted(groups.items()):
            some = p.of(members)
            found = comparisons([frames[s] for s in members], some, observations)
            rows += [row for part in found.values() for row in _rows(name, part, some, len(members))]
    return rows, [_parity(kind, found) for kind, found in everything.items()] + [_coverage(everything)]


def _rows(group: str, found: Comparison, p: Prediction, n: int) -> list[Row]:
    unit, name = UNIT_NAMES[found.kind], f"held out, {group}"
    error = float(np.abs(found.errors).mean())
    size = float(np.abs(found.reference - found.reference.mean()).mean())
    bound = "; bound: mean absolute deviation of the labels" if group == "all" else ""
    note = f"mean absolute error of {n} structures{bound}"
    several = group == "all" and len(found.errors) > 1 and size > 0
    rows = [Row(name, f"MAE, {found.kind}", error, f"< {size:.3g} {unit}" if several else "-", not several or error < size, unit, note)]
    if found.std is not None and n >= FEWEST:
        covered = _covered(found, p)
        note = f"part of the references within the interval of nominal {100 * NOMINAL:g} %"
        rows.append(Row(name, f"coverage, {found.kind}", covered, f"≥ {COVERED:g}", bool(covered >= COVERED), "", note))
    return rows


def _covered(found: Comparison, p: Prediction) -> float:
    """Part of the references within the prediction's own intervals, without components that vanish by symmetry; NaN of none."""
    lower, upper = (found.of(limits)[found.counted] for limits in p.interval(found.kind, NOMINAL))
    reference = found.reference[found.counted]
    return float(((lower <= reference) & (reference <= upper)).mean()) if len(reference) else np.nan


def _parity(kind: str, found: Comparison) -> Curve:
    unit = UNIT_NAMES[kind]
    x, y = found.reference, found.predicted
    if kind == "energy":
        x, y = x - x.mean(), y - x.mean()
    caption = f"{len(x):,} held-out values, mean absolute error {np.abs(found.errors).mean():.3g} {unit}."
    return Curve(kind.capitalize(), f"reference ({unit})", f"predicted ({unit})", x, {"*predicted": y}, caption)


def _coverage(everything: dict[str, Comparison]) -> Curve:
    k = np.linspace(0.0, 3.0, 61)
    lines = {kind: np.array([found.within(x) for x in k]) for kind, found in everything.items() if found.std is not None}
    caption = "Part of the errors within k predicted standard deviations (normal: of a normal law)."
    return Curve("Coverage", "standard deviations", "part of the errors", k, {**lines, "normal": erf(k / np.sqrt(2))}, caption)
