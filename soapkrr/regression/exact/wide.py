"""Covariances of wide structures, atom by atom: a derivative moves the descriptors of its neighbours alone.

Of atom i only the k_i derivatives are met in which v_i is not zero, so that of two structures of m atoms with k derivatives m (m + d) k_i k
products are taken in place of m (m + d) k², and nothing is held that grows with m² k.
"""

from __future__ import annotations

import numpy as np

from soapkrr import backends
from soapkrr.kernels.base import Jet

#: Pairs of atoms, times derivatives, from which structures are wide.
WIDE = 2**20

#: Numbers held at once of some atoms with all derivatives.
HELD = 2**23


def is_wide(v: np.ndarray, w: np.ndarray) -> bool:
    """Whether structures with v (m, d, k) and w (n, p, d, l) are met one by one."""
    return v.shape[0] * w.shape[1] * max(v.shape[2], w.shape[3]) > WIDE


def add_wide(jet: Jet, x: np.ndarray, v: np.ndarray, y: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """Add to ``out`` (1 + k, 1 + l) the covariances of x (m, d), v (m, d, k) with y (p, d), w (p, d, l), from the kernel's jet (m, p)."""
    (m, _, k), (p, d, l), xp = v.shape, w.shape, backends.namespace(x)
    out[0, 0] += jet.value.sum()
    yw = xp.matmul(y[:, None], w)[:, 0]
    if l and jet.b is not None:
        out[0, 1:] += 2 * jet.b.sum(axis=0) @ yw
    step = max(1, HELD // max(1, l * max(d, p)))
    for start in range(0, m, step) if k or l else ():
        atoms = slice(start, min(start + step, m))
        weighted = (jet.u[atoms] @ w.reshape(p, d * l)).reshape(-1, d, l)
        out[0, 1:] += xp.einsum("id,idl->l", x[atoms], weighted)
        xw = xp.matmul(x[atoms][None], w) if l and not (jet.uu is None and jet.ua is None) else None
        for i in range(start, atoms.stop) if k else ():
            _add_atom(jet, i, (x[i], v[i], weighted[i - start], None if xw is None else xw[:, i - start]), (y, yw), out)


def _add_atom(jet: Jet, i: int, own: tuple, others: tuple, out: np.ndarray) -> None:
    """Rows of the derivatives in which one atom takes part; ``own``: x, v, Σ_j F_u w_j and x·w_j of it; ``others``: y and y·w."""
    (x, v, weighted, xw), (y, yw) = own, others
    xp = backends.namespace(x)
    at = xp.flatnonzero(v.any(axis=0))
    v = v[:, at]
    vy, vx = y @ v, x @ v
    rows = xp.empty((len(at), out.shape[1]))
    rows[:, 0] = jet.u[i] @ vy + (0.0 if jet.a is None else 2 * jet.a[i].sum() * vx)
    rows[:, 1:] = v.T @ weighted
    by_u = 0.0 if jet.uu is None else jet.uu[i][:, None] * vy
    by_u = by_u if jet.ua is None else by_u + 2 * jet.ua[i][:, None] * vx
    if xw is not None:
        rows[:, 1:] += by_u.T @ xw
    if jet.ub is not None:
        rows[:, 1:] += 2 * (jet.ub[i][:, None] * vy).T @ yw
    if jet.ab is not None:
        rows[:, 1:] += 4 * xp.outer(vx, jet.ab[i] @ yw)
    out[1 + at] += rows
