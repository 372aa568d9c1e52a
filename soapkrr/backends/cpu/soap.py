"""Hot loops of the density expansion and the power spectrum, compiled by numba; serial, without the GIL.

Layouts: expansion c[i, lm, a] with lm = l² + l + m and channel a = species·n_max + n (or what `Basis.windows`
says); power spectrum p[i, f] with f running over l, then channel pairs a ≤ b. Radial tables come from `descriptors.radial`. Callers run
these on blocks of atoms, one block per thread.

Pairs are taken `WIDTH` at a time, whatever their centres: harmonics have pairs as lanes, radial functions and channels have n as lanes.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import harmonics, harmonics_gradient, lanes, length, radial, radial_slope
from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, load_part, store_part, total
from soapkrr.backends.cpu.soap_jacobian import off_diagonal


@jit
def expand(start, stop, pairs, basis, out):
    """Density expansion of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); the central atom is included."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max, windows = basis
    n_k, size, n_a = out.shape[1], table.shape[3], out.shape[2]
    u, Y, q = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH))
    S = np.zeros(WIDTH * size + WIDTH)
    out[:, :, :] = 0.0
    for kind in range(windows.shape[0]):
        radial(0.0, table, min(kind, table.shape[0] - 1), 0, S)
        for i in range(start, stop):
            if kinds[i] == kind:
                for a in range(windows[kind, 0, 0], windows[kind, 0, 1]):
                    out[i - start, 0, a] = norm[0] * S[a - windows[kind, 0, 0]]
    i, last = start, offsets[stop]
    for first in range(offsets[start], last, WIDTH):
        lanes(first, last, vectors, inv_r_cut, u)
        harmonics(u, l_max, norm, q, Y)
        n_pairs = min(WIDTH, last - first)
        for v in range(n_pairs):
            which = min(kinds[neighbours[first + v]], table.shape[0] - 1)
            radial(length(u, v), table, which, v * size, S)
        v = 0
        while v < n_pairs:
            while offsets[i + 1] <= first + v:
                i += 1
            # A run of pairs with one centre and one species of neighbour.
            kind, end = kinds[neighbours[first + v]], v + 1
            while end < n_pairs and first + end < offsets[i + 1] and kinds[neighbours[first + end]] == kind:
                end += 1
            add_products(v, end, Y, S, windows[kind], n_max, (i - start) * n_k * n_a, out)
            v = end


@jit
def add_products(v, end, Y, S, window, n_max, at, c):
    """c[lm, a + n] += Σ_p Y[lm, p] S[p, l, n] over lanes ``v:end``, a the first channel of ``window[l]``; c from flat index ``at``."""
    n_l, n_a = window.shape[0], c.shape[2]
    for l in range(n_l):
        a0, count = window[l, 0], window[l, 1] - window[l, 0]
        for n in range(0, count, WIDTH):
            for k in range(l * l, (l + 1) * (l + 1)):
                place = at + k * n_a + a0 + n
                sums = load_part(c, place, count - n)
                for p in range(v, end):
                    sums = sums + load(S, (p * n_l + l) * n_max + n) * Y[k, p]
                store_part(c, place, sums, count - n)


@jit
def power_spectrum(c, partners, weight, l_max, X, norms):
    """Normalised power spectra of expansions ``c[i, lm, a]`` into ``X[i, f]``; their norms into ``norms[i]``.

    Channel a is paired with those from ``partners[l, a, 0]`` up to ``partners[l, a, 1]``. ``weight[l]`` = √(8π²/(2l+1)); off-diagonal pairs
    get √2, so that with all partners b ≥ a, X·X′ is the product of the full tensors.
    """
    n_k, n_a = c.shape[1], c.shape[2]
    factors = off_diagonal()
    for i in range(c.shape[0]):
        f, square = 0, broadcast(0.0)
        for l in range(l_max + 1):
            for a in range(n_a):
                b0, b1 = partners[l, a, 0], partners[l, a, 1]
                for b in range(b0, b1, WIDTH):
                    sums = broadcast(0.0)
                    for k in range(l * l, (l + 1) * (l + 1)):
                        sums = sums + load_part(c, (i * n_k + k) * n_a + b, b1 - b) * c[i, k, a]
                    sums = sums * weight[l] * load(factors, WIDTH - min(max(a - b, -1), WIDTH))
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
    # h[lm, a] = Σ_b V[a, b] c[lm, b]; no pair occurs twice, and what is none stays zero, or meets coefficients that are.
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
            for a in range(n_a):
                for b in range(partners[l, a, 0], partners[l, a, 1]):
                    t = g[f] - along * x[f]
                    if a == b:
                        V[a, a] = 2.0 * w1 * t
                    else:
                        V[a, b] = w2 * t
                        V[b, a] = w2 * t
                    f += 1
            for k in range(l * l, (l + 1) * (l + 1)):
                row = (i * n_k + k) * n_a
                for b in range(0, n_a, WIDTH):
                    sums = broadcast(0.0)
                    for a in range(n_a):
                        sums = sums + load_part(V, a * n_a + b, n_a - b) * c[i, k, a]
                    store_part(H, row + b, sums, n_a - b)


@jit
def expansion_pullback(start, stop, pairs, basis, H, out):
    """∂E/∂r_ij (per Å) of the pairs of atoms ``start:stop`` into ``out[p]``, from H[i - start] = ∂E/∂c."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max, windows = basis
    n_k, size, n_a = H.shape[1], table.shape[3], H.shape[2]
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
            kind = kinds[neighbours[first + v]]
            which = min(kind, table.shape[0] - 1)
            radial(r, table, which, 0, S)
            radial_slope(r, table, which, 0, dS)
            gr, gx, gy, gz = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
            for l in range(l_max + 1):
                at, count = (i - start) * n_k * n_a + windows[kind, l, 0], windows[kind, l, 1] - windows[kind, l, 0]
                for n in range(0, count, WIDTH):
                    y, yx, yy, yz = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
                    for k in range(l * l, (l + 1) * (l + 1)):
                        h = load_part(H, at + k * n_a + n, count - n)
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
