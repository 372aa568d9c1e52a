"""Saddle points from one structure: the lowest curvature is followed uphill on a surrogate that learns from every calculation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.mep import DimerControl, MinModeAtoms, MinModeTranslate

from soapkrr.active.asking import HeldReference, force_of, held
from soapkrr.active.band import Bent
from soapkrr.active.records import same
from soapkrr.active.search import Search
from soapkrr.display import Fielded
from soapkrr.errors import InputError, require_positive
from soapkrr.estimators.gaussian_process import GaussianProcess

logger = logging.getLogger(__name__)

#: Way of an atom between two calculations, Å; steps on the surrogate; part of ``fmax`` to which it is followed.
TRUST, STEPS, INNER = 0.3, 60, 0.3


@dataclass(frozen=True, eq=False, repr=False)
class Saddle(Fielded):
    """Where a search ended.

    Attributes
    ----------
    atoms : the structure.  energy : of the reference, eV.  barrier : less that of the structure where the search began, eV.
    force : the largest reference force on an atom that is not fixed, eV/Å.
    mode : (n_atoms, 3), of length 1, the direction of the lowest curvature of the surrogate.  curvature : along it, eV/Å².
    converged : whether the force is below fmax and the curvature negative.  calls : reference calculations.  model : the surrogate.
    """

    atoms: Atoms = field(repr=False)
    energy: float
    barrier: float
    force: float
    mode: np.ndarray = field(repr=False)
    curvature: float
    converged: bool
    calls: int
    model: GaussianProcess = field(repr=False)


class SurrogateDimer(Search):
    """Minimum-mode following on a Gaussian process (Henkelman and Jónsson 1999, doi 10.1063/1.480097; `ase.mep.MinModeAtoms`).

    From a structure at rest, displaced along a guess, uphill along the lowest curvature of the surrogate and downhill along all others,
    until it is at rest or an atom has moved by `TRUST`; there the reference is calculated, and the surrogate is bent to it to first order.

    Parameters
    ----------
    atoms : a structure at rest; constraints are kept.  reference : any ASE calculator.
    displacement : (n_atoms, 3) Å, the first step out of the basin, which says to which saddle.
    prior, model, records : as in `SurrogateNEB`.

    Raises
    ------
    InputError : the displacement moves no atom that may move, or has another shape.
    """

    def __init__(
        self,
        atoms: Atoms,
        reference,
        displacement: np.ndarray,
        *,
        prior=None,
        model: GaussianProcess | None = None,
        records: str | Path | None = None,
    ):
        way = np.array(displacement, dtype=float)
        if way.shape != (len(atoms), 3) or not np.isfinite(way).all():
            raise InputError(f"`displacement` must be finite, of shape {(len(atoms), 3)}, in Å, received shape {way.shape}.")
        way[held(atoms)] = 0.0
        if np.linalg.norm(way) < 1e-3:
            raise InputError("`displacement` must move an atom that is not fixed by more than 0.001 Å: its direction says to which saddle.")
        super().__init__(list(atoms.symbols), reference, prior, model, records)
        self.start, self.atoms = atoms.copy(), atoms.copy()
        self.atoms.set_positions(atoms.positions + way)
        self._mode = way / np.linalg.norm(way)
        known = [reference.atoms for reference in self.records.references]
        if len(known) > 2 and same(known[0], self.start) and same(known[1], self.atoms):
            self.atoms.set_positions(known[-1].positions)  # a search of before goes on where it was

    @property
    def model(self) -> GaussianProcess | None:
        """The surrogate, which has learnt from all calculations."""
        return self.surrogate.model

    def run(self, fmax: float = 0.05, steps: int = 100) -> Saddle:
        """Go on until the reference force is below ``fmax``, eV/Å, where the curvature is negative, or ``steps`` calculations were made.

        Raises
        ------
        InputError : a parameter is out of range, or the reference fails; what was calculated is kept, and a next run goes on.
        """
        require_positive(fmax=fmax)
        if steps < 2:
            raise InputError(f"`steps` must be at least 2, the start and one more, received {steps!r}.")
        lowest = self._ask(self.start, "the structure at rest").energy
        while True:
            here = self._ask(self.atoms, f"the structure after {self.calls} calculations")
            force, (mode, curvature, found) = force_of(here), self._follow(here, fmax)
            done = bool(force < fmax and curvature < 0)
            logger.info("call %d: %.3f eV, force %.3f eV/Å, curvature %.3f eV/Å²", self.calls, here.energy - lowest, force, curvature)
            if done or self.calls >= steps or np.array_equal(found, here.atoms.positions):
                barrier = here.energy - lowest
                return Saddle(self.atoms.copy(), here.energy, barrier, force, mode, curvature, done, self.calls, self._model())
            self.atoms.set_positions(found)

    def _follow(self, here: HeldReference, fmax: float) -> tuple[np.ndarray, float, np.ndarray]:
        """The lowest mode and its curvature there, and positions where the surrogate is at rest, or not trusted any more."""
        moving = self.atoms.copy()
        moving.calc = _OnSurrogate(Bent(self._model(), here))
        quiet = {"logfile": None, "eigenmode_logfile": None, "mask": (~held(self.start)).tolist()}
        control = DimerControl(initial_eigenmode_method="displacement", displacement_method="vector", **quiet)
        dimer = MinModeAtoms(moving, control, eigenmodes=[self._mode], random_seed=0)
        mode, curvature = self._mode, np.nan
        for step, _ in enumerate(MinModeTranslate(dimer, logfile=None).irun(fmax=INNER * fmax, steps=STEPS)):
            self._mode = np.array(dimer.get_eigenmode()).reshape(-1, 3)
            if step == 0:
                mode, curvature = self._mode, float(dimer.get_curvature())
            if np.linalg.norm(moving.positions - here.atoms.positions, axis=1).max() > TRUST:
                break
        return mode, curvature, moving.positions


class _OnSurrogate(Calculator):
    """A bent surrogate as a calculator."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, bent: Bent):
        super().__init__()
        self.bent = bent

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energies, forces = self.bent.predict([self.atoms])
        self.results = {"energy": float(energies[0]), "forces": forces[0]}
