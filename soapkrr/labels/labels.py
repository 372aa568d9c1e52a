"""Reference energies, forces and stresses of structures; NaN marks what a structure does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

#: Kinds of observation, in the order in which a structure lists them.
KINDS = ("energy", "forces", "stress")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one structure: energy eV (NaN if missing), forces (n_atoms, 3) eV/Å or None, stress (6,) eV/Å³ or None.

    NaN marks forces that are ignored. ``scale``: per kind, factor of each row beside 1/noise, shaped like the label; absent kinds have 1.
    """

    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None
    scale: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not any(self.has(kind) for kind in KINDS)

    def numbers(self) -> tuple:
        """Everything that a fit reads here, in a fixed order: labels, then factors of the rows."""
        return (self.energy, self.forces, self.stress, *(self.scale.get(kind) for kind in KINDS))

    def has(self, kind: str) -> bool:
        """Whether any component of this kind is to be fitted."""
        value = getattr(self, kind)
        return value is not None and bool(np.isfinite(value).any())


def stacked(labels: list[Labels], kind: str, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every component of one kind of label, structure after structure: values (n,), NaN where missing, and factors of the rows (n,)."""
    lengths = {"energy": np.ones_like(sizes), "forces": 3 * sizes, "stress": np.full_like(sizes, 6)}[kind]
    values, scale = np.full(lengths.sum(), np.nan), np.ones(lengths.sum())
    ends = np.cumsum(lengths)
    for label, start, end in zip(labels, ends - lengths, ends, strict=True):
        if label.has(kind):
            values[start:end] = np.ravel(getattr(label, kind))
            scale[start:end] = np.ravel(label.scale.get(kind, 1.0))
    return values, scale
