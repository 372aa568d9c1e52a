"""Channel weights of a SOAP learnt from how well structures are predicted without their own labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.projection import Compressed
from soapkrr.descriptors.soap import SOAP
from soapkrr.descriptors.weighting import WeightedSOAP
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.kernels import DotProduct
from soapkrr.labels import read_labels
from soapkrr.learning.ascent import ascend
from soapkrr.learning.objective import Objective, Point, Value, kinds_present
from soapkrr.learning.report import LearningReport
from soapkrr.progress import track
from soapkrr.regression.data import TrainingData, check_structures
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.grouping import FEWEST
from soapkrr.regression.targets import observation_targets, subset
from soapkrr.regression.terms import Term
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas

#: Steps of the ascent: errors of structures that nothing was learnt from fall until about here and stay.
STEPS = 36

#: Observations learnt from, those of structures drawn at random; each step costs their third power and, more, the square of the structures.
MOST = 1500

#: Length of a step in the logarithm of a weight.
RATE = 0.05

#: Standard deviation of the logarithm of a weight before anything is learnt: weights between a half and two.
PRIOR = 0.5

#: Factors of the noise levels that were given, among which left-out errors choose.
LEVELS = 10.0 ** np.arange(-1.5, 1.6, 0.5)


def learn_weights(model: Potential, frames: list[Atoms], *, seed: int = 0, steps: int = STEPS, progress: bool = True) -> Potential:
    """The unfitted model with a `WeightedSOAP` whose weights predict left-out structures best, or as it was where none predict better.

    `learnt` says how it is done, and returns a report too.
    """
    return learnt(model, frames, seed=seed, steps=steps, progress=progress)[0]


def learnt(
    model: Potential, frames: list[Atoms], *, seed: int = 0, steps: int = STEPS, progress: bool = True
) -> tuple[Potential, LearningReport]:
    """The unfitted model with learnt channel weights, and what learning did.

    Maximises Σ_i log p(y_i | y_−i) − |log w|²/(2 · 0.5²) over the weights w of a `WeightedSOAP` and the signal, for an exact Gaussian
    process with the model's kernel; y_i are all labels of structure i (`density.leave_out_density`). Noise levels are those that predict
    left-out labels best and are not learnt by density: joint densities reward what is known beforehand, as that forces sum to zero. Where
    there are more than `MOST` observations, a part of the structures is learnt from. The number of threads changes nothing.

    Parameters
    ----------
    model : with one term, of a `SOAP`, a `WeightedSOAP` (where learning starts) or a `Compressed` one, and a `DotProduct` kernel.
    frames : structures with labels.  seed : draws the structures.  steps : of the ascent.  progress : draw a bar on a terminal.

    Returns
    -------
    An unfitted copy of the model, and a `LearningReport`. Where left-out errors (product over kinds) do not fall it is a copy of the
    model given. Otherwise ``noise`` and ``signal`` are those that the weights were learnt with: evidence finds noise levels that are too
    small for them.

    Raises
    ------
    InputError : the model has no channels that can be weighted, or fewer than three structures have labels.
    """
    if not (isinstance(steps, (int, np.integer)) and steps >= 1):
        raise InputError(f"`steps` must be a positive integer, received {steps!r}.")
    term, soap, kernel = weighted_parts(model)
    with serial_blas():
        task = task_of(model, (term, soap, kernel), learning_data(model, as_frames(frames), seed))
        return task.result(model, *task.run(steps, progress))


class _Found(NamedTuple):
    """A point with its value."""

    point: Point
    value: Value


@dataclass(frozen=True, eq=False)
class Task:
    """Objective, start, and the sizes that errors of energies are divided by."""

    objective: Objective
    start: Point
    sizes: np.ndarray
    term: Term
    soap: WeightedSOAP

    def run(self, steps: int, progress: bool) -> tuple[_Found, _Found | None, int]:
        """What there is before and after, None where that is nothing, and the number of steps."""
        before = self.levelled(self.start)
        if before is None:
            raise InputError("no `noise` makes the covariance of the observations positive definite; raise it.")
        bar = track(range(steps), steps, "learning weights", progress)
        *way, end = self.climb(before.point, steps, bar)
        return before, self.levelled(end), len(way)

    def climb(self, point: Point, steps: int, bar: Iterator) -> list[Point]:
        """The points at which an ascent from ``point`` takes its steps, and where it ends."""
        n, points = point.weights.size, []
        moving = np.isin(np.arange(n + 2 + len(point.noise)), n, invert=True)
        moving[n + 2 :] = False

        def slope(x):
            try:
                value = self.objective(point.at(x), dtype=np.float32)
            except np.linalg.LinAlgError:
                return None
            points.append(point.at(x))
            next(bar, None)
            g = np.zeros_like(x) if value.gradient is None else value.gradient.vector()
            g[:n] -= x[:n] / PRIOR**2
            return np.where(moving, g, 0.0) if np.isfinite(g).all() else None

        end = ascend(slope, point.vector(), steps, RATE)
        return [*points, point.at(end)]

    def levelled(self, point: Point) -> _Found | None:
        """With the noise levels of smallest left-out errors; None where no covariance is finite and positive definite."""
        if not np.isfinite(point.vector()).all():
            return None
        found = self.objective.levelled(point, LEVELS, self.score)
        return None if found is None else _Found(*found)

    def score(self, value: Value) -> float:
        """Σ log RMSE over kinds."""
        return float(sum(np.log(e) for e in self.errors(value).values()))

    def errors(self, value: Value) -> dict[str, float]:
        """{kind: root mean square error of left-out labels}."""
        return {name: float(np.sqrt(np.mean(part))) for name, part in self.squares(value.errors).items()}

    def squares(self, errors: np.ndarray, structures: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """{kind: squared errors of its labels}, energies per atom; of some structures."""
        of = self.objective
        errors = errors / np.where(np.array(of.names)[of.kind] == "energy", self.sizes[of.structure], 1.0)
        some = np.ones(len(errors), dtype=bool) if structures is None else np.isin(of.structure, structures)
        return {name: errors[(of.kind == k) & some] ** 2 for k, name in enumerate(of.names)}

    def result(self, model: Potential, before: _Found, after: _Found | None, steps: int) -> tuple[Potential, LearningReport]:
        """The model with weights, or as it was, and the report."""
        end = after or before
        helped = self.score(end.value) < self.score(before.value)
        why = "weights do not predict left-out structures better" if after else "learning of weights diverged"
        errors, density = ([part(found.value) for found in (before, end)] for part in (self.errors, lambda value: value.density))
        report = LearningReport(
            *(helped, "weights learnt" if helped else why, *errors, *density, steps),
            structures=int(self.objective.structure[-1]) + 1,
        )
        return self.put(model, end.point if helped else None), report

    def put(self, model: Potential, point: Point | None) -> Potential:
        """An unfitted copy of the model with weights, noise and signal of a point, or as it is."""
        copy: Any = clone(model)
        if point is None:
            return copy
        weighted = replace(self.soap, weights=np.exp(point.weights))
        noise = {**model._noise(), **dict(zip(self.objective.names, np.exp(point.noise).tolist(), strict=True))}
        changes = {"descriptor": _put(self.term.descriptor, weighted), "noise": noise, "signal": float(np.exp(point.signal))}
        return copy.set_params(**changes)


def weighted_parts(model: Potential) -> tuple[Term, WeightedSOAP, DotProduct]:
    """The model's term and its SOAP, with weights."""
    terms = model._terms() if isinstance(model, Potential) else []
    soap = None
    if len(terms) == 1 and isinstance(model.descriptor, Descriptor):
        soap = terms[0].descriptor.descriptor if isinstance(terms[0].descriptor, Compressed) else terms[0].descriptor
    if soap is None or type(soap) not in (SOAP, WeightedSOAP):
        raise InputError(
            "`model` must be a potential of one SOAP, WeightedSOAP or Compressed SOAP, whose channels can be weighted, received "
            f"{type(model).__name__} of {[type(t.descriptor).__name__ for t in terms]}."
        )
    if "noise" not in model.get_params(deep=False):
        raise InputError(
            f"`model` must have noise levels for its weights to be learnt, as a GaussianProcess has; received {type(model).__name__}."
        )
    if not isinstance(terms[0].kernel, DotProduct):
        raise InputError(f"`model` must have a DotProduct kernel for its weights to be learnt, received {terms[0].kernel!r}.")
    soap = soap if isinstance(soap, WeightedSOAP) else WeightedSOAP(**soap.get_params(deep=False))
    return terms[0], soap, terms[0].kernel


