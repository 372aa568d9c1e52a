"""Lattice parameters of a crystal at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import cell_to_cellpar

from soapkrr.observables.geometry import Equilibrium, at_rest, symmetry
from soapkrr.observables.number import DELTA, Entry, Number, Result, numbers_of
from soapkrr.observables.source import as_source, shifted
from soapkrr.uncertainty import Observable

#: Lattice parameters of the conventional cell that are independent, by the first number of the space group of each crystal system.
SYSTEMS = {1: "abcαβγ", 3: "abcβ", 16: "abc", 75: "ac", 143: "ac", 195: "a"}
PARAMETERS = "abcαβγ"


@dataclass(frozen=True, eq=False, repr=False)
class Lattice(Result):
    """Lattice parameters of the conventional cell (``a``, where they are independent ``b``, ``c`` and angles), and volume ``V`` per atom.

    Attributes
    ----------
    numbers : {name: `Number`}, Å, degrees, Å³.  atoms : the structure at rest.
    """

    numbers: Mapping[str, Number]
    atoms: Atoms


def lattice(model, atoms: Atoms) -> Lattice:
    """Relax the cell and the atoms of a crystal, and say how sharply its lattice parameters are known; its symmetry stays.

    The delta method, δx = −H⁻¹ δg: forces and stress of the crystal at rest are uncertain, its stiffness H tells how far that moves it.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    atoms : a crystal; lattice parameters are those of its conventional cell, whichever cell is given.

    Raises
    ------
    InputError : it is not periodic in three directions, or does not come to rest.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> lattice(EMT(), bulk("Cu", a=3.7))["a"]
    a = 3.58983 Å
    """
    source = as_source(model)
    rest = at_rest(source, atoms, cell=True)
    dataset = symmetry(rest.atoms)
    conventional = np.linalg.inv(dataset.transformation_matrix).T
    names = SYSTEMS[max(first for first in SYSTEMS if first <= dataset.number)]

    def values(structure: Atoms) -> np.ndarray:
        parameters = cell_to_cellpar(conventional @ structure.cell.array)
        return np.array([*(parameters[PARAMETERS.index(name)] for name in names), structure.get_volume() / len(structure)])

    units = ["Å" if name in "abc" else "°" for name in names] + ["Å³/atom"]
    entries = of_geometry(rest, [*names, "V"], units, values)
    return Lattice(numbers_of(source, entries, DELTA), rest.atoms)


def of_geometry(rest: Equilibrium, names, units, function) -> list[Entry]:
    """Entries of a function of the structure alone."""
    found, by = function(rest.atoms), rest.derivatives(function)
    return [
        Entry(name, float(value), unit, shifted(Observable((), float(value)), by[:, k] if rest.shifts else [], rest.shifts))
        for k, (name, unit, value) in enumerate(zip(names, units, found, strict=True))
    ]
