"""A descriptor and a kernel of one's own, written by following docs/architecture.md; the discovery suite runs on them."""

from __future__ import annotations

from dataclasses import dataclass

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.kernels import Jet, Kernel


@dataclass(frozen=True)
class Moments(Descriptor):
    """Moments of the distances to the neighbours of each species: X_{s,k}(i) = Σ_{j: z_j=s} (r_ij/r_cut)^{2k} (1 − (r_ij/r_cut)²)³.

    Parameters
    ----------
    species : chemical symbols or atomic numbers that may occur.
    r_cut : cutoff radius, Å.
    n_moments : number of moments, k = 0, 1, ...

    Raises
    ------
    InputError : ``n_moments`` is not a positive whole number.
    """

    n_moments: int = 3

    needs_pairs = True

    def __post_init__(self):
        super().__post_init__()
        if not (isinstance(self.n_moments, int) and self.n_moments > 0):
            raise InputError(f"`n_moments` must be a positive whole number, received {self.n_moments!r}.")

    @property
    def n_features(self) -> int:
        """Moments times species."""
        return self.n_moments * len(self.species)

    def _pairs(self, start, stop, arrays):
        """Centre, feature of k = 0, vector and t = (r/r_cut)² of every pair of atoms ``start:stop``."""
        xp, first, last = backends.namespace(arrays.vectors), int(arrays.offsets[start]), int(arrays.offsets[stop])
        centre = xp.searchsorted(arrays.offsets, xp.arange(first, last), side="right") - 1 - start
        vectors = arrays.vectors[first:last]
        column = self.n_moments * arrays.kinds[arrays.neighbours[first:last]]
        return centre, column, vectors, xp.einsum("pa,pa->p", vectors, vectors) / self.r_cut**2

    def compute(self, start, stop, arrays):
        """Moments X; no state."""
        centre, column, _, t = self._pairs(start, stop, arrays)
        xp = backends.namespace(t)
        X = xp.zeros((stop - start, self.n_features))
        for k in range(self.n_moments):
            xp.add.at(X, (centre, column + k), t**k * (1 - t) ** 3)
        return X, ()

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`: ∂t/∂r = 2r/r_cut²."""
        centre, column, vectors, t = self._pairs(start, stop, arrays)
        slope = sum(
            gradient[centre, column + k] * (k * t ** max(k - 1, 0) * (1 - t) ** 3 - 3 * t**k * (1 - t) ** 2) for k in range(self.n_moments)
        )
        out[int(arrays.offsets[start]) : int(arrays.offsets[stop])] = (2 / self.r_cut**2) * slope[:, None] * vectors


@dataclass(frozen=True)
class Exponential(Kernel):
    """κ(x, x′) = exp(c x·x′).

    Parameters
    ----------
    rate : c, positive.

    Raises
    ------
    InputError : ``rate`` is not positive.
    """

    rate: float = 0.5

    def __post_init__(self):
        if not self.rate > 0:
            raise InputError(f"`rate` must be positive, received {self.rate!r}.")

    def jet(self, u, a, b, order):
        value = backends.namespace(u).exp(self.rate * u)
        return Jet(value, self.rate * value if order else None, uu=self.rate**2 * value if order > 1 else None)
