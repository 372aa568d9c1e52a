"""SOAP and pair functions as QUIP defines them, in which published Gaussian approximation potentials are written.

Source: Bartók, Kondor and Csányi 2013, doi 10.1103/PhysRevB.87.184115, and Bartók and Csányi 2015, doi 10.1002/qua.24927. What differs from
`SOAP` is the radial basis, the weight of the central atom, and that kinks of the cosine cutoff stand on knots of the tables, so that
values are those of the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.special import erf, ive

from soapkrr.backends.arrays import Basis
from soapkrr.descriptors.cutoff import Cosine, as_cutoff
from soapkrr.descriptors.pair import Pair
from soapkrr.descriptors.radial import checked_knots, padded, quintic_hermite
from soapkrr.descriptors.soap import KNOTS_PER_WIDTH, SOAP, harmonic_norms
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property

#: QUIP's basis reaches so far beyond the cutoff that a Gaussian has fallen to 10^(−this).
BASIS_ERROR_EXPONENT = 10.0

#: How many times the knots wanted may be taken, so that kinks stand on some of them.
MOST_KNOTS = 20


def equispaced_gaussians(r_cut: float, n_max: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres r_a (n_max,) and transform (n_max, n_max) of the orthonormal radial functions of QUIP.

    Gaussians exp(−α(r − r_a)²), α = 1/(2σ²), stand r_a = (a − 1)(r_cut + σ√(20 ln 10))/n_max apart. With their overlaps under ∫ r² dr,
    S = LLᵀ, and their values at the centres, K, the coefficients of a function known there are f K⁻¹ L.
    """
    alpha = 0.5 / sigma**2
    r = np.arange(n_max) * (r_cut + sigma * np.sqrt(2 * BASIS_ERROR_EXPONENT * np.log(10))) / n_max
    total, apart, squares = r[:, None] + r, r[:, None] - r, r[:, None] ** 2 + r**2
    ends = np.exp(-alpha * squares) * np.sqrt(2) * alpha**1.5 * total
    inside = np.sqrt(np.pi) * alpha * np.exp(-0.5 * alpha * apart**2) * (1 + alpha * total**2) * (1 + erf(np.sqrt(alpha / 2) * total))
    try:
        lower = cholesky((ends + inside) / np.sqrt(128 * alpha**5), lower=True)
        return r, cho_solve((cholesky(np.exp(-alpha * apart**2), lower=True), True), lower)
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"`n_max`={n_max} is too large for `r_cut`={r_cut} and `sigma`={sigma}: Gaussians so dense are dependent."
        ) from error


def gaussian_bessel(r: np.ndarray, centres: np.ndarray, alpha: float, l_max: int) -> np.ndarray:
    """(l_max + 1, n_r, n_centres) of exp(−α(r² + r_a²)) i_l(x)/x^l, x = 2αr r_a, with modified spherical Bessel functions i_l."""
    x = 2 * alpha * r[:, None] * centres
    envelope = np.exp(-alpha * (r[:, None] - centres) ** 2)
    small, out = x < 1.0, np.empty((l_max + 1, *x.shape))
    y, safe = np.where(small, x, 0.0) ** 2 / 2, np.where(small, 1.0, x)
    for l in range(l_max + 1):
        term = total = np.full_like(x, 1.0 / np.prod(np.arange(1.0, 2 * l + 2, 2)))
        for k in range(1, 14):
            term = term * y / (k * (2 * l + 2 * k + 1))
            total = total + term
        out[l] = envelope * np.where(small, total * np.exp(-x), np.sqrt(np.pi / (2 * safe)) * ive(l + 0.5, safe) / safe**l)
    return out


def equispaced(r: np.ndarray, r_cut: float, n_max: int, l_max: int, sigma: float):
    """R_nl/r^l and two derivatives of QUIP's basis; each (n_r, l_max+1, n_max).

    R_nl(r) = Σ_a exp(−α(r² + r_a²)) i_l(2αr r_a) T_an, the projection of a Gaussian at distance r on the functions at the centres.
    """
    alpha = 0.5 / sigma**2
    centres, transform = equispaced_gaussians(r_cut, n_max, sigma)
    E, b, x = gaussian_bessel(r, centres, alpha, l_max + 2), 2 * alpha * centres, r[:, None]
    out = np.empty((3, len(r), l_max + 1, n_max))
    for l in range(l_max + 1):
        up = -2 * alpha * x * E[l + 1] + b**2 * x * E[l + 2]
        first = -2 * alpha * x * E[l] + b**2 * x * E[l + 1]
        second = -2 * alpha * (E[l] + x * first) + b**2 * (E[l + 1] + x * up)
        for k, part in enumerate((E[l], first, second)):
            out[k, :, l] = (part * b**l) @ transform
    return tuple(out)


