"""Ways to choose sparse points: specifications that a `Term` takes, each a name or one of these objects.

Every method chooses within one species at a time; `selection.methods` has the functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.errors import InputError
from soapkrr.selection import methods
from soapkrr.specification import Specification


class Sites(NamedTuple):
    """Where environments are: frame and atom of each, and all the frames."""

    frame: np.ndarray
    atom: np.ndarray
    frames: list[Atoms]

    @classmethod
    def of(cls, frames: list[Atoms]) -> Sites:
        """Every atom of every frame."""
        sizes = [len(atoms) for atoms in frames]
        return cls(np.repeat(np.arange(len(frames)), sizes), np.concatenate([np.arange(n) for n in sizes]), frames)

    def some(self, mask: np.ndarray) -> Sites:
        return Sites(self.frame[mask], self.atom[mask], self.frames)

    def strata(self, by: str) -> np.ndarray:
        """(n,) str, what each atom has in `arrays` [by] or its frame in `info` [by]; ``"default"`` for none."""
        if not any(by in atoms.info or by in atoms.arrays for atoms in self.frames):
            raise InputError(f"`by`={by!r} is in the `info` or `arrays` of no structure.")
        labels = [atoms.arrays.get(by, np.repeat(str(atoms.info.get(by, "default")), len(atoms))) for atoms in self.frames]
        return np.array([str(labels[s][a]) for s, a in zip(self.frame, self.atom, strict=True)])


class Selection(Specification, ABC):
    """A way to choose sparse points among the environments of one species."""

    #: Copies of the features of one species that choosing makes, with the features themselves.
    copies = 3

    @abstractmethod
    def pick(self, X: np.ndarray, n: int, sites: Sites) -> np.ndarray:
        """Indices of up to ``n`` of the rows X (n_points, n_features), NumPy or CuPy, which are at ``sites``."""


@dataclass(frozen=True)
class FarthestPoint(Selection):
    """Each point farthest from those before (`selection.farthest_point_sampling`); ``"fps"``."""

    copies = 1

    def pick(self, X, n, sites):
        return methods.farthest_point_sampling(X, n)


@dataclass(frozen=True)
class CUR(Selection):
    """Largest weight in the leading singular vector, projected out, and again (`selection.cur`); ``"cur"``."""

    copies = 2

    def pick(self, X, n, sites):
        return methods.cur(backends.host(X), n)


@dataclass(frozen=True)
class Leverage(Selection):
    """By leverage score (`selection.leverage`); ``"leverage"``.

    Parameters
    ----------
    rank : leading singular vectors that count; None: as many as points.
    seed : a number draws with probability proportional to the score, None takes the largest scores.
    """

    rank: int | None = None
    seed: int | None = 0

    def __post_init__(self):
        if self.rank is not None:
            _require_whole(1, rank=self.rank)
        if self.seed is not None:
            _require_whole(0, seed=self.seed)

    def pick(self, X, n, sites):
        return methods.leverage(backends.host(X), n, self.rank, self.seed)


@dataclass(frozen=True)
class RandomSelection(Selection):
    """At random (`selection.random_selection`); ``"random"``."""

    copies = 1

    seed: int = 0

    def __post_init__(self):
        _require_whole(0, seed=self.seed)

    def pick(self, X, n, sites):
        return methods.random_selection(backends.host(X), n, self.seed)


@dataclass(frozen=True)
class KMeans(Selection):
    """The environment nearest to the centre of each of n clusters (`selection.k_means`); ``"kmeans"``."""

    seed: int = 0

    def __post_init__(self):
        _require_whole(0, seed=self.seed)

    def pick(self, X, n, sites):
        return methods.k_means(backends.host(X), n, self.seed)


@dataclass(frozen=True)
class Stratified(Selection):
    """A share of the points from each group, chosen within the group by another method (`selection.stratified`).

    Parameters
    ----------
    by : name in `info` (as ``"config_type"``) or `arrays` that tells the groups; species are apart anyway. None: ``"default"``.
    method : how points are chosen within a group: a name or a specification.
    weights : None: in proportion to the groups' environments; ``"equal"``; or {group: relative share}, groups not named having none.
    """

    by: str = "config_type"
    method: str | Selection = "fps"
    weights: Mapping[str, float] | str | None = None

    def __post_init__(self):
        if isinstance(as_selection(self.method), (Stratified, GivenPoints)):
            raise InputError(f"`method` must choose by descriptor, received {self.method!r}.")
        weights = self.weights
        if isinstance(weights, Mapping):
            if not any(w > 0 for w in weights.values()) or not all(np.isfinite(w) and w >= 0 for w in weights.values()):
                raise InputError(f"`weights` must be finite numbers ≥ 0, one of them positive, received {dict(weights)!r}.")
        elif weights not in (None, "equal"):
            raise InputError(f"`weights` must be None, 'equal' or a mapping {{group: share}}, received {weights!r}.")

    @property
    def copies(self) -> int:
        """The method's, and the features of a group."""
        return 1 + as_selection(self.method).copies

    def pick(self, X, n, sites):
        method, strata = as_selection(self.method), sites.strata(self.by)
        self._check_groups(sites.frames)
        # Methods that stratification takes choose by X alone.
        return methods.stratified(X, n, strata, lambda x, k: method.pick(x, k, sites), self.weights)

    def _check_groups(self, frames: list[Atoms]) -> None:
        if isinstance(self.weights, Mapping):
            there = set(Sites.of(frames).strata(self.by).tolist())
            unknown = sorted(set(self.weights) - there)
            if unknown:
                raise InputError(f"`weights` names {unknown}, but no structure has such a `{self.by}`; there are {sorted(there)}.")


