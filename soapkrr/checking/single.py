"""Structures whose labels all the others contradict, and what may have happened to them.

Each structure is left out; the root mean square error of one kind of its labels has a scale s, s² = a·(posterior variance) + b·(how badly
comparable labels are predicted) + c, learnt from all structures by a Student t law, which wrong ones do not spoil. For energies, b goes with
the squared error of the structure's forces, for forces and stress with their own squared size. What is beyond the threshold is taken out,
and everything is done again until nothing more is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from soapkrr.checking.findings import Finding
from soapkrr.checking.probe import LeftOut, Probe, Rows, leave_out, ridge
from soapkrr.checking.whole import Mistake, mistakes
from soapkrr.labels import KINDS
from soapkrr.metrics import members_by

#: Structures with labels of a kind from which errors have a scale; scales beyond which one that nothing explains is not believed, by kind; times
#: so much of fewer than `MANY`.
FEWEST, THRESHOLD, OF_FEW, MANY = 10, {0: 8.5, 1: 7.0, 2: 9.0}, 1.1, 100

#: Scales from which labels of a kind are taken out, and believed to be wrong where a mistake, an exchange or another method explains them.
LOW = (6.0, 4.0, 4.0)

#: Of forces and stress, e-folds of a mistake that no error of a model looks like, the noise levels that it must exceed, and alikeness.
UNLIKE, CLEAR, ALIKE = 1.0, (0.0, 1.5, 4.0), 0.8

#: Part of forces or stress that their error must exceed: models err most where these are small; more where nothing explains it.
PART, LARGE = 0.4, 0.7

#: Rounds of taking out.
ROUNDS = 4

#: Degrees of freedom of the law of the errors.
NU = 3.0

#: A mistake explains labels where it leaves this part of their error.
EXPLAINED = 0.35

#: Ratio of forces that is another method's and no error's: scales, and at least.
SLOPE_SCALES, SLOPE = 4.0, 0.03

#: Offset of a group's energies: standard deviations, and eV per atom at least.
OFFSET_SCALES, OFFSET = 10.0, 0.005


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

    def of(self, s: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Given and expected labels of one kind of a structure, whole energies."""
        mine = self.rows.of[s]
        here = np.flatnonzero(self.rows.kind[mine] == k) + mine.start
        n = np.sqrt(len(self.probe.frames[s])) if k == 0 else 1.0
        base = self.probe.base[here] if k == 0 else 0.0
        return n * (self.rows.target[here] + base), n * (self.left_out.expected[here] + base)


def judge(probe: Probe, whole: Mapping[str, Mistake]) -> Judged:
    """Leave out every structure, and take out what the others contradict."""
    rows = probe.rows.replaced(probe.undone(whole))
    seen, odd, noise = np.ones(len(rows.target), dtype=bool), frozenset(), _start(rows)
    for turn in range(ROUNDS):
        left = leave_out(rows, seen, noise)
        if turn == 0:
            noise = {kind: _noise(rows, left, k) for k, kind in enumerate(KINDS)}
            left = leave_out(rows, seen, noise)
        scores = _scores(rows, left, seen)
        found = frozenset(key for key, score in scores.items() if score > LOW[key[1]])
        found |= _plainly_mistaken(Judged(probe, rows, left, scores, odd))
        if found == odd:
            break
        odd = found
        seen = np.array([(int(s), int(k)) not in odd for s, k in zip(rows.structure, rows.kind, strict=True)])
    return Judged(probe, rows, left, scores, odd)


def _plainly_mistaken(judged: Judged) -> set[tuple[int, int]]:
    """Forces and stress explained by a factor far from 1: however bad the model, its errors do not look so."""
    found = set()
    for s, k in judged.scores:
        if k:
            given, expected = judged.of(s, k)
            size, level = float(np.linalg.norm(given - expected)), judged.left_out.noise[KINDS[k]] * np.sqrt(len(given))
            norms = np.linalg.norm(given) * np.linalg.norm(expected)
            alike = abs(given @ expected) > ALIKE * norms > 0
            if alike and size > CLEAR[k] * level and abs(np.linalg.norm(given) / np.linalg.norm(expected) * np.sign(given @ expected) - 1) > 0.6:
                mistake = _mistake(judged, s, k)
                if mistake is not None and (mistake.scale < 0 or abs(np.log(mistake.scale)) > UNLIKE):
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


