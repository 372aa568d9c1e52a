"""Jacobians of power spectra, of plain channels and of contracted ones c′[lm, q] = Σ_a c[lm, a] C[l, a, q]; layouts as in `soap`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import aligned, harmonics, harmonics_gradient, lanes, length, radial_and_slope
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
def _pair_derivative(u, v, kind, basis, Y, dY, S, dS, dc):
    """dc[b, lm, a] = ∂/∂r_b of what the neighbour in lane v, of species ``kind``, adds to the expansion (per Å), in its window."""
    table, _, _, inv_r_cut, l_max, n_max, windows = basis
    n_k, n_a = dc.shape[1], dc.shape[2]
    r, which = length(u, v), min(kind, table.shape[0] - 1)
    radial_and_slope(r, table, which, 0, S, dS)
    for l in range(l_max + 1):
        a0, count = windows[kind, l, 0], windows[kind, l, 1] - windows[kind, l, 0]
        for n in range(0, count, WIDTH):
            value, slope = load(S, l * n_max + n) * inv_r_cut, load(dS, l * n_max + n) * (inv_r_cut / r)
            for k in range(l * l, (l + 1) * (l + 1)):
                for b in range(3):
                    d = value * dY[b, k, v] + slope * (u[b, v] * Y[k, v])
                    store_part(dc, (b * n_k + k) * n_a + a0 + n, d, count - n)


@jit
def _accumulate(dc, b, window, even, odd, sums, t, other):
    """Channels ``other`` of sums[t] += channels ``window`` of dc[b] times ``even`` or ``odd``, by the parity of l."""
    for l in range(window.shape[0]):
        factor, count = odd if l % 2 else even, window[l, 1] - window[l, 0]
        for k in range(l * l, (l + 1) * (l + 1)):
            source, target = (b * dc.shape[1] + k) * dc.shape[2] + window[l, 0], (t * sums.shape[1] + k) * sums.shape[2] + other[l, 0]
            for n in range(0, count, WIDTH):
                d = load_part(sums, target + n, count - n) + load_part(dc, source + n, count - n) * factor
                store_part(sums, target + n, d, count - n)


@jit
def _contract(dc, t, window, contraction, mixed):
    """mixed[b, lm, q] = Σ_a dc[t + b, lm, a] C[l, a, q] over channels ``window[l]``, for three b."""
    n_k, n_a, n_q = dc.shape[1], contraction.shape[1], contraction.shape[2]
    for l in range(contraction.shape[0]):
        for k in range(l * l, (l + 1) * (l + 1)):
            for b in range(3):
                for q in range(0, n_q, WIDTH):
                    sums = broadcast(0.0)
                    for a in range(window[l, 0], window[l, 1]):
                        sums = sums + load_part(contraction, (l * n_a + a) * n_q + q, n_q - q) * dc[t + b, k, a]
                    store_part(mixed, (b * n_k + k) * n_q + q, sums, n_q - q)


@jit
def _three_rows(i, expansion, dc, t, window, partners, weight, factors, at, out):
    """Derivatives of X_i, the normalisation included, when c_i moves along dc[t], dc[t + 1] and dc[t + 2]; from flat index ``at`` of out.

    ``dc`` vanishes outside the channels ``window[l]``. Where the spectrum is zero, so are they.
    """
    c, X, norms = expansion
    n_k, n_a, n_f = c.shape[1], c.shape[2], X.shape[1]
    f, ci, d0 = 0, i * n_k * n_a, t * n_k * n_a
    d1, d2 = d0 + n_k * n_a, d0 + 2 * n_k * n_a
    p0, p1, p2 = broadcast(0.0), broadcast(0.0), broadcast(0.0)
    for l in range(weight.shape[0]):
        low, high = window[l, 0], window[l, 1]
        for a in range(n_a):
            b0, b1 = partners[l, a, 0], partners[l, a, 1]
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
def _whole(n_l, n_channels):
    """(n_l, 2) window of all channels."""
    window = np.zeros((n_l, 2), dtype=np.int64)
    window[:, 1] = n_channels
    return window


@jit
def _rows(i, expansion, dc, t, window, partners, contraction, mixed, weight, factors, at, out):
    """`_three_rows` for changes dc of the plain channels, contracted into ``mixed`` where there is a contraction."""
    if contraction is None:
        _three_rows(i, expansion, dc, t, window, partners, weight, factors, at, out)
    else:
        _contract(dc, t, window, contraction, mixed)
        _three_rows(i, expansion, mixed, 0, _whole(weight.shape[0], mixed.shape[2]), partners, weight, factors, at, out)


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
    table, norm, weight, inv_r_cut, l_max, _, windows = basis
    n_k, n_q, n_f, size = expansion.c.shape[1], expansion.c.shape[2], expansion.X.shape[1], table.shape[3]
    partners, contraction = channels
    n_a = _n_plain(contraction, n_q)
    u, q, Y, dY = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS, factors = aligned(size + WIDTH), aligned(size + WIDTH), off_diagonal()
    dc, own, mixed = np.empty((3, n_k, n_a)), np.empty((3, n_k, n_a)), np.empty((3, n_k, n_q))
    of_other, whole = np.empty((3, n_k, n_a)), _whole(l_max + 1, n_a)
    first_pair = offsets[start]
    n_pairs = offsets[stop] - first_pair
    for a in range(start, stop):
        dc[:, :, :] = 0.0
        own[:, :, :] = 0.0
        window, last = windows[kinds[a]], offsets[a + 1]
        for first in range(offsets[a], last, WIDTH):
            lanes(first, last, vectors, -inv_r_cut, u)
            harmonics(u, l_max, norm, q, Y)
            harmonics_gradient(u, l_max, norm, q, dY)
            for p in range(first, min(first + WIDTH, last)):
                i = neighbours[p]
                _pair_derivative(u, p - first, kinds[a], basis, Y, dY, S, dS, dc)
                # Seen from a, the pair has the opposite vector: Y_lm(−r) = (−1)^l Y_lm(r), and its derivative by r_a the other sign twice.
                other = windows[kinds[i]]
                if table.shape[0] == 1 or kinds[i] == kinds[a]:
                    for b in range(3):
                        _accumulate(dc, b, window, 1.0, -1.0, own, b, other)
                else:
                    _pair_derivative(u, p - first, kinds[i], basis, Y, dY, S, dS, of_other)
                    for b in range(3):
                        _accumulate(of_other, b, other, 1.0, -1.0, own, b, other)
                at = rows[p - first_pair] * 3 * n_f
                _rows(i, expansion, dc, 0, window, partners, contraction, mixed, weight, factors, at, out)
        at = rows[n_pairs + a - start] * 3 * n_f
        _rows(a, expansion, own, 0, whole, partners, contraction, mixed, weight, factors, at, out)


@jit
def strain_jacobian(start, stop, pairs, basis, channels, expansion, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``: Σ_j r_ij,a ∂X_i/∂r_ij,b."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, weight, inv_r_cut, l_max, _, windows = basis
    n_k, n_q, n_f, size = expansion.c.shape[1], expansion.c.shape[2], expansion.X.shape[1], table.shape[3]
    partners, contraction = channels
    n_a = _n_plain(contraction, n_q)
    u, q, Y, dY = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
    S, dS, factors = aligned(size + WIDTH), aligned(size + WIDTH), off_diagonal()
    dc, sums, mixed, whole = np.empty((3, n_k, n_a)), np.empty((6, n_k, n_a)), np.empty((3, n_k, n_q)), _whole(l_max + 1, n_a)
    va, vb = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)
    for i in range(start, stop):
        sums[:, :, :] = 0.0
        last = offsets[i + 1]
        for first in range(offsets[i], last, WIDTH):
            lanes(first, last, vectors, inv_r_cut, u)
            harmonics(u, l_max, norm, q, Y)
            harmonics_gradient(u, l_max, norm, q, dY)
            for p in range(first, min(first + WIDTH, last)):
                kind = kinds[neighbours[p]]
                _pair_derivative(u, p - first, kind, basis, Y, dY, S, dS, dc)
                for v in range(6):
                    lever = vectors[p, va[v]]
                    _accumulate(dc, vb[v], windows[kind], lever, lever, sums, v, windows[kind])
        for v in (0, 3):
            at = ((i - start) * 6 + v) * n_f
            _rows(i, expansion, sums, v, whole, partners, contraction, mixed, weight, factors, at, out)
