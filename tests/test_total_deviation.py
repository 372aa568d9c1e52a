"""The standard deviation of a total energy, and of a difference of two, without what they do not need."""

import numpy as np
import pytest
from small import crystals, small_gp, soap

from soapkrr import DotProduct, Energy, GaussianProcess, InputError, Pair, SparseGP, SquaredExponential, Term, energy_difference
from soapkrr.kernels import Linear
from soapkrr.prediction import wanted_uncertainties

TERMS = [
    Term(soap(), DotProduct(zeta=2), n_sparse=8),
    Term(soap(r_cut=5.5), SquaredExponential(0.7), n_sparse=5, signal=0.3),
    Term(Pair(["Ar"], r_cut=5.0, n_basis=5), Linear(), signal=0.3),
]
MODELS = {
    "sparse": lambda: SparseGP(TERMS),
    "subset": lambda: SparseGP(TERMS, n_sparse=15, representers="observations"),
    "cholesky": lambda: GaussianProcess(TERMS, solver="cholesky"),
    "cg": lambda: GaussianProcess(TERMS, solver="cg", cg_tolerance=1e-9),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]().fit(crystals(5))


def test_it_is_that_of_both_together(model):
    frames = [*crystals(7)[5:], crystals(1)[0].repeat((2, 1, 1))]
    one, both = model.predict(frames, uncertainty="total"), model.predict(frames, uncertainty=["energy", "forces"])
    np.testing.assert_allclose(one.energy_std, both.energy_std, rtol=1e-7, atol=1e-10)
    np.testing.assert_array_equal(one.energy, both.energy)
    assert one.energies_std is None and one.forces_std is None and both.energies_std is not None


def test_it_goes_with_forces(model):
    atoms = crystals(7)[6]
    one, both = model.predict(atoms, uncertainty=["total", "forces"]), model.predict(atoms, uncertainty=True)
    np.testing.assert_allclose(one.energy_std, both.energy_std, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(one.forces_std[0], both.forces_std[0], rtol=1e-7, atol=1e-10)


def test_a_difference_is_that_of_the_joint_posterior(model):
    a, b = crystals(7)[5:]
    gap, joint = model.posterior(energy_difference(a, b)), model.posterior([Energy(a), Energy(b)])
    C = joint.covariance
    assert gap.mean[0] == pytest.approx(joint.mean[0] - joint.mean[1], abs=1e-12)
    assert gap.std[0] ** 2 == pytest.approx(C[0, 0] + C[1, 1] - 2 * C[0, 1], rel=1e-6, abs=1e-12)
    assert model.posterior(energy_difference(a, a)).std[0] == pytest.approx(0.0, abs=1e-7)


def test_a_calibrated_model_has_calibrated_totals():
    frames = crystals(8)
    model = small_gp().fit(frames).calibrate(frames)
    one, both = model.predict(frames, uncertainty="total"), model.predict(frames, uncertainty="energy")
    np.testing.assert_array_equal(one.energy_std, both.energy_std)
    np.testing.assert_array_equal(one.energy_posterior, both.energy_posterior)
    assert one.energies_std is None and one.novelty is not None


def test_a_calculator_takes_it():
    model, atoms = small_gp().fit(crystals(5)), crystals(6)[5]
    atoms.calc = model.calculator(uncertainty="total")
    atoms.get_forces()
    assert atoms.calc.results["energy_std"] == pytest.approx(float(model.predict(atoms, uncertainty="energy").energy_std[0]), rel=1e-9)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("total", {"total"}),
        (["total", "energies"], {"energy", "energies"}),
        (["total", "energy"], {"energy", "energies"}),
        (["total", "stress"], {"total", "stress"}),
        (True, {"energy", "energies", "forces", "stress"}),
    ],
)
def test_what_is_asked_for(asked, wanted):
    assert wanted_uncertainties(asked) == wanted


def test_other_names_are_refused():
    with pytest.raises(InputError, match="'total'"):
        wanted_uncertainties("totals")
