"""The matrix of Coulomb interactions, for what is quadratic in charges."""

from __future__ import annotations

from math import pi

import numpy as np

from soapkrr import backends
from soapkrr.electrostatics.boundary import check_boundary, periodic_cell
from soapkrr.electrostatics.coulomb import COULOMB, check_accuracy, checked_widths
from soapkrr.electrostatics.pairs import interaction, self_interaction
from soapkrr.electrostatics.reciprocal import phases
from soapkrr.electrostatics.splitting import Splitting, Waves


def interaction_matrix(positions, cell, pbc, widths=None, accuracy: float = 1e-8) -> np.ndarray:
    """(n, n) A with E = ½ qᵀA q, eV/e², for any charges q at the atoms; periodic cells with a net charge have a uniform background.

    Parameters as in `electrostatics`, which is what to use where the charges are known: this takes time and memory of n².

    Examples
    --------
    >>> import numpy as np
    >>> A = interaction_matrix(np.array([[0, 0, 0], [0, 0, 2.0]]), np.zeros((3, 3)), False)
    >>> bool(np.isclose(A[0, 1], COULOMB / 2))
    True
    """
    positions, cell = np.asarray(positions, dtype=float), np.asarray(cell, dtype=float)
    pbc, n = np.broadcast_to(np.asarray(pbc, dtype=bool), 3), len(positions)
    widths = checked_widths(widths, n, np)
    check_accuracy(accuracy)
    check_boundary(pbc, 0.0, None)
    if not pbc.any():
        return COULOMB * _direct(positions, widths)
    box = periodic_cell(positions, cell, pbc, accuracy)
    volume = abs(np.linalg.det(box))
    split = Splitting.of(n, volume, 0.0 if widths is None else float(widths.max()), accuracy)
    A = _smooth(positions @ np.linalg.inv(box), Waves.of(box, split)) - pi / (split.alpha**2 * volume)
    _add_near(A, positions, widths, box, split)
    A[np.diag_indices(n)] += self_interaction(split.alpha, n, widths)
    return COULOMB * (A if pbc.all() else A + _slab(positions, box, volume))


def _smooth(fractional, waves: Waves) -> np.ndarray:
    """Σ_k G_k cos(k·r_ij), the waves of one pair (h₁, h₂) at a time."""
    A = np.zeros((len(fractional), len(fractional)))
    a, b, c = phases(fractional, waves)
    for h1, sheet in enumerate(waves.green):
        for h2, green in enumerate(sheet):
            used = np.flatnonzero(green)
            waved = a[:, h1 : h1 + 1] * b[:, h2 : h2 + 1] * c[:, used] * np.sqrt(green[used])
            A += waved.real @ waved.real.T + waved.imag @ waved.imag.T
    return A


def _add_near(A, positions, widths, box, split: Splitting) -> None:
    offsets, j, vectors = backends.loops(np).neighbours.neighbours(positions, box, np.ones(3, dtype=bool), split.r_cut)
    i = np.repeat(np.arange(len(A)), np.diff(offsets))
    sigma = () if widths is None else (widths[i], widths[j])
    value, _ = interaction(split.alpha, np.linalg.norm(vectors, axis=1), *sigma)
    A += np.bincount(i * len(A) + j, value, minlength=A.size).reshape(A.shape)


def _direct(positions, widths) -> np.ndarray:
    r = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(r, 1.0)
    A, _ = interaction(0.0, r, *(() if widths is None else (widths[:, None], widths)))
    np.fill_diagonal(A, self_interaction(0.0, len(r), widths))
    return A


def _slab(positions, box, volume) -> np.ndarray:
    """−2π/V ((z_i − z_j)² + L²/6): `boundary.slab_correction` as a matrix."""
    length = np.linalg.norm(box[2])
    z = positions @ box[2] / length
    return -2 * pi / volume * ((z[:, None] - z) ** 2 + length**2 / 6)
