"""Triangles of the design rows of sparse terms: made group of structures by group, merged as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from ase import Atoms

from soapkrr import backends, linear
from soapkrr.baselines import baseline_energies
from soapkrr.execution.blocks import halved_group, split_on_out_of_memory
from soapkrr.execution.resources import Division, Resources
from soapkrr.labels import Labels, stacked
from soapkrr.regression.data import TrainingData
from soapkrr.regression.layout import Table
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.sparse.kept import KeptRows
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import Batch, split_by_atoms
from soapkrr.threads import thread_map

#: Atoms at least whose rows one triangle absorbs before it is merged with others; more where there are more features than that.
CHUNK = 1024

#: Sparse points from which a triangle, or the whitening of their kernel, is worth a thread of its own.
MANY = 2000


def kernel_triangles(
    terms: Sequence[SparseTerm], data: TrainingData, resources: Resources, kept: KeptRows | None = None
) -> tuple[dict, dict]:
    """{kind: triangle of [K | y]} of all structures, and {kind: number of rows}; rows go into ``kept`` unless they are made elsewhere.

    K are the rows of kernel values with the sparse points: whitening their triangle in the end gives that of Φ at a part of the work.
    The terms need no transform yet.

    Structures are dealt out in chunks, whose triangles absorb rows group by group and are merged by a tree: neither depends on threads.
    """
    pool, division = resources.pool, resources.division
    chunks = split_by_atoms(pool.frames(data.frames), chunk_size(terms, data, division))
    items = [(frames, data.labels[first : first + len(frames)], first) for first, frames in chunks]
    if pool.remote:
        make, common = _chunk_on, (resources.device, pool.share(terms))
    else:
        make, common = partial(chunk_triangles, division.group, kept=None if kept is None else (kept, data.order)), (terms,)
    parts = resources.reduce(make, merged, items, *common, data.references, label="design rows")
    return {kind: triangle for kind, (triangle, _) in parts.items()}, {kind: n for kind, (_, n) in parts.items()}


def whitened_triangles(terms: Sequence[SparseTerm], triangles: Mapping, threads: int | None) -> dict:
    """{kind: triangle of [Φ | y]} from those of [K | y]."""
    return {kind: _whitened(terms, triangle, threads) for kind, triangle in triangles.items()}


def _whitened(terms: Sequence[SparseTerm], triangle: np.ndarray, threads: int | None) -> np.ndarray:
    xp, n, step = backends.namespace(triangle), len(triangle), backends.of(triangle).ROWS // 8
    table = xp.empty((n, sum(t.rank for t in terms) + 1), order="F")

    def fill(start):
        table[start : start + step, :-1] = whitened_rows(terms, triangle[start : start + step, :-1])

    for _ in thread_map(fill, range(0, n, step), threads):
        pass
    table[:, -1] = triangle[:, -1]
    # A triangle times triangular transforms is one already, to the zero, and kept as it is.
    return linear.absorb(None, table)


def whitened_rows(terms: Sequence[SparseTerm], rows: np.ndarray) -> np.ndarray:
    """Features Φ (m, rank) of all terms from kernel rows K (m, n_points)."""
    bounds = np.cumsum([0] + [len(x) for t in terms for x in t.points])
    kernel_rows = [rows[:, a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    parts = [term.whiten([kernel_rows.pop(0) for _ in term.points]) for term in terms]
    return parts[0] if len(parts) == 1 else backends.namespace(rows).concatenate(parts, axis=1)


def chunk_size(terms: Sequence[SparseTerm], data: TrainingData, division: Division) -> int:
    """Atoms of a chunk of these data."""
    return max(division.chunk, chunk_atoms(sum(t.n_points for t in terms), int(data.sizes.sum())))


def made_together(terms: Sequence[SparseTerm], data: TrainingData, division: Division) -> list[np.ndarray]:
    """Structures whose rows `kernel_triangles` makes at once."""
    groups = []
    for first, frames in split_by_atoms(data.frames, chunk_size(terms, data, division)):
        groups += [first + start + np.arange(len(members)) for start, members in split_by_atoms(frames, division.group)]
    return groups


def chunk_atoms(n_points: int, n_atoms: int) -> int:
    """Atoms of a chunk: about `CHUNK` or the number of sparse points, such that chunks are equal and even in number."""
    chunks = -(-n_atoms // max(CHUNK, n_points))
    # Structures stay whole: a few atoms more, so that none is left for a chunk of its own.
    return int(1.02 * n_atoms / (chunks + chunks % 2)) + 1 if chunks > 1 else max(n_atoms, 1)


def whitens_concurrently(n_points: int, threads: int) -> bool:
    """Whether eigenvectors of so many sparse points are found while rows are made, where memory is no matter."""
    return n_points > MANY and threads != 1


def chunk_triangles(
    group: int, terms: Sequence[SparseTerm], references: Mapping[str, float], item: tuple, kept: tuple[KeptRows, np.ndarray] | None = None
) -> dict:
    """{kind: (triangle of [K | y], number of rows)} of (consecutive structures, labels, index of the first), by groups of so many atoms.

    ``kept``: where rows are kept, and the place of every structure in the list that the user gave.

    A group whose rows do not fit into a GPU's memory is made in halves.
    """
    frames, labels, first = item
    triangles: dict = {}

    def rows(part):
        start, members = part
        made = list(tables(terms, members, labels[start - first :][: len(members)], references, start, kept is not None))
        if kept is not None:
            kept[0].put(made, start, kept[1][start : start + len(members)])
        return made

    smaller = partial(halved_group, work="design rows", instead="use fewer sparse points")
    for start, members in split_by_atoms(frames, group):
        for made in split_on_out_of_memory(rows, (first + start, members), smaller):
            while made:
                table = made.pop(0)
                old, n = triangles.get(table.kind, (None, 0))
                triangles[table.kind] = linear.absorb(old, table.array), n + len(table)
                del table  # as large as the triangle
    return triangles


def _chunk_on(device: str, terms: Sequence[SparseTerm], references: Mapping[str, float], item: tuple) -> dict:
    """`chunk_triangles` computed with the device of a worker; NumPy arrays in and out."""
    xp = backends.library(device)
    return backends.host(chunk_triangles(backends.loops(xp).GROUP, [t.moved(xp) for t in terms], references, item))


def merged(one: dict, other: dict) -> dict:
    """The `chunk_triangles` of two chunks as those of one."""
    both = [kind for kind in one if kind in other]
    threads = None if one and next(iter(one.values()))[0].shape[1] > MANY else 1
    triangles = thread_map(lambda kind: linear.merge([one[kind][0], other[kind][0]]), both, threads)
    return {**one, **other, **{kind: (t, one[kind][1] + other[kind][1]) for kind, t in zip(both, triangles, strict=True)}}


def rescaled(terms: Sequence[SparseTerm], triangles: Mapping, signals: Sequence[float]) -> tuple[list[SparseTerm], dict]:
    """Terms with other signals, and their triangles' columns scaled to match."""
    columns = np.concatenate([np.full(t.rank, new / t.signal) for t, new in zip(terms, signals, strict=True)] + [[1.0]])
    columns = terms[0].xp.asarray(columns)
    return [replace(t, signal=s) for t, s in zip(terms, signals, strict=True)], {kind: f * columns for kind, f in triangles.items()}


