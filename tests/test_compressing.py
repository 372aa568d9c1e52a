"""Sparse models on fewer of their points: the fit with these points, honest error bars, and clear refusals."""

import numpy as np
import pytest
from small import crystals, small_gp, soap

from soapkrr import DotProduct, GivenPoints, InputError, SparseGP, Term, load
from soapkrr.estimators.compressing import _Search
from soapkrr.regression.sparse.fewer import Fewer, left_out_errors

#: With features enough for independent points.
RICH = soap(n_max=5, l_max=4, r_cut=5.5)

FRAMES = crystals(10)
TEST = crystals(5, seed=7)


@pytest.fixture(scope="module")
def model():
    model = SparseGP(RICH, DotProduct(zeta=3), n_sparse=12).fit(FRAMES)
    assert model.rank_ == 12  # nothing is truncated
    return model


def fewer_of(model) -> Fewer:
    counts = {kind: model.n_observations_[kind] for kind in model.triangles_}
    return Fewer(model.process_, model.triangles_, counts, model.noise_, model.log_likelihood_, model.tolerance)


def assert_same(ours, theirs):
    p, q = (m.predict(TEST, uncertainty=True) for m in (ours, theirs))
    for name in ("energy", "forces", "stress", "energy_std", "forces_std", "stress_std"):
        a, b = (np.concatenate([np.ravel(x) for x in getattr(result, name)]) for result in (p, q))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_it_is_the_fit_with_these_points(model):
    """Posterior, error bars and evidence, to what rounding leaves."""
    search = _Search(model, fewer_of(model))
    ours = search.made(*search.fit(9))
    points, X = ours.process_.terms[0].points[0], RICH.create(FRAMES)
    chosen = GivenPoints([divmod(int(np.square(X - x).sum(axis=1).argmin()), 4) for x in points])
    theirs = SparseGP(RICH, DotProduct(zeta=3), n_sparse=9, selection=chosen).fit(FRAMES)
    assert_same(ours, theirs)
    assert ours.log_likelihood_ == pytest.approx(theirs.log_likelihood_, abs=1e-6)
    assert ours.n_sparse_ == {"Ar": 9} and model.n_sparse_ == {"Ar": 12}


def test_all_points_change_nothing(model):
    search = _Search(model, fewer_of(model))
    assert_same(search.made(*search.fit(12)), model)


def test_points_that_matter_come_first(model):
    """The mean on the first few is nearer to that on all than the mean on as many others, in the metric of the data."""
    fewer = fewer_of(model)
    order = fewer.order(12)
    assert sorted(order) == [(0, 0, q) for q in range(12)]
    first, last = (left_out_errors(fewer.fit(part)) for part in (order[:5], order[-5:]))
    assert first["forces"] < last["forces"]


def test_error_bars_grow_by_what_is_lost(model):
    search = _Search(model, fewer_of(model))
    few, all_ = (search.made(*search.fit(n)).predict(TEST, uncertainty=("energies",)) for n in (5, 12))
    assert (np.concatenate(few.energies_std) > np.concatenate(all_.energies_std) - 1e-10).all()


def test_terms_and_species_share_the_points():
    term = Term(soap(), DotProduct(zeta=2), n_sparse=12)
    wider = Term(soap(r_cut=5.0), DotProduct(zeta=1), n_sparse=6, signal=0.5)
    model = SparseGP([term, wider]).fit(FRAMES)
    search = _Search(model, fewer_of(model))
    ours = search.made(*search.fit(10))
    assert sum(t.n_points for t in ours.process_.terms) == 10
    assert ours.compression_.points == (18, 10)


def test_errors_by_generalised_cross_validation_are_those_of_the_rows(model):
    """From hat matrices of all rows together: the same as from triangles."""
    left = model.leave_out(FRAMES)
    errors = left_out_errors(_Search(model, fewer_of(model)).fit(12)[0])
    # Structures are left out as a whole, and GCV shares their leverage: the same size, not the same number.
    assert errors["forces"] == pytest.approx(left.errors()["forces"] / model.noise_["forces"], rel=0.5)


@pytest.mark.parametrize("tolerance", [0.02, 0.5])
def test_a_tolerance_is_kept(model, tolerance, tmp_path):
    ours = model.compress(tolerance=tolerance)
    assert ours.compression_.growth <= tolerance
    assert ours.compression_.points[1] <= 12
    assert "sparse points" in str(ours.compression_)
    ours.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(TEST).energy, ours.predict(TEST).energy)


def test_more_tolerance_leaves_fewer_points(model):
    assert model.compress(tolerance=1.0).compression_.points[1] < model.compress(tolerance=0.01).compression_.points[1]


def test_a_generous_time_keeps_all_points(model):
    ours = model.compress(microseconds_per_atom=1e9, frames=TEST)
    assert ours.compression_.points == (12, 12)
    assert len(ours.compression_.microseconds_per_atom) == 2


def of_observations():
    return small_gp(n_sparse=10, representers="observations").fit(FRAMES)


BAD = {
    "one of the two": lambda model: model.compress(),
    "or `microseconds_per_atom`": lambda model: model.compress(tolerance=0.1, microseconds_per_atom=3.0, frames=TEST),
    "`tolerance`": lambda model: model.compress(tolerance=0),
    "needs `frames`": lambda model: model.compress(microseconds_per_atom=3.0),
    "these structures take": lambda model: model.compress(microseconds_per_atom=1e-9, frames=TEST),
    "no sparse points that are environments": lambda model: (
        small_gp(n_sparse=10, representers="observations").fit(FRAMES).compress(tolerance=0.1)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(model, message):
    with pytest.raises(InputError, match=message):
        BAD[message](model)
