"""Relaxations on a surrogate that learns from every reference calculation, so that few are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from ase.optimize.optimize import DEFAULT_MAX_STEPS, Optimizer

from soapkrr.active.certificate import Certificate, left_to_gain, lowest_curvature
from soapkrr.active.surrogate import Recorded, Reference, Surrogate, Tilted, grows, preset_near_rest
from soapkrr.errors import InputError

#: How far an atom may move between two reference calculations, Å: at first, at most, and at least.
TRUST, TRUST_MOST, TRUST_LEAST = 0.3, 0.6, 0.02

#: The same after predictions that were right to this part of the gain.
RIGHT, TRUST_RIGHT = 0.1, 2.0

#: The same, and the longest step, where the search stays in its basin.
NEAREST, NEAREST_STEP = 0.15, 0.04

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
    """An ASE optimiser that relaxes on a Gaussian process, learnt on the way, and asks ``atoms.calc`` once per step.

    Works as ``BFGS(atoms).run(fmax)`` does, with constraints, cell filters, ``trajectory``, ``logfile``, ``attach`` and ``restart``; any
    ASE calculator is the reference. The surrogate (`Surrogate`: pair potential + SOAP) is relaxed within a distance from the lowest
    structure so far that grows and shrinks with how right its last prediction was; there the reference is asked, and all its forces are
    learnt. A constant force makes the surrogate's gradient that of the reference at the lowest structure (first-order consistency, so
    that it cannot stall there), its curvature and all else is learnt.

    Parameters
    ----------
    atoms : `ase.Atoms` with a calculator, or a filter of them such as `ase.filters.FrechetCellFilter`.
    restart : file that is written after every reference calculation; where it exists, what is in it is learnt and the search goes on from
        the lowest structure of it.
    logfile, trajectory : as in ASE.
    prior : a cheap calculator, a prior mean or a fitted potential: what is learnt is the difference to it.
    model : ``model`` of an earlier relaxation, which goes on to grow in a copy: with ten structures or more, of all species, it is trusted
        as far as it says that it knows the energy to 0.15 eV, and relaxes before the reference is asked at all. For species that it does
        not know it is made again, from all labels so far. Another fitted potential serves as ``prior``.
    nearest : stay in the basin of the starting structure: short steps only.

    Attributes
    ----------
    calls : reference calculations so far, the first one counted.  model : the surrogate, a `GaussianProcess`.
    references : all calculations, `Reference`.
    certificate : `Certificate` of the relaxation that ended last, None before; its text ends the log.

    Raises
    ------
    InputError : ``atoms`` have no calculator, ``model`` cannot be made for a species, or the reference gives energies or forces that are
        not finite; what was calculated before is in ``restart``, ``trajectory`` and ``references``.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> atoms = molecule("H2O")
    >>> atoms.calc = EMT()
    >>> relaxation = SurrogateRelaxation(atoms, logfile=None)
    >>> relaxation.run(fmax=0.05)
    True
    >>> relaxation.calls < 10
    True
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
        if real.calc is None:
            raise InputError("`atoms` have no calculator: `atoms.calc` is the reference.")
        if model is not None and prior is not None and not grows(model):
            raise InputError("`prior` and a `model` that does not grow are both prior means; give one of them.")
        self.surrogate = Surrogate.of(list(real.symbols), prior, model, preset_near_rest)
        self.nearest, self.certificate = nearest, None
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
        known = len(self.surrogate) >= KNOWN and self.surrogate.knows(underlying(self.atoms).symbols)
        if not self.references and known and not self.nearest:
            self.optimizable.set_x(self._relaxed(None)[0])
        converged, run = False, super().irun(fmax, steps)
        if self.points and np.array_equal(self.optimizable.get_x(), self.points[-1]):  # after a restart: known, and not asked again
            with self._on_the_surrogate(Recorded(self.references[-1])):
                converged = next(run)
            yield converged
        for converged in run:
            self._learn()
            yield converged
        self._certify(converged)

    def _certify(self, converged: bool) -> None:
        """Say how it ended."""
        best, real = self._best(), underlying(self.atoms)
        with self._on_the_surrogate(Tilted(self.model, self.references[best])):
            without = self._steps_of_bfgs()
            self.optimizable.set_x(self.points[-1])
            here = there = real.copy()
            for _ in self._descent(STEP, 0.1 * INNER * self.fmax, STEPS // 4):
                there = real.copy()
            self.optimizable.set_x(self.points[-1])
        curvature = lowest_curvature(self.model, here) if self.atoms is real else (None, None)
        files = [None if name is None else str(name) for name in (self._orig_trajectory, self.restart)]
        gain = left_to_gain(self.model, here, there)
        self.certificate = Certificate(bool(converged), self._norm(-1), self.calls, without, *gain, *curvature, *files)
        self.logfile.write(f"{self.certificate}\n")

    def _steps_of_bfgs(self) -> int | None:
        """Calculations that BFGS takes from the first structure on the surrogate."""
        self.optimizable.set_x(self.points[0])
        took = 0
        for _ in self._descent(BFGS.defaults["maxstep"], self.fmax, STEPS):
            took += 1
        return took if self.optimizable.converged(self.optimizable.get_gradient(), self.fmax) else None

    def _descent(self, step: float, fmax: float, steps: int) -> Iterator[np.ndarray]:
        """Coordinates on the way down, by BFGS; the way ends before a structure of which the surrogate can say nothing."""
        x = self.optimizable.get_x()
        try:
            for _ in BFGS(self.atoms, logfile=None, maxstep=step).irun(fmax, steps):
                x = self.optimizable.get_x()
                yield x
        except InputError:  # atoms that coincide
            self.optimizable.set_x(x)

    def run(self, fmax=0.05, steps=DEFAULT_MAX_STEPS):
        """See `Optimizer.run`."""
        return bool(list(self.irun(fmax, steps))[-1])

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
        if not reference.finite:
            raise InputError(f"reference calculation {self.calls + 1} gives an energy, forces or a stress that are not finite.")
        self._keep(reference, x, float(self.optimizable.get_value()), gradient)
        self._judge()
        self.dump([part.to_dict() | own for part, own in zip(self.references, self._own(), strict=True)])

    def _keep(self, reference: Reference, x: np.ndarray, value: float, gradient: np.ndarray) -> None:
        self.surrogate.learn(reference)
        self.references.append(reference)
        self.points.append(x)
        self.values.append(value)
        self.gradients.append(gradient)

    def _own(self) -> list[dict]:
        """What the search knows of each calculation, for a restart."""
        return [{"x": x, "value": v, "gradient": g} for x, v, g in zip(self.points, self.values, self.gradients, strict=True)]

    def read(self) -> None:
        """Learn what is in the restart file, and go on from its lowest structure."""
        for entry in self.load():
            parts = [np.asarray(entry[name], dtype=float) for name in ("x", "gradient")]
            self._keep(Reference.from_dict(entry), parts[0], float(entry["value"]), parts[1])
        if self.points:
            best = min(range(self.calls), key=lambda k: self.values[k])
            for known in (self.references, self.points, self.values, self.gradients):
                known.append(known.pop(best))  # the present structure is the last one known
            self.optimizable.set_x(self.points[-1])

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
        free = best is None or (len(self.surrogate) >= KNOWN and len(self.surrogate) > self.calls and not self.nearest)
        trust, step = (min(self.trust, NEAREST), NEAREST_STEP) if self.nearest else (self.trust, STEP)
        with self._on_the_surrogate(Tilted(self.model, reference)):
            self.optimizable.set_x(start)
            for x in self._descent(step, INNER * self.fmax, STEPS):
                if not free and (moved(x, start) > trust or self._hole(best, x)):
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
        return float(self.model.predict(underlying(self.atoms), uncertainty={"total"}).energy_std[0])

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
