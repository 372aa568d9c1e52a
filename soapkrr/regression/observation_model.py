"""Posterior of a Gaussian process whose representers are observations: all of them (exact), or a chosen part (Nyström).

Exact: variance k_LL − |L⁻¹k_L|² with L Lᵀ = K + Σ. Nyström: features φ_L = Tᵀ k_L of the chosen observations, then as for sparse points,
k_LL − |φ_L|² + |R⁻ᵀφ_L|². Exact without a factor: k_LL − k_Lᵀ(K + Σ)⁻¹k_L by conjugate gradients, one system for each L.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase import Atoms

from soapkrr import backends, linear
from soapkrr.baselines.base import Mean
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import ModelFileError
from soapkrr.kernels import Kernel
from soapkrr.linear import Posterior
from soapkrr.prediction import Prediction
from soapkrr.regression.collapsed import CollapsedPart
from soapkrr.regression.conjugate_gradients import ObservedSystem
from soapkrr.regression.mean import evaluate
from soapkrr.regression.observed import Group, Layout, ObservedStructures, block_covariance, covariance, observe
from soapkrr.regression.operator import CovarianceOperator
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.structures import Batch


@dataclass(frozen=True, eq=False)
class ObservationModel:
    """Mean and variance from the weights of observations.

    Attributes
    ----------
    parts : one per term, the collapsed mean.
    structures : what was observed.  groups : one list per term, the same as the term's descriptor sees it.
    picked : positions (`Layout` order) of the representers.
    factor : lower Cholesky factor of K + Σ over them (exact), or None.  transform, posterior : of the Nyström features, or None.
    """

    parts: list[CollapsedPart]
    structures: ObservedStructures
    groups: list[list[Group]]
    picked: np.ndarray
    factor: np.ndarray | None = None
    transform: np.ndarray | None = None
    posterior: Posterior | None = None
    threads: int | None = None

    @property
    def signals(self) -> tuple[float, ...]:
        """Prior standard deviation of an atom's energy, of each term."""
        return tuple(part.signal for part in self.parts)

    def on(self, xp, threads: int | None) -> ObservationModel:
        """The same computing with arrays of ``xp`` on so many threads; made once."""
        copies = self.__dict__.setdefault("_copies", {})
        key = (xp.__name__, threads)
        if key not in copies:
            copies[key] = replace(self, threads=threads, **self._moved(xp))
        return copies[key]

    def _moved(self, xp) -> dict:
        return {
            "parts": [part.moved(xp) for part in self.parts],
            "groups": [[group.moved(xp) for group in of_term] for of_term in self.groups],
            "factor": backends.moved(xp, self.factor),
            "transform": backends.moved(xp, self.transform),
            "posterior": None if self.posterior is None else self.posterior.moved(xp),
        }

    def __getstate__(self):
        """Without the copies."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def counts(self) -> dict[str, int]:
        """{kind: number of representers}, of kinds that occur."""
        seen = self.structures
        kinds = [[0] + [1] * 3 * len(a) * f + [2] * 6 * s for a, f, s in zip(seen.frames, seen.forces, seen.stress, strict=True)]
        numbers = np.bincount(np.concatenate(kinds)[self.picked], minlength=3)
        return {kind: int(n) for kind, n in zip(("energy", "forces", "stress"), numbers, strict=True) if n}

    def state(self) -> dict:
        """For a model file; the structures are kept, for the variances."""
        state = {"parts": [p.state() for p in self.parts], "structures": self.structures.state(), "picked": self.picked}
        if self.posterior is None:
            return {**state, "factor": self.factor}
        posterior = {name: getattr(self.posterior, name) for name in ("mean", "factor", "condition", "residual")}
        return {**state, "transform": self.transform, "posterior": posterior}

    @classmethod
    def restore(cls, state: dict, threads: int | None) -> ObservationModel:
        """From `state`; raises `ModelFileError` where the parts do not fit together."""
        parts, structures = [CollapsedPart.restore(part) for part in state["parts"]], ObservedStructures.restore(state["structures"])
        groups = [structures.groups(part.descriptor, threads) for part in parts]
        posterior = Posterior(**state["posterior"]) if "posterior" in state else None
        arrays = (state["picked"], state.get("factor"), state.get("transform"))
        model = cls(parts, structures, groups, *arrays, posterior, threads)
        matrix = model.factor if posterior is None else model.transform
        rank = len(model.picked) if posterior is None else len(posterior.mean)
        if matrix.shape != (len(model.picked), rank) or model.picked.max() >= Layout(groups[0]).size:
            raise ModelFileError(f"the arrays do not fit together: {len(model.picked)} observations, matrix {matrix.shape}.")
        if posterior is not None and posterior.factor.shape != (rank, rank):
            raise ModelFileError(f"the arrays do not fit together: {rank} features, factor {posterior.factor.shape}.")
        return model

    def predict(self, batch: Batch, first: int, mean: Mean, wanted: frozenset[str]) -> Prediction:
        """Prediction of a batch on top of a prior ``mean``."""
        own = backends.host(evaluate(self.parts, batch, first, self.threads))
        energies, forces, strain = (a + b for a, b in zip(mean, own, strict=True))
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
        if "energies" in wanted:
            std["energies_std"] = [self._std([single_atoms(p.descriptor, atoms, p.xp) for p in self.parts]) for atoms in frames]
        if "forces" in wanted:
            std["forces_std"] = [self._structure_std(atoms, forces=True)[1:].reshape(-1, 3) for atoms in frames]
        if "stress" in wanted:
            std["stress_std"] = np.array(
                [self._structure_std(atoms, stress=True)[1:] if atoms.pbc.all() else np.full(6, np.nan) for atoms in frames]
            )
        return std

    def _structure_std(self, atoms: Atoms, forces: bool = False, stress: bool = False) -> np.ndarray:
        """(1 + k,) posterior standard deviations of the energy and the derivatives of one structure."""
        return self._std([observe(p.descriptor, [atoms], [forces], [stress], self.threads, p.xp) for p in self.parts])

    def _std(self, queries: list[list[Group]]) -> np.ndarray:
        cross, prior, xp = 0.0, 0.0, self.parts[0].xp
        for part, query, trained in zip(self.parts, queries, self.groups, strict=True):
            cross = cross + part.signal**2 * covariance(part.kernel, query, trained, self.threads)[:, xp.asarray(self.picked)]
            prior = prior + part.signal**2 * variances(part.kernel, query)
        if self.factor is not None:
            half = linear.forward(self.factor, cross.T)
            return backends.host(xp.sqrt(xp.maximum(prior - xp.einsum("no,no->o", half, half), 0.0)))
        phi = cross @ self.transform
        return backends.host(xp.sqrt(xp.maximum(prior - xp.einsum("or,or->o", phi, phi), 0.0) + self.posterior.spread(phi)))


@dataclass(frozen=True, eq=False)
class IterativeModel(ObservationModel):
    """The exact process without a factor of K + Σ: variances solve for it again. ``groups`` is empty, ``picked`` what is known.

    Attributes
    ----------
    sigma : (n_observations,) noise, NaN where unknown.  sparse : sparse terms of the preconditioner.
    tolerance : relative, of standard deviations.  residual, iterations : of the fit.  device : where K + Σ is solved for.
    """

    sigma: np.ndarray | None = None
    sparse: tuple[SparseTerm, ...] = ()
    tolerance: float = 1e-4
    residual: float = np.nan
    iterations: int = 0
    device: str = "cpu"

    @cached_property
    def system(self) -> ObservedSystem:
        """K + Σ, made when the first variance is asked for."""
        terms = [Term(part.descriptor, part.kernel, signal=part.signal) for part in self.parts]
        xp = backends.library(self.device)
        operator = CovarianceOperator(terms, self.structures, self.threads, xp)
        return ObservedSystem.of(operator, self.sigma, [term.moved(xp) for term in self.sparse], self.threads)

    def _moved(self, xp) -> dict:
        return {"parts": [part.moved(xp) for part in self.parts], "device": "cpu" if xp is np else "cuda"}

    def state(self) -> dict:
        """For a model file."""
        own = {name: getattr(self, name) for name in ("picked", "sigma", "residual", "iterations")}
        return {
            "parts": [p.state() for p in self.parts],
            "structures": self.structures.state(),
            "sparse": [t.state() for t in self.sparse],
            **own,
        }

    @classmethod
    def restore(cls, state: dict, threads: int | None, tolerance: float, device: str) -> IterativeModel:
        """From `state`; raises `ModelFileError` where the parts do not fit together."""
        parts, structures = [CollapsedPart.restore(part) for part in state["parts"]], ObservedStructures.restore(state["structures"])
        sparse = tuple(SparseTerm.restore(term) for term in state["sparse"])
        own = {name: state[name] for name in ("sigma", "residual", "iterations")}
        if len(own["sigma"]) != structures.size or len(sparse) != len(parts):
            raise ModelFileError(f"the arrays do not fit together: {structures.size} observations, {len(own['sigma'])} noise levels.")
        return cls(parts, structures, [], state["picked"], threads=threads, sparse=sparse, tolerance=tolerance, device=device, **own)

    def _std(self, queries: list[list[Group]]) -> np.ndarray:
        pairs = zip(self.parts, queries, strict=True)
        priors = backends.host(sum(part.signal**2 * variances(part.kernel, query) for part, query in pairs))
        left = np.empty_like(priors)
        for row, prior in enumerate(priors):
            unit = np.zeros(len(priors))
            unit[row] = 1.0
            parts = [CollapsedPart.collapse(part, query, unit) for part, query in zip(self.parts, queries, strict=True)]
            parts = [part.moved(self.system.operator.xp) for part in parts]
            left[row] = prior - self.system.explained(self.system.operator.observe(parts), prior, self.tolerance)
        return np.sqrt(np.maximum(left, 0.0))


def single_atoms(descriptor: Descriptor, atoms: Atoms, xp=np) -> list[Group]:
    """Groups in which every atom stands alone, in the order of the atoms."""
    batch = Batch.from_atoms([atoms])
    env = descriptor.environments(batch, batch.pairs(descriptor.r_cut, xp=xp))
    groups, d, kinds = [], env.X.shape[1], descriptor.kinds(atoms.numbers)
    for s in np.unique(kinds):
        members = np.flatnonzero(kinds == s)
        x = env.X[xp.asarray(members)][:, None]
        X = [x if t == s else xp.zeros((len(members), 0, d)) for t in range(len(descriptor.species))]
        groups.append(Group(X, [xp.zeros((*x.shape, 0)) for x in X], members))
    return groups


def variances(kernel: Kernel, groups: list[Group]) -> np.ndarray:
    """Prior variances of every observation of the groups, `Layout` order; unit signal."""
    layout = Layout(groups)
    xp = groups[0].xp
    out = xp.empty(layout.size)
    for group in groups:
        for s in range(len(group)):
            own = block_covariance(kernel, group, s, group, slice(s, s + 1))[:, 0]
            out[xp.asarray(layout.rows(group, slice(s, s + 1)).ravel())] = xp.diagonal(own)
    return out
