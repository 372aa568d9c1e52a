"""Two-body features: values by plain sums, derivatives by order of convergence, and the Gaussian process on distances that they make."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian, environments
from systems import R_CUT, SYSTEMS, build, species, variations

import soapkrr
from soapkrr import SOAP, DotProduct, InputError, Linear, Pair, SparseGP, Term

VARIANTS = {
    "gaussian": {},
    "even": {"stretch": None, "width": 1.5},
    "bspline": {"basis": "bspline"},
    "even bspline, cosine": {"basis": "bspline", "stretch": None, "cutoff": "cosine"},
    "tanh3": {"cutoff": "tanh3", "width": 0.8},
}


def pair(names, **changes) -> Pair:
    return Pair(**{"species": names, "r_cut": R_CUT, "n_basis": 9, **changes})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["molecule", "mixed", "primitive"])
def test_values_are_sums_over_neighbours(name, variant):
    descriptor, atoms = pair(species(name), **VARIANTS[variant]), build(name)
    _, pairs, env = environments(descriptor, atoms)
    B = descriptor.functions(np.linalg.norm(pairs.vectors, axis=1))[0]
    expected = np.zeros((len(atoms), len(descriptor.species), descriptor.n_basis))
    np.add.at(expected, (pairs.i, env.pairs.kinds[pairs.j]), B)
    # The table's quintics follow Gaussians to 1e-9; a cubic spline's third derivative jumps between knots.
    np.testing.assert_allclose(env.X, expected.reshape(len(atoms), -1), rtol=0, atol=1e-6 if "bspline" in variant else 1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("r_cut", [2.0, 6.0])
def test_functions_and_two_derivatives(variant, r_cut):
    descriptor = pair(["Si"], **{**VARIANTS[variant], "r_cut": r_cut})
    r, h = np.linspace(0.05, r_cut - 0.05, 57), 1e-4
    f, d, d2 = descriptor.functions(r)
    below, above = descriptor.functions(r - h), descriptor.functions(r + h)
    np.testing.assert_allclose((above[0] - below[0]) / (2 * h), d, atol=1e-5 * np.abs(d).max())
    np.testing.assert_allclose((above[1] - below[1]) / (2 * h), d2, atol=1e-3 * np.abs(d2).max())


def test_bsplines_add_to_one_inside():
    descriptor = pair(["Si"], basis="bspline", cutoff=soapkrr.descriptors.cutoff.Smoothstep(width=0.5))
    step = descriptor._step
    r = np.expm1(np.linspace(2 * step, 0.8 * (descriptor.n_basis - 1) * step, 20))
    np.testing.assert_allclose(descriptor.functions(r[r < 3.5])[0].sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_derivatives_of_every_system(name):
    assert_pullback(pair(species(name)), build(name))
    assert_jacobian(pair(species(name)), build(name))
    assert_strain_jacobian(pair(species(name)), build(name))


@pytest.mark.parametrize("variant", VARIANTS)
def test_derivatives_of_every_variant(variant):
    descriptor = pair(species("mixed"), **VARIANTS[variant])
    assert_pullback(descriptor, build("mixed"))
    assert_jacobian(descriptor, build("mixed"))
    assert_strain_jacobian(descriptor, build("mixed"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_features_do_not_depend_on_rotation_translation_or_order(name):
    assert_invariant(pair(species(name)), build(name))


# --- as a term -------------------------------------------------------------------------------------------------------


def test_the_term_is_a_gaussian_process_on_distances():
    """Prior variance of a dimer's energy: the two atoms' functions are independent for unlike species, the same for like ones."""
    descriptor = Pair(["H", "Cl"], r_cut=5.0, n_basis=40)
    frames = variations("dimer", 3)
    model = SparseGP(descriptor, Linear(), signal=0.7, noise={"energy": 1e3, "forces": 1e3}, baseline={"H": 0.0, "Cl": 0.0}).fit(frames)
    r = np.array([0.3, 1.0, 2.0])
    B = descriptor.functions(r)[0]
    std = model.predict([Atoms("HCl", positions=[[0, 0, 0], [x, 0, 0]]) for x in r], uncertainty="energy").energy_std
    # Noise so large leaves the prior as it is, to a millionth.
    np.testing.assert_allclose(std**2, 2 * 0.7**2 * (B**2).sum(axis=1), rtol=1e-5)
    assert model.rank_ == 160


@pytest.mark.parametrize("basis", ["gaussian", "bspline"])
def test_a_pair_potential_is_learnt_by_a_pair_term(basis):
    """The labels are a sum over pairs whose strength depends on both species; no other term is needed."""
    frames = variations("alloy", 40)
    descriptor = Pair(species("alloy"), R_CUT, n_basis=12, basis=basis)
    model = SparseGP(descriptor, Linear(), signal=5.0, noise={"energy": 1e-3, "forces": 1e-2, "stress": 1e-3}).fit(frames[:36])
    truth = np.concatenate([atoms.get_forces() for atoms in frames[36:]])
    error = np.abs(np.concatenate(model.predict(frames[36:]).forces) - truth).mean()
    assert error < 0.03 * np.abs(truth).mean()


def _dimer(r):
    """A silicon dimer with a steep wall and a well, as a scan of a few distances would give it."""
    atoms = Atoms("Si2", positions=[[0, 0, 0], [r, 0, 0]])
    slope = -60 * np.exp(-r / 0.35) / 0.35 + 8 * np.exp(-r / 0.9) / 0.9
    forces = [[slope, 0, 0], [-slope, 0, 0]]
    atoms.calc = SinglePointCalculator(atoms, energy=60 * np.exp(-r / 0.35) - 8 * np.exp(-r / 0.9), forces=forces)
    return atoms


def test_a_steep_dimer_curve_is_followed_from_short_range():
    frames = [_dimer(r) for r in np.linspace(0.3, 4.9, 36)]
    settings = dict(signal=50.0, noise={"energy": 1e-3, "forces": 1e-2}, baseline={"Si": 0.0})
    model = SparseGP(Pair(["Si"], r_cut=6.0, n_basis=40), Linear(), **settings).fit(frames)
    between = [_dimer(r) for r in np.linspace(0.35, 4.8, 37)]
    truth = np.array([atoms.get_potential_energy() for atoms in between])
    np.testing.assert_allclose(model.predict(between).energy, truth, atol=0.05)


def test_a_sum_of_pair_and_soap_is_saved(tmp_path):
    frames = variations("alloy", 5)
    soap = SOAP(species("alloy"), R_CUT, n_max=2, l_max=2)
    model = SparseGP(Term(Pair(species("alloy"), 3.0, n_basis=8), Linear()) + Term(soap, DotProduct(2), n_sparse=20)).fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded, mine = soapkrr.load(tmp_path / "m.soapkrr").predict(frames, uncertainty=True), model.predict(frames, uncertainty=True)
    np.testing.assert_array_equal(loaded.energy, mine.energy)
    np.testing.assert_array_equal(loaded.energy_std, mine.energy_std)
    np.testing.assert_array_equal(loaded.forces_std[0], mine.forces_std[0])


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_basis": 3}, "`n_basis`"),
        ({"n_basis": 8.5}, "`n_basis`"),
        ({"basis": "wavelet"}, "`basis`"),
        ({"width": -1.0}, "`width`"),
        ({"stretch": 0.0}, "`stretch`"),
        ({"r_cut": np.inf}, "`r_cut`"),
        ({"cutoff": 3}, "`cutoff`"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        pair(["Si"], **changes)


def test_no_pair_in_range_names_the_cutoff():
    with pytest.raises(InputError, match=r"`r_cut`=1.5.*Pair"):
        SparseGP(Pair(["Si"], r_cut=1.5), Linear()).fit(variations("vacancy", 2))