def knots_at(wanted: float, places: Sequence[float]) -> int:
    """The smallest number of equal intervals of [0, 1], at least ``wanted``, with knots at all places; at most `MOST_KNOTS` times that."""
    first = int(np.ceil(wanted))
    n = np.arange(first, MOST_KNOTS * first)
    off = np.abs(np.outer(n, places) - np.round(np.outer(n, places))).max(axis=1, initial=0.0)
    return int(n[np.argmax(off < 1e-7)]) if (off < 1e-7).any() else MOST_KNOTS * first


def one_sided_table(functions, r_cut: float, n_knots: int) -> np.ndarray:
    """Quintics (n_knots, 6, ...) of ``functions(r)``, value and two derivatives, which may have kinks of the second at knots."""
    h = r_cut / n_knots
    ends = (np.arange(n_knots) + np.array([[1e-9], [1 - 1e-9]])) * h
    parts = (part.reshape(2, n_knots, *part.shape[1:]) for part in functions(ends.ravel()))
    return np.ascontiguousarray(np.moveaxis(quintic_hermite(*parts, h)[0], 0, 1))


def cosine(cutoff) -> Cosine:
    """The cutoff that QUIP has, from its name or itself."""
    made = as_cutoff(cutoff)
    if not isinstance(made, Cosine):
        raise InputError(f"`cutoff` must be 'cosine' or `Cosine`, the one that QUIP has; received {cutoff!r}.")
    return made


@dataclass(frozen=True)
class QuipSOAP(SOAP):
    """The power spectrum of QUIP's ``soap``: as `SOAP`, with its radial basis and weight of the central atom.

    R_nl(r) = Σ_a exp(−α(r² + r_a²)) i_l(2αr r_a) [K⁻¹L]_an, see `equispaced_gaussians`; the vector is normalised.

    Parameters
    ----------
    species, r_cut, n_max, l_max, sigma : as of `SOAP`; QUIP's ``cutoff`` and ``atom_sigma``.
    cutoff : `Cosine` of QUIP's ``cutoff_transition_width``.
    central_weight : weight of the central atom.
    central_everywhere : whether the central atom has density in the channels of all species, not in those of its own alone.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> QuipSOAP(species=["Si"], r_cut=5.0, n_max=8, l_max=6, sigma=0.5).create(bulk("Si")).shape
    (2, 252)
    """

    cutoff: Cosine = field(default_factory=lambda: Cosine(0.5))
    central_weight: float = 1.0
    central_everywhere: bool = False

    def __post_init__(self):
        object.__setattr__(self, "cutoff", cosine(self.cutoff))
        super().__post_init__()
        if not (np.isfinite(self.central_weight) and self.central_weight >= 0):
            raise InputError(f"`central_weight` must be a finite number ≥ 0, received {self.central_weight!r}.")
        if self.rbf != "gto" or self.scaling is not None:
            raise InputError("`rbf` and `scaling` are those of `SOAP`; QUIP's SOAP has a basis of its own and no scaling.")

    @cached_property
    def _plain_basis(self) -> Basis:
        width = min(self.cutoff.width or self.r_cut, self.r_cut)
        wanted = knots_at(KNOTS_PER_WIDTH * self.r_cut / min(self.sigma, width), [1 - width / self.r_cut])
        n_knots = checked_knots(wanted, self.n_max * (self.l_max + 1), "`r_cut` over `sigma` or the cutoff's width, `n_max` and `l_max`")
        l = np.arange(self.l_max + 1)
        table = one_sided_table(self._radial, self.r_cut, n_knots)
        own = np.repeat(np.arange(len(self.species))[:, None], self.l_max + 1, axis=1) * self.n_max
        return Basis(
            table=padded([(table * (self.r_cut**l)[:, None]).reshape(n_knots, 6, -1)]),
            norm=harmonic_norms(self.l_max),
            weight=np.sqrt(8 * np.pi**2 / (2 * l + 1)),
            inv_r_cut=1.0 / self.r_cut,
            l_max=int(self.l_max),
            n_max=int(self.n_max),
            windows=np.stack([own, own + self.n_max], axis=-1),
        )

    def _radial(self, r: np.ndarray):
        """f_c R_nl/r^l and two derivatives, each (n_r, l_max + 1, n_max)."""
        f, f1, f2 = (part[:, None, None] for part in self.cutoff(r, self.r_cut))
        R, R1, R2 = equispaced(r, self.r_cut, self.n_max, self.l_max, self.sigma)
        return f * R, f1 * R + f * R1, f2 * R + 2 * f1 * R1 + f * R2

    @cached_property
    def _central(self) -> np.ndarray:
        """(n_species, n_channels) density of a central atom of each species beyond that of a neighbour at distance zero."""
        n, own = self.n_max, np.eye(len(self.species))
        wanted = self.central_weight * (np.ones_like(own) if self.central_everywhere else own)
        return np.kron(wanted - own, self._basis.norm[0] * self._basis.table[0, 0, 0, :n])

    def _expansion(self, start, stop, arrays):
        """See `SOAP`."""
        c = super()._expansion(start, stop, arrays)
        if self.central_weight != 1 or self.central_everywhere:
            c[:, 0] += self._on(c, "_central")[arrays.kinds[start:stop]]
        return c


