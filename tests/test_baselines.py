"""Prior means: ZBL against its limits, derivatives of all of them, any calculator called once per structure, fits on top, files."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.md.langevin import Langevin
from derivatives import moved, strained, symmetric, voigt_dot
from sklearn.base import clone
from small import crystals
from systems import SYSTEMS, build, labelled, small_soap, variations
from taylor import assert_derivative

import soapkrr
from soapkrr import (
    ACSF,
    ZBL,
    CalculatorBaseline,
    DotProduct,
    GaussianProcess,
    InputError,
    Linear,
    ModelFileError,
    Pair,
    SparseGP,
    SquaredExponential,
)
from soapkrr.baselines import split_baseline, subtract, total
from soapkrr.baselines.zbl import AMPLITUDES, COULOMB, DECAYS
from soapkrr.labels import read_labels
from soapkrr.structures import Batch


class Counting(Calculator):
    """Lennard-Jones that counts how often it is asked."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, **changes):
        super().__init__()
        self.inner, self.calls = LennardJones(**{"sigma": 3.4, "epsilon": 0.01, "rc": 6.0, "smooth": True, **changes}), 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        probe = self.atoms.copy()
        probe.calc = self.inner
        self.results = {"energy": probe.get_potential_energy(), "forces": probe.get_forces()}
        if probe.pbc.all():
            self.results["stress"] = probe.get_stress()


class EnergyOnly(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 1.0, "forces": np.zeros((len(self.atoms), 3))}


def evaluated(mean, atoms):
    return mean.evaluate(Batch.from_atoms([atoms]))


# --- ZBL -------------------------------------------------------------------------------------------------------------


def test_constants():
    assert pytest.approx(1e10 * units._e / (4 * np.pi * units._eps0), rel=2e-8) == COULOMB
    assert AMPLITUDES.sum() == pytest.approx(1, abs=1e-15)
    # 0.8854 Bohr radii, the universal screening length; tabulated with five digits.
    assert soapkrr.baselines.zbl.SCREENING == pytest.approx(0.8854 * units.Bohr, rel=1e-4)


@pytest.mark.parametrize("z1, z2", [(1, 1), (14, 14), (6, 79)])
def test_nuclei_that_touch_are_not_screened(z1, z2):
    r = np.array([1e-7])
    value, slope = ZBL(r_inner=1.0, r_outer=2.0).pair_energy(z1, z2, r)
    np.testing.assert_allclose(value * r, z1 * z2 * COULOMB, rtol=1e-5)
    np.testing.assert_allclose(slope * r**2, -z1 * z2 * COULOMB, rtol=1e-5)


def test_screening_function_at_one_screening_length():
    """Φ(1) = 0.4164 (the sum written out), here by way of two silicon atoms."""
    a = 0.46850 / (2 * 14**0.23)
    value, _ = ZBL(r_inner=1.0, r_outer=2.0).pair_energy(14, 14, a)
    phi = 0.18175 * np.exp(-3.1998) + 0.50986 * np.exp(-0.94229) + 0.28022 * np.exp(-0.4029) + 0.02817 * np.exp(-0.20162)
    assert phi == pytest.approx(0.4164, abs=5e-5)
    assert value * a / (196 * COULOMB) == pytest.approx(phi, rel=1e-12)
    assert np.dot(AMPLITUDES, np.exp(-DECAYS)) == pytest.approx(phi, rel=1e-12)


@pytest.mark.parametrize("zbl", [ZBL(), ZBL(r_inner=0.8, r_outer=2.4)], ids=repr)
def test_zbl_falls_monotonically_to_zero(zbl):
    r = np.linspace(0.05, 3.0, 500)
    value, slope = zbl.pair_energy(14, 8, r)
    outer = zbl.radii(np.array(14), np.array(8))[1]
    assert (np.diff(value[r < outer]) < 0).all() and (slope[r < outer] <= 0).all()
    assert not value[r >= outer].any() and not slope[r >= outer].any()
    assert_derivative(lambda t: zbl.pair_energy(14, 8, r[::50] + t)[0], slope[::50], steps=0.01 * 0.5 ** np.arange(20))


def test_energy_of_a_dimer_is_shared():
    atoms = Atoms("SiO", positions=[[0, 0, 0], [0.6, 0, 0]])
    mean = evaluated(ZBL(), atoms)
    np.testing.assert_allclose(mean.energies, 0.5 * ZBL().pair_energy(14, 8, 0.6)[0])
    np.testing.assert_allclose(mean.forces[1, 0], -ZBL().pair_energy(14, 8, 0.6)[1])


