"""Dynamics that ask a reference calculation where the model does not know enough, learn from it, and go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize.optimize import Dynamics

from soapkrr.active.asking import HeldReference, ask, check_calculator, held
from soapkrr.active.doubts import Doubt
from soapkrr.active.journal import Call, Look, State, place_of, random_of, set_random
from soapkrr.active.records import Records
from soapkrr.active.surrogate import Surrogate, as_prior, grows
from soapkrr.display import counted
from soapkrr.errors import InputError, require_positive
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess

logger = logging.getLogger(__name__)

#: Calls from whose errors the scale of standard deviations is learnt, and how many there must be.
WINDOW, FEWEST = 20, 3

#: Failed calculations in a row after which a run ends.
FAILURES = 3


class OnTheFly:
    """Any ASE dynamics on a model that asks a reference where a force may be wrong by more than a threshold.

    A structure is calculated where q·s exceeds ``threshold``, with s the largest standard deviation of a force on an atom, as a length, and
    q what the errors at the last calls were in units of theirs: their 1 − ``rate`` quantile of the last `WINDOW` (1 before there are
    `FEWEST`). Of a calibrated model, s is the largest radius of the conformal balls of 1 − ``rate``, where these are finite. The model
    learns from it, and the dynamics are made anew by ``dynamics``, so that optimisers and thermostats forget the forces that the model no
    longer gives; random numbers go on.

    Parameters
    ----------
    model : None to start from nothing; a `GaussianProcess`, which grows in a copy; or another fitted potential, with ``refit``.
    reference : any ASE calculator.
    dynamics : function of atoms that gives an ASE dynamics or optimiser, such as ``lambda atoms: VelocityVerlet(atoms, 2 * units.fs)``.
    threshold : eV/Å; None: the root mean square force error of the model's ``left_out_errors_``.
    rate : of structures where a force may be wrong by more than the threshold without a call.
    refit : function of model and labelled structures, all of this run, that gives the next fitted model.
    folder : where calculations (``calls.xyz``, extended XYZ) and the state after each (``state.json``) are written; a run that was killed
        goes on from there and makes the same calculations. None: nowhere.
    every : steps between two looks at standard deviations.
    prior : a calculator, a prior mean or a fitted potential, when there is no model: what is learnt is the difference to it.
    committee : samples of the posterior (`model.sample`) whose spread takes the place of s; None: none. See `Doubt`.

    Attributes
    ----------
    model : the model as it is.  calls : list of `Call`.  looks : list of `Look`, one every ``every`` steps.
    references : the calculations.  step : steps of the dynamics so far.

    Raises
    ------
    InputError : a parameter is out of range, or the folder holds another run.
    """

    def __init__(
        self,
        model: Potential | None,
        reference,
        dynamics: Callable[[Atoms], Dynamics],
        *,
        threshold: float | None = None,
        rate: float = 0.05,
        refit: Callable[[Potential, list[Atoms]], Potential] | None = None,
        folder: str | Path | None = None,
        every: int = 1,
        committee: int | None = None,
        prior=None,
    ):
        if not callable(dynamics):
            raise InputError(f"`dynamics` must be a function of atoms that gives an ASE dynamics, received {type(dynamics).__name__}.")
        if not 0 < rate < 1:
            raise InputError(f"`rate` must be between 0 and 1, received {rate!r}.")
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise InputError(f"`every` must be a positive integer, received {every!r}.")
        if model is not None and prior is not None:
            raise InputError("`prior` is part of a model that is given: give one of them.")
        if model is not None and not grows(model) and refit is None:
            raise InputError(
                f"`refit`: a {type(model).__name__} does not grow; give a function of model and structures that fits it again."
            )
        self.reference, self.dynamics, self.rate, self.every = check_calculator(reference), dynamics, rate, int(every)
        self.threshold, self.refit = _threshold(threshold, model), refit
        self._given, self._surrogate = model, None
        self._doubt, self._prior = Doubt(rate, committee), as_prior(prior)
        self.calls: list[Call] = []
        self.looks: list[Look] = []
        self._observers: list[Callable[[int, Atoms], None]] = []
        self.step, self._random = 0, None
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._records = Records(None if self.folder is None else self.folder / "calls.xyz")
        self._learnt = 0

    def __repr__(self) -> str:
        model = "no model yet" if self.model is None else type(self.model).__name__
        return f"OnTheFly(reference={type(self.reference).__name__}), {model}, {counted(len(self.calls), 'call')}"

    @property
    def model(self) -> Potential | None:
        """The model as it is."""
        return self._given if self._surrogate is None else self._surrogate.model

    @property
    def references(self) -> list[HeldReference]:
        """The calculations that the model has learnt from."""
        return self._records.references[: self._learnt]

    @property
    def scale(self) -> float:
        """What errors of forces are in units of their standard deviations, as far as calls have shown."""
        ratios = [call.error / call.deviation for call in self.calls if np.isfinite([call.error, call.deviation]).all()][-WINDOW:]
        return 1.0 if len(ratios) < FEWEST else float(np.quantile(ratios, 1 - self.rate, method="higher"))

    def run(self, atoms: Atoms, steps: int) -> OnTheFly:
        """Go on until ``steps`` of the dynamics were made altogether; ``atoms`` moves, and is where a run on a disk left it; returns self.

        Raises
        ------
        InputError : the reference fails `FAILURES` times in a row, or where there is no model yet; what was calculated is kept.
        """
        self._restore(atoms)
        if self.model is None:
            self._look(atoms, np.inf)
            self._call(atoms, np.inf)
        while self.step < steps:
            doubt = self._move(atoms, steps)
            if doubt is None:
                break
            self._call(atoms, doubt)
        self._save(atoms)
        return self

    def _move(self, atoms: Atoms, steps: int) -> float | None:
        """Go to the next structure that must be calculated, and return the largest standard deviation there; None: the end was reached."""
        atoms.calc = self._fitted().calculator(uncertainty=False)
        dynamics = self.dynamics(atoms)
        set_random(dynamics, self._random)
        first = self.step
        for made, _ in enumerate(dynamics.irun(steps=steps - first)):
            self.step = first + made
            asked = bool(self.calls) and self.calls[-1].step == self.step
            if not asked and self.step % self.every == 0:
                deviation = self._doubt(self._fitted(), atoms)
                self._look(atoms, self.scale * deviation)
                if self.scale * deviation > self.threshold:
                    self._random = random_of(dynamics)
                    return deviation
        self._random = random_of(dynamics)
        return None

    def _look(self, atoms: Atoms, doubt: float) -> None:
        """Keep what was seen, and show it."""
        self.looks.append(Look(self.step, float(atoms.get_temperature()), doubt))
        for function in self._observers:
            function(self.step, atoms)

    def attach(self, function: Callable[[int, Atoms], None]) -> OnTheFly:
        """Call a function of step and atoms at every look; after a restart those behind the last call come again. Returns self."""
        self._observers.append(function)
        return self

    def _fitted(self) -> Potential:
        """The model, once there is one."""
        if self.model is None:
            raise InputError("`model`: nothing was calculated yet; call `run` first.")
        return self.model

    def _call(self, atoms: Atoms, deviation: float) -> None:
        """Calculate a structure, learn from it, and write down where the run is."""
        try:
            known = self._records.find(atoms)
            reference = ask(self.reference, atoms, f"step {self.step}") if known is None else known
        except InputError as error:
            self.calls.append(Call(self.step, deviation, failure=str(error)))
            self._save(atoms)
            if self.model is None or (len(self.calls) >= FAILURES and all(call.failure for call in self.calls[-FAILURES:])):
                raise
            logger.warning("step %d: skipped, %s", self.step, error)
            return
        error = np.nan
        if self.model is not None:
            wrong = np.linalg.norm(self.model.predict(atoms).forces[0] - reference.forces, axis=1)
            error = float(wrong[~held(atoms)].max(initial=0.0))
        self.calls.append(Call(self.step, deviation, error))
        if known is None:
            self._records.add(reference)
        self._learn(reference)
        self._save(atoms)
        logger.info("step %d: call %d, force uncertain to %.3f, wrong by %.3f eV/Å", self.step, self._learnt, deviation, error)

    def _learn(self, reference: HeldReference) -> None:
        """Add a calculation to the model."""
        self._learnt += 1
        self._doubt.forget()
        if self.refit is not None and self._given is not None:
            self._given = self.refit(self._given, [known.labelled() for known in self.references])
            return
        if self._surrogate is None:
            own = self._given if isinstance(self._given, GaussianProcess) else None
            self._surrogate = Surrogate(list(reference.atoms.symbols), self._prior, own)
        self._surrogate.learn(reference)

    def _save(self, atoms: Atoms) -> None:
        """Write the state, whole or not at all."""
        if self.folder is not None:
            state = State(self.step, self._learnt, self.calls, self.looks, self._random, self.threshold, place_of(atoms))
            state.write(self.folder / "state.json")

    def _restore(self, atoms: Atoms) -> None:
        """Go to where the run on the disk was left, unless this object has run."""
        if self.folder is None or self._learnt or not (self.folder / "state.json").exists():
            return
        path = self.folder / "state.json"
        state = State.read(path, atoms)
        if state.learnt > len(self._records):
            raise InputError(
                f"{self._records.path} holds {len(self._records)} calculations, {path} knows of {state.learnt}; restore the file."
            )
        for reference in self._records.references[: state.learnt]:
            self._learn(reference)
        state.put(atoms)
        self.step, self.calls, self.looks, self._random = state.step, state.calls, state.looks, state.random


def _threshold(threshold: float | None, model: Potential | None) -> float:
    """The threshold, from the model where it is not given, eV/Å."""
    if threshold is None:
        threshold = getattr(model, "left_out_errors_", {}).get("forces")
        if threshold is None:
            raise InputError("`threshold` must be given, in eV/Å: the model has no errors of forces left out of its own fit.")
    require_positive(threshold=threshold)
    return float(threshold)
