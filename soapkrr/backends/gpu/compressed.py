"""Jacobians of power spectra whose channels were contracted, on a GPU: as `cpu.compressed`."""

from __future__ import annotations

import cupy

from soapkrr.backends.gpu.soap import expand_moved, moved_rows, pair_rows


def jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, rows, out):
    """∂X_i/∂r_a as `soap.jacobian`, for contracted expansions ``c[i, lm, q]``."""
    pair_rows(start, stop, pairs, basis, contraction, partners, c, X, norms, rows, out)
    moved = _contracted(expand_moved(start, stop, pairs, basis, contraction.shape[1], 3), contraction)
    moved_rows(start, moved, partners, basis, c, X, norms, rows[len(rows) - (stop - start) :], out)


def strain_jacobian(start, stop, pairs, basis, contraction, partners, c, X, norms, out):
    """∂X_i/∂ε as `soap.strain_jacobian`, for contracted expansions ``c[i, lm, q]``."""
    moved = _contracted(expand_moved(start, stop, pairs, basis, contraction.shape[1], 6), contraction)
    moved_rows(start, moved, partners, basis, c, X, norms, cupy.arange(stop - start), out)


def _contracted(dc, contraction):
    """dc[..., lm, a] C[l, a, q] for every l."""
    out = cupy.empty((*dc.shape[:-1], contraction.shape[2]))
    for l, matrix in enumerate(contraction):
        out[..., l**2 : (l + 1) ** 2, :] = dc[..., l**2 : (l + 1) ** 2, :] @ matrix
    return out
