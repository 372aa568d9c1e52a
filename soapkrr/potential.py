"""The estimators' common face: predict, calculator, save, load."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial

import numpy as np
from ase import Atoms
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from soapkrr import backends
from soapkrr.errors import InputError
from soapkrr.memory import device_limit, parse_memory
from soapkrr.parallel import halving, pool_of, serial_blas
from soapkrr.prediction import Prediction
from soapkrr.specification import Nested
from soapkrr.structures import Batch, as_frames, halves, split_by_atoms

#: Quantities that have a predicted standard deviation.
UNCERTAINTIES = ("energy", "energies", "forces", "stress")

#: Atoms predicted at once: bounds the memory of lists of small structures. Of a task on a worker, which has one thread, fewer.
GROUP, TASK = 4096, 512


class Potential(Nested, BaseEstimator, ABC):
    """An interatomic potential that follows scikit-learn's conventions on lists of `ase.Atoms`."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.input_tags.two_d_array, tags.no_validation = False, True
        return tags

    #: Where it computes: ``"cpu"``, ``"cuda"`` or ``"auto"``; a parameter of the estimators.
    device = "cpu"

    @property
    def _xp(self):
        """The library of arrays that it computes with."""
        return backends.library(self.device)

    @property
    def _workers(self) -> int | None:
        """Threads over blocks: a GPU takes one block after the other."""
        return self.threads if self._xp is np else 1

    @abstractmethod
    def fit(self, frames: list[Atoms], y=None):
        """Fit to labelled structures; returns self."""

    @abstractmethod
    def _predict_batch(self, batch: Batch, first: int, wanted: frozenset[str]) -> Prediction:
        """Predict one batch, whose first structure has index ``first``, with the standard deviations ``wanted``."""

    def _to_predict(self) -> Potential:
        """The model, or a copy without what `_predict_batch` does not need."""
        return self

    @abstractmethod
    def _predict_work(self, frames: list[Atoms], wanted: frozenset[str]) -> tuple:
        """(terms, data, sizes, `Work`) of a prediction: what `plan` shows and ``memory_limit`` divides."""

    @abstractmethod
    def state(self) -> dict:
        """Fitted state for a model file: ``reference_energies`` and more numbers, strings, arrays, specifications, lists and mappings."""

    @abstractmethod
    def restore(self, state: dict) -> None:
        """Become the fitted model of a `state`; raises `ModelFileError` where the parts do not fit together."""

    def predict(self, frames: Atoms | list[Atoms], uncertainty: bool | Iterable[str] = False, *, client=None) -> Prediction:
        """Energies, forces and stress of structures.

        Parameters
        ----------
        frames : one structure or a list.
        uncertainty : True for every standard deviation, or some of ``"energies"`` (per atom; cheap), ``"energy"`` (total and per atom; the
            total costs the square of the number of atoms, which tells beyond some ten thousand), ``"forces"``, ``"stress"``.
        client : a `dask.distributed.Client`, whose workers predict; they get the model once for each call.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure cannot be used; the message names it. Or ``memory_limit`` does not hold the work for one structure.
        """
        check_is_fitted(self)
        frames, wanted = as_frames(frames), wanted_uncertainties(uncertainty)
        pool = pool_of(client, threads=1)
        atoms = self._group_atoms(frames, wanted, TASK if pool.remote else GROUP)
        groups = split_by_atoms(pool.frames(frames), atoms)
        with serial_blas(), device_limit(self._xp, None if pool.remote else self.memory_limit):
            parts = list(pool.map(_predict_group, groups, pool.share(self._to_predict()), wanted))
        return Prediction.concatenate(parts)

    def _group_atoms(self, frames: list[Atoms], wanted: frozenset[str], most: int) -> int:
        """Atoms predicted at once, within ``memory_limit``."""
        return most if parse_memory(self.memory_limit) is None else min(most, self._predict_work(frames, wanted)[3].group)

    def score(self, frames: list[Atoms], y=None) -> float:
        """Negative mean absolute error of the forces (eV/Å), or of the energy per atom (eV) where no structure has forces."""
        from soapkrr.metrics import error_table

        table = error_table(frames, self.predict(frames), observations=getattr(self, "observations", None))
        error = table.get("forces_mae_ev_per_angstrom")
        return -error if error is not None else -1e-3 * table["energy_mae_mev_per_atom"]

    def calculator(self, uncertainty: bool | Iterable[str] = ("energy",)):
        """ASE calculator of this model; ``uncertainty`` as in `predict`, put into ``calc.results``."""
        from soapkrr.calculator import PotentialCalculator

        check_is_fitted(self)
        return PotentialCalculator(self, uncertainty=uncertainty)

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one file, whole or not at all; `soapkrr.load` reads it."""
        from soapkrr import io

        check_is_fitted(self)
        io.save(self, path)


def _predict_group(model: Potential, wanted: frozenset[str], group: tuple[int, list[Atoms]]) -> Prediction:
    """Of (index of the first structure, structures), in halves where a GPU's memory does not hold it."""

    def predict(part):
        first, frames = part
        return model._predict_batch(Batch.from_atoms(frames, first), first, wanted)

    smaller = partial(halves, work="prediction", instead="use fewer sparse points or ask for fewer standard deviations")
    return Prediction.concatenate(list(halving(predict, group, smaller)))


def wanted_uncertainties(uncertainty: bool | str | Iterable[str]) -> frozenset[str]:
    """The set of standard deviations asked for, checked."""
    if isinstance(uncertainty, (bool, np.bool_)):
        return frozenset(UNCERTAINTIES if uncertainty else ())
    wanted = frozenset([uncertainty] if isinstance(uncertainty, str) else uncertainty)
    if not wanted <= set(UNCERTAINTIES):
        raise InputError(f"`uncertainty` takes True, False or some of {UNCERTAINTIES}, received {sorted(wanted - set(UNCERTAINTIES))}.")
    return wanted | {"energies"} if "energy" in wanted else wanted
