"""Exact Gaussian process of energies, forces and stress."""

from __future__ import annotations

from collections.abc import Mapping

from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.growing import Addition, counted
from soapkrr.execution.memory import device_limit
from soapkrr.kernels import Kernel
from soapkrr.labels import Observations
from soapkrr.regression.data import checked_noise
from soapkrr.regression.exact.cholesky import Cholesky
from soapkrr.regression.exact.growing import grown
from soapkrr.regression.exact.iterative import BySize, ConjugateGradients
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.fit import Fit, Scheme
from soapkrr.regression.targets import observation_counts
from soapkrr.regression.terms import Term
from soapkrr.structures import as_frames
from soapkrr.threads import serial_blas

#: How an exact process is solved.
SOLVERS = ("auto", "cholesky", "cg")


class ExactPotential(Potential):
    """A potential whose representers are all observations; `GaussianProcess` and `KernelRidge` differ in what they call the noise.

    Attributes
    ----------
    residual_, iterations_ : of conjugate gradients, as ``cg_tolerance``; None where they were not used.
    """

    solver: str
    cg_tolerance: float
    n_preconditioner: int | None

    def _scheme(self) -> Scheme:
        if self.solver not in SOLVERS:
            raise InputError(f"`solver` must be one of {SOLVERS}, received {self.solver!r}.")
        iterative = ConjugateGradients(self.cg_tolerance, self.n_preconditioner)
        return {"cholesky": Cholesky(), "cg": iterative, "auto": BySize(iterative)}[self.solver]

    def update(self, frames: Atoms | list[Atoms], *, references: Mapping[str, float] | None = None):
        """Add structures with labels to the fitted data; returns self.

        Equal to a fit to all of them with the noise, signals, reference energies and learnt scalings of this model, but at n N² operations
        for n new observations beside N, in place of N³/3 and all covariances. Error bars that were calibrated are the posterior's own
        again, as after `fit`.

        Parameters
        ----------
        frames : structures with labels, as in `fit`, of species that the model knows.
        references : other reference energies {symbol: eV}, for the structures before too; None: those of the model.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure or a label cannot be used, or the model was fitted by conjugate gradients; it stays as it was.

        Examples
        --------
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from soapkrr import SOAP, DotProduct, GaussianProcess
        >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]
        >>> for atoms in frames:
        ...     atoms.calc = EMT()
        ...     _ = atoms.get_potential_energy()
        >>> model = GaussianProcess(SOAP(["Cu"], r_cut=4.0), DotProduct(zeta=2)).fit(frames[:2])
        >>> model.update(frames[2]).n_observations_["energy"]
        3
        """
        check_is_fitted(self)
        process, references = self.process_, self.reference_energies_ if references is None else dict(references)
        if not isinstance(process, ExactProcess):
            raise InputError(
                "`update` adds rows to a Cholesky factor; a fit by conjugate gradients has none: fit again with all structures."
            )
        more = Addition.of(self, as_frames(frames), references)
        shift = {symbol: energy - references[symbol] for symbol, energy in self.reference_energies_.items()}
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            self.process_, self.log_likelihood_ = grown(process, more.data, self.noise_, shift)
        self.reference_energies_ = references
        self.n_observations_ = counted(self.n_observations_, observation_counts(more.data.labels))
        more.noted(self)
        return self

    def _set_fitted(self, fit: Fit, references: Mapping[str, float]) -> None:
        super()._set_fitted(fit, references)
        self.residual_, self.iterations_ = getattr(fit.process, "residual", None), getattr(fit.process, "iterations", None)


class GaussianProcess(ExactPotential):
    """Exact Gaussian process on total energies, forces and stress.

    cov(L, L′) = Σ_ij L L′ δ²κ(x_i, x_j) for every pair of observations, through the mixed second derivative of the kernel; the weights
    (K + Σ)⁻¹y collapse onto the training environments, so that prediction costs about two sparse points for each of them. By Cholesky
    decomposition 8·N² bytes and N³/3 operations for N observations (Rasmussen and Williams 2006, algorithm 2.1). By conjugate gradients
    K is never stored: 8·n²·d operations an iteration for n environments with d features, some twenty to a hundred iterations, and
    8·N·``n_preconditioner`` bytes; but each standard deviation takes as long as a fit.

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term` whose contributions add (their ``n_sparse`` and ``selection`` are not used).
    kernel : a kernel; None with a list of terms.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    baseline : reference energies and prior means, as in `SparseGP`.
    threads : threads of fit and predict; None takes every core this process may use.
    device : ``"cpu"``, ``"cuda"`` or ``"auto"``, as in `SparseGP`.
    observations : `Observations`, as in `SparseGP`.
    solver : ``"cholesky"``, ``"cg"`` (conjugate gradients), or ``"auto"``: Cholesky up to 32,768 observations.
    cg_tolerance : residual at which conjugate gradients stop, root mean square over all observations in units of their noise. The mean at
        the training data is that close to the exact one; standard deviations have this relative error.
    n_preconditioner : sparse points of the preconditioner of conjugate gradients; None: a fifth of the environments, 1000 to 3000.
    memory_limit : as in `SparseGP`; a fit whose covariance does not fit is an error.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  n_observations_ : {kind: number of rows}.
    log_likelihood_ : log evidence of the data; NaN after conjugate gradients, which do not give log|K + Σ|.
    noise_ : {kind: σ} used.  signals_ : δ of each term, eV.  fitted_parameters_ : the parameters of the fit.
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
        noise: Mapping[str, float] | None = None,
        signal: float = 3.0,
        baseline: Mapping[str, float] | str | None | Baseline | list = None,
        threads: int | None = None,
        device: str = "cpu",
        observations: Observations | None = None,
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
        self.solver = solver
        self.cg_tolerance = cg_tolerance
        self.n_preconditioner = n_preconditioner
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, progress: bool = True, client=None) -> GaussianProcess:
        """Fit to the labels that ``frames`` carry (`atoms.calc.results`); ``y`` must be None, as scikit-learn passes it.

        ``optimize``: raise the evidence over noise levels and signals, from those given, on a random part of the structures where there are
        more than `cholesky.OPTIMISE_ON` observations. ``progress`` draws bars on a terminal. ``client`` is refused: the covariance is one
        matrix in one process.
        """
        self._refuse_values(y)
        return self.learn(frames, optimize, progress, client)

    def _noise(self) -> dict[str, float]:
        return checked_noise(self.noise)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=self.signal)
