"""Energies of defects, surfaces, formation and cohesion: differences of energies of structures at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from soapkrr.errors import InputError
from soapkrr.observables.geometry import Equilibrium, at_rest, modes_of
from soapkrr.observables.number import DELTA, JOINT, Entry, Number, Result, numbers_of
from soapkrr.observables.source import Source, as_source, shifted
from soapkrr.uncertainty import Observable

#: Displacements, Å, that let a defect leave a symmetry that is no minimum.
RATTLE = 0.02


@dataclass(frozen=True, eq=False, repr=False)
class EnergyDifference(Result):
    """One energy and the structures that it is a difference of.

    Attributes
    ----------
    numbers : {name: `Number`}.  atoms : the structure at rest.  reference : the crystal, at rest too; None where there are several.
    """

    numbers: Mapping[str, Number]
    atoms: Atoms
    reference: Atoms | None


def vacancy(model, crystal: Atoms, index: int = 0, *, supercell: Sequence[int] = (1, 1, 1), relax: bool = True) -> EnergyDifference:
    """Formation energy of a vacancy, E(N − 1) − (N − 1)/N·E(N), eV.

    Crystal and defect are at rest, the cell that of the crystal at rest. The energy of a structure at rest is, to first order, that of the
    fixed structure; how the labels move the lattice constant counts through the stress of the defect's cell.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    crystal : of one element.  index : of the atom that is missing.  supercell : repetitions of the cell, at rest.
    relax : False: neither cell nor atoms move, and the bar is exact.

    Raises
    ------
    InputError : the crystal has several elements, whose chemical potentials would be needed (`formation_energy`), or does not come to rest.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> round(float(vacancy(EMT(), bulk("Cu", cubic=True), supercell=(2, 2, 2))["E_vacancy"]), 2)  # eV
    1.23
    """
    source, rest = as_source(model), _crystal(model, crystal, relax)
    whole = rest.atoms.repeat(supercell)
    if not (-len(whole) <= index < len(whole)) or len(whole) < 2:
        raise InputError(f"`index` must be an atom of the {len(whole)} of the supercell, at least two, received {index}.")
    defect = whole.copy()
    del defect[index]
    return _defect(source, rest, defect, "E_vacancy", relax)


def interstitial(
    model, crystal: Atoms, position: Sequence[float], *, supercell: Sequence[int] = (1, 1, 1), relax: bool = True
) -> EnergyDifference:
    """Formation energy of a self-interstitial, E(N + 1) − (N + 1)/N·E(N), eV; as `vacancy`.

    Parameters
    ----------
    model, crystal, supercell, relax : as in `vacancy`.  position : (3,) of the atom, in units of the cell vectors of ``crystal``.

    Raises
    ------
    InputError : as `vacancy`, or the position is on an atom.
    """
    source, rest = as_source(model), _crystal(model, crystal, relax)
    where = np.asarray(position, dtype=float)
    if where.shape != (3,):
        raise InputError(f"`position` must be three numbers, in units of the cell vectors, received {position!r}.")
    defect = rest.atoms.repeat(supercell)
    defect += Atoms(rest.atoms.symbols[:1], [where @ rest.atoms.cell.array])
    near = defect.get_distances(-1, range(len(defect) - 1), mic=True).min()
    if near < 0.5:
        raise InputError(f"`position` is {near:.2f} Å from an atom; give a place between the atoms.")
    return _defect(source, rest, defect, "E_interstitial", relax)


def _crystal(model, crystal: Atoms, relax: bool) -> Equilibrium:
    if len(set(crystal.numbers)) != 1:
        raise InputError(f"`crystal` must be of one element, received {crystal.symbols}; use `formation_energy` with your references.")
    source = as_source(model)
    return at_rest(source, crystal, cell=True) if relax else Equilibrium(source, crystal.copy(), modes_of(crystal, cell=True))


def _defect(source: Source, rest: Equilibrium, defect: Atoms, name: str, relax: bool) -> EnergyDifference:
    if relax:
        defect = settled(source, defect)
    n = len(rest.atoms)
    points = source.predict([defect, rest.atoms], ("energy", "forces", "stress"))
    J = np.array([[1.0, -len(defect) / n]])
    value = float((J @ points.energy)[0])
    (linear,) = points.observables([value], energy=J)
    if relax and rest.shifts:
        # The cell of the defect follows that of the crystal: dE = V σ:ε.
        strains = rest.modes.strains
        voigt = strains[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * np.array([1, 1, 1, 2, 2, 2])
        linear = shifted(linear, voigt @ points.stress[0] * defect.get_volume(), rest.shifts)
    numbers = numbers_of(source, [Entry(name, value, "eV", linear)], DELTA if relax else JOINT)
    return EnergyDifference(numbers, defect, rest.atoms)


def settled(source: Source, atoms: Atoms) -> Atoms:
    """At rest without any symmetry, from a structure that has lost what little there was."""
    start = atoms.copy()
    start.positions += RATTLE * np.random.default_rng(0).standard_normal(start.positions.shape)
    return at_rest(source, start, cell=False, symmetric=False).atoms


def surface(model, slab: Atoms, crystal: Atoms, *, relax: bool = True) -> EnergyDifference:
    """Surface energy of a slab with two equal faces, (E(slab) − N·E(crystal)/n)/2A, J/m².

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    slab : layers normal to z with vacuum, of the elements of the crystal in the same ratio; cut from the crystal at rest (`lattice`).
    crystal : what it is cut from, in the same strain.  relax : the atoms of the slab come to rest; both cells stay as they are.

    Raises
    ------
    InputError : the compositions differ, or there is no vacuum.
    """
    source = as_source(model)
    counts, each = Counter(slab.get_chemical_symbols()), Counter(crystal.get_chemical_symbols())
    cells = len(slab) / len(crystal)
    if any(abs(counts[s] - cells * each[s]) > 1e-6 for s in counts | each):
        raise InputError(f"`slab` must have the composition of `crystal`, received {slab.symbols} and {crystal.symbols}.")
    if slab.pbc[2] and slab.cell.array[2, 2] - np.ptp(slab.positions[:, 2]) < 4.0:
        raise InputError(f"`slab` {slab.symbols} has no vacuum along z, expected at least 4 Å between its faces: `slab.center(8, axis=2)`.")
    points = source.predict([settled(source, slab) if relax else slab, crystal])
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    J = np.array([[1.0, -cells]]) / (2 * area * units.J / units.m**2)
    value = float((J @ points.energy)[0])
    entry = Entry("gamma", value, "J/m²", points.observables([value], energy=J)[0])
    return EnergyDifference(numbers_of(source, [entry], DELTA if relax else JOINT), points.frames[0], crystal.copy())


def formation_energy(model, atoms: Atoms, references: Mapping[str, Atoms], *, relax: bool = False) -> EnergyDifference:
    """Energy of formation per atom from elements, (E − Σ_i E_ref(z_i)/n_ref)/N, eV/atom; linear, so that its bar is exact.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    atoms : the structure.  references : {symbol: structure of this element alone}.
    relax : cell (where there is one) and atoms of all come to rest first.

    Raises
    ------
    InputError : a reference is missing or of another element.
    """
    source, counts = as_source(model), Counter(atoms.get_chemical_symbols())
    for symbol in counts:
        if symbol not in references or set(references[symbol].get_chemical_symbols()) != {symbol}:
            raise InputError(f"`references` must have a structure of {symbol} alone, received structures of {', '.join(references)}.")
    frames = [atoms, *(references[symbol] for symbol in counts)]
    if relax:
        frames = [at_rest(source, one, cell=bool(one.pbc.all())).atoms if len(one) > 1 else one for one in frames]
    points = source.predict(frames)
    J = np.array([[1.0, *(-n / len(references[symbol]) for symbol, n in counts.items())]]) / len(atoms)
    return _per_atom(source, points, J, "E_formation", relax)


def cohesive_energy(model, atoms: Atoms, *, relax: bool = False) -> EnergyDifference:
    """Energy per atom that free atoms give off, (Σ_i E(free z_i) − E)/N, eV/atom; as `formation_energy`.

    It is as good as what the model knows of free atoms: give it isolated atoms to fit, or reference energies.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> print(cohesive_energy(EMT(), bulk("Cu", a=3.59)))
    E_cohesive = 3.51704 eV/atom
    """
    source, counts = as_source(model), Counter(atoms.get_chemical_symbols())
    frames = [at_rest(source, atoms, cell=bool(atoms.pbc.all())).atoms if relax else atoms, *(Atoms(symbol) for symbol in counts)]
    J = np.array([[-1.0, *counts.values()]]) / len(atoms)
    return _per_atom(source, source.predict(frames), J, "E_cohesive", relax)


def _per_atom(source: Source, points, J: np.ndarray, name: str, relax: bool) -> EnergyDifference:
    value = float((J @ points.energy)[0])
    entry = Entry(name, value, "eV/atom", points.observables([value], energy=J)[0])
    return EnergyDifference(numbers_of(source, [entry], DELTA if relax else JOINT), points.frames[0], None)


def difference(model, observable: Observable, name: str = "difference", unit: str = "eV") -> Number:
    """Any linear combination of energies, forces and stresses, written with `Energy`, `Force` and `Stress`, as a number with its bar.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import Energy
    >>> difference(EMT(), Energy(bulk("Cu", "hcp", a=2.54, c=4.15)) / 2 - Energy(bulk("Cu", a=3.59)), "hcp - fcc", "eV/atom")
    hcp - fcc = -0.000897473 eV/atom
    """
    source = as_source(model)
    places = {structure.key: structure.atoms for _, structure, _, _ in observable.terms}
    points = source.predict(list(places.values()), sorted({"energy", *(kind for _, _, kind, _ in observable.terms)}))
    at, value = {key: k for k, key in enumerate(places)}, observable.constant
    for c, structure, kind, place in observable.terms:
        if kind == "energy" and place >= 0:
            raise InputError("energies of single atoms are no observable: a calculator shares energies among atoms as it likes.")
        value += c * float(np.ravel(getattr(points, kind)[at[structure.key]])[max(place, 0)])
    return numbers_of(source, [Entry(name, value, unit, observable)], JOINT)[name]
