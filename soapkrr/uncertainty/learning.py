"""A calibration from left-out labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from soapkrr.errors import InputError
from soapkrr.regression.leave_out import LeaveOut
from soapkrr.regression.process import Process
from soapkrr.structures import Batch, split_by_atoms
from soapkrr.uncertainty.calibration import Calibration, projections
from soapkrr.uncertainty.conformal import ALL, Scores, cells_of
from soapkrr.uncertainty.novelty import Neighbourhood
from soapkrr.uncertainty.scales import ENDS, LEAST, ONE_STD, ForceScale, TotalScale, anisotropy, learnt_weights, root_mean

#: Errors, and components of forces, below this vanish by symmetry: they say nothing of others, eV/Å.
VANISHING = 1e-5

#: Atoms of a species from which the principal components are found; principal components at most, and atoms for each of them.
SAMPLE, COMPONENTS, ATOMS_EACH = 500, 20, 25

#: Atoms of a species whose errors are fitted; more say the same.
FITTED = 6000

#: Atoms with forces that say something below which errors are taken as the posterior says.
FEWEST = 20

#: Part of the atoms of largest posterior standard deviation, which say how large errors are then.
TOP = 0.1


def learnt(
    left: LeaveOut, frames: list[Atoms], process: Process, energies_std: list[np.ndarray], noise: Mapping[str, float]
) -> Calibration:
    """Sizes of errors and their scores, from every label as predicted without its own structure.

    ``energies_std`` : posterior standard deviations of the atoms' energies.  ``noise`` : of labels, where it is known.

    Raises
    ------
    InputError : there are no left-out labels.
    """
    if not len(left):
        raise InputError("there are no labels to calibrate on: energies of more than isolated atoms, forces or stresses are needed.")
    totals, scores = {}, {}
    for kind in ("energy", "stress"):
        mine = left.of_kind(kind)
        if len(mine):
            n = left.sizes[mine.structure] if kind == "energy" else np.ones(len(mine))
            totals[kind] = TotalScale.learnt(mine.error, mine.std, n)
            scores[kind] = {ALL: Scores.of(np.abs(mine.error) / totals[kind](mine.std, n))}
    forces, known, places = _forces(left.of_kind("forces"), frames, process, np.concatenate(energies_std))
    return Calibration(totals, forces, scores | known, places, dict(noise))


def _forces(left: LeaveOut, frames: list[Atoms], process: Process, energies_std: np.ndarray) -> tuple[dict, dict, dict]:
    """{symbol: scale}, {"forces" and "balls": scores} and {symbol: surroundings}."""
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    sizes = np.array([len(atoms) for atoms in frames])
    structure, starts = np.repeat(np.arange(len(frames)), sizes), np.cumsum(sizes) - sizes
    # Atoms with a force of three known components.
    label = starts[left.structure] + left.component // 3
    atoms, counts = np.unique(label, return_counts=True)
    whole = np.isin(label, atoms[counts == 3])
    error, std, mean = (getattr(left, name)[whole].reshape(-1, 3) for name in ("error", "std", "mean"))
    labelled = label[whole].reshape(-1, 3)[:, 0]
    scales, places, scores, balls, cells, ball_cells = {}, {}, [], [], [], []
    for z in np.unique(numbers):
        symbol, of_species = chemical_symbols[z], np.flatnonzero(numbers == z)
        flat = _projection(frames, process, int(z), len(of_species))
        y = projections({symbol: flat}, process, Batch.from_atoms(frames))[symbol]
        mine = np.flatnonzero(numbers[labelled] == z)
        own = y[np.searchsorted(of_species, labelled[mine])]
        scale = _scale(flat, error[mine], std[mine], mean[mine], own, structure[labelled[mine]])
        size = scale(std[mine], mean[mine], own, np.zeros(len(mine)))
        live = np.maximum(np.abs(error[mine]), np.abs(mean[mine])) > VANISHING
        if live.any():
            unit = float(np.quantile((np.abs(error[mine]) / size)[live], ONE_STD)) if live.any(axis=1).sum() >= FEWEST else 1.0
            scale, size = replace(scale, unit=max(unit, 1e-6)), size * max(unit, 1e-6)
            scores.append((np.abs(error[mine]) / size)[live])
            balls.append((np.linalg.norm(error[mine], axis=1) / np.linalg.norm(size, axis=1))[live.any(axis=1)])
            cells.append(np.full(len(scores[-1]), symbol))
            ball_cells.append(np.full(len(balls[-1]), symbol))
        own_structure = structure[of_species]
        places[symbol] = Neighbourhood.learnt(
            y, own_structure, of_species - starts[own_structure], energies_std[of_species], np.linalg.norm(size[live.any(axis=1)], axis=1)
        )
        scales[symbol] = scale
    if not scores:
        return scales, {}, places
    known = {"forces": cells_of(np.concatenate(scores), np.concatenate(cells))}
    return scales, known | {"balls": cells_of(np.concatenate(balls), np.concatenate(ball_cells))}, places


def _projection(frames: list[Atoms], process: Process, z: int, n: int) -> ForceScale:
    """A scale that says what the posterior says, with the principal components of the descriptors of a species."""
    chosen = set(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int).tolist())
    X, seen = [], 0
    for first, group in split_by_atoms(frames, 1024):
        batch = Batch.from_atoms(group, first)
        mine = np.flatnonzero(batch.numbers == z)
        here = [mine[k] for k in range(len(mine)) if seen + k in chosen]
        seen += len(mine)
        if here:
            X.append(process.descriptors[0].environments(batch, np).X[here])
    X = np.concatenate(X)
    centre = X.mean(axis=0)
    _, values, axes = np.linalg.svd(X - centre, full_matrices=False)
    k = int(min(COMPONENTS, max(n // ATOMS_EACH, 1), (values > 1e-8 * values[0]).sum())) if values[0] > 0 else 0
    spread = values[0] / np.sqrt(len(X)) if k else 1.0
    weights = np.zeros(3 + k)
    weights[1] = 1.0
    limits = np.array([np.full(3 + k, -50.0), np.full(3 + k, 50.0)])
    return ForceScale(centre, np.ascontiguousarray(axes[:k].T / spread), limits, weights, VANISHING, 1.0, 0.0, 1.0)


def _scale(flat: ForceScale, error, sigma, forces, y, structure) -> ForceScale:
    """The scale of the errors of a species; that of the posterior where they are too few."""
    live = np.flatnonzero((np.maximum(np.abs(error), np.abs(forces)) > VANISHING).any(axis=1))
    if len(live) < FEWEST:
        return flat
    live = live[np.unique(np.linspace(0, len(live) - 1, min(len(live), FITTED)).astype(int))]
    error, sigma, forces, y, structure = error[live], sigma[live], forces[live], y[live], structure[live]
    typical = root_mean(sigma)
    offset, force = max(0.01 * float(np.median(typical)), 1e-9), max(float(np.median(np.linalg.norm(forces, axis=1))), VANISHING)
    shaped = replace(flat, offset=offset, force=force)
    columns = shaped.columns(sigma, forces, y)
    limits = np.quantile(columns, [ENDS, 1 - ENDS], axis=0)
    weights = learnt_weights(np.clip(columns, *limits), error**2 / anisotropy(sigma) ** 2, structure)
    top = typical >= np.quantile(typical, 1 - TOP)
    least = LEAST * float(np.median(root_mean(error)[top] / np.maximum(typical[top], 1e-12)))
    return replace(shaped, limits=limits, weights=weights, least=least)
