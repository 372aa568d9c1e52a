"""Noise levels by cross-validation, without refitting: every fold is a triangle of its rows, whatever the noise.

For a fixed sparse set the weights without fold f follow from the other folds' Gram matrices G_ft = R_ftᵀR_ft, and the squared error on
the rows of f is vᵀ G_ft v with v = (w, −1): a candidate costs O(folds · r³), no pass over the data. Evidence assumes that the model is
right; where it is not (atoms farther than the cutoff, too few sparse points), leaving structures out is the better guide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from soapkrr import backends, linear
from soapkrr.lazy import cached_property
from soapkrr.regression.evidence import BOUNDS
from soapkrr.regression.front import Front
from soapkrr.regression.score import Score
from soapkrr.threads import thread_map

logger = logging.getLogger(__name__)

#: Candidates that a descent tries at most, the second one half of it.
MAX_CANDIDATES = 40

#: Factor between neighbouring candidates of a noise level.
STEP = 2.0

#: Part of the features below which rows are few; rows of matrices that are worked on at once.
FEW, BLOCK = 0.5, 64

#: A descent goes on while the cost falls by this; what one kind would have alone is followed while its error falls by this part.
RESOLUTION, GAIN = 1e-3, 3e-3


class LeavesOut(Protocol):
    """What tells errors of left-out labels for any noise."""

    @property
    def kinds(self) -> list[str]:
        """Kinds of labels that there are."""
        ...

    def errors(self, noise: Mapping[str, float]) -> dict[str, float]:
        """{kind: root mean square error}; raises `np.linalg.LinAlgError` where so small a noise cannot be told from rounding."""
        ...


@dataclass(frozen=True, eq=False)
class Folds:
    """Gram matrices of [Φ | y] of each fold and kind of observation, and the numbers of rows.

    Attributes
    ----------
    grams : per fold {kind: (r + 1, r + 1)}.  counts : per fold {kind: rows}.
    tables : per fold {kind: [Φ | y]} of the kinds that have few rows.
    threads : folds are worked on at once.
    """

    grams: list[dict[str, np.ndarray]]
    counts: list[dict[str, int]]
    tables: list[dict[str, np.ndarray]]
    threads: int | None = None

    @classmethod
    def of(cls, factors: Sequence[Mapping[str, np.ndarray]], counts: Sequence[Mapping[str, int]], threads: int | None = None) -> Folds:
        """From triangles of [Φ | y]."""
        few = [{t: f for t, f in fold.items() if len(f) < FEW * f.shape[1]} for fold in factors]
        return cls([{t: f.T @ f for t, f in fold.items()} for fold in factors], [dict(c) for c in counts], few, threads)

    @property
    def kinds(self) -> list[str]:
        """Kinds of labels that there are."""
        return sorted({t for fold in self.grams for t in fold})

    def errors(self, noise: Mapping[str, float]) -> dict[str, float]:
        """Root mean square error of each kind on left-out folds: energies per √atom as they stand in the rows."""
        total = _weighted((), self._totals, noise)
        squares: dict[str, float] = {}
        for fold in thread_map(lambda f: self._squares(f, total, noise), range(len(self.grams)), self.threads):
            for t, square in fold.items():
                squares[t] = squares.get(t, 0.0) + square
        return {t: float(np.sqrt(s / sum(c.get(t, 0) for c in self.counts))) for t, s in squares.items()}

    def _squares(self, f: int, total: tuple[np.ndarray, np.ndarray], noise: Mapping[str, float]) -> dict[str, float]:
        """Squared errors of each kind on one fold, by the weights of all others."""
        A, y = _weighted(total, self.grams[f], noise)
        xp = backends.namespace(A)
        A.reshape(-1)[:: len(A) + 1] += 1.0
        L = linear.cholesky(A, 1)
        v = xp.append(linear.backward(L, linear.forward(L, y)), xp.full(1, -1.0))
        return {t: _square(v, gram, self.tables[f].get(t)) for t, gram in self.grams[f].items()}

    @cached_property
    def _totals(self) -> dict[str, np.ndarray]:
        """Gram matrices of all folds together."""
        return {t: sum(fold[t] for fold in self.grams if t in fold) for t in {t: None for fold in self.grams for t in fold}}


def _weighted(total: Sequence[np.ndarray], grams: Mapping[str, np.ndarray], noise: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Lower triangle of Σ_t Φ_tᵀΦ_t/σ_t² and Σ_t Φ_tᵀy_t/σ_t², or of a ``total`` of both less that; by rows that stay in the cache."""
    some, sign = next(iter(grams.values())), -1.0 if total else 1.0
    xp, r = backends.namespace(some), len(some) - 1
    A, y = xp.zeros((r, r)), xp.array(total[1]) if total else xp.zeros(r)
    for t, gram in grams.items():
        y += (sign / noise[t] ** 2) * gram[:r, r]
    for a in range(0, r, BLOCK):
        b = min(a + BLOCK, r)
        rows = A[a:b, :b]
        if total:
            rows += total[0][a:b, :b]
        for t, gram in grams.items():
            rows += (sign / noise[t] ** 2) * gram[a:b, :b]
    return A, y


