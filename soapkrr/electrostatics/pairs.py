"""The part of Coulomb interactions that is summed over pairs: of point charges, of Gaussian ones, screened or not."""

from __future__ import annotations

from importlib import import_module
from math import pi, sqrt

import numpy as np

from soapkrr import backends


def erfc(x):
    """The complementary error function, of NumPy or CuPy arrays."""
    xp = backends.namespace(x)
    return import_module("scipy.special" if xp is np else "cupyx.scipy.special").erfc(x)


def screened(alpha, r) -> tuple[np.ndarray, np.ndarray]:
    """erfc(αr)/r (1/Å) and its slope (1/Å²)."""
    xp = backends.namespace(r)
    value = erfc(alpha * r) / r
    return value, -(value + 2 / sqrt(pi) * alpha * xp.exp(-((alpha * r) ** 2))) / r


def interaction(alpha: float, r, sigma_i=None, sigma_j=None) -> tuple[np.ndarray, np.ndarray]:
    """[erfc(αr) − erfc(r/√(2(σ_i² + σ_j²)))]/r and its slope: Gaussian charges of widths σ, points where these are None.

    With α = 0 that is the interaction of two charges alone, erf(r/√(2(σ_i² + σ_j²)))/r.
    """
    value, slope = screened(alpha, r)
    if sigma_i is None or sigma_j is None:
        return value, slope
    xp = backends.namespace(r)
    inner, inner_slope = screened(1 / xp.sqrt(2 * (sigma_i**2 + sigma_j**2)), r)
    return value - inner, slope - inner_slope


def self_interaction(alpha: float, n_atoms: int, sigma=None, xp=np):
    """(n_atoms,) what is left of `interaction` of a charge with itself, 1/(√π σ) − 2α/√π, without the first for points."""
    own = xp.full(n_atoms, -2 * alpha / sqrt(pi))
    return own if sigma is None else own + 1 / (sqrt(pi) * sigma)