def _scores(rows: Rows, left: LeftOut, seen: np.ndarray) -> dict[tuple[int, int], float]:
    """Errors of every structure and kind in their scale."""
    error, scores = rows.target - left.expected, {}
    squares: dict[int, dict[int, tuple]] = {0: {}, 1: {}, 2: {}}
    for s, mine in rows.of.items():
        for k in range(3):
            here = np.flatnonzero(rows.kind[mine] == k) + mine.start
            if len(here):
                squares[k][s] = tuple(np.mean(x[here] ** 2) for x in (error, left.std, left.expected, rows.target))
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
        scale = _scale(np.sqrt(values[:, 0]), np.column_stack([values[:, 1], beside, np.ones(len(values))]))
        counted = (values[:, 0] > PART**2 * values[:, 2:].max(axis=1)) | (k == 0)
        z = np.where(counted, np.sqrt(values[:, 0]) / scale, 0.0)
        scores |= {(s, k): float(x) for s, x in zip(structures, z, strict=True)}
    return scores


def _scale(error: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Scale of each error, s² = Σ_j a_j squares_j with a_j ≥ 0 of highest likelihood of Student's t law."""
    typical = max(float(np.median(error)) ** 2, 1e-18)
    unit = np.maximum(np.median(squares, axis=0), 1e-12 * max(float(np.median(squares)), 1e-30))
    features = typical * squares / unit

    def loss(log_a):
        s2 = features @ np.exp(log_a) + 1e-3 * typical
        return float(np.mean(0.5 * np.log(s2) + 0.5 * (NU + 1) * np.log1p(error**2 / (NU * s2))))

    bounds = [(-12.0, 8.0)] * 3
    starts = ([0.0, 0.0, 0.0], [0.0, -4.0, -4.0], [-4.0, 0.0, -4.0])
    best = min((minimize(loss, start, bounds=bounds, method="L-BFGS-B") for start in starts), key=lambda found: found.fun)
    return np.sqrt(features @ np.exp(best.x) + 1e-3 * typical)


def single_findings(judged: Judged) -> list[Finding]:
    """What the labels of single structures are, those of one mistake together."""
    left = set(judged.odd)
    swapped = _swapped(judged, left)
    explained: dict[tuple[int, str], list[int]] = {}
    for s, k in sorted(left):
        mistake = _mistake(judged, s, k)
        if mistake is not None:
            explained.setdefault((k, mistake.cause), []).append(s)
            left.discard((s, k))
    found = [_one_mistake(judged, k, cause, structures) for (k, cause), structures in explained.items()]
    methods, others = _methods(judged, left)
    return [*swapped, *found, *methods, *others]


def _unbelievable(judged: Judged, s: int, k: int) -> bool:
    """Whether labels that nothing explains are too far from those expected."""
    few = sum(key[1] == k for key in judged.scores) < MANY
    given, expected = judged.of(s, k)
    size = np.linalg.norm(given - expected)
    usual = np.quantile(np.abs(judged.rows.target[judged.rows.kind == k]), 0.7) * np.sqrt(len(given))
    far = k == 0 or size > LARGE * max(np.linalg.norm(given), np.linalg.norm(expected), usual)
    return bool(far and judged.scores[s, k] > THRESHOLD[k] * (OF_FEW if few else 1.0))


def _mistake(judged: Judged, s: int, k: int) -> Mistake | None:
    """The mistake that explains the labels of one kind of a structure."""
    given, expected = judged.of(s, k)
    kind, volume = KINDS[k], judged.probe.volumes[s]
    misfits = [(float(np.linalg.norm(m.undo(given, volume) - expected)), m) for m in mistakes(kind)]
    misfit, mistake = min(misfits, key=lambda pair: pair[0])
    limit = 0.02 * np.linalg.norm(expected) if k == 0 else EXPLAINED * misfits[0][0]
    # What shrinks labels to nothing explains nothing.
    return mistake if mistake.cause and misfit < limit and misfit < 0.6 * np.linalg.norm(expected) else None


def _one_mistake(judged: Judged, k: int, cause: str, structures: list[int]) -> Finding:
    kind = KINDS[k]
    mistake = next(m for m in mistakes(kind) if m.cause == cause)
    ratios = [float(g @ e / (e @ e)) for g, e in (judged.of(s, k) for s in structures)]
    n = sum(key[1] == k for key in judged.scores)
    what = f"the {kind} of {len(structures)} of {n} structures contradict{'s' * (kind == 'stress')} those of the others: {cause}"
    evidence = {"given over expected": float(np.median(ratios)), "smallest error in scales": min(judged.scores[s, k] for s in structures)}
    code = f"for s in {sorted(structures)[:6]}: atoms = frames[s]; {mistake.code()}"
    return Finding("error", what, tuple(structures), evidence, "Put them right, or leave them out.", code)


def _swapped(judged: Judged, left: set[tuple[int, int]]) -> list[Finding]:
    """Pairs whose labels fit when they are exchanged; taken from ``left``."""
    found, frames = [], judged.probe.frames
    odd = sorted({s for s, _ in left})
    for a in odd:
        best = None
        for b in (b for b in judged.rows.of if b != a and len(frames[a]) == len(frames[b]) and (frames[a].numbers == frames[b].numbers).all()):
            kinds = {k for s, k in left if s in (a, b)} | {1} & {k for s, k in judged.scores if s == a}
            parts = [_exchanged(judged, a, b, k) for k in kinds]
            if parts and max(parts) < EXPLAINED and (best is None or max(parts) < best[0]):
                best = max(parts), b
        if best is not None and any(s == a for s, _ in left):
            b = best[1]
            left -= {(s, k) for s, k in left if s in (a, b)}
            evidence = {"error left after the exchange, of 1": best[0], "error in scales": max(judged.scores[s, k] for s, k in judged.odd if s in (a, b))}
            code = f"frames[{a}].calc.results, frames[{b}].calc.results = frames[{b}].calc.results, frames[{a}].calc.results"
            what = "two structures have each other's labels"
            found.append(Finding("error", what, (min(a, b), max(a, b)), evidence, "Exchange the labels.", code))
    return found


def _exchanged(judged: Judged, a: int, b: int, k: int) -> float:
    """Error of one kind of label of two structures after exchange, over that before."""
    (given_a, expected_a), (given_b, expected_b) = judged.of(a, k), judged.of(b, k)
    if len(given_a) != len(given_b) or not len(given_a):
        return np.inf
    after = np.linalg.norm(given_b - expected_a) ** 2 + np.linalg.norm(given_a - expected_b) ** 2
    return float(np.sqrt(after / (np.linalg.norm(given_a - expected_a) ** 2 + np.linalg.norm(given_b - expected_b) ** 2)))


def _methods(judged: Judged, left: set[tuple[int, int]]) -> tuple[list[Finding], list[Finding]]:
    """Structures of another method, with their forces scaled too, and those that are odd for no known reason."""
    slopes = {}
    for s in judged.rows.of:
        given, expected = judged.of(s, 1)
        if len(given) and expected @ expected > 0:
            slopes[s] = float(given @ expected / (expected @ expected)), float(np.linalg.norm(given - expected) / np.linalg.norm(expected))
    normal = [slope for s, (slope, _) in slopes.items() if (s, 1) not in judged.odd]
    middle = float(np.median(normal)) if normal else 1.0
    width = 1.48 * float(np.median(np.abs(np.array(normal) - middle))) if normal else 0.0
    other, rest = [], []
    for s in sorted({s for s, _ in left}):
        slope = slopes.get(s, (middle, 0.0))[0]
        scaled = (s, 0) in left and abs(slope - middle) > max(SLOPE_SCALES * width, SLOPE) and slope > 0.5
        if scaled:
            other.append(_unexplained(judged, left, s, slope / middle))
        elif unbelievable := {(place, k) for place, k in left if place == s and _unbelievable(judged, place, k)}:
            rest.append(_unexplained(judged, unbelievable, s, None))
    return other, rest


def _unexplained(judged: Judged, left: set[tuple[int, int]], s: int, slope: float | None) -> Finding:
    kinds = sorted(k for place, k in left if place == s)
    evidence = {f"{KINDS[k]}: error in scales": judged.scores[s, k] for k in kinds}
    if 0 in kinds:
        given, expected = judged.of(s, 0)
        evidence |= {"energy less expected (eV)": float((given - expected)[0])}
    names = " and ".join(KINDS[k] for k in kinds)
    code = f"del frames[{s}]"
    if slope is not None:
        what = f"{names} {'differ' if len(kinds) > 1 else 'differs'} from what the others say, and forces by a factor: another functional, or another method?"
        evidence |= {"forces given over expected": slope}
        return Finding("error", what, (s,), evidence, "Compute it again as the others, or leave it out.", code)
    reasons = {0: "not converged, or of other settings?", 1: "of another structure, or not converged?", 2: "of other settings, or a virial?"}
    what = f"{names} that the others contradict: {reasons[kinds[0]]}"
    return Finding("error", what, (s,), evidence, "Look at this calculation; put it right or leave it out.", code)


def group_findings(judged: Judged, by: str) -> list[Finding]:
    """Groups whose energies are shifted against those of the others, in excess of what forces and shapes explain."""
    members = {name: some for name, some in members_by(judged.probe.frames, by).items() if len(some) >= 3}
    if len(members) < 2:
        return []
    rows, left = judged.rows, judged.left_out
    names, sizes = list(members), np.array([len(atoms) for atoms in judged.probe.frames])
    energies = np.flatnonzero(rows.kind == 0)
    columns = np.zeros((len(rows.target), len(names)))
    for g, name in enumerate(names):
        mine = energies[np.isin(rows.structure[energies], members[name])]
        columns[mine, g] = np.sqrt(sizes[rows.structure[mine]])
    seen = np.array([(int(s), int(k)) not in judged.odd for s, k in zip(rows.structure, rows.kind, strict=True)])
    sigma = np.array([left.noise[kind] for kind in KINDS])[rows.kind][seen]
    Phi = np.hstack([rows.array[seen], columns[seen]]) / sigma[:, None]
    A = Phi.T @ Phi
    A.flat[:: len(A) + 1] += np.r_[np.full(rows.array.shape[1], ridge(A)), np.full(len(names), 1e-2)]
    solved = np.linalg.solve(A, np.column_stack([Phi.T @ (rows.target[seen] / sigma), np.eye(len(A))[:, -len(names) :]]))
    shift, covariance = solved[-len(names) :, 0], solved[-len(names) :, 1:]
    middle = np.median(shift) if len(names) > 2 else shift[np.argmax([len(members[name]) for name in names])]
    found = []
    for g, name in enumerate(names):
        other = int(np.argmin(np.abs(shift - middle)))
        std = np.sqrt(max(covariance[g, g] + covariance[other, other] - 2 * covariance[g, other], 1e-30))
        if g != other and abs(shift[g] - middle) > max(OFFSET_SCALES * std, OFFSET):
            evidence = {"shift (eV/atom)": float(shift[g] - middle), "its standard deviation": float(std)}
            what = f"energies of {by} {name!r} are shifted against those of the others: another method, or other settings?"
            advice = "Compute one structure of the group as the others were; subtract the difference, or fit without the energies of the group."
            found.append(Finding("warning", what, tuple(members[name]), evidence, advice, f'[a for a in frames if a.info.get("{by}") != {name!r}]'))
    return found