def tables(
    terms: Sequence[SparseTerm],
    frames: list[Atoms],
    labels: list[Labels],
    references: Mapping[str, float],
    first: int,
    priors: bool = False,
) -> Iterator[Table]:
    """Tables of kernel rows K of a group of structures; components without a label have no row. ``first``: index of the first structure.

    Stresses are ∂E/∂ε with σ times the volume. With ``priors`` the tables have prior variances too.
    """
    batch = Batch.from_atoms(frames, first)
    designs = [DesignRows(term, batch) for term in terms]
    energy, scale = stacked(labels, "energy", batch.sizes)
    base = np.bincount(batch.structure, baseline_energies(references, batch.numbers), minlength=len(batch))
    volume = np.repeat(batch.volumes, 6)
    stress, stress_scale = stacked(labels, "stress", batch.sizes)
    structures = np.arange(first, first + len(batch))
    for kind, shape, owner, targets, sharpness in (
        ("energy", (len(batch),), structures, energy - base, scale / np.sqrt(batch.sizes)),
        ("forces", (batch.n_atoms, 3), np.repeat(batch.frame, 3), *stacked(labels, "forces", batch.sizes)),
        ("stress", (len(batch), 6), np.repeat(structures, 6), stress * volume, stress_scale / volume),
    ):
        keep = np.flatnonzero(np.isfinite(targets))
        if len(keep):
            columns, prior = zip(*(_rows(design, kind, shape, priors) for design in designs), strict=True)
            own = np.column_stack([backends.host(p).ravel() for p in prior])[keep] * sharpness[keep, None] ** 2 if priors else None
            yield Table(kind, owner[keep], 1 / sharpness[keep], _side_by_side(sum(columns, []), targets, sharpness, keep), own)


def _rows(design: DesignRows, kind: str, shape: tuple, priors: bool) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Kernel rows of all observations of one kind, and with ``priors`` their prior variances, of unit signal."""
    if kind == "energy":
        return design.energy(), design.energy_prior() if priors else None
    prior = design.xp.zeros(shape) if priors else None
    return (design.forces if kind == "forces" else design.strain)(0, shape[0], prior), prior


def _side_by_side(rows: list[np.ndarray], targets: np.ndarray, sharpness: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """[K | y] of the rows to keep, each times its ``sharpness``, K given by columns; Fortran-ordered for `linear.absorb`."""
    xp, columns = backends.namespace(rows[0]), np.cumsum([0] + [r.shape[1] for r in rows])
    table = xp.empty((len(keep), columns[-1] + 1), order="F")
    all_kept, factor, at = len(keep) == len(targets), xp.asarray(sharpness[keep])[:, None], xp.asarray(keep)
    for r, a, b in zip(rows, columns, columns[1:], strict=False):
        xp.multiply(r if all_kept else r[at], factor, out=table[:, a:b])
    table[:, -1] = xp.asarray(targets[keep] * sharpness[keep])
    return table
