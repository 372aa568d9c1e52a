"""Which of several plans is taken: rounds, margins, failures, and what is said of those that lose."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from small import crystals, lennard_jones
from systems import build

import soapkrr
from soapkrr import CompressedSOAP, InputError, auto
from soapkrr.automatic import search
from soapkrr.automatic.search import best_fit, subset
from soapkrr.labels import read_labels
from soapkrr.regression.score import SCORES, Score


class Fixed:
    """A plan whose fits have given errors: on part of the structures, and on all; ``share`` of the squares is the first structure's."""

    def __init__(self, *errors, n=100, fails=None, share=0.0):
        self.errors, self.n, self.fails, self.share, self.sizes = errors, n, fails, share, []

    def fit(self, frames, progress=False, check=True):
        self.sizes.append(len(frames))
        if self.fails:
            raise InputError(self.fails)
        if check:
            warnings.warn(f"of {self.errors}", soapkrr.DataWarning, stacklevel=1)
        error = self.errors[-1] if len(frames) == self.n else self.errors[0]
        squares = np.full(len(frames), (1 - self.share) * error**2)
        squares[0] += self.share * len(frames) * error**2
        return SimpleNamespace(left_out_errors_={"forces": error}, left_out_squares_={"forces": squares}, choices_=[], plan=self)

    def smaller(self, part):
        return self

    def refined(self, model, frames, part):
        return self


FRAMES = crystals(100)
LABELS = read_labels(FRAMES)


def taken(**plans):
    with pytest.warns(soapkrr.DataWarning) as caught:
        model = best_fit(plans, FRAMES, LABELS, Score())
    assert [str(w.message) for w in caught] == [f"of {model.plan.errors}"]
    return {c.name: c.value for c in model.choices_}


def test_the_smallest_error_on_all_structures_wins_and_losers_are_told():
    plans = {"recipe": Fixed(1.0, 1.0), "better": Fixed(0.9, 0.8), "misleading": Fixed(0.88, 0.9), "worse": Fixed(2.0, 0.1)}
    said = taken(**plans)
    assert said == {"variant": "better", "tried": {"recipe": "1.11 ×", "misleading": "1.12 ×", "worse": "2.22 ×"}}
    assert plans["better"].sizes == [40, 100] and plans["worse"].sizes == [40]


def test_the_first_plan_is_kept_where_others_are_hardly_better():
    assert taken(recipe=Fixed(1.0, 1.0), other=Fixed(0.995, 0.995))["variant"] == "recipe"


def test_a_clear_winner_is_fitted_alone():
    plans = {"recipe": Fixed(1.0, 1.0), "better": Fixed(0.5, 0.5)}
    taken(**plans)
    assert plans["recipe"].sizes == [40] and plans["better"].sizes == [40, 100]


def test_the_first_plan_is_fitted_alone_where_no_other_passes_on_a_part():
    plans = {"recipe": Fixed(1.0, 1.0), "other": Fixed(1.05, 0.5)}
    assert taken(**plans) == {"variant": "recipe", "tried": {"other": "1.05 ×"}}
    assert plans["recipe"].sizes == [40, 100] and plans["other"].sizes == [40]


def test_one_structure_that_a_plan_does_well_is_no_reason_to_take_it():
    plans = {"recipe": Fixed(1.0, 1.0, share=0.5), "lucky": Fixed(0.8, 0.8)}
    assert taken(**plans)["variant"] == "recipe" and plans["lucky"].sizes == [40]
    assert taken(recipe=Fixed(1.0, 1.0), better=Fixed(0.8, 0.8))["variant"] == "better"


def test_of_two_that_are_surely_better_than_the_first_plan_the_better_one_is_taken():
    plans = {"recipe": Fixed(1.0, 1.0), "one": Fixed(0.8, 0.8, share=0.2), "other": Fixed(0.79, 0.77)}
    assert taken(**plans)["variant"] == "other"
    assert [plan.sizes for plan in plans.values()] == [[40], [40, 100], [40, 100]]


def test_standard_errors_of_differences_are_those_of_many_sets():
    rng, n = np.random.default_rng(0), 200
    both = rng.gamma(1.0, 1.0, size=(1000, 2, n))
    own, other = both[:, 0], 0.5 * both[:, 0] + 0.8 * both[:, 1]
    found = np.array([_difference(a, b) for a, b in zip(own, other, strict=True)])
    assert found[:, 0].mean() == pytest.approx(-0.5 * np.log(1.3), abs=5e-3)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.05)


def _difference(own, other):
    return Score().difference({"energy": own, "stress": own}, {"energy": other})


