"""The best of several plans for the same data, by their errors on structures that they leave out.

All plans are fitted to a part of the structures, the best two to all of them; of few structures, all plans to all of them. Errors are those
of left-out structures with noise and signals as each fit found them; plans are compared by the weighted geometric mean of the errors of
energies, forces and stresses.

The first plan, the recipe, is the one that has been right for most data. Another one takes its place where it is better by more than the
standard error of the difference, structure by structure: few structures often have most of the squared errors, and which plan is lucky
there says little of others. A plan that does not pass on a part of the structures is not fitted to all of them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from ase import Atoms

from soapkrr.choices import Choice, Choices
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.labels import KINDS, Labels
from soapkrr.progress import track
from soapkrr.regression.data import canonical_order
from soapkrr.regression.grouping import FEWEST
from soapkrr.regression.score import Score

logger = logging.getLogger(__name__)

#: Structures of the first round: this part of all, and at least so many, but no more than that part.
PART, AT_LEAST, AT_MOST = 0.25, 40, 0.625

#: Structures up to which there is one round, on all of them: of two plans, and of more.
ONE_ROUND, OF_MORE = 60, 24

#: A plan is better than the first one if its error is smaller by this part, and by so many standard errors of the difference.
MARGIN, SURE = 0.01, 1.0

#: Errors of no kind may grow by more than this factor, where something is tried to make others smaller.
WORSE = 1.02

#: Where the best is better than the next by this part, there is no second of the last round.
CLEAR = 0.15


class Fits(Protocol):
    """What can be fitted to data, such as a `plans.Plan`."""

    def fit(self, frames: list[Atoms], progress: bool = False, check: bool = True) -> Potential:
        """A fitted model with ``left_out_errors_`` and ``choices_``."""
        ...

    def smaller(self, part: float) -> Fits:
        """The same for this part of the structures."""
        ...

    def refined(self, model: Potential, frames: list[Atoms], part: float) -> Fits:
        """What may be better for all structures, by a fit of `smaller` to a part of them."""
        ...


@dataclass(frozen=True, eq=False)
class Trial:
    """One plan, fitted to some structures: the model and its score, or why there is none; and whether it is the first of all plans."""

    name: str
    model: Potential | None
    score: float
    reason: str = ""
    recipe: bool = False

    def better(self, first: Trial, score: Score) -> bool:
        """Whether it may take the place of the first one: of the recipe, only where that is sure."""
        if self.model is None or first.model is None:
            return self.model is not None
        if not self.score < (1 - MARGIN) * first.score:
            return False
        if not first.recipe:
            return True
        difference, error = score.difference(self.model.left_out_squares_, first.model.left_out_squares_)
        return not difference > -SURE * error


def best_fit(
    plans: Mapping[str, Fits], frames: list[Atoms], labels: Sequence[Labels], score: Score, progress: bool = False, check: bool = True
) -> Potential:
    """The model of the plan with the smallest score on left-out structures, fitted to all; ``choices_`` end with what lost.

    Parameters
    ----------
    plans : two or more, by name; the first is kept unless another one is `Trial.better`. One that fails is out, and said to be.
    check : whether the final fits check labels.

    Raises
    ------
    InputError : the first plan fails, and no other one does better.
    """
    few = len(frames) <= (ONE_ROUND if len(plans) <= 2 else OF_MORE)
    first, finalists = ({}, dict(plans)) if few else _first_round(plans, frames, labels, score, progress)
    last = _tried(finalists, next(iter(plans)), frames, score, progress, check=check)
    winner = _winner(list(last.values()), score)
    model = winner.model
    if model is None:
        raise InputError(winner.reason)
    lost = {name: _lost(name, first, last, winner) for name in plans if name != winner.name}
    why = "no other one has clearly smaller errors" if winner.name == next(iter(plans)) else "smallest errors"
    variant = Choice("variant", winner.name, f"{why} of left-out structures")
    tried = Choice("tried", lost, "error of left-out structures beside that of the variant")
    model.choices_ = Choices([*model.choices_, variant, tried])
    return model


def _first_round(plans: Mapping[str, Fits], frames, labels, score: Score, progress: bool) -> tuple[dict[str, Trial], dict[str, Fits]]:
    """Trials on a part of the structures, and the plans for all of them."""
    part, some, finalists = _part(frames), subset(frames, labels), {}
    first = _tried({name: plan.smaller(part) for name, plan in plans.items()}, next(iter(plans)), some, score, progress)
    for name in _finalists(list(first.values()), score):
        model = first[name].model
        finalists[name] = plans[name] if model is None else plans[name].refined(model, some, part)
    return first, finalists


def subset(frames: list[Atoms], labels: Sequence[Labels]) -> list[Atoms]:
    """A part of the structures that has every species and every kind of label, in the order given; whatever that order is."""
    order = canonical_order(frames, list(labels))
    order = order[np.random.default_rng(0).permutation(len(order))]
    n = round(_part(frames) * len(frames))
    chosen, known = list(order[:n]), _contents(frames, labels, order[:n])
    for s in order[n:]:
        new = _contents(frames, labels, [s]) - known
        if new:
            chosen.append(s)
            known |= new
    return [frames[s] for s in sorted(chosen)]


def _contents(frames, labels, indices) -> set:
    """Species of structures, kinds of their labels, and isolated atoms, by which energies are measured."""
    found: set = set()
    for s in indices:
        species = {int(z) for z in frames[s].numbers}
        alone = len(frames[s]) == 1 and not frames[s].pbc.any()
        found |= {("alone", *species)} if alone else species | {kind for kind in KINDS if labels[s].has(kind)}
    return found


def _part(frames: list[Atoms]) -> float:
    return max(PART, min(AT_MOST, AT_LEAST / len(frames)))


def _tried(plans: Mapping[str, Fits], recipe: str, frames, score: Score, progress: bool, check: bool = False) -> dict[str, Trial]:
    """Every plan fitted, one of them the ``recipe``; warnings are those of the best one."""
    trials, caught = {}, {}
    for name in track(list(plans), len(plans), f"{len(plans)} variants, {len(frames)} structures", progress):
        with warnings.catch_warnings(record=True) as caught[name]:
            warnings.simplefilter("always")  # those of a plan that loses are no errors either
            trials[name] = replace(_trial(name, plans[name], frames, score, check), recipe=name == recipe)
        logger.info("%s on %d structures: %s", name, len(frames), trials[name].reason or trials[name].score)
    for warning in caught[_winner(list(trials.values()), score).name] if check else ():
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return trials


def _trial(name: str, plan: Fits, frames: list[Atoms], score: Score, check: bool) -> Trial:
    try:
        model = plan.fit(frames, check=check)
    except (InputError, ArithmeticError, np.linalg.LinAlgError) as error:
        return Trial(name, None, np.inf, str(error))
    value = score(model.left_out_errors_)
    return Trial(name, model, value if np.isfinite(value) else np.inf)


def _winner(trials: list[Trial], score: Score) -> Trial:
    """The best of those that are better than the first one, or that."""
    return min([trials[0], *(t for t in trials[1:] if t.better(trials[0], score))], key=lambda trial: (trial.model is None, trial.score))


def _finalists(trials: list[Trial], score: Score) -> list[str]:
    """Names of the best two, in the order of the trials; of one where the second is far behind or the first one is the best."""
    best = _winner(trials, score)
    others = [t for t in trials if t is not best and t.model is not None and (t is trials[0] or t.better(trials[0], score))]
    second = [] if best is trials[0] else sorted(others, key=lambda trial: trial.score)[:1]
    ranked = [best, *(t for t in second if t.score * (1 - CLEAR) <= best.score)]
    return [trial.name for trial in trials if trial in ranked]


def _lost(name: str, first: Mapping[str, Trial], last: Mapping[str, Trial], winner: Trial) -> str:
    """By how much a plan lost, in the last round that both were in."""
    rounds = last if name in last else first
    trial = rounds[name]
    if trial.model is None:
        return f"failed: {trial.reason}"
    ratio = trial.score / rounds[winner.name].score
    return f"{ratio:.2f} ×" if np.isfinite(ratio) else "no labels to compare by"


def check_score(score: Score, labels: Sequence[Labels]) -> None:
    """Raise `InputError` where no kind that counts has a label."""
    kinds = [kind for kind, w in score.weights.items() if w > 0]
    if len(labels) >= FEWEST and not any(label.has(kind) for label in labels for kind in kinds):
        raise InputError(f"`score` counts errors of {' and '.join(kinds)}, of which the structures have no labels.")
