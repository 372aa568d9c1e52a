"""Hot loops of the density expansion and the power spectrum, compiled by numba; serial, without the GIL.

Layouts: expansion c[i, lm, a] with lm = l² + l + m and channel a = species·n_max + n; power spectrum
p[i, f] with f running over l, then channel pairs a ≤ b. Radial tables come from `descriptors.radial`. Callers run these
on blocks of atoms, one block per thread.

Pairs are taken `WIDTH` at a time, whatever their centres: harmonics have pairs as lanes, radial functions and channels have n as lanes.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import harmonics, harmonics_gradient, radial, radial_slope
from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, load, load_part, spread, store_part, total


@jit
def lanes(first, last, vectors, inv_r_cut, u):
    """Pair vectors ``first : first + WIDTH`` in units of r_cut into ``u`` (3, WIDTH), the last one repeated from ``last`` on."""
    for v in range(WIDTH):
        p = min(first + v, last - 1)
        for b in range(3):
            u[b, v] = vectors[p, b] * inv_r_cut


@jit
def length(u, v):
    """Length of the vector in lane v."""
    return np.sqrt(u[0, v] * u[0, v] + u[1, v] * u[1, v] + u[2, v] * u[2, v])


@jit
def expand(start, stop, pairs, basis, out):
    """Density expansion of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); the central atom is included."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max = basis
    n_k, size, n_a = out.shape[1], table.shape[2], out.shape[2]
    u, Y, q = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH))
    S = np.zeros(WIDTH * size + WIDTH)
    out[:, :, :] = 0.0
    radial(0.0, table, 0, S)
    for i in range(start, stop):
        for n in range(n_max):
            out[i - start, 0, kinds[i] * n_max + n] = norm[0] * S[n]
    i, last = start, offsets[stop]
    for first in range(offsets[start], last, WIDTH):
        lanes(first, last, vectors, inv_r_cut, u)
        harmonics(u, l_max, norm, q, Y)
        n_pairs = min(WIDTH, last - first)
        for v in range(n_pairs):
            radial(length(u, v), table, v * size, S)
        v = 0
        while v < n_pairs:
            while offsets[i + 1] <= first + v:
                i += 1
            # A run of pairs with one centre and one species of neighbour.
            kind, end = kinds[neighbours[first + v]], v + 1
            while end < n_pairs and first + end < offsets[i + 1] and kinds[neighbours[first + end]] == kind:
                end += 1
            _add_products(v, end, Y, S, l_max, n_max, (i - start) * n_k * n_a + kind * n_max, n_a, out)
            v = end


@jit
def _add_products(v, end, Y, S, l_max, n_max, at, n_a, c):
    """c[at + k·n_a + n] += Σ_p Y[k, p] S[p, l, n] over lanes ``v:end``."""
    size = (l_max + 1) * n_max
    for l in range(l_max + 1):
        for n in range(0, n_max, WIDTH):
            for k in range(l * l, (l + 1) * (l + 1)):
                place = at + k * n_a + n
                sums = load_part(c, place, n_max - n)
                for p in range(v, end):
                    sums = sums + load(S, p * size + l * n_max + n) * Y[k, p]
                store_part(c, place, sums, n_max - n)


@jit
def power_spectrum(c, partners, weight, l_max, X, norms):
    """Normalised power spectra of expansions ``c[i, lm, a]`` into ``X[i, f]``; their norms into ``norms[i]``.

    Channel a is paired with those from ``partners[a, 0]`` up to ``partners[a, 1]``. ``weight[l]`` = √(8π²/(2l+1)); off-diagonal pairs
    get √2, so that with all partners b ≥ a, X·X′ is the product of the full tensors.
    """
    n_k, n_a = c.shape[1], c.shape[2]
    twice = np.full(2 * WIDTH + 1, np.sqrt(2.0))
    twice[WIDTH] = 1.0
    for i in range(c.shape[0]):
        f, square = 0, spread(0.0)
        for l in range(l_max + 1):
            for a in range(n_a):
                b0, b1 = partners[a, 0], partners[a, 1]
                for b in range(b0, b1, WIDTH):
                    sums = spread(0.0)
                    for k in range(l * l, (l + 1) * (l + 1)):
                        sums = sums + load_part(c, (i * n_k + k) * n_a + b, b1 - b) * c[i, k, a]
                    # A lane of √2, but for the one where a meets itself.
                    sums = sums * weight[l] * load(twice, WIDTH - min(max(a - b, -1), WIDTH))
                    store_part(X, i * X.shape[1] + f + b - b0, sums, b1 - b)
                    square = square + sums * sums
                f += b1 - b0
        norms[i] = np.sqrt(total(square))
        if norms[i] > 0.0:
            inverse = 1.0 / norms[i]
            for f in range(X.shape[1]):
                X[i, f] *= inverse


