"""What is said of structures whose labels all the others contradict."""

from __future__ import annotations

import numpy as np

from soapkrr.checking.findings import Finding
from soapkrr.checking.judging import EXPLAINED, Judged, mistake_of, unlike
from soapkrr.checking.whole import mistakes
from soapkrr.labels import KINDS

#: Scales beyond which labels that nothing explains are not believed, by kind.
THRESHOLD = (8.0, 10.0, 10.0)

#: Part of forces or stress that an error must exceed which nothing explains.
LARGE = 0.7

#: Ratio of forces that is another method's and no error's: scales, and at least.
SLOPE_SCALES, SLOPE = 4.0, 0.03


def single_findings(judged: Judged) -> list[Finding]:
    """What the labels of single structures are, those of one mistake together."""
    left = set(judged.odd)
    swapped = _swapped(judged, left)
    explained: dict[tuple[int, str], list[int]] = {}
    for s, k in sorted(left):
        mistake = mistake_of(judged, s, k)
        # A weak model's errors look like half of the forces.
        if mistake is not None and (k == 0 or unlike(mistake) or judged.scores[s, k] > THRESHOLD[k]):
            explained.setdefault((k, mistake.cause), []).append(s)
            left.discard((s, k))
    found = [_one_mistake(judged, k, cause, structures) for (k, cause), structures in explained.items()]
    methods, others = _methods(judged, left)
    return [*swapped, *found, *methods, *others]


def _unbelievable(judged: Judged, s: int, k: int) -> bool:
    """Whether labels that nothing explains are too far from those expected."""
    given, expected = judged.of(s, k)
    size = np.linalg.norm(given - expected)
    usual = np.quantile(np.abs(judged.rows.target[judged.rows.kind == k]), 0.7) * np.sqrt(len(given))
    far = k == 0 or size > LARGE * max(np.linalg.norm(given), np.linalg.norm(expected), usual)
    return bool(far and judged.scores[s, k] > THRESHOLD[k])


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
        for b in (
            b for b in judged.rows.of if b != a and len(frames[a]) == len(frames[b]) and (frames[a].numbers == frames[b].numbers).all()
        ):
            kinds = {k for s, k in left if s in (a, b)} | {1} & {k for s, k in judged.scores if s == a}
            part = float(np.sqrt(np.mean([_exchanged(judged, a, b, k) ** 2 for k in kinds])))
            if part < EXPLAINED and (best is None or part < best[0]):
                best = part, b
        if best is not None and any(s == a for s, _ in left):
            b = best[1]
            left -= {(s, k) for s, k in left if s in (a, b)}
            evidence = {
                "error left after the exchange, of 1": best[0],
                "error in scales": max(judged.scores[s, k] for s, k in judged.odd if s in (a, b)),
            }
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
        what = f"{names} {'differ' if len(kinds) > 1 else 'differs'} from what is expected, and forces by a factor: another functional?"
        evidence |= {"forces given over expected": slope}
        return Finding("error", what, (s,), evidence, "Compute it again as the others, or leave it out.", code)
    reasons = {
        0: "not converged, or of other settings?",
        1: "of another structure, or not converged?",
        2: "of other settings, or a virial?",
    }
    what = f"{names} that the others contradict: {reasons[kinds[0]]}"
    return Finding("error", what, (s,), evidence, "Look at this calculation; put it right or leave it out.", code)
