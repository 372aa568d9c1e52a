"""Similarity of structures: equal to DScribe's kernels, between the average and the best match, invariant to the order of atoms."""

import numpy as np
import pytest
from dscribe.kernels import AverageKernel as TheirAverage
from dscribe.kernels import REMatchKernel as TheirREMatch
from scipy.optimize import linear_sum_assignment
from systems import build, small_soap, variations

from soapkrr import DotProduct, InputError, SquaredExponential
from soapkrr.kernels import Linear
from soapkrr.similarity import AverageKernel, REMatchKernel, structure_features

SOAP = small_soap(["Si"])

#: Small for local kernels that differ by a few percent.
ALPHA = 4e-3


@pytest.fixture(scope="module")
def features():
    """Structures of 7, 2 and 4 atoms."""
    frames = [*variations("vacancy", 2, rattle=0.3), *variations("primitive", 2, rattle=0.3), *variations("skewed", 1)]
    return structure_features(SOAP, frames)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("square", [True, False])
def test_average_equals_dscribe(features, square, normalize):
    others = None if square else features[1:4]
    theirs = TheirAverage(metric="linear", normalize_kernel=normalize).create(features, others)
    np.testing.assert_allclose(AverageKernel(Linear(), normalize)(features, others), theirs, rtol=1e-12)


@pytest.mark.parametrize("alpha", [10.0, 1.0, 0.1, 0.02])
@pytest.mark.parametrize("square", [True, False])
def test_rematch_equals_dscribe(features, square, alpha):
    others = None if square else features[1:4]
    theirs = TheirREMatch(metric="linear", alpha=alpha, threshold=1e-18).create(features, others)
    # Both stop at balancing factors good to 1e-8.
    np.testing.assert_allclose(REMatchKernel(Linear(), alpha=alpha)(features, others), theirs, rtol=1e-7)


def test_other_local_kernels_equal_dscribe(features):
    theirs = TheirREMatch(metric="rbf", gamma=2.0, alpha=0.5, threshold=1e-18).create(features)
    np.testing.assert_allclose(REMatchKernel(SquaredExponential(0.5), alpha=0.5)(features), theirs, rtol=1e-7)
    theirs = TheirAverage(metric="polynomial", degree=3, gamma=1, coef0=0).create(features)
    np.testing.assert_allclose(AverageKernel(DotProduct(3))(features), theirs, rtol=1e-12)


def test_rematch_tends_to_the_average(features):
    average = AverageKernel(DotProduct(2), normalize=False)(features)
    ours = REMatchKernel(DotProduct(2), normalize=False, alpha=1e6)(features)
    # The plan differs from the uniform one by C/α.
    np.testing.assert_allclose(ours, average, rtol=1e-5)


def test_rematch_tends_to_the_best_assignment(features):
    a, b = features[:2]
    C = DotProduct(2)(a, b)
    best = C[linear_sum_assignment(-C)].mean()
    ours = REMatchKernel(DotProduct(2), normalize=False, alpha=ALPHA)([a], [b])[0, 0]
    # The entropy costs at most α ln n.
    assert best - ALPHA * np.log(len(a)) <= ours <= best + 1e-9


def test_a_structure_is_most_similar_to_itself_whatever_the_order_and_orientation():
    atoms = build("vacancy")
    turned = atoms[::-1]
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    frames = [atoms, turned, atoms.repeat((2, 1, 1)), *variations("vacancy", 1)]
    for kernel in (AverageKernel(DotProduct(3)), REMatchKernel(DotProduct(3))):
        K = kernel.between(SOAP, frames)
        np.testing.assert_allclose(K, K.T, rtol=0, atol=0)
        np.testing.assert_allclose(K[0, :3], 1.0, rtol=0, atol=1e-7)
        assert K[0, 3] < 1 - 1e-5


def test_average_is_positive_semi_definite(features):
    assert np.linalg.eigvalsh(AverageKernel(DotProduct(2))(features)).min() > -1e-12


def test_matrix_of_two_lists_is_a_block_of_the_whole(features):
    kernel = REMatchKernel(DotProduct(2))
    np.testing.assert_allclose(kernel(features[:2], features[2:]), kernel(features)[:2, 2:], rtol=1e-7)


def test_features_do_not_depend_on_the_groups(monkeypatch):
    frames = variations("vacancy", 4)
    expected = structure_features(SOAP, frames)
    monkeypatch.setattr("soapkrr.similarity.GROUP", 10)
    for x, y in zip(structure_features(SOAP, frames), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: REMatchKernel(DotProduct(2), alpha=0), "alpha"),
        (lambda: AverageKernel("linear"), "kernel"),
        (lambda: AverageKernel(DotProduct(2))([]), "X"),
        (lambda: AverageKernel(DotProduct(2))([np.ones((2, 3)), np.ones((2, 4))]), "X"),
        (lambda: REMatchKernel(DotProduct(2), max_iter=2, alpha=0.01)([np.eye(3)], [np.eye(3)[[0, 1, 1]]]), "alpha"),
    ],
)
def test_bad_input_names_the_argument(make, argument):
    with pytest.raises(InputError, match=f"`{argument}`"):
        make()
