"""Walls below the distances that a fitted potential knows: without them atoms pushed together may attract each other."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from soapkrr.baselines import CoreRepulsion
from soapkrr.baselines.core import onset
from soapkrr.baselines.zbl import unswitched
from soapkrr.estimators.base import Potential

#: Where a wall starts, in units of the shortest distance in the data, and from where on a dimer's energy rises, in units of that.
START, RISES = 0.95, 0.98

#: Distances fewer than which say little of how close two species come, and where the wall then starts at most, in units of the bond length.
FEW, OF_BOND = 30, 0.8

#: Å beyond the covalent radius up to which an atom keeps others away, and the part of the sum of both where a wall starts at most.
BEYOND, OF_CONTACT = 0.8, 0.85

#: Steeper than needed.
SAFETY = 1.2


def repulsion(model: Potential) -> CoreRepulsion | None:
    """The wall that makes the energy of every dimer of a fitted model rise as its atoms approach; None where no distances are known.

    For each pair of species it starts at `START` × their shortest distance in the data, or below, so that no training structure feels it.
    It is as steep as the ZBL energy at half that distance asks for, and steeper where the model's dimer attracts.
    """
    if model.domain_ is None:
        return None
    distances = {name: _start(name, shortest, model.domain_.counts[name]) for name, shortest in model.domain_.shortest.items()}
    return CoreRepulsion(distances, {name: _stiffness(model, name, start) for name, start in distances.items()})


def _start(name: str, shortest: float, count: int) -> float:
    """Å."""
    radii = [covalent_radii[atomic_numbers[symbol]] for symbol in name.split("-")]
    most = OF_BOND * sum(radii) if count < FEW else OF_CONTACT * (sum(radii) + 2 * BEYOND)
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
