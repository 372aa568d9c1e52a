"""Labels that a fit cannot believe: single ones far from what the others say, and what is odd about the data as a whole."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from soapkrr import linear
from soapkrr.errors import DataWarning
from soapkrr.labels import KINDS
from soapkrr.prediction import Prediction
from soapkrr.regression.causes import RATIOS, likely_cause, ratio_of
from soapkrr.regression.data import TrainingData
from soapkrr.regression.evidence import BOUNDS
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.fit import Fit
from soapkrr.regression.residuals import Residuals, influence, left_out, looked_at, spread

#: Standard deviations beyond which a label is not believed; few structures know their own standard deviation less well.
THRESHOLD, OF_FEW = 10.0, 20.0

#: Structures with a label of a kind from which residuals have a scale, and from which training residuals alone show every bad one.
FEWEST, MANY = 10, 40

#: Part of a force or stress component that an error must exceed: models err most where forces are large.
PART = 0.25

#: E-folds of a factor that is told from what a model makes of labels that it fits badly; those between are found by `soapkrr.check`.
UNLIKE = 1.0

#: Stresses above are rarer than wrong units, eV/Å³.
LARGE_STRESS = 1.0

#: Part of the squares of labels that is left in the residuals of a badly fitted kind; labels of one kind times observations up to which
#: they are left out together.
BADLY_FITTED, AT_ONCE = 0.05, 1_000_000

#: Names in the message; the others are in `suspects_`.
NAMED = 5

UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True)
class Suspect:
    """Labels of one kind of one structure that the others contradict.

    Attributes
    ----------
    frame : index in the list that was fitted.  kind : ``"energy"``, ``"forces"`` or ``"stress"``.
    size : largest error of a component as predicted from the other labels, in standard deviations.
    given, expected : that component, and what the other labels predict for it: eV, eV/Å, eV/Å³.
    cause : what may have happened.
    """

    frame: int
    kind: str
    size: float
    given: float
    expected: float
    cause: str

    def __str__(self) -> str:
        unit = UNITS[self.kind]
        return (
            f"frame {self.frame}: {self.kind} {self.given:.6g} {unit}, expected {self.expected:.6g} {unit}, {self.size:.0f} standard "
            f"deviations away ({self.cause})"
        )


def check_data(data: TrainingData, fit: Fit, prediction: Prediction, optimized: bool) -> list[Suspect]:
    """Labels that are not believed, said in one `DataWarning` together with what is odd about the data as a whole.

    ``prediction`` : of the structures of the data, without prior means.
    """
    with np.errstate(all="ignore"):
        residuals = Residuals.of(data, prediction, fit.noise)
        found = suspects(data, fit, residuals)
    remarks = [
        *_named(found),
        *_whole_kinds(data, fit, residuals),
        *_large_stresses(data),
        *_contradicting(data, residuals),
        *(_at_bounds(fit) if optimized else ()),
    ]
    if remarks:
        warnings.warn("the labels are suspicious. " + " ".join(remarks), DataWarning, stacklevel=4)
    return found


def suspects(data: TrainingData, fit: Fit, residuals: Residuals) -> list[Suspect]:
    """Labels more than `THRESHOLD` standard deviations from what the others predict, worst first, one for each structure and kind."""
    if not any(_worth_a_look(residuals.some(residuals.kind == k)) for k in range(len(KINDS))):
        return []
    chosen, others = looked_at(residuals)
    some = residuals.some(chosen)
    z, errors = left_out(some.scaled, influence(fit.process, data, some), THRESHOLD)
    found = []
    for k in range(len(KINDS)):
        mine = some.kind == k
        n = len(np.unique(residuals.structure[residuals.kind == k]))
        if n >= FEWEST:
            # Many training residuals have a scale of their own, which one bad label does not spoil.
            everywhere = spread(residuals.scaled[residuals.kind == k], n) if n >= MANY else 0.0
            scale = max(1.0, spread(z[mine & others], n), everywhere)
            limit = scale * (THRESHOLD if n >= MANY else OF_FEW)
            for s in np.unique(some.structure[mine & (np.abs(z) > limit) & _large(some, errors)]):
                here = np.flatnonzero(mine & (some.structure == s))
                found.append(_suspect(int(data.order[s]), KINDS[k], some.some(here), z[here] / scale, errors[here]))
    return sorted(found, key=lambda suspect: -suspect.size)


def _worth_a_look(residuals: Residuals) -> bool:
    """Whether residuals of one kind are too few to show a bad label by themselves, or some is far from the others."""
    n = len(np.unique(residuals.structure))
    if n < FEWEST:
        return False
    t = residuals.scaled
    return n < MANY or bool(((np.abs(t) > THRESHOLD * spread(t, n)) & _large(residuals, t)).any())


def _large(labels: Residuals, errors: np.ndarray) -> np.ndarray:
    """Where errors, in units of the noise, are more than a `PART` of a force or stress component; everywhere for energies."""
    errors = errors * labels.sigma
    size = np.maximum(np.abs(labels.given), np.abs(labels.given - errors))
    return (labels.kind == 0) | (np.abs(errors) > PART * size)


def _suspect(frame: int, kind: str, labels: Residuals, z: np.ndarray, errors: np.ndarray) -> Suspect:
    expected = labels.given - errors * labels.sigma
    worst = int(np.argmax(np.abs(z)))
    cause = likely_cause(kind, labels.given, expected)
    return Suspect(frame, kind, float(abs(z[worst])), float(labels.given[worst]), float(expected[worst]), cause)


def _named(found: list[Suspect]) -> list[str]:
    if not found:
        return []
    rest = f"; {len(found) - NAMED} more in `suspects_`" if len(found) > NAMED else ""
    return [f"{len(found)} that the others contradict: {'; '.join(map(str, found[:NAMED]))}{rest}."]


def _whole_kinds(data: TrainingData, fit: Fit, residuals: Residuals) -> list[str]:
    """Kinds whose labels are all a factor away from what the other kinds predict; looked at where some kind is badly fitted."""
    kinds = np.unique(residuals.kind)
    if len(kinds) < 2 or len(data.frames) < FEWEST or not any(_badly_fitted(residuals.some(residuals.kind == k)) for k in kinds[kinds > 0]):
        return []
    remarks = []
    for kind in (KINDS[k] for k in kinds[kinds > 0]):
        given, expected = _by_the_others(kind, data, fit, residuals)
        ratio = ratio_of(kind, given, expected)
        if ratio is not None and not abs(np.log(abs(ratio))) < UNLIKE * (ratio > 0):
            verb = "contradicts" if kind == "stress" else "contradict"
            remarks.append(f"The {kind} of all structures {verb} the other labels: {RATIOS[kind][ratio]}")
    return remarks


def _badly_fitted(residuals: Residuals) -> bool:
    left, all_of_it = residuals.scaled, residuals.given / residuals.sigma
    return bool(left @ left > BADLY_FITTED * (all_of_it @ all_of_it))


def _by_the_others(kind: str, data: TrainingData, fit: Fit, residuals: Residuals) -> tuple[np.ndarray, np.ndarray]:
    """Labels of one kind and what those of the other kinds predict for them, in rotated coordinates where there are design rows."""
    if fit.triangles:
        others = {other: triangle for other, triangle in fit.triangles.items() if other != kind}
        table = fit.triangles[kind]
        return table[:, -1], table[:, :-1] @ linear.solve(others, {other: fit.noise[other] for other in others}).mean
    mine = residuals.some(residuals.kind == KINDS.index(kind))
    if not isinstance(fit.process, ExactProcess) or len(mine.sigma) * len(fit.process.factor) > AT_ONCE:
        return mine.given, np.zeros_like(mine.given)
    return mine.given, mine.given - mine.sigma * np.linalg.solve(influence(fit.process, data, mine), mine.scaled)


def _large_stresses(data: TrainingData) -> list[str]:
    large = [int(data.order[s]) for s, label in enumerate(data.labels) if label.has("stress") and np.abs(label.stress).max() > LARGE_STRESS]
    if not large:
        return []
    return [f"Stresses above {LARGE_STRESS:g} eV/Å³ (160 GPa) in {_frames(large)}: are they in GPa or kbar?"]


def _contradicting(data: TrainingData, residuals: Residuals) -> list[str]:
    """Structures that occur twice with labels farther apart than `THRESHOLD` times their noise."""
    seen: dict[tuple, int] = {}
    apart = []
    for s, atoms in enumerate(data.frames):
        content = tuple(np.ascontiguousarray(a).tobytes() for a in (atoms.numbers, atoms.cell.array, atoms.pbc, atoms.positions))
        first = seen.setdefault(content, s)
        if first != s and _differ(residuals.some(residuals.structure == first), residuals.some(residuals.structure == s)):
            apart.append(tuple(sorted((int(data.order[first]), int(data.order[s])))))
    if not apart:
        return []
    pairs = ", ".join(f"{a} and {b}" for a, b in sorted(apart)[:NAMED])
    return [f"The same structure has different labels in frames {pairs}{' and others' if len(apart) > NAMED else ''}."]


def _differ(one: Residuals, other: Residuals) -> bool:
    """Whether labels that both have are apart."""
    a, b = (dict(zip(zip(r.kind, r.component, strict=True), zip(r.given, r.sigma, strict=True), strict=True)) for r in (one, other))
    return any(abs(a[key][0] - b[key][0]) > THRESHOLD * np.hypot(a[key][1], b[key][1]) for key in a.keys() & b.keys())


def _at_bounds(fit: Fit) -> list[str]:
    """Noise levels that the optimiser would have raised further."""
    stuck = [kind for kind in fit.counts if fit.noise[kind] >= 0.999 * BOUNDS[kind][1]]
    return [f"The noise of the {kind} is at its upper bound, {BOUNDS[kind][1]:g}: the model cannot express them." for kind in stuck]


def _frames(indices: list[int]) -> str:
    indices = sorted(indices)
    return f"frame{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices[:NAMED]))}{' and others' if len(indices) > NAMED else ''}"
