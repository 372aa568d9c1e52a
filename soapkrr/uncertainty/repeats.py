"""Noise of labels, as structures that were calculated more than once show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from ase import Atoms

from soapkrr.errors import ModelFileError
from soapkrr.labels import KINDS
from soapkrr.regression import stored
from soapkrr.regression.leave_out import LeaveOut

#: Structures with repeated labels, beyond the first of each, from which their noise is estimated: one pair may be one mistake.
FEWEST = 3

#: Decimals of positions and cells (Å) to which structures are the same.
DECIMALS = 6

#: Where the noise of labels is known from.
GIVEN, REPEATED = "given", "structures that occur twice"


@dataclass(frozen=True)
class Noise:
    """Noise of the labels of one kind: σ (eV/√atom, eV/Å, eV/Å³) and where it is known from, ``"given"`` or `REPEATED`."""

    level: float
    source: str


def known_noise(given: Mapping[str, float], left: LeaveOut, frames: list[Atoms]) -> dict[str, Noise]:
    """{kind: `Noise`} of the kinds whose noise was given or, where not, whose labels were repeated."""
    repeated = {kind: Noise(level, REPEATED) for kind, level in repeated_noise(left, frames).items()}
    return {**repeated, **{kind: Noise(float(level), GIVEN) for kind, level in given.items()}}


def repeated_noise(left: LeaveOut, frames: list[Atoms]) -> dict[str, float]:
    """{kind: σ} of labels of structures that occur more than once with other labels.

    σ = 1.4826 × the median of |y − ȳ|·√(m/(m − 1)) over the labels of structures that occur m times; energies over √N. The median, for a
    mistaken label must not count as noise. Copies with the same labels are no second measurement.
    """
    first: dict[tuple, int] = {}
    same = np.array([first.setdefault(_content(atoms), s) for s, atoms in enumerate(frames)])
    if len(first) == len(frames):
        return {}
    found = {}
    for kind in KINDS:
        mine = left.of_kind(kind)
        scale = np.sqrt(left.sizes[mine.structure]) if kind == "energy" else np.ones(len(mine))
        deviations = _deviations(same[mine.structure], mine, mine.given / scale)
        if len(deviations):
            found[kind] = float(np.median(deviations) / NormalDist().inv_cdf(0.75))
    return found


def _content(atoms: Atoms) -> tuple:
    """Equal for equal structures."""
    numbers = [np.round(values, DECIMALS) + 0.0 for values in (atoms.positions, atoms.cell.array)]
    return tuple(part.tobytes() for part in (atoms.numbers, atoms.pbc, *numbers))


def _deviations(same: np.ndarray, left: LeaveOut, values: np.ndarray) -> np.ndarray:
    """|y − ȳ|·√(m/(m − 1)) of all labels that were repeated with other values; of too few structures nothing."""
    place = np.unique(np.column_stack([same, left.component]), axis=0, return_inverse=True)[1].ravel()
    _, chosen = np.unique(np.column_stack([place, values]), axis=0, return_index=True)
    place, values, structure = place[chosen], values[chosen], left.structure[chosen]
    m = np.bincount(place)
    again = m[place] > 1
    if len(np.unique(structure[again])) - len(np.unique(same[chosen][again])) < FEWEST:
        return values[:0]
    mean = np.bincount(place, values) / np.maximum(m, 1)
    return (np.abs(values - mean[place]) * np.sqrt(m / np.maximum(m - 1, 1))[place])[again]


def restored_noise(state, name: str) -> Noise:
    """From a model file."""
    given = stored.mapping(state, name)
    if given["source"] not in (GIVEN, REPEATED):
        raise ModelFileError(f"{name} is known from {given['source']!r}, expected one of {(GIVEN, REPEATED)}.")
    return Noise(stored.number(given["level"], f"{name}.level", positive=True), given["source"])
