"""What holds for every descriptor: derivatives belong to values, and nothing depends on the choice of axes, origin or order."""

from __future__ import annotations

import numpy as np
from derivatives import moved
from systems import distort
from taylor import assert_derivative

from soapkrr.structures import Batch, forces_and_strain


def environments(descriptor, atoms):
    batch = Batch.from_atoms([atoms])
    return batch, batch.pairs(descriptor.r_cut), descriptor.environments(batch)


def voigt(strain):
    """ε in Voigt order with off-diagonal components doubled: Σ_v (∂f/∂ε)_v voigt(ε)_v is the directional derivative."""
    return np.array([*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]])


def feature_change(descriptor, atoms, u):
    """dX = Σ_a ∂X/∂r_a · u_a (n_atoms, n_features) from the Jacobian of every displaced atom, three atoms at a time."""
    batch, pairs, env = environments(descriptor, atoms)
    change = np.zeros_like(env.X)
    for a in range(0, batch.n_atoms, 3):
        b = min(a + 3, batch.n_atoms)
        here = slice(pairs.offsets[a], pairs.offsets[b])
        n_pairs = here.stop - here.start
        # Rows in any order the caller likes.
        rows = np.random.default_rng(a).permutation(n_pairs + b - a)
        out = np.full((len(rows), 3, descriptor.n_features), np.nan)
        descriptor.jacobian(a, b, env, rows, out)
        np.add.at(change, pairs.j[here], np.einsum("pbf,pb->pf", out[rows[:n_pairs]], u[pairs.i[here]]))
        change[a:b] += np.einsum("abf,ab->af", out[rows[n_pairs:]], u[a:b])
    return change


def assert_jacobian(descriptor, atoms, seed=0):
    u = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    assert_derivative(lambda t: descriptor.create(moved(atoms, u, t)), feature_change(descriptor, atoms, u))


def assert_strain_jacobian(descriptor, atoms, seed=0):
    strain = np.random.default_rng(seed).normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    batch, _, env = environments(descriptor, atoms)
    parts = []
    for a in range(0, batch.n_atoms, 3):
        out = np.full((min(3, batch.n_atoms - a), 6, descriptor.n_features), np.nan)
        descriptor.strain_jacobian(a, a + len(out), env, out)
        parts.append(np.einsum("ivf,v->if", out, voigt(strain)))
    assert_derivative(lambda t: descriptor.create(distort(atoms.copy(), np.eye(3) + t * strain)), np.concatenate(parts))


def assert_pullback(descriptor, atoms, seed=0):
    """Forces and strain derivative of E = Σ_i w_i·X_i, by blocks of atoms."""
    rng = np.random.default_rng(seed)
    batch, pairs, env = environments(descriptor, atoms)
    w, u, strain = rng.normal(size=env.X.shape), rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    gradient = np.full((len(pairs.j), 3), np.nan)
    for a in range(0, batch.n_atoms, 3):
        here = slice(a, min(a + 3, batch.n_atoms))
        X, state = descriptor.compute(here.start, here.stop, env.pairs)
        descriptor.pullback(here.start, here.stop, env.pairs, X, state, w[here], gradient)
    forces, of_strain = forces_and_strain(batch, pairs, gradient)
    assert_derivative(lambda t: np.vdot(w, descriptor.create(moved(atoms, u, t))), -np.vdot(forces, u))
    strained = lambda t: distort(atoms.copy(), np.eye(3) + t * strain)  # noqa: E731
    assert_derivative(lambda t: np.vdot(w, descriptor.create(strained(t))), of_strain[0] @ voigt(strain))


def assert_invariant(descriptor, atoms, seed=0, atol=1e-11):
    rng = np.random.default_rng(seed)
    X = descriptor.create(atoms)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = distort(atoms.copy(), rotation)
    turned.positions += rng.normal(scale=3, size=3)
    order = rng.permutation(len(atoms))
    wrapped = atoms.copy()
    wrapped.wrap()
    np.testing.assert_allclose(descriptor.create(turned), X, atol=atol)
    np.testing.assert_allclose(descriptor.create(atoms[order]), X[order], atol=atol)
    np.testing.assert_allclose(descriptor.create(wrapped), X, atol=atol)
