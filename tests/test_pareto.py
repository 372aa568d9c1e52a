"""Noise by cross-validation: what is made small, what kinds of labels trade, and the front that is kept."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from sklearn.base import clone
from small import crystals, small_gp, soap

import soapkrr
from soapkrr import DotProduct, GaussianProcess, InputError, ModelFileError, Observations, auto, plot
from soapkrr.automatic.plans import Settings
from soapkrr.regression.front import Front, restored_front
from soapkrr.regression.score import BOUND, Score
from soapkrr.regression.sparse.cross_validation import Folds, NoiseSearch, optimise_noise

START = {"energy": 0.1, "forces": 0.1}


def folds(disagreement: float, seed: int = 0) -> Folds:
    """Rows of energies and forces whose weights differ by ``disagreement``, so that one model cannot have both."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=12)
    weights = {"energy": w, "forces": w + disagreement * rng.normal(size=12)}
    parts = []
    for _ in range(5):
        Phi = {"energy": rng.normal(size=(8, 12)), "forces": rng.normal(size=(30, 12))}
        parts.append({t: np.column_stack([P, P @ weights[t] + 0.05 * rng.normal(size=len(P))]) for t, P in Phi.items()})
    return Folds.of(parts, [{"energy": 8, "forces": 30}] * 5)


@pytest.fixture(scope="module")
def model():
    return small_gp(noise={"energy": 0.01, "forces": 0.02, "stress": 0.01}, n_sparse=12).fit(crystals(10), optimize="cross-validation")


def test_each_score_makes_its_own_errors_small():
    """No other score has smaller errors of the kind that counts alone, and weights lie in between."""
    data = folds(0.3)
    errors = {}
    for name, score in {"energy": "energy", "forces": "forces", "both": {"energy": 1, "forces": 1}}.items():
        levels, _ = optimise_noise(data, START, Score.of(score))
        errors[name] = data.errors(levels)
    assert errors["energy"]["energy"] < errors["both"]["energy"] * 1.001
    assert errors["forces"]["forces"] < errors["both"]["forces"] * 1.001
    assert errors["energy"]["forces"] > errors["forces"]["forces"]


@pytest.mark.parametrize("disagreement", [0.004, 0.012, 0.02, 0.04])
def test_balanced_keeps_every_kind_within_the_bound_where_that_is_possible(disagreement):
    """As an exhaustive grid of steps of two tells; where it is not possible, the worst kind is as near to its least as on the grid."""
    data = folds(disagreement)
    grid = [{"energy": a, "forces": b} for a in 2.0 ** np.arange(-10, 4) for b in 2.0 ** np.arange(-10, 4)]
    errors = [data.errors(levels) for levels in grid]
    least = {kind: min(e[kind] for e in errors) for kind in START}
    possible = min(max(e[kind] / least[kind] for kind in START) for e in errors)
    levels, _ = optimise_noise(data, START, Score())
    found = data.errors(levels)
    assert max(found[kind] / least[kind] for kind in START) < 1.03 * max(BOUND, possible)


def test_errors_beyond_the_bound_cost_more_than_they_gain():
    least = {"energy": 1.0, "forces": 1.0}
    within, beyond = {"energy": 1.1, "forces": 1.1}, {"energy": 1.3, "forces": 0.8}
    assert Score()(beyond) < Score()(within)
    assert Score().cost(beyond, least) > Score().cost(within, least)
    assert Score.of({"energy": 1, "forces": 1}).cost(beyond, least) < Score.of({"energy": 1, "forces": 1}).cost(within, least)


def test_the_balanced_cost_is_the_sum_of_logarithms():
    errors = {"energy": 0.2, "forces": 3.0, "stress": 0.7}
    assert Score().cost(errors) == pytest.approx(np.log(list(errors.values())).sum())


def test_a_front_is_what_nothing_beats():
    search = NoiseSearch(folds(0.3))
    start = search.descend((0.1, 0.1), Score().cost, 40)
    for kind in search.kinds:
        search.favour(start, kind)
    front = Front.of(search.tried, start)
    E = np.array(list(search.tried.values()) and [[e[k] for k in front.errors] for e in search.tried.values()])
    points = np.stack(list(front.errors.values()), axis=1)
    beaten = [[bool((e <= p).all() and (e < p).any()) for e in E] for p in np.delete(points, front.chosen, axis=0)]
    assert not np.any(beaten)
    assert all(any((p <= e).all() for p in points) for e in E)
    assert np.all(np.diff(front.errors["energy"]) >= 0)


def test_levels_of_the_front_have_the_errors_that_it_states(model):
    """A fit with the noise of any row, and the signal of the model, has its means: those of the chosen row are the model's."""
    front = model.pareto()
    levels = {kind: float(noise[front.chosen]) for kind, noise in front.noise.items()}
    assert levels == pytest.approx({kind: model.noise_[kind] for kind in levels})
    assert set(front.least) == {"energy", "forces", "stress"}
    assert min(front.over_least.values()) >= 1
    assert "chosen" in repr(front) and "meV/√atom" in repr(front)


