"""Jacobians of power spectra, of plain channels and of contracted ones c′[lm, q] = Σ_a c[lm, a] C[l, a, q]; layouts as in `soap`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import harmonics, harmonics_gradient, lanes, length, radial, radial_slope
from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, load_part, store_part, total


@jit
def off_diagonal():
    """√2 on every lane of ``load(…, WIDTH - lane)``, but 1 on ``lane``; for lane = −1 and lane = WIDTH, √2 on all."""
    factors = np.empty(2 * WIDTH + 1)
    for v in range(2 * WIDTH + 1):
        factors[v] = 1.0 if v == WIDTH else np.sqrt(2.0)
    return factors


@jit
def _pair_derivative(u, v, basis, Y, dY, S, dS, a0, dc):
    """dc[b, lm, a0 + n] = ∂/∂r_b of the contribution of the neighbour in lane v to the expansion (per Å)."""
    table, _, _, inv_r_cut, l_max, n_max = basis
    n_k, n_a = dc.shape[1], dc.shape[2]
    r = length(u, v)
    radial(r, table, 0, S)
    radial_slope(r, table, 0, dS)
    for l in range(l_max + 1):
        for n in range(0, n_max, WIDTH):
            value, slope = load(S, l * n_max + n) * inv_r_cut, load(dS, l * n_max + n) * (inv_r_cut / r)
            for k in range(l * l, (l + 1) * (l + 1)):
                for b in range(3):
                    d = value * dY[b, k, v] + slope * (u[b, v] * Y[k, v])
                    store_part(dc, (b * n_k + k) * n_a + a0 + n, d, n_max - n)


@jit
def _accumulate(dc, b, a0, even, odd, l_max, n_max, sums, t, at):
    """sums[t, lm, at + n] += dc[b, lm, a0 + n] times ``even`` or ``odd``, by the parity of l."""
    for l in range(l_max + 1):
        factor = odd if l % 2 else even
        for k in range(l * l, (l + 1) * (l + 1)):
            source, target = (b * dc.shape[1] + k) * dc.shape[2] + a0, (t * sums.shape[1] + k) * sums.shape[2] + at
            for n in range(0, n_max, WIDTH):
                d = load_part(sums, target + n, n_max - n) + load_part(dc, source + n, n_max - n) * factor
                store_part(sums, target + n, d, n_max - n)


@jit
def _contract(dc, t, low, high, contraction, mixed):
    """mixed[b, lm, q] = Σ_a dc[t + b, lm, a] C[l, a, q] over channels ``low:high``, for three b."""
    n_k, n_a, n_q = dc.shape[1], contraction.shape[1], contraction.shape[2]
    for l in range(contraction.shape[0]):
        for k in range(l * l, (l + 1) * (l + 1)):
            for b in range(3):
                for q in range(0, n_q, WIDTH):
                    sums = broadcast(0.0)
                    for a in range(low, high):
                        sums = sums + load_part(contraction, (l * n_a + a) * n_q + q, n_q - q) * dc[t + b, k, a]
                    store_part(mixed, (b * n_k + k) * n_q + q, sums, n_q - q)


@jit
def _three_rows(i, expansion, dc, t, low, high, partners, weight, factors, at, out):
    """Derivatives of X_i, the normalisation included, when c_i moves along dc[t], dc[t + 1] and dc[t + 2]; from flat index ``at`` of out.

    ``dc`` vanishes outside the channels ``low:high``. Where the spectrum is zero, so are they.
    """
    c, X, norms = expansion
    n_k, n_a, n_f = c.shape[1], c.shape[2], X.shape[1]
    f, ci, d0 = 0, i * n_k * n_a, t * n_k * n_a
    d1, d2 = d0 + n_k * n_a, d0 + 2 * n_k * n_a
    p0, p1, p2 = broadcast(0.0), broadcast(0.0), broadcast(0.0)
    for l in range(weight.shape[0]):
        for a in range(n_a):
            b0, b1 = partners[a, 0], partners[a, 1]
            inside = low <= a < high
            for b in range(b0, b1, WIDTH):
                s0, s1, s2 = broadcast(0.0), broadcast(0.0), broadcast(0.0)
                left, place = b1 - b, f + b - b0
                if inside:
                    for k in range(l * l, (l + 1) * (l + 1)):
                        other = load_part(c, ci + k * n_a + b, left)
                        s0 = s0 + other * dc[t, k, a]
                        s1 = s1 + other * dc[t + 1, k, a]
                        s2 = s2 + other * dc[t + 2, k, a]
                if b < high and b + WIDTH > low:
                    for k in range(l * l, (l + 1) * (l + 1)):
                        own, row = c[i, k, a], k * n_a + b
                        s0 = s0 + load_part(dc, d0 + row, left) * own
                        s1 = s1 + load_part(dc, d1 + row, left) * own
                        s2 = s2 + load_part(dc, d2 + row, left) * own
                scale = load(factors, WIDTH - min(max(a - b, -1), WIDTH)) * weight[l]
                x = load_part(X, i * n_f + place, left)
                s0, s1, s2 = s0 * scale, s1 * scale, s2 * scale
                p0, p1, p2 = p0 + s0 * x, p1 + s1 * x, p2 + s2 * x
                store_part(out, at + place, s0, left)
                store_part(out, at + n_f + place, s1, left)
                store_part(out, at + 2 * n_f + place, s2, left)
            f += b1 - b0
    inverse = 1.0 / norms[i] if norms[i] > 0.0 else 0.0
    for b, along in enumerate((total(p0), total(p1), total(p2))):
        for f in range(0, n_f, WIDTH):
            d = load_part(out, at + b * n_f + f, n_f - f) - load_part(X, i * n_f + f, n_f - f) * along
            store_part(out, at + b * n_f + f, d * inverse, n_f - f)


@jit
def _rows(i, expansion, dc, t, low, high, contraction, mixed, partners, weight, factors, at, out):
    """`_three_rows` for changes dc of the plain channels, contracted into ``mixed`` where there is a contraction."""
    if contraction is None:
        _three_rows(i, expansion, dc, t, low, high, partners, weight, factors, at, out)
    else:
        _contract(dc, t, low, high, contraction, mixed)
        _three_rows(i, expansion, mixed, 0, 0, mixed.shape[2], partners, weight, factors, at, out)


@jit
def _n_plain(contraction, n_channels):
    """Number of plain channels, those before the contraction."""
    if contraction is None:
        return n_channels
    return contraction.shape[1]


@jit
def jacobian(start, stop, pairs, basis, channels, expansion, rows, out):
    """∂X_i/∂r_a for every centre i that atom a (of ``start:stop``) moves, itself included; grouped by displaced atom.

    Pair p = (a, i) writes the three rows ``out[rows[p - offsets[start]]]`` (one per Cartesian axis, each n_features long),
    and atom a its own environment's derivative at ``rows[n_pairs_of_block + a - start]``. Uses that the list is full: i sees a at −r_ai.
    ``expansion`` holds every atom of the batch.
    """
    offsets, neighbours, vectors, kinds = pairs
    table, norm, weight, inv_r_cut, l_max, n_max = basis
    partners, contraction = channels
    n_k, n_q, n_f, size = expansion.c.shape[1], expansion.c.shape[2], expansion.X.shape[1], table.shape[2]
    n_a = _n_plain(contraction, n_q)
    u, q, Y, dY = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS, factors = np.zeros(size + WIDTH), np.zeros(size + WIDTH), off_diagonal()
    dc, own, mixed = np.empty((3, n_k, n_a)), np.empty((3, n_k, n_a)), np.empty((3, n_k, n_q))
    first_pair = offsets[start]
    n_pairs = offsets[stop] - first_pair
    for a in range(start, stop):
        dc[:, :, :] = 0.0
        own[:, :, :] = 0.0
        low, last = kinds[a] * n_max, offsets[a + 1]
        for first in range(offsets[a], last, WIDTH):
            lanes(first, last, vectors, -inv_r_cut, u)
            harmonics(u, l_max, norm, q, Y)
            harmonics_gradient(u, l_max, norm, q, dY)
            for p in range(first, min(first + WIDTH, last)):
                i = neighbours[p]
                _pair_derivative(u, p - first, basis, Y, dY, S, dS, low, dc)
                # Seen from a, the pair has the opposite vector: Y_lm(−r) = (−1)^l Y_lm(r), and its derivative by r_a the other sign twice.
                for b in range(3):
                    _accumulate(dc, b, low, 1.0, -1.0, l_max, n_max, own, b, kinds[i] * n_max)
                at = rows[p - first_pair] * 3 * n_f
                _rows(i, expansion, dc, 0, low, low + n_max, contraction, mixed, partners, weight, factors, at, out)
        at = rows[n_pairs + a - start] * 3 * n_f
        _rows(a, expansion, own, 0, 0, n_a, contraction, mixed, partners, weight, factors, at, out)


@jit
def strain_jacobian(start, stop, pairs, basis, channels, expansion, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``: Σ_j r_ij,a ∂X_i/∂r_ij,b."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, weight, inv_r_cut, l_max, n_max = basis
    partners, contraction = channels
    n_k, n_q, n_f, size = expansion.c.shape[1], expansion.c.shape[2], expansion.X.shape[1], table.shape[2]
    n_a = _n_plain(contraction, n_q)
    u, q, Y, dY = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS, factors = np.zeros(size + WIDTH), np.zeros(size + WIDTH), off_diagonal()
    dc, sums, mixed = np.empty((3, n_k, n_max)), np.empty((6, n_k, n_a)), np.empty((3, n_k, n_q))
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    for i in range(start, stop):
        sums[:, :, :] = 0.0
        last = offsets[i + 1]
        for first in range(offsets[i], last, WIDTH):
            lanes(first, last, vectors, inv_r_cut, u)
            harmonics(u, l_max, norm, q, Y)
            harmonics_gradient(u, l_max, norm, q, dY)
            for p in range(first, min(first + WIDTH, last)):
                _pair_derivative(u, p - first, basis, Y, dY, S, dS, 0, dc)
                for v in range(6):
                    lever = vectors[p, va[v]]
                    _accumulate(dc, vb[v], 0, lever, lever, l_max, n_max, sums, v, kinds[neighbours[p]] * n_max)
        for v in (0, 3):
            at = ((i - start) * 6 + v) * n_f
            _rows(i, expansion, sums, v, 0, n_a, contraction, mixed, partners, weight, factors, at, out)
