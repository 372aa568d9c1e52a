"""Force constants by phonopy, and frequencies as functions of forces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from soapkrr.errors import InputError, installing, require_positive
from soapkrr.observables.geometry import STEP, Equilibrium
from soapkrr.observables.source import Points, Source, shifted
from soapkrr.observables.vibrations import THZ
from soapkrr.uncertainty import Observable

#: Frequencies below this are those of motion of the whole, or too low to count, THz.
ZERO = 0.02

#: eV per THz.
QUANTUM = units._hplanck * 1e12 / units._e

#: Frequencies, THz, closer than this are one degenerate set.
DEGENERATE = 1e-3


def need_phonopy():
    """The module; raises `InputError` where it is not installed."""
    try:
        import phonopy
    except ImportError as error:
        raise InputError(f"phonons need phonopy, which is not installed: {installing('observables')}.") from error
    return phonopy


@dataclass(frozen=True)
class Displacements:
    """Which supercells, displaced by how far (Å); ``central``: in both directions, also where symmetry makes one enough."""

    supercell: Any
    distance: float = 0.01
    central: bool = False

    def __post_init__(self):
        given = np.asarray(self.supercell)
        whole = given.dtype.kind == "i" and given.shape in ((3,), (3, 3))
        if not whole or round(np.linalg.det(np.diag(given) if given.ndim == 1 else given)) == 0:
            raise InputError(
                f"`supercell` must be (3,) or (3, 3) integers that span a cell, such as (2, 2, 2), received {self.supercell!r}."
            )
        require_positive(distance=self.distance)


class ForceConstants:
    """Force constants of one crystal as a linear function of the forces of its displaced supercells.

    Attributes
    ----------
    phonon : `phonopy.Phonopy`.  points : the displaced supercells.
    """

    def __init__(self, source: Source, atoms: Atoms, displacements: Displacements):
        phonopy = need_phonopy()
        from phonopy.structure.atoms import PhonopyAtoms

        cell = PhonopyAtoms(atoms.get_chemical_symbols(), cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions())
        supercell = np.asarray(displacements.supercell)
        matrix = np.diag(supercell) if supercell.ndim == 1 else supercell
        self.phonon = phonopy.Phonopy(cell, matrix, primitive_matrix=np.eye(3))
        self.phonon.generate_displacements(distance=displacements.distance, is_plusminus=displacements.central or "auto")
        frames = [
            Atoms(s.symbols, scaled_positions=s.scaled_positions, cell=s.cell, pbc=True) for s in self.phonon.supercells_with_displacements
        ]
        self.points: Points = source.predict(frames, ("energy", "forces"))
        self.set(np.array(self.points.forces))

    def set(self, forces: np.ndarray) -> None:
        """Take the force constants of these forces (n, n_atoms, 3)."""
        self.phonon.forces = forces
        self.phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False, fc_calculator="traditional")

    def matrices(self, q: np.ndarray) -> np.ndarray:
        """(n_q, 3n, 3n) dynamical matrices, eV/(Å²·u)."""
        found = []
        for one in q:
            self.phonon.dynamical_matrix.run(one)
            found.append(self.phonon.dynamical_matrix.dynamical_matrix.copy())
        return np.array(found)

    def modes(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n_q, 3n) ascending ω², eV/(Å²·u), and (n_q, 3n, 3n) eigenvectors in columns."""
        self.set(np.array(self.points.forces))
        return np.linalg.eigh(self.matrices(q))

    def derivatives(self, q: np.ndarray, values: np.ndarray, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(m, n_forces) derivatives of Σ weights (m, n_q, 3n) ω² by each force: e†(∂D/∂F)e, the mean over degenerate sets.

        Force constants are a linear function of the forces, D of them; a force after the other is set to 1.
        """
        shape = np.array(self.points.forces).shape
        average = _degenerate(values)
        J = np.empty((len(weights), int(np.prod(shape))))
        for k in range(J.shape[1]):
            one = np.zeros(J.shape[1])
            one[k] = 1.0
            self.set(one.reshape(shape))
            slopes = np.einsum("qiv,qij,qjv->qv", vectors.conj(), self.matrices(q), vectors, optimize=True).real
            J[:, k] = np.tensordot(weights, np.einsum("qvw,qw->qv", average, slopes), 2)
        self.set(np.array(self.points.forces))
        return J


def _degenerate(values: np.ndarray) -> np.ndarray:
    """(n_q, n, n) matrices that average over frequencies that are equal."""
    f = np.sign(values) * np.sqrt(np.abs(values)) * THZ
    same = np.abs(f[:, :, None] - f[:, None]) < DEGENERATE
    return same / same.sum(axis=2, keepdims=True)


def by_square(values: np.ndarray) -> np.ndarray:
    """df/dω², THz; nothing where the frequency vanishes."""
    f = np.sqrt(np.abs(values)) * THZ
    return np.where(f > ZERO, THZ**2 / (2 * np.maximum(f, ZERO)), 0.0)


def helmholtz(values: np.ndarray, w: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) harmonic free energies, eV per cell, and their derivatives (m, n_q, n) by frequencies in THz."""
    real = values > (ZERO / THZ) ** 2
    quantum = QUANTUM * np.sqrt(np.where(real, values, 1.0)) * THZ
    F, by_f = np.empty(len(T)), np.empty((len(T), *values.shape))
    for k, temperature in enumerate(T):
        kT = units.kB * max(temperature, 1e-6)
        occupied = np.exp(-np.minimum(quantum / kT, 700.0))
        energy, slope = 0.5 * quantum + kT * np.log1p(-occupied), 0.5 + occupied / (1 - occupied)
        F[k] = np.sum(w[:, None] * np.where(real, energy, 0.0))
        by_f[k] = w[:, None] * np.where(real, slope * QUANTUM, 0.0)
    return F, by_f


def linearised(rest: Equilibrium, constants: ForceConstants, around, q, modes, weights) -> list[Observable]:
    """Observables of mean 0 with derivatives ``weights`` (m, n_q, n) by ω², the motion of the crystal at rest included."""
    J = constants.derivatives(q, *modes, weights)
    n, atoms = len(constants.points.frames), len(constants.points.frames[0])
    forces = list(np.moveaxis(J.reshape(len(J), n, atoms, 3), 1, 0))
    linear = constants.points.observables(np.zeros(len(J)), forces=forces)
    if not around:
        return linear
    slopes = [np.tensordot(weights, (up.modes(q)[0] - down.modes(q)[0]) / (2 * STEP), 2) for up, down in around]
    return [shifted(one, [s[m] for s in slopes], rest.shifts) for m, one in enumerate(linear)]


def frequencies(rest: Equilibrium, constants: ForceConstants, around, q) -> tuple[np.ndarray, list[Observable]]:
    """(n_q, n) THz, imaginary ones negative, and their linearisations, none of a calculator."""
    values, vectors = constants.modes(q)
    f = np.sign(values) * np.sqrt(np.abs(values)) * THZ
    f[np.abs(f) < ZERO] = 0.0  # motion of the whole, but for rounding
    if rest.source.certain:
        return f, []
    weights = (np.eye(values.size).reshape(-1, *values.shape) * by_square(values)).reshape(-1, *values.shape)
    linear = linearised(rest, constants, around, q, (values, vectors), weights)
    return f, [one + float(x) for one, x in zip(linear, f.ravel(), strict=True)]
