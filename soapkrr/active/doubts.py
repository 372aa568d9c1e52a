"""How wrong a force may be: by the posterior, by a calibration, or by a committee of samples of the posterior."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from soapkrr.active.asking import held
from soapkrr.calculator import largest_deviation
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.uncertainty.calibrated import CalibratedPrediction
from soapkrr.uncertainty.samples import PotentialSamples

#: Structures that a process must know for its samples to differ.
FEWEST = 3


class Doubt:
    """The largest standard deviation of a force on an atom that may move, as a length, eV/Å.

    Of a calibrated model the largest radius of the conformal balls that hold 1 − ``rate`` of all forces, where these are finite. With a
    ``committee`` of n samples F_k of the posterior that of their spread, (Σ_k |F_k − F̄|²/(n − 1))^½: all of them are predicted in one pass
    over the descriptors, where standard deviations need Jacobians. Samples vary in what the representers span, and of one structure at a
    symmetric place that is nothing: models of fewer than `FEWEST` structures are asked for their standard deviations.

    Raises
    ------
    InputError : ``committee`` is no integer of at least 2.
    """

    def __init__(self, rate: float, committee: int | None = None):
        integer = isinstance(committee, (int, np.integer)) and not isinstance(committee, bool)
        if committee is not None and not (integer and committee >= 2):
            raise InputError(f"`committee` counts samples of the posterior and must be an integer of at least 2, or None; {committee!r}.")
        self.rate, self.committee = rate, committee
        self._samples: PotentialSamples | None = None

    def forget(self) -> None:
        """Draw samples anew: the model has changed."""
        self._samples = None

    def __call__(self, model: Potential, atoms: Atoms) -> float:
        """Of one structure; infinite where it is not known."""
        free = ~held(atoms)
        if self.committee is not None and not _few(model):
            return largest_deviation(self._spread(model, atoms)[free])
        p = model.predict(atoms, uncertainty={"forces"})
        if isinstance(p, CalibratedPrediction):
            radii = p.balls(1 - self.rate)[0][free]
            if np.isfinite(radii).all():
                return float(radii.max(initial=0.0))
        return np.inf if p.forces_std is None else largest_deviation(p.forces_std[0][free])

    def _spread(self, model: Potential, atoms: Atoms) -> np.ndarray:
        """(n_atoms, 3) standard deviations of the forces of the samples."""
        if self._samples is None:
            self._samples = model.sample(self.committee)
        return self._samples.predict(atoms).forces[0].std(axis=0, ddof=1)


def _few(model: Potential) -> bool:
    structures = getattr(model.process_, "structures", None)
    return structures is not None and len(structures.frames) < FEWEST
