"""Hot loops of the two-body features, compiled by numba; serial, without the GIL. Tables as in `cpu`, over [0, r_cut]."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, load_part, store_part


@jit
def _distance(d):
    return np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])


@jit
def _functions(x, table, S):
    """Functions at x = r/r_cut, all at once."""
    n, size = table.shape[0], table.shape[2]
    k = min(int(x * n), n - 1)
    t = x * n - k
    for e in range(0, size, WIDTH):
        left, row = size - e, 6 * k * size + e
        value = load_part(table, row + 5 * size, left)
        for power in (4, 3, 2, 1, 0):
            value = value * t + load_part(table, row + power * size, left)
        store_part(S, e, value, left)


@jit
def _slopes(x, table, dS):
    """Their derivatives by x."""
    n, size = table.shape[0], table.shape[2]
    k = min(int(x * n), n - 1)
    t = x * n - k
    for e in range(0, size, WIDTH):
        left, row = size - e, 6 * k * size + e
        value = load_part(table, row + 5 * size, left) * (5.0 * n)
        for power in (4, 3, 2, 1):
            value = value * t + load_part(table, row + power * size, left) * float(power * n)
        store_part(dS, e, value, left)


@jit
def values(start, stop, pairs, table, r_cut, X):
    """Features of atoms ``start:stop`` into ``X[i - start]`` (overwritten)."""
    n_b = table.shape[2]
    S = np.empty(n_b)
    for i in range(start, stop):
        x = X[i - start]
        x[:] = 0.0
        for p in range(pairs.offsets[i], pairs.offsets[i + 1]):
            _functions(_distance(pairs.vectors[p]) / r_cut, table, S)
            f0 = pairs.kinds[pairs.neighbours[p]] * n_b
            for b in range(n_b):
                x[f0 + b] += S[b]


@jit
def pullback(start, stop, pairs, table, r_cut, G, out):
    """∂E/∂r_ij of the pairs of atoms ``start:stop`` into ``out[p]``, from G[i - start] = ∂E/∂X."""
    n_b = table.shape[2]
    dS = np.empty(n_b)
    for i in range(start, stop):
        g = G[i - start]
        for p in range(pairs.offsets[i], pairs.offsets[i + 1]):
            r = _distance(pairs.vectors[p])
            _slopes(r / r_cut, table, dS)
            f0, total = pairs.kinds[pairs.neighbours[p]] * n_b, 0.0
            for b in range(n_b):
                total += g[f0 + b] * dS[b]
            for a in range(3):
                out[p, a] = total * pairs.vectors[p, a] / (r * r_cut)


@jit
def jacobian(start, stop, pairs, table, r_cut, rows, out):
    """∂X_i/∂r_a grouped by displaced atom; rows as in `Descriptor.jacobian`. A pair seen from its other end has the opposite vector."""
    offsets, kinds = pairs.offsets, pairs.kinds
    n_b = table.shape[2]
    dS = np.empty(n_b)
    first = offsets[start]
    n_pairs = offsets[stop] - first
    for a in range(start, stop):
        own = out[rows[n_pairs + a - start]]
        own[:, :] = 0.0
        for p in range(offsets[a], offsets[a + 1]):
            d, i, row = pairs.vectors[p], pairs.neighbours[p], out[rows[p - first]]
            r = _distance(d)
            _slopes(r / r_cut, table, dS)
            row[:, :] = 0.0
            for x in range(3):
                u = d[x] / (r * r_cut)
                for b in range(n_b):
                    row[x, kinds[a] * n_b + b] = -u * dS[b]
                    own[x, kinds[i] * n_b + b] -= u * dS[b]


@jit
def strain_jacobian(start, stop, pairs, table, r_cut, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``."""
    n_b = table.shape[2]
    dS = np.empty(n_b)
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    for i in range(start, stop):
        total = out[i - start]
        total[:, :] = 0.0
        for p in range(pairs.offsets[i], pairs.offsets[i + 1]):
            d = pairs.vectors[p]
            r = _distance(d)
            _slopes(r / r_cut, table, dS)
            f0 = pairs.kinds[pairs.neighbours[p]] * n_b
            for v in range(6):
                lever = d[va[v]] * d[vb[v]] / (r * r_cut)
                for b in range(n_b):
                    total[v, f0 + b] += lever * dS[b]
