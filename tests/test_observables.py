"""Numbers with error bars: lattices, equations of state, elastic constants, phonons, vibrations, defects, curves."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.eos import EquationOfState
from ase.vibrations import Vibrations
from conftest import emt_copper
from finnis_sinclair import Tungsten
from taylor import assert_derivative

from soapkrr import SOAP, DotProduct, Energy, InputError, SparseGP, observables
from soapkrr.observables import eos
from soapkrr.observables.geometry import gradients, modes_of
from soapkrr.observables.number import with_std
from soapkrr.observables.source import as_source

NOISE = {"energy": 0.001, "forces": 0.02, "stress": 0.001}

#: Part of the way from the mean to a sample of the posterior at which derivatives are compared.
PART = 0.05


@pytest.fixture(scope="module")
def linear():
    """A potential of copper that is linear in 28 features, so that weights are all there is to be uncertain of."""
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=4, l_max=2, sigma=0.6)
    return SparseGP(soap, DotProduct(zeta=1), n_sparse=60, noise=NOISE, threads=1).fit(emt_copper(20))


@pytest.fixture(scope="module")
def calibrated():
    frames = emt_copper(12)
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=4, l_max=2, sigma=0.6)
    return SparseGP(soap, DotProduct(zeta=2), n_sparse=40, noise=NOISE, threads=1).fit(frames).calibrate(frames)


def trimers(n: int = 25):
    """Rattled triangles of copper with energies and forces of EMT."""
    rng, frames = np.random.default_rng(1), []
    for _ in range(n):
        atoms = Atoms("Cu3", [[0, 0, 0], [2.3, 0, 0], [1.15, 2.0, 0]])
        atoms.positions += rng.normal(scale=0.12, size=(3, 3))
        atoms.calc = EMT()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def cluster():
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=4, l_max=2, sigma=0.6)
    noise = {"energy": 0.001, "forces": 0.01}
    return SparseGP(soap, DotProduct(zeta=2), n_sparse=60, noise=noise, threads=1).fit(trimers())


class Mixed(Calculator):
    """A model that is ``part`` of the way from its mean to a sample of its posterior."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, model, part: float):
        super().__init__()
        self.model, self.sample, self.part = model, model.sample(1, seed=3)[0], part

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        mean, drawn = self.model.predict(self.atoms), self.sample.predict(self.atoms)
        found = {name: (1 - self.part) * getattr(mean, name)[0] + self.part * getattr(drawn, name)[0] for name in ("energy", "forces")}
        self.results = {**found, "free_energy": found["energy"]}
        self.results["stress"] = (1 - self.part) * mean.stress[0] + self.part * drawn.stress[0]


def towards_sample(model, number) -> float:
    """What the linearisation says of the difference of a sample of the posterior and the mean."""
    frames = {s.key: s.atoms for _, s, _, _ in number.linear.terms}
    keys = {key: k for k, key in enumerate(frames)}
    mean, drawn = (p.predict(list(frames.values())) for p in (model, model.sample(1, seed=3)[0]))
    total = 0.0
    for c, s, kind, place in number.linear.terms:
        k = keys[s.key]
        change = np.ravel(getattr(drawn, kind)[k] - getattr(mean, kind)[k])
        total += c * change[max(place, 0)]
    return total


def assert_linearised(model, ask, names, relative=2e-3):
    """Central differences of the whole calculation, relaxation and all, along the way to a sample agree with the linearisation."""
    found = ask(model)
    up, down = ask(Mixed(model, PART)), ask(Mixed(model, -PART))
    for name in names:
        expected = towards_sample(model, found[name])
        measured = (up[name].value - down[name].value) / (2 * PART)
        assert measured == pytest.approx(expected, rel=relative, abs=relative * found[name].posterior_std), name


# --- geometry ------------------------------------------------------------------------------------------------------------


def test_gradients_by_strains_and_displacements_together():
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, rng=rng)
    source = as_source(EMT())
    modes = modes_of(atoms, cell=True)
    x, d = 0.05 * rng.standard_normal(len(modes)), rng.standard_normal(len(modes))
    slope = gradients(source, modes, [x])[1][0] @ d
    assert len(modes) == 6 + 3 * 3
    assert_derivative(lambda t: gradients(source, modes, [x + t * d])[0][0], slope)


