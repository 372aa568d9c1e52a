"""Sums over pairs of screened Coulomb interactions, in whole arrays; see `cpu.coulomb`."""

from __future__ import annotations

from math import pi, sqrt

import cupy as cp
from cupyx.scipy.special import erfc

from soapkrr.backends.gpu.regression import pair_sums


def near_sums(pairs, charges, alpha, widths=None):
    """See `cpu.coulomb.near_sums`."""
    offsets, j, vectors = pairs
    n = len(charges)
    i = cp.searchsorted(offsets, cp.arange(len(j)), side="right") - 1
    r = cp.sqrt(cp.einsum("pa,pa->p", vectors, vectors))
    value, slope = erfc(alpha * r), alpha * cp.exp(-((alpha * r) ** 2))
    if widths is not None:
        inner = 1 / cp.sqrt(2 * (widths[i] ** 2 + widths[j] ** 2))
        value, slope = value - erfc(inner * r), slope - inner * cp.exp(-((inner * r) ** 2))
    along = -0.5 * charges[i] * charges[j] * (value / r + 2 / sqrt(pi) * slope) / r**2
    forces, strain = cp.empty((n, 3)), cp.empty((1, 6))
    pair_sums(offsets, j, vectors, cp.asarray([0, n]), along[:, None] * vectors, forces, strain)
    return cp.bincount(i, charges[j] * value / r, minlength=n), forces, strain[0]
