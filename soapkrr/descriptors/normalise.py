"""Vectors on the unit sphere, x = y/|y|, and derivatives through it; a zero vector stays zero and has no derivative."""

from __future__ import annotations

import numpy as np


def normalised(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Y (n, d) over their norms, and the norms (n,)."""
    norms = np.sqrt(np.einsum("if,if->i", Y, Y))
    return Y * inverse(norms)[:, None], norms


def through_norm(V: np.ndarray, X: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """(V − x (x·V))/|y|, rows of V (n, ..., d) with x (n, d): a derivative of y becomes one of x, a gradient by x one by y."""
    rows = V.reshape(len(X), -1, X.shape[1])
    out = np.matmul(rows, X[:, :, None]) * -X[:, None, :]
    out += rows
    out *= inverse(norms)[:, None, None]
    return out.reshape(V.shape)


def inverse(norms: np.ndarray) -> np.ndarray:
    """1/|y|, zero where y is."""
    return np.where(norms > 0, 1.0 / np.where(norms > 0, norms, 1.0), 0.0)
