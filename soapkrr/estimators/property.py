"""Exact Gaussian process and kernel ridge regression of any scalar property of structures or atoms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import check_baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.estimators.fitted import Estimator
from soapkrr.execution.pools import Threads
from soapkrr.execution.resources import GROUP, Resources
from soapkrr.kernels import Kernel
from soapkrr.labels import property_values
from soapkrr.planning import Plan, prediction_work
from soapkrr.planning.scalar import scalar_fit
from soapkrr.prediction import PropertyPrediction
from soapkrr.regression import stored
from soapkrr.regression.data import check_structures
from soapkrr.regression.origin import data_hash, origin
from soapkrr.regression.scalar.fit import ScalarData, ScalarFit, fit_scalar
from soapkrr.regression.scalar.posterior import ScalarProcess
from soapkrr.regression.scalar.sums import PROPERTIES, bearer
from soapkrr.regression.terms import Term
from soapkrr.structures import as_frames, split_by_atoms
from soapkrr.threads import serial_blas


class PropertyEstimator(Estimator):
    """A property p = Σ_i w_i f(x_i) of structures, or p = f of atoms; computed on the CPU.

    Attributes
    ----------
    process_ : the posterior.  reference_energies_ : {symbol: value of an atom}.  n_observations_ : {target: number of values}.
    noise_ : σ used.  signals_ : δ of each term.  log_likelihood_ : log evidence.  fitted_parameters_ : the parameters of the fit.
    """

    target: str
    baseline: Any

    #: Properties are computed on the CPU.
    device = "cpu"

    @abstractmethod
    def _noise(self) -> float:
        """The noise to start from, checked."""

    def _fit(self, frames: list[Atoms], y, optimize: bool | str, progress: bool):
        """Fit to a property ``y``; returns self."""
        self._check_target()
        if not isinstance(optimize, bool) and optimize != "evidence":
            raise InputError(f"`optimize` must be True, False or one of ('evidence',), received {optimize!r}.")
        terms, noise, frames = self._terms(), self._noise(), as_frames(frames)
        check_structures(frames, [t.descriptor for t in terms])
        data = ScalarData.of(frames, y, self.target, self.baseline)
        rows, budget = {self.target: len(data.values)}, self._budget
        division = scalar_fit(terms, frames, rows, budget).division if self._limited else budget.unlimited
        resources = Resources(Threads(division.threads), "cpu", division, progress)
        with serial_blas():
            fit = fit_scalar(terms, data, noise, bool(optimize), resources)
        self._remember_parameters()
        self._set_fitted(fit, rows)
        self.origin_ = origin(data_hash(frames, self._values_of(frames, y)))
        return self

    def _values_of(self, frames: list[Atoms], y) -> list[tuple[np.ndarray]]:
        """The values of the property of each structure."""
        values, owner = property_values(frames, y, bearer(self.target))
        return [(part,) for part in np.split(values, np.searchsorted(owner, np.arange(1, len(frames))))]

    def _check_target(self) -> None:
        if self.target not in PROPERTIES:
            raise InputError(f"`target` must be one of {PROPERTIES}, received {self.target!r}; a potential is a `GaussianProcess`.")

    def _set_fitted(self, fit: ScalarFit, rows: Mapping[str, int]) -> None:
        self.process_, self.signals_, self.reference_energies_ = fit.process, fit.process.signals, fit.process.references
        self.n_observations_, self.noise_, self.log_likelihood_ = dict(rows), fit.noise, fit.evidence

    def restore(self, state: Mapping) -> None:
        """See `Estimator.restore`."""
        self._terms()
        self._noise()
        self._check_target()
        check_baseline(self.baseline)
        process = ScalarProcess.restore(stored.mapping(state["process"], "process"), stored.references(state["reference_energies"]))
        evidence = stored.number(state["log_likelihood"], "log_likelihood", unknown=True)
        self._remember_parameters()
        fit = ScalarFit(process, stored.number(state["noise"], "noise", positive=True), evidence)
        self._set_fitted(fit, stored.counts(state["n_observations"]))

    def predict(self, frames: Atoms | list[Atoms], uncertainty: bool = False) -> PropertyPrediction:
        """Values of the property, one for each structure, or for each atom of a property of atoms.

        Parameters
        ----------
        frames : one structure or a list.
        uncertainty : whether standard deviations are wanted: of the property itself, without the noise of an observation.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure cannot be used; the message names it. Or ``memory_limit`` does not hold the work for one structure.
        """
        check_is_fitted(self)
        frames, wanted = as_frames(frames), frozenset(["energy"] if uncertainty else [])
        check_structures(frames, self.process_.descriptors, pairs=False)
        most = prediction_work(self.process_, frames, wanted, self._budget).division.group if self._limited else GROUP
        groups = [group for _, group in split_by_atoms(frames, most)]
        with serial_blas():
            values = np.concatenate([self.process_.mean(group) for group in groups])
            std = np.concatenate([self.process_.deviations(group, self.threads) for group in groups]) if uncertainty else None
        sizes = [len(atoms) if self.process_.target == "atom" else 1 for atoms in frames]
        return PropertyPrediction(values, std, np.array(sizes))

    def plan(self, frames: list[Atoms], y=None, *, predict: bool = False, uncertainty: bool = False) -> Plan:
        """Values, operations, memory and time of `fit`, or with ``predict`` of `predict`, before anything large is allocated.

        Parameters
        ----------
        frames : structures.  y : values of the property, as in `fit`; None: all that the target has.
        uncertainty : as in `predict`, which needs a fitted model.

        Raises
        ------
        InputError : ``memory_limit`` is too small; the message says what would be enough.
        """
        self._check_target()
        frames, budget, name = as_frames(frames), self._budget, type(self).__name__
        if not predict:
            kind, terms = bearer(self.target), self._terms()
            n = (sum(map(len, frames)) if kind == "atom" else len(frames)) if y is None else len(property_values(frames, y, kind)[0])
            work, descriptors = scalar_fit(terms, frames, {self.target: n}, budget), [t.descriptor for t in terms]
            return work.plan(f"fit of {name}", frames, descriptors, budget.limit)
        if not hasattr(self, "process_"):
            raise InputError(f"a plan of predictions needs a fitted {name}: their cost depends on the training data.")
        work = prediction_work(self.process_, frames, frozenset(["energy"] if uncertainty else []), budget)
        return work.plan(f"prediction of {name}", frames, self.process_.descriptors, budget.limit)

    def score(self, frames: list[Atoms], y) -> float:
        """Coefficient of determination R², as of scikit-learn's regressors; ``y`` as in `fit`."""
        check_is_fitted(self)
        frames = as_frames(frames)
        values, _ = property_values(frames, y, bearer(self.process_.target))
        return float(r2_score(values, self.predict(frames).values))


