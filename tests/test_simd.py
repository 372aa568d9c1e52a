"""Vectors of the compiled loops: arithmetic lane by lane, and not a byte read or written beyond the part asked for."""

import numpy as np
import pytest
from numba.core.errors import TypingError

from soapkrr.backends.cpu.compile import jit
from soapkrr.backends.cpu.simd import WIDTH, broadcast, load, load_part, store, store_part, total

A, B = np.random.default_rng(0).normal(size=(2, WIDTH))


@jit
def _expression(a, b, x, out):
    u, v = load(a, 0), load(b, 0)
    w = u * v + x * u - v * x
    w += broadcast(x) * u
    w -= v
    w *= x
    store(out, 0, w)
    return total(w)


def test_arithmetic_is_lane_by_lane():
    out, x = np.empty(WIDTH), 0.7
    total_of_lanes = _expression(A, B, x, out)
    # Half a dozen operations on numbers of order one.
    np.testing.assert_allclose(out, x * (A * B + 2 * x * A - x * B - B), atol=1e-14)
    np.testing.assert_allclose(total_of_lanes, out.sum(), atol=1e-14)


@jit
def _copy(a, at, count, b, to):
    store_part(b, to, load_part(a, at, count) + 1.0, count)


@pytest.mark.parametrize("count", range(-1, WIDTH + 3))
def test_parts_end_where_they_should(count):
    a, b = np.arange(3.0 * WIDTH), np.zeros(3 * WIDTH)
    _copy(a, 5, count, b, 3)
    expected, n = np.zeros(3 * WIDTH), min(max(count, 0), WIDTH)
    expected[3 : 3 + n] = a[5 : 5 + n] + 1
    np.testing.assert_array_equal(b, expected)


@jit
def _part(a, count, out):
    store(out, 0, load_part(a, 0, count))


def test_lanes_that_are_not_read_are_zero():
    a, out = np.full(WIDTH, np.nan), np.empty(WIDTH)
    a[:3] = 1, 2, 3
    _part(a, 3, out)
    np.testing.assert_array_equal(out, [1, 2, 3] + [0] * (WIDTH - 3))


@pytest.mark.parametrize("array", [np.zeros((WIDTH, WIDTH)).T, np.zeros(2 * WIDTH)[::2], np.zeros(WIDTH, dtype=np.float32)])
def test_arrays_that_are_not_in_order_are_refused(array):
    with pytest.raises(TypingError, match="C-ordered array of float64"):
        _copy(array, 0, 1, np.zeros(WIDTH), 0)
