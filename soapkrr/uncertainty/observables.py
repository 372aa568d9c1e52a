"""Observables: linear combinations of energies, forces and stresses of any structures, written as expressions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from ase import Atoms
from scipy import sparse

from soapkrr.errors import InputError
from soapkrr.lazy import cached_property
from soapkrr.regression.functionals import Functionals
from soapkrr.structures import Batch

#: Names of the axes and of the stress components (Voigt order).
AXES, VOIGT = ("x", "y", "z"), ("xx", "yy", "zz", "yz", "xz", "xy")


class Structure:
    """A structure as it was when an observable of it was written: a copy, the same for equal ones."""

    def __init__(self, atoms: Atoms):
        if not isinstance(atoms, Atoms):
            raise InputError(f"an observable is one of an ase.Atoms object, received {type(atoms).__name__}.")
        self.atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)

    @cached_property
    def key(self) -> tuple[bytes, ...]:
        """Equal for equal structures."""
        return tuple(array.tobytes() for array in (self.atoms.numbers, self.atoms.positions, self.atoms.cell.array, self.atoms.pbc))


@dataclass(frozen=True, eq=False, repr=False)
class Observable:
    """A constant plus a linear combination of energies, forces and stresses; made of `Energy`, `Force`, `Stress` by + − * /.

    Attributes
    ----------
    terms : (coefficient, structure, kind, place) of each part; place is the atom of an energy (−1: all of them), 3·atom + axis of a
        force, the Voigt component of a stress.
    constant : what is added to it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> vacancy, crystal = bulk("Si", cubic=True), bulk("Si", cubic=True)
    >>> del vacancy[0]
    >>> formation = Energy(vacancy) - 7 / 8 * Energy(crystal)
    >>> formation
    Observable of 2 structures: 1 energy, -0.875 energy
    """

    terms: tuple[tuple[float, Structure, str, int], ...] = ()
    constant: float = 0.0

    #: NumPy's numbers leave the arithmetic to this class.
    __array_ufunc__ = None

    def __add__(self, other) -> Observable:
        if isinstance(other, Observable):
            return Observable(self.terms + other.terms, self.constant + other.constant)
        return Observable(self.terms, self.constant + float(other)) if isinstance(other, Real) else NotImplemented

    __radd__ = __add__

    def __neg__(self) -> Observable:
        return -1.0 * self

    def __sub__(self, other) -> Observable:
        return self + -1.0 * other if isinstance(other, (Observable, Real)) else NotImplemented

    def __rsub__(self, other) -> Observable:
        return -self + other

    def __mul__(self, factor) -> Observable:
        if not isinstance(factor, Real):
            return NotImplemented
        if not np.isfinite(factor):
            raise InputError(f"an observable cannot be multiplied by {factor}.")
        return Observable(tuple((factor * c, *rest) for c, *rest in self.terms), factor * self.constant)

    __rmul__ = __mul__

    def __truediv__(self, divisor) -> Observable:
        if not isinstance(divisor, Real):
            return NotImplemented
        if divisor == 0:
            raise InputError("an observable cannot be divided by zero.")
        return self * (1.0 / divisor)

    def __repr__(self) -> str:
        n = len({structure.key for _, structure, _, _ in self.terms})
        shown = [f"{c:g} {kind}" for c, _, kind, _ in self.terms[:3]] + ["…"] * (len(self.terms) > 3)
        return f"Observable of {n} structure{'' if n == 1 else 's'}: {', '.join(shown)}" + f" + {self.constant:g}" * bool(self.constant)


class Energy(Observable):
    """Energy of a structure, or the energy of one ``atom`` of it, eV."""

    def __init__(self, atoms: Atoms, atom: int | None = None):
        super().__init__(((1.0, structure := Structure(atoms), "energy", -1 if atom is None else _atom(structure, atom)),))


def energy_difference(a: Atoms, b: Atoms) -> Observable:
    """Energy of one structure less that of another, eV: what isomers, sites and reactions are compared by.

    var(E_a − E_b) = var E_a + var E_b − 2 cov(E_a, E_b): of structures that are alike it is far below that of either energy. By
    `Potential.posterior` mean and standard deviation cost some three predictions of both.

    Raises
    ------
    InputError : one is no `ase.Atoms`.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SOAP, DotProduct, GaussianProcess, energy_difference
    >>> frames = [molecule("H2O") for _ in range(3)]
    >>> for atoms, stretch in zip(frames, (0.98, 1.0, 1.03)):
    ...     atoms.positions *= stretch
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> model = GaussianProcess(SOAP(["H", "O"], r_cut=3.0), DotProduct(zeta=2)).fit(frames)
    >>> gap = model.posterior(energy_difference(frames[0], frames[2]))
    >>> bool(abs(gap.mean[0] - (frames[0].get_potential_energy() - frames[2].get_potential_energy())) < 5 * gap.std[0])
    True
    """
    return Energy(a) - Energy(b)


class Force(Observable):
    """Force on an atom along an ``axis`` (0, 1, 2 or ``"x"``, ``"y"``, ``"z"``), eV/Å."""

    def __init__(self, atoms: Atoms, atom: int, axis: int | str):
        structure = Structure(atoms)
        super().__init__(((1.0, structure, "forces", 3 * _atom(structure, atom) + _number(axis, AXES, "axis")),))

    @staticmethod
    def all(atoms: Atoms) -> np.ndarray:
        """(n_atoms, 3) observables, an array of objects: every force of a structure."""
        structure = Structure(atoms)
        out = np.empty(3 * len(atoms), dtype=object)
        out[:] = [Observable(((1.0, structure, "forces", k),)) for k in range(len(out))]
        return out.reshape(-1, 3)


class Stress(Observable):
    """A stress ``component`` (0 to 5, or ``"xx"``, ``"yy"``, ``"zz"``, ``"yz"``, ``"xz"``, ``"xy"``), eV/Å³, ASE's sign."""

    def __init__(self, atoms: Atoms, component: int | str):
        structure = Structure(atoms)
        if not structure.atoms.pbc.all():
            raise InputError(f"a stress needs a cell that is periodic in three directions; this structure has `pbc`={atoms.pbc.tolist()}.")
        super().__init__(((1.0, structure, "stress", _number(component, VOIGT, "component")),))