@pytest.mark.parametrize("zbl", [ZBL(), ZBL(r_inner=1.0, r_outer=3.9)], ids=repr)
@pytest.mark.parametrize("name", SYSTEMS)
def test_derivatives_of_zbl(name, zbl):
    atoms, rng = build(name), np.random.default_rng(0)
    if name != "atom":
        atoms.set_cell(0.75 * atoms.cell.array, scale_atoms=False)
        atoms.positions *= 0.75
    u, strain = 0.3 * rng.normal(size=(len(atoms), 3)), 0.3 * symmetric(rng)
    mean = evaluated(zbl, atoms)
    assert_derivative(lambda t: evaluated(zbl, moved(atoms, u, t)).energies.sum(), -np.vdot(mean.forces, u))
    assert_derivative(lambda t: evaluated(zbl, strained(atoms, strain, t)).energies.sum(), voigt_dot(mean.strain[0], strain))


@pytest.mark.parametrize(
    "radii, message",
    [
        ({"r_inner": 1.0}, "`r_outer`"),
        ({"r_outer": 1.0}, "`r_inner`"),
        ({"r_inner": 2.0, "r_outer": 1.0}, "smaller than `r_outer`"),
        ({"r_inner": -1.0, "r_outer": 1.0}, "`r_inner`"),
    ],
)
def test_bad_radii_are_named(radii, message):
    with pytest.raises(InputError, match=message):
        ZBL(**radii)


# --- calculators -----------------------------------------------------------------------------------------------------


def test_a_calculator_is_called_once_per_structure():
    frames, calculator = crystals(4), Counting()
    model = SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=10, baseline=CalculatorBaseline(calculator)).fit(frames)
    assert calculator.calls == 4
    model.predict(frames)
    model.predict([frames[1], frames[1].copy()], uncertainty=True)
    assert calculator.calls == 4
    other = frames[0].copy()
    other.positions[0, 0] += 1e-9
    model.predict(other)
    assert calculator.calls == 5


def test_clones_share_the_results():
    frames, calculator = crystals(3), Counting()
    model = SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=5, baseline=CalculatorBaseline(calculator)).fit(frames)
    clone(model).fit(frames)
    assert calculator.calls == 3


def test_values_are_those_of_the_calculator():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    mean = evaluated(CalculatorBaseline(EMT()), atoms)
    atoms.calc = EMT()
    np.testing.assert_allclose(mean.energies, atoms.get_potential_energies(), rtol=1e-12)
    np.testing.assert_allclose(mean.forces, atoms.get_forces(), atol=1e-12)
    np.testing.assert_allclose(mean.strain[0] / atoms.get_volume(), atoms.get_stress(), atol=1e-12)


def test_without_energies_per_atom_shares_are_equal():
    mean = evaluated(CalculatorBaseline(EnergyOnly()), build("primitive"))
    np.testing.assert_allclose(mean.energies, [0.5, 0.5])
    assert np.isnan(mean.strain).all()


def test_labels_equal_to_the_baseline_leave_nothing_to_learn(copper_frames):
    baseline = [{"Cu": 0.0}, CalculatorBaseline(EMT())]
    model = SparseGP(small_soap(["Cu"]), DotProduct(2), n_sparse=20, baseline=baseline).fit(copper_frames)
    assert np.abs(model.process_.posterior.mean).max() < 1e-8
    prediction = model.predict(copper_frames)
    for k, atoms in enumerate(copper_frames):
        assert prediction.energy[k] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert prediction.energies[k].sum() == pytest.approx(prediction.energy[k], abs=1e-9)
        np.testing.assert_allclose(prediction.forces[k], atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(prediction.stress[k], atoms.get_stress(), atol=1e-10)


@pytest.fixture(scope="module")
def copper_frames():
    frames = []
    for k in range(5):
        atoms = bulk("Cu", a=3.5 + 0.05 * k, cubic=True)
        atoms.rattle(0.08, seed=k)
        atoms.calc = EMT()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces(), stress=atoms.get_stress())
        frames.append(atoms)
    return frames


def test_a_stress_label_needs_a_stress_of_the_baseline():
    with pytest.raises(InputError, match="frame 0 has a stress.*`baseline`"):
        SparseGP(small_soap(["Ar"]), DotProduct(2), baseline=CalculatorBaseline(EnergyOnly())).fit(crystals(2))


