"""One reference calculation, checked before anything learns from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixAtoms

from soapkrr.active.surrogate import Reference
from soapkrr.errors import InputError


@dataclass(frozen=True)
class HeldReference(Reference):
    """A calculation for differences of energy.

    Its energy is trusted to σ√N, not σN, of N atoms: a barrier of a large structure is as sharp as one of a small one. Forces on atoms that
    never move are not learnt, which spares most rows of a deep slab.
    """

    def labelled(self) -> Atoms:
        """See `Reference.labelled`."""
        atoms = super().labelled()
        atoms.info["energy_noise"] /= np.sqrt(len(atoms))
        atoms.set_array("force_mask", held(self.atoms))
        return atoms


def held(atoms: Atoms) -> np.ndarray:
    """(n_atoms,) True where an atom is fixed."""
    mask = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            mask[constraint.index] = True
    return mask


def force_of(reference: HeldReference) -> float:
    """The largest force on an atom that is not fixed, eV/Å."""
    forces = np.where(held(reference.atoms)[:, None], 0.0, reference.forces)
    return float(np.linalg.norm(forces, axis=1).max())


def check_calculator(calculator, name: str = "reference") -> BaseCalculator:
    """The calculator; raises `InputError` where it is none."""
    if not hasattr(calculator, "get_property"):
        raise InputError(f"`{name}` must be an ASE calculator, such as `ase.calculators.emt.EMT()`, received {type(calculator).__name__}.")
    return calculator


def ask(calculator: BaseCalculator, atoms: Atoms, what: str = "the structure") -> HeldReference:
    """Energy and forces of a structure.

    Raises
    ------
    InputError : the calculator fails, has no forces, changes the structure, or gives values that are not finite; ``what`` names it.
    """
    asked = atoms.copy()
    asked.calc = calculator
    try:
        energy, forces = float(asked.get_potential_energy()), np.array(asked.get_forces(apply_constraint=False), dtype=float)
    except Exception as error:
        name = type(calculator).__name__
        raise InputError(f"`reference`: {name} gave no energy and forces of {what} ({type(error).__name__}: {error}).") from error
    if not (np.array_equal(asked.numbers, atoms.numbers) and np.array_equal(asked.positions, atoms.positions)):
        raise InputError(f"`reference`: {type(calculator).__name__} changed the atoms of {what}; it must calculate them as they are.")
    if forces.shape != (len(atoms), 3) or not (np.isfinite(energy) and np.isfinite(forces).all()):
        what = f"energy {energy} and forces of shape {forces.shape}, finite: {bool(np.isfinite(forces).all())}, of {what}"
        raise InputError(f"`reference`: {type(calculator).__name__} gave {what}; expected finite ones of shape {(len(atoms), 3)}.")
    return HeldReference(atoms.copy(), energy, forces)
