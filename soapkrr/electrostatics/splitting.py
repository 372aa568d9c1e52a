"""Where an Ewald sum is split into real and reciprocal space, and how far each is summed.

1/r = erfc(αr)/r + erf(αr)/r; with s = √(−ln accuracy), α = s/r_cut and k_cut = 2αs both sums stop where their terms have fallen to
exp(−s²). The cutoff balances the costs, N ρ r_cut³ pairs and N V k_cut³ phases, so that the whole grows as N^1.5
(Perram, Petersen and De Leeuw 1988, doi 10.1080/00268978800101751).
"""

from __future__ import annotations

from math import log, pi, sqrt
from typing import NamedTuple

import numpy as np

#: r_cut = BALANCE s (V²/N)^⅙: a pair takes as long as some 70 phases do in matrix products.
BALANCE = 0.26
#: Beyond this many times √2 their width γ Gaussian charges are points: s of `Splitting` itself.
LEAST = 1e-14


class Splitting(NamedTuple):
    """α (1/Å), cutoffs of real (Å) and reciprocal (1/Å) space."""

    alpha: float
    r_cut: float
    k_cut: float

    @classmethod
    def of(cls, n_atoms: int, volume: float, widest: float, accuracy: float) -> Splitting:
        """For so many atoms in a cell of this volume (Å³); ``widest``: largest width of a Gaussian charge, Å."""
        s = sharpness(accuracy)
        r_cut = max(BALANCE * s * (volume**2 / n_atoms) ** (1 / 6), 2 * widest * s)
        alpha = s / r_cut
        return cls(alpha, r_cut, 2 * alpha * s)


def sharpness(accuracy: float) -> float:
    """s with exp(−s²) = accuracy."""
    return sqrt(-log(max(accuracy, LEAST)))


class Waves(NamedTuple):
    """Reciprocal lattice vectors k = 2π Σ_a h_a g_a, one of each pair ±k: a box of 0 ≤ h₁ ≤ n₁, |h₂| ≤ n₂, |h₃| ≤ n₃.

    Attributes
    ----------
    h : integers along each direction.  lattice : (3, 3) rows 2π g_a, 1/Å.
    green : (n₁ + 1, 2n₂ + 1, 2n₃ + 1) 4π exp(−k²/4α²)/(k² V), twice where −k is left out, zero outside of the sphere, 1/Å.
    stretch : same shape, 2 (1/k² + 1/4α²), Å²: ∂ln(green)/∂ε_ab = stretch k_a k_b − δ_ab.
    """

    h: tuple[np.ndarray, np.ndarray, np.ndarray]
    lattice: np.ndarray
    green: np.ndarray
    stretch: np.ndarray

    @classmethod
    def of(cls, cell: np.ndarray, splitting: Splitting) -> Waves:
        """Those of a three-dimensional cell (rows, Å) with |k| up to the cutoff."""
        lattice = 2 * pi * np.linalg.inv(cell).T
        n1, n2, n3 = np.floor(splitting.k_cut * np.linalg.norm(cell, axis=1) / (2 * pi)).astype(int)
        h = np.arange(0.0, n1 + 1), np.arange(-n2, n2 + 1.0), np.arange(-n3, n3 + 1.0)
        grid = np.meshgrid(*h, indexing="ij")
        k2 = sum(np.square(sum(part * g for part, g in zip(grid, column, strict=True))) for column in lattice.T)
        inside = (k2 <= splitting.k_cut**2) & (k2 > 0)
        k2 = np.where(inside, k2, 1.0)
        damped = np.where(grid[0] > 0, 2.0, 1.0) * np.exp(-k2 / (4 * splitting.alpha**2))
        green = np.where(inside, 4 * pi * damped / (k2 * abs(np.linalg.det(cell))), 0.0)
        return cls(h, lattice, green, 2 / k2 + 1 / (2 * splitting.alpha**2))
