"""Batches of structures and their neighbour pairs; forces and stress from pair gradients.

Conventions: pair vector r_ij = r_j + S·cell − r_i, full list sorted by i (CSR offsets); Å throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from soapkrr import backends
from soapkrr.backends.arrays import PairArrays
from soapkrr.display import only_public
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.structure_checks import COINCIDENT, check_structure
from soapkrr.verlet import IN_USE

#: Pairs whose distances are looked at together: they stay in the cache.
STEP = 1 << 16

#: (a, b) Cartesian index pairs in Voigt order xx, yy, zz, yz, xz, xy.
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Full neighbour list of a batch within one cutoff.

    Attributes
    ----------
    j : (n_pairs,) int64, neighbour of each pair (index into the batch).
    vectors : (n_pairs, 3) float64, r_ij in Å.
    offsets : (n_atoms + 1,) int64; pairs of atom i are ``offsets[i]:offsets[i + 1]``.
    """

    j: np.ndarray
    vectors: np.ndarray
    offsets: np.ndarray

    @property
    def neighbours(self) -> np.ndarray:
        """The same as ``j``."""
        return self.j

    @cached_property
    def i(self) -> np.ndarray:
        """(n_pairs,) central atom of each pair."""
        xp = backends.namespace(self.j)
        return xp.searchsorted(self.offsets, xp.arange(len(self.j)), side="right") - 1

    def within(self, radius: float) -> Pairs:
        """The pairs closer than a radius, as NumPy arrays."""
        xp, near = backends.namespace(self.j), []
        for start in range(0, len(self.j), STEP):
            vectors = self.vectors[start : start + STEP]
            near.append(start + xp.flatnonzero(xp.einsum("pa,pa->p", vectors, vectors) < radius * radius))
        chosen = xp.concatenate(near) if near else self.j[:0]
        return Pairs(*backends.host((self.j[chosen], self.vectors[chosen], xp.searchsorted(chosen, self.offsets))))


