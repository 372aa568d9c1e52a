"""Directions of fastest extrapolation: the smallest displacements that take an atom's surroundings out of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from ase import Atoms
from sklearn.covariance import ledoit_wolf

from soapkrr.active.asking import held
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.estimators.base import Potential
from soapkrr.structures import Batch, as_frames, species_name
from soapkrr.uncertainty.novelty import ALARMS

#: Steps of the search, longest of them, Å, and what is near enough, relative to the threshold.
STEPS, LONGEST, NEAR = 25, 0.15, 1e-3

#: Parts of the structures that are left out in turn, and eigenvalues of a covariance below this part of the largest.
PARTS, FLOOR = 5, 1e-10

#: Atoms whose descriptors differ by no more than this part of their length are alike.
ALIKE = 1e-6


def extrapolations(
    model: Potential,
    atoms: Atoms,
    n: int | None = None,
    *,
    threshold: float = 1.0,
    within: float = 0.5,
    data: list[Atoms] | None = None,
) -> Iterator[Atoms]:
    """Structures worth computing: for one atom after the other the smallest displacement that takes its surroundings out of the data.

    The novelty of an atom is the Mahalanobis distance of its descriptor from those of the training atoms of its species,

        ν_i = |C^−½ (x_i − μ)|/τ,   ∂ν_i/∂r_a = (x_i − μ)ᵀ C⁻¹ (∂x_i/∂r_a)/(ν_i τ²),

    C their covariance, shrunk as Ledoit and Wolf do (2004, doi 10.1016/S0047-259X(03)00096-4), and τ what one in a hundred training atoms
    exceeds that was left out. It does not depend on how a model shares energy among atoms, as standard deviations of their energies do.
    The displacement d of all atoms solves min |d|² with ν_i(d) = ``threshold`` by d ← g (threshold − ν_i + g·d)/|g|², g = ∂ν_i/∂r
    (Rackwitz and Fiessler 1978, doi 10.1016/0045-7949(78)90046-9), and is then made just long enough. It turns with the structure, does
    not move it as a whole, and leaves fixed atoms (`FixAtoms`).

    Parameters
    ----------
    model : a fitted potential.  atoms : where to begin, a structure that the model knows.
    n : structures at most; None: one for every atom that is not like another.
    threshold : novelty to reach.  within : longest way of an atom, Å; an atom that needs more gives no structure.
    data : structures whose atoms say what is known; None: those of an exact process.

    Yields
    ------
    ase.Atoms : in order of the first estimate of the length of d, (threshold − ν)/√(g·g), with info: ``extrapolating_atom``, ``novelty``
        (at least ``threshold``) and ``displacement`` (the length of d, Å; 0 where the atom is out of the data as it is).

    Raises
    ------
    InputError : a parameter is out of range, a species is unknown, every atom is fixed, or ``data`` are needed.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SOAP, DotProduct, GaussianProcess, extrapolations
    >>> frames = [bulk("Cu", cubic=True) for _ in range(4)]
    >>> for seed, known in enumerate(frames):
    ...     known.rattle(0.03, seed=seed)
    ...     known.calc = EMT()
    ...     _ = known.get_forces()
    >>> model = GaussianProcess(SOAP(["Cu"], r_cut=4.0, n_max=4, l_max=3), DotProduct(zeta=2)).fit(frames)
    >>> found = next(extrapolations(model, frames[0], threshold=1.2))
    >>> found.info["novelty"] >= 1.2 and found.info["displacement"] > 0
    True
    """
    require_positive(threshold=threshold, within=within)
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral) or n < 1):
        raise InputError(f"`n` must be a positive integer or None, received {n!r}.")
    if not isinstance(atoms, Atoms):
        raise InputError(f"`atoms` must be `ase.Atoms`, received {type(atoms).__name__}.")
    if held(atoms).all():
        raise InputError("`atoms`: constraints fix every atom, no displacement is left.")
    edge = Edge.of(model, atoms, data)
    return _structures(edge, atoms.copy(), len(atoms) if n is None else int(n), float(threshold), float(within))


def _structures(edge: Edge, atoms: Atoms, n: int, threshold: float, within: float) -> Iterator[Atoms]:
    starts = []
    for i in _distinct(edge, atoms):
        novelty, slope = edge.slope(atoms, i)
        length = float(np.linalg.norm(slope))
        if novelty >= threshold or length > 0:
            starts.append((max(threshold - novelty, 0.0) / length if length > 0 else 0.0, i))
    for _, i in sorted(starts):
        way = _shortest(edge, atoms, i, threshold, within)
        if way is None:
            continue
        found = _moved(atoms, way)
        found.info |= {"extrapolating_atom": i, "novelty": float(edge.novelty(found)[i]), "displacement": float(np.linalg.norm(way))}
        yield found
        n -= 1
        if n == 0:
            return


def _distinct(edge: Edge, atoms: Atoms) -> list[int]:
    """One atom of each kind of surroundings."""
    X = edge.values(atoms)
    chosen: list[int] = []
    for i in range(len(atoms)):
        near = ALIKE * np.linalg.norm(X[i])
        if not any(atoms.numbers[i] == atoms.numbers[j] and np.linalg.norm(X[i] - X[j]) <= near for j in chosen):
            chosen.append(i)
    return chosen


def _shortest(edge: Edge, atoms: Atoms, i: int, threshold: float, within: float) -> np.ndarray | None:
    """(n_atoms, 3) the smallest displacement of novelty ``threshold`` or more; None where it is longer than ``within``."""
    way = np.zeros_like(atoms.positions)
    for _ in range(STEPS):
        novelty, slope = edge.slope(_moved(atoms, way), i)
        if not way.any() and novelty >= threshold:
            return way
        square = float(np.sum(slope**2))
        if square == 0:
            return None
        step = slope * (threshold - novelty + np.sum(slope * way)) / square - way
        length = float(np.linalg.norm(step))
        way = way + step * min(1.0, LONGEST / length) if length else way
        if _longest(way) > 2 * within:
            return None
        if length < NEAR and abs(novelty - threshold) < NEAR * threshold:
            break
    return _long_enough(edge, atoms, i, threshold, within, way)


def _long_enough(edge: Edge, atoms: Atoms, i: int, threshold: float, within: float, way: np.ndarray) -> np.ndarray | None:
    """The same direction, just so long that the threshold is reached."""

    def reached(factor: float) -> bool:
        return bool(edge.novelty(_moved(atoms, factor * way))[i] >= threshold)

    if not way.any():
        return None
    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 1.02 * high
        if _longest(high * way) > within:
            return None
    low = max(low, 0.95 * high) if not reached(0.95 * high) else low
    for _ in range(8):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high * way if _longest(high * way) <= within else None


def _longest(way: np.ndarray) -> float:
    return float(np.linalg.norm(way, axis=1).max())


def _moved(atoms: Atoms, way: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.set_positions(atoms.positions + way, apply_constraint=False)
    return moved


@dataclass(frozen=True, eq=False)
class Cloud:
    """Descriptors of the training atoms of one species: ν(x) = |W(x − μ)|/τ, WᵀW = C⁻¹.

    Attributes
    ----------
    mean : μ (d,).  whitening : W (d, d).  threshold : τ.
    """

    mean: np.ndarray
    whitening: np.ndarray
    threshold: float

    @classmethod
    def of(cls, X: np.ndarray, structure: np.ndarray) -> Cloud:
        """Of descriptors (n, d) and the structures that they are of; τ by parts of the structures left out, where there are two or more."""
        parts = [part for part in np.array_split(np.unique(structure), PARTS) if len(part)]
        left = [np.isin(structure, part) for part in parts] if len(parts) > 1 else []
        distances = [np.linalg.norm((X[out] - X[~out].mean(axis=0)) @ _whitening(X[~out]).T, axis=1) for out in left]
        mean, whitening = X.mean(axis=0), _whitening(X)
        if not left:
            distances = [np.linalg.norm((X - mean) @ whitening.T, axis=1)]
        return cls(mean, whitening, max(float(np.quantile(np.concatenate(distances), 1 - ALARMS)), 1e-9))

    def novelty(self, X: np.ndarray) -> np.ndarray:
        """(n,) of descriptors (n, d)."""
        return np.linalg.norm((X - self.mean) @ self.whitening.T, axis=1) / self.threshold

    def slope(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """ν and ∂ν/∂x (d,) of one descriptor; zero at the mean."""
        white = self.whitening @ (x - self.mean)
        length = float(np.linalg.norm(white))
        return length / self.threshold, self.whitening.T @ white / (max(length, 1e-300) * self.threshold)


def _whitening(X: np.ndarray) -> np.ndarray:
    """W of the shrunk covariance of descriptors."""
    values, vectors = np.linalg.eigh(ledoit_wolf(X)[0] if len(X) > 1 else np.zeros((X.shape[1],) * 2))
    return vectors.T / np.sqrt(np.maximum(values, max(FLOOR * values.max(), FLOOR**2)))[:, None]


@dataclass(frozen=True, eq=False)
class Edge:
    """The edge of the data: novelties of atoms, and their gradients.

    Attributes
    ----------
    descriptors : those of the model, each divided by its ``scale``, the root mean square of its length in the data.
    clouds : {atomic number: `Cloud`}.
    """

    descriptors: tuple[Descriptor, ...]
    scale: np.ndarray
    clouds: Mapping[int, Cloud]

    @classmethod
    def of(cls, model: Potential, atoms: Atoms, data: list[Atoms] | None) -> Edge:
        """Of the structures of an exact process, or of ``data``; raises `InputError` where there are none, or not of all species."""
        known = data if data is not None else getattr(getattr(model.process_, "structures", None), "frames", None)
        if known is None:
            raise InputError("`data` are needed: only exact processes keep the structures that they were fitted to; give these.")
        batch, descriptors = Batch.from_atoms(as_frames(known)), tuple(model.process_.descriptors)
        unknown = sorted({species_name(z) for z in set(atoms.numbers) - set(batch.numbers)})
        if unknown:
            raise InputError(f"`atoms` have {unknown}, which the data have not.")
        X = [descriptor.environments(batch, np).X for descriptor in descriptors]
        scale = np.array([np.sqrt(np.mean(np.einsum("nd,nd->n", x, x))) or 1.0 for x in X])
        joined = np.hstack([x / s for x, s in zip(X, scale, strict=True)])
        kinds = {int(z): batch.numbers == z for z in np.unique(batch.numbers)}
        return cls(descriptors, scale, {z: Cloud.of(joined[mine], batch.structure[mine]) for z, mine in kinds.items()})

    def values(self, atoms: Atoms) -> np.ndarray:
        """(n_atoms, d) descriptors, one after the other, in units of their scales."""
        batch = Batch.from_atoms([atoms])
        return np.hstack([d.environments(batch, np).X / s for d, s in zip(self.descriptors, self.scale, strict=True)])

    def novelty(self, atoms: Atoms) -> np.ndarray:
        """(n_atoms,)."""
        X, found = self.values(atoms), np.empty(len(atoms))
        for z in np.unique(atoms.numbers):
            found[atoms.numbers == z] = self.clouds[int(z)].novelty(X[atoms.numbers == z])
        return found

    def slope(self, atoms: Atoms, i: int) -> tuple[float, np.ndarray]:
        """Novelty of atom i and its gradient (n_atoms, 3) by positions, 1/Å, zero for fixed atoms."""
        batch = Batch.from_atoms([atoms])
        seen = [descriptor.environments(batch, np) for descriptor in self.descriptors]
        values = [env.block(i, i + 1) for env in seen]
        x = np.concatenate([X[0] / s for (X, _), s in zip(values, self.scale, strict=True)])
        novelty, of_x = self.clouds[int(atoms.numbers[i])].slope(x)
        bounds, gradient = np.cumsum([0] + [d.n_features for d in self.descriptors]), np.zeros((len(atoms), 3))
        for env, known, s, first, last in zip(seen, values, self.scale, bounds, bounds[1:], strict=False):
            of_pairs = np.zeros_like(env.gradient())
            env.pull_back(i, i + 1, known, of_x[None, first:last] / s, of_pairs)
            gradient -= env.forces_and_strain(of_pairs)[0]
        gradient[held(atoms)] = 0.0
        return novelty, gradient
