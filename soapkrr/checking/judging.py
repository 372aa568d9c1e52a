"""Structures whose labels all the others contradict, and what may have happened to them.

Each structure is left out, and each kind of its labels alone, beside which the others say more: forces tell much of an energy. The root
mean square error of one kind has a scale s, s² = a·(posterior variance) + b·(how badly comparable labels are predicted) + c, learnt from
all structures by a Student t law, which wrong ones do not spoil. For energies, b goes with the squared error of the structure's forces,
for forces and stress with their own squared size. What is farthest beyond the threshold of each structure is taken out, one kind at a
time as a wrong one spoils the others, and everything is done again until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from soapkrr.checking.probe import LeftOut, Probe, Rows, leave_out
from soapkrr.checking.whole import Mistake, mistakes
from soapkrr.labels import KINDS
from soapkrr.student import student_variance

#: Structures with labels of a kind from which errors have a scale.
FEWEST = 10

#: Scales from which labels of a kind are taken out, and believed to be wrong where a mistake, an exchange or another method explains them.
LOW = (6.0, 4.0, 4.0)

#: Of forces and stress, e-folds of a mistake that no error of a model looks like, the noise levels that it must exceed, and alikeness.
UNLIKE, CLEAR, ALIKE = 1.0, (0.0, 1.5, 4.0), 0.8

#: Part of forces or stress that their error must exceed: models err most where these are small.
PART = 0.4

#: Rounds of taking out, and energy noise tried as parts of the median error of energies.
ROUNDS, PARTS = 8, (1.0, 0.3, 0.1, 0.03, 0.01)

#: A mistake explains labels where it leaves this part of their error, or, if no error of a model looks like it, an ordinary one in scales.
EXPLAINED, ORDINARY = 0.35, 2.0


@dataclass(frozen=True, eq=False)
class Judged:
    """Labels given and expected of every structure, and which are not believed.

    Attributes
    ----------
    rows : with the labels as they should be in general.  left_out : of the fit to what is believed.
    scores : {(structure, kind index): error in scales}.  odd : those not believed.
    """

    probe: Probe
    rows: Rows
    left_out: LeftOut
    scores: Mapping[tuple[int, int], float]
    odd: frozenset[tuple[int, int]]

    def of(self, s: int, k: int, beside: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Given and expected labels of one kind of a structure, whole energies; ``beside``: what is believed of its other kinds."""
        mine = self.rows.of[s]
        here = np.flatnonzero(self.rows.kind[mine] == k) + mine.start
        n = np.sqrt(len(self.probe.frames[s])) if k == 0 else 1.0
        base = self.probe.base[here] if k == 0 else 0.0
        expected = self.left_out.beside if beside else self.left_out.expected
        return n * (self.rows.target[here] + base), n * (expected[here] + base)


def judge(probe: Probe, whole: Mapping[str, Mistake]) -> Judged:
    """Leave out every structure, and take out what the others contradict."""
    rows = probe.rows.replaced(probe.undone(whole))
    seen, odd = np.ones(len(rows.target), dtype=bool), frozenset()
    noise = balanced(rows, seen)
    for _ in range(ROUNDS):
        left = leave_out(rows, seen, noise)
        scores = _scores(rows, left)
        far = {key: score / LOW[key[1]] for key, score in scores.items() if score > LOW[key[1]]}
        worst = {s: max((key for key in far if key[0] == s and key not in odd), key=far.__getitem__, default=None) for s, _ in far}
        found = frozenset(key for key in far if key in odd or key == worst[key[0]])
        found |= _plainly_mistaken(Judged(probe, rows, left, scores, odd))
        if found == odd:
            break
        odd = found
        seen = np.array([(int(s), int(k)) not in odd for s, k in zip(rows.structure, rows.kind, strict=True)])
    return Judged(probe, rows, left, scores, odd)


def balanced(rows: Rows, seen: np.ndarray) -> dict[str, float]:
    """Noise levels: of forces and stress by the errors of left-out ones, of energies that by which all are predicted best."""
    first = leave_out(rows, seen, _start(rows))
    noise = {kind: _noise(rows, first, k) for k, kind in enumerate(KINDS)}
    if len(np.unique(rows.kind)) == 1:
        return noise
    tried = [{**noise, "energy": part * noise["energy"]} for part in PARTS]
    return min(tried, key=lambda levels: _misfit(rows, leave_out(rows, seen, levels)))


def _misfit(rows: Rows, left: LeftOut) -> float:
    """Σ_kind log of the median error, which no unit changes."""
    error = np.abs(rows.target - left.expected)
    return float(sum(np.log(np.median(error[rows.kind == k]) + 1e-12) for k in np.unique(rows.kind)))


