"""CUDA loops of kernels, design rows, selection and pair sums against their twins on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_loops import assert_same
from systems import build

from soapkrr import backends
from soapkrr.backends import cpu
from soapkrr.structures import Batch, forces_and_strain


@pytest.fixture
def loops(cuda):
    """The module of the loops for arrays of the device."""
    return backends.of(cuda.empty(1)).regression


@pytest.mark.parametrize("zeta", [1, 2, 4, 1.5, 2.7])
@pytest.mark.parametrize("shape", [(3, 5), (4, 300)])
def test_dot_product_energies(cuda, loops, zeta, shape):
    rng = np.random.default_rng(0)
    U, weights, energies = rng.uniform(-0.2, 1, size=shape), rng.normal(size=shape[1]), np.empty(shape[0])
    there, out = cuda.asarray(U), cuda.empty(shape[0])
    loops.dot_product_energy(there, cuda.asarray(weights), float(zeta), out)
    cpu.regression.dot_product_energy(U, weights, float(zeta), energies)
    assert_same(out, energies)
    assert_same(there, U)


@pytest.mark.parametrize("zeta", [1, 2, 4, 1.5, 2.7, 17])
@pytest.mark.parametrize("shape", [(3, 5), (4, 300)])
def test_dot_product_of_observations(cuda, loops, zeta, shape):
    rng = np.random.default_rng(0)
    U, V, weights, energies = rng.uniform(0.01, 1, size=shape), rng.normal(size=shape), rng.normal(size=shape[1]), np.empty(shape[0])
    U[:, 1] = 0.0
    V[:, 1] = 0.0
    there, out = backends.moved(cuda, [U, V]), cuda.empty(shape[0])
    loops.dot_product_observed(*there, cuda.asarray(weights), float(zeta), out)
    cpu.regression.dot_product_observed(U, V, weights, float(zeta), energies)
    assert_same(out, energies)
    assert_same(there[0], U)
    assert_same(there[1], V)


@pytest.mark.parametrize("k, m", [(3, 40), (6, 7), (1, 300)])
def test_scattered_rows(cuda, loops, k, m):
    """Targets out of order, some without entries; what is there is added to."""
    rng = np.random.default_rng(1)
    centre, target = rng.integers(0, 5, size=13), rng.choice([0, 1, 3, 5], size=13)
    slope, out = rng.normal(size=(5, m)), rng.normal(size=(6, k, m))
    for name, products in (("scatter_rows", rng.normal(size=(13, k, m))), ("scatter_norms", rng.normal(size=(13, k)))):
        arguments = products, slope, centre, target, out
        there = backends.moved(cuda, arguments)
        getattr(loops, name)(*there)
        getattr(cpu.regression, name)(*arguments)
        assert_same(there[-1], out)


@pytest.mark.parametrize("n", [1, 2, 17, 60])
def test_farthest_points_are_those_of_the_cpu(cuda, loops, n):
    X = np.random.default_rng(2).normal(size=(60, 5))
    X[40:50] = X[:10]
    picked, gaps = np.empty(n, dtype=np.int64), np.empty(n)
    there = cuda.empty(n, dtype=np.int64), cuda.empty(n)
    count = cpu.regression.farthest_points(X, 3, n, picked, gaps)
    assert loops.farthest_points(cuda.asarray(X), 3, n, *there) == count == min(n, 50)
    np.testing.assert_array_equal(there[0].get()[:count], picked[:count])
    assert_same(there[1][1:count], gaps[1:count])


def test_forces_and_strain_of_a_batch(cuda, loops):
    batch = Batch.from_atoms([build("atom"), build("alloy"), build("primitive"), build("mixed"), build("atom")])
    pairs = batch.pairs(4.0)
    gradient = np.random.default_rng(3).normal(size=pairs.vectors.shape)
    forces, strain = cuda.empty((batch.n_atoms, 3)), cuda.empty((len(batch), 6))
    loops.pair_sums(*map(cuda.asarray, (pairs.offsets, pairs.j, pairs.vectors, batch.offsets, gradient)), forces, strain)
    for theirs, ours in zip((forces, strain), forces_and_strain(batch, pairs, gradient), strict=True):
        assert_same(theirs, ours)
