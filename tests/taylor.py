"""Derivatives are tested by order of convergence, by the package's own `checking.taylor`."""

from __future__ import annotations

import numpy as np

from soapkrr.checking.taylor import ABOVE_NOISE, STEPS, remainder_slope

__all__ = ["ABOVE_NOISE", "STEPS", "assert_derivative", "remainder_slope"]


def assert_derivative(f, derivative, steps: np.ndarray = STEPS) -> None:
    """Assert that the remainder is of second order within 0.05: f is a function of one step t, ``derivative`` is f′(0)."""
    slope = remainder_slope(f, derivative, steps)
    assert abs(slope - 2.0) < 0.05, f"Taylor remainder falls as h^{slope:.3f}, expected h^2: the derivative does not belong to the value"
