"""Jacobians of power spectra, plain and contracted, on a GPU, one block of threads per row: as `cpu.soap_jacobian`."""

from __future__ import annotations

import cupy
import numpy as np

from soapkrr.backends.gpu.compile import SHARED, launch
from soapkrr.backends.gpu.soap import THREADS, _sizes, expand_moved, features

#: Bytes of shared memory left to static arrays.
STATIC = 512


def jacobian(start, stop, pairs, basis, channels, expansion, rows, out):
    """∂X_i/∂r_a for every centre i that atom a (of ``start:stop``) moves, itself included; rows as in `cpu.soap_jacobian.jacobian`."""
    _pair_rows(start, stop, pairs, basis, channels, expansion, rows, out)
    moved = _moved(start, stop, pairs, basis, channels, 3)
    _moved_rows(start, moved, channels.partners, basis, expansion, rows[len(rows) - (stop - start) :], out)


def strain_jacobian(start, stop, pairs, basis, channels, expansion, out):
    """∂X_i/∂ε (Voigt order, 6 rows per centre) of atoms ``start:stop`` into ``out[i - start]``: Σ_j r_ij,a ∂X_i/∂r_ij,b."""
    moved = _moved(start, stop, pairs, basis, channels, 6)
    _moved_rows(start, moved, channels.partners, basis, expansion, cupy.arange(stop - start), out)


def _n_plain(channels) -> int:
    """Number of plain channels, those before the contraction."""
    return channels.partners.shape[1] if channels.contraction is None else channels.contraction.shape[1]


def _moved(start, stop, pairs, basis, channels, n_directions: int):
    """`expand_moved`, contracted where there is a contraction: dc[..., lm, a] C[l, a, q] for every l."""
    dc = expand_moved(start, stop, pairs, basis, _n_plain(channels), n_directions)
    if channels.contraction is None:
        return dc
    out = cupy.empty((*dc.shape[:-1], channels.contraction.shape[2]))
    for l, matrix in enumerate(channels.contraction):
        out[..., l**2 : (l + 1) ** 2, :] = dc[..., l**2 : (l + 1) ** 2, :] @ matrix
    return out


def _pair_rows(start, stop, pairs, basis, channels, expansion, rows, out):
    """The rows of `jacobian` that belong to pairs."""
    l_max, n_max = basis.l_max, basis.n_max
    partners, contraction = channels
    n_mixed, n_features = partners.shape[1], expansion.X.shape[1]
    a, b, l, starts, _ = features(partners, n_features)
    bytes_each = 8 * (4 * (2 * l_max + 1) + 2 * n_max + 6 * n_mixed)
    tile = min(l_max + 1, max(1, (SHARED - STATIC) // bytes_each))
    arrays = np.int64(start), np.int64(stop), *pairs, basis.table, *_sizes(basis.table.shape[1], basis.table.shape[0])
    norms = basis.windows, basis.norm, basis.weight
    numbers = float(basis.inv_r_cut), *_sizes(l_max, n_max, _n_plain(channels))
    mixing = (expansion.c if contraction is None else contraction), *_sizes(contraction is not None, n_mixed)
    launch(
        *("soap_jacobian", "pair_rows", len(rows) - (stop - start), THREADS),
        *(*arrays, *norms, *numbers, *mixing, a, b, l, starts, *_sizes(n_features, tile), *expansion, rows, out),
        shared=tile * bytes_each,
    )


def _moved_rows(start, moved, partners, basis, expansion, rows, out):
    """Rows of X along ``moved`` (n, n_directions, lm, n_mixed), of atoms from ``start``, into ``out[rows[i]]``."""
    n, n_directions, _, n_mixed = moved.shape
    a, b, l, *_ = features(partners, expansion.X.shape[1])
    launch(
        *("soap_jacobian", "moved_rows", n * n_directions, THREADS, np.int64(start), np.int32(n_directions), moved, *expansion),
        *(basis.weight, *_sizes(basis.l_max, n_mixed), a, b, l, np.int32(expansion.X.shape[1]), rows, out),
    )
