"""Lists of neighbours that are kept while atoms move: the pairs of a fresh search, and the same trajectories."""

import pickle

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet
from small import crystals, small_gp
from systems import SYSTEMS, build

from soapkrr.backends.cpu.neighbours import neighbours
from soapkrr.verlet import SKIN, VerletList

R_CUT = 3.5


def _sorted(found):
    """(i, j, r) of the pairs in an order of their own."""
    offsets, j, r = found
    i = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort(np.column_stack([np.round(r, 6), j, i]).T)
    return i[order], j[order], r[order]


def _assert_same(found, expected):
    for ours, theirs in zip(_sorted(found), _sorted(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs_are_those_of_a_search_while_atoms_move(name):
    atoms, verlet, rng = build(name), VerletList(), np.random.default_rng(0)
    for _ in range(30):
        points, box, periodic = atoms.positions, atoms.cell.array, atoms.pbc
        _assert_same(verlet(points, box, periodic, R_CUT), neighbours(points, box, periodic, R_CUT))
        atoms.positions += rng.normal(scale=0.02, size=points.shape)
    assert verlet.searches < 20


def test_one_search_serves_as_long_as_no_atom_has_moved_by_half_the_skin():
    atoms, verlet = build("primitive").repeat(2), VerletList()
    verlet(atoms.positions, atoms.cell.array, atoms.pbc, R_CUT)
    verlet(atoms.positions, atoms.cell.array, atoms.pbc, R_CUT)
    assert verlet.searches == 2  # a list is kept from the second of alike structures on
    for moved, searches in ((0.49, 2), (0.51, 3)):
        there = atoms.positions.copy()
        there[1] += [0.0, moved * SKIN, 0.0]
        _assert_same(verlet(there, atoms.cell.array, atoms.pbc, R_CUT), neighbours(there, atoms.cell.array, atoms.pbc, R_CUT))
        assert verlet.searches == searches


def test_another_cell_other_boundaries_and_other_numbers_of_atoms_are_searched():
    atoms, verlet = build("primitive").repeat(2), VerletList()
    for _ in range(3):
        verlet(atoms.positions, atoms.cell.array, atoms.pbc, R_CUT)
    strained, open_, larger = atoms.copy(), atoms.copy(), atoms.repeat((1, 1, 2))
    strained.set_cell(atoms.cell * 1.001)
    open_.pbc = [True, True, False]
    for other in (strained, open_, larger, atoms):
        arguments = other.positions, other.cell.array, other.pbc, R_CUT
        _assert_same(verlet(*arguments), neighbours(*arguments))
    assert verlet.searches == 6


def test_longer_cutoffs_are_searched_and_shorter_ones_found_in_the_list():
    atoms, verlet = build("primitive").repeat(2), VerletList()
    for cutoff in (R_CUT, R_CUT, R_CUT - 1, R_CUT + 2, R_CUT + 2, R_CUT):
        arguments = atoms.positions, atoms.cell.array, atoms.pbc, cutoff
        _assert_same(verlet(*arguments), neighbours(*arguments))
    assert verlet.searches == 3


@pytest.fixture(scope="module")
def model():
    return small_gp().fit(crystals(8))


def _trajectory(model, atoms, steps, skin):
    atoms = atoms.copy()
    atoms.calc = model.calculator(uncertainty=False)
    atoms.calc._neighbours = VerletList(skin)
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    dynamics.run(steps)
    return atoms, atoms.calc._neighbours.searches


def test_dynamics_are_the_same_and_search_seldom(model):
    atoms = crystals(1, seed=3)[0]
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.02, size=(4, 3)))
    ours, searches = _trajectory(model, atoms, 60, SKIN)
    theirs, every = _trajectory(model, atoms, 60, 0.0)
    np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-9)
    np.testing.assert_allclose(ours.get_momenta(), theirs.get_momenta(), atol=1e-9)
    assert every == 61 and searches < 20


def test_lists_are_not_copied_with_a_calculator(model):
    atoms, calculator = crystals(1)[0], model.calculator(uncertainty=False)
    for _ in range(3):
        calculator.calculate(atoms)
    assert calculator._neighbours.kept is not None
    assert pickle.loads(pickle.dumps(calculator._neighbours)).kept is None
