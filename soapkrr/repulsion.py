"""Walls below the distances that a fitted potential knows: without them atoms pushed together may attract each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.special import ndtri

from soapkrr.baselines import CoreRepulsion
from soapkrr.baselines.base import total
from soapkrr.baselines.core import onset
from soapkrr.baselines.zbl import unswitched
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.projection import Wrapper
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.structures import Batch

#: Where a wall starts, in units of the shortest distance in the data, and from where on a dimer's energy rises, in units of that.
START, RISES = 0.95, 0.98

#: Part of a pair's own shortest distance below which other pairs say nothing of it, where species share what is learnt.
SHARED = 0.9

#: Distances fewer than which say little of how close two species come, and where the wall then starts at most, in units of the bond length.
FEW, OF_BOND = 30, 0.8

#: Å beyond the covalent radius up to which an atom keeps others away, and the part of the sum of both where a wall starts at most.
BEYOND, OF_CONTACT = 0.8, 0.85

#: Structures of which the shortest distance is that of structures to come. Of fewer, a wall starts so many standard deviations below the
#: mean of their shortest distances, as far as these are normally distributed, and at least at this part of the shortest.
ENOUGH, DEVIATIONS, LEAST_START = 50, 4.0, 0.7

#: Part of the ZBL energy at half the distance where a wall starts that makes a prior mean repulsion enough.
ENOUGH_OF_ZBL = 0.5

#: Steeper than needed.
SAFETY = 1.2


def repulsion(model: Potential, frames: Sequence[Atoms] = ()) -> CoreRepulsion | None:
    """The wall that makes the energy of every dimer of a fitted model rise as its atoms approach; None where no distances are known.

    For each pair of species it starts at `START` × their shortest distance in the data, or below, so that no training structure feels it.
    Where species share what is learnt of them, every pair knows how close others come, in units of the sum of covalent radii: distances
    count as known down to the shortest of all pairs in these units, yet not below `SHARED` × the shortest of the pair itself.
    It is as steep as the ZBL energy at half that distance asks for, unless a prior mean repels as much, and steeper where the model's
    dimer attracts. ``frames``: those of the fit; of few, walls start lower.
    """
    if model.domain_ is None:
        return None
    known = dict(model.domain_.shortest)
    if all(_shares(descriptor) for descriptor in model.process_.descriptors):
        least = min((shortest / _contact(name) for name, shortest in known.items()), default=np.inf)
        known = {name: max(SHARED * shortest, min(shortest, least * _contact(name))) for name, shortest in known.items()}
    distances = {name: _start(name, shortest, model.domain_.counts[name]) for name, shortest in known.items()}
    if len(frames) < ENOUGH:
        nearest = _nearest(frames, known)
        distances = {name: _start_of_few(start, nearest[name], known[name]) for name, start in distances.items()}
    stiffness = {name: _stiffness(model, name, start) for name, start in distances.items()}
    walls = {name: k for name, k in stiffness.items() if k > 0}
    return CoreRepulsion({name: distances[name] for name in walls}, walls) if walls else None


def _shares(descriptor: Descriptor) -> bool:
    """Whether what is learnt of neighbours of one species says something of those of others."""
    while isinstance(descriptor, Wrapper):
        descriptor = descriptor.descriptor
    return isinstance(descriptor, CompressedSOAP) and (descriptor.embedding is not None or descriptor.compression in ("mu1nu1", "mu2"))


def _contact(name: str) -> float:
    """Sum of covalent radii of both species, Å."""
    return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in name.split("-")))


def _start(name: str, shortest: float, count: int) -> float:
    """Å."""
    contact = _contact(name)
    most = OF_BOND * contact if count < FEW else OF_CONTACT * (contact + 2 * BEYOND)
    return float(f"{min(START * shortest, most):.4g}")


def _nearest(frames: Sequence[Atoms], known: Mapping[str, float]) -> dict[str, np.ndarray]:
    """For each pair of species, its shortest distance in every structure that has it within twice the shortest of all, and 4 Å; Å."""
    within = {name: min(2 * shortest, 4.0) for name, shortest in known.items()}
    found: dict[str, list[float]] = {name: [] for name in known}
    for atoms in frames:
        pairs = Batch.from_atoms([atoms]).close_pairs(max(within.values()))
        first, second, r = atoms.numbers[pairs.i], atoms.numbers[pairs.j], np.linalg.norm(pairs.vectors, axis=1)
        for name, radius in within.items():
            a, b = (atomic_numbers[symbol] for symbol in name.split("-"))
            mine = r[(first == a) & (second == b) & (r < radius)]
            found[name] += [mine.min()] if len(mine) else []
    return {name: np.array(distances) for name, distances in found.items()}


def _start_of_few(start: float, nearest: np.ndarray, shortest: float) -> float:
    """Å; the shortest of n draws is expected Φ⁻¹(1 − 1/(n + 1)) standard deviations below their mean."""
    n = len(nearest)
    if not 2 <= n < ENOUGH:
        return start
    expected = nearest.mean() - DEVIATIONS / ndtri(1 - 1 / (n + 1)) * (nearest.mean() - nearest.min())
    return float(f"{min(start, max(expected, LEAST_START * shortest)):.4g}")


def _rise(model: Potential, symbols: list[str], distance: float) -> float:
    """How much higher prior means alone put a dimer at half the ``distance``, eV."""
    batch = Batch.from_atoms([Atoms(symbols, positions=[[0, 0, 0], [0, 0, d]]) for d in (distance, distance / 2)])
    try:
        whole, half = total(model.prior_means_, batch).energies.reshape(2, 2).sum(axis=1)
    except InputError:  # it asks for more than atoms, such as their charges, and says nothing of a dimer
        return 0.0
    return float(half - whole)


def _pulls(model: Potential, dimers: list[Atoms]) -> np.ndarray:
    """(n,) attraction, eV/Å; of what is learnt alone where prior means say nothing of dimers."""
    try:
        forces = np.stack(model.predict(dimers).forces)
    except InputError:
        forces = model.process_.evaluate(Batch.from_atoms(dimers), frozenset())[0].forces.reshape(-1, 2, 3)
    return -forces[:, 1, 2]


def _stiffness(model: Potential, name: str, start: float) -> float:
    """eV/Å²."""
    symbols = name.split("-")
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    needed = float(unswitched(*numbers, np.array(start / 2))[0])
    least = 0.0 if _rise(model, symbols, start) > ENOUGH_OF_ZBL * needed else needed / (start / 2) ** 2
    r = start * np.linspace(RISES, 0.1, 60)
    dimers = [Atoms(symbols, positions=[[0, 0, 0], [0, 0, d]]) for d in r]
    return float(f"{max(least, 0.0, SAFETY * (_pulls(model, dimers) / -onset(np.full_like(r, start), r)[1]).max()):.3g}")
