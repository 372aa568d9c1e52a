"""Learnt channel weights in a fit without knobs: kept where they do better on structures that they were not learnt from.

Every error that is compared, shown, or calibrated on is that of a label predicted without its own structure, by weights that were learnt
without it too: those of the final weights, which know all structures, would be far too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.automatic.search import MARGIN, WORSE
from soapkrr.baselines import CoreRepulsion
from soapkrr.choices import Choice
from soapkrr.errors import ConditionWarning, InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.labels import KINDS, Labels
from soapkrr.learning.folds import FoldedWeights, folded_weights
from soapkrr.learning.weights import MOST, weighted_parts
from soapkrr.regression.leave_out import UNITS, LeaveOut
from soapkrr.regression.score import Score

#: What can be learnt, as `soapkrr.fit` takes it.
LEARN = ("weights",)

#: Structures of which weights are learnt unasked: so many at least that a third of them says something, and at most what takes two minutes.
UNASKED = (20, 60)


class Planned(Protocol):
    """What of a `plans.Plan` counts here."""

    @property
    def way(self) -> str | bool: ...

    @property
    def levels(self) -> Mapping[str, float]: ...

    @property
    def signal(self) -> float | None: ...

    @property
    def score(self) -> Score: ...


def check_learn(learn: str | bool | None) -> None:
    """Raise `InputError` unless it is one of `LEARN`, False, or None."""
    if not (learn is None or learn is False or (isinstance(learn, str) and learn in LEARN)):
        raise InputError(f"`learn` must be one of {list(LEARN)}, False, or None (where it suits the data), received {learn!r}.")


def suits(model: Potential, frames: list[Atoms], labels: list[Labels]) -> bool:
    """Whether weights are learnt unasked: for an exact process of few molecules with forces.

    There a plain fit takes seconds and labels cost far more than two minutes; for solids and larger sets a fit should take no more than
    three times a plain one.
    """
    known = [label for label in labels if not label.empty]
    n = sum(int(np.isfinite(value).sum()) for label in known for value in (label.energy, label.forces) if value is not None)
    molecular = not any(atoms.pbc.any() for atoms in frames) and any(label.has("forces") for label in known)
    return isinstance(model, GaussianProcess) and molecular and UNASKED[0] <= len(known) <= UNASKED[1] and n <= MOST


def weightable(model: Potential) -> bool:
    """Whether channels of the model's descriptor can have weights."""
    try:
        weighted_parts(model)
    except InputError:
        return False
    return True


def with_learnt_weights(
    model: Potential, recipe: Potential, plan: Planned, frames: list[Atoms], progress: bool = False
) -> tuple[Potential, Choice]:
    """The recipe with learnt weights, fitted and calibrated, or the model where they do not help; and what is to be said of that.

    Parameters
    ----------
    model, recipe : fitted to ``frames`` by ``plan``; what is to be done better, and what weights are learnt for; may be the same.
    """
    bare = _bare(recipe)
    try:
        found = folded_weights(bare, frames, plan.score, progress=progress)
        with warnings.catch_warnings():  # of models that nobody keeps
            warnings.simplefilter("ignore", ConditionWarning)
            left = None if found is None else _left_out(found, plan, frames)
    except (InputError, np.linalg.LinAlgError) as error:
        return model, Choice("weights", "none", f"not learnt: {error}")
    if found is None or left is None:
        return model, Choice("weights", "none", "warning: learning diverged, the model is the one without")
    before, after = model.left_out_errors_, left.errors()
    of = "by weights learnt from other structures" if found.structures == len(frames) else "by weights learnt from part of the structures"
    told = f"{found.steps} steps; left out, {of}: {_told(before, after)}"
    if not plan.score(after) < (1 - MARGIN) * plan.score(before) or _traded(before, after, plan.score):
        return model, Choice("weights", "none", f"learnt ones do not help: {told}")
    final = _fitted(found.model, plan, frames, progress)
    final.calibrate_on(left, frames, plan.levels)
    final.left_out_errors_, final.left_out_squares_, final.suspects_ = after, left.squares(), model.suspects_
    return final, Choice("weights", "learnt", told)


def _bare(model: Potential) -> Potential:
    """The model before its fit, with the noise and signal of that and without walls."""
    given: dict[str, Any] = dict(model.fitted_parameters_)
    if isinstance(baseline := given["baseline"], list) and isinstance(baseline[-1], CoreRepulsion):
        given["baseline"] = baseline[:-1] or None
    return type(model)(**given | {"noise": dict(model.noise_), "signal": model.signals_[0]})


def _fitted(model: Potential, plan: Planned, frames: list[Atoms], progress: bool = False) -> Potential:
    """Fitted with the noise of left-out folds, a sparse one, whose folds were those of an exact process, by its own way."""
    copy: Any = clone(model)
    given = {} if plan.signal is None else {"signal": plan.signal}
    copy.set_params(noise={**model._noise(), **plan.levels}, **given)
    exact = isinstance(model, GaussianProcess)
    return copy.learn(frames, False if exact or given or plan.levels else plan.way, progress, check=False, score=plan.score)


def _left_out(found: FoldedWeights, plan: Planned, frames: list[Atoms]) -> LeaveOut:
    """Every label as predicted without its structure, by weights that were learnt without its fold."""
    parts = []
    for f, model in enumerate(found.models):
        left = _fitted(model, plan, frames).leave_out(frames)
        parts.append(left.some(found.fold[left.structure] == f))
    joined = replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in LeaveOut.ARRAYS})
    return joined.some(np.lexsort((joined.component, joined.structure, joined.kind)))


def _traded(before: Mapping[str, float], after: Mapping[str, float], score: Score) -> bool:
    """Whether errors of a kind that counts become larger, for those of another one."""
    counted = [kind for kind, w in score.weights.items() if w > 0 and kind in before]
    return any(after[kind] > WORSE * before[kind] for kind in counted)


def _told(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    parts = [(kind, *UNITS[kind]) for kind in KINDS if kind in before and kind in after]
    return ", ".join(f"{kind} {f * before[kind]:.3g} → {f * after[kind]:.3g} {unit}" for kind, unit, f in parts)
