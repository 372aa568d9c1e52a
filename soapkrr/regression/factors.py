"""Triangles of the design rows of sparse terms: made group of structures by group, merged as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines import baseline_energies
from soapkrr.errors import InputError
from soapkrr.labels import Labels, stacked
from soapkrr.parallel import halving, thread_map
from soapkrr.progress import track
from soapkrr.regression.data import TrainingData
from soapkrr.regression.design import DesignRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, split_by_atoms


def factors_of(
    terms: list[SparseTerm], data: TrainingData, threads: int | None, progress: bool, atoms: int | None = None
) -> tuple[dict, dict]:
    """{kind: triangle of [Φ | y]} of all structures, and {kind: number of rows}; by groups of ``atoms`` (None: `group_atoms`)."""

    def rows(group):
        first, group = group
        return design_factors(terms, group, data.labels[first : first + len(group)], data.references, first)

    groups = list(split_by_atoms(data.frames, atoms or group_atoms(sum(t.rank for t in terms))))
    factors, counts = {}, {}
    parts = thread_map(lambda group: halving(rows, group, halves), groups, threads)
    for part in track(parts, len(groups), "design rows", progress):
        for kind, (factor, n) in (item for half in part for item in half.items()):
            factors[kind] = linear.merge([factors[kind], factor]) if kind in factors else factor
            counts[kind] = counts.get(kind, 0) + n
    return factors, counts


def group_atoms(rank: int) -> int:
    """Atoms of a group whose forces are about twice as many rows as there are columns."""
    return max(128, 2 * rank // 3)


def halves(group: tuple[int, list[Atoms]]) -> tuple:
    """The structures of a group, (index of the first, structures), as two groups."""
    first, frames = group
    if len(frames) < 2:
        raise InputError(
            f"frame {first}: the memory of the GPU does not hold the design rows of its {len(frames[0])} atoms; use fewer sparse points."
        )
    middle = len(frames) // 2
    return (first, frames[:middle]), (first + middle, frames[middle:])


def rescaled(terms: list[SparseTerm], factors: Mapping[str, np.ndarray], signals) -> tuple[list[SparseTerm], dict[str, np.ndarray]]:
    """Terms with other signals, and their triangles' columns scaled to match."""
    columns = np.concatenate([np.full(t.rank, new / t.signal) for t, new in zip(terms, signals, strict=True)] + [[1.0]])
    return [replace(t, signal=s) for t, s in zip(terms, signals, strict=True)], {kind: f * columns for kind, f in factors.items()}


def design_factors(terms: list[SparseTerm], frames: list[Atoms], labels: list[Labels], references, first: int) -> dict:
    """{kind: (triangle of [Φ | y], number of rows)} of a group of structures; energies are per atom times √N.

    Rows are multiplied by noise/σ where they have a σ of their own (`Labels.scale`); components without a label have no row.
    """
    batch = Batch.from_atoms(frames, first)
    designs = [DesignRows(term, batch, first) for term in terms]
    parts = {}

    def add(kind, rows_of, targets, scale):
        keep = np.isfinite(targets)
        if not keep.any():
            return
        table, start = np.empty((np.count_nonzero(keep), sum(t.rank for t in terms) + 1), order="F"), 0
        for design in designs:
            rows = rows_of(design)
            table[:, start : start + rows.shape[1]] = rows if keep.all() else rows[keep]
            start += rows.shape[1]
            del rows
        table[:, -1] = targets[keep]
        table *= scale[keep, None]
        parts[kind] = (linear.triangle(table) if len(table) > table.shape[1] else table, len(table))

    energy, scale = stacked(labels, "energy", batch.sizes)
    base = np.bincount(batch.structure, baseline_energies(references, batch.numbers), minlength=len(batch))
    add("energy", DesignRows.energy, energy - base, scale / np.sqrt(batch.sizes))
    add("forces", lambda design: design.forces(0, batch.n_atoms), *stacked(labels, "forces", batch.sizes))
    stress, scale = stacked(labels, "stress", batch.sizes)
    volume = np.repeat(batch.volumes, 6)
    add("stress", DesignRows.strain, stress * volume, scale / volume)
    return parts
