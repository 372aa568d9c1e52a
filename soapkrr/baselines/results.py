"""What a calculator says of one structure, or why it says nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorError, PropertyNotImplementedError

from soapkrr.lazy import cached_property
from soapkrr.structures import Batch
from soapkrr.threads import held_at_fork

#: What calculators raise where they do not get along with a structure; anything else is a mistake in them.
FAILURES = (CalculatorError, ArithmeticError, LookupError, OSError, RuntimeError, ValueError)

#: Calculators keep the last structure: one calculation at a time.
_ONE_AT_A_TIME = held_at_fork(Lock())


@dataclass(frozen=True, eq=False)
class Structure:
    """Numbers, positions, cell and periodic directions: all that a prior mean may depend on."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms) -> Structure:
        return cls(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)

    @classmethod
    def all_of(cls, batch: Batch) -> Iterator[Structure]:
        """Those of a batch."""
        for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            yield cls(batch.numbers[a:b], batch.positions[a:b], batch.cells[s], batch.pbc[s])

    @cached_property
    def key(self) -> bytes:
        """SHA-256 of it."""
        kinds = (("<i8", self.numbers), ("<f8", self.positions), ("<f8", self.cell), ("?", self.pbc))
        return hashlib.sha256(b"|".join(np.ascontiguousarray(part, dtype=kind).tobytes() for kind, part in kinds)).digest()

    @property
    def atoms(self) -> Atoms:
        return Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)


@dataclass(frozen=True, eq=False)
class Result:
    """Energies of atoms (n_atoms,) eV, forces (n_atoms, 3) eV/Å, stress times volume (6,) eV, NaN where there is none."""

    energies: np.ndarray
    forces: np.ndarray
    strain: np.ndarray


def calculated(calculator: BaseCalculator, structure: Structure, afresh: bool = False) -> Result | str:
    """What a calculator gives, or why it gives nothing, to be said after "the calculator of `baseline` …".

    ``afresh``: it forgets what came before, so that results do not depend on the order of structures.
    """
    atoms = structure.atoms
    with _ONE_AT_A_TIME:
        if afresh and hasattr(calculator, "reset"):
            calculator.reset()
        try:
            energy = float(calculator.get_property("energy", atoms))
            forces = np.array(calculator.get_property("forces", atoms), dtype=float)
            if not (np.isfinite(energy) and np.isfinite(forces).all()):
                return "gives values that are not finite"
            return Result(_energies(calculator, atoms, energy), forces, _strain(calculator, atoms))
        except FAILURES as error:
            return f"fails, {type(error).__name__}: {' '.join(str(error).split()) or 'it does not say why'}"


def _energies(calculator: BaseCalculator, atoms: Atoms, energy: float) -> np.ndarray:
    """Its own energies of atoms where they sum to the total, else equal shares."""
    own = np.asarray(getattr(calculator, "results", {}).get("energies", np.nan), dtype=float)
    fits = own.shape == (len(atoms),) and abs(own.sum() - energy) <= 1e-8 * max(1.0, abs(energy))
    return own.copy() if fits else np.full(len(atoms), energy / len(atoms))


def _strain(calculator: BaseCalculator, atoms: Atoms) -> np.ndarray:
    """Stress times volume; NaN where there is none."""
    if not atoms.pbc.all():
        return np.full(6, np.nan)
    try:
        return np.array(calculator.get_property("stress", atoms), dtype=float) * atoms.get_volume()
    except (PropertyNotImplementedError, NotImplementedError):
        return np.full(6, np.nan)