def _atom(structure: Structure, atom: int) -> int:
    n = len(structure.atoms)
    if not (isinstance(atom, Integral) and -n <= atom < n):
        raise InputError(f"`atom` must be a number below {n}, the number of atoms, received {atom!r}.")
    return int(atom) % n


def _number(value, names: tuple[str, ...], what: str) -> int:
    if isinstance(value, str) and value in names:
        return names.index(value)
    if not (isinstance(value, Integral) and 0 <= value < len(names)):
        raise InputError(f"`{what}` must be 0 to {len(names) - 1} or one of {names}, received {value!r}.")
    return int(value)


def as_observables(observables) -> list[Observable]:
    """A flat list of at least one observable, from one or nested sequences of them."""
    if isinstance(observables, Observable):
        return [observables]
    if isinstance(observables, (str, bytes, Atoms)) or not isinstance(observables, Iterable):
        raise InputError(
            f"`observables` must be `Energy`, `Force`, `Stress`, or combinations of them, received a {type(observables).__name__}."
        )
    flat = [one for part in observables for one in as_observables(part)]
    if not flat:
        raise InputError("`observables` is empty: at least one is needed.")
    return flat


def functionals_of(observables: Sequence[Observable]) -> tuple[Functionals, np.ndarray]:
    """The linear functionals of observables on a batch of their distinct structures, and their constants (n,)."""
    places: dict[tuple, int] = {}
    frames: list[Atoms] = []
    entries: dict[str, list[tuple[int, int, int, float]]] = {"energy": [], "forces": [], "stress": []}
    for row, observable in enumerate(observables):
        for coefficient, structure, kind, place in observable.terms:
            s = places.setdefault(structure.key, len(frames))
            if s == len(frames):
                frames.append(structure.atoms)
            entries[kind].append((row, s, place, coefficient))
    if not frames:
        raise InputError("`observables` hold no structure: at least one `Energy`, `Force` or `Stress` is needed.")
    return on_batch(Batch.from_atoms(frames), entries, len(observables)), np.array([o.constant for o in observables])


def on_batch(batch: Batch, entries: dict[str, list[tuple[int, int, int, float]]], n: int) -> Functionals:
    """n functionals from {kind: [(functional, structure, place, coefficient)]}; places as in `Observable.terms`."""
    matrices = {}
    for kind, width in (("energy", 1), ("forces", 3), ("stress", 6)):
        row, s, place, c = (np.array(part) for part in zip(*entries[kind], strict=True)) if entries[kind] else [np.empty(0, int)] * 4
        column = 6 * s + place if kind == "stress" else width * batch.offsets[s] + place
        if kind == "energy" and len(row):
            sizes = np.where(place < 0, batch.sizes[s], 1)
            first = np.where(place < 0, batch.offsets[s], batch.offsets[s] + place)
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            row, c, column = np.repeat(row, sizes), np.repeat(c, sizes), np.repeat(first, sizes) + within
        shape = (n, 6 * len(batch) if kind == "stress" else width * batch.n_atoms)
        matrix = sparse.coo_array((c.astype(float), (row, column)), shape=shape).tocsr()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        matrices[kind] = matrix
    return Functionals(batch, matrices["energy"], matrices["forces"], matrices["stress"])
