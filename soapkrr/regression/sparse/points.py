"""Sparse points of a term, chosen among all environments of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import ceil

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.execution.resources import LEARNING_BYTES, Resources
from soapkrr.kernels import Linear
from soapkrr.progress import track
from soapkrr.regression.data import TrainingData
from soapkrr.regression.terms import SparseTerm, Term
from soapkrr.selection.chunked import farthest_points
from soapkrr.selection.methods import share
from soapkrr.selection.specifications import FarthestPoint, GivenPoints, Selection, as_selection
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


#: Atoms of a chunk whose environments stay on a worker.
CHUNK = 2048


def unwhitened(term: Term, data: TrainingData, resources: Resources) -> SparseTerm:
    """The term with what its descriptor learnt and its sparse points, without a transform."""
    descriptor, points = sparse_points(term, data, resources)
    return SparseTerm(descriptor, term.kernel, term.signal, tuple(points), ())


def sparse_points(term: Term, data: TrainingData, resources: Resources) -> tuple[Descriptor, list[np.ndarray]]:
    """The term's descriptor with what it learnt from the data, and per species (M_s, n_features) sparse points.

    Of workers, farthest points are chosen where the environments are; for other selections the environments come here. Where the features
    of all environments exceed `Division.candidates` bytes, each species with too many is thinned out evenly, and a warning is logged.
    """
    descriptor = learnt(term.descriptor, data.frames, resources)
    counts = species_counts(descriptor, data.frames)
    if takes_basis(term):
        return descriptor, [resources.xp.eye(descriptor.n_features)[: None if count else 0] for count in counts]
    selection = as_selection(term.selection)
    given = isinstance(selection, GivenPoints)
    wanted = counts if given else numbers_wanted(term, counts)
    if resources.pool.remote and isinstance(selection, FarthestPoint):
        points = _farthest_on_workers(descriptor, data.frames, wanted, resources)
    else:
        points = _picked_here(descriptor, data, selection, wanted, resources)
    for symbol, x, count, n in zip(descriptor.kind_names, points, counts, wanted, strict=True):
        if count and not len(x):
            raise InputError(f"`selection`={selection!r} chooses no environment of {symbol}, which the data have.")
        if len(x) < n and not given:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(x))
    return descriptor, points


def takes_basis(term: Term) -> bool:
    """Whether the features themselves stand in place of sparse points."""
    return term.descriptor.linear_basis and isinstance(term.kernel, Linear)


def species_counts(descriptor: Descriptor, frames: list[Atoms]) -> np.ndarray:
    """(n_species,) environments of each species."""
    return np.bincount(_kinds(descriptor, frames), minlength=descriptor.n_kinds)


def _kinds(descriptor: Descriptor, frames: list[Atoms]) -> np.ndarray:
    return descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))


def row_bytes(features: int, selection: str | Selection, n_species: int) -> float:
    """Bytes, for each environment, of choosing sparse points of one species after the other."""
    return 8.0 * features * (as_selection(selection).copies + (n_species > 1))


def _picked_here(descriptor, data: TrainingData, selection: Selection, wanted, resources: Resources) -> list[np.ndarray]:
    kinds = _kinds(descriptor, data.frames)
    if isinstance(selection, GivenPoints):
        keep = np.zeros(len(kinds), dtype=bool)
        keep[selection.pick(None, 0, data.sites)] = True
    else:
        present = np.count_nonzero(species_counts(descriptor, data.frames))
        keep = candidates(kinds, wanted, resources.division.candidates / row_bytes(descriptor.n_features, selection, present))
    X, kinds, sites = environments(descriptor, data.frames, resources, keep), kinds[keep], data.sites.some(keep)
    xp, points = backends.namespace(X), []
    for s, n in enumerate(wanted):
        mine = kinds == s
        x = X if mine.all() else X[xp.asarray(mine)]
        picked = selection.pick(x, int(n), sites.some(mine)) if len(x) else np.zeros(0, dtype=np.int64)
        points.append(xp.ascontiguousarray(x[xp.asarray(picked)]))
    return points


def _farthest_on_workers(descriptor: Descriptor, frames: list[Atoms], wanted: np.ndarray, resources: Resources) -> list[np.ndarray]:
    pool, chunks, per_chunk = resources.pool, [], []
    shared = pool.share(descriptor)
    for first, members in split_by_atoms(pool.frames(frames), CHUNK):
        per_chunk.append(_kinds(descriptor, members))
        chunks.append(pool.submit(_environments_on, resources.device, shared, (first, members)))
    points = []
    for s, (symbol, n) in enumerate(zip(descriptor.kind_names, wanted, strict=True)):
        mine = [
            (pool.submit(_rows_of, chunk, k == s), np.count_nonzero(k == s)) for chunk, k in zip(chunks, per_chunk, strict=True) if s in k
        ]
        picks = farthest_points(pool, *zip(*mine, strict=True), int(n)) if mine else ()
        shown = track(picks, int(n), f"sparse points, {symbol}", resources.progress)
        points.append(np.array([x for _, x in shown]).reshape(-1, descriptor.n_features))
    return points


def _rows_of(X: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return X if mask.all() else X[mask]


def candidates(kinds: np.ndarray, wanted: np.ndarray, most: float) -> np.ndarray:
    """(n_atoms,) True for the environments among which points are chosen: all, or about ``most``, evenly spread within each species.

    Species with few environments keep all of them, none has fewer than ``wanted`` of it.
    """
    counts = np.bincount(kinds, minlength=len(wanted))
    if len(kinds) <= most:
        return np.ones(len(kinds), dtype=bool)
    low, high = 0, int(counts.max())
    while low < high:
        cap = (low + high + 1) // 2
        low, high = (cap, high) if np.minimum(counts, np.maximum(wanted, cap)).sum() <= most else (low, cap - 1)
    keep = np.zeros(len(kinds), dtype=bool)
    for s, n in enumerate(np.minimum(counts, np.maximum(wanted, low))):
        members = np.flatnonzero(kinds == s)
        keep[members[np.linspace(0, max(len(members) - 1, 0), n).round().astype(np.int64)]] = True
    logger.warning("`memory_limit`: sparse points are chosen among %d of the %d environments, spread evenly", keep.sum(), len(keep))
    return keep


def environments(descriptor: Descriptor, frames: list[Atoms], resources: Resources, keep: np.ndarray | None = None) -> np.ndarray:
    """X (n, n_features) of every atom of the data, or of those where ``keep`` (n_atoms,) is True; NumPy's when workers make it."""
    pool, xp, ends = resources.pool, resources.xp, np.cumsum([0] + [len(atoms) for atoms in frames])
    keep = np.ones(ends[-1], dtype=bool) if keep is None else keep
    groups = [(first, some) for first, some in split_by_atoms(pool.frames(frames), 2 * backends.loops(xp).GROUP)]
    masks = [keep[ends[first] : ends[first + len(some)]] for first, some in groups]
    groups, masks = [g for g, mask in zip(groups, masks, strict=True) if mask.any()], [mask for mask in masks if mask.any()]
    make, common = (_environments_on, (resources.device,)) if pool.remote else (environments_of, (xp,))
    X, start = xp.empty((np.count_nonzero(keep), descriptor.n_features)), 0
    made = resources.filling.map(make, groups, *common, pool.share(descriptor), label="environments")
    for x, mask in zip(made, masks, strict=True):
        n = np.count_nonzero(mask)
        X[start : start + n] = x if n == len(x) else x[xp.asarray(mask)]
        start += n
    return X


