"""Make the set of aluminium-magnesium alloys: structures, labels by GPAW (PBE), train.xyz and test.xyz.

    python make.py                  do everything; finished structures are kept in cache/, so it can be stopped and restarted
    python make.py --write          only write train.xyz and test.xyz from the structures finished so far

Needs ASE and GPAW with its PAW set.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from labelling import DataSet, rattled, strained  # noqa: E402
from plane_waves import label  # noqa: E402

COUNTS = {
    "isolated_atom": (2, 0),
    "elements_fcc": (16, 4),
    "elements_hcp": (16, 4),
    "ordered": (24, 8),
    "random_fcc": (40, 16),
    "random_hcp": (16, 8),
    "surface": (8, 4),
}


def lattice(fraction: float) -> float:
    """fcc lattice constant between those of the elements (Å), ``fraction`` of the atoms Mg."""
    return 4.04 + 0.48 * fraction


def occupied(atoms: Atoms, rng: np.random.Generator, n_mg: int) -> Atoms:
    """Copy of a cell of aluminium with magnesium on ``n_mg`` sites."""
    new = atoms.copy()
    new.symbols[rng.permutation(len(new))[:n_mg]] = "Mg"
    return new


def hcp(fraction: float, repeat=(1, 1, 1)) -> Atoms:
    """Cell of aluminium atoms on hcp sites with the volume that goes with the composition."""
    a = lattice(fraction) / np.sqrt(2)
    return bulk("Al", "hcp", a=a, c=1.62 * a) * repeat


def make(kind: str, rng: np.random.Generator, index: int) -> Atoms:
    """The structure of one job."""
    if kind == "isolated_atom":
        return Atoms(("Al", "Mg")[index])
    width = (0.0, rng.uniform(0.03, 0.15))[index % 4 > 0]
    if kind == "elements_fcc":
        cell = bulk("Al", a=lattice(index % 2), cubic=True)
        return rattled(strained(occupied(cell, rng, 4 * (index % 2)), rng, (-0.12, 0.12), 0.04), rng, width, 2.2)
    if kind == "elements_hcp":
        cell = hcp(index % 2, (2, 1, 1))
        return rattled(strained(occupied(cell, rng, 4 * (index % 2)), rng, (-0.12, 0.12), 0.04), rng, width, 2.2)
    if kind == "ordered":  # L1_2 and L1_0
        n_mg = 1 + index % 3
        return rattled(strained(occupied(bulk("Al", a=lattice(n_mg / 4), cubic=True), rng, n_mg), rng, (-0.1, 0.1), 0.03), rng, width, 2.2)
    if kind == "surface":
        n_mg = int(rng.integers(0, 5))
        slab = fcc111("Al", (1, 1, 4), a=lattice(n_mg / 4), vacuum=4.5, periodic=True)
        return rattled(occupied(slab, rng, n_mg), rng, width, 2.2)
    n_mg = int(rng.integers(1, 8))
    if kind == "random_hcp":
        cell = hcp(n_mg / 8, (2, 2, 1))
    else:
        cell = bulk("Al", a=lattice(n_mg / 8)) * (2, 2, 2)
    return rattled(strained(occupied(cell, rng, n_mg), rng, (-0.08, 0.08), 0.03), rng, width, 2.2)


if __name__ == "__main__":
    DataSet(HERE, COUNTS, make, partial(label, cutoff=300.0, width=0.2, length=24.0)).main(__doc__)
