"""Phonons of crystals through phonopy, with bands of uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.observables.force_constants import (
    ZERO,
    Displacements,
    ForceConstants,
    by_square,
    frequencies,
    helmholtz,
    linearised,
    need_phonopy,
)
from soapkrr.observables.geometry import STEP, Equilibrium, at_rest, check_rest
from soapkrr.observables.number import CERTAIN, DELTA, Entry, Number, Result, bars_of, numbers_of
from soapkrr.observables.source import as_source
from soapkrr.observables.vibrations import THZ
from soapkrr.uncertainty import Observable


@dataclass(frozen=True, eq=False)
class Bands:
    """Frequencies along a path.

    Attributes
    ----------
    q : (n, 3).  distance : (n,) 1/Å, with 2π.  frequency, std : (n, n_bands) THz, imaginary ones negative; std None of a calculator.
    ticks, labels : places and names of the special points.
    """

    q: np.ndarray
    distance: np.ndarray
    frequency: np.ndarray
    std: np.ndarray | None
    ticks: list[float]
    labels: list[str]

    def plot(self, ax=None):
        """See `soapkrr.plot.observables.phonon_bands`."""
        from soapkrr.plot.observables import phonon_bands

        return phonon_bands(self.distance, self.frequency, self.std, self.ticks, self.labels, ax)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A function of frequency or temperature with its standard deviation; ``x`` THz or K, ``y`` and ``std`` (n,) in ``unit``."""

    x: np.ndarray
    y: np.ndarray
    std: np.ndarray | None
    xlabel: str
    ylabel: str

    def plot(self, ax=None):
        """The curve with its band; see `soapkrr.plot.observables.curve`."""
        from soapkrr.plot.observables import curve

        return curve(self.x, self.y, self.std, xlabel=self.xlabel, ylabel=self.ylabel, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class Phonons(Result):
    """Frequencies at the points asked for, ``"G1"`` … ``"X6"``, THz; imaginary ones are negative and flagged.

    Attributes
    ----------
    numbers : {name: `Number`}.  atoms : the crystal at rest.  rest, constants, around : what derivatives are made from.
    """

    numbers: Mapping[str, Number]
    atoms: Atoms
    rest: Equilibrium
    constants: ForceConstants
    around: list[tuple[ForceConstants, ForceConstants]]

    @property
    def phonopy(self) -> Any:
        """The `phonopy.Phonopy` object."""
        return self.constants.phonon

    def bands(self, path: str | None = None, n: int = 60) -> Bands:
        """Frequencies along a path of special points in ASE's notation, ``"GXWKGL"``, None: the usual one; ``n`` points."""
        path = self.atoms.cell.bandpath(path, npoints=n)
        distance, ticks, labels = path.get_linear_kpoint_axis()
        f, linear = self._frequencies(path.kpts)
        std = None
        if linear:
            C = bars_of(self.rest.source, linear)[0]
            std = np.sqrt(np.maximum(np.diagonal(C), 0.0)).reshape(f.shape)
        return Bands(path.kpts, 2 * np.pi * distance, f, std, list(2 * np.pi * ticks), list(labels))

    def dos(self, mesh: Sequence[int] = (12, 12, 12), sigma: float = 0.3, n: int = 120) -> Spectrum:
        """Density of states, states per THz and cell, of Gaussians of standard deviation ``sigma`` (THz), with its band."""
        q, w = self._mesh(mesh)
        values, vectors = self.constants.modes(q)
        f = np.sign(values) * np.sqrt(np.abs(values)) * THZ
        x = np.linspace(f.min() - 3 * sigma, f.max() + 3 * sigma, n)
        bell = np.exp(-0.5 * ((x[:, None, None] - f) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)) * w[:, None]
        by_f = bell * (x[:, None, None] - f) / sigma**2
        y, std = bell.sum(axis=(1, 2)), self._std(q, values, vectors, by_f)
        return Spectrum(x, y, std, "frequency (THz)", "states (1/THz)")

    def free_energy(self, temperatures, mesh: Sequence[int] = (12, 12, 12)) -> Spectrum:
        """Harmonic free energy, Σ ħω/2 + kT ln(1 − exp(−ħω/kT)), eV per cell, with its band.

        Raises
        ------
        InputError : a mode is imaginary, so that there is none.
        """
        T = np.atleast_1d(np.asarray(temperatures, dtype=float))
        q, w = self._mesh(mesh)
        values, vectors = self.constants.modes(q)
        if (part := (w[:, None] * (values < -((ZERO / THZ) ** 2))).sum() / values.shape[1]) > 0:
            raise InputError(
                f"{100 * part:.2g} % of the phonons of {self.atoms.symbols} are imaginary, and an unstable crystal has no harmonic "
                "free energy; look at `bands`, take a larger `supercell`, or break the symmetry of `atoms` and let them relax."
            )
        F, by_f = helmholtz(values, w, T)
        return Spectrum(T, F, self._std(q, values, vectors, by_f), "temperature (K)", "free energy (eV/cell)")

    def _mesh(self, mesh) -> tuple[np.ndarray, np.ndarray]:
        """Points and weights, whose sum is 1, that symmetry leaves of a mesh."""
        self.constants.set(np.array(self.constants.points.forces))
        self.phonopy.run_mesh(list(mesh), is_gamma_center=True)
        found = self.phonopy.mesh
        return np.array(found.qpoints), np.array(found.weights) / np.sum(found.weights)

    def _frequencies(self, q: np.ndarray) -> tuple[np.ndarray, list[Observable]]:
        """(n_q, n) THz and, with a model, their linearisations."""
        return frequencies(self.rest, self.constants, self.around, np.atleast_2d(q))

    def _std(self, q, values, vectors, by_f) -> np.ndarray | None:
        """Standard deviations of sums with derivatives by_f (m, n_q, n) by frequencies in THz."""
        if self.rest.source.certain:
            return None
        linear = linearised(self.rest, self.constants, self.around, q, (values, vectors), by_f * by_square(values))
        return np.sqrt(np.maximum(np.diagonal(bars_of(self.rest.source, linear)[0]), 0.0))

    def plot(self, ax=None):
        """Bands along the usual path."""
        return self.bands().plot(ax)


def phonons(
    model,
    atoms: Atoms,
    supercell=(3, 3, 3),
    points: Mapping[str, Sequence[float]] | None = None,
    *,
    distance: float = 0.01,
    central: bool = False,
    relax: bool = True,
) -> Phonons:
    """Phonons of a crystal: force constants of displaced supercells by phonopy (Togo 2023, doi 10.7566/JPSJ.92.012001), all symmetry kept.

    Force constants are linear in the forces, and dω² = e†(dD)e; bars follow from the joint posterior of all forces, and from how the labels
    move the lattice constants.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    atoms : a primitive cell.  supercell : (3,) or (3, 3), of the displaced supercells.
    points : {name: wave vector in units of the reciprocal cell} to give frequencies of; None: the special points of the cell.
    distance : displacement, Å.  central : displace in both directions also where symmetry makes one enough, which forces that do not quite
        vanish in the crystal at rest, as those of calculations on a grid, cancel in.
    relax : relax cell and atoms first; False: the crystal must be at rest, and bars are those at this geometry.

    Raises
    ------
    InputError : phonopy is not installed, the crystal is not periodic in three directions, or not at rest and must not relax.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> round(float(phonons(EMT(), bulk("Cu"))["X3"]), 2)  # THz
    8.16
    """
    source = as_source(model)
    need_phonopy()
    rest = at_rest(source, atoms, cell=True) if relax else check_rest(source, atoms, cell=True)
    displacements = Displacements(supercell, distance, central)
    constants, around = ForceConstants(source, rest.atoms, displacements), []
    if relax and not source.certain:
        for e in np.eye(len(rest.modes)):
            around.append(tuple(ForceConstants(source, rest.modes.at(sign * STEP * e), displacements) for sign in (1, -1)))
    special = rest.atoms.cell.bandpath(npoints=0).special_points if points is None else points
    names, q = list(special), np.array([special[name] for name in special], dtype=float)
    f, linear = frequencies(rest, constants, around, q)
    entries = []
    for k, value in enumerate(f.ravel()):
        name = f"{names[k // f.shape[1]]}{k % f.shape[1] + 1}"
        flag = "imaginary: the crystal is unstable along this mode, or the supercell too small" if value < -ZERO else ""
        entries.append(Entry(name, float(value), "THz", linear[k] if linear else Observable((), float(value)), flag))
    return Phonons(numbers_of(source, entries, CERTAIN if source.certain else DELTA), rest.atoms, rest, constants, around)
