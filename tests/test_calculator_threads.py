"""One calculator shared by threads: every thread gets the numbers of its own structure; copies, pickles and ASE's caching stay."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.optimize import BFGS
from small import crystals, small_gp

NAMES = ("energy_std", "energies_std")


@pytest.fixture(scope="module")
def model():
    return small_gp(threads=1).fit(crystals(6))


@pytest.fixture
def calculator(model):
    return model.calculator()


def computed(calculator, atoms):
    """Everything that ASE asks a calculator for, and the standard deviations of its results."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    results = calculator.results
    again = [results["energy"], results["forces"], results["stress"], calculator.get_property("energy", atoms)]
    return np.concatenate([np.ravel(x) for x in (energy, forces, stress, *again, *(results[name] for name in NAMES))])


def test_four_threads_get_their_own_numbers(model, calculator):
    frames = crystals(60, seed=7)
    expected = [computed(model.calculator(), atoms) for atoms in frames]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(computed, [calculator] * 240, frames * 4))
    wrong = [k for k, (a, b) in enumerate(zip(found, expected * 4, strict=True)) if not np.array_equal(a, b)]
    assert wrong == []


def test_threads_take_turns_at_the_worst_moment(model, calculator, monkeypatch):
    """Each thread is made to wait in the middle of its calculation until the other is in the middle of its own."""
    frames, meet, predict = crystals(2, seed=9), threading.Barrier(2, timeout=20), type(model).predict

    def slow(self, atoms, **options):
        prediction = predict(self, atoms, **options)
        meet.wait()
        return prediction

    expected = [computed(model.calculator(), atoms) for atoms in frames]
    monkeypatch.setattr(type(model), "predict", slow)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(computed, [calculator] * 2, frames))
    np.testing.assert_array_equal(found, expected)


def test_relaxations_in_threads_end_where_single_ones_do(model, calculator):
    def relaxed(calculator, atoms):
        atoms = atoms.copy()
        atoms.calc = calculator
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=5)
        return atoms.positions

    frames = crystals(8, seed=3)
    expected = [relaxed(model.calculator(), atoms) for atoms in frames]
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(list(pool.map(relaxed, [calculator] * 8, frames)), expected)


def test_what_a_thread_leaves_behind_can_be_read(calculator):
    """A thread that has computed nothing itself sees the last calculation of any."""
    atoms = crystals(1)[0].copy()
    atoms.calc = calculator
    with ThreadPoolExecutor(1) as pool:
        energy = pool.submit(atoms.get_potential_energy).result()
    assert calculator.results["energy"] == energy and calculator.atoms == atoms
    assert calculator.get_property("energy", atoms, allow_calculation=False) == energy
    assert not calculator.calculation_required(atoms, ["energy", "forces"])


def count(calculator, monkeypatch):
    calls, calculate = [], type(calculator).calculate
    monkeypatch.setattr(type(calculator), "calculate", lambda *args: (calls.append(1), calculate(*args))[1])
    return calls


def test_caching_is_that_of_ase(calculator, monkeypatch):
    calls, atoms = count(calculator, monkeypatch), crystals(1)[0].copy()
    atoms.calc = calculator
    assert calculator.results == {} and calculator.atoms is None
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    assert len(calls) == 1 and calculator.check_state(atoms) == []
    atoms.positions[0] += 0.1
    assert calculator.check_state(atoms) == ["positions"] and calculator.calculation_required(atoms, ["energy"])
    atoms.get_forces()
    assert len(calls) == 2
    forces = atoms.get_forces()
    forces += 1.0
    assert not np.array_equal(forces, atoms.get_forces())
    calculator.reset()
    assert calculator.results == {} and calculator.atoms is None
    atoms.get_forces()
    assert len(calls) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_hold_the_last_results_and_go_their_own_ways(calculator, copied):
    atoms, other = (a.copy() for a in crystals(2))
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    twin = copied(atoms)
    assert twin.calc is not calculator and twin.calc.results["energy"] == energy and twin.calc.atoms == atoms
    other.calc = twin.calc
    assert other.get_potential_energy() != energy and calculator.results["energy"] == energy
    np.testing.assert_array_equal(computed(twin.calc, atoms), computed(calculator, atoms))
