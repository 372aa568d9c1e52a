"""What a relaxation can say for itself when it ends: reached, at which cost, what is left to gain, and whether it is a minimum."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from soapkrr.active.asking import held
from soapkrr.display import Fielded
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.uncertainty.observables import Energy, Force

#: Displacement of the finite differences of forces, Å, and coordinates up to which a Hessian is made.
STEP, MOST = 0.01, 150


@dataclass(frozen=True, repr=False)
class Certificate(Fielded):
    """How a relaxation ended.

    Attributes
    ----------
    converged : whether the reference's forces are below the threshold.  fmax : the largest of them, eV/Å.
    calls : reference calculations.  calls_without : those that BFGS would have taken, as it does on the surrogate: an estimate; None where
        it did not end.
    gain, gain_std : energy that the surrogate would still gain and its standard deviation, eV.
    curvature, curvature_std : lowest eigenvalue of the Hessian of the atoms that may move, and its standard deviation, eV/Å², by the
        surrogate; None for more than 50 atoms.
    trajectory, restart : files that hold the structures, and the calculations; None where none was asked for.
    """

    converged: bool
    fmax: float
    calls: int
    calls_without: int | None
    gain: float
    gain_std: float
    curvature: float | None
    curvature_std: float | None
    trajectory: str | None = None
    restart: str | None = None

    @property
    def minimum(self) -> bool | None:
        """Whether the structure is a minimum: two standard deviations from a saddle point; None where that is not known."""
        if self.curvature is None or self.curvature_std is None or abs(self.curvature) <= 2 * self.curvature_std:
            return None
        return self.curvature > 0

    def to_dict(self) -> dict:
        """Everything by name."""
        return {**asdict(self), "minimum": self.minimum}

    def __str__(self) -> str:
        without = "" if self.calls_without is None else f" (BFGS without a surrogate: about {self.calls_without})"
        known = {True: "a minimum", False: "no minimum", None: "a minimum or not, which is not known"}[self.minimum]
        curved = "" if self.curvature is None else f", lowest curvature {self.curvature:.3f} ± {self.curvature_std:.3f} eV/Å²"
        kept = "".join(f", {name} {path}" for name, path in (("trajectory", self.trajectory), ("calculations", self.restart)) if path)
        return (
            f"{'relaxed' if self.converged else 'not relaxed'}: largest force {self.fmax:.4f} eV/Å after {self.calls} reference calls"
            f"{without}; {1e3 * self.gain:.1f} ± {1e3 * self.gain_std:.1f} meV left to gain; {known}{curved}{kept}"
        )


def left_to_gain(model: GaussianProcess, here: Atoms, there: Atoms) -> tuple[float, float]:
    """Energy between two structures and its standard deviation, eV."""
    if np.array_equal(here.positions, there.positions) and np.array_equal(here.cell.array, there.cell.array):
        return 0.0, 0.0
    joint = model.posterior([Energy(here) - Energy(there)])
    return float(joint.mean[0]), float(np.sqrt(max(joint.covariance[0, 0], 0.0)))


def lowest_curvature(model: GaussianProcess, atoms: Atoms) -> tuple[float, float] | tuple[None, None]:
    """Lowest eigenvalue of the Hessian by central differences of forces, and its standard deviation, eV/Å²; of atoms that may move."""
    fixed = held(atoms)
    free = np.flatnonzero(~fixed)
    if not len(free) or 3 * len(free) > MOST:
        return None, None
    moved = [_displaced(atoms, i, axis, sign * STEP) for i in free for axis in range(3) for sign in (1, -1)]
    forces = np.array([f[free].ravel() for f in model.predict(moved).forces]).reshape(3 * len(free), 2, -1)
    hessian = (forces[:, 1] - forces[:, 0]) / (2 * STEP)
    modes = _modes(atoms, free, bool(fixed.any()))
    values, vectors = np.linalg.eigh(modes.T @ (0.5 * (hessian + hessian.T)) @ modes)
    mode = np.zeros_like(atoms.positions)
    mode[free] = (modes @ vectors[:, 0]).reshape(-1, 3)
    ends = [Atoms(atoms.numbers, atoms.positions + sign * STEP * mode, cell=atoms.cell, pbc=atoms.pbc) for sign in (1, -1)]
    along = [sum(mode[i, axis] * Force(end, int(i), axis) for i in free for axis in range(3)) for end in ends]
    variance = model.posterior([(along[1] - along[0]) / (2 * STEP)]).covariance[0, 0]
    return float(values[0]), float(np.sqrt(max(variance, 0.0)))


def _displaced(atoms: Atoms, i: int, axis: int, by: float) -> Atoms:
    moved = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    moved.positions[i, axis] += by
    return moved


def _modes(atoms: Atoms, free: np.ndarray, held: bool) -> np.ndarray:
    """(3 n_free, n_modes) orthonormal displacements, those of the whole left out: it moves and, a molecule, turns at no cost."""
    n = len(free)
    if held:
        return np.eye(3 * n)
    x = atoms.positions[free] - atoms.positions[free].mean(axis=0)
    rigid = [np.tile(e, n) for e in np.eye(3)]
    if not atoms.pbc.any():
        rigid += [np.cross(e, x).ravel() for e in np.eye(3)]
    u, s, _ = np.linalg.svd(np.array(rigid).T, full_matrices=True)
    return u[:, int((s > 1e-6 * s.max()).sum()) :]
