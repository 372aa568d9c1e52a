"""Weights learnt on parts of the structures, judged by the others, which they have not seen.

Errors of left-out structures under weights that were learnt from these very structures are far too small. Here the structures are divided
into folds; for each one weights are learnt from all others, and its labels are predicted by a process with these weights of all structures
but their own. Number of steps and noise levels are those of least errors so measured, for the errors that are told and learnt from those of
the other folds; the weights that are kept are the geometric mean over the folds, to which every structure has contributed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.learning.ascent import AVERAGED
from soapkrr.learning.objective import Point
from soapkrr.learning.weights import LEVELS, Task, learning_data, task_of, weighted_parts
from soapkrr.progress import track
from soapkrr.regression.evidence import BOUNDS
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas

#: Parts of the structures.
FOLDS = 3

#: Steps of each ascent, and the parts of them after which it may be stopped.
STEPS, STOPS = 23, (0.4, 0.7, 1.0)

#: Labelled structures below which parts of them say too little of weights.
FEWEST = 2 * FOLDS

#: Errors by kind → what is to be small.
Score = Callable[[Mapping[str, float]], float]


@dataclass(frozen=True, eq=False)
class FoldedWeights:
    """Models with weights, not fitted.

    Attributes
    ----------
    model : with the geometric mean of the weights and signals of ``models``.
    models : for each fold one whose weights, steps and noise levels were learnt and chosen without it.
    fold : (n_frames,) the fold of each structure, any one of those that no weights were learnt from.
    steps : of each ascent, up to where it was stopped.  structures : learnt from or judged by, altogether.
    """

    model: Potential
    models: tuple[Potential, ...]
    fold: np.ndarray
    steps: int
    structures: int


def folded_weights(
    model: Potential, frames: list[Atoms], score: Score, *, seed: int = 0, steps: int = STEPS, progress: bool = False
) -> FoldedWeights | None:
    """Weights learnt on folds (see the module); None where learning diverged.

    Parameters
    ----------
    model : as in `weights.learnt`; learning starts from its noise and signal.  frames : structures with labels.
    score : of {kind: root mean square error}, what is to be small.
    seed : draws the folds and, of many structures, those that are used.  steps : of each ascent at most.  progress : draw a bar.

    Raises
    ------
    InputError : the model has no channels that can be weighted, or fewer than six structures have labels.
    """
    parts, frames = weighted_parts(model), as_frames(frames)
    with serial_blas():
        data = learning_data(model, frames, seed, FEWEST)
        n = len(data.frames)
        held = np.empty(n, dtype=int)
        held[np.random.default_rng(seed).permutation(n)] = np.arange(n) % FOLDS
        whole, bar = task_of(model, parts, data), track(range(FOLDS * steps), FOLDS * steps, "learning weights", progress)
        tasks = (task_of(model, parts, data.some(np.flatnonzero(held != f).tolist())) for f in range(FOLDS))
        ways = [_way(task, steps, bar) for task in tasks]
        found = None if any(len(way) <= steps for way in ways) else _best(whole, ways, held, score)
    if found is None:
        return None
    best, honest = found
    fold = np.arange(len(frames)) % FOLDS
    fold[data.order] = held
    mean = _mean(best.points, best.points[0].noise)
    return FoldedWeights(whole.put(model, mean), tuple(whole.put(model, point) for point in honest), fold, best.steps, n)


def _way(task: Task, steps: int, bar: Iterator) -> list[Point]:
    """Start, points after each step, and the end; fewer where the ascent failed."""
    before = task.levelled(task.start)
    if before is None:
        raise InputError("no `noise` makes the covariance of the observations positive definite; raise it.")
    points = task.climb(before.point, steps, bar)
    return points if np.isfinite(points[-1].vector()).all() else []


@dataclass(frozen=True, eq=False)
class _Found:
    """Steps and points of the folds, with common noise levels, of least errors of the structures of some folds."""

    steps: int
    points: list[Point]
    value: float


def _best(whole: Task, ways: Sequence[list[Point]], held: np.ndarray, score: Score) -> tuple[_Found, list[Point]] | None:
    """What has the least errors of all structures; and for each fold its point where only those of the others choose, so that its own
    errors are those of structures that had no say. None where all covariances are singular."""
    steps = len(ways[0]) - 1
    stops = sorted({max(1, round(part * steps)) for part in STOPS})
    means = {stop: [_mean(way[max(1, stop - AVERAGED + 1) : stop + 1], way[-1].noise) for way in ways] for stop in stops[:-1]}
    judged = {stop: _Judged.at(whole, points, held, score) for stop, points in (means | {steps: [way[-1] for way in ways]}).items()}
    folds = range(len(ways))
    found = _of_least_errors(judged, tuple(folds))
    others = [_of_least_errors(judged, tuple(g for g in folds if g != f)) for f in folds]
    if not all(np.isfinite(one.value) for one in (found, *others)):
        return None
    return found, [one.points[f] for f, one in enumerate(others)]


def _of_least_errors(judged: Mapping[int, _Judged], folds: tuple[int, ...]) -> _Found:
    """Noise levels are those of least errors after all steps."""
    *earlier, last = sorted(judged)
    end = replace(judged[last], folds=folds).levelled()
    best = _Found(last, end.points, end.value)
    for stop in earlier:
        here = replace(judged[stop], folds=folds)._with_noise(end.points[0].noise)
        if (value := here.value) < best.value:
            best = _Found(stop, here.points, value)
    return best


def _mean(points: Sequence[Point], noise: np.ndarray) -> Point:
    mean = points[0].at(np.mean([point.vector() for point in points], axis=0))
    return replace(mean, noise=noise)


@dataclass(frozen=True, eq=False)
class _Judged:
    """Points of all folds with the prior covariances of all observations there; the errors of each fold are those at its own point."""

    whole: Task
    points: list[Point]
    priors: list[np.ndarray]
    held: np.ndarray
    score: Score
    folds: tuple[int, ...]
    known: dict[tuple[int, bytes], dict[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def at(cls, whole: Task, points: list[Point], held: np.ndarray, score: Score) -> _Judged:
        """With covariances; all folds count."""
        return cls(whole, points, [whole.objective.prior(point)[0] for point in points], held, score, tuple(range(len(points))))

    @property
    def value(self) -> float:
        """Score of the errors of the structures of ``folds``, which the weights of their point have not seen; infinite without any."""
        try:
            parts = [self._squares(f) for f in self.folds]
        except np.linalg.LinAlgError:
            return np.inf
        joined = {name: np.concatenate([part[name] for part in parts]) for name in self.whole.objective.names}
        value = self.score({name: float(np.sqrt(np.mean(part))) for name, part in joined.items()})
        return value if np.isfinite(value) else np.inf

    def _squares(self, f: int) -> dict[str, np.ndarray]:
        """Of a fold; kept by its noise levels, which several choices of folds try again."""
        key = (f, self.points[f].noise.tobytes())
        if key not in self.known:
            errors = self.whole.objective.density(self.priors[f], self.points[f]).errors
            self.known[key] = self.whole.squares(errors, np.flatnonzero(self.held == f))
        return self.known[key]

    def levelled(self) -> _Judged:
        """With the common noise levels of least `value`, kind after kind among `LEVELS` × the geometric mean of those of the points."""
        common = np.mean([point.noise for point in self.points], axis=0)
        best = self._with_noise(common)
        least = best.value
        for k in range(len(common)):
            start = best.points[0].noise
            for factor in LEVELS:
                noise = start.copy()
                noise[k] += np.log(factor)
                here = self._with_noise(noise)
                if (value := here.value) < least:
                    best, least = here, value
        return best

    def _with_noise(self, noise: np.ndarray) -> _Judged:
        noise = np.clip(noise, *np.log([BOUNDS[name] for name in self.whole.objective.names]).T)
        return replace(self, points=[replace(point, noise=noise) for point in self.points])
