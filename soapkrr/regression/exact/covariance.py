"""Observations as representers: covariances between energies, forces and stresses of whole structures.

A structure's observations are linear functionals of the atoms' energies. Energy: Σ_i ε(x_i). A force or stress component:
Σ_i v_i·∂ε/∂x_i, with v_i = −∂x_i/∂r_ab or (1/V) ∂x_i/∂ε_ab. With the kernel's 2-jet (see `kernels`) the covariance of two of them is a
sum over pairs of atoms of the same species. Structures of the same composition are handled together, so that the work is matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError
from soapkrr.kernels import Kernel, squares
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
    """

    X: list[np.ndarray]
    V: list[np.ndarray]
    index: np.ndarray
    forces: bool = False
    stress: bool = False

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


@dataclass(frozen=True, eq=False)
class ObservedStructures:
    """Structures of which the energy is observed, and where ``forces`` and ``stress`` say so, those; written to model files."""

    frames: list[Atoms]
    forces: list[bool]
    stress: list[bool]

    @classmethod
    def of(cls, data: TrainingData) -> ObservedStructures:
        """The structures of the data, with the kinds of derivative that each has a label of."""
        return cls(data.frames, *([label.has(kind) for label in data.labels] for kind in ("forces", "stress")))

    @cached_property
    def layout(self) -> Layout:
        """Where the observations stand."""
        return Layout([len(atoms) for atoms in self.frames], self.forces, self.stress)

    def compositions(self, descriptor: Descriptor, threads: int | None = None, xp=np) -> list[Composition]:
        """See `observe`."""
        return observe(descriptor, self.frames, self.forces, self.stress, threads, xp)

    def state(self) -> dict:
        """For a model file."""
        return {
            "sizes": np.array([len(atoms) for atoms in self.frames]),
            "numbers": np.concatenate([atoms.numbers for atoms in self.frames]),
            "positions": np.concatenate([atoms.positions for atoms in self.frames]),
            "cells": np.array([atoms.cell.array for atoms in self.frames]),
            "pbc": np.array([atoms.pbc for atoms in self.frames]),
            "forces": np.array(self.forces),
            "stress": np.array(self.stress),
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
        return cls(frames, forces.tolist(), stress.tolist())


def observe(descriptor: Descriptor, frames, forces: list[bool], stress: list[bool], threads=None, xp=np) -> list[Composition]:
    """Structures by composition with their descriptors and, where asked for, the vectors of forces and stress, in arrays of ``xp``."""
    keys: dict[tuple, list[int]] = {}
    for index, atoms in enumerate(frames):
        kinds = descriptor.kinds(atoms.numbers)
        keys.setdefault((tuple(np.bincount(kinds, minlength=descriptor.n_kinds)), forces[index], stress[index]), []).append(index)

    def fill(same, place):
        index = same.index[place]
        made = _structure(descriptor, Batch.from_atoms([frames[index]], int(index)), same, xp)
        for out, part in zip((same.X, same.V), made, strict=True):
            for arrays, array in zip(out, part, strict=True):
                arrays[place] = array

    compositions, d = [], descriptor.n_features
    for (counts, has_forces, has_stress), members in keys.items():
        k = 3 * sum(counts) * has_forces + 6 * has_stress
        X, V = ([xp.empty((len(members), int(m), *shape)) for m in counts] for shape in ((d,), (d, k)))
        compositions.append(Composition(X, V, np.array(members), has_forces, has_stress))
        for _ in thread_map(partial(fill, compositions[-1]), range(len(members)), threads):
            pass
    return compositions


def _structure(descriptor: Descriptor, batch: Batch, same: Composition, xp):
    """Per species X (m, d) and V (m, d, k) of one structure."""
    env = descriptor.environments(batch, xp)
    n, d = env.X.shape
    V = xp.zeros((n, same.n_derivatives, d))
    if same.forces:
        for start in range(0, n, 8):
            block = env.displaced(start, min(start + 8, n))
            xp.subtract.at(V[:, : 3 * n].reshape(n, n, 3, d), (block.centre, block.atom), block.jacobian)
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


def block_covariance(kernel: Kernel, A: Composition, s: int, B: Composition, tile: slice) -> np.ndarray:
    """(1 + k_A, n_tile, 1 + k_B) covariance of the observations of structure s of A with those of a tile of B; unit signal."""
    n = tile.stop - tile.start
    out = A.xp.zeros((A.size, n, B.size))
    for xa, va, xb, vb in zip(A.X, A.V, B.X, B.V, strict=True):
        if xa.shape[1] and xb.shape[1]:
            _species_covariance(kernel, xa[s], va[s], xb[tile], vb[tile], out)
    return out


def _species_covariance(kernel, x, v, y, w, out) -> None:
    """Add one species' part: x (m, d), v (m, d, k) of one structure; y (n, p, d), w (n, p, d, l) of a tile."""
    (m, d, k), (n, p, _, l), xp = v.shape, w.shape, backends.namespace(x)
    flat = y.reshape(n * p, d)
    jet = kernel.jet(x @ flat.T, squares(x)[:, None], squares(flat)[None, :], 2 if l else 1 if k else 0)

    def by_structure(part):
        return None if part is None else part.reshape(m, n, p).transpose(1, 0, 2)

    out[0, :, 0] += by_structure(jet.value).sum((1, 2))
    vy = xp.matmul(flat[None], v).reshape(m, n, p, k)  # v_i·x′_j
    xw = xp.matmul(x[None, None], w)  # (n, p, m, l): x_i·w_j
    vx = xp.einsum("idk,id->ik", v, x)
    yw = xp.einsum("jpdl,jpd->jpl", w, y)
    f_u, f_a = by_structure(jet.u), by_structure(jet.a)
    if k:
        out[1:, :, 0] += xp.einsum("nij,injk->kn", f_u, vy, optimize=True)
        if f_a is not None:
            out[1:, :, 0] += 2 * xp.einsum("nij,ik->kn", f_a, vx, optimize=True)
    if l:
        out[0, :, 1:] += xp.einsum("nij,njil->nl", f_u, xw, optimize=True)
        f_b = by_structure(jet.b)
        if f_b is not None:
            out[0, :, 1:] += 2 * xp.einsum("nij,njl->nl", f_b, yw, optimize=True)
    if k and l:
        weighted = xp.matmul(f_u, w.reshape(n, p, d * l)).reshape(n, m * d, l)
        block = xp.matmul(v.reshape(m * d, k).T[None], weighted)
        left, right = vy.transpose(1, 0, 2, 3).reshape(n, m * p, k), xw.transpose(0, 2, 1, 3).reshape(n, m * p, l)
        if jet.uu is not None:
            block += xp.matmul((left * by_structure(jet.uu).reshape(n, m * p, 1)).transpose(0, 2, 1), right)
        if jet.ua is not None:
            block += 2 * xp.einsum("nij,ik,njil->nkl", by_structure(jet.ua), vx, xw, optimize=True)
        if jet.ub is not None:
            block += 2 * xp.einsum("nij,injk,njl->nkl", by_structure(jet.ub), vy, yw, optimize=True)
        if jet.ab is not None:
            block += 4 * xp.einsum("nij,ik,njl->nkl", by_structure(jet.ab), vx, yw, optimize=True)
        out[1:, :, 1:] += block.transpose(1, 0, 2)


def layout_of(compositions: list[Composition]) -> Layout:
    """Where the observations of structures stand that are given by composition."""
    n = sum(map(len, compositions))
    sizes, forces, stress = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for same in compositions:
        sizes[same.index], forces[same.index], stress[same.index] = sum(x.shape[1] for x in same.X), same.forces, same.stress
    return Layout(sizes, forces, stress)


def covariance(kernel: Kernel, left: list[Composition], right: list[Composition] | None = None, threads=None) -> np.ndarray:
    """Covariance matrix of all observations of ``left`` with those of ``right`` (with themselves when None); unit signal.

    Order: `Layout`. Only half the blocks of a symmetric matrix are computed.
    """
    symmetric = right is None
    right = left if symmetric else right
    rows, columns = layout_of(left), layout_of(right)
    K = left[0].xp.empty((rows.size, columns.size))
    tasks = [(a, s, b, t) for a in left for s in range(len(a)) for b in right for t in tiles(b)]
    if symmetric:
        tasks = [(a, s, b, t) for a, s, b, t in tasks if b.index[t].min() <= a.index[s]]

    def block(task):
        a, s, b, t = task
        at = rows.places(a.index[s : s + 1]).ravel()
        values, where = block_covariance(kernel, a, s, b, t), columns.places(b.index[t])
        for n, columns_of in enumerate(where):
            lower = b.index[t][n] <= a.index[s]
            if not symmetric or lower:
                K[at[0] : at[-1] + 1, columns_of[0] : columns_of[-1] + 1] = values[:, n]
            if symmetric and lower:
                K[columns_of[0] : columns_of[-1] + 1, at[0] : at[-1] + 1] = values[:, n].T

    for _ in thread_map(block, tasks, threads):
        pass
    return K


def variances(kernel: Kernel, compositions: list[Composition]) -> np.ndarray:
    """Prior variances of every observation, `Layout` order; unit signal."""
    layout, xp = layout_of(compositions), compositions[0].xp
    out = xp.empty(layout.size)
    for same in compositions:
        for s in range(len(same)):
            own = block_covariance(kernel, same, s, same, slice(s, s + 1))[:, 0]
            out[xp.asarray(layout.places(same.index[s : s + 1]).ravel())] = xp.diagonal(own)
    return out


def total_covariance(terms: Sequence, compositions: list[list[Composition]], threads: int | None) -> np.ndarray:
    """Σ δ²K over terms, of all observations."""
    total = None
    for term, mine in zip(terms, compositions, strict=True):
        K = covariance(term.kernel, mine, threads=threads)
        K *= term.signal**2
        total = K if total is None else np.add(total, K, out=total)
    return total


def some_of(K: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows and columns ``index`` (a NumPy array) of K."""
    at = backends.namespace(K).asarray(index)
    return K[at[:, None], at[None, :]]