@pytest.mark.parametrize(("crystal", "free"), [(bulk("Cu"), 1), (bulk("Cu", cubic=True), 1), (bulk("Cu", "hcp", a=2.6, c=4.2), 2)])
def test_symmetry_leaves_few_coordinates(crystal, free):
    assert len(modes_of(crystal, cell=True)) == free


# --- on a plain calculator ------------------------------------------------------------------------------------------------


def test_equation_of_state_equals_that_of_ase():
    found = observables.equation_of_state(EMT(), bulk("Cu"))
    v0, e0, B = EquationOfState(found.volume, found.energy, "birchmurnaghan").fit()
    np.testing.assert_allclose([found.V0.value, found.E0.value, found.B0.value], [v0, e0, B * 160.21766], rtol=1e-6)
    assert found.B0.std is None and found.B0.method == "calculator"


@pytest.mark.parametrize("form", sorted(eos.FORMS))
def test_forms_agree_near_the_minimum(form):
    found = observables.equation_of_state(EMT(), bulk("Cu"), form, strain=0.03)
    assert found.B0.value == pytest.approx(134.5, rel=0.01) and found.V0.value == pytest.approx(11.5654, rel=1e-4)
    assert abs(found.pressure(found.V0.value)) < 1e-5


def test_bulk_modulus_is_that_of_the_elastic_tensor():
    elastic = observables.elastic_constants(EMT(), bulk("Cu"))
    assert elastic.K.value == pytest.approx(observables.equation_of_state(EMT(), bulk("Cu"), strain=0.03).B0.value, rel=0.005)
    assert elastic.stable and list(elastic.numbers)[:3] == ["C11", "C12", "C44"]


@pytest.mark.parametrize("crystal", [bulk("Cu"), bulk("Cu", "hcp", a=2.55, c=4.1)], ids=["fcc", "hcp"])
def test_energies_and_stresses_give_the_same_elastic_tensor(crystal):
    """Hexagonal crystals have atoms that follow the strain."""
    by_stress, by_energy = (observables.elastic_constants(EMT(), crystal, by) for by in ("stress", "energy"))
    np.testing.assert_allclose(by_stress.matrix, by_energy.matrix, atol=0.05)


def test_elastic_constants_of_tungsten_are_those_published():
    """To which the potential was fitted, GPa."""
    found = observables.elastic_constants(Tungsten(), bulk("W", a=3.16))
    np.testing.assert_allclose([found[name].value for name in ("C11", "C12", "C44")], [522.4, 204.4, 160.6], atol=1.0)
    assert observables.lattice(Tungsten(), bulk("W", a=3.16)).a.value == pytest.approx(3.1652, abs=1e-4)


def test_hexagonal_crystals_have_five_elastic_constants():
    C = observables.elastic_constants(EMT(), bulk("Cu", "hcp", a=2.55, c=4.1))
    assert list(C.numbers)[:6] == ["C11", "C12", "C13", "C33", "C44", "C66"]
    assert C.C66.value == pytest.approx(0.5 * (C.C11.value - C.C12.value), rel=1e-6)


def test_frequencies_equal_those_of_ase(tmp_path):
    found = observables.vibrations(EMT(), molecule("N2"))
    atoms = found.atoms.copy()
    atoms.calc = EMT()
    by_ase = Vibrations(atoms, name=str(tmp_path / "vib"))
    by_ase.run()
    np.testing.assert_allclose(found.frequencies, by_ase.get_frequencies().real[-1:], rtol=1e-3)
    assert found.zero_point.value == pytest.approx(0.5 * found.frequencies.sum() * units.invcm, rel=1e-9)


def test_imaginary_modes_are_flagged():
    """EMT does not hold methane together as a tetrahedron."""
    found = observables.vibrations(EMT(), molecule("CH4"))
    assert len(found.frequencies) == 9 and (found.frequencies < 0).sum() > 0
    assert "imaginary" in str(found["mode 1"]) and "flag" in found._repr_html_()