def test_differences_are_of_structures_that_both_have():
    own, other = np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.0, np.nan, 3.0, 1.0])
    assert _difference(own, other)[0] == pytest.approx(0.5 * np.log(5 / 2))
    assert np.isnan(Score.of("forces").difference({"energy": own}, {"energy": other})).all()


def test_a_plan_that_fails_is_out_and_said_to_be():
    assert taken(recipe=Fixed(1.0, 1.0), other=Fixed(fails="no"))["tried"] == {"other": "failed: no"}
    with pytest.raises(InputError, match="why"):
        best_fit({"recipe": Fixed(fails="why"), "other": Fixed(fails="no")}, FRAMES, LABELS, Score())


def test_few_structures_take_one_round():
    plans = {"recipe": Fixed(1.0, n=50), "other": Fixed(2.0, n=50)}
    with pytest.warns(soapkrr.DataWarning):
        best_fit(plans, FRAMES[:50], LABELS[:50], Score())
    assert [plan.sizes for plan in plans.values()] == [[50], [50]]


def test_few_structures_take_two_rounds_of_more_plans():
    plans = {"recipe": Fixed(1.0, n=50), "other": Fixed(2.0, n=50), "third": Fixed(3.0, n=50)}
    with pytest.warns(soapkrr.DataWarning):
        best_fit(plans, FRAMES[:50], LABELS[:50], Score())
    assert [plan.sizes for plan in plans.values()] == [[31, 50], [31], [31]]


def test_a_part_has_every_species_and_label_whatever_the_order():
    frames = FRAMES[:98] + [lennard_jones(build("molecule"), "energy"), lennard_jones(build("alloy"), "forces")]
    part = subset(frames, read_labels(frames))
    assert {z for atoms in part for z in atoms.numbers} == {z for atoms in frames for z in atoms.numbers}
    assert 40 <= len(part) <= 42
    backwards = subset(frames[::-1], read_labels(frames[::-1]))
    assert [id(atoms) for atoms in backwards[::-1]] == [id(atoms) for atoms in part]


def test_scores_are_weighted_geometric_means():
    errors = {"energy": 2.0, "forces": 8.0}
    assert Score()(errors) == pytest.approx(4.0)
    assert Score.of("energy")(errors) == pytest.approx(2.0)
    assert Score.of({"energy": 1, "forces": 3})(errors) == pytest.approx(2 ** (0.25 * 1 + 0.75 * 3))
    assert np.isnan(Score.of("energy")({"forces": 1.0}))
    assert set(SCORES) == {"balanced", "energy", "forces"}


@pytest.mark.parametrize("score", ["best", {}, {"energies": 1}, {"energy": -1}, {"energy": 0}, {"energy": np.nan}, 3], ids=str)
def test_scores_that_cannot_be(score):
    with pytest.raises(InputError, match="`score`"):
        soapkrr.fit(crystals(3), score=score)


def test_a_score_of_what_has_no_labels():
    with pytest.raises(InputError, match="`score` counts errors of forces, of which the structures have no labels"):
        soapkrr.fit([lennard_jones(atoms, "energy") for atoms in crystals(4)], score="forces")


def alloys(n):
    """Lennard-Jones crystals of two species that do not differ: what is learnt of one is true of the other."""
    frames = crystals(n)
    for k, atoms in enumerate(frames):
        numbers = np.where(np.random.default_rng(k).random(len(atoms)) < 0.5, 18, 36)
        atoms.calc.atoms.numbers = atoms.numbers = numbers
    return frames


def test_species_that_are_alike_share_what_is_learnt():
    frames = alloys(12)
    plan = auto.choose(frames)
    assert set(plan.variants) and not auto.choose(crystals(12)).variants
    assert not auto.choose(frames, settings=auto.Settings(search=False)).variants
    model = soapkrr.fit(frames)
    choices = {c.name: c for c in model.choices_}
    alone = auto.choose(frames, settings=auto.Settings(search=False)).fit(frames)
    assert isinstance(model.descriptor, CompressedSOAP) and choices["variant"].value in plan.variants
    assert search.Score()(model.left_out_errors_) < search.Score()(alone.left_out_errors_)
    assert choices["left out, forces"].value == pytest.approx(model.left_out_errors_["forces"], rel=5e-3)


def test_errors_of_left_out_structures_survive_a_file(tmp_path):
    model = soapkrr.fit(crystals(6))
    model.save(tmp_path / "m.soapkrr")
    assert soapkrr.load(tmp_path / "m.soapkrr").left_out_errors_ == model.left_out_errors_ != {}