def environments_of(xp, descriptor: Descriptor, item: tuple[int, list[Atoms]]) -> np.ndarray:
    """(n, n_features), an array of ``xp``, of the atoms of some structures, the first of which has the index ``item[0]``."""
    first, frames = item
    groups = split_by_atoms(frames, 2 * backends.loops(xp).GROUP)
    parts = [descriptor.environments(Batch.from_atoms(group, first + offset), xp).X for offset, group in groups]
    return parts[0] if len(parts) == 1 else xp.concatenate(parts)


def _environments_on(device: str, descriptor: Descriptor, item: tuple[int, list[Atoms]]) -> np.ndarray:
    """`environments_of` with the device of a worker, as a NumPy array."""
    return backends.host(environments_of(backends.library(device), descriptor, item))


def learnt(descriptor: Descriptor, frames: list[Atoms], resources: Resources) -> Descriptor:
    """`Descriptor.fitted` on the environments of all structures, or every n-th where they exceed `Division.learning` bytes."""
    if not descriptor.learns:
        return descriptor
    size, most = 8 * descriptor.n_features * sum(map(len, frames)), resources.division.learning
    thinned = frames[:: max(1, ceil(size / most))]
    if most < size <= LEARNING_BYTES:
        logger.warning("`memory_limit`: the descriptor learns from %d of the %d structures, spread evenly", len(thinned), len(frames))
    return descriptor.fitted(environments(descriptor, thinned, resources))


def numbers_wanted(term: Term, counts: np.ndarray, warn: bool = True) -> np.ndarray:
    """Sparse points of each species, none above its number of environments ``counts``; more than exist is logged if ``warn``."""
    species, n = term.descriptor.kind_names, term.n_sparse
    if isinstance(n, Mapping):
        missing = [s for s, count in zip(species, counts, strict=True) if count and not n.get(s)]
        if missing:
            raise InputError(f"`n_sparse` names no number of sparse points for {missing}.")
        asked = np.array([n.get(s, 0) for s in species])
        for symbol, a, count in zip(species, asked, counts, strict=True):
            if warn and a > count:
                logger.warning("`n_sparse`=%d for %s exceeds its %d environments; all of them are used", a, symbol, count)
        return np.minimum(asked, counts)
    if not (isinstance(n, (int, np.integer)) and n > 0):
        raise InputError(f"`n_sparse` must be a positive integer or a mapping {{symbol: number}}, received {n!r}.")
    if warn and n > counts.sum():
        logger.warning("`n_sparse`=%d exceeds the %d environments of the data; all of them are used", n, counts.sum())
    shares = np.zeros_like(counts)
    shares[counts > 0] = share(counts[counts > 0], int(n))
    return shares
