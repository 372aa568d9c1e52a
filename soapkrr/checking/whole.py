"""Kinds of label that are wrong everywhere: energies, forces and stress of one potential must fit together.

A hypothesis is a unit or sign for each kind. Labels with it undone are fitted together, folds of structures left out: the loss is Σ_kind
log(error/size), with the 80 % quantile of |error| and of |label|, which no common factor changes. Only ratios of units show in it; which
of two kinds is wrong, and whether all are wrong alike, follows from how usual a mistake is, from total energies of all-electron
calculations (E ≈ Σ_i −0.769 Z^{7/3} + 0.5 Z² − 0.270 Z^{5/3} Hartree; Schwinger 1981, doi 10.1103/PhysRevA.24.2353), and from stiffness:
that of an atom against its own displacement, times d⁴ over ħ²/m with d the distance of neighbours, is 2 to 200 from argon to tungsten.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import solve

from soapkrr.checking.probe import Probe, ridge
from soapkrr.labels import KINDS
from soapkrr.regression.causes import ORDERS, RATIOS

#: Folds, and energy noise tried as parts of the energies' size; that of forces and stress is a tenth of theirs.
FOLDS, LEVELS, LEVEL = 3, (0.015, 0.07, 0.3), 0.1

#: Loss that a mistake must win to be believed, and one of the stress, where more is tried.
WON, STRESS_WON = 0.6, 0.9

#: Penalty of each wrong kind, of a unit that the total energies contradict, and of each e-fold outside of plausible stiffness.
WRONG, CONTRADICTED, IMPLAUSIBLE = 0.3, 5.0, 2.0

#: Scores above the best whose hypotheses are tried with the stress.
RIVALS = 4.0

#: Plausible and typical stiffness in ħ²/(m d⁴).
SOFTEST, TYPICAL = 1.2, 20.0


@dataclass(frozen=True)
class Mistake:
    """What has been done to the labels of one kind: ``cause`` in words, "" where nothing; ``scale`` the factor that undoes it."""

    kind: str
    cause: str = ""
    scale: float = 1.0
    order: tuple[int, ...] | None = None
    per_volume: bool = False

    @property
    def unit(self) -> str:
        return self.cause.split(" in place")[0].split("/")[0]

    def undo(self, values: np.ndarray, volume: float = 1.0) -> np.ndarray:
        """The labels as they should be."""
        values = values * (self.scale / volume if self.per_volume else self.scale)
        return values if self.order is None else values[..., list(self.order)]

    def code(self) -> str:
        """Python that undoes it for one structure's ``atoms``."""
        name, value = self.kind, f'results["{self.kind}"]'
        factor = f"{self.scale:.8g}"
        text = f"{value} * {factor}" if self.scale != 1 else value
        text += " / atoms.get_volume()" if self.per_volume else ""
        text = f"np.asarray({text})[{list(self.order)}]" if self.order is not None else text
        return f'results = atoms.calc.results; results["{name}"] = {text}'


def mistakes(kind: str) -> list[Mistake]:
    """Everything that is known to happen to labels of a kind, and nothing first."""
    found = [Mistake(kind)] + [Mistake(kind, cause, 1 / ratio) for ratio, cause in RATIOS[kind].items()]
    if kind == "stress":
        found += [Mistake(kind, "a virial (−V × stress) in place of the stress?", -1.0, per_volume=True)]
        found += [Mistake(kind, "V × stress in place of the stress?", 1.0, per_volume=True)]
        found += [Mistake(kind, f"the order: {name}", 1.0, tuple(order)) for name, order in ORDERS.items()]
    return found


def whole_kinds(probe: Probe) -> tuple[dict[str, Mistake], dict[str, float]]:
    """{kind: what was done to all of its labels} and the evidence, {name: number}."""
    joint = _Joint(probe)
    first = [kind for kind in probe.kinds if kind != "stress"]
    ratios = {ratio: [dict(zip(first, some, strict=True)) for some in many] for ratio, many in _ratios(first).items()}
    losses = {ratio: joint.loss(many[0]) for ratio, many in ratios.items()}
    scores = {(r, k): losses[r] + _penalty(probe, some) for r, many in ratios.items() for k, some in enumerate(many)}
    best = min(scores.values())
    likely = [key for key in scores if scores[key] < best + RIVALS or key == (1.0, 0)]
    results = [_with_stress(joint, ratios[r][k], scores[r, k]) for r, k in likely]
    given = next(result for result, key in zip(results, likely, strict=True) if key == (1.0, 0))
    score, chosen = min(results, key=lambda result: result[0])
    if given[0] - score <= WON:
        score, chosen = given
    nothing = joint.loss({kind: Mistake(kind) for kind in probe.kinds})
    found = {kind: mistake for kind, mistake in chosen.items() if mistake.cause}
    evidence = {"misfit as given": nothing, "with it undone": joint.loss(chosen), "stiffness as given (ħ²/md⁴)": probe.stiffness}
    return found, evidence if found else {}


