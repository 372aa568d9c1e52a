"""Channel weights learnt from left-out structures: the density is that of refits, its gradient belongs to it, and it can only help."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from small import crystals, labelled, soap
from taylor import assert_derivative

import soapkrr
from soapkrr import Compressed, DotProduct, GaussianProcess, InputError, KernelRidge, SparseGP, SquaredExponential, WeightedSOAP
from soapkrr.descriptors.weighting import feature_scales, weights_gradient
from soapkrr.labels import read_labels
from soapkrr.learning.ascent import ascend
from soapkrr.learning.density import leave_out_density
from soapkrr.learning.objective import Objective, Point, kinds_present
from soapkrr.learning.reverse import powers
from soapkrr.learning.weights import learnt
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.targets import observation_targets
from soapkrr.structures import Batch

NOISE = {"energy": 0.002, "forces": 0.02, "stress": 0.002}


def alloys(n, seed=0):
    """Rattled cells with two species, one structure without forces, one with a masked atom."""
    frames = []
    for atoms in crystals(n, seed):
        atoms.symbols[:] = ["Ar", "Kr", "Kr", "Ar"]
        frames.append(labelled(atoms, **atoms.calc.results))
    del frames[0].calc.results["forces"]
    frames[1].arrays["force_mask"] = np.array([False, True, False, False])
    return frames


def model(kind=GaussianProcess, descriptor=None, kernel=None, **changes):
    descriptor = soap(["Ar", "Kr"], l_max=1, n_max=2) if descriptor is None else descriptor
    return kind(descriptor, kernel or DotProduct(2.5), **({"noise": NOISE, "threads": 1} | changes))


@pytest.fixture(scope="module")
def objective():
    frames, descriptor = alloys(4), soap(["Ar", "Kr"], l_max=1, n_max=2)
    data = TrainingData.of(frames, read_labels(frames, None, NOISE), None)
    structures = ObservedStructures.of(data)
    y, sigma = observation_targets(data, NOISE)
    known = np.flatnonzero(np.isfinite(sigma))
    names, kind = kinds_present(structures.layout.kinds[known])
    owner = np.repeat(np.arange(4), structures.layout.lengths.sum(axis=1))[known]
    unit = sigma[known] / np.array([NOISE[name] for name in names])[kind]
    return Objective(structures.compositions(descriptor, 1), known, y[known], owner, kind, unit, names, 1)


def at(objective, seed=0):
    """A point away from equal weights."""
    start = objective.start((2, 2, 4), 2.5, 2.0, NOISE)
    vector = start.vector()
    vector[:16] = np.random.default_rng(seed).normal(scale=0.3, size=16)
    return start.at(vector)


# --- the density and its gradient ------------------------------------------------------------------------------------


def test_density_is_that_of_each_structure_given_the_others(objective):
    """By conditioning normal distributions one by one, without a formula for blocks."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(9, 14))
    C, y, blocks = A @ A.T, rng.normal(size=9), [slice(0, 2), slice(2, 6), slice(6, 9)]
    value, _, errors = leave_out_density(C.copy(), y, blocks)
    expected = 0.0
    for at in blocks:
        mine = np.arange(9)[at]
        rest = np.setdiff1d(np.arange(9), mine)
        gain = np.linalg.solve(C[np.ix_(rest, rest)], C[np.ix_(rest, mine)]).T
        mean, left = gain @ y[rest], C[np.ix_(mine, mine)] - gain @ C[np.ix_(rest, mine)]
        expected += multivariate_normal.logpdf(y[at], mean, left)
        np.testing.assert_allclose(errors[at], y[at] - mean, atol=1e-12)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_gradient_of_the_density_by_the_covariance():
    rng = np.random.default_rng(1)
    A, D = rng.normal(size=(8, 12)), rng.normal(size=(8, 8))
    C, D, y, blocks = A @ A.T, D + D.T, rng.normal(size=8), [slice(0, 3), slice(3, 8)]
    G = leave_out_density(C.copy(), y, blocks).gradient
    assert_derivative(lambda t: leave_out_density(C + t * D, y, blocks).value, np.vdot(G, D))


def test_powers_are_those_of_the_kernel():
    u = np.linspace(0.2, 1.0, 5)
    values, slopes = powers(u, 2.7)
    for value, slope in zip(values, values[1:], strict=False):
        assert_derivative(lambda t, v=value, k=values: _same(powers(u + t, 2.7)[0], k, v), slope)
    for k, slope in enumerate(slopes):
        assert_derivative(lambda t, k=k: powers(u, 2.7 + t)[0][k], slope)


