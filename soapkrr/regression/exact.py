"""Exact Gaussian process and kernel ridge regression: of energies, forces and stress, or of any scalar property of structures or atoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.kernels import Kernel
from soapkrr.labels import property_values
from soapkrr.memory import device_limit, parse_memory
from soapkrr.observations import Observations
from soapkrr.parallel import Threads, serial_blas
from soapkrr.potential import wanted_uncertainties
from soapkrr.prediction import Prediction
from soapkrr.regression import planning
from soapkrr.regression.additive import AdditivePotential
from soapkrr.regression.data import check_optimize, check_structures, checked_noise, prepared
from soapkrr.regression.observation_fit import check_solver, fit_exact, fit_iterative, iterates, optimised
from soapkrr.regression.observation_model import IterativeModel, ObservationModel
from soapkrr.regression.plan import Plan
from soapkrr.regression.properties import PROPERTIES, PropertyModel, fit_property
from soapkrr.regression.sparse_set import learnt
from soapkrr.regression.targets import observation_counts, observed_structures
from soapkrr.regression.terms import Term
from soapkrr.structures import Batch, as_frames, split_by_atoms


class GaussianProcess(AdditivePotential):
    """Exact Gaussian process on total energies, forces and stress; or on a property of structures or atoms.

    cov(L, L′) = Σ_ij L L′ δ²κ(x_i, x_j) for every pair of observations, through the mixed second derivative of the kernel; the weights
    (K + Σ)⁻¹y collapse onto the training environments, so that prediction costs about two sparse points for each of them. By Cholesky
    decomposition 8·N² bytes and N³/3 operations for N observations (Rasmussen and Williams 2006, algorithm 2.1). By conjugate gradients
    K is never stored: 8·n²·d operations an iteration for n environments with d features, some twenty to a hundred iterations, and
    8·N·``n_preconditioner`` bytes; but each standard deviation takes as long as a fit.

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term` whose contributions add (their ``n_sparse`` and ``selection`` are not used).
    kernel : a kernel; None with a list of terms.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002. For another ``target`` a
        number, the standard deviation of the property; per atom if extensive: the total has noise·√N, as an energy.
    signal : prior standard deviation δ of an atom's energy, eV, or of its part of the property.
    baseline : reference energies and prior means, as in `SparseGP`; for another ``target`` {symbol: value} or ``"least-squares"``, also the
        default: the property of an atom of each species that explains the data best.
    threads : threads of fit and predict; None takes every core this process may use.
    device : ``"cpu"``, ``"cuda"`` or ``"auto"``, as in `SparseGP`.
    observations : `Observations`, as in `SparseGP`.
    target : ``"potential"``, or a property p = Σ_i w_i f(x_i) of structures, ``"extensive"`` (w = 1) or ``"intensive"`` (w = 1/N), or of
        atoms, ``"atom"`` (p = f). Then `fit` takes the values, and `predict` returns them.
    solver : ``"cholesky"``, ``"cg"`` (conjugate gradients; potentials only), or ``"auto"``: Cholesky up to 32,768 observations.
    cg_tolerance : residual at which conjugate gradients stop, root mean square over all observations in units of their noise. The mean at
        the training data is that close to the exact one; standard deviations have this relative error.
    n_preconditioner : sparse points of the preconditioner of conjugate gradients; None: a fifth of the environments, 1000 to 3000.
    memory_limit : as in `SparseGP`; a fit whose covariance does not fit is an error.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  n_observations_ : {kind: number of rows}.
    log_likelihood_ : log evidence of the data; NaN after conjugate gradients, which do not give log|K + Σ|.
    noise_ : {kind: σ} used.  signals_ : δ of each term, eV.
    residual_, iterations_ : of conjugate gradients, as ``cg_tolerance``; None where they were not used.

    Raises
    ------
    InputError : a parameter or structure cannot be used, or conjugate gradients do not converge.
    """

    def __init__(
        self,
        descriptor: Descriptor | list[Term],
        kernel: Kernel | None = None,
        *,
        noise: Mapping[str, float] | float | None = None,
        signal: float = 3.0,
        baseline: Mapping[str, float] | str | None | Baseline | list = None,
        threads: int | None = None,
        device: str = "cpu",
        observations: Observations | None = None,
        target: str = "potential",
        solver: str = "auto",
        cg_tolerance: float = 1e-4,
        n_preconditioner: int | None = None,
        memory_limit: int | str | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.noise = noise
        self.signal = signal
        self.baseline = baseline
        self.threads = threads
        self.device = device
        self.observations = observations
        self.target = target
        self.solver = solver
        self.cg_tolerance = cg_tolerance
        self.n_preconditioner = n_preconditioner
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, progress: bool = False, client=None) -> GaussianProcess:
        """Fit to the labels that ``frames`` carry, or to a property ``y``.

        ``y``: with ``target="potential"`` ignored; otherwise the name of the property, looked up as `labels.property_values` does, or its
        values: (n_structures,), or for atoms one array for each structure or (n_atoms,) of all. ``optimize``: raise the evidence over
        noise levels and signals, from those given; of energies and forces on a random part of the structures where there are more
        than `observation_fit.OPTIMISE_ON` observations. ``client`` is refused: the covariance is one matrix in one process.
        """
        if client is not None:
            raise InputError(
                f"`client`: {type(self).__name__} is fitted in one process; a `SparseGP` is fitted on the workers of a client."
            )
        check_optimize(optimize, ("evidence",))
        of_property = self._of_property()
        if of_property and self.device == "cuda":
            raise InputError(f"`device`='cuda' is for potentials; a property (`target`={self.target!r}) is computed on the CPU.")
        check_solver(self.solver, self.cg_tolerance, self.n_preconditioner, self.target)
        if of_property:
            return self._fit_property(as_frames(frames), y, optimize, progress)
        noise, terms, frames = self._noise(), self._terms(), as_frames(frames)
        data = prepared(frames, [t.descriptor for t in terms], self.baseline, self.observations, noise)
        work = None if parse_memory(self.memory_limit) is None else self._fit_work(frames)[2]
        threads = self._workers if work is None else work.threads
        learning = Threads(self._workers if work is None else work.filling), self.device, progress, None if work is None else work.learning
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            terms = [replace(t, descriptor=learnt(t.descriptor, data.frames, *learning)) for t in terms]
            data = data.labelled()
            if optimize:
                noise, terms = optimised(terms, data, noise, threads, self._xp)
            if iterates(self.solver, observed_structures(data).size):
                model = fit_iterative(terms, data, noise, threads, self.cg_tolerance, self.n_preconditioner, self.device)
                evidence = np.nan
            else:
                model, evidence = fit_exact(terms, data, noise, threads, self._xp)
        self._set_fitted(model, data.references, observation_counts(data), noise, evidence)
        return self

    def _fit_property(self, frames: list[Atoms], y, optimize: bool, progress: bool) -> GaussianProcess:
        terms, noise = self._terms(), self._property_noise()
        check_structures(frames, [t.descriptor for t in terms])
        limits = {"threads": self.threads}
        if parse_memory(self.memory_limit) is not None:
            work = self._fit_work(frames, y)[2]
            limits = {"threads": work.threads, "elements": work.group}
        with serial_blas():
            terms = [replace(t, descriptor=learnt(t.descriptor, frames, Threads(self._workers), self.device, progress)) for t in terms]
            model, evidence, noise = fit_property(terms, frames, y, self.target, noise, self.baseline, optimize=optimize, **limits)
        self._set_fitted(model, model.references, {self.target: len(model.weights)}, noise, evidence)
        return self

    def predict(self, frames: Atoms | list[Atoms], uncertainty: bool | Iterable[str] = False, *, return_std: bool = False, client=None):
        """A `Prediction` of energies, forces and stress (see `Potential.predict`), or the property.

        Returns, for a property, (n_structures,) values, or for atoms one array (n_atoms,) for each structure; with ``return_std`` also
        their standard deviations in the same form (of the property itself, without the noise of an observation).
        """
        if not self._of_property():
            if return_std:
                raise InputError("`return_std` is for properties; ask a potential for `uncertainty`.")
            return super().predict(frames, uncertainty, client=client)
        check_is_fitted(self)
        if uncertainty is not False:
            raise InputError("`uncertainty` is for potentials; ask for the standard deviation of a property with `return_std`.")
        if client is not None:
            raise InputError("`client` is for potentials; a property is predicted in this process.")
        frames = as_frames(frames)
        check_structures(frames, [part.descriptor for part in self.model_.parts], pairs=False)
        atoms = sum(map(len, frames)) if parse_memory(self.memory_limit) is None else self._predict_work(frames, return_std)[3].group
        with serial_blas():
            groups = [group for _, group in split_by_atoms(frames, atoms)]
            values = self.model_.arranged(np.concatenate([self.model_.mean(group) for group in groups]), frames)
            if not return_std:
                return values
            std = np.concatenate([self.model_.std(group, self.threads) for group in groups])
            return values, self.model_.arranged(std, frames)

    def score(self, frames: list[Atoms], y=None) -> float:
        """As `Potential.score`; of a property the coefficient of determination R², as scikit-learn's regressors."""
        if not self._of_property():
            return super().score(frames, y)
        frames = as_frames(frames)
        if y is None:
            raise InputError("`y` must hold the values of the property, or its name.")
        from sklearn.metrics import r2_score

        values, _ = property_values(frames, y, "atom" if self.target == "atom" else "structure")
        return float(r2_score(values, np.hstack(self.predict(frames))))

    def calculator(self, uncertainty: bool | Iterable[str] = ("energy",)):
        """See `Potential.calculator`."""
        if self._of_property():
            raise InputError(f"a calculator needs `target`='potential', this model has {self.target!r}.")
        return super().calculator(uncertainty)

    def plan(
        self, frames: list[Atoms], y=None, *, optimize: bool | str = False, predict: bool = False, uncertainty=False, return_std=False
    ) -> Plan:
        """Rows, operations, memory and time of `fit`, or with ``predict`` of `predict`, before anything large is allocated.

        Parameters
        ----------
        frames : structures, with labels for a fit.  y : values of a property, as in `fit`; None: all that the target has.
        optimize, uncertainty, return_std : as in `fit` (it takes no more memory) and `predict`, which needs a fitted model.

        Returns
        -------
        A `Plan`, which prints as a table.

        Raises
        ------
        InputError : ``memory_limit`` is too small; the message says what would be enough.
        """
        frames, what = as_frames(frames), return_std if self._of_property() else wanted_uncertainties(uncertainty)
        if predict:
            terms, data, sizes, work = self._predict_work(frames, what)
            n = sum(self.n_observations_.values())
        else:
            terms = self._terms()
            data, sizes, work = self._fit_work(frames, y)
            n = sum(data.rows.values())
        return planning.plan_of(self, "prediction" if predict else "fit", terms, sizes, frames, data, work, n)

    def _fit_work(self, frames: list[Atoms], y=None):
        if self._of_property():
            return planning.property_fit_work(self, self._terms(), frames, y)
        return planning.observation_fit_work(self, self._terms(), frames, self._noise(), None)

    def _predict_work(self, frames: list[Atoms], wanted):
        if self._of_property():
            return planning.property_prediction_work(self, frames, wanted)
        return planning.observation_prediction_work(self, frames, wanted)

    def _of_property(self) -> bool:
        if self.target not in ("potential", *PROPERTIES):
            raise InputError(f"`target` must be one of {('potential', *PROPERTIES)}, received {self.target!r}.")
        return self.target != "potential"

    def _property_noise(self) -> float:
        if isinstance(self.noise, Mapping) or self.noise is None:
            raise InputError(f"`noise` must be a number, the standard deviation of the property, with `target`={self.target!r}.")
        require_positive(noise=self.noise)
        return float(self.noise)

    def _set_fitted(self, model: ObservationModel | PropertyModel, references, counts, noise, evidence: float) -> None:
        self.model_, self.signals_ = model, model.signals
        self.residual_, self.iterations_ = getattr(model, "residual", None), getattr(model, "iterations", None)
        self.reference_energies_, self.n_observations_, self.noise_, self.log_likelihood_ = references, counts, noise, evidence

    def state(self) -> dict:
        """See `Potential.state`; the training structures are kept, for the variances."""
        return {
            "reference_energies": self.reference_energies_,
            "n_observations": self.n_observations_,
            "noise": self.noise_,
            "log_likelihood": self.log_likelihood_,
            **self.model_.state(),
        }

    def restore(self, state: dict) -> None:
        """See `Potential.restore`."""
        self._terms()  # raises where descriptor and kernel are no term
        with serial_blas():
            if self._of_property():
                model = PropertyModel.restore(self.target, state["reference_energies"], state)
            elif "sparse" in state:
                model = IterativeModel.restore(state, self.threads, self.cg_tolerance, self.device)
            else:
                model = ObservationModel.restore(state, self.threads)
        self._set_fitted(model, *(state[name] for name in ("reference_energies", "n_observations", "noise", "log_likelihood")))

    def _noise(self) -> dict[str, float]:
        return checked_noise(self.noise)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=self.signal)

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        return self._predict_observed(self.model_, batch, first, wanted)


class KernelRidge(GaussianProcess):
    """Kernel ridge regression of energies, forces and stress, or a property: the mean of `GaussianProcess` with one regularisation.

    (K + α W²)⁻¹y with W = √N for an energy or an extensive property, ``force_weight``⁻¹ for a force component, ``stress_weight``⁻¹ for a
    stress component, 1 for other properties.

    Parameters
    ----------
    descriptor, kernel, baseline, threads, device, observations, target, solver, cg_tolerance, n_preconditioner, memory_limit : as in
        `GaussianProcess`.
    alpha : regularisation, eV² at unit signal.
    force_weight : relative weight of force components, Å.  stress_weight : relative weight of stress components, Å³.
    """

    def __init__(
        self,
        descriptor,
        kernel=None,
        *,
        alpha: float = 1e-6,
        force_weight: float = 0.1,
        stress_weight: float = 1.0,
        baseline=None,
        threads: int | None = None,
        device: str = "cpu",
        observations: Observations | None = None,
        target: str = "potential",
        solver: str = "auto",
        cg_tolerance: float = 1e-4,
        n_preconditioner: int | None = None,
        memory_limit: int | str | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.alpha = alpha
        self.force_weight = force_weight
        self.stress_weight = stress_weight
        self.baseline = baseline
        self.threads = threads
        self.device = device
        self.observations = observations
        self.target = target
        self.solver = solver
        self.cg_tolerance = cg_tolerance
        self.n_preconditioner = n_preconditioner
        self.memory_limit = memory_limit

    signal = 1.0

    def _noise(self) -> dict[str, float]:
        require_positive(alpha=self.alpha, force_weight=self.force_weight, stress_weight=self.stress_weight)
        level = np.sqrt(self.alpha)
        return {"energy": level, "forces": level / self.force_weight, "stress": level / self.stress_weight}

    def _property_noise(self) -> float:
        require_positive(alpha=self.alpha)
        return float(np.sqrt(self.alpha))
