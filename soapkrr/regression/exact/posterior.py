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
from soapkrr.prediction import TOTAL
from soapkrr.regression import stored
from soapkrr.regression.exact.atoms import atom_covariance, structure_covariance, summed
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.compositions import Composition, located
from soapkrr.regression.exact.covariance import covariance, total_covariance, variances
from soapkrr.regression.exact.process import ObservationProcess, restored_parts
from soapkrr.regression.explained import Explained
from soapkrr.regression.terms import total_priors
from soapkrr.structures import Batch, split_by_atoms

#: Eigenvalues of the covariance of observations, in units of their noise, below this fraction of the largest are not sampled.
SAMPLED = 1e-12

#: Covariances of atoms with observations held at once.
ROWS = 500_000


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
        if TOTAL in wanted:
            return {"energy": self._total_deviations(batch)}
        cross, prior, total = 0.0, 0.0, 0.0
        for part, trained in zip(self.parts, self.compositions, strict=True):
            env, scale = part.descriptor.environments(batch, self.xp), part.signal**2
            cross = cross + scale * atom_covariance(part.kernel, env, trained, self.threads)[:, self.xp.asarray(self.picked)]
            prior = prior + scale * part.kernel.diagonal(env.X)
            if "energy" in wanted:
                kinds = part.descriptor.kinds(batch.numbers)
                total = total + scale * total_priors(part.kernel, env.X, kinds, batch.offsets, self.threads)
        std = {"energies": self.from_covariances(cross, prior)}
        if "energy" in wanted:
            std["energy"] = self.from_covariances(summed(cross, batch), total)
        return std

    def _total_deviations(self, batch: Batch) -> np.ndarray:
        """(n_structures,) standard deviations of total energies, nothing being done for each atom and observation."""
        cross, prior, picked = 0.0, 0.0, self.xp.asarray(self.picked)
        for part, trained in zip(self.parts, self.compositions, strict=True):
            env, scale = part.descriptor.environments(batch, self.xp), part.signal**2
            cross = cross + scale * structure_covariance(part.kernel, env, batch, trained)[:, picked]
            kinds = part.descriptor.kinds(batch.numbers)
            prior = prior + scale * total_priors(part.kernel, env.X, kinds, batch.offsets, self.threads)
        return self.from_covariances(cross, prior)

    def samples(self, n, seed):
        """See `Process.samples`: the mean plus what draws of weights of the representers give."""
        drawn = np.zeros((n, self.structures.layout.size))
        drawn[:, self.picked] = backends.host(self.draws(n, seed))
        pairs = list(zip(self.parts, self.compositions, strict=True))
        return [[part.plus(CollapsedPart.collapse(part, seen, weights)) for part, seen in pairs] for weights in drawn]

    @abstractmethod
    def draws(self, n: int, seed: int) -> np.ndarray:
        """(n, n_representers) draws of the weights of the representers, less their mean."""

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
        picked = self.xp.asarray(located(self.compositions[0], self.picked))
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
    targets : what the representers were observed to be, less references and prior means, which more observations are added to; None from
        files that do not state it.
    """

    factor: np.ndarray
    targets: np.ndarray | None = None

    def _moved(self, xp):
        return {"factor": backends.moved(xp, self.factor)}

    def state(self):
        """See `Process.state`."""
        return {**super().state(), "factor": self.factor, **({} if self.targets is None else {"targets": self.targets})}

    @classmethod
    def _matrices(cls, state, n):
        targets = stored.array(state["targets"], "targets", shape=(n,)) if "targets" in state else None
        return {"factor": stored.factor(state["factor"], "factor", n), "targets": targets}

    def gains(self, cross, known, sigma):
        """See `ObservationProcess.gains`: (K + Σ)⁻¹k_L."""
        return backends.host(linear.backward(self.factor, linear.forward(self.factor, self.xp.asarray(cross.T)))).T

    def draws(self, n, seed):
        """See `MatrixProcess.draws`: with features T of all representers, Tᵀ K T = 1, as of a Nyström process of full rank."""
        K = total_covariance(self.parts, self.compositions, self.threads, self.picked)
        variances = self.xp.einsum("ij,ij->i", self.xp.tril(self.factor), self.xp.tril(self.factor)) - self.xp.diagonal(K)
        unit = 1 / self.xp.sqrt(variances)
        scaled = unit[:, None] * K * unit
        T = linear.whitening(scaled, SAMPLED, self.threads)
        rows = scaled @ T
        factor = linear.cholesky(self.xp.eye(rows.shape[1]) + rows.T @ rows, self.threads)
        noise = np.random.default_rng(seed).standard_normal((n, len(K)))[:, : rows.shape[1]]
        return self.xp.stack([unit * (T @ linear.backward(factor, self.xp.asarray(row))) for row in noise])

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

    def gains(self, cross, known, sigma):
        """See `ObservationProcess.gains`: φ_L·(RᵀR)⁻¹φ_i/σ_i², features of all observations made anew."""
        phi = self.xp.asarray(cross) @ self.transform
        gain = backends.of(phi).dense.solve_triangular(self.posterior.factor, self.posterior.half(phi))
        K = total_covariance(self.parts, self.compositions, self.threads, known)
        rows = K[:, self.xp.asarray(np.searchsorted(known, self.picked))] @ self.transform
        return backends.host((rows @ gain).T) / sigma**2

    def draws(self, n, seed):
        """See `MatrixProcess.draws`."""
        return self.xp.stack([self.transform @ draw for draw in self.posterior.draws(n, seed)])

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
