"""Structures at rest on a potential, the symmetry that they keep, and how they move with what the potential is taught.

Coordinates are a symmetric strain ε and displacements u of the atoms: cell a(1 + ε), positions (1 + ε)(r + u). Where the energy is least,
its gradient g vanishes, whatever the labels; so a change δg of the gradient at this structure moves it by δx = −H⁻¹ δg, with H the Hessian
in the same coordinates. A group of symmetry leaves few of them, for g never leaves the invariant subspace.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from soapkrr.errors import InputError, installing
from soapkrr.lazy import cached_property
from soapkrr.observables.source import Source
from soapkrr.structure_checks import check_structure
from soapkrr.uncertainty import Observable

#: Largest component of the gradient of a structure at rest, eV/Å, and steps of the search.
TOLERANCE, STEPS = 1e-5, 400

#: Longest step, Å, and curvature to start from, eV/Å².
LONGEST, CURVATURE = 0.2, 20.0

#: Displacement of finite differences of gradients, Å.
STEP = 0.01

#: Tolerance of symmetry, Å.
SYMPREC = 1e-4


@dataclass(frozen=True, eq=False)
class Modes:
    """Coordinates x (k,) of a structure: orthonormal directions of strain and displacement.

    Attributes
    ----------
    atoms : the structure at x = 0.  strains : (k, 3, 3).  displacements : (k, n_atoms, 3), Å.
    """

    atoms: Atoms
    strains: np.ndarray
    displacements: np.ndarray

    def __len__(self) -> int:
        return len(self.strains)

    def at(self, x: np.ndarray) -> Atoms:
        """The structure at x."""
        deformation = np.eye(3) + np.tensordot(x, self.strains, 1)
        moved = Atoms(self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc)
        moved.set_cell(self.atoms.cell.array @ deformation)
        moved.positions = (self.atoms.positions + np.tensordot(x, self.displacements, 1)) @ deformation
        return moved

    def weights(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (k, n_atoms, 3) of g by the forces and (k, 6) by the stress at x."""
        deformation = np.eye(3) + np.tensordot(x, self.strains, 1)
        of_forces = -self.displacements @ deformation
        if not self.strains.any():
            return of_forces, np.zeros((len(self), 6))
        volume = abs(np.linalg.det(self.atoms.cell.array @ deformation))
        shear = np.linalg.solve(deformation, self.strains)
        of_stress = volume * full_3x3_to_voigt_6_stress(0.5 * (shear + np.swapaxes(shear, 1, 2)))
        of_stress[:, 3:] *= 2
        return of_forces, of_stress

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a gradient is made of."""
        return ("energy", "forces", "stress") if self.strains.any() else ("energy", "forces")


def modes_of(atoms: Atoms, cell: bool, symmetric: bool = True) -> Modes:
    """All coordinates of a structure but motion and, of molecules, rotation of the whole; with symmetry only those that keep it.

    Raises
    ------
    InputError : ``atoms`` make no sense (not an `ase.Atoms`, not finite, a periodic direction without a cell vector), a cell that is not
        three-dimensional is to relax, or spglib is not installed.
    """
    check_structure(atoms, 0)
    n, periodic = len(atoms), bool(atoms.pbc.all())
    if cell and not periodic:
        raise InputError(f"`atoms` must be periodic in three directions for its cell to relax, received `pbc`={atoms.pbc.tolist()}.")
    P = _invariant(atoms) if symmetric and periodic and (cell or n > 1) else np.eye(9 + 3 * n)
    sym = np.zeros((9, 9))
    for i in range(3):
        for j in range(3):
            sym[3 * i + j, 3 * i + j] += 0.5
            sym[3 * i + j, 3 * j + i] += 0.5
    size = np.sqrt(n) * atoms.get_volume() ** (1 / 3) if cell else 1.0
    P[:9] = sym @ P[:9] if cell else 0.0
    P[:, :9] = P[:, :9] @ sym if cell else 0.0
    keep = np.eye(9 + 3 * n)
    keep[9:, 9:] -= _rigid(atoms)
    values, vectors = np.linalg.eigh(keep @ (0.5 * (P + P.T)) @ keep)
    found = vectors[:, values > 0.99].T
    return Modes(atoms.copy(), found[:, :9].reshape(-1, 3, 3) / size, found[:, 9:].reshape(len(found), n, 3))


def modes_along(atoms: Atoms, axis: int) -> Modes:
    """Displacements of the atoms along one axis, but for that of the whole."""
    n = len(atoms)
    u = np.linalg.svd(np.ones((1, n)))[2][1:]
    displacements = np.zeros((n - 1, n, 3))
    displacements[:, :, axis] = u
    return Modes(atoms.copy(), np.zeros((n - 1, 3, 3)), displacements)


def _rigid(atoms: Atoms) -> np.ndarray:
    """(3n, 3n) projector on displacements of the whole, and rotations of a molecule."""
    x = atoms.positions - atoms.positions.mean(axis=0)
    moves = [np.tile(e, len(x)) for e in np.eye(3)]
    if not atoms.pbc.any():
        moves += [np.cross(e, x).ravel() for e in np.eye(3)]
    u, s, _ = np.linalg.svd(np.array(moves).T, full_matrices=False)
    u = u[:, s > 1e-6 * s.max()]
    return u @ u.T


def operations(atoms: Atoms, symprec: float = SYMPREC) -> tuple[np.ndarray, list[np.ndarray]]:
    """(n, 3, 3) Cartesian rotations of the space group, and where each takes every atom.

    Raises
    ------
    InputError : spglib is not installed, or finds no symmetry.
    """
    dataset = symmetry(atoms, symprec)
    cell, s = atoms.cell.array, atoms.get_scaled_positions(wrap=False)
    rotations, places = [], []
    for W, t in zip(dataset.rotations, dataset.translations, strict=True):
        rotations.append(cell.T @ W @ np.linalg.inv(cell.T))
        gap = (s @ W.T + t)[:, None] - s[None]
        gap -= np.round(gap)
        places.append(np.argmin(np.linalg.norm(gap @ cell, axis=2), axis=1))
    return np.array(rotations), places


def symmetry(atoms: Atoms, symprec: float = SYMPREC):
    """What spglib says of a crystal."""
    try:
        import spglib
    except ImportError as error:
        raise InputError(f"symmetry needs spglib, which is not installed: {installing('observables')}.") from error
    dataset = None
    with warnings.catch_warnings(), contextlib.suppress(spglib.SpglibError):
        # Whether a failure is an error or None is a switch of spglib for the whole process, which is the user's, and warns.
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec)
    if dataset is None:
        raise InputError(f"spglib finds no space group of {atoms.symbols}; check that no atoms coincide.")
    return dataset


def _invariant(atoms: Atoms) -> np.ndarray:
    """(9 + 3n, 9 + 3n) projector on strains and displacements that keep every symmetry."""
    n = len(atoms)
    rotations, places = operations(atoms)
    P = np.zeros((9 + 3 * n, 9 + 3 * n))
    blocks = P[9:, 9:].reshape(n, 3, n, 3)
    for R, to in zip(rotations, places, strict=True):
        P[:9, :9] += np.kron(R, R)
        blocks[to, :, np.arange(n), :] += R
    return P / len(rotations)


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """A structure at rest.

    Attributes
    ----------
    source, atoms : the structure as it is at rest.  modes : coordinates from there.
    """

    source: Source
    atoms: Atoms
    modes: Modes

    @cached_property
    def hessian(self) -> np.ndarray:
        """(k, k) second derivatives of the energy by central differences of gradients."""
        k = len(self.modes)
        if not k:
            return np.zeros((0, 0))
        x = [sign * STEP * e for e in np.eye(k) for sign in (1, -1)]
        g = gradients(self.source, self.modes, x)[1].reshape(k, 2, k)
        H = (g[:, 0] - g[:, 1]) / (2 * STEP)
        return 0.5 * (H + H.T)

    @cached_property
    def shifts(self) -> list[Observable]:
        """How far labels move each coordinate, δx = −H⁻¹ δg, as linear functionals of mean 0; none of a calculator."""
        if self.source.certain or not len(self.modes):
            return []
        points = self.source.predict([self.atoms], self.modes.kinds)
        of_forces, of_stress = self.modes.weights(np.zeros(len(self.modes)))
        J = -np.linalg.pinv(self.hessian, rcond=1e-8, hermitian=True)
        stress = np.tensordot(J, of_stress, 1)[:, None] if "stress" in self.modes.kinds else None
        return points.observables(np.zeros(len(J)), forces=[np.tensordot(J, of_forces, 1)], stress=stress)

    def derivatives(self, function) -> np.ndarray:
        """(k, m) central differences of a function of the structure, of (m,) values, along each coordinate."""
        steps = [sign * STEP * e for e in np.eye(len(self.modes)) for sign in (1, -1)]
        values = np.array([np.ravel(function(self.modes.at(x))) for x in steps])
        return (values[::2] - values[1::2]) / (2 * STEP)


def gradients(source: Source, modes: Modes, x: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) energies and (n, k) gradients at n points."""
    p = source.predict([modes.at(one) for one in x], modes.kinds)
    g = np.empty((len(x), len(modes)))
    for k, (one, f, s) in enumerate(zip(x, p.forces, p.stress, strict=True)):
        of_forces, of_stress = modes.weights(one)
        g[k] = np.tensordot(of_forces, f, 2) + of_stress @ np.where(np.isfinite(s), s, 0.0)
    return p.energy, g


