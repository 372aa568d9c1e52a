"""Wide, thin, skewed, crowded and badly written structures: right numbers or an error that says what is wrong, never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from reference import neighbours
from systems import SYSTEMS, build, small_soap

from soapkrr import InputError
from soapkrr.backends.cpu.envelope import ordinary, spanned
from soapkrr.backends.cpu.images import half_list, tidy
from soapkrr.structure_checks import FARTHEST
from soapkrr.structures import Batch


def pairs_of(atoms, cutoff):
    return Batch.from_atoms([atoms]).pairs(cutoff)


def distances(pairs):
    """Sorted distances of the pairs of each atom."""
    d = np.linalg.norm(pairs.vectors, axis=1)
    return [np.sort(d[a:b]) for a, b in zip(pairs.offsets[:-1], pairs.offsets[1:], strict=True)]


def assert_same_distances(atoms, plain, cutoff, atol):
    """Every atom of both structures has the same distances."""
    for found, expected in zip(distances(pairs_of(atoms, cutoff)), distances(pairs_of(plain, cutoff)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def refuses(atoms, cutoff, match):
    with pytest.raises(InputError, match=match):
        pairs_of(atoms, cutoff)


def rattled(seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


# --- wide ---


@pytest.mark.parametrize("cutoff", [3.9, 4.1, 5.0, 9.0])
@pytest.mark.parametrize("width", [1500.0, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_wide_film_is_a_wire(width, axis, cutoff):
    """One atom in a cell that is wide along two axes sees its images along the third."""
    cell = np.where(np.arange(3) == axis, 4.0, width)
    pairs = pairs_of(Atoms("Cu", cell=cell, pbc=True), cutoff)
    images = int(cutoff / 4.0)
    np.testing.assert_allclose(np.sort(pairs.vectors[:, axis]), [4.0 * n for n in range(-images, images + 1) if n])
    assert not np.delete(pairs.vectors, axis, axis=1).any()


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("far", [1500.0, 1e6, 1e9])
def test_far_fragment(pbc, far):
    """Two copies, far apart along open axes (with zero cell vectors), are each as if alone; 1e9 Å is known to 1e-7 Å."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array * np.array(pbc)[:, None])
    atoms.pbc = pbc
    other = atoms.copy()
    other.positions += far * ~atoms.pbc
    both = distances(pairs_of(atoms + other, 4.0))
    for found, alone in zip(both, 2 * distances(pairs_of(atoms, 4.0)), strict=True):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-14 + 1e-15 * far)


def test_atom_far_above_a_slab():
    slab = fcc111("Al", (4, 4, 3), vacuum=6.0)
    far = slab.copy()
    far.positions[-1, 2] += 1e5
    del slab[-1]
    found = distances(pairs_of(far, 5.0))
    assert len(found[-1]) == 0
    assert sum(map(len, found)) == len(pairs_of(slab, 5.0).j)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pbc", [True, (0, 1, 1)])
def test_cell_that_is_not_finite(value, pbc):
    atoms = Atoms("Cu", cell=[4, 4, 4], pbc=pbc)
    atoms.cell[0, 0] = value
    refuses(atoms, 5.0, "frame 0: cell vector 0, .* is not finite")


# --- far outside the cell ---


@pytest.mark.parametrize("cells", [1e3, 1e5, 1e7, 2.2e9])
def test_atom_many_cells_away(cells):
    """2.2e9 cells are 8e9 Å and more than 32 bits hold; rounding of the position is 1e-6 Å there."""
    atoms = rattled()
    moved = atoms.copy()
    moved.positions[1] += cells * atoms.cell.array[0]
    assert_same_distances(moved, atoms, 4.0, atol=1e-12 + 4e-16 * cells * 3.61)


def test_positions_known_to_less_than_their_last_digit():
    atoms = rattled()
    atoms.positions[2] += 1e10 * np.eye(3)[1]
    refuses(atoms, 4.0, "frame 0, atom 2: position .* is too far from the origin to be known to 1e-6 Å; wrap it")
    assert np.spacing(0.99 * FARTHEST) < 1e-6 < np.spacing(FARTHEST)


# --- thin, crowded ---


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0)])
def test_tiny_cell_is_refused_before_its_pairs_are_made(pbc):
    refuses(
        Atoms("Cu", cell=[0.011] * 3, pbc=pbc), 20.0, r"frame 0: about .* neighbour pairs within the cutoff of 20.0 Å, .* for each atom"
    )


def test_number_of_pairs_is_said():
    """4/3 π 5³ Å³ of 8e-6 Å³ each."""
    refuses(Atoms("Cu", cell=[0.02] * 3, pbc=True), 5.0, r"about 6\.5e\+07 neighbour pairs")


def test_own_image():
    refuses(Atoms("Cu", cell=[0.002, 4, 4], pbc=True), 5.0, "frame 0: periodic along axis 0, but cell vector 0 is 0.002 Å long")


