"""Dense factorisations by cuSOLVER; same names and signatures as `backends.cpu.dense`, nothing is overwritten but K of `cholesky`."""

from __future__ import annotations

import cupy
import cupyx
import numpy as np
from cupyx.scipy.linalg import solve_triangular as _solve_triangular

from soapkrr.backends.cpu import dense as cpu


def triangle(rows):
    """R of the QR decomposition of ``rows`` (m, k), min(m, k) × k, upper triangular."""
    return cupy.linalg.qr(rows, mode="r")


def update(R, rows):
    """R of the QR decomposition of [R; rows], R (k, k) upper triangular."""
    return triangle(cupy.concatenate([R, rows]))


def solve_triangular(T, B, *, lower: bool = False, transposed: bool = False):
    """T⁻¹B, or T⁻ᵀB."""
    return _solve_triangular(T, B, lower=lower, trans=int(transposed))


def inverse_condition(R) -> float:
    """Estimated reciprocal condition number of an upper triangle, 1-norm; by LAPACK, cuSOLVER has no such routine."""
    return cpu.inverse_condition(R.get())


def inverse_triangle(R):
    """R⁻¹ of an upper triangle."""
    return solve_triangular(R, cupy.eye(len(R)))


def times_triangle(A, T):
    """A T for an upper triangle T; a general product, which a GPU does as fast."""
    return A @ T


def inverse_from_cholesky(L):
    """Lower triangle of (L Lᵀ)⁻¹."""
    half = solve_triangular(L, cupy.eye(len(L)), lower=True)
    return cupy.tril(half.T @ half)


def cholesky(K, threads: int | None = None, panel: int = 0):
    """Lower triangular L with L Lᵀ = K, in place of K; ``threads`` and ``panel`` are the CPU's.

    Raises
    ------
    np.linalg.LinAlgError : K is not positive definite to working precision.
    """
    with cupyx.errstate(linalg="raise"):
        K[...] = cupy.linalg.cholesky(K)
    if not bool(cupy.isfinite(cupy.diagonal(K)).all()):
        raise np.linalg.LinAlgError("the matrix is not positive definite")
    return K
