"""Every way to choose sparse points: leverage, random, k-means, strata, given points, and how a `Term` takes them."""

import numpy as np
import pytest
import skmatter.sample_selection
from reference import farthest_points
from scipy.linalg import svd
from systems import small_soap, species, variations

from soapkrr import DotProduct, GivenPoints, InputError, KMeans, Leverage, RandomSelection, SparseGP, Stratified, Term
from soapkrr.selection.methods import (
    cur,
    farthest_point_sampling,
    k_means,
    leverage,
    leverage_scores,
    nearest_rows,
    random_selection,
    share,
    stratified,
)
from soapkrr.selection.specifications import NAMED, Selection, Sites, as_selection

SEEDED = {"leverage": lambda X, n, seed: leverage(X, n, seed=seed), "random": random_selection, "kmeans": k_means}
ALL = {"fps": farthest_point_sampling, "cur": cur, "leverage-top": leverage} | {
    name: (lambda X, n, f=f: f(X, n, seed=0)) for name, f in SEEDED.items()
}


def _points(n, n_features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_features))


@pytest.fixture(scope="module")
def environments():
    """Descriptors of silicon environments, as sparse points are chosen from."""
    return small_soap(["Si"]).create([*variations("vacancy", 8, rattle=0.2), *variations("skewed", 4, rattle=0.2)])


# --- all methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, 39, 40])
@pytest.mark.parametrize("name", ALL)
def test_points_are_distinct_and_repeatable(name, n):
    X = _points(40, 12, seed=1)
    before = X.copy()
    picked = ALL[name](X, n)
    assert picked.shape == (n,)
    assert len(np.unique(picked)) == n
    assert picked.min() >= 0
    assert picked.max() < 40
    np.testing.assert_array_equal(ALL[name](X.copy(), n), picked)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_gives_other_points(name):
    X = _points(200, 5, seed=2)
    assert set(SEEDED[name](X, 12, 0)) != set(SEEDED[name](X, 12, 1))


@pytest.mark.parametrize("n", [2, 15, 20])
def test_fps_and_cur_on_environments_equal_skmatter(environments, n):
    picked = farthest_point_sampling(environments, n)
    theirs = skmatter.sample_selection.FPS(initialize=int(picked[0]), n_to_select=n).fit(environments)
    np.testing.assert_array_equal(picked, theirs.selected_idx_)
    theirs = skmatter.sample_selection.CUR(n_to_select=n, k=1, recompute_every=1).fit(environments)
    np.testing.assert_array_equal(cur(environments, n), theirs.selected_idx_)


# --- leverage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 12])
@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_leverage_scores_are_those_of_the_singular_vectors(shape, rank):
    X = _points(*shape, seed=3) * np.logspace(0, -3, shape[1])
    U = svd(X, full_matrices=False)[0][:, :rank]
    # Singular values down to 1e-3, squared in the Gram matrix.
    np.testing.assert_allclose(leverage_scores(X, rank), (U**2).sum(axis=1), rtol=1e-8, atol=1e-9)


def test_leverage_scores_add_up_to_the_rank():
    X = _points(30, 4, seed=4) @ _points(4, 10, seed=5)
    assert leverage_scores(X, 7).sum() == pytest.approx(4)
    assert leverage_scores(X, 2).sum() == pytest.approx(2)


def test_the_largest_leverages_are_taken_without_a_seed():
    X = _points(50, 8, seed=6)
    scores = leverage_scores(X, 5)
    picked = leverage(X, 7, rank=5)
    np.testing.assert_array_equal(np.sort(scores[picked])[::-1], np.sort(scores)[::-1][:7])


def test_drawn_leverages_have_the_right_frequencies():
    """The first of the points drawn is row i with probability proportional to its score."""
    X = np.diag([3.0, 1.0, 1.0])[[0, 1, 1, 2, 2, 2]]
    scores = leverage_scores(X, 3)
    np.testing.assert_allclose(scores, [1, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])
    first = np.array([leverage(X, 1, rank=3, seed=seed)[0] for seed in range(3000)])
    # Standard deviation of a frequency: at most √(0.25/3000) = 0.009.
    np.testing.assert_allclose(np.bincount(first, minlength=6) / 3000, scores / 3, atol=0.03)


def test_drawn_leverages_take_rows_of_zero_last():
    X = np.zeros((6, 2))
    X[[1, 4]] = np.eye(2)
    assert set(leverage(X, 2, seed=0).tolist()) == {1, 4}
    assert len(leverage(X, 5, seed=0)) == 5


