"""ASE calculators that threads can share: each thread has the structure and the results of its own last calculation."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator


class Calculation(NamedTuple):
    """A structure as it was, and what was computed of it."""

    atoms: Atoms | None
    results: dict[str, Any]


class ThreadedCalculator(Calculator):
    """`ase.calculators.calculator.Calculator` whose ``atoms`` and ``results`` are those of the thread that asks.

    A thread that has computed nothing yet sees the last calculation of any other. Copies and pickles hold what the copying thread sees.
    """

    def __init__(self, **kwargs):
        self._last, self._own = Calculation(None, {}), threading.local()
        super().__init__(**kwargs)
        self._own = threading.local()  # nothing was computed by the thread that made it

    @property
    def _calculation(self) -> Calculation:
        return getattr(self._own, "calculation", self._last)

    @property
    def atoms(self) -> Atoms | None:
        """The structure of the last calculation."""
        return self._calculation.atoms

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._own.calculation = self._calculation._replace(atoms=atoms)

    @property
    def results(self) -> dict[str, Any]:
        """What the last calculation gave."""
        return self._calculation.results

    @results.setter
    def results(self, results: dict[str, Any]) -> None:
        self._own.calculation = self._last = self._calculation._replace(results=results)

    def get_property(self, name, atoms=None, allow_calculation=True):
        """Called by ASE: compares structures, computes where they differ, and looks results up, all in one calculation."""
        seen, mine = self._calculation, hasattr(self._own, "calculation")
        self._own.calculation = seen
        try:
            return super().get_property(name, atoms, allow_calculation)
        finally:
            if not mine and self._own.calculation is seen:
                del self._own.calculation

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_own"} | {"_last": self._calculation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._own = threading.local()
