"""Kernels between descriptor vectors, written as functions of the products u = x·x′."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.backends import cpu
from soapkrr.errors import InputError


@dataclass(frozen=True)
class DotProduct:
    """κ(x, x′) = (x·x′)^ζ, the SOAP kernel (Bartók et al. 2013, doi 10.1103/PhysRevB.87.184115).

    Parameters
    ----------
    zeta : any real exponent ≥ 1.

    Raises
    ------
    InputError : ``zeta`` is below 1 or not finite.

    Examples
    --------
    >>> DotProduct(zeta=2).value(np.array([0.5]))
    array([0.25])
    """

    zeta: float = 4.0

    def __post_init__(self):
        if not (np.isfinite(self.zeta) and self.zeta >= 1):
            raise InputError(f"`zeta` must be a finite number ≥ 1, received {self.zeta!r}.")

    def value(self, u: np.ndarray) -> np.ndarray:
        """κ at products u (any shape)."""
        return _power(u, self.zeta)

    def slope(self, u: np.ndarray) -> np.ndarray:
        """dκ/du: ∂κ/∂x = slope(u) x′."""
        return self.zeta * _power(u, self.zeta - 1)

    def curvature(self, u: np.ndarray) -> np.ndarray:
        """d²κ/du²: ∂²κ/∂x∂x′ = slope(u) 1 + curvature(u) x′ xᵀ."""
        if self.zeta == 1:
            return np.zeros_like(u)
        # Below ζ = 2 the curvature diverges at u = 0, where it multiplies (x·∂x′)², which vanishes faster.
        u = u if self.zeta >= 2 else np.maximum(u, 1e-12)
        return self.zeta * (self.zeta - 1) * _power(u, self.zeta - 2)

    def energies(self, u: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Σ_q w_q κ(u_iq) for each row i; ``u`` (n, q) is overwritten with w_q dκ/du."""
        out = np.empty(len(u))
        cpu.dot_product_energy(u, weights, float(self.zeta), out)
        return out


def _power(u: np.ndarray, p: float) -> np.ndarray:
    """u^p by multiplication for whole p (np.power is ten times slower); products of power spectra are never negative."""
    if p == int(p) and p <= 16:
        result = np.ones_like(u) if p == 0 else u.copy()
        for _ in range(int(p) - 1):
            result *= u
        return result
    return np.maximum(u, 0.0) ** p
