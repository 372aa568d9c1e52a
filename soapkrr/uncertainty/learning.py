"""A calibration from left-out labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from soapkrr.errors import InputError
from soapkrr.labels import Observations
from soapkrr.labels.lookup import stated_types
from soapkrr.regression.leave_out import LeaveOut
from soapkrr.regression.process import Process
from soapkrr.structures import Batch, split_by_atoms
from soapkrr.uncertainty.calibration import Calibration, projections
from soapkrr.uncertainty.conformal import ALL, cells_of
from soapkrr.uncertainty.novelty import Neighbourhood
from soapkrr.uncertainty.repeats import known_noise
from soapkrr.uncertainty.scales import ENDS, LEAST, ONE_STD, ForceScale, TotalScale, anisotropy, learnt_weights, root_mean
from soapkrr.uncertainty.shift import log_novelty

#: Atoms described at once.
GROUP = 1024

#: Errors, and components of forces, below this vanish by symmetry: they say nothing of others, eV/Å.
VANISHING = 1e-5

#: The same of components of the stress, eV/Å³.
VANISHING_STRESS = 1e-7

#: Atoms of a species from which the principal components are found; principal components at most, and atoms for each of them.
SAMPLE, COMPONENTS, ATOMS_EACH = 500, 20, 25

#: Atoms of a species whose errors are fitted; more say the same.
FITTED = 6000

#: Atoms with forces that say something below which errors are taken as the posterior says.
FEWEST = 20

#: Part of the atoms of largest posterior standard deviation, which say how large errors are then.
TOP = 0.1


def learnt(
    left: LeaveOut,
    frames: list[Atoms],
    process: Process,
    energies_std: list[np.ndarray],
    noise: Mapping[str, float],
    observations: Observations | None = None,
) -> Calibration:
    """Sizes of errors and their scores, from every label as predicted without its own structure.

    ``energies_std`` : posterior standard deviations of the atoms' energies.  ``noise`` : of labels, where it was stated.
    ``observations`` names the configuration types.

    Raises
    ------
    InputError : there are no left-out labels.
    """
    if not len(left):
        raise InputError("there are no labels to calibrate on: energies of more than isolated atoms, forces or stresses are needed.")
    types = stated_types(frames, observations)
    totals, scores = {}, {}
    for kind in ("energy", "stress"):
        mine = left.of_kind(kind)
        if kind == "stress":
            mine = mine.some(np.maximum(np.abs(mine.error), np.abs(mine.mean)) > VANISHING_STRESS)
        if len(mine):
            n = left.sizes[mine.structure] if kind == "energy" else np.ones(len(mine))
            totals[kind] = TotalScale.learnt(mine.error, mine.std, n)
            score, everything = np.abs(mine.error) / totals[kind](mine.std, n), np.full(len(mine), ALL)
            scores[kind] = cells_of(score, everything, mine.structure, types[mine.structure], log_novelty(mine.std / np.sqrt(n)))
    forces, known, places = _forces(left.of_kind("forces"), frames, process, np.concatenate(energies_std), types)
    return Calibration(totals, forces, scores | known, places, known_noise(noise, left, frames))


@dataclass(frozen=True, eq=False)
class ForceErrors:
    """Left-out forces of atoms, all three components known.

    Attributes
    ----------
    error, std, mean : (n, 3) eV/Å.  atom : (n,) index, counted through all structures.  structure : (n,).
    """

    error: np.ndarray
    std: np.ndarray
    mean: np.ndarray
    atom: np.ndarray
    structure: np.ndarray

    @classmethod
    def of(cls, left: LeaveOut, starts: np.ndarray) -> ForceErrors:
        """Of left-out force components; starts: index of the first atom of each structure."""
        atom = starts[left.structure] + left.component // 3
        atoms, counts = np.unique(atom, return_counts=True)
        whole = np.isin(atom, atoms[counts == 3])
        rows = [getattr(left, name)[whole].reshape(-1, 3) for name in ("error", "std", "mean")]
        return cls(*rows, atom[whole].reshape(-1, 3)[:, 0], left.structure[whole].reshape(-1, 3)[:, 0])

    def some(self, chosen: np.ndarray) -> ForceErrors:
        """Those of some atoms."""
        return ForceErrors(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def live(self) -> np.ndarray:
        """(n, 3) components that do not vanish by symmetry."""
        return np.maximum(np.abs(self.error), np.abs(self.mean)) > VANISHING


def _forces(left: LeaveOut, frames: list[Atoms], process: Process, energies_std: np.ndarray, types: np.ndarray) -> tuple[dict, dict, dict]:
    """{symbol: scale}, {"forces" and "balls": scores} and {symbol: surroundings}."""
    numbers, sizes = np.concatenate([atoms.numbers for atoms in frames]), np.array([len(atoms) for atoms in frames])
    structure, starts = np.repeat(np.arange(len(frames)), sizes), np.cumsum(sizes) - sizes
    errors, flats = ForceErrors.of(left, starts), _flat_scales(frames, process, numbers)
    projected = _projected(flats, frames, process)
    scales, places, scores = {}, {}, {"forces": [], "balls": []}
    for symbol, flat in flats.items():
        own, y = np.flatnonzero(numbers == atomic_numbers[symbol]), projected[symbol]
        mine = errors.some(numbers[errors.atom] == atomic_numbers[symbol])
        scales[symbol], size = _scale(flat, mine, y[np.searchsorted(own, mine.atom)])
        some, live = mine.live.any(axis=1), mine.live
        norms = np.linalg.norm(size, axis=1)
        place = Neighbourhood.learnt(y, structure[own], own - starts[structure[own]], energies_std[own], norms[some])
        columns = (np.full(len(live), symbol), mine.structure, types[mine.structure], log_novelty(norms / place.force))
        scores["forces"].append([(np.abs(mine.error) / size)[live], *(np.repeat(x, live.sum(axis=1)) for x in columns)])
        scores["balls"].append([x[some] for x in (np.linalg.norm(mine.error, axis=1) / norms, *columns)])
        places[symbol] = place
    joined = {kind: [np.concatenate(column) for column in zip(*parts, strict=True)] for kind, parts in scores.items()}
    return scales, {kind: cells_of(*columns) for kind, columns in joined.items() if len(columns[0])}, places


def _flat_scales(frames: list[Atoms], process: Process, numbers: np.ndarray) -> dict[str, ForceScale]:
    """{symbol: a scale that says what the posterior says, with the principal components of the descriptors of a species}."""
    chosen = np.zeros(len(numbers), dtype=bool)
    for z in np.unique(numbers):
        mine = np.flatnonzero(numbers == z)
        chosen[mine[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), SAMPLE)).astype(int))]] = True
    rows, first_atom = [], 0
    for first, group in split_by_atoms(frames, GROUP):
        batch = Batch.from_atoms(group, first)
        here = np.flatnonzero(chosen[first_atom : first_atom + batch.n_atoms])
        first_atom += batch.n_atoms
        if len(here):
            rows.append(process.descriptors[0].environments(batch, np).X[here])
    X, kinds = np.concatenate(rows), numbers[chosen]
    return {chemical_symbols[z]: _flat(X[kinds == z], int((numbers == z).sum())) for z in np.unique(numbers)}


def _flat(X: np.ndarray, n: int) -> ForceScale:
    """From descriptors of some of n atoms."""
    centre = X.mean(axis=0)
    _, values, axes = np.linalg.svd(X - centre, full_matrices=False)
    k = int(min(COMPONENTS, max(n // ATOMS_EACH, 1), (values > 1e-8 * values[0]).sum())) if values[0] > 0 else 0
    spread = values[0] / np.sqrt(len(X)) if k else 1.0
    limits, weights = np.array([np.full(3 + k, -50.0), np.full(3 + k, 50.0)]), np.zeros(3 + k)
    weights[1] = 1.0
    return ForceScale(centre, np.ascontiguousarray(axes[:k].T / spread), limits, weights, VANISHING, 1.0, 0.0, 1.0)


def _projected(scales: Mapping[str, ForceScale], frames: list[Atoms], process: Process) -> dict[str, np.ndarray]:
    """{symbol: (n, k) projected descriptors of all its atoms, in order}."""
    parts = [projections(scales, process, Batch.from_atoms(group, first)) for first, group in split_by_atoms(frames, GROUP)]
    return {symbol: np.concatenate([part[symbol] for part in parts if symbol in part]) for symbol in scales}


def _scale(flat: ForceScale, errors: ForceErrors, y: np.ndarray) -> tuple[ForceScale, np.ndarray]:
    """The scale of the errors of a species, that of the posterior where they are too few; and their expected sizes (n, 3)."""
    live = np.flatnonzero(errors.live.any(axis=1))
    shaped = flat if len(live) < FEWEST else _shaped(flat, errors, y, live)
    size = shaped(errors.std, errors.mean, y, np.zeros(len(y)))
    if len(live) < FEWEST:
        return shaped, size
    unit = max(float(np.quantile((np.abs(errors.error) / size)[errors.live], ONE_STD)), 1e-6)
    return replace(shaped, unit=unit), unit * size


def _shaped(flat: ForceScale, errors: ForceErrors, y: np.ndarray, live: np.ndarray) -> ForceScale:
    """The scale of highest likelihood of the errors of some atoms, but for its unit."""
    live = live[np.unique(np.linspace(0, len(live) - 1, min(len(live), FITTED)).astype(int))]
    errors, y = errors.some(live), y[live]
    typical, lengths = root_mean(errors.std), np.linalg.norm(errors.mean, axis=1)
    shaped = replace(flat, offset=max(0.01 * float(np.median(typical)), 1e-9), force=max(float(np.median(lengths)), VANISHING))
    columns = shaped.columns(errors.std, errors.mean, y)
    limits = np.quantile(columns, [ENDS, 1 - ENDS], axis=0)
    weights = learnt_weights(np.clip(columns, *limits), (errors.error / anisotropy(errors.std)) ** 2, errors.structure)
    top = typical >= np.quantile(typical, 1 - TOP)
    least = LEAST * float(np.median(root_mean(errors.error)[top] / np.maximum(typical[top], 1e-12)))
    return replace(shaped, limits=limits, weights=weights, least=least)
