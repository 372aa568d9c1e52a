"""Linear functionals of a potential: combinations of atoms' energies, forces and stress of a batch, and how one term sees them.

To a term a functional is L e = Σ_i a_i e(x_i) + Σ_j b_j·∇e(x_j): a_i is the weight of an atom's energy, b_j the derivative of x_j along
minus the weights of the forces and a strain of those of the stress over the volume. Its potential, g_L(x) = cov(e(x), L e), gives every
covariance: cov(L e, L′ e) = L′ g_L.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.environments import Environments
from soapkrr.kernels import squares
from soapkrr.lazy import cached_property
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, add_rows
from soapkrr.threads import thread_map

#: Atoms, or slopes, whose kernel rows are made at once.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Functionals:
    """Weights of n linear combinations of what a potential says of a batch, sparse matrices of SciPy.

    Attributes
    ----------
    energies : (n, n_atoms), of the atoms' energies.  forces : (n, 3·n_atoms).  stress : (n, 6·n_structures), Voigt order.
    """

    batch: Batch
    energies: sparse.csr_array
    forces: sparse.csr_array
    stress: sparse.csr_array
    _seen: dict = field(init=False, repr=False, default_factory=dict)

    def __len__(self) -> int:
        return self.energies.shape[0]

    def of(self, energies: np.ndarray, forces: np.ndarray, stress: np.ndarray) -> np.ndarray:
        """(n,) their values for energies (n_atoms,), forces (n_atoms, 3) and stress (n_structures, 6)."""
        parts = zip((self.energies, self.forces, self.stress), (energies, forces, stress), strict=True)
        return sum(weights @ np.where(np.isfinite(values), values, 0.0).ravel() for weights, values in parts)

    def seen(self, descriptor: Descriptor, xp=np) -> SeenFunctionals:
        """As a term with this descriptor sees them, in arrays of ``xp``; made once."""
        key = (id(descriptor), xp.__name__)
        if key not in self._seen:
            self._seen[key] = self._as_seen(descriptor, xp)
        return self._seen[key]

    def _as_seen(self, descriptor: Descriptor, xp) -> SeenFunctionals:
        env = descriptor.environments(self.batch, xp)
        supports = [self._support(env, row) for row in range(len(self))]
        bounds = np.cumsum([0] + [len(s) for s in supports])
        slopes = xp.zeros((int(bounds[-1]), descriptor.n_features))
        for rows, centre, part in self._slopes(env):
            for row, change in zip(rows, part, strict=True):
                places = bounds[row] + np.searchsorted(supports[row], centre)
                xp.add.at(slopes, xp.asarray(places), change)
        place = np.concatenate([*supports, np.empty(0, dtype=np.int64)]).astype(np.int64)
        concerned = np.unique(np.concatenate([place, self.energies.indices]))
        values = self.energies[:, concerned]
        kinds = descriptor.kinds(self.batch.numbers)[concerned]
        return SeenFunctionals(env.X[xp.asarray(concerned)], kinds, values, np.searchsorted(concerned, place), bounds, slopes)

    def _support(self, env: Environments, row: int) -> np.ndarray:
        """Atoms whose descriptors change along a functional's forces and stress."""
        offsets, neighbours = (np.asarray(backends.host(a)) for a in (env.pairs.offsets, env.pairs.neighbours))
        moved, strained = np.unique(_columns(self.forces, row) // 3), np.unique(_columns(self.stress, row) // 6)
        parts = [neighbours[offsets[a] : offsets[a + 1]] for a in moved]
        parts += [np.arange(self.batch.offsets[s], self.batch.offsets[s + 1]) for s in strained]
        return np.unique(np.concatenate([moved, *parts]).astype(np.int64))

    def _slopes(self, env: Environments) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(functionals (k,), atoms (m,), parts of b (k, m, d)) of some displaced atoms, or some strained ones, at a time."""
        xp, by_force, by_stress = env.xp, self.forces.tocsc(), self.stress.tocsc()
        for start, stop in _runs(np.unique(by_force.nonzero()[1] // 3), backends.of(env.X).DISPLACED):
            rows, weights = _dense(by_force, 3 * start, 3 * stop)
            block = env.displaced(start, stop)
            centre, atom = backends.host(block.centre), backends.host(block.atom) - start
            for row, w in zip(rows, weights.reshape(len(rows), -1, 3), strict=True):
                mine = np.flatnonzero(w.any(axis=1)[atom])
                part = xp.einsum("ea,eaf->ef", xp.asarray(w[atom[mine]]), block.jacobian[xp.asarray(mine)])
                yield rows[rows == row], centre[mine], -part[None]
        for s in np.unique(by_stress.nonzero()[1] // 6):
            rows, weights = _dense(by_stress, 6 * s, 6 * s + 6)
            first, last = self.batch.offsets[s : s + 2]
            for start in range(first, last, ROWS):
                stop = min(start + ROWS, last)
                w = xp.asarray(weights / self.batch.volumes[s])
                yield rows, np.arange(start, stop), xp.einsum("kv,nvf->knf", w, env.strained(start, stop))


def _columns(matrix: sparse.csr_array, row: int) -> np.ndarray:
    return matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]


def _runs(atoms: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive runs, at most so long, that cover ascending ``atoms`` and nothing else."""
    for run in np.split(atoms, np.flatnonzero(np.diff(atoms) > 1) + 1) if len(atoms) else []:
        for start in range(int(run[0]), int(run[-1]) + 1, longest):
            yield start, min(start + longest, int(run[-1]) + 1)


def _dense(matrix: sparse.csc_array, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k,) that have weights in columns ``start:stop``, and these (k, stop − start)."""
    part = matrix[:, start:stop].tocsr()
    rows = np.flatnonzero(np.diff(part.indptr))
    return rows, part[rows].toarray()


@dataclass(frozen=True, eq=False)
class SeenFunctionals:
    """n functionals as one term sees them.

    Attributes
    ----------
    X : (m, d) descriptors of the atoms concerned.  kinds : (m,) their species.  values : (n, m) sparse, the weights a.
    place : (k,) row of X of each slope.  bounds : (n + 1,); slopes of a functional are ``bounds[l]:bounds[l + 1]``.
    slopes : (k, d) the vectors b.
    """

    X: np.ndarray
    kinds: np.ndarray
    values: sparse.csr_array
    place: np.ndarray
    bounds: np.ndarray
    slopes: np.ndarray

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def xp(self):
        """The library of its arrays."""
        return backends.namespace(self.X)

    @cached_property
    def owner(self) -> np.ndarray:
        """(k,) functional of each slope."""
        return np.repeat(np.arange(len(self)), np.diff(self.bounds))

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Per species that occurs, (species, its rows of X)."""
        return [(int(s), np.flatnonzero(self.kinds == s)) for s in np.unique(self.kinds)]

    def potential(self, part, row: int) -> CollapsedPart:
        """g_L of functional ``row`` by the descriptor, kernel and signal of a part."""
        xp, own = self.xp, slice(self.bounds[row], self.bounds[row + 1])
        valued, sloped = _columns(self.values, row), self.place[own]
        rows = np.union1d(valued, sloped)
        a, b = np.zeros(len(rows)), xp.zeros((len(rows), self.X.shape[1]))
        a[np.searchsorted(rows, valued)] = self.values.data[self.values.indptr[row] : self.values.indptr[row + 1]]
        b[xp.asarray(np.searchsorted(rows, sloped))] = self.slopes[own]
        kinds = self.kinds[rows]
        places = [np.flatnonzero(kinds == s) for s in range(part.descriptor.n_kinds)]
        points = tuple(self.X[xp.asarray(rows[at])] for at in places)
        values, slopes = tuple(xp.asarray(a[at]) for at in places), tuple(b[xp.asarray(at)] for at in places)
        return CollapsedPart(part.descriptor, part.kernel, part.signal, points, values, slopes)

    def apply(self, potential: CollapsedPart) -> np.ndarray:
        """(n,) the functionals of a potential, a NumPy array."""
        xp = self.xp
        energies, gradient = xp.zeros(len(self.X)), xp.zeros_like(self.X)
        for s, here in self.members:
            at = xp.asarray(here)
            energies[at], gradient[at] = potential.evaluate(s, self.X[at])
        along = backends.host(xp.einsum("kf,kf->k", self.slopes, gradient[xp.asarray(self.place)]))
        return self.values @ backends.host(energies) + np.bincount(self.owner, along, minlength=len(self))

    def prior(self, part, threads: int | None) -> np.ndarray:
        """(n, n) prior covariance, a NumPy array, by the descriptor, kernel and signal of a part."""
        rows = thread_map(lambda row: self.apply(self.potential(part, row)), range(len(self)), backends.threads(self.xp, threads))
        K = np.array(list(rows)).reshape(len(self), len(self))
        return 0.5 * (K + K.T)

    def features(self, term: SparseTerm) -> np.ndarray:
        """(n, rank) features of a sparse term."""
        rows = [self.xp.zeros((len(self), len(points))) for points in term.points]
        for s, here in self.members:
            for at in np.split(here, range(ROWS, len(here), ROWS)):
                rows[s] += self._of_values(term, s, at)
            mine = np.flatnonzero(self.kinds[self.place] == s)
            for at in np.split(mine, range(ROWS, len(mine), ROWS)):
                add_rows(rows[s], self.xp.asarray(self.owner[at]), self._of_slopes(term, s, at))
        return term.whiten(rows)

    def _of_values(self, term: SparseTerm, s: int, at: np.ndarray) -> np.ndarray:
        """(n, M_s) Σ_i a_i κ(x_i, X_M) over some atoms of one species."""
        xp, weights = self.xp, self.values[:, at]
        if not weights.nnz:
            return xp.zeros((len(self), len(term.points[s])))
        kernel = term.kernel(self.X[xp.asarray(at)], term.points[s])
        return weights @ kernel if xp is np else xp.asarray(weights.toarray()) @ kernel

    def _of_slopes(self, term: SparseTerm, s: int, at: np.ndarray) -> np.ndarray:
        """(m, M_s) b_j·∂κ(x_j, X_M)/∂x_j of some slopes on atoms of one species."""
        x, b, points = self.X[self.xp.asarray(self.place[at])], self.slopes[self.xp.asarray(at)], term.points[s]
        jet = term.kernel.jet(x @ points.T, squares(x)[:, None], term.squares[s], 1)
        rows = jet.u * (b @ points.T)
        return rows if jet.a is None else rows + 2 * jet.a * self.xp.einsum("jf,jf->j", x, b)[:, None]
