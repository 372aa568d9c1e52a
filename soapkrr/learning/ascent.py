"""Ascent by adaptive moments, which remembers the best point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Decay of the means of gradients and of their squares.
MOMENTUM, SECOND = 0.9, 0.95

#: Part of the root mean square of all gradients that is added to that of each: parameters that matter little move little.
FLOOR = 0.3

#: Last part of the steps in which steps become shorter, and the number of last points that are averaged.
FADING, AVERAGED = 0.3, 5


def ascend(slope: Callable[[np.ndarray], np.ndarray | None], x: np.ndarray, steps: int, rate: float) -> np.ndarray:
    """Mean of the last points of an ascent along ``slope(x)``; ends early, before the point where that is None.

    Steps are those of Kingma and Ba 2015 (arXiv:1412.6980), of a length that falls to zero at the end, with `FLOOR`.
    """
    first, second, points = np.zeros_like(x), np.zeros_like(x), [x]
    for k in range(1, steps + 1):
        g = slope(x)
        if g is None:
            points = points[:-1] or points
            break
        first, second = MOMENTUM * first + (1 - MOMENTUM) * g, SECOND * second + (1 - SECOND) * g * g
        size = np.sqrt(second / (1 - SECOND**k))
        direction = first / (1 - MOMENTUM**k) / np.maximum(size + FLOOR * np.sqrt(np.mean(size**2)), 1e-300)
        x = x + rate * min(1.0, (steps - k + 1) / (FADING * steps)) * direction
        points.append(x)
    return np.mean(points[-AVERAGED:], axis=0)
