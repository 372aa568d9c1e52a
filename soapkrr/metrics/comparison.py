"""A prediction beside reference labels, component by component."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms, units

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
    structure : (n,) index of the structure.  component : (n,) place in its ravelled label.
    size : (n,) what values are divided by: atoms of the structure for an energy, else 1.
    """

    kind: str
    errors: np.ndarray
    reference: np.ndarray
    std: np.ndarray | None
    structure: np.ndarray
    component: np.ndarray
    size: np.ndarray

    def of(self, values) -> np.ndarray:
        """(n,) components of anything shaped as the prediction of this kind (limits of an interval, say), in the unit of `errors`."""
        parts = [np.ravel(value) for value in values]
        starts = np.cumsum([0, *map(len, parts)])
        return UNITS[self.kind][1] * (np.concatenate(parts)[starts[self.structure] + self.component] / self.size)

    def some(self, chosen: np.ndarray) -> Comparison:
        """A part of the components."""
        std = None if self.std is None else self.std[chosen]
        arrays = {name: getattr(self, name)[chosen] for name in ("errors", "reference", "structure", "component", "size")}
        return replace(self, std=std, **arrays)

    @property
    def predicted(self) -> np.ndarray:
        return self.reference + self.errors

    @cached_property
    def counted(self) -> np.ndarray:
        """(n,) bool, the components that say something of the error bars: all, NaN too, but those that vanish by symmetry."""
        if self.std is None or self.kind == "energy":
            return np.ones(len(self.predicted), dtype=bool)
        return ~(np.max(np.abs([self.predicted, self.reference, self.std]), axis=0) < VANISHING)

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


def comparisons_with_std(frames, prediction: Prediction, observations: Observations | None = None) -> dict[str, Comparison]:
    """`comparisons` of the kinds that have standard deviations too; raises `InputError` where none has."""
    found = {kind: part for kind, part in comparisons(frames, prediction, observations).items() if part.std is not None}
    if not found:
        raise InputError("`prediction` has no standard deviations of a kind that has labels: predict with `uncertainty=True`.")
    return found


def _columns(label, prediction: Prediction, s: int, kind: str) -> list[np.ndarray]:
    """Structure, place, size, error, reference and standard deviation (if any) of the labelled components of structure s."""
    n, std = len(prediction.energies[s]) if kind == "energy" else 1, getattr(prediction, f"{kind}_std")
    reference = getattr(label, kind)
    known = np.isfinite(reference)
    values = [np.subtract(getattr(prediction, kind)[s], reference), reference, *([] if std is None else [std[s]])]
    place = np.flatnonzero(np.ravel(known))
    return [np.full(len(place), s), place, np.full(len(place), n), *(np.ravel(np.asarray(x)[known]) / n for x in values)]


def _joined(kind: str, parts: list[list[np.ndarray]]) -> Comparison:
    structure, component, size, *values = (np.concatenate(column) for column in zip(*parts, strict=True))
    errors, reference, *std = (UNITS[kind][1] * column for column in values)
    return Comparison(kind, errors, reference, std[0] if std else None, structure, component, size)


def residuals(frames, prediction: Prediction, observations: Observations | None = None) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """{kind: (errors, standard deviations or None)} of every labelled component, energies per atom; units of `UNITS`.

    ``observations`` names the labels and masks, as in a fit.
    """
    return {kind: (found.errors, found.std) for kind, found in comparisons(frames, prediction, observations).items()}


def check_lengths(frames, prediction: Prediction) -> None:
    """Raise `InputError` unless the prediction is of as many structures."""
    if len(prediction) != len(frames):
        raise InputError(f"`prediction` is of {len(prediction)} structures, `frames` holds {len(frames)}: pass those that were predicted.")


def members_by(frames: list[Atoms], by: str) -> dict[str, list[int]]:
    """{value of ``by`` in `info`, ``"default"`` without it: places of the structures that have it}."""
    members: dict[str, list[int]] = {}
    for s, atoms in enumerate(frames):
        members.setdefault(config_type(atoms, by), []).append(s)
    return members


def named_members(frames: list[Atoms], by: str) -> dict[str, list[int]]:
    """`members_by`; raises `InputError` where no structure has ``by``."""
    members = members_by(frames, by)
    if set(members) == {"default"}:
        raise InputError(f"`by`={by!r} is in the `info` of no structure.")
    return members
