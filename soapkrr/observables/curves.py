"""Energies along a path of structures, with a band: dimers, torsions, stacking faults, mixing; all linear in energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii

from soapkrr.errors import InputError
from soapkrr.observables.geometry import at_rest, descended, modes_along
from soapkrr.observables.number import DELTA, JOINT, Entry, Number, Result, bars_of, numbers_of
from soapkrr.observables.source import Source, as_source
from soapkrr.structures import as_frames
from soapkrr.uncertainty import Observable


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Result):
    """Values y along x with their covariance, and numbers read off them.

    Attributes
    ----------
    numbers : {name: `Number`}.  x, y, std : (n,); std is calibrated (see `Number`), None of a calculator.
    covariance : (n, n) of y, calibrated; None of a calculator.  xlabel, ylabel : what they are, with units.
    frames : the structures.
    """

    numbers: Mapping[str, Number]
    x: np.ndarray
    y: np.ndarray
    covariance: np.ndarray | None
    xlabel: str
    ylabel: str
    frames: list[Atoms]

    @property
    def std(self) -> np.ndarray | None:
        """(n,) standard deviations of y."""
        return None if self.covariance is None else np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    def plot(self, ax=None):
        """The curve with bands of one and two standard deviations; see `Result.plot`."""
        from soapkrr.plot.observables import curve

        return curve(self.x, self.y, self.std, xlabel=self.xlabel, ylabel=self.ylabel, points=len(self.x) < 40, ax=ax)


def dimer(model, symbols: Sequence[str], distances=None) -> Curve:
    """Energy of two atoms by their distance, less that of the atoms apart: depth ``D`` and distance ``r`` of the deepest point.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    symbols : two elements, ``("Si", "O")``.
    distances : (n,) Å; None: 80 from 0.7 to 2.2 times the sum of covalent radii.

    Raises
    ------
    InputError : ``symbols`` are not two elements, or distances are not positive.

    Examples
    --------
    >>> from ase.calculators.emt import EMT
    >>> dimer(EMT(), ("Cu", "Cu"))["r"]
    r = 2.16934 Å
    """
    source, symbols = as_source(model), list(symbols)
    if len(symbols) != 2 or not set(symbols) <= set(atomic_numbers):
        raise InputError(f"`symbols` must be two elements, such as ('Si', 'O'), received {symbols!r}.")
    r0 = sum(covalent_radii[atomic_numbers[s]] for s in symbols)
    r = np.linspace(0.7 * r0, 2.2 * r0, 80) if distances is None else np.asarray(distances, dtype=float)
    if r.ndim != 1 or len(r) < 3 or not (r > 0).all():
        raise InputError(f"`distances` must be at least three positive lengths in Å, received {distances!r}.")
    frames = [Atoms(symbols, [[0, 0, 0], [0, 0, x]]) for x in r]
    points = source.predict([*frames, Atoms(symbols[:1]), Atoms(symbols[1:])])
    J = np.column_stack([np.eye(len(r)), -np.ones((len(r), 2))])
    y = J @ points.energy
    k, top, place, of_top, of_place = vertex(r, y, int(np.argmin(y)))
    depth, at = points.observables([-top, place], energy=np.array([-of_top @ J[k], of_place @ J[k]]))
    numbers = numbers_of(source, [Entry("D", -top, "eV", depth), Entry("r", place, "Å", at)], DELTA)
    return Curve(numbers, r, y, _covariance(source, points.observables(y, energy=J)), "distance (Å)", "energy (eV)", frames)


def torsion(model, molecule: Atoms, indices: Sequence[int], n: int = 36, mask: Sequence[bool] | None = None) -> Curve:
    """Energy of a molecule by a dihedral angle, all else rigid, less the least; ``barrier`` is the highest.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    molecule : the structure that is twisted.  indices : four atoms of the dihedral angle.  n : angles about the circle.
    mask : (n_atoms,) which atoms turn; None: those that the last bond, once cut, leaves on the side of the last atom.

    Raises
    ------
    InputError : ``indices`` are not four different atoms, or nothing can turn.
    """
    source, indices = as_source(model), [int(i) for i in indices]
    if len(set(indices)) != 4 or not all(0 <= i < len(molecule) for i in indices):
        raise InputError(f"`indices` must be four different atoms of {len(molecule)}, received {indices}.")
    turning = _side(molecule, *indices[1:3]) if mask is None else np.asarray(mask, dtype=bool)
    x = np.linspace(0, 360, n, endpoint=False)
    frames = []
    for angle in x:
        turned = Atoms(molecule.numbers, molecule.positions, cell=molecule.cell, pbc=molecule.pbc)
        turned.set_dihedral(*indices, float(angle), mask=turning)
        frames.append(turned)
    return relative(source, x, frames, ("dihedral angle (°)", "energy (eV)"), Highest("barrier", "eV"))


def _side(molecule: Atoms, j: int, k: int) -> np.ndarray:
    """Atoms on the side of k of the bond j–k."""
    radii = covalent_radii[molecule.numbers]
    bonded = molecule.get_all_distances() < 1.25 * (radii[:, None] + radii)
    bonded[j, k] = bonded[k, j] = False
    side = np.zeros(len(molecule), dtype=bool)
    side[k] = True
    while (grown := side | bonded[side].any(axis=0)).sum() > side.sum():
        side = grown
    if side[j]:
        raise InputError(
            f"the bond of atoms {j} and {k} is in a ring: turning it tears the molecule; give a `mask` of the atoms that turn."
        )
    return side


def stacking_fault(model, slab: Atoms, direction: Sequence[float], height: float | None = None, n: int = 21, relax: bool = True) -> Curve:
    """Energy of a generalised stacking fault: the upper half of a crystal is shifted along ``direction``, per area.

    Periodic in three directions; the vacuum, or the cell vector c, which is shifted along with the upper half, keeps one fault in the cell.
    Atoms relax along z only, as in the usual γ curve (Vítek 1968, doi 10.1080/14786436808227500).

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    slab : layers normal to z.  direction : (3,) the whole shift, Å, in the plane.
    height : z of the fault plane, Å; None: the middle of the layers.  n : points from 0 to the whole shift.

    Raises
    ------
    InputError : nothing is above the plane, or the shift is not in the plane.

    Returns
    -------
    A `Curve`, mJ/m²: ``unstable`` is its highest point.
    """
    source, b, z = as_source(model), np.asarray(direction, dtype=float), slab.positions[:, 2]
    if b.shape != (3,) or abs(b[2]) > 1e-8 * np.linalg.norm(b) or not b.any():
        raise InputError(f"`direction` must be a shift (x, y, 0) in the plane, received {direction!r}.")
    height = 0.5 * (z.min() + z.max()) if height is None else float(height)
    above = z > height
    if above.all() or not above.any():
        raise InputError(f"`height` must be between the layers, from {z.min():.3f} to {z.max():.3f} Å, received {height:g}.")
    vacuum = slab.cell.array[2, 2] - np.ptp(z) > 6.0
    x, frames = np.linspace(0, 1, n), []
    for part in x:
        moved = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=slab.pbc)
        moved.positions[above] += part * b
        if not vacuum:
            moved.set_cell(moved.cell.array + part * np.array([np.zeros(3), np.zeros(3), b]))
        frames.append(descended(source, modes_along(moved, 2)) if relax else moved)
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    factor = 1e3 / (area * units.J / units.m**2)
    labels = (f"shift / {np.linalg.norm(b):.3f} Å", "stacking-fault energy (mJ/m²)")
    return relative(source, x, frames, labels, Highest("unstable", "mJ/m²", factor, 0))


@dataclass(frozen=True)
class Highest:
    """The number that a curve has for its highest point: its unit, the factor from eV, and which point is zero (None: the lowest)."""

    name: str
    unit: str
    factor: float = 1.0
    zero: int | None = None


def relative(source: Source, x: np.ndarray, frames: list[Atoms], labels: tuple[str, str], top: Highest) -> Curve:
    """Energies along a path less that of one of its points, and the highest of them."""
    points = source.predict(frames)
    zero = int(np.argmin(points.energy)) if top.zero is None else top.zero
    J = np.eye(len(x))
    J[:, zero] -= 1.0
    J *= top.factor
    y = J @ points.energy
    k, value, _, weights, _ = vertex(x, y, int(np.argmax(y)))
    (highest,) = points.observables([value], energy=(weights @ J[k])[None])
    numbers = numbers_of(source, [Entry(top.name, value, top.unit, highest)], DELTA)
    return Curve(numbers, x, y, _covariance(source, points.observables(y, energy=J)), *labels, frames)


def vertex(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, float, float, np.ndarray, np.ndarray]:
    """Extremum of the parabola through point k and its neighbours: their indices, its value and place, and derivatives of both by y.

    Where k is an end of the curve that point itself.
    """
    if not 0 < k < len(x) - 1:
        return np.array([k]), float(y[k]), float(x[k]), np.ones(1), np.zeros(1)
    i = np.array([k - 1, k, k + 1])
    inverse = np.linalg.inv(np.vander(x[i] - x[k], 3))
    a, b, c = inverse @ y[i]
    at = -b / (2 * a)
    of_value = np.array([at**2, at, 1.0]) @ inverse
    return i, float(c - b**2 / (4 * a)), float(x[k] + at), of_value, b / (2 * a**2) * inverse[0] - inverse[1] / (2 * a)


def _covariance(source: Source, linear: Sequence[Observable]) -> np.ndarray | None:
    return None if source.certain else bars_of(source, linear)[0]


def mixing(model, structures: Sequence[Atoms], element: str, *, relax: bool = False) -> Curve:
    """Energies of mixing of structures of two elements by composition, per atom: E/N − x E_B − (1 − x) E_A.

    Parameters
    ----------
    model : a fitted potential, or an ASE calculator, which has no bars.
    structures : of two elements, among them each alone; of several structures of one pure element the lowest is the reference.
    element : B, whose part x of the atoms is the abscissa.  relax : relax the atoms, not the cells, first.

    Returns
    -------
    A `Curve` in the order of x, meV/atom; ``lowest`` is its lowest point.  ``curve.frames`` are the structures in that order.

    Raises
    ------
    InputError : there are not two elements, or a pure one is missing.
    """
    source, frames = as_source(model), as_frames(structures)
    elements = sorted({s for atoms in frames for s in atoms.get_chemical_symbols()})
    x = np.array([np.mean([s == element for s in atoms.get_chemical_symbols()]) for atoms in frames])
    if len(elements) != 2 or not (np.any(x == 0) and np.any(x == 1)):
        raise InputError(
            f"`structures` must be of two elements, one of them {element!r}, and hold each alone; received {', '.join(elements)} with "
            f"parts of {element} from {x.min():.3g} to {x.max():.3g}."
        )
    if relax:
        frames = [at_rest(source, atoms, cell=False).atoms for atoms in frames]
    order = np.argsort(x, kind="stable")
    x, frames = x[order], [frames[k] for k in order]
    points = source.predict(frames)
    J = np.diag(1.0 / np.array([len(a) for a in frames]))
    per_atom = J.copy()
    for pure, weight in ((0, 1 - x), (1, x)):
        ends = np.flatnonzero(x == pure)
        J = J - np.outer(weight, per_atom[ends[np.argmin(per_atom[ends] @ points.energy)]])
    J *= 1e3
    y = J @ points.energy
    linear, lowest = points.observables(y, energy=J), int(np.argmin(y))
    numbers = numbers_of(source, [Entry("lowest", float(y[lowest]), "meV/atom", linear[lowest])], JOINT)
    labels = (f"part of {element}", "energy of mixing (meV/atom)")
    return Curve(numbers, x, y, _covariance(source, linear), *labels, frames)
