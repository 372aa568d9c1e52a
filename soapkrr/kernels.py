"""Kernels between descriptor vectors, with the derivatives that forces and their variances need.

A kernel is a function F(u, a, b) of the product u = x·x′ and the squared norms a = |x|², b = |x′|². It supplies F and its partial
derivatives; everything else follows once, here and in `regression`:

    ∂κ/∂x = F_u x′ + 2 F_a x
    ∂²κ/∂x∂x′ = F_u 1 + F_uu x′xᵀ + 2 F_ua x xᵀ + 2 F_ub x′x′ᵀ + 4 F_ab x x′ᵀ        (first index x, second x′)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np

from soapkrr import backends
from soapkrr.errors import InputError, require_positive
from soapkrr.specification import Specification


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
        return Scaled(self, float(other)) if np.isscalar(other) else NotImplemented

    __rmul__ = __mul__


def squares(X: np.ndarray) -> np.ndarray:
    """(n,) squared norms of rows."""
    return np.einsum("if,if->i", X, X)


@dataclass(frozen=True)
class DotProduct(Kernel):
    """κ(x, x′) = (x·x′)^ζ, the SOAP kernel (Bartók et al. 2013, doi 10.1103/PhysRevB.87.184115).

    For descriptors whose products are never negative, as power spectra.

    Parameters
    ----------
    zeta : any real exponent ≥ 1.

    Raises
    ------
    InputError : ``zeta`` is below 1 or not finite.

    Examples
    --------
    >>> DotProduct(zeta=2)(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    array([[0.25]])
    """

    zeta: float = 4.0

    def __post_init__(self):
        if not (isinstance(self.zeta, Real) and np.isfinite(self.zeta) and self.zeta >= 1):
            raise InputError(f"`zeta` must be a finite number ≥ 1, received {self.zeta!r}.")

    def jet(self, u, a, b, order):
        z = self.zeta
        slope = z * power(u, z - 1) if order > 0 else None
        curvature = None
        if order > 1 and z > 1:
            # Below ζ = 2 the curvature diverges at u = 0, where it multiplies (x·∂x′)², which vanishes faster.
            curvature = z * (z - 1) * power(u if z >= 2 else np.maximum(u, 1e-12), z - 2)
        return Jet(power(u, z), slope, uu=curvature)

    def energies(self, u, a, b, weights):
        out = backends.namespace(u).empty(len(u))
        backends.of(u).regression.dot_product_energy(u, weights, float(self.zeta), out)
        return out, u, None

    def observed(self, u, along, a, b, weights, own):
        out = backends.namespace(u).empty(len(u))
        backends.of(u).regression.dot_product_observed(u, along, weights, float(self.zeta), out)
        return out, u, along, None


@dataclass(frozen=True)
class Linear(Kernel):
    """κ(x, x′) = x·x′."""

    def jet(self, u, a, b, order):
        return Jet(u, np.ones_like(u) if order else None)


@dataclass(frozen=True)
class Stationary(Kernel):
    """A function g(s) of the squared distance s = |x − x′|²/ℓ² in units of the length scale.

    Parameters
    ----------
    length_scale : ℓ, in the units of the descriptor.
    """

    length_scale: float = 1.0

    def __post_init__(self):
        require_positive(length_scale=self.length_scale)

    @abstractmethod
    def profile(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """g(s), g′(s), g″(s)."""

    def jet(self, u, a, b, order):
        scale = self.length_scale**-2
        # Rounding may leave −1e-16 for equal vectors.
        g, g1, g2 = self.profile(np.maximum((a + b - 2 * u) * scale, 0.0))
        if order == 0:
            return Jet(g)
        g1 = g1 * scale
        if order == 1:
            return Jet(g, -2 * g1, g1)
        g2 = g2 * scale**2
        return Jet(g, -2 * g1, g1, g1, 4 * g2, -2 * g2, -2 * g2, g2)


@dataclass(frozen=True)
class SquaredExponential(Stationary):
    """κ = exp(−s/2), s = |x − x′|²/ℓ² (Rasmussen and Williams 2006, eq. 4.9)."""

    def profile(self, s):
        g = np.exp(-0.5 * s)
        return g, -0.5 * g, 0.25 * g


@dataclass(frozen=True)
class Matern32(Stationary):
    """κ = (1 + √(3s)) exp(−√(3s)), s = |x − x′|²/ℓ² (Rasmussen and Williams 2006, eq. 4.17).

    Once differentiable: forces have a variance, but its second derivative at equal points is a cusp.
    """

    def profile(self, s):
        r = np.sqrt(3 * s)
        e = np.exp(-r)
        # g″ = (9/4) e^{−r}/r diverges at r = 0, where it multiplies a squared distance: the limit of the product is zero.
        apart = r > 1e-6
        return (1 + r) * e, -1.5 * e, np.where(apart, 2.25 * e / np.where(apart, r, 1.0), 0.0)


@dataclass(frozen=True)
class Matern52(Stationary):
    """κ = (1 + √(5s) + 5s/3) exp(−√(5s)), s = |x − x′|²/ℓ² (Rasmussen and Williams 2006, eq. 4.17)."""

    def profile(self, s):
        r = np.sqrt(5 * s)
        e = np.exp(-r)
        return (1 + r + r**2 / 3) * e, -5 / 6 * (1 + r) * e, 25 / 12 * e


@dataclass(frozen=True)
class RationalQuadratic(Stationary):
    """κ = (1 + s/(2α))^{−α}, s = |x − x′|²/ℓ² (Rasmussen and Williams 2006, eq. 4.19).

    Parameters
    ----------
    alpha : mixture of length scales; large values approach the squared exponential.
    """

    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require_positive(alpha=self.alpha)

    def profile(self, s):
        base = 1 + s / (2 * self.alpha)
        g = base**-self.alpha
        return g, -0.5 * g / base, 0.25 * (1 + 1 / self.alpha) * g / base**2


@dataclass(frozen=True)
class Sum(Kernel):
    """κ = κ₁ + κ₂."""

    left: Kernel
    right: Kernel

    def jet(self, u, a, b, order):
        return Jet(*(_plus(x, y) for x, y in zip(self.left.jet(u, a, b, order), self.right.jet(u, a, b, order), strict=True)))


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

        first = [_plus(_times(getattr(f, p), g.value), _times(f.value, getattr(g, p))) for p in ("u", "a", "b")]
        if order < 2:
            return Jet(f.value * g.value, *first)
        return Jet(f.value * g.value, *first, mixed("uu", "u", "u"), mixed("ua", "u", "a"), mixed("ub", "u", "b"), mixed("ab", "a", "b"))


@dataclass(frozen=True)
class Scaled(Kernel):
    """κ = factor · κ₁, factor > 0."""

    kernel: Kernel
    factor: float

    def __post_init__(self):
        require_positive(factor=self.factor)

    def jet(self, u, a, b, order):
        return Jet(*(None if part is None else self.factor * part for part in self.kernel.jet(u, a, b, order)))


def power(u: np.ndarray, p: float) -> np.ndarray:
    """u^p by multiplication for whole p (np.power is ten times slower); negative u count as 0 for other p."""
    if p == int(p) and p <= 16:
        result = np.ones_like(u) if p == 0 else u.copy()
        for _ in range(int(p) - 1):
            result *= u
        return result
    return np.maximum(u, 0.0) ** p


def mixed_products(kernel: Kernel, V: np.ndarray, X: np.ndarray, W: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """vᵢᵀ (∂²κ/∂x∂x′)(xᵢ, yⱼ) wⱼ for matching directions: V, X (n, d) and W, Y (m, d); result (n, m)."""
    jet = kernel.jet(X @ Y.T, squares(X)[:, None], squares(Y)[None, :], 2)
    vy, xw = V @ Y.T, X @ W.T
    vx, yw = np.einsum("if,if->i", V, X)[:, None], np.einsum("if,if->i", W, Y)[None, :]
    out = jet.u * (V @ W.T)
    for part, left, right in ((jet.uu, vy, xw), (jet.ua, 2 * vx, xw), (jet.ub, 2 * vy, yw), (jet.ab, 4 * vx, yw)):
        if part is not None:
            out += part * left * right
    return out
