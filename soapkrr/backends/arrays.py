"""What the loops of every backend take: named groups of arrays, all of one kind (NumPy or CuPy)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PairArrays(NamedTuple):
    """Neighbour list in CSR form: pairs of atom i are offsets[i]:offsets[i+1]; ``kinds`` is every atom's species index."""

    offsets: np.ndarray
    neighbours: np.ndarray
    vectors: np.ndarray
    kinds: np.ndarray


class Basis(NamedTuple):
    """Expansion basis.

    Attributes
    ----------
    table (1 or n_species, n_knots, 6, (l_max + 1)·n_max or more) : radial functions, the same for all neighbours or one table for each
        species; rows are padded to whole lines of the cache.
    norm : of the harmonics.  weight (l_max + 1,) : of the power spectrum.  inv_r_cut : 1/Å.
    windows (n_species, l_max + 1, 2) : neighbours of species s add to channels ``windows[s, l, 0]`` up to ``windows[s, l, 1]``, one for
        each function of their table from the first on; with a single table, to as many channels whatever their species.
    """

    table: np.ndarray
    norm: np.ndarray
    weight: np.ndarray
    inv_r_cut: float
    l_max: int
    n_max: int
    windows: np.ndarray


class Channels(NamedTuple):
    """Channels that a power spectrum multiplies.

    Attributes
    ----------
    partners (l_max + 1, n_channels, 2) : channel a is paired with those from ``partners[l, a, 0]`` up to ``partners[l, a, 1]``; those that
        there are not for this l have no partners, and their coefficients are zero.
    contraction (l_max + 1, n_plain, n_channels) : C of c′[lm, q] = Σ_a c[lm, a] C[l, a, q]; None where the channels are the plain ones.
    """

    partners: np.ndarray
    contraction: np.ndarray | None


class Expansion(NamedTuple):
    """Expansions ``c[i, lm, a]`` in the channels that are multiplied, power spectra ``X[i, f]``, and ``norms[i]`` they were divided by."""

    c: np.ndarray
    X: np.ndarray
    norms: np.ndarray


class Functions(NamedTuple):
    """Symmetry functions as the loops take them.

    Attributes
    ----------
    g2 (n2, 2) η, R_s; g3 (n3,) κ.  eta (n_u,) distinct η of G4 and G5; zeta, lam (n_v,) distinct pairs.
    u, v (n4 + n5,) which η and which (ζ, λ) each angular function takes, the n4 of G4 first.
    radial_start (n_kinds,) first feature of a neighbour species; angular_start (n_kinds, n_kinds) of a pair of species.
    weight (n_kinds,).  table : f_c on knots as quintics, (n_knots, 6), over [0, r_cut].
    """

    g2: np.ndarray
    g3: np.ndarray
    eta: np.ndarray
    zeta: np.ndarray
    lam: np.ndarray
    u: np.ndarray
    v: np.ndarray
    n4: int
    radial_start: np.ndarray
    angular_start: np.ndarray
    weight: np.ndarray
    table: np.ndarray
    r_cut: float
