"""Sparse points of a term, chosen among all environments of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.chunked_selection import farthest_points
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.kernels import Linear
from soapkrr.progress import track
from soapkrr.regression.footprint import LEARNING_BUDGET, row_bytes
from soapkrr.regression.terms import Term
from soapkrr.selection import share
from soapkrr.selectors import FarthestPoint, GivenPoints, Sites, as_selection
from soapkrr.structures import Batch, split_by_atoms

logger = logging.getLogger(__name__)


#: Atoms of a chunk whose environments stay on a worker.
CHUNK = 2048


def sparse_points(
    term: Term, frames: list[Atoms], pool, device: str, progress: bool, limit: int | None = None, learning: int | None = None
) -> tuple[Descriptor, list[np.ndarray]]:
    """The term's descriptor with what it learnt from the data, and per species (M_s, n_features) sparse points.

    ``pool``: `Threads`, and the points are arrays of ``device``, or `Workers`, and they are NumPy's. Of `Workers`, farthest points are
    chosen where the environments are; for other selections the environments come here.  ``limit``: bytes for the features of the
    environments among which points are chosen; where all would exceed it, each species with too many is thinned out evenly, and a warning
    is logged.  ``learning``: as ``limit`` of `learnt`.
    """
    descriptor = learnt(term.descriptor, frames, pool, device, progress, learning)
    kinds = descriptor.kinds(np.concatenate([atoms.numbers for atoms in frames]))
    counts = np.bincount(kinds, minlength=len(descriptor.species))
    if descriptor.linear_basis and isinstance(term.kernel, Linear):
        xp = _library(pool, device)
        return descriptor, [xp.eye(descriptor.n_features)[: None if count else 0] for count in counts]
    selection = as_selection(term.selection)
    given = isinstance(selection, GivenPoints)
    wanted = counts if given else numbers_wanted(term, counts)
    if pool.remote and isinstance(selection, FarthestPoint):
        points = _farthest_on_workers(descriptor, frames, kinds, wanted, pool, device, progress)
    else:
        if given:
            keep = np.zeros(len(kinds), dtype=bool)
            keep[selection.pick(None, 0, Sites.of(frames))] = True
        else:
            most = None if limit is None else int(limit / row_bytes(descriptor.n_features, selection, np.count_nonzero(counts)))
            keep = candidates(kinds, wanted, most)
        points = _picked_here(descriptor, frames, kinds, keep, wanted, selection, pool, device, progress)
    for symbol, x, count, n in zip(descriptor.species, points, counts, wanted, strict=True):
        if count and not len(x):
            raise InputError(f"`selection`={selection!r} chooses no environment of {symbol}, which the data have.")
        if len(x) < n and not given:
            logger.warning("%s: %d sparse points, all distinct environments there are", symbol, len(x))
    return descriptor, points


def _picked_here(descriptor, frames, kinds, keep, wanted, selection, pool, device, progress) -> list[np.ndarray]:
    X, kinds, sites = environments(descriptor, frames, pool, device, progress, keep), kinds[keep], Sites.of(frames).some(keep)
    xp, points = backends.namespace(X), []
    for s, n in enumerate(wanted):
        mine = kinds == s
        x = X if mine.all() else X[xp.asarray(mine)]
        picked = selection.pick(x, int(n), sites.some(mine)) if len(x) else np.zeros(0, dtype=np.int64)
        points.append(xp.ascontiguousarray(x[xp.asarray(picked)]))
    return points


def _farthest_on_workers(descriptor, frames, kinds, wanted, pool, device, progress) -> list[np.ndarray]:
    shared, chunks, per_chunk, start = pool.share(descriptor), [], [], 0
    for first, members in split_by_atoms(pool.frames(frames), CHUNK):
        stop = start + sum(map(len, members))
        per_chunk.append(kinds[start:stop])
        chunks.append(pool.submit(_environments_on, device, shared, (first, members)))
        start = stop
    points = []
    for s, (symbol, n) in enumerate(zip(descriptor.species, wanted, strict=True)):
        mine = [
            (pool.submit(_rows_of, chunk, k == s), np.count_nonzero(k == s)) for chunk, k in zip(chunks, per_chunk, strict=True) if s in k
        ]
        picks = track(farthest_points(pool, *zip(*mine, strict=True), int(n)), int(n), f"sparse points, {symbol}", progress) if mine else ()
        points.append(np.array([x for _, x in picks]).reshape(-1, descriptor.n_features))
    return points


def _rows_of(X: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return X if mask.all() else X[mask]


def _library(pool, device: str):
    """What this process computes with: beside workers, NumPy."""
    return np if pool.remote else backends.library(device)


def candidates(kinds: np.ndarray, wanted: np.ndarray, most: int | None) -> np.ndarray:
    """(n_atoms,) True for the environments among which points are chosen: all, or about ``most``, evenly spread within each species.

    Species with few environments keep all of them, none has fewer than ``wanted`` of it.
    """
    counts = np.bincount(kinds, minlength=len(wanted))
    if most is None or len(kinds) <= most:
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


def environments(
    descriptor: Descriptor, frames: list[Atoms], pool, device: str, progress: bool, keep: np.ndarray | None = None
) -> np.ndarray:
    """X (n, n_features) of every atom of the data, or of those where ``keep`` (n_atoms,) is True.

    An array of ``device``, or of NumPy when workers make it.
    """
    xp, ends = _library(pool, device), np.cumsum([0] + [len(atoms) for atoms in frames])
    keep = np.ones(ends[-1], dtype=bool) if keep is None else keep
    groups = [(first, some) for first, some in split_by_atoms(pool.frames(frames), 2 * backends.loops(xp).GROUP)]
    masks = [keep[ends[first] : ends[first + len(some)]] for first, some in groups]
    groups, masks = [g for g, mask in zip(groups, masks, strict=True) if mask.any()], [mask for mask in masks if mask.any()]
    make, common = (_environments_on, (device,)) if pool.remote else (environments_of, (xp,))
    X, start = xp.empty((np.count_nonzero(keep), descriptor.n_features)), 0
    made = pool.map(make, groups, *common, pool.share(descriptor), label="environments", progress=progress)
    for x, mask in zip(made, masks, strict=True):
        n = np.count_nonzero(mask)
        X[start : start + n] = x if n == len(x) else x[xp.asarray(mask)]
        start += n
    return X


def environments_of(xp, descriptor: Descriptor, item: tuple[int, list[Atoms]]) -> np.ndarray:
    """(n, n_features), an array of ``xp``, of the atoms of some structures, the first of which has the index ``item[0]``."""
    first, frames = item
    parts = []
    for offset, group in split_by_atoms(frames, 2 * backends.loops(xp).GROUP):
        batch = Batch.from_atoms(group, first + offset)
        parts.append(descriptor.environments(batch, batch.pairs(descriptor.r_cut, first + offset, xp), first + offset).X)
    return parts[0] if len(parts) == 1 else xp.concatenate(parts)


def _environments_on(device: str, descriptor: Descriptor, item: tuple[int, list[Atoms]]) -> np.ndarray:
    """`environments_of` with the device of a worker, as a NumPy array."""
    return backends.host(environments_of(backends.library(device), descriptor, item))


def learnt(descriptor: Descriptor, frames: list[Atoms], pool, device: str, progress: bool, limit: int | None = None) -> Descriptor:
    """`Descriptor.fitted` on the environments of all structures, or every n-th where they exceed `LEARNING_BUDGET` or ``limit`` bytes."""
    if not descriptor.learns:
        return descriptor
    size, budget = 8 * descriptor.n_features * sum(map(len, frames)), LEARNING_BUDGET if limit is None else min(LEARNING_BUDGET, limit)
    thinned = frames[:: -(-size // budget)]
    if budget < size <= LEARNING_BUDGET:
        logger.warning("`memory_limit`: the descriptor learns from %d of the %d structures, spread evenly", len(thinned), len(frames))
    return descriptor.fitted(environments(descriptor, thinned, pool, device, progress))


def numbers_wanted(term: Term, counts: np.ndarray, warn: bool = True) -> np.ndarray:
    """Sparse points of each species, none above its number of environments ``counts``; more than exist is logged if ``warn``."""
    species, n = term.descriptor.species, term.n_sparse
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
