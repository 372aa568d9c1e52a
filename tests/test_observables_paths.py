"""Numbers with error bars from several structures at once: phases, barriers, thermal expansion, averages over dynamics."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from conftest import emt_copper
from scipy.special import ndtri
from small import labelled
from test_observables import NOISE, Mixed, assert_linearised, towards_sample

from soapkrr import SOAP, DotProduct, InputError, SparseGP, observables
from soapkrr.prediction import Prediction

STRUCTURES = {"fcc": bulk("Cu", a=3.6), "sc": bulk("Cu", "sc", a=2.35)}


@pytest.fixture(scope="module")
def linear():
    """A potential of copper that is linear in its features."""
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=4, l_max=2, sigma=0.6)
    return SparseGP(soap, DotProduct(zeta=1), n_sparse=60, noise=NOISE, threads=1).fit(emt_copper(20))


@pytest.fixture(scope="module")
def polymorphic():
    """The same of a copper whose simple cubic phase is half an electronvolt lower: it turns into fcc under pressure."""
    cubic = []
    for a in np.linspace(2.1, 2.6, 8):
        atoms = bulk("Cu", "sc", a=a)
        atoms.calc = EMT()
        cubic.append(labelled(atoms, energy=atoms.get_potential_energy() - 0.5, stress=atoms.get_stress()))
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=4, l_max=2, sigma=0.6)
    return SparseGP(soap, DotProduct(zeta=1), n_sparse=60, noise=NOISE, threads=1).fit(emt_copper(20) + cubic)


def coexisting(model):
    return observables.phases(model, STRUCTURES, strain=0.15, relax=False)


def adatom() -> tuple[Atoms, Atoms]:
    """Copper on a fixed row of copper, left and right of a bridge."""
    row = Atoms("Cu6", [[2.6 * k, 0, 0] for k in range(6)])
    row.set_constraint(FixAtoms(range(6)))
    ends = []
    for x in (2.5, 3.5):
        one = row.copy()
        one += Atoms("Cu", [[2.6 * x, 0, 2.0]])
        ends.append(one)
    return ends[0], ends[1]


# --- phases ---------------------------------------------------------------------------------------------------------------


def test_phases_coexist_where_enthalpies_and_slopes_are_equal(polymorphic):
    found = coexisting(polymorphic.calculator())
    p, (a, b) = found["fcc-sc"].value * units.GPa, found.volumes["fcc-sc"]
    dense, rare = found.equations["fcc"], found.equations["sc"]
    assert float(dense(a)) + p * a == pytest.approx(float(rare(b)) + p * b, abs=1e-9) and a < b
    np.testing.assert_allclose([dense.pressure(a), rare.pressure(b)], found["fcc-sc"].value, atol=1e-6)
    assert rare.E0.value < dense.E0.value and p > 0


def test_the_bar_of_a_transition_pressure_is_that_of_the_whole_calculation(polymorphic):
    pytest.importorskip("matplotlib").use("Agg")
    assert_linearised(polymorphic, coexisting, ["fcc-sc"], 5e-3)
    assert len(coexisting(polymorphic).plot().get_lines()) > 2


def test_phases_that_do_not_cross_have_no_pressure():
    found = observables.phases(EMT(), {"fcc": bulk("Cu"), "bcc": bulk("Cu", "bcc", a=2.87)})
    assert len(found) == 0 and "no two of fcc, bcc coexist" in str(found)
    with pytest.raises(InputError, match="no number"):
        found.next([bulk("Cu")])


# --- barriers ---------------------------------------------------------------------------------------------------------------


def test_a_barrier_is_that_of_the_saddle_point():
    initial, final = adatom()
    found = observables.barrier(EMT(), initial, final, n=7, fmax=0.01)
    saddle = initial.copy()
    saddle.positions[-1] = [2.6 * 3, 0, 2.0]
    heights = []
    for z in np.linspace(1.8, 2.6, 81):
        saddle.positions[-1, 2] = z
        saddle.calc = EMT()
        heights.append(saddle.get_potential_energy())
    end = found.frames[0].copy()
    end.calc = EMT()
    assert found.forward.value == pytest.approx(min(heights) - end.get_potential_energy(), abs=2e-3)
    assert found.forward.value == pytest.approx(found.reverse.value, abs=2e-3) and found.x[0] == 0 and found.covariance is None


def test_held_atoms_may_differ_between_the_ends():
    """By a hundredth of an ångström: the barrier changes by as little, and they are where they were put."""
    initial, final = adatom()
    final.positions[0, 0] -= 0.01
    found = observables.barrier(EMT(), initial, final, n=5, fmax=0.02)
    straight = observables.barrier(EMT(), *adatom(), n=5, fmax=0.02)
    assert found.forward.value == pytest.approx(straight.forward.value, abs=0.02)
    np.testing.assert_allclose([a.positions[0, 0] for a in found.frames], np.linspace(0, -0.01, 5), atol=1e-9)


def test_the_bar_of_a_barrier_is_that_of_the_energies_at_its_ends(linear):
    """Structures at rest change energy, to first order, as if they stayed."""
    vacancy = bulk("Cu", cubic=True, a=3.59) * (2, 1, 1)
    final = vacancy.copy()
    del vacancy[0], final[1]
    final.positions[0] = vacancy.positions[0]
    initial, final = vacancy, final
    order = np.argsort(np.linalg.norm(initial.positions[:, None] - final.positions[None], axis=2), axis=1)[:, 0]
    final = final[order]
    final.positions[0] = [0, 0, 0]
    found = observables.barrier(linear, initial, final, n=5, fmax=0.02)
    expected = towards_sample(linear, found.forward)
    up, down = (observables.barrier(Mixed(linear, part), initial, final, n=5, fmax=0.02).forward.value for part in (0.05, -0.05))
    assert (up - down) / 0.1 == pytest.approx(expected, abs=0.1 * found.forward.posterior_std)
    assert found.forward.method == "delta method" and found.std[0] == 0


# --- temperature -------------------------------------------------------------------------------------------------------------


def test_copper_expands_as_it_should():
    """EMT is not copper, but as soft: some 17·10⁻⁶/K at room temperature; and less when it is cold."""
    found = observables.expansion(EMT(), bulk("Cu"), [30.0, 300.0], (2, 2, 2), mesh=(6, 6, 6))
    assert 8 < found["alpha(300 K)"].value < 30 and found["alpha(30 K)"].value < 0.3 * found["alpha(300 K)"].value
    assert found["V(300 K)"].value > found["V(30 K)"].value > 11.565


def test_the_bar_of_an_expansion_is_that_of_the_whole_calculation(linear):
    def ask(model):
        return observables.expansion(model, bulk("Cu"), [300.0], (2, 2, 2), n=5, mesh=(3, 3, 3))

    assert_linearised(linear, ask, ["V(300 K)", "alpha(300 K)"], 2e-2)


def test_an_average_shifts_as_weights_say(linear):
    """Beside samples, the derivative of a canonical average: −β cov(A, δE)."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(60):
        atoms = bulk("Cu", cubic=True, a=3.59)
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        frames.append(atoms)
    values = np.array([atoms.get_distance(0, 1, mic=True) for atoms in frames])
    found = observables.average(linear, frames, values, 1000.0, n=400, unit="Å")
    by_delta = np.sqrt(linear.posterior([found["average"].linear]).covariance[0, 0])
    assert found["average"].std == pytest.approx(by_delta, rel=4 / np.sqrt(800) + 0.1)
    assert found["average"].method == "samples" and found["average"].flag == "" and found.effective.min() > 0.5
    assert found.sampling[0] == pytest.approx(values.std() / np.sqrt(60), rel=0.8)
    both = observables.average(linear, frames, np.column_stack([values, values**2]), 1000.0, n=50)
    assert both.mean.shape == both.std.shape == (2,)
    cold = observables.average(linear, frames, values, 0.05, n=50)
    assert "weights rest on" in str(cold["average"])


