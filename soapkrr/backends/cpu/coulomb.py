"""Sums over pairs of screened Coulomb interactions, compiled by numba; serial, without the GIL."""

from __future__ import annotations

from math import erfc, exp, pi, sqrt

import numpy as np

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.regression import pair_sums


def near_sums(pairs, charges, alpha, widths=None):
    """Potentials (n,), forces (n, 3) and strain derivative (6,) of q_i q_j [erfc(αr) − erfc(r/√(2(σ_i² + σ_j²)))]/r, of unit strength.

    ``pairs`` is (offsets, j, r_ij), a full list; points where the ``widths`` σ are None.
    """
    offsets, j, vectors = pairs
    n = len(charges)
    potentials, gradient = np.zeros(n), np.empty_like(vectors)
    _pairwise(offsets, j, vectors, charges, np.zeros(n) if widths is None else widths, alpha, potentials, gradient)
    forces, strain = np.empty((n, 3)), np.empty((1, 6))
    pair_sums(offsets, j, vectors, np.array([0, n]), gradient, forces, strain)
    return potentials, forces, strain[0]


@jit
def _pairwise(offsets, neighbours, vectors, charges, widths, alpha, potentials, gradient):
    """φ_i += q_j f(r) and ∂E/∂r_ij = q_i q_j f′(r) r̂; each pair once, so that the gradient of its other direction is zero."""
    rooted = 2.0 / sqrt(pi)
    for i in range(len(charges)):
        for p in range(offsets[i], offsets[i + 1]):
            j = neighbours[p]
            if j > i:
                gradient[p, 0] = gradient[p, 1] = gradient[p, 2] = 0.0
                continue
            x, y, z = vectors[p, 0], vectors[p, 1], vectors[p, 2]
            r2 = x * x + y * y + z * z
            r = sqrt(r2)
            value = erfc(alpha * r)
            slope = alpha * exp(-alpha * alpha * r2)
            spread = widths[i] * widths[i] + widths[j] * widths[j]
            if spread > 0.0:
                inner = 1.0 / sqrt(2.0 * spread)
                value -= erfc(inner * r)
                slope -= inner * exp(-inner * inner * r2)
            share = 1.0 if j < i else 0.5
            potentials[i] += charges[j] * value / r
            if j < i:
                potentials[j] += charges[i] * value / r
            along = -share * charges[i] * charges[j] * (value / r + rooted * slope) / r2
            gradient[p, 0], gradient[p, 1], gradient[p, 2] = along * x, along * y, along * z
