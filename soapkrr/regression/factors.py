"""Triangles of the design rows of sparse terms: made group of structures by group, merged as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import linear
from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels, stacked
from soapkrr.regression.data import TrainingData
from soapkrr.regression.design import DesignRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, split_by_atoms


def factors_of(terms: list[SparseTerm], data: TrainingData, pool, progress: bool) -> tuple[dict, dict]:
    """{kind: triangle of [Φ | y]} of all structures, and {kind: number of rows}, worked on by ``pool`` (`Threads` or `Workers`)."""
    groups = split_by_atoms(pool.frames(data.frames), max(128, 2 * sum(t.rank for t in terms) // 3))
    items = [(group, data.labels[first : first + len(group)], first) for first, group in groups]
    parts = pool.reduce(group_factors, merged, items, pool.share(terms), data.references, label="design rows", progress=progress)
    return {kind: factor for kind, (factor, _) in parts.items()}, {kind: n for kind, (_, n) in parts.items()}


def group_factors(terms: list[SparseTerm], references, item: tuple) -> dict:
    """`design_factors` of (structures, labels, index of the first)."""
    frames, labels, first = item
    return design_factors(terms, frames, labels, references, first)


def merged(one: dict, other: dict) -> dict:
    """The `design_factors` of two groups of structures as those of one."""
    parts = dict(one)
    for kind, (factor, n) in other.items():
        parts[kind] = (linear.merge([parts[kind][0], factor]), parts[kind][1] + n) if kind in parts else (factor, n)
    return parts


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
        rows = [rows_of(design) for design in designs]
        table = np.empty((np.count_nonzero(keep), sum(r.shape[1] for r in rows) + 1), order="F")
        np.concatenate([r[keep] for r in rows], axis=1, out=table[:, :-1])
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
