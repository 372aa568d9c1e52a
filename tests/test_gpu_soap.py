"""CUDA loops of the power spectrum, plain and compressed, against their numba twins."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from gpu_loops import assert_same
from systems import build

from soapkrr import SOAP, CompressedSOAP, Coupled, CoupledSum, WeightedSOAP, backends, element_embedding
from soapkrr.descriptors.environments import Environments
from soapkrr.structures import Batch


def soap(names, n_max=3, l_max=2, r_cut=3.0, **options):
    kind = CompressedSOAP if options else SOAP
    return kind(names, r_cut=r_cut, n_max=n_max, l_max=l_max, sigma=0.5, rbf="bessel", **options)


def assert_twins(cuda, descriptor, frames, start=0, stop=None):
    """Values, pull-back and Jacobians of atoms ``start:stop`` of a batch, on the device and on the CPU."""
    batch = Batch.from_atoms(frames)
    stop = batch.n_atoms if stop is None else stop
    env = descriptor.environments(batch)
    offsets, rng = env.pairs.offsets, np.random.default_rng(start)
    n_pairs, n, n_features = offsets[stop] - offsets[start], stop - start, descriptor.n_features
    gradient, rows = rng.normal(size=(n, n_features)), rng.permutation(n_pairs + n)
    X, state, pairs = backends.moved(cuda, (env.X, env.state, env.pairs))
    device = Environments(descriptor, batch, pairs, (X, state))

    ours, theirs = descriptor.compute(start, stop, env.pairs), descriptor.compute(start, stop, device.pairs)
    assert isinstance(theirs[0], cuda.ndarray)
    for a, b in zip((theirs[0], *theirs[1]), (ours[0], *ours[1]), strict=True):
        assert_same(a, b)
    out, there = np.full((len(env.pairs.neighbours), 3), 7.0), cuda.full((len(env.pairs.neighbours), 3), 7.0)
    descriptor.pullback(start, stop, env.pairs, *ours, gradient, out)
    descriptor.pullback(start, stop, device.pairs, *theirs, cuda.asarray(gradient), there)
    assert_same(there, out)
    direction = rng.normal(size=env.pairs.vectors.shape)
    along = descriptor.jvp(start, stop, device.pairs, *theirs, cuda.asarray(direction))
    assert_same(along, descriptor.jvp(start, stop, env.pairs, *ours, direction))
    out, there = np.empty((len(rows), 3, n_features)), cuda.empty((len(rows), 3, n_features))
    descriptor.jacobian(start, stop, env, rows, out)
    descriptor.jacobian(start, stop, device, cuda.asarray(rows), there)
    assert_same(there, out)
    out, there = np.empty((n, 6, n_features)), cuda.empty((n, 6, n_features))
    descriptor.strain_jacobian(start, stop, env, out)
    descriptor.strain_jacobian(start, stop, device, there)
    assert_same(there, out)


@pytest.mark.parametrize("n_max, l_max", [(1, 0), (3, 2), (5, 1)])
def test_loops_of_an_alloy_equal_those_of_the_cpu(cuda, n_max, l_max):
    assert_twins(cuda, soap(["O", "Sr", "Ti"], n_max, l_max), [build("alloy")])


@pytest.mark.parametrize("n_max, l_max", [(10, 8), (32, 20)])
def test_large_bases_fit_into_shared_memory(cuda, n_max, l_max):
    assert_twins(cuda, soap(["Cl", "H"], n_max, l_max, r_cut=4.0), [build("dimer")])


def test_more_neighbours_than_are_held_at_once(cuda):
    descriptor = soap(["C", "Si"], 3, 2, r_cut=4.5)
    frame = build("primitive")
    assert np.diff(Batch.from_atoms([frame]).pairs(4.5).offsets).min() > backends.of(cuda.empty(1)).soap.CHUNK
    assert_twins(cuda, descriptor, [frame])


def test_isolated_atoms_and_species_that_do_not_occur(cuda):
    frames = [build("atom"), build("dimer"), build("atom"), Atoms("HClH", positions=[[0, 0, 0], [1.2, 0.1, 0], [0.3, 1.1, 0.2]])]
    assert_twins(cuda, soap(["H", "Cl", "Ar", "Xe"]), frames)


@pytest.mark.parametrize("start, stop", [(0, 1), (1, 4), (3, 7), (9, 10), (5, 5)])
def test_blocks_of_a_batch(cuda, start, stop):
    frames = [build("atom"), build("mixed"), build("alloy")]
    assert_twins(cuda, soap(["Ar", "B", "N", "O", "Sr", "Ti"], 2, 1, 2.5), frames, start, stop)


@pytest.mark.parametrize("compression", ["mu2", "mu1nu1", "crossover"])
def test_compressed_channels(cuda, compression):
    assert_twins(cuda, soap(["O", "Sr", "Ti"], compression=compression), [build("alloy")], 1, 4)


def test_contraction_of_species_and_radial_functions(cuda):
    contraction = np.random.default_rng(0).normal(size=(3, 9, 4))
    assert_twins(cuda, soap(["O", "Sr", "Ti"], contraction=contraction), [build("alloy")], 1, 4)


@pytest.mark.parametrize("option", ["own channels", "fewer at high l", "common channels"])
def test_contractions_in_the_radial_functions(cuda, option):
    names, rng = ["O", "Sr", "Ti"], np.random.default_rng(0)
    C = rng.normal(size=(3, 9, 3))
    if option != "common channels":  # one or two functions of each species
        C = np.zeros((3, 9, 5))
        for s, (a, b) in enumerate(((0, 1), (1, 3), (3, 5))):
            C[:, 3 * s : 3 * s + 3, a:b] = rng.normal(size=(3, 3, b - a))
    if option == "fewer at high l":
        C[2, :, [1, 4]] = 0.0
        C[1, :, 3] = 0.0
    descriptor = soap(names, contraction=C)
    assert descriptor._contraction is None
    assert_twins(cuda, descriptor, [build("alloy")], 1, 4)


def test_weighted_channels(cuda):
    names, weights = ["O", "Sr", "Ti"], np.random.default_rng(0).uniform(0.5, 2.0, (3, 3, 9))
    assert_twins(cuda, WeightedSOAP(**soap(names).get_params(deep=False), weights=weights), [build("alloy")], 1, 4)


@pytest.mark.parametrize("kind", [Coupled, CoupledSum])
def test_coupled_centres(cuda, kind):
    names = ["O", "Sr", "Ti"]
    inner = soap(names, embedding=element_embedding(names, 2))
    assert_twins(cuda, kind(inner, element_embedding(names, 3)), [build("alloy")], 1, 4)


def test_tables_that_do_not_fit_into_shared_memory_come_in_parts(cuda, monkeypatch):
    loops = backends.of(cuda.empty(1))
    for module in (loops.soap, loops.soap_jacobian):
        monkeypatch.setattr(module, "SHARED", loops.soap_jacobian.STATIC + 1000)
    monkeypatch.setattr(loops.soap, "TARGET", 1000)
    assert_twins(cuda, soap(["O", "Sr", "Ti"], 3, 3), [build("alloy")], 1, 4)


def test_environments_without_density_have_no_gradient(cuda):
    """A spectrum of zero length: everything that is divided by it is zero, not NaN."""
    loops, c, partners = backends.of(cuda.empty(1)).soap, cuda.zeros((1, 4, 2)), cuda.asarray([[[0, 2], [1, 2]]] * 2)
    X, norms, H, weight = cuda.empty((1, 6)), cuda.empty(1), cuda.empty((1, 4, 2)), cuda.ones(2)
    loops.power_spectrum(c, partners, weight, 1, X, norms)
    loops.power_spectrum_pullback(cuda.ones((1, 6)), X, norms, c, partners, weight, 1, H)
    assert not X.get().any() and not norms.get().any() and not H.get().any()
