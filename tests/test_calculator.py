"""The ASE calculator: finite differences, relaxation, molecular dynamics, standard deviations among the results."""

import pickle

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from systems import BULK, SYSTEMS, build

from soapkrr import InputError


def _copper(calc, seed=0, size=0.1):
    atoms = bulk("Cu", a=3.65, cubic=True)
    atoms.rattle(size, seed=seed)
    atoms.calc = calc
    return atoms


@pytest.mark.parametrize("name", SYSTEMS)
def test_results_are_the_prediction(name, fitted):
    model, atoms = fitted(name), build(name)
    atoms.calc = model.calculator(uncertainty=True)
    p = model.predict(build(name), uncertainty=True)
    assert atoms.get_potential_energy() == p.energy[0]
    assert atoms.calc.results["free_energy"] == p.energy[0]
    np.testing.assert_array_equal(atoms.get_forces(), p.forces[0])
    np.testing.assert_array_equal(atoms.get_potential_energies(), p.energies[0])
    assert atoms.calc.results["energy_std"] == p.energy_std[0]
    np.testing.assert_array_equal(atoms.calc.results["energies_std"], p.energies_std[0])
    np.testing.assert_array_equal(atoms.calc.results["forces_std"], p.forces_std[0])
    assert ("stress" in atoms.calc.results) == ("stress_std" in atoms.calc.results) == (name in BULK)


@pytest.mark.parametrize("name", BULK)
def test_stress_and_its_std(name, fitted):
    model, atoms = fitted(name), build(name)
    atoms.calc = model.calculator(uncertainty=("stress",))
    p = model.predict(build(name), uncertainty="stress")
    np.testing.assert_array_equal(atoms.get_stress(), p.stress[0])
    np.testing.assert_array_equal(atoms.calc.results["stress_std"], p.stress_std[0])
    assert "forces_std" not in atoms.calc.results


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - set(BULK)))
def test_stress_of_what_has_no_volume(name, fitted):
    atoms = build(name)
    atoms.calc = fitted(name).calculator()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert np.isfinite(atoms.get_potential_energy())


def test_energy_std_comes_by_default_and_can_be_left_out(fitted):
    atoms = build("vacancy")
    atoms.calc = fitted("vacancy").calculator()
    atoms.get_forces()
    assert {"energy_std", "energies_std"} <= set(atoms.calc.results)
    atoms.calc = fitted("vacancy").calculator(uncertainty=False)
    atoms.get_forces()
    assert not [key for key in atoms.calc.results if key.endswith("_std")]


def test_forces_and_stress_equal_numerical_ones(copper):
    atoms = _copper(copper.calculator())
    # Central differences with steps of 1e-3 Å and 1e-4: errors of some 1e-6 times third derivatives of order 10 eV/Å³.
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-3), rtol=0, atol=1e-4)
    stress = calculate_numerical_stress(atoms, eps=1e-4, voigt=True)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-6)


def test_a_changed_structure_is_computed_anew(copper):
    atoms = _copper(copper.calculator())
    before = atoms.get_potential_energy()
    atoms.positions[0] += [0.1, 0, 0]
    assert atoms.get_potential_energy() != before
    atoms.positions[0] -= [0.1, 0, 0]
    # 0.1 is added and taken away with a rounding.
    assert atoms.get_potential_energy() == pytest.approx(before, abs=1e-9)


def test_relaxation_finds_the_lattice(copper):
    """Rattled copper relaxes to the perfect crystal of the potential it was fitted to (EMT: a = 3.59 Å)."""
    atoms = _copper(copper.calculator())
    start = atoms.get_potential_energy()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=80)
    assert atoms.get_potential_energy() < start
    assert np.abs(atoms.get_forces()).max() < 0.005
    emt = _copper(EMT(), size=0.0)
    BFGS(FrechetCellFilter(emt), logfile=None).run(fmax=0.005, steps=80)
    # The fit's own error: a few meV/atom and 0.5% of the lattice constant with 30 small training cells.
    assert atoms.get_volume() == pytest.approx(emt.get_volume(), rel=0.015)
    assert atoms.get_potential_energy() == pytest.approx(emt.get_potential_energy(), abs=0.02 * len(atoms))
    assert 0 < atoms.calc.results["energy_std"] < 0.1