@jit
def power_spectrum_pullback(G, X, norms, c, partners, weight, l_max, H):
    """∂E/∂c in ``H[i, lm, a]`` from G = ∂E/∂X; the normalisation is differentiated too; arguments as of `power_spectrum`."""
    n_k, n_a = c.shape[1], c.shape[2]
    V = np.zeros((n_a, n_a))
    for i in range(c.shape[0]):
        g, x = G[i], X[i]
        if norms[i] == 0.0:
            H[i] = 0.0
            continue
        along = 0.0
        for f in range(x.shape[0]):
            along += g[f] * x[f]
        f = 0
        for l in range(l_max + 1):
            w1 = weight[l] / norms[i]
            w2 = w1 * np.sqrt(2.0)
            V[:, :] = 0.0
            for a in range(n_a):
                for b in range(partners[a, 0], partners[a, 1]):
                    t = g[f] - along * x[f]
                    if a == b:
                        V[a, a] += 2.0 * w1 * t
                    else:
                        V[a, b] += w2 * t
                        V[b, a] += w2 * t
                    f += 1
            for k in range(l * l, (l + 1) * (l + 1)):
                row = (i * n_k + k) * n_a
                for b in range(0, n_a, WIDTH):
                    sums = spread(0.0)
                    for a in range(n_a):
                        sums = sums + load_part(V, a * n_a + b, n_a - b) * c[i, k, a]
                    store_part(H, row + b, sums, n_a - b)