def test_frequencies_and_free_energy_equal_those_of_phonopy():
    found = observables.phonons(EMT(), bulk("Cu"), (2, 2, 2), {"X": (0.5, 0.5, 0.0), "L": (0.5, 0.5, 0.5)})
    phonon = found.phonopy
    phonon.run_qpoints([[0.5, 0.5, 0.0]])
    np.testing.assert_allclose([found[f"X{k}"].value for k in (1, 2, 3)], phonon.qpoints.frequencies[0], rtol=1e-6)
    F = found.free_energy([100.0, 300.0], (6, 6, 6))
    phonon.run_mesh([6, 6, 6], is_gamma_center=True)
    phonon.run_thermal_properties(temperatures=[100.0, 300.0])
    np.testing.assert_allclose(F.y * 96.4853, phonon.thermal_properties.free_energy, rtol=2e-4)
    states = found.dos((6, 6, 6))
    assert np.trapezoid(states.y, states.x) == pytest.approx(3.0, rel=0.01)


def test_energies_of_defects_and_surfaces_on_a_calculator():
    crystal = bulk("Cu", cubic=True, a=3.59)
    vacancy = observables.vacancy(EMT(), crystal, supercell=(2, 2, 2))
    assert 1.0 < vacancy.E_vacancy.value < 1.4 and len(vacancy.atoms) == 31
    fixed = observables.vacancy(EMT(), crystal, supercell=(2, 2, 2), relax=False)
    assert fixed.E_vacancy.value > vacancy.E_vacancy.value
    assert observables.interstitial(EMT(), crystal, (0.5, 0.5, 0.5), supercell=(2, 2, 2)).E_interstitial.value > 2
    slab = fcc100("Cu", (1, 1, 7), a=3.59, vacuum=8.0, periodic=True)
    assert 0.5 < observables.surface(EMT(), slab, crystal).gamma.value < 1.5
    formation = observables.formation_energy(EMT(), bulk("CuAu", "cesiumchloride", a=3.1), {"Cu": bulk("Cu"), "Au": bulk("Au")}, relax=True)
    assert abs(formation.E_formation.value) < 0.3


def test_stacking_fault_returns_after_a_lattice_vector():
    slab = fcc100("Cu", (1, 1, 6), a=3.59, vacuum=8.0, periodic=True)
    curve = observables.stacking_fault(EMT(), slab, slab.cell.array[0], n=5)
    assert abs(curve.y[-1]) < 1e-2 * curve.unstable.value and curve.unstable.value > 100


def test_a_torsion_turns_one_side():
    ethane = molecule("C2H6")
    curve = observables.torsion(EMT(), ethane, (2, 0, 1, 5), n=12)
    assert curve.barrier.value == pytest.approx(0.00147, abs=1e-4)
    np.testing.assert_allclose(curve.y[:4], curve.y[4:8], atol=1e-6)


def test_mixing_of_pure_elements_vanishes():
    frames = [bulk("Cu"), bulk("Au"), bulk("CuAu", "cesiumchloride", a=3.1)]
    curve = observables.mixing(EMT(), frames, "Au")
    np.testing.assert_allclose(curve.x, [0, 0.5, 1])
    assert abs(curve.y[[0, 2]]).max() < 1e-9 and curve.lowest.unit == "meV/atom"


# --- bars -----------------------------------------------------------------------------------------------------------------


