"""The law of errors with heavy tails: its slope, and scales that outliers do not spoil."""

import numpy as np
from taylor import remainder_slope

from soapkrr.student import TAIL, student_loss, student_variance


def test_the_slope_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    squares, variance, u = rng.random(9), 0.5 + rng.random(9), rng.normal(size=9)
    slope = student_loss(squares, variance)[1] @ u
    assert abs(remainder_slope(lambda t: student_loss(squares, variance + t * u)[0], slope) - 2) < 0.05


def test_parts_are_found_beside_wrong_errors():
    rng = np.random.default_rng(1)
    part = rng.uniform(0.01, 4.0, size=4000)
    variance = 0.5 * part + 0.1
    squares = variance * rng.standard_t(TAIL, size=4000) ** 2
    squares[:40] = 1e6
    found = student_variance(squares, np.column_stack([part, np.ones(4000)]))
    assert np.abs(np.log(found / variance)).max() < 0.25
