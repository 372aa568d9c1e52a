"""The one named list of systems on which the physics is tested, and labels for them.

Every system is small, generic (seeded rattles, no symmetry left) and stands for one way in which cells, boundaries or
compositions can go wrong.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from reference import neighbours

from soapkrr import SOAP

#: Cutoff of the tests' descriptors, Å: larger than the primitive cell below.
R_CUT = 4.0


def _rattled(atoms: Atoms, seed: int, size: float = 0.08) -> Atoms:
    atoms.positions += np.random.default_rng(seed).normal(scale=size, size=(len(atoms), 3))
    return atoms


def _molecule() -> Atoms:
    return _rattled(molecule("CH3CH2OH"), 1)


def _slab() -> Atoms:
    return _rattled(fcc111("Al", (2, 1, 3), vacuum=6.0, orthogonal=False, periodic=False), 2)


def _wire_x() -> Atoms:
    """Periodic along x only, zero cell vectors across."""
    return _rattled(Atoms("Au4", positions=[[0, 0, 0], [1.4, 2.2, 0], [2.8, 0, 0.3], [4.2, 2.2, 0.1]], cell=[5.6, 0, 0], pbc=[1, 0, 0]), 3)


def _wire_z() -> Atoms:
    """Periodic along z only, in a box."""
    return _rattled(Atoms("C3", positions=[[4, 4, 0], [4.7, 4, 1.1], [4, 4.5, 2.4]], cell=[9, 9, 3.6], pbc=[0, 0, 1]), 4)


def _skewed() -> Atoms:
    """Diamond in a cell with angles near 30 and 150 degrees."""
    atoms = bulk("Si").repeat((1, 2, 1))
    a, b, c = atoms.cell.array
    atoms.set_cell([a, b + 2 * a, c - 2 * b], scale_atoms=False)
    return _rattled(atoms, 5)


def _primitive() -> Atoms:
    """Two atoms in a cell smaller than the cutoff: atoms are neighbours of their own images."""
    return _rattled(bulk("Si"), 6)


def _mixed() -> Atoms:
    """A layer, periodic along the first two vectors, the third cell vector zero."""
    positions = [[0.0, 0.0, 0.0], [1.45, 0.1, 0.2], [0.7, 1.3, -0.1], [2.1, 1.3, 0.1]]
    return _rattled(Atoms("BNBN", positions=positions, cell=[[2.9, 0, 0], [0.4, 2.6, 0], [0, 0, 0]], pbc=[1, 1, 0]), 7)


def _alloy() -> Atoms:
    """Three species, fully periodic."""
    positions = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) * 3.9
    return _rattled(Atoms("SrTiO3", positions=positions, cell=[3.9, 3.9, 4.1], pbc=True), 8)


def _atom() -> Atoms:
    return Atoms("Ar", positions=[[0.3, -0.2, 5.0]])


def _dimer() -> Atoms:
    return Atoms("HCl", positions=[[0.1, 0.2, 0.3], [0.9, 0.8, 1.1]])


def _unwrapped() -> Atoms:
    """Atoms many cells away from the unit cell."""
    atoms = _rattled(bulk("Cu", cubic=True), 9)
    atoms.positions += np.array([[0, 0, 0], [3, -2, 1], [-1, 0, 4], [0, 5, -2]]) @ atoms.cell.array
    return atoms


def _vacancy() -> Atoms:
    atoms = bulk("Si", cubic=True)
    del atoms[3]
    return _rattled(atoms, 10)


_BUILDERS = {
    "molecule": _molecule,
    "slab": _slab,
    "wire-x": _wire_x,
    "wire-z": _wire_z,
    "skewed": _skewed,
    "primitive": _primitive,
    "mixed": _mixed,
    "alloy": _alloy,
    "atom": _atom,
    "dimer": _dimer,
    "unwrapped": _unwrapped,
    "vacancy": _vacancy,
}

#: Every system; those with a periodic axis; those with a stress; those with forces that do not vanish.
SYSTEMS = tuple(_BUILDERS)
PERIODIC = tuple(name for name in SYSTEMS if _BUILDERS[name]().pbc.any())
BULK = tuple(name for name in SYSTEMS if _BUILDERS[name]().pbc.all())


def build(name: str) -> Atoms:
    """A fresh copy of the system."""
    return _BUILDERS[name]()


def species(name: str) -> list[str]:
    return sorted(set(build(name).get_chemical_symbols()))


def small_soap(names, **changes) -> SOAP:
    """A descriptor small enough to run everywhere."""
    return SOAP(**{"species": names, "r_cut": R_CUT, "n_max": 3, "l_max": 3, "sigma": 0.5, **changes})


def variations(name: str, n: int, seed: int = 0, rattle: float = 0.1, strain: float = 0.03) -> list[Atoms]:
    """``n`` rattled and strained copies of a system, labelled by `pair_potential`."""
    rng = np.random.default_rng([seed, *name.encode()])
    frames = []
    for _ in range(n):
        atoms = build(name)
        distort(atoms, np.eye(3) + rng.normal(scale=strain, size=(3, 3)))
        atoms.positions += rng.normal(scale=rattle, size=(len(atoms), 3))
        frames.append(labelled(atoms))
    return frames


def distort(atoms: Atoms, F: np.ndarray) -> Atoms:
    """Map every point r ↦ F r in place: positions and cell, periodic or not."""
    atoms.set_cell(atoms.cell.array @ F.T, scale_atoms=False)
    atoms.positions = atoms.positions @ F.T
    return atoms


def pair_potential(atoms: Atoms, r_cut: float = R_CUT) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces and the strain derivative (3, 3) of ½ Σ_ij A_ij exp(−r/ρ) (1 − r²/r_c²)³, A_ij depends on both species."""
    i, j, r = neighbours(atoms, r_cut)
    d = np.linalg.norm(r, axis=1)
    A = 0.5 * (-1.0) ** (atoms.numbers[i] + atoms.numbers[j]) * (1 + 0.1 * np.cos(atoms.numbers[i] * atoms.numbers[j]))
    rho, s = 1.2, 1 - (d / r_cut) ** 2
    energy = A * np.exp(-d / rho) * s**3
    slope = A * np.exp(-d / rho) * (-(s**3) / rho - 6 * s**2 * d / r_cut**2)
    g = (slope / d)[:, None] * r
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, g)
    np.add.at(forces, j, -g)
    return 10 * energy.sum(), 10 * forces, 10 * np.einsum("pa,pb->ab", r, g)


def labelled(atoms: Atoms, kinds: tuple[str, ...] = ("energy", "forces", "stress")) -> Atoms:
    """The same object with the labels ``kinds`` of `pair_potential`; a stress only where there is a three-dimensional cell."""
    energy, forces, strain = pair_potential(atoms)
    results = {"energy": energy, "forces": forces}
    if atoms.pbc.all():
        stress = strain / atoms.get_volume()
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **{kind: value for kind, value in results.items() if kind in kinds})
    return atoms