def test_the_fit_of_an_equation_of_state_is_differentiated_rightly():
    """The normal equations, residuals included."""
    rng = np.random.default_rng(0)
    V = np.linspace(10.5, 12.5, 9)
    E = eos.FORMS["vinet"](V, -3.5, 0.8, 5.0, 11.5) + 2e-3 * rng.standard_normal(9)
    d = rng.standard_normal(9)
    for k in range(4):
        slope = eos.response(V, E, eos.fit(V, E, "vinet"), "vinet")[k] @ d
        measured = [(eos.fit(V, E + t * d, "vinet")[k] - eos.fit(V, E - t * d, "vinet")[k]) / (2 * t) for t in (2e-5,)]
        assert measured[0] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(
    ("ask", "names"),
    [
        (lambda m: observables.lattice(m, bulk("Cu")), ["a", "V"]),
        (lambda m: observables.lattice(m, bulk("Cu", "hcp", a=2.55, c=4.15)), ["a", "c"]),
        (lambda m: observables.equation_of_state(m, bulk("Cu", a=3.6), relax=False), ["E0", "V0", "B0", "B0_prime"]),
        (lambda m: observables.elastic_constants(m, bulk("Cu")), ["C11", "C12", "C44", "G", "nu"]),
        (lambda m: observables.elastic_constants(m, bulk("Cu", "hcp", a=2.55, c=4.15)), ["C11", "C33", "C66"]),
        (lambda m: observables.elastic_constants(m, bulk("Cu"), "energy"), ["C11", "C44"]),
        (lambda m: observables.vacancy(m, bulk("Cu", cubic=True)), ["E_vacancy"]),
        (lambda m: observables.phonons(m, bulk("Cu"), (2, 2, 2), {"X": (0.5, 0.5, 0)}), ["X1", "X3"]),
    ],
    ids=["lattice", "hcp", "eos", "elastic", "elastic-hcp", "elastic-energy", "vacancy", "phonons"],
)
def test_bars_are_those_of_the_whole_calculation(linear, ask, names):
    assert_linearised(linear, ask, names)


def test_bars_of_vibrations_are_those_of_the_whole_calculation(cluster):
    assert_linearised(cluster, lambda m: observables.vibrations(m, trimers(1)[0]), ["mode 1", "mode 3", "zero_point"], 5e-3)


def test_bars_of_dimers_are_those_of_the_whole_curve(cluster):
    assert_linearised(cluster, lambda m: observables.dimer(m, ("Cu", "Cu"), np.linspace(1.9, 2.7, 25)), ["D", "r"], 2e-2)


def test_bars_equal_those_of_samples(linear):
    """Of a potential with finitely many weights samples have all that the posterior has; within four of their sampling errors."""
    n = 500
    found = observables.equation_of_state(linear, bulk("Cu", a=3.6), relax=False)
    frames = []
    for V in found.volume:
        frames.append(bulk("Cu", a=(4 * V) ** (1 / 3)))
    energies = linear.sample(n, seed=1).predict(frames).energy
    each = np.array([eos.fit(found.volume, E, found.form) for E in energies])
    std = each.std(axis=0)[[0, 3, 1, 2]] * [1, 1, 160.21766, 1]
    np.testing.assert_allclose([number.posterior_std for number in found], std, rtol=4 / np.sqrt(2 * n))


def test_relaxed_lattices_of_samples_spread_as_the_bar_says(linear):
    n = 40
    samples = linear.sample(n, seed=2)
    each = [observables.lattice(samples.calculator(k), bulk("Cu", a=3.59)).a.value for k in range(n)]
    assert np.std(each) == pytest.approx(observables.lattice(linear, bulk("Cu")).a.posterior_std, rel=4 / np.sqrt(2 * n))


def test_both_ways_to_elastic_constants_agree_within_their_bars(copper):
    by_stress, by_energy = (observables.elastic_constants(copper, bulk("Cu"), by) for by in ("stress", "energy"))
    for name in ("C11", "C12", "C44", "K", "G"):
        a, b = by_stress[name], by_energy[name]
        assert abs(a.value - b.value) < a.std and a.posterior_std == pytest.approx(b.posterior_std, rel=0.05)


def test_bars_keep_the_symmetry_of_frequencies(linear):
    found = observables.phonons(linear, bulk("Cu"), (2, 2, 2), {"G": (0, 0, 0), "X": (0.5, 0.5, 0)})
    assert found.X1.std == pytest.approx(found.X2.std, rel=1e-6) and found.X1.std > 0
    assert [found[f"G{k}"].value for k in (1, 2, 3)] == [0, 0, 0]
    bands = found.bands("GX", n=3)
    assert bands.frequency.shape == (3, 3) and bands.std[-1, 2] == pytest.approx(found.X3.std, rel=0.3)
    F = found.free_energy([300.0], (3, 3, 3))
    assert 0 < F.std[0] < 0.1 and (found.dos((3, 3, 3), n=5).std >= 0).all()


