"""Hot loops of the atom-centred symmetry functions, compiled by numba; serial, without the GIL.

A centre i with neighbours j has radial features Σ_j w_j h_f(r_ij) and angular features Σ_{j<k} A_v(cos θ_jk) P_u, where
A_v = 2^{1−ζ} (1 + λ cos θ)^ζ and P_u = E_u(r_ij) E_u(r_ik) T_u(r_jk), E_u(r) = w f_c(r) exp(−η_u r²), T_u = f_c(r_jk) exp(−η_u r_jk²)
for G4 and 1 for G5: exponentials are taken once per neighbour and per triplet for each distinct η, powers once per distinct (ζ, λ).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from soapkrr.backends.cpu.compile import jit


class Scratch(NamedTuple):
    """Work arrays: per neighbour r, E_u and dE_u/dr; per partner k of one neighbour j its pair q, cos θ, r_jk, T_u, dT_u, A_v, dA_v."""

    r: np.ndarray
    E: np.ndarray
    dE: np.ndarray
    q: np.ndarray
    c: np.ndarray
    d: np.ndarray
    T: np.ndarray
    dT: np.ndarray
    A: np.ndarray
    dA: np.ndarray


@jit
def _scratch(offsets, fun):
    n = 1
    for i in range(offsets.shape[0] - 1):
        n = max(n, offsets[i + 1] - offsets[i])
    n_u, n_v = fun.eta.shape[0], fun.zeta.shape[0]
    return Scratch(
        np.empty(n),
        np.empty((n, n_u)),
        np.empty((n, n_u)),
        np.empty(n, dtype=np.int64),
        np.empty(n),
        np.empty(n),
        np.empty((n, n_u)),
        np.empty((n, n_u)),
        np.empty((n, n_v)),
        np.empty((n, n_v)),
    )


@jit
def _cutoff(r, table, r_cut):
    """f_c and its slope at distance r < r_cut."""
    n = table.shape[0]
    scale = n / r_cut
    x = r * scale
    k = min(int(x), n - 1)
    t = x - k
    q = table[k]
    f = q[0] + t * (q[1] + t * (q[2] + t * (q[3] + t * (q[4] + t * q[5]))))
    return f, scale * (q[1] + t * (2 * q[2] + t * (3 * q[3] + t * (4 * q[4] + t * 5 * q[5]))))


@jit
def _neighbourhood(first, last, pairs, fun, s):
    """Distances, E_u and dE_u/dr of pairs ``first:last`` into the scratch arrays."""
    for p in range(first, last):
        x, y, z = pairs.vectors[p, 0], pairs.vectors[p, 1], pairs.vectors[p, 2]
        r2 = x * x + y * y + z * z
        r = np.sqrt(r2)
        f, df = _cutoff(r, fun.table, fun.r_cut)
        w = fun.weight[pairs.kinds[pairs.neighbours[p]]]
        j = p - first
        s.r[j] = r
        for u in range(fun.eta.shape[0]):
            e = w * np.exp(-fun.eta[u] * r2)
            s.E[j, u] = e * f
            s.dE[j, u] = e * (df - 2.0 * fun.eta[u] * r * f)


@jit
def _radial_values(r, w, fun, x):
    """Add one neighbour's G1, G2, G3 to the features x, starting at its species."""
    f, _ = _cutoff(r, fun.table, fun.r_cut)
    f *= w
    n2 = fun.g2.shape[0]
    x[0] += f
    for m in range(n2):
        d = r - fun.g2[m, 1]
        x[1 + m] += f * np.exp(-fun.g2[m, 0] * d * d)
    for m in range(fun.g3.shape[0]):
        x[1 + n2 + m] += f * np.cos(fun.g3[m] * r)


