"""ASE calculator of a fitted potential."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr.errors import ExtrapolationError, ExtrapolationWarning, InputError, require_positive
from soapkrr.prediction import UNCERTAINTIES, Prediction, wanted_uncertainties
from soapkrr.threaded import ThreadedCalculator
from soapkrr.verlet import VerletList

if TYPE_CHECKING:
    from soapkrr.estimators.base import Potential


#: Names of standard deviations among the results.
STANDARD_DEVIATIONS = tuple(f"{name}_std" for name in UNCERTAINTIES)

#: What a calculator does where forces are more uncertain than its threshold.
ACTIONS = ("warn", "stop", "record")

#: Steps after which standard deviations are computed again.
EVERY = 10


class Results(dict):
    """Results of a calculation; standard deviations that were asked for and not computed yet are when they are first read."""

    def __init__(self, known: dict, model: Potential, atoms: Atoms, left: frozenset[str]):
        super().__init__(known)
        self._model, self._atoms, self._left = model, atoms, left

    def __missing__(self, name: str):
        if not any(name == f"{kind}_std" for kind in self._left):
            raise KeyError(name)
        self.update(_deviations(self._model.predict(self._atoms, uncertainty=self._left)))
        self._left = frozenset()
        return self[name]

    def get(self, name, default=None):
        """The value, or ``default`` where there is none."""
        try:
            return self[name]
        except KeyError:
            return default

    def __reduce__(self):
        return Results, (dict(self), self._model, self._atoms, self._left)


def _deviations(p: Prediction) -> dict:
    """Standard deviations of the first structure, where it has them."""
    found = {name: getattr(p, name) for name in STANDARD_DEVIATIONS}
    values = {name: value[0] for name, value in found.items() if value is not None and np.isfinite(value[0]).all()}
    return {name: value if np.ndim(value) else float(value) for name, value in values.items()}


def largest_deviation(forces_std: np.ndarray) -> float:
    """The largest of the lengths of the standard deviations of forces (n_atoms, 3); infinite where one is not known."""
    lengths = np.linalg.norm(forces_std, axis=1)
    return float(np.where(np.isfinite(lengths), lengths, np.inf).max(initial=0.0))


def labelled(atoms: Atoms, results: dict) -> Atoms:
    """A copy of a structure with its energy and forces."""
    copied = atoms.copy()
    copied.calc = SinglePointCalculator(copied, energy=results["energy"], forces=results["forces"])
    return copied


class PotentialCalculator(ThreadedCalculator):
    """Energy, forces, stress and per-atom energies for `ase.Atoms`, with standard deviations in ``results``.

    ``results`` holds energy, free_energy (the same), energies, forces, stress (three-dimensional cells only) and, as asked for by
    ``uncertainty``, energy_std, energies_std, forces_std, stress_std; units eV, Å. ``results["outside"]`` is True where atoms are closer
    than in the training data, as in `Prediction`. Threads can share a calculator: each has ``results`` of its own.

    Parameters
    ----------
    model : a fitted potential.
    uncertainty : as in `Potential.predict`.
    every : standard deviations cost more than energies and forces: they are computed with a new structure (of other elements, or periodic
        in other directions) and with every so many steps of one; in between when they are read, ``calc.results["energy_std"]``.
    threshold : eV/Å; where the standard deviation of the force on an atom, as a length, exceeds it whenever it is computed, ``action`` is
        taken. None: never.
    action : ``"warn"`` (an `ExtrapolationWarning`), ``"stop"`` (an `ExtrapolationError`), ``"record"`` (into ``exceeded``) or a function of
        the structure, with results, and the standard deviation.

    Attributes
    ----------
    exceeded : list of (structure, standard deviation) of ``action="record"``.

    Raises
    ------
    InputError : ``every`` is no positive integer, ``threshold`` is not positive, or ``uncertainty`` or ``action`` are something else.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", *STANDARD_DEVIATIONS]

    def __init__(
        self,
        model: Potential,
        uncertainty: bool | Iterable[str] = ("energy",),
        every: int = EVERY,
        *,
        threshold: float | None = None,
        action: str | Callable = "warn",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InputError(f"`every` must be a positive integer, received {every!r}.")
        self.model = model
        if not (callable(action) or action in ACTIONS):
            raise InputError(f"`action` must be one of {ACTIONS} or a function of structure and deviation, received {action!r}.")
        self.uncertainty, self.every = wanted_uncertainties(uncertainty), int(every)
        self.threshold, self.action, self.exceeded = threshold, action, []
        if threshold is not None:
            require_positive(threshold=threshold)
            self.uncertainty |= {"forces"}
        self._without, self._neighbours = 0, VerletList()

    def __repr__(self) -> str:
        wanted = ", ".join(sorted(self.uncertainty)) or "none"
        return f"{type(self).__name__}(model={type(self.model).__name__}, uncertainty={wanted}, every={self.every})"

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Called by ASE; everything but the uncertainties that are not asked for, or not due, is computed at once."""
        super().calculate(atoms, properties, system_changes)
        wanted = self._wanted(properties, system_changes)
        with self._neighbours.in_use():
            p = self.model.predict(self.atoms, uncertainty=wanted)
        energy = float(p.energy[0])
        results = {"energy": energy, "free_energy": energy, "energies": p.energies[0], "forces": p.forces[0]}
        if np.isfinite(p.stress[0]).all():
            results["stress"] = p.stress[0]
        if p.outside is not None:
            results["outside"] = bool(p.outside[0])
        self.results = Results(results | _deviations(p), self.model, self.atoms, self.uncertainty - wanted)
        if self.threshold is not None and p.forces_std is not None:
            self._compare(largest_deviation(p.forces_std[0]))

    def _compare(self, deviation: float) -> None:
        """Act where a deviation, eV/Å, is above the threshold."""
        if deviation <= self.threshold:
            return
        if self.action == "record":
            self.exceeded.append((self.atoms.copy(), deviation))
        elif callable(self.action):
            self.action(labelled(self.atoms, self.results), deviation)
        else:
            text = (
                f"the force on an atom of {self.atoms.symbols} is uncertain to {deviation:.3g} eV/Å, above `threshold` {self.threshold:.3g}"
            )
            if self.action == "stop":
                raise ExtrapolationError(f"{text}: the model does not know this structure; label it and fit again, or raise `threshold`.")
            warnings.warn(f"{text}.", ExtrapolationWarning, stacklevel=2)

    def _wanted(self, properties, system_changes) -> frozenset[str]:
        """Standard deviations to compute now."""
        named = [name for name in UNCERTAINTIES if f"{name}_std" in properties]
        self._without += 1
        if self._without < self.every and not {"numbers", "pbc"} & set(system_changes):
            return wanted_uncertainties(named)
        self._without = 0
        return self.uncertainty | wanted_uncertainties(named)
