"""The mean of an exact GP as a sum over training environments: prediction at the cost of about two sparse points each.

E(x) = δ² Σ_j [a_j κ(x, x_j) + b_j·∂κ(x, x_j)/∂x_j]: the weights of all observations, collapsed onto the environments they act on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError
from soapkrr.kernels import Kernel, squares
from soapkrr.lazy import cached_property
from soapkrr.regression import stored
from soapkrr.regression.exact.compositions import Composition, layout_of
from soapkrr.regression.terms import checked_term


@dataclass(frozen=True, eq=False)
class CollapsedPart:
    """One term of an exact GP, as `evaluate.evaluate` takes it.

    Attributes
    ----------
    points : per species (M_s, d) training environments.  values : per species (M_s,) a_j.  slopes : per species (M_s, d) b_j.
    """

    descriptor: Descriptor
    kernel: Kernel
    signal: float
    points: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    slopes: tuple[np.ndarray, ...]

    @classmethod
    def collapse(cls, term, compositions: list[Composition], weights: np.ndarray) -> CollapsedPart:
        """From the weights (`Layout` order) of all observations, a NumPy array; the part has arrays of the compositions' library."""
        layout, parts, xp = layout_of(compositions), [], compositions[0].xp
        for s in range(term.descriptor.n_kinds):
            X, a, B = [xp.zeros((0, term.descriptor.n_features))], [xp.zeros(0)], [xp.zeros((0, term.descriptor.n_features))]
            for same in compositions:
                w = xp.asarray(weights[same.places(layout)])
                n, m, d = same.X[s].shape
                X.append(same.X[s].reshape(n * m, d))
                a.append(xp.repeat(w[:, 0], m))
                B.append(xp.matmul(same.V[s], w[:, None, 1:, None])[..., 0].reshape(n * m, d))
            parts.append([xp.concatenate(p) for p in (X, a, B)])
        return cls(term.descriptor, term.kernel, term.signal, *(tuple(p) for p in zip(*parts, strict=True)))

    def observed(self, compositions: list[Composition]) -> np.ndarray:
        """(n,) energies and derivatives of the structures of compositions, zero where ignored: the transpose of `collapse`."""
        layout, xp = layout_of(compositions), compositions[0].xp
        out = xp.zeros(layout.size)
        for same in compositions:
            at = xp.asarray(same.places(layout))
            for s, (X, V) in enumerate(zip(same.X, same.V, strict=True)):
                n, m, d = X.shape
                if m:
                    energies, gradient = self.evaluate(s, X.reshape(n * m, d))
                    out[at[:, 0]] += energies.reshape(n, m).sum(axis=1)
                    out[at[:, 1:]] += xp.matmul(gradient.reshape(n, 1, m * d), V.reshape(n, m * d, -1))[:, 0]
        return out

    def state(self) -> dict:
        """For a model file."""
        return {name: getattr(self, name) for name in ("descriptor", "kernel", "signal", "points", "values", "slopes")}

    @classmethod
    def restore(cls, state: dict) -> CollapsedPart:
        """From `state`; raises `ModelFileError` where the parts do not fit together."""
        descriptor, kernel, signal = checked_term(state)
        points, values, slopes = (stored.arrays(state[name], name) for name in ("points", "values", "slopes"))
        for symbol, x, a, b in zip(descriptor.kind_names, points, values, slopes, strict=True):
            if x.ndim != 2 or x.shape[1] != descriptor.n_features or a.shape != (len(x),) or b.shape != x.shape:
                raise ModelFileError(f"the arrays do not fit the descriptor: {symbol} has environments {x.shape}, {a.shape}, {b.shape}.")
        return cls(descriptor, kernel, signal, points, values, slopes)

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return backends.namespace(self.points[0])

    def moved(self, xp) -> CollapsedPart:
        """The same with arrays of another library."""
        if xp is self.xp:
            return self
        points, values, slopes = (backends.moved(xp, part) for part in (self.points, self.values, self.slopes))
        return replace(self, points=points, values=values, slopes=slopes)

    @cached_property
    def _norms(self):
        """Per species |x_j|² (1, M_s) and x_j·b_j (M_s,)."""
        return [(squares(x)[None, :], (x * b).sum(axis=1)) for x, b in zip(self.points, self.slopes, strict=True)]

    def evaluate(self, s: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (n,) and gradients (n, d) of environments x of species s."""
        xp = backends.namespace(x)
        energies, gradient, of_x = xp.zeros(len(x)), xp.zeros_like(x), xp.zeros(len(x))
        for points, slopes, e, of_points, of_slopes, along_x in self._tiles(s, x):
            energies += e
            gradient += of_points @ points
            gradient += of_slopes @ slopes
            if along_x is not None:
                of_x += along_x
        gradient += of_x[:, None] * x
        scale = self.signal**2
        return scale * energies, scale * gradient

    @staticmethod
    def evaluate_samples(parts: Sequence[CollapsedPart], s: int, x: np.ndarray) -> tuple[np.ndarray, Iterator[np.ndarray]]:
        """Energies (n_samples, n) and one gradient (n, d) after the other."""
        energies, gradients = zip(*(part.evaluate(s, x) for part in parts), strict=True)
        return backends.namespace(x).stack(energies), iter(gradients)

    def plus(self, other: CollapsedPart) -> CollapsedPart:
        """The sum with a part that has the same points."""
        values, slopes = (
            tuple(a + b for a, b in zip(mine, theirs, strict=True))
            for mine, theirs in ((self.values, other.values), (self.slopes, other.slopes))
        )
        return replace(self, values=values, slopes=slopes)

    def energies(self, s: int, x: np.ndarray) -> np.ndarray:
        """Energies (n,) alone, at half the cost."""
        return self.signal**2 * sum((tile[2] for tile in self._tiles(s, x)), start=backends.namespace(x).zeros(len(x)))

    def _tiles(self, s: int, x: np.ndarray):
        """Training environments, their slopes and what `Kernel.observed` says of them, some at a time."""
        X, a, B = self.points[s], self.values[s], self.slopes[s]
        b2, own = self._norms[s]
        step, a2 = backends.of(x).POINTS, squares(x)[:, None]
        for start in range(0, len(X), step):
            here = slice(start, start + step)
            points, slopes = X[here], B[here]
            yield points, slopes, *self.kernel.observed(x @ points.T, x @ slopes.T, a2, b2[:, here], a[here], own[here])
