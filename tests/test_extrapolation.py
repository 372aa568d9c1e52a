"""Directions of fastest extrapolation: gradients of the novelty, the shortest way out of the data, invariance."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from soapkrr import SOAP, DotProduct, GaussianProcess, InputError, Linear, Pair, SparseGP, Term, extrapolations
from soapkrr.active.extrapolation import Edge

NOISE = {"energy": 1e-3, "forces": 1e-2, "stress": 1e-3}


def alloy(seed: int) -> Atoms:
    """Four atoms of two species in a cell smaller than the cutoff, labelled."""
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


FRAMES = [alloy(seed) for seed in range(5)]


def terms() -> list[Term]:
    soap = SOAP(["Au", "Cu"], r_cut=4.0, n_max=3, l_max=2)
    return [Term(Pair(["Au", "Cu"], r_cut=4.5), Linear(), signal=1.0), Term(soap, DotProduct(zeta=2), n_sparse=12, signal=1.0)]


@pytest.fixture(scope="module")
def exact():
    return GaussianProcess(terms(), noise=NOISE).fit(FRAMES)


@pytest.fixture(scope="module")
def sparse():
    return SparseGP(terms(), noise=NOISE).fit(FRAMES)


def bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


@pytest.mark.parametrize("name", ["exact", "sparse"])
@pytest.mark.parametrize("i", [0, 2])
def test_the_gradient_of_the_novelty_is_of_second_order(request, name, i):
    edge, atoms = Edge.of(request.getfixturevalue(name), FRAMES[0], FRAMES), bare(FRAMES[1])
    way = np.random.default_rng(i).normal(size=(4, 3))
    value, slope = edge.slope(atoms, i)
    assert value == pytest.approx(edge.novelty(atoms)[i], rel=1e-7)

    def along(h):
        moved = atoms.copy()
        moved.positions += h * way
        return edge.novelty(moved)[i]

    steps = 0.02 / 2.0 ** np.arange(5)
    left = [abs(along(h) - value - h * np.sum(slope * way)) for h in steps]
    slopes = np.log2(np.array(left[:-1]) / left[1:])
    np.testing.assert_allclose(slopes[1:], 2.0, atol=0.1)
    np.testing.assert_allclose(slope.sum(axis=0), 0.0, atol=1e-7)


@pytest.mark.parametrize("name", ["exact", "sparse"])
def test_structures_are_out_of_the_data_and_were_not_before(request, name):
    model, atoms = request.getfixturevalue(name), bare(FRAMES[0])
    edge, found = Edge.of(model, atoms, FRAMES), list(extrapolations(model, atoms, threshold=1.3, data=FRAMES))
    assert [f.info["extrapolating_atom"] for f in found] and len(found) <= 4
    for structure in found:
        i, way = structure.info["extrapolating_atom"], structure.positions - atoms.positions
        assert edge.novelty(atoms)[i] < 1.3 <= edge.novelty(structure)[i] < 1.32
        assert structure.info["novelty"] == pytest.approx(edge.novelty(structure)[i])
        assert structure.info["displacement"] == pytest.approx(np.linalg.norm(way))
        np.testing.assert_allclose(way.sum(axis=0), 0.0, atol=1e-6)
    np.testing.assert_array_equal(atoms.positions, FRAMES[0].positions)


def test_no_way_is_shorter(exact):
    """As a general minimiser finds it, which starts from random places and knows nothing of gradients of its own."""
    atoms = bare(FRAMES[0])
    edge, structure = Edge.of(exact, atoms, None), next(extrapolations(exact, atoms, threshold=1.3))
    i, shortest = structure.info["extrapolating_atom"], structure.info["displacement"]

    def novelty(x):
        moved = atoms.copy()
        moved.positions += x.reshape(-1, 3)
        return edge.novelty(moved)[i] - 1.3

    rng = np.random.default_rng(0)
    for _ in range(60):
        x = rng.normal(size=12)
        assert novelty(0.97 * shortest * x / np.linalg.norm(x)) < 0
    start = rng.normal(scale=0.05, size=12)
    twin = minimize(lambda x: x @ x, start, jac=lambda x: 2 * x, constraints={"type": "ineq", "fun": novelty}, method="SLSQP")
    assert twin.success and shortest <= 1.01 * np.linalg.norm(twin.x)


def test_directions_turn_and_move_with_the_structure(exact):
    atoms = bare(FRAMES[0])
    turn, order = Rotation.random(random_state=3).as_matrix(), np.array([2, 0, 3, 1])
    other = atoms[order]
    other.set_cell(atoms.cell.array @ turn.T)
    other.positions = atoms.positions[order] @ turn.T + [0.3, -0.2, 0.7]
    for one, two in zip(extrapolations(exact, atoms, threshold=1.3), extrapolations(exact, other, threshold=1.3), strict=True):
        assert order[two.info["extrapolating_atom"]] == one.info["extrapolating_atom"]
        np.testing.assert_allclose(two.positions - other.positions, (one.positions - atoms.positions)[order] @ turn.T, atol=2e-4)


def test_the_first_is_the_nearest_by_its_gradient(exact):
    atoms = bare(FRAMES[0])
    edge = Edge.of(exact, atoms, None)
    found = [structure.info["extrapolating_atom"] for structure in extrapolations(exact, atoms, threshold=1.3)]
    slopes = [edge.slope(atoms, i) for i in found]
    first = [(1.3 - novelty) / np.linalg.norm(slope) for novelty, slope in slopes]
    assert first == sorted(first)
    assert len(list(extrapolations(exact, atoms, 2, threshold=1.3))) == 2


def test_atoms_that_are_alike_count_once(exact):
    crystal = bulk("Cu", cubic=True)
    assert len(list(extrapolations(exact, crystal, threshold=5.0))) <= 1


def test_fixed_atoms_stay(exact):
    atoms = bare(FRAMES[0])
    atoms.set_constraint(FixAtoms([0, 1]))
    for structure in extrapolations(exact, atoms, threshold=1.2):
        np.testing.assert_array_equal(structure.positions[:2], atoms.positions[:2])
        assert structure.constraints


def test_an_atom_that_is_out_of_the_data_stays_where_it_is(exact):
    atoms = bare(FRAMES[0])
    first = next(extrapolations(exact, atoms, threshold=1e-3))
    assert first.info["displacement"] == 0 and first.info["novelty"] > 1e-3
    np.testing.assert_array_equal(first.positions, atoms.positions)


def test_what_is_too_far_is_left_out(exact):
    assert not list(extrapolations(exact, bare(FRAMES[0]), threshold=1.3, within=1e-3))


def test_a_label_of_such_a_structure_is_worth_more_than_one_of_a_random_move(exact):
    """The novelty of the atom's surroundings there falls further by it than by a label of a structure that was moved as far at random."""
    structure = next(extrapolations(exact, bare(FRAMES[0]), threshold=1.3))
    i, rng, left = structure.info["extrapolating_atom"], np.random.default_rng(1), []
    random = bare(FRAMES[0])
    way = rng.normal(size=(4, 3))
    random.positions += structure.info["displacement"] * way / np.linalg.norm(way)
    for added in (structure, random):
        labelled = bare(added)
        labelled.calc = EMT()
        labelled.get_forces()
        grown = GaussianProcess(terms(), noise=NOISE).fit([*FRAMES, labelled])
        left.append(grown.predict(structure, uncertainty={"energies"}).energies_std[0][i])
    assert left[0] < left[1]


