"""Structures whose observations are representers, by composition: descriptors, and the vectors v of the derivatives that are observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError
from soapkrr.lazy import cached_property
from soapkrr.regression import stored
from soapkrr.regression.data import TrainingData
from soapkrr.regression.layout import Layout
from soapkrr.structures import Batch
from soapkrr.threads import thread_map

#: Structures of the second argument that meet one of the first at once.
TILE = 16


@dataclass(frozen=True, eq=False)
class Composition:
    """Structures with the same numbers of atoms of each species and the same kinds of derivative observations.

    Attributes
    ----------
    X : per species (n_structures, m_s, d) descriptors.  V : per species (n_structures, m_s, d, k), the k derivative observations.
    index : (n_structures,) position of each structure in its list.  forces, stress : whether these are observed.
    kept : (k,) which of the derivatives of one structure these are, where some are ignored; None: all.
    """

    X: list[np.ndarray]
    V: list[np.ndarray]
    index: np.ndarray
    forces: bool = False
    stress: bool = False
    kept: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def xp(self):
        """The library of its arrays."""
        return backends.namespace(self.X[0])

    def moved(self, xp) -> Composition:
        """The same with arrays of another library."""
        return replace(self, X=backends.moved(xp, self.X), V=backends.moved(xp, self.V))

    @property
    def n_derivatives(self) -> int:
        return self.V[0].shape[3]

    @property
    def size(self) -> int:
        """Observations of one structure: its energy, then the derivatives."""
        return 1 + self.n_derivatives

    def places(self, layout: Layout) -> np.ndarray:
        """(n_structures, size) places of the observations, ascending."""
        places = layout.places(self.index)
        return places if self.kept is None else places[:, np.append(0, 1 + self.kept)]


@dataclass(frozen=True, eq=False)
class ObservedStructures:
    """Structures of which the energy is observed, and where ``forces`` and ``stress`` say so, those; written to model files.

    Attributes
    ----------
    ignored : of each structure (n_atoms,) True where no component of an atom's force is observed, as of atoms that are held; None: of no
        atom, as by default. These have places, but no covariances.
    """

    frames: list[Atoms]
    forces: list[bool]
    stress: list[bool]
    ignored: list[np.ndarray | None] = field(default_factory=list)

    def __post_init__(self):
        if not self.ignored:
            object.__setattr__(self, "ignored", [None] * len(self.frames))

    @classmethod
    def of(cls, data: TrainingData) -> ObservedStructures:
        """The structures of the data, with the kinds of derivative that each has a label of."""
        forces, stress = ([label.has(kind) for label in data.labels] for kind in ("forces", "stress"))
        unknown = [~np.isfinite(label.forces).any(axis=1) if has else None for label, has in zip(data.labels, forces, strict=True)]
        return cls(data.frames, forces, stress, [None if mask is None or not mask.any() else mask for mask in unknown])

    def joined(self, more: ObservedStructures) -> ObservedStructures:
        """These, and then others."""
        return ObservedStructures(*(getattr(self, name) + getattr(more, name) for name in ("frames", "forces", "stress", "ignored")))

    def whole(self) -> ObservedStructures:
        """The same with covariances for every place."""
        return replace(self, ignored=[])

    @cached_property
    def layout(self) -> Layout:
        """Where the observations stand."""
        return Layout([len(atoms) for atoms in self.frames], self.forces, self.stress)

    @property
    def n_rows(self) -> int:
        """Observations that have covariances."""
        return self.layout.size - 3 * sum(int(mask.sum()) for mask in self.ignored if mask is not None)

    def compositions(self, descriptor: Descriptor, threads: int | None = None, xp=np) -> list[Composition]:
        """See `observe`."""
        return observe(descriptor, self.frames, self.forces, self.stress, threads, xp, self.ignored)

    def state(self) -> dict:
        """For a model file."""
        masks = [np.zeros(len(a), dtype=bool) if mask is None else mask for a, mask in zip(self.frames, self.ignored, strict=True)]
        ignored = np.concatenate(masks)
        return {
            "sizes": np.array([len(atoms) for atoms in self.frames]),
            "numbers": np.concatenate([atoms.numbers for atoms in self.frames]),
            "positions": np.concatenate([atoms.positions for atoms in self.frames]),
            "cells": np.array([atoms.cell.array for atoms in self.frames]),
            "pbc": np.array([atoms.pbc for atoms in self.frames]),
            "forces": np.array(self.forces),
            "stress": np.array(self.stress),
            **({"ignored": ignored} if ignored.any() else {}),
        }

    @classmethod
    def restore(cls, state: dict) -> ObservedStructures:
        """From `state`; raises `ModelFileError` where the arrays do not fit together."""
        sizes, numbers = (stored.array(state[name], f"structures.{name}", "i", (None,)) for name in ("sizes", "numbers"))
        n, n_atoms, ends = len(sizes), len(numbers), np.cumsum(sizes)
        if not n or sizes.min() < 1 or sizes.max() > n_atoms or ends[-1] != n_atoms:
            raise ModelFileError(f"the arrays do not fit together: {n} structures with {n_atoms} atoms.")
        positions = stored.array(state["positions"], "structures.positions", shape=(n_atoms, 3))
        cells = stored.array(state["cells"], "structures.cells", shape=(n, 3, 3))
        pbc = stored.array(state["pbc"], "structures.pbc", "b", (n, 3))
        forces, stress = (stored.array(state[name], f"structures.{name}", "b", (n,)) for name in ("forces", "stress"))
        bounds = zip(ends - sizes, ends, cells, pbc, strict=True)
        frames = [Atoms(numbers[a:b], positions[a:b], cell=cell, pbc=axes) for a, b, cell, axes in bounds]
        none = np.zeros(n_atoms, dtype=bool)
        mask = stored.array(state.get("ignored", none), "structures.ignored", "b", (n_atoms,))
        ignored = [mask[a:b] if mask[a:b].any() else None for a, b in zip(ends - sizes, ends, strict=True)]
        return cls(frames, forces.tolist(), stress.tolist(), ignored)


def observe(
    descriptor: Descriptor, frames, forces: list[bool], stress: list[bool], threads=None, xp=np, ignored: Sequence | None = None
) -> list[Composition]:
    """Structures by composition with their descriptors and, where asked for, the vectors of forces and stress, in arrays of ``xp``.

    ``ignored``: as of `ObservedStructures`; atoms of one composition whose forces are ignored are the same.
    """
    keys: dict[tuple, list[int]] = {}
    for index, atoms in enumerate(frames):
        kinds = descriptor.kinds(atoms.numbers)
        mask = None if ignored is None or ignored[index] is None or not forces[index] else ignored[index].tobytes()
        keys.setdefault((tuple(np.bincount(kinds, minlength=descriptor.n_kinds)), forces[index], stress[index], mask), []).append(index)

    def fill(same, place):
        index = same.index[place]
        made = _structure(descriptor, Batch.from_atoms([frames[index]], int(index)), same, xp)
        for out, part in zip((same.X, same.V), made, strict=True):
            for arrays, array in zip(out, part, strict=True):
                arrays[place] = array

    compositions, d = [], descriptor.n_features
    for (counts, has_forces, has_stress, mask), members in keys.items():
        n = 3 * sum(counts) * has_forces
        free = np.ones(n, dtype=bool) if mask is None else np.repeat(~np.frombuffer(mask, dtype=bool), 3)
        kept = None if mask is None else np.append(np.flatnonzero(free), n + np.arange(6 * has_stress))
        k = int(free.sum()) + 6 * has_stress
        X, V = ([xp.empty((len(members), int(m), *shape)) for m in counts] for shape in ((d,), (d, k)))
        compositions.append(Composition(X, V, np.array(members), has_forces, has_stress, kept))
        for _ in thread_map(partial(fill, compositions[-1]), range(len(members)), threads):
            pass
    return compositions


def _structure(descriptor: Descriptor, batch: Batch, same: Composition, xp):
    """Per species X (m, d) and V (m, d, k) of one structure."""
    env = descriptor.environments(batch, xp)
    n, d = env.X.shape
    V = xp.zeros((n, same.n_derivatives, d))
    if same.forces:
        moved = np.ones(n, dtype=bool) if same.kept is None else np.isin(3 * np.arange(n), same.kept)
        m = int(moved.sum())
        place, of_forces = xp.asarray(np.cumsum(moved) - 1), V[:, : 3 * m].reshape(n, m, 3, d)
        for start in [start for start in range(0, n, 8) if moved[start : start + 8].any()]:
            block = env.displaced(start, min(start + 8, n))
            here = slice(None) if moved[start : start + 8].all() else xp.asarray(moved)[block.atom]
            xp.subtract.at(of_forces, (block.centre[here], place[block.atom[here]]), block.jacobian[here])
    if same.stress:
        V[:, -6:] = env.strained(0, n) / float(batch.volumes[0])
    V = V.transpose(0, 2, 1)
    members = [xp.flatnonzero(env.kinds == s) for s in range(descriptor.n_kinds)]
    return [env.X[m] for m in members], [xp.ascontiguousarray(V[m]) for m in members]


def single_atoms(descriptor: Descriptor, batch: Batch, xp=np) -> list[Composition]:
    """Every atom of a batch as a structure of its own whose energy is observed, in the order of the atoms."""
    env = descriptor.environments(batch, xp)
    compositions, d, kinds = [], env.X.shape[1], descriptor.kinds(batch.numbers)
    for s in np.unique(kinds):
        members = np.flatnonzero(kinds == s)
        x = env.X[xp.asarray(members)][:, None]
        X = [x if t == s else xp.zeros((len(members), 0, d)) for t in range(descriptor.n_kinds)]
        compositions.append(Composition(X, [xp.zeros((*x.shape, 0)) for x in X], members))
    return compositions


def tiles(same: Composition, size: int = TILE) -> Iterator[slice]:
    """Consecutive slices of structures of one composition."""
    for start in range(0, len(same), size):
        yield slice(start, min(start + size, len(same)))


def layout_of(compositions: list[Composition]) -> Layout:
    """Where the observations of structures stand that are given by composition."""
    n = sum(map(len, compositions))
    sizes, forces, stress = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for same in compositions:
        sizes[same.index], forces[same.index], stress[same.index] = sum(x.shape[1] for x in same.X), same.forces, same.stress
    return Layout(sizes, forces, stress)


def located(compositions: list[Composition], places: np.ndarray) -> np.ndarray:
    """Where observations at these places (`Layout`) stand among those that are not ignored."""
    layout = layout_of(compositions)
    there = np.zeros(layout.size, dtype=bool)
    for same in compositions:
        there[same.places(layout)] = True
    return (np.cumsum(there) - 1)[places]


def starts(compositions: list[Composition]) -> np.ndarray:
    """(n_structures + 1,) first of the observations of each structure that are not ignored."""
    lengths = np.zeros(sum(map(len, compositions)), dtype=np.int64)
    for same in compositions:
        lengths[same.index] = same.size
    return np.append(0, np.cumsum(lengths))
