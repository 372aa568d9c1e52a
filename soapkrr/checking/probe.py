"""A quick sparse model of labelled structures whose rows are kept, so that it can be fitted again and again to some of the labels.

For rows Φ and targets y in units of their noise, A = ΦᵀΦ + 1 and w = A⁻¹Φᵀy. With B the rows of one structure, e = y − Bw and H = BA⁻¹Bᵀ,
the fit without those rows I of the structure that it had seen errs by e + H_·I (1 − H_II)⁻¹ e_I: every structure is left out in closed
form (Cook and Weisberg 1982, Residuals and Influence in Regression).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms, units
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from soapkrr.execution.resources import Division, Resources, pool_of
from soapkrr.labels import KINDS, Labels
from soapkrr.lazy import cached_property
from soapkrr.regression.data import TrainingData
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.sparse.points import unwhitened
from soapkrr.regression.sparse.triangles import tables
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.structures import Batch, species_name, split_by_atoms

#: Prior standard deviation of reference energies about those of least squares, eV.
REFERENCE = 100.0

#: Noise levels to start from, and the smallest: eV per √atom, eV/Å, eV/Å³.
START = {"energy": 0.01, "forces": 0.1, "stress": 0.005}

#: Total energies nearer than this part to those of free atoms are all-electron ones.
ALL_ELECTRON = 0.03

#: Structures whose stiffness is looked at, and the displacement, Å; ħ²/m of an electron, eV Å².
SOFT, STEP, QUANTUM = 12, 0.02, 7.62


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of all structures, one after the other.

    Attributes
    ----------
    array : (n, r) features.  target : (n,) labels: eV per √atom less reference energies, eV/Å, eV/Å³.
    kind : (n,) index into `labels.KINDS`.  structure : (n,) index in the list given, ascending.
    """

    array: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    structure: np.ndarray

    @cached_property
    def of(self) -> dict[int, slice]:
        """{structure: its rows}."""
        found, start = np.unique(self.structure, return_index=True)
        return {int(s): slice(a, b) for s, a, b in zip(found, start, [*start[1:], len(self.structure)], strict=True)}

    def replaced(self, target: np.ndarray) -> Rows:
        """The same with other labels."""
        return Rows(self.array, target, self.kind, self.structure)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Labels as predicted without those of their structure, and without those of their kind of their structure.

    Attributes
    ----------
    expected : (n,) in the units of `Rows.target`.  std : (n,) of given less expected, with the noise.
    beside, beside_std : (n,) the same when the other kinds of label of the structure are known.  noise : {kind: level}.
    """

    expected: np.ndarray
    std: np.ndarray
    beside: np.ndarray
    beside_std: np.ndarray
    noise: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Probe:
    """Rows of labelled structures, and what is known of them beside.

    Attributes
    ----------
    frames, labels : as given.  rows : of their known labels.  counts : (n_structures, n_species).
    kinds : kinds of label there are.  base : (n,) what `Rows.target` lacks of the label: reference energies.
    """

    frames: list[Atoms]
    labels: list[Labels]
    rows: Rows
    counts: np.ndarray
    base: np.ndarray
    term: SparseTerm

    @classmethod
    def of(cls, frames: list[Atoms], labels: list[Labels], term: Term, threads: int | None = None) -> Probe:
        """The rows of the known labels of structures."""
        data = TrainingData.of(frames, labels, None)
        division = Division.unlimited(np, threads)
        resources = Resources(pool_of(None, division.threads), "cpu", division)
        sparse = unwhitened(term, data, resources).whitened(1e-10, threads)
        made = resources.map(_Group(sparse, data), list(split_by_atoms(data.frames, 64)))
        array, target, kind, structure = (np.concatenate(part) for part in zip(*made, strict=True))
        structure = data.order[structure]
        order = np.argsort(structure, kind="stable")
        array, target, kind, structure = array[order], target[order], kind[order], structure[order]
        species = np.unique(np.concatenate([atoms.numbers for atoms in frames]))
        counts = np.array([[np.count_nonzero(atoms.numbers == z) for z in species] for atoms in frames])
        columns = np.where(kind == 0, 1.0, 0.0)[:, None] * (counts / np.sqrt(counts.sum(axis=1))[:, None])[structure]
        base = columns @ np.array([data.references[species_name(z)] for z in species])
        return cls(frames, labels, Rows(np.hstack([array, REFERENCE * columns]), target, kind, structure), counts, base, sparse)

    @property
    def kinds(self) -> list[str]:
        return [kind for k, kind in enumerate(KINDS) if (self.rows.kind == k).any()]

    @cached_property
    def volumes(self) -> np.ndarray:
        """(n_structures,) Å³, 1 where there is no cell."""
        return np.array([atoms.get_volume() if atoms.pbc.all() else 1.0 for atoms in self.frames])

    def undone(self, mistakes: Mapping) -> np.ndarray:
        """Targets with {kind: mistake} undone; the energies' less reference energies fitted anew."""
        target = self.rows.target.copy()
        for kind, mistake in mistakes.items():
            mine = self.rows.kind == KINDS.index(kind)
            if kind == "stress" and (mistake.order or mistake.per_volume):
                values = mistake.undo(target[mine].reshape(-1, 6), self.volumes[self.rows.structure[mine]].reshape(-1, 6))
                target[mine] = values.ravel()
            else:
                target[mine] = mistake.undo(target[mine])
        return target

    @cached_property
    def energy_unit(self) -> float | None:
        """Factor from the unit of the energies to eV where they are those of all electrons; None where they are not."""
        known = [(free_atoms(a.numbers), label.energy) for a, label in zip(self.frames, self.labels, strict=True) if label.has("energy")]
        if not known:
            return None
        free, given = np.array(known).T
        ratio = float(np.median(free / np.where(given == 0, 1.0, given)))
        factors = (1.0, units.Hartree, units.Rydberg, units.kcal / units.mol, units.kJ / units.mol, 1e-3)
        return next((factor for factor in factors if abs(ratio / factor - 1) < ALL_ELECTRON), None)

    @cached_property
    def stiffness(self) -> float:
        """Median restoring force over displacement of an atom, times d⁴/(ħ²/m), by a fit to the forces, or else to the energies."""
        k = 1 if "forces" in self.kinds else 0
        mine = self.rows.kind == k
        Phi, y = self.rows.array[mine], self.rows.target[mine]
        level = 0.1 * float(np.sqrt(np.mean(y**2))) + 1e-12
        A = Phi.T @ Phi / level**2
        A.flat[:: len(A) + 1] += ridge(A)
        w = np.linalg.solve(A, Phi.T @ y / level**2)[: self.term.rank]
        chosen = np.linspace(0, len(self.frames) - 1, min(SOFT, len(self.frames))).astype(int)
        found = [self._stiffness(self.frames[s], w) for s in np.unique(chosen)]
        found = [value for value in found if np.isfinite(value)]
        return float(np.median(found)) if found else np.nan

    @property
    def stiffest(self) -> float:
        """The largest plausible `stiffness`: osmium and its neighbours have 350, all else up to 150."""
        numbers = np.unique(np.concatenate([atoms.numbers for atoms in self.frames]))
        return 400.0 if (((numbers >= 39) & (numbers <= 46)) | ((numbers >= 71) & (numbers <= 79))).any() else 200.0

    def some(self, n_rows: int) -> Probe:
        """Of structures drawn at random with so many rows together, at least twenty structures; the places stay those of all."""
        order, total, chosen = np.random.default_rng(0).permutation(list(self.rows.of)), 0, []
        for s in order:
            mine = self.rows.of[int(s)]
            total += mine.stop - mine.start
            if total > n_rows and len(chosen) >= 20:
                break
            chosen.append(s)
        kept = np.isin(self.rows.structure, chosen)
        rows = Rows(*(getattr(self.rows, name)[kept] for name in ("array", "target", "kind", "structure")))
        return replace(self, rows=rows, base=self.base[kept])

    def _stiffness(self, atoms: Atoms, w: np.ndarray) -> float:
        """Of one atom that is no hydrogen, with d to the nearest other such; an atom alone in its cell takes the crystal along."""
        if len(atoms) < 2:
            return np.nan
        heavy = np.flatnonzero(atoms.numbers > 1) if (atoms.numbers > 1).any() else np.arange(len(atoms))
        centre = int(heavy[len(heavy) // 2])
        pairs = Batch.from_atoms([atoms]).pairs(6.0)
        near = np.linalg.norm(pairs.vectors[(pairs.i == centre) & np.isin(pairs.j, heavy)], axis=1)
        if not len(near):
            return np.nan
        springs = []
        for axis in range(3):
            ends = []
            for step in (-STEP, STEP):
                moved = atoms.copy()
                moved.calc = None
                moved.positions[centre, axis] += step
                rows = DesignRows(self.term, Batch.from_atoms([moved])).forces(centre, centre + 1)
                ends.append(float(self.term.whiten(rows)[axis] @ w))
            springs.append((ends[0] - ends[1]) / (2 * STEP))
        return float(np.mean(springs)) * near.min() ** 4 / QUANTUM


def ridge(A: np.ndarray) -> float:
    """The prior's 1, or more where noise so small that rounding would win meets labels of another unit."""
    return max(1.0, 1e-11 * float(A.diagonal().max()))


def free_atoms(numbers: np.ndarray) -> float:
    """Energy of free atoms with all their electrons, eV, to some 2 %."""
    z = np.asarray(numbers, dtype=float)
    return float(units.Hartree * np.sum(-0.76875 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)))


class _Group:
    """Rows of a group of structures."""

    def __init__(self, term: SparseTerm, data: TrainingData):
        self.term, self.data = term, data

    def __call__(self, group):
        first, frames = group
        labels = self.data.labels[first : first + len(frames)]
        parts = []
        for table in tables([self.term], frames, labels, self.data.references, first):
            columns = np.split(table.rows, np.cumsum([len(x) for x in self.term.points])[:-1], axis=1)
            k = KINDS.index(table.kind)
            parts.append((self.term.whiten(columns), table.targets, np.full(len(table), k), table.structure))
        if not parts:
            return np.empty((0, self.term.rank)), np.empty(0), np.empty(0, int), np.empty(0, int)
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def leave_out(rows: Rows, seen: np.ndarray, noise: Mapping[str, float]) -> LeftOut:
    """Every label as predicted by a fit to the rows ``seen`` (n,) bool of the other structures, and to all but its own kind's."""
    sigma = np.array([noise[kind] for kind in KINDS])[rows.kind]
    Phi, y = rows.array / sigma[:, None], rows.target / sigma
    A = Phi[seen].T @ Phi[seen]
    A.flat[:: len(A) + 1] += ridge(A)
    factor = cho_factor(A, lower=True)
    error = y - Phi @ cho_solve(factor, Phi[seen].T @ y[seen])
    V = solve_triangular(factor[0], Phi.T, lower=True, check_finite=False)
    errors, variances = np.tile(error, (2, 1)), np.empty((2, len(y)))
    for mine in rows.of.values():
        H, e, kind = V[:, mine].T @ V[:, mine], error[mine], rows.kind[mine]
        errors[0, mine], variances[0, mine] = _without(H, e, np.flatnonzero(seen[mine]))
        for k in np.unique(kind):
            own = np.flatnonzero(kind == k)
            here = own + mine.start
            errors[1, here], variances[1, here] = _without(H[np.ix_(own, own)], e[own], np.flatnonzero(seen[here]))
    expected, std = (y - errors) * sigma, np.sqrt(np.maximum(variances, 1.0)) * sigma
    return LeftOut(expected[0], std[0], expected[1], std[1], noise)


def _without(H: np.ndarray, error: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors and their variances of labels with influence H on each other, when the fit has not seen those at ``out``."""
    variance = 1 + np.diagonal(H)
    if not len(out):
        return error, variance
    G = np.eye(len(out)) - H[np.ix_(out, out)]
    G.flat[:: len(G) + 1] += 1e-9
    solved = np.linalg.solve(G, np.column_stack([error[out], H[out]]))
    return error + H[:, out] @ solved[:, 0], variance + np.einsum("ij,ji->i", H[:, out], solved[:, 1:])
