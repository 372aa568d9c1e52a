"""What is fitted to some data and why: an estimator that is not fitted yet, how its noise is found, and variants of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.automatic.by_type import pays, ratios_text, type_ratios, types_of, with_ratios
from soapkrr.automatic.learnt import weightable, with_learnt_weights
from soapkrr.automatic.search import best_fit
from soapkrr.baselines import left_out_text
from soapkrr.choices import Choice, Choices, calibration_row, left_out_rows
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.projection import Compressed
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.summary import NOISE_UNITS
from soapkrr.labels import Observations, read_labels
from soapkrr.regression.grouping import FEWEST
from soapkrr.regression.score import Score
from soapkrr.repulsion import START, repulsion

#: Memory that a fit and its predictions may take.
MEMORY_LIMIT = "8GB"

#: What a plan is called that is none of its variants.
RECIPE = "plain SOAP"

#: How noise levels were found that come with learnt weights.
FOLDED = "left-out folds"

#: Sparse points of a plan for a part of the data, at least, where the whole has as many.
POINTS = 300


@dataclass(frozen=True)
class Settings:
    """What a fit is given and does not choose: parameters of the estimators, whether atoms repel each other below the distances of the
    data, what is to be small (`Score.of`), whether variants of the recipe are tried, and what is learnt (`learnt.LEARN`; False: nothing,
    None: what suits the data).
    """

    observations: Observations | None = None
    baseline: object = None
    device: str = "cpu"
    threads: int | None = None
    memory_limit: int | str | None = MEMORY_LIMIT
    repulsion: bool = True
    score: str | Mapping[str, float] = "balanced"
    search: bool = True
    learn: str | bool | None = None

    @property
    def parameters(self) -> dict:
        """As arguments of an estimator."""
        return {name: value for name, value in vars(self).items() if name not in ("repulsion", "score", "search", "learn")}


@dataclass(frozen=True)
class Plan:
    """An estimator chosen for some data, not fitted, and why it is this one.

    Attributes
    ----------
    model : the estimator.  choices : what was chosen and why.
    way : ``optimize`` of its fit: ``"evidence"``, ``"cross-validation"``, or False where noise and signal are given.
    found : the way by which those that it is given were found.
    levels, signal : {kind: σ} and δ that were given, and take the place of what the fit found.
    walls : whether atoms repel each other below the distances of the data.
    variants : other plans for the data, by what is different in them: that with the smallest ``score`` on structures left out is taken.
    learn : whether channel weights of the best one are learnt.
    """

    model: Potential
    choices: tuple[Choice, ...]
    way: str | bool
    levels: Mapping[str, float] = field(default_factory=dict)
    signal: float | None = None
    walls: bool = True
    variants: Mapping[str, Plan] = field(default_factory=dict)
    score: Score = field(default_factory=Score)
    found: str = ""
    learn: bool = False

    def with_descriptor(self, descriptor: Descriptor) -> Plan:
        """The same with another descriptor, of which an exact model of a large set takes principal components as before."""
        present = self.model.descriptor
        if isinstance(present, Compressed) and descriptor.n_features > present.n_features:
            descriptor = present.with_params(descriptor=descriptor)
        return replace(self, model=clone(self.model).set_params(descriptor=descriptor))

    def with_model(self, model: Potential) -> Plan:
        """The same with another estimator; ``choices`` have its parameters."""
        present = model.get_params()
        own = {
            c.name: present.get(c.name, present.get(f"descriptor__{c.name}", present.get(f"kernel__{c.name}", c.value)))
            for c in self.choices
        }
        same = {
            c.name: own[c.name] == c.value or isinstance(c.value, (list, tuple)) and list(own[c.name]) == list(c.value)
            for c in self.choices
        }
        choices = [c if same[c.name] else replace(c, value=own[c.name], reason="of this variant") for c in self.choices]
        return replace(self, model=model, choices=tuple(choices))

    def fit(self, frames: list[Atoms], progress: bool = False, check: bool = True) -> Potential:
        """A fitted copy of the model with ``choices_``; levels that were given stand beside those that the fit found. ``check``: labels."""
        if self.learn and len(frames) >= FEWEST:
            return self._with_weights(replace(self, learn=False).fit(frames, progress, check), frames, progress)
        if self.variants and len(frames) >= FEWEST:
            plans = {RECIPE: replace(self, variants={}), **self.variants}
            labels = read_labels(frames, self.model.observations)
            return best_fit(plans, frames, labels, self.score, progress, check)
        again = bool(self.way) and (bool(self.levels) or self.signal is not None)
        model = clone(self.model).learn(
            frames, self.way, progress, check=check and not again, calibrate=not again, stated=self.levels, score=self.score
        )
        if again:
            model.set_params(noise={**model.noise_, **self.levels}, signal=model.signals_[0] if self.signal is None else self.signal)
            model.learn(frames, False, progress, check=check, calibrate=True, stated=self.levels)
        found = [*self._found(model), calibration_row(model.calibration_), *self._walled(model, frames)]
        model.choices_ = Choices([*self.choices, *found])
        return model

    def _walled(self, model: Potential, frames: list[Atoms]) -> list[Choice]:
        """Atoms closer than any in the data made to repel, and what is said of it."""
        if not self.walls or (wall := repulsion(model, frames)) is None:
            return []
        model.put_on_top(wall)
        return [Choice("repulsion", wall.distances, f"Å, below {START:g} × the shortest distances of the data")]

    def _with_weights(self, plain: Potential, frames: list[Atoms], progress: bool) -> Potential:
        """With learnt weights where they help; rows of what the fit found are those of the model that is kept."""
        recipe = plain if weightable(plain) else replace(self, learn=False, variants={}).fit(frames, check=False)
        model, weights = with_learnt_weights(plain, recipe, self, frames, progress)
        if model is plain:
            plain.choices_ = Choices([*plain.choices_, weights])
            return plain
        new = {
            choice.name: choice
            for choice in (*self._found(model, FOLDED), calibration_row(model.calibration_), *self._walled(model, frames))
        }
        choices = [new.get(choice.name, choice) for choice in recipe.choices_]
        if recipe is not plain:
            best = next(choice.value for choice in plain.choices_ if choice.name == "variant")
            choices.append(Choice("variant", RECIPE, f"with learnt weights; before, {best} had the smallest errors of left-out structures"))
        model.choices_ = Choices([*choices, weights])
        return model

    def smaller(self, part: float) -> Plan:
        """The same for this part of the structures: with as many sparse points for each of them."""
        n_sparse = getattr(self.model, "n_sparse", None)
        if not isinstance(n_sparse, int):
            return self
        return replace(self, model=clone(self.model).set_params(n_sparse=max(min(n_sparse, POINTS), round(part * n_sparse))))

    def refined(self, model: Potential, frames: list[Atoms], part: float) -> Plan:
        """See `search.Fits`: with noise by configuration type where that pays, and nothing was given that says it."""
        given = self.model.observations or Observations()
        if not self.way or self.levels or self.signal is not None or given.config_noise or given.balance:
            return self
        types = types_of(frames, given)
        ratios = type_ratios(model, frames, types)
        if not ratios:
            return self
        plan = replace(self, model=with_ratios(self.model, model, ratios))
        try:
            with warnings.catch_warnings():  # of a model that nobody keeps
                warnings.simplefilter("ignore")
                other = plan.smaller(part).fit(frames, check=False)
        except (InputError, ArithmeticError, np.linalg.LinAlgError) as error:
            return replace(self, choices=(*self.choices, Choice("noise by type", "none", f"not found: {error}")))
        if not pays(self.score, types, other, model):
            return replace(self, choices=(*self.choices, Choice("noise by type", "none", "some type or kind would pay for others")))
        said = Choice("noise by type", ratios_text(ratios), "the noise of all, from errors of left-out structures")
        return replace(plan, choices=(*self.choices, said))

    def _found(self, model: Potential, way: str | None = None) -> list[Choice]:
        way, levels = way or self.way or self.found or "default", self.levels
        found = [
            Choice(f"noise, {kind}", float(f"{model.noise_[kind]:.3g}"), f"{unit}, {'given' if kind in levels else way}")
            for kind, unit in NOISE_UNITS.items()
            if model.n_observations_.get(kind)
        ]
        if model.front_ is not None and len(model.front_.errors) > 1:
            over = {kind: f"{ratio:.2f} ×" for kind, ratio in model.front_.over_least.items()}
            found.append(Choice("noise trades", over, "error of left-out folds beside the least that noise for this kind alone gives"))
        source = "given" if self.signal is not None else "learnt" if way == FOLDED else "evidence" if self.way or self.found else "default"
        found.append(Choice("signal", float(f"{model.signals_[0]:.3g}"), f"eV, {source}"))
        if without := model.without_prior_mean_:
            found.append(Choice("without labels", len(without), f"structures that have no prior mean: {left_out_text(without)}"))
        return [*found, *left_out_rows(model.left_out_errors_)]