def _put(descriptor: Descriptor, soap: WeightedSOAP) -> Descriptor:
    return replace(descriptor, descriptor=soap) if isinstance(descriptor, Compressed) else soap


def learning_data(model: Potential, frames: list[Atoms], seed: int, fewest: int = FEWEST) -> TrainingData:
    """The labelled structures that weights are learnt from, `MOST` observations of them; raises `InputError` where there are too few."""
    noise, term = model._noise(), model._terms()[0]
    check_structures(frames, [term.descriptor])
    data = subset(TrainingData.of(frames, read_labels(frames, model.observations, noise), model.baseline).labelled(), MOST, seed)
    if len(data.frames) < fewest:
        raise InputError(f"`frames`: weights are learnt from {fewest} labelled structures or more, received {len(data.frames)}.")
    return data


def task_of(model: Potential, parts: tuple[Term, WeightedSOAP, DotProduct], data: TrainingData) -> Task:
    """The task of learning weights of a model from some structures."""
    (term, soap, kernel), noise = parts, model._noise()
    structures = ObservedStructures.of(data).whole()
    y, sigma = observation_targets(data, noise)
    known = np.flatnonzero(np.isfinite(sigma))
    names, kind = kinds_present(structures.layout.kinds[known])
    structure = np.repeat(np.arange(len(data.frames)), structures.layout.lengths.sum(axis=1))[known]
    unit = sigma[known] / np.array([noise[name] for name in names])[kind]
    seen = structures.compositions(replace(soap, weights=None), model.threads)
    objective = Objective(seen, known, y[known], structure, kind, unit, names, model.threads)
    shape = (len(soap.species), soap.l_max + 1, soap.n_channels)
    start = objective.start(shape, kernel.zeta, term.signal, noise)
    weights = np.zeros(shape) if soap.weights is None else np.log(soap.weights)
    return Task(objective, replace(start, weights=weights), data.sizes, term, soap)
