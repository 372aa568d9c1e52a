"""Derivatives of density expansions and power spectra along one direction of the pair vectors; layouts as in `cpu.soap`.

Forward-mode twins of `expansion_pullback` and `power_spectrum_pullback`, at about the cost of the values.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.soap import _harmonics, _harmonics_gradient, _project, _radial, _radial_slope


@jit
def expansion(start, stop, pairs, basis, direction, out):
    """Σ_p ∂c_i/∂r_p · direction[p] of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); direction (n_pairs, 3)."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    S, dS, Y, dY = np.empty(n_l * n_max), np.empty(n_l * n_max), np.empty(n_l * n_l), np.empty((3, n_l * n_l))
    q = np.empty(n_l * (n_l + 1) // 2)
    for i in range(start, stop):
        c = out[i - start]
        c[:, :] = 0.0
        for p in range(offsets[i], offsets[i + 1]):
            x, y, z = vectors[p, 0] * inv_r_cut, vectors[p, 1] * inv_r_cut, vectors[p, 2] * inv_r_cut
            u, v, w = direction[p, 0] * inv_r_cut, direction[p, 1] * inv_r_cut, direction[p, 2] * inv_r_cut
            r = np.sqrt(x * x + y * y + z * z)
            _radial(r, table, S)
            _radial_slope(r, table, dS)
            _harmonics(x, y, z, l_max, norm, q, Y)
            _harmonics_gradient(x, y, z, l_max, norm, q, dY)
            stretch = (x * u + y * v + z * w) / r
            for e in range(n_l * n_max):
                dS[e] *= stretch
            a0 = kinds[neighbours[p]] * n_max
            k = 0
            for l in range(n_l):
                for _ in range(2 * l + 1):
                    value, slope = Y[k], u * dY[0, k] + v * dY[1, k] + w * dY[2, k]
                    for n in range(n_max):
                        c[k, a0 + n] += value * dS[l * n_max + n] + slope * S[l * n_max + n]
                    k += 1


@jit
def power_spectrum(c, dc, X, norms, partners, weight, l_max, out):
    """Derivative of the normalised spectra X of ``c[i, lm, a]`` along ``dc`` into ``out[i, f]``; other arguments as of `cpu.soap`."""
    for i in range(c.shape[0]):
        ci, di, row = c[i], dc[i], out[i]
        if norms[i] == 0.0:
            row[:] = 0.0
            continue
        f, k0 = 0, 0
        for l in range(l_max + 1):
            width = 2 * l + 1
            w1, w2 = weight[l], np.sqrt(2.0) * weight[l]
            for a in range(c.shape[2]):
                b0, n_b = partners[a, 0], partners[a, 1] - partners[a, 0]
                for b in range(n_b):
                    row[f + b] = 0.0
                for k in range(k0, k0 + width):
                    v, dv = ci[k, a], di[k, a]
                    for b in range(n_b):
                        row[f + b] += dv * ci[k, b0 + b] + v * di[k, b0 + b]
                for b in range(n_b):
                    row[f + b] *= w1 if b0 + b == a else w2
                f += n_b
            k0 += width
        _project(row, X[i], 1.0 / norms[i])
