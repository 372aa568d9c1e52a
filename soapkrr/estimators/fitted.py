"""What every estimator shares: parameters with nested names, terms, and the state in which it was fitted."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from soapkrr import backends, modelfile
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.estimators.card import ModelCard, card_of, checked_card
from soapkrr.estimators.summary import Summary, summary_of
from soapkrr.execution.memory import parse_memory
from soapkrr.planning import Budget
from soapkrr.regression.terms import Term, as_terms
from soapkrr.specification import Nested

#: Parameters that say how to compute, not what: they stay with the machine, and count as they are, before and after a fit.
RUNTIME = ("threads", "device", "memory_limit")


class Estimator(Nested, BaseEstimator, ABC):
    """An estimator of scikit-learn's conventions on lists of `ase.Atoms`, built from one descriptor and kernel or from a list of terms.

    A fitted one predicts, saves and describes itself with the parameters it was fitted with, ``fitted_parameters_``; parameters set after
    that count in the next fit, except those of `RUNTIME`.

    Attributes
    ----------
    origin_ : where the fit comes from, ``software``, ``date`` (UTC) and ``data_sha256`` (of structures and labels, in any order); saved and
        loaded with the model, and empty where the file has been written by a version that did not know it.
    """

    descriptor: Any
    kernel: Any
    threads: int | None
    device: str
    memory_limit: int | str | None
    origin_: dict
    process_: Any
    reference_energies_: Mapping[str, float]
    n_observations_: Mapping[str, int]
    noise_: Any
    log_likelihood_: float

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.input_tags.two_d_array, tags.no_validation = False, True
        return tags

    @property
    def _xp(self):
        """The library of arrays that it computes with."""
        return backends.library(self.device)

    @property
    def _budget(self) -> Budget:
        return Budget.of(self.device, self.threads, self.memory_limit)

    @property
    def _limited(self) -> bool:
        return parse_memory(self.memory_limit) is not None

    @abstractmethod
    def _one_term(self) -> Term:
        """The term of ``descriptor`` and ``kernel``."""

    def _terms(self) -> list[Term]:
        if isinstance(self.descriptor, type):
            raise InputError(
                f"`descriptor` is the class {self.descriptor.__name__}; give an instance, {self.descriptor.__name__}(species=..., ...)."
            )
        return [self._one_term()] if isinstance(self.descriptor, Descriptor) else as_terms(self.descriptor)

    def __add__(self, other):
        """The unfitted estimator with the terms of both; every other parameter is that of the left one.

        Raises
        ------
        InputError : the estimators are of different types.
        """
        if not isinstance(other, Estimator):
            return NotImplemented
        if type(other) is not type(self):
            raise InputError(f"only estimators of one type add: received {type(self).__name__} + {type(other).__name__}.")
        parameters = self.get_params(deep=False)
        return type(self)(**{**parameters, "descriptor": self._terms() + other._terms(), "kernel": None})

    def _remember_parameters(self) -> None:
        """Keep the parameters of this fit."""
        self.fitted_parameters_ = {name: value for name, value in self.get_params(deep=False).items() if name not in RUNTIME}

    def summary(self) -> Summary:
        """What was fitted: terms, observations, noise, reference energies, evidence; shows as a table, in notebooks too.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        """
        check_is_fitted(self)
        fitted = type(self)(**self.fitted_parameters_)
        return summary_of(self, fitted._terms())

    @property
    def card(self) -> ModelCard:
        """What it is, of which data, for what, and where not to trust it: what the model knows, and what was set, ``model.card = {…}``,
        texts by name; saved with the model.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        """
        check_is_fitted(self)
        return card_of(self, self._stated_card)

    @card.setter
    def card(self, given: Mapping[str, str]) -> None:
        self._card = checked_card(given)

    @property
    def _stated_card(self) -> dict[str, str]:
        """What its maker wrote."""
        return getattr(self, "_card", {})

    def state(self) -> dict:
        """Fitted state for a model file: numbers, strings, arrays, specifications, lists and mappings."""
        return {
            **({"card": self._stated_card} if self._stated_card else {}),
            "reference_energies": self.reference_energies_,
            "n_observations": self.n_observations_,
            "noise": self.noise_,
            "log_likelihood": self.log_likelihood_,
            "process": {"kind": type(self.process_).__name__, **self.process_.state()},
        }

    @abstractmethod
    def restore(self, state: Mapping) -> None:
        """Become the fitted estimator of a `state`; raises `ModelFileError` where the parts do not fit together, and `InputError` where a
        parameter is none that a fit takes.
        """

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one file, whole or not at all; `soapkrr.load` reads it.

        Raises
        ------
        InputError : no file can be written there; the message says why.
        OSError : the disk is full, or fails; the model is still there and can be saved elsewhere, an old file stays.
        """
        check_is_fitted(self)
        modelfile.write(path, estimator=type(self).__name__, origin=self.origin_, parameters=self.fitted_parameters_, state=self.state())