@dataclass(frozen=True)
class GivenPoints(Selection):
    """The environments named; ``n_sparse`` does not apply.

    Parameters
    ----------
    indices : pairs (frame, atom), or frames, all of whose atoms are taken; each species of the data needs one.
    """

    copies = 1

    indices: Sequence[tuple[int, int] | int]

    def __post_init__(self):
        indices = tuple(tuple(x) if np.ndim(x) else (x,) for x in self.indices)
        if not indices or not all(len(x) <= 2 and all(isinstance(k, Integral) and k >= 0 for k in x) for x in indices):
            raise InputError(f"`indices` must be pairs (frame, atom) or frames, whole numbers from 0, received {self.indices!r}.")
        object.__setattr__(self, "indices", tuple(int(x[0]) if len(x) == 1 else (int(x[0]), int(x[1])) for x in indices))

    def pick(self, X, n, sites):
        named = {x if isinstance(x, tuple) else (x, None) for x in self.indices}
        for frame, atom in named:
            if frame >= len(sites.frames) or (atom or 0) >= len(sites.frames[frame]):
                raise InputError(f"`indices` names frame {frame}{'' if atom is None else f', atom {atom}'}, which the data do not have.")
        where = zip(sites.frame.tolist(), sites.atom.tolist(), strict=True)
        return np.flatnonzero([(s, a) in named or (s, None) in named for s, a in where])


def _require_whole(least: int, **values) -> None:
    for name, value in values.items():
        if not isinstance(value, Integral) or value < least:
            raise InputError(f"`{name}` must be a whole number ≥ {least}, received {value!r}.")


#: Methods that go by a name.
NAMED = {"fps": FarthestPoint, "cur": CUR, "leverage": Leverage, "random": RandomSelection, "kmeans": KMeans}


def as_selection(value: str | Selection) -> Selection:
    """A specification from its name or itself."""
    if isinstance(value, Selection):
        return value
    if not isinstance(value, str) or value not in NAMED:
        raise InputError(f"`selection` must be one of {sorted(NAMED)} or a specification such as `Stratified`, received {value!r}.")
    return NAMED[value]()
