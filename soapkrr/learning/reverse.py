"""Derivatives of L(K) by descriptors, their Jacobians and the exponent, K being the covariance of all observations with κ = (x·x′)^ζ.

K is bilinear in what is observed of two structures, K_kl = Σ_ij [f′(u) v_ik·w_jl + f″(u) (v_ik·x_j)(x_i·w_jl)] with u = x_i·x_j: with
G = ∂L/∂K and Z_il = Σ_k G_kl v_ik everything is a product with Z, at twice the cost of K itself. Vectors have unit length, v_ik·x_i = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from soapkrr.regression.exact.compositions import Composition, layout_of, tiles
from soapkrr.threads import thread_map

#: Structures of the other side at once: their Z stay in the cache.
TILE = 4


class Slopes(NamedTuple):
    """∂L/∂X (n, m, d) and ∂L/∂V (n, m, d, k) per composition and species, and ∂L/∂ζ."""

    X: list[list[np.ndarray]]
    V: list[list[np.ndarray]]
    zeta: float


def powers(u: np.ndarray, zeta: float) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """f = u^ζ with three derivatives by u, and the derivatives of f, f′, f″ by ζ."""
    # Products of power spectra are positive; rounding may leave a zero.
    u = np.maximum(u, 1e-12)
    log, f2 = np.log(u), u ** (zeta - 2)
    f1, falling = u * f2, zeta * (zeta - 1)
    f = u * f1
    return (
        (f, zeta * f1, falling * f2, falling * (zeta - 2) * f2 / u),
        (f * log, f1 * (1 + zeta * log), f2 * (2 * zeta - 1 + falling * log)),
    )


def slopes(zeta: float, seen: Sequence[Composition], G: np.ndarray, threads: int | None, dtype: type = np.float64) -> Slopes:
    """From G = ∂L/∂K (n, n), symmetric, in `Layout` order; computed in numbers of ``dtype``."""
    layout, G = layout_of(list(seen)), G.astype(dtype)
    sides = [_Side.of(same, s, layout.places(same.index), dtype) for same in seen for s in range(len(same.X))]
    n_species = len(seen[0].X)

    def own(task):
        side, place = task
        others = [o for k, o in enumerate(sides) if k % n_species == side % n_species and o.X.shape[1]]
        return _of_structure(zeta, sides[side], place, others, G)

    tasks = [(side, place) for side, it in enumerate(sides) if it.X.shape[1] for place in range(len(it.X))]
    of_zeta = 0.0
    out = [(np.zeros(it.X.shape), np.zeros(it.V.shape).transpose(0, 1, 3, 2)) for it in sides]
    for (side, place), (x, v, z) in zip(tasks, thread_map(own, tasks, threads), strict=True):
        # Every pair is met from both sides.
        out[side][0][place], out[side][1][place] = 2 * x, 2 * v.transpose(0, 2, 1)
        of_zeta += z
    by_composition = [out[a : a + n_species] for a in range(0, len(out), n_species)]
    return Slopes([[x for x, _ in part] for part in by_composition], [[v for _, v in part] for part in by_composition], of_zeta)


class _Side(NamedTuple):
    """One species of one composition: X (n, m, d), V (n, m, k, d), and the places (n, 1 + k) of the observations."""

    X: np.ndarray
    V: np.ndarray
    places: np.ndarray
    tiles: list[slice]

    @classmethod
    def of(cls, same: Composition, s: int, places: np.ndarray, dtype: type) -> _Side:
        V = np.ascontiguousarray(same.V[s].transpose(0, 1, 3, 2), dtype=dtype)
        return cls(same.X[s].astype(dtype), V, places, list(tiles(same, TILE)))


def _of_structure(zeta: float, own: _Side, place: int, others: list[_Side], G: np.ndarray):
    """∂L/∂x (p, d), ∂L/∂w (p, l, d) of one structure on one side of the pairs, and its part of ∂L/∂ζ."""
    x, w = own.X[place], own.V[place]
    of_x, of_w, of_zeta = np.zeros_like(x), np.zeros_like(w), 0.0
    for other in others:
        for tile in other.tiles:
            g = G[other.places[tile]][:, :, own.places[place]]
            parts = _of_tile(zeta, x, w, other.X[tile], other.V[tile], g)
            of_x += parts[0]
            of_w += parts[1]
            of_zeta += parts[2]
    return of_x, of_w, of_zeta


def _of_tile(zeta: float, x, w, y, v, g):
    """The same from atoms y (n, m, d), v (n, m, k, d) of other structures, with g (n, 1 + k, 1 + l)."""
    (p, n_own, d), (n, m) = w.shape, v.shape[:2]
    N, y = n * m, y.reshape(n * m, d)
    u = y @ x.T
    (f, f1, f2, f3), of_zeta = powers(u, zeta)
    Z = np.matmul(g[:, 1:, 1:].swapaxes(1, 2)[:, None], v).reshape(N, n_own, d)
    ZE = np.matmul(g[:, None, None, 1:, 0], v).reshape(N, d)
    yw = (y @ w.reshape(p * n_own, d).T).reshape(N, p, n_own)
    zx = (Z.reshape(N * n_own, d) @ x.T).reshape(N, n_own, p).swapaxes(1, 2)
    gE = np.repeat(g[:, 0, 1:], m, axis=0)
    # L = Σ_ij [A f + B f′ + R f″].
    A = np.repeat(g[:, 0, 0], m)[:, None]
    B = Z.reshape(N, n_own * d) @ w.reshape(p, n_own * d).T + ZE @ x.T + np.matmul(yw, gE[:, :, None])[:, :, 0]
    R = (zx * yw).sum(axis=2)
    of_u = A * f1 + B * f2 + R * f3
    of_yw, of_zx = f1[:, :, None] * gE[:, None] + f2[:, :, None] * zx, f2[:, :, None] * yw
    of_w = (f1.T @ Z.reshape(N, n_own * d)).reshape(p, n_own, d) + (of_yw.reshape(N, p * n_own).T @ y).reshape(p, n_own, d)
    of_x = of_u.T @ y + f1.T @ ZE + of_zx.swapaxes(0, 1).reshape(p, N * n_own) @ Z.reshape(N * n_own, d)
    by_zeta = sum(float((part * slope).sum(dtype=np.float64)) for part, slope in zip((A, B, R), of_zeta, strict=True))
    return of_x, of_w, by_zeta
