"""Variances of a sum of sparse terms on a batch: energies of atoms and structures, forces, stress.

With kernel values κ of a functional, features φ = κ T and prior k_LL, the variance k_LL − |φ|² + |R⁻ᵀφ|² is k_LL − |κ D|² with
D Dᵀ = T (1 − (RᵀR)⁻¹) Tᵀ, what the data take away: one product in place of two, and of triangles where T is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.execution.blocks import block_map
from soapkrr.linear import Posterior
from soapkrr.regression.evaluate import Collector
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.terms import SparseTerm, total_priors
from soapkrr.structures import Batch

if TYPE_CHECKING:
    from soapkrr.regression.sparse.posterior import SparseProcess

#: Columns of D that are multiplied at once, with as many rows as are not zero.
PANEL = 256

#: Added to the diagonal of 1 − (RᵀR)⁻¹, which has zeros where the data say nothing; it changes variances by this fraction at most.
RIDGE = 1e-11

#: Displaced atoms at least whose variances are made at once.
ATOMS = 32


class Reduction:
    """Variances from kernel values of functionals of one species, or of all: columns term by term, and in each species by species."""

    def __init__(self, terms: Sequence[SparseTerm], posterior: Posterior, species: int | None = None):
        xp, starts = terms[0].xp, np.cumsum([0] + [t.rank for t in terms])
        blocks = [(t, s, a) for t, a in zip(terms, starts, strict=False) for s in range(len(t.points)) if species in (None, s)]
        at = np.concatenate([a + np.arange(t.columns[s], t.columns[s + 1]) for t, s, a in blocks])
        inverse = backends.of(posterior.factor).dense.inverse_triangle(posterior.factor)[xp.asarray(at)]
        E = _upper_factor((1 + RIDGE) * xp.eye(len(at)) - inverse @ inverse.T)
        D, row, column = xp.zeros((sum(len(t.points[s]) for t, s, _ in blocks), len(at))), 0, 0
        for t, s, _ in blocks:
            transform = t.scaled_transform[s]
            (m, r), below = transform.shape, slice(column, column + transform.shape[1])
            D[row : row + m] = transform @ E[below]
            row, column = row + m, column + r
        self._panels = []
        for start in range(0, D.shape[1], PANEL):
            panel = D[:, start : start + PANEL]
            used = xp.flatnonzero(panel.any(axis=1))
            self._panels.append(xp.ascontiguousarray(panel[: int(used[-1]) + 1 if len(used) else 0]))

    def variance(self, prior: np.ndarray, kernel_rows: np.ndarray) -> np.ndarray:
        """(n,) posterior variances from prior ones (n,) and kernel values (n, M); rounding below zero is zero."""
        xp, taken = backends.namespace(kernel_rows), 0.0
        for panel in self._panels:
            part = kernel_rows[:, : len(panel)] @ panel
            taken = taken + xp.einsum("nr,nr->n", part, part)
        return xp.maximum((1 + RIDGE) * prior - taken, 0.0)


def _upper_factor(P: np.ndarray) -> np.ndarray:
    """Upper triangular E with E Eᵀ = P."""
    xp = backends.namespace(P)
    return xp.ascontiguousarray(xp.linalg.cholesky(P[::-1, ::-1])[::-1, ::-1])


class EnergyVariances(Collector):
    """What the variances of ``totals`` and of energies of ``atoms`` need.

    Attributes
    ----------
    atoms : (n_atoms,) posterior variance of each atom's energy, eV², where asked for.
    sums : per term and species (n_structures, M_s) Σ_i κ(x_i, X_M).  X : per term (n_atoms, n_features); both with ``totals`` only.
    """

    def __init__(self, process: SparseProcess, batch: Batch, totals: bool, atoms: bool):
        self._process, self._batch, self._totals = process, batch, totals
        xp, terms = process.xp, process.terms
        self._structure = xp.asarray(batch.structure)
        species = np.unique(terms[0].descriptor.kinds(batch.numbers)) if atoms else ()
        self._reductions = {int(s): process.reduction(int(s)) for s in species}
        self.atoms = xp.empty(batch.n_atoms)
        if totals:
            self.sums = [[xp.zeros((len(batch), len(points))) for points in t.points] for t in terms]
            self.X = [xp.empty((batch.n_atoms, t.descriptor.n_features)) for t in terms]

    def block(self, start: int, stop: int, X: list, kernel_rows: list) -> list:
        """Variances of atoms ``start:stop``; sums of their kernel values over structures, [(term, species, structures, sums)]."""
        xp, terms, structure, kept = self._process.xp, self._process.terms, self._structure[start:stop], []
        if self._totals:
            for own, x in zip(self.X, X, strict=True):
                own[start:stop] = x
        for parts in zip(*kernel_rows, strict=True):
            s, here, _ = parts[0]
            if self._reductions:
                prior = sum(t.prior(x[here]) for t, x in zip(terms, X, strict=True))
                rows = parts[0][2] if len(parts) == 1 else xp.concatenate([values for _, _, values in parts], axis=1)
                self.atoms[start + here] = self._reductions[s].variance(prior, rows)
            for t, (_, _, values) in enumerate(parts if self._totals else ()):
                owners = structure[here]
                first = xp.flatnonzero(xp.diff(owners, prepend=owners[:1] - 1))
                kept.append((t, s, owners[first], xp.add.reduceat(values, first, axis=0)))
        return kept

    def collect(self, start: int, stop: int, kept: list) -> None:
        """Add the sums to those of their structures, in order."""
        for t, s, structures, values in kept:
            self.sums[t][s][structures] += values

    def structures(self) -> np.ndarray:
        """(n_structures,) posterior variance of total energies, eV²."""
        process, batch = self._process, self._batch
        prior = process.xp.zeros(len(batch))
        for term, X in zip(process.terms, self.X, strict=True):
            kinds = term.descriptor.kinds(batch.numbers)
            prior += term.signal**2 * total_priors(term.kernel, X, kinds, batch.offsets, process.threads)
        rows = [term.whiten(sums) for term, sums in zip(process.terms, self.sums, strict=True)]
        return process.variance(prior, process.xp.concatenate(rows, axis=1))


def forces_variance(process: SparseProcess, designs: list[DesignRows]) -> np.ndarray:
    """(n_atoms, 3) posterior variance of the force components, (eV/Å)²."""
    reduction, step = process.reduction(None), max(ATOMS, backends.loops(process.xp).DISPLACED)

    def block(start, stop):
        rows, prior = _rows_and_prior(designs, DesignRows.forces, start, stop, 3)
        rows = [values for of_term in rows for values in of_term]
        return reduction.variance(prior, rows[0] if len(rows) == 1 else process.xp.concatenate(rows, axis=1)).reshape(-1, 3)

    return _in_blocks(process, designs, block, designs[0].batch.n_atoms, step)


def strain_variance(process: SparseProcess, designs: list[DesignRows]) -> np.ndarray:
    """(n_structures, 6) posterior variance of ∂E/∂ε, eV²; too few rows for a `Reduction` to pay."""

    def block(start, stop):
        rows, prior = _rows_and_prior(designs, DesignRows.strain, start, stop, 6)
        rows = [design.term.whiten(of_term) for design, of_term in zip(designs, rows, strict=True)]
        return process.variance(prior, process.xp.concatenate(rows, axis=1)).reshape(-1, 6)

    return _in_blocks(process, designs, block, len(designs[0].batch), 1)


def _rows_and_prior(designs: list[DesignRows], rows_of: Callable, start: int, stop: int, k: int) -> tuple[list[list], np.ndarray]:
    """Kernel rows of the k derivatives of each of some atoms or structures, by term and species, and their prior variances."""
    rows, total = [], 0.0
    for design in designs:
        prior = design.xp.zeros((stop - start, k))
        rows.append(rows_of(design, start, stop, prior))
        total = total + design.term.signal**2 * prior.ravel()
    return rows, total


def _in_blocks(process: SparseProcess, designs: list[DesignRows], block: Callable, n: int, step: int) -> np.ndarray:
    """Variances of n atoms or structures, ``step`` of them at a time."""
    for design in designs:
        design.jets  # noqa: B018  computed once, before the threads start
    return process.xp.concatenate([rows for _, _, rows in block_map(block, n, step, process.threads)])
