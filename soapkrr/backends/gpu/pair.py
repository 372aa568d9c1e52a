"""Two-body features on a GPU, one block of threads per centre or pair: as `cpu.pair`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.gpu.compile import launch, warps

#: Threads per centre, and neighbours of it held in shared memory at once.
THREADS, TILE = 128, 64


def values(start, stop, pairs, table, r_cut, X):
    """Features of atoms ``start:stop`` into ``X[i - start]`` (overwritten)."""
    _run("values", stop - start, pairs, table, r_cut, X.shape[-1], (np.int64(start), X), n_sums=1)


def pullback(start, stop, pairs, table, r_cut, G, out):
    """∂E/∂r_ij of the pairs of atoms ``start:stop`` into ``out[p]``, from G[i - start] = ∂E/∂X."""
    _run("pullback", stop - start, pairs, table, r_cut, G.shape[-1], (np.int64(start), G, out), n_sums=1)


def jacobian(start, stop, pairs, table, r_cut, rows, out):
    """∂X_i/∂r_a grouped by displaced atom; rows as in `Descriptor.jacobian`."""
    n_pairs, n_features = len(rows) - (stop - start), out.shape[-1]
    _run("moved_centre", stop - start, pairs, table, r_cut, n_features, (np.int64(start), rows[n_pairs:], out), n_sums=3)
    numbers = _numbers(table, r_cut, n_features)
    arrays = pairs.offsets, pairs.vectors, pairs.kinds, table
    launch("pair", "moved_neighbour", n_pairs, warps(n_features), *arrays, *numbers, np.int64(start), np.int64(stop), rows, out)


def strain_jacobian(start, stop, pairs, table, r_cut, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``."""
    _run("strained", stop - start, pairs, table, r_cut, out.shape[-1], (np.int64(start), out), n_sums=6)


def _numbers(table, r_cut, n_features):
    n_knots, _, n_b = table.shape
    return np.int32(n_knots), np.int32(n_b), float(r_cut), np.int32(n_features // n_b)


def _run(kernel, n_blocks, pairs, table, r_cut, n_features, args, n_sums):
    shared = 8 * (n_sums * THREADS + 5 * TILE + 2 * ((TILE + 1) // 2))
    numbers = _numbers(table, r_cut, n_features)
    launch("pair", kernel, n_blocks, THREADS, *pairs, table, *numbers, np.int32(TILE), *args, shared=shared)
