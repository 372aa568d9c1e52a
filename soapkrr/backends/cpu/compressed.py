"""Jacobians of power spectra whose channels were contracted, c′[lm, q] = Σ_a c[lm, a] C[l, a, q]; see `cpu` for the layouts.

Values and pull-back need nothing of their own: `cpu.expand`, a matrix product per l, `cpu.power_spectrum`, and back.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.soap import _pair_derivative, _project


@jit
def _contract(dc, contraction, a0, l_max, out):
    """out[lm, q] = Σ_n dc[lm, n] C[l, a0 + n, q]."""
    k = 0
    for l in range(l_max + 1):
        for _ in range(2 * l + 1):
            out[k, :] = 0.0
            for n in range(dc.shape[1]):
                v = dc[k, n]
                for q in range(out.shape[1]):
                    out[k, q] += v * contraction[l, a0 + n, q]
            k += 1


@jit
def _derivative(c, dc, partners, weight, l_max, row):
    """Derivative of the (unnormalised) power spectrum of ``c[lm, q]`` along ``dc[lm, q]``."""
    f, k0 = 0, 0
    for l in range(l_max + 1):
        width = 2 * l + 1
        w1, w2 = weight[l], np.sqrt(2.0) * weight[l]
        for a in range(c.shape[1]):
            b0, n_b = partners[a, 0], partners[a, 1] - partners[a, 0]
            for b in range(n_b):
                row[f + b] = 0.0
            for k in range(k0, k0 + width):
                v, dv = c[k, a], dc[k, a]
                for b in range(n_b):
                    row[f + b] += dv * c[k, b0 + b] + v * dc[k, b0 + b]
            for b in range(n_b):
                row[f + b] *= w1 if b0 + b == a else w2
            f += n_b
        k0 += width


@jit
def _row(c, dc, partners, weight, l_max, x, norm, row):
    """One row of a Jacobian, normalisation included; zero where the spectrum is."""
    if norm > 0.0:
        _derivative(c, dc, partners, weight, l_max, row)
        _project(row, x, 1.0 / norm)
    else:
        row[:] = 0.0


@jit
def jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, rows, out):
    """∂X_i/∂r_a as `cpu.jacobian`, for contracted expansions ``c[i, lm, q]``."""
    offsets, neighbours, vectors, kinds = pairs
    _, _, weight, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    n_a, n_q = contraction.shape[1], contraction.shape[2]
    S, dS, Y, dY = np.empty(n_l * n_max), np.empty(n_l * n_max), np.empty(n_l * n_l), np.empty((3, n_l * n_l))
    q = np.empty(n_l * (n_l + 1) // 2)
    dc, own, mixed = np.empty((3, n_l * n_l, n_max)), np.empty((3, n_l * n_l, n_a)), np.empty((n_l * n_l, n_q))
    first = offsets[start]
    n_pairs = offsets[stop] - first
    for a in range(start, stop):
        own[:, :, :] = 0.0
        for p in range(offsets[a], offsets[a + 1]):
            i = neighbours[p]
            x, y, z = vectors[p, 0] * inv_r_cut, vectors[p, 1] * inv_r_cut, vectors[p, 2] * inv_r_cut
            _pair_derivative(-x, -y, -z, basis, S, dS, q, Y, dY, dc)
            # Seen from a, the pair has the opposite vector: Y_lm(−r) = (−1)^l Y_lm(r), and its derivative by r_a the other sign twice.
            a0 = kinds[i] * n_max
            k = 0
            for l in range(n_l):
                sign = 1.0 if l % 2 == 0 else -1.0
                for _ in range(2 * l + 1):
                    for b in range(3):
                        for n in range(n_max):
                            own[b, k, a0 + n] += sign * dc[b, k, n]
                    k += 1
            for b in range(3):
                _contract(dc[b], contraction, kinds[a] * n_max, l_max, mixed)
                _row(c[i], mixed, partners, weight, l_max, X[i], norms[i], out[rows[p - first], b])
        for b in range(3):
            _contract(own[b], contraction, 0, l_max, mixed)
            _row(c[a], mixed, partners, weight, l_max, X[a], norms[a], out[rows[n_pairs + a - start], b])


@jit
def strain_jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, out):
    """∂X_i/∂ε as `cpu.strain_jacobian`, for contracted expansions ``c[i, lm, q]``."""
    offsets, neighbours, vectors, kinds = pairs
    _, _, weight, inv_r_cut, l_max, n_max = basis
    n_l = l_max + 1
    n_a, n_q = contraction.shape[1], contraction.shape[2]
    S, dS, Y, dY = np.empty(n_l * n_max), np.empty(n_l * n_max), np.empty(n_l * n_l), np.empty((3, n_l * n_l))
    q = np.empty(n_l * (n_l + 1) // 2)
    dc, total, mixed = np.empty((3, n_l * n_l, n_max)), np.empty((6, n_l * n_l, n_a)), np.empty((n_l * n_l, n_q))
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
            _contract(total[v], contraction, 0, l_max, mixed)
            _row(c[i], mixed, partners, weight, l_max, X[i], norms[i], out[i - start, v])
