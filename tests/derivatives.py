"""Structures moved and strained along a direction, for derivative tests."""

from __future__ import annotations

import numpy as np
from systems import distort


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
