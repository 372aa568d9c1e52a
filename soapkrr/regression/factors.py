"""Triangles of the design rows of sparse terms: made group of structures by group, merged as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from ase import Atoms

from soapkrr import backends, linear
from soapkrr.baselines import baseline_energies
from soapkrr.labels import Labels, stacked
from soapkrr.parallel import halving, thread_map
from soapkrr.regression.data import TrainingData
from soapkrr.regression.design import DesignRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, halves, split_by_atoms

#: Atoms at least whose rows one triangle absorbs before it is merged with others; more where there are more features than that.
LANE = 1024

#: Sparse points from which a triangle, or the whitening of their kernel, is worth a thread of its own.
MANY = 2000


def kernel_factors(
    terms: list[SparseTerm],
    data: TrainingData,
    pool,
    device: str,
    progress: bool,
    group: int | None = None,
    lane: int | None = None,
) -> tuple[dict, dict]:
    """{kind: triangle of [K | y]} of all structures, and {kind: number of rows}, worked on by ``pool`` (`Threads` or `Workers`).

    K are the rows of kernel values with the sparse points: whitening their triangle in the end gives that of Φ at a part of the work.
    The terms need no transform yet.

    Structures are dealt out in lanes, whose triangles absorb rows group by group and are merged by a tree: neither depends on threads.
    ``device``: what workers compute with; threads of this process go by the arrays of the terms. ``group``, ``lane``: atoms of the groups
    and lanes of a process whose memory is limited.
    """
    lanes = split_by_atoms(pool.frames(data.frames), lane or lane_atoms(sum(t.n_points for t in terms), sum(map(len, data.frames))))
    items = [(frames, data.labels[first : first + len(frames)], first) for first, frames in lanes]
    make, common = (_lane_on, (device, pool.share(terms))) if pool.remote else (partial(lane_factors, group), (terms,))
    parts = pool.reduce(make, merged, items, *common, data.references, label="design rows", progress=progress)
    return {kind: factor for kind, (factor, _) in parts.items()}, {kind: n for kind, (_, n) in parts.items()}


def whitened_factors(terms: list[SparseTerm], factors: dict, pool) -> dict:
    """{kind: triangle of [Φ | y]} from those of [K | y]."""
    threads = None if pool.remote else pool.threads
    return {kind: _whitened(terms, factor, threads) for kind, factor in factors.items()}


def _whitened(terms: list[SparseTerm], factor: np.ndarray, threads: int | None) -> np.ndarray:
    xp, n, step = backends.namespace(factor), len(factor), backends.of(factor).ROWS // 8
    table = xp.empty((n, sum(t.rank for t in terms) + 1), order="F")
    ends = np.cumsum([0] + [len(x) for t in terms for x in t.points])

    def fill(start):
        rows, column = factor[start : start + step], 0
        kernel_rows = [rows[:, a:b] for a, b in zip(ends, ends[1:], strict=False)]
        for term in terms:
            table[start : start + step, column : column + term.rank] = term.whiten(kernel_rows[: len(term.points)])
            kernel_rows, column = kernel_rows[len(term.points) :], column + term.rank

    for _ in thread_map(fill, range(0, n, step), threads):
        pass
    table[:, -1] = factor[:, -1]
    # A triangle times triangular transforms is one already, to the zero, and kept as it is.
    return linear.absorb(None, table)


def lane_atoms(n_points: int, n_atoms: int) -> int:
    """Atoms of a lane: about `LANE` or the number of sparse points, such that lanes are equal and even in number."""
    lanes = -(-n_atoms // max(LANE, n_points))
    # Structures stay whole: a few atoms more, so that none is left for a lane of its own.
    return int(1.02 * n_atoms / (lanes + lanes % 2)) + 1 if lanes > 1 else max(n_atoms, 1)


def whitens_beside(n_points: int, threads: int | None) -> bool:
    """Whether eigenvectors of so many sparse points are found while rows are made, where memory is no matter."""
    return n_points > MANY and threads != 1


def lane_factors(atoms: int | None, terms: list[SparseTerm], references, item: tuple) -> dict:
    """{kind: (triangle of [K | y], number of rows)} of (consecutive structures, labels, index of the first).

    ``atoms`` of a group; None: what suits the arrays. A group whose rows do not fit into a GPU's memory is made in halves.
    """
    frames, labels, first = item
    factors: dict = {}

    def rows(group):
        start, members = group
        return list(tables(terms, members, labels[start - first :][: len(members)], references, start))

    smaller = partial(halves, work="design rows", instead="use fewer sparse points")
    for start, members in split_by_atoms(frames, atoms or backends.of(terms[0].points[0]).GROUP):
        for made in halving(rows, (first + start, members), smaller):
            while made:
                kind, table = made.pop(0)
                old, n = factors.get(kind, (None, 0))
                factors[kind] = linear.absorb(old, table), n + len(table)
    return factors


def _lane_on(device: str, terms: list[SparseTerm], references, item: tuple) -> dict:
    """`lane_factors` computed with the device of a worker; NumPy arrays in and out."""
    xp = backends.library(device)
    return backends.host(lane_factors(None, [t.moved(xp) for t in terms], references, item))


def merged(one: dict, other: dict) -> dict:
    """The `lane_factors` of two lanes as those of one."""
    both = [kind for kind in one if kind in other]
    threads = None if one and next(iter(one.values()))[0].shape[1] > MANY else 1
    factors = thread_map(lambda kind: linear.merge([one[kind][0], other[kind][0]]), both, threads)
    return {**one, **other, **{kind: (factor, one[kind][1] + other[kind][1]) for kind, factor in zip(both, factors, strict=True)}}


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
