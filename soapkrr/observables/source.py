"""What an observable is computed with: a fitted potential, which knows how far it is to be trusted, or any calculator of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from soapkrr.errors import FAILURES, InputError, reason
from soapkrr.labels import KINDS
from soapkrr.lazy import cached_property
from soapkrr.uncertainty import Observable
from soapkrr.uncertainty.observables import Structure

#: Displacement of atoms (Å) and strain, both standard deviations, of the copies at which calibrated bars are compared with the posterior's.
RATTLE, STRAIN = 0.1, 0.01

#: Structures, at most, of which such copies are made.
COPIES = 4


@dataclass(frozen=True, eq=False)
class Source:
    """A fitted potential or a calculator; `certain` is True of the latter, whose numbers have no bars."""

    model: Any

    @property
    def certain(self) -> bool:
        """Whether there is no posterior to take bars from."""
        return not hasattr(self.model, "posterior")

    def predict(self, frames: Sequence[Atoms], kinds: Sequence[str] = ("energy",)) -> Points:
        """Energies and what else is asked for of structures, which are copied.

        Raises
        ------
        InputError : the model does not know a species, or the calculator fails; the message names the structure.
        """
        frames = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in frames]
        if self.certain:
            return Points(self, frames, tuple(kinds), *self._calculated(frames, kinds))
        p = self.model.predict(frames)
        return Points(self, frames, tuple(kinds), p.energy, p.forces, p.stress)

    def _calculated(self, frames: list[Atoms], kinds: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        energy, forces, stress = np.empty(len(frames)), [], np.full((len(frames), 6), np.nan)
        for k, atoms in enumerate(frames):
            asked = atoms.copy()
            asked.calc = self.model
            try:
                energy[k] = _energy(asked)
                forces.append(asked.get_forces() if "forces" in kinds else np.zeros((len(atoms), 3)))
                stress[k] = asked.get_stress() if "stress" in kinds else np.nan
            except FAILURES as error:
                name = f"{type(self.model).__name__} gave no {' and '.join(kinds)} of {atoms.symbols}"
                raise InputError(f"`model`: {name} ({reason(error)}); expected a calculator that has them.") from error
        return energy, forces, stress

    def ratios(self, frames: Sequence[Atoms], kinds: Sequence[str]) -> dict[str, float]:
        """{kind: factor from the posterior's standard deviations to calibrated ones} near structures; 1 where there is no calibration.

        The ratio of the root mean squares of both over copies of the structures that are rattled and strained as warm ones are: labels
        that vanish by symmetry, or nearly, as forces after the small displacements that force constants are made of, say nothing of it.
        """
        if self.certain or getattr(self.model, "calibration_", None) is None:
            return dict.fromkeys(kinds, 1.0)
        rng, some = np.random.default_rng(0), [frames[k] for k in sorted({round(x) for x in np.linspace(0, len(frames) - 1, COPIES)})]
        p = self.model.predict([_warm(atoms, rng) for atoms in some], uncertainty=list(kinds))
        return {kind: _ratio(getattr(p, f"{kind}_std"), p.posterior_std(kind)) for kind in kinds}


def _energy(atoms: Atoms) -> float:
    """The energy that forces belong to."""
    try:
        return float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:
        return float(atoms.get_potential_energy())


def _warm(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    copy = atoms.copy()
    if copy.pbc.all():
        copy.set_cell(copy.cell.array @ (np.eye(3) + STRAIN * rng.standard_normal((3, 3))), scale_atoms=True)
    copy.positions += RATTLE * rng.standard_normal(copy.positions.shape)
    return copy


def _ratio(calibrated, posterior) -> float:
    """Ratio of root mean squares of what is finite; 1 where there is nothing."""
    a, b = (np.concatenate([np.ravel(x) for x in part]) if isinstance(part, list) else np.ravel(part) for part in (calibrated, posterior))
    known = np.isfinite(a) & np.isfinite(b)
    total = np.sum(b[known] ** 2)
    return float(np.sqrt(np.sum(a[known] ** 2) / total)) if total > 0 else 1.0


def as_source(model) -> Source:
    """A fitted potential or a calculator as a `Source`.

    Raises
    ------
    InputError : it is neither.  sklearn.exceptions.NotFittedError : the potential is not fitted.
    """
    if isinstance(model, Source):
        return model
    if hasattr(model, "posterior") and hasattr(model, "predict"):
        model.calculator()  # refuses one that is not fitted
        return Source(model)
    if not hasattr(model, "get_property"):
        raise InputError(f"`model` must be a fitted potential or an ASE calculator, received {type(model).__name__}.")
    return Source(model)


@dataclass(frozen=True, eq=False)
class Points:
    """Structures with what a source says of them: the values y that an observable is a function of.

    Attributes
    ----------
    kinds : kinds of labels that y is made of, in the order energy, forces, stress.
    energy : (n,) eV.  forces : list of (n_atoms, 3) eV/Å.  stress : (n, 6) eV/Å³.
    """

    source: Source
    frames: list[Atoms]
    kinds: tuple[str, ...]
    energy: np.ndarray
    forces: list[np.ndarray]
    stress: np.ndarray

    @cached_property
    def structures(self) -> list[Structure]:
        """The structures as parts of observables."""
        return [Structure(atoms) for atoms in self.frames]

    def observables(self, values, energy=None, forces=None, stress=None) -> list[Observable]:
        """Linear functionals with these values at the mean, and these derivatives.

        Parameters
        ----------
        values : (m,).  energy : (m, n).  forces : list of n arrays (m, n_atoms, 3).  stress : (m, n, 6); None: zero.
        """
        given = {"energy": energy, "forces": forces, "stress": stress}
        return [self._observable(float(v), {k: [part[m] for part in _by_structure(k, g)] for k, g in given.items() if g is not None})
                for m, v in enumerate(np.atleast_1d(values))]  # fmt: skip

    def _observable(self, value: float, given: dict[str, list[np.ndarray]]) -> Observable:
        terms, mean = [], 0.0
        for kind in KINDS:
            labels = {"energy": self.energy, "forces": self.forces, "stress": self.stress}[kind]
            for structure, derivative, label in zip(self.structures, given.get(kind, ()), labels, strict=False):
                flat, at = np.ravel(derivative), np.ravel(label)
                places = np.flatnonzero(flat)
                mean += float(flat[places] @ at[places])
                terms += [(float(flat[k]), structure, kind, -1 if kind == "energy" else int(k)) for k in places]
        return Observable(tuple(terms), value - mean)


def _by_structure(kind: str, derivative) -> list[np.ndarray]:
    """Of each structure an array whose first axis is that of the observables."""
    return list(derivative) if kind == "forces" else list(np.moveaxis(np.asarray(derivative), 1, 0))


def scaled(observable: Observable, factors: dict[str, float]) -> Observable:
    """The observable with the derivatives by each kind of label times a factor; its constant counts for nothing."""
    return Observable(tuple((factors[kind] * c, s, kind, place) for c, s, kind, place in observable.terms), 0.0)


def shifted(observable: Observable, derivatives, shifts: Sequence[Observable]) -> Observable:
    """An observable of a geometry that itself depends on the labels: Σ_m dq/dx_m δx_m added."""
    terms, constant = list(observable.terms), observable.constant
    for derivative, shift in zip(np.ravel(derivatives), shifts, strict=True):
        terms += [(float(derivative) * c, *rest) for c, *rest in shift.terms]
        constant += float(derivative) * shift.constant
    return Observable(tuple(terms), constant)