def test_novelty_says_what_the_model_does_not_know(exact):
    """Of structures that are moved further and further, it rises with the standard deviation of the forces."""
    rng, novelty, std = np.random.default_rng(0), [], []
    edge = Edge.of(exact, FRAMES[0], None)
    for scale in np.linspace(0.02, 0.4, 20):
        atoms = bare(FRAMES[0])
        atoms.positions += scale * rng.normal(size=(4, 3))
        novelty.append(edge.novelty(atoms).max())
        std.append(np.linalg.norm(exact.predict(atoms, uncertainty={"forces"}).forces_std[0], axis=1).max())
    assert spearmanr(novelty, std).statistic > 0.9


def test_one_in_a_hundred_atoms_like_the_data_is_above_the_threshold():
    frames = [alloy(seed) for seed in range(60)]
    model = GaussianProcess(terms(), noise=NOISE).fit(frames[:2])
    edge = Edge.of(model, frames[0], [bare(atoms) for atoms in frames[:40]])
    assert np.mean(np.concatenate([edge.novelty(atoms) for atoms in frames[40:]]) > 1) <= 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "`threshold`"),
        ({"threshold": np.nan}, "`threshold`"),
        ({"within": -1.0}, "`within`"),
        ({"n": 0}, "`n` must be a positive integer"),
        ({"n": 1.5}, "`n` must be a positive integer"),
        ({"atoms": "Cu"}, "`atoms` must be `ase.Atoms`"),
        ({"atoms": bulk("Ag")}, r"`atoms` have \['Ag'\]"),
        ({"atoms": Atoms("Cu", constraint=FixAtoms([0]))}, "fix every atom"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(exact, options, message):
    given = {"atoms": bare(FRAMES[0]), "n": None} | options
    with pytest.raises(InputError, match=message):
        extrapolations(exact, given.pop("atoms"), given.pop("n"), **given)


def test_a_model_that_does_not_keep_its_data_asks_for_them(sparse):
    with pytest.raises(InputError, match="`data` are needed"):
        extrapolations(sparse, bare(FRAMES[0]))
