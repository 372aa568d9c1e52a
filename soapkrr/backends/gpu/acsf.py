"""Symmetry functions on a GPU, one block of threads per centre: as `cpu.acsf`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from soapkrr.backends.gpu.compile import launch
from soapkrr.errors import InputError

#: Threads per centre, and neighbours of it held in shared memory at once (two tiles of them).
THREADS, TILE = 128, 64

#: Bytes of shared memory per centre: more blocks fit on a multiprocessor of an H200 than their registers allow.
SHARED = 32 * 1024


class Kernel(NamedTuple):
    """A kernel that keeps ``n_along`` derivatives and ``n_levers`` numbers per triplet, and ``n_sums`` sums per thread."""

    module: str
    name: str
    n_along: int
    n_sums: int
    n_levers: int = 0


VALUES = Kernel("acsf", "values", n_along=0, n_sums=1)
PULLBACK = Kernel("acsf", "pullback", n_along=0, n_sums=6, n_levers=3)


def values(start, stop, pairs, fun, X):
    """Symmetry functions of atoms ``start:stop`` into ``X[i - start]`` (overwritten)."""
    run(VALUES, stop - start, pairs, fun, X.shape[-1], np.int64(start), X)


def pullback(start, stop, pairs, fun, G, out):
    """∂E/∂r_ij of the pairs of atoms ``start:stop`` into ``out[p]``, from G[i - start] = ∂E/∂X."""
    run(PULLBACK, stop - start, pairs, fun, G.shape[-1], np.int64(start), G, out)


def run(kernel: Kernel, n_blocks, pairs, fun, n_features, *args):
    """Launch a kernel on ``n_blocks`` blocks; ``args`` are what it takes after neighbours, functions and sizes."""
    n_f, n_kinds = len(fun.u), len(fun.weight)
    n_slots = 1 if n_features == 1 + len(fun.g2) + len(fun.g3) + n_f else n_kinds
    n_p = len(fun.eta) * ((fun.n4 > 0) + (fun.n4 < n_f))
    tiles = 2 * (6 * TILE + 2 * _doubles(TILE) + _doubles(n_slots + 1)) + _doubles(n_slots * (n_slots + 1) // 2 + 1)
    fixed = kernel.n_sums * THREADS + tiles
    per_triplet = 4 + kernel.n_along + len(fun.zeta) + (1 + kernel.n_along) * n_p + kernel.n_levers
    chunk = min(THREADS, (SHARED // 8 - fixed - per_triplet - 2) // (per_triplet + 1))
    if chunk < 1:
        raise InputError(
            f"`g4_params` and `g5_params` hold {len(fun.zeta)} distinct (zeta, lambda) and {len(fun.eta)} distinct eta, for {n_slots} "
            "species: more than a GPU's shared memory holds; reduce them or use `device`='cpu'."
        )
    sizes = len(fun.g2), len(fun.g3), len(fun.eta), len(fun.zeta), fun.n4, n_f, n_kinds, n_slots, len(fun.table)
    launch(
        kernel.module,
        kernel.name,
        n_blocks,
        THREADS,
        *pairs,
        *(fun.g2, fun.g3, fun.eta, fun.zeta, fun.lam, fun.u, fun.v, fun.radial_start, fun.angular_start, fun.weight, fun.table),
        *map(np.int32, sizes),
        float(fun.r_cut),
        np.int32(TILE),
        np.int32(chunk),
        np.int64(n_features),
        *args,
        shared=8 * (fixed + per_triplet * (chunk | 1) + 2 * _doubles(chunk)),
    )


def _doubles(n_ints: int) -> int:
    """Doubles that take the room of ``n_ints`` 32-bit integers."""
    return (n_ints + 1) // 2
