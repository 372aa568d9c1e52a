"""Exact Gaussian process and kernel ridge regression on energies, forces and stress: every observation is a representer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.baselines import Baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import require_positive
from soapkrr.kernels import Kernel
from soapkrr.observations import Observations
from soapkrr.parallel import serial_blas
from soapkrr.prediction import Prediction
from soapkrr.regression.additive import AdditivePotential
from soapkrr.regression.data import check_optimize, checked_noise, prepared
from soapkrr.regression.observation_fit import fit_exact, optimised
from soapkrr.regression.observation_model import ObservationModel
from soapkrr.regression.sparse_set import learnt
from soapkrr.regression.targets import observation_counts
from soapkrr.regression.terms import Term
from soapkrr.structures import Batch, as_frames


class GaussianProcess(AdditivePotential):
    """Exact Gaussian process on total energies, forces and stress, for small sets of data.

    cov(L, L′) = Σ_ij L L′ δ²κ(x_i, x_j) for every pair of observations, through the mixed second derivative of the kernel; the weights
    (K + Σ)⁻¹y collapse onto the training environments, so that prediction costs about two sparse points for each of them. Memory
    8·N² bytes and N³/3 operations for N observations (Rasmussen and Williams 2006, algorithm 2.1).

    Parameters
    ----------
    descriptor : a descriptor, or a list of `Term` whose contributions add (their ``n_sparse`` and ``selection`` are not used).
    kernel : a kernel; None with a list of terms.
    noise : mapping with any of energy (eV per atom), forces (eV/Å), stress (eV/Å³); defaults 0.002, 0.05, 0.002.
    signal : prior standard deviation δ of an atom's energy, eV.
    baseline : reference energies and prior means, as in `SparseGP`.
    threads : threads of fit and predict; None takes every core this process may use.
    observations : `Observations`, as in `SparseGP`.

    Attributes
    ----------
    reference_energies_ : {symbol: eV}.  n_observations_ : {kind: number of rows}.  log_likelihood_ : log evidence of the data.
    noise_ : {kind: σ} used.  signals_ : δ of each term, eV.

    Raises
    ------
    InputError : a parameter or structure cannot be used.
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
        observations: Observations | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.noise = noise
        self.signal = signal
        self.baseline = baseline
        self.threads = threads
        self.observations = observations

    def fit(self, frames: list[Atoms], y=None, *, optimize: bool | str = False, progress: bool = False) -> GaussianProcess:
        """Fit to the labels that ``frames`` carry; ``y`` is ignored.

        ``optimize``: raise the evidence over noise levels and signals, from those given; on a random part of the structures where
        there are more than `OPTIMISE_ON` observations.
        """
        check_optimize(optimize, ("evidence",))
        noise, terms, frames = self._noise(), self._terms(), as_frames(frames)
        data = prepared(frames, [t.descriptor for t in terms], self.baseline, self.observations, noise)
        with serial_blas():
            terms = [replace(t, descriptor=learnt(t.descriptor, data.frames, self.threads, progress)) for t in terms]
            data = data.labelled()
            if optimize:
                noise, terms = optimised(terms, data, noise, self.threads)
            model, evidence = fit_exact(terms, data, noise, self.threads)
        self._set_fitted(model, data.references, observation_counts(data), noise, evidence)
        return self

    def _set_fitted(self, model: ObservationModel, references, counts, noise, evidence: float) -> None:
        self.model_, self.signals_ = model, model.signals
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
            model = ObservationModel.restore(state, self.threads)
        self._set_fitted(model, *(state[name] for name in ("reference_energies", "n_observations", "noise", "log_likelihood")))

    def _noise(self) -> dict[str, float]:
        return checked_noise(self.noise)

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=self.signal)

    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        return self._predict_observed(self.model_, batch, first, wanted)


class KernelRidge(GaussianProcess):
    """Kernel ridge regression of energies, forces and stress: the mean of `GaussianProcess` with one regularisation.

    (K + α W²)⁻¹y with W = √N for an energy, ``force_weight``⁻¹ for a force component and ``stress_weight``⁻¹ for a stress component.

    Parameters
    ----------
    descriptor, kernel, baseline, threads, observations : as in `GaussianProcess`.
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
        observations: Observations | None = None,
    ):
        self.descriptor = descriptor
        self.kernel = kernel
        self.alpha = alpha
        self.force_weight = force_weight
        self.stress_weight = stress_weight
        self.baseline = baseline
        self.threads = threads
        self.observations = observations

    signal = 1.0

    def _noise(self) -> dict[str, float]:
        require_positive(alpha=self.alpha, force_weight=self.force_weight, stress_weight=self.stress_weight)
        level = np.sqrt(self.alpha)
        return {"energy": level, "forces": level / self.force_weight, "stress": level / self.stress_weight}