def test_calibrated_bars_are_the_posterior_times_a_ratio_for_each_kind(calibrated):
    vacancy = observables.vacancy(calibrated, bulk("Cu", cubic=True, a=3.6), relax=False).E_vacancy
    assert vacancy.method == "joint posterior" and set(vacancy.ratios) == {"energy"}
    assert vacancy.std == pytest.approx(vacancy.ratios["energy"] * vacancy.posterior_std) and vacancy.ratios["energy"] != 1.0
    a = observables.lattice(calibrated, bulk("Cu")).a
    assert a.std == pytest.approx(a.ratios["stress"] * a.posterior_std) and a.method == "delta method"
    low, high = vacancy.interval(0.9)
    assert high - low == pytest.approx(2 * 1.6449 * vacancy.std, rel=1e-3)


def test_an_expression_is_a_number_with_the_bar_of_the_posterior(linear):
    atoms = emt_copper(1, seed=5)[0]
    number = observables.difference(linear, Energy(atoms) - 2 * Energy(bulk("Cu")), "gap")
    joint = linear.posterior([Energy(atoms) - 2 * Energy(bulk("Cu"))])
    assert number.value == pytest.approx(joint.mean[0]) and number.std == pytest.approx(joint.std[0])


def test_next_names_the_label_that_narrows_the_number_most(linear):
    found = observables.elastic_constants(linear, bulk("Cu"))
    candidates = emt_copper(4, seed=9)
    best = found.next(candidates, "C44")
    one = linear.variance_drop(candidates, [found.C44.linear])
    np.testing.assert_allclose(best.ratios, np.sqrt(1 - one.drop[:, 0] / one.variance[0]))
    assert best.index == np.argmin(best.ratios) and best.after < best.std == found.C44.std
    assert "candidate" in str(best)


# --- what is shown, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [(152.3, 4.2, "152 ± 4"), (5.4751, 0.0141, "5.475 ± 0.014"), (-3.5, 0.25, "-3.5 ± 0.2"), (1234.5, 130, "1230 ± 130"), (2.0, None, "2")],
)
def test_numbers_are_written_to_the_digits_that_are_known(value, std, text):
    assert with_std(value, std) == text


