"""Posterior of a Gaussian process whose representers are observations: all of them (exact), or a chosen part (Nyström).

Exact: variance k_LL − |L⁻¹k_L|² with L Lᵀ = K + Σ. Nyström: features φ_L = Tᵀ k_L of the chosen observations, then as for sparse points,
k_LL − |φ_L|² + |R⁻ᵀφ_L|².
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from soapkrr import backends, linear
from soapkrr.errors import ModelFileError
from soapkrr.labels import KINDS
from soapkrr.linear import Posterior
from soapkrr.regression.evaluate import evaluate
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.covariance import Composition, ObservedStructures, covariance, observe, single_atoms, variances
from soapkrr.regression.process import Deviations, Process
from soapkrr.structures import Batch, Mean


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
        std: dict = {kind: [] for kind in wanted}
        for s in range(len(batch)):
            own, at = Batch.from_atoms([batch.take(s)], batch.first + s), [part.descriptor for part in self.parts]
            if "energy" in wanted:
                std["energy"].append(self._structure_std(own)[:1])
            if "energies" in wanted:
                std["energies"].append(self.deviations([single_atoms(d, own, self.xp) for d in at]))
            if "forces" in wanted:
                std["forces"].append(self._structure_std(own, forces=True)[1:].reshape(-1, 3))
            if "stress" in wanted:
                std["stress"].append(self._structure_std(own, stress=True)[None, 1:] if own.pbc.all() else np.full((1, 6), np.nan))
        return mean, Deviations(**{kind: np.concatenate(values) for kind, values in std.items()})

    def _structure_std(self, batch: Batch, forces: bool = False, stress: bool = False) -> np.ndarray:
        """(1 + k,) posterior standard deviations of the energy and the derivatives of one structure."""
        atoms = [batch.take(0)]
        return self.deviations([observe(p.descriptor, atoms, [forces], [stress], self.threads, self.xp) for p in self.parts])

    @property
    def xp(self):
        """The library of its arrays: where it is evaluated."""
        return self.parts[0].xp

    @abstractmethod
    def deviations(self, queries: list[list[Composition]]) -> np.ndarray:
        """(n,) posterior standard deviations of the observations that each term's ``queries`` stand for, a NumPy array."""


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
        parts, structures = [CollapsedPart.restore(part) for part in state["parts"]], ObservedStructures.restore(state["structures"])
        compositions = [structures.compositions(part.descriptor, threads) for part in parts]
        if state["picked"].max() >= structures.layout.size:
            raise ModelFileError(
                f"the arrays do not fit together: {structures.layout.size} observations, the last is {state['picked'].max()}."
            )
        common = {"parts": parts, "structures": structures, "compositions": compositions, "picked": state["picked"]}
        return cls(**common, **cls._matrices(state, len(state["picked"])))

    @classmethod
    @abstractmethod
    def _matrices(cls, state, n: int) -> dict:
        """Further attributes from `state`, checked, of n representers."""

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
        if state["factor"].shape != (n, n):
            raise ModelFileError(f"the arrays do not fit together: {n} observations, matrix {state['factor'].shape}.")
        return {"factor": state["factor"]}

    def deviations(self, queries):
        """See `ObservationProcess.deviations`."""
        cross, prior = self.cross(queries)
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
        posterior, transform = Posterior(**state["posterior"]), state["transform"]
        rank = len(posterior.mean)
        if transform.shape != (n, rank) or posterior.factor.shape != (rank, rank):
            raise ModelFileError(
                f"the arrays do not fit together: {n} observations, {rank} features, "
                f"transform {transform.shape}, factor {posterior.factor.shape}."
            )
        return {"transform": transform, "posterior": posterior}

    def deviations(self, queries):
        """See `ObservationProcess.deviations`."""
        cross, prior = self.cross(queries)
        phi = cross @ self.transform
        left = self.xp.maximum(prior - self.xp.einsum("or,or->o", phi, phi), 0.0)
        return backends.host(self.xp.sqrt(left + self.posterior.variance(phi)))
