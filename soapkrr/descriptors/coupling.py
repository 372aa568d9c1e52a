"""Centres of different species that learn from each other: coregionalisation.

Source: intrinsic coregionalisation, Bonilla, Chai and Williams 2007 (NeurIPS 20), Alvarez, Rosasco and Lawrence 2012, doi
10.1561/2200000036.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.environments import Environments
from soapkrr.descriptors.projection import Wrapper
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.specification import ByValue


@dataclass(frozen=True, eq=False)
class Coupled(ByValue, Wrapper):
    """x ⊗ w_z of another descriptor's x and a vector w_z for the species z of the centre: x ⊗ w_z · x′ ⊗ w_z′ = κ_zz′ x·x′, κ = W Wᵀ.

    Environments of different species, which otherwise have nothing in common, k(x, x′) = δ_zz′ k(x·x′), then have k(κ_zz′ x·x′), so that
    an element with few environments learns from those like it. `DotProduct` (ζ) takes the ζ-th power of κ too: κ_zz′^ζ (x·x′)^ζ.
    With W = 1 (identity) it is the model without coupling, with W a column of ones species of centres make no difference.

    There is one kind of centres: sparse points are chosen among the environments of all species together.

    Parameters
    ----------
    descriptor : gives x (n_features of its own); the features here are R times as many.
    coupling : W (n_species, R), species ordered by atomic number, as `element_embedding` and `similarity_embedding` give it.

    Raises
    ------
    InputError : ``coupling`` has another shape, is not finite or has a row of zeros; or the descriptor learns from data.

    Examples
    --------
    >>> from soapkrr import SOAP, element_embedding
    >>> metals = ["Ni", "Cu", "Pd"]
    >>> soap = SOAP(metals, r_cut=4.0, n_max=3, l_max=2)
    >>> coupled = Coupled(soap, coupling=element_embedding(metals, 2))
    >>> soap.n_features, coupled.n_features, coupled.kind_names
    (135, 270, ('Ni+Cu+Pd',))
    """

    coupling: np.ndarray

    def __post_init__(self):
        super().__post_init__()
        if self.descriptor.learns:
            raise InputError(f"`descriptor`={type(self.descriptor).__name__} learns from the data itself: give its `fitted` result.")
        W, n = np.array(self.coupling, dtype=float), len(self.species)
        if W.ndim != 2 or len(W) != n or not W.shape[1] or not np.isfinite(W).all():
            raise InputError(
                f"`coupling` must be a finite array ({n}, R), a row for each of {list(self.species)}; received shape {W.shape}."
            )
        if not W.any(axis=1).all():
            raise InputError(f"`coupling` has a row of zeros: {self.species[int(np.argmin(W.any(axis=1)))]} could have no energy.")
        W.flags.writeable = False
        object.__setattr__(self, "coupling", W)

    @property
    def n_features(self):
        """R times those of the other descriptor."""
        return self.descriptor.n_features * self.coupling.shape[1]

    @cached_property
    def kind_names(self):
        """One kind, named after all species."""
        return ("+".join(self.species),)

    def kind_of(self, species):
        """Zeros."""
        return backends.namespace(species).zeros_like(species)

    def feature_names(self):
        """Those of the other descriptor for each column of W."""
        return [f"{name}, centre{r}" for r in range(self.coupling.shape[1]) for name in self.descriptor.feature_names()]

    def _expanded(self, V: np.ndarray, species: np.ndarray) -> np.ndarray:
        """v ⊗ w_z (n, ..., R·d) of rows of V (n, ..., d) at centres of these species."""
        w = self._on(V, "coupling")[species]
        w = w.reshape(len(w), *(1,) * (V.ndim - 2), -1, 1)
        return (w * V[..., None, :]).reshape(*V.shape[:-1], -1)

    def compute(self, start, stop, arrays):
        """X, and the state (x, state of the inner descriptor)."""
        x, state = self.descriptor.compute(start, stop, arrays)
        return self._expanded(x, arrays.kinds[start:stop]), (x, *state)

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`: ∂E/∂x = Σ_r w_zr ∂E/∂(x w_zr)."""
        x, *inner = state
        w = self._on(gradient, "coupling")[arrays.kinds[start:stop]]
        G = backends.namespace(gradient).matmul(w[:, None, :], gradient.reshape(len(w), w.shape[1], -1))[:, 0]
        self.descriptor.pullback(start, stop, arrays, x, tuple(inner), G, out)

    def jvp(self, start, stop, arrays, X, state, direction):
        """See `Descriptor.jvp`."""
        x, *inner = state
        return self._expanded(self.descriptor.jvp(start, stop, arrays, x, tuple(inner), direction), arrays.kinds[start:stop])

    def jacobian(self, start, stop, env, rows, out):
        """See `Descriptor.jacobian`; few displaced atoms at a time, so that the inner Jacobian stays within `BUDGET`."""
        for J, centre, target in self._jacobians(start, stop, self._inner(env), rows):
            out[target] = self._expanded(J, env.pairs.kinds[centre])

    def strain_jacobian(self, start, stop, env, out):
        """See `Descriptor.strain_jacobian`."""
        J = backends.namespace(out).empty((stop - start, 6, self.descriptor.n_features))
        self.descriptor.strain_jacobian(start, stop, self._inner(env), J)
        out[:] = self._expanded(J, env.pairs.kinds[start:stop])

    def _inner(self, env: Environments) -> Environments:
        return env.inner(self.descriptor, env.state[0], tuple(env.state[1:]))


