"""Kernels between descriptor vectors, with the derivatives that forces and their variances need.

A kernel is a function F(u, a, b) of the product u = x·x′ and the squared norms a = |x|², b = |x′|². It supplies F and its partial
derivatives; everything else follows once, here and in `regression`:

    ∂κ/∂x = F_u x′ + 2 F_a x
    ∂²κ/∂x∂x′ = F_u 1 + F_uu x′xᵀ + 2 F_ua x xᵀ + 2 F_ub x′x′ᵀ + 4 F_ab x x′ᵀ        (first index x, second x′)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np

from soapkrr import backends
from soapkrr.errors import require_positive
from soapkrr.specification import Specification
from soapkrr.threads import thread_map

#: Rows and columns whose kernel values are summed at once.
TILE = 384


class Jet(NamedTuple):
    """F and its partial derivatives by u, a, b on one grid of pairs; None stands for zero everywhere."""

    value: np.ndarray
    u: np.ndarray | None = None
    a: np.ndarray | None = None
    b: np.ndarray | None = None
    uu: np.ndarray | None = None
    ua: np.ndarray | None = None
    ub: np.ndarray | None = None
    ab: np.ndarray | None = None


def _plus(x, y):
    return y if x is None else x if y is None else x + y


def _times(x, y):
    return None if x is None or y is None else x * y


class Kernel(Specification, ABC):
    """A positive semi-definite function of two descriptor vectors; `+`, `*` with kernels and positive numbers."""

    @abstractmethod
    def jet(self, u: np.ndarray, a: np.ndarray, b: np.ndarray, order: int) -> Jet:
        """F and its derivatives up to ``order`` (0, 1 or 2; order 1 leaves out F_b); u (n, m), a (n, 1), b (1, m)."""

    def __call__(self, X: np.ndarray, Y: np.ndarray | None = None) -> np.ndarray:
        """Kernel matrix (n, m) of descriptor rows X (n, d) and Y (m, d); Y = X by default."""
        Y = X if Y is None else Y
        return self.jet(X @ Y.T, squares(X)[:, None], squares(Y)[None, :], 0).value

    def diagonal(self, X: np.ndarray) -> np.ndarray:
        """κ(x, x) of each row."""
        a = squares(X)
        return self.jet(a, a, a, 0).value

    def total(self, X: np.ndarray, threads: int | None = None) -> float:
        """Σ_ij κ(x_i, x_j) over all pairs of rows, by the upper triangle of tiles."""

        def part(ij):
            i, j = ij
            value = self(X[i : i + TILE], X[j : j + TILE]).sum()
            return value if i == j else 2 * value

        tiles = list(_tiles(len(X)))
        return float(sum(thread_map(part, tiles, threads if len(tiles) > 1 else 1)))

    def energies(self, u: np.ndarray, a: np.ndarray, b: np.ndarray, weights: np.ndarray):
        """Σ_q w_q κ(x_i, x_q) (n,), its coefficients w_q F_u (n, m) of x_q in ∂/∂x_i, and 2 Σ_q w_q F_a (n,) of x_i, or None.

        ``u`` may be overwritten.
        """
        jet = self.jet(u, a, b, 1)
        return jet.value @ weights, jet.u * weights, None if jet.a is None else 2 * (jet.a @ weights)

    def observed(self, u: np.ndarray, along: np.ndarray, a: np.ndarray, b: np.ndarray, weights: np.ndarray, own: np.ndarray):
        """Parts of e_i = Σ_q [w_q κ(x_i, x_q) + v_q·∂κ(x_i, x_q)/∂x_q] and its gradient by x_i.

        ``along`` (n, m) is x_i·v_q and ``own`` (m,) x_q·v_q; with ``u`` it may be overwritten. Returns e (n,), the coefficients (n, m) of
        x_q and (n, m) of v_q in ∂e_i/∂x_i, and those (n,) of x_i, or None.
        """
        jet, of_x = self.jet(u, a, b, 2), None
        energies = jet.value @ weights + (jet.u * along).sum(axis=1)
        of_points = jet.u * weights
        for part, factor in ((jet.uu, along), (jet.ub, 2 * own)):
            if part is not None:
                of_points += part * factor
        if jet.b is not None:
            energies += 2 * jet.b @ own
        if jet.a is not None:
            of_x = 2 * (jet.a @ weights)
        if jet.ua is not None:
            of_x += 2 * (jet.ua * along).sum(axis=1)
        if jet.ab is not None:
            of_x += 4 * (jet.ab @ own)
        return energies, of_points, jet.u, of_x

    def __add__(self, other: Kernel) -> Kernel:
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other):
        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, float(other)) if isinstance(other, Real) else NotImplemented

    __rmul__ = __mul__


def squares(X: np.ndarray) -> np.ndarray:
    """(n,) squared norms of rows."""
    return np.einsum("if,if->i", X, X)


@dataclass(frozen=True)
class Sum(Kernel):
    """κ = κ₁ + κ₂."""

    left: Kernel
    right: Kernel

    def jet(self, u, a, b, order):
        return Jet._make(map(_plus, self.left.jet(u, a, b, order), self.right.jet(u, a, b, order)))


@dataclass(frozen=True)
class Product(Kernel):
    """κ = κ₁ κ₂."""

    left: Kernel
    right: Kernel

    def jet(self, u, a, b, order):
        f, g = self.left.jet(u, a, b, order), self.right.jet(u, a, b, order)

        def mixed(name, p, q):
            own = _plus(_times(getattr(f, name), g.value), _times(f.value, getattr(g, name)))
            return _plus(own, _plus(_times(getattr(f, p), getattr(g, q)), _times(getattr(f, q), getattr(g, p))))

        parts = {p: _plus(_times(getattr(f, p), g.value), _times(f.value, getattr(g, p))) for p in ("u", "a", "b")}
        if order > 1:
            parts |= {f"{p}{q}": mixed(f"{p}{q}", p, q) for p, q in ("uu", "ua", "ub", "ab")}
        return Jet(f.value * g.value, **parts)


@dataclass(frozen=True)
class Scaled(Kernel):
    """κ = factor · κ₁, factor > 0."""

    kernel: Kernel
    factor: float

    def __post_init__(self):
        require_positive(factor=self.factor)

    def jet(self, u, a, b, order):
        return Jet._make(_times(self.factor, part) for part in self.kernel.jet(u, a, b, order))


def mixed_products(kernel: Kernel, V: np.ndarray, X: np.ndarray, W: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """vᵢᵀ (∂²κ/∂x∂x′)(xᵢ, yⱼ) wⱼ for directions V (..., n, d) at X (n, d) and W (..., m, d) at Y (m, d); result (..., n, m)."""
    jet, xp, same = kernel.jet(X @ Y.T, squares(X)[:, None], squares(Y)[None, :], 2), backends.namespace(X), V is W and X is Y
    out, vy = jet.u * xp.matmul(V, W.swapaxes(-1, -2)), xp.matmul(V, Y.T)
    xw = vy.swapaxes(-1, -2) if same else xp.matmul(X, W.swapaxes(-1, -2))
    if jet.uu is not None:
        out += jet.uu * vy * xw
    if jet.ua is None and jet.ub is None and jet.ab is None:
        return out
    vx, yw = xp.einsum("...if,if->...i", V, X)[..., :, None], xp.einsum("...if,if->...i", W, Y)[..., None, :]
    for part, left, right in ((jet.ua, 2 * vx, xw), (jet.ub, 2 * vy, yw), (jet.ab, 4 * vx, yw)):
        if part is not None:
            out += part * left * right
    return out


def mixed_total(kernel: Kernel, V: np.ndarray, X: np.ndarray) -> np.ndarray:
    """(k,) Σ_ij vᵢᵀ (∂²κ/∂x∂x′)(xᵢ, xⱼ) vⱼ for directions V (k, n, d) at X (n, d), by the upper triangle of tiles."""
    xp = backends.namespace(X)
    V, total = xp.ascontiguousarray(V), xp.zeros(len(V))
    for i, j in _tiles(len(X)):
        v, x = V[:, i : i + TILE], X[i : i + TILE]
        w, y = (v, x) if i == j else (V[:, j : j + TILE], X[j : j + TILE])
        total += (1 if i == j else 2) * mixed_products(kernel, v, x, w, y).sum(axis=(1, 2))
    return total


def _tiles(n: int) -> Iterator[tuple[int, int]]:
    """First rows and columns of the tiles of the upper triangle of n by n."""
    return ((i, j) for i in range(0, n, TILE) for j in range(i, n, TILE))
