"""What more observations would take away from the covariance of functionals."""

from __future__ import annotations

import numpy as np

from soapkrr import linear


class Explained:
    """The part of a covariance of functionals that observations can take away, and how much those of noise σ do.

    Kept as rows H with covariance H Hᵀ, of processes of finitely many features, or as the matrix.
    """

    def __init__(self, covariance: np.ndarray | None = None, rows: np.ndarray | None = None):
        self._matrix, self._rows = covariance, rows

    def block(self, left, right) -> np.ndarray:
        """Covariance of functionals ``left`` with those of ``right`` (slices or arrays of numbers)."""
        return self._matrix[left][:, right] if self._rows is None else self._rows[left] @ self._rows[right].T

    def observed(self, some, sigma: np.ndarray) -> Explained:
        """After the functionals ``some`` were observed with noise sigma."""
        if self._rows is None:
            cross = self.block(slice(None), some)
            L = np.linalg.cholesky(self.block(some, some) + np.diag(sigma**2))
            half = linear.forward(L, cross.T)
            return Explained(self._matrix - half.T @ half)
        scaled = self._rows[some] / sigma[:, None]
        L = np.linalg.cholesky(np.eye(self._rows.shape[1]) + scaled.T @ scaled)
        return Explained(rows=linear.forward(L, self._rows.T).T)
