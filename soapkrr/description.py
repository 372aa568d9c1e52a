"""Parameters of a SOAP and its kernel from species and distances in the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.choices import Choice
from soapkrr.descriptors.cutoff import RadialScaling
from soapkrr.structures import Batch, species_name, split_by_atoms

#: Structures from which distances are read, spread evenly over the data.
SAMPLE = 100

#: What can be given beside what is always chosen.
OF_DESCRIPTOR = ("cutoff", "rbf")


def described(frames: list[Atoms], given: Mapping) -> list[Choice]:
    """The descriptor's parameters and zeta, those given in place of those chosen."""
    chosen = [replace(c, value=given[c.name], reason="given") if c.name in given else c for c in describe(frames)]
    return chosen + [Choice(name, given[name], "given") for name in OF_DESCRIPTOR if name in given]


def describe(frames: list[Atoms]) -> list[Choice]:
    """The descriptor's parameters from species and distances."""
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    periodic = any(atoms.pbc.any() for atoms in frames)
    nearest = nearest_distance(some_of(frames))
    several, hydrogen = len(species) > 1, 1 in species
    if periodic:
        r_cut = float(np.clip(round(2.35 * nearest, 1), 4.0, 6.5))
        why = f"Å, 2.35 × {nearest:.2f} Å, the usual distance of nearest neighbours, within 4 and 6.5"
    else:
        r_cut, why = 6.0, "Å, molecules: nearly everything sees everything"
    scaling = RadialScaling(r0=3.0, m=4.0) if periodic else RadialScaling(r0=2.0, m=2.0)
    return [
        Choice("species", [species_name(z) for z in species], "in the data"),
        Choice("r_cut", r_cut, why),
        Choice("sigma", 0.4 if hydrogen else 0.5, "Å, with hydrogen" if hydrogen else "Å, without hydrogen"),
        Choice("n_max", 6 if several else 8, f"radial functions; {'fewer for several species' if several else 'more for one species'}"),
        Choice("l_max", 6, "angular functions"),
        Choice("scaling", scaling, "near neighbours count more"),
        Choice("zeta", 3 if several else 4, "softer for several species" if several else "sharper for one species"),
    ]


def some_of(frames: list[Atoms]) -> list[Atoms]:
    """`SAMPLE` structures or a few more, spread evenly."""
    return frames[:: max(1, len(frames) // SAMPLE)]


def nearest_distance(frames: list[Atoms]) -> float:
    """Median distance of an atom's nearest neighbour, Å; 3 where no atom has one within 8 Å."""
    shortest = []
    for first, group in split_by_atoms(frames, 4096):
        batch = Batch.from_atoms(group, first)
        pairs = batch.pairs(8.0)
        r = np.full(batch.n_atoms, np.inf)
        np.minimum.at(r, pairs.i, np.linalg.norm(pairs.vectors, axis=1))
        shortest.append(r[np.isfinite(r)])
    shortest = np.concatenate(shortest)
    return float(np.median(shortest)) if len(shortest) else 3.0
