"""Kernel ridge regression of energies, forces and stress."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr.baselines import Baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import require_positive
from soapkrr.estimators.gaussian_process import ExactPotential
from soapkrr.kernels import Kernel
from soapkrr.labels import Observations
from soapkrr.regression.terms import Term


class KernelRidge(ExactPotential):
    """Kernel ridge regression of energies, forces and stress: the mean of `GaussianProcess` with one regularisation.

    (K + α W²)⁻¹y with W = √N for an energy, 1/``force_weight`` for a force component, 1/``stress_weight`` for a stress component.

    Parameters
    ----------
    descriptor, kernel, baseline, threads, device, observations, solver, cg_tolerance, n_preconditioner, memory_limit : as in
        `GaussianProcess`.
    alpha : regularisation, eV² at unit signal.
    force_weight : relative weight of force components, Å.  stress_weight : relative weight of stress components, Å³.

    Attributes
    ----------
    reference_energies_, n_observations_, log_likelihood_, noise_, signals_, residual_, iterations_ : as in `GaussianProcess`.

    Raises
    ------
    InputError : a parameter or structure cannot be used, or conjugate gradients do not converge.
    """

    def __init__(
        self,
        descriptor: Descriptor | list[Term],
        kernel: Kernel | None = None,
        *,
        alpha: float = 1e-6,
        force_weight: float = 0.1,
        stress_weight: float = 1.0,
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
        self.alpha = alpha
        self.force_weight = force_weight
        self.stress_weight = stress_weight
        self.baseline = baseline
        self.threads = threads
        self.device = device
        self.observations = observations
        self.solver = solver
        self.cg_tolerance = cg_tolerance
        self.n_preconditioner = n_preconditioner
        self.memory_limit = memory_limit

    def fit(self, frames: list[Atoms], y=None, *, progress: bool = True, client=None) -> KernelRidge:
        """Fit to the labels that ``frames`` carry (`atoms.calc.results`); ``y`` must be None, as scikit-learn passes it.

        ``progress`` draws bars on a terminal. ``client`` is refused: the kernel matrix is one matrix in one process.
        """
        self._refuse_values(y)
        return self.learn(frames, False, progress, client)

    def _noise(self) -> dict[str, float]:
        require_positive(alpha=self.alpha, force_weight=self.force_weight, stress_weight=self.stress_weight)
        level = np.sqrt(self.alpha)
        return {"energy": level, "forces": level / self.force_weight, "stress": level / self.stress_weight}

    def _one_term(self) -> Term:
        return Term(self.descriptor, self.kernel, signal=1.0)