@dataclass(frozen=True)
class QuipPair(Pair):
    """Functions of the distance as QUIP's ``distance_2b`` adds them: X_{sc}(i) = Σ_{j: z_j=s} f_c(r_ij) Σ_q w_cq exp(−(r_ij − x_q)²/2θ²).

    Parameters
    ----------
    species, r_cut : as of `Pair`.
    cutoff : `Cosine` of QUIP's ``cutoff_transition_width``.
    curves : (θ, points, weights) of each function, Å, Å and the unit of the features.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.
    """

    cutoff: Cosine = field(default_factory=lambda: Cosine(0.5))
    curves: Sequence[tuple[float, Sequence[float], Sequence[float]]] = ((1.0, (2.0,), (1.0,)),)

    def __post_init__(self):
        curves = tuple((float(t), tuple(map(float, x)), tuple(map(float, w))) for t, x, w in self.curves)
        if not curves or not all(t > 0 and len(x) == len(w) > 0 and np.isfinite([*x, *w]).all() for t, x, w in curves):
            raise InputError("`curves` must be (θ > 0, points, as many weights) of each function, finite numbers.")
        object.__setattr__(self, "curves", curves)
        object.__setattr__(self, "cutoff", cosine(self.cutoff))
        super().__post_init__()

    @property
    def n_features(self) -> int:
        """Functions times species."""
        return len(self.curves) * len(self.species)

    @property
    def _n_knots(self) -> int:
        width = min(self.cutoff.width or self.r_cut, self.r_cut)
        narrowest = min(width, *(t for t, _, _ in self.curves))
        wanted = knots_at(KNOTS_PER_WIDTH * self.r_cut / narrowest, [1 - width / self.r_cut])
        return checked_knots(wanted, len(self.curves), "`r_cut` over θ of `curves` or the cutoff's width")

    @cached_property
    def _table(self) -> np.ndarray:
        return one_sided_table(self.functions, self.r_cut, self._n_knots)

    def functions(self, r):
        """See `Pair.functions`."""
        g = np.zeros((3, len(r), len(self.curves)))
        for c, (theta, points, weights) in enumerate(self.curves):
            u = (np.asarray(r)[:, None] - np.array(points)) / theta
            k = np.exp(-0.5 * u**2)
            for n, part in enumerate((k, -u / theta * k, (u**2 - 1) / theta**2 * k)):
                g[n, :, c] = part @ np.array(weights)
        f, f1, f2 = (part[:, None] for part in self.cutoff(np.asarray(r), self.r_cut))
        return f * g[0], f1 * g[0] + f * g[1], f2 * g[0] + 2 * f1 * g[1] + f * g[2]
