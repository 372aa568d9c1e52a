"""Coulomb energies of fixed charges as prior means: under estimators, in files, with charges of elements and of structures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from systems import small_soap
from taylor import assert_derivative

import soapkrr
from soapkrr import Coulomb, DotProduct, GaussianProcess, InputError, KernelRidge, SparseGP
from soapkrr.baselines import ScaledBaseline, total
from soapkrr.electrostatics import dipole, electrostatics
from soapkrr.structures import Batch

IONS = Coulomb({"Na": 1.0, "Cl": -1.0})


def shaken(seed, width=0.1):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.positions += width * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    return atoms


def labelled(seed):
    """Ions with labels of a Coulomb sum of charges ±0.8, and nothing else."""
    atoms = shaken(seed)
    exact = electrostatics(atoms.positions, np.where(atoms.numbers == 11, 0.8, -0.8), atoms.cell.array, True)
    atoms.calc = SinglePointCalculator(atoms, energy=exact.energy, forces=exact.forces, stress=exact.strain / atoms.get_volume())
    return atoms


FRAMES = [labelled(seed) for seed in range(6)]


def evaluated(mean, *frames):
    return total([mean], Batch.from_atoms(list(frames)))


def test_elements_and_arrays_give_the_same():
    atoms = shaken(0)
    atoms.set_initial_charges(np.where(atoms.numbers == 11, 1.0, -1.0))
    for mine, other in zip(evaluated(IONS, atoms), evaluated(Coulomb(), atoms), strict=True):
        np.testing.assert_array_equal(mine, other)


def assert_consistent(mean, atoms):
    """Forces and strain derivative are those of the energy."""
    start, shift = evaluated(mean, atoms), np.random.default_rng(2).normal(size=(8, 3))

    def moved(t):
        other = atoms.copy()
        other.positions += 0.2 * t * shift
        return evaluated(mean, other).energies.sum()

    def stretched(t):
        other = atoms.copy()
        other.set_cell(atoms.cell.array * [1, 1, 1 + 0.1 * t], scale_atoms=True)
        return evaluated(mean, other).energies.sum()

    assert_derivative(moved, -0.2 * (start.forces * shift).sum())
    assert_derivative(stretched, 0.1 * start.strain[0, 2])


def test_forces_and_strain_belong_to_the_energy():
    atoms = shaken(1)
    assert_consistent(Coulomb({"Na": 1.0, "Cl": -1.0}, width={"Na": 0.7, "Cl": 0.9}, accuracy=1e-12), atoms)


@pytest.mark.parametrize("estimator", [SparseGP, GaussianProcess, KernelRidge])
def test_a_scaled_sum_leaves_nothing_to_learn(estimator, tmp_path):
    """Charges of 0.8 are formal ones with a factor of 0.64 in front."""
    model = estimator(small_soap(["Na", "Cl"]), DotProduct(2), baseline=[{"Na": 0.0, "Cl": 0.0}, ScaledBaseline(IONS, 0.64)])
    model.fit(FRAMES[:4])
    found = model.predict(FRAMES[4:])
    np.testing.assert_allclose(found.energy, [atoms.get_potential_energy() for atoms in FRAMES[4:]], atol=1e-5)
    np.testing.assert_allclose(found.forces[0], FRAMES[4].get_forces(), atol=1e-5)
    np.testing.assert_allclose(found.stress, [atoms.get_stress() for atoms in FRAMES[4:]], atol=1e-6)
    model.save(tmp_path / "model.soapkrr")
    again = soapkrr.load(tmp_path / "model.soapkrr")
    assert again.baseline == model.baseline
    np.testing.assert_allclose(again.predict(FRAMES[4:]).energy, found.energy, rtol=1e-12)


def test_charges_of_structures_reach_fits_calculators_and_files(tmp_path):
    frames = [atoms.copy() for atoms in FRAMES]
    for atoms, reference in zip(frames, FRAMES, strict=True):
        atoms.set_array("q", np.where(atoms.numbers == 11, 0.8, -0.8))
        atoms.calc = SinglePointCalculator(atoms, **reference.calc.results)
    model = SparseGP(small_soap(["Na", "Cl"]), DotProduct(2), baseline=[{"Na": 0.0, "Cl": 0.0}, Coulomb("q")]).fit(frames[:4])
    model.save(tmp_path / "model.soapkrr")
    for atoms in frames[4:]:
        moving = atoms.copy()
        moving.calc = soapkrr.load(tmp_path / "model.soapkrr").calculator()
        np.testing.assert_allclose(moving.get_potential_energy(), atoms.get_potential_energy(), atol=1e-5)
        np.testing.assert_allclose(moving.get_forces(), atoms.get_forces(), atol=1e-5)
    with pytest.raises(InputError, match="frame 0 has no array 'q' with a charge for each atom"):
        model.predict(FRAMES[4:])


def test_ions_far_apart_pull_at_each_other():
    """Beyond any cutoff."""
    pair = Atoms("NaCl", [[0, 0, 0], [0, 0, 40.0]])
    found = evaluated(IONS, pair)
    np.testing.assert_allclose(found.energies.sum(), -14.3996454784 / 40)
    np.testing.assert_allclose(found.forces[0], [0, 0, 14.3996454784 / 1600], atol=1e-15)


def test_born_charges_are_the_charges():
    """Z* = ∂F/∂ε, and the dipole is −∂E/∂ε; a molecule may be turned together with its field."""
    rng = np.random.default_rng(4)
    pair = Atoms("NaCl", [[0.3, -0.2, 0.1], [0.5, 0.7, 2.0]])
    field, change = rng.normal(size=3), rng.normal(size=3)
    values = [evaluated(IONS.with_params(field=tuple(field + t * change)), pair) for t in (0.0, 1.0)]
    np.testing.assert_allclose(values[1].forces - values[0].forces, np.outer([1, -1], change), atol=1e-12)
    np.testing.assert_allclose(values[1].energies.sum() - values[0].energies.sum(), -dipole(pair.positions, [1, -1]) @ change)
    turned = pair.copy()
    turned.rotate(40, (1, 2, 3))
    turned_field = Atoms("H", [field])
    turned_field.rotate(40, (1, 2, 3))
    same = evaluated(IONS.with_params(field=tuple(turned_field.positions[0])), turned)
    np.testing.assert_allclose(same.energies.sum(), values[0].energies.sum())


@pytest.mark.parametrize("pbc", [(False,) * 3, (True, True, False)])
def test_forces_and_strain_in_a_field(pbc):
    atoms = shaken(3)
    atoms.pbc = pbc
    assert_consistent(Coulomb({"Na": 1.0, "Cl": -1.0}, field=(0, 0, 0.3), accuracy=1e-12), atoms)


def test_fields_along_periodic_directions_are_refused():
    with pytest.raises(InputError, match="frame 0: `field`=.* along the periodic direction 2"):
        evaluated(IONS.with_params(field=(0.0, 0.0, 0.1)), shaken(0))
    with pytest.raises(InputError, match="`field` must be three finite numbers"):
        Coulomb({"Na": 1.0}, field=(0.0, np.nan, 0.0))


def test_net_charges_are_said():
    ion = Atoms("Na", cell=3 * np.eye(3), pbc=True)
    with pytest.raises(InputError, match=r"frame 0: `charges` add up to \+1 e, and atoms.info\['charge'\] is not there, which means \+0"):
        evaluated(IONS, ion)
    ion.info["charge"] = -1
    with pytest.raises(InputError, match=r"is -1: correct one of them"):
        evaluated(IONS, ion)
    ion.info["charge"] = 1
    with pytest.raises(InputError, match="frame 0: the cell has a net charge of .* `background`='uniform'"):
        evaluated(IONS, ion)
    jellium = Coulomb({"Na": 1.0}, background="uniform", accuracy=1e-10)
    np.testing.assert_allclose(evaluated(jellium, ion).energies.sum(), -2.837297479 / 2 * 14.3996454784 / 3, rtol=1e-8)


def test_clusters_have_the_charge_of_their_composition_or_that_which_they_say():
    ions = Atoms("Na2", [[0, 0, 0], [0, 0, 4.0]])
    np.testing.assert_allclose(evaluated(IONS, ions).energies.sum(), 14.3996454784 / 4)
    ions.info["charge"] = 1
    with pytest.raises(InputError, match=r"add up to \+2 e, and atoms.info\['charge'\] is \+1"):
        evaluated(IONS, ions)
    del ions.info["charge"]
    ions.set_initial_charges([1.0, 1.0])
    with pytest.raises(InputError, match=r"add up to \+2 e, and atoms.info\['charge'\] is not there"):
        evaluated(Coulomb(), ions)
    ions.info["charge"] = 2
    np.testing.assert_allclose(evaluated(Coulomb(), ions).energies.sum(), 14.3996454784 / 4)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [IONS, Coulomb("initial_charges")], ids=["elements", "array"])
def test_fits_without_knobs_take_charges(mean, tmp_path):
    """Walls are looked for with dimers, which have no charges of their own."""
    frames = [labelled(seed) for seed in range(10)]
    for atoms in frames:
        results = atoms.calc.results
        atoms.set_initial_charges(np.where(atoms.numbers == 11, 1.0, -1.0))
        atoms.calc = SinglePointCalculator(atoms, **results)
    model = soapkrr.fit(frames, baseline=mean, progress=False)
    model.save(tmp_path / "model.soapkrr")
    found = soapkrr.load(tmp_path / "model.soapkrr").predict(frames[:2])
    np.testing.assert_allclose(found.energy, [atoms.get_potential_energy() for atoms in frames[:2]], atol=0.05)
    assert found.energy[0] == model.predict(frames[:2]).energy[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"charges": {"Xx": 1.0}}, "`charges` must give elements a finite number"),
        ({"charges": {"Na": np.nan}}, "`charges` must give elements a finite number"),
        ({"charges": {}}, "`charges` is empty"),
        ({"charges": 1.0}, "`charges` must be a mapping"),
        ({"width": -1.0}, "`width` must be a positive"),
        ({"width": {"Na": 0.0}}, "must be a positive"),
        ({"background": "jelly"}, "`background` must be"),
        ({"accuracy": 1.0}, "`accuracy` must be"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(InputError, match=message):
        Coulomb(**arguments)


def test_bad_structures():
    with pytest.raises(InputError, match="frame 1: `charges` has nothing for Br; it has Cl, Na"):
        evaluated(IONS, shaken(0), Atoms("NaBr", [[0, 0, 0], [0, 0, 3.0]]))
    wire = Atoms("NaCl", [[0, 0, 0], [0, 0, 3.0]], cell=[0, 0, 6], pbc=[False, False, True])
    with pytest.raises(InputError, match="frame 0: a structure that is periodic in one direction"):
        evaluated(IONS, wire)
    atoms = shaken(0)
    atoms.set_array("words", np.array(["a"] * 8))
    with pytest.raises(InputError, match="'words' must hold one finite charge"):
        evaluated(Coulomb("words"), atoms)
