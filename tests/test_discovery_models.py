"""Every estimator on every kernel and every descriptor, all found by discovery: derivatives and invariances of what it predicts."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from discovery import descriptors, estimators, example, kernels
from systems import distort
from taylor import assert_derivative

from soapkrr.estimators import Potential

NOISE = {"energy": 0.01, "forces": 0.05, "stress": 0.01}


def _cells(n, seed=0):
    """Rattled and strained two-atom cells with Lennard-Jones energies, forces and stresses."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Si", "hcp", a=2.6 + 0.1 * rng.standard_normal(), c=4.2)
        atoms.positions += 0.15 * rng.standard_normal(atoms.positions.shape)
        probe = atoms.copy()
        probe.calc = LennardJones(sigma=2.3, epsilon=0.3, rc=4.0, smooth=True)
        results = {name: probe.calc.get_property(name, probe) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def _potentials():
    return [kind for kind in estimators() if issubclass(kind, Potential)]


@pytest.fixture(params=descriptors(), ids=lambda kind: kind.__name__)
def descriptor(request):
    return example(request.param)


@pytest.fixture(params=kernels(), ids=lambda kind: kind.__name__)
def kernel(request):
    return example(request.param)


@pytest.fixture(params=_potentials(), ids=lambda kind: kind.__name__)
def model(request, descriptor, kernel):
    estimator = request.param(descriptor, kernel).set_params(baseline={"Si": 0.0}, threads=1)
    known = estimator.get_params(deep=False)
    # Not every descriptor is normalised: measured in the kernel's own size, so that no matrix is singular to working precision.
    size = kernel.diagonal(descriptor.create(_cells(3))).mean()
    wanted = {"noise": NOISE, "n_sparse": 6, "signal": 0.5 / np.sqrt(size), "alpha": 1e-4 * size}
    settings = {name: value for name, value in wanted.items() if name in known}
    return estimator.set_params(**settings).fit(_cells(3))


def test_forces_and_stress_belong_to_the_energy_and_turn_with_the_axes(model):
    atoms, rng = _cells(1, seed=5)[0], np.random.default_rng(1)
    p = model.predict(atoms)
    u, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)

    def moved(t):
        other = atoms.copy()
        other.positions += t * u
        return model.predict(other).energy[0]

    def strained(t):
        return model.predict(distort(atoms.copy(), np.eye(3) + t * strain)).energy[0]

    assert_derivative(moved, -np.vdot(p.forces[0], u))
    voigt = np.array([*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]])
    assert_derivative(strained, atoms.get_volume() * p.stress[0] @ voigt)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q = model.predict(distort(atoms.copy(), turn))
    # Rounding of the descriptors, amplified by the condition number of some tens of observations.
    scale = max(1.0, np.abs(p.forces[0]).max())
    np.testing.assert_allclose(q.energy, p.energy, atol=1e-7 * max(1.0, abs(p.energy[0])))
    np.testing.assert_allclose(q.forces[0], p.forces[0] @ turn.T, atol=1e-7 * scale)
    np.testing.assert_allclose(p.forces[0].sum(axis=0), 0, atol=1e-9 * scale)
