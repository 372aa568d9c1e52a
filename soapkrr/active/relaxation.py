"""Relaxations on a surrogate that learns from every reference calculation, so that few are needed."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from ase.optimize.optimize import DEFAULT_MAX_STEPS, Optimizer

from soapkrr.active.surrogate import Reference, Surrogate, Tilted, as_prior, grows
from soapkrr.errors import InputError

#: How far an atom may move between two reference calculations, Å: at first, at most, and at least.
TRUST, TRUST_MOST, TRUST_LEAST = 0.3, 0.6, 0.02

#: The same after predictions that were right to this part of the gain.
RIGHT, TRUST_RIGHT = 0.1, 2.0

#: Part of ``fmax`` to which the surrogate is relaxed, its longest step, Å, and its steps.
INNER, STEP, STEPS = 0.2, 0.1, 200

#: Structures from which a surrogate may go on freely, and the standard deviation of the energy up to which, eV.
KNOWN, DOUBT = 10, 0.15

#: Parts of a predicted gain: what comes true above the first is a good prediction, below the second a bad one.
GOOD, BAD = 0.5, 0.1

#: A gain in units of |F|·|way| above which the surrogate sees a hole that nothing known points to, and eV that are never too much.
HOLE, NO_HOLE = 1.0, 0.02

#: Energies nearer than this to the lowest are as low, eV.
TIE = 1e-4


class SurrogateRelaxation(Optimizer):
    """An ASE optimiser that relaxes on a Gaussian process of SOAP and asks ``atoms.calc`` once per step.

    Works as `ase.optimize.BFGS` does, with constraints, cell filters, trajectories and observers.
    """

    def __init__(
        self,
        atoms,
        restart=None,
        logfile="-",
        trajectory=None,
        *,
        prior=None,
        model=None,
        nearest: bool = False,
        **kwargs,
    ):
        real = underlying(atoms)
        own = model if grows(model) else None
        prior = as_prior(prior if own is not None or model is None else model)
        self.surrogate = Surrogate(list(real.symbols), prior, own)
        self.nearest = nearest
        self.references: list[Reference] = []
        self.points: list[np.ndarray] = []
        self.values: list[float] = []
        self.gradients: list[np.ndarray] = []
        self.trust, self._expected = TRUST, None
        super().__init__(atoms, restart, logfile, trajectory, **kwargs)

    @property
    def model(self):
        """The surrogate, which has learnt from all calculations."""
        return self.surrogate.model

    @property
    def calls(self) -> int:
        """Reference calculations."""
        return len(self.references)

    def irun(self, fmax=0.05, steps=DEFAULT_MAX_STEPS):
        """See `Optimizer.irun`."""
        self.fmax = fmax
        if not self.references and len(self.surrogate) >= KNOWN and not self.nearest:
            self.optimizable.set_x(self._relaxed(None)[0])
        for converged in super().irun(fmax, steps):
            self._learn()
            yield converged

    def run(self, fmax=0.05, steps=DEFAULT_MAX_STEPS):
        """See `Optimizer.run`."""
        converged = False
        for converged in self.irun(fmax, steps):
            pass
        return converged

    def step(self, forces=None):
        """Relax on the surrogate from the best structure so far."""
        self._learn()
        best = self._best()
        x, expected = self._relaxed(best)
        self._expected = (self.values[best] - expected, best)
        self.optimizable.set_x(x)

    def _learn(self) -> None:
        """From the reference calculation of the present structure, unless it is known."""
        x = self.optimizable.get_x()
        if self.points and np.array_equal(x, self.points[-1]):
            return
        gradient = self.optimizable.get_gradient()
        real = underlying(self.atoms)
        reference = Reference(real.copy(), float(real.get_potential_energy()), real.get_forces(apply_constraint=False), self._stress())
        self.surrogate.learn(reference)
        self.references.append(reference)
        self.points.append(x)
        self.values.append(float(self.optimizable.get_value()))
        self.gradients.append(gradient)
        self._judge()

    def _stress(self) -> np.ndarray | None:
        """Where the cell is relaxed."""
        real = underlying(self.atoms)
        return None if self.atoms is real or not real.pbc.all() else real.get_stress(apply_constraint=False)

    def _judge(self) -> None:
        """Trust the surrogate more or less far by what came of its last prediction."""
        if self._expected is None:
            return
        (gain, before), self._expected = self._expected, None
        real = self.values[before] - self.values[-1]
        if abs(real - gain) <= RIGHT * gain:
            self.trust = min(2.0 * self.trust, TRUST_RIGHT)
        elif real >= GOOD * gain or self._norm(-1) < 0.5 * self._norm(before):
            self.trust = max(min(1.5 * self.trust, TRUST_MOST), min(self.trust, 0.75 * TRUST_RIGHT))
        elif real < BAD * gain:
            self.trust = max(0.5 * self.trust, TRUST_LEAST)

    def _norm(self, k: int) -> float:
        return float(self.optimizable.gradient_norm(self.gradients[k]))

    def _best(self) -> int:
        """The lowest structure; of those as low, that with the smallest forces."""
        values = np.array(self.values)
        low = np.flatnonzero(values <= values.min() + TIE)
        return int(min(low, key=self._norm))

    def _relaxed(self, best: int | None) -> tuple[np.ndarray, float]:
        """Coordinates where the surrogate is at rest, or where it is not trusted any more; and its value there."""
        start = self.optimizable.get_x() if best is None else self.points[best]
        reference = None if best is None else self.references[best]
        free = best is None or (len(self.surrogate) >= KNOWN and len(self.surrogate) > self.calls)
        with self._on_the_surrogate(Tilted(self.model, reference)):
            self.optimizable.set_x(start)
            for _ in BFGS(self.atoms, logfile=None, maxstep=STEP).irun(INNER * self.fmax, STEPS):
                x = self.optimizable.get_x()
                if not free and (moved(x, start) > self.trust or self._hole(best, x)):
                    break
                if free and self._std() > DOUBT:
                    break
            x, value = self.optimizable.get_x(), float(self.optimizable.get_value())
            self.optimizable.set_x(start)
        return x, value

    def _hole(self, best: int, x: np.ndarray) -> bool:
        """Whether the surrogate falls deeper than the forces of the best structure point to."""
        most = np.linalg.norm(self.gradients[best]) * np.linalg.norm(x - self.points[best])
        return self.values[best] - float(self.optimizable.get_value()) > HOLE * most + NO_HOLE

    def _std(self) -> float:
        return float(self.model.predict(underlying(self.atoms), uncertainty={"energy"}).energy_std[0])

    @contextmanager
    def _on_the_surrogate(self, calculator):
        """With the atoms on another calculator for a while."""
        real = underlying(self.atoms)
        reference, real.calc = real.calc, calculator
        try:
            yield
        finally:
            real.calc = reference


def underlying(atoms) -> Atoms:
    """The structure behind filters."""
    while not isinstance(atoms, Atoms):
        if not hasattr(atoms, "atoms"):
            raise InputError(f"`atoms` must be `ase.Atoms` or a filter of them, received {type(atoms).__name__}.")
        atoms = atoms.atoms
    return atoms


def moved(x: np.ndarray, start: np.ndarray) -> float:
    """The longest way of an atom (or a vector of the cell, as the filter counts it), Å."""
    return float(np.linalg.norm((x - start).reshape(-1, 3), axis=1).max())