def test_molecular_dynamics_conserves_energy(copper):
    """Velocity Verlet: the total energy fluctuates as dt², without a drift; halving the step divides the fluctuation by about four."""

    def fluctuation(dt, steps):
        atoms = _copper(copper.calculator(uncertainty=False), size=0.02).repeat((2, 1, 1))
        atoms.calc = copper.calculator(uncertainty=False)
        momenta = np.random.default_rng(0).normal(size=(8, 3)) * np.sqrt(600 * units.kB * atoms.get_masses())[:, None]
        atoms.set_momenta(momenta - momenta.mean(axis=0))
        dynamics, energies = VelocityVerlet(atoms, timestep=dt * units.fs), []
        dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
        dynamics.run(steps)
        energies = np.array(energies)
        half = len(energies) // 2
        return np.std(energies), abs(energies[half:].mean() - energies[:half].mean())

    coarse, drift = fluctuation(4.0, 100)
    fine, _ = fluctuation(2.0, 200)
    # 8 atoms at 600 K have 0.6 eV of kinetic energy; 4e-4 eV, 8e-6 eV and a ratio of 4.03 were measured.
    assert coarse < 2e-3
    assert drift < 0.2 * coarse
    assert 3.5 < coarse / fine < 4.5


def test_two_atoms_without_cell_relax(fitted):
    atoms = Atoms("HCl", positions=[[0, 0, 0], [1.3, 0.2, 0.1]])
    atoms.calc = fitted("dimer").calculator()
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=10)
    assert atoms.get_potential_energy() < start


def test_standard_deviations_come_with_every_so_many_steps(copper):
    atoms, there = _copper(copper.calculator(every=3)), []
    for _ in range(7):
        atoms.rattle(0.01, rng=np.random.default_rng(1))
        atoms.get_forces()
        there.append("energy_std" in dict(atoms.calc.results))
    assert there == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("read", [lambda results: results["energy_std"], lambda results: results.get("energy_std")])
def test_standard_deviations_are_computed_when_they_are_read(copper, read):
    atoms = _copper(copper.calculator())
    atoms.get_forces()
    atoms.rattle(0.02)
    atoms.get_forces()
    results = pickle.loads(pickle.dumps(atoms.calc.results))
    assert "energy_std" not in results and results.get("forces_std") is None and "forces_std" not in results
    with pytest.raises(KeyError):
        results["forces_std"]
    assert read(results) == copper.predict(atoms, uncertainty="energy").energy_std[0]
    assert results["energies_std"].shape == (4,) and "energy_std" in results


def test_standard_deviations_come_with_each_new_structure(copper):
    calc = copper.calculator(every=1000)
    for n in (1, 2, 1):
        atoms = _copper(calc).repeat((n, 1, 1))
        atoms.calc = calc
        atoms.get_potential_energy()
        assert calc.results["energy_std"] == copper.predict(atoms, uncertainty="energy").energy_std[0]


def test_standard_deviations_come_when_asked_for_by_name(copper):
    atoms = _copper(copper.calculator(uncertainty=False))
    atoms.get_forces()
    assert "energy_std" not in atoms.calc.results and atoms.calc.results.get("energy_std") is None
    p = copper.predict(atoms, uncertainty=True)
    assert atoms.calc.get_property("energy_std", atoms) == p.energy_std[0]
    np.testing.assert_array_equal(atoms.calc.get_property("forces_std", atoms), p.forces_std[0])
    np.testing.assert_array_equal(atoms.get_forces(), p.forces[0])


@pytest.mark.parametrize("every", [0, -1, 1.5, True, None, "ten"])
def test_steps_are_counted_in_integers(copper, every):
    with pytest.raises(InputError, match="`every`"):
        copper.calculator(every=every)
