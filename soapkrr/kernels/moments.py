"""Sums of powers of dot products over all pairs of many vectors, by moments: O(N) where the vectors lie close together.

With x = α m + y, m along the mean, Σ_ij (x_i·x_j)^ζ = Σ_k (ζ choose k) ‖Σ_i α_i^{ζ−k} y_i^{⊗k}‖². Of y the principal directions alone are
kept, of each moment as many as rounding needs: what is left out, e, enters as Σ_ij A_ij e_i·e_j ≤ (Σ_i √A_ii |e_i|)².
"""

from __future__ import annotations

from functools import reduce
from math import comb
from operator import add

import numpy as np

from soapkrr import backends
from soapkrr.threads import thread_map

#: Bound of what may be left out, a fraction of the sum; what is left out is a hundredth of it, rounding.
TOLERANCE = 1e-13

#: Vectors whose products are made at once.
ROWS = 1024

#: Largest exponent: tensors of half its order are kept.
LARGEST = 4


def sum_of_powers(X: np.ndarray, zeta: int, threads: int | None) -> float | None:
    """Σ_ij (x_i·x_j)^ζ of rows X (n, d), or None where going over all pairs is cheaper."""
    xp, (n, d) = backends.namespace(X), X.shape
    if zeta > LARGEST or n < 4 * d:
        return None
    mean = X.sum(axis=0)
    length = float(xp.sqrt(mean @ mean))
    if not length > 0:
        return None
    alpha = X @ (mean / length)
    Y = X - alpha[:, None] * (mean / length)
    _, vectors = xp.linalg.eigh(Y.T @ Y)
    Y = xp.ascontiguousarray(Y @ vectors[:, ::-1])
    kept = _kept(alpha, Y, zeta)
    work = sum(_size(r, k // 2) * _size(r, (k + 1) // 2) for k, r in enumerate(kept))
    if 2 * work > n * d:
        return None
    moments = (_moment(alpha ** (zeta - k), Y[:, :r], k, threads) for k, r in enumerate(kept))
    return sum(comb(zeta, k) * moment for k, moment in enumerate(moments))


def _kept(alpha: np.ndarray, Y: np.ndarray, zeta: int) -> list[int]:
    """Directions of each moment, k = 0 to ζ, without which nothing changes but rounding."""
    xp = backends.namespace(Y)
    squares = xp.cumsum((Y * Y)[:, ::-1], axis=1)[:, ::-1]
    lengths, weights = xp.sqrt(squares[:, 0]), xp.abs(alpha)
    total = float((weights**zeta).sum()) ** 2
    kept = [0]
    for k in range(1, zeta + 1):
        left = np.asarray(backends.host((weights ** (zeta - k) * lengths ** (k - 1)) @ xp.sqrt(squares))) ** 2
        enough = np.flatnonzero(comb(zeta, k) * (2**k - 1) * left <= TOLERANCE * total)
        kept.append(int(enough[0]) if len(enough) else Y.shape[1])
    return kept


def _size(r: int, order: int) -> int:
    """Distinct entries of a symmetric tensor in r dimensions."""
    return (1, r, r * (r + 1) // 2)[order]


def _powers(Y: np.ndarray, order: int) -> np.ndarray:
    """(n, size) distinct entries of y^{⊗order} of each row, order 0, 1 or 2, scaled so that products are those of the tensors."""
    xp = backends.namespace(Y)
    if order == 0:
        return xp.ones((len(Y), 1))
    if order == 1:
        return Y
    r = Y.shape[1]
    out = xp.empty((len(Y), r * (r + 1) // 2))
    at = 0
    for a in range(r):
        xp.multiply(np.sqrt(2.0) * Y[:, a, None], Y[:, a:], out=out[:, at : at + r - a])
        out[:, at] *= np.sqrt(0.5)
        at += r - a
    return out


def _moment(weights: np.ndarray, Y: np.ndarray, k: int, threads: int | None) -> float:
    """‖Σ_i w_i y_i^{⊗k}‖²."""
    if k and not Y.shape[1]:
        return 0.0

    def part(start):
        rows = slice(start, start + ROWS)
        left = _powers(Y[rows], k // 2)
        right = left if k % 2 == 0 else _powers(Y[rows], k // 2 + 1)
        return (weights[rows, None] * left).T @ right

    tensor = reduce(add, thread_map(part, range(0, len(Y), ROWS), backends.threads(backends.namespace(Y), threads)))
    return float((tensor * tensor).sum())