@dataclass(frozen=True, eq=False)
class Batch:
    """Several structures laid end to end.

    Attributes
    ----------
    positions : (n_atoms, 3) Å.  numbers : (n_atoms,) atomic numbers.
    cells : (n_structures, 3, 3) Å.  pbc : (n_structures, 3) bool.
    offsets : (n_structures + 1,); atoms of structure s are ``offsets[s]:offsets[s + 1]``.
    first : index of the first structure in the list it comes from, for error messages.
    volumes : (n_structures,) Å³, NaN where the structure is not periodic in three directions.
    """

    positions: np.ndarray
    numbers: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    offsets: np.ndarray
    first: int = 0
    _pairs: dict = field(init=False, repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(n_structures,) atoms in each structure."""
        return np.diff(self.offsets)

    @cached_property
    def structure(self) -> np.ndarray:
        """(n_atoms,) structure of each atom."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def frame(self) -> np.ndarray:
        """(n_atoms,) index of each atom's structure in the list it comes from."""
        return self.structure + self.first

    @cached_property
    def inner_bounds(self) -> np.ndarray:
        """Where `np.split` parts an array of atoms into structures."""
        return self.offsets[1:-1]

    @cached_property
    def volumes(self) -> np.ndarray:
        bulk = self.pbc.all(axis=1)
        return np.where(bulk, np.abs(np.linalg.det(np.where(bulk[:, None, None], self.cells, np.eye(3)))), np.nan)

    @classmethod
    def from_atoms(cls, frames: list[Atoms], first: int = 0) -> Batch:
        """Check and pack structures; ``first`` is the index of the first one, for error messages."""
        for index, atoms in enumerate(frames, start=first):
            check_structure(atoms, index)
        return cls(
            positions=np.concatenate([atoms.positions for atoms in frames]).astype(float),
            numbers=np.concatenate([atoms.numbers for atoms in frames]).astype(np.int64),
            cells=np.array([atoms.cell.array for atoms in frames], dtype=float),
            pbc=np.array([atoms.pbc for atoms in frames], dtype=bool),
            offsets=np.cumsum([0] + [len(atoms) for atoms in frames]),
            first=first,
        )

    def pairs(self, r_cut: float, xp=np) -> Pairs:
        """Neighbour pairs with |r_ij| < r_cut, every image counted; arrays of the library ``xp``. Found once and kept.

        Raises
        ------
        InputError : atoms coincide.
        """
        key = (float(r_cut), xp.__name__)
        if key not in self._pairs:
            self._pairs[key] = self._search(r_cut, xp)
        return self._pairs[key]

    def close_pairs(self, radius: float) -> Pairs:
        """`pairs` of a small radius as NumPy arrays, out of a list that is there already where one reaches as far."""
        lists = [pairs for (r_cut, _), pairs in self._pairs.items() if r_cut >= radius]
        return min(lists, key=lambda pairs: len(pairs.j)).within(radius) if lists else self.pairs(radius)

    def _search(self, r_cut: float, xp) -> Pairs:
        neighbours = (IN_USE.get() if xp is np else None) or backends.loops(xp).neighbours.neighbours
        parts, n_pairs = [], 0
        for s, start in enumerate(self.offsets[:-1]):
            try:
                offsets, j, vectors = neighbours(self.positions[start : self.offsets[s + 1]], self.cells[s], self.pbc[s], r_cut)
            except InputError as error:
                raise InputError(f"frame {self.first + s}: {error}") from None
            distances = xp.einsum("pa,pa->p", vectors, vectors)
            if len(j) and float(distances.min()) < COINCIDENT**2:
                self._coincident(s, offsets, j, int(distances.argmin()))
            parts.append((j + int(start), vectors, offsets[bool(s) :] + n_pairs))
            n_pairs += len(j)
        return Pairs(*(part[0] if len(part) == 1 else xp.concatenate(part) for part in zip(*parts, strict=True)))

    def _coincident(self, s: int, offsets, j, p: int) -> None:
        """Raise for pair p of structure s."""
        xp = backends.namespace(j)
        a, b = sorted((int(xp.searchsorted(offsets, p, side="right")) - 1, int(j[p])))
        raise InputError(
            f"frame {self.first + s}: atoms {a} and {b} coincide (closer than {COINCIDENT} Å); "
            "remove the duplicate or check the cell and the periodic directions."
        )

    @property
    def frames(self) -> list[Atoms]:
        """The structures, without calculators and other baggage."""
        return [self.take(s) for s in range(len(self))]

    def take(self, s: int) -> Atoms:
        """Structure s."""
        own = slice(self.offsets[s], self.offsets[s + 1])
        return Atoms(self.numbers[own], self.positions[own], cell=self.cells[s], pbc=self.pbc[s])


class Mean(NamedTuple):
    """Mean of a batch: energies (n_atoms,) eV, forces (n_atoms, 3) eV/Å, strain derivative (n_structures, 6) eV, Voigt order."""

    energies: np.ndarray
    forces: np.ndarray
    strain: np.ndarray

    def plus(self, other: Mean) -> Mean:
        """The sum of both."""
        return Mean(*(a + b for a, b in zip(self, other, strict=True)))


def as_frames(frames) -> list[Atoms]:
    """A non-empty list of structures from a list, an iterable or a single `ase.Atoms`."""
    if isinstance(frames, Atoms):
        return [frames]
    try:
        frames = list(frames)
    except TypeError as error:
        raise InputError(f"`frames` must be a list of ase.Atoms objects, received {type(frames).__name__}.") from error
    if not frames:
        raise InputError("`frames` is empty: at least one structure is needed.")
    for index, atoms in enumerate(frames):
        if not isinstance(atoms, Atoms):
            raise InputError(f"frame {index}: expected an ase.Atoms object, received {type(atoms).__name__}.")
    return frames


def split_by_atoms(frames: list[Atoms], max_atoms: int):
    """Yield (first index, frames) of consecutive groups with at most ``max_atoms`` atoms (or one structure)."""
    start, atoms = 0, 0
    for index, frame in enumerate(frames):
        if index > start and atoms + len(frame) > max_atoms:
            yield start, frames[start:index]
            start, atoms = index, 0
        atoms += len(frame)
    yield start, frames[start:]


def species_name(number: int) -> str:
    """Chemical symbol of an atomic number."""
    return chemical_symbols[int(number)]


def add_rows(sums: np.ndarray, owner: np.ndarray, rows: np.ndarray) -> None:
    """sums[owner[i]] += rows[i] for owners in ascending order; ten times as fast as `np.add.at` on long rows."""
    if len(owner):
        xp = backends.namespace(rows)
        starts = xp.flatnonzero(xp.diff(owner, prepend=owner[:1] - 1))
        sums[owner[starts]] += xp.add.reduceat(rows, starts, axis=0)


def forces_and_strain(batch: Batch, pairs: Pairs | PairArrays, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn ∂E/∂r_ij into forces and the strain derivative: the only place where this is done.

    F_a = Σ_j g_aj − Σ_i g_ia and ∂E/∂ε_ab = Σ_p r_a g_b, symmetrised.

    Parameters
    ----------
    gradient : (n_pairs, 3) eV/Å, ∂E/∂r_ij.

    Returns
    -------
    forces : (n_atoms, 3) eV/Å.
    strain : (n_structures, 6) eV, ∂E/∂ε in Voigt order; divided by the volume it is ASE's stress.
    """
    xp = backends.namespace(gradient)
    forces, strain = xp.empty((batch.n_atoms, 3)), xp.empty((len(batch), 6))
    sums = backends.of(gradient).regression.pair_sums
    sums(pairs.offsets, pairs.neighbours, pairs.vectors, xp.asarray(batch.offsets), gradient, forces, strain)
    return forces, strain


__dir__ = only_public(__name__)
