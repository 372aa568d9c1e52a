"""Why this answer: what the labels of every training structure contribute to a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.display import Tabular
from soapkrr.errors import InputError
from soapkrr.regression.data import TrainingData
from soapkrr.regression.process import Predictor
from soapkrr.uncertainty.observables import Energy, Force, Stress, functionals_of


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Tabular):
    """A prediction as a sum over the training structures.

    A posterior mean is linear in the labels, Σ_i h_i y_i; a structure contributes its own part of the sum.

    Attributes
    ----------
    contributions : (n_train, …) of each training structure, in the order in which they were given; … is the shape of the prediction.
    prior : (…) reference energies and prior means, which no structure contributes.
    kind : of prediction, ``"energy"``, ``"energies"``, ``"forces"`` or ``"stress"``.
    """

    contributions: np.ndarray
    prior: np.ndarray
    kind: str

    @property
    def total(self) -> np.ndarray:
        """(…) the prediction: the sum of the contributions and the prior."""
        return self.contributions.sum(axis=0) + self.prior

    @property
    def weight(self) -> np.ndarray:
        """(n_train,) root sum of squares of each structure's contribution."""
        return np.sqrt((self.contributions.reshape(len(self.contributions), -1) ** 2).sum(axis=1))

    def _title(self) -> str:
        return f"Contributions of {len(self.contributions)} training structures, largest first"

    def _columns(self) -> list[str]:
        return ["structure", "contribution"]

    def _rows(self) -> list[list[str]]:
        return [[str(k), f"{self.weight[k]:.4g}"] for k in np.argsort(-self.weight, kind="stable")[:10]]


def attribution(predictor: Predictor, data: TrainingData, noise: Mapping[str, float], frame: Atoms, kind: str) -> Attribution:
    """See `Potential.attribution`."""
    observables = _observables(frame, kind)
    functionals, _ = functionals_of(observables.ravel())
    contributions = np.empty((len(data.frames), len(functionals)))
    contributions[data.order] = predictor.placed.influence(functionals, data, noise)
    prior = predictor.prior(functionals.batch)
    base = functionals.of(prior.energies, prior.forces, prior.strain / functionals.batch.volumes[:, None])
    return Attribution(contributions.reshape(-1, *observables.shape), base.reshape(observables.shape), kind)


def _observables(frame: Atoms, kind: str) -> np.ndarray:
    """Array of observables in the shape of a prediction of this kind."""
    if not isinstance(frame, Atoms):
        raise InputError(f"`frame` must be one ase.Atoms object, received {type(frame).__name__}.")
    if kind == "forces":
        return Force.all(frame)
    makers = {"energy": lambda: [Energy(frame)], "energies": lambda: [Energy(frame, i) for i in range(len(frame))]}
    makers["stress"] = lambda: [Stress(frame, v) for v in range(6)]
    if kind not in makers:
        raise InputError(f"`kind` must be one of {('energy', 'energies', 'forces', 'stress')}, received {kind!r}.")
    found = makers[kind]()
    out = np.empty(len(found), dtype=object)
    out[:] = found
    return out[0:1].reshape(()) if kind == "energy" else out
