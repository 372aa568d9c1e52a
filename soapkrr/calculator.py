"""ASE calculator of a fitted potential."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from ase.calculators.calculator import all_changes

from soapkrr.prediction import wanted_uncertainties
from soapkrr.threaded import ThreadedCalculator

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential


class PotentialCalculator(ThreadedCalculator):
    """Energy, forces, stress and per-atom energies for `ase.Atoms`, with standard deviations in ``results``.

    ``results`` holds energy, free_energy (the same), energies, forces, stress (three-dimensional cells only) and, as asked for by
    ``uncertainty``, energy_std, energies_std, forces_std, stress_std; units eV, Å. Threads can share a calculator: each has ``results`` of
    its own.

    Parameters
    ----------
    model : a fitted potential.
    uncertainty : as in `Potential.predict`.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, model: Potential, uncertainty: bool | Iterable[str] = ("energy",), **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.uncertainty = wanted_uncertainties(uncertainty)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Called by ASE; everything but the uncertainties not asked for is computed at once."""
        super().calculate(atoms, properties, system_changes)
        p = self.model.predict(self.atoms, uncertainty=self.uncertainty)
        energy = float(p.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "energies": p.energies[0], "forces": p.forces[0]}
        if np.isfinite(p.stress[0]).all():
            self.results["stress"] = p.stress[0]
        for name in ("energy_std", "energies_std", "forces_std", "stress_std"):
            values = getattr(p, name)
            if values is not None and np.isfinite(values[0]).all():
                self.results[name] = values[0] if np.ndim(values[0]) else float(values[0])
