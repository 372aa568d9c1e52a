"""Whole potentials drawn from the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.calculator import PotentialCalculator
from soapkrr.display import counted
from soapkrr.errors import InputError
from soapkrr.execution.resources import GROUP
from soapkrr.lazy import cached_property
from soapkrr.prediction import Prediction, wanted_uncertainties
from soapkrr.regression.evaluate import evaluate, evaluate_samples
from soapkrr.regression.process import Deviations, Predictor, assemble
from soapkrr.structures import Batch, Mean, as_frames, split_by_atoms
from soapkrr.threads import serial_blas


@dataclass(frozen=True, eq=False)
class SampledPrediction:
    """What n samples of a potential predict; ``p[k]`` is the `Prediction` of sample k.

    Attributes
    ----------
    energy : (n, n_structures) eV.  energies : list of (n, n_atoms) eV.  forces : list of (n, n_atoms, 3) eV/Å.
    stress : (n, n_structures, 6) eV/Å³, NaN where there is no three-dimensional cell.  outside : as in `Prediction`, the same for all.
    """

    energy: np.ndarray
    energies: list[np.ndarray]
    forces: list[np.ndarray]
    stress: np.ndarray
    outside: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def __getitem__(self, k: int) -> Prediction:
        energies, forces = ([values[k] for values in part] for part in (self.energies, self.forces))
        return Prediction(self.energy[k], energies, forces, self.stress[k], outside=self.outside)


class PotentialSamples:
    """n potentials drawn from the posterior of a fitted one; as smooth, invariant and conservative as it is.

    Drawn are the weights of the process's features, w ~ N(w̄, (RᵀR)⁻¹): of sparse points, of chosen observations, or of all observations of
    an exact process. A prior of infinitely many dimensions has more, the Nyström remainder k − φ·φ, which no set of weights holds:
    `Potential.posterior` includes it, samples do not. It is small where the representers describe the structures well.

    Attributes
    ----------
    n : number of samples.  seed : the same k and seed give the same potential, whatever n.
    """

    def __init__(self, predictor: Predictor, n: int, seed: int):
        if not (isinstance(n, Integral) and n > 0):
            raise InputError(f"`n` must be a positive integer, the number of samples, received {n!r}.")
        self.n, self.seed, self._predictor = int(n), seed, predictor
        self._drawn  # noqa: B018  what cannot be sampled is refused now

    @cached_property
    def _drawn(self) -> list[list]:
        return self._predictor.placed.samples(self.n, self.seed)

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"{counted(self.n, 'potential')} drawn from the posterior, seed {self.seed}"

    def __getitem__(self, k: int) -> PotentialSample:
        """Sample k, from 0."""
        if not (isinstance(k, Integral) and -self.n <= k < self.n):
            raise InputError(f"there is no sample {k!r} among {self.n}, which are counted from 0.")
        return PotentialSample(self._predictor, self._drawn[k])

    def predict(self, frames: Atoms | list[Atoms]) -> SampledPrediction:
        """Energies, forces and stress of structures by every sample, with one pass over the descriptors.

        Raises
        ------
        InputError : a structure cannot be used; the message names it.
        """
        parts: list[list[Prediction]] = [[] for _ in range(self.n)]
        with serial_blas():
            for first, group in split_by_atoms(as_frames(frames), max(1, GROUP // self.n)):
                batch = Batch.from_atoms(group, first)
                prior, outside = self._predictor.prior(batch), self._predictor.outside(batch)
                for own, mean in zip(parts, evaluate_samples(self._drawn, batch, self._predictor.placed_threads), strict=True):
                    own.append(assemble(batch, prior.plus(Mean(*backends.host(tuple(mean)))), Deviations(), outside))
        each = [Prediction.concatenate(own) for own in parts]
        energy, stress = (np.stack([getattr(p, name) for p in each]) for name in ("energy", "stress"))
        energies, forces = (list(map(np.stack, zip(*(getattr(p, name) for p in each), strict=True))) for name in ("energies", "forces"))
        return SampledPrediction(energy, energies, forces, stress, each[0].outside)

    def calculator(self, k: int) -> PotentialCalculator:
        """ASE calculator of sample k, from 0."""
        return PotentialCalculator(self[k], uncertainty=False)


class PotentialSample:
    """One potential drawn from the posterior, which predicts as a fitted model does, without standard deviations."""

    def __repr__(self) -> str:
        return "PotentialSample, one potential drawn from the posterior"

    def __init__(self, predictor: Predictor, parts: list):
        self._predictor, self._parts = predictor, parts

    def predict(self, frames: Atoms | list[Atoms], uncertainty=False) -> Prediction:
        """Energies, forces and stress of structures.

        Raises
        ------
        InputError : a structure cannot be used, or ``uncertainty`` is asked for: a sample is certain.
        """
        if wanted_uncertainties(uncertainty):
            raise InputError("a sample of the posterior has no standard deviation; ask the fitted model, or take that of many samples.")
        done = []
        with serial_blas():
            for first, group in split_by_atoms(as_frames(frames), GROUP):
                batch = Batch.from_atoms(group, first)
                mean = Mean(*backends.host(tuple(evaluate(self._parts, batch, self._predictor.placed_threads))))
                done.append(assemble(batch, self._predictor.prior(batch).plus(mean), Deviations(), self._predictor.outside(batch)))
        return Prediction.concatenate(done)
