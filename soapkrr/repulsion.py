"""Walls below the distances that a fitted potential knows: without them atoms pushed together may attract each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from soapkrr.baselines import CoreRepulsion
from soapkrr.baselines.core import onset
from soapkrr.baselines.zbl import unswitched
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.projection import Wrapper
from soapkrr.estimators.base import Potential

#: Where a wall starts, in units of the shortest distance in the data, and from where on a dimer's energy rises, in units of that.
START, RISES = 0.95, 0.98

#: Part of a pair's own shortest distance below which other pairs say nothing of it, where species share what is learnt.
SHARED = 0.9

#: Distances fewer than which say little of how close two species come, and where the wall then starts at most, in units of the bond length.
FEW, OF_BOND = 30, 0.8

#: Å beyond the covalent radius up to which an atom keeps others away, and the part of the sum of both where a wall starts at most.
BEYOND, OF_CONTACT = 0.8, 0.85

#: Steeper than needed.
SAFETY = 1.2


def repulsion(model: Potential) -> CoreRepulsion | None:
    """The wall that makes the energy of every dimer of a fitted model rise as its atoms approach; None where no distances are known.

    For each pair of species it starts at `START` × their shortest distance in the data, or below, so that no training structure feels it.
    Where species share what is learnt of them, every pair knows how close others come, in units of the sum of covalent radii: distances
    count as known down to the shortest of all pairs in these units, yet not below `SHARED` × the shortest of the pair itself.
    It is as steep as the ZBL energy at half that distance asks for, and steeper where the model's dimer attracts.
    """
    if model.domain_ is None:
        return None
    known = dict(model.domain_.shortest)
    if all(_shares(descriptor) for descriptor in model.process_.descriptors):
        least = min((shortest / _contact(name) for name, shortest in known.items()), default=np.inf)
        known = {name: max(SHARED * shortest, min(shortest, least * _contact(name))) for name, shortest in known.items()}
    distances = {name: _start(name, shortest, model.domain_.counts[name]) for name, shortest in known.items()}
    return CoreRepulsion(distances, {name: _stiffness(model, name, start) for name, start in distances.items()})


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


def _stiffness(model: Potential, name: str, start: float) -> float:
    """eV/Å²."""
    symbols = name.split("-")
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    least = float(unswitched(*numbers, np.array(start / 2))[0]) / (start / 2) ** 2
    r = start * np.linspace(RISES, 0.1, 60)
    dimers = [Atoms(symbols, positions=[[0, 0, 0], [0, 0, d]]) for d in r]
    attraction = -np.array([forces[1, 2] for forces in model.predict(dimers).forces])
    return float(f"{max(least, SAFETY * (attraction / -onset(np.full_like(r, start), r)[1]).max()):.3g}")
