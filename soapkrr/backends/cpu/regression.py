"""Hot loops of kernels, design rows and the choice of sparse points, compiled by numba; serial, without the GIL."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load_part, store_part, total


@jit
def dot_product_energy(U, weights, zeta, energies):
    """Energies Σ_q w_q u^ζ of each row of U, which is overwritten with w_q ζ u^(ζ−1)."""
    power, n = int(zeta), U.shape[1]
    whole = power == zeta and power <= 16
    for i in range(U.shape[0]):
        if whole:
            sums = broadcast(0.0)
            for q in range(0, n, WIDTH):
                v, s = load_part(U, i * n + q, n - q), load_part(weights, q, n - q)
                for _ in range(power - 1):
                    s = s * v
                sums = sums + s * v
                store_part(U, i * n + q, s * zeta, n - q)
            energies[i] = total(sums)
        else:
            u, energy = U[i], 0.0
            for q in range(n):
                v = max(u[q], 0.0)
                s = weights[q] * v ** (zeta - 1.0)
                energy += s * v
                u[q] = zeta * s
            energies[i] = energy


@jit
def pair_sums(offsets, neighbours, vectors, atom_offsets, gradient, forces, strain):
    """Forces Σ_j (g_aj − g_ja) into ``forces`` (n_atoms, 3), ½ Σ_p (r_a g_b + r_b g_a) into ``strain`` (n_structures, 6, Voigt order).

    ``gradient`` (n_pairs, 3) is ∂E/∂r_ij; atoms of structure s are ``atom_offsets[s]:atom_offsets[s + 1]``.
    """
    forces[:, :] = 0.0
    for s in range(strain.shape[0]):
        xx, yy, zz, yz, xz, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(atom_offsets[s], atom_offsets[s + 1]):
            fx, fy, fz = 0.0, 0.0, 0.0
            for p in range(offsets[i], offsets[i + 1]):
                j = neighbours[p]
                x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
                gx, gy, gz = gradient[p, 0], gradient[p, 1], gradient[p, 2]
                fx, fy, fz = fx + gx, fy + gy, fz + gz
                forces[j, 0] -= gx
                forces[j, 1] -= gy
                forces[j, 2] -= gz
                xx, yy, zz = xx + x * gx, yy + y * gy, zz + z * gz
                yz, xz, xy = yz + y * gz + z * gy, xz + x * gz + z * gx, xy + x * gy + y * gx
            forces[i, 0] += fx
            forces[i, 1] += fy
            forces[i, 2] += fz
        for v, value in enumerate((xx, yy, zz, 0.5 * yz, 0.5 * xz, 0.5 * xy)):
            strain[s, v] = value


@jit
def dot_product_observed(U, V, weights, zeta, energies):
    """Energies Σ_q [w_q F(u) + F′(u) v], F = u^ζ, of each row of U and V, which are overwritten with w_q F′ + F″ v and F′."""
    power = int(zeta)
    whole = power == zeta and power <= 16
    # Below ζ = 2 the curvature diverges at u = 0, where v, a derivative of u, vanishes faster.
    least = 0.0 if zeta >= 2.0 else 1e-12
    rest = np.empty(U.shape[1])
    for i in range(U.shape[0]):
        u, v, total = U[i], V[i], 0.0
        if zeta == 1.0:
            for q in range(u.shape[0]):
                total += weights[q] * u[q] + v[q]
                u[q], v[q] = weights[q], 1.0
            energies[i] = total
            continue
        if whole:
            rest[:] = 1.0
            for _ in range(power - 2):
                for q in range(u.shape[0]):
                    rest[q] *= u[q]
        else:
            for q in range(u.shape[0]):
                rest[q] = max(u[q], least) ** (zeta - 2.0)
                u[q] = max(u[q], 0.0)
        for q in range(u.shape[0]):
            t, x = rest[q], v[q]
            slope = zeta * t * u[q]
            total += weights[q] * t * u[q] * u[q] + slope * x
            u[q] = weights[q] * slope + zeta * (zeta - 1.0) * t * x
            v[q] = slope
        energies[i] = total


@jit
def scatter_rows(T, slope, centre, atom, out):
    """out[atom[e], b] −= Σ_q slope[centre[e], q] T[e, b, q]: force rows of displaced atoms from Jacobian products."""
    for e in range(T.shape[0]):
        s, o, t = slope[centre[e]], out[atom[e]], T[e]
        for b in range(t.shape[0]):
            for q in range(t.shape[1]):
                o[b, q] -= s[q] * t[b, q]


@jit
def nearest_picks(X, picks, start, nearest, best):
    """Lower ``best``, the squared gap of each row of X to its ``nearest`` of the picks, by those from ``start`` on.

    The triangle inequality spares a row when the new pick is at least twice as far from the row's nearest pick as the row is.
    Returns the row farthest from its nearest pick, and its squared gap.
    """
    n_points, n_features = X.shape
    between, far, farthest = np.zeros(len(picks)), -1.0, 0
    for k in range(start, len(picks)):
        new = picks[k]
        for m in range(k):
            d, other = 0.0, picks[m]
            for f in range(n_features):
                d += (new[f] - other[f]) ** 2
            between[m] = d
        far = -1.0
        for i in range(n_points):
            if between[nearest[i]] < 4.0 * best[i]:
                d, x = 0.0, X[i]
                for f in range(n_features):
                    d += (new[f] - x[f]) ** 2
                if d < best[i]:
                    best[i], nearest[i] = d, k
            if best[i] > far:
                far, farthest = best[i], i
    return farthest, far


@jit
def farthest_points(X, first, n, picked, gaps):
    """Farthest-point sampling of rows of X from row ``first``: indices into ``picked``, squared gaps into ``gaps``.

    Returns the number of picks (fewer than n when only copies are left).
    """
    n_points, n_features = X.shape
    nearest, best = np.zeros(n_points, dtype=np.int64), np.full(n_points, np.inf)
    picks = np.empty((n, n_features))
    picked[0], gaps[0] = first, np.inf
    for k in range(n):
        picks[k] = X[picked[k]]
        farthest, far = nearest_picks(X, picks[: k + 1], k, nearest, best)
        if k + 1 == n:
            return n
        if far <= 1e-20:
            return k + 1
        picked[k + 1], gaps[k + 1] = farthest, far
    return n


@jit
def scatter_norms(along, slope, centre, target, out):
    """out[target[e], b] −= Σ_q slope[centre[e], q] along[e, b]: the part of `scatter_rows` that changes |x|²."""
    for e in range(along.shape[0]):
        s, o = slope[centre[e]], out[target[e]]
        for b in range(along.shape[1]):
            v = along[e, b]
            for q in range(s.shape[0]):
                o[b, q] -= s[q] * v
