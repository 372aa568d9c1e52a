"""Bytes that the parts of a fit and of a prediction hold, and the sizes of blocks that keep them below a limit.

Formulas count the large arrays of the loops they stand for; `plan.MARGIN` and `SLACK` are what limits allow for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2, prod
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

from soapkrr.backends import loops
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.projection import BUDGET, Compressed, Projected, Wrapper
from soapkrr.errors import MemoryLimitError
from soapkrr.execution.memory import format_memory
from soapkrr.execution.resources import LEARNING_BYTES
from soapkrr.planning.plan import MARGIN, SLACK
from soapkrr.structures import Batch

#: Bytes of a neighbour pair: two indices and a vector, and once more while lists of structures are joined.
PAIR = 110

#: Bytes of an atom of the data: labels before and after the prior mean is taken off.
ATOM = 200

#: Atoms whose pairs are counted for an estimate; fewer are counted all.
SAMPLE_ATOMS = 4_000

#: Atoms from which a structure's pairs are counted on some of its atoms.
LARGE = 20_000


class Data(NamedTuple):
    """What is fitted or predicted.

    Attributes
    ----------
    structures, atoms : how many.  largest : atoms of the largest structure.  smallest : mean number of atoms of the smallest structures
    that fill a group: they have most energies and stresses for an atom.  rows : {kind of observation: number}.
    """

    structures: int
    atoms: int
    largest: int
    smallest: float
    rows: Mapping[str, int]

    @classmethod
    def of(cls, frames: list[Atoms], rows: Mapping[str, int], group: int) -> Data:
        """Sizes of structures, with the rows they give, in groups of so many atoms."""
        lengths = np.sort([len(atoms) for atoms in frames])
        total = np.cumsum(lengths)
        last = min(int(np.searchsorted(total, group)), len(lengths) - 1)
        return cls(len(frames), int(total[-1]), int(lengths[-1]), float(total[last] / (last + 1)), rows)

    def at_once(self, xp) -> int:
        """Atoms whose features a thread computes at once."""
        return max(self.largest, min(2 * loops(xp).GROUP, self.atoms))


@dataclass(frozen=True)
class TermSize:
    """What the cost of one term depends on.

    Attributes
    ----------
    features : length of the descriptor.  inner : of the one inside whose Jacobian is projected, else the same.
    state : floats of an atom that values leave for derivatives.  neighbours : mean number of pairs of an atom.
    points, ranks : per species, sparse points and features.
    """

    features: int
    inner: int
    state: int
    neighbours: float
    points: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()

    @classmethod
    def of(cls, descriptor: Descriptor, neighbours: float, points: Sequence[int] = (), ranks: Sequence[int] | None = None) -> TermSize:
        """Sizes of a descriptor; its state is looked at on a single atom."""
        atom = Batch.from_atoms([Atoms([descriptor.species[0]], positions=np.zeros((1, 3)))])
        state = sum(prod(array.shape[1:]) for array in descriptor.environments(atom).state if isinstance(array, np.ndarray))
        inner = descriptor.descriptor.n_features if isinstance(descriptor, (Compressed, Projected)) else descriptor.n_features
        points = tuple(int(n) for n in points)
        return cls(kept_features(descriptor), inner, state, neighbours, points, points if ranks is None else tuple(ranks))

    @property
    def rank(self) -> int:
        return sum(self.ranks)

    def values(self) -> float:
        """Features, state and pairs of one atom."""
        return 8 * (self.features + self.state) + PAIR * self.neighbours

    def displaced(self, atoms: int) -> float:
        """Jacobian block of so many displaced atoms and its products with the sparse points."""
        rows = 3 * atoms * (self.neighbours + 1)
        inner = 2 * min(BUDGET, 8 * rows * self.inner) if self.inner != self.features else 0.0
        return 8 * rows * (self.features + max(self.points, default=0)) + inner


def kept_features(descriptor: Descriptor) -> int:
    """Length of a descriptor once it has learnt; of a part of variance to be kept, the length before."""
    if isinstance(descriptor, Compressed) and isinstance(descriptor.n_components, (int, np.integer)):
        return min(int(descriptor.n_components), descriptor.n_features)
    if isinstance(descriptor, Wrapper) and isinstance(descriptor.descriptor, Compressed):
        return kept_features(descriptor.descriptor)
    return descriptor.n_features


def neighbours(frames: list[Atoms], r_cut: float) -> tuple[float, str]:
    """Mean number of neighbours within ``r_cut``, and how it is known."""
    total = sum(map(len, frames))
    step = max(1, total // SAMPLE_ATOMS)
    sample = frames[step // 2 :: step] or frames[:1]
    counts = [_pairs(atoms, r_cut) for atoms in sample]
    exact = len(sample) == len(frames) and max(map(len, sample)) <= LARGE
    known = "counted" if exact else f"estimated from {len(sample)} structure{'s' * (len(sample) > 1)}"
    return sum(counts) / sum(map(len, sample)), known


def _pairs(atoms: Atoms, r_cut: float) -> float:
    """Pairs of one structure; of a very large one from the atoms farther than ``r_cut`` from the faces of its cell."""
    if len(atoms) > LARGE:
        cell = complete_cell(atoms.cell.array) if atoms.pbc.any() else np.eye(3)
        heights = abs(np.linalg.det(cell)) / np.linalg.norm(np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1)
        scaled = np.where(atoms.pbc, np.linalg.solve(cell.T, atoms.positions.T).T % 1.0, 0.5)
        depth = np.minimum(scaled, 1 - scaled) * heights
        inside = np.flatnonzero((depth > r_cut)[:, atoms.pbc].all(axis=1))[:: max(1, len(atoms) // SAMPLE_ATOMS)]
        if len(inside):
            wrapped = np.where(atoms.pbc, scaled, np.linalg.solve(cell.T, atoms.positions.T).T) @ cell
            counts = cKDTree(wrapped).query_ball_point(wrapped[inside], r_cut, return_length=True) - 1
            return len(atoms) * float(counts.mean())
    return float(len(Batch.from_atoms([atoms]).pairs(r_cut).j))


@dataclass(frozen=True)
class Rows:
    """Bytes of making design rows and absorbing them into triangles of k columns, k − 1 sparse points; see `sparse.triangles`.

    Attributes
    ----------
    columns : k.  rows : {kind of observation: number of rows}, of all atoms.
    atom : of a thread, for each atom of its group.  fixed : of a thread, whatever its group.
    """

    columns: int
    rows: Mapping[str, int]
    n_atoms: int
    atom: float
    fixed: float

    @classmethod
    def of(cls, sizes: Sequence[TermSize], data: Data, xp) -> Rows:
        """Rows of terms of these sizes, computed with arrays of ``xp``."""
        k = sum(sum(t.points) for t in sizes) + 1
        per_atom = {"energy": 1 / data.smallest, "forces": 3.0, "stress": 6 / data.smallest}
        rows = [per_atom[kind] for kind in data.rows]
        atom = sum(t.values() + 24 * max(t.points, default=0) for t in sizes) + 8 * k * (sum(rows) + max(rows))
        return cls(k, data.rows, data.atoms, atom, max(t.displaced(loops(xp).DISPLACED) for t in sizes))

    def triangles(self, n_atoms: float) -> float:
        """Bytes of the triangles of so many atoms' rows."""
        part = min(1.0, n_atoms / self.n_atoms)
        return sum(8.0 * self.columns * min(self.columns, n * part) for n in self.rows.values())

    def waiting(self, threads: int, chunk: int) -> float:
        """Bytes of triangles of chunks that wait to be merged, and of merging."""
        chunks = ceil(self.n_atoms / chunk)
        # Of the tree of merges and, in order of the chunks, of those that are done before the ones ahead of them.
        held = min(max(chunks - threads, 0), ceil(log2(chunks)) + 1 + (threads + 1 if threads > 1 else 0))
        return held * self.triangles(chunk) + 16.0 * self.columns**2

    def thread(self, group: int, chunk: int) -> float:
        """Bytes of a thread that works on a chunk by groups of atoms."""
        return self.fixed + self.atom * min(group, self.n_atoms) + self.triangles(chunk) + 8.0 * self.columns**2

    def total(self, threads: int, group: int, chunk: int) -> float:
        threads = min(threads, ceil(self.n_atoms / chunk))
        return threads * self.thread(group, chunk) + self.waiting(threads, chunk)

    def division(self, threads: int, group: int, chunk: int, largest: int, room: float) -> tuple[int, int, int]:
        """(threads, atoms of a group, atoms of a chunk) within ``room`` bytes, at most those given; one structure is never divided.

        Groups shrink to a quarter before threads are given up, and chunks become one in the end; the smallest answer is groups of
        ``largest``.
        """
        for n, length in [*((n, chunk) for n in range(threads, 0, -1)), (1, max(chunk, self.n_atoms))]:
            fits = (room - self.total(n, 0, length)) / (n * self.atom)
            if fits >= max(largest, group // 4):
                return n, int(min(max(largest, group), fits)), length
        return 1, max(largest, int(min(group, fits))), length

    def least(self, largest: int) -> float:
        """On one thread, by groups of the largest structure."""
        return self.total(1, largest, self.n_atoms)


def learning_bytes(descriptor: Descriptor, atoms: int) -> float:
    """Features from which a descriptor learns."""
    return min(LEARNING_BYTES, 8.0 * descriptor.n_features * atoms) if descriptor.learns else 0.0


def features_within(room: float, filling: float, features: float, threads: int) -> tuple[float, int]:
    """Bytes, of all ``features``, for which there is room, and how many threads compute them, each taking ``filling`` bytes.

    The bytes do not depend on the number of threads: the same points are chosen on every machine.
    """
    features = min(features, 0.75 * room, room - filling)
    return features, int(max(1, min(threads, (room - features) / filling)))


def usable(limit: int | None) -> float:
    """Bytes that formulas may count up to under a limit."""
    return np.inf if limit is None else (limit - SLACK) / MARGIN


def check(limit: int | None, needed: Mapping[str, float], instead: str = "") -> None:
    """Raise where the limit does not hold the least that some stage {name: bytes} needs; the message says what would be enough."""
    worst = max(needed, key=needed.get)
    if needed[worst] > usable(limit):
        raise MemoryLimitError(
            f"`memory_limit`={format_memory(limit)} is too small for {worst}: "
            f"{format_memory(needed[worst] * MARGIN + SLACK)} would be enough{instead and f'; {instead}'}."
        )
