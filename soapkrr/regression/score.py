"""What a fit that has a choice makes small: errors of energies, forces and stresses on structures left out, weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from soapkrr.errors import InputError
from soapkrr.labels import KINDS

#: Weights of the kinds of labels by what the user wants.
SCORES = {"balanced": dict.fromkeys(KINDS, 1.0), "energy": {"energy": 1.0}, "forces": {"forces": 1.0}}

#: With ``"balanced"`` no kind has errors so many times the least that it could have alone, where noise levels can do that.
BOUND = 1.15

#: Cost of an error beyond the bound, beside that of the same part of a kind that counts.
BEYOND = 10.0

#: Weight, beside 1, of kinds that do not count: they tell apart what is equal for the others.
TIE = 0.05


@dataclass(frozen=True)
class Score:
    """What is to be small: Π_k error_k^(w_k/Σw), k over the kinds of labels that there are.

    Attributes
    ----------
    weights : {kind: w_k}; kinds that are not named do not count.
    bound : largest error of a kind, beside the least that it could have alone, where that can be known; None: any.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: SCORES["balanced"])
    bound: float | None = BOUND

    @classmethod
    def of(cls, score: str | Mapping[str, float]) -> Score:
        """From its name in `SCORES`, or weights; raises `InputError` for others."""
        if isinstance(score, str) and score in SCORES:
            return cls(SCORES[score], BOUND if score == "balanced" else None)
        if not isinstance(score, Mapping) or not score or not set(score) <= set(KINDS):
            raise InputError(f"`score` must be one of {list(SCORES)} or give some of {list(KINDS)} a weight, received {score!r}.")
        bad = {kind: w for kind, w in score.items() if not (np.isreal(w) and np.isfinite(w) and w >= 0)}
        if bad or not sum(score.values()) > 0:
            raise InputError(f"`score` must give weights of at least 0, one of them above it; received {dict(score)!r}.")
        return cls({kind: float(w) for kind, w in score.items()}, None)

    def __call__(self, errors: Mapping[str, float]) -> float:
        """Of errors by kind; NaN where none of them counts."""
        counted = self._counted(errors)
        if not counted:
            return np.nan
        return float(np.exp(sum(w * _log(errors[kind]) for kind, w in counted.items()) / sum(counted.values())))

    def difference(self, squares: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> tuple[float, float]:
        """log(score / score of the others) of the structures that both have, and its standard error.

        The error is that of paired structures, by the infinitesimal jackknife (Efron 1982, doi 10.1137/1.9781611970319, chapter 6): with q,
        q′ the parts of the squares that a structure has, √(Σ_s [½ Σ_k w_k (q_ks − q′_ks)/Σw]² n/(n − 1)). It is large where few structures
        make the difference, and NaN as the difference where nothing that counts is in both.

        Parameters
        ----------
        squares, others : {kind: (n_structures,) sum of squared errors}, NaN where a structure has none.
        """
        counted = self._counted({kind: 0.0 for kind in squares if kind in others})
        difference, pulls = 0.0, 0.0
        for kind, w in counted.items():
            own, other = squares[kind], others[kind]
            both = np.isfinite(own) & np.isfinite(other)
            own, other = (np.where(both, part, 0.0) / max(float(part[both].sum()), 1e-300) for part in (own, other))
            part = 0.5 * w / sum(counted.values())
            difference += part * (_log(float(squares[kind][both].sum())) - _log(float(others[kind][both].sum())))
            pulls = pulls + part * (own - other)
        n = np.size(pulls)
        return (difference, float(np.sqrt(n / max(n - 1, 1) * np.sum(np.square(pulls))))) if counted else (np.nan, np.nan)

    def cost(self, errors: Mapping[str, float], least: Mapping[str, float] | None = None) -> float:
        """Logarithm of the score, times the number of kinds that count, and what is added to it where noise levels are compared.

        Kinds that do not count add `TIE` times the logarithms of their errors; an error beyond ``bound`` times the ``least`` of its kind,
        {kind: error}, adds `BEYOND` times the logarithm of that.
        """
        counted = self._counted(errors)
        total = sum(w * _log(errors[kind]) for kind, w in counted.items()) * len(counted) / (sum(counted.values()) or 1.0)
        total += TIE * sum(_log(error) for kind, error in errors.items() if kind not in counted)
        if self.bound is None or not least:
            return float(total)
        worst = max(_log(errors[kind]) - _log(error) for kind, error in least.items())
        return float(total + BEYOND * max(0.0, worst - np.log(self.bound)))

    def _counted(self, errors: Mapping[str, float]) -> dict[str, float]:
        return {kind: w for kind, w in self.weights.items() if w > 0 and kind in errors}


def _log(error: float) -> float:
    return float(np.log(max(error, 1e-300)))
