"""What candidates are ranked by: an energy per atom, above references or above their hull, or any observable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.optimize import linprog

from soapkrr.errors import InputError
from soapkrr.structures import species_name
from soapkrr.uncertainty.observables import Energy, Observable


@dataclass(frozen=True, eq=False)
class Quantity:
    """A value of a structure that is linear in its energy, (E − offset)/N, or an `Observable` of it.

    Parameters
    ----------
    references : None: the energy per atom. {symbol: eV/atom}: the energy of formation per atom. A list of structures with energies, of at
        least one for each species: the energy above the convex hull of these phases, per atom.
    observable : a function from a structure to an `Observable`, in place of an energy.

    Raises
    ------
    InputError : references of unknown species or without energies, or both arguments at once.
    """

    references: Mapping[str, float] | Sequence[Atoms] | None = None
    observable: Callable[[Atoms], Observable] | None = None

    def __post_init__(self):
        if self.references is not None and self.observable is not None:
            raise InputError("`references` are of energies; with an `observable`, subtract them there.")
        if self.observable is not None and not callable(self.observable):
            raise InputError(f"`observable` must be a function of a structure, received {type(self.observable).__name__}.")
        object.__setattr__(self, "_phases", _phases(self.references) if self.references is not None else None)
        object.__setattr__(self, "_kept", {})

    @property
    def linear(self) -> bool:
        """Whether it is one of the energy alone."""
        return self.observable is None

    @property
    def name(self) -> str:
        """What it is, with its unit."""
        if self.observable is not None:
            return getattr(self.observable, "__name__", "observable")
        kind = "energy" if self.references is None else "formation energy" if isinstance(self.references, Mapping) else "energy above hull"
        return f"{kind} (eV/atom)"

    def offset(self, atoms: Atoms) -> float:
        """Energy of the references for a structure, eV."""
        phases: Any = getattr(self, "_phases")  # noqa: B009  set where the class is frozen
        if phases is None:
            return 0.0
        kept: dict[tuple, float] = getattr(self, "_kept")  # noqa: B009
        counts = _counts(atoms.numbers)
        key = tuple(counts.items())
        if key not in kept:
            kept[key] = hull_energy(counts, *phases)
        return kept[key]

    def of(self, atoms: Atoms) -> Observable:
        """As an observable."""
        if self.observable is None:
            return (Energy(atoms) - self.offset(atoms)) / len(atoms)
        found = self.observable(atoms)
        if not isinstance(found, Observable):
            raise InputError(f"`observable` must give an `Observable` (`Energy`, `Force`, `Stress`), it gave a {type(found).__name__}.")
        return found


def _counts(numbers) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(numbers, return_counts=True)), strict=True))


def _phases(references) -> tuple[list[dict[int, float]], np.ndarray]:
    """(atoms of each species in each phase, energy of each phase)."""
    if isinstance(references, Mapping):
        unknown = [symbol for symbol in references if symbol not in atomic_numbers]
        if unknown or not all(isinstance(e, Real) and isfinite(e) for e in references.values()):
            raise InputError(f"`references` must be {{symbol: finite energy in eV/atom}}, received {dict(references)!r}.")
        return [{atomic_numbers[symbol]: 1.0} for symbol in references], np.array(list(references.values()), dtype=float)
    if not isinstance(references, Sequence) or not references or not all(isinstance(atoms, Atoms) for atoms in references):
        raise InputError("`references` must be {symbol: eV/atom} or a list of ase.Atoms with energies.")
    energies = [_stated_energy(atoms, k) for k, atoms in enumerate(references)]
    return [{z: float(n) for z, n in _counts(atoms.numbers).items()} for atoms in references], np.array(energies)


def _stated_energy(atoms: Atoms, k: int) -> float:
    energy = atoms.info.get("energy") if atoms.calc is None else atoms.get_potential_energy()
    if not (isinstance(energy, Real) and isfinite(energy)):
        raise InputError(f"`references`: structure {k}, {atoms.get_chemical_formula()}, has no finite energy.")
    return float(energy)


def hull_energy(counts: Mapping[int, float], phases: Sequence[Mapping[int, float]], energies: np.ndarray) -> float:
    """Lowest energy of a mixture of phases with this composition: the linear program min Σ n_p E_p, Σ n_p c_p = counts, n_p ≥ 0.

    Raises
    ------
    InputError : no mixture has the composition.
    """
    species = sorted({*counts, *(z for phase in phases for z in phase)})
    A = np.array([[phase.get(z, 0.0) for phase in phases] for z in species])
    b = np.array([float(counts.get(z, 0)) for z in species])
    found = linprog(energies, A_eq=A, b_eq=b, bounds=(0, None), method="highs")
    if found.status != 0:
        missing = [species_name(z) for z in counts if not any(z in phase for phase in phases)]
        raise InputError(f"no mixture of the `references` has this composition{f': there is none with {missing}' if missing else ''}.")
    return float(found.fun)
