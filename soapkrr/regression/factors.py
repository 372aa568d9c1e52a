"""Triangles of the design rows of sparse terms: made group of structures by group, merged as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr import backends, linear
from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels, stacked
from soapkrr.parallel import thread_map
from soapkrr.progress import track
from soapkrr.regression.data import TrainingData
from soapkrr.regression.design import DesignRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, split_by_atoms

#: Atoms at least whose rows one triangle absorbs before it is merged with others; more where there are more features than that.
LANE = 1024


def factors_of(terms: list[SparseTerm], data: TrainingData, threads: int | None, progress: bool) -> tuple[dict, dict]:
    """{kind: triangle of [Φ | y]} of all structures, and {kind: number of rows}.

    Structures are dealt out in lanes, whose triangles absorb rows group by group and are merged in the end: neither depends on threads.
    """
    lanes = list(split_by_atoms(data.frames, max(LANE, sum(t.n_points for t in terms))))
    parts = thread_map(lambda lane: lane_factors(terms, *lane, data), lanes, threads)
    factors, counts = merged(track(parts, len(lanes), "design rows", progress))
    return {kind: whitened(terms, factor) for kind, factor in factors.items()}, counts


def lane_factors(terms: list[SparseTerm], first: int, frames: list[Atoms], data: TrainingData) -> dict:
    """{kind: (triangle of [K | y], number of rows)} of consecutive structures, the first of which is number ``first`` of the data.

    K are the rows of kernel values with the sparse points: whitening their triangle in the end gives that of Φ at a part of the work.
    """
    factors: dict = {}
    group_size = backends.of(terms[0].points[0]).GROUP
    for start, group in split_by_atoms(frames, group_size):
        start += first
        for kind, table in tables(terms, group, data.labels[start : start + len(group)], data.references, start):
            old, n = factors.get(kind, (None, 0))
            factors[kind] = linear.absorb(old, table), n + len(table)
    return factors


def merged(parts) -> tuple[dict, dict]:
    """One triangle and number of rows per kind, of several `lane_factors` in order."""
    factors, counts = {}, {}
    for part in parts:
        for kind, (factor, n) in part.items():
            factors[kind] = linear.absorb(factors.get(kind), factor)
            counts[kind] = counts.get(kind, 0) + n
    return factors, counts


def whitened(terms: list[SparseTerm], factor: np.ndarray) -> np.ndarray:
    """Triangle of [Φ | y] from that of [K | y]."""
    xp, ends = backends.namespace(factor), np.cumsum([0] + [len(x) for t in terms for x in t.points])
    kernel_rows = [factor[:, a:b] for a, b in zip(ends, ends[1:], strict=False)]
    columns = []
    for term in terms:
        columns.append(term.whiten(kernel_rows[: len(term.points)]))
        kernel_rows = kernel_rows[len(term.points) :]
    return linear.absorb(None, xp.asfortranarray(xp.concatenate([*columns, factor[:, -1:]], axis=1)))


def rescaled(terms: list[SparseTerm], factors: Mapping[str, np.ndarray], signals) -> tuple[list[SparseTerm], dict[str, np.ndarray]]:
    """Terms with other signals, and their triangles' columns scaled to match."""
    columns = np.concatenate([np.full(t.rank, new / t.signal) for t, new in zip(terms, signals, strict=True)] + [[1.0]])
    columns = terms[0].xp.asarray(columns)
    return [replace(t, signal=s) for t, s in zip(terms, signals, strict=True)], {kind: f * columns for kind, f in factors.items()}


def tables(terms: list[SparseTerm], frames: list[Atoms], labels: list[Labels], references, first: int):
    """Yield (kind, rows [K | y]) of a group of structures; energies are per atom times √N.

    Rows are multiplied by noise/σ where they have a σ of their own (`Labels.scale`); components without a label have no row.
    """
    batch = Batch.from_atoms(frames, first)
    designs = [DesignRows(term, batch, first) for term in terms]
    energy, scale = stacked(labels, "energy", batch.sizes)
    base = np.bincount(batch.structure, baseline_energies(references, batch.numbers), minlength=len(batch))
    volume = np.repeat(batch.volumes, 6)
    stress, stress_scale = stacked(labels, "stress", batch.sizes)
    for kind, rows_of, targets, scales in (
        ("energy", DesignRows.energy, energy - base, scale / np.sqrt(batch.sizes)),
        ("forces", lambda design: design.forces(0, batch.n_atoms), *stacked(labels, "forces", batch.sizes)),
        ("stress", DesignRows.strain, stress * volume, stress_scale / volume),
    ):
        keep = np.isfinite(targets)
        if keep.any():
            yield kind, _table([rows for design in designs for rows in rows_of(design)], targets, scales, np.flatnonzero(keep))


def _table(rows: list[np.ndarray], targets: np.ndarray, scales: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """[K | y] of the rows to keep, scaled, K given by columns; Fortran-ordered for `linear.absorb`."""
    xp, columns = backends.namespace(rows[0]), np.cumsum([0] + [r.shape[1] for r in rows])
    table = xp.empty((len(keep), columns[-1] + 1), order="F")
    all_kept, scale, at = len(keep) == len(targets), xp.asarray(scales[keep])[:, None], xp.asarray(keep)
    for r, a, b in zip(rows, columns, columns[1:], strict=False):
        xp.multiply(r if all_kept else r[at], scale, out=table[:, a:b])
    table[:, -1] = xp.asarray(targets[keep] * scales[keep])
    return table
