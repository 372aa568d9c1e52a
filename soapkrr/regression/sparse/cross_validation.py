"""Noise levels by cross-validation, without refitting: every fold is a triangle of its rows, whatever the noise.

For a fixed sparse set the weights without fold f follow from the other folds' Gram matrices G_ft = R_ftᵀR_ft, and the squared error on
the rows of f is vᵀ G_ft v with v = (w, −1): a candidate costs O(folds · r³), no pass over the data. Evidence assumes that the model is
right; where it is not (atoms farther than the cutoff, too few sparse points), leaving structures out is the better guide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from soapkrr import backends, linear
from soapkrr.regression.evidence import BOUNDS

logger = logging.getLogger(__name__)

#: Candidates tried at most.
MAX_CANDIDATES = 40

#: Factor between neighbouring candidates of a noise level.
STEP = 2.0


@dataclass(frozen=True, eq=False)
class Folds:
    """Gram matrices of [Φ | y] of each fold and kind of observation, and the numbers of rows.

    Attributes
    ----------
    grams : per fold {kind: (r + 1, r + 1)}.  counts : per fold {kind: rows}.
    """

    grams: list[dict[str, np.ndarray]]
    counts: list[dict[str, int]]

    @classmethod
    def of(cls, factors: Sequence[Mapping[str, np.ndarray]], counts: Sequence[Mapping[str, int]]) -> Folds:
        """From triangles of [Φ | y]."""
        return cls([{t: f.T @ f for t, f in fold.items()} for fold in factors], [dict(c) for c in counts])

    def errors(self, noise: Mapping[str, float]) -> dict[str, float]:
        """Root mean square error of each kind on left-out folds: energies per √atom as they stand in the rows."""
        total = self._weighted(self.grams, noise)
        squares: dict[str, float] = {}
        for fold in self.grams:
            A = total - self._weighted([fold], noise)
            r = len(A) - 1
            xp = backends.namespace(A)
            C = xp.ascontiguousarray(A[:r, :r])
            C.reshape(-1)[:: r + 1] += 1.0
            L = linear.cholesky(C)
            v = xp.append(linear.backward(L, linear.forward(L, A[:r, r])), xp.full(1, -1.0))
            for t, gram in fold.items():
                squares[t] = squares.get(t, 0.0) + max(float(v @ gram @ v), 0.0)
        return {t: float(np.sqrt(s / sum(c.get(t, 0) for c in self.counts))) for t, s in squares.items()}

    @staticmethod
    def _weighted(folds, noise) -> np.ndarray:
        return sum(gram / noise[t] ** 2 for fold in folds for t, gram in fold.items())


def optimise_noise(folds: Folds, noise: Mapping[str, float]) -> dict[str, float]:
    """Noise levels of least Σ log RMSE over kinds, by steps of `STEP` in one level at a time from those given; within `BOUNDS`."""
    kinds = sorted({t for fold in folds.grams for t in fold})
    tried: dict[tuple, float] = {}

    def score(levels: tuple) -> float:
        if levels not in tried:
            tried[levels] = _score(folds, dict(zip(kinds, levels, strict=True)))
        return tried[levels]

    best, improved = tuple(float(noise[t]) for t in kinds), True
    while improved and len(tried) < MAX_CANDIDATES:
        improved = False
        for k, t in enumerate(kinds):
            for factor in (STEP, 1 / STEP):
                while len(tried) < MAX_CANDIDATES:
                    level = best[k] * factor
                    candidate = (*best[:k], level, *best[k + 1 :])
                    if not BOUNDS[t][0] <= level <= BOUNDS[t][1] or score(candidate) >= score(best) - 1e-3:
                        break
                    best, improved = candidate, True
    logger.info("cross-validation: noise %s of %d candidates", dict(zip(kinds, best, strict=True)), len(tried))
    return {**noise, **dict(zip(kinds, best, strict=True))}


def cross_validated(parts, noise: Mapping[str, float], signals: Sequence[float]):
    """Noise levels, signals, triangles of all the data, and numbers of rows, from (triangles, numbers of rows) of each fold.

    The noise is that of least error on left-out folds; then noise and signals are scaled together, which changes no mean, to highest
    evidence: the factor is √(residual/rows).
    """
    noise = optimise_noise(Folds.of(*zip(*parts, strict=True)), noise)
    kinds = sorted({t for factors, _ in parts for t in factors})
    factors = {t: linear.merge([f[t] for f, _ in parts if t in f]) for t in kinds}
    counts = {t: sum(c.get(t, 0) for _, c in parts) for t in kinds}
    posterior = linear.solve(factors, {t: noise[t] for t in kinds})
    scale = float(np.sqrt(posterior.residual / sum(counts.values())))
    scale = scale if scale > 0 else 1.0
    return {t: scale * level for t, level in noise.items()}, [scale * signal for signal in signals], factors, counts


def _score(folds: Folds, noise: dict[str, float]) -> float:
    try:
        errors = folds.errors(noise)
    except np.linalg.LinAlgError:  # squared condition numbers: so small a noise cannot be told from rounding
        return np.inf
    return float(sum(np.log(max(e, 1e-300)) for e in errors.values()))