@jit
def _radial_slopes(r, w, fun, d):
    """dh_f/dr of one neighbour's G1, G2, G3 into d."""
    f, df = _cutoff(r, fun.table, fun.r_cut)
    f, df = w * f, w * df
    n2 = fun.g2.shape[0]
    d[0] = df
    for m in range(n2):
        eta, x = fun.g2[m, 0], r - fun.g2[m, 1]
        d[1 + m] = np.exp(-eta * x * x) * (df - 2.0 * eta * x * f)
    for m in range(fun.g3.shape[0]):
        k = fun.g3[m]
        d[1 + n2 + m] = df * np.cos(k * r) - k * f * np.sin(k * r)


@jit
def _angles(c, zetas, lams, A, dA):
    """A_v(cos θ) and its derivative for every distinct (ζ, λ)."""
    for v in range(zetas.shape[0]):
        zeta, lam = zetas[v], lams[v]
        base = max(0.5 * (1.0 + lam * c), 0.0)
        n = int(zeta)
        if n == zeta:
            n -= 1
            power, square = 1.0, base
            while n > 0:
                if n & 1:
                    power *= square
                square *= square
                n >>= 1
        else:
            power = base ** (zeta - 1.0)
        A[v] = 2.0 * base * power
        dA[v] = zeta * lam * power


@jit
def _partners(p, q_first, first, last, vectors, fun, s):
    """Collect the pairs q ≥ q_first of one centre that form a triplet with pair p; their number, and s.q, c, d, T, dT, A, dA filled.

    T is zero beyond r_cut, where only G5 sees the triplet; without G5 such a triplet is left out.
    """
    eta, zeta, lam, table, r_cut = fun.eta, fun.zeta, fun.lam, fun.table, fun.r_cut
    r, c, d, T, dT, A, dA = s.r, s.c, s.d, s.T, s.dT, s.A, s.dA
    n_u, all_seen, n = eta.shape[0], fun.n4 < fun.u.shape[0], 0
    x, y, z, rj = vectors[p, 0], vectors[p, 1], vectors[p, 2], r[p - first]
    for q in range(q_first, last):
        xk, yk, zk = vectors[q, 0], vectors[q, 1], vectors[q, 2]
        r2 = (xk - x) ** 2 + (yk - y) ** 2 + (zk - z) ** 2
        inside = r2 < r_cut * r_cut
        if q == p or not (inside or all_seen):
            continue
        s.q[n] = q
        c[n] = min(max((x * xk + y * yk + z * zk) / (rj * r[q - first]), -1.0), 1.0)
        d[n] = np.sqrt(r2)
        f, df = _cutoff(d[n], table, r_cut) if inside else (0.0, 0.0)
        for u in range(n_u):
            e = np.exp(-eta[u] * r2)
            T[n, u] = e * f
            dT[n, u] = e * (df - 2.0 * eta[u] * d[n] * f)
        _angles(c[n], zeta, lam, A[n], dA[n])
        n += 1
    return n


@jit
def values(start, stop, pairs, fun, X):
    """Symmetry functions of atoms ``start:stop`` into ``X[i - start]`` (overwritten)."""
    s = _scratch(pairs.offsets[start : stop + 1], fun)
    for i in range(start, stop):
        first, last = pairs.offsets[i], pairs.offsets[i + 1]
        x = X[i - start]
        x[:] = 0.0
        _neighbourhood(first, last, pairs, fun, s)
        for p in range(first, last):
            kind = pairs.kinds[pairs.neighbours[p]]
            _radial_values(s.r[p - first], fun.weight[kind], fun, x[fun.radial_start[kind] :])
            if fun.u.shape[0] > 0:
                _angular_values(p, first, last, pairs, fun, s, x)


@jit
def _angular_values(p, first, last, pairs, fun, s, x):
    """Add the angular features of the triplets of pair p with later pairs."""
    n4, us, vs, E, T, A = fun.n4, fun.u, fun.v, s.E, s.T, s.A
    n_f, j = us.shape[0], p - first
    starts = fun.angular_start[pairs.kinds[pairs.neighbours[p]]]
    for m in range(_partners(p, p + 1, first, last, pairs.vectors, fun, s)):
        k = s.q[m] - first
        f0 = starts[pairs.kinds[pairs.neighbours[s.q[m]]]]
        for f in range(n4):
            u = us[f]
            x[f0 + f] += A[m, vs[f]] * T[m, u] * E[j, u] * E[k, u]
        for f in range(n4, n_f):
            u = us[f]
            x[f0 + f] += A[m, vs[f]] * E[j, u] * E[k, u]


