"""Radial bases of the density expansion, and the table from which every basis is evaluated.

A neighbour at distance r contributes w(r) R_nl(r) Y_lm(r̂). We tabulate S_nl(r) = w(r) R_nl(r)/r^l, smooth at r = 0, so
that the angular part is the solid harmonic r^l Y_lm, a polynomial. Distances are in units of r_cut inside the table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import brentq
from scipy.special import gamma, spherical_jn

from soapkrr.errors import InputError

#: Numbers in a line of the cache.
LINE = 8

#: Largest table of a descriptor, bytes: usual ones take some megabytes.
MAX_TABLE = 2**28


def _dressed(x, w):
    """Product rule up to second order for two triples (f, f′, f″)."""
    return x[0] * w[0], x[1] * w[0] + x[0] * w[1], x[2] * w[0] + 2 * x[1] * w[1] + x[0] * w[2]


def gto_primitives(r_cut: float, n_max: int, l_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Exponents α (l_max+1, n_max) and Löwdin coefficients β (l_max+1, n_max, n_max) of the GTO basis.

    g_nl(r) = Σ_k β_nkl r^l exp(−α_kl r²), each primitive decaying to 1e-3 at distances spaced evenly from 1 Å to r_cut,
    orthonormal under ∫ r² dr (Himanen et al. 2020, doi 10.1016/j.cpc.2019.106949).
    """
    if not r_cut > 1:
        raise InputError(f"`r_cut` must be larger than 1 Å for the GTO basis, received {r_cut!r}; try rbf='bessel'.")
    reach = np.linspace(1.0, r_cut, n_max)
    alphas, betas = np.empty((l_max + 1, n_max)), np.empty((l_max + 1, n_max, n_max))
    for l in range(l_max + 1):
        alphas[l] = -np.log(1e-3 / reach**l) / reach**2
        overlap = 0.5 * gamma(l + 1.5) * (alphas[l][:, None] + alphas[l][None, :]) ** (-l - 1.5)
        values, vectors = eigh(overlap)
        if values[0] < 1e-15 * values[-1]:
            raise InputError(f"`n_max`={n_max} is too large for the GTO basis with `r_cut`={r_cut}; reduce it or use rbf='bessel'.")
        betas[l] = (vectors / np.sqrt(values)) @ vectors.T
    return alphas, betas


def gto(r: np.ndarray, r_cut: float, n_max: int, l_max: int, sigma: float):
    """R_nl/r^l and two derivatives for Gaussians of width σ expanded in GTOs; each (n_r, l_max+1, n_max).

    R_nl(r) = Σ_k β_nkl (π/(α+η))^{3/2} (η/(α+η))^l r^l exp(−αη r²/(α+η)), η = 1/(2σ²).
    """
    alphas, betas = gto_primitives(r_cut, n_max, l_max)
    eta = 0.5 / sigma**2
    l = np.arange(l_max + 1)[:, None]
    factor = (np.pi / (alphas + eta)) ** 1.5 * (eta / (alphas + eta)) ** l
    c = alphas * eta / (alphas + eta)
    x = r[:, None, None]
    value = factor * np.exp(-c * x**2)
    return tuple(np.einsum("lnk,rlk->rln", betas, f) for f in (value, -2 * c * x * value, (4 * c**2 * x**2 - 2 * c) * value))


@lru_cache(maxsize=32)
def bessel_zeros(n_max: int, l_max: int) -> np.ndarray:
    """(l_max+1, n_max) positive zeros of the spherical Bessel functions j_l, bracketed by those of j_{l−1}."""
    zeros = np.arange(1, n_max + l_max + 1) * np.pi
    table = [zeros[:n_max]]
    for l in range(1, l_max + 1):
        zeros = np.array([brentq(lambda x, l=l: spherical_jn(l, x), a, b, xtol=1e-14) for a, b in zip(zeros, zeros[1:], strict=False)])
        table.append(zeros[:n_max])
    return np.array(table)


def _reduced_bessel(l: int, x: np.ndarray) -> np.ndarray:
    """j_l(x)/x^l, by its series below x = 1."""
    small = x < 1.0
    y = np.where(small, x, 0.0) ** 2 / 2
    term = total = np.full_like(x, 1.0 / np.prod(np.arange(1, 2 * l + 2, 2)))
    for k in range(1, 14):
        term = -term * y / (k * (2 * l + 2 * k + 1))
        total = total + term
    safe = np.where(small, 1.0, x)
    return np.where(small, total, spherical_jn(l, safe) / safe**l)


