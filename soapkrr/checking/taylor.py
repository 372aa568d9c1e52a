"""Order of the Taylor remainder: |f(x + hu) − f(x) − h f′(x)u| falls as h² where f′ belongs to f.

A tolerance on a difference quotient lets a derivative pass that is wrong by a percent. The slope of the remainder does not: any error e
of the derivative adds e·h, which takes over as h falls.
"""

from __future__ import annotations

import numpy as np

#: Steps tried, largest first; four successive halvings of them are fitted.
STEPS = 0.05 * 0.5 ** np.arange(26)

#: The smallest remainder fitted is this many times the rounding noise of f, so that noise moves the slope by less than 0.01.
ABOVE_NOISE = 500.0


def remainder_slope(f, derivative, steps: np.ndarray = STEPS) -> float:
    """Order of the Taylor remainder of t ↦ f(t) at t = 0, given f′(0); any shape. Exactly 2.0 for a function found to be linear.

    The five steps fitted are the smallest whose remainders stand clear of rounding: there cubic terms are negligible, and an error
    of the derivative as small as 1e-6 still shows. If no remainder stands clear, f is linear along the direction and f′ its slope.
    """
    f0, derivative = np.asarray(f(0.0), dtype=float), np.asarray(derivative, dtype=float)

    def remainder(h):
        # Both sides: the cubic term, which could cancel a small quadratic one, drops out.
        return float(np.linalg.norm([np.ravel(np.asarray(f(t)) - f0 - t * derivative) for t in (h, -h)]))

    # Steps so small that the true remainder vanishes show what rounding alone does; at least half a bit of the value.
    noise = max(*(remainder(k * 1e-11) for k in (1, 2, 3, 5, 7, 11, 13)), 1e-16 * np.linalg.norm(np.ravel(f0)), 1e-300)
    remainders = np.array([remainder(h) for h in steps])
    buried = np.flatnonzero(remainders < ABOVE_NOISE * noise)
    stop = buried[0] if len(buried) else len(steps)
    if stop < 5:
        # Never more than a few bits above noise at the largest step: linear. Otherwise fit what there is, and let it fail.
        return 2.0 if remainders[0] < ABOVE_NOISE * noise else _slope(steps[:5], remainders[:5])
    return _slope(steps[stop - 5 : stop], remainders[stop - 5 : stop])


def _slope(h: np.ndarray, r: np.ndarray) -> float:
    return float(np.polyfit(np.log(h), np.log(np.maximum(r, 1e-300)), 1)[0])
