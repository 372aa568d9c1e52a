"""The best of several plans for the same data, by their errors on structures that they leave out.

All plans are fitted to a part of the structures, the best two to all of them; of few structures, all plans to all of them. Errors are those
of left-out structures with noise and signals as each fit found them; plans are compared by the weighted geometric mean of the errors of
energies, forces and stresses.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

#: A plan is better than one listed before it if its error is smaller by this part; by so much, there is no second of the last round.
MARGIN, CLEAR = 0.01, 0.15


class Fits(Protocol):
    """What can be fitted to data, such as a `plans.Plan`."""

    def fit(self, frames: list[Atoms], progress: bool = False, check: bool = True) -> Potential:
        """A fitted model with ``left_out_errors_`` and ``choices_``."""
        ...

    def smaller(self, part: float) -> Fits:
        """The same for this part of the structures."""
        ...


@dataclass(frozen=True, eq=False)
class Trial:
    """One plan, fitted to some structures: the model and its score; or why there is none."""

    name: str
    model: Potential | None
    score: float
    reason: str = ""


def best_fit(
    plans: Mapping[str, Fits], frames: list[Atoms], labels: Sequence[Labels], score: Score, progress: bool = False, check: bool = True
) -> Potential:
    """The model of the plan with the smallest score on left-out structures, fitted to all; ``choices_`` end with what lost.

    Parameters
    ----------
    plans : two or more, by name; the first is kept unless another one is better by `MARGIN`. One that fails is out, and said to be.
    check : whether the final fits check labels.

    Raises
    ------
    InputError : the first plan fails, and no other one does better.
    """
    few = len(frames) <= (ONE_ROUND if len(plans) <= 2 else OF_MORE)
    first = {} if few else _tried({n: plan.smaller(_part(frames)) for n, plan in plans.items()}, subset(frames, labels), score, progress)
    finalists = _finalists(list(first.values())) if first else list(plans)
    last = _tried({name: plans[name] for name in finalists}, frames, score, progress, check=check)
    winner = _winner(list(last.values()))
    model = winner.model
    if model is None:
        raise InputError(winner.reason)
    lost = {name: _lost(name, first, last, winner) for name in plans if name != winner.name}
    variant = Choice("variant", winner.name, "smallest errors of left-out structures")
    tried = Choice("tried", lost, "error of left-out structures beside that of the variant")
    model.choices_ = Choices([*model.choices_, variant, tried])
    return model


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


def _tried(plans: Mapping[str, Fits], frames: list[Atoms], score: Score, progress: bool, check: bool = False) -> dict[str, Trial]:
    """Every plan fitted; warnings are those of the best one."""
    trials, caught = {}, {}
    for name in track(list(plans), len(plans), f"{len(plans)} variants, {len(frames)} structures", progress):
        with warnings.catch_warnings(record=True) as caught[name]:
            warnings.simplefilter("always")  # those of a plan that loses are no errors either
            trials[name] = _trial(name, plans[name], frames, score, check)
        logger.info("%s on %d structures: %s", name, len(frames), trials[name].reason or trials[name].score)
    for warning in caught[_winner(list(trials.values())).name] if check else ():
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return trials


def _trial(name: str, plan: Fits, frames: list[Atoms], score: Score, check: bool) -> Trial:
    try:
        model = plan.fit(frames, check=check)
    except (InputError, ArithmeticError, np.linalg.LinAlgError) as error:
        return Trial(name, None, np.inf, str(error))
    value = score(model.left_out_errors_)
    return Trial(name, model, value if np.isfinite(value) else np.inf)


def _winner(trials: list[Trial]) -> Trial:
    """The first one, unless another is better by `MARGIN`."""
    least = min(trials, key=lambda trial: (trial.score, trial.model is None))
    first = trials[0]
    return first if first.model is not None and first.score * (1 - MARGIN) <= least.score else least


def _finalists(trials: list[Trial]) -> list[str]:
    """Names of the best two, in the order of the trials; of one where the second is far behind."""
    ranked = sorted((t for t in trials if t.model is not None), key=lambda trial: trial.score)[:2] or trials[:1]
    if len(ranked) == 2 and not ranked[1].score * (1 - CLEAR) <= ranked[0].score:
        ranked = ranked[:1]
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