@dataclass(frozen=True, eq=False)
class CoupledSum(Coupled):
    """√(1 − a) x beside √a w_z, products (1 − a) x·x′ + a κ_zz′: the cheaper coupling, R features more instead of R times as many.

    `DotProduct` (ζ) makes Σ_j (ζ over j) a^j (1 − a)^(ζ−j) κ_zz′^j (x·x′)^(ζ−j) of it: what all centres share, and what only like ones do,
    the more the larger ``share``. It cannot keep species apart entirely, as `Coupled` can: a part of the kernel is without κ.

    Parameters
    ----------
    descriptor, coupling : as of `Coupled`.  share : a, between 0 and 1.

    Raises
    ------
    InputError : as of `Coupled`, or ``share`` is out of range.

    Examples
    --------
    >>> from soapkrr import SOAP, element_embedding
    >>> metals = ["Ni", "Cu", "Pd"]
    >>> CoupledSum(SOAP(metals, r_cut=4.0, n_max=3, l_max=2), coupling=element_embedding(metals, 3)).n_features
    138
    """

    share: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not (isinstance(self.share, (float, np.floating)) and 0 < self.share < 1):
            raise InputError(f"`share` must be a number between 0 and 1, received {self.share!r}.")

    @property
    def n_features(self):
        """R more than those of the other descriptor."""
        return self.descriptor.n_features + self.coupling.shape[1]

    def feature_names(self):
        """Those of the other descriptor, and those of the centre's species."""
        return [*self.descriptor.feature_names(), *(f"centre{r}" for r in range(self.coupling.shape[1]))]

    def _expanded(self, V, species):
        """√(1 − a) v and zeros: the species of a centre do not change with positions."""
        out = backends.namespace(V).zeros((*V.shape[:-1], self.n_features))
        out[..., : V.shape[-1]] = np.sqrt(1 - self.share) * V
        return out

    def compute(self, start, stop, arrays):
        """X, and the state (x, state of the inner descriptor)."""
        X, state = super().compute(start, stop, arrays)
        X[:, self.descriptor.n_features :] = np.sqrt(self.share) * self._on(X, "coupling")[arrays.kinds[start:stop]]
        return X, state

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        x, *inner = state
        G = backends.namespace(gradient).ascontiguousarray(np.sqrt(1 - self.share) * gradient[:, : x.shape[1]])
        self.descriptor.pullback(start, stop, arrays, x, tuple(inner), G, out)
