"""Any ASE calculator as prior mean: the model learns the difference to it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

from soapkrr.baselines.base import Baseline
from soapkrr.errors import InputError
from soapkrr.structures import Batch, Mean

#: Structures whose results are kept; the oldest go first.
CACHE = 20_000


@dataclass(frozen=True, eq=False)
class CalculatorBaseline(Baseline):
    """Energies, forces and stress of an ASE calculator, computed once per structure and kept.

    A structure is its positions, atomic numbers, cell and periodic directions; nothing else (charges, magnetic moments, `info`) reaches the
    calculator. Per-atom energies are the calculator's own where it has them, else equal shares. Copies share the calculator and the
    results. A calculator is not saved with a model: pass it again, ``soapkrr.load(path, baseline_calculator=...)``.

    Parameters
    ----------
    calculator : an ASE calculator with energies and forces; with stress if the data have stresses.
    """

    calculator: BaseCalculator
    _results: OrderedDict = field(init=False, repr=False, default_factory=OrderedDict)

    def __post_init__(self):
        if not isinstance(self.calculator, BaseCalculator):
            raise InputError(f"`calculator` must be an ASE calculator, received {self.calculator!r}.")

    def __deepcopy__(self, memo) -> CalculatorBaseline:
        return self

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`."""
        parts = []
        for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            structure = (batch.numbers[a:b], batch.positions[a:b], batch.cells[s], batch.pbc[s])
            parts.append(self._cached(structure, batch.first + s))
        energies, forces, strain = zip(*parts, strict=True)
        return Mean(np.concatenate(energies), np.concatenate(forces), np.array(strain))

    def _cached(self, structure: tuple[np.ndarray, ...], index: int) -> tuple:
        key = hashlib.sha256(b"|".join(np.ascontiguousarray(part).tobytes() for part in structure)).digest()
        if key not in self._results:
            self._results[key] = self._calculate(structure, index)
            if len(self._results) > CACHE:
                self._results.popitem(last=False)
        return self._results[key]

    def _calculate(self, structure: tuple[np.ndarray, ...], index: int) -> tuple:
        numbers, positions, cell, pbc = structure
        atoms = Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)
        energy = self.calculator.get_property("energy", atoms)
        forces = np.array(self.calculator.get_property("forces", atoms), dtype=float)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise InputError(f"frame {index}: the calculator of `baseline` gives values that are not finite.")
        return self._energies(atoms, energy), forces, self._strain(atoms)

    def _energies(self, atoms: Atoms, energy: float) -> np.ndarray:
        own = np.asarray(getattr(self.calculator, "results", {}).get("energies", np.nan), dtype=float)
        fits = own.shape == (len(atoms),) and abs(own.sum() - energy) <= 1e-8 * max(1.0, abs(energy))
        return own.copy() if fits else np.full(len(atoms), energy / len(atoms))

    def _strain(self, atoms: Atoms) -> np.ndarray:
        """Stress times volume; NaN where there is none."""
        if not atoms.pbc.all():
            return np.full(6, np.nan)
        try:
            return np.array(self.calculator.get_property("stress", atoms), dtype=float) * atoms.get_volume()
        except (PropertyNotImplementedError, NotImplementedError):
            return np.full(6, np.nan)
