"""What fitted potentials say about their posterior beyond one prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.errors import InputError
from soapkrr.estimators.fitted import Estimator
from soapkrr.execution.memory import device_limit
from soapkrr.labels import KINDS, Labels, Observations, read_labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.origin import data_hash
from soapkrr.regression.process import Predictor
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas
from soapkrr.uncertainty.acquisition import VarianceDrop, variance_drop
from soapkrr.uncertainty.attribution import Attribution, attribution
from soapkrr.uncertainty.joint import JointPosterior, posterior
from soapkrr.uncertainty.samples import PotentialSamples


class PosteriorMethods(Estimator):
    """Joint posteriors, samples, gains of labels and attributions of a fitted potential."""

    baseline: Any
    observations: Observations | None
    prior_means_: Sequence[Baseline]

    @abstractmethod
    def _noise(self) -> dict[str, float]:
        """{kind of observation: σ} to start from, checked."""

    def _predictor(self) -> Predictor:
        """The fitted model; raises `NotFittedError` before a fit."""
        check_is_fitted(self)
        return Predictor(self.process_, self.reference_energies_, self.prior_means_, self.device, self.threads)

    def posterior(self, observables) -> JointPosterior:
        """Joint posterior of linear combinations of energies, forces and stresses of any structures.

        cov(L, L′) = k_LL′ − φ_L·φ_L′ + φ_L·(RᵀR)⁻¹φ_L′ of a sparse process, k_LL′ − k_L·(K + Σ)⁻¹k_L′ of an exact one; its diagonal is
        the squares of the standard deviations that `predict` gives.

        Parameters
        ----------
        observables : `Energy`, `Force`, `Stress` or expressions of them, one or nested lists or arrays of n.

        Returns
        -------
        A `JointPosterior` with mean (n,) and covariance (n, n), in the order given.

        Raises
        ------
        InputError : there is no observable, or a structure cannot be described.
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return posterior(self._predictor(), observables)

    def variance_drop(self, candidates, observables, cost=None, n: int = 1, labels: Sequence[str] = KINDS) -> VarianceDrop:
        """How much the labels of each candidate would lower the variance of each observable, before any is calculated.

        With C the covariance of observables and labels, S that of the labels and Σ their noise, the drop is diag(C (S + Σ)⁻¹ Cᵀ): that of
        a fit with the labels added and the same sparse points, noise and signals.

        Parameters
        ----------
        candidates : structures.  observables : as in `posterior`.  cost : (n_candidates,) positive, None: all cost the same.
        n : how many to pick, each with the labels of those before it at hand.
        labels : what a calculation gives, some of energy, forces and stress (where there is a three-dimensional cell), with the noise of
            the fit.

        Raises
        ------
        InputError : a structure cannot be described, or a parameter is out of range.
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return variance_drop(self._predictor().placed, self.noise_, candidates, observables, cost, n, labels)

    def attribution(self, frame: Atoms, kind: str, frames: list[Atoms]) -> Attribution:
        """What the labels of every training structure contribute to a prediction for ``frame``; with the prior they sum to it.

        Parameters
        ----------
        kind : ``"energy"``, ``"energies"``, ``"forces"`` or ``"stress"``.
        frames : the structures of the fit with their labels, in any order; a model file does not hold them.

        Raises
        ------
        InputError : ``frames`` are not those of the fit, which ``origin_`` tells, or ``frame`` cannot be described.
        """
        predictor, fitted = self._predictor(), type(self)(**self.fitted_parameters_)
        frames = as_frames(frames)
        labels = read_labels(frames, fitted.observations, fitted._noise())
        if data_hash(frames, map(Labels.numbers, labels)) != self.origin_.get("data_sha256"):
            raise InputError(
                f"`frames` are not those of the fit, whose structures and labels have the SHA-256 "
                f"{self.origin_.get('data_sha256', 'unknown')}; give the same structures with the same labels, in any order."
            )
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            data = TrainingData.of(frames, labels, fitted.baseline)
            return attribution(predictor, data, self.noise_, frame, kind)

    def sample(self, n: int, seed: int = 0) -> PotentialSamples:
        """``n`` whole potentials drawn from the posterior, which predict together or one by one; see `PotentialSamples` for what is drawn.

        Raises
        ------
        InputError : ``n`` is no positive integer, or the process keeps no features to draw weights of (conjugate gradients).
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return PotentialSamples(self._predictor(), n, seed)