def _with_stress(joint: _Joint, some: dict[str, Mistake], score: float) -> tuple[float, dict[str, Mistake]]:
    """The score with the likeliest mistake of the stress, and the mistakes of all kinds."""
    if "stress" not in joint.probe.kinds:
        return score, some
    alone = joint.loss(some) if some else 0.0
    losses = [(joint.loss({**some, "stress": m}, (joint.level,)) + (STRESS_WON if m.cause else 0.0), m) for m in mistakes("stress")]
    loss, mistake = min(losses, key=lambda pair: pair[0])
    return score + loss - alone, {**some, "stress": mistake}


def _ratios(kinds: list[str]) -> dict[float, list[tuple[Mistake, ...]]]:
    """{scale of the first kind over that of the second: what leads to it}; the ratio 1, and no mistake of it, first."""
    found: dict[float, list[tuple[Mistake, ...]]] = {}
    for some in product(*map(mistakes, kinds)):
        if sum(bool(m.cause) for m in some) > 1 and len({m.unit for m in some}) > 1:
            continue  # two unlike mistakes at once
        ratio = some[0].scale / some[1].scale if len(some) > 1 else 1.0
        near = next((r for r in found if abs(r / ratio - 1) < 0.01), ratio)
        found.setdefault(near, []).append(some)
    return found


def _penalty(probe: Probe, some: dict[str, Mistake]) -> float:
    """Of how unusual, and how implausible, mistakes are."""
    units_wrong = {m.unit for m in some.values() if m.cause}
    total = WRONG * len(units_wrong)
    if "energy" in some and probe.energy_unit is not None and abs(np.log(some["energy"].scale / probe.energy_unit)) > 0.1:
        total += CONTRADICTED
    scale = some["forces" if "forces" in some else "energy"].scale
    stiff = probe.stiffness * scale
    if np.isfinite(stiff) and stiff != 0:
        far = np.log(abs(stiff) / TYPICAL)
        outside = max(np.log(SOFTEST / abs(stiff)), np.log(abs(stiff) / probe.stiffest), 0.0)
        total += IMPLAUSIBLE * outside + 0.05 * far**2 + (CONTRADICTED if stiff < 0 else 0.0)
    return float(total)


class _Joint:
    """Fits to all labels, folds of structures left out, by Gram matrices."""

    def __init__(self, probe: Probe):
        self.probe, self.level, rows = probe, LEVELS[0], probe.rows
        structures = np.unique(rows.structure)
        part = np.random.default_rng(0).permutation(len(structures)) % FOLDS
        fold = part[np.searchsorted(structures, rows.structure)]
        self.folds = [np.flatnonzero(fold == f) for f in range(min(FOLDS, len(structures)))]
        self.grams = {
            (k, f): (a := rows.array[mine[rows.kind[mine] == k]]).T @ a for f, mine in enumerate(self.folds) for k in range(len(KINDS))
        }

    def loss(self, chosen: dict[str, Mistake], levels: tuple[float, ...] = LEVELS) -> float:
        """Σ log(error/size) of these kinds, the labels undone; the least over noise levels of energies."""
        target, rows = self.probe.undone(chosen), self.probe.rows
        used = np.isin(rows.kind, [KINDS.index(kind) for kind in chosen])
        size = {kind: _size(target[rows.kind == KINDS.index(kind)]) for kind in chosen}
        losses = []
        for level in levels if "energy" in chosen else (1.0,):
            noise = {kind: (level if kind == "energy" else LEVEL) * value for kind, value in size.items()}
            error = target - self._predicted(target, used, noise)
            losses.append(sum(np.log(_size(error[rows.kind == KINDS.index(kind)]) / size[kind]) for kind in chosen))
        self.level = levels[int(np.argmin(losses))]
        return float(min(losses))

    def _predicted(self, target: np.ndarray, used: np.ndarray, noise: dict[str, float]) -> np.ndarray:
        rows = self.probe.rows
        weight = np.where(used, 1 / np.array([noise.get(kind, 1.0) for kind in KINDS])[rows.kind] ** 2, 0.0)
        A = [sum(self.grams[KINDS.index(kind), f] / sigma**2 for kind, sigma in noise.items()) for f in range(len(self.folds))]
        b = [rows.array[mine].T @ (weight[mine] * target[mine]) for mine in self.folds]
        predicted = np.zeros_like(target)
        for f, mine in enumerate(self.folds):
            C = np.array(sum(A) - A[f])
            C.flat[:: len(C) + 1] += ridge(C)
            predicted[mine] = rows.array[mine] @ solve(C, sum(b) - b[f], assume_a="pos", check_finite=False)
        return predicted


def _size(values: np.ndarray) -> float:
    return float(np.quantile(np.abs(values), 0.8)) + 1e-9 if len(values) else 1.0
