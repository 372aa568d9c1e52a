"""Contractions of the channels of a density expansion: as radial functions of their own, and learnt ones.

Source: Goscinski, Musil, Pozdnyakov, Nigam and Ceriotti 2021, doi 10.1063/5.0057229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.backends.arrays import Basis
from soapkrr.descriptors.radial import LINE, padded
from soapkrr.errors import InputError
from soapkrr.specification import Specification


@dataclass(frozen=True)
class OptimalRadial(Specification):
    """The optimal radial basis: for each l and species of neighbour the few functions that most of the density's variance lies in.

    The covariance Σ_i Σ_m c_{s,nlm} c_{s,n′lm} over training environments has eigenvectors u_k, eigenvalues λ_k, for each species s and l;
    Σ_n u_kn R_nl(r) are its optimal radial functions. Kept are those with λ_k ≥ a b^l Σ λ, a the ``loss``, b ``falls``, Σ over all k and
    l of the species: fewer the higher l, whose small parts tell less of energies.

    Parameters
    ----------
    loss : share of a species' variance below which a function is left out, at l = 0.
    falls : how much larger this share is with each l.
    most : functions of a species and l at most, None for no limit.

    Raises
    ------
    InputError : a parameter is out of range.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from soapkrr import CompressedSOAP, OptimalRadial
    >>> soap = CompressedSOAP(["Si"], r_cut=5.0, n_max=8, l_max=6, contraction=OptimalRadial(loss=1e-5))
    >>> frames = [bulk("Si", cubic=True) for _ in range(5)]
    >>> [atoms.rattle(0.1, seed=seed) for seed, atoms in enumerate(frames)] and None
    >>> soap.n_features, soap.fitted(soap.create(frames)).n_features
    (252, 46)
    """

    loss: float = 3e-6
    falls: float = 3.0
    most: int | None = None

    def __post_init__(self):
        if not (isinstance(self.loss, (int, float, np.number)) and 0 < self.loss < 1):
            raise InputError(f"`loss` must be a share of the variance between 0 and 1, some 1e-6 to 1e-4; received {self.loss!r}.")
        if not (isinstance(self.falls, (int, float, np.number)) and 1 <= self.falls < np.inf):
            raise InputError(f"`falls` must be a number of at least 1, received {self.falls!r}.")
        if self.most is not None and (isinstance(self.most, bool) or not isinstance(self.most, (int, np.integer)) or self.most < 1):
            raise InputError(f"`most` must be a positive integer or None, received {self.most!r}.")

    def matrices(self, moments: np.ndarray, n_species: int) -> np.ndarray:
        """C (l_max + 1, n_channels, Q) from `channel_moments` (l_max + 1, n_channels, n_channels): own columns of each species.

        Columns of functions that there are not for an l are zero. A species keeps one function of l = 0 at least.
        """
        n_l, n = len(moments), moments.shape[1] // n_species
        own = [moments[:, s * n : (s + 1) * n, s * n : (s + 1) * n] for s in range(n_species)]
        kept, vectors = [], []
        for of_species in own:
            shares = np.linalg.eigvalsh(of_species)[:, ::-1] / max(np.trace(of_species, axis1=1, axis2=2).sum(), np.finfo(float).tiny)
            counts = np.count_nonzero(shares >= self.loss * float(self.falls) ** np.arange(n_l)[:, None], axis=1)
            counts[0] = max(counts[0], 1)
            kept.append(np.minimum(counts, self.most or n))
            vectors.append(leading_vectors(of_species, n))
        first = np.cumsum([0] + [int(counts.max()) for counts in kept])
        C = np.zeros((n_l, n_species * n, first[-1]))
        for s, l in np.ndindex(n_species, n_l):
            q = kept[s][l]
            C[l, s * n : (s + 1) * n, first[s] : first[s] + q] = vectors[s][l, :, :q]
        return C


def packed(contraction: np.ndarray) -> np.ndarray:
    """The same with columns of zeros, channels that there are not for an l, after all others."""
    order = np.argsort(~contraction.any(axis=1), axis=-1, kind="stable")
    return np.ascontiguousarray(np.take_along_axis(contraction, order[:, None, :], axis=2))


def lanes(n: int) -> int:
    """Vectors that the loops take n functions in."""
    return -(-n // LINE)


def folded(basis: Basis, contraction: np.ndarray) -> Basis:
    """A basis of the functions Σ_n C[l, (s, n), q] R_nl(r) of neighbours of species s, from one of plain functions R_nl.

    The expansion c′_{q lm} = Σ_sn C[l, (s, n), q] c_{sn lm} then is a sum over neighbours like any other, with a table for each species of
    the functions that it has; a species that gives a channel nothing does not visit it.
    """
    n_l, n_s = basis.l_max + 1, len(basis.windows)
    C = contraction.reshape(n_l, n_s, basis.n_max, -1).transpose(1, 0, 2, 3)
    present = C.any(axis=2)
    first, last = present.argmax(axis=2), C.shape[3] - present[..., ::-1].argmax(axis=2)
    windows = np.stack([first, np.where(present.any(axis=2), last, first)], axis=-1)
    n = int(np.diff(windows).max())
    own = np.zeros((n_s, n_l, basis.n_max, n))
    for s, l in np.ndindex(n_s, n_l):
        a, b = windows[s, l]
        own[s, l, :, : b - a] = C[s, l, :, a:b]
    same = (own == own[0]).all() and (np.diff(windows) == n).all()
    plain = basis.table[0, :, :, : n_l * basis.n_max].reshape(*basis.table.shape[1:3], n_l, basis.n_max)
    tables = [np.einsum("kplm,lmn->kpln", plain, matrix, optimize=True) for matrix in (own[:1] if same else own)]
    return basis._replace(table=padded([table.reshape(*plain.shape[:2], -1) for table in tables]), n_max=n, windows=windows)


def channel_moments(X: np.ndarray, n_channels: int, l_max: int) -> np.ndarray:
    """Second moments Σ_i Σ_m c_{alm} c_{blm} (l_max + 1, n_channels, n_channels), which plain power spectra X already are."""
    l = np.arange(l_max + 1)[:, None]
    packed = X.sum(axis=0).reshape(l_max + 1, -1) / np.sqrt(8 * np.pi**2 / (2 * l + 1))
    a, b = np.triu_indices(n_channels)
    moments = np.zeros((l_max + 1, n_channels, n_channels))
    moments[:, a, b] = packed / np.where(a == b, 1.0, np.sqrt(2.0))
    moments[:, b, a] = moments[:, a, b]
    return moments


def leading_vectors(moments: np.ndarray, k: int) -> np.ndarray:
    """Eigenvectors (..., n, k) of the k largest eigenvalues of symmetric matrices; the largest entry of each is positive."""
    vectors = np.linalg.eigh(moments)[1][..., ::-1][..., :k]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=-2)[..., None, :], axis=-2)
    return np.ascontiguousarray(vectors * np.sign(largest))
