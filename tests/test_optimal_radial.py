"""The optimal radial basis: what it keeps, that it is learnt and stored like any contraction, and that bad parameters are named."""

import numpy as np
import pytest
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian
from systems import build, species, variations

from soapkrr import SOAP, CompressedSOAP, DotProduct, InputError, OptimalRadial, SparseGP, load
from soapkrr.descriptors.contraction import channel_moments

NAMES = species("alloy")
SETTINGS = dict(species=NAMES, r_cut=4.0, n_max=4, l_max=3, sigma=0.5)
FRAMES = variations("alloy", 4)


def learnt(**options) -> CompressedSOAP:
    soap = CompressedSOAP(**SETTINGS, contraction=OptimalRadial(**options))
    return soap.fitted(soap.create(FRAMES))


def test_nothing_is_lost_where_all_functions_are_kept():
    X, Y = SOAP(**SETTINGS).create(FRAMES), learnt(loss=1e-300).create(FRAMES)
    np.testing.assert_allclose(Y @ Y.T, X @ X.T, atol=1e-13)


def test_functions_of_a_species_are_uncorrelated_and_kept_by_their_share():
    soap, loss, falls = SOAP(**SETTINGS), 1e-4, 3.0
    moments, C = channel_moments(soap.create(FRAMES), soap.n_channels, soap.l_max), learnt(loss=loss, falls=falls).contraction
    shares = np.einsum("laq,lab,lbq->lq", C, moments, C)
    for s in range(3):
        own = slice(4 * s, 4 * s + 4)
        columns = np.flatnonzero(C[:, own].any(axis=(0, 1)))
        assert not C[:, np.r_[0 : 4 * s, 4 * s + 4 : 12]][:, :, columns].any()
        total = np.trace(moments[:, own, own], axis1=1, axis2=2).sum()
        for l in range(4):
            kept = columns[C[l][:, columns].any(axis=0)]
            values = np.linalg.eigvalsh(moments[l, own, own])[::-1] / total
            np.testing.assert_allclose(shares[l, kept] / total, values[: len(kept)], rtol=1e-9)
            assert len(kept) == np.count_nonzero(values >= loss * falls**l)


def test_fewer_functions_of_high_l_and_at_most_so_many():
    few = learnt(loss=1e-4, most=2)
    counts = few.contraction.any(axis=1).sum(axis=1)
    assert (np.diff(counts) <= 0).all() and counts[0] <= 6 and few.n_features < learnt(loss=1e-4).n_features
    assert few._contraction is None  # tabulated contracted


@pytest.mark.parametrize("check", [assert_pullback, assert_jacobian, assert_strain_jacobian, assert_invariant])
def test_derivatives_and_invariances(check):
    check(learnt(loss=1e-3), build("alloy"))


def test_a_species_without_neighbours_keeps_one_function():
    soap = CompressedSOAP(**{**SETTINGS, "species": [*NAMES, "Ar"]}, contraction=OptimalRadial(loss=1e-3))
    C = soap.fitted(soap.create(FRAMES)).contraction
    own = soap.species.index("Ar")
    assert np.count_nonzero(C[:, 4 * own : 4 * own + 4].any(axis=1)) == 1


def test_models_learn_save_and_load(tmp_path):
    soap = CompressedSOAP(**SETTINGS, contraction=OptimalRadial(loss=1e-3))
    model = SparseGP(soap, DotProduct(2), n_sparse=20, threads=1).fit(FRAMES)
    assert model.process_.terms[0].descriptor.n_features < SOAP(**SETTINGS).n_features
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.descriptor == soap
    np.testing.assert_array_equal(model.predict(FRAMES).energy, again.predict(FRAMES).energy)


@pytest.mark.parametrize("name, value", [("loss", 0.0), ("loss", "all"), ("falls", 0.5), ("most", 0), ("most", 2.5)])
def test_bad_parameters_are_named(name, value):
    with pytest.raises(InputError, match=f"`{name}`"):
        OptimalRadial(**{name: value})
