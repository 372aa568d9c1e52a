"""What the estimators of potentials share: fit, predict, plan, calculator."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline, check_baseline, prepared, split_baseline, warn_left_out
from soapkrr.calculator import EVERY, PotentialCalculator
from soapkrr.choices import Choice, Choices
from soapkrr.errors import InputError, MemoryLimitError
from soapkrr.estimators.groups import predict_group
from soapkrr.estimators.reporting import ReportMethods
from soapkrr.execution.memory import device_limit
from soapkrr.execution.resources import GROUP, TASK, Division, Resources, pool_of
from soapkrr.labels import Labels, Observations, read_labels
from soapkrr.labels.lookup import stated_types
from soapkrr.metrics import error_table
from soapkrr.planning import Plan, Task, fit_work, prediction_work, unfitted_prediction_work, with_leave_out
from soapkrr.prediction import Prediction, wanted_uncertainties
from soapkrr.regression import stored
from soapkrr.regression.checks import check_data
from soapkrr.regression.data import TrainingData, check_structures
from soapkrr.regression.domain import restored_domain
from soapkrr.regression.fit import Fit, Problem, Scheme, restored_fit
from soapkrr.regression.grouping import FEWEST
from soapkrr.regression.leave_out import LeaveOut, structures_left_out
from soapkrr.regression.origin import data_hash, origin
from soapkrr.regression.process import Predictor, restored
from soapkrr.regression.score import Score
from soapkrr.structures import as_frames, split_by_atoms
from soapkrr.threads import serial_blas
from soapkrr.uncertainty.calibration import CalibratedPredictor, Calibration, restored_calibration
from soapkrr.uncertainty.learning import learnt

logger = logging.getLogger(__name__)


class Potential(ReportMethods):
    """An interatomic potential, E = Σ_i e(z_i) + prior means + Σ terms; subclasses say by which `Scheme` it is fitted.

    Attributes
    ----------
    process_ : the posterior.  reference_energies_ : {symbol: eV}.  prior_means_ : prior means in use.
    n_observations_ : {kind: number}.  noise_ : {kind: σ} used.  signals_ : δ of each term, eV.
    log_likelihood_ : log evidence of the data, NaN where it is not known.
    domain_ : shortest distances of the training data, `Domain`; None from a file that does not state them.
    left_out_errors_ : {kind: root mean square error, eV/atom, eV/Å, eV/Å³}, left out in `soapkrr.fit`; `left_out_squares_`: by structure.
    without_prior_mean_ : {index: reason} of structures of the fit that have no prior mean, and whose labels were left out.
    calibration_ : sizes and scores of errors, by which standard deviations are those of (prediction − reference); None: they are the
        posterior's own.
    front_ : what noise levels found by cross-validation trade, see `pareto`; else None.
    suspects_ : labels that the others contradict, `checks.Suspect`, worst first; a `DataWarning` names them.
    triangles_ : {kind: triangle of design rows and targets} where there are design rows.
    fitted_parameters_ : the parameters of the fit, which a fitted model predicts with, whatever is set afterwards.
    """

    def _refuse_values(self, y) -> None:
        """Raise where ``y`` is given: it would be ignored."""
        if y is not None:
            raise InputError(
                f"`y`: {type(self).__name__} fits the energies, forces and stresses that `frames` carry, expected None, received a "
                f"{type(y).__name__}. Give labels of other names by `observations`; a property of structures or atoms is for `PropertyGP`."
            )

    def learn(
        self,
        frames,
        optimize: bool | str,
        progress: bool,
        client=None,
        *,
        check: bool = True,
        calibrate: bool = False,
        stated: Mapping[str, float] | None = None,
        score: Score | None = None,
    ):
        """Fit to the labels that ``frames`` carry, as `fit` does; returns self.

        Without ``check`` the labels are taken as they are; with ``calibrate`` error bars are learnt from what the fit says of each
        structure without it (of fewer than three nothing can be learnt). ``stated``: noise that is known to be that of the labels, None:
        what the parameter ``noise`` has and the fit did not move. ``score``: what a cross-validation makes small.
        """
        noise, terms, scheme = self._noise(), tuple(self._terms()), self._scheme()
        way = scheme.optimizer(optimize)
        self._check_client(scheme, client)
        frames = as_frames(frames)
        domain = check_structures(frames, [t.descriptor for t in terms])
        labels = read_labels(frames, self.observations, noise)
        data = TrainingData.of(frames, labels, self.baseline, self.threads)
        warn_left_out(data.without_prior, len(frames))
        division = fit_work(scheme, Task(terms, frames, labels, way), self._budget).division if self._limited else None
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            resources, calibrate = self._resources(division, progress, client), calibrate and len(frames) >= FEWEST
            fit = scheme.fit(Problem(terms, data, noise, way, calibrate, score or Score()), resources)
            prediction = self._of_the_data(data, fit, calibrate, client) if check or calibrate else None
            found = [] if prediction is None or not check else check_data(data, fit, prediction, bool(way))
            left = None if prediction is None or not calibrate else structures_left_out(fit, data, labels, resources)
            calibration = None if left is None or prediction is None else self._calibration(fit, data, left, prediction, stated)
        self._remember_parameters()
        self._set_fitted(fit, data.references)
        self.suspects_, self.domain_, self.calibration_ = found, domain, calibration
        self.left_out_errors_, self.left_out_squares_ = ({}, {}) if left is None else (left.errors(), left.squares())
        self.without_prior_mean_, self.origin_ = dict(data.without_prior), origin(data_hash(frames, map(Labels.numbers, labels)))
        return self

    def _of_the_data(self, data: TrainingData, fit: Fit, deviations: bool, client) -> Prediction | None:
        """Prediction of the training structures, with ``deviations`` of atoms' energies; None where ``memory_limit`` is too small."""
        predictor = Predictor(fit.process, data.references, (), None, self.device, self.threads)
        try:
            return self._predicted(predictor, data.frames, frozenset({"energies"} if deviations else ()), client)
        except MemoryLimitError as error:
            logger.info("labels are not checked, error bars not calibrated: %s", error)
            return None

    def _calibration(self, fit: Fit, data: TrainingData, left: LeaveOut, prediction: Prediction, stated) -> Calibration | None:
        """What labels without their own structure say of error bars; None where there are none."""
        order = np.argsort(data.order)
        frames, std = [data.frames[s] for s in order], [(prediction.energies_std or [])[s] for s in order]
        stated = self._unmoved_noise(fit.noise) if stated is None else stated
        return learnt(left, frames, fit.process, std, stated, self.observations) if len(left) else None

    def _check_client(self, scheme: Scheme, client) -> None:
        if client is None:
            return
        if scheme.local:
            raise InputError(f"`client`: {scheme.local}.")
        if self._limited:
            raise InputError("`memory_limit` is of one process; with a `client`, give its workers limits of their own.")

    def _resources(self, division: Division | None, progress: bool, client) -> Resources:
        return Resources(
            pool_of(client, (division or self._budget.unlimited).threads), self.device, division or self._budget.unlimited, progress
        )

    def _set_fitted(self, fit: Fit, references: Mapping[str, float]) -> None:
        self.process_, self.triangles_ = fit.process, dict(fit.triangles)
        self.reference_energies_, self.prior_means_ = references, split_baseline(self.fitted_parameters_["baseline"])[1]
        self.n_observations_, self.noise_, self.log_likelihood_ = dict(fit.counts), dict(fit.noise), fit.evidence
        self.signals_, self.front_ = fit.process.signals, fit.front
        for name in ("choices_", "test_errors_"):  # of an earlier fit by `soapkrr.fit`
            vars(self).pop(name, None)

    def state(self) -> dict:
        """See `Estimator.state`."""
        return {**super().state(), "triangles": self.triangles_, **self._learnt_beside(), **self._automatic_state()}

    def put_on_top(self, mean: Baseline) -> None:
        """Add a prior mean that vanishes on all training data to a fitted model: what it learnt stays right."""
        check_is_fitted(self)
        given = self.fitted_parameters_["baseline"]
        parts = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
        self.set_params(baseline=[*parts, mean])
        self.fitted_parameters_["baseline"], self.prior_means_ = self.baseline, (*self.prior_means_, mean)

    def _learnt_beside(self) -> dict:
        """What a fit learns beside its process: domain, calibration and front."""
        known = {"domain": self.domain_, "calibration": self.calibration_, "front": self.front_}
        return {name: part.state() for name, part in known.items() if part is not None}

    def _automatic_state(self) -> dict:
        """What only a model of `soapkrr.fit` has: its choices, and its errors on structures left out and on test structures."""
        choices = {"choices": [vars(c) for c in self.choices_]} if hasattr(self, "choices_") else {}
        left_out = {"left_out_errors": self.left_out_errors_} if self.left_out_errors_ else {}
        return choices | left_out | ({"test_errors": self.test_errors_} if hasattr(self, "test_errors_") else {})

    def restore(self, state: Mapping) -> None:
        """See `Estimator.restore`."""
        self._check_parameters()
        with serial_blas():
            process = restored(stored.mapping(state["process"], "process"), self.threads)
        self._remember_parameters()
        self._set_fitted(restored_fit(process, state), stored.references(state["reference_energies"]))
        self.domain_, self.calibration_ = restored_domain(state.get("domain")), restored_calibration(state.get("calibration"))
        self.left_out_errors_ = dict(stored.mapping(state.get("left_out_errors", {}), "left_out_errors"))
        self.left_out_squares_, self.without_prior_mean_ = {}, {}
        if "choices" in state:
            self.choices_ = Choices(Choice(**stored.mapping(choice, "choices")) for choice in state["choices"])
        if "test_errors" in state:
            self.test_errors_ = dict(stored.mapping(state["test_errors"], "test_errors"))

    def _check_parameters(self) -> None:
        """Raise where no fit takes a parameter."""
        self._terms()
        self._noise()
        self._scheme()
        check_baseline(self.baseline)
        if not (self.observations is None or isinstance(self.observations, Observations)):
            raise InputError(f"`observations` must be `Observations` or None, received {self.observations!r}.")

    def predict(
        self, frames: Atoms | list[Atoms], uncertainty: bool | Iterable[str] = False, *, client=None, progress: bool = True
    ) -> Prediction:
        """Energies, forces and stress of structures.

        Parameters
        ----------
        frames : one structure or a list.
        uncertainty : True for every standard deviation, or some of ``"energies"`` (per atom; cheap), ``"energy"`` (total and per atom; the
            total costs the square of the number of atoms, unless their environments are alike), ``"total"`` (of total energies alone; of
            one structure some two predictions, unless calibrated), ``"forces"``, ``"stress"``.
        client : a `dask.distributed.Client`, whose workers predict; they get the model once for each call.  progress : as in `fit`.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure cannot be used; the message names it. Or ``memory_limit`` does not hold the work for one structure.
        """
        predictor, frames, known = self._predictor(), as_frames(frames), self.calibration_
        if client is None and len(frames) > 1:
            prepared(self.prior_means_, frames, self.threads)
        calibrated = predictor if known is None else CalibratedPredictor(predictor, known)
        p = self._predicted(calibrated, frames, wanted_uncertainties(uncertainty), client, progress)
        return p if known is None else replace(p, config_types=stated_types(frames, self.fitted_parameters_["observations"]))

    def _predicted(
        self,
        predictor: Predictor | CalibratedPredictor,
        frames: list[Atoms],
        wanted: frozenset[str] = frozenset(),
        client=None,
        progress=False,
    ) -> Prediction:
        """Prediction of structures, group by group."""
        pool = pool_of(client, threads=1)
        most = TASK if pool.remote else GROUP
        groups = split_by_atoms(pool.frames(frames), self._group_atoms(predictor, frames, wanted, most))
        with serial_blas(), device_limit(self._xp, None if pool.remote else self.memory_limit):
            parts = list(pool.map(predict_group, groups, pool.share(predictor), wanted, label="predicting", progress=progress))
        return Prediction.concatenate(parts)

    def _group_atoms(self, predictor: Predictor | CalibratedPredictor, frames: list[Atoms], wanted: frozenset[str], most: int) -> int:
        """Atoms predicted at once, within ``memory_limit``."""
        return min(most, prediction_work(predictor.process, frames, wanted, self._budget).division.group) if self._limited else most

    def plan(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, calibrate=False, predict=False, uncertainty=False) -> Plan:
        """Rows, operations, memory and time of `fit`, or with ``predict`` of `predict`, before anything large is allocated.

        Parameters
        ----------
        frames : structures, with labels for a fit.  y : None, as in `fit`.
        calibrate : count the leave-out too with which a fit by `soapkrr.fit` ends, and the rows that it keeps on a disk.
        optimize, uncertainty : as in `fit` and `predict`. Predictions of a model that is not fitted can be planned for a `SparseGP` of
            environments only.

        Returns
        -------
        A `Plan`, which prints as a table. Ranks count as the numbers of sparse points, so that memory and time are rather too large.

        Raises
        ------
        InputError : ``memory_limit`` is too small; the message says what would be enough.
        """
        self._refuse_values(y)
        frames, name, budget = as_frames(frames), type(self).__name__, self._budget
        if not predict:
            scheme, terms = self._scheme(), self._terms()
            task = Task(terms, frames, read_labels(frames, self.observations, self._noise()), scheme.optimizer(optimize))
            descriptors = [t.descriptor for t in terms]
            work = fit_work(scheme, task, budget)
            work = with_leave_out(scheme, task, work) if calibrate else work
            return work.plan(f"fit of {name}", frames, descriptors, budget.limit)
        wanted = wanted_uncertainties(uncertainty)
        if hasattr(self, "process_"):
            work, descriptors = prediction_work(self.process_, frames, wanted, budget), self.process_.descriptors
        else:
            work = unfitted_prediction_work(self._scheme(), self._terms(), frames, wanted, budget)
            descriptors = [t.descriptor for t in self._terms()]
        return work.plan(f"prediction of {name}", frames, descriptors, budget.limit)

    def score(self, frames: list[Atoms], y=None) -> float:
        """Negative mean absolute error of forces (eV/Å), or of energies per atom (eV) where none are known; ``y``: None, as in `fit`."""
        self._refuse_values(y)
        check_is_fitted(self)
        table = error_table(frames, self.predict(frames), observations=self.fitted_parameters_.get("observations"))
        error = table.get("forces_mae_ev_per_angstrom")
        return -error if error is not None else -1e-3 * table["energy_mae_mev_per_atom"]

    def calculator(
        self, uncertainty: bool | Iterable[str] | None = None, every: int = EVERY, *, sample: int | None = None, seed: int = 0, **limits
    ) -> PotentialCalculator:
        """ASE calculator of this model; ``uncertainty`` as in `predict`, None: of energies if known; others as in `PotentialCalculator`.
        With ``sample`` that of one potential drawn from the posterior, ``model.sample(n, seed)[sample]`` of any n; it has no uncertainty.
        """
        check_is_fitted(self)
        if sample is not None:
            if limits:
                raise InputError(f"`{next(iter(limits))}` needs standard deviations, which a potential drawn by `sample` has none of.")
            return self.sample(sample + 1, seed).calculator(sample)
        return PotentialCalculator(self, uncertainty=self.process_.given if uncertainty is None else uncertainty, every=every, **limits)