def _same(moved, values, value):
    """The one of ``moved`` that stands where ``value`` stands in ``values``."""
    return moved[[id(v) for v in values].index(id(value))]


@pytest.mark.parametrize("part", ["weights", "zeta", "signal", "noise"])
def test_gradient_of_the_objective(objective, part):
    """Two species, energies, forces and stress, one structure without forces, one component unknown."""
    point = at(objective)
    gradient = objective(point).gradient
    shape = np.shape(getattr(point, part))
    direction = np.random.default_rng(2).normal(size=shape)
    changed = lambda t: Point(**{**vars(point), part: getattr(point, part) + t * direction})  # noqa: E731
    # Shorter steps than usual: logarithms of noise levels bend the density much.
    steps = np.array([4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4])
    assert_derivative(lambda t: objective(changed(t), False).density, np.sum(getattr(gradient, part) * direction), steps)


def test_gradient_in_single_precision_points_the_same_way(objective):
    point = at(objective)
    a, b = (objective(point, dtype=dtype).gradient.vector() for dtype in (np.float64, np.float32))
    assert a @ b > 0.9999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_gradient_of_feature_scales():
    log, D = np.random.default_rng(3).normal(size=(2, 2, 3, 4))
    of_scales = np.random.default_rng(4).normal(size=feature_scales(np.exp(log)).shape)
    value = lambda t: np.vdot(of_scales, feature_scales(np.exp(log + t * D)))  # noqa: E731
    assert_derivative(value, np.vdot(weights_gradient(of_scales, np.exp(log)), D))


def test_errors_are_those_of_refits_with_weights(objective):
    """The weighted spectra of the objective are those of `WeightedSOAP`: its leave-out errors are those of the estimator's."""
    frames, point = alloys(4), at(objective)
    weighted = WeightedSOAP(**soap(["Ar", "Kr"], l_max=1, n_max=2).get_params(deep=False), weights=np.exp(point.weights))
    left = model(descriptor=weighted, signal=2.0).fit(frames).leave_out(frames)
    value = objective(point, False)
    mine = [np.sort(np.abs(value.errors[objective.kind == k])) for k in range(3)]
    for name, errors in zip(objective.names, mine, strict=True):
        # The reference energies of both are those of all data.
        np.testing.assert_allclose(errors, np.sort(np.abs(left.of_kind(name).error)), rtol=1e-6, atol=1e-9)


# --- learning --------------------------------------------------------------------------------------------------------


def test_ascent_finds_the_maximum_and_stops_where_there_is_no_slope():
    found = ascend(lambda x: -2 * (x - [1.0, -0.5]), np.zeros(2), 200, 0.05)
    np.testing.assert_allclose(found, [1.0, -0.5], atol=0.02)
    np.testing.assert_array_equal(ascend(lambda x: None, np.ones(2), 10, 0.05), np.ones(2))


@pytest.fixture(scope="module")
def found():
    frames = alloys(8, seed=3)
    return frames, *learnt(model(), frames, steps=8)


def test_learning_never_makes_left_out_errors_worse(found):
    frames, better, report = found
    assert report.helped == (better.descriptor != model().descriptor)
    assert sum(np.log(list(report.after.values()))) < sum(np.log(list(report.before.values())))
    left = better.fit(frames).leave_out(frames)
    for kind, error in report.after.items():
        np.testing.assert_allclose(left.rmse(kind), error, rtol=1e-6)
    assert "left out, 8 structures, 8 steps" in str(report)


def test_learning_is_deterministic_whatever_the_threads(found):
    frames, better, _ = found
    again, _ = learnt(model(threads=2), frames, steps=8)
    assert again.descriptor == better.descriptor
    assert again.noise == better.noise


def test_a_learnt_model_is_saved_and_loaded(found, tmp_path):
    frames, better, _ = found
    better.fit(frames).save(tmp_path / "model")
    np.testing.assert_array_equal(soapkrr.load(tmp_path / "model").predict(frames).energy, better.predict(frames).energy)


def test_steps_that_do_not_help_leave_the_model_as_it_was(monkeypatch):
    monkeypatch.setattr(
        "soapkrr.learning.weights.ascend", lambda slope, x, steps, rate: x + np.linspace(-8, 8, len(x)) * (np.arange(len(x)) < 16)
    )
    same, report = learnt(model(), alloys(5), steps=1)
    assert not report.helped
    assert same.descriptor == model().descriptor and same.noise == NOISE
    assert report.reason == "weights do not predict left-out structures better"


