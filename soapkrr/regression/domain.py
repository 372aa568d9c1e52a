"""Where a fitted potential is at home: how close atoms come to each other in the training data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from soapkrr.errors import ModelFileError
from soapkrr.lazy import cached_property
from soapkrr.regression import stored
from soapkrr.structures import Batch, species_name

#: Pairs closer than this part of the shortest distance of their species in the data are outside.
MARGIN = 0.9

#: Atomic numbers, 0 for none.
NUMBERS = 119


@dataclass(frozen=True, eq=False)
class Domain:
    """Shortest distance of every pair of species in the training data; below it, a fit only extrapolates.

    Attributes
    ----------
    shortest : {"A-B": Å}, symbols in order of atomic number; two species that never are within ``r_cut`` of each other have that.
    counts : {"A-B": number of distances below ``r_cut``}.
    r_cut : radius within which distances are known, Å.
    """

    shortest: Mapping[str, float]
    counts: Mapping[str, int]
    r_cut: float

    @classmethod
    def of(cls, batches: Iterable[Batch], r_cut: float) -> Domain:
        """The domain of the structures of some batches."""
        shortest, counts = np.full(NUMBERS**2, r_cut), np.zeros(NUMBERS**2, dtype=int)
        present: set[int] = set()
        for batch in batches:
            present |= set(np.unique(batch.numbers).tolist())
            pairs = batch.pairs(r_cut)
            kind = NUMBERS * np.repeat(batch.numbers, np.diff(pairs.offsets)) + batch.numbers[pairs.j]
            distances = np.sqrt(np.einsum("pa,pa->p", pairs.vectors, pairs.vectors))
            for one in np.unique(kind):
                mine = kind == one
                shortest[one] = min(shortest[one], distances[mine].min())
                counts[one] += int(mine.sum())
        species = sorted(present)
        keys = {f"{species_name(a)}-{species_name(b)}": (NUMBERS * a + b, a == b) for k, a in enumerate(species) for b in species[k:]}
        return cls(
            {name: float(shortest[place]) for name, (place, _) in keys.items()},
            {name: int(counts[place]) // (2 if same else 1) for name, (place, same) in keys.items()},
            float(r_cut),
        )

    def joined(self, other: Domain) -> Domain:
        """The domain of the data of both, which were looked at within the same radius."""
        names = {**self.shortest, **other.shortest}
        shortest = {name: min(part.shortest.get(name, self.r_cut) for part in (self, other)) for name in names}
        return Domain(shortest, {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names}, self.r_cut)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Atomic numbers of the species of the data, in ascending order."""
        return np.unique([atomic_numbers[symbol] for name in self.shortest for symbol in name.split("-")])

    @cached_property
    def known(self) -> np.ndarray:
        """(119,) whether the data have a species, by atomic number."""
        return np.isin(np.arange(NUMBERS), self.numbers)

    @cached_property
    def _limits(self) -> np.ndarray:
        """(119, 119) squared distance, by atomic numbers, below which a pair is outside."""
        table = np.full((NUMBERS, NUMBERS), self.r_cut)
        for name, distance in self.shortest.items():
            a, b = (atomic_numbers[symbol] for symbol in name.split("-"))
            table[a, b] = table[b, a] = MARGIN * distance if distance < self.r_cut else self.r_cut
        return table**2

    def outside(self, batch: Batch) -> np.ndarray:
        """(n_structures,) whether a structure has a pair closer than `MARGIN` × the shortest of its species in the data."""
        found, present = np.zeros(len(batch), dtype=bool), np.unique(batch.numbers)
        pairs = batch.close_pairs(float(np.sqrt(self._limits[np.ix_(present, present)].max())))
        square = np.einsum("pa,pa->p", pairs.vectors, pairs.vectors)
        close = square < self._limits[batch.numbers[pairs.i], batch.numbers[pairs.j]]
        found[batch.structure[pairs.i[close]]] = True
        return found

    def state(self) -> dict:
        """For a model file."""
        return {"shortest": dict(self.shortest), "counts": dict(self.counts), "r_cut": self.r_cut}


def restored_domain(state) -> Domain | None:
    """From a model file; None where it was written by a version that did not know domains."""
    if state is None:
        return None
    given = stored.mapping(state, "domain")
    shortest, counts = stored.mapping(given["shortest"], "domain.shortest"), stored.mapping(given["counts"], "domain.counts")
    for name in shortest:
        parts = name.split("-")
        if len(parts) != 2 or not set(parts) <= set(atomic_numbers) or name not in counts:
            raise ModelFileError(
                f"domain.shortest names the pair {name!r}, expected two elements, as in 'Si-O', that domain.counts has too."
            )
    return Domain(
        {name: stored.number(distance, f"domain.shortest[{name!r}]", positive=True) for name, distance in shortest.items()},
        {name: stored.count(n, f"domain.counts[{name!r}]") for name, n in counts.items()},
        stored.number(given["r_cut"], "domain.r_cut", positive=True),
    )
