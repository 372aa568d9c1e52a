"""SOAP whose channels count differently for each kind of central atom; all derivatives analytic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.environments import Environments
from soapkrr.descriptors.normalise import normalised, through_norm
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.specification import ByValue


@dataclass(frozen=True, eq=False)
class WeightedSOAP(ByValue, SOAP):
    """SOAP with a weight on every channel of the density, for each species of the central atom.

    c′_{s,nlm}(i) = w(z_i, l, (s, n)) c_{s,nlm}(i) before the power spectrum is formed, p_{(sn)(s′n′)l} of `SOAP` times
    w(z_i, l, (s, n)) w(z_i, l, (s′, n′)), normalised again: what of its surroundings a kind of atom feels. `soapkrr.learn_weights` finds
    them from data.

    Parameters
    ----------
    species, ..., scaling : as of `SOAP`.
    weights : positive array (n_species, l_max + 1, n_species·n_max), central species by atomic number, channels species by species; None:
        all one, which is `SOAP`. A common factor of all weights of one central species changes nothing.

    Raises
    ------
    InputError : a parameter is out of range or of the wrong shape; the message names it.

    Examples
    --------
    >>> weights = np.ones((2, 5, 12))
    >>> weights[:, :, 6:] = 0.5  # all atoms see less of oxygen than of hydrogen
    >>> WeightedSOAP(species=["H", "O"], r_cut=4.0, n_max=6, l_max=4, weights=weights).n_features
    390
    """

    weights: np.ndarray | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.weights is None:
            return
        weights, expected = np.array(self.weights, dtype=float), (len(self.species), self.l_max + 1, self.n_channels)
        if weights.shape != expected or not np.isfinite(weights).all() or not (weights > 0).all():
            raise InputError(
                f"`weights` must be a finite, positive array {expected}, (n_species, l_max + 1, n_species·n_max), received "
                f"{weights.shape} with values from {weights.min(initial=np.inf):g} to {weights.max(initial=-np.inf):g}."
            )
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)

    @cached_property
    def _scales(self) -> np.ndarray:
        """(n_species, n_features) factors of the power spectrum, for each central species."""
        weights = np.ones((len(self.species), self.l_max + 1, self.n_channels)) if self.weights is None else self.weights
        return feature_scales(weights)

    def compute(self, start, stop, arrays):
        """X, and the state (|s∘p|, p, expansion, norm of the expansion's spectrum), p being the spectrum without weights."""
        plain, state = super().compute(start, stop, arrays)
        X, norms = normalised(plain * self._scales_of(arrays.kinds[start:stop]))
        return X, (norms, plain, *state)

    def _scales_of(self, kinds) -> np.ndarray:
        return self._on(kinds, "_scales")[kinds]

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        norms, plain, *inner = state
        G = through_norm(gradient, X, norms) * self._scales_of(arrays.kinds[start:stop])
        super().pullback(start, stop, arrays, plain, tuple(inner), G, out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        norms, plain, *inner = state
        V = super().jvp(start, stop, arrays, plain, tuple(inner), direction)
        return through_norm(V * self._scales_of(arrays.kinds[start:stop]), X, norms)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        super().jacobian(start, stop, self._inner(env), rows, out)
        first, last = int(env.pairs.offsets[start]), int(env.pairs.offsets[stop])
        xp = backends.namespace(out)
        centre = xp.concatenate([env.pairs.neighbours[first:last], xp.arange(start, stop)])
        out[rows] = self._weighted(out[rows], env, centre)

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        super().strain_jacobian(start, stop, self._inner(env), out)
        out[:] = self._weighted(out, env, backends.namespace(out).arange(start, stop))

    def _weighted(self, J: np.ndarray, env: Environments, centre: np.ndarray) -> np.ndarray:
        """Derivatives of X from those of the spectrum without weights, J (n, k, n_features), of these central atoms."""
        return through_norm(J * self._scales_of(env.kinds[centre])[:, None], env.X[centre], env.state[0][centre])

    def _inner(self, env: Environments) -> Environments:
        """The surroundings as a SOAP without weights sees them."""
        return env.inner(self, env.state[1], tuple(env.state[2:]))


def feature_scales(weights: np.ndarray) -> np.ndarray:
    """(n_species, n_features) factors w_a w_b of the features of a power spectrum, from weights (n_species, l_max + 1, n_channels)."""
    a, b = np.triu_indices(weights.shape[2])
    return np.ascontiguousarray((weights[:, :, a] * weights[:, :, b]).reshape(len(weights), -1))


def weights_gradient(of_scales: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """∂L/∂log w, as the weights, from ∂L/∂s (n_species, n_features) of `feature_scales`."""
    a, b = np.triu_indices(weights.shape[2])
    parts = (of_scales * feature_scales(weights)).reshape(*weights.shape[:2], -1)
    out = np.zeros((weights.shape[2], *weights.shape[:2]))
    np.add.at(out, a, np.moveaxis(parts, -1, 0))
    np.add.at(out, b, np.moveaxis(parts, -1, 0))
    return np.ascontiguousarray(np.moveaxis(out, 0, -1))
