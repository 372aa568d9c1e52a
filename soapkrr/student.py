"""Student's t law of errors whose squared scale is a sum of parts: outliers pull less at it than at a Gaussian's.

−log p(e | s²) = ½ log s² + ½ (ν + 1) log(1 + e²/(ν s²)) + constant (Lange, Little and Taylor 1989, doi 10.1080/01621459.1989.10478852).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

#: Degrees of freedom ν.
TAIL = 4.0


def student_loss(squares: np.ndarray, variance: np.ndarray) -> tuple[float, np.ndarray]:
    """−log likelihood of squared errors under Student's t law of squared scale ``variance``, and its slope by the variance."""
    variance = np.broadcast_to(variance, squares.shape) + 1e-24
    ratio = squares / variance
    value = float(np.sum(0.5 * np.log(variance) + 0.5 * (TAIL + 1) * np.log1p(ratio / TAIL)))
    return value, (0.5 - 0.5 * (TAIL + 1) * (ratio / TAIL) / (1 + ratio / TAIL)) / variance


def student_variance(squares: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Squared scales (n,) of highest likelihood of squared errors (n,): Σ_j a_j parts_j with a_j ≥ 0, and a little beside.

    parts (n, m), not negative. The likelihood has several maxima: the best of those reached from all parts and from each alone counts.
    """
    typical = max(float(np.median(squares)), 1e-36)
    unit = np.maximum(np.median(parts, axis=0), 1e-12 * max(float(np.median(parts)), 1e-30))
    columns, least = typical * parts / unit, 1e-3 * typical

    def loss(log_a):
        a = np.exp(log_a)
        value, slope = student_loss(squares, columns @ a + least)
        return value / len(squares), columns.T @ slope * a / len(squares)

    m = parts.shape[1]
    starts = [np.zeros(m), *(np.where(np.arange(m) == j, 0.0, -4.0) for j in range(m))]
    found = [minimize(loss, start, jac=True, bounds=[(-12.0, 8.0)] * m, method="L-BFGS-B") for start in starts]
    return columns @ np.exp(min(found, key=lambda result: result.fun).x) + least
