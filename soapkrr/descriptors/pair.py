"""Two-body features: smooth functions of the distance, summed over neighbours; with the linear kernel, a pair potential."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import Smoothstep, as_cutoff
from soapkrr.descriptors.radial import checked_knots, quintic_hermite
from soapkrr.errors import InputError, require_positive
from soapkrr.lazy import cached_property

#: Knots of the table between two neighbouring basis functions: quintics follow Gaussians to 1e-10 of their height.
KNOTS = 32

BASES = ("gaussian", "bspline")


@dataclass(frozen=True)
class Pair(Descriptor):
    """Smooth functions of the distance summed over the neighbours of each species: X_{sb}(i) = Σ_{j: z_j=s} f_c(r_ij) B_b(t(r_ij)).

    With the `Linear` kernel each atom's energy is Σ_j f(r_ij), f one function per species of centre and neighbour, and the term takes the
    basis functions themselves in place of sparse points: independent weights make f a Gaussian process on distances with covariance
    δ² f_c(r) f_c(r′) Σ_b B_b(t) B_b(t′). For ``basis="gaussian"`` that is, away from the ends, a squared exponential of length
    √2·width·spacing in t. The functions cover all distances from zero, so the error bar at short range is that of the prior.

    Parameters
    ----------
    species : chemical symbols or atomic numbers that may occur.
    r_cut : cutoff radius, Å.
    n_basis : functions per neighbour species.
    basis : ``"gaussian"`` or ``"bspline"`` (cubic, of compact support).
    width : standard deviation of the Gaussians in units of their spacing.
    stretch : None: functions evenly spaced in r; a length (Å): in t = log(1 + r/stretch), so denser at short range, where it is steep.
    cutoff : ``"smoothstep"``, ``"cosine"``, ``"tanh3"``, ``"poly"`` or an object from `soapkrr.descriptors.cutoff`.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import molecule
    >>> Pair(species=["H", "O"], r_cut=4.0, n_basis=12).create(molecule("H2O")).shape
    (3, 24)
    """

    n_basis: int = 24
    basis: str = "gaussian"
    width: float = 1.0
    stretch: float | None = 1.0
    cutoff: object = field(default_factory=Smoothstep)

    needs_pairs = True
    linear_basis = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "cutoff", as_cutoff(self.cutoff))
        if not (isinstance(self.n_basis, (int, np.integer)) and 4 <= self.n_basis <= 512):
            raise InputError(f"`n_basis` must be an integer from 4 to 512, received {self.n_basis!r}.")
        if self.basis not in BASES:
            raise InputError(f"`basis` must be one of {BASES}, received {self.basis!r}.")
        require_positive(width=self.width)
        if self.stretch is not None:
            require_positive(stretch=self.stretch)
        self._n_knots  # noqa: B018  impossible parameters fail here

    @property
    def n_features(self) -> int:
        """Functions times species."""
        return self.n_basis * len(self.species)

    @property
    def _n_knots(self) -> int:
        """Knots of the table, fine enough for the narrowest function."""
        spacing = self.r_cut / (self.n_basis - 1) if self.stretch is None else self.stretch * (np.exp(self._step) - 1)
        narrowest = min(spacing * min(self.width, 1.0), getattr(self.cutoff, "width", None) or self.r_cut)
        wanted = KNOTS * self.r_cut / narrowest if narrowest > 0 else np.inf
        return checked_knots(wanted, self.n_basis, "`r_cut` over `width`, `stretch` or the cutoff's width, and `n_basis`")

    @cached_property
    def _table(self) -> np.ndarray:
        """(n_knots, 6, n_basis) quintics of f_c(r) B_b(t(r)) over [0, r_cut]."""
        n_knots = self._n_knots
        r = np.linspace(0.0, self.r_cut, n_knots + 1)
        r[-1] = np.nextafter(self.r_cut, 0.0)
        return np.ascontiguousarray(quintic_hermite(*self.functions(r), self.r_cut / n_knots))

    @property
    def _step(self) -> float:
        """Spacing of the functions in t."""
        return self._stretched(np.array(self.r_cut))[0].item() / (self.n_basis - 1)

    def _stretched(self, r):
        """t, dt/dr, d²t/dr²."""
        if self.stretch is None:
            return r, np.ones_like(r), np.zeros_like(r)
        inverse = 1 / (self.stretch + r)
        return np.log1p(r / self.stretch), inverse, -(inverse**2)

    def functions(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f_c(r) B_b(t(r)) and two derivatives by r, each (n_r, n_basis)."""
        t, dt, d2t = (part[:, None] for part in self._stretched(np.asarray(r, dtype=float)))
        x = t / self._step - np.arange(self.n_basis)
        g, g1, g2 = _gaussian(x / self.width, 1 / self.width) if self.basis == "gaussian" else _cubic_bspline(x)
        g1, g2 = g1 * dt / self._step, g2 * (dt / self._step) ** 2 + g1 * d2t / self._step
        f, f1, f2 = (part[:, None] for part in self.cutoff(np.asarray(r, dtype=float), self.r_cut))
        return f * g, f1 * g + f * g1, f2 * g + 2 * f1 * g1 + f * g2

    def compute(self, start, stop, arrays):
        """Features X; no state."""
        X = backends.namespace(arrays.vectors).empty((stop - start, self.n_features))
        backends.of(X).pair.values(start, stop, arrays, self._on(X, "_table"), self.r_cut, X)
        return X, ()

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        backends.of(out).pair.pullback(start, stop, arrays, self._on(out, "_table"), self.r_cut, gradient, out)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        backends.of(out).pair.jacobian(start, stop, env.pairs, self._on(out, "_table"), self.r_cut, rows, out)

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        backends.of(out).pair.strain_jacobian(start, stop, env.pairs, self._on(out, "_table"), self.r_cut, out)


def _gaussian(x, inverse_width):
    """exp(−x²/2) and two derivatives by x/inverse_width."""
    g = np.exp(-0.5 * x**2)
    return g, -x * g * inverse_width, (x**2 - 1) * g * inverse_width**2


def _cubic_bspline(x):
    """The cardinal cubic B-spline centred at 0 with knots at the integers, and two derivatives."""
    a = np.abs(x)
    near, far = a < 1, (a >= 1) & (a < 2)
    rest, sign = np.where(far, 2 - a, 0.0), np.sign(x)
    value = np.where(near, 2 / 3 - a**2 + a**3 / 2, rest**3 / 6)
    slope = np.where(near, -2 * a + 1.5 * a**2, -(rest**2) / 2) * sign
    return value, slope, np.where(near, -2 + 3 * a, rest)
