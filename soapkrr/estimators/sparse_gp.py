"""Sparse Gaussian-process regression of per-atom energies on energies, forces and stress."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.compressing import compressed
from soapkrr.estimators.growing import Addition, grown_fit
from soapkrr.execution.memory import device_limit
from soapkrr.kernels import Kernel
from soapkrr.labels import Observations
from soapkrr.planning import Task, fit_work
from soapkrr.regression.data import checked_noise
from soapkrr.regression.exact.subset import ObservationSubset
from soapkrr.regression.fit import Fit, Scheme
from soapkrr.regression.score import Score
from soapkrr.regression.sparse.fit import SparseEnvironments
from soapkrr.regression.terms import Term
from soapkrr.selection.specifications import Selection
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas

logger = logging.getLogger(__name__)

#: What the sparse points may be.
REPRESENTERS = ("environments", "observations")


class SparseGP(Potential):
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
    signals_ : δ of each term, eV.  fitted_parameters_ : the parameters of the fit.

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

    def fit(
        self,
        frames: list[Atoms],
        y=None,
        *,
        optimize: bool | str = False,
        score: str | Mapping[str, float] = "balanced",
        calibrate: bool = False,
        progress: bool = True,
        client=None,
    ) -> SparseGP:
        """Fit to the labels that ``frames`` carry (`atoms.calc.results`); ``y`` must be None, as scikit-learn passes it.

        ``optimize``: find noise levels and signals from those given, with no further pass over the data; True or ``"evidence"``: of highest
        evidence, ``"cross-validation"``: noise of least error on left-out structures, then the common scale of noise and signals of
        highest evidence. ``score``: which errors these are, as in `soapkrr.fit`; `pareto` shows what they trade. ``calibrate``: learn error
        bars as `calibrate` does afterwards, from rows that the fit keeps on a disk: a quarter to half of its time in place of all of it
        again. ``progress`` draws bars on a terminal. ``client``: a `dask.distributed.Client`, whose workers make the rows and choose the
        sparse points (representers "environments" only). Returns the estimator itself.
        """
        self._refuse_values(y)
        wanted = Score.of(score)
        if score != "balanced" and optimize != "cross-validation":
            raise InputError(f"`score` is what a cross-validation makes small, received {score!r} with `optimize` {optimize!r}.")
        self.learn(frames, optimize, progress, client, score=wanted, calibrate=calibrate)
        if calibrate and self.calibration_ is None:
            self.calibrate(frames, client=client)  # says why it cannot be
        logger.info("fitted %d rows on %d features, condition number %.1e", sum(self.n_observations_.values()), self.rank_, self.condition_)
        return self

    def update(self, frames: Atoms | list[Atoms], *, novelty: float | None = None, training: Atoms | list[Atoms] | None = None) -> SparseGP:
        """Add structures with labels to the fitted data; returns self.

        Equal to a fit to all of them with the sparse points (or representers), noise, signals, reference energies and learnt scalings of
        this model: triangles of the design rows absorb the new ones, at 2·n·r² operations for n new rows of r features, whatever was
        fitted before. Error bars that were calibrated are the posterior's own again, as after `fit`.

        With ``novelty``, environments of the new structures become sparse points where those there are leave the energy of an atom
        undetermined by more than that, whatever is observed: δ²κ(x, x) − |φ|² > ``novelty``², the largest first, and until none is larger:
        the farthest points in the metric of the kernel. Each is a new column of all design rows.
        A model keeps neither old structures nor their Jacobians, so that these columns are made again from ``training``: the cost is that
        of the rows and triangles of a fit; nothing is selected or optimised again.

        Parameters
        ----------
        frames : structures with labels, as in `fit`, of species that the model knows.
        novelty : standard deviation of an atom's energy, eV, such as 1e-3; None: sparse points stay as they are.
        training : all structures that the model was fitted to, with their labels, in any order, which ``origin_`` tells. Used where there
            are new sparse points; the model then states its data again, so that a next `update` and `leave_out` can be told them.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure, a label or a parameter cannot be used; the model stays as it was.

        Examples
        --------
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from soapkrr import SOAP, DotProduct, SparseGP
        >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
        >>> for atoms in frames:
        ...     atoms.calc = EMT()
        ...     _ = atoms.get_potential_energy()
        >>> model = SparseGP(SOAP(["Cu"], r_cut=4.0), DotProduct(zeta=2)).fit(frames[:2])
        >>> model.update(frames[2], novelty=1e-6, training=frames[:2]).n_observations_["energy"]
        3
        """
        check_is_fitted(self)
        more = Addition.of(self, as_frames(frames), self.reference_energies_)
        everything = None if training is None else more.after(self, as_frames(training))
        largest = everything or more
        task = Task(self._terms(), largest.frames, largest.labels, None)
        division = fit_work(self._scheme(), task, self._budget).division if self._limited else None
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            fit = grown_fit(self, more, everything, novelty, self._resources(division, False, None))
        choices = {name: vars(self)[name] for name in ("choices_",) if name in vars(self)}
        self._set_fitted(fit, self.reference_energies_)
        vars(self).update(choices)
        more.noted(self)
        if everything is not None:
            self.origin_ = everything.origin()
        return self

    def compress(self, *, tolerance: float | None = None, microseconds_per_atom: float | None = None, frames=None) -> SparseGP:
        """The fitted model on fewer of its sparse points, without a pass over the data: as few as errors, or as a time, allow.

        The posterior is the one that a fit with these points would have given, error bars too: they grow by what is lost. Points are taken
        in the order in which the mean needs them. `compression_` of the result says what changed, by generalised cross-validation.
        Calibrations stay as they are; `calibrate` or `leave_out` with the data of the fit say more.

        Parameters
        ----------
        tolerance : part by which errors of left-out labels may grow, 0.02 for two per cent.
        microseconds_per_atom : time of a prediction of ``frames`` with the model's threads, instead.
        frames : structures whose prediction is timed.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : neither or both are given, or are not positive; there are no sparse environments; or no number of points is as fast,
            and then the message says how fast the fewest are.
        """
        check_is_fitted(self)
        return compressed(self, tolerance, microseconds_per_atom, frames)

    def _scheme(self) -> Scheme:
        if self.representers not in REPRESENTERS:
            raise InputError(f"`representers` must be one of {REPRESENTERS}, received {self.representers!r}.")
        if self.representers == "environments":
            return SparseEnvironments(self.tolerance)
        return ObservationSubset(self.n_sparse, self.tolerance)

    def _noise(self) -> dict[str, float]:
        return checked_noise(self.noise)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, self.n_sparse, self.signal, self.selection)

    def _set_fitted(self, fit: Fit, references: Mapping[str, float]) -> None:
        super()._set_fitted(fit, references)
        process: Any = fit.process  # one of the two whose representers are counted
        numbers, posterior = process.representers(), process.posterior
        of_one_term = isinstance(numbers, list) and isinstance(self.fitted_parameters_["descriptor"], Descriptor)
        self.n_sparse_ = numbers[0] if of_one_term else numbers
        self.rank_, self.condition_ = len(posterior.mean), posterior.condition
