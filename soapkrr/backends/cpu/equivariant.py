"""Hot loop of λ-SOAP, compiled by numba; serial, without the GIL. Layouts as in `soap`."""

from __future__ import annotations

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load_part, store_part


@jit
def couple(c, scale, degrees, C, skip, first, P):
    """Tensors p^μ_ab = scale Σ_{m m′} C[μ, m, m′] c[lm, a] c[l′m′, b] of expansions ``c[i, lm, a]`` into ``P[i, μ, f]`` from f = ``first``.

    ``degrees`` are l and l′. Channels b start at 0 where ``skip`` is 0, at a where it is 1 (its entry b = a is divided by √2), at a + 1
    where it is 2.
    """
    l, k = degrees
    n_k, n_a, n_mu, n_m = c.shape[1], c.shape[2], C.shape[0], 2 * l + 1
    T = np.empty((n_mu * n_m, n_a))
    for i in range(c.shape[0]):
        T[:, :] = 0.0
        for u in range(n_mu):
            for m in range(n_m):
                row = (u * n_m + m) * n_a
                for m2 in range(2 * k + 1):
                    x = C[u, m, m2] * scale[i]
                    if x != 0.0:
                        for b in range(0, n_a, WIDTH):
                            part = load_part(c, (i * n_k + k * k + m2) * n_a + b, n_a - b)
                            store_part(T, row + b, load_part(T, row + b, n_a - b) + part * x, n_a - b)
        if skip == 0:
            _all_pairs(i, c, l, T, first, P)
        else:
            _later_pairs(i, c, l, T, skip, first, P)


@jit
def _all_pairs(i, c, l, T, first, P):
    """Products of all channels a with all b, two a at once: each part of T is loaded half as often."""
    n_a, n_mu, n_f, n_m = c.shape[2], P.shape[1], P.shape[2], 2 * l + 1
    for a in range(0, n_a, 2):
        second = min(a + 1, n_a - 1)
        for u in range(n_mu):
            place = (i * n_mu + u) * n_f + first
            for b in range(0, n_a, WIDTH):
                even, odd = broadcast(0.0), broadcast(0.0)
                for m in range(n_m):
                    part = load_part(T, (u * n_m + m) * n_a + b, n_a - b)
                    even = even + part * c[i, l * l + m, a]
                    odd = odd + part * c[i, l * l + m, second]
                store_part(P, place + a * n_a + b, even, n_a - b)
                store_part(P, place + second * n_a + b, odd, n_a - b)


@jit
def _later_pairs(i, c, l, T, skip, first, P):
    """Products of channels a with b ≥ a, or b > a."""
    n_a, n_mu, n_f, n_m, f = c.shape[2], P.shape[1], P.shape[2], 2 * l + 1, first
    for a in range(n_a):
        b0 = a + skip - 1
        for u in range(n_mu):
            place = (i * n_mu + u) * n_f + f
            for b in range(b0, n_a, WIDTH):
                sums = broadcast(0.0)
                for m in range(n_m):
                    sums = sums + load_part(T, (u * n_m + m) * n_a + b, n_a - b) * c[i, l * l + m, a]
                store_part(P, place + b - b0, sums, n_a - b)
            if skip == 1:
                P[i, u, f] *= np.sqrt(0.5)
        f += n_a - b0
