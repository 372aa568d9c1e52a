"""CUDA loops of a descriptor against their numba twins, block by block of atoms."""

from __future__ import annotations

from functools import partial

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.environments import Environments
from soapkrr.structures import Batch

#: Largest difference, relative to the largest number of the array.
TOLERANCE = 1e-12


def assert_same(theirs, ours):
    """Device array and NumPy array agree; neither has a number that was not written."""
    scale = max(np.abs(ours).max(initial=0.0), 1e-300)
    np.testing.assert_allclose(backends.host(theirs) / scale, ours / scale, rtol=0, atol=TOLERANCE)


def assert_twins(cuda, descriptor, frames, start=0, stop=None):
    """Values, pull-back and Jacobians of atoms ``start:stop`` of a batch, on the device and on the CPU."""
    batch = Batch.from_atoms(frames)
    stop = batch.n_atoms if stop is None else stop
    env = descriptor.environments(batch)
    offsets, rng = env.pairs.offsets, np.random.default_rng(start)
    n_pairs, n, F = offsets[stop] - offsets[start], stop - start, descriptor.n_features
    gradient, rows = rng.normal(size=(n, F)), rng.permutation(n_pairs + n)
    there = partial(backends.moved, cuda)
    device = Environments(descriptor, batch, there(env.pairs), (there(env.X), ()))

    X, _ = descriptor.compute(start, stop, device.pairs)
    assert isinstance(X, cuda.ndarray)
    assert_same(X, env.X[start:stop])
    runs = {
        (len(env.pairs.neighbours), 3): lambda e, on, out: descriptor.pullback(start, stop, e.pairs, None, (), on(gradient), out),
        (len(rows), 3, F): lambda e, on, out: descriptor.jacobian(start, stop, e, on(rows), out),
        (n, 6, F): lambda e, on, out: descriptor.strain_jacobian(start, stop, e, out),
    }
    for shape, run in runs.items():
        ours, theirs = np.full(shape, 7.0), cuda.full(shape, 7.0)  # what belongs to other atoms must stay as it is
        run(env, lambda array: array, ours)
        run(device, there, theirs)
        assert_same(theirs, ours)