def bessel(r: np.ndarray, r_cut: float, n_max: int, l_max: int, sigma: float):
    """R_nl/r^l and two derivatives for the Laplacian eigenstates of the sphere; each (n_r, l_max+1, n_max).

    g_nl(r) = N_nl j_l(k_nl r) with j_l(k_nl r_cut) = 0, orthonormal on the sphere. Smearing by a Gaussian of width σ multiplies
    an eigenstate of the Laplacian by its transform: R_nl(r) = (2πσ²)^{3/2} exp(−σ²k²/2) g_nl(r)
    (Bigi et al. 2022, doi 10.1063/5.0124363).
    """
    z = bessel_zeros(n_max, l_max)
    k = z / r_cut
    out = np.empty((3, len(r), l_max + 1, n_max))
    for l in range(l_max + 1):
        norm = np.sqrt(2 / r_cut**3) / np.abs(spherical_jn(l + 1, z[l]))
        factor = norm * k[l] ** l * (2 * np.pi * sigma**2) ** 1.5 * np.exp(-0.5 * (sigma * k[l]) ** 2)
        x = r[:, None] * k[l]
        h0, h1, h2 = (_reduced_bessel(l + s, x) for s in range(3))
        out[:, :, l] = factor * h0, -factor * k[l] * x * h1, factor * k[l] ** 2 * (x**2 * h2 - h1)
    return tuple(out)


RADIAL_BASES: dict[str, Callable] = {"gto": gto, "bessel": bessel}


def checked_knots(wanted: float, n_functions: int, why: str) -> int:
    """Number of knots of a table of functions, which must fit in `MAX_TABLE`; ``why`` names the parameters that ask for so many."""
    if not wanted * n_functions * 6 * 8 <= MAX_TABLE:
        raise InputError(f"{why}: a table of {wanted:.2g} knots of {n_functions} functions is larger than {MAX_TABLE >> 20} MiB.")
    return int(np.ceil(wanted))


def quintic_hermite(f: np.ndarray, d: np.ndarray, d2: np.ndarray, h: float) -> np.ndarray:
    """Coefficients in t ∈ [0, 1] of the quintic through value, slope and curvature at both ends; (n−1, 6, ...)."""
    f0, f1, d0, d1, c0, c1 = f[:-1], f[1:], h * d[:-1], h * d[1:], h**2 * d2[:-1] / 2, h**2 * d2[1:] / 2
    a, b, c = f1 - f0 - d0 - c0, d1 - d0 - 2 * c0, c1 - c0
    return np.stack([f0, d0, c0, 10 * a - 4 * b + c, -15 * a + 7 * b - 2 * c, 6 * a - 3 * b + c], axis=1)


def radial_table(weighted: Callable[[np.ndarray], tuple], r_cut: float, l_max: int, n_knots: int) -> np.ndarray:
    """Spline table of S_nl in units of r_cut: (n_knots, 6, (l_max+1)·n_max), C² in the distance; see `padded`.

    ``weighted(r)`` gives value and two derivatives of w(r) R_nl(r)/r^l, each (n_r, l_max+1, n_max).
    """
    r = np.linspace(0.0, r_cut, n_knots + 1)
    scale = (r_cut ** np.arange(l_max + 1))[None, :, None]
    table = quintic_hermite(*(scale * part for part in weighted(r)), r_cut / n_knots)
    return np.ascontiguousarray(table.reshape(n_knots, 6, -1))


def padded(tables: list[np.ndarray]) -> np.ndarray:
    """Tables (n_knots, 6, n) in one array (n_tables, n_knots, 6, n or more) whose rows begin with lines of the cache; zeros beyond n."""
    size = -(-tables[0].shape[2] // LINE) * LINE
    shape = len(tables), *tables[0].shape[:2], size
    memory = np.zeros(int(np.prod(shape)) + LINE)
    first = -(memory.ctypes.data // 8) % LINE
    out = memory[first : first + int(np.prod(shape))].reshape(shape)
    for place, table in zip(out, tables, strict=True):
        place[:, :, : table.shape[2]] = table
    return out


def dressed_basis(rbf: str, weights: list[Callable], r_cut: float, n_max: int, l_max: int, sigma: float) -> Callable:
    """The basis ``rbf`` times each of the ``weights``, as a function of r giving value and two derivatives."""

    def weighted(r):
        result = RADIAL_BASES[rbf](r, r_cut, n_max, l_max, sigma)
        for weight in weights:
            result = _dressed(result, tuple(part[:, None, None] for part in weight(r)))
        return result

    return weighted
