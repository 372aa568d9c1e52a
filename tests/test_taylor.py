"""The helper that tests derivatives: it accepts right ones and notices errors far below a percent."""

import numpy as np
import pytest
from taylor import remainder_slope

CASES = {
    "exp": (lambda t: np.exp(0.3 + t), np.exp(0.3)),
    "vector": (lambda t: np.array([np.sin(1 + t), t**2, 5.0]), np.array([np.cos(1), 0.0, 0.0])),
    "matrix": (lambda t: np.outer([1, 1 + t], [np.cos(t), 2 + t]), np.array([[0.0, 1.0], [1.0, 3.0]])),
    "on a large constant": (lambda t: 4000.0 + np.exp(t), 1.0),
    "linear": (lambda t: 2.0 - 3.0 * t, -3.0),
    "constant": (lambda t: np.full(3, 0.7), np.zeros(3)),
    "zero": (lambda t: np.zeros(2), np.zeros(2)),
    "small curvature": (lambda t: np.sin(2 * t + 1e-3), 2 * np.cos(1e-3)),
}


@pytest.mark.parametrize("case", CASES)
def test_right_derivatives_pass(case):
    f, derivative = CASES[case]
    assert abs(remainder_slope(f, derivative) - 2) < 0.05


@pytest.mark.parametrize("error", [1e-4, -1e-3, 1e-2, 0.5, -1.0])
@pytest.mark.parametrize("case", ["exp", "vector", "matrix", "linear", "constant", "zero", "small curvature"])
def test_wrong_derivatives_fail(case, error):
    f, derivative = CASES[case]
    assert abs(remainder_slope(f, derivative + error) - 2) > 0.05