@pytest.mark.parametrize("calculator", [None, "EMT", EMT])
def test_what_is_no_calculator_is_refused(calculator):
    with pytest.raises(InputError, match="`calculator`"):
        CalculatorBaseline(calculator)


def test_values_that_are_not_finite_name_the_frame():
    class Broken(EnergyOnly):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] = np.nan

    with pytest.raises(InputError, match="frame 0: the calculator"):
        SparseGP(small_soap(["Ar"]), DotProduct(2), baseline=CalculatorBaseline(Broken())).fit(crystals(2))


# --- in a model ------------------------------------------------------------------------------------------------------


MIXTURES = {
    "ZBL": ZBL(),
    "references, ZBL": ["least-squares", ZBL(1.0, 3.9)],
    "ZBL, calculator": [ZBL(), CalculatorBaseline(LennardJones(rc=3.5, smooth=True))],
}


def _reduced(frames, means):
    """Copies of structures that carry the differences to the prior means."""
    copies = []
    for atoms, label in zip(frames, subtract(means, frames, read_labels(frames)), strict=True):
        copies.append(atoms.copy())
        copies[-1].calc = SinglePointCalculator(copies[-1], energy=label.energy, forces=label.forces, stress=label.stress)
    return copies


@pytest.mark.parametrize("baseline", MIXTURES.values(), ids=MIXTURES)
def test_labels_are_reduced_and_predictions_raised_by_the_same(baseline):
    """A model with a baseline is a model of the differences, plus the baseline."""
    frames = variations("vacancy", 5)
    references, means = split_baseline(baseline)
    reduced = _reduced(frames, means)
    settings = dict(n_sparse=15, threads=1)
    model = SparseGP(small_soap(["Si"]), DotProduct(2), baseline=baseline, **settings).fit(frames)
    plain = SparseGP(small_soap(["Si"]), DotProduct(2), baseline=references, **settings).fit(reduced)
    batch = Batch.from_atoms(frames)
    mean, mine, theirs = total(means, batch), model.predict(frames, uncertainty=True), plain.predict(frames, uncertainty=True)
    np.testing.assert_allclose(np.concatenate(mine.energies), np.concatenate(theirs.energies) + mean.energies, atol=1e-10)
    np.testing.assert_allclose(np.concatenate(mine.forces), np.concatenate(theirs.forces) + mean.forces, atol=1e-10)
    np.testing.assert_allclose(mine.stress, theirs.stress + mean.strain / batch.volumes[:, None], atol=1e-12)
    np.testing.assert_array_equal(mine.energy_std, theirs.energy_std)


@pytest.mark.parametrize("baseline", MIXTURES.values(), ids=MIXTURES)
def test_the_exact_process_learns_the_same_differences(baseline):
    frames = variations("vacancy", 4)
    descriptor, kernel = ACSF.layout(["Si"], r_cut=4.0, n_radial=6, n_angular=4), SquaredExponential(5.0)
    references, means = split_baseline(baseline)
    model = GaussianProcess(descriptor, kernel, baseline=baseline).fit(frames)
    plain = GaussianProcess(descriptor, kernel, baseline=references).fit(_reduced(frames, means))
    mean, mine, theirs = total(means, Batch.from_atoms(frames)), model.predict(frames), plain.predict(frames)
    np.testing.assert_allclose(np.concatenate(mine.energies), np.concatenate(theirs.energies) + mean.energies, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(mine.forces), np.concatenate(theirs.forces) + mean.forces, atol=1e-8)


def test_isolated_atoms_stay_the_reference():
    frames = [*variations("dimer", 3), labelled(Atoms("H")), labelled(Atoms("Cl"))]
    frames[3].calc.results["energy"], frames[4].calc.results["energy"] = -1.0, -2.0
    model = SparseGP(small_soap(["H", "Cl"]), DotProduct(2), baseline=["isolated", ZBL()]).fit(frames)
    assert model.reference_energies_ == {"H": -1.0, "Cl": -2.0}


@pytest.mark.parametrize(
    "baseline", [["isolated", {"Ar": 0.0}], [ZBL(), 3], [CalculatorBaseline(EMT()), CalculatorBaseline(EMT())]], ids=repr
)
def test_impossible_baselines_are_refused(baseline):
    with pytest.raises(InputError, match="`baseline`"):
        SparseGP(small_soap(["Ar"]), DotProduct(2), baseline=baseline).fit(crystals(2))


