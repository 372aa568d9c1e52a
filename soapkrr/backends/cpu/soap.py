"""Hot loops of the density expansion and the power spectrum, compiled by numba; serial, without the GIL.

Layouts: expansion c[i, lm, a] with lm = l² + l + m and channel a = species·n_max + n (or what `Basis.windows`
says); power spectrum p[i, f] with f running over l, then channel pairs a ≤ b. Radial tables come from `descriptors.radial`. Callers run
these on blocks of atoms, one block per thread.

Pairs are taken `WIDTH` at a time, whatever their centres: harmonics have pairs as lanes, radial functions and channels have n as lanes.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.basis import aligned, harmonics, harmonics_gradient, lanes, length, radial, radial_and_slope
from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, load_part, store, store_part, store_transposed, total
from soapkrr.backends.cpu.soap_jacobian import off_diagonal


@jit
def expand(start, stop, pairs, basis, out):
    """Density expansion of atoms ``start:stop`` into ``out[i - start, lm, a]`` (overwritten); the central atom is included."""
    offsets, neighbours, vectors, kinds = pairs
    table, norm, _, inv_r_cut, l_max, n_max, windows = basis
    n_k, size = out.shape[1], table.shape[3]
    u, q, Y = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), aligned(n_k * WIDTH).reshape(n_k, WIDTH)
    S, sums = aligned(WIDTH * size + WIDTH), aligned(n_k * wide(n_max))
    out[:, :, :] = 0.0
    for kind in range(windows.shape[0]):
        radial(0.0, table, min(kind, table.shape[0] - 1), 0, S)
        for i in range(start, stop):
            if kinds[i] == kind:
                for a in range(windows[kind, 0, 0], windows[kind, 0, 1]):
                    out[i - start, 0, a] = norm[0] * S[a - windows[kind, 0, 0]]
    i, last, common, summed = start, offsets[stop], share_windows(windows), False
    for first in range(offsets[start], last, WIDTH):
        lanes(first, last, vectors, inv_r_cut, u)
        harmonics(u, l_max, norm, q, Y)
        n_pairs = min(WIDTH, last - first)
        for v in range(n_pairs):
            which = min(kinds[neighbours[first + v]], table.shape[0] - 1)
            radial(length(u, v), table, which, v * size, S)
        v = 0
        while v < n_pairs:
            if summed and offsets[i + 1] <= first + v:
                put_sums(sums, windows[0], n_max, i - start, out)
                summed = False
            while offsets[i + 1] <= first + v:
                i += 1
            # A run of pairs with one centre that add to the same channels.
            kind, end = kinds[neighbours[first + v]], v + 1
            while end < n_pairs and first + end < offsets[i + 1] and (common or kinds[neighbours[first + end]] == kind):
                end += 1
            if common:
                _add_to_sums(v, end, Y, S, size, windows[0], n_max, not summed, sums)
                summed = True
            else:
                add_products((v, end), Y, S, size, windows[kind], n_max, i - start, out)
            v = end
    if summed:
        put_sums(sums, windows[0], n_max, i - start, out)


@jit
def share_windows(windows):
    """Whether neighbours of all species add to the same channels."""
    for s in range(1, windows.shape[0]):
        if (windows[s] != windows[0]).any():
            return False
    return True


@jit
def add_products(run, Y, S, size, window, n_max, i, c):
    """c[i, lm, a + n] += Σ_p Y[lm, p] S[p, l, n] over the lanes p of a ``run``, a being the first channel of ``window[l]``."""
    v, end = run
    n_a = c.shape[2]
    for l in range(window.shape[0]):
        count = window[l, 1] - window[l, 0]
        for n in range(0, count, WIDTH):
            for k in range(l * l, (l + 1) * (l + 1)):
                place = (i * c.shape[1] + k) * n_a + window[l, 0] + n
                here = load_part(c, place, count - n)
                for p in range(v, end):
                    here = here + load(S, p * size + l * n_max + n) * Y[k, p]
                store_part(c, place, here, count - n)


@jit
def wide(n):
    """n or the next multiple of `WIDTH`."""
    return (n + WIDTH - 1) // WIDTH * WIDTH


@jit
def _add_to_sums(v, end, Y, S, size, window, n_max, new, sums):
    """sums[lm, n] += Σ_p Y[lm, p] S[p, l, n] over lanes ``v:end``, or = where they are ``new``; rows of ``sums`` are `wide`."""
    row = wide(n_max)
    for l in range(window.shape[0]):
        for n in range(0, window[l, 1] - window[l, 0], WIDTH):
            for k in range(l * l, (l + 1) * (l + 1), 2):
                # Two at a time, so that radial functions are loaded once for both; the last one of each l is made twice.
                other = min(k + 1, l * l + 2 * l)
                here, there = broadcast(0.0), broadcast(0.0)
                if not new:
                    here, there = load(sums, k * row + n), load(sums, other * row + n)
                for p in range(v, end):
                    s = load(S, p * size + l * n_max + n)
                    here, there = here + s * Y[k, p], there + s * Y[other, p]
                store(sums, k * row + n, here)
                store(sums, other * row + n, there)


@jit
def put_sums(sums, window, n_max, i, c):
    """c[i, lm, a + n] += sums[lm, n], a being the first channel of ``window[l]``."""
    row, n_a = wide(n_max), c.shape[2]
    for l in range(window.shape[0]):
        count = window[l, 1] - window[l, 0]
        for n in range(0, count, WIDTH):
            for k in range(l * l, (l + 1) * (l + 1)):
                place = (i * c.shape[1] + k) * n_a + window[l, 0] + n
                store_part(c, place, load_part(c, place, count - n) + load(sums, k * row + n), count - n)


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
    n_k, size, common = H.shape[1], table.shape[3], share_windows(windows)
    u, q, g, sums = np.empty((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((4, WIDTH)), aligned(2 * n_k * WIDTH)
    D, R = aligned(4 * n_k * WIDTH).reshape(4, n_k, WIDTH), aligned(2 * (WIDTH * size + WIDTH)).reshape(2, -1)
    across = aligned(2 * size * WIDTH)
    i, first, last = start, offsets[start], offsets[stop]
    while first < last:
        while offsets[i + 1] <= first:
            i += 1
        # Lanes of several centres, where pairs are taken one by one, waste none.
        n_pairs = min(WIDTH, (offsets[i + 1] if common else last) - first)
        lanes(first, first + n_pairs, vectors, inv_r_cut, u)
        harmonics(u, l_max, norm, q, D[0])
        harmonics_gradient(u, l_max, norm, q, D[1:])
        for p in range(n_pairs):
            which = min(kinds[neighbours[first + p]], table.shape[0] - 1)
            radial_and_slope(length(u, p), table, which, p * size, R[0], R[1])
        # From so many on it is quicker to make them all at once.
        if common and 6 * n_pairs >= 2 * n_max + 12:
            for e in range(0, size, WIDTH):
                store_transposed(R[0], e, size, across, e * WIDTH)
                store_transposed(R[1], e, size, across, (size + e) * WIDTH)
            _gradient_of_all(H, i - start, n_max, windows[0], across, D, sums, g)
        else:
            centre = i
            for p in range(n_pairs):
                while offsets[centre + 1] <= first + p:
                    centre += 1
                _gradient_of_one(p, H, centre - start, n_max, windows[kinds[neighbours[first + p]]], R, size, D, g)
        for p in range(n_pairs):
            outwards = g[0, p] / length(u, p)
            for b in range(3):
                out[first + p, b] = (g[b + 1, p] + outwards * u[b, p]) * inv_r_cut
        first += n_pairs


@jit
def _gradient_of_one(v, H, i, n_max, window, R, size, D, g):
    """∂E/∂r and the part of ∂E/∂(x, y, z) at fixed r, of the pair in lane v, into ``g[:, v]``; functions are lanes.

    R holds rows of radial functions and of their slopes, D harmonics and their gradients.
    """
    n_l, n_a, slopes = window.shape[0], H.shape[2], R.shape[1]
    gr, gx, gy, gz = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
    for l in range(n_l):
        a0, count = i * H.shape[1] * n_a + window[l, 0], window[l, 1] - window[l, 0]
        for n in range(0, count, WIDTH):
            y, yx, yy, yz = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
            for k in range(l * l, (l + 1) * (l + 1)):
                h = load_part(H, a0 + k * n_a + n, count - n)
                y = y + h * D[0, k, v]
                yx = yx + h * D[1, k, v]
                yy = yy + h * D[2, k, v]
                yz = yz + h * D[3, k, v]
            e = v * size + l * n_max + n
            s, slope = load(R, e), load(R, slopes + e)
            gr, gx, gy, gz = gr + slope * y, gx + s * yx, gy + s * yy, gz + s * yz
    g[0, v], g[1, v], g[2, v], g[3, v] = total(gr), total(gx), total(gy), total(gz)


@jit
def _gradient_of_all(H, i, n_max, window, across, D, sums, g):
    """The same of all lanes at once, which have one centre and add to the same channels; pairs are lanes.

    ``across`` holds values and slopes of the radial functions, those of a function side by side; ``sums`` is overwritten.
    """
    n_l, n_a, n_k, slopes = window.shape[0], H.shape[2], D.shape[1], across.shape[0] // 2
    h = H.ravel()
    gr, gx, gy, gz = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
    for l in range(n_l):
        a0, count = i * H.shape[1] * n_a + window[l, 0], window[l, 1] - window[l, 0]
        for k in range(l * l, (l + 1) * (l + 1), 2):
            # Two at a time, so that radial functions are loaded once for both; the last one of each l is made twice.
            other = min(k + 1, l * l + 2 * l)
            v0, s0, v1, s1 = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
            for n in range(count):
                e, h0, h1 = (l * n_max + n) * WIDTH, h[a0 + k * n_a + n], h[a0 + other * n_a + n]
                value, slope = load(across, e), load(across, slopes + e)
                v0, s0 = v0 + value * h0, s0 + slope * h0
                v1, s1 = v1 + value * h1, s1 + slope * h1
            store(sums, k * WIDTH, v0)
            store(sums, (n_k + k) * WIDTH, s0)
            store(sums, other * WIDTH, v1)
            store(sums, (n_k + other) * WIDTH, s1)
    for k in range(n_k):
        value = load(sums, k * WIDTH)
        gr = gr + load(sums, (n_k + k) * WIDTH) * load(D, k * WIDTH)
        gx = gx + value * load(D, (n_k + k) * WIDTH)
        gy = gy + value * load(D, (2 * n_k + k) * WIDTH)
        gz = gz + value * load(D, (3 * n_k + k) * WIDTH)
    store(g, 0, gr)
    store(g, WIDTH, gx)
    store(g, 2 * WIDTH, gy)
    store(g, 3 * WIDTH, gz)