def test_a_front_is_in_the_model_file(model, tmp_path):
    model.save(tmp_path / "m.model")
    again = soapkrr.load(tmp_path / "m.model").pareto()
    assert again.chosen == model.front_.chosen
    for kind, errors in model.front_.errors.items():
        np.testing.assert_array_equal(again.errors[kind], errors)
        np.testing.assert_array_equal(again.noise[kind], model.front_.noise[kind])


@pytest.mark.parametrize(
    "state",
    [
        {"noise": {}, "errors": {}, "chosen": 0},
        {"noise": {"energy": np.ones(2)}, "errors": {"energy": np.ones(3)}, "chosen": 0},
        {"noise": {"energy": np.ones(2)}, "errors": {"energy": np.ones(2)}, "chosen": 2},
        {"noise": {"spin": np.ones(2)}, "errors": {"spin": np.ones(2)}, "chosen": 0},
    ],
)
def test_damaged_fronts_are_refused(state):
    with pytest.raises(ModelFileError, match="front"):
        restored_front(state)


def test_fronts_of_exact_processes_are_those_of_leave_outs():
    """The row of the model has the errors of `leave_out`, and another one those of a fit with its noise."""
    frames = crystals(7)
    observations = Observations(config_noise={"default": {"forces": 0.5}})
    exact = GaussianProcess(soap(), DotProduct(2), noise={"energy": 0.003, "forces": 0.02, "stress": 0.002}, observations=observations)
    front = exact.fit(frames).pareto()
    other = (front.chosen + 1) % len(front)
    levels = {kind: float(sigma[other]) for kind, sigma in front.noise.items()}
    as_much = replace(observations, config_noise={"default": {"forces": 25 * levels["forces"]}})
    again = clone(exact).set_params(noise=levels, observations=as_much)
    for model, row in ((exact, front.chosen), (again.fit(frames), other)):
        left = model.leave_out(frames)
        expected = {kind: np.sqrt(np.mean(left.of_kind(kind).error ** 2)) for kind in ("energy", "forces", "stress")}
        weights = {"energy": 2.0, "forces": 25.0, "stress": 1.0}  # √N of four atoms, and the noise of the type
        assert {kind: e[row] for kind, e in front.errors.items()} == pytest.approx(
            {kind: error / weights[kind] for kind, error in expected.items()}, rel=1e-5
        )
    assert front.noise["forces"][front.chosen] == 0.02 and min(front.over_least.values()) >= 1


def test_fronts_of_exact_processes_after_a_file_and_of_too_many_observations(tmp_path, monkeypatch):
    exact = GaussianProcess(soap(), DotProduct(2)).fit(crystals(4))
    exact.save(tmp_path / "m.model")
    first, again = exact.pareto(), soapkrr.load(tmp_path / "m.model").pareto()
    assert all(np.allclose(first.errors[kind], again.errors[kind], rtol=1e-6) for kind in first.errors)
    monkeypatch.setattr("soapkrr.regression.exact.trades.MOST", 10)
    with pytest.raises(InputError, match="at most 10, received 76.*SparseGP"):
        exact.pareto()


def test_models_without_a_cross_validation_have_no_front():
    with pytest.raises(InputError, match="cross-validation"):
        small_gp().fit(crystals(4)).pareto()
    with pytest.raises(InputError, match="`score`"):
        small_gp().fit(crystals(4), score="forces")


def test_the_figure_has_every_point_and_rings_the_chosen_one(model):
    matplotlib.use("Agg")
    front = model.pareto()
    ax = plot.pareto(front)
    assert len(ax.collections[0].get_offsets()) == len(front)
    (ring,) = (line for line in ax.lines if len(line.get_xdata()) == 1)
    assert ring.get_xdata()[0] == pytest.approx(1e3 * front.errors["energy"][front.chosen])
    assert [text.get_text() for text in ax.texts] == ["chosen"]
    with pytest.raises(InputError, match="`front`"):
        plot.pareto(model)
    with pytest.raises(InputError, match="at least two"):
        plot.pareto(Front({"energy": np.ones(1)}, {"energy": np.ones(1)}, 0))


def test_the_automatic_fit_hands_on_what_the_user_wants():
    frames = crystals(10)
    plans = {name: auto.choose(frames, {"n_sparse": 12}, Settings(score=name, search=False)) for name in ("energy", "forces")}
    fronts = {name: plan.fit(frames).pareto() for name, plan in plans.items()}
    chosen = {name: {kind: e[front.chosen] for kind, e in front.errors.items()} for name, front in fronts.items()}
    assert chosen["energy"]["energy"] < chosen["forces"]["energy"]
    assert chosen["forces"]["forces"] < chosen["energy"]["forces"]
    assert "noise trades" in {choice.name for choice in plans["forces"].fit(frames).choices_}
