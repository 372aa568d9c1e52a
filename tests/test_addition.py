"""Potentials are sums: ``+`` of terms and of unfitted models."""

import numpy as np
import pytest
from sklearn.base import clone
from systems import small_soap, variations

from soapkrr import DotProduct, GaussianProcess, InputError, KernelRidge, Pair, SparseGP, SquaredExponential, Term

SOAP, PAIR = small_soap(["Si"]), Pair(["Si"], r_cut=4.0)

KINDS = (SparseGP, GaussianProcess, KernelRidge)


def _parts(kind):
    """Two unfitted models."""
    own = {} if kind is KernelRidge else {"signal": 0.5}
    sparse = {"n_sparse": 7, "selection": "cur"} if kind is SparseGP else {}
    return kind(SOAP, DotProduct(2), baseline={"Si": -1.0}), kind(PAIR, SquaredExponential(0.5), **own, **sparse)


def _terms(kind):
    """The same as terms."""
    if kind is KernelRidge:
        return [Term(SOAP, DotProduct(2), signal=1.0), Term(PAIR, SquaredExponential(0.5), signal=1.0)]
    numbers = {"n_sparse": 7, "selection": "cur"} if kind is SparseGP else {}
    return [Term(SOAP, DotProduct(2)), Term(PAIR, SquaredExponential(0.5), signal=0.5, **numbers)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_of_models_has_the_terms_of_both(kind):
    left, right = _parts(kind)
    before = (left.get_params(deep=False), right.get_params(deep=False))
    both = left + right
    assert both.get_params() == kind(_terms(kind), baseline={"Si": -1.0}).get_params()
    assert (left.get_params(deep=False), right.get_params(deep=False)) == before
    frames, test = variations("vacancy", 4), variations("vacancy", 2, seed=1)
    expected = kind(_terms(kind), baseline={"Si": -1.0}).fit(frames).predict(test, uncertainty="energy")
    p = both.fit(frames).predict(test, uncertainty="energy")
    np.testing.assert_array_equal(p.energy, expected.energy)
    np.testing.assert_array_equal(p.energy_std, expected.energy_std)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_sums(kind):
    left, right = _parts(kind)
    terms = _terms(kind)
    assert (left + right + left).descriptor == [*terms, terms[0]]
    assert (left + (right + left)).descriptor == [*terms, terms[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_of_fitted_models_is_not_fitted(kind):
    left, right = _parts(kind)
    fitted = clone(left).fit(variations("vacancy", 2))
    assert not [name for name in vars(fitted + right) if name.endswith("_")]


def test_everything_else_is_that_of_the_left_one():
    left = SparseGP(SOAP, DotProduct(2), noise={"energy": 0.1}, tolerance=1e-8, representers="observations", n_sparse=9)
    both = left + SparseGP(PAIR, SquaredExponential(0.5), noise={"energy": 0.5}, n_sparse=11)
    assert (both.noise, both.tolerance, both.representers, both.n_sparse) == ({"energy": 0.1}, 1e-8, "observations", 9)
    assert [t.n_sparse for t in both.descriptor] == [9, 11]


def test_sums_of_terms():
    a, b = _terms(SparseGP)
    assert a + b == [a, b]
    assert a + b + a == [a, b, a]
    assert a + [b] == [a, b] and [b] + a == [b, a]


@pytest.mark.parametrize("left, right", [(SparseGP, GaussianProcess), (GaussianProcess, KernelRidge), (KernelRidge, GaussianProcess)])
def test_models_of_different_types_do_not_add(left, right):
    with pytest.raises(InputError, match=rf"one type add: received {left.__name__} \+ {right.__name__}"):
        _parts(left)[0] + _parts(right)[1]


def test_other_things_do_not_add():
    with pytest.raises(TypeError):
        _parts(SparseGP)[0] + 3.0