def _plainly_mistaken(judged: Judged) -> set[tuple[int, int]]:
    """Forces and stress explained by a factor far from 1: however bad the model, its errors do not look so."""
    found = set()
    for s, k in judged.scores:
        if k:
            given, expected = judged.of(s, k, beside=True)
            size, level = float(np.linalg.norm(given - expected)), judged.left_out.noise[KINDS[k]] * np.sqrt(len(given))
            norms = np.linalg.norm(given) * np.linalg.norm(expected)
            alike = abs(given @ expected) > ALIKE * norms > 0
            if (
                alike
                and size > CLEAR[k] * level
                and abs(np.linalg.norm(given) / np.linalg.norm(expected) * np.sign(given @ expected) - 1) > 0.6
            ):
                mistake = mistake_of(judged, s, k)
                if mistake is not None and unlike(mistake):
                    found.add((s, k))
    return found


def _start(rows: Rows) -> dict[str, float]:
    size = [float(np.quantile(np.abs(rows.target[rows.kind == k]), 0.8)) if (rows.kind == k).any() else 1.0 for k in range(3)]
    return {kind: (0.05 if kind == "energy" else 0.1) * value + 1e-9 for kind, value in zip(KINDS, size, strict=True)}


def _noise(rows: Rows, left: LeftOut, k: int) -> float:
    mine = rows.kind == k
    if not mine.any():
        return left.noise[KINDS[k]]
    return float(np.median(np.abs((rows.target - left.expected)[mine])) / 0.6745) + 0.02 * left.noise[KINDS[k]]


def _scores(rows: Rows, left: LeftOut) -> dict[tuple[int, int], float]:
    """Errors of every structure and kind in their scale: the larger of those of the structure and of the kind left out."""
    one, other = (_scaled(rows, *pair) for pair in ((left.expected, left.std), (left.beside, left.beside_std)))
    return {key: max(score, other[key]) for key, score in one.items()}


def _scaled(rows: Rows, expected: np.ndarray, std: np.ndarray) -> dict[tuple[int, int], float]:
    error, scores = rows.target - expected, {}
    squares: dict[int, dict[int, tuple]] = {0: {}, 1: {}, 2: {}}
    for s, mine in rows.of.items():
        for k in range(3):
            here = np.flatnonzero(rows.kind[mine] == k) + mine.start
            if len(here):
                squares[k][s] = tuple(np.mean(x[here] ** 2) for x in (error, std, expected, rows.target))
    for k, found in squares.items():
        if len(found) < FEWEST:
            continue
        structures, values = list(found), np.array(list(found.values()))
        beside = values[:, 2]
        if k == 0 and squares[1]:
            typical = float(np.median([v[0] for v in squares[1].values()]))
            beside = np.array([squares[1][s][0] if s in squares[1] else typical for s in structures])
        elif k == 0:
            beside = np.zeros(len(values))
        scale = np.sqrt(student_variance(values[:, 0], np.column_stack([values[:, 1], beside, np.ones(len(values))])))
        counted = (values[:, 0] > PART**2 * values[:, 2:].max(axis=1)) | (k == 0)
        z = np.where(counted, np.sqrt(values[:, 0]) / scale, 0.0)
        scores |= {(s, k): float(x) for s, x in zip(structures, z, strict=True)}
    return scores


def mistake_of(judged: Judged, s: int, k: int) -> Mistake | None:
    """The mistake that explains the labels of one kind of a structure."""
    given, expected = judged.of(s, k, beside=True)
    kind, volume = KINDS[k], judged.probe.volumes[s]
    misfits = [(float(np.linalg.norm(m.undo(given, volume) - expected)), m) for m in mistakes(kind)]
    misfit, mistake = min(misfits, key=lambda pair: pair[0])
    limit = 0.02 * np.linalg.norm(expected) if k == 0 else EXPLAINED * misfits[0][0]
    if k and unlike(mistake) and judged.scores[s, k] > 0:
        limit = max(limit, ORDINARY / judged.scores[s, k] * misfits[0][0])
    # What shrinks labels to nothing explains nothing.
    return mistake if mistake.cause and misfit < limit and misfit < 0.6 * np.linalg.norm(expected) else None


def unlike(mistake: Mistake) -> bool:
    """Whether no error of a model looks like it: a sign, or a factor far from 1."""
    return mistake.scale < 0 or mistake.per_volume or abs(np.log(mistake.scale)) > UNLIKE