def at_rest(source: Source, atoms: Atoms, cell: bool, symmetric: bool = True) -> Equilibrium:
    """The structure of least energy that is reached from ``atoms``, with all of its symmetry, with or without the cell.

    Raises
    ------
    InputError : it does not come to rest.
    """
    modes = modes_of(atoms, cell, symmetric)
    settled = descended(source, modes)
    # A strain that keeps the symmetry leaves the invariant directions as they are.
    return Equilibrium(source, settled, Modes(settled, modes.strains, modes.displacements))


def descended(source: Source, modes: Modes) -> Atoms:
    """The structure of least energy along these coordinates.

    Quasi-Newton steps (BFGS, curvatures taken as positive, none longer than `LONGEST`) until no component of the gradient is above
    `TOLERANCE`.

    Raises
    ------
    InputError : it does not come to rest.
    """
    x, H = np.zeros(len(modes)), CURVATURE * np.eye(len(modes))
    _, (g,) = gradients(source, modes, [x])
    for _ in range(STEPS):
        if not np.abs(g).max(initial=0.0) > TOLERANCE:
            return modes.at(x)
        values, vectors = np.linalg.eigh(H)
        step = -vectors @ ((vectors.T @ g) / np.maximum(np.abs(values), 0.1))
        step *= min(1.0, LONGEST / np.abs(step).max())
        _, (new,) = gradients(source, modes, [x + step])
        H = _updated(H, step, new - g)
        x, g = x + step, new
    raise InputError(
        f"{modes.atoms.symbols} does not come to rest: after {STEPS} steps the gradient is {np.abs(g).max():.2g} eV/Å, expected below "
        f"{TOLERANCE:g}. The potential may not know this structure; start nearer to its minimum, or look at `predict(atoms).outside`."
    )


def _updated(H: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    along, bent = step @ change, H @ step
    return H if abs(along) < 1e-12 else H + np.outer(change, change) / along - np.outer(bent, bent) / (step @ bent)


def check_rest(source: Source, atoms: Atoms, cell: bool, bound: float = 0.02, pressure: float = 2e-3) -> Equilibrium:
    """``atoms`` as they are, as an `Equilibrium`; raises `InputError` where forces or stress (eV/Å³) say that it is none."""
    p = source.predict([atoms], ("energy", "forces", "stress") if cell else ("energy", "forces"))
    force, stress = np.abs(p.forces[0]).max(), np.abs(p.stress[0]).max() if cell else 0.0
    if force > bound or stress > pressure:
        what = f"forces up to {force:.3g} eV/Å" + f" and a stress up to {stress * 160.2177:.3g} GPa" * cell
        raise InputError(f"`atoms` are not at rest on this model: {what}. Relax them first, which `relax=True` does.")
    return Equilibrium(source, atoms.copy(), modes_of(atoms, cell))


def full_stress(stress: np.ndarray) -> np.ndarray:
    """(3, 3) from Voigt order."""
    return voigt_6_to_full_3x3_stress(stress)
