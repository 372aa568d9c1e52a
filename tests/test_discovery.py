"""Every kernel and every descriptor of the package, found by walking it: derivatives, positivity, invariances, copies, files."""

import numpy as np
import pytest
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian
from discovery import descriptors, example, kernels, learnt, specifications
from systems import build, species, variations
from taylor import assert_derivative

from soapkrr import DotProduct, modelfile
from soapkrr.kernels import mixed_products, squares

SYSTEMS = ("primitive", "mixed", "alloy", "atom", "dimer")


def _name(kind):
    return kind.__name__


@pytest.fixture(params=descriptors(), ids=_name, scope="module")
def kind(request):
    return request.param


@pytest.fixture(params=kernels(), ids=_name)
def kernel(request):
    return example(request.param)


def _unit(n, seed):
    """Unit vectors with positive products, as power spectra have; apart from each other."""
    X = np.abs(np.random.default_rng(seed).normal(size=(n, 5)))
    return X / np.linalg.norm(X, axis=1)[:, None]


def test_the_walk_finds_what_the_package_offers():
    assert {"SOAP", "Projected", "DScribe", "CompressedSOAP"} <= set(map(_name, descriptors()))
    assert {"DotProduct", "SquaredExponential", "Matern52", "Sum", "Product"} <= set(map(_name, kernels()))


# --- kernels ---------------------------------------------------------------------------------------------------------


def _slope(kernel, x, v, Y):
    """v·∂κ/∂x (m,) at x against rows of Y: F_u v·y + 2 F_a v·x."""
    jet = kernel.jet(x[None] @ Y.T, squares(x[None])[:, None], squares(Y)[None], 1)
    return (jet.u * (v @ Y.T) + (0 if jet.a is None else 2 * jet.a * (v @ x)))[0]


def test_kernel_slope(kernel):
    X, Y, v = _unit(3, 0), _unit(4, 1), np.random.default_rng(2).normal(size=5)
    for x in X:
        assert_derivative(lambda t, x=x: kernel((x + t * v)[None], Y)[0], _slope(kernel, x, v, Y))


def test_kernel_mixed_derivative(kernel):
    x, Y, v, W = _unit(1, 3)[0], _unit(4, 4), np.random.default_rng(5).normal(size=5), np.random.default_rng(6).normal(size=(4, 5))
    mixed = mixed_products(kernel, v[None], x[None], W, Y)[0]
    assert_derivative(lambda t: _slope(kernel, x, v, Y + t * W), mixed)


def test_kernel_is_symmetric_and_positive_semidefinite(kernel):
    X = _unit(20, 7)
    K = kernel(X)
    np.testing.assert_allclose(K, K.T, rtol=1e-13)
    np.testing.assert_allclose(np.diag(K), kernel.diagonal(X), rtol=1e-13)
    # Eigenvalues are known to n·eps of the trace.
    assert np.linalg.eigvalsh(K).min() > -1e-14 * np.trace(K)


def test_kernel_of_values_and_derivatives_is_positive_semidefinite(kernel):
    """The covariance of values and directional derivatives of one function: the matrix behind every force variance."""
    X, V = _unit(8, 8), np.random.default_rng(9).normal(size=(8, 5))
    cross = np.array([_slope(kernel, x, v, X) for x, v in zip(X, V, strict=True)])
    K = np.block([[kernel(X), cross.T], [cross, mixed_products(kernel, V, X, V, X)]])
    np.testing.assert_allclose(K, K.T, atol=1e-12 * np.abs(K).max())
    assert np.linalg.eigvalsh(0.5 * (K + K.T)).min() > -1e-13 * np.trace(K)


# --- descriptors -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=SYSTEMS)
def case(kind, request):
    names = species(request.param)
    return learnt(example(kind, names), variations(request.param, 3)), build(request.param)


def test_descriptor_pullback(case):
    assert_pullback(*case)


def test_descriptor_jacobian(case):
    assert_jacobian(*case)


def test_descriptor_strain_jacobian(case):
    assert_strain_jacobian(*case)


def test_descriptor_invariances(case):
    assert_invariant(*case)


def test_descriptor_names_its_features(case):
    descriptor, atoms = case
    names = descriptor.get_feature_names_out()
    assert len(names) == len(set(names)) == descriptor.n_features == descriptor.transform(atoms).shape[1]


def test_descriptor_refuses_species_it_does_not_know(kind):
    with pytest.raises(ValueError, match="`species`"):
        example(kind, ["Si"]).create(build("molecule"))


# --- specifications --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", specifications(), ids=_name)
def test_specifications_are_values(kind):
    """Rebuilt from their parameters, changed and changed back, and written to JSON and back, they are the same."""
    one = example(kind)
    assert kind(**one.get_params(deep=False)) == one
    assert hash(one.with_params()) == hash(one)
    nested = {name: value for name, value in one.get_params().items() if "__" in name}
    assert one.with_params(**nested) == one
    arrays = {}
    assert modelfile.from_json(modelfile.to_json(one, arrays), arrays) == one


@pytest.mark.parametrize("kind", specifications(), ids=_name)
def test_specifications_name_an_unknown_parameter(kind):
    with pytest.raises(ValueError, match=r"no parameter `colour`"):
        example(kind).with_params(colour=1)


def test_specifications_never_change_in_place():
    kernel = DotProduct(2)
    with pytest.raises(ValueError, match="immutable"):
        kernel.set_params(zeta=3)
    assert kernel.zeta == 2
