"""Descriptors made of another descriptor: standardised features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.environments import Environments
from soapkrr.descriptors.projection import Wrapper
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property

#: Features that vary less than this fraction of their root mean square count as constant: their noise is not blown up.
FLOOR = 0.01


@dataclass(frozen=True)
class Standardized(Wrapper):
    """(X − mean)/scale, feature by feature, of another descriptor's X.

    Parameters
    ----------
    descriptor : the descriptor whose features are mapped.
    mean, scale : (n_features,) numbers; every scale positive.
    """

    mean: Sequence[float] = field(repr=False)
    scale: Sequence[float] = field(repr=False)

    def __post_init__(self):
        super().__post_init__()
        for name in ("mean", "scale"):
            values = np.asarray(getattr(self, name), dtype=float)
            if values.shape != (self.n_features,) or not np.isfinite(values).all():
                raise InputError(f"`{name}` must hold {self.n_features} finite numbers, received shape {values.shape}.")
            object.__setattr__(self, name, tuple(values.tolist()))
        if min(self.scale) <= 0:
            raise InputError(f"`scale` must be positive, received {min(self.scale)}.")

    @classmethod
    def of(cls, descriptor: Descriptor, X: np.ndarray) -> Standardized:
        """Zero mean and unit standard deviation over the environments X (n, n_features).

        A (nearly) constant feature is divided by 1% of its root mean square, one that is always zero stays as it is.
        """
        X = backends.host(X)
        size = FLOOR * np.sqrt(np.mean(X**2, axis=0))
        scale = np.maximum(X.std(axis=0), size)
        return cls(descriptor, X.mean(axis=0), np.where(scale > 0, scale, 1.0))

    @property
    def needs_pairs(self) -> bool:
        return self.descriptor.needs_pairs

    @property
    def n_features(self) -> int:
        return self.descriptor.n_features

    @cached_property
    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.mean), 1.0 / np.array(self.scale)

    def compute(self, start, stop, arrays):
        """Standardised X; the state is the inner X and state."""
        mean, inverse = self._on(arrays.vectors, "_map")
        X, state = self.descriptor.compute(start, stop, arrays)
        return (X - mean) * inverse, (X, *state)

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        self.descriptor.pullback(start, stop, arrays, state[0], state[1:], gradient * self._on(gradient, "_map")[1], out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        return self.descriptor.jvp(start, stop, arrays, state[0], state[1:], direction) * self._on(direction, "_map")[1]

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        self.descriptor.jacobian(start, stop, _inner(env), rows, out)
        out[rows] *= self._on(out, "_map")[1]

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        self.descriptor.strain_jacobian(start, stop, _inner(env), out)
        out *= self._on(out, "_map")[1]


def _inner(env: Environments) -> Environments:
    return env.inner(env.descriptor.descriptor, env.state[0], env.state[1:])
