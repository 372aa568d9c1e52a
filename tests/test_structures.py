"""Batches, neighbour pairs, and the one place where pair gradients become forces and strain derivatives."""

import numpy as np
import pytest
from ase import Atoms
from reference import neighbours
from systems import BULK, SYSTEMS, build, pair_potential

from soapkrr.structures import Batch, as_frames, forces_and_strain, split_by_atoms


def _sorted(i, j, r):
    order = np.lexsort((*np.round(r, 6).T, j, i))
    return i[order], j[order], r[order]


@pytest.mark.parametrize("r_cut", [1.9, 4.0, 7.3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs_equal_looping_over_images(name, r_cut):
    atoms = build(name)
    pairs = Batch.from_atoms([atoms]).pairs(r_cut)
    i, j, r = _sorted(pairs.i, pairs.j, pairs.vectors)
    i_ref, j_ref, r_ref = _sorted(*neighbours(atoms, r_cut))
    np.testing.assert_array_equal(i, i_ref)
    np.testing.assert_array_equal(j, j_ref)
    # Sums of positions and cell vectors of tens of Å: rounding of 1e-14 each.
    np.testing.assert_allclose(r, r_ref, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_list_is_full_and_grouped_by_centre(name):
    pairs = Batch.from_atoms([build(name)]).pairs(4.0)
    assert np.all(np.diff(pairs.i) >= 0)
    assert pairs.offsets[-1] == len(pairs.j)
    forward = np.column_stack([pairs.i, pairs.j, np.round(pairs.vectors, 8) + 0.0])
    backward = np.column_stack([pairs.j, pairs.i, np.round(-pairs.vectors, 8) + 0.0])
    np.testing.assert_array_equal(np.unique(forward, axis=0), np.unique(backward, axis=0))


def test_batch_of_many_is_the_concatenation():
    frames = [build(name) for name in SYSTEMS]
    batch = Batch.from_atoms(frames)
    pairs = batch.pairs(4.0)
    for s, atoms in enumerate(frames):
        alone = Batch.from_atoms([atoms]).pairs(4.0)
        a, b = batch.offsets[s], batch.offsets[s + 1]
        here = slice(pairs.offsets[a], pairs.offsets[b])
        np.testing.assert_array_equal(pairs.vectors[here], alone.vectors)
        np.testing.assert_array_equal(pairs.j[here] - a, alone.j)
    assert len(batch) == len(frames)
    assert batch.n_atoms == sum(map(len, frames))
    np.testing.assert_array_equal(np.isfinite(batch.volumes), [atoms.pbc.all() for atoms in frames])


@pytest.mark.parametrize("name", BULK)
def test_volume_of_any_handedness_is_positive(name):
    atoms = build(name)
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell.array * [1, 1, -1], scale_atoms=True)
    volumes = Batch.from_atoms([atoms, mirrored]).volumes
    np.testing.assert_allclose(volumes, atoms.get_volume(), rtol=1e-13)


@pytest.mark.parametrize("name", SYSTEMS)
def test_forces_and_strain_of_a_pair_potential(name):
    """The analytic gradient of E = ½ Σ_p exp(−r) (full list) gives the same as summing atom by atom."""
    atoms = build(name)
    batch = Batch.from_atoms([atoms])
    pairs = batch.pairs(4.0)
    d = np.linalg.norm(pairs.vectors, axis=1)
    gradient = (-0.5 * np.exp(-d) / d)[:, None] * pairs.vectors
    forces, strain = forces_and_strain(batch, pairs, gradient)
    i, _, r = neighbours(atoms, 4.0)
    d = np.linalg.norm(r, axis=1)
    pull = (-np.exp(-d) / d)[:, None] * r
    expected = np.array([pull[i == a].sum(axis=0) for a in range(len(atoms))])
    # Sums of at most a few hundred terms of order one.
    np.testing.assert_allclose(forces, expected, atol=1e-12)
    full = 0.5 * np.einsum("pa,pb->ab", r, pull)
    np.testing.assert_allclose(strain[0], full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], atol=1e-11)


@pytest.mark.parametrize("name", SYSTEMS)
def test_labels_of_the_tests_have_consistent_derivatives(name):
    """The tests' own label source is a potential: its net force and torque-free strain derivative vanish or are symmetric."""
    _, forces, strain = pair_potential(build(name))
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(strain, strain.T, atol=1e-12)


def test_groups_keep_order_and_respect_the_limit():
    frames = [Atoms("H" * n, positions=np.arange(3 * n).reshape(n, 3)) for n in (3, 4, 9, 1, 1, 2)]
    groups = list(split_by_atoms(frames, 8))
    assert [first for first, _ in groups] == [0, 2, 3]
    assert [len(atoms) for _, group in groups for atoms in group] == [3, 4, 9, 1, 1, 2]


def test_one_structure_or_any_iterable_of_structures():
    atoms = build("dimer")
    assert as_frames(atoms) == [atoms]
    assert as_frames(iter([atoms, atoms])) == [atoms, atoms]