@jit
def pullback(start, stop, pairs, fun, G, out):
    """∂E/∂r_ij of the pairs of atoms ``start:stop`` into ``out[p]``, from G[i - start] = ∂E/∂X."""
    s = _scratch(pairs.offsets[start : stop + 1], fun)
    work, slope = np.empty((4, fun.eta.shape[0])), np.empty(1 + fun.g2.shape[0] + fun.g3.shape[0])
    for i in range(start, stop):
        first, last = pairs.offsets[i], pairs.offsets[i + 1]
        g = G[i - start]
        _neighbourhood(first, last, pairs, fun, s)
        for p in range(first, last):
            kind, r = pairs.kinds[pairs.neighbours[p]], s.r[p - first]
            _radial_slopes(r, fun.weight[kind], fun, slope)
            total, f0 = 0.0, fun.radial_start[kind]
            for f in range(slope.shape[0]):
                total += g[f0 + f] * slope[f]
            for a in range(3):
                out[p, a] = total * pairs.vectors[p, a] / r
        if fun.u.shape[0] > 0:
            for p in range(first, last):
                _angular_pullback(p, first, last, pairs, fun, s, g, work, out)


@jit
def _angular_pullback(p, first, last, pairs, fun, s, g, work, out):
    """Add what the triplets of pair p with later pairs give to the gradients of both pairs."""
    n4, us, vs, r, E, dE, T, dT, A, dA = fun.n4, fun.u, fun.v, s.r, s.E, s.dE, s.T, s.dT, s.A, s.dA
    n_u, n_f, j, vectors = fun.eta.shape[0], us.shape[0], p - first, pairs.vectors
    starts = fun.angular_start[pairs.kinds[pairs.neighbours[p]]]
    # Σ_f g_f A_f and Σ_f g_f A′_f per distinct η, of G4 and of G5.
    B4, C4, B5, C5 = work[0], work[1], work[2], work[3]
    for m in range(_partners(p, p + 1, first, last, vectors, fun, s)):
        q = s.q[m]
        k, c, f0 = q - first, s.c[m], starts[pairs.kinds[pairs.neighbours[q]]]
        for u in range(n_u):
            B4[u], C4[u], B5[u], C5[u] = 0.0, 0.0, 0.0, 0.0
        for f in range(n4):
            B4[us[f]] += g[f0 + f] * A[m, vs[f]]
            C4[us[f]] += g[f0 + f] * dA[m, vs[f]]
        for f in range(n4, n_f):
            B5[us[f]] += g[f0 + f] * A[m, vs[f]]
            C5[us[f]] += g[f0 + f] * dA[m, vs[f]]
        by_c, by_j, by_k, by_d = 0.0, 0.0, 0.0, 0.0
        for u in range(n_u):
            b, e = B4[u] * T[m, u] + B5[u], E[j, u] * E[k, u]
            by_c += (C4[u] * T[m, u] + C5[u]) * e
            by_j += b * dE[j, u] * E[k, u]
            by_k += b * E[j, u] * dE[k, u]
            by_d += B4[u] * e * dT[m, u]
        along, per_j, per_k = by_d / s.d[m], 1.0 / r[j], 1.0 / r[k]
        alpha_j = (by_j - by_c * c * per_j) * per_j + along
        alpha_k = (by_k - by_c * c * per_k) * per_k + along
        beta = by_c * per_j * per_k - along
        for a in range(3):
            x, y = vectors[p, a], vectors[q, a]
            out[p, a] += alpha_j * x + beta * y
            out[q, a] += alpha_k * y + beta * x
