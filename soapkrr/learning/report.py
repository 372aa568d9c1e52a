"""What learning weights did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from soapkrr.display import Fielded
from soapkrr.regression.leave_out import UNITS


@dataclass(frozen=True, repr=False)
class LearningReport(Fielded):
    """Errors of left-out structures before and after.

    Attributes
    ----------
    helped : whether the model has the learnt weights; otherwise it is the one that was given.
    reason : why, in words.
    before, after : {kind: root mean square error of left-out labels}, eV per atom, eV/Å, eV/Å³.
    density_before, density_after : Σ log p(y_i | y_−i).
    steps, structures : steps of the ascent, and structures learnt from.
    """

    helped: bool
    reason: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    density_before: float
    density_after: float
    steps: int
    structures: int

    def __str__(self) -> str:
        parts = [
            f"{kind} {f * self.before[kind]:.3g} → {f * self.after[kind]:.3g} {unit}"
            for kind, (unit, f) in UNITS.items()
            if kind in self.before
        ]
        return f"{self.reason}: {', '.join(parts)} left out, {self.structures} structures, {self.steps} steps"
