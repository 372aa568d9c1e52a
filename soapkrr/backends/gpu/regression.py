"""Kernels, design rows, choice of sparse points and sums over pairs on a GPU: as `cpu.regression`. Sums have a fixed order."""

from __future__ import annotations

import cupy
import numpy as np

from soapkrr.backends.gpu.compile import launch, warps

#: Threads of a block.
THREADS = 256


def dot_product_energy(U, weights, zeta, energies):
    """Energies Σ_q w_q u^ζ of each row of U, which is overwritten with w_q ζ u^(ζ−1)."""
    n, m = U.shape
    launch("regression", "dot_product_energy", n, warps(m), np.int32(m), weights, float(zeta), U, energies)


def dot_product_observed(U, V, weights, zeta, energies):
    """Energies Σ_q [w_q F(u) + F′(u) v], F = u^ζ, of each row of U and V, which are overwritten with w_q F′ + F″ v and F′."""
    n, m = U.shape
    launch("regression", "dot_product_observed", n, warps(m), np.int32(m), weights, float(zeta), U, V, energies)


def _grouped(target, n: int):
    """(order, offsets): entries of ``target`` t are order[offsets[t]:offsets[t + 1]], in their order."""
    order = cupy.argsort(target.astype(np.int32), kind="stable")
    return order, cupy.searchsorted(target[order], cupy.arange(n + 1))


def scatter_rows(T, slope, centre, atom, out):
    """out[atom[e], b] −= Σ_q slope[centre[e], q] T[e, b, q]: force rows of displaced atoms from Jacobian products."""
    _scatter("scatter_rows", T, slope, centre, atom, out)


def scatter_norms(along, slope, centre, target, out):
    """out[target[e], b] −= Σ_q slope[centre[e], q] along[e, b]: the part of `scatter_rows` that changes |x|²."""
    _scatter("scatter_norms", along, slope, centre, target, out)


def _scatter(name, products, slope, centre, target, out):
    n, k, m = out.shape
    launch("regression", name, n * k, warps(m), products, slope, centre, *_grouped(target, n), np.int32(k), np.int32(m), out)


def farthest_points(X, first, n, picked, gaps):
    """Farthest-point sampling of rows of X from row ``first``: indices into ``picked``, squared gaps into ``gaps``.

    Returns the number of picks (fewer than n when only copies are left). The host waits once, at the end.
    """
    n_points, n_features = X.shape
    best = cupy.full(n_points, np.inf)
    picked[0], gaps[0] = first, np.inf
    for k in range(n - 1):
        now = np.int32(k), np.int32(k + 1)
        blocks = -(-n_points * 32 // THREADS)
        launch("regression", "nearer", blocks, THREADS, X, np.int64(n_points), np.int32(n_features), picked, now[0], best)
        launch("regression", "farthest", 1, 1024, best, np.int64(n_points), now[1], picked, gaps)
    copies = np.flatnonzero(gaps[:n].get() <= 1e-20)
    return int(copies[0]) if len(copies) else n


def pair_sums(offsets, neighbours, vectors, atom_offsets, gradient, forces, strain):
    """Forces (n_atoms, 3) F_i = Σ_j g_ij − Σ_j g_ji and strain derivatives (n_structures, 6), Voigt order, from g = ∂E/∂r_ij.

    Both are overwritten; ``atom_offsets`` (n_structures + 1,) bounds the atoms of each structure.
    """
    n = len(forces)
    parts = cupy.empty((n, 6))
    arrays = offsets, vectors, gradient, *_grouped(neighbours, n)
    launch("regression", "pair_sums", -(-n // 4), 128, np.int64(n), *arrays, forces, parts)
    launch("regression", "structure_sums", len(strain), THREADS, atom_offsets, parts, strain)
