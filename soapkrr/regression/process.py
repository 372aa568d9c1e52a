"""What a fit returns and a prediction needs: the posterior process, and how a prediction is put together from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soapkrr import backends
from soapkrr.baselines import Baseline, baseline_energies, total
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, ModelFileError
from soapkrr.prediction import Prediction
from soapkrr.regression.domain import Domain
from soapkrr.structures import Batch, Mean, species_name

if TYPE_CHECKING:
    from soapkrr.regression.data import TrainingData
    from soapkrr.regression.explained import Explained
    from soapkrr.regression.functionals import Functionals


@dataclass(frozen=True)
class Deviations:
    """Posterior standard deviations of a batch, NumPy arrays; None where not asked for.

    Attributes
    ----------
    energy : (n_structures,) eV.  energies : (n_atoms,) eV.  forces : (n_atoms, 3) eV/Å.
    stress : (n_structures, 6) eV/Å³, Voigt order, NaN where there is no three-dimensional cell.
    """

    energy: np.ndarray | None = None
    energies: np.ndarray | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None


class Process(ABC):
    """Posterior of a Gaussian process of atoms' energies, without reference energies and prior means.

    Subclasses are immutable. What is computed elsewhere (on a GPU, with other threads) is a copy made by `on`.
    """

    #: Standard deviations that a calculator gives where none are named.
    given: tuple[str, ...] = ("energy",)

    @property
    @abstractmethod
    def descriptors(self) -> tuple[Descriptor, ...]:
        """The descriptor of each term, with what it learnt."""

    @property
    @abstractmethod
    def signals(self) -> tuple[float, ...]:
        """Prior standard deviation of an atom's energy, of each term, eV."""

    @abstractmethod
    def evaluate(self, batch: Batch, wanted: frozenset[str]) -> tuple[Mean, Deviations]:
        """Posterior mean of a batch, NumPy arrays, and the standard deviations ``wanted``: one pass over the descriptors gives both."""

    @abstractmethod
    def covariance(self, functionals: Functionals) -> np.ndarray:
        """(n, n) posterior covariance of linear functionals, a NumPy array; its diagonal is the variances of `evaluate`."""

    @abstractmethod
    def explained(self, functionals: Functionals) -> Explained:
        """The part of the posterior covariance that more observations would take away, the same sparse points given."""

    @abstractmethod
    def influence(self, functionals: Functionals, data: TrainingData, noise: Mapping[str, float]) -> np.ndarray:
        """(n_structures, n) parts of functionals of the mean that the labels of each structure of the training ``data`` contribute."""

    @abstractmethod
    def samples(self, n: int, seed: int) -> list[list]:
        """n potentials drawn from the posterior of the process's features, each a list of parts as `evaluate.evaluate` takes them.

        Features are finitely many: what the prior has beyond them, k − φ·φ, is in the covariance and not in the samples. The first samples
        do not depend on n.
        """

    @abstractmethod
    def state(self) -> dict:
        """Numbers, strings, arrays, specifications, lists and mappings of them: for a model file."""

    @classmethod
    @abstractmethod
    def restore(cls, state: Mapping, threads: int | None) -> Process:
        """From `state`; raises `ModelFileError` where the parts do not fit together."""

    @abstractmethod
    def _on(self, xp, threads: int | None) -> Process:
        """A copy computing with arrays of ``xp`` on so many threads."""

    def on(self, xp, threads: int | None) -> Process:
        """The same computing with arrays of ``xp`` on so many threads; made once."""
        copies = vars(self).setdefault("_copies", {})
        key = (xp.__name__, threads)
        if key not in copies:
            copies[key] = self._on(xp, threads)
        return copies[key]

    def __getstate__(self):
        """Without the copies."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}


def restored(state: Mapping, threads: int | None) -> Process:
    """The process of a model file, whose class the entry ``kind`` names."""
    kinds = [Process]
    for kind in kinds:
        kinds += kind.__subclasses__()
    known = {kind.__name__: kind for kind in kinds}
    if state.get("kind") not in known:
        raise ModelFileError(f"the file names an unknown process {state.get('kind')!r}.")
    return known[state["kind"]].restore(state, threads)


@dataclass(frozen=True)
class Predictor:
    """A process on top of reference energies {symbol: eV} and prior means, the domain of its data, and where it computes."""

    process: Process
    references: Mapping[str, float]
    means: Sequence[Baseline]
    domain: Domain | None
    device: str
    threads: int | None

    def __call__(self, batch: Batch, wanted: frozenset[str]) -> Prediction:
        """Prediction of a batch with the standard deviations ``wanted``."""
        prior = self.prior(batch)
        mean, deviations = self.placed.evaluate(batch, wanted)
        return assemble(batch, prior.plus(mean), deviations, self.outside(batch))

    @property
    def placed(self) -> Process:
        """The process where it computes."""
        return self.process.on(backends.library(self.device), self.placed_threads)

    @property
    def placed_threads(self) -> int | None:
        """Threads there."""
        return backends.threads(backends.library(self.device), self.threads)

    def prior(self, batch: Batch) -> Mean:
        """Prior means and reference energies of a batch."""
        self._check_species(batch)
        references = baseline_energies(self.references, batch.numbers, batch.frame)
        prior = total(self.means, batch)
        return prior._replace(energies=prior.energies + references)

    def _check_species(self, batch: Batch) -> None:
        """Raise for a species that no training structure has, unless every descriptor was asked to extrapolate and it has a reference."""
        if self.domain is None:
            return
        if self.domain.known[batch.numbers].all():
            return
        new = np.setdiff1d(batch.numbers, self.domain.numbers)
        where = f"frame {batch.frame[np.argmax(batch.numbers == new[0])]}: species {species_name(new[0])}"
        known = [species_name(z) for z in self.domain.numbers]
        if not all(d.extrapolates for d in self.process.descriptors):
            raise InputError(
                f"{where} was not in the training data; this model knows {known}. A `CompressedSOAP` with an `embedding` of all elements "
                "and `extrapolate_species`=True predicts others by their likeness."
            )
        if species_name(new[0]) not in self.references:
            raise InputError(
                f"{where} was not in the training data, which tell nothing of its reference energy: fit with a `baseline` that names it, "
                f"such as {{'{species_name(new[0])}': energy of one atom in eV}}."
            )

    def outside(self, batch: Batch) -> np.ndarray | None:
        """(n_structures,) which structures of a batch are outside the domain; None where it is not known."""
        return None if self.domain is None else self.domain.outside(batch)


def assemble(batch: Batch, mean: Mean, deviations: Deviations, outside: np.ndarray | None) -> Prediction:
    """Prediction of a batch from its mean, prior mean included, standard deviations, and which structures are outside the domain."""

    def split(values):
        return None if values is None else np.split(values, batch.inner_bounds)

    return Prediction(
        energy=np.bincount(batch.structure, mean.energies, minlength=len(batch)),
        energies=np.split(mean.energies, batch.inner_bounds),
        forces=np.split(mean.forces, batch.inner_bounds),
        stress=mean.strain / batch.volumes[:, None],
        energy_std=deviations.energy,
        energies_std=split(deviations.energies),
        forces_std=split(deviations.forces),
        stress_std=deviations.stress,
        outside=outside,
    )
