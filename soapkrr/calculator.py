"""ASE calculator of a fitted potential."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes

from soapkrr.errors import InputError
from soapkrr.prediction import UNCERTAINTIES, Prediction, wanted_uncertainties
from soapkrr.threaded import ThreadedCalculator

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential


#: Names of standard deviations among the results.
STANDARD_DEVIATIONS = tuple(f"{name}_std" for name in UNCERTAINTIES)

#: Steps after which standard deviations are computed again.
EVERY = 10


class Results(dict):
    """Results of a calculation; standard deviations that were asked for and not computed yet are when they are first read."""

    def __init__(self, known: dict, model: Potential, atoms: Atoms, left: frozenset[str]):
        super().__init__(known)
        self._model, self._atoms, self._left = model, atoms, left

    def __missing__(self, name: str):
        if not any(name == f"{kind}_std" for kind in self._left):
            raise KeyError(name)
        self.update(_deviations(self._model.predict(self._atoms, uncertainty=self._left)))
        self._left = frozenset()
        return self[name]

    def get(self, name, default=None):
        """The value, or ``default`` where there is none."""
        try:
            return self[name]
        except KeyError:
            return default

    def __reduce__(self):
        return Results, (dict(self), self._model, self._atoms, self._left)


def _deviations(p: Prediction) -> dict:
    """Standard deviations of the first structure, where it has them."""
    found = {name: getattr(p, name) for name in STANDARD_DEVIATIONS}
    values = {name: value[0] for name, value in found.items() if value is not None and np.isfinite(value[0]).all()}
    return {name: value if np.ndim(value) else float(value) for name, value in values.items()}


class PotentialCalculator(ThreadedCalculator):
    """Energy, forces, stress and per-atom energies for `ase.Atoms`, with standard deviations in ``results``.

    ``results`` holds energy, free_energy (the same), energies, forces, stress (three-dimensional cells only) and, as asked for by
    ``uncertainty``, energy_std, energies_std, forces_std, stress_std; units eV, Å. ``results["outside"]`` is True where atoms are closer
    than in the training data, as in `Prediction`. Threads can share a calculator: each has ``results`` of its own.

    Parameters
    ----------
    model : a fitted potential.
    uncertainty : as in `Potential.predict`.
    every : standard deviations cost more than energies and forces: they are computed with a new structure (of other elements, or periodic
        in other directions) and with every so many steps of one; in between when they are read, ``calc.results["energy_std"]``.

    Raises
    ------
    InputError : ``every`` is no positive integer, or ``uncertainty`` names something else.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", *STANDARD_DEVIATIONS]

    def __init__(self, model: Potential, uncertainty: bool | Iterable[str] = ("energy",), every: int = EVERY, **kwargs):
        super().__init__(**kwargs)
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InputError(f"`every` must be a positive integer, received {every!r}.")
        self.model = model
        self.uncertainty, self.every = wanted_uncertainties(uncertainty), int(every)
        self._without = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Called by ASE; everything but the uncertainties that are not asked for, or not due, is computed at once."""
        super().calculate(atoms, properties, system_changes)
        wanted = self._wanted(properties, system_changes)
        p = self.model.predict(self.atoms, uncertainty=wanted)
        energy = float(p.energy[0])
        results = {"energy": energy, "free_energy": energy, "energies": p.energies[0], "forces": p.forces[0]}
        if np.isfinite(p.stress[0]).all():
            results["stress"] = p.stress[0]
        if p.outside is not None:
            results["outside"] = bool(p.outside[0])
        self.results = Results(results | _deviations(p), self.model, self.atoms, self.uncertainty - wanted)

    def _wanted(self, properties, system_changes) -> frozenset[str]:
        """Standard deviations to compute now."""
        named = [name for name in UNCERTAINTIES if f"{name}_std" in properties]
        self._without += 1
        if self._without < self.every and not {"numbers", "pbc"} & set(system_changes):
            return wanted_uncertainties(named)
        self._without = 0
        return self.uncertainty | wanted_uncertainties(named)