def test_crowd():
    rng = np.random.default_rng(0)
    refuses(
        Atoms("Cu20000", positions=rng.uniform(size=(20000, 3))), 5.0, r"about 4e\+08 neighbour pairs within the cutoff of 5.0 Å, 2e\+04"
    )


def test_crowd_in_a_corner_of_a_large_cell():
    """The mean density is nothing unusual."""
    rng = np.random.default_rng(0)
    positions = np.concatenate([rng.uniform(size=(6000, 3)), rng.uniform(2, 300, size=(2000, 3))])
    refuses(Atoms("Cu8000", positions=positions, cell=[300.0] * 3, pbc=True), 5.0, "neighbour pairs")


def test_a_thousand_atoms_close_together():
    """Some 1e6 pairs are few enough."""
    atoms = Atoms("Cu1000", positions=0.1 * np.indices((10, 10, 10)).reshape(3, -1).T)
    assert len(pairs_of(atoms, 5.0).j) == 1000 * 999


# --- skewed ---


@pytest.mark.parametrize("times", [(3000, 0), (0, 3000), (3000, 3000), (-40000, 7)])
def test_equivalent_skewed_cell(times):
    """Rounding of the long vectors, some 1e7 Å, shows in the images."""
    atoms = rattled()
    skewed, (a, b, c) = atoms.copy(), atoms.cell.array
    b = b + times[0] * a
    skewed.set_cell([a, b, c + times[1] * b])
    assert_same_distances(skewed, atoms, 4.0, atol=1e-8)


@pytest.mark.parametrize("vector", [[1e4, 0, 1e-3], [5, 1e-9, 0], [5, 0, 0], [0, 0, 0], [0, 0, 1e300]])
def test_vectors_of_open_axes_do_not_count(vector):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 2, 0.5]], cell=[[3, 0, 0], [0, 10, 0], [0, 0, 9]], pbc=[1, 1, 0])
    other = atoms.copy()
    other.cell[2] = vector
    assert_same_distances(other, atoms, 5.0, atol=0)
    assert np.isnan(Batch.from_atoms([other]).volumes).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1e5])
def test_dependence_is_relative_to_the_lengths(scale):
    flat = scale * np.array([[4, 0, 0], [0, 4, 0], [4 / 3, 4 / 7, 1e-15]])
    refuses(Atoms("Cu", cell=flat, pbc=True), 3.0, "frame 0: the cell vectors are linearly dependent")


@pytest.mark.parametrize("length", [0.02, 0.05, 0.2])
def test_short_vectors_are_not_dependent(length):
    wire = Atoms("Cu", cell=[length, length, 1e3], pbc=True)
    assert len(pairs_of(wire, 0.5 * length).j) == 0


# --- elements ---


@pytest.mark.parametrize("number", [-3, 0, 119, 130, 10**9])
def test_numbers_of_no_element(number):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2]])
    atoms.numbers[1] = number
    with pytest.raises(InputError, match=f"frame 0, atom 1: atomic number {number} is not an element"):
        small_soap(["Cu"]).create(atoms)


# --- the k-d tree ---


@pytest.mark.parametrize("r_cut", [1.9, 4.0, 7.3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_tree_finds_the_pairs_of_ordinary_structures(name, r_cut):
    atoms = build(name)
    cell = spanned(atoms.cell.array, atoms.pbc)
    assert ordinary(atoms.positions, cell, atoms.pbc, r_cut)
    pairs, vectors = half_list(*tidy(atoms.positions, cell, atoms.pbc), atoms.pbc, r_cut)
    i, j = pairs.astype(int).T
    found = rows(np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([vectors, -vectors]))
    np.testing.assert_allclose(found, rows(*neighbours(atoms, r_cut)), rtol=0, atol=1e-12)


def rows(i, j, vectors):
    """(i, j, x, y, z) in one order."""
    order = np.lexsort([*np.round(vectors, 6).T, j, i])
    return np.column_stack([i, j, vectors])[order]


def test_same_list_every_time():
    atoms = rattled()
    atoms.positions[1] += 1e7 * atoms.cell.array[0]
    first, second = pairs_of(atoms, 4.0), pairs_of(atoms, 4.0)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.j, second.j)


def test_pairs_come_in_both_directions():
    """To the last bit, at the cutoff too."""
    atoms = rattled()
    atoms.positions[1] += 1e7 * atoms.cell.array[0]
    pairs = pairs_of(atoms, 3.61)
    forward = np.column_stack([pairs.i, pairs.j, pairs.vectors + 0.0])
    backward = np.column_stack([pairs.j, pairs.i, 0.0 - pairs.vectors])
    np.testing.assert_array_equal(np.unique(forward, axis=0), np.unique(backward, axis=0))
