"""What all processes share whose representers are observations: the collapsed mean, and covariances of whatever is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.errors import ModelFileError
from soapkrr.prediction import TOTAL
from soapkrr.regression.evaluate import evaluate
from soapkrr.regression.exact.collapsed import CollapsedPart
from soapkrr.regression.exact.compositions import Composition, ObservedStructures, observe, single_atoms
from soapkrr.regression.explained import Explained
from soapkrr.regression.process import Deviations, Process
from soapkrr.regression.targets import observation_targets
from soapkrr.structures import Batch, Mean

if TYPE_CHECKING:
    from soapkrr.regression.functionals import Functionals


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
        std = self.energy_deviations(batch, wanted) if wanted & {"energies", TOTAL} else {}
        kinds = wanted & {"forces", "stress"}
        if kinds:
            parts = [self._derivative_std(alone, kinds) for alone in _one_by_one(batch)]
            std |= {kind: np.concatenate([part[kind] for part in parts]) for kind in kinds}
        return mean, Deviations(**std)

    def energy_deviations(self, batch: Batch, wanted: frozenset[str]) -> dict[str, np.ndarray]:
        """{kind: standard deviations} of the energies of atoms, structures, or both, as ``wanted``; NumPy arrays."""
        std = {}
        if "energies" in wanted:
            std["energies"] = self.deviations([single_atoms(part.descriptor, batch, self.xp) for part in self.parts])
        if wanted & {"energy", TOTAL}:
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

    def influence(self, functionals, data, noise):
        """See `Process.influence`."""
        labelled = [i for i, label in enumerate(data.labels) if not label.empty]
        y, sigma = observation_targets(data.some(labelled), noise)
        known = np.flatnonzero(np.isfinite(sigma))
        parts = self.gains(self.crossing(functionals), known, sigma[known]) * y[known]
        owner = np.repeat(np.array(labelled), self.structures.layout.lengths.sum(axis=1))[known]
        return np.array([np.bincount(owner, part, minlength=len(data.frames)) for part in parts]).T

    @abstractmethod
    def gains(self, cross: np.ndarray, known: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """(n, n_known) derivatives of means of functionals by the known observations, from covariances with the representers."""

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