def test_numbers_show_as_a_line_and_results_as_a_table_and_a_figure(linear):
    pytest.importorskip("matplotlib").use("Agg")
    found = observables.equation_of_state(linear, bulk("Cu"))
    assert str(found.B0).startswith("B0 = ") and str(found.B0).endswith(" GPa") and "±" in str(found.B0)
    assert repr(found) == "\n".join(map(str, found)) and "<table>" in found._repr_html_() and "B0" in dir(found)
    assert float(found.B0) == found.B0.value
    assert found.plot().get_xlabel() == "volume (Å³/atom)"
    assert "GPa" in observables.elastic_constants(linear, bulk("Cu")).plot().get_xlabel()
    curve = observables.dimer(linear, ("Cu", "Cu"))
    assert curve.std.shape == curve.y.shape and curve.plot().get_ylabel() == "energy (eV)"
    assert "THz" in observables.phonons(linear, bulk("Cu"), (2, 2, 2)).bands(n=5).plot().get_ylabel()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: observables.lattice("model", bulk("Cu")), "fitted potential or an ASE calculator"),
        (lambda: observables.elastic_constants(EMT(), bulk("Cu", a=3.7), relax=False), "not at rest.*Relax"),
        (lambda: observables.elastic_constants(EMT(), molecule("N2")), "periodic in three directions"),
        (lambda: observables.elastic_constants(EMT(), bulk("Cu"), by="guess"), "`by`"),
        (lambda: observables.elastic_constants(EMT(), [bulk("Cu")]), "expected an ase.Atoms object, received list"),
        (lambda: observables.elastic_constants(EMT(), Atoms("Cu", [[np.nan, 0, 0]], cell=[3, 3, 3], pbc=True)), "not finite"),
        (lambda: observables.lattice(EMT(), Atoms("Cu", pbc=True)), "cell vector 0 is zero"),
        (lambda: observables.lattice(EMT(), Atoms("Cu2", cell=[3, 3, 3], pbc=True)), "no atoms coincide"),
        (lambda: observables.lattice(EMT(), bulk("Si")), "No EMT-potential for Si"),
        (lambda: observables.elastic_constants(EMT(), rattled(), relax=False), "not at rest on this model: forces up to 0.9"),
        (lambda: observables.phonons(EMT(), rattled(), (1, 1, 1), relax=False), "not at rest"),
        (lambda: observables.phonons(EMT(), bulk("Cu", "sc", a=2.4), (2, 2, 2)).free_energy([300.0], (2, 2, 2)), "are imaginary"),
        (lambda: observables.phonons(EMT(), bulk("Cu"), (2, 2)), "`supercell`"),
        (lambda: observables.phonons(EMT(), bulk("Cu"), (0, 2, 2)), "`supercell`"),
        (lambda: observables.equation_of_state(EMT(), bulk("Cu"), "quartic"), "`form`"),
        (lambda: observables.equation_of_state(EMT(), bulk("Cu", a=3.9), relax=False), "no minimum"),
        (lambda: observables.vibrations(EMT(), bulk("Cu")), "no periodicity"),
        (lambda: observables.vibrations(EMT(), Atoms("N2", [[0, 0, 0], [0, 0, 1.3]]), relax=False), "not at rest"),
        (lambda: observables.vacancy(EMT(), bulk("CuAu", "rocksalt", a=5.0)), "one element"),
        (lambda: observables.interstitial(EMT(), bulk("Cu"), (0, 0, 0)), "from an atom"),
        (lambda: observables.surface(EMT(), bulk("Cu"), bulk("Cu")), "vacuum"),
        (lambda: observables.formation_energy(EMT(), bulk("Cu"), {}), "`references`"),
        (lambda: observables.dimer(EMT(), ["Cu"]), "two elements"),
        (lambda: observables.torsion(EMT(), molecule("C2H6"), (0, 0, 1, 2)), "four different atoms"),
        (lambda: observables.torsion(EMT(), molecule("C6H6"), (0, 1, 2, 3)), "ring"),
        (lambda: observables.stacking_fault(EMT(), fcc100("Cu", (1, 1, 4)), (0, 0, 1)), "`direction`"),
        (lambda: observables.mixing(EMT(), [bulk("Cu")], "Cu"), "two elements"),
        (lambda: observables.difference(EMT(), Energy(bulk("Cu"), 0)), "single atoms"),
        (lambda: observables.lattice(EMT(), bulk("Cu")).a.interval(), "no error bars"),
        (lambda: observables.lattice(EMT(), bulk("Cu"))["b"], "no number"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_reason(ask, words):
    with pytest.raises(InputError, match=words):
        ask()


def rattled():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def test_elastic_constants_of_an_unstable_crystal_are_flagged():
    found = observables.elastic_constants(EMT(), bulk("Cu", "sc", a=2.4))
    assert not found.stable and list(found.numbers) == ["C11", "C12", "C44"]
    assert all("not stable" in str(number) for number in found) and "flag" in found._repr_html_()


def test_the_cell_that_a_crystal_is_given_in_does_not_matter():
    """A left-handed one, and one whose vectors are other combinations."""
    expected = observables.elastic_constants(EMT(), bulk("Cu"))
    for change in ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], [[1, 1, 0], [0, 1, 0], [0, 2, 1]]):
        cell = np.array(change) @ bulk("Cu").cell.array
        again = observables.elastic_constants(EMT(), Atoms("Cu", cell=cell, pbc=True))
        np.testing.assert_allclose([n.value for n in again], [n.value for n in expected], rtol=1e-6)


def test_a_cell_without_symmetry_has_all_constants():
    """Sheared a little: triclinic, at rest only once its cell has relaxed."""
    atoms = bulk("Cu")
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.002 * np.random.default_rng(0).standard_normal((3, 3))), scale_atoms=True)
    atoms.rattle(0.001)
    assert len(observables.elastic_constants(EMT(), atoms).matrix) == 6
