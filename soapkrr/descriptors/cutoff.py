"""Cutoff functions and distance weights: smooth functions of one distance with two analytic derivatives.

Each returns f, f′ and f″ on an array of distances r ≥ 0 (Å); beyond ``r_cut`` all three are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.errors import InputError, require_positive
from soapkrr.specification import Specification


@dataclass(frozen=True)
class Smoothstep(Specification):
    """One inside, falling to zero over the last ``width`` Å: 1 − 35x⁴ + 84x⁵ − 70x⁶ + 20x⁷, three times continuous.

    x = (r − r_cut + width)/width.
    """

    width: float = 1.5

    def __post_init__(self):
        require_positive(width=self.width)

    def __call__(self, r: np.ndarray, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = min(self.width, r_cut)
        x = np.clip((r - r_cut + width) / width, 0.0, 1.0)
        f = 1 - x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
        return f, -140 * (x * (1 - x)) ** 3 / width, -420 * (x * (1 - x)) ** 2 * (1 - 2 * x) / width**2


@dataclass(frozen=True)
class Cosine(Specification):
    """½(1 + cos πx) over the last ``width`` Å (``None``: over the whole range, Behler 2011, doi 10.1063/1.3553717)."""

    width: float | None = None

    def __post_init__(self):
        if self.width is not None:
            require_positive(width=self.width)

    def __call__(self, r: np.ndarray, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = r_cut if self.width is None else min(self.width, r_cut)
        x = np.clip((r - r_cut + width) / width, 0.0, 1.0)
        k = np.pi / width
        inside = (x > 0) & (x < 1) if width < r_cut else r < r_cut
        f = 0.5 * (1 + np.cos(np.pi * x))
        return f, -0.5 * k * np.sin(np.pi * x), np.where(inside, -0.5 * k**2 * np.cos(np.pi * x), 0.0)


@dataclass(frozen=True)
class Tanh3(Specification):
    """tanh³(1 − r/r_cut) (Behler 2011, doi 10.1063/1.3553717); value, slope and curvature vanish at r_cut."""

    def __call__(self, r: np.ndarray, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        t = np.tanh(np.clip(1 - r / r_cut, 0.0, None))
        s = 1 - t**2
        return t**3, -3 * t**2 * s / r_cut, 6 * t * s * (1 - 2 * t**2) / r_cut**2


@dataclass(frozen=True)
class Polynomial(Specification):
    """(1 + 2x³ − 3x²)^m with x = r/r_cut (Caro 2019, doi 10.1103/PhysRevB.100.024112; DScribe's ``"poly"``)."""

    m: float = 2.0

    def __post_init__(self):
        if not (np.isfinite(self.m) and self.m >= 1):
            raise InputError(f"`m` must be at least 1 for a continuous force, received {self.m!r}.")

    def __call__(self, r: np.ndarray, r_cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, m = np.clip(r / r_cut, 0.0, 1.0), self.m
        u, du, d2u = (1 + 2 * x) * (1 - x) ** 2, -6 * x * (1 - x), 12 * x - 6
        inside = u > 0
        safe = np.where(inside, u, 1.0)
        first = m * safe ** (m - 1) * du
        second = m * safe ** (m - 1) * d2u + m * (m - 1) * safe ** (m - 2) * du**2
        return np.where(inside, u**m, 0.0), np.where(inside, first, 0.0) / r_cut, np.where(inside, second, 0.0) / r_cut**2


@dataclass(frozen=True)
class RadialScaling(Specification):
    """Weight of a neighbour's density, c/(c + (r/r0)^m): near neighbours count more.

    Source: Willatt, Musil and Ceriotti 2018, doi 10.1039/C8CP05921G.

    Parameters
    ----------
    r0 : Å, where the weight starts to fall.  m : exponent, at least 2.  c : rate.
    """

    r0: float = 2.0
    m: float = 4.0
    c: float = 1.0

    def __post_init__(self):
        require_positive(r0=self.r0, c=self.c)
        if not (np.isfinite(self.m) and self.m >= 2):
            raise InputError(f"`m` must be at least 2 for a twice differentiable weight, received {self.m!r}.")

    def __call__(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m, x = self.m, r / self.r0
        d = self.c + x**m
        dd, d2d = m * x ** (m - 1) / self.r0, m * (m - 1) * x ** (m - 2) / self.r0**2
        f = self.c / d
        return f, -f * dd / d, f * (2 * dd**2 / d - d2d) / d


CUTOFFS = {"smoothstep": Smoothstep, "cosine": Cosine, "poly": Polynomial, "tanh3": Tanh3}


def as_cutoff(cutoff):
    """A cutoff function from its name or itself."""
    if isinstance(cutoff, str) and cutoff in CUTOFFS:
        return CUTOFFS[cutoff]()
    if isinstance(cutoff, tuple(CUTOFFS.values())):
        return cutoff
    raise InputError(f"`cutoff` must be one of {sorted(CUTOFFS)} or a cutoff object, received {cutoff!r}.")
