"""The known labels of a fit as flat arrays: every component of every energy, force and stress that has a value, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from soapkrr.labels import KINDS, Labels, stacked
from soapkrr.regression.data import TrainingData

Flat = TypeVar("Flat", bound="KnownLabels")


@dataclass(frozen=True, eq=False, repr=False)
class KnownLabels:
    """Every known label, energies first, then forces, then stresses, structure after structure; arrays of equal length.

    Attributes
    ----------
    kind : index into `labels.KINDS`.  structure : index of the structure.  component : place in the ravelled label.
    given : eV, eV/Å, eV/Å³.  sigma : noise of the label in the same unit, of an energy σ√N.
    """

    #: Names of the arrays that have an element for each label.
    ARRAYS = ("kind", "structure", "component", "given", "sigma")

    kind: np.ndarray
    structure: np.ndarray
    component: np.ndarray
    given: np.ndarray
    sigma: np.ndarray

    @classmethod
    def of(cls, data: TrainingData, noise: Mapping[str, float]) -> KnownLabels:
        """Of a fit's data, prior means left out; structures counted as the data count them."""
        return KnownLabels(*map(np.concatenate, zip(*(_of_kind(k, data, noise) for k in range(len(KINDS))), strict=True)))

    def __len__(self) -> int:
        return len(self.kind)

    def some(self: Flat, chosen: np.ndarray) -> Flat:
        """A part of them."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in self.ARRAYS})

    def of_kind(self: Flat, kind: str) -> Flat:
        """Those of one of `labels.KINDS`."""
        return self.some(self.kind == KINDS.index(kind))

    def values_of(self, labels: Sequence[Labels], sizes: np.ndarray) -> np.ndarray:
        """What other labels, or predictions in their place, of all structures have where these are known."""
        out = np.empty(len(self))
        for k, kind in enumerate(KINDS):
            mine = np.flatnonzero(self.kind == k)
            starts = np.cumsum(lengths(kind, sizes)) - lengths(kind, sizes)
            out[mine] = stacked(list(labels), kind, sizes)[0][starts[self.structure[mine]] + self.component[mine]]
        return out


def lengths(kind: str, sizes: np.ndarray) -> np.ndarray:
    """(n_structures,) components of one kind of label of structures with so many atoms."""
    return {"energy": np.ones_like(sizes), "forces": 3 * sizes, "stress": np.full_like(sizes, 6)}[kind]


def unpredicted(data: TrainingData, labels: KnownLabels) -> np.ndarray:
    """Which labels are energies of isolated atoms: the others are measured by them, and nothing predicts them."""
    alone = np.array([len(atoms) == 1 and not atoms.pbc.any() for atoms in data.frames])
    return (labels.kind == 0) & alone[labels.structure]


def _of_kind(k: int, data: TrainingData, noise: Mapping[str, float]) -> tuple:
    kind, sizes = KINDS[k], data.sizes
    given, scale = stacked(data.labels, kind, sizes)
    n = lengths(kind, sizes)
    structure = np.repeat(np.arange(len(sizes)), n)
    component = np.arange(len(given)) - np.repeat(np.cumsum(n) - n, n)
    sigma = noise[kind] * (np.sqrt(sizes)[structure] if kind == "energy" else 1.0) / scale
    known = np.flatnonzero(np.isfinite(given))
    return np.full(len(known), k), structure[known], component[known], given[known], sigma[known]