class PropertyGP(PropertyEstimator):
    """Exact Gaussian process of a scalar property: p = Σ_i w_i [e(z_i) + f(x_i)], f with covariance δ²κ between atoms of one species.

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term` whose contributions add.  kernel : a kernel; None with a list of terms.
    target : what the property is of: ``"extensive"`` (of structures, w = 1), ``"intensive"`` (w = 1/N), or ``"atom"``.
    noise : standard deviation of the property; per atom if extensive: the total has noise·√N, as an energy.
    signal : prior standard deviation δ of an atom's part of the property.
    baseline : {symbol: value e} or ``"least-squares"``, also the default: the property of an atom of each species that explains the data
        best.
    threads : threads of fit and predict; None takes every core this process may use.
    memory_limit : as in `SparseGP`.

    Raises
    ------
    InputError : a parameter or structure cannot be used; `LabelError` when the values cannot.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from soapkrr import SOAP, DotProduct, PropertyGP
    >>> frames = [molecule(name) for name in ("H2O", "CH4", "NH3", "CO2")]
    >>> soap = SOAP(species=["H", "C", "N", "O"], r_cut=3.0, n_max=3, l_max=2)
    >>> model = PropertyGP(soap, DotProduct(zeta=2), target="intensive", noise=0.01).fit(frames, [1.8, 1.1, 1.5, 2.9])
    >>> model.predict(frames[:2], uncertainty=True).std.shape
    (2,)
    """

    def __init__(
        self,
        descriptor: Descriptor | list[Term],
        kernel: Kernel | None = None,
        *,
        target: str = "extensive",
        noise: float = 0.01,
        signal: float = 3.0,
        baseline: Mapping[str, float] | str | None = None,
        threads: int | None = None,
        memory_limit: int | str | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.target = target
        self.noise = noise
        self.signal = signal
        self.baseline = baseline
        self.threads = threads
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y, *, optimize: bool | str = False, progress: bool = True) -> PropertyGP:
        """Fit to ``y``: the name of the property, looked up as `labels.property_values` does, or its values, (n_structures,), or for atoms
        one array for each structure or (n_atoms,) of all. ``optimize``: raise the evidence over noise and signals, from those given.
        """
        return self._fit(frames, y, optimize, progress)

    def _noise(self) -> float:
        if isinstance(self.noise, Mapping) or not isinstance(self.noise, Real):
            raise InputError(f"`noise` must be a number, the standard deviation of the property, received {self.noise!r}.")
        require_positive(noise=self.noise)
        return float(self.noise)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=self.signal)


class PropertyRidge(PropertyEstimator):
    """Kernel ridge regression of a scalar property: the mean of `PropertyGP` with noise √α and unit signal.

    Parameters
    ----------
    descriptor, kernel, target, baseline, threads, memory_limit : as in `PropertyGP`.
    alpha : regularisation, the square of the property's unit.

    Raises
    ------
    InputError : a parameter or structure cannot be used; `LabelError` when the values cannot.
    """

    def __init__(
        self,
        descriptor: Descriptor | list[Term],
        kernel: Kernel | None = None,
        *,
        target: str = "extensive",
        alpha: float = 1e-6,
        baseline: Mapping[str, float] | str | None = None,
        threads: int | None = None,
        memory_limit: int | str | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.target = target
        self.alpha = alpha
        self.baseline = baseline
        self.threads = threads
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y, *, progress: bool = True) -> PropertyRidge:
        """Fit to ``y``, as in `PropertyGP.fit`."""
        return self._fit(frames, y, False, progress)

    def _noise(self) -> float:
        require_positive(alpha=self.alpha)
        return float(np.sqrt(self.alpha))

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=1.0)
