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

#: Structures of a configuration type with a cell of its own: as many as promise 95 %, c ≤ K/(K + 1).
FEWEST_STRUCTURES = 20

#: All species; any configuration type, or none stated.
ALL, ANY = "all", ""

#: Species and configuration type of a cell.
Cell = tuple[str, str]

#: The cell of all scores.
EVERY: Cell = (ALL, ANY)

#: Scores that the normal law counts for: few scores may happen to have short tails.
NORMAL = 100

#: Degrees of freedom of the law beyond the largest score: the tails of errors are heavy.
TAIL = 4.0

#: Rounding of ranks.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Scores:
    """|error| / predicted size of left-out labels, in ascending order.

    Where a new label and these are exchangeable (Vovk, Gammerman and Shafer 2005, doi 10.1007/b106715), it is within
    size × `quantile(c)` with a probability of at least c. Where whole structures are exchangeable and each has several labels, K structures
    with as many each, the expected part of the labels of a new one is at least c·K/(K + 1).

    Attributes
    ----------
    values : up to `KEPT` order statistics.  n : number of scores that these stand for.  structures : K, number of structures of these.
    sample : (m, 2) score, in ascending order, and log of the novelty, for weighted quantiles; of none where there are none to weight.
    """

    values: np.ndarray
    n: int
    structures: int
    sample: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, structure: np.ndarray | None = None, novelty: np.ndarray | None = None) -> Scores:
        """From scores in any order, the structure of each (None: each has its own) and logs of their novelty."""
        ordered, n = np.sort(scores), len(scores)
        if n > KEPT:  # the largest of each of equal groups: never smaller than the true order statistic
            ordered = ordered[np.ceil(np.arange(1, KEPT + 1) * n / KEPT).astype(int) - 1]
        sample = np.zeros((0, 2))
        if novelty is not None:
            some = np.unique(np.linspace(0, n - 1, min(n, KEPT)).astype(int))
            sample = np.column_stack([scores, novelty])[some]
            sample = sample[np.lexsort((sample[:, 1], sample[:, 0]))]
        return cls(ordered, n, n if structure is None else len(np.unique(structure)), sample)

    def promises(self, coverage: float) -> bool:
        """Whether there are structures enough to promise this coverage: c ≤ K/(K + 1)."""
        return coverage * (self.structures + 1) <= self.structures + ROUNDING

    def quantile(self, coverage: float) -> float:
        """The score of rank ⌈(n + 1)·coverage⌉, or more where few scores have shorter tails than a normal law; beyond the last score as the
        tails of Student's t law with four degrees of freedom go on.
        """
        rank = ceil(coverage * (self.n + 1) - ROUNDING)
        if rank > self.n:
            return beyond(self.values[-1] if self.n else None, self.n / (self.n + 1), coverage)
        place = ceil(rank / self.n * len(self.values) - ROUNDING)
        return no_shorter_than_normal(float(self.values[min(place, len(self.values)) - 1]), self.n, coverage)

    def state(self) -> dict:
        """For a model file."""
        return vars(self).copy()


def no_shorter_than_normal(score, n: float, coverage: float):
    """Of few scores, a mean of the score and that of a normal law where this is larger."""
    return np.maximum(score, (n * score + NORMAL * float(ndtri((1 + coverage) / 2))) / (n + NORMAL))


def beyond(largest: float | None, known, coverage: float):
    """A score beyond the largest, which a part ``known`` of all is within; of no scores, as Student's law alone has it."""
    wide = student.ppf((1 + coverage) / 2, TAIL)
    return wide if largest is None else largest * wide / student.ppf((1 + np.clip(known, 0.5, coverage)) / 2, TAIL)


def cells_of(
    scores: np.ndarray, species: np.ndarray, structure: np.ndarray, types: np.ndarray, novelty: np.ndarray | None = None
) -> dict[Cell, Scores]:
    """{species and configuration type: its scores} (Mondrian conformal prediction): all, species, and configuration types of these.

    A species has a cell where it has `FEWEST` scores, a configuration type of it (`ANY`: not stated) where it has as many from
    `FEWEST_STRUCTURES` structures, and there are others. ``types``, ``structure``, ``species`` and logs of novelty are those of each score.
    """

    def some(chosen):
        return Scores.of(scores[chosen], structure[chosen], None if novelty is None else novelty[chosen])

    found = {EVERY: some(slice(None))}
    for symbol in np.unique(species).tolist():
        of_species = species == symbol
        if of_species.sum() < FEWEST:
            continue
        if symbol != ALL:
            found[symbol, ANY] = some(of_species)
        for name in np.unique(types[of_species]).tolist():
            mine = of_species & (types == name)
            enough = mine.sum() >= FEWEST and len(np.unique(structure[mine])) >= FEWEST_STRUCTURES
            if name != ANY and enough and mine.sum() < of_species.sum():
                found[symbol, name] = Scores.of(scores[mine], structure[mine])
    return found


def scores_for(cells: Mapping[Cell, Scores], symbol: str, config_type: str) -> Scores:
    """Those of the configuration type and species, else of the species, else of all."""
    return cells.get((symbol, config_type)) or cells.get((symbol, ANY)) or cells[EVERY]


def quantiles(cells: Mapping[Cell, Scores], names: np.ndarray, coverage: float, config_type: str = ANY) -> np.ndarray:
    """Quantile of the cell of each species of ``names``, in a structure of this configuration type."""
    known = {name: scores_for(cells, name, config_type).quantile(coverage) for name in np.unique(names).tolist()}
    return np.array([known[name] for name in names.tolist()])


def cells_state(cells: Mapping[Cell, Scores]) -> list[dict]:
    """For a model file: a list, for the names of configuration types are whatever users call them."""
    return [{"species": species, "config_type": name, **part.state()} for (species, name), part in cells.items()]


def restored_cells(state, name: str) -> dict[Cell, Scores]:
    """From a model file."""
    if not isinstance(state, list):
        raise ModelFileError(
            f"{name} is {type(state).__name__}, expected a list of cells: the calibration is that of a development version that had none "
            "for configuration types; fit the model again."
        )
    found = {}
    for k, part in enumerate(state):
        here, part = f"{name}[{k}]", stored.mapping(part, f"{name}[{k}]")
        values = stored.array(part["values"], f"{here}.values", shape=(None,))
        sample = stored.array(part["sample"], f"{here}.sample", shape=(None, 2))
        if any((np.diff(scores) < 0).any() or (scores < 0).any() for scores in (values, sample[:, 0])):
            raise ModelFileError(f"{here}: the scores are not in ascending order from zero.")
        counts = [stored.count(part[count], f"{here}.{count}") for count in ("n", "structures")]
        if not len(values) and counts[0]:
            raise ModelFileError(f"{here}: {counts[0]} scores are counted, and none is there.")
        found[str(part["species"]), str(part["config_type"])] = Scores(values, *counts, sample)
    if EVERY not in found:
        raise ModelFileError(f"{name}: the scores of all labels are missing.")
    return found
