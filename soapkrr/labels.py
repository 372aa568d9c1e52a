"""Reference energies, forces and stresses carried by structures; NaN marks what a structure does not have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from soapkrr.errors import LabelError


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one structure: energy eV (NaN if missing), forces (n_atoms, 3) eV/Å or None, stress (6,) eV/Å³ or None."""

    energy: float
    forces: np.ndarray | None
    stress: np.ndarray | None

    @property
    def empty(self) -> bool:
        return np.isnan(self.energy) and self.forces is None and self.stress is None

    @classmethod
    def of(cls, atoms: Atoms, index: int) -> Labels:
        """Read and check the labels of frame ``index``, as stored by its single-point calculator; nothing is computed.

        Raises
        ------
        LabelError : wrong shape, NaN or infinite values, or a stress without a three-dimensional cell.
        """
        return cls(_energy(atoms, index), _forces(atoms, index), _stress(atoms, index))


def _stored(atoms: Atoms, name: str, index: int) -> np.ndarray | None:
    if atoms.calc is None or getattr(atoms.calc, "results", {}).get(name) is None:
        return None
    if atoms.calc.check_state(atoms):
        raise LabelError(f"frame {index} was changed after its labels were computed: the stored {name} does not belong to it any more.")
    try:
        return np.asarray(atoms.calc.results[name], dtype=float)
    except (TypeError, ValueError) as error:
        raise LabelError(f"frame {index}: `{name}` is not made of numbers: {atoms.calc.results[name]!r}.") from error


def _energy(atoms: Atoms, index: int) -> float:
    energy = _stored(atoms, "energy", index)
    if energy is None:
        return np.nan
    if energy.size != 1:
        raise LabelError(f"frame {index}: `energy` has shape {energy.shape}, expected one number, the total energy.")
    if not np.isfinite(energy).all():
        raise LabelError(f"frame {index}: energy {energy.item()} is not finite; correct or remove it.")
    return energy.item()


def _forces(atoms: Atoms, index: int) -> np.ndarray | None:
    forces = _stored(atoms, "forces", index)
    if forces is None:
        return None
    if forces.shape != (len(atoms), 3):
        raise LabelError(f"frame {index}: `forces` has shape {forces.shape}, expected {(len(atoms), 3)}.")
    bad = np.flatnonzero(~np.isfinite(forces).all(axis=1))
    if len(bad):
        raise LabelError(f"frame {index}, atom {bad[0]}: force {forces[bad[0]]} is not finite; correct or remove the forces.")
    return forces


def _stress(atoms: Atoms, index: int) -> np.ndarray | None:
    stress = _stored(atoms, "stress", index)
    if stress is None:
        return None
    if stress.shape == (3, 3):
        stress = full_3x3_to_voigt_6_stress(stress)
    if stress.shape != (6,):
        raise LabelError(f"frame {index}: `stress` has shape {stress.shape}, expected (6,) in Voigt order or (3, 3).")
    if not np.isfinite(stress).all():
        raise LabelError(f"frame {index}: stress {stress} is not finite; correct or remove it.")
    if not atoms.pbc.all():
        raise LabelError(f"frame {index} has a stress but is not periodic in three directions: set `pbc` or remove the stress.")
    return stress


def read_labels(frames: list[Atoms]) -> list[Labels]:
    """Labels of every frame; raises when none has any."""
    labels = [Labels.of(atoms, index) for index, atoms in enumerate(frames)]
    if all(label.empty for label in labels):
        raise LabelError(
            f"none of the {len(frames)} structures has an energy, forces or a stress. soapkrr reads the results of the structures' "
            "calculator (`atoms.calc.results`); extended-XYZ files need the keys energy, forces and stress."
        )
    return labels