def test_a_diverging_ascent_leaves_the_model_as_it_was(monkeypatch):
    monkeypatch.setattr("soapkrr.learning.weights.ascend", lambda slope, x, steps, rate: x * np.nan)
    same, report = learnt(model(), alloys(5), steps=1)
    assert report.reason == "learning of weights diverged" and not report.helped
    assert same.descriptor == model().descriptor


def test_weights_go_into_every_model_that_can_have_them():
    frames = alloys(6, seed=3)
    inner = soap(["Ar", "Kr"], l_max=1, n_max=2)
    compressed = soapkrr.learn_weights(model(descriptor=Compressed(inner, n_components=5)), frames, steps=4)
    assert isinstance(compressed.descriptor, Compressed) and isinstance(compressed.descriptor.descriptor, WeightedSOAP)
    sparse = soapkrr.learn_weights(model(SparseGP, n_sparse=6), frames, steps=4)
    assert isinstance(sparse.descriptor, WeightedSOAP)
    on = soapkrr.learn_weights(sparse, frames, steps=2)
    assert isinstance(on.descriptor, WeightedSOAP)


def test_a_part_of_many_structures_is_learnt_from(monkeypatch):
    monkeypatch.setattr("soapkrr.learning.weights.MOST", 80)
    frames = alloys(9)
    reports = [learnt(model(), frames, steps=1, seed=seed)[1] for seed in (0, 0, 1)]
    assert 3 <= reports[0].structures < 9
    assert reports[0] == reports[1]
    assert reports[0].after != reports[2].after


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: model(kernel=SquaredExponential(1.0)), "DotProduct"),
        (lambda: model(descriptor=soapkrr.CompressedSOAP(["Ar", "Kr"], r_cut=4.5, n_max=2, l_max=1)), "channels"),
        (lambda: KernelRidge(soap(["Ar", "Kr"]), DotProduct(2)), "noise levels"),
        (lambda: None, "`model`"),
    ],
)
def test_models_without_channels_or_noise_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        learnt(wrong(), alloys(4))


def test_too_few_structures_or_steps_are_refused():
    with pytest.raises(InputError, match="3 labelled structures"):
        learnt(model(), alloys(2))
    with pytest.raises(InputError, match="`steps`"):
        learnt(model(), alloys(4), steps=0)


@pytest.mark.parametrize("weights", [np.ones((2, 2, 3)), -np.ones((2, 2, 4)), np.full((2, 2, 4), np.nan), 1.0])
def test_weights_of_the_wrong_shape_or_sign_are_refused(weights):
    with pytest.raises(InputError, match="`weights` must be a finite, positive array"):
        WeightedSOAP(["Ar", "Kr"], r_cut=4.5, n_max=2, l_max=1, weights=weights)


def test_equal_weights_are_plain_soap_and_common_factors_change_nothing():
    frames, plain = alloys(2), soap(["Ar", "Kr"])
    weights = np.random.default_rng(0).uniform(0.5, 2.0, (2, 3, 6))
    settings = plain.get_params(deep=False)
    np.testing.assert_allclose(WeightedSOAP(**settings).create(frames), plain.create(frames), atol=1e-15)
    a, b = (WeightedSOAP(**settings, weights=w).create(frames) for w in (weights, weights * np.array([2.0, 0.3])[:, None, None]))
    np.testing.assert_allclose(a, b, atol=1e-14)


def test_weighted_spectra_are_those_of_weighted_expansions():
    """By the definition: coefficients times weights, products over m, normalised."""
    atoms, plain = alloys(2)[0], soap(["Ar", "Kr"], l_max=2)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (2, 3, 6))
    env = plain.environments(Batch.from_atoms([atoms]))
    c, tensors = env.state[0], []
    for l in range(3):
        w = c[:, l**2 : (l + 1) ** 2] * weights[env.kinds, l][:, None]
        tensors.append(np.einsum("ima,imb->iab", w, w).reshape(len(c), -1) / np.sqrt(2 * l + 1))
    full = np.concatenate(tensors, axis=1)
    full /= np.linalg.norm(full, axis=1)[:, None]
    X = WeightedSOAP(**plain.get_params(deep=False), weights=weights).create(atoms)
    np.testing.assert_allclose(X @ X.T, full @ full.T, atol=1e-13)
