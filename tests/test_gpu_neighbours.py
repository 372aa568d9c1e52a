"""Neighbour pairs from the GPU's grid of bins are those of the CPU, for every kind of cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from systems import SYSTEMS, build

from soapkrr import backends


def assert_same_pairs(cuda, monkeypatch, atoms, cutoff):
    box, periodic = atoms.cell.array, atoms.pbc
    expected = sorted_pairs(*backends.of(atoms.positions).neighbours.neighbours(atoms.positions, box, periodic, cutoff))
    loops = backends.of(cuda.empty(1)).neighbours
    for small in (10**9, 0):
        monkeypatch.setattr(loops, "SMALL", small)
        found = [array.get() for array in loops.neighbours(cuda.asarray(atoms.positions), box, periodic, cutoff)]
        assert found[0].dtype == found[1].dtype == np.int64
        for a, b in zip(sorted_pairs(*found), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def sorted_pairs(offsets, j, vectors):
    i = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort([*vectors.round(6).T, j, i])
    return i[order], j[order], vectors[order]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("cutoff", [2.6, 7.3])
def test_every_system(cuda, monkeypatch, name, cutoff):
    assert_same_pairs(cuda, monkeypatch, build(name), cutoff)


@pytest.mark.parametrize("periodic", [(1, 1, 1), (0, 1, 0), (0, 0, 0)])
def test_many_bins(cuda, monkeypatch, periodic):
    rng = np.random.default_rng(0)
    cell = np.diag([14.0, 11.0, 12.0]) + rng.normal(scale=1.5, size=(3, 3))
    atoms = Atoms("Ar150", positions=rng.uniform(-1, 2, size=(150, 3)) @ cell, cell=cell, pbc=periodic)
    assert_same_pairs(cuda, monkeypatch, atoms, 2.5)


@pytest.mark.parametrize(
    "cell, periodic, far",
    [((1500, 1500, 4), (1, 1, 1), 0), ((4, 4, 4), (0, 1, 0), 1e9), ((4, 4, 0), (1, 1, 0), 1e5), ((3, 3e6, 3), (1, 1, 1), 1e6)],
)
def test_extreme_structures(cuda, monkeypatch, cell, periodic, far):
    """Searched on the CPU, however many their atoms."""
    positions = np.array([[0, 0, 0], [1.2, 0.3, 2.1], [0.7, 0.1, 0.9], [2.2, 0.5, 0.4]])
    positions[3] += far * ~np.array(periodic, dtype=bool)
    assert_same_pairs(cuda, monkeypatch, Atoms("Ar4", positions=positions, cell=cell, pbc=periodic), 3.9)
