"""Posterior of a Gaussian process whose representers are observations: all of them (exact), or a chosen part (Nyström).

Exact: variance k_LL − |L⁻¹k_L|² with L Lᵀ = K + Σ. Nyström: features φ_L = Tᵀ k_L of the chosen observations, then as for sparse points,
k_LL − |φ_L|² + |R⁻ᵀφ_L|².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines.base import Mean
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.kernels import Kernel
from soapkrr.linear import Posterior
from soapkrr.prediction import Prediction
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.mean import evaluate
from soapkrr.regression.observed import Group, Layout, block_covariance, covariance, observe
from soapkrr.structures import Batch


@dataclass(frozen=True, eq=False)
class ObservationModel:
    """Mean and variance from the weights of observations.

    Attributes
    ----------
    parts : one per term, the collapsed mean.  groups : one list per term, the training structures' observations.
    picked : positions (`Layout` order) of the representers.
    factor : lower Cholesky factor of K + Σ over them (exact), or None.  transform, posterior : of the Nyström features, or None.
    """

    parts: list[CollapsedPart]
    groups: list[list[Group]]
    picked: np.ndarray
    factor: np.ndarray | None
    transform: np.ndarray | None = None
    posterior: Posterior | None = None
    threads: int | None = None

    def predict(self, batch: Batch, first: int, mean: Mean, wanted: frozenset[str]) -> Prediction:
        """Prediction of a batch on top of a prior ``mean``."""
        energies, forces, strain = (a + b for a, b in zip(mean, evaluate(self.parts, batch, first, self.threads), strict=True))
        per_atom = batch.offsets[1:-1]
        return Prediction(
            energy=np.bincount(batch.structure, energies, minlength=len(batch)),
            energies=np.split(energies, per_atom),
            forces=np.split(forces, per_atom),
            stress=strain / batch.volumes[:, None],
            **self._deviations(batch, wanted),
        )

    def _deviations(self, batch: Batch, wanted: frozenset[str]) -> dict:
        bounds = zip(batch.offsets, batch.offsets[1:], batch.cells, batch.pbc, strict=False)
        frames = [Atoms(batch.numbers[a:b], batch.positions[a:b], cell=c, pbc=p) for a, b, c, p in bounds]
        std: dict = {}
        if "energy" in wanted:
            std["energy_std"] = np.array([self._structure_std(atoms)[0] for atoms in frames])
            std["energies_std"] = [self._std([single_atoms(p.descriptor, atoms) for p in self.parts]) for atoms in frames]
        if "forces" in wanted:
            std["forces_std"] = [self._structure_std(atoms, forces=True)[1:].reshape(-1, 3) for atoms in frames]
        if "stress" in wanted:
            std["stress_std"] = np.array(
                [self._structure_std(atoms, stress=True)[1:] if atoms.pbc.all() else np.full(6, np.nan) for atoms in frames]
            )
        return std

    def _structure_std(self, atoms: Atoms, forces: bool = False, stress: bool = False) -> np.ndarray:
        """(1 + k,) posterior standard deviations of the energy and the derivatives of one structure."""
        return self._std([observe(p.descriptor, [atoms], [forces], [stress], self.threads) for p in self.parts])

    def _std(self, queries: list[list[Group]]) -> np.ndarray:
        cross, prior = 0.0, 0.0
        for part, query, trained in zip(self.parts, queries, self.groups, strict=True):
            cross = cross + part.signal**2 * covariance(part.kernel, query, trained, self.threads)[:, self.picked]
            prior = prior + part.signal**2 * variances(part.kernel, query)
        if self.factor is not None:
            half = linear.forward(self.factor, cross.T)
            return np.sqrt(np.maximum(prior - np.einsum("no,no->o", half, half), 0.0))
        phi = cross @ self.transform
        return np.sqrt(np.maximum(prior - np.einsum("or,or->o", phi, phi), 0.0) + self.posterior.spread(phi))


def single_atoms(descriptor: Descriptor, atoms: Atoms) -> list[Group]:
    """Groups in which every atom stands alone, in the order of the atoms."""
    batch = Batch.from_atoms([atoms])
    env = descriptor.environments(batch, batch.pairs(descriptor.r_cut))
    groups, d = [], env.X.shape[1]
    for s in np.unique(env.pairs.kinds):
        members = np.flatnonzero(env.pairs.kinds == s)
        X = [env.X[members][:, None] if t == s else np.zeros((len(members), 0, d)) for t in range(len(descriptor.species))]
        groups.append(Group(X, [np.zeros((*x.shape, 0)) for x in X], members))
    return groups


def variances(kernel: Kernel, groups: list[Group]) -> np.ndarray:
    """Prior variances of every observation of the groups, `Layout` order; unit signal."""
    layout = Layout(groups)
    out = np.empty(layout.size)
    for group in groups:
        for s in range(len(group)):
            own = block_covariance(kernel, group, s, group, slice(s, s + 1))[:, 0]
            out[layout.rows(group, slice(s, s + 1)).ravel()] = np.diagonal(own)
    return out


def collapse(terms, groups, weights: np.ndarray) -> list[CollapsedPart]:
    """The collapsed mean of every term from the weights of all observations."""
    return [CollapsedPart.collapse(t, g, weights) for t, g in zip(terms, groups, strict=True)]


def exact(terms, groups, K: np.ndarray, y: np.ndarray, sigma: np.ndarray, threads: int | None) -> tuple[ObservationModel, float]:
    """Every known observation a representer; the model and its log evidence. K (all observations) is overwritten."""
    known = np.flatnonzero(np.isfinite(sigma))
    if len(known) < len(y):
        K = K[np.ix_(known, known)]
    K.reshape(-1)[:: len(K) + 1] += sigma[known] ** 2
    try:
        L = linear.cholesky(K, threads)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the covariance of the observations is not positive definite ({error}); raise `noise`.") from error
    half = linear.forward(L, y[known])
    weights = np.zeros(len(y))
    weights[known] = linear.backward(L, half)
    evidence = -0.5 * half @ half - np.log(np.diagonal(L)).sum() - 0.5 * len(half) * np.log(2 * np.pi)
    return ObservationModel(collapse(terms, groups, weights), groups, known, L, threads=threads), float(evidence)


def pivoted_cholesky(K: np.ndarray, scale: np.ndarray, n: int, tolerance: float) -> np.ndarray:
    """Pivots of K, each the row of largest remaining variance over ``scale``², until n or until all are below ``tolerance`` × the first.

    K is only read. Source: Harbrecht, Peters and Schneider 2012, doi 10.1016/j.apnum.2011.10.001.
    """
    left = np.diagonal(K).copy()
    rows, picked = np.empty((min(n, len(K)), len(K))), []
    first = (left / scale**2).max()
    for k in range(len(rows)):
        pivot = int(np.argmax(left / scale**2))
        if left[pivot] / scale[pivot] ** 2 <= tolerance * first:
            break
        rows[k] = (K[pivot] - rows[:k, pivot] @ rows[:k]) / np.sqrt(left[pivot])
        left -= rows[k] ** 2
        left[pivot] = 0.0
        picked.append(pivot)
    return np.array(picked, dtype=np.int64)


def nystrom(terms, groups, K, y, sigma, kinds, noise, n: int, tolerance: float, threads: int | None) -> ObservationModel:
    """Up to ``n`` observations chosen by pivoted Cholesky of their covariance in units of their noise, fitted to all observations."""
    known = np.flatnonzero(np.isfinite(sigma))
    picked = known[pivoted_cholesky(K[np.ix_(known, known)], sigma[known], n, tolerance)]
    transform = linear.whitening(K[np.ix_(picked, picked)], tolerance)
    unit = np.column_stack([K[np.ix_(known, picked)] @ transform, y[known]])
    levels = np.array([noise[k] for k in ("energy", "forces", "stress")])[kinds[known]]
    unit *= (levels / sigma[known])[:, None]
    factors = {
        name: linear.merge([unit[kinds[known] == k]]) for k, name in enumerate(("energy", "forces", "stress")) if (kinds[known] == k).any()
    }
    posterior = linear.solve(factors, {name: noise[name] for name in factors})
    weights = np.zeros(len(y))
    weights[picked] = transform @ posterior.mean
    return ObservationModel(collapse(terms, groups, weights), groups, picked, None, transform, posterior, threads)
