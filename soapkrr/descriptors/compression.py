"""SOAP for many species: fewer channels, or fewer pairs of channels, in the power spectrum; all derivatives analytic.

With S species the power spectrum has (S n_max)² / 2 · (l_max + 1) features. Everything here acts on the expansion coefficients,
c′_{q lm} = Σ_a C_{l,aq} c_{a lm} with a = (species, n), so it costs no more than one small matrix product per l.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr import backends
from soapkrr.backends.arrays import Basis
from soapkrr.descriptors.contraction import OptimalRadial, channel_moments, folded, lanes, leading_vectors, packed
from soapkrr.descriptors.soap import SOAP, triangle
from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.specification import ByValue

COMPRESSIONS = ("off", "mu2", "mu1nu1", "crossover")


@dataclass(frozen=True, eq=False)
class CompressedSOAP(ByValue, SOAP):
    """SOAP whose channels (species, n) are contracted before the power spectrum is formed.

    Parameters
    ----------
    species, ..., scaling : as of `SOAP`.
    compression : which channels are multiplied (Darby et al. 2022, doi 10.1038/s41524-022-00847-y; DScribe's names):
        ``"off"``, all pairs; ``"mu1nu1"``, each species with the density of all species, S n² (l+1) features; ``"mu2"``, only the
        density of all species; ``"crossover"``, each species with itself.
    embedding : species mixed into K pseudo-species, c′_{kn} = Σ_s W_sk c_sn (Willatt et al. 2018, doi 10.1039/C8CP05921G): W
        (n_species, K), or K to learn W as the leading principal components of the densities of the training environments.
    contraction : species and radial functions mixed jointly for each l (Goscinski et al. 2021, doi 10.1063/5.0057229):
        an array (l_max + 1, n_species·n_max, Q), or Q to learn it; `OptimalRadial` to learn few radial functions for each species instead,
        fewer the higher l. Columns of zeros are channels that there are not for this l. Excludes the other two. As many channels as there
        are radial functions, or as many of each species, cost no more than so many radial functions: they are tabulated contracted.

    extrapolate_species : whether a model predicts species that no training structure has, by what their row of ``embedding`` (an array,
        as of `element_embedding`) shares with others, with the error bars that the prior gives; otherwise they are refused.

    With an integer it equals `SOAP` until a model (or a `Featurizer`) is fitted.

    Raises
    ------
    InputError : a parameter is out of range or of the wrong shape; the message names it.

    Examples
    --------
    >>> soap = CompressedSOAP(species=["Cu", "Ag", "Au", "Pt"], r_cut=5.0, n_max=6, l_max=4, compression="mu1nu1")
    >>> soap.n_features, SOAP(species=["Cu", "Ag", "Au", "Pt"], r_cut=5.0, n_max=6, l_max=4).n_features
    (720, 1500)
    """

    compression: str = "off"
    embedding: np.ndarray | int | None = None
    contraction: np.ndarray | int | None = None
    extrapolate_species: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.compression not in COMPRESSIONS:
            raise InputError(f"`compression` must be one of {COMPRESSIONS}, received {self.compression!r}.")
        if self.contraction is not None and (self.embedding is not None or self.compression != "off"):
            raise InputError("`contraction` mixes species already: leave `embedding` None and `compression` 'off'.")
        self._check("embedding", (len(self.species), None))
        self._check("contraction", (self.l_max + 1, super().n_channels, None))
        if self.extrapolate_species and not isinstance(self.embedding, np.ndarray):
            raise InputError(
                "`extrapolate_species` needs an `embedding` that places every species, such as `element_embedding`; without one a species "
                "shares nothing with others."
            )

    def _check(self, name: str, shape: tuple) -> None:
        """Whole number or finite array of this shape (last length free); an array is copied and made read-only."""
        value = getattr(self, name)
        if value is None or (name == "contraction" and isinstance(value, OptimalRadial)):
            return
        most = shape[-2]
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            if not 1 <= value <= most:
                raise InputError(f"`{name}` must be from 1 to {most}, the number there is without it; received {value}.")
            return
        array = np.array(value, dtype=float)
        if array.shape[:-1] != shape[:-1] or array.ndim != len(shape) or not array.shape[-1] or not np.isfinite(array).all():
            expected = ", ".join(str(n) for n in shape[:-1])
            raise InputError(f"`{name}` must be a finite array ({expected}, n), received shape {array.shape}.")
        array.flags.writeable = False
        object.__setattr__(self, name, array)

    @property
    def extrapolates(self):
        return self.extrapolate_species

    @property
    def learns(self):
        """Whether a whole number stands where an array will."""
        return any(isinstance(value, (int, np.integer, OptimalRadial)) for value in (self.embedding, self.contraction))

    @cached_property
    def _mixing(self) -> np.ndarray:
        """(n_species, K) pseudo-species."""
        W = np.eye(len(self.species)) if self.embedding is None else self.embedding
        return W.sum(axis=1, keepdims=True) if self.compression == "mu2" else W

    @cached_property
    def _matrices(self) -> np.ndarray:
        """C (l_max + 1, n_species·n_max, Q) that makes the channels which are multiplied; for each l those that there are come first."""
        if self.learns:
            return self._same_for_all_l(np.eye(len(self.species)))
        if self.contraction is not None:
            return packed(self.contraction)
        W = self._mixing
        if self.compression == "mu1nu1":
            W = np.column_stack([W, W.sum(axis=1)])
        return self._same_for_all_l(W)

    def _same_for_all_l(self, W: np.ndarray) -> np.ndarray:
        return np.repeat(np.kron(W, np.eye(self.n_max))[None], self.l_max + 1, axis=0)

    @cached_property
    def _basis(self) -> Basis:
        """Of contracted radial functions, if neighbours then add to no more channels than to plain ones; otherwise the plain one."""
        basis = folded(self._plain_basis, self._matrices)
        return basis if lanes(basis.n_max) <= lanes(self.n_max) else self._plain_basis

    @cached_property
    def _contraction(self) -> np.ndarray | None:
        """C (l_max + 1, n_species·n_max, Q) of expansions, None where it is in the radial functions."""
        return self._matrices if self._basis is self._plain_basis else None

    @cached_property
    def _partners(self) -> np.ndarray:
        """(l_max + 1, Q, 2) channels that each channel is multiplied with."""
        n_q, n = self._matrices.shape[2], self.n_max
        partners = np.array([triangle(n_q, int(present.sum())) for present in self._matrices.any(axis=1)])
        if self.learns:
            return partners
        if self.compression == "mu1nu1":
            partners[:] = n_q - n, n_q
            partners[:, n_q - n :, 0] = n_q
        if self.compression == "crossover":
            partners[:, :, 1] = (partners[:, :, 0] // n + 1) * n
        return partners

    @cached_property
    def n_features(self):
        """Pairs of channels, of all l."""
        return int(np.diff(self._partners).sum())

    def feature_names(self):
        """Both channels, and l; channels keep the names of their species where they have any."""
        channels = self._channel_names()
        return [
            f"{channels[a]} {channels[b]} l={l}"
            for l, of_channels in enumerate(self._partners)
            for a, (b0, b1) in enumerate(of_channels)
            for b in range(b0, b1)
        ]

    def _channel_names(self) -> list[str]:
        if isinstance(self.contraction, np.ndarray):
            return [f"channel{q}" for q in range(self.contraction.shape[2])]
        kinds = [f"mix{k}" for k in range(self.embedding.shape[1])] if isinstance(self.embedding, np.ndarray) else list(self.species)
        if not self.learns and self.compression in ("mu1nu1", "mu2"):
            kinds = [*kinds, "all"] if self.compression == "mu1nu1" else ["all"]
        return [f"{kind}:{n}" for kind in kinds for n in range(self.n_max)]

    def fitted(self, X):
        """With principal components of the channels learnt from plain power spectra X (n, n_features) of the training environments."""
        if not self.learns:
            return self
        moments = channel_moments(backends.host(X), self.n_channels, self.l_max)
        if isinstance(self.contraction, OptimalRadial):
            return self.with_params(contraction=self.contraction.matrices(moments, len(self.species)))
        if self.embedding is None:
            return self.with_params(contraction=leading_vectors(moments, int(self.contraction)))
        by_species = moments.sum(axis=0).reshape(len(self.species), self.n_max, len(self.species), self.n_max)
        return self.with_params(embedding=leading_vectors(np.einsum("snun->su", by_species), int(self.embedding)))

    def _mixed(self, c):
        return c if self._contraction is None else self._per_l(c, self._on(c, "_contraction"))

    def _unmixed(self, H):
        return H if self._contraction is None else self._per_l(H, self._on(H, "_contraction").transpose(0, 2, 1))

    def _per_l(self, c: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """c[i, lm] @ matrices[l]."""
        out = backends.namespace(c).empty((*c.shape[:2], matrices.shape[2]))
        for l, matrix in enumerate(matrices):
            out[:, l**2 : (l + 1) ** 2] = c[:, l**2 : (l + 1) ** 2] @ matrix
        return out


def similarity_embedding(similarity: np.ndarray, n_components: int | None = None) -> np.ndarray:
    """W (n_species, K) with W Wᵀ ≈ κ, for `CompressedSOAP(embedding=...)`: densities of species s and t then overlap as κ_st.

    κ = 1 (identity) is plain SOAP, κ_st = 1 for all is ``"mu2"``; between them lies what chemistry knows (Willatt et al. 2018,
    doi 10.1039/C8CP05921G).

    Parameters
    ----------
    similarity : κ (n_species, n_species), symmetric, positive semi-definite; species ordered by atomic number as in `SOAP.species`.
    n_components : K, by default all that κ has.

    Raises
    ------
    InputError : ``similarity`` is not symmetric or has a negative eigenvalue.

    Examples
    --------
    >>> W = similarity_embedding([[1.0, 0.9], [0.9, 1.0]])
    >>> (W @ W.T).round(12).tolist()
    [[1.0, 0.9], [0.9, 1.0]]
    """
    similarity = np.asarray(similarity, dtype=float)
    if similarity.ndim != 2 or not np.array_equal(similarity, similarity.T):
        raise InputError(f"`similarity` must be a symmetric matrix, received shape {similarity.shape}.")
    values, vectors = np.linalg.eigh(similarity)
    if not values[0] >= -1e-12 * values[-1]:
        raise InputError(f"`similarity` must be positive semi-definite; its smallest eigenvalue is {values[0]:.3g}.")
    kept = np.argsort(-values)[: n_components or np.count_nonzero(values > 1e-12 * values[-1])]
    return vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0))
