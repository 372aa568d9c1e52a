"""Dense factorisations by LAPACK; `backends.gpu.dense` has the same by cuSOLVER."""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, lapack
from scipy.linalg import solve_triangular as _solve_triangular

from soapkrr.threads import thread_map

#: Columns of a panel of the QR update, rows of one of the Cholesky decomposition.
PANEL, BLOCK = 64, 512


def triangle(rows: np.ndarray) -> np.ndarray:
    """R of the QR decomposition of ``rows`` (m, k), min(m, k) × k, upper triangular; Fortran-ordered ``rows`` are overwritten."""
    lwork = int(lapack.dgeqrf_lwork(*rows.shape)[0])
    qr, _, _, info = lapack.dgeqrf(rows, lwork=lwork, overwrite_a=1)
    _check(info, "dgeqrf")
    return np.triu(qr[: rows.shape[1]])


def update(R: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """R of the QR decomposition of [R; rows], R (k, k) upper triangular; Fortran-ordered arguments are overwritten.

    Rows known to form a triangle themselves, zero below the diagonal, cost a third.
    """
    k = R.shape[1]
    trapezoid = len(rows) if len(rows) <= k and not rows[1:, 0].any() and _is_trapezoid(rows) else 0
    R, _, _, info = lapack.dtpqrt(trapezoid, min(PANEL, k), R, rows, overwrite_a=1, overwrite_b=1)
    _check(info, "dtpqrt")
    return R


def _is_trapezoid(rows: np.ndarray) -> bool:
    return not np.tril(rows[:, : len(rows)], -1).any()


def solve_triangular(T: np.ndarray, B: np.ndarray, *, lower: bool = False, transposed: bool = False) -> np.ndarray:
    """T⁻¹B, or T⁻ᵀB."""
    return _solve_triangular(T, B, lower=lower, trans=int(transposed), check_finite=False)


def inverse_condition(R: np.ndarray) -> float:
    """Estimated reciprocal condition number of an upper triangle, 1-norm."""
    return float(lapack.dtrcon(R)[0])


def inverse_triangle(R: np.ndarray) -> np.ndarray:
    """R⁻¹ of an upper triangle."""
    return lapack.dtrtri(R)[0]


def times_triangle(A: np.ndarray, T: np.ndarray) -> np.ndarray:
    """A T for an upper triangle T, at half the operations of a product."""
    if A.flags.f_contiguous and not A.flags.c_contiguous:
        return blas.dtrmm(1.0, T.T, A, side=1, lower=1, trans_a=1)
    return blas.dtrmm(1.0, T.T, A.T, lower=1).T


def inverse_from_cholesky(L: np.ndarray) -> np.ndarray:
    """Lower triangle of (L Lᵀ)⁻¹."""
    return np.tril(lapack.dpotri(np.asfortranarray(L), lower=1, overwrite_c=1)[0])


def cholesky(K: np.ndarray, threads: int | None = None, panel: int = BLOCK) -> np.ndarray:
    """Lower triangular L with L Lᵀ = K, in place of K (its upper triangle keeps old values), by panels shared among threads.

    Raises
    ------
    np.linalg.LinAlgError : K is not positive definite to working precision.
    """
    n = len(K)
    for start in range(0, n, panel):
        stop = min(start + panel, n)
        K[start:stop, start:stop], info = lapack.dpotrf(K[start:stop, start:stop], lower=1, clean=1)
        if info:
            raise np.linalg.LinAlgError(f"leading minor {start + info} of {n} is not positive definite")
        corner = K[start:stop, start:stop]

        def below(i, start=start, stop=stop, corner=corner):
            rows = K[i : i + panel, start:stop]
            rows[:] = solve_triangular(corner, rows.T, lower=True).T

        def trailing(ij, start=start, stop=stop):
            i, j = ij
            K[i : i + panel, j : j + panel] -= K[i : i + panel, start:stop] @ K[j : j + panel, start:stop].T

        rest = range(stop, n, panel)
        for _ in thread_map(below, rest, threads):
            pass
        for _ in thread_map(trailing, [(i, j) for i in rest for j in range(stop, i + 1, panel)], threads):
            pass
    return K


def _check(info: int, routine: str) -> None:
    if info:
        raise ArithmeticError(f"LAPACK {routine} failed with info={info}.")
