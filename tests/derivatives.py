"""What every descriptor's derivatives must satisfy on one structure, by order of convergence; used over the systems of `systems.py`."""

from __future__ import annotations

import numpy as np
from systems import distort
from taylor import assert_derivative

from soapkrr.structures import Batch, forces_and_strain


def environments(descriptor, atoms):
    batch = Batch.from_atoms([atoms])
    pairs = batch.pairs(descriptor.r_cut)
    return batch, pairs, descriptor.environments(batch, pairs)


def linear_energy(descriptor, atoms, w):
    """E = Σ_i w_i·X_i with its forces and strain derivative through `pullback`, in blocks of three atoms."""
    batch, pairs, env = environments(descriptor, atoms)
    gradient = np.full((len(pairs.j), 3), np.nan)
    for a in range(0, batch.n_atoms, 3):
        b = min(a + 3, batch.n_atoms)
        X, state = descriptor.compute(a, b, env.pairs)
        descriptor.pullback(a, b, env.pairs, X, state, w[a:b], gradient)
    return np.vdot(w, env.X), *forces_and_strain(batch, pairs, gradient)


def moved(atoms, u, t):
    moved = atoms.copy()
    moved.positions += t * u
    return moved


def strained(atoms, strain, t):
    return distort(atoms.copy(), np.eye(3) + t * strain)


def voigt_dot(derivative, strain):
    """Σ_ab ∂f/∂ε_ab ε_ab from six derivatives in Voigt order: off-diagonal strains occur twice."""
    return np.tensordot(derivative, [*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]], axes=(-1, 0))


def symmetric(rng):
    strain = rng.normal(size=(3, 3))
    return 0.5 * (strain + strain.T)


def feature_change(descriptor, atoms, u):
    """dX = Σ_a ∂X/∂r_a · u_a (n_atoms, n_features) from the Jacobian of every displaced atom, rows in shuffled order."""
    batch, pairs, env = environments(descriptor, atoms)
    n_pairs, n = len(pairs.j), batch.n_atoms
    rows = np.random.default_rng(0).permutation(n_pairs + n)
    out = np.full((n_pairs + n, 3, descriptor.n_features), np.nan)
    descriptor.jacobian(0, n, env, rows, out)
    out = out[rows]
    change = np.zeros_like(env.X)
    np.add.at(change, pairs.j, np.einsum("pbf,pb->pf", out[:n_pairs], u[pairs.i]))
    return change + np.einsum("abf,ab->af", out[n_pairs:], u)


def check_pullback(descriptor, atoms):
    rng = np.random.default_rng(1)
    w, u, strain = rng.normal(size=(len(atoms), descriptor.n_features)), rng.normal(size=(len(atoms), 3)), symmetric(rng)
    _, forces, derivative = linear_energy(descriptor, atoms, w)
    assert_derivative(lambda t: np.vdot(w, descriptor.create(moved(atoms, u, t))), -np.vdot(forces, u))
    assert_derivative(lambda t: np.vdot(w, descriptor.create(strained(atoms, strain, t))), voigt_dot(derivative[0], strain))


def check_jacobians(descriptor, atoms):
    rng = np.random.default_rng(2)
    u, strain = rng.normal(size=(len(atoms), 3)), symmetric(rng)
    assert_derivative(lambda t: descriptor.create(moved(atoms, u, t)), feature_change(descriptor, atoms, u))
    batch, _, env = environments(descriptor, atoms)
    out = np.full((batch.n_atoms, 6, descriptor.n_features), np.nan)
    descriptor.strain_jacobian(0, batch.n_atoms, env, out)
    assert_derivative(lambda t: descriptor.create(strained(atoms, strain, t)), np.einsum("ivf,v->if", out, voigt_dot(np.eye(6), strain)))


def check_invariance(descriptor, atoms):
    """Rotation, translation, order and wrapping change nothing but rounding."""
    rng = np.random.default_rng(3)
    X = descriptor.create(atoms)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = distort(atoms.copy(), rotation)
    turned.positions += rng.normal(scale=3, size=3)
    order = rng.permutation(len(atoms))
    wrapped = atoms.copy()
    wrapped.wrap()
    # Rounding of positions of tens of Å through smooth functions of slope up to the largest feature per Å.
    atol = 1e-12 * max(1.0, np.abs(X).max())
    np.testing.assert_allclose(descriptor.create(turned), X, rtol=0, atol=atol)
    np.testing.assert_allclose(descriptor.create(atoms[order]), X[order], rtol=0, atol=atol)
    np.testing.assert_allclose(descriptor.create(wrapped), X, rtol=0, atol=atol)
