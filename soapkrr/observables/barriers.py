"""Barriers between two structures on a potential itself, and how sharply it knows them."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

from soapkrr.errors import InputError, require_positive
from soapkrr.observables.curves import Curve
from soapkrr.observables.number import DELTA, Entry, bars_of, numbers_of
from soapkrr.observables.source import Source, as_source


def barrier(model, initial: Atoms, final: Atoms, n: int = 9, fmax: float = 0.02, steps: int = 500) -> Curve:
    """Energies along the minimum-energy path between two structures: ``forward`` and ``reverse`` barrier, eV.

    A climbing-image nudged elastic band of ASE with improved tangents (Henkelman and Jónsson 2000, doi 10.1063/1.1323224) on the model.
    Ends and saddle point are stationary, so that their energies change, to first order, as those of the fixed structures: the bar of
    E(saddle) − E(end) is that of the joint posterior of these energies. For few calls of a reference take `SurrogateNEB`.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    initial, final : with the atoms in the same order; atoms fixed by `FixAtoms` stay; where the ends differ
        in them, they are in between along the band. Both ends relax first.
    n : images, ends included, at least 5.  fmax : eV/Å, of ends and band.  steps : of the optimiser, at most.

    Raises
    ------
    InputError : the ends have different atoms or are one structure, or the band does not come to rest.

    Returns
    -------
    A `Curve`: x the length of the path, Å.
    """
    source = as_source(model)
    require_positive(fmax=fmax)
    if not np.array_equal(initial.numbers, final.numbers) or n < 5:
        raise InputError(f"`initial` and `final` must have the same atoms in the same order and `n` be at least 5, received {n}.")
    ends = [_relaxed(source, atoms, fmax, steps) for atoms in (initial, final)]
    images = _band(source, ends, n, fmax, steps)
    x = np.array([0.0, *np.cumsum([_apart(a, b) for a, b in zip(images, images[1:], strict=False)])])
    points = source.predict(images)
    J = np.eye(n)
    J[:, 0] -= 1.0
    top = int(np.argmax(points.energy))
    if top in (0, n - 1):
        raise InputError(f"the energy has no maximum between the ends of {initial.symbols}: there is no barrier, or an end is no minimum.")
    rows = {"forward": J[top], "reverse": np.eye(n)[top] - np.eye(n)[-1]}
    entries = [
        Entry(name, float(row @ points.energy), "eV", points.observables([row @ points.energy], energy=row[None])[0])
        for name, row in rows.items()
    ]
    covariance = None if source.certain else bars_of(source, points.observables(J @ points.energy, energy=J))[0]
    numbers = numbers_of(source, entries, DELTA)
    return Curve(numbers, x, J @ points.energy, covariance, "path (Å)", "energy (eV)", images)


def _calculator(source: Source):
    return source.model if source.certain else source.model.calculator(uncertainty=False)


def _relaxed(source: Source, atoms: Atoms, fmax: float, steps: int) -> Atoms:
    relaxed = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, constraint=_fixed(atoms))
    relaxed.calc = _calculator(source)
    if not BFGS(relaxed, logfile=None).run(fmax=fmax, steps=steps):
        raise InputError(f"an end of the path, {atoms.symbols}, does not come to rest in {steps} steps; relax it first.")
    return relaxed


def _fixed(atoms: Atoms) -> list[FixAtoms]:
    return [constraint for constraint in atoms.constraints if isinstance(constraint, FixAtoms)]


def _band(source: Source, ends: list[Atoms], n: int, fmax: float, steps: int) -> list[Atoms]:
    """Images of a band at rest, the highest at the saddle point."""
    if _apart(*ends) < 0.1:
        raise InputError("`initial` and `final` relax to one structure: there is no path between them.")
    images = [ends[0].copy() for _ in range(n - 1)] + [ends[1].copy()]
    for image in images:
        image.calc = _calculator(source)
    band = NEB(images, climb=False, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(method="idpp", mic=bool(ends[0].pbc.any()), apply_constraint=False)
    FIRE(band, logfile=None).run(fmax=max(0.2, fmax), steps=steps)
    band.climb = True
    if not FIRE(band, logfile=None).run(fmax=fmax, steps=steps):
        raise InputError(f"the band of {ends[0].symbols} does not come to rest in {steps} steps; allow more, or a larger `fmax`.")
    return images


def _apart(a: Atoms, b: Atoms) -> float:
    """Distance in all coordinates, over the nearest images, Å."""
    from ase.geometry import find_mic

    return float(np.linalg.norm(find_mic(b.positions - a.positions, a.cell, a.pbc)[0]))
