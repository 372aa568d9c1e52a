"""The kernels: dot products and functions of the distance between descriptor vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from numbers import Real

import numpy as np

from soapkrr import backends
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels.base import Jet, Kernel
from soapkrr.kernels.moments import sum_of_powers


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

    def total(self, X, threads=None):
        by_moments = sum_of_powers(X, int(self.zeta), threads) if self.zeta == int(self.zeta) else None
        return super().total(X, threads) if by_moments is None else by_moments

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


def power(u: np.ndarray, p: float) -> np.ndarray:
    """u^p by multiplication for whole p (np.power is ten times slower); negative u count as 0 for other p."""
    if p == int(p) and p <= 16:
        result = np.ones_like(u) if p == 0 else u.copy()
        for _ in range(int(p) - 1):
            result *= u
        return result
    return np.maximum(u, 0.0) ** p
