"""What fitted potentials say about themselves beyond one prediction: of their posterior, of their data, and whether they are sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.choices import Choice, Choices, calibration_row
from soapkrr.errors import InputError
from soapkrr.estimators.fitted import Estimator
from soapkrr.execution.memory import device_limit
from soapkrr.execution.resources import Division, Resources
from soapkrr.labels import KINDS, Labels, Observations, read_labels
from soapkrr.planning import Task, fit_work
from soapkrr.prediction import Prediction
from soapkrr.regression.data import TrainingData
from soapkrr.regression.domain import Domain
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.exact.trades import traded
from soapkrr.regression.explained import Explained
from soapkrr.regression.fit import Fit, Scheme
from soapkrr.regression.front import Front
from soapkrr.regression.grouping import groups_by
from soapkrr.regression.leave_out import LeaveOut, leave_out
from soapkrr.regression.origin import check_origin
from soapkrr.regression.process import Predictor
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas
from soapkrr.uncertainty.acquisition import VarianceDrop, variance_drop
from soapkrr.uncertainty.attribution import Attribution, attribution
from soapkrr.uncertainty.calibration import Calibration
from soapkrr.uncertainty.contributions import Contributions, contributions
from soapkrr.uncertainty.joint import JointPosterior, posterior
from soapkrr.uncertainty.learning import learnt
from soapkrr.uncertainty.observables import as_observables, functionals_of
from soapkrr.uncertainty.repeats import GIVEN
from soapkrr.uncertainty.samples import PotentialSamples


class PosteriorMethods(Estimator):
    """Joint posteriors, samples, gains of labels, attributions, leave-out and checks of a fitted potential."""

    baseline: Any
    observations: Observations | None
    prior_means_: Sequence[Baseline]
    domain_: Domain | None
    calibration_: Calibration | None
    front_: Front | None
    choices_: list[Choice]

    @abstractmethod
    def _scheme(self) -> Scheme:
        """How it is fitted."""

    @abstractmethod
    def _check_client(self, scheme: Scheme, client) -> None:
        """Raise where the workers of a client cannot do what a fit by this scheme does."""

    @abstractmethod
    def _resources(self, division: Division | None, progress: bool, client) -> Resources:
        """Where and how work is done."""

    @abstractmethod
    def predict(
        self, frames: Atoms | list[Atoms], uncertainty: bool | Iterable[str] = False, *, client=None, progress: bool = True
    ) -> Prediction:
        """Energies, forces and stress of structures."""

    @abstractmethod
    def _predicted(
        self, predictor: Predictor, frames: list[Atoms], wanted: frozenset[str] = frozenset(), client=None, progress: bool = False
    ) -> Prediction:
        """Prediction of structures by a predictor."""

    @abstractmethod
    def _noise(self) -> dict[str, float]:
        """{kind of observation: σ} to start from, checked."""

    def _predictor(self) -> Predictor:
        """The fitted model; raises `NotFittedError` before a fit."""
        check_is_fitted(self)
        return Predictor(self.process_, self.reference_energies_, self.prior_means_, self.domain_, self.device, self.threads)

    def _as_fitted(self) -> PosteriorMethods:
        """The estimator, not fitted, with the parameters of the fit."""
        check_is_fitted(self)
        return type(self)(**self.fitted_parameters_)

    def _data_of_the_fit(self, fitted: PosteriorMethods, frames: list[Atoms]) -> tuple[list[Labels], TrainingData]:
        """Labels of structures, and the `TrainingData` of the fit; raises `InputError` unless these are its structures and labels."""
        labels = read_labels(frames, fitted.observations, fitted._noise())
        check_origin(self.origin_, frames, map(Labels.numbers, labels))
        return labels, replace(TrainingData.of(frames, labels, fitted.baseline), references=self.reference_energies_)

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

    def explained(self, observables) -> Explained:
        """The part of the posterior covariance of observables that labels of more structures can take away; of an exact process all of it.

        Raises
        ------
        InputError : there is no observable, or a structure cannot be described.
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return self._predictor().placed.explained(functionals_of(as_observables(observables))[0])

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
        _, data = self._data_of_the_fit(self._as_fitted(), as_frames(frames))
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return attribution(self._predictor(), data, self.noise_, frame, kind)

    def contributions(self, frames: Atoms | list[Atoms]) -> Contributions:
        """What each atom's energy is made of: reference energy, prior means, terms, pairs of species where a term is linear in them; and
        the sensitivity to its surroundings, |∂E_i/∂x_i|.

        Energies of atoms are a choice of gauge: a model learns energies of structures, and shares them among atoms and terms as its prior
        has it. Nothing observed tells one sharing from another; compare atoms of one model only. `plot.chemistry` draws them.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure cannot be described, or has a species that the model does not know.
        """
        with serial_blas():
            return contributions(self._predictor(), as_frames(frames))

    def sample(self, n: int, seed: int = 0) -> PotentialSamples:
        """``n`` whole potentials drawn from the posterior, which predict together or one by one; see `PotentialSamples` for what is drawn.

        Raises
        ------
        InputError : ``n`` is no positive integer, or the process keeps no features to draw weights of (conjugate gradients).
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return PotentialSamples(self._predictor(), n, seed)

    def leave_out(self, frames: list[Atoms], by="structure", *, progress: bool = True, client=None) -> LeaveOut:
        """Every label of the data as predicted without its own group of structures, in closed form: nothing is fitted again.

        Equal to what models fitted without each group would predict, with the hyper-parameters, sparse points (or representers) and
        reference energies of this one. Of a sparse process that takes another pass over the design rows, about as long as the fit.

        Parameters
        ----------
        frames : the structures and labels that the model was fitted to, in any order.
        by : what is left out together: ``"structure"``, ``"config_type"``, ``"cluster"`` (near-identical structures, see
            `grouping.clusters`), a name in `info`, or an array of one value for each structure.
        progress : as in `fit`.
        client : as in `fit`: workers make the rows again, of groups with fewer labels than sparse points; those of others are made here.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : ``frames`` are not the data of the fit, are fewer than three, or are all of one group; or ``client`` cannot be used.
        """
        fitted, frames = self._as_fitted(), as_frames(frames)
        self._check_client(fitted._scheme(), client)
        labels, data = self._data_of_the_fit(fitted, frames)
        config = (fitted.observations or Observations()).config_type
        groups = groups_by(by, frames, self.process_.descriptors, config)
        division = fit_work(fitted._scheme(), Task(fitted._terms(), frames, labels, None), self._budget).division if self._limited else None
        fit = Fit(self.process_, self.noise_, self.n_observations_, self.log_likelihood_)
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return leave_out(fit, data, groups, self._resources(division, progress, client)).with_labels(labels)

    def calibrate(self, frames: list[Atoms], by="structure", *, client=None) -> PosteriorMethods:
        """Learn error bars from labels as predicted without their own group: standard deviations become those of (prediction − reference).

        A fit by `soapkrr.fit` ends with this. Predictions are then `CalibratedPrediction`, with intervals; their ``posterior_std`` is what
        the posterior itself says. Returns the model.

        Parameters
        ----------
        frames : the structures and labels of the fit, in any order.  by, client : what is left out together, and where, as in `leave_out`.

        Raises
        ------
        InputError : ``frames`` are not the data of the fit, are fewer than three or of one group, or nothing of them can be left out.
        """
        left = self.leave_out(frames, by, client=client)
        self.calibrate_on(left, frames, self._stated_noise())
        if hasattr(self, "choices_"):  # of `soapkrr.fit`, whose own calibration is no more
            row = calibration_row(self.calibration_, len(left.names))
            self.choices_ = Choices(row if choice.name == row.name else choice for choice in self.choices_)
        return self

    def calibrate_on(self, left: LeaveOut, frames: list[Atoms], stated: Mapping[str, float]) -> PosteriorMethods:
        """`calibrate` by these errors of left-out labels of ``frames``; ``stated``: noise that is known to be that of the labels."""
        frames, self.calibration_ = as_frames(frames), None
        std = self._predicted(replace(self._predictor(), means=()), frames, frozenset({"energies"})).energies_std or []
        with serial_blas():
            self.calibration_ = learnt(left, frames, self.process_, std, stated, self.fitted_parameters_["observations"])
        return self

    def _stated_noise(self) -> dict[str, float]:
        """{kind: σ} of labels that the user stated."""
        if self.calibration_ is not None:
            return {kind: noise.level for kind, noise in self.calibration_.noise.items() if noise.source == GIVEN}
        return self._unmoved_noise(self.noise_)

    def _unmoved_noise(self, levels: Mapping[str, float]) -> dict[str, float]:
        """{kind: σ} that were given and that the fit, which ended with these ``levels``, did not move: no starts of a search."""
        given = getattr(self, "noise", None) or {}
        return {kind: level for kind, level in given.items() if levels.get(kind) == level}

    def pareto(self) -> Front:
        """What noise levels trade: errors of energies, forces and stresses of left-out structures; none falls unless another one rises.

        Of a fit whose noise levels were found by cross-validation, as those of large sets by `soapkrr.fit` are: nothing is fitted again.
        Of an exact process of up to 3000 observations levels around its own are tried, structures left out by blocks of (K + Σ)⁻¹. To have
        another row than the chosen one, fit again with its ``noise`` and ``signal=model.signals_[0]``, or with another ``score``.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : its noise levels were not found by cross-validation, and it is no exact process of so few observations.
        """
        check_is_fitted(self)
        if self.front_ is None and isinstance(self.process_, ExactProcess):
            with serial_blas():
                return traded(self.process_, self.noise_)
        if self.front_ is None:
            raise InputError(
                "the noise of this model was given or found by evidence, so that nothing is known of other levels, expected one that was "
                'found by cross-validation: fit a `SparseGP` with `optimize="cross-validation"`, or a `GaussianProcess`.'
            )
        return self.front_
