"""Projection of any descriptor onto the span that the training environments occupy.

Source: principal components without centring, so that dot products survive; Imbalzano et al. 2018, doi 10.1063/1.5024611.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.environments import Environments
from soapkrr.descriptors.normalise import normalised, through_norm
from soapkrr.errors import InputError
from soapkrr.specification import ByValue

#: Jacobian of the inner descriptor held at once, bytes.
BUDGET = 64 * 2**20


@dataclass(frozen=True)
class Wrapper(Descriptor):
    """Base of descriptors made from another one, with its species and cutoff; unless overridden, all is as there."""

    species: tuple[str, ...] = field(init=False, repr=False)
    r_cut: float = field(init=False, repr=False)
    descriptor: Descriptor

    def __post_init__(self):
        if not isinstance(self.descriptor, Descriptor):
            raise InputError(f"`descriptor` must be a soapkrr descriptor, received {type(self.descriptor).__name__}.")
        object.__setattr__(self, "species", self.descriptor.species)
        object.__setattr__(self, "r_cut", self.descriptor.r_cut)

    @property
    def extrapolates(self):
        return self.descriptor.extrapolates

    @property
    def kind_names(self):
        return self.descriptor.kind_names

    def kind_of(self, species):
        return self.descriptor.kind_of(species)

    def feature_names(self):
        return self.descriptor.feature_names()

    def compute(self, start, stop, arrays):
        """See `Descriptor.compute`."""
        return self.descriptor.compute(start, stop, arrays)

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        self.descriptor.pullback(start, stop, arrays, X, state, gradient, out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        return self.descriptor.jvp(start, stop, arrays, X, state, direction)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`."""
        self.descriptor.jacobian(start, stop, env, rows, out)

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        self.descriptor.strain_jacobian(start, stop, env, out)

    def _jacobians(self, start, stop, inner: Environments, rows) -> Iterator[tuple]:
        """Parts of the Jacobian of the inner descriptor within `BUDGET`: derivatives (n, 3, n_features of it), the centres (n,) they are
        of, and their places (n,) among ``rows``.
        """
        offsets, neighbours, xp = inner.pairs.offsets, inner.pairs.neighbours, inner.xp
        ends = backends.host(offsets[start : stop + 1])
        n_pairs = int(ends[-1] - ends[0])
        most = max(1, BUDGET // (24 * self.descriptor.n_features))
        for a, b in blocks(ends, 0, stop - start, most):
            first, last, a, b = int(ends[a] - ends[0]), int(ends[b] - ends[0]), start + a, start + b
            centre = xp.concatenate([neighbours[ends[0] + first : ends[0] + last], xp.arange(a, b)])
            target = xp.concatenate([rows[first:last], rows[n_pairs + a - start : n_pairs + b - start]])
            J = xp.empty((len(centre), 3, self.descriptor.n_features))
            self.descriptor.jacobian(a, b, inner, xp.arange(len(centre)), J)
            yield J, centre, target


@dataclass(frozen=True)
class Compressed(Wrapper):
    """A descriptor that a model projects onto the leading principal components of its training environments.

    Until a model (or a `Featurizer`) is fitted it equals the inner descriptor; `fitted` gives the `Projected` one.

    Parameters
    ----------
    descriptor : any descriptor that does not itself learn from the data.
    n_components : number of features kept, or, below 1, the part of Σ|x|² that may be lost.
    normalize : project onto the unit sphere afterwards, as the dot-product kernel expects.

    Raises
    ------
    InputError : a parameter is out of range; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from soapkrr import SOAP, Compressed
    >>> soap = Compressed(SOAP(species=["Si"], r_cut=4.0), n_components=5)
    >>> soap.fitted(soap.create([bulk("Si", a=a).repeat(2) for a in np.linspace(5, 6, 7)])).n_features
    5
    """

    n_components: int | float = 1e-6
    normalize: bool = True

    def __post_init__(self):
        super().__post_init__()
        n = self.n_components
        whole = isinstance(n, (int, np.integer)) and n >= 1
        if isinstance(n, bool) or not (whole or (isinstance(n, float) and 0 < n < 1)):
            raise InputError(f"`n_components` must be a positive integer or a fraction between 0 and 1, received {n!r}.")
        if self.descriptor.learns:
            raise InputError(f"`descriptor`={type(self.descriptor).__name__} learns from the data itself: give its `fitted` result.")

    @property
    def n_features(self):
        """Length before anything is learnt."""
        return self.descriptor.n_features

    def fitted(self, X):
        """The inner descriptor projected onto principal components of X (n, n_features)."""
        return Projected(self.descriptor, principal_components(X, self.n_components), self.normalize)


def principal_components(X: np.ndarray, n_components: int | float) -> np.ndarray:
    """Leading right singular vectors of X as columns (n_features, k), by the smaller of the two Gram matrices.

    ``n_components`` is k, or, below 1, the part of Σ|x|² that may be lost. Components below 1e-12 of the largest are never kept.
    """
    X = backends.host(X)
    wide = X.shape[1] > len(X)
    values, vectors = np.linalg.eigh(X @ X.T if wide else X.T @ X)
    values, vectors = values[::-1], vectors[:, ::-1]
    known = int(np.count_nonzero(values > 1e-12 * values[0]))
    if isinstance(n_components, float):
        lost = values.sum() - np.cumsum(values)
        n_components = int(np.argmax(lost <= n_components * values.sum())) + 1
    k = min(int(n_components), known)
    if not wide:
        return np.ascontiguousarray(vectors[:, :k])
    # Xᵀ u/s loses orthogonality to rounding for small s; QR restores it without changing the leading vectors.
    return np.linalg.qr(X.T @ (vectors[:, :k] / np.sqrt(values[:k])))[0]


@dataclass(frozen=True, eq=False)
class Projected(ByValue, Wrapper):
    """x = y P/|y P| with y another descriptor and P a fixed matrix; `Compressed` learns P.

    Parameters
    ----------
    descriptor : gives y (n_features of its own).
    matrix : P (n_features of ``descriptor``, n_components).
    normalize : divide by |y P|; otherwise x = y P.

    Raises
    ------
    InputError : ``matrix`` does not fit the descriptor or is not finite.
    """

    matrix: np.ndarray
    normalize: bool = True

    def __post_init__(self):
        super().__post_init__()
        matrix = np.array(self.matrix, dtype=float)
        if matrix.ndim != 2 or len(matrix) != self.descriptor.n_features or not matrix.shape[1]:
            raise InputError(f"`matrix` has shape {matrix.shape}, expected ({self.descriptor.n_features}, n_components).")
        if not np.isfinite(matrix).all():
            raise InputError("`matrix` holds values that are not finite.")
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @property
    def n_features(self):
        """Columns of the matrix."""
        return self.matrix.shape[1]

    def feature_names(self):
        """Numbered components."""
        return [f"component {k}" for k in range(self.n_features)]

    def compute(self, start, stop, arrays):
        """X, and the state (|y P|, y, state of the inner descriptor)."""
        Y, state = self.descriptor.compute(start, stop, arrays)
        X = Y @ self._on(Y, "matrix")
        X, norms = normalised(X) if self.normalize else (X, backends.namespace(X).ones(len(X)))
        return X, (norms, Y, *state)

    def _through_norm(self, V, X, norms):
        return through_norm(V, X, norms) if self.normalize else V

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`: ∂E/∂y = (∂E/∂(yP)) Pᵀ."""
        norms, Y, *inner = state
        G = self._through_norm(gradient, X, norms) @ self._on(X, "matrix").T
        self.descriptor.pullback(start, stop, arrays, Y, tuple(inner), G, out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        norms, Y, *inner = state
        V = self.descriptor.jvp(start, stop, arrays, Y, tuple(inner), direction)
        return self._through_norm(V @ self._on(V, "matrix"), X, norms)

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`; few displaced atoms at a time, so that the inner Jacobian stays within `BUDGET`."""
        norms = env.state[0]
        for J, centre, target in self._jacobians(start, stop, self._inner(env), rows):
            out[target] = self._through_norm(self._project(J), env.X[centre], norms[centre])

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        norms, inner = env.state[0], self._inner(env)
        step = max(1, BUDGET // (48 * self.descriptor.n_features))
        for a in range(start, stop, step):
            b = min(a + step, stop)
            J = backends.namespace(out).empty((b - a, 6, self.descriptor.n_features))
            self.descriptor.strain_jacobian(a, b, inner, J)
            out[a - start : b - start] = self._through_norm(self._project(J), env.X[a:b], norms[a:b])

    def _project(self, J: np.ndarray) -> np.ndarray:
        """J @ matrix as one product; J (n, k, n_features of ``descriptor``)."""
        return (J.reshape(-1, J.shape[2]) @ self._on(J, "matrix")).reshape(*J.shape[:2], -1)

    def _inner(self, env: Environments) -> Environments:
        return env.inner(self.descriptor, env.state[1], tuple(env.state[2:]))


def blocks(offsets: np.ndarray, start: int, stop: int, most: int):
    """Consecutive (a, b) of atoms ``start:stop`` with at most ``most`` pairs and atoms together, at least one atom each."""
    a = start
    while a < stop:
        b = a + 1
        while b < stop and offsets[b + 1] - offsets[a] + b + 1 - a <= most:
            b += 1
        yield a, b
        a = b