@jit
def expansion_pullback(start, stop, pairs, basis, H, out):
    """∂E/∂r_ij (per Å) of the pairs of atoms ``start:stop`` into ``out[p]``, from H[i - start] = ∂E/∂c."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max = basis
    n_k, size, n_a = H.shape[1], table.shape[2], H.shape[2]
    u, q = np.empty((3, WIDTH)), np.empty((n_k, WIDTH))
    Y, dY = np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS = np.zeros(size + WIDTH), np.zeros(size + WIDTH)
    i, last = start, offsets[stop]
    for first in range(offsets[start], last, WIDTH):
        lanes(first, last, vectors, inv_r_cut, u)
        harmonics(u, l_max, norm, q, Y)
        harmonics_gradient(u, l_max, norm, q, dY)
        for v in range(min(WIDTH, last - first)):
            while offsets[i + 1] <= first + v:
                i += 1
            r = length(u, v)
            radial(r, table, 0, S)
            radial_slope(r, table, 0, dS)
            at = (i - start) * n_k * n_a + kinds[neighbours[first + v]] * n_max
            gr, gx, gy, gz = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for n in range(0, n_max, WIDTH):
                for l in range(l_max + 1):
                    y, yx, yy, yz = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                    for k in range(l * l, (l + 1) * (l + 1)):
                        h = load_part(H, at + k * n_a + n, n_max - n)
                        y = y + h * Y[k, v]
                        yx = yx + h * dY[0, k, v]
                        yy = yy + h * dY[1, k, v]
                        yz = yz + h * dY[2, k, v]
                    s, slope = load(S, l * n_max + n), load(dS, l * n_max + n)
                    gr, gx, gy, gz = gr + slope * y, gx + s * yx, gy + s * yy, gz + s * yz
            outwards = total(gr) / r
            out[first + v, 0] = (total(gx) + outwards * u[0, v]) * inv_r_cut
            out[first + v, 1] = (total(gy) + outwards * u[1, v]) * inv_r_cut
            out[first + v, 2] = (total(gz) + outwards * u[2, v]) * inv_r_cut


@jit
def _harmonics(x, y, z, l_max, norm, q, Y):
    """Real solid harmonics r^l Y_lm of one vector; q is scratch for the Legendre-like polynomials Q_l^m(z, r²)."""
    r2 = x * x + y * y + z * z
    q[0] = 1.0
    for l in range(1, l_max + 1):
        row, below, below2 = l * (l + 1) // 2, (l - 1) * l // 2, (l - 2) * (l - 1) // 2
        q[row + l] = (2 * l - 1) * q[below + l - 1]
        q[row + l - 1] = (2 * l - 1) * z * q[below + l - 1]
        for m in range(l - 1):
            q[row + m] = ((2 * l - 1) * z * q[below + m] - (l + m - 1) * r2 * q[below2 + m]) / (l - m)
    c, s = 1.0, 0.0
    for m in range(l_max + 1):
        for l in range(m, l_max + 1):
            t = l * (l + 1) // 2 + m
            value = norm[t] * q[t]
            Y[l * l + l + m] = value * c
            if m > 0:
                Y[l * l + l - m] = value * s
        c, s = x * c - y * s, x * s + y * c


@jit
def _harmonics_gradient(x, y, z, l_max, norm, q, dY):
    """Cartesian gradients dY[3, lm] of the solid harmonics; q as left by `_harmonics`."""
    c0, s0, c1, s1 = 0.0, 0.0, 1.0, 0.0
    for m in range(l_max + 1):
        for l in range(m, l_max + 1):
            t, below = l * (l + 1) // 2 + m, (l - 1) * l // 2 + m
            q1 = q[below + 1] if l >= m + 2 else 0.0
            qz = q[below] * (l + m) if l >= m + 1 else 0.0
            f = norm[t]
            k = l * l + l + m
            dY[0, k] = f * (m * c0 * q[t] - x * c1 * q1)
            dY[1, k] = f * (-m * s0 * q[t] - y * c1 * q1)
            dY[2, k] = f * c1 * qz
            if m > 0:
                k = l * l + l - m
                dY[0, k] = f * (m * s0 * q[t] - x * s1 * q1)
                dY[1, k] = f * (m * c0 * q[t] - y * s1 * q1)
                dY[2, k] = f * s1 * qz
        c0, s0 = c1, s1
        c1, s1 = x * c0 - y * s0, x * s0 + y * c0


@jit
def _radial(r, table, S):
    """S_nl at distance r (in units of r_cut), all (l, n) at once."""
    n = table.shape[0]
    u = r * n
    k = min(int(u), n - 1)
    t = u - k
    T = table[k]
    for e in range(S.shape[0]):
        S[e] = T[0, e] + t * (T[1, e] + t * (T[2, e] + t * (T[3, e] + t * (T[4, e] + t * T[5, e]))))


@jit
def _radial_slope(r, table, dS):
    """dS_nl/dr in units of 1/r_cut."""
    n = table.shape[0]
    u = r * n
    k = min(int(u), n - 1)
    t = u - k
    T = table[k]
    for e in range(dS.shape[0]):
        dS[e] = n * (T[1, e] + t * (2 * T[2, e] + t * (3 * T[3, e] + t * (4 * T[4, e] + t * 5 * T[5, e]))))


@jit
def _pair_derivative(x, y, z, basis, S, dS, q, Y, dY, dc):
    """dc[b, lm, n] = ∂/∂r_b of one neighbour's contribution to the expansion (per Å)."""
    table, norm, _, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    r = np.sqrt(x * x + y * y + z * z)
    _radial(r, table, S)
    _radial_slope(r, table, dS)
    _harmonics(x, y, z, l_max, norm, q, Y)
    _harmonics_gradient(x, y, z, l_max, norm, q, dY)
    ux, uy, uz = x / r, y / r, z / r
    k = 0
    for l in range(n_l):
        for _ in range(2 * l + 1):
            v, vx, vy, vz = Y[k] * inv_r_cut, dY[0, k] * inv_r_cut, dY[1, k] * inv_r_cut, dY[2, k] * inv_r_cut
            for n in range(n_max):
                e = l * n_max + n
                slope = v * dS[e]
                dc[0, k, n] = vx * S[e] + ux * slope
                dc[1, k, n] = vy * S[e] + uy * slope
                dc[2, k, n] = vz * S[e] + uz * slope
            k += 1


@jit
def _project(row, x, inverse_norm):
    """Differentiate the normalisation: row ← (row − x (x·row))/|p|."""
    along = 0.0
    for f in range(x.shape[0]):
        along += row[f] * x[f]
    for f in range(x.shape[0]):
        row[f] = (row[f] - along * x[f]) * inverse_norm


@jit
def _power_derivative(c, dc, a0, n_max, weight, l_max, M, row):
    """Derivative of the (unnormalised) power spectrum when channels a0:a0+n_max of c move by dc[lm, n]."""
    n_a = c.shape[1]
    f, k0 = 0, 0
    for l in range(l_max + 1):
        width = 2 * l + 1
        M[:, :] = 0.0
        for k in range(k0, k0 + width):
            for n in range(n_max):
                v = dc[k, n]
                for b in range(n_a):
                    M[a0 + n, b] += v * c[k, b]
        w1, w2 = 2.0 * weight[l], np.sqrt(2.0) * weight[l]
        for a in range(n_a):
            row[f] = w1 * M[a, a]
            f += 1
            for b in range(a + 1, n_a):
                row[f] = w2 * (M[a, b] + M[b, a])
                f += 1
        k0 += width


