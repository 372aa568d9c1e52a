"""Posterior of a Gaussian process whose representers are observations: all of them (exact), or a chosen part (Nyström).

Exact: variance k_LL − |L⁻¹k_L|² with L Lᵀ = K + Σ. Nyström: features φ_L = Tᵀ k_L of the chosen observations, then as for sparse points,
k_LL − |φ_L|² + |R⁻ᵀφ_L|².
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import ModelFileError
from soapkrr.labels import KINDS
from soapkrr.linear import Posterior
from soapkrr.regression import stored
from soapkrr.regression.evaluate import evaluate
from soapkrr.regression.exact.atoms import atom_covariance, summed, total_priors
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.covariance import Composition, ObservedStructures, covariance, observe, single_atoms, variances
from soapkrr.regression.explained import Explained
from soapkrr.regression.process import Deviations, Process
from soapkrr.structures import Batch, Mean, split_by_atoms

if TYPE_CHECKING:
    from soapkrr.regression.functionals import Functionals

#: Covariances of atoms with observations held at once.
ROWS = 500_000


@dataclass(frozen=True, eq=False, kw_only=True)
class ObservationProcess(Process):
    """Mean from the weights of observations.

    Attributes
    ----------
    parts : one per term, the collapsed mean.  structures : what was observed.
    """

    parts: list[CollapsedPart]
    structures: ObservedStructures
    threads: int | None = None

    @property
    def descriptors(self):
        """See `Process.descriptors`."""
        return tuple(part.descriptor for part in self.parts)

    @property
    def signals(self):
        """See `Process.signals`."""
        return tuple(part.signal for part in self.parts)

    def state(self):
        """See `Process.state`; the structures are kept, for the variances."""
        return {"parts": [p.state() for p in self.parts], "structures": self.structures.state()}

    def evaluate(self, batch: Batch, wanted: frozenset[str]) -> tuple[Mean, Deviations]:
        """See `Process.evaluate`."""
        mean = Mean(*backends.host(tuple(evaluate(self.parts, batch, self.threads))))
        std = self.energy_deviations(batch, wanted) if "energies" in wanted else {}
        kinds = wanted & {"forces", "stress"}
        if kinds:
            parts = [self._derivative_std(alone, kinds) for alone in _one_by_one(batch)]
            std |= {kind: np.concatenate([part[kind] for part in parts]) for kind in kinds}
        return mean, Deviations(**std)

    def energy_deviations(self, batch: Batch, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """{kind: standard deviations} of the energies of atoms and, where ``wanted``, of structures; NumPy arrays."""
        single = [single_atoms(part.descriptor, batch, self.xp) for part in self.parts]
        std = {"energies": self.deviations(single)}
        if "energy" in wanted:
            std["energy"] = np.concatenate([self._structure_std(alone) for alone in _one_by_one(batch)])
        return std

    def _derivative_std(self, batch: Batch, kinds: frozenset[str]) -> dict[str, np.ndarray]:
        """{kind: standard deviations} of one structure, (n_atoms, 3) of the forces and (1, 6) of the stress; observed once for both."""
        forces, stress = "forces" in kinds, "stress" in kinds and bool(batch.pbc.all())
        std = self._structure_std(batch, forces, stress)[1:] if forces or stress else np.empty(0)
        of_forces, of_stress = np.split(std, [3 * batch.n_atoms * forces])
        found = {"forces": of_forces.reshape(-1, 3), "stress": of_stress[None] if stress else np.full((1, 6), np.nan)}
        return {kind: found[kind] for kind in kinds}

    def _structure_std(self, batch: Batch, forces: bool = False, stress: bool = False) -> np.ndarray:
        """(1 + k,) posterior standard deviations of the energy and the derivatives of one structure."""
        atoms = [batch.take(0)]
        return self.deviations([observe(p.descriptor, atoms, [forces], [stress], self.threads, self.xp) for p in self.parts])

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return self.parts[0].xp

    def covariance(self, functionals):
        """See `Process.covariance`."""
        prior = sum(functionals.seen(part.descriptor, self.xp).prior(part, self.threads) for part in self.parts)
        return self.joint(self.crossing(functionals), prior)

    def crossing(self, functionals: Functionals) -> np.ndarray:
        """(n, n_representers) prior covariances of functionals with the representers, a NumPy array."""
        pairs = [(functionals.seen(part.descriptor, self.xp), part) for part in self.parts]
        return np.array([self.observed([seen.potential(part, row) for seen, part in pairs]) for row in range(len(functionals))])

    def explained(self, functionals):
        """See `Process.explained`: everything."""
        return Explained(self.covariance(functionals))

    @abstractmethod
    def observed(self, potentials: list[CollapsedPart]) -> np.ndarray:
        """(n_representers,) what the representers observe of a sum of potentials, one for each term; a NumPy array."""

    @abstractmethod
    def joint(self, cross: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """(n, n) posterior covariance from covariances (n, n_representers) with the representers and the prior's (n, n); NumPy arrays."""

    @abstractmethod
    def deviations(self, queries: list[list[Composition]]) -> np.ndarray:
        """(n,) posterior standard deviations of the observations that each term's ``queries`` stand for, a NumPy array."""


