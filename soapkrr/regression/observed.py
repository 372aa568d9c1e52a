"""Observations as representers: covariances between energies, forces and stresses of whole structures.

A structure's observations are linear functionals of the atoms' energies. Energy: Σ_i ε(x_i). A force or stress component:
Σ_i v_i·∂ε/∂x_i, with v_i = −∂x_i/∂r_ab or (1/V) ∂x_i/∂ε_ab. With the kernel's 2-jet (see `kernels`) the covariance of two of them is a
sum over pairs of atoms of the same species. Structures of the same composition are handled together, so that the work is matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.kernels import Kernel, squares
from soapkrr.parallel import thread_map
from soapkrr.regression.design import DisplacedBlock
from soapkrr.structures import Batch

#: Structures of the second argument that meet one of the first at once.
TILE = 16


@dataclass(frozen=True, eq=False)
class Group:
    """Structures with the same numbers of atoms of each species and the same kinds of derivative observations.

    Attributes
    ----------
    X : per species (n_structures, m_s, d) descriptors.  V : per species (n_structures, m_s, d, k), the k derivative observations.
    index : (n_structures,) position of each structure in its list.
    """

    X: list[np.ndarray]
    V: list[np.ndarray]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def xp(self):
        """The library of its arrays."""
        return backends.namespace(self.X[0])

    def moved(self, xp) -> Group:
        """The same with arrays of another library."""
        return Group(backends.moved(xp, self.X), backends.moved(xp, self.V), self.index)

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

    @property
    def size(self) -> int:
        """Observations in all."""
        return sum(1 + 3 * len(atoms) * f + 6 * s for atoms, f, s in zip(self.frames, self.forces, self.stress, strict=True))

    def groups(self, descriptor: Descriptor, threads: int | None = None, xp=np) -> list[Group]:
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
        """From `state`."""
        ends = np.cumsum(state["sizes"])
        bounds = zip(ends - state["sizes"], ends, state["cells"], state["pbc"], strict=True)
        frames = [Atoms(state["numbers"][a:b], state["positions"][a:b], cell=cell, pbc=pbc) for a, b, cell, pbc in bounds]
        return cls(frames, state["forces"].tolist(), state["stress"].tolist())


def observe(descriptor: Descriptor, frames, forces: list[bool], stress: list[bool], threads=None, xp=np) -> list[Group]:
    """Groups of structures with their descriptors and, where asked for, the vectors of forces (3·n_atoms) and stress (6), in ``xp``."""
    keys: dict[tuple, list[int]] = {}
    for index, atoms in enumerate(frames):
        kinds = descriptor.kinds(atoms.numbers)
        keys.setdefault((tuple(np.bincount(kinds, minlength=len(descriptor.species))), forces[index], stress[index]), []).append(index)

    def fill(group, place):
        index = group.index[place]
        made = _structure(descriptor, frames[index], forces[index], stress[index], index, xp)
        for out, part in zip((group.X, group.V), made, strict=True):
            for arrays, array in zip(out, part, strict=True):
                arrays[place] = array

    groups, d = [], descriptor.n_features
    for (counts, has_forces, has_stress), members in keys.items():
        k = 3 * sum(counts) * has_forces + 6 * has_stress
        X, V = ([xp.empty((len(members), int(m), *shape)) for m in counts] for shape in ((d,), (d, k)))
        groups.append(Group(X, V, np.array(members)))
        for _ in thread_map(partial(fill, groups[-1]), range(len(members)), threads):
            pass
    return groups


def _structure(descriptor, atoms, forces: bool, stress: bool, index: int, xp):
    """Per species X (m, d) and V (m, d, k) of one structure."""
    batch = Batch.from_atoms([atoms], index)
    env = descriptor.environments(batch, batch.pairs(descriptor.r_cut, index, xp), index)
    n, d = env.X.shape
    V = xp.zeros((n, (3 * n if forces else 0) + (6 if stress else 0), d))
    if forces:
        for start in range(0, n, 8):
            block = DisplacedBlock(descriptor, env, start, min(start + 8, n))
            xp.subtract.at(V[:, : 3 * n].reshape(n, n, 3, d), (block.centre, block.atom), block.jacobian)
    if stress:
        strain = xp.empty((n, 6, d))
        descriptor.strain_jacobian(0, n, env, strain)
        V[:, -6:] = strain / float(batch.volumes[0])
    V = V.transpose(0, 2, 1)
    members = [xp.flatnonzero(env.pairs.kinds == s) for s in range(len(descriptor.species))]
    return [env.X[m] for m in members], [xp.ascontiguousarray(V[m]) for m in members]


def tiles(group: Group, size: int = TILE) -> Iterator[slice]:
    """Consecutive slices of a group's structures."""
    for start in range(0, len(group), size):
        yield slice(start, min(start + size, len(group)))


def block_covariance(kernel: Kernel, A: Group, s: int, B: Group, tile: slice) -> np.ndarray:
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


class Layout:
    """Where the observations of each structure stand in the long vector: energy, then derivatives, structure after structure."""

    def __init__(self, groups: list[Group]):
        sizes = np.zeros(sum(map(len, groups)), dtype=np.int64)
        for group in groups:
            sizes[group.index] = group.size
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])

    @property
    def size(self) -> int:
        return int(self.offsets[-1])

    def rows(self, group: Group, tile: slice) -> np.ndarray:
        """(n_tile, size) positions of the observations of a tile of a group."""
        return self.offsets[group.index[tile]][:, None] + np.arange(group.size)


def covariance(kernel: Kernel, left: list[Group], right: list[Group] | None = None, threads=None) -> np.ndarray:
    """Covariance matrix of all observations of ``left`` with those of ``right`` (with themselves when None); unit signal.

    Order: `Layout`. Only half the blocks of a symmetric matrix are computed.
    """
    symmetric = right is None
    right = left if symmetric else right
    rows, columns = Layout(left), Layout(right)
    K = left[0].xp.empty((rows.size, columns.size))
    tasks = [(a, s, b, t) for a in left for s in range(len(a)) for b in right for t in tiles(b)]
    if symmetric:
        tasks = [(a, s, b, t) for a, s, b, t in tasks if b.index[t].min() <= a.index[s]]

    def block(task):
        a, s, b, t = task
        at = rows.rows(a, slice(s, s + 1)).ravel()
        values, where = block_covariance(kernel, a, s, b, t), columns.rows(b, t)
        for n, columns_of in enumerate(where):
            lower = b.index[t][n] <= a.index[s]
            if not symmetric or lower:
                K[at[0] : at[-1] + 1, columns_of[0] : columns_of[-1] + 1] = values[:, n]
            if symmetric and lower:
                K[columns_of[0] : columns_of[-1] + 1, at[0] : at[-1] + 1] = values[:, n].T

    for _ in thread_map(block, tasks, threads):
        pass
    return K
