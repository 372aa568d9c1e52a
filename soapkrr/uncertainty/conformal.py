"""Quantiles of errors in units of their predicted size, with a guarantee for finite samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.special import ndtri
from scipy.stats import t as student

from soapkrr.errors import ModelFileError
from soapkrr.regression import stored

#: Scores kept of each cell; of more, evenly spread ones.
KEPT = 2000

#: Scores of a cell of its own; cells of fewer share those of all.
FEWEST = 50

#: The cell of all scores.
ALL = "all"

#: Scores that the normal law counts for: few scores may happen to have short tails.
NORMAL = 100

#: Degrees of freedom of the law beyond the largest score: the tails of errors are heavy.
TAIL = 4.0


@dataclass(frozen=True, eq=False)
class Scores:
    """|error| / predicted size of left-out labels, in ascending order.

    Where a new label and these are exchangeable (Vovk, Gammerman and Shafer 2005, doi 10.1007/b106715), it is within
    size × `quantile(c)` with a probability of at least c.

    Attributes
    ----------
    values : up to `KEPT` order statistics.  n : number of scores that these stand for.
    """

    values: np.ndarray
    n: int

    @classmethod
    def of(cls, scores: np.ndarray) -> Scores:
        """From scores in any order."""
        ordered, n = np.sort(scores), len(scores)
        if n > KEPT:  # the largest of each of equal groups: never smaller than the true order statistic
            ordered = ordered[np.ceil(np.arange(1, KEPT + 1) * n / KEPT).astype(int) - 1]
        return cls(ordered, n)

    def promises(self, coverage: float) -> bool:
        """Whether there are enough scores to promise this coverage."""
        return ceil(coverage * (self.n + 1)) <= self.n

    def quantile(self, coverage: float) -> float:
        """The score of rank ⌈(n + 1)·coverage⌉, or more where few scores have shorter tails than a normal law; beyond the last score as the
        tails of Student's t law with four degrees of freedom go on.
        """
        if self.promises(coverage):
            rank = ceil(coverage * (self.n + 1)) / self.n
            score = float(self.values[min(ceil(rank * len(self.values)), len(self.values)) - 1])
            return max(score, (self.n * score + NORMAL * float(ndtri((1 + coverage) / 2))) / (self.n + NORMAL))
        known = self.n / (self.n + 1)
        wide = student.ppf((1 + coverage) / 2, TAIL)
        return float(wide if not self.n else self.values[-1] * wide / student.ppf((1 + known) / 2, TAIL))

    def state(self) -> dict:
        """For a model file."""
        return {"values": self.values, "n": self.n}


def cells_of(scores: np.ndarray, cells: np.ndarray) -> dict[str, Scores]:
    """{name of a cell: its scores} of cells with at least `FEWEST`, and ``"all"`` (Mondrian conformal prediction)."""
    found = {ALL: Scores.of(scores)}
    for name in np.unique(cells):
        mine = scores[cells == name]
        if len(mine) >= FEWEST:
            found[str(name)] = Scores.of(mine)
    return found


def restored_cells(state) -> dict[str, Scores]:
    """From a model file."""
    found = {}
    for name, part in stored.mapping(state, "scores").items():
        values = stored.array(stored.mapping(part, "scores")["values"], f"scores.{name}", shape=(None,))
        if (np.diff(values) < 0).any() or (values < 0).any():
            raise ModelFileError(f"scores.{name} are not in ascending order from zero.")
        found[name] = Scores(values, stored.count(part["n"], f"scores.{name}.n"))
    if ALL not in found:
        raise ModelFileError("the scores of all labels are missing.")
    return found


def quantiles(cells: Mapping[str, Scores], names: np.ndarray, coverage: float) -> np.ndarray:
    """Quantile of the cell of each name, of all where it has none."""
    known = {name: cells.get(name, cells[ALL]).quantile(coverage) for name in np.unique(names).tolist()}
    return np.array([known[name] for name in names.tolist()])
