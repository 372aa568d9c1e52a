"""Derivatives of density expansions and power spectra along one direction of the pair vectors; layouts as in `cpu.soap`.

Forward-mode twins of `expansion_pullback` and `power_spectrum_pullback`, at about the cost of the values.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import aligned, harmonics, harmonics_gradient, lanes, length, radial_and_slope
from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, load_part, store, store_part, total
from soapkrr.backends.cpu.soap import add_products
from soapkrr.backends.cpu.soap_jacobian import off_diagonal


@jit
def expansion(start, stop, pairs, basis, direction, out):
    """Σ_p ∂c_i/∂r_p · direction[p] of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); direction (n_pairs, 3)."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max, windows = basis
    n_k, size = out.shape[1], table.shape[3]
    u, d, q = np.empty((3, WIDTH)), np.empty((3, WIDTH)), np.empty((n_k, WIDTH))
    Y, dY = np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS = aligned(WIDTH * size + WIDTH), aligned(WIDTH * size + WIDTH)
    out[:, :, :] = 0.0
    i, last = start, offsets[stop]
    for first in range(offsets[start], last, WIDTH):
        lanes(first, last, vectors, inv_r_cut, u)
        lanes(first, last, direction, inv_r_cut, d)
        harmonics(u, l_max, norm, q, Y)
        harmonics_gradient(u, l_max, norm, q, dY)
        for k in range(n_k):
            turned = broadcast(0.0)
            for b in range(3):
                turned = turned + load(dY, (b * n_k + k) * WIDTH) * load(d, b * WIDTH)
            store(dY, k * WIDTH, turned)
        n_pairs = min(WIDTH, last - first)
        for v in range(n_pairs):
            r, which = length(u, v), min(kinds[neighbours[first + v]], table.shape[0] - 1)
            stretch = (u[0, v] * d[0, v] + u[1, v] * d[1, v] + u[2, v] * d[2, v]) / r
            radial_and_slope(r, table, which, v * size, S, dS)
            for e in range(v * size, (v + 1) * size):
                dS[e] *= stretch
        v = 0
        while v < n_pairs:
            while offsets[i + 1] <= first + v:
                i += 1
            # A run of pairs with one centre and one species of neighbour.
            kind, end = kinds[neighbours[first + v]], v + 1
            while end < n_pairs and first + end < offsets[i + 1] and kinds[neighbours[first + end]] == kind:
                end += 1
            add_products((v, end), Y, dS, size, windows[kind], n_max, i - start, out)
            add_products((v, end), dY[0], S, size, windows[kind], n_max, i - start, out)
            v = end


@jit
def power_spectrum(c, dc, X, norms, partners, weight, l_max, out):
    """Derivative of the normalised spectra X of ``c[i, lm, a]`` along ``dc`` into ``out[i, f]``; other arguments as of `cpu.soap`."""
    n_k, n_a = c.shape[1], c.shape[2]
    factors = off_diagonal()
    for i in range(c.shape[0]):
        if norms[i] == 0.0:
            out[i] = 0.0
            continue
        f, along = 0, broadcast(0.0)
        for l in range(l_max + 1):
            for a in range(n_a):
                b0, b1 = partners[l, a, 0], partners[l, a, 1]
                for b in range(b0, b1, WIDTH):
                    sums = broadcast(0.0)
                    for k in range(l * l, (l + 1) * (l + 1)):
                        at = (i * n_k + k) * n_a + b
                        sums = sums + load_part(c, at, b1 - b) * dc[i, k, a] + load_part(dc, at, b1 - b) * c[i, k, a]
                    sums = sums * weight[l] * load(factors, WIDTH - min(max(a - b, -1), WIDTH))
                    at = i * out.shape[1] + f + b - b0
                    store_part(out, at, sums, b1 - b)
                    along = along + sums * load_part(X, at, b1 - b)
                f += b1 - b0
        inverse, projection = 1.0 / norms[i], total(along)
        for f in range(out.shape[1]):
            out[i, f] = (out[i, f] - projection * X[i, f]) * inverse
