"""Labels carried by structures, and the reference energies subtracted from them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from systems import build, labelled, small_soap, species, variations

from soapkrr import DotProduct, SparseGP
from soapkrr.baselines import baseline_energies, reference_energies
from soapkrr.labels import read_labels

# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_read_as_they_stand():
    atoms = labelled(build("vacancy"))
    (label,) = read_labels([atoms])
    assert label.energy == atoms.calc.results["energy"]
    np.testing.assert_array_equal(label.forces, atoms.calc.results["forces"])
    np.testing.assert_array_equal(label.stress, atoms.calc.results["stress"])


def test_a_stress_matrix_becomes_voigt():
    atoms = build("primitive")
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    atoms.calc.results["stress"] = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    np.testing.assert_array_equal(read_labels([atoms])[0].stress, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("kinds", [("energy",), ("forces",), ("stress",), ("energy", "forces"), ("forces", "stress")])
def test_missing_labels_are_told_apart(kinds):
    (label,) = read_labels([labelled(build("vacancy"), kinds)])
    assert np.isfinite(label.energy) == ("energy" in kinds)
    assert (label.forces is not None) == ("forces" in kinds)
    assert (label.stress is not None) == ("stress" in kinds)


def test_a_structure_without_any_label_is_empty():
    labels = read_labels([build("vacancy"), labelled(build("vacancy"))])
    assert [label.empty for label in labels] == [True, False]


# --- reference energies ----------------------------------------------------------------------------------------------


def _with_energy(atoms, energy):
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def _references(frames, baseline=None):
    return reference_energies(frames, read_labels(frames), baseline)


def _composed(references, formulas=("H2O", "H2", "O2", "H2O2", "CO2")):
    """Molecules whose energies are exactly those of their atoms."""
    rng = np.random.default_rng(0)
    frames = []
    for formula in formulas:
        atoms = Atoms(formula)
        atoms.positions = rng.normal(scale=3, size=(len(atoms), 3))
        frames.append(_with_energy(atoms, sum(references[s] for s in atoms.get_chemical_symbols())))
    return frames


def test_least_squares_finds_the_atoms():
    exact = {"H": -13.6, "C": -1028.0, "O": -2035.6}
    found = _references(_composed(exact))
    assert found.keys() == exact.keys()
    # Well conditioned (five compositions, three species): relative rounding.
    np.testing.assert_allclose([found[s] for s in exact], list(exact.values()), rtol=1e-12)


def test_isolated_atoms_come_first_when_every_species_has_one():
    frames = _composed({"H": -1.0, "O": -2.0}, ("H2O", "O2", "H2"))
    atoms = [_with_energy(Atoms(s), e) for s, e in (("H", -7.0), ("O", -9.0))]
    assert _references(frames + atoms) == {"H": -7.0, "O": -9.0}
    assert _references(frames + atoms, "isolated") == {"H": -7.0, "O": -9.0}


def test_one_isolated_atom_missing_means_least_squares():
    frames = _composed({"H": -1.0, "O": -2.0}, ("H2O", "O2", "H2"))
    found = _references([*frames, _with_energy(Atoms("H"), -1.0)])
    np.testing.assert_allclose([found["H"], found["O"]], [-1.0, -2.0], rtol=1e-12)


def test_least_squares_may_be_asked_for():
    frames = [*_composed({"H": -1.0, "O": -2.0}, ("H2O", "O2", "H2")), _with_energy(Atoms("H"), -1.0), _with_energy(Atoms("O"), -2.0)]
    np.testing.assert_allclose(list(_references(frames, "least-squares").values()), [-1.0, -2.0], rtol=1e-12)


def test_a_periodic_single_atom_is_not_isolated():
    crystal = _with_energy(Atoms("H", cell=[2, 2, 2], pbc=True), -5.0)
    molecules = _composed({"H": -1.0}, ("H2", "H3"))
    assert _references([crystal, *molecules])["H"] != -5.0


def test_given_references_are_taken():
    assert _references(_composed({"H": -1.0, "O": -2.0}, ("H2O",)), {"H": 3.0, "O": 4}) == {"H": 3.0, "O": 4.0}


def test_no_energies_no_references():
    frames = [labelled(build("vacancy"), ("forces",))]
    assert _references(frames) == {"Si": 0.0}


def test_all_the_same_composition():
    """Only Σ n_s e_s is determined; the smallest such references are taken and reproduce the mean energy."""
    frames = [_with_energy(molecule("CH3CH2OH"), -4200.0 + 0.1 * k) for k in range(5)]
    found = _references(frames)
    assert np.isfinite(list(found.values())).all()
    total = baseline_energies(found, frames[0].numbers).sum()
    # eps × 4200 eV is 1e-12; the singular system is cut at 1e-10.
    np.testing.assert_allclose(total, -4199.8, atol=1e-9)


def test_energy_of_each_atom():
    np.testing.assert_array_equal(baseline_energies({"H": -1.0, "O": -3.0}, np.array([8, 1, 1])), [-3.0, -1.0, -1.0])


# --- absolute energies -----------------------------------------------------------------------------------------------


def _shifted(frames, shift):
    shifted = []
    for atoms in frames:
        results = dict(atoms.calc.results)
        results["energy"] += sum(shift[s] for s in atoms.get_chemical_symbols())
        atoms = atoms.copy()
        atoms.calc = SinglePointCalculator(atoms, **results)
        shifted.append(atoms)
    return shifted


@pytest.mark.parametrize("baseline", [None, "least-squares", "given", "isolated"])
@pytest.mark.parametrize("name", ["vacancy", "molecule", "alloy"])
def test_core_electrons_do_not_hurt(name, baseline):
    """Energies shifted by −4000 eV or so per atom: predictions shift by exactly that."""
    shift = {s: -4000.0 - 17 * k for k, s in enumerate(species(name))}
    zero = dict.fromkeys(shift, 0.0)
    frames = variations(name, 4) + [_with_energy(Atoms(s), 0.0) for s in shift] * (baseline == "isolated")
    chosen = {"given": (zero, shift)}.get(baseline, (baseline, baseline))
    models = [
        SparseGP(small_soap(species(name)), DotProduct(2), n_sparse=12, baseline=b).fit(f)
        for b, f in zip(chosen, (frames, _shifted(frames, shift)), strict=True)
    ]
    test = variations(name, 3, seed=1)
    p, q = (model.predict(test, uncertainty=True) for model in models)
    expected = p.energy + [sum(shift[s] for s in atoms.get_chemical_symbols()) for atoms in test]
    # Labels of 4e4 eV are rounded to 7e-12 eV, which the noise of 2 meV and the fit (condition number below 1e4) do not amplify
    # beyond 1e-8; 1e-6 eV is asked for.
    np.testing.assert_allclose(q.energy, expected, rtol=0, atol=1e-6)
    for a, b in zip(p.forces, q.forces, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(q.energy_std, p.energy_std, rtol=1e-9)


def test_shift_of_one_fixed_composition():
    """Every structure the same molecule: least squares is singular, the shift still comes back."""
    frames, test = variations("molecule", 5), variations("molecule", 2, seed=1)
    shift = {"H": -13.6, "C": -1028.0, "O": -2035.6}
    model = SparseGP(small_soap(species("molecule")), DotProduct(2), n_sparse=20)
    plain = model.fit(frames).predict(test).energy
    moved = model.fit(_shifted(frames, shift)).predict(test).energy
    np.testing.assert_allclose(moved - plain, 6 * shift["H"] + 2 * shift["C"] + shift["O"], rtol=0, atol=1e-6)
