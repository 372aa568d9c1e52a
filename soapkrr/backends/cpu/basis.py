"""Radial functions of one distance and solid harmonics of `WIDTH` vectors at once, with their derivatives.

Lengths are in units of r_cut; radial tables come from `descriptors.radial`, their rows are padded to whole vectors, and so are rows of
what is made from them here. Harmonics are ordered k = lm = l² + l + m.
"""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, store


@jit
def aligned(n):
    """n zeros that begin with a line of the cache: vectors that lie across two cost twice."""
    longer = np.zeros(n + WIDTH)
    first = -(longer.ctypes.data // 8) % WIDTH
    return longer[first : first + n]


@jit
def radial(r, table, which, at, S):
    """S_nl at distance r of table ``which``, all (l, n) at once, into ``S`` from flat index ``at``."""
    n, size = table.shape[1], table.shape[3]
    k = min(int(r * n), n - 1)
    t = r * n - k
    for e in range(0, size, WIDTH):
        row = 6 * (which * n + k) * size + e
        value = load(table, row + 5 * size)
        for power in (4, 3, 2, 1, 0):
            value = value * t + load(table, row + power * size)
        store(S, at + e, value)


@jit
def radial_and_slope(r, table, which, at, S, dS):
    """The same, and dS_nl/dr into ``dS`` from flat index ``at``, in one pass over the table."""
    n, size = table.shape[1], table.shape[3]
    k = min(int(r * n), n - 1)
    t, per_knot = r * n - k, 1.0 * n
    for e in range(0, size, WIDTH):
        row = 6 * (which * n + k) * size + e
        value, slope = load(table, row + 5 * size), broadcast(0.0)
        for power in (4, 3, 2, 1, 0):
            slope = slope * t + value
            value = value * t + load(table, row + power * size)
        store(S, at + e, value)
        store(dS, at + e, slope * per_knot)


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
def harmonics(u, l_max, norm, q, Y):
    """Real solid harmonics r^l Y_lm of vectors ``u`` (3, WIDTH) into ``Y`` (n_lm, WIDTH).

    ``q`` (n_lm packed by l(l+1)/2 + m, WIDTH) receives the Legendre-like polynomials Q_l^m(z, r²).
    """
    x, y, z = load(u, 0), load(u, WIDTH), load(u, 2 * WIDTH)
    r2 = x * x + y * y + z * z
    c, s = broadcast(1.0), broadcast(0.0)
    first = 1.0
    for m in range(l_max + 1):
        here, below = broadcast(first), broadcast(0.0)
        for l in range(m, l_max + 1):
            t, k = l * (l + 1) // 2 + m, l * l + l
            store(q, t * WIDTH, here)
            value = here * norm[t]
            store(Y, (k + m) * WIDTH, value * c)
            if m > 0:
                store(Y, (k - m) * WIDTH, value * s)
            inverse = 1.0 / (l + 1 - m)
            here, below = z * here * ((2 * l + 1) * inverse) - r2 * below * ((l + m) * inverse), here
        first *= 2 * m + 1
        c, s = x * c - y * s, x * s + y * c


@jit
def harmonics_gradient(u, l_max, norm, q, dY):
    """Cartesian gradients of the solid harmonics into ``dY`` (3, n_lm, WIDTH); ``q`` as left by `harmonics`."""
    x, y = load(u, 0), load(u, WIDTH)
    along_y = (l_max + 1) ** 2 * WIDTH
    along_z = 2 * along_y
    c0, s0, c1, s1 = broadcast(0.0), broadcast(0.0), broadcast(1.0), broadcast(0.0)
    for m in range(l_max + 1):
        mc, ms, xc, yc, xs, ys = c0 * float(m), s0 * float(m), x * c1, y * c1, x * s1, y * s1
        for l in range(m, l_max + 1):
            t, below = l * (l + 1) // 2 + m, (l - 1) * l // 2 + m
            here, turned, raised = load(q, t * WIDTH) * norm[t], broadcast(0.0), broadcast(0.0)
            if l >= m + 2:
                turned = load(q, (below + 1) * WIDTH) * norm[t]
            if l >= m + 1:
                raised = load(q, below * WIDTH) * ((l + m) * norm[t])
            k = (l * l + l + m) * WIDTH
            store(dY, k, here * mc - turned * xc)
            store(dY, along_y + k, broadcast(0.0) - here * ms - turned * yc)
            store(dY, along_z + k, raised * c1)
            if m > 0:
                k = (l * l + l - m) * WIDTH
                store(dY, k, here * ms - turned * xs)
                store(dY, along_y + k, here * mc - turned * ys)
                store(dY, along_z + k, raised * s1)
        c0, s0 = c1, s1
        c1, s1 = x * c0 - y * s0, x * s0 + y * c0