class Spring:
    """Stands for a potential: one atom on a spring of strength k (eV/Å²), the only thing that its posterior is uncertain of."""

    def __init__(self, k: float, std: float):
        self.k, self.std = k, std

    def calculator(self):
        return None

    def predict(self, frames, uncertainty=False):
        energy = np.array([0.5 * self.k * (a.positions**2).sum() for a in frames])
        nothing = [np.zeros((1, 3))] * len(frames)
        return Prediction(energy, [energy[:1]] * len(frames), nothing, np.full((len(frames), 6), np.nan))

    def posterior(self, wanted):
        half = np.array([sum(c * 0.5 * (s.atoms.positions**2).sum() for c, s, _, _ in one.terms) for one in wanted])
        return SimpleNamespace(covariance=self.std**2 * np.outer(half, half))


@pytest.mark.parametrize("part", [0.02, 0.1])
def test_a_spring_of_uncertain_strength_swings_as_far_as_is_known(part):
    """⟨x²⟩ = kT/k of each sample, and of its weights √(1 + 2δ/k)/(1 + δ/k) count; x at quantiles of the canonical distribution."""
    T, k, n = 300.0, 2.0, 2000
    x = np.sqrt(units.kB * T / k) * ndtri((np.arange(400) + 0.5) / 400)
    frames = [Atoms("H", [[place, 0, 0]]) for place in x]
    found = observables.average(Spring(k, part * k), frames, x**2, T, n=n, unit="Å²")
    strengths = k * (1 + part * np.random.default_rng(1).standard_normal(100000))
    assert found.average.value == pytest.approx(units.kB * T / k, rel=0.01)
    assert found.average.std == pytest.approx(np.std(units.kB * T / strengths), rel=4 / np.sqrt(2 * n) + 0.02)
    counting = np.sqrt(2 * strengths / k - 1) / (strengths / k)
    np.testing.assert_allclose(np.quantile(found.effective, [0.1, 0.5]), np.quantile(counting, [0.1, 0.5]), atol=0.005)
    assert f"weights rest on {100 * np.median(found.effective):.0f} %" in str(found) and "2000 samples" in found._repr_html_()


# --- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: observables.phases(EMT(), {"fcc": bulk("Cu")}), "at least two phases"),
        (lambda: observables.phases(EMT(), {"a": bulk("Cu"), "b": bulk("Au")}), "another composition"),
        (lambda: observables.barrier(EMT(), bulk("Cu"), bulk("Au")), "same atoms"),
        (lambda: observables.barrier(EMT(), adatom()[0], adatom()[0]), "one structure"),
        (lambda: observables.expansion(EMT(), bulk("Cu"), [-1.0]), "`temperatures`"),
        (lambda: observables.average(EMT(), [bulk("Cu")], [1.0], 300.0), "at least 20"),
        (lambda: observables.average(EMT(), [bulk("Cu")] * 30, np.zeros(30), -1.0), "`temperature`"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_reason(ask, words):
    with pytest.raises(InputError, match=words):
        ask()


def test_imaginary_phonons_end_the_quasi_harmonic_approximation():
    with pytest.raises(InputError, match="imaginary"):
        observables.expansion(EMT(), bulk("Cu", "sc", a=2.4), [300.0], (2, 2, 2), mesh=(4, 4, 4))
    found = observables.phonons(EMT(), bulk("Cu", "sc", a=2.4), (2, 2, 2), {"X": (0.5, 0, 0)})
    assert found.X1.value < 0 and "imaginary" in str(found.X1)
