"""Forces that are masked have no rows in the covariances of exact processes, and nothing changes by it."""

import numpy as np
import pytest
from small import assert_same_predictions, crystals, soap

import soapkrr
from soapkrr import DotProduct, GaussianProcess, Pair, SparseGP, SquaredExponential, Term
from soapkrr.kernels import Linear
from soapkrr.regression.exact import compositions, wide
from soapkrr.regression.exact.compositions import ObservedStructures, located, observe
from soapkrr.regression.exact.covariance import covariance, variances

NOISE = {"energy": 1e-3, "forces": 1e-2}


def held(n, atoms=(0, 2)):
    """Crystals some of whose atoms are held, each second one those given."""
    frames = crystals(n)
    for k, frame in enumerate(frames):
        mask = np.zeros(len(frame), dtype=bool)
        mask[list(atoms) if k % 2 else [0, 2]] = True
        frame.set_array("force_mask", mask)
    return frames


def terms():
    return [Term(soap(), DotProduct(zeta=2)), Term(Pair(["Ar"], r_cut=5.0, n_basis=5), Linear(), signal=0.3)]


def process(**options):
    return GaussianProcess(terms(), baseline={"Ar": -0.1}, noise=NOISE, observations=soapkrr.Observations(), **options)


def subset():
    observations = soapkrr.Observations()
    options = {"representers": "observations", "n_sparse": 40, "observations": observations}
    return SparseGP(terms(), baseline={"Ar": -0.1}, noise=NOISE, **options)


@pytest.fixture
def every_row(monkeypatch):
    """Switches the saving off."""

    def switch():
        of = ObservedStructures.of.__func__
        monkeypatch.setattr(ObservedStructures, "of", classmethod(lambda cls, data: of(cls, data).whole()))

    return switch


def same(one, other, frames):
    assert_same_predictions(one, other, frames, atol=1e-9)
    assert one.log_likelihood_ == pytest.approx(other.log_likelihood_, rel=1e-9)


def test_masked_components_are_not_computed():
    process_ = process().fit(held(6)).process_
    assert [same.n_derivatives for same in process_.compositions[0]] == [3 * 2 + 6]
    assert process_.structures.layout.size == 6 * (1 + 3 * 4 + 6)  # they keep their places


@pytest.mark.parametrize("kernel", [DotProduct(zeta=2), SquaredExponential(length_scale=0.5), Linear()], ids=repr)
@pytest.mark.parametrize("size", [0, 2**40], ids=["wide", "narrow"])
def test_covariances_are_those_of_every_row(kernel, size, monkeypatch):
    monkeypatch.setattr(wide, "WIDE", size)
    monkeypatch.setattr(wide, "HELD", 300)  # a few atoms at a time
    frames = held(4, atoms=(1,))
    ignored = [frame.arrays["force_mask"] for frame in frames]
    one = observe(soap(), frames, [True] * 4, [True, False] * 2, 1, np, ignored)
    whole = observe(soap(), frames, [True] * 4, [True, False] * 2, 1)
    monkeypatch.setattr(wide, "WIDE", 2**40)
    places = np.sort(np.concatenate([same.places(compositions.layout_of(one)).ravel() for same in one]))
    K, every = covariance(kernel, whole), np.arange(len(places))
    monkeypatch.setattr(wide, "WIDE", size)
    np.testing.assert_array_equal(located(one, places), every)
    np.testing.assert_allclose(covariance(kernel, one), K[np.ix_(places, places)], rtol=0, atol=1e-12 * np.abs(K).max())
    np.testing.assert_allclose(covariance(kernel, one, whole), K[places], rtol=0, atol=1e-12 * np.abs(K).max())
    np.testing.assert_allclose(variances(kernel, one), np.diagonal(K)[places], rtol=0, atol=1e-12 * np.abs(K).max())


@pytest.mark.parametrize("make", [process, subset], ids=["all", "subset"])
def test_fits_are_those_with_every_row(make, every_row):
    frames = held(8, atoms=(1, 2))
    one = make().fit(frames[:6])
    every_row()
    same(one, make().fit(frames[:6]), frames)


def test_models_grow_and_come_from_files(every_row, tmp_path):
    frames = held(8)
    model = process().fit(frames[:4]).update(frames[4])
    assert len(model.process_.compositions[0]) == 1  # the same atoms are held: one block
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr").update(frames[5:7])
    assert loaded.process_.compositions[0][0].n_derivatives == 12
    every_row()
    same(loaded, process().fit(frames[:7]), frames)


@pytest.mark.parametrize("make", [process, subset], ids=["all", "subset"])
def test_labels_left_out_are_those_with_every_row(make, every_row):
    frames = held(6, atoms=(1,))
    one = make().fit(frames).leave_out(frames)
    every_row()
    other = make().fit(frames).leave_out(frames)
    np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.variance, other.variance, rtol=1e-7, atol=1e-12)