def _square(v: np.ndarray, gram: np.ndarray, table: np.ndarray | None) -> float:
    """|[Φ | y] v|², from the rows where there are few."""
    if table is None:
        return max(float(v @ gram @ v), 0.0)
    errors = table @ v
    return float(errors @ errors)


class NoiseSearch:
    """Noise levels that are tried, and the errors of what is left out with each.

    Parameters
    ----------
    folds : says the ``kinds`` of labels, and {kind: error} of ``errors``({kind: σ}).

    Attributes
    ----------
    tried : {levels of the ``kinds``: {kind: error}}, infinite where so small a noise cannot be told from rounding.
    """

    def __init__(self, folds: LeavesOut):
        self.folds, self.kinds = folds, folds.kinds
        self.tried: dict[tuple[float, ...], dict[str, float]] = {}

    def errors(self, levels: tuple[float, ...]) -> dict[str, float]:
        """Errors of each kind with these levels, computed once."""
        if levels not in self.tried:
            try:
                found = self.folds.errors(dict(zip(self.kinds, levels, strict=True)))
            except np.linalg.LinAlgError:  # squared condition numbers
                found = dict.fromkeys(self.kinds, np.inf)
            self.tried[levels] = {t: found[t] for t in self.kinds}
        return self.tried[levels]

    def best(self, cost: Callable) -> tuple[float, ...]:
        """The levels of least cost of their errors, of those tried."""
        return min(self.tried, key=lambda levels: cost(self.tried[levels]))

    def descend(self, start: tuple[float, ...], cost: Callable, most: int) -> tuple[float, ...]:
        """Levels of less cost than ``start``, by steps of `STEP` in one level at a time; ``most``: candidates that are new."""
        most, best, improved = most + len(self.tried), start, True
        while improved and len(self.tried) < most:
            improved = False
            for k in range(len(self.kinds)):
                for factor in (STEP, 1 / STEP):
                    while len(self.tried) < most:
                        new = tuple(factor * level if j == k else level for j, level in enumerate(best))
                        if not self._allowed(new) or cost(self.errors(new)) >= cost(self.errors(best)) - RESOLUTION:
                            break
                        best, improved = new, True
        return best

    def favour(self, start: tuple[float, ...], kind: str) -> None:
        """Try what makes errors of one kind small, whatever becomes of the others: more noise of these, together and each, then its own."""
        own, best = self.kinds.index(kind), start
        ones = np.eye(len(self.kinds), dtype=bool)
        others = [~ones[own], *ones[[k for k in range(len(ones)) if k != own]]] if len(ones) > 2 else [~ones[own]]
        for which, factor in [*((which, STEP**2) for which in others), (ones[own], STEP), (ones[own], 1 / STEP)]:
            while True:
                new = tuple(factor * level if moved else level for level, moved in zip(best, which, strict=True))
                if not self._allowed(new) or not self.errors(new)[kind] < (1 - GAIN) * self.errors(best)[kind]:
                    break
                best = new

    def _allowed(self, levels: tuple[float, ...]) -> bool:
        return all(BOUNDS[t][0] <= level <= BOUNDS[t][1] for t, level in zip(self.kinds, levels, strict=True))


def optimise_noise(folds: Folds, noise: Mapping[str, float], score: Score) -> tuple[dict[str, float], Front]:
    """Noise levels within `BOUNDS` of least `Score.cost` of errors on left-out folds, from those given; and what they trade.

    First those of the least score; from there what each kind of label would have alone; then, where a kind is beyond the bound of the
    score, from the best of all that were tried.
    """
    search = NoiseSearch(folds)
    start = search.descend(tuple(float(noise[t]) for t in search.kinds), score.cost, MAX_CANDIDATES)
    for kind in search.kinds if len(search.kinds) > 1 else ():
        search.favour(start, kind)
    least = {t: min(errors[t] for errors in search.tried.values()) for t in search.kinds}

    def cost(errors: Mapping[str, float]) -> float:
        return score.cost(errors, least)

    best = search.descend(search.best(cost), cost, MAX_CANDIDATES // 2)
    found = dict(zip(search.kinds, best, strict=True))
    logger.info("cross-validation: noise %s of %d candidates", found, len(search.tried))
    return {**noise, **found}, Front.of(search.tried, best)


def cross_validated(parts, noise: Mapping[str, float], signals: Sequence[float], score: Score, threads: int | None = None):
    """Noise levels, signals, (triangles of all the data, numbers of rows) and the `Front`, from (triangles, numbers of rows) of each fold.

    The noise is that of least error on left-out folds; then noise and signals are scaled together, which changes no mean, to highest
    evidence: the factor is √(residual/rows).
    """
    noise, front = optimise_noise(Folds.of(*zip(*parts, strict=True), threads), noise, score)
    kinds = sorted({t for factors, _ in parts for t in factors})
    factors = {t: linear.merge([f[t] for f, _ in parts if t in f]) for t in kinds}
    counts = {t: sum(c.get(t, 0) for _, c in parts) for t in kinds}
    posterior = linear.solve(factors, {t: noise[t] for t in kinds})
    scale = float(np.sqrt(posterior.residual / sum(counts.values())))
    scale = scale if scale > 0 else 1.0
    levels = {t: scale * level for t, level in noise.items()}
    return levels, [scale * signal for signal in signals], (factors, counts), front.scaled(scale)
