"""Covariances of single atoms' energies with all observations, of many atoms at once: what per-atom and total standard deviations need."""

from __future__ import annotations

import numpy as np

from soapkrr import backends
from soapkrr.descriptors.environments import Environments
from soapkrr.kernels import Kernel, squares
from soapkrr.regression.exact.compositions import Composition, layout_of
from soapkrr.structures import Batch
from soapkrr.threads import thread_map

#: Elements of the products of descriptors with derivatives of observations that a thread holds at once.
ELEMENTS = 500_000


def atom_covariance(kernel: Kernel, env: Environments, trained: list[Composition], threads: int | None) -> np.ndarray:
    """(n_atoms, n_observations) covariances of the energies of the atoms of `Environments` with what was observed; unit signal."""
    layout, xp = layout_of(trained), env.xp
    out = xp.zeros((len(env.X), layout.size))
    members = [xp.flatnonzero(env.kinds == s) for s in range(env.descriptor.n_kinds)]

    def fill(task):
        same, some = task
        at = xp.asarray(same.places(layout)[some])
        for s, here in enumerate(members):
            if len(here) and same.X[s].shape[1]:
                rows = _covariance(kernel, env.X[here], same.X[s][some], same.V[s][some])
                out[here[:, None], at.reshape(1, -1)] += rows.reshape(len(here), -1)

    tasks = [(same, some) for same in trained for some in _tiles(same, len(env.X))]
    for _ in thread_map(fill, tasks, threads):
        pass
    return out


def _tiles(same: Composition, n_atoms: int) -> list[slice]:
    """Slices of structures so many that their derivatives meet ``n_atoms`` atoms in `ELEMENTS` products."""
    each = n_atoms * max((x.shape[1] for x in same.X), default=1) * (1 + same.n_derivatives)
    step = max(1, ELEMENTS // max(each, 1))
    return [slice(a, min(a + step, len(same))) for a in range(0, len(same), step)]


def _covariance(kernel: Kernel, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(m, n, 1 + l) covariances of atoms x (m, d) with energy and derivatives w (n, p, d, l) of structures with atoms y (n, p, d)."""
    (n, p, d, l), m = w.shape, len(x)
    flat = y.reshape(n * p, d)
    jet = kernel.jet(x @ flat.T, squares(x)[:, None], squares(flat)[None, :], 2 if l else 0)
    xp, values = backends.namespace(x), jet.value.reshape(m, n, p)
    out = xp.empty((m, n, 1 + l))
    out[:, :, 0] = values.sum(axis=2)
    if l:
        # x·w for all atoms: one product for each atom of the data, (m, d) by (d, l).
        along = xp.matmul(x[None], w.reshape(n * p, d, l)).reshape(n, p, m, l)
        out[:, :, 1:] = xp.einsum("mnp,npml->mnl", jet.u.reshape(m, n, p), along, optimize=True)
        if jet.b is not None:
            own = xp.einsum("npdl,npd->npl", w, y, optimize=True)
            out[:, :, 1:] += 2 * xp.einsum("mnp,npl->mnl", jet.b.reshape(m, n, p), own, optimize=True)
    return out


def structure_covariance(kernel: Kernel, env: Environments, batch: Batch, trained: list[Composition]) -> np.ndarray:
    """(n_structures, n_observations) covariances of total energies with what was observed; unit signal.

    cov(E, E_j) = Σ_i κ(x_i, x_j), the potential of an energy, whose slope at each atom of the data meets the derivatives once.
    """
    layout, xp = layout_of(trained), env.xp
    out = xp.zeros((len(batch), layout.size))
    kinds = batch.structure, np.asarray(backends.host(env.kinds))
    for same in trained:
        at = xp.asarray(same.places(layout))
        for s, (y, w) in enumerate(zip(same.X, same.V, strict=True)):
            (n, p, d), members = y.shape, [xp.asarray(np.flatnonzero((kinds[0] == b) & (kinds[1] == s))) for b in range(len(batch))]
            slopes = xp.zeros((n, len(batch), p * d))
            flat = y.reshape(n * p, d)
            for b, here in enumerate(members if p else ()):
                if len(here):
                    energies, slope = _potential(kernel, env.X[here], flat)
                    out[b, at[:, 0]] += energies.reshape(n, p).sum(axis=1)
                    slopes[:, b] = slope.reshape(n, p * d)
            out[:, at[:, 1:]] += xp.matmul(slopes, w.reshape(n, p * d, w.shape[-1])).transpose(1, 0, 2)
    return out


def _potential(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ_i κ(x_i, y) (n,) and its gradient (n, d) at y (n, d)."""
    xp = backends.namespace(x)
    energies, of_points, of_y = kernel.energies(y @ x.T, squares(y)[:, None], squares(x)[None, :], xp.ones(len(x)))
    gradient = of_points @ x
    return energies, gradient if of_y is None else gradient + of_y[:, None] * y


def summed(rows: np.ndarray, batch: Batch) -> np.ndarray:
    """(n_structures, n) sums over the atoms of each structure of rows (n_atoms, n)."""
    return backends.namespace(rows).add.reduceat(rows, backends.namespace(rows).asarray(batch.offsets[:-1]), axis=0)
