"""Hessian and harmonic vibrations of molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from soapkrr.errors import InputError
from soapkrr.observables.geometry import Equilibrium, Modes, at_rest, check_rest, modes_of
from soapkrr.observables.number import DELTA, Entry, Number, Result, numbers_of
from soapkrr.observables.source import Points, Source, as_source
from soapkrr.uncertainty import Observable

#: Displacement of the finite differences, Å.
STEP = 0.01

#: THz, and cm⁻¹, of the square root of an eigenvalue in eV/(Å²·u).
THZ = 1e-12 * np.sqrt(units._e / units._amu) * 1e10 / (2 * np.pi)
WAVENUMBER = THZ * 1e10 / units._c

#: Why a frequency is negative.
IMAGINARY = "imaginary: not a minimum along this mode; relax further, or from a structure without symmetry"


@dataclass(frozen=True, eq=False, repr=False)
class Vibrations(Result):
    """Frequencies ``mode 1`` … in cm⁻¹, ascending, without motion and rotation of the whole; imaginary ones negative and flagged.

    Attributes
    ----------
    numbers : {name: `Number`}; also ``zero_point``, eV, of the real ones.  hessian : (3n, 3n) eV/Å².
    modes : (n_modes, n_atoms, 3) displacements, mass-weighted ones over √m, Å·u^(−1/2).  atoms : the molecule at rest.
    """

    numbers: Mapping[str, Number]
    hessian: np.ndarray
    modes: np.ndarray
    atoms: Atoms

    @property
    def frequencies(self) -> np.ndarray:
        """(n_modes,) cm⁻¹, imaginary ones negative."""
        return np.array([n.value for n in self if n.unit == "cm⁻¹"])


def vibrations(model, molecule: Atoms, *, relax: bool = True) -> Vibrations:
    """Harmonic frequencies of a molecule, from central differences of forces, motion and rotation of the whole projected out.

    ω² are eigenvalues of M^(−1/2) H M^(−1/2); dω² = eᵀ dH e, and the geometry at rest moves with the labels, which counts through the third
    derivatives ∂H/∂x along each mode.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.  molecule : not periodic.
    relax : relax it first; False: it must be at rest, and bars are those at this geometry.

    Raises
    ------
    InputError : the structure is periodic (use `phonons`), a single atom, or not at rest and must not relax.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> round(float(vibrations(EMT(), molecule("N2"))["mode 1"]))  # cm⁻¹
    1231
    """
    source = as_source(model)
    if molecule.pbc.any() or len(molecule) < 2:
        raise InputError(
            f"`molecule` must have at least two atoms and no periodicity, received {molecule.symbols}, {molecule.pbc.tolist()}."
        )
    rest = at_rest(source, molecule, cell=False) if relax else check_rest(source, molecule, cell=False)
    points, H = hessian(source, rest.atoms)
    root = np.repeat(1 / np.sqrt(rest.atoms.get_masses()), 3)
    P = _internal(rest.atoms, root)
    values, vectors = np.linalg.eigh(P.T @ (root[:, None] * H * root) @ P)
    e = (P @ vectors).T * root
    linear: list[Observable] = []
    if not source.certain:
        linear = points.observables(values, forces=_by_forces(e, len(points.frames)))
        if relax:
            linear = _moved(source, rest, e, linear)
    entries = _entries(values, linear)
    return Vibrations(numbers_of(source, entries, DELTA), H, e.reshape(len(e), -1, 3), rest.atoms)


def hessian(source: Source, atoms: Atoms) -> tuple[Points, np.ndarray]:
    """Displaced structures, + and − of each coordinate, and (3n, 3n) second derivatives of the energy, eV/Å²."""
    modes = Modes(atoms, np.zeros((3 * len(atoms), 3, 3)), np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3))
    points = source.predict([modes.at(sign * STEP * x) for x in np.eye(len(modes)) for sign in (1, -1)], ("energy", "forces"))
    F = np.array([f.ravel() for f in points.forces])
    H = (F[1::2] - F[::2]) / (2 * STEP)
    return points, 0.5 * (H + H.T)


def _by_forces(e: np.ndarray, n: int) -> list[np.ndarray]:
    """Derivatives of eᵀHe by the forces of each displaced structure, (m, n_atoms, 3)."""
    return [(-1) ** (k + 1) * (e[:, k // 2, None] * e / (2 * STEP)).reshape(len(e), -1, 3) for k in range(n)]


def _internal(atoms: Atoms, root: np.ndarray) -> np.ndarray:
    """(3n, m) orthonormal mass-weighted displacements without motion and rotation of the whole."""
    x = atoms.positions - atoms.get_center_of_mass()
    rigid = np.array([*(np.tile(d, len(x)) for d in np.eye(3)), *(np.cross(d, x).ravel() for d in np.eye(3))]) / root
    u, s, _ = np.linalg.svd(rigid.T, full_matrices=True)
    return u[:, int((s > 1e-5 * s.max()).sum()) :]


def _moved(source: Source, rest: Equilibrium, e: np.ndarray, linear: list[Observable]) -> list[Observable]:
    """The same with the motion of the geometry: −(∂³E e e)·H⁻¹δg, of third derivatives by second differences of forces along each mode."""
    modes = modes_of(rest.atoms, cell=False)
    lengths = np.linalg.norm(e, axis=1)
    ends = [rest.atoms, *(_along(rest.atoms, sign * STEP * d / n) for d, n in zip(e, lengths, strict=True) for sign in (1, -1))]
    p = source.predict(ends, ("energy", "forces"))
    F = np.array([f.ravel() for f in p.forces])
    third = -(F[1::2] + F[2::2] - 2 * F[0]) / STEP**2 * lengths[:, None] ** 2
    by_modes = third @ modes.displacements.reshape(len(modes), -1).T
    J = -by_modes @ np.linalg.pinv(Equilibrium(source, rest.atoms, modes).hessian, rcond=1e-8, hermitian=True)
    here = source.predict([rest.atoms], ("energy", "forces"))
    extra = here.observables(np.zeros(len(J)), forces=[np.tensordot(J, -modes.displacements, 1)])
    return [a + b for a, b in zip(linear, extra, strict=True)]


def _along(atoms: Atoms, by: np.ndarray) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions + by.reshape(-1, 3))


def _entries(values: np.ndarray, linear: list[Observable]) -> list[Entry]:
    """Frequencies, and their zero-point energy."""
    entries, zero, total = [], Observable(), 0.0
    for k, value in enumerate(values):
        frequency = WAVENUMBER * np.sign(value) * np.sqrt(abs(value))
        slope = 0.5 * WAVENUMBER / np.sqrt(max(abs(value), 1e-6))
        one = (float(slope) * (linear[k] - float(value)) if linear else Observable()) + float(frequency)
        entries.append(Entry(f"mode {k + 1}", float(frequency), "cm⁻¹", one, "" if value > 0 else IMAGINARY))
        if value > 0:
            total += 0.5 * frequency * units.invcm
            zero = zero + float(0.5 * units.invcm) * one
    flag = "" if (values > 0).all() else "imaginary modes left out"
    return [*entries, Entry("zero_point", float(total), "eV", zero, flag)]
