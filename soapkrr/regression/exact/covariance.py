"""Observations as representers: covariances between energies, forces and stresses of whole structures.

A structure's observations are linear functionals of the atoms' energies. Energy: Σ_i ε(x_i). A force or stress component:
Σ_i v_i·∂ε/∂x_i, with v_i = −∂x_i/∂r_ab or (1/V) ∂x_i/∂ε_ab. With the kernel's 2-jet (see `kernels`) the covariance of two of them is a
sum over pairs of atoms of the same species. Structures of the same composition are handled together, so that the work is matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soapkrr import backends
from soapkrr.kernels import Kernel, squares
from soapkrr.kernels.base import Jet
from soapkrr.regression.exact.compositions import Composition, located, starts, tiles
from soapkrr.regression.exact.wide import add_wide, is_wide
from soapkrr.threads import thread_map


def block_covariance(kernel: Kernel, A: Composition, s: int, B: Composition, tile: slice) -> np.ndarray:
    """(1 + k_A, n_tile, 1 + k_B) covariance of the observations of structure s of A with those of a tile of B; unit signal."""
    n = tile.stop - tile.start
    out = A.xp.zeros((A.size, n, B.size))
    for xa, va, xb, vb in zip(A.X, A.V, B.X, B.V, strict=True):
        if xa.shape[1] and xb.shape[1]:
            _species_covariance(kernel, xa[s], va[s], xb[tile], vb[tile], out)
    return out


def _species_covariance(kernel, x, v, y, w, out) -> None:
    """Add one species' part: x (m, d), v (m, d, k) of one structure; y (n, p, d), w (n, p, d, l) of a tile."""
    (m, d, k), (n, p, _, l), xp = v.shape, w.shape, backends.namespace(x)
    flat = y.reshape(n * p, d)
    jet = kernel.jet(x @ flat.T, squares(x)[:, None], squares(flat)[None, :], 2 if l else 1 if k else 0)

    if is_wide(v, w):
        for at in range(n):
            mine = slice(at * p, (at + 1) * p)
            add_wide(Jet(*(None if part is None else part[:, mine] for part in jet)), x, v, y[at], w[at], out[:, at])
        return

    def by_structure(part):
        return None if part is None else part.reshape(m, n, p).transpose(1, 0, 2)

    out[0, :, 0] += by_structure(jet.value).sum((1, 2))
    vy = xp.matmul(flat[None], v).reshape(m, n, p, k)  # v_i·x′_j
    xw = xp.matmul(x[None, None], w)  # (n, p, m, l): x_i·w_j
    vx = xp.einsum("idk,id->ik", v, x)
    yw = xp.einsum("jpdl,jpd->jpl", w, y)
    f_u, f_a = by_structure(jet.u), by_structure(jet.a)
    if k:
        out[1:, :, 0] += xp.einsum("nij,injk->kn", f_u, vy, optimize=True)
        if f_a is not None:
            out[1:, :, 0] += 2 * xp.einsum("nij,ik->kn", f_a, vx, optimize=True)
    if l:
        out[0, :, 1:] += xp.einsum("nij,njil->nl", f_u, xw, optimize=True)
        f_b = by_structure(jet.b)
        if f_b is not None:
            out[0, :, 1:] += 2 * xp.einsum("nij,njl->nl", f_b, yw, optimize=True)
    if k and l:
        weighted = xp.matmul(f_u, w.reshape(n, p, d * l)).reshape(n, m * d, l)
        block = xp.matmul(v.reshape(m * d, k).T[None], weighted)
        left, right = vy.transpose(1, 0, 2, 3).reshape(n, m * p, k), xw.transpose(0, 2, 1, 3).reshape(n, m * p, l)
        if jet.uu is not None:
            block += xp.matmul((left * by_structure(jet.uu).reshape(n, m * p, 1)).transpose(0, 2, 1), right)
        if jet.ua is not None:
            block += 2 * xp.einsum("nij,ik,njil->nkl", by_structure(jet.ua), vx, xw, optimize=True)
        if jet.ub is not None:
            block += 2 * xp.einsum("nij,injk,njl->nkl", by_structure(jet.ub), vy, yw, optimize=True)
        if jet.ab is not None:
            block += 4 * xp.einsum("nij,ik,njl->nkl", by_structure(jet.ab), vx, yw, optimize=True)
        out[1:, :, 1:] += block.transpose(1, 0, 2)


def covariance(kernel: Kernel, left: list[Composition], right: list[Composition] | None = None, threads=None) -> np.ndarray:
    """Covariance matrix of all observations of ``left`` with those of ``right`` (with themselves when None); unit signal.

    Order: `Layout`, without what is ignored; `located` says where that is. Only half the blocks of a symmetric matrix are computed.
    """
    symmetric = right is None
    right = left if symmetric else right
    rows, columns = starts(left), starts(right)
    K = left[0].xp.empty((rows[-1], columns[-1]))
    tasks = [(a, s, b, t) for a in left for s in range(len(a)) for b in right for t in tiles(b)]
    if symmetric:
        tasks = [(a, s, b, t) for a, s, b, t in tasks if b.index[t].min() <= a.index[s]]

    def block(task):
        a, s, b, t = task
        at, values = slice(*rows[a.index[s] : a.index[s] + 2]), block_covariance(kernel, a, s, b, t)
        for n, other in enumerate(b.index[t]):
            lower, beside = other <= a.index[s], slice(*columns[other : other + 2])
            if not symmetric or lower:
                K[at, beside] = values[:, n]
            if symmetric and lower:
                K[beside, at] = values[:, n].T

    for _ in thread_map(block, tasks, threads):
        pass
    return K


def variances(kernel: Kernel, compositions: list[Composition]) -> np.ndarray:
    """Prior variances of every observation that is not ignored, `Layout` order; unit signal."""
    first, xp = starts(compositions), compositions[0].xp
    out = xp.empty(first[-1])
    for same in compositions:
        for s in range(len(same)):
            own = block_covariance(kernel, same, s, same, slice(s, s + 1))[:, 0]
            out[slice(*first[same.index[s] : same.index[s] + 2])] = xp.diagonal(own)
    return out


def total_covariance(terms: Sequence, compositions: list[list[Composition]], threads: int | None, places: np.ndarray) -> np.ndarray:
    """Σ δ²K over terms, of the observations at some ``places`` (`Layout`)."""
    total = None
    for term, mine in zip(terms, compositions, strict=True):
        K = covariance(term.kernel, mine, threads=threads)
        K *= term.signal**2
        total = K if total is None else np.add(total, K, out=total)
    return total if len(places) == len(total) else some_of(total, located(compositions[0], places))


def some_of(K: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows and columns ``index`` (a NumPy array) of K."""
    at = backends.namespace(K).asarray(index)
    return K[at[:, None], at[None, :]]
