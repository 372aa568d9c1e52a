"""SOAP power spectrum: values, pull-back of a gradient to the pairs, and Jacobian blocks.

Source: Bartók, Kondor and Csányi 2013, doi 10.1103/PhysRevB.87.184115.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import factorial

import numpy as np

from soapkrr import backends
from soapkrr.backends.arrays import Basis, Channels, Expansion
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import RadialScaling, Smoothstep, as_cutoff
from soapkrr.descriptors.radial import RADIAL_BASES, checked_knots, dressed_basis, padded, radial_table
from soapkrr.errors import InputError, require_positive
from soapkrr.lazy import cached_property

#: Knots per Å of the radial table, times 1/σ: spline errors stay below 1e-10 of the largest value.
KNOTS_PER_WIDTH = 24

#: Narrower Gaussians (Å) could only make unsmooth potentials, and tables without bounds.
MIN_SIGMA = 0.05


@dataclass(frozen=True)
class SOAP(Descriptor):
    """Smooth overlap of atomic positions: the rotation-invariant power spectrum of the neighbour density.

    c_{s,nlm}(i) = Σ_{j∈N(i), z_j=s} f_c(r_ij) R_nl(r_ij) Y_lm(r̂_ij), central atom included, and
    p_{(sn)(s'n')l} = √(8π²/(2l+1)) Σ_m c_{snlm} c_{s'n'lm}; one triangle of channel pairs is kept, off-diagonal entries times √2,
    and the vector is normalised, so that x·x' is the overlap of the full tensors.

    Parameters
    ----------
    species : chemical symbols or atomic numbers that may occur.
    r_cut : cutoff radius, Å.
    n_max, l_max : number of radial functions, highest angular momentum.
    sigma : width of the Gaussians, Å.
    cutoff : ``"smoothstep"``, ``"cosine"``, ``"poly"`` or an object from `soapkrr.descriptors.cutoff`.
    rbf : radial basis, ``"gto"`` (as DScribe's) or ``"bessel"`` (Laplacian eigenstates).
    scaling : `RadialScaling` or None; weight of neighbours that falls with distance.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> SOAP(species=["Si"], r_cut=5.0, n_max=8, l_max=6, sigma=0.5).create(bulk("Si")).shape
    (2, 252)
    """

    n_max: int = 8
    l_max: int = 6
    sigma: float = 0.5
    cutoff: object = field(default_factory=Smoothstep)
    rbf: str = "gto"
    scaling: RadialScaling | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "cutoff", as_cutoff(self.cutoff))
        for name, low, high in (("n_max", 1, 32), ("l_max", 0, 20)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and low <= value <= high):
                raise InputError(f"`{name}` must be an integer from {low} to {high}, received {value!r}.")
        require_positive(sigma=self.sigma)
        if self.sigma < MIN_SIGMA:
            raise InputError(f"`sigma` must be at least {MIN_SIGMA} Å, the width of an atom's Gaussian; received {self.sigma!r}.")
        if self.rbf not in RADIAL_BASES:
            raise InputError(f"`rbf` must be one of {sorted(RADIAL_BASES)}, received {self.rbf!r}.")
        self._plain_basis  # noqa: B018  build the table now, so that impossible parameters fail here

    @property
    def n_channels(self) -> int:
        """Radial functions times species."""
        return self.n_max * len(self.species)

    @property
    def n_features(self) -> int:
        """Length of the power spectrum."""
        return self.n_channels * (self.n_channels + 1) // 2 * (self.l_max + 1)

    @property
    def _basis(self) -> Basis:
        """What densities are expanded in."""
        return self._plain_basis

    @cached_property
    def _plain_basis(self) -> Basis:
        weights = [partial(self.cutoff, r_cut=self.r_cut)] + ([self.scaling] if self.scaling else [])
        weighted = dressed_basis(self.rbf, weights, self.r_cut, self.n_max, self.l_max, self.sigma)
        wanted = KNOTS_PER_WIDTH * self.r_cut / min(self.sigma, getattr(self.cutoff, "width", None) or self.sigma)
        n_knots = checked_knots(wanted, self.n_max * (self.l_max + 1), "`r_cut` over `sigma` or the cutoff's width, `n_max` and `l_max`")
        l = np.arange(self.l_max + 1)
        own = np.repeat(np.arange(len(self.species))[:, None], self.l_max + 1, axis=1) * self.n_max
        return Basis(
            table=padded([radial_table(weighted, self.r_cut, self.l_max, n_knots)]),
            norm=harmonic_norms(self.l_max),
            weight=np.sqrt(8 * np.pi**2 / (2 * l + 1)),
            inv_r_cut=1.0 / self.r_cut,
            l_max=int(self.l_max),
            n_max=int(self.n_max),
            windows=np.stack([own, own + self.n_max], axis=-1),
        )

    def feature_names(self):
        """Species:n of both channels, and l."""
        channels = [f"{s}:{n}" for s in self.species for n in range(self.n_max)]
        pairs = [f"{a} {b}" for k, a in enumerate(channels) for b in channels[k:]]
        return [f"{pair} l={l}" for l in range(self.l_max + 1) for pair in pairs]

    @cached_property
    def _partners(self) -> np.ndarray:
        """(l_max + 1, n_channels, 2) channels that each channel is multiplied with, see `power_spectrum` of the backends."""
        return np.repeat(triangle(self.n_channels)[None], self.l_max + 1, axis=0)

    #: What mixes the channels of an expansion before they are multiplied, see `Channels`: nothing.
    _contraction = None

    def _expansion(self, start, stop, arrays):
        """c (stop − start, (l_max + 1)², n_channels) in the channels that are multiplied."""
        basis = self._on(arrays.vectors, "_basis")
        c = backends.namespace(arrays.vectors).empty((stop - start, (self.l_max + 1) ** 2, width(basis)))
        backends.of(c).soap.expand(start, stop, arrays, basis, c)
        return self._mixed(c)

    def _mixed(self, c):
        """Expansions in the channels that are multiplied, from those in the basis: the same."""
        return c

    def _unmixed(self, H):
        """Transpose of `_mixed`."""
        return H

    def compute(self, start, stop, arrays):
        """Normalised power spectra X, and the state (c, norms): expansions and |p| before normalisation."""
        c, n = self._expansion(start, stop, arrays), stop - start
        xp, basis = backends.namespace(c), self._on(c, "_basis")
        X, norms = xp.empty((n, self.n_features)), xp.empty(n)
        backends.of(c).soap.power_spectrum(c, self._on(c, "_partners"), basis.weight, basis.l_max, X, norms)
        return X, (c, norms)

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`; the normalisation is differentiated too."""
        c, norms = state
        basis, loops = self._on(c, "_basis"), backends.of(c).soap
        H = backends.namespace(c).empty_like(c)
        loops.power_spectrum_pullback(gradient, X, norms, c, self._on(c, "_partners"), basis.weight, basis.l_max, H)
        loops.expansion_pullback(start, stop, arrays, basis, self._unmixed(H), out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        c, norms = state
        dc = self._expansion_along(start, stop, arrays, direction)
        out, weight = backends.namespace(c).empty_like(X), self._on(c, "_basis").weight
        backends.of(c).jvp.power_spectrum(c, dc, X, norms, self._on(c, "_partners"), weight, int(self.l_max), out)
        return out

    def _expansion_along(self, start, stop, arrays, direction):
        """Derivative of the expansion along a direction of the pair vectors."""
        basis = self._on(direction, "_basis")
        dc = backends.namespace(direction).empty((stop - start, (self.l_max + 1) ** 2, width(basis)))
        backends.of(dc).jvp.expansion(start, stop, arrays, basis, direction, dc)
        return self._mixed(dc)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        backends.of(env.X).soap_jacobian.jacobian(start, stop, *self._tables(env), rows, out)

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        backends.of(env.X).soap_jacobian.strain_jacobian(start, stop, *self._tables(env), out)

    def _tables(self, env):
        """What the Jacobians are made from: neighbours, basis, channels, and the expansions of all atoms."""
        c, norms = env.state
        channels = Channels(self._on(c, "_partners"), self._on(c, "_contraction"))
        return env.pairs, self._on(c, "_basis"), channels, Expansion(c, env.X, norms)


def triangle(n_channels: int, present: int | None = None) -> np.ndarray:
    """(n_channels, 2) partners of each channel: itself and all that follow of those ``present`` (all), of others none."""
    present = n_channels if present is None else present
    return np.column_stack([np.minimum(np.arange(n_channels), present), np.full(n_channels, present)])


def width(basis: Basis) -> int:
    """Number of channels that neighbours of all species add to."""
    return int(basis.windows.max())


def harmonic_norms(l_max: int) -> np.ndarray:
    """Norms of the real spherical harmonics, packed by l(l+1)/2 + m; √2 included for m > 0."""
    norm = []
    for l in range(l_max + 1):
        for m in range(l + 1):
            norm.append(np.sqrt((2 if m else 1) * (2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m)))
    return np.array(norm)
