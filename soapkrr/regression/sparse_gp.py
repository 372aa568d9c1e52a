"""Sparse Gaussian-process regression of per-atom energies on energies, forces and stress."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import backends, linear
from soapkrr.baselines import Baseline, baseline_energies, split_baseline, total
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, ModelFileError
from soapkrr.kernels import Kernel
from soapkrr.memory import device_limit, parse_memory
from soapkrr.observations import Observations
from soapkrr.parallel import Threads, meanwhile, pool_of, serial_blas
from soapkrr.potential import wanted_uncertainties
from soapkrr.prediction import Prediction
from soapkrr.regression import planning
from soapkrr.regression.additive import AdditivePotential
from soapkrr.regression.cross_validation import cross_validated
from soapkrr.regression.data import TrainingData, check_optimize, check_tolerance, checked_noise, prepared
from soapkrr.regression.evidence import log_likelihood, optimise_sparse
from soapkrr.regression.factors import kernel_factors, rescaled, whitened_factors, whitens_beside
from soapkrr.regression.observation_fit import fit_nystrom, optimised
from soapkrr.regression.observation_model import ObservationModel
from soapkrr.regression.plan import Plan
from soapkrr.regression.posterior import SparseModel
from soapkrr.regression.sparse_set import learnt, sparse_points
from soapkrr.regression.targets import log_weights, observation_counts
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.selectors import Selection
from soapkrr.structures import Batch, as_frames

logger = logging.getLogger(__name__)

#: What the sparse points may be.
REPRESENTERS = ("environments", "observations")

#: Folds of a cross-validation, by structure.
FOLDS = 5


class SparseGP(AdditivePotential):
    """Gaussian process on sparse environments: E = Σ_i [e(z_i) + Σ_q a_q κ(x_i, x_q)], fitted as Bayesian linear regression.

    Nyström features φ(x) = δ Λ^{-1/2} Vᵀ κ_M(x) with prior w ~ N(0, 1); observations are total energies (noise σ_E √N), force
    components (σ_F) and stress components (σ_S), any of them missing on any structure. Variances are DTC
    (Quiñonero-Candela and Rasmussen 2005, JMLR 6, 1939).

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term`, whose contributions add; ``kernel``, ``n_sparse``, ``signal`` and ``selection`` then
        belong to the terms.
    kernel : a kernel, for example `DotProduct`.
    n_sparse : sparse points in all, shared among species in proportion to their environments, or a mapping {symbol: number}.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    selection : how sparse points are chosen, as in `Term`.
    baseline : reference energies: {symbol: eV}, ``"isolated"``, ``"least-squares"`` or None (isolated atoms where every
        species has one in the data, otherwise least squares). Or a prior mean, `ZBL` or `CalculatorBaseline`, or a list of prior means
        with at most one of the former: ``["isolated", ZBL()]``.
    tolerance : eigenvalues of the sparse points' kernel matrix below this fraction of the largest are dropped.
    threads : threads of fit and predict; None takes every core this process may use.
    device : ``"cpu"``; ``"cuda"``: the GPU, through CuPy; ``"auto"``: a GPU where there is one. Fitted arrays are kept as NumPy's.
    observations : `Observations`: names of labels, noise by configuration type, structure, atom and component, masks, weights; None:
        the calculators' results, each with the model's ``noise``.
    representers : ``"environments"``: sparse points are atoms' environments, and variances those of the deterministic training conditional
        on their energies. ``"observations"``: they are energies, force and stress components of the data, up to ``n_sparse`` (an integer)
        of them in all terms together, picked by pivoted Cholesky in units of their noise; all of them give the exact Gaussian process.
        More data-efficient for some hundred structures; fitting takes 8·N² bytes for N observations.
    memory_limit : memory that fit and predict may take beside what the process holds already (Python, libraries, the structures), such
        as ``"2GB"``, or None. Work is then done in smaller blocks, which changes results by rounding only; where the features of all
        environments do not fit, sparse points are chosen among evenly spread ones, with a warning. The memory of a GPU is held to it
        as well. See `plan`.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  prior_means_ : prior means in use.
    n_sparse_ : {symbol: number of sparse points used}, a list of them for a list of terms, or {kind: number of observations}.
    rank_ : number of features kept.  condition_ : estimated condition number of the regression.
    n_observations_ : {kind: number of rows}.  noise_ : {kind: σ} used.  log_likelihood_ : log evidence of the data.

    Raises
    ------
    InputError : a parameter or a structure cannot be used; `LabelError` when the labels cannot. A fit that fails or is
        interrupted leaves the estimator as it was.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SOAP, DotProduct, SparseGP
    >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> model = SparseGP(SOAP(species=["Cu"], r_cut=4.0, n_max=3, l_max=2), DotProduct(zeta=2)).fit(frames)
    >>> bool(abs(model.predict(frames).energy[1] - frames[1].get_potential_energy()) < 0.01)
    True
    """

    def __init__(
        self,
        descriptor: Descriptor | Term | list[Term],
        kernel: Kernel | None = None,
        *,
        n_sparse: int | Mapping[str, int] = 1000,
        noise: Mapping[str, float] | None = None,
        signal: float = 3.0,
        selection: str | Selection = "fps",
        baseline: Mapping[str, float] | str | None | Baseline | list = None,
        tolerance: float = 1e-10,
        threads: int | None = None,
        device: str = "cpu",
        observations: Observations | None = None,
        representers: str = "environments",
        memory_limit: int | str | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.n_sparse = n_sparse
        self.noise = noise
        self.signal = signal
        self.selection = selection
        self.baseline = baseline
        self.tolerance = tolerance
        self.threads = threads
        self.device = device
        self.observations = observations
        self.representers = representers
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, progress: bool = False, client=None) -> SparseGP:
        """Fit to the labels that ``frames`` carry (`atoms.calc.results`); ``y`` is ignored, as scikit-learn's pipelines pass it.

        ``optimize``: find noise levels and signals from those given, with no further pass over the data; True or ``"evidence"``: of highest
        evidence, ``"cross-validation"``: noise of least error on left-out structures, then the common scale of noise and signals of
        highest evidence. ``progress`` draws bars on a terminal. ``client``: a `dask.distributed.Client`, whose workers make the rows and
        choose the sparse points (representers "environments" only). Returns the estimator itself.
        """
        noise = checked_noise(self.noise)
        check_tolerance(self.tolerance)
        terms, of_observations = self._terms(), self._of_observations()
        check_optimize(optimize, ("evidence",) if of_observations else ("evidence", "cross-validation"))
        if of_observations and client is not None:
            raise InputError("`client` needs `representers`='environments': representers that are observations are chosen in one process.")
        if client is not None and self.memory_limit is not None:
            raise InputError("`memory_limit` is of one process; with a `client`, give its workers limits of their own.")
        pool = pool_of(client, None if client is not None else self._workers)
        frames = as_frames(frames)
        data = prepared(frames, [t.descriptor for t in terms], self.baseline, self.observations, noise)
        work = None if parse_memory(self.memory_limit) is None else self._fit_work(frames, optimize)[2]
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            if of_observations:
                self._fit_observations(terms, data, noise, optimize, progress, work)
            else:
                chosen = pool if work is None else Threads(work.filling)
                bare = [self._bare_term(t, frames, chosen, progress, work) for t in terms]
                self._fit_environments(bare, data, noise, optimize, pool, progress, work)
        logger.info("fitted %d rows on %d features, condition number %.1e", sum(self.n_observations_.values()), self.rank_, self.condition_)
        return self

    def _fit_environments(self, bare: list[SparseTerm], data: TrainingData, noise, optimize, pool, progress: bool, work) -> None:
        """From terms that are not whitened yet."""
        pool, division = (pool, {}) if work is None else (Threads(work.threads), {"group": work.group, "lane": work.lane})
        folds = data.folds(FOLDS) if optimize == "cross-validation" else [data]
        beside = work is None and whitens_beside(sum(t.n_points for t in bare), self._workers)
        with meanwhile(lambda: [t.whitened(self.tolerance, self._workers) for t in bare], beside) as whitened:
            parts = [kernel_factors(bare, part, pool, self.device, progress, **division) for part in folds]
            fitted = whitened()
        parts = [(whitened_factors(fitted, factors, pool), counts) for factors, counts in parts]
        factors, counts = parts[0]
        if optimize == "cross-validation":
            noise, signals, factors, counts = cross_validated(parts, noise, [t.signal for t in fitted])
            fitted, factors = rescaled(fitted, factors, signals)
        if optimize in (True, "evidence"):
            found = optimise_sparse(factors, counts, noise, [t.rank for t in fitted], [t.signal for t in fitted])
            noise, fitted, factors = {**noise, **found.noise}, *rescaled(fitted, factors, found.signals)
        posterior = linear.solve(factors, {kind: noise[kind] for kind in factors})
        evidence = log_likelihood(posterior, counts, noise) + log_weights(data)
        terms = tuple(term.moved(np) for term in fitted)
        self._set_fitted(data.references, counts, noise, evidence, backends.host(factors), posterior.moved(np), terms=terms)

    def _fit_observations(self, terms: list[Term], data: TrainingData, noise, optimize, progress, work) -> None:
        threads = self._workers if work is None else work.threads
        learning = Threads(self._workers if work is None else work.filling), self.device, progress, None if work is None else work.learning
        terms = [replace(t, descriptor=learnt(t.descriptor, data.frames, *learning)) for t in terms]
        data = data.labelled()
        if optimize and len(terms) > 1:
            terms = optimised(terms, data, noise, threads, self._xp)[1]
        counts = observation_counts(data)
        options = counts if optimize else None, self._xp
        model, factors, noise = fit_nystrom(terms, data, noise, self.n_sparse, self.tolerance, threads, *options)
        evidence = log_likelihood(model.posterior, counts, noise) + log_weights(data)
        self._set_fitted(data.references, counts, noise, evidence, factors, model.posterior, model=model)

    def _set_fitted(
        self, references, counts, noise, evidence, factors, posterior, terms=None, model: ObservationModel | None = None
    ) -> None:
        self.terms_, self.posterior_, self.factors_ = terms, posterior, factors
        self.model_ = SparseModel(terms, posterior) if model is None else model
        self.reference_energies_, self.prior_means_ = references, split_baseline(self.baseline)[1]
        self.n_observations_, self.noise_, self.log_likelihood_ = counts, noise, evidence
        self.rank_, self.condition_ = len(posterior.mean), posterior.condition
        if model is not None:
            self.n_sparse_ = model.counts()
            return
        numbers = [dict(zip(t.descriptor.species, map(len, t.points), strict=True)) for t in terms]
        self.n_sparse_ = numbers[0] if isinstance(self.descriptor, Descriptor) else numbers

    def _of_observations(self) -> bool:
        if self.representers not in REPRESENTERS:
            raise InputError(f"`representers` must be one of {REPRESENTERS}, received {self.representers!r}.")
        if self.representers == "environments":
            return False
        if not (isinstance(self.n_sparse, (int, np.integer)) and self.n_sparse > 0):
            raise InputError(f"`n_sparse` must be a positive integer with `representers`='observations', received {self.n_sparse!r}.")
        return True

    def _bare_term(self, term: Term, frames, pool, progress, work) -> SparseTerm:
        limits = () if work is None else (work.selection, work.learning)
        descriptor, points = sparse_points(term, frames, pool, self.device, progress, *limits)
        return SparseTerm(descriptor, term.kernel, term.signal, tuple(points), ())

    def state(self) -> dict:
        """See `Potential.state`."""
        state = {
            "reference_energies": self.reference_energies_,
            "n_observations": self.n_observations_,
            "noise": self.noise_,
            "log_likelihood": self.log_likelihood_,
            "factors": self.factors_,
        }
        if self.terms_ is None:
            return {**state, **self.model_.state()}
        posterior = {name: getattr(self.posterior_, name) for name in ("mean", "factor", "condition", "residual")}
        return {**state, "terms": [t.state() for t in self.terms_], "posterior": posterior}

    def restore(self, state: dict) -> None:
        """See `Potential.restore`."""
        self._terms()  # raises where descriptor and kernel are no term
        common = [state[name] for name in ("reference_energies", "n_observations", "noise", "log_likelihood", "factors")]
        if self._of_observations():
            with serial_blas():
                model = ObservationModel.restore(state, self.threads)
            self._set_fitted(*common, model.posterior, model=model)
            return
        terms, posterior = tuple(SparseTerm.restore(t) for t in state["terms"]), linear.Posterior(**state["posterior"])
        rank = sum(term.rank for term in terms)
        if posterior.factor.shape != (rank, rank) or posterior.mean.shape != (rank,):
            raise ModelFileError(f"the arrays do not fit together: {rank} features, factor {posterior.factor.shape}.")
        self._set_fitted(*common, posterior, terms=terms)

    def plan(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, predict: bool = False, uncertainty=False) -> Plan:
        """Rows, operations, memory and time of `fit`, or with ``predict`` of `predict`, before anything large is allocated.

        Parameters
        ----------
        frames : structures, with labels for a fit.  y : ignored.
        optimize, uncertainty : as in `fit` and `predict`.

        Returns
        -------
        A `Plan`, which prints as a table. Ranks count as the numbers of sparse points, so that memory and time are rather too large.

        Raises
        ------
        InputError : ``memory_limit`` is too small; the message says what would be enough.
        """
        frames = as_frames(frames)
        if predict:
            terms, data, sizes, work = self._predict_work(frames, wanted_uncertainties(uncertainty))
        else:
            terms = self._terms()
            data, sizes, work = self._fit_work(frames, optimize)
        n = self.n_sparse if self._of_observations() else planning.representers_of(sizes)
        return planning.plan_of(self, "prediction" if predict else "fit", terms, sizes, frames, data, work, n)

    def _fit_work(self, frames: list[Atoms], optimize):
        noise, terms = checked_noise(self.noise), self._terms()
        if self._of_observations():
            return planning.observation_fit_work(self, terms, frames, noise, self.n_sparse)
        return planning.sparse_fit_work(self, terms, frames, noise, optimize)

    def _predict_work(self, frames: list[Atoms], wanted: frozenset[str]):
        if self._of_observations():
            return planning.observation_prediction_work(self, frames, wanted)
        return planning.sparse_prediction_work(self, frames, wanted)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, self.n_sparse, self.signal, self.selection)

    def _to_predict(self) -> SparseGP:
        model = copy(self)
        model.factors_ = None  # as large as the posterior for each kind of observation, and of no use to a prediction
        return model

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        if self.terms_ is None:
            return self._predict_observed(self.model_, batch, first, wanted)
        references = baseline_energies(self.reference_energies_, batch.numbers, batch.structure + first)
        model = self.model_.on(self._xp, self._workers)
        *means, features = model.mean(batch, first, spread="energies" in wanted)
        energies, forces, strain = backends.host(means)
        mean = total(self.prior_means_, batch, first)
        energies, forces, strain = energies + references + mean.energies, forces + mean.forces, strain + mean.strain
        designs = model.designs(batch, first) if wanted & {"forces", "stress"} else []
        per_atom = batch.offsets[1:-1]
        std = {}
        if features is not None:
            std["energies_std"] = np.split(np.sqrt(backends.host(features.atom_variance)), per_atom)
        if "energy" in wanted:
            std["energy_std"] = np.sqrt(backends.host(model.energy_variance(batch, features)))
        if "forces" in wanted:
            std["forces_std"] = np.split(np.sqrt(backends.host(model.forces_variance(designs))), per_atom)
        if "stress" in wanted:
            std["stress_std"] = np.sqrt(backends.host(model.strain_variance(designs))) / batch.volumes[:, None]
        return Prediction(
            energy=np.bincount(batch.structure, energies, minlength=len(batch)),
            energies=np.split(energies, per_atom),
            forces=np.split(forces, per_atom),
            stress=strain / batch.volumes[:, None],
            **std,
        )
