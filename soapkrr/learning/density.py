"""Predictive density of structures left out, log p(y_i | all others), and its gradient by the covariance of all observations.

With P = (K + Σ)⁻¹, a = P y and P_ii the block of structure i, its labels are predicted without it with errors e_i = P_ii⁻¹ a_i and
covariance P_ii⁻¹ (Rasmussen and Williams 2006, section 5.4.2): Σ_i log p(y_i | y_−i) = −½ Σ_i [a_iᵀ P_ii⁻¹ a_i − log|P_ii| + d_i log 2π].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from soapkrr import linear
from soapkrr.backends.cpu import dense


class Density(NamedTuple):
    """Σ log p(y_i | y_−i), ∂/∂C (n, n), symmetric, where it is asked for, and the errors (n,), label less prediction."""

    value: float
    gradient: np.ndarray | None
    errors: np.ndarray


def leave_out_density(C: np.ndarray, y: np.ndarray, blocks: Sequence[slice], slope: bool = True) -> Density:
    """Of labels y (n,) with covariance C (n, n), noise included, that are left out block by block; C is overwritten.

    Raises
    ------
    np.linalg.LinAlgError : C is not positive definite to working precision.
    """
    P = dense.inverse_from_cholesky(linear.cholesky(C, 1))
    P += np.tril(P, -1).T
    a = P @ y
    value, errors, WP = -0.5 * len(y) * np.log(2 * np.pi), np.empty_like(y), np.empty_like(P) if slope else None
    for at in blocks:
        own = np.linalg.inv(P[at, at])
        errors[at] = own @ a[at]
        value += 0.5 * (np.linalg.slogdet(P[at, at])[1] - a[at] @ errors[at])
        if WP is not None:
            WP[at] = 0.5 * (np.outer(errors[at], errors[at]) + own) @ P[at]
    if WP is None:
        return Density(float(value), None, errors)
    # da = −P dC a and dP_ii = −[P dC P]_ii: eᵀ P dC a − tr(W P dC P), W of the blocks ½ (e eᵀ + P_ii⁻¹).
    G = np.outer(P @ errors, a) - P @ WP
    return Density(float(value), 0.5 * (G + G.T), errors)