def _one_by_one(batch: Batch) -> Iterator[Batch]:
    """Batches of one structure each."""
    return (Batch.from_atoms([batch.take(s)], batch.first + s) for s in range(len(batch)))


def restored_parts(state) -> tuple[list[CollapsedPart], ObservedStructures]:
    """The collapsed mean of each term and the structures, which have as many environments of each species."""
    parts, structures = [CollapsedPart.restore(part) for part in state["parts"]], ObservedStructures.restore(state["structures"])
    numbers = np.concatenate([atoms.numbers for atoms in structures.frames])
    for part in parts:
        there = np.bincount(part.descriptor.kinds(numbers), minlength=len(part.points))
        if there.tolist() != [len(x) for x in part.points]:
            raise ModelFileError(f"the arrays do not fit together: {there.tolist()} atoms of each species, environments of others.")
    if not parts:
        raise ModelFileError("the file holds a process without terms.")
    return parts, structures


@dataclass(frozen=True, eq=False, kw_only=True)
class MatrixProcess(ObservationProcess):
    """A process that keeps its representers with their derivatives.

    Attributes
    ----------
    compositions : one list per term, the structures as the term's descriptor sees them.  picked : places (`Layout`) of the representers.
    """

    compositions: list[list[Composition]]
    picked: np.ndarray

    def _on(self, xp, threads):
        compositions = [[same.moved(xp) for same in of_term] for of_term in self.compositions]
        return replace(self, parts=[part.moved(xp) for part in self.parts], compositions=compositions, threads=threads, **self._moved(xp))

    @abstractmethod
    def _moved(self, xp) -> dict:
        """Further attributes as arrays of ``xp``."""

    def representers(self) -> dict[str, int]:
        """{kind: number of representers}, of kinds that occur."""
        numbers = np.bincount(self.structures.layout.kinds[self.picked], minlength=len(KINDS))
        return {kind: int(n) for kind, n in zip(KINDS, numbers, strict=True) if n}

    def state(self):
        """See `Process.state`."""
        return {**super().state(), "picked": self.picked}

    @classmethod
    def restore(cls, state, threads):
        """See `Process.restore`."""
        parts, structures = restored_parts(state)
        picked, size = stored.array(state["picked"], "picked", "i", (None,)), structures.layout.size
        if not len(picked) or picked.min() < 0 or picked.max() >= size:
            raise ModelFileError(f"the arrays do not fit together: {size} observations, and representers that are none of them.")
        matrices = cls._matrices(state, len(picked))
        compositions = [structures.compositions(part.descriptor, threads) for part in parts]
        return cls(parts=parts, structures=structures, compositions=compositions, picked=picked, **matrices)

    @classmethod
    @abstractmethod
    def _matrices(cls, state, n: int) -> dict:
        """Further attributes from `state`, checked, of n representers."""

    def energy_deviations(self, batch, wanted):
        """See `ObservationProcess.energy_deviations`: of some structures at a time, all atoms at once."""
        groups = split_by_atoms(batch.frames, max(1, ROWS // self.structures.layout.size))
        parts = [self._energy_deviations(Batch.from_atoms(some, batch.first + first), wanted) for first, some in groups]
        return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def _energy_deviations(self, batch: Batch, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        cross, prior, total = 0.0, 0.0, 0.0
        for part, trained in zip(self.parts, self.compositions, strict=True):
            env, scale = part.descriptor.environments(batch, self.xp), part.signal**2
            cross = cross + scale * atom_covariance(part.kernel, env, trained, self.threads)[:, self.xp.asarray(self.picked)]
            prior = prior + scale * part.kernel.diagonal(env.X)
            total = total + scale * total_priors(part.kernel, env) if "energy" in wanted else total
        std = {"energies": self.from_covariances(cross, prior)}
        if "energy" in wanted:
            std["energy"] = self.from_covariances(summed(cross, batch), total)
        return std

    def observed(self, potentials):
        """See `ObservationProcess.observed`."""
        observed = sum(one.observed(trained) for one, trained in zip(potentials, self.compositions, strict=True))
        return backends.host(observed)[self.picked]

    def deviations(self, queries):
        """See `ObservationProcess.deviations`."""
        return self.from_covariances(*self.cross(queries))

    @abstractmethod
    def from_covariances(self, cross: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """(n,) standard deviations from covariances (n, n_representers) with the representers and prior variances (n,); a NumPy array."""

    def cross(self, queries) -> tuple[np.ndarray, np.ndarray]:
        """Covariances (n, n_representers) of what is asked with the representers, and prior variances (n,)."""
        cross, prior = 0.0, 0.0
        picked = self.xp.asarray(self.picked)
        for part, query, trained in zip(self.parts, queries, self.compositions, strict=True):
            cross = cross + part.signal**2 * covariance(part.kernel, query, trained, self.threads)[:, picked]
            prior = prior + part.signal**2 * variances(part.kernel, query)
        return cross, prior


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactProcess(MatrixProcess):
    """The exact process: every known observation is a representer.

    Attributes
    ----------
    factor : lower Cholesky factor of K + Σ.
    """

    factor: np.ndarray

    def _moved(self, xp):
        return {"factor": backends.moved(xp, self.factor)}

    def state(self):
        """See `Process.state`."""
        return {**super().state(), "factor": self.factor}

    @classmethod
    def _matrices(cls, state, n):
        return {"factor": stored.factor(state["factor"], "factor", n)}

    def joint(self, cross, prior):
        """See `ObservationProcess.joint`."""
        half = linear.forward(self.factor, self.xp.asarray(cross.T))
        return prior - backends.host(half.T @ half)

    def from_covariances(self, cross, prior):
        """See `MatrixProcess.from_covariances`."""
        half = linear.forward(self.factor, cross.T)
        return backends.host(self.xp.sqrt(self.xp.maximum(prior - self.xp.einsum("no,no->o", half, half), 0.0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class SubsetProcess(MatrixProcess):
    """The process on features of chosen observations.

    Attributes
    ----------
    transform : T (n_representers, r), features from covariances.  posterior : of the weights of the features.
    """

    transform: np.ndarray
    posterior: Posterior

    def _moved(self, xp):
        return {"transform": backends.moved(xp, self.transform), "posterior": self.posterior.moved(xp)}

    def state(self):
        """See `Process.state`."""
        return {**super().state(), "transform": self.transform, "posterior": self.posterior.state()}

    @classmethod
    def _matrices(cls, state, n):
        posterior = stored.posterior(state["posterior"])
        return {"transform": stored.array(state["transform"], "transform", shape=(n, len(posterior.mean))), "posterior": posterior}

    def joint(self, cross, prior):
        """See `ObservationProcess.joint`."""
        return self.posterior.covariance(self.xp.asarray(cross) @ self.transform, prior)

    def explained(self, functionals):
        """See `Process.explained`: φ_L·(RᵀR)⁻¹φ_L′."""
        phi = self.xp.asarray(self.crossing(functionals)) @ self.transform
        return Explained(rows=backends.host(self.posterior.half(phi).T))

    def from_covariances(self, cross, prior):
        """See `MatrixProcess.from_covariances`."""
        phi = cross @ self.transform
        left = self.xp.maximum(prior - self.xp.einsum("or,or->o", phi, phi), 0.0)
        return backends.host(self.xp.sqrt(left + self.posterior.variance(phi)))
