"""What estimators of sums of terms share: they are built from one descriptor and kernel or from a list of terms, and add with ``+``."""

from __future__ import annotations

from abc import abstractmethod

from soapkrr.baselines import baseline_energies, split_baseline, total
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.potential import Potential
from soapkrr.prediction import Prediction
from soapkrr.regression.observation_model import ObservationModel
from soapkrr.regression.terms import Term, as_terms
from soapkrr.structures import Batch


class AdditivePotential(Potential):
    """A potential E = Σ_i e(z_i) + Σ terms; subclasses hold ``descriptor`` (or a list of terms) and ``kernel``."""

    @abstractmethod
    def _one_term(self) -> Term:
        """The term of ``descriptor`` and ``kernel``."""

    def _terms(self) -> list[Term]:
        return [self._one_term()] if isinstance(self.descriptor, Descriptor) else as_terms(self.descriptor)

    def __add__(self, other):
        """The unfitted estimator with the terms of both; every other parameter is that of the left one.

        Raises
        ------
        InputError : the estimators are of different types.
        """
        if not isinstance(other, Potential):
            return NotImplemented
        if type(other) is not type(self):
            raise InputError(f"only estimators of one type add: received {type(self).__name__} + {type(other).__name__}.")
        parameters = self.get_params(deep=False)
        return type(self)(**{**parameters, "descriptor": self._terms() + other._terms(), "kernel": None})

    def _predict_observed(self, model: ObservationModel, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        """Prediction of a model of observations on top of reference energies and prior means."""
        references = baseline_energies(self.reference_energies_, batch.numbers, batch.structure + first)
        mean = total(split_baseline(self.baseline)[1], batch, first)
        return model.on(self._xp, self._workers).predict(batch, first, mean._replace(energies=mean.energies + references), wanted)
