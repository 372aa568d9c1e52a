"""Jacobians of the atom-centred symmetry functions, by displaced atom and by strain; compiled by numba, serial, without the GIL.

The derivatives of one triplet's functions by its two pair vectors are
    ∂/∂r_ij = α_j r_ij + β r_ik,   ∂/∂r_ik = α_k r_ik + β r_ij.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.acsf import _neighbourhood, _partners, _radial_slopes, _scratch
from soapkrr.backends.cpu.compile import jit


@jit
def _coefficients(m, j, k, fun, s, out):
    """α_j, α_k, β of every angular function of partner m into ``out`` (3, n_f)."""
    n4, us, vs, c = fun.n4, fun.u, fun.v, s.c[m]
    E, dE, T, dT, A, dA = s.E, s.dE, s.T, s.dT, s.A, s.dA
    per_j, per_k, per_d = 1.0 / s.r[j], 1.0 / s.r[k], 1.0 / s.d[m]
    for f in range(us.shape[0]):
        u, v = us[f], vs[f]
        e = E[j, u] * E[k, u]
        t = T[m, u] if f < n4 else 1.0
        along = A[m, v] * e * dT[m, u] * per_d if f < n4 else 0.0
        a, by_c = A[m, v] * t, dA[m, v] * t * e
        out[0, f] = (a * dE[j, u] * E[k, u] - by_c * c * per_j) * per_j + along
        out[1, f] = (a * E[j, u] * dE[k, u] - by_c * c * per_k) * per_k + along
        out[2, f] = by_c * per_j * per_k - along


@jit
def _reverse(a, p, i, pairs):
    """The pair of centre i that is pair p = (a, i) seen from the other end, at −r_ai."""
    for q in range(pairs.offsets[i], pairs.offsets[i + 1]):
        if pairs.neighbours[q] == a:
            gap = 0.0
            for b in range(3):
                gap += (pairs.vectors[q, b] + pairs.vectors[p, b]) ** 2
            if gap < 1e-8:
                return q
    return -1


@jit
def _moved_neighbour(p, first, last, pairs, fun, s, slope, abc, out):
    """∂X_i/∂r_p (3, n_features) for one pair p of the centre with pairs ``first:last``; the scratch holds its neighbourhood."""
    out[:, :] = 0.0
    vectors, j = pairs.vectors, p - first
    kind = pairs.kinds[pairs.neighbours[p]]
    _radial_slopes(s.r[j], fun.weight[kind], fun, slope)
    f0 = fun.radial_start[kind]
    for b in range(3):
        for f in range(slope.shape[0]):
            out[b, f0 + f] = slope[f] * vectors[p, b] / s.r[j]
    n_f = fun.u.shape[0]
    if n_f == 0:
        return
    for m in range(_partners(p, first, first, last, vectors, fun, s)):
        q = s.q[m]
        _coefficients(m, j, q - first, fun, s, abc)
        f0 = fun.angular_start[kind, pairs.kinds[pairs.neighbours[q]]]
        for b in range(3):
            x, y = vectors[p, b], vectors[q, b]
            for f in range(n_f):
                out[b, f0 + f] += abc[0, f] * x + abc[2, f] * y


@jit
def _moved_centre(first, last, pairs, fun, s, slope, abc, out):
    """∂X_i/∂r_i = −Σ_j ∂X_i/∂r_ij (3, n_features) of the centre with pairs ``first:last``; the scratch holds its neighbourhood."""
    out[:, :] = 0.0
    vectors, n_f = pairs.vectors, fun.u.shape[0]
    for p in range(first, last):
        kind, j = pairs.kinds[pairs.neighbours[p]], p - first
        _radial_slopes(s.r[j], fun.weight[kind], fun, slope)
        f0 = fun.radial_start[kind]
        for b in range(3):
            for f in range(slope.shape[0]):
                out[b, f0 + f] -= slope[f] * vectors[p, b] / s.r[j]
        if n_f == 0:
            continue
        for m in range(_partners(p, p + 1, first, last, vectors, fun, s)):
            q = s.q[m]
            _coefficients(m, j, q - first, fun, s, abc)
            f0 = fun.angular_start[kind, pairs.kinds[pairs.neighbours[q]]]
            for b in range(3):
                x, y = vectors[p, b], vectors[q, b]
                for f in range(n_f):
                    out[b, f0 + f] -= (abc[0, f] + abc[2, f]) * x + (abc[1, f] + abc[2, f]) * y


@jit
def jacobian(start, stop, pairs, fun, rows, out):
    """∂X_i/∂r_a grouped by displaced atom; rows as in `Descriptor.jacobian`."""
    offsets = pairs.offsets
    s = _scratch(offsets, fun)
    slope, abc = np.empty(1 + fun.g2.shape[0] + fun.g3.shape[0]), np.empty((3, fun.u.shape[0]))
    first = offsets[start]
    n_pairs = offsets[stop] - first
    for a in range(start, stop):
        for p in range(offsets[a], offsets[a + 1]):
            i = pairs.neighbours[p]
            _neighbourhood(offsets[i], offsets[i + 1], pairs, fun, s)
            q = _reverse(a, p, i, pairs)
            _moved_neighbour(q, offsets[i], offsets[i + 1], pairs, fun, s, slope, abc, out[rows[p - first]])
        _neighbourhood(offsets[a], offsets[a + 1], pairs, fun, s)
        _moved_centre(offsets[a], offsets[a + 1], pairs, fun, s, slope, abc, out[rows[n_pairs + a - start]])


@jit
def strain_jacobian(start, stop, pairs, fun, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``."""
    s = _scratch(pairs.offsets[start : stop + 1], fun)
    slope, abc = np.empty(1 + fun.g2.shape[0] + fun.g3.shape[0]), np.empty((3, fun.u.shape[0]))
    for i in range(start, stop):
        first, last = pairs.offsets[i], pairs.offsets[i + 1]
        total = out[i - start]
        total[:, :] = 0.0
        _neighbourhood(first, last, pairs, fun, s)
        for p in range(first, last):
            kind, r = pairs.kinds[pairs.neighbours[p]], s.r[p - first]
            _radial_slopes(r, fun.weight[kind], fun, slope)
            _add_radial_strain(pairs.vectors[p], r, slope, total[:, fun.radial_start[kind] :])
            if abc.shape[1] > 0:
                _add_angular_strain(p, first, last, pairs, fun, s, abc, total)


@jit
def _add_radial_strain(d, r, slope, total):
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    for v in range(6):
        lever = d[va[v]] * d[vb[v]] / r
        for f in range(slope.shape[0]):
            total[v, f] += lever * slope[f]


@jit
def _add_angular_strain(p, first, last, pairs, fun, s, abc, total):
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    vectors = pairs.vectors
    starts = fun.angular_start[pairs.kinds[pairs.neighbours[p]]]
    for m in range(_partners(p, p + 1, first, last, vectors, fun, s)):
        q = s.q[m]
        _coefficients(m, p - first, q - first, fun, s, abc)
        f0 = starts[pairs.kinds[pairs.neighbours[q]]]
        for v in range(6):
            a, b = va[v], vb[v]
            jj, kk = vectors[p, a] * vectors[p, b], vectors[q, a] * vectors[q, b]
            jk = vectors[p, a] * vectors[q, b] + vectors[q, a] * vectors[p, b]
            for f in range(abc.shape[1]):
                total[v, f0 + f] += abc[0, f] * jj + abc[1, f] * kk + abc[2, f] * jk