@jit
def jacobian(start, stop, pairs, basis, c, X, norms, rows, out):
    """∂X_i/∂r_a for every centre i that atom a (of ``start:stop``) moves, itself included; grouped by displaced atom.

    Pair p = (a, i) writes the three rows ``out[rows[p - offsets[start]]]`` (one per Cartesian axis, each n_features long),
    and atom a its own environment's derivative at ``rows[n_pairs_of_block + a - start]``. Uses that the list is full: i sees a at −r_ai.
    ``c``, ``X``, ``norms`` hold every atom of the batch.
    """
    offsets, neighbours, vectors, kinds = pairs
    _, _, weight, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    n_a = c.shape[2]
    S, dS, Y, dY = np.empty(n_l * n_max), np.empty(n_l * n_max), np.empty(n_l * n_l), np.empty((3, n_l * n_l))
    q = np.empty(n_l * (n_l + 1) // 2)
    dc, own = np.empty((3, n_l * n_l, n_max)), np.empty((3, n_l * n_l, n_a))
    M = np.empty((n_a, n_a))
    first = offsets[start]
    n_pairs = offsets[stop] - first
    for a in range(start, stop):
        own[:, :, :] = 0.0
        for p in range(offsets[a], offsets[a + 1]):
            i = neighbours[p]
            x, y, z = vectors[p, 0] * inv_r_cut, vectors[p, 1] * inv_r_cut, vectors[p, 2] * inv_r_cut
            _pair_derivative(-x, -y, -z, basis, S, dS, q, Y, dY, dc)
            # Seen from a, the same pair has the opposite vector: Y_lm(−r) = (−1)^l Y_lm(r), and its derivative by r_a the other sign twice.
            a0 = kinds[neighbours[p]] * n_max
            k = 0
            for l in range(n_l):
                sign = 1.0 if l % 2 == 0 else -1.0
                for _ in range(2 * l + 1):
                    for b in range(3):
                        for n in range(n_max):
                            own[b, k, a0 + n] += sign * dc[b, k, n]
                    k += 1
            for b in range(3):
                row = out[rows[p - first], b]
                if norms[i] > 0.0:
                    _power_derivative(c[i], dc[b], kinds[a] * n_max, n_max, weight, l_max, M, row)
                    _project(row, X[i], 1.0 / norms[i])
                else:
                    row[:] = 0.0
        for b in range(3):
            row = out[rows[n_pairs + a - start], b]
            if norms[a] > 0.0:
                _power_derivative(c[a], own[b], 0, n_a, weight, l_max, M, row)
                _project(row, X[a], 1.0 / norms[a])
            else:
                row[:] = 0.0


@jit
def strain_jacobian(start, stop, pairs, basis, c, X, norms, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``: Σ_j r_ij,a ∂X_i/∂r_ij,b."""
    offsets, neighbours, vectors, kinds = pairs
    _, _, weight, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    n_a = c.shape[2]
    S, dS, Y, dY = np.empty(n_l * n_max), np.empty(n_l * n_max), np.empty(n_l * n_l), np.empty((3, n_l * n_l))
    q = np.empty(n_l * (n_l + 1) // 2)
    dc, total = np.empty((3, n_l * n_l, n_max)), np.empty((6, n_l * n_l, n_a))
    M = np.empty((n_a, n_a))
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    for i in range(start, stop):
        total[:, :, :] = 0.0
        for p in range(offsets[i], offsets[i + 1]):
            x, y, z = vectors[p, 0] * inv_r_cut, vectors[p, 1] * inv_r_cut, vectors[p, 2] * inv_r_cut
            _pair_derivative(x, y, z, basis, S, dS, q, Y, dY, dc)
            a0 = kinds[neighbours[p]] * n_max
            for v in range(6):
                lever = vectors[p, va[v]]
                for k in range(n_l * n_l):
                    for n in range(n_max):
                        total[v, k, a0 + n] += lever * dc[vb[v], k, n]
        for v in range(6):
            row = out[i - start, v]
            if norms[i] > 0.0:
                _power_derivative(c[i], total[v], 0, n_a, weight, l_max, M, row)
                _project(row, X[i], 1.0 / norms[i])
            else:
                row[:] = 0.0