def test_zbl_is_saved_with_the_model(tmp_path):
    frames = variations("vacancy", 3)
    model = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=8, baseline=[{"Si": -1.0}, ZBL(r_inner=1.0, r_outer=3.0)]).fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.baseline == model.baseline
    np.testing.assert_array_equal(loaded.predict(frames).energy, model.predict(frames).energy)
    with pytest.raises(InputError, match="`baseline_calculator`"):
        soapkrr.load(tmp_path / "m.soapkrr", baseline_calculator=EMT())


@pytest.mark.parametrize("listed", [False, True])
def test_a_calculator_is_given_again_when_a_model_is_loaded(tmp_path, listed):
    frames, baseline = crystals(3), CalculatorBaseline(Counting())
    model = SparseGP(small_soap(["Ar"]), DotProduct(2), n_sparse=8, baseline=["least-squares", baseline] if listed else baseline)
    model.fit(frames)
    model.save(tmp_path / "m.soapkrr")
    with pytest.raises(InputError, match="Counting.*`baseline_calculator`") as caught:
        soapkrr.load(tmp_path / "m.soapkrr")
    assert not isinstance(caught.value, ModelFileError)
    loaded = soapkrr.load(tmp_path / "m.soapkrr", baseline_calculator=Counting())
    np.testing.assert_array_equal(loaded.predict(frames).energy, model.predict(frames).energy)


# --- what it is for --------------------------------------------------------------------------------------------------

TERSOFF = {
    ("Si", "Si", "Si"): TersoffParameters(
        A=1830.8, B=471.18, lambda1=2.4799, lambda2=1.7322, lambda3=0, beta=1.1e-6, gamma=1, m=3, n=0.78734, c=100390, d=16.217, h=-0.59825,
        R=2.85, D=0.15,
    )
}  # fmt: skip


def _hot_run(calculator, temperature, steps, every):
    """Structures of Langevin dynamics of eight silicon atoms, started with Maxwell's velocities."""
    rng, atoms = np.random.default_rng(0), bulk("Si", cubic=True)
    atoms.set_momenta(np.sqrt(units.kB * temperature * atoms.get_masses())[:, None] * rng.normal(size=(8, 3)))
    atoms.calc = calculator
    dynamics, frames = Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng, fixcm=False), []
    dynamics.attach(lambda: frames.append(atoms.copy()), interval=every)
    dynamics.run(steps)
    return frames


def _shortest(frames):
    return min(d[d > 0].min() for d in (atoms.get_all_distances(mic=True) for atoms in frames))


@pytest.fixture(scope="module")
def silicon_at_300K():
    frames = _hot_run(Tersoff(TERSOFF), 300, 200, every=10)
    for atoms in frames:
        atoms.calc = Tersoff(TERSOFF)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


POTENTIALS = {
    "SOAP": (small_soap(["Si"], n_max=6, l_max=4), DotProduct(4)),
    "ACSF": (ACSF.layout(["Si"], r_cut=4.5, n_radial=10, n_angular=12), SquaredExponential(10.0)),
    "pair": (Pair(["Si"], r_cut=4.5), Linear()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POTENTIALS)
def test_a_dimer_repels_at_short_range(name, silicon_at_300K):
    descriptor, kernel = POTENTIALS[name]
    model = SparseGP(descriptor, kernel, n_sparse=80, baseline=ZBL()).fit(silicon_at_300K)
    scan = [Atoms("Si2", positions=[[0, 0, 0], [r, 0, 0]]) for r in np.linspace(0.3, 1.5, 49)]
    prediction = model.predict(scan)
    assert (np.diff(prediction.energy) < 0).all()
    assert all(forces[1, 0] > 0 for forces in prediction.forces)
    assert prediction.energy[0] - prediction.energy[-1] > 1000


@pytest.mark.slow
def test_dynamics_at_3000K_on_data_of_300K_do_not_collapse(silicon_at_300K):
    descriptor, kernel = POTENTIALS["ACSF"]
    settings = dict(n_sparse=100, noise={"energy": 1e-3, "forces": 0.02, "stress": 1e-3}, threads=1)
    bare = SparseGP(descriptor, kernel, **settings).fit(silicon_at_300K)
    repelling = SparseGP(descriptor, kernel, baseline=ZBL(), **settings).fit(silicon_at_300K)
    # Silicon's own shortest distance at 3000 K is 2.0 Å; without repulsion atoms fall into each other.
    assert _shortest(_hot_run(bare.calculator(uncertainty=False), 3000, 600, every=5)) < 1.0
    assert _shortest(_hot_run(repelling.calculator(uncertainty=False), 3000, 600, every=5)) > 1.4
