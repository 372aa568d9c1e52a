"""Strange structures by the dozen: wide, thin, skewed, tiny, crowded, far apart, badly written; the same for the same seed.

A structure that was made by a change that leaves its pairs as they are, or that has far fragments, carries in ``info["parts"]`` the
ordinary structures that have these pairs, laid end to end.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms


def structures(n: int, seed: int = 0):
    """Yield n (name, structure), every kind in turn."""
    rng = np.random.default_rng(seed)
    kinds = list(KINDS.items())
    for k in range(n):
        name, make = kinds[k % len(kinds)]
        yield f"{name} {seed}/{k}", make(rng)


def plain(rng, pbc=None) -> Atoms:
    """One to seven atoms in any cell of 3 to 9 Å, of either handedness and with any axes periodic."""
    pbc = rng.random(3) < 0.7 if pbc is None else pbc
    n = int(rng.integers(1, 8))
    cell = (np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3))) * rng.uniform(3, 9, 3)[:, None] * rng.choice([-1, 1], 3)[:, None]
    return Atoms(rng.choice([14, 29], n), positions=rng.uniform(-1, 2, (n, 3)) @ cell, cell=cell, pbc=pbc)


def wide(rng):
    atoms = plain(rng)
    return with_cell(atoms, atoms.cell.array * rng.choice([1, 1e2, 1e3, 1e4, 1e6], 3)[:, None])


def thin(rng):
    atoms = plain(rng)
    return with_cell(atoms, atoms.cell.array * np.where(np.arange(3) == rng.integers(3), rng.uniform(0.02, 0.2), 1)[:, None])


def thin_and_wide(rng):
    return with_cell(atoms := thin(rng), atoms.cell.array * rng.choice([1, 1e3], 3)[:, None])


def tiny(rng):
    atoms = plain(rng)
    return with_cell(atoms, atoms.cell.array * 10 ** rng.uniform(-4, -1))


def skewed(rng):
    """An equivalent cell: some vectors many times added to others; of few enough bits that nothing is rounded."""
    atoms = plain(rng)
    atoms = parted(with_cell(atoms, np.round(atoms.cell.array * 4096) / 4096))
    cell = atoms.cell.array.copy()
    for _ in range(int(rng.integers(1, 3))):
        a, b = rng.permutation(np.flatnonzero(atoms.pbc))[:2] if atoms.pbc.sum() > 1 else (0, 0)
        cell[a] += (a != b) * int(rng.integers(-3000, 3000)) * cell[b]
    return with_cell(atoms, cell)


def by_lattice_vectors(rng):
    """Atoms very many cells away."""
    atoms = parted(plain(rng))
    cells = np.round(rng.uniform(-1, 1, (len(atoms), 3)) * 10.0 ** rng.integers(0, 9)) * atoms.pbc
    atoms.positions += cells @ atoms.cell.array
    return atoms


def fragments(rng):
    """Two structures far apart along an open axis."""
    axis = rng.integers(3)
    atoms = plain(rng, np.where(np.arange(3) == axis, False, rng.random(3) < 0.5))
    atoms.cell[axis] = 0
    other = atoms.copy()
    other.rattle(0.3, rng=rng)
    far = other.copy()
    far.positions += normal(atoms) * 10.0 ** rng.uniform(2, 9)
    both = atoms + far
    both.info["parts"] = [atoms, other]
    return both


def normal(atoms) -> np.ndarray:
    """A unit vector at right angles to the periodic ones."""
    _, _, rows = np.linalg.svd(np.where(atoms.pbc[:, None], atoms.cell.array, 0))
    return rows[2]


def open_vectors(rng):
    """Vectors of open axes that are nearly parallel to periodic ones, or enormous."""
    atoms = parted(plain(rng, rng.permutation([True, True, False])))
    atoms.info["parts"][0].cell[~atoms.pbc] = 0
    cell = atoms.cell.array.copy()
    cell[~atoms.pbc] = cell[atoms.pbc][0] * rng.choice([1, 1 + 1e-9, 1e5]) + rng.choice([0, 1e-6, 1e200]) * rng.normal(size=3)
    return with_cell(atoms, cell)


def cluster(rng):
    """Many atoms in little space, no two at the same place."""
    n, grid = int(rng.integers(20, 60)), rng.uniform(0.02, 0.2)
    places = np.unique(rng.integers(0, 6, (n, 3)), axis=0) * grid
    return Atoms(np.full(len(places), 14), positions=places, cell=rng.uniform(20, 2000, 3), pbc=rng.random(3) < 0.5)


def crowd(rng):
    """More atoms than any program can bear: thousands in one Å³."""
    n = int(rng.integers(5000, 20000))
    return Atoms(np.full(n, 14), positions=rng.uniform(0, 1, (n, 3)), cell=rng.uniform(2, 2000, 3), pbc=rng.random(3) < 0.5)


def badly_written(rng):
    """One number that makes no sense."""
    atoms = plain(rng)
    what, value = rng.integers(4), rng.choice([np.nan, np.inf, -np.inf, 1e12, 1e300])
    if what == 0:
        atoms.positions[0, rng.integers(3)] = value
    elif what == 1:
        cell = atoms.cell.array.copy()
        cell[rng.integers(3), rng.integers(3)] = value
        atoms.set_cell(cell)
    elif what == 2:
        atoms.numbers[0] = rng.choice([-5, 0, 119, 130, 10**6])
    else:
        atoms.set_cell(atoms.cell.array * rng.choice([0, 1e-300, 1e-12, 1e-6]))
    return atoms


def flat(rng):
    """Vectors that depend on each other, but for rounding."""
    atoms, cell = plain(rng), rng.normal(size=(3, 3)) * 5
    cell[2] = cell[0] / 3 - cell[1] / 7 * rng.integers(0, 2) + rng.choice([0, 1e-15, 1e-12, 1e-9, 1e-4]) * rng.normal(size=3)
    return with_cell(atoms, cell)


def parted(atoms: Atoms) -> Atoms:
    atoms.info["parts"] = [atoms.copy()]
    return atoms


def with_cell(atoms: Atoms, cell) -> Atoms:
    atoms.set_cell(cell, scale_atoms=False)
    return atoms


KINDS = {
    make.__name__.replace("_", " "): make
    for make in (
        plain, wide, thin, thin_and_wide, tiny, skewed, by_lattice_vectors, fragments, open_vectors, cluster, crowd, badly_written, flat
    )
}  # fmt: skip