# --- k-means ---------------------------------------------------------------------------------------------------------


def test_k_means_takes_one_point_of_each_blob():
    rng = np.random.default_rng(7)
    centres = 20 * rng.normal(size=(6, 4))
    X = (centres[:, None] + rng.normal(size=(6, 30, 4))).reshape(180, 4)
    assert sorted(k_means(X, 6) // 30) == list(range(6))


def test_nearest_rows_equal_brute_force_and_are_never_taken_twice():
    X, centres = _points(60, 5, seed=8), np.repeat(_points(10, 5, seed=9), 2, axis=0)
    left, expected = list(range(60)), []
    for c in centres:
        best = min(left, key=lambda i: np.linalg.norm(X[i] - c))
        expected.append(best)
        left.remove(best)
    np.testing.assert_array_equal(nearest_rows(X, centres, block=3), expected)


# --- strata ----------------------------------------------------------------------------------------------------------


def test_strata_in_proportion():
    X, groups = _points(100, 4, seed=10), np.repeat(["a", "b", "c"], [60, 30, 10])
    picked = stratified(X, 20, groups)
    assert [np.sum(groups[picked] == g) for g in "abc"] == [12, 6, 2]
    np.testing.assert_array_equal(np.sort(picked[groups[picked] == "b"]), np.sort(60 + farthest_point_sampling(X[60:90], 6)))


@pytest.mark.parametrize(
    "weights, n, expected",
    [
        ("equal", 21, [7, 7, 7]),
        ("equal", 60, [25, 25, 10]),
        ({"a": 1, "c": 3}, 8, [2, 0, 6]),
        ({"a": 1, "c": 3}, 20, [10, 0, 10]),
        ({"c": 1}, 20, [0, 0, 10]),
        (None, 2, [1, 1, 0]),
        (None, 200, [60, 30, 10]),
    ],
)
def test_strata_by_weight(weights, n, expected):
    X, groups = _points(100, 4, seed=11), np.repeat(["a", "b", "c"], [60, 30, 10])
    picked = stratified(X, n, groups, weights=weights)
    assert len(np.unique(picked)) == len(picked)
    assert [np.sum(groups[picked] == g) for g in "abc"] == expected


def test_one_stratum_is_none():
    X = _points(50, 4, seed=12)
    np.testing.assert_array_equal(stratified(X, 12, np.repeat("x", 50)), farthest_point_sampling(X, 12))


def test_share_by_weight():
    np.testing.assert_array_equal(share(np.array([5, 100, 100]), 65, np.array([1.0, 1.0, 1.0])), [5, 30, 30])


# --- specifications --------------------------------------------------------------------------------------------------


@pytest.fixture
def frames():
    frames = variations("alloy", 6, rattle=0.2)
    for s, atoms in enumerate(frames):
        atoms.info["config_type"] = "cold" if s < 4 else "hot"
        atoms.arrays["layer"] = np.arange(len(atoms)) % 2
    return frames


def _points_of(selection, frames, n=12):
    soap = small_soap(species("alloy"))
    model = SparseGP(soap, DotProduct(2), n_sparse=n, selection=selection).fit(frames)
    X = soap.create(frames)
    where = [np.flatnonzero((np.abs(X - x) < 1e-12).all(axis=1)) for points in model.process_.terms[0].points for x in points]
    assert all(len(w) == 1 for w in where)
    return np.array([[w[0] // 5, w[0] % 5] for w in where])


@pytest.mark.parametrize("selection", [*NAMED, Stratified(), Leverage(seed=None), RandomSelection(3), KMeans(3)], ids=str)
def test_every_selection_fits_and_is_repeatable(frames, selection):
    sites = _points_of(selection, frames)
    assert len(np.unique(sites, axis=0)) == 12
    np.testing.assert_array_equal(_points_of(selection, frames), sites)


@pytest.mark.parametrize("name", NAMED)
def test_names_stand_for_specifications(name):
    assert isinstance(as_selection(name), Selection)
    assert as_selection(as_selection(name)) == as_selection(name)


def test_a_term_takes_a_specification(frames):
    term = Term(small_soap(species("alloy")), DotProduct(2), n_sparse=12, selection=Stratified(weights="equal"))
    model = SparseGP(term).fit(frames)
    alone = SparseGP(term.descriptor, term.kernel, n_sparse=12, selection=term.selection).fit(frames)
    np.testing.assert_array_equal(model.predict(frames).energy, alone.predict(frames).energy)


def test_stratified_by_configuration_type_within_each_species(frames):
    sites = _points_of(Stratified(weights={"hot": 1}), frames, n=6)
    assert np.all(sites[:, 0] >= 4)
    sites = _points_of(Stratified(weights="equal"), frames, n=10)
    assert np.sum(sites[:, 0] >= 4) == 5


def test_stratified_by_a_label_of_the_atoms(frames):
    for atoms in frames:
        atoms.arrays["layer"][:2] = 0
    sites = _points_of(Stratified(by="layer", weights={"0": 1}), frames, n=6)
    assert np.all(frames[0].arrays["layer"][sites[:, 1]] == 0)


def test_given_points(frames):
    # Atoms of the alloy: Sr, Ti, O, O, O.
    wanted = [(0, 0), (3, 1), (2, 4), (5, 3), (1, 2)]
    assert sorted(map(tuple, _points_of(GivenPoints(wanted), frames).tolist())) == sorted(wanted)
    sites = _points_of(GivenPoints(np.array([1, 4])), frames)
    assert sorted(map(tuple, sites.tolist())) == [(s, a) for s in (1, 4) for a in range(5)]


def test_given_points_of_another_selection_give_the_same_model(frames):
    sites = _points_of("fps", frames)
    soap = small_soap(species("alloy"))
    fps = SparseGP(soap, DotProduct(2), n_sparse=12).fit(frames)
    given = SparseGP(soap, DotProduct(2), selection=GivenPoints(sites)).fit(frames)
    np.testing.assert_allclose(given.predict(frames).energy, fps.predict(frames).energy, rtol=1e-9)


def test_sites_are_in_the_order_of_the_environments(frames):
    sites = Sites.of(frames)
    np.testing.assert_array_equal(sites.frame, np.repeat(range(6), 5))
    np.testing.assert_array_equal(sites.atom, np.tile(range(5), 6))
    np.testing.assert_array_equal(sites.strata("config_type"), ["cold"] * 20 + ["hot"] * 10)
    np.testing.assert_array_equal(sites.strata("layer"), np.tile(["0", "1", "0", "1", "0"], 6))


def test_fps_within_strata_equals_brute_force(frames):
    soap = small_soap(species("alloy"))
    model = SparseGP(soap, DotProduct(2), n_sparse={"O": 6, "Ti": 1, "Sr": 1}, selection=Stratified()).fit(frames)
    X = soap.create(frames)[[5 * s + a for s in range(6) for a in (2, 3, 4)]]
    expected = []
    for part, n in ((X[:12], 4), (X[12:], 2)):
        first = int(np.argmax(np.linalg.norm(part - part.mean(axis=0), axis=1)))
        expected.append(part[farthest_points(part, n, first)])
    np.testing.assert_allclose(model.process_.terms[0].points[0], np.concatenate(expected), rtol=0, atol=1e-14)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: as_selection("best"), "selection"),
        (lambda: as_selection(7), "selection"),
        (lambda: Stratified(method="best"), "selection"),
        (lambda: Stratified(method=Stratified()), "method"),
        (lambda: Stratified(weights="inverse"), "weights"),
        (lambda: Stratified(weights={"a": -1.0, "b": 1.0}), "weights"),
        (lambda: Stratified(weights={"a": 0.0}), "weights"),
        (lambda: GivenPoints([]), "indices"),
        (lambda: GivenPoints([(0, 1, 2)]), "indices"),
        (lambda: GivenPoints([(0, -1)]), "indices"),
        (lambda: GivenPoints([0.5]), "indices"),
        (lambda: Leverage(rank=0), "rank"),
        (lambda: RandomSelection(seed=-1), "seed"),
        (lambda: KMeans(seed=0.5), "seed"),
        (lambda: Term(small_soap(["Si"]), DotProduct(2), selection="best"), "selection"),
    ],
)
def test_bad_parameters_are_named(make, argument):
    with pytest.raises(InputError, match=f"`{argument}`"):
        make()


@pytest.mark.parametrize(
    "selection, message",
    [
        (Stratified(by="phase"), "`by`='phase'"),
        (Stratified(weights={"warm": 1}), "`weights` names .'warm'"),
        (GivenPoints([6]), "frame 6"),
        (GivenPoints([(0, 5)]), "frame 0, atom 5"),
        (GivenPoints([(0, 0), (0, 1)]), "chooses no environment of O"),
    ],
)
def test_selections_that_do_not_fit_the_data(frames, selection, message):
    with pytest.raises(InputError, match=message):
        SparseGP(small_soap(species("alloy")), DotProduct(2), n_sparse=12, selection=selection).fit(frames)
