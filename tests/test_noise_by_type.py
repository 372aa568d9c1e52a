"""Noise by configuration type, found from left-out errors, and only where nobody pays for it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small import crystals, labelled

from soapkrr import Observations
from soapkrr.auto import choose
from soapkrr.automatic.by_type import pays, ratios_text, type_ratios, with_ratios
from soapkrr.automatic.plans import Settings
from soapkrr.regression.score import Score

SMALL = {"n_max": 3, "l_max": 2, "r_cut": 5.5, "sigma": 0.5}


def mixed(n=24, noise=0.2):
    """Lennard-Jones crystals; every second one has forces with errors, and says so by its type."""
    rng, frames = np.random.default_rng(1), []
    for k, atoms in enumerate(crystals(n, 1)):
        forces = atoms.calc.results["forces"] + (k % 2) * noise * rng.normal(size=(len(atoms), 3))
        frames.append(labelled(atoms, energy=atoms.calc.results["energy"], forces=forces - forces.mean(axis=0)))
        frames[-1].info["group"], frames[-1].info["config_type"] = 0, ["exact", "noisy"][k % 2]
    return frames


def plan_for(frames, given=None, **settings):
    return choose(frames, SMALL | (given or {}), Settings(search=False, threads=1, repulsion=False, **settings))


def said(plan):
    return {choice.name: choice.value for choice in plan.choices}.get("noise by type")


@pytest.fixture(scope="module")
def found():
    frames = mixed()
    plan = plan_for(frames)
    model = plan.fit(frames)
    return frames, plan, model, plan.refined(model, frames, 1.0)


def test_labels_without_errors_get_less_noise(found):
    frames, plan, model, refined = found
    levels = refined.model.observations.config_noise
    assert levels["noisy"]["forces"] > 2 * levels["exact"]["forces"]
    assert set(said(refined)) == {"exact", "noisy"} and said(plan) is None


def test_the_type_that_is_known_better_gains_and_the_other_does_not_lose(found):
    frames, _, model, refined = found
    exact = np.arange(len(frames)) % 2 == 0
    before, after = (m.left_out_squares_["forces"] for m in (model, refined.fit(frames)))
    assert after[exact].sum() < 0.8 * before[exact].sum()
    assert after[~exact].sum() < 1.05 * before[~exact].sum()


def test_one_level_stays_where_labels_are_alike():
    frames = mixed(noise=0.0)
    plan = plan_for(frames)
    refined = plan.refined(plan.fit(frames), frames, 1.0)
    assert refined.model.observations is None and said(refined) == "none"


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"noise": {"forces": 0.1}}, {}),
        ({}, {"observations": Observations(config_noise={"exact": {"forces": 0.01}})}),
        ({}, {"observations": Observations(balance=True)}),
        ({}, {"observations": Observations(config_type="group")}),
    ],
    ids=["noise", "config noise", "weights", "no types"],
)
def test_what_is_given_or_has_no_types_is_left_alone(found, given, settings):
    frames, _, model, _ = found
    plan = plan_for(frames, given, **settings)
    assert plan.refined(model, frames, 1.0) is plan


def test_ratios_are_those_of_root_mean_squares():
    frames = crystals(20)
    types, squares = np.repeat(["a", "b", "few"], [9, 8, 3]), np.repeat([4.0, 1.0, 1e6], [9, 8, 3])
    model = SimpleNamespace(left_out_squares_={"energy": squares, "stress": np.where(types == "a", np.nan, squares)})
    ratios = type_ratios(model, frames, types)
    assert ratios == {
        "a": {"energy": pytest.approx(2 / np.sqrt(44 / 17))},
        "b": {"energy": pytest.approx(1 / np.sqrt(44 / 17)), "stress": pytest.approx(1.0)},
    }
    assert type_ratios(model, frames, np.repeat("a", 20)) == type_ratios(model, frames, np.repeat(["a", "b"], [15, 5])) == {}
    fitted = SimpleNamespace(noise_={"energy": 0.5, "forces": 1.0, "stress": 2.0}, signals_=[4.0])
    model = with_ratios(plan_for(frames).model, fitted, ratios)
    assert model.observations.config_noise["b"] == {"energy": ratios["b"]["energy"] * 0.5, "stress": ratios["b"]["stress"] * 2.0}
    assert (model.noise, model.signal) == (fitted.noise_, 4.0)
    assert ratios_text({"a": {"energy": 0.51, "forces": 2}}) == {"a": "energy 0.51 ×, forces 2 ×"}


@pytest.mark.parametrize(
    ("better", "other", "taken"), [(0.5, 1.0, True), (0.5, 1.01, True), (0.5, 1.1, False), (0.995, 1.0, False)], ids=str
)
def test_nobody_pays_for_a_type(better, other, taken):
    types, rng = np.repeat(["good", "bad"], 20), np.random.default_rng(0)
    before = np.repeat([1.0, 100.0], 20) * rng.gamma(2.0, size=40)
    after = before * np.repeat([better, other], 20) ** 2
    models = [SimpleNamespace(left_out_squares_={"forces": part}) for part in (after, before)]
    assert pays(Score(), types, *models) is taken
    few = [SimpleNamespace(left_out_squares_={"forces": part[:3]}) for part in (after, before)]
    assert not pays(Score(), types[:3], *few)


def test_refined_plans_keep_what_else_they_are(found):
    _, plan, _, refined = found
    assert replace(refined, model=plan.model, choices=plan.choices) == plan


def test_more_structures_need_not_have_all_types(found):
    frames, _, _, refined = found
    model = refined.fit(frames[:-2])
    model.update(frames[-2:-1])
    model.update(crystals(1))
    assert model.n_observations_["energy"] == len(frames)
