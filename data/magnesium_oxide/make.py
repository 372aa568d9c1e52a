"""Make the set of magnesium oxide: structures, labels by GPAW (PBE), train.xyz and test.xyz.

    python make.py                  do everything; finished structures are kept in cache/, so it can be stopped and restarted
    python make.py --write          only write train.xyz and test.xyz from the structures finished so far

Needs ASE and GPAW with its PAW set.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, surface

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from labelling import DataSet, rattled, strained  # noqa: E402
from plane_waves import label  # noqa: E402

A0 = 4.25  # lattice constant about which strains are drawn, Å

COUNTS = {
    "isolated_atom": (2, 0),
    "rocksalt_strained": (24, 8),
    "rocksalt_rattled": (40, 12),
    "hot_crystal": (20, 8),
    "divacancy": (16, 6),
    "caesium_chloride": (12, 4),
    "wurtzite": (12, 4),
    "surface": (10, 4),
    "disordered": (14, 6),
}


def rocksalt(n: int) -> Atoms:
    """Two, eight or sixteen atoms."""
    return {2: bulk("MgO", "rocksalt", a=A0), 8: bulk("MgO", "rocksalt", a=A0, cubic=True), 16: bulk("MgO", "rocksalt", a=A0) * (2, 2, 2)}[
        n
    ]


def make(kind: str, rng: np.random.Generator, index: int) -> Atoms:
    """The structure of one job."""
    if kind == "isolated_atom":
        return Atoms("MgO"[2 * index :][: 2 - index])
    if kind == "rocksalt_strained":
        return strained(rocksalt((2, 8)[index % 2]), rng, (-0.15, 0.15), 0.06 * (index % 4 > 1))
    if kind == "rocksalt_rattled":
        return rattled(strained(rocksalt((8, 16)[index % 4 == 3]), rng, (-0.08, 0.08), 0.03), rng, rng.uniform(0.02, 0.15), 1.5)
    if kind == "hot_crystal":
        return rattled(strained(rocksalt((8, 16)[index % 2]), rng, (0.0, 0.12), 0.03), rng, rng.uniform(0.15, 0.25), 1.5)
    if kind == "divacancy":
        crystal = rocksalt(16)
        distances = crystal.get_distances(0, range(16), mic=True)
        other = rng.choice([i for i in range(16) if crystal.symbols[i] != crystal.symbols[0] and distances[i] < A0])
        del crystal[[0, int(other)]]
        return rattled(strained(crystal, rng, (-0.03, 0.05), 0.02), rng, rng.uniform(0.02, 0.12), 1.5)
    if kind == "caesium_chloride":
        cell = bulk("MgO", "cesiumchloride", a=2.62) * ((1, 1, 1), (2, 1, 1))[index % 2]
        return rattled(strained(cell, rng, (-0.12, 0.12), 0.04), rng, 0.06 * (index % 2), 1.5)
    if kind == "wurtzite":
        return rattled(strained(bulk("MgO", "wurtzite", a=3.3, c=5.1), rng, (-0.1, 0.12), 0.04), rng, rng.uniform(0.0, 0.12), 1.5)
    if kind == "surface":
        slab = surface(bulk("MgO", "rocksalt", a=A0, cubic=True), (1, 0, 0), 2, vacuum=4.0, periodic=True)
        return rattled(slab, rng, rng.uniform(0.02, 0.12), 1.5)
    return rattled(strained(rocksalt(8), rng, (0.05, 0.3), 0.08), rng, rng.uniform(0.3, 0.45), 1.6)


if __name__ == "__main__":
    DataSet(HERE, COUNTS, make, partial(label, cutoff=800.0, width=0.05, length=8.4)).main(__doc__)
