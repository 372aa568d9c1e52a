"""Dot-product kernel: value, slope, curvature, positive semidefinite Gram matrices, energies."""

import numpy as np
import pytest
from systems import SYSTEMS, build, small_soap, species
from taylor import assert_derivative

from soapkrr import DotProduct, SquaredExponential
from soapkrr.kernels.moments import sum_of_powers


def _value(kernel, u):
    return kernel.jet(u, None, None, 0).value


def _slope(kernel, u):
    return kernel.jet(u, None, None, 1).u


def _curvature(kernel, u):
    curvature = kernel.jet(u, None, None, 2).uu
    return np.zeros_like(u) if curvature is None else curvature


ZETAS = [1, 2, 3, 4, 1.0, 1.5, 2.5, 3.7, 17]


def _features(n, seed=0):
    """Unit vectors with products between 0 and 1, as power spectra have."""
    X = np.abs(np.random.default_rng(seed).normal(size=(n, 5)))
    return X / np.linalg.norm(X, axis=1)[:, None]


@pytest.mark.parametrize("zeta", ZETAS)
def test_value_is_the_power(zeta):
    u = np.array([[0.0, 0.3], [0.9, 1.0]])
    # Repeated multiplication against pow: a rounding per factor.
    np.testing.assert_allclose(_value(DotProduct(zeta), u), u**zeta, rtol=1e-14)


@pytest.mark.parametrize("zeta", ZETAS)
@pytest.mark.parametrize("u", [0.05, 0.4, 0.93])
def test_slope_and_curvature(zeta, u):
    kernel = DotProduct(zeta)
    point = np.array([u])
    assert_derivative(lambda t: _value(kernel, point + t), _slope(kernel, point))
    assert_derivative(lambda t: _slope(kernel, point + t), _curvature(kernel, point))


@pytest.mark.parametrize("zeta", ZETAS)
def test_derivatives_by_the_vectors(zeta):
    """∂κ/∂x = κ′(u) x′ and ∂²κ/∂x∂x′ = κ′(u) 1 + κ″(u) x′ xᵀ."""
    kernel, (x, y, v, w) = DotProduct(zeta), _features(4)
    u = x @ y
    slope, curvature = _slope(kernel, np.array([u]))[0], _curvature(kernel, np.array([u]))[0]
    assert_derivative(lambda t: _value(kernel, np.array([(x + t * v) @ y])), slope * (v @ y))
    mixed = slope * (v @ w) + curvature * (v @ y) * (x @ w)
    assert_derivative(lambda t: _slope(kernel, np.array([x @ (y + t * w)])) * (v @ (y + t * w)), mixed)


@pytest.mark.parametrize("zeta", [1.2, 1.5, 1.9])
def test_orthogonal_environments_have_finite_derivatives_below_two(zeta):
    kernel = DotProduct(zeta)
    u = np.array([0.0, 1e-300, 1e-16])
    assert np.isfinite(_curvature(kernel, u)).all()
    np.testing.assert_allclose(_value(kernel, u)[0], 0, atol=0)
    np.testing.assert_allclose(_slope(kernel, u)[0], 0, atol=0)


@pytest.mark.parametrize("zeta", [1, 2, 4, 1.5, 3.7])
@pytest.mark.parametrize("name", SYSTEMS)
def test_gram_matrix_is_positive_semidefinite(name, zeta):
    X = small_soap(species(name)).create(build(name))
    u = X @ X.T
    assert u.min() > -1e-15
    K = _value(DotProduct(zeta), u)
    np.testing.assert_allclose(np.diag(K), 1, rtol=1e-13)
    # Eigenvalues of a unit-diagonal matrix are known to n·eps of the trace n.
    assert np.linalg.eigvalsh(K).min() > -1e-15 * len(K) ** 2 - 1e-14


@pytest.mark.parametrize("zeta", ZETAS)
def test_energies_equal_the_dense_formula(zeta):
    kernel, X, Q = DotProduct(zeta), _features(30), _features(11, seed=1)
    weights = np.random.default_rng(2).normal(size=11)
    u = X @ Q.T
    K, slope = u**zeta, zeta * u ** (zeta - 1)
    energies, of_points, of_x = kernel.energies(u, None, None, weights)
    assert of_x is None
    # Sums of eleven terms of order one in another order.
    np.testing.assert_allclose(energies, K @ weights, rtol=0, atol=1e-13)
    np.testing.assert_allclose(of_points, slope * weights, rtol=0, atol=1e-13)


def test_zeta_one_is_the_linear_kernel():
    kernel, X = DotProduct(1), _features(6)
    u = X @ X.T
    np.testing.assert_array_equal(_value(kernel, u), u)
    np.testing.assert_array_equal(_slope(kernel, u), np.ones_like(u))
    np.testing.assert_array_equal(_curvature(kernel, u), np.zeros_like(u))


def test_value_leaves_its_argument_alone():
    u = np.array([0.2, 0.5])
    for zeta in ZETAS:
        kernel = DotProduct(zeta)
        _value(kernel, u), _slope(kernel, u), _curvature(kernel, u)
    np.testing.assert_array_equal(u, [0.2, 0.5])


@pytest.mark.parametrize("zeta", [1, 2, 3, 4])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.05])
def test_sums_over_all_pairs_by_moments(zeta, spread):
    """As many vectors as make moments worth while, close together or not: the sum over all pairs, to rounding."""
    rng = np.random.default_rng(zeta)
    X = rng.random(5) + spread * rng.normal(size=(3000, 5)) * [1, 0.3, 0.1, 1e-3, 1e-8]
    by_moments = sum_of_powers(X, zeta, 1)
    assert by_moments is not None
    np.testing.assert_allclose(by_moments, np.sum(((X / 10) @ (X / 10).T) ** zeta) * 100.0**zeta, rtol=1e-13)
    np.testing.assert_array_equal(sum_of_powers(X, zeta, 2), by_moments)
    np.testing.assert_allclose(DotProduct(zeta).total(X), by_moments, rtol=1e-15)


@pytest.mark.parametrize("kernel", [DotProduct(4), DotProduct(2.5), SquaredExponential(0.7), DotProduct(6)], ids=str)
def test_sums_over_all_pairs(kernel):
    X = np.random.default_rng(0).random((900, 40))
    np.testing.assert_allclose(kernel.total(X, threads=2), kernel(X).sum(), rtol=1e-12)
    assert sum_of_powers(X[:50], 4, 1) is None and sum_of_powers(X, 5, 1) is None and sum_of_powers(np.zeros((900, 4)), 2, 1) is None
