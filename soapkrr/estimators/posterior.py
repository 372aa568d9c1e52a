"""What fitted potentials say about their posterior beyond one prediction."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.utils.validation import check_is_fitted

from soapkrr.baselines import Baseline
from soapkrr.estimators.fitted import Estimator
from soapkrr.execution.memory import device_limit
from soapkrr.regression.process import Predictor
from soapkrr.threads import serial_blas
from soapkrr.uncertainty.joint import JointPosterior, posterior
from soapkrr.uncertainty.samples import PotentialSamples


class PosteriorMethods(Estimator):
    """Joint posteriors, samples, gains of labels and attributions of a fitted potential."""

    prior_means_: Sequence[Baseline]

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

    def sample(self, n: int, seed: int = 0) -> PotentialSamples:
        """``n`` whole potentials drawn from the posterior, which predict together or one by one; see `PotentialSamples` for what is drawn.

        Raises
        ------
        InputError : ``n`` is no positive integer, or the process keeps no features to draw weights of (conjugate gradients).
        """
        with serial_blas(), device_limit(self._xp, self.memory_limit):
            return PotentialSamples(self._predictor(), n, seed)
