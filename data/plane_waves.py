"""Labels by GPAW in a plane-wave basis, for the sets of solids."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator


def grid(atoms: Atoms, length: float) -> list[int]:
    """k-points along each periodic direction, so that their number times the height of the cell is at least ``length`` (Å)."""
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    return [int(np.ceil(length / height - 1e-3)) if periodic else 1 for height, periodic in zip(heights, atoms.pbc, strict=True)]


def label(atoms: Atoms, cutoff: float, width: float, length: float) -> Atoms:
    """Copy with PBE's free energy, forces and stress; ``cutoff`` and Fermi-Dirac ``width``, eV. Free atoms are spin-polarised, in a box."""
    from gpaw import GPAW, PW

    free = len(atoms) == 1 and not atoms.pbc.any()
    work = atoms.copy()
    if free:
        work.set_cell([9.0, 9.3, 9.6])
        work.pbc = True
    work.calc = GPAW(
        mode=PW(cutoff),
        xc="PBE",
        kpts={"size": [1, 1, 1] if free else grid(atoms, length), "gamma": free},
        hund=free,
        txt=None,
        occupations={"name": "fermi-dirac", "width": 0.01 if free else width, "fixmagmom": free},
        convergence={"energy": 1e-5, "density": 1e-5, "forces": np.inf if free else 1e-3},
    )
    results = {"energy": work.get_potential_energy(force_consistent=True), "forces": work.get_forces() * (not free)}
    if atoms.pbc.all():
        results["stress"] = work.get_stress()
    new = atoms.copy()
    new.calc = SinglePointCalculator(new, **results)
    return new
